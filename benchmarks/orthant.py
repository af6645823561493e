"""Microseconds per orthant probability of four fields: the compiled sign4 against SciPy's integration.

P(all > 0) = (1 + the six E[s_a s_b] + E[s₁ s₂ s₃ s₄])/16: only the last is not elementary. SciPy's randomised lattice
rule at its default accuracy, 1e-5, gives the same probability. Errors are against mpmath.
"""

import itertools
import math
from collections.abc import Callable

import mpmath
import numpy as np
from numba import njit
from scipy.stats import multivariate_normal
from timing import Row, interleaved

from effdyn.derive.gaussian.special_values import evaluate
from effdyn.solve.kernels.cache import load_generated
from effdyn.solve.kernels.functions import SOURCES, with_requirements

MOST_MICROSECONDS = 3.0
MOST_ERROR = 1e-12
CALLS = 1000
"""To a call from Python: about a millisecond."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    rng = np.random.default_rng(0)
    sign4, loop = _compiled()
    rows = []
    for name, fields in _fields(rng):
        cov = fields @ fields.T
        triangle = cov[np.triu_indices(4)]
        correlations = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        jobs = {"kernel": lambda c=triangle: loop(CALLS, c), "scipy": lambda r=correlations: _scipy(r)}
        seconds = interleaved(jobs, 5 if quick else 30)
        micro, ratio = 1e6 * seconds["kernel"] / CALLS, seconds["scipy"] * CALLS / seconds["kernel"]
        exact = float(evaluate("sign4", [lambda _, c=c: mpmath.mpf(float(c)) for c in triangle], 53))
        error = abs(sign4(*triangle) - exact)
        other = abs(_scipy(correlations) - _orthant(correlations, exact)) * 16  # in the units of sign4
        limit = f"<= {MOST_MICROSECONDS:g} us"
        rows.append(
            Row(
                f"sign4, {name}",
                micro,
                "us",
                ratio,
                "multivariate_normal.cdf of SciPy",
                limit,
                micro <= MOST_MICROSECONDS,
            )
        )
        rows.append(
            Row(
                f"error, {name}",
                error,
                "",
                other / max(error, 2**-53),
                "SciPy's error",
                "<= 1e-12",
                error <= MOST_ERROR,
            )
        )
    return rows


def _fields(rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Return fields as vectors whose covariances have no rounding: unrelated; and perfect learning."""
    b = np.round(4 * rng.standard_normal((4, 6))) / 4
    near = b[[0, 0, 1, 1]] + 2.0**-17 * np.array([[0], [1], [0], [1]]) * b[[2, 2, 3, 3]]
    return [("unrelated fields", b), ("two pairs 1e-5 apart", near)]


def _compiled() -> tuple[Callable[..., float], Callable[[int, np.ndarray], float]]:
    """Return sign4 and a loop of its calls, in which nothing can be done once for all."""
    text = "\n".join(SOURCES[name] for name in with_requirements(["sign4"]))
    sign4 = load_generated("sign4", f"import math\n\nfrom numba import njit\n\n{text}").sign4

    @njit
    def loop(count: int, c: np.ndarray) -> float:
        total = 0.0
        for n in range(count):
            scale = 1.0 + 1e-3 * n
            total += sign4(
                scale * c[0], scale * c[1], scale * c[2], scale * c[3], scale * c[4],
                scale * c[5], scale * c[6], scale * c[7], scale * c[8], scale * c[9],
            )  # fmt: skip
        return total

    return sign4, loop


def _scipy(correlations: np.ndarray) -> float:
    return float(multivariate_normal.cdf(np.zeros(4), cov=correlations, allow_singular=True))


def _orthant(correlations: np.ndarray, sign4: float) -> float:
    pairs = sum(2 / math.pi * math.asin(correlations[a, b]) for a, b in itertools.combinations(range(4), 2))
    return (1 + pairs + sign4) / 16
