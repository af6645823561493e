"""Whether every symbol of a Dynamics is declared: what is not would be an undefined name in generated code, or worse,
one that the code happens to have.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import sympy
from sympy.concrete.expr_with_limits import ExprWithLimits
from sympy.core.function import AppliedUndef

from .errors import Described, ModelError, nearest
from .increments import NOISE
from .moments import Univariate

if TYPE_CHECKING:
    from .dynamics import Dynamics

LONGEST = 100
"""Characters of an equation in a message."""


def check_declared(dyn: "Dynamics", time: sympy.Symbol) -> None:
    """Raise a ModelError for a symbol that is neither declared nor bound, or a quantity with the name of time.

    Symbols are compared by name, and one that is bound anywhere in an expression counts as bound in all of it.
    """
    quantities = (*dyn.states, *dyn.initial, *dyn.parameters, *(e.quantity for e in dyn.observables))
    for argument, group in (("drift", dyn.states), ("parameters", dyn.parameters), ("observables", quantities)):
        if any(q.name == time.name for q in group):
            raise ModelError(argument, Described(f"a quantity named {time.name}"), "any other name: that is time's")
    known = {q.name for q in quantities} | {str(size) for q in quantities for size in q.shape}
    known |= {str(part) for family in dyn.families for part in (family.base, family.size)} | _arguments(dyn)
    known |= {name for pair, _ in dyn.covariance for name in pair}
    known |= {NOISE.name} if dyn.families else set()  # over which expectations are, as over the local fields
    for place, name, indices, expr in _expressions(dyn):
        own = known | {str(index) for index in indices}
        for symbol in _free(expr):
            # what nodes of our own bind they know themselves; slow, hence asked last
            if symbol.name not in own and symbol != time and symbol in expr.free_symbols:
                text = f"{name} = {expr}"
                shown = text if len(text) <= LONGEST else text[: LONGEST - 2] + " …"
                raise ModelError(place, Described(f"{symbol} in {shown}"), _accepted(dyn, symbol, time))


def _arguments(dyn: "Dynamics") -> set[str]:
    """Return the arguments of unknown functions, which their own equations have too: kappa(z) = 1/(1 + kappa(z)/z)."""
    if dyn.kind not in ("volterra", "formula"):
        return set()
    return {str(a) for *_, expr in _expressions(dyn) for call in expr.atoms(AppliedUndef) for a in call.args}


def _accepted(dyn: "Dynamics", symbol: sympy.Symbol, time: sympy.Symbol) -> str:
    if symbol.name == time.name:
        return "derive.dynamics.TIME, if time is meant, or a parameter with another name"
    names = [q.name for q in (*dyn.states, *dyn.parameters)]
    return f"states and parameters ({', '.join(names)}), or declare {symbol} as one{nearest(symbol.name, names)}"


def _expressions(dyn: "Dynamics") -> Iterator[tuple[str, str, tuple[sympy.Symbol, ...], sympy.Expr]]:
    """Yield each expression: the argument it is in, what it is equal to, its indices."""
    for equation in dyn.drift:
        yield "drift", f"the drift of {equation.quantity}", equation.quantity.indices, sympy.sympify(equation.expr)
    for equation in dyn.observables:
        yield "observables", str(equation.quantity), equation.quantity.indices, sympy.sympify(equation.expr)
    for entry in dyn.diffusion:
        name = f"the noise of {entry.state} by {entry.column}"
        yield "diffusion", name, entry.state.indices + entry.column.indices, sympy.sympify(entry.expr)


@lru_cache(maxsize=512)
def _free(expr: sympy.Expr) -> tuple[sympy.Symbol, ...]:
    """Return the symbols that nothing in an expression binds, each subexpression looked at once."""
    found: dict[sympy.Symbol, None] = {}
    bound: set[sympy.Basic] = set()
    todo: list[sympy.Basic] = [expr]
    seen: set[sympy.Basic] = set()
    while todo:
        node = todo.pop()
        if node in seen or isinstance(node, Univariate):  # whose symbol is how it prints
            continue
        seen.add(node)
        if isinstance(node, sympy.Symbol):
            found[node] = None
        elif isinstance(node, ExprWithLimits):
            bound.update(limit[0] for limit in node.limits)
        elif isinstance(node, sympy.Lambda):
            bound.update(node.variables)
        todo.extend(node.args)
    return tuple(symbol for symbol in found if symbol not in bound)
