"""Which units may be exchanged: the permutations of units that leave parameters and equations as they are.

Permutations act on packed states as permutations of coordinates. Which pairs may be exchanged is found out, not
assumed: the parameters must not change, and the drift must follow the exchange at a random state.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from effdyn.derive import NotYet, Quantity

from ..kernels.layout import pack
from .flow import Flow

LARGEST = 50_000
"""Permutations that are written down; 5 interchangeable students and 5 teacher units have 14 400."""
EQUAL = 1e-9
"""Relative, of parameters and of drifts: far above rounding, far below what another model would give."""


@dataclass(frozen=True, slots=True, eq=False)
class Symmetries:
    """The group, as index arrays: ``y[action]`` is the state with units exchanged.

    Attributes
    ----------
    actions : ndarray of int, shape (order, n)
        Of each permutation; the first is the identity.
    classes : dict
        For each size, the units that may be exchanged with each other, counted from 0.
    """

    actions: np.ndarray
    classes: dict[str, list[list[int]]]

    def average(self, y: np.ndarray) -> np.ndarray:
        """Return the mean over the group: the symmetric state closest to ``y``."""
        return np.asarray(y[self.actions].mean(axis=0))

    def distance(self, y: np.ndarray, z: np.ndarray) -> float:
        """Return the largest difference of entries between ``y`` and the nearest of the permuted ``z``."""
        return float(np.abs(z[self.actions] - y).max(axis=1).min())

    def stabiliser(self, y: np.ndarray, within: float) -> "Symmetries":
        """Return the permutations that change no entry of ``y`` by more than ``within``."""
        kept = np.abs(y[self.actions] - y).max(axis=1) <= within
        return Symmetries(self.actions[kept], self.classes)

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Return orthonormal bases, as columns, of the invariant states and of what averages to zero."""
        n = self.actions.shape[1]
        projector = np.zeros((n, n))
        rows = np.broadcast_to(np.arange(n), self.actions.shape)
        np.add.at(projector, (rows, self.actions), 1 / len(self.actions))
        values, vectors = np.linalg.eigh((projector + projector.T) / 2)  # it is symmetric: a group has inverses
        return vectors[:, values > 0.5], vectors[:, values <= 0.5]


def symmetries(flow: Flow, state: np.ndarray) -> Symmetries:
    """Return the permutations of units that the equations at these parameters allow.

    Parameters
    ----------
    flow : Flow
    state : ndarray, shape (n,)
        A state without symmetries of its own, at which drifts are compared.

    Raises
    ------
    NotYet
        If there are more than :data:`LARGEST`.
    """
    sizes = {str(s): flow.inputs.sizes[str(s)] for s in flow.dynamics.sizes}
    classes = {name: _classes(flow, state, name, number) for name, number in sizes.items()}
    order = math.prod(math.factorial(len(members)) for found in classes.values() for members in found)
    if order > LARGEST:
        raise NotYet(f"stability with {order} permutations of units", f"numbers of units with at most {LARGEST}")
    per_size = [_permutations(classes[name], number) for name, number in sizes.items()]
    actions = [_action(flow, dict(zip(sizes, chosen, strict=True))) for chosen in itertools.product(*per_size)]
    return Symmetries(np.array(actions).reshape(order, -1), classes)


def _classes(flow: Flow, state: np.ndarray, size: str, number: int) -> list[list[int]]:
    """Return the units of one kind in classes; being interchangeable is transitive, so one member stands for each."""
    found: list[list[int]] = []
    for unit in range(number):
        home = next((c for c in found if _interchangeable(flow, state, size, number, c[0], unit)), None)
        if home is None:
            found.append([unit])
        else:
            home.append(unit)
    return found


def _interchangeable(flow: Flow, state: np.ndarray, size: str, number: int, i: int, k: int) -> bool:
    swap = np.arange(number)
    swap[[i, k]] = swap[[k, i]]
    for q in flow.dynamics.parameters:
        given = flow.inputs.params[q.name]
        changed = _permuted(q, given, {size: swap})
        if np.abs(changed - given).max(initial=0.0) > EQUAL * np.abs(given).max(initial=0.0):
            return False
    action = _action(flow, {size: swap})
    drift, exchanged = flow.drift(state), flow.drift(state[action])
    return bool(np.abs(exchanged - drift[action]).max() <= EQUAL * np.abs(drift).max())


def _permutations(classes: list[list[int]], number: int) -> list[np.ndarray]:
    found = []
    for chosen in itertools.product(*(itertools.permutations(members) for members in classes)):
        permutation = np.arange(number)
        for members, images in zip(classes, chosen, strict=True):
            permutation[members] = images
        found.append(permutation)
    return found


def _permuted(q: Quantity, array: np.ndarray, permutations: dict[str, np.ndarray]) -> np.ndarray:
    for axis, size in enumerate(map(str, q.shape)):
        if size in permutations:
            array = np.take(array, permutations[size], axis=axis)
    return array


def _action(flow: Flow, permutations: dict[str, np.ndarray]) -> np.ndarray:
    """Return what permutations of units do to packed coordinates: found by permuting the coordinates' numbers."""
    numbered = flow.unpacked(np.arange(len(flow.start), dtype=float))
    moved = {q.name: _permuted(q, numbered[q.name], permutations) for q in flow.dynamics.states}
    return pack(flow.dynamics.states, moved).astype(int)
