"""What a reader is shown in place of expectations and networks: names of moments, φ for the output, y* for the
target."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import sympy

from ..activation import X
from ..increments import NOISE
from ..moments import Dilation, Joint, Moment, Value
from .printer import StarredIndex

if TYPE_CHECKING:
    from ..dynamics import Dynamics

OUTPUT, TARGET = sympy.Symbol("phi"), sympy.Symbol("y_star")


def argument(field: sympy.Indexed) -> sympy.Expr:
    """Return what stands for a local field among a moment's arguments: its index, with a star where a teacher's field
    has a number; the field itself where it has none."""
    base, index = str(field.base), field.indices[0]
    if not index.is_number:
        return index
    if base == "h_star":
        return StarredIndex(str(index))
    return index if base == "h" else field


def named_calls(dyn: "Dynamics", expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with moments as calls of their names, I_3(i, k, n), for printing."""
    names = {(m.signature, m.shape): m.name for m in dyn.moments}

    def call(*factors: sympy.Expr) -> sympy.Expr:
        moment = Moment(*factors)
        return sympy.Function(names[moment.signature, moment.shape])(*map(argument, moment.fields))

    return expr.replace(Moment, call)


def defined(dyn: "Dynamics") -> dict[sympy.Symbol, sympy.Expr]:
    """Return the output φ and the noise-free target y* in local fields, as the derivation defines them."""
    if not dyn.steps:
        return {}
    stated = {str(left): right for left, right in dyn.steps[0].equations}
    output, target = stated.get("phi"), stated.get("y_star", stated.get("y"))
    pairs = ((OUTPUT, output), (TARGET, None if target is None else target.subs(NOISE, 0)))
    return {symbol: value for symbol, value in pairs if value is not None}


def network_names(dyn: "Dynamics") -> Callable[[sympy.Expr], sympy.Expr]:
    """Return what writes φ and y* inside expectations over all fields, and takes out of them what is not random."""
    known: dict[sympy.Expr, sympy.Expr] = {}
    for symbol, value in defined(dyn).items():
        coefficient, rest = value.as_independent(sympy.Sum, sympy.Indexed, as_Add=False)
        known[_canonical(rest)] = symbol / coefficient

    def written(expr: sympy.Expr) -> sympy.Expr:
        expr = expr.xreplace(known)
        return expr.replace(sympy.Sum, lambda *args: known.get(_canonical(sympy.Sum(*args)), sympy.Sum(*args)))

    def mean(expr: sympy.Expr) -> sympy.Expr:
        short = written(expr)
        candidates = (sympy.factor_terms(e) for e in (short, _expanded(short)))
        factors = sympy.Mul.make_args(min(candidates, key=sympy.count_ops))
        random = [f for f in factors if _is_random(f)]
        return sympy.Mul(*(f for f in factors if f not in random)) * Joint(sympy.Mul(*random))

    def outside(inner: sympy.Expr, *block: sympy.Expr) -> sympy.Expr:
        coefficient, average = inner.as_independent(Joint, Moment, as_Add=False)
        return coefficient * Dilation(average, *block)

    return lambda expr: expr.replace(Joint, mean).replace(Dilation, outside)


def _is_random(expr: sympy.Expr) -> bool:
    return bool(expr.has(sympy.Indexed, Value, OUTPUT, TARGET, NOISE))


def _expanded(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression multiplied out, but for sums that are not random and what stands inside functions."""
    kept: dict[sympy.Expr, sympy.Expr] = {}

    def hide(e: sympy.Expr) -> sympy.Expr:
        if isinstance(e, (sympy.Function, Value, sympy.Indexed, sympy.Sum)) or (e.is_Add and not _is_random(e)):
            return kept.setdefault(e, sympy.Dummy(real=True))
        return e.func(*map(hide, e.args)) if e.args else e

    expanded = sympy.expand(hide(expr))
    return expanded.xreplace({dummy: e for e, dummy in kept.items()})


def _canonical(expr: sympy.Expr) -> sympy.Expr:
    """Return a sum over one index under a name of its own, with the identity as nothing: Σ a_j g(h_j), g(h) = h."""
    expr = expr.replace(lambda e: isinstance(e, Value) and e.args[0].function(X) == X, lambda e: e.args[1])
    if not isinstance(expr, sympy.Sum) or len(expr.limits) > 1:
        return expr
    ((index, low, high),) = expr.limits
    return sympy.Sum(expr.function.xreplace({index: _ANY}), (_ANY, low, high))


_ANY = sympy.Symbol("any_index", integer=True, positive=True)


def has_joint(dyn: "Dynamics") -> bool:
    """Return whether any equation holds an expectation over all fields at once."""
    return any(e.expr.has(Joint) for e in dyn.equations)
