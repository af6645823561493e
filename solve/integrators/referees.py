"""Other people's integrators on the same compiled right-hand side: SciPy's, and CyRK's where that is installed.

heyoka's, on the same equations, is in ``taylor.py``.

They have their own steps and error control, so that an error in ours does not hide; they call from Python, slowly.
"""

import importlib
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from effdyn.derive import NotYet

from ..arguments import refuse
from ..problem import Problem, Run

SCIPY_METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA", "odeint")
CYRK_METHODS = ("RK45", "DOP853", "TSIT5", "VERN7", "VERN8", "LSODA", "RADAU", "BDF")
REFEREES = (*(f"scipy:{m}" for m in SCIPY_METHODS), *(f"cyrk:{m}" for m in CYRK_METHODS), "heyoka:taylor")


STUCK = 10
"""Steps in a row that leave the time as it is: SciPy's LSODA goes on with them for ever."""


class _Late(Exception):
    """The wall limit is reached, inside a library that cannot be asked to stop."""


def run_referee(
    method: str, problem: Problem, span: tuple[float, float], times: np.ndarray | None, options: dict[str, Any]
) -> Run:
    """Integrate by one of ``REFEREES``, with the tolerances and limits of :func:`effdyn.solve.integrate` as options.

    Raises
    ------
    NotYet
        If CyRK or heyoka is asked for and not installed.
    ModelError
        For limits that heyoka's method does not have.
    """
    library, name = method.split(":")
    options = {k: v for k, v in options.items() if v is not None}
    max_steps, wall_limit = options.pop("max_steps"), options.pop("wall_limit", None)
    if library == "heyoka":
        from .taylor import run_taylor  # only here: it writes equations out, which nothing else does

        refuse("nothing, with method='heyoka:taylor'", max_steps=max_steps, wall_limit=wall_limit)
        return run_taylor(problem, span, times, options["rtol"])
    deadline = math.inf if wall_limit is None else time.monotonic() + wall_limit
    if library == "scipy" and name != "odeint":
        return _solve_ivp(problem, span, times, name, options, max_steps, deadline)
    rhs = _stopped_at(deadline, _python_function(problem))
    try:
        if library == "cyrk":
            return _cyrk(problem, rhs, span, times, name, {**options, "max_num_steps": max_steps})
        return _odeint(problem, rhs, span, times, options, max_steps)
    except _Late:  # what they have computed is lost
        return Run(np.empty(0), np.empty((0, len(problem.y0))), "wall_limit", {"status": "wall_limit"})


def _solve_ivp(
    problem: Problem,
    span: tuple[float, float],
    times: np.ndarray | None,
    name: str,
    options: dict[str, Any],
    max_steps: int,
    deadline: float,
) -> Run:
    import scipy.integrate

    solver, count = _limited(getattr(scipy.integrate, name), max_steps, deadline)
    r = scipy.integrate.solve_ivp(_python_function(problem), span, problem.y0, method=solver, t_eval=times, **options)
    stopped = "" if r.status == 0 else r.message if r.message in ("step_limit", "wall_limit") else "step_too_small"
    facts = {"status": stopped or "success", "n_steps": count["steps"], "n_rhs": int(r.nfev)}
    y = np.reshape(r.y, (len(problem.y0), -1)).T if len(r.t) else np.empty((0, len(problem.y0)))
    return Run(np.asarray(r.t, dtype=float), y, stopped, facts)


def _limited(solver: Any, max_steps: int, deadline: float) -> tuple[type, dict[str, int]]:
    """Return a solver of SciPy's that fails, with the reason as its message, at a limit; and the steps it has taken."""
    count = {"steps": 0, "stuck": 0}

    class Limited(solver):
        def step(self) -> str | None:
            late = time.monotonic() > deadline
            if late or count["steps"] >= max_steps or count["stuck"] >= STUCK:
                self.status = "failed"
                return "wall_limit" if late else "step_too_small" if count["stuck"] >= STUCK else "step_limit"
            before = self.t
            message = super().step()
            if self.status != "failed":
                count["steps"] += 1
                count["stuck"] = count["stuck"] + 1 if self.t == before else 0
            return message

    return Limited, count


