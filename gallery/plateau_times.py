"""Escape times from the symmetric plateau against the input dimension: (ln d)/(2λ) + O(1), with λ from the Jacobian.

Erf students and teachers of K = M = 2, after Saad & Solla. Random weights of d entries break the symmetry by O(1/√d),
and so does the noise of SGD; the asymmetry grows as exp(λt), where λ is the largest eigenvalue of the flow's Jacobian
at the plateau. Exact chains of the overlaps start from random weights at several d; an escape time is when the error
falls below half of the plateau's. Its median over runs is fitted by a line in ln d, and its slope judged.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from effdyn import derive, validate
from effdyn.solve.stability import plateau

from .problem import Problem, export
from .report import sheet, typeset

if TYPE_CHECKING:
    import xarray as xr

K, ETA, SEED = 2, 1.0, 1996
LENGTH = 0.25
"""Squared length of the students' initial weights, over d."""
FRACTION = 0.5
"""Of the plateau's height, below which a run has escaped."""
CRITICAL = 3.5
"""Standard errors granted to the one number judged: 1 in 2000 by chance, for normal errors."""
RESOLUTION = 0.6
"""What CRITICAL standard errors may be of the slope: beyond, nothing is decided. A slope of zero is then refuted."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are: dimensions, and chains at each."""

    dims: tuple[int, ...]
    runs: tuple[int, ...]


FULL = Sizes((100, 300, 1000, 3000, 10_000, 100_000), (512, 512, 256, 256, 128, 48))
QUICK = Sizes((100, 300, 1000), (256, 256, 128))


@dataclass(frozen=True, slots=True, eq=False)
class Escapes:
    """Escape times at one dimension: of each run (inf if it did not), their median, and its standard error."""

    d: int
    times: np.ndarray
    median: float
    error: float


def start() -> dict[str, np.ndarray]:
    """Return mean overlaps of random weights: none with the teacher."""
    return {"Q": LENGTH * np.eye(K), "R": np.zeros((K, K))}


def problem() -> Problem:
    """Return K students and as many teacher units: isotropic teacher, unit second layers, no noise."""
    params = {"eta": ETA, "sigma": 0.0, "T": np.eye(K), "a": 1.0, "b": 1.0}
    return Problem(derive.TeacherStudent(activation="erf"), start(), params, SEED)


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, linearise, simulate, fit, judge, draw and typeset into ``out``; return whether the verdict passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    given = problem()
    dynamics = given.model.dynamics()
    export(dynamics, out, "plateau_times")
    saddle = plateau(dynamics, given.y0, given.params)
    saddle.to_netcdf(out / "plateau.nc")
    height, slope = float(saddle.eg), float(saddle.slope)
    say(f"plateau: eg = {height:.5f}, escape rate {float(saddle.rate):.5f}, so t = {slope:.4f} ln d + constant\n")
    found = []
    for d, runs in zip(sizes.dims, sizes.runs, strict=True):
        say(f"d = {d}: {runs} chains from random weights")
        chains = simulated(given, d, runs, slope, progress)
        chains.to_netcdf(out / f"chains_{d}.nc")
        found.append(escapes(chains, d, FRACTION * height))
    verdict = judged(found, slope)
    draw(found, verdict, [_chains(out, f.d) for f in (found[0], found[-1])], height, out / "escape_times.png")
    return _report(verdict, out, say)


def simulated(given: Problem, d: int, runs: int, slope: float, progress: bool) -> "xr.Dataset":
    """Return the errors of chains from random weights, until most have escaped: a median does without the others."""
    until = slope * (np.log(d) + 10)
    found = validate.simulate(
        given.model,
        d,
        runs,
        (0.0, until),
        y0=given.y0,
        params=given.params,
        t_eval=np.linspace(0, until, 201),
        rng=given.seed,
        init="random",
        progress=progress,
    )
    if found.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    return found[["eg"]]


def escapes(chains: "xr.Dataset", d: int, level: float) -> Escapes:
    """Return when each run's error first falls below ``level``, between saved times by interpolation."""
    times = np.array([_crossing(chains.t.values, eg, level) for eg in chains.eg.transpose("run", "t").values])
    if np.isfinite(times).mean() < 0.75:
        raise ArithmeticError(f"only {np.isfinite(times).sum()} of {len(times)} runs of d = {d} escaped: run longer")
    rng = np.random.default_rng(SEED)
    resampled = np.median(rng.choice(times, (2000, len(times))), axis=1)
    return Escapes(d, times, float(np.median(times)), float(np.std(resampled, ddof=1)))


