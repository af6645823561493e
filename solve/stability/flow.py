"""A Dynamics at given parameters as a vector field: its drift and its Jacobian at packed states."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, NotYet, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.derive.tangent import NotDifferentiable, tangent

from ..integrate import observe
from ..kernels.gram import gram_matrices
from ..kernels.kernel import Kernel, check_dynamics, kernel
from ..kernels.layout import Inputs, pack, packed_length, parameter_vector, read_inputs, unpack

STEP = 1e-3
"""Of five-point differences, relative: truncation, of fourth order, and rounding are both about 1e-12 of the drift."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Drift and Jacobian. States are packed: of a symmetric matrix the upper triangle, so that eigenvalues are those of
    the flow of symmetric matrices, each counted once.

    Attributes
    ----------
    dynamics : Dynamics
    inputs : Inputs
        Sizes and parameters; its initial values are not used.
    """

    dynamics: Dynamics
    inputs: Inputs

    @classmethod
    def at(cls, dynamics: Dynamics, y0: Any, params: Mapping[str, Any]) -> "Flow":
        """Return the flow, with inputs checked as ``solve.integrate`` checks them.

        Raises
        ------
        ModelError
            For bad input, naming it.
        NotYet
            If these are not differential equations.
        """
        check_dynamics(dynamics)
        if dynamics.kind != "ode":
            raise NotYet(f"stability of equations of kind {dynamics.kind!r}", "stability of differential equations")
        if any(TIME in e.expr.free_symbols for e in dynamics.drift):
            raise NotYet("stability of equations that depend on time explicitly", "equations without a schedule")
        return cls(dynamics, read_inputs(dynamics, y0, params))

    @property
    def start(self) -> np.ndarray:
        """The initial values that it was given, packed."""
        return pack(self.dynamics.states, self.inputs.y0)

    def unpacked(self, y: np.ndarray) -> dict[str, np.ndarray]:
        """Return the states by name."""
        return unpack(self.dynamics.states, y, self.inputs.sizes)

    def drift(self, y: np.ndarray) -> np.ndarray:
        """Return the time derivative at ``y`` (n,); NaN where no vectors have these overlaps."""
        return _call(kernel(self.dynamics), y, parameter_vector(self.dynamics, self.inputs), self.inputs)

    def jacobian(self, y: np.ndarray) -> np.ndarray:
        """Return the derivative of the drift at ``y``, (n, n): from symbolic forms, or from differences."""
        return self._symbolic(y) if self.jacobian_from == "symbolic" else self._differences(y)

    @property
    def jacobian_from(self) -> str:
        """``"symbolic"``, or ``"finite differences"`` with the reason."""
        reason = _why_not_symbolic(self.dynamics)
        return f"finite differences: {reason}" if reason else "symbolic"

    def _symbolic(self, y: np.ndarray) -> np.ndarray:
        linear = tangent(self.dynamics)
        inputs = Inputs(self.inputs.sizes, {}, self.unpacked(y) | self.inputs.params)
        par, compiled = parameter_vector(linear, inputs), kernel(linear)
        return np.stack([_call(compiled, unit, par, inputs) for unit in np.eye(len(y))], axis=1)

    def _differences(self, y: np.ndarray, step: float = STEP) -> np.ndarray:
        h = step * max(1.0, float(np.abs(y).max(initial=0.0)))
        columns = [
            (8 * (self.drift(y + e) - self.drift(y - e)) - (self.drift(y + 2 * e) - self.drift(y - 2 * e))) / (12 * h)
            for e in h * np.eye(len(y))
        ]
        return np.stack(columns, axis=1)

    def observed(self, y: np.ndarray) -> dict[str, np.ndarray]:
        """Return the observables at states ``y`` (N, n)."""
        return observe(self.dynamics, self.inputs, np.zeros(len(y)), np.atleast_2d(y))

    def least_eigenvalue(self, y: np.ndarray) -> float:
        """Return the least eigenvalue of the overlaps of all vectors over the largest; 0 if there are no overlaps."""
        gram = gram_matrices(self.dynamics, self.inputs.params | self.unpacked(y))
        if gram is None:
            return 0.0
        values = np.linalg.eigvalsh(gram)
        return float((values[..., 0] / np.maximum(values[..., -1], math.ulp(0.0))).min())

    @property
    def coordinates(self) -> list[str]:
        """The packed coordinates by name, as on paper: ``Q[1,2]``, …"""
        return [name for q in self.dynamics.states for name in _entries(q, self.inputs.sizes)]


@lru_cache(maxsize=64)
def _why_not_symbolic(dynamics: Dynamics) -> str:
    try:
        tangent(dynamics)
    except NotDifferentiable as reason:
        return str(reason)
    return ""


def _entries(q: Quantity, sizes: Mapping[str, int]) -> list[str]:
    shape = tuple(sizes[str(s)] for s in q.shape)
    entries = [e for e in np.ndindex(*shape) if not q.symmetric or list(e) == sorted(e)]
    names = [f"{q.name}[{','.join(str(i + 1) for i in e)}]" if e else q.name for e in entries]
    if len(names) != packed_length(q, sizes):
        raise AssertionError(f"{q.name} has {packed_length(q, sizes)} entries, not {len(names)}")
    return names


def _call(compiled: Kernel, y: np.ndarray, par: np.ndarray, inputs: Inputs) -> np.ndarray:
    y, out = np.ascontiguousarray(y, dtype=float), np.empty(len(y))
    compiled(0.0, y, out, par, np.zeros(compiled.workspace_size(inputs.sizes)))
    return out


def states_at(flow: Flow, y: np.ndarray, lead: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return states and observables at packed ``y`` as variables of a Dataset; ``lead`` names the axes before the
    last."""
    from ..results import variable

    values = flow.unpacked(y) | {
        name: v.reshape(*y.shape[:-1], *v.shape[1:]) for name, v in flow.observed(y.reshape(-1, y.shape[-1])).items()
    }
    quantities = (*flow.dynamics.states, *(e.quantity for e in flow.dynamics.observables))
    return {q.name: variable(q, values[q.name], lead) for q in quantities}


def attributes(flow: Flow) -> dict[str, str]:
    """Return the attributes that every result of this package has."""
    from ..results import provenance

    return {**provenance(flow.dynamics, flow.inputs.params), "jacobian": flow.jacobian_from}


def check_sizes(dynamics: Dynamics, sizes: Mapping[str, int]) -> None:
    """Raise a ModelError for sizes that are unknown or not positive integers."""
    known = [str(s) for s in dynamics.sizes]
    for name, number in sizes.items():
        if name not in known:
            raise ModelError(name, number, f"the sizes of these equations are {', '.join(known)}")
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise ModelError(name, number, "a positive whole number")
