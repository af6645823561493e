"""Explicit formulas for observables, evaluated at given times until finer rules change nothing."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from effdyn.derive import Dynamics

from .errors import Diverged
from .evaluate import Rules, evaluate, scope_of
from .given import Given, times_from_zero
from .implicit import defined_functions
from .kernels.layout import Inputs, read_inputs
from .results import parameters_json, to_dataset

if TYPE_CHECKING:
    import xarray as xr

MOST_NODES = 4096
MOST_TERMS = 4_000_000
"""Complex numbers in one array."""
COARSE, FINE = 18, 24
"""Nodes on a contour: the result is that of FINE, and the difference from COARSE is what is stated as its error; more
nodes only add rounding errors."""


def evaluate_formulas(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    times: np.ndarray | None,
    rtol: float,
    atol: float,
) -> "xr.Dataset":
    """Return the observables of a Dynamics of kind ``"formula"`` at times from t = 0 on.

    Integrals take 64, 128, … nodes until all observables agree to ``atol + rtol·|value|``; inverse Laplace transforms
    take 24 nodes, their error is 1e-11 or so. The difference from the next coarser rules is stated in
    ``attrs["numerical_error"]``, of each observable at the first and the last time. Cost: nodes × classes × times, for
    double transforms 576 × classes × times.

    Raises
    ------
    Diverged
        If a value is not finite.

    Warns
    -----
    RuntimeWarning
        If observables still change by more between the finest rules, of 4096 nodes.
    """
    inputs = read_inputs(Given.of(dynamics), y0, params)
    t = times_from_zero(t_span, times)
    values, error, rules = _converged(dynamics, inputs, t, rtol, atol)
    stated = {"t": [float(t[0]), float(t[-1])], **{name: [float(e[0]), float(e[-1])] for name, e in error.items()}}
    attrs = {
        "y0": parameters_json(inputs.y0),
        "method": "formula",
        "rtol": rtol,
        "atol": atol,
        "status": "success",
        "nodes": rules.nodes,
        "numerical_error": json.dumps(stated),
    }
    solution = to_dataset(dynamics, t, {}, values, inputs.params, attrs)
    for name, array in values.items():
        if not np.isfinite(array).all():
            first = float(t[int(np.argmin(np.isfinite(array)))])
            raise Diverged(f"{name} is not finite at t = {first:.6g}", first, inputs.y0, solution)
    if rules.nodes >= MOST_NODES:
        _warn_of_difference(t, values, error, rtol, atol)
    return solution


def _warn_of_difference(t: np.ndarray, values: "Arrays", error: "Arrays", rtol: float, atol: float) -> None:
    for name, difference in error.items():
        beyond = difference / (atol + rtol * np.abs(values[name]))
        worst = int(np.argmax(beyond))
        if beyond[worst] > 1:
            text = f"{name} is known to {difference[worst]:.2g} only at t = {t[worst]:.6g}: with {MOST_NODES} nodes its"
            advice = "integral still changes by as much, which is beyond rtol and atol"
            warnings.warn(f"{text} {advice}", RuntimeWarning, stacklevel=5)


Arrays = dict[str, np.ndarray]


def _converged(
    dynamics: Dynamics, inputs: Inputs, t: np.ndarray, rtol: float, atol: float
) -> tuple[Arrays, Arrays, Rules]:
    """Return the observables, estimates of their errors, and the rules that gave them."""
    coarse, rules = _values(dynamics, inputs, t, Rules(32, COARSE)), Rules(64, FINE)
    while True:
        fine = _values(dynamics, inputs, t, rules)
        error = {name: np.abs(fine[name] - coarse[name]) for name in fine}
        close = all((error[name] <= atol + rtol * np.abs(fine[name])).all() for name in fine)
        if close or rules.nodes >= MOST_NODES or not _has_integral(dynamics):
            return fine, error, rules
        coarse, rules = fine, replace(rules, nodes=2 * rules.nodes)


def _has_integral(dynamics: Dynamics) -> bool:
    return any(e.expr.has(sympy.Integral) for e in dynamics.observables)


def _values(dynamics: Dynamics, inputs: Inputs, t: np.ndarray, rules: Rules) -> Arrays:
    """Return the observables, so many times at once that their terms take some 100 MB."""
    terms = rules.contour**2 * max(1, *inputs.sizes.values()) if inputs.sizes else rules.nodes
    parts = [_values_at(dynamics, inputs, part, rules) for part in np.array_split(t, -(-t.size * terms // MOST_TERMS))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _values_at(dynamics: Dynamics, inputs: Inputs, t: np.ndarray, rules: Rules) -> Arrays:
    scope = scope_of(dynamics, inputs, t, rules)
    functions = defined_functions(dynamics, scope)
    found: Arrays = {}
    for equation in dynamics.observables:  # which may be written in those before
        known = {e.quantity.symbol: found[e.quantity.name] for e in dynamics.observables[: len(found)]}
        value = evaluate(equation.expr, replace(scope, symbols={**scope.symbols, **known}, functions=functions))
        found[equation.quantity.name] = np.broadcast_to(value.real, t.shape).copy()
    return found
