"""Closed forms with kinks, exponentials and waves against integrals computed here, known formulas and limits.

Integrals: fields that coincide make products of functions of one variable, for SciPy's adaptive quadrature with the
kinks given; two fields by nested quadrature in panels between kinks; three and four distinct ones by the
certificates' referee. Formulas: Cho & Saul (2009), arc-cosine kernels; Saad & Solla (1995) are in test_expectation;
perceptrons: Biehl & Schwarze (1995), Kinzel & Rujan (1990).
"""

import itertools
import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from effdyn.derive import NoClosedForm, closed_form
from effdyn.derive.activation import X
from effdyn.derive.errors import ModelError
from effdyn.derive.gaussian import referee
from effdyn.derive.gaussian.precise import precise_value

RELU, STEP, SIGN, ERF = sympy.Max(X, 0), sympy.Heaviside(X), sympy.sign(X), sympy.erf(X / sympy.sqrt(2))
SLOPE = sympy.Symbol("slope", real=True)
LEAKY = sympy.Piecewise((X, X > 0), (SLOPE * X, True))
ALPHA = 0.3


def value(functions, C, m=None):
    form, entries = closed_form(tuple(sympy.Lambda(X, sympy.sympify(f)) for f in functions), m is not None)
    numbers = {s: float(C[k] if len(k) == 2 else m[k[0]]) for k, s in entries.items()}
    return precise_value(form, {SLOPE: ALPHA, **numbers})


# -- plain versions of the functions, written here ---------------------------------------------------------------------

PLAIN = {
    "relu": (RELU, lambda h: np.maximum(h, 0), (0.0,)),
    "step": (STEP, lambda h: (h > 0) * 1.0, (0.0,)),
    "sign": (SIGN, np.sign, (0.0,)),
    "abs": (sympy.Abs(X), np.abs, (0.0,)),
    "leaky": (LEAKY, lambda h: np.where(h > 0, h, ALPHA * h), (0.0,)),
    "leaky'": (sympy.Piecewise((1, X > 0), (SLOPE, True)), lambda h: np.where(h > 0, 1.0, ALPHA), (0.0,)),
    "erf": (ERF, lambda h: special.erf(h / math.sqrt(2)), ()),
    "erf(2h-1)": (sympy.erf(2 * X - 1), lambda h: special.erf(2 * h - 1), ()),
    "erfc": (sympy.erfc(X), special.erfc, ()),
    "gauss": (sympy.exp(-(X**2) + X / 3), lambda h: np.exp(-(h**2) + h / 3), ()),
    "exp": (sympy.exp(X / 2), lambda h: np.exp(h / 2), ()),
    "cosh": (sympy.cosh(X / 2), lambda h: np.cosh(h / 2), ()),
    "sin": (sympy.sin(2 * X + 1), lambda h: np.sin(2 * h + 1), ()),
    "cos": (sympy.cos(X), np.cos, ()),
    "linear": (X, lambda h: h, ()),
    "He3": (X**3 - 3 * X, lambda h: h**3 - 3 * h, ()),
    "square": (X**2, lambda h: h**2, ()),
    "biased relu": (sympy.Max(2 * X - 1, 0), lambda h: np.maximum(2 * h - 1, 0), (0.5,)),
    "clip": (sympy.Max(-1, sympy.Min(X, 1)), lambda h: np.clip(h, -1, 1), (-1.0, 1.0)),
    "elu": (
        sympy.Piecewise((X, X > 0), (sympy.exp(X) - 1, True)),
        lambda h: np.where(h > 0, h, np.expm1(np.minimum(h, 0))),
        (0.0,),
    ),
    "gap": (
        sympy.Piecewise((0, abs(X) < 1), (X**2 - 1, True)),
        lambda h: np.where(abs(h) < 1, 0, h**2 - 1),
        (-1.0, 1.0),
    ),
    "tent": (sympy.Max(1 - sympy.Abs(X), 0), lambda h: np.maximum(1 - abs(h), 0), (-1.0, 0.0, 1.0)),
    "laplace": (sympy.exp(-sympy.Abs(X)), lambda h: np.exp(-abs(h)), (0.0,)),
    "square step": (X**2 * STEP, lambda h: h**2 * (h > 0), (0.0,)),
}  # fmt: skip
TRIGONOMETRIC = {"sin", "cos"}


