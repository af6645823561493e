"""Tables of nodes and weights for numerical expectations, as arrays that a kernel is given besides its parameters.

An expression refers to a table's entry as to any indexed quantity; what the numbers are depends on the sizes of a
Dynamics alone. Knows nothing of which function is averaged: only whether it has kinks and whether the label noise
occurs. The rules themselves are in :mod:`effdyn.derive.numerical.rules`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

from ..increments import NOISE
from ..moments import Joint, Moment
from ..user_function import KinkedUserFunction
from .switches import switches_of, written_out

if TYPE_CHECKING:
    import numpy

LINE = sympy.Symbol("LINE", integer=True, positive=True)
"""The number of nodes of the rule over one field."""
NODES = sympy.Symbol("NODES", integer=True, positive=True)
"""The number of nodes of the rule over all fields at once, which depends on how many fields there are."""
BUNDLE = {kind: sympy.Symbol(kind.upper(), integer=True, positive=True) for kind in ("lines", "planes")}
"""The number of lines or planes that are integrated in pieces between kinks, by the kind of rule."""
PIECES = {kind: sympy.Symbol(f"PER_{kind.upper()[:-1]}", integer=True, positive=True) for kind in BUNDLE}
"""The number of nodes in each piece of a line or plane."""


@dataclass(frozen=True, slots=True)
class Table:
    """An array of numbers of a numerical rule.

    Attributes
    ----------
    name : str
        What it is called in expressions, as an ``IndexedBase``.
    shape : tuple of Expr
        Numbers, sizes of the Dynamics (the sum of them for all fields), :data:`LINE` or :data:`NODES`.
    noise : bool
        Whether the rule over all fields has one more column, the last, for the label noise.
    kind : str
        What that rule is for: ``"smooth"`` functions, those with kinks only where the first field vanishes
        (``"split"``), with kinks where functions of all fields vanish, which do not meet (``"lines"``) or do
        (``"planes"``), or with kinks anywhere (``"rough"``).
    """

    name: str
    shape: tuple[sympy.Expr, ...]
    noise: bool = False
    kind: str = "smooth"

    @property
    def base(self) -> sympy.IndexedBase:
        """What stands for it in expressions."""
        return sympy.IndexedBase(self.name, real=True)


NODE_LINE = Table("node_line", (LINE,))
WEIGHT_LINE = Table("weight_line", (LINE,))


def joint_tables(fields: sympy.Expr, *, noise: bool, kind: str = "smooth") -> tuple[Table, ...]:
    """Return the tables of the rule over ``fields`` fields at once: nodes and weights, and those of a piece."""
    if kind not in BUNDLE:
        return (
            Table("node_joint", (NODES, fields + int(noise)), noise, kind),
            Table("weight_joint", (NODES,), noise, kind),
        )
    left = fields + int(noise) - (1 if kind == "lines" else 2)
    return (
        Table(f"node_{kind}", (BUNDLE[kind], left), noise, kind),
        Table(f"weight_{kind}", (BUNDLE[kind],), noise, kind),
        Table(f"node_of_{kind}", (PIECES[kind],), noise, kind),
        Table(f"weight_of_{kind}", (PIECES[kind],), noise, kind),
    )


LEADING = sympy.IndexedBase("y_star", real=True)
"""The output of a linear teacher. Where it occurs, it is the first variable of the rule over all fields."""
TEACHER = "h_star"
"""The family whose fields come first otherwise, or next."""
KINKS = (
    *(sympy.sign, sympy.Abs, sympy.Max, sympy.Min, sympy.Heaviside, sympy.Piecewise),
    *(sympy.floor, sympy.ceiling, KinkedUserFunction),
)
"""Functions that are not smooth."""


def tables_of(dynamics: Any) -> tuple[Table, ...]:
    """Return the tables that the equations of a Dynamics need, in a fixed order.

    Those of one field if any moment is computed by a rule over one field; those of all fields if there is any
    :class:`~effdyn.derive.moments.Joint`, with a column for the label noise if any of them contains it.
    """
    from .moment_forms import moment_form

    expressions = [equation.expr for equation in dynamics.equations]
    moments = {m.signature for e in expressions for m in e.atoms(Moment)}
    shifted = bool(dynamics.mean)
    line = any(moment_form(signature, shifted).form.has(LINE) for signature in moments)
    joints = joints_of(dynamics)
    tables: tuple[Table, ...] = (NODE_LINE, WEIGHT_LINE) if line else ()
    fields = sympy.Add(*(family.independent for family in dynamics.families))
    noise = any(j.has(NOISE) for j in joints)
    kinds = dict.fromkeys(
        kind for which in (dynamics.drift, dynamics.observables) if (kind := rule_of(dynamics, which))
    )
    return tables + tuple(table for kind in kinds for table in joint_tables(fields, noise=noise, kind=kind))


def rule_of(dynamics: Any, equations: Iterable[Any]) -> str:
    """Return the kind of the rule over all fields that the drift, or the observables, are computed by; empty if none.

    Where there are kinks that are split, a rule of their own is made for them. Else observables follow the drift.
    """
    shifted, names = {family for family, _ in dynamics.mean}, [str(family.base) for family in dynamics.families]
    own = _joints_in(equations)
    kind = kind_of(own, shifted, names) if own else ""
    if kind in ("", *BUNDLE):
        return kind
    others = _joints_in(dynamics.drift) or own
    drift = kind_of(others, shifted, names)
    return kind if drift in BUNDLE else drift


def joints_of(dynamics: Any, observables: bool = True) -> list[Joint]:
    """Return the expectations over all fields at once of a Dynamics."""
    return _joints_in(dynamics.equations if observables else dynamics.drift)


def _joints_in(equations: Iterable[Any]) -> list[Joint]:
    return list(dict.fromkeys(joint for e in equations for joint in sorted(e.expr.atoms(Joint), key=str)))


def has_leading_field(dynamics: Any) -> bool:
    """Return whether a linear teacher's output is the first variable of the rule over all fields."""
    return any(joint.has(LEADING) for joint in joints_of(dynamics))


