"""Linear algebra and interpolation inside the compiled right-hand side of the order-1/d theory."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import numpy as np
from numba import njit

from ..integrators import dop853

COUNTED = {"_nrt": True}  # views of the workspace are arrays of its own
OPTIONS, HELPER = dop853.OPTIONS | COUNTED, dop853.HELPER | COUNTED
NEAREST = 1e-3
"""The least scale of differences where forms are singular at fields that coincide, so that rounding stays below 1e-4 of
H:C: nearer to that the expansion itself ends."""


@njit(**OPTIONS)
def factorise(matrix, n, factor):
    """Put a lower triangular factor of a positive semidefinite matrix; directions without variance give zeros."""
    for j in range(n):
        pivot = matrix[j * n + j]
        for k in range(j):
            pivot -= factor[j * n + k] ** 2
        live = pivot > 1e-13 * matrix[j * n + j]
        root = np.sqrt(pivot) if live else 0.0
        for i in range(n):
            if i < j or not live:
                factor[i * n + j] = 0.0
            elif i == j:
                factor[i * n + j] = root
            else:
                value = matrix[i * n + j]
                for k in range(j):
                    value -= factor[i * n + k] * factor[j * n + k]
                factor[i * n + j] = value / root


def distance(gram: np.ndarray, active: int) -> float:
    """Return what :func:`least_distance` does, of a covariance of fields of which the first ones count."""
    fields = len(gram)
    factor = np.empty(fields * fields)
    factorise(np.ravel(gram), fields, factor)
    return float(least_distance(factor, fields, active))


@njit(**OPTIONS)
def least_distance(factor, fields, active):
    """Return the least part of a field's variance that those before it leave open: how near to coincidence they are.

    A field of vanishing vectors is none.
    """
    least = np.inf
    for a in range(active):
        pivot = factor[a * fields + a] ** 2
        if pivot > 0.0:
            least = min(least, pivot)
    return max(least, NEAREST)


@njit(**HELPER)
def is_complete(C, root, n):
    """Return whether a factor is that of all of C: of pivots that rounding decides there are none in it."""
    lost = 0
    for i in range(n):
        if root[i * n + i] == 0.0:  # between steps a variance may be 0 where covariances with it are not
            for j in range(n):
                lost += C[i * n + j] != 0.0
    return lost == 0


@njit(**HELPER)
def interpolate(t, times, table, width, out):
    """Put the value of a piecewise cubic function."""
    piece = min(max(np.searchsorted(times, t) - 1, 0), times.size - 2)
    x = t - times[piece]
    at = 4 * width * piece
    for i in range(width):
        high = table[at + i] * x + table[at + width + i]
        out[i] = (high * x + table[at + 2 * width + i]) * x + table[at + 3 * width + i]
