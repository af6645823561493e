"""What a kernel does before it sums over nodes if its integrands have kinks: it finds them, and puts nodes between.

The switching functions of the integrands are written as a loop over places, as other sums over nodes are; around it
stands a loop over stages, which ask for their values at ever new places. Knows nothing of how the text of an
expression is written.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from effdyn.derive import Dynamics
from effdyn.derive.moments import Joint
from effdyn.derive.numerical.quadrature import BUNDLE, LINE, NODES, PIECES, Table, kind_of
from effdyn.derive.numerical.split import SPARE, STEPS
from effdyn.derive.numerical.switches import UNIT, Switch, switches_of

from .blocks import Block
from .emit import Emitter
from .nodes import ALL_FIELDS, COLUMNS, NODE, at_node, ordered_families
from .split_lines import CANDIDATES, STAGES

Scratch = list[tuple[str, tuple[sympy.Expr, ...]]]


@dataclass(frozen=True, slots=True)
class Splitting:
    """The kinks of a kernel's integrands.

    Attributes
    ----------
    kind : str
        ``"lines"`` or ``"planes"``.
    switches : tuple of Switch
    noise : int
        1 if the label noise is one more variable.
    """

    kind: str
    switches: tuple[Switch, ...]
    noise: int

    @property
    def count(self) -> sympy.Expr:
        """The number of switching functions, each level counted."""
        return sympy.Add(*(s.size * len(s.levels) for s in self.switches))

    @property
    def most(self) -> sympy.Expr:
        """The largest number of kinks on a line that are seen."""
        return self.count + SPARE

    @property
    def crossings(self) -> int:
        """The largest number of crossings in a plane that are seen; 0 for lines."""
        numbers = [len(s.levels) for s in self.switches]
        pairs = sum(n * sum(numbers[:k]) for k, n in enumerate(numbers))
        return pairs + SPARE if self.kind == "planes" else 0

    @property
    def lines(self) -> sympy.Expr:
        """The largest number of lines."""
        across = PIECES[self.kind] * (2 + self.crossings) if self.kind == "planes" else sympy.S.One
        return BUNDLE[self.kind] * across

    @property
    def capacity(self) -> sympy.Expr:
        """The largest number of nodes."""
        return self.lines * PIECES[self.kind] * (2 + self.most)

    @property
    def scratch(self) -> Scratch:
        """The arrays that this takes."""
        n, d = ALL_FIELDS + self.noise, COLUMNS + self.noise
        arrays: Scratch = [
            ("kink_weight", (NODES,)),
            ("kink_value", (self.count, NODES)),
            ("kink_group", (self.count,)),
            ("kink_way", (self.count + 2, d)),
            ("kink_rows", (n, d + n + 3)),
            ("kink_slope", (n,)),
            ("kink_place", (NODES,)),
            ("kink_line", (n, self.lines)),
            ("kink_bracket", (self.lines, 6 * self.most)),
            ("kink_share", (self.lines,)),
            ("kink_number", (self.lines,)),
            ("kink_cuts", (self.lines, self.most + 3)),
        ]
        if self.kind == "planes":
            candidates = CANDIDATES * self.crossings * BUNDLE[self.kind]
            arrays += [
                ("kink_across", (n,)),
                ("kink_plane", (n, BUNDLE[self.kind])),
                ("kink_part", (BUNDLE[self.kind],)),
                ("kink_across_cuts", (BUNDLE[self.kind], sympy.Integer(self.crossings + 3))),
                ("kink_candidate", (candidates, sympy.Integer(14))),
                ("kink_moved", (candidates, sympy.Integer(2))),
            ]
        return arrays


def splitting_of(dynamics: Dynamics, expressions: Sequence[sympy.Expr], tables: Sequence[Table]) -> Splitting | None:
    """Return how the kinks in expressions are split, if they are.

    Events may need less than the equations for which tables were made; then the rule that there is has to do.
    """
    joints = list(dict.fromkeys(joint for e in expressions for joint in sorted(e.atoms(Joint), key=str)))
    known = {table.kind: table.noise for table in tables if table.shape[0] != LINE}
    families = [(str(family.base), family.size) for family in dynamics.families]
    kind = kind_of(joints, {family for family, _ in dynamics.mean}, [name for name, _ in families]) if joints else ""
    if kind not in known:
        whole = [other for other in known if other not in BUNDLE]
        kind = next((other for other in (BUNDLE if kind in BUNDLE or not whole else ()) if other in known), "")
    switches = switches_of((joint.args[0] for joint in joints), families) if joints else ()
    if kind not in BUNDLE or not joints or switches is None:
        return None
    return Splitting(kind, switches, int(known[kind]))


def emit_splitting(emitter: Emitter, splitting: Splitting, dynamics: Dynamics) -> None:
    """Write the stages that find kinks, and in the end the fields and weights at all nodes."""
    kept, emitter.stack = emitter.stack, [Block()]
    groups = _emit_switches(emitter, splitting, dynamics)
    inside, emitter.stack = emitter.stack[0].lines, kept
    planes, names = splitting.kind == "planes", _names(splitting)
    emitter.functions |= {"unit_probes", "find_directions", "nodes_in_pieces", "node_exp"}
    emitter.functions |= {"plane_grid"} if planes else set()
    for line in [
        "kink_count = kink_lines = 0",
        *groups,
        f"{NODES} = unit_probes(work, field, mean, factor, {names['law']})",
    ]:
        emitter.line(line)
    stages = textwrap.dedent(_PLANES if planes else _LINES).strip("\n").format(**names)
    emitter.line(f"for kink_stage in range({STAGES[splitting.kind]}):")
    for line in [*inside, *stages.splitlines()]:
        emitter.line(f"    {line}")


def _emit_switches(emitter: Emitter, splitting: Splitting, dynamics: Dynamics) -> list[str]:
    """Write the loops over places that evaluate all switching functions; return the lines that say which is which."""
    groups: list[str] = []
    row: sympy.Expr = sympy.S.Zero
    for number, switch in enumerate(splitting.switches):
        expr = at_node(switch.expr, ordered_families(dynamics))
        for level in switch.levels:
            single = switch.size == 1
            place = f"{row}" if single else f"{row} + {UNIT}"
            groups += [] if single else [f"for {UNIT} in range({switch.size}):"]
            number_of = f"{1000 * number}.0" if single else f"{1000 * number}.0 + {UNIT}"
            groups.append(f"{'' if single else '    '}work[kink_group + {place}] = {number_of}")
            if not single:
                emitter.loop(UNIT, switch.size)
            emitter.loop(NODE, NODES)
            emitter.line(f"work[kink_value + ({place})*{NODES} + {NODE}] = {emitter.value(expr - level)}")
            emitter.end()
            if not single:
                emitter.end()
            row += switch.size
    return groups


def _names(splitting: Splitting) -> dict[str, str]:
    """Return what stands in the texts below for sizes."""
    kind, noise = splitting.kind, splitting.noise
    n, d = (f"{size} + {noise}" if noise else str(size) for size in (ALL_FIELDS, COLUMNS))
    names = {
        "n": n,
        "d": d,
        "row": str(ALL_FIELDS),
        "noise": str(noise),
        "left": f"{d} - {2 if kind == 'planes' else 1}",
        "nodes": str(NODES),
        "count": str(splitting.count),
        "room": str(splitting.most + 3),
        "room_across": str(splitting.crossings + 3),
        "gap": str(splitting.lines),
        "candidates": str(CANDIDATES * splitting.crossings * BUNDLE[kind]),
        "bundle": str(BUNDLE[kind]),
        "per": str(PIECES[kind]),
        "kind": kind,
        "last": str(STEPS + 2),
        "final": str(2 * STEPS + 3),
    }
    return names | {"law": _LAW.format(**names), "piece": f"node_of_{kind}, weight_of_{kind}, {PIECES[kind]}"}


_LAW = "{n}, {d}, {row}, {noise}"
_LINES = f"""
if kink_stage == 0:
    find_directions(work, kink_value, kink_group, kink_way, kink_rows, factor, {{law}}, {{count}})
    field_slopes(work, kink_slope, kink_way, factor, {{law}})
    line_starts(
        work, par, kink_line, node_{{kind}}, kink_way, kink_rows, mean, factor, {{law}}, {{left}}, {{bundle}}, {{gap}}
    )
    for kink_i in range({{bundle}}):
        work[kink_share + kink_i] = par[weight_{{kind}} + kink_i]
    {{nodes}} = line_grid(work, field, kink_line, {{gap}}, kink_slope, {{n}}, {{bundle}})
    continue
