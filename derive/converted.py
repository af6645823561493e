"""Equations in another convention: substitution of quantities, sizes and indices, and rescaled time.

The relations are those of a :class:`.convention.Convention`; knows nothing of any particular paper.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import sympy

from .activation import X
from .convention import SIZES, UNCHANGED, Convention, Relation
from .dynamics import TIME, Dynamics, Equation, Quantity, Step
from .errors import Described, ModelError, NotYet
from .increments import D
from .limits import WIDE_CLOCK
from .moments import Joint, Moment, Univariate, Value
from .schedule import PACE, SCHEDULE, parameters_of
from .teacher_student import TeacherStudent

_RATIOS = {"eta_a_over_eta": "eta_a", "kappa_over_eta": "kappa"}
"""Parameters of gradient flow that are another one over eta."""
Rewrite = Callable[[sympy.Expr], sympy.Expr]
_INTEGER = {"integer": True, "positive": True}


def converted(convention: Convention, dynamics: Dynamics) -> Dynamics:
    """Return a Dynamics in a convention: see :meth:`.convention.Convention.convert`."""
    if not isinstance(dynamics.model, TeacherStudent):
        raise ModelError("dynamics", Described(dynamics.title), "equations derived from a TeacherStudent")
    if dynamics.kind not in ("ode", "map"):
        raise NotYet(f"equations of kind {dynamics.kind!r} in other conventions", "differential equations and maps")
    relations = convention.relations(dynamics.model.output_scale)
    _check_has(convention, relations, dynamics)
    rewrite = _rewriting(convention, relations, dynamics)
    rate = _time_factor(convention, relations, dynamics)

    def moved(e: Equation) -> Equation:
        factor = relations[e.quantity.name].factor  # of overlaps and second layers, which no law gives a power
        return replace(e, quantity=rename(e.quantity), expr=_times(rate / factor, rewrite(e.expr)))

    def observed(e: Equation) -> Equation:
        factor = relations[e.quantity.name].factor if e.quantity.name in relations else sympy.S.One
        return replace(e, quantity=rename(e.quantity), expr=_times(1 / factor, rewrite(e.expr)))

    def rename(q: Quantity) -> Quantity:
        return _renamed(q, convention)

    drift, observables = tuple(map(moved, dynamics.drift)), tuple(map(observed, dynamics.observables))
    equations = drift + observables
    return replace(
        dynamics,
        title=f"{dynamics.title}; in the convention of {convention.title}",
        clock=convention.clock,
        drift=drift,
        observables=observables,
        parameters=_parameters(convention, relations, dynamics, equations),
        families=tuple(
            replace(f, size=rewrite(f.size), latex=dict(convention.letters).get(str(f.base), f.latex))
            for f in dynamics.families
        ),
        covariance=_covariance(convention, dynamics, rewrite),
        steps=tuple(_setting(convention, relations, step, rewrite) for step in dynamics.steps[:1]),
        dropped=(),
        model=None,
        limit="",
        method="auto",
    )


def _setting(convention: Convention, relations: Mapping[str, Relation], step: Step, rewrite: Rewrite) -> Step:
    """Return the network, the target, the loss and the update in the paper's units: the first step of a derivation."""
    weight, d = sympy.IndexedBase("w"), convention.symbol(convention.named("d"))
    field = convention.formula("field_scale")
    length = field * sympy.sqrt(d) / convention.formula("normalisation")
    units = {"w": length, "a": relations["a"].factor, "ell": 1 / convention.formula("loss_factor")}

    def in_units(left: sympy.Basic, right: sympy.Expr) -> tuple[sympy.Basic, sympy.Expr]:
        if left == PACE:
            return left, rewrite(right)
        name = str(left.args[0].base) if left.args else str(left)
        right = rewrite(right.xreplace({D: d}))
        right = right.xreplace({v: _stretched(v, field) / field ** v.args[0].args[1] for v in right.atoms(Value)})
        right = right.xreplace({e: length * e for e in right.atoms(sympy.Indexed) if e.base == weight})
        named = rewrite(left) if name == "w" else left.func(rewrite(left.args[0]) / units["a"]) if left.args else left
        return named, _times(1 / units.get(name, sympy.S.One), right)

    explanation = f"{step.explanation} A local field is {_text_of_field(convention)}."
    return Step(
        f"{step.title}, as in {convention.title}", explanation, tuple(in_units(*pair) for pair in step.equations)
    )


def _text_of_field(convention: Convention) -> str:
    """Return ``w·x/√N``: the paper's weights and input, and what it divides their product by."""
    divisor = convention.formula("normalisation")
    if divisor == 1:
        return "w·x"
    root = divisor**2
    return f"w·x/√{root}" if divisor.is_Pow and root.is_Symbol else f"w·x/({divisor})"


