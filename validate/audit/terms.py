"""The derivation's own terms, one product each, and the groups of them in which people make the same mistake."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import sympy

from effdyn.derive import Dynamics, Equation, Joint, Moment
from effdyn.derive.export.printer import PlainPrinter
from effdyn.derive.increments import NOISE

Limits = tuple[sympy.Tuple, ...]


@dataclass(frozen=True)
class OwnTerm:
    """One product of an equation: ``Σ_limits body``, with every factor inside the sum."""

    dynamics: Dynamics
    equation: Equation
    limits: Limits
    body: sympy.Expr

    @cached_property
    def expr(self) -> sympy.Expr:
        """The term as one expression."""
        return summed(self.body, self.limits)

    @property
    def free(self) -> tuple[sympy.Symbol, ...]:
        """The indices of its equation."""
        return self.equation.quantity.indices

    @cached_property
    def ranges(self) -> dict[sympy.Symbol, sympy.Expr]:
        """How far each index in it runs."""
        own = dict(zip(self.free, self.equation.quantity.shape, strict=True))
        return own | {dummy: last for dummy, _, last in self.limits}

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        """Its Gaussian moments."""
        return tuple(sorted(self.body.atoms(Moment), key=sympy.default_sort_key))

    @cached_property
    def weights(self) -> tuple[sympy.Indexed, ...]:
        """Its factors that are entries of arrays, outside the moments."""
        outside = sympy.Mul(*(f for f in sympy.Mul.make_args(self.body) if not f.has(Moment, Joint)))
        return tuple(sorted(outside.atoms(sympy.Indexed), key=str))

    def power(self, symbol: sympy.Symbol) -> sympy.Expr:
        """Return the power of a scalar in its coefficient."""
        return sympy.Mul(*(f for f in sympy.Mul.make_args(self.body) if f.has(symbol))).as_powers_dict()[symbol]

    def with_body(self, body: sympy.Expr) -> sympy.Expr:
        """Return the term with another body."""
        return summed(body, self.limits)

    def __str__(self) -> str:
        return text(self.dynamics, self.expr)


def text(dyn: Dynamics, expr: sympy.Basic) -> str:
    """Return an expression as it is printed, with moments by their names."""
    if not isinstance(expr, sympy.Expr):
        return str(expr)
    scalars = [q.name for q in dyn.parameters if not q.indices]
    if isinstance(expr, sympy.Sum):  # what does not depend on the sums' indices stands in front
        outside, inside = expr.function.as_independent(*(s for s, *_ in expr.limits), as_Add=False)
        expr = outside * sympy.Sum(inside, *expr.limits)
    try:
        return str(PlainPrinter(["eta", *scalars]).doprint(dyn.named(expr)))
    except KeyError:  # a moment that the equations do not have
        return str(PlainPrinter(["eta", *scalars]).doprint(expr))


def summed(body: sympy.Expr, limits: Limits) -> sympy.Expr:
    """Return ``Σ body``."""
    return sympy.Sum(body, *limits) if limits else body


def own_terms(dyn: Dynamics, equation: Equation) -> tuple[OwnTerm, ...]:
    """Return the terms of an equation."""
    return tuple(
        OwnTerm(dyn, equation, limits, body)
        for part in _summands(dyn, equation.expr)
        for limits, body in [_inside(part)]
        if body != 0
    )


def _summands(dyn: Dynamics, expr: sympy.Expr) -> Iterator[sympy.Expr]:
    """Yield the parts that are added, also those of an expectation over all fields."""
    for part in sympy.Add.make_args(sympy.expand(expr, deep=False)):
        joints = part.atoms(Joint)
        inner = sympy.Add.make_args(next(iter(joints)).args[0]) if len(joints) == 1 else ()
        if part.is_Add or len(inner) < 2:
            yield part
            continue
        (joint,) = joints
        for summand in inner:
            random = {s for s in summand.atoms(sympy.Indexed) if str(s.base) in {str(f.base) for f in dyn.families}}
            outside, inside = summand.as_independent(*random, NOISE, sympy.Sum, as_Add=False)
            yield part.xreplace({joint: outside * Joint(inside)})


def _inside(part: sympy.Expr) -> tuple[Limits, sympy.Expr]:
    """Return a product with at most one sum as the sum's limits and all factors."""
    sums = [f for f in sympy.Mul.make_args(part) if isinstance(f, sympy.Sum)]
    if len(sums) != 1:
        return (), part
    return sums[0].limits, sympy.Mul(*(f for f in sympy.Mul.make_args(part) if f not in sums), sums[0].function)


