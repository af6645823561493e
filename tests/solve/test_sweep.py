"""Sweeps: every cell is what ``integrate`` gives; what was finished survives and is not done again."""

import _thread
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import sympy
import xarray as xr

from effdyn import derive, solve
from effdyn.derive import Dynamics, Equation, Quantity
from effdyn.derive.diffusion import Amplitude
from effdyn.solve.sweeps.cell import _told as told_of
from effdyn.solve.sweeps.cell import hazard_in, solve_cell
from effdyn.solve.sweeps.errors import DamagedStore, ForeignStore, StoreInUse
from effdyn.solve.sweeps.journal import JOURNAL
from effdyn.solve.sweeps.lock import only_writer
from effdyn.solve.sweeps.sweep import sweep

sweeping = sys.modules["effdyn.solve.sweeps.sweep"]
storing = sys.modules["effdyn.solve.sweeps.store"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

DYN = derive.TeacherStudent(activation="linear").dynamics()
ETA, SIGMA = np.array([0.5, 1.0, 4.0]), np.array([0.1, 0.2])  # with noise eg stays far from 0
DIVERGING = 4.0
"""dQ/dt = (eta**2 − 2·eta)·Q + … for a linear unit: stable below eta = 2; at 4, Q ~ exp(8t) passes 1e100 at t = 29."""
PROBLEM = dict(
    over=dict(eta=ETA, sigma=SIGMA),
    t_span=(0, 40),
    t_eval=np.linspace(0, 40, 9),
    y0=dict(Q=[[0.5]], R=[[0.1]]),
    params=dict(T=[[1.0]], a=1.0, b=1.0),
    progress=False,
)


def one(index, **changed):
    """A cell of the problem by itself."""
    given = {**PROBLEM, **changed}
    i, j = np.unravel_index(index, (len(ETA), len(SIGMA)))
    params = {**given["params"], "eta": ETA[i], "sigma": SIGMA[j]}
    return solve.integrate(DYN, given["t_span"], given["y0"], params, t_eval=given["t_eval"])


@pytest.fixture(scope="module")
def expected():
    """The problem's cells, in memory; each cell is compared with integrate by itself below."""
    return sweep(DYN, **PROBLEM)


@pytest.fixture
def computed(monkeypatch):
    """The cells that are computed, by their own parameters."""
    found = []

    def counting(pickled, y0, params, index, stop):
        found.append((float(params["eta"]), float(params["sigma"])))
        return solve_cell(pickled, y0, params, index, stop)

    monkeypatch.setattr(sweeping, "solve_cell", counting)
    return found


# ── What is computed ──


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_each_cell_is_what_integrate_gives(expected, index):
    cell, alone = expected.isel(eta=index // 2, sigma=index % 2), one(index)
    assert cell.status == "success" and cell.t_reached == 40.0 and cell.message == ""
    for name in alone.data_vars:
        assert alone[name].dims == cell[name].dims
        np.testing.assert_array_equal(cell[name], alone[name])  # the same code on the same numbers


def test_dims_are_in_the_order_of_over(expected):
    assert expected.Q.dims == ("eta", "sigma", "t", "student", "student_2")
    turned = sweep(DYN, **PROBLEM | {"over": dict(sigma=SIGMA, eta=ETA)})
    assert turned.eg.dims == ("sigma", "eta", "t")
    np.testing.assert_array_equal(turned.eg.transpose("eta", "sigma", "t"), expected.eg)
    assert turned.eg.t.attrs == {"long_name": "steps/d"}


def test_a_cell_that_diverges_is_recorded_and_disturbs_no_other(expected):
    failed = expected.sel(eta=DIVERGING)
    with pytest.raises(solve.Diverged) as alone:
        one(4)
    assert (failed.status == "diverged").all() and "diverge" in str(failed.message.values[0])
    assert failed.t_reached.values[0] == alone.value.t
    kept = len(alone.value.partial.t)
    assert 0 < kept < 9, "the times up to the divergence are there"
    np.testing.assert_array_equal(failed.Q[0, :kept], alone.value.partial.Q)
    assert np.isnan(failed.Q[0, kept:]).all()
    assert (expected.status.values[:2] == "success").all()


def test_array_valued_entries_and_initial_values_are_cases():
    T, Q = np.array([[[1.0]], [[2.0]]]), np.array([[[0.5]], [[0.6]], [[0.7]]])
    grid = sweep(
        DYN, over=dict(T=T, Q=Q, b=[1.0, 1.5]), t_span=(0, 2), y0=dict(R=[[0.1]]), progress=False,
        params=dict(eta=0.5, sigma=0.0, a=1.0), t_eval=[0, 2],
    )  # fmt: skip
    assert grid.eg.dims == ("T_case", "Q_case", "b", "t")
    np.testing.assert_array_equal(grid["T"], T)
    np.testing.assert_array_equal(grid.Q_initial, Q)
    params = dict(eta=0.5, sigma=0.0, a=1.0, b=1.5, T=T[1])
    alone = solve.integrate(DYN, (0, 2), dict(Q=Q[2], R=[[0.1]]), params, t_eval=[0, 2])
    np.testing.assert_array_equal(grid.Q.sel(T_case=1, Q_case=2, b=1.5), alone.Q)


def test_values_that_do_not_go_together_are_refused_in_their_cell():
    """R**2 > Q·T: each value is admissible with others."""
    over = dict(Q=[[[0.5]], [[2.0]]], R=[[[0.1]], [[1.0]]])
    grid = sweep(DYN, over, (0, 1), params=PROBLEM["params"] | dict(eta=0.5, sigma=0.0), progress=False)
    assert grid.status.values.tolist() == [["success", "refused"], ["success", "success"]]
    assert "eigenvalue" in str(grid.message.values[0, 1]) and np.isnan(grid.eg[0, 1]).all()


def test_a_dataset_gives_initial_values():
    start = one(0).isel(t=-1)
    grid = sweep(DYN, dict(eta=[0.5]), (40, 41), start, PROBLEM["params"] | dict(sigma=0.0), progress=False)
    np.testing.assert_array_equal(grid.Q.isel(eta=0, t=0), start.Q)


@pytest.mark.parametrize("limit", ["finite-d", "volterra", "high-dimensional"])
def test_maps_integral_equations_and_flows_of_regression(limit):
    dyn = derive.LinearRegression("one-pass").dynamics(limit)
    params = dict(sigma=0.1) | ({"d": 100} if limit == "finite-d" else {})
    grid = sweep(dyn, dict(eta=[0.2, 0.5]), (0, 2), dict(c=1.0), params, t_eval=[0, 0.503, 2], progress=False)
    alone = solve.integrate(dyn, (0, 2), dict(c=1.0), params | dict(eta=0.5), t_eval=[0, 0.503, 2])
    assert (grid.status == "success").all()
    np.testing.assert_array_equal(grid.t, alone.t)
    np.testing.assert_allclose(grid.eg.sel(eta=0.5), alone.eg, rtol=1e-12)  # sums of the same terms
    if limit == "finite-d":
        with pytest.raises(derive.ModelError, match="clock"):
            sweep(dyn, dict(d=[100, 200]), (0, 2), dict(c=1.0), dict(eta=0.2, sigma=0.1), progress=False)


# ── Mistakes ──


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict(over={}), ["over", "eta", "Q"]),
        (dict(over=dict(etta=[1.0])), ["over['etta']", "did you mean 'eta'"]),
        (dict(over=dict(eta=1.0)), ["over['eta']", "list of numbers"]),
        (dict(over=dict(eta=["a"])), ["over['eta']"]),
        (dict(over=dict(eta=[])), ["over['eta']"]),
        (dict(over=dict(eta=[1.0, 1.0], sigma=SIGMA)), ["over['eta']", "each once"]),
        (dict(over=dict(eta=[1.0, -1.0], sigma=SIGMA)), ["over['eta'][1]", "at least 0"]),
        (dict(over=dict(eta=[np.nan], sigma=SIGMA)), ["over['eta'][0]", "finite"]),
        (dict(over=dict(eta=ETA, sigma=SIGMA, T=[[[1.0]]])), ["over['T']", "leave it out of params"]),
        (dict(over=dict(eta=ETA, sigma=SIGMA, R=[[0.1]]), y0=dict(Q=[[0.5]])), ["over['R']", "(n, K, M)"]),
        (dict(over=dict(eta=ETA)), ["params", "sigma"]),
        (dict(params=dict(a=1.0, b=1.0)), ["params", "T"]),
        (dict(y0=dict(Q=[[0.5]], R=[[2.0]])), ["y0", "eigenvalue"]),
        (dict(y0=[1]), ["y0", "dict"]),
        (dict(t_eval=[0, 50]), ["t_eval"]),
        (dict(t_span=(0, np.inf)), ["t_span"]),
        (dict(rtol=-1), ["rtol"]),
        (dict(method="DOP835"), ["method", "DOP853"]),
        (dict(threads=0), ["threads"]),
        (dict(executor=object()), ["executor", "submit"]),
        (dict(executor=Executor(), threads=2), ["threads"]),
        (dict(threads=1.5), ["threads"]),
    ],
)
def test_mistakes_are_named_before_anything_is_written(changed, named, tmp_path):
    store = tmp_path / "a.zarr"
    with pytest.raises(derive.ModelError) as error:
        sweep(DYN, **PROBLEM | changed, store=store)
    for part in named:
        assert part in str(error.value)
    assert not store.exists()


