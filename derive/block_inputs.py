"""Gaussian inputs whose covariance has a few eigenvalues: the same training step, seen block by block.

With eigenvalue λ_g on a share π_g of all directions, each vector has a part v^g in each block and each input a part
x^g. One Gram matrix a block, Ω_g = v^g·w^g/d, takes the place of one of all; fields are h = Σ_g v^g·x^g/√d, so that

    Cov(h_f, h_g) = Σ_g λ_g Ω_g,fg.

A part moves as its vector does, v^g ← A v^g + (F/√d) x^g. Its own field u = v^g·x^g/√d is one on which F does not
depend, and by Stein's lemma E[F u_f] = Σ_e E[∂F/∂h_e] λ_g Ω_g,ef; the length is |x^g|²/d → π_g λ_g. That is all there
is to it: equations come from the same increments. Knows nothing of activations, losses or limits.

Sources: Yoshida & Okada, NeurIPS 2019 (inputs with covariance, a Gram matrix for each power of it); Goldt et al.,
Phys. Rev. X 10, 041044 (2020), for whom blocks are of one eigenvalue each.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy

from .dynamics import Quantity
from .errors import Described, ModelError
from .increments import VectorUpdate, overlap_of
from .pipeline import TrainingStep

B = sympy.Symbol("B", integer=True, positive=True)
"""The number of blocks."""
BLOCK, OTHER, SUMMED = sympy.symbols("g f c", integer=True, positive=True)
"""The index of a block in equations, that of another block, and the one that covariances are summed over."""
VARIANCE = Quantity(
    "input_variance", (BLOCK,), (B,), r"\lambda", "variance of the inputs in each block", minimum=0.0, dims=("block",)
)
SHARE = Quantity(
    "input_share", (BLOCK,), (B,), r"\pi", "share of the d directions in each block", minimum=0.0, dims=("block",)
)
SHARES_ADD_UP = 1e-9
"""How far from 1 the sum of shares may be: a few printed digits are no share."""
Law = tuple[tuple[str, str], sympy.Lambda]


@dataclass(frozen=True, slots=True)
class Parts:
    """What averages need to know of the parts of an input.

    Attributes
    ----------
    length : Lambda
        The mean of |x^g|²/d, by block.
    variance : Lambda
        λ_g, by block.
    overlaps : tuple of ((str, str), Lambda)
        For two fields, by block and their indices, the inner product of the gradients E[∂h_f x^g] and E[∂h_g x^g]: λ_g²
        times that of their vectors within the block, over d.
    """

    length: sympy.Lambda
    variance: sympy.Lambda
    overlaps: tuple[Law, ...]

    def overlap(self, block: sympy.Expr) -> Callable[[sympy.Indexed, sympy.Indexed], sympy.Expr]:
        """Return the inner products of gradients within one block, as a function of two fields."""
        laws = {
            pair: sympy.Lambda(law.variables[1:], law.expr.xreplace({law.variables[0]: block}))
            for pair, law in self.overlaps
        }
        return lambda f, g: overlap_of(f, g, laws)

    def covariance(self, block: sympy.Expr) -> Callable[[sympy.Indexed, sympy.Indexed], sympy.Expr]:
        """Return what one block adds to the covariance of two fields, λ_g Ω_g."""
        within = self.overlap(block)
        return lambda f, g: within(f, g) / self.variance(block)


def on_blocks(step: TrainingStep) -> TrainingStep:
    """Return the training step of the same model on inputs whose covariance has blocks.

    Every overlap of two vectors becomes one of their parts in each block, with the block as first index; what is
    stated of the fields themselves (the loss, the second layer, observables) stays as it is.
    """
    moving = [q for q, *_ in (*step.overlaps, *step.fast)]
    split = {q.name for q in moving} | _overlap_parameters(step)
    noiseless = step.covariance if step.noiseless is None else step.noiseless
    within = {pair: _each_entry(law, split, _of_block) for pair, law in (*noiseless, *step.idle_overlaps)}
    return replace(
        step,
        title=f"{step.title}, inputs in blocks",
        covariance=tuple((pair, _each_entry(law, split, _summed)) for pair, law in step.covariance),
        noiseless=tuple((pair, _each_entry(law, split, _summed)) for pair, law in noiseless),
        overlaps=tuple((_in_blocks(q), _part(f), _part(g)) for q, f, g in step.overlaps),
        fast=tuple((_in_blocks(q), _part(f), _part(g)) for q, f, g in step.fast),
        idle=tuple(map(part_of, _vectors(step))),
        idle_overlaps=tuple(_laws_of_parts(step, within)),
        normalised=tuple(map(part_of, step.normalised)),
        parts=Parts(
            sympy.Lambda((BLOCK,), SHARE.symbol * VARIANCE.symbol),
            sympy.Lambda((BLOCK,), VARIANCE.symbol),
            tuple(_with_block(pair, law) for pair, law in within.items()),
        ),
        parameters=(
            *(_in_blocks(q) if q.name in split else q for q in step.parameters),
            VARIANCE,
            SHARE,
        ),
        formulas=tuple((q, _entries(expr, split, _total)) for q, expr in step.formulas),
        assumptions=(
            "inputs x ~ N(0, Σ), Σ with eigenvalue λ_g on a share π_g of the d directions, independent of each other "
            "and each seen once (one-pass SGD)",
            *step.assumptions[1:],
        ),
    )


def check_blocks(values: Mapping[str, Any]) -> None:
    """Refuse shares that do not add up to 1, and blocks of overlaps that are not symmetric; leading axes are members.

    Raises
    ------
    ModelError
    """
    total = values[SHARE.name].sum(axis=-1)
    if (abs(total - 1) > SHARES_ADD_UP).any():
        accepted = "shares that add up to 1: the blocks are all of the d directions"
        raise ModelError(f"params[{SHARE.name!r}]", values[SHARE.name], accepted)
    for place, name in (("y0", "Q"), ("y0", "V"), ("params", "T")):
        if name not in values:
            continue
        array = values[name]
        if (abs(array).max(axis=(-2, -1))[values[SHARE.name] == 0] > 0).any():
            raise ModelError(f"{place}[{name!r}]", array.tolist(), "no overlaps in a block without directions")
        apart = abs(array - array.swapaxes(-1, -2)).max()
        if apart > 1e-12 * abs(array).max(initial=0.0):
            given = Described(f"array of shape {array.shape}, up to {apart:.3g} from its transpose")
            raise ModelError(f"{place}[{name!r}]", given, "a symmetric matrix for each block")


def part_of(base: sympy.IndexedBase) -> sympy.IndexedBase:
    """Return the fields v^g·x^g/√d of the parts of a family's vectors, whose first index is the block."""
    return sympy.IndexedBase({"h": "u", "h_star": "u_star"}.get(str(base), f"{base}_part"), real=True)


