r"""A Dynamics as a LaTeX article that compiles as it is: setting, derivation, equations, moments, symbols.

Knows nothing of any particular model: what it prints stands on the Dynamics.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sympy
from sympy.core.alphabets import greeks
from sympy.core.function import AppliedUndef

from ..averages import LABEL
from ..moments import Dilation, Joint, Moment, Value
from ..terms import assemble
from . import line_breaking
from .calls import network_names
from .grouping import Item, arranged, grouped
from .latex import order_latex, symbol_table
from .line_breaking import Row, row
from .printed_width import width
from .printer import PaperPrinter
from .prose import text_latex
from .reading_order import sorted_moments
from .rows import (
    activation_rows,
    combination_rows,
    equation_rows,
    moments_rows,
    numerical,
    plain_legend,
    printer_for,
)

if TYPE_CHECKING:
    from ..dynamics import Dynamics, Quantity

environment = partial(line_breaking.environment, kept=True)
PAGE = 40.0
"""Width of a line in em on this article's page."""
VECTORS = {"w": r"\mathbf{w}", "w_star": r"\mathbf{w}^{\star}", "x": r"\mathbf{x}"}

_FORMULA = re.compile(r"(?<!\\)\$[^$]*(?<!\\)\$")
_VECTOR = re.compile(r"(?<![\\A-Za-z{])([wx])(?![A-Za-z])")
"""Vectors as meanings and assumptions write them, which are bold in the equations."""
_PREAMBLE = r"""\documentclass[11pt,a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath}
\usepackage[margin=25mm]{geometry}
\allowdisplaybreaks
\setlength{\emergencystretch}{2em}
"""


def write_article(dyn: "Dynamics", path: Path) -> Path:
    """Write the article to ``path`` and return it.

    Parameters
    ----------
    dyn : Dynamics
    path : Path
        The file to write, in a directory that exists.

    Examples
    --------
    >>> import tempfile
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_article(dyn, Path(folder) / "linear.tex").read_text(encoding="utf-8")[-14:]
    'end{document}\\n'
    """
    path = Path(path)
    path.write_text(article_latex(dyn), encoding="utf-8")
    return path


def article_latex(dyn: "Dynamics") -> str:
    """Return the article's source.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> [line for line in article_latex(dyn).splitlines() if line.startswith("\\\\section")]  # doctest: +ELLIPSIS
    ['\\\\section{Setting}', '\\\\section{Order parameters}', '\\\\section{Derivation}', ...]
    """
    printer = printer_for(
        dyn, {name: latex for name, latex in VECTORS.items() if name not in {e.quantity.name for e in dyn.drift}}
    )
    sections = (
        ("Setting", _setting(dyn, printer)),
        ("Order parameters", _order_parameters(dyn, printer)),
        ("Derivation", _derivation(dyn, printer)),
        ("Equations of motion", _equations(dyn, printer)),
        ("Gaussian moments", _moments(dyn, printer)),
        ("Symbols", symbol_table(dyn)),
        ("Assumptions and status", _status(dyn, printer)),
    )
    title = f"\\title{{{text_latex(dyn.title)}}}\n\\author{{derived by \\texttt{{effdyn}}}}\n\\date{{}}\n"
    body = "\n\n".join(f"\\section{{{name}}}\n\n{text}" for name, text in sections if text)
    body = _FORMULA.sub(lambda formula: _VECTOR.sub(r"\\mathbf{\1}", formula[0]), body)
    return f"{_PREAMBLE}\n{title}\n\\begin{{document}}\n\\maketitle\n\n{body}\n\n\\end{{document}}\n"


# --- sections ---------------------------------------------------------------------------------------------------------


