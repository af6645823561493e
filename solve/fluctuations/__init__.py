"""Fluctuations to order 1/d: mean correction and covariance of runs along a solution, whatever the model."""

from .integrate import integrate_fluctuations

__all__ = ["integrate_fluctuations"]
