"""DOP853 against its order conditions, exact solutions and SciPy."""

import _thread
import ctypes
import importlib
import itertools
import math
import os
import re
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.integrate._ivp import dop853_coefficients as scipys  # the witness; the package itself does not import it
from scipy.linalg import expm

from effdyn.solve.integrators import dop853_tableau, trajectory
from effdyn.solve.integrators.dop853 import Status
from effdyn.solve.integrators.trajectory import compute_trajectory

module = importlib.import_module("effdyn.solve.integrators.dop853")

NONE = ()  # no parameters
RING = np.linspace(0.5, 1.2, 7)  # a start for ``ring``


def compiled(function):
    pointer = numba.types.CPointer(numba.float64)
    return numba.cfunc(numba.void(numba.float64, pointer, pointer, pointer, pointer), error_model="numpy")(function)


@compiled
def oscillator(t, y, dy, par, work):
    dy[0] = y[1]
    dy[1] = -y[0]


@compiled
def linear(t, y, dy, par, work):
    """y' = A y in 3 dimensions with A in par, by way of the workspace, so that the whole interface is used."""
    for i in range(3):
        work[i] = 0.0
        for j in range(3):
            work[i] += par[3 * i + j] * y[j]
    for i in range(3):
        dy[i] = work[i]


@compiled
def explicit_time(t, y, dy, par, work):
    """Solved by exp(sin t) and 1 / (1 + t²/2)."""
    dy[0] = y[0] * math.cos(t)
    dy[1] = -t * y[1] * y[1]


@compiled
def kepler(t, y, dy, par, work):
    r3 = (y[0] * y[0] + y[1] * y[1]) ** 1.5
    dy[0] = y[2]
    dy[1] = y[3]
    dy[2] = -y[0] / r3
    dy[3] = -y[1] / r3


@compiled
def arenstorf(t, y, dy, par, work):
    mu = 0.012277471
    nu = 1 - mu
    d1 = ((y[0] + mu) ** 2 + y[1] ** 2) ** 1.5
    d2 = ((y[0] - nu) ** 2 + y[1] ** 2) ** 1.5
    dy[0] = y[2]
    dy[1] = y[3]
    dy[2] = y[0] + 2 * y[3] - nu * (y[0] + mu) / d1 - mu * (y[0] - nu) / d2
    dy[3] = y[1] - 2 * y[2] - nu * y[1] / d1 - mu * y[1] / d2


@compiled
def ring(t, y, dy, par, work):
    """Seven nonlinear oscillators: as many variables as order parameters at K = M = 2."""
    for i in range(7):
        dy[i] = (y[(i + 1) % 7] - y[(i + 6) % 7]) * (1 + 0.1 * y[i]) - 0.05 * y[i] ** 3


@compiled
def root(t, y, dy, par, work):
    """Solved by (1 - t/2)² until t = 2, where the domain ends: any longer step meets the root of a negative number."""
    dy[0] = -math.sqrt(y[0])


@compiled
def square(t, y, dy, par, work):
    """Solved by 1 / (1 - t)."""
    dy[0] = y[0] * y[0]


@compiled
def slow(t, y, dy, par, work):
    """About a millisecond: with 12 evaluations, a step takes some 10 ms."""
    x = 0.0
    for i in range(100_000):
        x = math.sin(x + i)
    dy[0] = -y[0] + 1e-30 * x


@compiled
def oscillator_events(t, y, g, par, work):
    g[0] = y[0]
    g[1] = y[0] - 0.5
    g[2] = y[1]


@compiled
def clock_event(t, y, g, par, work):
    g[0] = t - 1.2345678901234567
    g[1] = math.expm1(30 * (t - 0.7))  # steep: a secant alone would creep


# ------------------------------------------------------------------------------------------ tableau


def table():
    """A (16, 16), C (16,), B, E3, E5 (16,), D (4, 16), from the names in dop853_tableau."""
    a, c, b, e3, e5, d = np.zeros((16, 16)), np.zeros(16), np.zeros(16), np.zeros(16), np.zeros(16), np.zeros((4, 16))
    for name, value in vars(dop853_tableau).items():
        if match := re.fullmatch(r"([ABCDE])(\d+)(?:_(\d+))?", name):
            letter, i, j = match[1], int(match[2]), int(match[3] or 0)
            if letter == "A":
                a[i - 1, j - 1] = value
            elif letter == "B":
                b[i - 1] = value
            elif letter == "C":
                c[i - 1] = value
            elif letter == "D":
                d[i - 4, j - 1] = value
            else:
                {3: e3, 5: e5}[i][j - 1] = value
    a[12], c[12] = b, 1.0  # stage 13 is the derivative at the new point
    return a, c, b, e3, e5, d