def _setting(dyn: "Dynamics", printer: PaperPrinter) -> str:
    if not dyn.steps:
        return ""
    step = dyn.steps[0]
    shorten = _residual(dyn)
    rows = []
    for left, right in step.equations:
        named = str(left) in ("phi", "y", "y_star", "ell")
        rows.append(row(_left(left, printer), _terms(right if named else shorten(right), printer), PAGE))
    text = [text_latex(step.explanation), environment("align*", _compact([*rows, *activation_rows(dyn, printer)]))]
    letters = {f: overlap.variables[0] for (f, g), overlap in dyn.covariance if f == g}
    units = [
        rf"${printer._print(f.base)}_{{{i}}}$ ($1 \le {i} \le {printer._print(f.size)}$)"
        for f, i in ((f, printer._print(letters[str(f.base)])) for f in dyn.families if not f.derived)
    ]
    if units:
        fields = f"The local fields {' and '.join(units)} are the inner products of the weight vectors with the input"
        stated = "w·x" in step.explanation  # where another convention has said what they are divided by
        text.append(fields + (", as stated." if stated else r", divided by $\sqrt{d}$."))
    if any(right.has(sympy.Symbol("zeta", real=True)) for _, right in step.equations):
        text.append(r"The label noise is $\zeta \sim N(0, 1)$.")
    if any(right.has(LABEL) for stage in dyn.steps for _, right in stage.equations):
        text.append(_LABELS.get(getattr(dyn.model, "labels", ""), r"The label $y = \pm 1$ is random given the fields."))
    return "\n".join(text) + "\n\n" + _list("It is assumed:", dyn.assumptions)


_LABELS = {
    "sign": r"The label is $y = \operatorname{sign} y^{\star}$, flipped with probability $p$.",
    "logistic": r"The label is $y = \pm 1$ with $P(y = 1) = 1/(1 + e^{-y^{\star}})$.",
}
"""How labels ±1 are drawn."""


def _order_parameters(dyn: "Dynamics", printer: PaperPrinter) -> str:
    text = ""
    if dyn.covariance:
        bases = {str(f.base): f.base for f in dyn.families if not f.derived}
        cells = []
        for (f, g), overlap in dyn.covariance:
            if not {f, g} <= bases.keys():
                continue
            i, j = overlap.variables
            pair = (printer._print(bases[f][i]), printer._print(bases[g][j]))
            left = r"\operatorname{cov}(%s, %s)" if dyn.mean else r"\langle %s\,%s\rangle"
            cells.append(f"{left % pair} = {printer._print(overlap.expr)}")
        separator = r" ,\qquad "
        text = "The covariances of the local fields are the overlaps of the weight vectors,\n\\begin{equation*}\n"
        text += f"{separator.join(cells)} .\n\\end{{equation*}}\n"
        means = [(bases[f], mean) for f, mean in dyn.mean if f in bases]
        if means:
            cells = [
                rf"\langle {printer._print(base[mean.variables[0]])}\rangle = {printer._print(mean.expr)}"
                for base, mean in means
            ]
            text += "and their means the biases,\n"
            text += f"\\begin{{equation*}}\n{separator.join(cells)} .\n\\end{{equation*}}\n"
        if rows := combination_rows(dyn, printer):
            fields = [rf"${f.latex}$" for f in dyn.families if f.derived]
            text += (
                f"Linear combinations of local fields are jointly Gaussian with them; of {' and '.join(fields)} the "
                f"covariances are\n{environment('align*', _compact(rows))}\n"
            )
    sentences = [(_ROLE[dyn.kind], dyn.states), ("Given at $t = 0$ is", dyn.initial)]
    text += "".join(f"{role} {_listed(quantities, printer)}. " for role, quantities in sentences if quantities)
    return f"{text}Time is $t = {_clock(dyn.clock)}$."


_ROLE = {
    "ode": "What moves is",
    "sde": "What moves is",
    "map": "What moves is",
    "volterra": "A function of time is",
    "formula": "Defined is",
}
"""What the states are, by the kind of equations."""


def _listed(quantities: "Iterable[Quantity]", printer: PaperPrinter) -> str:
    *before, last = (f"${printer._print(q.symbol)}$ ({text_latex(q.meaning)})" for q in quantities)
    return f"{', '.join(before)} and {last}" if before else last