def line(names, variance, mean=0.0):
    """E of a product of functions of one field, and its error."""
    deviation = math.sqrt(variance)
    kinks = sorted({(k - mean) / deviation for name in names for k in PLAIN[name][2]})
    ends = [-11.0, *(k for k in kinks if abs(k) < 11), 11.0]

    def integrand(z):
        h = mean + deviation * z
        return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * math.prod(float(PLAIN[n][1](h)) for n in names)

    parts = [
        integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-13, limit=400) for a, b in itertools.pairwise(ends)
    ]
    return sum(p for p, _ in parts), sum(e for _, e in parts)


def plane(names, C, m=(0.0, 0.0)):
    """E[f(h_1) g(h_2)], the inner integral by Gauss–Legendre between kinks of g, the outer adaptive; and its error."""
    (f, g), (s, _) = names, np.sqrt(np.diag(C))
    slope = C[0, 1] / C[0, 0]
    width = math.sqrt(C[1, 1] - slope * C[0, 1])
    x, w = np.polynomial.legendre.leggauss(60)

    def inner(mean):
        kinks = [k for k in ((k - mean) / width for k in PLAIN[g][2]) if abs(k) < 10]
        total = 0.0
        for a, b in itertools.pairwise(sorted([-10.0, -4.0, 0.0, 4.0, 10.0, *kinks])):
            z = (a + b) / 2 + (b - a) / 2 * x
            total += (b - a) / 2 * float((w * np.exp(-(z**2) / 2) * PLAIN[g][1](mean + width * z)).sum())
        return total / math.sqrt(2 * math.pi)

    def outer(z):
        h = m[0] + s * z
        return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * float(PLAIN[f][1](h)) * inner(m[1] + slope * (h - m[0]))

    special_points = [k for k in ((k - m[0]) / s for k in PLAIN[f][2]) if abs(k) < 10]
    if slope:
        special_points += [k for k in ((k - m[1]) / (slope * s) for k in PLAIN[g][2]) if abs(k) < 10]
    parts = [
        integrate.quad(outer, a, b, epsabs=1e-12, epsrel=1e-12, limit=200)
        for a, b in itertools.pairwise(sorted([-10.0, *special_points, 10.0]))
    ]
    return sum(p for p, _ in parts), sum(e for _, e in parts)


def covariance(rng, n, rank=None):
    factor = rng.normal(size=(n, rank or n + 1)) / math.sqrt(rank or n + 1)
    gram = factor @ factor.T
    return (gram + gram.T) / 2


@pytest.mark.parametrize("name", PLAIN)
def test_one_field(name, rng):
    for mean in (None, 0.4, -1.1):
        variance = rng.uniform(0.3, 1.5)
        expected, error = line([name], variance, mean or 0.0)
        found = value([PLAIN[name][0]], np.array([[variance]]), None if mean is None else [mean])
        assert abs(found - expected) <= error + 1e-12


@settings(max_examples=50)
@given(st.sampled_from(sorted(PLAIN)), st.sampled_from(sorted(PLAIN)), st.booleans(), st.integers(0, 2**31))
def test_two_fields(f, g, shifted, seed):
    rng = np.random.default_rng(seed)
    C, m = covariance(rng, 2), rng.normal(size=2) / 2 * shifted
    if shifted and {f, g} & TRIGONOMETRIC and (PLAIN[f][2] or PLAIN[g][2] or {"erf", "erf(2h-1)", "erfc"} & {f, g}):
        return  # waves beside signs off the centre have no closed form: tested below
    if {f, g} & TRIGONOMETRIC and {"biased relu", "clip", "gap", "tent", "elu", "laplace", "erf(2h-1)"} & {f, g}:
        return
    expected, error = plane((f, g), C, m)
    found = value([PLAIN[f][0], PLAIN[g][0]], C, m if shifted else None)
    assert error < 1e-9
    assert abs(found - expected) <= error + 1e-11 * max(1, abs(expected))


