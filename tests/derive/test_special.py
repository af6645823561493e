"""The special functions of Gaussian fields as SymPy objects: values, derivatives, printing."""

import itertools
import math
import warnings

import mpmath
import numpy as np
import pytest
import sympy
from scipy.stats import multivariate_normal

from effdyn.derive.gaussian import special
from effdyn.derive.gaussian.special import Phi2, Phi3, edge, sign2_given1, sign2_given2, sign4
from effdyn.derive.gaussian.special_sources import SOURCES, numpy_source

HALF = sympy.Rational(1, 2)
A, B, C = sympy.Rational(3, 5), sympy.Rational(-1, 3), sympy.Rational(2, 7)


def gram(vectors):
    """The upper triangle of the covariances of fields given by integer vectors."""
    rows = [sympy.Matrix([row]) for row in vectors]
    return [rows[a].dot(rows[b]) for a in range(len(rows)) for b in range(a, len(rows))]


FOUR = gram([(2, 1, 0, 0), (1, 2, 1, 0), (0, -1, 2, 1), (1, 0, 1, 3)])
POINTS = [
    sign4(*FOUR),
    sign2_given2(*FOUR),
    sign2_given1(*gram([(2, 1, 0), (1, 2, 1), (0, -1, 2)])),
    edge(2, HALF, 1, A, B, C, 1),
    Phi2(A, B, C),
    Phi3(A, B, C, HALF, sympy.Rational(1, 4), B),
]


@pytest.mark.parametrize("call", POINTS, ids=lambda call: type(call).__name__)
def test_derivatives_are_those_of_the_values(call):
    """Along a direction in all arguments, against a central difference in 22 digits: errors h² and 1e-22/h."""
    n, h = len(call.args), sympy.Rational(1, 10**7)
    direction = [sympy.Rational((5 * k) % 7 - 3, 4) for k in range(n)]

    def moved(sign):
        return call.func(*(a + sign * h * v for a, v in zip(call.args, direction, strict=True))).evalf(22)

    slope = sum(call.fdiff(k + 1).evalf(20) * v for k, v in enumerate(direction))
    assert abs((moved(1) - moved(-1)) / (2 * h) - slope) < 1e-12
    assert abs(slope) > 1e-3


def test_the_derivative_of_an_expression_uses_them():
    c = sympy.symbols("c:10", real=True)
    slope = sympy.diff(sign4(*c), c[1])
    given = sign2_given2(c[7], c[8], c[2], c[5], c[9], c[3], c[6], c[0], c[1], c[4])
    assert slope == 2 / sympy.pi * given / sympy.sqrt(c[0] * c[4] - c[1] ** 2)


def test_sign4_does_not_depend_on_the_order_of_the_fields():
    """The path of integration does: it separates (1, 2) from (3, 4)."""
    entry = {}
    for (a, b), c in zip(special.upper_triangle(4), FOUR, strict=True):
        entry[a, b] = entry[b, a] = c
    values = [
        sign4(*(entry[o[a], o[b]] for a, b in special.upper_triangle(4))).evalf(16)
        for o in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 2, 1))
    ]
    assert max(abs(v - values[0]) for v in values) < 1e-15


def test_sign4_makes_the_orthant_probability_of_scipy():
    """P(all > 0) = (1 + the six E[s_a s_b] + E[s₁ s₂ s₃ s₄])/16. SciPy is asked for 1e-5."""
    cov = np.zeros((4, 4))
    for (a, b), c in zip(special.upper_triangle(4), FOUR, strict=True):
        cov[a, b] = cov[b, a] = c
    rho = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    pairs = sum(2 / math.pi * math.asin(rho[a, b]) for a, b in itertools.combinations(range(4), 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scipy = multivariate_normal(cov=rho, abseps=1e-6, releps=0, maxpts=10**6, seed=1).cdf(np.zeros(4))
    assert float(1 + pairs + sign4(*FOUR).evalf()) / 16 == pytest.approx(scipy, abs=1e-5)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (sign4(2, 1, 1, 1, 2, 1, 1, 2, 1, 2), sympy.Rational(1, 5)),
        (sign4(1, 0, 0, 0, 1, 0, 0, 1, 0, 1), 0),
        (sign4(2, 1, 0, 0, 2, 0, 0, 2, -1, 2), -sympy.Rational(1, 9)),  # two independent pairs
        (sign4(1, 1, HALF, 0, 1, HALF, 0, 1, HALF, 1), sympy.Rational(1, 3)),  # fields 1 and 2 coincide: E[s₃ s₄]
        (sign4(1, -2, HALF, 0, 4, -1, 0, 1, HALF, 1), -sympy.Rational(1, 3)),
        (sign4(*[1] * 10), 1),
        (sign2_given1(1, 1, 1, 1, 1, 1), sympy.Rational(1, 3)),  # all three coincide
        (sign2_given1(1, -1, 1, 1, -1, 1), -sympy.Rational(1, 3)),
        (sign2_given1(1, HALF, 1, 1, HALF, 1), 0),  # 1 coincides with p
        (sign2_given2(1, HALF, 1, HALF, 1, HALF, 1, 1, HALF, 1), 0),  # 1 with p and 2 with q
        (sign2_given2(1, 1, HALF, 0, 1, HALF, 0, 1, 0, 1), 1),
        (edge(1, 1, 1, 2, 2, 3, 3), 0),
        (edge(4, -2, 1, 2, -1, 2, -1), 0),
        (Phi2(0, 0, HALF), sympy.Rational(1, 3)),
        (Phi2(0, 0, -1), 0),
        (Phi2(0, sympy.oo, HALF), HALF),
        (Phi3(0, 0, 0, HALF, HALF, HALF), sympy.Rational(1, 4)),
        (Phi3(0, 0, 0, 1, HALF, HALF), sympy.Rational(1, 3)),
        (Phi3(0, 0, 0, HALF, -HALF, -1), 0),
    ],
)
def test_values_known_by_hand(call, value):
    assert abs(call.evalf(25) - value) < 1e-24


