"""Expectations of polynomials in centred, jointly Gaussian variables, by summing over pairings.

Source: Isserlis, Biometrika 12, 134 (1918). Knows nothing of what the variables are.
"""

from collections.abc import Iterator, Mapping, Sequence

import sympy

Covariance = Mapping[tuple[sympy.Symbol, sympy.Symbol], sympy.Expr]


def pairings(items: Sequence[sympy.Symbol]) -> Iterator[tuple[tuple[sympy.Symbol, sympy.Symbol], ...]]:
    """Yield every way of putting all items in pairs; none if their number is odd.

    Examples
    --------
    >>> a, b, c, d = sympy.symbols("a b c d")
    >>> list(pairings([a, b, c, d]))
    [((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c))]
    """
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for n, partner in enumerate(rest):
        for others in pairings([*rest[:n], *rest[n + 1 :]]):
            yield ((first, partner), *others)


def gaussian_average(expr: sympy.Expr, covariance: Covariance) -> sympy.Expr:
    """Return the expectation of a polynomial in centred Gaussian variables.

    Parameters
    ----------
    expr : sympy.Expr
        A polynomial in the variables; its coefficients may be any expressions without them.
    covariance : mapping
        Of two variables, in either order; pairs that are not in it are independent.

    Raises
    ------
    sympy.PolynomialError
        If ``expr`` is not a polynomial in the variables.

    Examples
    --------
    >>> x, y, s, c = sympy.symbols("x y s c")
    >>> gaussian_average(x**4 + x**2 * y**2, {(x, x): s, (y, y): 1, (x, y): c})
    2*c**2 + 3*s**2 + s
    """
    variables = sorted({v for pair in covariance for v in pair}, key=str)
    known = {**covariance, **{(b, a): value for (a, b), value in covariance.items()}}
    total = sympy.S.Zero
    for powers, coefficient in sympy.Poly(expr, *variables).terms():
        factors = [v for v, power in zip(variables, powers, strict=True) for _ in range(power)]
        for pairing in pairings(factors):
            total += coefficient * sympy.Mul(*(known.get(pair, sympy.S.Zero) for pair in pairing))
    return sympy.expand(total)
