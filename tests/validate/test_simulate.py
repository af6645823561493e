"""The public call: streams, times, storage, errors at the door, divergence and interruption."""

import json
import pickle
import warnings

import numpy as np
import pytest
import xarray as xr

from effdyn import solve
from effdyn.derive import ModelError, TeacherStudent
from effdyn.validate import replicas
from effdyn.validate.simulate import SimulationDiverged, simulate

MODEL = TeacherStudent(activation="erf")
TRAINED = TeacherStudent(activation="erf", second_layer="trained")
Y0 = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]])
PARAMS = dict(eta=0.8, sigma=0.1, T=np.eye(2), a=1.0, b=1.0)


def run(model=MODEL, **changes):
    return simulate(
        model, **(dict(d=30, runs=5, t_span=(0, 3), t_eval=[0, 1, 3], y0=Y0, params=PARAMS, rng=7) | changes)
    )


def test_contents():
    result = run()
    assert dict(result.Q.sizes) == {"run": 5, "t": 3, "student": 2, "student_2": 2}
    assert list(result.R.dims) == ["run", "t", "student", "teacher"] and list(result.eg.dims) == ["run", "t"]
    assert "a" not in result
    assert result.t.values.tolist() == [0, 1, 3]
    trained = run(TRAINED, y0=Y0 | dict(a=1.0), params={k: v for k, v in PARAMS.items() if k != "a"} | dict(eta_a=0.5))
    assert list(trained.a.dims) == ["run", "t", "student"]


def test_theory_and_simulation_have_the_same_variables_and_attributes():
    ratios = dict(Q=Y0["Q"], R=Y0["R"], a=1.0), {k: v for k, v in PARAMS.items() if k != "a"} | dict(eta_a=0.5)
    for model, y0, params in ((MODEL, Y0, PARAMS), (TRAINED, *ratios)):
        result = run(model, y0=y0, params=params)
        theory = solve.integrate(model.dynamics(), (0, 3), y0, params, t_eval=result.t)
        assert set(result.data_vars) == set(theory.data_vars)
        for name in theory.data_vars:
            assert result[name].dims == ("run", *theory[name].dims) and result[name].attrs == theory[name].attrs
            np.testing.assert_allclose(result[name][:, 0], np.broadcast_to(theory[name][0], result[name][:, 0].shape))
        for key in ("title", "model", "clock", "versions", "status"):
            assert result.attrs[key] == theory.attrs[key], key
        for key in ("parameters", "y0"):
            assert json.loads(result.attrs[key]) == json.loads(theory.attrs[key])
        assert "finite d" in result.attrs["simulation_status"]


def test_observables_are_functions_of_each_run():
    result = run()
    assert np.allclose(result.loss, result.eg + PARAMS["sigma"] ** 2 / 2, rtol=1e-15)
    assert np.allclose(result.cosine[..., 0, 1], result.R[..., 0, 1] / np.sqrt(result.Q[..., 0, 0]))  # T = 1
    length = np.sqrt(result.Q[..., 0, 0] * result.Q[..., 1, 1])
    assert np.allclose(result.cosine_students[..., 0, 1], result.Q[..., 0, 1] / length)
    assert np.allclose(result.cosine_students[..., 1, 1], 1.0)


def test_a_vector_of_length_zero_has_no_direction():
    for store in ("runs", "moments"):
        result = run(y0=dict(Q=np.zeros((2, 2)), R=np.zeros((2, 2))), store=store)
        assert result.cosine.sel(t=0).isnull().all() and result.cosine.sel(t=3).notnull().all()


def test_attributes_survive_netcdf(tmp_path):
    result = run()
    result.to_netcdf(tmp_path / "mc.nc")
    with xr.open_dataset(tmp_path / "mc.nc") as back:
        assert dict(back.attrs) == result.attrs
        assert back.equals(result)
    assert json.loads(result.attrs["parameters"])["T"] == np.eye(2).tolist()
    assert result.attrs["clock"] == "steps/d" and result.attrs["model"] == repr(MODEL)


# ── Streams ──


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_same_bits_for_any_number_of_threads_of_runs_of_dimensions_and_of_times(engine):
    reference = run(engine=engine, threads=1, align=False)
    assert reference.identical(run(engine=engine, threads=3, align=False))
    more = run(engine=engine, runs=9, align=False).isel(run=slice(5))
    assert (more.R == reference.R).all() and (more.Q == reference.Q).all()
    study = run(engine=engine, d=[60, 30], align=False).sel(d=30)
    assert (study.R == reference.R).all()
    fine = run(engine=engine, t_eval=None, align=False)
    assert (fine.R.sel(t=3) == reference.R.sel(t=3)).all()
    assert not (reference.R.isel(run=0, t=2) == reference.R.isel(run=1, t=2)).any()


