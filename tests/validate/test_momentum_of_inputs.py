"""Momentum on inputs in blocks or with a mean: equations, simulations, and the order-1/d theory of a fixed β."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve, validate

from .test_gram import assert_same_law

Q, R = np.array([[0.5, 0.1], [0.1, 0.4]]), np.array([[0.3, 0.0], [0.1, 0.2]])
MEAN, TEACHER_MEAN, LENGTH = np.array([0.3, -0.2]), np.array([0.4, -0.3]), 1.1
SHARE, VARIANCE = np.array([0.75, 0.25]), np.array([0.6, 1.9])
PARAMS = dict(eta=0.15, beta=0.5, sigma=0.2, batch=4.0, kappa=0.3, a=np.array([1.0, 0.8]), b=np.ones(2))
HEAVY = dict(activation="linear", momentum="fixed", batch=True, weight_decay=True)
APART = np.array([1.0, 1.3])[:, None, None] * SHARE[:, None, None]  # overlaps of the parts in two blocks
BLOCKS = dict(
    y0=dict(Q=APART * Q, R=APART * R),
    params=PARAMS | dict(T=SHARE[:, None, None] * np.eye(2) * 1.5, input_share=SHARE, input_variance=VARIANCE),
)
SHIFTED = dict(
    y0=dict(Q=Q, R=R, mean=MEAN),
    params=PARAMS | dict(T=np.eye(2), teacher_mean=TEACHER_MEAN, input_mean=LENGTH),
)
GIVEN: dict[str, dict[str, Any]] = {"blocks": BLOCKS, "shifted": SHIFTED}


def rows_that_move(p: dict[str, Any], d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A, the kick of each row, and e, of V ← A V + kick (eᵀV x + σζ) xᵀ: rows of students, buffers, teachers.

    V is over √d: m ← β m + k, w ← (1 − κ/d) w + β m + k, k = (η/d) a (y* − φ + σζ) xᵀ.
    """
    one, none = np.eye(2), np.zeros((2, 2))
    keep, beta = (1 - p["kappa"] / d) * one, p["beta"] * one
    A = np.block([[keep, beta, none], [none, beta, none], [none, none, one]])
    kick = p["eta"] / d * np.concatenate([p["a"], p["a"], np.zeros(2)])
    return A, kick, np.concatenate([-p["a"], np.zeros(2), p["b"]])


def gram_at_rest(q: np.ndarray, r: np.ndarray, hers: np.ndarray) -> np.ndarray:
    """Return the overlaps of students, buffers at rest and teachers."""
    none = np.zeros((2, 2))
    return np.block([[q, none, r], [none, none, none], [r.T, none, hers]])


def exact_mean_in_blocks(d: int, t: float) -> dict[str, np.ndarray]:
    """Return E[Q], E[R] in each block of a linear committee after t d steps, from the update rule: averages close."""
    p = BLOCKS["params"]
    A, kick, e = rows_that_move(p, d)
    G = np.array([gram_at_rest(*parts) for parts in zip(BLOCKS["y0"]["Q"], BLOCKS["y0"]["R"], p["T"], strict=True)])
    for _ in range(round(t * d)):
        own = np.einsum("a,gab,b->g", e, G, e)  # |u_g|²/d of the residual u·x
        noise = (VARIANCE @ own + p["sigma"] ** 2) * SHARE * VARIANCE * d
        square = (noise + (p["batch"] + 1) * VARIANCE**2 * own) / p["batch"]
        for g in range(2):
            along = VARIANCE[g] * np.outer(A @ G[g] @ e, kick)
            G[g] = A @ G[g] @ A.T + along + along.T + square[g] * np.outer(kick, kick)
    return {"Q": G[:, :2, :2], "R": G[:, :2, 4:]}


def exact_mean_shifted(d: int, t: float) -> dict[str, np.ndarray]:
    """Return E[Q], E[R], E[mean] likewise: with C = V μμᵀVᵀ, E[V x xᵀ Vᵀ] is G + C, and second moments close."""
    p, square_of_mean = SHIFTED["params"], LENGTH**2
    A, kick, e = rows_that_move(p, d)
    G = gram_at_rest(Q, R, p["T"])
    m = np.concatenate([MEAN, np.zeros(2), TEACHER_MEAN])
    C, count, noise = np.outer(m, m), p["batch"], p["sigma"] ** 2
    for _ in range(round(t * d)):
        s, c2 = e @ G @ e, e @ C @ e  # variance of eᵀV x, and its squared mean; its covariance with μ·x is that mean
        one = (s + c2 + noise) * (d + square_of_mean) + 2 * s + 4 * c2
        square = (one + (count - 1) * (s + 2 * c2 + c2 * square_of_mean)) / count
        one_c = (s + c2 + noise) * (square_of_mean + square_of_mean**2) + 2 * c2 + 4 * c2 * square_of_mean
        square_c = (one_c + (count - 1) * (1 + square_of_mean) ** 2 * c2) / count
        along, along_c = np.outer(A @ (G + C) @ e, kick), (1 + square_of_mean) * np.outer(A @ C @ e, kick)
        G = A @ G @ A.T + along + along.T + square * np.outer(kick, kick)
        C = A @ C @ A.T + along_c + along_c.T + square_c * np.outer(kick, kick)
        m = A @ m + (1 + square_of_mean) * (e @ m) * kick
    return {"Q": G[:2, :2], "R": G[:2, 4:], "mean": m[:2]}


EXACT: dict[str, Callable[[int, float], dict[str, np.ndarray]]] = {
    "blocks": exact_mean_in_blocks,
    "shifted": exact_mean_shifted,
}


