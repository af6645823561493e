"""Generated files: found again, never torn, never mistaken for one another."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from effdyn.derive.cache_directory import preferred_directory
from effdyn.solve.kernels import cache

KERNEL = textwrap.dedent("""
    from numba import cfunc, types

    @cfunc(types.float64(types.float64), cache=True)
    def kernel(x):
        return 3.0 * x + 1.0
""")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start_process(directory):
    """A process that loads KERNEL and prints the file, how often Numba found it compiled, and a value."""
    code = f"""
        from effdyn.solve.kernels.cache import load_generated
        module = load_generated("linear", {KERNEL!r})
        print(module.__file__, module.kernel.cache_hits, module.kernel.ctypes(2.0))
    """
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment["EFFDYN_CACHE_DIR"] = str(directory)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


def answer(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    file, hits, value = output.rsplit(maxsplit=2)
    return file, int(hits), float(value)


def snapshot(directory):
    """Name, modification time and content of all files but Python's own bytecode."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in files]


def test_source_becomes_a_readable_module(directory):
    source = '"""σ is not ASCII."""\nanswer = 6 * 7\n'
    module = cache.load_generated("plain", source)
    assert module.answer == 42
    assert Path(module.__file__).parent == directory
    assert Path(module.__file__).read_text(encoding="utf-8") == source
    assert sys.modules[module.__name__] is module
    assert Path(module.__file__).stem in module.__name__


def test_same_source_is_the_same_module_and_is_written_once(directory):
    first = cache.load_generated("once", "value = 1\n")
    before = snapshot(directory)
    assert cache.load_generated("once", "value = 1\n") is first
    assert snapshot(directory) == before


def test_different_sources_and_names_coexist(directory):
    pairs = [("pair", "value = 1\n"), ("pair", "value = 2\n"), ("other", "value = 1\n")]
    modules = [cache.load_generated(*pair) for pair in pairs]
    assert [module.value for module in modules] == [1, 2, 1]
    assert len({module.__file__ for module in modules}) == 3


@pytest.mark.parametrize("part", range(5), ids=["effdyn", "numba", "llvmlite", "numpy", "python"])
def test_the_file_depends_on_every_version(part, monkeypatch):
    before = cache._content_hash("value = 1\n")
    other = list(cache._toolchain())
    other[part] += ".1"
    monkeypatch.setattr(cache, "_toolchain", lambda: tuple(other))
    assert cache._content_hash("value = 1\n") != before


@pytest.mark.parametrize("number", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_processes_at_once_on_an_empty_cache_then_no_compilation(number, directory):
    processes = [start_process(directory) for _ in range(number)]
    answers = [answer(process) for process in processes]
    file = answers[0][0]
    assert {(other, value) for other, _, value in answers} == {(file, 7.0)}, "the same path in every process"
    assert [str(path) for path in directory.glob("*.py")] == [file]
    assert not list(directory.rglob("*.tmp"))

    before = snapshot(directory)
    assert {Path(name).suffix for name, _, _ in before} == {".py", ".nbi", ".nbc"}, "source, Numba's index and code"
    assert answer(start_process(directory)) == (file, 1, 7.0), "one more process finds the kernel compiled"
    assert snapshot(directory) == before


@pytest.mark.parametrize("wrong", ["", "value = 9\n"], ids=["emptied", "edited"])
def test_a_file_that_does_not_hold_its_source_is_replaced(directory, wrong):
    source = f"value = 7  # after {wrong!r}\n"
    path = directory / f"mended_{cache._content_hash(source)}.py"
    directory.mkdir()
    path.write_text(wrong)
    assert cache.load_generated("mended", source).value == 7
    assert path.read_text() == source


def test_a_module_that_fails_leaves_nothing_behind(directory):
    with pytest.raises(ZeroDivisionError):
        cache.load_generated("failing", "1 / 0\n")
    assert not [name for name in sys.modules if name.startswith("effdyn_generated_failing")]


@pytest.mark.parametrize("name", ["../escape", "two words", "", "a.b"])
def test_names_that_are_not_identifiers_are_refused(directory, name):
    with pytest.raises(ValueError, match="cannot name a generated module"):
        cache.load_generated(name, "")


def test_directory_is_private(directory):
    assert cache.cache_directory() == directory
    if os.name == "posix":
        assert directory.stat().st_mode & 0o777 == 0o700


def test_directory_that_cannot_be_written_falls_back_with_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "file" / "cache"))  # fails for root too, unlike permissions
    with pytest.warns(RuntimeWarning, match="EFFDYN_CACHE_DIR"):
        fallback = cache.cache_directory()
    assert cache.cache_directory() == fallback, "and without a second warning"
    module = cache.load_generated("refugee", "value = 3\n")
    assert module.value == 3 and Path(module.__file__).parent == fallback


def test_without_a_home_directory_nothing_is_written_where_the_user_stands(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "EFFDYN_CACHE_DIR", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does when it knows no home
    monkeypatch.chdir(tmp_path)
    with pytest.warns(RuntimeWarning, match="home directory is unknown"):
        cache.cache_directory()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        (dict(XDG_CACHE_HOME="/xdg"), "linux", "/xdg/effdyn"),
        (dict(XDG_CACHE_HOME="relative", HOME="/home/u"), "linux", "/home/u/.cache/effdyn"),
        (dict(HOME="/home/u"), "linux", "/home/u/.cache/effdyn"),
        (dict(HOME="/Users/u"), "darwin", "/Users/u/Library/Caches/effdyn"),
        (dict(LOCALAPPDATA="/local"), "win32", "/local/effdyn"),
        (dict(XDG_CACHE_HOME="/xdg", EFFDYN_CACHE_DIR="~/mine", HOME="/home/u"), "linux", "/home/u/mine"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_preferred_directory(environment, platform, expected, monkeypatch):
    for name in ("XDG_CACHE_HOME", "EFFDYN_CACHE_DIR", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert preferred_directory() == Path(expected)
