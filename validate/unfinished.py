"""Replicas in the middle of their runs, kept in files, so that a replica of 10⁸ steps survives a kill.

Kept is everything of a replica that changes: its arrays, its counters and the states of its streams. What it was made
of (compiled step, model, data law) is made again. A replica does not depend on how its steps are cut into blocks, so
that one that goes on from a file gives the same bits as one that was never stopped.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from effdyn.derive.errors import ModelError
from effdyn.solve.sweeps.errors import DamagedStore

if TYPE_CHECKING:
    from .replicas import State

EVERY = 30.0
"""Seconds of wall time between two files of one replica: what a kill loses at most."""
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A folder with a file for each replica that has begun; it can be sent to other processes.

    Where there is no such folder, as on another machine, nothing is kept, and a replica is run as a whole.
    """

    folder: Path
    every: float

    def of(self, run: int, d: int) -> Part:
        """Return the file of one replica."""
        return Part(self.folder / f"run-{run}-d-{d}.npz", self.every)

    def forget(self, run: int, d: int) -> None:
        """Delete the file of a replica that has ended."""
        self.of(run, d).path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete what a kill left half written."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)


class Part:
    """The file of one replica, and when it was last written."""

    def __init__(self, path: Path, every: float) -> None:
        self.path, self._every = path, every
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self._every

    def write(self, replica: Any, step: int, saved: list[State]) -> None:
        """Put the file in the place of the last one, at once: a kill leaves one or the other."""
        self._written = time.monotonic()
        if not self.path.parent.is_dir():
            return
        arrays, values = _moving(replica)
        known = {f"saved {name}": np.stack([state[name] for state in saved]) for name in saved[0]} if saved else {}
        text = np.array(json.dumps({"step": step, "saved": len(saved), "values": values}))
        content: dict[str, Any] = known | {f"array {name}": array for name, array in arrays.items()}
        partial = self.path.with_name(f"{self.path.name}.{uuid4().hex}{PARTIAL}")
        try:
            with partial.open("wb") as file:
                np.savez(file, about=text, **content)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def resume(self, replica: Any) -> tuple[int, list[State]]:
        """Put a fresh replica where the kept one was; return its steps made, and its states saved until then.

        Raises
        ------
        DamagedStore
            If the file is not what was written.
        ModelError
            If a function that makes the inputs does not make the same again.
        """
        if not self.path.exists():
            return 0, []
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                held = {name: kept[name] for name in kept.files}
            about = json.loads(held.pop("about").item())
            _move(replica, {name[6:]: array for name, array in held.items() if name.startswith("array ")}, about)
        except ModelError:  # of inputs that are no longer the same
            raise
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
            advice = "Delete this file: the replica is then run from its start."
            raise DamagedStore(self.path, f"is damaged ({error})", advice) from error
        series = {name[6:]: array for name, array in held.items() if name.startswith("saved ")}
        return about["step"], [{name: array[i] for name, array in series.items()} for i in range(about["saved"])]


def _moving(thing: Any) -> tuple[State, dict[str, Any]]:
    """Return what changes in a replica by the names of its attributes: arrays, and what JSON takes.

    An attribute that is itself of several parts says what of it changes by ``kept()`` and takes it by ``go_on(…)``.
    """
    arrays: State = {}
    values: dict[str, Any] = {}
    for name, value in vars(thing).items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, np.random.Generator):
            values[name] = value.bit_generator.state
        elif isinstance(value, int | float | np.number):
            values[name] = value.item() if isinstance(value, np.number) else value
        elif hasattr(value, "go_on"):
            values[name] = value.kept()
        elif isinstance(value, tuple | list):  # of constants and of work space
            assert not any(isinstance(part, np.random.Generator) or hasattr(part, "go_on") for part in value), name
    return arrays, values


def _move(replica: Any, arrays: State, about: dict[str, Any]) -> None:
    own, values = _moving(replica)
    if set(own) != set(arrays) or set(values) != set(about["values"]):
        raise ValueError("it is of a replica of another kind")
    for name, array in own.items():
        if array.shape != arrays[name].shape:
            raise ValueError(f"{name} has another shape")
        if array.tobytes() != arrays[name].tobytes():  # what replicas share is left alone
            array[...] = arrays[name]
    for name, value in about["values"].items():
        attribute = getattr(replica, name)
        if isinstance(attribute, np.random.Generator):
            attribute.bit_generator.state = value
        elif hasattr(attribute, "go_on"):
            attribute.go_on(value)
        else:
            setattr(replica, name, value)
