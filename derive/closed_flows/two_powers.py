"""Detector: rates with two powers of the state, solved for the time: singular values of deep linear networks."""

import sympy

from .flow import Condition, Flow, Recipe, Solved, Unsuitable, condition
from .powers import as_powers


def two_powers(flow: Flow) -> Solved:
    """``s' = alpha s^p + beta s^r``: ``t = Phi(s) - Phi(s0)`` with
    ``Phi = s^(1-p)/((1-p) alpha) 2F1(1, b; 1+b; z)``, ``b = (1-p)/(r-p)``, ``z = -(beta/alpha) s^(r-p)``.

    Above the fixed point, where z > 1, the two powers change places. A balanced network of depth N has
    ``s' = N s^(2-2/N) (c - delta s)``, so ``b = -(1 - 2/N)``.

    Source: integral of ``Bah et al. (2021)``'s equation for singular values; the form with 2F1 is ours.
    """
    powers = as_powers(flow.rate, flow.state)
    if len(powers) != 2:
        raise Unsuitable(f"the rate is not alpha*{flow.state}**p + beta*{flow.state}**r")
    p, r = _ordered(*powers)
    alpha, beta = powers[p], powers[r]
    b = sympy.cancel((1 - p) / (r - p))
    if b.is_integer:
        raise Unsuitable(f"the hypergeometric integral has a pole: (1 - p)/(r - p) = {b} is an integer")
    z = -beta / alpha * flow.state ** (r - p)
    phi = sympy.Piecewise((_integral(flow, alpha, p, b, z), z < 1), (_integral(flow, beta, r, 1 - b, 1 / z), True))
    return Solved(
        flow,
        "two powers: time as a hypergeometric function of the state, inverted numerically",
        implicit=phi,
        conditions=_conditions(flow, alpha, p, beta, r, b),
        recipe=Recipe("two_powers", (flow.start, alpha, p, beta, r)),
    )


def _integral(flow: Flow, weight: sympy.Expr, power: sympy.Expr, b: sympy.Expr, z: sympy.Expr) -> sympy.Expr:
    return flow.state ** (1 - power) / ((1 - power) * weight) * sympy.hyper((1, b), (1 + b,), z)


def _ordered(one: sympy.Expr, other: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    difference = sympy.cancel(other - one)
    if difference.is_positive:
        return one, other
    if difference.is_negative:
        return other, one
    raise Unsuitable(f"which of the powers {one} and {other} is larger is not known")


def _conditions(
    flow: Flow, alpha: sympy.Expr, p: sympy.Expr, beta: sympy.Expr, r: sympy.Expr, b: sympy.Expr
) -> tuple[Condition, ...]:
    s = flow.state
    return (
        *condition(flow.start > 0, f"{s} starts above zero, which is a fixed point or the edge of the powers' domain"),
        *condition(sympy.Ne(alpha, 0), "both powers are there; without the lower one it is a pure power of the state"),
        *condition(beta < 0, f"the higher power limits {s}, so that it cannot diverge"),
        *condition(sympy.Or(alpha > 0, p > 1), f"{s} does not reach zero in finite time"),
        *(() if b.is_number else condition(sympy.Ne(b, sympy.floor(b)), "the hypergeometric integral has no pole")),
        *(() if (r - p).is_positive else condition(r > p, "the second power is the higher one")),
    )
