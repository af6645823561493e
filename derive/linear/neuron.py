"""A single linear neuron f = a wᵀx with a learning rate for each layer, in the map β = a w alone.

Kunin et al. (2024). The layers are the network's at h = m = 1: W1 = wᵀ, W2 = a.
"""

import sympy

from ..dynamics import Dynamics, Equation, Quantity
from ..errors import ModelError
from .indexed import entry, index
from .network import DATA, S_XX, S_YX, D, LinearNetwork, M
from .reduction import J, dynamics, quantity, step
from .words import Letter, Matrix, Word, derivative, identity, rewrite

BETA = Quantity("beta", (J,), (D,), r"\beta", "the map that the neuron computes, a w", dims=("input",))
TARGET = Quantity("S_yx", (J,), (D,), "S_{yx}", "output–input correlation yᵀX", dims=("input",))
LAMBDA = Quantity("lam", latex=r"\lambda", meaning="imbalance η_1 a² − η_2 |w|², conserved")
GAIN = Quantity("a2", latex="a^2", meaning="square of the second layer")


def neuron(network: LinearNetwork) -> Dynamics:
    """Return β' = (η_1 a² I + η_2 w wᵀ)(S_yx − S_xx β), a² = (λ + √(λ² + 4 η_1 η_2 |β|²))/(2 η_1)."""
    if network.depth != 2 or network.weight_decay:
        raise ModelError("reduction", "neuron", "depth=2 without weight decay: the imbalance is conserved only then")
    first, second = network.layers
    rate_1, rate_2 = network.layer_rates.values()
    beta, square = Letter("beta", M, D), sympy.Symbol("a2", positive=True)
    rules: dict[Word, Matrix] = {
        ((second, False), (second, True)): square * identity(M),
        ((first, True), (first, False)): (1 / square) * beta.matrix.T @ beta.matrix,
        ((second, False), (first, False)): beta.matrix,
    }
    moved = rewrite(derivative(network.end_to_end, network.flow), rules)
    norm = sympy.Sum(BETA.base[index("k")] ** 2, (index("k"), 1, D))
    gain = _gain(rate_1, rate_2, norm)
    rate = _as_vectors(entry(moved, index("i"), J)).subs(square, gain)
    data = (TARGET,) if network.inputs == "whitened" else (quantity(S_XX, DATA[S_XX]), TARGET)
    return dynamics(
        title="Single linear neuron",
        drift=[Equation(BETA, rate)],
        parameters=(*data, *network.rate_parameters, LAMBDA),
        observables=[Equation(GAIN, gain)],
        assumptions=(
            "gradient flow: the limit of small learning rates",
            "one hidden unit and one output, h = m = 1",
            "a does not vanish (it cannot where λ > 0)",
        ),
        steps=[
            step("Gradient flow", "Cyclic derivatives of the loss.", network.flow),
            step("The map", "a² and w wᵀ = β βᵀ/a² by the conserved imbalance.", {beta: moved}),
        ],
        model=network,
        reduction="neuron",
    )


def _gain(rate_1: sympy.Expr, rate_2: sympy.Expr, norm: sympy.Expr) -> sympy.Expr:
    """Return a² from η_1 a² − η_2 |β|²/a² = λ."""
    x, lam, b = sympy.Symbol("x", positive=True), LAMBDA.base, sympy.Symbol("b", positive=True)
    roots = sympy.roots(rate_1 * x**2 - lam * x - rate_2 * b, x)
    values = {lam: 0, b: 1} | {rate: 1 for rate in (rate_1, rate_2) if rate.is_Symbol}
    (positive,) = (root for root in roots if root.subs(values) > 0)
    return sympy.together(positive).subs(b, norm)


def _as_vectors(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression at m = 1: sums over outputs have one summand, rows of one matrix are vectors."""

    def one(summand: sympy.Expr, limits: sympy.Tuple) -> sympy.Expr:
        return summand if limits[2] == M else sympy.Sum(summand, limits)

    vectors = {"beta": BETA.base, S_YX.name: TARGET.base}

    def drop(e: sympy.Indexed) -> sympy.Indexed:
        return vectors[str(e.base)][e.indices[1]]

    return expr.replace(sympy.Sum, one).replace(lambda e: isinstance(e, sympy.Indexed) and str(e.base) in vectors, drop)
