"""Inverting the time of two powers: Newton's iteration on incomplete beta integrals, for arrays.

With ``z = (s/s*)^(r-p)`` the equation is ``dz/dt = kappa z^(1-b) (1-z)`` below the fixed point s*; above it, 1/z obeys
the same with 1-b for b; and where there is no fixed point ``dx/dt = -kappa x^(1-b) (1+x)``.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Function = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]
EPSILON = sys.float_info.epsilon

TERMS = 64
"""Of power series at arguments up to 1/2: the rest is below 2**-60."""
ITERATIONS = 100
STEP = 4.0


def two_powers(
    t: "np.ndarray", s0: "np.ndarray", alpha: "np.ndarray", p: "np.ndarray", beta: "np.ndarray", r: "np.ndarray"
) -> "np.ndarray":
    """Return the solution of ``s' = alpha s^p + beta s^r`` with ``beta < 0``, ``r > p`` and ``s0 > 0``, elementwise.

    Relative error about 1e-14 plus what rounding of t itself does.

    Raises
    ------
    ArithmeticError
        If Newton's iteration does not converge: an error of effdyn's own.

    Examples
    --------
    >>> import numpy as np
    >>> s = two_powers(*map(np.array, (1.0, 0.5, 3.0, 4 / 3, -3.0, 7 / 3)))
    >>> print(f"{s:.12f}")
    0.938759099066
    """
    import numpy as np

    t, s0, alpha, p, beta, r = np.broadcast_arrays(*(np.asarray(x, float) for x in (t, s0, alpha, p, beta, r)))
    gamma, b = r - p, (1 - p) / (r - p)
    fixed = np.abs(alpha / beta) ** (1 / gamma)
    ratio = (s0 / fixed) ** gamma
    kappa_t = gamma * np.abs(alpha) * fixed ** (p - 1) * t
    out = np.array(s0)
    below, above = (alpha > 0) & (ratio < 1), (alpha > 0) & (ratio > 1)
    for mask, exponent, sign in ((below, b, 1), (above, 1 - b, -1)):
        if mask.any():
            start = _logit(sign * gamma[mask] * np.log(s0[mask] / fixed[mask]))
            y = _saturating(kappa_t[mask], start, exponent[mask])
            out[mask] = fixed[mask] * np.exp(-sign * np.logaddexp(0, -y) / gamma[mask])
    if (mask := alpha < 0).any():
        y = _decaying(kappa_t[mask], np.log(ratio[mask]), b[mask])
        out[mask] = fixed[mask] * np.exp(y / gamma[mask])
    return out


def _logit(log: "np.ndarray") -> "np.ndarray":
    """Return log(z/(1-z)) from log(z), without forming 1-z."""
    import numpy as np

    return -np.where(log < -1, -log + np.log1p(-np.exp(log)), np.log(-np.expm1(log)) - log)


def _saturating(T: "np.ndarray", y0: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """Return y = log(z/(1-z)) where the integral of z^(b-1)/(1-z) has grown by T since y0."""
    import numpy as np
    from scipy.special import digamma

    goal = T + _growth(y0, b)
    with np.errstate(all="ignore"):  # guesses that are not used
        early = -np.log(np.expm1(-np.log(b * goal) / b))
    late = goal - digamma(1.0) + digamma(b)
    guess = np.where((goal < _growth(np.zeros_like(b), b)) & np.isfinite(early), early, late)
    return _newton(np.maximum(guess, y0), goal, b, _growth, lambda y, b: np.exp(-b * np.logaddexp(0, -y)))


def _growth(y: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """Return ``z^b/b 2F1(1, b; 1+b; z)``, by its series at z = 0 or at z = 1, where it has a logarithm."""
    import numpy as np
    from scipy.special import digamma

    z, rest = np.exp(-np.logaddexp(0, -y)), np.exp(-np.logaddexp(0, y))
    low = y < 0
    near, far = np.where(low, z, 0), np.where(low, 0, rest)
    small, large, weight = np.zeros_like(b), np.zeros_like(b), np.ones_like(b)
    difference = digamma(1.0) - digamma(b)
    for n in range(TERMS):
        small += near**n / (b + n)
        large += weight * difference * far**n
        difference += 1 / (n + 1) - 1 / (b + n)
        weight *= (b + n) / (n + 1)
    power = np.exp(-b * np.logaddexp(0, -y))
    return np.where(low, power * small, np.logaddexp(0, y) + power * large)


def _decaying(T: "np.ndarray", y0: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """Return y = log(x) where the integral of x^(b-1)/(1+x) has fallen by T since y0."""
    import numpy as np

    goal = _decay(y0, b) - T
    with np.errstate(all="ignore"):
        guess = np.log(b * goal) / b
    guess = np.where(np.isfinite(guess), np.minimum(guess, y0), y0)
    return _newton(guess, goal, b, _decay, lambda y, b: np.exp(b * y - np.logaddexp(0, y)))


def _decay(y: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """Return ``x^b/b 2F1(1, b; 1+b; -x)``, after Pfaff's transformation; for x > 1 by reflection to 1/x."""
    import numpy as np

    high = y > 0
    u, c = -np.abs(y), np.where(high, 1 - b, b)
    w = np.exp(u - np.logaddexp(0, u))
    total, term = np.zeros_like(b), 1 / c
    for n in range(TERMS):
        total += term
        term = term * w * (n + 1) / (c + n + 1)
    value = np.exp(c * u - np.logaddexp(0, u)) * total
    return np.where(high, np.pi / np.sin(np.pi * b) - value, value)


def _newton(y: "np.ndarray", goal: "np.ndarray", b: "np.ndarray", value: Function, slope: Function) -> "np.ndarray":
    """Solve ``value(y, b) = goal``.

    Both integrals are concave or convex in y, so that after one step the iterates approach from one side; steps are
    limited because the slope may be nearly zero. Entries that have converged are left alone.
    """
    import numpy as np

    y, active = np.array(y), np.arange(len(y))
    for _ in range(ITERATIONS):
        now, power = y[active], b[active]
        rate = slope(now, power)
        step = np.clip((goal[active] - value(now, power)) / rate, -STEP, STEP)
        y[active] += step
        rounding = EPSILON * (1 + np.abs(now) + np.abs(goal[active]) / rate)
        active = active[~(np.abs(step) <= 16 * rounding)]
        if not len(active):
            return y
    raise ArithmeticError(f"Newton's iteration for the time of two powers did not converge at y = {y[active]}")
