"""The fewest hypotheses whose changes add up to a difference: exact search for one to four of them.

A mistake has the coefficient 1: changes either add up to the difference or do not, so that sets of three or four are
found by sorting sums (meet in the middle) instead of trying all.
"""

from collections.abc import Iterator, Sequence

import numpy as np

PROBES = 3
"""Random combinations of rows on which sums are compared before they are compared in full."""
MOST = 200_000
"""Sets of hypotheses that are compared in full."""


def explanations(
    columns: np.ndarray,
    members: Sequence[tuple[int, ...]],
    difference: np.ndarray,
    tolerance: float,
    counts: Sequence[int],
) -> list[tuple[int, ...]]:
    """Return the sets of fewest columns that add up to ``difference``, of as many as the first of ``counts`` that
    will do.

    Parameters
    ----------
    columns : array, shape (rows, n)
    members : sequence of tuple of int
        Which terms each column changes; two changes of one term do not simply add up, and are not combined.
    difference : array, shape (rows,)
    tolerance : float
        By how much each row may differ.
    counts : sequence of int
        From 1 to 4, in the order in which they are tried.
    """
    rng = np.random.default_rng(20)
    probe = rng.standard_normal((PROBES, len(columns))) / np.sqrt(len(columns))
    sums, target = probe @ columns, probe @ difference
    slack = 6 * tolerance  # of a normal combination of errors up to ``tolerance``: six standard deviations
    for count in counts:
        found = {
            tuple(sorted(chosen)): None
            for chosen in _limited(_SEARCH[count](sums, target, slack))
            if _disjoint([members[n] for n in chosen])
            and np.max(abs(columns[:, list(chosen)].sum(1) - difference), initial=0.0) <= tolerance
        }
        if found:
            return list(found)
    return []


def _disjoint(sets: Sequence[tuple[int, ...]]) -> bool:
    return len({m for s in sets for m in s}) == sum(map(len, sets))


def _limited(sets: Iterator[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    for number, chosen in enumerate(sets):
        if number == MOST:
            return
        yield chosen


def _one(sums: np.ndarray, target: np.ndarray, slack: float) -> Iterator[tuple[int, ...]]:
    near = (abs(sums - target[:, None]) <= slack).all(0)
    yield from ((int(n),) for n in np.flatnonzero(near))


def _two(sums: np.ndarray, target: np.ndarray, slack: float) -> Iterator[tuple[int, ...]]:
    yield from ((i, j) for i, j in _pairs(sums, sums, target, slack) if i < j)


def _three(sums: np.ndarray, target: np.ndarray, slack: float) -> Iterator[tuple[int, ...]]:
    for k in range(sums.shape[1]):
        for i, j in _pairs(sums[:, k + 1 :], sums[:, k + 1 :], target - sums[:, k], slack):
            if i < j:
                yield (k, k + 1 + i, k + 1 + j)


def _four(sums: np.ndarray, target: np.ndarray, slack: float) -> Iterator[tuple[int, ...]]:
    first, second = np.triu_indices(sums.shape[1], 1)
    both = sums[:, first] + sums[:, second]
    for p, q in _pairs(both, both, target, slack):
        chosen = (int(first[p]), int(second[p]), int(first[q]), int(second[q]))
        if p < q and len(set(chosen)) == 4:
            yield chosen


_SEARCH = {1: _one, 2: _two, 3: _three, 4: _four}


def _pairs(left: np.ndarray, right: np.ndarray, target: np.ndarray, slack: float) -> Iterator[tuple[int, int]]:
    """Yield the pairs of a left and a right column whose sum is near the target."""
    order = np.argsort(right[0])
    sorted_first = right[0][order]
    wanted = target[0] - left[0]
    low = np.searchsorted(sorted_first, wanted - slack, "left")
    high = np.searchsorted(sorted_first, wanted + slack, "right")
    for i in np.flatnonzero(high > low):
        for j in order[low[i] : high[i]]:
            if (abs(left[1:, i] + right[1:, j] - target[1:]) <= slack).all():
                yield int(i), int(j)
