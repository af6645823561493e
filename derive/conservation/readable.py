"""A basis of short vectors: terms are cancelled between vectors wherever that leaves fewer of them."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from .linear_algebra import Row, coprime


def shortened(vectors: Sequence[Row]) -> list[Row]:
    """Return vectors that span the same space, each as short as combining it with one other makes it.

    Equally short vectors with smaller numbers are preferred. Leading entries are positive, and vectors are sorted by
    their leading columns.

    Examples
    --------
    >>> shortened([{0: 1, 1: 1, 2: -1, 3: -1}, {2: 1, 3: 1, 4: -1}])
    [{0: 1, 1: 1, 4: -1}, {2: 1, 3: 1, 4: -1}]
    """
    basis = [coprime(v) for v in vectors]
    while any([_improve(basis, n) for n in range(len(basis))]):
        pass
    return sorted((_positive(v) for v in basis), key=lambda v: sorted(v))


def _improve(basis: list[Row], n: int) -> bool:
    """Replace a vector by the shortest combination with one other; return whether it changed."""
    columns = set(basis[n])
    near = (v for m, v in enumerate(basis) if m != n and not columns.isdisjoint(v))
    best = min((_shortest(basis[n], v) for v in near), key=_cost, default=basis[n])
    changed = _cost(best) < _cost(basis[n])
    if changed:
        basis[n] = best
    return changed


def _shortest(v: Row, w: Row) -> Row:
    """Return v − c w for the c that cancels most terms."""
    ratios = Counter(Fraction(v[n], w[n]) for n in v if n in w)
    factor, _ = min(ratios.items(), key=lambda item: (-item[1], abs(item[0]), item[0]))
    return coprime({n: entry for n in {**v, **w} if (entry := v.get(n, 0) - factor * w.get(n, 0))})


def _cost(v: Row) -> tuple[int, int]:
    return len(v), sum(map(abs, v.values()))


def _positive(v: Row) -> Row:
    first = v[min(v)]
    return {n: v[n] if first > 0 else -v[n] for n in sorted(v)}
