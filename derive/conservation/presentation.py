"""Laws as numbered lines of text, and as LaTeX lines that fit."""

from collections.abc import Callable, Sequence

import sympy

from ..export.grouping import Item
from ..export.line_breaking import environment, plain_row, row


def law_lines(laws: Sequence[sympy.Expr], letter: str = "h") -> list[str]:
    """Return laws as lines of text.

    Examples
    --------
    >>> x, y = sympy.symbols("x y")
    >>> law_lines([x**2 - y])
    ['h1 = x**2 - y']
    """
    return [
        line
        for n, law in enumerate(laws, start=1)
        for line in plain_row(f"{letter}{n}", _items(law, sympy.sstr), one_per_line=False)
    ]


def laws_latex(laws: Sequence[sympy.Expr], name: str = "align", letter: str = "h") -> str:
    r"""Return laws as an amsmath environment.

    Examples
    --------
    >>> x, y = sympy.symbols("x y")
    >>> print(laws_latex([x**2 - y]))
    \begin{align}
    h_{1} &= x^{2} - y
    \end{align}
    """
    return environment(name, [row(f"{letter}_{{{n}}}", _items(e, sympy.latex)) for n, e in enumerate(laws, start=1)])


def _items(law: sympy.Expr, printed: Callable[[sympy.Expr], str]) -> list[Item]:
    signed = [(t.could_extract_minus_sign(), t) for t in law.as_ordered_terms()]
    return [Item(negative, printed(-t if negative else t)) for negative, t in signed]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "law"), counted(3, "law")
    ('1 law', '3 laws')
    """
    return f"{number} {noun}{'s' * (number != 1)}"
