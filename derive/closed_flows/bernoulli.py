"""Detector: Bernoulli equations, the logistic equation among them."""

import sympy

from .flow import (
    Antiderivative,
    Condition,
    Flow,
    Recipe,
    Solved,
    Unsuitable,
    condition,
    relative_exponential,
    written_out,
)
from .powers import as_powers

BETA, G = sympy.symbols("beta g", real=True)


def bernoulli(flow: Flow) -> Solved:
    """``s' = a s + b s^n``: ``s = s0 exp(a t) (1 - beta (exp(k t) - 1)/k)^(-1/(n-1))``, ``k = (n-1) a``,
    ``beta = (n-1) b s0^(n-1)``.

    ``s^(1-n)`` obeys a linear equation. For n = 2, the balanced modes of a two-layer network.

    Source: Saxe, McClelland & Ganguli (2014) for n = 2; Jacob Bernoulli (1695).
    """
    powers = dict(as_powers(flow.rate, flow.state))
    a = powers.pop(sympy.S.One, sympy.S.Zero)
    if len(powers) != 1:
        raise Unsuitable(f"the rate is not a*{flow.state} + b*{flow.state}**n")
    ((n, b),) = powers.items()
    if n == 0:
        raise Unsuitable("the rate is linear")
    k, beta = (n - 1) * a, (n - 1) * b * flow.start ** (n - 1)
    definitions = ((BETA, beta), (G, relative_exponential(k, flow.time)))
    written = flow.start * sympy.exp(a * flow.time) * (1 - BETA * G) ** (-1 / (n - 1))
    bracket = written_out(1 - BETA * G, definitions)
    return Solved(
        flow,
        "logistic" if n == 2 else "Bernoulli: a power of the state obeys a linear equation",
        written_out(written, definitions),
        conditions=_conditions(flow, n, beta, bracket),
        recipe=Recipe("bernoulli", (flow.start, a, b, n)),
        integrals=_integrals(flow, n, b, k, beta, bracket),
        written=written,
        definitions=definitions,
    )


def _conditions(flow: Flow, n: sympy.Expr, beta: sympy.Expr, bracket: sympy.Expr) -> tuple[Condition, ...]:
    s0, s = flow.start, flow.state
    found: tuple[Condition, ...] = ()
    if not (n.is_integer and n.is_positive):
        found += condition(s0 > 0, f"{s} starts above zero, where its power is a real number that moves smoothly")
    if not n.is_number:
        found += condition(sympy.Ne(n, 1), "the power is not 1, where the equation is linear")
    event = f"{s} diverges" if n.is_number and n > 1 else f"{s} diverges or vanishes"
    return found + condition(sympy.Or(beta <= 0, bracket > 0), f"t is before the time at which {event}")


def _integrals(
    flow: Flow, n: sympy.Expr, b: sympy.Expr, k: sympy.Expr, beta: sympy.Expr, bracket: sympy.Expr
) -> tuple[Antiderivative, ...]:
    """The integral of s^(n-1) is the logarithm of the bracket, which is a sum of exponentials."""
    terms = ((1 + beta / k, sympy.S.Zero), (-beta / k, k)) if k.is_nonzero else ()
    return (Antiderivative(flow.state ** (n - 1), -1 / ((n - 1) * b), bracket, terms=terms),)
