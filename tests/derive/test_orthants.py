"""Base cases: signs of jointly Gaussian fields, held fields among them."""

import math

import numpy as np
import pytest
import sympy

from effdyn.derive.errors import NoClosedForm
from effdyn.derive.gaussian.conditional_sign import sign1_given1
from effdyn.derive.gaussian.law import Law
from effdyn.derive.gaussian.orthants import sign_product
from effdyn.derive.gaussian.precise import precise_value


def law(C, m=None, given=()):
    size = range(len(C))
    return Law(
        tuple(tuple(sympy.Float(float(C[a][b])) for b in size) for a in size),
        tuple(sympy.Float(m[a]) if m is not None else sympy.S.Zero for a in size),
        given,
    )


def random_covariance(rng, n):
    factor = rng.normal(size=(n, n + 1)) / math.sqrt(n + 1)
    return factor @ factor.T


def value(expr):
    return precise_value(expr, {})


def test_one_and_two_signs(rng):
    C = random_covariance(rng, 2)
    assert sign_product(law(C), (0,)) == 0
    rho = C[0, 1] / math.sqrt(C[0, 0] * C[1, 1])
    assert value(sign_product(law(C), (0, 1))) == pytest.approx(2 / math.pi * math.asin(rho), rel=1e-14)
    m = (0.3, -0.8)
    expected = math.erf(m[0] / math.sqrt(2 * C[0, 0]))
    assert value(sign_product(law(C, m), (0,))) == pytest.approx(expected, rel=1e-14)


def test_off_the_centre_approaches_the_centre(rng):
    """Means of 1e-9 change expectations of three signs, zero at the centre, by as little; four are refused."""
    C = random_covariance(rng, 4)
    tiny = (1e-9,) * 4
    assert abs(value(sign_product(law(C, tiny), (0, 1, 2)))) < 1e-8
    pair, centred = value(sign_product(law(C, tiny), (0, 1))), value(sign_product(law(C), (0, 1)))
    assert abs(pair - centred) < 1e-14
    with pytest.raises(NoClosedForm, match="dimension 4"):
        sign_product(law(C, tiny), (0, 1, 2, 3))
    assert -1 < value(sign_product(law(C), (0, 1, 2, 3))) < 1


def test_five_signs_vanish_and_six_are_refused(rng):
    C = random_covariance(rng, 6)
    assert sign_product(law(C), (0, 1, 2, 3, 4)) == 0
    with pytest.raises(NoClosedForm, match="dimension 6"):
        sign_product(law(C), tuple(range(6)))


@pytest.mark.parametrize("given", [(2,), (2, 3), (2, 3, 4)])
def test_held_fields_give_the_schur_complement(given, rng):
    C, m = random_covariance(rng, 5), rng.normal(size=5)
    held = list(given)
    inverse = np.linalg.inv(C[np.ix_(held, held)])
    schur = C - C[:, held] @ inverse @ C[held]
    mean = m - C[:, held] @ inverse @ m[held]
    found = law(C, m, given)
    for a in (0, 1):
        assert value(found.mean(a)) == pytest.approx(mean[a], rel=1e-10)
        for b in (0, 1):
            assert value(found.cov(a, b)) == pytest.approx(schur[a, b], rel=1e-10)
    rho = schur[0, 1] / math.sqrt(schur[0, 0] * schur[1, 1])
    centred = sign_product(law(C, None, given), (0, 1))
    assert value(centred) == pytest.approx(2 / math.pi * math.asin(rho), rel=1e-10)


def test_held_twice_is_held_once():
    """A second condition on a field that coincides with the first changes no covariance."""
    C = np.array([[1.0, 0.5, 0.5], [0.5, 2.0, 2.0], [0.5, 2.0, 2.0]])
    once, twice = law(C, None, (1,)), law(C, None, (1, 2))
    assert value(twice.cov(0, 0)) == value(once.cov(0, 0)) == pytest.approx(0.875)
    assert value(once.ratio(0, 2)) == 0 and value(law(C).ratio(0, 2)) == pytest.approx(0.5 / math.sqrt(2))


def test_the_sign_at_a_threshold():
    """Far from coincidence the plain formula; at it the sign of the gap between thresholds."""
    plain = sign1_given1(2.0, 0.7, 1.1, 0.4, -0.3)
    assert float(plain.evalf()) == pytest.approx(float(plain.definition()), rel=1e-14)
    assert [float(sign1_given1(1.5, 1.5, 1.5, m, 0.2).evalf()) for m in (0.1, 0.2, 0.3)] == [-1, 0, 1]
    assert float(sign1_given1(1.5, -1.5, 1.5, 0.2, 0.2).evalf()) == 1
    c = sympy.Symbol("c", real=True)
    slope = float(sign1_given1(c, 0.7, 1.1, 0.4, -0.3).diff(c).subs(c, 2.0))
    step = 1e-5
    numerical = (sign1_given1(2 + step, 0.7, 1.1, 0.4, -0.3) - sign1_given1(2 - step, 0.7, 1.1, 0.4, -0.3)).evalf()
    assert slope == pytest.approx(float(numerical) / (2 * step), rel=1e-8)
