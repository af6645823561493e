"""From indexed expressions to the text of loops: every subexpression goes to the outermost loop nest that binds its
indices.

A subexpression that depends on all open loops stays where it is. One that does not is computed further out: as a
scalar where its last index is bound if that is cheap, else as a *row*, an array filled before the loops that read it,
which every subexpression shares that differs from it only by the names of its indices. Rows of one or two indices
belong to the whole kernel; longer ones to the loops over the free indices of the equation (i, k), and range over its
summation indices. Rows of the same shape are filled in one loop.

The arguments of the arc sine inside sums are gathered in a buffer and evaluated in one loop, which LLVM turns into
SIMD instructions; functions of several variables are called in place. Some sizes are *streamed* (thousands of nodes of
a numerical rule): loops over them are innermost, functions evaluated on them are rows, sums that depend on them are
rows added up, and each such row has a loop of its own, whose few arrays LLVM can tell apart.

Knows nothing of physics: arrays, sizes and expressions are all it is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import sympy

from effdyn.derive.user_function import UserFunction

from .blocks import Block
from .elementary import NODE_FUNCTIONS
from .functions import LIBRARY
from .kinks import Choice, kink_text
from .legend import Legend
from .sources import CALLABLE
from .sums import SymmetricSum, calls, extent, free_sums, outer_sums, outermost

ROW_COST = 3
"""From how many operations an expression is worth an array of its own rather than being computed again. A diagonal
element of a matrix counts as many: one in each row, they do not load as vectors."""
COSTS = {sympy.Add: 1, sympy.Mul: 1, sympy.Pow: 6, sympy.Sum: 50, SymmetricSum: 50}
KINKED = (sympy.sign, sympy.Abs, sympy.Heaviside, sympy.Max, sympy.Min, sympy.Piecewise, Choice)
"""Functions so cheap that they are computed where they are used."""


LONGEST_SUM = 100
"""From how many summands on a sum is written in several statements."""
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


class Emitter:
    """Writes the body of one kernel.

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
        self.workspace: list[tuple[str, tuple[sympy.Expr, ...]]] = []  # rows: name, and its shape
        self.legend = Legend()
        self.functions: set[str] = set()
        self._counter = 0
        self._uses: dict[sympy.Expr, int] = {}
        self.free = 0  # number of loops over free indices of the equation under construction
        self._gathered: dict[sympy.Expr, str] = {}  # sums whose function values are gathered: where; and those calls
        self._gather_size: sympy.Expr = sympy.S.Zero

    @property
    def scratch(self) -> list[tuple[str, tuple[sympy.Expr, ...]]]:
        """The arrays of the workspace: rows, and the buffer of gathered arguments."""
        buffer = [("gather", (self._gather_size,))] if self._gather_size else []
        return self.workspace + buffer

    # -- loops ---------------------------------------------------------------------------------------------------------

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

    def _sums_here(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the sums that depend on all free indices: those that are not computed further out."""
        found = sorted(outer_sums(expr), key=sympy.default_sort_key)
        return [s for s in found if self._complete(s, self.free)]

    # -- placement -----------------------------------------------------------------------------------------------------

    def _count(self, expr: sympy.Expr) -> None:
        self._uses[expr] = self._uses.get(expr, 0) + 1
        if self._uses[expr] == 1 and not isinstance(expr, sympy.Indexed):
            for argument in expr.args:
                self._count(argument)

    def _depth(self, expr: sympy.Expr) -> int:
        """Return the depth of the innermost loop on whose index the expression depends."""
        free = expr.free_symbols
        return max((n for n, block in enumerate(self.stack) if block.index in free), default=0)

    def _code(self, expr: sympy.Expr) -> str:
        if expr.is_number:
            return repr(float(expr.evalf(25)))
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

    def _streams(self, expr: sympy.Expr) -> bool:
        """Return whether an expression in the index of an open streamed loop is a row, wherever it stands."""
        bound = [block for block in self.stack[1:] if block.index in expr.free_symbols]
        if expr in self._gathered or not any(block.size in self.streamed for block in bound):
            return False
        if isinstance(expr, sympy.Sum):
            return outermost(expr)[1] not in self.streamed
        return isinstance(expr, sympy.Function) and not isinstance(expr, KINKED) and len(bound) <= 2

    def _complete(self, expr: sympy.Expr, depth: int) -> bool:
        """Return whether the expression depends on every loop down to ``depth``."""
        return {block.index for block in self.stack[1 : depth + 1]} <= expr.free_symbols

    def _home(self, expr: sympy.Expr) -> int:
        """Return the depth of the block to which the value of an expression belongs."""
        bound = [block.index in expr.free_symbols for block in self.stack[1:]]
        leading = next(
            (n for n, b in enumerate(bound[: self.free]) if not b), self.free
        )  # leading free indices of the equation
        if sum(bound) <= 2 and not (sum(bound) == leading == self.free):
            return 0
        return leading

    def _home_of_stream(self, expr: sympy.Expr) -> int:
        """Return the depth of the block to which a row over a streamed size belongs: the whole kernel if it can."""
        bound = sum(block.index in expr.free_symbols for block in self.stack[1:])
        return 0 if bound <= 2 or any(block.fills for block in self.stack) else self._home(expr)

    def _cost(self, expr: sympy.Expr) -> int:
        """Return the operations of an expression, not counting the parts that depend on fewer indices and are
        therefore elsewhere."""
        bound = {block.index for block in self.stack} & expr.free_symbols
        own = COSTS.get(expr.func, 20) * (max(len(expr.args) - 1, 1) if isinstance(expr, (sympy.Add, sympy.Mul)) else 1)
        own += ROW_COST * any(isinstance(a, sympy.Indexed) and len(set(a.indices)) < len(a.indices) for a in expr.args)
        return own + sum(
            self._cost(a)
            for a in expr.args
            if a.args
            and not isinstance(a, (sympy.Indexed, sympy.Tuple))
            and bound <= a.free_symbols
            and not isinstance(expr, (sympy.Sum, SymmetricSum))
        )

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
        dims = [block for block in self.stack[home_depth + 1 : depth + 1] if block.index in expr.free_symbols]
        shape = tuple(block.size for block in dims)
        generic = [sympy.Symbol(f"r{home_depth + n + 1}", integer=True, positive=True) for n in range(len(dims))]
        template = self.canonical(expr.xreplace({block.index: g for block, g in zip(dims, generic, strict=True)}))
        key = sympy.Tuple(template, *shape)
        home, inside = self.stack[home_depth], self.stack[home_depth + 1]
        if key not in home.rows:
            fill = self._fill_streamed if shape[-1] in self.streamed else self._fill_row
            fill(template, key, shape, generic, home_depth)
        if inside.fills and shape in home.pending and home.pending[shape][0] is not inside:
            home.flush(shape)  # read by another row, which is filled next
        return f"work[{home.rows[key]} + {flat_index([str(b.index) for b in dims], shape)}]"

    def _fill_row(
        self,
        template: sympy.Expr,
        key: sympy.Expr,
        shape: tuple[sympy.Expr, ...],
        generic: list[sympy.Symbol],
        depth: int,
    ) -> None:
        """Write the loop that fills a row. One with sums inside has a loop of its own, since those read other rows."""
        outer, self.stack = self.stack, self.stack[: depth + 1]
        home = self.stack[-1]
        loops = [
            Block(g, size, f"for {g} in range({size}):", fills=True) for g, size in zip(generic, shape, strict=True)
        ]
        alone = template.has(sympy.Sum, SymmetricSum)
        if alone:
            for inner_sum in free_sums(template, set(generic)):
                self._code(inner_sum)
            for waiting in list(home.pending):
                home.flush(waiting)
        else:
            loops = home.pending.setdefault(shape, loops)
        self.stack = self.stack + loops
        name = self._new_row(template, generic, shape)
        value = self._named(template, len(self.stack) - 1)
        self.line(f"work[{name} + {flat_index([str(g) for g in generic], shape)}] = {value}")
        if alone:
            for _ in loops:
                self.end()
        home.rows[key] = name
        self.stack = outer

    def _fill_streamed(
        self,
        template: sympy.Expr,
        key: sympy.Expr,
        shape: tuple[sympy.Expr, ...],
        generic: list[sympy.Symbol],
        depth: int,
    ) -> None:
        """Write the loops that fill a row over a streamed size; a sum is added up term by term."""
        outer, self.stack = self.stack, self.stack[: depth + 1]
        home, count = self.stack[-1], len(shape)
        name = self._new_row(template, generic, shape)
        place = f"work[{name} + {flat_index([str(g) for g in generic], shape)}]"
        self._count(template)
        loops = [
            Block(g, size, f"for {g} in range({size}):", fills=True) for g, size in zip(generic, shape, strict=True)
        ]
        self.stack = self.stack + loops
        if isinstance(template, sympy.Sum):
            index, size, summand = outermost(template)
            self.line(f"{place} = 0.0")
            self.end()
            self.stack += [
                Block(index, size, f"for {index} in range({size}):", fills=True),
                replace(loops[-1], lines=[]),
            ]
            self.line(f"{place} += {self._code(summand)}")
            count += 1
        else:
            self.line(f"{place} = {self._text(template)}")
        for _ in range(count):
            self.end()
        home.rows[key] = name
        self.stack = outer

    def _new_row(self, template: sympy.Expr, generic: list[sympy.Symbol], shape: tuple[sympy.Expr, ...]) -> str:
        """Return the name of a new array of the workspace, and note what it holds."""
        name = self._name("row")
        self.workspace.append((name, shape))
        self.legend.add(name, template, generic, shape)
        return name

    def _name(self, prefix: str) -> str:
        self._counter += 1
        return f"{prefix}{self._counter}"

    # -- text ----------------------------------------------------------------------------------------------------------

    def _atom(self, expr: sympy.Expr) -> str:
        indices = [self._position(i) for i in expr.indices] if isinstance(expr, sympy.Indexed) else []
        if any(expr == block.index for block in self.stack):
            return f"({expr} + 1.0)"  # an index as a number: from 1, as in the equations
        return self.element(expr, indices)

    def _position(self, index: sympy.Expr) -> str:
        """Return the text of an index counted from 0, as the indices of loops are."""
        looped = index.is_Symbol or any(block.index in index.free_symbols for block in self.stack)
        return str(index if looped else index - 1)

    def _text(self, expr: sympy.Expr) -> str:
        if isinstance(expr, sympy.Add):
            return self._sum_text(self._grouped(expr))
        if isinstance(expr, sympy.Mul):
            return self._product_text(self._grouped(expr))
        if isinstance(expr, sympy.Pow):
            return self._power_text(expr)
        if isinstance(expr, (sympy.Sum, SymmetricSum)):
            block = self.stack[-1]
            if expr not in block.names:
                total = self._accumulate(expr) if isinstance(expr, sympy.Sum) else self._accumulate_half(expr)
                block.names[expr] = total
            return block.names[expr]
        return self._call_text(expr)

    def _grouped(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the operands of a sum or product, those that belong to the same outer place put together as one
        operand."""
        indices = [block.index for block in self.stack if block.index is not None]
        groups: dict[tuple[bool, ...], list[sympy.Expr]] = {}
        for argument in expr.args:
            groups.setdefault(tuple(index in argument.free_symbols for index in indices), []).append(argument)
        full = tuple(index in expr.free_symbols for index in indices)
        partial = sorted((g for g in groups if g != full), key=lambda g: (sum(g), g[::-1]))
        for n, small in enumerate(
            partial
        ):  # a number joins an expression in i, that one an expression in i, k: fewer operations inside
            larger = next((g for g in partial[n + 1 :] if all(b or not a for a, b in zip(small, g, strict=True))), None)
            if larger and (
                any(small) or self._cost(expr.func(*groups[larger])) < ROW_COST
            ):  # a row is shared more often without constants
                groups[larger] = groups.pop(small) + groups[larger]
        operands: list[sympy.Expr] = []
        for key, members in groups.items():
            operands += members if key == full or len(members) == len(expr.args) else [expr.func(*members)]
        return operands

    def _sum_text(self, operands: Sequence[sympy.Expr]) -> str:
        if len(operands) > LONGEST_SUM:  # compilers recurse once a summand
            parts = [self._sum_text(operands[n : n + LONGEST_SUM]) for n in range(0, len(operands), LONGEST_SUM)]
            names = [self._name("t") for _ in parts]
            for name, part in zip(names, parts, strict=True):
                self.line(f"{name} = {part}")
            return f"({' + '.join(names)})"
        text = ""
        for operand in sorted(operands, key=lambda e: e.could_extract_minus_sign()):
            negative = bool(text) and operand.could_extract_minus_sign()
            code = self._code(-operand if negative else operand)
            text += f" {'-' if negative else '+'} {code}" if text else code
        return f"({text})"

    def _product_text(self, operands: Sequence[sympy.Expr]) -> str:
        number = sympy.Mul(*(o for o in operands if o.is_number))
        above = [] if number == 1 else [self._code(number)]
        below = []
        for operand in operands:
            if operand.is_number:
                continue
            inside = self._complete(operand, len(self.stack) - 1) and self._uses.get(operand, 0) < 2
            if (
                isinstance(operand, sympy.Pow)
                and operand.exp.is_number
                and operand.exp.could_extract_minus_sign()
                and inside
            ):
                below.append(self._code(operand.base**-operand.exp))
            else:
                above.append(self._code(operand))
        text = "*".join(above) or "1.0"
        return f"({text}/{_divisor(below)})" if below else f"({text})"

    def _power_text(self, expr: sympy.Expr) -> str:
        base, exponent = expr.base, expr.exp
        if exponent.could_extract_minus_sign():
            return f"(1.0/{self._code(base**-exponent)})"
        whole, half = divmod(exponent, 1)
        if half not in (0, sympy.Rational(1, 2)) or not exponent.is_number or whole > 64:
            return f"({self._code(base)}**{self._code(exponent)})"
        code = (
            self._code(base)
            if isinstance(base, (sympy.Symbol, sympy.Indexed)) or self._streams(base)
            else self._named(base, self._depth(base))
        )
        factors = [code] * int(whole) + ([f"math.sqrt({code})"] if half else [])
        return f"({'*'.join(factors)})" if whole else factors[0]

    def _call_text(self, expr: sympy.Expr) -> str:
        name = expr.func.__name__
        if isinstance(expr, sympy.KroneckerDelta):
            return f"(1.0 if {' == '.join(map(str, expr.args))} else 0.0)"
        kinked = kink_text(expr, self._plain, self._use)
        if kinked is not None:
            return kinked
        pasted = name in CALLABLE or isinstance(expr, UserFunction)
        if not pasted and name not in LIBRARY:
            raise ValueError(
                f"{expr} cannot be compiled: kernels know sums, products, powers and "
                f"{', '.join(sorted({*CALLABLE, *LIBRARY}))}"
            )
        if expr in self._gathered:
            value = self._name("f")
            self.line(f"{value} = work[gather + at]")
            self.line("at += 1")
            self.stack[-1].names[expr] = value  # read once, however often it is used
            return value
        if name in NODE_FUNCTIONS and any(block.size in self.streamed for block in self.stack):
            function = self._use(NODE_FUNCTIONS[name])
        else:
            function = self._use(name) if pasted else LIBRARY[name]
        return f"{function}({', '.join(map(self._code, expr.args))})"

    def _use(self, function: str) -> str:
        """Take note of a function whose source text is needed."""
        self.functions.add(function)
        return function

    def _plain(self, expr: sympy.Expr) -> str:
        """Return a number or the name of a value, which is computed before."""
        text = self._code(expr)
        if text.isidentifier() or expr.is_number:
            return text
        name = self._name("t")
        self.line(f"{name} = {text}")
        return name

    def _accumulate(self, expr: sympy.Sum) -> str:
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
        weight = self._weight(expr)
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

    def _weight(self, expr: SymmetricSum) -> sympy.Expr | None:
        """Return by what a gathered function is multiplied in its sum, if that is the same inside all open loops."""
        summand = expr.args[0]
        if expr not in self._gathered:
            return None
        (call,) = calls(summand)
        weight = summand / call
        varies = weight.has(call) or any(block.index in weight.free_symbols for block in self.stack[1:])
        return None if varies or weight.has(sympy.Sum, SymmetricSum) else weight

    def _accumulate_product(self, expr: SymmetricSum, weight: sympy.Expr) -> str:
        """Add up gathered values times their weights: one loop for both sums, long enough for SIMD."""
        _, _, _, size = expr.args
        weights, total = self._weights(expr, weight), self._name("s")
        self.line(f"{total} = 0.0")
        self.line(f"for q in range({size}*({size} + 1)//2):")
        self.line(f"    {total} += work[{weights} + q]*work[gather + {self._gathered[expr]} + q]")
        return total

    def _weights(self, expr: SymmetricSum, weight: sympy.Expr) -> str:
        """Return the row of weights in the order in which values are gathered, filled once for the whole kernel."""
        _, first, second, size = expr.args
        outer, self.stack = self.stack, self.stack[:1]
        home, key = self.stack[0], sympy.Tuple(weight, first, second, size)
        if key not in home.rows:
            home.rows[key] = name = self._name("weights")
            self.workspace.append((name, (size, size)))  # half of it is used
            self.legend.notes[name] = f"{weight}, doubled for {second} < {first}, in the order of the gathered values"
            self.line("w = 0")
            self.loop(first, size)
            diagonal = self.canonical(weight.xreplace({second: first}))
            self.line(f"work[{name} + w] = {self._code(diagonal)}")
            self.line("w += 1")
            self.loop(second, size, stop=str(first))
            self.line(f"work[{name} + w] = 2.0*{self._code(weight)}")
            self.line("w += 1")
            self.end()
            self.end()
        self.stack = outer
        return home.rows[key]

    def _diagonal(self, expr: SymmetricSum) -> sympy.Expr:
        summand, first, second, _ = expr.args
        return self.canonical(summand.xreplace({second: first}))

    # -- gathering -----------------------------------------------------------------------------------------------------

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
        if isinstance(expr, SymmetricSum):
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
        return found[0].func.__name__ if needed <= found[0].free_symbols else ""

    def _rewind(self, expr: sympy.Expr) -> None:
        if expr in self._gathered:
            self.line(f"at = {self._gathered[expr]}")


def _divisor(factors: Sequence[str]) -> str:
    """Return a product by which something is divided: in brackets, unless it is one factor that has its own."""
    alone = factors[0] if len(factors) == 1 else ""
    return alone if alone.endswith(")") and _closing(alone) == len(alone) - 1 else f"({'*'.join(factors)})"


def _closing(text: str) -> int:
    """Return where the first bracket of a text is closed, if only a function's name is before it; else -1."""
    depth = 0
    for n, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == ")":
            return n
        if depth == 0 and not (character.isalnum() or character in "._"):
            return -1
    return -1


def flat_index(indices: Sequence[str], shape: Sequence[sympy.Expr]) -> str:
    """Return the text of the row-major position of an element."""
    text = indices[0]
    for index, size in zip(indices[1:], shape[1:], strict=True):
        text = f"({text})*{size} + {index}" if "+" in text else f"{text}*{size} + {index}"
    return text