def test_tableau_is_scipys():
    a, c, b, e3, e5, d = table()
    c[11] = 1.0  # stage 12 is at t + h, which the code writes without a coefficient
    assert np.array_equal(a, scipys.A) and np.array_equal(c, scipys.C) and np.array_equal(b[:12], scipys.B)
    assert np.array_equal(e3[:13], scipys.E3) and np.array_equal(e5[:13], scipys.E5) and np.array_equal(d, scipys.D)


def trees(order):
    """Rooted trees with ``order`` vertices, each the sorted tuple of the trees on its root."""
    found = set()
    for sizes in itertools.chain.from_iterable(
        itertools.combinations_with_replacement(range(1, order), k) for k in range(order)
    ):
        if sum(sizes) == order - 1:
            found.update(tuple(sorted(branches)) for branches in itertools.product(*map(trees, sizes)))
    return sorted(found)


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * math.prod(map(density, tree))


def elementary_weight(tree, a):
    return math.prod((a @ elementary_weight(branch, a) for branch in tree), start=np.ones(len(a)))


def order_of(weights, a, x=1.0, highest=9):
    """Highest order whose conditions Σ b Φ(τ) γ(τ) = x^|τ| hold for all trees τ. Source: HNW II.2, Theorem 2.13."""
    for order in range(1, highest + 1):
        for tree in trees(order):
            # 3000 ulp: the sums have terms up to 40 (A16, D) and up to eight factors a, each rounded.
            if abs(weights @ elementary_weight(tree, a) * density(tree) - x**order) > 3000 * 2.2e-16:
                return order - 1
    return highest


def test_the_trees_are_all_there():
    assert [len(trees(order)) for order in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


def test_order_conditions():
    a, _, b, e3, e5, _ = table()
    c = table()[1]
    c[11] = 1.0
    np.testing.assert_allclose(a.sum(1), c, rtol=0, atol=1e-14)  # 16 terms up to 40, rounded
    assert order_of(b, a) == 8
    assert order_of(b - e5, a) == 5
    assert order_of(b - e3, a) == 3


@pytest.mark.parametrize("x", [0.1, 0.3, 0.5, 0.9])
def test_order_conditions_of_the_interpolant(x):
    a, _, b, _, _, d = table()
    first, last = np.eye(16)[0], np.eye(16)[12]
    f = [b, first - b, 2 * b - first - last, *d]
    weights, u = np.zeros(16), 1 - x
    for i in range(6, -1, -1):
        weights = (weights + f[i]) * (u if i % 2 else x)
    assert order_of(weights, a, x) == 7


# ------------------------------------------------------------------------------------------ convergence


def fixed_steps(steps, t1=4.0, **options):
    """Tolerances that accept everything: the step stays what max_step allows."""
    h = t1 / steps
    result = compute_trajectory(
        explicit_time.address, [1.0, 1.0], (0.0, t1), NONE, 0, rtol=1.0, atol=1e9, first_step=h, max_step=h, **options
    )
    assert (result.n_steps, result.n_rejected) == (steps, 0)
    return result


def exact_explicit_time(t):
    return np.stack([np.exp(np.sin(t)), 1 / (1 + t**2 / 2)], axis=-1)


def fitted_order(h, error):
    assert error.min() > 1e-14, "rounding would spoil the fit"
    return np.polyfit(np.log(h), np.log(error), 1)[0]


def test_convergence_is_of_order_8():
    steps = np.array([12, 16, 20, 24, 32])
    error = np.array([abs(fixed_steps(n).y[-1] - exact_explicit_time(4.0)).max() for n in steps])
    assert fitted_order(1 / steps, error) == pytest.approx(8, abs=0.3)  # the next term of the error still shows


def test_interpolant_is_of_order_7():
    """Order 7 means an error of h⁸ within a step; it is measured on the first step, where there is no other."""
    h, x = 0.5 ** np.arange(0.5, 2.6, 0.5), np.linspace(0.1, 0.9, 9)
    error = []
    for step in h:
        options = {"first_step": step, "max_step": step, "rtol": 1.0, "atol": 1e9, "t_eval": 0.3 + x * step}
        y0 = exact_explicit_time(0.3)
        result = compute_trajectory(explicit_time.address, y0, (0.3, 0.3 + step), NONE, 0, **options)
        assert result.n_steps == 1
        error.append(abs(result.y - exact_explicit_time(result.t)).max())
    assert fitted_order(h, np.array(error)) == pytest.approx(7 + 1, abs=0.4)


# ------------------------------------------------------------------------------------------ accuracy


@pytest.mark.parametrize("span", [(0.0, 5.0), (5.0, 0.0), (-3.0, 1.0)])
@pytest.mark.parametrize("rtol", [1e-6, 1e-9, 1e-12])
def test_linear_system(span, rtol):
    matrix = np.array([[-0.1, 2.0, 0.0], [-2.0, -0.1, 0.3], [0.2, 0.0, -0.5]])
    y0 = np.array([1.0, -0.5, 2.0])
    times = np.linspace(*span, 37)
    result = compute_trajectory(linear.address, y0, span, matrix.ravel(), 3, rtol=rtol, atol=rtol, t_eval=times)
    exact = np.array([expm((t - span[0]) * matrix) @ y0 for t in times])
    assert result.status is Status.SUCCESS and np.array_equal(result.t, times)
    # Each step may err by rtol, and there are a few tens of them; backwards the solution grows, and errors with it.
    assert (abs(result.y - exact) < 30 * rtol * max(1, abs(exact).max())).all()


def test_kepler_orbit():
    e, rtol = 0.6, 1e-12
    times = np.linspace(0, 20, 100)
    anomaly = times.copy()
    for _ in range(60):
        anomaly -= (anomaly - e * np.sin(anomaly) - times) / (1 - e * np.cos(anomaly))
    exact = np.stack([np.cos(anomaly) - e, math.sqrt(1 - e**2) * np.sin(anomaly)], axis=1)
    y0 = [1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e))]
    result = compute_trajectory(kepler.address, y0, (0, 20), NONE, 0, rtol=rtol, atol=rtol, t_eval=times)
    assert (abs(result.y[:, :2] - exact) < 1e3 * rtol).all()  # the phase error grows with t² (three revolutions)


