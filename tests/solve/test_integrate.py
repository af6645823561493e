"""``solve.integrate``: against SciPy on the same kernel, against exact solutions, and its errors."""

import dataclasses
import importlib
import json
import pickle
import sys
import warnings

import numpy as np
import pytest
import sympy
import xarray as xr
from numpy.testing import assert_allclose

from effdyn import derive, solve
from effdyn.derive.dynamics import Equation
from effdyn.solve.hazards import BelowResolution, SymmetricStart

Q0 = np.array([[0.5, 0.1], [0.1, 0.6]])
R0 = np.array([[0.3, 0.02], [0.05, 0.25]])
START = {"Q": Q0, "R": R0}
PARAMS = {"eta": 1.0, "sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}
ERF = derive.TeacherStudent(activation="erf").dynamics()
LINEAR = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")


def decay(rate: sympy.Expr, name: str = "x") -> derive.Dynamics:
    """x' = rate, a Dynamics written by hand."""
    k = derive.Quantity("k", latex="k", meaning="rate")
    return derive.Dynamics("a scalar", "ode", "t", (Equation(derive.Quantity(name), rate),), (k,))


X, RATE = sympy.symbols("x k", real=True)


@pytest.mark.parametrize(
    "method", ["scipy:DOP853", "scipy:RK45", "scipy:LSODA", "scipy:odeint", "scipy:Radau", "scipy:BDF"]
)
def test_agrees_with_scipy_on_the_same_right_hand_side(method):
    times = np.linspace(0, 20, 11)
    ours = solve.integrate(ERF, (0, 20), START, PARAMS, t_eval=times, rtol=1e-11, atol=1e-13)
    theirs = solve.integrate(ERF, (0, 20), START, PARAMS, t_eval=times, method=method, rtol=1e-8, atol=1e-10)
    # The referee's local tolerance is 1e-8; along 20 time units of a contracting flow errors stay within 100 of it.
    for name in ("Q", "R", "eg"):
        assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)
    assert ours.attrs["method"] == "DOP853"
    assert theirs.attrs["method"] == method