def test_three_conditional_angles_of_coincident_fields_add_up_to_pi():
    """As the angles of any small triangle do: sums over pairs of fields have no jump where fields coincide."""
    together = sign2_given1(*[1] * 6).evalf(20)
    apart = [(1000, 0, 0), (1000, 1, 0), (1000, -1, 3)]
    angles = [
        sign2_given1(*gram([apart[a], apart[b], apart[c]])).evalf(20) for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    ]
    assert abs(3 * together - 1) < 1e-19
    assert abs(sum(angles) - 1) < 1e-5  # the excess of a spherical triangle of sides 1e-3


def test_stein_with_both_signs_is_the_plain_formula():
    """E[|h₁| |h₂|] by one edge is (2/π)(√det + C₁₂ asin ρ)."""
    c11, c12, c22 = 2, HALF, 1
    found = c12 * 2 / sympy.pi * sympy.asin(c12 / sympy.sqrt(c11 * c22)) + 2 / sympy.pi * edge(
        c11, c12, c22, c11, c12, c12, c22
    )
    plain = 2 / sympy.pi * (sympy.sqrt(c11 * c22 - c12**2) + c12 * sympy.asin(c12 / sympy.sqrt(c11 * c22)))
    assert abs((found - plain).evalf(20)) < 1e-19


def test_definitions_are_what_evalf_gives():
    for call in POINTS[1:4]:
        assert abs(call.definition().evalf(25) - call.evalf(25)) < 1e-24


def test_more_digits_confirm_fewer():
    for call in (sign4(*FOUR), Phi2(A, B, C)):
        assert abs(call.evalf(15) - call.evalf(25)) < 2e-15
        assert call.evalf(25)._prec > 80


def test_numbers_are_not_evaluated_before_they_are_asked_for():
    call = sign4(*[1.0] * 10)
    assert isinstance(call, sign4)
    assert call.is_real
    assert isinstance(Phi2(0, 0, 0), Phi2)
    assert sign4(*sympy.symbols("c:10")).evalf().has(sign4)


def test_printing():
    c = sympy.symbols("C_11 C_12 C_1p C_22 C_2p C_pp")
    assert str(sign2_given1(*c)) == "sign2_given1(C_11, C_12, C_1p, C_22, C_2p, C_pp)"
    assert (
        sympy.latex(sign2_given1(*c) ** 2) == r"S_{12|p}^{2}\left(C_{11}, C_{12}, C_{1p}, C_{22}, C_{2p}, C_{pp}\right)"
    )
    assert sympy.latex(Phi2(*c[:3])) == r"\Phi_2\left(C_{11}, C_{12}, C_{1p}\right)"


@pytest.mark.parametrize("call", POINTS, ids=lambda call: type(call).__name__)
def test_the_source_for_numpy_modules_needs_nothing_else(call):
    name = type(call).__name__
    module = {"math": math, "np": np}
    exec(numpy_source([name]), module)
    found = module[name](*([float(a), float(a)] for a in call.args))
    assert found.shape == (2,)
    assert found == pytest.approx(float(call.evalf()), abs=1e-13)


def test_all_have_sources():
    assert {f.__name__ for f in special.FUNCTIONS} <= set(SOURCES)
    assert mpmath.mp.prec == 53, "evaluation must leave the precision of others alone"
