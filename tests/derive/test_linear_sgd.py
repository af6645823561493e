"""Online SGD of a two-layer linear network, derived in two ways: as a teacher–student model, and by pairings."""

import pytest
import sympy

from effdyn.derive import TeacherStudent
from effdyn.derive.regression.wick import gaussian_average

K = 2
Q, R, T = (sympy.IndexedBase(name, real=True) for name in "QRT")
A, B = (sympy.IndexedBase(name, real=True) for name in "ab")
ETA, ETA_A, SIGMA = sympy.symbols("eta eta_a sigma", nonnegative=True)


def by_pairings():
    """Rates of Q, R and a at K = 2, M = 1: the increments of one step, averaged over fields and noise.

    The fields h = W x/√d, h* and the noise z are Gaussian; |x|²/d is 1 in the limit.
    """
    h, h_star, z = sympy.symbols("h1:3", real=True), sympy.Symbol("h_star", real=True), sympy.Symbol("z", real=True)
    covariance = {(h[i], h[k]): Q[i + 1, k + 1] for i in range(K) for k in range(i, K)}
    covariance |= {(h[i], h_star): R[i + 1, 1] for i in range(K)} | {(h_star, h_star): T[1, 1], (z, z): 1}
    error = B[1] * h_star + SIGMA * z - sum(A[i + 1] * h[i] for i in range(K))
    kick = [ETA * error * A[i + 1] for i in range(K)]

    def average(expr):
        return gaussian_average(sympy.expand(expr), covariance)

    rates = {
        f"Q[{i + 1}, {k + 1}]": average(kick[i] * h[k] + kick[k] * h[i] + kick[i] * kick[k])
        for i in range(K)
        for k in range(i, K)
    }
    rates |= {f"R[{i + 1}, 1]": average(kick[i] * h_star) for i in range(K)}
    return rates | {f"a[{i + 1}]": average(ETA_A * error * h[i]) for i in range(K)}


@pytest.fixture(scope="module")
def expanded():
    dyn = TeacherStudent(activation="linear", second_layer="trained").dynamics()
    return {str(lhs): rhs for lhs, rhs in dyn.expand(K=K, M=1).closed().equations}


def test_the_two_derivations_agree(expanded):
    symbols = {s: s for s in (ETA, ETA_A, SIGMA)}
    for name, rate in by_pairings().items():
        found = expanded[name]
        named = {s: symbols[o] for s in found.free_symbols for o in symbols if str(s) == str(o)}
        assert sympy.expand(found.xreplace(named) - rate) == 0, name


def test_the_imbalance_drifts_with_a_sign():
    """d/dt (Q/η − a aᵀ/η_a) = η a aᵀ E[e²], which is positive semidefinite."""
    rates = by_pairings()
    error = (rates["Q[1, 1]"] / ETA - 2 * A[1] * rates["a[1]"] / ETA_A) / (ETA * A[1] ** 2)
    for i, k in ((1, 1), (1, 2), (2, 2)):
        outer = (A[i] * rates[f"a[{k}]"] + A[k] * rates[f"a[{i}]"]) / ETA_A
        drift = sympy.expand(rates[f"Q[{i}, {k}]"] / ETA - outer)
        assert sympy.expand(drift - ETA * A[i] * A[k] * error) == 0
    overlaps = {Q[1, 1]: 1, Q[1, 2]: 0.3, Q[2, 2]: 2, R[1, 1]: 0.2, R[2, 1]: -0.4, T[1, 1]: 1.5}
    at = overlaps | {A[1]: 0.3, A[2]: -0.7, B[1]: 1, SIGMA: 0.5}
    residual = 1.5 + 0.25 - 2 * (0.3 * 0.2 + 0.7 * 0.4) + 0.09 * 1 + 2 * 0.3 * -0.7 * 0.3 + 0.49 * 2
    assert abs(float(sympy.expand(error).subs(at)) - residual) < 1e-12
