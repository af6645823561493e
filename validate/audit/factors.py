"""Changes of the coefficient of a term, by a factor that is the same for all entries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sympy

from .terms import OwnTerm, text


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one term: ``factor`` times ``expr``, or times itself where that is None."""

    key: str
    what: str
    factor: sympy.Expr = sympy.S.One
    expr: sympy.Expr | None = None
    given: tuple[str, str] = ("", "")


Rule = Callable[[OwnTerm], Iterator[Change]]

NUMBERS: dict[sympy.Expr, str] = {
    sympy.Integer(0): "missing",
    sympy.Integer(-1): "sign reversed",
    sympy.Integer(2): "twice too large (added twice, or a factor 1/2 missing)",
    sympy.Rational(1, 2): "half of what it should be (a factor 2 missing)",
    sympy.Integer(4): "four times too large",
    sympy.Rational(1, 4): "a quarter of what it should be",
    sympy.Integer(-2): "sign reversed, and twice too large",
    sympy.Rational(-1, 2): "sign reversed, and half of what it should be",
    sympy.pi / 2: "a factor 2/pi missing",
    2 / sympy.pi: "a factor 2/pi too many",
    sympy.pi: "a factor 1/pi missing",
    1 / sympy.pi: "a factor 1/pi too many",
    sympy.sqrt(2): "a factor sqrt(2) too many",
    1 / sympy.sqrt(2): "a factor sqrt(2) missing",
    sympy.pi**2 / 4: "a factor (2/pi)^2 missing",
}
"""Numbers by which a term may be off."""


def numbers(term: OwnTerm) -> Iterator[Change]:
    """Missing, doubled, of the wrong sign, …"""
    for number, what in NUMBERS.items():
        yield Change(what, what, number)


def powers(term: OwnTerm) -> Iterator[Change]:
    """η where η² is meant, 1/batch or 1/K missing, σ where σ² is meant."""
    for symbol in scalars(term):
        n = term.power(symbol)
        for k in (-1, 1, -2, 2, -3, 3, -4, 4):
            if abs(k) <= 2 or n + k == 0:
                key = f"multiplied by {text(term.dynamics, symbol**k)}"
                yield Change(key, _power_text(term, symbol, n, n + k), symbol**k)


def _power_text(term: OwnTerm, symbol: sympy.Symbol, n: sympy.Expr, m: sympy.Expr) -> str:
    old, new, extra = (text(term.dynamics, symbol**power) for power in (n, m, m - n))
    if n == 0:
        return f"a factor {extra} too many"
    if m == 0:
        return f"lacks {old}"
    if symbol.name == "sigma" and n == 2:
        used = {1: "noise standard deviation used as variance: ", 4: "noise variance used as standard deviation: "}
        return f"{used.get(int(m), '')}{new} where {old} is meant"
    return f"{new} where {old} is meant"


def other_parameter(term: OwnTerm) -> Iterator[Change]:
    """One rate used for another."""
    symbols = [q.base for q in term.dynamics.parameters if not q.indices]
    for p in symbols:
        for q in symbols:
            if p != q and (n := term.power(p)) != 0:
                what = f"{q} where {p} is meant"
                yield Change(what, what, (q / p) ** n)


def rescaled_parameter(term: OwnTerm) -> Iterator[Change]:
    """A parameter that is another multiple of the same: the learning rate of a loss without ½ is twice as large."""
    for q in term.dynamics.parameters:
        if q.indices or (n := term.power(q.base)) == 0:
            continue
        for number, note in ((2, ", as for a loss without the factor 1/2"), (sympy.Rational(1, 2), "")):
            note = note if q.name.startswith("eta") else ""
            what = f"{number} {q.name} where {q.name} is meant{note}"
            yield Change(what, what, sympy.sympify(number) ** n)
        for size in term.dynamics.sizes:
            for k in (1, -1):
                what = f"{text(term.dynamics, q.base * size**k)} where {q.name} is meant"
                yield Change(what, what, size ** (k * n))


def scalars(term: OwnTerm) -> list[sympy.Symbol]:
    """Return the parameters without indices and the sizes."""
    return [*(q.base for q in term.dynamics.parameters if not q.indices), *term.dynamics.sizes]
