"""A linear unit learns to classify what a linear teacher labels: logistic regression, beside hinge and perceptron loss.

Labels are ±1: the sign of the teacher's field, flipped with probability p, or random with P(y = 1) = 1/(1 + e^(−y*)).
Student and teacher are one vector each, so two numbers move, Q = |w|²/d and R = w·w*/d. Perceptron and hinge have
right-hand sides in closed form; the logistic loss takes a rule of one or two dimensions. Its error rate is that of the
direction, arccos(ρ)/π with ρ = R/√(QT).

Without noise the weights grow for ever and the error falls as A t^(-1/3), as Biehl & Riegler, Europhys. Lett. 28, 525
(1994), found for the perceptron. Here the amplitude A of any loss of the margin comes from three integrals; see
:func:`amplitude`. With noise the weights stay finite, and the error at constant η stays above a floor, which falls with
η.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from effdyn import derive, validate
from effdyn.validate import figures

from .problem import Problem, export
from .report import report, sheet

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    Datasets = Mapping[str, xr.Dataset]
    Pairs = Mapping[str, tuple[xr.Dataset, xr.Dataset]]

SEED = 1990
PUSHES: dict[str, Callable[[float], float]] = {
    "logistic": lambda margin: 1 / (1 + math.exp(margin)) if margin < 700 else 0.0,
    "hinge": lambda margin: float(margin < 1),
    "perceptron": lambda margin: float(margin < 0),
}
"""−dℓ/dm of each loss of the margin m = yφ."""
FLIPS = (0.05, 0.2)
RATES = (0.3, 1.0, 3.0)
TEACHER = 4.0
"""|w*|²/d of the teacher whose labels are logistic; how often they are wrong depends on it."""
LATE = 1e4
"""Until when the theory is drawn."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the simulations are.

    Attributes
    ----------
    t_end : float
        Until when.
    dims : tuple of int
        Input dimensions of the exact chains.
    chains : int
        Replicas at each dimension.
    networks, network_d, network_t : int, int, float
        Real networks: replicas, dimension, and until when.
    """

    t_end: float
    dims: tuple[int, ...]
    chains: int
    networks: int
    network_d: int
    network_t: float


FULL = Sizes(t_end=300.0, dims=(1000, 4000), chains=48, networks=32, network_d=1000, network_t=30.0)
QUICK = Sizes(t_end=60.0, dims=(200, 800), chains=24, networks=32, network_d=300, network_t=15.0)


def problem(labels: str, loss: str, eta: float = 1.0, flip: float = 0.0) -> Problem:
    """Return a student that knows nothing of the teacher yet."""
    model = derive.TeacherStudent(activation="linear", labels=labels, loss=loss)
    teacher = TEACHER if labels == "logistic" else 1.0
    params = {"eta": eta, "T": [[teacher]], "a": 1.0, "b": 1.0} | ({"flip": flip} if labels == "sign" else {})
    return Problem(model, {"Q": [[1.0]], "R": [[0.0]]}, params, SEED)


def clean(loss: str) -> str:
    """Return the name of the problem without label noise."""
    return f"{loss} loss, clean labels"


def flipped(loss: str, p: float) -> str:
    """Return the name of the problem with flipped labels."""
    return f"{loss} loss, flips {p:g}"


def random(eta: float) -> str:
    """Return the name of the problem of logistic regression proper."""
    return f"logistic labels, eta {eta:g}"


def problems() -> dict[str, Problem]:
    """Return what is simulated and judged, by name."""
    both = [(loss, p) for loss in ("logistic", "hinge") for p in FLIPS]
    return {
        **{clean(loss): problem("sign", loss) for loss in PUSHES},
        **{flipped(loss, p): problem("sign", loss, flip=p) for loss, p in both},
        **{random(eta): problem("logistic", "logistic", eta) for eta in RATES},
    }


def amplitude(push: Callable[[float], float], eta: float = 1.0) -> float:
    """Return A of error_rate → A t^(-1/3), for clean labels and a teacher of any length.

    At late times B = √Q is large, the angle θ small, and c = Bθ tends to a constant. Only examples of margins of order
    one still push, in a layer of thickness 1/B around the decision boundary, where y = sign(s + c v) with v ~ N(0, 1)
    and s = φ has the density 1/(√(2π) B). With ψ = −dℓ/dm and

        I_1 = 2∫ψ(s) E[(s + c v)_+] ds,   I_2 = 2∫ψ(s) s Φ(s/c) ds,   I_3 = 2∫ψ(s)² Φ(s/c) ds,

    d(Q − R²/T)/dt = 0 gives c from 2 (I_1 − I_2) = η I_3, then dB/dt = η I_1/(√(2π) B²), and error_rate = c/(πB).

    Examples
    --------
    >>> round(amplitude(PUSHES["perceptron"]), 4)  # c = η/√(2π) and A = (2/3)^(1/3)/π
    0.2781
    """
    from scipy.integrate import quad
    from scipy.optimize import brentq
    from scipy.stats import norm

    def integral(weight: Callable[[float, float], float], c: float) -> float:
        pieces = ((-math.inf, 0.0), (0.0, 1.0), (1.0, math.inf))  # pushes may jump at 0 and 1
        return 2 * sum(quad(lambda s: weight(s, s / c), *piece, epsabs=1e-12)[0] for piece in pieces)

    def first(c: float) -> float:
        return integral(lambda s, x: push(s) * c * (x * norm.cdf(x) + norm.pdf(x)), c)

    def balance(c: float) -> float:
        second = integral(lambda s, x: push(s) * s * norm.cdf(x), c)
        third = integral(lambda s, x: push(s) ** 2 * norm.cdf(x), c)
        return 2 * (first(c) - second) - eta * third

    c = brentq(balance, 1e-3 * eta, 10 * (1 + eta))
    return c / math.pi * (math.sqrt(2 * math.pi) / (3 * eta * first(c))) ** (1 / 3)


def reproduce(out: Path, quick: bool, progress: bool) -> bool:
    """Derive, solve, simulate, compare, draw and typeset into ``out``; return whether every verdict passed."""
    sizes = QUICK if quick else FULL
    dynamics = problem("logistic", "logistic").model.dynamics()
    say = tqdm.write if progress else print
    say(str(dynamics) + "\n")
    export(dynamics, out, "logistic_teacher")

    cases = problems()
    runs, verdicts = {}, {}
    say(f"Exact chains of Q and R at d = {', '.join(map(str, sizes.dims))}, {sizes.chains} each")
    for name, case in cases.items():
        runs[name] = case.both(sizes.dims, sizes.chains, spread_times(sizes.t_end, 30), "gram", progress)
        verdicts[name] = validate.compare(*runs[name])
        save(out, "theory", name, runs[name][0])
        save(out, "chains", name, runs[name][1])
    say(f"{sizes.networks} networks of d = {sizes.network_d}")
    for name in (random(1.0), flipped("hinge", FLIPS[0])):
        times = np.linspace(0, sizes.network_t, 11)
        theory, networks = cases[name].both(sizes.network_d, sizes.networks, times, "network", progress)
        verdicts[f"networks, {name}"] = validate.compare(theory, networks)
        save(out, "networks", name, networks)
    lines = {name: case.theory(spread_times(LATE, 200)) for name, case in cases.items()}
    draw_errors(lines, runs, out / "error_rates.png")
    draw_overlaps(lines, runs, out / "overlaps.png")
    return report(verdicts, out, "logistic_teacher", say)


def spread_times(t_end: float, count: int) -> np.ndarray:
    """Return 0 and times in equal ratios up to the last."""
    return np.concatenate([[0.0], np.geomspace(0.1, t_end, count)])


def save(out: Path, kind: str, name: str, data: "xr.Dataset") -> None:
    """Write a dataset under a file name made of the problem's name."""
    data.to_netcdf(out / f"{kind}_{re.sub('[^a-z0-9.]+', '_', name)}.nc")


