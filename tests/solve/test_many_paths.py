"""Ensembles and sweeps of stochastic equations: each path is what ``integrate`` gives; moments; failures; streams."""

import _thread
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import sympy
import xarray as xr

from effdyn import derive, solve
from effdyn.derive import Dynamics, Equation, ModelError, Quantity
from effdyn.derive.diffusion import Amplitude, Covariation
from effdyn.solve import ensemble, sweep
from effdyn.solve.ensembles.paths import BLOCK_RUNS

x, k, s, W = Quantity("x"), Quantity("k"), Quantity("s"), Quantity("W")
SQUARE = Equation(Quantity("sq"), x.symbol**2)


def sde(drift, amplitude, parameters):
    noise = (Amplitude(x, W, amplitude),)
    return Dynamics("test", "sde", "t", (Equation(x, drift),), parameters, (SQUARE,), diffusion=noise)


RELAXING = sde(-k.symbol * x.symbol, s.symbol, (k, s))
GROWING = sde(k.symbol * x.symbol, s.symbol * x.symbol, (k, s))
CUBIC = sde(k.symbol * x.symbol**3, s.symbol, (k, s))
"""Escapes to infinity at t = 1/(2 k x**2) without noise: at once, in steps, from large x."""
RATES = np.array([0.5, 1.0, 2.0])
CALL = dict(t_span=(0, 1), y0=dict(x=1.0), params=dict(k=RATES, s=0.3), dt=0.02, t_eval=[0, 0.5, 1])
CELLS = dict(over=dict(k=RATES), t_span=(0, 1), y0=dict(x=1.0), params=dict(s=0.3), dt=0.02, t_eval=[0, 0.5, 1])


def alone(dynamics, member, runs, rng, **changed):
    """One member by itself, its stream spawned from the root of all."""
    own = np.random.SeedSequence(rng).spawn(member + 1)[member]
    call = CALL | dict(params=dict(k=RATES[member], s=0.3), rng=own, runs=runs) | changed
    return solve.integrate(dynamics, **call)


# -- what is computed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["euler-maruyama", "milstein", "weak2"])
def test_members_and_cells_are_what_integrate_gives(method):
    found = ensemble(GROWING, **CALL, runs=4, rng=5, method=method)
    cells = sweep(GROWING, **CELLS, runs=4, rng=5, method=method, progress=False)
    assert found.x.dims == ("run", "member", "t") and cells.x.dims == ("k", "run", "t")
    for member in range(len(RATES)):
        expected = alone(GROWING, member, 4, 5, method=method)
        for name in ("x", "sq"):
            np.testing.assert_array_equal(found[name].isel(member=member), expected[name])
            np.testing.assert_array_equal(cells[name].isel(k=member), expected[name])


def test_the_same_noise_is_that_of_one_seed():
    found = ensemble(RELAXING, **CALL, runs=4, rng=5, same_noise=True, brownian_dt=0.01)
    cells = sweep(RELAXING, **CELLS, runs=4, rng=5, same_noise=True, brownian_dt=0.01, progress=False)
    for member, rate in enumerate(RATES):
        call = CALL | dict(params=dict(k=rate, s=0.3), runs=4, rng=5, brownian_dt=0.01)
        expected = solve.integrate(RELAXING, **call)
        np.testing.assert_array_equal(found.x.isel(member=member), expected.x)
        np.testing.assert_array_equal(cells.x.sel(k=rate), expected.x)


def test_a_path_is_the_same_in_any_company():
    """Bit for bit, whatever the threads, the further members, the further runs and the times."""
    few = ensemble(RELAXING, **CALL, runs=3, rng=1, threads=1)
    more = CALL | dict(params=dict(k=np.append(RATES, [3.0, 4.0]), s=0.3), t_eval=[0.5, 0.7, 1])
    many = ensemble(RELAXING, **more, runs=BLOCK_RUNS + 3, rng=1, threads=4)
    same = many.x.isel(run=slice(3), member=slice(3)).sel(t=[0.5, 1])
    np.testing.assert_array_equal(few.x.sel(t=[0.5, 1]), same)


