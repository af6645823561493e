"""Other people's integrators on the compiled right-hand side of a benchmark, called as cheaply as each can be.

Each function takes a ``Compiled`` and returns a ``Solver``, or None where its package is not installed.
"""

import ctypes
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from problems import model, parameters, start
from scipy.integrate import odeint, solve_ivp

from effdyn import solve
from effdyn.solve.integrators.dop853 import Method, _call
from effdyn.solve.integrators.trajectory import compute_trajectory
from effdyn.solve.kernels.kernel import Kernel
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

SPAN = (0.0, 300.0)
Solver = Callable[[float, np.ndarray | None], tuple[np.ndarray, np.ndarray]]
"""From rtol and output times (None: own steps) to times (T,) and states (T, n); atol is rtol / 100."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The committee of the benchmarks at one size."""

    kernel: Kernel
    y0: np.ndarray
    par: np.ndarray
    n_work: int


def committee(K: int) -> Compiled:
    """Return K students of K teachers."""
    dynamics = model().dynamics()
    inputs = read_inputs(dynamics, start(K), parameters(K))
    kernel = solve.kernel(dynamics, inputs.sizes)
    y0, par = pack(dynamics.states, inputs.y0), parameter_vector(dynamics, inputs)
    return Compiled(kernel, y0, par, kernel.workspace_size(inputs.sizes))


def ours(problem: Compiled, method: Method | None = None) -> Solver:
    """Return one of our own methods; DOP853 by default."""

    def run(rtol: float, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        r = compute_trajectory(
            problem.kernel.address, problem.y0, SPAN, problem.par, problem.n_work,
            rtol=rtol, atol=rtol / 100, t_eval=grid, method=method,
        )  # fmt: skip
        return r.t, r.y

    return run


def python_function(problem: Compiled) -> Callable[[float, np.ndarray], np.ndarray]:
    """Return the cheapest Python function that SciPy may call: addresses are taken once, only the result is copied."""
    state, out = np.empty_like(problem.y0), np.empty_like(problem.y0)
    arrays = (state, out, problem.par, np.zeros(problem.n_work))
    function, addresses = problem.kernel.function, tuple(array.ctypes.data for array in arrays)

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        assert arrays  # held here: the kernel knows only their addresses
        state[:] = y
        function(t, *addresses)
        return out.copy()  # SciPy keeps the last one from step to step

    return rhs


def scipys(problem: Compiled) -> Solver:
    """Return SciPy's DOP853."""
    rhs = python_function(problem)

    def run(rtol: float, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        r = solve_ivp(rhs, SPAN, problem.y0, method="DOP853", t_eval=grid, rtol=rtol, atol=rtol / 100)
        return r.t, r.y.T

    return run


def odeints(problem: Compiled) -> Solver:
    """Return SciPy's odeint, which needs output times."""
    rhs = python_function(problem)

    def run(rtol: float, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        assert grid is not None
        return grid, odeint(rhs, problem.y0, grid, tfirst=True, rtol=rtol, atol=rtol / 100, mxstep=10_000)

    return run


def cyrks(problem: Compiled) -> Solver | None:
    """Return CyRK's DOP853, in C++ from end to end: its entry point is called without its own compiled wrapper."""
    try:
        entry = importlib.import_module("CyRK.nb.numba_solver")
        number = importlib.import_module("CyRK.cy.pyhelpers").find_ode_method_int("DOP853")
    except ImportError:
        return None
    address, n, n_par = problem.kernel.address, problem.y0.size, problem.par.size
    arguments = np.concatenate([problem.par, np.zeros(problem.n_work + 1)])
    n_arguments = arguments.size

    @numba.cfunc(entry.cyjit_sig)
    def rhs(dy, t, y, extra):  # type: ignore[no-untyped-def]  # its order of arguments, handed on to ours
        both = numba.carray(extra, n_arguments)
        _call(address, t, numba.carray(y, n), numba.carray(dy, n), both, both[n_par:])

    def run(rtol: float, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        times = np.empty(0) if grid is None else grid
        relative, absolute = np.array([rtol]), np.array([rtol / 100])
        solution = entry.c_numba_cysolve_ivp(
            rhs.address, *SPAN, problem.y0.ctypes.data, n, number, 0, 0,
            arguments.ctypes.data, arguments.nbytes, 0, 2000, False, times.ctypes.data, times.size, None, None, 0,
            relative.ctypes.data, 1, absolute.ctypes.data, 1, math.inf, 0.0, False,
        )  # fmt: skip
        try:
            assert entry.c_get_success(solution), "CyRK failed"
            count = entry.c_get_size(solution)
            t = np.ctypeslib.as_array(entry.c_get_t_ptr(solution), (count,)).copy()
            y = np.ctypeslib.as_array(entry.c_get_y_ptr(solution), (count, n)).copy()
        finally:
            entry.c_free(ctypes.c_void_p(solution))
        return t, y

    return run


@numba.njit(error_model="numpy")
def _euler(address, y, par, work, dt, steps, every, out):  # type: ignore[no-untyped-def]  # Numba has the types
    dy = np.empty_like(y)
    for step in range(steps):
        if step % every == 0:
            out[step // every] = y
        _call(address, step * dt, y, dy, par, work)
        for i in range(y.size):
            y[i] += dt * dy[i]
    out[-1] = y


def euler(problem: Compiled, dt: float, grid: np.ndarray) -> np.ndarray:
    """Return the states at the times of an evenly spaced grid from 0 on, by Euler's steps, as a compiled loop."""
    every = round((grid[1] - grid[0]) / dt)
    out = np.empty((len(grid), problem.y0.size))
    steps = every * (len(grid) - 1)
    _euler(problem.kernel.address, problem.y0.copy(), problem.par, np.zeros(problem.n_work), dt, steps, every, out)
    return out
