"""The null-space method: every polynomial h up to a degree with ∇h·∇φ_k = 0 for all k, as one linear system."""

import math
from collections.abc import Iterable, Mapping, Sequence

from tqdm import tqdm

from ..errors import ModelError
from .lie_rank import random_point
from .linear_algebra import DELAY, PRIME, Row, Span, null_space
from .polynomials import Field, Monomial, Polynomial, along, gradient, monomials, value
from .readable import shortened

MOST_MONOMIALS = 100_000


def polynomial_laws(fields: Sequence[Field], variables: int, degree: int, homogeneous: bool) -> list[Polynomial]:
    """Return a basis of the polynomials without constant that do not change along any of the fields.

    Parameters
    ----------
    fields : sequence of dict
        Vector fields: components by number, as polynomials.
    variables, degree : int
        The number of variables, and the highest degree.
    homogeneous : bool
        Whether each field has components of one degree only. Laws of different degrees are then found apart.

    Examples
    --------
    >>> rotation = {0: {(1,): 1}, 1: {(0,): -1}}
    >>> polynomial_laws([rotation], 2, 2, homogeneous=True)
    [{(0, 0): 1, (1, 1): 1}]
    """
    check_degree(degree, variables)
    groups = [[n] for n in range(1, degree + 1)] if homogeneous else [range(degree, 0, -1)]
    return [law for group in groups for law in annihilated(fields, [m for n in group for m in monomials(variables, n)])]


def check_degree(degree: int, variables: int) -> None:
    """Refuse degrees that are no degrees, or that would take hours."""
    check_whole(degree, "degree", 1)
    if (count := math.comb(variables + degree, degree)) > MOST_MONOMIALS:
        accepted = f"a lower degree: there are {count} monomials of {variables} variables, and at most {MOST_MONOMIALS}"
        raise ModelError("degree", degree, f"{accepted} are searched")


def check_whole(given: int, argument: str, least: int) -> None:
    """Refuse what is no whole number, or one that is too small."""
    if isinstance(given, bool) or not hasattr(given, "__index__") or given < least:
        raise ModelError(argument, given, f"a whole number, {least} or more")


def annihilated(fields: Sequence[Field], candidates: Sequence[Monomial]) -> list[Polynomial]:
    """Return a basis of the combinations of monomials whose derivative along each field vanishes."""
    found = shortened(null_space(equations(fields, candidates), len(candidates)))
    return [{candidates[n]: c for n, c in v.items()} for v in found]


def equations(fields: Sequence[Field], candidates: Sequence[Monomial]) -> list[Row]:
    """Return what the coefficients of the candidates must satisfy: one equation for each term of each derivative."""
    touched: dict[int, list[tuple[int, Monomial, int]]] = {}  # a variable occurs in few of many fields
    for k, field in enumerate(fields):
        for variable, component in field.items():
            touched.setdefault(variable, []).extend((k, m, c) for m, c in component.items())
    rows: dict[tuple[int, Monomial], Row] = {}
    for column, candidate in enumerate(tqdm(candidates, "equations", delay=DELAY, leave=False)):
        for variable, slope in gradient({candidate: 1}).items():
            ((lowered, power),) = slope.items()
            for k, monomial, coefficient in touched.get(variable, ()):
                row = rows.setdefault((k, tuple(sorted(lowered + monomial))), {})
                row[column] = row.get(column, 0) + power * coefficient
    return list(rows.values())


def conserved_along(law: Mapping[Monomial, int], fields: Iterable[Field]) -> bool:
    """Return whether a polynomial does not change along any of the fields, by multiplying out."""
    return not any(along(law, field) for field in fields)


def independent_laws(laws: Sequence[Mapping[Monomial, int]], variables: int) -> list[int]:
    """Return the numbers of laws that are functionally independent, each of those before it.

    By the rank of their Jacobian at a random point modulo a 61-bit prime: what is called independent is so.

    Examples
    --------
    >>> independent_laws([{(0,): 1}, {(0, 0): 1}, {(0, 1): 1}], 2)
    [0, 2]
    """
    point, span = random_point(variables), Span()
    rows = [{n: value(slope, point, PRIME) for n, slope in gradient(law).items()} for law in laws]
    return [n for n, row in enumerate(rows) if span.add(row)]
