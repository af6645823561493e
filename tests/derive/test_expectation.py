"""Closed forms of Gaussian expectations against three independent witnesses: cubature, pairings, published formulas.

Cubature: h = F z with C = F Fᵀ and a tensor Gauss–Hermite rule for z; the functions are written here in NumPy. Its own
error is estimated with a smaller rule. Pairings: Isserlis' theorem by brute force. Published: Saad & Solla, Phys. Rev.
E 52, 4225 (1995).
"""

import itertools
import math
import pickle
from functools import cache

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from effdyn.derive import NoClosedForm, TeacherStudent, activation, closed_form
from effdyn.derive.activation import X

ULP = 2.0**-52


def of_polynomial(coefficients):
    """g and g′ from the coefficients of g, lowest first."""
    g = np.polynomial.Polynomial(coefficients)
    return g, g.deriv()


ERF = (lambda h: special.erf(h / math.sqrt(2)), lambda h: math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2))
PLAIN = {
    "erf": ERF,
    "linear": of_polynomial([0.0, 1.0]),
    "square": of_polynomial([0.0, 0.0, 1.0]),
    "He2": of_polynomial([-1.0, 0.0, 1.0]),
    "He3": of_polynomial([0.0, -3.0, 0.0, 1.0]),
    "x**3/3 + x**2/2 - x + 1/5": of_polynomial([0.2, -1.0, 0.5, 1 / 3]),
}
"""Each activation and its derivative, independently of SymPy."""
PAIRS = [(name, name) for name in PLAIN] + [("erf", "He3"), ("He3", "erf"), ("He2", "erf"), ("erf", "square")]


@cache
def moments_of(student, teacher):
    """Every moment that the model needs, both layers trained."""
    model = TeacherStudent(activation=student, teacher_activation=teacher, second_layer="trained")
    return model.dynamics().moments


def plain_functions(shape, student, teacher):
    """The functions of a moment in NumPy, by how they print: g, g', g_star, and h itself."""
    table = {"g": PLAIN[student][0], "g'": PLAIN[student][1], "g_star": PLAIN[teacher][0], "": lambda h: h}
    return [table[name] for name in shape]


@cache
def compiled_form(signature, module="numpy"):
    """A closed form as a function of the covariance matrix."""
    form, symbols = closed_form(signature)
    function = sympy.lambdify(list(symbols.values()), form, module)
    return lambda C: function(*(C[a][b] for a, b in symbols))


CASES = [
    pytest.param(student, teacher, moment.name, id=f"{student}|{teacher}|{moment.name}")
    for student, teacher in PAIRS
    for moment in moments_of(student, teacher)
]


def named(student, teacher, name):
    return next(m for m in moments_of(student, teacher) if m.name == name)


# -- covariances -------------------------------------------------------------------------------------------------------


@st.composite
def covariances(draw, size):
    """Covariances of every kind that equations meet: generic, rank-deficient, nearly so, and with coincident fields.

    Entries are at most 1, where Gauss–Hermite rules converge fast; larger ones are left to the exact identities below.
    """
    rank = draw(st.integers(1, size))
    factor = draw(hnp.arrays(float, (size, rank), elements=st.floats(-1, 1, width=32))) / math.sqrt(rank)
    kind = draw(st.sampled_from(["generic", "coincident", "nearly coincident", "nearly opposite", "ill-conditioned"]))
    if kind == "coincident":
        return from_factor(factor[draw(st.lists(st.integers(0, size - 1), min_size=size, max_size=size))])
    if kind.startswith("nearly") and size > 1:
        sign = 1 if kind == "nearly coincident" else -1
        one, other = draw(st.permutations(range(size)))[:2]
        slip = draw(hnp.arrays(float, (1,), elements=st.floats(1e-6, 1e-5)))  # correlation ±(1 − slip²/2) and more
        factor = np.hstack([factor, np.zeros((size, 1))])
        factor[other] = sign * factor[one]
        factor[other, -1] += slip[0]
    if kind == "ill-conditioned":
        factor = np.hstack([factor, 1e-6 * np.eye(size)])
    return from_factor(factor)