if kink_stage == 1:
    kink_count = find_brackets(work, kink_value, kink_bracket, kink_number, {{bundle}}, {{count}})
else:
    narrow_brackets(work, kink_value, kink_bracket, kink_count)
if kink_stage <= {STEPS}:
    {{nodes}} = root_probes(
        work, field, kink_place, kink_bracket, kink_line, {{gap}}, kink_slope, {{n}}, kink_count
    )
else:
    cut_at_roots(work, kink_cuts, kink_number, {{room}}, kink_bracket, kink_count, {{bundle}})
    {{nodes}} = nodes_in_pieces(
        work, par, field, 0, kink_weight, kink_place, kink_cuts, kink_number, {{room}}, kink_line, {{gap}}, kink_share,
        kink_slope, {{n}}, {{bundle}}, {{piece}},
    )
"""
_PLANES = """
if kink_stage == 0:
    find_directions(work, kink_value, kink_group, kink_way, kink_rows, factor, {law}, {count})
    field_slopes(work, kink_slope, kink_way, factor, {law})
    field_slopes(work, kink_across, kink_way + {d}, factor, {law})
    line_starts(
        work, par, kink_plane, node_{kind}, kink_way, kink_rows, mean, factor, {law}, {left}, {bundle}, {bundle}
    )
    for kink_i in range({bundle}):
        work[kink_part + kink_i] = par[weight_{kind} + kink_i]
    {nodes} = plane_grid(work, field, kink_plane, kink_across, kink_slope, {n}, {bundle})
