"""The equations, activation functions and moments of a Dynamics as rows of a display, or as lines of plain text."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import sympy

from ..diffusion import noises
from ..moments import Moment
from ..terms import fresh_index
from .calls import argument, defined, has_joint, named_calls, network_names
from .grouping import Item, arranged, grouped
from .line_breaking import LINE, PLAIN_LINE, Row, plain_row, row
from .printed_width import width
from .printer import PaperPrinter, PlainPrinter
from .readable import ReadableForm, Tilt, readable_form
from .reading_order import activations, sorted_moments
from .special_rows import LIMIT_NOTE, plain_special_rows, rank, special_rows
from .stochastic import covariation_lines, increment_items, increment_left, increment_names

if TYPE_CHECKING:
    from ..dynamics import Dynamics, Equation, Quantity
    from ..named_moments import NamedMoment

COVARIANCES = "the covariance of the fields of a moment's arguments a and b, counted from 1"
"""What C_ab is."""
MEANS = "the mean of the field of a moment's argument a"
"""What m_a is."""
PLAIN_COVARIANCE = f"C_ab: {COVARIANCES}"
_H = sympy.Symbol("h", real=True)
N = sympy.Symbol("n", integer=True, positive=True)
MOST_TERMS = 60
"""A polynomial of more terms is not printed, which would take pages, but described."""


def printer_for(dyn: "Dynamics", names: Mapping[str, str] | None = None) -> PaperPrinter:
    """Return the printer that knows a Dynamics' own symbols."""
    quantities = (*dyn.parameters, *dyn.initial, *noises(dyn), *(e.quantity for e in dyn.equations))
    table = {q.name: q.latex for q in quantities if q.latex} | {str(f.base): f.latex for f in dyn.families if f.latex}
    table |= {"y_star": r"y^{\star}"} | increment_names(dyn)
    scalars = [q.name for q in dyn.parameters if not q.indices]
    return PaperPrinter({**table, **(names or {})}, ["eta", *(s for s in scalars if s != "eta"), "chi"])


def time_derivative(symbol: sympy.Expr, printer: PaperPrinter) -> str:
    r"""Return ``\frac{\mathrm{d}Q_{ik}}{\mathrm{d}t}``."""
    return rf"\frac{{\mathrm{{d}}{printer._print(symbol)}}}{{\mathrm{{d}}t}}"


def change(symbol: sympy.Expr, printer: PaperPrinter) -> str:
    r"""Return ``\Delta c_{l}``."""
    return rf"\Delta {printer._print(symbol)}"


def left_side(dyn: "Dynamics", q: "Quantity", printer: PaperPrinter) -> str:
    r"""Return what stands on the left of a state's equation: a derivative, a change ``\Delta c_{l}``, a function."""
    if dyn.kind == "ode":
        return time_derivative(q.symbol, printer)
    if dyn.kind == "sde":
        return increment_left(q.symbol, printer)
    if dyn.kind == "map":
        return change(q.symbol, printer)
    return str(printer._print(dyn.unknowns[q.name]))


PLAIN_LEFT = {"ode": "d{}/dt", "sde": "d{}", "map": "Δ{}"}
"""The same as text, around the state; a function stands there as it is."""


def plain_left(dyn: "Dynamics", q: "Quantity", printer: PlainPrinter) -> str:
    """Return what stands on the left of a state's equation, as text."""
    return PLAIN_LEFT.get(dyn.kind, "{}").format(printer.doprint(dyn.unknowns.get(q.name, q.symbol)))


def equation_rows(dyn: "Dynamics", printer: PaperPrinter, line: float = LINE) -> tuple[list[Row], list[Row]]:
    """Return the equations of motion and the observables as rows."""
    moving = [(left_side(dyn, e.quantity, printer), moving_items(dyn, e, printer)) for e in dyn.drift]
    derived = [(printer._print(e.quantity.symbol), _items(dyn, e, printer)) for e in dyn.observables]
    moving += covariation_lines(dyn, printer)
    return [row(*sides, line) for sides in moving], [row(*sides, line) for sides in derived]


