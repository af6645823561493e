"""Traces of matrix polynomials, and their gradients with respect to a letter: cyclic derivatives."""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from .words import Letter, Matrix, Word, add, canonical, of_word, transposed, zero


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a matrix polynomial, plus a constant: what a loss is.

    Words that differ by rotation or transposition have the same trace and are collected.
    """

    terms: tuple[tuple[Word, sympy.Expr], ...]
    constant: sympy.Expr = sympy.S.Zero

    def __add__(self, other: "Trace") -> "Trace":
        return _collect((*self.terms, *other.terms), self.constant + other.constant)

    def __mul__(self, scalar: object) -> "Trace":
        number = sympy.sympify(scalar)
        return _collect(tuple((w, number * c) for w, c in self.terms), number * self.constant)

    __rmul__ = __mul__

    def __sub__(self, other: "Trace") -> "Trace":
        return self + (-1) * other

    def __str__(self) -> str:
        text = str(self.constant) if self.constant != 0 else ""
        for word, c in self.terms:
            negative = c.could_extract_minus_sign()
            size = -c if negative else c
            sign = (" - " if negative else " + ") if text else ("-" if negative else "")
            text += f"{sign}{'' if size == 1 else f'{size} '}tr({of_word(word, sympy.S.One)})"
        return text or "0"


def trace(matrix: Matrix, constant: sympy.Expr = sympy.S.Zero) -> Trace:
    """Return the trace of a square polynomial, plus a constant."""
    if matrix.rows != matrix.columns:
        raise ValueError(f"the trace of a matrix of shape ({matrix.rows}, {matrix.columns}) is not defined")
    identities = sum((c * matrix.rows for word, c in matrix.terms if not word), sympy.S.Zero)
    return _collect(tuple(term for term in matrix.terms if term[0]), constant + identities)


def squared_norm(matrix: Matrix) -> Trace:
    """Return ‖A‖²_F = tr(Aᵀ A)."""
    return trace(matrix.T @ matrix)


def gradient(loss: Trace, letter: Letter) -> Matrix:
    """Return the matrix of derivatives of a trace with respect to the entries of a letter.

    d tr(A L B) = tr(B A dL), so each place where L stands contributes (B A)ᵀ, and each where Lᵀ stands B A.

    Examples
    --------
    >>> n, h = sympy.symbols("n h", integer=True, positive=True)
    >>> U, Y = Letter("U", n, h), Letter("Y", n, n, symmetric=True)
    >>> residual = Y.matrix - U.matrix @ U.matrix.T
    >>> print(gradient(sympy.Rational(1, 4) * squared_norm(residual), U))
    -Y U + U Uᵀ U
    """
    parts = []
    for word, c in loss.terms:
        for n, (other, flipped) in enumerate(word):
            if other == letter:
                rest = of_word(word[n + 1 :] + word[:n], letter.rows if flipped else letter.columns)
                parts.append(c * (rest if flipped else rest.T))
    if letter.symmetric or letter.diagonal:
        raise ValueError(f"{letter} is symmetric: its entries are not independent")
    return add(parts, letter.rows, letter.columns) if parts else zero(letter.rows, letter.columns)


def descent(loss: Trace, rates: Mapping[Letter, sympy.Expr]) -> dict[Letter, Matrix]:
    """Return the gradient flow: each letter moves by minus its rate times its gradient."""
    return {letter: -rate * gradient(loss, letter) for letter, rate in rates.items()}


def _collect(terms: tuple[tuple[Word, sympy.Expr], ...], constant: sympy.Expr) -> Trace:
    total: dict[Word, sympy.Expr] = {}
    for word, c in terms:
        word = _cyclic(word)
        total[word] = total.get(word, sympy.S.Zero) + c
    kept = ((word, sympy.expand(c)) for word, c in sorted(total.items(), key=lambda term: _key(term[0])))
    return Trace(tuple((word, c) for word, c in kept if c != 0), sympy.sympify(constant))


def _cyclic(word: Word) -> Word:
    """Return the least of the rotations of a word and of its transpose."""
    both = (canonical(word), canonical(transposed(word)))
    return min((canonical(w[n:] + w[:n]) for w in both for n in range(len(w))), key=_key)


def _key(word: Word) -> tuple[object, ...]:
    return len(word), tuple((letter.name, flipped) for letter, flipped in word)