def test_a_store_without_a_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(derive.ModelError, match="store = ''"):
        sweep(DYN, **PROBLEM, store="")
    assert not list(tmp_path.iterdir())


def test_stochastic_equations_without_a_step_are_refused_before_anything_is_computed(tmp_path, computed):
    with pytest.raises(derive.ModelError, match="dt"):
        sweep(DYN.sde(), **PROBLEM | dict(params=PROBLEM["params"] | dict(d=100)), store=tmp_path / "a.zarr")
    assert not computed and not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [1, 2])
def test_hazards_are_one_warning_and_stand_in_the_messages(threads, tmp_path, computed):
    """Without noise eg decays to zero: below the resolution of a coarse rtol it is negative, in some cells."""
    call = PROBLEM | dict(over=dict(eta=[0.5, 0.8, 1.5], sigma=[0.0, 0.1]))
    call |= dict(rtol=1e-4, atol=1e-6, t_eval=np.linspace(0, 40, 400), threads=threads, store=tmp_path / "a.zarr")
    for _ in range(2):  # the second time from the store
        with pytest.warns(solve.BelowResolution) as told:
            grid = sweep(DYN, **call)
        negative = (grid.eg < 0).any("t").values
        assert negative.any() and not negative.all()
        count = int(negative.sum())
        (warning,) = told
        assert f"{count} of 6 cells say BelowResolution" in str(warning.message)
        eta, sigma = np.argwhere(negative)[0]
        assert f"the first at eta[{eta}], sigma[{sigma}]: eg is below" in str(warning.message)
        assert warning.filename == __file__
        found = np.vectorize(lambda message: message.startswith("BelowResolution: eg is below"))(grid.message.values)
        assert (found == negative).all() and (grid.status == "success").all()
        assert (grid.message.values[~negative] == "").all()
    assert len(computed) == 6


