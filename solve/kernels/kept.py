"""Compiled functions kept on disk that call compiled functions of other files.

Numba files what it compiles under the file of the function alone, and does not notice when another file that it calls
changes: after an update it would go on with the old machine code. So the function is filed under a generated file
(:mod:`.cache`), which says nothing but the content of all that goes into it, and the options, of which it is as blind.
"""

from __future__ import annotations

import hashlib
import os
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .cache import generated_file

CONSTANTS = (bool, int, float, complex, str, tuple, np.ndarray, np.generic, np.dtype)
"""What Numba compiles the value of, where a name means one."""
_STARTED = time.time()
_STANDS = '''"""Stands in Numba's cache for {name} of {module}, of this content."""

CONTENT = "{content}"
OPTIONS = {options}
'''


def kept(compiler: Callable[..., Any], function: Any, *signature: Any, **options: Any) -> Any:
    """Compile a function, or load it from the disk if nothing that goes into it has changed.

    Parameters
    ----------
    compiler : callable
        ``numba.njit`` or ``numba.cfunc``.
    function : function or dispatcher
        At the top of its module.
    *signature, **options
        For ``compiler``, without ``cache``.
    """
    python = getattr(function, "py_func", function)
    name = python.__name__
    facts = {"content": digest(function), "options": _stated(options)}
    source = _STANDS.format(name=name, module=python.__module__, **facts)
    _, path, _ = generated_file(f"kept_{name.strip('_')}", source)
    code = python.__code__.replace(co_filename=str(path))
    there = types.FunctionType(code, python.__globals__, name, python.__defaults__, python.__closure__)
    return compiler(*signature, cache=True, **options)(there)


def digest(*functions: Any) -> str:
    """Return a number of the files that functions are from, with all compiled ones they call, and of their constants.

    Whole files, because an operator may be compiled by what its operands' file says. Of one that was written after this
    process began, nobody knows which version was imported: then the number is not found again.
    """
    found = hashlib.sha256()
    for part in sorted(set(_parts(functions))):
        found.update(part + b"\0")
    return found.hexdigest()[:16]


def reached(functions: Iterable[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return functions with all compiled ones that they call, and the constants that they use, by name."""
    found, constants = list(functions), {}
    for function in found:  # which grows
        for name, value in _used(function):
            if is_compiled(value):
                found += [value] if value not in found else []
            elif isinstance(value, CONSTANTS):
                constants[name] = value
    return found, constants


def is_compiled(value: Any) -> bool:
    """Return whether a value is what Numba makes of a function, or one that writes instructions for it."""
    return hasattr(value, "py_func") or hasattr(value, "_defn")


def python_of(function: Any) -> types.FunctionType:
    """Return what is compiled, or what writes the instructions."""
    python: types.FunctionType = getattr(function, "py_func", None) or getattr(function, "_defn", function)
    return python


def _used(compiled: Any) -> Iterator[tuple[str, Any]]:
    """Yield what the names in a function mean: globals, what it encloses, and attributes of modules."""
    if hasattr(compiled, "_defn"):  # it writes instructions: its file is enough
        return
    function = python_of(compiled)
    names, where = set(_names(function.__code__)), f"{function.__module__}.{function.__qualname__}"
    inside = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((f"{where}.{name}", cell.cell_contents) for name, cell in inside)
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f"{where}.{name}", value
        if isinstance(value, types.ModuleType):
            yield from ((f"{value.__name__}.{n}", vars(value)[n]) for n in sorted(names & vars(value).keys()))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _parts(functions: Iterable[Any]) -> Iterator[bytes]:
    found, constants = reached(functions)
    for name, value in constants.items():
        yield name.encode() + (value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    for value in found:
        code = python_of(value).__code__
        yield _stated(getattr(value, "targetoptions", {})).encode()
        if not os.path.isfile(code.co_filename):  # compiled from text
            yield repr((code.co_code, code.co_consts, code.co_names)).encode()
            continue
        with open(code.co_filename, "rb") as file:
            yield file.read()
            if _STARTED < os.fstat(file.fileno()).st_mtime <= time.time():  # later ones are of another clock
                yield repr((os.getpid(), _STARTED)).encode()


def _stated(options: dict[str, Any]) -> str:
    """Return options as text that is the same in every process: sets have an order of their own in each."""
    return repr(sorted((name, sorted(v) if isinstance(v, set) else v) for name, v in options.items()))
