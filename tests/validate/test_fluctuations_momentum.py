"""The order-1/d theory with momentum of a fixed β: against the exact mean of a linear network, plain steps, chains."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve, validate

HEAVY = dict(momentum="fixed", batch=True, weight_decay=True)
Q = np.array([[0.5, 0.1], [0.1, 0.4]])
R = np.array([[0.3, 0.0], [0.1, 0.2]])
PARAMS = dict(eta=0.25, beta=0.6, sigma=0.2, batch=4.0, kappa=0.3, T=np.eye(2), a=np.array([1.0, 0.8]), b=np.ones(2))


def exact_mean(d: int, t: float, p: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return E[Q], E[R] of a linear committee after t d steps: written from the update rule, whose averages close.

    m ← β m + k, w ← (1 − κ/d) w + m with k = (η/b) Σ_μ a (u·x_μ/√d + σζ_μ) x_μ/√d and u = Σ_n b_n w*_n − Σ_i a_i w_i.
    Buffers are zero at first; P, V, S are w·m/d, m·m/d, m·w*/d.
    """
    a, b, step = p["a"], p["b"], p["eta"] / d
    keep, beta, q, r = 1 - p["kappa"] / d, p["beta"], Q, R
    P, V, S = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))
    for _ in range(round(t * d)):
        on_teacher, on_student, on_buffer = p["T"] @ b - r.T @ a, r @ b - q @ a, S @ b - P.T @ a  # of u
        square = b @ on_teacher - a @ on_student
        kicks = ((square * (d + 2) + p["sigma"] ** 2 * d) + (p["batch"] - 1) * square) / p["batch"]
        along = beta * step * np.outer(a, on_buffer)
        V = beta**2 * V + along + along.T + np.outer(a, a) * step**2 * kicks
        S = beta * S + step * np.outer(a, on_teacher)
        mixed = keep * (beta * P + step * np.outer(on_student, a))
        P, q, r = mixed + V, keep**2 * q + mixed + mixed.T + V, keep * r + S
    return {"Q": q, "R": r}


def test_map_at_finite_d_is_the_exact_mean() -> None:
    """The mean of one step of a linear network is linear in overlaps, so the map has no closure left to err in."""
    step = derive.TeacherStudent(activation="linear", **HEAVY).dynamics("finite-d-map")
    rest = dict.fromkeys("PVS", np.zeros((2, 2)))
    sol = solve.integrate(step, (0, 2), dict(Q=Q, R=R) | rest, PARAMS | dict(d=20), t_eval=[0.5, 2])
    for n, t in enumerate((0.5, 2.0)):
        for name, values in exact_mean(20, t, PARAMS).items():
            assert np.abs(sol[name].values[n] - values).max() < 1e-13, name  # 40 steps, ten operations of an ulp each


def test_mean_correction_is_that_of_the_exact_mean() -> None:
    """d (E[Ω] − ω) = m + O(1/d), extrapolated; what that leaves of 1/d² is a third of what halving d changes."""
    theory = derive.TeacherStudent(activation="linear", **HEAVY).dynamics().fluctuations()
    times = [0.5, 2.0]
    sol = solve.integrate(theory, (0, 2), dict(Q=Q, R=R), PARAMS, t_eval=times)
    assert theory.offset is not None
    for n, t in enumerate(times):
        exact = {d: exact_mean(d, t, PARAMS) for d in (500, 1000, 2000)}
        for name in "QR":
            scaled = {d: d * (exact[d][name] - sol[name].values[n]) for d in exact}
            coarse, fine = (2 * scaled[2 * d] - scaled[d] for d in (500, 1000))
            found = sol[f"{name}_mean_correction"].values[n]
            assert np.abs(fine).max() > 0.01
            assert np.abs(found - fine).max() < np.abs(fine - coarse).max() + 1e-7, (name, t)


