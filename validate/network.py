"""Engine "network": the real network, trained on real inputs.

Costs (2K + M)·d multiply-adds a step, and d normal numbers, which are the larger part while K and M are small.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .generated import build, learn, teacher_unit
from .initial import Coordinates, weights
from .inputs import Inputs

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

BLOCK = 1 << 15
"""Normal numbers drawn at a time: 256 kB, so that they are still in the second-level cache when they are used."""


def train(
    teacher: np.ndarray,
    student: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    noise: np.ndarray,
    scale: float,
    eta: float,
    eta_a: float,
    keep: float,
    trained: bool,
    h: np.ndarray,
    push: np.ndarray,
) -> int:
    """Make one SGD step for each row of ``x``; return how many were made before a residual was not finite.

    ``teacher`` (M, d) and ``student`` (K, d) are weights over √d, so that h = w·x; ``student`` and ``a`` are updated.
    """
    d = student.shape[1]
    for step in range(x.shape[0]):
        y = noise[step]
        for n in range(teacher.shape[0]):
            target = 0.0
            for j in range(d):
                target += teacher[n, j] * x[step, j]
            y += b[n] * teacher_unit(target)
        for i in range(student.shape[0]):
            own = 0.0
            for j in range(d):
                own += student[i, j] * x[step, j]
            h[i] = own
        residual = learn(h, a, y, scale, eta, eta_a, keep, trained, push)
        if not abs(residual) < np.inf:
            return step
        for i in range(student.shape[0]):
            rate = push[i]
            for j in range(d):
                student[i, j] = keep * student[i, j] + rate * x[step, j]
    return x.shape[0]


def compile_network(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``train`` is :func:`train` for this model."""
    return build(model, "network", train)


class Network:
    """One replica: weights, second layer and the streams that they are trained on.

    Inputs and label noise have a stream each, so that a trajectory does not depend on how it is cut into blocks.
    """

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence
    ) -> None:
        orientation, self._inputs, self._noise = (
            np.random.Generator(np.random.PCG64DXSM(child)) for child in seed.spawn(3)
        )
        self.teacher, self.student = weights(start, d, init, orientation)
        self.a = inputs.a.copy()
        self.block = max(1, BLOCK // d)
        self._kernel, self._sigma = kernel, inputs.sigma
        self._b = inputs.b
        self._rates = (inputs.scale, inputs.eta / d, inputs.eta_a / d, 1 - inputs.kappa / d, inputs.trained)
        self._x, self._zeta = np.empty((self.block, d)), np.zeros(self.block)
        self._work = np.empty(inputs.K), np.empty(inputs.K)

    def advance(self, steps: int) -> int:
        """Train on at most ``self.block`` fresh examples; return how many steps stayed finite."""
        x, zeta = self._x[:steps], self._zeta[:steps]
        self._inputs.standard_normal(out=x)
        if self._sigma:
            self._noise.standard_normal(out=zeta)
            zeta *= self._sigma
        return self._kernel.train(self.teacher, self.student, self.a, self._b, x, zeta, *self._rates, *self._work)

    def overlaps(self) -> dict[str, np.ndarray]:
        """Return Q (K, K), R (K, M) and a (K,)."""
        return {"Q": self.student @ self.student.T, "R": self.student @ self.teacher.T, "a": self.a.copy()}
