"""Where a subexpression belongs: on which open loops it depends, and what it costs to compute it again there."""

import sympy

from .kinks import Choice
from .sums import SymmetricSum, outermost
from .writer import Writer

ROW_COST = 3
"""From how many operations an expression is worth an array of its own rather than being computed again. A diagonal
element of a matrix counts as many: one in each row, they do not load as vectors."""
COSTS = {sympy.Add: 1, sympy.Mul: 1, sympy.Pow: 6, sympy.Sum: 50, SymmetricSum: 50}
KINKED = (sympy.sign, sympy.Abs, sympy.Heaviside, sympy.Max, sympy.Min, sympy.Piecewise, Choice)
"""Functions so cheap that they are computed where they are used."""


class Places(Writer):
    """Answers questions about expressions inside the open loops."""

    def _count(self, expr: sympy.Expr) -> None:
        self._uses[expr] = self._uses.get(expr, 0) + 1
        if self._uses[expr] == 1 and not isinstance(expr, sympy.Indexed):
            for argument in expr.args:
                self._count(argument)

    def _free(self, expr: sympy.Basic) -> frozenset[sympy.Basic]:
        """Return the free symbols of an expression. Each part is asked many times, of expressions of thousands."""
        if expr not in self._symbols:
            plain = type(expr).free_symbols is sympy.Basic.free_symbols  # neither binds symbols nor is one
            found = frozenset[sympy.Basic]().union(*map(self._free, expr.args)) if plain else expr.free_symbols
            self._symbols[expr] = frozenset(found)
        return self._symbols[expr]

    def _depth(self, expr: sympy.Expr) -> int:
        """Return the depth of the innermost loop on whose index the expression depends."""
        free = self._free(expr)
        return max((n for n, block in enumerate(self.stack) if block.index in free), default=0)

    def _streams(self, expr: sympy.Expr) -> bool:
        """Return whether an expression in the index of an open streamed loop is a row, wherever it stands."""
        bound = [block for block in self.stack[1:] if block.index in self._free(expr)]
        if expr in self._gathered or not any(block.size in self.streamed for block in bound):
            return False
        if isinstance(expr, sympy.Sum):
            return outermost(expr)[1] not in self.streamed
        return isinstance(expr, sympy.Function) and not isinstance(expr, KINKED) and len(bound) <= 2

    def _complete(self, expr: sympy.Expr, depth: int) -> bool:
        """Return whether the expression depends on every loop down to ``depth``."""
        return {block.index for block in self.stack[1 : depth + 1]} <= self._free(expr)

    def _home(self, expr: sympy.Expr) -> int:
        """Return the depth of the block to which the value of an expression belongs."""
        bound = [block.index in self._free(expr) for block in self.stack[1:]]
        leading = next(
            (n for n, b in enumerate(bound[: self.free]) if not b), self.free
        )  # leading free indices of the equation
        if sum(bound) <= 2 and not (sum(bound) == leading == self.free):
            return 0
        return leading

    def _home_of_stream(self, expr: sympy.Expr) -> int:
        """Return the depth of the block to which a row over a streamed size belongs: the whole kernel if it can."""
        bound = sum(block.index in self._free(expr) for block in self.stack[1:])
        return 0 if bound <= 2 or any(block.fills for block in self.stack) else self._home(expr)

    def _cost(self, expr: sympy.Expr) -> int:
        """Return the operations of an expression, not counting the parts that depend on fewer indices and are
        therefore elsewhere."""
        bound = {block.index for block in self.stack} & self._free(expr)
        own = COSTS.get(expr.func, 20) * (max(len(expr.args) - 1, 1) if isinstance(expr, (sympy.Add, sympy.Mul)) else 1)
        own += ROW_COST * any(isinstance(a, sympy.Indexed) and len(set(a.indices)) < len(a.indices) for a in expr.args)
        return own + sum(
            self._cost(a)
            for a in expr.args
            if a.args
            and not isinstance(a, (sympy.Indexed, sympy.Tuple))
            and bound <= self._free(a)
            and not isinstance(expr, (sympy.Sum, SymmetricSum))
        )
