"""Expectation rules for functions with kinks and jumps: all are written in the signs of x − t, at most one a term.

|x| = x sign(x), Θ(x) = (1 + sign(x))/2, max(a, b) = (a + b + |a − b|)/2; signs of one field with thresholds t₁ ≤ t₂
obey s₁² = 1 and s₁s₂ = 1 + s₂ − s₁, and sign′(x) = 2δ(x) with x δ(x) = 0 and sign(x) δ(x) = 0. What belongs to one
field is merged before fields meet: there is then no kink left to meet itself.
"""

from functools import lru_cache, reduce

import sympy

from ..activation import X
from .integrand import Integrand
from .pieces import in_signs
from .recursion import expectation

KINKS = (sympy.sign, sympy.Abs, sympy.Heaviside, sympy.Max, sympy.Min, sympy.Piecewise, sympy.DiracDelta)
Terms = dict[sympy.Expr, sympy.Expr]
"""A function as Σ (smooth function) × (1, or one sign(x − t) or δ(x − t)), by the latter."""


def kinks(integrand: Integrand) -> sympy.Expr | None:
    """The factors of one field become Σ_t f_t(x) sign(x − t)."""
    for a in dict.fromkeys(a for a, _ in integrand.factors):
        own = [(n, f) for n, (b, f) in enumerate(integrand.factors) if b == a]
        if not any(has_kink(f) for _, f in own) or _canonical([f for _, f in own]):
            continue
        rest = integrand.without(*(n for n, _ in own))
        total = []
        terms = sorted(merged(sympy.Mul(*(f for _, f in own))).items(), key=lambda term: term[0] == 1)
        for kink, smooth in terms:  # signs first: if any term has no closed form, it is one with signs
            if not isinstance(kink, (sympy.sign, sympy.DiracDelta)) and kink != 1:
                return None  # a function of signs that is none of the above
            total.append(expectation(rest.with_factor(a, smooth).with_factor(a, kink)))
        return sympy.Add(*total)
    return None


def has_kink(f: sympy.Expr) -> bool:
    """Whether a function of X has kinks or jumps in X; a sign of parameters, as in |1 − s|, is a number."""
    return any(e.has(X) for e in f.atoms(*KINKS))


def _canonical(functions: list[sympy.Expr]) -> bool:
    """Whether the functions of one field are smooth but for one sign(x − t), or are δ(x − t) alone."""
    kinked = [f for f in functions if has_kink(f)]
    if len(kinked) > 1 or not isinstance(kinked[0], (sympy.sign, sympy.DiracDelta)):
        return False
    return _threshold(kinked[0]) is not None and (isinstance(kinked[0], sympy.sign) or len(functions) == 1)


def _threshold(kink: sympy.Expr) -> sympy.Expr | None:
    """Return t of sign(x − t) or δ(x − t), or None if that is not its form."""
    if len(kink.args) != 1:
        return None
    t = sympy.expand(X - kink.args[0])
    return None if t.has(X) else t


@lru_cache(maxsize=1024)
def _merged(f: sympy.Expr) -> tuple[tuple[sympy.Expr, sympy.Expr], ...]:
    terms: Terms = {}
    for term in sympy.Add.make_args(sympy.expand(in_signs(f))):
        factors = [(*part.as_base_exp(), part) for part in sympy.Mul.make_args(term)]
        smooth = sympy.Mul(*(part for base, _, part in factors if not has_kink(part)))
        kinked = [base for base, power, part in factors if has_kink(part) for _ in range(_count(power))]
        for kink, weight in reduce(_times, kinked, {sympy.S.One: smooth}).items():
            terms[kink] = terms.get(kink, sympy.S.Zero) + weight
    return tuple((kink, weight) for kink, weight in terms.items() if weight != 0)


def merged(f: sympy.Expr) -> Terms:
    """Return a function of X as a sum of smooth functions times at most one sign or δ.

    Examples
    --------
    >>> merged(sympy.Max(X, 0) ** 2 * sympy.sign(X))
    {1: x**2/2, sign(x): x**2/2}
    """
    return dict(_merged(f))


def _count(power: sympy.Expr) -> int:
    return int(power) if power.is_Integer and power > 0 else 1


def _times(terms: Terms, kink: sympy.Expr) -> Terms:
    """Return the terms times one sign or δ more."""
    product: Terms = {}
    for other, weight in terms.items():
        for result, factor in _pair(other, kink, weight).items():
            product[result] = product.get(result, sympy.S.Zero) + factor
    return product


def _pair(one: sympy.Expr, other: sympy.Expr, weight: sympy.Expr) -> Terms:
    """Return ``weight`` times the product of two kinks as terms with one."""
    if one == 1:
        one, other = other, one
    t = _threshold(one) if isinstance(one, (sympy.sign, sympy.DiracDelta)) else None
    u = _threshold(other) if isinstance(other, (sympy.sign, sympy.DiracDelta)) else None
    if isinstance(one, sympy.DiracDelta) and t is not None and (other == 1 or isinstance(other, sympy.sign)):
        return {one: weight.subs(X, t) * other.subs(X, t)}
    if other == 1:
        return {one: weight}
    if isinstance(other, sympy.DiracDelta) and isinstance(one, sympy.sign) and u is not None:
        return {other: weight.subs(X, u) * one.subs(X, u)}
    if t is None or u is None or not isinstance(one, sympy.sign) or not isinstance(other, sympy.sign):
        return {one * other: weight}  # no rule for it
    if t == u:
        return {sympy.S.One: weight}
    low, high = sympy.sign(X - sympy.Min(t, u)), sympy.sign(X - sympy.Max(t, u))
    return {sympy.S.One: weight, high: weight, low: -weight}
