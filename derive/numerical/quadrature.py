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
from ..moments import Joint, Moment, Value

if TYPE_CHECKING:
    import numpy

LINE = sympy.Symbol("LINE", integer=True, positive=True)
"""The number of nodes of the rule over one field."""
NODES = sympy.Symbol("NODES", integer=True, positive=True)
"""The number of nodes of the rule over all fields at once, which depends on how many fields there are."""


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
        (``"split"``), or with kinks anywhere (``"rough"``).
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


def joint_tables(fields: sympy.Expr, *, noise: bool, kind: str = "smooth") -> tuple[Table, Table]:
    """Return the nodes and weights of the rule over ``fields`` fields at once."""
    return (
        Table("node_joint", (NODES, fields + int(noise)), noise, kind),
        Table("weight_joint", (NODES,), noise, kind),
    )


LEADING = sympy.IndexedBase("y_star", real=True)
"""The output of a linear teacher. Where it occurs, it is the first variable of the rule over all fields."""
TEACHER = "h_star"
"""The family whose fields come first otherwise, or next."""
KINKS = (sympy.sign, sympy.Abs, sympy.Max, sympy.Min, sympy.Heaviside, sympy.Piecewise, sympy.floor, sympy.ceiling)
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
    if joints:
        fields = sympy.Add(*(family.size for family in dynamics.families if not family.derived))
        tables += joint_tables(
            fields,
            noise=any(j.has(NOISE) for j in joints),
            kind=kind_of(joints_of(dynamics, observables=False) or joints, {family for family, _ in dynamics.mean}),
        )
    return tables


def joints_of(dynamics: Any, observables: bool = True) -> list[Joint]:
    """Return the expectations over all fields at once of a Dynamics."""
    equations = dynamics.equations if observables else dynamics.drift
    return list(dict.fromkeys(joint for e in equations for joint in sorted(e.expr.atoms(Joint), key=str)))


def has_leading_field(dynamics: Any) -> bool:
    """Return whether a linear teacher's output is the first variable of the rule over all fields."""
    return any(joint.has(LEADING) for joint in joints_of(dynamics))


def kind_of(joints: list[Joint], shifted: set[str]) -> str:
    """Return which rule suits the functions that are averaged.

    A linear teacher's output, else the teachers' fields come first: the sign of the first field has its jump where the
    first variable vanishes. What the equations of motion need decides; observables follow.
    """
    expressions = [_written_out(joint.args[0]) for joint in joints]
    kinks = {kink for e in expressions for kink in e.atoms(*KINKS)}
    if not kinks:
        return "smooth"
    fields = {f for kink in kinks for f in kink.atoms(sympy.Indexed)} | {s for k in kinks for s in k.atoms(sympy.Sum)}
    leader = str(LEADING) if any(e.has(LEADING) for e in expressions) else TEACHER
    first = {f for f in fields if isinstance(f, sympy.Indexed) and str(f.base) == leader and f.indices == (1,)}
    signs = all(isinstance(kink, sympy.sign) and kink.args[0] in first for kink in kinks)
    return "split" if signs and len(fields) == 1 and leader not in shifted else "rough"


def _written_out(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the functions of its fields written out."""
    return expr.replace(lambda e: isinstance(e, Value), lambda v: v.args[0].function(v.args[1]))


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
    from .rules import joint_rule, line_rule

    if table.shape[0] == LINE:
        nodes, weights = line_rule(level)
    else:
        nodes, weights = joint_rule(n_fields + int(table.noise), table.kind, level, shift)
    return nodes if table.name.startswith("node") else weights
