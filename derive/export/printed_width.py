"""How wide a formula in LaTeX prints, without setting it."""

import re

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}^_]|\s+|.", re.DOTALL)
_WIDTHS = {
    **dict.fromkeys(["+", "-", r"\cdot", r"\to"], 1.2), "=": 1.35, **dict.fromkeys("()[]|", 0.4), ",": 0.45, "'": 0.3,
    r"\,": 0.17, r"\;": 0.28, r"\!": -0.17, r"\quad": 1.0, r"\qquad": 2.0, r"\sum": 1.6, r"\langle": 0.4,
    r"\rangle": 0.4, r"\arcsin": 2.8, r"\operatorname": 0.2, r"\star": 0.5, r"\mathrm": 0.0, r"\mathbf": 0.0,
    r"\tilde": 0.0, r"\text": 0.0, r"\left": 0.1, r"\right": 0.1, r"\Bigl": 0.2, r"\Bigr": 0.2, r"\bigl": 0.1,
    r"\bigr": 0.1, r"\big": 0.1, r"\partial": 0.55, r"\Big": 0.1, r"\tanh": 2.1, r"\log": 1.4, r"\max": 1.9,
}  # fmt: skip


def width(text: str) -> float:
    r"""Return the printed width of a formula in em, to some 10 %: enough to know where to break it.

    Examples
    --------
    >>> width(r"\frac{a+b}{c}") == width("a+b") + 0.25
    True
    """
    return _row(_TOKEN.findall(text), 0)[0]


def _row(tokens: list[str], at: int) -> tuple[float, int]:
    total, limits = 0.0, False
    while at < len(tokens) and tokens[at] != "}":
        token = tokens[at]
        if token in "^_":
            scripts, at = _scripts(tokens, at)
            total += max(0.0, scripts - 1.4) if limits else scripts
            limits = False
            continue
        at += 1
        limits = token == r"\sum"
        if token == r"\frac":
            (above, at), (below, at) = (one := _argument(tokens, at)), _argument(tokens, one[1])
            total += max(above, below) + 0.25
        elif token == r"\sqrt":
            inside, at = _argument(tokens, at)
            total += inside + 0.9
        elif token == "{":
            inside, at = _row(tokens, at)
            total, at = total + inside, at + 1
        elif not token.isspace():
            total += _WIDTHS.get(token, 0.75 if token.isupper() else 0.55)
    return total, at


def _argument(tokens: list[str], at: int) -> tuple[float, int]:
    while at < len(tokens) and tokens[at].isspace():
        at += 1
    if at < len(tokens) and tokens[at] == "{":
        inside, at = _row(tokens, at + 1)
        return inside, at + 1
    return width(tokens[at]) if at < len(tokens) else 0.0, at + 1


def _scripts(tokens: list[str], at: int) -> tuple[float, int]:
    widest = 0.0
    while at < len(tokens) and tokens[at] in "^_":
        inside, at = _argument(tokens, at + 1)
        widest = max(widest, 0.72 * inside)
    return widest, at
