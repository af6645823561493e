"""Solutions as labelled datasets: the same names, dims and attributes for theory and simulation."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, Quantity
from effdyn.derive.loading import first_use

if TYPE_CHECKING:
    import xarray as xr


def variable(
    q: Quantity, values: np.ndarray, lead: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    """Return the dims, values and attributes of a quantity as xarray takes them; ``lead`` are the dims before its
    own."""
    dims = q.dims or tuple(f"{q.name}_{n + 1}" for n in range(len(q.shape)))
    return (*lead, *dims), values, {"long_name": q.meaning}


def parameters_json(params: Mapping[str, np.ndarray]) -> str:
    """Return the parameters as JSON text, which is what netCDF and zarr can keep."""
    return json.dumps({name: np.asarray(value).tolist() for name, value in params.items()})


@cache
def versions_json() -> str:
    """Return the versions behind a result as JSON text."""
    return json.dumps({name: version(name) for name in ("effdyn", "numpy", "numba", "sympy")})


def provenance(dynamics: Dynamics, params: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the attributes that say of which equations a result is, at which parameters, and by which versions."""
    return {
        "title": dynamics.title,
        "model": repr(dynamics.model) if dynamics.model is not None else "",
        "limit": dynamics.limit,
        "clock": dynamics.clock,
        "theory_status": dynamics.status,
        "parameters": parameters_json(params),
        "versions": versions_json(),
    }


@cache
def load_xarray() -> None:
    """Import xarray, and dask, where that is installed, which xarray imports with its first variable."""
    with first_use("xarray"):
        import xarray as xr

        xr.Variable((), 0.0)


def to_dataset(
    dynamics: Dynamics,
    t: np.ndarray,
    states: Mapping[str, np.ndarray],
    observables: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
    runs: Sequence[int] | None = None,
) -> "xr.Dataset":
    """Return a solution as a Dataset with one variable for each state and observable, and dim ``t``; before it ``run``,
    of solutions that have several."""
    load_xarray()
    import xarray as xr

    quantities = {q.name: q for q in (*dynamics.states, *(e.quantity for e in dynamics.observables))}
    lead = ("t",) if runs is None else ("run", "t")
    variables = {name: variable(quantities[name], values, lead) for name, values in {**states, **observables}.items()}
    computed = {q.name for q in dynamics.parameters if q.pseudoinverse_of}
    return xr.Dataset(
        variables,
        coords={**({} if runs is None else {"run": runs}), "t": ("t", t, {"long_name": dynamics.clock})},
        attrs={
            **provenance(dynamics, {name: value for name, value in params.items() if name not in computed}),
            **attrs,
        },
    )
