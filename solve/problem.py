"""What every integrator is given and what it gives back, between ``integrate`` and the methods."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from effdyn.derive import Dynamics

from .kernels.kernel import Kernel
from .kernels.layout import Inputs


@dataclass(frozen=True, slots=True)
class Problem:
    """What every method integrates: the compiled right-hand side with its parameters and initial state, packed."""

    dynamics: Dynamics
    inputs: Inputs
    rhs: Kernel
    par: np.ndarray
    y0: np.ndarray

    @property
    def n_work(self) -> int:
        return self.rhs.workspace_size(self.inputs.sizes)


@dataclass(frozen=True, slots=True)
class Run:
    """What a method produced: times, packed states, why it stopped (empty: it arrived), facts for the attributes."""

    t: np.ndarray
    y: np.ndarray
    stopped: str
    facts: dict[str, Any]
    events: tuple[np.ndarray, list[str]] | None = None
