"""How many laws there are: the directions in which gradients and all their commutators can move the parameters.

A function conserved along every ∇φ_k is conserved along their Lie brackets too, and by Frobenius' theorem nothing else
restrains it: near a generic point there are dim θ − rank independent laws, polynomial or not.
"""

import random
from collections.abc import Sequence

from .linear_algebra import PRIME, Span
from .polynomials import Field, Polynomial, along, gradient, total, value


def random_point(size: int, seed: int = 61) -> list[int]:
    """Return a point of random whole numbers below :data:`PRIME`, the same for the same size."""
    stream = random.Random(seed)
    return [stream.randrange(PRIME) for _ in range(size)]


def lie_rank(fields: Sequence[Field], dimension: int, at_most: int | None = None) -> int:
    """Return the rank, at a generic point, of the Lie algebra that vector fields generate.

    Brackets ``[X, Y] = DY·X − DX·Y`` of generators with what spans the space so far, until its rank stops growing; by
    then it is closed, because functions as coefficients do not matter: ``[X, fY] = f[X, Y] + X(f) Y``. For the same
    reason fields that depend on others at the point are dropped. Ranks are taken at a random point modulo a 61-bit
    prime: never above the true rank, and below it with a probability of about degree·rank/2⁶¹.

    Parameters
    ----------
    fields : sequence of dict
        Components by number, as polynomials.
    dimension : int
        The number of variables.
    at_most : int, optional
        A bound that is known, such as by laws: the search ends when it is reached.

    Examples
    --------
    The rotations about two axes generate the third, and none of them leaves the sphere:

    >>> about_x, about_y = {1: {(2,): -1}, 2: {(1,): 1}}, {0: {(2,): 1}, 2: {(0,): -1}}
    >>> lie_rank([about_x, about_y], 3)
    2

    The Heisenberg group moves everywhere:

    >>> lie_rank([{0: {(): 1}}, {1: {(): 1}, 2: {(0,): 1}}], 3)
    3
    """
    at_most = dimension if at_most is None else at_most
    point = random_point(dimension)
    span = Span()
    basis = [_Local(field, point) for field in fields if span.add(_value(field, point))]
    generators = list(basis)
    for y in basis:  # which grows
        for x in generators:
            if span.rank >= at_most:
                return span.rank
            if span.add(x.bracket_value(y)):
                basis.append(_Local(bracket(x.field, y.field), point))
    return span.rank


class _Local:
    """A vector field with its value and its derivatives at a point."""

    __slots__ = ("field", "slopes", "value")

    def __init__(self, field: Field, point: Sequence[int]) -> None:
        self.field = field
        self.value = _value(field, point)
        self.slopes = {n: _value(gradient(component), point) for n, component in field.items()}

    def bracket_value(self, other: "_Local") -> dict[int, int]:
        """Return the value of [self, other] at the point, without forming it."""
        one, two = other._derivative(self.value), self._derivative(other.value)
        return {n: one.get(n, 0) - two.get(n, 0) for n in {**one, **two}}

    def _derivative(self, direction: dict[int, int]) -> dict[int, int]:
        return {n: sum(s * direction.get(m, 0) for m, s in row.items()) for n, row in self.slopes.items()}


def _value(field: Field, point: Sequence[int]) -> dict[int, int]:
    return {n: value(component, point, PRIME) for n, component in field.items()}


def bracket(x: Field, y: Field) -> Field:
    """Return the Lie bracket of two fields with coefficients modulo :data:`PRIME`.

    Examples
    --------
    >>> bracket({0: {(): 1}}, {1: {(): 1}, 2: {(0,): 1}})
    {2: {(): 1}}
    """
    components = {n: _difference(along(y.get(n, {}), x), along(x.get(n, {}), y)) for n in sorted({**x, **y})}
    return {n: component for n, component in components.items() if component}


def _difference(p: Polynomial, q: Polynomial) -> Polynomial:
    whole = total([*p.items(), *((monomial, -c) for monomial, c in q.items())])
    return {monomial: reduced for monomial, c in whole.items() if (reduced := c % PRIME)}
