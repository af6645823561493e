"""Generated source on disk: one readable, self-contained file per content, compiled once per machine.

Numba caches what it compiles only for functions that live in a file, and does not notice when another file that they
call changes. So a generated kernel is written whole into one file named by a hash of everything that decides its
machine code, and Numba's own on-disk cache does the rest. Two processes may ask for the same file at once: each writes
a temporary name and renames it, and both have written the same bytes with the same modification time.

This file knows nothing about kernels: it takes text and returns a module.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
import types
from importlib.metadata import version
from pathlib import Path

from effdyn.derive.cache_directory import cache_directory
from effdyn.derive.loading import first_use

_MTIME = 946_684_800  # 2000-01-01: Numba and Python's bytecode cache compare it, so every writer sets the same
_loading = threading.RLock()  # re-entrant: a generated module may load another one


def load_generated(name: str, source: str) -> types.ModuleType:
    """Import `source` as a module from its file in the cache, writing the file first if it is not there.

    The same `name` and `source` give the same module object, and the same file in every process. Functions in `source`
    may use ``cache=True``; what they call of other files `source` must name by its content (:mod:`.kept`).
    """
    if not name.isidentifier():
        raise ValueError(f"{name!r} cannot name a generated module, whose file it names: use letters, digits and _")
    stem = f"{name}_{_content_hash(source)}"
    module_name = _module_name(stem)
    with _loading:
        if module_name in sys.modules:
            return sys.modules[module_name]
        return _import_file(*generated_file(name, source)[:2])


def generated_file(name: str, source: str) -> tuple[str, Path, bool]:
    """Return the name of a generated module, its file in the cache, and whether that was written just now."""
    stem = f"{name}_{_content_hash(source)}"
    path = cache_directory() / f"{stem}.py"
    return _module_name(stem), path, _ensure_file(path, source.encode())


def _module_name(stem: str) -> str:
    return f"effdyn_generated_{stem}"


def _content_hash(source: str) -> str:
    """Sixteen hexadecimal digits of all that decides the machine code (but the CPU, which Numba's own key holds)."""
    digest = hashlib.sha256()
    for part in (*_toolchain(), source):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def _toolchain() -> tuple[str, ...]:
    packages = ("effdyn", "numba", "llvmlite", "numpy")
    return (*(f"{package} {version(package)}" for package in packages), str(sys.implementation.cache_tag))


def _ensure_file(path: Path, content: bytes) -> bool:
    """Put `content` at `path`, atomically, and say so; a file that is already right is never rewritten.

    One that is wrong (emptied by a crash, edited by hand) is replaced: it would be executed under the hash of what it
    should hold.
    """
    if _holds(path, content):
        return False
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.utime(temporary, (_MTIME, _MTIME))
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        if not _holds(path, content):  # on Windows a rename fails while another process reads what it has put there
            raise
    return True


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _import_file(module_name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it runs, as `import` does: pickle and Numba look modules up by name
    try:
        with first_use("numba"):  # with the first kernel it loads its other half, and SciPy's
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