def from_factor(factor):
    return (factor @ factor.T + (factor @ factor.T).T) / 2


# -- the first witness: cubature ---------------------------------------------------------------------------------------

NODES = {1: (96, 128), 2: (56, 72), 3: (40, 48), 4: (24, 30)}
"""Nodes a dimension of the two rules, by the rank of the covariance."""


@cache
def hermite_rule(nodes):
    points, weights = special.roots_hermitenorm(nodes)
    return points, weights / math.sqrt(2 * math.pi)


def cubature(functions, C):
    """E[Π f_a(h_a)], an estimate of its error, and E[|Π f_a(h_a)|], to which rounding errors are relative."""
    eigenvalues, vectors = np.linalg.eigh(C)
    # a direction narrower than 1e-3 is nearly a polynomial of low degree there, one narrower than rounding is none
    wide = [n for n in range(len(C)) if eigenvalues[n] > 1e-6]
    narrow = [n for n in range(len(C)) if 1e-17 < eigenvalues[n] <= 1e-6]
    few, many = NODES[max(len(wide), 1)]

    def rule(nodes, nodes_narrow):
        rank = len(wide) + len(narrow)
        fields = [0.0] * len(C)
        weight = np.ones((1,) * rank)
        for axis, n in enumerate((*wide, *narrow)):
            points, weights = hermite_rule(nodes if n in wide else nodes_narrow)
            shape = [1] * rank
            shape[axis] = -1
            weight = weight * weights.reshape(shape)
            fields = [
                f + vectors[a, n] * math.sqrt(eigenvalues[n]) * points.reshape(shape) for a, f in enumerate(fields)
            ]
        values = math.prod(f(np.asarray(h, dtype=float)) for f, h in zip(functions, fields, strict=True))
        return float(np.sum(weight * values)), float(np.sum(weight * np.abs(values)))

    coarse, _ = rule(few, 2)
    fine, magnitude = rule(many, 3)
    return fine, abs(fine - coarse), magnitude


@pytest.mark.parametrize(("student", "teacher", "name"), CASES)
def test_closed_form_equals_cubature(student, teacher, name):
    moment = named(student, teacher, name)
    functions = plain_functions(moment.shape, student, teacher)
    form = compiled_form(moment.signature)

    @settings(max_examples=20)
    @given(covariances(len(functions)))
    def check(C):
        value, error, magnitude = cubature(functions, C)
        assert error < 1e-6, "the cubature is too coarse to notice a wrong coefficient"
        # rounding: of a hundred thousand weighted values, and of the eigenvectors, which perturb C by an ulp or two and
        # with it the moment, whose derivatives are at most 30 here (a product of cubics)
        tolerance = 2 * error + 64 * ULP * (magnitude + 30)
        assert abs(form(C) - value) <= tolerance

    check()


@pytest.mark.parametrize(("student", "teacher", "name"), CASES)
def test_coincident_fields_equal_a_one_dimensional_integral(student, teacher, name):
    """All fields equal, by mpmath's quadrature at 30 digits: C has rank 1, and every 0/0 would show."""
    moment = named(student, teacher, name)
    with mpmath.workdps(30):
        erf = lambda h: mpmath.erf(h / mpmath.sqrt(2))  # noqa: E731
        slope = lambda h: mpmath.sqrt(2 / mpmath.pi) * mpmath.exp(-(h**2) / 2)  # noqa: E731
        exact = {
            "linear": [0, 1],
            "square": [0, 0, 1],
            "He2": [-1, 0, 1],
            "He3": [0, -3, 0, 1],
            "x**3/3 + x**2/2 - x + 1/5": [mpmath.mpf(1) / 5, -1, mpmath.mpf(1) / 2, mpmath.mpf(1) / 3],
        }

        def function(model, order):
            if model == "erf":
                return slope if order else erf
            return lambda h: sum(
                (p * c * h ** (p - 1) if order else c * h**p) for p, c in enumerate(exact[model]) if p >= order
            )

        table = {"g": function(student, 0), "g'": function(student, 1), "g_star": function(teacher, 0), "": lambda h: h}
        variance = mpmath.mpf(7) / 5

        def integrand(z):
            h = mpmath.sqrt(variance) * z
            density = mpmath.exp(-(z**2) / 2) / mpmath.sqrt(2 * mpmath.pi)
            return density * mpmath.fprod(table[s](h) for s in moment.shape)

        integral = mpmath.quad(integrand, [-16, -8, -4, -2, 0, 2, 4, 8, 16])
        size = len(moment.shape)
        form = compiled_form(moment.signature, "mpmath")([[variance] * size] * size)
        assert abs(form - integral) < mpmath.mpf(10) ** -24 * (1 + abs(integral))