def _part(update: VectorUpdate) -> VectorUpdate:
    """Return the update of a vector's part in a block: the bias of its field belongs to no block."""

    def of(field: sympy.Indexed) -> sympy.Indexed:
        return part_of(field.base)[(BLOCK, *field.indices)]

    others = tuple((of(field), factor) for field, factor in update.others)
    return replace(update, field=of(update.field), mean=sympy.S.Zero, others=others, block=BLOCK)


def _in_blocks(q: Quantity) -> Quantity:
    """Return a matrix of overlaps as one matrix a block. It is stored in full, symmetric or not."""
    return replace(
        q,
        indices=(BLOCK, *q.indices),
        shape=(B, *q.shape),
        meaning=f"{q.meaning}, of the parts in each block",
        symmetric=False,
        dims=("block", *q.dims),
    )


def _overlap_parameters(step: TrainingStep) -> set[str]:
    """Return the parameters that are overlaps of vectors: all of which the covariances of plain fields consist."""
    families = {str(family.base) for family in step.families if not family.derived}
    laws = [law for pair, law in step.covariance if families.issuperset(pair)]
    entries = {str(e.base) for law in laws for e in law.expr.atoms(sympy.Indexed)}
    return entries & {q.name for q in step.parameters}


def _vectors(step: TrainingStep) -> tuple[sympy.IndexedBase, ...]:
    """Return the fields of all vectors: those of the network and of momentum buffers."""
    return (*(family.base for family in step.families if not family.derived), *step.idle)


def _laws_of_parts(step: TrainingStep, within: Mapping[tuple[str, str], sympy.Lambda]) -> Iterator[Law]:
    """Yield the covariance of each field with the field of each part, and the inner products of any two parts."""
    vectors = _vectors(step)
    i, k = sympy.symbols("i k", integer=True, positive=True)
    for f in (family.base for family in step.families):
        for g in vectors:
            law = VARIANCE.symbol * overlap_of(f[i], g[k], within)
            yield (str(f), str(part_of(g))), sympy.Lambda((i, BLOCK, k), law)
    for n, f in enumerate(vectors):
        for g in vectors[n:]:
            law = overlap_of(f[i], g[k], within)
            yield (str(part_of(f)), str(part_of(g))), sympy.Lambda((BLOCK, i, OTHER, k), law)


def _with_block(pair: tuple[str, str], law: sympy.Lambda) -> Law:
    return pair, sympy.Lambda((BLOCK, *law.variables), VARIANCE.symbol**2 * law.expr)


def _each_entry(law: sympy.Lambda, names: set[str], change: Callable[[sympy.Indexed], sympy.Expr]) -> sympy.Lambda:
    return sympy.Lambda(law.variables, _entries(law.expr, names, change))


def _entries(expr: sympy.Expr, names: set[str], change: Callable[[sympy.Indexed], sympy.Expr]) -> sympy.Expr:
    """Return an expression with the entries of some matrices replaced."""
    return expr.xreplace({e: change(e) for e in expr.atoms(sympy.Indexed) if str(e.base) in names})


def _of_block(entry: sympy.Indexed) -> sympy.Expr:
    return entry.base[(BLOCK, *entry.indices)]


def _summed(entry: sympy.Indexed) -> sympy.Expr:
    """Return Σ_g λ_g Ω_g,fg, the covariance of two fields."""
    return sympy.Sum(VARIANCE.base[SUMMED] * entry.base[(SUMMED, *entry.indices)], (SUMMED, 1, B))


def _total(entry: sympy.Indexed) -> sympy.Expr:
    """Return Σ_g Ω_g,fg, the inner product of two vectors over d."""
    return sympy.Sum(entry.base[(SUMMED, *entry.indices)], (SUMMED, 1, B))
