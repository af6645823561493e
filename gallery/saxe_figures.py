"""Figures of deep linear networks that learn a hierarchy: lines are theory, points are gradient descent."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from effdyn.validate import figures

from .report import sheet
from .saxe_networks import (
    DEEP_START,
    IMBALANCE,
    ITEMS,
    MODES,
    PROPERTIES,
    START,
    WIDTH,
    Case,
    balanced_case,
    escape_time,
    half_learning_time,
    scalar_chain,
    starts,
    strengths,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLOCK = r"$t = \eta\,$steps"
STAGES = (1.2, 1.8, 2.4, 3.4, 8.0)
"""Times during the stages of learning, and the end."""
DEPTHS = {2: "", 3: r"$s_0^{-1/3}/c$", 4: r"$s_0^{-1/2}/2c$"}
"""Numbers of layers that are compared, and the leading order of their times to escape."""
DOTS: dict[str, Any] = {"mfc": "white", "ms": 3.8, "ls": "", "zorder": 3}
STEP = 0.02
"""Of gradient descent on a single mode."""


# -- aligned layers --


def draw_modes(cases: Mapping[str, Case], simulations: Mapping[str, xr.Dataset], path: Path) -> None:
    """Strengths of balanced and unbalanced modes, and when each is learnt."""
    figure, axes = sheet(3)
    _draw_strengths(axes[0], cases["balanced layers"], simulations["balanced layers"], 6.0, slice(0, None, 2))
    axes[0].set_title(f"balanced layers, $s(0) = {START:g}$")
    unbalanced = "unbalanced layers"
    _draw_strengths(axes[1], cases[unbalanced], simulations[unbalanced], 3.0, slice(0, None, 2))
    other = simulations["unbalanced the other way"]
    _draw_points(axes[1], other.isel(t=slice(1, None, 2)).sel(t=slice(0, 3)), "^")
    axes[1].set_title(rf"unbalanced, $\lambda = {IMBALANCE}$ (○) and $-{IMBALANCE}$ (△)")
    _draw_half_times(axes[2], cases["balanced layers"], simulations["balanced layers"])
    figure.savefig(path, dpi=150)


def _draw_strengths(ax: "Axes", case: Case, simulation: xr.Dataset, end: float, some: slice) -> None:
    """Draw the strengths of all modes: theory in closed form, gradient descent with the smallest steps as points."""
    fine = np.linspace(0, end, 400)
    theory = case.closed(fine).s
    for mode, name in enumerate(MODES):
        ax.plot(fine, theory[:, mode], color=figures.COLOURS[mode], label=name)
    _draw_points(ax, simulation.isel(t=some).sel(t=slice(0, end)), "o")
    ax.set(xlabel=CLOCK, ylabel="mode strength $s$", ylim=(-0.1, 4.1))
    ax.legend(loc="upper left", ncols=2, frameon=False, title="closed form (○: gradient descent)")


def _draw_points(ax: "Axes", simulation: xr.Dataset, marker: str) -> None:
    finest = simulation.sel(eta=simulation.eta.min()).isel(run=0)
    for mode in range(finest.sizes["mode"]):
        ax.plot(finest.t, finest.s.isel(mode=mode), marker, color=figures.COLOURS[mode], **DOTS)


def _draw_half_times(ax: "Axes", balanced: Case, simulation: xr.Dataset) -> None:
    line = np.linspace(0.9, 3, 100)
    singular = np.linalg.svd(balanced.table, compute_uv=False)
    later = balanced_case(balanced.table, START / 100).descend(STEP / 4, np.arange(0, 8, 0.1)).isel(run=0)
    both = {START: simulation.sel(eta=simulation.eta.min()).isel(run=0), START / 100: later}
    for (start, found), colour in zip(both.items(), ("black", "0.55"), strict=True):
        label = rf"$\ln(c/s_0 - 1)/2c$, $s_0 = 10^{{{round(np.log10(start))}}}$"
        ax.plot(line, [half_learning_time(2, c, start) for c in line], color=colour, label=label)
        ax.plot(singular, half_times(found, singular), "o", color=colour, label="gradient descent", **DOTS)
    ax.set(xlabel="singular value $c$ of the mode", ylabel=r"time to half strength ($\eta\,$steps)")
    ax.set_title("stronger modes are learnt first")
    ax.legend(loc="upper right", frameon=False)


def half_times(run: xr.Dataset, c: np.ndarray) -> np.ndarray:
    """Return when a run has each mode at half of its singular value."""
    return np.array([np.interp(0.5, run.s.isel(mode=mode) / c[mode], run.t) for mode in range(len(c))])


def draw_stages(case: Case, eta: float, path: Path) -> None:
    """What the network says of each item, during the stages of learning."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    seen = case.descend(eta, STAGES, reduction="full").isel(run=0)
    with mpl.rc_context(figures.STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        axes = figure.subplots(1, len(STAGES), sharey=True)
        for ax, t in zip(axes, seen.t.values, strict=True):
            image = ax.imshow(seen.W.sel(t=t), vmin=0, vmax=1, cmap="cividis", aspect="auto")
            ax.set_xticks(range(len(ITEMS)), ITEMS, rotation=60)
            ax.tick_params(length=0)
            ax.set_title(f"$t = {t:.3g}$")
        axes[0].set_yticks(range(len(PROPERTIES)), list(PROPERTIES))
        figure.colorbar(image, ax=axes, label="output of the network", shrink=0.9)
        figure.supxlabel(f"balanced layers, gradient descent, {CLOCK}", fontsize="medium")
        figure.savefig(path, dpi=150)


# -- depth --


def draw_depth(cases: Mapping[str, Case], simulations: Mapping[str, xr.Dataset], points: int, path: Path) -> None:
    """Deeper networks: longer plateaus, then faster transitions; the time to escape against the start."""
    figure, axes = sheet(3)
    _draw_strengths(axes[0], cases["three layers"], simulations["three layers"], 6.0, slice(0, None, 2))
    axes[0].set_title(f"three layers, balanced, $s(0) = {DEEP_START:g}$")
    _draw_depths(axes[1])
    _draw_escape(axes[2], points)
    figure.savefig(path, dpi=150)


def _draw_depths(ax: "Axes", start: float = 1e-3) -> None:
    for depth, colour in zip(DEPTHS, figures.COLOURS, strict=False):
        case = scalar_chain(depth, start)
        half = half_learning_time(depth, 1.0, start)
        fine = np.linspace(0, half + 4, 400)
        ax.plot(fine, case.closed(fine).s[:, 0], color=colour, label=f"{depth} layers")
        run = case.descend(STEP, np.linspace(0, half + 4, 33)).isel(run=0)
        ax.plot(run.t, run.s[:, 0], "o", color=colour, **DOTS)
        ax.axvline(half, ymax=0.39, color=colour, lw=0.8, ls=":")
    ax.set(xlabel=CLOCK, ylabel="$s$", title="one mode, $c = 1$, $s(0) = 0.001$", ylim=(-0.03, 1.35))
    ax.legend(loc="upper left", ncols=3, columnspacing=1.0, frameon=False)


def _draw_escape(ax: "Axes", points: int) -> None:
    line = np.geomspace(5e-6, 2e-2, 60)
    for (depth, leading), colour in zip(DEPTHS.items(), figures.COLOURS, strict=False):
        exact = [half_learning_time(depth, 1.0, start) for start in line]
        ax.loglog(line, exact, color=colour, label=f"{depth} layers, closed form")
        if leading:
            ax.loglog(line, [escape_time(depth, 1.0, s) for s in line], color=colour, ls="--", lw=1, label=leading)
        some = np.geomspace(1e-5, 1e-2, points)
        ax.loglog(some, [measured_escape(depth, start) for start in some], "o", color=colour, **DOTS)
    ax.set(xlabel="initial strength $s_0$", ylabel=r"time to half strength ($\eta\,$steps)", ylim=(1.5, 3000))
    ax.set_title("plateaus: powers instead of a logarithm")
    ax.legend(loc="upper right", ncols=2, columnspacing=1.0, handlelength=1.4, frameon=False)


def measured_escape(depth: int, start: float) -> float:
    """Return when gradient descent on a balanced chain of weights has learnt half of the number 1."""
    end = 1.2 * half_learning_time(depth, 1.0, start)
    run = scalar_chain(depth, start).descend(STEP, np.arange(0, end, 5 * STEP)).isel(run=0)
    return float(half_times(run, np.ones(1))[0])


# -- random layers --


def draw_random(alone: Case, simulation: xr.Dataset, found: xr.Dataset, path: Path) -> None:
    """Random layers: one network beside the closed form, and errors of the closed form against the initial scale."""
    figure, axes = sheet(3)
    _draw_one_network(axes[0], alone, simulation)
    c = np.linalg.svd(alone.table, compute_uv=False)
    slowest = 1 - float((c[1:] / c[:-1]).max())
    _draw_against_scale(axes[1], found.misalignment, "black", f"networks, $h = {WIDTH}$", slowest, "1 - c_3/c_2")
    _draw_against_scale(axes[2], found.own, "0.55", "each mode's own start", 0.0, "")
    label, power = "orthogonal to modes before", "2(1 - c_3/c_2)"
    _draw_against_scale(axes[2], found.orthogonal, "black", label, 2 * slowest, power)
    axes[1].set(ylabel=r"largest $|u_\alpha^{\mathsf{T}} W v_\beta|$, $\alpha \neq \beta$, over $c_1$")
    axes[1].set_title("mixed strengths: less from smaller weights")
    axes[2].set(ylabel="largest error of the closed form, over $c$", title="closed form, from two starts")
    axes[2].set_ylim(top=2.0)
    for ax in axes[1:]:
        ax.set_xlabel(r"initial scale $\epsilon$ (weights of variance $\epsilon^2/h$)")
        ax.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=150)