@pytest.mark.parametrize("inputs", [pytest.param("blocks", marks=pytest.mark.slow), "shifted"])
def test_mean_correction_is_that_of_the_exact_mean(inputs: str) -> None:
    """d (E[Ω] − ω) = m + O(1/d), extrapolated; what that leaves of 1/d² is a third of what halving d changes."""
    theory = derive.TeacherStudent(**HEAVY, inputs=inputs).dynamics().fluctuations()
    sol = solve.integrate(theory, (0, 1.5), t_eval=[1.5], **GIVEN[inputs])
    exact = {d: EXACT[inputs](d, 1.5) for d in (240, 480, 960)}
    for name in GIVEN[inputs]["y0"]:
        scaled = {d: d * (exact[d][name] - sol[name].values[0]) for d in exact}
        coarse, fine = (2 * scaled[2 * d] - scaled[d] for d in (240, 480))
        found = sol[f"{name}_mean_correction"].values[0]
        assert np.abs(fine).max() > 0.005
        assert np.abs(found - fine).max() < np.abs(fine - coarse).max() + 1e-7, name


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["blocks", "shifted"])
def test_noise_is_that_of_plain_steps_at_another_rate(inputs: str) -> None:
    """C is that of η/(1 − β) without momentum, to the tolerance of the solver."""
    given = GIVEN[inputs]
    plain = given["params"] | {"eta": PARAMS["eta"] / (1 - PARAMS["beta"])}
    del plain["beta"]
    found, expected = (
        solve.integrate(
            derive.TeacherStudent(**HEAVY | dict(momentum=kind), inputs=inputs).dynamics().fluctuations(),
            (0, 1), given["y0"], params, t_eval=[1.0],
        ).covariance
        for kind, params in (("fixed", given["params"]), (False, plain))
    )  # fmt: skip
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()  # fluctuation_rtol is 1e-7


SLOW = dict(P=[[0.1, 0.0], [0.05, 0.02]], V=[[0.3, 0.1], [0.1, 0.4]], S=[[0.1, -0.1], [0.05, 0.0]])
SLOW |= dict(buffer_mean=[0.1, -0.2])


@pytest.mark.parametrize("kind", [pytest.param("fixed", marks=pytest.mark.slow), "slow"])
def test_equations_and_both_engines_agree_on_inputs_with_a_mean(kind: str) -> None:
    """Chain and network have one law at d = 10; 64 chains at d = 1000 have the means of the equations."""
    model = derive.TeacherStudent(activation="linear", momentum=kind, batch=True, inputs="shifted")
    params = {name: value for name, value in SHIFTED["params"].items() if name not in ("beta", "kappa")}
    params |= dict(beta=0.5) if kind == "fixed" else dict(mu=1.5, eta=0.6)
    y0 = SHIFTED["y0"] | (SLOW if kind == "slow" else {})
    how: dict[str, Any] = dict(y0=y0, params=params, t_span=(0, 1), t_eval=[0.5, 1], align=False, progress=False)
    gram, network = (
        validate.simulate(model, d=10, runs=2000, engine=e, rng=n, **how) for n, e in enumerate(("gram", "network"))
    )
    assert_same_law(gram, network, detectable=0.16)
    theory = solve.integrate(model.dynamics(), (0, 1), y0, params, t_eval=[0.5, 1])
    sample = validate.simulate(model, d=1000, runs=64, engine="gram", rng=2, **how)
    for name in y0:
        error = 5 * sample[name].std("run", ddof=1) / 8 + 4 / 1000  # and a bias of a few 1/d
        assert (error < 0.06).all(), "too coarse: terms are of order one, and one that is 6 % off would pass"
        assert (abs(sample[name].mean("run") - theory[name].values) < error).all(), name


@pytest.mark.slow
def test_no_mean_is_isotropic() -> None:
    """At μ = 0 overlaps, those of buffers included, move as without, and means stay."""
    params = dict(eta=0.6, mu=1.5, sigma=0.2, T=np.eye(2), a=PARAMS["a"], b=PARAMS["b"])
    y0 = {name: value for name, value in dict(Q=Q, R=R, **SLOW).items() if name != "buffer_mean"}
    plain = solve.integrate(
        derive.TeacherStudent(activation="linear", momentum="slow").dynamics(), (0, 1), y0, params, t_eval=[1.0]
    )
    none = dict(mean=[0.0, 0.0], buffer_mean=[0.0, 0.0])
    found = solve.integrate(
        derive.TeacherStudent(activation="linear", momentum="slow", inputs="shifted").dynamics(), (0, 1), y0 | none,
        params | dict(input_mean=0.0, teacher_mean=[0.0, 0.0]), t_eval=[1.0],
    )  # fmt: skip
    for name in y0:
        assert abs(found[name] - plain[name]).max() < 1e-9, name  # the solver's rtol is 1e-10
    assert not found["mean"].any() and not found["buffer_mean"].any()


def test_means_of_buffers_that_no_vector_gives() -> None:
    model = derive.TeacherStudent(activation="linear", momentum="slow", inputs="shifted")
    params = {name: value for name, value in SHIFTED["params"].items() if name not in ("beta", "kappa", "batch")}
    y0 = SHIFTED["y0"] | SLOW | dict(buffer_mean=[0.1, 0.9])  # |m_2·μ|/√d is at most √(0.4)·1.1 = 0.70
    with pytest.raises(derive.ModelError, match=r"y0\['buffer_mean'\]"):
        solve.integrate(model.dynamics(), (0, 1), y0, params | dict(mu=1.0))
