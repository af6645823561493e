"""Paquette, Lee, Pedregosa & Paquette, COLT 2021: the loss of SGD on random data solves a Volterra equation.

SGD over a finite data set against the equation for the law of Marchenko and Pastur, up to the edge of stability; the
exact recursion for single data sets, from which the equation differs by 1/n; and one-pass SGD for a spectrum, where the
recursion is exact at every d. Points are simulations.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from effdyn import solve, validate
from effdyn.derive.regression import LinearRegression

from .regression import COLOURS, SEED, Case, export, labelled, points
from .report import report, sheet

if TYPE_CHECKING:
    import xarray as xr

NOISE = 0.5
RATES = {0.5: (0.4, 1.2, 3.0), 2.0: (0.2, 0.5, 0.7)}
"""Learning rates by d/n; training is stable below 2 n/d."""
SPECTRUM = {"lam": [2.0, 1.0, 0.3], "p": [0.2, 0.3, 0.5]}
SMALL = 20
"""The dimension at which the recursion is told from its limit."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are: dimensions and runs at each, runs at d = SMALL, sizes and number of data sets."""

    dims: tuple[int, ...]
    runs: int
    small_runs: int
    sets: tuple[tuple[int, int], ...]


FULL = Sizes((100, 200, 400), 400, 40_000, ((20, 160), (40, 160), (80, 80), (160, 20)))
QUICK = Sizes((40, 80, 160), 200, 4000, ((20, 40), (40, 40), (80, 20)))


def multi_pass(r: float, eta: float) -> Case:
    """Return SGD over isotropic data at d/n = r."""
    return Case(LinearRegression("multi-pass"), 1.0, {"eta": eta, "r": r, "sigma": NOISE})


ONE_PASS = Case(LinearRegression("one-pass", "general"), [0.5, 1.0, 0.7], {"eta": 0.9, "sigma": NOISE, **SPECTRUM})


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    dynamics = LinearRegression("multi-pass").dynamics()
    say(f"{dynamics}\n")
    export(dynamics, out, "sgd_volterra")
    export(ONE_PASS.model.dynamics("finite-d"), out, "one_pass")

    verdicts: dict[str, validate.Verdict] = {}
    simulations: dict[tuple[float, float], xr.Dataset] = {}
    times = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8])
    for r, eta in ((r, eta) for r, rates in RATES.items() for eta in rates):
        name = f"multi-pass, d/n = {r:g}, eta = {eta:g}"
        say(f"{name}: {sizes.runs} data sets at d = {', '.join(map(str, sizes.dims))}")
        verdicts[name], simulations[r, eta] = multi_pass(r, eta).judged(sizes.dims, sizes.runs, times, progress)
    say(f"one-pass: {sizes.small_runs} runs at d = {SMALL}")
    small = ONE_PASS.simulation(SMALL, sizes.small_runs, times, progress)
    recursion = ONE_PASS.theory(small.t.values, "finite-d", d=SMALL)
    verdicts[f"one-pass recursion, d = {SMALL}"] = validate.compare(recursion, small, bias=0.0)
    say("Exact recursions for single data sets")
    deviation = [deviation_of_sets(n, count) for n, count in sizes.sets]
    draw_loss(simulations, out / "loss.png")
    draw_finite_size(small, deviation, out / "finite_size.png")
    np.savetxt(
        out / "deviation.txt", deviation, header="n, deviation of the Volterra equation at t = 2, standard error"
    )
    return report(verdicts, out, "sgd_volterra", say)


def deviation_of_sets(n: int, count: int) -> tuple[int, float, float]:
    """Return n, the exact training loss minus that of the Volterra equation at t = 2, and its standard error.

    Both have the eigenvalues of the data set, and are averaged over the initial error and the noise.
    """
    rng = np.random.default_rng([SEED, n])
    exact = LinearRegression("multi-pass").dynamics("finite-n")
    limit = LinearRegression("multi-pass", "general")
    d, found = n // 2, []
    for _ in range(count):
        x = rng.standard_normal((n, d))
        start = {"residuals": x @ x.T / d + NOISE**2 * np.eye(n)}
        one = solve.integrate(exact, (0, 2), start, {"eta": 0.7, "gram": x @ x.T / n}, t_eval=[2.0])
        spectrum = {"lam": np.linalg.eigvalsh(x.T @ x / n), "p": np.full(d, 1 / d)}
        theory = Case(limit, spectrum["p"], {"eta": 0.7, "r": 0.5, "sigma": NOISE, **spectrum}).theory([0.0, 2.0])
        found.append(float(one.train_loss[-1] - theory.train_loss[-1]))
    return n, float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(count))


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_loss(simulations: "dict[tuple[float, float], xr.Dataset]", path: Path) -> None:
    """The training loss for learning rates up to the edge of stability."""
    figure, axes = sheet(2)
    t = np.linspace(0, 8, 161)
    for ax, (r, rates) in zip(axes, RATES.items(), strict=True):
        for eta, colour in zip(rates, COLOURS, strict=False):
            theory = multi_pass(r, eta).theory(t)
            ax.semilogy(t, theory.train_loss, color=colour, label=rf"$\eta = {eta:g}$")
            points(ax, simulations[r, eta], "train_loss", colour)
        ax.set(title=f"$d/n = {r:g}$, stable below $\\eta = {2 / r:g}$", xlabel="$t$ = steps/$n$")
        ax.set_ylabel(r"$\epsilon_t$")
        ax.legend()
    figure.savefig(path, dpi=150)


def draw_finite_size(small: "xr.Dataset", deviation: list[tuple[int, float, float]], path: Path) -> None:
    """One-pass SGD at small d: recursion, limit, simulation; and what the Volterra equation is off by, against n."""
    figure, axes = sheet(2)
    t = small.t.values
    fine = np.linspace(0, t[-1], round(t[-1] * SMALL) + 1)
    axes[0].semilogy(
        fine, ONE_PASS.theory(fine, "finite-d", d=SMALL).eg, color=COLOURS[0], label=f"recursion, $d = {SMALL}$"
    )
    axes[0].semilogy(fine, ONE_PASS.theory(fine).eg, color=COLOURS[1], ls="--", label=r"$d \to \infty$")
    points(axes[0], small, "eg", COLOURS[0], "simulation")
    axes[0].set(title="one-pass SGD, three eigenvalues", xlabel="$t$ = steps/$d$", ylabel=r"$\epsilon_g$")
    axes[0].legend()
    n, mean, error = (np.array(column) for column in zip(*deviation, strict=True))
    axes[1].errorbar(n, abs(mean), error, fmt="o", color=COLOURS[0], label="|recursion − Volterra equation|")
    axes[1].plot(n, abs(mean[0]) * n[0] / n, color=COLOURS[6], lw=1, label="$1/n$")
    axes[1].set(xscale="log", yscale="log", xlabel="$n$", ylabel=r"deviation of $\epsilon_t$ at $t = 2$")
    axes[1].set_title("multi-pass SGD, single data sets")
    labelled(axes[1], n.tolist())
    axes[1].legend()
    figure.savefig(path, dpi=150)
