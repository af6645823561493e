"""Stochastic differential equations on paper: ``dX = [drift] dt + Σ B dW``, and the covariations that state noise
otherwise."""

from typing import TYPE_CHECKING

import sympy

from ..diffusion import Amplitude, Covariation, increment, noises
from .calls import named_calls, network_names
from .grouping import Item, grouped
from .printer import PaperPrinter, PlainPrinter, split_sign

if TYPE_CHECKING:
    from ..dynamics import Dynamics, Equation

Printer = PaperPrinter | PlainPrinter


def increment_names(dyn: "Dynamics") -> dict[str, str]:
    r"""Return how the increments of Brownian motions print: ``\mathrm{d}W``, by their names in expressions."""
    return {f"d{q.name}": rf"\mathrm{{d}}{q.latex or q.name}" for q in noises(dyn)}


def increment_items(dyn: "Dynamics", equation: "Equation", printer: Printer) -> tuple[Item, ...]:
    """Return the right-hand side of a state's equation: its drift times dt, then its noise."""
    shorten = network_names(dyn)
    own = [e for e in dyn.diffusion if e.state.name == equation.quantity.name]
    noise: list[Item] = []
    for e in own:
        if isinstance(e, Amplitude):
            noise.append(_noise_item(e, named_calls(dyn, shorten(e.expr)), printer))
    if _has_covariation(dyn, equation):
        noise.append(Item(False, _martingale(equation, printer)))
    drift = grouped(named_calls(dyn, shorten(equation.expr)), printer)
    if equation.expr == 0 and noise:
        return tuple(noise)
    dt = f" {_d(printer)}t"
    bracket = len(drift) > 1 or bool(drift[0].inside)
    first = Item(False, "", drift, after=dt) if bracket else Item(drift[0].negative, drift[0].before, after=dt)
    return first, *noise


def covariation_lines(dyn: "Dynamics", printer: Printer) -> list[tuple[str, tuple[Item, ...]]]:
    """Return what stands left and right in the covariations of a Dynamics."""
    shorten = network_names(dyn)
    return [
        (_covariation(e, printer), grouped(named_calls(dyn, shorten(e.expr)), printer))
        for e in dyn.diffusion
        if isinstance(e, Covariation)
    ]


def increment_left(symbol: sympy.Expr, printer: Printer) -> str:
    r"""Return ``\mathrm{d}Q_{ik}``."""
    return f"{_d(printer)}{printer._print(symbol)}"


def _noise_item(e: Amplitude, expr: sympy.Expr, printer: Printer) -> Item:
    after = f" {printer._print(increment(e.noise))}"
    if limits := e.term.limits if isinstance(e.term, sympy.Sum) else ():
        negative, size = split_sign(expr)
        return Item(negative, printer._print(sympy.Sum(size, *limits)), after=after)
    items = grouped(expr, printer)
    if len(items) > 1 or items[0].inside:
        return Item(False, "", items, after=after)
    return (
        Item(items[0].negative, "", after=after.lstrip())
        if abs(expr) == 1
        else Item(items[0].negative, items[0].before, after=after)
    )


def _has_covariation(dyn: "Dynamics", equation: "Equation") -> bool:
    name = equation.quantity.name
    return any(isinstance(e, Covariation) and name in (e.state.name, e.other.name) for e in dyn.diffusion)


def _martingale(equation: "Equation", printer: Printer) -> str:
    symbol = printer._print(equation.quantity.symbol)
    return rf"\mathrm{{d}}M_{{{symbol}}}" if isinstance(printer, PaperPrinter) else f"dM[{symbol}]"


def _covariation(e: Covariation, printer: Printer) -> str:
    first, second = printer._print(e.state.symbol), printer._print(e.other.symbol)
    if isinstance(printer, PaperPrinter):
        return rf"\frac{{\mathrm{{d}}\langle {first}, {second} \rangle}}{{\mathrm{{d}}t}}"
    return f"d⟨{first}, {second}⟩/dt"


def _d(printer: Printer) -> str:
    return r"\mathrm{d}" if isinstance(printer, PaperPrinter) else "d"