def moving_items(dyn: "Dynamics", equation: "Equation", printer: PaperPrinter | PlainPrinter) -> tuple[Item, ...]:
    """Return the terms on the right of a state's equation."""
    return increment_items(dyn, equation, printer) if dyn.kind == "sde" else _items(dyn, equation, printer)


def _items(dyn: "Dynamics", equation: "Equation", printer: PaperPrinter | PlainPrinter) -> tuple[Item, ...]:
    return grouped(named_calls(dyn, network_names(dyn)(equation.expr)), printer)


def activation_rows(dyn: "Dynamics", printer: PaperPrinter) -> list[Row]:
    """Return the definitions of the activation functions."""
    return [
        row(f"{printer._print(u)}({printer._print(_H)})", arranged(u.function(_H), printer)) for u in activations(dyn)
    ]


def network_rows(dyn: "Dynamics", printer: PaperPrinter) -> list[Row]:
    """Return the definitions of the output and the target where expectations over all fields are written in them, and
    the covariances of fields that are combinations of others."""
    network = defined(dyn).items() if has_joint(dyn) else ()
    rows = [row(printer._print(symbol), arranged(value, printer)) for symbol, value in network]
    return rows + combination_rows(dyn, printer)


def combination_rows(dyn: "Dynamics", printer: PaperPrinter) -> list[Row]:
    """Return the covariances of fields that are linear combinations of others, and their means."""
    return [
        row(rf"\langle {left}\rangle" if not right else rf"\langle {left}\,{right}\rangle", arranged(value, printer))
        for left, right, value in _combinations(dyn, printer)
    ]


def _combinations(dyn: "Dynamics", printer: PaperPrinter | PlainPrinter) -> list[tuple[str, str, sympy.Expr]]:
    """Return the covariances ``(field, field, value)`` and means ``(field, "", value)`` of derived families."""
    derived = {str(f.base): f.base for f in dyn.families if f.derived}
    bases = {str(f.base): f.base for f in dyn.families}
    fields = {str(h.base) for e in dyn.equations for m in e.expr.atoms(Moment) for h in m.fields}
    found = []
    for (f, g), overlap in dyn.covariance:
        if {f, g} & derived.keys() and {f, g} <= fields:
            i, j = overlap.variables
            at = N if f == "h_star" else i
            found.append((printer._print(bases[f][at]), printer._print(bases[g][j]), _ordered(overlap(at, j))))
    means = [(f, mean) for f, mean in dyn.mean if f in derived]
    return found + [(printer._print(bases[f][1]), "", _ordered(mean(1))) for f, mean in means]


