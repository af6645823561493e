"""Both engines on Gaussian inputs with a mean: one fixed vector more in the frame of the weights.

With x = μ + z, the vector √d μ is a teacher's row that teaches nothing: the frame spans it too, and an input is a
standard normal one plus the coordinates of μ. Exact in law at every d.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .batches import Batches, BatchGram, BatchNetwork
from .initial import Coordinates, coordinates
from .inputs import Inputs

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent


def coordinates_with_center(inputs: Inputs) -> Coordinates:
    """Return weights that have the overlaps and means of ``inputs`` exactly; the teacher's first row is √d μ."""
    hers = inputs.teacher_mean[None]
    T = np.block([[np.full((1, 1), inputs.input_mean**2), hers], [hers.T, inputs.T]])
    R, S = np.column_stack([inputs.mean, inputs.R]), np.column_stack([inputs.buffer_mean, inputs.S])
    return coordinates(replace(inputs, T=T, R=R, S=S))


def as_biases(
    model: TeacherStudent, inputs: Inputs, state: dict[str, np.ndarray]
) -> tuple[TeacherStudent, Inputs, dict[str, np.ndarray]]:
    """Return a model with biases, on centred inputs, whose units have these fields: means and biases add."""
    hers = inputs.teacher_bias + inputs.teacher_mean
    biased = replace(model, inputs="isotropic", biases=True)
    return biased, replace(inputs, teacher_bias=hers), state | {"bias": state["mean"] + state.get("bias", 0.0)}


class _Shifted(Batches):
    """What both engines share: where the mean of the inputs is."""

    center = np.empty(0)

    def take_center(self) -> None:
        """Take √d μ out of the teacher's rows."""
        self.center, self.teacher = self.teacher[0].copy(), np.ascontiguousarray(self.teacher[1:])

    def draw(self, steps: int) -> np.ndarray:
        """Return inputs in the frame of the weights: standard normal ones, and their mean."""
        x = super().draw(steps)
        x[..., : self.center.size] += self.center
        return x

    def state(self) -> dict[str, np.ndarray]:
        """Return Q (K, K), R (K, M), a (K,), mean (K,), and what else are states of the model."""
        means, K = self.rows[:, : self.center.size] @ self.center, self._given.K
        state = super().state() | {"mean": means[:K]}
        return state | ({"buffer_mean": means[K:]} if "buffer_mean" in self._given.states else {})


class ShiftedNetwork(_Shifted, BatchNetwork):
    """The network itself, on inputs in R^d."""

    def __init__(self, *arguments: object) -> None:
        BatchNetwork.__init__(self, *arguments)  # type: ignore[arg-type]
        self.take_center()


class ShiftedGram(_Shifted, BatchGram):
    """The exact chain of the overlaps and means."""

    def __init__(self, *arguments: object) -> None:
        BatchGram.__init__(self, *arguments)  # type: ignore[arg-type]
        self.take_center()
