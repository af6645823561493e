"""``solve.plateau``: the symmetric plateau, how fast training leaves it, and how that depends on the input dimension.

From a start that does not tell units apart, the flow stays symmetric and ends at a fixed point of the symmetric flow, a
saddle of the full one. At finite d the overlaps of random vectors, and the noise of SGD, break the symmetry by
ε ~ 1/√d, which grows as exp(λt): the plateau lasts a time (1/λ) ln(1/ε) = ln(d)/(2λ) + O(1).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError
from effdyn.derive.errors import Described

from .fixed_points import ADMISSIBLE, NEUTRAL
from .flow import Flow
from .linearize import finite_jacobian, group_of, linearize, spectrum
from .newton import find_zero
from .symmetries import Symmetries

if TYPE_CHECKING:
    import xarray as xr

LONGEST = 2.0**20
"""Until when the symmetric flow is followed, on the dynamics' clock."""
ACCURACY, HUGE = 1e-8, 1e8
"""Of the symmetric flow, which only has to come close; and the overlaps at which it is given up."""
NEAR = 0.3
"""How far, relative to the state, a Newton search may end from where the symmetric flow is: else the flow goes on."""


class NoPlateau(ModelError):
    """A start from which training reaches no plateau, with the reason.

    ``argument``, ``given`` and ``accepted`` are those of every :class:`~effdyn.derive.ModelError`: what leads to none,
    the reason, and what would have one.
    """

    def __init__(self, argument: str, given: object, accepted: str) -> None:
        super().__init__(argument, given, accepted)
        self.args = (f"no plateau from this {argument}: {given}. A plateau needs {accepted}",)


def plateau(dynamics: Dynamics, y0: Any, params: Mapping[str, Any]) -> "xr.Dataset":
    """Return the plateau that training from a start without preferences reaches, and the rate of escape from it.

    The start and the flow are averaged over exchanges of units, and followed until Newton steps end next to them.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations.
    y0, params : dict
        As ``solve.integrate`` takes them.

    Returns
    -------
    xarray.Dataset
        What :func:`linearize` returns at the plateau (``eg`` is its height) and: ``rate``, the escape rate, the largest
        growth rate of the directions that break the symmetry; ``slope`` = 1/(2 rate), by which an e-fold larger d
        prolongs the plateau on this clock; ``degeneracy``, the number of directions that grow at this rate;
        ``symmetric_rate``, the largest growth rate of the directions that keep it.

    Raises
    ------
    ModelError
        For bad input, naming it. If there is no plateau from this start, as :class:`NoPlateau`, with the reason: no two
        units may be exchanged, the symmetric flow reaches no fixed point, or nothing leaves it.
    ArithmeticError
        If the symmetric flow diverges, with the time and state reached.

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn import derive
    >>> from effdyn.solve.stability import plateau
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> start = dict(Q=0.1 * np.eye(2), R=np.full((2, 2), 0.01))
    >>> found = plateau(dyn, start, dict(eta=1.0, sigma=0.0, T=np.eye(2), a=1.0, b=1.0))
    >>> round(float(found.eg), 4), round(float(found.rate), 4), round(float(found.slope), 2)
    (0.0207, 0.0591, 8.45)
    """
    flow = Flow.at(dynamics, y0, params)
    group = group_of(flow)
    if len(group.actions) == 1:
        units = ", ".join(f"{size} = {flow.inputs.sizes[str(size)]}" for size in dynamics.sizes)
        reason = f"no two units may be exchanged ({units}), so there is no symmetry to break"
        raise NoPlateau("y0", Described(reason), "several units, which a single student has not")
    point = symmetric_fixed_point(flow, group)
    modes = linearize(dynamics, flow.unpacked(point), params)
    breaking = modes.growth.values[~modes.symmetric.values]
    scale = float(np.abs(modes.jacobian).max())
    if not len(breaking) or breaking[0] <= NEUTRAL * scale:
        rates = np.array2string(breaking, precision=4)
        reason = (
            f"nothing leaves its symmetric fixed point, where perturbations that break the symmetry grow at {rates}"
        )
        raise NoPlateau("y0", Described(reason), "a symmetric fixed point that is a saddle")
    rate = float(breaking[0])
    keeping = modes.growth.values[modes.symmetric.values]
    return modes.assign(
        rate=((), rate, {"long_name": f"escape rate, per {dynamics.clock}"}),
        slope=((), 1 / (2 * rate), {"long_name": "change of the escape time with ln d"}),
        degeneracy=((), int((breaking > rate - NEUTRAL * scale).sum())),
        symmetric_rate=((), float(keeping[0])),
    )


