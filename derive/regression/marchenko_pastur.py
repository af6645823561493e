"""The spectrum of X^T X/n for isotropic inputs, from the self-consistent equation of its resolvent.

E (z + X^T X/n)^-1 has the eigenvalues 1/(z + kappa(z) lam) with kappa = 1/(1 + r E_lam[lam/(z + kappa lam)]), r = d/n.
Source: Marchenko & Pastur, Math. USSR Sb. 1, 457 (1967); the self-consistent equation: Silverstein & Bai 1995.
"""

from dataclasses import dataclass
from functools import lru_cache

import sympy

from ..dynamics import Equation, Quantity
from .quantities import RATIO, Spectrum

Z = sympy.Symbol("z")
EIGENVALUE = sympy.Symbol("lambda", nonnegative=True)
"""An eigenvalue of X^T X/n under an integral."""
r = RATIO.base


def kappa(z: sympy.Expr) -> sympy.Expr:
    """Return the function of the self-consistent equation at ``z``."""
    return sympy.Function("kappa")(z)


def self_consistent(spectrum: Spectrum) -> sympy.Expr:
    """Return the right-hand side of kappa(z) = ….

    Examples
    --------
    >>> self_consistent(Spectrum(False))
    1/(r/(z + kappa(z)) + 1)
    """
    lam, p = spectrum.lam, spectrum.p
    return 1 / (1 + r * spectrum.total(p * lam / (Z + kappa(Z) * lam)))


@lru_cache(maxsize=1)
def density() -> sympy.Expr:
    """Return the density of eigenvalues between :func:`edges`.

    With m = 1/(z + kappa) the equation is quadratic; at z = -lambda its discriminant is negative between the edges, and
    the density is the imaginary part of m over pi.

    Examples
    --------
    >>> density().subs(r, 1)
    sqrt(4 - lambda)/(2*pi*sqrt(lambda))
    """
    m = sympy.Symbol("m")
    equation = self_consistent(Spectrum(False)).subs(kappa(Z), 1 / m - Z) - (1 / m - Z)
    quadratic = sympy.Poly(sympy.numer(sympy.together(equation)), m)
    if quadratic.degree() == 3:  # together() may leave a factor m, which is no solution
        quadratic = sympy.Poly(sympy.cancel(quadratic.as_expr() / m), m)
    leading, discriminant = (sympy.factor(e.subs(Z, -EIGENVALUE)) for e in (quadratic.LC(), quadratic.discriminant()))
    low, high = edges()
    negative = (high - EIGENVALUE) * (EIGENVALUE - low)
    scale = sympy.cancel(sympy.expand(discriminant) / sympy.expand(-negative))
    if scale != 1:
        raise ArithmeticError(f"the discriminant {discriminant} does not change sign at the edges {low}, {high}")
    return sympy.sqrt(negative) / (2 * sympy.Abs(sympy.cancel(leading)) * sympy.pi)


def rho(eigenvalue: sympy.Expr) -> sympy.Expr:
    """Return the density of eigenvalues as a function by name, which :data:`DENSITY` defines."""
    return sympy.Function("rho")(eigenvalue)


DENSITY = Quantity("rho", latex=r"\rho", meaning="density of the eigenvalues of X^T X/n, but those that vanish")


def definition() -> Equation:
    """Return the equation that defines rho."""
    return Equation(DENSITY, density())


def edges() -> tuple[sympy.Expr, sympy.Expr]:
    """Return the least and the largest eigenvalue but 0, where the discriminant vanishes."""
    return (1 - sympy.sqrt(r)) ** 2, (1 + sympy.sqrt(r)) ** 2


def atom() -> sympy.Expr:
    """Return the fraction of eigenvalues that are zero: directions that n < d examples do not have."""
    return sympy.Max(0, 1 - 1 / r)


def average(value: sympy.Expr) -> sympy.Expr:
    """Return the mean of a function of EIGENVALUE, which must be finite at 0, over all eigenvalues.

    Examples
    --------
    >>> average(EIGENVALUE).atoms(sympy.Max)  # zero eigenvalues add nothing to the trace
    set()
    """
    front, inside = value.as_independent(EIGENVALUE, as_Add=False)
    at_zero = sympy.limit(inside, EIGENVALUE, 0)
    return front * (atom() * at_zero + sympy.Integral(inside * rho(EIGENVALUE), (EIGENVALUE, *edges())))


@dataclass(frozen=True, slots=True)
class RandomSpectrum:
    """The eigenvalues of X^T X/n for isotropic inputs, in the place of classes: their mean instead of a sum over p.

    The squared error ``c`` is spread evenly over the eigenvectors, which do not know the target.
    """

    general: bool = True

    @property
    def error(self) -> Quantity:
        """The squared error of the weights."""
        return Spectrum(False).error

    @property
    def c(self) -> sympy.Expr:
        """The squared error."""
        return self.error.symbol

    @property
    def lam(self) -> sympy.Expr:
        """An eigenvalue."""
        return EIGENVALUE

    @property
    def p(self) -> sympy.Expr:
        """The density of directions, with respect to the mean over eigenvalues."""
        return sympy.S.One

    @property
    def covered(self) -> sympy.Expr:
        """All directions."""
        return sympy.S.One

    def total(self, summand: sympy.Expr) -> sympy.Expr:
        """Return the mean over eigenvalues."""
        return average(summand)
