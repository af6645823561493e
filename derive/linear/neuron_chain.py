"""A single linear neuron on whitened inputs as a triangular system, which has a closed form.

ν = wᵀβ*/a obeys a Riccati equation of its own; it drives y = a⁻², which drives the part of w across β*. Kunin et al.
(2024), Appendix.
"""

import sympy

from ..dynamics import Dynamics, Equation, Quantity
from ..errors import ModelError
from .network import D, LinearNetwork
from .neuron import BETA, LAMBDA, TARGET
from .reduction import J, dynamics, step
from .words import Factor, Letter, Matrix, Word, derivative

NU = Quantity("nu", latex=r"\nu", meaning="wᵀβ*/a, with β* the target S_yx")
Y = Quantity("y", latex="y", meaning="a⁻², of the second layer", minimum=0.0)
SQUARE = Quantity("target_square", latex=r"|\beta^{\ast}|^2", meaning="squared norm of the target S_yx", minimum=0.0)
ACROSS = Quantity("w_perp", (J,), (D,), r"w^{\perp}", "part of the first layer across the target", dims=("input",))
A, P, N, B = sympy.symbols("a p n b", real=True)
"""The second layer a, and the products p = wᵀβ*, n = |w|², b = |β*|²."""


def neuron_chain(network: LinearNetwork) -> Dynamics:
    """Return ν' = η_1 |β*|² − λ ν − η_2 ν², y' = 2 η_1 − 2 (λ + η_2 ν) y, w⊥' = −η_1 w⊥/y."""
    if network.depth != 2 or network.weight_decay or network.inputs != "whitened":
        raise ModelError("reduction", "neuron-chain", "depth=2 with inputs='whitened', without weight decay")
    rate_1, rate_2 = network.layer_rates.values()
    rates = _scalar_rates(network)
    weights = sympy.Symbol("w_perp_j", real=True)  # β* has no such component
    nu, y, lam = NU.base, Y.base, LAMBDA.base
    imbalance = {N: (rate_1 * A**2 - lam) / rate_2}
    motion = {A: rates["a"], P: rates["p"], weights: -rate_1 * A**2 * weights}

    def rate(of: sympy.Expr) -> sympy.Expr:
        total = sum((sympy.diff(of, x) * motion[x] for x in motion), sympy.S.Zero)
        return sympy.expand(sympy.expand(total.subs(imbalance)).subs(P, nu * A)).subs(A, y ** sympy.Rational(-1, 2))

    b = SQUARE.base
    across = rate(weights).subs(weights, ACROSS.symbol)
    drift = [
        Equation(NU, _tidy(rate(P / A)).subs(B, b)),
        Equation(Y, _tidy(rate(A**-2))),
        Equation(ACROSS, sympy.powsimp(across)),
    ]
    beta = nu / y * TARGET.symbol / b + ACROSS.symbol / sympy.sqrt(y)
    return dynamics(
        title="Single linear neuron on whitened inputs, as a chain",
        drift=drift,
        parameters=(TARGET, SQUARE, *network.rate_parameters, LAMBDA),
        observables=[Equation(BETA, beta)],
        assumptions=(
            "gradient flow: the limit of small learning rates",
            "one hidden unit and one output, h = m = 1, whitened inputs",
            "a is positive at all times (else mirror a and w; it cannot vanish where λ ≥ 0)",
        ),
        steps=[step("Gradient flow", "Cyclic derivatives of the loss.", network.flow)],
        model=network,
        reduction="neuron-chain",
    )


def _scalar_rates(network: LinearNetwork) -> dict[str, sympy.Expr]:
    """Return a' and p' at h = m = 1, where words are products of the scalars a, p, n and b."""
    first, second = network.layers
    target = network.data_matrix
    p = first.matrix @ target.T
    return {
        "a": _scalar(network.flow[second], first, second),
        "p": _scalar(derivative(p, network.flow), first, second),
    }


def _scalar(matrix: Matrix, first: Letter, second: Letter) -> sympy.Expr:
    return sympy.Add(*(c * _product(word, first, second) for word, c in matrix.terms))


def _product(word: Word, first: Letter, second: Letter) -> sympy.Expr:
    """Return a word as a product of scalars: a for the second layer, p, n, b for pairs of vectors side by side."""
    total, vectors = sympy.S.One, []
    for letter, flipped in word:
        if letter == second:
            total *= A
        else:
            vectors.append((letter, flipped))
    while vectors:
        total *= _pair(vectors.pop(0), vectors.pop(0), first)
    return total


def _pair(left: Factor, right: Factor, first: Letter) -> sympy.Expr:
    assert left[1] != right[1], "two vectors side by side make a number"
    return {2: N, 1: P, 0: B}[(left[0] == first) + (right[0] == first)]


def _tidy(expr: sympy.Expr) -> sympy.Expr:
    return sympy.expand(sympy.powsimp(sympy.expand(expr), force=True))
