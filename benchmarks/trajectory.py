"""One trajectory: the compiled DOP853 against SciPy's, which calls the same compiled right-hand side from Python.

Two ratios: at the same rtol, and at the same achieved error, read off both work–precision curves. Then DOPRI5 against
DOP853 at low accuracy, and Radau5 against SciPy's on a stiff problem.
"""

import functools
from collections.abc import Callable

import numpy as np
import sympy
from problems import model, parameters, start
from scipy.integrate import solve_ivp
from timing import Row, interleaved

from effdyn import derive, solve
from effdyn.derive.dynamics import Equation
from effdyn.solve.integrators.dop853 import Method, Trajectory, dop853
from effdyn.solve.integrators.other_methods import DOPRI5
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

SPAN = (0.0, 300.0)
GRID = np.linspace(*SPAN, 201)
RTOLS = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
NOMINAL = RTOLS.index(1e-8)
TARGET = 30.0

Solver = Callable[[float, np.ndarray | None], tuple[np.ndarray, np.ndarray]]
"""From rtol and output times (None: own steps) to times (T,) and states (T, n)."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    for K in (2,) if quick else (2, 4, 10):
        ours, scipys = _solvers(K)
        for grid, output in ((GRID, "201 output times"), (None, "own steps")):
            name = f"K = M = {K}, {output}"
            seconds, errors = _curves(ours, scipys, grid, _repeats(K, quick))
            plain = seconds["SciPy"][NOMINAL] / seconds["ours"][NOMINAL]
            equal = _at_error(seconds["SciPy"], errors["SciPy"], errors["ours"][NOMINAL]) / seconds["ours"][NOMINAL]
            milliseconds = 1e3 * seconds["ours"][NOMINAL]
            against = f"SciPy's DOP853 (its error {errors['SciPy'][NOMINAL]:.1e})"
            rows.append(Row(f"{name}, rtol 1e-8", milliseconds, "ms", plain, against))
            target = (f">= {TARGET:g}", equal >= TARGET) if K == 2 else ()
            rows.append(
                Row(
                    f"{name}, error {errors['ours'][NOMINAL]:.1e}",
                    milliseconds,
                    "ms",
                    equal,
                    "SciPy's DOP853, equal error",
                    *target,
                )
            )
    return [*rows, _low_accuracy(quick), _stiff(quick)]


def _low_accuracy(quick: bool) -> Row:
    """Return the row of DOPRI5, at the error that it reaches at rtol 1e-5, against DOP853 at that error."""
    ours, _ = _solvers(2)
    cheaper, _ = _solvers(2, DOPRI5)
    rtols = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
    work = {f"{r}": functools.partial(ours, r, GRID) for r in rtols} | {"DOPRI5": lambda: cheaper(1e-5, GRID)}
    seconds = interleaved(work, 5 if quick else 25)
    errors = np.array([_error(*ours(r, GRID), ours) for r in rtols])
    error = _error(*cheaper(1e-5, GRID), ours)
    alternative = _at_error(np.array([seconds[f"{r}"] for r in rtols]), errors, error)
    name = f"DOPRI5, K = M = 2, 201 output times, error {error:.1e}"
    return Row(name, 1e3 * seconds["DOPRI5"], "ms", alternative / seconds["DOPRI5"], "DOP853, equal error")


def _stiff(quick: bool) -> Row:
    """Return the row of Radau5 on van der Pol's oscillator, damping 1000, at rtol 1e-6."""
    x, y = sympy.symbols("x y", real=True)
    drift = (Equation(derive.Quantity("x"), y), Equation(derive.Quantity("y"), 1000 * (1 - x**2) * y - x))
    stiff = derive.Dynamics("van der Pol's oscillator", "ode", "t", drift)
    given = (stiff, (0, 2000), {"x": 2.0, "y": 0.0}, {})

    def run(method: str) -> Callable[[], object]:
        return lambda: solve.integrate(*given, method=method, rtol=1e-6, atol=1e-8)

    seconds = interleaved({m: run(m) for m in ("Radau5", "scipy:Radau")}, 3 if quick else 7)
    ratio = seconds["scipy:Radau"] / seconds["Radau5"]
    return Row("Radau5, van der Pol, rtol 1e-6", 1e3 * seconds["Radau5"], "ms", ratio, "SciPy's Radau, same rtol")


def _repeats(K: int, quick: bool) -> int:
    return 5 if quick else {2: 25, 4: 15, 10: 7}[K]


def _curves(
    ours: Solver, scipys: Solver, grid: np.ndarray | None, repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return seconds and largest errors of both at each rtol."""
    solvers = {"ours": ours, "SciPy": scipys}

    def job(solver: Solver, rtol: float) -> Callable[[], object]:
        return lambda: solver(rtol, grid)

    measured = interleaved({f"{n} {r}": job(s, r) for n, s in solvers.items() for r in RTOLS}, repeats)
    seconds = {n: np.array([measured[f"{n} {r}"] for r in RTOLS]) for n in solvers}
    errors = {n: np.array([_error(*s(r, grid), ours) for r in RTOLS]) for n, s in solvers.items()}
    return seconds, errors


def _error(t: np.ndarray, y: np.ndarray, ours: Solver) -> float:
    """Return the largest error of any order parameter at any of the times, against rtol = 1e-13."""
    return float(np.abs(y - ours(1e-13, t)[1]).max())


def _at_error(seconds: np.ndarray, errors: np.ndarray, error: float) -> float:
    """Return the time at which a work–precision curve reaches an error, linear between points in logarithms."""
    order = np.argsort(errors)
    assert errors.min() <= error <= errors.max(), "the curve does not reach this error: widen RTOLS"
    return float(np.exp(np.interp(np.log(error), np.log(errors[order]), np.log(seconds[order]))))


def _solvers(K: int, method: Method | None = None) -> tuple[Solver, Solver]:
    dynamics = model().dynamics()
    inputs = read_inputs(dynamics, start(K), parameters(K))
    kernel = solve.kernel(dynamics, inputs.sizes)
    y0 = pack(dynamics.states, inputs.y0)
    par = parameter_vector(dynamics, inputs)
    n_work = kernel.workspace_size(inputs.sizes)

    def ours(rtol: float, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        r: Trajectory = dop853(
            kernel.address, y0, SPAN, par, n_work, rtol=rtol, atol=rtol / 100, t_eval=grid, method=method
        )
        return r.t, r.y

    # As cheap as a Python function can be that SciPy may call: addresses are taken once, and only the result is copied.
    state, out = np.empty_like(y0), np.empty_like(y0)
    arrays = (state, out, par, np.zeros(n_work))
    function, addresses = kernel.function, tuple(array.ctypes.data for array in arrays)

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        state[:] = y
        function(t, *addresses)
        return out.copy()  # SciPy keeps the last one from step to step

    def scipys(rtol: float, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        r = solve_ivp(rhs, SPAN, y0, method="DOP853", t_eval=grid, rtol=rtol, atol=rtol / 100)
        assert arrays  # held here: the kernel knows only their addresses
        return r.t, r.y.T

    reference, referee = ours(1e-13, GRID)[1], scipys(1e-13, GRID)[1]
    np.testing.assert_allclose(reference, referee, atol=1e-9)  # the reference, checked by the other implementation
    return ours, scipys
