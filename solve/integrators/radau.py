"""Radau5: the implicit Runge–Kutta method Radau IIA of order 5, for stiff systems: L-stable, three stages.

Only what differs from DOP853 stands here; ``other_methods.py`` puts it together with the loop of ``dop853.py``. Each
step solves a nonlinear system by simplified Newton iterations, with the Jacobian of an earlier step as long as they
converge fast with it. An iteration that does not converge, or meets NaN, leaves NaN in the new state: the loop rejects
the step, and a shorter one is tried.

Source: Hairer & Wanner, *Solving Ordinary Differential Equations II* (1996), IV.8, and the code ``radau5.f``; the
stopping rule of the iteration as in SciPy's Radau. Departures: matrices are factorised in every step (the sizes are
small and steps change), and steps are controlled as those of DOP853 are.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: see dop853.py)

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .dop853 import EPSILON, HELPER, HUGE, _call, _is_finite

BETA = 0.0
EXPONENT = 1 / 4  # the error estimate is of order 3
START_EXPONENT = 1 / 4
IMPLICIT = True
ALLOCATES = True
STIFF_CHECK = 1

ROOT6 = math.sqrt(6)
C1, C2 = (4 - ROOT6) / 10, (4 + ROOT6) / 10  # and C3 = 1

# Eigenvalues of the inverse of the Runge–Kutta matrix: one real, two conjugate.
MU = 3 + 3 ** (2 / 3) - 3 ** (1 / 3)
MU_PAIR = complex(3 + (3 ** (1 / 3) - 3 ** (2 / 3)) / 2, -(3 ** (5 / 6) + 3 ** (7 / 6)) / 2)

# Z = T W brings it to diagonal form, a real and a complex equation.
T = np.array(
    [
        [0.09443876248897524, -0.14125529502095421, 0.03002919410514742],
        [0.25021312296533332, 0.20412935229379994, -0.38294211275726192],
        [1.0, 1.0, 0.0],
    ]
)
T_INVERSE = np.array(
    [
        [4.17871859155190428, 0.32768282076106237, 0.52337644549944951],
        [-4.17871859155190428, -0.32768282076106237, 0.47662355450055044],
        [0.50287263494578682, -2.57192694985560522, 0.59603920482822492],
    ]
)
E1, E2, E3 = (-13 - 7 * ROOT6) / 3, (-13 + 7 * ROOT6) / 3, -1 / 3  # of the error estimate
P = np.array(
    [  # of the collocation polynomial: row i weighs Z_i in the coefficients of x, x² and x³
        [13 / 3 + 7 * ROOT6 / 3, -23 / 3 - 22 * ROOT6 / 3, 10 / 3 + 5 * ROOT6],
        [13 / 3 - 7 * ROOT6 / 3, -23 / 3 + 22 * ROOT6 / 3, 10 / 3 - 5 * ROOT6],
        [1 / 3, -8 / 3, 10 / 3],
    ]
)
ITERATIONS = 6

# Rows of ``stages``: 0 y' at the start, 1 scratch, then
FZ = 2  # y' at the three stages
F_NEW, Y_NEW, Y_TRIAL = 5, 6, 7
DENSE = 8  # the coefficients of x, x² and x³
N_DENSE = 3
PREVIOUS = 11  # the same, of the last accepted step: it starts the next iteration
Z = 14  # stages - y
W = 17  # Z transformed
ERROR = 20
# In column 0, numbers that are kept from step to step:
END, TRIED, LENGTH, AGE, GOOD, BEGIN = 21, 22, 23, 24, 25, 26
# end of the last attempt, its length, length of the accepted step of PREVIOUS, time of the Jacobian, whether it serves,
# start of the last attempt
SCALE = 27
JACOBIAN = 28  # n rows
N_STAGE_ROWS = 28


@njit(**HELPER)
def _differences(rhs, jacobian, t, y, par, work, stages):
    """Leave df_i/dy_j in the rows JACOBIAN + i; return how many calls that took.

    By forward differences, where no function is given: an error of 1e-8 of an entry only slows the iteration.
    """
    n = y.size
    if jacobian != 0:
        _call(jacobian, t, y, stages[JACOBIAN], par, work)
        return 0
    z, f = stages[Y_TRIAL], stages[1]
    calls = 0
    for i in range(n):
        z[i] = y[i]
    for j in range(n):
        delta = math.sqrt(EPSILON * max(1e-5, abs(y[j])))
        for side in range(2):  # backward, where forward is outside the domain
            z[j] = y[j] + delta
            _call(rhs, t, z, f, par, work)
            calls += 1
            if side == 1 or _is_finite(f, n):
                break
            delta = -delta
        step = z[j] - y[j]
        for i in range(n):
            stages[JACOBIAN + i, j] = (f[i] - stages[0, i]) / step
        z[j] = y[j]
    return calls


@njit(**HELPER)
def _factorise(a, rows):
    """Replace ``a`` by its triangular factors, with partial pivoting; ``rows`` says where each row went."""
    n = rows.size
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[best, k]):
                best = i
        rows[k] = best
        if best != k:
            for j in range(n):
                a[k, j], a[best, j] = a[best, j], a[k, j]
        for i in range(k + 1, n):
            a[i, k] /= a[k, k]
            factor = a[i, k]
            if factor != 0.0:
                for j in range(k + 1, n):
                    a[i, j] -= factor * a[k, j]


@njit(**HELPER)
def _solve(a, rows, b):
    """Replace ``b`` by the solution, with the factors of ``a``."""
    n = rows.size
    for k in range(n):
        b[k], b[rows[k]] = b[rows[k]], b[k]
    for i in range(n):
        for j in range(i):
            b[i] -= a[i, j] * b[j]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            b[i] -= a[i, j] * b[j]
        b[i] /= a[i, i]


@njit(**HELPER)
def _guess(h, y, stages):
    """Leave in Z and W where the iteration starts: the last step's polynomial, continued."""
    length = stages[LENGTH, 0]
    for i in range(y.size):
        q1, q2, q3 = stages[PREVIOUS, i], stages[PREVIOUS + 1, i], stages[PREVIOUS + 2, i]
        for stage in range(3):
            stages[Z + stage, i] = 0.0
            if length != 0.0:
                x = 1.0 + (C1 if stage == 0 else (C2 if stage == 1 else 1.0)) * h / length
                stages[Z + stage, i] = x * (q1 + x * (q2 + x * q3)) - (q1 + q2 + q3)
        for row in range(3):
            stages[W + row, i] = (
                T_INVERSE[row, 0] * stages[Z, i]
                + T_INVERSE[row, 1] * stages[Z + 1, i]
                + T_INVERSE[row, 2] * stages[Z + 2, i]
            )


