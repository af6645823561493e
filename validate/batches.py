"""Steps on mini-batches and with momentum, for both engines.

A step is stated once, on coordinates of weights and inputs in any orthonormal frame: those of R^d make it the network,
those of a frame that spans the weights and the batch make it the chain of the overlaps. With W the weights, m the
momentum buffers and x the inputs, all as rows over √d,

    m ← β m + Σ_μ push_μ x_μᵀ,    W ← keep·W + share·m    (without momentum: W ← keep·W + Σ_μ push_μ x_μᵀ),

all gradients at the weights before the step; then students, not buffers, are rescaled if lengths are kept. Buffers are
rows like the weights, behind them; a trained second layer and biases move in the same way, with buffers of their own.
For the chain, the b inputs of a batch have normal coordinates in the frame of the rows, and outside it a triangular
factor of their Gram matrix (Bartlett): one step adds at most b columns, and one turn of the frame makes the rows
triangular again.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .generated import SPHERICAL, TRAINED, build, hold, label, learn, pace, teacher_output
from .initial import Coordinates, randomised, weights
from .inputs import Inputs
from .labels import draw_noise
from .normals import Normals

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

BLOCK = 1 << 15
"""Normal numbers drawn at a time: 256 kB, so that they are still in the second-level cache when they are used."""


def take_step(
    teacher: np.ndarray,
    rows: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    b: np.ndarray,
    teacher_bias: np.ndarray,
    x: np.ndarray,
    noise: np.ndarray,
    rates: np.ndarray,
    rate: float,
    lengths: np.ndarray,
    slow: np.ndarray,
    fields: np.ndarray,
    h: np.ndarray,
    push: np.ndarray,
    old: np.ndarray,
) -> bool:
    """Make one step on the batch ``x`` (batch, width); return whether it was finite.

    ``teacher`` (M, at most width) and ``rows`` (K or 2K, width) are weights over √d; ``rates`` holds s, the rates of
    one step over the batch size, keep, β and the share; ``rate`` is the factor of these rates now; ``slow`` (2, K) are
    the momentum buffers of ``a`` and ``bias``; ``push`` has shape (batch, K), ``old`` (4, K).
    """
    K, batch = a.size, x.shape[0]
    keep, beta, share = rates[4], rates[5], rates[6]
    for i in range(K):
        old[0, i], old[1, i] = a[i], bias[i]
        old[2, i], old[3, i] = 0.0, 0.0
    for m in range(batch):
        for n in range(teacher.shape[0]):
            hers = 0.0
            for j in range(teacher.shape[1]):
                hers += teacher[n, j] * x[m, j]
            fields[n] = hers
        for i in range(K):
            own = 0.0
            for j in range(rows.shape[1]):
                own += rows[i, j] * x[m, j]
            h[i] = own
        y = label(teacher_output(fields, b, teacher_bias), noise[m])
        if not learn(h, a, bias, y, rates[0], rate * rates[1], rate * rates[2], rate * rates[3], 1.0, push[m]):
            return False
        for i in range(K):  # what this example changes; the next one sees the old values
            old[2, i] += a[i] - old[0, i]
            old[3, i] += bias[i] - old[1, i]
            a[i], bias[i] = old[0, i], old[1, i]
    for i in range(K):
        if rows.shape[0] > K:
            slow[0, i] = beta * slow[0, i] + old[2, i]
            slow[1, i] = beta * slow[1, i] + old[3, i]
            old[2, i], old[3, i] = share * slow[0, i], share * slow[1, i]
        a[i] = keep * a[i] + old[2, i] if TRAINED else a[i]
        bias[i] += old[3, i]
        moved = i + K if rows.shape[0] > K else i
        factor = beta if rows.shape[0] > K else keep
        for j in range(rows.shape[1]):
            total = factor * rows[moved, j]
            for m in range(batch):
                total += push[m, i] * x[m, j]
            rows[moved, j] = total
        if moved != i:
            for j in range(rows.shape[1]):
                rows[i, j] = keep * rows[i, j] + share * rows[moved, j]
    if SPHERICAL:
        hold(rows, lengths)
    return True


def make_triangular(rows: np.ndarray, first: int) -> None:
    """Turn the frame vectors from ``first`` on so that rows are lower triangular there: reflections, row after row."""
    n, width = rows.shape
    for p in range(min(n, width - first)):
        column = first + p
        tail = 0.0
        for j in range(column + 1, width):
            tail += rows[p, j] * rows[p, j]
        if tail == 0.0:
            continue
        head = rows[p, column]
        length = math.sqrt(head * head + tail)
        # The mirror that takes this row to ±length e: the sign that does not cancel.
        pivot = head + length if head > 0.0 else head - length
        norm = pivot * pivot + tail
        for i in range(p + 1, n):
            dot = pivot * rows[i, column]
            for j in range(column + 1, width):
                dot += rows[p, j] * rows[i, j]
            dot *= 2.0 / norm
            rows[i, column] -= dot * pivot
            for j in range(column + 1, width):
                rows[i, j] -= dot * rows[p, j]
        rows[p, column] = -length if head > 0.0 else length
        for j in range(column + 1, width):
            rows[p, j] = 0.0


def take_steps(
    teacher: np.ndarray,
    rows: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    b: np.ndarray,
    teacher_bias: np.ndarray,
    x: np.ndarray,
    noise: np.ndarray,
    rates: np.ndarray,
    clock: np.ndarray,
    lengths: np.ndarray,
    slow: np.ndarray,
    turned: int,
    fields: np.ndarray,
    h: np.ndarray,
    push: np.ndarray,
    old: np.ndarray,
) -> int:
    """Make one step for each batch of ``x`` (steps, batch, width); return how many were made before one was not finite.

    After each the frame is turned from the vector number ``turned`` on; −1 leaves it.
    """
    for step in range(x.shape[0]):
        rate = pace(clock[0] + (clock[2] + step) * clock[1], clock)
        if not take_step(
            teacher, rows, a, bias, b, teacher_bias, x[step], noise[step], rates, rate, lengths, slow, fields, h, push,
            old,
        ):  # fmt: skip
            return step
        if turned >= 0:
            make_triangular(rows, turned)
    return x.shape[0]


def compile_steps(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``take_steps`` is :func:`take_steps` for this model."""
    return build(model, "batches", hold, take_step, make_triangular, take_steps)


