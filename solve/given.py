"""What a Dynamics that is not a differential equation is given, in the form that inputs are read in, and its times."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.text import parse_expression

from .kernels.layout import Inputs


@dataclass(frozen=True, slots=True)
class Given:
    """The quantities whose values a user states: initial values and parameters; there are no local fields.

    Attributes
    ----------
    states, parameters : tuple of Quantity
    model : object
        What may have more to say on their values.
    """

    states: tuple[Quantity, ...]
    parameters: tuple[Quantity, ...]
    families: tuple[Any, ...] = ()
    covariance: tuple[Any, ...] = ()
    model: object = None

    @classmethod
    def of(cls, dynamics: Dynamics) -> "Given":
        """Return what a Dynamics of functions of time wants: at t = 0, its ``initial`` quantities."""
        return cls(dynamics.initial, dynamics.parameters, model=dynamics.model)


def step_length(dynamics: Dynamics, inputs: Inputs) -> float:
    """Return the time that one step of training takes on the clock of a Dynamics.

    Raises
    ------
    ModelError
        If the clock needs a number that is neither a parameter nor a size.
    """
    known: dict[str, Any] = {**inputs.sizes, **{k: v for k, v in inputs.params.items() if np.ndim(v) == 0}}
    symbols = {name: sympy.Symbol(name) for name in ("steps", *known)}
    clock = parse_expression(dynamics.clock, "clock", symbols)
    return float(clock.subs({symbols["steps"]: 1, **{symbols[name]: float(known[name]) for name in known}}))


def times_from_zero(t_span: tuple[float, float], times: np.ndarray | None) -> np.ndarray:
    """Return output times, 101 by default, of what is a function of the time since the start at t = 0.

    Raises
    ------
    ModelError
        If the span starts elsewhere or runs backwards.
    """
    if t_span[0] != 0 or t_span[1] < 0:
        raise ModelError("t_span", t_span, "(0, stop): these equations are for functions of the time since the start")
    return np.linspace(*t_span, 101) if times is None else times
