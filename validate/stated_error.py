"""The error that a theory states of itself: of its numerical expectations, as ``solve.integrate`` estimates it."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr


def stated_error(theory: xr.Dataset, name: str, t: np.ndarray) -> np.ndarray:
    """Return an estimate of by how much a theory's values of ``name`` are off at times ``t``: of its expectations.

    For an observable, the larger of the errors estimated at the first and the last time. For a state, whose time
    derivative is what has the error, that times the time since the start: not a bound where errors grow, as they do
    along an escape from a plateau. Zero where nothing is stated.

    Examples
    --------
    >>> stated = '{"t": [0.0, 2.0], "Q": [0.1, 0.3], "eg": [0.2, 0.1]}'
    >>> theory = xr.Dataset(attrs={"numerical_error": stated, "y0": '{"Q": [[1.0]]}'})
    >>> stated_error(theory, "Q", np.array([0.0, 2.0])), stated_error(theory, "eg", np.array([0.0, 2.0]))
    (array([0. , 0.6]), array([0.2, 0.2]))
    """
    errors = json.loads(theory.attrs.get("numerical_error", "{}"))
    largest = max(errors.get(name, ()), default=0.0)
    if name in json.loads(theory.attrs.get("y0", "{}")):
        return largest * (t - errors["t"][0]) if largest else np.zeros_like(t)
    return np.full_like(t, largest)
