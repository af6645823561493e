"""The phases of SGD in width and learning rate: γ = γ_0 d^(−δ), p = p_0 d^κ, and what is left of one step as d grows.

Veiga, Stephan, Loureiro, Krzakala & Zdeborová (NeurIPS 2022). On the clock t = γ·steps/(pd) each term of a step is
a power of d; these are read off the derivation, with a sum over students as a factor p. What the signal brings stays,
noise is d^−(κ+δ), and the rest smaller by 1/d. So there are

- κ + δ > 0: gradient flow; labels have noise, and the error goes to zero as d^−(κ+δ), the learning rate over the width;
- κ + δ = 0: Saad and Solla's equations, and a plateau of the error in proportion to the variance of the noise;
- −1/2 < κ + δ < 0: noise goes faster than the signal, by which nothing is learnt; on its own clock, γ²·steps/(p²d), a
  step is d^−(1+2(κ+δ)) of a unit of time, so that runs are still alike as d grows, but less and less slowly so;
- κ + δ ≤ −1/2: one step is no longer small, runs differ at every d: there are no equations.

Judged are powers of d, by exact chains: of the error of students that have learnt the teacher, at fixed time; and of
the spread over runs, at fixed time of the noise. (Their p, γ, k are K, η, M.)
"""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from scipy.stats import norm
from tqdm import tqdm

from effdyn import derive, solve, validate
from effdyn.derive.increments import D
from effdyn.derive.limits import ETA, LIMITS, WIDE_CLOCK, WIDTH, keep_leading_order
from effdyn.derive.pipeline import average_increments, expand_increments
from effdyn.derive.terms import Term

from .problem import export
from .report import sheet, typeset

KAPPA, DELTA = sympy.symbols("kappa delta", real=True)
MODEL = derive.TeacherStudent(activation="erf", output_scale="1/K")
M, SIGMA, P_0, SEED = 2, 0.5, 4, 2202
"""``P_0`` students are there at the smallest d."""
APART = 0.01
"""Squared length of what students have orthogonal to the teacher at the start, each in a direction of its own."""
GAMMA_0 = {"error": 1.0, "spread": 40.0}
"""Learning rates at the smallest d: below p to learn, far beyond it to see noise alone."""
WINDOW = (6.0, 10.0)
"""Times over which the error is averaged."""
STEPS_0 = 25
"""Steps after which the spread is measured at the smallest d, d^(1+2(κ+δ)) times as many at others."""
LEVEL = 1e-4
"""Probability, at most, that a right theory fails, over all comparisons."""
RESOLUTION = 0.12
"""The largest tolerance of a power at which anything is decided: half of what phases differ by."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point (κ, δ) of the phase diagram."""

    kappa: float
    delta: float

    @property
    def sum(self) -> float:
        return self.kappa + self.delta

    @property
    def phase(self) -> str:
        """The name of its phase."""
        if self.sum > 0:
            return "gradient flow"
        if self.sum == 0:
            return "plateau"
        return "noise" if self.sum > -0.5 else "no equations"

    def at(self, d: int, smallest: int, gamma: float) -> tuple[int, float]:
        """Return the number of students, a multiple of that of teacher units, and the learning rate."""
        wanted = P_0 * (d / smallest) ** self.kappa
        p = M * max(1, round(wanted / M))
        return p, gamma * (d / smallest) ** -self.delta * p / wanted  # so that γ/p is what it should be


