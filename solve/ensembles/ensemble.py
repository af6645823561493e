"""``solve.ensemble``: many trajectories of one Dynamics at once, as a labelled dataset."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, ModelError, NotYet
from effdyn.derive.errors import Described

from .. import certification
from ..arguments import (
    MAX_STEPS,
    OURS,
    check_limits,
    check_method,
    check_more,
    checked_span,
    checked_times,
    events_of,
    method_for,
    refuse_of_sde,
    steppers,
)
from ..explicit_time import check_factors
from ..given import step_length
from ..integrate import HUGE
from ..integrators import warmup
from ..integrators.dop853 import HUGE as LARGEST
from ..integrators.dop853 import Status
from ..integrators.events import Event, events_kernel
from ..integrators.jacobian import jacobian_kernel
from ..kernels.kernel import Kernel, check_dynamics, kernel, observables_kernel
from ..kernels.layout import packed_length, unpack
from ..results import variable
from .hazards import flag_below_resolution, warn_of_symmetry
from .inputs import Batch, gram_places, read_batch
from .lane_kernel import lane_kernel
from .loops import MAP
from .members import NOT_RUN, Outcome, Stepping, Work, run_members
from .outputs import BEYOND, NOT_OVERLAPS
from .stated import about, checked_names, checked_threads, member_bar, member_coords, places, quantities

if TYPE_CHECKING:
    import xarray as xr

STATUS = {
    NOT_RUN: "interrupted",
    Status.SUCCESS: "success",
    Status.EVENT: "event",
    Status.STEP_LIMIT: "step_limit",
    Status.STEP_TOO_SMALL: "diverged",
    Status.NOT_FINITE: "diverged",
    BEYOND: "diverged",
    NOT_OVERLAPS: "not_positive_semidefinite",
}
"""By the integrator's number; a failure goes by the name of the error that :func:`effdyn.solve.integrate` raises."""

SDE_ONLY = ("dt", "runs", "rng", "average", "same_noise", "brownian_dt")
"""Arguments that ensembles of stochastic differential equations take besides."""