def test_both_hazards_of_a_cell_are_told():
    call = PROBLEM | dict(over=dict(eta=[0.5, 1.0]), y0=dict(Q=np.full((2, 2), 0.5), R=[[0.1], [0.1]]), t_eval=[0, 1])
    with pytest.warns(
        solve.SymmetricStart, match="2 of 2 cells .* eta.0.: students 1 and 2 start exactly alike"
    ) as told:
        grid = sweep(DYN, **call | dict(params=PROBLEM["params"] | dict(sigma=0.1)))
    assert len(told) == 1 and all(len(str(m)) <= 200 for m in grid.message.values)
    both = told_of([(solve.SymmetricStart, "s" * 300), (solve.BelowResolution, "b")])
    assert len(both) == 200 and hazard_in(both, solve.SymmetricStart) and hazard_in(both, solve.BelowResolution)
    assert not hazard_in("eg: BelowResolution", solve.BelowResolution) and told_of([]) == ""


# ── Executors ──


class Backwards(Executor):
    """An executor of the protocol alone: runs what it is given when it is full, the last first."""

    def __init__(self):
        self.held, self.wanted = [], 6

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.held.append((future, fn, args))
        if len(self.held) == self.wanted:
            for waiting, function, given in reversed(self.held):
                waiting.set_result(function(*given))
        return future


