"""The result of a sweep as arrays over cells, and as a Dataset; and the store that keeps them in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..results import variable
from .cell import Common, Outcome, output_variables
from .grid import Grid

if TYPE_CHECKING:
    import xarray as xr

PENDING = "pending"

ABOUT_CELLS = {
    "status": "success, or why the cell ended before the last time",
    "t_reached": "last time with a valid state",
    "message": "what went wrong",
}


class Store(Protocol):
    """What a sweep needs of a place for its cells."""

    @property
    def done(self) -> np.ndarray: ...
    def add(self, index: int, outcome: Outcome) -> None: ...
    def fold(self) -> None: ...
    def dataset(self) -> "xr.Dataset": ...


@dataclass(frozen=True, slots=True)
class Layout:
    """The variables of a sweep's result: for each its dims after those of the grid, its shape there, and what it
    means."""

    grid: Grid
    t: np.ndarray
    clock: str
    variables: Mapping[str, tuple[tuple[str, ...], tuple[int, ...], dict[str, str]]]
    attrs: Mapping[str, str]
    runs: int = 0

    @classmethod
    def of(cls, common: Common, grid: Grid, attrs: Mapping[str, str]) -> "Layout":
        found = {}
        lead = common.lead
        for name, q in output_variables(common.dynamics, bool(common.options.get("average"))).items():
            dims, _, about = variable(q, np.empty(0), tuple(lead))
            found[name] = (dims, (*lead.values(), *common.shapes[name]), about)
        return cls(grid, common.t, common.dynamics.clock, found, attrs, common.runs)

    @property
    def length(self) -> int:
        return sum(int(np.prod(shape, dtype=int)) for _, shape, _ in self.variables.values())

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the variables of cells from their numbers, (…, length)."""
        found, start = {}, 0
        for name, (_, shape, _) in self.variables.items():
            stop = start + int(np.prod(shape, dtype=int))
            found[name] = values[..., start:stop].reshape((*values.shape[:-1], *shape))
            start = stop
        return found

    def coordinates(self) -> dict[str, tuple[Any, ...]]:
        runs: dict[str, tuple[Any, ...]] = {"run": (("run",), np.arange(self.runs), {})} if self.runs else {}
        return {**self.grid.coordinates(), **runs, "t": (("t",), self.t, {"long_name": self.clock})}

    def dataset(self, arrays: Mapping[str, np.ndarray]) -> "xr.Dataset":
        """Return cells, each array with one axis of cells first, as a Dataset."""
        import xarray as xr

        shape, dims = self.grid.shape, self.grid.dims
        entries: dict[str, Any] = {
            name: ((*dims, *own), arrays[name].reshape((*shape, *size)), about)
            for name, (own, size, about) in self.variables.items()
        }
        for name, about in ABOUT_CELLS.items():
            entries[name] = (dims, arrays[name].reshape(shape), {"long_name": about})
        return xr.Dataset(entries, coords=self.coordinates(), attrs=dict(self.attrs))


@dataclass
class MemoryStore:
    """Cells in arrays of this process."""

    layout: Layout
    done: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        n = self.layout.grid.size
        self.done = np.zeros(n, dtype=bool)
        self._arrays = {name: np.full((n, *shape), np.nan) for name, (_, shape, _) in self.layout.variables.items()}
        self._arrays |= {
            "status": np.full(n, PENDING, dtype=object),
            "t_reached": np.full(n, np.nan),
            "message": np.full(n, "", dtype=object),
        }

    def add(self, index: int, outcome: Outcome) -> None:
        for name, values in self.layout.split(outcome.values).items():
            self._arrays[name][index] = values
        for name in ABOUT_CELLS:
            self._arrays[name][index] = getattr(outcome, name)
        self.done[index] = True

    def fold(self) -> None:
        """Nothing is to be moved."""

    def dataset(self) -> "xr.Dataset":
        return self.layout.dataset(self._arrays)
