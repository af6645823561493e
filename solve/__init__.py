"""Numeric room: kernels generated from a Dynamics, integrators, and their labelled results."""

if __name__ != "effdyn.solve":
    raise ImportError("this folder is the package effdyn.solve: pip install -e . and import that")

from .errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit, WallLimit
from .events import Event
from .implicit_bias import (
    RateBound,
    TwoLayerRegression,
    conditional_mean,
    crossover_width,
    limit_of_flow,
    width_bound,
    width_distance,
    width_slope,
)
from .integrate import integrate
from .kernel import Kernel, kernel
from .linear_networks import correlations, reduced_inputs
from .numerical_error import numerical_error
from .riccati import riccati

__all__ = [
    "Diverged",
    "Event",
    "IntegrationError",
    "Kernel",
    "NotPositiveSemidefinite",
    "RateBound",
    "StepLimit",
    "TwoLayerRegression",
    "WallLimit",
    "conditional_mean",
    "correlations",
    "crossover_width",
    "integrate",
    "kernel",
    "limit_of_flow",
    "numerical_error",
    "reduced_inputs",
    "riccati",
    "width_bound",
    "width_distance",
    "width_slope",
]
