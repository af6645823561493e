"""Two layers: products contracted over the width close, at any width and without any balance.

P = U1 U1ᵀ, S = U1 W2ᵀ, R = W2 W2ᵀ; the Gram matrix G of [U1; W2] moves by G' = N G + G N. Found by contraction, not
assumed.
"""

from collections.abc import Mapping

import sympy

from ..dynamics import Dynamics, Equation, Quantity
from ..errors import ModelError
from . import principal as eigenbasis
from .closure import Closure, NotClosed, gram_closure
from .indexed import element, entry, trace_entry
from .network import S_YX, LinearNetwork
from .principal import DELTA, EXCESS, C, excess_loss, to_eigenbasis
from .reduction import Described, I, J, dynamics, equation, quantity, step
from .traces import trace
from .words import Factor, Letter, Matrix

NAMES = {
    ("U1", "U1"): "P",
    ("U1", "W2"): "S",
    ("W2", "W2"): "R",
    ("U1", "U2"): "P_null",
    ("U2", "W2"): "S_null",
    ("U2", "U2"): "P_null_null",
    ("W1", "W1"): "P",
    ("W1", "W2"): "S",
}
DESCRIBED = {
    "P": Described("P", "first layer's overlaps over the width, U₁ U₁ᵀ"),
    "S": Described("S", "the map that the network computes, U₁ W₂ᵀ"),
    "R": Described("R", "second layer's overlaps over the width, W₂ W₂ᵀ"),
    "P_null": Described(r"P^{\perp}", "overlaps of directions with and without data, U₁ U₂ᵀ"),
    "S_null": Described(r"S^{\perp}", "the map on directions without data, U₂ W₂ᵀ"),
    "P_null_null": Described(r"P^{\perp\perp}", "overlaps of directions without data, U₂ U₂ᵀ"),
}
DISTANCE = Quantity(
    "distance", latex=r"\mathrm{dist}", meaning="Frobenius distance of the map from the least-norm solution X⁺Y"
)


def gram(network: LinearNetwork) -> Dynamics:
    """Return the closed flow of P, S and R."""
    if network.inputs == "whitened":
        closure = close(network, network.flow, (network.layers[0], True), [])
        return _dynamics(network, closure, "gram", whitened_loss(closure), network.data_parameters, network.flow)
    reduced = to_eigenbasis(network, "gram")
    closure = close(network, reduced.flow, (reduced.seen, False), [])
    observables = [Equation(EXCESS, excess_loss(_letter(closure, "S").matrix))]
    return _dynamics(network, closure, "gram", observables, _data(), reduced.flow)


def gram_null(network: LinearNetwork) -> Dynamics:
    """Return the closed flow of P, S, R and of the products with directions without data."""
    reduced = to_eigenbasis(network, "gram-null")
    closure = close(network, reduced.flow, (reduced.seen, False), [(reduced.unseen, False)], "gram-null")
    s, s_null = _letter(closure, "S"), _letter(closure, "S_null")
    observables = [Equation(EXCESS, excess_loss(s.matrix)), Equation(DISTANCE, _distance(s, s_null))]
    return _dynamics(network, closure, "gram-null", observables, _data(), reduced.flow)


def close(
    network: LinearNetwork,
    flow: Mapping[Letter, Matrix],
    first: Factor,
    further: list[Factor],
    reduction: str = "gram",
) -> Closure:
    """Return the closure of the map S (and of what ``further`` letters make of it) over the width.

    Raises
    ------
    ModelError
        If it does not close: with more than two layers.
    """
    if network.depth < 2:
        raise ModelError("reduction", reduction, "a network with a width to contract over: depth=2")
    last = network.layers[1]
    wanted = [(first, (last, False)), *((letter, (last, False)) for letter in further)]
    try:
        return gram_closure(flow, network.sizes[1], wanted, NAMES)
    except NotClosed as error:
        raise ModelError("reduction", reduction, f"depth=2: with {network.depth} layers {error}") from None


def _dynamics(
    network: LinearNetwork,
    closure: Closure,
    reduction: str,
    observables: list[Equation],
    data: tuple[Quantity, ...],
    flow: Mapping[Letter, Matrix],
) -> Dynamics:
    return dynamics(
        title=f"{network.name}, Gram matrix of its layers",
        drift=[equation(letter, rate, DESCRIBED[letter.name]) for letter, rate in closure.flow.items()],
        parameters=(*data, *network.optimiser_parameters),
        observables=observables,
        assumptions=("gradient flow: the limit of small learning rates", "squared loss"),
        steps=[
            step("Gradient flow", "Cyclic derivatives of the loss.", flow),
            step("Gram variables", "What they are.", closure.definitions),
            step("Closure", "Their derivatives, with every product over the width a Gram variable.", closure.flow),
        ],
        model=network,
        reduction=reduction,
    )


def _letter(closure: Closure, name: str) -> Letter:
    return next(letter for letter in closure.flow if letter.name == name)


def _data() -> tuple[Quantity, ...]:
    return tuple(quantity(letter, eigenbasis.DATA[letter]) for letter in (DELTA, C))


def whitened_loss(closure: Closure) -> list[Equation]:
    """Return the loss ½ s_yy − tr(S_yx S) + ½ tr(Sᵀ S)."""
    s, half = _letter(closure, "S").matrix, sympy.Rational(1, 2)
    loss = half * trace(s.T @ s) - trace(S_YX.matrix @ s)
    return [Equation(EXCESS, trace_entry(loss) + half * trace_entry(trace(S_YX.matrix @ S_YX.matrix.T)))]


def _distance(s: Letter, s_null: Letter) -> sympy.Expr:
    """Return the norm of S − C/δ and S⊥ together."""
    seen = (element(s, I, J) - element(C, I, J) / element(DELTA, I, I)) ** 2
    unseen = entry(s_null.matrix, I, J) ** 2
    total = sympy.Sum(sympy.Sum(seen, (J, 1, s.columns)), (I, 1, s.rows))
    total += sympy.Sum(sympy.Sum(unseen, (J, 1, s_null.columns)), (I, 1, s_null.rows))
    return sympy.sqrt(total)
