"""Losses: SymPy expressions in the output φ and the label y, and the table of those that have a name.

Knows nothing about networks; a model says what φ and y are.
"""

from dataclasses import dataclass
from typing import Any

import sympy

from .errors import Described, ModelError, nearest
from .numerical.stable import stable
from .text import parse_expression

PHI, Y = sympy.symbols("phi y", real=True)
_R = Y - PHI

NAMED: dict[str, sympy.Expr] = {
    "squared": _R**2 / 2,
    "absolute": sympy.Abs(_R),
    "huber": sympy.Piecewise((_R**2 / 2, sympy.Abs(_R) <= 1), (sympy.Abs(_R) - sympy.Rational(1, 2), True)),
    "correlation": -Y * PHI,
    "logistic": sympy.log(1 + sympy.exp(-Y * PHI)),
    "exponential": sympy.exp(-Y * PHI),
    "hinge": sympy.Max(0, 1 - Y * PHI),
    "squared-hinge": sympy.Max(0, 1 - Y * PHI) ** 2 / 2,
    "smooth-hinge": sympy.log(1 + sympy.exp(1 - Y * PHI)),
    "perceptron": sympy.Max(0, -Y * PHI),
}
"""Losses that are asked for by name. A new one is a line here."""
ALIASES = {"mse": "squared", "cross-entropy": "logistic", "mae": "absolute"}
MARGIN = ("logistic", "exponential", "hinge", "squared-hinge", "smooth-hinge", "perceptron")
"""Losses of the margin yφ, which say something for labels ±1 only."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss ℓ(φ, y) of one example.

    Parameters
    ----------
    expr : sympy.Expr
        ℓ in the symbols :data:`PHI` and :data:`Y`.
    name : str
        The name it is asked for; empty for a user's own.

    Examples
    --------
    >>> loss("logistic").slope
    -y*(1/2 - tanh(phi*y/2)/2)
    >>> loss("hinge").slope
    -y*Heaviside(-phi*y + 1)
    """

    expr: sympy.Expr
    name: str = ""

    @property
    def slope(self) -> sympy.Expr:
        """∂ℓ/∂φ; at a kink the mean of the two sides."""
        return _slope(self.expr)

    @property
    def polynomial(self) -> bool:
        """Whether the slope is a polynomial in φ and y, so that it multiplies out."""
        return bool(self.slope.is_polynomial(PHI, Y))

    @property
    def jumps(self) -> bool:
        """Whether the slope jumps somewhere, as that of a hinge does; Huber's and the squared hinge's do not."""
        return self.slope.has(sympy.sign, sympy.Heaviside) and not self.slope.has(sympy.Max, sympy.Piecewise)

    def __repr__(self) -> str:
        return f"loss({self.name!r})" if self.name else f"loss({str(self.expr)!r})"


def loss(given: Any) -> Loss:
    """Return the loss that a user names or writes.

    Parameters
    ----------
    given : str, sympy.Expr, callable or Loss
        A name, a formula in ``phi`` (the output) and ``y`` (the label) as text or SymPy expression, or a function of
        the two.

    Raises
    ------
    ModelError
        If it is none of these, or if its gradient vanishes almost everywhere, like that of the 0–1 loss.

    Examples
    --------
    >>> loss("(y - phi)**4/4")
    loss('(-phi + y)**4/4')
    >>> loss(lambda phi, y: (y - phi)**2/2) == loss("squared")
    True
    """
    if isinstance(given, Loss):
        return given
    if isinstance(given, str):
        name = ALIASES.get(given, given)
        if name in NAMED:
            return Loss(NAMED[name], name)
        if given.replace("-", "_").isidentifier() and given not in ("phi", "y"):
            raise ModelError("loss", given, _ACCEPTED + nearest(given, [*NAMED, *ALIASES]))
        given = parse_expression(given, "loss", {"phi": PHI, "y": Y})
    elif callable(given) and not isinstance(given, sympy.Basic):
        try:
            given = given(PHI, Y)
        except Exception as error:  # whatever a user's function does with symbols
            accepted = "a function of two SymPy expressions, such as lambda phi, y: (y - phi)**4"
            raise ModelError(
                "loss", Described(f"a function that fails with {type(error).__name__}: {error}"), accepted
            ) from error
    if not isinstance(given, sympy.Expr):
        raise ModelError("loss", given, _ACCEPTED)
    return _checked(given.subs({s: {"phi": PHI, "y": Y}[s.name] for s in given.free_symbols if s.name in ("phi", "y")}))


_ACCEPTED = f"one of {', '.join(map(repr, NAMED))}, or a formula in phi and y such as '(y - phi)**4/4'"


def _checked(expr: sympy.Expr) -> Loss:
    if stray := expr.free_symbols - {PHI, Y}:
        raise ModelError(
            "loss", expr, f"an expression in phi and y alone; it also contains {', '.join(sorted(map(str, stray)))}"
        )
    if not expr.has(PHI):
        raise ModelError("loss", expr, "an expression that depends on the output phi")
    slope = _slope(expr)
    if slope == 0 or slope.has(sympy.DiracDelta):
        accepted = "a loss that is continuous in phi: the gradient of this one vanishes almost everywhere"
        raise ModelError("loss", expr, f"{accepted} (gradient descent on it does nothing; use a surrogate, 'hinge')")
    return Loss(expr, next((name for name, known in NAMED.items() if sympy.expand(known - expr) == 0), ""))


def _slope(expr: sympy.Expr) -> sympy.Expr:
    """Return ∂ℓ/∂φ with H(0) = ½, and logistic functions as hyperbolic tangents, which do not overflow."""
    halved = sympy.diff(expr, PHI).replace(sympy.Heaviside, lambda u, *_: sympy.Heaviside(u, sympy.Rational(1, 2)))
    return stable(halved)


def decaying_logarithms(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with log(1 + e^u) as u + log(1 + e^(−u)) where u grows: like terms meet.

    Examples
    --------
    >>> u = sympy.Symbol("u", real=True)
    >>> decaying_logarithms(sympy.log(1 + sympy.exp(u)) - sympy.log(1 + sympy.exp(-u)))
    u
    """

    def rewrite(argument: sympy.Expr) -> sympy.Expr:
        one, rest = argument.as_coeff_Add()
        grows = isinstance(rest, sympy.exp) and any(rest.exp.coeff(s).is_positive for s in rest.exp.free_symbols)
        if one == 1 and grows:
            return rest.exp + sympy.log(1 + sympy.exp(-rest.exp))
        return sympy.log(argument)

    return expr.replace(sympy.log, rewrite)
