"""The equations, activation functions and moments of a Dynamics as rows of a display."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import sympy

from .grouping import arranged, grouped
from .line_breaking import LINE, Row, row
from .printed_width import width
from .printer import PaperPrinter
from .readable import Tilt, readable_form
from .reading_order import activations, sorted_moments

if TYPE_CHECKING:
    from .dynamics import Dynamics, Equation
    from .named_moments import NamedMoment


def printer_for(dyn: "Dynamics", names: Mapping[str, str] | None = None) -> PaperPrinter:
    """Return the printer that knows a Dynamics' own symbols."""
    quantities = (*dyn.parameters, *(e.quantity for e in dyn.equations))
    table = {q.name: q.latex for q in quantities if q.latex} | {str(f.base): f.latex for f in dyn.families if f.latex}
    scalars = [q.name for q in dyn.parameters if not q.indices]
    return PaperPrinter({**table, **(names or {})}, ["eta", *(s for s in scalars if s != "eta"), "chi"])


def time_derivative(symbol: sympy.Expr, printer: PaperPrinter) -> str:
    r"""Return ``\frac{\mathrm{d}Q_{ik}}{\mathrm{d}t}``."""
    return rf"\frac{{\mathrm{{d}}{printer._print(symbol)}}}{{\mathrm{{d}}t}}"


def equation_rows(dyn: "Dynamics", printer: PaperPrinter, line: float = LINE) -> tuple[list[Row], list[Row]]:
    """Return the equations of motion and the observables as rows."""

    def one(left: str, equation: "Equation") -> Row:
        return row(left, grouped(dyn.named(equation.expr), printer), line)

    moving = [one(time_derivative(e.quantity.symbol, printer), e) for e in dyn.drift]
    return moving, [one(printer._print(e.quantity.symbol), e) for e in dyn.observables]


def activation_rows(dyn: "Dynamics", printer: PaperPrinter) -> list[Row]:
    """Return the definitions of the activation functions."""
    h = sympy.Symbol("h", real=True)
    return [row(f"{printer._print(u)}(h)", arranged(u.function(h), printer)) for u in activations(dyn)]


def moment_rows(named: "NamedMoment", printer: PaperPrinter, line: float = LINE) -> tuple[list[Row], list[Row]]:
    """Return a moment's definition with its closed form, and the definitions which that uses."""
    short = readable_form(named.signature)
    letter, size = named.name.split("_")
    indices = ",".join(printer._print(f.indices[0]) for f in named.moment.fields)
    left = f"{letter}_{{{size}}}({indices})"
    mean = printer._print(named.moment)
    one = row(f"{left} = {mean}", arranged(short.form, printer), line)
    if len(one[1]) == 1 and width(f"{left} = {mean} = {one[1][0]}") < line:
        main = [(left, [f"{mean} = {one[1][0]}"])]
    else:
        lines = row("", arranged(short.form, printer), line - width(left))[1]
        main = [(left, [mean, f"= {lines[0]}", *lines[1:]])]
    definitions = [_tilt_row(tilt) for tilt in short.tilts]
    for symbol, expr in short.names:
        if symbol.name.startswith("hat "):  # for all indices at once
            symbol, expr = (
                sympy.Symbol(f"{prefix}{symbol.name[4:-2]}aa") - one for prefix, one in (("hat ", 0), ("", 1))
            )
        definitions.append(row(printer._print(symbol), arranged(expr, printer), line))
    return main, list({left: (left, lines) for left, lines in definitions}.values())


def _tilt_row(tilt: Tilt) -> Row:
    """Return the definition of a tilted covariance, for general a, b."""
    old, new, p = "C" + "'" * (tilt.level - 1), "C" + "'" * tilt.level, tilt.field
    factor = "" if tilt.alpha == 1 else f"{PaperPrinter()._print(tilt.alpha)} "
    fraction = rf"\frac{{{factor}{old}_{{{p}a}} {old}_{{{p}b}}}}{{1 + {factor}{old}_{{{p}{p}}}}}"
    return f"{new}_{{ab}}", [f"{old}_{{ab}} - {fraction}"]


def moments_rows(dyn: "Dynamics", printer: PaperPrinter, line: float = LINE) -> tuple[list[list[Row]], list[Row]]:
    """Return the rows of each moment of a Dynamics, and the definitions that mean the same in all of them."""
    rows = [moment_rows(m, printer, line) for m in sorted_moments(dyn)]
    meanings: dict[str, set[str]] = {}
    for _, definitions in rows:
        for left, lines in definitions:
            meanings.setdefault(left, set()).add(" ".join(lines))
    shared = {left for left, meant in meanings.items() if len(meant) == 1 and not left.startswith("u_")}
    common = {d[0]: d for _, definitions in rows for d in definitions if d[0] in shared}
    return (
        [main + [d for d in definitions if d[0] not in shared] for main, definitions in rows],
        sorted(common.values(), key=lambda d: (len(d[0]), d[0])),
    )
