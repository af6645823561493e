"""Both engines on Gaussian inputs whose covariance has a few eigenvalues: a frame of its own for each block.

An input is x = ⊕_g √λ_g z^g with z^g standard normal in the d_g directions of block g, and a weight vector the sum of
its parts. In the network the frames are those directions themselves. For the chain of the overlaps each block has what
:mod:`.batches` has for all: coordinates of the weights' parts in a frame that spans them, normal coordinates of the
inputs in it, and their triangular factor outside of it (Bartlett), all times √λ_g; after each step every frame is
turned by itself. Exact in law at every d, for d_g directions: π_g d, rounded to whole numbers that add up to d.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from effdyn.derive.errors import Described, ModelError

from .batches import BLOCK, Batches, make_triangular, take_step
from .generated import build, hold, pace
from .initial import Coordinates, coordinates, randomised, weights
from .inputs import Inputs
from .normals import Normals

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

OVERLAPS = ("Q", "R", "T", "P", "V", "S")


def take_steps_in_blocks(
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
    turned: np.ndarray,
    fields: np.ndarray,
    h: np.ndarray,
    push: np.ndarray,
    old: np.ndarray,
) -> int:
    """Make one step for each batch of ``x`` (steps, batch, width); return how many were made before one was not finite.

    After each, for every row (start, stop, first) of ``turned``, the frame of the columns from ``start`` to ``stop`` is
    turned from its vector number ``first`` on.
    """
    for step in range(x.shape[0]):
        rate = pace(clock[0] + (clock[2] + step) * clock[1], clock)
        if not take_step(
            teacher, rows, a, bias, b, teacher_bias, x[step], noise[step], rates, rate, lengths, slow, fields, h, push,
            old,
        ):  # fmt: skip
            return step
        for n in range(turned.shape[0]):
            make_triangular(rows[:, turned[n, 0] : turned[n, 1]], turned[n, 2])
    return x.shape[0]


def compile_blocks(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``take_steps_in_blocks`` is :func:`take_steps_in_blocks` for this model."""
    return build(model, "blocks", hold, take_step, make_triangular, take_steps_in_blocks)


def block_dimensions(share: np.ndarray, d: int) -> np.ndarray:
    """Return how many of d directions each block has: its share of them, rounded so that all add up to d.

    Examples
    --------
    >>> block_dimensions(np.array([0.6, 0.4]), 101).tolist()
    [61, 40]
    """
    exact = share * d
    whole = np.floor(exact + 1e-9).astype(int)
    largest = np.argsort(whole - exact, kind="stable")  # of the remainders
    whole[largest[: d - whole.sum()]] += 1
    return whole


def of_block(inputs: Inputs, block: int) -> Inputs:
    """Return the inputs with the overlaps of the parts in one block."""
    arrays = {name: getattr(inputs, name) for name in OVERLAPS}
    return replace(inputs, **{name: array[block] for name, array in arrays.items() if array.ndim == 3})


def coordinates_in_blocks(inputs: Inputs) -> tuple[Coordinates, ...]:
    """Return parts of weights that have the overlaps of ``inputs`` in each block exactly."""
    return tuple(coordinates(of_block(inputs, n)) for n in range(len(inputs.input_share)))


def check_dimensions(start: tuple[Coordinates, ...], share: np.ndarray, d: int, init: str) -> None:
    """Refuse a d of which some block has too little for the weights."""
    for n, (part, free) in enumerate(zip(start, block_dimensions(share, d), strict=True)):
        needed = part.rank if init == "exact" else part.teacher.shape[1]
        if free < needed:
            given = Described(f"{d}, of which block {n} has {free} directions")
            raise ModelError(
                "d", given, f"at least {needed} directions, the rank of the initial overlaps of that block"
            )


