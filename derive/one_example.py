"""What one step on one example does to the order parameters at order one: increments as functions of its local fields.

Fields on which nothing depends, of momentum buffers and of parts of vectors, come last: increments are linear in them.
Knows nothing of averages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sympy

from .averages import LABEL, rename_bound
from .block_inputs import part_of
from .dynamics import Dynamics, Equation, FieldFamily, Quantity
from .idle_fields import idle_families, idle_shapes
from .increments import LENGTH, NOISE, NORM, D, VectorUpdate
from .moments import Value
from .plain_steps import remembered_kicks, slow_increments, slow_kick, stretched_increments, without_buffers
from .projection import Increments, curvature, project, squares_of

if TYPE_CHECKING:
    from .pipeline import TrainingStep

Remembered = tuple[sympy.Expr, sympy.Expr]
NOTHING: Remembered = (sympy.S.Zero, sympy.S.Zero)
PROBABILITY = Quantity("probability", latex="p", meaning="probability of the label given the fields")


@dataclass(frozen=True, slots=True)
class Kicks:
    """The functions F by which an example moves vectors, v ← … + (F/√d) x, and the products of two in each state.

    By them what |x|² and pairs of examples add to mean increments at order 1/d are averages over the standard normal
    variables z of which the fields are made, h = m + L z with L Lᵀ = Ω (Stein's lemma): 2 ∂_s E_{sΩ}[G] =
    E[(|z|² − N) G], and of two independent examples of a batch E[∇F]ᵀ Ω E[∇G] = E[F z]·E[G z]. No derivative is taken,
    so that F may have kinks and jumps. Where inputs are not isotropic:

    * With a mean μ, |x|² has 2μ·x − |μ|² besides, linear in z and a rest of mean zero; and E[F x] has E[F] μ, so that
      to E[F z] is added E[F] l, where μ·x = |μ|² + l·z, z now of all fields, the idle ones too.
    * In blocks E[∇F] = L⁻ᵀ E[F z] itself is needed: with λ_g Ω_g the part of Ω from one block, and y = L⁻ᵀ z,
      E[(|x_g|² − E|x_g|²) G] = λ_g E[(yᵀ λ_g Ω_g y − tr L⁻¹ λ_g Ω_g L⁻ᵀ) G], and pairs have E[∇F]ᵀ λ_g² Ω_g E[∇G].

    Attributes
    ----------
    quantities : list of (Quantity, Expr)
        Each kick, as an observable.
    pairs : tuple of (int, int) or None
        For each state, which two of them its increment multiplies, with its own indices; None if it multiplies none.
    remembered : tuple of ((Expr, Expr), (Expr, Expr))
        For each state, what buffers that relax within a few steps add, by either vector: how often pairs of examples of
        different steps do what those of one step do, and how often one of them meets itself
        (:func:`.plain_steps.remembered_kicks`).
    squares : tuple of (str or None, str or None)
        For each state, of which overlaps the diagonal holds the squared length of either vector, if lengths are held.
    center : str or None
        The field μ·x of the mean of the inputs, if they have one.
    parts : tuple of str
        The fields of the parts in blocks of the inputs, one family for each that functions depend on; none if
        inputs have no blocks.
    """

    quantities: tuple[tuple[Quantity, sympy.Expr], ...]
    pairs: tuple[tuple[int, int] | None, ...]
    remembered: tuple[tuple[Remembered, Remembered], ...]
    squares: tuple[tuple[str | None, str | None], ...]
    center: str | None = None
    parts: tuple[str, ...] = ()


def kicks_of(training: "TrainingStep") -> Kicks:
    """Return the kicks of order one of an update rule, of vectors; parts of vectors in blocks have theirs."""
    updates = {u.field.base: (u, size) for q, *both in training.overlaps for u, size in _with_sizes(q, both)}
    kicks = {base: (u, size, of_order_one(slow_kick(u, training))) for base, (u, size) in updates.items()}
    moving = {base: found for base, found in kicks.items() if found[2] != 0}
    quantities = tuple(
        (Quantity(f"kick_{base}", u.field.indices[-1:], (size,), f"F_{base}", "kick"), kick)
        for base, (u, size, kick) in moving.items()
    )
    number = {base: n for n, base in enumerate(moving)}
    pairs = [
        (number[f.field.base], number[g.field.base]) if {f.field.base, g.field.base} <= set(number) else None
        for _, f, g in training.overlaps
    ]
    return Kicks(
        quantities,
        (*pairs, *(None for _ in training.scalars)),
        (
            *((remembered_kicks(f, training), remembered_kicks(g, training)) for _, f, g in training.overlaps),
            *((NOTHING, NOTHING) for _ in training.scalars),
        ),
        squares_of(training),
        None if training.center is None else str(training.center.base),
        tuple(str(part_of(f.base)) for f in training.families if not f.derived) if training.parts else (),
    )


def _with_sizes(q: Quantity, updates: Sequence[VectorUpdate]) -> list[tuple[VectorUpdate, sympy.Expr]]:
    """Return the updates behind an entry of the Gram matrix, each with the number of its vectors."""
    sizes = dict(zip(q.indices, q.shape, strict=True))
    return [(u, sizes.get(u.field.indices[-1], sympy.S.One)) for u in updates]


def diffusion(dynamics: Dynamics, training: "TrainingStep", kicks: Kicks | None = None) -> Dynamics:
    """Return d times the increments of a step on one example, whose covariance over it is the diffusion matrix D.

    Of a batch of b they are the mean over examples of these increments, their terms quadratic in the gradient divided
    by b: what two examples add together is of mean zero but for 1/d, and of variance 1/d. So D is the covariance over
    one example divided by b.

    Returns
    -------
    Dynamics
        Its states are the local fields and the label noise ``zeta``; fields are normal, noise is N(0, 1). A label ±1
        is one state more, ``y_sign``. Its observables are the increments X, named as the states of ``dynamics``; |x|²/d
        is 1 at this order. Then, of labels ±1, the ``probability`` of ``y_sign`` given the fields; with ``kicks`` what
        of each X of a free step multiplies |x|²/d, and the kicks; where lengths are held, the terms that rescaling
        adds to c, quadratic in X, named as the states and ``_rescaled``. Its parameters are the states, then the
        parameters, of ``dynamics``.
    """
    fields = _fields(dynamics, training)
    noise = Quantity(NOISE.name, latex=r"\zeta", meaning="label noise over its standard deviation")
    label = [Quantity(LABEL.name, latex="y", meaning="the label")] if training.label is not None else []
    return Dynamics(
        f"{dynamics.title}: increments of one step",
        "ode",
        dynamics.clock,
        tuple(Equation(q, sympy.S.Zero) for q in (*fields, noise, *label)),
        dynamics.states + dynamics.parameters,
        tuple(Equation(q, training.timed(_in_fields(e, q, training))) for q, e in _observed(training, kicks)),
    )


def _observed(training: "TrainingStep", kicks: Kicks | None) -> Increments:
    """Return the increments X at order one, and what else of an example is averaged."""
    free = _free_increments(training)
    found = project(free, training)
    if training.label is not None:
        found.append((PROBABILITY, (1 + LABEL * training.label) / 2))
    if kicks is not None:
        stretched = [(q, of_order_one(expr)) for q, expr in stretched_increments(training)]
        found += [(_stretched(q), expr) for q, expr in stretched]
        found += kicks.quantities
    if training.normalised:
        found += [(replace(q, name=f"{q.name}_rescaled"), expr) for q, expr in curvature(free, training)]
    return found


def increments(training: "TrainingStep") -> Increments:
    """Return the increments X of a step on one example at order one, of overlaps that buffers do not move."""
    return project(_free_increments(training), training)


def _free_increments(training: "TrainingStep") -> Increments:
    """Return those of a step after which no vector is rescaled."""
    return [(q, without_buffers(_leading(expr, training), training)) for q, expr in slow_increments(training)]


def _stretched(q: Quantity) -> Quantity:
    return replace(q, name=f"{q.name}_stretched", latex="", meaning=f"what multiplies |x|²/d in the increment of {q}")


def _leading(increment: sympy.Expr, training: "TrainingStep") -> sympy.Expr:
    """Return an increment to order one, where |x|²/d does not fluctuate, nor that of the part in a block."""
    lengths = (
        {e: training.parts.length(*e.indices) for e in increment.atoms(sympy.Indexed) if e.base == LENGTH}
        if training.parts
        else {}
    )
    return of_order_one(increment.xreplace({NORM: sympy.S.One, **lengths}))


def of_order_one(increment: sympy.Expr) -> sympy.Expr:
    """Return what of d·ΔΩ is of order one. What is of order d cancels: a vector that stays is still there."""
    parts = (part.as_independent(D, as_Add=False) for part in sympy.Add.make_args(increment))
    return sympy.Add(*(rest * sympy.expand(power).coeff(D, 0) for rest, power in parts))


def _in_fields(expr: sympy.Expr, q: Quantity, training: "TrainingStep") -> sympy.Expr:
    """Return an expression in the fields of weight vectors and the label noise alone."""
    alone = {} if training.center is None else {training.center: Quantity(str(training.center.base)).symbol}
    functions = expr.replace(Value, lambda univariate, field: univariate.function(field))
    return rename_bound(functions.xreplace(dict(training.written_out)), q.indices).xreplace(alone)


def _fields(dynamics: Dynamics, training: "TrainingStep") -> list[Quantity]:
    """Return the fields of an example, those on which nothing depends last."""
    shapes = idle_shapes(training)
    families = (*active_families(dynamics), *idle_families(training))
    sizes = [shapes[f.base] if f.base in training.idle else (f.size,) for f in families]
    return [
        Quantity(str(f.base), tuple(map(_index, shape)), shape, f.latex, "local fields")
        for f, shape in zip(families, sizes, strict=True)
    ]


def active_families(dynamics: Dynamics) -> tuple[FieldFamily, ...]:
    """Return the families of fields on which functions depend."""
    return tuple(f for f in dynamics.families if not f.derived)


def _index(size: sympy.Expr) -> sympy.Symbol:
    return sympy.Symbol(f"f_{size}", integer=True, positive=True)
