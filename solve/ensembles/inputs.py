"""Initial values and parameters of many members at once: broadcast, checked together, packed for the integrator.

A member's values are checked by the same function as a single trajectory's
(:func:`effdyn.solve.kernels.layout.read_inputs`): the whole batch is only searched for members that it would refuse, so
that 10⁴ of them cost no 10⁴ calls.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.errors import Described

from ..kernels.fuse import is_plain
from ..kernels.gram import PSD_TOLERANCE, gram_matrices, gram_matrix, is_impossible
from ..kernels.layout import (
    Inputs,
    packed_length,
    parameter_vector,
    pseudoinverses,
    read_inputs,
)
from ..kernels.memory import node_sizes


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Checked initial values and parameters of N members.

    Attributes
    ----------
    shape : tuple of int
        The leading dims, broadcast; N is their product.
    common : Inputs
        Sizes, and the values of member 0: right for every name that does not vary.
    varying : dict of ndarray
        What varies, by name, each (N, …).
    y0 : ndarray (N, n)
        Initial states, packed.
    par : ndarray (n_par,)
        The parameter vector of member 0.
    columns, values : ndarray (P,), (N, P)
        Where in it parameters vary, and their values.
    """

    shape: tuple[int, ...]
    common: Inputs
    varying: dict[str, np.ndarray]
    y0: np.ndarray
    par: np.ndarray
    columns: np.ndarray
    values: np.ndarray


def read_batch(dynamics: Dynamics, y0: Any, params: Any) -> Batch:
    """Return initial values and parameters of all members; trailing axes are a quantity's own, leading ones are batch.

    Raises
    ------
    ModelError
        Naming the entry and the member: what :func:`~effdyn.solve.kernels.layout.read_inputs` refuses, or leading axes
        that do not broadcast.
    """
    quantities = {q.name: q for q in (*dynamics.states, *dynamics.parameters)}
    given = _arrays(quantities, "y0", y0) | _arrays(quantities, "params", params)
    shape = _batch_shape(dynamics, quantities, given)
    common = _read_member(dynamics, quantities, given, (y0, params), shape, 0)
    varying = {
        name: _symmetrised(quantities[name], array) for name, array in given.items() if _lead(quantities[name], array)
    }
    checked = _out_of_range(quantities, given, dict(varying))
    varying |= pseudoinverses(dynamics, varying)
    for suspicious in (checked, _no_overlaps(dynamics, common, varying)):
        mask = np.broadcast_to(suspicious(), shape).ravel()
        if mask.any():
            _read_member(dynamics, quantities, given, (y0, params), shape, int(np.argmax(mask)))
    if varying and getattr(dynamics.model, "restricted", False):
        for member in range(1, math.prod(shape)):
            _read_member(dynamics, quantities, given, (y0, params), shape, member)
    return _packed(dynamics, shape, common, varying)


# -- shapes ------------------------------------------------------------------------------------------------------------


def _arrays(quantities: Mapping[str, Quantity], argument: str, given: Any) -> dict[str, np.ndarray]:
    """Return the numeric entries as arrays; what is wrong with the others is said when a member is read."""
    entries = given.data_vars if hasattr(given, "data_vars") else given
    if not isinstance(entries, Mapping) or (hasattr(given, "data_vars") and "t" in given.dims):
        return {}
    arrays = {}
    for name in (name for name in entries if name in quantities):
        value = entries[name]
        try:
            arrays[name] = np.asarray(getattr(value, "values", value), dtype=float)
        except (TypeError, ValueError) as error:
            accepted = f"an array of numbers: batch axes, then {len(quantities[name].shape)} of its own"
            raise ModelError(f"{argument}[{name!r}]", value, accepted) from error
    return arrays


def _lead(q: Quantity, array: np.ndarray) -> tuple[int, ...]:
    return array.shape[: max(0, array.ndim - len(q.indices))]


def _place(dynamics: Dynamics, name: str) -> str:
    return f"{'y0' if any(q.name == name for q in dynamics.states) else 'params'}[{name!r}]"


