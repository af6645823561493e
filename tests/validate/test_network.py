"""The real network: initial overlaps as prescribed, steps whose mean is an integral computed otherwise."""

import math
from itertools import product

import numpy as np
import pytest
import sympy

from effdyn.derive import ModelError, TeacherStudent
from effdyn.derive.activation import X
from effdyn.validate.generated import source
from effdyn.validate.initial import coordinates, weights
from effdyn.validate.inputs import read_inputs
from effdyn.validate.network import train
from effdyn.validate.simulate import simulate


def _random_overlaps(K, M, rank, rng):
    vectors = rng.standard_normal((K + M, rank))
    gram = vectors @ vectors.T / rank
    return dict(Q=gram[:K, :K], R=gram[:K, K:]), gram[K:, K:]


@pytest.mark.parametrize(
    ("K", "M", "rank", "d"), [(2, 2, 4, 4), (4, 4, 8, 100), (3, 2, 2, 5), (2, 5, 3, 3), (30, 10, 40, 200)]
)
def test_initial_overlaps_are_exact(K, M, rank, d, rng):
    y0, T = _random_overlaps(K, M, rank, rng)
    inputs = read_inputs(TeacherStudent(), y0, dict(eta=1, sigma=0, T=T, a=1, b=1))
    start = coordinates(inputs)
    assert start.rank == rank
    teacher, student = weights(start, d, "exact", rng)
    size = np.diag(inputs.gram).max()
    for found, asked in ((student @ student.T, y0["Q"]), (student @ teacher.T, y0["R"]), (teacher @ teacher.T, T)):
        assert abs(found - asked).max() < 1e-12 * size


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_random_initial_overlaps_have_their_mean_and_wishart_spread(engine):
    """Var R_in = rest_ii T_nn/d given the teacher, Var Q_ii = (2 rest² + 4 rest m²)/d, m² its part along that."""
    d, runs = 25, 4000
    y0 = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]])
    result = simulate(
        TeacherStudent(),
        d=d,
        runs=runs,
        t_span=(0, 0),
        y0=y0,
        init="random",
        engine=engine,
        align=False,
        params=dict(eta=1, sigma=0, T=np.eye(2), a=1, b=1),
    ).isel(t=0)
    along = np.array(y0["R"])
    rest = np.diag(np.array(y0["Q"]) - along @ along.T)
    part = (along**2).sum(1)
    for name in ("Q", "R"):
        assert (abs(result[name].mean("run") - y0[name]) < 5 * result[name].std("run") / math.sqrt(runs)).all()
    width = 5 * math.sqrt(2 / runs) * 1.2  # of a nearly Gaussian variance; 13 %
    assert np.allclose(result.R.var("run"), rest[:, None] / d, rtol=width)
    assert np.allclose(np.diag(result.Q.var("run")), (2 * rest**2 + 4 * rest * part) / d, rtol=width)


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_mean_of_one_step_is_the_integral(engine):
    """E ΔQ, E ΔR, E Δa of the first step, d = 6, by a Gauss–Hermite rule over x's components along the weights."""
    d, runs = 6, 20_000
    Q, R, T, a, b = 0.8, 0.3, 1.0, 0.7, 1.2
    eta, eta_a, sigma, kappa = 1.5, 0.8, 0.3, 0.4
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()
    u, v = np.meshgrid(node, node, indexing="ij")
    p = np.outer(weight, weight)
    target, h = u, R * u + math.sqrt(Q - R * R) * v
    g, slope = np.tanh(h), 1 - np.tanh(h) ** 2
    error = b * np.vectorize(math.erf)(target / math.sqrt(2)) - a * g
    F, keep = a * slope * error, 1 - kappa / d
    length = u * u + v * v + d - 2  # E|x|² given the two components
    noise = sigma**2 * (a * slope) ** 2
    expected = {
        "Q": (p * (keep**2 * Q + 2 * eta / d * keep * F * h + eta**2 / d**2 * length * (F * F + noise))).sum() - Q,
        "R": (p * (keep * R + eta / d * F * target)).sum() - R,
        "a": (p * (keep * a + eta_a / d * g * error)).sum() - a,
    }
    model = TeacherStudent(activation="tanh", teacher_activation="erf", second_layer="trained", weight_decay=True)
    result = simulate(
        model,
        d=d,
        runs=runs,
        t_span=(0, 1),
        t_eval=[0, 1 / d],
        y0=dict(Q=[[Q]], R=[[R]], a=[a]),
        engine=engine,
        params=dict(eta=eta, eta_a=eta_a, sigma=sigma, kappa=kappa, T=[[T]], b=b),
    )
    for name, value in expected.items():
        step = result[name].diff("t").values.ravel()
        tolerance = 5 * step.std() / math.sqrt(runs)
        assert tolerance < 0.04 * (abs(step).mean() + abs(value)), "too coarse"
        assert abs(step.mean() - value) < tolerance, name


