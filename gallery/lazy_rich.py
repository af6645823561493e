r"""From lazy to rich: one number, κ = h^(1−2α) over the singular values of what is learned, says which.

Two-layer linear networks with weights of variance h^(−2α) start, as h → ∞, with U_1U_1ᵀ = VVᵀ = κ, and end with the
singular values √(κ² + σ_i²) of the kernel in the place of κ. Two things follow, for all widths and exponents at once:

- the part U_1U_1ᵀ of the tangent kernel grows along mode i by √(1 + σ_i²/κ²) − 1 of itself: lazy training (κ ≫ σ)
  leaves it as it is, rich training makes it σ_i;
- the distance from the min-norm solution is √((D − r) h^(−2α) Σ_i √(κ² + σ_i²)), with m κ in place of the sum where
  training is lazy, and with Σσ_i, the nuclear norm of the solution, where it is rich.

At finite h means are off by O(1/h), which shows where the kernel changes by no more than that: lazily, at small h.

Source: H. Min, S. Tarmoun, R. Vidal & E. Mallada, ICML 2021, has the lazy side of the distance as a bound.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from effdyn.solve.implicit_bias import crossover_width, width_distance
from effdyn.validate import figures

from .report import report, sheet
from .wide_networks import Task, judged, mean_and_error, task, train_many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = 1998
INPUTS = (1.2, 1.0, 0.9)
SOLUTION = (4.0, 0.5)
"""Singular values of the inputs, and of the min-norm solution."""
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
MARKERS = "os^Dv"


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


FULL = Sizes(D=43, widths=(64, 512, 4096, 16384), runs=256)
QUICK = Sizes(D=43, widths=(64, 512, 4096), runs=64)


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Train wide networks, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    on = task(sizes.D, INPUTS, SOLUTION, SEED)
    say(f"{sizes.runs} networks at each of the widths {', '.join(map(str, sizes.widths))}")
    measured = train_many(on, sizes.widths, ALPHAS, sizes.runs, SEED, progress)
    measured.to_netcdf(out / "networks.nc")
    kappa = scale(measured)
    verdicts = {
        "kernel after training": judged(measured.end, np.hypot(kappa, measured.sigma), "kernel"),
        "distance from the min-norm solution": judged(measured.squared_distance, squared(on, measured), "distance"),
    }
    draw(on, measured, out / "lazy_rich.png")
    (out / "lazy_rich.tex").write_text(ARTICLE, encoding="utf-8")
    return report(verdicts, out, "lazy_rich", say)


def scale(measured: xr.Dataset) -> xr.DataArray:
    """Return κ = h^(1−2α), dims (width, alpha)."""
    return measured.width ** (1 - 2 * measured.alpha)


def squared(on: Task, measured: xr.Dataset) -> xr.DataArray:
    """Return the large-width mean square distance, dims (width, alpha)."""
    kappa = scale(measured)
    values = width_distance(on.X, on.Y, measured.width.values[:, None], measured.alpha.values) ** 2
    return kappa.copy(data=values)


def kernel_change(measured: xr.Dataset) -> xr.DataArray:
    """Return the change of u_iᵀU_1U_1ᵀu_i over κ: the relative change of that part of the tangent kernel."""
    return (measured.end - measured.start) / scale(measured)


# -- figures and article --


def draw(on: Task, measured: xr.Dataset, path: Path) -> None:
    """Draw the change of the kernel, the distance on one curve, and the widths between lazy and rich."""
    figure, axes = sheet(3)
    _draw_kernel(axes[0], measured)
    _draw_distance(axes[1], on, measured)
    _draw_crossover(axes[2], on, measured)
    figure.savefig(path, dpi=150)


def _draw_kernel(ax: "Axes", measured: xr.Dataset) -> None:
    mean, error = mean_and_error(kernel_change(measured))
    ratio = scale(measured) / measured.sigma
    x = np.geomspace(float(ratio.min()) / 2, float(ratio.max()) * 2, 200)
    ax.loglog(x, np.hypot(1, 1 / x) - 1, color="black", label=r"$\sqrt{1 + \sigma_i^2/\kappa^2} - 1$")
    ax.loglog(x[x > 0.4], 0.5 * x[x > 0.4] ** -2, ls=":", color="0.4", label=r"lazy: $\sigma_i^2/2\kappa^2$")
    ax.loglog(x[x < 2], 1 / x[x < 2], ls="--", color="0.4", label=r"rich: $\sigma_i/\kappa$")
    for mode in range(measured.sizes["mode"]):
        points = {"mean": mean.isel(mode=mode), "error": error.isel(mode=mode), "x": ratio.isel(mode=mode)}
        _points(ax, points, figures.COLOURS[mode], rf"networks, $\sigma_{mode + 1} = {measured.sigma.values[mode]:g}$")
    ax.set(
        xlabel=r"$\kappa/\sigma_i$,  $\kappa = h^{1-2\alpha}$",
        ylabel=r"change of $u_i^{\mathsf{T}}U_1U_1^{\mathsf{T}}u_i$ / $\kappa$",
    )
    ax.set_title("tangent kernel: relative change")
    ax.legend(loc="lower left", frameon=False)


def _draw_distance(ax: "Axes", on: Task, measured: xr.Dataset) -> None:
    kappa = scale(measured)
    unit = on.data.unseen.shape[1] * measured.width ** (-2 * measured.alpha)
    mean, error = mean_and_error(measured.squared_distance / unit)
    sigma = measured.sigma.values
    x = np.geomspace(float(kappa.min()) / 2, float(kappa.max()) * 2, 200)
    ax.loglog(x, np.hypot(x[:, None], sigma).sum(1), color="black", label=r"$\sum_i\,\sqrt{\kappa^2 + \sigma_i^2}$")
    lazy = x[x > 0.5]
    ax.loglog(lazy, sigma.size * lazy, ls=":", color="0.4", label=r"lazy: $m\,\kappa$")
    rich = x[x < 10]
    ax.loglog(rich, np.full_like(rich, sigma.sum()), ls="--", color="0.4", label=r"rich: $\sum_i\,\sigma_i$")
    for n, width in enumerate(measured.width.values):
        points = {"mean": mean.isel(width=n), "error": error.isel(width=n), "x": kappa.isel(width=n)}
        _points(ax, points, figures.COLOURS[n], f"networks, $h = {width}$", MARKERS[n % len(MARKERS)])
    ax.set(xlabel=r"$\kappa = h^{1-2\alpha}$", ylabel=r"mean $\|UV^{\mathsf{T}} - X^+Y\|_F^2\; h^{2\alpha}/(D - r)$")
    ax.set_title("distance from the min-norm solution")
    ax.legend(loc="upper left", frameon=False)


def _draw_crossover(ax: "Axes", on: Task, measured: xr.Dataset) -> None:
    limits = (2.0, 1e8)
    for side, alphas in (("lazy", np.linspace(0.2, 0.499, 300)), ("rich", np.linspace(0.501, 1.0, 300))):
        widths = crossover_width(on.X, on.Y, alphas)
        for mode, colour in zip(range(widths.shape[-1]), figures.COLOURS, strict=False):
            label = rf"$\kappa = \sigma_{mode + 1} = {measured.sigma.values[mode]:g}$" if side == "lazy" else None
            inside = (widths[:, mode] >= limits[0]) & (widths[:, mode] <= limits[1])
            ax.semilogy(alphas[inside], widths[inside, mode], color=colour, label=label)
    h, alpha = np.broadcast_arrays(measured.width.values[:, None], measured.alpha.values)
    ax.semilogy(alpha.ravel(), h.ravel(), "o", ms=3.6, mfc="white", color="black", label="networks")
    ax.axvline(0.5, ls=":", color="0.4")
    ax.text(0.27, 2e7, "lazy", fontsize="large", ha="center")
    ax.text(0.8, 2e7, "rich", fontsize="large", ha="center")
    ax.set(
        xlabel=r"$\alpha$ (initial weights of variance $h^{-2\alpha}$)",
        ylabel="hidden units $h$",
        ylim=limits,
        xlim=(0.2, 1),
    )
    ax.set_title("where one becomes the other")
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.88), frameon=False)


def _points(ax: "Axes", points: Mapping[str, xr.DataArray], colour: str, label: str, marker: str = "o") -> None:
    x, mean, error = (np.ravel(points[key].transpose(*points["x"].dims).values) for key in ("x", "mean", "error"))
    clear = mean > 2 * error  # an error bar that reaches zero has no place on a logarithmic axis
    style: dict[str, Any] = {"fmt": marker, "ms": 4, "color": colour, "mfc": "white", "elinewidth": 1, "capsize": 2}
    ax.errorbar(x[clear], mean[clear], error[clear], label=label, zorder=3, **style)


ARTICLE = r"""\documentclass[11pt,a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,amssymb,graphicx}
\usepackage[margin=25mm]{geometry}
\title{Two-layer linear networks: from lazy to rich}
\date{}
\begin{document}
\maketitle
Gradient flow on $L = \frac12\|Y - XUV^{\mathsf T}\|_F^2$ from independent weights of variance $h^{-2\alpha}$. In the
singular basis of $X = W[\Sigma^{1/2}\ 0][\Phi_1\ \Phi_2]^{\mathsf T}$, with $U_i = \Phi_i^{\mathsf T}U$, let
\[
G = \begin{pmatrix} P & S \\ S^{\mathsf T} & R \end{pmatrix}
  = \begin{pmatrix} U_1 \\ V \end{pmatrix}\begin{pmatrix} U_1 \\ V \end{pmatrix}^{\mathsf T},\qquad
J = \begin{pmatrix} 1 & 0 \\ 0 & -1 \end{pmatrix}.
\]
As $h\to\infty$, $G(0) = \kappa$ with $\kappa = h^{1-2\alpha}$. The flow $\dot G = NG + GN$ moves $JG$ by similarity
transformations, so that $(JG)^2 = \kappa^2$ at all times, and
\[
P = \sqrt{\kappa^2 + SS^{\mathsf T}},\qquad R = \sqrt{\kappa^2 + S^{\mathsf T}S}.
\]
In the end $S$ is the min-norm solution in the basis $\Phi_1$, with singular values $\sigma_i$ and left singular vectors
$u_i$. Hence
\begin{gather*}
\frac{u_i^{\mathsf T}(P_\infty - P_0)u_i}{\kappa} = \sqrt{1 + \frac{\sigma_i^2}{\kappa^2}} - 1, \\
\mathbb E\,\|U_\infty V_\infty^{\mathsf T} - X^+Y\|_F^2
 \simeq (D-r)\,h^{-2\alpha}\sum_{i=1}^m\sqrt{\kappa^2+\sigma_i^2}\,.
\end{gather*}
\begin{figure}[h!]\includegraphics[width=\textwidth]{lazy_rich.png}\end{figure}
\end{document}
"""
