"""Many trajectories in threads that run compiled code only; see ``loops.py`` for what they run."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..integrators.dop853 import STATE, Method
from .lanes import LANE, N_CLOCKS, N_ROWS
from .loops import compiled_in_lanes, compiled_one_by_one
from .one_by_one import N_LOG_ROWS, N_PROGRESS, STEPS_BETWEEN_LOOKS
from .outputs import N_SLOT_ROWS
from .sixteen import LANES

NOT_RUN = 0
"""The status of a member that was interrupted, or never begun."""
LOOK_SECONDS = 0.1
CACHE_LINE = 8  # numbers


@dataclass(frozen=True, slots=True, eq=False)
class Stepping:
    """A method for one member at a time.

    Attributes
    ----------
    method, other : Method
        ``other`` takes over where a system turns stiff, or no longer is; None to keep to one method.
    jacobian, events : int
        Addresses, or 0.
    directions, terminal : tuple
        Of each event: see :func:`effdyn.solve.integrators.trajectory.compute_trajectory`.
    """

    method: Method
    other: Method | None = None
    jacobian: int = 0
    events: int = 0
    directions: tuple[int, ...] = ()
    terminal: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is to be integrated, for N members with n states each.

    Attributes
    ----------
    rhs, observe, rhs_lanes, observe_lanes : int
        Addresses of the kernels, for one trajectory and in lanes. ``rhs_lanes`` is 0 for one member at a time, both
        others if no observable is kept, and ``observe_lanes`` if they have no kernel in lanes.
    method : Stepping
        How a member is integrated if not in lanes.
    y : ndarray (N, n)
        Initial states; at the end the last valid ones.
    par, columns, values : ndarray (n_par,), (P,), (N, P)
        Parameters, where they vary, and how.
    n_work, n_observed : int
        Lengths of the scratch space, and of the packed observables.
    t_span, t_eval : ndarray (2,), (T,)
    options : dict
        ``rtol``, ``atol`` (n,), ``first_step`` (0: estimated), ``max_step``, ``max_steps``.
    outputs : tuple of ndarray
        The variables to fill, each (N, T, length), contiguous.
    places : ndarray (sum of lengths,)
        For each of their columns, the place in the packed state followed by the packed observables.
    gram : ndarray (F, F) of int
        Where the overlaps stand, see :func:`effdyn.solve.ensembles.inputs.gram_places`.
    largest, relative, absolute : float
        Bounds on a valid state: its largest entry; how negative the overlaps may be, relative to them and absolutely.
    """

    rhs: int
    observe: int
    rhs_lanes: int
    observe_lanes: int
    method: Stepping
    y: np.ndarray
    par: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    n_work: int
    n_observed: int
    t_span: np.ndarray
    t_eval: np.ndarray
    options: dict[str, Any]
    outputs: tuple[np.ndarray, ...]
    places: np.ndarray
    gram: np.ndarray
    largest: float
    relative: float
    absolute: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How the members ended.

    Attributes
    ----------
    status : ndarray (N,) of int
        ``NOT_RUN``, or as in loops.py.
    t : ndarray (N,)
        The last time with a valid state.
    counts : ndarray (N, 3) of int
        Accepted steps, rejected steps, evaluations of the right-hand side.
    interrupted : bool
        Ctrl-C ended it.
    events : ndarray (3, E)
        Time, number of the function, and member of each event; by member, then in the order they were met.
    """

    status: np.ndarray
    t: np.ndarray
    counts: np.ndarray
    interrupted: bool
    events: np.ndarray


def run_members(work: Work, threads: int, on_progress: Callable[[int], object] | None = None) -> Outcome:
    """Integrate all members into ``work.outputs``; rows that have no valid state are NaN.

    ``on_progress`` is told the number of members that are finished, about ten times a second.
    """
    members = len(work.y)
    status, t_last, counts = np.zeros(members, np.int64), np.full(members, np.nan), np.zeros((members, 3), np.int64)
    stop = np.zeros(1, np.int64)
    ranges, done = _ranges(members, threads), np.zeros((threads, CACHE_LINE), np.int64)
    addresses = np.array([output.ctypes.data for output in work.outputs], dtype=np.int64)
    lengths = np.array([math.prod(output.shape[2:]) for output in work.outputs], dtype=np.int64)
    run = _in_lanes if work.rhs_lanes else _one_by_one
    logs: list[np.ndarray] = []
    options = tuple(work.options[name] for name in ("rtol", "atol", "first_step", "max_step", "max_steps"))
    bounds = np.array([work.largest, work.relative, work.absolute])

    def worker(number: int) -> None:
        common = (
            work.rhs, work.observe, ranges, number, stop, done[number], work.y, work.columns, work.values,
            *_scratch(work),
            work.t_span, work.t_eval, *options, addresses, lengths, work.places, work.gram, bounds,
            status, t_last, counts,
        )  # fmt: skip
        logs.append(run(work, common))

    interrupted = False
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            futures.extend(pool.submit(worker, number) for number in range(threads))
            _watch(futures, done, on_progress)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            stop[0] = 1  # should a worker have failed, the others need not go on
    for future in futures:
        future.result()
    unfinished = status == NOT_RUN
    if unfinished.any():
        for output in work.outputs:
            output[unfinished] = np.nan
    if on_progress is not None:
        on_progress(int(done[:, 0].sum()))
    return Outcome(status, t_last, counts, bool(interrupted and unfinished.any()), _in_order(logs, status))


def _watch(futures: list[Future[None]], done: np.ndarray, on_progress: Callable[[int], object] | None) -> None:
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, timeout=LOOK_SECONDS)
        if on_progress is not None:
            on_progress(int(done[:, 0].sum()))
        for future in finished:
            if future.exception() is not None:
                return


def _ranges(members: int, threads: int) -> np.ndarray:
    """Return, for each thread, the next member of its range and the end of that, a cache line apart."""
    ranges = np.zeros((threads, CACHE_LINE), np.int64)
    ends = np.linspace(0, members, threads + 1).astype(np.int64)
    ranges[:, 0], ranges[:, 1] = ends[:-1], ends[1:]
    return ranges


def _scratch(work: Work) -> tuple[np.ndarray, ...]:
    """Return what each thread scribbles on: see ``COMMON`` in loops.py."""
    F, length = len(work.gram), work.y.shape[1] + work.n_observed
    par_slots = _zeros(LANES * len(work.par))
    par_slots[:] = np.repeat(work.par, LANES)
    return (
        work.par.copy(),
        _zeros(work.n_work),
        _zeros(LANES * length),
        _zeros(F * F + 1, LANES),
        par_slots,
        np.zeros(length),
        np.zeros((N_SLOT_ROWS, LANES), dtype=np.int64),
    )


def _zeros(*shape: int) -> np.ndarray:
    """Return zeros that begin where a cache line does: else every register that is loaded takes two of them."""
    size = math.prod(shape)
    room = np.zeros(size + CACHE_LINE)
    first = -room.ctypes.data // room.itemsize % CACHE_LINE
    return room[first : first + size].reshape(shape)


def _in_lanes(work: Work, common: tuple[Any, ...]) -> np.ndarray:
    """Integrate sixteen members at a time until there are no more; there are no events to log."""
    n = work.y.shape[1]
    stages, single, clocks = _zeros(N_ROWS, LANES * n), np.zeros((N_ROWS, n)), _zeros(N_CLOCKS, LANES)
    lanes = np.zeros(LANES, dtype=LANE)
    compiled_in_lanes()(*common, work.rhs_lanes, work.observe_lanes, stages, single, clocks, lanes)
    return np.empty((N_LOG_ROWS, 0))


def _one_by_one(work: Work, common: tuple[Any, ...]) -> np.ndarray:
    """Integrate members one at a time until there are no more; return the log of their events."""
    how, n = work.method, work.y.shape[1]
    n_events, other = len(how.directions), how.other or how.method
    with_events = n_events > 0
    stages = (how.method.stages(n), other.stages(n), how.method.stages(n), other.stages(n))
    integrators = (
        how.method.compiled(with_events), other.compiled(with_events), how.other is not None, how.jacobian,
        *stages, np.zeros(2, dtype=STATE),
        np.zeros(n), np.zeros(LANES), np.zeros((LANES, n)), np.zeros(n), np.zeros(LANES),
    )  # fmt: skip
    room = STEPS_BETWEEN_LOOKS * n_events  # in a slice of steps each function has at most one zero a step
    events = (
        how.events if with_events else None, np.zeros((4, n_events)), np.array(how.directions, dtype=np.int64),
        np.array(how.terminal, dtype=np.int64), np.zeros(room), np.zeros((room, n)), np.zeros(room, dtype=np.int64),
    )  # fmt: skip
    log, progress = np.zeros((N_LOG_ROWS, room)), np.array([-1, *[0] * (N_PROGRESS - 1)], dtype=np.int64)
    compiled = compiled_one_by_one(with_events)
    stop = common[4]
    while True:
        compiled(*common, *integrators, *events, log, progress)
        if progress[0] < 0 or stop[0]:
            return log[:, : progress[2]]
        log = np.concatenate([log, np.zeros_like(log)], axis=1)


def _in_order(logs: list[np.ndarray], status: np.ndarray) -> np.ndarray:
    """Return the events of all threads, by member; each member's come from one thread, in order."""
    events = np.concatenate([np.empty((N_LOG_ROWS, 0)), *logs], axis=1)
    events = events[:, status[events[2].astype(np.int64)] != NOT_RUN]
    return events[:, np.argsort(events[2], kind="stable")]
