"""Escape times from a plateau: the predicted distribution on made-up amplitudes, in its limits, and on chains."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from scipy.special import polygamma

from effdyn import derive, solve, validate
from effdyn.derive.errors import ModelError
from effdyn.validate.escape_times import EscapeTimes, escape_times, passages

RATE = 2.0
T = np.linspace(0, 8, 401)


def logistic(t):
    """A path that leaves 0 as exp(RATE (t − 5)) and ends at 1."""
    return 1 / (1 + np.exp(-RATE * (t - 5)))


def theory_of(mean, variance):
    """To order 1/d, with d = 1, what follows from an amplitude 1 + ζ, ζ ~ N(mean, variance) small.

    f = F(t − τ), τ = −ln(1 + ζ)/λ: E τ = −(mean − variance/2)/λ, var τ = variance/λ².
    """
    curve = logistic(T)
    slope = RATE * curve * (1 - curve)
    bend = RATE * slope * (1 - 2 * curve)
    late, scatter = -(mean - variance / 2) / RATE, variance / RATE**2
    correction = -slope * late + bend * scatter / 2
    return xr.Dataset(
        {"f": ("t", curve), "f_variance": ("t", slope**2 * scatter), "f_mean_correction": ("t", correction)},
        coords={"t": T},
        attrs={"fluctuations": "to order 1/d", "initial": "exact"},
    )


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])  # where F'' is positive, zero and negative
@pytest.mark.parametrize("d", [1, 10])
def test_the_amplitude_is_found_whatever_the_threshold(threshold, d):
    found = escape_times(theory_of(0.3, 0.04), threshold, rate=RATE, d=d, name="f")
    # Splines of step 0.02 of a path with rate 2: second derivatives to (0.04)², relative to themselves.
    assert found.limit == pytest.approx(5 + np.log(threshold / (1 - threshold)) / RATE, abs=1e-6)
    assert found.spread == pytest.approx(0.2 / np.sqrt(d), rel=1e-4)
    assert found.drift == pytest.approx(0.3 / d, rel=5e-3)


@pytest.mark.parametrize(("drift", "spread"), [(0.0, 0.1), (0.1, 0.5), (-0.3, 2.0), (0.0, 1000.0)])
def test_distribution_is_that_of_the_logarithm(drift, spread, rng):
    predicted = EscapeTimes(limit=7.0, rate=RATE, drift=drift, spread=spread)
    zeta = drift + spread * rng.standard_normal(200_000)
    times = 7.0 - np.log(abs(1 + zeta)) / RATE
    # Kolmogorov's distribution has its 1e-6 quantile at 2.69/√n: 0.006.
    assert scipy.stats.kstest(times, predicted.cdf).pvalue > 1e-6
    q = np.array([0.001, 0.3, 0.999])
    np.testing.assert_allclose(predicted.cdf(predicted.quantile(q)), q, rtol=1e-9)
    assert abs(times.mean() - predicted.mean) < 5 * times.std() / np.sqrt(times.size) + 1e-3 * predicted.sd
    assert times.std() == pytest.approx(
        predicted.sd, rel=0.03
    )  # fourth moments of up to 14: 5 √(13/4n) = 2 %, and tails


def test_limits_are_normal_and_a_random_start():
    narrow = EscapeTimes(limit=7.0, rate=RATE, drift=0.0, spread=1e-3)
    assert narrow.sd == pytest.approx(1e-3 / RATE, rel=1e-3) and narrow.mean == pytest.approx(7.0, abs=1e-6)
    wide = EscapeTimes(limit=7.0, rate=RATE, drift=0.0, spread=1e6)
    # ½ ln χ²₁ has variance ψ′(1/2)/4 = π²/8. Its tail to the right is cut by 4096 quantiles: 0.2 % of the variance.
    assert wide.sd == pytest.approx(np.sqrt(polygamma(1, 0.5)) / (2 * RATE), rel=2e-3)


def test_passages_are_interpolated(rng):
    t = np.linspace(0, 10, 11)
    late = rng.uniform(1, 9, (5, 2))
    values = np.clip(0.5 + (late[..., None] - t) / 20, 0, 1)  # straight: exact between times
    runs = xr.Dataset({"eg": (("run", "d", "t"), values)}, coords={"t": t, "d": [10, 20]})
    found = passages(runs, 0.5)
    assert found.dims == ("run", "d")
    np.testing.assert_allclose(found, late, rtol=1e-12)
    assert np.isnan(passages(runs, 2.0)).all()


def test_bad_input_is_named():
    theory = theory_of(0.0, 1.0)
    for changes, argument in (
        (dict(theory=theory[["f"]].drop_attrs()), "theory"),
        (dict(name="R"), "name"),
        (dict(rate=0.0), "rate"),
        (dict(threshold=2.0), "threshold"),
    ):
        with pytest.raises(ModelError) as caught:
            escape_times(**(dict(theory=theory, threshold=0.5, rate=RATE, d=1, name="f") | changes))
        assert caught.value.argument == argument
    with pytest.raises(ModelError) as caught:
        passages(xr.Dataset({"eg": ("t", T)}, coords={"t": T}), 0.5)
    assert caught.value.argument == "simulation"


# ── Chains ──

ERF = derive.TeacherStudent(activation="erf")
PARAMS = dict(eta=1.0, sigma=0.0, T=np.eye(2), a=1.0, b=1.0)


def check_chains(d, runs, least):
    """The noise is 1.5 times what the start has of the growing amplitude, at any d: far from linear."""
    dynamics, start = ERF.dynamics(), dict(Q=0.2 * np.eye(2), R=0.005 * np.sqrt(500 / d) * np.eye(2))
    theory = solve.integrate(
        dynamics.fluctuations(), (0, 120), t_eval=np.linspace(0, 120, 241), y0=start, params=PARAMS
    )
    rate = float(solve.plateau(dynamics, start, PARAMS)["rate"])
    how = dict(d=d, runs=runs, t_span=(0, 240), t_eval=np.linspace(0, 240, 241), align=False, progress=False)
    times = passages(validate.simulate(ERF, y0=start, params=PARAMS, rng=1, **how), 0.012).values
    times = np.where(np.isnan(times), 1e6, times)  # later than all, which is all that ranks need
    predicted = escape_times(theory, 0.012, rate=rate, d=d)
    assert 1.3 < predicted.spread < 1.7
    assert scipy.stats.kstest(times, predicted.cdf).pvalue > 1e-4
    # What would have been seen: a linear theory of the times, half the noise, and no noise before the exit.
    linear = scipy.stats.norm(predicted.limit, predicted.spread / rate).cdf
    half = EscapeTimes(predicted.limit, rate, predicted.drift, predicted.spread / 2).cdf
    for wrong in (linear, half):
        assert scipy.stats.kstest(times, wrong).pvalue < least


def test_chains_escape_when_predicted():
    check_chains(200, 60, 0.2)


@pytest.mark.slow
def test_many_chains_escape_when_predicted():
    check_chains(500, 600, 1e-4)
