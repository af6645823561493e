"""Conditioned forms of moments and expectations of any expression, against cubature and one-dimensional integrals."""

import mpmath
import numpy as np
import pytest
import sympy
from scipy import special, stats
from sympy.utilities.lambdify import implemented_function

from effdyn.derive.activation import X
from effdyn.derive.errors import ModelError, NoClosedForm
from effdyn.derive.numerical.adaptive import numerical_expectation
from effdyn.derive.numerical.joint import cholesky
from effdyn.derive.numerical.moment_forms import moment_form, moment_value
from effdyn.derive.numerical.stable import stable
from effdyn.derive.numerical.vectorised import phi2

MP = mpmath.mp.clone()
TANH, IDENTITY, SIGN = sympy.tanh(X), X, sympy.sign(X)
SLOPE, ERF, SIGMOID = sympy.diff(TANH, X), sympy.erf(X / sympy.sqrt(2)), 1 / (1 + sympy.exp(-X))
SOFTPLUS = sympy.log(1 + sympy.exp(X))


def cubature(functions, C, m, jump=None):
    """E[Π f_a(h_a)] by a dense product rule: along the field that jumps by Legendre panels cut at its zero, along the
    others by the trapezoidal rule of step 0.35, whose error for tanh of unit fields is exp(−π²/0.35) = 6e-13."""
    order = sorted(range(len(functions)), key=lambda a: a != jump)
    factor, mean = cholesky(C[np.ix_(order, order)]), m[order]
    step = 0.35
    axes = [(np.arange(-8.4, 8.45, step), np.full(49, step))] * len(functions)
    if jump is not None:
        x, w = np.polynomial.legendre.leggauss(50)
        cut = -mean[0] / factor[0, 0]
        axes[0] = tuple(
            np.concatenate([(b - a) / 2 * part + shift for a, b, part, shift in panels])
            for panels in (
                [(-9, cut, x, (cut - 9) / 2), (cut, 9, x, (cut + 9) / 2)],
                [(-9, cut, w, 0), (cut, 9, w, 0)],
            )
        )
    z = np.stack(np.meshgrid(*(a[0] for a in axes), indexing="ij"), -1).reshape(-1, len(axes))
    weights = np.prod(np.stack(np.meshgrid(*(a[1] for a in axes), indexing="ij"), -1).reshape(-1, len(axes)), axis=1)
    weights = weights * np.exp(-(z**2).sum(axis=1) / 2) / (2 * np.pi) ** (len(axes) / 2)
    h = z @ factor.T + mean
    return weights @ np.prod([sympy.lambdify(X, functions[a], "scipy")(h[:, n]) for n, a in enumerate(order)], axis=0)


def covariances(size, rng):
    """Random, nearly singular, and with two coincident fields."""
    a = rng.normal(size=(size, size + 1))
    a /= np.linalg.norm(a, axis=1)[:, None]
    near, same = a.copy(), a.copy()
    if size > 1:
        near[1] = a[0] + 1e-4 * a[1]
        same[1] = a[0]
    return [b @ b.T for b in (a, near, same)]


SIGNATURES = {
    "tanh' h tanh": ((SLOPE, IDENTITY, TANH), None, 2),
    "tanh' h erf": ((SLOPE, IDENTITY, ERF), None, 1),
    "tanh sign": ((TANH, SIGN), 1, 1),
    "tanh^2": ((TANH**2,), None, 1),
    "sigmoid h sign": ((SIGMOID, IDENTITY, SIGN), 2, 1),
    "softplus h^2": ((SOFTPLUS, IDENTITY**2), None, 1),
    "tanh' erf erf": ((SLOPE, ERF, ERF), None, 1),
    "tanh' relu": ((SLOPE, sympy.Max(X, 0)), 1, 1),
}


@pytest.mark.parametrize("shifted", [False, True], ids=["centred", "with means"])
@pytest.mark.parametrize("name", SIGNATURES)
def test_conditioned_forms_equal_cubature(name, shifted):
    functions, jump, outer = SIGNATURES[name]
    rng = np.random.default_rng(len(name))
    form = moment_form(tuple(sympy.Lambda(X, f) for f in functions), shifted)
    assert not form.exact and form.outer == outer
    for n, C in enumerate(covariances(len(functions), rng)):
        if shifted and jump == 1 and n:
            continue  # a jump away from the node at 0, see the test below
        m = rng.normal(size=len(functions)) * 0.5 * shifted
        # 1e-9: the rule's own error, and 1e-16/1e-8 of rounding in the conditional law of a field nearly fixed
        assert moment_value(form, C, m) == pytest.approx(cubature(functions, C, m, jump), abs=2e-9)


