"""What the benchmarks share: a row of the table, and how two alternatives are timed side by side.

Every figure is a ratio against a named alternative, measured in the same run: seconds age with the machine, ratios
hardly do.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ``measured`` in ``unit``, and its ``ratio`` to what it is ``against``; no target, no judgement."""

    name: str
    measured: float
    unit: str
    ratio: float
    against: str
    target: str = ""
    met: bool | None = None


def interleaved(
    work: Mapping[str, Callable[[], object]],
    repeats: int,
    least: float = 2e-3,
    clock: Callable[[], float] = time.thread_time,
) -> dict[str, float]:
    """Return the seconds of each piece of work, the least of ``repeats`` rounds in which all take turns.

    Other jobs on the machine only ever add time, and taking turns gives everyone the same weather. The clock counts the
    CPU time of this thread, so that being preempted does not count. What is shorter than ``least`` seconds is repeated
    within its turn.
    """
    counts = {name: _count(job, least, clock) for name, job in work.items()}
    best = dict.fromkeys(work, float("inf"))
    for _ in range(repeats):
        for name, job in work.items():
            best[name] = min(best[name], _seconds(job, counts[name], clock) / counts[name])
    return best


def _seconds(job: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(count):
        job()
    return clock() - start


def _count(job: Callable[[], object], least: float, clock: Callable[[], float]) -> int:
    """Return how often a job must be repeated to take ``least`` seconds; running it also warms it up."""
    count = 1
    job()
    while (seconds := _seconds(job, count, clock)) < least and count < 1 << 20:
        count = max(2 * count, int(count * least / max(seconds, 1e-7)))
    return count
