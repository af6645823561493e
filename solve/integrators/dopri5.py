"""DOPRI5: Dormand & Prince's explicit Runge–Kutta pair 5(4), for low accuracy: half the stages of DOP853 in a step.

Only what differs from DOP853 stands here; ``other_methods.py`` puts it together with the loop of ``dop853.py``.

Source: Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I* (1993), II.5 (Table 5.2), II.6 (dense
output, order 4), and the code ``dopri5.f``.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: see dop853.py)

from __future__ import annotations

import math

from numba import njit

from .dop853 import HELPER, _call

EXPONENT = 1 / 5 - 0.75 * 0.04  # with BETA = 0.04, as in dopri5.f
START_EXPONENT = 1 / 5
DERIVATIVE_IN_STEP = True  # its last stage is the derivative at the new point
STIFF_LIMIT = 3.25

# Rows of ``stages``: 0 to 6 the stages k1 to k7, then
LAST_STAGE = 5
F_NEW = 6
Y_NEW = 7
Y_TRIAL = 8
DENSE = 9
N_DENSE = 4
N_STAGE_ROWS = 13

# Nodes and Runge–Kutta matrix.
C2, C3, C4, C5 = 1 / 5, 3 / 10, 4 / 5, 8 / 9
A2_1 = 1 / 5
A3_1, A3_2 = 3 / 40, 9 / 40
A4_1, A4_2, A4_3 = 44 / 45, -56 / 15, 32 / 9
A5_1, A5_2, A5_3, A5_4 = 19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729
A6_1, A6_2, A6_3, A6_4, A6_5 = 9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656
B1, B3, B4, B5, B6 = 35 / 384, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84

# Error estimate and dense output.
E1, E3, E4, E5, E6, E7 = 71 / 57600, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40
D1, D3, D4 = -12715105075 / 11282082432, 87487479700 / 32700410799, -10690763975 / 1880347072
D5, D6, D7 = 701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423


@njit(**HELPER)
def _take_step(rhs, jacobian, t, h, y, par, work, stages, rtol, atol):
    """Stages 2 to 7, the last of them at the new state; return how many calls that took."""
    n = y.size
    k1, k2, k3, k4, k5, k6 = stages[0], stages[1], stages[2], stages[3], stages[4], stages[5]
    z, y_new = stages[Y_TRIAL], stages[Y_NEW]
    for i in range(n):
        z[i] = y[i] + h * A2_1 * k1[i]
    _call(rhs, t + C2 * h, z, k2, par, work)
    for i in range(n):
        z[i] = y[i] + h * (A3_1 * k1[i] + A3_2 * k2[i])
    _call(rhs, t + C3 * h, z, k3, par, work)
    for i in range(n):
        z[i] = y[i] + h * (A4_1 * k1[i] + A4_2 * k2[i] + A4_3 * k3[i])
    _call(rhs, t + C4 * h, z, k4, par, work)
    for i in range(n):
        z[i] = y[i] + h * (A5_1 * k1[i] + A5_2 * k2[i] + A5_3 * k3[i] + A5_4 * k4[i])
    _call(rhs, t + C5 * h, z, k5, par, work)
    for i in range(n):
        z[i] = y[i] + h * (A6_1 * k1[i] + A6_2 * k2[i] + A6_3 * k3[i] + A6_4 * k4[i] + A6_5 * k5[i])
    _call(rhs, t + h, z, k6, par, work)
    for i in range(n):
        y_new[i] = y[i] + h * (B1 * k1[i] + B3 * k3[i] + B4 * k4[i] + B5 * k5[i] + B6 * k6[i])
    _call(rhs, t + h, y_new, stages[F_NEW], par, work)
    return 6


@njit(**HELPER)
def _error(h, y, stages, rtol, atol):
    """Estimated error of the step in units of the tolerance: the difference to the embedded formula of order 4."""
    n = y.size
    k1, k3, k4, k5, k6, k7 = stages[0], stages[2], stages[3], stages[4], stages[5], stages[F_NEW]
    y_new = stages[Y_NEW]
    total = 0.0
    for i in range(n):
        scale = atol[i] + rtol * max(abs(y[i]), abs(y_new[i]))
        e = E1 * k1[i] + E3 * k3[i] + E4 * k4[i] + E5 * k5[i] + E6 * k6[i] + E7 * k7[i]
        total += (h * e / scale) ** 2
    return math.sqrt(total / n)


@njit(**HELPER)
def _prepare_interpolant(rhs, t, h, y, par, work, stages):
    """The coefficients of the interpolant of order 4, which takes no calls. Source: ``contd5`` in dopri5.f."""
    k1, k3, k4, k5, k6, k7 = stages[0], stages[2], stages[3], stages[4], stages[5], stages[F_NEW]
    f0, f1, f2, f3 = stages[DENSE], stages[DENSE + 1], stages[DENSE + 2], stages[DENSE + 3]
    for i in range(y.size):
        f0[i] = stages[Y_NEW, i] - y[i]
        f1[i] = h * k1[i] - f0[i]
        f2[i] = f0[i] - h * k7[i] - f1[i]
        f3[i] = h * (D1 * k1[i] + D3 * k3[i] + D4 * k4[i] + D5 * k5[i] + D6 * k6[i] + D7 * k7[i])
    return 0


@njit(**HELPER)
def _interpolate(x, y, stages):
    """Leave in ``stages[Y_TRIAL]`` the state at ``t + x h``, 0 ≤ x ≤ 1, in a step from ``y``."""
    f0, f1, f2, f3 = stages[DENSE], stages[DENSE + 1], stages[DENSE + 2], stages[DENSE + 3]
    u = 1.0 - x
    for i in range(y.size):
        stages[Y_TRIAL, i] = y[i] + x * (f0[i] + u * (f1[i] + x * (f2[i] + u * f3[i])))
