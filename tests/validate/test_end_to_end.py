"""Derived, solved, simulated, compared: theory and finite networks agree, for models well beyond erf committees; and a
theory with a planted mistake does not pass.

The simulation knows nothing of the derived equations: it is made of the activation, the loss and the update rule alone.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from effdyn import solve, validate
from effdyn.derive import TeacherStudent
from effdyn.derive.committee import SCALARS

TWO = dict(Q=np.diag([0.4, 0.5]), R=np.array([[0.3, 0.05], [0.05, 0.35]]))
THREE = dict(Q=np.diag([0.3, 0.5, 0.7]), R=np.array([[0.3, 0.05], [0.05, 0.35], [-0.1, 0.1]]))
# Students differ by more than 1/√d: those that a start does not tell apart are matched to the first run
# (validate.align), which biases their means.


@dataclass(frozen=True)
class Case:
    """A model and the run on which it is compared; ``resolution``: the error, of scale, that must have been visible."""

    model: TeacherStudent
    y0: dict[str, Any]
    params: dict[str, Any]
    t_end: float = 3.0
    d: int = 10_000
    resolution: float = 0.1


CASES = {
    "both layers, noise, decay": Case(
        TeacherStudent(activation="erf", second_layer="trained", weight_decay=True),
        TWO | dict(a=[0.5, 0.8]),
        dict(eta=0.8, eta_a=0.4, kappa=0.05, sigma=0.3, T=np.eye(2), b=1.0),
    ),
    "erf learns He3": Case(
        TeacherStudent(activation="erf", teacher_activation="He3"),
        TWO,
        dict(eta=0.3, sigma=0.1, T=np.eye(2), a=1.0, b=0.3),
    ),
    # Squares are steep: only small rates do not diverge. Q then moves little, and is only just resolved on that scale.
    "phase retrieval": Case(
        TeacherStudent(activation="He2"),
        dict(Q=[[0.5]], R=[[0.3]]),
        dict(eta=0.03, sigma=0.1, T=[[1.0]], a=1.0, b=1.0),
        t_end=4.0,
        resolution=0.2,
    ),
    "linear, scaled output": Case(
        TeacherStudent(activation="linear", output_scale="1/sqrt(K)"),
        THREE,
        dict(eta=0.5, sigma=0.2, T=[[1.0, 0.3], [0.3, 1.0]], a=1.0, b=[1.0, 0.5]),
    ),
    "K = 3, M = 2": Case(
        TeacherStudent(activation="erf"),
        THREE,
        dict(eta=0.7, sigma=0.1, T=np.eye(2), a=[1.0, 1.2, 0.8], b=1.0),
    ),
}


def simulated(case, engine="gram", d=None, runs=32, **options):
    times = np.linspace(0, case.t_end, 7)
    return validate.simulate(
        case.model,
        d or case.d,
        runs,
        (0, case.t_end),
        y0=case.y0,
        params=case.params,
        t_eval=times,
        rng=20260101,
        engine=engine,
        progress=False,
        **options,
    )


def solved(dynamics, case, simulation):
    return solve.integrate(dynamics, (0, case.t_end), case.y0, case.params, t_eval=simulation.t.values)


@pytest.mark.parametrize("name", CASES)
def test_theory_agrees_with_the_exact_chain(name):
    case = CASES[name]
    simulation = simulated(case)
    verdict = validate.compare(solved(case.model.dynamics(), case, simulation), simulation, resolution=case.resolution)
    assert verdict.passed, verdict
    assert set(verdict.summary.observable.values) >= {"Q", "R", "eg"} | ({"a"} if "a" in case.y0 else set())


def test_theory_agrees_with_the_network_itself():
    case = CASES["both layers, noise, decay"]
    simulation = simulated(case, engine="network", d=1000)
    verdict = validate.compare(solved(case.model.dynamics(), case, simulation), simulation, resolution=0.2)
    assert verdict.passed, verdict


# ── Gradient flow: the other limit, another clock, and parameters that go by other names ──

FLOW = TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)


def flow_and_simulation(eta, d, ratio=0.5):
    y0 = TWO | dict(a=[0.5, 0.8])
    shared = dict(sigma=0.3, T=np.eye(2), b=1.0)
    params = shared | dict(eta=eta, eta_a=0.5 * eta, kappa=0.05 * eta)
    simulation = simulated(Case(FLOW, y0, params, t_end=4.0), d=d, runs=16, clock="eta*steps/d")
    ratios = shared | dict(eta_a_over_eta=ratio, kappa_over_eta=0.05)
    flow = FLOW.dynamics(limit="gradient-flow")
    return solve.integrate(flow, (0, 4), y0, ratios, t_eval=simulation.t.values), simulation


def test_gradient_flow_agrees_at_a_small_learning_rate():
    # Here the bias is of order eta, not 1/d: at eta = 0.002 it is below the 1/d = 0.005 that is granted.
    verdict = validate.compare(*flow_and_simulation(eta=0.002, d=200), resolution=0.15)
    assert verdict.passed, verdict
    assert any("order eta" in note for note in verdict.notes), "what the tolerance does not cover must be said"


def test_rates_of_gradient_flow_are_checked_in_units_of_eta():
    with pytest.raises(validate.NotComparable, match="eta_a_over_eta"):
        validate.compare(*flow_and_simulation(eta=0.5, d=1000, ratio=0.6))


def test_gradient_flow_fails_at_a_large_learning_rate():
    assert validate.compare(*flow_and_simulation(eta=0.5, d=4000)).status == "FAIL"


# ── Planted mistakes: a comparison that cannot fail is no evidence ──

ETA, SIGMA = SCALARS["eta"].base, SCALARS["sigma"].base


def with_drift(dynamics, change, *names):
    """The same dynamics with the drift of the named states, or of all, changed."""
    drift = tuple(
        replace(equation, expr=change(equation.expr)) if not names or equation.quantity.name in names else equation
        for equation in dynamics.drift
    )
    return replace(dynamics, drift=drift)


MISTAKES = {
    "eta is 3 % too large": lambda dynamics: with_drift(dynamics, lambda expr: expr.subs(ETA, 1.03 * ETA)),
    "sigma is taken for the variance": lambda dynamics: with_drift(
        dynamics, lambda expr: expr.replace(lambda e: e == SIGMA**2, lambda e: SIGMA)
    ),
    "the second layer learns at half the rate": lambda dynamics: with_drift(dynamics, lambda expr: expr / 2, "a"),
}


@pytest.fixture(scope="module")
def sharp():
    """A run long and large enough to show an error of 3 % in one rate."""
    case = CASES["both layers, noise, decay"]
    return case, simulated(case, d=40_000, runs=64)


def test_the_sharp_run_agrees_with_the_theory_as_it_is(sharp):
    case, simulation = sharp
    verdict = validate.compare(solved(case.model.dynamics(), case, simulation), simulation, resolution=0.02)
    assert verdict.passed, verdict


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_theory_with_a_planted_mistake_fails(mistake, sharp):
    case, simulation = sharp
    dynamics = case.model.dynamics()
    wrong = MISTAKES[mistake](dynamics)
    assert wrong != dynamics, "nothing was planted"
    verdict = validate.compare(solved(wrong, case, simulation), simulation)
    assert verdict.status == "FAIL", verdict
