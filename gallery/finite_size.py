"""Runs at finite d around the equations of motion: predicted bands, and what is left over collapses on one curve.

At input dimension d the mean over runs is ω + m/d and their variance C/d, up to the next order in 1/d, with ω the
solution of the limit, and m and C from the same increments (``dynamics.fluctuations()``). So d·(mean − ω) at every d
is one curve, m(t), and d·variance another, C(t). Seen for one erf student of one teacher unit, and for K = M = 2 with
label noise up to the symmetric plateau, after the exit from which there is no such expansion; there also for ReLU, for
batches and with momentum.

Judged is one number for each observable and each of mean and variance: how much of the predicted coefficient there is.
Each run gives one value, its deviation times d projected on m(t), over what it would be if the theory were right; for
the variance, d times its squared deviation over C(t), averaged over times. So times that depend on each other are no
difficulty. The mean over runs is 1 up to the next order. That is extrapolated away where the scatter allows it, for
variances; how large it was relative to the first is then granted to means. Without the theory it would be 0.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri
from tqdm import tqdm

from effdyn import derive, validate
from effdyn.solve.fluctuations import integrate_fluctuations
from effdyn.validate import figures

from .problem import Problem, export
from .report import sheet, typeset

if TYPE_CHECKING:
    import xarray as xr

OBSERVED = ("Q", "R", "eg")
LEVEL = 1e-4
"""Probability, at most, that a right theory fails, over all comparisons."""
RESOLUTION = 0.5
"""The largest tolerance, in units of the predicted coefficient, at which anything is decided."""
SEED = 2026


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A start, the times at which it is judged (whole steps at every d), the name of its files, the observables whose
    mean is judged, and how many more chains than others it takes."""

    name: str
    problem: Problem
    times: np.ndarray
    stem: str
    means: tuple[str, ...] = OBSERVED
    effort: float = 1.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are: dimensions that are judged and chains at each, then those that are only drawn."""

    dims: tuple[int, ...]
    runs: tuple[int, ...]
    shown: tuple[int, ...]
    shown_runs: int


FULL = Sizes((20, 40, 80), (24_000, 16_000, 8_000), (20, 100, 1000, 10_000), 200)
QUICK = Sizes((20, 40), (8_000, 6_000), (20, 100, 1000), 60)


@dataclass(frozen=True, slots=True)
class Row:
    """How much there is of a predicted coefficient.

    Attributes
    ----------
    case, observable, what : str
        ``what`` is ``"mean"`` or ``"variance"``.
    ratio, error, tolerance : float
        Of found to predicted, its standard error, and how far from 1 it may be.
    at_dims : tuple of float
        The ratios at the dimensions themselves.
    limit_off : float
        By how many standard errors the limit alone misses means at the smallest dimension, at most; 0 for variances.
    """

    case: str
    observable: str
    what: str
    ratio: float
    error: float
    tolerance: float
    at_dims: tuple[float, ...]
    limit_off: float

    @property
    def status(self) -> str:
        if self.tolerance > RESOLUTION:
            return "UNDECIDED"
        return "PASS" if abs(self.ratio - 1) <= self.tolerance else "FAIL"

    def __str__(self) -> str:
        found = f"{self.ratio:.3f} ± {self.error:.3f} of the prediction, granted {self.tolerance:.3f}"
        alone = f"; the limit alone is {self.limit_off:.0f} standard errors off" if self.what == "mean" else ""
        return f"  {self.status:9} {self.case:14} {self.what:8} of {self.observable:2}: {found}{alone}"


def cases() -> tuple[Case, ...]:
    """Return one erf student of one teacher unit; two of two on their way to the plateau, with noisy labels; and two of
    two as ReLU, on batches of eight, and with slow momentum."""
    erf = derive.TeacherStudent(activation="erf")
    common: dict[str, Any] = {"eta": 1.0, "sigma": 0.2, "a": 1.0, "b": 1.0}
    one = Problem(erf, {"Q": np.array([[0.3]]), "R": np.array([[0.1]])}, common | {"T": np.eye(1)}, SEED)
    start = {"Q": np.array([[0.25, 0.02], [0.02, 0.3]]), "R": np.array([[0.05, 0.02], [0.01, 0.04]])}
    common |= {"T": np.eye(2)}
    two = Problem(erf, start, common, SEED)
    relu = Problem(derive.TeacherStudent(activation="relu"), start, common | {"eta": 0.5}, SEED)
    batch = Problem(
        derive.TeacherStudent(activation="erf", batch=True), start, common | {"eta": 2.0, "batch": 8.0}, SEED
    )
    buffers = {name: np.zeros((2, 2)) for name in "PVS"}
    slow = derive.TeacherStudent(activation="erf", momentum="slow")
    momentum = Problem(slow, start | buffers, common | {"mu": 2.0}, SEED)
    seen = ("Q", "R")  # the mean error hardly shifts: 20 000 runs have a standard error of half the shift
    return (
        Case("K = M = 1", one, np.linspace(0, 6, 13), "K1", seen, 2.0),
        Case("K = M = 2", two, np.linspace(0, 20, 21), "K2"),
        Case("ReLU", relu, np.linspace(0, 5, 11), "relu", ("Q", "eg")),
        Case("batch 8", batch, np.linspace(0, 8, 9), "batch", effort=0.5),
        Case("slow momentum", momentum, np.linspace(0, 5, 11), "momentum", ("R", "eg"), 0.5),
    )


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, judge, draw and typeset into ``out``; return whether every comparison passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    export(cases()[0].problem.model.dynamics(), out, "finite_size")
    count = sum(len(case.means) + len(OBSERVED) for case in cases())
    critical = float(-ndtri(LEVEL / (2 * count)))
    rows = []
    for case in cases():
        theory = predicted(case.problem, case.times)
        theory.to_netcdf(out / f"theory_{case.stem}.nc")
        samples = {
            d: simulated(case, d, int(case.effort * runs)) for d, runs in zip(sizes.dims, sizes.runs, strict=True)
        }
        asked = [(name, "mean") for name in case.means] + [(name, "variance") for name in OBSERVED]
        new = [judged(case, theory, samples, name, what, critical) for name, what in asked]
        rows += new
        say("\n".join(map(str, new)))
        draw_collapse(theory, samples, case, out / f"collapse_{case.stem}.png")
        few = {d: simulated(case, d, sizes.shown_runs) for d in sizes.shown}
        draw_bands(
            predicted(case.problem, np.linspace(0, case.times[-1], 121)), few, case, out / f"bands_{case.stem}.png"
        )
    return _report(rows, out, say)


def predicted(problem: Problem, times: np.ndarray) -> "xr.Dataset":
    """Return the solution of the limit with mean corrections and variances of order 1/d."""
    span = (float(times[0]), float(times[-1]))
    theory = problem.model.dynamics().fluctuations()
    return integrate_fluctuations(theory, span, problem.y0, problem.params, t_eval=times)


def simulated(case: Case, d: int, runs: int) -> "xr.Dataset":
    """Return exact chains at the times of a case, students in the order in which they started."""
    problem = case.problem
    given: dict[str, Any] = {"y0": problem.y0, "params": problem.params, "t_eval": case.times}
    span = (0.0, float(case.times[-1]))
    chains = validate.simulate(problem.model, d, runs, span, rng=SEED, align=False, progress=False, **given)
    if chains.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    return chains[list(OBSERVED)]


# -- what is judged ----------------------------------------------------------------------------------------------------


def deviations(theory: "xr.Dataset", chains: "xr.Dataset", name: str) -> np.ndarray:
    """Return how far runs are from the limit (run, times and components), after the start."""
    found = chains[name].transpose("run", ...).values[:, 1:] - theory[name].values[None, 1:]
    return np.asarray(found.reshape(len(found), -1))


def shares(theory: "xr.Dataset", chains: "xr.Dataset", d: int, name: str, what: str) -> np.ndarray:
    """Return of each run how much of the predicted coefficient it has: 1 in the mean, up to O(1/d)."""
    off = deviations(theory, chains, name)
    if what == "mean":
        m = theory[f"{name}_mean_correction"].values[1:].ravel()
        return np.asarray(d * off @ m / (m @ m))
    C = theory[f"{name}_variance"].values[1:].ravel()
    n = len(off)
    return np.asarray((d * n / (n - 1) * (off - off.mean(0)) ** 2 / C).mean(1))


def judged(
    case: Case, theory: "xr.Dataset", samples: "dict[int, xr.Dataset]", name: str, what: str, critical: float
) -> Row:
    """Combine the shares at all d into one number, and judge it.

    Weights are those of least squares where the share has variance d (mean) or 1 (variance) over the number of runs:
    they do not depend on the data. Variances are extrapolated by a line in 1/d; granted beyond ``critical`` standard
    errors is what it leaves out if coefficients go on as its slope does: slope² at 1/d². Means are averaged, and
    granted is a next order that is to the first as it is in variances: their largest slope.
    """
    values = [shares(theory, chains, d, name, what) for d, chains in samples.items()]
    d = np.array(list(samples), dtype=float)
    runs = np.array([len(v) for v in values])
    means, errors = np.array([v.mean() for v in values]), np.array([v.std(ddof=1) for v in values]) / np.sqrt(runs)
    if what == "mean":
        weights = (runs / d) / (runs / d).sum()
        granted = next_order(theory, samples) * (weights @ (1 / d))
    else:
        weights, slope = _line_weights(1 / d, 1 / runs)
        granted = abs(weights @ d**-2) * (slope @ means) ** 2
    ratio, error = weights @ means, float(np.sqrt(weights**2 @ errors**2))
    tolerance = critical * error + granted
    smallest = deviations(theory, next(iter(samples.values())), name)
    z = np.abs(smallest.mean(0)) / (smallest.std(0, ddof=1) / len(smallest) ** 0.5)
    off = float(z.max()) if what == "mean" else 0.0
    return Row(case.name, name, what, float(ratio), error, float(tolerance), tuple(map(float, means)), off)


def next_order(theory: "xr.Dataset", samples: "dict[int, xr.Dataset]") -> float:
    """Return the largest |s| of d·Var/C = c0 + s/d, over all observables, and two of its standard errors."""
    d = np.array(list(samples), dtype=float)
    found = []
    for name in (name for name in OBSERVED if f"{name}_variance" in theory):
        values = [shares(theory, chains, n, name, "variance") for n, chains in samples.items()]
        runs = np.array([len(v) for v in values])
        _, slope = _line_weights(1 / d, 1 / runs)
        error = np.sqrt(slope**2 @ np.array([v.var(ddof=1) / len(v) for v in values]))
        found.append(abs(slope @ [v.mean() for v in values]) + 2 * error)
    return float(max(found))


def _line_weights(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the weights (2, points) that give constant and slope of a line by least squares."""
    design = np.stack([np.ones_like(x), x], axis=1) / np.sqrt(variance)[:, None]
    return np.asarray(np.linalg.pinv(design) / np.sqrt(variance))


