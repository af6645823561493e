"""The first run on a machine: the integrator compiles in a process of its own, while this one compiles the kernels.

Numba compiles one function at a time in a process, and the integrator takes longer than everything else together. Once
its machine code is in the cache, a marker file says so, and nothing here happens any more.
"""

import functools
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numba

from effdyn.derive.cache_directory import cache_directory

from ..results import load_xarray
from . import dop853

_COMPILE = """
import os, sys, types
for name, folder in (("effdyn", ""), ("effdyn.solve", sys.argv[1])):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [folder]
from effdyn.solve.integrators.dop853 import compiled_advance
compiled_advance(False)
os._exit(0)
"""
"""What the other process runs. It imports the integrator without the room around it (SymPy, xarray), and leaves without
clearing up: a second less, out of six."""


@functools.cache
def _marker() -> Path:
    facts = [Path(dop853.__file__).read_bytes(), numba.__version__, sys.version, os.environ.get("NUMBA_CACHE_DIR", "")]
    digest = hashlib.sha256(b"\0".join(f if isinstance(f, bytes) else f.encode() for f in facts)).hexdigest()
    return cache_directory() / f"dop853_{digest[:16]}.compiled"


_starting = threading.Lock()


def start() -> subprocess.Popen[bytes] | None:
    """Start compiling the integrator, once in the life of this process, unless that was done before on this machine."""
    with _starting:  # functools.cache alone would let two threads start one process each
        return _process()


@functools.cache
def _process() -> subprocess.Popen[bytes] | None:
    if _marker().exists() or (os.cpu_count() or 1) < 2 or not sys.executable:
        return None
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-c", _COMPILE, str(Path(dop853.__file__).parents[1])], stdin=quiet, stdout=quiet, stderr=quiet
    )


def wait() -> None:
    """Return when the integrator is compiled. Should the other process fail, this one compiles."""
    if _marker().exists():
        return
    process = start()
    if process is not None:
        load_xarray()  # which a solution needs: half a second of the two that this process would be idle
        process.wait()
    dop853.compiled_advance(False)
    _marker().touch()
