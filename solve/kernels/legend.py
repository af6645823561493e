"""What the arrays of a generated kernel hold: remarks for those who read its source, which no computer needs.

A row is named by a number; its remark is the formula that it was filled from, with the indices that the equations have
(i, k for students, n, m for teacher units, u, v for all fields). Knows nothing of loops or of where arrays lie.
"""

from collections.abc import Sequence

import sympy

from .sums import SymmetricSum

LONGEST = 150
"""The most characters of a formula that a remark gives; of a longer one it says where it stands."""
LARGEST = 400
"""The most subexpressions of what is printed at all: closed forms have thousands, and printing them takes seconds."""


class Legend:
    """Remarks on the arrays of a kernel under construction.

    Attributes
    ----------
    notes : dict
        The remark by the name of the array.
    """

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self._letters: dict[sympy.Expr, list[sympy.Symbol]] = {}

    def see(self, index: sympy.Symbol, size: sympy.Expr) -> None:
        """Take note of an index that the equations have for this size."""
        letters = self._letters.setdefault(size, [])
        if index not in letters:
            letters.append(index)

    def add(
        self,
        name: str,
        formula: sympy.Expr,
        indices: Sequence[sympy.Symbol],
        shape: Sequence[sympy.Expr],
        layout: str = "",
    ) -> None:
        """Note the formula of the elements of an array, as a function of these indices, and in what order they are:
        {0} and {1} stand for the last two indices.

        Examples
        --------
        >>> legend, C = Legend(), sympy.IndexedBase("C")
        >>> i, u, r1, r2, K, N = sympy.symbols("i u r1 r2 K N")
        >>> legend.see(i, K), legend.see(u, N)
        (None, None)
        >>> legend.add("row5", C[r2, r2] - C[r1, r2] ** 2, [r1, r2], [K, N])
        >>> legend.notes["row5"]
        'row5[i, u] = -C[i, u]**2 + C[u, u]'
        """
        renamed = self._renamed(formula, indices, shape)
        text = _text(formula.xreplace(renamed)) if _is_short(formula) else ""
        what = f" = {text}" if 0 < len(text) <= LONGEST else ": a longer expression, where it is filled"
        letters = [str(renamed[index]) for index in indices]
        self.notes[name] = f"{name}[{', '.join(letters)}]{what}{layout.format(*letters[-2:])}"

    def _renamed(
        self, formula: sympy.Expr, indices: Sequence[sympy.Symbol], shape: Sequence[sympy.Expr]
    ) -> dict[sympy.Symbol, sympy.Symbol]:
        """Return for each index the first letter of its size that the formula does not use otherwise."""
        taken = formula.atoms(sympy.Symbol) - set(indices)
        renamed: dict[sympy.Symbol, sympy.Symbol] = {}
        for index, size in zip(indices, shape, strict=True):
            free = (s for s in self._letters.get(size, ()) if s not in taken and s not in renamed.values())
            renamed[index] = next(free, index)
        return renamed


def _is_short(formula: sympy.Expr) -> bool:
    return all(n < LARGEST for n, _ in enumerate(sympy.preorder_traversal(formula)))


def _text(formula: sympy.Expr) -> str:
    """Return a formula as one line; half sums are written as what they are sums over."""

    def whole(summand: sympy.Expr, first: sympy.Symbol, second: sympy.Symbol, size: sympy.Expr) -> sympy.Expr:
        return sympy.Sum(summand, (first, 1, size), (second, 1, size))

    return str(formula.replace(SymmetricSum, whole))