REGULAR = ("relu", "step", "sign", "abs", "leaky", "leaky'", "erf", "linear", "square")
"""Functions whose forms are exact where fields coincide, in products of degree two and more or less."""


@settings(max_examples=60)
@given(st.lists(st.sampled_from(REGULAR), min_size=2, max_size=4), st.integers(0, 2**31))
def test_all_fields_coincide(names, seed):
    """C of rank one, with equal entries: every 0/0 would show. By parity half of the centred ones are about signs."""
    variance = np.random.default_rng(seed).uniform(0.3, 1.5)
    expected, error = line(names, variance)
    found = value([PLAIN[n][0] for n in names], np.full((len(names), len(names)), variance))
    assert abs(found - expected) <= error + 1e-12 * max(1, abs(expected))


# -- arc-cosine kernels ------------------------------------------------------------------------------------------------


def cho_and_saul(order, theta):
    """J_n(θ) of eq. (4)–(6), and E[Θ Θ h^n h^n] = (|x||y|)^n J_n(θ)/2π for unit inputs."""
    s, c, rest = math.sin(theta), math.cos(theta), math.pi - theta
    return {0: rest, 1: s + rest * c, 2: 3 * s * c + rest * (1 + 2 * c**2)}[order] / (2 * math.pi)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("theta", [0.0, 1e-4, 0.1, math.pi / 3, math.pi / 2, 2.5, math.pi - 1e-4])
def test_arc_cosine_kernels_equal_cho_and_saul(order, theta):
    C = np.array([[2.0, math.sqrt(6) * math.cos(theta)], [0, 3.0]])
    C[1, 0] = C[0, 1]
    if theta == 0.0:
        C[:] = 2.0
    expected = math.sqrt(C[0, 0] * C[1, 1]) ** order * cho_and_saul(order, theta)
    kernel = X**order * STEP
    # an ulp of cos θ moves θ by 1e-16/sin θ; and the terms of J_2 nearly cancel at large θ
    assert abs(value([kernel, kernel], C) - expected) <= 2e-15 * C[0, 0] * C[1, 1] / max(math.sin(theta), 1e-4)


# -- the four-point function of relu -----------------------------------------------------------------------------------


def set_partitions(n):
    """All patterns of coincidence of n fields, as the number of each one's block."""
    patterns = [[0]]
    for _ in range(n - 1):
        patterns = [[*p, block] for p in patterns for block in range(max(p) + 2)]
    return patterns


def merged_value(names, pattern, rng):
    """The four-point function where fields coincide as in the pattern, and the integral over the distinct ones."""
    distinct = max(pattern) + 1
    C = covariance(rng, distinct)
    full = C[np.ix_(pattern, pattern)]
    found = value([PLAIN[n][0] for n in names], full)
    groups = [tuple(n for n, block in zip(names, pattern, strict=True) if block == b) for b in range(distinct)]
    if distinct == 1:
        expected, error = line(groups[0], C[0, 0])
    elif distinct == 2:
        for group in groups:
            functions = tuple(PLAIN[n][1] for n in group)
            PLAIN[group] = (None, lambda h, fs=functions: np.prod([f(h) for f in fs], axis=0), (0.0,))
        expected, error = plane(tuple(groups), C)
        for group in set(groups):
            del PLAIN[group]
    else:
        products = [sympy.Mul(*(PLAIN[n][0] for n in group)).subs(SLOPE, ALPHA) for group in groups]
        expected, error = referee.integrate(products, C, np.zeros(distinct))
    return found, expected, error


@pytest.mark.parametrize("pattern", set_partitions(4), ids=lambda p: "".join(map(str, p)))
@pytest.mark.parametrize(
    "names",
    [("step", "step", "relu", "relu"), ("leaky'", "leaky'", "leaky", "leaky"), ("relu",) * 4, ("step",) * 4],
    ids=lambda n: " ".join(n),
)
def test_four_point_functions_at_all_coincidences(names, pattern, rng):
    """Fifteen patterns, from one field to four distinct ones, whose nested quadrature is the coarsest."""
    found, expected, error = merged_value(names, pattern, rng)
    assert error < (1e-9, 1e-9, 1e-6, 1e-4)[max(pattern)]
    assert abs(found - expected) <= 6 * error + 1e-10


