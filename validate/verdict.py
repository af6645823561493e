"""What a comparison of simulation with theory found: a status, the numbers behind it, and how sharp the test was."""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .joint import Joint
from .time_shift import Shift, slope_in_ln_d

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASS, FAIL, UNDECIDED = "PASS", "FAIL", "UNDECIDED"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Verdict:
    """The outcome of :func:`effdyn.validate.compare`; ``print`` it, ``plot`` it, ``assert verdict.passed``.

    Attributes
    ----------
    status : {"PASS", "FAIL", "UNDECIDED"}
        UNDECIDED: no contradiction, but the data could not have shown one.
    reason : str
        Why, in one sentence.
    table : xarray.Dataset
        One row per comparison, dim ``comparison``, with coordinates ``observable``, ``component`` (as on paper,
        ``R[1,2]``) and ``t``; variables ``theory``, ``correction`` (of it the order 1/d, if it is known), ``mean``,
        ``standard_error``, ``deviation`` (mean − theory),
        ``z`` (in standard errors), ``granted`` (for what theory drops), ``allowance`` (that and numerical errors),
        ``tolerance`` (z·SE + allowance),
        ``n`` (runs), ``counted`` (False for what is constant by construction), ``resolved`` (False where the deviation
        is within the error of the numbers themselves), ``moving`` (False once the observable has settled) and
        ``passed``. One d: it is the scalar coordinate ``d``. Several: mean, standard_error, deviation and z are of the
        extrapolation to d → ∞, ``slope`` and ``slope_error`` are the coefficient of 1/d, ``exponent`` and
        ``exponent_error`` those of deviation ~ d^(−exponent) where it is significant at every d, and ``mean_at_d``,
        ``standard_error_at_d``, ``passed_at_d`` (d, comparison) are each d alone.
    summary : xarray.Dataset
        One row per observable, dim ``observable``: ``comparisons``, ``max_z`` (of what is resolved),
        ``max_deviation``, ``tolerance`` (there), ``scale`` (range over the run), ``detectable`` (the smallest error
        that would have been caught at over half of the times up to ``until``, when the observable has settled),
        ``relative`` (the same over scale), ``limiting`` (its component), and of that component the ``allowance`` and
        ``spread`` (standard deviation over runs).
    level, bias, resolution, numerical : float
        The arguments of ``compare``.
    n_comparisons : int
        How many comparisons the level was divided by.
    critical : float
        The quantile of Student's t: how many standard errors each comparison is allowed.
    criterion : str
        The rule with its numbers.
    theory, simulation : str
        What was compared with what.
    notes : tuple of str
        What was not compared, not checked, or not allowed for.
    variances : xarray.Dataset or None
        Of a theory to order 1/d: the same columns for variances over runs, with ``d`` for each row, ``freedom`` (of the
        chi-squared distribution), ``detectable`` (relative) and ``pooled``.
    joint : tuple of Joint
        Of a theory to order 1/d: Hotelling's test of all means at each d.
    shifts : tuple of Shift
        By how much the simulation is late at each d: ``time``, ``standard_error``, ``residual`` (what remains, in
        units of the tolerance); :func:`effdyn.validate.time_shift.slope_in_ln_d` of them is a plateau's ``slope``.
    power : dict
        The smallest relative errors that would have given FAIL: see :func:`effdyn.validate.power.measure_power`.
    sources : dict
        The attributes of theory and simulation.
    """

    status: str
    reason: str
    table: xr.Dataset
    summary: xr.Dataset
    level: float
    bias: float
    resolution: float
    numerical: float
    n_comparisons: int
    critical: float
    criterion: str
    theory: str
    simulation: str
    notes: tuple[str, ...] = ()
    variances: xr.Dataset | None = None
    joint: tuple[Joint, ...] = ()
    shifts: tuple[Shift, ...] = ()
    power: dict[str, float] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the status is PASS."""
        return self.status == PASS

    @property
    def worst(self) -> xr.Dataset:
        """The comparison with the largest resolved deviation in units of its tolerance: one row of ``table``."""
        return self.table.isel(comparison=worst_row(self.table))

    def plot(self) -> Figure:
        """Draw theory, simulation and standardised deviations, one column per observable."""
        from .figures import verdict

        return verdict(self)

    def report(self, path: str | Path) -> Path:
        """Write an HTML page with all of it, figures included, and what it takes to repeat it; return its path.

        The page is one file and loads nothing.
        """
        from .report import write_report

        return write_report(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return all but the table, in types that JSON takes; numbers that are not finite become None."""
        rows = [_plain(self.summary.sel(observable=name)) for name in self.summary.observable.values]
        return {
            "status": self.status,
            "reason": self.reason,
            "criterion": self.criterion,
            "level": self.level,
            "bias": self.bias,
            "resolution": self.resolution,
            "numerical": self.numerical,
            "n_comparisons": self.n_comparisons,
            "critical": _finite(self.critical),
            "theory": self.theory,
            "simulation": self.simulation,
            "notes": list(self.notes),
            "worst": _plain(self.worst.drop_dims("d", errors="ignore")),
            "observables": rows,
            "joint": [asdict(test) for test in self.joint],
            "shifts": [asdict(shift) for shift in self.shifts],
            "power": {name: _finite(value) for name, value in self.power.items()},
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=2)

    def __repr__(self) -> str:
        return f"<Verdict {self.status}: {self.reason}>"

    def __str__(self) -> str:
        lines = [
            f"{self.status}: {self.reason}",
            f"  theory      {self.theory}",
            f"  simulation  {self.simulation}",
            f"  criterion   {self.criterion}",
            f"  worst       {describe(self.worst)}",
            *(f"  note        {note}" for note in self.notes),
            "",
            "  observable  comparisons  max |z|  max |deviation|  tolerance there  "
            "smallest detectable error while it moves",
        ]
        for name in self.summary.observable.values:
            row = self.summary.sel(observable=name)
            text = f"  {name!s:<10}  {int(row.comparisons):>11}"
            if int(row.comparisons):
                text += f"  {float(row.max_z):>7.2f}  {float(row.max_deviation):>15.3g}  {float(row.tolerance):>15.3g}"
                text += f"  {float(row.detectable):.3g} = {100 * float(row.relative):.3g} % of scale"
                text += f" ({row.limiting.item()}, up to t={float(row.until):.4g})"
            else:
                text += "  constant by construction"
            lines.append(text)
        lines += [f"  {line}".rstrip() for line in (*self._order_one(), *self._of_shift(), *self._finite_size())]
        return "\n".join(lines)

    def _order_one(self) -> list[str]:
        """Return what is said of a theory to order 1/d beside its means."""
        if self.variances is None:
            return []
        lines = [""]
        counted = self.variances.isel(comparison=self.variances.counted.values)
        if counted.sizes["comparison"]:
            wrong = int((~counted.passed).sum())
            lines += [
                f"variances over runs: {counted.sizes['comparison']} comparisons, {wrong} violated, max |z| "
                f"{float(abs(counted.z).max()):.3g}, the worst {describe(counted.isel(comparison=worst_row(counted)))}"
            ]
            pooled = counted.isel(comparison=counted.pooled.values)
            lines += [_pooled(pooled.isel(comparison=i)) for i in range(pooled.sizes["comparison"])]
        lines += [str(test) for test in self.joint]
        said = ", ".join(f"{name} {100 * size:.2g} %" for name, size in self.power.items() if np.isfinite(size))
        return [*lines, f"smallest relative errors that would have been caught: {said}"]

    def _of_shift(self) -> list[str]:
        lines = [
            f"shift of time: {shift} ({shift.time / shift.standard_error if shift.standard_error else 0.0:.2g} SE); "
            f"what remains is {shift.residual:.3g} of the tolerance at most"
            for shift in self.shifts
        ]
        if len(self.shifts) > 1:
            slope, error = slope_in_ln_d(self.shifts)
            lines.append(f"shift of time against ln d: slope {slope:.3g} ± {error:.2g}")
        return lines

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _finite_size(self) -> list[str]:
        """Return what several d say beside the verdict: each d alone, the slope in 1/d, the exponent."""
        if "slope" not in self.table:
            return []
        table = self.table.isel(comparison=self.table.counted.values)
        alone = ", ".join(
            f"d={int(d)}: {int((~table.passed_at_d.sel(d=d)).sum())}" for d in np.atleast_1d(table.d.values)
        )
        noise = f"{self.critical:.3g}·SE + " if self.critical != 0 else ""
        limit, power = (f"{self.bias:g}/d", "1/d") if self.variances is None else (f"{self.bias:g}·max|m|/d²", "1/d²")
        lines = ["", f"violations of |deviation| <= {noise}{limit} at each d alone: {alone}"]
        for name in self.summary.observable.values:
            rows = table.isel(comparison=table.observable.values == name)
            if not rows.sizes["comparison"]:
                continue
            row = rows.isel(comparison=int(np.argmax(abs(rows.slope.values))))
            slope = f"{float(row.slope):.3g} ± {float(row.slope_error):.2g} in {power}"
            text = f"{name}: largest slope {slope} ({_where(row)})"
            if np.isfinite(rows.exponent).any():
                sharp = rows.isel(comparison=int(np.nanargmin(rows.exponent_error.values)))
                p, half = float(sharp.exponent), float(sharp.exponent_interval)
                text += f"; deviation ~ d^-p with p in [{p - half:.3g}, {p + half:.3g}] at 95 % ({_where(sharp)})"
            else:
                text += "; no deviation is significant at every d, so no exponent"
            lines.append(text)
        return lines


