"""Gaussian moments as nodes of an expression: E[f1(h_a) f2(h_b) …] over jointly Gaussian local fields.

A node names its fields by index (``h[i]``, ``h_star[n]``) and knows nothing of their covariance: that belongs to the
Dynamics in which it stands. What its value is, :mod:`effdyn.derive.numerical.moment_forms` says once for each
signature.
"""

from typing import Any

import sympy

from .activation import Activation, X


class Univariate(sympy.Basic):
    """A named function of one local field: an activation g, or a derivative of it.

    ``args`` are the symbol it prints under, the order of the derivative and the function as a ``Lambda``.
    """

    @classmethod
    def of(cls, symbol: str, activation: Activation, order: int = 0) -> "Univariate":
        """Return the derivative of the given order of an activation that prints as ``symbol``."""
        return cls(sympy.Symbol(symbol), sympy.Integer(order), sympy.Lambda(X, activation.derivative(order)))

    def __call__(self, field: sympy.Expr) -> "Value":
        return Value(self, field)

    def derivative(self) -> "Univariate":
        """Return the derivative, which prints with one prime more."""
        symbol, order, function = self.args
        return Univariate(symbol, order + 1, sympy.Lambda(X, sympy.diff(function(X), X)))

    @property
    def function(self) -> sympy.Lambda:
        """The function itself."""
        return self.args[2]

    def _sympystr(self, printer: Any) -> str:
        symbol, order, _ = self.args
        return f"{symbol}{chr(39) * int(order)}"


class Value(sympy.Expr):
    """The value f(h) of a :class:`Univariate` f at a local field h; differentiates as one expects."""

    is_commutative = True
    is_real = True

    def _eval_derivative(self, symbol: sympy.Expr) -> sympy.Expr:
        univariate, field = self.args
        return Value(univariate.derivative(), field) * field.diff(symbol)

    def _sympystr(self, printer: Any) -> str:
        return f"{printer.doprint(self.args[0])}({printer.doprint(self.args[1])})"


class Moment(sympy.Expr):
    """``E[f1(h_a) f2(h_b) …]``: the expectation of a product of functions of jointly Gaussian, centred local fields.

    Each argument is a :class:`Value` or a local field itself. A product commutes, so the factors are kept sorted
    (higher derivatives first, bare fields next, students before teachers): moments that mean the same compare equal,
    and each closed form is derived once. Factors of the same field are not merged, so that coincident indices keep the
    signature.

    Examples
    --------
    >>> h, i, j, k = sympy.IndexedBase("h"), *sympy.symbols("i j k")
    >>> from effdyn.derive.activation import activation
    >>> g = Univariate.of("g", activation("erf"))
    >>> Moment(g(h[j]), h[k], g.derivative()(h[i]))
    E[g'(h[i]) h[k] g(h[j])]
    """

    is_commutative = True
    is_real = True

    def __new__(cls, *factors: sympy.Expr) -> "Moment":
        if not factors:
            raise ValueError("a Moment needs at least one factor; the expectation of 1 is sympy.S.One")
        return super().__new__(cls, *sorted(factors, key=_factor_key))

    @property
    def fields(self) -> tuple[sympy.Expr, ...]:
        """The local fields, one a factor, in order."""
        return tuple(f.args[1] if isinstance(f, Value) else f for f in self.args)

    @property
    def signature(self) -> tuple[sympy.Lambda, ...]:
        """The functions, one a factor: moments with the same signature share one closed form."""
        return tuple(f.args[0].function if isinstance(f, Value) else IDENTITY for f in self.args)

    @property
    def shape(self) -> tuple[str, ...]:
        """How the functions print (``("g'", "", "g")``), which with the signature identifies the name of the moment."""
        return tuple(str(f.args[0]) if isinstance(f, Value) else "" for f in self.args)

    def _sympystr(self, printer: Any) -> str:
        return f"E[{' '.join(printer.doprint(f) for f in self.args)}]"


IDENTITY = sympy.Lambda(X, X)


class Joint(sympy.Expr):
    """``E[G]`` of any expression G in the local fields and the label noise, over all fields at once.

    What is not a sum of products of functions of one field each (the derivative of a logistic loss of a committee's
    output) or has no rule of its own term by term (four tanh). Sums inside G stay sums.
    """

    is_commutative = True
    is_real = True

    def _sympystr(self, printer: Any) -> str:
        return f"E[{printer.doprint(self.args[0])}]"


class Dilation(sympy.Expr):
    """``∂_s E_{sΩ}[…]`` at s = 1: how a moment changes when the covariance of all its fields is stretched; with the
    index of a block as second argument, when the inputs' variance in that block is.

    It is what the fluctuation of |x|²/d about 1 contributes: E[(hᵀΩ⁻¹h) G] = N E[G] + E[h·∇G] and E[h·∇G] = 2 ∂_s
    E_{sΩ}[G] (Stein's lemma), so that E[(|x|²/d) G] = E[G] + (2/d) ∂_s E_{sΩ}[G], exactly, at every d.
    """

    is_commutative = True
    is_real = True

    def _sympystr(self, printer: Any) -> str:
        return f"dilation({', '.join(map(printer.doprint, self.args))})"


class Pair(sympy.Expr):
    """``F(x) G(x') x·x'`` for two independent examples x, x' of a batch; its arguments are F and G, and the index of
    the block to which x and x' are confined, if they are.

    Its average is E[F x]·E[G x], where E[F x] = Σ_e E[∂F/∂h_e] v_e/√d by Stein's lemma: of order one, while the square
    of one example's input is d.
    """

    is_commutative = True
    is_real = True

    def _sympystr(self, printer: Any) -> str:
        first, second = (printer.parenthesize(argument, 50) for argument in self.args[:2])
        return f"<{first} x, ({second} x)'>"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        first, second = map(printer.doprint, self.args[:2])
        pair = rf"\left({first}\right) x \cdot \left[\left({second}\right) x\right]'"
        return pair if exp is None else rf"\left({pair}\right)^{{{exp}}}"


def _factor_key(factor: sympy.Expr) -> tuple[Any, ...]:
    """Sort key: derivatives, bare fields, functions; then by the function's name; then by family (``h`` < ``h_star``)
    and index."""
    if isinstance(factor, Value):
        (symbol, order, _), field = factor.args[0].args, factor.args[1]
        return (-int(order) if order else 1, str(symbol), *_field_key(field))
    return (0, "", *_field_key(factor))


def _field_key(field: sympy.Expr) -> tuple[Any, ...]:
    index = field.indices[0]
    return (str(field.base), not index.is_number, int(index) if index.is_number else 0, str(index))