def test_six_factors_with_four_kinked_fields(rng):
    """E[relu(u)² relu(v)² sign(w) sign(z)], where w and z coincide: E[relu(u)² relu(v)²]."""
    C = covariance(rng, 3)
    some = [0, 1, 2, 2]
    found = value([RELU**2, RELU**2, SIGN, SIGN], C[np.ix_(some, some)])
    PLAIN["relu²"] = (None, lambda h: np.maximum(h, 0) ** 2, (0.0,))
    expected, error = plane(("relu²", "relu²"), C[:2, :2])
    del PLAIN["relu²"]
    assert abs(found - expected) <= error + 1e-10
    assert value([SIGN] * 3 + [X] * 3, covariance(rng, 6)) is not None


# -- perceptrons -------------------------------------------------------------------------------------------------------


def test_perceptron_integrals(rng):
    """⟨h* sign h⟩ = √(2/π) C_12/√C_11, ⟨sign sign⟩ = 1 − 2θ/π, ⟨|h| h* sign h*⟩ and the Hebb and Adatron averages."""
    C = covariance(rng, 2)
    (q, r), (_, t) = C
    rho, root = r / math.sqrt(q * t), math.sqrt(q * t - r**2)
    assert value([SIGN, X], C) == pytest.approx(math.sqrt(2 / math.pi / q) * r, rel=1e-14)
    assert value([SIGN, SIGN], C) == pytest.approx(1 - 2 * math.acos(rho) / math.pi, rel=1e-13)
    two = 2 / math.pi * (root + r * math.asin(rho))
    assert value([sympy.Abs(X), sympy.Abs(X)], C) == pytest.approx(two, rel=1e-13)
    # perceptron rule: an update where signs differ, ⟨|h| Θ(−h h*)⟩ = (1 − ρ)√(q/2π)
    disagree = (1 - rho) * math.sqrt(q / (2 * math.pi))
    found = (value([sympy.Abs(X)], C[:1, :1]) - value([X, SIGN], C)) / 2
    assert found == pytest.approx(disagree, rel=1e-13)
    # Adatron: ⟨h² Θ(−h h*)⟩ = (q/π)(acos ρ − ρ √(1 − ρ²))
    adatron = q / math.pi * (math.acos(rho) - rho * math.sqrt(1 - rho**2))
    assert (q - value([X**2 * SIGN, SIGN], C)) / 2 == pytest.approx(adatron, rel=1e-12)


def test_the_derivative_of_a_sign_holds_its_field_at_zero(rng):
    C = covariance(rng, 2)
    slope = sympy.diff(SIGN, X)
    left = C[1, 1] - C[0, 1] ** 2 / C[0, 0]
    density = 2 / math.sqrt(2 * math.pi * C[0, 0])
    assert value([slope, RELU], C) == pytest.approx(density * math.sqrt(left / (2 * math.pi)), rel=1e-13)
    assert closed_form((sympy.Lambda(X, X * slope), sympy.Lambda(X, RELU)))[0] == 0
    pair = value([slope, slope], C)
    assert pair == pytest.approx(4 / (2 * math.pi * math.sqrt(np.linalg.det(C))), rel=1e-13)


# -- identities --------------------------------------------------------------------------------------------------------


def test_waves_equal_the_characteristic_function(rng):
    C, m = covariance(rng, 3), rng.normal(size=3)
    total = sum(
        np.exp(1j * (k @ m) - k @ C @ k / 2)
        * np.prod([1 if f == "cos" else -1j * s for f, s in zip(("cos", "sin", "sin"), signs, strict=True)])
        / 8
        for signs in itertools.product((1, -1), repeat=3)
        for k in [np.array(signs) * (1, 2, 0.5)]
    )
    found = value([sympy.cos(X), sympy.sin(2 * X), sympy.sin(X / 2)], C, m)
    assert abs(total.imag) < 1e-15 and found == pytest.approx(total.real, rel=1e-12)


