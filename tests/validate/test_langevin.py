"""The Langevin form against exact chains at finite d and the order-1/d theory.

Where a mean over runs is judged, 5 standard errors are allowed, for up to 20 comparisons (probability 1e-5).
"""

from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve, validate
from effdyn.solve.fluctuations import integrate_fluctuations
from effdyn.solve.fluctuations.problem import problem
from effdyn.solve.fluctuations.table import diffusion_along
from effdyn.solve.kernels.layout import pack, read_inputs
from effdyn.solve.stochastic.commutative import amplitudes
from effdyn.solve.stochastic.system import system_of

Given = dict[str, Any]
ONE: Given = dict(y0=dict(Q=[[0.3]], R=[[0.1]]), params=dict(eta=1.0, sigma=0.2, T=[[1.0]], a=1.0, b=1.0))
RUNS, D, TIMES = 3000, 200, [2.0, 4.0]


MEAN_STATES: Given = dict(mean=[0.2, -0.1])
MEAN: Given = dict(input_mean=0.9, teacher_mean=[0.25])
BLOCKS: Given = dict(input_variance=[0.6, 1.7], input_share=[0.3, 0.7])
CASES: dict[str, tuple[Given, Given, Given]] = {
    "linear": (dict(activation="linear"), {}, {}),
    "erf": (dict(activation="erf"), {}, {}),
    "spherical": (dict(activation="linear", constraint="spherical"), {}, {}),
    "spherical erf": (dict(activation="erf", constraint="spherical"), {}, {}),
    "fixed beta": (dict(activation="linear", momentum="fixed", batch=True), {}, dict(beta=0.5, batch=3.0)),
    "biases": (dict(activation="erf", biases=True), dict(bias=[0.2, -0.1]), dict(eta_bias=0.4, teacher_bias=[0.3])),
    "logistic": (dict(activation="erf", loss="logistic", labels="logistic"), {}, {}),
    "smooth loss": (dict(activation="erf", loss="log(cosh(phi-y))"), {}, {}),
    "relu": (dict(activation="relu"), {}, {}),
    "huber": (dict(activation="erf", loss="huber"), {}, dict(sigma=1.5)),  # residuals on either side of the kink
    "hinge": (dict(activation="erf", loss="hinge", labels="sign"), {}, dict(flip=0.1)),
    "slow": (
        dict(activation="linear", momentum="slow"),
        dict(P=0.05 * np.eye(2), V=0.3 * np.eye(2), S=[[0.04], [0.04]]),
        dict(mu=0.5),
    ),
    "mean": (dict(activation="erf", inputs="shifted"), MEAN_STATES, MEAN),
    "mean relu": (dict(activation="relu", inputs="shifted"), MEAN_STATES, MEAN),
    "mean slow": (
        dict(activation="linear", inputs="shifted", momentum="slow"),
        MEAN_STATES | dict(P=0.05 * np.eye(2), V=0.3 * np.eye(2), S=[[0.04], [0.04]], buffer_mean=[0.05, 0.02]),
        MEAN | dict(mu=0.5),
    ),
    "blocks linear": (dict(activation="linear", inputs="blocks"), {}, BLOCKS),
    "blocks": (dict(activation="erf", inputs="blocks"), {}, BLOCKS),
    "blocks relu": (dict(activation="relu", inputs="blocks"), {}, BLOCKS),
    "blocks spherical": (dict(activation="erf", inputs="blocks", constraint="spherical"), {}, BLOCKS),
    "blocks fixed beta": (dict(activation="erf", inputs="blocks", momentum="fixed"), {}, BLOCKS | dict(beta=0.5)),
}
RULE = {"relu": 2e-3, "huber": 5e-3, "hinge": 1e-2, "mean relu": 5e-3}
RULE |= {"blocks": 1e-2, "blocks relu": 1e-2, "blocks spherical": 1e-2, "blocks fixed beta": 1e-2}
"""Of kinks the rule of either side is off by 1e-3, of jumps by 5e-3; rules over three smooth fields by 1e-5, over six,
of parts in blocks, by 3e-3."""


@pytest.mark.parametrize(
    "case",
    [name if name in ("erf", "logistic") else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_covariances_are_those_of_one_step(case: str) -> None:
    """B Bᵀ d at two students, from moments or by a rule over all fields, against what fluctuations() takes."""
    options, states, parameters = CASES[case]
    dynamics = derive.TeacherStudent(**options).dynamics()
    rng = np.random.default_rng(1)
    v = rng.standard_normal((2, 3, 8) if "input_share" in parameters else (3, 8)) / np.sqrt(8)
    gram = v @ np.swapaxes(v, -1, -2)
    y0 = dict(Q=gram[..., :2, :2], R=gram[..., :2, 2:]) | states
    params = dict(eta=0.6, sigma=0.3, T=gram[..., 2:, 2:], a=[0.8, 1.1], b=[0.9]) | parameters
    params = {q.name: params[q.name] for q in dynamics.parameters}
    system = system_of(dynamics.sde(), y0, params | {"d": 50.0})
    B = amplitudes(system, 0.0, system.y0)
    inputs = read_inputs(dynamics, y0, params)
    expected = diffusion_along(
        problem(dynamics.fluctuations(), inputs), np.zeros(1), pack(dynamics.states, inputs.y0)[None]
    )[0]
    np.testing.assert_allclose(50.0 * B @ B.T, expected, rtol=0, atol=RULE.get(case, 1e-4) * np.abs(expected).max())


@pytest.mark.slow  # 12 s: 3000 paths in steps of 1/d
def test_paths_are_distributed_as_exact_chains() -> None:
    """One student and teacher, one step of training a step: mean and variance over runs. The chain's mean is shifted
    besides by the 1/d term of its mean increment, which the Langevin form leaves out: it is at most all of the mean
    correction twice over."""
    model = derive.TeacherStudent(activation="erf")
    dynamics = model.dynamics()
    call = dict(y0=ONE["y0"], params=ONE["params"] | {"d": float(D)})
    paths = solve.integrate(dynamics.sde(), (0, 4), dt=1 / D, runs=RUNS, rng=3, t_eval=TIMES, **call)
    chains = validate.simulate(model, d=D, runs=RUNS, t_span=(0, 4), t_eval=TIMES, rng=4, engine="gram", **ONE)
    theory = integrate_fluctuations(dynamics.fluctuations(), (0, 4), t_eval=TIMES, **ONE)
    for name in ("Q", "R"):
        sample, exact = paths[name].values.squeeze(), chains[name].values.squeeze()
        variance = theory[f"{name}_variance"].values.squeeze() / D
        first = np.abs(theory[f"{name}_mean_correction"].values).max() / D
        error = np.sqrt(variance / RUNS)
        assert (np.abs(sample.mean(0) - theory[name].values.squeeze()) < 5 * error + 2 * first).all()
        assert (np.abs(sample.mean(0) - exact.mean(0)) < 5 * np.sqrt(2) * error + 2 * first).all()
        # nearly normal: a variance has a relative error of √(2/runs), and a next order of about 1/√d of it
        spread = 5 * np.sqrt(2 / RUNS)
        assert (np.abs(sample.var(0, ddof=1) / variance - 1) < spread + 2 / D).all()
        assert (np.abs(sample.var(0, ddof=1) / exact.var(0, ddof=1) - 1) < np.sqrt(2) * spread + 2 / D).all()
