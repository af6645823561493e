"""Two-layer linear regression: how fast its loss must fall, and how close to the min-norm solution it ends."""

from .bounds import BOUNDS, RateBound
from .flow import FlowLimit, limit_of_flow
from .regression import TwoLayerRegression
from .width import conditional_mean, crossover_width, width_bound, width_distance, width_slope

__all__ = [
    "BOUNDS",
    "FlowLimit",
    "RateBound",
    "TwoLayerRegression",
    "conditional_mean",
    "crossover_width",
    "limit_of_flow",
    "width_bound",
    "width_distance",
    "width_slope",
]
