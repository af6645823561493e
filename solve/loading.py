"""The garbage collector at rest while libraries load.

What they allocate stays: some 10⁵ objects, which every full collection walks in vain, 0.1 s each, a fifth of the time
from a prompt to the first solution. It goes on as before once they are there.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Collect no garbage inside; outside as before, also where it was off already."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