@pytest.mark.parametrize("average", [False, True])
def test_members_are_independent_of_the_number_of_threads(average):
    call = CALL | dict(runs=5 * BLOCK_RUNS + 7, rng=3, average=average)
    assert ensemble(RELAXING, **call, threads=1).identical(ensemble(RELAXING, **call, threads=5))


def test_averages_are_those_of_the_runs():
    runs = 2 * BLOCK_RUNS + 5
    every = ensemble(RELAXING, **CALL, runs=runs, rng=3)
    found = ensemble(RELAXING, **CALL, runs=runs, rng=3, average=True)
    cells = sweep(RELAXING, **CELLS, runs=runs, rng=3, average=True, progress=False)
    assert (found.n_runs == runs).all() and found.x.dims == ("member", "t")
    rounding = dict(rtol=1e-13, atol=1e-15 * runs)  # sums of as many numbers of order one
    for name in ("x", "sq"):
        np.testing.assert_allclose(found[name], every[name].mean("run"), **rounding)
        np.testing.assert_allclose(found[f"{name}_std"], every[name].std("run", ddof=1), **rounding)
        for what in (name, f"{name}_std"):
            np.testing.assert_array_equal(cells[what], found[what])


def test_variances_are_those_of_the_process():
    runs = 2000
    found = ensemble(RELAXING, **CALL | dict(dt=0.005, runs=runs, rng=11, average=True)).isel(t=-1)
    mean, variance = np.exp(-RATES), 0.3**2 * (1 - np.exp(-2 * RATES)) / (2 * RATES)
    step = 0.005 * RATES**2  # the scheme's (1 - k dt)^n is off by k² dt t / 2 of the mean, and as much of the variance
    assert (abs(found.x - mean) < 5 * (variance / runs) ** 0.5 + step * mean).all()
    assert (abs(found.x_std**2 - variance) < (5 * (2 / runs) ** 0.5 + 2 * step) * variance).all()


def test_batch_axes_broadcast_and_arrays_of_states_vary():
    i, j = sympy.Symbol("i", integer=True), sympy.Symbol("j", integer=True)
    N = sympy.Symbol("N", integer=True, positive=True)
    v, C = Quantity("x", (i,), (N,)), Quantity("C", (i, j), (N, N), symmetric=True)
    noise = (Covariation(v, Quantity("x", (j,), (N,)), C.base[i, j]),)
    process = Dynamics("test", "sde", "t", (Equation(v, -v.symbol),), (C,), diffusion=noise)
    starts = np.array([[[0.0, 1.0]], [[2.0, 3.0]]])  # (2, 1, N)
    covariances = np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.0, 0.0], [0.0, 1.0]], np.eye(2)])  # (3, N, N)
    found = ensemble(process, (0, 1), dict(x=starts), dict(C=covariances), dt=0.1, runs=2, rng=2)
    assert found.sizes["member"] == 6 and found.batch_1.values.tolist() == [0, 1, 2] * 2
    own = np.random.SeedSequence(2).spawn(6)[4]
    call = dict(y0=dict(x=starts[1, 0]), params=dict(C=covariances[1]), dt=0.1, runs=2, rng=own)
    np.testing.assert_array_equal(found.x.isel(member=4), solve.integrate(process, (0, 1), **call).x)
    assert np.ptp(found.x.isel(member=4, x_1=0).values, axis=0).max() == 0  # no noise there


