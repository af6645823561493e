"""The arguments of the arc sine inside sums are gathered in a buffer and evaluated in one loop, which LLVM turns into
SIMD instructions; then the sums read their values from there."""

from dataclasses import dataclass

import sympy

from .cycles import Cycles
from .sums import SymmetricSum, calls, extent, outer_sums, outermost

LANES = 16
"""The number of gathered function arguments is rounded up to a multiple of this, so that no scalar remainder loop is
left over."""

Loop = tuple[sympy.Symbol, sympy.Expr, str]
"""A loop's index, the symbolic number of its values, and where it starts (empty: at 0)."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the buffer for one special function.

    The names of where it begins for the current value of the innermost index, of its length for each value, and of
    where it stops.
    """

    function: str
    base: str
    stride: str
    stop: str


class Gathering(Cycles):
    """Gathers and evaluates the functions inside the sums of an equation."""

    def _weight(self, expr: SymmetricSum) -> sympy.Expr | None:
        """Return by what a gathered function is multiplied in its sum, if that is the same inside all open loops and
        indices stand only at arrays."""
        summand, first, second, _ = expr.args
        bare = summand.replace(lambda e: isinstance(e, sympy.Indexed), lambda e: sympy.S.One)
        if len(calls(summand)) != 1 or {first, second} & self._free(bare):
            return None
        (call,) = calls(summand)
        weight = summand / call
        varies = weight.has(call) or any(block.index in self._free(weight) for block in self.stack[1:])
        return None if varies or weight.has(sympy.Sum, SymmetricSum) else weight

    def _weights(self, expr: SymmetricSum, weight: sympy.Expr) -> str:
        """Return the row of weights in the order in which values are gathered, filled once for the whole kernel."""
        _, first, second, size = expr.args
        outer, self.stack = self.stack, self.stack[:1]
        home, key = self.stack[0], sympy.Tuple(weight, first, second, size)
        if key not in home.rows:
            home.rows[key] = name = self._name("weights")
            self.workspace.append((name, (size, size)))  # half of it is used
            self.legend.notes[name] = f"{weight}, doubled for {second} ≠ {first}, in the order of the gathered values"
            self.loop(first, size)
            diagonal = self.canonical(weight.xreplace({second: first}))
            self.line(f"work[{name} + {first}] = {self._code(diagonal)}")
            self.end()
            self.cycle(first, size)
            self.loop(second, size)
            self.line(f"work[{name} + d*{size} + {second}] = 2.0*{self._code(weight)}")
            self.end()
            self.end()
        self.stack = outer
        return home.rows[key]

    def _diagonal(self, expr: SymmetricSum) -> sympy.Expr:
        summand, first, second, _ = expr.args
        return self.canonical(summand.xreplace({second: first}))

    def _gather(self, expr: sympy.Expr, innermost: Loop | None) -> list[Region]:
        """Write the loops that gather and evaluate the special functions inside the sums of an equation."""
        regions: list[Region] = []
        if innermost:
            self.loop(*innermost)
        sums = self._sums_here(expr)
        functions = sorted({name for s in sums if (name := self._single_call(s))})
        if innermost:
            self.stack.pop()
        if functions:
            self.line("at = 0  # position behind gather")
        for function in functions:
            self.functions.add(function)
            region = Region(function, *(self._name(part) for part in ("base", "stride", "stop")))
            regions.append(region)
            self.line(f"{region.base} = at")
            if innermost:
                self.loop(*innermost)
            self.line("begin = at")
            for n, one in enumerate(s for s in sums if self._single_call(s) == function):
                place = region.base
                if n:  # the first begins where the region does
                    start = self._name("start")
                    self.line(f"{start} = at - begin")
                    place = f"{region.base} + {start}"
                self._fill(one)
                self._gathered[one] = place
                self._gather_size += extent(one) * (innermost[1] if innermost else 1)
            self.line(f"{region.stride} = at - begin")
            if innermost:
                self.end()
            self.line(f"{region.stop} = at = (at + {LANES - 1}) // {LANES} * {LANES}  # whole SIMD lanes")
            self._gather_size += LANES
        for region in regions:
            self.line(f"for q in range(gather + {region.base}, gather + {region.stop}):")
            self.line(f"    work[q] = {region.function}(work[q])")
        return regions

    def _fill(self, expr: sympy.Expr) -> None:
        if isinstance(expr, SymmetricSum) and self._weight(expr) is not None:
            self._fill_by_distance(expr)
        elif isinstance(expr, SymmetricSum):
            summand, first, second, size = expr.args
            self.loop(first, size)
            self._fill(self._diagonal(expr))
            self.loop(second, size, stop=str(first))
            self._fill_inside(summand, str(second), str(first))
            self.end()
        elif isinstance(expr, sympy.Sum):
            index, size, summand = outermost(expr)
            self.loop(index, size)
            self._fill_inside(summand, str(index), str(size))
        else:
            nested = outer_sums(expr)
            if nested:
                self._fill(nested[0])
                return
            self._gather_argument(expr, "at")
            self.line("at += 1")

    def _fill_by_distance(self, expr: SymmetricSum) -> None:
        """Gather what a double sum is over, in the order of its weights."""
        summand, first, second, size = expr.args
        self.loop(first, size)
        self._gather_argument(self._diagonal(expr), f"at + {first}")
        self.end()
        self.cycle(first, size)
        self.loop(second, size)
        self._gather_argument(summand, f"at + d*{size} + {second}")
        self.end()
        self.end()
        self.line(f"at += {size}*({size} + 1)//2")

    def _fill_inside(self, summand: sympy.Expr, index: str, count: str) -> None:
        """Gather what stands in the loop just opened, and close it. The innermost moves on by all at once: as SIMD."""
        if outer_sums(summand):
            self._fill(summand)
            self.end()
        else:
            self._gather_argument(summand, f"at + {index}")
            self.end()
            self.line(f"at += {count}")

    def _gather_argument(self, expr: sympy.Expr, place: str) -> None:
        (call,) = calls(expr)
        self._gathered[call] = ""
        self.line(f"work[gather + {place}] = {self._code(call.args[0])}")

    def _single_call(self, expr: sympy.Expr) -> str:
        """Return the gathered function of a sum, if in the end it sums just one call of one; else the empty string."""
        if isinstance(expr, SymmetricSum):
            summand, indices = expr.args[0], {expr.args[2]}
        else:
            index, size, summand = outermost(expr)
            indices = {index}
            if size in self.streamed and outer_sums(summand):
                return ""  # what is summed inside is a row
        nested = outer_sums(summand)
        found = calls(summand)
        if len(nested) == 1 and len(found) == len(calls(nested[0])):
            return self._single_call(nested[0]) if isinstance(expr, sympy.Sum) else ""
        if nested or len(found) != 1:
            return ""
        needed = indices | {block.index for block in self.stack[1 : self.free + 1]}  # else it is a row
        return found[0].func.__name__ if needed <= self._free(found[0]) else ""

    def _rewind(self, expr: sympy.Expr) -> None:
        if expr in self._gathered:
            self.line(f"at = {self._gathered[expr]}")

    def _sums_here(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the sums that depend on all free indices: those that are not computed further out."""
        found = sorted(outer_sums(expr), key=sympy.default_sort_key)
        return [s for s in found if self._complete(s, self.free)]
