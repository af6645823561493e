"""The user's folder for what can be computed again: generated kernels, closed forms.

Knows nothing of what is kept there.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
import warnings
from pathlib import Path

_warning = threading.RLock()


def cache_directory() -> Path:
    """The folder of generated files and of their compiled form, created for this user alone if it is missing.

    In order of precedence: ``$EFFDYN_CACHE_DIR``; ``$XDG_CACHE_HOME/effdyn``; the platform's own place for caches.
    Where that cannot be written, a temporary folder of this process, with a warning.
    """
    return _usable(preferred_directory())


def preferred_directory() -> Path:
    if chosen := os.environ.get("EFFDYN_CACHE_DIR"):
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    return _platform_caches() / "effdyn"


def _platform_caches() -> Path:
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the specification: a relative path is invalid and must be ignored
        return Path(xdg)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local"))
    return Path(os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache"))


def _usable(directory: Path) -> Path:
    try:
        if not directory.is_absolute():
            raise OSError("the home directory is unknown")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):  # by trial: permission bits do not tell of a read-only disk
            return directory
    except OSError as error:
        return _temporary_instead_of(directory, error.strerror or str(error))


_temporary: dict[Path, Path] = {}  # one folder and one warning per process


def _temporary_instead_of(directory: Path, reason: str) -> Path:
    with _warning:
        if directory not in _temporary:
            _temporary[directory] = Path(tempfile.mkdtemp(prefix="effdyn-"))
            atexit.register(shutil.rmtree, _temporary[directory], ignore_errors=True)
            warnings.warn(
                f"the cache of generated kernels, {directory}, cannot be written ({reason}): kernels go to a temporary "
                "folder and every process compiles them again. Set EFFDYN_CACHE_DIR to a writable folder to keep them.",
                RuntimeWarning,
                stacklevel=2,
            )
        return _temporary[directory]
