"""What is measured on a finite network besides its order parameters, from the overlaps of each run at each time.

Built from the model alone; the names are those of the theory's observables.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from .generalisation import generalisation_error
from .inputs import Inputs

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent


def observables(
    model: TeacherStudent, inputs: Inputs, Q: np.ndarray, R: np.ndarray, a: np.ndarray
) -> dict[str, np.ndarray]:
    """Return ``eg``, ``loss`` (…) and ``cosine`` (…, K, M), ``cosine_students`` (…, K, K) of given overlaps.

    ``loss`` is E[½(y − φ)²] = eg + σ²/2: label noise is independent of the fields. A cosine with a vector of length 0
    is NaN.

    Parameters
    ----------
    model, inputs :
        Activations and output scale; T, b and sigma.
    Q, R, a : ndarray
        Shapes (…, K, K), (…, K, M), (…, K).
    """
    assert model.loss == "squared", "another loss needs its own average over the noise"
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        eg = generalisation_error(model, inputs.K, inputs.M)(Q, R, inputs.T, a, inputs.b)
    if not np.isfinite(eg).all():
        warnings.warn(
            "eg is not finite: E[g(h)²] does not exist for this activation, or the overlaps are huge",
            RuntimeWarning,
            stacklevel=3,
        )
    own, hers = np.sqrt(np.einsum("...ii->...i", Q)), np.sqrt(np.diag(inputs.T))
    with np.errstate(invalid="ignore"):
        return {
            "eg": eg,
            "loss": eg + inputs.sigma**2 / 2,
            "cosine": R / own[..., :, None] / hers,
            "cosine_students": Q / own[..., :, None] / own[..., None, :],
        }