def test_any_executor_in_any_order(expected):
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, executor=Backwards()), expected)
    with ThreadPoolExecutor(3) as pool:
        xr.testing.assert_identical(sweep(DYN, **PROBLEM, executor=pool), expected)
        assert pool.submit(int, "1").result() == 1, "the user's executor is left open"


def test_more_cells_than_are_handed_out_at_once(monkeypatch, computed):
    monkeypatch.setattr(sweeping, "WINDOW", 2)
    grid = sweep(DYN, **PROBLEM | dict(over=dict(eta=np.linspace(0.1, 1, 13), sigma=[0.1])))
    assert (grid.status == "success").all()
    assert sorted(eta for eta, _ in computed) == grid.eta.values.tolist()


@posix
def test_processes_and_a_pool_that_breaks(expected, tmp_path, monkeypatch):
    store = tmp_path / "a.zarr"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        add = storing.ZarrStore.add

        def break_after_two(self, index, outcome):
            add(self, index, outcome)
            if self.done.sum() == 2:
                for pid in list(pool._processes):
                    os.kill(pid, signal.SIGKILL)

        with monkeypatch.context() as patch:
            patch.setattr(storing.ZarrStore, "add", break_after_two)
            patch.setattr(sweeping, "WINDOW", 2)
            with pytest.raises(BrokenProcessPool) as error:
                sweep(DYN, **PROBLEM, executor=pool, store=store)
    assert "cells are kept in" in error.value.__notes__[0]
    assert 2 <= int(error.value.__notes__[0].split()[0]) < 6
    again = []
    monkeypatch.setattr(sweeping, "solve_cell", lambda *a: again.append(1) or solve_cell(*a))
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=store), expected)
    assert len(again) == 6 - int(error.value.__notes__[0].split()[0])


@posix
@pytest.mark.filterwarnings("default")  # dask's own
def test_dask_loses_a_worker_and_nothing_else(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    over = dict(eta=np.linspace(0.1, 1.5, 40), sigma=SIGMA)
    problem = PROBLEM | dict(over=over)
    killed, arrived, finished = [], [], []
    add = storing.ZarrStore.add

    def computations():
        log = list(cluster.scheduler.transition_log)
        return [key for key, *states in log if states[:2] == ["processing", "memory"] and "solve_cell" in str(key)]

    def kill_one(self, index, outcome):
        add(self, index, outcome)
        arrived.append(index)
        if len(arrived) == 10:
            pid = next(iter(client.run(os.getpid).values()))
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            finished.append(len(computations()))

    monkeypatch.setattr(storing.ZarrStore, "add", kill_one)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        grid = sweep(DYN, **problem, executor=client, store=tmp_path / "a.zarr")
        cells = computations()
    assert killed, "a worker was killed in the middle"
    assert sorted(arrived) == list(range(80)), "each cell came back once"
    assert len(set(cells)) == 80
    # Lost is at most what had finished and was not kept yet, and one cell a worker that the scheduler did not know of.
    assert len(cells) - 80 <= finished[0] - 10 + 2
    monkeypatch.undo()
    xr.testing.assert_identical(grid, sweep(DYN, **problem))


# ── The store ──


def test_a_store_gives_what_memory_gives_and_xarray_opens_it(expected, tmp_path, computed):
    store = tmp_path / "a.zarr"
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=store), expected)
    assert len(computed) == 6
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=store), expected)
    assert len(computed) == 6, "a sweep that is complete computes nothing"
    opened = xr.open_zarr(store, chunks=None)
    for name in ("Q", "eg", "t", "eta", "t_reached"):
        np.testing.assert_array_equal(opened[name], expected[name])
    assert opened.status.values.tolist() == expected.status.values.tolist()
    expected.to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as read:
        np.testing.assert_array_equal(read.Q, expected.Q)


