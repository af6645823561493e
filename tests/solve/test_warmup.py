"""The integrator compiles beside the kernels: once on a machine, and safely where the other process fails."""

import functools

import pytest

from effdyn.solve.integrators import warmup


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A machine on which the integrator was never compiled."""
    path = tmp_path / "dop853.compiled"
    monkeypatch.setattr(warmup, "_marker", lambda: path)
    monkeypatch.setattr(warmup.os, "cpu_count", lambda: 2)
    # A cache of its own: what this session may have started really is not ours to forget.
    monkeypatch.setattr(warmup, "start", functools.cache(warmup.start.__wrapped__))
    return path


def test_a_process_that_fails_leaves_the_work_to_this_one(marker, monkeypatch):
    monkeypatch.setattr(warmup, "_COMPILE", "raise SystemExit(1)")
    process = warmup.start()
    assert process is warmup.start()  # one, however often it is asked for
    warmup.wait()
    assert process.returncode == 1
    assert marker.exists()


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
