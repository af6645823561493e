"""Initial weights with prescribed overlaps.

Everything is said in an orthonormal frame of R^d whose first vectors span the teacher: with Ω the Gram matrix,

    w*_n/√d = Σ_α L_nα e_α,      w_i/√d = Σ_α B_iα e_α + Σ_β C_iβ e'_β,      T = L Lᵀ,  R = B Lᵀ,  Q = B Bᵀ + C Cᵀ.

Singular Ω is ordinary: a student that equals its teacher, two equal teachers, K + M > d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from effdyn.derive.errors import ModelError

from .inputs import Inputs


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Weights over √d in an orthonormal frame that begins with the span of the teacher.

    Attributes
    ----------
    teacher : ndarray, shape (M, r)
        L; r is the rank of T.
    along : ndarray, shape (K, r)
        B, the student in the teacher's span.
    across : ndarray, shape (K, s)
        C, the student outside it, over s frame vectors.
    """

    teacher: np.ndarray
    along: np.ndarray
    across: np.ndarray

    @property
    def rank(self) -> int:
        """The number of dimensions that the weights need."""
        return self.teacher.shape[1] + self.across.shape[1]


def coordinates(inputs: Inputs) -> Coordinates:
    """Return weights that have the overlaps of ``inputs`` exactly."""
    # Q − B Bᵀ cancels when a student lies in the teacher's span: what is left below the rounding error of Q itself is
    # not information, and is taken as zero.
    Q, R = inputs.rows
    noise = 4 * np.finfo(float).eps * (len(R) + inputs.M)
    teacher = teacher_coordinates(inputs.T, noise)
    along = np.linalg.lstsq(teacher, R.T, rcond=None)[0].T if teacher.size else np.zeros((len(R), 0))
    across = _square_root(Q - along @ along.T, noise * np.diag(Q).max())
    return Coordinates(teacher, along, across)


def teacher_coordinates(T: np.ndarray, noise: float) -> np.ndarray:
    """Return teachers of these overlaps, A with A Aᵀ = T, where ``noise`` is the relative error of sums."""
    return _lower(_square_root(T, noise * np.diag(T).max()))


def randomised(start: Coordinates, d: int, rng: np.random.Generator) -> Coordinates:
    """Return coordinates of a random student given the teacher, whose overlaps have mean Q, R.

    The student is B e + C ξ with ξ ~ N(0, I_d/d) in all of R^d, the span of the teacher included. Outside that span
    only the triangular factor of ξ matters, and is drawn as such (Bartlett), so that the cost does not depend on d.
    """
    r, s = start.teacher.shape[1], start.across.shape[1]
    along = start.along + start.across @ rng.standard_normal((s, r)) / np.sqrt(d)
    free = d - r
    factor = np.tril(rng.standard_normal((s, min(s, free))), -1)
    if free >= s:
        factor[np.diag_indices(s)] = np.sqrt(rng.chisquare(free - np.arange(s)))
    else:
        factor = rng.standard_normal((s, free))
    return Coordinates(start.teacher, along, start.across @ factor / np.sqrt(d))


def weights(
    start: Coordinates, d: int, init: str, rng: np.random.Generator, orientation: str = "random"
) -> tuple[np.ndarray, np.ndarray]:
    """Return w/√d of teacher and student, shapes (M, d) and (K, d).

    ``init`` is ``"exact"`` (the overlaps of ``start``, to rounding) or ``"random"`` (only their means);
    ``orientation`` that of the frame: ``"random"``, or ``"axes"``, the first axes of the inputs.
    """
    r, s = start.teacher.shape[1], start.across.shape[1]
    exact = init == "exact"
    size = r + s if exact else r
    frame = np.eye(size, d) if orientation == "axes" else np.linalg.qr(rng.standard_normal((d, size)))[0].T
    rest = frame[r:] if exact else rng.standard_normal((s, d)) / np.sqrt(d)
    return start.teacher @ frame[:r], start.along @ frame[:r] + start.across @ rest


def check_dimension(start: Coordinates, d: int, init: str) -> None:
    """Refuse a d with no room for the weights."""
    needed = start.rank if init == "exact" else start.teacher.shape[1]
    if d < needed:
        raise ModelError(
            "d", d, f"at least {needed}, the rank of the initial overlaps: fewer dimensions cannot hold such vectors"
        )


def _square_root(gram: np.ndarray, floor: float) -> np.ndarray:
    """Return F of full column rank with F Fᵀ = gram, eigenvalues up to ``floor`` taken as zero."""
    values, vectors = np.linalg.eigh(gram)
    live = values > floor
    return vectors[:, live] * np.sqrt(values[live])


def _lower(factor: np.ndarray) -> np.ndarray:
    """Return the lower-trapezoidal factor of the same Gram matrix, same shape (n, r), r <= n."""
    return np.asarray(np.linalg.qr(factor.T, mode="r")).T
