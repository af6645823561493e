"""The step loop of ``dop853.py`` with the stages of other methods: one self-contained file each, written and compiled.

Numba's cache does not notice a change in another file, and a loop that is handed a method's functions is compiled anew
in every process. So the text of the loop and that of the method are put into one file named by its content.
"""

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

from ..kernels.cache import load_generated
from . import adams, dop853, dopri5, radau
from .dop853 import Method, advance_signature

SHARED = (
    "_call", "_put", "_is_finite", "_starting_step", "_mark_events", "_find_root", "_find_events", "_count_votes",
    "_reject", "_lengthen", "_accept", "_stiffness", "_advance",
)  # fmt: skip
"""What the methods have in common, from ``dop853.py``, unless they have their own."""

_HEADER = '''"""{title}

Put together by effdyn from its own files; do not edit.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
'''

_OPTIONS = """FLAGS = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS = {"_nrt": ALLOCATES, "nogil": True, "error_model": "numpy", "fastmath": FLAGS}
HELPER = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""


def source_of(method: ModuleType) -> str:
    """Return the complete source of the loop with the functions and constants of that method.

    Examples
    --------
    >>> source_of(dopri5).count("def _take_step(")
    1
    """
    title = str(method.__doc__).splitlines()[0]
    constants = {**_constants(dop853), **_constants(method)}
    own = [name for name, f in vars(method).items() if _is_compiled(f) and f.py_func.__module__ == method.__name__]
    text = [_text(getattr(method, name)) for name in own]
    shared = [_text(getattr(dop853, name)) for name in SHARED if name not in own]
    lines = [f"{name} = {value}" for name, value in constants.items()]
    return "\n\n".join([_HEADER.format(title=title), "\n".join(lines), _OPTIONS, *text, *shared])


def _constants(module: ModuleType) -> dict[str, str]:
    """Return the numbers and tables of numbers of a module, as text that evaluates to them exactly."""
    found = {name: value for name, value in vars(module).items() if name.strip("_").isupper()}
    numbers = {name: repr(value) for name, value in found.items() if isinstance(value, (bool, int, float, complex))}
    tables = {n: f"np.array({v.tolist()!r})" for n, v in found.items() if isinstance(v, np.ndarray)}
    return numbers | tables


def _is_compiled(value: Any) -> bool:
    return hasattr(value, "py_func")


def _text(function: Any) -> str:
    return inspect.getsource(getattr(function, "py_func", None) or getattr(function, "_defn", function))


def _compiled(method: ModuleType, with_events: bool) -> Callable[..., int]:
    module = load_generated(f"steps_{method.__name__.rpartition('.')[2]}", source_of(method))
    compiled: Callable[..., int] = njit(advance_signature(with_events), cache=True, **module.OPTIONS)(module._advance)
    return compiled


@functools.cache
def _dopri5(with_events: bool) -> Callable[..., int]:
    return _compiled(dopri5, with_events)


@functools.cache
def _radau(with_events: bool) -> Callable[..., int]:
    return _compiled(radau, with_events)


@functools.cache
def _adams(with_events: bool) -> Callable[..., int]:
    return _compiled(adams, with_events)


DOPRI5 = Method("DOPRI5", _dopri5, lambda n: dopri5.N_STAGE_ROWS)
RADAU5 = Method("Radau5", _radau, lambda n: radau.N_STAGE_ROWS + n)
ADAMS = Method("Adams", _adams, lambda n: adams.N_STAGE_ROWS + -(-adams.N_TABLES // n), adams.ORDER_MOST)
