"""Numeric room: kernels generated from a Dynamics, integrators, and their labelled results."""

if __name__ != "effdyn.solve":
    raise ImportError("this folder is the package effdyn.solve: pip install -e . and import that")

from .ensembles.ensemble import ensemble
from .errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit, WallLimit
from .hazards import BelowResolution, SymmetricStart
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
from .integrators.events import Event
from .kernels.kernel import Kernel, kernel
from .linear_networks import correlations, reduced_inputs
from .numerical_error import numerical_error
from .riccati import riccati
from .spectra import input_blocks
from .stability import critical_rate, fixed_points, lift, linearize, plateau, reduce_inputs, symmetric_reduction
from .sweeps.errors import DamagedStore, ForeignStore, StoreError, StoreInUse
from .sweeps.sweep import sweep

__all__ = [
    "BelowResolution",
    "DamagedStore",
    "Diverged",
    "Event",
    "ForeignStore",
    "IntegrationError",
    "Kernel",
    "NotPositiveSemidefinite",
    "RateBound",
    "StepLimit",
    "StoreError",
    "StoreInUse",
    "SymmetricStart",
    "TwoLayerRegression",
    "WallLimit",
    "conditional_mean",
    "correlations",
    "critical_rate",
    "crossover_width",
    "ensemble",
    "fixed_points",
    "input_blocks",
    "integrate",
    "kernel",
    "lift",
    "limit_of_flow",
    "linearize",
    "numerical_error",
    "plateau",
    "reduce_inputs",
    "reduced_inputs",
    "riccati",
    "sweep",
    "symmetric_reduction",
    "width_bound",
    "width_distance",
    "width_slope",
]
