"""Adams against its formulas at equal steps, polynomials, exact solutions and SciPy, in the loop shared with DOP853."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.integrate import odeint

from effdyn import derive, solve
from effdyn.solve.integrators import adams, trajectory
from effdyn.solve.integrators.dop853 import Status
from effdyn.solve.integrators.other_methods import ADAMS
from effdyn.solve.integrators.trajectory import compute_trajectory

RING = np.linspace(0.5, 1.2, 7)
NONE = ()  # no parameters


# ------------------------------------------------------------------------------------------ the method


def weights(lengths):
    """The tables for the last of the steps, oldest first: as the compiled function, in Python."""
    x = np.zeros(adams.N_TABLES)
    before = np.cumsum(lengths[-2::-1])
    x[adams.PSI + 1 : adams.PSI + 1 + len(before)] = before
    k = len(lengths) - 2
    adams._weights.py_func(x, k, lengths[-1])
    return k, *(x[table + 1 : table + k + 2] for table in (adams.G, adams.BETAS, adams.SIGMA))


def test_equal_steps_give_adams_and_bashforths_formulas():
    """Source: Hairer, Nørsett & Wanner I, III.1, Tables 1.1 and 1.2."""
    _, g, beta, sigma = weights(np.full(8, 0.3))
    bashforth = [1, 1 / 2, 5 / 12, 3 / 8, 251 / 720, 95 / 288, 19087 / 60480]
    np.testing.assert_allclose(g, bashforth, rtol=1e-14)  # ten operations each
    np.testing.assert_allclose(beta, 1, rtol=1e-14)
    np.testing.assert_allclose(sigma, 1, rtol=1e-14)
    moulton = [1, Fraction(1, 2), Fraction(1, 12), Fraction(1, 24), Fraction(19, 720), Fraction(3, 160)]
    np.testing.assert_allclose(adams.MOULTON[:6], np.array(moulton, dtype=float), rtol=1e-13)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_unequal_steps_integrate_polynomials_exactly(k):
    """Weights of the φ*, which are built here from Newton's divided differences of a polynomial of degree k."""
    rng = np.random.default_rng(5)
    lengths = rng.uniform(0.5, 1.5, k + 2) / (k + 2)
    order, g, beta, _ = weights(lengths)
    assert order == k
    now = -lengths[-1]  # the step ends at 0; points before it, latest first
    points = now - np.concatenate([[0.0], np.cumsum(lengths[-2::-1])])[: k + 1]
    f = Polynomial(rng.standard_normal(k + 1))
    differences, phi = f(points), []
    for i in range(k + 1):
        phi.append(differences[0] * np.prod(now - points[1 : i + 1]))
        differences = np.diff(differences) / (points[i + 1 :] - points[: k - i])
    exact = f.integ()(0.0) - f.integ()(now)
    # k + 1 points integrate degree k; differences of order 12 lose up to three digits.
    assert lengths[-1] * (g * beta) @ phi == pytest.approx(exact, rel=1e-11, abs=1e-11)


@pytest.fixture(scope="module")
def late(compiled):
    @compiled
    def rhs(t, y, dy, par, work):
        """Solved by exp(exp(t)), which begins so flat at t = -36 that the first orders leave no error there."""
        dy[0] = math.exp(t) * y[0]

    return rhs


@pytest.mark.parametrize("order", range(1, 13))
def test_convergence_at_fixed_order_and_step(late, order):
    """The corrector, and so the solution, is of one order more than the predictor."""
    times = np.linspace(-1, 0, 17)
    h, end = [], []
    for steps in np.geomspace(200, 600 if order > 8 else 1200, 9).astype(int):
        options = {"first_step": 36 / steps, "max_step": 36 / steps, "rtol": 1e-3, "atol": 1e9, "t_eval": times}
        r = compute_trajectory(
            late.address, [math.exp(math.exp(-36))], (-36.0, 0.0), NONE, 0,
            method=replace(ADAMS, highest_order=order), **options,
        )  # fmt: skip
        assert (r.n_steps, r.n_rejected, r.n_rhs) == (steps, 0, 1 + 2 * steps)
        error = abs(r.y[:, 0] - np.exp(np.exp(times)))
        h.append(36 / steps)
        end.append(error[-1])
        assert error.max() < 5 * error[-1]  # at most five times what the steps have: the interpolant is of their order
    assert min(end) > 1e-12, "rounding would spoil the fit"
    h = np.array(h)  # high orders converge late: the slope is that at h = 0 of a parabola
    terms = np.stack([np.log(h), np.ones_like(h), h, h**2], axis=1)
    slope = np.linalg.lstsq(terms, np.log(end), rcond=None)[0][0]
    assert slope == pytest.approx(order + 1, abs=0.25)


