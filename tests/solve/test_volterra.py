"""Volterra equations: closed solutions, the differential equations that they come from, and the stated error."""

import json

import numpy as np
import pytest
import sympy

from effdyn import solve
from effdyn.derive import Dynamics, Equation, ModelError, NotYet, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.derive.regression import LinearRegression
from effdyn.solve.volterra import gauss, lagrange

LAM, P, C = np.array([2.0, 1.0, 0.3]), np.array([0.2, 0.3, 0.5]), np.array([0.5, 1.0, 0.7])
PARAMS = dict(lam=LAM, p=P, eta=0.7, sigma=0.5)
PSI, S = sympy.Function("psi"), sympy.Symbol("s", nonnegative=True)
TIMES = np.linspace(0, 20, 41)


def equation(right, *parameters):
    return Dynamics("test", "volterra", "t", (Equation(Quantity("psi"), right),), parameters)


def solved(right, stop=20.0, times=None, **options):
    return solve.integrate(equation(right), (0, stop), {}, {}, t_eval=times, **options)


@pytest.mark.parametrize(
    "right, exact",
    [
        (1 + sympy.Integral(sympy.exp(S - TIME) * PSI(S) / 2, (S, 0, TIME)), lambda t: 2 - np.exp(-t / 2)),
        (TIME + sympy.Integral((S - TIME) * PSI(S), (S, 0, TIME)), np.sin),  # second derivative: psi'' = -psi
        (sympy.exp(-TIME) + sympy.Integral(PSI(S), (S, 0, TIME)), np.cosh),
        (sympy.Integral(PSI(S) + 1, (S, 0, TIME)), np.expm1),
    ],
)
def test_equations_with_known_solutions(right, exact):
    found = solved(right, 8.0, np.linspace(0, 8, 33))
    # atol + rtol |psi|, times 10 for what grows on the way
    assert (abs(found.psi - exact(found.t)) <= 1e-11 + 1e-9 * abs(exact(found.t))).all()


@pytest.mark.parametrize("rtol", [1e-4, 1e-7, 1e-10])
def test_rtol_is_kept_and_the_error_is_stated(rtol):
    right = 1 + sympy.Integral(sympy.cos(3 * (TIME - S)) * PSI(S) / 2, (S, 0, TIME))
    coarse, tight = (solved(right, 30.0, TIMES, rtol=tolerance, atol=1e-14) for tolerance in (rtol, 1e-13))
    error = abs(coarse.psi - tight.psi)
    assert (error <= rtol * abs(tight.psi) + 1e-12).all()
    assert float(error.max()) <= max(json.loads(coarse.attrs["numerical_error"])["psi"]) + 1e-12
    assert tight.attrs["panels"] > coarse.attrs["panels"] or rtol < 1e-9


def test_the_order_is_high():
    """Halving the panels divides the error by far more than 2⁸."""
    from effdyn.solve.evaluate import Rules, Scope
    from effdyn.solve.volterra import _Problem, parts

    right = 1 + sympy.Integral(sympy.cos(3 * (TIME - S)) * PSI(S) / 2, (S, 0, TIME))
    problem = _Problem(parts(right, "psi"), Scope({}), 30.0)
    four, eight, fine = (problem.solve(panels, TIMES, Rules()) for panels in (6, 12, 96))
    assert abs(eight - fine).max() < abs(four - fine).max() / 2**10


def test_one_pass_sgd_by_the_differential_equation():
    model = LinearRegression("one-pass", "general")
    ode = solve.integrate(model.dynamics(), (0, 20), dict(c=C), PARAMS, t_eval=TIMES)
    volterra = solve.integrate(model.dynamics("volterra"), (0, 20), dict(c=C), PARAMS, t_eval=TIMES)
    assert float(abs(volterra.eg - ode.eg).max()) < 1e-10  # both are asked for 1e-10
    for name in ("loss", "stability", "eg_floor"):
        np.testing.assert_allclose(volterra[name], ode[name], rtol=1e-8)
    assert volterra.attrs["clock"] == ode.attrs["clock"] and volterra.attrs["parameters"] == ode.attrs["parameters"]


def test_multi_pass_sgd_by_the_differential_equation():
    model, params = LinearRegression("multi-pass", "general"), PARAMS | dict(r=0.5)
    start = dict(m=LAM * C + 0.5 * P * 0.5**2)
    ode = solve.integrate(model.dynamics("high-dimensional"), (0, 20), start, params, t_eval=TIMES)
    volterra = solve.integrate(model.dynamics(), (0, 20), dict(c=C), params, t_eval=TIMES)
    assert float(abs(volterra.train_loss - ode.train_loss).max()) < 1e-10


@pytest.mark.parametrize("r", [0.999, 0.9999, 1.001])
def test_isotropic_data_whose_spectrum_nearly_reaches_zero(r):
    """At t = 0, (c + sigma²)/2; later as at r = 1, up to what r changes by itself, which is a smooth function of it."""
    model, given = LinearRegression("multi-pass").dynamics(), dict(eta=0.6, sigma=0.5)
    near, at, far = (
        solve.integrate(model, (0, 4), dict(c=1.3), given | dict(r=ratio), t_eval=[0, 2, 4]).train_loss.values
        for ratio in (r, 1.0, 2 * r - 1)
    )
    assert near[0] == pytest.approx((1.3 + 0.25) / 2, rel=1e-12)
    # twice the change for twice the distance, up to a curvature of order 1 in r
    np.testing.assert_allclose(far - at, 2 * (near - at), atol=10 * (r - 1) ** 2 + 1e-9)


