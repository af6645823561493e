"""Deep linear networks that learn a hierarchy: the table of items and properties, layers to start from, and theory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sympy
import xarray as xr

from effdyn import derive, solve, validate
from effdyn.solve.results import parameters_json, to_dataset

ITEMS = ("canary", "salmon", "oak", "rose")
PROPERTIES = {
    "grows": (1, 1, 1, 1), "moves": (1, 1, 0, 0), "has roots": (0, 0, 1, 1), "flies": (1, 0, 0, 0),
    "sings": (1, 0, 0, 0), "swims": (0, 1, 0, 0), "has scales": (0, 1, 0, 0), "has leaves": (0, 0, 1, 0),
    "has petals": (0, 0, 0, 1),
}  # fmt: skip
MODES = ("all items", "animals – plants", "bird – fish", "tree – flower")
"""What the singular vectors of the table over items tell apart."""
WIDTH = 8
"""Hidden units."""
START, IMBALANCE = 1e-3, 0.8
DEEP_START = 0.02
"""Initial strengths of modes: 1e-3 would keep a deep network on its plateau ten times as long as a shallow one."""
SEED = 2014


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A network from given weights, and the reduction that it is compared with.

    Attributes
    ----------
    network : LinearNetwork
    reduction : str
    weights : dict
        Initial ``W1``, …, ``WN``.
    table : ndarray, shape (m, D)
        YᵀX, with a unit vector for each item: XᵀX = I, and the loss is summed over items.
    """

    network: derive.LinearNetwork
    reduction: str
    weights: dict[str, np.ndarray]
    table: np.ndarray

    @property
    def dynamics(self) -> derive.Dynamics:
        """The reduced flow."""
        return self.network.dynamics(self.reduction)

    @property
    def inputs(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Initial values and parameters of the reduced flow."""
        return solve.reduced_inputs(self.network, self.reduction, self.weights, {"S_yx": self.table})

    def descend(self, eta: Any, times: Any, reduction: str = "", progress: bool = False) -> xr.Dataset:
        """Train by gradient descent with steps ``eta``."""
        times = np.asarray(times, float)
        return _whole(
            validate.simulate(
                self.network, eta=eta, t_span=(0.0, float(times[-1])), t_eval=times, y0=self.weights,
                params={"S_yx": self.table}, reduction=reduction or self.reduction, progress=progress,
            )
        )  # fmt: skip

    def integrate(self, times: Any) -> xr.Dataset:
        """Integrate the reduced flow."""
        times = np.asarray(times, float)
        return _whole(solve.integrate(self.dynamics, (0.0, float(times[-1])), *self.inputs, t_eval=times))

    def closed(self, times: Any) -> xr.Dataset:
        """Evaluate the closed form of the reduced flow."""
        y0, params = self.inputs
        times = np.asarray(times, float)
        states = strengths(self.network.depth, times, y0, params)
        attrs = {"y0": parameters_json(y0), "method": "closed form", "status": "success"}
        return to_dataset(self.dynamics, times, states, {}, params, attrs)


# -- data and weights --


def hierarchy() -> np.ndarray:
    """Return the table of properties (rows) and items (columns)."""
    return np.array(list(PROPERTIES.values()), float)


def aligned(table: np.ndarray, amplitudes: np.ndarray, seed: int = SEED) -> dict[str, np.ndarray]:
    """Return layers aligned with the table and with each other; ``amplitudes`` has the axes layer, mode."""
    left, _, right = np.linalg.svd(table, full_matrices=False)
    rng = np.random.default_rng(seed)
    hidden = (np.linalg.qr(rng.standard_normal((WIDTH, len(right))))[0] for _ in amplitudes[1:])
    frames = [right.T, *hidden, left]
    return {f"W{n + 1}": frames[n + 1] * w @ frames[n].T for n, w in enumerate(amplitudes)}


def imbalanced(start: float, lam: np.ndarray) -> np.ndarray:
    """Return amplitudes of two layers with w_1 w_2 = start and w_2² − w_1² = λ, one column for each λ."""
    first = (-lam + np.hypot(lam, 2 * start)) / 2
    return np.sqrt([first, first + lam])


def balanced_case(table: np.ndarray, start: float) -> Case:
    """Return a two-layer network with balanced layers aligned with the table, all modes equally strong."""
    weights = aligned(table, imbalanced(start, np.zeros(len(MODES))))
    return Case(derive.LinearNetwork(2, inputs="whitened"), "strengths", weights, table)


def scalar_chain(depth: int, start: float) -> Case:
    """Return a balanced chain of single weights that learns the number 1."""
    weights = {f"W{n + 1}": np.full((1, 1), start ** (1 / depth)) for n in range(depth)}
    return Case(derive.LinearNetwork(depth, inputs="whitened"), "strengths", weights, np.ones((1, 1)))


def aligned_cases(table: np.ndarray) -> dict[str, Case]:
    """Return networks with layers aligned with the table, by name."""
    modes = np.ones(len(MODES))
    starts = {
        "balanced layers": imbalanced(START, 0 * modes),
        "unbalanced layers": imbalanced(START, IMBALANCE * modes),
        "unbalanced the other way": imbalanced(START, -IMBALANCE * modes),
        "three layers": np.outer(np.ones(3), DEEP_START ** (1 / 3) * modes),
        "four layers": np.outer(np.ones(4), DEEP_START ** (1 / 4) * modes),
    }
    return {
        name: Case(derive.LinearNetwork(len(w), inputs="whitened"), "strengths", aligned(table, w), table)
        for name, w in starts.items()
    }


def random_case(table: np.ndarray, scale: float, seed: int | list[int]) -> Case:
    """Return a two-layer network with independent weights of variance scale²/h."""
    rng = np.random.default_rng(seed)
    shapes = {"W1": (WIDTH, table.shape[1]), "W2": (table.shape[0], WIDTH)}
    weights = {name: scale / np.sqrt(WIDTH) * rng.standard_normal(shape) for name, shape in shapes.items()}
    return Case(derive.LinearNetwork(2, inputs="whitened"), "gram", weights, table)


# -- theory --


def strengths(depth: int, times: Any, y0: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the strengths of aligned modes in closed form."""
    return solved(depth)(times, y0=y0, params=params)


@lru_cache
def solved(depth: int) -> derive.ClosedForm:
    """Return the closed form of the strengths of aligned modes."""
    form = derive.LinearNetwork(depth, inputs="whitened").dynamics("strengths").closed_form()
    assert isinstance(form, derive.ClosedForm), form
    return form


def half_learning_time(depth: int, c: float, start: float) -> float:
    """Return when a balanced mode has half of its final strength: Φ(c/2) − Φ(s_0) by the closed form."""
    if depth == 2:
        return float(np.log(c / start - 1) / (2 * c))
    (equation,) = solved(depth).implicit.values()
    values = {"s": c / 2, "s_0": start, "c": c}
    indexed = equation.rhs.atoms(sympy.Indexed)
    return float(equation.rhs.xreplace({x: sympy.Float(values[str(x.base)]) for x in indexed}).evalf())


def escape_time(depth: int, c: float, start: float) -> float:
    """Return the time to escape from a small balanced start, to leading order: s_0^(−(N−2)/N) / ((N−2) c)."""
    return float(start ** (2 / depth - 1) / ((depth - 2) * c))


def starts(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return the strengths from which modes of small random layers grow, without and with regard to each other.

    While layers are small, W_1 v + W_2ᵀ u grows as e^(ct) and W_1 v − W_2ᵀ u decays: half the first is the amplitude of
    a balanced mode. What of it lies along a mode that is learnt before decays, once that is learnt.
    """
    left, _, right = np.linalg.svd(case.table, full_matrices=False)
    amplitude = (case.weights["W1"] @ right.T + case.weights["W2"].T @ left) / 2
    return (amplitude**2).sum(0), np.diag(np.linalg.qr(amplitude)[1]) ** 2


def _whole(result: xr.Dataset) -> xr.Dataset:
    """Go on with Ctrl-C where a solution returned early because of it: half of one is not judged."""
    if result.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    return result
