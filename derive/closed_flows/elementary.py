"""Detectors: constant rates and linear equations with constant coefficients."""

import sympy

from .flow import Antiderivative, Flow, Recipe, Solved, Unsuitable, relative_exponential
from .powers import quadratic_coefficients


def constant(flow: Flow) -> Solved:
    """``s' = a``: ``s = s0 + a t``."""
    if flow.rate.has(flow.state):
        raise Unsuitable(f"the rate depends on {flow.state}")
    solution = flow.start + flow.rate * flow.time
    return Solved(flow, "constant rate", solution, recipe=Recipe("line", (flow.start, flow.rate)))


def linear(flow: Flow) -> Solved:
    """``s' = a + b s``: ``s = s0 exp(b t) + a (exp(b t) - 1)/b``."""
    a, b, c = quadratic_coefficients(flow.rate, flow.state)
    if c != 0:
        raise Unsuitable(f"the rate is not linear in {flow.state}")
    growth = relative_exponential(b, flow.time)
    solution = flow.start * sympy.exp(b * flow.time) + a * growth
    recipe = Recipe("linear", (flow.start, a, b))
    if not b.is_nonzero:
        return Solved(flow, "linear", solution, recipe=recipe)
    integral = Antiderivative(flow.state, sympy.S.Zero, sympy.S.One, -a / b * flow.time + (flow.start + a / b) * growth)
    return Solved(flow, "linear", solution, recipe=recipe, integrals=(integral,))