def test_arenstorf_orbit_closes():
    period, y0 = 17.0652165601579625588917206249, [0.994, 0.0, 0.0, -2.00158510637908252240537862224]  # HNW II.0 (0.2)
    for rtol in (1e-7, 1e-9, 1e-11):
        result = compute_trajectory(arenstorf.address, y0, (0, period), NONE, 0, rtol=rtol, atol=rtol)
        assert result.n_rejected > 0  # the fly-by at the Moon is what the step control is tested on
        assert (abs(result.y[-1, :2] - y0[:2]) < 300 * rtol).all()  # the fly-by amplifies errors about a hundredfold


def test_agrees_with_scipy():
    """SciPy at its tightest tolerance is the reference; at the same tolerance ours costs as much as SciPy's."""
    span, rtol = (0.0, 10.0), 1e-9
    times = np.linspace(*span, 50)

    def rhs(t, y):
        dy = np.empty(7)
        ring.ctypes(t, *(numba_pointer(array) for array in (y, dy, dy, dy)))
        return dy

    reference = solve_ivp(rhs, span, RING, "DOP853", times, rtol=1e-13, atol=1e-13).y.T
    theirs = solve_ivp(rhs, span, RING, "DOP853", times, rtol=rtol, atol=rtol)
    ours = compute_trajectory(ring.address, RING, span, NONE, 0, rtol=rtol, atol=rtol, t_eval=times)
    assert (abs(ours.y - reference) < 30 * rtol).all()  # a few tens of steps, each allowed rtol
    assert ours.n_rhs == pytest.approx(theirs.nfev, rel=0.15)  # the controllers differ a little


