"""``solve.ensemble``: each member as if it were alone; failures and interruptions stay where they are."""

import _thread
import ctypes
import dataclasses
import json
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
import sympy
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from effdyn import derive, solve
from effdyn.derive.dynamics import Equation
from effdyn.derive.regression import LinearRegression
from effdyn.solve.ensembles.ensemble import ensemble
from effdyn.solve.ensembles.hazards import _resolved as resolved
from effdyn.solve.ensembles.hazards import flag_below_resolution
from effdyn.solve.ensembles.inputs import _has_factors as has_factors
from effdyn.solve.ensembles.inputs import gram_places, read_batch
from effdyn.solve.ensembles.lane_kernel import lane_kernel
from effdyn.solve.ensembles.members import _ranges as member_ranges
from effdyn.solve.kernels.gram import PSD_TOLERANCE, gram_matrix
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

ERF = derive.TeacherStudent(activation="erf").dynamics()
SQUARE = derive.TeacherStudent(activation="square").dynamics()
TIMES = np.linspace(0, 20, 21)
PARAMS = {"sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}
X, RATE = sympy.symbols("x k", real=True)


def starts(members, seed=0):
    """Overlaps of random students and two orthonormal teachers in five dimensions: (N, 2, 2) both."""
    students = np.random.default_rng(seed).normal(size=(members, 2, 5)) / 3
    return {"Q": students @ np.swapaxes(students, 1, 2), "R": students[:, :, :2]}


def etas(members):
    return np.linspace(0.2, 1.5, members)


def by_hand(rate, minimum=None):
    """x' = rate, a Dynamics written by hand."""
    k = derive.Quantity("k", latex="k", meaning="rate", minimum=minimum)
    return derive.Dynamics("a scalar", "ode", "t", (Equation(derive.Quantity("x"), rate),), (k,))


def assert_same(one, other):
    """The same numbers bit for bit, NaN included."""
    for name in other.data_vars:
        assert one[name].dims == other[name].dims
        if one[name].dtype.kind == "f":
            assert one[name].values.tobytes() == other[name].values.tobytes(), name
        else:
            assert (one[name].values == other[name].values).all(), name


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("t_span", [(0, 20), (20, 0)])
def test_each_member_is_the_single_trajectory(t_span, lanes):
    """One at a time it is the same compiled loop from the same numbers: not one bit may differ, whatever the steps.

    In lanes it is the same method with sums in another order. Without a plateau to escape from, along which they would
    grow, errors stay within 100 of the local tolerance: both, hence 200.
    """
    y0, eta = starts(7), etas(7)
    times = np.linspace(*t_span, 11)
    options = {"t_eval": times, "rtol": 1e-9, "atol": 1e-11}
    if t_span[0]:  # from where a forward run arrives, so that backwards the overlaps stay admissible
        end = ensemble(ERF, (0, 20), y0, PARAMS | {"eta": eta}, rtol=1e-13, atol=1e-15).isel(t=-1)
        y0 = {"Q": end.Q.values, "R": end.R.values}
        t_span, options["t_eval"] = (20, 19), np.linspace(20, 19, 5)
    ens = ensemble(ERF, t_span, y0, PARAMS | {"eta": eta}, **options, lanes=lanes)
    total = np.zeros(3)
    for m in range(7):
        given = {name: value[m] for name, value in y0.items()}
        one = solve.integrate(ERF, t_span, given, PARAMS | {"eta": eta[m]}, **options)
        for name in one.data_vars:
            if lanes:
                np.testing.assert_allclose(ens[name].values[m], one[name].values, atol=200 * 1e-9, err_msg=name)
            else:
                assert ens[name].values[m].tobytes() == one[name].values.tobytes(), (m, name)
            assert ens[name].dims == ("member", *one[name].dims)
            assert ens[name].attrs == one[name].attrs
        total += [one.attrs[name] for name in ("n_steps", "n_rejected", "n_rhs")]
    # Rounding may tip a step over the edge of its tolerance, though hardly ever: one member in ten.
    slack = 0.05 if lanes else 0.0
    np.testing.assert_allclose([ens.attrs[n] for n in ("n_steps", "n_rejected", "n_rhs")], total, rtol=slack, atol=0)
    assert (ens.status == "success").all()
    assert ens.t_failed.isnull().all()
    assert ens.attrs["status"] == "success"


@pytest.fixture(scope="module", params=[True, False], ids=["lanes", "one by one"])
def lanes(request):
    return request.param


@pytest.fixture(scope="module")
def fifty(lanes):
    return ensemble(ERF, (0, 20), starts(50), PARAMS | {"eta": etas(50)}, t_eval=TIMES, threads=1, lanes=lanes)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 50), threads=st.integers(1, 5))
