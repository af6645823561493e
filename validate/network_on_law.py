"""Engine "network" on inputs that are not standard normal: other examples, the same steps.

Fields are then not normal, so that generalisation error and loss are not functions of the overlaps. They are averages
over test examples of the same law, drawn once for each run: what they miss is independent from run to run, and so part
of the scatter over runs, and curves are smooth in time.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .batches import BatchNetwork
from .data_laws import DataLaw, Examples
from .generated import student_unit, teacher_output
from .initial import Coordinates, weights
from .inputs import Inputs
from .network import Network
from .sampling import compile_measuring, measure

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

TESTED, TEST_NUMBERS, LEAST = 1024, 1 << 21, 16
"""Test examples of a run; fewer where they would be more numbers than that (16 MB), but at least so many."""
BIASES = True


def average(
    teacher: np.ndarray,
    student: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    b: np.ndarray,
    teacher_bias: np.ndarray,
    x: np.ndarray,
    noise: np.ndarray,
    scale: float,
    flip: float,
    fields: np.ndarray,
) -> tuple[float, float]:
    """Return the means over examples ``x``, as rows, of what ``measure`` gives.

    ``teacher`` (M, d) and ``student`` (K, d) are weights over √d; ``fields`` has shape (M,).
    """
    quality, loss = 0.0, 0.0
    for m in range(x.shape[0]):
        for n in range(teacher.shape[0]):
            hers = 0.0
            for j in range(teacher.shape[1]):
                hers += teacher[n, j] * x[m, j]
            fields[n] = hers
        phi = 0.0
        for i in range(student.shape[0]):
            own = 0.0
            for j in range(student.shape[1]):
                own += student[i, j] * x[m, j]
            phi += a[i] * student_unit(own + bias[i] if BIASES else own)[0]
        first, second = measure(scale * phi, teacher_output(fields, b, teacher_bias), noise[m], flip)
        quality += first
        loss += second
    return quality / x.shape[0], loss / x.shape[0]


@lru_cache(maxsize=16)
def compile_average(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``average`` is :func:`average` for this model."""
    return compile_measuring(model, "tested", average)


class OnLaw:
    """Training and test examples of one replica on a data law."""

    def __init__(
        self, law: DataLaw, model: TeacherStudent, given: Inputs, d: int, chunk: int, seed: np.random.SeedSequence
    ) -> None:
        disorder, train, test = (np.random.Generator(np.random.PCG64DXSM(child)) for child in seed.spawn(3))
        sampler = law.sampler(d, disorder)
        self.training = Examples(sampler, train, chunk)
        self._given, self._kernel = given, compile_average(model)
        count = max(LEAST, min(TESTED, TEST_NUMBERS // d))
        self._x = np.ascontiguousarray(sampler(test, count))
        self._noise = given.sigma * test.standard_normal(count)
        self._squared = given.labels == "real" and model.loss.name == "squared"

    def kept(self) -> dict[str, Any]:
        """Return where the training examples are."""
        return self.training.kept()

    def go_on(self, kept: dict[str, Any]) -> None:
        """Take the training examples from there on."""
        self.training.go_on(kept)

    def averages(
        self, teacher: np.ndarray, student: np.ndarray, a: np.ndarray, bias: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return eg or the error rate, and the loss."""
        given = self._given
        quality, loss = self._kernel.average(
            teacher, student, a, bias, given.b, given.teacher_bias, self._x, self._noise, given.scale, given.flip,
            np.empty(given.M),
        )  # fmt: skip
        if self._squared:  # label noise is independent of the fields
            loss = quality + given.sigma**2 / 2
        return {"eg" if given.labels == "real" else "error_rate": np.array(quality), "loss": np.array(loss)}


class LawNetwork(Network):
    """One replica on a data law, one example a step."""

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence,
        law: DataLaw, model: TeacherStudent, orientation: str,
    ) -> None:  # fmt: skip
        super().__init__(kernel, inputs, start, d, init, seed)
        if orientation == "axes":
            self.place(*_along_axes(start, d, init, seed))
        self._law = OnLaw(law, model, inputs, d, self.block, seed)

    def draw(self, steps: int) -> np.ndarray:
        """Return inputs of the law, shape (steps, d)."""
        return self._law.training.take(steps)

    def state(self) -> dict[str, np.ndarray]:
        """Return the overlaps and what else are states, and the averages over test examples."""
        return super().state() | self._law.averages(self.teacher, self.student, self.a, self.bias)


class LawBatchNetwork(BatchNetwork):
    """One replica on a data law, with mini-batches or momentum."""

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence,
        law: DataLaw, model: TeacherStudent, orientation: str,
    ) -> None:  # fmt: skip
        super().__init__(kernel, inputs, start, d, init, seed)
        if orientation == "axes":
            self.place(*_along_axes(start, d, init, seed))
        self._law = OnLaw(law, model, inputs, d, self.block * inputs.batch, seed)

    def draw(self, steps: int) -> np.ndarray:
        """Return inputs of the law, shape (steps, batch, d)."""
        batch = self._given.batch
        return self._law.training.take(steps * batch).reshape(steps, batch, -1)

    def state(self) -> dict[str, np.ndarray]:
        """Return the overlaps and what else are states, and the averages over test examples."""
        return super().state() | self._law.averages(self.teacher, self.rows[: self._given.K], self.a, self.bias)


def _along_axes(start: Coordinates, d: int, init: str, seed: np.random.SeedSequence) -> tuple[Any, Any]:
    (child,) = seed.spawn(1)
    return weights(start, d, init, np.random.Generator(np.random.PCG64DXSM(child)), "axes")
