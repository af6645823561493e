"""The law of the local fields of a fresh example: their covariance and means, which are affine in the states.

Overlaps are covariances, biases and overlaps with the inputs' mean are means, at most with constant factors. So the law
is one matrix, read off once by arrays; compiled code needs no more. Knows nothing of which models have which fields.
"""

from collections.abc import Mapping

import numpy as np
import sympy

from effdyn.derive import FieldFamily, ModelError
from effdyn.derive.fluctuations import Fluctuations

from ..kernels.gram import Arrays, block_of, gram_laws
from ..kernels.layout import Inputs, packed_length, unpack


def field_law(theory: Fluctuations, inputs: Inputs) -> np.ndarray:
    """Return the coefficients of covariance and means of all fields, shape (N² + N, n + 1).

    A row for each entry of the covariance, row by row, then for each mean; a column for each of the n packed states,
    then the constant.
    """
    states = theory.dynamics.states
    n = sum(packed_length(q, inputs.sizes) for q in states)
    corners = np.vstack([np.eye(n), np.zeros(n)])
    arrays = inputs.params | unpack(states, corners, inputs.sizes)
    covariance, mean = covariance_of(theory, arrays, inputs.sizes), means_of(theory, arrays, inputs.sizes)
    lead = (n + 1,)
    covariance, mean = (np.broadcast_to(a, lead + a.shape[-k:]) for a, k in ((covariance, 2), (mean, 1)))
    values = np.concatenate([covariance.reshape(n + 1, -1), mean], axis=1)
    values[:-1] -= values[-1]
    return values.T


def field_count(theory: Fluctuations, inputs: Inputs) -> int:
    """Return the number N of fields."""
    return sum(family_size(family, inputs.sizes) for family in theory.families)


def covariance_of(theory: Fluctuations, arrays: Arrays, sizes: Mapping[str, int]) -> np.ndarray:
    """Return the covariance of the fields, (…, N, N), those on which functions depend first.

    Raises
    ------
    ModelError
        If it is not made of order parameters by sums of products.
    """
    counts = [family_size(family, sizes) for family in theory.families]
    rows = []
    for height, row in zip(counts, gram_laws(theory), strict=True):
        blocks = []
        for width, (law, swap) in zip(counts, row, strict=True):
            shape = (width, height) if swap else (height, width)
            block = _reshaped(block_of(law, arrays), len(law.variables), shape, theory)
            blocks.append(np.swapaxes(block, -1, -2) if swap else block)
        rows.append(_side_by_side(blocks, -1, 2))
    return _side_by_side(rows, -2, 2)


def means_of(theory: Fluctuations, arrays: Arrays, sizes: Mapping[str, int]) -> np.ndarray:
    """Return the means of the fields, (…, N)."""
    laws = dict(theory.mean)
    parts = []
    for family in theory.families:
        count, law = family_size(family, sizes), laws.get(str(family.base))
        parts.append(np.zeros(count) if law is None else _reshaped(block_of(law, arrays), 1, (count,), theory))
    return _side_by_side(parts, -1, 1)


def family_size(family: FieldFamily, sizes: Mapping[str, int]) -> int:
    """Return the number of fields of a family."""
    size = sympy.sympify(family.size)
    return int(size.subs({s: sizes[str(s)] for s in size.free_symbols}))


def _reshaped(found: np.ndarray | None, axes: int, shape: tuple[int, ...], theory: Fluctuations) -> np.ndarray:
    """Return an array with its last axes, one an index, as those of whole families."""
    if found is None:
        raise ModelError("dynamics", theory.dynamics.title, "fields whose law is made of the order parameters")
    return found.reshape(*found.shape[: found.ndim - axes], *shape)


def _side_by_side(parts: list[np.ndarray], axis: int, own: int) -> np.ndarray:
    """Return arrays joined along an axis, those before the last ``own`` broadcast."""
    lead = np.broadcast_shapes(*(part.shape[: part.ndim - own] for part in parts))
    return np.concatenate([np.broadcast_to(part, lead + part.shape[part.ndim - own :]) for part in parts], axis=axis)
