"""What both compiled loops do with states at output times: judge them, add the observables, store what is kept.

Sixteen states at a time, in the lanes of the processor's registers, whichever members and times they belong to: element
i of the state in slot l is number ``16 i + l`` of ``record``, where its observables follow. A slot's numbers come from
its own state and parameters by the same operations in every slot.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: put into one file with a loop by loops.py, whose signature fixes their types)

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ..integrators.dop853 import HELPER, SUCCESS, _call

BEYOND, NOT_OVERLAPS = 100, 101  # the states left what may be stored, or what vectors can have
LANES = 16  # two or four registers: LLVM unrolls a loop over eight before it vectorises

# Rows of ``slots``, (4, LANES): the lane that a state comes from, its member, its row in the output, what it is judged
SOURCE, MEMBER, ROW, CODE, N_SLOT_ROWS = 0, 1, 2, 3, 4


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


@intrinsic
def _borrowed(typing_context, array):
    """Return the array without what counts references to it: its caller holds it.

    Rows are views, and each counts twice, atomically: that took an eighth of the time.
    """

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()

    return array(array), generate


@njit(**HELPER)
def _write(
    observe, observe_lanes, t_slots, columns, par, work, record, gram, par_slots, row,
    addresses, lengths, places, gram_places, bounds, slots, count, n, n_times,
):  # fmt: skip
    """Store the states in the first ``count`` slots, and leave in ``slots`` SUCCESS, or why one may not be stored.

    What is stored of those that may not is overwritten at the end of the member. Arguments are not packed into a
    tuple: counting references to its arrays takes time.
    """
    _judge(record, par_slots, gram, gram_places, bounds, slots[CODE], n)
    if observe_lanes != 0:
        _call_lanes(observe_lanes, t_slots, record, record[LANES * n :], par_slots, work)
    elif observe != 0:
        for slot in range(count):
            if slots[CODE, slot] == SUCCESS:
                _observe(observe, t_slots[slot], columns, par, work, record, par_slots, row, slot, n)
    for slot in range(count):
        place = slots[MEMBER, slot] * n_times + slots[ROW, slot]
        column = 0
        for v in range(addresses.size):
            for i in range(lengths[v]):
                _store(addresses[v], place * lengths[v] + i, record[LANES * places[column] + slot])
                column += 1


@njit(**HELPER)
def _observe(observe, t, columns, par, work, record, par_slots, row, slot, n):
    """Add the observables of one slot, by the kernel for one trajectory; ``row`` and ``par`` are scratch."""
    for i in range(n):
        row[i] = record[LANES * i + slot]
    for p in columns:
        par[p] = par_slots[LANES * p + slot]
    _call(observe, t, row, row[n:], par, work)
    for i in range(n, row.size):
        record[LANES * i + slot] = row[i]


@njit(**HELPER)
def _judge(record, par_slots, gram, places, bounds, codes, n):
    """Leave in ``codes`` SUCCESS for bounded states whose overlaps, plus slack on the diagonal, have a factor L D Lᵀ
    with D > 0; the slack scales with their largest row sum, which bounds the largest eigenvalue.

    ``gram`` (F² + 3) rows in lanes; the last three are scratch.
    """
    F = len(places)
    total, slack, inverse = gram[F * F], gram[F * F + 1], gram[F * F + 2]
    codes[:] = SUCCESS
    slack[:] = 0.0
    for f in range(F):
        total[:] = 0.0
        for g in range(F):
            place, entry = places[f, g], gram[F * f + g]
            values, start = (record, LANES * place) if place < n else (par_slots, LANES * (place - n))
            for slot in range(LANES):
                entry[slot] = values[start + slot]
                total[slot] += abs(entry[slot])
        for slot in range(LANES):
            slack[slot] = max(slack[slot], total[slot])
    for slot in range(LANES):
        slack[slot] = bounds[1] * slack[slot] + bounds[2]
    for g in range(F):  # column by column; what remains is the rest's Schur complement
        for slot in range(LANES):
            pivot = gram[F * g + g, slot] + slack[slot]
            codes[slot] = codes[slot] if pivot > 0.0 else NOT_OVERLAPS
            inverse[slot] = 1.0 / pivot
        for f in range(g + 1, F):
            for slot in range(LANES):
                total[slot] = gram[F * f + g, slot] * inverse[slot]
            for k in range(g + 1, f + 1):
                for slot in range(LANES):
                    gram[F * f + k, slot] -= total[slot] * gram[F * k + g, slot]
    for i in range(n):
        for slot in range(LANES):
            codes[slot] = codes[slot] if abs(record[LANES * i + slot]) < bounds[0] else BEYOND


@njit(**HELPER)
def _blank(n_times, addresses, lengths, member, first):
    """Write NaN from row ``first`` on."""
    for v in range(addresses.size):
        for position in range((member * n_times + first) * lengths[v], (member + 1) * n_times * lengths[v]):
            _store(addresses[v], position, np.nan)


@njit(**HELPER)
def _is_below(x, bound):
    for i in range(x.size):  # noqa: SIM110  (a generator would not compile)
        if not abs(x[i]) < bound:
            return False
    return True
