"""Random admissible states: overlaps of actual vectors, given those that do not move."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.errors import Described

from ..kernels.fuse import is_plain, is_weighted, overlaps_in
from ..kernels.gram import gram_matrix
from ..kernels.layout import pack
from .flow import check_sizes

SCALES = (0.1, 2.0)
"""Lengths of random students, over the root mean square length of the teacher's vectors."""


def random_state(dynamics: Dynamics, sizes: Mapping[str, int], params: Mapping[str, Any], rng: Any) -> np.ndarray:
    """Return a packed state: overlaps of random vectors with the given ones, and normal numbers for what is no overlap.

    Students are random combinations of the teacher's vectors plus as much again in other directions.
    """
    arrays = {q.name: _plain(q, sizes, rng) for q in dynamics.states}
    return pack(dynamics.states, _admissible(dynamics, arrays | _overlaps(dynamics, sizes, params, rng), params))


def _admissible(dynamics: Dynamics, arrays: dict[str, np.ndarray], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return values of scalars that vectors can have: the lengths as they are, all else halved until it is so."""
    needed = {str(s) for row in dynamics.gram for entry in row for s in entry.free_symbols} - arrays.keys()
    if not dynamics.gram or not needed <= params.keys():
        return arrays  # reading the parameters names the one that is missing
    lengths = {q.name for q in dynamics.states if q.minimum is not None}
    fixed = {name: np.asarray(params[name], dtype=float) for name in needed}
    for halvings in range(64):
        tried = {name: value if name in lengths else value * 0.5**halvings for name, value in arrays.items()}
        gram = gram_matrix(dynamics, fixed | tried)
        assert gram is not None
        if np.linalg.eigvalsh(gram)[0] >= 0:
            return tried
    return arrays  # the given ones are impossible among themselves, and reading them says so


def _plain(q: Quantity, sizes: Mapping[str, int], rng: Any) -> np.ndarray:
    shape = tuple(sizes[str(s)] for s in q.shape)
    values = np.asarray(rng.standard_normal(shape))
    if q.symmetric:
        return np.asarray(values @ values.T / shape[0])
    return np.abs(values) if q.minimum is not None else values


def _overlaps(
    dynamics: Dynamics, sizes: Mapping[str, int], params: Mapping[str, Any], rng: Any
) -> dict[str, np.ndarray]:
    """Return the states that are overlaps of a moving family of vectors with itself and with fixed families."""
    blocks = _blocks(dynamics)
    states = {q.name: q for q in dynamics.states}
    own = {f: name for (f, g), name in blocks.items() if f == g}
    moving = [f for f, name in own.items() if name in states]
    fixed = [f for f, name in own.items() if name not in states]
    if len(moving) != 1 or len(fixed) > 1:
        return {}
    Q = states[own[moving[0]]]
    K = sizes[str(Q.shape[-1])]
    T = np.asarray(params[own[fixed[0]]], dtype=float) if fixed else np.eye(K)
    names = {Q.name: "QQ"} | {name: "QT" if f == moving[0] else "TQ" for (f, g), name in blocks.items() if f != g}
    drawn = [_with_teacher(T[n], K, rng) for n in np.ndindex(T.shape[:-2])]  # one, or one for each block of inputs
    return {
        name: np.reshape([one[kind] for one in drawn], (*T.shape[:-2], *drawn[0][kind].shape))
        for name, kind in names.items()
        if name in states
    }


def _with_teacher(T: np.ndarray, K: int, rng: Any) -> dict[str, np.ndarray]:
    """Return the overlaps of K random students with each other (QQ) and with a teacher (QT, TQ)."""
    values, vectors = np.linalg.eigh(T)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    scale = np.sqrt(np.trace(T) / len(T)) * np.exp(rng.uniform(*np.log(SCALES)))
    along = scale * rng.standard_normal((K, len(T))) / np.sqrt(len(T) * max(np.trace(T) / len(T), 1e-300))
    across = rng.uniform() * scale * rng.standard_normal((K, K)) / np.sqrt(K)
    R = along @ root.T
    return {"QQ": along @ along.T + across @ across.T, "QT": R, "TQ": R.T}


def _blocks(dynamics: Dynamics) -> dict[tuple[str, str], str]:
    """Return which quantity the overlaps of two families of fields are, where they are simply one."""
    return {pair: str(overlaps_in(law)) for pair, law in dynamics.covariance if is_plain(law) or is_weighted(law)}


def read_sizes(dynamics: Dynamics, params: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of units: those given, and those that the parameters' shapes tell.

    Raises
    ------
    ModelError
        If one is neither, or they contradict each other.
    """
    check_sizes(dynamics, sizes)
    found = {name: int(number) for name, number in sizes.items()}
    for q in dynamics.parameters:
        shape = np.shape(params.get(q.name, ()))
        for symbol, number in zip(map(str, q.shape), shape if len(shape) == len(q.shape) else (), strict=False):
            if found.setdefault(symbol, number) != number:
                raise ModelError(symbol, found[symbol], f"{number}, as in params[{q.name!r}]")
    missing = [str(s) for s in dynamics.sizes if str(s) not in found]
    if missing:
        known = ", ".join(f"{name} = {number}" for name, number in found.items()) or "none"
        raise ModelError(
            "sizes", Described(known), f"a number for {' and '.join(missing)} as well, such as {missing[0]}=2"
        )
    return found
