"""Stability: fixed points, the flow near them, symmetric reductions, plateaus and critical learning rates."""

from .critical import critical_rate
from .fixed_points import fixed_points
from .linearize import linearize
from .plateau import plateau
from .symmetric_reduction import lift, reduce_inputs, symmetric_reduction

__all__ = [
    "critical_rate",
    "fixed_points",
    "lift",
    "linearize",
    "plateau",
    "reduce_inputs",
    "symmetric_reduction",
]