def numba_pointer(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def test_there_and_back():
    options = {"rtol": 1e-11, "atol": 1e-11}
    there = compute_trajectory(ring.address, RING, (0, 5), NONE, 0, **options)
    back = compute_trajectory(ring.address, there.y[-1], (5, 0), NONE, 0, **options)
    assert (np.diff(back.t) < 0).all()
    np.testing.assert_allclose(back.y[-1], RING, rtol=0, atol=3e-9)  # a few hundred rtol: backwards, -y³ amplifies


# ------------------------------------------------------------------------------------------ output


def test_own_steps_include_both_ends():
    result = compute_trajectory(oscillator.address, [0.0, 1.0], (1.0, 200.0), NONE, 0, rtol=1e-9, atol=1e-9)
    assert result.t[0] == 1.0 and result.t[-1] == 200.0 and np.array_equal(result.y[0], [0.0, 1.0])
    assert len(result.t) == result.n_steps + 1 > 128  # the buffer has grown twice
    assert result.n_rhs == 2 + 12 * result.n_steps + 11 * result.n_rejected
    np.testing.assert_allclose(result.y[:, 0], np.sin(result.t - 1), rtol=0, atol=1e-6)  # 1e-9 in each of 400 steps


def test_output_times_do_not_change_the_steps():
    options = {"rtol": 1e-8, "atol": 1e-8}
    free = compute_trajectory(ring.address, RING, (0, 6), NONE, 0, **options)
    asked = compute_trajectory(ring.address, RING, (0, 6), NONE, 0, t_eval=[0.0, 0.0, 1.0, 6.0], **options)
    assert asked.n_steps == free.n_steps and np.array_equal(asked.y[-1], free.y[-1])
    assert np.array_equal(asked.y[0], asked.y[1])
    assert asked.n_rhs == free.n_rhs + 3  # one step has an output inside


def test_max_step_and_first_step():
    result = compute_trajectory(
        oscillator.address, [0.0, 1.0], (0, 3), NONE, 0, rtol=1e-4, atol=1e-4, max_step=0.25, first_step=0.01
    )
    assert np.diff(result.t)[0] == pytest.approx(0.01, rel=1e-14) and np.diff(result.t).max() <= 0.25 * 1.01


# ------------------------------------------------------------------------------------------ status


def test_step_limit():
    result = compute_trajectory(ring.address, RING, (0, 100), NONE, 0, rtol=1e-8, atol=1e-8, max_steps=11)
    assert result.status is Status.STEP_LIMIT and result.n_steps + result.n_rejected == 11
    assert len(result.t) == result.n_steps + 1 and np.isfinite(result.y).all()


@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 2, 101)])
def test_singularity_makes_the_step_too_small(t_eval):
    result = compute_trajectory(square.address, [1.0], (0, 2), NONE, 0, rtol=1e-10, atol=1e-10, t_eval=t_eval)
    assert result.status is Status.STEP_TOO_SMALL
    assert 0.97 < result.t[-1] < 1 + 1e-6
    kept = result.t < 0.995
    # An error of rtol in y moves the singularity by as much: amplified by y = 200 at the worst.
    np.testing.assert_allclose(result.y[kept, 0], 1 / (1 - result.t[kept]), rtol=1e-7)


@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 3, 301)])
def test_end_of_the_domain_is_reported_not_crossed(t_eval):
    result = compute_trajectory(root.address, [1.0], (0, 3), NONE, 0, rtol=1e-9, atol=1e-9, t_eval=t_eval)
    assert result.status is Status.NOT_FINITE
    assert np.isfinite(result.y).all() and (result.y >= 0).all()
    assert 1.98 < result.t[-1] < 2.001  # y falls below atol 1e-4 before the end
    np.testing.assert_allclose(result.y[:, 0], (1 - result.t / 2) ** 2, rtol=0, atol=1e-7)


def test_nan_in_a_trial_step_only_shrinks_it():
    result = compute_trajectory(root.address, [1.0], (0, 1.9), NONE, 0, rtol=1e-9, atol=1e-9, first_step=1.9)
    assert result.status is Status.SUCCESS and result.n_rejected > 0
    assert result.y[-1, 0] == pytest.approx(0.05**2, abs=1e-7)


def test_right_hand_side_not_finite_at_the_start():
    result = compute_trajectory(root.address, [-1.0], (0, 1), NONE, 0, rtol=1e-9, atol=1e-9)
    assert result.status is Status.NOT_FINITE and result.n_steps == 0 and len(result.t) == 0


def test_wall_limit():
    started = time.perf_counter()
    result = compute_trajectory(slow.address, [1.0], (0, 1e6), NONE, 0, rtol=1e-9, atol=1e-9, wall_limit=0.1)
    assert result.status is Status.WALL_LIMIT and not result.interrupted and result.n_steps > 0
    assert time.perf_counter() - started < 2  # 0.1 s and a step; the rest is for a busy machine


