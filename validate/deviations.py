"""Deviations of a simulation from theory, component by component, with their errors and their dependence on d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from .comparable import ROUNDING, NotComparable, sample_moments
from .fluctuations import DIFFUSION, of_order_one
from .stated_error import stated_error

SIGNIFICANT = 5.0
"""A deviation's logarithm is fitted only where it is this many times its error at every d: then it is known to 20 %."""
SETTLED = 0.05
"""An observable moves until it stays within this fraction of its range of its last value."""


@dataclass(frozen=True, slots=True)
class Part:
    """One observable, flattened: rows by component, then time."""

    component: list[str]
    t: np.ndarray
    theory: np.ndarray
    correction: np.ndarray  # zero if theory is the limit alone
    mean: np.ndarray  # (d, rows)
    error: np.ndarray  # (d, rows)
    offset: np.ndarray  # (d, rows)
    stated: np.ndarray
    moving: np.ndarray
    scale: float
    runs: int
    name: str


def flatten(name: str, theory: xr.Dataset, simulation: xr.Dataset, offset: np.ndarray, numerical: float) -> Part:
    mean, sd, runs = sample_moments(simulation, name)
    units = [dim for dim in mean.dims if dim not in ("d", "t")]
    expected = theory[name]
    here = {str(dim): size for dim, size in expected.sizes.items() if dim != "t"}
    there = {str(dim): mean.sizes[dim] for dim in units}
    if here != there:
        extra = [dim for dim in here if dim not in there]
        instead = f"Select one of theory's {extra[0]!r} first (.isel)." if extra else "Give both the same K and M."
        raise NotComparable("sizes", here or "no units", there or "no units", f"This is {name}. {instead}")
    mean = mean.expand_dims("d") if "d" not in mean.dims else mean
    sd = sd.expand_dims("d") if "d" not in sd.dims else sd
    F = np.asarray(expected.transpose("t", *units).values, float)
    m, s = (np.asarray(array.transpose("d", "t", *units).values, float) for array in (mean, sd))
    _check_finite(name, F, m, s, runs, theory)

    scale = float(np.ptp(F, axis=0).max())
    size = float(abs(F).max())
    if scale <= numerical * size or len(F) == 1:
        scale = size or 1.0  # an observable that is zero throughout has no scale: its own unit then
    shape = F.shape[1:]
    indices = list(np.ndindex(shape))
    if len(shape) == 2 and units[1] == f"{units[0]}_2" and all(_symmetric(array, numerical * size) for array in (F, m)):
        indices = [(i, k) for i, k in indices if i <= k]
    pick = np.array([np.ravel_multi_index(index, shape) if shape else 0 for index in indices])

    def rows(array: np.ndarray, lead: int) -> np.ndarray:
        flat = array.reshape(*array.shape[:lead], -1)[..., pick]
        return np.swapaxes(flat, -1, -2).reshape(*array.shape[: lead - 1], -1)

    T = len(F)
    labels = [f"{name}[{','.join(str(i + 1) for i in index)}]" if index else name for index in indices]
    return Part(
        component=[label for label in labels for _ in range(T)],
        t=np.tile(np.asarray(simulation["t"].values, float), len(labels)),
        theory=rows(F, 1), correction=rows(of_order_one(theory, name, "mean_correction", units), 1),
        mean=rows(m, 2), error=rows(s, 2) / np.sqrt(runs), offset=np.tile(offset, len(labels)),
        stated=np.tile(stated_error(theory, name, np.asarray(theory["t"].values, float)), len(labels)),
        moving=np.tile(_moving(F, scale), len(labels)), scale=scale, runs=runs, name=name,
    )  # fmt: skip


def _moving(F: np.ndarray, scale: float) -> np.ndarray:
    """Return whether the observable still moves, at each time; that at which it settles is included."""
    away = (abs(F - F[-1]) > SETTLED * scale).reshape(len(F), -1).any(1)
    settles = int(np.flatnonzero(away)[-1]) + 1 if away.any() else len(F)
    return np.arange(len(F)) <= settles


def _check_finite(name: str, F: np.ndarray, m: np.ndarray, s: np.ndarray, runs: int, theory: xr.Dataset) -> None:
    bad = {"theory": ~np.isfinite(F), "simulation": ~np.isfinite(m) | (~np.isfinite(s) & (runs > 1))}
    if not any(where.any() for where in bad.values()):
        return
    found = {side: f"{int(where.sum())} values of {name} that are not finite" for side, where in bad.items()}
    times = bad["theory"].reshape(len(F), -1).any(1) | bad["simulation"].swapaxes(0, 1).reshape(len(F), -1).any(1)
    first = float(theory["t"].values[np.argmax(times)])
    instead = f"The first is at t={first:.6g}: compare up to there (.sel(t=slice(…)))."
    raise NotComparable("values", found["theory"], found["simulation"], instead)


def _symmetric(array: np.ndarray, slack: float) -> bool:
    return bool((abs(array - array.swapaxes(-1, -2)) <= slack).all())


