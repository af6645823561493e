"""Schedules of learning rates: the equations at each time against those at that rate, and annealing's known limits."""

import math

import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from effdyn import derive, solve
from effdyn.derive import ModelError, NotYet, TeacherStudent
from effdyn.derive.dynamics import TIME
from effdyn.derive.known_conventions import CONVENTIONS
from effdyn.solve.kernels.reference import evaluate, observe

HYPERBOLA = "1/(1 + t/tau)"
ROUNDING = 1e-12
LINEAR = TeacherStudent(activation="linear", schedule=HYPERBOLA)
ONE = dict(Q=[[0.3]], R=[[0.1]])
PARAMS = dict(eta=0.8, sigma=0.5, T=[[1.0]], a=1.0, b=1.0, tau=4.0)


def committee(rng):
    vectors = rng.normal(size=(4, 9)) / 3
    gram = vectors @ vectors.T
    y = {"Q": gram[:2, :2], "R": gram[:2, 2:], "a": np.array([0.9, -1.2]), "bias": np.array([0.2, -0.1])}
    return y, {"sigma": 0.2, "T": gram[2:, 2:], "b": np.array([1.0, 0.6]), "teacher_bias": 0.1, "kappa": 0.3}


def _of(dyn, values):
    names = {q.name for q in dyn.parameters}
    return {name: value for name, value in values.items() if name in names}


def at(dyn, y, values, **more):
    """The time derivatives, of what values there are for these equations."""
    return evaluate(dyn, y, _of(dyn, values) | more)


@pytest.mark.parametrize(
    ("limit", "rates", "options"),
    [
        ("high-dimensional", ("eta", "eta_a", "eta_bias"), dict(second_layer="trained", biases=True)),
        ("high-dimensional", ("eta",), dict(momentum="fixed")),
        ("finite-d", ("eta", "eta_a"), dict(second_layer="trained", weight_decay=True, batch=True)),
    ],
)
def test_equations_are_those_at_the_rates_of_the_time(limit, rates, options, rng):
    """Every learning rate is multiplied, and nothing else: weight decay and momentum are not."""
    y, params = committee(rng)
    params |= dict(zip(rates, (0.8, 0.5, 0.3), strict=False)) | {"beta": 0.6, "batch": 2.0, "d": 30.0, "tau": 3.0}
    plain, timed = (TeacherStudent(**options, schedule=s).dynamics(limit) for s in (None, HYPERBOLA))
    params |= {} if "a" in {q.name for q in plain.states} else {"a": y["a"]}
    y = {q.name: y[q.name] for q in plain.states}
    t = 1.7
    slowed = params | {name: params[name] / (1 + t / 3.0) for name in rates}
    expected, found = at(plain, y, slowed), at(timed, y, params, t=t)
    for name in y:
        np.testing.assert_allclose(found[name], expected[name], rtol=ROUNDING, atol=ROUNDING)


def test_gradient_flow_has_the_schedule_of_its_own_clock(rng):
    y, params = committee(rng)
    y = {name: y[name] for name in ("Q", "R")}
    params |= {"a": 0.7, "tau": 3.0}
    plain, timed = (TeacherStudent(schedule=s).dynamics("gradient-flow") for s in (None, HYPERBOLA))
    assert "tau" in {q.name for q in timed.parameters} and "eta" not in {q.name for q in timed.parameters}
    expected, found = at(plain, y, params), at(timed, y, params, t=6.0)
    for name in y:
        np.testing.assert_allclose(found[name], expected[name] / 3, rtol=ROUNDING, atol=ROUNDING)
    assert observe(timed, y, _of(timed, params) | {"t": 6.0})["schedule"] == pytest.approx(1 / 3, rel=1e-15)


