"""DOP853: Dormand & Prince's explicit Runge–Kutta pair 8(5,3), with its whole step loop compiled.

For smooth, non-stiff systems at moderate to high accuracy. The right-hand side is known only by its address, so that
one binary, compiled once per machine, integrates every model; nothing here knows what the equations mean.

``_advance`` makes a slice of steps at a time, for :mod:`.trajectory`. All state lives in arrays, so that a slice
resumes exactly where the last one stopped.

The loop of ``_advance`` serves other methods too: ``other_methods.py`` writes it together with their stages.

Source: Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I* (1993), II.4 (step size), II.5, II.6 and
II.10 (the method), and the code ``dop853.f`` that goes with the book. Departures are marked where they occur.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: their types are one signature, in compiled_advance)

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from . import dop853_tableau as c

# Step-size control (Hairer & Wanner, *Solving ODEs II*, IV.2). BETA > 0 is its memory of the error before; it is 0 in
# dop853.f and 0.04 in dopri5.f. Measured: 0.04 costs the same as 0 at equal error, with fewer rejections (by up to a
# half on van der Pol's equation); 0.08 is dearer.
SAFETY = 0.9
SHRINK_MOST = 3.0  # h / h_new is kept within [1 / GROW_MOST, SHRINK_MOST]
GROW_MOST = 6.0
BETA = 0.04
EXPONENT = 1 / 8 - 0.2 * BETA
START_EXPONENT = 1 / 8  # of the first step

# How the loop is to treat this method.
IMPLICIT = False
DERIVATIVE_IN_STEP = False  # whether a step leaves y' at its end in row F_NEW
ALLOCATES = False  # whether a step makes arrays of its own, or its functions return some
STIFF_LIMIT = 6.1  # |h λ| at the edge of its region of stability, on the negative axis
STIFF_CHECK = 16  # accepted steps from one look at stiffness to the next: it costs as much as a stage without its f

EPSILON = float(np.finfo(float).eps)
TINY = 1e-300  # so that 0 / 0 is 0, without a branch
HUGE = 1e300  # ``not (x < HUGE)`` holds for NaN too: whatever a trial step meets outside the domain rejects it


class Status(IntEnum):
    """Why the integration stopped."""

    RUNNING = 0  # it did not: the slice is used up, or it was interrupted
    SUCCESS = 1  # the end of t_span is reached
    EVENT = 2  # a terminal event
    STEP_LIMIT = 3  # max_steps attempts, accepted or rejected
    STEP_TOO_SMALL = 4  # the step fell to the spacing of floats around t: at a singularity or discontinuity
    NOT_FINITE = 5  # the same, because longer steps met NaN or infinity; or the right-hand side did at t0
    WALL_LIMIT = 6
    BUFFER_FULL = 7  # between ``_advance`` and its caller only: make room, and go on
    SWITCH = 8  # the same: go on by the other method, since the system is stiff, or no longer so


# Plain integers, since Numba compiles them as constants.
RUNNING, SUCCESS, EVENT, STEP_LIMIT, STEP_TOO_SMALL, NOT_FINITE, _, BUFFER_FULL, SWITCH = map(int, Status)


@dataclass(frozen=True, slots=True)
class Method:
    """What :func:`.trajectory.compute_trajectory` needs to know of a method: its loop, compiled with or without events,
    the rows of ``stages`` that it takes for n components, and its highest order, where it has several: it finds that in
    their last entry.
    """

    name: str
    compiled: Callable[[bool], Callable[..., int]]
    rows: Callable[[int], int]
    highest_order: int = 0

    def stages(self, n: int) -> NDArray[np.float64]:
        """Return the (rows, n) array that the loop works on, as it is before the first step."""
        stages = np.zeros((self.rows(n), n))
        stages[-1, -1] = self.highest_order
        return stages


# All that is compiled stands in this file, since Numba's cache does not notice a change in another one. (The
# coefficients do come from another file; they do not change.)

STATE = np.dtype(
    [
        ("t", np.float64),
        ("h", np.float64),  # next step, with the sign of the direction
        ("err_old", np.float64),  # of the last accepted step, for the controller
        ("status", np.int64),
        ("n_out", np.int64),
        ("n_event", np.int64),
        ("n_steps", np.int64),
        ("n_rejected", np.int64),
        ("n_rhs", np.int64),
        ("begun", np.int64),
        ("retrying", np.int64),  # the last attempt was rejected
        ("met_nan", np.int64),  # so was one since the last accepted step, for a value that is not finite
        ("votes", np.int64),  # steps that were for the other method,
        ("against", np.int64),  # and, since the last one, against
        ("n_taken", np.int64),  # outputs that the caller has taken out of the buffers, which it may fill again
        # An accepted step whose outputs are not all in the buffers yet; and of that step:
        ("waiting", np.int64),
        ("err", np.float64),
        ("stop", np.float64),  # where a terminal event is, in units of the step; 2 without
        ("switch", np.int64),
    ]
)

# Rows of ``stages``: 0 to 15 the stages k1 to k16 (k13 is the derivative at the new point), then
LAST_STAGE = 11  # of those at the end of the step, with its argument in Y_TRIAL
F_NEW = 12
Y_NEW = 16  # the new state
Y_TRIAL = 17  # the argument of a stage; the interpolated state
DENSE = 18  # coefficients of the interpolant,
N_DENSE = 7  # as many
N_STAGE_ROWS = 25

# Rows of ``values``, event functions:
G_OLD, G_NEW, G_TRIAL, ROOT = 0, 1, 2, 3  # at both ends of the step, at a trial point; roots in units of the step


def advance_signature(with_events: bool) -> Any:
    """Return the one signature of ``_advance``, of any method.

    With its signature given at module level, import would wait for that; without one, any other type of argument, by
    mistake, would compile it once more.
    """
    f8, i8, vector, matrix = types.float64, types.int64, types.float64[::1], types.float64[:, ::1]
    state = numba.from_dtype(STATE)[::1]
    signature = types.int64(
        i8, i8 if with_events else types.none, vector, vector, vector, matrix, matrix, state,
        f8, f8, vector, f8, f8, i8, i8,
        vector, types.boolean, vector, matrix, i8[::1], i8[::1], vector, matrix, i8[::1],
        i8, types.boolean,
    )  # fmt: skip
    return signature


@functools.cache
def compiled_advance(with_events: bool) -> Callable[..., int]:
    """``_advance``, compiled by the first call on a machine, loaded from Numba's cache by the first in a process.

    Without events, which most integrations do not ask for, there is less to compile: Numba drops what follows
    ``if events is not None``.
    """
    compiled: Callable[..., int] = njit(advance_signature(with_events), cache=True, **OPTIONS)(_advance)
    return compiled


DOP853 = Method("DOP853", compiled_advance, lambda n: N_STAGE_ROWS)


# ``fastmath=True`` would let LLVM assume that there is no NaN, and remove the tests for it. error_model: a division by
# zero gives infinity as in C; Numba's default, an exception, also forbids vectorisation. _nrt: unless a
# step allocates, references to arrays, which their callers hold, are not counted: that took a tenth of the time.
OPTIONS: dict[str, Any] = {
    "_nrt": ALLOCATES,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
# For what is called from here only: compiles faster, and cannot be called from Python.
HELPER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _table(letter: str, rows: range) -> NDArray[np.float64]:
    """Return (rows, 16) the coefficients of that letter; zero where the tableau has none."""
    return np.array([[getattr(c, f"{letter}{row}_{k}", 0.0) for k in range(1, 17)] for row in rows])


A_DENSE, D_DENSE = _table("A", range(14, 17)), _table("D", range(4, 8))
C_DENSE = np.array([c.C14, c.C15, c.C16])


@intrinsic
def _call(typing_context, address, t, y, dy, par, work):
    """Call the C function at ``address``; arrays, and the times of several lanes, are passed as pointers to doubles."""

    def generate(context, builder, signature, arguments):
        pointer = ir.DoubleType().as_pointer()
        arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in range(2, 6)]
        data = [builder.bitcast(array.data, pointer) for array in arrays]
        time = arguments[1]
        if not isinstance(time.type, ir.DoubleType):
            time = builder.bitcast(cgutils.alloca_once_value(builder, time), pointer)
        function = ir.FunctionType(ir.VoidType(), [time.type, pointer, pointer, pointer, pointer])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [time, *data])
        return context.get_dummy_value()

    scalar = isinstance(t, (types.Float, types.Integer))
    return types.void(types.int64, types.float64 if scalar else t, y, dy, par, work), generate


def _advance(
    rhs, events, y, par, work, stages, values, state,
    t1, rtol, atol, first_step, max_step, max_steps, budget,
    t_eval, on_grid, t_out, y_out, directions, terminal, t_event, y_event, i_event,
    jacobian, watch,
):  # fmt: skip
    """Take up to ``budget`` steps, and return (and leave in the state) the status.

    Args:
        rhs, events: addresses; ``events`` is None where there are none.
        y: (n,) state at ``state.t``; updated.
        par, work: handed through to both functions.
        stages: (N_STAGE_ROWS, n) see there. Row 0 holds y' at ``state.t``; updated.
        values: (4, n_events) see there. Row 0 holds the event functions at ``state.t``; updated.
        state: (1,) of STATE; all zero but for t on the first call.
        t1: end.
        atol: (n,).
        first_step, max_step: lengths; 0 to have the first one estimated.
        t_eval, on_grid: output times, if ``on_grid``.
        t_out, y_out: (B,), (B, n) buffers for the outputs from number ``state.n_taken`` on. When they are full, the
            status is BUFFER_FULL: on a grid, make room by raising ``n_taken``; else by longer ones.
        directions, terminal: (n_events,).
        t_event, y_event, i_event: (E,), (E, n), (E,) filled from ``state.n_event`` on.
        jacobian: its address, or 0.
        watch: whether to stop with SWITCH where the other kind of method would do better.
    """
    s = state[0]
    n, n_events = y.size, directions.size
    sign = 1.0 if t1 > s.t else -1.0
    y_new, f_new = stages[Y_NEW], stages[F_NEW]

    if s.begun == 0:
        s.begun = 1
        _call(rhs, s.t, y, stages[0], par, work)
        s.n_rhs += 1
        if not _is_finite(stages[0], n):
            s.status = NOT_FINITE
            return NOT_FINITE
        longest = min(max_step, abs(t1 - s.t))
        if first_step > 0.0:
            s.h = sign * min(first_step, longest)
        else:
            s.h = sign * _starting_step(rhs, s.t, y, par, work, stages, sign, longest, rtol, atol)
            s.n_rhs += 1
        s.err_old = 1e-4
        s.votes = s.against = 0
        if events is not None:
            _call(events, s.t, y, values[G_OLD], par, work)
        if on_grid:
            while s.n_out < min(t_eval.size, s.n_taken + t_out.size) and t_eval[s.n_out] == s.t:
                _put(t_out, y_out, s.n_out - s.n_taken, s.t, y)
                s.n_out += 1
        elif s.n_out == 0:
            _put(t_out, y_out, 0, s.t, y)
            s.n_out = 1

    for _ in range(budget):
        t, h = s.t, s.h
        if not s.waiting:
            if s.n_steps + s.n_rejected >= max_steps:
                s.status = STEP_LIMIT
                return STEP_LIMIT
            if (not on_grid and s.n_out == t_out.size) or s.n_event + n_events > t_event.size:
                s.status = BUFFER_FULL
                return BUFFER_FULL
            if abs(h) <= 10.0 * EPSILON * abs(t) or abs(h) < 1.0 / HUGE:
                s.status = NOT_FINITE if s.met_nan else STEP_TOO_SMALL
                return s.status
        last = (t + 1.01 * h - t1) * sign >= 0.0
        if last:
            h = t1 - t
        t_new = t1 if last else t + h

        if not s.waiting:
            s.n_rhs += _take_step(rhs, jacobian, t, h, y, par, work, stages, rtol, atol)
            err = _error(h, y, stages, rtol, atol)

            # An accepted state must have a finite derivative, and an interpolant where one is needed: else the step is
            # too long. (Departure from dop853.f, which does not look.)
            dense = False
            s.switch = 0
            if err <= 1.0:
                if not DERIVATIVE_IN_STEP:
                    _call(rhs, t_new, y_new, f_new, par, work)
                    s.n_rhs += 1
                if not _is_finite(f_new, n):
                    err = np.inf
            if err <= 1.0:
                if watch and (s.votes > 0 or s.n_steps % STIFF_CHECK == 0):
                    s.switch = _count_votes(s, _stiffness(h, y, stages))
                dense = on_grid and s.n_out < t_eval.size and (t_new - t_eval[s.n_out]) * sign > 0.0
                if events is not None:
                    _call(events, t_new, y_new, values[G_NEW], par, work)
                    dense = _mark_events(values, directions) or dense
                if dense:
                    s.n_rhs += _prepare_interpolant(rhs, t, h, y, par, work, stages)
                    for i in range(N_DENSE):
                        if not _is_finite(stages[DENSE + i], n):
                            err = np.inf

            if not err <= 1.0:
                _reject(s, err, h)
                continue

            # Accepted.
            s.n_steps += 1
            s.waiting, s.err, s.stop = 1, err, 2.0
            if events is not None:
                s.stop = _find_events(
                    events, t, h, y, par, work, stages, values, directions, terminal, s, t_event, y_event, i_event
                )

        stop = s.stop
        t_stop = t + stop * h if stop < 1.0 else t_new
        if on_grid:
            while s.n_out < t_eval.size and (t_stop - t_eval[s.n_out]) * sign >= 0.0:
                if s.n_out - s.n_taken == t_out.size:
                    s.status = BUFFER_FULL
                    return BUFFER_FULL
                t_asked = t_eval[s.n_out]
                if t_asked == t_new:
                    _put(t_out, y_out, s.n_out - s.n_taken, t_asked, y_new)
                else:
                    _interpolate((t_asked - t) / h, y, stages)
                    _put(t_out, y_out, s.n_out - s.n_taken, t_asked, stages[Y_TRIAL])
                s.n_out += 1
        elif stop > 1.0:
            _put(t_out, y_out, s.n_out, t_new, y_new)
            s.n_out += 1
        if stop <= 1.0:
            apart = s.n_out == 0 or (t_eval if on_grid else t_out)[s.n_out - 1] != t_stop
            if apart and s.n_out - s.n_taken == t_out.size:
                s.status = BUFFER_FULL
                return BUFFER_FULL
            _interpolate(stop, y, stages)
            if apart:  # no output is at its time already
                _put(t_out, y_out, s.n_out - s.n_taken, t_stop, stages[Y_TRIAL])
                s.n_out += 1
            for i in range(n):
                y[i] = stages[Y_TRIAL, i]
            s.t = t_stop
            s.status = EVENT
            return EVENT

        s.t = t_new
        s.waiting = 0
        for i in range(n):
            y[i] = y_new[i]
            stages[0, i] = f_new[i]
        for i in range(n_events):
            values[G_OLD, i] = values[G_NEW, i]
        if last:
            s.status = SUCCESS
            return SUCCESS
        shrink = _accept(s.err**EXPONENT / SAFETY, h, y, stages, rtol, atol, s.err_old)
        _lengthen(s, s.err, shrink, h, sign, max_step)
        if s.switch:
            s.status = SWITCH
            return SWITCH

    s.status = RUNNING
    return RUNNING


@njit(**HELPER)
def _reject(s, err, h):
    """Leave in ``s`` the shorter step to try instead of one of that error, or one that met what is not finite."""
    s.n_rejected += 1
    s.retrying = 1
    if err < HUGE:
        s.h = h / min(SHRINK_MOST, err**EXPONENT / SAFETY)
    else:
        s.h = h / SHRINK_MOST
        s.met_nan = 1


@njit(**HELPER)
def _lengthen(s, err, shrink, h, sign, max_step):
    """Leave in ``s`` the step after an accepted one of that error, shorter by ``shrink``."""
    if s.retrying:
        shrink = max(1.0, shrink)  # what was just too long is not tried again
    s.h = sign * min(abs(h) / shrink, max_step)
    s.err_old = max(err, 1e-4)
    s.retrying = s.met_nan = 0


@njit(**HELPER)
def _count_votes(s, stiffness):
    """Whether 15 steps, with fewer than 6 in a row against, were for the other method: stiff under an explicit one, or
    under an implicit one no longer than half of what an explicit one could take.

    Source: Hairer & Wanner, *Solving ODEs II*, IV.2, and dop853.f, which goes no further than to report it.
    """
    if (stiffness < 0.5 * STIFF_LIMIT) if IMPLICIT else (stiffness > STIFF_LIMIT):
        s.votes += 1
        s.against = 0
    elif s.votes > 0:
        s.against += 1
        if s.against == 6:
            s.votes = s.against = 0
    return s.votes == 15


@njit(**HELPER)
def _put(t_out, y_out, row, t, y):
    t_out[row] = t
    for i in range(y.size):
        y_out[row, i] = y[i]


@njit(**HELPER)
def _is_finite(x, n):
    for i in range(n):  # noqa: SIM110  (a generator would not compile)
        if not abs(x[i]) < HUGE:
            return False
    return True


@njit(**HELPER)
def _starting_step(rhs, t, y, par, work, stages, sign, longest, rtol, atol):
    """Length of the first step, from y, y' and an estimate of y'' by an Euler step.

    Source: II.4, and ``hinit`` in dop853.f.
    """
    n = y.size
    f, y_euler, f_euler = stages[0], stages[Y_TRIAL], stages[1]
    d0 = d1 = 0.0
    for i in range(n):
        scale = atol[i] + rtol * abs(y[i])
        d0 += (y[i] / scale) ** 2
        d1 += (f[i] / scale) ** 2
    h0 = 1e-6 if d0 <= 1e-10 or d1 <= 1e-10 else 0.01 * math.sqrt(d0 / d1)
    h0 = min(h0, longest)
    for i in range(n):
        y_euler[i] = y[i] + sign * h0 * f[i]
    _call(rhs, t + sign * h0, y_euler, f_euler, par, work)
    d2 = 0.0
    for i in range(n):
        d2 += ((f_euler[i] - f[i]) / (atol[i] + rtol * abs(y[i]))) ** 2
    curvature = math.sqrt(max(d2 / h0**2, d1)) if d2 < HUGE else np.inf
    if not curvature < HUGE:  # the Euler step left the domain
        return 0.01 * h0
    h1 = max(1e-6, 1e-3 * h0) if curvature <= 1e-15 else (0.01 / curvature) ** START_EXPONENT
    return min(100.0 * h0, h1, longest)


@njit(**HELPER)
def _take_step(rhs, jacobian, t, h, y, par, work, stages, rtol, atol):
    """Stages 2 to 12 and the new state; return how many calls that took.

    Unrolled: a loop over a table took 1.5 times as long.
    """
    n = y.size
    k1, k2, k3, k4, k5, k6 = stages[0], stages[1], stages[2], stages[3], stages[4], stages[5]
    k7, k8, k9, k10, k11, k12 = stages[6], stages[7], stages[8], stages[9], stages[10], stages[11]
    z, y_new = stages[Y_TRIAL], stages[Y_NEW]

    for i in range(n):
        z[i] = y[i] + h * c.A2_1 * k1[i]
    _call(rhs, t + c.C2 * h, z, k2, par, work)
    for i in range(n):
        z[i] = y[i] + h * (c.A3_1 * k1[i] + c.A3_2 * k2[i])
    _call(rhs, t + c.C3 * h, z, k3, par, work)
    for i in range(n):
        z[i] = y[i] + h * (c.A4_1 * k1[i] + c.A4_3 * k3[i])
    _call(rhs, t + c.C4 * h, z, k4, par, work)
    for i in range(n):
        z[i] = y[i] + h * (c.A5_1 * k1[i] + c.A5_3 * k3[i] + c.A5_4 * k4[i])
    _call(rhs, t + c.C5 * h, z, k5, par, work)
    for i in range(n):
        z[i] = y[i] + h * (c.A6_1 * k1[i] + c.A6_4 * k4[i] + c.A6_5 * k5[i])
    _call(rhs, t + c.C6 * h, z, k6, par, work)
    for i in range(n):
        z[i] = y[i] + h * (c.A7_1 * k1[i] + c.A7_4 * k4[i] + c.A7_5 * k5[i] + c.A7_6 * k6[i])
    _call(rhs, t + c.C7 * h, z, k7, par, work)
    for i in range(n):
        z[i] = y[i] + h * (c.A8_1 * k1[i] + c.A8_4 * k4[i] + c.A8_5 * k5[i] + c.A8_6 * k6[i] + c.A8_7 * k7[i])
    _call(rhs, t + c.C8 * h, z, k8, par, work)
    for i in range(n):
        z[i] = y[i] + h * (
            c.A9_1 * k1[i] + c.A9_4 * k4[i] + c.A9_5 * k5[i] + c.A9_6 * k6[i] + c.A9_7 * k7[i] + c.A9_8 * k8[i]
        )
    _call(rhs, t + c.C9 * h, z, k9, par, work)
    for i in range(n):
        z[i] = y[i] + h * (
            c.A10_1 * k1[i] + c.A10_4 * k4[i] + c.A10_5 * k5[i] + c.A10_6 * k6[i] + c.A10_7 * k7[i] + c.A10_8 * k8[i]
            + c.A10_9 * k9[i]
        )  # fmt: skip
    _call(rhs, t + c.C10 * h, z, k10, par, work)
    for i in range(n):
        z[i] = y[i] + h * (
            c.A11_1 * k1[i] + c.A11_4 * k4[i] + c.A11_5 * k5[i] + c.A11_6 * k6[i] + c.A11_7 * k7[i] + c.A11_8 * k8[i]
            + c.A11_9 * k9[i] + c.A11_10 * k10[i]
        )  # fmt: skip
    _call(rhs, t + c.C11 * h, z, k11, par, work)
    for i in range(n):
        z[i] = y[i] + h * (
            c.A12_1 * k1[i] + c.A12_4 * k4[i] + c.A12_5 * k5[i] + c.A12_6 * k6[i] + c.A12_7 * k7[i] + c.A12_8 * k8[i]
            + c.A12_9 * k9[i] + c.A12_10 * k10[i] + c.A12_11 * k11[i]
        )  # fmt: skip
    _call(rhs, t + h, z, k12, par, work)
    for i in range(n):
        y_new[i] = y[i] + h * (
            c.B1 * k1[i] + c.B6 * k6[i] + c.B7 * k7[i] + c.B8 * k8[i] + c.B9 * k9[i] + c.B10 * k10[i]
            + c.B11 * k11[i] + c.B12 * k12[i]
        )  # fmt: skip
    return 11


@njit(**HELPER)
def _stiffness(h, y, stages):
    """``|h λ|``, from the last stage and the new state, which are at the same time. Source: *Solving ODEs II*, IV.2."""
    above = below = 0.0
    for i in range(y.size):
        above += (stages[F_NEW, i] - stages[LAST_STAGE, i]) ** 2
        below += (stages[Y_NEW, i] - stages[Y_TRIAL, i]) ** 2
    return abs(h) * math.sqrt(above / below) if below > 0.0 else 0.0


@njit(**HELPER)
def _error(h, y, stages, rtol, atol):
    """Estimated error of the step in units of the tolerance, ``|h| e5² / sqrt(e5² + 0.01 e3²)`` with root mean squares.

    Source: II.10, and ``dp86co`` in dop853.f.
    """
    n = y.size
    k1, k6, k7, k8, k9 = stages[0], stages[5], stages[6], stages[7], stages[8]
    k10, k11, k12, y_new = stages[9], stages[10], stages[11], stages[Y_NEW]
    sum5 = sum3 = 0.0
    for i in range(n):
        scale = 1.0 / (atol[i] + rtol * max(abs(y[i]), abs(y_new[i])))
        e5 = (
            c.E5_1 * k1[i] + c.E5_6 * k6[i] + c.E5_7 * k7[i] + c.E5_8 * k8[i] + c.E5_9 * k9[i] + c.E5_10 * k10[i]
            + c.E5_11 * k11[i] + c.E5_12 * k12[i]
        )  # fmt: skip
        e3 = (
            c.E3_1 * k1[i] + c.E3_6 * k6[i] + c.E3_7 * k7[i] + c.E3_8 * k8[i] + c.E3_9 * k9[i] + c.E3_10 * k10[i]
            + c.E3_11 * k11[i] + c.E3_12 * k12[i]
        )  # fmt: skip
        sum5 += (e5 * scale) * (e5 * scale)
        sum3 += (e3 * scale) * (e3 * scale)
    return abs(h) * sum5 / math.sqrt(n * max(sum5 + 0.01 * sum3, TINY))


@njit(**HELPER)
def _accept(shrink, h, y, stages, rtol, atol, err_old):
    """By what the next step is to be shorter. Source: *Solving ODEs II*, IV.2; a multistep method does more here."""
    return max(1.0 / GROW_MOST, min(SHRINK_MOST, shrink / err_old**BETA))


@njit(**HELPER)
def _prepare_interpolant(rhs, t, h, y, par, work, stages):
    """Stages 14 to 16 and the coefficients of the interpolant of order 7. Source: II.6, and ``contd8`` in dop853.f.

    By tables: unrolled like the stages of a step it took a second longer to compile, and saved 0.1 µs in a step. Stages
    2 to 5 have no part in it. The four last coefficients are summed up side by side: none waits for another.
    """
    z, y_new, k1, k13 = stages[Y_TRIAL], stages[Y_NEW], stages[0], stages[12]
    f0, f1, f2 = stages[DENSE], stages[DENSE + 1], stages[DENSE + 2]
    f3, f4, f5, f6 = stages[DENSE + 3], stages[DENSE + 4], stages[DENSE + 5], stages[DENSE + 6]
    for stage in range(13, 16):
        a = A_DENSE[stage - 13]
        for i in range(y.size):
            slope = a[0] * k1[i]
            for k in range(5, stage):
                slope += a[k] * stages[k, i]
            z[i] = y[i] + h * slope
        _call(rhs, t + C_DENSE[stage - 13] * h, z, stages[stage], par, work)
    for i in range(y.size):
        first = k1[i]
        f0[i] = y_new[i] - y[i]
        f1[i] = h * first - f0[i]
        f2[i] = 2.0 * f0[i] - h * (first + k13[i])
        d4, d5 = D_DENSE[0, 0] * first, D_DENSE[1, 0] * first
        d6, d7 = D_DENSE[2, 0] * first, D_DENSE[3, 0] * first
        for k in range(5, 16):
            slope = stages[k, i]
            d4 += D_DENSE[0, k] * slope
            d5 += D_DENSE[1, k] * slope
            d6 += D_DENSE[2, k] * slope
            d7 += D_DENSE[3, k] * slope
        f3[i], f4[i], f5[i], f6[i] = h * d4, h * d5, h * d6, h * d7
    return 3


@njit(**HELPER)
def _interpolate(x, y, stages):
    """Leave in ``stages[Y_TRIAL]`` the state at ``t + x h``, 0 ≤ x ≤ 1, in a step from ``y``."""
    f0, f1, f2, f3 = stages[DENSE], stages[DENSE + 1], stages[DENSE + 2], stages[DENSE + 3]
    f4, f5, f6, z = stages[DENSE + 4], stages[DENSE + 5], stages[DENSE + 6], stages[Y_TRIAL]
    u = 1.0 - x
    for i in range(y.size):
        z[i] = y[i] + x * (f0[i] + u * (f1[i] + x * (f2[i] + u * (f3[i] + x * (f4[i] + u * (f5[i] + x * f6[i]))))))


@njit(**HELPER)
def _mark_events(values, directions):
    """Whether some event function changes sign over the step; which ones do is marked in row ROOT.

    A zero at the end counts as a change, hence not again at the start of the next step.
    """
    found = False
    for e in range(directions.size):
        old, new = values[G_OLD, e], values[G_NEW, e]
        rising, falling = old < 0.0 <= new, old > 0.0 >= new
        marked = (rising and directions[e] >= 0) or (falling and directions[e] <= 0)
        values[ROOT, e] = 0.0 if marked else np.inf
        found = found or marked
    return found


@njit(**HELPER)
def _find_events(events, t, h, y, par, work, stages, values, directions, terminal, s, t_event, y_event, i_event):
    """Record the marked events in order, up to the first terminal one; return where in the step that is, or 2."""
    n_events = directions.size
    stop = 2.0
    for e in range(n_events):
        if values[ROOT, e] < np.inf:
            values[ROOT, e] = _find_root(events, e, t, h, y, par, work, stages, values)
            if terminal[e]:
                stop = min(stop, values[ROOT, e])
    while True:
        first = 0
        for e in range(1, n_events):
            if values[ROOT, e] < values[ROOT, first]:
                first = e
        x = values[ROOT, first]
        if x > min(stop, 1.0):
            return stop
        values[ROOT, first] = np.inf
        _interpolate(x, y, stages)
        _put(t_event, y_event, s.n_event, t + x * h, stages[Y_TRIAL])
        i_event[s.n_event] = first
        s.n_event += 1


@njit(**HELPER)
def _find_root(events, e, t, h, y, par, work, stages, values):
    """Where in the step, in units of h, event function ``e`` crosses zero, to 4 ulp of t; infinity at a pole.

    The ITP method: about as fast as the secant on smooth functions, and never slower than bisection by more than one
    evaluation. Source: Oliveira & Takahashi, ACM Trans. Math. Softw. 47 (2021) 5, with κ₁ = 0.2, κ₂ = 2, n₀ = 1.
    """
    a, b, g_a, g_b = 0.0, 1.0, values[G_OLD, e], values[G_NEW, e]
    if g_b == 0.0:
        return b
    tolerance = 2.0 * EPSILON * max(abs(t), abs(t + h)) / abs(h)
    radius = tolerance
    while radius < 1.0:
        radius *= 2.0
    while b - a > 2.0 * tolerance:
        middle = 0.5 * (a + b)
        secant = (g_b * a - g_a * b) / (g_b - g_a)
        side = 1.0 if middle > secant else -1.0
        nudge = 0.2 * (b - a) ** 2
        x = secant + side * nudge if nudge <= abs(middle - secant) else middle
        reach = radius - 0.5 * (b - a)
        if abs(x - middle) > reach:
            x = middle - side * reach
        if not a < x < b:  # infinite values, or rounding
            x = middle
        radius *= 0.5
        if not a < x < b:
            break
        _interpolate(x, y, stages)
        _call(events, t + x * h, stages[Y_TRIAL], values[G_TRIAL], par, work)
        g = values[G_TRIAL, e]
        if g == 0.0:
            return x
        if (g > 0.0) == (g_b > 0.0):
            b, g_b = x, g
        else:
            a, g_a = x, g
    if min(abs(g_a), abs(g_b)) > max(abs(values[G_OLD, e]), abs(values[G_NEW, e])):
        return np.inf  # it grew on the way to its change of sign: a pole, not a zero
    return 0.5 * (a + b)
