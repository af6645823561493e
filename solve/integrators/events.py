"""Events: functions of the order parameters whose zeros are to be found, such as the escape from a plateau."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.text import parse_expression

from ..kernels.kernel import Kernel, compile_kernel


@dataclass(frozen=True, slots=True)
class Event:
    """A zero of a function of the order parameters.

    Parameters
    ----------
    expr : str or sympy.Expr
        The function, in states, parameters and observables, units counted from 1 as on paper: ``"eg - 1e-3"``,
        ``"R[1, 1] - R[1, 2] - 0.1"``.
    terminal : bool
        Whether the integration ends there.
    direction : {-1, 0, 1}
        Only where it falls through zero, any, or only where it rises.
    name : str
        The name in the result; the expression's text by default.

    Examples
    --------
    >>> Event("eg - 1e-3", terminal=True).name
    'eg - 1e-3'
    """

    expr: str | sympy.Expr
    terminal: bool = False
    direction: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1):
            raise ModelError("direction", self.direction, "-1 (falling), 0 (any) or 1 (rising)")
        if not isinstance(self.terminal, bool):
            raise ModelError("terminal", self.terminal, "True or False")
        if not self.name:
            object.__setattr__(self, "name", str(self.expr))


class _IndexedObservable:
    """An observable with indices, as its formula at given units."""

    def __init__(self, quantity: Quantity, expr: sympy.Expr) -> None:
        self.quantity, self.expr = quantity, expr

    def __getitem__(self, indices: Any) -> sympy.Expr:
        indices = indices if isinstance(indices, tuple) else (indices,)
        return self.expr.subs(dict(zip(self.quantity.indices, indices, strict=True)), simultaneous=True)


def event_expression(dynamics: Dynamics, event: Event, sizes: Mapping[str, int]) -> sympy.Expr:
    """Return the function of an event in states and parameters.

    Raises
    ------
    ModelError
        If it uses a name or a unit that is not there, or does not depend on the state.
    """
    symbols: dict[str, Any] = {q.name: q.base for q in (*dynamics.states, *dynamics.parameters)}
    for e in dynamics.observables:
        symbols[e.quantity.name] = _IndexedObservable(e.quantity, e.expr) if e.quantity.indices else e.expr
    expr = parse_expression(str(event.expr), "events", symbols)
    shapes = {q.base: q.shape for q in (*dynamics.states, *dynamics.parameters)}
    if not isinstance(expr, sympy.Expr) or _whole_array(expr):
        raise ModelError("events", event.expr, "a scalar: arrays need their units, as in 'Q[1, 2]' or 'cosine[1, 1]'")
    closed = dynamics.closed(expr)
    if not {q.base for q in dynamics.states} & {
        getattr(e, "base", e) for e in closed.atoms(sympy.Indexed, sympy.Symbol)
    }:
        raise ModelError(
            "events",
            event.expr,
            f"a function of the states {', '.join(q.name for q in dynamics.states)} or of observables",
        )
    for indexed in closed.atoms(sympy.Indexed):
        for index, size in zip(indexed.indices, shapes[indexed.base], strict=True):
            if index.is_number and not (index.is_Integer and 1 <= index <= sizes[str(size)]):
                raise ModelError(
                    "events", event.expr, f"units from 1 to {size} = {sizes[str(size)]}; {indexed} is outside"
                )
    return expr


def _whole_array(expr: sympy.Basic) -> bool:
    """Return whether an array stands in the expression without its indices."""
    return isinstance(expr, sympy.IndexedBase) or (
        not isinstance(expr, sympy.Indexed) and any(_whole_array(a) for a in expr.args)
    )


def events_kernel(dynamics: Dynamics, events: Sequence[Event], sizes: Mapping[str, int]) -> Kernel:
    """Return the compiled values of the events' functions."""
    outputs = [(Quantity(f"event_{n}"), event_expression(dynamics, event, sizes)) for n, event in enumerate(events)]
    return compile_kernel(dynamics, outputs, "events", f"{dynamics.title}: events {', '.join(e.name for e in events)}.")
