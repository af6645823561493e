"""What follows from deviations: PASS, FAIL or UNDECIDED, how sharp the test was, and how many runs are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from .comparable import is_deterministic
from .deviations import quantile
from .joint import Joint
from .verdict import FAIL, PASS, UNDECIDED, describe, worst_row

CHANCE = 2.0
"""Standard errors by which the mean of the runs that are asked for may be off by chance, and still show what they are
to show: of 40 simulations with so many, 39 do."""


def summarise(table: xr.Dataset, names: Sequence[str], scale: dict[str, float]) -> xr.Dataset:
    rows = []
    for name in names:
        part = table.isel(comparison=(table.observable.values == name) & table.counted.values)
        row: dict[str, Any] = dict(
            comparisons=part.sizes["comparison"], max_z=0.0, max_deviation=0.0, tolerance=np.nan, scale=scale[name],
            detectable=np.nan, relative=np.nan, limiting="", until=np.nan, allowance=np.nan, spread=np.nan,
        )  # fmt: skip
        if row["comparisons"]:
            size = abs(part.deviation.values)
            largest = int(np.argmax(size))
            limit = part.isel(comparison=_limiting(part))
            detectable = float(limit.tolerance + abs(limit.deviation))
            row |= dict(
                max_z=float(abs(part.z.values[part.resolved.values]).max(initial=0.0)),
                max_deviation=size[largest],
                tolerance=float(part.tolerance[largest]),
                detectable=detectable,
                relative=detectable / scale[name],
                limiting=limit.component.item(),
                until=float(part.t.values[_while_moving(part)].max()),
                allowance=float(limit.allowance),
                spread=float(limit.standard_error * np.sqrt(limit.n)),
            )
        rows.append(row)
    columns = {key: ("observable", np.array([row[key] for row in rows])) for key in rows[0]}
    return xr.Dataset(columns, coords={"observable": list(names)})


def _limiting(part: xr.Dataset) -> int:
    """Return the row that sets what is detectable: of each component the median over the times at which the observable
    moves, of those the largest.
    """
    detectable = part.tolerance.values + abs(part.deviation.values)
    label, moving = part.component.values, _while_moving(part)
    medians = []
    for component in dict.fromkeys(label[moving].tolist()):
        rows = np.flatnonzero((label == component) & moving)
        # The lower median: any set of more than half of the times has one that is no less certain.
        medians.append(rows[np.argsort(detectable[rows], kind="stable")[(rows.size - 1) // 2]])
    return int(max(medians, key=lambda row: detectable[row]))


def _while_moving(part: xr.Dataset) -> np.ndarray:
    """Return which rows are of times at which the observable moves; all, if it has settled before any counts."""
    return part.moving.values if part.moving.any() else np.ones(part.sizes["comparison"], bool)


def decide(
    table: xr.Dataset,
    summary: xr.Dataset,
    simulation: xr.Dataset,
    runs: int,
    level: float,
    resolution: float,
    variances: xr.Dataset | None = None,
    joint: Sequence[Joint] = (),
    power: Mapping[str, float] = MappingProxyType({}),
) -> tuple[str, str]:
    """Return the status and its reason; ``power`` is that of a theory to order 1/d, else empty."""
    count = int(table.counted.sum()) + (0 if variances is None else int(variances.counted.sum())) + len(joint)
    if count == 0:
        return UNDECIDED, "nothing was compared: every observable is constant by construction"
    if runs < 2 and not is_deterministic(simulation):
        return UNDECIDED, "one run has no standard error; simulate at least 2 runs, or better 16"
    violated = _violations(table, variances, joint, level / count)
    if violated:
        return FAIL, f"{len(violated)} of {count} comparisons violated, the worst {violated[0]()}"
    if simulation.attrs.get("status") == "interrupted":
        return UNDECIDED, f"the simulation was interrupted; the {runs} runs that finished agree with theory"
    live = summary.isel(observable=summary.comparisons.values > 0)
    coarse = live.isel(observable=live.relative.values > resolution)
    if coarse.sizes["observable"]:
        return UNDECIDED, "too coarse: " + "; ".join(
            _too_coarse(coarse.sel(observable=name), count, level, resolution) for name in coarse.observable.values
        )
    if power and (missing := _unseen(power, resolution, runs, quantile(level, count, runs))):
        return UNDECIDED, missing
    least = live.isel(observable=int(np.argmax(live.relative.values)))
    return PASS, (
        f"all {count} comparisons agree; an error of {100 * float(least.relative):.3g} % of scale, over half of the "
        f"time that an observable moves, would have been caught in any ({least.limiting.item()} is the least certain)"
    ) + (f"; {state_power(power)}" if power else "")


def _violations(
    table: xr.Dataset, variances: xr.Dataset | None, joint: Sequence[Joint], probability: float
) -> list[Callable[[], str]]:
    """Return a description of each violation, the first of the worst: means, then variances, then jointly."""
    found: list[Callable[[], str]] = []
    for rows in (table, variances):
        if rows is not None and (count := int((~rows.passed & rows.counted).sum())):
            found += [lambda rows=rows: describe(rows.isel(comparison=worst_row(rows)))] * count  # type: ignore[misc]
    return found + [test.__str__ for test in joint if test.probability < probability]


def _unseen(power: Mapping[str, float], resolution: float, runs: int, critical: float) -> str:
    """Return what a theory to order 1/d says that these runs could not have contradicted, and how many could.

    What was found is ``critical`` standard errors at least. Runs that are asked for may be off by :data:`CHANCE` more,
    even if these are off by nothing: that takes more of them by ``(1 + CHANCE / critical)**2`` at most.
    """
    needed = {"covariance": resolution, "mean correction": 1.0}
    text = []
    for name, most in needed.items():
        found = power[name]
        if np.isfinite(found) and found > most:
            enough = int(np.ceil(runs * ((1 + CHANCE / critical) * found / most) ** 2))
            text.append(
                f"an error of {100 * found:.3g} % in the {name} would have passed; {100 * most:g} % would show with "
                f"about {enough} runs, or where most of it is granted for finite d, at a larger d"
            )
    return "too coarse: " + "; ".join(text) if text else ""


def state_power(power: Mapping[str, float]) -> str:
    """Return the smallest relative errors that would have been caught, in words."""
    said = [f"{100 * size:.2g} % in the {name}" for name, size in power.items() if np.isfinite(size)]
    return f"relative errors that would have been caught: {', '.join(said)}" if said else "no relative error is known"


def _too_coarse(row: xr.Dataset, count: int, level: float, resolution: float) -> str:
    percent = f"{100 * float(row.relative):.3g} % of scale"
    text = f"in {row.limiting.item()} errors below {float(row.detectable):.3g} ({percent}) would have passed"
    room = resolution * float(row.scale) - float(row.allowance)
    if room <= 0:
        return f"{text}, {float(row.allowance):.3g} of it for finite d: a larger d is needed, not more runs"
    return f"{text}; about {_runs_needed(float(row.spread), room, count, level)} runs would show {100 * resolution:g} %"


def _runs_needed(spread: float, room: float, count: int, level: float) -> int:
    """Return the smallest n with (z(n) + CHANCE)·spread/√n <= room: the deviation seen has a chance part of its own."""

    def enough(n: int) -> bool:
        return (quantile(level, count, n) + CHANCE) * spread <= room * np.sqrt(n)

    high = 2
    while not enough(high) and high < 1 << 40:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def state_reason(simulation: xr.Dataset, runs: int, level: float, count: int, bias: float) -> str:
    """Return where a criterion's numbers come from."""
    if is_deterministic(simulation):
        return f"nothing is random; bias={bias:g}"
    freedom = f"{runs - 1} degrees of freedom"
    return f"Student's t, {freedom}, two-sided level {level:g} over {count} comparisons; bias={bias:g}"


