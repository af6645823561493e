"""Numeric room: kernels generated from a Dynamics, integrators, and their labelled results."""

if __name__ != "effdyn.solve":
    raise ImportError("this folder is the package effdyn.solve: pip install -e . and import that")

from typing import TYPE_CHECKING

from effdyn.derive.loading import on_demand, set_aside

from .errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit, WallLimit
from .hazards import BelowResolution, SymmetricStart
from .integrate import integrate
from .integrators.events import Event
from .kernels.kernel import Kernel, kernel
from .numerical_error import numerical_error
from .perpendicular import perpendicular
from .riccati import riccati

if TYPE_CHECKING:
    from .ensembles.ensemble import ensemble
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
    from .linear_networks import correlations, reduced_inputs
    from .spectra import input_blocks
    from .stability.critical import critical_rate
    from .stability.fixed_points import fixed_points
    from .stability.linearize import linearize
    from .stability.plateau import plateau
    from .stability.symmetric_reduction import lift, reduce_inputs, symmetric_reduction
    from .sweeps.errors import DamagedStore, ForeignStore, StoreError, StoreInUse
    from .sweeps.sweep import sweep
else:  # what a first figure does not need loads when it is asked for
    __getattr__ = on_demand(
        __name__,
        {
            "ensembles.ensemble": ["ensemble"],
            "implicit_bias": [
                "RateBound",
                "TwoLayerRegression",
                "conditional_mean",
                "crossover_width",
                "limit_of_flow",
                "width_bound",
                "width_distance",
                "width_slope",
            ],
            "linear_networks": ["correlations", "reduced_inputs"],
            "spectra": ["input_blocks"],
            "stability.critical": ["critical_rate"],
            "stability.fixed_points": ["fixed_points"],
            "stability.linearize": ["linearize"],
            "stability.plateau": ["plateau"],
            "stability.symmetric_reduction": ["lift", "reduce_inputs", "symmetric_reduction"],
            "sweeps.errors": ["DamagedStore", "ForeignStore", "StoreError", "StoreInUse"],
            "sweeps.sweep": ["sweep"],
        },
    )

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
    "perpendicular",
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

set_aside()
