"""Min, Tarmoun, Vidal & Mallada (ICML 2021): how fast two-layer linear networks learn, and where they end.

- *Rates.* From three starts the loss follows gradient flow, and gradient descent with small steps, below the envelopes
  that the imbalance of the layers promises. Every envelope must hold, at all times.
- *Width.* Networks with weights of variance h^(−2α) end at a distance from the min-norm solution that falls with h. The
  theorem has the exponent ½ − 2α for ¼ < α ≤ ½. The large-width formula has that and the other side, −α for α > ½, and
  everything between at finite h. Its mean over networks is judged, and so is the exact mean at a finite width.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from effdyn.solve.implicit_bias import BOUNDS, TwoLayerRegression, width_distance
from effdyn.solve.implicit_bias.flow import excess_along_flow
from effdyn.validate import figures

from .report import report, sheet
from .wide_networks import Task, exact_means, judged, mean_and_error, task, train_many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = 2021
INPUTS = (1.2, 1.0, 0.9)
SOLUTION = (5.0, 3.0)
"""Singular values of the inputs, and of the min-norm solution."""
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.75)
SMALLEST = 1e-10
"""Of the loss, per unit of the initial one, down to which it is followed."""
SLACK = 1e-4
"""ln of the loss is known to about rtol·‖Ỹ‖/‖E‖ = 1e-11/1e-5, and 100 times that along the flow."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are.

    Attributes
    ----------
    D : int
        Input dimension.
    widths : tuple of int
    runs : int
        Networks at each width and exponent.
    """

    D: int
    widths: tuple[int, ...]
    runs: int


FULL = Sizes(D=43, widths=(64, 256, 1024, 4096, 16384), runs=256)
QUICK = Sizes(D=43, widths=(64, 256, 1024, 4096), runs=64)


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Follow losses, train wide networks, compare, draw and typeset into ``out``; return whether everything held."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    on = task(sizes.D, INPUTS, SOLUTION, SEED)

    problems = starts(on)
    losses = {name: followed(problem) for name, problem in problems.items()}
    held = report_bounds(problems, losses, out, say)
    draw_losses(problems, losses, out / "rates.png")

    say(f"{sizes.runs} networks at each of the widths {', '.join(map(str, sizes.widths))}")
    measured = train_many(on, sizes.widths, ALPHAS, sizes.runs, SEED, progress)
    measured.to_netcdf(out / "networks.nc")
    expected = formula(on, sizes.widths, ALPHAS)
    narrow = measured.isel(width=[0])
    exact = exact_means(on, sizes.widths[0], ALPHAS, sizes.runs, SEED)
    verdicts = {
        "distance, h to infinity": judged(measured.squared_distance, expected, "ratio"),
        f"distance, exact at h = {sizes.widths[0]}": judged(narrow.squared_distance, exact, "ratio", bias=0.0),
    }
    draw_width(on, measured, out / "width.png")
    write_article(problems, out / "min_implicit_bias.tex")
    return report(verdicts, out, "min_implicit_bias", say) and held


# -- rates --


def starts(on: Task) -> dict[str, TwoLayerRegression]:
    """Return problems with layers that are unequal in different ways."""
    rng = np.random.default_rng(SEED)
    D, m = len(on.data.seen), on.data.target.shape[1]

    def random(h: int, first: float, second: float) -> TwoLayerRegression:
        U, V = first * rng.standard_normal((D, h)), second * rng.standard_normal((m, h))
        return TwoLayerRegression(on.X, on.Y, U, V)

    return {
        "larger first layer": random(6, 1.0, 0.1),
        "wide and random, $h = 400$": random(400, 400**-0.4, 400**-0.4),
        "balanced, near the solution": near_the_solution(on, 0.05, rng),
    }


def near_the_solution(on: Task, error: float, rng: np.random.Generator) -> TwoLayerRegression:
    """Return layers of equal size, U_1ᵀU_1 = VᵀV, whose product misses the modes of the solution by a part ``error``.

    Inputs are projected on the directions of the modes, so that r = m: else σ_r(Ỹ) = 0 and half of the bracket is idle.
    """
    left, sigma, right = np.linalg.svd(on.data.solution, full_matrices=False)
    rows = np.linalg.qr(rng.standard_normal((3, sigma.size)))[0].T  # two directions of three hidden units
    half = np.sqrt(sigma * (1 + error * rng.choice([-1.0, 1.0], sigma.size)))[:, None] * rows
    seen = on.data.seen @ left
    return TwoLayerRegression(on.X @ seen @ seen.T, on.Y, seen @ half, right.T @ half)


def followed(problem: TwoLayerRegression) -> xr.Dataset:
    """Return L − L* along gradient flow, and along gradient descent with small steps, at the same times."""
    eta = 0.01 / fastest(problem)
    descent = list(gradient_descent(problem, eta))
    steps = np.unique(np.round(np.linspace(0, len(descent) - 1, 400)).astype(int))
    t = eta * steps
    return xr.Dataset(
        {"flow": ("t", excess_along_flow(problem, t)), "descent": ("t", np.array(descent)[steps])},
        coords={"t": ("t", t, {"long_name": "eta * steps, loss summed over samples"})},
        attrs={"eta": eta},
    )


def fastest(problem: TwoLayerRegression) -> float:
    """Return a bound on the rates at which modes of the loss decay, with weights of the initial size."""
    size = np.linalg.norm(problem.U1, 2) ** 2 + np.linalg.norm(problem.V, 2) ** 2
    return 2 * float(problem.data.eigenvalues[0] * (size + 2 * np.linalg.norm(problem.data.solution, 2)))


def gradient_descent(problem: TwoLayerRegression, eta: float, most: int = 200_000) -> "list[float]":
    """Return L − L* after each step of gradient descent on all weights, until it is small."""
    X, Y, U, V = problem.X, problem.Y, problem.U, problem.V
    found = [problem.excess]
    while found[-1] > SMALLEST * found[0] and len(found) < most:
        rest = Y - X @ U @ V.T
        U, V = U + eta * X.T @ rest @ V, V + eta * rest.T @ X @ U
        found.append(0.5 * float((problem.residual(U, V) ** 2).sum()))
    return found


def report_bounds(
    problems: Mapping[str, TwoLayerRegression],
    losses: Mapping[str, xr.Dataset],
    out: Path,
    say: Callable[[str], Any],
) -> bool:
    """Say and keep how each bound compares with the loss; return whether all hold."""
    rows = []
    for name, problem in problems.items():
        losses[name].to_netcdf(out / f"loss_{list(problems).index(name) + 1}.nc")
        flow = losses[name].flow
        for key in BOUNDS:
            bound = problem.bound(key)
            over = np.log(flow.values / bound.envelope(flow.t.values))
            rows.append({
                "start": name.replace("$", ""), "bound": key, "rate": float(bound.rate),
                "rate at first": float(problem.decay_rate()), "largest ln(loss/bound)": float(over.max()),
                "holds": bool(over.max() <= SLACK),
            })  # fmt: skip
    (out / "bounds.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        rates = f"rate {row['rate']:8.4f}, at first {row['rate at first']:8.4f}"
        say(f"{row['start']:<30} {row['bound']:<9} {rates}  {'holds' if row['holds'] else 'VIOLATED'}")
    return all(row["holds"] for row in rows)


# -- width --


def formula(on: Task, widths: Sequence[int], alphas: Sequence[float]) -> xr.DataArray:
    """Return the large-width mean square distance, dims (width, alpha)."""
    values = width_distance(on.X, on.Y, np.array(widths)[:, None], np.array(alphas)) ** 2
    return xr.DataArray(values, dims=("width", "alpha"), coords={"width": list(widths), "alpha": list(alphas)})


def slopes(squares: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope of ln rms against ln h for each exponent, by least squares, and its standard error over runs."""
    mean, error = mean_and_error(squares)
    weight = _slope_weights(squares.width.values)
    slope = weight @ np.log(mean.transpose("width", "alpha").values) / 2
    return slope, np.sqrt(weight**2 @ (error / mean / 2).transpose("width", "alpha").values ** 2)


