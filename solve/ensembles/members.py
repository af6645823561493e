"""Many trajectories in threads that run compiled code only; see ``loops.py`` for what they run."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..integrators.dop853 import N_STAGE_ROWS, STATE, compiled_advance
from .loops import LANE, LANES, N_CLOCKS, N_ROWS, compiled_in_lanes, compiled_one_by_one

NOT_RUN = 0
"""The status of a member that was interrupted, or never begun."""
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is to be integrated, for N members with n states each.

    Attributes
    ----------
    rhs, rhs_lanes, observe : int
        Addresses of the kernels; ``rhs_lanes`` is 0 for one member at a time, ``observe`` if no observable is kept.
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
    rhs_lanes: int
    observe: int
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
    """

    status: np.ndarray
    t: np.ndarray
    counts: np.ndarray
    interrupted: bool


def run_members(work: Work, threads: int, on_progress: Callable[[int], object] | None = None) -> Outcome:
    """Integrate all members into ``work.outputs``; rows that have no valid state are NaN.

    ``on_progress`` is told the number of members that are finished, about ten times a second.
    """
    members = len(work.y)
    status, t_last, counts = np.zeros(members, np.int64), np.full(members, np.nan), np.zeros((members, 3), np.int64)
    counter, stop = np.zeros(1, np.int64), np.zeros(1, np.int64)
    done = np.zeros((threads, 8), np.int64)  # a cache line for each thread
    addresses = np.array([output.ctypes.data for output in work.outputs], dtype=np.int64)
    lengths = np.array([math.prod(output.shape[2:]) for output in work.outputs], dtype=np.int64)
    compiled, own = _lanes(work) if work.rhs_lanes else _one_by_one(work)
    options = tuple(work.options[name] for name in ("rtol", "atol", "first_step", "max_step", "max_steps"))
    bounds = np.array([work.largest, work.relative, work.absolute])

    def worker(number: int) -> None:
        compiled(
            work.rhs, work.observe, counter, stop, done[number], work.y, work.columns, work.values, *_scratch(work),
            work.t_span, work.t_eval, *options, addresses, lengths, work.places, work.gram, bounds,
            status, t_last, counts, *own(),
        )  # fmt: skip

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
    return Outcome(status, t_last, counts, bool(interrupted and unfinished.any()))


def _watch(futures: list[Future[None]], done: np.ndarray, on_progress: Callable[[int], object] | None) -> None:
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, timeout=LOOK_SECONDS)
        if on_progress is not None:
            on_progress(int(done[:, 0].sum()))
        for future in finished:
            if future.exception() is not None:
                return


def _scratch(work: Work) -> tuple[np.ndarray, ...]:
    """Return what each thread scribbles on: parameters, workspace, a packed record, a Gram matrix."""
    F = len(work.gram)
    record = np.zeros(work.y.shape[1] + work.n_observed)
    return work.par.copy(), np.zeros(work.n_work), record, np.zeros((F, F))


def _one_by_one(work: Work) -> tuple[Callable[..., None], Callable[[], tuple[Any, ...]]]:
    """Return the loop that integrates one member at a time, and what makes its own arguments."""
    advance, n, T = compiled_advance(False), work.y.shape[1], len(work.t_eval)

    def own() -> tuple[Any, ...]:
        state = np.zeros(2, dtype=STATE)
        return advance, np.zeros((N_STAGE_ROWS, n)), np.zeros((4, 0)), state, np.zeros(n), np.zeros(T), np.zeros((T, n))

    return compiled_one_by_one(), own


def _lanes(work: Work) -> tuple[Callable[..., None], Callable[[], tuple[Any, ...]]]:
    """Return the loop that integrates sixteen members at a time, and what makes its own arguments."""
    n, n_par = work.y.shape[1], len(work.par)

    def own() -> tuple[Any, ...]:
        stages, clocks = np.zeros((N_ROWS, LANES * n)), np.zeros((N_CLOCKS, LANES))
        par_lanes, par_of = np.repeat(work.par, LANES), np.tile(work.par, (LANES, 1))
        lanes = np.zeros(LANES, dtype=LANE)
        assert par_of.shape == (LANES, n_par)
        return work.rhs_lanes, stages, par_lanes, np.zeros(n), par_of, np.zeros((LANES, n)), clocks, lanes

    return compiled_in_lanes(), own
