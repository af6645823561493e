"""Momentum of a fixed β as plain steps of other vectors, seen to order 1/d.

A buffer m ← B m + (F/√d) x that steps add to w ← w + A m + (G/√d) x remembers a few kicks: its overlaps are 1/d of
those of w, but at order one d·ΔΩ depends on them. The combination w̃ = w + γ m with γ = A (1 − B)⁻¹ moves without it,

    w̃ ← w̃ + ((G + γ F)/√d) x + O(1/d),

by a plain step at another learning rate. Its overlaps Ω̃ are a slow Markov chain whose noise is that of plain steps;
in the 1/d terms of its mean increment the overlaps of buffers, which relax within a few steps, are at their fixed
points. Overlaps of w itself are Ω̃ + o/d, with o made of the same fixed points, once buffers have relaxed. So it is of
trained scalars and their buffers. Where there are no buffers all is as it was, and o = 0. Knows nothing of how averages
are taken, nor of models.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import sympy

from .averages import Example, rename_bound
from .dynamics import Quantity
from .fast_variables import Averages, FixedPoints, gathered, insert_fixed_points
from .increments import LENGTH, NORM, D, ScalarUpdate, VectorUpdate, gram_increment, overlap_of, scalar_increment
from .moments import Pair
from .pipeline import average_increments
from .terms import Term

if TYPE_CHECKING:
    from .pipeline import TrainingStep

Weighted = list[tuple[sympy.Expr, VectorUpdate]]


def slow_increments(training: "TrainingStep") -> list[tuple[Quantity, sympy.Expr]]:
    """Return d times the increments of the overlaps of combinations that buffers do not move, and of scalars."""
    return [(q, sympy.Add(*(weight * part for weight, part in parts))) for q, parts in _weighted(training)]


def slow_kick(update: VectorUpdate, training: "TrainingStep") -> sympy.Expr:
    """Return G + γ F, by which the combination moves that buffers do not move."""
    return sympy.Add(*(weight * u.kick for weight, u in _combination(update, _buffers(training))))


def stretched_increments(training: "TrainingStep") -> list[tuple[Quantity, sympy.Expr]]:
    """Return what multiplies |x|²/d, or that of the part in a block, in :func:`slow_increments`."""

    def coefficient(part: sympy.Expr) -> sympy.Expr:
        lengths = [NORM, *(e for e in part.atoms(sympy.Indexed) if e.base == LENGTH)]
        return sympy.Add(*(part.coeff(length) for length in lengths))

    return [(q, sympy.Add(*(weight * coefficient(p) for weight, p in parts))) for q, parts in _weighted(training)]


def remembered_kicks(update: VectorUpdate, training: "TrainingStep") -> tuple[sympy.Expr, sympy.Expr]:
    """Return what buffers add to the increments of products of two combinations, of which this is one.

    Functions depend on the fields of w, and (w + γ m)·x has γ m·x besides. A buffer m = Σ_s Bˢ (F_s/√d) x_s holds kicks
    of earlier steps, F = r F̃ with F̃ = G + γ F, each on another example. So with a vector that is kicked by F̃_f

        γ E[F̃_f m·x] = γ r/(1 − B) E[F̃_f x]·E[F̃ x] + Σ_j E[∂F̃_f/∂h_j] (γ r/(1 − B) − γ² r²/(1 − B²)) E[F̃_j F̃],

    the second since those kicks are in w_j = w̃_j − γ m_j too: w̃_j·m has F̃_j F_s Bˢ of each, and m_j·m has F_j F B²ˢ.

    Returns
    -------
    pairs, own : Expr
        The coefficients of both; 0 for vectors without buffers.
    """
    combination = _combination(update, _buffers(training))
    pairs = own = sympy.S.Zero
    for gamma, buffer in combination[1:]:
        r = 1 / sympy.Add(*(weight * _times(u.kick, buffer.kick) for weight, u in combination))
        pairs += gamma * r / (1 - buffer.keep)
        own += gamma * r / (1 - buffer.keep) - gamma**2 * r**2 / (1 - buffer.keep**2)
    return sympy.cancel(pairs), sympy.cancel(own)


def _times(kick: sympy.Expr, other: sympy.Expr) -> sympy.Expr:
    """Return by what number a kick is another; sums whose indices have other names are the same."""
    one, two = (sympy.Mul.make_args(_alike(each)) for each in (kick, other))
    # what both have is left out first: SymPy does not cancel a function in pieces
    ratio = sympy.Mul(*(f for f in one if f not in two)) / sympy.Mul(*(f for f in two if f not in one))
    assert not ratio.has(sympy.Indexed), "a vector and its buffer that are kicked by different functions"
    return ratio


def _alike(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the indices of its sums, of which none stands in another, named by their place."""

    def named(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        new = {limit[0]: sympy.Symbol(f"bound_{n}", integer=True, positive=True) for n, limit in enumerate(limits)}
        return sympy.Sum(summand.xreplace(new), *(limit.xreplace(new) for limit in limits))

    return expr.replace(sympy.Sum, named)


def slow_averages(training: "TrainingStep", example: Example, pairs: bool = True) -> Averages:
    """Return the averages of :func:`slow_increments`; those of products of two examples, of one step or of a step and
    a buffer that remembers others, only if asked.

    Their parts are averaged one by one, so that 1/d and the weights stay apart, and the order of each term can be seen.
    """
    weighted = _weighted(training)
    if not pairs:
        weighted = [(q, [(weight, _of_one_example(part, training)) for weight, part in parts]) for q, parts in weighted]
    flat = average_increments([(q, part) for q, parts in weighted for _, part in parts], example)
    remaining = iter(flat)
    return [(q, [t for weight, _ in parts for t in _scaled(next(remaining)[1], weight)]) for q, parts in weighted]


def _of_one_example(increment: sympy.Expr, training: "TrainingStep") -> sympy.Expr:
    others = [e for e in increment.atoms(sympy.Indexed) if e.base in training.relaxing]
    return increment.xreplace(dict.fromkeys((*increment.atoms(Pair), *others), sympy.S.Zero))


def _scaled(terms: list[Term], weight: sympy.Expr) -> list[Term]:
    return [replace(term, coefficient=weight * term.coefficient) for term in terms]


def _weighted(training: "TrainingStep") -> list[tuple[Quantity, list[tuple[sympy.Expr, sympy.Expr]]]]:
    """Return d times the increment of each state as weights and increments of overlaps of single vectors."""
    covariance = dict((*training.covariance, *training.idle_overlaps))

    def parts(f: VectorUpdate, g: VectorUpdate) -> list[tuple[sympy.Expr, sympy.Expr]]:
        pairs = _pairs(f, g, training)
        return [(weight, gram_increment(u, v, covariance, training.batch)) for weight, u, v in pairs]

    overlaps = [(q, parts(f, g)) for q, f, g in training.overlaps]
    scalars = [
        (q, [(weight, scalar_increment(part)) for weight, part in _scalar_combination(q, update, training)])
        for q, update in training.scalars
    ]
    return overlaps + scalars


def offsets(training: "TrainingStep", solved: FixedPoints) -> Averages:
    """Return o = d (Ω − Ω̃) of each state, the overlaps of buffers at their fixed points."""
    covariance = dict((*training.covariance, *training.idle_overlaps))

    def offset(q: Quantity, f: VectorUpdate, g: VectorUpdate) -> list[Term]:
        _, *others = _pairs(f, g, training)
        terms = [Term(-D * weight * overlap_of(u.field, v.field, covariance)) for weight, u, v in others]
        return gathered(insert_fixed_points(terms, solved), q)

    def of_scalar(q: Quantity, update: ScalarUpdate) -> list[Term]:
        _, *others = _scalar_combination(q, update, training)
        terms = [Term(-D * weight * part.size * part.scalar) for weight, part in others]
        return gathered(insert_fixed_points(terms, solved), q)

    overlaps = [(q, offset(q, f, g)) for q, f, g in training.overlaps]
    return overlaps + [(q, of_scalar(q, update)) for q, update in training.scalars]


def relaxing_fields(training: "TrainingStep") -> set[sympy.Basic]:
    """Return the fields of the buffers that relax within a few steps, of order d^(−1/2)."""
    return set(training.relaxing)


def without_buffers(increment: sympy.Expr, training: "TrainingStep") -> sympy.Expr:
    """Return an increment at order one, where combinations of vectors move without buffers: their fields are of order
    d^(−1/2), and their overlaps cancel."""
    if not training.fast:
        return increment
    names = set(training.fast_names)
    overlaps = [e for e in increment.atoms(sympy.Indexed) if str(e.base) in names]
    assert all(sympy.cancel(sympy.diff(increment, e)) == 0 for e in overlaps), "a combination that buffers move"
    relaxing = relaxing_fields(training)
    fields = [e for e in increment.atoms(sympy.Indexed) if e.base in relaxing]
    return increment.xreplace(dict.fromkeys((*overlaps, *fields), sympy.S.Zero))


def _pairs(
    f: VectorUpdate, g: VectorUpdate, training: "TrainingStep"
) -> list[tuple[sympy.Expr, VectorUpdate, VectorUpdate]]:
    """Return the products of two combinations; that of the vectors themselves stands first."""
    buffers = _buffers(training)
    return [(a * b, u, v) for a, u in _combination(f, buffers) for b, v in _combination(g, buffers)]


def _buffers(training: "TrainingStep") -> dict[sympy.Basic, VectorUpdate]:
    relaxing = relaxing_fields(training)
    return {u.field.base: u for _, *pair in training.fast for u in pair if u.field.base in relaxing}


def _combination(update: VectorUpdate, buffers: dict[sympy.Basic, VectorUpdate]) -> Weighted:
    """Return w + γ m as the updates that are added up, with their weights."""
    found: Weighted = [(sympy.S.One, update)]
    for field, factor in update.others:
        if buffer := buffers.get(field.base):
            found.append((factor / (1 - buffer.keep), _at(buffer, field.indices)))
    return found


def _scalar_combination(
    q: Quantity, update: ScalarUpdate, training: "TrainingStep"
) -> list[tuple[sympy.Expr, ScalarUpdate]]:
    """Return a + γ n, of a trained scalar and its buffer, as the updates that are added up, with their weights."""
    found = [(sympy.S.One, update)]
    for _, buffer, name in training.fast_scalars:
        if name == q.name:
            factor = sympy.diff(update.added, buffer.scalar) / buffer.size
            found.append((factor / (1 - buffer.keep), buffer))
    return found


def _at(update: VectorUpdate, indices: Sequence[sympy.Basic]) -> VectorUpdate:
    """Return the update of another vector of the same family."""
    swap = dict(zip(update.field.indices, indices, strict=True))
    kick = rename_bound(update.kick, tuple(indices)).xreplace(swap)
    return replace(update, field=update.field.xreplace(swap), kick=kick)