# ------------------------------------------------------------------------------------------ in its loop


@pytest.mark.parametrize("span", [(0.0, 10.0), (10.0, 0.0)])
def test_errors_follow_the_tolerance(ring, span):
    exact = {"rtol": 1e-13, "atol": 1e-13}
    start = compute_trajectory(ring.address, RING, (0, 10), NONE, 0, **exact).y[-1] if span[0] else RING
    times = np.linspace(*span, 201)
    reference = compute_trajectory(ring.address, start, span, NONE, 0, t_eval=times, **exact).y
    for rtol in (1e-3, 1e-6, 1e-9, 1e-12):
        r = compute_trajectory(ring.address, start, span, NONE, 0, rtol=rtol, atol=rtol, t_eval=times, method=ADAMS)
        assert r.status is Status.SUCCESS and r.n_rhs == 2 + 2 * r.n_steps + r.n_rejected
        # rtol in each of some tens of steps; backwards, -y³ amplifies by up to e^(0.15 · 10 · y²).
        assert abs(r.y - reference).max() < (50 if span[0] == 0 else 500) * rtol


def test_it_takes_fewer_calls_than_dop853_and_no_more_than_odeint_at_equal_error(ring):
    times = np.linspace(0, 100, 201)
    reference = compute_trajectory(ring.address, RING, (0, 100), NONE, 0, rtol=1e-13, atol=1e-13, t_eval=times).y

    def theirs(t, y):
        return (np.roll(y, -1) - np.roll(y, 1)) * (1 + 0.1 * y) - 0.05 * y**3

    def curve(run):
        found = [run(rtol) for rtol in 10.0 ** -np.arange(4, 12, 0.5)]
        return np.array([(abs(y - reference).max(), calls) for y, calls in found])

    def ours(rtol, method):
        r = compute_trajectory(ring.address, RING, (0, 100), NONE, 0, rtol=rtol, atol=rtol, t_eval=times, method=method)
        return r.y, r.n_rhs

    def scipys(rtol):
        y, facts = odeint(theirs, RING, times, tfirst=True, rtol=rtol, atol=rtol, full_output=True, mxstep=5000)
        return y, facts["nfe"][-1]

    adams_, dop853_, odeint_ = curve(lambda r: ours(r, ADAMS)), curve(lambda r: ours(r, None)), curve(scipys)
    for error in (1e-5, 1e-7, 1e-9):
        calls = [c[c[:, 0] <= error, 1].min() for c in (adams_, dop853_, odeint_)]
        assert calls[0] < 0.8 * calls[1] and calls[0] < 1.1 * calls[2]  # tolerances are half decades apart: 10 %


def test_output_times_and_slices_do_not_change_the_steps(ring, monkeypatch):
    given = (ring.address, RING, (0.0, 40.0), NONE, 0)
    options = {"rtol": 1e-8, "atol": 1e-8, "method": ADAMS}
    steps = compute_trajectory(*given, **options)
    at = compute_trajectory(*given, t_eval=np.linspace(0, 40, 301), **options)
    assert (at.n_steps, at.n_rhs) == (steps.n_steps, steps.n_rhs)
    assert np.array_equal(at.y[-1], steps.y[-1])
    own = compute_trajectory(*given, t_eval=steps.t, **options)  # at a step the interpolant is the step
    assert np.array_equal(own.y, steps.y)
    monkeypatch.setattr(trajectory, "SLICE_SECONDS", 0.0)
    sliced = compute_trajectory(*given, **options)
    assert np.array_equal(sliced.t, steps.t) and np.array_equal(sliced.y, steps.y)