def test_a_jump_away_from_zero_is_seen_by_a_finer_rule():
    form = moment_form((sympy.Lambda(X, TANH), sympy.Lambda(X, SIGN)), True)
    C, m = np.ones((2, 2)), np.array([0.3, 0.3])
    exact = cubature((abs(TANH),), np.ones((1, 1)), np.array([0.3]), 0)
    errors = [abs(moment_value(form, C, m, level) - exact) for level in (0, 1)]
    assert errors[0] < 5e-3  # the weight of the node next to the jump: the stated limit of these rules
    assert errors[1] < 2e-3


@pytest.mark.parametrize("name", SIGNATURES)
def test_fields_that_vanish_are_no_obstacle(name):
    functions, _, _ = SIGNATURES[name]
    form = moment_form(tuple(sympy.Lambda(X, f) for f in functions))
    size = len(functions)
    assert moment_value(form, np.zeros((size, size))) == pytest.approx(
        float(np.prod([float(f.subs(X, 0)) for f in functions])), abs=1e-12
    )


def test_a_sharp_inner_sign_becomes_the_sign_of_the_outer_field():
    form = moment_form((sympy.Lambda(X, TANH), sympy.Lambda(X, SIGN)))
    exact = 2 * float(MP.quad(lambda x: MP.tanh(x) * MP.npdf(x), [0, 1, 3, 12]))
    for gap in (1e-6, 1e-12, 1e-15, 0.0):
        C = np.array([[1.0, 1 - gap], [1 - gap, 1.0]])
        # E|tanh h| less the part lost where the fields have different signs, of the order of the gap
        assert moment_value(form, C) == pytest.approx(exact, abs=1e-10 + 2 * gap)


def test_two_kinks_under_a_condition():
    """relu(h)² tanh'(h) as three factors of coincident fields, where all conditional variances vanish."""
    relu = sympy.Max(X, 0)
    form = moment_form(tuple(sympy.Lambda(X, f) for f in (SLOPE, relu, relu)))
    exact = float(MP.quad(lambda x: x**2 / MP.cosh(x) ** 2 * MP.npdf(x), [0, 1, 3, 12]))
    assert moment_value(form, np.ones((3, 3))) == pytest.approx(exact, abs=1e-9)
    assert moment_value(form, np.zeros((3, 3))) == pytest.approx(0, abs=1e-12)


def test_closed_forms_come_first_and_too_many_outer_fields_are_refused():
    assert moment_form((sympy.Lambda(X, ERF), sympy.Lambda(X, IDENTITY))).exact
    tanh = sympy.Lambda(X, TANH)
    with pytest.raises(NoClosedForm, match=r"over 4 fields, at most 2"):
        moment_form((tanh,) * 4)
    assert moment_form((tanh,) * 4, limit=4).outer == 4


SOFT = [
    SOFTPLUS,
    SIGMOID,
    sympy.diff(SIGMOID, X),
    sympy.diff(SIGMOID, X, 2),
    X * SIGMOID,
    sympy.sech(X),
    sympy.asinh(X),
]


@pytest.mark.parametrize("f", [*SOFT, sympy.log(1 + sympy.exp(1 - X)), sympy.sinh(X) / sympy.cosh(X)], ids=str)
def test_stable_functions_have_the_same_values_and_do_not_overflow(f):
    better = stable(f)
    for x in (-3.7, -0.2, 0.4, 2.9):
        assert float(better.subs(X, x)) == pytest.approx(float(f.subs(X, x)), rel=1e-13)
    if not f.has(sympy.sinh):
        far = sympy.lambdify(X, better)(np.array([-700.0, 700.0]))
        assert np.isfinite(far).all()


def test_bivariate_normal_distribution():
    rng = np.random.default_rng(0)
    for x, y, rho in zip(*rng.normal(size=(2, 20)), rng.uniform(-1, 1, 20), strict=True):
        exact = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([x, y])
        assert phi2(x, y, rho) == pytest.approx(exact, abs=1e-12)
    assert phi2(0.3, 0.7, 1.0) == pytest.approx(special.ndtr(0.3), abs=1e-15)
    assert phi2(0.3, -0.1, -1.0) == pytest.approx(special.ndtr(0.3) + special.ndtr(-0.1) - 1, abs=1e-15)
    assert phi2(0.0, -1e300, 0.3) == 0


U, V, W, Z = sympy.symbols("u v w z", real=True)
PAIR = [[1.0, 0.5], [0.5, 1.0]]


def given_u(f):
    """E over u of f(u, mean of v, deviation of v) for the fields of ``PAIR``."""
    return 2 * float(MP.quad(lambda u: MP.npdf(u) * f(u), [1e-12, 0.5, 1, 2, 4, 8, 12]))


def hinge_of_product(u):
    mean, deviation = 1 - u**2 / 2, u * MP.sqrt(MP.mpf(3) / 4)
    return mean * MP.ncdf(mean / deviation) + deviation * MP.npdf(mean / deviation)


