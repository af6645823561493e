"""Where each array of a Dynamics lies for a kernel: in ``par``, in ``y``, or unpacked in ``work``.

``par`` holds the sizes, then the parameters, then the tables of numerical rules; those with an axis of nodes have it
last.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import sympy

from effdyn.derive import Dynamics, Quantity
from effdyn.derive.numerical.quadrature import NODES, Table

from .fuse import ALL, GRAM, F, Fusion, G
from .nodes import (
    ALL_FIELDS,
    COLUMNS,
    NOISE_NODES,
    OWN_FIELDS,
    WEIGHT,
    field_at_nodes,
    number_of_columns,
    ordered_families,
)
from .writer import flat_index

if TYPE_CHECKING:
    from .splitting import Splitting


class Memory:
    """Where each array of a Dynamics lies: sizes and parameters in ``par``, states in ``y``, and in ``work`` what is
    unpacked from them.

    Overlaps that are the covariance of two families of fields are unpacked into one matrix C over all fields; other
    symmetric states into their full matrices.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        fused: Fusion | None,
        tables: Sequence[Table] = (),
        splitting: "Splitting | None" = None,
        shared: Sequence[Quantity] = (),
    ) -> None:
        self.dynamics, self.tables, self.splitting = dynamics, tables, splitting
        self._shared = {q.base: q for q in shared}
        self.node_families = ordered_families(dynamics)
        self._tables = {str(table.base): table for table in tables}
        self.families = fused.families if fused else ()
        self._fused = fused
        own = {str(family.base) for family in self.families}
        composite = {pair for pair, _ in fused.composite} if fused else set()
        self._blocks = {  # overlap: its two families
            block.expr.base: pair
            for pair, block in dynamics.covariance
            if fused and own.issuperset(pair) and pair not in composite
        }
        symmetric = {q.base for q in (*dynamics.states, *dynamics.parameters) if q.symmetric}
        self.symmetric = frozenset(symmetric | {GRAM} if fused else symmetric)
        self._quantities = {q.base: q for q in (*dynamics.states, *dynamics.parameters)}

    @property
    def unpacked(self) -> list[tuple[str, tuple[sympy.Expr, ...]]]:
        """The arrays that the prologue fills, with their shapes."""
        own = [(q.name, q.shape) for q in self.dynamics.states if q.symmetric and q.base not in self._blocks]
        own += [(q.name, q.shape) for q in self._shared.values()]
        if not self._fused:
            return own
        return [("C", (ALL, ALL)), *((str(c), (ALL,)) for c in self._fused.weights.values()), *own]

    def element(self, expr: sympy.Expr, indices: list[str]) -> str:
        """Return the text of a scalar or an array element."""
        base = expr.base if isinstance(expr, sympy.Indexed) else expr
        if base in self._blocks:
            return self.element(
                GRAM[0, 0], [plus(self._start(f), i) for f, i in zip(self._blocks[base], indices, strict=True)]
            )
        if base == GRAM:
            return f"work[C + {flat_index(indices, (ALL, ALL))}]"
        if base in self._shared:
            return f"work[{base} + {flat_index(indices, self._shared[base].shape)}]"
        if self._fused and base in self._fused.weights.values():
            return f"work[{base} + {indices[0]}]"
        if self.tables and isinstance(expr, sympy.Indexed) and base not in self._quantities:
            return self._at_nodes(base, indices)
        quantity = self._quantities.get(base)
        if quantity is None:
            return str(expr)  # a size
        if not indices:
            return quantity.name
        if quantity in self.dynamics.states and quantity.symmetric:
            return f"work[{quantity.name}_full + {flat_index(indices, quantity.shape)}]"
        array = "y" if quantity in self.dynamics.states else "par"
        return f"{array}[{quantity.name} + {flat_index(indices, quantity.shape)}]"

    def _at_nodes(self, base: sympy.IndexedBase, indices: list[str]) -> str:
        """Return the text of an element of a table, or of a field or the label noise at a node."""
        if self.splitting and base == WEIGHT:
            return f"work[kink_weight + {indices[0]}]"
        if self.splitting and base == NOISE_NODES:
            return f"work[field + {ALL_FIELDS}*{NODES} + {indices[0]}]"
        if str(base) in self._tables:
            return f"par[{base} + {indices[0]}]"
        if base == NOISE_NODES:
            return f"par[node_joint + {COLUMNS}*{NODES} + {indices[0]}]"
        start = "0"
        for family in self.node_families:
            if base == field_at_nodes(str(family.base)):
                place = plus(start, flat_index(indices[:-1], family.axes))
                return f"work[field + {flat_index([place, indices[-1]], (ALL_FIELDS, NODES))}]"
            start = plus(start, str(family.size))
        raise ValueError(f"nothing is known of {base}")

    @property
    def all_fields(self) -> sympy.Expr:
        """The number of all fields, in the sizes of the families."""
        return sympy.Add(*(family.size for family in self.families))

    def in_sizes(self, extent: sympy.Expr) -> sympy.Expr:
        """Return an extent in the sizes of the Dynamics."""
        if not (self._fused or self.tables):
            return extent
        fields = sympy.Add(*(family.size for family in self.node_families))
        if self.splitting:
            extent = extent.subs(NODES, self.splitting.capacity)
        sizes = {ALL: self.all_fields, ALL_FIELDS: fields, COLUMNS: number_of_columns(self.node_families)}
        return extent.subs(sizes)

    def stores(self, pair: tuple[str, str], value: str) -> str:
        """Return the statement that puts a covariance of two families, at the indices of a block, into C."""
        starts = [self._start(family) for family in pair]
        u, v = (plus(start, str(index)) for start, index in zip(starts, (F, G), strict=True))
        both = [[u, v]] if pair[0] == pair[1] else [[u, v], [v, u]]
        return " = ".join([*(self.element(GRAM[0, 0], place) for place in both), value])

    def _start(self, family: str) -> str:
        """Return the text of the position of a family's first field among all."""
        return "0" if family == str(self.families[0].base) else str(self.families[0].size)

    @property
    def notes(self) -> dict[str, str]:
        """What the arrays hold that the prologue fills, and those of numerical rules, by name: for readers."""
        found = {
            "gather": "arguments of functions that are evaluated together, then their values",
            "factor": "of the covariance of all fields",
            "mean": "of each field",
            "field": "each field at each node",
        }
        if self._fused:
            names = [str(family.base) for family in self.families]
            blocks = ", ".join(f"<{f} {g}> is {base}" for base, (f, g) in self._blocks.items())
            blocks += "".join(f", <{f} {g}> is computed" for (f, g), _ in self._fused.composite)
            found["C"] = f"C[u, v]: overlaps of all {ALL} fields, those of {names[0]} before {names[1]}; {blocks}"
            for values, weight in self._fused.weights.items():
                both = ", ".join(f"{value} for {name}" for value, name in zip(values, names, strict=True))
                found[str(weight)] = f"{weight}[u]: {both}"
        return found

    def prologue(
        self,
        scratch: Sequence[tuple[str, tuple[sympy.Expr, ...]]],
        notes: Mapping[str, str] | None = None,
        computed: Sequence[str] = (),
    ) -> list[str]:
        """Return the statements that name sizes, scalars and offsets, with remarks, and unpack states; ``computed`` are
        those that compute sizes of the scratch arrays."""
        remarks = self.notes | dict(notes or {})
        sizes = (*self.dynamics.sizes, *node_sizes(self.tables))
        lines = [f"{size} = int(par[{n}])" for n, size in enumerate(sizes)]
        offset = str(len(lines))
        if NODES in sizes or self.splitting:
            lines.append(f"{ALL_FIELDS} = {' + '.join(str(family.size) for family in self.node_families)}")
            own = [str(family.size) for family in self.node_families if not family.given]
            lines.append(f"{OWN_FIELDS} = {' + '.join(own)}")
            lines.append(f"{COLUMNS} = {number_of_columns(self.node_families)}")
        if self._fused:
            lines.append(f"{ALL} = {' + '.join(str(family.size) for family in self.families)}")
        for q in self.dynamics.parameters:
            lines.append(f"{q.name} = {offset}" if q.indices else f"{q.name} = par[{offset}]")
            offset = plus(offset, _product(q.shape))
        for table in self.tables:
            lines.append(f"{table.name} = {offset}")
            offset = plus(offset, _product(table.shape))
        if self.splitting:
            lines.append(f"{NODES} = {self.splitting.capacity}  # at most")
        offset = "0"
        for q in self.dynamics.states:
            lines.append(f"{q.name} = {offset}" if q.indices else f"{q.name} = y[{offset}]")
            offset = plus(offset, packed_size(q))
        lines += computed
        offset = "0"
        for name, shape in scratch:
            remark = f"  # {remarks[name]}" if name in remarks else ""
            lines.append(f"{_offset_name(name, self._quantities)} = {offset}{remark}")
            offset = plus(_offset_name(name, self._quantities), _product(shape))
        return lines + [line for q in self._quantities.values() for line in self._unpack(q)]

    def _unpack(self, q: Quantity) -> list[str]:
        array = "y" if q in self.dynamics.states else "par"
        if q.symmetric and array == "y":
            size = q.shape[0]
            target = f"{self.element(q.base[0, 0], ['r1', 'r2'])} = {self.element(q.base[0, 0], ['r2', 'r1'])}"
            return [
                f"p = {q.name}",
                f"for r1 in range({size}):",
                f"    for r2 in range(r1, {size}):",
                f"        {target} = y[p]",
                "        p += 1",
            ]
        if q.base not in self._blocks:
            return []
        f, g = (self._start(family) for family in self._blocks[q.base])
        target = f"work[C + {flat_index([plus(f, 'r1'), plus(g, 'r2')], (ALL, ALL))}]"
        if f != g:  # a block off the diagonal, and its transpose
            target += f" = work[C + {flat_index([plus(g, 'r2'), plus(f, 'r1')], (ALL, ALL))}]"
        return [
            f"for r1 in range({q.shape[0]}):",
            f"    for r2 in range({q.shape[1]}):",
            f"        {target} = {array}[{q.name} + {flat_index(['r1', 'r2'], q.shape)}]",
        ]


def node_sizes(tables: Sequence[Table]) -> tuple[sympy.Symbol, ...]:
    """Return the sizes of tables that are numbers of nodes, sorted by name, in which order ``par`` has them."""
    return tuple(sorted({table.shape[0] for table in tables}, key=str))


def _offset_name(name: str, quantities: Mapping[sympy.Basic, Quantity]) -> str:
    """Return the name of the offset of a scratch array; a symmetric state has one in ``y`` too."""
    return f"{name}_full" if name in {q.name for q in quantities.values()} else name


def packed_size(quantity: Quantity) -> str:
    """Return the text of the number of doubles that a quantity takes."""
    if quantity.symmetric:
        size = quantity.shape[0]
        return f"{size}*({size} + 1)//2"
    return _product(quantity.shape)


def _product(shape: Sequence[sympy.Expr]) -> str:
    return "*".join(f"({s})" if isinstance(s, sympy.Add) else str(s) for s in shape) or "1"


def plus(left: str, right: str) -> str:
    if left == "0":
        return right
    return str(int(left) + int(right)) if left.isdigit() and right.isdigit() else f"{left} + {right}"
