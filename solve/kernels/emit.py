"""From indexed expressions to the text of loops.

Each layer rests on the one before: statements and loops (``writer.py``), where a subexpression belongs
(``places.py``), expressions (``text.py``), arrays for what is computed further out (``rows.py``), pairs of indices by
their distance (``cycles.py``), functions evaluated together (``gather.py``), sums (``accumulate.py``), double
sums for all pairs of free indices at once (``pairs.py``), and here equations.

Some sizes are *streamed* (thousands of nodes of a numerical rule): loops over them are innermost, functions evaluated
on them are rows, sums that depend on them are rows added up, and each such row has a loop of its own, whose few arrays
LLVM can tell apart.

Knows nothing of physics: arrays, sizes and expressions are all it is given.
"""

from collections.abc import Callable, Sequence

import sympy

from .gather import Loop
from .pairs import InLanes


class Emitter(InLanes):
    """Writes the body of one kernel."""

    def equation(self, expr: sympy.Expr, innermost: Loop | None, store: Callable[[str], Sequence[str]]) -> None:
        """Write an equation whose outer free indices have their loops open.

        Parameters
        ----------
        expr : sympy.Expr
            The right-hand side.
        innermost : Loop or None
            The loop over the last free index. Where special functions stand in sums it is written twice: first their
            arguments are gathered for all its values, then, once they are evaluated, the equation is.
        store : callable
            Gives the statements that keep the value, from its text.
        """
        self.free = len(self.stack) - (innermost is None)
        self._uses, self._gathered = {}, {}
        self._count(expr)
        regions = self._gather(expr, innermost)
        if innermost:
            self.loop(*innermost)
        here = self._sums_here(expr)
        self._accumulate_together([s for s in here if s not in self._gathered])
        for line in store(self._code(expr)):
            self.line(line)
        for region in regions if innermost else ():
            self.line(f"{region.base} += {region.stride}")
        if innermost:
            self.end()

    def value(self, expr: sympy.Expr) -> str:
        """Return the text of an expression's value here, having written all that it needs."""
        self.free = len(self.stack) - 1
        self._uses, self._gathered = {}, {}
        self._count(expr)
        return self._code(expr)
