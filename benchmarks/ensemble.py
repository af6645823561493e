"""Ten thousand trajectories: ``solve.ensemble`` against a loop over SciPy's ``solve_ivp`` on the same right-hand side.

Both are counted in CPU seconds per trajectory, SciPy's from a sample: what joblib's processes make of that loop is at
best divided by the number of processors, and so is ours, as the row on scaling says. That row counts wall time: it
means little while other jobs have the processors.
"""

import importlib
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from problems import model, parameters
from scipy.integrate import solve_ivp
from timing import Row

from effdyn import solve
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

ensemble = importlib.import_module("effdyn.solve.ensembles.ensemble").ensemble

SPAN = (0.0, 300.0)
GRID = np.linspace(*SPAN, 200)
RTOL = 1e-8
TARGET, SCALING = 100.0, 0.95

Members = tuple[dict[str, Any], dict[str, Any]]


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    count, sample, repeats = (500, 8, 2) if quick else (10_000, 50, 3)
    members, cores = _members(count), os.cpu_count() or 1
    _ours(_first(members, 4), 1)  # compiled, or loaded
    cpu, theirs, one, all_cores = [], [], [], []
    for _ in range(repeats):  # in turns, so that all have the same weather
        cpu.append(_seconds(lambda: _ours(members, 1), time.process_time))
        theirs.append(_seconds(lambda: _scipys(_first(members, sample)), time.process_time) * count / sample)
        one.append(_seconds(lambda: _ours(members, 1), time.perf_counter))
        all_cores.append(_seconds(lambda: _ours(members, cores), time.perf_counter))
    ratio, scaling = min(theirs) / min(cpu), min(one) / min(all_cores) / cores
    name = f"{count} trajectories, K = M = 2, rtol {RTOL:g}"
    against = "a loop over SciPy's DOP853"
    perfect = f"{cores} times one thread"
    extra = _memory(_first(members, min(count, 2000)))
    return [
        Row(name, 1e6 * min(cpu) / count, "µs of CPU each", ratio, against, f">= {TARGET:g}", ratio >= TARGET),
        Row(f"{name}, {cores} threads", min(all_cores), "s", scaling, perfect, f">= {SCALING:g}", scaling >= SCALING),
        Row("largest memory in use", extra[0] / 2**20, "MiB", extra[0] / extra[1], "the output alone"),
    ]


def _members(count: int) -> Members:
    """Return members with learning rates and initial overlaps of their own."""
    rng = np.random.default_rng(0)
    R = 1e-3 * rng.standard_normal((count, 2, 2))
    return {"Q": np.diag([0.5, 0.6]), "R": R}, parameters(2) | {"eta": rng.uniform(0.2, 1.5, count)}


def _first(members: Members, count: int) -> Members:
    y0, params = members
    return y0 | {"R": y0["R"][:count]}, params | {"eta": params["eta"][:count]}


def _seconds(job: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    job()
    return clock() - start


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


def _scipys(members: Members) -> list[np.ndarray]:
    """Integrate the members one by one; the right-hand side is as cheap as Python allows."""
    dynamics, (y0, params) = model().dynamics(), members
    function, results = solve.kernel(dynamics).function, []
    for eta, R in zip(params["eta"], y0["R"], strict=True):
        inputs = read_inputs(dynamics, y0 | {"R": R}, params | {"eta": eta})
        par, start = parameter_vector(dynamics, inputs), pack(dynamics.states, inputs.y0)
        state, out = np.empty_like(start), np.empty_like(start)
        work = np.zeros(solve.kernel(dynamics).workspace_size(inputs.sizes))
        addresses = tuple(array.ctypes.data for array in (state, out, par, work))

        def rhs(t: float, y: np.ndarray, state: Any = state, out: Any = out, addresses: Any = addresses) -> np.ndarray:
            state[:] = y
            function(t, *addresses)
            return np.array(out)

        solved = solve_ivp(rhs, SPAN, start, method="DOP853", t_eval=GRID, rtol=RTOL, atol=RTOL / 100)
        assert len(par) and len(work)  # held until here: the kernel knows only their addresses
        results.append(solved.y)
    return results