def _check_has(convention: Convention, relations: Mapping[str, Relation], dynamics: Dynamics) -> None:
    """Raise a ModelError for a quantity that the convention has not."""
    known = {*relations, *UNCHANGED, "d", *(ratio for ratio, of in _RATIOS.items() if of in relations)}
    timing = {SCHEDULE.name, *(q.name for q in parameters_of(dynamics.model.schedule))}
    if clash := timing & {theirs for _, theirs in convention.names}:
        accepted = f"other names in the schedule: {convention.title} use it for something else"
        raise ModelError("dynamics", Described(f"equations with {', '.join(sorted(clash))}"), accepted)
    for q in (*dynamics.states, *dynamics.parameters, *(e.quantity for e in dynamics.observables)):
        if q.name not in known | timing:
            accepted = f"what {convention.title} have: {', '.join(sorted(known & {*relations}))}"
            raise ModelError("dynamics", Described(f"equations with {q.name}, {q.meaning}"), accepted)
    if stuck := [q.name for q in dynamics.states if not relations[q.name].theirs]:
        raise ModelError("dynamics", Described(f"equations in which {stuck[0]} moves"), "a fixed one, which is 1 there")


def _rewriting(convention: Convention, relations: Mapping[str, Relation], dynamics: Dynamics) -> Rewrite:
    """Return the function that puts the paper's quantities for effdyn's in an expression."""
    swap = _swap(convention, relations, dynamics)
    arrays = {name: relations[name] for name in ("Q", "R", "T", "a", "b") if name in relations}
    field = convention.formula("field_scale")

    def entry(e: sympy.Indexed) -> sympy.Expr:
        relation = arrays.get(str(e.base))
        if relation is None:
            return e
        theirs = sympy.IndexedBase(relation.theirs, real=True)[e.indices] if relation.theirs else sympy.S.One
        return relation.factor * theirs

    def rewrite(expr: sympy.Expr) -> sympy.Expr:
        expr = expr.xreplace(swap)
        found = {e: entry(e) for e in expr.atoms(sympy.Indexed)}
        expr = expr.xreplace(found)
        if field != 1:
            if expr.has(Joint):
                raise NotYet("another field scale in averages over all fields at once", "field_scale 1")
            expr = expr.replace(Moment, lambda *factors: _in_fields(factors, field, dynamics))
        return expr.replace(sympy.Sum, _constants_first)

    return rewrite


def _swap(convention: Convention, relations: Mapping[str, Relation], dynamics: Dynamics) -> dict[Any, sympy.Expr]:
    """Return what stands for each of effdyn's sizes, indices and scalars."""
    sizes = {sympy.Symbol(size, **_INTEGER): convention.symbol(convention.named(size)) for size in SIZES}
    swap: dict[Any, sympy.Expr] = {**_summed_letters(convention, dynamics), **_index_letters(convention), **sizes}
    values = {q: _value(convention, r) for q, r in relations.items() if q in ("eta", "eta_a", "kappa", "sigma")}
    values["d"] = convention.symbol(convention.named("d"))
    swap[TIME] = TIME * _own_time(convention, relations, dynamics)
    values |= {ratio: values[of] / values["eta"] for ratio, of in _RATIOS.items() if of in values}
    return swap | {q.base: values[q.name] for q in dynamics.parameters if q.name in values}


def _value(convention: Convention, relation: Relation) -> sympy.Expr:
    return relation.factor * convention.symbol(relation.theirs) ** relation.power


def _in_fields(factors: Iterable[sympy.Expr], scale: sympy.Expr, dynamics: Dynamics) -> sympy.Expr:
    """Return a moment of functions of h as one of functions of λ = h/c."""
    derived = {family.base for family in dynamics.families if family.derived}
    number, new = sympy.S.One, []
    for factor in factors:
        field = factor.args[1] if isinstance(factor, Value) else factor
        if field.base in derived:
            new.append(factor)
        elif isinstance(factor, Value):
            number /= scale ** factor.args[0].args[1]
            new.append(_stretched(factor, scale))
        else:
            number *= scale
            new.append(factor)
    return number * Moment(*new)


def _stretched(value: Value, scale: sympy.Expr) -> Value:
    """Return g̃'(λ) for g'(h), where g(h) = g̃(λ) and so g'(h) = g̃'(λ)/c."""
    (symbol, order, function), field = value.args[0].args, value.args[1]
    return Value(Univariate(symbol, order, sympy.Lambda(X, scale**order * function(scale * X))), field)