@njit(**HELPER)
def _iterate(rhs, t, h, y, par, work, stages, tolerance, real, pair, real_rows, pair_rows):
    """Newton's iterations; return whether they converged, how many there were, and their rate."""
    n = y.size
    dw, dw_pair = np.empty(n), np.empty(n, np.complex128)
    before, rate = 0.0, 1.0
    for k in range(ITERATIONS):
        for stage in range(3):
            for i in range(n):
                stages[Y_TRIAL, i] = y[i] + stages[Z + stage, i]
            node = C1 if stage == 0 else (C2 if stage == 1 else 1.0)
            _call(rhs, t + node * h, stages[Y_TRIAL], stages[FZ + stage], par, work)
            if not _is_finite(stages[FZ + stage], n):
                return False, k + 1, 1.0
        for i in range(n):
            f1, f2, f3 = stages[FZ, i], stages[FZ + 1, i], stages[FZ + 2, i]
            dw[i] = T_INVERSE[0, 0] * f1 + T_INVERSE[0, 1] * f2 + T_INVERSE[0, 2] * f3 - MU / h * stages[W, i]
            dw_pair[i] = complex(
                T_INVERSE[1, 0] * f1 + T_INVERSE[1, 1] * f2 + T_INVERSE[1, 2] * f3,
                T_INVERSE[2, 0] * f1 + T_INVERSE[2, 1] * f2 + T_INVERSE[2, 2] * f3,
            ) - MU_PAIR / h * complex(stages[W + 1, i], stages[W + 2, i])
        _solve(real, real_rows, dw)
        _solve(pair, pair_rows, dw_pair)
        total = 0.0
        for i in range(n):
            total += (dw[i] ** 2 + dw_pair[i].real ** 2 + dw_pair[i].imag ** 2) / stages[SCALE, i] ** 2
        size = math.sqrt(total / (3 * n))
        if not size < HUGE:
            return False, k + 1, 1.0
        if k > 0:
            rate = size / before
            if rate >= 1.0 or rate ** (ITERATIONS - k) / (1.0 - rate) * size > tolerance:
                return False, k + 1, rate
        for i in range(n):
            stages[W, i] += dw[i]
            stages[W + 1, i] += dw_pair[i].real
            stages[W + 2, i] += dw_pair[i].imag
            for stage in range(3):
                stages[Z + stage, i] = (
                    T[stage, 0] * stages[W, i] + T[stage, 1] * stages[W + 1, i] + T[stage, 2] * stages[W + 2, i]
                )
        if size == 0.0 or (k > 0 and rate / (1.0 - rate) * size < tolerance):
            return True, k + 1, rate
        before = size
    return False, ITERATIONS, rate


