"""Theory to order 1/d on the side of the comparison: its variables, and variances over runs against them.

A variance over n runs is compared with C/d by the chi-squared distribution, whose degrees of freedom are those that
the runs' own kurtosis leaves (Box): for normal runs ν = n − 1, exactly; for others ν = 2(n − 1)/(κ − 1), which gives
the sample variance its first two moments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import chi2, norm

from .comparable import ROUNDING, NotComparable

DIFFUSION = 1e-3
"""Relative error of mean corrections and variances: that of the rule over the fields of one example."""
MANY = 300
"""Runs from which on the scatter of averaged squares is known well enough to take degrees of freedom from it; of fewer
it can be far too small by chance (of two runs it is zero), and n − 1 are taken: those of normal runs in full step."""
KINDS = ("mean_correction", "variance")


def has_fluctuations(theory: xr.Dataset) -> bool:
    """Return whether theory states mean corrections and variances to order 1/d."""
    return "fluctuations" in theory.attrs


def check_start(theory: xr.Dataset, simulation: xr.Dataset) -> None:
    """Refuse fluctuations from other initial weights than those simulated."""
    here, there = theory.attrs.get("initial"), simulation.attrs.get("init")
    if None not in (here, there) and here != there:
        raise NotComparable(
            "initial values", f"initial={here!r}", f"init={there!r}",
            "Their fluctuations differ: give solve.integrate(…, initial=…) and validate.simulate(…, init=…) the same.",
        )  # fmt: skip


def of_limit(theory: xr.Dataset) -> xr.Dataset:
    """Return theory without what it says of fluctuations."""
    extra = [name for name in theory.data_vars if str(name) == "covariance" or str(name).endswith(KINDS)]
    return theory.drop_vars(extra)


def predicted(theory: xr.Dataset, names: Sequence[str], notes: list[str]) -> list[str]:
    """Return those of the names for which theory has an order 1/d, and note the others."""
    found = [name for name in names if all(f"{name}_{kind}" in theory for kind in KINDS)]
    if others := [name for name in names if name not in found]:
        notes.append(f"not compared, theory has no order 1/d of: {', '.join(others)}")
    if not found:
        raise NotComparable(
            "variables", list(theory.data_vars), list(names), "None of them has an order 1/d in theory."
        )
    return found


def of_order_one(theory: xr.Dataset, name: str, kind: str, units: Sequence[object]) -> np.ndarray:
    """Return ``<name>_<kind>``, shape (t, units), or zeros where theory is the limit alone."""
    if not has_fluctuations(theory):
        return np.zeros(theory[name].transpose("t", *units).shape)
    return np.asarray(theory[f"{name}_{kind}"].transpose("t", *units).values, float)


def compare_variances(
    theory: xr.Dataset, simulation: xr.Dataset, names: Sequence[str], sizes: np.ndarray, bias: float
) -> xr.Dataset:
    """Return a table of variances over runs, a row for each d, component and time, and without verdicts.

    ``freedom`` is ν. Rows of component
    ``"Var <name>, pooled"`` average the variances of all components and times, each in units of its prediction, so
    that a common factor shows; their ν comes from the scatter of that average between runs, which holds however times
    and components depend on each other.

    Granted is the next order. Of several d it is fitted, row by row: see :func:`_next_order`. At one d it cannot be
    known from the runs, and a relative ``bias·n/d`` is assumed, n the number of fluctuating coordinates: it sums over
    what they do to each other.
    """
    tables = []
    for name in names:
        at_each = []
        units = [dim for dim in theory[name].dims if dim != "t"]
        C = of_order_one(theory, name, "variance", units)
        twins = len(units) == 2 and units[1] == f"{units[0]}_2"
        places = [place for place in np.ndindex(C.shape[1:]) if not (twins and place[0] > place[1])]
        t = np.asarray(simulation["t"].values, float)
        for d in sizes:
            at_d = simulation if "d" not in simulation.dims else simulation.isel(d=int(np.flatnonzero(sizes == d)[0]))
            squares, freedom, runs = _squares(at_d, name, units)
            expected = C / d
            scale = float(expected.max())
            tiny = (ROUNDING * float(abs(theory[name]).max())) ** 2
            rows = [
                _row(f"Var {name}{_index(place)}", t, expected[:, *place], squares.mean(0)[:, *place], runs,
                     freedom[:, *place], scale, tiny)
                for place in places
            ]  # fmt: skip
            if "run" in simulation.dims:
                rows.append(_pooled(f"Var {name}, pooled", squares, expected, places, t[-1:], tiny))
            table = xr.concat(rows, "comparison")
            at_each.append(
                table.assign_coords(
                    observable=("comparison", [f"Var {name}"] * table.sizes["comparison"]),
                    d=("comparison", np.full(table.sizes["comparison"], round(d))),
                )
            )
        unit = np.where(at_each[0].pooled, 1.0, at_each[0].scale)
        if sizes.size > 1:
            granted = bias * _next_order(at_each, sizes)
        else:
            granted = bias * theory.sizes.get("coordinate", 1) / sizes[:, None] * unit
        floor = DIFFUSION * unit
        tables += [t.assign(allowance=("comparison", g + floor)) for t, g in zip(at_each, granted, strict=True)]
    return xr.concat(tables, "comparison")


def _next_order(at_each: Sequence[xr.Dataset], sizes: np.ndarray) -> np.ndarray:
    """Return the size of the next order of variances, (d, rows): |s|·C/d² of found = C/d·(c0 + s/d), a line through the
    variances at all d in units of their predictions.

    s and two of its standard errors are taken. An error of C is in c0, and does not enter.
    """
    found, expected, freedom = (np.array([t[key].values for t in at_each]) for key in ("mean", "theory", "freedom"))
    ratio = np.divide(found, expected, out=np.zeros_like(found), where=expected > 0)
    x = 1 / sizes - (1 / sizes).mean()
    weights = (x / (x @ x))[:, None]
    slope = (weights * ratio).sum(0)
    error = np.sqrt((weights**2 * ratio**2 * 2 / freedom).sum(0))
    return np.asarray((abs(slope) + 2 * error) / sizes[:, None] * expected)


def _squares(simulation: xr.Dataset, name: str, units: Sequence[object]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return squares (run, t, units) that average to the unbiased variance, their degrees of freedom, and the runs.

    Of stored moments there is no kurtosis, and runs are taken as normal.
    """
    if "run" not in simulation[name].dims:
        s = np.asarray(simulation[f"{name}_std"].transpose("t", *units).values, float)
        n = int(simulation.attrs["runs"])
        return s[None] ** 2, np.full(s.shape, n - 1.0), n
    x = np.asarray(simulation[name].transpose("run", "t", *units).values, float)
    n, x = len(x), x - x[0]  # what is the same in all runs is then zero exactly, however many are averaged
    squares = (x - x.mean(0)) ** 2 * (n / (n - 1))
    return squares, _freedom(squares), n