def _constants_first(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
    """Return a sum with the factors that do not depend on its indices in front of it."""
    bound = {limit[0] for limit in limits}
    inside: list[sympy.Expr] = []
    outside: list[sympy.Expr] = []
    for factor in sympy.Mul.make_args(summand):
        (inside if factor.free_symbols & bound else outside).append(factor)
    return sympy.Mul(*outside) * sympy.Sum(sympy.Mul(*inside), *limits)


def _times(factor: sympy.Expr, expr: sympy.Expr) -> sympy.Expr:
    """Return a sum of terms times a factor, multiplied out."""
    return sympy.Add(*(sympy.powsimp(factor * term) for term in sympy.Add.make_args(sympy.expand_mul(expr))))


def _time_factor(convention: Convention, relations: Mapping[str, Relation], dynamics: Dynamics) -> sympy.Expr:
    """Return by what rates are multiplied: effdyn's time over the paper's, or 1 for a map, whose step is a step."""
    return sympy.S.One if dynamics.kind == "map" else _own_time(convention, relations, dynamics)


def _own_time(convention: Convention, relations: Mapping[str, Relation], dynamics: Dynamics) -> sympy.Expr:
    """Return effdyn's time over the paper's."""
    if dynamics.clock in ("eta*steps/d", WIDE_CLOCK):
        units = convention.symbol(convention.named("K")) if dynamics.clock == WIDE_CLOCK else 1
        return _value(convention, relations["eta"]) / units / convention.time_ratio()
    return 1 / convention.time_ratio()


def _renamed(q: Quantity, convention: Convention) -> Quantity:
    """Return a quantity under the paper's name, with its sizes and index letters."""
    letters = _index_letters(convention)
    name = convention.named(q.name)
    shape = tuple(sympy.Symbol(convention.named(str(s)), **_INTEGER) for s in q.shape)
    return replace(
        q,
        name=name,
        indices=tuple(letters.get(i, i) for i in q.indices),
        shape=shape,
        latex=convention.printed(name, q.latex if name == q.name else None),
        meaning=_meaning_here(q, convention),
    )


def _index_letters(convention: Convention) -> dict[sympy.Symbol, sympy.Symbol]:
    return {sympy.Symbol(old, **_INTEGER): sympy.Symbol(new, **_INTEGER) for old, new in convention.indices}


def _summed_letters(convention: Convention, dynamics: Dynamics) -> dict[sympy.Symbol, sympy.Symbol]:
    """Return other letters for further summation indices that would mean something else in the convention."""
    found = {limit[0] for e in dynamics.equations for total in e.expr.atoms(sympy.Sum) for limit in total.limits}
    taken = {convention.named(size) for size in SIZES} | {s.name for s in _index_letters(convention).values()}
    clashing = sorted((s for s in found - {*_index_letters(convention)} if s.name in taken), key=str)
    free = (letter for letter in "uvwxyzabcefgq" if letter not in taken | {s.name for s in found})
    return {old: sympy.Symbol(next(free), **_INTEGER) for old in clashing}


def _meaning_here(q: Quantity, convention: Convention) -> str:
    """Return what a quantity means, by the paper's definition."""
    if q.name in ("Q", "R", "T"):
        return f"{q.meaning.partition(' w')[0]}, the covariances of fields"
    relation = convention.relations(sympy.S.One).get(q.name)
    if relation is None or q.name in ("a", "b") or relation.factor == relation.power == 1:
        return q.meaning
    return f"{q.meaning} = {_value(convention, relation)}"


def _parameters(
    convention: Convention,
    relations: Mapping[str, Relation],
    dynamics: Dynamics,
    equations: tuple[Equation, ...],
) -> tuple[Quantity, ...]:
    """Return the parameters of converted equations: the old ones that have a name, then other letters that occur."""
    kept = [
        _renamed(q, convention)
        for q in dynamics.parameters
        if q.name not in _RATIOS and (q.name not in relations or relations[q.name].theirs)
    ]
    bound = {*(q.base for q in kept), *(convention.symbol(convention.named(size)) for size in SIZES)}
    others = {s for e in equations for s in e.expr.free_symbols if s in convention.formula_letters()} - bound
    return (
        *kept,
        *(
            Quantity(s.name, latex=convention.printed(s.name), meaning=_meaning(s.name, convention), minimum=minimum)
            for s in sorted(others, key=str)
            for minimum in (0.0 if s.is_nonnegative else None,)
        ),
    )


def _meaning(name: str, convention: Convention) -> str:
    """Return what a letter of the paper that is no parameter of the equations before conversion means."""
    ours = {theirs: q for q, theirs in convention.names}.get(name, name)
    known = {"d": "input dimension", "eta": "learning rate", "eta_a": "learning rate of the second layer"}
    return known.get(ours, f"{name} of {convention.title}")


def _covariance(
    convention: Convention, dynamics: Dynamics, rewrite: Rewrite
) -> tuple[tuple[tuple[str, str], sympy.Lambda], ...]:
    """Return the covariances of the paper's fields, which are h/c; sums of outputs are what they were."""
    derived = {str(family.base) for family in dynamics.families if family.derived}
    field = convention.formula("field_scale")
    letters = _index_letters(convention)

    def law(pair: tuple[str, str], old: sympy.Lambda) -> sympy.Lambda:
        scale = field ** sum(name not in derived for name in pair)
        variables = tuple(letters.get(v, v) for v in old.variables)
        return sympy.Lambda(variables, _times(1 / scale, rewrite(old.expr)))

    return tuple((pair, law(pair, old)) for pair, old in dynamics.covariance)