def state_criterion(
    sizes: np.ndarray, critical: float, why: str, bias: float, table: xr.Dataset, order: int = 0
) -> str:
    noise = f"{critical:.3g}·SE + " if critical != 0 else ""
    if order and sizes.size == 1:
        return f"|mean − (theory + m/d)| <= {noise}{bias:g}·max|m|/d², variances by chi², all jointly ({why})"
    if order:
        granted = f"up to {table.attrs['curvature_allowance']:.2g}"
        return (
            f"|c1|/min(d) <= {noise}{granted}, mean − (theory + m/d) = c1/d + c2/d²; at each d variances by chi², all "
            f"jointly ({why})"
        )
    if sizes.size == 1:
        return f"|mean − theory| <= {noise}{bias:g}/d ({why})"
    if critical == 0 and sizes.size > 2:
        return "|c0| <= 1.5 |Σ w/d²| c2, mean − theory = c0 + c1/d, c2 of the parabola through them (nothing is random)"
    text = f"|c0| <= {noise}{table.attrs['curvature_allowance']:.3g}, mean − theory = c0 + c1/d"
    if table.attrs["clock_allowance"]:
        text = text.replace(",", f" + up to {table.attrs['clock_allowance']:.2g} for times rounded to steps,", 1)
    return f"{text} ({why})"


def describe_theory(theory: xr.Dataset) -> str:
    said = [str(theory.attrs[key]) for key in ("title", "limit", "theory_status") if theory.attrs.get(key)]
    return "; ".join(said) or "as given"


def describe_simulation(simulation: xr.Dataset, sizes: np.ndarray, runs: int) -> str:
    text = f"{runs} run{'s' if runs != 1 else ''}, d={', '.join(f'{d:g}' for d in sizes)}"
    return text + "".join(f", {key}={simulation.attrs[key]}" for key in ("engine", "init") if key in simulation.attrs)