def test_a_sine_beside_a_sign_is_erfi(rng):
    C = covariance(rng, 2)
    expected = math.exp(-C[0, 0] / 2) * special.erfi(C[0, 1] / math.sqrt(2 * C[1, 1]))
    assert value([sympy.sin(X), SIGN], C) == pytest.approx(expected, rel=1e-13)


def test_thresholds_are_means(rng):
    """f(h) with mean m is f(h + m) without."""
    C, m = covariance(rng, 2), (0.5, -0.25)
    moved = [sympy.Max(X + sympy.Rational(1, 2), 0), sympy.sign(X - sympy.Rational(1, 4))]
    assert value(moved, C) == pytest.approx(value([RELU, SIGN], C, m), rel=1e-13)


def test_a_symbolic_slope_interpolates_between_linear_and_relu(rng):
    form, _ = closed_form((sympy.Lambda(X, LEAKY),) * 4)
    linear, _ = closed_form((sympy.Lambda(X, X),) * 4)
    relu, entries = closed_form((sympy.Lambda(X, RELU),) * 4)
    C = covariance(rng, 4)
    numbers = {s: float(C[k]) for k, s in entries.items()}
    assert precise_value(form, {SLOPE: 1.0, **numbers}) == pytest.approx(precise_value(linear, numbers), rel=1e-13)
    assert precise_value(form, {SLOPE: 0.0, **numbers}) == pytest.approx(precise_value(relu, numbers), rel=1e-13)


def test_zero_means_are_no_means(rng):
    """The forms with distribution functions at the centre equal the arc sines."""
    C = covariance(rng, 3)
    for functions in ([RELU, RELU, SIGN], [ERF, STEP, X**2], [STEP, STEP, RELU]):
        assert value(functions, C, [0.0] * 3) == pytest.approx(value(functions, C), abs=1e-13)


# -- what has no closed form, and what has no expectation --------------------------------------------------------------


@pytest.mark.parametrize(
    ("functions", "shifted", "said"),
    [
        ([SIGN] * 6, False, "dimension 6"),
        ([SIGN] * 4, True, "dimension 4"),
        ([ERF] * 6, False, "dimension 6"),
        ([sympy.cos(X), SIGN, SIGN], False, "more than one sign"),
        ([sympy.sin(X), SIGN], True, "off the centre"),
        ([sympy.tanh(X), SIGN], False, "tanh is neither polynomial, Gaussian, exponential nor orthant-type"),
        ([sympy.exp(sympy.sin(X)), X**2], False, "neither"),
        ([sympy.exp(-(X**4)), RELU], False, "neither"),
    ],
)
def test_no_closed_form(functions, shifted, said):
    with pytest.raises(NoClosedForm) as caught:
        closed_form(tuple(sympy.Lambda(X, f) for f in functions), shifted)
    assert said in caught.value.reason
    assert 'moments="numeric"' in caught.value.instead and "erf" in caught.value.instead


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (sympy.exp(X**2), "no Gaussian expectation"),
        (sympy.exp(X**2 / 100), "no Gaussian expectation"),
        (sympy.exp(X**3), "no Gaussian expectation"),
        (X**X, "no Gaussian expectation"),
        (sympy.sqrt(X), "complex"),
        (sympy.log(X), "complex"),
        (sympy.I * X, "complex"),
        (1 / X, "not integrable"),
        (1 / (X**2 - 1), "not integrable"),
        (sympy.tan(X), "not integrable"),
    ],
    ids=str,
)
def test_functions_without_expectation(function, said):
    with pytest.raises(ModelError, match=said):
        closed_form((sympy.Lambda(X, function),))
    with pytest.raises(ModelError, match=said):
        closed_form((sympy.Lambda(X, function), sympy.Lambda(X, RELU)))


@pytest.mark.parametrize(
    "function", [1 / (1 + X**2), sympy.tanh(X) / X, sympy.log(1 + sympy.exp(X)), sympy.exp(-(X**4))]
)
def test_functions_with_expectation_but_no_closed_form(function):
    with pytest.raises(NoClosedForm):
        closed_form((sympy.Lambda(X, function), sympy.Lambda(X, X**2)))
    with pytest.raises(NoClosedForm):
        closed_form((sympy.Lambda(X, function), sympy.Lambda(X, X), sympy.Lambda(X, RELU)))
