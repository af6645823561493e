r"""What users get as LaTeX: a Dynamics, a moment, a table of symbols.

The way there: ``printer`` prints expressions, ``grouping`` puts what terms share before brackets, ``line_breaking``
fills lines, ``readable`` shortens closed forms, and ``rows`` applies these to the parts of a Dynamics. Knows nothing of
documents (``article``) nor of models.
"""

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..diffusion import noises
from ..terms import assemble
from .line_breaking import Row, environment
from .printer import PaperPrinter
from .prose import text_latex
from .reading_order import sorted_moments
from .rows import (
    COVARIANCES,
    MEANS,
    activation_rows,
    equation_rows,
    moment_rows,
    moments_rows,
    network_rows,
    numerical,
    plain_legend,
    printer_for,
)

if TYPE_CHECKING:
    from ..dynamics import Dynamics
    from ..limits import Dropped
    from ..named_moments import NamedMoment

_COVARIANCE = ("C_{ab}", [rf"\text{{{COVARIANCES}}}"])
"""The row that says what C_ab is, where nothing around the display can."""
_MEAN = ("m_{a}", [rf"\text{{{MEANS}}}"])
_COINCIDENT = (r"\Delta_{ab} = 0", [r"\text{where fields coincide: the limit of independent noise on all is meant}"])


def _legend(moments: "Iterable[NamedMoment]") -> list[Row]:
    """Return the rows that say what the symbols in closed forms are."""
    rows = {"C_ab": _COVARIANCE, "m_a": _MEAN}
    return [rows.get(line.partition(":")[0], _COINCIDENT) for line in plain_legend(list(moments))]


def dynamics_latex(dyn: "Dynamics") -> str:
    r"""Return a Dynamics as LaTeX (amsmath): equations of motion, observables, and the moments with their closed forms.

    Lines fit the column of LaTeX's article class. The symbols are explained by :func:`symbol_table`.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    >>> print(dynamics_latex(flow)[:87])
    \begin{align}
    \frac{\mathrm{d}Q_{ik}}{\mathrm{d}t} &= a_{i} \Bigl[ \sum_{n=1}^{M} b_{n}
    """
    printer = printer_for(dyn)
    moving, derived = equation_rows(dyn, printer)
    moments, shared = moments_rows(dyn, printer)
    defined = [*activation_rows(dyn, printer), *network_rows(dyn, printer)]
    blocks = [("align", moving), ("align", derived), ("align*", defined)]
    text = [environment(name, rows) for name, rows in blocks if rows]
    if moments:
        text.append(
            "% C_{ab}: the covariance of the fields of a moment's arguments a and b\n"
            + environment("align*", [r for rows in moments for r in rows])
        )
    if shared:
        text.append(environment("align*", shared))
    remarks = [line for line in plain_legend(sorted_moments(dyn)) if not line.startswith("C_ab")]
    remarks += [f"{', '.join(q.name for q in which)}: {status}" for which, status in numerical(dyn)]
    if remarks:
        text.append("\n".join(f"% {line}" for line in remarks))
    return "\n\n".join(text)


def notebook_latex(dyn: "Dynamics") -> str:
    """Return a Dynamics as one display that MathJax sets, for notebooks.

    Examples
    --------
    >>> from effdyn import derive
    >>> notebook_latex(derive.TeacherStudent(activation="linear").dynamics())[:19]
    '$$\\\\begin{aligned}\\n\\\\'
    """
    printer = printer_for(dyn)
    moving, derived = equation_rows(dyn, printer, line=60)
    moments, shared = moments_rows(dyn, printer, line=60)
    defined = [*activation_rows(dyn, printer), *network_rows(dyn, printer)]
    rows = [*moving, *derived, *defined, *(r for rows in moments for r in rows), *shared]
    rules = [(", ".join(printer._print(q.symbol) for q in which), _remark(status)) for which, status in numerical(dyn)]
    return f"$${environment('aligned', [*rows, *_legend(sorted_moments(dyn)), *rules])}$$"


def _remark(text: str) -> list[str]:
    """Return a sentence as lines of a display."""
    return [rf"\text{{{text_latex(line)}}}" for line in textwrap.wrap(text, 90)]


def symbol_table(dyn: "Dynamics") -> str:
    """Return the table of symbols as a LaTeX ``tabular``: symbol, name in code, shape, meaning.

    Examples
    --------
    >>> from effdyn import derive
    >>> "student--student overlaps" in symbol_table(derive.TeacherStudent(activation="linear").dynamics())
    True
    """
    printer = printer_for(dyn)
    lines = []
    for q in (*dyn.states, *dyn.initial, *dyn.parameters, *noises(dyn), *(e.quantity for e in dyn.observables)):
        shape = r" \times ".join(map(printer._print, q.shape))
        name = q.name.replace("_", r"\_")
        cells = (
            f"${printer._print(q.symbol)}$",
            rf"\texttt{{{name}}}",
            f"${shape}$" if shape else "",
            text_latex(q.meaning),
        )
        lines.append(" & ".join(cells) + r" \\")
    head = (
        r"\begin{tabular}{@{}lllp{0.55\textwidth}@{}}" + "\n\\hline\nsymbol & in code & shape & meaning \\\\\n\\hline\n"
    )
    return head + "\n".join(lines) + "\n\\hline\n\\end{tabular}"


def moment_latex(named: "NamedMoment") -> str:
    r"""Return a moment's definition and closed form, in the covariances C_ab of its fields, as LaTeX.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="square").dynamics()
    >>> print(moment_latex(next(m for m in dyn.moments if m.name == "I_2")))
    \begin{align*}
    I_{2}(j,l) &= \langle g(h_{j})\,g(h_{l})\rangle = C_{11} C_{22} + 2 C_{12}^{2}
    \end{align*}
    """
    main, definitions = moment_rows(named, PaperPrinter())
    return environment("align*", main + definitions)


def notebook_moment(named: "NamedMoment") -> str:
    """Return a moment's definition, its closed form and what that uses as one display that MathJax sets."""
    main, definitions = moment_rows(named, PaperPrinter(), line=60)
    rule = [] if named.exact else [("", _remark(named.computed.rule))]
    return f"$${environment('aligned', [*main, *definitions, *rule, *_legend([named])])}$$"


def notebook_dropped(dropped: "Dropped") -> str:
    r"""Return a term that vanishes, in whose equation and at what rate, as one formula that MathJax sets.

    Examples
    --------
    >>> from effdyn import derive
    >>> decay = derive.TeacherStudent(activation="linear", weight_decay=True).dynamics()
    >>> print(notebook_dropped(decay.dropped[0]))
    $\displaystyle Q_{ik},\ \text{order } 1/d:\quad \frac{\kappa^{2}}{d} Q_{ik}$
    """
    printer = PaperPrinter()
    head = rf"{printer._print(dropped.symbol)},\ \text{{order }} {order_latex(dropped.order)}"
    return rf"$\displaystyle {head}:\quad {printer._print(assemble([dropped.term]))}$"


def order_latex(order: str) -> str:
    """Return ``1/d · eta`` as η/d."""
    above, below = "", ""
    for part in order.split(" · "):
        name, _, power = part.replace("(", "").replace(")", "").partition("^")
        letter = rf"\{name}" if name == "eta" else name.removeprefix("1/")
        factor = f"{letter}^{{{power}}}" if power else letter
        above, below = (above, below + factor) if name.startswith("1/") else (above + factor, below)
    return f"{above or '1'}/{below}" if below else above
