"""A loop of a kernel under construction: its statements, what it has computed, the rows that wait to be filled."""

from dataclasses import dataclass, field

import sympy


@dataclass(slots=True)
class Block:
    """The statements inside one loop, under construction.

    Attributes
    ----------
    index : Symbol or None
        The loop's index; None for the body of the kernel.
    size : Expr or None
        The symbolic number of its values.
    header : str
        The ``for`` line.
    lines : list of str
    names : dict
        Values already computed here, by expression.
    rows : dict
        The rows filled here, by their generic expression and shape.
    pending : dict
        The loops that fill them, by shape, outermost first; written out before the next loop that may read them.
    fills : bool
        Whether this is a loop that fills rows.
    cyclic : bool
        Whether its index runs ahead of that of the loop inside by a distance ``d``, cyclically: see ``cycles.py``.
    """

    index: sympy.Symbol | None = None
    size: sympy.Expr | None = None
    header: str = ""
    lines: list[str] = field(default_factory=list)
    names: dict[sympy.Expr, str] = field(default_factory=dict)
    rows: dict[sympy.Expr, str] = field(default_factory=dict)
    pending: dict[tuple[sympy.Expr, ...], "list[Block]"] = field(default_factory=dict)
    fills: bool = False
    cyclic: bool = False

    @property
    def position(self) -> str:
        """The text of where along an array the index is."""
        return "d" if self.cyclic else str(self.index)

    def close(self, inner: "Block") -> None:
        """Append a finished inner loop, after the rows that it may read."""
        for shape in list(self.pending):
            self.flush(shape)
        self._append(inner)

    def flush(self, shape: tuple[sympy.Expr, ...]) -> None:
        """Append the loop that fills the rows of this shape."""
        *outer, inner = self.pending.pop(shape)
        for block in reversed(outer):
            block.close(inner)
            inner = block
        self._append(inner)

    def _append(self, inner: "Block") -> None:
        self.lines += [inner.header, *(f"    {line}" for line in inner.lines)]


def loop_like(block: Block, index: sympy.Symbol, fills: bool = False) -> Block:
    """Return a new loop over the values of another one's index, under another name."""
    bounds = f"1, {block.size}//2 + 1" if block.cyclic else str(block.size)
    header = f"for {'d' if block.cyclic else index} in range({bounds}):"
    return Block(index, block.size, header, fills=fills, cyclic=block.cyclic)