def _ordered(expr: sympy.Expr) -> sympy.Expr:
    """Return double sums with the indices of the papers, j, l for students before n, m for teachers, signs in front."""
    free = {str(s) for s in expr.free_symbols}

    def total(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        swap: dict[sympy.Symbol, sympy.Symbol] = {}
        for index, _, size in sorted(limits, key=lambda limit: (str(limit[2]), str(limit[0]))):
            swap[index] = fresh_index(size, {*free, *swap.values()})
        number, rest = summand.xreplace(swap).as_coeff_Mul()
        ordered = sorted(limits, key=lambda limit: (str(limit[2]), str(swap[limit[0]])), reverse=True)
        return number * sympy.Sum(rest, *((swap[index], low, high) for index, low, high in ordered))

    return expr.replace(sympy.Sum, total)


def moment_rows(named: "NamedMoment", printer: PaperPrinter, line: float = LINE) -> tuple[list[Row], list[Row]]:
    """Return a moment's definition with its closed form, if it has one, and the definitions which that uses."""
    letter, size = named.name.split("_")
    indices = ",".join(printer._print(argument(f)) for f in named.moment.fields)
    left = f"{letter}_{{{size}}}({indices})"
    mean = printer._print(named.moment)
    if not named.exact:
        return [_described(left, mean, NUMERICALLY, line)], []
    if many := too_many_terms(named):
        return [_described(left, mean, many, line)], []
    short = readable_form(named.signature, named.shifted)
    one = row(f"{left} = {mean}", arranged(short.form, printer), line)
    if len(one[1]) == 1 and width(f"{left} = {mean} = {one[1][0]}") < line:
        main = [(left, [f"{mean} = {one[1][0]}"])]
    else:
        lines = row("", arranged(short.form, printer), line - width(left))[1]
        main = [(left, [mean, f"= {lines[0]}", *lines[1:]])]
    definitions = [r for tilt in short.tilts for r in _tilt_rows(tilt)]
    definitions += special_rows(short)
    definitions += [row(printer._print(symbol), arranged(expr, printer), line) for symbol, expr in _names(short)]
    return main, definitions


def _described(left: str, mean: str, remark: str, line: float) -> Row:
    """Return a moment's row without a form, but with a remark, on a line of its own if need be."""
    text = rf"\quad\text{{({remark})}}"
    fits = width(f"{left} = {mean}") + 0.45 * len(remark) + 2 < line
    return left, [f"{mean} {text}"] if fits else [mean, text]


NUMERICALLY = "computed numerically"
"""What is said of moments without closed form, where the rule stands elsewhere."""


def too_many_terms(named: "NamedMoment") -> str:
    """Return the description of a closed form that would take pages, else the empty string."""
    if not named.form.is_polynomial() or len(named.form.args) <= MOST_TERMS:
        return ""
    form = readable_form(named.signature, named.shifted).form
    terms = len(sympy.Add.make_args(sympy.expand(form)))
    return f"a polynomial of {terms} terms, by Wick's theorem" if terms > MOST_TERMS else ""


def _names(short: ReadableForm) -> list[tuple[sympy.Symbol, sympy.Expr]]:
    """Return the names that a readable form uses and what they stand for; Ĉ_aa = C_aa − 1 once, for all a."""
    general = {}
    for symbol, expr in short.names:
        if symbol.name.startswith("hat "):
            symbol = sympy.Symbol(f"{symbol.name[:-2]}aa")
            expr = sympy.Symbol(symbol.name.removeprefix("hat ")) - 1
        general[symbol] = expr
    return list(general.items())


def _tilt_rows(tilt: Tilt) -> list[Row]:
    """Return the definition of a tilted covariance, for general a, b, and of a tilted mean."""
    old, new, p, factor = _tilt_names(tilt, PaperPrinter())
    below = f"1 + {factor}{old}_{{{p}{p}}}"
    rows = [(f"{new}_{{ab}}", [rf"{old}_{{ab}} - \frac{{{factor}{old}_{{{p}a}} {old}_{{{p}b}}}}{{{below}}}"])]
    if tilt.shifted:
        m, n = (c.replace("C", "m") for c in (old, new))
        rows.append((f"{n}_{{a}}", [rf"{m}_{{a}} - \frac{{{factor}{old}_{{{p}a}} {m}_{{{p}}}}}{{{below}}}"]))
    return rows


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
        sorted(common.values(), key=lambda d: _place(d[0])),
    )


def _place(left: str) -> tuple[int, int, str, str]:
    """Return the place of a definition: by rank and number of primes, a covariance before the mean."""
    like = left.replace("m", "C").replace("_{a}", "_{ab}")
    return (rank(left), len(like), like, left)


# --- plain text -------------------------------------------------------------------------------------------------------


