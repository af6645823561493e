"""Detector: Riccati equations with constant coefficients, solved by their own Möbius transformation."""

import sympy
from sympy.logic.boolalg import Boolean

from .flow import Antiderivative, Condition, Flow, Recipe, Solved, Unsuitable, condition
from .powers import quadratic_coefficients, vanishes

G = sympy.Symbol("g", real=True)


def riccati(flow: Flow) -> Solved:
    """``s' = a + b s + c s^2``: ``s = (s0 (1 + b g) + 2 a g)/(1 - (b + 2 c s0) g)``.

    ``g = tanh(Gamma t/2)/Gamma``, ``Gamma^2 = b^2 - 4 a c``. This is the Möbius transformation that has the roots of
    the quadratic as fixed points, written without them, so that nothing is 0/0 at a double root (g = t/2), and complex
    roots (``tan``) need no complex numbers.
    """
    a, b, c = quadratic_coefficients(flow.rate, flow.state)
    if c == 0:
        raise Unsuitable(f"the rate has no term in {flow.state}**2")
    discriminant = sympy.factor_terms(sympy.expand(b**2 - 4 * a * c))
    g = half_tangent(discriminant, flow.time)
    slope = b + 2 * c * flow.start
    written = (flow.start * (1 + b * G) + 2 * a * G) / (1 - slope * G)
    return Solved(
        flow,
        "Riccati: Möbius transformation with the roots of the rate as fixed points",
        written.xreplace({G: g}),
        conditions=blow_up(slope, discriminant, flow),
        recipe=Recipe("riccati", (flow.start, a, b, c)),
        integrals=_integrals(flow, b, c, slope, discriminant),
        written=written,
        definitions=((G, g),),
    )


def half_tangent(discriminant: sympy.Expr, t: sympy.Symbol) -> sympy.Expr:
    """Return ``tanh(sqrt(D) t/2)/sqrt(D)`` for a discriminant D of any sign, without branches that cannot occur.

    Examples
    --------
    >>> t, c = sympy.symbols("t c", positive=True)
    >>> half_tangent(4 * c**2, t), half_tangent(-4 * c**2, t), half_tangent(sympy.S.Zero, t)
    (tanh(c*t)/(2*c), tan(c*t)/(2*c), t/2)
    """
    D = discriminant
    if vanishes(D):
        return t / 2
    real = (sympy.tanh(sympy.sqrt(D) * t / 2) / sympy.sqrt(D), D > 0)
    imaginary = (sympy.tan(sympy.sqrt(-D) * t / 2) / sympy.sqrt(-D), D < 0)
    branches = [pair for pair in (real, imaginary) if pair[1] != sympy.false]
    return sympy.Piecewise(*branches, *([] if D.is_nonzero else [(t / 2, True)]))


def blow_up(slope: sympy.Expr, discriminant: sympy.Expr, flow: Flow, whither: str = "") -> tuple[Condition, ...]:
    """Return the condition that a Riccati solution with this slope of the rate at the start is still finite."""
    sentence = f"t is before the time at which {flow.state} diverges{whither}"
    return condition(_finite(slope, discriminant, flow.time), sentence)


def _finite(slope: sympy.Expr, D: sympy.Expr, t: sympy.Symbol) -> Boolean:
    """By the sign of D; phrased with times, since ``1 - slope*g > 0`` is decided by rounding near a fixed point."""
    double = slope * t < 2
    if vanishes(D):
        return double
    root, wave = sympy.sqrt(D), sympy.sqrt(-D)
    real = sympy.Or(slope <= root, t < 2 * sympy.atanh(root / slope) / root)
    imaginary = t < 2 * sympy.atan2(wave, slope) / wave if D.is_nonnegative is not True else sympy.false
    return sympy.Or(sympy.And(D > 0, real), sympy.And(D < 0, imaginary), sympy.And(sympy.Eq(D, 0), double))


def _abbreviation(flow: Flow) -> sympy.Symbol:
    return sympy.Symbol(f"d_{flow.state}", real=True)


def _integrals(
    flow: Flow, b: sympy.Expr, c: sympy.Expr, slope: sympy.Expr, D: sympy.Expr
) -> tuple[Antiderivative, ...]:
    """``s = -d'/(c d) - b/(2c)`` with ``d = cosh(Gamma t/2) - slope sinh(Gamma t/2)/Gamma``."""
    if D.is_nonnegative is not True or vanishes(D):
        return ()
    root = sympy.sqrt(D)
    terms = (((1 - slope / root) / 2, root / 2), ((1 + slope / root) / 2, -root / 2))
    base = sympy.Add(*(weight * sympy.exp(rate * flow.time) for weight, rate in terms))
    return (Antiderivative(flow.state, -1 / c, base, -b / (2 * c) * flow.time, terms, D > 0, _abbreviation(flow)),)
