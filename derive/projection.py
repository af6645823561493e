"""Vectors of fixed length: what rescaling them after each step does to the averages of a free step.

A free step takes Ω to Ω + X/d. Vectors of the constrained families are then rescaled to their old lengths, so that

    Ω_fg → (Ω_fg + X_fg/d) (1 + X_ff/(d Ω_ff))^(−1/2) (1 + X_gg/(d Ω_gg))^(−1/2),

with one factor for each constrained vector of the two. To leading order in 1/d, d·ΔΩ_fg = X_fg − ½ (X_ff/Ω_ff +
X_gg/Ω_gg) Ω_fg, linear in X: averages and single increments alike. What follows has products of two increments. Where
vectors are seen by their parts in blocks of the inputs, Ω_ff and X_ff are the sums over all blocks. Knows nothing of
models.

Source: Ben Arous, Gheissari & Jagannath, J. Mach. Learn. Res. 22, 106 (2021), where one vector is on a sphere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy

from .averages import rename_bound
from .dynamics import Quantity
from .errors import ModelError
from .fast_variables import gathered
from .increments import D, VectorUpdate
from .limits import Dropped, Limit
from .terms import Term, collect_terms, fresh_index

if TYPE_CHECKING:
    from .pipeline import TrainingStep

Averages = list[tuple[Quantity, list[Term]]]
Increments = list[tuple[Quantity, sympy.Expr]]
Product = tuple[sympy.Expr, sympy.Expr, sympy.Expr]
TOTAL = sympy.Symbol("c", integer=True, positive=True)
"""The index of the blocks that make a squared length up."""


class IncrementProduct(sympy.Expr):
    """``<ΔA ΔB>``: the average of a product of two increments of a free step."""

    is_commutative = True
    is_real = True

    def _plain(self, printer: Any) -> str:
        return f"<{' '.join(f'Δ{printer.doprint(a)}' for a in self.args)}>"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        factors = " ".join(r"\Delta " + printer.doprint(a) for a in self.args)
        product = rf"\langle {factors}\rangle"
        return product if exp is None else f"{product}^{{{exp}}}"


def check_lengths(Q: Any) -> None:
    """Raise a ModelError if a vector has length 0: Q (K, K) has the squared lengths on its diagonal, or (B, K, K) those
    of the parts in each block."""
    Q = Q.sum(axis=0) if Q.ndim > 2 else Q
    if not all(Q[i, i] > 0 for i in range(len(Q))):
        accepted = "students of positive lengths: a vector of length 0 cannot be rescaled to it"
        raise ModelError("y0['Q']", Q.tolist(), accepted)


def hold_lengths(averages: Averages, training: "TrainingStep") -> Averages:
    """Return the averages of d·ΔΩ of a step after which the vectors of ``training.normalised`` are rescaled."""
    own, terms_of = _own_overlaps(training), dict(averages)
    vectors = {q: (f, g) for q, f, g in training.overlaps}

    def held(q: Quantity, terms: list[Term]) -> list[Term]:
        found = list(terms)
        for vector in vectors.get(q, ()):
            if square := own.get(vector.field.base):
                found += _shrinking(q, vector, square, terms_of[square], _square(vector, own))
        return gathered(found, q) if training.fast else collect_terms(found, q.indices)

    return [(q, held(q, terms)) for q, terms in averages]


def second_order(training: "TrainingStep", limit: Limit) -> list[Dropped]:
    """Return what rescaling adds at the next order, products of two increments, which every limit drops."""
    order = " · ".join(name for _, name in limit.vanishing)
    return [
        Dropped(q.name, Term(c * D, (), (IncrementProduct(u, v),)), order)
        for q, parts in _products(training)
        for c, u, v in parts
    ]


def project(increments: Increments, training: "TrainingStep") -> Increments:
    """Return the increments, at order one, of a step after which lengths are held, from those of a free one."""
    own, free = _own_overlaps(training), dict(increments)
    vectors = {q: (f, g) for q, f, g in training.overlaps}

    def held(q: Quantity, expr: sympy.Expr) -> sympy.Expr:
        squares = [_square(v, own) for v in vectors.get(q, ()) if v.field.base in own]
        return expr - sympy.Add(*(_increment_of(s, q, free) / s for s in squares)) * q.symbol / 2

    return [(q, held(q, expr)) for q, expr in increments]


def curvature(increments: Increments, training: "TrainingStep") -> Increments:
    """Return d times the next order of rescaling, quadratic in increments of a free step at order one."""
    free, products = dict(increments), dict(_products(training))

    def of(q: Quantity) -> sympy.Expr:
        parts = products.get(q, ())
        return sympy.Add(*(c * _increment_of(u, q, free) * _increment_of(v, q, free) for c, u, v in parts))

    return [(q, of(q)) for q, _ in increments]


def _products(training: "TrainingStep") -> list[tuple[Quantity, list[Product]]]:
    """Return, with x_f = X_ff/Ω_ff, (3/8)(x_f² + x_g²) Ω_fg + ¼ x_f x_g Ω_fg − ½ (x_f + x_g) X_fg for each overlap: as
    coefficients and the two entries whose increments are multiplied."""
    own = _own_overlaps(training)
    found = []
    for q, f, g in training.overlaps:
        squares = [_square(v, own) for v in (f, g) if v.field.base in own]
        parts = [(sympy.Rational(3, 8) * q.symbol / s**2, s, s) for s in squares]
        parts += [(-1 / (2 * s), q.symbol, s) for s in squares]
        if len(squares) == 2:
            parts.append((q.symbol / squares[0] / squares[1] / 4, *squares))
        found.append((q, parts))
    return found


def _square(vector: VectorUpdate, own: Mapping[sympy.Basic, Quantity]) -> sympy.Expr:
    """Return the overlap of a constrained vector with itself, all its parts together."""
    square, index = own[vector.field.base], vector.field.indices[-1]
    if len(square.indices) == 2:
        return square.base[index, index]
    return sympy.Sum(square.base[TOTAL, index, index], (TOTAL, 1, square.shape[0]))


def _increment_of(entry: sympy.Expr, q: Quantity, increments: Mapping[Quantity, sympy.Expr]) -> sympy.Expr:
    """Return the increment of an entry of some overlaps, or of a sum of such, inside the equation of ``q``."""
    if isinstance(entry, sympy.Sum):
        return sympy.Sum(_increment_of(entry.function, q, increments), *entry.limits)
    (name,) = (r for r in increments if r.base == entry.base)
    expr = rename_bound(increments[name], (*q.indices, *entry.indices))
    return expr.xreplace(dict(zip(name.indices, entry.indices, strict=True)))


def held_overlaps(training: "TrainingStep") -> tuple[str, ...]:
    """Return the names of those overlaps of vectors with each other whose diagonal stays: not that of one block."""
    return tuple(q.name for q in _own_overlaps(training).values() if len(q.indices) == 2)


def squares_of(training: "TrainingStep") -> tuple[tuple[str | None, str | None], ...]:
    """Return for each state of which overlaps the diagonal holds the squared length of either vector, if it is held."""
    own = {base: q.name for base, q in _own_overlaps(training).items()}
    found = [(own.get(f.field.base), own.get(g.field.base)) for _, f, g in training.overlaps]
    return (*found, *((None, None) for _ in training.scalars))


def _own_overlaps(training: "TrainingStep") -> dict[sympy.Basic, Quantity]:
    """Return, for each constrained family, the overlaps of its vectors with each other."""
    squares = {f.field.base: q for q, f, g in training.overlaps if f.field.base == g.field.base}
    return {base: squares[base] for base in training.normalised}


def _shrinking(
    q: Quantity, vector: VectorUpdate, square: Quantity, terms: Sequence[Term], total: sympy.Expr
) -> list[Term]:
    """Return −½ (X_ff/Ω_ff) Ω_fg, where ``terms`` are the average of X_ik, and ``total`` is Ω_ff."""
    index, blocks = vector.field.indices[-1], square.indices[:-2]
    free = {*q.indices, *square.indices}
    summed = [(fresh_index(size, free), size) for _, size in zip(blocks, square.shape, strict=False)]
    same = dict.fromkeys(square.indices[-2:], index) | {b: s for b, (s, _) in zip(blocks, summed, strict=True)}
    free |= {s for s, _ in summed}
    weight = -q.symbol / total / 2
    part = square.base[(*(s for s, _ in summed), index, index)]  # whose sum over blocks is the total

    def at_index(term: Term) -> Term:
        term = term.renamed(free)
        coefficient = term.coefficient.xreplace(same)
        if not term.indices and not term.factors and not (rest := coefficient / part).has(sympy.Indexed):
            return Term(-q.symbol * rest / 2)
        return Term(
            weight * coefficient,
            (*summed, *term.indices),
            tuple(rename_bound(factor, tuple(free)).xreplace(same) for factor in term.factors),
        )

    return [replace(t, coefficient=sympy.expand_mul(t.coefficient)) for t in map(at_index, terms)]
