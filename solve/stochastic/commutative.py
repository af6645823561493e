"""Whether the noise commutes: ``L_j b_k = L_k b_j`` for all pairs of amplitudes, with ``L_j = b_j · ∇``.

Then a path needs nothing of its Brownian motions but their increments, and strong order 1 is within reach.
"""

import numpy as np

from .steps import compiled_factor
from .system import System

STEP = 6e-6
"""Of central differences, relative to the state: about the cube root of the rounding error."""
TOLERANCE = 1e-6
"""A hundred times what such differences leave of zero at worst (rounding over ``STEP``, 4e-11, times a thousand)."""


COARSE = 1e-3
"""Far from a path, where entries may be of very different sizes: what does not commute in general is far beyond it."""
LOOKS = 4
"""From each state, at others that the noise may carry it to: one by accident is where noise commutes, not all."""


def commutes(system: System, t: float, y: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Return whether the noise commutes at a time and packed state, by differences."""
    if system.m == 1:
        return True
    B = amplitudes(system, t, y)
    size = max(1.0, float(abs(y).max()))
    strengths = abs(B).max(axis=0)
    slopes = np.zeros((system.m, *B.shape))  # L_j b_k at [j, :, k]
    for j in np.flatnonzero(strengths):
        step = STEP * size / strengths[j]
        slopes[j] = (amplitudes(system, t, y + step * B[:, j]) - amplitudes(system, t, y - step * B[:, j])) / (2 * step)
    scale = abs(slopes).max() + strengths.max() ** 2 / size
    return bool(abs(slopes - slopes.transpose(2, 1, 0)).max() <= tolerance * scale)


def commutes_around(system: System, t: float, y: np.ndarray, duration: float) -> bool:
    """Return whether the noise commutes at states as far from ``y`` as it alone carries in a time, wherever it is a
    number there.

    The slopes of x⁶ vanish, to all digits, where x is small; after a time they do not.
    """
    rng = np.random.default_rng(0)
    for _ in range(LOOKS):
        far = y
        for _ in range(2):  # twice, for noise that has none of its own until another has moved it
            B = amplitudes(system, t, far)
            far = far + B @ rng.normal(size=system.m) * np.sqrt(duration / 2)
        around = amplitudes(system, t, far)
        if np.isfinite(far).all() and np.isfinite(around).all() and not commutes(system, t, far, COARSE):
            return False
    return True


def amplitudes(system: System, t: float, y: np.ndarray) -> np.ndarray:
    """Return the amplitudes of all Brownian motions at a time and packed state, (n, m); NaN where there are none."""
    work, raw, *_, B = system.scratch()
    system.diffusion.function(t, *(a.ctypes.data for a in (y, raw, system.par, work)))
    rows, columns, places, _ = system.entries.T
    np.add.at(B, (rows, columns), raw[places])
    return B if not system.factored or compiled_factor()(B) else np.full_like(B, np.nan)
