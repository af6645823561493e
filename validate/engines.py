"""The engines by name, and what makes any replica of a simulation, wherever that is to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.solve.streams import stream

from .batches import BatchGram, BatchNetwork, compile_steps
from .blocks import BlockGram, BlockNetwork, compile_blocks
from .data_laws import DataLaw
from .gram import Gram, compile_gram
from .initial import Coordinates
from .inputs import Inputs
from .network import Network, compile_network
from .network_on_law import LawBatchNetwork, LawNetwork
from .shifted import ShiftedGram, ShiftedNetwork

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

ENGINES: dict[str, tuple[Callable, Callable]] = {"gram": (compile_gram, Gram), "network": (compile_network, Network)}
"""By name: what compiles a model's step, and the class of one replica."""
BATCHED: dict[str, tuple[Callable, Callable]] = {
    "gram": (compile_steps, BatchGram),
    "network": (compile_steps, BatchNetwork),
}
"""The same for models with mini-batches or momentum."""
IN_BLOCKS: dict[str, tuple[Callable, Callable]] = {
    "gram": (compile_blocks, BlockGram),
    "network": (compile_blocks, BlockNetwork),
}
"""The same for models whose inputs have a covariance with blocks."""
SHIFTED: dict[str, tuple[Callable, Callable]] = {
    "gram": (compile_steps, ShiftedGram),
    "network": (compile_steps, ShiftedNetwork),
}
"""The same for models whose inputs have a mean."""
ON_LAW: dict[Callable, Callable] = {Network: LawNetwork, BatchNetwork: LawBatchNetwork}
"""For each network on standard normal inputs, the one on other inputs."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """What all replicas of a simulation share; calling it with (run, d) makes one. It can be sent to other processes.

    ``law`` is None for standard normal inputs in general position, which both engines know how to make themselves.
    """

    model: TeacherStudent
    given: Inputs
    start: Coordinates | tuple[Coordinates, ...]
    engine: str
    init: str
    root: np.random.SeedSequence
    law: DataLaw | None
    orientation: str

    @property
    def _engine(self) -> tuple[Callable, Callable]:
        if self.given.in_blocks:
            return IN_BLOCKS[self.engine]
        if self.given.shifted:
            return SHIFTED[self.engine]
        return (BATCHED if self.model.batch or self.model.momentum else ENGINES)[self.engine]

    def compile(self) -> ModuleType:
        """Return the model's step; one that has no code is refused here."""
        return compiled(self._engine[0], self.model)

    def __call__(self, run: int, d: int) -> Any:
        """Return the replica at its first time."""
        _, Replica = self._engine
        what = self.compile(), self.given, self.start, d, self.init, stream(self.root, d, run)
        if self.law is None:
            return Replica(*what)
        return ON_LAW[Replica](*what, self.law, self.model, self.orientation)


@lru_cache(maxsize=16)
def compiled(compile_step: Callable, model: TeacherStudent) -> ModuleType:
    """Return the compiled step of a model, printed once."""
    module: ModuleType = compile_step(model)
    return module
