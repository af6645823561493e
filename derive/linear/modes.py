"""Layers aligned with the data: one scalar chain for each mode.

W_l = R_l diag(w_l) R_{l-1}ᵀ with orthonormal R_l, where R_0 and R_N are the singular vectors of the input–output
correlation: Saxe, McClelland & Ganguli (2014) for two layers and balanced ones, here for any depth and balance. That
the flow leaves this form invariant is checked when it is derived.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from ..dynamics import Dynamics, Equation, Quantity, Step
from ..errors import ModelError
from .network import S_XX, S_YX, LinearNetwork
from .reduction import Described, I, diagonal_entry, dynamics, equation, quantity, step
from .words import Letter, Matrix, Word, identity, product, rewrite, substitute

P = sympy.Symbol("p", integer=True, positive=True)
C = Letter("c", P, P, diagonal=True)
DELTA = Letter("delta", P, P, diagonal=True)
DATA = {
    C: Described("c", "singular values of the input–output correlation YᵀX", minimum=0.0),
    DELTA: Described(r"\delta", "input variance along each mode", minimum=0.0),
}
STRENGTH = Quantity("s", (I,), (P,), "s", "mode strengths, w_1 … w_N", dims=("mode",))
ALIGNED = "layers aligned with the data and with each other, W_l = R_l diag(w_l) R_{l-1}ᵀ; the form is invariant"


@dataclass(frozen=True, slots=True)
class Modes:
    """The flow of aligned layers.

    Attributes
    ----------
    frames : tuple of Letter
        The orthonormal frames R_0, …, R_N.
    amplitudes : tuple of Letter
        The diagonal letters w_1, …, w_N.
    flow : dict
        Of the amplitudes.
    """

    frames: tuple[Letter, ...]
    amplitudes: tuple[Letter, ...]
    flow: dict[Letter, Matrix]


def align(network: LinearNetwork) -> Modes:
    """Return the flow of aligned layers; raises an AssertionError if the flow left their form, which it does not."""
    frames = tuple(Letter(f"R{n}", size, P) for n, size in enumerate(network.sizes))
    amplitudes = tuple(Letter(f"w{n + 1}", P, P, diagonal=True) for n in range(network.depth))
    layers = {
        layer: frames[n + 1].matrix @ amplitudes[n].matrix @ frames[n].matrix.T
        for n, layer in enumerate(network.layers)
    }
    values = layers | {S_YX: frames[-1].matrix @ C.matrix @ frames[0].matrix.T}
    rules: dict[Word, Matrix] = {((frame, True), (frame, False)): identity(P) for frame in frames}
    if network.inputs == "general":  # the modes are eigenvectors of the input correlation
        rules[(S_XX, False), (frames[0], False)] = frames[0].matrix @ DELTA.matrix
    flow: dict[Letter, Matrix] = {}
    for n, layer in enumerate(network.layers):
        rate = rewrite(substitute(network.flow[layer], values), rules)
        flow[amplitudes[n]] = rewrite(frames[n + 1].matrix.T @ rate @ frames[n].matrix, rules)
        aligned = frames[n + 1].matrix @ flow[amplitudes[n]] @ frames[n].matrix.T
        assert not rate - aligned, f"the flow of {layer} leaves the aligned form by {rate - aligned}"
    return Modes(frames, amplitudes, flow)


def modes(network: LinearNetwork) -> Dynamics:
    """Return the flow of the amplitudes w_1, …, w_N of every mode."""
    aligned = align(network)
    strength = strength_of(aligned)
    return dynamics(
        title=f"{network.name}, modes aligned with the data",
        drift=[
            equation(w, rate, Described(f"w^{{({n + 1})}}", f"mode amplitudes of layer {n + 1}"))
            for n, (w, rate) in enumerate(aligned.flow.items())
        ],
        parameters=(*mode_data(network), *network.optimiser_parameters),
        observables=[
            Equation(STRENGTH, strength),
            Equation(EXCESS_OF_MODES, excess_of(network, strength)),
        ],
        assumptions=("gradient flow: the limit of small learning rates", ALIGNED),
        steps=mode_steps(network, aligned.flow),
        model=network,
        reduction="modes",
    )


EXCESS_OF_MODES = Quantity("excess_loss", latex=r"L - L^{\ast}", meaning="loss above its least value, of these modes")


def strength_of(aligned: Modes) -> sympy.Expr:
    """Return s_i = Π_l w_l,i."""
    return diagonal_entry(product((w.matrix for w in aligned.amplitudes), identity(P)), I)


def excess_of(network: LinearNetwork, strength: sympy.Expr) -> sympy.Expr:
    """Return ½ Σ_i (c_i − δ_i s_i)²/δ_i."""
    delta = input_variance(network)
    return sympy.Rational(1, 2) * sympy.Sum((C_I - delta * strength) ** 2 / delta, (I, 1, P))


C_I = sympy.IndexedBase("c", real=True)[I]


def input_variance(network: LinearNetwork) -> sympy.Expr:
    """Return δ_i, which is 1 for whitened inputs."""
    return sympy.S.One if network.inputs == "whitened" else sympy.IndexedBase("delta", real=True)[I]


def mode_data(network: LinearNetwork) -> tuple[Quantity, ...]:
    """Return the parameters that describe the data in modes."""
    letters = (C,) if network.inputs == "whitened" else (C, DELTA)
    return tuple(quantity(letter, DATA[letter]) for letter in letters)


def mode_steps(network: LinearNetwork, flow: Mapping[Letter, Matrix]) -> list[Step]:
    """Return the derivation up to the amplitudes."""
    return [
        step("Gradient flow", "Cyclic derivatives of the loss.", network.flow),
        step("Aligned layers", f"The {ALIGNED}.", flow),
    ]


def check_plain(network: LinearNetwork, reduction: str) -> None:
    """Raise a ModelError unless the network has equal rates and no weight decay, which conserve what is used."""
    if network.rates != "equal" or network.weight_decay:
        accepted = "rates='equal' and weight_decay=False: the imbalance that it eliminates is conserved only then"
        raise ModelError("reduction", reduction, accepted)
