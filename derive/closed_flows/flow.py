"""What detectors look at and what they return: one autonomous equation in plain real symbols, and its solution.

Knows nothing of indices, modes or models: :mod:`.standard` has replaced ``c[alpha]`` by a plain symbol before a
detector sees it.
"""

from dataclasses import dataclass

import sympy
from sympy.logic.boolalg import Boolean

Definitions = tuple[tuple[sympy.Symbol, sympy.Expr], ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """``d(state)/dt = rate`` with ``state = start`` at ``time`` 0; ``known`` are states solved before, which may occur
    in the rate."""

    state: sympy.Symbol
    rate: sympy.Expr
    time: sympy.Symbol
    start: sympy.Expr
    known: "tuple[Solved, ...]" = ()

    @property
    def coefficients_known(self) -> bool:
        """Whether the rate holds nothing that moves but its own state."""
        return not self.rate.has(self.time) and not any(self.rate.has(k.flow.state) for k in self.known)


@dataclass(frozen=True, slots=True)
class Condition:
    """Where a closed form holds.

    Attributes
    ----------
    relation : Boolean
        A relation between parameters, initial values and t.
    sentence : str
        The same in words: what it means.
    instead : str
        What to do where it does not hold.
    """

    relation: Boolean
    sentence: str
    instead: str = "integrate the equation numerically, with solve.integrate"

    def __str__(self) -> str:
        return f"{self.relation}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to compute a solution in floating point without overflow or cancellation: a function of :mod:`.stable` by
    name, and its arguments after t."""

    function: str
    arguments: tuple[sympy.Expr, ...]


@dataclass(frozen=True, slots=True)
class Antiderivative:
    """The integral of a function of solved states, from 0 to t: ``sum of weight*log(base) + rest``.

    Kept in this form because linear equations need its exponential, a product of powers of the bases. ``terms``, where
    there are any, write ``base`` as a sum of ``coefficient*exp(rate*t)``, which it is where ``needs`` holds.
    ``symbol`` is what the base prints as.
    """

    integrand: sympy.Expr
    weight: sympy.Expr
    base: sympy.Expr
    rest: sympy.Expr = sympy.S.Zero
    terms: tuple[tuple[sympy.Expr, sympy.Expr], ...] = ()
    needs: Boolean = sympy.true
    symbol: sympy.Symbol | None = None


@dataclass(frozen=True, slots=True)
class Solved:
    """What a detector found.

    Attributes
    ----------
    flow : Flow
    method : str
        The detector, and the source of the formula.
    solution : Expr or None
        The state as a function of time.
    implicit : Expr or None
        Where there is no solution: Phi, a function of the state, with ``t = Phi(state) - Phi(start)``.
    conditions : tuple of Condition
    recipe : Recipe or None
        Without one, ``solution`` is evaluated as it stands, in as many digits as it takes.
    integrals : tuple of Antiderivative
        What a linear equation driven by this state may need.
    written : Expr or None
        The solution as it prints: with the abbreviations of ``definitions``.
    definitions : tuple of (Symbol, Expr)
        Abbreviations, each in terms of those after it.
    """

    flow: Flow
    method: str
    solution: sympy.Expr | None = None
    implicit: sympy.Expr | None = None
    conditions: tuple[Condition, ...] = ()
    recipe: Recipe | None = None
    integrals: tuple[Antiderivative, ...] = ()
    written: sympy.Expr | None = None
    definitions: Definitions = ()


class Unsuitable(Exception):
    """Raised by a detector whose structure an equation does not have; the message says what is missing."""


def written_out(expr: sympy.Expr, definitions: Definitions) -> sympy.Expr:
    """Return ``expr`` without abbreviations.

    Examples
    --------
    >>> x, g, t = sympy.symbols("x g t")
    >>> written_out(1 + x, ((x, 2 * g), (g, t**2)))
    2*t**2 + 1
    """
    for symbol, meaning in definitions:
        expr = expr.xreplace({symbol: meaning})
    return expr


def relative_exponential(k: sympy.Expr, t: sympy.Expr) -> sympy.Expr:
    """Return ``(exp(k t) - 1)/k``, and its limit t at k = 0.

    Examples
    --------
    >>> k, t = sympy.symbols("k t", positive=True)
    >>> relative_exponential(k, t), relative_exponential(k - k, t)
    ((exp(k*t) - 1)/k, t)
    """
    if k.is_zero:
        return t
    ratio = (sympy.exp(k * t) - 1) / k
    return ratio if k.is_nonzero else sympy.Piecewise((ratio, sympy.Ne(k, 0)), (t, True))


def condition(
    relation: "Boolean | bool", sentence: str, instead: str = "integrate the equation numerically, with solve.integrate"
) -> tuple[Condition, ...]:
    """Return the condition as a tuple of one, or of none where it holds anyway."""
    relation = sympy.sympify(relation)
    if relation == sympy.false:
        raise Unsuitable(f"it never holds that {sentence}")
    return () if relation == sympy.true else (Condition(relation, sentence, instead),)
