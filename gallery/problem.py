"""What an entry of the gallery solves and simulates: a model from one start, at one set of parameters."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn import derive, solve, validate

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A model with its initial overlaps and parameters.

    Attributes
    ----------
    model : TeacherStudent
    y0, params : dict
        As ``solve.integrate`` and ``validate.simulate`` take them.
    seed : int
        Of the simulations.
    """

    model: derive.TeacherStudent
    y0: dict[str, Any]
    params: dict[str, Any]
    seed: int

    def theory(self, times: Any) -> "xr.Dataset":
        """Solve the high-dimensional limit at these times."""
        times = np.asarray(times, dtype=float)
        span = (float(times[0]), float(times[-1]))
        found = _integrate(self.model.dynamics(), span, self.y0, self.params, times)
        return _whole(found)

    def flow(self, times: Any) -> "xr.Dataset":
        """Solve gradient flow, without the terms of order η, at these times in steps/d."""
        eta = self.params["eta"]
        params = {
            f"{name}_over_eta" if name in RATES else name: np.divide(value, eta) if name in RATES else value
            for name, value in self.params.items()
            if name != "eta"
        }
        dynamics = self.model.dynamics(limit="gradient-flow")
        known = {q.name for q in dynamics.parameters}  # the noise only enters at order η
        params = {name: value for name, value in params.items() if name in known}
        times = np.asarray(times, dtype=float)
        span = (eta * float(times[0]), eta * float(times[-1]))
        found = _whole(_integrate(dynamics, span, self.y0, params, eta * times))
        return found.assign_coords(t=times).assign_attrs(clock="steps/d")

    def simulation(self, d: Any, runs: int, times: Any, engine: str = "gram", progress: bool = False) -> "xr.Dataset":
        """Train networks, or run the exact chains of their overlaps, and save them at these times."""
        times = np.asarray(times, dtype=float)
        found = validate.simulate(
            self.model,
            d,
            runs,
            (times[0], times[-1]),
            y0=self.y0,
            params=self.params,
            t_eval=times,
            rng=self.seed,
            engine=engine,
            progress=progress,
        )
        return _whole(found)

    def both(
        self, d: Any, runs: int, times: Any, engine: str = "gram", progress: bool = False
    ) -> "tuple[xr.Dataset, xr.Dataset]":
        """Return theory and simulation at the same times, those at which the simulation could be saved."""
        simulation = self.simulation(d, runs, times, engine, progress)
        return self.theory(simulation.t.values), simulation


RATES = ("eta_a", "eta_bias", "kappa")
"""What gradient flow knows only in units of η."""


def export(dynamics: derive.Dynamics, out: Path, stem: str) -> None:
    """Write the equations as an article, a NumPy module and JSON."""
    dynamics.article(out / f"{stem}.tex")
    dynamics.write(out / f"{stem}.py")
    dynamics.write(out / f"{stem}.json")


def _whole(result: "xr.Dataset") -> "xr.Dataset":
    """Go on with Ctrl-C where a simulation or solution returned early because of it: half a run is not judged."""
    if result.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    return result


def _integrate(
    dynamics: derive.Dynamics, span: tuple[float, float], y0: dict[str, Any], params: dict[str, Any], times: np.ndarray
) -> "xr.Dataset":
    """Solve, where learning without noise goes on until the error is below what can be resolved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solve.BelowResolution)
        return solve.integrate(dynamics, span, y0, params, t_eval=times)