def _derivation(dyn: "Dynamics", printer: PaperPrinter) -> str:
    parts = []
    residual, network = _residual(dyn), network_names(dyn)
    for step in dyn.steps[1:]:
        text = f"\\subsection{{{text_latex(step.title)}}}\n\n{text_latex(step.explanation)}"
        shown = [(left, right) for left, right in step.equations if left.func.__name__ != "Rate"]
        if shown:
            short = [(left, _decayed(residual(network(right)))) for left, right in shown]
            rows = [row(_left(left, printer), _terms(right, printer), PAGE) for left, right in short]
            text += "\n" + environment("align*", rows)
        elif step.equations:
            text += " What is left are the equations of the next section."
        parts.append(text + _what_is_new(shown))
    if dyn.dropped:
        parts.append(_dropped(dyn, printer))
    return "\n\n".join(parts)


def _what_is_new(shown: Iterable[tuple[sympy.Basic, sympy.Expr]]) -> str:
    dilations = [node for _, right in shown for node in right.atoms(Dilation)]
    if any(len(node.args) > 1 for node in dilations):
        return (
            "\nHere $\\partial_{s_g}\\langle\\dots\\rangle_{s_g}|_{s_g=1}$ is the change of an average when the "
            "variance $\\lambda_g$ of the inputs in block $g$ is stretched by $s_g$: the length of their part depends "
            "on the fields."
        )
    if dilations:
        return (
            "\nHere $\\partial_s\\langle\\dots\\rangle_{s\\Omega}|_{s=1}$ is the change of an average when the "
            "covariance $\\Omega$ of all fields is stretched by $s$: the length of the input depends on the fields."
        )
    return ""


def _dropped(dyn: "Dynamics", printer: PaperPrinter) -> str:
    quantities = {q.name: q for q in dyn.states}
    groups: dict[tuple[str, str], list[sympy.Expr]] = {}
    for d in dyn.dropped:
        groups.setdefault((d.quantity, d.order), []).append(network_names(dyn)(assemble([d.term])))
    text = "\\subsection{What the limit drops}\n\nThese terms vanish:"
    for (name, order), terms in groups.items():
        symbol = printer._print(quantities[name].symbol) if name in quantities else name
        _, lines = row("", _terms(sympy.Add(*terms), printer), PAGE)
        block = " \\\\\n&".join(lines)
        text += f"\nin the equation of ${symbol}$, of order ${order_latex(order)}$,\n"
        text += f"\\begin{{align*}}\n&{block}\n\\end{{align*}}"
    return text


def _equations(dyn: "Dynamics", printer: PaperPrinter) -> str:
    moving, derived = equation_rows(dyn, printer, PAGE)
    text = f"With $t = {_clock(dyn.clock)}$,\n{environment('align', moving)}"
    if derived:
        meanings = "; ".join(
            f"${printer._print(e.quantity.symbol)}$, {text_latex(e.quantity.meaning)}" for e in dyn.observables
        )
        text += f"\nThe observables are {meanings}:\n{environment('align', derived)}"
    return text


def _moments(dyn: "Dynamics", printer: PaperPrinter) -> str:
    if not dyn.moments:
        return ""
    moments, shared = moments_rows(dyn, printer, PAGE)
    text = (
        "Each moment is a function of the covariances $C_{ab}$ of its own fields, numbered in the order of its "
        "arguments; students and teachers may stand in any place where the function is the same.\n"
    )
    if dyn.mean:
        text = text.replace("covariances $C_{ab}$", "covariances $C_{ab}$ and the means $m_{a}$")
    text += environment("align*", [r for rows in moments for r in _named_beside(rows)])
    if shared:
        text += f"\nHere\n{environment('align*', _compact(shared))}"
    if any(line.startswith("Where") for line in plain_legend(sorted_moments(dyn))):
        text += "\nWhere fields coincide, $\\Delta_{ab} = 0$, the limit of independent noise on every field is meant."
    return text


def _status(dyn: "Dynamics", printer: PaperPrinter) -> str:
    text = f"The equations are {text_latex(dyn.status)}."
    groups = numerical(dyn)
    if groups:
        names = [", ".join(f"${printer._print(q.symbol)}$" for q in which) for which, _ in groups]
        text += "\n\\begin{itemize}\n"
        text += "\n".join(
            rf"  \item {name}: {text_latex(status)}." for name, (_, status) in zip(names, groups, strict=True)
        )
        exact = ", ".join(f"${printer._print(e.quantity.symbol)}$" for e in dyn.equations if e.status == "exact")
        text += f"\n  \\item {exact}: exact." * bool(exact) + "\n\\end{itemize}\n"
    if dyn.model is not None:
        source = _verbatim(dyn.call)
        text += f"\nThey follow from\n\\begin{{flushleft}}\\small\\ttfamily {source}\\end{{flushleft}}"
    return _list("It is assumed:", dyn.assumptions) + text if not dyn.steps else text


