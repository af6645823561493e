"""Sixteen doubles as a number of compiled functions: each lane is what a scalar would be, NaN and infinity included."""

import math
import re

import numpy as np
import pytest
from numba import njit

from effdyn.solve.ensembles.sixteen import LANES, as_bits, in_all, in_sixteens, lowest_bit, where

OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e300, -1.0]


@njit(**OPTIONS)
def _each_operation(a, b, out):
    x, y, z = in_sixteens(a)[0], in_sixteens(b)[0], in_sixteens(out)
    z[0, 0], z[1, 0], z[2, 0], z[3, 0] = x + y, x - y, x * y, x / y
    z[4, 0], z[5, 0], z[6, 0], z[7, 0] = abs(x), math.sqrt(x), max(x, y), min(x, y)
    z[8, 0] = where((x < y) | ~(x <= 2.0), 1.0, 0.0)
    z[9, 0] = where((x > 0) & (x >= y), x, 2 * y)
    return as_bits(x < y)


@pytest.mark.parametrize("seed", range(3))
def test_every_lane_is_as_a_scalar(seed):
    rng = np.random.default_rng(seed)
    a, b, out = rng.normal(size=LANES), rng.normal(size=LANES), np.empty((10, LANES))
    a[rng.permutation(LANES)[: len(SPECIAL)]] = SPECIAL
    b[rng.permutation(LANES)[: len(SPECIAL)]] = SPECIAL
    bits = _each_operation(a, b, out)
    with np.errstate(all="ignore"):
        expected = [
            a + b, a - b, a * b, a / b, np.abs(a), np.sqrt(a), np.where(b > a, b, a), np.where(b < a, b, a),
            (a < b) | ~(a <= 2), np.where((a > 0) & (a >= b), a, 2 * b),
        ]  # fmt: skip
    np.testing.assert_array_equal(out, np.array(expected, dtype=float))  # each is one operation, rounded once
    assert bits == sum(1 << lane for lane in range(LANES) if a[lane] < b[lane])


@njit(**OPTIONS)
def _sum_of_squares(rows, out):
    x = in_sixteens(rows)
    total = 0.0  # becomes sixteen
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total += x[i, j] * x[i, j]
    in_sixteens(out)[0] = total + in_all(1)


def test_views_are_of_the_array_and_sums_begin_with_scalars():
    rows, out = np.random.default_rng(0).normal(size=(3, 5 * LANES)), np.empty(LANES)
    _sum_of_squares(rows, out)
    exact = 1 + (rows.reshape(15, LANES) ** 2).sum(axis=0)
    # 15 roundings of sums and 15 of products, each half an ulp of at most the result
    assert (abs(out - exact) <= 15 * np.finfo(float).eps * exact).all()


@njit(**OPTIONS)
def _bits_in_order(bits, found):
    count = 0
    while bits != 0:
        found[count] = lowest_bit(bits)
        bits &= bits - 1
        count += 1
    return count


def test_bits_are_met_from_the_lowest_on():
    found = np.zeros(LANES, dtype=np.int64)
    count = _bits_in_order(0b1000_0000_0010_1001, found)
    assert found[:count].tolist() == [0, 3, 5, 15]


def test_there_are_no_loops_over_lanes_left():
    """Whatever the processor, its vector instructions do the arithmetic: none on single doubles."""
    _each_operation(np.ones(LANES), np.ones(LANES), np.empty((10, LANES)))
    (text,) = _each_operation.inspect_llvm().values()
    lines = [line for line in text.splitlines() if re.search(r" = f(add|sub|mul|div) ", line)]
    assert len(lines) >= 4
    assert all(f"<{LANES} x double>" in line for line in lines)
