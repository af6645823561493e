"""heyoka's Taylor method as a referee: it shares neither a kernel nor a step with ours, only the closed equations.

heyoka wants expressions, not an address: the equations are written out for the sizes at hand, with their parameters as
numbers, so this is for small systems. Derivatives of high order are computed by recurrences, and at tolerances near
rounding the solution is as accurate as double precision carries.

Source: Biscani & Izzo, *Revisiting high-order Taylor methods for astrodynamics and celestial mechanics*, MNRAS 504
(2021) 2614.
"""

import importlib
from typing import Any

import numpy as np
import sympy

from effdyn.derive import NotYet

from ..problem import Problem, Run

STEPS = 100_000  # at most: a step that shrinks to nothing would not end


def run_taylor(problem: Problem, span: tuple[float, float], times: np.ndarray | None, rtol: float) -> Run:
    """Integrate with heyoka's tolerance ``rtol``; other options have no meaning to it.

    Raises
    ------
    NotYet
        If heyoka is not installed.
    NoClosedForm
        If the equations have an expectation without a closed form.
    """
    try:
        heyoka = importlib.import_module("heyoka")
    except ImportError:
        raise NotYet("method='heyoka:taylor' without heyoka", "pip install heyoka, or a scipy: method") from None
    system = [(heyoka.expression(str(y)), heyoka.from_sympy(rate)) for y, rate in scalar_equations(problem)]
    taylor = heyoka.taylor_adaptive(system, list(problem.y0), time=span[0], tol=rtol, compact_mode=True)
    t, y = _own_steps(taylor, span) if times is None else _at_times(taylor, times)
    sound = len(t) and np.isfinite(y).all() and (t[-1] == (span[1] if times is None else times[-1]))
    stopped = "" if sound else "not_finite"
    return Run(t, y, stopped, {"status": stopped or "success"})


def scalar_equations(problem: Problem) -> list[tuple[sympy.Symbol, sympy.Expr]]:
    """Return a symbol for each entry of the packed state, and its rate in those symbols alone."""
    sizes = {str(size): problem.inputs.sizes[str(size)] for size in problem.dynamics.sizes}
    written = problem.dynamics.expand(**sizes).closed().equations
    values: dict[sympy.Expr, sympy.Expr] = {}
    for q in problem.dynamics.parameters:
        for at, value in np.ndenumerate(problem.inputs.params[q.name]):
            units = {index: sympy.Integer(n + 1) for index, n in zip(q.indices, at, strict=True)}
            values[q.symbol.xreplace(units)] = sympy.Float(float(value), 17)
    symbols = {entry: sympy.Symbol(f"y{n}", real=True) for n, (entry, _) in enumerate(written)}
    return [(symbols[entry], rate.xreplace(values | symbols)) for entry, rate in written]


def _own_steps(taylor: Any, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    t, y = [span[0]], [taylor.state.copy()]
    while taylor.time != span[1] and len(t) <= STEPS:
        taylor.step(span[1] - taylor.time)
        if not (taylor.time != t[-1] and np.isfinite(taylor.state).all()):
            break
        t.append(taylor.time)
        y.append(taylor.state.copy())
    return np.array(t), np.array(y)


def _at_times(taylor: Any, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if times[0] != taylor.time:  # its grids begin where it is
        taylor.propagate_until(times[0], max_steps=STEPS)
    if taylor.time != times[0]:
        return times[:0], np.empty((0, len(taylor.state)))
    y = taylor.propagate_grid(times, max_steps=STEPS)[-1] if len(times) > 1 else taylor.state.copy()[None]
    sound = np.isfinite(y).all(axis=1)
    n = len(y) if sound.all() else int(np.argmin(sound))
    return times[:n], y[:n]
