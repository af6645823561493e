"""Nanoseconds per right-hand side of the order-1/d theory: states, mean corrections and covariances at once."""

import functools
from collections.abc import Callable

import numpy as np
from numba import njit
from problems import model, parameters
from timing import Row, interleaved

from effdyn import solve
from effdyn.solve.fluctuations.problem import problem
from effdyn.solve.fluctuations.rhs import rhs_function
from effdyn.solve.fluctuations.table import tabulated
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

K, M = 3, 2
MOST = 50
"""Times the equations of motion: C has 78 entries here, J 144, H 936."""
CALLS = 200


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    theory = model("erf").dynamics().fluctuations()
    dynamics = theory.dynamics
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((K + M, 12)) / np.sqrt(12)
    gram = vectors @ vectors.T
    given = parameters(M) | {"sigma": 0.2}
    inputs = read_inputs(dynamics, {"Q": gram[:K, :K], "R": gram[:K, K:]}, given)
    system = problem(theory, inputs)
    state = pack(dynamics.states, inputs.y0)
    n = len(state)
    times = np.linspace(0, 1, 9)
    par, _ = tabulated(system, times, np.repeat(state[None], len(times), axis=0))
    y = np.concatenate([state, np.zeros(n), 0.1 * np.eye(n)[np.triu_indices(n)]])
    own = parameter_vector(dynamics, inputs)
    kernels = {"straight": solve.kernel(dynamics, inputs.sizes), "loops": solve.kernel(dynamics)}
    work = np.zeros(max(system.n_work, *(k.workspace_size(inputs.sizes) for k in kernels.values())))
    jobs = {"all": functools.partial(_repeated(rhs_function()), CALLS, y, np.zeros_like(y), par, work)}
    for name, compiled in kernels.items():
        jobs[name] = functools.partial(_repeated(compiled.function), CALLS, state, np.zeros(n), own, work)
    seconds = interleaved(jobs, 7 if quick else 40)
    ns = 1e9 * seconds["all"] / CALLS
    rows = []
    for name, against in (("straight", "the ODE's, straight-line"), ("loops", "the ODE's, in loops")):
        times_ode = seconds["all"] / seconds[name]
        rows.append(
            Row(
                f"fluctuations, erf, K = {K}, M = {M}",
                ns,
                "ns",
                1 / times_ode,
                against,
                f">= 1/{MOST}",
                times_ode <= MOST,
            )
        )
    return rows


def _repeated(function: Callable[..., None]) -> Callable[..., None]:
    """Return a compiled loop of calls of a kernel."""

    @njit
    def loop(count: int, y: np.ndarray, out: np.ndarray, par: np.ndarray, work: np.ndarray) -> None:
        for _ in range(count):
            function(0.5, y.ctypes, out.ctypes, par.ctypes, work.ctypes)

    return loop