def _batch_shape(
    dynamics: Dynamics, quantities: Mapping[str, Quantity], given: Mapping[str, np.ndarray]
) -> tuple[int, ...]:
    shape: tuple[int, ...] = ()
    before: list[str] = []
    for name, array in given.items():
        lead = _lead(quantities[name], array)
        if not lead:
            continue
        place, own = _place(dynamics, name), f"{array.ndim - len(lead)} axes of its own after the batch axes"
        if 0 in lead:
            raise ModelError(place, Described(f"array of shape {array.shape}"), f"at least one member; it has {own}")
        try:
            shape = np.broadcast_shapes(shape, lead)
        except ValueError:
            accepted = f"batch axes that broadcast against {shape}, those of {', '.join(before)}; it has {own}"
            raise ModelError(place, Described(f"array of shape {array.shape}"), accepted) from None
        before.append(name)
    return shape


# -- checks ------------------------------------------------------------------------------------------------------------


def _read_member(
    dynamics: Dynamics,
    quantities: Mapping[str, Quantity],
    given: Mapping[str, np.ndarray],
    original: tuple[Any, Any],
    shape: tuple[int, ...],
    member: int,
) -> Inputs:
    """Return one member's inputs by the function for a single trajectory, or raise as it does."""
    position = np.unravel_index(member, shape) if shape else ()

    def of_member(name: str, value: Any) -> Any:
        lead = _lead(quantities[name], given[name]) if name in given else ()
        return np.broadcast_to(given[name], (*shape, *given[name].shape[len(lead) :]))[position] if lead else value

    y0, params = (
        {name: of_member(name, value) for name, value in entries.items()} if isinstance(entries, Mapping) else entries
        for entries in (_states_of(dynamics, original[0]), original[1])
    )
    try:
        return read_inputs(dynamics, y0, params)
    except ModelError as error:
        if not shape or not _varies(dynamics, quantities, given, error.argument):
            raise
        what = error.given.tolist() if isinstance(error.given, np.ndarray) else error.given
        raise ModelError(error.argument, what, f"{error.accepted}; so it is in member {member}") from None


def _varies(
    dynamics: Dynamics, quantities: Mapping[str, Quantity], given: Mapping[str, np.ndarray], argument: str
) -> bool:
    """Return whether what is wrong with an argument may be right in another member: not that a name is unknown."""
    if argument == "y0":  # overlaps, to which all that varies contributes, or states that are missing
        return all(q.name in given for q in dynamics.states)
    return any(argument == _place(dynamics, name) and _lead(quantities[name], given[name]) for name in given)


def _states_of(dynamics: Dynamics, y0: Any) -> Any:
    """Return the states in a Dataset at one time, such as another ensemble's last; anything else as it is."""
    if not hasattr(y0, "data_vars") or "t" in y0.dims:
        return y0
    return {q.name: y0[q.name].values for q in dynamics.states if q.name in y0}


def _symmetrised(q: Quantity, array: np.ndarray) -> np.ndarray:
    """Half the rounding errors of a symmetric matrix, as for a single trajectory."""
    return (array + np.swapaxes(array, -1, -2)) / 2 if q.symmetric and _square(array) else array


def _square(array: np.ndarray) -> bool:
    return array.shape[-1] == array.shape[-2]


def _out_of_range(
    quantities: Mapping[str, Quantity], given: Mapping[str, np.ndarray], varying: Mapping[str, np.ndarray]
) -> Any:
    """Return what finds the members with numbers that are not finite, out of range, or not symmetric."""

    def mask() -> np.ndarray:
        bad = np.zeros((), dtype=bool)
        for name in varying:
            q, array = quantities[name], given[name]
            own = tuple(range(len(_lead(q, array)), array.ndim))
            wrong = ~np.isfinite(array)
            if q.minimum is not None:
                wrong |= array < q.minimum
            if q.maximum is not None:
                wrong |= array > q.maximum
            if q.symmetric:
                scale = np.abs(array).max(axis=own, keepdims=True, initial=0.0)
                wrong |= ~(np.abs(array - np.swapaxes(array, -1, -2)) <= 1e-12 * scale)
            bad = bad | wrong.any(axis=own)
        return bad

    return mask


def _no_overlaps(dynamics: Dynamics, common: Inputs, varying: Mapping[str, np.ndarray]) -> Any:
    """Return what finds the members whose overlaps no vectors have."""

    def mask() -> np.ndarray:
        gram = gram_matrices(dynamics, {**common.params, **common.y0, **varying})
        if gram is None:
            return np.zeros((), dtype=bool)
        if _has_factors(gram):
            return np.zeros((), dtype=bool)
        return np.asarray(is_impossible(np.linalg.eigvalsh(gram)).any(axis=-1))  # in any of the blocks

    return mask