def test_independent_of_order_company_and_threads(fifty, lanes, seed, size, threads):
    chosen = np.random.default_rng(seed).permutation(50)[:size]
    y0 = {name: value[chosen] for name, value in starts(50).items()}
    ens = ensemble(ERF, (0, 20), y0, PARAMS | {"eta": etas(50)[chosen]}, t_eval=TIMES, threads=threads, lanes=lanes)
    assert_same(ens, fifty.isel(member=chosen))


def test_a_failing_member_disturbs_no_other(lanes):
    """One learning rate makes the first order parameters blow up; the others do not notice."""
    y0, eta = starts(8), np.full(8, 0.02)
    options = {"t_eval": np.linspace(0, 5, 11), "lanes": lanes}
    sound = ensemble(SQUARE, (0, 5), y0, PARAMS | {"eta": eta}, **options)
    assert (sound.status == "success").all()
    with pytest.warns(RuntimeWarning, match="1 of 8 members failed, first member 3 .diverged after t ="):
        ens = ensemble(SQUARE, (0, 5), y0, PARAMS | {"eta": np.where(np.arange(8) == 3, 4.0, eta)}, **options)
    others = np.arange(8) != 3
    assert_same(ens.isel(member=others).drop_dims("failed"), sound.isel(member=others))
    assert ens.attrs["status"] == "partial"
    assert ens.attrs["n_failed"] == 1

    with pytest.raises(solve.Diverged) as caught:
        solve.integrate(SQUARE, (0, 5), {n: v[3] for n, v in y0.items()}, PARAMS | {"eta": 4.0})
    assert ens.status.values[3] == "diverged"
    assert ens.failed.values.tolist() == [3]
    when = float(ens.t_failed[3])
    valid = ens.t.values <= when
    for name in ("Q", "R", "eg"):
        assert np.isfinite(ens[name].values[3][valid]).all()
        assert np.isnan(ens[name].values[3][~valid]).all()
    # A divergence in finite time: the last valid time is within the solver's resolution of it in both.
    np.testing.assert_allclose(when, caught.value.t, rtol=1e-6)
    assert np.abs(ens.Q_failed.values).max() > 1e3  # the state there, on its way
    assert np.isfinite(ens.Q_failed.values).all()


