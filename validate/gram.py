"""Engine "gram": the exact Markov chain of the overlaps at finite d.

For Gaussian inputs the Gram matrix Ω of all weights is a Markov chain of its own: with h ~ N(0, Ω) and
|x|² = hᵀΩ⁻¹h + χ²_{d−r}, r = rank Ω, one SGD step changes Ω by

    Ω'_fg = A_f A_g Ω_fg + (η/d)(A_g F_f h_g + A_f F_g h_f) + (η²/d)(|x|²/d) F_f F_g,

exactly in law at every d, at a cost that does not depend on d.

The chain is run on a square root of Ω, the weights' coordinates in a moving orthonormal frame (:mod:`.initial`): x has
coordinates z ~ N(0, I) in the frame and a rest of length χ_{d−r} in one further direction, and

    B ← A B + push zᵀ,        [C 0] ← A [C 0] + push (z', χ)ᵀ,

after which one turn of the frame makes C lower triangular again, K columns wide. Nothing is ever subtracted, so a
student may converge to its teacher, or start as one, without loss of digits; and a frame may be larger than the span,
so singular Ω needs no care: the unused z are the χ²'s extra degrees of freedom.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .generated import SPHERICAL, build, label, learn, pace, teacher_output
from .initial import Coordinates, randomised
from .inputs import Inputs
from .labels import draw_noise

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

BLOCK = 1 << 15
"""Normal numbers drawn at a time: 256 kB, so that they are still in the second-level cache when they are used."""


def turn(across: np.ndarray, push: np.ndarray, w: np.ndarray, keep: float) -> None:
    """Replace C by the lower-triangular C' with C'C'ᵀ = V Vᵀ, V = keep·[C 0] + push wᵀ.

    Two sweeps of plane rotations, O(K²). ``across``, shape (K + 1, K), holds the columns of C as rows, and a spare one;
    ``w``, shape (K + 1,), is overwritten.
    """
    K = push.size
    # First sweep, from the last pair of columns to the first: w becomes (|w|, 0, …, 0), C lower Hessenberg.
    across[K, K - 1] = 0.0
    length, tail = w[K], w[K] * w[K]
    for j in range(K - 1, -1, -1):
        tail += w[j] * w[j]
        below, length = length, math.sqrt(tail)
        inverse = 1.0 / length if length > 0.0 else 0.0
        c, s = (w[j] * inverse, below * inverse) if length > 0.0 else (1.0, 0.0)
        for i in range(j, K):
            first, second = keep * across[j, i], across[j + 1, i]
            across[j, i] = c * first + s * second
            across[j + 1, i] = c * second - s * first
    for i in range(K):
        across[0, i] += length * push[i]
    # Second sweep, first to last: remove what stands above the diagonal. The spare column ends as zero.
    for j in range(K):
        p, q = across[j, j], across[j + 1, j]
        radius = math.sqrt(p * p + q * q)
        if radius > 0.0:
            inverse = 1.0 / radius
            c, s = p * inverse, q * inverse
            across[j, j] = radius
            for i in range(j + 1, K):
                first, second = across[j, i], across[j + 1, i]
                across[j, i] = c * first + s * second
                across[j + 1, i] = c * second - s * first
        across[j + 1, j] = 0.0


def hold_in_frame(along: np.ndarray, across: np.ndarray, lengths: np.ndarray) -> None:
    """Rescale the students' coordinates to given lengths, (K,); a lower-triangular C stays one."""
    for i in range(lengths.size):
        square = 0.0
        for j in range(along.shape[1]):
            square += along[i, j] * along[i, j]
        for j in range(across.shape[0]):
            square += across[j, i] * across[j, i]
        factor = lengths[i] / math.sqrt(square)
        for j in range(along.shape[1]):
            along[i, j] *= factor
        for j in range(across.shape[0]):
            across[j, i] *= factor


