"""Figures of theory and simulation in one style: theory as lines; the mean over runs as points with its standard error;
±1 standard deviation over runs as a band. Matplotlib is imported by the first figure.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .comparable import sample_moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .verdict import Verdict

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers; without its yellow, which is lost on white."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)))
"""They change with the colours, so that of curves that coincide each shows in the gaps of the next."""
LOGARITHMIC = ("eg", "error_rate", "loss")
"""Drawn on a logarithmic axis in a verdict's figure where theory is positive over more than a decade."""
POINTS = 26
"""At most this many times are marked by a point."""
LEGEND = 12
"""With more curves than this a legend hides more than it tells."""
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "lines.linewidth": 1.6,
    "figure.dpi": 110,
}
CLOCKS = {
    "steps/d": "$t$ = steps/$d$",
    "eta*steps/d": r"$t$ = $\eta\,$steps/$d$",
    "eta*steps/(K*d)": r"$t$ = $\eta\,$steps/$(Kd)$",
}
SYMBOLS = {
    "eg": r"$\epsilon_g$",
    "error_rate": r"$\epsilon_{01}$",
    "loss": r"$\langle\ell\rangle$",
    "bias": r"$\beta$",
    "cosine": r"$\rho$",
    "cosine_students": r"$\varrho$",
}


def overlaps(
    theory: xr.Dataset | None, simulation: xr.Dataset | None = None, ax: Axes | None = None, *, name: str = "R"
) -> Axes:
    """Draw every component of a variable (``R``, ``Q``, ``a``, …) against time.

    Parameters
    ----------
    theory : xarray.Dataset or None
        Drawn as lines.
    simulation : xarray.Dataset, optional
        As ``validate.simulate`` returns it; of several d the largest.
    ax : Axes, optional
        By default that of a new figure.
    name : str
        The variable.

    Examples
    --------
    >>> t = np.linspace(0, 5, 50)
    >>> R = xr.DataArray(np.tanh(np.outer(t, [1.0, 0.2])), dims=("t", "student"), coords={"t": t})
    >>> ax = overlaps(R.to_dataset(name="a"), name="a")
    >>> [line.get_label() for line in ax.lines]
    ['$a_{1}$', '$a_{2}$']
    """
    ax = _axes(ax)
    labels: dict[str, Any] = {}
    if theory is not None:
        for index, (label, values) in enumerate(_components(theory[name])):
            labels[label] = ax.plot(theory["t"], values, label=label, **_line(index))[0]
    if simulation is not None:
        simulation = _largest(simulation)
        mean, sd, n = sample_moments(simulation, name)
        for index, ((label, m), (_, s)) in enumerate(zip(_components(mean), _components(sd), strict=True)):
            _points(ax, simulation["t"].values, m, s, n, index, "" if label in labels else label)
            labels.setdefault(label, None)
    _label(ax, theory if theory is not None else simulation, _symbol(name))
    _legend(ax, len(labels))
    return ax


def error_curve(
    theory: xr.Dataset | None,
    simulation: xr.Dataset | None = None,
    ax: Axes | None = None,
    *,
    name: str | None = None,
    log: str = "y",
) -> Axes:
    """Draw the generalisation error (``eg``, or ``error_rate`` where labels are ±1), or another scalar, against time.

    ``log`` names the axes that are logarithmic: "y", "x", "xy" or "".
    """
    if name is None:
        given = theory if theory is not None else simulation
        name = "error_rate" if given is not None and "error_rate" in given and "eg" not in given else "eg"
    ax = overlaps(theory, simulation, ax, name=name)
    if "y" in log:
        ax.set_yscale("log", nonpositive="clip")  # a band may reach below zero
    if "x" in log:
        ax.set_xscale("log", nonpositive="mask")  # t = 0 has no place there
    return ax


