"""DOP853 for sixteen members at a time, in the lanes of the processor's registers.

Each lane has its own time, step, error control and outputs, and takes the next member when it is done, so that no lane
waits for another. The stages of a step, its error, the interpolant, the first step and the control of all others are
the functions of ``integrators/dop853.py``, which gives the reasons: their text, compiled once more, where need be for
numbers of sixteen lanes (``sixteen.py``). Here is what the lanes need besides: who is in them, and what is due.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: put into one file with those of outputs.py by loops.py, whose signature fixes their types)

from __future__ import annotations

import numpy as np
from numba import njit

from ..integrators.dop853 import (
    DENSE,
    EPSILON,
    EXPONENT,
    F_NEW,
    HELPER,
    HUGE,
    N_DENSE,
    NOT_FINITE,
    RUNNING,
    SAFETY,
    STEP_LIMIT,
    STEP_TOO_SMALL,
    SUCCESS,
    Y_NEW,
    Y_TRIAL,
    _accept,
    _call,
    _error,
    _interpolate,
    _is_finite,
    _lengthen,
    _prepare_interpolant,
    _reject,
    _starting_step,
    _take_step,
)
from .outputs import (
    BEYOND,
    CODE,
    MEMBER,
    NOT_OVERLAPS,
    ROW,
    _blank,
    _copy,
    _is_below,
    _next_member,
    _write,
)
from .sixteen import LANES, as_bits, in_all, in_sixteens, lowest_bit, where

LANE = np.dtype(
    [
        ("member", np.int64),  # -1: idle
        ("t", np.float64),
        ("h", np.float64),  # next step, with the sign of the direction
        ("err_old", np.float64),
        ("n_steps", np.int64),
        ("n_rejected", np.int64),
        ("retrying", np.int64),
        ("met_nan", np.int64),
        ("last", np.int64),  # this step ends at the end
        ("code", np.int64),  # RUNNING, or why an output may not be stored
    ]
)

Y, LAST, N_ROWS = 25, 26, 27  # of ``stages``, after those that dop853.py has: the state, and the last output
# Rows of ``clocks``, (N_CLOCKS, LANES): of each lane time, step and end of the step, its error, whether it is accepted,
# the time of the next output, and how often the right-hand side was called
T_NOW, H_NOW, T_NEW, ERROR, ACCEPTED, T_DUE, CALLS, N_CLOCKS = range(8)


def _in_lanes(
    rhs, observe, ranges, own, stop, done, y0, columns, values, par, work, record, gram, par_lanes, row, slots,
    t_span, t_eval, rtol, atol, first_step, max_step, max_steps,
    addresses, lengths, places, gram_places, bounds, status, t_last, counts,
    rhs_lanes, observe_lanes, stages, single, clocks, lanes,
):  # fmt: skip
    """Integrate members until there are no more, or told to stop. See ``dop853._advance`` for the step's reasons.

    ``stages`` (N_ROWS, 16 n) and ``par_lanes`` (16 n_par,) are in lanes: element i of lane l is number 16 i + l.
    ``single`` (N_ROWS, n), for a member's first step, is not.
    """
    rows, time = in_sixteens(stages), in_sixteens(clocks)
    y, y_new, f_new = rows[Y], rows[Y_NEW], rows[F_NEW]
    t0, t1 = t_span[0], t_span[1]
    sign = 1.0 if t1 > t0 else -1.0
    longest = min(max_step, abs(t1 - t0))
    now, step, t_new = clocks[T_NOW], clocks[H_NOW], clocks[T_NEW]
    errors, accepted = clocks[ERROR], clocks[ACCEPTED]
    for lane in range(LANES):
        lanes[lane].member = -1
        clocks[T_DUE, lane] = sign * np.inf
    more = True
    while True:
        if stop[0] != 0:
            return
        begun = False
        accepted[:] = 0.0
        for lane in range(LANES):
            s = lanes[lane]
            while s.member < 0 and more:
                m = _next_member(ranges, own)
                more = m >= 0
                if more:
                    for p in range(columns.size):
                        par[columns[p]] = values[m, p]
                        par_lanes[LANES * columns[p] + lane] = values[m, p]
                    _begin(
                        s, m, lane, rhs, par, work, y0, stages, single, clocks, slots, t_eval,
                        t0, sign, longest, rtol, atol, first_step,
                    )  # fmt: skip
                    if s.h == 0.0:
                        _end(
                            s, NOT_FINITE, lane, stages, t_eval, addresses, lengths, y0, status, t_last, counts,
                            done, t_span, bounds, slots, row, clocks,
                        )  # fmt: skip
                    else:
                        t_new[lane], accepted[lane] = t0, 1.0
                        begun = True
        if begun:
            _write_due(
                observe, observe_lanes, columns, par, work, record, gram, par_lanes, row, t_eval,
                addresses, lengths, places, gram_places, bounds, slots, stages, clocks, lanes, sign,
            )  # fmt: skip
        active = 0
        for lane in range(LANES):
            s = lanes[lane]
            if s.member >= 0:
                code = s.code
                if code == RUNNING and s.n_steps + s.n_rejected >= max_steps:
                    code = STEP_LIMIT
                elif code == RUNNING and (abs(s.h) <= 10.0 * EPSILON * abs(s.t) or abs(s.h) < 1.0 / HUGE):
                    code = NOT_FINITE if s.met_nan else STEP_TOO_SMALL
                if code != RUNNING:
                    _end(
                        s, code, lane, stages, t_eval, addresses, lengths, y0, status, t_last, counts,
                        done, t_span, bounds, slots, row, clocks,
                    )  # fmt: skip
            idle = s.member < 0
            active += 0 if idle else 1
            s.last = 1 if (s.t + 1.01 * s.h - t1) * sign >= 0.0 else 0
            now[lane] = s.t
            step[lane] = 0.0 if idle else (t1 - s.t if s.last else s.h)
            t_new[lane] = t1 if s.last else s.t + s.h
        if active == 0:
            if not more:
                return
            continue

        t, h = time[T_NOW, 0], time[H_NOW, 0]
        _take_step(rhs_lanes, 0, t, h, y, par_lanes, work, rows, rtol, atol)
        time[ERROR, 0] = _error(h, y, rows, rtol, atol)
        _call(rhs_lanes, time[T_NEW, 0], y_new, f_new, par_lanes, work)
        sound = (time[ERROR, 0] <= 1.0) & _finite(rows, F_NEW, F_NEW + 1)
        within = sound & (sign * time[T_DUE, 0] < sign * time[T_NEW, 0])
        time[CALLS, 0] += where(time[ERROR, 0] <= 1.0, 12.0, 11.0) + where(within, 3.0, 0.0)
        if as_bits(within) != 0:
            _prepare_interpolant(rhs_lanes, t, h, y, par_lanes, work, rows)
            sound = sound & (_finite(rows, DENSE, DENSE + N_DENSE) | ~within)
        time[ERROR, 0] = where(sound | (time[ERROR, 0] > 1.0), time[ERROR, 0], np.inf)

        accepted[:] = 0.0
        for lane in range(LANES):
            s = lanes[lane]
            if s.member < 0:
                continue
            err = errors[lane]
            if err <= 1.0:
                accepted[lane] = 1.0
                s.n_steps += 1
                shrink = _accept(err**EXPONENT / SAFETY, step[lane], y, rows, rtol, atol, s.err_old)
                _lengthen(s, err, shrink, step[lane], sign, max_step)
            else:
                _reject(s, err, step[lane])
        _write_due(
            observe, observe_lanes, columns, par, work, record, gram, par_lanes, row, t_eval,
            addresses, lengths, places, gram_places, bounds, slots, stages, clocks, lanes, sign,
        )  # fmt: skip
        _move_on(rows, time[ACCEPTED, 0] > 0.0)
        for lane in range(LANES):
            s = lanes[lane]
            if accepted[lane] > 0.0:
                s.t = t_new[lane]
                if s.last and s.code == RUNNING:
                    s.code = SUCCESS
                if s.code != RUNNING:
                    _end(
                        s, s.code, lane, stages, t_eval, addresses, lengths, y0, status, t_last, counts,
                        done, t_span, bounds, slots, row, clocks,
                    )  # fmt: skip


@njit(**HELPER)
def _begin(
    s, member, lane, rhs, par, work, y0, stages, single, clocks, slots, t_eval,
    t0, sign, longest, rtol, atol, first_step,
):  # fmt: skip
    """Put a member into a lane, with the length of its first step; 0 where its equations are not finite.

    By the right-hand side for one trajectory, so that no other lane has to wait.
    """
    y, f = y0[member], single[0]
    s.member, s.t, s.h, s.err_old, s.code = member, t0, 0.0, 1e-4, RUNNING
    s.n_steps = s.n_rejected = s.retrying = s.met_nan = 0
    slots[MEMBER, lane], slots[ROW, lane] = member, 0
    clocks[T_DUE, lane], clocks[CALLS, lane] = t_eval[0], 1.0
    _call(rhs, t0, y, f, par, work)
    for i in range(f.size):
        stages[Y, LANES * i + lane] = stages[Y_NEW, LANES * i + lane] = y[i]
        stages[0, LANES * i + lane] = f[i]
    if not _is_finite(f, f.size):
        return
    if first_step > 0.0:
        s.h = sign * min(first_step, longest)
        return
    s.h = sign * _starting_step(rhs, t0, y, par, work, single, sign, longest, rtol, atol)
    clocks[CALLS, lane] += 1.0


@njit(**HELPER)
def _end(
    s, code, lane, stages, t_eval, addresses, lengths, y0, status, t_last, counts,
    done, t_span, bounds, slots, row, clocks,
):  # fmt: skip
    """Record how the member in a lane ended, and leave the lane idle."""
    m, n, written = s.member, y0.shape[1], slots[ROW, lane]
    last = row[:n]
    for i in range(n):
        last[i] = stages[Y, LANES * i + lane]
    t_valid, below = s.t, _is_below(last, bounds[0])
    if code == SUCCESS and not below:
        code = BEYOND
    if not below or code in (BEYOND, NOT_OVERLAPS):  # back to the last state that is valid
        t_valid = t_eval[written - 1] if written > 0 else t_span[0]
        for i in range(n):
            last[i] = stages[LAST, LANES * i + lane] if written > 0 else y0[m, i]
    _blank(t_eval.size, addresses, lengths, m, written)
    _copy(last, y0[m])
    t_last[m] = t_valid
    counts[m, 0], counts[m, 1], counts[m, 2] = s.n_steps, s.n_rejected, int(clocks[CALLS, lane])
    clocks[T_DUE, lane] = np.inf if t_span[1] > t_span[0] else -np.inf  # nothing is due in an idle lane
    status[m] = code  # last of all: until then the member counts as not run
    done[0] += 1
    s.member = -1


# ------------------------------------------------------------------------------------------ outputs


@njit(**HELPER)
def _write_due(
    observe, observe_lanes, columns, par, work, record, gram, par_lanes, row, t_eval,
    addresses, lengths, places, gram_places, bounds, slots, stages, clocks, lanes, sign,
):  # fmt: skip
    """Store the outputs of all accepted steps, up to their ends: the next one of every lane at once, lanes as slots."""
    rows, time, states, judged = in_sixteens(stages), in_sixteens(clocks), in_sixteens(record), in_sixteens(gram)
    n = rows.shape[1]
    end, accepted = time[T_NEW, 0], time[ACCEPTED, 0] > 0.0
    while True:
        due = time[T_DUE, 0]
        found = accepted & (sign * due <= sign * end)
        bits = as_bits(found)
        if bits == 0:
            return
        _interpolate((due - time[T_NOW, 0]) / time[H_NOW, 0], rows[Y], rows)
        for i in range(n):
            states[i] = where(sign * due < sign * end, rows[Y_TRIAL, i], rows[Y_NEW, i])
        _write(
            observe, observe_lanes, clocks[T_DUE], columns, par, work, record, gram, par_lanes, row,
            addresses, lengths, places, gram_places, bounds, slots, bits, n, t_eval.size,
        )  # fmt: skip
        stored = found & (judged[-1, 0] <= SUCCESS)
        for i in range(n):
            rows[LAST, i] = where(stored, states[i], rows[LAST, i])
        while bits != 0:
            lane = lowest_bit(bits)
            bits &= bits - 1
            clocks[T_DUE, lane] = sign * np.inf
            if slots[CODE, lane] == SUCCESS:
                slots[ROW, lane] += 1
                if slots[ROW, lane] < t_eval.size:
                    clocks[T_DUE, lane] = t_eval[slots[ROW, lane]]
            else:
                lanes[lane].code = slots[CODE, lane]


# ------------------------------------------------------------------------------------------ steps


@njit(**HELPER)
def _finite(stages, first, end):
    """Return in which lanes all components of these rows are finite."""
    largest = in_all(0.0)
    for row in range(first, end):
        for i in range(stages.shape[1]):
            size = abs(stages[row, i])
            largest = where(size < HUGE, max(largest, size), np.inf)
    return largest < HUGE


@njit(**HELPER)
def _move_on(stages, accepted):
    """Make the new state and derivative those of the next step, in the lanes whose step is accepted."""
    for i in range(stages.shape[1]):
        stages[Y, i] = where(accepted, stages[Y_NEW, i], stages[Y, i])
        stages[0, i] = where(accepted, stages[F_NEW, i], stages[0, i])
