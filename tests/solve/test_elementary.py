"""Elementary functions for loops over nodes: within their stated ulp of mpmath, NaN passed on, without calls inside."""

import math

import mpmath
import numpy as np
import pytest
from numba import njit

from effdyn.solve.kernels.elementary import NODE_FUNCTIONS
from effdyn.solve.kernels.functions import LIBRARY
from effdyn.solve.kernels.sources import paste

namespace: dict = {"math": math, "njit": njit}
exec(paste(NODE_FUNCTIONS.values()), namespace)


def loop_of(function):
    @njit(error_model="numpy")
    def loop(x, out):
        for n in range(x.size):
            out[n] = function(x[n])

    return loop


LOOPS = {name: loop_of(namespace[source]) for name, source in NODE_FUNCTIONS.items()}
BOUNDS = {"tanh": 3, "exp": 2, "erf": 3, "log": 2}


SUBNORMAL = np.concatenate([2.0 ** np.arange(-1074, -1021), np.linspace(3e-324, 2.3e-308, 60)])
NEAR_ONE = 1 + 2.0**-53 * np.arange(-60, 61)
EDGES = {
    "tanh": np.concatenate([SUBNORMAL, -SUBNORMAL, NEAR_ONE, -NEAR_ONE, 20 + 4e-15 * np.arange(-30, 31)]),
    "erf": np.concatenate([SUBNORMAL, -SUBNORMAL, NEAR_ONE, -NEAR_ONE, 6 + 1e-15 * np.arange(-30, 31)]),
    "exp": np.concatenate(
        [SUBNORMAL, -SUBNORMAL, NEAR_ONE, np.linspace(-745.1, -706.9, 400), 709.78 + 1e-13 * np.arange(-30, 27)]
    ),
    "log": np.concatenate([SUBNORMAL, NEAR_ONE, [1.7976931348623157e308, 2.2250738585072014e-308]]),
}
"""Where one expression gives way to another, digits are few, or results vanish or overflow."""


def evaluated(name, x):
    out = np.empty_like(x)
    LOOPS[name](x, out)
    return out


@pytest.mark.parametrize("name", LOOPS)
def test_accuracy(name, rng):
    tiny = 10.0 ** rng.uniform(-300, 0, 500) * rng.choice([-1.0, 1.0], 500)
    x = np.concatenate([rng.normal(size=2000), rng.uniform(-25, 25, 1000), rng.uniform(-1.1, 1.1, 1000), tiny])
    if name == "exp":
        x = np.concatenate([x, rng.uniform(-707, 709.7, 1000)])
    if name == "log":
        near_one = np.concatenate([1 + rng.uniform(-1e-3, 1e-3, 500), 1 + 2.0**-52 * np.arange(-50, 50)])
        turns = 2.0 ** rng.integers(-1000, 1000, 500) * math.sqrt(0.5) * (1 + 2.0**-52 * rng.integers(-3, 4, 500))
        x = np.concatenate([np.abs(x), near_one, turns, 2.0 ** rng.uniform(-1074, -1022, 200)])
        x = x[x > 0]
    error = ulps(getattr(mpmath, name), x, evaluated(name, x))
    assert np.max(error) < BOUNDS[name], x[np.argmax(error)]


@pytest.mark.parametrize("name", LOOPS)
def test_accuracy_at_the_edges_of_the_domain(name):
    error = ulps(getattr(mpmath, name), EDGES[name], evaluated(name, EDGES[name]))
    assert np.max(error) < BOUNDS[name], EDGES[name][np.argmax(error)]


def ulps(function, x, values):
    """Return the errors in units of the last digit of the exact values, those of subnormal ones included."""
    with mpmath.workdps(60):
        exact = [function(mpmath.mpf(float(u))) for u in x]
        error = [float(abs(v - mpmath.mpf(float(e)))) for v, e in zip(exact, values, strict=True)]
    return np.array(error) / np.spacing(np.abs(np.array([float(v) for v in exact])))


