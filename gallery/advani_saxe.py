"""Advani, Saxe & Sompolinsky, Neural Networks 132, 428 (2020): least squares by gradient flow on noisy data.

With fewer examples than dimensions, as many, and more: the error on fresh examples falls and rises again, most where
there are as many; stopped at its least it shows nothing of that. Also for inputs with a spectrum. Points are data sets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from effdyn import validate
from effdyn.derive.regression import LinearRegression

from .regression import COLOURS, Case, export, labelled, points
from .report import report, sheet

if TYPE_CHECKING:
    import xarray as xr

NOISE = 1.0
RATIOS = (0.5, 1.0, 2.0)
"""d/n; one over the load of the paper."""
SPECTRUM = {"lam": [3.0, 1.0, 0.2], "p": [0.1, 0.4, 0.5]}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are: dimensions, data sets at each, and until when."""

    dims: tuple[int, ...]
    runs: int
    stop: float


FULL, QUICK = Sizes((100, 200, 400), 200, 20.0), Sizes((20, 40, 80), 120, 10.0)


def isotropic(r: float, sigma: float = NOISE) -> Case:
    """Return isotropic inputs at d/n = r, with a target of unit variance."""
    return Case(LinearRegression("gradient-flow"), 1.0, {"r": r, "sigma": sigma})


def spectral(r: float) -> Case:
    """Return inputs with three eigenvalues, the target spread evenly over all directions."""
    return Case(LinearRegression("gradient-flow", "general"), SPECTRUM["p"], {"r": r, "sigma": NOISE, **SPECTRUM})


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, evaluate, simulate, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    dynamics = isotropic(1.0).model.dynamics()
    say(f"{dynamics}\n\n{spectral(1.0).model.dynamics()}\n")
    export(dynamics, out, "advani_saxe")
    export(spectral(1.0).model.dynamics(), out, "general_covariance")

    times = np.unique(np.concatenate([np.linspace(0, 2, 6), np.linspace(0, sizes.stop, 6)]))
    verdicts: dict[str, validate.Verdict] = {}
    simulations: dict[str, xr.Dataset] = {}
    for make, kind in ((isotropic, "isotropic"), (spectral, "three eigenvalues")):
        for r in RATIOS:
            name = f"{kind}, d/n = {r:g}"
            say(f"{name}: {sizes.runs} data sets at d = {', '.join(map(str, sizes.dims))}")
            verdicts[name], simulations[name] = make(r).judged(sizes.dims, sizes.runs, times, progress)
            simulations[name].to_netcdf(out / f"{kind.split()[0]}_{r:g}.nc")
    draw_curves(simulations, sizes.stop, out / "curves.png")
    draw_stopping(simulations, out / "stopping.png")
    return report(verdicts, out, "advani_saxe", say)


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_curves(simulations: "dict[str, xr.Dataset]", stop: float, path: Path) -> None:
    """Errors against time: lines theory, points data sets of the largest d."""
    figure, axes = sheet(3)
    t = np.concatenate([[0.0], np.geomspace(0.02, stop, 120)])
    panels = (
        (isotropic, "isotropic", "eg", "isotropic inputs, fresh examples"),
        (isotropic, "isotropic", "train_loss", "isotropic inputs, training set"),
        (spectral, "three eigenvalues", "eg", "eigenvalues 3, 1, 0.2, fresh examples"),
    )
    for ax, (make, kind, name, title) in zip(axes, panels, strict=True):
        for r, colour in zip(RATIOS, COLOURS, strict=False):
            ax.plot(t, make(r).theory(t)[name], color=colour, label=f"$d/n = {r:g}$")
            points(ax, simulations[f"{kind}, d/n = {r:g}"], name, colour)
        ax.set(title=title, xlabel=r"$t = \eta\,$steps", ylabel=r"$\epsilon_g$" if name == "eg" else r"$\epsilon_t$")
        ax.set_ylim(bottom=0)
    axes[0].legend()
    figure.savefig(path, dpi=150)


def draw_stopping(simulations: "dict[str, xr.Dataset]", path: Path) -> None:
    """The error after long training peaks where d = n; that of the best stopping time does not."""
    figure, axes = sheet(2)
    ratios = np.geomspace(0.2, 5, 33)
    t = np.concatenate([[0.0], np.geomspace(0.01, 300, 240)])
    for sigma, colour in zip((0.3, 1.0, 2.0), COLOURS, strict=False):
        found = [isotropic(r, sigma).theory(t).eg for r in ratios]
        axes[0].plot(1 / ratios, [float(eg[-1]) for eg in found], color=colour, label=rf"$\sigma = {sigma:g}$")
        axes[0].plot(1 / ratios, [float(eg.min()) for eg in found], color=colour, ls="--")
        axes[1].plot(1 / ratios, [t[int(np.argmin(eg.values))] for eg in found], color=colour)
    axes[0].set(xscale="log", yscale="log", xlabel="$n/d$", ylabel=r"$\epsilon_g$", ylim=(1e-2, 30))
    axes[0].set_title("at t = 300 (lines) and at the best time (dashed)")
    axes[0].legend()
    axes[1].set(xscale="log", yscale="log", xlabel="$n/d$", ylabel="$t$", title="the best time to stop")
    for ax in axes:
        labelled(ax, (0.2, 0.5, 1, 2, 5))
    figure.savefig(path, dpi=150)
