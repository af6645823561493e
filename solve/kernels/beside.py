"""The first observables of a process compile in another one, while this one compiles the right-hand side.

Numba compiles one function at a time in a process. Both go through the cache: the other process writes its machine code
there, and this one reads it. Only the first time is worth it, when a user waits for a figure: the other process imports
Numba, which takes as long as such a kernel. Should it fail, this process compiles.
"""

import subprocess
import sys
import threading

from ..processors import processors
from .cache import generated_file

_COMPILE = """
import importlib.util, os, sys
name, path = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, path)
module = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
os._exit(0)
"""
"""What the other process runs: it imports nothing but the generated file, and leaves without clearing up."""

_starting = threading.Lock()
_started: dict[str, subprocess.Popen[bytes] | None] = {}
"""By the name of the module, the process that compiles it: one at most, or ``None`` if there was nothing to do."""


def start(name: str, source: str) -> None:
    """Start to compile a generated module, if this is the first call, and no process has had this source before."""
    with _starting:
        if _started:
            return
        module_name, path, new = generated_file(name, source)
        worth_it = new and processors() > 1 and sys.executable
        quiet = subprocess.DEVNULL
        command = [sys.executable, "-c", _COMPILE, module_name, str(path)]
        _started[module_name] = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) if worth_it else None


def wait(name: str, source: str) -> None:
    """Return when the other process has compiled a generated module: at once, if it does not."""
    if any(_started.values()):
        process = _started.get(generated_file(name, source)[0])
        if process is not None:
            process.wait()
