"""Order parameters that relax within a few steps, eliminated: they are at the fixed point that slow ones prescribe.

The buffers of momentum with a fixed β forget in 1/(1 − β) steps, while overlaps of weights need d steps to move. To
leading order in 1/d each fast overlap solves a linear equation whose sources are averages at the present weights.
Knows nothing of momentum itself, nor of models.
"""

from collections.abc import Sequence
from dataclasses import replace

import sympy

from .averages import rename_bound
from .dynamics import Quantity
from .increments import D
from .terms import Term, collect_terms

Averages = list[tuple[Quantity, list[Term]]]
FixedPoints = dict[str, tuple[Quantity, list[Term]]]
"""Of each fast quantity, by name: the quantity and the terms that it is the sum of."""


def eliminate_fast(averages: Averages, fast: Sequence[str]) -> Averages:
    """Return the averaged increments of the slow order parameters, with the fast ones replaced by their fixed points.

    Parameters
    ----------
    averages : list of (Quantity, list of Term)
        d·⟨ΔΩ⟩ of slow quantities, and the change of fast ones in one step, in terms of both.
    fast : sequence of str
        The names of the fast ones.

    Raises
    ------
    ValueError
        If the equations of the fast ones depend on each other in a circle.
    """
    solved = fixed_points(averages, fast)
    slow = [(q, terms) for q, terms in averages if q.name not in fast]
    return [(q, gathered(insert_fixed_points(terms, solved), q)) for q, terms in slow]


def fixed_points(averages: Averages, fast: Sequence[str]) -> FixedPoints:
    """Return the fast order parameters to leading order in 1/d, as terms in slow ones; as :func:`eliminate_fast`."""
    equations = {q.name: (q, [t for t in terms if _order(t) <= 0]) for q, terms in averages if q.name in fast}
    solved: FixedPoints = {}
    while len(solved) < len(equations):
        ready = [
            name
            for name, (_, terms) in equations.items()
            if name not in solved and _needs(terms, fast) <= {*solved, name}
        ]
        if not ready:
            raise ValueError(f"the fixed points of {', '.join(sorted(set(equations) - set(solved)))} need each other")
        for name in ready:
            q, terms = equations[name]
            solved[name] = q, _fixed_point(q, insert_fixed_points(terms, solved))
    return solved


def _fixed_point(q: Quantity, terms: list[Term]) -> list[Term]:
    """Return the solution of 0 = Σ terms, linear in the quantity itself."""
    own = sympy.Add(*(t.coefficient.coeff(q.symbol) for t in terms))
    sources = [t for t in terms if not t.coefficient.has(q.symbol)]
    return [replace(t, coefficient=t.coefficient / -own) for t in sources]


def insert_fixed_points(terms: list[Term], solved: FixedPoints) -> list[Term]:
    """Return terms with fast quantities, which are factors of coefficients, replaced by their solutions."""
    found = []
    for term in terms:
        entries = [e for e in term.coefficient.atoms(sympy.Indexed) if str(e.base) in solved]
        if not entries:
            found.append(term)
            continue
        (entry,) = entries
        q, solution = solved[str(entry.base)]
        swap = dict(zip(q.indices, entry.indices, strict=True))
        outside = replace(term, coefficient=term.coefficient / entry)
        taken = {*q.indices, *entry.indices, *term.indices}
        for part in (part.renamed(taken) for part in solution):  # its sums run over no index that it is moved to
            moved = Term(
                part.coefficient.subs(swap, simultaneous=True),
                part.indices,
                tuple(rename_bound(f, tuple(taken)).subs(swap, simultaneous=True) for f in part.factors),
            )
            found.append(outside.times(moved, set(q.indices)))
    return found


def gathered(terms: list[Term], q: Quantity) -> list[Term]:
    """Return terms with those of the same order that differ by their coefficients alone added up."""
    total: dict[tuple[object, ...], list[Term]] = {}
    for term in collect_terms(terms, q.indices):
        total.setdefault((term.indices, term.factors, _order(term)), []).append(term)
    return [replace(same[0], coefficient=_tidy(sympy.Add(*(t.coefficient for t in same)))) for same in total.values()]


def _tidy(coefficient: sympy.Expr) -> sympy.Expr:
    """Return a rational function as one fraction, with 1 − β rather than β − 1."""

    def positive(power: sympy.Pow) -> sympy.Expr:
        return (-1) ** power.exp * sympy.Pow(-power.base, power.exp)

    def is_negative(e: sympy.Basic) -> bool:
        return e.is_Pow and e.exp.is_Integer and e.base.is_Add and e.base.as_coeff_Add()[0].is_negative

    return sympy.factor(coefficient).replace(is_negative, positive)


def _needs(terms: list[Term], fast: Sequence[str]) -> set[str]:
    return {str(e.base) for t in terms for e in t.coefficient.atoms(sympy.Indexed) if str(e.base) in fast}


def _order(term: Term) -> sympy.Expr:
    """Return the power of 1/d in a monomial coefficient."""
    return -term.coefficient.as_coeff_exponent(D)[1]
