"""Kinks, losses, labels, targets and biases: derived, solved, and compared with networks trained on real inputs.

Each model is compared twice: with networks, and with exact chains at a larger d, which fluctuate less and see smaller
mistakes. Both must agree with the theory, and both must tell it from one that is wrong by as much as they claim to see.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from effdyn import solve, validate
from effdyn.derive import TeacherStudent

TWO = {"Q": np.diag([0.4, 0.6]), "R": np.array([[0.3, 0.05], [0.05, 0.4]])}
THREE = {"Q": np.diag([0.3, 0.5, 0.4]), "R": np.array([[0.3, 0.05], [0.02, 0.2], [0.02, -0.1]])}
# Far from the symmetric start, where products of fields are flat.
PRODUCT_2 = {"Q": np.diag([1.0, 1.2]), "R": np.array([[0.5, 0.4], [0.5, -0.4]])}
PRODUCT_3 = {"Q": np.diag([1.0, 1.2]), "R": np.array([[0.5, 0.4, 0.45], [0.3, 0.5, -0.4]])}
ONE = {"Q": [[0.6]], "R": [[0.2]]}
UNITS = {"sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}
LINEAR = {"a": 1.0, "b": 1.0}


@dataclass(frozen=True)
class Case:
    """A model and a run of it, long enough for the overlaps to move by much more than they fluctuate.

    ``wrong`` is what theory must not be confused with: factors of its parameters, by engine. ``variables`` are what is
    compared, where it is not everything.
    """

    model: TeacherStudent
    y0: dict[str, Any]
    params: dict[str, Any]
    t_end: float = 3.0
    wrong: dict[str, dict[str, float]] = field(default_factory=lambda: {"network": {"eta": 1.1}, "gram": {"eta": 1.05}})
    variables: tuple[str, ...] | None = None


def classifier(**options):
    """A linear student of a linear teacher."""
    return TeacherStudent(activation="linear", **options)


STEEP = {"network": {"a": 1.1}, "gram": {"a": 1.05}}  # cubes fluctuate: less is seen of a rate, more of an amplitude

CASES = {
    "relu, both layers": Case(
        TeacherStudent(activation="relu", second_layer="trained"),
        THREE | {"a": [0.8, 0.7, -0.5]},
        {"eta": 0.8, "eta_a": 0.4, "sigma": 0.3, "T": np.eye(2), "b": 1.0},
    ),
    "tanh learns erf": Case(TeacherStudent(activation="tanh", teacher_activation="erf"), TWO, UNITS | {"eta": 1.0}),
    "leaky relu": Case(TeacherStudent(activation="Max(x, x/10)"), TWO, UNITS | {"eta": 0.5}),
    "|h|": Case(TeacherStudent(activation=abs), TWO, UNITS | {"eta": 0.3}),
    "square": Case(
        TeacherStudent(activation="square"),
        {"Q": [[0.5]], "R": [[0.4]]},
        LINEAR | {"eta": 0.05, "sigma": 0.1, "T": [[1.0]]},
    ),
    "biases": Case(
        TeacherStudent(activation="erf", biases=True),
        TWO | {"bias": [0.1, -0.2]},
        UNITS | {"eta": 1.0, "eta_bias": 0.7, "teacher_bias": [0.3, -0.5]},
    ),
    "logistic loss, logistic labels": Case(
        classifier(labels="logistic", loss="logistic"), ONE, LINEAR | {"eta": 2.0, "T": [[4.0]]}
    ),
    "hinge loss, flipped signs": Case(
        classifier(labels="sign", loss="hinge"), ONE, LINEAR | {"eta": 1.0, "flip": 0.1, "T": [[1.0]]}
    ),
    "perceptron loss, signs": Case(
        classifier(labels="sign", loss="perceptron"), ONE, LINEAR | {"eta": 1.0, "flip": 0.0, "T": [[1.0]]}
    ),
    "He3 learns h1 h2 h3": Case(
        TeacherStudent(activation="He3", target="h1*h2*h3"),
        PRODUCT_3,
        {"eta": 0.02, "sigma": 0.1, "T": np.eye(3), "a": 0.3},
        t_end=6.0,
        wrong=STEEP,
    ),
    "erf learns sign(h1 h2)": Case(
        TeacherStudent(activation="erf", target="sign(h1*h2)"),
        PRODUCT_2,
        {"eta": 0.5, "sigma": 0.1, "T": np.eye(2), "a": [1.0, -1.0]},
    ),
    "He3 learns sign(h1 h2 h3)": Case(
        TeacherStudent(activation="He3", target="sign(h1*h2*h3)"),
        PRODUCT_3,
        {"eta": 0.02, "sigma": 0.1, "T": np.eye(3), "a": 0.3},
        t_end=6.0,
        wrong=STEEP,
        variables=("Q", "R"),  # eg is averaged over drawn points: too coarse for squares of cubes
    ),
}
SIZES = {"network": (300, 200), "gram": (5000, 48)}
"""By engine, d and runs: the mean of an overlap has a standard error of about 1/√(d·runs), 0.004 and 0.002."""
SLOW = {"tanh learns erf", "leaky relu", "|h|", "He3 learns sign(h1 h2 h3)"}
"""What is a second witness of what others show: kinks and products by ReLU, hinges and He3, numerical expectations by a
user's function. To compile one takes up to half a minute."""


def solved(case, times, **changed):
    """Theory at these times, perhaps with other parameters. Its error is a thousandth of what the samples resolve."""
    params = case.params | changed
    return solve.integrate(case.model.dynamics(), (0, case.t_end), case.y0, params, t_eval=times, rtol=1e-6)


@pytest.mark.parametrize(
    ("engine", "name"),
    [pytest.param(engine, name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES for engine in SIZES],
)
def test_theory_agrees_and_a_wrong_one_does_not(engine, name):
    case, (d, runs) = CASES[name], SIZES[engine]
    simulation = validate.simulate(
        case.model,
        d,
        runs,
        (0, case.t_end),
        y0=case.y0,
        params=case.params,
        t_eval=np.linspace(0, case.t_end, 7),
        rng=20260101,
        engine=engine,
        progress=False,
    )
    theory = solved(case, simulation.t.values)
    verdict = validate.compare(theory, simulation, variables=case.variables)
    assert verdict.passed, verdict
    if case.variables is None:
        assert {*case.y0, "eg" if case.model.labels == "real" else "error_rate"} <= set(
            verdict.summary.observable.values
        )

    changed = {name: factor * np.asarray(case.params[name]) for name, factor in case.wrong[engine].items()}
    wrong = solved(case, simulation.t.values, **changed).assign_attrs(parameters=theory.attrs["parameters"])
    assert validate.compare(wrong, simulation, variables=case.variables).status == "FAIL", f"{changed} was not seen"
