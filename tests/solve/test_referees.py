"""Other people's integrators keep to the limits that ``solve.integrate`` is given, and say rightly why they stop."""

import time
import warnings

import numpy as np
import pytest
import sympy

from effdyn import derive, solve
from effdyn.derive.dynamics import Equation
from effdyn.solve.integrators.referees import REFEREES

X, Y = derive.Quantity("x"), derive.Quantity("y")
EXPLOSION = derive.Dynamics("x' = x²", "ode", "t", (Equation(X, X.symbol**2),))  # 1/(1 - t) from x = 1
CIRCLE = derive.Dynamics("circle", "ode", "t", (Equation(X, Y.symbol), Equation(Y, -sympy.sympify(X.symbol))))
START = {"x": 1.0, "y": 0.0}
METHODS = [m for m in REFEREES if not m.startswith("heyoka")]


@pytest.fixture(params=METHODS)
def method(request):
    if request.param.startswith("cyrk"):
        pytest.importorskip("CyRK")
    return request.param


@pytest.mark.parametrize("times", [None, [0.5, 0.9, 1.5, 2.5]])
def test_a_pole_is_a_divergence_and_no_lack_of_steps(method, times):
    """Warnings are errors here, so that none of the libraries' own leaks."""
    with pytest.raises(solve.Diverged) as stopped:
        solve.integrate(EXPLOSION, (0, 3), {"x": 1.0}, {}, method=method, t_eval=times, rtol=1e-8, atol=1e-10)
    assert stopped.value.t < 1 + 1e-5  # an error of 1e-8 a step in x moves the pole by that; over 300 steps
    partial = stopped.value.partial
    early = partial.t.values < 0.95
    # d log x/dt0 = 1/(1 - t) ≤ 20 up to there, times the 3e-6 by which the pole may have moved
    np.testing.assert_allclose(partial.x.values[early], 1 / (1 - partial.t.values[early]), rtol=1e-4)
    if times:
        assert partial.t.values.tolist() == [0.5, 0.9]


def test_the_number_of_steps_is_limited(method):
    loose = {"rtol": 1e-5, "atol": 1e-7}
    whole = solve.integrate(CIRCLE, (0, 20), START, {}, method=method, **loose)
    with pytest.raises(solve.StepLimit) as stopped:
        solve.integrate(CIRCLE, (0, 20), START, {}, method=method, **loose, max_steps=3)
    if method != "scipy:odeint":  # which saves 101 times; its steps in between are not to be had
        assert stopped.value.partial.sizes["t"] == 4
        np.testing.assert_array_equal(stopped.value.partial.t, whole.t[:4])
    assert whole.attrs["status"] == "success" and whole.attrs["n_steps"] > 3
    enough = solve.integrate(CIRCLE, (0, 20), START, {}, method=method, **loose, max_steps=whole.attrs["n_steps"])
    np.testing.assert_array_equal(enough.x, whole.x)
    with pytest.raises(solve.StepLimit):
        solve.integrate(CIRCLE, (0, 20), START, {}, method=method, **loose, max_steps=whole.attrs["n_steps"] - 1)


def test_the_clock_is_looked_at(method):
    """To t = 1e7 they would take minutes at least."""
    began = time.monotonic()
    with pytest.raises(solve.WallLimit):
        solve.integrate(CIRCLE, (0, 1e7), START, {}, method=method, t_eval=[1.0, 1e7], wall_limit=0.05, max_steps=10**9)
    assert time.monotonic() - began < 10  # it stops within a step; the rest is for a busy machine


def test_odeint_takes_steps_no_longer_than_asked():
    given = (CIRCLE, (0, 1), START, {})
    free = solve.integrate(*given, method="scipy:odeint", rtol=1e-4, atol=1e-4)
    short = solve.integrate(*given, method="scipy:odeint", rtol=1e-4, atol=1e-4, max_step=0.002)
    assert short.attrs["n_steps"] >= 500 > free.attrs["n_steps"]


def test_heyoka_refuses_limits_that_it_does_not_have():
    for limit in ({"max_steps": 3}, {"wall_limit": 1.0}):
        with pytest.raises(derive.ModelError, match="heyoka") as refused:
            solve.integrate(CIRCLE, (0, 1), START, {}, method="heyoka:taylor", **limit)
        assert refused.value.argument == next(iter(limit))


def test_no_warning_of_scipys_leaks():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with pytest.raises(solve.StepLimit, match="raise max_steps"):
            solve.integrate(CIRCLE, (0, 1000), START, {}, method="scipy:odeint", max_steps=50, t_eval=[1.0, 1000.0])
    assert not found
