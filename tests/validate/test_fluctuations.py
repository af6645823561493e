"""The order-1/d theory against exact chains of the overlaps at finite d, and its compiled right-hand side piece by
piece against other ways to the same numbers.

Where a mean over runs is judged, 5 standard errors are allowed, for up to 20 comparisons (probability 1e-5), and the
next order 1/d², whose coefficient is taken to be at most :data:`NEXT` times the scale of the first.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from effdyn import derive, solve, validate
from effdyn.solve.fluctuations import integrate_fluctuations
from effdyn.solve.fluctuations.problem import problem
from effdyn.solve.fluctuations.rhs import STEP, rhs_address
from effdyn.solve.fluctuations.start import initial_covariance
from effdyn.solve.kernels.layout import pack, read_inputs, unpack

ERF = derive.TeacherStudent(activation="erf")
ONE = dict(y0=dict(Q=[[0.3]], R=[[0.1]]), params=dict(eta=1.0, sigma=0.2, T=[[1.0]], a=1.0, b=1.0))
NEXT = 2.0
CALL = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)


@dataclass(frozen=True, slots=True)
class Rates:
    """Time derivatives of m and C (n, n) at a state."""

    drift: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


def rates(model: Any, y0: dict[str, Any], params: dict[str, Any], m: Any = None, C: Any = None) -> Rates:
    """Return what the compiled right-hand side gives at a mean correction and a covariance, zero by default."""
    theory = model.dynamics().fluctuations()
    inputs = read_inputs(theory.dynamics, y0, params)
    system = problem(theory, inputs)
    par = system.parameters()
    state = pack(theory.dynamics.states, inputs.y0)
    n = len(state)
    i, j = np.triu_indices(n)
    upper = np.zeros(len(i)) if C is None else np.asarray(C)[i, j]
    y = np.concatenate([state, np.zeros(n) if m is None else m, upper])
    out, work = np.empty_like(y), np.zeros(system.n_work)
    CALL(rhs_address())(0.0, *(array.ctypes.data for array in (y, out, par, work)))
    square = np.empty((n, n))
    square[i, j] = square[j, i] = out[2 * n :]
    return Rates(out[:n], out[n : 2 * n], square)


def committee(K: int, M: int, seed: int) -> dict[str, Any]:
    """Return overlaps and parameters of random vectors."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((K + M, 8)) / np.sqrt(8)
    gram = v @ v.T
    params = dict(eta=0.6, sigma=0.3, T=gram[K:, K:], a=rng.uniform(0.5, 1.5, K), b=rng.uniform(0.5, 1.5, M))
    return dict(y0=dict(Q=gram[:K, :K], R=gram[:K, K:]), params=params)


def drift_at(model: Any, given: dict[str, Any], y: np.ndarray) -> np.ndarray:
    dyn = model.dynamics()
    sizes = read_inputs(dyn, given["y0"], given["params"]).sizes
    state = unpack(dyn.states, y, sizes)
    return rates(model, state, given["params"]).drift