def test_linear_flow_has_its_exact_solution():
    """K = M = 1, linear units: w − w* decays as e^{−t}.

    So R = 1 + (R₀ − 1) e^{−t} and Q = 1 + 2 (R₀ − 1) e^{−t} + (Q₀ − 2R₀ + 1) e^{−2t}.
    """
    t = np.linspace(0, 8, 33)
    params = {"sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0}
    sol = solve.integrate(LINEAR, (0, 8), {"Q": [[0.7]], "R": [[0.2]]}, params, t_eval=t)
    R = 1 - 0.8 * np.exp(-t)
    Q = 1 - 1.6 * np.exp(-t) + 1.3 * np.exp(-2 * t)
    # 100 × rtol = 1e-8 would be generous: a contracting flow forgets local errors of 1e-10.
    assert_allclose(sol.R[:, 0, 0], R, atol=1e-9)
    assert_allclose(sol.Q[:, 0, 0], Q, atol=1e-9)
    assert_allclose(sol.eg, (1 - 2 * R + Q) / 2, atol=2e-9)


def test_dataset_is_labelled_and_survives_netcdf(tmp_path):
    sol = solve.integrate(ERF, (0, 2), START, PARAMS, t_eval=[0, 1, 2])
    assert sol.Q.dims == ("t", "student", "student_2")
    assert sol.R.dims == ("t", "student", "teacher")
    assert sol.eg.dims == ("t",)
    assert sol.attrs["clock"] == "steps/d"
    assert sol.attrs["model"] == "TeacherStudent(activation='erf')"
    assert json.loads(sol.attrs["parameters"])["T"] == [[1.0, 0.0], [0.0, 1.0]]
    assert_allclose(sol.Q[0], Q0, atol=0)
    assert_allclose(sol.loss - sol.eg, 0.1**2 / 2, atol=1e-15)
    sol.to_netcdf(tmp_path / "sol.nc")
    with xr.open_dataset(tmp_path / "sol.nc") as again:
        xr.testing.assert_identical(again.load(), sol)


def test_own_steps_include_both_ends_and_backward_integration_returns():
    there = solve.integrate(ERF, (0, 3), START, PARAMS)
    assert there.t[0] == 0
    assert there.t[-1] == 3
    back = solve.integrate(ERF, (3, 0), there.isel(t=-1), PARAMS)
    assert_allclose(back.isel(t=-1).Q, Q0, atol=1e-8)  # backwards the flow expands: 1e-10 grows by e^(rate·3)


def test_restart_from_a_final_state_continues_the_solution():
    whole = solve.integrate(ERF, (0, 10), START, PARAMS, t_eval=[0, 5, 10])
    half = solve.integrate(ERF, (0, 5), START, PARAMS)
    rest = solve.integrate(ERF, (5, 10), half.isel(t=-1), PARAMS)
    assert_allclose(rest.isel(t=-1).Q, whole.isel(t=-1).Q, atol=1e-8)
    with pytest.raises(derive.ModelError) as caught:
        solve.integrate(ERF, (0, 5), half, PARAMS)
    assert caught.value.argument == "y0"


def test_one_kernel_serves_all_sizes():
    before = solve.kernel(ERF)
    for K, M in ((1, 1), (3, 2), (2, 4)):
        T = np.eye(M)
        start = {"Q": np.diag(0.5 + 0.01 * np.arange(K)), "R": np.full((K, M), 0.1)}
        sol = solve.integrate(ERF, (0, 1), start, PARAMS | {"T": T})
        assert sol.sizes["student"] == K
        assert sol.sizes["teacher"] == M
    assert solve.kernel(ERF) is before


def test_events_are_found_on_observables_and_overlaps():
    events = [solve.Event("eg - 0.02", terminal=True, direction=-1), solve.Event("R[1, 1] - 0.5", name="half way")]
    sol = solve.integrate(ERF, (0, 100), START, PARAMS, events=events)
    assert list(sol.event_name.values) == ["half way", "eg - 0.02"]
    assert sol.attrs["status"] == "event"
    assert sol.t[-1] == sol.t_event[-1]
    assert_allclose(sol.eg[-1], 0.02, rtol=1e-12)  # bracketed to a few ulp of t
    again = solve.integrate(ERF, (0, 100), START, PARAMS, t_eval=[float(sol.t_event[0])])
    assert_allclose(again.R[0, 0, 0], 0.5, atol=1e-9)  # the interpolant's own error at rtol 1e-10


@pytest.mark.parametrize("expr", ["eg[1]", "Q", "R[1, 3]", "R[0, 1]", "nonsense - 1", "eta - 1", "__import__('os')"])
def test_events_that_mean_nothing_are_refused(expr):
    with pytest.raises(derive.ModelError) as caught:
        solve.integrate(ERF, (0, 1), START, PARAMS, events=[expr])
    assert caught.value.argument == "events"


def test_divergence_is_an_error_with_time_state_and_partial_solution():
    """x' = k x² blows up at t = 1/(k x₀) = 1."""
    with pytest.raises(solve.Diverged) as caught:
        solve.integrate(decay(RATE * X**2), (0, 2), {"x": 1.0}, {"k": 1.0})
    error = caught.value
    assert abs(error.t - 1) < 1e-6
    assert np.isfinite(error.state["x"])
    assert_allclose(error.partial.x[:5], 1 / (1 - error.partial.t[:5]), rtol=1e-8)
    assert pickle.loads(pickle.dumps(error)).t == error.t


def test_large_learning_rate_of_a_polynomial_student_diverges_with_an_error():
    dyn = derive.TeacherStudent(activation="He3").dynamics()
    with pytest.raises(solve.Diverged) as caught:
        solve.integrate(dyn, (0, 50), START, PARAMS | {"eta": 5.0})
    assert np.isfinite(caught.value.state["Q"]).all()
    assert set(caught.value.partial.data_vars) >= {"Q", "R", "eg"}


def test_overlaps_of_no_vectors_are_an_error():
    """Equations that shrink Q at fixed R leave the cone of Gram matrices; the solver must say so, not go on."""
    broken = ERF
    drift = tuple(
        Equation(e.quantity, -e.quantity.symbol if e.quantity.name == "Q" else sympy.S.Zero) for e in ERF.drift
    )
    broken = derive.Dynamics(
        "broken", "ode", "t", drift, ERF.parameters, families=ERF.families, covariance=ERF.covariance
    )
    with pytest.raises(solve.NotPositiveSemidefinite) as caught:
        solve.integrate(broken, (0, 10), START, PARAMS)
    gram = np.block([[caught.value.state["Q"], R0], [R0.T, np.eye(2)]])
    assert np.linalg.eigvalsh(gram)[0] > -1e-5  # the state that it carries is the last good one
    assert len(caught.value.partial.t) > 1


def test_step_and_wall_limits_are_errors_that_keep_what_was_computed():
    with pytest.raises(solve.StepLimit) as caught:
        solve.integrate(ERF, (0, 1000), START, PARAMS, max_steps=10)
    assert 0 < caught.value.t < 1000
    assert len(caught.value.partial.t) > 1
    with pytest.raises(solve.WallLimit):
        solve.integrate(
            decay(sympy.cos(1e6 * X) * RATE), (0, 1e6), {"x": 1.0}, {"k": 1.0}, wall_limit=0.3, max_steps=10**9
        )


def test_interruption_returns_the_solution_so_far(monkeypatch):
    module = importlib.import_module("effdyn.solve.integrate")  # the function of the same name hides it
    whole = module.trajectory.compute_trajectory

    def interrupted(*args, **kwargs):
        return dataclasses.replace(whole(*args, **kwargs), interrupted=True)

    monkeypatch.setattr(module.trajectory, "compute_trajectory", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted at t = "):
        sol = solve.integrate(ERF, (0, 1), START, PARAMS)
    assert sol.attrs["status"] == "interrupted"
    assert len(sol.t) > 1


@pytest.mark.parametrize(
    ("y0", "params", "argument"),
    [
        ({"Q": Q0}, {}, "y0"),
        ({"Q": Q0, "R": R0, "q": 1}, {}, "y0['q']"),
        ({"Q": Q0, "R": R0, "a": 1.0}, {}, "y0['a']"),
        ({"Q": Q0, "R": R0[:1]}, {}, "y0['Q']"),
        ({"Q": Q0, "R": R0[0]}, {}, "y0['R']"),
        ({"Q": [[0.5, 0.1], [0.2, 0.6]], "R": R0}, {}, "y0['Q']"),
        ({"Q": [[0.01, 0.0], [0.0, 0.01]], "R": R0}, {}, "y0"),
        ({"Q": -Q0, "R": 0 * R0}, {}, "y0"),
        ({"Q": Q0 * np.nan, "R": R0}, {}, "y0['Q']"),
        ({"Q": "much", "R": R0}, {}, "y0['Q']"),
        (START, {"sigma": -0.1}, "params['sigma']"),
        (START, {"eta": np.inf}, "params['eta']"),
        (START, {"etaa": 1.0}, "params['etaa']"),
        (START, {"Q": Q0}, "params['Q']"),
        (START, {"T": np.eye(3)}, "params['T']"),
        (START, {"b": [1.0, 1.0, 1.0]}, "params['b']"),
        (START, {"T": [[1.0, 2.0], [2.0, 1.0]]}, "y0"),
        (5, {}, "y0"),
    ],
)
def test_bad_states_and_parameters_are_named(y0, params, argument):
    with pytest.raises(derive.ModelError) as caught:
        solve.integrate(ERF, (0, 1), y0, PARAMS | params)
    assert caught.value.argument == argument


def test_unknown_names_suggest_the_nearest_and_missing_ones_say_what_they_are():
    with pytest.raises(derive.ModelError, match="did you mean 'sigma'") as caught:
        solve.integrate(ERF, (0, 1), START, {**PARAMS, "sgima": 0.1})
    with pytest.raises(derive.ModelError, match="eta: learning rate") as caught:
        solve.integrate(ERF, (0, 1), START, {k: v for k, v in PARAMS.items() if k != "eta"})
    assert caught.value.argument == "params"


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"t_span": (0, 0)}, "t_span"),
        ({"t_span": (0, np.inf)}, "t_span"),
        ({"t_span": 3}, "t_span"),
        ({"t_eval": [0, 2]}, "t_eval"),
        ({"t_eval": [0.5, 0.2]}, "t_eval"),
        ({"rtol": 1e-15}, "rtol"),
        ({"rtol": -1}, "rtol"),
        ({"atol": 0}, "atol"),
        ({"method": "DOP583"}, "method"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_bad_options_are_named(change, argument):
    options = {"t_span": (0, 1), "y0": START, "params": PARAMS} | change
    with pytest.raises(derive.ModelError) as caught:
        solve.integrate(ERF, **options)
    assert caught.value.argument == argument


def test_methods_that_are_not_there_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "CyRK", None)  # as if it were not installed
    with pytest.raises(derive.NotYet, match="pip install CyRK"):
        solve.integrate(ERF, (0, 1), START, PARAMS, method="cyrk:DOP853")
    monkeypatch.setitem(sys.modules, "heyoka", None)
    with pytest.raises(derive.NotYet, match="pip install heyoka"):
        solve.integrate(ERF, (0, 1), START, PARAMS, method="heyoka:taylor")
    with pytest.raises(derive.NotYet, match="events="):
        solve.integrate(ERF, (0, 1), START, PARAMS, method="scipy:RK45", events=["eg - 0.1"])


