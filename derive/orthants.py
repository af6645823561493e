"""The base case of the expectation rules: products of signs of jointly Gaussian fields, which are orthant
probabilities."""

import sympy

from .errors import NoClosedForm


def sign_product(C: tuple[tuple[sympy.Expr, ...], ...]) -> sympy.Expr:
    """Return E[sign(u₁) … sign(u_n)] for u ~ N(0, C).

    n = 2 is Sheppard's (2/π) asin ρ; odd n vanish by symmetry. P(u > 0) follows by Θ = (1 + sign)/2.
    Source: Sheppard, Phil. Trans. R. Soc. A 192, 101 (1899).

    Raises
    ------
    NoClosedForm
        For n ≥ 4, which has no elementary form.
    """
    n = len(C)
    if n % 2:
        return sympy.S.Zero
    if n == 2:
        return 2 / sympy.pi * sympy.asin(C[0][1] / sympy.sqrt(C[0][0]) / sympy.sqrt(C[1][1]))
    raise NoClosedForm(
        f"E[{' '.join(f'sign(u{a + 1})' for a in range(n))}]",
        f"orthant probabilities of dimension {n} are not elementary",
        "Products of at most two erf functions (after differentiation) and any polynomials have closed forms.",
    )
