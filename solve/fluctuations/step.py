"""Over which step equations are differentiated by differences, according to the rule that averages them.

Closed forms and rules over fixed nodes are smooth functions of the state. Rules whose nodes lie between kinks have an
error of 1e-5 that is none, and of 1e-4 where single units have kinks: steps are longer by as much. Truncation is then
1e-3 to 3e-3 of H:C and half of that of J, the error of rules below it (ReLU under logistic loss: 0.01 of H:C; measured
at K = 2, M = 1).
"""

from functools import lru_cache
from typing import Any

from effdyn.derive import Dynamics
from effdyn.derive.dynamics import Equation
from effdyn.derive.numerical.moment_forms import BLURRED
from effdyn.derive.numerical.quadrature import KINKS, rule_of

from .rhs import STEP

STEP_OF_PIECES = 0.1
"""Relative to the scale of a state."""


@lru_cache(maxsize=256)
def step_for(dynamics: Dynamics, equations: tuple[Equation, ...]) -> float:
    """Return the step for the drift, or the observables, of a Dynamics, relative to the scale on which they change."""
    blurred = any(BLURRED in equation.status for equation in equations)
    if not blurred and rule_of(dynamics, equations) in ("", "smooth", "split"):
        return STEP
    model: Any = dynamics.model
    kinked = any(g.expr.has(*KINKS) for g in (model.activation, model.teacher_activation))
    return STEP_OF_PIECES * (2 if kinked else 1)