def symmetric_fixed_point(flow: Flow, group: Symmetries) -> np.ndarray:
    """Return the fixed point, packed, that the symmetric flow from the flow's own start ends at.

    Raises
    ------
    NoPlateau
        If the flow is not at a fixed point at the time :data:`LONGEST`, or that has neighbours.
    """
    y, stop, done = group.average(flow.start), 1.0, 0.0
    while done < LONGEST:
        y, done, stop = _followed(flow, y, group, stop - done), stop, 2 * stop
        zero = find_zero(flow, y)
        near = np.abs(zero.y - y).max() <= NEAR * np.abs(y).max()
        if zero.converged and near and flow.least_eigenvalue(zero.y) > -ADMISSIBLE:
            growth, scale = _symmetric_growth(flow, zero.y, group)
            if abs(growth) <= NEUTRAL * scale:  # as linear students have: no end of the flow will be told from it
                reason = "its symmetric fixed point is one of a continuum"
                raise NoPlateau("y0", Described(reason), "an isolated symmetric fixed point")
            if growth < 0:  # it ends here, and does not just pass by
                return group.average(zero.y)
    rest = float(np.abs(group.average(flow.drift(y))).max())
    state = ", ".join(f"{name} = {value:.4g}" for name, value in zip(flow.coordinates, y, strict=True))
    reason = (
        f"at t = {LONGEST:g} the symmetric flow is not at a fixed point where it could end, but at {state}, where the "
        f"largest time derivative is {rest:.3g}"
    )
    raise NoPlateau(
        "y0", Described(reason), "a symmetric flow that comes to rest: try a smaller learning rate or noise"
    )


def _symmetric_growth(flow: Flow, y: np.ndarray, group: Symmetries) -> tuple[float, float]:
    """Return the largest growth rate of symmetric perturbations, and the largest entry of the Jacobian."""
    jacobian = finite_jacobian(flow, y)
    found = spectrum(jacobian, group)
    return float(found.values.real[found.symmetric].max()), float(np.abs(jacobian).max())


def _followed(flow: Flow, y: np.ndarray, group: Symmetries, duration: float) -> np.ndarray:
    """Return the symmetric flow's state after some time: each time derivative is averaged over exchanges of units.

    Raises
    ------
    ArithmeticError
        If it diverges, with the time and state reached.
    """
    from scipy.integrate import solve_ivp

    def rhs(t: float, state: np.ndarray) -> np.ndarray:
        return group.average(flow.drift(state))

    with np.errstate(over="ignore", invalid="ignore"):  # trial steps may overflow; the outcome is looked at below
        run = solve_ivp(rhs, (0.0, duration), y, method="DOP853", rtol=ACCURACY, atol=ACCURACY * 1e-2)
    last = run.y[:, -1]
    if run.status != 0 or not np.isfinite(last).all() or np.abs(last).max() > HUGE:
        state = ", ".join(f"{name} = {value:.4g}" for name, value in zip(flow.coordinates, last, strict=True))
        raise ArithmeticError(f"the symmetric flow diverges, after a time of {run.t[-1]:.4g} at {state}")
    return np.asarray(last)