def test_ctrl_c_keeps_what_was_computed():
    compute_trajectory(
        slow.address, [1.0], (0, 1e-9), NONE, 0, rtol=1e-9, atol=1e-9
    )  # compiled, so that the time is the loop's
    timer = threading.Timer(0.3, _thread.interrupt_main)
    started = time.perf_counter()
    timer.start()
    result = compute_trajectory(slow.address, [1.0], (0, 1e6), NONE, 0, rtol=1e-9, atol=1e-9)
    assert result.interrupted and result.status is Status.RUNNING
    assert time.perf_counter() - started < 2  # 0.3 s and 0.1 s; the rest is for a busy machine
    assert len(result.t) == result.n_steps + 1 and np.isfinite(result.y).all()


def test_progress():
    seen = []
    compute_trajectory(slow.address, [1.0], (0, 5), NONE, 0, rtol=1e-12, atol=1e-12, on_progress=seen.append)
    assert len(seen) > 1 and seen == sorted(seen) and 0 < seen[-1] < 5


# ------------------------------------------------------------------------------------------ events


def with_events(span, directions, terminal=(False, False, False), **options):
    options = {"rtol": 1e-12, "atol": 1e-12, **options}
    y0 = [math.sin(span[0]), math.cos(span[0])]
    return compute_trajectory(
        oscillator.address, y0, span, NONE, 0, events_address=oscillator_events.address,
        event_directions=directions, event_terminal=terminal, **options,
    )  # fmt: skip


def expected_events(t0, t1, directions):
    """For y = sin t: the zeros of sin t, sin t - 1/2 and cos t in (t0, t1], by direction."""
    pi, found = math.pi, []
    for k in range(-10, 11):
        zeros = [(0, 1, 2 * pi * k), (0, -1, pi + 2 * pi * k), (1, 1, pi / 6 + 2 * pi * k)]
        zeros += [(1, -1, 5 * pi / 6 + 2 * pi * k), (2, -1, pi / 2 + 2 * pi * k), (2, 1, -pi / 2 + 2 * pi * k)]
        forward = 1 if t1 > t0 else -1
        found += [(t, i) for i, sign, t in zeros if directions[i] in (0, sign * forward) and t0 < t * forward <= t1]
    return sorted(found)


@pytest.mark.parametrize("directions", [(0, 0, 0), (1, 1, 1), (-1, -1, -1), (0, 1, -1)])
@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 12, 25)])
def test_events(directions, t_eval):
    result = with_events((0.0, 12.0), directions, t_eval=t_eval)
    times, indices = np.array(expected_events(0.0, 12.0, directions)).T  # y(0) = 0 is no event
    assert result.status is Status.SUCCESS and np.array_equal(result.i_event, indices)
    np.testing.assert_allclose(result.t_event, times, rtol=0, atol=1e-10)  # 30 steps of 1e-12
    exact = np.stack([np.sin(times), np.cos(times)], axis=1)
    np.testing.assert_allclose(result.y_event, exact, rtol=0, atol=1e-10)


def test_events_backwards():
    """Directions are those met on the way: backwards in t, sin falls where it rises."""
    result = with_events((0.0, -9.0), (1, 0, 0))
    rising = result.t_event[result.i_event == 0]
    np.testing.assert_allclose(rising, [-math.pi], rtol=0, atol=1e-10)  # as above
    assert (np.diff(result.t_event) < 0).all()
    np.testing.assert_allclose(result.y_event[:, 0], np.sin(result.t_event), rtol=0, atol=1e-10)


@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 12, 25)])
def test_terminal_event_ends_the_integration(t_eval):
    result = with_events((0.0, 12.0), (-1, 1, 0), terminal=(True, False, False), t_eval=t_eval)
    assert result.status is Status.EVENT
    assert result.i_event.tolist() == [1, 2, 0]  # at π/6, π/2 and π
    assert result.t[-1] == result.t_event[-1] == pytest.approx(math.pi, abs=1e-11)  # a dozen steps of 1e-12
    assert np.array_equal(result.y[-1], result.y_event[-1])
    assert (np.diff(result.t) > 0).all()
    if t_eval is not None:
        assert np.array_equal(result.t[:-1], t_eval[t_eval < math.pi])