@pytest.mark.parametrize(
    ("name", "limits"), [("tanh", (-1.0, 1.0)), ("erf", (-1.0, 1.0)), ("exp", (0.0, math.inf))], ids=str
)
def test_special_values(name, limits):
    x = np.array([-math.inf, -1e6, 1e6, math.inf, math.nan, 0.0])
    result = evaluated(name, x)
    assert np.array_equal(result[:2], [limits[0]] * 2)
    assert np.array_equal(result[2:4], [limits[1]] * 2)
    assert math.isnan(result[4])
    assert result[5] == (name == "exp")


@pytest.mark.parametrize("name", LOOPS)
def test_loops_become_simd_instructions(name):
    """What is worth a function of one's own is only its speed: a call or a branch inside would take it away."""
    evaluated(name, np.zeros(8))
    (text,) = LOOPS[name].inspect_llvm().values()
    body = text[text.index("define") :]
    body = body[: body.index("\n}")]
    assert " x double>" in body, "not vectorised"
    assert f"@{name}" not in body


def test_special_values_of_the_logarithm():
    x = np.array([0.0, -0.0, -5e-324, -1.0, -math.inf, math.nan, math.inf, 1.0])
    expected = [-math.inf, -math.inf, math.nan, math.nan, math.nan, math.nan, math.inf, 0.0]
    assert np.array_equal(evaluated("log", x), expected, equal_nan=True)


LIBRARY_BOUND = 4
"""What is promised of every function that kernels call; LLVM takes the C library's, which is better: 1 ulp on glibc."""


@pytest.mark.parametrize("name", ["exp", "log", "erf", "erfc", "tanh", "sin", "cos", "acos", "atan"])
def test_the_functions_of_pythons_math_in_kernels(name, rng):
    """As kernels compile them, over all of what is finite (sines: as far as fields go, with their zeros)."""
    domains = {
        "exp": rng.uniform(-708, 709.7, 1000),
        "log": 10.0 ** rng.uniform(-307, 308, 1000),
        "erfc": rng.uniform(-6, 26, 1000),
        "acos": np.concatenate([rng.uniform(-1, 1, 1000), 1 - 10.0 ** -rng.uniform(1, 15, 300)]),
    }
    tiny = 10.0 ** rng.uniform(-300, 0, 300) * rng.choice([-1.0, 1.0], 300)
    x = domains.get(name, np.concatenate([rng.uniform(-30, 30, 1000), tiny, math.pi / 2 * np.arange(1, 40)]))
    compiled = loop_of(njit(eval(f"lambda x: {LIBRARY[name]}(x)", {"math": math})))
    out = np.empty_like(x)
    compiled(x, out)
    assert np.max(ulps(getattr(mpmath, name), x, out)) < LIBRARY_BOUND


def test_the_list_of_pythons_functions_is_the_whole_one():
    tested = {"exp", "log", "erf", "erfc", "tanh", "sin", "cos", "acos", "atan"}
    assert set(LIBRARY) - tested == {"Abs"}, "a function without a test of its accuracy"


def test_the_imaginary_error_function(rng):
    """Over all of what is finite: 26.6 is where it overflows."""
    own: dict = {"math": math, "njit": njit}
    exec(paste(["erfi"]), own)
    x = np.concatenate([SUBNORMAL, NEAR_ONE, 7 + 1e-14 * np.arange(-9, 10), rng.uniform(-26.6, 26.6, 400)])
    out = np.empty_like(x)
    compiled = loop_of(own["erfi"])
    compiled(x, out)
    assert np.max(ulps(mpmath.erfi, x, out)) < 45  # 40 is promised; of terms of one sign, some 100 are added up
    ends = np.array([-math.inf, -30.0, 30.0, math.inf, math.nan])
    compiled(ends, ends)
    assert np.array_equal(ends, [-math.inf, -math.inf, math.inf, math.inf, math.nan], equal_nan=True)