def test_a_rule_that_is_not_fine_enough_is_reported(monkeypatch):
    from effdyn.solve import volterra

    monkeypatch.setattr(volterra, "MOST_NODES", 32)
    model, given = LinearRegression("multi-pass").dynamics(), dict(eta=0.6, sigma=0.5, r=1 - 1e-12)
    with pytest.warns(RuntimeWarning, match="integrals in its equation"):
        rough = solve.integrate(model, (0, 20), dict(c=1.3), given, t_eval=TIMES)
    monkeypatch.undo()
    fine = solve.integrate(model, (0, 20), dict(c=1.3), given, t_eval=TIMES)
    error = float(abs(rough.train_loss - fine.train_loss).max())
    assert 1e-10 < error <= max(json.loads(rough.attrs["numerical_error"])["train_loss"])


def test_divergence_is_reported_with_the_last_valid_state():
    """psi = e^(20 t), which is beyond all numbers from t = 35.49 on; the error grows with t as 20 t times rounding."""
    right = 1 + sympy.Integral(20 * PSI(S), (S, 0, TIME))
    with pytest.raises(solve.Diverged, match="last valid state, at t = 35") as caught:
        solved(right, 60.0, np.arange(61.0))
    error = caught.value
    assert error.t == 35.0 and error.partial.t[-1] == 35.0
    assert error.state["psi"] == pytest.approx(np.exp(700.0), rel=1e-7)
    np.testing.assert_allclose(error.partial.psi, np.exp(20 * np.arange(36.0)), rtol=1e-7)


MULTI = LinearRegression("multi-pass", "general")


@pytest.mark.parametrize(
    "limit, y0, changes, named",
    [
        ("volterra", dict(c=C), dict(r=2.0), "params\\['lam'\\]"),
        ("high-dimensional", dict(m=C), dict(r=2.0), "params\\['lam'\\]"),
        ("volterra", dict(c=C), dict(p=[0.5, 0.5, 0.5]), "params\\['p'\\]"),
        ("volterra", dict(c=C), dict(r=0.0), "params\\['r'\\]"),
    ],
)
def test_spectra_that_no_data_have_are_refused(limit, y0, changes, named):
    with pytest.raises(ModelError, match=named):
        solve.integrate(MULTI.dynamics(limit), (0, 1), y0, PARAMS | dict(r=0.5) | changes)
    full = dict(r=2.0, lam=[1.0, 0.0], p=[0.5, 0.5])  # as many positive eigenvalues as examples
    solve.integrate(MULTI.dynamics(), (0, 1), dict(c=[1.0, 0.0]), PARAMS | full, t_eval=[0, 1])


@pytest.mark.parametrize("r", [0.4, 1.0, 2.5])
def test_isotropic_data_as_many_classes(r):
    """The law of Marchenko and Pastur against 400 classes at Gauss points of its own, written here."""
    theta = (np.arange(400) + 0.5) * np.pi / 400
    low, high = (1 - r**0.5) ** 2, (1 + r**0.5) ** 2
    lam = (low + high) / 2 + (high - low) / 2 * np.cos(theta)
    p = np.pi / 400 * ((high - low) / 2 * np.sin(theta)) ** 2 / (2 * np.pi * r * lam)
    given = dict(eta=0.6, sigma=0.5, r=r)
    law = solve.integrate(LinearRegression("multi-pass").dynamics(), (0, 20), dict(c=1.3), given, t_eval=TIMES)
    general, spectrum = LinearRegression("multi-pass", "general").dynamics(), dict(lam=lam, p=p)
    classes = solve.integrate(general, (0, 20), dict(c=1.3 * p), given | spectrum, t_eval=TIMES)
    np.testing.assert_allclose(law.train_loss, classes.train_loss, rtol=1e-9)
    assert float(law.stability[0]) == pytest.approx(0.6 * r / 2, rel=1e-10)  # the mean eigenvalue is 1


def test_it_grows_where_it_is_unstable_and_only_there():
    model = LinearRegression("multi-pass").dynamics()
    end = [
        solve.integrate(model, (0, 60), dict(c=1.0), dict(eta=eta, sigma=0.0, r=0.5), t_eval=[0, 30, 60]).train_loss
        for eta in (3.9, 4.1)
    ]
    assert end[0][2] < end[0][1] and end[1][2] > end[1][1]


def test_interpolation_is_exact_for_polynomials(rng):
    points, weights, _ = gauss()
    at = rng.uniform(0, 1, 20)
    values = lagrange(points, at)
    for power in range(16):
        np.testing.assert_allclose(values @ points**power, at**power, atol=1e-12)
        assert weights @ points**power == pytest.approx(1 / (power + 1), rel=1e-13)


@pytest.mark.parametrize(
    "right",
    [
        1 + sympy.Integral(PSI(S) ** 2, (S, 0, TIME)),
        1 + sympy.Integral(S * PSI(S), (S, 0, TIME)),
        1 + sympy.Integral(sympy.exp(-S), (S, 0, TIME)),
    ],
)
def test_equations_of_another_form_are_refused(right):
    with pytest.raises(NotYet, match="Volterra"):
        solved(right)


def test_solutions_that_need_too_many_panels_are_refused(monkeypatch):
    from effdyn.solve import volterra

    monkeypatch.setattr(volterra, "MOST_PANELS", 16)
    fast = 1 + sympy.Integral(sympy.exp(-2000 * (TIME - S)) * PSI(S), (S, 0, TIME))
    with pytest.raises(solve.StepLimit, match="panels"):
        solved(fast, 50.0)


def test_time_starts_at_zero():
    with pytest.raises(ModelError, match="t_span"):
        solve.integrate(equation(1 + TIME), (1, 2), {}, {})
