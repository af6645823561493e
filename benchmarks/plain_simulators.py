"""The committee machine by one-pass SGD as one writes it for a paper: one thread, a loop over steps."""

import math
from collections.abc import Callable

import numpy as np
from problems import start
from scipy.special import erf

ETA = 0.1


def numpy_simulator(d: int, K: int, steps: int) -> Callable[[], object]:
    """Return what makes some steps in NumPy, in double precision."""
    rng = np.random.default_rng(0)
    teacher, student = weights(d, K, rng)

    def run() -> None:
        for _ in range(steps):
            x = rng.standard_normal(d)
            h = student @ x
            error = erf(teacher @ x / math.sqrt(2)).sum() - erf(h / math.sqrt(2)).sum()
            slope = math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2)
            student[:] += np.outer(ETA / d * error * slope, x)

    return run


def weights(d: int, K: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return weights over √d of teacher and student, of the lengths of the other benchmarks."""
    lengths = np.sqrt(np.diag(start(K)["Q"]))[:, None]
    return rng.standard_normal((K, d)) / math.sqrt(d), lengths * rng.standard_normal((K, d)) / math.sqrt(d)
