"""Numeric room: kernels generated from a Dynamics, integrators, and their labelled results."""

if __name__ != "effdyn.solve":
    raise ImportError("this folder is the package effdyn.solve: pip install -e . and import that")

from .errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit, WallLimit
from .events import Event
from .integrate import integrate
from .kernel import Kernel, kernel
from .numerical_error import numerical_error

__all__ = [
    "Diverged",
    "Event",
    "IntegrationError",
    "Kernel",
    "NotPositiveSemidefinite",
    "StepLimit",
    "WallLimit",
    "integrate",
    "kernel",
    "numerical_error",
]
