"""The finished replicas of a simulation in a folder, so that one that was killed goes on from there.

Each is one append to a journal, with a checksum; a record that was cut short by a kill is dropped, and that replica run
again, from where it was last kept in the middle of its run (:mod:`.unfinished`). What decides every number stands
beside the journal, and another simulation is refused; the number of runs does not belong to it, so that a folder can be
given more runs later.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from effdyn.solve.sweeps.cell import Outcome
from effdyn.solve.sweeps.errors import DamagedStore, ForeignStore
from effdyn.solve.sweeps.fingerprint import differences
from effdyn.solve.sweeps.journal import JOURNAL, Journal
from effdyn.solve.sweeps.lock import LOCK, only_writer

from . import unfinished
from .asked import Times
from .replicas import Divergence, Job, State

ABOUT = "simulation.json"
UNFINISHED = "unfinished"
OTHER = "Give another folder, or delete this one."
RESTORE = "Restore it from a copy, or delete it and simulate again."


class Checkpoint:
    """A folder, for one writer at a time; a context manager, which holds its lock.

    Parameters
    ----------
    folder : Path
    about : dict of str
        What decides every number.
    times : Times
        When it was saved, and at which d.
    shapes : dict
        Of each array of a finished replica, times first.

    Raises
    ------
    StoreInUse, ForeignStore, DamagedStore
        On entering.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, str], times: Times, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.folder, self._sizes, self._shapes = folder, list(times.steps), dict(shapes)
        digest = hashlib.sha256(np.concatenate([times.t, *times.steps.values()]).tobytes()).hexdigest()[:16]
        said = f"{len(times.t)} from {times.t[0]:g} to {times.t[-1]:g}, hash {digest}"
        self._about = dict(about) | {"times": said}
        self.finished: dict[Job, int] = {}  # where each begins in the journal
        self.unfinished = unfinished.Unfinished(folder.absolute() / UNFINISHED, unfinished.EVERY)
        self._writing = threading.Lock()
        self._open = ExitStack()

    def __enter__(self) -> Checkpoint:
        with ExitStack() as opening:
            self._refuse_other_folders()
            self.folder.mkdir(parents=True, exist_ok=True)
            opening.enter_context(only_writer(self.folder))
            self._identify()
            self._journal = Journal(self.folder, sum(int(np.prod(shape)) for shape in self._shapes.values()))
            opening.callback(self._journal.close)
            self._read()
            self._tidy()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def keep(self, job: Job, outcome: State | Divergence) -> None:
        """Write a finished replica: once this returns, killing the process does not lose it.

        One that diverged is not written: it is run again, and diverges again.
        """
        if isinstance(outcome, Divergence):
            return
        run, d = job
        values = np.concatenate([np.ravel(outcome[name]) for name in self._shapes])
        with self._writing:
            self._journal.append(run * len(self._sizes) + self._sizes.index(d), Outcome("success", 0.0, "", values))

    def read(self, job: Job) -> State:
        """Return a replica of :attr:`finished`."""
        return self._split(self._journal.at(self.finished[job]).values)

    def _refuse_other_folders(self) -> None:
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise ForeignStore(self.folder, "is not a folder", OTHER)
        names = set(os.listdir(self.folder)) - {f"{ABOUT}.partial"}
        ours = {LOCK, JOURNAL, ABOUT, UNFINISHED}
        if names and not (LOCK in names and names <= ours):  # the lock is what is made first
            raise ForeignStore(self.folder, "does not hold a simulation", OTHER)

    def _identify(self) -> None:
        """Compare what the folder holds with what is asked for; write that into a new one."""
        path = self.folder / ABOUT
        if not path.exists():
            (self.folder / JOURNAL).unlink(missing_ok=True)
            for kept in self.unfinished.folder.glob("*"):
                kept.unlink()
            partial = path.with_name(f"{ABOUT}.partial")
            partial.write_text(json.dumps(self._about, indent=1), encoding="utf-8")
            partial.replace(path)
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DamagedStore(self.folder, f"is damaged: {ABOUT} cannot be read", RESTORE) from error
        if other := differences(found, self._about):
            raise ForeignStore(self.folder, "is of another simulation:\n    " + "\n    ".join(other), OTHER)

    def _tidy(self) -> None:
        """Delete what a kill left of replicas that have ended."""
        self.unfinished.folder.mkdir(exist_ok=True)
        self.unfinished.tidy()
        for job in self.finished:
            self.unfinished.forget(*job)

    def _read(self) -> None:
        try:
            for index, _, _, start in self._journal.records():
                run, place = divmod(index, len(self._sizes))
                self.finished[run, self._sizes[place]] = start
        except DamagedStore as error:
            raise DamagedStore(self.folder, error.reason, RESTORE) from error

    def _split(self, values: np.ndarray) -> State:
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes.values()])
        parts = np.split(values.astype(float), ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
