"""Where a solution is sound as numbers and misleading as physics: what ``integrate`` warns of."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from effdyn.derive import Dynamics

from .kernels.layout import Inputs

if TYPE_CHECKING:
    import xarray as xr

RESOLUTION = 1e4
"""Errors of ``eg`` in units of the tolerance, at most: they are linear in those of the overlaps, which grow by 100
along an escape from a plateau (measured: 1000 is met in sound runs)."""


class SymmetricStart(RuntimeWarning):
    """Two students start exactly alike: the exact solution never tells them apart, a computed one may, by rounding."""


class BelowResolution(RuntimeWarning):
    """A generalisation error was negative, within the error of integration: all that is known there is that it is
    small."""


Heard = list[tuple[type[Warning], str]]
_listener: ContextVar[Heard | None] = ContextVar("_listener", default=None)
"""Of this thread alone, as filters of warnings are not."""


@contextmanager
def heard() -> Iterator[Heard]:
    """Collect what would be warned of here, for a caller of many integrations that has one warning for all."""
    found: Heard = []
    token = _listener.set(found)
    try:
        yield found
    finally:
        _listener.reset(token)


def _warn(text: str, category: type[Warning], stacklevel: int) -> None:
    found = _listener.get()
    if found is None:
        warnings.warn(text, category, stacklevel=stacklevel + 1)
    else:
        found.append((category, text))


def warn_of_symmetry(dynamics: Dynamics, inputs: Inputs, stacklevel: int = 3) -> None:
    """Warn, with :class:`SymmetricStart`, of students whose exchange changes neither state nor parameters."""
    sizes = [q.shape[0] for q in dynamics.states if q.dims[:1] == ("student",)]
    if not sizes:
        return
    arrays = [(q, np.asarray(inputs.y0[q.name])) for q in dynamics.states]
    arrays += [(q, np.asarray(inputs.params[q.name])) for q in dynamics.parameters if q.name in inputs.params]
    axes = [(values, [n for n, size in enumerate(q.shape) if size == sizes[0]]) for q, values in arrays]
    for i, j in combinations(range(inputs.sizes[str(sizes[0])]), 2):
        if all(_same(values, along, i, j) for values, along in axes):
            _warn(
                f"students {i + 1} and {j + 1} start exactly alike: they stay so in the exact solution, and part in a "
                "computed one, if at all, by rounding; make them differ, by 1e-9 or more, if they are to specialise",
                SymmetricStart,
                stacklevel,
            )
            return


def _same(values: np.ndarray, axes: list[int], i: int, j: int) -> bool:
    """Return whether exchanging i and j along these axes leaves an array as it is."""
    exchanged = values
    for axis in axes:
        order = np.arange(values.shape[axis])
        order[[i, j]] = j, i
        exchanged = np.take(exchanged, order, axis)
    return np.array_equal(exchanged, values)


def flag_below_resolution(solution: "xr.Dataset", rtol: float, atol: float, stacklevel: int = 3) -> None:
    """State in ``attrs["eg_resolution"]`` a bound of the error of ``eg``, and warn where it is negative within that.

    The values are left as they are: clipped, or put to NaN, they could not be compared with a simulation, whose error
    is larger by far. Values beyond the bound are no matter of resolution, hence not warned of here.
    """
    if "eg" not in solution or solution.eg.dims != ("t",) or not solution.sizes["t"]:
        return
    eg = solution.eg.values
    scale = max(1.0, float(np.nanmax(np.abs(eg)))) if np.isfinite(eg).any() else 1.0
    resolution = RESOLUTION * (rtol * scale + atol)
    solution.attrs["eg_resolution"] = resolution
    negative = (eg < 0) & (eg >= -resolution)
    if not negative.any():
        return
    _warn(
        f"eg is below its resolution, {resolution:.0e} at rtol = {rtol:g}, and negative there, first at t = "
        f"{float(solution.t.values[negative][0]):.6g}: take such values for zero, or give a smaller rtol",
        BelowResolution,
        stacklevel,
    )
