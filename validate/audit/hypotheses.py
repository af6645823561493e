"""The mistakes that are looked for: an ordered table, of which each entry changes one term of the derivation.

A rule yields changes of a term; adding a kind of mistake is adding one function, in ``factors.py`` or
``structures.py``, and its place here.
"""

from collections.abc import Iterator

import sympy

from .factors import Rule, numbers, other_parameter, powers, rescaled_parameter
from .structures import (
    array_taken_for,
    extra_weight,
    other_family,
    other_form,
    permuted_moment,
    repeated_index,
    some_entries,
    sum_range,
    transposed,
    wrong_weight,
)
from .terms import OwnTerm, rebuilt, text

COEFFICIENTS: tuple[Rule, ...] = (numbers, powers, other_parameter, rescaled_parameter)
"""Changes of a coefficient by a factor that is the same for all entries, most common first."""
STRUCTURES: tuple[Rule, ...] = (
    permuted_moment,
    transposed,
    wrong_weight,
    extra_weight,
    array_taken_for,
    repeated_index,
    sum_range,
    some_entries,
    other_form,
    other_family,
)
"""Changes of indices, sums, weights and forms, most common first."""


def foreign_terms(own: tuple[OwnTerm, ...], others: tuple[OwnTerm, ...]) -> Iterator[tuple[str, sympy.Expr]]:
    """Yield terms that the equation does not have: those of another equation, with its second index as it is here, and
    decays of the state."""
    if not own:
        return
    equation, dyn = own[0].equation, own[0].dynamics
    quantity = equation.quantity
    for q in dyn.parameters:
        if not q.indices:
            for number in (-1, -2, 1):
                expr = number * q.base * quantity.symbol
                yield f"a term that is not there: {text(dyn, expr)}", expr
    for term in others:
        source = term.equation.quantity
        if len(source.indices) == len(quantity.indices) == 2 and source.name != quantity.name:
            for expr in _translated(term, quantity.indices[1], quantity.shape[1]):
                yield f"a term of the equation of {source.name}, which does not belong here: {text(dyn, expr)}", expr


def _translated(term: OwnTerm, index: sympy.Symbol, size: sympy.Expr) -> Iterator[sympy.Expr]:
    """Yield a term with its second index replaced by one of another family, with and without weights of it."""
    old = term.free[1]
    families = {f.size: f.base for f in term.dynamics.families if not f.derived}
    if size not in families or term.ranges[old] not in families or index in term.ranges:
        return
    swap = {families[term.ranges[old]][old]: families[size][index]}
    vectors = {q.shape[0]: q.base for q in (*term.dynamics.parameters, *term.dynamics.states) if len(q.shape) == 1}
    weights = [w for w in term.weights if w.indices == (old,)]
    for new in (sympy.S.One, vectors[size][index] if size in vectors else sympy.S.One):
        changed = rebuilt(term.body, swap | dict.fromkeys(weights, new))
        if old not in changed.free_symbols:
            yield term.with_body(changed)
