"""What every ensemble is asked for and how its members are labelled, whatever is computed of them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.errors import nearest

from ..kernels.layout import packed_length, unpack
from ..processors import processors
from ..results import parameters_json, provenance, variable
from .inputs import Batch


def quantities(dynamics: Dynamics) -> dict[str, Quantity]:
    """Return the states and observables, by name."""
    return {q.name: q for q in (*dynamics.states, *(e.quantity for e in dynamics.observables))}


def member_coords(dynamics: Dynamics, batch: Batch) -> dict[str, Any]:
    """Return the numbers of members, along each of several batch axes too, and the parameters that vary."""
    coords: dict[str, Any] = {"member": np.arange(len(batch.y0))}
    if len(batch.shape) > 1:
        numbers = np.unravel_index(np.arange(len(batch.y0)), batch.shape)
        coords |= {f"batch_{axis}": ("member", along) for axis, along in enumerate(numbers)}
    varying = (q for q in dynamics.parameters if q.name in batch.varying and not q.pseudoinverse_of)
    return coords | {q.name: variable(q, batch.varying[q.name], ("member",)) for q in varying}


def places(dynamics: Dynamics, sizes: Mapping[str, int], n: int) -> dict[str, np.ndarray]:
    """Return, by name and in the shape of each quantity, where its entries stand: states first, then observables."""
    observed = [e.quantity for e in dynamics.observables]
    count = sum(packed_length(q, sizes) for q in observed)
    states = unpack(dynamics.states, np.arange(n, dtype=float), sizes)
    return states | unpack(observed, n + np.arange(count, dtype=float), sizes)


def about(dynamics: Dynamics, batch: Batch) -> dict[str, Any]:
    """Return the attributes that say of what an ensemble is."""
    varying = set(batch.varying) - (computed := {q.name for q in dynamics.parameters if q.pseudoinverse_of})
    fixed = {k: v for k, v in batch.common.params.items() if k not in varying | computed}
    return {
        **provenance(dynamics, fixed),
        "y0": parameters_json({k: v for k, v in batch.common.y0.items() if k not in varying}),
        "varying": json.dumps(sorted(varying)),
        "batch_shape": json.dumps(batch.shape),
    }


def checked_threads(threads: int | None) -> int:
    """Return how many threads there may be."""
    if threads is None:
        return processors()
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise ModelError("threads", threads, "a positive whole number, or None for as many as there are processors")
    return int(threads)


def checked_names(dynamics: Dynamics, keep: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of what is kept, each once: by default of all states and observables."""
    known = tuple(quantities(dynamics))
    if keep is None:
        return known
    names = tuple(dict.fromkeys([keep] if isinstance(keep, str) else keep))
    for name in names:
        if name not in known:
            raise ModelError("keep", name, f"names among {', '.join(known)}{nearest(str(name), known)}")
    if not names:
        raise ModelError("keep", list(names), f"at least one of {', '.join(known)}, or None for all")
    return names


@contextmanager
def member_bar(count: int, show: bool, unit: str = "member") -> Iterator[Callable[[int], object] | None]:
    """Show a bar over the members finished, or nothing; gives the function to be told their number."""
    if not show:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=count, unit=unit) as bar:
        yield lambda done: bar.update(done - bar.n)
