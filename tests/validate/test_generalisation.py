"""The generalisation error of given overlaps: quadrature against closed forms that are known by hand."""

import math

import numpy as np
import pytest
import sympy
from scipy.integrate import quad

from effdyn.derive import TeacherStudent
from effdyn.derive.activation import X
from effdyn.validate.generalisation import generalisation_error

# E[g(u) g(v)] for unit name, as a function of the variances and the covariance.
CLOSED = {
    "erf": lambda p, q, c: 2 / np.pi * np.arcsin(c / np.sqrt((1 + p) * (1 + q))),
    "He3": lambda p, q, c: 6 * c**3 + 9 * c * (p - 1) * (q - 1),
    "linear": lambda p, q, c: c,
    "relu": lambda p, q, c: (
        (np.sqrt(np.clip(p * q - c * c, 0, None)) + c * np.arccos(np.clip(-c / np.sqrt(p * q), -1, 1))) / (2 * np.pi)
    ),
}


def _overlaps(rng, K, M, size, lead=(5,)):
    vectors = rng.standard_normal((*lead, K + M, K + M)) * np.sqrt(size / (K + M))
    vectors[..., K:, :] = vectors[(0,) * len(lead)][K:]
    gram = vectors @ vectors.swapaxes(-1, -2)
    return gram[..., :K, :K], gram[..., :K, K:], gram[(0,) * len(lead)][K:, K:]


def _by_hand(form, Q, R, T, a, b, s):
    K, M = R.shape
    c = np.concatenate([-s * a, b])
    gram = np.block([[Q, R], [R.T, T]])
    return sum(c[i] * c[k] * form(gram[i, i], gram[k, k], gram[i, k]) for i in range(K + M) for k in range(K + M)) / 2


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", CLOSED)
def test_against_closed_forms(name, size, rng):
    K, M = 3, 2
    Q, R, T = _overlaps(rng, K, M, size, lead=(2, 3))
    a, b = rng.standard_normal((2, 3, K)), rng.standard_normal(M)
    found = generalisation_error(TeacherStudent(activation=name, output_scale="1/K"), K, M)(Q, R, T, a, b)
    expected = [[_by_hand(CLOSED[name], Q[i, k], R[i, k], T, a[i, k], b, 1 / K) for k in range(3)] for i in range(2)]
    scale = (abs(a).sum(-1).max() + abs(b).sum()) ** 2 * max(1, size ** (3 if name == "He3" else 1)) * 10
    assert abs(found - expected).max() < 1e-13 * scale


def test_against_a_tensor_rule_for_two_different_activations(rng):
    """tanh against erf, where nothing is closed: Gauss–Hermite in the plane, 120 nodes a side, good to 1e-12."""
    Q, R, T = 0.6, 0.4, 0.9
    node, weight = np.polynomial.hermite_e.hermegauss(120)
    weight = weight / weight.sum()
    target = np.sqrt(T) * node[:, None]
    own = R / np.sqrt(T) * node[:, None] + np.sqrt(Q - R * R / T) * node[None]
    expected = (
        np.outer(weight, weight) * (1.3 * np.vectorize(math.erf)(target / math.sqrt(2)) - 0.7 * np.tanh(own)) ** 2
    ).sum() / 2
    model = TeacherStudent(activation="tanh", teacher_activation="erf")
    assert generalisation_error(model, 1, 1)([[Q]], [[R]], [[T]], [0.7], [1.3]) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("name", [*CLOSED, "tanh", sympy.Max(-1, sympy.Min(1, X))], ids=str)
def test_a_student_that_is_its_teacher_makes_no_error(name, rng):
    T = _overlaps(rng, 1, 3, 1.0)[2]
    eg = generalisation_error(TeacherStudent(activation=name), 3, 3)(T, T, T, np.ones(3), np.ones(3))
    assert abs(eg) < 1e-12  # differences of numbers of order 10


@pytest.mark.parametrize("Q, R", [(1.0, 0.0), (0.7, 0.5), (1.0, -0.9), (3.0, 1.7), (1.0, 0.999)])
def test_kinks_off_the_origin_to_their_stated_accuracy(Q, R):
    """Hard tanh on a shifted one, against nested adaptive quadrature with its breakpoints given."""
    g, target = sympy.Max(-1, sympy.Min(1, X)), sympy.Max(0, X - sympy.Rational(1, 2))
    s = math.sqrt(Q - R * R)

    def inner(z):
        breaks = sorted({float(np.clip((b - R * z) / s, -9, 9)) for b in (-1, 1)} - {-9.0, 9.0})
        return quad(
            lambda v: math.exp(-v * v / 2) * (np.clip(R * z + s * v, -1, 1) - max(0, z - 0.5)) ** 2,
            -9,
            9,
            points=breaks or None,
            epsabs=1e-12,
            limit=200,
        )[0]

    outer = [p for p in (0.5, -1 / R if R else 0.0, 1 / R if R else 0.0) if abs(p) < 9]
    expected = quad(lambda z: math.exp(-z * z / 2) * inner(z), -9, 9, points=outer, epsabs=1e-11, limit=200)[0] / (
        4 * math.pi
    )
    eg = generalisation_error(TeacherStudent(activation=g, teacher_activation=target), 1, 1)
    assert eg([[Q]], [[R]], [[1.0]], [1.0], [1.0]) == pytest.approx(expected, abs=1e-8)


def test_zero_weights_are_no_trouble():
    eg = generalisation_error(TeacherStudent(), 1, 1)([[0.0]], [[0.0]], [[1.0]], [1.0], [1.0])
    assert eg == pytest.approx(np.arcsin(0.5) / np.pi, abs=1e-15)


def test_an_activation_too_steep_for_the_rule_says_so():
    eg = generalisation_error(TeacherStudent(activation=sympy.tanh(200 * X)), 1, 1)
    with pytest.warns(RuntimeWarning, match="uncertain"):
        eg([[1.0]], [[0.5]], [[1.0]], [1.0], [1.0])
