"""Paths of many stochastic systems in threads, each from a stream of its own: all kept, or summed up as they come.

Work is handed out in blocks of runs of one member. Moments are summed run by run within a block, and blocks are put
together in their order, so that the bits depend neither on the threads nor on who was first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ..kernels.kernel import Kernel
from ..stochastic.replicas import Failure, Plan, path, run_in_threads
from ..stochastic.steps import compiled_advance
from ..stochastic.system import System
from ..streams import generator
from .inputs import Batch

BLOCK_RUNS = 64
"""Runs of a member that one thread takes at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """N stochastic systems with the same equations.

    Attributes
    ----------
    base : System
        With the values of member 0.
    states, observed : Batch
        Initial states and parameters as the kernels of a path take them, and as that of the observables does, whose
        tables of numerical rules may be others.
    observe : Kernel or None
        The observables, if any is kept.
    n_observed : int
        Their number.
    places : ndarray (L,)
        For each number that is kept of a time, its place in the packed state followed by the packed observables.
    """

    base: System
    states: Batch
    observed: Batch
    observe: Kernel | None
    n_observed: int
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.states.y0)

    def system(self, member: int) -> System:
        """Return one of them."""
        return replace(self.base, par=_parameters(self.states, member), y0=self.states.y0[member].copy())

    def measure(self, member: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Return the function from times (T,) and packed states (T, n) to what is kept of them, (T, L).

        Where there is no state, NaN, there are no observables.
        """
        if self.observe is None:
            return lambda t, y: y[:, self.places]
        f, par = self.observe.function, _parameters(self.observed, member)
        work = np.zeros(self.observe.workspace_size(self.base.inputs.sizes))

        def measured(t: np.ndarray, y: np.ndarray) -> np.ndarray:
            addresses = par.ctypes.data, work.ctypes.data  # in here, where both arrays are alive
            found = np.full((len(t), self.n_observed), np.nan)
            for n in np.flatnonzero(np.isfinite(y).all(axis=1)).tolist():
                f(t[n], y.ctypes.data + n * y.strides[0], found.ctypes.data + n * found.strides[0], *addresses)
            return np.concatenate([y, found], axis=1)[:, self.places]

        return measured


def _parameters(batch: Batch, member: int) -> np.ndarray:
    par = batch.par.copy()
    par[batch.columns] = batch.values[member]
    return par


class Kept(Protocol):
    """What becomes of the paths of a block."""

    def add(self, member: int, run: int, numbers: np.ndarray) -> None:
        """Take a path, (T, L); of a block in the order of runs."""

    def finish(self, member: int, block: int) -> None:
        """Take note that a block is finished."""


@dataclass(slots=True, eq=False)
class Runs:
    """Every run of every member: ``outputs``, each (runs, N, T, …), of the lengths that the numbers of a time have."""

    outputs: tuple[np.ndarray, ...]
    done: np.ndarray

    def add(self, member: int, run: int, numbers: np.ndarray) -> None:
        start = 0
        for output in self.outputs:
            own = output[run, member]
            length = int(np.prod(own.shape[1:], dtype=int))
            own[...] = numbers[:, start : start + length].reshape(own.shape)
            start += length
        self.done[run, member] = True

    def finish(self, member: int, block: int) -> None:
        """Each path is in its place already."""


@dataclass(slots=True, eq=False)
class Sums:
    """Number of runs, mean and squared deviations of one member or block, by Welford's and by Chan's update."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    def add(self, numbers: np.ndarray) -> None:
        self.count += 1
        with np.errstate(all="ignore"):  # an observable may be infinite: then its moments are, or are NaN
            away = numbers - self.mean
            self.mean += away / self.count
            self.squares += away * (numbers - self.mean)

    def join(self, later: Sums) -> None:
        total = self.count + later.count
        with np.errstate(all="ignore"):
            away = later.mean - self.mean
            self.mean += away * (later.count / total)
            self.squares += later.squares + away**2 * (self.count * later.count / total)
        self.count = total


@dataclass(slots=True, eq=False)
class Averages:
    """Moments over the runs of each member.

    Attributes
    ----------
    counts : ndarray (N,)
        Runs that were averaged: those before the first block that is not finished.
    mean, squares : ndarray (N, T, L)
    """

    counts: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    _open: dict[tuple[int, int], Sums] = field(default_factory=dict)
    _finished: dict[int, dict[int, Sums]] = field(default_factory=dict)
    _next: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, member: int, run: int, numbers: np.ndarray) -> None:
        key = member, run // BLOCK_RUNS
        if key not in self._open:
            self._open[key] = Sums(0, np.zeros_like(numbers), np.zeros_like(numbers))
        self._open[key].add(numbers)

    def finish(self, member: int, block: int) -> None:
        with self._lock:
            waiting = self._finished.setdefault(member, {})
            waiting[block] = self._open.pop((member, block))
            while (due := self._next.get(member, 0)) in waiting:  # in order, or the last bits were the threads'
                so_far = Sums(int(self.counts[member]), self.mean[member], self.squares[member])
                so_far.join(waiting.pop(due))
                self.counts[member] = so_far.count
                self._next[member] = due + 1


@dataclass(frozen=True, slots=True)
class Streams:
    """The random numbers of each run of each member: its own, or, ``shared``, the same run's of every member."""

    root: np.random.SeedSequence
    shared: bool

    def of(self, member: int, run: int) -> np.random.Generator:
        return generator(self.root, run) if self.shared else generator(self.root, member, run)


def run_paths(
    members: Members, plan: Plan, runs: int, streams: Streams, kept: Kept, threads: int, tick: Callable[[int], object]
) -> tuple[dict[tuple[int, int], Failure], bool]:
    """Compute all runs of all members into ``kept``; return what failed, by member and run, and whether Ctrl-C ended
    it.

    ``tick`` is told the number of runs that are finished.
    """
    blocks = -(-runs // BLOCK_RUNS)
    units = len(members) * blocks
    queue, stop, lock = iter(range(units)), threading.Event(), threading.Lock()
    times = plan.t0 + plan.saves * plan.h
    failures: dict[tuple[int, int], Failure] = {}
    finished = [0]
    compiled_advance()  # once, before threads ask for it

    def worker() -> None:
        try:
            for unit in queue:
                if stop.is_set() or not one_block(*divmod(unit, blocks)):
                    return
        except BaseException:
            stop.set()
            raise

    def one_block(member: int, block: int) -> bool:
        system, measure = members.system(member), members.measure(member)
        for run in range(block * BLOCK_RUNS, min(runs, (block + 1) * BLOCK_RUNS)):
            states = np.full((len(times), len(system.y0)), np.nan)
            outcome = path(system, plan, streams.of(member, run), states, stop.is_set)
            if outcome is False:
                return False
            kept.add(member, run, measure(times, states))
            with lock:
                finished[0] += 1
                if isinstance(outcome, Failure):
                    failures[member, run] = outcome
        kept.finish(member, block)
        return True

    interrupted = run_in_threads(worker, min(threads, units), stop, lambda: tick(finished[0]))
    return failures, interrupted