def slopes_of_formula(on: Task, widths: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Return the same slopes of the large-width formula."""
    return np.asarray(_slope_weights(widths) @ np.log(width_distance(on.X, on.Y, widths[:, None], alphas)))


def _slope_weights(widths: np.ndarray) -> np.ndarray:
    x = np.log(widths.astype(float))
    return np.asarray((x - x.mean()) / ((x - x.mean()) ** 2).sum())


# -- figures and article --


def draw_losses(problems: Mapping[str, TwoLayerRegression], losses: Mapping[str, xr.Dataset], path: Path) -> None:
    """Draw each loss below the envelopes that are promised for it."""
    figure, axes = sheet(len(problems))
    for ax, (name, problem) in zip(axes, problems.items(), strict=True):
        loss = losses[name]
        t, start = loss.t.values, problem.excess
        ax.semilogy(t, loss.flow / start, color="black", label="gradient flow", zorder=3)
        some = loss.isel(t=slice(None, None, 25))
        ax.semilogy(some.t, some.descent / start, "o", ms=3.6, mfc="white", color="black", label="gradient descent")
        for (key, dash), colour in zip(ENVELOPES.items(), figures.COLOURS, strict=False):
            bound = problem.bound(key)
            ax.semilogy(
                t, bound.envelope(t) / start, color=colour, ls=dash, label=f"{key}: rate {bound.rate + 0.0:.2f}"
            )
        ax.set(title=name, xlabel=r"$t = \eta\,$steps", ylabel="$(L - L^*)/(L(0) - L^*)$", ylim=(SMALLEST, 4))
        ax.legend(loc="lower left", fontsize="small", handlelength=2.8, frameon=False)
    figure.savefig(path, dpi=150)


ENVELOPES: dict[str, Any] = {"v1": (0, (5, 2)), "v2": "-", "mvm-2023": (0, (1.2, 1.4))}


def draw_width(on: Task, measured: xr.Dataset, path: Path) -> None:
    """Draw the distance against the width, its exponent against that of the initial scale, and what is not lazy or
    rich."""
    figure, axes = sheet(3)
    _draw_distances(axes[0], on, measured)
    widths = measured.width.values
    alpha = np.linspace(0.26, 0.8, 200)
    slope, error = slopes(measured.squared_distance)
    at = measured.alpha.values
    fitted = slopes_of_formula(on, widths, alpha)
    for ax, base in ((axes[1], np.zeros_like), (axes[2], asymptotic)):
        ax.plot(
            alpha, fitted - base(alpha), color=figures.COLOURS[0], label=f"formula, $h$ = {widths[0]} to {widths[-1]}"
        )
        ax.plot(
            alpha, asymptotic(alpha) - base(alpha), ls=":", color="0.3", label=r"$\frac{1}{2} - 2\alpha$ and $-\alpha$"
        )
        ax.errorbar(
            at, slope - base(at), error, fmt="o", ms=4.2, color="black", mfc="white", capsize=2, zorder=4,
            label="networks",
        )  # fmt: skip
        ax.set(xlabel=r"$\alpha$ (initial weights of variance $h^{-2\alpha}$)")
    axes[1].set(ylabel=r"$\mathrm{d}\,\ln\,$rms / $\mathrm{d}\,\ln\,h$", title="its exponent")
    axes[2].set(ylabel="exponent − asymptotic one", title="between lazy and rich, at these widths", ylim=(-0.1, 0.1))
    axes[1].legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=150)


def asymptotic(alpha: np.ndarray) -> np.ndarray:
    """Return the exponent as h → ∞: ½ − 2α up to α = ½, the theorem's, and −α beyond."""
    return np.where(alpha <= 0.5, 0.5 - 2 * alpha, -alpha)


def _draw_distances(ax: "Axes", on: Task, measured: xr.Dataset) -> None:
    mean, error = mean_and_error(measured.squared_distance)
    widths = measured.width.values
    line = np.geomspace(widths[0] / 1.5, widths[-1] * 1.5, 100)
    for colour, alpha in zip(figures.COLOURS, measured.alpha.values, strict=False):
        ax.loglog(line, width_distance(on.X, on.Y, line, alpha), color=colour, label=rf"$\alpha = {alpha:g}$")
        rms = np.sqrt(mean.sel(alpha=alpha).values)
        bar = error.sel(alpha=alpha).values / (2 * rms)
        ax.errorbar(widths, rms, bar, fmt="o", ms=3.8, color=colour, mfc="white", elinewidth=1, capsize=2, zorder=3)
    ax.set(xlabel="hidden units $h$", ylabel=r"rms $\|UV^{\mathsf{T}} - X^+Y\|_F$ after training")
    ax.set_title("distance from the min-norm solution")
    ax.legend(loc="lower left", frameon=False)


def write_article(problems: Mapping[str, TwoLayerRegression], path: Path) -> None:
    """Write setting, bounds and width formula as LaTeX."""
    first = next(iter(problems.values()))
    bounds = "\n".join(
        rf"\paragraph{{{name}.}} {_escaped(rule.source)}." + "\n" + first.bound(name).latex()
        for name, rule in BOUNDS.items()
    )
    path.write_text(ARTICLE.replace("BOUNDS", bounds), encoding="utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", r"\&").replace("γ", r"$\gamma$")


ARTICLE = r"""\documentclass[11pt,a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,amssymb,graphicx}
\usepackage[margin=25mm]{geometry}
\title{Two-layer linear regression: rates and width}
\date{}
\begin{document}
\maketitle
\section*{Setting}
Gradient flow on $L = \frac12\|Y - XUV^{\mathsf T}\|_F^2$, the sum over samples, with
$X = W[\Sigma^{1/2}\ 0][\Phi_1\ \Phi_2]^{\mathsf T}$, $U_i = \Phi_i^{\mathsf T}U$, $\tilde Y = W^{\mathsf T}Y$ and
$E = \tilde Y - \Sigma^{1/2}U_1V^{\mathsf T}$:
\[
\dot U_1 = \Sigma^{1/2}EV,\qquad \dot V = E^{\mathsf T}\Sigma^{1/2}U_1,\qquad \dot U_2 = 0,\qquad
\Lambda = U_1^{\mathsf T}U_1 - V^{\mathsf T}V = \mathrm{const}.
\]
\section*{Bounds on the loss}
The rates are those of the first start in the figure.
BOUNDS
\begin{figure}[h!]\includegraphics[width=\textwidth]{rates.png}\end{figure}
\section*{Distance from the min-norm solution}
Weights are independent, of variance $h^{-2\alpha}$; $\kappa = h^{1-2\alpha}$; $\sigma_i$ are the singular values of
$X^+Y$. Exactly, and as $h\to\infty$,
\begin{gather*}
\mathbb E\bigl[\|U_\infty V_\infty^{\mathsf T} - X^+Y\|_F^2 \bigm| U_1, V\bigr]
 = (D-r)\,h^{-2\alpha}\,\mathrm{tr}\,V_\infty V_\infty^{\mathsf T}, \\
\mathbb E\,\|U_\infty V_\infty^{\mathsf T} - X^+Y\|_F^2
 \simeq (D-r)\,h^{-2\alpha}\sum_{i=1}^m\sqrt{\kappa^2+\sigma_i^2}\,.
\end{gather*}
\begin{figure}[h!]\includegraphics[width=\textwidth]{width.png}\end{figure}
\end{document}
"""
