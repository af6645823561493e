"""One trajectory by a compiled step loop, a slice of steps at a time.

Between two slices there is room for Ctrl-C, a progress bar and the wall clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..stopping import give_way
from .dop853 import BUFFER_FULL, DOP853, RUNNING, STATE, SWITCH, Method, Status

RTOL_MIN = 1e-13
"""Smallest ``rtol``: there rounding, summed over the steps, is as large as the tolerance. Measured on an oscillator, a
nonlinear ring and a stiff pair: from 1e-13 to 1e-15 the steps double and the error stays about where it is; in the
stiff pair rejections also multiply, since the error estimate is rounding too."""

SLICE_SECONDS = 0.1  # between two looks at the keyboard; the next slice's length is foreseen from the last one's

ROWS = 256  # of the buffers for a solver's own steps, to begin with: making more room takes as long as ten steps


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """What an integration produced, complete or not.

    Attributes:
        t: (T,) output times; shorter than the ``t_eval`` asked for if the integration stopped early.
        y: (T, n) states there.
        status: why it stopped.
        t_event, y_event, i_event: (E,), (E, n), (E,) time, state and index of each event, in the order they were met.
        n_steps, n_rejected, n_rhs: accepted steps, rejected steps, evaluations of the right-hand side.
        interrupted: Ctrl-C ended it.
        switched: (S,) the times at which one method gave way to the other.
    """

    t: NDArray[np.float64]
    y: NDArray[np.float64]
    status: Status
    t_event: NDArray[np.float64]
    y_event: NDArray[np.float64]
    i_event: NDArray[np.int64]
    n_steps: int
    n_rejected: int
    n_rhs: int
    interrupted: bool
    switched: tuple[float, ...] = ()


def compute_trajectory(
    rhs_address: int,
    y0: ArrayLike,
    t_span: tuple[float, float],
    par: ArrayLike,
    n_work: int,
    *,
    rtol: float,
    atol: ArrayLike,
    t_eval: ArrayLike | None = None,
    events_address: int = 0,
    event_directions: Sequence[int] = (),
    event_terminal: Sequence[bool] = (),
    max_steps: int = 1_000_000,
    max_step: float = math.inf,
    first_step: float | None = None,
    wall_limit: float | None = None,
    on_progress: Callable[[float], object] | None = None,
    method: Method | None = None,
    other: Method | None = None,
    jacobian_address: int = 0,
) -> Trajectory:
    """Integrate ``y' = f(t, y; par)`` over ``t_span``, forwards or backwards.

    Args:
        rhs_address: of a C function ``void f(double t, double *y, double *dy, double *par, double *work)``.
        y0: (n,) state at ``t_span[0]``.
        t_span: from, to.
        par: parameters, handed through to ``f``.
        n_work: length of the workspace that ``f`` scribbles on.
        rtol, atol: a step is accepted when its estimated error in component i is up to ``atol[i] + rtol |y_i|``
            (root mean square over i). ``atol`` is a number or (n,), positive.
        t_eval: (T,) output times, in the order of integration; states there by the method's interpolant of order 7.
            None: the solver's own steps, with both ends.
        events_address: of a function like ``f``, that writes the values of the event functions into ``dy``; 0 for none.
        event_directions: (n_events,) +1 to see a function only where it rises through zero as the integration proceeds
            (backwards if ``t_span`` is), -1 only where it falls, 0 both. Signs are compared at the ends of each step:
            two zeros of one function within a step go unseen, as do values that are NaN. A function that is zero at
            ``t_span[0]`` has no sign there, hence no event.
        event_terminal: (n_events,) whether the integration ends with the event; its state is then the last output.
        max_steps: limit on attempts, accepted or rejected.
        max_step: longest step (the last one may exceed it by 1 %, so as not to leave a crumb).
        first_step: its length, if not to be estimated.
        wall_limit: seconds; looked at about ten times a second.
        on_progress: called with the time reached, about ten times a second.
        method: another one for the same loop; None: DOP853.
        other: the method to go on with where the system turns stiff under an explicit ``method``, or stops being so
            under an implicit one; None: keep to one method.
        jacobian_address: of a function like ``f``, that writes df_i/dy_j row by row, for implicit methods; 0 to have
            them take differences of ``f``.

    Returns:
        The trajectory, whatever the ``status``: what was computed before a failure or Ctrl-C is kept.

    Raises:
        Stopped: in a thread that is told to stop.
    """
    if not rhs_address:
        raise ValueError(
            f"rhs_address={rhs_address!r}; accepted is the address of a compiled function (a cfunc's .address)"
        )
    y = np.array(y0, dtype=float)
    if y.ndim != 1 or y.size == 0 or not all(map(math.isfinite, y.tolist())):
        raise ValueError(f"y0 has shape {y.shape} and reads {y}; it must be a non-empty vector of finite numbers")
    n = y.size
    parameters = np.array(par, dtype=float)
    if parameters.ndim != 1:
        raise ValueError(f"par has shape {parameters.shape}; the right-hand side reads a vector, (n_par,)")
    t0, t1 = _checked_span(t_span)
    if not RTOL_MIN <= rtol < math.inf:
        raise ValueError(
            f"rtol={rtol!r}; accepted is {RTOL_MIN} or more: below, rounding hides the error to be controlled"
        )
    absolute = _checked_atol(atol, n)
    if not max_step > 0:
        raise ValueError(f"max_step={max_step!r}; accepted is a positive length, whatever the direction of t_span")
    if first_step is not None and not 0 < first_step < math.inf:
        raise ValueError(f"first_step={first_step!r}; accepted is a positive length, or None to have it estimated")

    on_grid = t_eval is not None
    times = _checked_times(t_eval, t0, t1)
    directions, terminal = _checked_events(events_address, event_directions, event_terminal)
    n_events = directions.size

    rows = times.size + 1 if on_grid else ROWS  # one more for the state at a terminal event
    t_out, y_out = np.empty(rows), np.empty((rows, n))
    room = 4 * n_events  # to begin with
    t_event, y_event, i_event = np.empty(room), np.empty((room, n)), np.empty(room, dtype=np.int64)
    method, switched = method or DOP853, []
    work, stages, values = np.zeros(n_work), method.stages(n), np.empty((4, n_events))
    state = np.zeros(1, dtype=STATE)
    state["t"] = t0
    now = state[0]  # a view: it always shows the present values

    advance = method.compiled(n_events > 0)
    limit = math.inf if wall_limit is None else wall_limit
    started = before = time.perf_counter()
    budget, done, status, interrupted = 1, 0, Status.RUNNING, False
    try:
        while True:
            code = advance(
                rhs_address, events_address if n_events else None, y, parameters, work, stages, values, state,
                t1, rtol, absolute, first_step or 0.0, max_step, max_steps, budget,
                times, on_grid, t_out, y_out, directions, terminal, t_event, y_event, i_event,
                jacobian_address, other is not None,
            )  # fmt: skip
            if code == SWITCH and other is not None:
                method, other = other, method
                advance, stages = method.compiled(n_events > 0), method.stages(n)
                now["begun"] = 0
                switched.append(float(now["t"]))
            elif code == BUFFER_FULL:
                if not on_grid and now["n_out"] == t_out.size:
                    t_out, y_out = _doubled(t_out), _doubled(y_out)
                if now["n_event"] + n_events > t_event.size:
                    t_event, y_event, i_event = _doubled(t_event), _doubled(y_event), _doubled(i_event)
            elif code != RUNNING:
                break
            after = time.perf_counter()
            if after - started > limit:
                status = Status.WALL_LIMIT
                break
            if code == RUNNING:
                give_way()
                if on_progress is not None:
                    on_progress(float(now["t"]))
                attempts = int(now["n_steps"] + now["n_rejected"])
                seconds = min(SLICE_SECONDS, limit - (after - started))
                # At most 100 times longer than the last slice: the first step alone is a poor measurement.
                budget = max(1, min(int(seconds * (attempts - done) / max(after - before, 1e-9)), 100 * budget))
                done, before = attempts, after
    except KeyboardInterrupt:
        interrupted = True

    # The status is read from the state, not from ``code``: Ctrl-C may strike between the return and the assignment.
    end = dict(zip(STATE.names or (), state.item(), strict=True))  # at once: entry by entry takes three times as long
    reached = Status(end["status"])
    return Trajectory(
        t=t_out[: end["n_out"]],
        y=y_out[: end["n_out"]],
        status=status if reached in (Status.RUNNING, Status.BUFFER_FULL, Status.SWITCH) else reached,
        t_event=t_event[: end["n_event"]],
        y_event=y_event[: end["n_event"]],
        i_event=i_event[: end["n_event"]],
        n_steps=end["n_steps"],
        n_rejected=end["n_rejected"],
        n_rhs=end["n_rhs"],
        interrupted=interrupted,
        switched=tuple(switched),
    )


# ------------------------------------------------------------------------------------------ arguments


def _checked_span(t_span: tuple[float, float]) -> tuple[float, float]:
    t0, t1 = map(float, t_span)
    if not (math.isfinite(t0) and math.isfinite(t1) and t0 != t1):
        raise ValueError(f"t_span={t_span!r}; accepted are two different, finite times (from, to), in either order")
    return t0, t1


def _checked_atol(atol: ArrayLike, n: int) -> NDArray[np.float64]:
    absolute = np.empty(n)
    if isinstance(atol, float) and 0 < atol < math.inf:  # as nearly always; the rest takes ten times as long
        absolute.fill(atol)
        return absolute
    given = np.asarray(atol, dtype=float)
    if given.shape not in ((), (n,)):
        raise ValueError(f"atol has shape {given.shape}; accepted is one number, or {n}, one for each component of y0")
    if not ((given > 0) & (given < math.inf)).all():
        raise ValueError(
            f"atol={atol!r}; accepted are positive numbers: with zero, a component that crosses zero would have to be "
            "exact. For purely relative control take a value far below the smallest state of interest"
        )
    absolute[:] = given
    return absolute


def _checked_times(t_eval: ArrayLike | None, t0: float, t1: float) -> NDArray[np.float64]:
    if t_eval is None:
        return np.empty(0)
    times = np.array(t_eval, dtype=float)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(
            f"t_eval has shape {times.shape}; accepted is a non-empty vector, or None for the solver's own steps"
        )
    sign = 1.0 if t1 > t0 else -1.0
    first, last = sign * times[0], sign * times[-1]
    ordered = bool((times[1:] >= times[:-1]).all() if sign > 0 else (times[1:] <= times[:-1]).all())  # False for NaN
    if not (ordered and sign * t0 <= first and last <= sign * t1):
        wrong = "has entries that are not finite" if not np.isfinite(times).all() else f"reads {times}"
        raise ValueError(
            f"t_eval {wrong}; accepted are times in the order of integration within t_span, from {t0!r} to {t1!r}"
        )
    return times


def _checked_events(
    address: int, directions: Sequence[int], terminal: Sequence[bool]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(directions) != len(terminal):
        raise ValueError(
            f"event_directions has {len(directions)} entries and event_terminal {len(terminal)}; "
            "both need one for each event function"
        )
    if (address != 0) != (len(directions) > 0):
        raise ValueError(
            f"events_address={address!r} with {len(directions)} event_directions; "
            "accepted is an address with at least one, or 0 with none"
        )
    if not address:
        return _NO_EVENTS
    if any(direction not in (-1, 0, 1) for direction in directions):
        raise ValueError(f"event_directions={directions!r}; accepted are +1 (rising), -1 (falling) and 0 (both)")
    return np.array(directions, dtype=np.int64), np.array(terminal, dtype=np.int64)


_NO_EVENTS = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def _doubled(buffer: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([buffer, np.empty_like(buffer)])