def test_langevin_forms_of_training():
    """Mean and variance over runs at d = 10⁴, against the order-1/d theory, at two learning rates and 3 overlaps."""
    dynamics, runs, d = derive.TeacherStudent(activation="erf").dynamics(), 400, 1e4
    y0, params = dict(Q=[[0.5, 0.1], [0.1, 0.4]], R=[[0.1], [0.2]]), dict(sigma=0.1, T=[[1.0]], a=1.0, b=1.0)
    eta, call = np.array([0.3, 0.6]), dict(t_eval=[0, 1], dt=0.05, rng=4)
    sampled = ensemble(
        dynamics.sde(), (0, 1), y0, params | dict(eta=eta, d=d), keep=["R", "Q"], runs=runs, average=True, **call
    )
    quiet = ensemble(dynamics.sde(), (0, 1), y0, params | dict(eta=eta, d=1e16), keep=["R"], **call)
    cells = sweep(dynamics.sde(), dict(eta=eta), (0, 1), y0, params | dict(d=d), runs=3, progress=False, **call)
    assert cells.eg.dims == ("eta", "run", "t") and (cells.status == "success").all()
    assert set(sampled.data_vars) == {"R", "R_std", "Q", "Q_std", "n_runs", "status", "t_failed"}
    for n, rate in enumerate(eta):
        theory = solve.integrate(dynamics.fluctuations(), (0, 1), y0, params | dict(eta=rate), t_eval=[0, 1])
        variance = theory.R_variance.isel(t=-1).values / d
        shift = abs(theory.R_mean_correction.isel(t=-1).values) / d  # part of which the Langevin form has
        found = sampled.isel(member=n, t=-1)
        off = abs(found.R.values - quiet.R.isel(run=0, member=n, t=-1).values)
        assert (off < 5 * (variance / runs) ** 0.5 + 2 * shift).all()
        # 5 standard errors, and steps of 0.05 at rates of order one: a left sum of a variance that grows from zero
        assert (abs(found.R_std.values**2 / variance - 1) < 5 * (2 / runs) ** 0.5 + 0.05).all()


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_run_that_fails_disturbs_no_other():
    k_, start = np.array([1.0, 1.0]), np.array([0.01, 2.0])  # the second one is beyond all numbers at t = 0.125
    call = dict(t_span=(0, 1), params=dict(k=k_, s=0.1), dt=0.02, t_eval=[0, 0.1, 1], rng=6)
    with pytest.warns(RuntimeWarning, match="5 of 10 runs failed, first run 0 of member 1 .diverged after t = 0"):
        found = ensemble(CUBIC, y0=dict(x=start), **call, runs=5)
    assert (found.status.sel(member=0) == "success").all() and (found.status.sel(member=1) == "diverged").all()
    assert found.failed.values.tolist() == [1] * 5 and found.failed_run.values.tolist() == list(range(5))
    for run in range(5):
        with pytest.raises(solve.Diverged) as error:
            seed = np.random.SeedSequence(6).spawn(2)[1]
            alone_call = call | dict(params=dict(k=1.0, s=0.1), rng=seed, runs=run + 1)
            solve.integrate(CUBIC, y0=dict(x=2.0), **alone_call)
        if run == 0:
            assert found.t_failed.values[0, 1] == error.value.t and found.x_failed.values[0] == error.value.state["x"]
    assert np.isfinite(found.x.sel(member=0)).all()
    assert np.isfinite(found.x.sel(member=1, t=[0, 0.1])).all() and np.isnan(found.x.sel(member=1, t=1)).all()
    assert np.isnan(found.sq.sel(member=1, t=1)).all()
    with pytest.warns(RuntimeWarning, match="5 of 10"):
        means = ensemble(CUBIC, y0=dict(x=start), **call, runs=5, average=True)
    assert means.status.values.tolist() == ["success", "diverged"]
    assert means.t_failed.values[1] == found.t_failed.values[:, 1].min()
    assert np.isnan(means.x.values[1, 2]) and np.isfinite(means.x.values[1, :2]).all()
    cells = sweep(CUBIC, dict(x=start), **call | dict(params=dict(k=1.0, s=0.1)), runs=5, progress=False)
    assert cells.status.values.tolist() == ["success", "diverged"]
    assert str(cells.message.values[1]).startswith("5 of 5 runs failed, first run 0 (diverged")
    np.testing.assert_array_equal(cells.x.transpose("run", "x_case", "t"), found.x)
    assert cells.t_reached.values.tolist() == [1.0, found.t_failed.values[:, 1].min()]


