"""How exactly the rates of mean correction and covariance are known: by other rules, and differences over other steps.

Rules over nodes that are equally good, and a step of differences that is half as large again, give the same rates up to
the errors of either: truncation of differences shows by 1.25 times its size, the errors of rules by their spread.
Knows nothing of models.
"""

from collections.abc import Sequence

import numpy as np

from effdyn.derive.numerical.joint import joint_error

from .rhs import System, averages_at, rhs_function
from .table import diffusion_along

COARSE = 0.02
"""Relative errors of rates above this are worth a warning."""

CHECKED = 3
"""The number of times at which rates are compared: both ends of those given, and what lies between."""

ROUNDING = 1e3 * float(np.finfo(float).eps)
"""Standard deviations below this, relative to the largest, are rounding: increments are sums of dozens of terms, each
rounded a few times, that may be ten times as large as their sum."""


def rate_errors(first: System, other: System, times: np.ndarray, states: np.ndarray) -> tuple[float, float]:
    """Return the relative errors of dm/dt and dC/dt.

    Parameters
    ----------
    first, other : System
        The same system by two rules and with two steps.
    times, states : ndarray, shapes (T,) and (T, 2n + n(n + 1)/2)
        Times and ω, m and the upper triangle of C at them.

    Returns
    -------
    tuple of float
        The largest difference of two rates of m over the largest rate of m, and of C over the largest entry of D, at
        the times that are compared.
    """
    n = first.n
    chosen = np.unique(np.linspace(0, len(times) - 1, CHECKED).round().astype(int))
    one, two = (_rates(system, times[chosen], states[chosen])[:, n:] for system in (first, other))
    noise = _largest(np.array([_diffusion(first, times[k], states[k, :n]) for k in chosen]))
    apart = np.abs(one - two)
    return float(apart[:, :n].max() / _largest(one[:, :n])), float(apart[:, n:].max() / noise)


def diffusion_error(rules: Sequence[System], times: np.ndarray, states: np.ndarray) -> float:
    """Return the error of D at these states, from the spread of equally good rules over the fields of an example.

    See :func:`relative_spread`.
    """
    return relative_spread([diffusion_along(system, times, states) for system in rules])


def relative_spread(found: Sequence[np.ndarray]) -> float:
    """Return the error of the first of several equally good D (T, n, n), relative to √(D_pp D_qq) of the two states.

    The largest of all entries between states that fluctuate, each D_pp the largest of any rule. Of a length that is
    held, D_pp is the square of what rounding leaves of terms that cancel: nothing to be relative to.
    """
    deviation = np.sqrt(np.max([np.diagonal(D, axis1=1, axis2=2) for D in found], axis=0))
    moving = np.where(deviation > ROUNDING * deviation.max(axis=1, keepdims=True), deviation, np.inf)
    return float(np.max(joint_error(found) / (moving[:, :, None] * moving[:, None])))


def _rates(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    par, work = system.parameters(), np.zeros(system.n_work)
    out = np.empty_like(states)
    for row, t, y in zip(out, times, np.ascontiguousarray(states), strict=True):
        rhs_function()(t, *(array.ctypes.data for array in (y, row, par, work)))
    return out


def _diffusion(system: System, t: float, state: np.ndarray) -> np.ndarray:
    return averages_at(t, state, system.parameters(), np.zeros(system.n_work))[: system.n**2]


def _largest(values: np.ndarray) -> float:
    """Return the largest absolute value; of zeros, which have no relative error, the least number there is."""
    return max(float(np.abs(values).max()), float(np.finfo(float).tiny))
