"""DOPRI5 against its order conditions, exact solutions and SciPy, in the loop that it shares with DOP853."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.integrate._ivp.rk import RK45 as SCIPYS  # the witness of the tableau

from effdyn.solve.integrators import dopri5
from effdyn.solve.integrators.dop853 import Status
from effdyn.solve.integrators.other_methods import DOPRI5, RADAU5, source_of
from effdyn.solve.integrators.trajectory import compute_trajectory

RING = np.linspace(0.5, 1.2, 7)
NONE = ()  # no parameters


def exact_explicit_time(t):
    return np.stack([np.exp(np.sin(t)), 1 / (1 + t**2 / 2)], axis=-1)


def test_tableau_is_scipys():
    """To the last digit of each, since both are written as fractions."""
    for i, row in enumerate(SCIPYS.A[1:], start=2):
        for j, a in enumerate(row[: i - 1], start=1):
            assert getattr(dopri5, f"A{i}_{j}") == a
    # SciPy's RK45 has this pair, with the opposite sign of the error.
    assert [getattr(dopri5, f"B{i}") for i in (1, 3, 4, 5, 6)] == [SCIPYS.B[i - 1] for i in (1, 3, 4, 5, 6)]
    assert [-getattr(dopri5, f"E{i}") for i in (1, 3, 4, 5, 6, 7)] == [SCIPYS.E[i - 1] for i in (1, 3, 4, 5, 6, 7)]
    assert [getattr(dopri5, f"C{i}") for i in (2, 3, 4, 5)] == list(SCIPYS.C[1:5])


def fixed_steps(rhs, method, steps, t1=4.0):
    """Tolerances that accept everything: the step stays what max_step allows."""
    options = {"rtol": 1e-3, "atol": 1e9, "first_step": t1 / steps, "max_step": t1 / steps, "method": method}
    result = compute_trajectory(rhs.address, [1.0, 1.0], (0.0, t1), NONE, 0, **options)
    assert (result.n_steps, result.n_rejected) == (steps, 0)
    return result


def fitted_order(h, error):
    assert error.min() > 1e-13, "rounding would spoil the fit"
    return np.polyfit(np.log(h), np.log(error), 1)[0]


def test_convergence_is_of_order_5(explicit_time):
    steps = np.array([40, 60, 80, 120, 160])
    error = np.array([abs(fixed_steps(explicit_time, DOPRI5, n).y[-1] - exact_explicit_time(4.0)).max() for n in steps])
    assert fitted_order(1 / steps, error) == pytest.approx(5, abs=0.3)  # the next term of the error still shows


def test_interpolant_is_of_order_4(explicit_time):
    """Order 4 means an error of h⁵ within a step; it is measured on the first step, where there is no other."""
    h, x = 0.5 ** np.arange(2.5, 4.6, 0.5), np.linspace(0.1, 0.9, 9)
    error = []
    for step in h:
        options = {"first_step": step, "max_step": step, "rtol": 1.0, "atol": 1e9, "t_eval": 0.3 + x * step}
        y0 = exact_explicit_time(0.3)
        result = compute_trajectory(explicit_time.address, y0, (0.3, 0.3 + step), NONE, 0, method=DOPRI5, **options)
        assert result.n_steps == 1
        error.append(abs(result.y - exact_explicit_time(result.t)).max())
    assert fitted_order(h, np.array(error)) == pytest.approx(4 + 1, abs=0.4)


@pytest.mark.parametrize("span", [(0.0, 10.0), (10.0, 0.0)])
def test_errors_follow_the_tolerance(ring, span):
    exact = {"rtol": 1e-13, "atol": 1e-13}
    start = compute_trajectory(ring.address, RING, (0, 10), NONE, 0, **exact).y[-1] if span[0] else RING
    times = np.linspace(*span, 21)
    reference = compute_trajectory(ring.address, start, span, NONE, 0, t_eval=times, **exact).y
    for rtol in (1e-3, 1e-5, 1e-7):
        r = compute_trajectory(ring.address, start, span, NONE, 0, rtol=rtol, atol=rtol, t_eval=times, method=DOPRI5)
        assert r.status is Status.SUCCESS and r.n_rhs == 2 + 6 * (r.n_steps + r.n_rejected)
        # rtol in each of some tens of steps; backwards, -y³ amplifies by up to e^(0.15 · 10 · y²).
        assert abs(r.y - reference).max() < (50 if span[0] == 0 else 500) * rtol


def test_it_is_cheaper_than_dop853_at_low_accuracy_only(ring):
    """Calls that reach a given error at given output times, each method at the tolerance that gives it."""
    times = np.linspace(0, 10, 101)
    reference = compute_trajectory(ring.address, RING, (0, 10), NONE, 0, rtol=1e-13, atol=1e-13, t_eval=times).y

    def calls(method, error):
        runs = [
            compute_trajectory(ring.address, RING, (0, 10), NONE, 0, rtol=r, atol=r, t_eval=times, method=method)
            for r in 10.0 ** -np.arange(1, 11, 0.25)
        ]
        return min(r.n_rhs for r in runs if abs(r.y - reference).max() <= error)

    assert calls(DOPRI5, 1e-3) < calls(None, 1e-3)
    assert calls(DOPRI5, 1e-8) > calls(None, 1e-8)


def test_events_are_found(compiled, oscillator):
    @compiled
    def events(t, y, g, par, work):
        g[0] = y[0]

    r = compute_trajectory(
        oscillator.address, [0.0, 1.0], (0.0, 10.0), NONE, 0, rtol=1e-9, atol=1e-9, method=DOPRI5,
        events_address=events.address, event_directions=[-1], event_terminal=[False],
    )  # fmt: skip
    # A hundred steps of 1e-9 each; the interpolant of order 4 is as accurate at this length of steps, up to a factor.
    np.testing.assert_allclose(r.t_event, [np.pi, 3 * np.pi], atol=1e-6)


def test_nan_in_a_trial_step_only_shrinks_it(root):
    options = {"rtol": 1e-8, "atol": 1e-12, "first_step": 5.0, "method": DOPRI5}
    r = compute_trajectory(root.address, [1.0], (0.0, 1.9), NONE, 0, **options)
    assert r.status is Status.SUCCESS and r.n_rejected > 0
    np.testing.assert_allclose(r.y[-1, 0], (1 - 1.9 / 2) ** 2, atol=1e-6)
    past = compute_trajectory(root.address, [1.0], (0.0, 3.0), NONE, 0, **options)
    assert past.status is Status.NOT_FINITE and past.t[-1] == pytest.approx(2, abs=1e-3)


def test_source_is_the_same_in_every_process():
    code = (
        "from effdyn.solve.integrators.other_methods import *; import hashlib;"
        "print(hashlib.sha256((source_of(dopri5) + source_of(radau) + source_of(adams)).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert "EXPONENT = 0.17" in source_of(dopri5)  # its own, not that of DOP853


def test_methods_say_how_much_room_they_need():
    assert DOPRI5.rows(5) == dopri5.N_STAGE_ROWS == dopri5.DENSE + dopri5.N_DENSE
    assert RADAU5.rows(5) == RADAU5.rows(0) + 5  # the Jacobian
