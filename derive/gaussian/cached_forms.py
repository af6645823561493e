"""What took long to derive, on disk: closed forms and their certificates, by a hash of all that decides them.

Values are pickled: parsing SymPy's text takes as long as deriving most forms. Unpickling runs what the file says, so a
file is only read from a folder that this user owns and no other may write, and only if it holds the digest of its own
content: one that was cut short or edited is computed again. Nothing here is needed: without a folder to write to,
everything is derived afresh in each process.
"""

import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import sympy

from ..cache_directory import preferred_directory

T = TypeVar("T")
WORTH = 0.002
"""Seconds: what is derived faster is not stored."""
DIGEST = 32


def cached(kind: str, key: str, derive: Callable[[], T]) -> T:
    """Return what ``derive`` returns, from disk if it was stored there.

    Parameters
    ----------
    kind : str
        What is stored, the beginning of the file's name.
    key : str
        All that decides the value, but for the versions of effdyn and of what it stands on.
    derive : callable
        Computes it.
    """
    folder = _folder()
    if folder is None:
        return derive()
    path = folder / f"{kind}_{_hash(key)}.pickle"
    content = _intact(path)
    if content is not None:
        return pickle.loads(content)
    start = perf_counter()
    value = derive()
    if perf_counter() - start > WORTH:
        _store(path, pickle.dumps(value))
    return value


def _hash(key: str) -> str:
    digest = hashlib.sha256()
    for part in (_sources(), sympy.__version__, sys.version, key):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


@cache
def _sources() -> str:
    """Return a hash of this room's source: finer than its version, which does not change while one works on it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _folder() -> Path | None:
    """Return the user's cache folder, or None if it cannot be made, or others may write to it."""
    directory = preferred_directory()
    if not directory.is_absolute():
        return None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError:
        return None
    if os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return directory


def _intact(path: Path) -> bytes | None:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content = stored[DIGEST:]
    return content if hashlib.sha256(content).digest() == stored[:DIGEST] else None


def _store(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it; where that fails, nothing is stored."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=".tmp")
        with open(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
