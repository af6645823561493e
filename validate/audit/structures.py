"""Changes of the structure of a term: indices, sums, weights, arrays taken for others, closed forms."""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations

import numpy as np
import sympy

from effdyn.derive import Joint, Moment
from effdyn.derive.moments import Value

from .factors import Change
from .terms import OwnTerm, exchange, text
from .variants import Altered


def permuted_moment(term: OwnTerm) -> Iterator[Change]:
    """I_3(i,k,m) where I_3(k,i,m) is meant: the fields of a moment in any other order."""
    for moment in term.moments:
        for order in permutations(range(len(moment.fields))):
            fields = [moment.fields[n] for n in order]
            new = _with_fields(moment, fields)
            if new != moment:
                place = ",".join(str(n + 1) for n in order)
                yield _moment_change(term, moment, new, f"arguments of moments in the order {place}")


def repeated_index(term: OwnTerm) -> Iterator[Change]:
    """I_3(i,i,m) where I_3(i,k,m) is meant: one field of a moment is another one of the same kind."""
    for moment in term.moments:
        for place, field in enumerate(moment.fields):
            for index in _alternatives(term, field.indices[0]):
                fields = [field.base[index] if n == place else f for n, f in enumerate(moment.fields)]
                key = f"argument {place + 1} of moments is {index}"
                yield _moment_change(term, moment, _with_fields(moment, fields), key)


def other_family(term: OwnTerm) -> Iterator[Change]:
    """A student's field where a teacher's is meant, or the reverse."""
    bases = [f.base for f in term.dynamics.families if not f.derived]
    for moment in term.moments:
        for place, field in enumerate(moment.fields):
            for base in bases:
                if base != field.base:
                    fields = [base[field.indices[0]] if n == place else f for n, f in enumerate(moment.fields)]
                    new = _with_fields(moment, fields)
                    names = (str(PLAIN.get(str(b), b)) for b in (base, field.base))
                    what = "{} taken for {} in ".format(*names) + text(term.dynamics, moment)
                    change = _moment_change(term, moment, new, f"argument {place + 1} of moments is of {base}")
                    yield Change(change.key, what, expr=change.expr)


PLAIN = {"h": "a student's field", "h_star": "a teacher's field"}


def _moment_change(term: OwnTerm, old: Moment, new: Moment, key: str) -> Change:
    what = f"{text(term.dynamics, new)} where {text(term.dynamics, old)} is meant"
    return Change(key, what, expr=term.with_body(term.body.xreplace({old: new})))


def _with_fields(moment: Moment, fields: list[sympy.Expr]) -> Moment:
    factors = [Value(f.args[0], h) if isinstance(f, Value) else h for f, h in zip(moment.args, fields, strict=True)]
    return Moment(*factors)


def _alternatives(term: OwnTerm, index: sympy.Expr) -> list[sympy.Symbol]:
    """Return the other indices in a term that run as far as this one."""
    return [s for s, size in term.ranges.items() if s != index and size == term.ranges.get(index)]


def transposed(term: OwnTerm) -> Iterator[Change]:
    """The two indices of the equation exchanged: one of two symmetric terms computed twice."""
    if len(term.free) == 2 and len(set(term.equation.quantity.shape)) == 1:
        one, other = term.free
        what = f"indices {one} and {other} exchanged (Q not symmetrised: one of two symmetric terms stands twice)"
        what = what.replace("Q not", f"{term.equation.quantity.name} not")
        yield Change(what, what, expr=exchange(term.expr, one, other))


def wrong_weight(term: OwnTerm) -> Iterator[Change]:
    """a_i missing, a_k where a_i is meant."""
    for weight in term.weights:
        name = text(term.dynamics, weight)
        yield Change(f"{name} missing", f"lacks {name}", expr=term.with_body(_replaced(term, {weight: sympy.S.One})))
        for place, index in enumerate(weight.indices):
            for other in _alternatives(term, index):
                new = weight.base[tuple(other if n == place else i for n, i in enumerate(weight.indices))]
                what = f"{text(term.dynamics, new)} where {name} is meant"
                yield Change(what, what, expr=term.with_body(_replaced(term, {weight: new})))

    outer = [w for w in term.weights if len(w.indices) == 1 and w.indices[0] in term.free]
    if len(outer) > 1:
        name = text(term.dynamics, sympy.Mul(*outer))
        yield Change(
            f"{name} missing", f"lacks {name}", expr=term.with_body(_replaced(term, dict.fromkeys(outer, sympy.S.One)))
        )


def extra_weight(term: OwnTerm) -> Iterator[Change]:
    """A weight too many: a_i², or the second layer's in the equation of the second layer."""
    for q in (*term.dynamics.parameters, *term.dynamics.states):
        for index, size in term.ranges.items():
            if q.shape == (size,):
                weight = q.base[index]
                what = f"a factor {text(term.dynamics, weight)} too many"
                yield Change(what, what, expr=term.with_body(term.body * weight))


def _replaced(term: OwnTerm, swap: Mapping[sympy.Basic, sympy.Expr]) -> sympy.Expr:
    """Return the body with weights replaced outside its moments."""
    factors = sympy.Mul.make_args(term.body)
    return sympy.Mul(*(f if f.has(Moment, Joint) else f.xreplace(swap) for f in factors))