def _stopped_at(
    deadline: float, rhs: Callable[[float, np.ndarray], np.ndarray]
) -> Callable[[float, np.ndarray], np.ndarray]:
    """Return a right-hand side that raises once the clock has passed the deadline."""
    if deadline == math.inf:
        return rhs

    def watched(t: float, y: np.ndarray) -> np.ndarray:
        if time.monotonic() > deadline:
            raise _Late
        return rhs(t, y)

    return watched


def _python_function(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    f, work, out = problem.rhs.function, np.zeros(problem.n_work), np.empty_like(problem.y0)
    par_at, work_at, out_at = problem.par.ctypes.data, work.ctypes.data, out.ctypes.data

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        y = np.ascontiguousarray(y, dtype=float)  # SciPy's numerical Jacobian hands over columns of a matrix
        assert work.size and problem.par is not None  # held here: the kernel knows only their addresses
        f(t, y.ctypes.data, out_at, par_at, work_at)
        return out.copy()

    return rhs


def _odeint(
    problem: Problem,
    rhs: Callable[[float, np.ndarray], np.ndarray],
    span: tuple[float, float],
    times: np.ndarray | None,
    options: dict[str, Any],
    max_steps: int,
) -> Run:
    from scipy.integrate import ODEintWarning, odeint

    grid = np.linspace(*span, 101) if times is None else times
    start = np.concatenate([[span[0]], grid]) if grid[0] != span[0] else grid
    if len(start) == 1:  # odeint would take no step
        return Run(grid, problem.y0[None].copy(), "", {"status": "success", "n_steps": 0, "n_rhs": 0})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ODEintWarning)  # what it says is raised, with time and state
        y, info = odeint(
            rhs,
            problem.y0,
            start,
            tfirst=True,
            rtol=options["rtol"],
            atol=options["atol"],
            h0=options.get("first_step", 0.0),
            hmax=0.0 if options["max_step"] == math.inf else options["max_step"],  # 0: none
            mxstep=min(int(max_steps), np.iinfo(np.int32).max),  # for each output time
            full_output=True,
        )
    stopped, n = _how_odeint_ended(info, start, max_steps)
    facts: dict[str, Any] = {"status": stopped or "success"}
    if n:  # beyond the times that it reached, odeint leaves whatever was in memory
        facts |= {"n_steps": int(info["nst"][n - 1]), "n_rhs": int(info["nfe"][n - 1])}
    skipped = len(start) - len(grid)
    return Run(grid[: n + 1 - skipped], y[skipped : n + 1], stopped, facts)


def _how_odeint_ended(info: dict[str, Any], start: np.ndarray, max_steps: int) -> tuple[str, int]:
    """Return what stopped odeint, and how many of the times after the first it has reached within ``max_steps``."""
    sign = np.sign(start[-1] - start[0])
    if info["message"] == "Integration successful.":
        within = info["nst"] <= max_steps
        return ("", len(within)) if within.all() else ("step_limit", int(np.argmin(within)))
    n = int(np.argmin(sign * info["tcur"] >= sign * start[1:]))
    if n and info["nst"][n - 1] > max_steps:
        return "step_limit", int(np.argmax(info["nst"][:n] > max_steps))
    tiny = abs(info["hu"][n]) <= 10 * np.finfo(float).eps * abs(info["tcur"][n])
    excess = str(info["message"]).startswith("Excess work")
    return ("step_limit" if excess and not tiny else "step_too_small"), n


def _cyrk(
    problem: Problem,
    rhs: Callable[[float, np.ndarray], np.ndarray],
    span: tuple[float, float],
    times: np.ndarray | None,
    name: str,
    options: dict[str, Any],
) -> Run:
    try:
        pysolve_ivp = importlib.import_module("CyRK").pysolve_ivp
    except ImportError:
        raise NotYet(f"method='cyrk:{name}' without CyRK", "pip install CyRK, or a scipy: method") from None
    r = pysolve_ivp(rhs, span, problem.y0, method=name, t_eval=times, **options)
    limit = "Maximum number of steps" in str(r.message)
    stopped = "" if r.success else "step_limit" if limit else "step_too_small"
    t, y = np.array(r.t, dtype=float), np.array(r.y, dtype=float)
    return Run(
        t, y.reshape(len(problem.y0), -1).T, stopped, {"status": stopped or "success", "n_steps": int(r.steps_taken)}
    )