def walk(
    teacher: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    b: np.ndarray,
    teacher_bias: np.ndarray,
    z: np.ndarray,
    rest: np.ndarray,
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
    w: np.ndarray,
) -> int:
    """Make one step of the chain for each row of ``z``; return how many were made before one was not finite.

    ``teacher`` (M, r), ``along`` (K, r) and ``across`` (s, K), the transpose of C, are :class:`.initial.Coordinates`.
    With s = K + 1, the last row spare, ``rest`` holds χ_{d−r−K} for each step; with s = d − r <= K the frame fills R^d
    and there is no rest.
    """
    K, r = along.shape
    open_frame = across.shape[0] > K
    s = K if open_frame else across.shape[0]
    for step in range(z.shape[0]):
        for n in range(teacher.shape[0]):
            hers = 0.0
            for j in range(min(n + 1, r)):
                hers += teacher[n, j] * z[step, j]
            fields[n] = hers
        for i in range(K):
            own = 0.0
            for j in range(r):
                own += along[i, j] * z[step, j]
            for j in range(min(i + 1, s) if open_frame else s):
                own += across[j, i] * z[step, r + j]
            h[i] = own
        y = label(teacher_output(fields, b, teacher_bias), noise[step])
        rate = pace(clock[0] + (clock[2] + step) * clock[1], clock)
        if not learn(h, a, bias, y, scale, rate * eta, rate * eta_a, rate * eta_bias, keep, push):
            return step
        for i in range(K):
            for j in range(r):
                along[i, j] = keep * along[i, j] + push[i] * z[step, j]
        if open_frame:
            for j in range(s):
                w[j] = z[step, r + j]
            w[s] = rest[step]
            turn(across, push, w, keep)
        else:
            for j in range(s):
                for i in range(K):
                    across[j, i] = keep * across[j, i] + push[i] * z[step, r + j]
        if SPHERICAL:
            hold_in_frame(along, across, lengths)
    return z.shape[0]


def compile_gram(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``walk`` is :func:`walk` for this model."""
    return build(model, "gram", turn, hold_in_frame, walk)


class Gram:
    """One replica: the weights' coordinates, the second layer, the biases and the streams that drive them.

    Normals, lengths and the labels' random numbers have a stream each, so that a trajectory does not depend on how it
    is cut into blocks.
    """

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: Coordinates, d: int, init: str, seed: np.random.SeedSequence
    ) -> None:
        initial, self._normals, self._lengths, self._noise = (
            np.random.Generator(np.random.PCG64DXSM(child)) for child in seed.spawn(4)
        )
        if init == "random":
            start = randomised(start, d, initial)
        K, r = start.along.shape
        self.freedom = d - r - K  # of the rest
        self.teacher, self.along = start.teacher, start.along.copy()
        self.a, self.bias = inputs.a.copy(), inputs.bias.copy()
        self.across = _columns(start.across, K + 1 if self.freedom > 0 else d - r)
        width = r + min(K, d - r)
        self.block = max(1, BLOCK // max(1, width))
        self._kernel, self._given = kernel, inputs
        self._rates, self._clock = inputs.rates(d), inputs.clock(d)
        self._norms = np.sqrt((self.along**2).sum(1) + (self.across**2).sum(0))
        self._z, self._zeta = np.empty((self.block, width)), np.zeros(self.block)
        self._work = np.empty(inputs.M), np.empty(K), np.empty(K), np.empty(K + 1)

    def advance(self, steps: int) -> int:
        """Make at most ``self.block`` steps; return how many stayed finite."""
        z, zeta, given = self._z[:steps], self._zeta[:steps], self._given
        self._normals.standard_normal(out=z)
        rest = np.sqrt(self._lengths.chisquare(self.freedom, steps)) if self.freedom > 0 else zeta[:0]
        draw_noise(given, self._noise, zeta)
        made: int = self._kernel.walk(
            self.teacher, self.along, self.across, self.a, self.bias, given.b, given.teacher_bias, z, rest, zeta,
            *self._rates, self._clock, self._norms, *self._work,
        )  # fmt: skip
        self._clock[2] += made
        return made

    def state(self) -> dict[str, np.ndarray]:
        """Return Q (K, K), R (K, M), a (K,), and bias (K,) where the model has them."""
        Q = self.along @ self.along.T + self.across.T @ self.across
        state = {"Q": Q, "R": self.along @ self.teacher.T, "a": self.a.copy()}
        return state | ({"bias": self.bias.copy()} if "bias" in self._given.states else {})


def _columns(factor: np.ndarray, count: int) -> np.ndarray:
    """Return the lower-triangular factor of the same Gram matrix, its columns as rows; shape (count, K)."""
    rows = np.asarray(np.linalg.qr(factor.T, mode="r"))
    return np.concatenate([rows, np.zeros((count - rows.shape[0], factor.shape[0]))])
