"""Running replicas: in threads or by an executor, with progress, Ctrl-C and a place for what is finished.

Knows nothing of models: a replica is what has ``block``, ``advance(steps)`` and ``state()``.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tqdm import tqdm

from effdyn.derive.errors import ModelError

from .asked import Times
from .unfinished import Part, Unfinished

State = dict[str, np.ndarray]
Job = tuple[int, int]
"""A run, and d."""
PORTIONS, LARGEST = 64, 32
"""An executor's jobs are handed out in about so many portions, of at most so many replicas: a replica may take less
time than its sending."""


@dataclass(frozen=True, slots=True)
class Divergence:
    step: int
    state: State


Outcome = State | Divergence | None
"""What became of a replica; None if it was stopped before its end."""


def forget(job: Job, outcome: State | Divergence) -> None:
    """Keep an outcome nowhere."""


def run_all(
    jobs: Sequence[Job],
    replica: Callable[[int, int], Any],
    times: Times,
    threads: int,
    progress: bool | tqdm,
    keep: Callable[[Job, State | Divergence], None] = forget,
    unfinished: Unfinished | None = None,
) -> tuple[dict[Job, Outcome], bool]:
    """Run every job in threads; return what became of each, and whether Ctrl-C stopped it.

    ``progress`` is the bar, or whether to show one. ``keep`` is called with each job that has ended, in the thread that
    ran it. Replicas go on from what is in ``unfinished``, and are kept there while they run and when they are stopped.
    """
    stop, interrupted = threading.Event(), False
    outcomes: dict[Job, Outcome] = {}
    queue = iter(enumerate(jobs))  # threads take from it one by one
    done = [0] * len(jobs)  # steps made: each replica writes its own entry, the bar reads all

    def work() -> None:
        for index, (run, d) in queue:
            if stop.is_set():
                return
            part = unfinished.of(run, d) if unfinished else None
            outcome = _trajectory(replica(run, d), times.steps[d], stop, done, index, part)
            outcomes[run, d] = outcome
            if outcome is not None:
                keep((run, d), outcome)
                if unfinished:
                    unfinished.forget(run, d)

    with (
        nullcontext(progress) if isinstance(progress, tqdm) else progress_bar(jobs, times, None, progress) as bar,
        ThreadPoolExecutor(threads, thread_name_prefix="effdyn-simulate") as pool,
    ):
        before = bar.n
        try:
            workers = [pool.submit(work) for _ in range(threads)]
            pending = set(workers)
            while pending:
                ready, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                for worker in ready:
                    worker.result()  # an error in a replica ends the rest
                bar.update(before + sum(done) - bar.n)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            stop.set()
    return outcomes, interrupted


def run_elsewhere(
    jobs: Sequence[Job],
    replica: Callable[[int, int], Any],
    times: Times,
    executor: Executor,
    progress: bool | tqdm,
    keep: Callable[[Job, State | Divergence], None] = forget,
    unfinished: Unfinished | None = None,
) -> tuple[dict[Job, Outcome], bool]:
    """Have every job run by an executor; return what became of each, and whether Ctrl-C stopped it.

    ``keep`` is called here, with each job that has ended; ``unfinished`` is written where the job runs.
    """
    what = replica, times, unfinished
    task = what if isinstance(executor, ThreadPoolExecutor) else _pickled(*what)
    outcomes: dict[Job, Outcome] = {}
    size = max(1, min(LARGEST, len(jobs) // PORTIONS))
    interrupted = False
    with nullcontext(progress) if isinstance(progress, tqdm) else progress_bar(jobs, times, executor, progress) as bar:
        pending = {executor.submit(run_portion, task, jobs[i : i + size]) for i in range(0, len(jobs), size)}

        def collect(portions: Iterable[Future]) -> None:
            for portion in portions:
                for job, outcome in portion.result():
                    outcomes[job] = outcome
                    keep(job, outcome)
                    if unfinished:
                        unfinished.forget(*job)
                    bar.update()
                pending.discard(portion)

        try:
            while pending:
                collect(wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION).done)
        except KeyboardInterrupt:
            interrupted = True
            begun = [portion for portion in pending if not portion.cancel()]
            collect(p for p in begun if p.done() and p.exception() is None)
        finally:
            for portion in pending:
                portion.cancel()
    return outcomes, interrupted


def progress_bar(jobs: Sequence[Job], times: Times, executor: Executor | None, progress: bool) -> tqdm:
    """Return the bar of some jobs, on terminals: of steps, or of replicas where an executor runs them elsewhere."""
    disable = None if progress else True
    if executor is not None:
        return tqdm(total=len(jobs), unit="replica", disable=disable)
    return tqdm(total=sum(int(times.steps[d][-1]) for _, d in jobs), unit="step", unit_scale=True, disable=disable)


def run_portion(task: Any, jobs: Sequence[Job]) -> list[tuple[Job, State | Divergence]]:
    """Return what became of some jobs; ``task`` is (replica, times, unfinished), or that pickled."""
    replica, times, unfinished = _opened(task) if isinstance(task, bytes) else task
    found = []
    for run, d in jobs:
        part = unfinished.of(run, d) if unfinished else None
        outcome = _trajectory(replica(run, d), times.steps[d], threading.Event(), [0], 0, part)
        assert outcome is not None  # nobody stops it
        found.append(((run, d), outcome))
    return found


def _pickled(*task: Any) -> bytes:
    """Return a task as bytes, which cost little to send again, and which a process opens once."""
    try:
        return pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        accepted = "threads where something cannot be sent to another process, such as a lambda"
        raise ModelError("executor", error, accepted) from error


@lru_cache(maxsize=1)
def _opened(task: bytes) -> Any:
    return pickle.loads(task)


def _trajectory(
    replica: Any, saves: np.ndarray, stop: threading.Event, done: list[int], index: int, part: Part | None = None
) -> Outcome:
    """Advance one replica through its saves, from where ``part`` is; return its states there, with t as first axis."""
    step, saved = part.resume(replica) if part else (0, [])

    def state() -> State:
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below, and reported as divergence
            return replica.state()

    for save in saves[len(saved) :].tolist():
        while step < save:
            stopped = stop.is_set()
            if part and (stopped or part.due):
                part.write(replica, step, saved)
            if stopped:
                return None
            wanted = min(replica.block, save - step)
            made = replica.advance(wanted)
            step += made
            done[index] = step
            if made < wanted:
                return Divergence(step, state())
        reached = state()
        if not all(np.isfinite(array).all() for array in reached.values()):
            return Divergence(step, reached)
        saved.append(reached)
    return {name: np.stack([reached[name] for reached in saved]) for name in saved[0]}
