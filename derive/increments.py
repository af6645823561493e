"""One step of training as data, and what it does to the Gram matrix.

Every vector of the model moves by a linear map plus a multiple of the fresh input, v_f ← Σ_g A_fg v_g + (F_f/√d) x, or
the mean of such multiples over a batch of fresh inputs; order parameters are the Gram matrix Ω_fg = v_f·v_g/d of those
vectors. Scalars (a second layer) move by an increment over d. From that alone follow the increments, exactly, at every
d. Knows nothing of which function F is, nor of limits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from .moments import Pair

D = sympy.Symbol("d", positive=True, integer=True)
"""Input dimension."""
NORM = sympy.Symbol("chi", positive=True)
"""|x|²/d, the squared length of the input per dimension."""
LENGTH = sympy.IndexedBase("chi", real=True)
"""|x^g|²/d, the same of the part of the input in each block of its covariance."""
NOISE = sympy.Symbol("zeta", real=True)
"""The label noise of the fresh example, N(0, 1), independent of everything."""


@dataclass(frozen=True, slots=True)
class VectorUpdate:
    """v ← keep·v + Σ others + (kick/√d)·x for the vectors of one family; of a batch, the mean of such kicks.

    Attributes
    ----------
    field : sympy.Indexed
        The local field v·x/√d of the vector, whose index is the vector's.
    keep, kick : sympy.Expr
        A and F (the learning rate included).
    mean : sympy.Expr
        The mean of the field where the network adds a bias to v·x/√d and calls the sum its field.
    others : tuple of (sympy.Indexed, sympy.Expr)
        The vectors of other families that are added, by their fields, and their factors: a momentum buffer.
    block : sympy.Symbol or None
        Of what x stands for, if that is only the part of the input in a block of its covariance.
    length : tuple of sympy.Expr
        The terms of |x|²/d; those of a standard normal input if empty.
    """

    field: sympy.Indexed
    keep: sympy.Expr
    kick: sympy.Expr
    mean: sympy.Expr = sympy.S.Zero
    others: tuple[tuple[sympy.Indexed, sympy.Expr], ...] = ()
    block: sympy.Symbol | None = None
    length: tuple[sympy.Expr, ...] = ()

    @property
    def linear(self) -> tuple[tuple[sympy.Indexed, sympy.Expr, sympy.Expr], ...]:
        """The linear part: field, factor and mean of each vector in it."""
        own = ((self.field, self.keep, self.mean),) if self.keep != 0 else ()
        return own + tuple((field, factor, sympy.S.Zero) for field, factor in self.others)


@dataclass(frozen=True, slots=True)
class ScalarUpdate:
    """a ← keep·a + added + kick/d for a scalar parameter of each unit.

    Attributes
    ----------
    scalar : sympy.Indexed
        The order parameter.
    keep, kick : sympy.Expr
        As of a vector.
    added : sympy.Expr
        What a momentum buffer, a scalar too, adds.
    size : sympy.Expr
        How large a itself is where ``scalar`` is one: 1/d of a buffer that holds a few kicks.
    """

    scalar: sympy.Indexed
    keep: sympy.Expr
    kick: sympy.Expr
    added: sympy.Expr = sympy.S.Zero
    size: sympy.Expr = sympy.S.One


def gram_increment(
    f: VectorUpdate,
    g: VectorUpdate,
    covariance: Mapping[tuple[str, str], sympy.Lambda],
    batch: sympy.Expr = sympy.S.One,
) -> sympy.Expr:
    """Return d·ΔΩ_fg of one step on ``batch`` fresh examples, exactly.

    The updated vectors are combinations of old ones and of inputs, whose inner products are v_f·v_g = dΩ_fg, v_f·x =
    √d h_f and x·x = d·χ: the increment is bilinear. Source: Saad & Solla 1995, whose equations are its average.

    Of the b² pairs of examples that two means over a batch multiply, b are of an example with itself, and leave 1/b of
    what one example does; the others are of independent examples, each pair with the same law, and stand as a
    :class:`.moments.Pair` of weight 1 − 1/b. All other terms are linear in the example, and their mean is that of one.
    """
    old = [
        (one * two, overlap_of(u, v, covariance)) for u, one, _ in f.linear for v, two, _ in g.linear if one * two != 0
    ]
    along = [(factor * g.kick, field - mean) for field, factor, mean in f.linear]
    along += [(factor * f.kick, field - mean) for field, factor, mean in g.linear]
    parts = [D * factor * overlap for factor, overlap in old] + [-D * overlap_of(f.field, g.field, covariance)]
    parts += [sympy.Mul(*pair) for pair in along]
    of_block = () if f.block is None else (f.block,)
    lengths = f.length or (LENGTH[of_block] if of_block else NORM,)
    parts += [length * f.kick * g.kick / batch for length in lengths]
    if batch != 1 and f.kick * g.kick != 0:
        parts.append((1 - 1 / batch) / D * Pair(f.kick, g.kick, *of_block))
    return sympy.Add(*parts)


def scalar_increment(update: ScalarUpdate) -> sympy.Expr:
    """Return d·Δa of one step, exactly."""
    return D * (update.keep - 1) * update.size * update.scalar + D * update.added + update.kick


def overlap_of(f: sympy.Indexed, g: sympy.Indexed, covariance: Mapping[tuple[str, str], sympy.Lambda]) -> sympy.Expr:
    """Return the covariance of two local fields in terms of the order parameters."""
    families = (str(f.base), str(g.base))
    if families in covariance:
        return covariance[families](*f.indices, *g.indices)
    return covariance[families[::-1]](*g.indices, *f.indices)
