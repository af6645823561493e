"""Other ways to ten thousand trajectories of the committee, each as fast as its users would make it.

Each function returns what solves a sample of members, or None where its package is not installed.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic
from problems import model
from scipy.integrate import solve_ivp

from effdyn import solve
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

SPAN = (0.0, 300.0)
GRID = np.linspace(*SPAN, 200)
RTOL = 1e-8
SIZES = {"K": 2, "M": 2}
Members = tuple[dict[str, Any], dict[str, Any]]
Packed = list[tuple[np.ndarray, np.ndarray]]
Solver = Callable[[Packed], list[np.ndarray]]
"""From members to the states of each at the times of the grid, (n, T)."""


def packed(members: Members) -> Packed:
    """Return parameters and initial state of each member, as the kernel wants them."""
    dynamics, (y0, params) = model().dynamics(), members
    inputs = (
        read_inputs(dynamics, y0 | {"R": R}, params | {"eta": eta})
        for eta, R in zip(params["eta"], y0["R"], strict=True)
    )
    return [(parameter_vector(dynamics, i), pack(dynamics.states, i.y0)) for i in inputs]


def scipys(members: Packed) -> list[np.ndarray]:
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


def joblibs() -> Solver | None:
    """Return SciPy's in as many processes as there are processors."""
    try:
        joblib = importlib.import_module("joblib")
    except ImportError:
        return None
    count = os.cpu_count() or 1

    def run(members: Packed) -> list[np.ndarray]:
        parts = joblib.Parallel(n_jobs=count)(joblib.delayed(scipys)(members[n::count]) for n in range(count))
        return [states for part in parts for states in part]

    return run


def diffraxes(method: str) -> Solver | None:
    """Return diffrax's solver of that name, over all members by ``vmap``, on the written-out equations in JAX."""
    try:
        jax, diffrax = importlib.import_module("jax"), importlib.import_module("diffrax")
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    equations = model().dynamics().expand(**SIZES).closed().equations
    inputs, left = _symbols(), [entry for entry, _ in equations]
    function = sympy.lambdify((left, inputs), [rate for _, rate in equations], modules="jax", cse=True)
    term = diffrax.ODETerm(lambda t, y, par: jax.numpy.stack(function(y, par)))
    solver, saved = getattr(diffrax, method)(), diffrax.SaveAt(ts=GRID)
    control = diffrax.PIDController(rtol=RTOL, atol=RTOL / 100)

    def one(par: Any, start: Any) -> Any:
        found = diffrax.diffeqsolve(
            term, solver, *SPAN, None, start, args=par, saveat=saved, stepsize_controller=control, max_steps=100_000
        )
        return found.ys

    together = jax.jit(jax.vmap(one))

    def run(members: Packed) -> list[np.ndarray]:
        pars, starts = (np.stack(arrays) for arrays in zip(*members, strict=True))
        return [np.asarray(states).T for states in together(pars, starts).block_until_ready()]

    return run


def _symbols() -> list[sympy.Basic]:
    """Return the sizes, then the parameters, entry by entry: in the order in which they are packed."""
    dynamics = model().dynamics()
    entries: list[sympy.Basic] = list(dynamics.sizes)
    for q in dynamics.parameters:
        shape = tuple(SIZES[str(size)] for size in q.shape)
        entries += [q.base[tuple(n + 1 for n in at)] if shape else q.base for at in np.ndindex(shape)]
    return entries


@intrinsic
def _call(typing_context, address, t, y, dy, par, n_par):  # type: ignore[no-untyped-def]  # Numba has the types
    """Call the kernel whose address is ``address``; the workspace follows the parameters."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # Numba has the types
        double, pointer = ir.DoubleType(), ir.DoubleType().as_pointer()
        function = ir.FunctionType(ir.VoidType(), [double, *[pointer] * 4])
        kernel, t, y, dy, par, n_par = arguments
        builder.call(builder.inttoptr(kernel, function.as_pointer()), [t, y, dy, par, builder.gep(par, [n_par])])
        return context.get_dummy_value()

    return types.void(types.int64, types.float64, y, dy, par, types.int64), generate


@intrinsic
def _after(typing_context, pointer, n):  # type: ignore[no-untyped-def]  # Numba has the types
    """Return the pointer n doubles further on."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # Numba has the types
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), generate


@cfunc("void(CPointer(float64), float64, CPointer(float64), CPointer(float64), voidptr)")
def _for_cyrk(dy, t, y, args, _):  # type: ignore[no-untyped-def]  # Numba has the types
    """Be the right-hand side in CyRK's convention: ``args`` holds its address and the number of parameters first."""
    _call(int(args[0]) * 4096 + int(args[1]), t, y, dy, _after(args, 3), int(args[2]))


def cyrks() -> Solver | None:
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
