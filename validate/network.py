"""Engine "network": the real network, trained on real inputs.

Costs (2K + M)·d multiply-adds a step, and d normal numbers, which are the larger part while K and M are small.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .generated import SPHERICAL, build, hold, label, learn, pace, teacher_output
from .initial import Coordinates, weights
from .inputs import Inputs
from .labels import draw_noise
from .normals import Normals

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

BLOCK = 1 << 15
"""Normal numbers drawn at a time: 256 kB, so that they are still in the second-level cache when they are used."""


def train(
    teacher: np.ndarray,
    student: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    b: np.ndarray,
    teacher_bias: np.ndarray,
    x: np.ndarray,
    noise: np.ndarray,
    scale: float,
    eta: float,
    eta_a: float,
    eta_bias: float,
    keep: float,
    clock: np.ndarray,
    lengths: np.ndarray,
    fields: np.ndarray,
    h: np.ndarray,
    push: np.ndarray,
) -> int:
    """Make one SGD step for each row of ``x``; return how many were made before one was not finite.

    ``teacher`` (M, d) and ``student`` (K, d) are weights over √d, so that h = w·x; ``student``, ``a`` and ``bias`` are
    updated.
    """
    d = student.shape[1]
    for step in range(x.shape[0]):
        for n in range(teacher.shape[0]):
            hers = 0.0
            for j in range(d):
                hers += teacher[n, j] * x[step, j]
            fields[n] = hers
        for i in range(student.shape[0]):
            own = 0.0
            for j in range(d):
                own += student[i, j] * x[step, j]
            h[i] = own
        y = label(teacher_output(fields, b, teacher_bias), noise[step])
        rate = pace(clock[0] + (clock[2] + step) * clock[1], clock)
        if not learn(h, a, bias, y, scale, rate * eta, rate * eta_a, rate * eta_bias, keep, push):
            return step
        for i in range(student.shape[0]):
            kick = push[i]
            for j in range(d):
                student[i, j] = keep * student[i, j] + kick * x[step, j]
        if SPHERICAL:
            hold(student, lengths)
    return x.shape[0]


def compile_network(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``train`` is :func:`train` for this model."""
    return build(model, "network", hold, train)


class Network:
    """One replica: weights, second layer, biases and the streams that they are trained on.

    Inputs and the labels' random numbers have a stream each, so that a trajectory does not depend on how it is cut into
    blocks.
    """

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence
    ) -> None:
        orientation, examples, noise = seed.spawn(3)
        self._inputs, self._noise = Normals(examples), np.random.Generator(np.random.PCG64DXSM(noise))
        self.place(*weights(start, d, init, np.random.Generator(np.random.PCG64DXSM(orientation))))
        self.a, self.bias = inputs.a.copy(), inputs.bias.copy()
        self.block = max(1, BLOCK // d)
        self._kernel, self._given = kernel, inputs
        self._x, self._zeta = np.empty((self.block, d)), np.zeros(self.block)
        self._rates, self._clock = inputs.rates(d), inputs.clock(d)
        self._work = np.empty(inputs.M), np.empty(inputs.K), np.empty(inputs.K)

    def place(self, teacher: np.ndarray, student: np.ndarray) -> None:
        """Start from given weights over √d, (M, d) and (K, d)."""
        self.teacher, self.student = teacher, student
        self._norms = np.linalg.norm(student, axis=1)

    def draw(self, steps: int) -> np.ndarray:
        """Return standard normal inputs, shape (steps, d)."""
        return self._inputs.fill(self._x[:steps])

    def advance(self, steps: int) -> int:
        """Train on at most ``self.block`` fresh examples; return how many steps stayed finite."""
        x, zeta, given = self.draw(steps), self._zeta[:steps], self._given
        draw_noise(given, self._noise, zeta)
        made: int = self._kernel.train(
            self.teacher, self.student, self.a, self.bias, given.b, given.teacher_bias, x, zeta,
            *self._rates, self._clock, self._norms, *self._work,
        )  # fmt: skip
        self._clock[2] += made
        return made

    def state(self) -> dict[str, np.ndarray]:
        """Return Q (K, K), R (K, M), a (K,), and bias (K,) where the model has them."""
        state = {"Q": self.student @ self.student.T, "R": self.student @ self.teacher.T, "a": self.a.copy()}
        return state | ({"bias": self.bias.copy()} if "bias" in self._given.states else {})
