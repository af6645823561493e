"""Work in a thread of ours that is no longer waited for: Ctrl-C reaches the main thread alone, which tells the others.

Who hands out work runs it ``until`` an event is set; loops that may last ``give_way`` about ten times a second.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Stopped(Exception):
    """Nobody waits for what is being computed; it is not finished."""


_stop: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


@contextmanager
def until(stop: threading.Event | None) -> Iterator[None]:
    """Have the loops of this thread end with :class:`Stopped` once the event is set.

    Examples
    --------
    >>> event = threading.Event()
    >>> with until(event):
    ...     give_way()
    ...     event.set()
    ...     give_way()
    Traceback (most recent call last):
    ...
    effdyn.solve.stopping.Stopped
    >>> give_way()  # nobody is told to stop here
    """
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def give_way() -> None:
    """Raise :class:`Stopped` if this thread is to stop."""
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise Stopped
