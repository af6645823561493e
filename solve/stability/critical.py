"""``solve.critical_rate``: how far a parameter can be raised before a fixed point loses its stability."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError
from effdyn.derive.errors import Described, nearest

from .fixed_points import NEUTRAL
from .flow import Flow, attributes, states_at
from .linearize import finite_jacobian
from .newton import find_zero

if TYPE_CHECKING:
    import xarray as xr

FIRST, LARGEST_STEP, SMALLEST_STEP = 0.02, 0.1, 1e-6
"""Steps of the continuation, over the interval: the first, the largest and the smallest."""
JUMP = 0.2
"""The largest change of a state in a step, over the state's largest entry: beyond it the search may have changed
branch."""
SHARP = 1e-10
"""Relative width of the interval that the critical value is enclosed in."""


def critical_rate(
    dynamics: Dynamics, y0: Any, params: Mapping[str, Any], *, up_to: float, over: str = "eta"
) -> "xr.Dataset":
    """Follow a fixed point while a parameter rises, and return where it stops being stable.

    From ``params[over]`` on, natural continuation: each step begins at the fixed point before, and is halved where
    Newton steps fail or lead far away. The first zero of the largest growth rate is then enclosed by bisection.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations.
    y0, params : dict
        A stable fixed point, or a state close to it, and the parameters with the first value of ``over``.
    up_to : float
        The largest value looked at.
    over : str
        A scalar parameter: ``"eta"``.

    Returns
    -------
    xarray.Dataset
        The fixed point along the way, with a dim named after the parameter: states, observables, ``growth`` (largest
        growth rate) and ``frequency`` (of that mode); and the scalar ``critical``, NaN if it stays stable up to
        ``up_to`` (``attrs["status"]`` is then ``"stable"``, else ``"critical"``). A critical mode with a frequency
        other than 0 is an oscillation.

    Raises
    ------
    ModelError
        For bad input, or if the fixed point is not stable to begin with.
    ArithmeticError
        If the fixed point cannot be followed (it ends in a fold, say); with the value reached.

    Examples
    --------
    >>> from effdyn import derive
    >>> from effdyn.solve.stability import critical_rate
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> params = dict(eta=0.1, sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
    >>> found = critical_rate(dyn, dict(Q=[[1.0]], R=[[1.0]]), params, up_to=5.0)
    >>> round(float(found.critical), 8)
    2.0
    """
    import xarray as xr

    flow = Flow.at(dynamics, y0, params)
    low = _first_value(flow, over, up_to)
    first, neutral = _begin(flow, low, over)
    branch, path = _Branch(flow, over, neutral), [first]
    step = FIRST * (up_to - low)
    while path[-1][0] < up_to and path[-1][2].real <= 0:
        value = min(path[-1][0] + step, up_to)
        following = branch.at(value, path[-1][1])
        if following is None:
            step /= 2
            if step < SMALLEST_STEP * (up_to - low):
                message = f"the fixed point cannot be followed beyond {over} = {path[-1][0]:.8g}, where it is stable"
                raise ArithmeticError(message)
            continue
        path.append((value, *following))
        step = min(1.5 * step, LARGEST_STEP * (up_to - low))
    critical = np.nan
    if path[-1][2].real > 0:
        path[-1:] = [_enclose(branch, path[-2], path[-1])]
        critical = path[-1][0]
    y = np.array([state for _, state, _ in path])
    rates = np.array([rate for _, _, rate in path])
    return xr.Dataset(
        {
            **states_at(flow, y, (over,)),
            "growth": (over, rates.real),
            "frequency": (over, rates.imag),
            "critical": ((), critical),
        },
        coords={over: np.array([value for value, _, _ in path])},
        attrs=attributes(flow) | {"status": "stable" if np.isnan(critical) else "critical"},
    )


Point = tuple[float, np.ndarray, complex]
"""The parameter's value, the fixed point, and its eigenvalue of largest real part."""


def _first_value(flow: Flow, over: str, up_to: float) -> float:
    scalars = [q.name for q in flow.dynamics.parameters if not q.indices]
    if over not in scalars:
        raise ModelError("over", over, f"a scalar parameter: one of {', '.join(scalars)}{nearest(over, scalars)}")
    low = float(flow.inputs.params[over])
    if not np.isfinite(up_to) or up_to <= low:
        raise ModelError("up_to", up_to, f"a number above params[{over!r}] = {low:g}")
    return low


def _begin(flow: Flow, low: float, over: str) -> tuple[Point, int]:
    """Return the first point, and the number of its neutral directions."""
    zero = find_zero(flow, flow.start)
    if not zero.converged:
        raise ModelError("y0", Described("a state from which no fixed point was found"), "a fixed point")
    neutral = _neutral(flow, zero.y)
    rate = _leading(flow, zero.y, neutral)
    if rate.real > 0:
        given = f"a fixed point with growth rate {rate.real:.4g} at {over} = {low:g}"
        raise ModelError("y0", Described(given), "one that is stable to begin with")
    return (low, zero.y, rate), neutral


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """The fixed points of a flow as functions of one parameter."""

    flow: Flow
    over: str
    neutral: int

    def at(self, value: float, near: np.ndarray) -> tuple[np.ndarray, complex] | None:
        """Return the fixed point next to ``near`` and its leading eigenvalue; None if it is lost."""
        params = self.flow.inputs.params | {self.over: np.array(value)}
        moved = Flow(self.flow.dynamics, replace(self.flow.inputs, params=params))
        zero = find_zero(moved, near)
        if not zero.converged or np.abs(zero.y - near).max() > JUMP * np.abs(near).max():
            return None
        return zero.y, _leading(moved, zero.y, self.neutral)


def _leading(flow: Flow, y: np.ndarray, neutral: int) -> complex:
    """Return the eigenvalue of largest real part, without the ``neutral`` ones closest to zero.

    With more students than teacher units fixed points form continua, whose directions have eigenvalue zero at every
    value of the parameter, up to rounding.
    """
    values = np.linalg.eigvals(finite_jacobian(flow, y))
    moving = values[np.argsort(np.abs(values))[neutral:]]
    return complex(max(moving, key=lambda v: (v.real, v.imag))) if len(moving) else 0j


def _neutral(flow: Flow, y: np.ndarray) -> int:
    """Return the number of directions without growth or decay."""
    jacobian = finite_jacobian(flow, y)
    return int((np.abs(np.linalg.eigvals(jacobian)) <= NEUTRAL * np.abs(jacobian).max()).sum())


def _enclose(branch: _Branch, stable: Point, unstable: Point) -> Point:
    """Return the point where the leading growth rate changes sign, by bisection."""
    while unstable[0] - stable[0] > SHARP * abs(unstable[0]):
        middle = (stable[0] + unstable[0]) / 2
        found = branch.at(middle, stable[1])
        if found is None:
            ends = f"{stable[0]:.8g} and {unstable[0]:.8g}"
            raise ArithmeticError(f"the fixed point is lost between {branch.over} = {ends}")
        if found[1].real > 0:
            unstable = (middle, *found)
        else:
            stable = (middle, *found)
    return stable
