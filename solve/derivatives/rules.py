"""What each operation does to a value, and to its first and second derivatives along directions: all in this one place.

With u' the derivatives of u along some directions, and S_u the sum over them of second derivatives (that of a state is
what it is set to), y = f(u, v) has

    y' = f_u u' + f_v v',   S_y = f_u S_u + f_v S_v + f_uu u'·u' + 2 f_uv u'·v' + f_vv v'·v'.

So second derivatives are one number each, whatever the number of directions.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math
from typing import Any

from numba import njit

from ..ensembles.sixteen import sum_of_lanes
from ..integrators.dop853 import HELPER
from ..kernels.functions import ASIN

PLUS, MINUS, TIMES, QUOTIENT, SHIFTED, REVERSED, SCALED, INVERSE, POWER, ROOT, ARC_SINE, EXP, LOG, ERF, ERFC = range(15)
SIN, COS, TANH, ARC_TANGENT, ARC_COSINE, ABS = range(15, 21)

OF_TWO = {"+": PLUS, "-": MINUS, "*": TIMES, "/": QUOTIENT}
"""Kinds of operations on two values that depend on the states, by name."""
OF_CONSTANT = {"+": SHIFTED, "-": REVERSED, "*": SCALED, "/": INVERSE}
"""Kinds of operations on a constant and such a value, in this order."""
FUNCTIONS = {
    **{"math.sqrt": ROOT, "asin": ARC_SINE, "math.exp": EXP, "math.log": LOG, "math.erf": ERF, "math.erfc": ERFC},
    **{"math.sin": SIN, "math.cos": COS, "math.tanh": TANH, "math.atan": ARC_TANGENT, "math.acos": ARC_COSINE},
    "abs": ABS,
}
"""Kinds of functions of such a value, by how they stand in kernels."""
SLOPE_OF_ERF = 2 / math.sqrt(math.pi)


def _compiled(name: str, source: str) -> Any:
    """Return a function that kernels bring along as text."""
    names = {"math": math, "njit": njit}
    exec(compile(source, f"<{name}>", "exec"), names)
    return names[name]


asin = _compiled("asin", ASIN)


@njit(**HELPER)
def value_of(kind, x, y):
    """Return the value of an operation on two numbers that is linear in each, or the quotient."""
    if kind in (PLUS, SHIFTED):
        return x + y
    if kind in (MINUS, REVERSED):
        return x - y
    if kind == QUOTIENT:
        return x / y
    return x * y


@njit(**HELPER)
def function_of(kind, p, x):
    """Return the value of a function of x, and its first and second derivatives; p is its parameter, if it has one."""
    if kind == INVERSE:
        inverse = 1.0 / x
        value = p * inverse
        return value, -value * inverse, 2.0 * value * inverse * inverse
    if kind == POWER:
        if p == 2.0:
            return x * x, 2.0 * x, 2.0
        return x**p, p * x ** (p - 1.0), p * (p - 1.0) * x ** (p - 2.0)
    if kind == ROOT:
        value = math.sqrt(x)
        slope = 0.5 / value
        return value, slope, -0.5 * slope / x
    if kind == ARC_SINE:
        rest = 1.0 / (1.0 - x * x)
        slope = math.sqrt(rest)
        return asin(x), slope, x * slope * rest
    if kind == ARC_COSINE:
        rest = 1.0 / (1.0 - x * x)
        slope = -math.sqrt(rest)
        return math.acos(x), slope, x * slope * rest
    if kind == ARC_TANGENT:
        slope = 1.0 / (1.0 + x * x)
        return math.atan(x), slope, -2.0 * x * slope * slope
    if kind == EXP:
        value = math.exp(x)
        return value, value, value
    if kind == LOG:
        slope = 1.0 / x
        return math.log(x), slope, -slope * slope
    if kind in (ERF, ERFC):
        sign = 1.0 if kind == ERF else -1.0
        slope = sign * SLOPE_OF_ERF * math.exp(-x * x)
        return (math.erf(x) if kind == ERF else math.erfc(x)), slope, -2.0 * x * slope
    if kind in (SIN, COS):
        s, c = math.sin(x), math.cos(x)
        return (s, c, -s) if kind == SIN else (c, -s, -c)
    if kind == TANH:
        value = math.tanh(x)
        slope = 1.0 - value * value
        return value, slope, -2.0 * value * slope
    return abs(x), math.copysign(1.0, x), 0.0


@njit(**HELPER)
def of_two(kind, u, v, y, u1, v1, u2, v2):
    """Return y' and S_y of y = u + v, u − v, u v or u/v."""
    if kind == PLUS:
        return u1 + v1, u2 + v2
    if kind == MINUS:
        return u1 - v1, u2 - v2
    if kind == TIMES:
        return u * v1 + v * u1, u * v2 + v * u2 + 2.0 * sum_of_lanes(u1 * v1)
    inverse = 1.0 / v  # from y v = u
    y1 = inverse * (u1 - y * v1)
    return y1, inverse * (u2 - y * v2 - 2.0 * sum_of_lanes(y1 * v1))
