"""Closed forms are checked against numerical integrals beside the work, in a process of its own.

The integrals take seconds, so nobody waits for them: kernels are compiled and run meanwhile. What was checked is
remembered on disk, and a form that fails is an error as soon as it is known, in this process or in the next. The other
process ends with this one; certificates that it has finished by then are kept.
"""

import atexit
import functools
import hashlib
import json
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import sympy

import effdyn.derive
from effdyn.derive import Dynamics
from effdyn.derive.cache_directory import cache_directory
from effdyn.derive.errors import CertificateError
from effdyn.derive.numerical.moment_forms import moment_form

_WORKER = """
import json, os, pickle, sys
from pathlib import Path
if hasattr(os, "nice"):
    os.nice(19)
from effdyn.derive.gaussian.certificate import certify
from effdyn.derive.errors import CertificateError
for line in sys.stdin:
    stem = line.rstrip("\\n")
    job = Path(stem + ".job")
    if not job.exists():  # another process has done it
        continue
    signatures, shifted = pickle.loads(job.read_bytes())
    try:
        for signature in signatures:
            certify(signature, shifted)
    except CertificateError as error:
        facts = [error.moment, error.covariance, error.mean, error.form, error.reference, error.error]
        Path(stem + ".refuted").write_text(json.dumps(facts))
    except (MemoryError, OSError):  # of this moment: the next process tries again
        continue
    except Exception as error:
        Path(stem + ".unchecked").write_text(f"{type(error).__name__}: {error}")
    else:
        Path(stem + ".certified").touch()
    job.unlink(missing_ok=True)
"""
"""What the other process runs: it is sent the names of files with moments, a line each."""


_waiting: dict[Path, None] = {}
"""What has been handed over and not been answered yet."""
_handing_over = threading.Lock()


def start(dynamics: Dynamics) -> None:
    """Have the closed forms of a Dynamics checked, unless that was done before on this machine.

    Raises
    ------
    CertificateError
        If one was found to be wrong.
    """
    stem = _stem(dynamics)
    with _handing_over:  # threads share one worker, and write to it one at a time
        if _answered(stem) or stem in _waiting or (worker := _worker()) is None:
            return
        stem.with_suffix(".job").write_bytes(pickle.dumps((_signatures(dynamics), bool(dynamics.mean))))
        _waiting[stem] = None
        _send(worker, str(stem))


def check() -> None:
    """Raise the CertificateError of a closed form that has been found to be wrong meanwhile."""
    for stem in list(_waiting):
        if _answered(stem):
            _waiting.pop(stem, None)  # another thread may have been told meanwhile


def _answered(stem: Path) -> bool:
    """Return whether moments are certified; raise if they are refuted, warn if they cannot be checked."""
    refuted, unchecked = stem.with_suffix(".refuted"), stem.with_suffix(".unchecked")
    if refuted.exists():
        moment, covariance, mean, form, reference, error = json.loads(refuted.read_text())
        raise CertificateError(moment, tuple(map(tuple, covariance)), tuple(mean), form, reference, error)
    if unchecked.exists():
        warnings.warn(f"a closed form could not be checked: {unchecked.read_text()}", RuntimeWarning, stacklevel=4)
        return True
    return stem.with_suffix(".certified").exists()


def _signatures(dynamics: Dynamics) -> tuple[tuple[sympy.Lambda, ...], ...]:
    """Return the signatures of the moments with a closed form."""
    shifted = bool(dynamics.mean)
    return tuple(m.signature for m in dynamics.moments if moment_form(m.signature, shifted).exact)


@functools.lru_cache(maxsize=256)
def _stem(dynamics: Dynamics) -> Path:
    """Return the name, without ending, of the files that tell the outcome."""
    digest = hashlib.sha256(f"{_rules()} {sympy.__version__} {bool(dynamics.mean)}".encode())
    for signature in _signatures(dynamics):
        digest.update(sympy.srepr(sympy.Tuple(*signature)).encode())
    return cache_directory() / f"moments_{digest.hexdigest()[:16]}"


@functools.cache
def _rules() -> str:
    """Return what changes whenever the rules do: another version, or an edited file."""
    files = sorted(Path(effdyn.derive.__path__[0]).rglob("*.py"))
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()


@functools.cache
def _worker() -> subprocess.Popen[bytes] | None:
    """Start the other process, once in the life of this one."""
    if not sys.executable:
        return None
    quiet = subprocess.DEVNULL
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    atexit.register(_end, worker)
    return worker


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.communicate()


def _send(worker: subprocess.Popen[bytes], stem: str) -> None:
    """Hand a job over. A worker that has died checks nothing, and the next process will."""
    assert worker.stdin is not None
    try:
        worker.stdin.write(f"{stem}\n".encode())
        worker.stdin.flush()
    except BrokenPipeError:
        return