def measure_deviations(
    parts: Sequence[Part],
    sizes: np.ndarray,
    bias: float,
    numerical: float,
    deterministic: bool = False,
    order: int = 0,
) -> tuple[xr.Dataset, dict[str, float]]:
    """Return the table without what depends on the number of comparisons, and the scale of each observable.

    ``order`` is that in 1/d to which theory is known; the next is what is granted, or fitted.
    """
    limit, correction, t, mean, error, offset, stated, moving = (
        np.concatenate([getattr(part, key) for part in parts], axis=-1)
        for key in ("theory", "correction", "t", "mean", "error", "offset", "stated", "moving")
    )
    scale, largest = (
        np.concatenate([np.full(part.t.size, value) for part, value in zip(parts, values, strict=True)])
        for values in ([part.scale for part in parts], [abs(part.correction).max() for part in parts])
    )
    names = [part.name for part in parts for _ in part.t]

    theory = limit + correction / sizes.min()
    theory_at_d = limit + correction / sizes[:, None]
    at_d = mean - theory_at_d
    intercept, slope = _weights(sizes, order)
    deviation = intercept @ at_d
    se = np.sqrt(intercept**2 @ error**2)
    unit = largest if order else np.ones_like(theory)  # of what is granted
    granted_at_d = bias * unit / sizes[:, None] ** (order + 1)
    if sizes.size == 1:
        granted = granted_at_d[0]
    else:
        granted = bias * (unit * abs(intercept @ sizes ** -(order + 2.0)) + abs(intercept) @ offset)
    stated = stated + DIFFUSION * largest / sizes.min()
    still = (error <= ROUNDING * scale).all(0)  # the same in all runs, to rounding
    rounding = (numerical * scale + stated) * abs(intercept).sum()
    counted = ~(still & (abs(at_d) <= numerical * scale + stated).all(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(still, np.where(counted, np.sign(deviation) * np.inf, 0.0), deviation / se)
    if deterministic:
        if sizes.size > 2:
            granted = _curvature(sizes, at_d, np.array(names)) * abs(intercept @ sizes**-2.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.nan_to_num(deviation / granted)  # in units of what finite steps are granted
        still = np.zeros_like(still)

    columns = {
        "theory": theory,
        "correction": correction / sizes.min(),
        "mean": theory + deviation,
        "standard_error": np.where(still | deterministic, 0.0, se),
        "deviation": deviation,
        "z": z,
        "granted": np.where(still, 0.0, granted),
        "allowance": np.where(still, 0.0, granted) + rounding,
        "counted": counted,
        "resolved": abs(deviation) > rounding,
        "moving": moving,
        "scale": scale,
    }
    table = xr.Dataset(
        {name: ("comparison", column) for name, column in columns.items()},
        coords={
            "observable": ("comparison", names),
            "component": ("comparison", [label for part in parts for label in part.component]),
            "t": ("comparison", t),
            "d": ("d", np.rint(sizes).astype(int)) if sizes.size > 1 else round(sizes[0]),
        },
    )
    if sizes.size > 1:
        at_each = {"theory": theory_at_d, "mean": mean, "standard_error": error, "allowance": granted_at_d}
        table["numerical_allowance"] = "comparison", numerical * scale + stated
        for name, values in at_each.items():
            table[f"{name}_at_d"] = ("d", "comparison"), np.broadcast_to(values, mean.shape)
        table["slope"] = "comparison", slope @ at_d
        table["slope_error"] = "comparison", np.sqrt(slope**2 @ error**2)
        exponent, exponent_error = _exponents(sizes, at_d, error, numerical * scale)
        table["exponent"], table["exponent_error"] = ("comparison", exponent), ("comparison", exponent_error)
        table.attrs["curvature_allowance"] = float(bias * unit.max() * abs(intercept @ sizes ** -(order + 2.0)))
        table.attrs["clock_allowance"] = float(bias * (abs(intercept) @ offset).max())
    return table, {part.name: part.scale for part in parts}


def _curvature(sizes: np.ndarray, deviation: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return a bound on the coefficients of 1/d² in deviations without noise, from three or more sizes.

    From the parabola through them, its largest of each observable, and half as much again for the orders beyond, which
    are smaller by a factor of 1/d times rates. An error of theory does not depend on d, and does not enter.
    """
    square = abs(np.polyfit(1 / sizes, deviation, 2)[0])
    largest = {name: square[names == name].max() for name in set(names.tolist())}
    return 1.5 * np.array([largest[name] for name in names.tolist()])


def _weights(sizes: np.ndarray, order: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return w, v such that a fit of deviations by c/d^order + c'/d^(order+1) has c = Σ w·deviation at the smallest d,
    that is in units of 1/min(d)^order, and c' = Σ v·deviation. The weights are those of variances ~ 1/d.
    """
    if sizes.size == 1:
        return np.ones(1), np.zeros(1)
    factor = (sizes / sizes.min()) ** order  # multiplied by it, deviations are c + c'/d
    design = np.stack([np.ones(sizes.size), 1 / sizes], axis=1)
    root = (np.sqrt(sizes) / factor)[:, None]
    w, v = np.linalg.pinv(root * design, rcond=1e-15) * root.T * factor
    return w, v * sizes.min() ** order


def _exponents(
    sizes: np.ndarray, deviation: np.ndarray, error: np.ndarray, numerical: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return p of |deviation| ~ d^(−p) and its standard error; NaN where it is not significant at every d."""
    sign = np.sign(deviation)
    beyond = abs(deviation) >= SIGNIFICANT * (error + numerical)
    clear = (beyond & (error > 0) & (sign == sign[0]) & (sign != 0)).all(0)
    exponent, uncertainty = np.full((2, deviation.shape[1]), np.nan)
    x = np.log(sizes)[:, None]
    weight = (deviation[:, clear] / error[:, clear]) ** 2  # the inverse variance of a logarithm
    centred = x - (weight * x).sum(0) / weight.sum(0)
    inverse = 1 / (weight * centred**2).sum(0)
    exponent[clear] = -inverse * (weight * centred * np.log(abs(deviation[:, clear]))).sum(0)
    uncertainty[clear] = np.sqrt(inverse)
    return exponent, uncertainty


def quantile(level: float, comparisons: int, runs: int) -> float:
    """Return how many standard errors a comparison may be off: Student's t, two-sided, Bonferroni."""
    return float(-stdtrit(runs - 1, level / (2 * max(comparisons, 1)))) if runs > 1 else np.nan
