"""Does a simulation agree with theory? Every observable at every time, in standard errors, comparisons counted.

Knows nothing of how either was made: two labelled Datasets go in, a Verdict comes out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
import xarray as xr
from scipy.special import stdtrit

from effdyn.derive.errors import ModelError, nearest
from effdyn.derive.limits import LIMITS, Limit

from .stated_error import stated_error
from .verdict import FAIL, PASS, UNDECIDED, Verdict, describe, worst_row

ROUNDING = 1e-13
"""Runs that differ by less than this, per unit of the observable, do not fluctuate: a few hundred ulp."""
NUMERICAL = 1e-9
"""Quadrature and rounding, per unit of an observable's scale."""
GROWTH = 100.0
"""Integration errors over rtol, measured along escapes from a plateau; see ``solve.integrate``."""
SIGNIFICANT = 5.0
"""A deviation's logarithm is fitted only where it is this many times its error at every d: then it is known to 20 %."""
SETTLED = 0.05
"""An observable moves until it stays within this fraction of its range of its last value."""
DERIVED = ("cosine", "cosine_students")
"""Not compared unless asked for: functions of Q, R and T, so no further information. ``eg``, ``error_rate`` and
``loss`` are functions of the overlaps too, but theory and simulation compute them in different ways."""


class NotComparable(ValueError):
    """Theory and simulation that are not of the same thing.

    Attributes
    ----------
    what : str
        What differs: "clock", "times", "variables", "sizes", "runs", "model", "parameters", "initial values" or
        "values".
    theory, simulation : object
        What each has; for several names, dicts; for times, the ones without a partner.
    instead : str
        What to do.
    """

    def __init__(self, what: str, theory: object, simulation: object, instead: str) -> None:
        self.what, self.theory, self.simulation, self.instead = what, theory, simulation, instead
        super().__init__(
            f"theory and simulation cannot be compared, their {what} differ: "
            f"theory has {_short(theory, what)}, simulation has {_short(simulation, what)}.\n  {instead}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what, self.theory, self.simulation, self.instead)


def compare(
    theory: xr.Dataset,
    simulation: xr.Dataset,
    *,
    variables: Sequence[str] | None = None,
    level: float = 1e-6,
    bias: float = 1.0,
    resolution: float = 0.25,
    numerical: float | None = None,
) -> Verdict:
    """Compare the mean over independent runs with theory, at every time and for every component of every observable.

    Parameters
    ----------
    theory : xarray.Dataset
        From ``solve.integrate`` with ``t_eval=simulation.t``: variables over ``t`` and units.
    simulation : xarray.Dataset
        From ``validate.simulate``: the same variables, with dims ``run`` (or means and ``<name>_std``) and perhaps
        ``d``.
    variables : sequence of str, optional
        What to compare; by default the states, ``eg`` or ``error_rate``, and ``loss`` unless that is ``eg`` and a
        constant. The cosines say nothing that these do not, and are compared if they are named here.
    level : float
        Probability, at most, of FAIL where theory is right up to the stated bias: for the whole verdict, not per
        comparison.
    bias : float
        The theory is the limit d → ∞: at finite d it may be off by ``bias/d``, in the observable's own units. The terms
        of order η that gradient flow also drops are not covered.
    resolution : float
        The verdict is UNDECIDED unless an error of this fraction of an observable's scale would have been caught.
    numerical : float, optional
        Error of the numbers themselves (integration, quadrature), per unit of the observable's scale, added to every
        tolerance; by default 100 times the ``rtol`` that theory states, because errors grow by about that along an
        escape from a plateau, and at least 1e-9. What a theory with numerical expectations states as their error is
        added. Deviations within it count as agreement, and as nothing else: not in
        "max |z|", "worst" or exponents.

    Returns
    -------
    Verdict

    Raises
    ------
    NotComparable
        Clocks, times, variables, sizes, parameters, initial values or models differ, or values are not finite.

    Notes
    -----
    *One d.* Each comparison demands ``|mean − theory| <= z·SE + bias/d``, with SE = s/√n, s the standard deviation
    over n runs (ddof=1), and z the two-sided quantile of Student's t with n − 1 degrees of freedom (because s is
    estimated) at ``level/N``: Bonferroni over the N comparisons, which holds however they depend on each other. It
    supposes runs that are about normal; where the time of escape from a plateau spreads they are not, and few runs
    are then not enough. Symmetric duplicates (``Q[2,1]``) and what is constant by construction (exact initial
    overlaps) do not count. A quantity that is the same in all runs is granted neither noise nor bias, only
    ``numerical``, unless the simulation is deterministic altogether (gradient descent with steps eta, whose size d is
    1/eta): then ``z`` is in units of what finite steps are granted, and with three or more steps that is not ``bias``
    but read off the simulations: the largest coefficient of eta² of a parabola through them, times 1.5.

    *Several d.* The deviation is fitted by c0 + c1/d, and ``|c0| <= z·SE(c0) + bias·(|Σ w/d²| + Σ |w| Δt)``. Here
    c0 = Σ w·deviation with Σ w = 1, Σ w/d = 0, and SE(c0)² = Σ w²SE²; a next term bias/d² contributes |Σ w/d²|·bias; Δt
    is what rounding to whole steps has moved the times by (0 where every d is a multiple of the smallest). The weights
    are those of least squares with variances ~ 1/d, which is how fluctuations scale: they do not depend on the data, so
    Student's t with n − 1 degrees of freedom bounds the tail of c0/SE(c0), whatever the variances are (Hájek 1962).
    Weights 1/SE² would have no such bound.

    *Power.* ``detectable``, for a component: an error of this size or more in theory, of either sign, at more than
    half of the times that count while the observable moves, would have given FAIL on these data. It is the median over
    those times of tolerance + |deviation|; for an observable, of its least certain component. An observable moves up to
    the first time from which all its components stay within 5 % of its scale of their last values; what has converged
    is known much more precisely, and would flatter. The scale is the largest range over time of any component, or,
    where nothing moves, the largest absolute value; then all times count.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> t = np.linspace(0, 5, 11)
    >>> theory = xr.Dataset({"R": ("t", 1 - np.exp(-t))}, coords={"t": t})
    >>> noise = 0.03 * np.sqrt(t) * rng.standard_normal((64, t.size))
    >>> simulation = xr.Dataset({"R": (("run", "t"), theory.R.values + noise)}, coords={"t": t, "d": 1000})
    >>> verdict = compare(theory, simulation)
    >>> verdict.status, verdict.n_comparisons
    ('PASS', 10)
    >>> round(float(verdict.summary.relative[0]), 3)  # an error of 3 % of R's range would have been seen
    0.032
    >>> compare(theory * 1.1, simulation).status
    'FAIL'
    """
    _check_number("level", level, 0 < level < 1, "a probability between 0 and 1")
    _check_order(theory, simulation)
    if numerical is None:
        numerical = max(NUMERICAL, GROWTH * float(theory.attrs.get("rtol", 0.0)))
    for name, number in (("bias", bias), ("numerical", numerical)):
        _check_number(name, number, 0 <= number < np.inf, "a finite number, at least 0")
    _check_number("resolution", resolution, 0 < resolution < np.inf, "a fraction of an observable's scale, above 0")

    theory, simulation = (_with_time(dataset) for dataset in (theory, simulation))
    notes = _check_attributes(theory, simulation)
    simulation = by_size(simulation, notes)
    names = _variables(theory, simulation, variables, notes)
    sizes = _dimensions(simulation)
    _check_dimension(theory, sizes)
    offset = _check_times(theory, simulation, sizes)
    parts = [_flat(name, theory, simulation, offset, numerical) for name in names]
    runs = parts[0].runs
    table, scale = _deviations(parts, sizes, bias, numerical, is_deterministic(simulation))
    table.attrs["clock"] = simulation.attrs.get("clock", theory.attrs.get("clock", "steps/d"))

    count = int(table.counted.sum())
    critical = 0.0 if is_deterministic(simulation) else _quantile(level, count, runs)
    table["tolerance"] = critical * table.standard_error + table.allowance
    table["passed"] = abs(table.deviation) <= table.tolerance
    table["n"] = "comparison", np.full(table.sizes["comparison"], runs)
    if sizes.size > 1:
        alone = critical * table.standard_error_at_d + bias / table.d + numerical * table.scale
        table["passed_at_d"] = abs(table.mean_at_d - table.theory) <= alone
        table["exponent_interval"] = table.exponent_error * (-stdtrit(runs - 1, 0.025) if runs > 1 else np.nan)
    summary = _summary(table, names, scale)
    status, reason = _decide(table, summary, simulation, runs, level, resolution)
    return Verdict(
        status, reason, table.drop_vars("scale"), summary, level, bias, resolution, numerical, count, critical,
        criterion=_criterion(sizes, critical, _reason(simulation, runs, level, count, bias), bias, table),
        theory=_describe_theory(theory),
        simulation=_describe_simulation(simulation, sizes, runs), notes=tuple(notes),
    )  # fmt: skip


def by_size(simulation: xr.Dataset, notes: list[str]) -> xr.Dataset:
    """Return a simulation with finite steps eta as one whose size d is 1/eta, the number of steps in a unit of time.

    Both are what theory takes to infinity, with deviations of order 1/d.
    """
    if "eta" not in simulation.coords or "d" in simulation.coords:
        return simulation
    notes.append("finite steps: d stands for 1/eta, the number of steps in a unit of time")
    renamed = simulation.rename(eta="d")
    return renamed.assign_coords(d=1 / renamed["d"])


def is_deterministic(simulation: xr.Dataset) -> bool:
    """Return whether a simulation states that nothing in it is random: then one run is all there is."""
    return bool(simulation.attrs.get("deterministic", 0))


def sample_moments(simulation: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray, int]:
    """Return mean and standard deviation (ddof=1; NaN for one run) over runs of a variable, and the number of runs."""
    values = simulation[name]
    if "run" in values.dims:
        n = values.sizes["run"]
        mean = values.mean("run", skipna=False)
        if is_deterministic(simulation):
            return mean, xr.zeros_like(mean), n
        return mean, values.std("run", ddof=1, skipna=False) if n > 1 else mean * np.nan, n
    if f"{name}_std" in simulation and "runs" in simulation.attrs:
        return values, simulation[f"{name}_std"], int(simulation.attrs["runs"])
    raise NotComparable(
        "runs",
        "none, as it should",
        f"neither a dim 'run' nor {name}_std with attrs['runs']",
        "Theory comes first, then the simulation with its runs: simulation.isel(run=[0]) keeps the dim for one run.",
    )


# ── Are they of the same thing? ──


def _check_number(argument: str, given: Any, holds: bool, accepted: str) -> None:
    if not holds:
        raise ModelError(argument, given, accepted)


def _short(facts: object, what: str = "") -> str:
    if what == "times" and isinstance(facts, list):
        facts = [f"{t:.6g}" for t in facts]
        return f"[{', '.join(facts)}]" if len(facts) <= 6 else _short(facts)
    if isinstance(facts, dict):
        return ", ".join(f"{key}={_short(value)}" for key, value in facts.items()) or "nothing"
    if isinstance(facts, (list, tuple)) and len(facts) > 6:
        return f"{', '.join(map(str, facts[:3]))}, … {facts[-1]} ({len(facts)} of them)"
    return str(facts) if isinstance(facts, str) else repr(facts)


def _with_time(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with a dim t, also where one time was selected."""
    if "t" in dataset.dims or "t" not in dataset.coords:
        return dataset
    return dataset.expand_dims("t")


def _check_order(theory: xr.Dataset, simulation: xr.Dataset) -> None:
    def has_runs(dataset: xr.Dataset) -> bool:
        moments = "runs" in dataset.attrs and any(str(name).endswith("_std") for name in dataset.data_vars)
        return "run" in dataset.dims or moments

    if has_runs(theory) and not has_runs(simulation):
        raise NotComparable(
            "runs", "several", "none", "The arguments are swapped: theory comes first, compare(theory, simulation)."
        )


def _check_attributes(theory: xr.Dataset, simulation: xr.Dataset) -> list[str]:
    """Refuse what the attributes contradict; return notes on what they do not say."""
    notes = []
    advice = {
        "clock": "Simulate with clock=theory.attrs['clock']; the clock of gradient flow is eta*steps/d.",
        "model": "Give both the same model.",
    }
    for key, instead in advice.items():
        here, there = theory.attrs.get(key), simulation.attrs.get(key)
        if here is None or there is None:
            notes.append(f"{key} not checked: {'theory' if here is None else 'simulation'} does not state it")
        elif here != there:
            raise NotComparable(key, here, there, instead)
    limit = LIMITS.get(str(theory.attrs.get("limit")))
    notes += _small_parameters(limit, simulation) if limit is not None else []
    for what, keys in (("parameters", ("params", "parameters")), ("initial values", ("y0",))):
        here, there = (_json_attribute(dataset, keys) for dataset in (theory, simulation))
        if here is None or there is None:
            notes.append(f"{what} not checked: {'theory' if here is None else 'simulation'} does not state them")
            continue
        if limit is not None and what == "parameters":
            there = _as_scaled(limit, there)
        unequal = [name for name in here if name in there and not _same(here[name], there[name])]
        if unequal:
            raise NotComparable(
                what, {name: here[name] for name in unequal}, {name: there[name] for name in unequal},
                "Give solve.integrate and validate.simulate the same params and y0.",
            )  # fmt: skip
        known = {"d"} if what == "parameters" else set()  # of a theory at finite d: checked with the sizes
        if alone := sorted((set(here) ^ set(there)) - known):
            notes.append(f"{what} of one side only, not checked: {', '.join(alone)}")
    return notes


def _json_attribute(dataset: xr.Dataset, keys: Sequence[str]) -> dict[str, Any] | None:
    text = next((dataset.attrs[key] for key in keys if key in dataset.attrs), None)
    return None if text is None else json.loads(text) if isinstance(text, str) else dict(text)


def _vanishing(limit: Limit) -> list[sympy.Symbol]:
    """Return the parameters that go to zero in a limit: eta in gradient flow. The dimension is none."""
    return [small for small, _ in limit.vanishing if isinstance(small, sympy.Symbol)]


def _small_parameters(limit: Limit, simulation: xr.Dataset) -> list[str]:
    """Return a note on each parameter that theory takes to zero, with its value in the simulation."""
    given = _json_attribute(simulation, ("params", "parameters")) or {}
    return [
        f"{limit.name.replace('-', ' ')} drops terms of order {name}, and bias/d does not cover them; the simulation "
        + (f"has {name}={given[name]:g}" if name in given else f"does not state its {name}")
        for name in map(str, _vanishing(limit))
    ]


def _as_scaled(limit: Limit, params: dict[str, Any]) -> dict[str, Any]:
    """Return a simulation's parameters as a limit has them: in gradient flow eta_a, kappa, … over eta, and no eta."""
    small = {symbol: params[str(symbol)] for symbol in _vanishing(limit) if str(symbol) in params}
    others = {name: value for name, value in params.items() if name not in map(str, small)}
    for symbol, scaled in limit.scaling:  # each is a ratio times a small parameter
        (ratio,) = scaled.free_symbols - set(_vanishing(limit))
        unit = scaled.subs({ratio: 1, **small})
        if str(symbol) in others and unit.is_positive:
            others[str(ratio)] = others.pop(str(symbol)) / float(unit)
    return others


def _same(here: Any, there: Any) -> bool:
    """Whether two parameters are equal to rounding; a number stands for all units."""
    try:
        return bool(np.allclose(np.asarray(here, float), np.asarray(there, float), rtol=1e-12, atol=1e-14))
    except (TypeError, ValueError):
        return bool(here == there)


def _variables(theory: xr.Dataset, simulation: xr.Dataset, asked: Sequence[str] | None, notes: list[str]) -> list[str]:
    # Variables without time (solver statistics) are no trajectories.
    here, there = ([str(name) for name in side.data_vars if "t" in side[name].dims] for side in (theory, simulation))
    there = [name for name in there if not (name.endswith("_std") and name.removesuffix("_std") in there)]
    if asked is not None:
        asked = [asked] if isinstance(asked, str) else list(asked)
        missing = [name for name in asked if name not in here or name not in there]
        if missing or not asked:
            hint = nearest(missing[0], set(here) & set(there)) if missing else ""
            raise NotComparable("variables", here, there, f"Asked for {asked}: name only what both have{hint}.")
        return asked
    redundant = (*DERIVED, *(["loss"] if _loss_is_error_and_constant(theory) else []))
    if any(name in here for name in there if name not in redundant):
        here, there = ([name for name in side if name not in redundant] for side in (here, there))
    common = [name for name in there if name in here]
    if not common:
        raise NotComparable("variables", here, there, "Both must have at least one variable of the same name, over t.")
    if alone := [name for name in there if name not in here]:
        notes.append(f"not compared, theory does not have: {', '.join(alone)}")
    if alone := [name for name in here if name not in there]:
        notes.append(f"not compared, simulation does not have: {', '.join(alone)}")
    return common


def _loss_is_error_and_constant(theory: xr.Dataset) -> bool:
    """Whether the loss is eg plus noise, as the squared one is: then it says nothing that eg does not."""
    if "loss" not in theory or "eg" not in theory:
        return False
    difference = (theory["loss"] - theory["eg"]).values
    return bool(np.ptp(difference) <= ROUNDING * abs(theory["loss"].values).max())


def _dimensions(simulation: xr.Dataset) -> np.ndarray:
    """Return the input dimensions of a simulation, in the order of its dim d."""
    if "d" in simulation.coords:
        sizes = np.atleast_1d(simulation["d"].values)
    elif "d" in simulation.attrs:
        given = simulation.attrs["d"]
        sizes = np.atleast_1d(json.loads(given) if isinstance(given, str) else given)
    else:
        raise NotComparable("sizes", "d -> infinity", "no d", "State it: simulation.assign_coords(d=...).")
    if sizes.size != simulation.sizes.get("d", 1) or len(set(sizes.tolist())) < sizes.size or not (sizes > 0).all():
        raise NotComparable(
            "sizes", "d -> infinity", f"d={sizes.tolist()}", "Give each entry of dim 'd' its own d > 0."
        )
    return sizes.astype(float)


def _check_dimension(theory: xr.Dataset, sizes: np.ndarray) -> None:
    """Refuse a theory for one d, which is among its parameters, if the simulation has another d or several."""
    params = _json_attribute(theory, ("params", "parameters")) or {}
    if "d" in params and not (sizes.size == 1 and _same(params["d"], sizes[0])):
        raise NotComparable(
            "sizes", f"d={params['d']:g}", f"d={', '.join(f'{size:g}' for size in sizes)}",
            "This theory is for one d and is not extrapolated: integrate with params['d'] of the simulation, and "
            "select one of several with simulation.sel(d=…).",
        )  # fmt: skip


def _check_times(theory: xr.Dataset, simulation: xr.Dataset, sizes: np.ndarray) -> np.ndarray:
    """Return |true time − theory's time|, shape (d, t), where they agree within half a step of the smallest d."""
    ours, theirs = np.asarray(theory["t"].values, float), np.asarray(simulation["t"].values, float)
    params = _json_attribute(simulation, ("params", "parameters")) or {}
    unit = float(params.get("eta", 1.0)) if simulation.attrs.get("clock") == "eta*steps/d" else 1.0
    rounding = 1e-9 * max(1.0, float(np.abs(theirs).max(initial=0.0)))
    half = 0.5 * unit / sizes.min() + rounding
    equal = ours.shape == theirs.shape and ours.size > 0 and bool((abs(ours - theirs) <= half).all())
    if not equal:
        if ours.shape == theirs.shape and ours.size:
            apart = ~(abs(ours - theirs) <= half)
            differing = ours[apart].tolist(), theirs[apart].tolist()
        else:
            differing = _unmatched(ours, theirs, half), _unmatched(theirs, ours, half)
        raise NotComparable(
            "times", *differing,
            f"Times must agree within half a step, {half:.3g}, and are never interpolated: these {len(differing[0])} "
            f"of theory and {len(differing[1])} of the simulation do not. Integrate with t_eval=simulation.t.",
        )  # fmt: skip
    several = "t_true" in simulation and "d" in simulation.dims
    true = simulation["t_true"].transpose("d", "t").values if several else theirs
    offset = abs(np.broadcast_to(true, (sizes.size, theirs.size)) - ours)
    return np.where(offset <= rounding, 0.0, offset)


def _unmatched(times: np.ndarray, others: np.ndarray, half: float) -> list[float]:
    return [float(t) for t in times if not (abs(others - t) <= half).any()]


# ── Deviations and their errors ──


@dataclass(frozen=True, slots=True)
class _Part:
    """One observable, flattened: rows by component, then time."""

    component: list[str]
    t: np.ndarray
    theory: np.ndarray
    mean: np.ndarray  # (d, rows)
    error: np.ndarray  # (d, rows)
    offset: np.ndarray  # (d, rows)
    stated: np.ndarray
    moving: np.ndarray
    scale: float
    runs: int
    name: str


def _flat(name: str, theory: xr.Dataset, simulation: xr.Dataset, offset: np.ndarray, numerical: float) -> _Part:
    mean, sd, runs = sample_moments(simulation, name)
    units = [dim for dim in mean.dims if dim not in ("d", "t")]
    expected = theory[name]
    here = {str(dim): size for dim, size in expected.sizes.items() if dim != "t"}
    there = {str(dim): mean.sizes[dim] for dim in units}
    if here != there:
        extra = [dim for dim in here if dim not in there]
        instead = f"Select one of theory's {extra[0]!r} first (.isel)." if extra else "Give both the same K and M."
        raise NotComparable("sizes", here or "no units", there or "no units", f"This is {name}. {instead}")
    mean = mean.expand_dims("d") if "d" not in mean.dims else mean
    sd = sd.expand_dims("d") if "d" not in sd.dims else sd
    F = np.asarray(expected.transpose("t", *units).values, float)
    m, s = (np.asarray(array.transpose("d", "t", *units).values, float) for array in (mean, sd))
    _check_finite(name, F, m, s, runs, theory)

    scale = float(np.ptp(F, axis=0).max())
    size = float(abs(F).max())
    if scale <= numerical * size or len(F) == 1:
        scale = size or 1.0  # an observable that is zero throughout has no scale: its own unit then
    shape = F.shape[1:]
    indices = list(np.ndindex(shape))
    if len(shape) == 2 and units[1] == f"{units[0]}_2" and all(_symmetric(array, numerical * size) for array in (F, m)):
        indices = [(i, k) for i, k in indices if i <= k]
    pick = np.array([np.ravel_multi_index(index, shape) if shape else 0 for index in indices])

    def rows(array: np.ndarray, lead: int) -> np.ndarray:
        flat = array.reshape(*array.shape[:lead], -1)[..., pick]
        return np.swapaxes(flat, -1, -2).reshape(*array.shape[: lead - 1], -1)

    T = len(F)
    labels = [f"{name}[{','.join(str(i + 1) for i in index)}]" if index else name for index in indices]
    return _Part(
        component=[label for label in labels for _ in range(T)],
        t=np.tile(np.asarray(simulation["t"].values, float), len(labels)),
        theory=rows(F, 1), mean=rows(m, 2), error=rows(s, 2) / np.sqrt(runs), offset=np.tile(offset, len(labels)),
        stated=np.tile(stated_error(theory, name, np.asarray(theory["t"].values, float)), len(labels)),
        moving=np.tile(_moving(F, scale), len(labels)), scale=scale, runs=runs, name=name,
    )  # fmt: skip


def _moving(F: np.ndarray, scale: float) -> np.ndarray:
    """Return whether the observable still moves, at each time; that at which it settles is included."""
    away = (abs(F - F[-1]) > SETTLED * scale).reshape(len(F), -1).any(1)
    settles = int(np.flatnonzero(away)[-1]) + 1 if away.any() else len(F)
    return np.arange(len(F)) <= settles


def _check_finite(name: str, F: np.ndarray, m: np.ndarray, s: np.ndarray, runs: int, theory: xr.Dataset) -> None:
    bad = {"theory": ~np.isfinite(F), "simulation": ~np.isfinite(m) | (~np.isfinite(s) & (runs > 1))}
    if not any(where.any() for where in bad.values()):
        return
    found = {side: f"{int(where.sum())} values of {name} that are not finite" for side, where in bad.items()}
    times = bad["theory"].reshape(len(F), -1).any(1) | bad["simulation"].swapaxes(0, 1).reshape(len(F), -1).any(1)
    first = float(theory["t"].values[np.argmax(times)])
    instead = f"The first is at t={first:.6g}: compare up to there (.sel(t=slice(…)))."
    raise NotComparable("values", found["theory"], found["simulation"], instead)


def _symmetric(array: np.ndarray, slack: float) -> bool:
    return bool((abs(array - array.swapaxes(-1, -2)) <= slack).all())


def _deviations(
    parts: Sequence[_Part], sizes: np.ndarray, bias: float, numerical: float, deterministic: bool = False
) -> tuple[xr.Dataset, dict[str, float]]:
    """Return the table without what depends on the number of comparisons, and the scale of each observable."""
    theory, t, mean, error, offset, stated, moving = (
        np.concatenate([getattr(part, key) for part in parts], axis=-1)
        for key in ("theory", "t", "mean", "error", "offset", "stated", "moving")
    )
    scale = np.concatenate([np.full(part.t.size, part.scale) for part in parts])
    names = [part.name for part in parts for _ in part.t]

    at_d = mean - theory
    intercept, slope = _weights(sizes)
    deviation = intercept @ at_d
    se = np.sqrt(intercept**2 @ error**2)
    if sizes.size == 1:
        granted = np.full(theory.size, bias / sizes[0])
    else:
        granted = bias * (abs(intercept @ sizes**-2.0) + abs(intercept) @ offset)
    still = (error <= ROUNDING * scale).all(0)  # the same in all runs, to rounding
    rounding = (numerical * scale + stated) * abs(intercept).sum()
    counted = ~(still & (abs(at_d) <= numerical * scale + stated).all(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(still, np.where(counted, np.sign(deviation) * np.inf, 0.0), deviation / se)
    if deterministic:
        if sizes.size > 2:
            granted = _curvature(sizes, at_d, np.array(names)) * abs(intercept @ sizes**-2.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.nan_to_num(deviation / granted)  # in units of what finite steps are granted
        still = np.zeros_like(still)

    columns = {
        "theory": theory,
        "mean": theory + deviation,
        "standard_error": np.where(still | deterministic, 0.0, se),
        "deviation": deviation,
        "z": z,
        "allowance": np.where(still, 0.0, granted) + rounding,
        "counted": counted,
        "resolved": abs(deviation) > rounding,
        "moving": moving,
        "scale": scale,
    }
    table = xr.Dataset(
        {name: ("comparison", column) for name, column in columns.items()},
        coords={
            "observable": ("comparison", names),
            "component": ("comparison", [label for part in parts for label in part.component]),
            "t": ("comparison", t),
            "d": ("d", np.rint(sizes).astype(int)) if sizes.size > 1 else round(sizes[0]),
        },
    )
    if sizes.size > 1:
        table["mean_at_d"], table["standard_error_at_d"] = (("d", "comparison"), mean), (("d", "comparison"), error)
        table["slope"] = "comparison", slope @ at_d
        table["slope_error"] = "comparison", np.sqrt(slope**2 @ error**2)
        exponent, exponent_error = _exponents(sizes, at_d, error, numerical * scale)
        table["exponent"], table["exponent_error"] = ("comparison", exponent), ("comparison", exponent_error)
        table.attrs["curvature_allowance"] = float(bias * abs(intercept @ sizes**-2.0))
        table.attrs["clock_allowance"] = float(bias * (abs(intercept) @ offset).max())
    return table, {part.name: part.scale for part in parts}


def _curvature(sizes: np.ndarray, deviation: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return a bound on the coefficients of 1/d² in deviations without noise, from three or more sizes.

    From the parabola through them, its largest of each observable, and half as much again for the orders beyond, which
    are smaller by a factor of 1/d times rates. An error of theory does not depend on d, and does not enter.
    """
    square = abs(np.polyfit(1 / sizes, deviation, 2)[0])
    largest = {name: square[names == name].max() for name in set(names.tolist())}
    return 1.5 * np.array([largest[name] for name in names.tolist()])


def _weights(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return w, v such that the fit of c0 + c1/d with weights ~ d has c0 = Σ w·deviation, c1 = Σ v·deviation."""
    if sizes.size == 1:
        return np.ones(1), np.zeros(1)
    design = np.stack([np.ones(sizes.size), 1 / sizes], axis=1)
    root = np.sqrt(sizes)[:, None]
    w, v = np.linalg.pinv(root * design, rcond=1e-15) * root.T
    return w, v


def _exponents(
    sizes: np.ndarray, deviation: np.ndarray, error: np.ndarray, numerical: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return p of |deviation| ~ d^(−p) and its standard error; NaN where it is not significant at every d."""
    sign = np.sign(deviation)
    beyond = abs(deviation) >= SIGNIFICANT * (error + numerical)
    clear = (beyond & (error > 0) & (sign == sign[0]) & (sign != 0)).all(0)
    exponent, uncertainty = np.full((2, deviation.shape[1]), np.nan)
    x = np.log(sizes)[:, None]
    weight = (deviation[:, clear] / error[:, clear]) ** 2  # the inverse variance of a logarithm
    centred = x - (weight * x).sum(0) / weight.sum(0)
    inverse = 1 / (weight * centred**2).sum(0)
    exponent[clear] = -inverse * (weight * centred * np.log(abs(deviation[:, clear]))).sum(0)
    uncertainty[clear] = np.sqrt(inverse)
    return exponent, uncertainty


def _quantile(level: float, comparisons: int, runs: int) -> float:
    """Return how many standard errors a comparison may be off: Student's t, two-sided, Bonferroni."""
    return float(-stdtrit(runs - 1, level / (2 * max(comparisons, 1)))) if runs > 1 else np.nan


# ── What follows ──


def _summary(table: xr.Dataset, names: Sequence[str], scale: dict[str, float]) -> xr.Dataset:
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


def _decide(
    table: xr.Dataset, summary: xr.Dataset, simulation: xr.Dataset, runs: int, level: float, resolution: float
) -> tuple[str, str]:
    count = int(table.counted.sum())
    if count == 0:
        return UNDECIDED, "nothing was compared: every observable is constant by construction"
    if runs < 2 and not is_deterministic(simulation):
        return UNDECIDED, "one run has no standard error; simulate at least 2 runs, or better 16"
    violations = int((~table.passed & table.counted).sum())
    if violations:
        worst = describe(table.isel(comparison=worst_row(table)))
        return FAIL, f"{violations} of {count} comparisons violated, the worst {worst}"
    if simulation.attrs.get("status") == "interrupted":
        return UNDECIDED, f"the simulation was interrupted; the {runs} runs that finished agree with theory"
    live = summary.isel(observable=summary.comparisons.values > 0)
    coarse = live.isel(observable=live.relative.values > resolution)
    if coarse.sizes["observable"]:
        return UNDECIDED, "too coarse: " + "; ".join(
            _too_coarse(coarse.sel(observable=name), count, level, resolution) for name in coarse.observable.values
        )
    least = live.isel(observable=int(np.argmax(live.relative.values)))
    return PASS, (
        f"all {count} comparisons agree; an error of {100 * float(least.relative):.3g} % of scale, over half of the "
        f"time that an observable moves, would have been caught in any ({least.limiting.item()} is the least certain)"
    )


def _too_coarse(row: xr.Dataset, count: int, level: float, resolution: float) -> str:
    percent = f"{100 * float(row.relative):.3g} % of scale"
    text = f"in {row.limiting.item()} errors below {float(row.detectable):.3g} ({percent}) would have passed"
    room = resolution * float(row.scale) - float(row.allowance)
    if room <= 0:
        return f"{text}, {float(row.allowance):.3g} of it for finite d: a larger d is needed, not more runs"
    return f"{text}; about {_runs_needed(float(row.spread), room, count, level)} runs would show {100 * resolution:g} %"


def _runs_needed(spread: float, room: float, count: int, level: float) -> int:
    """Return the smallest n with z(n)·spread/√n <= room."""

    def enough(n: int) -> bool:
        return _quantile(level, count, n) * spread <= room * np.sqrt(n)

    high = 2
    while not enough(high) and high < 1 << 40:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _reason(simulation: xr.Dataset, runs: int, level: float, count: int, bias: float) -> str:
    """Return where a criterion's numbers come from."""
    if is_deterministic(simulation):
        return f"nothing is random; bias={bias:g}"
    freedom = f"{runs - 1} degrees of freedom"
    return f"Student's t, {freedom}, two-sided level {level:g} over {count} comparisons; bias={bias:g}"


def _criterion(sizes: np.ndarray, critical: float, why: str, bias: float, table: xr.Dataset) -> str:
    noise = f"{critical:.3g}·SE + " if critical != 0 else ""
    if sizes.size == 1:
        return f"|mean − theory| <= {noise}{bias:g}/d ({why})"
    if critical == 0 and sizes.size > 2:
        return "|c0| <= 1.5 |Σ w/d²| c2, mean − theory = c0 + c1/d, c2 of the parabola through them (nothing is random)"
    text = f"|c0| <= {noise}{table.attrs['curvature_allowance']:.3g}, mean − theory = c0 + c1/d"
    if table.attrs["clock_allowance"]:
        text = text.replace(",", f" + up to {table.attrs['clock_allowance']:.2g} for times rounded to steps,", 1)
    return f"{text} ({why})"


def _describe_theory(theory: xr.Dataset) -> str:
    said = [str(theory.attrs[key]) for key in ("title", "limit", "theory_status") if theory.attrs.get(key)]
    return "; ".join(said) or "as given"


def _describe_simulation(simulation: xr.Dataset, sizes: np.ndarray, runs: int) -> str:
    text = f"{runs} run{'s' if runs != 1 else ''}, d={', '.join(f'{d:g}' for d in sizes)}"
    return text + "".join(f", {key}={simulation.attrs[key]}" for key in ("engine", "init") if key in simulation.attrs)