def test_linear_perceptron_anneals_as_known():
    """With e = E[(y* − φ)²]: ė = −2ηs e + η²s²(e + σ²). Without annealing e stays at ησ²/(2 − η); with s ≈ τ/t and
    2ητ > 1 it falls as η²τ²σ²/((2ητ − 1) t), whatever the start; and R = 1 − (1 − R₀)(1 + t/τ)^(−ητ) exactly."""
    eta, tau, noise, end = 0.8, 4.0, 0.25, 1e5
    times = np.array([1.0, 30.0, end])
    theory = solve.integrate(LINEAR.dynamics(), (0, end), ONE, PARAMS, t_eval=times)

    def rate(t, e):
        s = 1 / (1 + t / tau)
        return -2 * eta * s * e + (eta * s) ** 2 * (e + noise)

    by_hand = solve_ivp(rate, (0, end), [0.3 - 0.2 + 1.0], t_eval=times, rtol=1e-11, atol=1e-14, method="DOP853").y[0]
    # eg is a difference of states of order one, solved to 1e-10; nothing here grows errors
    np.testing.assert_allclose(2 * theory.eg, by_hand, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(theory.R.squeeze(), 1 - 0.9 * (1 + times / tau) ** (-eta * tau), rtol=1e-8)
    limit = (eta * tau) ** 2 * noise / (2 * eta * tau - 1)
    # the next order is (e + τ)/t ≈ 20/t relative
    assert by_hand[-1] * end == pytest.approx(limit, rel=1e-3)
    still = TeacherStudent(activation="linear").dynamics()
    still = solve.integrate(still, (0, 50), ONE, _of(still, PARAMS))
    assert 2 * float(still.eg[-1]) == pytest.approx(eta * noise / (2 - eta), rel=1e-6)


def test_a_map_knows_the_time_of_each_step():
    """By one compiled loop or another, as the plain map iterated by hand at the rate of each step."""
    model, d, start = TeacherStudent(activation="linear", schedule=HYPERBOLA), 20, 3.0
    plain = TeacherStudent(activation="linear").dynamics("finite-d-map")
    params = PARAMS | {"d": float(d)}
    y = {name: np.array(value) for name, value in ONE.items()}
    for n in range(2 * d):
        t = start + n / d
        change = at(plain, y, params | {"eta": 0.8 / (1 + t / 4.0)})
        y = {name: y[name] + change[name] for name in y}
    span, dyn = (start, start + 2), model.dynamics("finite-d-map")
    one = solve.integrate(dyn, span, ONE, params, t_eval=span).isel(t=-1)
    many = solve.ensemble(dyn, span, {"Q": np.full((3, 1, 1), 0.3), "R": [[0.1]]}, params, t_eval=span).isel(t=-1)
    for name, expected in y.items():  # forty steps of a few roundings each
        np.testing.assert_allclose(one[name], expected, rtol=1e-12)
        np.testing.assert_array_equal(many[name], np.broadcast_to(one[name], (3, 1, 1)))


def test_ensembles_have_schedules_of_their_own():
    """In lanes and one by one, with the time constant as what varies."""
    dyn, tau = TeacherStudent(schedule=HYPERBOLA).dynamics(), np.linspace(1.0, 5.0, 20)
    start = {"Q": [[0.3]], "R": [[0.1]]}
    found = []
    for lanes in (True, False):
        together = solve.ensemble(dyn, (1, 4), start, PARAMS | {"tau": tau}, t_eval=[4], lanes=lanes)
        np.testing.assert_allclose(together.schedule.values.ravel(), 1 / (1 + 4 / tau), rtol=1e-14)
        found.append(together.R.values.ravel())
    single = [solve.integrate(dyn, (1, 4), ONE, PARAMS | {"tau": x}, t_eval=[4]).R.item() for x in tau[[0, -1]]]
    for R in found:
        np.testing.assert_allclose(R[[0, -1]], single, rtol=1e-8)  # local tolerances of 1e-8


def test_order_one_over_d_theory_of_a_schedule():
    """A linear network's mean over runs obeys the map of the mean of one step exactly, so that d·(map − ODE) tends to
    m with an error of 1/d: −½ ∂b/∂t is in it, without which the limit would be another."""
    given = dict(t_span=(0, 3), t_eval=[1, 3], y0=ONE)
    theory = solve.integrate(LINEAR.dynamics().fluctuations(), **given, params=PARAMS)
    limit = LINEAR.dynamics("finite-d-map")
    gaps = []
    for d in (400, 1600):
        step = solve.integrate(limit, **given, params=PARAMS | {"d": float(d)})
        gaps.append(abs(d * (step.R - theory.R) - theory.R_mean_correction).max().item())
    assert gaps[1] < 1e-3
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)  # nothing but the next order is left
    assert (theory.R_variance > 0).all() and "schedule_variance" not in theory


def test_the_noise_of_the_langevin_form_follows_the_schedule():
    """Covariances of increments are those at the rate of the time."""
    eta = sympy.Symbol("eta", nonnegative=True)
    plain, timed = (TeacherStudent(activation="linear", schedule=s).dynamics().sde() for s in (None, HYPERBOLA))
    assert len(plain.diffusion) == len(timed.diffusion) == 3
    for one, other in zip(plain.diffusion, timed.diffusion, strict=True):
        slower = one.expr.xreplace({eta: eta * LINEAR.schedule})
        assert sympy.expand(slower - other.expr) == 0 and other.expr.has(TIME)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("eta*t", "eta means something else"),
        ("exp(-n*t)", "n means something else"),
        ("2", "constant factor"),
        ("1/(1 + T/tau)", "there is no t in it"),
        (3.0, "a formula of t"),
        ("1/(1 + t/tau", "Python's syntax"),
    ],
)
def test_what_is_no_schedule_is_refused(given, said):
    with pytest.raises(ModelError, match="schedule") as error:
        TeacherStudent(schedule=given)
    assert said in str(error.value)


