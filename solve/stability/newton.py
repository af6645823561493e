"""Zeros of a drift: damped Newton steps (Levenberg–Marquardt), which also end where fixed points are not isolated."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .flow import Flow

TOLERANCE = 1e-12
"""Of the drift at a fixed point, relative to what Jacobian and state make of rounding errors of size 1."""
STEPS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Zero:
    """Where a search ended: the state, the largest entry of its drift, and whether that is zero up to rounding."""

    y: np.ndarray
    residual: float
    converged: bool


def find_zero(flow: Flow, start: np.ndarray, steps: int = STEPS) -> Zero:
    """Search a fixed point from ``start``, each step accepted only if it shortens the drift.

    The damping is raised until a step is accepted, also where the equations are not defined; undamped steps at the end
    converge quadratically.
    """
    y, f = start, flow.drift(start)
    damping = 1e-3
    for _ in range(steps):
        if not np.isfinite(f).all():
            return Zero(y, float("inf"), False)
        jacobian = flow.jacobian(y)
        scale = float(np.abs(jacobian).max(initial=0.0)) * max(1.0, float(np.abs(y).max(initial=0.0)))
        if np.abs(f).max() <= TOLERANCE * scale:
            return _polished(flow, y, f, jacobian)
        if not np.isfinite(jacobian).all():
            break
        found = _shorter(flow.drift, y, f, jacobian, damping)
        if found is None:
            break
        y, f, damping = found
    return Zero(y, float(np.abs(f).max()), False)


def _shorter(
    drift: Callable[[np.ndarray], np.ndarray], y: np.ndarray, f: np.ndarray, jacobian: np.ndarray, damping: float
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return the next state, its drift and damping; None if no step shortens the drift."""
    left, values, right = np.linalg.svd(jacobian)
    along = left.T @ f
    largest = max(values[0], np.finfo(float).tiny)
    while damping < 1e12:
        step = right.T @ (values * along / (values**2 + damping * largest**2))
        trial = y - step
        changed = drift(trial)
        if np.isfinite(changed).all() and np.linalg.norm(changed) < np.linalg.norm(f):
            return trial, changed, max(damping / 10, 1e-18)
        damping = max(10 * damping, 1e-16)
    return None


def _polished(flow: Flow, y: np.ndarray, f: np.ndarray, jacobian: np.ndarray) -> Zero:
    """One more step, of least length, kept if it helps."""
    better = y - np.linalg.pinv(jacobian, rcond=1e-10) @ f
    changed = flow.drift(better)
    if np.isfinite(changed).all() and np.abs(changed).max() < np.abs(f).max():
        y, f = better, changed
    return Zero(y, float(np.abs(f).max()), True)
