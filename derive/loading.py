"""How libraries load: what is seldom needed when it is asked for, and the garbage collector kept out of the way.

What libraries allocate stays: some 10⁵ objects, which every full collection walks in vain, 0.1 s each, and the last
ones at the end of the process walk once more. That was a third of the time from a prompt to the first figure.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_used: set[str] = set()


@contextmanager
def first_use(library: str) -> Iterator[None]:
    """Collect no garbage inside, after it as before; and set aside what was made, where a library is used first."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if library not in _used:
            _used.add(library)
            set_aside()
    finally:
        if enabled:
            gc.enable()


def set_aside() -> None:
    """Have the collector pass over all that there is now, for good: called where libraries have just loaded.

    Nothing else changes: objects still go when nothing refers to them, and cycles made from now on are collected. Only
    a cycle that exists already and is dropped later stays in memory; ``gc.unfreeze()`` gives it back.
    """
    gc.freeze()


def on_demand(package: str, places: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose names, listed by module, are imported when first asked for.

    A name must not be that of a module of the package: importing the module would put it in the name's place.
    """
    module_of = {name: module for module, names in places.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
