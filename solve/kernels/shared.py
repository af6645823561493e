"""What the equations of all blocks have in common: computed once, not once a block.

An equation with three indices, dQ[g,i,k]/dt, whose terms of some factor c[g] depend on g by that factor alone, is c[g]
S[i,k] + …; S becomes an array of its own, half of it where it is symmetric. Knows nothing of loops or memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from effdyn.derive import Moment, Quantity
from effdyn.derive.moments import Joint

Output = tuple[Quantity, sympy.Expr]


@dataclass(frozen=True, slots=True)
class Shared:
    """Outputs of a kernel, and the arrays that they have in common.

    Attributes
    ----------
    arrays : tuple of (Quantity, Expr)
        What is to be computed first.
    outputs : tuple of (Quantity, Expr)
        The outputs in terms of these.
    """

    arrays: tuple[Output, ...]
    outputs: tuple[Output, ...]


def share_over_first_index(outputs: Sequence[Output]) -> Shared:
    """Return outputs with expectations that do not depend on the first of three indices as arrays in the others."""
    arrays: list[Output] = []
    rewritten = []
    for quantity, expr in outputs:
        if len(quantity.indices) == 3:
            first, *others = quantity.indices
            rest = []
            for factor, common in _by_factor(expr, first).items():
                if not _is_worth_an_array(common, others):
                    rest.append(factor * common)
                    continue
                array = _array(f"shared_{quantity.name}{len(arrays)}", quantity, common)
                arrays.append((array, common))
                rest.append(factor * array.symbol)
            expr = sympy.Add(*rest)
        rewritten.append((quantity, expr))
    return Shared(tuple(arrays), tuple(rewritten))


def _by_factor(expr: sympy.Expr, index: sympy.Symbol) -> dict[sympy.Expr, sympy.Expr]:
    """Return what is multiplied by each factor that depends on an index."""
    found: dict[sympy.Expr, sympy.Expr] = {}
    for term in sympy.Add.make_args(expr):
        common, factor = term.as_independent(index, as_Add=False)
        found[factor] = found.get(factor, sympy.S.Zero) + common
    return found


def _is_worth_an_array(common: sympy.Expr, others: Sequence[sympy.Symbol]) -> bool:
    """Return whether an expression holds expectations and all the other indices: else it is a row of one index."""
    return common.has(Moment, Joint) and set(others) <= common.free_symbols


def _array(name: str, like: Quantity, common: sympy.Expr) -> Quantity:
    (_, one, other), (_, first, second) = like.indices, like.shape
    swapped = common.xreplace({one: other, other: one})
    symmetric = first == second and sympy.expand(swapped - common) == 0
    return Quantity(name, (one, other), (first, second), symmetric=symmetric)
