"""Special functions of arrays, for numerical values in Python."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sympy

from ..gaussian.special import GaussianFunction

if TYPE_CHECKING:
    import numpy


EQUAL = 1e-15
"""Relative difference up to which two numbers are taken to differ by rounding alone."""


def phi2(x: "numpy.ndarray", y: "numpy.ndarray", rho: "numpy.ndarray") -> "numpy.ndarray":
    """Return P(u < x, v < y) of standard normal u, v with correlation ρ, of arrays.

    By Owen's function T: ½Φ(x) + ½Φ(y) − T(x, (y/x − ρ)/r) − T(y, (x/y − ρ)/r) − ½[xy < 0 or xy = 0 > x + y], r =
    √(1 − ρ²). Source: Owen, Ann. Math. Stat. 27, 1075 (1956).

    Examples
    --------
    >>> round(float(phi2(0.0, 0.0, 0.5)), 12), round(float(phi2(0.3, -0.2, 1.0)), 12)
    (0.333333333333, 0.420740290561)
    >>> round(float(phi2(-0.3, -0.3 * (1 + 2e-16), 1.0)), 12)
    0.382088577811
    """
    import numpy as np
    from scipy.special import ndtr, owens_t

    x, y, rho = (np.asarray(a, float) for a in (x, y, rho))
    # Equal but for rounding is equal: at ρ = ±1 the slope is 0/0 there, and the last bit would decide the result.
    same, mirrored = abs(x - y) <= EQUAL * abs(x), abs(x + y) <= EQUAL * abs(x)
    y, rho = np.where(same, x, np.where(mirrored, -x, y)), np.clip(rho, -1, 1)
    rest = np.sqrt(np.maximum((1 - rho) * (1 + rho), 1e-32))
    with np.errstate(divide="ignore", invalid="ignore"):
        first = owens_t(x, _slope(x, y, rho) / rest)
        second = owens_t(y, _slope(y, x, rho) / rest)
    opposite = (x * y < 0) | ((x * y == 0) & (x + y < 0))
    return np.clip((ndtr(x) + ndtr(y)) / 2 - first - second - opposite / 2, 0, 1)


def _slope(x: "numpy.ndarray", y: "numpy.ndarray", rho: "numpy.ndarray") -> "numpy.ndarray":
    """Return y/x − ρ, at x = 0 its limit from above, which may be infinite."""
    import numpy as np

    x, y, rho = np.broadcast_arrays(x, y, rho)
    zero = x == 0
    return np.where(zero, np.where(y == 0, 1.0 - rho, np.copysign(np.inf, y)), y / np.where(zero, 1.0, x) - rho)


def sign1_given1(
    c11: "numpy.ndarray", c1p: "numpy.ndarray", cpp: "numpy.ndarray", m1: "numpy.ndarray", mp: "numpy.ndarray"
) -> "numpy.ndarray":
    """Return erf(μ/√(2v)) of arrays, μ and v the mean and the variance of h₁ given h_p = 0; v is at least 1e-15 c₁₁.

    Examples
    --------
    >>> float(sign1_given1(1.0, 1.0, 1.0, 3.0, 2.0)), float(sign1_given1(1.0, 1.0, 1.0, 3.0, 3.0))
    (1.0, 0.0)
    """
    import numpy as np
    from scipy.special import erf

    slope = np.divide(c1p, cpp, out=np.zeros(np.broadcast(c1p, cpp).shape), where=np.asarray(cpp) != 0)
    mean = m1 - mp * slope
    return erf(mean / np.sqrt(2 * np.maximum(c11 - c1p * slope, 1e-15 * c11) + 1e-300))


def modules_for(expr: sympy.Expr) -> list[Any]:
    """Return where ``lambdify`` finds the functions of an expression, for arrays as arguments.

    Special functions without an array version are evaluated number by number with mpmath, which is slow. Functions that
    a user implemented (``implemented_function``) are called number by number too: pass ``use_imps=False``.
    """
    import numpy as np

    functions: dict[str, Callable[..., Any]] = {"Phi2": phi2, "sign1_given1": sign1_given1}
    for f in expr.atoms(sympy.Function):
        name, implementation = type(f).__name__, getattr(f, "_imp_", None)
        if name not in functions and isinstance(f, GaussianFunction):
            functions[name] = np.vectorize(_one_by_one(type(f)), otypes=[float])
        elif implementation is not None:
            functions[name] = np.vectorize(implementation, otypes=[float])
    return [functions, "scipy", "numpy"]


def _one_by_one(function: type[sympy.Function]) -> Callable[..., float]:
    return lambda *arguments: float(function(*map(sympy.Float, arguments)).evalf())
