"""The special functions that kernels bring along, against mpmath: to the last few digits, NaN outside the domain."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from effdyn.solve.cache import load_generated
from effdyn.solve.functions import SOURCES

MEASURED = 2.5
"""Above the largest error found, 2.33 ulp at 0.5068, in 2·10⁸ arguments compared with the 80-bit arc sine."""
PROMISED = 4.0


@pytest.fixture(scope="module")
def asin():
    """The arc sine as kernels compile it, on arrays: in a loop, so that it is LLVM's SIMD version that is tested."""
    source = f"""import math

import numpy as np
from numba import njit

{SOURCES["asin"]}

@njit(cache=True, error_model="numpy", fastmath={{"reassoc", "contract", "nsz", "arcp"}})
def evaluate(x):
    out = np.empty_like(x)
    for n in range(len(x)):
        out[n] = asin(x[n])
    return out
"""
    return load_generated("asin_alone", source).evaluate


def ulps(values, arguments):
    """The error against mpmath at 40 digits, in units of the last place of the exact result."""
    with mpmath.workdps(40):
        exact = [mpmath.asin(mpmath.mpf(float(x))) for x in arguments]
        spacing = [math.ulp(float(e)) for e in exact]
        return np.array([float(abs(v - e) / s) for v, e, s in zip(map(float, values), exact, spacing, strict=True)])


def neighbours(point, count=40):
    """The floats around a point, on both sides."""
    above, below = [point], [point]
    for _ in range(count):
        above.append(math.nextafter(above[-1], math.inf))
        below.append(math.nextafter(below[-1], -math.inf))
    return np.array([x for x in (*below[::-1], *above[1:]) if abs(x) <= 1])


def test_asin_everywhere(asin, rng):
    scales = rng.uniform(-1, 1, 4000)
    tiny = np.copysign(10.0 ** rng.uniform(-320, -1, 2000), rng.uniform(-1, 1, 2000))
    near_one = np.copysign(1 - 10.0 ** rng.uniform(-16, -1, 3000), rng.uniform(-1, 1, 3000))
    x = np.concatenate([scales, tiny, near_one])
    assert ulps(asin(x), x).max() <= PROMISED


@pytest.mark.parametrize("point", [0.5, -0.5, 1.0, -1.0, 0.0, math.sqrt(0.5), 2.0**-511, 2.0**-1022])
def test_asin_around_boundaries(asin, point):
    x = neighbours(point)
    assert ulps(asin(x), x).max() <= PROMISED


def test_asin_at_its_exact_values(asin):
    x = np.array([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.0**-1022, 1e-300])
    expected = np.array([0.0, -0.0, math.pi / 2, -math.pi / 2, 5e-324, -5e-324, 2.0**-1022, 1e-300])
    assert np.array_equal(asin(x), expected)


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, 1e300, -2.0, 1 + 2.0**-52, -1 - 2.0**-52])
def test_asin_is_nan_outside_its_domain(asin, x):
    assert np.isnan(asin(np.full(17, x))).all()  # 17: the SIMD body and the remainder


@settings(max_examples=500)
@example(0.5)
@example(math.nextafter(0.5, 1))
@example(math.nextafter(1, 0))
@given(st.floats(-1, 1))
def test_asin_is_odd_bounded_and_right(asin, x):
    value, mirrored = asin(np.array([x, -x]))
    assert mirrored == -value
    assert abs(value) <= math.pi / 2
    assert ulps([value], [x]).max() <= PROMISED


def test_asin_is_monotone_up_to_its_error(asin, rng):
    """Where the argument grows by more than the error, so does the value: no jump where the two branches meet."""
    x = np.sort(np.concatenate([neighbours(0.5, 2000), neighbours(-0.5, 2000), rng.uniform(-1, 1, 20_000)]))
    value = asin(x)
    assert (np.diff(value) >= -PROMISED * np.spacing(np.abs(value[1:]))).all()


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="needs an 80-bit long double")
def test_the_largest_error_of_asin_is_as_measured(asin, rng):
    x = np.concatenate([rng.uniform(-1, 1, 10_000_000), rng.uniform(0.49, 0.52, 10_000_000)])
    exact = np.arcsin(x.astype(np.longdouble))
    error = np.abs((asin(x) - exact) / np.spacing(np.abs(exact.astype(float)))).astype(float)
    worst = x[np.argsort(error)[-20:]]
    confirmed = ulps(asin(worst), worst)  # mpmath has the last word
    assert confirmed.max() <= MEASURED
    assert confirmed.max() > MEASURED / 2, "the measured error is out of date"
