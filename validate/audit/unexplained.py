"""What can be said of a difference that no hypothesis explains: its order in the learning rate, what it depends on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from effdyn.derive import Dynamics

from .candidates import Evaluators
from .given import Reader
from .tensors import Batch

if TYPE_CHECKING:
    from .explain import Explanation

HIGHEST = 4
"""The highest power of a parameter that is looked for."""


def describe(read: Reader, dyn: Dynamics, batch: Batch, found: "Explanation", tolerance: float) -> str:
    """Return a sentence on a difference: where it is, at which orders of each rate, on what it depends."""
    name = found.rows.equation.quantity.name
    one = Batch(batch.sizes, {n: a[:1] for n, a in batch.values.items()}, batch.group[:1])
    parts = ["no hypothesis of the table explains the difference", _entries(found, tolerance)]
    scalars = [q.name for q in dyn.parameters if not q.indices and q.name in batch.values]
    scale = max(float(np.max(abs(_derived(dyn, one, name)))), 1e-300)
    for parameter in scalars:
        orders = _orders(read, dyn, one, name, parameter, tolerance * scale)
        if orders is None:
            parts.append(f"it is no polynomial in {parameter}")
        elif orders != [0]:
            parts.append(f"of order {' and '.join(map(str, orders))} in {parameter}")
    used = [n for n in one.values if n not in scalars and _depends(read, dyn, one, name, n, tolerance * scale)]
    parts.append(f"it depends on {', '.join(used)}" if used else "it depends on no array")
    return "; ".join(parts)


def _entries(found: "Explanation", tolerance: float) -> str:
    difference = abs(found.mine - found.rows.values.sum(0))
    here = sorted({e for e, off in zip(found.rows.entries, difference > tolerance, strict=True) if off})
    whole = sorted(set(found.rows.entries))
    return "in every entry" if here == whole else f"in {', '.join(here)} only"


def _difference(read: Reader, dyn: Dynamics, batch: Batch, name: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
    changed = Batch(batch.sizes, {**batch.values, **values}, batch.group)
    return np.asarray(read(changed)[name] - _derived(dyn, changed, name))


def _derived(dyn: Dynamics, batch: Batch, name: str) -> np.ndarray:
    (equation,) = (e for e in dyn.drift if e.quantity.name == name)
    values = Evaluators(dyn, [batch]).rows(equation, equation.expr)
    return values.reshape(1, *(batch.number(s) for s in equation.quantity.shape))


def _orders(read: Reader, dyn: Dynamics, batch: Batch, name: str, parameter: str, tolerance: float) -> list[int] | None:
    """Return the powers of a parameter in the difference, or None if it is no polynomial of degree four."""
    points = np.linspace(0.4, 1.6, HIGHEST + 3)
    values = np.array([_difference(read, dyn, batch, name, {parameter: np.array([p])}).ravel() for p in points])
    powers = points[:, None] ** np.arange(HIGHEST + 1)
    coefficients, *_ = np.linalg.lstsq(powers, values, rcond=None)
    if np.max(abs(powers @ coefficients - values)) > 30 * tolerance:
        return None
    return [n for n, c in enumerate(coefficients) if np.max(abs(c)) > 1000 * tolerance]


def _depends(read: Reader, dyn: Dynamics, batch: Batch, name: str, array: str, tolerance: float) -> bool:
    before = _difference(read, dyn, batch, name, {})
    after = _difference(read, dyn, batch, name, {array: batch.values[array] * 0.93})
    return bool(np.max(abs(after - before)) > 10 * tolerance)
