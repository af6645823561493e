"""What the data are to a linear model: directions that they span, how strongly, and what there is to learn along them.

Knows nothing of networks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import Described

NORMALISATIONS = ("sum", "mean")


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """Data in the singular basis of the inputs, X = W [Σ^{1/2} 0] [Φ_1 Φ_2]ᵀ, and Ỹ = WᵀY.

    Attributes
    ----------
    eigenvalues : ndarray, shape (r,)
        Σ: the eigenvalues of XᵀX that are not zero, falling.
    seen, unseen : ndarray, shapes (D, r) and (D, D − r)
        Φ_1 and Φ_2: directions that the inputs span, and those that no input has.
    target : ndarray, shape (r, m)
        Ỹ.
    floor : float
        L*: the loss that no linear model goes below.
    """

    eigenvalues: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    target: np.ndarray
    floor: float

    @property
    def solution(self) -> np.ndarray:
        """Return Σ^{-1/2} Ỹ, shape (r, m): the min-norm solution in the basis Φ_1."""
        return self.target / np.sqrt(self.eigenvalues)[:, None]


def reduce_data(X: np.ndarray, Y: np.ndarray) -> Reduction:
    """Return the data in the singular basis of their inputs.

    The rank counts singular values above max(n, D)·ε times the largest, as ``numpy.linalg.matrix_rank`` does.

    Examples
    --------
    >>> data = reduce_data(np.array([[2.0, 0.0, 0.0]]), np.array([[1.0]]))
    >>> data.eigenvalues, data.unseen.shape, abs(data.solution)
    (array([4.]), (3, 2), array([[0.5]]))
    """
    n, D = X.shape
    W, s, Phi = np.linalg.svd(X, full_matrices=n < D)
    r = int((s > s.max(initial=0.0) * max(n, D) * np.finfo(float).eps).sum())
    if r == 0:
        raise ModelError("X", Described("a matrix of zeros"), "inputs of which at least one is not zero")
    W = W[:, :r]
    target = W.T @ Y
    rest = Y - W @ target
    return Reduction(s[:r] ** 2, Phi[:r].T, Phi[r:].T, target, 0.5 * float((rest**2).sum()))


def checked_data(X: Any, Y: Any, normalisation: str = "sum") -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (n, D) and labels (n, m), over √n where the loss is the mean over samples."""
    X, Y = matrix("X", X, "inputs, one row per sample"), matrix("Y", Y, "labels, one row per sample")
    if len(X) != len(Y):
        raise ModelError("Y", _shape(Y), f"as many rows as X, which has {len(X)}")
    if normalisation not in NORMALISATIONS:
        raise ModelError("normalisation", normalisation, f"one of {', '.join(map(repr, NORMALISATIONS))}")
    scale = 1.0 if normalisation == "sum" else len(X) ** -0.5
    return scale * X, scale * Y


def matrix(name: str, given: Any, meaning: str, columns: int | None = None) -> np.ndarray:
    """Return a finite matrix of floats that is not empty, or say what stands in the way."""
    try:
        values = np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise ModelError(name, Described(f"a {type(given).__name__}"), f"a matrix of numbers: {meaning}") from error
    if values.ndim != 2 or not values.size:
        raise ModelError(name, _shape(values), f"a matrix that is not empty: {meaning}")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ModelError(name, Described(f"a matrix with {bad} entries that are not finite"), "finite numbers")
    if columns is not None and values.shape[1] != columns:
        raise ModelError(name, _shape(values), f"{columns} columns: {meaning}")
    return values


def _shape(values: np.ndarray) -> Described:
    return Described(f"an array of shape {values.shape}")
