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
from .sixteen import LANES, in_all, in_sixteens, lowest_bit, where

BEYOND, NOT_OVERLAPS = 100, 101  # the states left what may be stored, or what vectors can have

# Rows of ``slots``, (5, LANES): the member of each slot, its row in the output, and what its state is judged as; then,
# one after the other, which slots are being stored, and where in the output
MEMBER, ROW, CODE, SOURCE, PLACE, N_SLOT_ROWS = 0, 1, 2, 3, 4, 5


@intrinsic
def _store(typing_context, address, position, value):
    """Write a double into the array at ``address``."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        builder.store(arguments[2], builder.gep(pointer, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), generate


@intrinsic
def _take(typing_context, counters, row):
    """Return the first number in a row of ``counters`` and raise it by one, whatever other threads do."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        position = builder.mul(arguments[1], builder.extract_value(view.shape, 1))
        return builder.atomic_rmw("add", builder.gep(view.data, [position]), position.type(1), "monotonic")

    return types.int64(counters, types.int64), generate


@njit(**HELPER)
def _next_member(ranges, own):
    """Return the next member of a thread's own range, or, when there are no more, of another's; -1 at the end of all.

    Ranges, not turns: were neighbours in the output filled at once by two threads, both would clear each new page of
    memory, and one of them in vain.
    """
    for k in range(len(ranges)):
        row = (own + k) % len(ranges)
        if ranges[row, 0] < ranges[row, 1]:
            m = _take(ranges, row)
            if m < ranges[row, 1]:
                return m
    return -1


@njit(**HELPER)
def _write(
    observe, observe_lanes, t_slots, columns, par, work, record, gram, par_slots, row,
    addresses, lengths, places, gram_places, bounds, slots, bits, n, n_times,
):  # fmt: skip
    """Store the states in the slots whose ``bits`` are set; leave in ``slots`` SUCCESS, or why one may not be stored.

    What is stored of those that may not is overwritten at the end of the member.
    """
    judged = in_sixteens(gram)
    judged[-1, 0] = _judge(in_sixteens(record), in_sixteens(par_slots), judged, gram_places, bounds, n)
    for slot in range(LANES):
        slots[CODE, slot] = int(gram[-1, slot])
    if observe_lanes != 0:
        _call(observe_lanes, in_sixteens(t_slots)[0], record, record[LANES * n :], par_slots, work)
    count = 0
    while bits != 0:
        slot = lowest_bit(bits)
        bits &= bits - 1
        if observe_lanes == 0 and observe != 0 and slots[CODE, slot] == SUCCESS:
            _observe(observe, t_slots[slot], columns, par, work, record, par_slots, row, slot, n)
        slots[SOURCE, count], slots[PLACE, count] = slot, slots[MEMBER, slot] * n_times + slots[ROW, slot]
        count += 1
    column = 0
    for v in range(addresses.size):
        address, length = addresses[v], lengths[v]
        for i in range(length):
            start = LANES * places[column]
            for k in range(count):
                _store(address, slots[PLACE, k] * length + i, record[start + slots[SOURCE, k]])
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
def _judge(record, par, gram, places, bounds, n):
    """Return, for each slot, SUCCESS for a bounded state whose overlaps, plus slack on the diagonal, have a factor
    L D Lᵀ with D > 0; the slack scales with their largest row sum, which bounds the largest eigenvalue.

    All in sixteens: the states, the parameters, and F² rows of scratch.
    """
    F = len(places)
    slack = in_all(0.0)
    for f in range(F):
        total = 0.0
        for g in range(F):
            place = places[f, g]
            entry = record[place] if place < n else par[place - n]
            gram[F * f + g, 0] = entry
            total += abs(entry)
        slack = max(total, slack)
    slack = bounds[1] * slack + bounds[2]
    code = where(slack >= 0.0, SUCCESS, NOT_OVERLAPS)  # not so of NaN
    for g in range(F):  # column by column; what remains is the rest's Schur complement
        pivot = gram[F * g + g, 0] + slack
        code = where(pivot > 0.0, code, NOT_OVERLAPS)
        inverse = 1.0 / pivot
        for f in range(g + 1, F):
            factor = gram[F * f + g, 0] * inverse
            for k in range(g + 1, f + 1):
                gram[F * f + k, 0] -= factor * gram[F * k + g, 0]
    for i in range(n):
        code = where(abs(record[i]) < bounds[0], code, BEYOND)
    return code


@njit(**HELPER)
def _blank(n_times, addresses, lengths, member, first):
    """Write NaN from row ``first`` on."""
    for v in range(addresses.size):
        for position in range((member * n_times + first) * lengths[v], (member + 1) * n_times * lengths[v]):
            _store(addresses[v], position, np.nan)


@njit(**HELPER)
def _copy(x, into):
    for i in range(x.size):
        into[i] = x[i]


@njit(**HELPER)
def _is_below(x, bound):
    for i in range(x.size):  # noqa: SIM110  (a generator would not compile)
        if not abs(x[i]) < bound:
            return False
    return True
