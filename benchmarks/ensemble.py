"""Ten thousand trajectories: ``solve.ensemble`` against others on the same right-hand side, at the same tolerances.

All are counted in CPU seconds per trajectory, the others' from a sample, but for joblib, whose processes have clocks of
their own: there both sides are counted in wall time on all processors, as in the row on scaling, which means little
while other jobs have the processors. The rivals (``ensemble_rivals.py``): SciPy's ``solve_ivp`` in a loop and under
joblib, CyRK's DOP853 by the address of its C function, diffrax under ``vmap``; all but SciPy where they are installed.
"""

import importlib
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from ensemble_rivals import GRID, RTOL, SPAN, Members, cyrks, diffraxes, joblibs, packed, scipys
from problems import model, parameters
from timing import Row

ensemble = importlib.import_module("effdyn.solve.ensembles.ensemble").ensemble

TARGET, CYRK_TARGET, DIFFRAX_TARGET, SCALING = 100.0, 2.0, 15.0, 0.95
VMAP = 256
"""Members to a call of diffrax."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    count, sample, repeats = (500, 8, 2) if quick else (10_000, 50, 3)
    members, cores = _members(count), os.cpu_count() or 1
    name = f"{count} trajectories, K = M = 2, rtol {RTOL:g}"
    few, more, batch = (packed(_first(members, n)) for n in (sample, 10 * sample, VMAP))
    cpu = {"a loop over SciPy's DOP853": (scipys, few, None)}
    for against, rival, target in (
        ("CyRK's DOP853, in C", cyrks(), CYRK_TARGET),
        ("diffrax's Tsit5 under vmap", diffraxes("Tsit5"), DIFFRAX_TARGET),
        ("diffrax's Dopri8 under vmap", diffraxes("Dopri8"), DIFFRAX_TARGET),
    ):
        if rival:
            cpu[against] = (rival, batch if "diffrax" in against else more, target)
    in_processes = joblibs()
    _ours(_first(members, 4), 1)  # compiled, or loaded
    for rival, theirs, _ in cpu.values():
        _check(rival(theirs[: len(theirs) if theirs is batch else 4]), members)
    if in_processes:
        in_processes(few)  # its processes have started
    seconds: dict[str, list[float]] = {}

    def time_(what: str, job: Callable[[], object], clock: Callable[[], float], each: int) -> None:
        start = clock()
        job()
        seconds.setdefault(what, []).append((clock() - start) / each)

    for _ in range(repeats):  # in turns, so that all have the same weather
        time_("ours", lambda: _ours(members, 1), time.process_time, count)
        time_("one", lambda: _ours(members, 1), time.perf_counter, count)
        time_("all", lambda: _ours(members, cores), time.perf_counter, count)
        for against, (rival, theirs, _) in cpu.items():
            time_(against, lambda rival=rival, theirs=theirs: rival(theirs), time.process_time, len(theirs))
        if in_processes:
            time_("joblib", lambda: in_processes(more), time.perf_counter, len(more))
    best = {what: min(found) for what, found in seconds.items()}
    rows = [
        _row(name, best["ours"], best[against] / best["ours"], against, target) for against, (*_, target) in cpu.items()
    ]
    if in_processes:
        rows.append(
            _row(f"{name}, {cores} threads", best["all"], best["joblib"] / best["all"], "joblib and solve_ivp", TARGET)
        )
    scaling, memory = best["one"] / best["all"] / cores, _memory(_first(members, min(count, 2000)))
    return [
        *rows,
        _row(f"{name}, {cores} threads", best["all"], scaling, f"{cores} times one thread", SCALING),
        Row("largest memory in use", memory[0] / 2**20, "MiB", memory[0] / memory[1], "the output alone"),
    ]


def _row(name: str, seconds: float, ratio: float, against: str, target: float | None) -> Row:
    each = 1e6 * seconds, "µs each"
    return Row(name, *each, ratio, against, *([] if target is None else [f">= {target:g}", ratio >= target]))


def _check(found: list[np.ndarray], members: Members) -> None:
    """Fail if a rival solved something else: its states against ours at the last time."""
    ours = _ours(_first(members, len(found)), 1)
    for n, states in enumerate(found):
        Q, R = ours.Q[n, -1].values, ours.R[n, -1].values
        assert np.abs(states[:, -1] - np.concatenate([Q[np.triu_indices(2)], R.ravel()])).max() < 1e-3


def _members(count: int) -> Members:
    """Return members with learning rates and initial overlaps of their own."""
    rng = np.random.default_rng(0)
    R = 1e-3 * rng.standard_normal((count, 2, 2))
    return {"Q": np.diag([0.5, 0.6]), "R": R}, parameters(2) | {"eta": rng.uniform(0.2, 1.5, count)}


def _first(members: Members, count: int) -> Members:
    y0, params = members
    return y0 | {"R": y0["R"][:count]}, params | {"eta": params["eta"][:count]}


def _ours(members: Members, threads: int) -> Any:
    options = {"t_eval": GRID, "rtol": RTOL, "atol": RTOL / 100}
    return ensemble(model().dynamics(), SPAN, *members, **options, threads=threads)


def _memory(members: Members) -> tuple[int, int]:
    """Return the bytes that were in use at most, and those of the output."""
    tracemalloc.start()
    try:
        output = _ours(members, 1)
        return tracemalloc.get_traced_memory()[1], output.nbytes
    finally:
        tracemalloc.stop()
