"""Activation functions: SymPy functions of one local field, and the table of those that have a name.

Knows nothing about networks: a model says where an activation stands, the expectation rules what its averages are.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from .errors import Described, ModelError
from .user_function import KinkedUserFunction, UserFunction, user_function

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
    def is_user_function(self) -> bool:
        """Whether it is one numerical function of a user's, not a formula."""
        return isinstance(self.expr, UserFunction) and self.expr.args == (X,)

    @property
    def text(self) -> str:
        """The name, the formula or the source as text: what :func:`activation` reads."""
        if self.is_user_function:
            return "\n\n".join(self.expr.sources)
        return self.name or sympy.sstr(self.expr, full_prec=True)

    @property
    def plateaus(self) -> tuple[sympy.Expr, ...]:
        """The values other than 0 that it takes on whole intervals, at which the output then has probability mass."""
        kinks = (sympy.Max, sympy.Min, sympy.Abs, sympy.sign, sympy.Heaviside, sympy.Piecewise, KinkedUserFunction)
        if not self.expr.has(*kinks):
            return ()
        slope = self.derivative()
        flat = [x for x in (sympy.Rational(n, 7) for n in range(-100, 101, 3)) if _at(slope, x) == 0]
        return tuple(dict.fromkeys(value for x in flat if (value := _at(self.expr, x)) != 0))

    @property
    def title(self) -> str:
        """The name, the formula, or the name of a user's function: what it is called in a sentence."""
        if self.is_user_function:
            return self.expr.title
        return self.name or sympy.sstr(self.expr, full_prec=True)

    def __call__(self, argument: sympy.Expr) -> sympy.Expr:
        return self.expr.subs(X, argument)

    def __repr__(self) -> str:
        return (
            f"activation({self.text!r})"
            if self.expr.has(UserFunction)
            else f"activation({self.name or str(self.expr)!r})"
        )


def _at(expr: sympy.Expr, x: sympy.Expr) -> sympy.Expr:
    """Return the value of an expression, as a float where a user's function is in it."""
    return expr.subs(X, x).evalf(17) if expr.has(UserFunction) else expr.subs(X, x)


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
    given: "str | sympy.Expr | Callable[..., Any] | Sequence[Callable[[float], float]] | Activation",
    argument: str = "activation",
    *,
    derivative: "Callable[[float], float] | Sequence[Callable[[float], float]] | None" = None,
) -> Activation:
    """Return the activation that a user names or writes.

    Parameters
    ----------
    given : str, sympy.Expr, callable, sequence of callable or Activation
        A name (``"erf"``, meaning erf(h/√2); ``"linear"``; ``"square"``; ``"He3"`` …), a formula as text, a SymPy
        expression of one symbol, or a function that maps a symbol to an expression. Or a Python function of a number
        and its derivative, ``(g, slope)``, made with ``def`` (:mod:`effdyn.derive.user_source` says what they may use);
        their averages are numerical.
    argument : str
        The name of the argument that it came from, for the error.
    derivative : callable or sequence of callable, optional
        The derivative of a Python function of a number, and further ones as far as they are known:
        ``activation(g, derivative=slope)`` is ``activation((g, slope))``.

    Raises
    ------
    ModelError
        If it is none of these, or if a declared derivative is none.

    Examples
    --------
    >>> activation("square").expr
    x**2
    >>> activation(lambda h: sympy.erf(h / sympy.sqrt(2))) == activation("erf")
    True
    >>> softsign = activation("def softsign(x): return x/(1 + abs(x))\\ndef slope(x): return 1/(1 + abs(x))**2")
    >>> softsign.expr, softsign.derivative(), float(softsign(3.0))  # what activation((softsign, slope)) returns
    (softsign(x), slope(x), 0.75)
    """
    if derivative is not None:
        further = (derivative,) if callable(derivative) else tuple(derivative)
        given = (given, *further)
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        return _by_name(given, argument)
    if isinstance(given, (tuple, list)):
        return _from_functions(given, argument)
    if callable(given) and not isinstance(given, sympy.Basic):
        given = _called(given, argument)
    if isinstance(given, sympy.Lambda):
        given = given(X)
    if not isinstance(given, (sympy.Expr, int, float)):
        raise ModelError(argument, given, _ACCEPTED)
    return _from_expression(sympy.sympify(given), argument)


_ACCEPTED = (
    f"one of {', '.join(map(repr, NAMED))}, 'He<n>', a formula or SymPy expression of one symbol, or a Python function "
    "and its derivative, (g, slope)"
)


def _called(function: Callable[..., Any], argument: str) -> Any:
    """Return what a function makes of the symbol."""
    try:
        return function(X)
    except Exception as error:  # whatever a user's function does with a symbol
        given = Described(f"a function that fails with {type(error).__name__}: {error}")
        accepted = "a function of one SymPy expression, such as lambda h: sympy.tanh(h)"
        numbers = "or, for a function of numbers, the function and its derivative: (g, slope)"
        raise ModelError(argument, given, f"{accepted}; {numbers}") from error


def _from_functions(given: Sequence[Any], argument: str) -> Activation:
    if not given or not all(callable(f) and not isinstance(f, (sympy.Basic, type)) for f in given):
        raise ModelError(argument, given, _ACCEPTED)
    return Activation(user_function(given, argument)(X))


def _by_name(name: str, argument: str) -> Activation:
    if name in NAMED:
        return Activation(NAMED[name], name)
    if match := re.fullmatch(r"He(\d+)", name):
        return _from_expression(hermite(int(match[1])), argument)
    if re.match(r"\s*(def\s|@)", name):
        return Activation(user_function(name, argument)(X))
    from .text import parse_expression, suggestion  # only formulas given as text need the parser

    if name.isidentifier() and name not in ("x", "h"):
        raise ModelError(argument, name, _ACCEPTED + suggestion(name, [*NAMED, "He2", "He3"]))
    expr = parse_expression(name, argument)
    if long := sorted(str(s) for s in expr.free_symbols if len(str(s)) > 1):
        known = suggestion(long[0], ["x", "pi"])
        if match := re.fullmatch(r"He(\d\d?)", long[0]):
            known = f": inside a formula it is written {hermite(int(match[1]))}"
        raise ModelError(argument, name, f"a formula in x; {long[0]!r} is not a name known here{known}")
    return _from_expression(expr, argument)


def _from_expression(expr: sympy.Expr, argument: str) -> Activation:
    symbols = expr.free_symbols
    if len(symbols) > 1:
        names = ", ".join(sorted(map(str, symbols)))
        accepted = f"a function of one variable; it contains {names}: the parameters of an activation are numbers"
        raise ModelError(argument, expr, accepted)
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
