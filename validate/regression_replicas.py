"""One replica of linear regression: its data, its error, and how that moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from effdyn.derive.errors import Described, ModelError
from effdyn.derive.regression import LinearRegression

BLOCK = 1 << 16
"""Normal numbers drawn at a time."""
WHOLE = 1e-6
"""How far a number of directions or examples may be from a whole one, for rounding."""
State = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What all replicas of one size share.

    Attributes
    ----------
    d, n : int
        Dimension and number of examples (0 where each is seen once).
    lam : ndarray
        The eigenvalue in each direction, (d,), class by class.
    classes : ndarray
        The number of directions in each class, (L,); those of no class come last and have eigenvalue 0.
    error : ndarray
        The squared error in each class, (L,).
    eta, sigma : float
    general : bool
        Whether there are classes to speak of.
    """

    d: int
    n: int
    lam: np.ndarray
    classes: np.ndarray
    error: np.ndarray
    eta: float
    sigma: float
    general: bool

    @classmethod
    def of(cls, model: LinearRegression, given: Mapping[str, np.ndarray], d: int) -> Problem:
        """Return the problem at dimension d.

        Raises
        ------
        ModelError
            If the classes or the examples are not whole in number, or a class without directions has an error.
        """
        model.check_values(given)
        general = model.covariance == "general"
        fractions = given["p"] if general else np.ones(1)
        classes = np.array([_whole(f"params['p'] at d = {d}", p * d, "directions") for p in fractions])
        if classes.sum() > d:
            raise ModelError("params['p']", fractions.tolist(), "fractions that add up to at most 1")
        n = _whole(f"params['r'] at d = {d}", d / float(given["r"]), "examples") if "r" in given else 0
        lam = np.zeros(d)
        lam[: classes.sum()] = np.repeat(given["lam"] if general else 1.0, classes)
        if model.training == "multi-pass" and general and np.count_nonzero(lam) > n:
            raise ModelError(
                "params['lam']",
                Described(f"{np.count_nonzero(lam)} positive eigenvalues of X^T X/n at d = {d}"),
                f"at most n = {n} of them",
            )
        error = np.atleast_1d(given["c"]).astype(float)
        return cls(d, n, lam, classes, error, float(given.get("eta", 0.0)), float(given["sigma"]), general)

    @property
    def steps_per_unit(self) -> int:
        """Steps in a unit of time: n where there are n examples, else d."""
        return self.n or self.d

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Return an error (d,) with exactly the squared length of each class, in random directions."""
        v, low = np.zeros(self.d), 0
        for count, square in zip(self.classes, self.error, strict=True):
            direction = rng.standard_normal(count)
            v[low : low + count] = direction * np.sqrt(square) / np.linalg.norm(direction)
            low += count
        return v

    def by_class(self, v: np.ndarray) -> np.ndarray:
        """Return the squared error by class, (L,), or () where there is one."""
        ends = np.cumsum(self.classes)
        sums = np.array([np.sum(v[end - count : end] ** 2) for end, count in zip(ends, self.classes, strict=True)])
        return sums if self.general else sums[0]


def _whole(argument: str, number: float, what: str) -> int:
    nearest = round(number)
    if nearest < 1 or abs(number - nearest) > WHOLE * max(1.0, number):
        raise ModelError(argument, number, f"a whole number of {what}, at least 1: choose d accordingly")
    return nearest


def _fresh(v: np.ndarray, x: np.ndarray, noise: np.ndarray, rate: float) -> int:
    """Make one step for each row of ``x``; return how many were made before one was not finite."""
    for step in range(x.shape[0]):
        residual = noise[step]
        for k in range(v.size):
            residual -= v[k] * x[step, k]
        if not np.isfinite(residual):
            return step
        for k in range(v.size):
            v[k] += rate * residual * x[step, k]
    return int(x.shape[0])


def _repeated(v: np.ndarray, x: np.ndarray, noise: np.ndarray, order: np.ndarray, rate: float) -> int:
    """Make one step for each example in ``order``, a row of ``x``; return how many were made before one diverged."""
    for step in range(order.size):
        i = order[step]
        residual = noise[i]
        for k in range(v.size):
            residual -= v[k] * x[i, k]
        if not np.isfinite(residual):
            return step
        for k in range(v.size):
            v[k] += rate * residual * x[i, k]
    return int(order.size)


@lru_cache(maxsize=1)
def _compiled() -> tuple[Any, Any]:
    # sums may be reordered, for vector registers; the test for finite numbers must stay
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
    return njit(cache=True, **options)(_fresh), njit(cache=True, **options)(_repeated)


class OnePass:
    """SGD on fresh examples."""

    def __init__(self, problem: Problem, seed: np.random.SeedSequence, times: np.ndarray) -> None:
        start, self._inputs, self._noise = (np.random.Generator(np.random.PCG64DXSM(s)) for s in seed.spawn(3))
        self.problem, self.v = problem, problem.start(start)
        self.block = max(1, BLOCK // problem.d)
        self._root = np.sqrt(problem.lam)

    def advance(self, steps: int) -> int:
        """Train on so many fresh examples; return how many steps stayed finite."""
        p = self.problem
        x = self._inputs.standard_normal((steps, p.d)) * self._root
        noise = p.sigma * self._noise.standard_normal(steps)
        return int(_compiled()[0](self.v, x, noise, p.eta / p.d))

    def state(self) -> State:
        """Return c and eg."""
        return {"c": self.problem.by_class(self.v), "eg": np.asarray(0.5 * np.sum(self.problem.lam * self.v**2))}


class MultiPass:
    """SGD on n examples, drawn with replacement."""

    def __init__(self, problem: Problem, seed: np.random.SeedSequence, times: np.ndarray) -> None:
        start, data, self._order = (np.random.Generator(np.random.PCG64DXSM(s)) for s in seed.spawn(3))
        self.problem, self.v = problem, problem.start(start)
        self.x = _rotated(problem, data) if problem.general else data.standard_normal((problem.n, problem.d))
        self.noise = problem.sigma * data.standard_normal(problem.n)
        self.block = max(1, BLOCK // 8)

    def advance(self, steps: int) -> int:
        """Make so many steps; return how many stayed finite."""
        order = self._order.integers(self.problem.n, size=steps)
        return int(_compiled()[1](self.v, self.x, self.noise, order, self.problem.eta / self.problem.n))

    def state(self) -> State:
        """Return train_loss."""
        return {"train_loss": np.asarray(0.5 * np.mean((self.noise - self.x @ self.v) ** 2))}


def _rotated(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    """Return inputs (n, d) for which X^T X/n has exactly the given eigenvalues, with random left singular vectors."""
    live = np.flatnonzero(problem.lam)
    left, triangle = np.linalg.qr(rng.standard_normal((problem.n, live.size)))
    left *= np.sign(np.diag(triangle))  # uniform over all rotations
    x = np.zeros((problem.n, problem.d))
    x[:, live] = left * np.sqrt(problem.n * problem.lam[live])
    return x


class GradientFlow:
    """Gradient flow on n examples, solved in the eigenvectors of X^T X/n: exact at all times."""

    block = 1

    def __init__(self, problem: Problem, seed: np.random.SeedSequence, times: np.ndarray) -> None:
        start, data = (np.random.Generator(np.random.PCG64DXSM(s)) for s in seed.spawn(2))
        v = problem.start(start)
        self.problem, self.times, self.index = problem, times, -1
        self.x = data.standard_normal((problem.n, problem.d)) * np.sqrt(problem.lam)
        self.noise = problem.sigma * data.standard_normal(problem.n)
        left, values, self._right = np.linalg.svd(self.x / np.sqrt(problem.n), full_matrices=False)
        self._values = values
        self._pull = left.T @ self.noise / np.sqrt(problem.n)
        self._along = self._right @ v
        self._rest = v - self._right.T @ self._along  # directions without data, where nothing moves

    def advance(self, steps: int) -> int:
        """Go on to the next saved time."""
        self.index += steps
        return steps

    def state(self) -> State:
        """Return eg and train_loss."""
        rate = self._values**2
        t = self.times[self.index]
        # (1 - e^(-rate t))/rate · √rate, finite for rate = 0
        grown = np.where(rate * t > 0, -np.expm1(-rate * t) / np.where(self._values > 0, self._values, 1.0), 0.0)
        v = self._rest + self._right.T @ (self._along * np.exp(-rate * t) + grown * self._pull)
        residual = self.noise - self.x @ v
        return {
            "eg": np.asarray(0.5 * np.sum(self.problem.lam * v**2)),
            "train_loss": np.asarray(0.5 * np.mean(residual**2)),
        }


REPLICAS: dict[str, type[OnePass] | type[MultiPass] | type[GradientFlow]] = {
    "one-pass": OnePass,
    "multi-pass": MultiPass,
    "gradient-flow": GradientFlow,
}
"""By the training: the class of one replica."""
