"""One writer for a folder: a lock that the operating system takes away from a process that dies, however it dies.

So there are no stale locks. Record locks (``lockf``) and not ``flock``: those would be inherited by the processes of a
pool, and outlive the one that was killed.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import StoreInUse

LOCK = "lock"
_FAR = 1 << 30
"""On Windows what is locked cannot be read: a byte far behind the text that says who holds it."""

_held: set[tuple[int, str]] = set()  # a process cannot lock out itself: (its id, folder)
_holding = threading.Lock()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises
    ------
    StoreInUse
        If another process, or another thread of this one, holds it.
    """
    mine = (os.getpid(), str(folder.resolve()))
    with _holding:
        if mine in _held:
            raise _in_use(folder, "this process itself is writing to it")
        _held.add(mine)
    try:
        with (folder / LOCK).open("a+", encoding="utf-8") as file:
            if not _try_lock(file):
                raise _in_use(folder, _holder(file))
            file.truncate(0)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            file.write(json.dumps(holder))
            file.flush()
            try:
                yield
            finally:
                _unlock(file)
    finally:
        with _holding:
            _held.discard(mine)


def _in_use(folder: Path, who: str) -> StoreInUse:
    return StoreInUse(folder, f"is in use: {who}", "Wait until that has ended, or give another store.")


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']} is writing to it since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # between its locking and its writing
        return "another process is writing to it"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[str]) -> None:
        file.flush()
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(file: IO[str]) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN)
