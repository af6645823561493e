"""Sources on disk: found again by the same equations and no others; the collector rests only while libraries load."""

import gc
import os
import subprocess
import sys
import weakref

import pytest
import sympy

from effdyn import derive
from effdyn.derive import loading
from effdyn.derive.gaussian import cached_forms
from effdyn.solve.kernels import kernel, remembered


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cached_forms, "WORTH", 0.0)
    return tmp_path / "cache"


def equations(rate):
    x = derive.Quantity("x", (sympy.Symbol("i", integer=True),), (sympy.Symbol("N", integer=True, positive=True),))
    return derive.Dynamics("decay", "ode", "t", drift=(derive.Equation(x, -rate * x.symbol),))


def test_the_second_process_generates_nothing():
    calls = []
    for _ in range(2):
        assert remembered.remembered(equations(2), "drift", lambda: calls.append(1) or "source") == "source"
    assert calls == [1]


def test_other_equations_and_other_code_have_sources_of_their_own(monkeypatch):
    def stored(dynamics, which):
        return remembered.remembered(dynamics, which, lambda: (str(dynamics.drift[0].expr), which))

    first = stored(equations(2), "drift")
    assert stored(equations(3), "drift") != first != stored(equations(2), "observables")
    monkeypatch.setattr(remembered, "_sources", lambda: "edited")
    assert remembered.remembered(equations(2), "drift", lambda: "new") == "new"


def test_what_is_found_is_what_would_be_generated():
    dynamics = derive.TeacherStudent(activation="erf").dynamics()
    kernel._generated.cache_clear()
    first, second = kernel._generated(dynamics, "drift"), kernel._generated.__wrapped__(dynamics, "drift")
    assert first is not second
    assert first == second
    assert first == kernel.generate(
        dynamics, [(e.quantity, e.expr) for e in dynamics.drift], f"{dynamics.title}: drift."
    )


def test_the_name_does_not_depend_on_the_hash_seed(directory):
    """Else every process would generate again, and store again."""
    code = (
        "from effdyn import derive; from effdyn.derive.gaussian import cached_forms; cached_forms.WORTH = 0.0\n"
        "from effdyn.solve.kernels import remembered\n"
        "remembered.remembered(derive.TeacherStudent(activation='square').dynamics(), 'drift', lambda: 0)"
    )

    def names(seed):
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        return sorted(path.name for path in directory.glob("source_*"))

    names("0")  # derives the closed forms, which the next ones find on disk
    assert names("1") == names("2")


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_rests_while_a_library_loads_and_goes_on_as_before(on, monkeypatch):
    monkeypatch.setattr(loading, "_used", set())
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="inside"), loading.first_use("a library"):
            assert not gc.isenabled()
            raise RuntimeError("inside")
        assert gc.isenabled() == on
        frozen = gc.get_freeze_count()
        with loading.first_use("a library"):  # the one that failed is tried again
            loaded = [[] for _ in range(1000)]
        assert gc.isenabled() == on and gc.get_freeze_count() > frozen + len(loaded) / 2
        frozen = gc.get_freeze_count()
        with loading.first_use("a library"):
            pass
        assert gc.isenabled() == on
        assert gc.get_freeze_count() <= frozen, "what a user makes later is collected as ever"
    finally:
        gc.enable()


def test_cycles_of_a_user_are_collected_after_the_libraries_have_loaded():
    class Node:
        pass

    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
