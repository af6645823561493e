"""Where solutions are sound as numbers and misleading as physics: one warning for the ensemble, with counts.

What is warned of, and why, is said in :mod:`effdyn.solve.hazards`.
"""

import warnings
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from effdyn.derive import Dynamics

from ..hazards import RESOLUTION, BelowResolution, SymmetricStart
from .inputs import Batch

if TYPE_CHECKING:
    import xarray as xr


def warn_of_symmetry(dynamics: Dynamics, batch: Batch, stacklevel: int = 3) -> None:
    """Warn of members in which two students start exactly alike."""
    alike = _alike(dynamics, batch)
    if alike.any():
        warnings.warn(
            f"in {alike.sum()} of {alike.size} members, first member {int(np.argmax(alike))}, two students start "
            "exactly alike: they stay so in the exact solution, and part in a computed one, if at all, by rounding; "
            "make them differ, by 1e-9 or more, if they are to specialise",
            SymmetricStart,
            stacklevel=stacklevel,
        )


def _alike(dynamics: Dynamics, batch: Batch) -> np.ndarray:
    """Return (N,) whether some exchange of two students changes neither state nor parameters."""
    alike = np.zeros(len(batch.y0), dtype=bool)
    sizes = [q.shape[0] for q in dynamics.states if q.dims[:1] == ("student",)]
    if not sizes:
        return alike
    given = {name: value[None] for name, value in {**batch.common.params, **batch.common.y0}.items()} | batch.varying
    quantities = [q for q in (*dynamics.states, *dynamics.parameters) if sizes[0] in q.shape]
    arrays = [(given[q.name], [1 + n for n, size in enumerate(q.shape) if size == sizes[0]]) for q in quantities]
    for i, j in combinations(range(batch.common.sizes[str(sizes[0])]), 2):
        same = np.ones(len(alike), dtype=bool)
        for values, axes in arrays:
            same &= _same(values, axes, i, j)
            if not same.any():
                break
        alike |= same
    return alike


def _same(values: np.ndarray, axes: list[int], i: int, j: int) -> np.ndarray:
    """Return, by member, whether exchanging i and j along these axes leaves an array as it is.

    What stands at i along one axis must equal, after the exchange along the others, what stands at j.
    """
    order = np.arange(values.shape[axes[0]])
    order[[i, j]] = j, i
    same = np.ones(len(values), dtype=bool)
    for axis in axes:
        at_i, at_j = np.take(values, [i], axis), np.take(values, [j], axis)
        for other in (a for a in axes if a != axis):
            at_i = np.take(at_i, order, other)
        same &= (at_i == at_j).all(axis=tuple(range(1, values.ndim)))
    return same


def flag_below_resolution(solution: "xr.Dataset", rtol: float, atol: float, stacklevel: int = 3) -> None:
    """State in ``attrs["eg_resolution"]`` a bound of the errors of ``eg``, and warn of members negative within it."""
    if "eg" not in solution or solution.eg.dims != ("member", "t"):
        return
    resolution, negative = _resolved(solution.eg.values, rtol, atol)
    solution.attrs["eg_resolution"] = float(resolution.max())
    if negative.any():
        warnings.warn(
            f"eg is below its resolution, about {resolution.min():.0e} at rtol = {rtol:g}, and negative at some times "
            f"of {negative.sum()} of {negative.size} members, first member {int(np.argmax(negative))}; give a smaller "
            "rtol to follow it further",
            BelowResolution,
            stacklevel=stacklevel,
        )


def _resolved(eg: np.ndarray, rtol: float, atol: float) -> tuple[np.ndarray, np.ndarray]:
    """Return, by member, the resolution of (N, T) values, and whether some are negative within it.

    Two passes over the values where all is usual, since the threads are done and the output is large.
    """
    low, high = eg.min(axis=1), eg.max(axis=1)
    resolution = RESOLUTION * (rtol * np.maximum(np.maximum(high, -low), 1.0) + atol)
    negative = (low < 0) & (low >= -resolution)
    unusual = np.flatnonzero(~np.isfinite(low) | ~np.isfinite(high) | (low < -resolution))
    if unusual.size:
        rows = eg[unusual]
        largest = np.max(np.abs(rows), axis=1, initial=1.0, where=np.isfinite(rows))
        resolution[unusual] = RESOLUTION * (rtol * largest + atol)
        negative[unusual] = ((rows < 0) & (rows >= -resolution[unusual, None])).any(axis=1)
    return resolution, negative
