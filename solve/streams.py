"""Random streams: one root for a call, and a stream of its own for each thing in it, whoever computes it, and when."""

import json
from typing import Any

import numpy as np

from effdyn.derive import ModelError


def seed_of(rng: Any) -> np.random.SeedSequence:
    """Return the root of all streams.

    Raises
    ------
    ModelError
        If ``rng`` is no seed.
    """
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):  # a child of its stream, another one at each call
        child = rng.spawn(1)[0].bit_generator.seed_seq
        assert isinstance(child, np.random.SeedSequence)
        return child
    try:
        return np.random.SeedSequence(rng)
    except (TypeError, ValueError):
        raise ModelError("rng", rng, "a seed (a non-negative integer), a SeedSequence, a Generator, or None") from None


def seed_text(root: np.random.SeedSequence) -> str:
    """Return what a root is made of as JSON text, which is what netCDF and zarr can keep."""
    return json.dumps({"entropy": str(root.entropy), "spawn_key": list(root.spawn_key)})


def stream(root: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """Return the seed of one stream: it depends on nothing but the root and its numbers.

    Examples
    --------
    >>> root = np.random.SeedSequence(1)
    >>> bool((stream(root, 2).generate_state(1) == root.spawn(3)[2].generate_state(1))[0])
    True
    """
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *key), pool_size=root.pool_size)


def generator(root: np.random.SeedSequence, *key: int) -> np.random.Generator:
    """Return the random numbers of one stream."""
    return np.random.Generator(np.random.PCG64DXSM(stream(root, *key)))
