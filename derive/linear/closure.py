"""Closure of a matrix flow in Gram variables: products contracted over the width, if their derivatives contract too.

Knows nothing of networks: a flow, the size to contract over, and the products that are wanted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import sympy

from .words import Factor, Letter, Matrix, Word, columns_of, derivative, of_factor, of_word, rows_of


class NotClosed(ValueError):
    """A flow whose Gram variables do not close.

    Attributes
    ----------
    variable : Letter
        The Gram variable whose derivative is not a function of Gram variables.
    remainder : Word
        What is left in it that does not contract.
    """

    def __init__(self, variable: Letter, remainder: Word) -> None:
        self.variable, self.remainder = variable, remainder
        left = of_word(remainder, sympy.S.One)
        super().__init__(
            f"the Gram variables do not close: d{variable}/dt holds {left}, which is no product over the width"
        )


@dataclass(frozen=True, slots=True)
class Closure:
    """Gram variables and their flow.

    Attributes
    ----------
    definitions : dict
        Of each variable: the product of moving letters that it stands for.
    flow : dict
        Its time derivative, in Gram variables and constants.
    """

    definitions: dict[Letter, Matrix]
    flow: dict[Letter, Matrix]


@dataclass(slots=True)
class _Grams:
    """The Gram variables met so far, by the two letters that they contract; both stand with the width on the right."""

    moving: frozenset[Letter]
    width: sympy.Expr
    names: Mapping[tuple[str, str], str]
    found: dict[tuple[Factor, Factor], Letter] = field(default_factory=dict)

    def of(self, left: Factor, right: Factor) -> Matrix:
        """Return the product ``left rightᵀ``, as a Gram variable or its transpose."""
        if left[0].name > right[0].name:
            return self.of(right, left).T
        if (left, right) not in self.found:
            name = self.names.get((left[0].name, right[0].name), f"G_{left[0].name}{right[0].name}")
            self.found[left, right] = Letter(name, rows_of(left), rows_of(right), symmetric=left == right)
        return self.found[left, right].matrix

    def contract(self, matrix: Matrix, variable: Letter) -> Matrix:
        """Return the polynomial with every product over the width written as a Gram variable."""

        def image(word: Word) -> Matrix:
            factors, n = [], 0
            while n < len(word):
                if word[n][0] not in self.moving:
                    factors.append(of_factor(word[n]))
                    n += 1
                elif n + 1 < len(word) and word[n + 1][0] in self.moving and columns_of(word[n]) == self.width:
                    factors.append(self.of(word[n], (word[n + 1][0], not word[n + 1][1])))
                    n += 2
                else:
                    raise NotClosed(variable, word)
            result = factors[0]
            for factor in factors[1:]:
                result = result @ factor
            return result

        return matrix.map_words(image)


def gram_closure(
    flow: Mapping[Letter, Matrix],
    width: sympy.Expr,
    wanted: Iterable[tuple[Factor, Factor]],
    names: Mapping[tuple[str, str], str] | None = None,
) -> Closure:
    """Return the smallest set of Gram variables that holds the wanted ones and closes under the flow.

    Parameters
    ----------
    flow : dict
        The derivative of each moving letter.
    width : Expr
        The size to contract over; each moving letter has it once.
    wanted : iterable of (factor, factor)
        Pairs (A, B) of letters, with the width on the right, whose products A Bᵀ are wanted.
    names : dict, optional
        Names of variables by the names of their letters, in alphabetical order.

    Raises
    ------
    NotClosed
        If the derivative of a variable holds a product that is not contracted over the width.

    Examples
    --------
    >>> n, h = sympy.symbols("n h", integer=True, positive=True)
    >>> U, Y = Letter("U", n, h), Letter("Y", n, n, symmetric=True)
    >>> flow = {U: Y.matrix @ U.matrix - U.matrix @ U.matrix.T @ U.matrix}
    >>> for letter, rate in gram_closure(flow, h, [((U, False), (U, False))], {("U", "U"): "P"}).flow.items():
    ...     print(f"d{letter}/dt =", rate)
    dP/dt = -2 P P + P Y + Y P
    """
    grams = _Grams(frozenset(flow), width, names or {})
    for left, right in wanted:
        grams.of(left, right)
    closed: dict[Letter, Matrix] = {}
    definitions: dict[Letter, Matrix] = {}
    while len(closed) < len(grams.found):
        for (left, right), letter in list(grams.found.items()):
            if letter not in closed:
                definitions[letter] = of_factor(left) @ of_factor(right).T
                closed[letter] = grams.contract(derivative(definitions[letter], flow), letter)
    return Closure(definitions, closed)
