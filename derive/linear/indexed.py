"""From matrix polynomials to indexed expressions, which kernels are generated from.

Words with a common first or last letter share a sum, so that A B R + C R costs one product with R.
"""

import itertools
from collections.abc import Iterable

import sympy

from .traces import Trace
from .words import Factor, Letter, Matrix, Word, canonical, columns_of, of_word, rows_of, transposed

INDEX_NAMES = "klnuvwxyz"
"""Without the names of sizes: p, q, r, m, h."""


def index(name: str) -> sympy.Symbol:
    """Return the symbol of an index."""
    return sympy.Symbol(name, integer=True, positive=True)


def entry(matrix: Matrix, i: sympy.Symbol, j: sympy.Symbol) -> sympy.Expr:
    """Return the entry (i, j) of a matrix polynomial as nested sums over the entries of its letters.

    Examples
    --------
    >>> n, h = sympy.symbols("n h", integer=True, positive=True)
    >>> U, Y = Letter("U", n, h), Letter("Y", n, n, symmetric=True)
    >>> print(entry(Y.matrix @ U.matrix - U.matrix @ U.matrix.T @ U.matrix, index("i"), index("j")))
    Sum((Y[i, k] - Sum(U[i, l]*U[k, l], (l, 1, h)))*U[k, j], (k, 1, n))
    """
    return _entry(matrix, i, j, (i, j))


def trace_entry(value: Trace) -> sympy.Expr:
    """Return a trace as sums over the entries of its letters."""
    i = index("i")
    total = value.constant
    for word, c in value.terms:
        total += c * sympy.Sum(_entry(of_word(word, sympy.S.One), i, i, (i,)), (i, 1, rows_of(word[0])))
    return total


def element(letter: Letter, i: sympy.Symbol, j: sympy.Symbol) -> sympy.Indexed:
    """Return an entry of a letter; of a diagonal one, on the diagonal."""
    base = sympy.IndexedBase(letter.name, real=True)
    if letter.diagonal:
        return base[i]
    return base[tuple(sorted((i, j), key=str))] if letter.symmetric else base[i, j]


def _entry(matrix: Matrix, i: sympy.Symbol, j: sympy.Symbol, taken: tuple[sympy.Symbol, ...]) -> sympy.Expr:
    if len(matrix.terms) > 1 and i != j and matrix == matrix.T and (half := _half(matrix)) is not None:
        return _entry(half, i, j, taken) + _entry(half, j, i, taken)
    if len(matrix.terms) > 1:
        left, right = _largest(matrix, 0), _largest(matrix, -1)
        if len(right[1]) >= len(left[1]) and len(right[1]) > 1:
            return _shared(matrix, right, i, j, taken, last=True)
        if len(left[1]) > 1:
            return _shared(matrix, left, i, j, taken, last=False)
    return sympy.Add(*(c * _word(word, i, j, taken) for word, c in matrix.terms))


def _half(matrix: Matrix) -> Matrix | None:
    """Return A of a symmetric polynomial A + Aᵀ, its words ending alike as far as they can; None if A would be half
    of it."""
    own = {word: c / 2 for word, c in matrix.terms if word == canonical(transposed(word))}
    if len(own) == len(matrix.terms):
        return None
    ends = {word[-1] for word in own if word}
    for word, c in matrix.terms:
        mirrored = canonical(transposed(word))
        if word not in own and mirrored not in own:
            own[word if word[-1] in ends or mirrored[-1] not in ends else mirrored] = c
    return Matrix.of(own, matrix.rows, matrix.columns)


def _largest(matrix: Matrix, end: int) -> tuple[Factor | None, dict[Word, sympy.Expr]]:
    """Return the letter that most words have at an end, and those words. Single letters have nothing
    to share, diagonal ones cost nothing to repeat."""
    groups: dict[Factor, dict[Word, sympy.Expr]] = {}
    for word, c in matrix.terms:
        if len(word) > 1 and not word[end][0].diagonal:
            groups.setdefault(word[end], {})[word] = c
    return max(groups.items(), key=lambda group: len(group[1]), default=(None, {}))


def _shared(
    matrix: Matrix,
    group: tuple[Factor | None, dict[Word, sympy.Expr]],
    i: sympy.Symbol,
    j: sympy.Symbol,
    taken: tuple[sympy.Symbol, ...],
    last: bool,
) -> sympy.Expr:
    """Return the entry with the words of a group as one sum."""
    factor, words = group
    assert factor is not None
    rest = Matrix.of({w: c for w, c in matrix.terms if w not in words}, matrix.rows, matrix.columns)
    size = rows_of(factor) if last else columns_of(factor)
    k = _fresh(taken)
    if last:
        inner = Matrix.of({w[:-1]: c for w, c in words.items()}, matrix.rows, size)
        value = _entry(inner, i, k, (*taken, k)) * _element(factor, k, j)
    else:
        inner = Matrix.of({w[1:]: c for w, c in words.items()}, size, matrix.columns)
        value = _element(factor, i, k) * _entry(inner, k, j, (*taken, k))
    return sympy.Sum(value, (k, 1, size)) + (_entry(rest, i, j, taken) if rest else 0)


def _word(word: Word, i: sympy.Symbol, j: sympy.Symbol, taken: tuple[sympy.Symbol, ...]) -> sympy.Expr:
    if not word:
        return sympy.S.One if i == j else sympy.KroneckerDelta(i, j)
    first, rest = word[0], word[1:]
    if first[0].diagonal and rest:
        return _element(first, i, i) * _word(rest, i, j, taken)
    if first[0].diagonal:
        return _element(first, i, i) * (sympy.S.One if i == j else sympy.KroneckerDelta(i, j))
    if all(letter.diagonal for letter, _ in rest):
        return _element(first, i, j) * sympy.Mul(*(_element(f, j, j) for f in rest))
    k = _fresh(taken)
    return sympy.Sum(_element(first, i, k) * _word(rest, k, j, (*taken, k)), (k, 1, columns_of(first)))


def _element(factor: Factor, i: sympy.Symbol, j: sympy.Symbol) -> sympy.Indexed:
    letter, flipped = factor
    return element(letter, j, i) if flipped else element(letter, i, j)


def _fresh(taken: Iterable[sympy.Symbol]) -> sympy.Symbol:
    names = {str(t) for t in taken}
    numbered = (f"{name}{n}" for n in itertools.count(1) for name in INDEX_NAMES)
    return index(next(name for name in itertools.chain(INDEX_NAMES, numbered) if name not in names))
