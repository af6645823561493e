"""The flow in the eigenbasis of the inputs: directions without data separate off, and never move.

Min, Tarmoun, Vidal & Mallada (arXiv:2105.06351), Section 3, for any depth.
"""

from dataclasses import dataclass

import sympy

from ..dynamics import Dynamics, Equation, Quantity
from ..errors import ModelError
from .full import describe
from .indexed import element, entry, index
from .network import S_XX, S_YX, D, LinearNetwork, M
from .reduction import Described, dynamics, equation, quantity, step
from .words import Letter, Matrix, Word, identity, rewrite, substitute, zero

R, NULL = (sympy.Symbol(name, integer=True, positive=True) for name in ("r", "q"))
PHI_1, PHI_2 = Letter("Phi1", D, R), Letter("Phi2", D, NULL)
DELTA = Letter("delta", R, R, diagonal=True)
C = Letter("C", R, M)
DATA = {
    DELTA: Described(r"\delta", "eigenvalues of XᵀX that are not zero: squared singular values of X", minimum=0.0),
    C: Described("C", "input–output correlation Φ₁ᵀXᵀY in the eigenbasis of the inputs"),
}
ORTHONORMAL: dict[Word, Matrix] = {
    ((PHI_1, True), (PHI_1, False)): identity(R),
    ((PHI_2, True), (PHI_2, False)): identity(NULL),
    ((PHI_1, True), (PHI_2, False)): zero(R, NULL),
}
EXCESS = Quantity("excess_loss", latex=r"L - L^{\ast}", meaning="loss above its least value over linear maps")


@dataclass(frozen=True, slots=True)
class Principal:
    """The flow in the eigenbasis of the inputs.

    Attributes
    ----------
    seen, unseen : Letter
        The first layer, transposed, in directions with and without data.
    flow : dict
        Of ``seen``, ``unseen`` and all further layers.
    """

    seen: Letter
    unseen: Letter
    flow: dict[Letter, Matrix]


def to_eigenbasis(network: LinearNetwork, reduction: str) -> Principal:
    """Change variables: W1 = U1ᵀ Φ1ᵀ + U2ᵀ Φ2ᵀ, XᵀX = Φ1 δ Φ1ᵀ, YᵀX = Cᵀ Φ1ᵀ."""
    if network.inputs == "whitened":
        accepted = "inputs='general': whitened inputs have no other eigenbasis, and data in every direction"
        raise ModelError("reduction", reduction, accepted)
    first, width = network.layers[0], network.sizes[1]
    seen, unseen = Letter("U1", R, width), Letter("U2", NULL, width)
    phi_1, phi_2 = PHI_1.matrix, PHI_2.matrix
    values = {
        first: seen.matrix.T @ phi_1.T + unseen.matrix.T @ phi_2.T,
        S_XX: phi_1 @ DELTA.matrix @ phi_1.T,
        S_YX: C.matrix.T @ phi_1.T,
    }
    moved = {layer: rewrite(substitute(rate, values), ORTHONORMAL) for layer, rate in network.flow.items()}
    inputs = moved.pop(first)
    flow = {
        seen: rewrite((inputs @ phi_1).T, ORTHONORMAL),
        unseen: rewrite((inputs @ phi_2).T, ORTHONORMAL),
        **moved,
    }
    return Principal(seen, unseen, flow)


def principal(network: LinearNetwork) -> Dynamics:
    """Return the flow in the eigenbasis of the inputs, layer by layer."""
    reduced = to_eigenbasis(network, "principal")
    moving = reduced.flow if network.weight_decay else {x: f for x, f in reduced.flow.items() if x != reduced.unseen}
    described = {
        reduced.seen: Described("U_1", "first layer in directions with data, Φ₁ᵀ W₁ᵀ"),
        reduced.unseen: Described("U_2", "first layer in directions without data, Φ₂ᵀ W₁ᵀ"),
        **{layer: describe(layer) for layer in network.layers[1:]},
    }
    map_ = reduced.seen.matrix
    for layer in network.layers[1:]:
        map_ = map_ @ layer.matrix.T
    return dynamics(
        title=f"{network.name} in the eigenbasis of its inputs",
        drift=[equation(letter, rate, described[letter]) for letter, rate in moving.items()],
        parameters=(quantity(DELTA, DATA[DELTA]), quantity(C, DATA[C]), *network.optimiser_parameters),
        observables=[Equation(EXCESS, excess_loss(map_))],
        assumptions=("gradient flow: the limit of small learning rates", "squared loss"),
        steps=[
            step("Gradient flow", "Cyclic derivatives of the loss.", network.flow),
            step("Eigenbasis of the inputs", to_eigenbasis.__doc__ or "", reduced.flow),
        ],
        model=network,
        reduction="principal",
    )


def excess_loss(map_: Matrix) -> sympy.Expr:
    """Return L − L* = ½ Σ_ij (C_ij − δ_i S_ij)²/δ_i of the map S in the eigenbasis, (r, m)."""
    a, b = index("a"), index("b")
    residual = element(C, a, b) - element(DELTA, a, a) * entry(map_, a, b)
    half = sympy.Rational(1, 2)
    return half * sympy.Sum(sympy.Sum(residual**2 / element(DELTA, a, a), (b, 1, M)), (a, 1, R))
