"""Names that are safe in generated code: a user's quantities must not collide with what a kernel calls its own.

The equations are the same afterwards; only symbols are renamed, ``y`` to ``y_``. Knows nothing of how code is emitted
beyond the names that it uses.
"""

import builtins
import keyword
import re
from collections.abc import Sequence
from dataclasses import replace

import sympy

from effdyn.derive import Dynamics, Quantity
from effdyn.derive.dynamics import Equation

from .functions import LIBRARY
from .sources import TEXTS

OWN_NAMES = {
    "t",
    "y",
    "out",
    "par",
    "work",
    "p",
    "q",
    "w",
    "at",
    "gather",
    "d",
    "lane",
    "math",
    "njit",
    "cfunc",
    "kernel",
}
OWN_NAMES |= {"N", "C", "u", "v", "u1", "u2", "v1", "v2", "h_any"}  # of fused families
OWN_NAMES |= {
    "LINE",
    "NODES",
    "ALL_FIELDS",
    "OWN_FIELDS",
    "COLUMNS",
    "factor",
    "mean",
    "field",
    "noise",
    "np",
}  # of rules
OWN_NAMES |= {"node_line", "weight_line", "node_joint", "weight_joint"}
OWN_NAMES |= {"unit", "EDGE", "LINES", "PLANES", "PER_LINE", "PER_PLANE", "node_lines", "node_planes"}  # between kinks
OWN_PATTERN = re.compile(
    r"(t|s|w|r|f|c|row|twice|pairs|batches|lanes|padded|of_lane|copy|sums|start|stop|base|stride|begin|weights|node|bound)\d*$|.*_full$|field_.*|shared_.*|kink_.*|weight_.*|node_of_.*|(PLACKETT4|PHI2|PHI3)_.*"
)
"""Temporaries, sums, row indices, gathered values, weights, rows, nodes and offsets."""


def safe_names(
    dynamics: Dynamics, outputs: Sequence[tuple[Quantity, sympy.Expr]]
) -> tuple[Dynamics, list[tuple[Quantity, sympy.Expr]], dict[sympy.Symbol, sympy.Symbol]]:
    """Return a Dynamics and outputs that mean the same, with every name safe to appear in a kernel's source.

    The last value returned tells the sizes' names before, for those that were renamed.

    Raises
    ------
    ValueError
        If one symbol is both an index and a size: no renaming can tell them apart.
    """
    expressions = [e.expr for e in dynamics.equations] + [expr for _, expr in outputs]
    quantities = (*dynamics.states, *dynamics.parameters, *(e.quantity for e in dynamics.observables))
    quantities += tuple(q for q, _ in outputs)
    laws = [law.expr for _, law in (*dynamics.covariance, *dynamics.mean)]
    indices = {i for q in quantities for i in q.indices} | {i for e in (*expressions, *laws) for i in _bound(e)}
    sizes = {s for q in quantities for s in q.shape}
    if indices & sizes:
        raise ValueError(f"{', '.join(sorted(map(str, indices & sizes)))} is both an index and a size")
    taken = {str(i) for i in indices} | {str(s) for s in sizes}
    new: dict[sympy.Basic, sympy.Basic] = {}
    for symbol in sorted(indices | sizes, key=str):
        if not _safe(str(symbol)):
            new[symbol] = sympy.Symbol(_free(str(symbol), taken), **symbol.assumptions0)
    names: dict[str, str] = {}
    for q in quantities:
        if q.name not in names:
            names[q.name] = q.name if _safe(q.name) and q.name not in taken else _free(q.name, taken)
            taken.add(names[q.name])
    for q in quantities:
        if names[q.name] != q.name:
            new[q.base] = replace(q, name=names[q.name]).base

    def renamed_quantity(q: Quantity) -> Quantity:
        swap = {old: fresh for old, fresh in new.items() if isinstance(old, sympy.Symbol)}
        return replace(
            q,
            name=names[q.name],
            indices=tuple(swap.get(i, i) for i in q.indices),
            shape=tuple(swap.get(s, s) for s in q.shape),
        )

    def renamed(equations: Sequence[Equation]) -> tuple[Equation, ...]:
        return tuple(replace(e, quantity=renamed_quantity(e.quantity), expr=e.expr.xreplace(new)) for e in equations)

    safe = Dynamics(
        dynamics.title,
        dynamics.kind,
        dynamics.clock,
        renamed(dynamics.drift),
        tuple(map(renamed_quantity, dynamics.parameters)),
        renamed(dynamics.observables),
        tuple(
            replace(f, size=sympy.sympify(f.size).xreplace(new), shape=tuple(new.get(n, n) for n in f.shape))
            for f in dynamics.families
        ),
        tuple((families, block.xreplace(new)) for families, block in dynamics.covariance),
        tuple((family, law.xreplace(new)) for family, law in dynamics.mean),
    )
    before = {fresh: old for old, fresh in new.items() if old in sizes}
    return safe, [(renamed_quantity(q), expr.xreplace(new)) for q, expr in outputs], before


def _safe(name: str) -> bool:
    reserved = keyword.iskeyword(name) or hasattr(builtins, name) or name in OWN_NAMES or name in TEXTS
    return not reserved and not OWN_PATTERN.match(name) and name.isidentifier() and f"math.{name}" not in LIBRARY


def _free(name: str, taken: set[str]) -> str:
    name = re.sub(r"\W", "_", name) or "_"
    while not _safe(name) or name in taken:
        name += "_"
    return name


def _bound(expr: sympy.Expr) -> set[sympy.Symbol]:
    return {limit[0] for s in expr.atoms(sympy.Sum) for limit in s.limits}
