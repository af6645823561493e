"""``solve.fixed_points``: where the equations of motion stand still."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError
from effdyn.derive.errors import Described, nearest

from .flow import Flow, attributes, states_at
from .linearize import SAME, finite_jacobian, spectrum
from .newton import Zero, find_zero
from .starts import random_state, read_sizes
from .symmetries import Symmetries, symmetries

if TYPE_CHECKING:
    import xarray as xr

KINDS = ("random", "symmetric")
ADMISSIBLE = 1e-7
"""How negative an eigenvalue of the overlaps may be, over the largest: fixed points may lie on the boundary."""
NEUTRAL = 1e-8
"""Growth rates below this, over the largest entry of the Jacobian, count as zero."""


def fixed_points(
    dynamics: Dynamics,
    params: Mapping[str, Any],
    *,
    starts: str | Sequence[Any] = ("random", "symmetric"),
    count: int = 32,
    rng: Any = 0,
    progress: bool = False,
    **sizes: int,
) -> "xr.Dataset":
    """Find fixed points of the equations of motion by damped Newton steps from many starts.

    Solutions that no vectors have (overlaps with a negative eigenvalue) are left out, and those that differ by an
    exchange of units that the model allows are counted once. Nothing guarantees that all are found: ``hits`` says how
    often each was.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations.
    params : dict
        As ``solve.integrate`` takes them.
    starts : str or sequence
        ``"random"``: ``count`` random admissible states. ``"symmetric"``: as many, averaged over exchanges of units;
        they stay symmetric. Or states, each as ``y0`` of ``solve.integrate``. Several of these in a sequence.
    count : int
    rng : seed or numpy.random.Generator
        Of the random starts.
    progress : bool
        Whether to show a bar. Ctrl-C returns what has been found, with ``attrs["status"] == "interrupted"``.
    **sizes : int
        Numbers of units that the parameters do not tell: ``K=2``.

    Returns
    -------
    xarray.Dataset
        Dim ``fixed_point``, by increasing ``eg`` (or by the first observable): the states and observables;
        ``residual``, the largest time derivative; ``growth``, the largest growth rate; ``n_unstable`` and
        ``n_neutral``, numbers of directions; ``copies``, how many equivalent fixed points there are; ``hits``, how many
        starts led there. ``attrs`` say how many starts did not converge or led to no admissible state.

    Raises
    ------
    ModelError
        For bad input, naming it.

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn import derive
    >>> from effdyn.solve.stability import fixed_points
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> found = fixed_points(dyn, dict(eta=0.5, sigma=0.0, T=[[1.0]], a=1.0, b=1.0), K=1, count=4)
    >>> found.R.values.round(9).tolist(), found.n_unstable.values.tolist()
    ([[[1.0]]], [0])
    """
    import xarray as xr

    numbers = read_sizes(dynamics, params, sizes)
    flow, generic, random = _prepare(dynamics, params, numbers, rng)
    group = symmetries(flow, generic)
    states = _starts(flow, group, starts, count, random, params)
    zeros, interrupted = _search(flow, states, progress)
    good = [z for z in zeros if z.converged and flow.least_eigenvalue(z.y) > -ADMISSIBLE]
    distinct, hits = _distinct(good, group)
    y = np.array([z.y for z in distinct]).reshape(len(distinct), len(generic))
    found = xr.Dataset(
        {
            **states_at(flow, y, ("fixed_point",)),
            "residual": ("fixed_point", [z.residual for z in distinct]),
            **_stability(flow, y, group),
            "hits": ("fixed_point", np.array(hits, dtype=int)),
        },
        attrs=attributes(flow)
        | {
            "starts": len(states),
            "searched": len(zeros),
            "not_converged": sum(not z.converged for z in zeros),
            "not_admissible": sum(z.converged for z in zeros) - len(good),
            "status": "interrupted" if interrupted else "success",
        },
    )
    scalars = [e.quantity.name for e in dynamics.observables if not e.quantity.indices]
    by = "eg" if "eg" in scalars else (scalars[0] if scalars else "growth")
    return found.isel(fixed_point=np.argsort(found[by].values, kind="stable"))


def _prepare(
    dynamics: Dynamics, params: Mapping[str, Any], sizes: Mapping[str, int], rng: Any
) -> tuple[Flow, np.ndarray, np.random.Generator]:
    """Return the flow, a random state of it and the generator."""
    from ..kernels.layout import unpack

    random = np.random.default_rng(rng)
    generic = random_state(dynamics, sizes, params, random)
    return Flow.at(dynamics, unpack(dynamics.states, generic, sizes), params), generic, random


def _starts(
    flow: Flow, group: Symmetries, starts: str | Sequence[Any], count: int, rng: np.random.Generator, params: Any
) -> list[np.ndarray]:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ModelError("count", count, "a positive whole number")
    states: list[np.ndarray] = []
    for kind in [starts] if isinstance(starts, str) or hasattr(starts, "keys") else starts:
        if not isinstance(kind, str):
            given = Flow.at(flow.dynamics, kind, params)
            if given.inputs.sizes != flow.inputs.sizes:
                raise ModelError("starts", Described(f"a state of {given.inputs.sizes}"), f"{flow.inputs.sizes}")
            states.append(given.start)
            continue
        if kind not in KINDS:
            accepted = f"{' or '.join(map(repr, KINDS))}, or states{nearest(kind, KINDS)}"
            raise ModelError("starts", kind, accepted)
        drawn = [random_state(flow.dynamics, flow.inputs.sizes, flow.inputs.params, rng) for _ in range(count)]
        states += [group.average(y) for y in drawn] if kind == "symmetric" else drawn
    if not states:
        raise ModelError("starts", starts, f"{' or '.join(map(repr, KINDS))}, or states")
    return states


def _search(flow: Flow, states: list[np.ndarray], progress: bool) -> tuple[list[Zero], bool]:
    from tqdm.auto import tqdm

    zeros: list[Zero] = []
    try:
        for y in tqdm(states, disable=not progress, desc="fixed points"):
            zeros.append(find_zero(flow, y))
    except KeyboardInterrupt:
        return zeros, True
    return zeros, False


def _distinct(zeros: list[Zero], group: Symmetries) -> tuple[list[Zero], list[int]]:
    """Return one of each set of equivalent zeros, the one with the least residual, and the numbers in each set."""
    kept: list[Zero] = []
    hits: list[int] = []
    for z in sorted(zeros, key=lambda z: z.residual):
        within = 10 * SAME * max(1.0, float(np.abs(z.y).max()))
        n = next((n for n, other in enumerate(kept) if group.distance(z.y, other.y) <= within), None)
        if n is None:
            kept.append(z)
            hits.append(1)
        else:
            hits[n] += 1
    return kept, hits


def _stability(flow: Flow, y: np.ndarray, group: Symmetries) -> dict[str, Any]:
    growth, unstable, neutral, copies = [], [], [], []
    for point in y:
        jacobian = finite_jacobian(flow, point)
        own = group.stabiliser(point, SAME * max(1.0, float(np.abs(point).max())))
        rates = spectrum(jacobian, own).values.real
        zero = NEUTRAL * np.abs(jacobian).max()
        growth.append(rates[0])
        unstable.append(int((rates > zero).sum()))
        neutral.append(int((np.abs(rates) <= zero).sum()))
        copies.append(len(group.actions) // len(own.actions))
    dim = "fixed_point"
    return {
        "growth": (dim, np.array(growth)),
        "n_unstable": (dim, np.array(unstable, dtype=int)),
        "n_neutral": (dim, np.array(neutral, dtype=int)),
        "copies": (dim, np.array(copies, dtype=int)),
    }
