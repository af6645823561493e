"""The first observables compile in another process: through the cache, once, and safely where that process fails."""

import textwrap

import pytest

from effdyn import solve
from effdyn.derive import TeacherStudent
from effdyn.solve.integrators import warmup
from effdyn.solve.kernels import beside, cache
from effdyn.solve.kernels.kernel import observables_kernel

SOURCE = textwrap.dedent("""
    from numba import cfunc, types

    @cfunc(types.float64(types.float64), cache=True)
    def kernel(x):
        return 5.0 * x + 1.0
""")


@pytest.fixture
def first(tmp_path, monkeypatch):
    """A process on two processors that has compiled nothing, with an empty cache."""
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(beside, "_started", {})
    monkeypatch.setattr(beside, "processors", lambda: 2)


def process():
    (found,) = beside._started.values()
    return found


def test_what_the_other_process_compiled_is_found(first):
    beside.start("there", SOURCE)
    beside.wait("there", SOURCE)
    assert process().returncode == 0
    module = cache.load_generated("there", SOURCE)
    assert (module.kernel.cache_hits, module.kernel.ctypes(2.0)) == (1, 11.0)


def test_a_process_that_fails_leaves_the_work_to_this_one(first, monkeypatch):
    monkeypatch.setattr(beside, "_COMPILE", "raise SystemExit(1)")
    beside.start("failed", SOURCE)
    beside.wait("failed", SOURCE)
    assert process().returncode == 1
    module = cache.load_generated("failed", SOURCE)
    assert (module.kernel.cache_hits, module.kernel.ctypes(2.0)) == (0, 11.0)


def test_only_the_first_is_worth_a_process(first, monkeypatch):
    monkeypatch.setattr(beside, "_COMPILE", "raise SystemExit(1)")
    beside.start("first", SOURCE)
    beside.start("second", SOURCE)
    beside.wait("second", SOURCE)  # of no process
    beside.wait("first", SOURCE)
    assert process().returncode == 1


@pytest.mark.parametrize("reason", ["known", "one processor"])
def test_no_process_that_would_save_nothing(reason, first, monkeypatch):
    if reason == "known":  # compiled before, or by another process at this moment
        cache.generated_file("idle", SOURCE)
    else:
        monkeypatch.setattr(beside, "processors", lambda: 1)
    beside.start("idle", SOURCE)
    beside.wait("idle", SOURCE)
    assert process() is None


@pytest.mark.parametrize("integrator", ["compiled", "being compiled"])
def test_a_solution_asks_for_its_own_observables(integrator, monkeypatch):
    """Unless the integrator, which takes longest, has the other processor."""
    asked = []
    monkeypatch.setattr(warmup, "start", lambda: None if integrator == "compiled" else object())
    monkeypatch.setattr(beside, "start", lambda *given: asked.append(given))
    dynamics = TeacherStudent(activation="linear").dynamics()
    params = dict(eta=0.5, sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
    solve.integrate(dynamics, (0, 1), dict(Q=[[0.5]], R=[[0.1]]), params)
    expected = [("observables_ode", observables_kernel(dynamics).source)]
    assert asked == (expected if integrator == "compiled" else [])
