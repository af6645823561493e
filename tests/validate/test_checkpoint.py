"""Simulations that go on after a kill, or that others run, with the same numbers; and that do not grow in memory."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from effdyn.derive import ModelError, TeacherStudent
from effdyn.solve.sweeps.errors import DamagedStore, ForeignStore, StoreInUse
from effdyn.solve.sweeps.journal import JOURNAL
from effdyn.solve.sweeps.lock import only_writer
from effdyn.validate import replicas
from effdyn.validate.data_laws import StudentT
from effdyn.validate.simulate import simulate

Y0 = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]])
PARAMS = dict(eta=0.8, sigma=0.1, T=np.eye(2), a=1.0, b=1.0)


def run(**changes):
    how = dict(d=[20, 30], runs=6, t_span=(0, 3), t_eval=[0, 1, 3], y0=Y0, params=PARAMS, rng=7, progress=False)
    return simulate(TeacherStudent(activation="erf"), **(how | changes))


@pytest.fixture
def counted(monkeypatch):
    """The number of replicas that were run."""
    count, original = [], replicas._trajectory

    def trajectory(*args):
        count.append(args)
        return original(*args)

    monkeypatch.setattr(replicas, "_trajectory", trajectory)
    return count


# ── Checkpoints ──


@pytest.mark.parametrize("how", [dict(), dict(engine="network", inputs=StudentT(5))], ids=["gram", "network"])
def test_what_is_kept_is_not_run_again(how, tmp_path, counted):
    reference = run(**how)
    counted.clear()
    first = run(checkpoint=tmp_path / "c", runs=4, **how)
    assert len(counted) == 8
    whole = run(checkpoint=tmp_path / "c", **how)  # more runs of the same simulation
    assert len(counted) == 12
    again = run(checkpoint=tmp_path / "c", **how)
    assert len(counted) == 12
    assert whole.identical(reference) and again.identical(reference)
    assert first.R.equals(reference.R.isel(run=slice(4)))


def test_a_killed_simulation_goes_on_with_the_same_numbers(tmp_path, counted):
    text = f"""
        import numpy as np
        from effdyn.derive import TeacherStudent
        from effdyn.validate.simulate import simulate
        simulate(TeacherStudent(activation="erf"), d=1000, runs=100_000, t_span=(0, 3), t_eval=[0, 1, 3], y0={Y0!r},
                 params=dict(eta=0.8, sigma=0.1, T=np.eye(2), a=1.0, b=1.0), rng=7, progress=False, threads=2,
                 checkpoint={str(tmp_path / "c")!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)])
    journal, deadline = tmp_path / "c" / JOURNAL, time.monotonic() + 60
    while not journal.exists() or journal.stat().st_size < 5000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL) if hasattr(signal, "SIGKILL") else process.kill()
    process.wait()
    how = dict(d=1000, runs=40)
    resumed = run(checkpoint=tmp_path / "c", **how)
    ran = len(counted)
    assert ran < 40
    assert resumed.identical(run(**how))


def test_a_record_that_was_cut_short_is_run_again(tmp_path, counted):
    reference = run(checkpoint=tmp_path / "c")
    journal = tmp_path / "c" / JOURNAL
    os.truncate(journal, journal.stat().st_size - 1)
    counted.clear()
    assert run(checkpoint=tmp_path / "c").identical(reference) and len(counted) == 1


def test_ctrl_c_keeps_what_is_finished(tmp_path, counted, monkeypatch):
    how = dict(runs=50, d=200, threads=1)
    reference = run(**how)
    counted.clear()

    def wait(pending, **_):
        while len(counted) < 5:
            pass
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(replicas, "wait", wait)
        with pytest.warns(RuntimeWarning, match="interrupted"):
            part = run(checkpoint=tmp_path / "c", **how)
    assert 4 <= part.sizes["run"] < 50
    counted.clear()
    whole = run(checkpoint=tmp_path / "c", **how)
    assert len(counted) == 50 - part.sizes["run"] and whole.identical(reference)


def test_another_simulation_is_refused(tmp_path):
    folder = tmp_path / "c"
    run(checkpoint=folder)
    for changes, said in (
        (dict(params=PARAMS | dict(eta=0.9)), "parameters"),
        (dict(rng=8), "seed"),
        (dict(t_eval=[0, 3]), "times"),
        (dict(d=[20]), "d: "),
        (dict(engine="network"), "engine"),
        (dict(engine="network", inputs="uniform"), "inputs"),
    ):
        with pytest.raises(ForeignStore, match=said):
            run(checkpoint=folder, **changes)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ForeignStore, match="does not hold a simulation"):
        run(checkpoint=tmp_path)
    with only_writer(folder), pytest.raises(StoreInUse):
        run(checkpoint=folder)
    with pytest.raises(ModelError, match="a seed"):
        run(checkpoint=folder, rng=None)


def test_damage_is_found(tmp_path):
    run(checkpoint=tmp_path / "c")
    journal = tmp_path / "c" / JOURNAL
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    with pytest.raises(DamagedStore, match="simulate again"):
        run(checkpoint=tmp_path / "c")


# ── Executors ──


def signs(rng, n, d):
    return rng.choice([-1.0, 1.0], (n, d))


@pytest.mark.parametrize("how", [dict(), dict(engine="network", inputs=StudentT(5))], ids=["gram", "network"])
def test_same_bits_for_any_threads_and_executors(how):
    reference = run(threads=1, **how)
    for threads in (2, 8):
        assert run(threads=threads, **how).identical(reference)
    for workers in (1, 8):
        with ThreadPoolExecutor(workers) as pool:
            assert run(executor=pool, **how).identical(reference)


def test_same_bits_from_processes(tmp_path):
    how = dict(engine="network", inputs=StudentT(5))
    reference = run(threads=1, **how)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert run(executor=pool, checkpoint=tmp_path / "c", **how).identical(reference)
    assert run(checkpoint=tmp_path / "c", **how).identical(reference)


def test_an_executor_that_is_interrupted_gives_what_is_finished(monkeypatch):
    original, calls = replicas.wait, []

    def wait(pending, **_):
        calls.append(original(pending))
        raise KeyboardInterrupt

    monkeypatch.setattr(replicas, "wait", wait)
    with ThreadPoolExecutor(1) as pool, pytest.warns(RuntimeWarning, match="interrupted"):
        result = run(executor=pool)
    assert result.attrs["status"] == "interrupted" and len(calls) == 1 and result.sizes["run"] == 6


def test_what_cannot_be_sent_to_a_process_is_named():
    with ProcessPoolExecutor(1) as pool, pytest.raises(ModelError, match="lambda") as caught:
        run(executor=pool, engine="network", inputs=lambda rng, n, d: signs(rng, n, d))
    assert caught.value.argument == "executor"
    for changes, argument in (
        (dict(executor=3), "executor"),
        (dict(executor=ThreadPoolExecutor(1), threads=2), "threads"),
    ):
        with pytest.raises(ModelError) as caught:
            run(**changes)
        assert caught.value.argument == argument


# ── Memory ──


@pytest.mark.parametrize("how", [dict(), dict(engine="network"), dict(engine="network", inputs="uniform")], ids=str)
def test_memory_does_not_grow_with_steps(how):
    def peak(t):
        tracemalloc.start()
        run(d=200, runs=2, t_span=(0, t), t_eval=[0, t], threads=1, **how)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)  # loads what is loaded once
    assert peak(300) < peak(30) + 1_000_000  # 6000 steps fill every block; 60000 draw 96 MB of normals: 1 % of that