def test_failure_to_be_overlaps_is_told_apart(lanes):
    """x' = −k: a squared length that goes negative; it is read as the 1 × 1 overlap Q."""
    k = derive.Quantity("k", latex="k", meaning="rate")
    template = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    drift = tuple(Equation(e.quantity, -RATE * sympy.S.One) for e in template.drift if e.quantity.name == "Q")
    # R follows Q: nothing else is needed for the overlaps of one student and one teacher to stop being overlaps.
    rest = tuple(Equation(e.quantity, sympy.S.Zero) for e in template.drift if e.quantity.name != "Q")
    dyn = dataclasses.replace(template, drift=drift + rest, parameters=(*template.parameters, k))
    params = {"sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0, "k": [0.0, 0.3]}
    with pytest.warns(RuntimeWarning, match="1 of 2 members failed, first member 1 .not_positive_semidefinite"):
        ens = ensemble(dyn, (0, 2), {"Q": [[0.5]], "R": [[0.5]]}, params, t_eval=np.linspace(0, 2, 21), lanes=lanes)
    assert ens.status.values.tolist() == ["success", "not_positive_semidefinite"]
    # det = Q − R² = 1/4 − 0.3 t vanishes at t = 0.8333; the last output before is at 0.8
    np.testing.assert_allclose(ens.t_failed.values[1], 0.8, rtol=1e-15)
    np.testing.assert_allclose(ens.Q_failed.values, [[[0.5 - 0.3 * 0.8]]], rtol=1e-12)
    with pytest.raises(solve.NotPositiveSemidefinite) as caught:
        solve.integrate(dyn, (0, 2), {"Q": [[0.5]], "R": [[0.5]]}, params | {"k": 0.3}, t_eval=np.linspace(0, 2, 21))
    assert caught.value.t == ens.t_failed.values[1]


def test_step_limit_is_recorded_with_time_and_state(lanes):
    dyn = by_hand(-RATE * X)
    with pytest.warns(RuntimeWarning, match="1 of 3 members failed, first member 1 .step_limit"):
        ens = ensemble(dyn, (0, 1), {"x": 1.0}, {"k": [1.0, 1e4, 2.0]}, max_steps=200, lanes=lanes)
    assert ens.status.values.tolist() == ["success", "step_limit", "success"]
    t = float(ens.t_failed[1])
    assert 0 < t < 1
    # The state there belongs to the time there; the local error of 1e-12 per step, decaying, stays of that order.
    np.testing.assert_allclose(ens.x_failed.values, np.exp(-1e4 * t), atol=1e-10)
    np.testing.assert_allclose(ens.x.values[[0, 2], -1], np.exp([-1, -2]), rtol=1e-9)  # rtol 1e-10, 10 steps


def test_blow_up_time_is_found(lanes):
    """x' = k x², x(0) = 1, ends at t = 1/k."""
    with pytest.warns(RuntimeWarning, match="2 of 3"):
        ens = ensemble(
            by_hand(RATE * X**2), (0, 1), {"x": 1.0}, {"k": [0.5, 2.0, 4.0]}, t_eval=[0, 0.1, 0.9], lanes=lanes
        )
    # Where 1/x is below HUGE^-1 or the step is at the spacing of floats; errors in x shift it by about rtol.
    np.testing.assert_allclose(ens.t_failed.values[1:], [0.5, 0.25], rtol=1e-8)
    np.testing.assert_allclose(ens.x.values[:, 1], 1 / (1 - 0.1 * ens.k.values), rtol=1e-8)
    assert np.isnan(ens.x.values[1:, 2]).all()


def test_batch_axes_broadcast_into_members():
    eta, sigma = np.array([[0.5], [1.0]]), np.array([0.0, 0.1, 0.2])
    T = np.stack([np.eye(2)] * 3)
    ens = ensemble(ERF, (0, 1), starts(1), PARAMS | {"eta": eta, "sigma": sigma, "T": T}, t_eval=[0, 1], lanes=False)
    assert ens.sizes["member"] == 6
    assert json.loads(ens.attrs["batch_shape"]) == [2, 3]
    assert ens.eta.dims == ("member",)
    assert ens["T"].dims[0] == "member"
    assert ens.eta.values.tolist() == [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
    assert ens.sigma.values.tolist() == [0.0, 0.1, 0.2] * 2
    assert sorted(json.loads(ens.attrs["varying"])) == ["Q", "R", "T", "eta", "sigma"]
    assert set(json.loads(ens.attrs["parameters"])) == {"a", "b"}
    grid = ens.set_index(member=["batch_0", "batch_1"]).unstack("member")
    noise = (grid.loss - grid.eg).transpose("t", "batch_0", "batch_1")
    np.testing.assert_allclose(noise, np.broadcast_to(sigma**2 / 2, (2, 2, 3)), atol=1e-15)
    one = solve.integrate(
        ERF, (0, 1), {n: v[0] for n, v in starts(1).items()}, PARAMS | {"eta": 1.0, "sigma": 0.2}, t_eval=[0, 1]
    )
    assert ens.eg.values[5].tobytes() == one.eg.values.tobytes()


def test_without_batch_axes_there_is_one_member():
    y0 = {name: value[0] for name, value in starts(1).items()}
    ens = ensemble(ERF, (0, 1), y0, PARAMS | {"eta": 1.0})
    assert dict(ens.eg.sizes) == {"member": 1, "t": 101}
    assert json.loads(ens.attrs["y0"]).keys() == {"Q", "R"}


def test_vectors_vary_with_their_own_axis_last():
    """A vector's only axis is its own: (M,) is one value for all members, (N, M) is one for each."""
    a = np.array([[1.0, 0.5], [0.3, 1.0], [1.0, 1.0]])
    varying = PARAMS | {"eta": 1.0, "a": a, "b": [1.0, 2.0]}
    ens = ensemble(ERF, (0, 1), starts(3), varying, t_eval=[0, 1], lanes=False)
    together = ensemble(ERF, (0, 1), starts(3), varying, t_eval=[0, 1])
    np.testing.assert_allclose(together.R, ens.R, atol=1e-8)  # 100 times rtol
    for m in range(3):
        given = {n: v[m] for n, v in starts(3).items()}
        one = solve.integrate(ERF, (0, 1), given, PARAMS | {"eta": 1.0, "a": a[m], "b": [1.0, 2.0]}, t_eval=[0, 1])
        assert ens.R.values[m].tobytes() == one.R.values.tobytes()


def test_packed_as_for_single_trajectories():
    """What the compiled loop reads of each member is what layout packs for one."""
    y0, params = starts(4), PARAMS | {"eta": etas(4), "T": np.stack([np.eye(2) * (1 + m) for m in range(4)])}
    batch = read_batch(ERF, y0, params)
    places = gram_places(ERF, batch.common)
    for m in range(4):
        own = {n: v[m] for n, v in y0.items()}, params | {"eta": params["eta"][m], "T": params["T"][m]}
        inputs = read_inputs(ERF, *own)
        par = batch.par.copy()
        par[batch.columns] = batch.values[m]
        assert batch.y0[m].tobytes() == pack(ERF.states, inputs.y0).tobytes()
        assert par.tobytes() == parameter_vector(ERF, inputs).tobytes()
        gram = gram_matrix(ERF, inputs.params | inputs.y0)
        assert (np.concatenate([batch.y0[m], par])[places] == gram).all()


def test_keep_returns_only_what_is_asked_for(fifty, lanes):
    y0, params = starts(50), PARAMS | {"eta": etas(50)}
    for keep in (["eg"], "R", ["cosine", "Q"]):
        ens = ensemble(ERF, (0, 20), y0, params, t_eval=TIMES, keep=keep, lanes=lanes)
        names = [keep] if isinstance(keep, str) else keep
        assert set(ens.data_vars) == {*names, "status", "t_failed"}
        assert_same(ens, fifty[list(ens.data_vars)])


def test_restart_from_the_last_states(fifty):
    rest = ensemble(ERF, (20, 21), fifty.isel(t=-1), PARAMS | {"eta": etas(50)}, t_eval=[20, 21])
    assert rest.R.isel(t=0).values.tobytes() == fifty.R.isel(t=-1).values.tobytes()


def test_survives_netcdf(tmp_path):
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        ens = ensemble(by_hand(RATE * X**2), (0, 1), {"x": 1.0}, {"k": [0.5, 2.0]}, t_eval=[0, 0.9])
    ens.to_netcdf(tmp_path / "ens.nc")
    with xr.open_dataset(tmp_path / "ens.nc") as again:
        xr.testing.assert_equal(again.load(), ens)


def bad(**change):
    given = {"y0": starts(4), "params": PARAMS | {"eta": etas(4)}, "t_span": (0, 1)} | change
    return given


NOT_OVERLAPS = {"Q": starts(4)["Q"] * np.array([1, 1, 0.01, 1])[:, None, None], "R": starts(4)["R"]}
SKEW = {"Q": starts(4)["Q"] + np.array([0, 0.1, 0, 0])[:, None, None] * np.eye(2)[[1, 1]], "R": starts(4)["R"]}


@pytest.mark.parametrize(
    ("argument", "words", "change"),
    [
        ("params['eta']", "broadcast", {"params": PARAMS | {"eta": etas(3)}}),
        ("params['eta']", "in member 2", {"params": PARAMS | {"eta": np.array([1, 1, np.nan, 1])}}),
        ("params['eta']", "in member 1", {"params": PARAMS | {"eta": np.array([1.0, -1.0, 1.0, 1.0])}}),
        ("params['eta']", "numbers", {"params": PARAMS | {"eta": ["a", "b", "c", "d"]}}),
        ("params['eta']", "at least one member", {"params": PARAMS | {"eta": []}}),
        ("params['etta']", "eta", {"params": PARAMS | {"eta": 1.0, "etta": 1.0}}),
        ("params", "eta", {"params": PARAMS}),
        ("y0", "in member 2", {"y0": NOT_OVERLAPS}),
        ("y0['Q']", "in member 1", {"y0": SKEW}),
        ("y0['Q']", "shape", {"y0": starts(4) | {"Q": np.ones((4, 3, 2))}}),
        ("y0", "dict", {"y0": 3}),
        ("params", "dict", {"params": None}),
        ("t_span", "times", {"t_span": (0, 0)}),
        ("t_eval", "within", {"t_eval": [0, 2]}),
        ("rtol", "at least", {"rtol": 1e-16}),
        ("max_step", "positive", {"max_step": 0}),
        ("first_step", "positive", {"first_step": -1}),
        ("threads", "positive", {"threads": 0}),
        ("threads", "positive", {"threads": 1.5}),
        ("keep", "did you mean 'eg'", {"keep": ["egg"]}),
        ("keep", "at least one", {"keep": []}),
    ],
)
def test_bad_arguments_are_named(argument, words, change):
    arguments = bad(**change)
    with pytest.raises(derive.ModelError, match=words) as caught:
        ensemble(ERF, **arguments)
    assert caught.value.argument == argument


def test_other_kinds_of_equations_are_refused():
    with pytest.raises(derive.NotYet):
        ensemble(dataclasses.replace(by_hand(-RATE * X), kind="formula"), (0, 1), {"x": 1.0}, {"k": [1.0, 2.0]})
    with pytest.raises(derive.ModelError, match="did you mean"):
        ensemble(ERF, (0, 1), starts(2), PARAMS | {"eta": 1.0}, method="DOP854")


def test_interruption_keeps_what_is_finished(lanes):
    """Half the members take no time, the others for ever: Ctrl-C, a second later, returns what is finished by then."""
    fast = np.arange(64) % 2 == 0
    dyn = by_hand(-RATE * X)
    options = {"t_eval": [0, 1], "max_steps": 10**9, "lanes": lanes, "threads": 2}
    ensemble(dyn, (0, 1), {"x": 1.0}, {"k": 1.0}, **options)  # compiled before the clock starts
    timer = threading.Timer(1.0, _thread.interrupt_main)
    timer.start()
    with pytest.warns(RuntimeWarning, match=r"interrupted with \d+ of 64 members finished"):
        ens = ensemble(dyn, (0, 1), {"x": 1.0}, {"k": np.where(fast, 1.0, 1e9)}, **options)
    assert ens.attrs["status"] == "interrupted"
    finished = ens.status.values == "success"
    assert 0 < finished.sum() <= fast.sum()
    assert fast[finished].all(), "the slow ones cannot have finished"
    assert (ens.status.values[~finished] == "interrupted").all()
    assert np.isnan(ens.x.values[~finished]).all()
    np.testing.assert_allclose(ens.x.values[finished, -1], np.exp(-1.0), rtol=1e-9)


def test_large_systems_go_one_by_one():
    """What has no kernel in lanes is integrated one member at a time, with the bits of single trajectories."""
    K, eta = 6, [0.5, 1.0, 1.5]
    start = {"Q": 0.3 * np.eye(K) + 0.1, "R": np.full((K, K), 0.05) + 0.1 * np.eye(K)}
    params = {"sigma": 0.0, "T": np.eye(K), "a": 1.0, "b": 1.0}
    assert lane_kernel(ERF, {"K": K, "M": K}) is None
    ens = ensemble(ERF, (0, 2), start, params | {"eta": eta}, t_eval=[0, 1, 2])
    for m in range(3):
        one = solve.integrate(ERF, (0, 2), start, params | {"eta": eta[m]}, t_eval=[0, 1, 2])
        assert ens.R.values[m].tobytes() == one.R.values.tobytes()


def test_larger_systems_go_in_lanes_where_that_is_asked_for():
    """``"long"``: h² at K = M = 3, with half as many operations again as are put into lanes by themselves."""
    square, K = derive.TeacherStudent(activation="square").dynamics(), 3
    sizes = {"K": K, "M": K}
    assert lane_kernel(square, sizes) is None and lane_kernel(square, sizes, long=True) is not None
    assert lane_kernel(ERF, {"K": 10, "M": 10}, long=True) is None
    start = {"Q": 0.3 * np.eye(K) + 0.1, "R": np.full((K, K), 0.05) + np.diag(np.linspace(0.1, 0.2, K))}
    params = {"sigma": 0.0, "T": np.eye(K), "a": 1.0, "b": 1.0, "eta": np.linspace(0.01, 0.05, 20)}
    call = dict(t_span=(0, 2), y0=start, params=params, t_eval=[0, 1, 2])
    alone, together = ensemble(square, **call), ensemble(square, **call, lanes="long")
    assert not np.array_equal(alone.Q, together.Q)  # sums are in another order
    np.testing.assert_allclose(together.Q, alone.Q, rtol=1e-8, atol=1e-8)  # 100 times rtol = 1e-10
    with pytest.raises(derive.ModelError, match="'long'"):
        ensemble(square, **call, lanes="wide")


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), which=st.sampled_from([("erf", 2), ("square", 2), ("linear", 2), ("relu", 1)]))
def test_a_kernel_in_lanes_is_the_kernel_in_each(seed, which):
    """Sixteen states with parameters of their own: within a few ulp of the terms, which LLVM adds as it likes."""
    activation, K = which
    dyn = derive.TeacherStudent(activation=activation).dynamics()
    y0 = {name: value[:, :K, :K] for name, value in starts(16, seed).items()}
    params = PARAMS | {"eta": np.random.default_rng(seed).uniform(0.1, 2, 16), "T": np.eye(K)}
    batch, one = read_batch(dyn, y0, params), solve.kernel(dyn)
    compiled = lane_kernel(dyn, batch.common.sizes)
    par = np.tile(batch.par, (16, 1))
    par[:, batch.columns] = batch.values
    found, work = np.full((batch.y0.shape[1], 16), np.nan), np.zeros(one.workspace_size(batch.common.sizes))
    arrays = [np.zeros(16), batch.y0.T.copy(), found, par.T.copy(), work]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)(compiled.address)(*(a.ctypes.data for a in arrays))
    for lane in range(16):
        expected = np.empty(len(found))
        one(0.0, batch.y0[lane].copy(), expected, par[lane].copy(), work)
        np.testing.assert_allclose(found[:, lane], expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())


