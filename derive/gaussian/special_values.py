"""The special functions of Gaussian fields as numbers, to any precision, by mpmath.

Plain and slow: these are what the compiled versions are tested against, so they share nothing with them. Integrals
follow other paths, and digits lost to cancellation are made good by working with more of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

Number = Any
"""A number of mpmath's."""


def evaluate(name: str, numbers: Sequence[Callable[[int], Number]], precision: int) -> Number:
    """Return the value of a function to ``precision`` bits.

    Parameters
    ----------
    name : str
        Of the function.
    numbers : sequence of callable
        Each gives an argument to as many bits as it is asked for.
    precision : int
        In bits.
    """
    import mpmath

    working = 3 * precision + 40
    with mpmath.workprec(working):
        value = _VALUES[name](*(mpmath.mpf(number(working)) for number in numbers))
    with mpmath.workprec(precision):
        return +value


def _sheppard(cosine: Number) -> Number:
    import mpmath

    return 2 / mpmath.pi * mpmath.asin(max(-1, min(1, cosine)))


def _noise() -> Number:
    """Below this a positive number is nothing but rounding."""
    import mpmath

    return mpmath.mpf(2) ** (-mpmath.mp.prec * 5 // 6)


def sign2_given1(c11: Number, c12: Number, c1p: Number, c22: Number, c2p: Number, cpp: Number) -> Number:
    """Return E[s₁ s₂ | h_p = 0]; if both fields coincide with p, the correlation is ± ½."""
    import mpmath

    a, b = c11 * cpp - c1p**2, c22 * cpp - c2p**2
    zero = [a <= _noise() * c11 * cpp, b <= _noise() * c22 * cpp]
    if all(zero):
        return mpmath.sign(c12) / 3
    return mpmath.mpf(0) if any(zero) else _sheppard((c12 * cpp - c1p * c2p) / mpmath.sqrt(a * b))


def sign2_given2(*triangle: Number) -> Number:
    """Return E[s₁ s₂ | h_p = h_q = 0].

    If both fields lie in the span of p and q, each is C_aa(1 + ε), ε → 0: numerator and determinants are replaced by
    their derivatives. Coincident fields coincide more closely than that.
    """
    import mpmath

    c11, c12, c1p, c1q, c22, c2p, c2q, cpp, cpq, cqq = triangle
    d = cpp * cqq - cpq**2
    if d <= _noise() * cpp * cqq:
        return sign2_given1(c11, c12, c1p, c22, c2p, cpp)
    gaps = (c11 * cpp - c1p**2, c22 * cpp - c2p**2, c11 * cqq - c1q**2, c22 * cqq - c2q**2)
    p1, p2, q1, q2 = (
        gap <= _noise() * one * other
        for gap, one, other in zip(gaps, (c11, c22) * 2, (cpp, cpp, cqq, cqq), strict=True)
    )
    if p1 or p2 or q1 or q2:
        return mpmath.sign(c12) / 3 if (p1 and p2) or (q1 and q2) else mpmath.mpf(0)
    if c11 * c22 - c12**2 <= _noise() * c11 * c22:
        return mpmath.sign(c12)
    a = c11 * d - c1p**2 * cqq - c1q**2 * cpp + 2 * c1p * c1q * cpq
    b = c22 * d - c2p**2 * cqq - c2q**2 * cpp + 2 * c2p * c2q * cpq
    n = c12 * d - c1p * c2p * cqq - c1q * c2q * cpp + (c1p * c2q + c1q * c2p) * cpq
    zero = [a <= _noise() * c11 * cpp * cqq, b <= _noise() * c22 * cpp * cqq]
    if all(zero):
        a, b = d * c11 + gaps[0] * cqq + gaps[2] * cpp, d * c22 + gaps[1] * cqq + gaps[3] * cpp
        n = (c12 * cqq - c1q * c2q) * cpp + (c12 * cpp - c1p * c2p) * cqq
    return mpmath.mpf(0) if any(zero) and not all(zero) else _sheppard(n / mpmath.sqrt(a * b))


def edge(pp: Number, pq: Number, qq: Number, wp: Number, wq: Number, zp: Number, zq: Number) -> Number:
    """Return the weight of a pair, 0 if it coincides."""
    import mpmath

    d = pp * qq - pq**2
    if d <= _noise() * pp * qq:
        return mpmath.mpf(0)
    return (wp * zq + wq * zp - wp * zp * pq / pp - wq * zq * pq / qq) / mpmath.sqrt(d)


def sign4(*triangle: Number) -> Number:
    """Return E[s₁ s₂ s₃ s₄] along the path that switches on the covariances between (1, 2) and (3, 4).

    All matrices on the path are mixtures of two covariances. E is even in the factor t of those covariances: the
    variable is t².
    """
    import mpmath

    c11, c12, c13, c14, c22, c23, c24, c33, c34, c44 = triangle

    def slope(square: Number) -> Number:
        t = mpmath.sqrt(square)
        x13, x14, x23, x24 = t * c13, t * c14, t * c23, t * c24
        pairs = (
            (c13, c11 * c33 - x13**2, (c22, x24, c12, x23, c44, x14, c34, c11, x13, c33)),
            (c14, c11 * c44 - x14**2, (c22, x23, c12, x24, c33, x13, c34, c11, x14, c44)),
            (c23, c22 * c33 - x23**2, (c11, x14, c12, x13, c44, x24, c34, c22, x23, c33)),
            (c24, c22 * c44 - x24**2, (c11, x13, c12, x14, c33, x23, c34, c22, x24, c44)),
        )
        return sum(c * sign2_given2(*given) / mpmath.sqrt(D) for c, D, given in pairs if c and D > 0) / (t * mpmath.pi)

    start = _sheppard(c12 / mpmath.sqrt(c11 * c22)) * _sheppard(c34 / mpmath.sqrt(c33 * c44))
    return start + _integral(slope, strip=2)


def _integral(f: Callable[[Number], Number], strip: int = 1) -> Number:
    """Return ∫₀¹ f(t) dt, where all that is nearly singular lies at t ≥ 1.

    Trapezoidal rule in x, t = (1 + tanh x)/2, which brings singularities at any t ≥ 1 to Im x = π/2: the error is
    exp(−π²/h), or with exp(−1/(1 − t)) exp(−π²/2h).
    """
    import mpmath

    digits = (mpmath.mp.prec // 3) * mpmath.log(2)  # f is given thrice the bits that are asked for
    step = strip * mpmath.pi**2 / (2 * digits)
    total = mpmath.mpf(0)
    for n in range(-int(digits / (2 * step)) - 1, int(digits / step) + 2):
        growth = mpmath.exp(2 * n * step)
        total += f(growth / (1 + growth)) * growth / (1 + growth) ** 2
    return 2 * step * total


def Phi(x: Number) -> Number:
    """Return the standard normal distribution function."""
    import mpmath

    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _density2(x: Number, y: Number, rho: Number) -> Number:
    import mpmath

    gap = (1 - rho) * (1 + rho)
    return mpmath.exp(-(x * x - 2 * rho * x * y + y * y) / (2 * gap)) / (2 * mpmath.pi * mpmath.sqrt(gap))


def Phi2(x: Number, y: Number, rho: Number) -> Number:
    """Return P(u < x, v < y) = Φ(x) Φ(y) + ∫ φ₂(x, y; r) dr over 0 < r < ρ."""
    import mpmath

    if 1 < abs(rho) <= 1 + mpmath.mpf("1e-5"):  # put there by rounding
        rho = mpmath.sign(rho)
    if -mpmath.inf in (x, y):
        return mpmath.mpf(0)
    if mpmath.inf in (x, y) or rho == 1:
        return Phi(min(x, y))
    if rho == -1:
        return max(mpmath.mpf(0), Phi(x) - Phi(-y))
    return Phi(x) * Phi(y) + rho * _integral(lambda t: _density2(x, y, t * rho))


def Phi3(x: Number, y: Number, z: Number, r12: Number, r13: Number, r23: Number) -> Number:
    """Return P(u < x, v < y, w < z) along the path that switches on the correlations of u."""
    import mpmath

    if -mpmath.inf in (x, y, z):
        return mpmath.mpf(0)
    if x == mpmath.inf:
        return Phi2(y, z, r23)
    start = Phi(x) * Phi2(y, z, r23)
    if not (r12 or r13):
        return start

    def slope(t: Number) -> Number:
        a, b = t * r12, t * r13
        det = 1 - a * a - b * b - r23**2 + 2 * a * b * r23
        return r12 * _edge3(x, y, z, a, b, r23, det) + r13 * _edge3(x, z, y, b, a, r23, det)

    return start + _integral(slope)


def _edge3(x: Number, y: Number, z: Number, r12: Number, r13: Number, r23: Number, det: Number) -> Number:
    """Return φ₂(x, y; r₁₂) P(w < z | u = x, v = y)."""
    import mpmath

    gap = (1 - r12) * (1 + r12)
    if y == mpmath.inf or gap <= 0:
        return mpmath.mpf(0)
    below = z * gap - x * (r13 - r12 * r23) - y * (r23 - r12 * r13)
    if det <= _noise() or z == mpmath.inf:
        return _density2(x, y, r12) * (1 + mpmath.sign(below if abs(below) > _noise() else 0)) / 2
    return _density2(x, y, r12) * Phi(below / mpmath.sqrt(gap * det))


_VALUES: dict[str, Callable[..., Number]] = {
    f.__name__: f for f in (sign4, sign2_given1, sign2_given2, edge, Phi2, Phi3)
}
