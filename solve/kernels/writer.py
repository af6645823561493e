"""The text of a kernel under construction: its open loops, its workspace, the names it has given. Does not look into
expressions."""

from collections.abc import Callable, Sequence

import sympy

from .blocks import Block
from .legend import Legend

Array = tuple[str, tuple[sympy.Expr, ...]]
"""An array of the workspace: its name and its shape."""


class Writer:
    """Loops, statements, names and arrays of one kernel.

    Parameters
    ----------
    element : callable
        Gives the text of an array element or scalar, from a SymPy ``Indexed`` or ``Symbol`` and the texts of its
        indices.
    canonical : callable
        Brings an expression whose indices were renamed to its canonical form (symmetric arrays' indices in order).
    streamed : set of Expr
        The sizes whose loops are to be innermost.
    """

    def __init__(
        self,
        element: Callable[[sympy.Expr, list[str]], str],
        canonical: Callable[[sympy.Expr], sympy.Expr],
        streamed: frozenset[sympy.Expr] = frozenset(),
    ) -> None:
        self.element, self.canonical, self.streamed = element, canonical, streamed
        self.stack = [Block()]
        self.workspace: list[Array] = []  # rows
        self.legend = Legend()
        self.elsewhere: dict[sympy.Expr, Callable[[Sequence[str]], str]] = {}  # arrays of its own: text of an element
        self.functions: set[str] = set()
        self._counter = 0
        self._uses: dict[sympy.Expr, int] = {}
        self._symbols: dict[sympy.Basic, frozenset[sympy.Basic]] = {}
        self.free = 0  # number of loops over free indices of the equation under construction
        self._gathered: dict[sympy.Expr, str] = {}  # sums whose function values are gathered: where; and those calls
        self._gather_size: sympy.Expr = sympy.S.Zero

    @property
    def scratch(self) -> list[Array]:
        """The arrays of the workspace: rows, and the buffer of gathered arguments."""
        buffer = [("gather", (self._gather_size,))] if self._gather_size else []
        return self.workspace + buffer

    def loop(self, index: sympy.Symbol, size: sympy.Expr, start: str = "", stop: str = "") -> None:
        """Open a loop; :meth:`end` closes it."""
        bounds = ", ".join(b for b in (start, stop or str(size)) if b)
        self.legend.see(index, size)
        self.stack.append(Block(index, size, f"for {index} in range({bounds}):"))

    def end(self) -> None:
        """Close the innermost loop."""
        inner = self.stack.pop()
        self.stack[-1].close(inner)

    def line(self, text: str) -> None:
        """Append a statement to the innermost loop."""
        self.stack[-1].lines.append(text)

    def _new_row(self, template: sympy.Expr, loops: Sequence[Block]) -> str:
        """Return the name of a new array of the workspace, and note what it holds."""
        indices, shape = [block.index for block in loops], tuple(block.size for block in loops)
        name = self._name("row")
        self.workspace.append((name, shape))
        by_distance = any(block.cyclic for block in loops)
        self.legend.add(name, template, indices, shape, ", in rows of equal {0} - {1}" if by_distance else "")
        return name

    def _name(self, prefix: str) -> str:
        self._counter += 1
        return f"{prefix}{self._counter}"

    def _use(self, function: str) -> str:
        """Take note of a function whose source text is needed."""
        self.functions.add(function)
        return function


def flat_index(indices: Sequence[str], shape: Sequence[sympy.Expr]) -> str:
    """Return the text of the row-major position of an element."""
    text = indices[0]
    for index, size in zip(indices[1:], shape[1:], strict=True):
        text = f"({text})*{size} + {index}" if "+" in text else f"{text}*{size} + {index}"
    return text


def position_in(loops: Sequence[Block]) -> str:
    """Return the text of the position of an element, in an array over the indices of these loops."""
    return flat_index([block.position for block in loops], [block.size for block in loops])
