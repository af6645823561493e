"""Polynomial first integrals of a polynomial vector field: what a closed ODE of order parameters conserves.

Here the field is one, not any combination of gradients, so more can be conserved, and no Lie algebra counts it. What is
counted is how many polynomials up to the degree there are at generic values of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sympy

from .linear_algebra import Row, Span
from .polynomial_flow import PolynomialFlow, polynomial_flow
from .polynomial_laws import MOST_MONOMIALS, annihilated, check_degree, check_whole, equations, independent_laws
from .polynomials import Monomial, Polynomial, monomials, write_polynomial
from .presentation import counted, law_lines, laws_latex

if TYPE_CHECKING:
    from ..dynamics import Dynamics


@dataclass(frozen=True, slots=True)
class FirstIntegrals:
    """What the solutions of polynomial equations of motion conserve.

    Attributes
    ----------
    title : str
        Whose equations, and their sizes.
    degree : int
        The highest degree, in the states, of the polynomials searched.
    parameter_degree : int
        The highest degree of their coefficients, in the parameters, that was searched.
    states, parameters : tuple of Expr
        The variables, and the symbols that stand for numbers.
    laws : tuple of Expr
        The integrals, linearly independent at generic parameters; parameters may occur in their coefficients.
    numbers : tuple of int
        The places in ``laws``, from 0, of a largest set that are functionally independent.
    generic : int
        How many linearly independent polynomials are conserved at generic values of the parameters.
    """

    title: str
    degree: int
    parameter_degree: int
    states: tuple[sympy.Expr, ...]
    parameters: tuple[sympy.Expr, ...]
    laws: tuple[sympy.Expr, ...]
    numbers: tuple[int, ...]
    generic: int
    polynomials: tuple[Polynomial, ...] = field(repr=False, compare=False, default=())

    @property
    def found(self) -> int:
        """How many integrals were found, linearly independent."""
        return len(self.laws)

    @property
    def independent(self) -> int:
        """How many of them are functionally independent: the rank of their Jacobian."""
        return len(self.numbers)

    @property
    def complete(self) -> bool:
        """Whether all polynomial integrals up to the degree were found: those missing depend on parameters to a higher
        degree than was searched. Special values of parameters may have more."""
        return self.found == self.generic

    @property
    def independent_laws(self) -> tuple[sympy.Expr, ...]:
        """A largest set of functionally independent integrals."""
        return tuple(self.laws[n] for n in self.numbers)

    def latex(self) -> str:
        """Return the integrals as an ``align`` with lines that fit."""
        return laws_latex(self.laws, letter="I")

    def _repr_latex_(self) -> str:
        return f"$${laws_latex(self.laws, 'aligned', 'I')}$$" if self.laws else r"$$\text{no first integrals}$$"

    def __str__(self) -> str:
        missing = f"{self.generic - self.found} missing, of degree > {self.parameter_degree} in the parameters"
        verdict = "complete" if self.complete else missing
        return "\n".join(
            (
                f"{self.title}: {counted(len(self.states), 'equation')}",
                *(f"  {line}" for line in law_lines(self.laws, "I")),
                f"polynomials of degree <= {self.degree}: {self.found} found, {self.independent} independent; "
                f"{self.generic} at generic parameters: {verdict}",
            )
        )


def first_integrals(dynamics: Dynamics, degree: int = 2, parameter_degree: int = 2, **sizes: int) -> FirstIntegrals:
    """Find the polynomials in the states that solutions of a Dynamics conserve.

    Exact: ``∇h·f = 0`` is a linear system for the coefficients of h, solved over the rationals with the parameters as
    further variables that do not move. How many integrals there are at generic parameters is counted apart, at random
    numbers modulo a 61-bit prime.

    Parameters
    ----------
    dynamics : Dynamics
        Whose drift is polynomial in the states, with coefficients rational in the parameters.
    degree : int
        The highest degree in the states.
    parameter_degree : int
        The highest degree in the parameters of the coefficients of an integral. Lower degrees come first, and what
        follows from integrals of lower degree is not listed again.
    **sizes : int
        A number for each of the sizes of the dynamics, such as ``K=2, M=1``.

    Raises
    ------
    ModelError
        If the drift is not such a polynomial, is not an ODE's, or a size or degree is not accepted.

    Examples
    --------
    >>> from effdyn.derive import Dynamics, Equation, Quantity
    >>> x, v, k = Quantity("x"), Quantity("v"), Quantity("k", minimum=0.0)
    >>> drift = (Equation(x, v.symbol), Equation(v, -k.symbol * x.symbol))
    >>> print(first_integrals(Dynamics("a spring", "ode", "time", drift, (k,))))
    a spring: 2 equations
      I1 = k*x**2 + v**2
    polynomials of degree <= 2: 1 found, 1 independent; 1 at generic parameters: complete
    """
    flow = polynomial_flow(dynamics, sizes)
    check_degree(degree, len(flow.states))
    check_whole(parameter_degree, "parameter_degree", 0)
    candidates = [m for n in range(1, degree + 1) for m in monomials(len(flow.states), n)]
    generic = _generic_number(flow, candidates)
    laws: list[Polynomial] = []
    searched = 0
    for searched in range(parameter_degree + 1 if flow.parameters else 1):
        unknowns = flow.with_parameters(candidates, searched)
        if searched and (len(laws) == generic or len(unknowns) > MOST_MONOMIALS):
            searched -= 1
            break
        laws = _extended(laws, annihilated([flow.field], unknowns), flow)
    numbers = tuple(independent_laws([flow.at_random(law) for law in laws], len(flow.states)))
    written = tuple(write_polynomial(law, flow.variables) for law in laws)
    return FirstIntegrals(
        flow.title, degree, searched, flow.states, flow.parameters, written, numbers, generic, tuple(laws)
    )


def _generic_number(flow: PolynomialFlow, candidates: Sequence[Monomial]) -> int:
    """Return how many combinations of the candidates are conserved at random parameters, modulo a prime."""
    field = {n: flow.at_random(component) for n, component in flow.field.items()}
    return len(candidates) - Span(equations([field], candidates)).rank


def _extended(laws: list[Polynomial], more: Sequence[Polynomial], flow: PolynomialFlow) -> list[Polynomial]:
    """Return the laws with those that do not follow from them by factors that depend on parameters."""
    columns: dict[Monomial, int] = {}

    def row(law: Polynomial) -> Row:
        return {columns.setdefault(m, len(columns)): c for m, c in flow.at_random(law).items()}

    span = Span(map(row, laws))
    involved = len(flow.states)

    def cost(law: Polynomial) -> tuple[int, int, int]:
        powers = [sum(n >= involved for n in m) for m in law]
        return max(len(m) - p for m, p in zip(law, powers, strict=True)), max(powers), len(law)

    return laws + [law for law in sorted(more, key=cost) if span.add(row(law))]
