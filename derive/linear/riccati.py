"""Two layers, whitened inputs, λ-balanced weights: a matrix Riccati equation.

With Q = [W1ᵀ; W2] and W2ᵀW2 − W1W1ᵀ = λI: Q' = F Q − ½ Q QᵀQ, so that G = Q Qᵀ obeys G' = F G + G F − G². Fukumizu
(1998); Braun et al. (2022); Dominé et al. (2025).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

from ..dynamics import Dynamics, Quantity
from ..errors import ModelError
from .gram import DESCRIBED, close, whitened_loss
from .modes import check_plain
from .network import LinearNetwork
from .reduction import dynamics, equation, step
from .words import Letter, Matrix, Word, identity, of_word, rewrite, rows_of, substitute, zero

if TYPE_CHECKING:
    from ..closed_flows.matrix_riccati import MatrixClosedForm, Start

LAMBDA = Quantity("lam", latex=r"\lambda", meaning="imbalance, W₂ᵀW₂ − W₁W₁ᵀ = λ I, conserved")


@dataclass(frozen=True, slots=True)
class Factorised:
    """The flow of λ-balanced layers in which QᵀQ stands as a letter.

    Attributes
    ----------
    square : Letter
        QᵀQ = W1 W1ᵀ + W2ᵀ W2, of shape (h, h).
    flow : dict
        Of W1 and W2, linear in them apart from that letter.
    """

    square: Letter
    flow: dict[Letter, Matrix]


def balance(network: LinearNetwork) -> Factorised:
    """Rewrite W2ᵀW2 = ½(QᵀQ + λ), W1W1ᵀ = ½(QᵀQ − λ)."""
    first, second = network.layers
    width = network.sizes[1]
    square, half = Letter("QtQ", width, width, symmetric=True), sympy.Rational(1, 2)
    shift = half * LAMBDA.base * identity(width)
    rules: dict[Word, Matrix] = {
        ((second, True), (second, False)): half * square.matrix + shift,
        ((first, False), (first, True)): half * square.matrix - shift,
    }
    return Factorised(square, {layer: rewrite(rate, rules) for layer, rate in network.flow.items()})


def riccati(network: LinearNetwork) -> Dynamics:
    """Return the Riccati equation in blocks: P = W1ᵀW1, S = W1ᵀW2ᵀ, R = W2W2ᵀ."""
    check_plain(network, "riccati")
    if network.depth != 2 or network.inputs != "whitened":
        accepted = "depth=2 and inputs='whitened'; reduction='gram' closes for any inputs and any imbalance"
        raise ModelError("reduction", "riccati", accepted)
    first, second = network.layers
    factorised = balance(network)
    total = first.matrix @ first.matrix.T + second.matrix.T @ second.matrix
    flow = {layer: substitute(rate, {factorised.square: total}) for layer, rate in factorised.flow.items()}
    closure = close(network, flow, (first, True), [])
    return dynamics(
        title="Two-layer linear network, λ-balanced: matrix Riccati equation",
        drift=[equation(letter, rate, DESCRIBED[letter.name]) for letter, rate in closure.flow.items()],
        parameters=(*network.data_parameters, LAMBDA),
        observables=whitened_loss(closure),
        assumptions=(
            "gradient flow: the limit of small learning rates",
            "whitened inputs, XᵀX = I",
            "λ-balanced weights: W₂ᵀW₂ − W₁W₁ᵀ = λ I, at all times if at the first",
        ),
        steps=[
            step("Gradient flow", "Cyclic derivatives of the loss.", network.flow),
            step("λ-balance", balance.__doc__ or "", factorised.flow),
            step("Closure", "Products over the width: G' = F G + G F − G² in blocks.", closure.flow),
        ],
        model=network,
        reduction="riccati",
    )


def linear_part(network: LinearNetwork) -> tuple[list[list[Matrix]], sympy.Expr]:
    """Return the blocks of F and κ such that Q' = F Q − κ Q QᵀQ for Q = [W1ᵀ; W2], read off the balanced flow.

    Raises
    ------
    ValueError
        If the flow is not of that form.
    """
    first, second = network.layers
    factorised = balance(network)
    parts = [((first, True), factorised.flow[first].T), ((second, False), factorised.flow[second])]
    coupling: set[sympy.Expr] = set()
    blocks = []
    for part, rate in parts:
        row = [zero(rate.rows, rows_of(other)) for other, _ in parts]
        for word, c in rate.terms:
            if word[-1] == (factorised.square, False) and word[:-1] == (part,):
                coupling.add(-c)
            elif word[-1] in (other for other, _ in parts):
                column = [other for other, _ in parts].index(word[-1])
                row[column] = row[column] + c * of_word(word[:-1], rate.rows)
            else:
                raise ValueError(f"{of_word(word, rate.rows)} is neither linear in Q nor Q QᵀQ")
        blocks.append(row)
    if len(coupling) != 1:
        raise ValueError(f"the layers have different couplings {coupling}")
    return blocks, coupling.pop()


def matrix_closed_form(network: LinearNetwork) -> "MatrixClosedForm":
    """Return the closed form of P = Q Qᵀ for λ-balanced layers on whitened inputs, F as read off the flow."""
    from ..closed_flows.matrix_riccati import BALANCED, riccati_closed_form

    first, second = network.layers
    blocks, coupling = linear_part(network)
    return riccati_closed_form(
        name="two-layer linear network",
        F=sympy.BlockMatrix([[as_matrix_expression(block) for block in row] for row in blocks]),
        Q0=sympy.BlockMatrix([[as_matrix_expression(first.matrix.T)], [as_matrix_expression(second.matrix)]]),
        coupling=coupling,
        conditions=("the input is white: its covariance is the identity", BALANCED),
        start=start,
    )


def start(W1: Any, W2: Any, S_yx: Any) -> "Start":
    """Return F and the initial Q of given weights, whose balance is tested."""
    from ..closed_flows.matrix_riccati import start_balanced

    return start_balanced(W1, W2, S_yx)


def as_matrix_expression(matrix: Matrix) -> sympy.MatrixExpr:
    """Return a polynomial in words as an expression in SymPy's matrix symbols."""
    total = sympy.ZeroMatrix(matrix.rows, matrix.columns)
    for word, c in matrix.terms:
        value = sympy.Identity(matrix.rows)
        for letter, flipped in word:
            symbol = sympy.MatrixSymbol(letter.name, letter.rows, letter.columns)
            value = value * (symbol.T if flipped else symbol)
        total = total + c * value
    return total
