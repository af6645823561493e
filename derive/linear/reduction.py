"""From a matrix flow to a Dynamics: letters become arrays, words become sums over their entries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from ..dynamics import Dynamics, Equation, Quantity, Step
from .indexed import entry, index
from .words import Factor, Letter, Matrix

I, J = index("i"), index("j")
CLOCK = "eta*steps"
DIMS: dict[str, str] = {"D": "input", "m": "output", "r": "principal", "q": "null", "p": "mode", "h": "hidden"}
"""The name of an axis by the symbol of its size; hidden layers are ``hidden_1``, ``hidden_2``, …"""


@dataclass(frozen=True, slots=True)
class Described:
    """How a letter is called in results: its LaTeX name, and a line on what it is."""

    latex: str
    meaning: str
    minimum: float | None = None


def quantity(letter: Letter, described: Described) -> Quantity:
    """Return the named array of a letter; of a diagonal one, its diagonal."""
    dims = (axis(letter.rows),) if letter.diagonal else (axis(letter.rows), axis(letter.columns))
    if len(dims) == 2 and dims[0] == dims[1]:
        dims = (dims[0], f"{dims[0]}_2")
    return Quantity(
        letter.name,
        (I,) if letter.diagonal else (I, J),
        (letter.rows,) if letter.diagonal else (letter.rows, letter.columns),
        described.latex,
        described.meaning,
        symmetric=letter.symmetric and not letter.diagonal,
        minimum=described.minimum,
        dims=dims,
    )


def axis(size: sympy.Expr) -> str:
    """Return the name of an axis of this size."""
    name = str(size)
    return DIMS[name] if name in DIMS else f"hidden_{name.removeprefix('h_')}"


def equation(letter: Letter, rate: Matrix, described: Described) -> Equation:
    """Return the equation of motion of a letter."""
    if letter.diagonal:
        return Equation(quantity(letter, described), diagonal_entry(rate, I))
    return Equation(quantity(letter, described), entry(rate, I, J))


def diagonal_entry(rate: Matrix, i: sympy.Symbol) -> sympy.Expr:
    """Return the i-th entry of a polynomial in diagonal letters."""
    if any(not letter.diagonal for letter in rate.letters):
        raise ValueError(f"{rate} is not diagonal")
    return sympy.Add(*(c * sympy.Mul(*(sympy.IndexedBase(f.name, real=True)[i] for f, _ in w)) for w, c in rate.terms))


def step(title: str, explanation: str, flow: Mapping[Letter, Matrix]) -> Step:
    """Return a stage of a derivation with the flow that it left, in matrices."""
    rate = sympy.Function("Rate")
    return Step(title, explanation, tuple((rate(_symbol((x, False))), readable(f)) for x, f in flow.items()))


def readable(matrix: Matrix) -> sympy.Expr:
    """Return a matrix polynomial as a noncommutative SymPy expression, for reading only."""
    return sympy.Add(*(c * sympy.Mul(*map(_symbol, word)) for word, c in matrix.terms))


def _symbol(factor: Factor) -> sympy.Expr:
    letter, flipped = factor
    symbol = sympy.Symbol(letter.name, commutative=False)
    return sympy.transpose(symbol) if flipped else symbol


def dynamics(
    *,
    title: str,
    drift: Sequence[Equation],
    parameters: Sequence[Quantity],
    observables: Sequence[Equation],
    assumptions: Sequence[str],
    steps: Sequence[Step],
    model: object,
    reduction: str,
    status: str = "exact",
) -> Dynamics:
    """Return the Dynamics of a gradient flow."""
    return Dynamics(
        title=title,
        kind="ode",
        clock=CLOCK,
        drift=tuple(drift),
        parameters=tuple(parameters),
        observables=tuple(observables),
        assumptions=tuple(assumptions),
        status=status,
        steps=tuple(steps),
        model=model,
        reduction=reduction,
    )
