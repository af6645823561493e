"""Expectations over all fields at once as sums over the nodes of a rule, and where the fields lie at these nodes.

E[G] becomes Σ_s w_s G(h(s)) with h_f(s) = m_f + Σ_g L_fg z_g(s), L the lower Cholesky factor of the covariance of all
fields. Teachers come first, before them a linear teacher's output where it occurs: its sign is then a function of one
coordinate of the nodes, where rules can be made exact. Knows nothing of loops.
"""

from collections.abc import Mapping, Sequence

import sympy

from effdyn.derive import Dynamics, FieldFamily
from effdyn.derive.increments import NOISE
from effdyn.derive.moments import Joint, Value
from effdyn.derive.numerical.quadrature import LEADING, LINE, NODES, has_leading_field
from effdyn.derive.numerical.stable import stable

from .kinks import Choice
from .split_lines import SPLIT_SOURCES
from .sums import SymmetricSum

NODE = sympy.Symbol("node", integer=True, positive=True)
"""The number of a node."""
WEIGHT = sympy.IndexedBase("weight_joint", real=True)
NOISE_NODES = sympy.IndexedBase("noise", real=True)
"""The label noise at the nodes."""
ALL_FIELDS = sympy.Symbol("ALL_FIELDS", integer=True, positive=True)
"""The number of all fields over which rules run, a linear teacher's output among them."""
OWN_FIELDS = sympy.Symbol("OWN_FIELDS", integer=True, positive=True)
"""The number of those of them that are not at their means given the others."""
COLUMNS = sympy.Symbol("COLUMNS", integer=True, positive=True)
"""The number of independent ones, which is that of the coordinates of a node."""
NODE_SIZES = frozenset({LINE, NODES})

CHOLESKY = '''
@njit(error_model="numpy")
def cholesky(a, start, n, own, columns):
    """Replace the covariance of n fields by a lower triangular factor of that of the first, their own, in place, and
    the covariance of the others with them by its regression: they are then at their means given these.

    A field that is a combination of those before it has a pivot that vanishes up to rounding, and a column of zeros;
    the first own − columns such fields have no column at all. Pivots down to −1e-5 of the variance are taken for zero,
    since integrators step slightly beyond the edge of the admissible states; lower ones give NaN.
    """
    spare = own - columns
    tiny = 2e-15 * n if spare == 0 else 1e-12
    c = 0
    for j in range(own):
        variance = a[start + j * n + j]
        pivot = variance
        for g in range(c):
            pivot -= a[start + j * n + g] * a[start + j * n + g]
        if pivot < -1e-5 * variance or variance < 0.0 or c == columns and pivot > 1e-5 * variance:
            pivot = math.nan
        zero = pivot <= tiny * variance or c == columns
        if zero and spare > 0:
            spare -= 1
            for g in range(c, n):
                a[start + j * n + g] = 0.0
            continue
        root = 0.0 if zero else math.sqrt(pivot)
        for f in range(j + 1, n):
            rest = a[start + f * n + j]
            for g in range(c):
                rest -= a[start + f * n + g] * a[start + j * n + g]
            a[start + f * n + c] = 0.0 if zero else rest / root
        for g in range(c, n):
            a[start + j * n + g] = 0.0
        a[start + j * n + c] = root
        c += 1
'''

FIELDS = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"})
def fields_at_nodes(work, field, mean, factor, par, node, n, columns, nodes):
    """Write the n fields at all nodes, field after field: h = mean + factor z."""
    for f in range(n):
        for s in range(nodes):
            work[field + f * nodes + s] = work[mean + f]
        for g in range(min(f + 1, columns)):
            slope = work[factor + f * n + g]
            for s in range(nodes):
                work[field + f * nodes + s] += slope * par[node + g * nodes + s]