def _report(rows: list[Row], out: Path, say: Any) -> bool:
    states = [row.status for row in rows]
    status = next((s for s in ("FAIL", "UNDECIDED") if s in states), "PASS")
    power = max(row.tolerance + abs(row.ratio - 1) for row in rows)  # such an error, of either sign, would have failed
    head = f"{status}: {states.count('PASS')} of {len(rows)} coefficients agree; an error of {100 * power:.0f} % of any"
    text = "\n".join([f"{head} would have been seen", *map(str, rows)])
    (out / "verdict.txt").write_text(text + "\n", encoding="utf-8")
    numbers = [asdict(row) | {"status": row.status} for row in rows]
    facts = {"status": status, "level": LEVEL, "n_comparisons": len(rows), "detectable": power, "rows": numbers}
    (out / "verdict.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    say(f"\n{head} would have been seen.\nEverything is in {out}/{typeset(out, 'finite_size')}")
    return status == "PASS"


# -- figures -----------------------------------------------------------------------------------------------------------


def first(data: "xr.DataArray") -> "xr.DataArray":
    """Return the first component of what has units."""
    return data.isel({dim: 0 for dim in data.dims if dim not in ("t", "run")})


def draw_bands(theory: "xr.Dataset", samples: "dict[int, xr.Dataset]", case: Case, path: Path) -> None:
    """The error at each d: the limit, the predicted mean with a band of two standard deviations, and single runs."""
    figure, axes = sheet(len(samples))
    for ax, (d, chains) in zip(axes, samples.items(), strict=True):
        mean = theory.eg + theory.eg_mean_correction / d
        width = 2 * np.sqrt(theory.eg_variance / d)
        ax.fill_between(theory.t, mean - width, mean + width, color="C0", alpha=0.25, lw=0, label="predicted, 95 %")
        ax.plot(theory.t, mean, color="C0", label=r"predicted mean, $\omega + m/d$")
        ax.plot(theory.t, theory.eg, "--", color="black", lw=1, label=r"limit, $\omega$")
        eg = chains.eg.transpose("t", "run").values
        ax.plot(chains.t, eg[:, :40], ".", color="C3", ms=2, alpha=0.5)
        low, high = np.quantile(eg, (0.025, 0.975), axis=1)
        ax.plot(chains.t, low, "_", chains.t, high, "_", color="C3", ms=7, zorder=4)
        ax.set(xlabel="$t$ = steps/$d$", ylabel=r"$\epsilon_g$", title=f"{case.name}, $d = {d}$", yscale="log")
        ax.set_ylim(float(theory.eg.min()) / 4, 2 * float(theory.eg.max()))
    axes[0].plot([], [], "_", color="C3", label="95 % of runs")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def draw_collapse(theory: "xr.Dataset", samples: "dict[int, xr.Dataset]", case: Case, path: Path) -> None:
    """What is left over, times d: means of Q and R on m(t), the variance of R on C(t)."""
    figure, axes = sheet(3)
    for ax, (name, what) in zip(
        axes, (("Q", "mean_correction"), ("R", "mean_correction"), ("R", "variance")), strict=True
    ):
        ax.plot(theory.t, first(theory[f"{name}_{what}"]), color="black", label="order $1/d$")
        for colour, (d, chains) in zip(figures.COLOURS, samples.items(), strict=False):
            off = first(chains[name] - theory[name])
            n = off.sizes["run"]
            square = (off - off.mean("run")) ** 2
            value = d * (off if what == "mean_correction" else square)
            ax.errorbar(
                theory.t, value.mean("run"), value.std("run") / n**0.5, fmt="o", ms=3.5, color=colour, label=f"$d={d}$"
            )
        symbol = f"{name}_{{11}}"
        title = (
            rf"$d\cdot($mean $-$ limit$)$ of ${symbol}$" if what == "mean_correction" else rf"$d\cdot$Var ${symbol}$"
        )
        ax.set(xlabel="$t$ = steps/$d$", title=f"{case.name}: {title}")
        ax.legend(frameon=False)
    figure.savefig(path, dpi=150)
