"""Executes the operations of a system, with their derivatives along sixteen directions at once.

Compiled once for all models: a program (:mod:`.program`) is data. Operations of one kind follow each other, so that the
processor foresees what is next.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit

from ..ensembles.sixteen import LANES, in_sixteens, sum_of_lanes
from ..integrators.dop853 import OPTIONS
from ..kernels.kept import kept
from .rules import QUOTIENT, SCALED, SHIFTED, function_of, of_two, value_of

COUNTED = {"_nrt": True}  # views of the workspace are arrays of its own
HEAD = 6
"""How many numbers a program begins with."""


def work_size(program: np.ndarray) -> int:
    """Return how many doubles the execution of an encoded program takes."""
    instructions = int(program[2])
    held = int(program[0]) + int(program[1]) + 1 + instructions
    return held * (2 + LANES) + 2 * instructions


@njit(**OPTIONS | COUNTED)
def parts(program):
    """Return the runs, both operands, results and constants of an encoded program.

    Places are unsigned: of others Numba asks, at each access, whether they count from the end.
    """
    n_constants, count, n_runs, n_results = int(program[0]), int(program[2]), int(program[3]), int(program[4])
    at = HEAD
    runs = program[at : at + 2 * n_runs]
    at += 2 * n_runs
    left, right = program[at : at + count].view(np.uint64), program[at + count : at + 2 * count].view(np.uint64)
    at += 2 * count
    results = program[at : at + n_results].view(np.uint64)
    at += n_results
    return runs, left, right, results, program[at : at + n_constants]


@njit(**OPTIONS | COUNTED)
def spaces(program, work):
    """Return the workspace in parts: values, sums of second derivatives, derivatives in lanes, and of functions."""
    count = int(program[2])
    held = int(program[0]) + int(program[1]) + 1 + count
    values, second, at = work[:held], work[held : 2 * held], 2 * held
    first = work[at : at + LANES * held]
    at += LANES * held
    return values, second, first, work[at : at + count], work[at + count : at + 2 * count]


@njit(**OPTIONS | COUNTED)
def evaluate(program, t, y, work):
    """Put the values of all operations, and the derivatives of functions, at a time and the states y."""
    runs, left, right, _, constants = parts(program)
    values, second, first, slopes, curvatures = spaces(program, work)
    start, n = constants.size, int(program[1])
    values[:start] = constants
    values[start : start + n] = y[:n]
    values[start + n] = t
    timed = start + n + 1 + int(program[5])
    for fixed in range(2):  # what is a constant, or time alone decides
        low, high = (0, start) if fixed == 0 else (start + n, timed)
        second[low:high] = 0.0
        first[LANES * low : LANES * high] = 0.0
    new, begin = values[start + n + 1 :], np.uint64(0)
    for run in range(runs.size // 2):
        kind, end = int(runs[2 * run]), np.uint64(runs[2 * run + 1])
        if kind <= SCALED:
            for k in range(begin, end):
                new[k] = value_of(kind, values[left[k]], values[right[k]])
        else:
            for k in range(begin, end):
                new[k], slopes[k], curvatures[k] = function_of(kind, values[left[k]], values[right[k]])
        begin = end


@njit(**OPTIONS | COUNTED)
def differentiate(program, work):
    """Put the derivatives of all operations, from those that stand at the states."""
    runs, left, right, _, constants = parts(program)
    values, second, lanes, slopes, curvatures = spaces(program, work)
    first = in_sixteens(lanes)
    place, begin = constants.size + int(program[1]) + 1, np.uint64(0)
    new, new_first, new_second = values[place:], first[place:], second[place:]
    for run in range(runs.size // 2):
        kind, end = int(runs[2 * run]), np.uint64(runs[2 * run + 1])
        if end <= np.uint64(program[5]):
            begin = end
        elif kind <= QUOTIENT:
            for k in range(begin, end):
                i, j = left[k], right[k]
                new_first[k], new_second[k] = of_two(
                    kind, values[i], values[j], new[k], first[i], first[j], second[i], second[j]
                )
        elif kind <= SCALED:
            for k in range(begin, end):
                j = right[k]
                factor = values[left[k]] if kind == SCALED else 1.0 if kind == SHIFTED else -1.0
                new_first[k], new_second[k] = factor * first[j], factor * second[j]
        else:
            for k in range(begin, end):
                j = right[k]
                u = first[j]
                new_first[k] = slopes[k] * u
                new_second[k] = slopes[k] * second[j] + curvatures[k] * sum_of_lanes(u * u)
        begin = end


@njit(**OPTIONS | COUNTED)
def sweep(program, columns, seeds, work, images, curved):
    """Put the derivatives along the columns l of a matrix, and J s + Σ ∇²b:l lᵀ, at the states evaluated last.

    Parameters
    ----------
    columns : ndarray, shape (n n,)
        The matrix, row by row.
    seeds : ndarray, shape (n,)
        The vector s: what the second derivatives of the states are set to.
    images : ndarray, shape (r n,)
        Derivatives of the r results, row by row.
    curved : ndarray, shape (r,)
    """
    _, _, _, results, constants = parts(program)
    _, second, lanes, _, _ = spaces(program, work)
    start, n = constants.size, int(program[1])
    curved[:] = 0.0
    for begin in range(0, n, LANES):
        count = min(LANES, n - begin)
        for i in range(n):
            at = LANES * (start + i)
            for l in range(count):
                lanes[at + l] = columns[i * n + begin + l]
            lanes[at + count : at + LANES] = 0.0
            second[start + i] = seeds[i] if begin == 0 else 0.0
        differentiate(program, work)
        for r in range(results.size):
            at = LANES * int(results[r])
            images[r * n + begin : r * n + begin + count] = lanes[at : at + count]
            curved[r] += second[results[r]]


@cache
def compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    """Return ``evaluate`` and ``sweep`` for callers in Python."""
    options = OPTIONS | COUNTED
    return kept(njit, evaluate, **options), kept(njit, sweep, **options)