def plain_page(dyn: "Dynamics") -> str:
    """Return a Dynamics as a page of text: what it is, under which assumptions, its equations and moments."""
    printer = plain_printer(dyn)
    moving = [(plain_left(dyn, e.quantity, printer), moving_items(dyn, e, printer)) for e in dyn.drift]
    derived = [(printer.doprint(e.quantity.symbol), _items(dyn, e, printer)) for e in dyn.observables]
    functions = [
        plain_row(f"{printer.doprint(u)}(h)", arranged(u.function(_H), printer), one_per_line=False)
        for u in activations(dyn)
    ]
    network = defined(dyn).items() if has_joint(dyn) else ()
    functions += [
        plain_row(printer.doprint(symbol), arranged(value, printer), one_per_line=False) for symbol, value in network
    ]
    functions += [
        plain_row(f"E[{left} {right}]".replace(" ]", "]"), arranged(value, printer), one_per_line=False)
        for left, right, value in _combinations(dyn, printer)
    ]
    named = sorted_moments(dyn)
    moments, shared = _shared(plain_moment_rows(m, printer) for m in named)
    blocks = [
        [dyn.title, f"t = {dyn.clock}; {dyn.status}", *(f"- {line}" for line in dyn.assumptions)],
        [line for sides in (*moving, *covariation_lines(dyn, printer)) for line in plain_row(*sides)],
        [line for sides in derived for line in plain_row(*sides)],
        [line for function in functions for line in function],
        [line for rows in moments for _, lines in rows for line in lines],
        [*(line for _, lines in shared for line in lines), *plain_legend(named)],
        [
            line
            for which, status in numerical(dyn)
            for line in textwrap.wrap(
                f"{', '.join(q.name for q in which)}: {status}", PLAIN_LINE, subsequent_indent="    "
            )
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def plain_legend(moments: "Sequence[NamedMoment]") -> list[str]:
    """Return what the symbols in the closed forms of moments mean."""
    exact = [m for m in moments if m.exact]
    specials = any(readable_form(m.signature, m.shifted).specials for m in exact)
    return [
        *([PLAIN_COVARIANCE] if exact else []),
        *([f"m_a: {MEANS}"] if any(m.shifted for m in exact) else []),
        *([LIMIT_NOTE] if specials else []),
    ]


def numerical(dyn: "Dynamics") -> list[tuple[list["Quantity"], str]]:
    """Return which equations hold numerical expectations, by how these are computed."""
    groups: dict[str, list[Quantity]] = {}
    for e in dyn.equations:
        if e.status != "exact":
            groups.setdefault(e.status, []).append(e.quantity)
    return [(quantities, status) for status, quantities in groups.items()]


def plain_printer(dyn: "Dynamics") -> PlainPrinter:
    """Return the printer of plain text with a Dynamics' scalars in order."""
    return PlainPrinter(printer_for(dyn).scalars)


def plain_moment_rows(named: "NamedMoment", printer: PlainPrinter) -> tuple[list[Row], list[Row]]:
    """Return a moment's definition with its closed form, and the definitions which that uses, as text."""
    left = plain_definition(named)
    if not named.exact:
        return [(left, [f"{left}, {NUMERICALLY}"])], []
    if many := too_many_terms(named):
        return [(left, [f"{left}, {many}"])], []
    short = readable_form(named.signature, named.shifted)
    definitions = []
    for tilt in short.tilts:
        old, new, p, alpha = _tilt_names(tilt, printer)
        below = f"(1 + {alpha}{old}_{p}{p})"
        definitions.append((new, [f"{new}_ab = {old}_ab - {alpha}{old}_{p}a {old}_{p}b/{below}"]))
        if tilt.shifted:
            m, n = (c.replace("C", "m") for c in (old, new))
            definitions.append((n, [f"{n}_a = {m}_a - {alpha}{old}_{p}a {m}_{p}/{below}"]))
    definitions += plain_special_rows(short)
    for symbol, expr in _names(short):
        name = printer.doprint(symbol)
        definitions.append((name, plain_row(name, arranged(expr, printer), one_per_line=False)))
    return [(left, plain_row(left, arranged(short.form, printer), one_per_line=False))], definitions


def plain_definition(named: "NamedMoment") -> str:
    """Return ``I_2(i,j) = E[g(h_i) g(h_j)]``, at the moment's first occurrence."""
    printer = PlainPrinter()
    arguments = ",".join(printer.doprint(argument(f)) for f in named.moment.fields)
    return f"{named.name}({arguments}) = {printer.doprint(named.moment)}"
