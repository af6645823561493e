"""One step of training as data, and what it does to the Gram matrix.

Every vector of the model moves by a multiple of itself plus a multiple of the fresh input, v ← A v + (F/√d) x; order
parameters are the Gram matrix Ω_fg = v_f·v_g/d of those vectors. Scalars (a second layer) move by an increment over d.
From that alone follow the increments, exactly, at every d. Knows nothing of which function F is, nor of limits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

D = sympy.Symbol("d", positive=True, integer=True)
"""Input dimension."""
NORM = sympy.Symbol("chi", positive=True)
"""|x|²/d, the squared length of the input per dimension."""
NOISE = sympy.Symbol("zeta", real=True)
"""The label noise of the fresh example, N(0, 1), independent of everything."""


@dataclass(frozen=True, slots=True)
class VectorUpdate:
    """v ← keep·v + (kick/√d)·x for the vectors of one family.

    Attributes
    ----------
    field : sympy.Indexed
        The local field v·x/√d of the vector, whose index is the vector's.
    keep, kick : sympy.Expr
        A and F (the learning rate included).
    mean : sympy.Expr
        The mean of the field where the network adds a bias to v·x/√d and calls the sum its field.
    """

    field: sympy.Indexed
    keep: sympy.Expr
    kick: sympy.Expr
    mean: sympy.Expr = sympy.S.Zero


@dataclass(frozen=True, slots=True)
class ScalarUpdate:
    """a ← keep·a + kick/d for a scalar parameter of each unit."""

    scalar: sympy.Indexed
    keep: sympy.Expr
    kick: sympy.Expr


def gram_increment(f: VectorUpdate, g: VectorUpdate, overlap: sympy.Expr) -> sympy.Expr:
    """Return d·ΔΩ_fg of one step, exactly.

    The updated vectors are combinations of v_f, v_g and x, whose inner products are v_f·v_g = dΩ_fg, v_f·x = √d h_f and
    x·x = d·χ: the increment is bilinear. Source: Saad & Solla 1995, whose equations are its average.
    """
    combination_f = {"v_f": f.keep, "x": f.kick / sympy.sqrt(D)}
    combination_g = {"v_g": g.keep, "x": g.kick / sympy.sqrt(D)}
    inner = {
        ("v_f", "v_g"): D * overlap,
        ("v_f", "x"): sympy.sqrt(D) * (f.field - f.mean),
        ("x", "v_g"): sympy.sqrt(D) * (g.field - g.mean),
        ("x", "x"): D * NORM,
    }
    after = sum(a * b * inner[u, v] for u, a in combination_f.items() for v, b in combination_g.items()) / D
    return sympy.Add(*(D * part for part in sympy.Add.make_args(sympy.expand(after - overlap, deep=False))))


def scalar_increment(update: ScalarUpdate) -> sympy.Expr:
    """Return d·Δa of one step, exactly."""
    return D * (update.keep - 1) * update.scalar + update.kick


def overlap_of(f: sympy.Indexed, g: sympy.Indexed, covariance: Mapping[tuple[str, str], sympy.Lambda]) -> sympy.Expr:
    """Return the covariance of two local fields in terms of the order parameters."""
    families = (str(f.base), str(g.base))
    if families in covariance:
        return covariance[families](f.indices[0], g.indices[0])
    return covariance[families[::-1]](g.indices[0], f.indices[0])
