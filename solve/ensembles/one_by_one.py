"""Members one at a time, by the integrator of single trajectories: the same compiled loop from the same numbers.

So any method of ours can be used, and maps, which have an ``_advance`` of the same signature; and events are found.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: put into one file with those of outputs.py by loops.py, whose signature fixes their types)

from __future__ import annotations

from numba import njit

from ..integrators.dop853 import BUFFER_FULL, EVENT, HELPER, RUNNING, SUCCESS, SWITCH
from .outputs import BEYOND, CODE, MEMBER, ROW, _blank, _copy, _is_below, _next_member, _write
from .sixteen import LANES

STEPS_BETWEEN_LOOKS = 50  # at the flag that ends it all
N_LOG_ROWS = 3  # of the log of events: time, number of the function, member
STORED, BAD, N_PROGRESS = 3, 4, 5  # in ``progress``, see there


def _one_by_one(
    rhs, observe, ranges, own, stop, done, y0, columns, values, par, work, record, gram, par_slots, row, slots,
    t_span, t_eval, rtol, atol, first_step, max_step, max_steps,
    addresses, lengths, places, gram_places, bounds, status, t_last, counts,
    advance, other, watch, jacobian, stages, other_stages, fresh, other_fresh, state, y, t_out, y_out, last, t_slots,
    events, event_values, directions, terminal, t_event, y_event, i_event, log, progress,
):  # fmt: skip
    """Integrate members until there are no more, or told to stop; or until ``log`` is full: make room, and call again.

    ``state[1]``, ``fresh`` and ``other_fresh`` are what each member begins with; ``y`` (n,), ``t_out`` (LANES,),
    ``y_out`` (LANES, n), ``last`` (n,), the last output that was stored, and ``t_slots`` (LANES,) are scratch: outputs
    are stored as soon as the slots are full. ``progress`` holds the member being integrated, or -1; whether by the
    ``other`` method; the entries in ``log`` (3, …): the times of the events, which, and whose; how many outputs are
    stored, and RUNNING, or why the next one may not be.
    """
    n, s = y.size, state[0]
    while True:
        if progress[0] < 0:
            m = _next_member(ranges, own)
            if m < 0:
                return
            progress[0], progress[1], progress[STORED], progress[BAD] = m, 0, 0, RUNNING
            _copy(y0[m], y)
            _copy(y0[m], last)
            for p in range(columns.size):
                par[columns[p]] = values[m, p]
                par_slots[LANES * columns[p] : LANES * (columns[p] + 1)] = values[m, p]
            state[0] = state[1]
            for k in range(len(stages)):
                _copy(fresh[k], stages[k])
            s.t = t_span[0]
        m, code = progress[0], RUNNING
        while code in (RUNNING, BUFFER_FULL, SWITCH):
            if stop[0] != 0:
                return
            if progress[2] + t_event.size > log.shape[1]:
                return
            if progress[1] == 0:
                code = advance(
                    rhs, events, y, par, work, stages, event_values, state,
                    t_span[1], rtol, atol, first_step, max_step, max_steps, STEPS_BETWEEN_LOOKS,
                    t_eval, True, t_out, y_out, directions, terminal, t_event, y_event, i_event, jacobian, watch,
                )  # fmt: skip
            else:
                code = other(
                    rhs, events, y, par, work, other_stages, event_values, state,
                    t_span[1], rtol, atol, first_step, max_step, max_steps, STEPS_BETWEEN_LOOKS,
                    t_eval, True, t_out, y_out, directions, terminal, t_event, y_event, i_event, jacobian, watch,
                )  # fmt: skip
            for e in range(s.n_event):
                entry = progress[2]
                log[0, entry], log[1, entry], log[2, entry] = t_event[e], i_event[e], m
                progress[2] += 1
            s.n_event = 0
            if code == BUFFER_FULL:
                _save(
                    observe, t_slots, t_eval, columns, par, work, record, gram, par_slots, row,
                    addresses, lengths, places, gram_places, bounds, slots, s, y_out, last, progress, n,
                )  # fmt: skip
            if code == SWITCH:
                progress[1], s.begun = 1 - progress[1], 0
                for k in range(len(stages)):
                    _copy(fresh[k], stages[k])
                for k in range(len(other_stages)):
                    _copy(other_fresh[k], other_stages[k])

        if code == EVENT and (s.n_out > t_eval.size or t_eval[s.n_out - 1] != s.t):
            s.n_out -= 1  # its state is the last output, but not one of the grid
        _save(
            observe, t_slots, t_eval, columns, par, work, record, gram, par_slots, row,
            addresses, lengths, places, gram_places, bounds, slots, s, y_out, last, progress, n,
        )  # fmt: skip
        rows, t_valid, below = progress[STORED], s.t, _is_below(y, bounds[0])
        if progress[BAD] != RUNNING:
            code = progress[BAD]
        elif code in (SUCCESS, EVENT) and not below:
            code = BEYOND
        if progress[BAD] != RUNNING or not below:  # back to the last state that is valid
            t_valid = t_eval[rows - 1] if rows > 0 else t_span[0]
            _copy(last, y)
        _blank(t_eval.size, addresses, lengths, m, rows)
        _copy(y, y0[m])
        t_last[m] = t_valid
        counts[m, 0], counts[m, 1], counts[m, 2] = s.n_steps, s.n_rejected, s.n_rhs
        status[m] = code  # last of all: until then the member counts as not run
        progress[0] = -1
        done[0] += 1


@njit(**HELPER)
def _save(
    observe, t_slots, t_eval, columns, par, work, record, gram, par_slots, row,
    addresses, lengths, places, gram_places, bounds, slots, s, y_out, last, progress, n,
):  # fmt: skip
    """Store the outputs in ``y_out``, up to LANES together and up to one that may not be, and make room for others."""
    first, count = s.n_taken, s.n_out - s.n_taken
    s.n_taken = s.n_out
    if progress[BAD] != RUNNING or count == 0:
        return
    for slot in range(count):
        slots[MEMBER, slot], slots[ROW, slot], t_slots[slot] = progress[0], first + slot, t_eval[first + slot]
        for i in range(n):
            record[LANES * i + slot] = y_out[slot, i]
    _write(
        observe, 0, t_slots, columns, par, work, record, gram, par_slots, row,
        addresses, lengths, places, gram_places, bounds, slots, (1 << count) - 1, n, t_eval.size,
    )  # fmt: skip
    for slot in range(count):
        if slots[CODE, slot] != SUCCESS:
            progress[BAD] = slots[CODE, slot]
            return
        progress[STORED] += 1
        _copy(y_out[slot], last)