# --- parts ------------------------------------------------------------------------------------------------------------


def _residual(dyn: "Dynamics") -> Callable[[sympy.Expr], sympy.Expr]:
    """Return what writes y − φ for the target minus the output, once these are defined."""
    defined = {str(left): (left, right) for left, right in dyn.steps[0].equations} if dyn.steps else {}
    if not {"phi", "y"} <= defined.keys():
        return lambda expr: expr
    (phi, output), (y, target) = defined["phi"], defined["y"]
    return lambda expr: expr.xreplace({target - output: y - phi})


def _decayed(expr: sympy.Expr) -> sympy.Expr:
    """Return an increment with what does not depend on the example multiplied out: d (1 − κ/d) R − d R is −κR."""
    fixed, random = expr.as_independent(
        Value, Moment, Joint, Dilation, sympy.tanh, sympy.sign, *map(sympy.Symbol, ("phi", "y")), as_Add=True
    )
    return sympy.expand(fixed) + random


def _left(symbol: sympy.Basic, printer: PaperPrinter) -> str:
    if isinstance(symbol, sympy.Mul):  # d times a change
        scale, change = symbol.as_independent(AppliedUndef)
        return rf"{printer._print(scale)}\,{_left(change, printer)}"
    name, inner = symbol.func.__name__, "".join(printer._print(a) for a in symbol.args)
    if name == "Delta":
        return rf"\Delta {inner}"
    if name == "MeanDelta":
        return rf"\langle \Delta {inner}\rangle"
    return str(printer._print(symbol))


def _terms(expr: sympy.Expr, printer: PaperPrinter) -> tuple[Item, ...]:
    return grouped(expr, printer) if expr.has(sympy.Sum) and not _inside_power(expr) else arranged(expr, printer)


def _inside_power(expr: sympy.Expr) -> bool:
    return any(p.base.has(sympy.Sum) for p in expr.atoms(sympy.Pow))


def _compact(rows: list[Row]) -> list[Row]:
    """Return one-line rows side by side, as many as fit a line."""
    out: list[Row] = []
    for left, lines in rows:
        if out and len(lines) == 1 and len(out[-1][1]) == 1:
            before, text = out[-1]
            joined = rf"{text[0]} ,\qquad {left} = {lines[0]}"
            if width(f"{before} = {joined}") < PAGE - 6:
                out[-1] = (before, [joined])
                continue
        out.append((left, lines))
    return out


def _named_beside(rows: list[Row]) -> list[Row]:
    own = [r for r in rows if r[0].startswith("u_")]
    return [r for r in rows if r not in own] + _compact(own)


def _clock(clock: str) -> str:
    r"""Return what t is: ``\gamma\,\text{steps}/(p\,d^{1 + \delta})`` from ``gamma*steps/(p*d**(1 + delta))``."""
    powers = re.sub(r"\*\*(?:\(([^()]*)\)|(\w+))", lambda m: f"^{{{m[1] or m[2]}}}", clock)
    return re.sub(
        r"[A-Za-z]{2,}",
        lambda m: rf"\{m[0]}" if m[0] in greeks else rf"\text{{{m[0]}}}",
        powers.replace("*", r"\,"),
    )


def _list(head: str, lines: Iterable[str]) -> str:
    items = "\n".join(rf"  \item {text_latex(line)}" for line in lines)
    return f"{head}\n\\begin{{itemize}}\n{items}\n\\end{{itemize}}\n" if items else ""


def _verbatim(text: str) -> str:
    escaped = (
        re.sub(r"[_%#&${}]", lambda m: "\\" + m[0], text)
        .replace("^", r"\^{}")
        .replace("~", r"\~{}")
        .replace("'", "\\textquotesingle ")
    )
    return re.sub(r"([(,=])", r"\1\\allowbreak{}", escaped).replace("\\textquotesingle ", "'")