def ensemble(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: "Mapping[str, Any] | xr.Dataset",
    params: Mapping[str, Any],
    *,
    t_eval: Any = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    keep: Sequence[str] | None = None,
    method: str | None = None,
    events: Sequence[Event | str] = (),
    max_steps: int = MAX_STEPS,
    max_step: float = math.inf,
    first_step: float | None = None,
    lanes: bool | str = True,
    threads: int | None = None,
    progress: bool = False,
    **more: Any,
) -> "xr.Dataset":
    """Solve the equations of motion from many initial states, at many parameters, in parallel.

    Every quantity keeps its own axes last, as :func:`effdyn.solve.integrate` takes them; axes before those are batch
    axes, and broadcast against each other into the members. Each member has steps and error control of its own: its
    numbers are the same, bit for bit, whatever the other members, their order, their count and the number of threads.

    Parameters
    ----------
    dynamics : Dynamics
        What ``model.dynamics()`` returns; differential equations (``kind == "ode"``); a map: that is iterated
        exactly, its times are whole steps, and it takes no ``method``, ``events``, tolerances or limits of steps; or
        stochastic equations, such as ``model.dynamics().sde()``: see **more.
    t_span : (float, float)
        From and to, in the dynamics' clock.
    y0 : dict or Dataset
        Initial value of each state, such as ``Q`` (…, K, K) and ``R`` (…, K, M). A Dataset with the states at one time,
        such as ``ensemble.isel(t=-1)``, restarts from there.
    params : dict
        Value of each parameter, such as ``eta`` (…) and ``T`` (…, M, M). A vector such as ``b``, which may be a scalar
        for all units, has batch axes only if it has its own axis too: (…, M).
    t_eval : array_like, optional
        Output times, (T,), for all members; 101 in equal distances by default.
    rtol, atol : float
        Local error per step and member: ``atol + rtol·|y|``.
    keep : sequence of str, optional
        Names of the states and observables to return, by default all. Memory is what is returned, plus a few
        dozen states a thread (Radau5: and some matrices of n by n).
    method : str, optional
        ``"DOP853"``, ``"DOPRI5"``, ``"Adams"``, ``"Radau5"`` or ``"auto"``, as for :func:`effdyn.solve.integrate`,
        with the same default.
    events : sequence of Event or str
        Zeros to find in each member; a terminal one ends that member alone.
    max_steps, max_step, first_step :
        Limits for each member: attempted steps, longest step, first step.
    lanes : bool or "long"
        Whether members of a small system share the lanes of the processor's registers, sixteen at a time: by DOP853,
        without events. The method is the same as ``integrate``'s, with sums in another order, so that results differ
        within the tolerance. With False, and for all else, they are those of ``integrate``, bit for bit.
        ``"long"`` puts larger systems in lanes too, which takes up to 20 s to compile, once on a machine: erf up to
        K = M = 4.
    threads : int, optional
        By default as many as there are processors.
    progress : bool
        Whether to show a progress bar.
    **more :
        ``dt``, ``runs``, ``rng``, ``average``, ``same_noise`` and ``brownian_dt``, of stochastic differential
        equations, whose results have a dim ``run``: see
        :func:`effdyn.solve.ensembles.stochastic.ensemble_sde`.

    Returns
    -------
    xarray.Dataset
        States and observables with dims (member, t, …), NaN after a member's failure. ``status`` (member) is
        ``"success"``, ``"event"``, ``"diverged"``, ``"not_positive_semidefinite"``, ``"step_limit"`` or
        ``"interrupted"``;
        ``t_failed`` (member) the last time with a valid state, NaN for a member that arrived. If any failed, the states
        at those times are ``Q_failed`` (failed, …) etc., with the member's number in ``failed``. Parameters that vary
        are coordinates of ``member``; so are, of several batch axes, the numbers along each: ``batch_0``, ``batch_1``,
        … With events, ``t_event``, ``event_name`` and ``event_member`` (event) list them, by member; members that one
        ended hold NaN after it, and the states there are ``Q_stopped`` (stopped, …), with their numbers in ``stopped``.
        Overlaps count as no longer positive semidefinite below ``-1e4·rtol`` times their largest row sum.

    Raises
    ------
    ModelError
        For a bad argument, naming it, and the member.

    Notes
    -----
    A RuntimeWarning says how many members failed. :class:`~effdyn.solve.SymmetricStart` and
    :class:`~effdyn.solve.BelowResolution` are issued once, with the number of members. Ctrl-C returns the members that
    are finished, with a warning and ``attrs["status"] == "interrupted"``.
    Threads run compiled code only, without Python's lock. Expectations computed
    numerically have the errors that :func:`effdyn.solve.numerical_error` states for single states.

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> params = dict(eta=np.linspace(0.1, 2, 20), sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
    >>> ens = ensemble(dyn, (0, 20), y0=dict(Q=[[0.5]], R=[[0.1]]), params=params)
    >>> ens.eg.dims, dict(ens.eg.sizes)
    (('member', 't'), {'member': 20, 't': 101})
    >>> bool((ens.status == "success").all())
    True
    >>> bool((ens.eg.isel(t=-1) < ens.eg.isel(t=0)).all())
    True
    """
    check_dynamics(dynamics)
    if dynamics.kind not in ("ode", "map", "sde"):
        raise NotYet(f"ensembles of equations of kind {dynamics.kind!r}", "solve.integrate for each member")
    span = checked_span(t_span)
    check_factors(dynamics, params, span)
    times = checked_times(np.linspace(*span, 101) if t_eval is None else t_eval, span)
    assert times is not None  # None only of None
    check_limits(rtol=rtol, atol=atol, max_steps=max_steps, max_step=max_step, first_step=first_step)
    check_more("ensemble", dynamics.kind, more, SDE_ONLY)
    method = method_for(dynamics.kind, method)
    if dynamics.kind == "sde":
        from .stochastic import ensemble_sde

        if len(events):
            raise NotYet("events= with equations of kind 'sde'", "a look at the paths")
        refuse_of_sde(rtol=rtol, atol=atol, max_step=max_step, first_step=first_step)
        if lanes is not True:
            raise ModelError("lanes", lanes, "nothing, with equations of kind 'sde': their paths come one by one")
        given: dict[str, Any] = {"max_steps": max_steps, "keep": keep, "threads": threads, "progress": progress, **more}
        return ensemble_sde(dynamics, span, y0, params, t_eval=times, method=method, **given)
    workers = checked_threads(threads)
    names = checked_names(dynamics, keep)
    found = events_of(events)
    _check_method(dynamics, method, found)
    if lanes not in (True, False, "long"):
        raise ModelError("lanes", lanes, "True, False or 'long'")
    batch = read_batch(dynamics, y0, params)
    warn_of_symmetry(dynamics, batch)
    if not lanes and method in ("DOP853", "auto"):
        warmup.start()
    options = {
        "rtol": float(rtol),
        "atol": np.full(batch.y0.shape[1], float(atol)),
        "first_step": float(first_step or 0.0),
        "max_step": float(max_step),
        "max_steps": int(max_steps),
    }
    if dynamics.kind == "map":
        span, times, step = whole_steps(dynamics, batch, span, times)
        options |= {"first_step": step, "max_steps": np.iinfo(np.int64).max}
    work = _work(dynamics, batch, span, times, names, options, lanes, method, found)
    if not work.rhs_lanes:
        warmup.wait()
    with member_bar(len(batch.y0), progress) as tick:
        outcome = run_members(work, min(workers, len(batch.y0)), tick)
    certification.check()
    attrs = {"method": "map"} if dynamics.kind == "map" else {"method": method, "rtol": rtol, "atol": atol}
    solution = _dataset(dynamics, batch, work, outcome, names, attrs)
    if found:
        solution = _with_events(dynamics, batch, work, outcome, [e.name for e in found], solution)
    _warn_of_failures(solution, outcome)
    _warn_of_undefined(dynamics, solution)
    if dynamics.kind == "ode":
        flag_below_resolution(solution, rtol, atol)
    return solution


