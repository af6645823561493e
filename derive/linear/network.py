"""Linear networks: the model, its loss and gradient flow as matrix words, and the reductions of that flow."""

import numbers
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import sympy

from ..dynamics import Dynamics, Quantity
from ..errors import ModelError, nearest
from .reduction import Described, quantity
from .traces import Trace, descent, squared_norm, trace
from .words import Letter, Matrix, identity

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from ..closed_flows.matrix_riccati import MatrixClosedForm
    from ..conservation.parametrisation import Parametrisation
    from .conserved import MatrixLaws

D, M = (sympy.Symbol(name, integer=True, positive=True) for name in ("D", "m"))
MU = Quantity("mu", latex=r"\mu", meaning="weight decay: the loss holds ½μ‖θ‖²", minimum=0.0)
S_XX = Letter("S_xx", D, D, symmetric=True)
S_YX = Letter("S_yx", M, D)
S_YY = Quantity("s_yy", latex="s_{yy}", meaning="sum of squared outputs, tr YᵀY", minimum=0.0)
ANY_GRADIENT = Letter("G", M, D)
DATA = {
    S_XX: Described("S_{xx}", "input–input correlation XᵀX (a sum over examples, or a mean: time counts accordingly)"),
    S_YX: Described("S_{yx}", "output–input correlation YᵀX (a sum over examples, or a mean)"),
}