def test_three_point_function_equals_nested_quadrature():
    """E[g'(u) v g(w)] over two independent directions, by mpmath: no rule in common with the cubature above."""
    u, v, w = (1.1, 0.2), (-0.3, 0.8), (0.5, -0.7)
    g, slope = sympy.Lambda(X, activation("erf").expr), sympy.Lambda(X, activation("erf").derivative())

    def integrand(y, z):
        field = lambda f: f[0] * y + f[1] * z  # noqa: E731
        density = mpmath.exp(-(y**2 + z**2) / 2) / (2 * mpmath.pi)
        derivative = mpmath.sqrt(2 / mpmath.pi) * mpmath.exp(-(field(u) ** 2) / 2)
        return density * derivative * field(v) * mpmath.erf(field(w) / mpmath.sqrt(2))

    integral = mpmath.quad(integrand, [-9, 9], [-9, 9], maxdegree=5)
    factor = np.array([u, v, w])
    assert abs(compiled_form((slope, sympy.Lambda(X, X), g))(factor @ factor.T) - float(integral)) < 1e-14


# -- the second witness: pairings --------------------------------------------------------------------------------------


def pairings(fields):
    """Every way to pair up a list of fields."""
    if not fields:
        yield []
        return
    first, *rest = fields
    for n, partner in enumerate(rest):
        for others in pairings(rest[:n] + rest[n + 1 :]):
            yield [(first, partner), *others]


def isserlis(coefficient_lists, C):
    """E[Π_a Σ_p c_ap h_a^p] as the sum over all pairings, and the sum of their absolute values."""

    @cache
    def monomial(powers):
        fields = [a for a, p in enumerate(powers) for _ in range(p)]
        if len(fields) % 2:
            return 0.0, 0.0
        products = [math.prod(C[a, b] for a, b in pairing) for pairing in pairings(fields)]
        return math.fsum(products), math.fsum(map(abs, products))

    total = magnitude = 0.0
    for powers in itertools.product(*(range(len(c)) for c in coefficient_lists)):
        weight = math.prod(c[p] for c, p in zip(coefficient_lists, powers, strict=True))
        if weight:
            value, size = monomial(powers)
            total += weight * value
            magnitude += abs(weight) * size
    return total, magnitude


@pytest.mark.parametrize("student", [name for name in PLAIN if name != "erf"])
@pytest.mark.parametrize("seed", range(4))
def test_polynomials_equal_the_sum_over_pairings(student, seed):
    rng = np.random.default_rng(seed)
    g, slope = PLAIN[student]
    for moment in moments_of(student, student):
        size = len(moment.shape)
        factor = rng.normal(size=(size, 1 + seed))  # of every rank
        C = from_factor(factor)
        table = {"g": g.coef, "g'": slope.coef, "": [0.0, 1.0]}
        expected, magnitude = isserlis([list(table[s]) for s in moment.shape], C)
        assert abs(compiled_form(moment.signature)(C) - expected) <= 64 * ULP * magnitude, moment.name


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(-4, 4), min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(0, 2**31),
)
def test_any_polynomials_equal_the_sum_over_pairings(coefficient_lists, seed):
    size = len(coefficient_lists)
    C = from_factor(np.random.default_rng(seed).normal(size=(size, size)))
    signature = tuple(
        sympy.Lambda(X, sympy.Add(*(c * X**p for p, c in enumerate(coefficients))))
        for coefficients in coefficient_lists
    )
    expected, magnitude = isserlis(coefficient_lists, C)
    assert abs(compiled_form(signature)(C) - expected) <= 64 * ULP * magnitude


