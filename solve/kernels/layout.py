"""From names and arrays, as users type them, to the flat vectors of a kernel, and back.

Here every initial value and parameter is checked, once. Nothing is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import sympy

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.block_inputs import SHARE, check_blocks
from effdyn.derive.errors import Described, nearest
from effdyn.derive.numerical.quadrature import Table, table_sizes, table_values

from .gram import HasFields, gram_matrices, is_impossible, overlaps_of_fields
from .memory import node_sizes


class HasQuantities(HasFields, Protocol):
    """What has states and parameters: a Dynamics, or a model's training step."""

    @property
    def states(self) -> tuple[Quantity, ...]: ...
    @property
    def parameters(self) -> tuple[Quantity, ...]: ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked initial values and parameters.

    Attributes
    ----------
    sizes : dict
        The number behind each symbolic size, ``{"K": 2, "M": 2}``, numbers of nodes included.
    y0, params : dict of ndarray
        Full arrays by name; scalars are arrays of shape ().
    """

    sizes: dict[str, int]
    y0: dict[str, np.ndarray]
    params: dict[str, np.ndarray]


def read_inputs(problem: HasQuantities, y0: Any, params: Mapping[str, Any]) -> Inputs:
    """Return initial values and parameters as full arrays.

    One-dimensional quantities (``a``, ``b``) may be given as a scalar, for all units. ``y0`` may be a Dataset with the
    states at one time.

    Raises
    ------
    ModelError
        Naming the entry: unknown, missing, at the wrong place, of the wrong shape, not finite, out of range, not
        symmetric, overlaps that are not positive semidefinite, or what else the model does not admit.
    """
    states = {q.name: q for q in problem.states}
    parameters = {q.name: q for q in problem.parameters if not q.pseudoinverse_of}
    given_y0 = _entries("y0", y0, states)
    _check_names("y0", given_y0, states, other=("params", parameters))
    _check_names("params", params, parameters, ("y0", states), clock=getattr(problem, "clock", ""))
    _check_complete("y0", given_y0, states)
    _check_complete("params", params, parameters)
    place = {name: f"y0[{name!r}]" for name in states} | {name: f"params[{name!r}]" for name in parameters}
    quantities = states | parameters
    arrays = {
        name: _as_array(place[name], (given_y0 if name in states else params)[name], q)
        for name, q in quantities.items()
    }
    sizes = _read_sizes(problem, arrays, place)
    _check_least_sizes(problem, sizes)
    arrays = {name: _broadcast(place[name], q, arrays[name], sizes) for name, q in quantities.items()}
    arrays |= pseudoinverses(problem, arrays)
    _check_gram(problem, arrays)
    check_values = getattr(getattr(problem, "model", None), "check_values", None)
    if check_values is not None:
        check_values(arrays)
    elif SHARE.name in arrays:  # equations that are no longer those of a model, as the Langevin form
        check_blocks(arrays)
    sizes |= table_sizes(tables, number_of_fields(problem, sizes)) if (tables := tables_of(problem)) else {}
    everything = [q.name for q in problem.parameters]
    return Inputs(sizes, {name: arrays[name] for name in states}, {name: arrays[name] for name in everything})


def pseudoinverses(problem: HasQuantities, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters that are pseudo-inverses of those among ``arrays``; leading axes are kept."""
    computed = [q for q in problem.parameters if q.pseudoinverse_of in arrays]
    return {q.name: np.linalg.pinv(arrays[q.pseudoinverse_of], hermitian=True) for q in computed}


