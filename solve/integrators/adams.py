"""Adams: a multistep method of variable step and order, from 1 to 12: two right-hand sides a step, whatever its order.

For smooth, non-stiff systems whose right-hand side is dear: it needs about half of those of DOP853, and more
arithmetic between them. Predictor (Adams–Bashforth), evaluation, corrector (Adams–Moulton, one order higher),
evaluation, in modified divided differences, so that any step may follow any other; it starts itself, at order 1.

Only what differs from DOP853 stands here; ``other_methods.py`` puts it together with the loop of ``dop853.py``. What
the method remembers is changed by an accepted step only: a rejected one has nothing to undo.

Source: Shampine & Gordon, *Computer Solution of Ordinary Differential Equations* (1975), and their code STEP (SLATEC's
``dsteps.f`` and ``dintp.f``); Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I* (1993), III.5.
Letters are theirs: φ the modified divided differences, φ* those scaled to the coming step, ψ_j the length of the last j
steps, g the weights of the φ*, σ and γ* those of the error estimates. Departures are marked.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: see dop853.py)

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .dop853 import HELPER, _call

ORDER_MOST = 12
EXPONENT = 1.0  # ``_error`` takes the root, which depends on the order
START_EXPONENT = 1 / 2
ALLOCATES = True  # a view of the tables
AIM = 0.5  # the error that the next step is chosen for, in units of the tolerance
# A step that grows changes the tables, and keeps the order from being raised for k steps: so it grows by this at least.
# (Departure: STEP waits until it can double. Measured on committees: 1.5 takes 8 % fewer calls than 2; 1.3 as many as
# 1.5, with more rejections.)
GROW_LEAST = 1.5

# Rows of ``stages``: 0 y' at the start, then
F_TRIAL = 1  # y' at the predicted state, then φ_{k+1} with that
F_NEW, Y_NEW, Y_TRIAL = 2, 3, 4
# Differences are counted from 1, as on paper: φ_i is in row PHI + i.
PHI = 4  # i up to 14, at the start of the step; at its end, once that is accepted
STAR = PHI + ORDER_MOST + 2  # i up to 13
DENSE = PHI + 1
N_DENSE = 0  # nothing that could reject the step: they are differences of what is known to be finite
TABLES = STAR + ORDER_MOST + 2
N_STAGE_ROWS = TABLES

# From row TABLES on, as one vector, numbers that are kept from step to step. Tables are counted from 1 too.
PSI, PSI_NEW, BETAS, G, SIGMA, C = 0, 16, 32, 48, 64, 80
ORDER, LOWER, BEGIN, SAME, LAST, FAILED, RAISING, TABLED, UPDATED, ERROR, ERROR_1, ERROR_2 = range(96, 108)
# present order; that of a retry, or of the next step if lower; where the last attempt began; steps of this length;
# length of the last attempt; failures in a row; whether it still starts; order of the tables; whether PHI is of the
# end of the step; estimated errors at the present order, one and two below
N_TABLES = 109  # and in the very last entry, put there by the caller, the highest order allowed


def _moulton() -> np.ndarray:
    """Return |γ*_k|, k = 0 to 13: the error of the Adams–Moulton formula of order k, at equal steps.

    Source: III.1, γ*_m = -Σ_{j<m} γ*_j / (m + 1 - j).
    """
    gamma = [1.0]
    for m in range(1, ORDER_MOST + 2):
        gamma.append(-sum(g / (m + 1 - j) for j, g in enumerate(gamma)))
    return np.abs(gamma)


MOULTON = _moulton()


@njit(**HELPER)
def _tables(stages):
    return stages.reshape(stages.size)[TABLES * stages.shape[1] :]


@njit(**HELPER)
def _weights(x, k, h):
    """The ψ, β, g and σ of a step ``h`` at order ``k``, up to index k + 1, from the ψ before it. Source: III.5."""
    psi, new, beta, g, sigma, c = x[PSI:], x[PSI_NEW:], x[BETAS:], x[G:], x[SIGMA:], x[C:]
    new[1], beta[1], sigma[1], g[1] = h, 1.0, 1.0, 1.0
    for i in range(2, k + 2):
        new[i] = psi[i - 1] + h
        beta[i] = beta[i - 1] * new[i - 1] / psi[i - 1]
        sigma[i] = (i - 1) * h / new[i - 1] * sigma[i - 1]
    for q in range(1, k + 2):
        c[q] = 1.0 / (q * (q + 1))
    g[2] = c[1]
    for j in range(2, k + 1):
        ratio = h / new[j]
        for q in range(1, k + 2 - j):
            c[q] -= ratio * c[q + 1]
        g[j + 1] = c[1]


@njit(**HELPER)
def _take_step(rhs, jacobian, t, h, y, par, work, stages, rtol, atol):
    """Predict, evaluate and correct; return how many calls that took. The loop evaluates once more, if it accepts."""
    n = y.size
    x = _tables(stages)
    if x[ORDER] == 0.0:  # the first step of all
        x[ORDER] = x[RAISING] = 1.0
        for i in range(1, 16):
            x[PSI + i] = i * h
        for i in range(n):
            stages[PHI + 1, i] = stages[0, i]
    elif x[BEGIN] == t:  # the last attempt was rejected
        x[RAISING] = 0.0
        x[FAILED] += 1.0
        # Differences that mislead three times are of a solution that is not smooth: begin again.
        x[ORDER] = 1.0 if x[FAILED] >= 3.0 else x[LOWER]
    else:
        x[FAILED] = 0.0
    k = int(x[ORDER])
    if h != x[LAST]:
        x[SAME] = 0.0
    x[BEGIN], x[LAST], x[UPDATED] = t, h, 0.0
    # The tables of a step depend on the last k + 1 lengths: while those are equal, so are the tables.
    if x[SAME] <= k + 1.0 or x[TABLED] != k:
        _weights(x, k, h)
        x[TABLED] = k

    z, f, y_new, total = stages[Y_TRIAL], stages[F_TRIAL], stages[Y_NEW], stages[F_NEW]
    for i in range(n):
        slope = predicted = 0.0
        for j in range(k + 1, 0, -1):
            star = x[BETAS + j] * stages[PHI + j, i]
            stages[STAR + j, i] = star
            if j <= k:
                slope += x[G + j] * star
                predicted += star
        z[i] = y[i] + h * slope
        total[i] = predicted
    _call(rhs, t + h, z, f, par, work)
    g = x[G + k + 1]
    for i in range(n):
        f[i] -= total[i]  # φ_{k+1} at the end, as predicted
        y_new[i] = z[i] + h * g * f[i]
    return 1


@njit(**HELPER)
def _error(h, y, stages, rtol, atol):
    """Estimated error of the step in units of the tolerance: beyond 1 its root, proportional to the step."""
    n = y.size
    x = _tables(stages)
    k = int(x[ORDER])
    below1, below2 = stages[STAR + k], stages[STAR + max(k - 1, 1)]
    sum0 = sum1 = sum2 = 0.0
    for i in range(n):
        scale = 1.0 / (atol[i] + rtol * max(abs(y[i]), abs(stages[Y_NEW, i])))
        d0 = stages[F_TRIAL, i]
        d1 = d0 + below1[i]
        d2 = d1 + below2[i]
        sum0 += (d0 * scale) ** 2
        sum1 += (d1 * scale) ** 2
        sum2 += (d2 * scale) ** 2
    size = abs(h) * math.sqrt(sum0 / n)
    x[ERROR] = size * x[SIGMA + k + 1] * MOULTON[k]
    x[ERROR_1] = x[ERROR_2] = np.inf
    if k > 1:
        x[ERROR_1] = abs(h) * math.sqrt(sum1 / n) * x[SIGMA + k] * MOULTON[k - 1]
    if k > 2:
        x[ERROR_2] = abs(h) * math.sqrt(sum2 / n) * x[SIGMA + k - 1] * MOULTON[k - 2]
    lower = x[ERROR_1] <= 0.5 * x[ERROR] if k == 2 else max(x[ERROR_1], x[ERROR_2]) <= x[ERROR]
    x[LOWER] = k - 1.0 if lower and k > 1 else float(k)
    error = size * (x[G + k] - x[G + k + 1])
    return error if error <= 1.0 else error ** (1.0 / (k + 1))  # of an accepted step it does not matter


@njit(**HELPER)
def _prepare_interpolant(rhs, t, h, y, par, work, stages):
    """The differences at the end of the step, which takes no calls."""
    x = _tables(stages)
    if x[UPDATED] == 0.0:
        x[UPDATED] = 1.0
        k = int(x[ORDER])
        for i in range(y.size):
            difference = stages[F_NEW, i]
            stages[PHI + 1, i] = difference
            for j in range(1, k + 2):
                difference -= stages[STAR + j, i]
                stages[PHI + j + 1, i] = difference
    return 0


@njit(**HELPER)
def _interpolate(s, y, stages):
    """Leave in ``stages[Y_TRIAL]`` the state at ``t + s h``, 0 ≤ s ≤ 1, in a step from ``y``. Source: dintp.f."""
    x = _tables(stages)
    psi, c = x[PSI_NEW:], x[C:]
    z = stages[Y_TRIAL]
    count = int(x[ORDER]) + 1
    ahead = (s - 1.0) * x[LAST]
    for q in range(1, count + 1):
        c[q] = 1.0 / q
    for i in range(y.size):
        z[i] = stages[PHI + 1, i]
    term = 0.0
    for j in range(2, count + 1):
        gamma, eta = (ahead + term) / psi[j - 1], ahead / psi[j - 1]
        for q in range(1, count + 2 - j):
            c[q] = gamma * c[q] - eta * c[q + 1]
        term = psi[j - 1]
        for i in range(y.size):
            z[i] += c[1] * stages[PHI + j, i]
    for i in range(y.size):
        z[i] = stages[Y_NEW, i] + ahead * z[i]


@njit(**HELPER)
def _accept(shrink, h, y, stages, rtol, atol, err_old):
    """Take over the differences, choose the next order; return by what the next step is to be shorter."""
    n = y.size
    x = _tables(stages)
    k = int(x[ORDER])
    _prepare_interpolant(0, 0.0, h, y, y, y, stages)
    for j in range(1, k + 2):
        x[PSI + j] = x[PSI_NEW + j]
    for j in range(k + 2, 16):
        x[PSI + j] = x[PSI + j - 1] + h
    x[SAME] += 1.0

    error, order = x[ERROR], k
    highest = int(x[x.size - 1])
    if x[LOWER] < k or k == highest:
        x[RAISING] = 0.0
    if x[RAISING] != 0.0:
        order = k + 1
    elif x[LOWER] < k:
        order, error = k - 1, x[ERROR_1]
    elif x[SAME] > k:
        total = 0.0
        for i in range(n):
            total += (stages[PHI + k + 2, i] / (atol[i] + rtol * max(abs(y[i]), abs(stages[Y_NEW, i])))) ** 2
        above = abs(h) * math.sqrt(total / n) * MOULTON[k + 1]
        if k > 1 and x[ERROR_1] <= min(error, above):
            order, error = k - 1, x[ERROR_1]
        elif k < highest and above < (0.5 * error if k == 1 else error):
            order, error = k + 1, above
    x[ORDER] = order
    if x[RAISING] != 0.0:
        return 0.5
    if error <= AIM:
        worthwhile = error <= AIM * GROW_LEAST ** -(order + 1)
        return max(0.5, (error / AIM) ** (1.0 / (order + 1))) if worthwhile else 1.0
    return 1.0 / max(0.5, min(0.9, (AIM / error) ** (1.0 / (order + 1))))


@njit(**HELPER)
def _stiffness(h, y, stages):
    """Not estimated: it does not take turns with an implicit method."""
    return 0.0
