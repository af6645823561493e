"""The integrator compiles beside the kernels: once on a machine, and safely where the other process fails."""

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest

from effdyn.solve.integrators import warmup


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A machine on which the integrator was never compiled."""
    path = tmp_path / "dop853.compiled"
    monkeypatch.setattr(warmup, "_marker", lambda: path)
    monkeypatch.setattr(warmup.os, "cpu_count", lambda: 2)
    # A cache of its own: what this session may have started really is not ours to forget.
    monkeypatch.setattr(warmup, "_process", functools.cache(warmup._process.__wrapped__))
    return path


def test_a_process_that_fails_leaves_the_work_to_this_one(marker, monkeypatch):
    monkeypatch.setattr(warmup, "_COMPILE", "raise SystemExit(1)")
    process = warmup.start()
    assert process is warmup.start()  # one, however often it is asked for
    warmup.wait()
    assert process.returncode == 1
    assert marker.exists()


def test_threads_that_ask_at_once_share_one_process(marker, monkeypatch):
    monkeypatch.setattr(warmup, "_COMPILE", "raise SystemExit(1)")
    with ThreadPoolExecutor(8) as pool:
        processes = [future.result() for future in [pool.submit(warmup.start) for _ in range(8)]]
    assert len(set(map(id, processes))) == 1
    processes[0].wait()


def test_the_other_process_compiles_without_the_room_around_the_integrator(marker):
    process = warmup.start()
    warmup.wait()
    assert process.returncode == 0


def test_nothing_happens_once_it_is_compiled(marker):
    marker.touch()
    assert warmup.start() is None
    warmup.wait()


def test_on_one_processor_there_is_no_process_beside(marker, monkeypatch):
    monkeypatch.setattr(warmup.os, "cpu_count", lambda: 1)
    assert warmup.start() is None
