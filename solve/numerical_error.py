"""How far the numerical expectations of a Dynamics are from the exact ones: the same kernels with other rules.

A kernel is given its nodes and weights with its parameters, so that a finer rule, or another of the same size, needs no
other code.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics
from effdyn.derive.numerical.quadrature import BUNDLE, rule_of

from .kernels.kernel import Kernel, check_dynamics, kernel, observables_kernel
from .kernels.layout import Inputs, at_level, pack, packed_length, parameter_vector, read_inputs, unpack
from .results import variable

if TYPE_CHECKING:
    import xarray as xr

OTHER_RULES = ((1, 0), (0, 1), (0, 2))
"""Levels and shifts of the rules to compare with: one of many more nodes, and two as good as the one in use.

The difference to the first is the error, unless both have missed the same; the spread of the others is an independent
sign of it. The largest difference is taken.
"""

ROUGH = 2.0
"""For integrands with kinks or jumps anywhere, whose error one such difference falls short of now and then."""
KINKED = ("rough", *BUNDLE)
"""The rules for these, split or not."""


def numerical_error(
    dynamics: Dynamics, y0: "Mapping[str, Any] | xr.Dataset", params: Mapping[str, Any]
) -> "xr.Dataset":
    """Return the estimated error of each time derivative and observable that is due to numerical expectations.

    Parameters
    ----------
    dynamics : Dynamics
    y0, params :
        State and parameters, as for :func:`effdyn.solve.integrate`.

    Returns
    -------
    xarray.Dataset
        By the name of each state, the error of its time derivative; by that of each observable, its own. Zero where
        every moment has a closed form.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> params = dict(eta=0.5, sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
    >>> float(solve.numerical_error(dyn, dict(Q=[[0.5]], R=[[0.1]]), params).Q.max())
    0.0
    """
    import xarray as xr

    check_dynamics(dynamics)
    inputs = read_inputs(dynamics, y0, params)
    quantities = {e.quantity.name: e.quantity for e in dynamics.equations}
    errors = errors_at(dynamics, inputs, pack(dynamics.states, inputs.y0))
    return xr.Dataset({name: variable(quantities[name], error, ()) for name, error in errors.items()})


def errors_at(dynamics: Dynamics, inputs: Inputs, y: np.ndarray, t: float = 0.0) -> dict[str, np.ndarray]:
    """Return the estimated errors at a packed state, by name."""
    kernels = [kernel(dynamics), *([observables_kernel(dynamics)] if dynamics.observables else [])]
    value = _values(dynamics, kernels, inputs, y, t, 0, 0)
    errors = {name: np.zeros_like(v) for name, v in value.items()}
    for level, shift in OTHER_RULES if dynamics.tables else ():
        other = _values(dynamics, kernels, at_level(dynamics, inputs, level, shift), y, t, level, shift)
        errors = {name: np.maximum(error, np.abs(other[name] - value[name])) for name, error in errors.items()}
    for equations in (dynamics.drift, dynamics.observables) if dynamics.tables else ():
        if rule_of(dynamics, equations) in KINKED:
            errors |= {e.quantity.name: ROUGH * errors[e.quantity.name] for e in equations}
    return errors


def error_summary(dynamics: Dynamics, inputs: Inputs, t: np.ndarray, y: np.ndarray) -> str:
    """Return the largest errors of each quantity at the first and the last of packed states ``y``, (T, n), as JSON."""
    ends = sorted({0, len(t) - 1})
    errors = [errors_at(dynamics, inputs, y[n], float(t[n])) for n in ends]
    summary = {name: [float(e[name].max(initial=0.0)) for e in errors] for name in (errors[0] if errors else ())}
    return json.dumps({"t": [float(t[n]) for n in ends], **summary})


def _values(
    dynamics: Dynamics, kernels: list[Kernel], inputs: Inputs, y: np.ndarray, t: float, level: int, shift: int
) -> dict[str, np.ndarray]:
    par = parameter_vector(dynamics, inputs, level, shift)
    work = np.empty(max(k.workspace_size(inputs.sizes) for k in kernels))
    arrays: dict[str, np.ndarray] = {}
    for compiled in kernels:
        out = np.empty(sum(packed_length(q, inputs.sizes) for q in compiled.outputs))
        compiled(t, np.ascontiguousarray(y), out, par, work)
        arrays |= unpack(compiled.outputs, out, inputs.sizes)
    return arrays
