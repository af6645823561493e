"""Elementary functions for loops over nodes: within their stated ulp of mpmath, NaN passed on, without calls inside."""

import math

import mpmath
import numpy as np
import pytest
from numba import njit

from effdyn.solve.elementary import NODE_FUNCTIONS
from effdyn.solve.sources import paste

namespace: dict = {"math": math, "njit": njit}
exec(paste(NODE_FUNCTIONS.values()), namespace)


def loop_of(function):
    @njit(error_model="numpy")
    def loop(x, out):
        for n in range(x.size):
            out[n] = function(x[n])

    return loop


LOOPS = {name: loop_of(namespace[source]) for name, source in NODE_FUNCTIONS.items()}
BOUNDS = {"tanh": 3, "exp": 2, "erf": 3}


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
    with mpmath.workdps(40):
        exact = [getattr(mpmath, name)(mpmath.mpf(float(u))) for u in x]
        ulp = [float(abs(v - mpmath.mpf(float(e)))) for v, e in zip(exact, evaluated(name, x), strict=True)]
    spacing = np.spacing(np.abs(np.array([float(v) for v in exact])))
    assert np.max(np.array(ulp) / spacing) < BOUNDS[name]


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