LEARNING = (Point(0.5, 0.0), Point(0.0, 0.5), Point(0.5, -0.25), Point(0.0, 0.0), Point(0.25, -0.25))
SPREADING = (Point(0.0, -0.25), Point(0.0, -0.5), Point(0.25, -0.75))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large simulations are: dimensions and chains at each, for the error and for the spread."""

    dims: tuple[int, ...]
    chains: int
    spread_dims: tuple[int, ...]
    spread_chains: int


FULL = Sizes((200, 800, 3200), 24, (100, 400, 1600, 6400), 4000)
QUICK = Sizes((200, 800), 24, (100, 400, 1600), 1500)


@dataclass(frozen=True, slots=True)
class Row:
    """A power of d that was found, and what the order of the terms says that it is."""

    what: str
    kappa: float
    delta: float
    phase: str
    found: float
    expected: float
    error: float
    tolerance: float

    @property
    def status(self) -> str:
        if self.tolerance > RESOLUTION:
            return "UNDECIDED"
        return "PASS" if abs(self.found - self.expected) <= self.tolerance else "FAIL"

    def __str__(self) -> str:
        at = f"κ = {self.kappa:5.2f}, δ = {self.delta:5.2f} ({self.phase})"
        power = f"d^{self.found:.3f} ± {self.error:.3f}, expected d^{self.expected:.3f}, granted {self.tolerance:.3f}"
        return f"  {self.status:9} {self.what:6} {at:40}: {power}"


# -- the order of the terms --------------------------------------------------------------------------------------------


def power_of_d(term: Term) -> sympy.Expr:
    """Return the power of d of a term under γ ~ d^(−δ), p ~ d^κ; a sum over students is a factor p."""
    _, eta = term.coefficient.as_coeff_exponent(ETA)
    _, width = term.coefficient.as_coeff_exponent(WIDTH)
    _, own = term.coefficient.as_coeff_exponent(D)
    width += sum(1 for _, size in term.indices if size == WIDTH)
    return sympy.expand(-DELTA * eta + KAPPA * width + own)


def orders() -> dict[sympy.Expr, list[str]]:
    """Return the terms of the mean of one step, on the clock of wide students, by their power of d."""
    training = MODEL.training_step()
    found: dict[sympy.Expr, list[str]] = {}
    for q, terms in average_increments(expand_increments(training), training.example("auto")):
        kept, dropped = keep_leading_order(terms, LIMITS["wide"], q.name)
        for term in [*kept, *(d.term for d in dropped)]:
            found.setdefault(power_of_d(term), []).append(f"d{q.name}/dt: {term}")
    return found


def table() -> str:
    """Return the powers of d with their terms, as text."""
    lines = [f"Terms on the clock t = {WIDE_CLOCK}, with eta ~ d^-delta, K ~ d^kappa:"]
    for power, terms in orders().items():
        lines += [f"d^({power}):" if power != 0 else "d^0, which stay:", *(f"  {term}" for term in terms)]
    return "\n".join(lines)


# -- chains ------------------------------------------------------------------------------------------------------------


def learnt(p: int) -> dict[str, Any]:
    """Return students that are copies of the teacher's units, almost."""
    R = np.eye(M)[np.arange(p) % M]
    return {"Q": R @ R.T + APART * np.eye(p), "R": R}


def settings(gamma: float) -> dict[str, Any]:
    return {"eta": gamma, "sigma": SIGMA, "T": np.eye(M), "a": 1.0, "b": 1 / M}


def error(point: Point, d: int, smallest: int, chains: int) -> tuple[float, float]:
    """Return the mean over chains of the error, averaged over the window of times, and its relative standard error."""
    p, gamma = point.at(d, smallest, GAMMA_0["error"])
    times = np.concatenate([[0.0], np.linspace(*WINDOW, 9)])
    found = run(p, gamma, d, chains, times, WIDE_CLOCK).eg.isel(t=slice(1, None)).mean("t").values
    return float(found.mean()), float(found.std(ddof=1) / found.mean() / chains**0.5)


def spread(point: Point, d: int, smallest: int, chains: int) -> tuple[float, float]:
    """Return the standard deviation over runs of how much students have grown, over its mean; and its relative error,
    by bootstrap, since growth is skewed."""
    p, gamma = point.at(d, smallest, GAMMA_0["spread"])
    steps = round(STEPS_0 * (d / smallest) ** (1 + 2 * point.sum))
    found = run(p, gamma, d, chains, np.array([0.0, steps / d]), "steps/d")
    growth = np.einsum("rii->r", found.Q.isel(t=-1).values) / p - 1 - APART
    draws = np.random.default_rng(SEED).choice(growth, (400, chains))
    ratio = growth.std(ddof=1) / growth.mean()
    return float(ratio), float((draws.std(1, ddof=1) / draws.mean(1)).std(ddof=1) / ratio)


def run(p: int, gamma: float, d: int, chains: int, times: np.ndarray, clock: str) -> Any:
    span = (float(times[0]), float(times[-1]))
    options: dict[str, Any] = {"rng": SEED, "clock": clock, "align": False, "progress": False}
    found = validate.simulate(MODEL, d, chains, span, y0=learnt(p), params=settings(gamma), t_eval=times, **options)
    if found.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    return found


def predicted(point: Point, d: int, smallest: int) -> float:
    """Return the error over the window by the equations at this width and learning rate."""
    p, gamma = point.at(d, smallest, GAMMA_0["error"])
    times = np.linspace(*WINDOW, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solve.SymmetricStart)  # copies are meant to be alike
        found = solve.integrate(MODEL.dynamics("wide"), (0, WINDOW[1]), learnt(p), settings(gamma), t_eval=times)
    return float(found.eg.mean())


# -- what is judged ----------------------------------------------------------------------------------------------------


def fitted(d: np.ndarray, values: np.ndarray, relative: np.ndarray) -> tuple[float, float]:
    """Return the power of d of values with these relative errors, by weights that do not depend on them; its error."""
    x = np.log(d) - np.log(d).mean()
    weights = x / (x @ x)
    return float(weights @ np.log(values)), float(np.sqrt(weights**2 @ relative**2))