class _Blocks(Batches):
    """What both engines share: where the columns of each block are, and the overlaps of its parts."""

    def __init__(self, kernel: ModuleType, inputs: Inputs, d: int, noise: np.random.SeedSequence) -> None:
        super().__init__(kernel, inputs, d, noise)
        self._sizes = block_dimensions(inputs.input_share, d)
        self._edges = np.zeros(len(self._sizes) + 1, dtype=int)
        self._turns = np.empty((0, 3), dtype=np.int64)

    def _side_by_side(self, teacher: list[np.ndarray], rows: list[np.ndarray]) -> None:
        """Start from coordinates in each block."""
        self._edges[1:] = np.cumsum([part.shape[1] for part in rows])
        self.place(np.concatenate(teacher, axis=1), np.concatenate(rows, axis=1))
        self.block = max(1, BLOCK // (self._given.batch * max(1, self.rows.shape[1])))

    @property
    def _scales(self) -> np.ndarray:
        """The standard deviation of each coordinate of an input."""
        return np.repeat(np.sqrt(self._given.input_variance), np.diff(self._edges))

    def advance(self, steps: int) -> int:
        """Make at most ``self.block`` steps; return how many stayed finite."""
        given = self._given
        made: int = self._kernel.take_steps_in_blocks(
            self.teacher, self.rows, self.a, self.bias, given.b, given.teacher_bias, self.draw(steps),
            self._label_noise(steps), self._rates, self._clock, self._norms, self.buffers, self._turns,
            *self._work,
        )  # fmt: skip
        self._clock[2] += made
        return made

    def state(self) -> dict[str, np.ndarray]:
        """Return Q (B, K, K), R (B, K, M), a (K,), and what else are states of the model."""
        cuts = [slice(*pair) for pair in zip(self._edges[:-1], self._edges[1:], strict=True)]
        parts = [self._overlaps(self.rows[:, cut], self.teacher[:, cut]) for cut in cuts]
        state = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return self._states(state)


class BlockNetwork(_Blocks):
    """The network itself, on inputs in R^d."""

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: tuple[Coordinates, ...], d: int, init: str,
        seed: np.random.SeedSequence,
    ) -> None:  # fmt: skip
        orientation, examples, noise = seed.spawn(3)
        super().__init__(kernel, inputs, d, noise)
        directions = np.random.Generator(np.random.PCG64DXSM(orientation))
        self._inputs = Normals(examples)
        parts = [weights(part, int(n), init, directions) for part, n in zip(start, self._sizes, strict=True)]
        self._side_by_side([teacher for teacher, _ in parts], [rows for _, rows in parts])

    def draw(self, steps: int) -> np.ndarray:
        """Return inputs, shape (steps, batch, d)."""
        x = self._inputs.fill(np.empty((steps, self._given.batch, self.rows.shape[1])))
        x *= self._scales
        return x


class BlockGram(_Blocks):
    """The exact chain of the overlaps of all blocks."""

    def __init__(
        self, kernel: ModuleType, inputs: Inputs, start: tuple[Coordinates, ...], d: int, init: str,
        seed: np.random.SeedSequence,
    ) -> None:  # fmt: skip
        initial, normals, rests, lengths, noise = seed.spawn(5)
        super().__init__(kernel, inputs, d, noise)
        self._normals, self._rests, self._lengths = (
            np.random.Generator(np.random.PCG64DXSM(child)) for child in (normals, rests, lengths)
        )
        if init == "random":
            drawn = np.random.Generator(np.random.PCG64DXSM(initial))
            start = tuple(randomised(part, int(n), drawn) for part, n in zip(start, self._sizes, strict=True))
        frames = [_frame(part, int(n), inputs.batch) for part, n in zip(start, self._sizes, strict=True)]
        self._side_by_side([frame.teacher for frame in frames], [frame.rows for frame in frames])
        spare = np.array([frame.spare for frame in frames])
        ranks = [frame.rank for frame in frames]
        self._turns = np.column_stack([self._edges[:-1], self._edges[1:], ranks])[spare > 0].astype(np.int64)
        self._outside = np.concatenate(
            [edge - n + np.arange(n) for edge, n in zip(self._edges[1:], spare, strict=True)]
        )
        self._inside = np.setdiff1d(np.arange(self.rows.shape[1]), self._outside)
        self._degrees = np.concatenate([frame.freedom - np.arange(frame.spare) for frame in frames])
        self._row = np.concatenate([np.arange(n) for n in spare])  # of the triangular factor, by its columns

    def draw(self, steps: int) -> np.ndarray:
        """Return the inputs of each batch in the frames of the weights, and outside them up to common rotations."""
        batch, spare = self._given.batch, self._outside.size
        x = np.empty((steps, batch, self.rows.shape[1]))
        x[..., self._inside] = self._normals.standard_normal((steps, batch, self._inside.size))
        if spare:
            below = np.arange(batch)[:, None] > self._row
            x[..., self._outside] = self._rests.standard_normal((steps, batch, spare)) * below
            x[:, self._row, self._outside] = np.sqrt(self._lengths.chisquare(self._degrees, (steps, spare)))
        x *= self._scales
        return x


@dataclass(frozen=True, slots=True)
class _Frame:
    """Coordinates of the parts in a block: teacher (M, width) and rows (K or 2K, width), the last ``spare`` of which a
    step needs; the rank of the teacher, and the number of directions outside the span of both."""

    teacher: np.ndarray
    rows: np.ndarray
    rank: int
    spare: int
    freedom: int


def _frame(start: Coordinates, d: int, batch: int) -> _Frame:
    count, r = start.along.shape
    inside = min(count, d - r)
    spare = min(batch, d - r - inside)
    rows, teacher = np.zeros((count, r + inside + spare)), np.zeros((len(start.teacher), r + inside + spare))
    teacher[:, :r], rows[:, :r] = start.teacher, start.along
    across = np.asarray(np.linalg.qr(start.across.T, mode="r")).T
    rows[:, r : r + across.shape[1]] = across
    return _Frame(teacher, rows, r, spare, d - r - inside)