@pytest.mark.parametrize("method", ["cyrk:DOP853", "cyrk:LSODA"])
def test_agrees_with_cyrk_where_it_is_installed(method):
    pytest.importorskip("CyRK")
    times = np.linspace(0, 20, 11)
    ours = solve.integrate(ERF, (0, 20), START, PARAMS, t_eval=times, rtol=1e-11, atol=1e-13)
    theirs = solve.integrate(ERF, (0, 20), START, PARAMS, t_eval=times, method=method, rtol=1e-8, atol=1e-10)
    for name in ("Q", "R", "eg"):  # as for SciPy's
        assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)


def test_agrees_with_heyoka_where_it_is_installed():
    """It shares the closed equations only: not the kernel, nor its special functions, nor the steps."""
    pytest.importorskip("heyoka")
    given = (ERF, (0, 20), {"Q": [[0.5]], "R": [[0.1]]}, {"eta": 0.7, "sigma": 0.1, "T": [[1.3]], "a": 0.9, "b": 1.1})
    for t_eval in (np.linspace(0, 20, 11), [5.0, 20.0], [20.0]):
        ours = solve.integrate(*given, t_eval=t_eval, rtol=1e-13, atol=1e-14)
        theirs = solve.integrate(*given, t_eval=t_eval, method="heyoka:taylor", rtol=1e-13)
        for name in ("Q", "R", "eg"):  # 1e-13 in each of about fifty steps of a contracting flow
            assert_allclose(ours[name], theirs[name], atol=1e-11, rtol=0, err_msg=name)


