"""Student and teacher fields in one loop: sums over families that differ only by the family become one sum over all
fields.

Σ_j u_j I(…, h_j) + Σ_n v_n I(…, h*_n) = Σ_f c_f I(…, h_f) with c = (u, v), and likewise the three double sums of a
squared error. All overlaps then live in one symmetric matrix C over all fields, in the order of the families. Only
sums that match are touched; the rest, such as those of a teacher with an activation of its own, stay as they are.
Knows nothing of loops or memory.
"""

from dataclasses import dataclass, field

import sympy

from effdyn.derive import Dynamics, FieldFamily, Moment
from effdyn.derive.moments import Joint

GRAM = sympy.IndexedBase("C", real=True)
"""The overlaps of all vectors, family after family."""
ANY_FIELD = sympy.IndexedBase("h_any", real=True)
"""A local field of any family."""
ALL = sympy.Symbol("N", integer=True, positive=True)
"""The number of all fields."""
F, G = (
    sympy.Symbol(name, integer=True, positive=True) for name in "uv"
)  # behind i, k, n, r in the alphabet: the last, contiguous index of a symmetric array


@dataclass(slots=True)
class Fusion:
    """The fields of a Dynamics as one family, and the weights that its sums turned out to need.

    Attributes
    ----------
    families : tuple of FieldFamily
    covariance : dict
        The covariance of any two fields, by family, as an element of :data:`GRAM`.
    composite : tuple of ((str, str), Lambda)
        The blocks of it that are no plain arrays, and are computed.
    weights : dict
        For each weight array c: its values over the first and over the second family, as functions of the index
        :data:`F`.
    """

    families: tuple[FieldFamily, ...]
    covariance: dict[tuple[str, str], sympy.Lambda]
    composite: tuple[tuple[tuple[str, str], sympy.Lambda], ...] = ()
    weights: dict[tuple[sympy.Expr, sympy.Expr], sympy.IndexedBase] = field(default_factory=dict)

    def weight(self, first: sympy.Expr, second: sympy.Expr) -> sympy.IndexedBase:
        """Return the weight array with these values."""
        name = f"c{len(self.weights) or ''}"
        return self.weights.setdefault((first, second), sympy.IndexedBase(name, real=True))


def fusion(dynamics: Dynamics) -> Fusion | None:
    """Return the fields of a Dynamics as one family; ``None`` if they have means. Derived families stay outside: their
    covariance is kept as it is."""
    families = tuple(family for family in dynamics.families if not family.derived)
    derived = {str(family.base) for family in dynamics.families if family.derived}
    blocks = [(pair, block) for pair, block in dynamics.covariance if not derived & set(pair)]
    if len(families) != 2 or dynamics.mean:
        return None
    offsets = {
        str(families[0].base): sympy.S.Zero,
        str(families[1].base): families[0].size,
        str(ANY_FIELD): sympy.S.Zero,
    }
    covariance = {(f, g): sympy.Lambda((F, G), GRAM[F + offsets[f], G + offsets[g]]) for f in offsets for g in offsets}
    composite = tuple((pair, block) for pair, block in blocks if not is_plain(block))
    return Fusion(families, dict(dynamics.covariance) | covariance, composite)


def is_plain(block: sympy.Lambda) -> bool:
    """Return whether a covariance of two families is one array of order parameters, as it is."""
    return isinstance(block.expr, sympy.Indexed) and block.expr.indices == tuple(block.variables)


def is_weighted(block: sympy.Lambda) -> bool:
    """Return whether a covariance is Σ_g λ_g Ω_g,fg: arrays of overlaps, added up with weights."""
    expr = block.expr
    if not (isinstance(expr, sympy.Sum) and len(expr.limits) == 1):
        return False
    index = expr.limits[0][0]
    return {e.indices for e in sympy.Mul.make_args(expr.function) if isinstance(e, sympy.Indexed)} == {
        (index,),
        (index, *block.variables),
    }


def overlaps_in(block: sympy.Lambda) -> sympy.IndexedBase:
    """Return the array of overlaps of which a covariance is made, plain or weighted."""
    (overlaps,) = {e.base for e in block.expr.atoms(sympy.Indexed) if e.indices[-2:] == tuple(block.variables)}
    return overlaps


