"""Saad & Solla, Phys. Rev. E 52, 4225 (1995): on-line learning in soft committee machines, remade end to end.

Erf students of K = M = 2 (and 3) units learn from isotropic teachers. Two starts, for two purposes:

- from an asymmetry of 0.25 the students specialise at once. Finite-d chains and networks then follow the theory up to
  O(1/d), and the comparison is judged;
- from Saad and Solla's asymmetry of 1e-12 they stay on the symmetric plateau until the asymmetry has grown. At finite
  d, fluctuations of order 1/√d replace it, and escape times scatter by nature: simulations are shown beside the
  theory, and not judged.
"""

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

ETA, NOISE = 1.0, 0.0
SEED = 1995


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are.

    Attributes
    ----------
    dims : tuple of int
        Input dimensions of the exact chains.
    chains, chains_3 : int
        Replicas for K = 2 and K = 3, at each dimension.
    networks, network_d, network_t : int, int, float
        Real networks: replicas, dimension, and until when.
    plateau_runs, plateau_t : int, float
        Chains from the symmetric start, and until when.
    """

    dims: tuple[int, ...]
    chains: int
    chains_3: int
    networks: int
    network_d: int
    network_t: float
    plateau_runs: int
    plateau_t: float


FULL = Sizes(
    dims=(1000, 10_000),
    chains=64,
    chains_3=16,
    networks=24,
    network_d=1000,
    network_t=100.0,
    plateau_runs=16,
    plateau_t=300.0,
)
QUICK = Sizes(
    dims=(300, 1000),
    chains=32,
    chains_3=16,
    networks=32,
    network_d=300,
    network_t=40.0,
    plateau_runs=8,
    plateau_t=300.0,
)


def asymmetric_start(K: int) -> dict[str, np.ndarray]:
    """Return overlaps of students each of which already prefers a teacher unit, by 0.25 and slightly differently."""
    preference = np.diag(0.25 + 0.02 * np.arange(K))
    return {"Q": np.diag(np.linspace(0.3, 0.4, K)), "R": 0.05 + preference}


def symmetric_start(K: int) -> dict[str, np.ndarray]:
    """Return Saad and Solla's start: students of different lengths, with an asymmetry of at most 1e-12."""
    rng = np.random.default_rng(SEED)
    return {"Q": np.diag(np.sort(rng.uniform(0, 0.5, K))), "R": rng.uniform(0, 1e-12, (K, K))}


def problem(K: int, start: dict[str, np.ndarray]) -> Problem:
    """Return K students and as many teacher units: isotropic teacher, unit second layers, no noise."""
    params = {"eta": ETA, "sigma": NOISE, "T": np.eye(K), "a": 1.0, "b": 1.0}
    return Problem(derive.TeacherStudent(activation="erf"), start, params, SEED)


def judged_times(t_end: float) -> np.ndarray:
    """Return output times, denser while the students specialise."""
    return np.unique(np.concatenate([np.linspace(0, min(t_end, 60), 31), np.linspace(0, t_end, 31)]))


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    dynamics = derive.TeacherStudent(activation="erf").dynamics()
    say = tqdm.write if progress else print
    say(str(dynamics) + "\n")
    export(dynamics, out, "saad_solla")

    verdicts = {}
    for K, chains in ((2, sizes.chains), (3, sizes.chains_3)):
        say(f"K = M = {K}: exact chains of the overlaps at d = {', '.join(map(str, sizes.dims))}, {chains} each")
        asymmetric = problem(K, asymmetric_start(K))
        theory, simulation = asymmetric.both(sizes.dims, chains, judged_times(300.0), "gram", progress)
        verdicts[f"chains, K = {K}"] = validate.compare(theory, simulation)
        theory.to_netcdf(out / f"theory_K{K}.nc")
        simulation.to_netcdf(out / f"chains_K{K}.nc")
        if K == 2:
            draw_overlaps(asymmetric.theory(np.linspace(0, 300, 601)), simulation, out / "overlaps.png")
            draw_deviations(verdicts["chains, K = 2"], out / "deviation.png")
    say(f"K = M = 2: {sizes.networks} networks of d = {sizes.network_d}")
    times = judged_times(sizes.network_t)
    theory, networks = problem(2, asymmetric_start(2)).both(sizes.network_d, sizes.networks, times, "network", progress)
    networks.to_netcdf(out / "networks_K2.nc")
    verdicts["networks, K = 2"] = validate.compare(theory, networks)
    say("Symmetric start: theory, and the spread of finite chains beside it")
    draw_plateau(sizes, out / "plateau.png", progress)
    return report(verdicts, out, "saad_solla", say)


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_overlaps(theory: "xr.Dataset", simulation: "xr.Dataset", path: Path) -> None:
    """Specialisation: overlaps fan out, the error decays; lines theory, points and bands simulation."""
    figure, axes = sheet(3)
    figures.overlaps(theory, simulation, axes[0], name="R")
    figures.overlaps(theory, simulation, axes[1], name="Q")
    end = float(theory.t[theory.eg > 1e-8][-1])  # below, eg is no longer resolved at rtol = 1e-10
    figures.error_curve(theory.sel(t=slice(0, end)), simulation.sel(t=slice(0, end)), axes[2])
    for ax in axes[:2]:
        ax.set_xlim(0, 120)
    axes[0].set_title(f"student–teacher overlaps, d = {int(simulation.d.max())}")
    axes[1].set_title("student–student overlaps")
    axes[2].set_title("generalisation error")
    figure.savefig(path, dpi=150)


def draw_deviations(verdict: "validate.Verdict", path: Path) -> None:
    """How far the mean over runs is from the theory, against d."""
    figure, axes = sheet(1)
    figures.deviation_vs_d(verdict, axes[0])
    figure.savefig(path, dpi=150)


def draw_plateau(sizes: Sizes, path: Path, progress: bool) -> None:
    """The symmetric plateau: theory from an asymmetry of 1e-12, and chains, which leave it earlier and at scattered
    times."""
    figure, axes = sheet(3)
    for ax, K in zip(axes, (2, 3), strict=False):
        theory = problem(K, symmetric_start(K)).theory(np.linspace(0, 1200, 1201))
        figures.overlaps(theory, ax=ax, name="R")
        ax.set_title(f"K = M = {K}: theory, asymmetry 1e-12")
        axes[2].semilogy(
            theory.t,
            theory.eg.where(theory.eg > 1e-7),
            color=figures.COLOURS[K - 2],
            label=f"theory, K = {K}",
            zorder=3,
        )
    times = np.linspace(0, sizes.plateau_t, 101)
    for K in (2, 3):
        chains = problem(K, symmetric_start(K)).simulation(1000, sizes.plateau_runs, times, "gram", progress)
        lines = axes[2].semilogy(
            chains.t, chains.eg.T.where(chains.eg.T > 1e-7), color=figures.COLOURS[K - 2], alpha=0.35, lw=0.8
        )
        lines[0].set_label(f"chains of d = 1000, K = {K}")
    axes[2].set(
        xlabel="$t$ = steps/$d$", ylabel=r"$\epsilon_g$", title="finite d leaves the plateau earlier", ylim=(1e-6, 100)
    )
    axes[2].legend(loc="upper right", ncols=2)
    figure.savefig(path, dpi=150)
