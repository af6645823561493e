"""Maps, one step after the other, as a method for members one at a time: exact but for rounding."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: put into one file with those of dop853.py by loops.py, whose signature fixes their types)

from __future__ import annotations

from ..integrators.dop853 import BUFFER_FULL, NOT_FINITE, RUNNING, STEP_LIMIT, SUCCESS, _call, _is_finite, _put


def _advance(
    rhs, events, y, par, work, stages, values, state,
    t1, rtol, atol, first_step, max_step, max_steps, budget,
    t_eval, on_grid, t_out, y_out, directions, terminal, t_event, y_event, i_event,
    jacobian, watch,
):  # fmt: skip
    """Make up to ``budget`` steps of length ``first_step``; arguments as ``dop853._advance`` has them.

    ``state.h`` holds the time at the start. A state that is not finite is not kept: the one before is the last.
    """
    s, change, n = state[0], stages[0], y.size
    if s.begun == 0:
        s.begun, s.h = 1, s.t
    for _ in range(budget):
        while s.n_out < t_eval.size and round((t_eval[s.n_out] - s.h) / first_step) == s.n_steps:
            if s.n_out - s.n_taken == t_out.size:
                s.status = BUFFER_FULL
                return BUFFER_FULL
            _put(t_out, y_out, s.n_out - s.n_taken, t_eval[s.n_out], y)
            s.n_out += 1
        s.status = RUNNING
        if s.n_out == t_eval.size:
            s.status = SUCCESS
        elif s.n_steps >= max_steps:
            s.status = STEP_LIMIT
        if s.status != RUNNING:
            return s.status
        _call(rhs, s.t, y, change, par, work)
        s.n_rhs += 1
        for i in range(n):
            change[i] += y[i]
        if not _is_finite(change, n):
            s.status = NOT_FINITE
            return NOT_FINITE
        for i in range(n):
            y[i] = change[i]
        s.n_steps += 1
        s.t = s.h + s.n_steps * first_step
    return RUNNING