@dataclass(frozen=True, slots=True)
class Group:
    """Terms of one equation that may share a mistake, with what they have in common."""

    name: str
    members: tuple[int, ...]


def groups_of(terms: tuple[OwnTerm, ...]) -> tuple[Group, ...]:
    """Return each term alone, then pairs, then larger groups, all of them last; each set of terms once."""
    found: dict[tuple[int, ...], str] = {(n,): f"the term {term}" for n, term in enumerate(terms)}
    for name, members in _candidates(terms):
        if members:
            found.setdefault(tuple(members), name)
    return tuple(Group(name, members) for members, name in found.items())


def _candidates(terms: tuple[OwnTerm, ...]) -> Iterator[tuple[str, list[int]]]:
    if not terms:
        return
    numbers = range(len(terms))
    yield "all terms", list(numbers)
    for n, partner in enumerate(map(_transposed, terms)):
        same = [m for m in numbers if terms[m].expr == partner]
        if same and same[0] > n:
            yield f"the term {terms[n]} and its transpose", [n, same[0]]
    labels = [_labels(term) for term in terms]
    kinds = list(dict.fromkeys(kind for of_one in labels for kind in of_one))
    for kind in kinds:
        for value in dict.fromkeys(of_one[kind] for of_one in labels if kind in of_one):
            members = [n for n in numbers if labels[n].get(kind) == value]
            if len(members) > 1:
                yield value, members


def _labels(term: OwnTerm) -> dict[str, str]:
    """Return what a term may have in common with others, by the kind of it."""
    found = {}
    for q in term.dynamics.parameters:
        if not q.indices and (power := term.power(q.base)) != 0:
            found[f"power of {q.name}"] = f"the {text(term.dynamics, q.base**power)} terms"
    sums = ", ".join(sorted({str(last) for *_, last in term.limits}))
    if sums:
        found["sums"] = f"the terms with sums to {sums}"
    if term.moments:
        call = term.dynamics.named(term.moments[0])
        found["moment"] = f"the {call.func} terms"
        found["first"] = f"the {call.func}({call.args[0]}, ...) terms"
    return found


def _transposed(term: OwnTerm) -> sympy.Expr | None:
    """Return the term with the two indices of a symmetric equation exchanged."""
    if not term.equation.quantity.symmetric:
        return None
    return exchange(term.expr, *term.free)


def exchange(expr: sympy.Expr, one: sympy.Symbol, other: sympy.Symbol) -> sympy.Expr:
    """Return an expression with two indices exchanged."""
    between = sympy.Dummy(integer=True, positive=True)
    moved = rebuilt(expr, {one: between})
    return rebuilt(rebuilt(moved, {other: one}), {between: other})


def rebuilt(expr: sympy.Expr, swap: dict[sympy.Basic, sympy.Basic]) -> sympy.Expr:
    """Return an expression with symbols replaced, its moments in canonical order again."""
    return expr.xreplace(swap).replace(Moment, lambda *factors: Moment(*factors))


def index_symbols(exprs: Iterable[sympy.Expr], extra: Iterable[sympy.Symbol]) -> set[sympy.Symbol]:
    """Return every index that is summed over in some expressions, and the extra ones."""
    return {limit[0] for e in exprs for s in e.atoms(sympy.Sum) for limit in s.limits} | set(extra)