def pack(quantities: Sequence[Quantity], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the states as one vector: symmetric ones as their upper triangle, row by row."""
    parts = [
        arrays[q.name][np.triu_indices(arrays[q.name].shape[-1])] if q.symmetric else np.ravel(arrays[q.name])
        for q in quantities
    ]
    return np.concatenate([np.asarray(p, dtype=float) for p in parts])


def unpack(quantities: Sequence[Quantity], packed: np.ndarray, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return the arrays by name from vectors ``packed`` of shape (…, n); leading axes are kept."""
    arrays, start = {}, 0
    lead = packed.shape[:-1]
    for q in quantities:
        shape = tuple(sizes[str(s)] for s in q.shape)
        stop = start + packed_length(q, sizes)
        part = packed[..., start:stop]
        if q.symmetric:
            full = np.empty((*lead, *shape))
            i, k = np.triu_indices(shape[0])
            full[..., i, k] = part
            full[..., k, i] = part
            arrays[q.name] = full
        else:
            arrays[q.name] = part.reshape((*lead, *shape)).copy()
        start = stop
    return arrays


def packed_length(q: Quantity, sizes: Mapping[str, int]) -> int:
    """Return the number of doubles that a quantity takes in a packed vector."""
    shape = [sizes[str(s)] for s in q.shape]
    return shape[0] * (shape[0] + 1) // 2 if q.symmetric else int(np.prod(shape, dtype=int))


def parameter_vector(dynamics: Dynamics, inputs: Inputs, level: int = 0, shift: int = 0) -> np.ndarray:
    """Return ``par``: the sizes, then the parameters, then the tables of numerical rules.

    ``level`` and ``shift`` choose other rules, whose sizes ``inputs`` must have: see :func:`at_level`.
    """
    sizes = (*dynamics.sizes, *node_sizes(dynamics.tables))
    head = np.array([float(inputs.sizes[str(s)]) for s in sizes])
    parameters = [np.ravel(inputs.params[q.name]) for q in dynamics.parameters]
    return np.concatenate([head, *parameters, *_tables(dynamics, inputs, level, shift)])


def _tables(dynamics: Dynamics, inputs: Inputs, level: int, shift: int) -> list[np.ndarray]:
    """Return the tables, flat, with the axis of nodes last, along which kernels run through them."""
    count = number_of_fields(dynamics, inputs.sizes)
    return [np.ravel(table_values(table, count, level, shift).T) for table in dynamics.tables]


def at_level(dynamics: Dynamics, inputs: Inputs, level: int, shift: int = 0) -> Inputs:
    """Return the same inputs with the numbers of nodes of other numerical rules."""
    count = number_of_fields(dynamics, inputs.sizes)
    nodes = {str(table.shape[0]): len(table_values(table, count, level, shift)) for table in dynamics.tables}
    return replace(inputs, sizes=inputs.sizes | nodes)


def number_of_fields(problem: HasQuantities, sizes: Mapping[str, int]) -> int:
    """Return the number of local fields that are not derived from others."""
    extents = [sympy.sympify(family.independent) for family in problem.families]
    return sum(int(extent.subs({s: sizes[str(s)] for s in extent.free_symbols})) for extent in extents)


def tables_of(problem: HasQuantities) -> tuple[Table, ...]:
    """Return the tables of a Dynamics; a model's training step has none."""
    return problem.tables if isinstance(problem, Dynamics) else ()


# -- checks ------------------------------------------------------------------------------------------------------------


def _entries(argument: str, given: Any, quantities: Mapping[str, Quantity]) -> Any:
    if hasattr(given, "data_vars"):  # a Dataset with the states at one time, such as a solution's last
        if "t" in given.dims:
            raise ModelError(
                argument,
                Described(f"Dataset with {given.sizes['t']} times"),
                "the states at one time: dataset.isel(t=-1)",
            )
        return {name: given[name].values for name in quantities if name in given}
    return given


def _check_names(
    argument: str,
    given: Any,
    known: Mapping[str, Quantity],
    other: tuple[str, Mapping[str, Quantity]],
    clock: str = "",
) -> None:
    if not isinstance(given, Mapping):
        raise ModelError(argument, given, f"a dict with {', '.join(known)}")
    place, elsewhere = other
    for name in given:
        if name in elsewhere:
            role = "a state of this model: its initial value" if place == "y0" else "a parameter of this model: it"
            raise ModelError(f"{argument}[{name!r}]", given[name], f"{name} is {role} belongs in {place}")
        if name not in known:
            why = "; time counts the learning rate in this limit" if name == "eta" and "eta" in clock else ""
            accepted = f"one of {', '.join(known)}{nearest(name, [*known, *elsewhere])}{why}"
            raise ModelError(f"{argument}[{name!r}]", given[name], accepted)


def _check_complete(argument: str, given: Mapping[str, Any], known: Mapping[str, Quantity]) -> None:
    missing = [name for name in known if name not in given]
    if missing:
        meanings = "; ".join(f"{name}: {known[name].meaning}" for name in missing)
        raise ModelError(argument, sorted(given), f"missing {', '.join(map(repr, missing))} ({meanings})")


def _as_array(argument: str, given: Any, q: Quantity) -> np.ndarray:
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise ModelError(argument, given, f"numbers, {_shape_text(q)}") from None
    if not np.isfinite(array).all():
        raise ModelError(argument, given, "finite numbers")
    if q.minimum is not None and (array < q.minimum).any():
        raise ModelError(argument, given, f"at least {q.minimum:g} ({q.meaning})")
    if q.maximum is not None and (array > q.maximum).any():
        raise ModelError(argument, given, f"at most {q.maximum:g} ({q.meaning})")
    if array.ndim != len(q.indices) and not (array.ndim == 0 and len(q.indices) == 1):
        raise ModelError(argument, Described(f"array of shape {array.shape}"), f"{_shape_text(q)} ({q.meaning})")
    return array


def _shape_text(q: Quantity) -> str:
    if not q.shape:
        return "a scalar"
    return f"shape ({', '.join(map(str, q.shape))}{',' if len(q.shape) == 1 else ''})" + (
        " or a scalar" if len(q.shape) == 1 else ""
    )


def _read_sizes(problem: HasQuantities, arrays: Mapping[str, np.ndarray], place: Mapping[str, str]) -> dict[str, int]:
    """Return the numbers of units, from the arrays that tell them; a rectangular state (R) first, then other states."""
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    given = [q for q in (*problem.states, *problem.parameters) if q.name in arrays]
    ordered = sorted(given, key=lambda q: (len(set(q.shape)) < 2, q not in problem.states))
    for q in ordered:
        array = arrays[q.name]
        if array.ndim != len(q.shape):
            continue  # a scalar for all units
        if 0 in array.shape:
            raise ModelError(place[q.name], Described(f"array of shape {array.shape}"), "at least one unit")
        for symbol, size in zip(map(str, q.shape), array.shape, strict=True):
            sizes.setdefault(symbol, size)
            source.setdefault(symbol, q.name)
        expected = tuple(sizes[str(symbol)] for symbol in q.shape)
        if array.shape != expected:
            known = " and ".join(dict.fromkeys(f"{s} = {sizes[s]} in {source[s]}" for s in map(str, q.shape)))
            raise ModelError(
                place[q.name],
                Described(f"array of shape {array.shape}"),
                f"{_shape_text(q)}, which is {expected}, since {known}",
            )
    for q in ordered:
        for symbol in map(str, q.shape):
            if symbol not in sizes:
                raise ModelError(
                    place[q.name], float(arrays[q.name]), f"an array: nothing else says how many {symbol} there are"
                )
    return sizes


def _broadcast(argument: str, q: Quantity, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    full = np.array(np.broadcast_to(array, tuple(sizes[str(s)] for s in q.shape)))
    if q.symmetric:
        scale = np.abs(full).max(initial=0.0)
        if np.abs(full - full.T).max(initial=0.0) > 1e-12 * scale:
            apart = Described(
                f"matrix of shape {full.shape}, up to {np.abs(full - full.T).max():.3g} from its transpose"
            )
            raise ModelError(argument, apart, f"a symmetric matrix ({q.meaning})")
        full = (full + full.T) / 2
    return full


def _check_least_sizes(problem: HasQuantities, sizes: Mapping[str, int]) -> None:
    """Equations that speak of the third teacher need three."""
    for size, least in getattr(problem, "least_sizes", {}).items():
        if sizes[str(size)] < least:
            quantity = next(q for q in (*problem.states, *problem.parameters) if size in q.shape)
            place = "y0" if quantity in problem.states else "params"
            accepted = f"at least {size} = {least}: the equations name number {least}"
            raise ModelError(f"{place}[{quantity.name!r}]", Described(f"{size} = {sizes[str(size)]}"), accepted)


def _check_gram(problem: HasQuantities, arrays: Mapping[str, np.ndarray]) -> None:
    gram = gram_matrices(problem, arrays)
    if gram is None:
        return
    eigenvalues = np.linalg.eigvalsh(gram)
    if is_impossible(eigenvalues).any():
        overlaps = overlaps_of_fields(problem)
        names = [q.name for q in (*problem.states, *problem.parameters) if q.name in overlaps]
        own = isinstance(problem, Dynamics) and problem.gram
        which = "dynamics.gram, at these values," if own else f"the matrix made of {', '.join(names)}"
        raise ModelError(
            "y0",
            Described(f"overlaps with smallest eigenvalue {eigenvalues.min():.3g}"),
            f"overlaps of actual vectors: {which} must have no negative eigenvalue",
        )