def test_progress_counts_members(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ensemble(ERF, (0, 1), starts(5), PARAMS | {"eta": 1.0}, progress=True)
    assert "5/5" in capsys.readouterr().err


EVENTS = (solve.Event("eg - 0.02", terminal=True, direction=-1), "R[1, 1] - 0.3")


@pytest.mark.parametrize("method", ["DOP853", "DOPRI5", "Radau5", "auto"])
def test_events_and_methods_are_those_of_the_single_trajectory(method):
    """Bit for bit, whatever the threads: the same compiled loop. The terminal event of a member ends that one alone."""
    y0 = {"Q": np.diag([0.5, 0.6]), "R": 0.05 + np.diag([0.1, 0.2])}
    params, eta = {"sigma": 0.0, "T": np.eye(2), "a": 1.0, "b": 1.0}, np.array([0.3, 0.5, 0.8, 0.0])
    options = {"t_eval": np.linspace(0, 12, 7), "rtol": 1e-7, "events": EVENTS, "method": method}
    ens = ensemble(ERF, (0, 12), y0, params | {"eta": eta}, **options, threads=2)
    assert ens.status.values.tolist() == ["event", "event", "event", "success"]
    assert ens.stopped.values.tolist() == [0, 1, 2]
    for m in range(4):
        one = solve.integrate(ERF, (0, 12), y0, params | {"eta": eta[m]}, **options)
        mine = ens.event_member.values == m
        assert ens.t_event.values[mine].tobytes() == one.t_event.values.tobytes()
        assert ens.event_name.values[mine].tolist() == one.event_name.values.tolist()
        kept = np.isin(one.t, ens.t)
        assert ens.R.values[m, : kept.sum()].tobytes() == one.R.values[kept].tobytes()
        assert np.isnan(ens.R.values[m, kept.sum() :]).all()
        if ens.status.values[m] == "event":
            assert ens.R_stopped.sel(stopped=m).values.tobytes() == one.R.values[-1].tobytes()
    assert np.isnan(ens.t_failed).all() and ens.attrs["n_failed"] == 0


def test_many_events_a_member_are_all_kept():
    """x'' = −x: x vanishes at π/2 + nπ, 318 times up to t = 1000: more than a thread's first log has room for."""
    v = sympy.Symbol("v", real=True)
    drift = (Equation(derive.Quantity("x"), RATE * v), Equation(derive.Quantity("v"), -RATE * X))
    dyn = derive.Dynamics("an oscillator", "ode", "t", drift, (derive.Quantity("k"),))
    ens = ensemble(dyn, (0, 1000), {"x": 1.0, "v": 0.0}, {"k": [1.0, 0.5]}, t_eval=[1000], events="x", threads=1)
    for m, k in enumerate((1.0, 0.5)):
        found = ens.t_event.values[ens.event_member.values == m]
        expected = (np.pi / 2 + np.pi * np.arange(int(1000 * k / np.pi + 0.5))) / k
        # rtol 1e-10 a step, some 1000 steps, errors adding up
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["DOP853", "DOPRI5", "Adams", "Radau5"])
def test_outputs_are_stored_in_pieces_wherever_steps_end(method):
    """Bit for bit those of one trajectory, which has room for all: steps have more outputs than the 16 that a thread
    keeps, and a terminal event comes in the middle of a step.
    """
    times = np.linspace(0, 20, 6001)
    y0 = {"Q": np.diag([0.5, 0.6]), "R": 0.05 + np.diag([0.1, 0.2])}
    params, eta = {"sigma": 0.0, "T": np.eye(2), "a": 1.0, "b": 1.0}, np.array([0.02, 0.5])
    event = solve.Event("eg - 0.1", terminal=True)
    options = {"t_eval": times, "rtol": 1e-6, "method": method, "events": [event]}
    ens = ensemble(ERF, (0, 20), y0, params | {"eta": eta}, **options, lanes=False)
    assert ens.status.values.tolist() == ["success", "event"]
    for m in range(2):
        one = solve.integrate(ERF, (0, 20), y0, params | {"eta": eta[m]}, **options)
        kept = len(one.t) - m  # but the state at the event
        assert kept / one.attrs["n_steps"] > 17, "no step with more outputs than are kept"
        for name in ("Q", "R", "eg"):
            assert ens[name].values[m, :kept].tobytes() == one[name].values[:kept].tobytes(), name
        assert np.isnan(ens.R.values[m, kept:]).all()
    assert ens.R_stopped.values[0].tobytes() == one.R.values[-1].tobytes()