def deviations(verdict: Verdict, ax: Axes | None = None, *, name: str | None = None) -> Axes:
    """Draw deviations in standard errors, by component, with the criterion; violations are circled.

    Dashed lines are what noise alone is allowed; the grey band adds the allowance for finite d, which is wide where
    runs hardly fluctuate (it is that of the strictest component at each time). Deviations within the error of the
    numbers themselves are left out.

    Parameters
    ----------
    verdict : Verdict
        From ``validate.compare``.
    ax : Axes, optional
        By default that of a new figure.
    name : str, optional
        The observable; by default the first.
    """
    ax = _axes(ax)
    table, name = _rows(verdict, name)
    counted = table.isel(comparison=table.counted.values & table.resolved.values & np.isfinite(table.z.values))
    z = counted.z.values
    critical = verdict.critical if np.isfinite(verdict.critical) else 0.0
    limit = 1.25 * max(critical, float(abs(z).max(initial=0.0)), 1.0)
    times = np.unique(counted.t.values)
    if times.size and critical:
        with np.errstate(divide="ignore"):
            allowed = np.minimum(counted.tolerance.values / counted.standard_error.values, 10 * limit)
        strictest = np.array([allowed[counted.t.values == t].min() for t in times])
        ax.fill_between(times, -strictest, strictest, color="0.9", lw=0, zorder=0)
        for side in (-critical, critical):
            ax.axhline(side, color="0.5", lw=0.8, ls="--", zorder=1)
    ax.axhline(0.0, color="0.5", lw=0.8, zorder=1)
    for index, label in enumerate(dict.fromkeys(table.component.values.tolist())):
        part = counted.isel(comparison=counted.component.values == label)
        ax.plot(part.t, part.z, ls="none", marker=".", ms=4, color=_line(index)["color"], label=_math(label))
    wrong = counted.isel(comparison=~counted.passed.values & np.isfinite(counted.tolerance.values))
    if wrong.sizes["comparison"]:
        ax.plot(wrong.t, wrong.z, ls="none", marker="o", ms=6, mfc="none", mec="#B00000", mew=0.7)
    ax.set_ylim(-limit, limit)
    _label(ax, table, f"{_symbol(name)}: deviation / SE")
    return ax


