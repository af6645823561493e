"""The diffusion matrix along a solution, as a table that is interpolated."""

import numpy as np

from .fluctuations_rhs import System, rhs_function

SPLINE = 1e-4
"""Relative error of the interpolated diffusion matrix at which no more of it is computed: below that of D itself."""


def diffusion_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the diffusion matrix D at times (T,) and packed states (T, n), (T, n, n).

    It is what moves the covariance where that is zero.
    """
    n, par, work = system.n, system.parameters(), np.zeros(system.n_work)
    function = rhs_function()
    y = np.zeros(2 * n + n * (n + 1) // 2)
    found = np.empty((len(states), len(y)))
    for row, t, state in zip(found, times, states, strict=True):
        y[:n] = state
        function(t, *(array.ctypes.data for array in (y, row, par, work)))
    return square(found[:, 2 * n :], n)


def tabulated(system: System, times: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ``par`` with the diffusion matrix as a cubic spline in time along a solution, and its relative error.

    It is a smooth function of a smooth trajectory, but costs more than all else together: so it is computed at every
    fourth of these times, then between them, until the spline has passed through what it had not seen to
    :data:`SPLINE`.
    """
    from scipy.interpolate import CubicSpline

    seen = np.arange(0, len(times), 4)
    values, error = diffusion_along(system, times[seen], states[seen]), np.inf
    for stride in (4, 2):
        between = np.arange(stride // 2, len(times), stride)
        new = diffusion_along(system, times[between], states[between])
        scale = max(np.abs(new).max(), np.finfo(float).tiny)  # nothing fluctuates at a fixed point without noise
        error = float(np.abs(CubicSpline(times[seen], values)(times[between]) - new).max() / scale)
        order = np.argsort(np.concatenate([seen, between]))
        seen, values = np.concatenate([seen, between])[order], np.concatenate([values, new])[order]
        if error < SPLINE:
            break
    coefficients = CubicSpline(times[seen], values.reshape(len(seen), -1)).c
    return system.parameters(times[seen], coefficients.transpose(1, 0, 2)), error


def square(packed: np.ndarray, n: int) -> np.ndarray:
    """Return symmetric matrices (T, n, n) from their upper triangles (T, n(n + 1)/2)."""
    full = np.empty((len(packed), n, n))
    i, j = np.triu_indices(n)
    full[:, i, j] = full[:, j, i] = packed
    return full