def fuse_sums(expr: sympy.Expr, fused: Fusion) -> sympy.Expr:
    """Return ``expr`` with matching sums over the two families made one."""
    groups: dict[sympy.Expr, dict[int, _WeightedSum]] = {}
    rest = []
    for term in sympy.Add.make_args(expr):
        parsed = _parse(term, fused)
        if parsed is None or parsed.second in groups.get(parsed.template, {}):
            rest.append(term)
        else:
            groups.setdefault(parsed.template, {})[parsed.second] = parsed
    for template, members in groups.items():
        joined = _join(template, members, fused)
        rest += [joined] if joined is not None else [m.term for m in members.values()]
    return sympy.Add(*rest)


@dataclass(frozen=True, slots=True)
class _WeightedSum:
    """``outside · Σ weights · moment``: the moment with its summed fields replaced is the template; ``second`` of them
    are of the second family."""

    term: sympy.Expr
    outside: sympy.Expr
    weights: tuple[sympy.Expr, ...]  # of each summed field, as functions of F; first family first
    template: sympy.Expr
    second: int


def _parse(term: sympy.Expr, fused: Fusion) -> _WeightedSum | None:
    sums = [f for f in sympy.Mul.make_args(term) if isinstance(f, sympy.Sum)]
    if len(sums) != 1:
        return None
    outside = term / sums[0]
    limits = sorted(sums[0].limits, key=lambda limit: limit[2] != fused.families[0].size)
    factors = sympy.Mul.make_args(sums[0].function)
    moments = [f for f in factors if isinstance(f, Moment)]
    if len(moments) != 1 or outside.has(sympy.Sum, Moment, Joint) or len(limits) > 2 or sums[0].has(Joint):
        return None
    if not {f.base for f in moments[0].fields} <= {family.base for family in fused.families}:
        return None
    indices = {limit[0] for limit in limits}
    if any(f not in moments and not f.free_symbols & indices for f in factors):
        return None  # it belongs outside the sum, where it would be looked for
    placeholders: dict[sympy.Basic, sympy.Basic] = {}
    weights = []
    for (index, _, size), placeholder in zip(limits, (F, G), strict=False):
        family = next((f for f in fused.families if f.size == size), None)
        weight = sympy.Mul(*(f for f in factors if index in f.free_symbols and not isinstance(f, Moment)))
        if (
            family is None
            or _bound(weight) - {index}  # an array of weights cannot depend on the equation's indices
            or moments[0].fields.count(family.base[index]) != 1
        ):
            return None
        weights.append(weight.xreplace({index: F}))
        placeholders[family.base[index]] = ANY_FIELD[placeholder]
    template = moments[0].xreplace(placeholders)
    if template.free_symbols & indices or len(placeholders) != len(limits):
        return None
    if len(limits) == 2:  # the order of two equal fields says nothing
        template = min(template, template.xreplace({F: G, G: F}), key=sympy.default_sort_key)
    return _WeightedSum(
        term, outside, tuple(weights), template, sum(limit[2] == fused.families[1].size for limit in limits)
    )


def _join(template: sympy.Expr, members: dict[int, _WeightedSum], fused: Fusion) -> sympy.Expr | None:
    """Return one sum for all, if the weights factorise: c_f for single sums, c_f c_g for double ones."""
    count = len(next(iter(members.values())).weights)
    if set(members) != set(range(count + 1)):
        return None
    last, middle = members[count], members[count - 1]
    # with the second family's weights v taken as they are, those of the first are r u
    ratio = sympy.cancel(middle.outside / last.outside / count)
    if ratio.atoms(sympy.Indexed) or ratio.free_symbols & _bound(template):
        return None
    u, v = members[0].weights[0], last.weights[0]
    squared = sympy.expand(members[0].outside - last.outside * ratio**2) == 0
    if count == 2 and not (squared and middle.weights == (u, v)):
        return None
    if any(len(set(m.weights)) > 1 for m in (members[0], last)):
        return None
    c = fused.weight(ratio * u, v)
    weights = sympy.Mul(*(c[f] for f in (F, G)[:count]))
    return last.outside * sympy.Sum(weights * template, *((f, 1, ALL) for f in (F, G)[:count]))


def _bound(template: sympy.Expr) -> set[sympy.Basic]:
    return {index for e in template.atoms(sympy.Indexed) for index in e.indices}