elif kink_stage == 1:
    kink_count = find_candidates(work, kink_value, kink_group, kink_candidate, {candidates}, {bundle}, {count})
    {nodes} = candidate_probes(
        work, field, kink_candidate, kink_plane, kink_across, kink_slope, {n}, kink_count, {bundle}
    )
elif kink_stage < {last}:
    read_candidates(work, kink_value, kink_candidate, kink_count, kink_moved, kink_stage == 2)
    move_candidates(work, kink_candidate, kink_count, kink_moved)
    {nodes} = candidate_probes(
        work, field, kink_candidate, kink_plane, kink_across, kink_slope, {n}, kink_count, {bundle}
    )
elif kink_stage == {last}:
    read_candidates(work, kink_value, kink_candidate, kink_count, kink_moved, False)
    cut_at_crossings(work, kink_across_cuts, kink_number, {room_across}, kink_candidate, kink_count, {bundle})
    kink_lines = nodes_in_pieces(
        work, par, kink_line, {gap}, kink_share, kink_place, kink_across_cuts, kink_number, {room_across}, kink_plane,
        {bundle}, kink_part, kink_across, {n}, {bundle}, {piece},
    )
    {nodes} = line_grid(work, field, kink_line, {gap}, kink_slope, {n}, kink_lines)
else:
    if kink_stage == {last} + 1:
        kink_count = find_brackets(work, kink_value, kink_bracket, kink_number, kink_lines, {count})
    else:
        narrow_brackets(work, kink_value, kink_bracket, kink_count)
    if kink_stage < {final}:
        {nodes} = root_probes(
            work, field, kink_place, kink_bracket, kink_line, {gap}, kink_slope, {n}, kink_count
        )
    else:
        cut_at_roots(work, kink_cuts, kink_number, {room}, kink_bracket, kink_count, kink_lines)
        {nodes} = nodes_in_pieces(
            work, par, field, 0, kink_weight, kink_place, kink_cuts, kink_number, {room}, kink_line, {gap}, kink_share,
            kink_slope, {n}, kink_lines, {piece},
        )
"""