# -- the third witness: the published formulas -------------------------------------------------------------------------


def saad_solla_two(C, m):
    """E[g(u) g(v)]: eq. (6) of the paper's generalisation error."""
    return 2 / m.pi * m.asin(C[0][1] / m.sqrt((1 + C[0][0]) * (1 + C[1][1])))


def saad_solla_two_slopes(C, m):
    """E[g'(u) g'(v)]."""
    return 2 / m.pi / m.sqrt((1 + C[0][0]) * (1 + C[1][1]) - C[0][1] ** 2)


def saad_solla_three(C, m):
    """I_3 = E[g'(u) v g(w)]."""
    root = m.sqrt((1 + C[0][0]) * (1 + C[2][2]) - C[0][2] ** 2)
    return 2 / m.pi / root * (C[1][2] * (1 + C[0][0]) - C[0][1] * C[0][2]) / (1 + C[0][0])


def saad_solla_four(C, m):
    """I_4 = E[g'(u) g'(v) g(w) g(z)]."""
    (c11, c12, c13, c14), (_, c22, c23, c24), (_, _, c33, c34), (_, _, _, c44) = C
    l4 = (1 + c11) * (1 + c22) - c12**2
    l0 = l4 * c34 - c23 * c24 * (1 + c11) - c13 * c14 * (1 + c22) + c12 * c13 * c24 + c12 * c14 * c23
    l1 = l4 * (1 + c33) - c23**2 * (1 + c11) - c13**2 * (1 + c22) + 2 * c12 * c13 * c23
    l2 = l4 * (1 + c44) - c24**2 * (1 + c11) - c14**2 * (1 + c22) + 2 * c12 * c14 * c24
    return 4 / m.pi**2 / m.sqrt(l4) * m.asin(l0 / m.sqrt(l1 * l2))


PUBLISHED = [
    (("g", "g"), saad_solla_two),
    (("g'", "g'"), saad_solla_two_slopes),
    (("g'", "", "g"), saad_solla_three),
    (("g'", "g'", "g", "g"), saad_solla_four),
]


@pytest.mark.parametrize(("shape", "published"), PUBLISHED, ids=lambda p: getattr(p, "__name__", None))
def test_erf_moments_equal_saad_and_solla(shape, published, rng):
    """At 30 digits, where rounding cannot hide a difference, and in floats, over six decades of the variances."""
    (moment,) = (m for m in moments_of("erf", "erf") if m.shape == shape)
    size = len(shape)
    for trial in range(200):
        rank = 1 + trial % size
        factor = rng.normal(size=(size, rank)) * 10.0 ** rng.uniform(-1.5, 1.5, size=(size, 1))
        if trial % 5 == 0:
            factor = factor[rng.integers(0, size, size)]  # coincident fields
        C = from_factor(factor)
        with mpmath.workdps(60):
            exact_factor = [[mpmath.mpf(float(x)) for x in row] for row in factor]
            exact_C = [
                [mpmath.fsum(x * y for x, y in zip(a, b, strict=True)) for b in exact_factor] for a in exact_factor
            ]
            expected = published(exact_C, mpmath)
            derived = compiled_form(moment.signature, "mpmath")(exact_C)
            assert abs(derived - expected) <= mpmath.mpf(10) ** -30 * (1 + abs(expected))
        # in floats a correlation of 1 − ε between long vectors costs digits in any formula: this says how many
        condition = 1 + np.abs(C).max()
        assert abs(compiled_form(moment.signature)(C) - float(expected)) <= 1e-15 * condition**1.5 * (
            1 + abs(float(expected))
        )


