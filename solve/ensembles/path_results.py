"""Paths of many members, or their moments over runs, as a labelled dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics

from ..kernels.layout import unpack
from ..results import variable
from ..stochastic.replicas import Failure, Plan
from ..stochastic.steps import NOT_FINITE, NOT_PSD
from .inputs import Batch
from .paths import Averages, Runs
from .stated import member_coords, quantities

if TYPE_CHECKING:
    import xarray as xr

STATUS = {NOT_FINITE: "diverged", NOT_PSD: "not_positive_semidefinite"}
"""By how a path ended; a failure goes by the name of the error that ``integrate`` raises."""


def to_dataset(
    dynamics: Dynamics,
    batch: Batch,
    plan: Plan,
    runs: int,
    kept: Runs | Averages,
    shapes: Mapping[str, tuple[int, ...]],
    failures: Mapping[tuple[int, int], Failure],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Return every run, or their moments, with the states at failures: of all, or of each member's first in time."""
    import xarray as xr

    t = plan.t0 + plan.saves * plan.h
    coords: dict[str, Any] = {"t": ("t", t, {"long_name": dynamics.clock}), **member_coords(dynamics, batch)}
    how: tuple[str, ...]
    if isinstance(kept, Averages):
        variables, how, done = _averaged(dynamics, kept, shapes), ("member",), kept.counts == runs
        variables["n_runs"] = (how, kept.counts, {"long_name": "runs that were averaged"})
        told = _first_of_each(failures)
    else:
        known, how, done = quantities(dynamics), ("run", "member"), kept.done
        variables = {n: variable(known[n], out, (*how, "t")) for n, out in zip(shapes, kept.outputs, strict=True)}
        told, coords["run"] = dict(sorted(failures.items())), np.arange(runs)
    status, t_failed = np.where(done, "success", "interrupted").astype(object), np.full(done.shape, np.nan)
    for (member, run), failure in told.items():
        at = (run, member)[-done.ndim :]
        status[at], t_failed[at] = STATUS[failure.why], failure.t
    variables["status"] = (how, status.astype(str), {"long_name": "how the integration ended"})
    variables["t_failed"] = (how, t_failed, {"long_name": "last time with a valid state"})
    if told:
        last = unpack(dynamics.states, np.array([failure.y for failure in told.values()]), batch.common.sizes)
        variables |= {f"{q.name}_failed": variable(q, last[q.name], ("failed",)) for q in dynamics.states}
        coords["failed"] = ("failed", [m for m, _ in told], {"long_name": "member that failed"})
        coords["failed_run"] = ("failed", [run for _, run in told], {"long_name": "its run"})
    return xr.Dataset(variables, coords, attrs)


def _first_of_each(failures: Mapping[tuple[int, int], Failure]) -> dict[tuple[int, int], Failure]:
    """Return of each member the failure at the earliest time, by member."""
    by_time = sorted(failures, key=lambda key: (key[0], failures[key].t, key[1]))
    first = {member: (member, run) for member, run in reversed(by_time)}
    return {key: failures[key] for key in sorted(first.values())}


def _averaged(dynamics: Dynamics, kept: Averages, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return means, and standard deviations as ``*_std``; NaN of no runs, and of one."""
    known, found, start = quantities(dynamics), {}, 0
    counts = kept.counts[:, None, None]
    mean = np.where(counts > 0, kept.mean, np.nan)
    spread = np.sqrt(np.where(counts > 1, kept.squares, np.nan) / np.maximum(counts - 1, 1))
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        for what, numbers in ((name, mean), (f"{name}_std", spread)):
            own = numbers[:, :, start:stop].reshape(*numbers.shape[:2], *shape)
            found[what] = variable(known[name], own, ("member", "t"))
        start = stop
    return found
