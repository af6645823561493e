"""The Gram matrix of all vectors, put together of order parameters: whether any vectors have such overlaps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import sympy

from effdyn.derive import Dynamics, FieldFamily

from .fuse import is_plain, is_weighted, overlaps_in

PSD_TOLERANCE = 1e-12
"""Negative eigenvalues of the overlaps that are taken for rounding: this times the largest times the size of the
matrix."""

Arrays = Mapping[str, np.ndarray]
Law = tuple[sympy.Lambda, bool]
"""The covariance of two families of fields, and whether it is to be transposed."""


class HasFields(Protocol):
    """What has local fields and their covariance."""

    @property
    def families(self) -> tuple[FieldFamily, ...]: ...
    @property
    def covariance(self) -> tuple[tuple[tuple[str, str], sympy.Lambda], ...]: ...


def gram_matrix(problem: HasFields, arrays: Arrays) -> np.ndarray | None:
    """Return Ω, the covariance of all local fields, family after family; leading axes of the arrays are kept.

    Of a Dynamics with a ``gram``, that. ``None`` if there are no fields, or their covariance is not made of the order
    parameters by sums of products.
    """
    if isinstance(problem, Dynamics) and problem.gram:
        return _evaluated(problem.gram, arrays)
    return _assembled(gram_laws(problem, whole=True), lambda law: block_of(law, arrays))


def gram_matrices(problem: HasFields, arrays: Arrays) -> np.ndarray | None:
    """Return the overlaps of all vectors in each block of the inputs' covariance, (…, B, N, N), one block if they are
    isotropic; ``None`` where :func:`gram_matrix` is."""
    laws = gram_laws(problem, whole=True)
    if laws and all(is_weighted(law) for row in laws for law, _ in row):
        return _assembled(laws, lambda law: arrays[str(overlaps_in(law))])
    whole = gram_matrix(problem, arrays)
    return None if whole is None else whole[..., None, :, :]


def gram_laws(problem: HasFields, whole: bool = False) -> list[list[Law]]:
    """Return the covariances that make up Ω, block by block; none if there are no fields, or one is not known. Those of
    ``whole`` vectors alone leave out the fields of parts in blocks of the inputs."""
    covariance = dict(problem.covariance)
    families = [str(family.base) for family in problem.families if not (family.derived or (whole and family.shape))]
    rows = []
    for f in families:
        row = [(covariance.get((f, g), covariance.get((g, f))), (f, g) not in covariance) for g in families]
        known = [(law, swap) for law, swap in row if law is not None]
        if len(known) < len(row):
            return []
        rows.append(known)
    return rows


def overlaps_of_fields(problem: HasFields) -> set[str]:
    """Return the names of what the covariances of fields are made of."""
    own = {str(family.base) for family in problem.families if not family.derived}
    laws = [law for pair, law in problem.covariance if own.issuperset(pair)]
    return {
        str(base)
        for law in laws
        for base in ([overlaps_in(law)] if is_weighted(law) else [e.base for e in law.expr.atoms(sympy.Indexed)])
    }


def is_impossible(eigenvalues: np.ndarray) -> np.ndarray:
    """Return whether a matrix of these eigenvalues, in ascending order along the last axis, is that of no vectors."""
    low, high = eigenvalues[..., 0], eigenvalues[..., -1]
    return np.asarray((low < -PSD_TOLERANCE * eigenvalues.shape[-1] * np.maximum(high, 0.0)) | (high < 0))


def _assembled(laws: list[list[Law]], block: Callable[[sympy.Lambda], np.ndarray | None]) -> np.ndarray | None:
    rows = []
    for row in laws:
        known = [(array, swap) for law, swap in row if (array := block(law)) is not None]
        if len(known) < len(row):
            return None
        rows.append([np.swapaxes(array, -1, -2) if swap else array for array, swap in known])
    if not rows:
        return None
    lead = np.broadcast_shapes(*(a.shape[:-2] for row in rows for a in row))
    return np.concatenate(
        [np.concatenate([np.broadcast_to(a, (*lead, *a.shape[-2:])) for a in row], axis=-1) for row in rows], axis=-2
    )


def block_of(law: sympy.Lambda, arrays: Arrays) -> np.ndarray | None:
    """Return the covariance of two families, or the means of one, as an array; ``None`` unless it is a sum of products
    of arrays. An index that occurs nowhere is that of a family of one field."""
    if is_plain(law):
        return arrays[str(law.expr.base)]
    parts = [_product(term, law.variables, arrays) for term in sympy.Add.make_args(law.expr)]
    known = [part for part in parts if part is not None]
    return sum(known[1:], known[0]) if len(known) == len(parts) else None


def _product(term: sympy.Expr, free: Sequence[sympy.Symbol], arrays: Arrays) -> np.ndarray | None:
    """Return a product of arrays, summed over its other indices; KroneckerDelta(i, k) leaves what is on the diagonal.

    An axis along which nothing varies has length 1.
    """
    while isinstance(term, sympy.Sum):
        term = term.function
    factors = [one for f in sympy.Mul.make_args(term) for one in _repeated(f)]
    deltas = [f for f in factors if isinstance(f, sympy.KroneckerDelta)]
    entries = [f for f in factors if str(f.base if isinstance(f, sympy.Indexed) else f) in arrays]
    if len(deltas) + len(entries) < len(factors) or any(set(delta.args) - set(free) for delta in deltas):
        return None
    indices = [f.indices if isinstance(f, sympy.Indexed) else () for f in entries]
    operands = [arrays[str(f.base if isinstance(f, sympy.Indexed) else f)] for f in entries]
    bound = {i for own in indices for i in own}
    unbound = [(i,) for i in free if i not in bound]
    letters = {index: chr(ord("a") + n) for n, index in enumerate({*free, *bound})}
    axes = ["".join(letters[i] for i in own) for own in (*indices, *unbound)]
    out = "".join(letters[i] for i in free)
    subscripts = f"{','.join(f'...{own}' for own in axes)}->...{out}"
    found = np.einsum(subscripts, *operands, *(np.ones(1) for _ in unbound))
    for delta in deltas:
        places = [free.index(i) - len(free) for i in delta.args]
        size = max(found.shape[place] for place in places)
        shape = [size if place - len(free) in places else 1 for place in range(len(free))]
        found = found * np.eye(size).reshape(shape)
    return np.asarray(found)


def _repeated(factor: sympy.Expr) -> tuple[sympy.Expr, ...]:
    """Return a whole power as that many factors."""
    return (
        (factor.base,) * int(factor.exp)
        if isinstance(factor, sympy.Pow) and factor.exp.is_Integer and factor.exp > 0
        else (factor,)
    )


def _evaluated(matrix: tuple[tuple[sympy.Expr, ...], ...], arrays: Arrays) -> np.ndarray:
    """Return a matrix of scalar quantities, which may have leading axes."""
    symbols = sorted({s for row in matrix for entry in row for s in entry.free_symbols}, key=str)
    entries = sympy.lambdify(symbols, [list(row) for row in matrix], "numpy")(*(arrays[str(s)] for s in symbols))
    lead = np.broadcast_shapes(*(np.shape(entry) for row in entries for entry in row))
    return np.stack([np.stack([np.broadcast_to(e, lead) for e in row], axis=-1) for row in entries], axis=-2)
