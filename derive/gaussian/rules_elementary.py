"""Expectation rules that hold for any functions: numbers, products, symmetry, sums."""

import sympy

from ..activation import X
from .integrand import Integrand
from .recursion import expectation


def constants(integrand: Integrand) -> sympy.Expr | None:
    """E[c G] = c E[G], and E[1] = 1."""
    if not integrand.factors:
        return sympy.S.One
    for n, (a, f) in enumerate(integrand.factors):
        constant, rest = f.as_independent(X, as_Add=False)
        if not f.has(X):
            return f * expectation(integrand.without(n))
        if constant != 1:
            return constant * expectation(integrand.without(n).with_factor(a, rest))
    return None


def products(integrand: Integrand) -> sympy.Expr | None:
    """f₁f₂ of one field is two factors, and so is f²; powers of the field itself stay."""
    for n, (a, f) in enumerate(integrand.factors):
        parts = _parts(f)
        if len(parts) > 1:
            rest = integrand.without(n)
            for part in parts:
                rest = rest.with_factor(a, part)
            return expectation(rest)
    return None


def _parts(f: sympy.Expr) -> tuple[sympy.Expr, ...]:
    if isinstance(f, sympy.Mul):
        return f.args
    if isinstance(f, sympy.Pow) and f.exp.is_Integer and f.exp > 1 and f.base.is_Function:
        return (f.base,) * int(f.exp)
    return (f,)


def parity(integrand: Integrand) -> sympy.Expr | None:
    """E[G] = 0 when G(−h) = −G(h), factor by factor, for centred fields."""
    if not integrand.centred:
        return None
    sign = sympy.S.One
    for _, f in integrand.factors:
        reflected = f.subs(X, -X)
        if reflected == -f:
            sign = -sign
        elif reflected != f:
            return None
    return sympy.S.Zero if sign == -1 else None


def linearity(integrand: Integrand) -> sympy.Expr | None:
    """E[(f₁ + f₂) G] = E[f₁ G] + E[f₂ G], the longest first: if any has no closed form, it is that one."""
    for n, (a, f) in enumerate(integrand.factors):
        parts = sympy.Add.make_args(sympy.expand(f))
        if len(parts) > 1:
            rest = integrand.without(n)
            parts = sorted(parts, key=sympy.count_ops, reverse=True)
            return sympy.Add(*(expectation(rest.with_factor(a, part)) for part in parts))
    return None