@pytest.mark.parametrize("t_eval", [None, np.linspace(0, 10, 7)])
def test_events_are_found(compiled, oscillator, t_eval):
    @compiled
    def events(t, y, g, par, work):
        g[0] = y[0]

    options = {"rtol": 1e-11, "atol": 1e-11, "method": ADAMS, "t_eval": t_eval, "events_address": events.address}
    given = (oscillator.address, [0.0, 1.0], (0.0, 10.0), NONE, 0)
    r = compute_trajectory(*given, event_directions=[-1], event_terminal=[False], **options)
    # A hundred steps of 1e-11 each; the interpolant is as accurate as the steps.
    np.testing.assert_allclose(r.t_event, [np.pi, 3 * np.pi], atol=1e-8)
    first = compute_trajectory(*given, event_directions=[-1], event_terminal=[True], **options)
    assert first.status is Status.EVENT
    np.testing.assert_allclose([first.t[-1], first.y[-1, 1]], [np.pi, -1], atol=1e-8)


def test_nan_in_a_trial_step_only_shrinks_it(root):
    options = {"rtol": 1e-8, "atol": 1e-12, "first_step": 5.0, "method": ADAMS}
    r = compute_trajectory(root.address, [1.0], (0.0, 1.9), NONE, 0, **options)
    assert r.status is Status.SUCCESS and r.n_rejected > 0
    np.testing.assert_allclose(r.y[-1, 0], (1 - 1.9 / 2) ** 2, atol=1e-6)
    past = compute_trajectory(root.address, [1.0], (0.0, 3.0), NONE, 0, **options)
    assert past.status is Status.NOT_FINITE and past.t[-1] == pytest.approx(2, abs=1e-3)


def test_kinks_only_cost_steps(compiled):
    @compiled
    def sawtooth(t, y, dy, par, work):
        """y' = ±1 by the second: at its kinks, no difference of order two or more means anything."""
        dy[0] = 1.0 if math.floor(t) % 2 == 0 else -1.0

    r = compute_trajectory(
        sawtooth.address, [0.0], (0.0, 9.5), NONE, 0, rtol=1e-9, atol=1e-9, method=ADAMS, max_steps=5000
    )
    assert r.status is Status.SUCCESS
    exact = 1 - abs(1 - r.t % 2)
    assert abs(r.y[:, 0] - exact).max() < 100 * 1e-9  # a few tolerances at each of nine kinks


def test_any_number_of_components(compiled):
    """The tables stand behind the differences, in as many rows as that takes."""

    @compiled
    def decay(t, y, dy, par, work):
        for i in range(int(par[0])):
            dy[i] = -y[i] * (1.0 + i / par[0])

    for n in (1, 2, 108, 109, 110, 300):
        r = compute_trajectory(decay.address, np.ones(n), (0.0, 2.0), [n], 0, rtol=1e-10, atol=1e-12, method=ADAMS)
        np.testing.assert_allclose(r.y[-1], np.exp(-2 * (1 + np.arange(n) / n)), atol=1e-8)


# ------------------------------------------------------------------------------------------ through solve.integrate

ERF = derive.TeacherStudent(activation="erf").dynamics()
START = {"Q": [[0.5, 0.1], [0.1, 0.6]], "R": [[0.3, 0.02], [0.05, 0.25]]}
PARAMS = {"eta": 1.0, "sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}


def test_agrees_with_dop853_and_odeint():
    times = np.linspace(0, 50, 26)
    sol = solve.integrate(ERF, (0, 50), START, PARAMS, t_eval=times, method="Adams", rtol=1e-10, atol=1e-12)
    assert sol.attrs["method"] == "Adams" and sol.attrs["status"] == "success"
    for method in ("DOP853", "scipy:odeint"):
        other = solve.integrate(ERF, (0, 50), START, PARAMS, t_eval=times, method=method)
        for name in ("Q", "R", "eg"):  # a local tolerance of 1e-10; an escape amplifies by about 100
            np.testing.assert_allclose(sol[name], other[name], atol=1e-7, err_msg=f"{method} {name}")


def test_limits_and_events():
    event = solve.Event("eg - 0.02", terminal=True, direction=-1)
    sol = solve.integrate(ERF, (0, 100), START, PARAMS, events=[event], method="Adams")
    ours = solve.integrate(ERF, (0, 100), START, PARAMS, events=[event])
    assert sol.attrs["status"] == "event"
    assert float(sol.t_event[0]) == pytest.approx(float(ours.t_event[0]), abs=1e-6)
    with pytest.raises(solve.StepLimit) as stopped:
        solve.integrate(ERF, (0, 100), START, PARAMS, method="Adams", max_steps=20)
    assert stopped.value.partial.sizes["t"] > 10