def sum_range(term: OwnTerm) -> Iterator[Change]:
    """A sum that leaves out j = i, or is only that; that stops before its end; a double sum without its diagonal."""
    for dummy, _, last in term.limits:
        for other in _alternatives(term, dummy):
            if other not in term.free and str(other) < str(dummy):
                continue  # each pair once
            pair = f"{dummy} = {other}"
            yield _where(term, sympy.Ne(dummy, other), f"the sum over {dummy} leaves out {pair}")
            yield _where(term, sympy.Eq(dummy, other), f"the sum over {dummy} has only {pair}")
            if other not in term.free:
                yield _where(term, sympy.Lt(dummy, other), f"the double sum has only {dummy} < {other}")
                yield _where(term, sympy.Le(dummy, other), f"the double sum has only {dummy} <= {other}")
        yield _where(term, sympy.Lt(dummy, last), f"the sum over {dummy} stops before {last}")
        yield _where(term, sympy.Gt(dummy, 1), f"the sum over {dummy} starts at 2")


def some_entries(term: OwnTerm) -> Iterator[Change]:
    """A term that only some entries of a square equation have."""
    if len(term.free) >= 2 and len(set(term.equation.quantity.shape[-2:])) == 1:
        i, k = term.free[-2:]
        for relation, where in (
            (sympy.Ne(i, k), f"missing where {i} = {k}"),
            (sympy.Eq(i, k), f"only where {i} = {k}"),
            (sympy.Le(i, k), f"missing below the diagonal, {i} > {k}"),
            (sympy.Ge(i, k), f"missing above the diagonal, {i} < {k}"),
        ):
            yield _where(term, relation, where)
        what = f"twice too large where {i} = {k}"
        twice = sympy.Piecewise((2, sympy.Eq(i, k)), (1, True))
        yield Change(what, what, expr=term.with_body(term.body * twice))
        what = f"half of what it should be where {i} = {k}"
        half = sympy.Piecewise((sympy.Rational(1, 2), sympy.Eq(i, k)), (1, True))
        yield Change(what, what, expr=term.with_body(term.body * half))


def _where(term: OwnTerm, condition: sympy.Basic, what: str) -> Change:
    return Change(what, what, expr=term.with_body(term.body * sympy.Piecewise((1, condition), (0, True))))


def other_form(term: OwnTerm) -> Iterator[Change]:
    """Another closed form: Q where 1 + Q is meant; erf(h) where erf(h/√2) is meant, with or without its slopes."""
    moments = term.moments
    if len(moments) != 1:
        return
    (moment,) = moments
    if any(f.expr.has(sympy.erf, sympy.exp) for f in moment.signature):
        body = term.body.xreplace({moment: Altered(moment, sympy.Symbol("no unit"))})
        what = "Q where 1 + Q is meant in the closed forms of moments"
        yield Change(what, what, expr=term.with_body(body))
    slopes = sum(int(f.args[0].args[1]) if isinstance(f, Value) else -1 for f in moment.args)
    stretched = term.body.xreplace({moment: Altered(moment, sympy.Symbol("stretched"))})
    is_erf = all(f.expr.has(sympy.erf, sympy.exp) or f.expr == f.variables[0] for f in moment.signature)
    name = "erf(h) where erf(h/sqrt(2))" if is_erf else "g(sqrt(2) h) where g(h)"
    what = f"{name} is meant"
    yield Change(what, what, expr=term.with_body(stretched * sympy.sqrt(2) ** slopes))
    what = f"covariances twice too large in the moments ({name} is meant)"
    yield Change(what, what, expr=term.with_body(stretched))


TAKEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the identity": lambda A: np.broadcast_to(np.eye(A.shape[-1]), A.shape).copy(),
    "its diagonal": lambda A: A * np.eye(A.shape[-1]),
    "1": np.ones_like,
    "1/K of itself": lambda A: A / A.shape[-1],
    "1/sqrt(K) of itself": lambda A: A / np.sqrt(A.shape[-1]),
    "its absolute value": np.abs,
    "its transpose": lambda A: np.swapaxes(A, -1, -2).copy(),
}
"""What an array may be taken for."""


KINDS = {
    (2, True): ("the identity", "its diagonal"),
    (2, False): ("its transpose",),
    (1, False): ("1", "1/K of itself", "1/sqrt(K) of itself"),
}
"""The kinds for arrays of so many axes, symmetric or not."""


def array_taken_for(term: OwnTerm) -> Iterator[Change]:
    """T taken for the identity, its off-diagonal entries dropped, b taken for 1."""
    for q in (*term.dynamics.states, *term.dynamics.parameters):
        for kind in KINDS.get((len(q.shape), q.symmetric), ()) if _occurs(term, q.name) else ():
            note = " (off-diagonal entries dropped)" if kind == "its diagonal" else ""
            what = f"{q.name} taken for {kind.replace('K', str(q.shape[0]))}{note}"
            yield Change(what, what, expr=term.expr, given=(q.name, kind))


def _occurs(term: OwnTerm, name: str) -> bool:
    """Whether an array stands in a term, or in the covariance of fields of its moments."""
    if any(str(e.base) == name for e in term.body.atoms(sympy.Indexed)):
        return True
    families = {str(f.base) for m in term.moments for f in m.fields}
    laws = [law for pair, law in term.dynamics.covariance if set(pair) <= families]
    return any(str(e.base) == name for law in laws for e in law.expr.atoms(sympy.Indexed))
