"""Sources of kernels on disk, by the equations that they were generated from: SymPy's part is done once on a machine.

The file of a generated kernel spares Numba's work in the next process; this spares what leads up to it, 0.2 s for erf
and up to a second for longer equations. Knows nothing of kernels: it takes a value and a function.
"""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TypeVar

from effdyn.derive import Dynamics
from effdyn.derive.gaussian.cached_forms import cached

T = TypeVar("T")


def remembered(dynamics: Dynamics, which: str, generate: Callable[[], T]) -> T:
    """Return what ``generate`` returns, a pure function of a Dynamics, from disk if it was stored there.

    Equations that differ in anything have other files. Equal ones may have two, if they came about in other ways.
    """
    identity = tuple(getattr(dynamics, f.name) for f in fields(dynamics) if f.compare)
    key = hashlib.sha256(pickle.dumps((which, identity))).hexdigest()
    return cached("source", f"{_sources()} {key}", generate)


@cache
def _sources() -> str:
    """Return a hash of this folder: finer than effdyn's version, which does not change while one works on it."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()
