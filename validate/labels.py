"""Labels of the teacher's output: how each kind is made of the output and of one random number an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .inputs import Inputs


def real(output: float, noise: float) -> float:
    """Return y* + σ ζ; ``noise`` is σ ζ."""
    return output + noise


def sign(output: float, noise: float) -> float:
    """Return sign(y*), flipped where ``noise`` is negative; where y* is 0, as with a ReLU teacher, the toss of a coin,
    which is the size of ``noise``.
    """
    coin = 3.0 - 2.0 * abs(noise)  # 1 or −1
    label = 1.0 if output > 0.0 else -1.0 if output < 0.0 else coin + output  # NaN stays NaN
    return label if noise > 0.0 else -label


def logistic(output: float, noise: float) -> float:
    """Return +1 with probability 1/(1 + exp(−y*)): the sign of y* + ``noise``, which has the logistic distribution."""
    return 1.0 if output + noise > 0.0 else -1.0 if output + noise <= 0.0 else output


LABELS: dict[str, Callable[[float, float], float]] = {"real": real, "sign": sign, "logistic": logistic}
"""By the model's ``labels``."""


def draw_noise(inputs: Inputs, rng: np.random.Generator, out: np.ndarray) -> None:
    """Fill ``out`` with the labels' random numbers; for real labels without noise none are drawn.

    For signs: −1 or −2 where the label is flipped, 1 or 2 where it is not; 1 or 2 are sides of a coin.
    """
    if inputs.labels == "logistic":
        out[:] = rng.logistic(size=out.size)
    elif inputs.labels == "sign":
        uniform = rng.random(out.size)
        coin = 1.0 + (uniform * 2.0**32 % 1.0 < 0.5)  # by its 33rd binary digit
        out[:] = np.where(uniform < inputs.flip, -coin, coin)
    elif inputs.sigma:
        rng.standard_normal(out=out)
        out *= inputs.sigma
