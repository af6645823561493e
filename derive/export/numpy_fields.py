"""The covariances and means of all local fields as NumPy code, and the fields themselves at the nodes of a rule."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sympy

from ..moments import Joint
from ..numerical.quadrature import BUNDLE, LEADING, LINE, TEACHER, has_leading_field, rule_of
from ..numerical.switches import switches_of
from .einsum import Einsum

if TYPE_CHECKING:
    from ..dynamics import Dynamics, Equation


def covariance_lines(dyn: "Dynamics", writer: Einsum) -> list[str]:
    """Return the lines that number all fields one after another and put their covariances into one matrix."""
    lines, offset = ["    # all local fields, numbered one family after another, and their covariances"], ""
    for family in dyn.families:
        end = f"{offset} + {family.size}" if offset else str(family.size)
        lines.append(f"    {family.base} = np.arange({offset or 0}, {end})")
        offset = end
    axes = {str(family.base): family.axes for family in dyn.families}
    derived = {str(family.base) for family in dyn.families if family.derived}
    blocks: dict[tuple[str, str], str] = {}
    for (f, g), overlap in dyn.covariance:
        blocks[f, g] = _block(writer, overlap, axes[f], axes[g])
        if {f, g} & derived:
            lines.append(f"    C_{f}_{g} = {blocks[f, g]}")
            blocks[f, g] = f"C_{f}_{g}"
        blocks.setdefault((g, f), f"{blocks[f, g]}.T")
    names = [str(family.base) for family in dyn.families]
    rows = ", ".join(f"[{', '.join(blocks[f, g] for g in names)}]" for f in names)
    lines.append(f"    C = np.block([{rows}])")
    if dyn.mean:
        means = dict(dyn.mean)
        parts = [
            _block(writer, means[name], axes[name]) if name in means else f"np.zeros({sympy.Mul(*axes[name])})"
            for name in names
        ]
        lines.append(f"    mean = np.concatenate([{', '.join(parts)}])")
    return lines


def _block(writer: Einsum, entry: sympy.Lambda, *families: tuple[sympy.Expr, ...]) -> str:
    """Return the code of the covariances (or means) of one family with another, an axis for each family."""
    letters = [s for names, own in zip(("ig", "kf"), families, strict=False) for s in _letters(names, len(own))]
    sizes = tuple(size for own in families for size in own)
    known = dict(writer.sizes)
    writer.sizes |= dict(zip(letters, sizes, strict=True))
    expr = _signs_in_front(entry(*letters))
    free = [index for index, size in zip(letters, sizes, strict=True) if size != 1]
    terms = [writer.term(t, free) for t in sympy.Add.make_args(expr)]
    writer.sizes = known
    signed = [f"{'-' if negative else '+'} {code}" for negative, code in terms]
    code = re.sub("^- ", "-", " ".join(signed).removeprefix("+ "))
    whole = len(sizes) == len(families)  # no family has several indices
    if whole and all(size != 1 for size in sizes) and len(terms) == 1:
        return code
    if whole and len(free) == len(sizes):
        return f"({code})"
    shape = ", ".join(str(sympy.Mul(*own)) for own in families)
    return f"np.reshape({code}, {f'({shape})' if len(families) > 1 else shape})"


def _letters(names: str, count: int) -> tuple[sympy.Symbol, ...]:
    """Return the indices of a field: i, or g and i of a part in a block."""
    return tuple(sympy.Symbol(name, integer=True, positive=True) for name in names[:count][::-1])


def _signs_in_front(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the numbers in its sums before them."""

    def outside(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        number, rest = summand.as_coeff_Mul()
        return number * sympy.Sum(rest, *limits)

    return expr.replace(sympy.Sum, outside)


def node_lines(dyn: "Dynamics", equations: "Sequence[Equation]", writer: Einsum) -> list[str]:
    """Return the lines that draw all fields at the nodes of the rule: the teacher's first, as the rule expects.

    A linear teacher's output, where it occurs, leads; it is a combination of the others and has no node of its own.
    """
    kind = rule_of(dyn, equations)
    noise = next(t.noise for t in dyn.tables if t.kind == kind and t.shape[0] != LINE)
    leading = [f for f in dyn.families if f.base == LEADING] if has_leading_field(dyn) else []
    families = leading + sorted((f for f in dyn.families if not f.derived), key=lambda f: str(f.base) != TEACHER)
    columns = f"len(order) - {len(leading)}" if leading else "len(order)"
    names = ", ".join(str(f.base) for f in families)
    fields = ", ".join(f"fields[:, {f.base}]" + "[:, 0]" * (f in leading) for f in families)
    order = f"    order = np.concatenate([{names}])"
    if kind in BUNDLE:
        places = f"{names} = {fields}"
        lines = [order, *_split_lines(dyn, equations, writer, kind, noise, columns, len(leading), places)]
        return [*lines, *_given_lines(dyn, "points")]
    lines = [
        "    # all fields at the nodes of a rule over as many standard normal variables",
        order,
        f"    nodes, weights = joint_rule({columns}{' + 1' if noise else ''}, {kind!r})",
        "    fields = np.zeros((len(nodes), len(C)))",
        f"    fields[:, order] = nodes[:, : {columns}] @ cholesky(C[np.ix_(order, order)], {len(leading)}).T",
        *(["    fields += mean"] if dyn.mean else []),
        *(["    zeta = nodes[:, -1]"] if noise else []),
    ]
    return [*lines, f"    {names} = {fields}", *_given_lines(dyn, "fields")]


def _given_lines(dyn: "Dynamics", at: str) -> list[str]:
    """Return the lines that put fields on which no function depends to their means given the others."""
    given = [f for f in dyn.families if f.given]
    if not given:
        return []
    centred = f"{at}[:, order]" if at == "fields" else f"{at}[:, : len(order)]"
    names = ", ".join(str(f.base) for f in given)
    lines = [
        "    # fields on which no function depends, at their means given the others: the integrands are linear in them",
        f"    given = np.concatenate([{names}])",
        "    told = np.linalg.pinv(C[np.ix_(order, order)], hermitian=True) @ C[np.ix_(order, given)]",
    ]
    if dyn.mean:
        lines.append(f"    fields[:, given] = mean[given] + ({centred} - mean[order]) @ told")
    else:
        lines.append(f"    fields[:, given] = {centred} @ told")
    parts = (f"np.reshape(fields[:, {f.base}], (-1, {', '.join(map(str, f.axes))}))" for f in given)
    return [*lines, f"    {names} = {', '.join(parts)}"]


def _split_lines(
    dyn: "Dynamics",
    equations: "Sequence[Equation]",
    writer: Einsum,
    kind: str,
    noise: bool,
    columns: str,
    spare: int,
    places: str,
) -> list[str]:
    """Return the lines that draw all fields at nodes between the kinks of the integrands."""
    integrands = [joint.args[0] for e in equations for joint in sorted(e.expr.atoms(Joint), key=str)]
    switches = switches_of(integrands, [(str(f.base), f.size) for f in dyn.families]) or ()
    values, groups = [], []
    for number, switch in enumerate(switches):
        for level in switch.levels:
            code = writer.joint.write(switch.expr - level).code
            values.append(f"({code})[:, None]" if switch.size == 1 else code)
            groups.append(f"[{1000 * number}]" if switch.size == 1 else f"{1000 * number} + np.arange({switch.size})")
    mean = "mean[order]" if dyn.mean else "np.zeros(len(order))"
    at = [
        "fields = np.zeros((len(points), len(C)))",
        "fields[:, order] = points[:, : len(order)]",
        *(["zeta = points[:, -1]"] if noise else []),
        places,
    ]
    return [
        "    # all fields at nodes along lines, in pieces between the places where these functions of them vanish",
        "",
        f"    def switches(points, {', '.join(f'{name}={name}' for name in places.partition(' = ')[0].split(', '))}):",
        *(f"        {line}" for line in at),
        "        functions = []",
        *(f"        functions += [{value}]" for value in values),
        "        return np.concatenate(functions, axis=1)",
        "",
        f"    groups = np.concatenate([{', '.join(groups)}])",
        f"    factor, mean_of_all = cholesky(C[np.ix_(order, order)], {spare}), {mean}",
        *(_WITH_NOISE if noise else []),
        f"    bundle = bundle_rule(factor.shape[1] - {1 if kind == 'lines' else 2}, {kind!r})",
        f"    points, weights = split_nodes(switches, groups, mean_of_all, factor, bundle, piece_rule({kind!r}))",
        *(f"    {line}" for line in at),
    ]


_WITH_NOISE = [
    "    factor = np.concatenate([factor, np.zeros((1, factor.shape[1]))])",
    "    factor = np.concatenate([factor, np.eye(len(factor))[:, -1:]], axis=1)",
    "    mean_of_all = np.append(mean_of_all, 0.0)",
]