def _crossing(t: np.ndarray, eg: np.ndarray, level: float) -> float:
    below = eg < level
    if not below.any():
        return np.inf
    n = int(np.argmax(below))
    if n == 0:
        return float(t[0])
    return float(t[n - 1] + (t[n] - t[n - 1]) * (eg[n - 1] - level) / (eg[n - 1] - eg[n]))


def judged(found: list[Escapes], slope: float) -> dict[str, Any]:
    """Return the fitted slope with its standard error, beside the predicted one, and the verdict."""
    x = np.log([f.d for f in found])
    y, weights = np.array([f.median for f in found]), np.array([f.error**-2 for f in found])
    centre = np.average(x, weights=weights)
    spread = float(np.sum(weights * (x - centre) ** 2))
    fitted, error = float(np.sum(weights * (x - centre) * y) / spread), spread**-0.5
    if CRITICAL * error > RESOLUTION * slope:
        status = "UNDECIDED"
    else:
        status = "PASS" if abs(fitted - slope) <= CRITICAL * error else "FAIL"
    return {
        "status": status,
        "slope": fitted,
        "standard_error": error,
        "predicted": slope,
        "constant": float(np.average(y - slope * x, weights=weights)),
        "criterion": f"|slope − predicted| <= {CRITICAL} standard errors, which must be below {RESOLUTION} of it",
        "d": [f.d for f in found],
        "median": [f.median for f in found],
        "median_error": [f.error for f in found],
        "runs": [len(f.times) for f in found],
        "escaped": [int(np.isfinite(f.times).sum()) for f in found],
    }


def _report(verdict: dict[str, Any], out: Path, say: Any) -> bool:
    columns = (verdict[name] for name in ("d", "median", "median_error", "escaped", "runs"))
    rows = zip(*columns, strict=True)
    lines = [f"  d = {d:6d}: median {m:7.2f} ± {e:.2f}, {n} of {runs} escaped" for d, m, e, n, runs in rows]
    head = f"{verdict['status']}: escape time = ({verdict['slope']:.2f} ± {verdict['standard_error']:.2f}) ln d"
    text = f"{head} + constant; predicted 1/(2λ) = {verdict['predicted']:.2f}\n" + "\n".join(lines)
    (out / "verdict.txt").write_text(text + "\n", encoding="utf-8")
    (out / "verdict.json").write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")
    say(f"\n{text}\nEquations, figures, data and verdict are in {out}/{typeset(out, 'plateau_times')}")
    return bool(verdict["status"] == "PASS")


# -- figures -----------------------------------------------------------------------------------------------------------


def _chains(out: Path, d: int) -> "xr.Dataset":
    import xarray as xr

    return xr.load_dataset(out / f"chains_{d}.nc")


def draw(found: list[Escapes], verdict: dict[str, Any], chains: "list[xr.Dataset]", height: float, path: Path) -> None:
    """Errors of single runs at the least and the largest d, and escape times against d with the predicted slope."""
    figure, axes = sheet(3)
    for ax, runs, escape in zip(axes, chains, (found[0], found[-1]), strict=False):
        ax.semilogy(runs.t, runs.eg.transpose("t", "run").values[:, :24], color="C0", alpha=0.35, lw=0.8)
        ax.axhline(height, color="black", lw=1, label=r"plateau, $\epsilon_g^*$")
        ax.axvline(escape.median, color="C3", lw=1, label="median escape time")
        ax.set(xlabel="$t$ = steps/$d$", ylabel=r"$\epsilon_g$", title=f"$d = {escape.d}$", ylim=(height / 100, 0.5))
        ax.legend()
    d = np.array(verdict["d"], dtype=float)
    for escape in found:
        finite = escape.times[np.isfinite(escape.times)]
        quartiles = np.quantile(escape.times, (0.25, 0.75))
        axes[2].plot(np.full(len(finite), escape.d), finite, ".", color="C0", alpha=0.15, ms=3)
        axes[2].plot([escape.d] * 2, quartiles, color="C0", lw=1)
    axes[2].errorbar(d, verdict["median"], verdict["median_error"], fmt="o", color="C0", label="median of chains")
    line = verdict["predicted"] * np.log(d) + verdict["constant"]
    axes[2].plot(
        d, line, color="black", label=rf"$\ln d\,/\,2\lambda$ + const, $1/2\lambda$ = {verdict['predicted']:.2f}"
    )
    axes[2].set(xscale="log", xlabel="$d$", ylabel="escape time", ylim=(0, None))
    axes[2].set_title(f"fitted slope {verdict['slope']:.2f} ± {verdict['standard_error']:.2f}")
    axes[2].legend()
    figure.savefig(path, dpi=150)
