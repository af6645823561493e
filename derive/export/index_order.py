"""Summation indices in the order in which the papers use them: i, k for units of the equation, j, l under sums."""

import sympy
from sympy.core.function import AppliedUndef

from ..moments import Moment

_INDICES = "gikjlpqrsunmtvwxyz"


def index_rank(index: sympy.Expr) -> tuple[int, str]:
    """Return the rank of an index in the order i, k, j, l, …, n, m, … (numbers by themselves)."""
    name = str(index)
    if index.is_number:
        return (int(index), name)
    return (_INDICES.index(name) if name in _INDICES else len(_INDICES), name)


def order_indices(expr: sympy.Sum) -> tuple[sympy.Expr, list[tuple[sympy.Expr, ...]]]:
    """Return summand and limits, outermost first; indices of equal range are renamed to occur in order."""
    body, limits = expr.function, [tuple(limit) for limit in reversed(expr.limits)]
    calls = [c for c in sympy.preorder_traversal(body) if isinstance(c, (AppliedUndef, Moment))]
    if not calls:
        return body, limits
    call = calls[0]
    arguments = call.args if isinstance(call, AppliedUndef) else tuple(f.indices[0] for f in call.fields)
    swap: dict[sympy.Expr, sympy.Expr] = {}
    for bounds in dict.fromkeys(limit[1:] for limit in limits):
        group = [limit[0] for limit in limits if limit[1:] == bounds]
        occurring = [a for a in dict.fromkeys(arguments) if a in group]
        swap |= dict(zip(occurring, sorted(occurring, key=index_rank), strict=True))
    if isinstance(call, AppliedUndef):  # a Moment would sort its factors back
        body = body.xreplace(swap)
    return body, sorted(limits, key=lambda limit: ([x[1:] for x in limits].index(limit[1:]), index_rank(limit[0])))
