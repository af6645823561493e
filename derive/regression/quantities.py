"""What linear regression is described by: classes of directions with one eigenvalue each, rates, noise, ratios.

The covariance of the inputs has the eigenvalue lam_l on a fraction p_l of all directions; the rest, if the fractions do
not add up to 1, has none. With as many classes as directions any covariance is of this form. Isotropic inputs are one
class with eigenvalue 1.
"""

from dataclasses import dataclass
from typing import Protocol

import sympy

from ..dynamics import Quantity
from ..increments import D

L = sympy.Symbol("L", positive=True, integer=True)
"""The number of classes."""
N = sympy.Symbol("n", positive=True, integer=True)
"""The number of examples."""
l, j = sympy.symbols("l j", positive=True, integer=True)

ETA = Quantity("eta", meaning="learning rate", latex=r"\eta", minimum=0.0)
SIGMA = Quantity("sigma", meaning="standard deviation of the label noise", latex=r"\sigma", minimum=0.0)
RATIO = Quantity("r", meaning="dimension over number of examples, d/n", latex="r", minimum=0.0)
DIMENSION = Quantity("d", meaning="input dimension", latex="d", minimum=1.0)
LAM = Quantity("lam", (l,), (L,), r"\lambda", "eigenvalue of the covariance in each class", minimum=0.0, dims=("mode",))
P = Quantity("p", (l,), (L,), "p", "fraction of directions in each class", minimum=0.0, dims=("mode",), maximum=1.0)
_ERROR = "squared error |w - w*|^2 of the weights"
EG = Quantity("eg", latex=r"\epsilon_g", meaning="generalisation error without noise")
LOSS = Quantity("loss", latex=r"\ell", meaning="expected loss on fresh examples, noise included")
TRAIN_LOSS = Quantity("train_loss", latex=r"\epsilon_t", meaning="loss on the training set")
eta, sigma, r, d = ETA.base, SIGMA.base, RATIO.base, DIMENSION.base
assert D.name == d.name  # the symbol of a dimension in derivations, and of the parameter


class Eigenvalues(Protocol):
    """What a sum over directions needs: rates for one class or one eigenvalue, and the sum of these."""

    @property
    def general(self) -> bool: ...
    @property
    def error(self) -> Quantity: ...
    @property
    def c(self) -> sympy.Expr: ...
    @property
    def lam(self) -> sympy.Expr: ...
    @property
    def p(self) -> sympy.Expr: ...
    @property
    def covered(self) -> sympy.Expr: ...
    def total(self, summand: sympy.Expr) -> sympy.Expr: ...


@dataclass(frozen=True, slots=True)
class Spectrum:
    """How the directions fall into classes: any number of classes, or one with eigenvalue 1.

    Examples
    --------
    >>> Spectrum(True).total(Spectrum(True).c)
    Sum(c[j], (j, 1, L))
    >>> Spectrum(False).total(Spectrum(False).c)
    c
    """

    general: bool

    @property
    def error(self) -> Quantity:
        """The squared error of the weights, by class."""
        if self.general:
            return Quantity("c", (l,), (L,), "c", f"{_ERROR} in each class", minimum=0.0, dims=("mode",))
        return Quantity("c", latex="c", meaning=_ERROR, minimum=0.0)

    @property
    def parameters(self) -> tuple[Quantity, ...]:
        """What states the spectrum."""
        return (LAM, P) if self.general else ()

    @property
    def c(self) -> sympy.Expr:
        """The squared error in class l."""
        return self.error.symbol

    @property
    def lam(self) -> sympy.Expr:
        """The eigenvalue of class l."""
        return LAM.symbol if self.general else sympy.S.One

    @property
    def p(self) -> sympy.Expr:
        """The fraction of directions in class l."""
        return P.symbol if self.general else sympy.S.One

    @property
    def covered(self) -> sympy.Expr:
        """The fraction of directions in any class, the sum of ``p``."""
        return self.total(self.p)

    def total(self, summand: sympy.Expr) -> sympy.Expr:
        """Return the sum over classes of what is written for class l, over the index j; what is common in front."""
        if not self.general:
            return summand
        front, inside = summand.as_independent(l, as_Add=False)
        return front * sympy.Sum(inside.subs(l, j), (j, 1, L))
