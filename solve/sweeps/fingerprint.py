"""What a sweep is, as text: equal for sweeps whose cells are interchangeable, and able to say what differs.

Of numbers what is written is exact; of many numbers, their hash.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from .cell import Common
from .grid import Grid

_FEW = 16


def fingerprint(common: Common, grid: Grid) -> dict[str, str]:
    """Return entry by entry what decides every number of a sweep.

    effdyn's version is one of them: another one may have other equations or another integrator. Versions of libraries
    are not: they move results by rounding errors only.
    """
    dynamics = common.dynamics
    entries: dict[str, Any] = {
        "effdyn": version("effdyn"),
        "model": dynamics.call if dynamics.model is not None else dynamics.title,
        "equations": hashlib.sha256(repr(dynamics).encode()).hexdigest()[:16],
        "t_span": np.array(common.t_span),
        "t_eval": common.t,
    }
    entries |= {f"over[{axis.name!r}]": axis.values for axis in grid.axes}
    entries |= {"dims": list(grid.dims)}
    entries |= {f"y0[{name!r}]": value for name, value in common.y0.items()}
    entries |= {f"params[{name!r}]": value for name, value in common.params.items()}
    entries |= common.stated
    return {name: _text(value) for name, value in entries.items()}


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return a line for each entry that differs."""
    names = [*wanted, *(name for name in found if name not in wanted)]
    nothing = "nothing"
    return [
        f"{name}: {found.get(name, nothing)} in the store, {wanted.get(name, nothing)} here"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return json.dumps(value)
    array = np.asarray(value, dtype=float, order="C")
    if array.size <= _FEW:
        return json.dumps(array.tolist())
    digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
    return f"{array.shape} numbers from {array.flat[0]!s} to {array.flat[-1]!s}, hash {digest}"
