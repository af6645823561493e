"""The error at which over-parameterised students end, against their number of units K, for M teacher units and noise.

Goldt, Advani, Saxe, Krzakala & Zdeborová (NeurIPS 2019): it grows with K where only the first layer is trained, and
stays constant or falls where both are. All of it follows from one law of small learning rates,

    eg* = (η σ²/4) Σ_i a_i² E[g'(h_i)²] + O(η²),

at weights that reproduce the teacher. (There the error has the Hessian H = E[∇φ ∇φᵀ], one-pass SGD on labels with noise
σ makes steps of covariance η²σ²H, and so the error rests at (ησ²/4) tr H. To tr H second layers add 1/d.) Its cases:

- erf, second layers 1: M units copy the teacher's, L = K − M vanish; eg* = (ησ²/2π)(L + M/√3), as in the paper.
- erf, both layers: K/M students share a teacher unit as a_i = M/K, and average its noise; eg* = (ησ²/2π√3) M²/K.
- linear, ReLU, both layers: shares of balanced layers have Σ a_i² = 1; eg* = ησ² M/4 and ησ² M/8, whatever K is.

Where both layers are trained, weights that reproduce the teacher form a continuum. On it the noise moves them further,
at a rate of order η²σ²: the law is about the error before that, and the last two cases suppose where on it they are.

Three things are judged, comparisons counted: the solution of the equations of motion against the law, extrapolated to
η → 0; exact chains against that solution at finite η; and for ReLU, whose equations of motion are slow where students
coincide, exact chains against the law. Chains are extrapolated to d → ∞.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit
from tqdm import tqdm

from effdyn import derive, solve

from .problem import Problem, export
from .report import sheet, typeset

M, SIGMA, SEED = 2, 0.1, 2019
ETA = 0.2
"""Learning rate of the chains; those of ReLU take a quarter and an eighth of it."""
RATES = (0.05, 0.025, 0.0125)
"""From which the solutions are extrapolated to η → 0: each half of the one before."""
WINDOW = (8.0, 16.0)
"""Times ηt over which the error of chains is averaged."""
LEVEL = 1e-4
"""Probability, at most, that a right theory fails, over all comparisons."""
RESOLUTION = 0.1
"""The largest tolerance, relative, at which anything is decided: 1/K and 1/(K + 2), and M/√3 and M, differ by more."""
SLOPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "erf": lambda q: 2 / np.pi / np.sqrt(1 + 2 * q),
    "linear": np.ones_like,
    "relu": lambda q: np.full_like(q, 0.5),
}
"""E[g'(h)²] of each activation, for a field of variance q."""


@dataclass(frozen=True, slots=True)
class Family:
    """Students of one kind.

    Attributes
    ----------
    name : str
    activation, second_layer : str
        Of the model.
    rest : float or None
        The time ηt at which the error has come to rest; None where the equations of motion are not solved.
    formula : callable
        eg*/(ησ²) as a function of K, in closed form.
    """

    name: str
    activation: str
    second_layer: str
    rest: float | None
    formula: Callable[[int], float]

    def problem(self, K: int, eta: float) -> Problem:
        """Return K students that reproduce the teacher: shares of its units, or copies and units close to zero."""
        model = derive.TeacherStudent(activation=self.activation, second_layer=self.second_layer)
        params: dict[str, Any] = {"eta": eta, "sigma": SIGMA, "T": np.eye(M), "b": 1.0}
        R = np.zeros((K, M))
        if self.second_layer == "fixed":
            R[:M] = np.eye(M)
            spare = np.where(np.arange(K) < M, 0.0, 1e-4 * (1 + 0.1 * np.arange(K)))  # no two alike
            return Problem(model, {"Q": R @ R.T + np.diag(spare), "R": R}, params | {"a": 1.0}, SEED)
        share = M / K
        a, length = (share, 1.0) if self.activation == "erf" else (share**0.5, share**0.5)
        R[np.arange(K), np.arange(K) % M] = length
        return Problem(model, {"Q": R @ R.T, "R": R, "a": np.full(K, a)}, params | {"eta_a": eta}, SEED)

    def law(self, K: int) -> float:
        """Return eg*/(ησ²) = ¼ Σ a_i² E[g'(h_i)²] at the weights of :meth:`problem`."""
        y0 = self.problem(K, ETA).y0
        a = np.broadcast_to(y0.get("a", 1.0), K)
        return float(np.sum(a**2 * SLOPES[self.activation](np.diag(y0["Q"]))) / 4)


FAMILIES = (
    Family("erf, first layer", "erf", "fixed", 120.0, lambda K: (K - M + M / 3**0.5) / (2 * np.pi)),
    Family("erf, both layers", "erf", "trained", 240.0, lambda K: M**2 / K / (2 * np.pi * 3**0.5)),
    Family("linear, both layers", "linear", "trained", 30.0, lambda K: M / 4),
    Family("ReLU, both layers", "relu", "trained", None, lambda K: M / 8),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is: numbers of students, input dimensions, and chains at each."""

    students: tuple[int, ...]
    dims: tuple[int, int]
    runs: int


FULL = Sizes((2, 4, 6, 8), (200, 800), 48)
QUICK = Sizes((2, 4), (100, 300), 64)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison of errors over ησ².

    Attributes
    ----------
    what : {"limit", "chains"}
        Of the solution at η → 0 with the law; of chains with the solution (ReLU: with the law).
    family : str
    K : int
    found, expected, error, tolerance : float
        ``error`` is the standard error of chains; beyond ``tolerance`` they differ.
    """

    what: str
    family: str
    K: int
    found: float
    expected: float
    error: float
    tolerance: float

    @property
    def status(self) -> str:
        if self.tolerance > RESOLUTION * self.expected:
            return "UNDECIDED"
        return "PASS" if abs(self.found - self.expected) <= self.tolerance else "FAIL"

    def __str__(self) -> str:
        off = f"{self.found / self.expected - 1:+.4f}, granted {self.tolerance / self.expected:.4f}"
        return f"  {self.status:9} {self.what:6} {self.family:20} K = {self.K}: {self.found:.5f}, off by {off}"


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, judge, draw and typeset into ``out``; return whether every comparison passed."""
    sizes = QUICK if quick else FULL
    say = tqdm.write if progress else print
    export(FAMILIES[1].problem(M, ETA).model.dynamics(), out, "goldt_2019")
    count = 2 * len(sizes.students) * len(FAMILIES) - len(sizes.students)
    critical = float(stdtrit(sizes.runs - 1, 1 - LEVEL / count / 2))
    rows = []
    for family in FAMILIES:
        for K in sizes.students:
            new = [row for row in (limit(family, K), chains(family, K, sizes, critical)) if row]
            rows += new
            say("\n".join(map(str, new)))
    draw(rows, out / "error_against_width.png")
    return _report(rows, out, say)


# -- what is compared --------------------------------------------------------------------------------------------------


def limit(family: Family, K: int) -> Row | None:
    """Compare the solution, extrapolated to η → 0, with the law.

    The parabola through three rates leaves out η³. Granted is what it differs by from the straight line through the
    last two, η² at the least of the rates, and what the error still moved by during the second half of the time.
    """
    if family.rest is None:
        return None
    halves = np.array([solution(family, K, eta, np.array([0.5, 1.0]) * family.rest) for eta in RATES])
    parabola = halves[0] / 3 - 2 * halves[1] + 8 * halves[2] / 3
    line = 2 * halves[2] - halves[1]
    granted = abs(parabola[1] - line[1]) + abs(parabola[1] - parabola[0])
    return Row("limit", family.name, K, float(parabola[1]), family.formula(K), 0.0, float(granted))


def chains(family: Family, K: int, sizes: Sizes, critical: float) -> Row:
    """Compare chains with the solution at the same times; those of ReLU, extrapolated to η → 0, with the law."""
    if family.rest is not None:
        found, error, next_term = floor(family, K, ETA, sizes)
        times = np.linspace(*WINDOW, 9)
        expected = float(np.mean(solution(family, K, ETA, times)))
        return Row("chains", family.name, K, found, expected, error, critical * error + next_term)
    (coarse, e1, n1), (fine, e2, n2) = (floor(family, K, rate, sizes) for rate in (ETA / 4, ETA / 8))
    found, error = 2 * fine - coarse, float(np.hypot(2 * e2, e1))
    expected = family.formula(K)
    square = (found - coarse) ** 2 / expected  # what a straight line in η leaves out: the square of what it takes out
    return Row("chains", family.name, K, found, expected, error, critical * error + 2 * n2 + n1 + square)


def solution(family: Family, K: int, eta: float, times: np.ndarray) -> np.ndarray:
    """Return eg/(ησ²) of the equations of motion at times ηt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solve.SymmetricStart)  # students that share a unit are meant to be alike
        found = family.problem(K, eta).theory(np.concatenate([[0.0], times]) / eta)
    return np.asarray(found.eg.values[1:] / (eta * SIGMA**2))


def floor(family: Family, K: int, eta: float, sizes: Sizes) -> tuple[float, float, float]:
    """Return eg/(ησ²) of chains over the window, at d → ∞; its standard error; and what 1/d² may leave.

    That is 1/d of either dimension, each times the number of directions K + M which are not among the d − (K + M).
    """
    small, large = sizes.dims
    times = np.concatenate([[0.0], np.linspace(*WINDOW, 9)]) / eta
    runs = family.problem(K, eta).simulation(sizes.dims, sizes.runs, times).eg.isel(t=slice(1, None)).mean("t")
    means = runs.transpose("run", "d").values / (eta * SIGMA**2)
    weights = np.array([-small, large]) / (large - small)
    mean = float(means.mean(0) @ weights)
    error = float(np.sqrt(means.var(0, ddof=1) / len(means) @ weights**2))
    return mean, error, mean * (K + M) ** 2 / (small * large)


# -- what is kept ------------------------------------------------------------------------------------------------------


def _report(rows: list[Row], out: Path, say: Callable[[str], Any]) -> bool:
    states = [row.status for row in rows]
    status = next((s for s in ("FAIL", "UNDECIDED") if s in states), "PASS")
    # An error of theory by this, of either sign, would have failed on these data.
    power = max((row.tolerance + abs(row.found - row.expected)) / row.expected for row in rows)
    agree = f"{status}: {states.count('PASS')} of {len(rows)} comparisons agree"
    head = f"{agree}; theory off by {100 * power:.1f} % would have been seen in each"
    text = "\n".join([head, *map(str, rows)])
    (out / "verdict.txt").write_text(text + "\n", encoding="utf-8")
    numbers = [asdict(row) | {"status": row.status} for row in rows]
    facts = {"status": status, "level": LEVEL, "n_comparisons": len(rows), "detectable": power, "rows": numbers}
    (out / "verdict.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    say(f"\n{head}\nEquations, figure and numbers are in {out}/{typeset(out, 'goldt_2019')}")
    return status == "PASS"


def draw(rows: list[Row], path: Path) -> None:
    """The error at rest against K: lines the law, squares the solution for η → 0, circles chains, and bars what the
    solution (ReLU: the law) says of them."""
    figure, axes = sheet(2)
    for n, family in enumerate(FAMILIES):
        ax = axes[0 if family.second_layer == "fixed" else 1]
        mine = [row for row in rows if row.family == family.name]
        K = np.linspace(M, max(row.K for row in mine), 61)
        ax.plot(K, [family.formula(k) for k in K], color=f"C{n}", label=family.name)
        for what, marker, fill in (("limit", "s", f"C{n}"), ("chains", "o", "white")):
            these = [row for row in mine if row.what == what]
            at, found, errors = ([getattr(row, a) for row in these] for a in ("K", "found", "error"))
            ax.errorbar(
                at, found, errors, fmt=marker, ms=4 if what == "limit" else 7, color=f"C{n}", mfc=fill, zorder=3
            )
        judged = [row for row in mine if row.what == "chains"]
        ax.plot([row.K for row in judged], [row.expected for row in judged], "_", color=f"C{n}", ms=14)
    for ax, title in zip(axes, ("first layer trained", "both layers trained"), strict=True):
        ax.plot([], [], "_", color="0.4", ms=14, label=rf"solution, $\eta={ETA}$")
        ax.plot([], [], "s", color="0.4", ms=4, label=r"solution, $\eta\to0$")
        ax.plot(
            [], [], "o", color="0.4", mfc="white", ms=7, label=rf"chains, $d\to\infty$, $\eta={ETA}$ (ReLU: $\to0$)"
        )
        ax.set(
            xlabel="students $K$", ylabel=r"$\epsilon_g^*/\eta\sigma^2$", title=f"{title}, $M = {M}$", ylim=(0, None)
        )
        ax.set_xticks(sorted({row.K for row in rows}))
        ax.set_ylim(top=1.4 * ax.get_ylim()[1])
        ax.legend(frameon=False, fontsize=7, loc="upper left", ncols=2)
    figure.savefig(path, dpi=150)
