"""Inverse Laplace transforms: nodes and weights on Talbot's contour.

f(t) = (1/2πi) ∫ e^{zt} F(z) dz is deformed to a contour that winds around the negative axis, where the transforms of
decaying functions have their singularities, and on which the midpoint rule converges as 3.89^(-nodes). Source:
Trefethen, Weideman & Schmelzer, BIT 46, 653 (2006), section 4, the optimal cotangent contour.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=32)
def contour(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return z·t and weights·t such that f(t) = Σ weight F(z), for f real or complex.

    Weights grow as e^(0.17 nodes): of 24 nodes, the error is 1e-14 for a single transform and about 1e-12 for one
    inside another; more add rounding only.

    Examples
    --------
    >>> z, w = contour(24)
    >>> abs(np.sum(w / (z + 3.0)) - np.exp(-3.0)) < 1e-13
    np.True_
    """
    theta = (np.arange(nodes) + 0.5) * (2 * np.pi / nodes) - np.pi
    a, b, c, e = 0.5017, 0.6407, 0.6122, 0.2645
    cotangent = 1 / np.tan(b * theta)
    z = nodes * (a * theta * cotangent - c + 1j * e * theta)
    slope = nodes * (a * cotangent - a * b * theta / np.sin(b * theta) ** 2 + 1j * e)
    return z, np.exp(z) * slope / (1j * nodes)
