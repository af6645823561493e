"""A Dynamics at given sizes as one polynomial vector field, with parameters as variables that do not move."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy

from ..errors import Described, ModelError
from .lie_rank import random_point
from .linear_algebra import PRIME
from .polynomials import Field, Monomial, Polynomial, monomials, read_polynomial, total, value

if TYPE_CHECKING:
    from ..dynamics import Dynamics

_ACCEPTED = "a drift that is polynomial in the states, with coefficients rational in the parameters"


@dataclass(frozen=True, slots=True)
class PolynomialFlow:
    """The drift of each state, up to a factor that all share and that depends on parameters only."""

    title: str
    states: tuple[sympy.Expr, ...]
    parameters: tuple[sympy.Expr, ...]
    field: Field

    @property
    def variables(self) -> tuple[sympy.Expr, ...]:
        """States and parameters, as they are numbered."""
        return self.states + self.parameters

    def at_random(self, p: Mapping[Monomial, int]) -> Polynomial:
        """Return a polynomial in the states alone: parameters are random numbers, coefficients modulo a prime."""
        number, point = len(self.states), random_point(len(self.variables), seed=62)

        def term(monomial: Monomial, coefficient: int) -> tuple[Monomial, int]:
            states = tuple(n for n in monomial if n < number)
            return states, value({monomial[len(states) :]: coefficient}, point, PRIME)

        whole = total(term(monomial, coefficient) for monomial, coefficient in p.items())
        return {monomial: reduced for monomial, c in whole.items() if (reduced := c % PRIME)}

    def with_parameters(self, candidates: Sequence[Monomial], degree: int) -> list[Monomial]:
        """Return the candidates times all monomials of the parameters up to a degree."""
        number = len(self.states)
        powers = [tuple(n + number for n in m) for d in range(degree + 1) for m in monomials(len(self.parameters), d)]
        return [candidate + power for candidate in candidates for power in powers]


def polynomial_flow(dynamics: Dynamics, sizes: Mapping[str, int]) -> PolynomialFlow:
    """Return the drift of a Dynamics as polynomials.

    Raises
    ------
    ModelError
        If it is none, or depends on anything but states and parameters, or is not that of an ODE.
    NoClosedForm
        If it contains an expectation without closed form.

    Examples
    --------
    >>> from effdyn.derive import Dynamics, Equation, Quantity
    >>> x, k = Quantity("x"), Quantity("k")
    >>> decay = Dynamics("decay", "ode", "time", (Equation(x, -x.symbol**2 / (1 + k.symbol)),), (k,))
    >>> polynomial_flow(decay, {}).field
    {0: {(0, 0): -1}}
    """
    if dynamics.kind != "ode":
        raise ModelError("dynamics", Described(f"equations of kind {dynamics.kind!r}"), "those of an ODE")
    pairs = dynamics.expand(**sizes).closed().equations
    states = tuple(left for left, _ in pairs)
    parameters = _parameters(dynamics, (right for _, right in pairs), states)
    numerators = _without_denominators(pairs, states, parameters)
    read = []
    for (left, right), numerator in zip(pairs, numerators, strict=True):
        try:
            read.append(read_polynomial(numerator, (*states, *parameters), "dynamics"))
        except ModelError:
            raise _refused(left, right) from None
    scale = math.lcm(*(c.denominator for p in read for c in p.values()))
    field = {n: {m: int(c * scale) for m, c in p.items()} for n, p in enumerate(read) if p}
    at = "".join(f", {name} = {number}" for name, number in sizes.items())
    return PolynomialFlow(f"{dynamics.title}{at}", states, parameters, field)


def _parameters(
    dynamics: Dynamics, drifts: Iterable[sympy.Expr], states: Sequence[sympy.Expr]
) -> tuple[sympy.Expr, ...]:
    """Return the entries of parameters that occur in the drifts, sorted."""
    found: set[sympy.Expr] = set()
    for drift in drifts:
        entries = drift.atoms(sympy.Indexed)
        scalars = drift.xreplace({entry: sympy.Dummy() for entry in entries}).atoms(sympy.Symbol)
        found |= entries | {s for s in scalars if not isinstance(s, sympy.Dummy)}
    names = [q.name for q in dynamics.parameters]
    parameters = sorted(found - set(states), key=sympy.default_sort_key)
    for symbol in parameters:
        if str(getattr(symbol, "base", symbol)) not in names:
            accepted = f"a drift of its states and its parameters alone ({', '.join(names) or 'it has none'})"
            raise ModelError("dynamics", Described(f"an equation with {symbol}"), accepted)
    return tuple(parameters)


def _without_denominators(
    pairs: Sequence[tuple[sympy.Expr, sympy.Expr]], states: Sequence[sympy.Expr], parameters: Sequence[sympy.Expr]
) -> list[sympy.Expr]:
    """Return the drifts times a common denominator of parameters, which only changes the clock."""
    if all(right.is_polynomial(*states, *parameters) for _, right in pairs):
        return [right for _, right in pairs]
    fractions = [sympy.fraction(sympy.together(right)) for _, right in pairs]
    for (left, right), (_, below) in zip(pairs, fractions, strict=True):
        if below.has(*states) or not below.is_polynomial(*parameters):
            raise _refused(left, right)
    common = sympy.lcm_list([below for _, below in fractions])
    return [above * sympy.cancel(common / below) for above, below in fractions]


def _refused(left: sympy.Expr, right: sympy.Expr) -> ModelError:
    text = str(right)
    return ModelError(
        "dynamics", Described(f"d{left}/dt = {text if len(text) < 200 else text[:200] + ' …'}"), _ACCEPTED
    )
