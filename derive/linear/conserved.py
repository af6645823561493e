"""Matrix-valued conservation laws of linear networks at any shapes: found in an ansatz, not listed.

All products of two moving letters that have the shape of a hidden layer, with unknown coefficients; their derivative
must vanish word by word, which is a linear system. The same for what survives when the flow is modified.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sympy

from .network import MU, LinearNetwork
from .words import Factor, Letter, Matrix, Word, add, derivative, of_factor, rows_of, substitute

GAMMA = sympy.Symbol("gamma", positive=True)
ETA = sympy.Symbol("eta", positive=True)


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a law when the flow is modified.

    Attributes
    ----------
    modification : str
        How the flow is modified.
    statement : str
        What becomes of the law.
    rate : Matrix
        The derivative of the law (for steps, its change in one step over η²).
    law : Matrix or None
        What takes its place: a matrix that decays as e^(−γ t), or is conserved.
    """

    modification: str
    statement: str
    rate: Matrix
    law: Matrix | None = None

    def __str__(self) -> str:
        return f"{self.modification}: {self.statement}"


@dataclass(frozen=True)
class MatrixLaws:
    """Conservation laws of a linear network, at any shapes.

    Attributes
    ----------
    network : LinearNetwork
    laws : tuple of Matrix
        Symmetric matrices that do not move, one for each hidden layer, for any loss of the network's map.

    Examples
    --------
    >>> laws = matrix_laws(LinearNetwork(depth=3))
    >>> print(laws)
    Conserved by the gradient flow of any loss of W3 W2 W1:
      W1 W1ᵀ - W2ᵀ W2
      W2 W2ᵀ - W3ᵀ W3
    >>> print(laws.survival()[0])
    weight decay: decays as e^(-2 mu t)
    """

    network: LinearNetwork
    laws: tuple[Matrix, ...]

    def survival(self) -> tuple[Fate, ...]:
        """Return what becomes of the laws under weight decay, finite steps and SGD noise, and momentum."""
        modifications = (_under_decay, _under_steps, _under_momentum)
        return tuple(modify(self.network, law) for law in self.laws for modify in modifications)

    def __str__(self) -> str:
        title = f"Conserved by the gradient flow of any loss of {self.network.end_to_end}:"
        if not self.laws:
            return f"{title}\n  nothing of degree two{', because of weight decay' if self.network.weight_decay else ''}"
        return "\n".join([title, *(f"  {law}" for law in self.laws)])


def matrix_laws(network: LinearNetwork) -> MatrixLaws:
    """Return the matrices of degree two that the gradient flow of any loss conserves; none with weight decay."""
    flow = network.flow_of_any_loss
    if network.weight_decay:
        flow = _with_decay(network)
    laws = [
        law
        for size in network.sizes[1:-1]
        for law in solve_ansatz(_squares(flow, size), lambda matrix: derivative(matrix, flow))
    ]
    return MatrixLaws(network, tuple(laws))


def solve_ansatz(candidates: Iterable[Matrix], image: Callable[[Matrix], Matrix]) -> list[Matrix]:
    """Return a basis of the combinations of candidates whose image under a linear map is zero."""
    candidates = list(candidates)
    images = [image(candidate) for candidate in candidates]
    words: list[Word] = list(dict.fromkeys(word for matrix in images for word, _ in matrix.terms))
    system = sympy.Matrix(len(words), len(images), lambda n, k: dict(images[k].terms).get(words[n], sympy.S.Zero))
    basis = system.nullspace() if words else [*sympy.eye(len(candidates)).columnspace()]
    shape = candidates[0].rows, candidates[0].columns
    return [
        add((_readable(c, vector) * m for c, m in zip(vector, candidates, strict=True)), *shape) for vector in basis
    ]


def _readable(coefficient: sympy.Expr, vector: sympy.Matrix) -> sympy.Expr:
    """Return a coefficient of a law with its first coefficient positive and free of rates in denominators' products."""
    leading = next(c for c in vector if c != 0)
    return sympy.cancel(coefficient / leading)


def _squares(letters: Iterable[Letter], size: sympy.Expr) -> list[Matrix]:
    """Return L Lᵀ and Lᵀ L of this size."""
    factors: list[Factor] = [(letter, flipped) for letter in letters for flipped in (False, True)]
    return [of_factor(f) @ of_factor(f).T for f in factors if rows_of(f) == size]


def _under_decay(network: LinearNetwork, law: Matrix) -> Fate:
    mu = MU.base
    rate = derivative(law, _with_decay(network))
    if not rate + 2 * mu * law:
        return Fate("weight decay", f"decays as e^(-2 {mu} t)", rate, law)
    return Fate("weight decay", f"d/dt = {rate}: each layer's part decays at its own rate", rate)


def _with_decay(network: LinearNetwork) -> dict[Letter, Matrix]:
    """Return the flow of any loss plus ½μ‖θ‖²."""
    rates = network.layer_rates
    return {x: flow - MU.base * rates[x] * x.matrix for x, flow in network.flow_of_any_loss.items()}


def _under_steps(network: LinearNetwork, law: Matrix) -> Fate:
    """One step W + η W' of the flow's right-hand side, at any gradient: exact, so that it holds for SGD too."""
    flow = network.flow_of_any_loss
    moved = substitute(law, {layer: layer.matrix + ETA * rate for layer, rate in flow.items()})
    change = moved - law
    orders = [_coefficient(change, n) for n in range(3)]
    assert not orders[0] and not orders[1], "a law of the flow changes at second order only"
    statement = (
        f"a step of size eta changes it by eta**2 ({orders[2]}), at second order only; "
        "so does a step of SGD, G being the gradient of the examples drawn"
    )
    return Fate("finite steps and SGD noise", statement, orders[2])


def _coefficient(matrix: Matrix, order: int) -> Matrix:
    terms = {word: sympy.expand(c).coeff(ETA, order) for word, c in matrix.terms}
    return Matrix.of(terms, matrix.rows, matrix.columns)


def _under_momentum(network: LinearNetwork, law: Matrix) -> Fate:
    """Heavy ball W'' + γ W' = −∂L/∂W: looks for matrices bilinear in weights and velocities that decay as e^(−γ t)."""
    flow = network.flow_of_any_loss
    velocity = {layer: Letter(f"d{layer}", layer.rows, layer.columns) for layer in flow}
    heavy: dict[Letter, Matrix] = {layer: velocity[layer].matrix for layer in flow}
    heavy |= {velocity[layer]: rate - GAMMA * velocity[layer].matrix for layer, rate in flow.items()}
    rate = derivative(law, heavy)
    mixed = [
        of_factor((a, flipped)) @ of_factor((b, flipped)).T
        for layer in flow
        for flipped in (False, True)
        if rows_of((layer, flipped)) == law.rows
        for a, b in ((layer, velocity[layer]), (velocity[layer], layer))
    ]
    found = solve_ansatz(mixed, lambda matrix: derivative(matrix, heavy) + GAMMA * matrix)
    if not found:
        return Fate("momentum", "is not conserved, and no bilinear form takes its place", rate)
    (skew,) = found
    return Fate("momentum", f"is not conserved; {skew} decays as e^(-gamma t) instead", rate, skew)
