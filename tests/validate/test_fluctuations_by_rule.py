"""The 1/d terms where averages are numerical: the rule over examples against closed forms, and against chains."""

from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve, validate
from effdyn.derive.fluctuations import Fluctuations
from effdyn.solve.fluctuations.problem import problem
from effdyn.solve.fluctuations.table import averages_along
from effdyn.solve.kernels.kernel import kernel
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs
from effdyn.solve.kernels.reference import evaluate

PLAIN = dict(Q=[[0.5, 0.1], [0.1, 0.4]], R=[[0.3], [0.1]])
PARTS = dict(Q=[[[0.3, 0.06], [0.06, 0.24]], [[0.2, 0.04], [0.04, 0.16]]], R=[[[0.18], [0.06]], [[0.09], [0.03]]])
COMMON = dict(eta=0.8, sigma=0.2, a=[1.0, 0.7], b=1.2, T=[[1.0]], batch=2.0)
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, PLAIN, COMMON),
    "shifted": (
        dict(inputs="shifted"),
        PLAIN | dict(mean=[0.3, -0.2]),
        COMMON | dict(teacher_mean=0.5, input_mean=1.0),
    ),
    "blocks": (
        dict(inputs="blocks"),
        PARTS,
        COMMON | dict(input_variance=[0.5, 2.0], input_share=[0.6, 0.4], T=[[[0.6]], [[0.4]]]),
    ),
    "fixed": (dict(momentum="fixed"), PLAIN, COMMON | dict(beta=0.6, eta=0.35)),
    "spherical": (dict(constraint="spherical"), PLAIN, COMMON),
}
COMBINED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    f"{one}-{other}": (KINDS[one][0] | KINDS[other][0], KINDS[other][1], KINDS[other][2] | more)
    for one, more in (("fixed", dict(beta=0.6, eta=0.35)), ("spherical", {}))
    for other in ("shifted", "blocks")
}
SECOND = dict(second_layer="trained", momentum="fixed")
COMBINED["fixed-second"] = (
    SECOND,
    PLAIN | dict(a=COMMON["a"]),
    {k: v for k, v in COMMON.items() if k != "a"} | dict(beta=0.6, eta=0.35, eta_a=0.3),
)