def deviation_vs_d(verdict: Verdict | xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw each observable's deviation from theory against d, on logarithmic axes, with a guide: 1/d, or 1/d² where
    theory is to order 1/d.

    The root mean square over components and times; the dotted line of the same colour is that of its standard error,
    the level at which a deviation is noise.

    Parameters
    ----------
    verdict : Verdict or its table
        Of a simulation with several d.
    ax : Axes, optional
        By default that of a new figure.
    """
    table = verdict if isinstance(verdict, xr.Dataset) else verdict.table
    if "mean_at_d" not in table:
        raise ValueError("a deviation against d needs several d: simulate(..., d=[100, 200, 400]), then compare")
    ax = _axes(ax)
    table = table.isel(comparison=table.counted.values).sortby("d")
    d = table.d.values.astype(float)
    largest = 0.0
    for index, name in enumerate(dict.fromkeys(table.observable.values.tolist())):
        part = table.isel(comparison=table.observable.values == name)
        at_d = part.mean_at_d - part.theory_at_d, part.standard_error_at_d
        size, noise = (np.sqrt((array**2).mean("comparison")).values for array in at_d)
        colour = COLOURS[index % len(COLOURS)]
        ax.loglog(d, size, "o-", ms=4, color=colour, label=_symbol(name))
        ax.loglog(d, noise, ":", lw=1.0, color=colour, label="its standard error" if index == 0 else None)
        largest = max(largest, float(size[0]))
    order, label = (2, "$1/d^2$") if abs(table.correction).max() > 0 else (1, "$1/d$")
    ax.loglog(d, 1.6 * largest * (d[0] / d) ** order, "--", color="0.5", lw=1.0, label=label)
    _decades(ax, d)
    ax.set_xlabel("input dimension $d$")
    ax.set_ylabel("rms |mean − theory|")
    ax.legend(handlelength=1.6, frameon=False)
    return ax


def variances(verdict: Verdict, ax: Axes | None = None, *, name: str | None = None) -> Axes:
    """Draw variances over runs in units of what theory predicts to order 1/d, with what each is allowed.

    Parameters
    ----------
    verdict : Verdict
        Of a theory from ``dynamics.fluctuations()``.
    ax : Axes, optional
        By default that of a new figure.
    name : str, optional
        The observable; by default the first.
    """
    if verdict.variances is None:
        raise ValueError("variances are predicted by theory to order 1/d: integrate dynamics.fluctuations()")
    ax = _axes(ax)
    _, name = _rows(verdict, name)
    table = verdict.variances
    table = table.isel(comparison=(table.observable.values == f"Var {name}") & table.counted.values)
    table = table.isel(comparison=~table.pooled.values & (table.theory.values > 0))
    allowed = (table.tolerance / table.theory).values
    for index, label in enumerate(dict.fromkeys(table.component.values.tolist())):
        part = table.isel(comparison=table.component.values == label)
        for d, marker in zip(np.unique(part.d.values), "osD^v<>" * 9, strict=False):
            at_d = part.isel(comparison=part.d.values == d)
            ax.errorbar(
                at_d.t, at_d["mean"] / at_d.theory, at_d.standard_error / at_d.theory, ls="none", marker=marker, ms=3.4,
                color=_line(index)["color"], mfc="white", mew=1.0, elinewidth=1.0,
            )  # fmt: skip
    if allowed.size:
        ax.axhspan(1 - allowed.min(), 1 + allowed.min(), color="0.9", lw=0, zorder=0)
    ax.axhline(1.0, color="0.5", lw=0.8, zorder=1)
    _label(ax, verdict.table, f"Var {_symbol(name)} / predicted")
    return ax


def bands(
    theory: xr.Dataset,
    simulation: xr.Dataset | None = None,
    ax: Axes | None = None,
    *,
    d: int | None = None,
    name: str = "R",
) -> Axes:
    """Draw the mean that theory predicts at input dimension d, with bands that hold about 95 % of runs.

    Parameters
    ----------
    theory : xarray.Dataset
        A solution of ``dynamics.fluctuations()``; the limit is drawn thin.
    simulation : xarray.Dataset, optional
        Means over runs as points, ±1 standard deviation over runs as bars with ends.
    ax : Axes, optional
        By default that of a new figure.
    d : int, optional
        By default the (largest) one of the simulation.
    name : str
        The variable.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> params = dict(eta=0.5, sigma=0.1, T=[[1.0]], a=1.0, b=1.0)
    >>> sol = solve.integrate(dyn.fluctuations(), (0, 5), y0=dict(Q=[[0.3]], R=[[0.1]]), params=params)
    >>> ax = bands(sol, d=50, name="eg")
    >>> len(ax.collections)
    1
    """
    simulation = None if simulation is None else _largest(simulation)
    if d is None:
        if simulation is None:
            raise ValueError("bands are those of an input dimension: give d, or a simulation")
        d = int(simulation["d"])
    ax = _axes(ax)
    parts = [theory[key] for key in (name, f"{name}_mean_correction", f"{name}_variance")]
    curves = [[values for _, values in _components(part.rename(name))] for part in parts]
    labels = [label for label, _ in _components(theory[name])]
    for index, (label, limit, correction, variance) in enumerate(zip(labels, *curves, strict=True)):
        style, mean, half = _line(index), limit + correction / d, 2 * np.sqrt(np.maximum(variance, 0.0) / d)
        ax.fill_between(theory["t"], mean - half, mean + half, color=style["color"], alpha=0.15, lw=0)
        ax.plot(theory["t"], limit, color=style["color"], lw=0.7)
        ax.plot(theory["t"], mean, label=label, **style)
    if simulation is not None:
        mean_, sd, _ = sample_moments(simulation, name)
        for index, ((_, m), (_, s)) in enumerate(zip(_components(mean_), _components(sd), strict=True)):
            ax.errorbar(
                simulation["t"].values, m, s, fmt="o", ms=3.4, color=_line(index)["color"], mfc="white", elinewidth=0.8,
                capsize=2,
            )  # fmt: skip
    _label(ax, theory, _symbol(name))
    _legend(ax, len(labels))
    return ax


def verdict(found: Verdict) -> Figure:
    """Draw a verdict: curves above, deviations in standard errors below, one column per observable.

    For several d the points are the extrapolation to d → ∞, and a last panel shows the deviation against d. For a
    theory to order 1/d a third row has variances over what is predicted.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(found.table.observable.values.tolist()))
    several = "mean_at_d" in found.table
    columns, spread = len(names) + several, found.variances is not None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.5 * columns, 7.2 if spread else 5.4), layout="constrained")
        grid = figure.add_gridspec(2 + spread, columns, height_ratios=(3, 2, 2)[: 2 + spread])
        for column, name in enumerate(names):
            lower = figure.add_subplot(grid[1, column])
            upper = figure.add_subplot(grid[0, column], sharex=lower)
            _curves(found, upper, name)
            deviations(found, lower, name=name)
            upper.tick_params(labelbottom=False)
            upper.set_xlabel("")
            if spread:
                variances(found, figure.add_subplot(grid[2, column], sharex=lower), name=name)
        if several:
            deviation_vs_d(found, figure.add_subplot(grid[:, -1]))
        lines = f"{found.status}   {found.simulation}", f"theory: {found.theory}"
        title = "\n".join(fill(line, 50 * columns) for line in lines)
        figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def _curves(found: Verdict, ax: Axes, name: str) -> None:
    """Draw the rows of one observable from the table."""
    table, _ = _rows(found, name)
    several = "mean_at_d" in table
    labels = list(dict.fromkeys(table.component.values.tolist()))
    for index, label in enumerate(labels):
        part = table.isel(comparison=table.component.values == label)
        ax.plot(part.t, part.theory, label=_math(label), **_line(index))
        n = int(part.n[0])
        spread = part.standard_error.values * np.sqrt(n)
        _points(ax, part.t.values, part["mean"].values, spread, n, index, "", band=not several)
    _label(ax, table, _symbol(name))
    _legend(ax, len(labels))
    positive = table.theory.values[table.theory.values > 0]
    if name in LOGARITHMIC and positive.size and positive.max() > 10 * positive.min():
        ax.set_yscale("log", nonpositive="clip")  # a band may reach below zero
        # Smaller numbers are their own error.
        ax.set_ylim(bottom=max(positive.min(), found.numerical * positive.max()) / 2)


