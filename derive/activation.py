"""Activation functions: SymPy functions of one local field, and the table of those that have a name.

Knows nothing about networks: a model says where an activation stands, the expectation rules what its averages are.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import sympy

from .errors import Described, ModelError, nearest

X = sympy.Symbol("x", real=True)
"""The argument in which every activation is written."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A function g(h) of one local field.

    Parameters
    ----------
    expr : sympy.Expr
        g as an expression in :data:`X` alone.
    name : str
        The name it is asked for and prints under; empty for a user's own expression.

    Examples
    --------
    >>> activation("He3").expr
    x**3 - 3*x
    >>> activation("erf").derivative()
    sqrt(2)*exp(-x**2/2)/sqrt(pi)
    """

    expr: sympy.Expr
    name: str = ""

    def __post_init__(self) -> None:
        stray = sorted(str(s) for s in self.expr.free_symbols - {X})
        if stray:
            raise ModelError(
                "activation", self.expr, f"a function of one variable; it also contains {', '.join(stray)}"
            )

    def derivative(self, order: int = 1) -> sympy.Expr:
        """Return d^order g / dh^order as an expression in :data:`X`."""
        return sympy.diff(self.expr, X, order)

    @property
    def text(self) -> str:
        """The name, or the formula as text: what :func:`activation` reads."""
        return self.name or sympy.sstr(self.expr, full_prec=True)

    @property
    def plateaus(self) -> tuple[sympy.Expr, ...]:
        """The values other than 0 that it takes on whole intervals, at which the output then has probability mass."""
        if not self.expr.has(sympy.Max, sympy.Min, sympy.Abs, sympy.sign, sympy.Heaviside, sympy.Piecewise):
            return ()
        slope = self.derivative()
        flat = [x for x in (sympy.Rational(n, 7) for n in range(-100, 101, 3)) if slope.subs(X, x) == 0]
        return tuple(dict.fromkeys(value for x in flat if (value := self.expr.subs(X, x)) != 0))

    def __call__(self, argument: sympy.Expr) -> sympy.Expr:
        return self.expr.subs(X, argument)

    def __repr__(self) -> str:
        return f"activation({self.name!r})" if self.name else f"activation({str(self.expr)!r})"


def hermite(degree: int) -> sympy.Expr:
    """Return the probabilists' Hermite polynomial He_degree, orthogonal under N(0, 1), leading coefficient 1."""
    return sympy.expand(2 ** -sympy.Rational(degree, 2) * sympy.hermite(degree, X / sympy.sqrt(2)))


NAMED: dict[str, sympy.Expr] = {
    "erf": sympy.erf(X / sympy.sqrt(2)),
    "linear": X,
    "square": X**2,
    "relu": sympy.Max(X, 0),
    "tanh": sympy.tanh(X),
}
"""Activations that are asked for by name. A new one is a line here; ``"He<n>"`` works for every degree n."""


def activation(
    given: "str | sympy.Expr | Callable[[sympy.Symbol], sympy.Expr] | Activation", argument: str = "activation"
) -> Activation:
    """Return the activation that a user names or writes.

    Parameters
    ----------
    given : str, sympy.Expr, callable or Activation
        A name (``"erf"``, meaning erf(h/√2); ``"linear"``; ``"square"``; ``"He3"`` …), a formula as text, a SymPy
        expression of one symbol, or a function that maps a symbol to an expression.
    argument : str
        The name of the argument that it came from, for the error.

    Raises
    ------
    ModelError
        If it is none of these.

    Examples
    --------
    >>> activation("square").expr
    x**2
    >>> activation(lambda h: sympy.erf(h / sympy.sqrt(2))) == activation("erf")
    True
    """
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        return _by_name(given, argument)
    if callable(given) and not isinstance(given, sympy.Basic):
        try:
            given = given(X)
        except Exception as error:  # whatever a user's function does with a symbol
            accepted = "a function of one SymPy expression, such as lambda h: sympy.tanh(h)"
            raise ModelError(
                argument, Described(f"a function that fails with {type(error).__name__}: {error}"), accepted
            ) from error
    if isinstance(given, sympy.Lambda):
        given = given(X)
    if not isinstance(given, (sympy.Expr, int, float)):
        raise ModelError(argument, given, _ACCEPTED)
    return _from_expression(sympy.sympify(given), argument)


_ACCEPTED = f"one of {', '.join(map(repr, NAMED))}, 'He<n>', or a formula or SymPy expression of one symbol"


def _by_name(name: str, argument: str) -> Activation:
    if name in NAMED:
        return Activation(NAMED[name], name)
    if match := re.fullmatch(r"He(\d+)", name):
        return _from_expression(hermite(int(match[1])), argument)
    if name.isidentifier() and name not in ("x", "h"):
        raise ModelError(argument, name, _ACCEPTED + nearest(name, [*NAMED, "He2", "He3"]))
    from .text import parse_expression  # only formulas given as text need the parser

    return _from_expression(parse_expression(name, argument), argument)


def _from_expression(expr: sympy.Expr, argument: str) -> Activation:
    symbols = expr.free_symbols
    if len(symbols) > 1:
        raise ModelError(
            argument, expr, f"a function of one variable; it contains {', '.join(sorted(map(str, symbols)))}"
        )
    if expr.has(sympy.zoo, sympy.oo, -sympy.oo, sympy.nan):
        raise ModelError(argument, expr, "a function with finite values")
    expr = expr.subs({s: X for s in symbols})
    name = next((known for known, e in NAMED.items() if e == expr), "") or _hermite_name(expr)
    return Activation(expr, name)


def _hermite_name(expr: sympy.Expr) -> str:
    """Return the name of a Hermite polynomial, so that a formula and its name state equal models."""
    if not expr.is_polynomial(X) or not expr.has(X):
        return ""
    degree = sympy.degree(expr, X)
    return f"He{degree}" if 1 < degree <= 20 and sympy.expand(expr - hermite(degree)) == 0 else ""
