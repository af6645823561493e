"""The averages over an example along a solution, the diffusion matrix above all, as a table that is interpolated."""

import numpy as np

from .rhs import System, averages_at

SPLINE = 1e-4
"""Relative error of the interpolated diffusion matrix at which no more of it is computed: below that of D itself."""


def diffusion_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the diffusion matrix D at times (T,) and packed states (T, n), (T, n, n)."""
    return averages_along(system, times, states)[:, : system.n**2].reshape(-1, system.n, system.n)


def averages_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return D, and the part of the correction that the rule over examples gives: (T, n² + n)."""
    par, work = system.parameters(), np.zeros(system.n_work)
    return np.array([averages_at(t, state, par, work) for t, state in zip(times, states, strict=True)])


def tabulated(system: System, times: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ``par`` with the averages over examples as a cubic spline in time along a solution, and the relative error
    of that.

    They are a smooth function of a smooth trajectory, but cost more than all else together: so they are computed at
    every fourth of these times, then between them, until the spline has passed through what it had not seen to
    :data:`SPLINE`.
    """
    from scipy.interpolate import CubicSpline

    seen = np.arange(0, len(times), 4)
    values, error = averages_along(system, times[seen], states[seen]), np.inf
    for stride in (4, 2):
        between = np.arange(stride // 2, len(times), stride)
        new = averages_along(system, times[between], states[between])
        scale = max(np.abs(new).max(), np.finfo(float).tiny)  # nothing fluctuates at a fixed point without noise
        error = float(np.abs(CubicSpline(times[seen], values)(times[between]) - new).max() / scale)
        order = np.argsort(np.concatenate([seen, between]))
        seen, values = np.concatenate([seen, between])[order], np.concatenate([values, new])[order]
        if error < SPLINE:
            break
    coefficients = CubicSpline(times[seen], values).c
    return system.parameters(times[seen], coefficients.transpose(1, 0, 2)), error


def square(packed: np.ndarray, n: int) -> np.ndarray:
    """Return symmetric matrices (T, n, n) from their upper triangles (T, n(n + 1)/2)."""
    full = np.empty((len(packed), n, n))
    i, j = np.triu_indices(n)
    full[:, i, j] = full[:, j, i] = packed
    return full