@pytest.mark.parametrize("given", ["1 - t/tau", "1/(t - tau)", "sqrt(tau - t)"])
def test_rates_below_zero_are_refused_with_their_time(given):
    dyn = TeacherStudent(activation="linear", schedule=given).dynamics()
    with pytest.raises(ModelError, match=r"t_span.*at t = .*, tau = 4 it is"):
        solve.integrate(dyn, (0, 5), ONE, PARAMS)
    with pytest.raises(ModelError, match=r"t_span.*at t = .*, tau = [47] it is"):
        solve.ensemble(dyn, (0, 5), ONE, PARAMS | {"tau": np.array([7.0, 4.0])})
    if given != "1/(t - tau)":
        assert solve.integrate(dyn, (0, 3), ONE, PARAMS).attrs["status"] == "success"


def test_stability_of_what_never_rests_is_refused():
    with pytest.raises(NotYet, match="time explicitly"):
        solve.linearize(LINEAR.dynamics(), ONE, PARAMS)


def test_schedules_are_values_and_print(tmp_path, rng):
    same = (HYPERBOLA, lambda t: 1 / (1 + t / sympy.Symbol("tau")), 1 / (1 + TIME / sympy.Symbol("tau", positive=True)))
    first, *others = (TeacherStudent(schedule=s) for s in same)
    assert all(model == first and hash(model) == hash(first) for model in others)
    assert eval(repr(first), vars(derive)) == first and derive.model_from_json(first.to_json()) == first
    dyn = first.dynamics()
    assert "schedule = 1/(1 + t/tau)" in str(dyn) and r"\frac{\eta}{1 + \frac{t}{\tau}}" in dyn.latex()
    assert "s(t)" not in dyn.explain_limit()
    assert r"s(t) = \frac{1}{1 + \frac{t}{\tau}}" in dyn.article(tmp_path / "article.tex").read_text()
    space: dict = {}
    exec(dyn.write(tmp_path / "model.py").read_text(), space)
    y = {name: np.array(value) for name, value in ONE.items()}
    for name, value in evaluate(dyn, y, PARAMS | {"t": 2.0}).items():
        np.testing.assert_allclose(space["rhs"](2.0, y, PARAMS)[name], value, rtol=ROUNDING)
    assert space["observables"](y, PARAMS, 2.0)["schedule"] == pytest.approx(2 / 3)


def test_other_papers_clocks_are_in_the_schedule():
    """In a convention with time γ steps/(p d) the schedule is that of effdyn's time, at the same parameter."""
    convention, dyn = (
        CONVENTIONS["arnaboldi-2023"],
        TeacherStudent("linear", output_scale="1/K", schedule=HYPERBOLA).dynamics(),
    )
    params = PARAMS | {"a": [1.0, 1.0], "eta": 3.0}
    y0 = dict(Q=[[0.3, 0.1], [0.1, 0.4]], R=[[0.1], [0.2]])
    theirs = convention.from_effdyn(y0, params, 2.0, dyn.model)
    ours = solve.integrate(dyn, (0, 2), y0, params, t_eval=[2]).Q.values
    there = solve.integrate(convention.convert(dyn), (0, float(theirs[2])), *theirs[:2], t_eval=[float(theirs[2])])
    assert not math.isclose(float(theirs[2]), 2.0)
    np.testing.assert_allclose(there.Q.values, ours, rtol=1e-7)  # local tolerances of 1e-10 on either clock
    assert convention.to_effdyn(*theirs[:2], theirs[2], dyn.model)[1]["tau"] == params["tau"]


@pytest.mark.parametrize("name", ["c", "g", "input_variance", "mean", "T_inv"])
def test_names_of_other_models_equations_are_refused(name):
    with pytest.raises(ModelError, match="means something else"):
        derive.TeacherStudent(schedule=f"1/(1 + {name}*t)")


def test_a_function_of_more_than_time_is_refused():
    with pytest.raises(ModelError, match="t alone"):
        derive.TeacherStudent(schedule=lambda t, tau: 1 / (1 + t / tau))