def test_heyokas_own_steps_and_a_pole_that_it_cannot_pass():
    pytest.importorskip("heyoka")
    options = {"method": "heyoka:taylor", "rtol": 1e-13}
    steps = solve.integrate(decay(-RATE * X), (0, 3), {"x": 1.0}, {"k": 1.0}, **options)
    assert steps.sizes["t"] > 3 and float(steps.t[-1]) == 3.0
    assert_allclose(steps.x, np.exp(-steps.t), rtol=1e-12)
    for t_eval in (None, [0.0, 0.5, 1.5]):
        with pytest.raises(solve.Diverged) as stopped:
            solve.integrate(decay(RATE * X**2), (0, 2), {"x": 1.0}, {"k": 1.0}, t_eval=t_eval, **options)
        assert stopped.value.t < 1 + 1e-12


@pytest.mark.parametrize(
    ("start", "params"),
    [({"Q": 0.5 * np.eye(2), "R": np.full((2, 2), 0.1)}, {}), ({"Q": np.eye(2), "R": np.zeros((2, 2))}, {"a": 2.0})],
)
def test_students_that_start_exactly_alike_are_warned_of(start, params):
    with pytest.warns(SymmetricStart, match="students 1 and 2"):
        solve.integrate(ERF, (0, 1), start, PARAMS | params)