def test_a_covariance_that_is_none_is_told_apart():
    process = Dynamics("test", "sde", "t", (Equation(x, -x.symbol),), (s,), diffusion=(Covariation(x, x, s.symbol),))
    with pytest.warns(RuntimeWarning, match="not_positive_semidefinite after t = 0"):
        found = ensemble(process, (0, 1), dict(x=1.0), dict(s=[0.1, -0.1]), dt=0.1, t_eval=[0, 1])
    assert found.status.values.tolist() == [["success", "not_positive_semidefinite"]]


def test_noise_that_does_not_commute_is_refused_with_its_member():
    y, V = Quantity("y"), Quantity("V")
    drift = (Equation(x, -x.symbol), Equation(y, -y.symbol))
    noise = (Amplitude(x, W, s.symbol), Amplitude(y, V, k.symbol * x.symbol))
    process = Dynamics("test", "sde", "t", drift, (k, s), diffusion=noise)
    call = dict(t_span=(0, 1), y0=dict(x=1.0, y=1.0), dt=0.1, method="milstein")
    assert (ensemble(process, params=dict(k=0.0, s=1.0), **call).status == "success").all()
    with pytest.raises(ModelError, match="in member 1") as error:
        ensemble(process, params=dict(k=[0.0, 1.0], s=1.0), **call)
    assert error.value.argument == "method"


@pytest.mark.parametrize("average", [False, True])
def test_interrupted_runs_that_are_finished_are_kept(average, monkeypatch):
    paths = sys.modules["effdyn.solve.ensembles.paths"]
    path, begun = paths.path, []

    def interrupting(system, plan, numbers, out, stopped):
        begun.append(1)
        if len(begun) <= BLOCK_RUNS + 3:  # the first member, and three runs of the second
            return path(system, plan, numbers, out, stopped)
        _thread.interrupt_main()
        while not stopped():
            time.sleep(0.01)
        return False

    call = CALL | dict(runs=BLOCK_RUNS, average=average)
    whole = ensemble(RELAXING, **call)
    monkeypatch.setattr(paths, "path", interrupting)
    finished = BLOCK_RUNS if average else BLOCK_RUNS + 3
    with pytest.warns(RuntimeWarning, match=f"interrupted with {finished} of {3 * BLOCK_RUNS} runs finished"):
        found = ensemble(RELAXING, **call, threads=1)
    assert found.attrs["status"] == "interrupted" and (found.status == "interrupted").sum() == whole.status.size - (
        1 if average else finished
    )
    left = (found.status == "interrupted").values
    np.testing.assert_array_equal(np.isnan(found.x.isel(t=-1).values), left)
    np.testing.assert_array_equal(found.x.values[~left], whole.x.values[~left])
    begun[:] = [1] * BLOCK_RUNS
    if average:  # three paths are, and no block: there is nothing to return
        with pytest.raises(KeyboardInterrupt):
            ensemble(RELAXING, **call, threads=1)


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("dt", dict(dt=None)),
        ("dt", dict(dt=-1.0)),
        ("runs", dict(runs=0)),
        ("runs", dict(runs=2.5)),
        ("rng", dict(rng="seed")),
        ("average", dict(average="yes")),
        ("same_noise", dict(same_noise=1)),
        ("method", dict(method="DOPRI5")),
        ("rtol", dict(rtol=1e-6)),
        ("brownian_dt", dict(brownian_dt=0.013)),
        ("max_steps", dict(max_steps=10)),
        ("method", dict(method="DOP853")),
    ],
)
def test_bad_arguments_are_named(argument, changed):
    for call in (lambda: ensemble(RELAXING, **CALL | changed), lambda: sweep(RELAXING, **CELLS | changed)):
        with pytest.raises(ModelError) as error:
            call()
        named = "dt" if argument == "max_steps" else argument  # which has too many steps
        assert error.value.argument == named


