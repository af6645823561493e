"""What the entries on linear regression share: a case solved and simulated at the same times, and its points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn import solve, validate
from effdyn.derive import Dynamics
from effdyn.derive.regression import LinearRegression
from effdyn.validate import figures

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

SEED = 20200701


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A regression with its initial error and parameters.

    Attributes
    ----------
    model : LinearRegression
    c : float or array_like
        The squared error at the start, by class.
    params : dict
    """

    model: LinearRegression
    c: Any = 1.0
    params: Mapping[str, Any] = field(default_factory=dict)

    def theory(self, times: Any, limit: str | None = None, **more: Any) -> "xr.Dataset":
        """Solve a limit of the model at these times, from t = 0."""
        times = np.asarray(times, dtype=float)
        params = {**self.params, **more}
        return solve.integrate(self.model.dynamics(limit), (0.0, float(times[-1])), {"c": self.c}, params, t_eval=times)

    def simulation(self, d: int | Sequence[int], runs: int, times: Any, progress: bool = False) -> "xr.Dataset":
        """Simulate at these times; go on with Ctrl-C where that ended it early: half a run is not judged."""
        times = np.asarray(times, dtype=float)
        span = (0.0, float(times[-1]))
        found = validate.simulate(
            self.model,
            d,
            runs,
            span,
            y0={"c": self.c},
            params=self.params,
            t_eval=times,
            rng=SEED,
            progress=progress,
        )
        if found.attrs["status"] == "interrupted":
            raise KeyboardInterrupt
        return found

    def judged(
        self, d: int | Sequence[int], runs: int, times: Any, progress: bool = False
    ) -> "tuple[validate.Verdict, xr.Dataset]":
        """Return the verdict on the limit, and the simulation behind it."""
        simulation = self.simulation(d, runs, times, progress)
        return validate.compare(self.theory(simulation.t.values), simulation), simulation


def points(ax: "Axes", simulation: "xr.Dataset", name: str, colour: str, label: str = "") -> None:
    """Draw the mean over runs at the largest d, with its standard error."""
    largest = simulation.isel(d=int(np.argmax(simulation.d.values))) if "d" in simulation.dims else simulation
    values = largest[name]
    error = values.std("run", ddof=1) / np.sqrt(values.sizes["run"])
    ax.errorbar(largest.t, values.mean("run"), error, fmt="o", ms=3.5, color=colour, label=label or None, zorder=3)


def labelled(ax: "Axes", ticks: Sequence[float]) -> None:
    """Label a logarithmic horizontal axis at these places only, with plain numbers."""
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)


def export(dynamics: Dynamics, out: Path, stem: str) -> None:
    """Write the equations as an article, and as text."""
    dynamics.article(out / f"{stem}.tex")
    (out / f"{stem}.txt").write_text(f"{dynamics}\n", encoding="utf-8")


COLOURS = figures.COLOURS
