"""The compiled loops of ``solve.ensemble``: a thread takes member after member from a counter that all share.

``_one_by_one`` hands each member to the integrator of single trajectories. ``_in_lanes`` is DOP853 for sixteen members
at a time, in the lanes of the processor's registers: each lane has its own time, step, error control and outputs, and
takes the next member when it is done, so that no lane waits for another.

A member's numbers come from its own initial state and parameters alone, by the same operations in every lane: they are
the same, bit for bit, in any order, in any company and on any number of threads.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: their types are one signature, in compiled_one_by_one and compiled_in_lanes)

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ..integrators import dop853_tableau as c
from ..integrators.dop853 import (
    BETA,
    EPSILON,
    EXPONENT,
    GROW_MOST,
    HELPER,
    HUGE,
    OPTIONS,
    SAFETY,
    SHRINK_MOST,
    _call,
    compiled_advance,
)

RUNNING, SUCCESS, STEP_LIMIT, STEP_TOO_SMALL, NOT_FINITE = 0, 1, 3, 4, 5  # as in dop853.Status
BEYOND, NOT_OVERLAPS = 100, 101  # the states left what may be stored, or what vectors can have
STEPS_BETWEEN_LOOKS = 50  # at the flag that ends it all
LANES = 16  # two or four registers: LLVM unrolls a loop over eight before it vectorises

F8, I8, VECTOR, MATRIX = types.float64, types.int64, types.float64[::1], types.float64[:, ::1]
INTEGERS, TABLE = types.int64[::1], types.int64[:, ::1]
COMMON = (
    I8, I8, INTEGERS, INTEGERS, INTEGERS, MATRIX, INTEGERS, MATRIX, VECTOR, VECTOR, VECTOR, MATRIX,
    VECTOR, VECTOR, F8, VECTOR, F8, F8, I8, INTEGERS, INTEGERS, INTEGERS, TABLE, VECTOR, INTEGERS, VECTOR, TABLE,
)  # fmt: skip
"""The types of what both loops take: see ``Work`` in members.py, which says what the arrays are.

Addresses of the right-hand side and of the observables; the shared counter, the flag to stop, the members done (by this
thread); initial states, where parameters vary and their values; scratch: parameters, workspace, a packed record, a
Gram matrix; t_span, t_eval, rtol, atol, first step, longest step, most steps; outputs: their addresses, lengths, and
places of their columns; places of the overlaps; bounds; status, last valid time and counts of each member."""


@functools.cache
def compiled_one_by_one() -> Callable[..., None]:
    """``_one_by_one``, compiled by the first call on a machine, loaded from Numba's cache by the first in a process.

    The integrator comes in by its address, since Numba's cache does not notice a change in another file; its signature
    is part of this one's.
    """
    (integrator,) = compiled_advance(False).nopython_signatures  # type: ignore[attr-defined]  # Numba has no types
    own = (types.FunctionType(integrator), MATRIX, MATRIX, integrator.args[7], VECTOR, VECTOR, MATRIX)
    compiled: Callable[..., None] = njit(types.void(*COMMON, *own), cache=True, **OPTIONS)(_one_by_one)
    return compiled


@functools.cache
def compiled_in_lanes() -> Callable[..., None]:
    """``_in_lanes``, compiled likewise."""
    own = (I8, MATRIX, VECTOR, VECTOR, MATRIX, MATRIX, MATRIX, numba.from_dtype(LANE)[::1])
    compiled: Callable[..., None] = njit(types.void(*COMMON, *own), cache=True, **OPTIONS)(_in_lanes)
    return compiled


# ------------------------------------------------------------------------------------------ what both loops share


@intrinsic
def _store(typing_context, address, position, value):
    """Write a double into the array at ``address``."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        builder.store(arguments[2], builder.gep(pointer, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), generate


