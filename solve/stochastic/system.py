"""Stochastic equations as numbers: the compiled drift and diffusion, and where each entry of the diffusion belongs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.diffusion import Amplitude, Covariation, noises
from effdyn.derive.dynamics import Equation
from effdyn.derive.errors import Described

from ..kernels.kernel import Kernel, kernel, observables_kernel
from ..kernels.layout import Inputs, pack, packed_length, parameter_vector, read_inputs
from .steps import MATRICES, ROWS


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """What the step loops need besides times and random numbers.

    Attributes
    ----------
    drift, diffusion : Kernel
    factored : bool
        Whether the diffusion is a covariance of increments, to be factored.
    entries : ndarray (E, 4) of uint64
        Row (packed state), column and place in the output of the diffusion kernel, of each entry that may not be zero;
        and whether there was one with that row and column before.
    m : int
        Columns: Brownian motions, or packed states.
    n_raw : int
        The length of that output.
    par, y0 : ndarray
        Packed.
    """

    dynamics: Dynamics
    inputs: Inputs
    drift: Kernel
    diffusion: Kernel
    factored: bool
    entries: np.ndarray
    m: int
    n_raw: int
    par: np.ndarray
    y0: np.ndarray

    def scratch(self) -> tuple[np.ndarray, ...]:
        """Return what a path scribbles on: workspace, raw diffusion, vectors, matrices."""
        n = len(self.y0)
        n_work = max(k.workspace_size(self.inputs.sizes) for k in (self.drift, self.diffusion))
        rows = (np.zeros(n) for _ in range(ROWS))
        return np.zeros(n_work), np.zeros(self.n_raw), *rows, *(np.zeros((n, self.m)) for _ in range(MATRICES))


def system_of(dynamics: Dynamics, y0: Any, params: Mapping[str, Any]) -> System:
    """Return the system at given initial values and parameters.

    Raises
    ------
    ModelError
        For equations without noise, and whatever :func:`effdyn.solve.kernels.layout.read_inputs` finds.
    """
    if not dynamics.diffusion:
        raise ModelError("dynamics", Described("an SDE without diffusion"), "noise in `diffusion`, or kind='ode'")
    compiled = with_diffusion_observed(dynamics)
    inputs = read_inputs(compiled, y0, params)
    outputs = [e.quantity for e in compiled.observables]
    entries, m = _entries(dynamics, outputs, inputs.sizes)
    return System(
        dynamics,
        inputs,
        kernel(compiled, inputs.sizes),
        observables_kernel(compiled),
        isinstance(dynamics.diffusion[0], Covariation),
        entries,
        m,
        sum(packed_length(q, inputs.sizes) for q in outputs),
        parameter_vector(compiled, inputs),
        pack(dynamics.states, inputs.y0),
    )


@lru_cache(maxsize=64)
def with_diffusion_observed(dynamics: Dynamics) -> Dynamics:
    """Return the drift with the entries of the diffusion as its observables: kernels know what to do with these."""
    observed = tuple(
        Equation(_output(e, f"diffusion_{n}"), sympy.sympify(e.expr)) for n, e in enumerate(dynamics.diffusion, 1)
    )
    return replace(dynamics, observables=observed, diffusion=())


def _output(entry: Amplitude | Covariation, name: str) -> Quantity:
    """Return the array of an entry's values: over the indices of its state, then those that only its columns have."""
    axes = dict(zip(entry.state.indices, entry.state.shape, strict=True))
    axes |= dict(zip(entry.column.indices, entry.column.shape, strict=True))
    return Quantity(name, tuple(axes), tuple(axes.values()))


def _entries(dynamics: Dynamics, outputs: list[Quantity], sizes: Mapping[str, int]) -> tuple[np.ndarray, int]:
    """Return the entries of the diffusion, and its number of columns."""
    rows = _numbers(dynamics.states, sizes)
    found, place = [], 0
    motions = noises(dynamics)
    columns = _numbers(motions, sizes) if motions else rows
    for entry, output in zip(dynamics.diffusion, outputs, strict=True):
        shape = tuple(sizes[str(s)] for s in output.shape)
        at = np.unravel_index(np.arange(math.prod(shape)), (*shape, 1))
        axis = dict(zip(output.indices, at, strict=False))
        row, column = (
            np.broadcast_to(numbers[q.name][tuple(axis[i] for i in q.indices)], math.prod(shape))
            for numbers, q in ((rows, entry.state), (columns, entry.column))
        )
        places = place + np.arange(math.prod(shape))
        place += len(places)
        own = np.stack([row, column, places], axis=1)[(row >= 0) & (column >= 0)]
        found.append(own)
        if isinstance(entry, Covariation) and entry.state.name != entry.other.name:
            found.append(own[:, [1, 0, 2]])
    entries = np.concatenate(found)
    _, first = np.unique(entries[:, :2], axis=0, return_index=True)
    again = ~np.isin(np.arange(len(entries)), first)
    return np.column_stack([entries, again]).astype(np.uint64), 1 + max(int(n.max()) for n in columns.values())


def _numbers(quantities: tuple[Quantity, ...], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return for each element of each array its place in the packed vector; -1 below the diagonal of symmetric ones."""
    numbers, start = {}, 0
    for q in quantities:
        shape = tuple(sizes[str(s)] for s in q.shape)
        length = packed_length(q, sizes)
        own = start + np.arange(length)
        if q.symmetric:
            numbers[q.name] = np.full(shape, -1)
            numbers[q.name][np.triu_indices(shape[0])] = own
        else:
            numbers[q.name] = own.reshape(shape)
        start += length
    return numbers