def test_chunks_are_many_cells_and_may_be_cut_anywhere(tmp_path, monkeypatch, expected):
    """Chunks of two cells, arrays written after each cell: every way in which blocks can be completed in parts."""
    monkeypatch.setattr(storing, "CHUNK_BYTES", 2 * (8 * 9 * 6 + 4 * 232))
    monkeypatch.setattr(storing, "FOLD_SECONDS", 0.0)
    for order in ([0, 3, 1, 2, 5, 4], [5, 4, 3, 2, 1, 0]):
        store = tmp_path / f"{order[0]}.zarr"
        made = Backwards()
        monkeypatch.setattr(Backwards, "submit", lambda self, fn, *a, order=tuple(order): _in_order(self, fn, a, order))
        xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=store, executor=made), expected)


def _in_order(pool, fn, args, order):
    future = Future()
    pool.held.append((future, args))
    if len(pool.held) == 6:
        for n in order:
            pool.held[n][0].set_result(fn(*pool.held[n][1]))
    return future


CHILD = """
import os, sys, time
import numpy as np
from effdyn import derive
import effdyn.solve.sweeps.sweep
sweeping = sys.modules["effdyn.solve.sweeps.sweep"]
storing = sys.modules["effdyn.solve.sweeps.store"]
from effdyn.solve.sweeps.cell import _told as told_of
from effdyn.solve.sweeps.cell import hazard_in, solve_cell
def slow(*given):
    time.sleep(0.02)
    return solve_cell(*given)
sweeping.solve_cell = slow
storing.FOLD_SECONDS = float(sys.argv[2])
add = storing.ZarrStore.add
def told(self, index, outcome):
    add(self, index, outcome)
    os.write(1, f"{index}\\n".encode())
storing.ZarrStore.add = told
sweeping.sweep(derive.TeacherStudent(activation="linear").dynamics(),
    over=dict(eta=np.linspace(0.1, 1.5, 100), sigma=[0.1, 0.2]), t_span=(0, 40), t_eval=np.linspace(0, 40, 9),
    y0=dict(Q=[[0.5]], R=[[0.1]]), params=dict(T=[[1.0]], a=1.0, b=1.0), progress=False, store=sys.argv[1], threads=2)
"""
LONG = PROBLEM | dict(over=dict(eta=np.linspace(0.1, 1.5, 100), sigma=SIGMA))


def child(store, fold_seconds):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(store), str(fold_seconds)], stdout=subprocess.PIPE)