def test_step_is_the_update_rule_written_in_numpy(rng):
    """The uncompiled kernel, with its stand-ins (linear units, squared loss), against six lines of NumPy."""
    K, M, d, steps = 3, 2, 7, 5
    V, W, a, b, c, c_star = (rng.standard_normal(shape) for shape in ((M, d), (K, d), K, M, K, M))
    x, noise = rng.standard_normal((steps, d)), rng.standard_normal(steps)
    s, eta, eta_a, eta_c, keep = 0.5, 0.3, 0.2, 0.1, 0.9
    W2, a2, c2 = W.copy(), a.copy(), c.copy()
    work = np.zeros(3), np.linalg.norm(W, axis=1), np.empty(M), np.empty(K), np.empty(K)  # clock and lengths first
    assert train(V, W, a, c, b, c_star, x, noise, s, eta, eta_a, eta_c, keep, *work) == steps
    for z, n in zip(x, noise, strict=True):
        h = W2 @ z + c2
        residual = b @ (V @ z + c_star) + n - s * a2 @ h
        W2, c2 = keep * W2 + eta * s * residual * np.outer(a2, z), c2 + eta_c * s * residual * a2
        a2 = keep * a2 + eta_a * s * h * residual
    assert np.allclose(W, W2, rtol=1e-13) and np.allclose(a, a2, rtol=1e-13) and np.allclose(c, c2, rtol=1e-13)


FUNCTIONS = [
    sympy.tanh(X),
    sympy.Max(X, 0),
    sympy.Abs(X),
    sympy.Max(-1, sympy.Min(1, X)),
    X**3 - 3 * X,
    X / (1 + sympy.exp(-X)),
    sympy.log(1 + sympy.exp(X)),
    sympy.Piecewise((X, X > 0), (sympy.exp(X) - 1, True)),
    X,
    sympy.sin(X) + X**2,
    sympy.Integer(2) + X,
]


@pytest.mark.parametrize("g", FUNCTIONS, ids=str)
def test_printed_units_are_the_activation_and_its_derivative(g):
    text = source(TeacherStudent(activation=g)).replace("from numba import njit", "njit = lambda **_: lambda f: f")
    namespace = {}
    exec(compile(text, "generated", "exec", dont_inherit=True), namespace)
    for at in (-2.3, -0.7, 0.4, 1.9):
        expected = float(g.subs(X, at)), float(sympy.diff(g, X).subs(X, at))
        assert namespace["student_unit"](at) == pytest.approx(expected, rel=1e-14, abs=1e-15)
        assert namespace["teacher_unit"](at) == pytest.approx(expected[0], rel=1e-14, abs=1e-15)


def test_every_kind_of_function_compiles():
    for g in (sympy.Max(-1, sympy.Min(1, X)), X):
        result = simulate(
            TeacherStudent(activation=g),
            d=10,
            runs=2,
            t_span=(0, 1),
            y0=dict(Q=[[0.5]], R=[[0.1]]),
            engine="network",
            params=dict(eta=0.1, sigma=0, T=[[1.0]], a=1, b=1),
        )
        assert np.isfinite(result.eg).all()


def test_a_function_without_code_is_refused():
    for options, argument in (
        (dict(activation=sympy.LambertW(X)), "activation"),
        (dict(activation="erf", teacher_activation=sympy.LambertW(X)), "teacher_activation"),
        (dict(activation="erf", target=lambda h1: sympy.LambertW(h1)), "target"),
        (dict(activation="erf", loss=lambda phi, y: sympy.LambertW((y - phi) ** 2)), "loss"),
    ):
        with pytest.raises(ModelError, match="LambertW") as caught:
            source(TeacherStudent(**options))
        assert caught.value.argument == argument


def test_source_is_deterministic():
    models = [TeacherStudent(activation=sympy.tanh(X) * sympy.exp(-(X**2)) + X) for _ in range(2)]
    assert source(models[0], train) == source(models[1], train)
    assert all(text in source(models[0], train) for (text,) in product(["def train", "def learn", "tanh(h)"]))
