"""The functions of all fields whose zeros are the kinks and jumps of an integrand.

sign φ jumps where φ = 0, max(0, 1 − φ) has a kink where φ = 1: one switching function φ with the levels 0 and 1. Knows
nothing of rules.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sympy
from sympy.core.relational import Relational

from ..increments import NOISE
from ..moments import Value
from ..user_function import KinkedUserFunction

UNIT = sympy.Symbol("unit", integer=True, positive=True)
"""The number of a field of which a switching function is one."""
SIGNS = (sympy.sign, sympy.Abs, sympy.Heaviside)
NOT_SPLIT = (sympy.floor, sympy.ceiling, KinkedUserFunction)
"""Functions with kinks or jumps without number, or at places that are not known."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A function of all fields, and the values at which an integrand is not smooth.

    Attributes
    ----------
    expr : Expr
        In fields and the label noise, sums over units written as such.
    levels : tuple of Expr
        Numbers.
    size : Expr
        1, or how many functions these are: ``expr`` then is one of field number :data:`UNIT`.
    """

    expr: sympy.Expr
    levels: tuple[sympy.Expr, ...]
    size: sympy.Expr = sympy.S.One


def switches_of(
    integrands: Iterable[sympy.Expr], families: Sequence[tuple[str, sympy.Expr]]
) -> tuple[Switch, ...] | None:
    """Return the switching functions of integrands; ``None`` if some kinks are not the zeros of such functions.

    Parameters
    ----------
    integrands : iterable of Expr
    families : sequence of (str, Expr)
        The name of each family of fields, and how many of them there are.

    Examples
    --------
    >>> h, a, j, K = sympy.IndexedBase("h", real=True), sympy.IndexedBase("a", real=True), *sympy.symbols("j K")
    >>> phi = sympy.Sum(a[j] * h[j], (j, 1, K))
    >>> switches_of([sympy.Max(0, 1 - phi) + sympy.sign(phi), sympy.Max(h[j], 0)], [("h", K)])
    (Switch(expr=Sum(a[j_1]*h[j_1], (j_1, 1, K)), levels=(0, 1), size=1), Switch(expr=h[unit], levels=(0,), size=K))
    """
    sizes = dict(families)
    found: dict[tuple[sympy.Expr, sympy.Expr], dict[sympy.Expr, None]] = {}
    for integrand in integrands:
        marks = _marks(written_out(integrand))
        if marks is None:
            return None
        for mark in marks:
            placed = _placed(mark, sizes)
            if placed is None:
                return None
            if placed:
                key, level = placed
                found.setdefault(key, {})[level] = None
    order = sorted(found, key=lambda key: (key[1] != 1, sympy.default_sort_key(key[0])))
    return tuple(Switch(expr, tuple(sorted(found[expr, size])), size) for expr, size in order)


def written_out(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the functions of its fields written out."""
    return expr.replace(lambda e: isinstance(e, Value), lambda v: v.args[0].function(v.args[1]))


def _marks(expr: sympy.Expr) -> list[sympy.Expr] | None:
    """Return what vanishes where an expression is not smooth."""
    if expr.has(*NOT_SPLIT):
        return None
    marks: list[sympy.Expr] = []
    for piecewise in sorted(expr.atoms(sympy.Piecewise), key=sympy.default_sort_key):
        relations = [r for _, c in piecewise.args for r in c.atoms(Relational)]
        bounded = [a for r in relations for a in _bounded(r)]
        marks += bounded + [r.lhs - r.rhs for r in relations if not _bounded(r)]
        arguments = {(a + b) / 2 for a, b in zip(bounded[::2], bounded[1::2], strict=True)}
        if arguments:  # |r| is smooth beyond |r| = 1
            expr = expr.xreplace({piecewise: _without(piecewise, arguments)})
    for e in sorted(expr.atoms(*SIGNS), key=sympy.default_sort_key):
        marks.append(e.args[0])
    for e in sorted(expr.atoms(sympy.Max, sympy.Min), key=sympy.default_sort_key):
        marks += [a - b for n, a in enumerate(e.args) for b in e.args[:n]]
    return [factor for mark in marks for factor in sympy.Mul.make_args(mark)]


def _bounded(relation: Relational) -> list[sympy.Expr]:
    """Return a − c and a + c of a comparison of |a| with a positive number c."""
    for left, right in ((relation.lhs, relation.rhs), (relation.rhs, relation.lhs)):
        if isinstance(left, sympy.Abs) and right.is_positive and right.is_number:
            return [left.args[0] - right, left.args[0] + right]
    return []


def _without(piecewise: sympy.Piecewise, arguments: set[sympy.Expr]) -> sympy.Expr:
    """Return what else may have kinks in a choice by |a|, a among the arguments."""
    smooth = arguments | {-a for a in arguments}
    parts = [value for value, _ in piecewise.args]
    signs = [e for part in parts for e in part.atoms(*SIGNS) if e.args[0] in smooth]
    return sympy.Add(*(part.xreplace({e: e.args[0] for e in signs}) for part in parts))


def _placed(
    mark: sympy.Expr, sizes: dict[str, sympy.Expr]
) -> tuple[tuple[sympy.Expr, sympy.Expr], sympy.Expr] | tuple[()] | None:
    """Return a switching function with its number of copies, and the level; nothing if no field occurs."""
    fields = {e for e in mark.atoms(sympy.Indexed) if str(e.base) in sizes}
    if not fields and not mark.has(NOISE):
        return ()
    level, rest = mark.as_coeff_Add()
    if rest.could_extract_minus_sign():
        level, rest = -level, -rest
    rest = _same_indices(rest)
    inside = {limit[0] for s in rest.atoms(sympy.Sum) for limit in s.limits}
    outside = {e for e in rest.atoms(sympy.Indexed) if not e.indices[0].is_number and not set(e.indices) <= inside}
    if not outside:
        return (rest, sympy.S.One), -level
    indices = {i for e in outside for i in e.indices}
    if len(indices) > 1 or not all(str(e.base) in sizes for e in outside):
        return None
    size = {sizes[str(e.base)] for e in outside}
    return ((rest.xreplace({indices.pop(): UNIT}), size.pop()), -level) if len(size) == 1 else None


def _same_indices(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the indices of its sums named in order, so that equal sums look equal."""

    def renamed(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        new = {limit[0]: sympy.Symbol(f"j_{n}", integer=True, positive=True) for n, limit in enumerate(limits, 1)}
        return sympy.Sum(summand.xreplace(new), *(limit.xreplace(new) for limit in limits))

    return expr.replace(sympy.Sum, renamed)
