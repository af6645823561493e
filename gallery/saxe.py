r"""Saxe, McClelland & Ganguli (ICLR 2014): a deep linear network learns a hierarchy, one singular mode after another.

Four items, two animals and two plants, have nine properties. The modes of this table say what all items share, what
tells animals from plants, bird from fish, and tree from flower; this is the order in which they are learnt.

- *Aligned layers.* Strengths of modes follow the closed form: sigmoids for balanced layers, faster and less abrupt for
  unbalanced ones, after longer plateaus in deeper networks. Gradient descent with several steps, taken to vanishing
  steps, is judged against the closed form and against the integrated equations.
- *Random layers.* What is exact for them is the Gram closure, and it is judged. The closed form of modes is an
  approximation: modes interact until layers are aligned. How far it is off is measured and reported, not judged. It
  falls with the initial scale ε if each mode starts from the part of its initial weights that is orthogonal to those of
  modes learnt before; else delays remain, however small ε is.

Of the paper's example two items have one property more here, so that no two modes are equally strong: equal ones never
come apart.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from effdyn import derive, validate

from .problem import export
from .report import report
from .saxe_figures import draw_depth, draw_modes, draw_random, draw_stages
from .saxe_networks import SEED, Case, aligned_cases, hierarchy, random_case, solved, starts, strengths

TIMES = np.linspace(0, 8, 81)
"""At which gradient descent is judged and drawn."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How fine the simulations are.

    Attributes
    ----------
    steps : tuple of float
        Sizes η of the steps of gradient descent that are judged together.
    draws : int
        Random networks at each initial scale.
    scales : tuple of float
        Initial scales ε: weights have variance ε²/h.
    starts : int
        Initial strengths between 1e-5 and 1e-2 from which times to escape are measured.
    """

    steps: tuple[float, ...]
    draws: int
    scales: tuple[float, ...]
    starts: int


FULL = Sizes(steps=(0.004, 0.002, 0.001), draws=64, scales=(0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3), starts=7)
QUICK = Sizes(steps=(0.01, 0.005, 0.0025), draws=12, scales=(0.1, 0.01, 1e-3), starts=4)


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, train, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    table = hierarchy()
    say(f"{derive.LinearNetwork(depth=2, inputs='whitened').dynamics('strengths')}\n\n{solved(2)}\n")

    cases = aligned_cases(table) | {"random layers": random_case(table, 0.1, SEED)}
    simulations: dict[str, xr.Dataset] = {}
    verdicts: dict[str, validate.Verdict] = {}
    for name, case in cases.items():
        say(f"{name}: gradient descent with steps of {', '.join(map(str, sizes.steps))}")
        simulations[name] = case.descend(list(sizes.steps), TIMES, progress=progress)
        simulations[name].to_netcdf(out / f"{name.replace(' ', '_')}.nc")
        verdicts |= {f"{name}, {how}": v for how, v in judged(case, simulations[name]).items()}

    say(f"{sizes.draws} random networks at each of the scales {', '.join(map(str, sizes.scales))}")
    alignment = alignment_errors(table, sizes.scales, sizes.draws, progress)
    alignment.to_netcdf(out / "alignment.nc")
    report_alignment(alignment, out / "alignment.json", say)

    draw_modes(cases, simulations, out / "modes.png")
    draw_stages(cases["balanced layers"], sizes.steps[-1], out / "stages.png")
    draw_depth(cases, simulations, sizes.starts, out / "depth.png")
    draw_random(cases["random layers"], simulations["random layers"], alignment, out / "random.png")
    write_equations(out)
    return report(verdicts, out, "saxe", say)


# -- aligned layers, and the Gram closure: exact, judged --


def judged(case: Case, simulation: xr.Dataset) -> dict[str, validate.Verdict]:
    """Compare gradient descent, taken to vanishing steps, with the theory integrated and in closed form."""
    names = [q.name for q in case.dynamics.states]
    theories = {"integrated": case.integrate(simulation.t)}
    if case.reduction == "strengths":
        theories["closed form"] = case.closed(simulation.t)
    return {how: validate.compare(theory[names], simulation) for how, theory in theories.items()}


# -- random layers and aligned modes: approximate, reported --


def alignment_errors(table: np.ndarray, scales: tuple[float, ...], draws: int, progress: bool = False) -> xr.Dataset:
    """Return how far random networks are from aligned modes, dims (scale, run).

    By the Gram closure, which is exact for them. ``misalignment`` is the largest mixed strength u_αᵀ W v_β, α ≠ β, over
    time and c_1; ``own`` and ``orthogonal`` are the largest deviations of any strength from the closed form, over its
    c, from the start of each mode by itself and from the part of it that is orthogonal to the modes learnt before.
    """
    cells = [
        [_misfit(random_case(table, scale, [SEED, run]), scale) for run in range(draws)]
        for scale in tqdm(scales, unit="scale", disable=None if progress else True)
    ]
    values = np.array(cells).transpose(2, 0, 1)
    names = ("misalignment", "own", "orthogonal")
    data = {name: (("scale", "run"), v) for name, v in zip(names, values, strict=True)}
    return xr.Dataset(data, coords={"scale": list(scales), "run": np.arange(draws)})


def _misfit(case: Case, scale: float) -> tuple[float, float, float]:
    left, c, right = np.linalg.svd(case.table, full_matrices=False)
    times = np.linspace(0, (7 - 2 * np.log(scale)) / (2 * c[-1]), 801)  # the last mode is within e^(−5) of its end
    mixed = np.einsum("tia,ji,al->tjl", case.integrate(times).S.values, right, left)
    diagonal = np.einsum("tjj->tj", mixed)
    off = abs(mixed - diagonal[:, :, None] * np.eye(len(c))).max() / c[0]
    deviations = (
        (abs(diagonal - strengths(2, times, {"s": s}, {"c": c, "lam": 0 * c})["s"]) / c).max() for s in starts(case)
    )
    own, orthogonal = map(float, deviations)
    return float(off), own, orthogonal


def report_alignment(found: xr.Dataset, path: Path, say: Callable[[str], Any]) -> None:
    """Say and keep by how much the closed form of modes is off for random layers."""
    mean = found.mean("run")
    powers = {str(name): float(np.polyfit(np.log(mean.scale), np.log(mean[name]), 1)[0]) for name in mean.data_vars}
    rows = [
        {"scale": float(scale), **{str(name): float(v.sel(scale=scale)) for name, v in mean.items()}}
        for scale in mean.scale.values
    ]
    path.write_text(json.dumps({"mean": rows, "powers of scale": powers}, indent=1) + "\n", encoding="utf-8")
    say("Random layers are aligned approximately; relative errors of the closed form, reported and not judged:")
    for row in rows:
        say(
            f"  ε = {row['scale']:<6g} mixed strengths {row['misalignment']:.4f}; strengths off by {row['own']:.4f}, "
            f"from orthogonal starts by {row['orthogonal']:.4f}"
        )


# -- equations --


def write_equations(out: Path) -> None:
    """Write the article, and the equations of each reduction as an article, a NumPy module and JSON."""
    two, three = (derive.LinearNetwork(depth, inputs="whitened") for depth in (2, 3))
    reductions = {
        "two_layer_modes": two.dynamics("modes"),
        "two_layer_strengths": two.dynamics("strengths"),
        "three_layer_strengths": three.dynamics("strengths"),
        "two_layer_gram": two.dynamics("gram"),
    }
    for stem, dynamics in reductions.items():
        export(dynamics, out, stem)
    parts = {stem: dynamics.latex() for stem, dynamics in reductions.items()}
    for depth, stem in ((2, "two_layer_strengths"), (3, "three_layer_strengths")):
        names = {"lam": r"\lambda"}
        parts[f"{stem}_solved"] = rf"\[{solved(depth).latex(names)}\]"
    text = ARTICLE
    for stem, part in parts.items():
        text = text.replace(f"<{stem}>", part)
    (out / "saxe.tex").write_text(text, encoding="utf-8")


ARTICLE = r"""\documentclass[11pt,a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,amssymb,graphicx}
\usepackage[margin=20mm]{geometry}
\allowdisplaybreaks
\setlength{\emergencystretch}{2em}
\title{Deep linear networks learn a hierarchy mode by mode}
\date{}
\begin{document}
\maketitle
\section*{Setting}
Gradient flow on $L = \frac12\|Y - X(W_N\cdots W_1)^{\mathsf T}\|_F^2$, the sum over items, with $X^{\mathsf T}X = 1$;
$t = \eta\cdot$steps. The table of properties is $Y^{\mathsf T}X = \sum_i c_i u_i v_i^{\mathsf T}$.
\section*{Aligned layers}
If $W_l = R_l\,\mathrm{diag}(w_l)\,R_{l-1}^{\mathsf T}$ with orthonormal $R_l$, where $R_0$ and $R_N$ are the singular
vectors, it is so at all times. Of two layers, each mode moves by itself:
<two_layer_modes>
The imbalance $\lambda = w_2^2 - w_1^2$ is conserved, and the strengths $s = w_1w_2$ are closed:
<two_layer_strengths>
<two_layer_strengths_solved>
Balanced layers, three of them:
<three_layer_strengths>
<three_layer_strengths_solved>
From a small start the time to escape is $s_0^{-(N-2)/N}/((N-2)c)$ for $N\geq 3$, and $\ln(c/s_0)/2c$ for $N = 2$.
\begin{figure}[h!]\includegraphics[width=\textwidth]{modes.png}
\includegraphics[width=\textwidth]{stages.png}
\includegraphics[width=\textwidth]{depth.png}\end{figure}
\section*{Random layers}
For any two layers the products over the width $P = W_1^{\mathsf T}W_1$, $S = W_1^{\mathsf T}W_2^{\mathsf T}$ and
$R = W_2W_2^{\mathsf T}$ are closed:
<two_layer_gram>
From small random layers, $a_i = \frac12(W_1v_i + W_2^{\mathsf T}u_i)$ grows as $e^{c_it}$. When the first mode is
learnt, what $a_2$ has along $a_1$ decays, and so on: modes follow the closed form from the squared diagonal of the
triangular factor of $(a_1, a_2, \dots)$, up to powers of the initial scale. From $s_i(0) = |a_i|^2$ they are late,
however small the scale is.
\begin{figure}[h!]\includegraphics[width=\textwidth]{random.png}\end{figure}
\end{document}
"""
