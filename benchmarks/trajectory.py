"""One trajectory: our compiled integrators against SciPy's, CyRK's and Euler's, on the same compiled right-hand side.

DOP853 against SciPy's, at the same rtol and at the same achieved error; DOP853 and Adams against CyRK's DOP853 and
SciPy's odeint at the same achieved error; all read off work–precision curves. Then DOPRI5 against DOP853 at low
accuracy, and Radau5 against SciPy's on a stiff problem.
"""

import functools
from collections.abc import Callable

import numpy as np
import sympy
from rivals import SPAN, Solver, committee, cyrks, euler, odeints, ours, scipys
from timing import Row, interleaved

from effdyn import derive, solve
from effdyn.derive.dynamics import Equation
from effdyn.solve.integrators.other_methods import ADAMS, DOPRI5

GRID = np.linspace(*SPAN, 201)
RTOLS = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
NOMINAL = RTOLS.index(1e-8)
TARGET = 30.0

Curve = tuple[np.ndarray, np.ndarray]
"""Seconds and largest errors at each of ``RTOLS``."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    for K in (2,) if quick else (2, 4, 10):
        rows += _against_scipy(K, quick) + _at_equal_error(K, quick)
    return [*rows, _euler(quick), _low_accuracy(quick), _stiff(quick)]


def _against_scipy(K: int, quick: bool) -> list[Row]:
    """Return the rows of DOP853 against SciPy's, with output times and at own steps."""
    rows = []
    solvers = {"ours": ours(committee(K)), "SciPy": scipys(committee(K))}
    reference, referee = solvers["ours"](1e-13, GRID)[1], solvers["SciPy"](1e-13, GRID)[1]
    np.testing.assert_allclose(reference, referee, atol=1e-9)  # the reference, checked by the other implementation
    for grid, output in ((GRID, "201 output times"), (None, "own steps")):
        name = f"K = M = {K}, {output}"
        curves = _curves(solvers, solvers["ours"], grid, _repeats(K, quick))
        (seconds, errors), (their_seconds, their_errors) = curves["ours"], curves["SciPy"]
        milliseconds = 1e3 * seconds[NOMINAL]
        plain = their_seconds[NOMINAL] / seconds[NOMINAL]
        equal = _at_error(their_seconds, their_errors, errors[NOMINAL]) / seconds[NOMINAL]
        against = f"SciPy's DOP853 (its error {their_errors[NOMINAL]:.1e})"
        rows.append(Row(f"{name}, rtol 1e-8", milliseconds, "ms", plain, against))
        target = (f">= {TARGET:g}", equal >= TARGET) if K == 2 else ()
        name = f"{name}, error {errors[NOMINAL]:.1e}"
        rows.append(Row(name, milliseconds, "ms", equal, "SciPy's DOP853, equal error", *target))
    return rows


def _at_equal_error(K: int, quick: bool) -> list[Row]:
    """Return the rows against CyRK's DOP853 (if installed) and odeint, with 201 output times.

    Errors of single runs scatter by a factor of a few about the trend, so that the time at an error is read off a line
    fitted to each curve, in logarithms.
    """
    problem = committee(K)
    solvers = {"DOP853": ours(problem), "Adams": ours(problem, ADAMS), "odeint": odeints(problem)}
    if (theirs := cyrks(problem)) is not None:
        solvers["CyRK's DOP853"] = theirs
    curves = _curves(solvers, solvers["DOP853"], GRID, _repeats(K, quick))
    seconds = {name: _trend(curve) for name, curve in curves.items()}
    name = f"K = M = {K}, 201 output times, error 1e-7"
    rows = []
    for rival, least in (("CyRK's DOP853", 0.9), ("odeint", 1.0)):
        if rival in seconds:
            best = max(seconds[rival] / seconds[method] for method in ("DOP853", "Adams"))
            for method in ("DOP853", "Adams"):
                ratio = seconds[rival] / seconds[method]
                target = (f">= {least:g}, one of ours", ratio >= least) if ratio == best else ()
                rows.append(
                    Row(f"{method}, {name}", 1e3 * seconds[method], "ms", ratio, f"{rival}, equal error", *target)
                )
    return rows


def _trend(curve: Curve, error: float = 1e-7) -> float:
    """Return the seconds that a curve takes to an error, by the line through its logarithms."""
    seconds, errors = np.log(curve)
    return float(np.exp(np.polyval(np.polyfit(errors, seconds, 1), np.log(error))))


def _euler(quick: bool) -> Row:
    """Return the row against a compiled loop of Euler's steps, brought to an error of 1e-6 by shortening them.

    That would take minutes, so its time is extrapolated: its error is seen to be of first order, hence its time goes as
    one over the error.
    """
    problem = committee(2)
    method = ours(problem)
    coarse, fine = (abs(euler(problem, dt, GRID) - method(1e-13, GRID)[1]).max() for dt in (0.01, 0.005))
    assert 1.9 < coarse / fine < 2.1, "not of first order yet: the extrapolation would not hold"
    work = {f"{r}": functools.partial(method, r, GRID) for r in RTOLS}
    seconds = interleaved({**work, "Euler": lambda: euler(problem, 0.005, GRID)}, 5 if quick else 15)
    errors = np.array([_error(*method(r, GRID), method) for r in RTOLS])
    time = _at_error(np.array([seconds[f"{r}"] for r in RTOLS]), errors, 1e-6)
    ratio = seconds["Euler"] * fine / 1e-6 / time
    against = "Euler's steps, compiled (extrapolated)"
    return Row("DOP853, K = M = 2, error 1e-6", 1e3 * time, "ms", ratio, against, ">= 1e4", ratio >= 1e4)


def _low_accuracy(quick: bool) -> Row:
    """Return the row of DOPRI5, at the error that it reaches at rtol 1e-5, against DOP853 at that error."""
    method, cheaper = ours(committee(2)), ours(committee(2), DOPRI5)
    rtols = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
    work = {f"{r}": functools.partial(method, r, GRID) for r in rtols} | {"DOPRI5": lambda: cheaper(1e-5, GRID)}
    seconds = interleaved(work, 5 if quick else 25)
    errors = np.array([_error(*method(r, GRID), method) for r in rtols])
    error = _error(*cheaper(1e-5, GRID), method)
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


def _curves(solvers: dict[str, Solver], exact: Solver, grid: np.ndarray | None, repeats: int) -> dict[str, Curve]:
    """Return the work–precision curve of each, measured in turns; errors against ``exact`` at rtol = 1e-13."""
    jobs = {f"{n} {r}": functools.partial(s, r, grid) for n, s in solvers.items() for r in RTOLS}
    measured = interleaved(jobs, repeats)
    return {
        n: (
            np.array([measured[f"{n} {r}"] for r in RTOLS]),
            np.array([_error(*s(r, grid), exact) for r in RTOLS]),
        )
        for n, s in solvers.items()
    }


def _error(t: np.ndarray, y: np.ndarray, exact: Solver) -> float:
    """Return the largest error of any order parameter at any of the times, against rtol = 1e-13."""
    return float(np.abs(y - exact(1e-13, t)[1]).max())


def _at_error(seconds: np.ndarray, errors: np.ndarray, error: float) -> float:
    """Return the time at which a work–precision curve reaches an error, linear between points in logarithms."""
    order = np.argsort(errors)
    assert errors.min() <= error <= errors.max(), "the curve does not reach this error: widen RTOLS"
    return float(np.exp(np.interp(np.log(error), np.log(errors[order]), np.log(seconds[order]))))