'''

NODES_SOURCES: dict[str, str] = {"cholesky": CHOLESKY, "fields_at_nodes": FIELDS, **SPLIT_SOURCES}
"""Source texts, by name."""


def ordered_families(dynamics: Dynamics) -> tuple[FieldFamily, ...]:
    """Return the families over which rules for all fields run, in the order of their nodes' coordinates."""
    leading = [family for family in dynamics.families if family.base == LEADING] if has_leading_field(dynamics) else []
    given = (family for family in dynamics.families if family.given)
    return (*leading, *(family for family in reversed(dynamics.families) if not family.derived), *given)


def number_of_columns(families: Sequence[FieldFamily]) -> sympy.Expr:
    """Return the number of independent fields among those of these families."""
    return sympy.Add(*(family.independent for family in families))


def field_at_nodes(family: str) -> sympy.IndexedBase:
    """Return what stands for the fields of a family at the nodes: its indices are the field's, then the node's."""
    return sympy.IndexedBase(f"field_{family}", real=True)


def sum_over_nodes(expr: sympy.Expr, families: Sequence[FieldFamily]) -> sympy.Expr:
    """Return ``expr`` with every :class:`Joint` expectation as a weighted sum over nodes."""
    return expr.replace(Joint, lambda g: sympy.Sum(WEIGHT[NODE] * at_node(g, families), (NODE, 1, NODES)))


def at_node(integrand: sympy.Expr, families: Sequence[FieldFamily]) -> sympy.Expr:
    """Return an expression in fields and the label noise at a node."""
    choose = (lambda e: isinstance(e, sympy.Piecewise), Choice.of)
    bases = {family.base: field_at_nodes(str(family.base)) for family in families}
    plain = integrand.replace(SymmetricSum, lambda f, a, b, n: sympy.Sum(f, (b, 1, n), (a, 1, n)))
    plain = plain.replace(
        Value, lambda g, field: stable(g.function.expr).replace(*choose).xreplace({g.function.variables[0]: field})
    )
    plain = stable(plain).replace(*choose)
    fields = {e: bases[e.base][(*e.indices, NODE)] for e in plain.atoms(sympy.Indexed) if e.base in bases}
    return plain.xreplace({**fields, NOISE: NOISE_NODES[NODE]})


def rename_nodes(expr: sympy.Expr) -> sympy.Expr:
    """Return ``expr`` with the indices of sums over nodes under names of their own, which collide with no other.

    Sums in one another (a rule over two fields) get different names, the innermost the first.
    """
    if not expr.args or isinstance(expr, sympy.Indexed):
        return expr
    expr = expr.func(*map(rename_nodes, expr.args))
    if not isinstance(expr, sympy.Sum) or not any(limit[2] in NODE_SIZES for limit in expr.limits):
        return expr
    taken = {limit[0] for s in expr.function.atoms(sympy.Sum) for limit in s.limits if limit[2] in NODE_SIZES}
    new: dict[sympy.Basic, sympy.Symbol] = {}
    for index, _, size in expr.limits:
        if size in NODE_SIZES:
            new[index] = next(n for n in map(_node, range(9)) if n not in taken | set(new.values()))
    return expr.xreplace(new)


def _node(depth: int) -> sympy.Symbol:
    return sympy.Symbol(f"node{depth or ''}", integer=True, positive=True)


def rename_bound(
    covariance: Mapping[tuple[str, str], sympy.Lambda],
) -> dict[tuple[str, str], sympy.Lambda]:
    """Return covariances whose own summation indices collide with no index of an equation."""

    def renamed(block: sympy.Lambda) -> sympy.Lambda:
        bound = [limit[0] for s in sorted(block.expr.atoms(sympy.Sum), key=str) for limit in s.limits]
        distinct = dict.fromkeys(bound)
        new = {i: sympy.Symbol(f"bound{n}", integer=True, positive=True) for n, i in enumerate(distinct)}
        return block if not new else sympy.Lambda(block.variables, block.expr.xreplace(new))

    return {families: renamed(block) for families, block in covariance.items()}
