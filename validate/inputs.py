"""What a simulation starts from: initial overlaps and parameters, read and checked once, at the call.

Knows nothing of engines. Every mistake is reported under the name that the user typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.solve.layout import read_inputs as solve_inputs

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent


@dataclass(frozen=True, slots=True)
class Inputs:
    """Initial overlaps and parameters with their shapes settled.

    Attributes
    ----------
    Q, R, T : ndarray
        Initial overlaps, shapes (K, K), (K, M), (M, M).
    a, b : ndarray
        Second layers of student (its initial value where it is trained) and teacher, shapes (K,), (M,).
    eta, eta_a, sigma, kappa : float
        Learning rates of the two layers, standard deviation of the label noise, weight decay; 0 where the model has
        none.
    scale : float
        s(K), the factor in front of the student's output.
    trained : bool
        Whether ``a`` is trained.
    """

    Q: np.ndarray
    R: np.ndarray
    T: np.ndarray
    a: np.ndarray
    b: np.ndarray
    eta: float
    eta_a: float
    sigma: float
    kappa: float
    scale: float
    trained: bool

    @property
    def K(self) -> int:
        """Number of student units."""
        return self.R.shape[0]

    @property
    def M(self) -> int:
        """Number of teacher units."""
        return self.R.shape[1]

    @property
    def gram(self) -> np.ndarray:
        """Ω, the overlaps of all vectors, the teacher's first; shape (M + K, M + K)."""
        return np.block([[self.T, self.R.T], [self.R, self.Q]])


def read_inputs(model: TeacherStudent, y0: Mapping[str, Any], params: Mapping[str, Any]) -> Inputs:
    """Return the checked arrays behind ``y0`` and ``params``.

    Raises
    ------
    ModelError
        Naming the entry at fault: unknown, missing, in both places, of the wrong shape, not finite, out of range, or
        overlaps that no vectors have.
    """
    given = solve_inputs(model.training_step(), y0, params)
    arrays: dict[str, Any] = given.y0 | given.params
    scalars = {name: float(arrays.get(name, 0.0)) for name in ("eta", "eta_a", "sigma", "kappa")}
    return Inputs(
        **{name: arrays[name] for name in ("Q", "R", "T", "a", "b")} | scalars,
        scale=_output_scale(model, given.sizes["K"]),
        trained=model.trains_second_layer,
    )


def _output_scale(model: TeacherStudent, K: int) -> float:
    scale = complex(model.output_scale.subs({symbol: K for symbol in model.output_scale.free_symbols}).evalf())
    if scale.imag or not np.isfinite(scale) or scale == 0:
        raise ModelError("output_scale", model.output_scale, f"a finite real number other than 0 at K = {K}")
    return scale.real
