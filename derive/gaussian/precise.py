"""The number that a closed form gives, computed with many digits, so that rounding hides nothing."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import sympy

from . import conditional_sign, special_values
from .special import FUNCTIONS

DIGITS = 64
"""More than special functions look at, so that what rounding leaves of zero is seen to be zero."""
BITS = 53
"""Of the values of special functions."""


def precise_value(form: sympy.Expr, numbers: Mapping[sympy.Symbol, float]) -> float | None:
    """Return the value of a form, or None where it is 0/0 or not real.

    Examples
    --------
    >>> c = sympy.Symbol("c")
    >>> precise_value(sympy.sqrt(c), {c: 2.25}), precise_value(1 / c, {c: 0.0})
    (1.5, None)
    """
    import mpmath

    with mpmath.workdps(DIGITS):
        try:
            value = _compiled(form, tuple(numbers))(*(mpmath.mpf(number) for number in numbers.values()))
        except (ZeroDivisionError, TypeError):  # TypeError: a special function of complex numbers
            return None
        if mpmath.im(value) != 0 or not mpmath.isfinite(value):
            return None
        return float(mpmath.re(value))


@lru_cache(maxsize=64)
def _compiled(form: sympy.Expr, symbols: tuple[sympy.Symbol, ...]) -> Callable[..., Any]:
    known: dict[str, Callable[..., Any]] = {f.__name__: _special(f.__name__) for f in FUNCTIONS}
    known["sign1_given1"] = conditional_sign.value
    known["asin"] = _asin
    return sympy.lambdify(symbols, form, [known, "mpmath"], cse=True)


def _asin(x: Any) -> Any:
    """Arc sine of a correlation, which rounding of the covariances may have put beyond ±1."""
    import mpmath

    if mpmath.im(x) == 0 and 1 < abs(x) <= 1 + mpmath.mpf("1e-12"):
        x = mpmath.sign(x)
    return mpmath.asin(x)


def _special(name: str) -> Callable[..., Any]:
    def evaluate(*numbers: Any) -> Any:
        return special_values.evaluate(name, [partial(_given, number) for number in numbers], BITS)

    return evaluate


def _given(number: Any, bits: int) -> Any:
    """Return a number as it is, to however many bits it was asked for."""
    return number
