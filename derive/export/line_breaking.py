r"""Equations as lines that fit: where a line may break, which breaks cost least, and the rows of a display.

A line breaks before a sign, outside brackets if it can; of all choices the cheapest is found by dynamic programming.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .grouping import Item
from .printed_width import width

LINE = 31.0
"""Width of a line in em: what LaTeX's article class prints in one column at 10, 11 and 12 pt is 32.5 to 34.5."""
Row = tuple[str, list[str]]
"""A left-hand side, and its right-hand side in lines."""


BRACKETS = (
    (r"\Bigl[ ", r" \Bigr]"),
    (r"\bigl( ", r" \bigr)"),
    (r"\Bigl\langle ", r" \Bigr\rangle"),
    (r"\,\partial_s \Bigl\langle ", r" \Bigr\rangle_{s\Omega}\Big|_{s=1}"),
)
"""Outer and inner brackets in LaTeX, and those of an expectation and its change."""
PLAIN_LINE, PLAIN_BRACKETS = 100, (("[", "]"), ("(", ")"), ("E[", "]"), ("∂_s E_sΩ[", "]"))
"""Characters in a line of plain text, and its brackets."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What stands between two possible line breaks, and the depth of brackets at its beginning."""

    text: str
    level: int


def chunks(
    items: Sequence[Item], level: int = 0, first: bool = True, brackets: Sequence[tuple[str, str]] = BRACKETS
) -> list[Chunk]:
    """Return the items cut wherever a line may break: before a sign, outside brackets or in them."""
    out: list[Chunk] = []
    for n, item in enumerate(items):
        text = item.text(first and n == 0)
        if not item.inside:
            out.append(Chunk(f"{text}{item.after}", level))
            continue
        left, right = brackets[{"mean": 2, "dilation": 3}.get(item.kind, min(level, 1))]
        inner = chunks(item.inside, level + 1, brackets=brackets)
        opening = f"{text} {left}".lstrip()
        if brackets is PLAIN_BRACKETS and len(opening) + len(inner[0].text) > PLAIN_LINE:  # a bracket may end a line
            out.append(Chunk(opening, level))
        else:
            inner[0] = Chunk(f"{opening}{inner[0].text}", level)
        inner[-1] = Chunk(f"{inner[-1].text}{right}{item.after}", inner[-1].level)
        out += inner
    return out


def fill(pieces: Sequence[Chunk], start: float, line: float = LINE) -> list[str]:
    """Return the pieces as lines, none wider than ``line`` em if it can be; breaks stand outside brackets if they can.

    Parameters
    ----------
    pieces : sequence of Chunk
    start : float
        Where the lines begin: the width of the left-hand side.
    line : float
        The width of a line.
    """
    widths = [width(p.text) + 0.3 for p in pieces]
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost and beginning of the last line, for each number of pieces set
    for end in range(1, len(pieces) + 1):
        options = []
        for begin in range(end):
            total = start + sum(widths[begin:end]) + (_indent_width(pieces[begin].level) if begin else 0)
            over = max(0.0, total - line)
            level = pieces[begin].level
            torn = level > 0 and any(p.level < level for p in pieces[begin + 1 : end])
            short = 0.0 if end == len(pieces) else ((line - min(total, line)) / line) ** 2
            cost = best[begin][0] + 10 + 3 * level * (begin > 0) + 12 * torn + 100 * over + 2 * short
            options.append((cost, -begin))
        cost, begin = min(options)
        best.append((cost, -begin))
    lines, end = [], len(pieces)
    while end:
        begin = best[end][1]
        text = " ".join(p.text for p in pieces[begin:end])
        lines.append(f"{_indent(pieces[begin].level)} {{}}{text}" if begin else text)
        end = begin
    return lines[::-1]


def _indent(level: int) -> str:
    return r"\quad" if level == 0 else r"\qquad" + r"\quad" * level


def _indent_width(level: int) -> float:
    return 1.0 if level == 0 else 2.0 + level


def row(left: str, items: Sequence[Item], line: float = LINE) -> Row:
    """Return one equation as a row: its right-hand side broken into lines."""
    return left, fill(chunks(items), width(left) + 1.4, line)


def plain_row(left: str, items: Sequence[Item], one_per_line: bool = True) -> list[str]:
    """Return one equation as lines of plain text: each term on its own, or as many as fit.

    Examples
    --------
    >>> print("\\n".join(plain_row("dx/dt", [Item(False, "a x"), Item(True, "b x^3")])))
    dx/dt =
        a x
        - b x^3
    """
    pieces = [chunks([item], first=n == 0, brackets=PLAIN_BRACKETS) for n, item in enumerate(items)]
    whole = f"{left} = {' '.join(c.text for piece in pieces for c in piece)}"
    if len(whole) <= PLAIN_LINE and (len(items) == 1 or not one_per_line):
        return [whole]
    lines = [f"{left} ="]
    for n, piece in enumerate(pieces):
        for m, chunk in enumerate(piece):
            if (m or (n and not one_per_line)) and len(lines[-1]) + 1 + len(chunk.text) <= PLAIN_LINE:
                lines[-1] += f" {chunk.text}"
            else:
                lines.append(" " * (8 if m else 4) + chunk.text)
    return lines


def environment(name: str, rows: Iterable[Row], *, kept: bool = False) -> str:
    r"""Return rows as an amsmath environment such as ``align``, with one number an equation.

    If ``kept``, no page ends after the first line of an equation, nor begins with its last.

    Examples
    --------
    >>> print(environment("align", [("a", ["b", "+ c"])]))
    \begin{align}
    a &= b \nonumber \\
    &+ c
    \end{align}
    """
    numberless = r" \nonumber" if name == "align" else ""

    def body(lines: Sequence[str]) -> str:
        ends = ["*" if kept and n in (1, len(lines) - 1) else "" for n in range(1, len(lines))]
        return lines[0] + "".join(
            rf"{numberless} \\{end}" + f"\n&{line}" for end, line in zip(ends, lines[1:], strict=True)
        )

    equations = [f"{left} &= {body(lines)}" for left, lines in rows]
    return "\n".join([rf"\begin{{{name}}}", " \\\\\n".join(equations), rf"\end{{{name}}}"])