def test_seeds():
    assert run(rng=np.random.SeedSequence(7)).R.equals(run(rng=7).R)
    assert not run(rng=8).R.equals(run(rng=7).R)
    generator = np.random.default_rng(3)
    first, second = run(rng=generator), run(rng=generator)
    assert not first.R.equals(second.R)
    assert run(rng=np.random.default_rng(3)).R.equals(first.R)
    fresh = run(rng=None)
    recorded = json.loads(fresh.attrs["seed"])
    assert run(rng=np.random.SeedSequence(int(recorded["entropy"]), spawn_key=recorded["spawn_key"])).R.equals(fresh.R)


# ── Times ──


def test_times_are_whole_steps():
    result = run(d=30, t_span=(1, 2), t_eval=[1, 1.01, 1.02, 1.5])
    assert np.allclose(result.t, [1, 1 + 1 / 30, 1.5], rtol=1e-15), "1.01 rounds to the start, 1.02 to one step"
    assert run(d=30, t_eval=None, t_span=(0, 10)).sizes["t"] == 101
    scaled = run(clock="eta*steps/d")
    assert np.allclose(scaled.t * 30 / 0.8, np.rint(scaled.t * 30 / 0.8)) and abs(scaled.t[-1] - 3) <= 0.4 / 30


def test_the_clock_only_renames_times():
    steps, scaled = run(t_span=(0, 2.5), t_eval=[0, 2.5]), run(t_span=(0, 2), t_eval=[0, 2], clock="eta*steps/d")
    assert (steps.R.values == scaled.R.values).all()


def test_several_dimensions():
    result = run(d=[20, 50])
    assert list(result.Q.dims)[:3] == ["run", "d", "t"] and result.d.values.tolist() == [20, 50]
    assert (abs(result.t_true - result.t) <= 0.5 / result.d + 1e-12).all()
    late = run(d=[20, 50], t_span=(1, 3), t_eval=[2, 3])  # counted from t_span[0], not from the first saved time
    assert (abs(late.t_true - late.t) <= 0.5 / late.d + 1e-12).all() and late.t.values.tolist() == [2, 3]


def test_moments():
    runs, moments = run(), run(store="moments")
    for name in ("Q", "R", "eg"):
        assert np.allclose(moments[name], runs[name].mean("run"), rtol=1e-14)
        assert np.allclose(moments[f"{name}_std"], runs[name].std("run", ddof=1), rtol=1e-12)
    assert moments.attrs["runs"] == 5 and "run" not in moments.dims


# ── Errors at the door ──

WITHOUT_A = {k: v for k, v in PARAMS.items() if k != "a"}
BAD = [
    (dict(y0=dict(Q=Y0["Q"])), "y0", "missing 'R'"),
    (dict(params=dict(eta=1.0)), "params", "missing 'sigma', 'T', 'a', 'b'"),
    (dict(params=PARAMS | dict(etta=1.0)), "params['etta']", "did you mean 'eta'"),
    (dict(params=PARAMS | dict(kappa=1.0)), "params['kappa']", "one of eta, sigma, T, a, b"),
    (dict(y0=Y0 | dict(a=1.0)), "y0['a']", "belongs in params"),
    (dict(y0=Y0 | dict(a=1.0), params=WITHOUT_A), "y0['a']", "belongs in params"),
    (dict(y0=Y0 | dict(Q=np.eye(3))), "y0['Q']", r"\(2, 2\)"),
    (dict(y0=Y0 | dict(Q=[[1, 0.1], [0.2, 1]])), "y0['Q']", "symmetric"),
    (dict(y0=Y0 | dict(R=[0.1, 0.2])), "y0['R']", r"\(K, M\)"),
    (dict(y0=Y0 | dict(R=[[0.9, 0.0], [0.0, 0.9]])), "y0", "no negative eigenvalue"),
    (dict(y0=Y0 | dict(R=[[np.nan, 0.0], [0.0, 0.9]])), "y0['R']", "finite"),
    (dict(y0=Y0 | dict(R="many")), "y0['R']", "numbers, shape"),
    (dict(y0=[1, 2]), "y0", "a dict"),
    (dict(params=PARAMS | dict(T=np.eye(3))), "params['T']", r"\(2, 2\)"),
    (dict(params=PARAMS | dict(a=[1.0, 2.0, 3.0])), "params['a']", r"\(2,\)"),
    (dict(params=PARAMS | dict(sigma=-0.1)), "params['sigma']", "at least 0"),
    (dict(params=PARAMS | dict(eta=-0.1)), "params['eta']", "at least 0"),
    (dict(params=PARAMS | dict(eta=[0.1, 0.2])), "params['eta']", "a scalar"),
    (dict(params=PARAMS | dict(eta=np.inf)), "params['eta']", "finite"),
    (dict(params=PARAMS | dict(eta=0.0), clock="eta*steps/d"), "params['eta']", "positive"),
    (dict(d=3), "d", "at least 4"),
    (dict(d=0), "d", "positive"),
    (dict(d=10.5), "d", "whole number"),
    (dict(d=[]), "d", "whole number"),
    (dict(d=[10, 10]), "d", "once"),
    (dict(runs=0), "runs", "at least 1"),
    (dict(threads=0), "threads", "at least 1"),
    (dict(engine="grem"), "engine", "did you mean 'gram'"),
    (dict(init="exactly"), "init", "did you mean 'exact'"),
    (dict(store="all"), "store", "'moments'"),
    (dict(align="yes"), "align", "'auto'"),
    (dict(clock="epochs"), "clock", "'steps/d'"),
    (dict(t_span=(3, 0)), "t_span", "first not after"),
    (dict(t_eval=[0, 5]), "t_eval", "t_span"),
    (dict(t_eval=[2, 1]), "t_eval", "ascending"),
    (dict(rng="seed"), "rng", "seed"),
    (dict(rng=-1), "rng", "seed"),
]


