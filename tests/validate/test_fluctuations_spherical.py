"""The order-1/d theory of students that are rescaled to their lengths after each step: one exact step, and chains."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from effdyn import derive, solve, validate
from effdyn.solve.fluctuations.problem import problem
from effdyn.solve.fluctuations.rhs import rhs_function
from effdyn.solve.kernels.layout import pack, read_inputs, unpack

Y0 = dict(Q=np.array([[0.7, 0.2], [0.2, 0.5]]), R=np.array([[0.4], [0.1]]))
PARAMS = dict(eta=0.8, sigma=0.3, T=np.array([[1.1]]), a=np.array([1.0, 0.7]), b=np.array([1.2]))
Make = Callable[..., Any]


def rates(model: Any, params: dict[str, Any], y: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return time derivatives of states, m and C (n, n), m and C being zero."""
    theory = model.dynamics().fluctuations()
    inputs = read_inputs(theory.dynamics, Y0, params)
    if y is not None:
        inputs = read_inputs(theory.dynamics, unpack(theory.dynamics.states, y, inputs.sizes), params)
    system = problem(theory, inputs)
    state = pack(theory.dynamics.states, inputs.y0)
    n = len(state)
    given = np.concatenate([state, np.zeros(n + n * (n + 1) // 2)])
    out, work, par = np.empty_like(given), np.zeros(system.n_work), system.parameters()
    rhs_function()(0.0, *(array.ctypes.data for array in (given, out, par, work)))
    square = np.empty((n, n))
    i, j = np.triu_indices(n)
    square[i, j] = square[j, i] = out[2 * n :]
    return out[:n], out[n : 2 * n], square


def gram_of(Q: np.ndarray, R: np.ndarray, T: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.concatenate([Q, R], -1),
            np.concatenate([R.swapaxes(-1, -2), np.broadcast_to(T, (*R.shape[:-2], 1, 1))], -1),
        ],
        -2,
    )


FUNCTIONS = {
    "linear": (lambda h: h, np.ones_like),
    "erf": (lambda h: erf(h / np.sqrt(2)), lambda h: np.sqrt(2 / np.pi) * np.exp(-(h**2) / 2)),
}


@pytest.mark.parametrize(
    ("activation", "batch"),
    [
        ("linear", 1),
        pytest.param("erf", 1, marks=pytest.mark.slow),
        pytest.param("linear", 3, marks=pytest.mark.slow),
    ],
)
def test_one_step_rescaled_exactly(activation: str, batch: int) -> None:
    """D, b and c − ½ J b against sampled increments, after which the vectors' lengths are divided out by a square root.

    d² (ΔΩ of rescaling at d) − d (its linear part) tends to the quadratic form; at d = 1e5 it is off by 1e-5 of it, and
    by 1e-6 from rounding.
    """
    model = derive.TeacherStudent(activation=activation, batch=batch > 1, constraint="spherical")
    p = PARAMS | ({"batch": float(batch)} if batch > 1 else {})
    rng, samples, d = np.random.default_rng(5), 400_000 // batch, 1e5
    gram = gram_of(Y0["Q"], Y0["R"], p["T"])
    h = rng.standard_normal((samples, batch, 3)) @ np.linalg.cholesky(gram).T
    function, derivative = FUNCTIONS[activation]
    g, slope = function(h), derivative(h[..., :2])
    residual = g[..., 2:] @ p["b"] - g[..., :2] @ p["a"] + p["sigma"] * rng.standard_normal((samples, batch))
    F = np.zeros_like(h)
    F[..., :2] = p["eta"] * p["a"] * slope * residual[..., None]
    Fh = np.einsum("sbf,sbg->sfg", F, h) / batch
    X = Fh + Fh.swapaxes(1, 2) + np.einsum("sbf,sbg->sfg", F, F) / batch**2
    products = np.einsum("sbf,fg,seg->sbe", h, np.linalg.inv(gram), h) - 3 * np.eye(batch)
    stretched = np.einsum("sbf,sbe,seg->sfg", F, products, F) / batch**2  # d times what |x|² and x·x' add to X

    def rescaled(step: np.ndarray) -> np.ndarray:
        moved = gram + step
        factor = np.sqrt(np.diagonal(gram) / np.diagonal(moved, axis1=1, axis2=2))
        factor[:, 2] = 1.0  # the teacher does not move
        return moved * factor[:, :, None] * factor[:, None, :] - gram

    def projected(x: np.ndarray) -> np.ndarray:
        growth = np.diagonal(x, axis1=1, axis2=2) / np.diagonal(gram) / 2
        growth[:, 2] = 0.0
        return x - (growth[:, :, None] + growth[:, None, :]) * gram

    def packed(x: np.ndarray) -> np.ndarray:
        i, k = np.triu_indices(2)
        return np.concatenate([x[:, i, k], x[:, :2, 2]], axis=1)

    first, c = packed(projected(X)), packed(d * (d * rescaled(X / d) - projected(X)) + projected(stretched))
    drift, mean, covariance = rates(model, p)
    moving = [1, 3, 4]
    assert not drift[[0, 2]].any()
    assert not mean[[0, 2]].any()
    assert not covariance[[0, 2]].any()
    error = first.std(0) / np.sqrt(samples)
    assert (np.abs(drift - first.mean(0)) < 5 * error + 1e-12).all()
    centred = first - first.mean(0)
    expected = centred.T @ centred / samples
    spread = np.sqrt(np.einsum("si,sj->ij", centred**2, centred**2) / samples - expected**2) / np.sqrt(samples)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (
        np.abs(covariance - expected)[np.ix_(moving, moving)] < (5 * spread + 2e-3 * scale)[np.ix_(moving, moving)]
    ).all()
    states = pack(model.dynamics().states, Y0)
    step = 1e-4 * drift
    Jb = (rates(model, p, states + step)[0] - rates(model, p, states - step)[0]) / 2e-4
    found, sampled = mean + Jb / 2, c.mean(0)
    error = c.std(0) / np.sqrt(samples)
    assert (np.abs(found - sampled) < 5 * error + 1e-3 * np.abs(sampled))[moving].all()  # the rule's own error
    linear = packed(projected(stretched)).mean(0)
    assert (np.abs(found - linear) > 20 * error)[moving].any(), "without the products it would pass"


def test_lengths_do_not_fluctuate() -> None:
    """Exactly zero, variances and mean corrections alike, and so what depends on them alone."""
    theory = derive.TeacherStudent(activation="linear", constraint="spherical").dynamics().fluctuations()
    assert theory.held == ("Q",)
    sol = solve.integrate(theory, (0, 1), Y0, PARAMS, t_eval=[0, 0.5, 1])
    for name in ("Q_mean_correction", "Q_variance"):
        assert not np.einsum("tii->ti", sol[name].values).any()
        assert (abs(sol[name].values[1:, 0, 1]) > 1e-3).all()
    assert not sol.covariance.values[:, [0, 2]].any()


def test_chains_of_one_student(solved: Make, sampled: Make) -> None:
    """Mean and variance of R at d = 20 within 5 standard errors, and a next order of 2/d; the limit alone is not."""
    model = derive.TeacherStudent(activation="linear", constraint="spherical")
    given = dict(y0=dict(Q=[[0.5]], R=[[0.1]]), params=dict(eta=0.8, sigma=0.2, T=[[1.0]], a=1.0, b=1.0))
    runs, d = 6000, 20
    sol, chains = solved(model, **given), sampled(model, **given, d=d, runs=runs)
    sample = chains.R.squeeze().values[:, 1:]
    error = sample.std(0, ddof=1) / np.sqrt(runs)
    limit, first, variance = (sol[f"R{kind}"].values.ravel()[1:] for kind in ("", "_mean_correction", "_variance"))
    deviation = sample.mean(0) - limit
    assert (np.abs(deviation - first / d) < 5 * error + 2 * np.abs(first).max() / d**2).all()
    assert np.max(np.abs(deviation) / error) > 6
    spread = np.sqrt(((sample - sample.mean(0)) ** 4).mean(0) / runs)
    assert (np.abs(sample.var(0, ddof=1) - variance / d) < 5 * spread + 2 * variance.max() / d**2).all()
    assert not chains.Q.var("run").values.max() > 1e-20


@pytest.mark.parametrize(("runs", "off"), [(1500, 1.1), pytest.param(24_000, 1.02, marks=pytest.mark.slow)])
def test_compare_passes_the_theory_and_fails_another_rate(solved: Make, sampled: Make, runs: int, off: float) -> None:
    """At d = 80, where the next order is small, of so many chains that the absence of m would have been seen.

    24 000 chains see 2 % of the learning rate by 7 to 8 standard errors, of which 5.5 are allowed (seeds 0 to 3); 1500
    see 10 % by 7 to 10, and would not have seen the absence of m.
    """
    model = derive.TeacherStudent(activation="linear", constraint="spherical")
    given = dict(y0=dict(Q=[[0.5]], R=[[0.1]]), params=dict(eta=0.8, sigma=0.2, T=[[1.0]], a=1.0, b=1.0))
    chains = sampled(model, **given, d=80, runs=runs)
    verdict = validate.compare(solved(model, **given), chains)
    assert verdict.status == ("PASS" if runs > 20_000 else "UNDECIDED"), verdict
    assert validate.compare(solved(model, **given, faster=off), chains).status == "FAIL"
