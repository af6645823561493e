"""The imbalance Λ = U_1ᵀU_1 − VᵀV of two layers, which gradient flow conserves, by the eigenvalues that bounds need."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Positive parts of eigenvalues of Λ, those that do not exist being zero.

    Attributes
    ----------
    first, first_rth : float
        [λ_1(Λ)]_+ and [λ_r(Λ)]_+: by how much the first layer is the larger one, at most and in all of r directions.
    second, second_mth : float
        [λ_1(−Λ)]_+ and [λ_m(−Λ)]_+: the same for the second layer and its m directions.
    """

    first: float
    first_rth: float
    second: float
    second_mth: float


def imbalance(U1: np.ndarray, V: np.ndarray) -> Imbalance:
    """Return the imbalance of weights U_1 (r, h) and V (m, h), at a cost that is linear in h.

    Examples
    --------
    >>> imbalance(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]))  # Λ = diag(4, −1)
    Imbalance(first=4.0, first_rth=4.0, second=1.0, second_mth=1.0)
    """
    eigenvalues = spectrum(U1, V)
    first, first_rth = (_largest(eigenvalues, k) for k in (1, len(U1)))
    second, second_mth = (_largest(-eigenvalues, k) for k in (1, len(V)))
    return Imbalance(first, first_rth, second, second_mth)


def spectrum(U1: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Return all h eigenvalues of Λ.

    With [U_1; V]ᵀ = QT of k = min(h, r + m) columns Q, they are those of T_1T_1ᵀ − T_2T_2ᵀ and h − k zeros.
    """
    T = np.asarray(np.linalg.qr(np.concatenate([U1, V]).T, mode="r"))
    T1, T2 = T[:, : len(U1)], T[:, len(U1) :]
    return np.concatenate([np.linalg.eigvalsh(T1 @ T1.T - T2 @ T2.T), np.zeros(U1.shape[1] - len(T))])


def singular_value(matrix: np.ndarray, k: int) -> float:
    """Return the k-th largest singular value, zero if there are fewer."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return float(values[k - 1]) if k <= values.size else 0.0


def _largest(eigenvalues: np.ndarray, k: int) -> float:
    return max(0.0, float(np.sort(eigenvalues)[-k])) if k <= eigenvalues.size else 0.0
