"""Whether theory and simulation are of the same thing: clocks, times, parameters, sizes, names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy
import xarray as xr

from effdyn.derive.errors import ModelError, nearest
from effdyn.derive.limits import LIMITS, WIDTH, Limit

from .asked import unit_of

ROUNDING = 1e-13
"""Runs that differ by less than this, per unit of the observable, do not fluctuate: a few hundred ulp."""
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


def check_number(argument: str, given: Any, holds: bool, accepted: str) -> None:
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


def with_time(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with a dim t, also where one time was selected."""
    if "t" in dataset.dims or "t" not in dataset.coords:
        return dataset
    return dataset.expand_dims("t")


def check_order(theory: xr.Dataset, simulation: xr.Dataset) -> None:
    def has_runs(dataset: xr.Dataset) -> bool:
        moments = "runs" in dataset.attrs and any(str(name).endswith("_std") for name in dataset.data_vars)
        return "run" in dataset.dims or moments

    if has_runs(theory) and not has_runs(simulation):
        raise NotComparable(
            "runs", "several", "none", "The arguments are swapped: theory comes first, compare(theory, simulation)."
        )


def check_attributes(theory: xr.Dataset, simulation: xr.Dataset) -> list[str]:
    """Refuse what the attributes contradict; return notes on what they do not say."""
    notes = []
    advice = {
        "clock": "Simulate with clock=theory.attrs['clock']; the clock of gradient flow is eta*steps/d, that of wide "
        "students eta*steps/(K*d).",
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


def _small_parameters(limit: Limit, simulation: xr.Dataset) -> list[str]:
    """Return a note on each parameter that theory takes to zero, with its value in the simulation."""
    given = _json_attribute(simulation, ("params", "parameters")) or {}
    known = {"K": simulation.sizes["student"]} if "student" in simulation.sizes else {}
    known |= {name: value for name, value in given.items() if np.ndim(value) == 0}
    small = [(expr, name) for expr, name in limit.vanishing if limit.small & expr.free_symbols]
    small += [(1 / WIDTH, "1/K")] if limit.neurons == "alone" else []
    theory = limit.name.replace("-", " ")
    return [
        f"{theory} drops terms of order {name}, and bias/d does not cover them; the simulation "
        + _has(expr, name, known)
        for expr, name in small
    ]


def _has(small: sympy.Expr, name: str, known: dict[str, Any]) -> str:
    """Return what a simulation says of a small parameter."""
    missing = [str(s) for s in small.free_symbols if str(s) not in known]
    if missing:
        return f"does not state its {' and '.join(sorted(missing))}"
    return f"has {name}={float(small.subs({s: known[str(s)] for s in small.free_symbols})):g}"


def _as_scaled(limit: Limit, params: dict[str, Any]) -> dict[str, Any]:
    """Return a simulation's parameters as a limit has them: in gradient flow eta_a, kappa, … over eta, and no eta."""
    small = {symbol: params[str(symbol)] for symbol in limit.small if str(symbol) in params}
    others = {name: value for name, value in params.items() if name not in map(str, small)}
    for symbol, scaled in limit.scaling:  # each is a ratio times a small parameter
        (ratio,) = scaled.free_symbols - limit.small
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


def names_compared(
    theory: xr.Dataset, simulation: xr.Dataset, asked: Sequence[str] | None, notes: list[str]
) -> list[str]:
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


def input_dimensions(simulation: xr.Dataset) -> np.ndarray:
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


def check_dimension(theory: xr.Dataset, sizes: np.ndarray) -> None:
    """Refuse a theory for one d, which is among its parameters, if the simulation has another d or several."""
    params = _json_attribute(theory, ("params", "parameters")) or {}
    if "d" in params and not (sizes.size == 1 and _same(params["d"], sizes[0])):
        raise NotComparable(
            "sizes", f"d={params['d']:g}", f"d={', '.join(f'{size:g}' for size in sizes)}",
            "This theory is for one d and is not extrapolated: integrate with params['d'] of the simulation, and "
            "select one of several with simulation.sel(d=…).",
        )  # fmt: skip


def check_times(theory: xr.Dataset, simulation: xr.Dataset, sizes: np.ndarray) -> np.ndarray:
    """Return |true time − theory's time|, shape (d, t), where they agree within half a step of the smallest d."""
    ours, theirs = np.asarray(theory["t"].values, float), np.asarray(simulation["t"].values, float)
    params = _json_attribute(simulation, ("params", "parameters")) or {}
    width = simulation.sizes.get("student", 1)
    unit = unit_of(str(simulation.attrs.get("clock")), float(params.get("eta", 1.0)), width)
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