def kind_of(joints: list[Joint], shifted: set[str], names: Iterable[str] = ("h", TEACHER, str(LEADING))) -> str:
    """Return which rule suits the functions that are averaged.

    A linear teacher's output, else the teachers' fields come first: the sign of the first field has its jump where the
    first variable vanishes. Other kinks are found along lines through all fields, named ``names``; where those of
    different functions of all fields meet, in planes. Those of single units are too many for that.
    """
    expressions = [written_out(joint.args[0]) for joint in joints]
    kinks = {kink for e in expressions for kink in e.atoms(*KINKS)}
    if not kinks:
        return "smooth"
    fields = {f for kink in kinks for f in kink.atoms(sympy.Indexed)} | {s for k in kinks for s in k.atoms(sympy.Sum)}
    leader = str(LEADING) if any(e.has(LEADING) for e in expressions) else TEACHER
    first = {f for f in fields if isinstance(f, sympy.Indexed) and str(f.base) == leader and f.indices == (1,)}
    signs = all(isinstance(kink, sympy.sign) and kink.args[0] in first for kink in kinks)
    if signs and len(fields) == 1 and leader not in shifted:
        return "split"
    switches = switches_of((joint.args[0] for joint in joints), [(name, sympy.Symbol(f"n_{name}")) for name in names])
    if not switches:
        return "rough"
    return "planes" if len(switches) > 1 and all(s.size == 1 for s in switches) else "lines"


def table_sizes(tables: Iterable[Table], n_fields: int, level: int = 0) -> dict[str, int]:
    """Return the numbers of nodes of the tables, by the name of the size.

    Parameters
    ----------
    tables : iterable of Table
    n_fields : int
        How many fields there are, without the label noise.
    level : int
        0 for the rule that is used; 1 for one of about ten times as many nodes; -1 for a coarser one.

    Examples
    --------
    >>> sorted(table_sizes([NODE_LINE, WEIGHT_LINE], 4))
    ['LINE']
    """
    return {str(t.shape[0]): len(table_values(t, n_fields, level)) for t in tables}


def table_values(table: Table, n_fields: int, level: int = 0, shift: int = 0) -> "numpy.ndarray":
    """Return the numbers of a table, an array that is not to be written to.

    Parameters
    ----------
    table : Table
    n_fields, level : int
        As for :func:`table_sizes`.
    shift : int
        Which of several equally good rules over all fields, whose spread is the error of any of them.

    Examples
    --------
    >>> round(float(table_values(WEIGHT_LINE, 4).sum()), 12)
    1.0
    """
    from .rules import bundle_rule, joint_rule, line_rule, piece_rule

    if table.shape[0] == LINE:
        nodes, weights = line_rule(level)
    elif table.shape[0] in PIECES.values():
        nodes, weights = piece_rule(table.kind, level)
    elif table.kind in BUNDLE:
        left = n_fields + int(table.noise) - (1 if table.kind == "lines" else 2)
        nodes, weights = bundle_rule(left, table.kind, level, shift)
    else:
        nodes, weights = joint_rule(n_fields + int(table.noise), table.kind, level, shift)
    return nodes if table.name.startswith("node") else weights
