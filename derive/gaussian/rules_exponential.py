"""Expectation rules for exponentials of at most quadratic functions: real ones, hyperbolic ones."""

import sympy

from ..activation import X
from ..errors import Described, ModelError
from .integrand import Integrand
from .recursion import expectation

GROWTH = (
    "a function that grows more slowly than any exp(c*x**2): local fields are Gaussian, and averages of anything "
    "faster exist at best for small variances"
)


def exponentials(integrand: Integrand) -> sympy.Expr | None:
    """sinh, cosh and a^x are exponentials."""
    for n, (a, f) in enumerate(integrand.factors):
        written = in_exponentials(f)
        if written != f:
            return expectation(integrand.without(n).with_factor(a, written))
    return None


def in_exponentials(f: sympy.Expr) -> sympy.Expr:
    """Return a function with sinh, cosh and a^x, a > 0, written as exponentials."""
    f = f.replace(sympy.sinh, lambda u: (sympy.exp(u) - sympy.exp(-u)) / 2)
    f = f.replace(sympy.cosh, lambda u: (sympy.exp(u) + sympy.exp(-u)) / 2)
    return f.replace(
        lambda e: isinstance(e, sympy.Pow) and e.base.is_positive and not e.base.has(X) and e.exp.has(X),
        lambda e: sympy.exp(e.exp * sympy.log(e.base)),
    )


def tilt(integrand: Integrand) -> sympy.Expr | None:
    """A factor exp(−½αh_a² + βh_a) changes the law: with s = 1 + αC_aa,

    E[exp(−½αh_a² + βh_a) G] = s^(−½) exp((−½αm_a² + βm_a + ½β²C_aa)/s) E'[G],
    C' = C − α C_·a C_a·/s, m' = m + C_·a (β − αm_a)/s.

    Exact for singular C too: nothing is inverted but s > 0. Source: completing the square (Sherman–Morrison).
    """
    for n, (a, f) in enumerate(integrand.factors):
        if isinstance(f, sympy.exp) and (parabola := _parabola(f)):
            alpha, beta, constant = parabola
            C, m, scale = integrand.C, integrand.m, 1 + alpha * integrand.C[a][a]
            tilted = tuple(
                tuple(C[b][c] - alpha * C[b][a] * C[a][c] / scale for c in range(len(C))) for b in range(len(C))
            )
            shifted = tuple(mean + C[b][a] * (beta - alpha * m[a]) / scale for b, mean in enumerate(m))
            exponent = constant + (-alpha * m[a] ** 2 / 2 + beta * m[a] + beta**2 * C[a][a] / 2) / scale
            rest = Integrand(integrand.without(n).factors, tilted, shifted)
            return sympy.exp(exponent) * expectation(rest) / sympy.sqrt(scale)
    return None


def _parabola(f: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr] | None:
    """Return α, β and the constant of exp(−½αx² + βx + constant), or None if the exponent is no such polynomial."""
    exponent = sympy.expand(f.exp)
    if not exponent.is_polynomial(X) or sympy.degree(exponent, X) > 2:
        return None
    alpha, beta, constant = -2 * exponent.coeff(X, 2), exponent.coeff(X, 1), exponent.coeff(X, 0)
    if alpha.is_negative:
        raise ModelError("activation", Described(f"{f}, which has no Gaussian expectation,"), GROWTH)
    return alpha, beta, constant
