"""Conservation laws of a parametrisation: found, checked for independence, and counted against what there can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sympy

from ..errors import ModelError
from .generators import Matrix, generators
from .lie_rank import lie_rank
from .parametrisation import Parametrisation
from .polynomial_laws import check_degree, independent_laws, polynomial_laws
from .polynomials import Polynomial, total, write_polynomial
from .presentation import counted, law_lines, laws_latex

if TYPE_CHECKING:
    from .survival import Survival

METHODS = ("null space", "generators")


@dataclass(frozen=True, slots=True, repr=False)
class ConservationLaws:
    """What gradient flow on any loss of φ(θ) conserves.

    Attributes
    ----------
    parametrisation : Parametrisation
        What is trained.
    degree : int
        The highest degree of the polynomials searched.
    method : str
        ``"null space"`` or ``"generators"``.
    laws : tuple of Expr
        A basis of the laws, in short terms. All of them, also those that are functions of others.
    numbers : tuple of int
        The places in ``laws``, from 0, of a largest set that are functionally independent.
    rank : int
        The rank of the Lie algebra of the gradients of φ at a generic point.

    Examples
    --------
    >>> from effdyn.derive.conservation.networks import linear_network_parametrisation
    >>> print(conservation_laws(linear_network_parametrisation((2, 1, 1))))
    linear network, widths 2-1-1: 2 functions of 3 parameters
      h1 = W1[1, 1]**2 + W1[1, 2]**2 - W2[1, 1]**2
    polynomials of degree <= 2 (null space): 1 found, 1 independent, 1 expected = 3 - 2 (Lie rank): complete
    """

    parametrisation: Parametrisation
    degree: int
    method: str
    laws: tuple[sympy.Expr, ...]
    numbers: tuple[int, ...]
    rank: int
    polynomials: tuple[Polynomial, ...] = field(compare=False, default=())

    @property
    def found(self) -> int:
        """How many laws are linearly independent, as found."""
        return len(self.laws)

    @property
    def independent(self) -> int:
        """How many of them are functionally independent: the rank of their Jacobian."""
        return len(self.numbers)

    @property
    def expected(self) -> int:
        """How many independent laws there are near a generic point, polynomial or not."""
        return len(self.parametrisation.theta) - self.rank

    @property
    def complete(self) -> bool:
        """Whether the laws found are all there are. If so this is proved: no random number can make it true by chance.

        The laws are exact, and their Jacobian's rank at a point is no more than its generic rank: ``independent`` is a
        lower bound. The Lie rank at a point, modulo a prime, is no more than the true one: ``expected`` is an upper
        bound.
        """
        return self.independent == self.expected

    @property
    def independent_laws(self) -> tuple[sympy.Expr, ...]:
        """A largest set of functionally independent laws."""
        return tuple(self.laws[n] for n in self.numbers)

    def survival(self) -> Survival:
        """Return what becomes of the laws under weight decay, layer-wise rates, finite steps, noise and momentum."""
        from .survival import survival

        return survival(self)

    def latex(self) -> str:
        """Return the laws as an ``align`` with lines that fit."""
        return laws_latex(self.laws)

    def _repr_latex_(self) -> str:
        return f"$${laws_latex(self.laws, 'aligned')}$$" if self.laws else r"$$\text{no laws}$$"

    def __repr__(self) -> str:
        method = "" if self.method == METHODS[0] else f", method={self.method!r}"
        return f"conservation_laws({self.parametrisation!r}, degree={self.degree}{method})"

    def __str__(self) -> str:
        size = len(self.parametrisation.theta)
        verdict = "complete" if self.complete else f"{counted(self.expected - self.independent, 'law')} missing"
        count = f"{self.found} found, {self.independent} independent, {self.expected} expected"
        return "\n".join(
            (
                str(self.parametrisation),
                *(f"  {line}" for line in law_lines(self.laws)),
                f"polynomials of degree <= {self.degree} ({self.method}): "
                f"{count} = {size} - {self.rank} (Lie rank): {verdict}",
            )
        )


def conservation_laws(
    parametrisation: Parametrisation, degree: int = 2, method: str = "null space"
) -> ConservationLaws:
    r"""Find the polynomials h(θ) that gradient flow conserves whatever the loss: :math:`\nabla h\cdot\nabla\phi_k = 0`.

    Exact: a linear system for the coefficients of h, solved over the rationals. The number of laws is counted apart, by
    the Lie algebra of the gradients :math:`\nabla\phi_k`, for which see :func:`.lie_rank.lie_rank`.

    Parameters
    ----------
    parametrisation : Parametrisation
        What is trained, and through which functions φ(θ) the loss sees it.
    degree : int
        The highest degree of h.
    method : str
        ``"null space"``: all monomials up to the degree. ``"generators"``: the symmetric matrices B for which
        θ' = Bθ leaves φ unchanged, which give :math:`\tfrac12\theta^\top B\theta`; degree 2 only, and for functions
        φ of which each is homogeneous the same laws.

    Returns
    -------
    ConservationLaws
        The laws, how many of them are independent, and how many there are.

    Raises
    ------
    ModelError
        If the degree is not a positive whole number, or there are too many monomials of it, or for another method.

    Notes
    -----
    Source: S. Marcotte, R. Gribonval, G. Peyré, *Abide by the law and follow the flow* (2023), sections 2 and 3.
    There laws of a linear network are those of :math:`W_1W_1^\top - W_2^\top W_2`; here nothing is known of them.

    Examples
    --------
    >>> from effdyn.derive.conservation.networks import linear_network_parametrisation
    >>> found = conservation_laws(linear_network_parametrisation((1, 2, 1)))
    >>> found.found, found.independent, found.expected, found.complete
    (4, 3, 3, True)

    A law that is no polynomial, log(y) - 2x, is counted but not found:

    >>> x, y = sympy.symbols("x y", real=True)
    >>> print(conservation_laws(Parametrisation([x + y**2], [x, y]), degree=4))
    φ(θ): 1 function of 2 parameters
    polynomials of degree <= 4 (null space): 0 found, 0 independent, 1 expected = 2 - 1 (Lie rank): 1 law missing
    """
    variables, fields = len(parametrisation.theta), parametrisation.gradients
    if method not in METHODS:
        raise ModelError("method", method, f"one of {', '.join(map(repr, METHODS))}")
    check_degree(degree, variables)
    if method == "null space":
        laws = polynomial_laws(fields, variables, degree, parametrisation.homogeneous)
    elif degree == 2:
        laws = [_quadratic(matrix) for matrix in generators(parametrisation, "symmetric")]
    else:
        raise ModelError("degree", degree, "2 for method='generators': its laws are quadratic forms")
    numbers = independent_laws(laws, variables)
    rank = lie_rank(fields, variables, at_most=variables - len(numbers))
    written = tuple(write_polynomial(law, parametrisation.theta) for law in laws)
    return ConservationLaws(parametrisation, degree, method, written, tuple(numbers), rank, tuple(laws))


def _quadratic(matrix: Matrix) -> Polynomial:
    """Return the form θᵀBθ of a symmetric matrix, divided by what its coefficients share."""
    form = total((tuple(sorted(place)), entry) for place, entry in matrix.items())
    divisor = math.gcd(*form.values())
    return {monomial: entry // divisor for monomial, entry in form.items()}