# -- what is integrated ------------------------------------------------------------------------------------------------


def _work(
    dynamics: Dynamics,
    batch: Batch,
    span: tuple[float, float],
    times: np.ndarray,
    names: Sequence[str],
    options: dict[str, Any],
    lanes: bool | str,
    method: str,
    events: Sequence[Event],
) -> Work:
    sizes, n = batch.common.sizes, batch.y0.shape[1]
    ode = dynamics.kind == "ode"
    rhs = kernel(dynamics, sizes if ode else None)  # for maps as iterate_map has it
    long = lanes == "long"
    in_lanes = lanes and ode and method == "DOP853" and not events
    together = lane_kernel(dynamics, sizes, long=long) if in_lanes else None
    observed = observed_together = None
    if set(names) & {e.quantity.name for e in dynamics.observables}:
        observed = observables_kernel(dynamics)
        observed_together = lane_kernel(dynamics, sizes, "observables", long) if together else None
    stepping, more = _stepping(dynamics, sizes, method, events)
    at = places(dynamics, sizes, n)
    shapes = [at[name].shape for name in names]
    return Work(
        rhs.address,
        observed.address if observed else 0,
        together.address if together else 0,
        observed_together.address if observed_together else 0,
        stepping,
        batch.y0.copy(),
        batch.par,
        batch.columns,
        batch.values,
        max(compiled.workspace_size(sizes) for compiled in (rhs, observed, *more) if compiled),
        sum(packed_length(q, sizes) for q in observed.outputs) if observed else 0,
        np.array(span),
        np.array(times),
        options,
        tuple(np.empty((len(batch.y0), len(times), *shape)) for shape in shapes),
        np.concatenate([at[name].ravel() for name in names]).astype(np.int64),
        gram_places(dynamics, batch.common) if ode else np.empty((0, 0), dtype=np.int64),
        HUGE if ode else LARGEST,
        min(1e4 * options["rtol"], 0.05),  # as integrate tolerates: errors grow by 100 in sound runs
        1e4 * float(options["atol"][0]),
    )


def _stepping(
    dynamics: Dynamics, sizes: Mapping[str, int], method: str, events: Sequence[Event]
) -> tuple[Stepping, list[Kernel]]:
    """Return how members are integrated one at a time, and the further kernels that this takes."""
    if dynamics.kind == "map":
        return Stepping(MAP), []
    compiled = events_kernel(dynamics, events, sizes) if events else None
    slopes = jacobian_kernel(dynamics) if method in ("Radau5", "auto") else None
    stepping = Stepping(
        **steppers(method),
        jacobian=slopes.address if slopes else 0,
        events=compiled.address if compiled else 0,
        directions=tuple(e.direction for e in events),
        terminal=tuple(e.terminal for e in events),
    )
    return stepping, [k for k in (compiled, slopes) if k]


def whole_steps(
    dynamics: Dynamics, batch: Batch, span: tuple[float, float], times: np.ndarray
) -> tuple[tuple[float, float], np.ndarray, float]:
    """Return a map's span and times, at whole steps, and the length of a step.

    Raises
    ------
    ModelError
        If the span runs backwards, or a step takes another time in another member.
    """
    if span[1] < span[0]:
        raise ModelError("t_span", span, "(from, to) with from before to: a map has no way back")
    clock = sympy.sympify(dynamics.clock)
    for name in sorted({str(symbol) for symbol in clock.free_symbols} & set(batch.varying)):
        raise ModelError(f"params[{name!r}]", Described("values that vary"), f"one value: time is {dynamics.clock}")
    step = step_length(dynamics, batch.common)
    saves = np.unique(np.rint((times - span[0]) / step))
    at = span[0] + saves * step
    return (span[0], float(max(at[-1], span[0] + step))), at, step


