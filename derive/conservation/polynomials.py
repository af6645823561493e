"""Sparse polynomials with rational coefficients in numbered variables: as much algebra as the search for laws needs.

Hundreds of products of polynomials of thirty variables, of a few terms each, are nothing for dictionaries, and seconds
for SymPy's expressions. Knows nothing of laws.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import sympy

from ..errors import Described, ModelError

Monomial = tuple[int, ...]
"""The numbers of its variables in ascending order, each as often as its power: x0² x3 is (0, 0, 3)."""
Polynomial = dict[Monomial, int]
"""The coefficient of each monomial; no zeros."""
Field = dict[int, Polynomial]
"""The components of a vector field that do not vanish."""


def read_polynomial(expr: sympy.Expr, variables: Sequence[sympy.Expr], argument: str) -> dict[Monomial, Fraction]:
    """Return a SymPy expression as a polynomial.

    Raises
    ------
    ModelError
        If it is not a polynomial in ``variables`` with rational coefficients.

    Examples
    --------
    >>> x, y = sympy.symbols("x y")
    >>> read_polynomial(x**2 * y / 2 - 3, [x, y], "phi")
    {(0, 0, 1): Fraction(1, 2), (): Fraction(-3, 1)}
    """
    try:
        terms = sympy.Poly(expr, *variables).terms()
    except sympy.PolynomialError:
        raise ModelError(argument, Described(expr), f"a polynomial in {_some(variables)}") from None
    if strange := [c for _, c in terms if not c.is_Rational]:
        accepted = f"a polynomial in {_some(variables)} with rational coefficients"
        hint = "; write 0.1 as Rational(1, 10)" if any(c.is_Float for c in strange) else ""
        raise ModelError(argument, Described(expr), f"{accepted}; here a coefficient is {strange[0]}{hint}")
    spread = ((tuple(n for n, power in enumerate(powers) for _ in range(power)), c) for powers, c in terms)
    return {monomial: Fraction(int(c.p), int(c.q)) for monomial, c in spread if c}


def _some(variables: Sequence[sympy.Expr]) -> str:
    names = list(map(str, variables))
    return ", ".join(names if len(names) <= 6 else [*names[:4], "…", names[-1]])


def whole_numbers(p: Mapping[Monomial, Fraction]) -> Polynomial:
    """Return the least multiple of a polynomial with whole coefficients.

    Examples
    --------
    >>> whole_numbers({(0,): Fraction(1, 2), (1,): Fraction(-4, 3)})
    {(0,): 3, (1,): -8}
    """
    scale = math.lcm(*(c.denominator for c in p.values()))
    return {monomial: int(c * scale) for monomial, c in p.items()}


def write_polynomial(p: Mapping[Monomial, int | Fraction], variables: Sequence[sympy.Expr]) -> sympy.Expr:
    """Return a polynomial as a SymPy expression.

    Examples
    --------
    >>> write_polynomial({(0, 0, 1): 2, (1,): -3}, sympy.symbols("x y"))
    2*x**2*y - 3*y
    """
    return sympy.Add(
        *(sympy.Mul(sympy.Rational(c.numerator, c.denominator), *(variables[n] for n in m)) for m, c in p.items())
    )


def monomials(variables: int, degree: int) -> Iterator[Monomial]:
    """All monomials of one degree, in lexicographic order."""
    return itertools.combinations_with_replacement(range(variables), degree)


def gradient(p: Mapping[Monomial, int]) -> Field:
    """Return the gradient of a polynomial.

    Examples
    --------
    >>> gradient({(0, 0, 1): 5})
    {0: {(0, 1): 10}, 1: {(0, 0): 5}}
    """
    field: Field = {}
    for monomial, coefficient in p.items():
        for variable in dict.fromkeys(monomial):
            at = monomial.index(variable)
            lowered = monomial[:at] + monomial[at + 1 :]
            field.setdefault(variable, {})[lowered] = coefficient * monomial.count(variable)
    return field


def product(p: Mapping[Monomial, int], q: Mapping[Monomial, int]) -> Polynomial:
    """Return the product of two polynomials.

    Examples
    --------
    >>> product({(0,): 1, (1,): 1}, {(0,): 1, (1,): -1})
    {(0, 0): 1, (1, 1): -1}
    """
    return total((tuple(sorted(m + n)), a * b) for m, a in p.items() for n, b in q.items())


def total(terms: Iterable[tuple[Monomial, int]]) -> Polynomial:
    """Return the sum of terms."""
    out: Polynomial = {}
    for monomial, coefficient in terms:
        out[monomial] = out.get(monomial, 0) + coefficient
    return {monomial: coefficient for monomial, coefficient in out.items() if coefficient}


def along(p: Mapping[Monomial, int], field: Field) -> Polynomial:
    """Return the derivative of a polynomial along a vector field, ∇p·f.

    Examples
    --------
    >>> along({(0, 0): 1, (1, 1): 1}, {0: {(1,): 1}, 1: {(0,): -1}})  # x² + y² along a rotation
    {}
    """
    parts = (product(slope, field[n]) for n, slope in gradient(p).items() if n in field)
    return total(term for part in parts for term in part.items())


def value(p: Mapping[Monomial, int], point: Sequence[int], prime: int) -> int:
    """Return the value of a polynomial at a point, modulo a prime."""
    out = 0
    for monomial, coefficient in p.items():
        for variable in monomial:
            coefficient = coefficient * point[variable] % prime
        out += coefficient
    return out % prime


def degrees(p: Mapping[Monomial, int]) -> set[int]:
    """Return the degrees of the terms of a polynomial."""
    return {len(monomial) for monomial in p}
