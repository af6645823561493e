"""No closed form is returned unverified: substituted into its equation, compared with integration, and its call too."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.logic.boolalg import Boolean

from .compiled import exact, precise_value
from .flow import Solved, Unsuitable
from .invert import at, elapsed

SEED = 20_261_122
POINTS = 5
TRIES = 600
DIGITS = 50
RESIDUAL = 1e-30
"""Relative, at 50 digits; derivatives of closed forms lose up to ten of them."""
INTEGRATED = 1e-10
"""Relative: SciPy's DOP853 at rtol 1e-13 over times of order one."""
CALLED = 1e-12
"""Relative: the call in double precision."""

SETTLED = 1e-6
"""A state whose speed is less, relative to itself, has arrived."""

Point = dict[sympy.Symbol, sympy.Rational]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked: worst relative deviations over the points.

    Attributes
    ----------
    points : int
        Random admissible values of parameters, initial values and time.
    residual : float
        Of the solution substituted into its equation, in 50 digits.
    integration : float
        From a numerical integration of the equation (SciPy's DOP853, rtol 1e-13).
    call : float
        Of the numerical call from the formula in 50 digits.
    """

    points: int
    residual: float
    integration: float
    call: float

    def __str__(self) -> str:
        return (
            f"at {self.points} random points: residual {self.residual:.0e}, "
            f"from integration {self.integration:.0e}, call {self.call:.0e}"
        )


def verify(chain: Sequence[Solved]) -> Verification:
    """Verify the last equation of a chain; those before it have been.

    Raises
    ------
    Unsuitable
        If it does not solve its equation, or no admissible point was found.
    """
    import numpy as np

    part = chain[-1]
    found = sample(chain)
    errors = np.array([_errors(chain, point) for point in found]).max(0)
    result = Verification(len(found), *map(float, errors))
    for error, bound, name in zip(
        errors, (RESIDUAL, INTEGRATED, CALLED), ("residual", "integration", "numerical call"), strict=True
    ):
        if not error <= bound:
            raise Unsuitable(f"a candidate ({part.method}) was refused: its {name} deviates by {error:.1e}")
    return result


def sample(chain: Sequence[Solved]) -> list[Point]:
    """Return random rational points at which every condition of the chain holds."""
    source = random.Random(SEED)
    time = chain[0].flow.time
    symbols = sorted(
        {s for part in chain for s in (part.flow.rate.free_symbols | {part.flow.start})}
        - {part.flow.state for part in chain}
        - {time},
        key=str,
    )
    found: list[Point] = []
    for _ in range(TRIES):
        point = {symbol: _number(symbol, source) for symbol in symbols} | {
            time: sympy.Rational(source.randint(5, 90), 97)
        }
        if all(_holds(c.relation, point) for part in chain for c in part.conditions) and _reached(chain, point):
            found.append(point)
            if len(found) == POINTS:
                return found
    raise Unsuitable(f"its conditions hold at {len(found)} of {TRIES} random points: too few to verify it")


def _reached(chain: Sequence[Solved], point: Point) -> bool:
    """Return whether an implicit solution says something there: whether the state is finite until then, which formulas
    tell by their conditions and quadratures do not; and not so close to a fixed point that any time fits it."""
    part = chain[-1]
    if part.solution is not None:
        return True
    end = _integrate(chain, {symbol: sympy.Rational(float(v)) for symbol, v in point.items()})
    return end is not None and abs(at(part.flow.rate, {**point, part.flow.state: end}, DIGITS)) > SETTLED * abs(end)


def _number(symbol: sympy.Symbol, source: random.Random) -> sympy.Rational:
    if symbol.is_integer:
        return sympy.Integer(source.randint(1, 7))
    size = sympy.Rational(source.randint(10, 150), 89)
    sign = 1 if symbol.is_nonnegative else -1 if symbol.is_nonpositive else source.choice((-1, 1))
    return sign * size


def _holds(relation: Boolean, point: Point) -> bool:
    """Relations are taken one by one, since one that is not about real numbers is false without the others being so."""
    if isinstance(relation, (sympy.And, sympy.Or)):
        return (all if isinstance(relation, sympy.And) else any)(_holds(part, point) for part in relation.args)
    try:
        return bool(precise_value(relation, point))
    except (TypeError, ZeroDivisionError):  # a comparison of complex numbers
        return False


def _errors(chain: Sequence[Solved], point: Point) -> tuple[float, float, float]:
    """Return the residual, and the deviations of an integration and of the call, relative to the solution."""
    import numpy as np

    from .evaluate import part_values

    part = chain[-1]
    arrays = {symbol: np.array(float(v)) for symbol, v in point.items()}
    floats = {symbol: sympy.Rational(float(v)) for symbol, v in point.items()}  # what the call is given
    called = float(part_values(part, arrays))
    integrated = _integrate(chain, floats)
    if part.solution is None:
        return _implicit_residual(part, point), _gap(called, integrated), _time_error(part, floats, called)
    value = float(_real(precise_value(part.solution, floats)))
    return _residual(chain, point), _gap(value, integrated), _gap(called, value)


def _gap(one: float, other: float | None) -> float:
    """An integration that stopped early contradicts the form."""
    return float("inf") if other is None else abs(one - other) / max(1e-3, abs(other))


def _residual(chain: Sequence[Solved], point: Point) -> float:
    """Of the equation and of the initial value."""
    import mpmath

    part = chain[-1]
    time, solution = part.flow.time, part.solution
    assert solution is not None, "implicit solutions have a residual of their own"
    with mpmath.workdps(DIGITS):
        states = {k.flow.state: precise_value(k.solution, point, DIGITS) for k in chain}
        speed = precise_value(solution.diff(time), point, DIGITS)
        rate = precise_value(part.flow.rate, {**point, **states}, DIGITS)
        start = precise_value(solution, {**point, time: sympy.S.Zero}, DIGITS)
        slip = abs(start - precise_value(part.flow.start, point, DIGITS))
        return float(max(abs(speed - rate), slip) / max(1, abs(rate)))


def _implicit_residual(part: Solved, point: Point) -> float:
    """Of ``Phi'(s) f(s) = 1``, at the initial value."""
    import mpmath

    s = part.flow.state
    assert part.implicit is not None, "what is not explicit is implicit"
    here = {**point, s: point[part.flow.start]}
    with mpmath.workdps(DIGITS):
        return float(abs(at(part.implicit.diff(s), here, DIGITS) * at(part.flow.rate, here, DIGITS) - 1))


def _time_error(part: Solved, point: Point, value: float) -> float:
    """Of the state that the call gives: the time that Phi assigns to it, times the speed."""
    import mpmath

    s = sympy.Rational(value)
    with mpmath.workdps(DIGITS):
        late = elapsed(part, point, s, DIGITS) - exact(point[part.flow.time])
        speed = at(part.flow.rate, {**point, part.flow.state: s}, DIGITS)
        return float(abs(late * speed) / max(1e-3, abs(value)))


def _integrate(chain: Sequence[Solved], point: Point) -> float | None:
    import numpy as np
    from scipy.integrate import solve_ivp

    states = [part.flow.state for part in chain]
    numbers = {k: sympy.Float(v, 30) for k, v in point.items()}
    rates = [part.flow.rate.xreplace(numbers) for part in chain]
    f = sympy.lambdify([states], rates, modules="math")
    starts = [float(part.flow.start.xreplace(numbers)) for part in chain]
    end = float(point[chain[0].flow.time])
    with np.errstate(all="ignore"):
        try:
            run = solve_ivp(lambda _, y: f(y), (0, end), starts, method="DOP853", rtol=1e-13, atol=1e-15)
        except (ArithmeticError, ValueError, TypeError):  # out of the rate's domain
            return None
    return float(run.y[-1, -1]) if run.status == 0 else None


def _real(value: Any) -> Any:
    import mpmath

    if abs(mpmath.im(value)) > 1e-25 * max(1, abs(value)):
        return mpmath.nan
    return mpmath.re(value)
