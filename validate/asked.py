"""What a simulation was asked for, checked: choices, counts, dimensions, times, seeds.

Knows nothing of models nor of engines. Every mistake is reported under the name that the user typed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effdyn.derive.errors import ModelError, nearest
from effdyn.derive.limits import WIDE_CLOCK


@dataclass(frozen=True, slots=True)
class Times:
    """When to save: nominal times ``t``, on the grid of the smallest d, and for each d the steps made by then.

    A step at dimension d takes the time ``unit``/d, the first one from ``origin``.
    """

    t: np.ndarray
    steps: dict[int, np.ndarray]
    origin: float
    unit: float

    def at(self, step: np.ndarray | int, d: int) -> np.ndarray | float:
        """Return the time after so many steps at dimension d."""
        return self.origin + step * (self.unit / d)


def unit_of(clock: str, eta: float, width: int) -> float:
    """Return the time that d steps take on a clock, with learning rate ``eta`` and ``width`` student units."""
    return {"eta*steps/d": eta, WIDE_CLOCK: eta / width}.get(clock, 1.0)


def times_to_save(t_span: Any, t_eval: Any, sizes: list[int], clock: str, eta: float, width: int = 1) -> Times:
    span = np.asarray(t_span, dtype=float)
    if span.shape != (2,) or not np.isfinite(span).all() or span[1] < span[0]:
        raise ModelError("t_span", t_span, "two finite times, the first not after the second")
    unit = unit_of(clock, eta, width)
    if not unit > 0:
        raise ModelError("params['eta']", eta, f"a positive learning rate, where the clock is {clock}")
    asked = np.linspace(span[0], span[1], 101) if t_eval is None else np.asarray(t_eval, dtype=float)
    margin = 1e-9 * max(1.0, abs(span).max())
    if (
        asked.ndim != 1
        or asked.size == 0
        or not np.isfinite(asked).all()
        or (np.diff(asked) < 0).any()
        or asked[0] < span[0] - margin
        or asked[-1] > span[1] + margin
    ):
        raise ModelError("t_eval", t_eval, f"ascending finite times in t_span={tuple(span.tolist())}")
    grid = np.unique(np.rint((asked - span[0]) * (min(sizes) / unit)).astype(np.int64))
    steps = {d: np.rint(grid * (d / min(sizes))).astype(np.int64) for d in sizes}
    return Times(span[0] + grid * (unit / min(sizes)), steps, float(span[0]), unit)


def dimensions(d: Any) -> list[int]:
    given = list(d) if np.ndim(d) else [d]
    if not given or any(
        isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1 for size in given
    ):
        raise ModelError("d", d, "a positive whole number, or a list of them")
    if len(set(given)) < len(given):
        raise ModelError("d", d, "different dimensions, each once")
    return [int(size) for size in given]


def check_choice(argument: str, given: Any, accepted: tuple[Any, ...]) -> None:
    if not any(given is option or (isinstance(given, str) and given == option) for option in accepted):
        raise ModelError(
            argument, given, f"one of {', '.join(map(repr, accepted))}{nearest(str(given), map(str, accepted))}"
        )


def check_count(argument: str, given: Any) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 1:
        raise ModelError(argument, given, "a whole number, at least 1")