@njit(**HELPER)
def _take_step(rhs, jacobian, t, h, y, par, work, stages, rtol, atol):
    """The stages, the new state, the interpolant and the error; return how many calls that took."""
    n = y.size
    calls = 0
    if stages[TRIED, 0] != 0.0 and stages[END, 0] == t:  # the last attempt was accepted
        for row in range(3):
            for i in range(n):
                stages[PREVIOUS + row, i] = stages[DENSE + row, i]
        stages[LENGTH, 0] = stages[TRIED, 0]
    again = stages[LENGTH, 0] == 0.0 or stages[BEGIN, 0] == t
    stages[BEGIN, 0], stages[TRIED, 0] = t, 0.0
    current = stages[GOOD, 0] == 0.0
    if current:
        calls += _differences(rhs, jacobian, t, y, par, work, stages)
        stages[AGE, 0] = t
        stages[GOOD, 0] = 1.0
    elif stages[AGE, 0] == t:
        current = True
    for i in range(n):
        stages[SCALE, i] = atol[i] + rtol * abs(y[i])
    tolerance = max(10.0 * EPSILON / rtol, min(0.03, math.sqrt(rtol)))
    real, pair = np.empty((n, n)), np.empty((n, n), np.complex128)
    real_rows, pair_rows = np.empty(n, np.int64), np.empty(n, np.int64)
    while True:
        for i in range(n):
            for j in range(n):
                real[i, j] = -stages[JACOBIAN + i, j]
                pair[i, j] = -stages[JACOBIAN + i, j]
            real[i, i] += MU / h
            pair[i, i] += MU_PAIR / h
        _factorise(real, real_rows)
        _factorise(pair, pair_rows)
        _guess(h, y, stages)
        converged, count, rate = _iterate(rhs, t, h, y, par, work, stages, tolerance, real, pair, real_rows, pair_rows)
        calls += 3 * count
        if converged or current:
            break
        calls += _differences(rhs, jacobian, t, y, par, work, stages)
        stages[AGE, 0] = t
        current = True
    if not converged:
        for i in range(n):
            stages[Y_NEW, i] = stages[ERROR, i] = np.nan
        return calls

    if count > 2 and rate > 1e-3:
        stages[GOOD, 0] = 0.0
    stages[END, 0], stages[TRIED, 0] = t + h, h
    for i in range(n):
        z1, z2, z3 = stages[Z, i], stages[Z + 1, i], stages[Z + 2, i]
        stages[Y_NEW, i] = y[i] + z3
        for k in range(3):
            stages[DENSE + k, i] = P[0, k] * z1 + P[1, k] * z2 + P[2, k] * z3
        stages[W, i] = (E1 * z1 + E2 * z2 + E3 * z3) / h
        stages[ERROR, i] = stages[0, i] + stages[W, i]
    _solve(real, real_rows, stages[ERROR])
    # Filtered once more, as a stiff component far from equilibrium needs; done always, it would hide true errors.
    if again and _error(h, y, stages, rtol, atol) > 1.0:
        for i in range(n):
            stages[Y_TRIAL, i] = y[i] + stages[ERROR, i]
        _call(rhs, t, stages[Y_TRIAL], stages[ERROR], par, work)
        calls += 1
        for i in range(n):
            stages[ERROR, i] += stages[W, i]
        _solve(real, real_rows, stages[ERROR])
    return calls


@njit(**HELPER)
def _stiffness(h, y, stages):
    """A bound of ``|h λ|``: the largest sum of a row of the Jacobian."""
    largest = 0.0
    for i in range(y.size):
        total = 0.0
        for j in range(y.size):
            total += abs(stages[JACOBIAN + i, j])
        largest = max(largest, total)
    return abs(h) * largest


@njit(**HELPER)
def _error(h, y, stages, rtol, atol):
    """Estimated error of the step in units of the tolerance."""
    n = y.size
    total = 0.0
    for i in range(n):
        scale = atol[i] + rtol * max(abs(y[i]), abs(stages[Y_NEW, i]))
        total += (stages[ERROR, i] / scale) ** 2
    return math.sqrt(total / n)


@njit(**HELPER)
def _prepare_interpolant(rhs, t, h, y, par, work, stages):
    """Nothing: the collocation polynomial is there already."""
    return 0


@njit(**HELPER)
def _interpolate(x, y, stages):
    """Leave in ``stages[Y_TRIAL]`` the state at ``t + x h``, 0 ≤ x ≤ 1, in a step from ``y``."""
    for i in range(y.size):
        q1, q2, q3 = stages[DENSE, i], stages[DENSE + 1, i], stages[DENSE + 2, i]
        stages[Y_TRIAL, i] = y[i] + x * (q1 + x * (q2 + x * q3))
