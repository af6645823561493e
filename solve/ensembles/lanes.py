"""DOP853 for sixteen members at a time, in the lanes of the processor's registers.

Each lane has its own time, step, error control and outputs, and takes the next member when it is done, so that no lane
waits for another. The method and its control of the step are those of ``integrators/dop853.py``, which gives their
reasons; constants, the first step and the tableau come from there. Stages are weighted sums by a table here, four at a
time, and whatever depends on a lane is a loop over lanes without branches, or it would not be vectorised.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: put into one file with those of outputs.py by loops.py, whose signature fixes their types)

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ..integrators import dop853_tableau as c
from ..integrators.dop853 import (
    BETA,
    DENSE,
    EPSILON,
    EXPONENT,
    F_NEW,
    GROW_MOST,
    HELPER,
    HUGE,
    NOT_FINITE,
    RUNNING,
    SAFETY,
    SHRINK_MOST,
    STEP_LIMIT,
    STEP_TOO_SMALL,
    SUCCESS,
    Y_NEW,
    Y_TRIAL,
    _call,
    _is_finite,
    _starting_step,
)
from .outputs import (
    BEYOND,
    CODE,
    LANES,
    MEMBER,
    NOT_OVERLAPS,
    ROW,
    SOURCE,
    _blank,
    _borrowed,
    _call_lanes,
    _is_below,
    _take,
    _write,
)

LANE = np.dtype(
    [
        ("member", np.int64),  # -1: idle
        ("t", np.float64),
        ("h", np.float64),  # next step, with the sign of the direction
        ("err_old", np.float64),
        ("n_out", np.int64),
        ("n_steps", np.int64),
        ("n_rejected", np.int64),
        ("n_rhs", np.int64),
        ("retrying", np.int64),
        ("met_nan", np.int64),
        ("last", np.int64),  # this step ends at the end
        ("dense", np.int64),  # an output lies within this step
        ("code", np.int64),  # RUNNING, or why an output may not be stored
    ]
)

# Rows of ``stages``, in lanes, after those that dop853.py has: the state, weighted sums
Y, SUM, SUM_3, N_ROWS = 25, 26, 27, 28
# Rows of ``clocks``, (N_CLOCKS, LANES): time, step and end of the step, a stage's time, its error (and the sums of
# squares behind it), whether it is accepted, and whether it met what is not finite; of each slot its time, and where in
# the step that is
T_NOW, H_NOW, T_NEW, T_STAGE, ERROR, ERROR_3, ACCEPTED, INFINITE, T_SLOT, X_SLOT, N_CLOCKS = range(11)


def _rows(letter: str, rows: range) -> np.ndarray:
    """Return (rows, 16) the coefficients of that letter; zero where the tableau has none."""
    return np.array([[getattr(c, f"{letter}{row}_{k}", 0.0) for k in range(1, 17)] for row in rows])


def _fours(table: np.ndarray) -> Any:
    """Return (rows, 12) the places and values of what is not zero, filled up with zeros to fours, and their numbers."""
    places, weights = np.zeros((len(table), 12), dtype=np.int64), np.zeros((len(table), 12))
    counts = np.count_nonzero(table, axis=1)
    for row, entries in enumerate(table):
        (found,) = np.nonzero(entries)
        places[row, : found.size], weights[row, : found.size] = found, entries[found]
    return places, weights, counts


# The weighted sums: rows 0 to 15 for the arguments of the stages, then the new state, both errors, the interpolant.
NEW_STATE, ERROR_OF_5, ERROR_OF_3, INTERPOLANT = 16, 17, 18, 19
B = np.array([[getattr(c, f"B{k}", 0.0) for k in range(1, 17)]])
E = _rows("E", range(6))[[5, 3]]
PLACES, WEIGHTS, COUNTS = _fours(np.concatenate([_rows("A", range(1, 17)), B, E, _rows("D", range(4, 8))]))
NODES = np.array([0.0, *(getattr(c, f"C{k}") for k in range(2, 12)), 1.0, 1.0, c.C14, c.C15, c.C16])


def _in_lanes(
    rhs, observe, counter, stop, done, y0, columns, values, par, work, record, gram, par_slots, row, slots,
    t_span, t_eval, rtol, atol, first_step, max_step, max_steps,
    addresses, lengths, places, gram_places, bounds, status, t_last, counts,
    rhs_lanes, observe_lanes, stages, single, par_lanes, last_row, clocks, lanes,
):  # fmt: skip
    """Integrate members until there are no more, or told to stop. See ``dop853._advance`` for the step's reasons.

    ``stages`` (N_ROWS, 16 n) and ``par_lanes`` (16 n_par,) are in lanes: element i of lane l is number 16 i + l.
    ``single`` (N_ROWS, n), for a member's first step, and ``last_row`` (LANES, n), the last outputs, are not.
    """
    stages, single, clocks, last_row = _borrowed(stages), _borrowed(single), _borrowed(clocks), _borrowed(last_row)
    record, gram, row, slots = _borrowed(record), _borrowed(gram), _borrowed(row), _borrowed(slots)
    y0, par, par_lanes, par_slots = _borrowed(y0), _borrowed(par), _borrowed(par_lanes), _borrowed(par_slots)
    t0, t1 = t_span[0], t_span[1]
    sign = 1.0 if t1 > t0 else -1.0
    longest = min(max_step, abs(t1 - t0))
    now, step, at, t_new = clocks[T_NOW], clocks[H_NOW], clocks[T_STAGE], clocks[T_NEW]
    errors, accepted, infinite = clocks[ERROR], clocks[ACCEPTED], clocks[INFINITE]
    for lane in range(LANES):
        lanes[lane].member = -1
    more = True
    while True:
        if stop[0] != 0:
            return
        begun = False
        accepted[:] = 0.0
        for lane in range(LANES):
            s = lanes[lane]
            while s.member < 0 and more:
                m = _take(counter)
                more = m < len(y0)
                if more:
                    for p in range(columns.size):
                        par[columns[p]] = values[m, p]
                        par_lanes[LANES * columns[p] + lane] = values[m, p]
                    _begin(s, m, lane, rhs, par, work, y0, stages, single, t0, sign, longest, rtol, atol, first_step)
                    if s.h == 0.0:
                        _end(
                            s, NOT_FINITE, lane, stages[Y], t_eval, addresses, lengths, y0, status, t_last, counts,
                            done, t_span, bounds, last_row, row,
                        )  # fmt: skip
                    else:
                        t_new[lane], accepted[lane] = t0, 1.0
                        begun = True
        if begun:
            _write_due(
                observe, observe_lanes, columns, par, work, record, gram, par_slots, row, t_eval,
                addresses, lengths, places, gram_places, bounds, slots, stages, par_lanes, last_row, clocks, lanes,
                sign,
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
                        s, code, lane, stages[Y], t_eval, addresses, lengths, y0, status, t_last, counts,
                        done, t_span, bounds, last_row, row,
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

        for stage in range(1, 12):
            _argument(stages, stage, Y_TRIAL, step)
            for lane in range(LANES):
                at[lane] = now[lane] + NODES[stage] * step[lane]
            _call_lanes(rhs_lanes, at, stages[Y_TRIAL], stages[stage], par_lanes, work)
        _argument(stages, NEW_STATE, Y_NEW, step)
        _errors(stages, clocks, rtol, atol)
        _call_lanes(rhs_lanes, t_new, stages[Y_NEW], stages[F_NEW], par_lanes, work)

        infinite[:] = 0.0
        _flag_infinite(stages[F_NEW], infinite)
        dense = False
        for lane in range(LANES):
            s = lanes[lane]
            s.n_rhs += 12 if errors[lane] <= 1.0 else 11
            errors[lane] = np.inf if errors[lane] <= 1.0 and infinite[lane] > 0.0 else errors[lane]
            ahead = s.member >= 0 and errors[lane] <= 1.0 and s.n_out < t_eval.size
            s.dense = 1 if ahead and (t_new[lane] - t_eval[s.n_out]) * sign > 0.0 else 0
            dense = dense or s.dense == 1
        if dense:
            _prepare_interpolants(rhs_lanes, stages, clocks, par_lanes, work)
            infinite[:] = 0.0
            for k in range(7):
                _flag_infinite(stages[DENSE + k], infinite)

        accepted[:] = 0.0
        for lane in range(LANES):
            s = lanes[lane]
            if s.member < 0:
                continue
            if s.dense:
                s.n_rhs += 3
                errors[lane] = np.inf if infinite[lane] > 0.0 else errors[lane]
            _control(s, errors[lane], step[lane], sign, max_step)
            accepted[lane] = 1.0 if errors[lane] <= 1.0 else 0.0
        _write_due(
            observe, observe_lanes, columns, par, work, record, gram, par_slots, row, t_eval,
            addresses, lengths, places, gram_places, bounds, slots, stages, par_lanes, last_row, clocks, lanes, sign,
        )  # fmt: skip
        _move_on(stages, accepted)
        for lane in range(LANES):
            s = lanes[lane]
            if accepted[lane] > 0.0:
                s.t = t_new[lane]
                if s.last and s.code == RUNNING:
                    s.code = SUCCESS
                if s.code != RUNNING:
                    _end(
                        s, s.code, lane, stages[Y], t_eval, addresses, lengths, y0, status, t_last, counts,
                        done, t_span, bounds, last_row, row,
                    )  # fmt: skip


@njit(**HELPER)
def _begin(s, member, lane, rhs, par, work, y0, stages, single, t0, sign, longest, rtol, atol, first_step):
    """Put a member into a lane, with the length of its first step; 0 where its equations are not finite.

    By the right-hand side for one trajectory, so that no other lane has to wait.
    """
    y, f = y0[member], single[0]
    s.member, s.t, s.h, s.err_old, s.code = member, t0, 0.0, 1e-4, RUNNING
    s.n_out = s.n_steps = s.n_rejected = s.retrying = s.met_nan = 0
    s.n_rhs = 1
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
    s.n_rhs += 1


@njit(**HELPER)
def _control(s, err, h, sign, max_step):
    """Leave in ``s`` the length of the next step, as ``dop853._advance`` does."""
    if not err < HUGE:
        s.h = h / SHRINK_MOST
        s.n_rejected += 1
        s.retrying = s.met_nan = 1
        return
    shrink = err**EXPONENT / SAFETY
    if err > 1.0:
        s.h = h / min(SHRINK_MOST, shrink)
        s.n_rejected += 1
        s.retrying = 1
        return
    s.n_steps += 1
    shrink = max(1.0 / GROW_MOST, min(SHRINK_MOST, shrink / s.err_old**BETA))
    if s.retrying:
        shrink = max(1.0, shrink)
    s.h = sign * min(abs(h) / shrink, max_step)
    s.err_old = max(err, 1e-4)
    s.retrying = s.met_nan = 0


@njit(**HELPER)
def _end(
    s, code, lane, y, t_eval, addresses, lengths, y0, status, t_last, counts, done, t_span, bounds, last_row, row
):  # fmt: skip
    """Record how the member in a lane ended, in the state ``y``, in lanes, and leave the lane idle."""
    m, n = s.member, y0.shape[1]
    last = row[:n]
    for i in range(n):
        last[i] = y[LANES * i + lane]
    t_valid, below = s.t, _is_below(last, bounds[0])
    if code == SUCCESS and not below:
        code = BEYOND
    if not below or code in (BEYOND, NOT_OVERLAPS):  # back to the last state that is valid
        t_valid = t_eval[s.n_out - 1] if s.n_out > 0 else t_span[0]
        last[:] = last_row[lane] if s.n_out > 0 else y0[m]
    _blank(t_eval.size, addresses, lengths, m, s.n_out)
    y0[m] = last
    t_last[m] = t_valid
    counts[m, 0], counts[m, 1], counts[m, 2] = s.n_steps, s.n_rejected, s.n_rhs
    status[m] = code  # last of all: until then the member counts as not run
    done[0] += 1
    s.member = -1


# ------------------------------------------------------------------------------------------ outputs


@njit(**HELPER)
def _write_due(
    observe, observe_lanes, columns, par, work, record, gram, par_slots, row, t_eval,
    addresses, lengths, places, gram_places, bounds, slots, stages, par_lanes, last_row, clocks, lanes, sign,
):  # fmt: skip
    """Store the outputs of all accepted steps, up to their ends, sixteen together."""
    count, n = 0, last_row.shape[1]
    t_new, step = clocks[T_NEW], clocks[H_NOW]
    for lane in range(LANES):
        s = lanes[lane]
        due = s.n_out  # n_out itself goes up as they are written
        while clocks[ACCEPTED, lane] > 0.0 and due < t_eval.size and (t_new[lane] - t_eval[due]) * sign >= 0.0:
            slots[SOURCE, count], slots[MEMBER, count], slots[ROW, count] = lane, s.member, due
            clocks[T_SLOT, count] = t_eval[due]
            clocks[X_SLOT, count] = 1.0 if t_eval[due] == t_new[lane] else (t_eval[due] - s.t) / step[lane]
            count += 1
            due += 1
            if count == LANES:
                _write_slots(
                    observe, observe_lanes, columns, par, work, record, gram, par_slots, row, t_eval, addresses,
                    lengths, places, gram_places, bounds, slots, count, n, stages, par_lanes, last_row, clocks, lanes,
                )  # fmt: skip
                count = 0
    if count > 0:
        _write_slots(
            observe, observe_lanes, columns, par, work, record, gram, par_slots, row, t_eval, addresses,
            lengths, places, gram_places, bounds, slots, count, n, stages, par_lanes, last_row, clocks, lanes,
        )  # fmt: skip


@njit(**HELPER)
def _write_slots(
    observe, observe_lanes, columns, par, work, record, gram, par_slots, row, t_eval, addresses,
    lengths, places, gram_places, bounds, slots, count, n, stages, par_lanes, last_row, clocks, lanes,
):  # fmt: skip
    """Interpolate the states of the first ``count`` slots, store them, and let their lanes know."""
    source = slots[SOURCE]
    _interpolate(clocks[X_SLOT], source, stages, record, n)
    for p in columns:
        for slot in range(LANES):
            par_slots[LANES * p + slot] = par_lanes[LANES * p + source[slot]]
    _write(
        observe, observe_lanes, clocks[T_SLOT], columns, par, work, record, gram, par_slots, row,
        addresses, lengths, places, gram_places, bounds, slots, count, n, t_eval.size,
    )  # fmt: skip
    for slot in range(count):
        s = lanes[source[slot]]
        if s.code == RUNNING and slots[CODE, slot] == SUCCESS:
            s.n_out += 1
            for i in range(n):
                last_row[source[slot], i] = record[LANES * i + slot]
        elif s.code == RUNNING:
            s.code = slots[CODE, slot]


@njit(**HELPER)
def _interpolate(x, source, stages, record, n):
    """Leave in ``record`` the state of each slot's lane at ``t + x h``, 0 ≤ x ≤ 1; at 1, the new state itself."""
    y, y_new, f0, f1, f2 = stages[Y], stages[Y_NEW], stages[DENSE], stages[DENSE + 1], stages[DENSE + 2]
    f3, f4, f5, f6 = stages[DENSE + 3], stages[DENSE + 4], stages[DENSE + 5], stages[DENSE + 6]
    for i in range(n):
        for slot in range(LANES):
            j, u = LANES * i + source[slot], 1.0 - x[slot]
            high = f4[j] + u * (f5[j] + x[slot] * f6[j])
            middle = f2[j] + u * (f3[j] + x[slot] * high)
            inside = y[j] + x[slot] * (f0[j] + u * (f1[j] + x[slot] * middle))
            record[LANES * i + slot] = y_new[j] if u == 0.0 else inside


