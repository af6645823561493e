"""A ReLU committee of K = 3 students learns M = 2 teacher units from noisy labels, both layers trained, at finite η.

At a learning rate that does not vanish the equations hold terms of order η²,

    η² a_i a_k E[g'(h_i) g'(h_k) (y − φ)²],

which need E[Θ(u) Θ(v) relu(w) relu(z)] of four correlated fields: closed forms in angles and one integral. Without them
there is gradient flow, η → 0. What the terms do is seen in two ways:

- the error. Two students specialise, the third one, of the wrong sign, dies out. Gradient flow goes on to zero error;
  at finite η label noise holds the error at a floor of order η, which sinks only as fast as the layers lose balance.
- the balance of the layers. For ReLU units gradient flow conserves Q_ii/η − a_i²/η_a of each (Du, Hu & Lee, NeurIPS
  2018). At finite η the noise of the labels pumps it: weights grow, and second layers shrink.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from effdyn import derive, validate
from effdyn.validate import figures

from .problem import Problem, export
from .report import report, sheet

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

ETA, RATIO, NOISE = 0.5, 0.5, 0.3
"""Learning rate, that of the second layer in its units, and standard deviation of the label noise."""
SEED = 2018


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are.

    Attributes
    ----------
    t_end : float
        Until when.
    dims : tuple of int
        Input dimensions of the exact chains.
    chains : int
        Replicas at each dimension.
    networks, network_d, network_t : int, int, float
        Real networks: replicas, dimension, and until when.
    rates : tuple of float
        The learning rates at which the error's floor is shown.
    """

    t_end: float
    dims: tuple[int, ...]
    chains: int
    networks: int
    network_d: int
    network_t: float
    rates: tuple[float, ...]


FULL = Sizes(
    t_end=200.0,
    dims=(1000, 10_000),
    chains=32,
    networks=24,
    network_d=1000,
    network_t=60.0,
    rates=(0.2, 0.5, 1.0),
)
QUICK = Sizes(
    t_end=100.0,
    dims=(300, 1000),
    chains=32,
    networks=24,
    network_d=500,
    network_t=20.0,
    rates=(0.2, 0.5, 1.0),
)


def problem(eta: float = ETA) -> Problem:
    """Return the committee: each of two students already prefers a teacher unit, the third has the wrong sign."""
    start = {
        "Q": np.diag([0.3, 0.5, 0.4]),
        "R": np.array([[0.3, 0.05], [0.02, 0.2], [0.02, -0.1]]),
        "a": np.array([0.8, 0.7, -0.5]),
    }
    params = {"eta": eta, "eta_a": RATIO * eta, "sigma": NOISE, "T": np.eye(2), "b": 1.0}
    return Problem(derive.TeacherStudent(activation="relu", second_layer="trained"), start, params, SEED)


def balance(solution: "xr.Dataset") -> "xr.DataArray":
    """Return Q_ii − (η/η_a) a_i² of each student, which gradient flow conserves."""
    weights = np.einsum("...ii->...i", solution.Q.values)
    return solution.a.copy(data=weights - solution.a.values**2 / RATIO).rename("balance")


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    committee = problem()
    dynamics = committee.model.dynamics()
    say = tqdm.write if progress else print
    say(str(dynamics) + "\n")
    export(dynamics, out, "relu_committee")

    say(f"Exact chains of the overlaps at d = {', '.join(map(str, sizes.dims))}, {sizes.chains} each")
    times = np.linspace(0, sizes.t_end, 41)
    theory, chains = committee.both(sizes.dims, sizes.chains, times, "gram", progress)
    say(f"{sizes.networks} networks of d = {sizes.network_d}")
    times = np.linspace(0, sizes.network_t, 21)
    network_theory, networks = committee.both(sizes.network_d, sizes.networks, times, "network", progress)
    verdicts = {
        "chains": validate.compare(theory, chains),
        "networks": validate.compare(network_theory, networks),
    }
    for name, data in (("theory", theory), ("chains", chains), ("networks", networks)):
        data.to_netcdf(out / f"{name}.nc")
    smooth = committee.theory(np.linspace(0, sizes.t_end, 401))
    flow = committee.flow(smooth.t.values)
    flow.to_netcdf(out / "gradient_flow.nc")
    draw_overlaps(smooth, flow, chains, out / "overlaps.png")
    say(f"The same at learning rates {', '.join(map(str, sizes.rates))}")
    pairs = {eta: rate_run(eta, sizes, progress) for eta in sizes.rates}
    verdicts |= {f"chains, eta = {eta:g}": validate.compare(*pair) for eta, pair in pairs.items() if eta != ETA}
    draw_noise(pairs, flow, out / "eta_squared.png")
    return report(verdicts, out, "relu_committee", say)


def rate_run(eta: float, sizes: Sizes, progress: bool) -> "tuple[xr.Dataset, xr.Dataset]":
    """Return theory and chains at another learning rate, up to the same time ηt."""
    times = np.linspace(0, sizes.t_end * ETA / eta, 41)
    return problem(eta).both(max(sizes.dims), sizes.chains, times, "gram", progress)


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_overlaps(theory: "xr.Dataset", flow: "xr.Dataset", chains: "xr.Dataset", path: Path) -> None:
    """Specialisation, the second layer, and the error: lines theory, points and bands simulation."""
    figure, axes = sheet(3)
    figures.overlaps(theory, chains, axes[0], name="R")
    figures.overlaps(theory, chains, axes[1], name="a")
    figures.error_curve(theory, chains, axes[2])
    axes[2].lines[0].set_label("theory")
    axes[2].semilogy(flow.t, flow.eg, ls="--", color="0.5", label=r"without the terms of order $\eta^2$")
    axes[2].legend(frameon=False)
    axes[0].set_title(f"student–teacher overlaps, d = {int(chains.d.max())}")
    axes[1].set_title("second layer")
    axes[2].set_title("generalisation error")
    figure.savefig(path, dpi=150)


def draw_noise(pairs: "Mapping[float, tuple[xr.Dataset, xr.Dataset]]", flow: "xr.Dataset", path: Path) -> None:
    """What gradient flow leaves out, at several learning rates: the floor of the error, and the balance of layers."""
    figure, axes = sheet(2)
    for ax, quantity in zip(axes, (lambda data: data.eg, lambda data: balance(data)[..., 0]), strict=True):
        ax.plot(ETA * flow.t, quantity(flow), "--", color="0.3", label="gradient flow", zorder=4)
        for colour, (eta, (theory, chains)) in zip(figures.COLOURS, pairs.items(), strict=False):
            _line_and_points(ax, eta, quantity(theory), quantity(chains), colour)
        ax.set_xlabel(r"$\eta t$ = $\eta\,$steps/$d$")
    axes[0].set_yscale("log")
    axes[0].set(ylabel=r"$\epsilon_g$", title=f"generalisation error, label noise {NOISE:g}")
    axes[1].set(ylabel=r"$Q_{11} - (\eta/\eta_a)\,a_1^2$", title="balance of the layers")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def _line_and_points(ax: "Axes", eta: float, theory: "xr.DataArray", chains: "xr.DataArray", colour: str) -> None:
    """Draw a theory and the mean over runs with its standard error, against ηt."""
    ax.plot(eta * theory.t, theory, color=colour, label=rf"$\eta = {eta:g}$")
    error = chains.std("run", ddof=1) / np.sqrt(chains.sizes["run"])
    ax.errorbar(
        eta * chains.t, chains.mean("run"), error, fmt="o", ms=3.4, color=colour, mfc="white", elinewidth=1, zorder=3
    )