@posix
@pytest.mark.parametrize("fold_seconds", [0.05, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_sweep_that_is_killed_goes_on(tmp_path, computed, fold_seconds):
    store = tmp_path / "a.zarr"
    with child(store, fold_seconds) as process:
        told = [int(process.stdout.readline()) for _ in range(60)]
        with pytest.raises(StoreInUse) as refused:
            sweep(DYN, **LONG, store=store)
        assert f"process {process.pid} on " in str(refused.value)
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().split()]
    assert process.returncode == -signal.SIGKILL
    assert 60 <= len(told) < 200, "it was killed in the middle"
    resumed = sweep(DYN, **LONG, store=store)
    eta, sigma = LONG["over"]["eta"], SIGMA
    again = {int(np.argmin(abs(eta - e))) * 2 + int(np.argmin(abs(sigma - s))) for e, s in computed}
    assert len(again) == len(computed), "no cell was computed twice"
    assert not again & set(told), "nothing that was finished was computed again"
    # A cell may be kept and the process killed before it could tell.
    assert 199 - len(told) <= len(again) <= 200 - len(told)
    xr.testing.assert_identical(resumed, sweep(DYN, **LONG))


@posix
def test_a_lock_does_not_outlive_its_process_in_a_fork(tmp_path):
    """Workers of a pool that were forked stay when their parent is killed."""
    code = f"""
import os, sys, time
from pathlib import Path
from effdyn.solve.sweeps.lock import only_writer
with only_writer(Path({str(tmp_path)!r})):
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    print(pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        orphan = int(process.stdout.readline())
        try:
            with pytest.raises(StoreInUse), only_writer(tmp_path):
                pass
            process.kill()
            process.wait()
            with only_writer(tmp_path):
                os.kill(orphan, 0)  # which is still there
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_two_threads_of_one_process_exclude_each_other(tmp_path):
    with only_writer(tmp_path), pytest.raises(StoreInUse, match="this process itself"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict(rtol=1e-9), ["rtol: 1e-10 in the store, 1e-09 here"]),
        (dict(over=dict(eta=ETA, sigma=[0.1, 0.3])), ["over['sigma']: [0.1, 0.2] in the store, [0.1, 0.3] here"]),
        (dict(over=dict(sigma=SIGMA, eta=ETA)), ["dims"]),
        (dict(params=dict(T=[[2.0]], a=1.0, b=1.0)), ["params['T']: [[1.0]] in the store, [[2.0]] here"]),
        (dict(y0=dict(Q=[[0.6]], R=[[0.1]])), ["y0['Q']"]),
        (dict(t_span=(0, 50)), ["t_span"]),
        (dict(t_eval=np.linspace(0, 40, 300)), ["t_eval", "300"]),
    ],
)
def test_the_store_of_another_sweep_is_refused_naming_what_differs(tmp_path, changed, named, computed):
    store = tmp_path / "a.zarr"
    sweep(DYN, **PROBLEM, store=store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(ForeignStore) as error:
        sweep(DYN, **PROBLEM | changed, store=store)
    for part in named:
        assert part in str(error.value)
    assert before == {path: path.read_bytes() for path in before}, "it was not touched"
    assert len(computed) == 6


def test_the_store_of_another_model_is_refused(tmp_path):
    store = tmp_path / "a.zarr"
    sweep(DYN, **PROBLEM, store=store)
    with pytest.raises(ForeignStore, match="equations"):
        sweep(derive.TeacherStudent(activation="erf").dynamics(), **PROBLEM, store=store)


def test_folders_that_are_no_store_are_refused_and_left_alone(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "lock").write_text("")
    (tmp_path / "locked" / "a.txt").write_text("mine")
    for name in ("notes", "file", "locked"):
        with pytest.raises(ForeignStore, match="is not"):
            sweep(DYN, **PROBLEM, store=tmp_path / name)
    assert sorted(os.listdir(tmp_path / "notes")) == ["a.txt"]
    assert sorted(os.listdir(tmp_path / "locked")) == ["a.txt", "lock"]


def test_a_store_that_was_killed_while_it_was_made_is_made_again(tmp_path, expected):
    store = tmp_path / "a.zarr"
    sweep(DYN, **PROBLEM, store=store)
    (store / ".zmetadata").unlink()  # written last
    (store / JOURNAL).write_bytes(b"half")
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=store), expected)


def spoil_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: spoil_byte(store / "Q" / "0.0.0.0.0"),
        lambda store: (store / "Q" / "0.0.0.0.0").unlink(),
        lambda store: (store / "Q" / "0.0.0.0.0").write_bytes(b""),
        lambda store: (store / "status" / "0.0").unlink(),
        lambda store: (store / "checksum" / "0.0").unlink(),
        lambda store: (store / "eta" / "0").unlink(),
        lambda store: (store / ".zmetadata").write_text("{"),
        lambda store: (store / ".zmetadata").write_text((store / ".zmetadata").read_text().replace('"Q/', '"P/')),
    ],
    ids=["flipped bit", "lost chunk", "empty chunk", "lost status", "lost checksums", "lost labels", "no JSON", "name"],
)
def test_damage_is_found(tmp_path, damage):
    store = tmp_path / "a.zarr"
    sweep(DYN, **PROBLEM, store=store)
    damage(store)
    with pytest.raises(DamagedStore) as error:
        sweep(DYN, **PROBLEM, store=store)
    assert str(store) in str(error.value) and "damaged" in str(error.value)


def journalled(store):
    """A store whose cells are all in the journal still, as after a kill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing.ZarrStore, "fold", lambda self: None)
        sweep(DYN, **PROBLEM, store=store)
    return store / JOURNAL


