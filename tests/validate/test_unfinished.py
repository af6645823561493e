"""Replicas that are stopped in the middle of their runs go on with the same bits."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import pytest

from effdyn.derive import ModelError, TeacherStudent
from effdyn.solve.sweeps.errors import DamagedStore
from effdyn.validate import replicas, unfinished
from effdyn.validate.data_laws import HiddenManifold, StudentT
from effdyn.validate.simulate import simulate

Y0 = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]])
PARAMS = dict(eta=0.8, sigma=0.1, T=np.eye(2), a=1.0, b=1.0)
ERF = TeacherStudent(activation="erf")
MOMENTUM = TeacherStudent(activation="erf", momentum="slow", batch=True)
SIGNS = TeacherStudent(activation="erf", labels="sign", second_layer="trained", biases=True)


def run(model=ERF, **changes):
    how = dict(d=50, runs=2, t_span=(0, 200), t_eval=[0, 50, 90, 150, 200], y0=Y0, params=PARAMS, rng=7, progress=False)
    return simulate(model, **(how | dict(threads=1) | changes))


def signs(rng, n, d):
    return rng.choice([-1.0, 1.0], (n, d))


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.fixture
def steps(monkeypatch):
    """The steps that were made, of every replica together."""
    made, original = [], replicas._trajectory

    def trajectory(replica, *args):
        advance = replica.advance

        def counting(count):
            made.append(count)
            return advance(count)

        object.__setattr__(replica, "advance", counting)
        try:
            return original(replica, *args)
        finally:
            del replica.advance

    monkeypatch.setattr(replicas, "_trajectory", trajectory)
    return made


def files(path):
    return sorted(file.name for file in (path / "c" / "unfinished").iterdir())


@contextmanager
def killed_after(count, monkeypatch):
    """Keep replicas after every block, and die right after the file number ``count`` of this process."""
    original, left = unfinished.Part.write, [count]

    def write(*args):
        original(*args)
        left[0] -= 1
        if not left[0]:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "EVERY", 0.0)
        patched.setattr(unfinished.Part, "write", write)
        yield


CASES = {
    "gram": (ERF, dict()),
    "gram, few inputs": (ERF, dict(d=4, t_span=(0, 9000), t_eval=[0, 5000, 9000])),
    "gram, random start": (ERF, dict(init="random")),
    "network": (ERF, dict(engine="network")),
    "labels, both layers, biases": (SIGNS, dict(engine="network")),
    "law": (ERF, dict(engine="network", inputs=StudentT(5))),
    "manifold": (ERF, dict(engine="network", inputs=HiddenManifold(np.tanh, 0.5))),
    "bits": (ERF, dict(engine="network", inputs="rademacher")),
    "array": (ERF, dict(engine="network", inputs=np.random.default_rng(0).standard_normal((70, 50)))),
    "function": (ERF, dict(engine="network", inputs=signs)),
    "gram, momentum": (MOMENTUM, dict()),
    "network, momentum": (MOMENTUM, dict(engine="network")),
    "law, momentum": (MOMENTUM, dict(engine="network", inputs="uniform")),
}


def given(model):
    """Return y0 and params, where they are not those of all."""
    if model is MOMENTUM:
        buffers = {name: np.zeros((2, 2)) for name in ("P", "V", "S")}
        return dict(y0=Y0 | buffers, params=PARAMS | dict(batch=3, mu=1.5))
    if model is SIGNS:
        rates = dict(eta=0.8, eta_a=0.3, eta_bias=0.2, flip=0.1)
        return dict(y0=Y0 | dict(a=1.0, bias=0.1), params=rates | dict(T=np.eye(2), b=1.0, teacher_bias=0.1))
    return {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_replica_goes_on_with_the_same_bits(case, tmp_path, monkeypatch, steps):
    model, how = CASES[case]
    how = dict(how) | given(model)
    reference = run(model, **how)
    total = sum(steps)
    steps.clear()
    with killed_after(3, monkeypatch), pytest.raises(Killed):
        run(model, checkpoint=tmp_path / "c", **how)
    assert 0 < sum(steps) < total, "killed where nothing or everything was done"
    steps.clear()
    resumed = run(model, checkpoint=tmp_path / "c", **how)
    assert 0 < sum(steps) < total, "it went on"
    assert resumed.identical(reference)
    assert files(tmp_path) == [], "what has ended needs no file"


def test_a_replica_of_a_killed_process_goes_on(tmp_path, steps):
    how = dict(d=1000, runs=2, t_span=(0, 3000), t_eval=np.linspace(0, 3000, 31), threads=2)
    text = f"""
        import numpy as np
        from effdyn.derive import TeacherStudent
        from effdyn.validate import unfinished
        from effdyn.validate.simulate import simulate
        unfinished.EVERY = 0.02
        simulate(TeacherStudent(activation="erf"), y0={Y0!r}, rng=7, progress=False, checkpoint={str(tmp_path / "c")!r},
                 params=dict(eta=0.8, sigma=0.1, T=np.eye(2), a=1.0, b=1.0), d=1000, runs=2, t_span=(0, 3000),
                 t_eval=np.linspace(0, 3000, 31), threads=2)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)])
    deadline, seen = time.monotonic() + 60, set()
    while len(seen) < 8:  # of two replicas, some files each
        assert process.poll() is None and time.monotonic() < deadline
        seen |= {file.stat().st_mtime_ns for file in (tmp_path / "c").glob("unfinished/*.npz")}
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL) if hasattr(signal, "SIGKILL") else process.kill()
    process.wait()
    resumed = run(checkpoint=tmp_path / "c", **how)
    assert 0 < sum(steps) < 6_000_000
    assert resumed.identical(run(**how)) and files(tmp_path) == []