@intrinsic
def _take(typing_context, counter):
    """Return the number in ``counter`` and raise it by one, whatever other threads do."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


@njit(**HELPER)
def _save(observe, t_eval, work, record, gram, addresses, lengths, places, gram_places, bounds, member, row, y, par):
    """Write the outputs of one time, and return SUCCESS, or why they are none.

    Arguments are not packed into a tuple: counting references to its arrays took longer than the rest.
    """
    if not _is_below(y, bounds[0]):
        return BEYOND
    if not _are_overlaps(y, par, gram_places, gram, bounds[1], bounds[2]):
        return NOT_OVERLAPS
    n = y.size
    for i in range(n):
        record[i] = y[i]
    if observe != 0:
        _call(observe, t_eval[row], y, record[n:], par, work)
    column = 0
    for v in range(addresses.size):
        start = (member * t_eval.size + row) * lengths[v]
        for i in range(lengths[v]):
            _store(addresses[v], start + i, record[places[column]])
            column += 1
    return SUCCESS


@njit(**HELPER)
def _blank(t_eval, addresses, lengths, member, first):
    """Write NaN from row ``first`` on."""
    for v in range(addresses.size):
        for position in range((member * t_eval.size + first) * lengths[v], (member + 1) * t_eval.size * lengths[v]):
            _store(addresses[v], position, np.nan)


@njit(**HELPER)
def _is_below(x, bound):
    for i in range(x.size):  # noqa: SIM110  (a generator would not compile)
        if not abs(x[i]) < bound:
            return False
    return True


@njit(**HELPER)
def _are_overlaps(y, par, places, gram, relative, absolute):
    """Whether the overlaps, plus slack on the diagonal, have a factor L D Lᵀ with D > 0; the slack scales with their
    largest row sum, which bounds the largest eigenvalue."""
    F = len(places)
    largest = 0.0
    for f in range(F):
        total = 0.0
        for g in range(F):
            place = places[f, g]
            gram[f, g] = y[place] if place < y.size else par[place - y.size]
            total += abs(gram[f, g])
        largest = max(largest, total)
    slack = relative * largest + absolute
    for g in range(F):  # column by column; what remains is the rest's Schur complement
        pivot = gram[g, g] + slack
        if not pivot > 0.0:
            return False
        inverse = 1.0 / pivot
        for f in range(g + 1, F):
            factor = gram[f, g] * inverse
            for k in range(g + 1, f + 1):
                gram[f, k] -= factor * gram[k, g]
    return True


# ------------------------------------------------------------------------------------------ one member at a time


def _one_by_one(
    rhs, observe, counter, stop, done, y0, columns, values, par, work, record, gram,
    t_span, t_eval, rtol, atol, first_step, max_step, max_steps,
    addresses, lengths, places, gram_places, bounds, status, t_last, counts,
    advance, stages, no_events, state, y, t_out, y_out,
):  # fmt: skip
    """Integrate members until there are no more, or told to stop.

    ``state[1]`` is blank, what each member begins with; ``y`` (n,), ``t_out`` (T,) and ``y_out`` (T, n) are scratch.
    """
    none, no_times, no_states = np.empty(0, np.int64), np.empty(0), np.empty((0, y.size))
    s = state[0]
    while True:
        m = _take(counter)
        if m >= len(y0):
            return
        y[:] = y0[m]
        for p in range(columns.size):
            par[columns[p]] = values[m, p]
        state[0] = state[1]
        s.t = t_span[0]
        code = RUNNING
        while code == RUNNING:
            if stop[0] != 0:
                return
            code = advance(
                rhs, None, y, par, work, stages, no_events, state,
                t_span[1], rtol, atol, first_step, max_step, max_steps, STEPS_BETWEEN_LOOKS,
                t_eval, True, t_out, y_out, none, none, no_times, no_states, none, 0, False,
            )  # fmt: skip

        rows, t_valid = 0, s.t
        while rows < s.n_out:
            verdict = _save(
                observe, t_eval, work, record, gram, addresses, lengths, places, gram_places, bounds, m, rows,
                y_out[rows], par,
            )  # fmt: skip
            if verdict != SUCCESS:
                code = verdict
                break
            rows += 1
        if code == SUCCESS and not _is_below(y, bounds[0]):
            code = BEYOND
        if rows < s.n_out or not _is_below(y, bounds[0]):  # back to the last state that is valid
            t_valid = t_out[rows - 1] if rows > 0 else t_span[0]
            y[:] = y_out[rows - 1] if rows > 0 else y0[m]
        _blank(t_eval, addresses, lengths, m, rows)
        y0[m] = y
        t_last[m] = t_valid
        counts[m, 0], counts[m, 1], counts[m, 2] = s.n_steps, s.n_rejected, s.n_rhs
        status[m] = code  # last of all: until then the member counts as not run
        done[0] += 1


# ------------------------------------------------------------------------------------------ sixteen members at a time

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
        ("accepted", np.int64),
        ("dense", np.int64),  # an output lies within this step
    ]
)

# Rows of ``stages``, in lanes: 0 to 15 the stages, then
Y, Y_NEW, Z, DENSE, SUM, SUM_3, N_ROWS = 16, 17, 18, 19, 26, 27, 28
# Rows of ``clocks``, (6, LANES): time and step as the step has them, a stage's time, squared errors
T_NOW, H_NOW, T_STAGE, ERROR_5, ERROR_3, T_NEW, N_CLOCKS = 0, 1, 2, 3, 4, 5, 6


def _rows(letter: str, rows: range) -> Any:
    """Return (rows, 16) the coefficients of that letter; zero where the tableau has none."""
    return np.array([[getattr(c, f"{letter}{row}_{k}", 0.0) for k in range(1, 17)] for row in rows])


A, D, E = _rows("A", range(1, 17)), _rows("D", range(4, 8)), _rows("E", range(6))
B = np.array([getattr(c, f"B{k}", 0.0) for k in range(1, 17)])
NODES = np.array([0.0, *(getattr(c, f"C{k}") for k in range(2, 12)), 1.0, 1.0, c.C14, c.C15, c.C16])


@intrinsic
def _call_lanes(typing_context, address, t, y, dy, par, work):
    """Call the C function at ``address``; all arrays are passed as pointers to their data."""

    def generate(context, builder, signature, arguments):
        pointer = ir.DoubleType().as_pointer()
        function = ir.FunctionType(ir.VoidType(), [pointer] * 5)
        data = [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in range(1, 6)]
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), data)
        return context.get_dummy_value()

    return types.void(types.int64, t, y, dy, par, work), generate


def _in_lanes(
    rhs, observe, counter, stop, done, y0, columns, values, par, work, record, gram,
    t_span, t_eval, rtol, atol, first_step, max_step, max_steps,
    addresses, lengths, places, gram_places, bounds, status, t_last, counts,
    rhs_lanes, stages, par_lanes, row, par_of, last_row, clocks, lanes,
):  # fmt: skip
    """Integrate members until there are no more, or told to stop. See ``dop853._advance`` for the step's reasons.

    ``stages`` (N_ROWS, 16 n) and ``par_lanes`` (16 n_par,) are in lanes: element i of lane l is number 16 i + l.
    ``par_of`` (LANES, n_par) and ``last_row`` (LANES, n), the last outputs, are not; ``row`` (n,) is scratch.
    """
    ends = (t_eval, addresses, lengths, y0, status, t_last, counts, done, t_span, bounds, last_row, row)
    n, t0, t1 = row.size, t_span[0], t_span[1]
    sign = 1.0 if t1 > t0 else -1.0
    now, step, at, t_new = clocks[T_NOW], clocks[H_NOW], clocks[T_STAGE], clocks[T_NEW]
    y_new, f_new = stages[Y_NEW], stages[12]
    for lane in range(LANES):
        lanes[lane].member = -1
    more = True
    while True:
        if stop[0] != 0:
            return
        active = 0
        for lane in range(LANES):
            s = lanes[lane]
            while s.member < 0 and more:
                m = _take(counter)
                more = m < len(y0)
                if more:
                    for p in range(columns.size):
                        par_of[lane, columns[p]] = values[m, p]
                    own_par = par_of[lane]
                    for p in range(own_par.size):
                        par_lanes[LANES * p + lane] = own_par[p]
                    _begin(s, m, lane, rhs, own_par, work, y0, stages, row, t0, t1, rtol, atol, first_step, max_step)
                    code = RUNNING if abs(s.h) > 0.0 else NOT_FINITE
                    while code == RUNNING and s.n_out < t_eval.size and t_eval[s.n_out] == t0:
                        code = _save(
                            observe, t_eval, work, record, gram, addresses, lengths, places, gram_places, bounds,
                            m, s.n_out, y0[m], own_par,
                        )  # fmt: skip
                        code = _noted(code, s, lane, y0[m], last_row)
                    if code != RUNNING:
                        _end(ends, s, code, lane, stages[Y])
            if s.member >= 0:
                if s.n_steps + s.n_rejected >= max_steps:
                    _end(ends, s, STEP_LIMIT, lane, stages[Y])
                elif abs(s.h) <= 10.0 * EPSILON * abs(s.t) or abs(s.h) < 1.0 / HUGE:
                    _end(ends, s, NOT_FINITE if s.met_nan else STEP_TOO_SMALL, lane, stages[Y])
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
            _argument(stages, A[stage], stage, Z, step)
            for lane in range(LANES):
                at[lane] = now[lane] + NODES[stage] * step[lane]
            _call_lanes(rhs_lanes, at, stages[Z], stages[stage], par_lanes, work)
        _argument(stages, B, 12, Y_NEW, step)
        _errors(stages, clocks, rtol, atol)
        _call_lanes(rhs_lanes, t_new, y_new, f_new, par_lanes, work)

        dense = False
        for lane in range(LANES):
            s = lanes[lane]
            weight = clocks[ERROR_5, lane] + 0.01 * clocks[ERROR_3, lane]
            err = abs(step[lane]) * clocks[ERROR_5, lane] / math.sqrt(n * weight) if weight > 0.0 else weight
            s.n_rhs += 12 if err <= 1.0 else 11
            if err <= 1.0 and not _is_finite(f_new, lane, n):
                err = np.inf
            clocks[ERROR_5, lane] = err
            ahead = s.member >= 0 and err <= 1.0 and s.n_out < t_eval.size
            s.dense = 1 if ahead and (t_new[lane] - t_eval[s.n_out]) * sign > 0.0 else 0
            dense = dense or s.dense == 1
        if dense:
            _prepare_interpolants(rhs_lanes, stages, clocks, par_lanes, work)

        for lane in range(LANES):
            s = lanes[lane]
            s.accepted = 0
            if s.member < 0:
                continue
            err, h = clocks[ERROR_5, lane], step[lane]
            if s.dense:
                s.n_rhs += 3
                for i in range(7):
                    if not _is_finite(stages[DENSE + i], lane, n):
                        err = np.inf
            if not err < HUGE:
                s.h = h / SHRINK_MOST
                s.n_rejected += 1
                s.retrying = s.met_nan = 1
                continue
            shrink = err**EXPONENT / SAFETY
            if err > 1.0:
                s.h = h / min(SHRINK_MOST, shrink)
                s.n_rejected += 1
                s.retrying = 1
                continue
            s.n_steps += 1
            code = RUNNING
            while code == RUNNING and s.n_out < t_eval.size and (t_new[lane] - t_eval[s.n_out]) * sign >= 0.0:
                if t_eval[s.n_out] == t_new[lane]:
                    for i in range(n):
                        row[i] = y_new[LANES * i + lane]
                else:
                    _interpolate((t_eval[s.n_out] - s.t) / h, stages, lane, row)
                code = _save(
                    observe, t_eval, work, record, gram, addresses, lengths, places, gram_places, bounds,
                    s.member, s.n_out, row, par_of[lane],
                )  # fmt: skip
                code = _noted(code, s, lane, row, last_row)
            s.t = t_new[lane]
            if code != RUNNING or s.last:
                _end(ends, s, SUCCESS if code == RUNNING else code, lane, y_new)
                continue
            s.accepted = 1
            shrink = max(1.0 / GROW_MOST, min(SHRINK_MOST, shrink / s.err_old**BETA))
            if s.retrying:
                shrink = max(1.0, shrink)
            s.h = sign * min(abs(h) / shrink, max_step)
            s.err_old = max(err, 1e-4)
            s.retrying = s.met_nan = 0
        for lane in range(LANES):
            if lanes[lane].accepted:
                for i in range(n):
                    stages[Y, LANES * i + lane] = y_new[LANES * i + lane]
                    stages[0, LANES * i + lane] = f_new[LANES * i + lane]


@njit(**HELPER)
def _begin(s, member, lane, rhs, par, work, y0, stages, f, t0, t1, rtol, atol, first_step, max_step):
    """Put a member into a lane, with the length of its first step; 0 where its equations are not finite.

    By the right-hand side for one trajectory, so that no other lane has to wait. Source of the first step: Hairer,
    Nørsett & Wanner, *Solving ODEs I*, II.4.
    """
    y, n = y0[member], f.size
    s.member, s.t, s.h, s.err_old = member, t0, 0.0, 1e-4
    s.n_out = s.n_steps = s.n_rejected = s.retrying = s.met_nan = 0
    s.n_rhs = 1
    _call(rhs, t0, y, f, par, work)
    d0 = d1 = 0.0
    finite = True
    for i in range(n):
        stages[Y, LANES * i + lane] = y[i]
        stages[0, LANES * i + lane] = f[i]
        scale = atol[i] + rtol * abs(y[i])
        d0 += (y[i] / scale) ** 2
        d1 += (f[i] / scale) ** 2
        finite = finite and abs(f[i]) < HUGE
    if not finite:
        return
    longest, sign = min(max_step, abs(t1 - t0)), 1.0 if t1 > t0 else -1.0
    if first_step > 0.0:
        s.h = sign * min(first_step, longest)
        return
    h0 = min(1e-6 if d0 <= 1e-10 or d1 <= 1e-10 else 0.01 * math.sqrt(d0 / d1), longest)
    euler = stages[Z, :n]  # its entries are not in lanes here: scratch
    for i in range(n):
        euler[i] = y[i] + sign * h0 * f[i]
    _call(rhs, t0 + sign * h0, euler, f, par, work)
    s.n_rhs += 1
    d2 = 0.0
    for i in range(n):
        d2 += ((f[i] - stages[0, LANES * i + lane]) / (atol[i] + rtol * abs(y[i]))) ** 2
    curvature = math.sqrt(max(d2 / h0**2, d1)) if d2 < HUGE else np.inf
    if not curvature < HUGE:
        s.h = sign * 0.01 * h0
        return
    h1 = max(1e-6, 1e-3 * h0) if curvature <= 1e-15 else (0.01 / curvature) ** (1 / 8)
    s.h = sign * min(100.0 * h0, h1, longest)


@njit(**HELPER)
def _noted(verdict, s, lane, row, last_row):
    """Take note of an output that was saved, and return RUNNING, or why it was not."""
    if verdict != SUCCESS:
        return verdict
    for i in range(row.size):
        last_row[lane, i] = row[i]
    s.n_out += 1
    return RUNNING


@njit(**HELPER)
def _end(ends, s, code, lane, y):
    """Record how the member in a lane ended, in the state ``y``, in lanes, and leave the lane idle."""
    t_eval, addresses, lengths, y0, status, t_last, counts, done, t_span, bounds, last_row, row = ends
    m = s.member
    for i in range(row.size):
        row[i] = y[LANES * i + lane]
    t_valid, below = s.t, _is_below(row, bounds[0])
    if code == SUCCESS and not below:
        code = BEYOND
    if not below or code in (BEYOND, NOT_OVERLAPS):  # back to the last state that is valid
        t_valid = t_eval[s.n_out - 1] if s.n_out > 0 else t_span[0]
        row[:] = last_row[lane] if s.n_out > 0 else y0[m]
    _blank(t_eval, addresses, lengths, m, s.n_out)
    y0[m] = row
    t_last[m] = t_valid
    counts[m, 0], counts[m, 1], counts[m, 2] = s.n_steps, s.n_rejected, s.n_rhs
    status[m] = code  # last of all: until then the member counts as not run
    done[0] += 1
    s.member = -1


@njit(**HELPER)
def _weighted(stages, weights, count, into):
    """Leave in row ``into`` the sum of the first ``count`` stages by their weights."""
    total = stages[into]
    total[:] = 0.0
    for k in range(count):
        weight = weights[k]
        if weight != 0.0:
            f = stages[k]
            for j in range(total.size):
                total[j] += weight * f[j]


@njit(**HELPER)
def _argument(stages, weights, count, into, step):
    """Leave in row ``into`` the state plus each lane's step times a weighted sum of stages."""
    _weighted(stages, weights, count, into)
    y, z = stages[Y], stages[into]
    for i in range(z.size // LANES):
        for lane in range(LANES):
            z[LANES * i + lane] = y[LANES * i + lane] + step[lane] * z[LANES * i + lane]


@njit(**HELPER)
def _errors(stages, clocks, rtol, atol):
    """Leave in ``clocks`` the squares of both error estimates of each lane in units of the tolerance, summed."""
    _weighted(stages, E[5], 12, SUM)
    _weighted(stages, E[3], 12, SUM_3)
    y, y_new, e5, e3 = stages[Y], stages[Y_NEW], stages[SUM], stages[SUM_3]
    sum5, sum3 = clocks[ERROR_5], clocks[ERROR_3]
    sum5[:] = 0.0
    sum3[:] = 0.0
    for i in range(atol.size):
        for lane in range(LANES):
            j = LANES * i + lane
            scale = 1.0 / (atol[i] + rtol * max(abs(y[j]), abs(y_new[j])))
            sum5[lane] += (e5[j] * scale) ** 2
            sum3[lane] += (e3[j] * scale) ** 2


@njit(**HELPER)
def _prepare_interpolants(rhs_lanes, stages, clocks, par_lanes, work):
    """Stages 14 to 16 and the coefficients of the interpolants of order 7. Source: ``contd8`` in dop853.f."""
    now, step, at = clocks[T_NOW], clocks[H_NOW], clocks[T_STAGE]
    for stage in range(13, 16):
        _argument(stages, A[stage], stage, Z, step)
        for lane in range(LANES):
            at[lane] = now[lane] + NODES[stage] * step[lane]
        _call_lanes(rhs_lanes, at, stages[Z], stages[stage], par_lanes, work)
    y, y_new, k1, k13 = stages[Y], stages[Y_NEW], stages[0], stages[12]
    f0, f1, f2 = stages[DENSE], stages[DENSE + 1], stages[DENSE + 2]
    for i in range(y.size // LANES):
        for lane in range(LANES):
            j = LANES * i + lane
            f0[j] = y_new[j] - y[j]
            f1[j] = step[lane] * k1[j] - f0[j]
            f2[j] = 2.0 * f0[j] - step[lane] * (k1[j] + k13[j])
    for row in range(4):
        _weighted(stages, D[row], 16, DENSE + 3 + row)
        f = stages[DENSE + 3 + row]
        for i in range(y.size // LANES):
            for lane in range(LANES):
                f[LANES * i + lane] *= step[lane]


@njit(**HELPER)
def _interpolate(x, stages, lane, row):
    """Leave in ``row`` the state of a lane at ``t + x h``, 0 ≤ x ≤ 1."""
    u = 1.0 - x
    for i in range(row.size):
        j = LANES * i + lane
        high = stages[DENSE + 4, j] + u * (stages[DENSE + 5, j] + x * stages[DENSE + 6, j])
        middle = stages[DENSE + 2, j] + u * (stages[DENSE + 3, j] + x * high)
        row[i] = stages[Y, j] + x * (stages[DENSE, j] + u * (stages[DENSE + 1, j] + x * middle))


@njit(**HELPER)
def _is_finite(x, lane, n):
    for i in range(n):  # noqa: SIM110  (a generator would not compile)
        if not abs(x[LANES * i + lane]) < HUGE:
            return False
    return True
