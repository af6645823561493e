"""Exact linear algebra on sparse rows of whole numbers: elimination modulo a large prime, answers over the rationals.

A null space modulo a prime is never smaller than that over the rationals. So if the vectors, with their entries read as
fractions, satisfy all equations exactly, they are the whole of it: the prime leaves no trace, not even a probability.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from tqdm import tqdm

Row = dict[int, int]
"""The entries of a row by column; no zeros."""
PRIME = 2**61 - 1
DELAY = 3
"""Seconds after which a long elimination shows its progress."""
MOST_PRIMES = 40
"""How many primes are combined at most: fractions of 360 digits are not entries of a law."""


class Span:
    """The space spanned by the rows added so far, modulo a prime, in echelon form.

    Examples
    --------
    >>> span = Span()
    >>> [span.add({0: 1, 1: 2}), span.add({0: 2, 1: 4}), span.add({1: 5})]
    [True, False, True]
    >>> span.rank
    2
    """

    __slots__ = ("pivots", "prime")

    def __init__(self, rows: Iterable[Mapping[int, int]] = (), prime: int = PRIME) -> None:
        self.prime = prime
        self.pivots: dict[int, Row] = {}
        for row in tqdm(rows, "elimination", delay=DELAY, leave=False):
            self.add(row)

    @property
    def rank(self) -> int:
        return len(self.pivots)

    def add(self, row: Mapping[int, int]) -> bool:
        """Add a row; return whether it was independent of the others."""
        prime = self.prime
        rest = {column: reduced for column, entry in row.items() if (reduced := entry % prime)}
        while rest:
            column = min(rest)
            if column not in self.pivots:
                inverse = pow(rest[column], -1, prime)
                self.pivots[column] = {n: entry * inverse % prime for n, entry in rest.items()}
                return True
            _subtract(rest, self.pivots[column], rest[column], prime)
        return False

    def reduced(self) -> dict[int, Row]:
        """Return the reduced echelon form: a row for each pivot column, in which no other pivot column occurs."""
        done: dict[int, Row] = {}
        for column in sorted(self.pivots, reverse=True):
            row = dict(self.pivots[column])
            for other in [n for n in row if n in done]:
                _subtract(row, done[other], row[other], self.prime)
            done[column] = row
        return done


def _subtract(row: Row, pivot: Row, factor: int, prime: int) -> None:
    for column, entry in pivot.items():
        if changed := (row.get(column, 0) - factor * entry) % prime:
            row[column] = changed
        else:
            row.pop(column, None)


def null_space(rows: Sequence[Row], columns: int) -> list[Row]:
    """Return a basis of all v with ``Σ_c row[c] v[c] = 0`` for each row, exactly.

    Parameters
    ----------
    rows : sequence of dict
        Whole numbers by column.
    columns : int
        The number of unknowns.

    Returns
    -------
    list of dict
        Vectors of coprime whole numbers, one for each column that the others do not determine.

    Examples
    --------
    >>> null_space([{0: 3, 1: 1, 2: -2}], 3)
    [{0: -1, 1: 3}, {0: 2, 2: 3}]
    """
    distinct = sorted({tuple(sorted(row.items())) for row in rows}, key=lambda row: (len(row), row))
    equations = [dict(row) for row in distinct if row]
    touched: dict[int, list[int]] = {}
    for number, row in enumerate(equations):
        for column in row:
            touched.setdefault(column, []).append(number)
    known: list[Row] = []
    modulus = 1
    for prime in _primes():
        vectors = _null_space_modulo(equations, columns, prime)
        if not known or [max(v) for v in vectors] != [max(v) for v in known]:
            known, modulus = vectors, prime  # the first, or other pivots: one of the primes divides a minor
        else:
            known = [_combined(old, new, modulus, prime) for old, new in zip(known, vectors, strict=True)]
            modulus *= prime
        found = [_whole(v, modulus) for v in known]
        exact = [v for v in found if v is not None and _solves(v, equations, touched)]
        if len(exact) == len(known):
            return exact
    raise ArithmeticError(f"a null space whose entries need more than {modulus.bit_length()} bits")


def _primes() -> Iterator[int]:
    prime = PRIME
    for _ in range(MOST_PRIMES):
        yield prime
        from sympy import prevprime

        prime = prevprime(prime)


def _null_space_modulo(equations: Sequence[Row], columns: int, prime: int) -> list[Row]:
    reduced = Span(equations, prime).reduced()
    vectors = {column: {column: 1} for column in range(columns) if column not in reduced}
    for pivot, row in reduced.items():
        for column, entry in row.items():
            if column != pivot:
                vectors[column][pivot] = prime - entry
    return [vectors[column] for column in sorted(vectors)]


def _combined(old: Row, new: Row, modulus: int, prime: int) -> Row:
    """Return the row that is ``old`` modulo ``modulus`` and ``new`` modulo ``prime``."""
    inverse = pow(modulus, -1, prime)

    def lift(a: int, b: int) -> int:
        return a + modulus * ((b - a) * inverse % prime)

    return {n: lift(old.get(n, 0), new.get(n, 0)) for n in {**old, **new}}


def _whole(vector: Row, modulus: int) -> Row | None:
    """Return a multiple of a vector modulo ``modulus`` in coprime whole numbers, or None if it shows none."""
    fractions = {n: _fraction(entry, modulus) for n, entry in vector.items()}
    if any(entry is None for entry in fractions.values()):
        return None
    return coprime({n: entry for n, entry in fractions.items() if entry is not None})


def _fraction(residue: int, modulus: int) -> Fraction | None:
    """Return the fraction p/q = residue (mod modulus) with |p|, q ≤ √(modulus/2), or None (Wang 1981)."""
    bound = math.isqrt(modulus // 2)
    above, below, s, t = modulus, residue % modulus, 0, 1
    while below > bound:
        quotient = above // below
        above, below, s, t = below, above - quotient * below, t, s - quotient * t
    return Fraction(below, t) if t and abs(t) <= bound else None


def coprime(vector: Mapping[int, Fraction | int]) -> Row:
    """Return a multiple of a vector in coprime whole numbers; signs stay.

    Examples
    --------
    >>> coprime({0: Fraction(1, 2), 3: Fraction(-4, 3)})
    {0: 3, 3: -8}
    """
    scale = math.lcm(*(Fraction(entry).denominator for entry in vector.values()))
    whole = {n: int(entry * scale) for n, entry in sorted(vector.items())}
    divisor = math.gcd(*whole.values()) or 1
    return {n: entry // divisor for n, entry in whole.items() if entry}


def _solves(vector: Row, equations: Sequence[Row], touched: Mapping[int, Sequence[int]]) -> bool:
    """Return whether a vector solves the equations, of which those without its columns need no look."""
    concerned = {number for column in vector for number in touched.get(column, ())}
    return all(sum(entry * vector.get(n, 0) for n, entry in equations[number].items()) == 0 for number in concerned)
