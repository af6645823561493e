"""Expressions as functions of numbers: of arrays in double precision, or of one point in any precision."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy

if TYPE_CHECKING:
    import numpy as np

AGREEMENT = 1e-15
"""Of two precisions, relative."""
DIGITS = (40, 80, 160, 320, 640, 1280)


@lru_cache(maxsize=512)
def function(expr: sympy.Basic, symbols: tuple[sympy.Symbol, ...], module: str) -> Callable[..., Any]:
    """Return ``expr`` as a function of ``symbols`` for ``module`` (numpy or mpmath)."""
    return sympy.lambdify(symbols, expr, modules=module, cse=module == "numpy")


def array_value(expr: sympy.Basic, values: Mapping[sympy.Symbol, "np.ndarray"]) -> "np.ndarray":
    """Return the value of ``expr`` for arrays; branches that do not apply may be undefined."""
    import numpy as np

    used = [s for s in values if s in expr.free_symbols]
    arrays = np.broadcast_arrays(*(values[s] for s in used))  # lambdify joins conditions of equal shapes only
    with np.errstate(all="ignore"):
        return np.asarray(function(expr, tuple(used), "numpy")(*arrays))


def precise_value(expr: sympy.Basic, values: Mapping[sympy.Symbol, Any], digits: int = 50) -> Any:
    """Return the value of ``expr`` at one point, as an mpmath number or a bool; numbers are taken as exact."""
    import mpmath

    with mpmath.workdps(digits):
        return function(expr, tuple(values), "mpmath")(*(exact(v) for v in values.values()))


def exact(value: Any) -> Any:
    """Return a rational, or a float, as an mpmath number at the working precision."""
    import mpmath

    if isinstance(value, sympy.Rational):
        return mpmath.mpf(value.p) / value.q
    return value if isinstance(value, (mpmath.mpf, mpmath.mpc)) else mpmath.mpf(float(value))


def settled_value(expr: sympy.Expr, values: Mapping[sympy.Symbol, Any]) -> float:
    """Return the value of a real ``expr`` at one point to double precision: in more and more digits, until two agree.

    Raises
    ------
    ArithmeticError
        If no two agree, or the value is not real.
    """
    before = None
    for digits in DIGITS:
        value = precise_value(expr, values, digits)
        if before is not None and abs(value - before) <= AGREEMENT * abs(value):
            return _real(value)
        before = value
    raise ArithmeticError(f"{expr} does not settle in {DIGITS[-1]} digits at {dict(values)}")


def _real(value: Any) -> float:
    import mpmath

    if abs(mpmath.im(value)) > 1e-20 * abs(value):
        raise ArithmeticError(f"a solution is not real: {value}")
    return float(mpmath.re(value))
