"""Recognising structure: an expression as a sum of powers of one symbol, however it was factored or written."""

import sympy

from .flow import Unsuitable

Powers = dict[sympy.Expr, sympy.Expr]
"""Coefficients by exponent."""


def as_powers(expr: sympy.Expr, s: sympy.Symbol) -> Powers:
    """Return ``expr`` as ``{exponent: coefficient}`` with exponents and coefficients free of ``s``.

    Raises
    ------
    Unsuitable
        If it is not such a sum.

    Examples
    --------
    >>> s, c, N = sympy.symbols("s c N", positive=True)
    >>> as_powers(2 * s * (c - s / 3), s)
    {1: 2*c, 2: -2/3}
    >>> as_powers(s ** (2 - 2 / N) * (c - s), s)
    {2 - 2/N: c, 3 - 2/N: -1}
    """
    powers = _collect(sympy.expand(expr), s)
    if powers is None and expr.is_rational_function(s):
        powers = _collect(sympy.expand(sympy.cancel(expr)), s)
    if powers is None:
        raise Unsuitable(f"the rate is not a sum of powers of {s}")
    return powers


def _collect(expr: sympy.Expr, s: sympy.Symbol) -> Powers | None:
    powers: Powers = {}
    for term in sympy.Add.make_args(expr):
        coefficient, factor = term.as_independent(s, as_Add=False)
        exponent = _exponent(factor, s)
        if exponent is None:
            return None
        powers[exponent] = powers.get(exponent, sympy.S.Zero) + coefficient
    order = sorted(powers, key=sympy.default_sort_key)
    return {exponent: sympy.factor_terms(powers[exponent]) for exponent in order if not vanishes(powers[exponent])}


def _exponent(factor: sympy.Expr, s: sympy.Symbol) -> sympy.Expr | None:
    total = sympy.S.Zero
    for part in sympy.Mul.make_args(factor):
        base, exponent = part.as_base_exp()
        if part == 1:
            continue
        if base != s or exponent.has(s):
            return None
        total += exponent
    return sympy.expand(total)


def vanishes(expr: sympy.Expr) -> bool:
    """Return whether ``expr`` is zero identically (for what it is used on: rational functions and simple roots)."""
    return expr.is_zero is True or sympy.expand(expr) == 0


def quadratic_coefficients(expr: sympy.Expr, s: sympy.Symbol) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr]:
    """Return a, b, c of ``a + b s + c s^2``, or raise :class:`Unsuitable`."""
    powers = as_powers(expr, s)
    if not set(powers) <= {sympy.S.Zero, sympy.S.One, sympy.Integer(2)}:
        raise Unsuitable(f"the rate is not a polynomial of degree two in {s}")
    return (
        powers.get(sympy.S.Zero, sympy.S.Zero),
        powers.get(sympy.S.One, sympy.S.Zero),
        powers.get(sympy.Integer(2), sympy.S.Zero),
    )
