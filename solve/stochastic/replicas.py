"""Independent paths in threads, each with a random stream of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from ..stopping import give_way
from ..streams import generator
from .steps import OK, WEAK2, compiled_advance
from .system import System

NUMBERS_AT_ONCE = 16384
"""Random numbers drawn at once: 128 kB a thread. A stream gives the same numbers however they are drawn."""
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The steps of every path.

    Attributes
    ----------
    scheme : int
        As in steps.py.
    t0, h : float
        First time, and length of a step.
    substeps : int
        Increments of the Brownian motions in a step.
    saves : ndarray (T,) of int
        The numbers of steps after which the state is kept, ascending.
    """

    scheme: int
    t0: float
    h: float
    substeps: int
    saves: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """A path that could not go on: why (as in steps.py), the time, and the last state that was finite."""

    why: int
    t: float
    y: np.ndarray


def path(
    system: System, plan: Plan, numbers: np.random.Generator, out: np.ndarray, stopped: Callable[[], bool]
) -> Failure | bool:
    """Integrate one path into ``out``, (T, n); return how it failed, or whether it was finished before a stop."""
    advance, y = compiled_advance(), system.y0.copy()
    scratch, clock = system.scratch(), np.zeros(2, np.int64)
    out[plan.saves == 0] = y
    clock[1] = np.count_nonzero(plan.saves == 0)
    width = system.m if plan.scheme != WEAK2 else system.m * (system.m + 1) // 2
    total = int(plan.saves[-1])
    block = min(max(1, NUMBERS_AT_ONCE // (width * plan.substeps)), total)
    draws = np.empty((block * plan.substeps, width))
    draw = numbers.random if plan.scheme == WEAK2 else numbers.standard_normal
    while clock[0] < total:
        if stopped():
            return False
        drawn = draws[: min(block, total - int(clock[0])) * plan.substeps]
        draw(out=drawn)
        why = advance(
            plan.scheme, system.drift.address, system.diffusion.address, system.factored, system.entries,
            plan.t0, plan.h, clock, plan.substeps, y, system.par, *scratch,
            drawn, plan.saves, out,
        )  # fmt: skip
        if why != OK:
            return Failure(why, plan.t0 + float(clock[0]) * plan.h, y)
    return True


def run_all(
    system: System,
    plan: Plan,
    runs: int,
    root: np.random.SeedSequence,
    threads: int,
    tick: Callable[[int], object] | None,
) -> tuple[np.ndarray, dict[int, Failure | bool], bool]:
    """Integrate all runs; return their states (runs, T, n), what became of those that were begun, and whether Ctrl-C
    ended it.

    ``tick`` is told the number of runs that are finished.
    """
    out = np.empty((runs, len(plan.saves), len(system.y0)))
    outcomes: dict[int, Failure | bool] = {}
    stop, queue = threading.Event(), iter(range(runs))  # threads take from it one by one
    compiled_advance()  # once, before threads ask for it

    def worker() -> None:
        for run in queue:
            if stop.is_set():
                return
            outcomes[run] = path(system, plan, generator(root, run), out[run], stop.is_set)

    def told() -> None:
        if tick is not None:
            tick(len(outcomes))

    return out, outcomes, run_in_threads(worker, min(threads, runs), stop, told)


def run_in_threads(worker: Callable[[], None], threads: int, stop: threading.Event, tick: Callable[[], object]) -> bool:
    """Run ``worker`` in some threads until all return; return whether Ctrl-C ended it, of which ``stop`` tells them.

    ``tick`` is called about ten times a second, and at the end. A thread that is told to stop raises Stopped.
    """
    with ThreadPoolExecutor(threads) as pool:
        try:  # from the first thread on: a Ctrl-C that comes while the others start must stop it too
            waiting: set[Future[None]] = {pool.submit(worker) for _ in range(threads)}
            while waiting:
                done, waiting = wait(waiting, timeout=LOOK_SECONDS)
                for future in done:
                    future.result()  # an error in a path ends the rest
                tick()
                give_way()
        except KeyboardInterrupt:
            return True
        finally:
            stop.set()
    return False
