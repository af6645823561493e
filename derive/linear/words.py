"""Matrix polynomials in letters that do not commute and may move with time.

A :class:`Matrix` is a sum of words, each a product of letters and transposed letters with a scalar coefficient. It
exists because SymPy's ``MatrixSymbol`` cannot depend on time: ``(U*V.T).diff(t)`` is silently zero. Knows nothing of
networks.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy

Factor = tuple["Letter", bool]
"""A letter, and whether it stands transposed."""
Word = tuple[Factor, ...]
"""A product; the empty one is the identity."""


@dataclass(frozen=True, slots=True, order=True)
class Letter:
    """A named matrix.

    Attributes
    ----------
    name : str
    rows, columns : Expr
        Its shape, in symbols.
    symmetric, diagonal : bool
        A diagonal letter is symmetric, and commutes with other diagonal letters.
    """

    name: str
    rows: sympy.Expr
    columns: sympy.Expr
    symmetric: bool = False
    diagonal: bool = False

    @property
    def matrix(self) -> "Matrix":
        """The letter as a matrix polynomial."""
        return Matrix.of({((self, False),): sympy.S.One}, self.rows, self.columns)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Matrix:
    """A sum of words with scalar coefficients, all of one shape, in canonical form: equal when they mean the same.

    Examples
    --------
    >>> import sympy
    >>> h, m, D = sympy.symbols("h m D", integer=True, positive=True)
    >>> U, V = Letter("U", D, h).matrix, Letter("V", m, h).matrix
    >>> print((U @ V.T).T - 2 * V @ U.T)
    -V Uᵀ
    """

    terms: tuple[tuple[Word, sympy.Expr], ...]
    rows: sympy.Expr
    columns: sympy.Expr

    @classmethod
    def of(cls, terms: Mapping[Word, sympy.Expr], rows: sympy.Expr, columns: sympy.Expr) -> "Matrix":
        """Return the polynomial with these terms, like ones collected."""
        total: dict[Word, sympy.Expr] = {}
        for word, coefficient in terms.items():
            word = canonical(word)
            total[word] = total.get(word, sympy.S.Zero) + coefficient
        kept = {word: sympy.factor_terms(sympy.expand(c)) for word, c in total.items()}
        ordered = sorted(((w, c) for w, c in kept.items() if c != 0), key=lambda term: _order(term[0]))
        return cls(tuple(ordered), sympy.sympify(rows), sympy.sympify(columns))

    @property
    def T(self) -> "Matrix":
        """The transpose."""
        return Matrix.of({transposed(w): c for w, c in self.terms}, self.columns, self.rows)

    @cached_property
    def letters(self) -> frozenset[Letter]:
        """The letters in it."""
        return frozenset(letter for word, _ in self.terms for letter, _ in word)

    def __matmul__(self, other: "Matrix") -> "Matrix":
        if self.columns != other.rows:
            raise ValueError(
                f"shapes ({self.rows}, {self.columns}) and ({other.rows}, {other.columns}) do not multiply"
            )
        products: dict[Word, sympy.Expr] = {}
        for first, a in self.terms:
            for second, b in other.terms:
                word = canonical(first + second)
                products[word] = products.get(word, sympy.S.Zero) + a * b
        return Matrix.of(products, self.rows, other.columns)

    def __add__(self, other: "Matrix") -> "Matrix":
        if (self.rows, self.columns) != (other.rows, other.columns):
            raise ValueError(f"shapes ({self.rows}, {self.columns}) and ({other.rows}, {other.columns}) do not add up")
        total = dict(self.terms)
        for word, c in other.terms:
            total[word] = total.get(word, sympy.S.Zero) + c
        return Matrix.of(total, self.rows, self.columns)

    def __mul__(self, scalar: object) -> "Matrix":
        number = sympy.sympify(scalar)
        return Matrix.of({w: number * c for w, c in self.terms}, self.rows, self.columns)

    __rmul__ = __mul__

    def __neg__(self) -> "Matrix":
        return -1 * self

    def __sub__(self, other: "Matrix") -> "Matrix":
        return self + (-other)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def map_words(self, image: Callable[[Word], "Matrix"]) -> "Matrix":
        """Return the sum of the images of the words, each times its coefficient."""
        return add((c * image(word) for word, c in self.terms), self.rows, self.columns)

    def __str__(self) -> str:
        return " ".join(_signed(n, *term) for n, term in enumerate(self.terms)) or "0"


def identity(size: sympy.Expr) -> Matrix:
    """Return the identity matrix."""
    return Matrix.of({(): sympy.S.One}, size, size)


def zero(rows: sympy.Expr, columns: sympy.Expr) -> Matrix:
    """Return the zero matrix."""
    return Matrix.of({}, rows, columns)


def add(matrices: Iterable[Matrix], rows: sympy.Expr, columns: sympy.Expr) -> Matrix:
    """Return the sum of matrices of one shape, of which there may be none."""
    total: dict[Word, sympy.Expr] = {}
    for matrix in matrices:
        for word, c in matrix.terms:
            total[word] = total.get(word, sympy.S.Zero) + c
    return Matrix.of(total, rows, columns)


def product(factors: Iterable[Matrix], start: Matrix) -> Matrix:
    """Return ``start`` times the factors, in order."""
    for factor in factors:
        start = start @ factor
    return start


def of_factor(factor: Factor) -> Matrix:
    """Return a letter, or its transpose, as a matrix polynomial."""
    letter, flipped = factor
    return letter.matrix.T if flipped else letter.matrix


def of_word(word: Word, rows: sympy.Expr) -> Matrix:
    """Return a word as a matrix polynomial; ``rows`` is the size of the empty one."""
    return product(map(of_factor, word), identity(rows_of(word[0]) if word else rows))


def rows_of(factor: Factor) -> sympy.Expr:
    """Return the number of rows of a letter, or of its transpose."""
    letter, flipped = factor
    return letter.columns if flipped else letter.rows


def columns_of(factor: Factor) -> sympy.Expr:
    """Return the number of columns of a letter, or of its transpose."""
    return rows_of((factor[0], not factor[1]))


def transposed(word: Word) -> Word:
    """Return the transpose of a word."""
    return tuple((letter, not flipped) for letter, flipped in reversed(word))


def canonical(word: Word) -> Word:
    """Return the one form of words that are equal: symmetric letters upright, neighbouring diagonal ones sorted."""
    upright = [(letter, flipped and not (letter.symmetric or letter.diagonal)) for letter, flipped in word]
    result: list[Factor] = []
    run: list[Factor] = []
    for factor in upright:
        if factor[0].diagonal:
            run.append(factor)
            continue
        result += [*sorted(run, key=lambda f: f[0].name), factor]
        run = []
    return tuple(result + sorted(run, key=lambda f: f[0].name))


def substitute(matrix: Matrix, values: Mapping[Letter, Matrix]) -> Matrix:
    """Return the polynomial with letters replaced by polynomials of the same shape."""

    def image(word: Word) -> Matrix:
        factors = [_value(factor, values) for factor in word]
        return product(factors[1:], factors[0]) if factors else identity(matrix.rows)

    return matrix.map_words(image)


def rewrite(matrix: Matrix, rules: Mapping[Word, Matrix]) -> Matrix:
    """Return the polynomial after replacing subwords by polynomials until none is left.

    The rules must terminate: no right-hand side may lead back to its subword.
    """
    both = dict(rules) | {canonical(transposed(word)): value.T for word, value in rules.items()}

    def image(word: Word) -> Matrix:
        for start in range(len(word)):
            for subword, value in both.items():
                if word[start : start + len(subword)] == subword:
                    before = of_word(word[:start], value.rows)
                    return rewrite(before @ value @ of_word(word[start + len(subword) :], value.columns), rules)
        return of_word(word, matrix.rows)

    return matrix.map_words(image)


def derivative(matrix: Matrix, flow: Mapping[Letter, Matrix]) -> Matrix:
    """Return the time derivative by Leibniz' rule; letters without an entry in ``flow`` are constant.

    Examples
    --------
    >>> import sympy
    >>> h, m, D = sympy.symbols("h m D", integer=True, positive=True)
    >>> U, V, E = Letter("U", D, h), Letter("V", m, h), Letter("E", D, m)
    >>> flow = {U: E.matrix @ V.matrix, V: E.matrix.T @ U.matrix}
    >>> print(derivative(U.matrix.T @ U.matrix - V.matrix.T @ V.matrix, flow))
    0
    """

    def image(word: Word) -> Matrix:
        parts = (
            of_word(word[:n], matrix.rows) @ _value(factor, flow) @ of_word(word[n + 1 :], matrix.columns)
            for n, factor in enumerate(word)
            if factor[0] in flow
        )
        return add(parts, matrix.rows, matrix.columns)

    return matrix.map_words(image)


def _value(factor: Factor, values: Mapping[Letter, Matrix]) -> Matrix:
    letter, flipped = factor
    value = values.get(letter, letter.matrix)
    return value.T if flipped else value


def _order(word: Word) -> tuple[object, ...]:
    return len(word), tuple((letter.name, flipped) for letter, flipped in word)


def _signed(position: int, word: Word, coefficient: sympy.Expr) -> str:
    letters = " ".join(f"{letter.name}{'ᵀ' if flipped else ''}" for letter, flipped in word) or "1"
    negative = coefficient.could_extract_minus_sign()
    size = -coefficient if negative else coefficient
    text = f"({size})" if size.is_Add else str(size)
    sign = ("-" if negative else "") if position == 0 else ("- " if negative else "+ ")
    return sign + (letters if size == 1 else f"{text} {letters}")
