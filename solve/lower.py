"""From the equations of a Dynamics to expressions that a kernel can be written from.

Sums over student and teacher become one, moments become closed forms, double sums over a symmetric summand run over
half of it, what does not depend on a summation index leaves its sum. The result is SymPy still; knows nothing of
loops, memory or Numba.
"""

from functools import reduce

import sympy

from effdyn.derive import Dynamics, close_moments

from .fuse import Fusion, fuse_sums
from .sums import SymmetricSum


def lower(dynamics: Dynamics, expr: sympy.Expr, fused: Fusion | None, symmetric: frozenset[sympy.Basic]) -> sympy.Expr:
    """Return ``expr`` ready to be emitted as loops.

    Raises
    ------
    ValueError
        For a sum that does not run from 1.
    """
    for limit in (limit for s in expr.atoms(sympy.Sum) for limit in s.limits):
        if len(limit) != 3 or limit[1] != 1:
            raise ValueError(f"sums in kernels run from 1 to a size; got {limit}")
    if fused:
        expr = fuse_sums(expr, fused)
    halved = halve_symmetric_sums(expr, symmetric)
    closed = close_moments(halved, fused.covariance if fused else dict(dynamics.covariance))
    return share_factors(pull_out_of_sums(sort_symmetric_indices(closed, symmetric)))


def sort_symmetric_indices(expr: sympy.Expr, symmetric: frozenset[sympy.Basic]) -> sympy.Expr:
    """Return ``expr`` with the indices of symmetric arrays in order: Q[k, i] is Q[i, k]."""

    def ordered(indexed: sympy.Indexed) -> sympy.Expr:
        return indexed.base[tuple(sorted(indexed.indices, key=lambda index: (not index.is_number, str(index))))]

    return expr.replace(lambda e: isinstance(e, sympy.Indexed) and e.base in symmetric, ordered)


def halve_symmetric_sums(expr: sympy.Expr, symmetric: frozenset[sympy.Basic]) -> sympy.Expr:
    """Return ``expr`` with nested single sums, and a :class:`SymmetricSum` for each pair whose exchange changes
    nothing."""

    def rewrite(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        remaining = [(index, size) for index, _, size in limits]  # innermost first
        while remaining:
            index, size = remaining.pop(0)
            partner = next(
                (p for p in remaining if p[1] == size and _symmetric_under(summand, index, p[0], symmetric)), None
            )
            if partner:
                remaining.remove(partner)
                summand = SymmetricSum(summand, partner[0], index, size)
            else:
                summand = sympy.Sum(summand, (index, 1, size))
        return summand

    return expr.replace(sympy.Sum, rewrite)


def _symmetric_under(
    summand: sympy.Expr, one: sympy.Symbol, other: sympy.Symbol, symmetric: frozenset[sympy.Basic]
) -> bool:
    swapped = summand.xreplace({one: other, other: one})
    return sort_symmetric_indices(swapped, symmetric) == sort_symmetric_indices(summand, symmetric)


def pull_out_of_sums(expr: sympy.Expr) -> sympy.Expr:
    """Return ``expr`` with factors that do not depend on a summation index moved out of its sum, innermost sums
    first."""
    if not expr.args or isinstance(expr, sympy.Indexed):
        return expr
    if isinstance(expr, sympy.Sum):
        result = pull_out_of_sums(expr.function)
        for limit in expr.limits:  # innermost first
            outside, inside = _split(result, {limit[0]})
            result = outside * (limit[2] if inside == 1 else sympy.Sum(inside, limit))
        return result
    if isinstance(expr, SymmetricSum):
        summand, first, second, size = expr.args
        outside, inside = _split(pull_out_of_sums(summand), {first, second})
        return outside * (size**2 if inside == 1 else SymmetricSum(inside, first, second, size))
    return expr.func(*map(pull_out_of_sums, expr.args))


def share_factors(expr: sympy.Expr) -> sympy.Expr:
    """Return a sum of terms with those that differ only by a sum and a number bracketed: c Σ₁ + c Σ₂ is c (Σ₁ + Σ₂)."""
    brackets: dict[sympy.Expr, sympy.Expr] = {}
    for term in sympy.Add.make_args(expr):
        number, rest = term.as_coeff_Mul()
        factors = sympy.Mul.make_args(rest)
        shared = sympy.Mul(*(f for f in factors if not f.has(sympy.Sum, SymmetricSum)))
        bracket = number * sympy.Mul(*(f for f in factors if f.has(sympy.Sum, SymmetricSum)))
        brackets[shared] = brackets.get(shared, sympy.S.Zero) + bracket
    return sympy.Add(*(sympy.Mul(shared, bracket, evaluate=bracket.is_number) for shared, bracket in brackets.items()))


def _split(product: sympy.Expr, indices: set[sympy.Basic]) -> tuple[sympy.Expr, sympy.Expr]:
    factors = sympy.Mul.make_args(product)
    inside = [f for f in factors if f.free_symbols & indices]
    outside = [f for f in factors if not f.free_symbols & indices]
    return reduce(lambda a, b: a * b, outside, sympy.S.One), sympy.Mul(*inside)
