"""Fields on which no function depends: of momentum buffers, of the mean of the inputs, of parts of vectors in blocks.

Increments are linear in them. Their law is made of the overlaps of all vectors. Knows nothing of averages.
"""

from typing import TYPE_CHECKING

import sympy

from .dynamics import FieldFamily
from .increments import overlap_of

if TYPE_CHECKING:
    from .pipeline import TrainingStep

Law = tuple[tuple[str, str], sympy.Lambda]


def idle_families(training: "TrainingStep") -> tuple[FieldFamily, ...]:
    """Return the families of fields on which nothing depends, with as many members as their overlaps say.

    Buffers that relax within a few steps have fields of order d^(−1/2), and are none of them.
    """
    shapes, relaxing = idle_shapes(training), training.relaxing
    return tuple(
        FieldFamily(base, sympy.Mul(*shapes[base]), str(base), shape=shapes[base] if len(shapes[base]) > 1 else ())
        for base in training.idle
        if base not in relaxing
    )


def idle_shapes(training: "TrainingStep") -> dict[sympy.IndexedBase, tuple[sympy.Expr, ...]]:
    """Return the sizes of the indices of each idle field; none of an index that is a number."""
    shapes: dict[sympy.IndexedBase, tuple[sympy.Expr, ...]] = {}
    for q, f, g in training.overlaps:
        sizes = dict(zip(q.indices, q.shape, strict=True))
        for field in (f.field, g.field):
            shapes[field.base] = tuple(sizes[index] for index in field.indices if index in sizes)
    return shapes


def idle_covariances(training: "TrainingStep") -> tuple[Law, ...]:
    """Return the covariances of idle fields with all: the inner products of their vectors over d.

    Of parts of vectors in blocks of the inputs only those in the same block have one, with the variance in that block.
    """
    relaxing = set(map(str, training.relaxing))
    laws = tuple((pair, law) for pair, law in training.idle_overlaps if not relaxing & set(pair))
    if training.parts is None:
        return laws
    variance = training.parts.variance

    def covariance(law: sympy.Lambda) -> sympy.Lambda:
        if len(law.variables) < 4:  # of a field with that of a part, which is one
            return law
        block, _, other, _ = law.variables
        return sympy.Lambda(law.variables, variance(block) * sympy.KroneckerDelta(block, other) * law.expr)

    return tuple((pair, covariance(law)) for pair, law in laws)


def idle_means(training: "TrainingStep") -> tuple[tuple[str, sympy.Lambda], ...]:
    """Return the means of idle fields: their covariances with μ·x, whose own mean is |μ|²."""
    if training.center is None:
        return ()
    (index,) = sympy.symbols("i,", integer=True, positive=True)
    laws, relaxing = dict(training.idle_overlaps), training.relaxing
    return tuple(
        (str(base), sympy.Lambda((index,), overlap_of(base[index], training.center, laws)))
        for base in training.idle
        if base not in relaxing
    )
