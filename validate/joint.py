"""All components and times at once: Hotelling's test, with the covariance between them that the runs have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.linalg import eigh
from scipy.optimize import lsq_linear
from scipy.stats import f as fisher

PER_ENTRY = 10
"""Runs for each entry of the mean: fewer, and the distribution rests on the runs being exactly normal."""
COLLINEAR = 1e-10
"""Eigenvalues of the correlation matrix, per largest, below which a direction is a function of the others."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Hotelling's T² of one d: ``probability`` of a larger one if theory is right up to what is granted."""

    d: int
    entries: int
    directions: int
    runs: int
    statistic: float
    probability: float

    def __str__(self) -> str:
        return (
            f"{self.entries} means jointly at d={self.d}: Hotelling's T²={self.statistic:.4g} in {self.directions} "
            f"directions, probability {self.probability:.2g}"
        )


def joint_tests(table: xr.Dataset, simulation: xr.Dataset, sizes: np.ndarray, notes: list[str]) -> tuple[Joint, ...]:
    """Return Hotelling's test of the means at each d.

    T² = min (x̄ − μ − δ)ᵀ (S/n)⁻¹ (x̄ − μ − δ) over all |δ| within what is granted: not larger than at the true δ, so
    that F with r and n − r degrees of freedom bounds its tail. S is the covariance of the runs between all components
    and times that fluctuate; with fewer than ten runs for each, times are left out, evenly.
    """
    if "run" not in simulation.dims:
        notes.append("no joint test over times, no pooled variances: they need the runs, and only moments were stored")
        return ()
    found = []
    for k, d in enumerate(sizes):
        at_d = simulation if "d" not in simulation.dims else simulation.isel(d=k)
        theory, granted = _expected(table, k)
        x = runs_by_row(at_d, table)
        rows = _chosen(table, x)
        if not rows.size:
            notes.append(f"no joint test over times at d={d:g}: fewer than ten runs for each component")
            continue
        found.append(_hotelling(x[:, rows], theory[rows], granted[rows], round(d)))
    return tuple(found)


def _expected(table: xr.Dataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return theory at the k-th d, and what it is granted there."""
    if "theory_at_d" not in table:
        return table.theory.values, table.allowance.values
    return table.theory_at_d.values[k], table.allowance_at_d.values[k] + table.numerical_allowance.values


def runs_by_row(simulation: xr.Dataset, table: xr.Dataset) -> np.ndarray:
    """Return the runs of a simulation at one d, (run, rows), in the order of the table's rows."""
    names = dict.fromkeys(table.observable.values.tolist())
    return np.concatenate([_of_variable(simulation, table, name) for name in names], axis=1)


def _of_variable(simulation: xr.Dataset, table: xr.Dataset, name: str) -> np.ndarray:
    array = simulation[name]
    units = [dim for dim in array.dims if dim not in ("run", "t")]
    values = np.asarray(array.transpose("run", *units, "t").values, float)
    labels = dict.fromkeys(table.component.values[table.observable.values == name].tolist())
    places = [tuple(int(i) - 1 for i in label[len(name) + 1 : -1].split(",") if i) for label in labels]
    flat = [int(np.ravel_multi_index(place, values.shape[1:-1])) if place else 0 for place in places]
    return np.concatenate([values.reshape(len(values), -1, values.shape[-1])[:, i] for i in flat], axis=1)


def _chosen(table: xr.Dataset, x: np.ndarray) -> np.ndarray:
    """Return the rows that fluctuate, of as many evenly spaced times as there are runs for."""
    lively = table.counted.values & (x.std(0) > 1e-13 * np.maximum(abs(x).max(0), 1e-300))
    times = np.unique(table.t.values[lively])
    for count in range(times.size, 0, -1):
        some = times[np.unique(np.linspace(times.size - 1, 0, count).round().astype(int))]
        rows = np.flatnonzero(lively & np.isin(table.t.values, some))
        if rows.size * PER_ENTRY <= len(x):
            return rows
    return np.zeros(0, int)


def _hotelling(x: np.ndarray, theory: np.ndarray, granted: np.ndarray, d: int) -> Joint:
    n = len(x)
    error = x.std(0, ddof=1) / np.sqrt(n)
    scaled = (x - x.mean(0)) / (error * n)  # so that its products add up to correlations, up to n/(n − 1)
    values, vectors = eigh(scaled.T @ scaled * (n / (n - 1)))
    kept = values > COLLINEAR * values[-1]
    whiten = vectors[:, kept].T / np.sqrt(values[kept])[:, None]
    deviation = (x.mean(0) - theory) / error
    slack = np.maximum(granted / error, 1e-12)
    fit = lsq_linear(whiten, whiten @ deviation, bounds=(-slack, slack))
    statistic, r = float(2 * fit.cost), int(kept.sum())
    probability = float(fisher.sf(statistic * (n - r) / (r * (n - 1)), r, n - r))
    return Joint(d, len(theory), r, n, statistic, probability)