class Batches:
    """One replica: rows of weights and buffers in some frame, and the streams that they are trained on.

    A subclass draws the inputs. Inputs and the labels' random numbers have streams of their own, so that a trajectory
    does not depend on how it is cut into blocks.
    """

    def __init__(self, kernel: ModuleType, inputs: Inputs, d: int, noise: np.random.SeedSequence) -> None:
        self._kernel, self._given = kernel, inputs
        self.a, self.bias = inputs.a.copy(), inputs.bias.copy()
        self.buffers = np.stack([inputs.a_buffer, inputs.bias_buffer])
        self._noise = np.random.Generator(np.random.PCG64DXSM(noise))
        scale, *rates, keep = inputs.rates(d)
        self._rates = np.array([scale, *(rate / inputs.batch for rate in rates), keep, *inputs.momentum(d)])
        K = inputs.K
        self._work = np.empty(inputs.M), np.empty(K), np.empty((inputs.batch, K)), np.empty((4, K))
        self._clock = inputs.clock(d)
        self.place(np.empty((0, 0)), np.empty((0, 0)))
        self.block, self._turned = 1, -1

    def place(self, teacher: np.ndarray, rows: np.ndarray) -> None:
        """Start from given coordinates of the teacher's weights, and of weights and buffers, over √d."""
        self.teacher, self.rows = teacher, rows
        self._norms = np.linalg.norm(rows[: self._given.K], axis=1)

    def draw(self, steps: int) -> np.ndarray:
        """Return inputs, shape (steps, batch, width)."""
        raise NotImplementedError

    def advance(self, steps: int) -> int:
        """Make at most ``self.block`` steps; return how many stayed finite."""
        given = self._given
        made: int = self._kernel.take_steps(
            self.teacher, self.rows, self.a, self.bias, given.b, given.teacher_bias, self.draw(steps),
            self._label_noise(steps), self._rates, self._clock, self._norms, self.buffers, self._turned,
            *self._work,
        )  # fmt: skip
        self._clock[2] += made
        return made

    def _label_noise(self, steps: int) -> np.ndarray:
        """Return the labels' random numbers, shape (steps, batch)."""
        noise = np.zeros(steps * self._given.batch)
        draw_noise(self._given, self._noise, noise)
        return noise.reshape(steps, -1)

    def state(self) -> dict[str, np.ndarray]:
        """Return Q (K, K), R (K, M), a (K,), and what else are states of the model."""
        return self._states(self._overlaps(self.rows, self.teacher))

    def _overlaps(self, rows: np.ndarray, teacher: np.ndarray) -> dict[str, np.ndarray]:
        """Return the overlaps of rows with each other and with the teacher, whose columns may be fewer."""
        K = self._given.K
        gram, hers = rows @ rows.T, rows[:, : teacher.shape[1]] @ teacher.T
        return {"Q": gram[:K, :K], "R": hers[:K], "P": gram[:K, K:], "V": gram[K:, K:], "S": hers[K:]}

    def _states(self, overlaps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what are states of the model; Q, R and a always."""
        scalars = {"a": self.a, "bias": self.bias, "a_buffer": self.buffers[0], "bias_buffer": self.buffers[1]}
        state = overlaps | {name: array.copy() for name, array in scalars.items()}
        return {name: array for name, array in state.items() if name in ("Q", "R", "a", *self._given.states)}


class BatchNetwork(Batches):
    """The network itself, on inputs in R^d."""

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence
    ) -> None:
        orientation, examples, noise = seed.spawn(3)
        super().__init__(kernel, inputs, d, noise)
        self._inputs = Normals(examples)
        self.place(*weights(start, d, init, np.random.Generator(np.random.PCG64DXSM(orientation))))
        self._shape = inputs.batch, d
        self.block = max(1, BLOCK // (inputs.batch * d))

    def draw(self, steps: int) -> np.ndarray:
        """Return standard normal inputs."""
        return self._inputs.fill(np.empty((steps, *self._shape)))


class BatchGram(Batches):
    """The exact chain of the overlaps."""

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence
    ) -> None:
        initial, normals, rests, lengths, noise = seed.spawn(5)
        super().__init__(kernel, inputs, d, noise)
        self._normals, self._rests, self._lengths = (
            np.random.Generator(np.random.PCG64DXSM(child)) for child in (normals, rests, lengths)
        )
        if init == "random":
            start = randomised(start, d, np.random.Generator(np.random.PCG64DXSM(initial)))
        count, r = start.along.shape
        inside = min(count, d - r)
        self.freedom = d - r - inside
        spare = min(inputs.batch, self.freedom)
        rows = np.zeros((count, r + inside + spare))
        rows[:, :r] = start.along
        across = np.asarray(np.linalg.qr(start.across.T, mode="r")).T
        rows[:, r : r + across.shape[1]] = across
        self.place(start.teacher, rows)
        self._turned = r if spare else -1
        self._inside, self._spare = r + inside, spare
        self.block = max(1, BLOCK // (inputs.batch * self.rows.shape[1]))

    def draw(self, steps: int) -> np.ndarray:
        """Return the inputs of each batch in the frame of the weights, and outside it up to a common rotation."""
        batch, spare = self._given.batch, self._spare
        x = np.empty((steps, batch, self._inside + spare))
        x[..., : self._inside] = self._normals.standard_normal((steps, batch, self._inside))
        if spare:
            x[..., self._inside :] = np.tril(self._rests.standard_normal((steps, batch, spare)), -1)
            squares = self._lengths.chisquare(self.freedom - np.arange(spare), (steps, spare))
            x[:, range(spare), range(self._inside, self._inside + spare)] = np.sqrt(squares)
        return x