def _has_factors(gram: np.ndarray) -> bool:
    """Return whether all these matrices have a Cholesky factor, with half of what is tolerated added to the diagonal.

    Then none has an eigenvalue below what is tolerated. It takes a tenth of the time of eigenvalues, during which the
    threads wait.
    """
    size = gram.shape[-1]
    slack = PSD_TOLERANCE * size / 2 * np.diagonal(gram, axis1=-2, axis2=-1).max(axis=-1, initial=0.0)
    try:
        np.linalg.cholesky(gram + slack[..., None, None] * np.eye(size))
    except np.linalg.LinAlgError:
        return False
    return True


# -- packing -----------------------------------------------------------------------------------------------------------


def _packed(dynamics: Dynamics, shape: tuple[int, ...], common: Inputs, varying: Mapping[str, np.ndarray]) -> Batch:
    members = math.prod(shape)
    flat = {
        name: np.broadcast_to(array, (*shape, *_own_shape(dynamics, common, name))).reshape(
            members, *_own_shape(dynamics, common, name)
        )
        for name, array in varying.items()
    }
    parts = [_rows(q, flat[q.name] if q.name in flat else common.y0[q.name][None], members) for q in dynamics.states]
    position = len(dynamics.sizes) + len(node_sizes(dynamics.tables))
    columns, values = [np.empty(0, dtype=np.int64)], [np.empty((members, 0))]
    for q in dynamics.parameters:
        length = int(np.prod(_own_shape(dynamics, common, q.name), dtype=int))
        if q.name in flat:
            columns.append(np.arange(position, position + length))
            values.append(flat[q.name].reshape(members, length))
        position += length
    return Batch(
        shape,
        common,
        flat,
        np.ascontiguousarray(np.concatenate(parts, axis=1)),
        parameter_vector(dynamics, common),
        np.concatenate(columns),
        np.ascontiguousarray(np.concatenate(values, axis=1)),
    )


def _own_shape(dynamics: Dynamics, common: Inputs, name: str) -> tuple[int, ...]:
    q = next(q for q in (*dynamics.states, *dynamics.parameters) if q.name == name)
    return tuple(common.sizes[str(s)] for s in q.shape)


def _rows(q: Quantity, array: np.ndarray, members: int) -> np.ndarray:
    """Return (N, length) a state packed as the kernel wants it."""
    if q.symmetric:
        i, k = np.triu_indices(array.shape[-1])
        rows = array[:, i, k]
    else:
        rows = array.reshape(len(array), -1)
    return np.broadcast_to(rows, (members, rows.shape[1]))


def gram_places(dynamics: Dynamics, common: Inputs) -> np.ndarray:
    """Return (F, F) where each overlap stands: in the packed state, or, counted on from its length n, in ``par``.

    (0, 0) where the overlaps are not simply the covariance of the fields.
    """
    places, position = {}, 0
    for q in dynamics.states:
        shape = tuple(common.sizes[str(s)] for s in q.shape)
        places[q.name] = _numbered(q, shape, position)
        position += packed_length(q, common.sizes)
    position += len(dynamics.sizes) + len(node_sizes(dynamics.tables))
    for q in dynamics.parameters:
        shape = tuple(common.sizes[str(s)] for s in q.shape)
        length = math.prod(shape)
        places[q.name] = np.arange(position, position + length).reshape(shape)
        position += length
    derived = {str(family.base) for family in dynamics.families if family.derived}
    plain = all(is_plain(block) for pair, block in dynamics.covariance if not derived & set(pair))
    gram = gram_matrix(dynamics, places) if plain else None
    return np.empty((0, 0), dtype=np.int64) if gram is None else np.ascontiguousarray(gram, dtype=np.int64)


def _numbered(q: Quantity, shape: tuple[int, ...], start: int) -> np.ndarray:
    if not q.symmetric:
        return np.arange(start, start + math.prod(shape)).reshape(shape)
    i, k = np.triu_indices(shape[0])
    full = np.empty(shape, dtype=np.int64)
    full[i, k] = full[k, i] = start + np.arange(len(i))
    return full