def test_a_large_member_is_not_held_in_full():
    """Ten times the output times take ten times the output of what is kept, and no more besides than the times do."""
    K = 12
    start = {"Q": 0.3 * np.eye(K) + 0.1, "R": np.full((K, K), 0.05) + 0.1 * np.eye(K)}
    params = {"sigma": 0.0, "T": np.eye(K), "a": 1.0, "b": 1.0, "eta": [0.5, 0.6]}

    def beyond_output(T):
        tracemalloc.start()
        try:
            ens = ensemble(ERF, (0, 1), start, params, t_eval=np.linspace(0, 1, T), rtol=1e-6, keep="eg", threads=1)
            return tracemalloc.get_traced_memory()[1] - ens.nbytes
        finally:
            tracemalloc.stop()

    beyond_output(10)  # loaded
    few, many = beyond_output(200), beyond_output(2000)
    # A state is 222 numbers, of which 1800 would be 3.2 MB; a few vectors of 1800 times and of values to look at.
    assert many - few < 5e5


@pytest.mark.parametrize("threads", [1, 3])
def test_maps_are_iterated_as_single_ones_are(threads):
    dyn = LinearRegression("one-pass", "general").dynamics("finite-d")
    params = {"lam": [2.0, 1.0, 0.3], "p": [0.2, 0.3, 0.5], "sigma": 0.5, "d": 20}
    eta, times = np.linspace(0.1, 0.9, 5), [0.0, 0.31, *np.linspace(3, 5, 41)]  # more than 16
    ens = ensemble(dyn, (0, 5), {"c": [0.5, 1.0, 0.7]}, params | {"eta": eta}, t_eval=times, threads=threads)
    assert ens.attrs["method"] == "map"
    for m in range(5):
        one = solve.integrate(dyn, (0, 5), {"c": [0.5, 1.0, 0.7]}, params | {"eta": eta[m]}, t_eval=times)
        for name in ("t", "c", "eg"):
            assert ens[name].values[m if name != "t" else ...].tobytes() == one[name].values.tobytes(), name
    with pytest.raises(derive.ModelError, match="one value"):
        ensemble(dyn, (0, 5), {"c": [0.5, 1.0, 0.7]}, params | {"eta": 0.1, "d": [10, 20]})