# ------------------------------------------------------------------------------------------ steps


@njit(**HELPER)
def _weighted(stages, row, into):
    """Leave in row ``into`` the sum of stages by that row of the weights."""
    total = stages[into]
    for k in range(0, COUNTS[row], 4):
        wa, wb, wc, wd = WEIGHTS[row, k], WEIGHTS[row, k + 1], WEIGHTS[row, k + 2], WEIGHTS[row, k + 3]
        fa, fb = stages[PLACES[row, k]], stages[PLACES[row, k + 1]]
        fc, fd = stages[PLACES[row, k + 2]], stages[PLACES[row, k + 3]]
        if k == 0:
            for j in range(total.size):
                total[j] = wa * fa[j] + wb * fb[j] + (wc * fc[j] + wd * fd[j])
        else:
            for j in range(total.size):
                total[j] += wa * fa[j] + wb * fb[j] + (wc * fc[j] + wd * fd[j])


@njit(**HELPER)
def _argument(stages, row, into, step):
    """Leave in row ``into`` the state plus each lane's step times a weighted sum of stages."""
    _weighted(stages, row, into)
    y, z = stages[Y], stages[into]
    for i in range(z.size // LANES):
        for lane in range(LANES):
            z[LANES * i + lane] = y[LANES * i + lane] + step[lane] * z[LANES * i + lane]


@njit(**HELPER)
def _errors(stages, clocks, rtol, atol):
    """Leave in ``clocks`` each lane's estimated error in units of the tolerance: see ``dop853._error``."""
    _weighted(stages, ERROR_OF_5, SUM)
    _weighted(stages, ERROR_OF_3, SUM_3)
    y, y_new, e5, e3 = stages[Y], stages[Y_NEW], stages[SUM], stages[SUM_3]
    sum5, sum3, step = clocks[ERROR], clocks[ERROR_3], clocks[H_NOW]
    sum5[:] = 0.0
    sum3[:] = 0.0
    for i in range(atol.size):
        for lane in range(LANES):
            j = LANES * i + lane
            scale = 1.0 / (atol[i] + rtol * max(abs(y[j]), abs(y_new[j])))
            sum5[lane] += (e5[j] * scale) ** 2
            sum3[lane] += (e3[j] * scale) ** 2
    for lane in range(LANES):
        weight = sum5[lane] + 0.01 * sum3[lane]
        err = abs(step[lane]) * sum5[lane] / math.sqrt(atol.size * weight)
        sum5[lane] = 0.0 if weight <= 0.0 else err


@njit(**HELPER)
def _prepare_interpolants(rhs_lanes, stages, clocks, par_lanes, work):
    """Stages 14 to 16 and the coefficients of the interpolants of order 7. Source: ``contd8`` in dop853.f."""
    now, step, at = clocks[T_NOW], clocks[H_NOW], clocks[T_STAGE]
    for stage in range(13, 16):
        _argument(stages, stage, Y_TRIAL, step)
        for lane in range(LANES):
            at[lane] = now[lane] + NODES[stage] * step[lane]
        _call_lanes(rhs_lanes, at, stages[Y_TRIAL], stages[stage], par_lanes, work)
    y, y_new, k1, k13 = stages[Y], stages[Y_NEW], stages[0], stages[F_NEW]
    f0, f1, f2 = stages[DENSE], stages[DENSE + 1], stages[DENSE + 2]
    for i in range(y.size // LANES):
        for lane in range(LANES):
            j = LANES * i + lane
            f0[j] = y_new[j] - y[j]
            f1[j] = step[lane] * k1[j] - f0[j]
            f2[j] = 2.0 * f0[j] - step[lane] * (k1[j] + k13[j])
    for k in range(4):
        _weighted(stages, INTERPOLANT + k, DENSE + 3 + k)
        f = stages[DENSE + 3 + k]
        for i in range(y.size // LANES):
            for lane in range(LANES):
                f[LANES * i + lane] *= step[lane]


@njit(**HELPER)
def _flag_infinite(x, flags):
    """Set the flags of the lanes in which a component is infinite or NaN."""
    for i in range(x.size // LANES):
        for lane in range(LANES):
            flags[lane] = flags[lane] if abs(x[LANES * i + lane]) < HUGE else 1.0


@njit(**HELPER)
def _move_on(stages, accepted):
    """Make the new state and derivative those of the next step, in the lanes whose step is accepted."""
    y, y_new, f, f_new = stages[Y], stages[Y_NEW], stages[0], stages[F_NEW]
    for i in range(y.size // LANES):
        for lane in range(LANES):
            j = LANES * i + lane
            y[j] = y_new[j] if accepted[lane] > 0.0 else y[j]
            f[j] = f_new[j] if accepted[lane] > 0.0 else f[j]
