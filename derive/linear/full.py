"""The gradient flow of every weight."""

from ..dynamics import Dynamics, Equation, Quantity
from .indexed import entry, trace_entry
from .network import S_YY, LinearNetwork
from .reduction import Described, I, J, axis, dynamics, equation, step
from .words import Letter

LOSS = Quantity("loss", latex="L", meaning="½‖Y − X (W_N … W_1)ᵀ‖², without weight decay")


def full(network: LinearNetwork) -> Dynamics:
    """Return the gradient flow of every weight matrix, by cyclic derivatives of the loss."""
    flow = network.flow
    product = Quantity(
        "W", (I, J), (network.sizes[-1], network.sizes[0]), "W", "the map that the network computes, W_N … W_1",
        dims=("output", "input"),
    )  # fmt: skip
    return dynamics(
        title=f"{network.name}, gradient flow",
        drift=[equation(layer, rate, describe(layer)) for layer, rate in flow.items()],
        parameters=(*network.data_parameters, S_YY, *network.optimiser_parameters),
        observables=[Equation(LOSS, trace_entry(network.loss)), Equation(product, entry(network.end_to_end, I, J))],
        assumptions=("gradient flow: the limit of small learning rates", "squared loss"),
        steps=[step("Gradient flow", f"Descends the loss {network.objective} by cyclic derivatives.", flow)],
        model=network,
        reduction="full",
    )


def describe(layer: Letter) -> Described:
    """Return how a weight matrix is called."""
    number = layer.name.removeprefix("W")
    meaning = f"weights of layer {number}, from {axis(layer.columns)} to {axis(layer.rows)}"
    return Described(f"W^{{({number})}}", meaning)
