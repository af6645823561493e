"""From a few students to a mean field: one learning curve on the clock t = γ·steps/(pd), noise and coupling as 1/p.

Arnaboldi, Stephan, Krzakala & Loureiro (COLT 2023): with an output that is a mean over p units and learning rate γ, the
equations of Saad and Solla hold the noise of single examples as γ/p. At fixed γ they go over into the mean field as p
grows: neurons that see each other only through the output. Two things fall as 1/p on the way: the noise, and what
different neurons come to share orthogonal to the teacher.

Here p students are copies of four kinds of neurons, which start with the same overlaps with the teacher and in
independent directions otherwise, so that all p have the same mean field, but for the 1/p of the output that a neuron
itself is. (Their p, γ, k are K, η, M.)
Judged are exact chains against the equations at each p, each with the smallest error that would have been seen; and the
powers at which noise and coupling, each by itself, vanish from the error.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from effdyn import derive, solve, validate
from effdyn.derive.limits import WIDE_CLOCK
from effdyn.validate import Verdict, figures

from .problem import export
from .report import report, sheet

if TYPE_CHECKING:
    import xarray as xr

GAMMA, SIGMA, M, SEED = 2.0, 0.5, 2, 2302
MODEL = derive.TeacherStudent(activation="erf", output_scale="1/K")
KINDS = np.array([[0.5, 0.1], [0.1, 0.6], [0.3, -0.2], [-0.1, 0.2]])
"""Overlaps with the teacher of the four kinds of neurons."""
ACROSS = np.array([0.3, 0.5, 0.4, 0.6])
"""Their squared lengths orthogonal to it."""
SLOPE_LEVEL = 2.0
"""How many times 1/p the next order may be, relative to the first."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is: widths, input dimensions, chains at each, until when."""

    widths: tuple[int, ...]
    dims: tuple[int, ...]
    chains: tuple[int, ...]
    t_end: float


FULL = Sizes((4, 16, 64), (250, 1000), (256, 64, 24), 20.0)
QUICK = Sizes((4, 16, 32), (100, 300), (128, 32, 16), 10.0)
PARTS = {"noise of single examples": ("wide", "mean-field-pairs"), "coupling": ("mean-field-pairs", "mean-field")}
"""What p neurons have and the mean field has not: between which limits each stands. In eg they have opposite signs."""
MANY = 256
"""The width at which the mean field is drawn."""


