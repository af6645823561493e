"""Polynomials in the deviations of variances from 1, where these are shorter.

Moments of Hermite polynomials expand to many terms in the covariances themselves, since He_n is orthogonal to lower
ones only at variance 1: E[He3' He3' He3 He3] has 86, and 25 in C_uu − 1.
"""

import sympy

FEW = 4
"""Up to so many terms nothing is gained."""


def centre_variances(expr: sympy.Expr) -> sympy.Expr:
    """Return ``expr`` with each long polynomial in ``C[u, u]`` as one in ``C[u, u] - 1``, if that has fewer terms.

    Examples
    --------
    >>> C, u, v = sympy.IndexedBase("C"), *sympy.symbols("u v", integer=True)
    >>> p, q = C[u, u], C[v, v]
    >>> centre_variances(p * q - p - q + 1 + C[u, v] ** 3)
    (C[u, u] - 1)*(C[v, v] - 1) + C[u, v]**3
    """
    return expr.replace(lambda e: isinstance(e, sympy.Add) and len(e.args) > FEW, _centred)


def _centred(polynomial: sympy.Add) -> sympy.Expr:
    elements = polynomial.atoms(sympy.Indexed)
    variances = [e for e in elements if len(e.indices) == 2 and e.indices[0] == e.indices[1]]
    if not variances or not polynomial.is_polynomial(*elements):
        return polynomial
    deviations = {e: sympy.Dummy() for e in sorted(variances, key=sympy.default_sort_key)}
    shifted = sympy.expand(polynomial.xreplace({e: 1 + deviation for e, deviation in deviations.items()}))
    if len(sympy.Add.make_args(shifted)) >= len(polynomial.args):
        return polynomial
    return shifted.xreplace({deviation: e - 1 for e, deviation in deviations.items()})
