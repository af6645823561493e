"""The equations, activation functions and moments of a Dynamics as rows of a display, or as lines of plain text."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import sympy

from .grouping import arranged, grouped
from .line_breaking import LINE, Row, plain_row, row
from .printed_width import width
from .printer import PaperPrinter, PlainPrinter
from .readable import ReadableForm, Tilt, readable_form
from .reading_order import activations, sorted_moments

if TYPE_CHECKING:
    from ..dynamics import Dynamics, Equation
    from ..named_moments import NamedMoment

COVARIANCES = "the covariance of the fields of a moment's arguments a and b, counted from 1"
"""What C_ab is."""
PLAIN_COVARIANCE = f"C_ab: {COVARIANCES}"
_H = sympy.Symbol("h", real=True)


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
    return [row(f"{printer._print(u)}(h)", arranged(u.function(_H), printer)) for u in activations(dyn)]


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
    definitions += [row(printer._print(symbol), arranged(expr, printer), line) for symbol, expr in _names(short)]
    return main, definitions


def _names(short: ReadableForm) -> list[tuple[sympy.Symbol, sympy.Expr]]:
    """Return the names that a readable form uses and what they stand for; Ĉ_aa = C_aa − 1 once, for all a."""
    general = {}
    for symbol, expr in short.names:
        if symbol.name.startswith("hat "):
            symbol = sympy.Symbol(f"{symbol.name[:-2]}aa")
            expr = sympy.Symbol(symbol.name.removeprefix("hat ")) - 1
        general[symbol] = expr
    return list(general.items())


def _tilt_row(tilt: Tilt) -> Row:
    """Return the definition of a tilted covariance, for general a, b."""
    old, new, p, factor = _tilt_names(tilt, PaperPrinter())
    fraction = rf"\frac{{{factor}{old}_{{{p}a}} {old}_{{{p}b}}}}{{1 + {factor}{old}_{{{p}{p}}}}}"
    return f"{new}_{{ab}}", [f"{old}_{{ab}} - {fraction}"]


def _tilt_names(tilt: Tilt, printer: PaperPrinter | PlainPrinter) -> tuple[str, str, int, str]:
    """Return the covariance before and after a tilt, its field and its factor α as they print."""
    factor = "" if tilt.alpha == 1 else f"{printer._print(tilt.alpha)} "
    return "C" + "'" * (tilt.level - 1), "C" + "'" * tilt.level, tilt.field, factor


def moments_rows(dyn: "Dynamics", printer: PaperPrinter, line: float = LINE) -> tuple[list[list[Row]], list[Row]]:
    """Return the rows of each moment of a Dynamics, and the definitions that mean the same in all of them."""
    return _shared(moment_rows(m, printer, line) for m in sorted_moments(dyn))


def _shared(moments: Iterable[tuple[list[Row], list[Row]]]) -> tuple[list[list[Row]], list[Row]]:
    rows = list(moments)
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


# --- plain text -------------------------------------------------------------------------------------------------------


def plain_page(dyn: "Dynamics") -> str:
    """Return a Dynamics as a page of text: what it is, under which assumptions, its equations and moments."""
    printer = plain_printer(dyn)

    def display(equations: "Iterable[Equation]", form: str) -> list[str]:
        return [
            line
            for e in equations
            for line in plain_row(form.format(printer.doprint(e.quantity.symbol)), grouped(dyn.named(e.expr), printer))
        ]

    functions = [
        plain_row(f"{printer.doprint(u)}(h)", arranged(u.function(_H), printer), one_per_line=False)
        for u in activations(dyn)
    ]
    moments, shared = _shared(plain_moment_rows(m, printer) for m in sorted_moments(dyn))
    blocks = [
        [dyn.title, f"t = {dyn.clock}; {dyn.status}", *(f"- {line}" for line in dyn.assumptions)],
        display(dyn.drift, "d{}/dt"),
        display(dyn.observables, "{}"),
        [line for function in functions for line in function],
        [line for rows in moments for _, lines in rows for line in lines],
        [*(line for _, lines in shared for line in lines), *([PLAIN_COVARIANCE] if moments else [])],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def plain_printer(dyn: "Dynamics") -> PlainPrinter:
    """Return the printer of plain text with a Dynamics' scalars in order."""
    return PlainPrinter(printer_for(dyn).scalars)


def plain_moment_rows(named: "NamedMoment", printer: PlainPrinter) -> tuple[list[Row], list[Row]]:
    """Return a moment's definition with its closed form, and the definitions which that uses, as text."""
    short = readable_form(named.signature)
    left = plain_definition(named)
    definitions = []
    for tilt in short.tilts:
        old, new, p, alpha = _tilt_names(tilt, printer)
        definitions.append((new, [f"{new}_ab = {old}_ab - {alpha}{old}_{p}a {old}_{p}b/(1 + {alpha}{old}_{p}{p})"]))
    for symbol, expr in _names(short):
        name = printer.doprint(symbol)
        definitions.append((name, plain_row(name, arranged(expr, printer), one_per_line=False)))
    return [(left, plain_row(left, arranged(short.form, printer), one_per_line=False))], definitions


def plain_definition(named: "NamedMoment") -> str:
    """Return ``I_2(i,j) = E[g(h_i) g(h_j)]``, at the moment's first occurrence."""
    printer = PlainPrinter()
    return f"{named.name}({','.join(str(f.indices[0]) for f in named.moment.fields)}) = {printer.doprint(named.moment)}"
