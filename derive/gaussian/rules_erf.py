"""Expectation rules for the error function and the normal distribution function, which is (1 + erf(x/√2))/2."""

import sympy

from ..activation import X
from .integrand import Integrand
from .recursion import expectation


def complement(integrand: Integrand) -> sympy.Expr | None:
    """erfc is 1 − erf."""
    for n, (a, f) in enumerate(integrand.factors):
        if f.has(sympy.erfc):
            return expectation(integrand.without(n).with_factor(a, f.replace(sympy.erfc, lambda u: 1 - sympy.erf(u))))
    return None


def erf_pair(integrand: Integrand) -> sympy.Expr | None:
    """E[erf(c h_1) erf(k h_2)] = (2/π) asin(2ck C_12 / (√(1 + 2c²C_11) √(1 + 2k²C_22))), centred.

    The roots apart, since tilts shorten each of them alone. Source: Williams, Neural Comput. 10, 1203 (1998).
    """
    if len(integrand.factors) != 2 or not all(isinstance(f, sympy.erf) for _, f in integrand.factors):
        return None
    larger = _as_sign(_as_sign(integrand, 0), 0) if all(_line(f) for _, f in integrand.factors) else None
    if larger is None or not larger.centred:
        return None
    (first, _), (second, _) = larger.factors
    C = larger.C
    return 2 / sympy.pi * sympy.asin(C[first][second] / sympy.sqrt(C[first][first]) / sympy.sqrt(C[second][second]))


def augment(integrand: Integrand) -> sympy.Expr | None:
    """erf(c h_a + k) = E_z[sign(u)], u = √2 (c h_a + k) − z with z ~ N(0, 1) its own: a field more, with a sign."""
    for n, (_, f) in enumerate(integrand.factors):
        if isinstance(f, sympy.erf) and _line(f):
            return expectation(_as_sign(integrand, n))
    return None


def _line(f: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr] | None:
    """Return √2 c and √2 k of erf(c x + k), or None if the argument is not affine."""
    argument = sympy.expand(f.args[0])
    bias = argument.subs(X, 0)
    slope = sympy.expand(sympy.sqrt(2) * (argument - bias) / X)
    return None if slope.has(X) or bias.has(sympy.nan, sympy.zoo) else (slope, sympy.expand(sympy.sqrt(2) * bias))


def _as_sign(integrand: Integrand, n: int) -> Integrand:
    a, f = integrand.factors[n]
    line = _line(f)
    assert line is not None
    slope, bias = line
    larger = integrand.without(n).with_field({a: slope}, bias, sympy.sign(X))
    row = tuple(slope * integrand.C[a][b] for b in range(len(integrand.C)))
    corner = 1 + slope**2 * integrand.C[a][a]
    C = (*larger.C[:-1], (*row, corner))
    return Integrand(larger.factors, C, larger.m)