def test_ctrl_c_keeps_replicas_that_have_begun(tmp_path, monkeypatch, steps):
    how = dict(d=1000, t_span=(0, 1000), t_eval=[0, 1000], threads=2)
    reference = run(**how)
    steps.clear()

    def wait(pending, **_):
        while len(steps) < 40:
            time.sleep(1e-3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(replicas, "wait", wait)
        with pytest.raises(KeyboardInterrupt):  # no run is whole
            run(checkpoint=tmp_path / "c", **how)
    before = sum(steps)
    assert len(files(tmp_path)) == 2 and before >= 40
    assert run(checkpoint=tmp_path / "c", **how).identical(reference)
    assert sum(steps) == 2_000_000, "no step is made twice"


@pytest.mark.parametrize("Pool", [ThreadPoolExecutor, ProcessPoolExecutor], ids=["threads", "processes"])
def test_executors_go_on_too(Pool, tmp_path, monkeypatch, steps):
    how = dict(threads=None)
    reference = run()
    with killed_after(3, monkeypatch), pytest.raises(Killed):
        run(checkpoint=tmp_path / "c")
    (name,) = files(tmp_path)
    there = tmp_path / "c" / "unfinished" / name
    kept = there.read_bytes()
    options = dict(mp_context=get_context("spawn")) if Pool is ProcessPoolExecutor else {}
    with Pool(1, **options) as pool:
        assert run(checkpoint=tmp_path / "c", executor=pool, **how).identical(reference)
        assert files(tmp_path) == []
        # What a worker writes after its end, as one whose process was orphaned, is deleted when the folder is opened.
        there.write_bytes(kept)
        there.with_name("x.npz.1.partial").write_bytes(kept[:100])
        assert run(checkpoint=tmp_path / "c", executor=pool, **how).identical(reference)
    assert files(tmp_path) == []


def test_a_function_that_remembers_is_refused(tmp_path, monkeypatch):
    calls = []

    def remembers(rng, n, d):
        calls.append(n)
        return np.full((n, d), float(len(calls) % 7))

    how = dict(engine="network", inputs=remembers, runs=1)
    with killed_after(3, monkeypatch), pytest.raises(Killed):
        run(checkpoint=tmp_path / "c", **how)
    with pytest.raises(ModelError, match="depends on its arguments only"):
        run(checkpoint=tmp_path / "c", **how)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:900] + bytes([b[900] ^ 1]) + b[901:]])
def test_damage_is_found(damage, tmp_path, monkeypatch):
    with killed_after(3, monkeypatch), pytest.raises(Killed):
        run(checkpoint=tmp_path / "c")
    (name,) = files(tmp_path)
    path = tmp_path / "c" / "unfinished" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedStore, match="run from its start"):
        run(checkpoint=tmp_path / "c")
    path.unlink()
    assert run(checkpoint=tmp_path / "c").identical(run())