def _freedom(squares: np.ndarray) -> np.ndarray:
    """Return ν of averages of n squares: 2(n − 1)/(κ − 1) where the kurtosis κ exceeds that of normal runs, 3."""
    n = len(squares)
    mean = squares.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.nan_to_num((squares**2).mean(0) / mean**2 - 1, nan=2.0)
    return np.asarray(2 * (n - 1) / np.maximum(spread, 2.0))


def _row(
    component: str, t: np.ndarray, expected: np.ndarray, found: np.ndarray, runs: int, freedom: np.ndarray,
    scale: float, tiny: float,
) -> xr.Dataset:  # fmt: skip
    columns = {
        "theory": expected,
        "mean": found,
        "deviation": found - expected,
        "standard_error": found * np.sqrt(2 / freedom),
        "freedom": freedom,
        "counted": (expected > tiny) | (found > tiny),
        "resolved": np.ones(t.size, bool),
        "moving": np.ones(t.size, bool),
        "pooled": np.zeros(t.size, bool),
        "scale": np.full(t.size, scale),
        "n": np.full(t.size, runs),
    }
    return xr.Dataset(
        {name: ("comparison", values) for name, values in columns.items()},
        coords={"component": ("comparison", [component] * t.size), "t": ("comparison", t)},
    )


def _pooled(
    component: str, squares: np.ndarray, expected: np.ndarray, places: Sequence[tuple[int, ...]], t: np.ndarray,
    tiny: float,
) -> xr.Dataset:  # fmt: skip
    """Return one row of the average variance over components and times in units of what is predicted."""
    n = len(squares)
    flat = [int(np.ravel_multi_index(place, expected.shape[1:])) if place else 0 for place in places]
    all_squares, all_expected = squares.reshape(n, len(expected), -1), expected.reshape(len(expected), -1)
    picked = [(all_squares[:, :, i], all_expected[:, i]) for i in flat]
    ratios = [values[:, tiny < C] / C[tiny < C] for values, C in picked]
    all_ratios = np.concatenate(ratios, axis=1)
    if not all_ratios.size:
        empty = np.zeros(1)
        return _row(component, t, empty, empty, n, np.ones(1), 1.0, tiny).assign(pooled=("comparison", [True]))
    average = all_ratios.mean(1)
    # Without the floor of single variances: an average over weakly dependent times scatters less than one square.
    freedom = np.array([2 * (n - 1) * average.mean() ** 2 / max(average.var(ddof=1), 1e-300)])
    if n < MANY:
        freedom = np.minimum(freedom, n - 1.0)
    one = np.ones(1)
    return _row(component, t, one, average.mean(keepdims=True), n, freedom, 1.0, 0.0).assign(
        pooled=("comparison", [True])
    )


def judge_variances(table: xr.Dataset, probability: float) -> xr.Dataset:
    """Return the table with ``z``, ``tolerance`` on the side of the deviation, ``passed``, and ``detectable``: a
    relative error of theory, of either sign, that would not have passed.

    ``probability`` is that of a false alarm in one comparison.
    """
    expected, found, freedom = (table[key].values for key in ("theory", "mean", "freedom"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, found / expected, np.where(found > 0, np.inf, 1.0))
        granted = np.where(expected > 0, table.allowance.values / expected, 0.0)
    low = chi2.ppf(probability / 2, freedom) / freedom * np.maximum(1 - granted, 0.0)
    high = chi2.isf(probability / 2, freedom) / freedom * (1 + granted)
    above = ratio >= 1
    tail = np.where(above, chi2.sf(ratio * freedom, freedom), chi2.cdf(ratio * freedom, freedom))
    far = np.where(np.isfinite(ratio), abs(ratio - 1), np.inf) * np.sqrt(freedom / 2)  # where the tail underflows
    z = np.where(above, 1.0, -1.0) * np.where(tail > 1e-300, norm.isf(np.clip(tail, 1e-300, 0.5)), far)
    tolerance = np.where(expected > 0, np.where(above, high - 1, 1 - low) * expected, table.allowance.values)
    with np.errstate(divide="ignore"):
        detectable = np.maximum(np.where(low > 0, ratio / low - 1, np.inf), 1 - ratio / high)
    columns = {"z": z, "tolerance": tolerance, "detectable": detectable, "passed": abs(found - expected) <= tolerance}
    return table.assign({name: ("comparison", values) for name, values in columns.items()})


def _index(place: tuple[int, ...]) -> str:
    return f"[{','.join(str(i + 1) for i in place)}]" if place else ""