def correction(theory: Fluctuations, y0: dict[str, Any], params: dict[str, Any]) -> np.ndarray:
    """Return c: its forms, evaluated as they stand, and what the rule over examples adds."""
    inputs = read_inputs(theory.dynamics, y0, params)
    state, n = pack(theory.dynamics.states, inputs.y0), len(pack(theory.dynamics.states, inputs.y0))
    forms = pack(theory.dynamics.states, evaluate(theory.correction, y0, params))
    return forms + averages_along(problem(theory, inputs), np.zeros(1), state[None])[0][n * n :]


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        ("blocks", "linear"),
        ("spherical-blocks", "linear"),
        *(pytest.param(kind, "linear", marks=pytest.mark.slow) for kind in KINDS if kind != "blocks"),
        *(pytest.param(kind, "linear", marks=pytest.mark.slow) for kind in COMBINED if kind != "spherical-blocks"),
        *(pytest.param(kind, "erf", marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_the_rule_gives_what_closed_forms_give(kind: str, activation: str) -> None:
    """On batches of two; the rule over three fields is good to 1e-5 of D, those of numerical forms likewise."""
    options, y0, params = (KINDS | COMBINED)[kind]
    model = derive.TeacherStudent(activation=activation, batch=True, **options)
    closed, numeric = (model.dynamics(moments=m).fluctuations() for m in ("auto", "numeric"))
    assert numeric.kicks is not None
    expected, found = (correction(theory, y0, params) for theory in (closed, numeric))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.slow
def test_compiled_forms_are_the_forms() -> None:
    """Double sums of an arc sine over teachers alone, for each pair of students: by rounding."""
    options, y0, params = KINDS["fixed"]
    part = derive.TeacherStudent(activation="erf", batch=True, **options).dynamics().fluctuations().correction
    inputs = read_inputs(part, y0, params)
    compiled, state = kernel(part), pack(part.states, inputs.y0)
    found = np.zeros_like(state)
    compiled(0.0, state, found, parameter_vector(part, inputs), np.zeros(compiled.workspace_size(inputs.sizes)))
    np.testing.assert_allclose(found, pack(part.states, evaluate(part, y0, params)), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the rates of fluctuations have relative errors")  # between kinks
@pytest.mark.parametrize(
    ("kind", "loss"),
    [("shifted", "squared"), ("blocks", "squared"), ("fixed", "squared"), ("fixed", "huber"), ("spherical", "squared")],
)
def test_chains_of_tanh(kind: str, loss: str) -> None:
    """Means within 5 standard errors and a next order of 2 m/d², of at most 30 numbers; the limit alone is not."""
    options, y0, params = KINDS[kind]
    model = derive.TeacherStudent(activation="tanh", loss=loss, batch=True, **options)
    d, runs, times = 30, 8000, [0.5, 1.0, 2.0]
    theory = model.dynamics().fluctuations()
    assert theory.kicks is not None
    sol = solve.integrate(theory, (0, 2), y0, params, t_eval=times)
    chains = validate.simulate(
        model, d=d, runs=runs, t_span=(0, 2), t_eval=times, rng=7, engine="gram", align=False, progress=False,
        y0=y0, params=params,
    )  # fmt: skip
    far = []
    for name in (*(q.name for q in theory.dynamics.states), "eg"):
        limit, first = sol[name].values, sol[f"{name}_mean_correction"].values / d
        error = chains[name].std("run", ddof=1).values / np.sqrt(runs)
        away = chains[name].mean("run").values - limit
        assert (np.abs(away - first) < 5 * error + 2 * np.abs(first).max() / d + 1e-12).all(), name
        far.append((np.abs(away) / np.maximum(error, 1e-12)).max())
    assert max(far) > 5, "too few runs: the limit alone would pass"


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "momentum"), [("huber", "fixed"), ("hinge", "fixed"), ("hinge", "slow")])
def test_chains_with_kinks_and_momentum(loss: str, momentum: str) -> None:
    """Slopes that are no polynomials, of one linear student: means within 5 standard errors and a next order of 2 m/d²,
    of 9 numbers; the limit alone is not."""
    margin: dict[str, Any] = dict(labels="sign") if loss == "hinge" else {}
    model = derive.TeacherStudent(activation="linear", loss=loss, momentum=momentum, **margin)
    theory, d, runs, times = model.dynamics().fluctuations(), 50, 10_000, [0.5, 1.0, 2.0]
    known = dict(eta=0.4, beta=0.6, mu=1.5, sigma=0.3, flip=0.1, a=[1.0], b=1.0, T=[[1.0]])
    params = {q.name: known[q.name] for q in theory.dynamics.parameters}
    start = dict(Q=[[0.5]], R=[[0.2]], P=[[0.0]], V=[[0.0]], S=[[0.0]])
    y0 = {q.name: start[q.name] for q in theory.dynamics.states}
    sol = solve.integrate(theory, (0, 2), y0, params, t_eval=times)
    chains = validate.simulate(
        model, d=d, runs=runs, t_span=(0, 2), t_eval=times, rng=7, engine="gram", align=False, progress=False,
        y0=y0, params=params,
    )  # fmt: skip
    far = []
    for name in ("Q", "R", "loss"):
        first = sol[f"{name}_mean_correction"].values / d
        error = chains[name].std("run", ddof=1).values / np.sqrt(runs)
        away = chains[name].mean("run").values - sol[name].values
        assert (np.abs(away - first) < 5 * error + 2 * np.abs(first).max() / d).all(), name
        far.append((np.abs(away) / error).max())
    assert max(far) > 5, "too few runs: the limit alone would pass"
