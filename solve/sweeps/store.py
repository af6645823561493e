"""Where the cells of a sweep are kept: in a zarr store, which xarray opens as a Dataset.

A finished cell is appended to the store's journal at once. Cells are moved on to the arrays in blocks, a chunk being
many cells, so that a million cells are thousands of files and not millions. In the arrays each cell has its status and
a checksum of all its numbers; a cell is finished when its status says so, which is written last.

Knows nothing of who computes the cells.
"""

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cell import MESSAGE_LENGTH, Outcome
from .errors import DamagedStore, ForeignStore
from .fingerprint import differences
from .journal import ADVICE, JOURNAL, Journal, checksum, encode
from .layout import ABOUT_CELLS, PENDING, Layout
from .lock import LOCK, only_writer

if TYPE_CHECKING:
    import xarray as xr
    import zarr

MARK = "effdyn_sweep"
"""The attribute that makes a zarr group the store of a sweep; it holds the fingerprint."""
FORMAT = 1
CHUNK_BYTES = 4 << 20
FOLD_BYTES, FOLD_SECONDS = 32 << 20, 10.0
"""Cells are moved to the arrays when they are so large together, or the first has waited so long."""
LOADED_BYTES = 1 << 30
"""A result up to this size is loaded; a larger one is read from the store as it is used."""


_DTYPES = {"status": "<U32", "t_reached": "<f8", "message": f"<U{MESSAGE_LENGTH}", "checksum": "<u4"}
_FILL = {"status": "", "t_reached": float("nan"), "message": "", "checksum": 0}


