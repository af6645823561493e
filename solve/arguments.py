"""What every solver is given: the times, tolerances, limits and events, checked, and the methods by their names."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import nearest

from .integrators.dop853 import DOP853, Method
from .integrators.events import Event
from .integrators.trajectory import RTOL_MIN

OURS = ("DOP853", "DOPRI5", "Adams", "Radau5", "auto")
"""The compiled methods."""
MAX_STEPS = 1_000_000
DEFAULTS: Mapping[str, Any] = {
    "rtol": 1e-10,
    "atol": 1e-12,
    "max_steps": MAX_STEPS,
    "max_step": math.inf,
    "first_step": None,
    "wall_limit": None,
}
"""What ``integrate`` takes tolerances and limits to be where nothing is said."""


def checked_span(t_span: tuple[float, float]) -> tuple[float, float]:
    """Return two different finite times."""
    try:
        start, stop = map(float, t_span)
    except (TypeError, ValueError):
        raise ModelError("t_span", t_span, "two times, (from, to)") from None
    if not (math.isfinite(start) and math.isfinite(stop)) or start == stop:
        raise ModelError("t_span", t_span, "two different finite times")
    return start, stop


def checked_times(t_eval: Any, span: tuple[float, float]) -> np.ndarray | None:
    """Return output times, (T,), in the order of the span and within it; None of None."""
    if t_eval is None:
        return None
    try:
        times = np.atleast_1d(np.asarray(t_eval, dtype=float))
    except (TypeError, ValueError):
        raise ModelError("t_eval", t_eval, "increasing times") from None
    low, high = sorted(span)
    order = np.diff(times) * np.sign(span[1] - span[0])
    if (
        times.ndim != 1
        or not len(times)
        or not np.isfinite(times).all()
        or (order <= 0).any()
        or times.min() < low
        or times.max() > high
    ):
        raise ModelError("t_eval", t_eval, f"increasing times within t_span = {span}")
    return times


def check_numbers(**limits: float) -> None:
    """Raise a ModelError unless all are positive and finite, and ``rtol``, if among them, a tolerance."""
    for name, value in limits.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ModelError(name, value, "a positive number")
    if "rtol" in limits and not RTOL_MIN <= limits["rtol"] < 1:
        why = "below, rounding errors exceed the tolerance, and at 1 the error may be as large as the solution"
        raise ModelError("rtol", limits["rtol"], f"at least {RTOL_MIN:g} and less than 1: {why}")


def check_limits(
    *,
    rtol: float,
    atol: float,
    max_steps: int,
    max_step: float = math.inf,
    first_step: float | None = None,
    wall_limit: float | None = None,
) -> None:
    """Raise a ModelError unless tolerances and limits are some: all positive, ``max_step`` perhaps infinite."""
    optional = {"first_step": first_step, "wall_limit": wall_limit}
    check_numbers(
        rtol=rtol, atol=atol, max_steps=max_steps, **{name: n for name, n in optional.items() if n is not None}
    )
    if not (isinstance(max_step, (int, float)) and max_step > 0):
        raise ModelError("max_step", max_step, "a positive number, or math.inf")


def refuse(accepted: str, **given: Any) -> None:
    """Raise a ModelError for the first argument that has another value than its default, and no meaning here."""
    for name, value in given.items():
        if value != DEFAULTS[name]:
            raise ModelError(name, value, accepted)


def refuse_of_sde(**given: Any) -> None:
    """Raise a ModelError for tolerances and limits that stochastic equations have no use for."""
    refuse("nothing, with equations of kind 'sde': their steps have the length dt", **given)


def method_for(kind: str, method: str | None) -> str:
    """Return the method that is meant where none is named."""
    if method is not None:
        return method
    return "euler-maruyama" if kind == "sde" else "DOP853"


def check_more(caller: str, kind: str, more: Mapping[str, Any], noise: Sequence[str]) -> None:
    """Raise an error unless what a solver is given besides are arguments of noise, and the equations have some.

    Raises
    ------
    ModelError
        For arguments of noise, with other equations.
    TypeError
        For what none of its equations know.
    """
    for name, value in more.items():
        if name not in noise:
            near = nearest(name, noise) if kind == "sde" else ""
            raise TypeError(f"{caller}() got {name!r}, unknown to equations of kind {kind!r}{near}")
        if kind != "sde":
            refuse_noise(kind, **{name: value})


def refuse_noise(kind: str, **given: Any) -> None:
    """Raise a ModelError for arguments of stochastic equations, with others."""
    for name, value in given.items():
        raise ModelError(
            name, value, f"nothing, with equations of kind {kind!r}, which have no noise: it is for dynamics.sde()"
        )


def events_of(events: Sequence[Event | str] | Event | str) -> list[Event]:
    """Return events that are stated as such or as text, several or one."""
    several = [events] if isinstance(events, (str, Event)) else events
    return [e if isinstance(e, Event) else Event(e) for e in several]


def check_method(method: str, known: Iterable[str]) -> None:
    """Raise a ModelError unless a method is among those known, with the one that was probably meant."""
    known = tuple(known)
    if method in known:
        return
    asked = str(method).lower()
    same = [m for m in known if asked in (m.lower(), m.rpartition(":")[2].lower())]
    meant = f", did you mean {same[0]!r}?" if same else nearest(str(method), known)
    raise ModelError("method", method, f"one of {', '.join(known)}{meant}")


def steppers(name: str) -> dict[str, Method]:
    """Return the method of a name among ``OURS``, and of ``"auto"`` the ``other`` too."""
    if name == "DOP853":
        return {"method": DOP853}
    from .integrators.other_methods import ADAMS, DOPRI5, RADAU5  # only here: most integrations need none

    if name == "auto":
        return {"method": DOP853, "other": RADAU5}
    return {"method": {m.name: m for m in (ADAMS, DOPRI5, RADAU5)}[name]}
