"""Random admissible states and parameters, at which two right-hand sides are compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.solve.kernels.layout import read_inputs, unpack
from effdyn.solve.stability.starts import random_state

from .tensors import Batch

RANGE = (0.45, 1.85)
"""Of random rates and standard deviations: of order one, so that every power of them shows."""
WHOLE = {"batch": (2, 9), "d": (20, 60)}
"""Parameters that are whole numbers, with the range of random ones."""
ADD_UP = {"input_share"}
"""Parameters whose elements add up to 1."""


def random_batches(
    dyn: Dynamics, sizes: Sequence[Mapping[str, int]], params: Mapping[str, Any], sets: int, states: int, rng: Any
) -> list[Batch]:
    """Return a batch for each of ``sizes``: ``sets`` sets of parameters, at each of them some ``states``.

    The overlaps are those of random vectors, longer and shorter than the teacher's, and nothing is 1: a factor 1 would
    hide whether it is there. ``params`` are kept as they are given.
    """
    return [_batch(dyn, dict(numbers), params, sets, states, rng) for numbers in sizes]


def _batch(dyn: Dynamics, sizes: dict[str, int], params: Mapping[str, Any], sets: int, states: int, rng: Any) -> Batch:
    rows: list[dict[str, Any]] = []
    timed = any(TIME in e.expr.free_symbols for e in dyn.drift)
    for _ in range(sets):
        free = [q for q in dyn.parameters if not q.pseudoinverse_of]
        drawn = {q.name: params[q.name] if q.name in params else _parameter(q, sizes, rng) for q in free}
        for _ in range(states):
            y = unpack(dyn.states, random_state(dyn, sizes, drawn, rng), sizes)
            inputs = read_inputs(dyn, y, drawn)
            rows.append({**inputs.y0, **inputs.params, **({str(TIME): rng.uniform(0.2, 3.0)} if timed else {})})
    values = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}
    return Batch(sizes, values, np.repeat(np.arange(sets), states))


def _parameter(q: Quantity, sizes: Mapping[str, int], rng: Any) -> np.ndarray:
    """Return a random value of a parameter: overlaps of vectors, weights of either sign, positive rates."""
    shape = tuple(sizes[str(s)] for s in q.shape)
    if q.name in WHOLE:
        return np.asarray(float(rng.integers(*WHOLE[q.name])))
    if q.symmetric or (len(shape) == 3 and q.shape[1] == q.shape[2]):  # overlaps in each block of the inputs
        vectors = rng.standard_normal((*shape[:-1], 2 * shape[-1] + 1))
        return np.asarray(0.8 * vectors @ vectors.swapaxes(-1, -2) / vectors.shape[-1])
    values = rng.uniform(*RANGE, shape) * (rng.choice([-1.0, 1.0], shape) if q.minimum is None else 1.0)
    if q.name in ADD_UP:
        return np.asarray(values / values.sum())
    return np.asarray(
        values if q.maximum is None else (q.minimum or 0.0) + rng.uniform(0.1, 0.9) * (q.maximum - (q.minimum or 0.0))
    )


def default_sizes(dyn: Dynamics) -> list[dict[str, int]]:
    """Return two choices of sizes, all different, so that a sum over the wrong index or a factor 1/K shows."""
    names = [str(s) for s in dyn.sizes]
    least = {str(s): n for s, n in dyn.least_sizes.items()}
    choices = [range(2, 2 + len(names))[::-1], range(2, 2 + len(names))]
    unique = [dict(zip(names, c, strict=True)) for c in choices]
    sizes = [{name: max(n, least.get(name, 1)) for name, n in one.items()} for one in unique]
    return sizes if len(names) > 1 else [{name: n for name in names} for n in (2, 3)][: 2 if names else 1]
