"""Double sums of arc sines for all pairs of free indices at once: the pairs are the lanes of SIMD registers.

``Σ_{u,v} c_u c_v asin(x_{ik,uv})`` for all i ≤ k has more pairs (i, k) than a register has lanes, at any size worth a
thought; rows over u are short, and end in the middle of a register. So pairs are numbered, what depends on them is
copied once into arrays whose last index is the lane, and every loop over lanes is innermost: arguments, arc sine and
sum are one pass through registers, without gathering. A *batch* is what fits in the first caches, and as few lanes as
possible are left over.

The equation that needs the sums finds them in an array, one for each pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sympy

from .accumulate import Sums
from .blocks import Block
from .gather import Loop
from .sums import SymmetricSum, calls, outer_sums
from .writer import flat_index

LANE = sympy.Symbol("lane", integer=True, positive=True)
"""The index of lanes."""
WIDTH = 8
"""Batches have a multiple of this many lanes: a register of 512 bits, two of 256."""
MOST_LANES = 128
"""The most lanes of a batch. With 64 to 128 at K = 30 the three arrays that the innermost loops run through take 90 to
170 kB, which is equally fast; fewer lanes are left over of more."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The values of an equation's free indices, numbered, in batches.

    Attributes
    ----------
    loops : tuple of Loop
        Over the free indices, in the order in which the equation has them.
    symmetric : bool
        Whether the second of two starts at the first: i ≤ k.
    number : str
        Tells the names from others.
    """

    loops: tuple[Loop, ...]
    symmetric: bool
    number: str

    @property
    def indices(self) -> tuple[sympy.Symbol, ...]:
        """The free indices."""
        return tuple(index for index, _, _ in self.loops)

    @property
    def lanes(self) -> sympy.Symbol:
        """The number of lanes of a batch."""
        return sympy.Symbol(f"lanes{self.number}", integer=True, positive=True)

    @property
    def padded(self) -> sympy.Symbol:
        """The number of lanes of all batches."""
        return sympy.Symbol(f"padded{self.number}", integer=True, positive=True)

    @property
    def extents(self) -> dict[sympy.Symbol, sympy.Expr]:
        """These numbers, in sizes."""
        sizes = [size for _, size, _ in self.loops]
        count = sizes[0] * (sizes[0] + 1) / 2 if self.symmetric else sympy.Mul(*sizes)
        batches = sympy.ceiling(count / MOST_LANES)
        lanes = WIDTH * sympy.ceiling(count / (WIDTH * batches))
        return {self.lanes: lanes, self.padded: batches * lanes}

    @property
    def definitions(self) -> list[str]:
        """The statements that compute them."""
        sizes, n = [str(size) for _, size, _ in self.loops], self.number
        count = f"{sizes[0]}*({sizes[0]} + 1)//2" if self.symmetric else "*".join(sizes)
        return [
            f"pairs{n} = {count}  # of {', '.join(map(str, self.indices))}: in batches of equally many SIMD lanes",
            f"batches{n} = (pairs{n} + {MOST_LANES - 1})//{MOST_LANES}",
            f"{self.lanes} = (pairs{n} + {WIDTH}*batches{n} - 1)//({WIDTH}*batches{n})*{WIDTH}",
            f"{self.padded} = batches{n}*{self.lanes}",
        ]

    @property
    def position(self) -> str:
        """The text of the number of a pair."""
        names, sizes = [str(index) for index in self.indices], [size for _, size, _ in self.loops]
        if self.symmetric:
            return f"{names[0]}*(2*{sizes[0]} - {names[0]} - 1)//2 + {names[1]}"
        return flat_index(names, sizes)


class InLanes(Sums):
    """Writes double sums of gathered functions for all pairs, before the equation that needs them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pairs: list[Pairs] = []
        self.lanes: sympy.Symbol | None = None  # of the batch under construction
        self.of_lane: frozenset[sympy.Symbol] = frozenset()  # indices that each lane has, counted from 0

    @property
    def extents(self) -> dict[sympy.Expr, sympy.Expr]:
        """The numbers of lanes in the arrays of the workspace, in sizes."""
        return {lanes: number for pairs in self.pairs for lanes, number in pairs.extents.items()}

    @property
    def definitions(self) -> list[str]:
        """The statements that compute them."""
        return [line for pairs in self.pairs for line in pairs.definitions]

    def sums_in_lanes(self, expr: sympy.Expr, loops: Sequence[Loop], symmetric: bool) -> sympy.Expr:
        """Write the double sums of an equation with several free indices, none of whose loops is open yet.

        Returns
        -------
        Expr
            The equation with each such sum replaced by an element of the array that holds it.
        """
        indices = [index for index, _, _ in loops]
        chosen = sorted((s for s in outer_sums(expr) if self._suits_lanes(s, indices)), key=sympy.default_sort_key)
        if not chosen or len(loops) < 2 or (symmetric and len(loops) > 2):
            return expr
        pairs = Pairs(tuple(loops), symmetric, self._name(""))
        self.pairs.append(pairs)
        lists = self._number_pairs(pairs)
        found = {}
        for one in chosen:
            name = self._name("sums")
            self.workspace.append((name, (pairs.padded,)))
            self.legend.notes[name] = f"a double sum for each {', '.join(map(str, indices))}"
            self._sum_in_lanes(one, pairs, lists, name)
            found[one] = sympy.IndexedBase(name, real=True)[tuple(indices)]
            self.elsewhere[found[one].base] = lambda *_, name=name: f"work[{name} + {pairs.position}]"
        return expr.xreplace(found)

    def _suits_lanes(self, expr: sympy.Expr, indices: Sequence[sympy.Symbol]) -> bool:
        """Return whether a sum is a double one of an arc sine that depends on all free indices, which stand only at
        arrays."""
        if not isinstance(expr, SymmetricSum) or expr.args[3] in self.streamed:
            return False
        summand, first, second, _ = expr.args
        bare = summand.replace(lambda e: isinstance(e, sympy.Indexed), lambda e: sympy.S.One)
        if summand.has(sympy.Sum, SymmetricSum) or {first, second, *indices} & bare.free_symbols:
            return False
        found = calls(summand)
        return len(found) == 1 and set(indices) <= found[0].free_symbols and not (summand / found[0]).has(found[0])

    def _number_pairs(self, pairs: Pairs) -> list[str]:
        """Write the loops that list the free indices of each lane, and return the names of the lists. What is left
        over of the last batch repeats the last pair."""
        lists = [self._name("of_lane") for _ in pairs.indices]
        for name, index in zip(lists, pairs.indices, strict=True):
            self.workspace.append((name, (pairs.padded,)))
            self.legend.notes[name] = f"{index} of each lane"
        store = [f"work[{name} + q] = {index}" for name, index in zip(lists, pairs.indices, strict=True)]
        self.line("q = 0")
        for loop in pairs.loops:
            self.loop(*loop)
        for line in (*store, "q += 1"):
            self.line(line)
        for _ in pairs.loops:
            self.end()
        self.line(f"for q in range(pairs{pairs.number}, {pairs.padded}):")
        for line in store:
            self.line(f"    {line}")
        return lists

    def _sum_in_lanes(self, expr: SymmetricSum, pairs: Pairs, lists: Sequence[str], target: str) -> None:
        """Write the loop over batches: for each lane what depends on its pair, then the sum for all lanes."""
        outer, state = self.stack, (self.streamed, self.free, self._uses, self._gathered)
        self.stack = [Block(header=f"for begin in range(0, pairs{pairs.number}, {pairs.lanes}):")]
        self.streamed, self.lanes = self.streamed | {pairs.lanes}, pairs.lanes
        self.free, self._uses, self._gathered = 0, {}, {}
        summand, first, second, size = expr.args
        self.line(f"for {LANE} in range({pairs.lanes}):")
        self.line(f"    work[{target} + begin + {LANE}] = 0.0")
        self.of_lane = frozenset(pairs.indices)
        inside = self._copied(summand, pairs, lists, {first: size, second: size})
        self.of_lane = frozenset()
        (call,) = calls(inside)
        weight = inside / call
        varies = LANE in weight.free_symbols
        self._count(inside)
        self.loop(first, size)
        self.loop(second, size, stop=f"{first} + 1")
        factor = self._name("w")
        common = "" if varies else f"*{self._code(weight)}"
        self.line(f"{factor} = (1.0 if {second} == {first} else 2.0){common}")
        self.loop(LANE, pairs.lanes)
        self.line(f"work[{target} + begin + {LANE}] += {factor}*{self._code(inside if varies else call)}")
        for _ in range(3):
            self.end()
        batch, self.stack = self.stack[0], outer
        self.streamed, self.free, self._uses, self._gathered = state
        self.lanes = None
        self.stack[-1].close(batch)

    def _copied(
        self, summand: sympy.Expr, pairs: Pairs, lists: Sequence[str], sizes: Mapping[sympy.Symbol, sympy.Expr]
    ) -> sympy.Expr:
        """Write the loops that copy, for each lane, the elements of arrays that depend on its pair; return the summand
        in these copies."""
        copies: dict[tuple[sympy.Symbol, ...], list[tuple[str, sympy.Expr]]] = {}
        arrays: dict[sympy.Expr, sympy.IndexedBase] = {}
        found: dict[sympy.Expr, sympy.Expr] = {}
        elements = [e for e in summand.atoms(sympy.Indexed) if set(pairs.indices) & e.free_symbols]
        for element in sorted(elements, key=sympy.default_sort_key):
            own = [index for index in sizes if index in element.free_symbols]
            generic = list(sizes)[: len(own)]
            template = self.canonical(element.xreplace(dict(zip(own, generic, strict=True))))
            if template not in arrays:
                shape = (*(sizes[index] for index in own), pairs.lanes)
                name = self._name("copy")
                self.workspace.append((name, shape))
                letters = ", ".join(map(str, (*generic, LANE)))
                self.legend.notes[name] = f"{name}[{letters}] = {template}"
                arrays[template] = sympy.IndexedBase(name, real=True)
                self.elsewhere[arrays[template]] = partial(_element_text, name, shape)
                place = _element_text(name, shape, [str(index) for index in (*generic, LANE)])
                copies.setdefault(tuple(generic), []).append((place, template))
            found[element] = arrays[template][(*own, LANE)]
        self.loop(LANE, pairs.lanes)
        for name, index in zip(lists, pairs.indices, strict=True):
            self.line(f"{index} = int(work[{name} + begin + {LANE}])")
        for over, copied in sorted(copies.items(), key=lambda item: len(item[0])):
            for index in over:
                self.loop(index, sizes[index])
            for place, template in copied:  # written inside the loops, whose indices count from 0
                self.line(f"{place} = {self._atom(template)}")
            for _ in over:
                self.end()
        self.end()
        return summand.xreplace(found)

    def _position(self, index: sympy.Expr) -> str:
        return str(index) if self.of_lane & index.free_symbols else super()._position(index)

    def _atom(self, expr: sympy.Expr) -> str:
        if isinstance(expr, sympy.Indexed) and expr.base in self.elsewhere:
            return self.elsewhere[expr.base]([self._position(index) for index in expr.indices])
        return super()._atom(expr)

    def _code(self, expr: sympy.Expr) -> str:
        """In a loop over lanes, what does not depend on all open loops is a row if it depends on the lane, else a
        value."""
        block = self.stack[-1]
        if expr.is_number or block.size is None or block.size != self.lanes:
            return super()._code(expr)
        if block.index not in self._free(expr):
            return self._outside(expr)
        inside = self._complete(expr, len(self.stack) - 1)
        if not isinstance(expr, sympy.Indexed) and (not inside or self._is_row(expr)):
            return self._row(expr, 0, len(self.stack) - 1)
        return super()._code(expr)

    def _outside(self, expr: sympy.Expr) -> str:
        """Return the name of a value that is the same for all lanes: LLVM cannot tell that no lane changes it."""
        outer, self.stack = self.stack, self.stack[: self._depth(expr) + 1]
        text = self._code(expr)
        if not text.isidentifier():
            name = self.stack[-1].names.setdefault(expr, self._name("t"))
            self.line(f"{name} = {text}")
            text = name
        self.stack = outer
        return text


def _element_text(name: str, shape: Sequence[sympy.Expr], indices: Sequence[str]) -> str:
    """Return the text of an element of an array of the workspace."""
    return f"work[{name} + {flat_index(indices, shape)}]"
