"""From the equations of a Dynamics to expressions that a kernel can be written from.

Sums over student and teacher become one, moments become closed forms or sums over the nodes of a rule, double sums
over a symmetric summand run over half of it, what does not depend on a summation index leaves its sum. The result is
SymPy still; knows nothing of loops, memory or Numba.
"""

from functools import reduce

import sympy

from effdyn.derive import Dynamics, Moment, close_moments
from effdyn.derive.activation import X
from effdyn.derive.moments import Univariate, Value
from effdyn.derive.numerical.moment_forms import moment_form

from .centre import centre_variances
from .fuse import Fusion, fuse_sums
from .nodes import ordered_families, rename_bound, rename_nodes, sum_over_nodes
from .sums import SymmetricSum

FLOOR = sympy.Float("1e-30")
"""Added to variances in forms that are 0/0 where a field vanishes: their limit, without effect on other variances."""


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
    halved = halve_symmetric_sums(merge_factors(expr, shifted=bool(dynamics.mean)), symmetric)
    covariance = rename_bound(fused.covariance if fused else dict(dynamics.covariance))
    closed = rename_nodes(close_moments(halved, covariance, dict(dynamics.mean), FLOOR))
    closed = sum_over_nodes(centre_variances(closed), ordered_families(dynamics))
    return share_factors(pull_out_of_sums(sort_symmetric_indices(closed, symmetric)))


def merge_factors(expr: sympy.Expr, shifted: bool) -> sympy.Expr:
    """Return ``expr`` with functions of one and the same field as one function, where that saves a sum over nodes.

    E[tanh(φ) tanh(φ)] is a double sum by the rule for two fields, a single one by that for the field of tanh².
    """

    def merged(*factors: sympy.Expr) -> sympy.Expr:
        moment = Moment(*factors)
        values = [f for f in moment.args if isinstance(f, Value)]
        fields = dict.fromkeys(f.args[1] for f in values)
        if len(fields) == len(values) or moment_form(moment.signature, shifted).outer < 2:
            return moment
        rest = [f for f in moment.args if not isinstance(f, Value)]
        functions = {h: sympy.Mul(*(f.args[0].function(X) for f in values if f.args[1] == h)) for h in fields}
        products = [Univariate(_PRODUCT, sympy.S.Zero, sympy.Lambda(X, f))(h) for h, f in functions.items()]
        return Moment(*rest, *products)

    return expr.replace(Moment, merged)


_PRODUCT = sympy.Symbol("product")


def sort_symmetric_indices(expr: sympy.Expr, symmetric: frozenset[sympy.Basic]) -> sympy.Expr:
    """Return ``expr`` with the indices of symmetric arrays in order: Q[k, i] is Q[i, k]."""

    def ordered(indexed: sympy.Indexed) -> sympy.Expr:
        return indexed.base[tuple(sorted(indexed.indices, key=lambda index: (not index.is_number, str(index))))]

    elements = (e for e in expr.atoms(sympy.Indexed) if e.base in symmetric)
    return expr.xreplace({e: o for e in elements if (o := ordered(e)) != e})


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