def test_a_torn_record_is_cut_off_and_computed_again(tmp_path, computed, expected):
    journal = journalled(tmp_path / "a.zarr")
    journal.write_bytes(journal.read_bytes()[:-20])
    computed.clear()
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=tmp_path / "a.zarr"), expected)
    assert len(computed) == 1


@pytest.mark.parametrize("place", [2, 40, 300])
def test_damage_of_the_journal_is_found(tmp_path, place):
    journal = journalled(tmp_path / "a.zarr")
    content = bytearray(journal.read_bytes())
    content[place] ^= 1
    journal.write_bytes(bytes(content))
    with pytest.raises(DamagedStore, match="journal"):
        sweep(DYN, **PROBLEM, store=tmp_path / "a.zarr")


# ── Progress, interruptions, errors ──


def test_the_bar_counts_cells_and_begins_with_those_that_are_done(tmp_path, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, **options):
            super().__init__(**options | {"disable": False, "file": io.StringIO()})
            bars.append((options["total"], options["initial"], self))

    def broken(pickled, y0, params, index, stop):
        if float(params["eta"]) == 1.0:
            raise MemoryError
        return solve_cell(pickled, y0, params, index)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "solve_cell", broken)
        patch.setattr(sweeping, "WINDOW", 1)
        with pytest.raises(MemoryError):
            sweep(DYN, **PROBLEM, store=tmp_path / "a.zarr", threads=1)
    sweep(DYN, **PROBLEM, store=tmp_path / "a.zarr")
    assert [(total, initial, bar.n) for total, initial, bar in bars] == [(6, 0, 2), (6, 2, 6)]


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch, expected, computed):
    store = tmp_path / "a.zarr"
    add = storing.ZarrStore.add

    def interrupt(self, index, outcome):
        add(self, index, outcome)
        if self.done.sum() == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storing.ZarrStore, "add", interrupt)
        patch.setattr(sweeping, "WINDOW", 1)
        with pytest.warns(RuntimeWarning, match="3 of 6 cells"):
            partial = sweep(DYN, **PROBLEM, store=store, threads=1)
    assert partial.attrs["status"] == "interrupted"
    assert (partial.status == "pending").sum() == 3 and (partial.status == "success").sum() == 3
    assert np.isnan(partial.eg.where(partial.status == "pending")).all()
    assert len(computed) == 3
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=store), expected)
    assert len(computed) == 6


