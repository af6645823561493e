"""A user's numerical functions, simulated by both engines: theory agrees, and a wrong one does not."""

import math

import numpy as np
import pytest

from effdyn import solve, validate
from effdyn.derive import TeacherStudent
from effdyn.validate.generated import source


def mix(x):
    return math.atan(x) / 2 + x / math.sqrt(1 + x * x)


def mix_slope(x):
    return 0.5 / (1 + x * x) + (1 + x * x) ** -1.5


def softsign(x):
    return x / (1 + abs(x))


def softsign_slope(x):
    return 1 / (1 + abs(x)) ** 2


START = {"Q": np.diag([0.4, 0.6]), "R": np.array([[0.3, 0.05], [0.05, 0.4]])}
PARAMS = {"eta": 1.0, "sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}
TIMES = np.linspace(0, 3, 7)
MODEL = TeacherStudent(activation=(mix, mix_slope))
SIZES = {"network": (300, 200), "gram": (5000, 48)}
"""By engine, d and runs: the mean of an overlap has a standard error of about 1/√(d·runs), 0.004 and 0.002."""
VISIBLE = {"network": 1.1, "gram": 1.05}
"""Wrong by these factors, a learning rate moves overlaps by several of these errors."""


def simulated(model, engine, d, runs, t_eval=TIMES):
    return validate.simulate(
        model,
        d,
        runs,
        (0, t_eval[-1]),
        y0=START,
        params=PARAMS,
        t_eval=t_eval,
        rng=20260101,
        engine=engine,
        progress=False,
    )


@pytest.mark.parametrize("engine", SIZES)
def test_theory_agrees_and_a_wrong_one_does_not(engine):
    simulation = simulated(MODEL, engine, *SIZES[engine])
    dynamics, times = MODEL.dynamics(), simulation.t.values
    theory = solve.integrate(dynamics, (0, 3), START, PARAMS, t_eval=times, rtol=1e-9)
    verdict = validate.compare(theory, simulation)
    assert verdict.passed, verdict
    assert {"Q", "R", "eg"} <= set(verdict.summary.observable.values)

    wrong = PARAMS | {"eta": VISIBLE[engine] * PARAMS["eta"]}
    other = solve.integrate(dynamics, (0, 3), START, wrong, t_eval=times, rtol=1e-9)
    other = other.assign_attrs(parameters=theory.attrs["parameters"])
    assert validate.compare(other, simulation).status == "FAIL"


@pytest.mark.parametrize("engine", SIZES)
def test_runs_are_those_of_the_same_function_in_sympy(engine):
    """The same random numbers and the same arithmetic but for the last bits, which few steps do not amplify."""
    formula = TeacherStudent(activation="atan(x)/2 + x/sqrt(1 + x**2)")
    runs = [simulated(m, engine, 20, 3, np.linspace(0, 0.5, 3)) for m in (MODEL, formula)]
    for name in ("Q", "R", "eg", "loss"):
        np.testing.assert_allclose(runs[0][name], runs[1][name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_generated_modules_bring_the_functions_along_once():
    model = TeacherStudent(activation=(mix, mix_slope), teacher_activation=(softsign, softsign_slope))
    text = source(model)
    for function in (
        model.activation.expr.func,
        model.activation.derivative().func,
        model.teacher_activation.expr.func,
    ):
        assert text.count(f"def {function.__name__}(h") == 0
        assert text.count(f"def {function.__name__}(x):") == 1
        assert text.count(f"{function.__name__}(h)") == 1
    assert source(model) == text


def test_an_activation_with_kinks_states_what_its_error_is_uncertain_by():
    with pytest.warns(RuntimeWarning, match="uncertain by"):
        simulation = simulated(TeacherStudent(activation=(softsign, softsign_slope)), "gram", 100, 2, TIMES[:2])
    assert np.isfinite(simulation.eg).all()
