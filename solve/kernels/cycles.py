"""Sums over pairs by the cyclic distance of their indices: rows of one length, which a processor runs through at once.

The unordered pairs of N fields are the N pairs (u, u), then for each distance d = 1 … N//2 the N pairs (u, u + d),
with u + d taken modulo N; if N is even, the last distance gives each of its pairs twice, and half of them are all. A
triangle has rows of all lengths instead, whose short ends do not vectorise.

The loop over the index v = u + d is one over d. What depends on v alone is read from an array that has its values
*twice* over, so that u + d need not be taken modulo N; what depends on both from one *by distance*, at [d, u].
"""

from collections.abc import Sequence

import sympy

from .blocks import Block, loop_like
from .rows import BY_DISTANCE, Rows
from .writer import flat_index, position_in

TWICE = sympy.Symbol("twice")
"""Marks the layout of rows that have their values twice over."""


class Cycles(Rows):
    """Writes expressions inside loops over pairs by distance."""

    def cycle(self, index: sympy.Symbol, size: sympy.Expr) -> None:
        """Open a loop over the distance by which ``index`` is ahead of that of the loop to be opened next."""
        self.legend.see(index, size)
        self.stack.append(loop_like(Block(index, size, cyclic=True), index))

    def _code(self, expr: sympy.Expr) -> str:
        depth = next((n for n, block in enumerate(self.stack) if block.cyclic), 0)
        if depth and self.stack[depth].index in self._free(expr):
            if self.stack[depth + 1].index not in self._free(expr):
                return self._twice(expr, depth)
            if isinstance(expr, sympy.Indexed):
                return self._by_distance(expr, depth)
        return super()._code(expr)

    def _twice(self, expr: sympy.Expr, depth: int) -> str:
        """Return the text of what depends on the index that is ahead, not on the other one."""
        home_depth, dims = self._dims(expr, depth, depth)
        loops, template = self._generic(expr, home_depth, dims)
        sizes = [block.size for block in dims]
        shape = (*sizes[:-1], sympy.Mul(2, sizes[-1]))
        home, key = self.stack[home_depth], sympy.Tuple(template, *sizes, TWICE)
        if key not in home.rows:
            home.rows[key] = self._fill_twice(template, loops, home_depth, shape)
        if self.stack[depth].fills:
            for layout in (tuple(sizes), (*sizes, TWICE)):  # read by another row, which is filled next
                if layout in home.pending:
                    home.flush(layout)
        ahead = f"{self.stack[depth + 1].index} + d"
        return f"work[{home.rows[key]} + {flat_index([*(b.position for b in dims[:-1]), ahead], shape)}]"

    def _fill_twice(self, template: sympy.Expr, loops: list[Block], depth: int, shape: tuple[sympy.Expr, ...]) -> str:
        """Write the loop that copies an array, or a row, twice over, after those that fill rows; return its name."""
        outer, self.stack = self.stack, self.stack[: depth + 1] + loops
        name, home = self._name("twice"), outer[depth]
        is_element = isinstance(template, (sympy.Symbol, sympy.Indexed))
        source = self._atom(template) if is_element else self._row(template, depth, len(self.stack) - 1)
        layout = (*(block.size for block in loops), TWICE)
        home.pending[layout] = loops = home.pending.pop(layout, loops)  # the last
        self.workspace.append((name, shape))
        own = tuple(block.size for block in loops)
        self.legend.add(name, template, [block.index for block in loops], own, ", twice over")
        indices, size = [str(block.index) for block in loops], loops[-1].size
        first, second = flat_index(indices, shape), flat_index([*indices[:-1], f"{size} + {indices[-1]}"], shape)
        loops[-1].lines.append(f"work[{name} + {first}] = work[{name} + {second}] = {source}")
        self.stack = outer
        return name

    def _by_distance(self, expr: sympy.Indexed, depth: int) -> str:
        """Return the text of an element of an array that depends on both indices."""
        home_depth, dims = self._dims(expr, depth, depth + 1)
        loops, template = self._generic(expr, home_depth, dims)
        home, key = self.stack[home_depth], sympy.Tuple(template, *(block.size for block in dims), BY_DISTANCE)
        if key not in home.rows:
            outer, self.stack = self.stack, self.stack[: home_depth + 1] + loops
            home.rows[key] = name = self._new_row(template, loops)
            size, ahead, index = (loops[-1].size, *(block.index for block in loops[-2:]))
            self.line(f"{ahead} = {index} + d if {index} + d < {size} else {index} + d - {size}")
            self.line(f"work[{name} + {position_in(loops)}] = {self._atom(template)}")
            for _ in loops:
                self.end()
            self.stack = outer
        return f"work[{home.rows[key]} + {position_in(dims)}]"

    def _dims(self, expr: sympy.Expr, depth: int, last: int) -> tuple[int, list[Block]]:
        """Return the depth of the block to which an array for an expression belongs, and the loops over its indices,
        of which the one at ``last`` is the last."""
        around = self.stack[1:depth]
        bound = [block.index in self._free(expr) for block in around]
        leading = next((n for n, block in enumerate(around) if block.fills or not bound[n]), len(around))
        home_depth = 0 if sum(bound) <= 1 else leading
        open_loops = self.stack[home_depth + 1 : last + 1]
        return home_depth, [block for block in open_loops if block.index in self._free(expr)]

    def _generic(self, expr: sympy.Expr, home_depth: int, dims: Sequence[Block]) -> tuple[list[Block], sympy.Expr]:
        """Return the loops that fill an array, and the expression in their indices."""
        generic = [sympy.Symbol(f"r{home_depth + n + 1}", integer=True, positive=True) for n in range(len(dims))]
        template = self.canonical(expr.xreplace({block.index: g for block, g in zip(dims, generic, strict=True)}))
        last = dims[-1]  # of an array that is filled like any other it is a plain loop
        plain = [Block(b.index, b.size, cyclic=b.cyclic and b is not last) for b in dims]
        return [loop_like(block, g) for block, g in zip(plain, generic, strict=True)], template
