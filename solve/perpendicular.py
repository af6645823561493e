"""What student vectors have orthogonal to the teacher's: where wide students start, and what a simulation has of it."""

from typing import Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import Described


def perpendicular(Q: Any, R: Any, T: Any) -> np.ndarray:
    """Return Q⊥ = Q − R T⁺ Rᵀ, the overlaps of the parts of student vectors that are orthogonal to all teacher vectors.

    Parameters
    ----------
    Q, R, T : array_like
        Overlaps, (…, K, K), (…, K, M) and (…, M, M); leading axes broadcast.

    Returns
    -------
    ndarray
        (…, K, K): initial values ``Q_perp`` of ``limit="mean-field-pairs"``; of ``"mean-field"`` its diagonal.

    Raises
    ------
    ModelError
        If shapes do not fit.

    Examples
    --------
    >>> perpendicular(Q=[[1.0, 0.5], [0.5, 1.0]], R=[[0.6], [0.5]], T=[[1.0]]).round(3)
    array([[0.64, 0.2 ],
           [0.2 , 0.75]])
    """
    Q, R, T = (np.asarray(array, dtype=float) for array in (Q, R, T))
    if min(Q.ndim, R.ndim, T.ndim) < 2 or R.shape[-2:] != (Q.shape[-1], T.shape[-1]):
        raise ModelError("R", Described(f"arrays of shapes {Q.shape}, {R.shape}, {T.shape}"), "(K, K), (K, M), (M, M)")
    return np.asarray(Q - R @ np.linalg.pinv(T, hermitian=True) @ np.swapaxes(R, -1, -2))