def judged(what: str, point: Point, sizes: Sizes, critical: float) -> tuple[Row, np.ndarray]:
    """Compare the power of d of the error, or of the spread, with what the order of the terms says.

    Granted are, of the error: (p + M)/d at the smallest d, the order of what is beyond d → ∞, and what the equations
    are off at these γ/p, which are not yet small. Of the spread: p/γ at the smallest d, the share of the signal.
    """
    dims, chains = (sizes.dims, sizes.chains) if what == "error" else (sizes.spread_dims, sizes.spread_chains)
    measure = error if what == "error" else spread
    values, relative = np.array([measure(point, d, dims[0], chains) for d in dims]).T
    found, uncertain = fitted(np.array(dims), values, relative)
    expected, first = -point.sum if what == "error" else -(1 + 2 * point.sum) / 2, math.log(dims[-1] / dims[0])
    if what == "error":
        limit = np.array([predicted(point, d, dims[0]) for d in dims])
        granted = abs(fitted(np.array(dims), limit, 0 * limit)[0] - expected) + (P_0 + M) / dims[0] / first
    else:
        granted = P_0 / GAMMA_0["spread"] / first
    tolerance = critical * uncertain + granted
    row = Row(what, point.kappa, point.delta, point.phase, found, expected + 0.0, uncertain, tolerance)
    return row, np.array([dims, values, relative * values])


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, count orders, simulate, judge, draw and typeset into ``out``; return whether every comparison passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    export(MODEL.dynamics("wide"), out, "veiga_phases")
    counted = table()
    (out / "orders.txt").write_text(counted + "\n", encoding="utf-8")
    say(counted + "\n")
    todo = [("error", point) for point in LEARNING] + [("spread", point) for point in SPREADING]
    critical = float(norm.isf(LEVEL / (2 * len(todo))))
    rows, series = [], []
    for what, point in tqdm(todo, "points", disable=not progress):
        row, data = judged(what, point, sizes, critical)
        say(str(row))
        rows.append(row)
        series.append(data)
    draw(rows, series, out / "phases.png")
    return _report(rows, out, say)


def _report(rows: list[Row], out: Path, say: Callable[[str], Any]) -> bool:
    states = [row.status for row in rows]
    status = next((s for s in ("FAIL", "UNDECIDED") if s in states), "PASS")
    power = max(row.tolerance + abs(row.found - row.expected) for row in rows)
    agree = f"{status}: {states.count('PASS')} of {len(rows)} powers of d agree"
    head = f"{agree}; one off by {power:.2f} would have been seen"
    (out / "verdict.txt").write_text("\n".join([head, *map(str, rows)]) + "\n", encoding="utf-8")
    numbers = [asdict(row) | {"status": row.status} for row in rows]
    facts = {"status": status, "level": LEVEL, "n_comparisons": len(rows), "detectable": power, "rows": numbers}
    (out / "verdict.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    say(f"\n{head}\nOrders, equations, figure and numbers are in {out}/{typeset(out, 'veiga_phases')}")
    return status == "PASS"


COLOUR = {"gradient flow": "C2", "plateau": "C0", "noise": "C1", "no equations": "C3"}


def draw(rows: list[Row], series: list[np.ndarray], path: Path) -> None:
    """The phases with the points simulated; the error, and the spread over runs, against d with the powers expected."""
    figure, (plane, *others) = sheet(3)
    delta = np.array([-1.0, 1.0])
    edges: dict[str, tuple[Any, Any]] = {
        "gradient flow": (-delta, 2.0),
        "noise": (-0.5 - delta, -delta),
        "no equations": (-2.0, -0.5 - delta),
    }
    for phase, (low, high) in edges.items():
        plane.fill_between(delta, low, high, color=COLOUR[phase], alpha=0.25, lw=0, label=phase)
    plane.plot(delta, -delta, color=COLOUR["plateau"], lw=3, label="plateau")
    plane.set(xlim=(-1, 1), ylim=(0, 1), xlabel=r"$\delta$: $\gamma\propto d^{-\delta}$")
    plane.set_ylabel(r"$\kappa$: $p\propto d^{\kappa}$")
    for row, (d, values, error_bars) in zip(rows, series, strict=True):
        plane.plot(
            row.delta,
            row.kappa,
            "o" if row.what == "error" else "s",
            color=COLOUR[row.phase],
            mec="black",
            clip_on=False,
        )
        ax = others[0 if row.what == "error" else 1]
        label = rf"$\kappa={row.kappa:g}$, $\delta={row.delta:g}$"
        marks = ax.errorbar(d, values, error_bars, fmt="o", ms=4, color=None, label=label)
        colour = marks.lines[0].get_color()
        ax.plot(d, values[-1] * (d / d[-1]) ** row.expected, "-", lw=1, color=colour)
    others[0].set(ylabel=r"$\epsilon_g$ of students that have learnt")
    others[1].set(ylabel="spread over runs / growth")
    for ax in others:
        ax.set(xlabel="$d$", xscale="log", yscale="log")
        ax.legend(frameon=False, fontsize=7)
    plane.legend(frameon=False, fontsize=7, loc="upper right")
    for ax, title in zip(others, ("error at fixed $t$", "at fixed time of the noise"), strict=True):
        ax.set_title(f"{title}; lines: powers expected", fontsize=9)
    figure.savefig(path, dpi=150)