def _draw_against_scale(ax: "Axes", values: xr.DataArray, colour: str, label: str, power: float, formula: str) -> None:
    """Draw the mean over networks with its standard error, and a power through the one at the smallest scale."""
    mean, error = values.mean("run"), values.std("run", ddof=1) / np.sqrt(values.sizes["run"])
    ax.errorbar(mean.scale, mean, error, fmt="o", label=label, color=colour, mfc="white", ms=4.5, capsize=2)
    least = mean.sel(scale=mean.scale.min())
    text = rf"$\propto \epsilon^{{{formula}}}$" if formula else None
    ax.loglog(mean.scale, least * (mean.scale / mean.scale.min()) ** power, color=colour, lw=1, ls="--", label=text)


def _draw_one_network(ax: "Axes", alone: Case, simulation: xr.Dataset) -> None:
    run = simulation.sel(eta=simulation.eta.min()).isel(run=0, t=slice(0, None, 2)).sel(t=slice(0, 6))
    left, c, right = np.linalg.svd(alone.table, full_matrices=False)
    measured = np.einsum("tia,ji,aj->tj", run.S.values, right, left)
    fine = np.linspace(0, 6, 400)
    own, orthogonal = (strengths(2, fine, {"s": s}, {"c": c, "lam": 0 * c})["s"] for s in starts(alone))
    for mode, colour in zip(range(len(c)), figures.COLOURS, strict=False):
        ax.plot(run.t, measured[:, mode], "o", color=colour, **DOTS)
        ax.plot(fine, own[:, mode], color=colour, lw=1, ls=":")
        ax.plot(fine, orthogonal[:, mode], color=colour)
    ax.plot([], [], "o", color="black", label="gradient descent", **DOTS)
    ax.plot([], [], color="black", label="closed form, orthogonal starts")
    ax.plot([], [], color="black", lw=1, ls=":", label="closed form, own starts")
    ax.set(xlabel=CLOCK, ylabel=r"$u_\alpha^{\mathsf{T}} W v_\alpha$", title=r"one random network, $\epsilon = 0.1$")
    ax.set_ylim(-0.1, 4.4)
    ax.legend(loc="upper left", frameon=False)