@pytest.mark.parametrize(("changes", "argument", "message"), BAD, ids=[f"{b[1]}-{b[2][:12]}" for b in BAD])
def test_mistakes_are_named(changes, argument, message):
    with pytest.raises(ModelError, match=message) as caught:
        run(**changes)
    assert caught.value.argument == argument


def test_a_trained_second_layer_is_a_state():
    with pytest.raises(ModelError, match="belongs in y0"):
        run(TRAINED, y0=Y0, params=PARAMS | dict(eta_a=1.0))
    with pytest.raises(ModelError, match="missing 'a'"):
        run(TRAINED, y0=Y0, params=WITHOUT_A | dict(eta_a=1.0))


# ── Divergence and interruption ──


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_divergence_is_an_error_with_what_is_left(engine):
    """The square activation at a learning rate where some replicas explode and others do not."""
    with pytest.raises(SimulationDiverged, match="replicas diverged") as caught:
        simulate(
            TeacherStudent(activation="square"),
            d=10,
            runs=40,
            t_span=(0, 6),
            t_eval=[0, 6],
            y0=dict(Q=[[0.5]], R=[[0.2]]),
            params=dict(eta=0.35, sigma=0.0, T=[[1.0]], a=1.0, b=1.0),
            engine=engine,
        )
    error = caught.value
    assert 0 < error.count < 40 and error.partial.sizes["run"] == 40 - error.count
    assert error.d == 10 and 0 < error.t <= 6 and error.run not in error.partial.run
    assert np.isfinite(error.partial.R).all() and set(error.state) == {"Q", "R", "a"}
    assert pickle.loads(pickle.dumps(error)).run == error.run


def _interrupt_after(monkeypatch, calls):
    """Press Ctrl-C in the main thread once some replicas are finished."""
    original, count = replicas._trajectory, [0]

    def trajectory(*args):
        result = original(*args)
        count[0] += 1
        return result

    def wait(pending, **_):
        while count[0] < calls:
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(replicas, "_trajectory", trajectory)
    monkeypatch.setattr(replicas, "wait", wait)


def test_interruption_keeps_finished_runs(monkeypatch):
    whole = run(runs=3, d=[20, 500], t_span=(0, 50), t_eval=[0, 50])
    _interrupt_after(monkeypatch, calls=7)
    with pytest.warns(RuntimeWarning, match="of 400 runs were finished"):
        result = run(runs=400, d=[20, 500], t_span=(0, 50), t_eval=[0, 50], threads=1)
    assert result.attrs["status"] == "interrupted" and 3 <= result.sizes["run"] < 400
    assert (result.R.isel(run=slice(3)) == whole.R).all()


def test_interruption_before_anything_is_finished(monkeypatch):
    _interrupt_after(monkeypatch, calls=0)
    with pytest.raises(KeyboardInterrupt):
        run(d=100_000, t_span=(0, 100), t_eval=[0, 100], runs=2)


def test_an_error_inside_a_replica_is_raised(monkeypatch):
    def broken(*_):
        raise RuntimeError("from a thread")

    monkeypatch.setattr(replicas, "_trajectory", broken)
    with pytest.raises(RuntimeError, match="from a thread"):
        run()


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(progress=False)


def test_an_error_that_is_not_finite_is_warned_of():
    """E[1/h²] does not exist; the weights still move."""
    with pytest.warns(RuntimeWarning, match="eg is not finite"):
        result = simulate(
            TeacherStudent(activation="1/x", teacher_activation="linear"),
            d=50,
            runs=2,
            t_span=(0, 0.1),
            t_eval=[0, 0.1],
            y0={"Q": [[1.0]], "R": [[0.5]]},
            params={"eta": 1e-9, "sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0},
            progress=False,
        )
    assert not np.isfinite(result.eg).any()