# -- figures -----------------------------------------------------------------------------------------------------------


def draw_errors(lines: "Datasets", runs: "Pairs", path: Path) -> None:
    """The error rate without noise, with flipped labels, and with logistic labels."""
    figure, axes = sheet(3)
    for colour, (loss, push) in zip(figures.COLOURS, PUSHES.items(), strict=False):
        name, late = clean(loss), np.geomspace(3, LATE, 2)
        _draw(axes[0], name, lines, runs, colour, f"{loss} loss")
        axes[0].plot(late, amplitude(push) * late ** (-1 / 3), ":", color=colour, zorder=4)
    axes[0].plot([], [], ":", color="0.3", label=r"$A\,t^{-1/3}$")
    for colour, p in zip(figures.COLOURS, FLIPS, strict=False):
        for dash, loss in (("-", "logistic"), ("--", "hinge")):
            _draw(axes[1], flipped(loss, p), lines, runs, colour, f"{loss} loss, {p:.0%} flipped", dash)
    for colour, eta in zip(figures.COLOURS, RATES, strict=False):
        _draw(axes[2], random(eta), lines, runs, colour, rf"$\eta = {eta:g}$")
    titles = (r"clean labels, $\eta = 1$", r"flipped labels, $\eta = 1$", "logistic labels, logistic loss")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set(xlabel=figures.CLOCKS["steps/d"], ylabel=r"$\arccos(\rho)/\pi$", title=title, ylim=(4e-3, 0.6))
        ax.legend(loc="lower left", handlelength=2.4, frameon=False)
    figure.savefig(path, dpi=150)


def draw_overlaps(lines: "Datasets", runs: "Pairs", path: Path) -> None:
    """Logistic regression: Q and R go to the teacher's T, the sooner and the less exactly the larger η is."""
    figure, axes = sheet(2)
    for ax, quantity in zip(axes, "QR", strict=True):
        for colour, eta in zip(figures.COLOURS, RATES, strict=False):
            _draw(ax, random(eta), lines, runs, colour, rf"$\eta = {eta:g}$", quantity=quantity)
        ax.axhline(TEACHER, ls=":", color="0.3", label="$T$")
        ax.set_xscale("log")
        ax.set(xlabel=figures.CLOCKS["steps/d"], ylabel=f"${quantity}$")
    axes[0].legend(loc="upper left", frameon=False)
    axes[1].legend(loc="lower right", frameon=False)
    axes[0].set_title("length of the student")
    axes[1].set_title("overlap with the teacher")
    figure.savefig(path, dpi=150)


def _draw(
    ax: "Axes",
    name: str,
    lines: "Datasets",
    runs: "Pairs",
    colour: str,
    label: str,
    dash: str = "-",
    quantity: str = "error_rate",
) -> None:
    """Draw theory as a line and the chains of the largest d as points with their standard error, without t = 0."""
    line, chains = lines[name][quantity][1:], runs[name][1].isel(d=-1)[quantity][:, 1:]
    ax.plot(line.t, line.values.squeeze(), color=colour, ls=dash, label=label)
    mean, error = chains.mean("run"), chains.std("run", ddof=1) / np.sqrt(chains.sizes["run"])
    ax.errorbar(
        chains.t,
        mean.values.squeeze(),
        error.values.squeeze(),
        fmt="o",
        ms=3.0,
        color=colour,
        mfc="white",
        elinewidth=1,
        zorder=3,
    )