def test_a_map_that_diverges_is_told():
    dyn = dataclasses.replace(by_hand(RATE * X), kind="map", clock="steps")
    with pytest.warns(RuntimeWarning, match="1 of 2 members failed, first member 1 .diverged"):
        ens = ensemble(dyn, (0, 600), {"x": 1.0}, {"k": [0.0, 9.0]}, t_eval=[0, 100, 600])
    assert ens.x.values[0].tolist() == [1, 1, 1]
    np.testing.assert_allclose(ens.x.values[1, :2], [1, 1e100], rtol=1e-13)  # 100 roundings
    assert np.isnan(ens.x.values[1, 2])
    assert float(ens.t_failed[1]) in (299, 300)  # 1e300, to rounding, is the bound of what counts as finite


def test_numerical_expectations_go_into_ensembles():
    dyn = derive.TeacherStudent(activation="tanh").dynamics()
    params, start = {"sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0}, {"Q": [[0.5]], "R": [[0.1]]}
    ens = ensemble(dyn, (0, 1), start, params | {"eta": [0.3, 0.7]}, t_eval=[0, 1], rtol=1e-6)
    one = solve.integrate(dyn, (0, 1), start, params | {"eta": 0.7}, t_eval=[0, 1], rtol=1e-6)
    assert dyn.tables and ens.eg.values[1].tobytes() == one.eg.values.tobytes()


def test_hazards_are_warned_of_once_with_counts():
    alike, apart = np.full((2, 2), 0.1), np.array([[0.1, 0.1], [0.1, 0.2]])
    start = {"Q": 0.5 * np.eye(2), "R": np.stack([apart, alike, alike])}
    with pytest.warns(solve.SymmetricStart, match="in 2 of 3 members, first member 1,"):
        ensemble(ERF, (0, 1), start, PARAMS | {"eta": 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # second-layer weights tell them apart
        ensemble(ERF, (0, 1), start, PARAMS | {"eta": 0.5, "a": [1.0, 0.9]})
    eg = np.array([[0.1, -1e-7], [0.1, 1e-7], [0.1, -1.0]])
    solution = xr.Dataset({"eg": (("member", "t"), eg)})
    with pytest.warns(solve.BelowResolution, match="of 1 of 3 members, first member 0;"):
        flag_below_resolution(solution, 1e-10, 1e-12)
    assert solution.attrs["eg_resolution"] == 1e4 * 1.01e-10


@pytest.mark.parametrize("lanes", [True, False])
def test_the_working_set_is_the_output_and_a_state_a_thread(lanes):
    """Four times the members take four times the output, and what else is taken grows by the inputs of the members."""

    def beyond_output(members):
        y0, eta = starts(members), etas(members)
        tracemalloc.start()
        try:
            ens = ensemble(ERF, (0, 1), y0, PARAMS | {"eta": eta}, t_eval=np.linspace(0, 1, 100), lanes=lanes)
            return tracemalloc.get_traced_memory()[1] - ens.nbytes
        finally:
            tracemalloc.stop()

    beyond_output(4)  # loaded
    few, many = beyond_output(100), beyond_output(400)
    # a member: 7 states packed and as given, copies of both in the checks; its output is 17600 bytes
    assert (many - few) / 300 < 1500
    assert few < 3e5  # less than the output of 20 members, at two threads and T = 100


@pytest.mark.parametrize("slip", [0.0, 0.4, 0.6, 2.0, 1e3])
def test_overlaps_are_admitted_as_by_their_eigenvalues(slip):
    """The quick look at all members admits none that eigenvalues would refuse: ``slip`` tolerances below zero."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20, 4, 3))  # four vectors in three dimensions: one eigenvalue is zero
    gram = vectors @ np.swapaxes(vectors, 1, 2)
    values, axes = np.linalg.eigh(gram)
    values[7, 0] = -slip * PSD_TOLERANCE * 4 * values[7, -1]
    gram[7] = axes[7] @ np.diag(values[7]) @ axes[7].T
    low, high = np.linalg.eigvalsh(gram).T[[0, -1]]
    admitted = (low >= -PSD_TOLERANCE * 4 * high).all()
    assert not has_factors(gram) or admitted
    if slip in (0.0, 2.0, 1e3):  # between these it may leave the decision to the eigenvalues
        assert has_factors(gram) == (slip == 0.0)


def test_resolution_is_that_of_each_member_whatever_its_values():
    rng = np.random.default_rng(0)
    eg = rng.normal(size=(40, 7)) * 10.0 ** rng.integers(-9, 3, size=(40, 1))
    eg[3], eg[5, 2], eg[8, :3], eg[9, 1] = np.nan, np.nan, np.inf, -np.inf
    found, negative = resolved(eg, 1e-8, 1e-10)
    for row, resolution, flagged in zip(eg, found, negative, strict=True):
        finite = row[np.isfinite(row)]
        largest = max(1.0, *np.abs(finite)) if finite.size else 1.0
        assert resolution == 1e4 * (1e-8 * largest + 1e-10)
        assert flagged == ((finite < 0) & (finite >= -resolution)).any()


def test_members_are_shared_out_once_and_without_rest():
    for members, threads in ((1, 1), (7, 3), (10_000, 2), (16, 16)):
        ranges = member_ranges(members, threads)[:, :2]
        taken = np.concatenate([np.arange(first, end) for first, end in ranges])
        assert taken.tolist() == list(range(members))
        assert np.ptp(ranges[:, 1] - ranges[:, 0]) <= 1
