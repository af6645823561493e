"""Sums, added up where they stand: plain ones, halves of symmetric ones, and those of gathered function values."""

from collections.abc import Sequence

import sympy

from .gather import Gathering
from .sums import SymmetricSum, outer_sums, outermost


class Sums(Gathering):
    """Writes the loops that add up."""

    def _accumulate(self, expr: sympy.Expr) -> str:
        if isinstance(expr, SymmetricSum):
            return self._accumulate_half(expr)
        index, size, summand = outermost(expr)
        total = self._name("s")
        self.line(f"{total} = 0.0")
        self._rewind(expr)
        self.loop(index, size)
        self.line(f"{total} += {self._code(summand)}")
        self.end()
        return total

    def _accumulate_together(self, sums: Sequence[sympy.Expr]) -> None:
        """Compute simple sums over the same index in one loop."""
        groups: dict[tuple[sympy.Symbol, sympy.Expr], list[sympy.Expr]] = {}
        for s in sums:
            if isinstance(s, sympy.Sum) and not outer_sums(outermost(s)[2]):
                groups.setdefault(outermost(s)[:2], []).append(s)
        for (index, size), members in groups.items():
            totals = [self._name("s") for _ in members]
            for total in totals:
                self.line(f"{total} = 0.0")
            self.loop(index, size)
            for total, member in zip(totals, members, strict=True):
                self.line(f"{total} += {self._code(member.function)}")
            self.end()
            self.stack[-1].names.update(zip(members, totals, strict=True))

    def _accumulate_half(self, expr: SymmetricSum) -> str:
        weight = self._weight(expr) if expr in self._gathered else None
        if weight is not None:
            return self._accumulate_product(expr, weight)
        summand, first, second, size = expr.args
        diagonal, below = self._name("s"), self._name("s")
        self.line(f"{diagonal} = 0.0")
        self.line(f"{below} = 0.0")
        self._rewind(expr)
        self.loop(first, size)
        value = self._code(self._diagonal(expr))
        self.line(f"{diagonal} += {value}")
        self.loop(second, size, stop=str(first))
        self.line(f"{below} += {self._code(summand)}")
        self.end()
        self.end()
        return f"({diagonal} + 2.0*{below})"

    def _accumulate_product(self, expr: SymmetricSum, weight: sympy.Expr) -> str:
        """Add up gathered values times their weights: one loop for both sums, long enough for SIMD."""
        _, _, _, size = expr.args
        weights, total = self._weights(expr, weight), self._name("s")
        self.line(f"{total} = 0.0")
        self.line(f"for q in range({size}*({size} + 1)//2):")
        self.line(f"    {total} += work[{weights} + q]*work[gather + {self._gathered[expr]} + q]")
        return total