class ZarrStore:
    """Cells in a folder, for one writer at a time; a context manager, which holds the lock.

    Raises
    ------
    StoreInUse, ForeignStore, DamagedStore
        On entering.
    """

    def __init__(self, folder: Path, layout: Layout, print_: Mapping[str, str]) -> None:
        self.folder, self.layout, self._print = folder, layout, dict(print_)
        self.done = np.zeros(layout.grid.size, dtype=bool)
        self._pending: dict[int, tuple[Outcome, int]] = {}
        self._waiting_since = 0.0
        self._open = ExitStack()

    # ── Opening ──

    def __enter__(self) -> "ZarrStore":
        with ExitStack() as opening:
            self._refuse_other_folders()
            self.folder.mkdir(parents=True, exist_ok=True)
            opening.enter_context(only_writer(self.folder))
            self._group = self._opened()
            self._journal = Journal(self.folder, self.layout.length)
            opening.callback(self._journal.close)
            for index, outcome, total in self._journal.read():
                if not 0 <= index < self.done.size:
                    raise DamagedStore(self.folder, f"is damaged: its journal has a cell {index}", ADVICE)
                self.done[index] = True
                self._pending[index] = outcome, total
            self.fold()
            self._open = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _refuse_other_folders(self) -> None:
        """Refuse what is not a folder, or holds anything that is not of a store of a sweep."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise ForeignStore(self.folder, "is not a folder", "Give another store.")
        names = {name for name in os.listdir(self.folder) if not name.endswith(".partial")}  # zarr's, after a kill
        own = {*self.layout.variables, *self.layout.coordinates(), *_DTYPES, ".zgroup", ".zattrs", LOCK, JOURNAL}
        complete = ".zmetadata" in names
        if names and (LOCK not in names or not (complete or names <= own)):  # the lock is what is made first
            raise ForeignStore(self.folder, "is not the store of a sweep", "Give another store.")

    def _opened(self) -> "zarr.Group":
        """Return the group, made anew where there was none, else checked against the sweep and its own checksums."""
        import zarr

        if not (self.folder / ".zmetadata").exists():  # new, or killed before it was complete: there are no cells yet
            return self._made(zarr.open_group(str(self.folder), mode="a", zarr_format=2))
        try:
            group = zarr.open_group(str(self.folder), mode="r+", zarr_format=2)
            found = json.loads(str(group.attrs[MARK]))
        except Exception as error:  # whatever zarr raises for text that is not its own
            raise DamagedStore(self.folder, "is damaged: its metadata cannot be read", ADVICE) from error
        if found.pop("format", None) != FORMAT:
            raise ForeignStore(self.folder, "was written in another format", OTHER)
        if other := differences(found, self._print):
            raise ForeignStore(self.folder, "is of another sweep:\n    " + "\n    ".join(other), OTHER)
        self._check(group)
        return group

    def _made(self, group: "zarr.Group") -> "zarr.Group":
        import zarr

        (self.folder / JOURNAL).unlink(missing_ok=True)
        for name, (dims, values, about) in self.layout.coordinates().items():
            fill = float("nan") if values.dtype.kind == "f" else None  # the default, 0, would be masked by xarray
            attributes = {"_ARRAY_DIMENSIONS": list(dims), **about}
            group.create_array(name, data=values, fill_value=fill, attributes=attributes, overwrite=True)
        shape, dims = self.layout.grid.shape, list(self.layout.grid.dims)
        chunks = chunk_of_cells(shape, 8 * self.layout.length + 4 * (32 + MESSAGE_LENGTH))
        for name, (own, size, about) in self.layout.variables.items():
            group.create_array(
                name,
                shape=(*shape, *size),
                chunks=(*chunks, *size),
                dtype="<f8",
                fill_value=float("nan"),
                attributes={"_ARRAY_DIMENSIONS": [*dims, *own], **about},
                overwrite=True,
            )
        for name, dtype in _DTYPES.items():
            array = group.create_array(
                name,
                shape=shape,
                chunks=chunks,
                dtype=dtype,
                fill_value=_FILL[name],
                attributes={"_ARRAY_DIMENSIONS": dims, "long_name": ABOUT_CELLS.get(name, "CRC-32 of the cell")},
                overwrite=True,
            )
            if name == "status":  # written out, so that a chunk that is lost does not look like one that is pending
                array[...] = np.full(shape, PENDING, dtype=dtype)
        group.attrs.update(self.layout.attrs)
        group.attrs[MARK] = json.dumps({"format": FORMAT, **self._print})
        with warnings.catch_warnings():  # of the lock and the journal, which are not zarr's: readers do not see them
            warnings.filterwarnings("ignore", message="Object at (lock|journal)")
            zarr.consolidate_metadata(group.store)
        return group

    # ── Checking ──

    def _check(self, group: "zarr.Group") -> None:
        """Find the cells that are done, and compare each with its checksum."""
        for name in (*self.layout.variables, *_DTYPES, *self.layout.coordinates()):
            if name not in group:
                raise DamagedStore(self.folder, f"is damaged: it has no array {name}", ADVICE)
        for name, (_, values, _) in self.layout.coordinates().items():
            if not np.array_equal(np.asarray(_array(group, name)[...]), values):
                raise DamagedStore(self.folder, f"is damaged: its coordinate {name} is not what was written", ADVICE)
        for block in self._blocks():
            try:
                cells = self._read(group, block)
            except Exception as error:  # whatever zarr and its codecs raise for bytes that are not theirs
                raise DamagedStore(self.folder, f"is damaged: {self._place(block)} cannot be read", ADVICE) from error
            for n, index in enumerate(block):
                self._check_cell(index, {name: values[n] for name, values in cells.items()})

    def _check_cell(self, index: int, cell: Mapping[str, Any]) -> None:
        if cell["status"] == PENDING:  # a fold that was cut short may have left numbers here: they are written again
            return
        values = np.concatenate([np.ravel(cell[name]) for name in self.layout.variables])
        outcome = Outcome(str(cell["status"]), float(cell["t_reached"]), str(cell["message"]), values)
        if checksum(encode(index, outcome)) != cell["checksum"]:
            found = f"is damaged: {self._place(np.array([index]))} is not what was written"
            raise DamagedStore(self.folder, found, ADVICE)
        self.done[index] = True

    def _place(self, block: np.ndarray) -> str:
        place = np.unravel_index(int(block[0]), self.layout.grid.shape)
        named = ", ".join(f"{dim}[{int(i)}]" for dim, i in zip(self.layout.grid.dims, place, strict=True))
        return f"the cell at {named}"

    # ── Blocks: the cells of one chunk ──

    def _chunks(self) -> tuple[int, ...]:
        return chunk_of_cells(self.layout.grid.shape, 8 * self.layout.length + 4 * (32 + MESSAGE_LENGTH))

    def _block_numbers(self, cells: np.ndarray) -> np.ndarray:
        shape, chunks = self.layout.grid.shape, self._chunks()
        count = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
        place = np.unravel_index(cells, shape)
        return np.ravel_multi_index([p // c for p, c in zip(place, chunks, strict=True)], count)

    def _blocks(self, cells: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield the cells of each block, of all or of those that hold the given ones."""
        every = np.arange(self.done.size)
        numbers = self._block_numbers(every)
        order = np.argsort(numbers, kind="stable")
        bounds = np.flatnonzero(np.diff(numbers[order])) + 1
        wanted = None if cells is None else set(self._block_numbers(cells).tolist())
        for block in np.split(every[order], bounds):
            if wanted is None or int(numbers[block[0]]) in wanted:
                yield block

    def _slices(self, block: np.ndarray) -> tuple[slice, ...]:
        place = np.unravel_index(block, self.layout.grid.shape)
        return tuple(slice(int(p.min()), int(p.max()) + 1) for p in place)

    def _read(self, group: "zarr.Group", block: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of a block, with one axis of cells first."""
        where, found = self._slices(block), {}
        for name in (*self.layout.variables, *_DTYPES):
            values = np.asarray(_array(group, name)[where])
            found[name] = values.reshape((len(block), *values.shape[len(where) :]))
        return found

    def _write(self, block: np.ndarray, cells: Mapping[str, np.ndarray]) -> None:
        where = self._slices(block)
        extent = tuple(s.stop - s.start for s in where)
        for name in (*self.layout.variables, "t_reached", "message", "checksum", "status"):  # the status last
            _array(self._group, name)[where] = cells[name].reshape((*extent, *cells[name].shape[1:]))

    # ── Cells ──

    def add(self, index: int, outcome: Outcome) -> None:
        """Keep a finished cell: once this returns, killing the process does not lose it."""
        if not self._pending:
            self._waiting_since = time.monotonic()
        self._pending[index] = outcome, self._journal.append(index, outcome)
        self.done[index] = True
        large = len(self._pending) * 8 * self.layout.length >= FOLD_BYTES
        if large or time.monotonic() - self._waiting_since >= FOLD_SECONDS:
            self.fold()

    def fold(self) -> None:
        """Move the cells of the journal to the arrays."""
        if not self._pending:
            return
        for block in self._blocks(np.array(sorted(self._pending))):
            cells = self._read(self._group, block)
            for n, index in enumerate(block.tolist()):
                if index in self._pending:
                    outcome, total = self._pending[index]
                    for name, values in self.layout.split(outcome.values).items():
                        cells[name][n] = values
                    for name in ABOUT_CELLS:
                        cells[name][n] = getattr(outcome, name)
                    cells["checksum"][n] = total
            self._write(block, cells)
        self._journal.empty()
        self._pending.clear()

    def dataset(self) -> "xr.Dataset":
        """Return what the arrays hold; large ones are read when they are used."""
        import xarray as xr

        opened = xr.open_zarr(str(self.folder), chunks=None, mask_and_scale=False).drop_vars("checksum")
        opened = opened.set_coords([name for name in self.layout.coordinates() if name in opened.data_vars])
        opened.attrs.pop(MARK)
        opened = opened.assign({name: opened[name].astype(object) for name in ("status", "message")})
        for entry in opened.variables.values():
            entry.attrs.pop("_FillValue", None)  # zarr's own, which netCDF would take for a mask
        return (opened.load() if opened.nbytes <= LOADED_BYTES else opened)[[*self.layout.variables, *ABOUT_CELLS]]


OTHER = "Give another store, or delete this one."


def _array(group: "zarr.Group", name: str) -> Any:
    return group[name]


def chunk_of_cells(shape: tuple[int, ...], cell_bytes: int) -> tuple[int, ...]:
    """Return a chunk of about :data:`CHUNK_BYTES`: whole along the last dims, one cell along the first.

    >>> chunk_of_cells((100, 60, 50), CHUNK_BYTES // 500)
    (1, 10, 50)
    """
    left = max(1, CHUNK_BYTES // cell_bytes)
    chunk: list[int] = []
    for n in reversed(shape):
        chunk.insert(0, min(n, left))
        left = max(1, left // n)
    return tuple(chunk)