@pytest.mark.parametrize(("shape", "published"), PUBLISHED, ids=lambda p: getattr(p, "__name__", None))
def test_erf_moments_are_as_precise_as_published_ones_at_ordinary_overlaps(shape, published, rng):
    (moment,) = (m for m in moments_of("erf", "erf") if m.shape == shape)
    for _ in range(500):
        C = from_factor(rng.normal(size=(len(shape), len(shape) + 1)) / math.sqrt(len(shape) + 1))
        with mpmath.workdps(40):
            expected = float(published([[mpmath.mpf(float(c)) for c in row] for row in C], mpmath))
        assert abs(compiled_form(moment.signature)(C) - expected) <= 1e-14 * max(abs(expected), 0.1)


# -- what has no closed form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [sympy.tanh(X), 1 / (1 + sympy.exp(-X)), sympy.log(1 + sympy.exp(X))])
def test_no_closed_form_says_what_stood_in_the_way(function):
    with pytest.raises(NoClosedForm) as caught:
        closed_form((sympy.Lambda(X, function), sympy.Lambda(X, function)))
    error = caught.value
    assert error.moment.startswith("E[") and "h1" in error.moment
    assert error.reason and error.instead
    again = pickle.loads(pickle.dumps(error))
    assert (again.moment, again.reason, again.instead) == (error.moment, error.reason, error.instead)


def test_no_closed_form_names_tanh_and_its_stand_in():
    tanh = activation("tanh")
    with pytest.raises(NoClosedForm) as caught:
        closed_form((sympy.Lambda(X, tanh.derivative()), sympy.Lambda(X, tanh.expr), sympy.Lambda(X, X)))
    assert caught.value.moment.startswith("E[") and "h3" in caught.value.moment, "the moment that was asked for"
    assert "tanh" in caught.value.reason
    assert "erf" in caught.value.instead


def test_six_erfs_are_not_elementary():
    """Six signs of correlated fields need an orthant probability of dimension six; four are sign4, five are odd."""
    g = sympy.Lambda(X, activation("erf").expr)
    with pytest.raises(NoClosedForm) as caught:
        closed_form((g,) * 6)
    assert "6" in caught.value.reason
    assert 'moments="numeric"' in caught.value.instead
    assert closed_form((g, g, g))[0] == closed_form((g,) * 5)[0] == 0, "odd in every field: zero by symmetry"
    assert closed_form((g,) * 4)[0].func.__name__ == "sign4"


def test_factors_in_another_order_have_the_same_value(rng):
    g, slope, linear = (sympy.Lambda(X, e) for e in (activation("erf").expr, activation("erf").derivative(), X))
    C = from_factor(rng.normal(size=(4, 4)) / 2)
    signature = (slope, slope, g, g)
    expected = compiled_form(signature)(C)
    for order in itertools.permutations(range(4)):
        value = compiled_form(tuple(signature[n] for n in order))(C[np.ix_(order, order)])
        assert abs(value - expected) <= 32 * ULP
    C = C[:3, :3]
    signature = (slope, linear, g)
    expected = compiled_form(signature)(C)
    for order in itertools.permutations(range(3)):
        value = compiled_form(tuple(signature[n] for n in order))(C[np.ix_(order, order)])
        assert abs(value - expected) <= 32 * ULP


def test_erfc_is_one_minus_erf():
    """By parity E[erfc(u) erfc(v)] = 1 + E[erf(u) erf(v)] and E[u erfc(v)] = −E[u erf(v)]."""
    erf, erfc, linear = (sympy.Lambda(X, f) for f in (sympy.erf(X), sympy.erfc(X), X))
    assert sympy.expand(closed_form((erfc, erfc))[0] - closed_form((erf, erf))[0]) == 1
    assert sympy.expand(closed_form((linear, erfc))[0] + closed_form((linear, erf))[0]) == 0
