"""Every subexpression goes to the outermost loop nest that binds its indices.

One that depends on all open loops stays where it is. One that does not is computed further out: as a scalar where its
last index is bound if that is cheap, else as a *row*, an array filled before the loops that read it, which every
subexpression shares that differs from it only by the names of its indices. Rows of one or two indices belong to the
whole kernel; longer ones to the loops over the free indices of the equation (i, k), and range over its summation
indices. Rows of the same shape are filled in one loop.
"""

from dataclasses import replace

import sympy

from .blocks import Block, loop_like
from .places import ROW_COST
from .sums import SymmetricSum, free_sums, outermost
from .text import Text
from .writer import flat_index, position_in

BY_DISTANCE = sympy.Symbol("by_distance")
"""Marks the layout of rows over pairs of cyclic sums."""


class Rows(Text):
    """Finds the place of each subexpression."""

    def _code(self, expr: sympy.Expr) -> str:
        if expr.is_number:
            return repr(float(expr.evalf(25)))
        if isinstance(expr, sympy.Indexed) and self._is_diagonal_inside(expr):
            return self._row(expr, 0, len(self.stack) - 1)
        if isinstance(expr, (sympy.Symbol, sympy.Indexed)):
            return self._atom(expr)
        for block in reversed(self.stack):
            if expr in block.names:
                return block.names[expr]
        depth = self._depth(expr)
        if self._streams(expr):
            return self._row(expr, self._home_of_stream(expr), depth)
        if self._complete(expr, len(self.stack) - 1):
            return self._named(expr, depth) if self._uses.get(expr, 0) > 1 else self._text(expr)
        if self._cost(expr) >= ROW_COST:
            home = self._home(expr)
            return self._row(expr, home, depth) if home < depth else self._named(expr, depth)
        return self._named(expr, depth) if depth < len(self.stack) - 1 else self._text(expr)

    def _is_diagonal_inside(self, expr: sympy.Indexed) -> bool:
        """Return whether an element is on a matrix's diagonal, along which the innermost of several loops runs that
        fills rows or adds up: its elements are rows apart, and do not load as vectors."""
        innermost = self.stack[-1]
        inside = len(self.stack) > 2 and (innermost.fills or len(self.stack) - 1 > self.free)
        return inside and expr.indices == (innermost.index,) * 2

    def _named(self, expr: sympy.Expr, depth: int) -> str:
        """Compute the expression once, inside the loop at ``depth``."""
        outer, self.stack = self.stack, self.stack[: depth + 1]
        if expr in self.stack[-1].names:
            text = self.stack[-1].names[expr]
            self.stack = outer
            return text
        text = self._text(expr)
        if not text.isidentifier():
            name = self._name("t")
            self.line(f"{name} = {text}")
            text = name
        self.stack[-1].names[expr] = text
        self.stack = outer
        return text

    def _row(self, expr: sympy.Expr, home_depth: int, depth: int) -> str:
        """Compute the expression as an array over its indices behind the home loop, filled there."""
        dims, generic, key = self._identity(expr, home_depth, depth)
        template, layout = key.args[0], tuple(key.args[1:])
        shape = tuple(block.size for block in dims)
        home, inside = self.stack[home_depth], self.stack[home_depth + 1]
        if key not in home.rows:
            loops = [loop_like(block, g, fills=True) for block, g in zip(dims, generic, strict=True)]
            self._fill_row(template, key, loops, home_depth)
        if inside.fills and layout in home.pending and home.pending[layout][0] is not inside:
            home.flush(layout)  # read by another row, which is filled next
        return f"work[{home.rows[key]} + {flat_index([b.position for b in dims], shape)}]"

    def _identity(
        self, expr: sympy.Expr, home_depth: int, depth: int
    ) -> tuple[list[Block], list[sympy.Symbol], sympy.Tuple]:
        """Return the loops over an expression's indices, what a row calls them, and what the row is known by."""
        dims = [block for block in self.stack[home_depth + 1 : depth + 1] if block.index in self._free(expr)]
        generic = [sympy.Symbol(f"r{home_depth + n + 1}", integer=True, positive=True) for n in range(len(dims))]
        template = self.canonical(expr.xreplace({block.index: g for block, g in zip(dims, generic, strict=True)}))
        by_distance = (BY_DISTANCE,) if any(block.cyclic for block in dims) else ()
        return dims, generic, sympy.Tuple(template, *(block.size for block in dims), *by_distance)

    def _is_row(self, expr: sympy.Expr) -> bool:
        """Return whether the whole kernel has a row of this expression already."""
        return self._identity(expr, 0, len(self.stack) - 1)[2] in self.stack[0].rows

    def _fill_row(self, template: sympy.Expr, key: sympy.Tuple, loops: list[Block], depth: int) -> None:
        """Write the loops that fill a row. Over a streamed size, or with sums inside, which read other rows, it has its
        own; else it shares those of its layout."""
        outer, self.stack = self.stack, self.stack[: depth + 1]
        home, layout = self.stack[-1], tuple(key.args[1:])
        streamed = loops[-1].size in self.streamed
        alone = streamed or template.has(sympy.Sum, SymmetricSum)
        if not alone:
            loops = home.pending.setdefault(layout, loops)
        elif not streamed:
            for inner_sum in free_sums(template, {block.index for block in loops}):
                self._code(inner_sum)
            for waiting in list(home.pending):
                home.flush(waiting)
        name = self._new_row(template, loops)
        place = f"work[{name} + {position_in(loops)}]"
        self.stack = self.stack + loops
        if streamed:
            self._stream(template, place)
        else:
            self.line(f"{place} = {self._named(template, len(self.stack) - 1)}")
        if alone:
            for _ in loops:
                self.end()
        home.rows[key] = name
        self.stack = outer

    def _stream(self, template: sympy.Expr, place: str) -> None:
        """Write what fills an element of a row over a streamed size; a sum is added up term by term, in a loop of its
        own outside the innermost."""
        self._count(template)
        if not isinstance(template, sympy.Sum):
            self.line(f"{place} = {self._text(template)}")
            return
        index, size, summand = outermost(template)
        self.line(f"{place} = 0.0")
        innermost = self.stack[-1]
        self.end()
        self.stack += [Block(index, size, f"for {index} in range({size}):", fills=True), replace(innermost, lines=[])]
        self.line(f"{place} += {self._code(summand)}")
        self.end()
