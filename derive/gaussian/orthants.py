"""The base case of the expectation rules: products of signs of jointly Gaussian fields, which are orthant
probabilities by Θ = (1 + sign)/2."""

import itertools

import sympy

from ..errors import NoClosedForm
from .conditional_sign import sign1_given1
from .law import Law
from .special import Phi2, Phi3, sign2_given1, sign2_given2, sign4, upper_triangle


def sign_product(law: Law, fields: tuple[int, ...]) -> sympy.Expr:
    """Return E[sign(h_1) … sign(h_n)] of the given fields.

    Centred: odd n vanish by symmetry, n = 2 is Sheppard's (2/π) asin ρ, n = 4 is Plackett's ``sign4``.
    Source: Sheppard, Phil. Trans. R. Soc. A 192, 101 (1899); Plackett, Biometrika 41, 351 (1954).

    Raises
    ------
    NoClosedForm
        For six and more centred signs, and for four and more with means or thresholds.

    Examples
    --------
    >>> C = tuple(tuple(sympy.Symbol(f"C_{min(a, b)}{max(a, b)}", real=True) for a in (1, 2)) for b in (1, 2))
    >>> sign_product(Law(C, (sympy.S.Zero, sympy.S.Zero)), (0, 1))
    2*asin(C_12/sqrt(C_11*C_22))/pi
    """
    if all(law.mean(a) == 0 for a in fields):
        return _centred(law, fields)
    return _shifted(law, fields)


def _centred(law: Law, fields: tuple[int, ...]) -> sympy.Expr:
    n = len(fields)
    if n == 0:
        return sympy.S.One
    if n % 2:
        return sympy.S.Zero
    if n == 2:
        return sign_pair(law, *fields)
    if n == 4 and law.given:  # covariances given another field are 0/0 where fields coincide
        raise too_many(fields, "of the orthant probability of four fields given another one no regular form is known")
    if n == 4:
        return sign4(*(law.cov(fields[a], fields[b]) for a, b in upper_triangle(4)))
    raise too_many(fields, f"an orthant probability of dimension {n}, of so many kinked or erf factors, is not known")


def sign_pair(law: Law, a: int, b: int) -> sympy.Expr:
    """Return E[sign(h_a) sign(h_b)] of centred fields, regular where they coincide with those that are held at 0."""
    if len(law.given) in (1, 2):
        order = (a, b, *law.given)
        function = sign2_given1 if len(law.given) == 1 else sign2_given2
        return function(*(law.C[order[m]][order[n]] for m, n in upper_triangle(len(order))))
    return 2 / sympy.pi * sympy.asin(law.cov(a, b) / sympy.sqrt(law.cov(a, a) * law.cov(b, b)))


def _shifted(law: Law, fields: tuple[int, ...]) -> sympy.Expr:
    """Π (2Θ_a − 1), expanded: each E[Π Θ] is a normal distribution function."""
    n = len(fields)
    if n == 1:
        return _sign(law, *fields)
    if n > 3:
        raise too_many(fields, f"an orthant probability of dimension {n} off the centre is not known")
    total = sympy.S.Zero
    for size in range(n + 1):
        for some in itertools.combinations(fields, size):
            total += 2**size * (-1) ** (n - size) * _all_positive(law, some)
    return total


def _sign(law: Law, a: int) -> sympy.Expr:
    if len(law.given) == 1:
        (p,) = law.given
        return sign1_given1(law.C[a][a], law.C[a][p], law.C[p][p], law.m[a], law.m[p])
    return sympy.erf(law.mean(a) / sympy.sqrt(2 * law.cov(a, a)))


def _all_positive(law: Law, fields: tuple[int, ...]) -> sympy.Expr:
    """Return P(h_a > 0 for all these a)."""
    if not fields:
        return sympy.S.One
    if len(fields) == 1:
        return (1 + _sign(law, *fields)) / 2
    bounds = [law.mean(a) / sympy.sqrt(law.cov(a, a)) for a in fields]
    rho = [law.cov(a, b) / sympy.sqrt(law.cov(a, a) * law.cov(b, b)) for a, b in itertools.combinations(fields, 2)]
    return (Phi2 if len(fields) == 2 else Phi3)(*bounds, *rho)


def too_many(fields: tuple[int, ...], reason: str) -> NoClosedForm:
    """Return the error for a product of signs that has no closed form."""
    return NoClosedForm(f"E[{' '.join(f'sign(h{a + 1})' for a in fields)}]", reason, INSTEAD)


INSTEAD = (
    'It will be computed numerically with moments="auto", the default, or moments="numeric";\n'
    "  erf(h/√2) is the usual closed-form stand-in for tanh and other sigmoids."
)
"""What works where no closed form is known."""
