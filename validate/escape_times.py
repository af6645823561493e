"""When does a run leave the plateau? The distribution of escape times that a theory to order 1/d predicts.

Near the plateau the amplitude of what grows is (A + ξ) e^{λt}, with λ the rate of escape, A what the start has of it
and ξ the noise gathered since, normal of order 1/√d. A run is therefore late by

    τ = −ln|1 + ζ| / λ,    ζ = ξ/A ~ N(μ, s²),

whatever happens after the exit, where all runs follow one path: f(t) = F(t − τ). The covariance of the solution gives s
by linearisation there, s = λ sd(f)/|F'|; its mean correction gives μ, such that E f = F + m/d to order 1/d. For s ≪ 1
this is normal; for s ≫ 1, a start without preference, it is −ln|g|/λ, g normal, however large d is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.interpolate import CubicSpline
from scipy.special import ndtr

from effdyn.derive.errors import ModelError

from .asked import check_count
from .fluctuations import has_fluctuations

NODES = 4096
"""Quantiles of which mean and standard deviation are taken."""


@dataclass(frozen=True, slots=True)
class EscapeTimes:
    """The predicted distribution of the times at which runs pass a threshold.

    Attributes
    ----------
    limit : float
        The time of the limit d → ∞.
    rate : float
        λ, the rate of escape.
    drift, spread : float
        Mean μ and standard deviation s of ζ, the relative deviation of the growing amplitude.
    """

    limit: float
    rate: float
    drift: float
    spread: float

    def cdf(self, t: np.ndarray | float) -> np.ndarray:
        """Return the probability to pass before t: that |1 + ζ| is at least exp(−λ (t − limit))."""
        with np.errstate(over="ignore"):
            edge = np.exp(-self.rate * (np.asarray(t, float) - self.limit))
        return np.asarray(ndtr((1 + self.drift - edge) / self.spread) + ndtr((-1 - self.drift - edge) / self.spread))

    def quantile(self, q: np.ndarray | float) -> np.ndarray:
        """Return the times before which fractions q of the runs pass."""
        asked = np.asarray(q, float)
        if not ((asked > 0) & (asked < 1)).all():
            raise ModelError("q", q, "fractions between 0 and 1")
        low, high = (np.full(asked.shape, self.limit + side * 800 / self.rate) for side in (-1, 1))
        for _ in range(100):  # bisection, to rounding
            middle = (low + high) / 2
            below = self.cdf(middle) < asked
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray((low + high) / 2)

    @property
    def mean(self) -> float:
        """The mean escape time."""
        return self._moments()[0]

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return self._moments()[1]

    def _moments(self) -> tuple[float, float]:
        """Return mean and standard deviation, by the midpoint rule over quantiles."""
        times = self.quantile((np.arange(NODES) + 0.5) / NODES)
        return float(times.mean()), float(times.std())


def escape_times(theory: xr.Dataset, threshold: float, *, rate: float, d: int, name: str = "eg") -> EscapeTimes:
    """Predict when runs at dimension d pass a threshold on their way out of a plateau, for the last time.

    Parameters
    ----------
    theory : xarray.Dataset
        A solution of ``dynamics.fluctuations()`` through the exit, at times dense enough to interpolate.
    threshold : float
        Of the observable; between the plateau's height and where training goes.
    rate : float
        The rate of escape, as ``solve.plateau(...)["rate"]``, on theory's clock.
    d : int
        Input dimension.
    name : str
        An observable without units' indices (select one of others first: ``theory.isel(student=0, teacher=1)``). The
        default does not change when students are exchanged, so that it escapes in every run.

    Returns
    -------
    EscapeTimes
        To leading order in 1/√d at fixed s: noise after the exit, smaller by a power of 1/√d, is in s alone.

    Raises
    ------
    ModelError
        If theory has no fluctuations, or none there; if the observable has units, or does not pass the threshold.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> start = dict(Q=0.2 * np.eye(2), R=[[0.02, 0.0], [0.0, 0.02]])
    >>> params = dict(eta=1.0, sigma=0.0, T=np.eye(2), a=1.0, b=1.0)
    >>> theory = solve.integrate(dyn.fluctuations(), (0, 150), t_eval=np.linspace(0, 150, 301), y0=start, params=params)
    >>> rate = float(solve.plateau(dyn, start, params)["rate"])
    >>> few, many = (escape_times(theory, 0.01, rate=rate, d=d) for d in (10_000, 100_000))
    >>> round(few.sd / many.sd, 1)  # √10, where the noise is small
    3.2
    """
    check_count("d", d)
    if not has_fluctuations(theory):
        raise ModelError("theory", str(theory.attrs.get("title", "")), "a solution of dynamics.fluctuations()")
    if name not in theory or theory[name].dims != ("t",):
        raise ModelError("name", name, "an observable over t alone, such as 'eg'; select one component of others")
    if not (np.isfinite(rate) and rate > 0):
        raise ModelError("rate", rate, "the rate of escape, above 0")
    t = theory["t"].values
    if t.size < 4:
        raise ModelError("theory", f"{t.size} times", "a solution at times dense enough to interpolate")
    curve = CubicSpline(t, theory[name].values)
    passed = [root for root in curve.solve(threshold, extrapolate=False) if root > t[0]]
    if not passed:
        values = theory[name].values
        raise ModelError(
            "threshold", threshold, f"a value that {name} passes, from {values[0]:.4g} to {values[-1]:.4g}"
        )
    limit = float(passed[-1])
    slope, bend = float(curve(limit, 1)), float(curve(limit, 2))
    variance = float(CubicSpline(t, theory[f"{name}_variance"].values)(limit)) / d
    correction = float(CubicSpline(t, theory[f"{name}_mean_correction"].values)(limit)) / d
    if not variance > 0:
        raise ModelError(
            "theory", f"variance {variance:.3g} at t={limit:.6g}", "one whose runs scatter at the threshold"
        )
    late = variance / slope**2  # the variance of τ to leading order
    spread = rate * np.sqrt(late)
    # E f = F − F' E τ + F'' var(τ)/2 gives E τ, and E τ = −(μ − s²/2)/λ.
    drift = rate * (correction / slope - bend / slope * late / 2) + spread**2 / 2
    return EscapeTimes(limit, float(rate), float(drift), float(spread))


def passages(simulation: xr.Dataset, threshold: float, name: str = "eg") -> xr.DataArray:
    """Return when each run last passes a threshold, by linear interpolation between its times; NaN where it does not.

    Parameters
    ----------
    simulation : xarray.Dataset
        With every run; ``name`` over ``run`` and ``t`` (and perhaps ``d``).
    threshold : float
    name : str

    Returns
    -------
    xarray.DataArray
        Without ``t``.

    Examples
    --------
    >>> t = np.linspace(0, 4, 5)
    >>> falling = xr.Dataset({"eg": (("run", "t"), [1.0 - t / 4, 1.0 - 0 * t])}, coords={"t": t})
    >>> passages(falling, 0.6).values.tolist()
    [1.6, nan]
    """
    if name not in simulation or "run" not in simulation[name].dims:
        raise ModelError("simulation", list(simulation.data_vars), f"a simulation with {name} of every run")
    array = simulation[name].transpose(..., "t")
    t, above = simulation["t"].values, array.values > threshold
    crosses = above[..., 1:] != above[..., :-1]
    last = crosses.shape[-1] - 1 - np.argmax(crosses[..., ::-1], axis=-1)[..., None]
    before, after = (np.take_along_axis(array.values, last + k, -1)[..., 0] for k in (0, 1))
    begin, end = t[last[..., 0]], t[last[..., 0] + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        times = begin + (end - begin) * (threshold - before) / (after - before)
    return array.isel(t=0, drop=True).copy(data=np.where(crosses.any(-1), times, np.nan))
