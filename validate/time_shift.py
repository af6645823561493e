"""Is a deviation a shift of time? Near the exit from a plateau a small error of the start is a late or an early exit.

The shift s is fitted by theory(t − s). It is a linear function of the runs, so its error is that of their own shifts,
whatever the correlations between times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.interpolate import CubicSpline
from scipy.special import polygamma

from .joint import runs_by_row

FEWEST = 5
"""Times, to follow theory between them."""
EXPLAINED = 2.0
"""A shift of this many standard deviations of the predicted escape time is one that the limit does not predict."""


@dataclass(frozen=True, slots=True)
class Shift:
    """The time by which the simulation is late at one d.

    ``residual`` is the largest |deviation| over tolerance that remains after it: at most 1, and the shape agrees.
    """

    d: int
    time: float
    standard_error: float
    residual: float

    @property
    def explains(self) -> bool:
        """Whether nothing is violated after the shift."""
        return self.residual <= 1.0

    def __str__(self) -> str:
        return f"{self.time:.3g} ± {self.standard_error:.2g} at d={self.d}"


def fit_shifts(table: xr.Dataset, simulation: xr.Dataset, sizes: np.ndarray, critical: float) -> tuple[Shift, ...]:
    """Return the shift at each d; none without the runs themselves, with too few times, or where nothing moves."""
    if "run" not in simulation.dims or np.unique(table.t.values).size < FEWEST or not table.counted.any():
        return ()
    found = [_fit(*_at(table, k), table, simulation, k, round(d), critical) for k, d in enumerate(sizes)]
    return tuple(shift for shift in found if shift is not None)


def _at(table: xr.Dataset, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return theory, mean, standard error and what is granted, of each row at the k-th d."""
    if "theory_at_d" not in table:
        return tuple(table[key].values for key in ("theory", "mean", "standard_error", "allowance"))  # type: ignore[return-value]
    theory, mean, error, granted = (
        table[f"{key}_at_d"].values[k] for key in ("theory", "mean", "standard_error", "allowance")
    )
    return theory, mean, error, granted + table.numerical_allowance.values


def _fit(
    theory: np.ndarray, mean: np.ndarray, error: np.ndarray, granted: np.ndarray, table: xr.Dataset,
    simulation: xr.Dataset, k: int, d: int, critical: float,
) -> Shift | None:  # fmt: skip
    use = table.counted.values & (error > 0)
    curve = _curve(table, theory)
    if not use.any():
        return None
    weight = np.where(use, 1 / np.where(use, error**2 + granted**2, 1.0), 0.0)  # what is granted is no evidence
    span = np.ptp(table.t.values)
    s = 0.0
    for _ in range(50):
        here, slope = _shifted(curve, s)
        gain = weight @ slope**2
        if gain <= 0:
            return None
        step = -(weight * slope) @ (mean - here) / gain
        s = float(np.clip(s + np.clip(step, -span / 10, span / 10), -span / 2, span / 2))
        if abs(step) < 1e-9 * span:
            break
    here, slope = _shifted(curve, s)
    combination = -weight * slope / (weight @ slope**2)
    residual = abs(mean - here) / np.maximum(critical * error + granted, 1e-300)
    return Shift(d, s, _scatter(combination, table, simulation, k), float(residual[use].max()))


def _scatter(combination: np.ndarray, table: xr.Dataset, simulation: xr.Dataset, k: int) -> float:
    """Return the standard error of a linear combination of rows."""
    at_d = simulation if "d" not in simulation.dims else simulation.isel(d=k)
    each = runs_by_row(at_d, table) @ combination
    return float(each.std(ddof=1) / np.sqrt(each.size))


def _curve(table: xr.Dataset, theory: np.ndarray) -> CubicSpline:
    """Return theory between its times, all components at once: rows of the table are by component, then time."""
    t = np.unique(table.t.values)
    return CubicSpline(t, theory.reshape(-1, t.size), axis=1)


def _shifted(curve: CubicSpline, s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return theory(t − s) and its derivative; before its first time theory stands still, as after its last."""
    then = np.clip(curve.x - s, curve.x[0], curve.x[-1])
    return curve(then).ravel(), curve(then, 1).ravel()


def speed(table: xr.Dataset, theory: np.ndarray) -> np.ndarray:
    """Return the derivative of theory in time, of each row; NaN with fewer than five times."""
    if np.unique(table.t.values).size < FEWEST:
        return np.full(theory.shape, np.nan)
    return _shifted(_curve(table, theory), 0.0)[1]


def explain_by_shift(
    status: str, reason: str, shifts: Sequence[Shift], escape: xr.Dataset | None, variances: xr.Dataset | None
) -> tuple[str, str]:
    """Return status and reason with what a shift of time explains of a FAIL.

    The status stays, unless the shift is one that the limit does not predict: of up to :data:`EXPLAINED` standard
    deviations of the escape times.
    """
    spread_differs = variances is not None and not bool((variances.passed | ~variances.counted).all())
    if status != "FAIL" or not shifts or spread_differs or not all(shift.explains for shift in shifts):
        return status, reason
    said = ", ".join(map(str, shifts))
    reason = f"{reason}; the deviation is only a shift of time by {said}: after it no mean is violated"
    if escape is None:
        return status, reason
    width = escape_spread(escape)
    within = all(abs(shift.time) <= EXPLAINED * width for shift in shifts)
    reason = f"{reason}. Escape times from the plateau have a predicted standard deviation of {width:.3g}"
    return ("UNDECIDED", f"{reason}, so that a shift like this says nothing") if within else (status, reason)


def slope_in_ln_d(shifts: Sequence[Shift]) -> tuple[float, float]:
    """Return the slope of the shift against ln d and its standard error, for comparison with that of the plateau."""
    x, y, error = (np.array([f(shift) for shift in shifts]) for f in (_ln_d, _time, _error))
    weight = 1 / np.maximum(error, 1e-300) ** 2
    x = x - np.average(x, weights=weight)
    inverse = 1 / (weight @ x**2)
    return float(inverse * ((weight * x) @ y)), float(np.sqrt(inverse))


def _ln_d(shift: Shift) -> float:
    return float(np.log(shift.d))


def _time(shift: Shift) -> float:
    return shift.time


def _error(shift: Shift) -> float:
    return shift.standard_error


def escape_spread(plateau: xr.Dataset) -> float:
    """Return the predicted standard deviation of escape times: of ln|g|/λ, g normal in the directions of escape.

    ½ ln χ²_k has variance ψ′(k/2)/4, k the ``degeneracy``; λ is the ``rate`` of :func:`effdyn.solve.stability.plateau`.
    """
    k = int(plateau["degeneracy"])
    return float(np.sqrt(polygamma(1, k / 2)) / (2 * float(plateau["rate"])))