def start(p: int) -> dict[str, np.ndarray]:
    """Return the overlaps of p neurons, copies of the four kinds, independent orthogonal to the teacher."""
    R = np.tile(KINDS, (p // len(KINDS), 1))
    return {"R": R, "Q_perp": np.tile(ACROSS, p // len(KINDS))}


def params(gamma: float | None = None) -> dict[str, Any]:
    """Return a teacher whose output is a mean over its units, as the students' is."""
    return {"T": np.eye(M), "a": 1.0, "b": 1 / M, "sigma": SIGMA} | ({} if gamma is None else {"eta": gamma})


def theory(p: int, times: np.ndarray, limit: str, gamma: float = GAMMA) -> "xr.Dataset":
    """Solve the equations of p neurons in a limit, at times γ·steps/(pd)."""
    y0 = start(p)
    if limit == "wide":
        y0 = {"R": y0["R"], "Q": y0["R"] @ y0["R"].T + np.diag(y0["Q_perp"])}
    elif limit == "mean-field-pairs":
        y0 = y0 | {"Q_perp": np.diag(y0["Q_perp"])}
    given = params(gamma if limit == "wide" else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solve.SymmetricStart)  # copies are meant to be alike
        return solve.integrate(MODEL.dynamics(limit), (times[0], times[-1]), y0, given, t_eval=times)


def simulated(p: int, dims: tuple[int, ...], chains: int, times: np.ndarray) -> "xr.Dataset":
    """Run exact chains of p neurons."""
    given = start(p)
    y0 = {"R": given["R"], "Q": given["R"] @ given["R"].T + np.diag(given["Q_perp"])}
    span = (float(times[0]), float(times[-1]))
    options: dict[str, Any] = {"clock": WIDE_CLOCK, "align": False, "progress": False}
    return validate.simulate(MODEL, dims, chains, span, y0=y0, params=params(GAMMA), t_eval=times, rng=SEED, **options)


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, judge, draw and typeset into ``out``; return whether every comparison passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    say(MODEL.dynamics("mean-field").explain_limit() + "\n")
    export(MODEL.dynamics("mean-field"), out, "arnaboldi_mean_field")
    times = np.linspace(0, sizes.t_end, 21)
    verdicts: dict[str, Verdict] = {}
    curves = {}
    pairs = list(zip(sizes.widths, sizes.chains, strict=True))
    for p, runs in tqdm(pairs, "widths", disable=not progress):
        chains = simulated(p, sizes.dims, runs, times)
        if chains.attrs["status"] == "interrupted":
            raise KeyboardInterrupt
        solution = theory(p, chains.t.values, "wide")
        verdicts[f"p = {p}"] = validate.compare(solution, chains, variables=["R", "eg"])
        chains.to_netcdf(out / f"chains_p{p}.nc")
        curves[p] = solution, chains
    field = theory(MANY, times, "mean-field")
    field.to_netcdf(out / "mean_field.nc")
    gaps = {what: np.array([gap(p, times, *what) for p in sizes.widths]) for what in PARTS.values()}
    draw_curves(curves, field, out / "learning_curves.png")
    draw_gaps(sizes.widths, gaps, curves, out / "gap.png")
    passed = report(verdicts, out, "arnaboldi_mean_field", say)
    lines = {name: slope(sizes.widths, gaps[what]) for name, what in PARTS.items()}
    text = "\n".join(f"{status}: {name}, {told}" for name, (status, told) in lines.items())
    say(text)
    with (out / "verdict.txt").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    return passed and all(status == "PASS" for status, _ in lines.values())


def gap(p: int, times: np.ndarray, one: str, other: str) -> float:
    """Return the largest distance in eg between two limits at p neurons, over all times."""
    return float(abs(theory(p, times, one).eg - theory(p, times, other).eg).max())


def slope(widths: tuple[int, ...], gaps: np.ndarray) -> tuple[str, str]:
    """Judge the power at which gaps fall between the two largest widths: −1 up to the next order at the smaller one."""
    p, q = widths[-2:]
    found = float(np.log(gaps[-1] / gaps[-2]) / np.log(q / p))
    granted = SLOPE_LEVEL / p / np.log(q / p)
    status = "PASS" if abs(found + 1) <= granted else "FAIL"
    told = f"falls as p^{found:.3f} from p = {p} to {q}; expected -1, granted {granted:.3f}"
    return status, told


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_curves(curves: "dict[int, tuple[xr.Dataset, xr.Dataset]]", field: "xr.Dataset", path: Path) -> None:
    """The error on the clock of wide students: equations and chains at each p, and the mean field."""
    figure, axes = sheet(1)
    for colour, (p, (solution, chains)) in zip(figures.COLOURS, curves.items(), strict=False):
        last = chains.eg.isel(d=-1)
        label = rf"$p = {p}$, $\gamma/p = {GAMMA / p:g}$"
        axes[0].plot(solution.t, solution.eg, color=colour, label=label)
        error = last.std("run", ddof=1) / last.sizes["run"] ** 0.5
        axes[0].errorbar(chains.t, last.mean("run"), error, fmt="o", ms=3.5, color=colour)
    axes[0].plot(field.t, field.eg, "--", color="black", label=f"mean field, $p = {MANY}$")
    d = int(next(iter(curves.values()))[1].d[-1])
    axes[0].plot([], [], "o", ms=3.5, color="0.4", label=f"exact chains, $d = {d}$")
    axes[0].set(xlabel=figures.CLOCKS[WIDE_CLOCK], ylabel=r"$\epsilon_g$", yscale="log")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def draw_gaps(
    widths: tuple[int, ...],
    gaps: dict[tuple[str, str], np.ndarray],
    curves: "dict[int, tuple[xr.Dataset, xr.Dataset]]",
    path: Path,
) -> None:
    """What noise and coupling make of the error, against p; chains less the equations without noise are the noise."""
    figure, axes = sheet(1)
    p = np.array(widths, dtype=float)
    for colour, (name, what) in zip(figures.COLOURS, PARTS.items(), strict=False):
        axes[0].loglog(p, gaps[what], "-", color=colour, label=name)
        axes[0].loglog(p, gaps[what][-1] * p[-1] / p, ":", color="black")
    axes[0].plot([], [], ":", color="black", label="$1/p$")
    far = []
    for width, (solution, chains) in curves.items():
        quiet = theory(width, solution.t.values, "mean-field-pairs")
        at = int(abs(solution.eg - quiet.eg).values.argmax())
        off = chains.eg.isel(d=-1, t=at) - float(quiet.eg[at])
        far.append((abs(float(off.mean())), float(off.std(ddof=1)) / off.size**0.5))
    mean, error = np.array(far).T
    axes[0].errorbar(
        p, mean, error, fmt="o", color=figures.COLOURS[0], label=r"exact chains less equations at $\gamma\to0$"
    )
    axes[0].set(xlabel="students $p$", ylabel=r"largest change of $\epsilon_g$", xticks=widths, xticklabels=widths)
    axes[0].minorticks_off()
    axes[0].legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)
