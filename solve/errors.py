"""What can go wrong while solving, each with the time, the state and everything computed so far."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class IntegrationError(RuntimeError):
    """An integration that stopped before its end.

    Attributes
    ----------
    t : float
        The last time with a valid state.
    state : dict of ndarray
        The order parameters there.
    partial : xarray.Dataset
        The solution up to there, as :func:`effdyn.solve.integrate` would have returned it.
    """

    def __init__(self, message: str, t: float, state: Mapping[str, np.ndarray], partial: Any) -> None:
        self.t, self.state, self.partial = t, dict(state), partial
        self._message = message
        shown = ", ".join(
            f"{name} = {np.array2string(value, precision=4, threshold=20)}" for name, value in state.items()
        )
        super().__init__(
            f"{message}\n  last valid state, at t = {t:.6g}: {shown}\n  what was computed is in this error's .partial"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._message, self.t, self.state, self.partial)


class Diverged(IntegrationError):
    """The order parameters, or their derivatives, grow without bound or stop being numbers."""


class NotPositiveSemidefinite(IntegrationError):
    """The overlap matrix of all vectors has an eigenvalue below zero by more than the integration error: no vectors
    have these overlaps. Or a matrix that stochastic equations state as the covariance of increments is none."""


class StepLimit(IntegrationError):
    """The integration needs more steps than ``max_steps``."""


class WallLimit(IntegrationError):
    """The integration takes longer than ``wall_limit`` seconds."""