@posix
def test_a_real_signal_interrupts_the_wait(monkeypatch):
    def slow(*given):
        outcome = solve_cell(*given)
        time.sleep(0.3)
        return outcome

    monkeypatch.setattr(sweeping, "solve_cell", slow)
    sender = threading.Timer(0.75, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    with pytest.warns(RuntimeWarning, match="interrupted"):
        grid = sweep(DYN, **PROBLEM, threads=1)
    counts = {name: int((grid.status == name).sum()) for name in ("pending", "success")}
    assert counts["pending"] > 0 and counts["success"] > 0


def long_cells(kind):
    """A sweep whose second cell takes about half a second."""
    x, v, k, W = (Quantity(name) for name in "xvkW")
    decay = Equation(x, -k.symbol * x.symbol)
    if kind == "ode":
        oscillator = Equation(x, v.symbol), Equation(v, -k.symbol * x.symbol)
        dynamics = Dynamics("oscillator", "ode", "t", oscillator, (k,))
        return dynamics, dict(k=[0.0, 1.0]), (0, 5e5), dict(x=1.0, v=0.0), dict(max_steps=10**9)
    if kind == "map":
        return Dynamics("decay", "map", "steps", (decay,), (k,)), dict(k=[0.0, 0.1]), (0, 25 * 10**6), dict(x=1.0), {}
    dynamics = Dynamics("OU", "sde", "t", (decay,), (k,), diffusion=(Amplitude(x, W, sympy.S.One),))
    return dynamics, dict(k=[1.0, 2.0]), (0, 20), dict(x=1.0), dict(dt=1e-3, runs=600, average=True)


@pytest.mark.parametrize("kind", ["ode", "map", "sde"])
def test_ctrl_c_is_heard_within_a_cell(kind, tmp_path, monkeypatch):
    """The cell is left; had it been waited for, it would have been kept."""
    dynamics, over, span, y0, options = long_cells(kind)
    given = dict(over=over, t_span=span, y0=y0, params={}, t_eval=[0, span[1]], threads=1, progress=False, **options)

    def interrupting(pickled, y0, params, index, stop):
        if index == 1:
            threading.Timer(0.05, _thread.interrupt_main).start()
        return solve_cell(pickled, y0, params, index, stop)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "solve_cell", interrupting)
        with pytest.warns(RuntimeWarning, match="1 of 2 cells"):
            partial = sweep(dynamics, store=tmp_path / "a.zarr", **given)
    assert list(partial.status.values) == ["success", "pending"]
    whole = sweep(dynamics, store=tmp_path / "a.zarr", **given)
    assert (whole.status == "success").all()
    if kind == "sde":  # the random numbers too are those of a sweep that nobody interrupted
        xr.testing.assert_identical(whole, sweep(dynamics, **given))


def test_an_interrupted_solution_is_not_a_cell(monkeypatch):
    cell = sys.modules["effdyn.solve.sweeps.cell"]
    monkeypatch.setattr(cell, "integrate", lambda *a, **k: xr.Dataset(attrs={"status": "interrupted"}))
    with pytest.raises(KeyboardInterrupt):
        sweep(DYN, **PROBLEM)


def test_errors_of_the_program_are_raised_and_finished_cells_kept(tmp_path, monkeypatch, expected):
    def broken(pickled, y0, params, index, stop):
        if float(params["eta"]) == 1.0:
            raise MemoryError("no more")
        return solve_cell(pickled, y0, params, index)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "solve_cell", broken)
        patch.setattr(sweeping, "WINDOW", 1)
        with pytest.raises(MemoryError) as error:
            sweep(DYN, **PROBLEM, store=tmp_path / "a.zarr", threads=1)
    assert "2 of 6 cells are kept" in error.value.__notes__[0]
    xr.testing.assert_identical(sweep(DYN, **PROBLEM, store=tmp_path / "a.zarr"), expected)


def test_attributes_say_what_was_swept(expected):
    assert json.loads(expected.attrs["over"]) == ["eta", "sigma"]
    assert json.loads(expected.attrs["parameters"]) == {"T": [[1.0]], "a": [1.0], "b": [1.0]}
    assert json.loads(expected.attrs["options"])["rtol"] == 1e-10
    assert eval(expected.attrs["model"], vars(derive)) == DYN.model
