"""How sharp a comparison was: the smallest relative errors in what theory is made of that would have given FAIL."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .time_shift import speed


def measure_power(table: xr.Dataset, variances: xr.Dataset | None) -> dict[str, float]:
    """Return the smallest relative error, of either sign, that would have been caught in one comparison at least.

    ``"drift"``: of a common factor of the equations of motion, that is of every coefficient alike; after a time t it
    moves theory by ε t dω/dt. ``"mean correction"`` and ``"covariance"``: of m and C, by a common factor. The two are
    there for a theory to order 1/d. Infinite, if no error would.
    """
    counted = table.counted.values
    caught = (table.tolerance.values + abs(table.deviation.values))[counted]
    elapsed = (table.t.values - table.t.values.min()) * abs(speed(table, table.theory.values))
    power = {"drift": _smallest(caught, elapsed[counted])}
    if variances is None:
        return power
    # A larger m is also granted a larger next order.
    correction = (abs(table.correction.values) - table.granted.values)[counted]
    relative = variances.detectable.values[variances.counted.values]
    return power | {
        "mean correction": _smallest(caught, correction),
        "covariance": float(relative.min(initial=np.inf)),
    }


def _smallest(caught: np.ndarray, effect: np.ndarray) -> float:
    """Return the smallest ε with ε·effect as large as what is caught; NaN if effects are not known."""
    if np.isnan(effect).any() or not effect.size:
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(effect > 0, caught / effect, np.inf)
    return float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).min())