def worst_row(table: xr.Dataset) -> int:
    """Return the index of the row with the largest |deviation| / tolerance, or |deviation| if there is no tolerance.

    Rows whose deviation is resolved come first.
    """
    size, tolerance = abs(table.deviation.values), table.tolerance.values
    ratio = np.divide(size, tolerance, out=np.where(size > 0, np.inf, 0.0), where=tolerance > 0)
    ratio = np.where(np.isnan(tolerance), size, ratio)
    counted, resolved = table.counted.values, table.resolved.values
    return int(np.argmax(np.where(counted & (resolved | ~(counted & resolved).any()), ratio, -1.0)))


def describe(row: xr.Dataset) -> str:
    """Return one comparison in words."""
    text = (
        f"{_where(row)}: theory {float(row.theory):.6g}, mean {float(row['mean']):.6g}, "
        f"deviation {float(row.deviation):.3g}"
    )
    if np.isnan(float(row.tolerance)):
        return text
    unit = "standard errors" if float(row.standard_error) > 0 else "of what finite steps are granted"
    errors = f"{float(row.z):.3g} {unit}" if np.isfinite(float(row.z)) else "without any spread between runs"
    return f"{text} ({errors}), tolerance {float(row.tolerance):.3g}"


def _where(row: xr.Dataset) -> str:
    at_d = f", d={int(row.d)}" if "freedom" in row else ""
    return f"{row.component.item()} at t={float(row.t):.6g}{at_d}"


def _pooled(row: xr.Dataset) -> str:
    return (
        f"{row.component.item()} at d={int(row.d)}: {float(row['mean']):.5g} ± {float(row.standard_error):.2g} of what "
        f"is predicted, tolerance {float(row.tolerance):.3g}"
    )


def _plain(row: xr.Dataset) -> dict[str, Any]:
    values = {str(name): row[name].item() for name in (*row.coords, *row.data_vars) if row[name].ndim == 0}
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
