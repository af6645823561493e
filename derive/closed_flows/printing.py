"""Closed forms as plain text and as LaTeX, with abbreviations."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import sympy

from ..export.printer import PaperPrinter

if TYPE_CHECKING:
    from .flow import Solved
    from .results import ClosedForm

LONGEST = 80
"""Of relations that are printed; longer ones are told in words."""

Row = tuple[sympy.Expr, sympy.Expr]


def rows(form: "ClosedForm") -> list[tuple[Row, list[Row]]]:
    """Return (state, solution) or (t, its integral) for each equation, and the abbreviations in it.

    Abbreviations have names that no parameter has; where two states use one differently, it carries the state's name.
    """
    taken = {symbol.name for symbol, _ in form.standard.originals} | {str(s) for _, s in form.standard.starts}
    meanings: dict[sympy.Symbol, sympy.Expr] = {}
    found = []
    for part in form.solved:
        if part.solution is None:
            found.append(_time_row(part, form))
            continue
        names = {}
        for symbol, meaning in part.definitions:
            name = symbol.name
            while name in taken or meanings.get(sympy.Symbol(name, real=True), meaning) != meaning:
                name = f"{name}_{part.flow.state}"
            names[symbol] = sympy.Symbol(name, real=True)
        new = [(names[s], e) for s, e in part.definitions if names[s] not in meanings]
        meanings |= dict(new)
        shown = part.solution if part.written is None else part.written
        restored = form.standard.restored
        found.append(
            (
                (restored(part.flow.state), restored(shown.xreplace(names))),
                [(s, restored(e.xreplace(names))) for s, e in new],
            )
        )
    return found


def _time_row(part: "Solved", form: "ClosedForm") -> tuple[Row, list[Row]]:
    """``t = Phi(s) - Phi(s_0)``, and Phi."""
    state, start = form.standard.restored(part.flow.state), form.standard.restored(part.flow.start)
    phi = sympy.Function("Phi")
    return (form.time, phi(state) - phi(start)), [(phi(state), form.standard.restored(part.implicit))]


def _lines(form: "ClosedForm") -> Iterator[str]:
    for (left, right), abbreviations in rows(form):
        yield f"{left}{'' if left == form.time else f'({form.time})'} = {right}"
        for symbol, meaning in abbreviations:
            yield f"  where {symbol} = {meaning}"
    for c in form.conditions:
        yield f"  if {c.sentence}" + (f" ({c.relation})" if len(str(c.relation)) <= LONGEST else "")
    for method, verification in zip(form.methods, form.verified, strict=True):
        yield f"  by {method}; verified {verification}"


def closed_form_text(form: "ClosedForm") -> str:
    """Return the solutions, abbreviations, conditions and checks, one a line."""
    return "\n".join(_lines(form))


def closed_form_latex(form: "ClosedForm", names: Mapping[str, str] | None = None) -> str:
    """Return the solutions, each with its abbreviations, then the conditions, as lines of an ``aligned``
    environment."""
    printer = PaperPrinter(names)
    lines = []
    for (left, right), abbreviations in rows(form):
        of_time = "" if left == form.time else f"({printer.doprint(form.time)})"
        lines.append(f"{printer.doprint(left)}{of_time} &= {printer.doprint(right)}")
        lines += [f"{printer.doprint(symbol)} &= {printer.doprint(meaning)}" for symbol, meaning in abbreviations]
    lines += [rf"&\text{{if {_in_text(c.sentence)}}}" for c in form.conditions]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _in_text(sentence: str) -> str:
    return sentence.replace("_", r"\_").replace("**", r"\textasciicircum ")