@dataclass(frozen=True)
class LinearNetwork:
    """A deep linear network y = W_N … W_1 x trained on ½‖Y − X (W_N … W_1)ᵀ‖² by gradient flow.

    Parameters
    ----------
    depth : int
        Number of layers N ≥ 1. W_1 has shape (h_1, D), W_N (m, h_{N-1}); with two layers the width is ``h``.
    inputs : {"general", "whitened"}
        Whether ``S_xx`` is any covariance or the identity. It may be singular: under-determined data.
    rates : {"equal", "layerwise"}
        One learning rate, which only scales time, or ``eta_1``, …, ``eta_N`` relative to η, one for each layer.
    weight_decay : bool
        Whether ½μ Σ‖W_l‖² is added to the loss, with the parameter ``mu``.

    Raises
    ------
    ModelError
        For a bad argument, naming it.

    Notes
    -----
    Time is t = η·steps, and dW_l/dt = −η_l ∂L/∂W_l. With ``S_xx`` = XᵀX and ``S_yx`` = YᵀX the loss is the sum over
    examples; divided by their number it is the mean, and time is longer by that number.

    Examples
    --------
    >>> network = LinearNetwork(depth=2)
    >>> for layer, rate in network.flow.items():
    ...     print(f"d{layer}/dt =", rate)
    dW1/dt = W2ᵀ S_yx - W2ᵀ W2 W1 S_xx
    dW2/dt = S_yx W1ᵀ - W2 W1 S_xx W1ᵀ
    """

    depth: int = 2
    inputs: str = "general"
    rates: str = "equal"
    weight_decay: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.depth, bool) or not isinstance(self.depth, numbers.Integral) or self.depth < 1:
            raise ModelError("depth", self.depth, "a number of layers, at least 1")
        for name, accepted in (("inputs", ("general", "whitened")), ("rates", ("equal", "layerwise"))):
            given = getattr(self, name)
            if given not in accepted:
                raise ModelError(name, given, f"{' or '.join(map(repr, accepted))}{nearest(str(given), accepted)}")
        if not isinstance(self.weight_decay, bool):
            raise ModelError("weight_decay", self.weight_decay, "True or False")

    @cached_property
    def sizes(self) -> tuple[sympy.Symbol, ...]:
        """The sizes D, h_1, …, h_{N-1}, m, from the inputs to the outputs."""
        names = ["h"] if self.depth == 2 else [f"h_{n}" for n in range(1, self.depth)]
        return (D, *(sympy.Symbol(name, integer=True, positive=True) for name in names), M)

    @cached_property
    def layers(self) -> tuple[Letter, ...]:
        """The weight matrices W1, …, WN."""
        return tuple(Letter(f"W{n + 1}", self.sizes[n + 1], self.sizes[n]) for n in range(self.depth))

    @property
    def end_to_end(self) -> Matrix:
        """The map that the network computes, W_N … W_1."""
        product = identity(M)
        for layer in reversed(self.layers):
            product = product @ layer.matrix
        return product

    @property
    def input_correlation(self) -> Matrix:
        """XᵀX: a letter, or the identity."""
        return identity(D) if self.inputs == "whitened" else S_XX.matrix

    @property
    def data_matrix(self) -> Matrix:
        """YᵀX."""
        return S_YX.matrix

    @cached_property
    def loss(self) -> Trace:
        """The squared loss as a trace, without weight decay."""
        w, half = self.end_to_end, sympy.Rational(1, 2)
        data = trace(self.data_matrix @ w.T)
        return half * trace(w @ self.input_correlation @ w.T, S_YY.symbol) - data

    @cached_property
    def objective(self) -> Trace:
        """What the flow descends: the loss, with weight decay if there is one."""
        if not self.weight_decay:
            return self.loss
        half_mu = MU.symbol / 2
        total = self.loss
        for layer in self.layers:
            total = total + half_mu * squared_norm(layer.matrix)
        return total

    @cached_property
    def flow(self) -> dict[Letter, Matrix]:
        """The gradient flow, derived from the objective by cyclic derivatives."""
        return descent(self.objective, self.layer_rates)

    @property
    def flow_of_any_loss(self) -> dict[Letter, Matrix]:
        """The gradient flow of any loss of the map W, without weight decay: ``G`` stands for −∂L/∂W, whatever it is."""
        return descent(-1 * trace(ANY_GRADIENT.matrix.T @ self.end_to_end), self.layer_rates)

    @property
    def layer_rates(self) -> dict[Letter, sympy.Expr]:
        """The relative learning rate of each layer."""
        if self.rates == "equal":
            return dict.fromkeys(self.layers, sympy.S.One)
        return {layer: rate.base for layer, rate in zip(self.layers, self.rate_parameters, strict=True)}

    @property
    def rate_parameters(self) -> tuple[Quantity, ...]:
        """The parameters that its learning rates are; none where time counts them."""
        if self.rates == "equal":
            return ()
        return tuple(
            Quantity(f"eta_{n}", latex=rf"\eta_{{{n}}}", meaning=f"relative learning rate of layer {n}", minimum=0.0)
            for n in range(1, self.depth + 1)
        )

    @property
    def optimiser_parameters(self) -> tuple[Quantity, ...]:
        """Learning rates and weight decay."""
        return (*self.rate_parameters, *([MU] if self.weight_decay else []))

    @property
    def data_parameters(self) -> tuple[Quantity, ...]:
        """The correlations of the data that the flow depends on."""
        letters = (S_YX,) if self.inputs == "whitened" else (S_XX, S_YX)
        return tuple(quantity(letter, DATA[letter]) for letter in letters)

    @property
    def name(self) -> str:
        """What it is called in titles."""
        number = {1: "One", 2: "Two", 3: "Three", 4: "Four"}.get(self.depth, str(self.depth))
        return f"{number}-layer linear network"

    def dynamics(self, reduction: str = "full") -> Dynamics:
        """Return the gradient flow, or what it reduces to.

        Parameters
        ----------
        reduction : str
            ``"full"``: every weight. ``"principal"``: in the eigenbasis of the inputs, where the directions without
            data separate off (two or more layers). ``"gram"``: the products of layers contracted over the width, whose
            number does not depend on it (two layers). ``"gram-null"``: these, and those with the directions without
            data. ``"modes"``: layers aligned with the data, one scalar chain for each mode. ``"strengths"``: the
            strengths of these modes alone. ``"riccati"``: two layers, whitened inputs, λ-balanced. ``"end-to-end"``:
            balanced layers, the map that the network computes in SVD form. ``"neuron"``: a single linear neuron,
            h = m = 1; ``"neuron-chain"``: the same on whitened inputs, in variables that have a closed form.
            ``"chain"``: the modes of a deep network at any imbalance.

        Returns
        -------
        Dynamics
            Of kind ``"ode"`` with the clock ``eta*steps``. Its ``steps`` hold the derivation, its ``assumptions`` the
            hypotheses on initial values; see :doc:`theory/linear_networks`.

        Raises
        ------
        ModelError
            For an unknown reduction, or one that does not apply to this network.

        Examples
        --------
        >>> dyn = LinearNetwork(depth=3).dynamics()
        >>> [q.name for q in dyn.states]
        ['W1', 'W2', 'W3']
        """
        if not isinstance(reduction, str):
            raise ModelError("reduction", reduction, "a name, such as 'full' or 'gram'")
        return _reduce(self, reduction)

    def matrix_closed_form(self, reduction: str) -> "MatrixClosedForm | None":
        """Return the closed form of a reduction whose states are matrices, if it has one."""
        from .riccati import matrix_closed_form

        return matrix_closed_form(self) if reduction == "riccati" else None

    def matrix_laws(self) -> "MatrixLaws":
        """Return what the gradient flow of any loss of this network's map conserves, at any shapes."""
        from .conserved import matrix_laws

        return matrix_laws(self)

    def parametrisation(self, **sizes: int) -> "Parametrisation":
        """Return the map from weights to the function computed, φ(θ) = W_N … W_1, at given sizes.

        Raises
        ------
        ModelError
            If a size is missing or unknown, or the flow is not the plain gradient flow in θ: with weight decay or
            layer-wise rates.
        """
        from ..conservation.networks import linear_network_parametrisation

        if self.rates != "equal" or self.weight_decay:
            accepted = "rates='equal' and weight_decay=False; .conserved() without sizes holds for any rates"
            raise ModelError("sizes", sizes, accepted)
        wanted = [str(size) for size in self.sizes]
        if set(sizes) != set(wanted):
            raise ModelError("sizes", sizes, f"a number for each of {', '.join(wanted)}")
        return linear_network_parametrisation([sizes[name] for name in wanted])

    def arguments(self) -> dict[str, object]:
        """Return the constructor's arguments that differ from their defaults, and the depth."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f.name: given[f.name] for f in fields(self) if f.name == "depth" or given[f.name] != f.default}

    def to_json(self) -> str:
        """Return the model as JSON text, which :func:`effdyn.derive.model_from_json` reads."""
        from ..export.serialize import model_to_json

        return model_to_json(self)

    def __repr__(self) -> str:
        return f"LinearNetwork({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"


@lru_cache(maxsize=64)
def _reduce(network: LinearNetwork, reduction: str) -> Dynamics:
    from .reductions import REDUCTIONS

    if reduction not in REDUCTIONS:
        accepted = f"one of {', '.join(map(repr, REDUCTIONS))}{nearest(str(reduction), REDUCTIONS)}"
        raise ModelError("reduction", reduction, accepted)
    return REDUCTIONS[reduction](network)