@pytest.mark.parametrize(
    ("activation", "K", "M"),
    [
        ("erf", 2, 1),
        ("linear", 2, 1),
        pytest.param("relu", 2, 1, marks=pytest.mark.slow),
        pytest.param("erf", 3, 2, marks=pytest.mark.slow),
        pytest.param("tanh", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_derivatives_are_those_of_the_drift(activation: str, K: int, M: int) -> None:
    """J C + C Jᵀ, J m and ½ H:C, against differences of the drift along coordinates (fourth order and second)."""
    model = derive.TeacherStudent(activation=activation)
    given = committee(K, M, seed=1)
    states = model.dynamics().states
    y = pack(states, read_inputs(model.dynamics(), **given).y0)
    n, h, units = len(y), 1e-3, np.eye(len(y))
    rng = np.random.default_rng(2)
    factor = rng.standard_normal((n, n))
    C, m = factor @ factor.T / n, rng.standard_normal(n)
    b = {(s, j): drift_at(model, given, y + s * h * units[j]) for s in (-2, -1, 1, 2) for j in range(n)}
    J = np.stack([(8 * (b[1, j] - b[-1, j]) - (b[2, j] - b[-2, j])) / (12 * h) for j in range(n)], axis=1)
    nothing, moved = rates(model, **given), rates(model, **given, m=m, C=C)
    # differences over STEP of the scale on which the drift changes, where they stand for J: about its square
    relative = 1e-8 if model.dynamics().fluctuations().tangent else 10 * STEP**2
    tolerance = relative * np.abs(J).max() * np.abs(C).max() * n
    assert np.abs(moved.covariance - nothing.covariance - (J @ C + C @ J.T)).max() < tolerance

    curved = rates(model, **given, C=C).mean - nothing.mean
    values, vectors = np.linalg.eigh(C)
    expected = np.zeros(n)
    for value, u in zip(values, vectors.T, strict=True):
        step = 3e-3 * u
        plus, minus, far, back = (drift_at(model, given, y + s * step) for s in (1, -1, 2, -2))
        second = (16 * (plus + minus) - (far + back) - 30 * nothing.drift) / (12 * 9e-6)
        expected += 0.5 * value * second
    assert np.abs(curved - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())
    assert np.abs(moved.mean - nothing.mean - curved - J @ m).max() < tolerance


def _relu(h: np.ndarray) -> np.ndarray:
    return np.maximum(h, 0)


FUNCTIONS = {
    "erf": (lambda h: erf(h / np.sqrt(2)), lambda h: np.sqrt(2 / np.pi) * np.exp(-(h**2) / 2)),
    "linear": (lambda h: h, np.ones_like),
    "relu": (_relu, lambda h: (h > 0).astype(float)),
    "tanh": (np.tanh, lambda h: 1 / np.cosh(h) ** 2),
}


@pytest.mark.parametrize(
    ("activation", "K", "M", "batch"),
    [
        ("erf", 3, 2, 1),
        ("linear", 2, 1, 4),
        ("relu", 2, 1, 1),
        pytest.param("relu", 2, 1, 4, marks=pytest.mark.slow),
        pytest.param("tanh", 2, 1, 1, marks=pytest.mark.slow),
        pytest.param("erf", 2, 1, 8, marks=pytest.mark.slow),
    ],
)
def test_diffusion_and_correction_are_moments_of_one_step(activation: str, K: int, M: int, batch: int) -> None:
    """Against a sample of one exact step, written from the update rule: covariance and mean of d ΔΩ, and the 1/d terms
    of the mean, with |x|² = hᵀΩ⁻¹h + χ²_{d−N} and x·x' = hᵀΩ⁻¹h' + a rest of mean zero."""
    model = derive.TeacherStudent(activation=activation, batch=batch > 1)
    given = committee(K, M, seed=3)
    given["params"] |= {"batch": float(batch)} if batch > 1 else {}
    y0, p = given["y0"], given["params"]
    rng = np.random.default_rng(4)
    samples = 400_000 // batch
    gram = np.block([[y0["Q"], y0["R"]], [y0["R"].T, p["T"]]])
    h = rng.standard_normal((samples, batch, K + M)) @ np.linalg.cholesky(gram).T
    function, derivative = FUNCTIONS[activation]
    g, slope = function(h), derivative(h[..., :K])
    residual = g[..., K:] @ p["b"] - g[..., :K] @ p["a"] + p["sigma"] * rng.standard_normal((samples, batch))
    F = p["eta"] * p["a"] * slope * residual[..., None]
    Fh = np.einsum("sbi,sbf->sif", F, h) / batch
    squared = np.einsum("sbi,sbk->sik", F, F) / batch**2
    dQ, dR = Fh[..., :K] + Fh[..., :K].transpose(0, 2, 1) + squared, Fh[..., K:]
    i, k = np.triu_indices(K)
    X = np.concatenate([dQ[:, i, k], dR.reshape(samples, -1)], axis=1)
    found = rates(model, **given)
    mean, centred = X.mean(0), X - X.mean(0)
    error = X.std(0) / np.sqrt(samples)
    assert (np.abs(found.drift - mean) < 5 * error).all()
    expected = centred.T @ centred / samples
    # error of each covariance from the fourth moments; 2e-3 of the variances for the rule over examples
    spread = np.sqrt(np.einsum("si,sj->ij", centred**2, centred**2) / samples - expected**2) / np.sqrt(samples)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(found.covariance - expected) < 5 * spread + 2e-3 * scale).all()
    # c − ½ J b, c from the products of inputs beyond d δ
    products = np.einsum("sbf,fg,seg->sbe", h, np.linalg.inv(gram), h) - (K + M) * np.eye(batch)
    stretched = np.einsum("sbi,sbe,sek->sik", F, products, F) / batch**2
    c = np.concatenate([stretched[:, i, k], np.zeros((samples, K * M))], axis=1)
    y = pack(model.dynamics().states, {name: np.asarray(v) for name, v in y0.items()})
    step = 1e-4 * found.drift
    Jb = (drift_at(model, given, y + step) - drift_at(model, given, y - step)) / 2e-4
    assert (np.abs(found.mean - (c.mean(0) - Jb / 2)) < 5 * c.std(0) / np.sqrt(samples) + 1e-6).all()


def test_figures_of_one_student_and_one_teacher() -> None:
    """Means of 4·10⁵ (d = 20) and 10⁵ (d = 50) chains of an independent program, with their standard errors, and
    d Var Q = 0.0987 at d = 200."""
    theory = ERF.dynamics().fluctuations()
    sol = integrate_fluctuations(theory, (0, 6), **ONE, t_eval=[0, 3, 6]).squeeze()
    R = sol.R + sol.R_mean_correction / 20
    Q = sol.Q + sol.Q_mean_correction / 50
    assert abs(float(R[2]) - 0.83758) < 2 * 1e-4
    assert abs(float(sol.R[2]) - 0.83758) > 30 * 1e-4
    assert abs(float(Q[1]) - 0.54810) < 2 * 7e-5
    assert abs(float(sol.Q_variance[2]) - 0.0987) < 0.01 * 0.0987


def test_cosines_follow_from_overlaps() -> None:
    """ρ = R/√Q at T = 1, its gradient and second derivatives by hand."""
    sol = integrate_fluctuations(ERF.dynamics().fluctuations(), (0, 3), **ONE, t_eval=[0, 1, 3])
    Q, R = sol.Q.values.ravel(), sol.R.values.ravel()
    m = np.stack([sol[f"{name}_mean_correction"].values.ravel() for name in "QR"])
    C = sol.covariance.values
    gradient = np.stack([-R / (2 * Q**1.5), Q**-0.5])
    variance = np.einsum("it,tij,jt->t", gradient, C, gradient)
    curved = 0.5 * (0.75 * R / Q**2.5 * C[:, 0, 0] - C[:, 0, 1] / Q**1.5)
    tolerance = dict(rtol=1e-7, atol=1e-8)  # fluctuation_rtol: of the states along which they were solved
    np.testing.assert_allclose(sol.cosine_variance.values.ravel(), variance, **tolerance)
    np.testing.assert_allclose(sol.cosine_mean_correction.values.ravel(), (gradient * m).sum(0) + curved, **tolerance)


def judged(model: Any, given: dict[str, Any], d: int, runs: int, times: list[float], init: str = "exact") -> None:
    """Assert that means and variances over chains are those of the theory, and that the limit alone is not."""
    theory = model.dynamics().fluctuations()
    sol = integrate_fluctuations(theory, (0, times[-1]), **given, t_eval=times, initial=init)
    mc = validate.simulate(
        model, d=d, runs=runs, t_span=(0, times[-1]), t_eval=times, rng=7, engine="gram", init=init, **given
    )
    seen = []
    for name in (*(q.name for q in theory.dynamics.states), "eg"):
        sample, limit = mc[name], sol[name].values
        error = sample.std("run", ddof=1).values / np.sqrt(runs)
        first, variance = sol[f"{name}_mean_correction"].values / d, sol[f"{name}_variance"].values / d
        allowed = 5 * error + NEXT * np.abs(first).max() / d
        assert (np.abs(sample.mean("run").values - limit - first) < allowed).all(), name
        # a variance has a relative error of about √(κ₄/runs), κ₄ the kurtosis, and its own next order
        fourth = ((sample - sample.mean("run")) ** 4).mean("run").values
        spread = np.sqrt(fourth / runs)
        allowed = 5 * spread + NEXT * variance.max() / d
        assert (np.abs(sample.var("run", ddof=1).values - variance) < allowed).all(), name
        seen.append(np.max(np.abs(sample.mean("run").values - limit) / np.maximum(error, 1e-15)))
    assert max(seen) > 5, "too few runs: the limit alone would pass"


def test_chains_of_one_student() -> None:
    judged(ERF, ONE, d=40, runs=4000, times=[1, 3, 6])


def test_chains_of_a_linear_network_with_weight_decay() -> None:
    model = derive.TeacherStudent(activation="linear", weight_decay=True)
    given = dict(
        y0=dict(Q=[[0.5, 0.1], [0.1, 0.4]], R=[[0.3], [0.1]]),
        params=dict(eta=0.3, kappa=0.3, sigma=0.3, T=[[1.0]], a=[0.8, 1.1], b=1.0),
    )
    judged(model, given, d=20, runs=6000, times=[0.5, 2])


def test_chains_of_a_linear_network_with_slow_momentum() -> None:
    """Overlaps with buffers fluctuate too; they start at zero."""
    model = derive.TeacherStudent(activation="linear", momentum="slow")
    buffers = {name: np.zeros((1, 1)) for name in "PVS"}
    given = dict(
        y0=dict(Q=[[0.5]], R=[[0.3]]) | buffers, params=dict(eta=0.4, mu=1.0, sigma=0.3, T=[[1.0]], a=1.0, b=1.0)
    )
    judged(model, given, d=20, runs=6000, times=[0.5, 2])


UNEQUAL = dict(Q=[[0.5, 0.1], [0.1, 0.4]], R=[[0.3, 0.0], [0.1, 0.2]])
COMMON = dict(sigma=0.2, T=np.eye(2), a=1.0, b=1.0)
REGIMES = {
    "relu": (dict(activation="relu"), UNEQUAL, dict(eta=0.3)),
    "batch": (dict(activation="erf", batch=True), UNEQUAL, dict(eta=2.0, batch=8.0)),
    "momentum": (
        dict(activation="erf", momentum="slow"),
        UNEQUAL | {name: np.zeros((2, 2)) for name in "PVS"},
        dict(eta=0.5, mu=1.0),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_chains_of_other_regimes_at_three_dimensions(regime: str) -> None:
    """Means differ from ω + m/d by a fitted c/d² at d = 20, 40, 80, and the limit alone is refuted."""
    kind, y0, params = REGIMES[regime]
    model, times = derive.TeacherStudent(**kind), [1.0, 2.0, 4.0]
    given: dict[str, Any] = dict(y0=y0, params=COMMON | params, t_eval=times)
    theory = solve.integrate(model.dynamics().fluctuations(), (0, 4), **given)
    study = validate.simulate(
        model, d=[20, 40, 80], runs=12_000, t_span=(0, 4), rng=0, align=False, progress=False, **given
    )[["Q", "R", "eg"]]
    verdict = validate.compare(theory, study)
    assert verdict.status != "FAIL", verdict
    bare = theory.assign({f"{name}_mean_correction": 0 * theory[name] for name in ("Q", "R", "eg")})
    assert validate.compare(bare, study).status == "FAIL"


TRAINED = dict(
    y0=dict(Q=[[0.5, 0.1], [0.1, 0.4]], R=[[0.3, 0.0], [0.1, 0.2]], a=[0.8, 1.1]),
    params=dict(eta=0.5, eta_a=0.3, kappa=0.2, sigma=0.2, T=np.eye(2), b=1.0),
)


@pytest.mark.slow
def test_chains_with_both_layers_trained() -> None:
    model = derive.TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)
    judged(model, TRAINED, d=50, runs=40_000, times=[0.5, 2])


@pytest.mark.slow
def test_chains_from_random_initial_weights() -> None:
    given = dict(
        y0={name: TRAINED["y0"][name] for name in "QR"}, params=dict(eta=0.5, sigma=0.1, T=np.eye(2), a=1.0, b=1.0)
    )
    judged(ERF, given, d=40, runs=40_000, times=[0.5, 2], init="random")


@pytest.mark.slow
def test_many_chains_of_one_student() -> None:
    judged(ERF, ONE, d=20, runs=100_000, times=[1, 3, 6])


def test_random_initial_weights_have_the_covariance_of_their_overlaps() -> None:
    """Against overlaps of sampled vectors: students normal about their projection on a teacher that is held."""
    given = committee(2, 2, seed=5)
    theory = ERF.dynamics().fluctuations()
    inputs = read_inputs(theory.dynamics, **given)
    Q, R, T = given["y0"]["Q"], given["y0"]["R"], given["params"]["T"]
    rng, d, samples = np.random.default_rng(6), 30, 20_000
    teacher = np.zeros((2, d))
    teacher[:, :2] = np.linalg.cholesky(T) * np.sqrt(d)
    along = R @ np.linalg.inv(T) @ teacher
    rest = np.linalg.cholesky(Q - R @ np.linalg.inv(T) @ R.T)
    w = along + rest @ rng.standard_normal((samples, 2, d))
    drawn_Q, drawn_R = w @ w.transpose(0, 2, 1) / d, w @ teacher.T / d
    i, k = np.triu_indices(2)
    X = np.concatenate([drawn_Q[:, i, k], drawn_R.reshape(samples, -1)], axis=1) * np.sqrt(d)
    assert np.abs(X.mean(0) / np.sqrt(d) - np.concatenate([Q[i, k], R.ravel()])).max() < 5 * X.std() / np.sqrt(samples)
    expected = initial_covariance(theory, inputs, "random")
    centred = X - X.mean(0)
    spread = np.sqrt(np.einsum("si,sj->ij", centred**2, centred**2) / samples) / np.sqrt(samples)
    assert (np.abs(centred.T @ centred / samples - expected) < 5 * spread).all()
    assert not initial_covariance(theory, inputs, "exact").any()


def test_bad_input_is_refused() -> None:
    theory = ERF.dynamics().fluctuations()
    with pytest.raises(derive.ModelError, match="initial"):
        integrate_fluctuations(theory, (0, 1), **ONE, initial="other")
    with pytest.raises(derive.ModelError, match="fluctuations"):
        integrate_fluctuations(ERF.dynamics(), (0, 1), **ONE)  # type: ignore[arg-type]
    assert solve.integrate(theory.dynamics, (0, 1), **ONE, t_eval=[1]).sizes["t"] == 1
