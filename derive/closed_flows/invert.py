"""The state from the time, where only the inverse is known: integrated, then polished on the closed form."""

from collections.abc import Mapping
from typing import Any

import sympy

from .compiled import precise_value
from .flow import Solved

POLISH = 5
DIGITS = 30

Point = Mapping[sympy.Symbol, Any]


def inverted(part: Solved, point: Point) -> float:
    """Return s with ``Phi(s) - Phi(s0) = t``: Newton's iteration from where numerical integration ends.

    Raises
    ------
    ArithmeticError
        If that integration stops before t, as it does where the state diverges.
    """
    from scipy.integrate import solve_ivp

    flow = part.flow
    t, start = float(point[flow.time]), float(point[flow.start])
    rate = flow.rate.xreplace({symbol: sympy.Float(float(v), DIGITS) for symbol, v in point.items()})
    f = sympy.lambdify(flow.state, rate, modules="math")
    if t == 0 or f(start) == 0:
        return start
    run = solve_ivp(lambda _, y: [f(y[0])], (0, t), [start], method="DOP853", rtol=1e-12, atol=1e-14)
    if run.status != 0:
        raise ArithmeticError(f"{flow.state} diverges, or stops being smooth, at t = {run.t[-1]:.6g}: {run.message}")
    return _polished(part, point, float(run.y[0, -1]))


def _polished(part: Solved, point: Point, guess: float) -> float:
    s = guess
    for _ in range(POLISH):
        step = _miss(part, point, s)
        s += step
        if abs(step) <= 1e-15 * abs(s):
            return s
    if abs(step) > 1e-14 * abs(s):
        raise ArithmeticError(
            f"the time of {part.flow.state} could not be inverted: last step {step}, at {dict(point)}"
        )
    return s


def _miss(part: Solved, point: Point, s: float) -> float:
    """Return the time that is left at s, times the speed there."""
    flow = part.flow
    speed = precise_value(flow.rate, {**point, flow.state: s}, DIGITS)
    left = float(point[flow.time]) - elapsed(part, point, s, DIGITS)
    return float(left * speed)


def elapsed(part: Solved, point: Point, s: Any, digits: int) -> Any:
    """Return ``Phi(s) - Phi(s0)``; logarithms of negative numbers add the same imaginary constant to both."""
    import mpmath

    assert part.implicit is not None, "states with a solution are not inverted"
    with mpmath.workdps(digits):
        values = [at(part.implicit, {**point, part.flow.state: x}, digits) for x in (s, point[part.flow.start])]
        return mpmath.re(values[0] - values[1])


def at(expr: sympy.Expr, point: Point, digits: int) -> Any:
    """Return the value of ``expr``, also where it sums over the roots of a polynomial.

    Those need exact numbers; elsewhere exact numbers would be raised to fractional powers, by factorising them.
    """
    import mpmath

    if not expr.has(sympy.RootSum):
        return precise_value(expr, {k: v for k, v in point.items() if k in expr.free_symbols}, digits)
    exact = {k: v if isinstance(v, sympy.Rational) else sympy.Rational(float(v)) for k, v in point.items()}
    with mpmath.workdps(digits):
        return mpmath.mpmathify(sympy.N(expr.xreplace(exact).doit(), digits, maxn=4 * digits))
