"""A journal of finished cells: each is one append to one file, so that a cell costs microseconds and survives a kill.

From here cells are moved to the arrays of the store, many at a time. A record that was being written when the process
was killed ends the file before its own end, and is cut off; any other record that does not match its checksum is
damage.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .cell import Outcome
from .errors import DamagedStore

JOURNAL = "journal"
_MAGIC = b"efdn"
_HEAD = struct.Struct("<4sIII")  # magic, checksum of the body, lengths of its text and its numbers
_BODY = struct.Struct("<qd")  # cell, t_reached
_LONGEST_TEXT = 4096


def encode(index: int, outcome: Outcome) -> bytes:
    """Return a cell as bytes, whose checksum goes with it to the arrays."""
    text = f"{outcome.status}\n{outcome.message}".encode()
    return _BODY.pack(index, outcome.t_reached) + text + np.ascontiguousarray(outcome.values, dtype="<f8").tobytes()


def checksum(body: bytes) -> int:
    """Return the checksum of an encoded cell."""
    return zlib.crc32(body)


class Journal:
    """The open file, for one writer."""

    def __init__(self, folder: Path, length: int) -> None:
        self.path, self._length = folder / JOURNAL, length
        self._file = self.path.open("ab", buffering=0)

    def append(self, index: int, outcome: Outcome) -> int:
        """Write a cell, in one call of the operating system; return its checksum."""
        body = encode(index, outcome)
        text = len(body) - _BODY.size - 8 * self._length
        total = checksum(body)
        record = _HEAD.pack(_MAGIC, total, text, self._length) + body
        written = self._file.write(record)
        if written != len(record):
            raise OSError(f"{self.path}: only {written} of {len(record)} bytes could be written")
        return total

    def read(self) -> Iterator[tuple[int, Outcome, int]]:
        """Yield cell, outcome and checksum of each record, and cut off the last one if it is not whole.

        Raises
        ------
        DamagedStore
            If a whole record is not what was written.
        """
        for index, outcome, total, _ in self.records():
            yield index, outcome, total

    def records(self) -> Iterator[tuple[int, Outcome, int, int]]:
        """Yield what :meth:`read` does, and where each record begins."""
        start = 0
        with self.path.open("rb") as file:
            while (record := self._record(file, start)) is not None:
                index, outcome, total, stop = record
                yield index, outcome, total, start
                start = stop
        os.truncate(self.path, start)

    def at(self, start: int) -> Outcome:
        """Return the outcome whose record begins there."""
        with self.path.open("rb") as file:
            record = self._record(file, start)
        if record is None:
            raise self._damaged(start)
        return record[1]

    def _record(self, file: BinaryIO, start: int) -> tuple[int, Outcome, int, int] | None:
        """Return cell, outcome, checksum and end of the record that begins there; None if it is not whole."""
        file.seek(start)
        if len(head := file.read(_HEAD.size)) < _HEAD.size:
            return None
        magic, total, text, length = _HEAD.unpack(head)
        if magic != _MAGIC or length != self._length or text > _LONGEST_TEXT:
            raise self._damaged(start)
        size = _BODY.size + text + 8 * length
        if len(body := file.read(size)) < size:
            return None
        if checksum(body) != total:
            raise self._damaged(start)
        index, t_reached = _BODY.unpack_from(body)
        status, message = body[_BODY.size : _BODY.size + text].decode().split("\n", 1)
        outcome = Outcome(status, t_reached, message, np.frombuffer(body[_BODY.size + text :], "<f8"))
        return index, outcome, total, start + _HEAD.size + size

    def empty(self) -> None:
        """Forget all records: they are in the arrays."""
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()

    def _damaged(self, start: int) -> DamagedStore:
        return DamagedStore(
            self.path.parent, f"is damaged: {self.path.name} is not what was written, at byte {start}", ADVICE
        )


ADVICE = "Restore it from a copy, or delete it and compute the sweep again."
