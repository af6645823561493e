"""What Numba keeps on disk is never that of other sources than these: not after an update of a file that it calls."""

import ast
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest

import effdyn.derive
from effdyn.solve.fluctuations import rhs
from effdyn.solve.kernels import kept as keeping
from effdyn.solve.kernels.kept import kept, python_of, reached

ROOT = Path(effdyn.derive.__file__).parents[1]
GENERATED = {"load_generated", "generated_file"}
"""What makes functions of files named by their content."""

HELPER = "from numba import njit\nfrom constants import FACTOR\n\n@njit\ndef scaled(x):\n    return {text}\n"
CALLER = "from numba import njit\nimport helper\n\n@njit\ndef outer(x):\n    return helper.scaled(x) + 1.0\n"


def sources(word: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the modules in whose text a word is."""
    for room in ("derive", "solve", "validate", "gallery"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(("effdyn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
            if word in (text := path.read_text(encoding="utf-8")):
                yield name, ast.parse(text)


def is_cached(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and any(
        word.arg == "cache" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
        for word in node.keywords
    )


def kept_functions(tree: ast.Module) -> Iterator[tuple[int, ast.expr | str, ast.AST]]:
    """Yield the line, the function and the place of all that the compiler is asked to cache."""
    for place in ast.walk(tree):
        if isinstance(place, ast.FunctionDef):
            yield from ((place.lineno, place.name, tree) for node in place.decorator_list if is_cached(node))
            for node in ast.walk(place):
                if isinstance(node, ast.Call) and is_cached(node.func):
                    yield node.lineno, node.args[0], place


def outside(module: str, function: ast.expr | str, place: ast.AST) -> list[str]:
    """Return what a cached function calls of other files. One that a name in its own file does not tell must be
    generated there, where it is cached.
    """
    if isinstance(function, ast.Name) and hasattr(importlib.import_module(module), function.id):
        function = function.id
    if not isinstance(function, str):
        names = {node.id for node in ast.walk(place) if isinstance(node, ast.Name)}
        return [] if names & GENERATED else [ast.unparse(function)]
    own = getattr(importlib.import_module(module), function)
    return [str(f) for f in reached([own])[0] if python_of(f).__module__ != module]


def test_no_cached_function_calls_one_of_another_file():
    found, offenders = 0, []
    for module, tree in sources("cache"):
        for line, function, place in kept_functions(tree):
            found += 1
            offenders += [f"{module}:{line} calls {name}" for name in outside(module, function, place)]
    assert found >= 8, "the search finds what there is"
    assert not offenders


def test_options_with_cache_are_for_text_only():
    """A dictionary of options would pass by the test above."""
    for module, tree in sources('"cache"'):
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                assert not any(isinstance(key, ast.Constant) and key.value == "cache" for key in node.keys), module


def test_generated_files_that_import_from_here_name_the_content():
    """Text that imports from the package is written in one place, which puts a digest beside it."""
    importing = set()
    for module, tree in sources("numba"):
        documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in documentation]
        if any(re.search(r"(?m)^(from|import) effdyn\.", str(n.value)) for n in texts):
            importing.add(module)
    uncached = {"effdyn.solve.integrators.warmup", "effdyn.validate.report"}  # a process that is run, a printed script
    assert importing - uncached == {"effdyn.solve.ensembles.loops"}


def test_the_search_finds_an_offender():
    tree = ast.parse("@njit(cache=True)\ndef _rhs(y):\n    return _call(y)\n")
    ((_, name, place),) = kept_functions(tree)
    assert any("_call" in f for f in outside(rhs.__name__, name, place))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Three files, of which one calls the next, an empty cache, and the beginning of a process."""
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be taken for the same by its second and length
    write(tmp_path / "constants.py", "FACTOR = 3.0\n")
    write(tmp_path / "helper.py", HELPER.format(text="FACTOR * x"))
    write(tmp_path / "caller.py", CALLER)
    yield tmp_path
    forget()


def write(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, (1e9, 1e9))  # before this process began


def forget() -> None:
    for name in [name for name in sys.modules if name in ("constants", "helper", "caller") or "kept_outer" in name]:
        del sys.modules[name]


def answer(**options: Any) -> tuple[float, int]:
    """Return f(2) and how often it was found compiled, as a new process would."""
    forget()
    importlib.invalidate_caches()
    compiled = kept(numba.njit, importlib.import_module("caller").outer, "float64(float64)", **options)
    return compiled(2.0), sum(compiled.stats.cache_hits.values())


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("helper.py", HELPER.format(text="FACTOR - x"), 2.0),
        ("constants.py", "FACTOR = 4.0\n", 9.0),
        ("caller.py", CALLER.replace("1.0", "2.0"), 8.0),
    ],
    ids=["called", "constant", "own"],
)
def test_an_edited_file_is_compiled_anew_and_no_other(file, text, expected, package):
    assert answer() == (7.0, 0)
    assert answer() == (7.0, 1)
    write(package / file, text)
    assert answer() == (expected, 0)
    assert answer() == (expected, 1)


def test_other_options_are_compiled_for_themselves(package):
    assert answer(error_model="numpy") == (7.0, 0)
    assert answer(error_model="python") == (7.0, 0)
    assert answer(error_model="numpy") == (7.0, 1)


def test_what_was_written_after_the_process_began_is_for_it_alone(package, monkeypatch):
    """It has imported a version which nobody knows."""
    assert answer() == (7.0, 0)
    caller = package / "caller.py"
    os.utime(caller)
    assert answer() == (7.0, 0)
    monkeypatch.setattr(keeping, "_STARTED", caller.stat().st_mtime + 1.0)  # another process, later
    assert answer() == (7.0, 1)


def test_the_order_one_over_d_theory_names_all_its_files():
    files = {Path(python_of(f).__code__.co_filename).name for f in reached([rhs._entry])[0]}
    assert {"rhs.py", "algebra.py", "machine.py", "rules.py", "sixteen.py", "dop853.py"} <= files
