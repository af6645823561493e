"""Other people's integrators on the same compiled right-hand side: SciPy's, and CyRK's where that is installed.

heyoka's, on the same equations, is in ``taylor.py``.

They have their own steps and error control, so that an error in ours does not hide; they call from Python, slowly.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from effdyn.derive import NotYet

from ..problem import Problem, Run

SCIPY_METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA", "odeint")
CYRK_METHODS = ("RK45", "DOP853", "TSIT5", "VERN7", "VERN8", "LSODA", "RADAU", "BDF")
REFEREES = (*(f"scipy:{m}" for m in SCIPY_METHODS), *(f"cyrk:{m}" for m in CYRK_METHODS), "heyoka:taylor")


def run_referee(
    method: str, problem: Problem, span: tuple[float, float], times: np.ndarray | None, options: dict[str, Any]
) -> Run:
    """Integrate by one of ``REFEREES``, with ``rtol``, ``atol``, ``max_step`` and ``first_step`` as options.

    Raises
    ------
    NotYet
        If CyRK or heyoka is asked for and not installed.
    """
    library, name = method.split(":")
    options = {k: v for k, v in options.items() if v is not None}
    if library == "heyoka":
        from .taylor import run_taylor  # only here: it writes equations out, which nothing else does

        return run_taylor(problem, span, times, options["rtol"])
    if library == "cyrk":
        return _cyrk(problem, span, times, name, options)
    if name == "odeint":
        return _odeint(problem, span, times, options)
    from scipy.integrate import solve_ivp

    r = solve_ivp(_python_function(problem), span, problem.y0, method=name, t_eval=times, **options)
    stopped = "" if r.status == 0 else "step_too_small"
    return Run(r.t, r.y.T, stopped, {"status": stopped or "success", "n_rhs": int(r.nfev)})


def _python_function(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    f, work, out = problem.rhs.function, np.zeros(problem.n_work), np.empty_like(problem.y0)
    par_at, work_at, out_at = problem.par.ctypes.data, work.ctypes.data, out.ctypes.data

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        y = np.ascontiguousarray(y, dtype=float)  # SciPy's numerical Jacobian hands over columns of a matrix
        assert work.size and problem.par is not None  # held here: the kernel knows only their addresses
        f(t, y.ctypes.data, out_at, par_at, work_at)
        return out.copy()

    return rhs


def _odeint(problem: Problem, span: tuple[float, float], times: np.ndarray | None, options: dict[str, Any]) -> Run:
    from scipy.integrate import odeint

    grid = np.linspace(*span, 101) if times is None else times
    start = np.concatenate([[span[0]], grid]) if grid[0] != span[0] else grid
    y, info = odeint(
        _python_function(problem),
        problem.y0,
        start,
        tfirst=True,
        rtol=options["rtol"],
        atol=options["atol"],
        full_output=True,
        mxstep=100_000,
    )
    stopped = "" if info["message"] == "Integration successful." else "step_limit"
    facts = {"status": stopped or "success", "n_rhs": int(info["nfe"][-1])}
    return Run(grid, y[len(start) - len(grid) :], stopped, facts)


def _cyrk(
    problem: Problem, span: tuple[float, float], times: np.ndarray | None, name: str, options: dict[str, Any]
) -> Run:
    try:
        pysolve_ivp = importlib.import_module("CyRK").pysolve_ivp
    except ImportError:
        raise NotYet(f"method='cyrk:{name}' without CyRK", "pip install CyRK, or a scipy: method") from None
    r = pysolve_ivp(_python_function(problem), span, problem.y0, method=name, t_eval=times, **options)
    stopped = "" if r.success else "step_too_small"
    return Run(np.array(r.t), np.array(r.y).T, stopped, {"status": stopped or "success", "n_steps": int(r.steps_taken)})