def _points(
    ax: Axes, t: np.ndarray, mean: np.ndarray, sd: np.ndarray, n: int, index: int, label: str, band: bool = True
) -> None:
    colour = _line(index)["color"]
    if np.isfinite(sd).all() and band:
        ax.fill_between(t, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0)
    # Which times are marked differs from curve to curve, so that points of close curves do not cover each other.
    every = -(-t.size // POINTS)
    some = slice(index % every, None, every)
    error = np.where(np.isfinite(sd), sd, 0.0) / np.sqrt(n)
    ax.errorbar(
        t[some], mean[some], error[some], fmt="o", ms=3.4, color=colour, mfc="white", mew=1.0, elinewidth=1.0,
        label=label or "_nolegend_", zorder=3,
    )  # fmt: skip


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        return plt.subplots(figsize=(4.6, 3.4), layout="constrained")[1]


def _rows(found: Verdict, name: str | None) -> tuple[xr.Dataset, str]:
    names = list(dict.fromkeys(found.table.observable.values.tolist()))
    if name is not None and name not in names:
        raise ValueError(f"name={name!r} was not compared; there are {', '.join(names)}")
    name = names[0] if name is None else name
    table = found.table.isel(comparison=found.table.observable.values == name)
    return table, name


def _largest(simulation: xr.Dataset) -> xr.Dataset:
    return simulation.isel(d=int(np.argmax(simulation["d"].values))) if "d" in simulation.dims else simulation


def _components(array: xr.DataArray) -> list[tuple[str, np.ndarray]]:
    """Return (label, values over t) of each component, symmetric duplicates once."""
    units = [str(dim) for dim in array.dims if dim != "t"]
    values = array.transpose("t", *units).values
    twins = len(units) == 2 and units[1] == f"{units[0]}_2"
    return [
        (_math(f"{array.name}[{','.join(str(i + 1) for i in index)}]" if index else str(array.name)), values[:, *index])
        for index in np.ndindex(values.shape[1:])
        if not (twins and index[0] > index[1])
    ]


def _line(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "ls": DASHES[index % len(DASHES)]}


def _symbol(name: str) -> str:
    return SYMBOLS.get(name, f"${name}$" if len(name) == 1 else name.replace("_", " "))


def _math(component: str) -> str:
    """Return the label ``$R_{1,2}$`` of a component ``R[1,2]``."""
    name, _, index = component.partition("[")
    index = index.rstrip("]")
    if not index:
        return _symbol(name)
    index = index.replace(",", "") if all(len(i) == 1 for i in index.split(",")) else index
    return f"{_symbol(name).rstrip('$')}_{{{index}}}$" if _symbol(name).startswith("$") else component


def _label(ax: Axes, source: Any, ylabel: str) -> None:
    ax.set_xlabel(CLOCKS.get(source.attrs.get("clock", "steps/d"), "$t$"))
    ax.set_ylabel(ylabel)


def _legend(ax: Axes, curves: int) -> None:
    """Name the curves, unless there is one, or too many: handles long enough for dashes, on a pale ground."""
    if 1 < curves <= LEGEND:
        ax.legend(
            ncols=1 if curves <= 4 else 2, handlelength=2.6, columnspacing=1.2, frameon=True, framealpha=0.85,
            edgecolor="none",
        )  # fmt: skip


def _decades(ax: Axes, d: np.ndarray) -> None:
    """Mark the dimensions that were simulated, in plain numbers."""
    from matplotlib.ticker import NullFormatter

    if d.size <= 6:
        ax.set_xticks(d, [f"{value:g}" for value in d])
        ax.xaxis.set_minor_formatter(NullFormatter())
