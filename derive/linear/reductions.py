"""What the gradient flow of a linear network reduces to, by name. A new reduction is one file and one line here."""

from collections.abc import Callable

from ..dynamics import Dynamics
from .end_to_end import end_to_end
from .full import full
from .gram import gram, gram_null
from .modes import modes
from .network import LinearNetwork
from .neuron import neuron
from .neuron_chain import neuron_chain
from .principal import principal
from .riccati import riccati
from .strengths import chain, strengths

REDUCTIONS: dict[str, Callable[[LinearNetwork], Dynamics]] = {
    "full": full,
    "principal": principal,
    "gram": gram,
    "gram-null": gram_null,
    "modes": modes,
    "strengths": strengths,
    "chain": chain,
    "riccati": riccati,
    "end-to-end": end_to_end,
    "neuron": neuron,
    "neuron-chain": neuron_chain,
}