@pytest.mark.parametrize(
    ("start", "params"),
    [
        ({"Q": 0.5 * np.eye(2), "R": 0.1 * np.eye(2)}, {}),  # exchanged only together with the teachers
        ({"Q": 0.5 * np.eye(2), "R": np.full((2, 2), 0.1)}, {"a": [1.0, 2.0]}),
        ({"Q": np.diag([0.5, 0.5 + 1e-9]), "R": np.full((2, 2), 0.1)}, {}),
    ],
)
def test_students_that_differ_in_anything_are_not(start, params):
    solve.integrate(ERF, (0, 1), start, PARAMS | params)  # warnings are errors


def test_a_negative_generalisation_error_is_flagged():
    """eg decays as exp(-2t) from 0.65: at rtol 1e-4 it is soon smaller than the errors of the overlaps."""
    params = {"sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0}
    given = (LINEAR, (0, 20), {"Q": [[0.7]], "R": [[0.2]]}, params)
    times = np.linspace(0, 20, 201)
    with pytest.warns(BelowResolution, match="first at t = "):
        sol = solve.integrate(*given, t_eval=times, rtol=1e-4, atol=1e-6)
    flagged = sol.eg.values < 0
    exact = 0.65 * np.exp(-2 * times)  # (Q - 2R + T)/2 with w - w* falling as exp(-t)
    assert (abs(sol.eg.values - exact) < sol.attrs["eg_resolution"]).all()
    assert flagged.any() and (exact[flagged] < sol.attrs["eg_resolution"]).all()


def test_trained_second_layer_is_a_state():
    dyn = derive.TeacherStudent(activation="erf", second_layer="trained").dynamics()
    params = {"eta": 0.5, "eta_a": 0.5, "sigma": 0.0, "T": np.eye(2), "b": [1.0, 2.0]}
    sol = solve.integrate(dyn, (0, 300), {**START, "a": [0.5, 1.0]}, params)
    assert sol.a.dims == ("t", "student")
    assert sol.eg[-1] < sol.eg[0] / 1000
    with pytest.raises(derive.ModelError) as caught:
        solve.integrate(dyn, (0, 1), START, {**params, "a": 1.0})
    assert caught.value.argument == "params['a']"


def test_nothing_is_warned_of_in_a_normal_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve.integrate(ERF, (0, 1), START, PARAMS, progress=True)


@pytest.mark.parametrize(
    "given", [derive.TeacherStudent(), LINEAR.expand(K=1, M=1), None], ids=lambda g: type(g).__name__
)
def test_what_is_no_dynamics_is_refused(given):
    for call in (lambda: solve.integrate(given, (0, 1), START, PARAMS), lambda: solve.kernel(given)):
        with pytest.raises(derive.ModelError, match=r"model\.dynamics\(\)") as caught:
            call()
        assert caught.value.argument == "dynamics"


def test_an_output_scale_without_a_value_at_this_size_says_so():
    dyn = derive.TeacherStudent(output_scale="1/(K-2)").dynamics()
    with pytest.raises(solve.Diverged, match="not finite at the initial state"):
        solve.integrate(dyn, (0, 1), START, PARAMS)


def test_a_pole_is_no_event():
    events = [solve.Event("1/(R[1, 1] - 0.5)", terminal=True), solve.Event("R[1, 1] - 0.5")]
    sol = solve.integrate(ERF, (0, 20), START, PARAMS, events=events)
    assert list(sol.event_name.values) == ["R[1, 1] - 0.5"]
    assert sol.attrs["status"] == "success"
