"""Which student is which: replicas of a permutation-symmetric model are matched before they are averaged.

Students that start alike specialise to different teachers in different replicas. One permutation per replica, the same
at all times, brings it as close as possible to a reference replica.

A match selects: where students differ by noise only, the matched replica follows the reference's noise, and its mean is
biased. So ``"auto"`` exchanges only students that the start does not tell apart, and only where they come apart later.
"""

from __future__ import annotations

from itertools import permutations, product
from math import factorial, prod

import numpy as np
from scipy.optimize import linear_sum_assignment

from .inputs import Inputs

BRUTE_FORCE = 120
"""Up to this many permutations all are tried; beyond, an assignment problem is solved and refined."""


def exchangeable(inputs: Inputs, resolution: float) -> list[list[int]]:
    """Return the groups of students that the start does not tell apart.

    Two students are in one group if exchanging them changes no initial overlap, bias or trained second-layer weight by
    more than ``resolution`` of the largest of its kind; fixed second-layer weights must be equal. The resolution of
    finite d is 1/√d, the size of a chance overlap.
    """
    own, hers = (np.sqrt(np.einsum("...ii->...i", overlaps).max()) for overlaps in (inputs.Q, inputs.T))
    slack_a = resolution * abs(inputs.a).max() if inputs.trained else 0.0

    def alike(i: int, k: int) -> bool:
        order = np.arange(inputs.K)
        order[[i, k]] = k, i
        return bool(
            abs(inputs.a[i] - inputs.a[k]) <= slack_a
            and abs(inputs.bias[i] - inputs.bias[k]) <= resolution * abs(inputs.bias).max()
            and abs(inputs.R[..., order, :] - inputs.R).max() <= resolution * own * hers
            and abs(inputs.Q[..., order, :][..., order] - inputs.Q).max() <= resolution * own**2
        )

    groups: list[list[int]] = []
    for i in range(inputs.K):
        home = next((group for group in groups if all(alike(i, k) for k in group)), None)
        home.append(i) if home else groups.append([i])
    return groups


def come_apart(state: dict[str, np.ndarray], inputs: Inputs, group: list[int], d: int) -> bool:
    """Return whether students of a group ever differ, in a replica, by more than chance: 5/√d of the vectors' size.

    Where the start is symmetric and the symmetry is not broken they never do, and matching them would select noise.
    """
    size = np.sqrt(max(state["Q"][..., group, group].max(), 1e-300) * np.einsum("...ii->...i", inputs.T).max())
    R = state["R"][..., group, :]
    return bool((R.max(axis=-2) - R.min(axis=-2)).max() > 5 * size / np.sqrt(d))


def same_second_layer(inputs: Inputs) -> list[list[int]]:
    """Return the groups of students that have the same initial or fixed second-layer weight."""
    return [np.flatnonzero(inputs.a == value).tolist() for value in np.unique(inputs.a)]


def best_order(state: dict[str, np.ndarray], reference: dict[str, np.ndarray], groups: list[list[int]]) -> np.ndarray:
    """Return the order of a replica's students, within ``groups``, that comes closest to the reference.

    Closest in the sum over times of the squared differences of all states. Exact for up to 120 permutations; for more,
    an assignment problem in R, a, biases and the lengths Q_ii, refined by assignment problems in which the other
    students' order is held, as long as the distance falls.

    Parameters
    ----------
    state, reference : dict
        ``Q`` (t, K, K), ``R`` (t, K, M), ``a`` (t, K), and whatever else has an axis of students after t; of overlaps
        in blocks, (t, B, K, K) …, each block counts like a time of its own.
    groups : list of list of int
        Students that may take each other's place.

    Returns
    -------
    ndarray of int, shape (K,)
        ``order``, such that ``R[:, order]`` matches ``reference["R"]``.
    """
    K = reference["a"].shape[-1]
    state, reference = _blocks_as_times(state), _blocks_as_times(reference)
    allowed = np.full((K, K), np.inf)
    for group in groups:
        allowed[np.ix_(group, group)] = 0.0
    if prod(factorial(len(group)) for group in groups) <= BRUTE_FORCE:
        return min(_all_orders(groups, K), key=lambda order: _distance(state, reference, order))

    names = ["lengths", *(name for name in reference if name != "Q")]
    single = allowed + sum(_squared(_features(state, name), _features(reference, name)) for name in names)
    order = np.argsort(linear_sum_assignment(single)[1])
    best = _distance(state, reference, order)
    while True:
        rows = state["Q"][:, :, order].transpose(1, 0, 2).reshape(K, -1)
        trial_cost = single + _squared(rows, reference["Q"].transpose(1, 0, 2).reshape(K, -1))
        trial = np.argsort(linear_sum_assignment(trial_cost)[1])
        distance = _distance(state, reference, trial)
        if not distance < best:
            return order
        order, best = trial, distance


def permuted(state: dict[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
    """Return the state with its students in another order."""
    moved = {name: array[:, order] if array.ndim < 3 else array[..., order, :] for name, array in state.items()}
    return moved | {name: moved[name][..., order] for name in ("Q", "P", "V") if name in moved}


def _blocks_as_times(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a.reshape(-1, *a.shape[-2:]) if a.ndim == 4 else a for name, a in state.items()}


def _all_orders(groups: list[list[int]], K: int) -> list[np.ndarray]:
    orders = []
    for choice in product(*(permutations(group) for group in groups)):
        order = np.empty(K, dtype=int)
        for group, arranged in zip(groups, choice, strict=True):
            order[group] = arranged
        orders.append(order)
    return orders


def _distance(state: dict[str, np.ndarray], reference: dict[str, np.ndarray], order: np.ndarray) -> float:
    moved = permuted(state, order)
    return sum(float(((moved[name] - reference[name]) ** 2).sum()) for name in reference)


def _features(state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return one row per student."""
    values = np.einsum("tii->ti", state["Q"]) if name == "lengths" else state[name]
    return values.swapaxes(0, 1).reshape(values.shape[1], -1)


def _squared(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return |left_i − right_k|²."""
    return ((left**2).sum(1)[:, None] - 2 * left @ right.T) + (right**2).sum(1)