def test_root_of_an_event_is_found_to_the_last_digits():
    """The event depends on t alone, so that the solution's error does not enter."""
    result = compute_trajectory(
        oscillator.address, [0.0, 1.0], (0, 3), NONE, 0, rtol=1e-3, atol=1e-3,
        events_address=clock_event.address, event_directions=(0, 0), event_terminal=(False, False),
    )  # fmt: skip
    assert result.i_event.tolist() == [1, 0]
    np.testing.assert_allclose(result.t_event, [0.7, 1.2345678901234567], rtol=0, atol=4 * np.spacing(2.0))


# ------------------------------------------------------------------------------------------ slices


@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 40, 301)])
def test_slices_of_one_step_give_the_same_bits(monkeypatch, t_eval):
    whole = with_events((0.0, 40.0), (0, 0, 0), t_eval=t_eval)
    assert len(whole.t_event) > 32  # its buffer has grown, too
    monkeypatch.setattr(trajectory, "SLICE_SECONDS", 0.0)
    slices = []
    sliced = with_events((0.0, 40.0), (0, 0, 0), t_eval=t_eval, on_progress=slices.append)
    assert len(slices) == sliced.n_steps + sliced.n_rejected - 1
    for name in ("t", "y", "t_event", "y_event", "i_event", "n_steps", "n_rejected", "n_rhs", "status"):
        assert np.array_equal(getattr(whole, name), getattr(sliced, name)), name


def test_compiled_once_per_machine():
    """A second process loads the integrator from the disk, and importing the module alone does not even do that."""
    module.compiled_advance(False)
    program = (
        "import importlib; m = importlib.import_module('effdyn.solve.integrators.dop853');"
        "assert m.compiled_advance.cache_info().currsize == 0;"
        "s = m.compiled_advance(False).stats; print(sum(s.cache_hits.values()), sum(s.cache_misses.values()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["1", "0"]


# ------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rtol": 1e-14}, r"rtol=1e-14; accepted is 1e-13 or more"),
        ({"rtol": math.nan}, r"rtol=nan"),
        ({"atol": 0.0}, r"atol=0.0; accepted are positive"),
        ({"atol": [1e-9] * 3}, r"atol has shape \(3,\)"),
        ({"t_eval": [0.0, math.nan, 1.0]}, r"t_eval has entries that are not finite"),
        ({"t_eval": [0.0, 0.5, 0.4]}, r"t_eval reads .* in the order of integration"),
        ({"t_eval": [0.0, 2.0]}, r"t_eval reads .* within t_span, from 0.0 to 1.0"),
        ({"t_eval": [-0.1, 1.0]}, r"t_eval reads .* within t_span"),
        ({"t_eval": [[0.0, 1.0]]}, r"t_eval has shape \(1, 2\)"),
        ({"t_eval": []}, r"t_eval has shape \(0,\)"),
        ({"y0": [[1.0, 0.0]]}, r"y0 has shape \(1, 2\)"),
        ({"y0": [1.0, math.inf]}, r"y0 has shape \(2,\) and reads .*inf"),
        ({"par": [[1.0]]}, r"par has shape \(1, 1\)"),
        ({"t_span": (1.0, 1.0)}, r"t_span=\(1.0, 1.0\); accepted are two different"),
        ({"max_step": 0.0}, r"max_step=0.0"),
        ({"first_step": -1.0}, r"first_step=-1.0"),
        ({"rhs_address": 0}, r"rhs_address=0"),
        ({"event_directions": (0,)}, r"event_directions has 1 entries and event_terminal 0"),
        ({"event_directions": (0,), "event_terminal": (True,)}, r"events_address=0 with 1"),
        ({"event_directions": (2,), "event_terminal": (True,), "events_address": 1}, r"event_directions=\(2,\)"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(wrong, says):
    arguments = {"rhs_address": oscillator.address, "y0": [0.0, 1.0], "t_span": (0.0, 1.0), "par": NONE, "n_work": 0}
    with pytest.raises(ValueError, match=says):
        compute_trajectory(**{**arguments, "rtol": 1e-9, "atol": 1e-9, **wrong})


def test_arguments_are_left_alone():
    y0, par = np.array([1.0, -0.5, 2.0]), np.arange(9.0)
    y0.flags.writeable = par.flags.writeable = False
    compute_trajectory(linear.address, y0, (0, 0.1), par, 3, rtol=1e-9, atol=1e-9)
    assert y0.tolist() == [1.0, -0.5, 2.0] and np.array_equal(par, np.arange(9.0))