@pytest.mark.parametrize(
    ("expr", "fields", "C", "exact"),
    [
        (sympy.Max(0, 1 - U * V), (U, V), PAIR, given_u(hinge_of_product)),
        (sympy.sin(U**2), (U,), [[1.0]], ((1 - 2j) ** -0.5).imag),
        (sympy.sin(U * V), (U, V), PAIR, (((1 - 0.5j) ** 2 + 1) ** -0.5).imag),
        (sympy.log(sympy.Abs(U)), (U,), [[1.0]], -(np.euler_gamma + np.log(2)) / 2),
        (sympy.sqrt(sympy.Abs(U)), (U,), [[1.0]], 2**0.25 * special.gamma(0.75) / np.sqrt(np.pi)),
        (sympy.floor(U), (U,), [[1.0]], -0.5),
        (sympy.Piecewise((1, U * V > 0), (0, True)), (U, V), PAIR, 2 / 3),
        (sympy.Abs(U - V), (U, V), PAIR, np.sqrt(2 / np.pi)),
        (sympy.Abs(U + V + W + Z), (U, V, W, Z), np.eye(4).tolist(), 2 * np.sqrt(2 / np.pi)),
        (sympy.cos(U + V * W), (U, V, W), np.eye(3).tolist(), np.exp(-0.5) / np.sqrt(2)),
        (sympy.exp(5 * U), (U,), [[1.0]], np.exp(12.5)),
        (sympy.tanh(U) * V, (U, V), [[1, 1], [1, 1]], 0.6057055095998287),
        (U**2 + 3, (U,), [[0.0]], 3.0),
    ],
    ids=str,
)
def test_expectation_of_any_expression(expr, fields, C, exact):
    value, error = numerical_expectation(expr, fields, C)
    assert abs(value - exact) <= 1.5 * error + 1e-12 * abs(exact)
    sharpest = 2e-8 if len(fields) < 4 and not expr.has(sympy.Piecewise) else 2e-6
    assert error <= sharpest * max(1, abs(exact))


def test_expectation_with_means():
    value, error = numerical_expectation(sympy.Max(U, 0), (U,), [[4.0]], [1.0])
    exact = special.ndtr(0.5) + 2 * np.exp(-0.125) / np.sqrt(2 * np.pi)
    assert abs(value - exact) <= error + 1e-13


def test_expectation_of_a_function_implemented_in_python():
    cube = implemented_function("cube_of_tanh", lambda x: float(np.tanh(x)) ** 3)
    value, error = numerical_expectation(cube(U) * V, (U, V), PAIR)
    exact, _ = numerical_expectation(sympy.tanh(U) ** 3 * V, (U, V), PAIR)
    assert value == pytest.approx(exact, abs=1e-9)
    assert error < 1e-8


def test_the_error_of_an_expectation_is_honest():
    rng = np.random.default_rng(11)
    ratios = []
    for k in range(16):
        rho, a, b = (round(float(x), 3) for x in rng.uniform(-0.9, 0.9, 3))
        expr = [
            sympy.Max(0, a - U * V) * sympy.tanh(b * U),
            sympy.Abs(a * U + sympy.tanh(V) - b),
            sympy.sign(U + a) * sympy.Max(V, b * U),
            sympy.Piecewise((sympy.sin(U), a < V), (V * U, True)),
        ][k % 4]
        C = [[1, rho], [rho, 1.2]]
        value, error = numerical_expectation(expr, (U, V), C, rtol=1e-5)
        # the witness integrates along the other field first, where kinks do not say which one to take
        witness, finer = numerical_expectation(expr, (V, U), [[1.2, rho], [rho, 1]], rtol=1e-10)
        ratios.append(abs(value - witness) / (error + finer))
    assert np.sum(np.array(ratios) > 1) <= 1 and max(ratios) < 3
    assert max(ratios) > 0


@pytest.mark.parametrize(
    ("expr", "C", "hypothesis"),
    [
        (sympy.exp(U**2), [[1.0]], "whose expectation exists"),
        (sympy.exp(U**2 / 2), [[1.2]], "whose expectation exists"),
        (1 / U, [[1.0]], "singularities are integrable"),
        (1 / (U - 1) ** 2, [[1.0]], "singularities are integrable"),
        (sympy.tan(U), [[1.0]], "singularities are integrable"),
        (sympy.log(U), [[1.0]], "complex at u = "),
        (sympy.sqrt(U), [[1.0]], "complex at u = "),
        (sympy.I * U, [[1.0]], "complex at u = "),
        (U + V, [[1.0]], "it also contains v"),
        (U, [[-1.0]], "negative eigenvalue"),
        (U, [[1.0, 0.0]], "a symmetric covariance matrix"),
    ],
    ids=str,
)
def test_what_has_no_expectation_is_refused_by_its_reason(expr, C, hypothesis):
    with pytest.raises(ModelError, match=hypothesis):
        numerical_expectation(expr, (U,), C)