@pytest.mark.parametrize("activation", ["linear", pytest.param("relu", marks=pytest.mark.slow)])
def test_noise_is_that_of_plain_steps_at_another_rate(activation: str) -> None:
    """C is that of η/(1 − β) without momentum: to rounding, and to the tolerance of the solver."""
    model = derive.TeacherStudent(activation=activation, **HEAVY)
    plain = derive.TeacherStudent(activation=activation, batch=True, weight_decay=True)
    rest = {name: value for name, value in PARAMS.items() if name != "beta"} | {"eta": 0.25 / 0.4}
    found, expected = (
        solve.integrate(m.dynamics().fluctuations(), (0, 1), dict(Q=Q, R=R), p, t_eval=[0, 1]).covariance
        for m, p in ((model, PARAMS), (plain, rest))
    )
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()  # fluctuation_rtol is 1e-7


def test_buffers_are_zero_at_the_start() -> None:
    theory = derive.TeacherStudent(activation="linear", **HEAVY).dynamics().fluctuations()
    sol = solve.integrate(theory, (0, 0.1), dict(Q=Q, R=R), PARAMS, t_eval=[0, 1e-9])
    assert not sol.Q_mean_correction[0].any()
    assert abs(sol.Q_mean_correction[1]).max() > 0.01  # after them, in units of 1/d


ONE = dict(y0=dict(Q=[[0.3]], R=[[0.1]]), params=dict(eta=0.25, beta=0.6, sigma=0.2, T=[[1.0]], a=1.0, b=1.0))
Make = Callable[..., Any]


def test_chains_of_one_student(solved: Make, sampled: Make) -> None:
    """Means of R at d = 40 within 5 standard errors, and a next order of 2 m/d²; the limit alone is far off."""
    model = derive.TeacherStudent(activation="linear", momentum="fixed")
    sol, chains = solved(model, **ONE), sampled(model, **ONE, d=40, runs=4000)
    error = chains.R.std("run", ddof=1).values / np.sqrt(4000)
    deviation, first = chains.R.mean("run").values - sol.R.values, sol.R_mean_correction.values / 40
    assert (np.abs(deviation - first) <= 5 * error + 2 * np.abs(first).max() / 40).all()
    assert np.max(np.abs(deviation[1:]) / error[1:]) > 6


@pytest.mark.slow
def test_chains_of_two_students_on_batches(solved: Make, sampled: Make) -> None:
    """Means, variances and all times jointly, through compare, at two d."""
    model = derive.TeacherStudent(activation="erf", **HEAVY)
    given = dict(y0=dict(Q=Q, R=R), params=PARAMS)
    verdict = validate.compare(solved(model, **given), sampled(model, **given, d=[40, 80], runs=6_000))
    assert verdict.status == "PASS", verdict


@pytest.mark.slow
def test_a_learning_rate_slightly_off_is_found(solved: Make, sampled: Make) -> None:
    """Through compare: the theory passes, and does not at a learning rate 2 % off, nor without its mean correction."""
    model = derive.TeacherStudent(activation="linear", momentum="fixed")
    right, chains = solved(model, **ONE), sampled(model, **ONE, d=[40, 80], runs=12_000)
    assert validate.compare(right, chains).status == "PASS"
    assert validate.compare(solved(model, **ONE, faster=1.02), chains).status == "FAIL"
    bare = right.assign({f"{name}_mean_correction": 0 * right[name] for name in ("Q", "R", "eg", "loss")})
    assert validate.compare(bare, chains).status == "FAIL"


def test_slow_momentum_with_numerical_moments_scatters_as_with_closed_ones() -> None:
    """Students follow their buffers, without noise of their own: their variance begins with the covariance of both.
    J is then taken by differences: truncation of 1e-7, rules over three smooth fields to 1e-9."""
    dynamics = derive.TeacherStudent(activation="erf", momentum="slow")
    start = dict(Q=[[0.5]], R=[[0.15]], P=[[0.0]], V=[[0.0]], S=[[0.0]])
    params = dict(eta=1.0, sigma=0.7, a=1.0, b=1.2, mu=1.5, T=[[1.0]])
    closed, numerical = (
        solve.integrate(dynamics.dynamics(moments=how).fluctuations(), (0, 2), start, params, t_eval=[1, 2])
        for how in ("auto", "numeric")
    )
    for name in ("Q", "R", "P", "V", "S"):
        for part in (f"{name}_variance", f"{name}_mean_correction"):
            np.testing.assert_allclose(numerical[part], closed[part], rtol=0, atol=1e-6)
