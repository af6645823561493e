"""Ten thousand trajectories: ``solve.ensemble`` against others on the same right-hand side, at the same tolerances.

All are counted in CPU seconds per trajectory, the others' from a sample: what threads or joblib's processes make of a
loop is at best divided by the number of processors, and so is ours, as the row on scaling says. That row counts wall
time: it means little while other jobs have the processors. SciPy's ``solve_ivp`` is called in a loop, CyRK's DOP853 by
the address of its C function, without Python in between, where it is installed.
"""

import importlib
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic
from problems import model, parameters
from scipy.integrate import solve_ivp
from timing import Row

from effdyn import solve
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

ensemble = importlib.import_module("effdyn.solve.ensembles.ensemble").ensemble

SPAN = (0.0, 300.0)
GRID = np.linspace(*SPAN, 200)
RTOL = 1e-8
TARGET, CYRK_TARGET, SCALING = 100.0, 2.0, 0.95

SIZES = {"K": 2, "M": 2}

Members = tuple[dict[str, Any], dict[str, Any]]
Packed = list[tuple[np.ndarray, np.ndarray]]


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    count, sample, repeats = (500, 8, 2) if quick else (10_000, 50, 3)
    members, cores = _members(count), os.cpu_count() or 1
    _ours(_first(members, 4), 1)  # compiled, or loaded
    cyrk, few, more = _cyrk(), _packed(_first(members, sample)), _packed(_first(members, 10 * sample))
    cpu, theirs, cyrks, one, all_cores = [], [], [], [], []
    for _ in range(repeats):  # in turns, so that all have the same weather
        cpu.append(_seconds(lambda: _ours(members, 1), time.process_time))
        theirs.append(_seconds(lambda: _scipys(few), time.process_time) * count / sample)
        if cyrk:
            of_cyrk = _seconds(lambda: cyrk(more), time.process_time)
            cyrks.append(of_cyrk * count / (10 * sample))
        one.append(_seconds(lambda: _ours(members, 1), time.perf_counter))
        all_cores.append(_seconds(lambda: _ours(members, cores), time.perf_counter))
    ratio, scaling = min(theirs) / min(cpu), min(one) / min(all_cores) / cores
    name = f"{count} trajectories, K = M = 2, rtol {RTOL:g}"
    against = "a loop over SciPy's DOP853"
    perfect = f"{cores} times one thread"
    extra = _memory(_first(members, min(count, 2000)))
    each = 1e6 * min(cpu) / count, "µs of CPU each"
    rows = [Row(name, *each, ratio, against, f">= {TARGET:g}", ratio >= TARGET)]
    if cyrks:
        faster = min(cyrks) / min(cpu)
        rows.append(Row(name, *each, faster, "CyRK's DOP853, in C", f">= {CYRK_TARGET:g}", faster >= CYRK_TARGET))
    return [
        *rows,
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


@intrinsic
def _call(typing_context, address, t, y, dy, par, n_par):  # type: ignore[no-untyped-def]  # Numba has no types
    """Call the kernel whose address is ``address``; the workspace follows the parameters."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        double, pointer = ir.DoubleType(), ir.DoubleType().as_pointer()
        function = ir.FunctionType(ir.VoidType(), [double, *[pointer] * 4])
        kernel, t, y, dy, par, n_par = arguments
        builder.call(builder.inttoptr(kernel, function.as_pointer()), [t, y, dy, par, builder.gep(par, [n_par])])
        return context.get_dummy_value()

    return types.void(types.int64, types.float64, y, dy, par, types.int64), generate


@intrinsic
def _after(typing_context, pointer, n):  # type: ignore[no-untyped-def]
    """Return the pointer n doubles further on."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), generate


@cfunc("void(CPointer(float64), float64, CPointer(float64), CPointer(float64), voidptr)")
def _for_cyrk(dy, t, y, args, _):  # type: ignore[no-untyped-def]
    """Be the right-hand side in CyRK's convention: ``args`` holds its address and the number of parameters first."""
    _call(int(args[0]) * 4096 + int(args[1]), t, y, dy, _after(args, 3), int(args[2]))


def _packed(members: Members) -> Packed:
    """Return parameters and initial state of each member, as the kernel wants them."""
    dynamics, (y0, params) = model().dynamics(), members
    inputs = (
        read_inputs(dynamics, y0 | {"R": R}, params | {"eta": eta})
        for eta, R in zip(params["eta"], y0["R"], strict=True)
    )
    return [(parameter_vector(dynamics, i), pack(dynamics.states, i.y0)) for i in inputs]


def _cyrk() -> Callable[[Packed], list[np.ndarray]] | None:
    """Return what integrates members one by one by CyRK's DOP853; ``None`` without CyRK."""
    try:
        solver = importlib.import_module("CyRK.nb.numba_solver")
        method = importlib.import_module("CyRK.cy.pyhelpers").find_ode_method_int("DOP853")
    except ImportError:
        return None
    rtol, atol = np.array([RTOL]), np.array([RTOL / 100])
    kernel = solve.kernel(model().dynamics(), SIZES)

    def run(members: Packed) -> list[np.ndarray]:
        results, work = [], np.zeros(kernel.workspace_size(SIZES))
        for par, start in members:
            args = np.concatenate([[kernel.address // 4096, kernel.address % 4096, len(par)], par, work])
            found = solver.c_numba_cysolve_ivp(
                _for_cyrk.address, *SPAN, start.ctypes.data, start.size, method, 0, 0, args.ctypes.data, args.nbytes,
                100_000, 2000, False, GRID.ctypes.data, GRID.size, 0, 0, 0,
                rtol.ctypes.data, 1, atol.ctypes.data, 1, np.inf, 0.0, False,
            )  # fmt: skip
            assert solver.c_get_success(found)
            size = solver.c_get_size(found) * start.size
            results.append(np.ctypeslib.as_array(solver.c_get_y_ptr(found), (size,)).reshape(-1, start.size).T.copy())
            solver.c_free(found)
        return results

    return run


def _scipys(members: Packed) -> list[np.ndarray]:
    """Integrate the members one by one; the right-hand side is as cheap as Python allows."""
    kernel, results = solve.kernel(model().dynamics(), SIZES), []
    function, work = kernel.function, np.zeros(kernel.workspace_size(SIZES))
    for par, start in members:
        state, out = np.empty_like(start), np.empty_like(start)
        addresses = tuple(array.ctypes.data for array in (state, out, par, work))

        def rhs(t: float, y: np.ndarray, state: Any = state, out: Any = out, addresses: Any = addresses) -> np.ndarray:
            state[:] = y
            function(t, *addresses)
            return np.array(out)

        solved = solve_ivp(rhs, SPAN, start, method="DOP853", t_eval=GRID, rtol=RTOL, atol=RTOL / 100)
        assert len(par) and len(work)  # held until here: the kernel knows only their addresses
        results.append(solved.y)
    return results