# -- what is returned --------------------------------------------------------------------------------------------------


def _dataset(
    dynamics: Dynamics, batch: Batch, work: Work, outcome: Outcome, names: Sequence[str], attrs: dict[str, Any]
) -> "xr.Dataset":
    import xarray as xr

    known = quantities(dynamics)
    variables: dict[str, Any] = {
        name: variable(known[name], output, ("member", "t")) for name, output in zip(names, work.outputs, strict=True)
    }
    arrived = np.isin(outcome.status, (NOT_RUN, Status.SUCCESS, Status.EVENT))
    codes, which = np.unique(outcome.status, return_inverse=True)
    labels = np.array([STATUS[code] for code in codes.tolist()])[which]
    failed = np.flatnonzero(~arrived)
    t_failed = np.where(arrived, np.nan, outcome.t)
    variables["status"] = ("member", labels, {"long_name": "how the integration ended"})
    variables["t_failed"] = ("member", t_failed, {"long_name": "last time with a valid state"})
    coords: dict[str, Any] = {"t": ("t", work.t_eval, {"long_name": dynamics.clock}), **member_coords(dynamics, batch)}
    if len(failed):
        last = unpack(dynamics.states, work.y[failed], batch.common.sizes)
        variables |= {f"{q.name}_failed": variable(q, last[q.name], ("failed",)) for q in dynamics.states}
        coords["failed"] = ("failed", failed, {"long_name": "member that failed"})
    status = "interrupted" if outcome.interrupted else "partial" if len(failed) else "success"
    return xr.Dataset(
        variables,
        coords,
        attrs={
            **about(dynamics, batch),
            **attrs,
            "status": status,
            "n_failed": len(failed),
            **dict(zip(("n_steps", "n_rejected", "n_rhs"), outcome.counts.sum(axis=0).tolist(), strict=True)),
        },
    )


def _with_events(
    dynamics: Dynamics, batch: Batch, work: Work, outcome: Outcome, names: Sequence[str], solution: "xr.Dataset"
) -> "xr.Dataset":
    """Add the events, and the states at those that ended their members."""
    t, which, member = outcome.events
    stopped = np.flatnonzero(outcome.status == Status.EVENT)
    last = unpack(dynamics.states, work.y[stopped], batch.common.sizes)
    states: dict[str, Any] = {f"{q.name}_stopped": variable(q, last[q.name], ("stopped",)) for q in dynamics.states}
    return (
        solution.assign(states)
        .assign(
            t_event=("event", t, {"long_name": dynamics.clock}),
            event_name=("event", np.array([names[int(n)] for n in which], dtype=object)),
            event_member=("event", member.astype(np.int64)),
        )
        .assign_coords(stopped=("stopped", stopped, {"long_name": "member that an event ended"}))
    )


def _warn_of_failures(solution: "xr.Dataset", outcome: Outcome) -> None:
    members, failed = solution.sizes["member"], solution.attrs["n_failed"]
    if outcome.interrupted:
        unfinished = int((outcome.status == NOT_RUN).sum())
        _warn(f"interrupted with {members - unfinished} of {members} members finished; the others are NaN")
    if failed:
        first = int(solution.failed[0])
        how, when = str(solution.status.values[first]), float(solution.t_failed[first])
        _warn(
            f"{failed} of {members} members failed, first member {first} ({how} after t = {when:.6g}): "
            "see status, t_failed, and the states with names in _failed"
        )


def _warn_of_undefined(dynamics: Dynamics, solution: "xr.Dataset") -> None:
    """Warn of observables without a value at states that have one, as for a single trajectory."""
    sound = solution.status.values == "success"
    for q in (e.quantity for e in dynamics.observables if not e.quantity.indices and e.quantity.name in solution):
        undefined = sound & np.isnan(solution[q.name].values.min(axis=1))
        if undefined.any():
            _warn(
                f"{q.name} is not defined at some times of {undefined.sum()} members, where errors of "
                "integration have taken the overlaps out of the admissible ones: give a smaller rtol"
            )


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_method(dynamics: Dynamics, method: str, events: Sequence[Event]) -> None:
    if dynamics.kind == "map":
        if method != "DOP853":
            raise ModelError("method", method, "nothing: there is one method for equations of kind 'map'")
        if events:
            raise NotYet("events= with equations of kind 'map'", "events with differential equations")
    else:
        check_method(method, OURS)
