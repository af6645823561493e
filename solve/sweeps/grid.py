"""Which cells a sweep has: the outer product of the values of each name, and how they are labelled.

Here everything that a user states about a sweep is checked, before anything is computed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.errors import nearest

from ..arguments import checked_span, checked_times
from ..given import Given, step_length
from ..kernels.layout import HasQuantities, Inputs, read_inputs
from ..results import variable

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Axis:
    """The values that one name takes, (n, …), and the dim that they make."""

    quantity: Quantity
    values: np.ndarray
    initial: bool

    @property
    def name(self) -> str:
        return self.quantity.name

    @property
    def plain(self) -> bool:
        """Whether the values are numbers that can label the dim themselves."""
        return self.values.ndim == 1 and not self.initial

    @property
    def dim(self) -> str:
        return self.name if self.plain else f"{self.name}_case"

    def coordinates(self) -> dict[str, tuple[Any, ...]]:
        """Return the coordinates of the dim, as xarray takes them: its labels, and the values where those are not."""
        about = {"long_name": self.quantity.meaning}
        if self.plain:
            return {self.name: ((self.name,), self.values, about)}
        labels = {self.dim: ((self.dim,), np.arange(len(self.values)), {"long_name": f"values of {self.name}"})}
        name = f"{self.name}_initial" if self.initial else self.name
        values = ((self.dim,), self.values, about) if self.values.ndim == 1 else self._arrays()
        return labels | {name: values}

    def _arrays(self) -> tuple[Any, ...]:
        return variable(self.quantity, self.values, (self.dim,))


@dataclass(frozen=True, slots=True)
class Grid:
    """The outer product of axes; cells are numbered in C order.

    Attributes
    ----------
    axes : tuple of Axis
    y0, params : dict of ndarray
        What does not vary.
    first : Inputs
        The inputs of cell 0, checked.
    """

    axes: tuple[Axis, ...]
    y0: Arrays
    params: Arrays
    first: Inputs

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(axis.dim for axis in self.axes)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    def cell(self, index: int) -> tuple[Arrays, Arrays]:
        """Return the initial values and the parameters that are this cell's own."""
        place = np.unravel_index(index, self.shape)
        chosen = [(axis, axis.values[i]) for axis, i in zip(self.axes, place, strict=True)]
        return {a.name: v for a, v in chosen if a.initial}, {a.name: v for a, v in chosen if not a.initial}

    def coordinates(self) -> dict[str, tuple[Any, ...]]:
        return {name: entry for axis in self.axes for name, entry in axis.coordinates().items()}


def read_grid(dynamics: Dynamics, over: Any, y0: Any, params: Any) -> Grid:
    """Return the cells of a sweep.

    Raises
    ------
    ModelError
        Naming the entry at fault, ``over['eta'][3]`` if one value of many is.
    """
    problem: HasQuantities = dynamics if dynamics.kind in ("ode", "map", "sde") else Given.of(dynamics)
    states, parameters = ({q.name: q for q in group} for group in (problem.states, problem.parameters))
    if not isinstance(over, Mapping) or not over:
        raise ModelError("over", over, f"a dict from names to values, of {', '.join((*parameters, *states))}")
    fixed_y0, fixed_params = _plain(y0, "y0", states), _plain(params, "params", parameters)
    for name, given in over.items():
        if name not in states and name not in parameters:
            known = (*parameters, *states)
            raise ModelError(f"over[{name!r}]", given, f"one of {', '.join(known)}{nearest(str(name), known)}")
        if (isinstance(y0, Mapping) and name in fixed_y0) or name in fixed_params:
            place = "y0" if name in fixed_y0 else "params"
            raise ModelError(f"over[{name!r}]", given, f"{name} varies: leave it out of {place}")
    axes = tuple(_axis(states.get(n) or parameters[n], values, n in states) for n, values in over.items())
    fixed_y0 = {name: value for name, value in fixed_y0.items() if name not in over}  # those of a Dataset
    return Grid(axes, fixed_y0, fixed_params, _check_values(problem, axes, fixed_y0, fixed_params))


def _plain(given: Any, argument: str, quantities: Iterable[str]) -> Arrays:
    """Return what does not vary as a dict; a Dataset gives its states. What is in it is checked with the first cell."""
    if given is None:
        return {}
    if hasattr(given, "data_vars") and "t" not in given.dims:
        return {name: given[name].values for name in quantities if name in given}
    if not isinstance(given, Mapping) or hasattr(given, "data_vars"):
        raise ModelError(argument, given, f"a dict with what does not vary of {', '.join(quantities)}")
    return dict(given)


def _axis(quantity: Quantity, given: Any, initial: bool) -> Axis:
    argument, rank = f"over[{quantity.name!r}]", len(quantity.indices)
    form = "(n,), a list of numbers" if not rank else f"(n, {', '.join(map(str, quantity.shape))}), a list of arrays"
    form += ", or (n,), each for all units" if rank == 1 else ""
    try:
        values = np.array(given, dtype=float)
    except (TypeError, ValueError):
        raise ModelError(argument, given, f"an array of shape {form}") from None
    if values.ndim not in ({1, 2} if rank == 1 else {rank + 1}) or not values.size:
        raise ModelError(argument, given, f"an array of shape {form}")
    axis = Axis(quantity, values, initial)
    if axis.plain and len(np.unique(values)) < len(values):
        raise ModelError(argument, given, "different values, each once")
    return axis


def _check_values(problem: HasQuantities, axes: tuple[Axis, ...], y0: Arrays, params: Arrays) -> Inputs:
    """Check the first cell, then each value of each axis in it; return the inputs of the first cell.

    What is wrong only with several values together, such as overlaps that no vectors have, is found in its cell.
    """
    start = {axis.name: axis.values[0] for axis in axes}
    initial = {axis.name for axis in axes if axis.initial}

    def read(varied: Arrays) -> Inputs:
        own = {name: value for name, value in varied.items() if name in initial}
        return read_inputs(problem, {**y0, **own}, {**params, **{n: v for n, v in varied.items() if n not in own}})

    places = {f"{'y0' if axis.initial else 'params'}[{axis.name!r}]" for axis in axes}
    for axis in axes:
        for n, value in enumerate(axis.values):
            try:
                read({**start, axis.name: value})
            except ModelError as error:
                if error.argument == f"{'y0' if axis.initial else 'params'}[{axis.name!r}]":
                    raise ModelError(f"over[{axis.name!r}][{n}]", error.given, error.accepted) from None
                if n == 0 and error.argument not in places:
                    raise
    return read(start)


def output_times(dynamics: Dynamics, grid: Grid, t_span: Any, t_eval: Any) -> np.ndarray:
    """Return the times that every cell is saved at: 101 by default; whole steps of a map.

    Raises
    ------
    ModelError
        If the steps of a map are of different lengths in different cells.
    """
    span = checked_span(t_span)
    times = checked_times(t_eval, span)
    times = np.linspace(*span, 101) if times is None else times
    if dynamics.kind != "map":
        return times
    ends = [{axis.name: axis.values[n]} for axis in grid.axes if not axis.initial for n in (0, -1)]
    first = grid.first
    steps = {step_length(dynamics, Inputs(first.sizes, first.y0, {**first.params, **end})) for end in (*ends, {})}
    if len(steps) > 1:
        raise ModelError("over", list(grid.dims), f"parameters that leave the clock {dynamics.clock} as it is")
    (step,) = steps
    return span[0] + np.unique(np.rint((times - span[0]) / step)) * step