def test_arguments_of_noise_are_for_noise():
    linear = derive.TeacherStudent(activation="linear").dynamics()
    given = dict(y0=dict(Q=[[0.5]], R=[[0.1]]), params=dict(sigma=0.0, T=[[1.0]], a=1.0, b=1.0))
    with pytest.raises(ModelError, match=r"dt = 0\.1 .*sde\(\)"):
        ensemble(linear, (0, 1), **given, dt=0.1)
    with pytest.raises(TypeError, match="did you mean 'runs'"):
        ensemble(RELAXING, **CALL, run=3)
    for lanes in (False, "long"):
        with pytest.raises(ModelError, match="lanes"):
            ensemble(RELAXING, **CALL, lanes=lanes)
    for name, value in dict(dt=0.1, runs=2, rng=1, average=True).items():
        with pytest.raises(ModelError, match="no noise"):
            sweep(linear, dict(eta=[0.1]), (0, 1), **given, **{name: value})


# -- stores and executors ----------------------------------------------------------------------------------------------


def test_a_sweep_goes_on_with_the_same_numbers(tmp_path, monkeypatch):
    sweeping = sys.modules["effdyn.solve.sweeps.sweep"]
    call = dict(**CELLS, runs=3, rng=9, progress=False)
    expected = sweep(RELAXING, **call)
    solve_cell, computed = sweeping.solve_cell, []

    def breaking(pickled, y0, params, index, stop):
        if len(computed) == 2:
            raise OSError("the machine is gone")
        computed.append(index)
        return solve_cell(pickled, y0, params, index, stop)

    monkeypatch.setattr(sweeping, "solve_cell", breaking)
    with pytest.raises(OSError, match="gone"):
        sweep(RELAXING, **call, store=tmp_path / "a.zarr", threads=1)
    monkeypatch.setattr(sweeping, "solve_cell", lambda *given: computed.append(given[3]) or solve_cell(*given))
    found = sweep(RELAXING, **call, store=tmp_path / "a.zarr", threads=2)
    assert sorted(computed) == [0, 1, 2]  # each once
    assert found.identical(expected)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a.zarr", chunks=None).x, expected.x)
    with pytest.raises(solve.ForeignStore, match="rng"):
        sweep(RELAXING, **call | dict(rng=10), store=tmp_path / "a.zarr")


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, pytest.param(ProcessPoolExecutor, marks=pytest.mark.slow)])
def test_cells_are_the_same_by_any_executor(pool):
    expected = sweep(RELAXING, **CELLS, runs=3, rng=9, progress=False, threads=1)
    with pool(2) as workers:
        assert sweep(RELAXING, **CELLS, runs=3, rng=9, progress=False, executor=workers).identical(expected)


def test_results_survive_netcdf(tmp_path):
    found = ensemble(RELAXING, **CALL, runs=3)
    found.to_netcdf(tmp_path / "a.nc")
    assert xr.open_dataset(tmp_path / "a.nc").x.equals(found.x)


def test_observables_of_a_derived_equation_are_those_of_integrate():
    """Parameters and workspace of the observables live as long as the paths: freed memory gave eg = 0, or a crash."""
    sde = derive.TeacherStudent(activation="erf").dynamics().sde()
    y0 = dict(Q=[[0.3]], R=[[0.3]])
    params = dict(sigma=0.1, T=[[1.0]], a=1.0, b=1.0, d=1000)
    options = dict(dt=0.02, runs=3, t_eval=[1.0, 2.0])
    many = ensemble(sde, (0, 2), y0, params | dict(eta=np.array([0.5, 1.0])), rng=1, threads=1, **options)
    seeds = np.random.SeedSequence(1).spawn(2)
    for m, eta in enumerate([0.5, 1.0]):
        alone = solve.integrate(sde, (0, 2), y0, params | dict(eta=eta), rng=seeds[m], progress=False, **options)
        for name in ("eg", "Q"):
            found = many[name].isel(member=m).transpose(*alone[name].dims).values
            np.testing.assert_allclose(found, alone[name].values, rtol=1e-14)
        assert (alone.eg > 0).all()
