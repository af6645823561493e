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
    """

    index: sympy.Symbol | None = None
    size: sympy.Expr | None = None
    header: str = ""
    lines: list[str] = field(default_factory=list)
    names: dict[sympy.Expr, str] = field(default_factory=dict)
    rows: dict[sympy.Expr, str] = field(default_factory=dict)
    pending: dict[tuple[sympy.Expr, ...], "list[Block]"] = field(default_factory=dict)
    fills: bool = False

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
