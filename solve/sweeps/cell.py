"""One cell of a sweep: what is sent to whoever computes it, and what comes back.

Knows nothing of stores, nor of which cells there are.
"""

import math
import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity

from ..errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit
from ..hazards import BelowResolution, Heard, SymmetricStart, heard
from ..integrate import integrate
from ..stopping import until
from ..streams import seed_text, stream

STATUS: dict[type[Exception], str] = {
    Diverged: "diverged",
    NotPositiveSemidefinite: "not_positive_semidefinite",
    StepLimit: "step_limit",
    ModelError: "refused",
    IntegrationError: "failed",
    ArithmeticError: "failed",
    np.linalg.LinAlgError: "failed",
}
"""What a cell is called that ends in one of these errors: facts about its numbers. Any other error ends the sweep."""

HAZARDS: tuple[type[Warning], ...] = (SymmetricStart, BelowResolution)
"""What the message of a cell begins with, by name, that has numbers which are sound but may mislead."""

MESSAGE_LENGTH = 200
"""Characters that are kept of a message."""


@dataclass(frozen=True, slots=True)
class Common:
    """What all cells of a sweep share.

    Attributes
    ----------
    dynamics : Dynamics
    t_span : (float, float)
    t : ndarray
        The times to save, (T,).
    runs : int
        Of stochastic equations, how many are kept of each cell; 0 without the axis of runs.
    y0, params : dict of ndarray
        Initial values and parameters that do not vary.
    shapes : dict
        Of each variable of the result the shape after the axis of times.
    options : dict
        Further arguments of :func:`effdyn.solve.integrate`; of stochastic equations, of
        :func:`effdyn.solve.ensembles.stochastic.ensemble_sde`.
    """

    dynamics: Dynamics
    t_span: tuple[float, float]
    t: np.ndarray
    y0: Mapping[str, np.ndarray]
    params: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    options: Mapping[str, Any]
    runs: int = 0

    @property
    def lead(self) -> dict[str, int]:
        """The dims of a variable before its own, and their lengths."""
        return {**({"run": self.runs} if self.runs else {}), "t": len(self.t)}

    @property
    def length(self) -> int:
        """The number of doubles of one cell."""
        return math.prod(self.lead.values()) * sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def stated(self) -> dict[str, Any]:
        """The options that are stated, as numbers and text."""
        given = {name: value for name, value in self.options.items() if value is not None}
        return {n: seed_text(v) if isinstance(v, np.random.SeedSequence) else v for n, v in given.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cell.

    Attributes
    ----------
    status : str
        ``"success"``, or one of :data:`STATUS`.
    t_reached : float
        The last time with a valid state.
    message : str
        What went wrong, in a sentence, or of which :data:`HAZARDS` ``integrate`` would have warned; empty if neither.
    values : ndarray
        Every variable at every time, one after the other; NaN after ``t_reached``.
    """

    status: str
    t_reached: float
    message: str
    values: np.ndarray


def solve_cell(
    pickled: bytes,
    y0: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    index: int = 0,
    stop: threading.Event | None = None,
) -> Outcome:
    """Integrate one cell, wherever this runs; its number, ``index``, is what its random numbers depend on.

    What is common comes pickled, as bytes: they cost nothing to send again, and each process opens them once.

    Raises
    ------
    Stopped
        Once ``stop`` is set: half a cell is none.
    """
    with until(stop):
        return _solved(_unpickled(pickled), y0, params, index)


def _solved(common: Common, y0: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray], index: int) -> Outcome:
    try:
        if common.dynamics.kind == "sde":
            return _sampled(common, {**common.y0, **y0}, {**common.params, **params}, index)
        with heard() as hazards:
            solution = integrate(
                common.dynamics,
                common.t_span,
                {**common.y0, **y0},
                {**common.params, **params},
                t_eval=common.t,
                **common.options,
            )
    except tuple(STATUS) as error:
        if isinstance(error, ModelError) and not error.argument.startswith(("y0", "params")):
            raise  # wrong in every cell
        return _failed(common, error)
    if solution.attrs["status"] == "interrupted":  # a Ctrl-C that reached this process: half a cell is none
        raise KeyboardInterrupt
    return Outcome("success", float(common.t[-1]), _told(hazards), _flat(common, solution))


def _sampled(common: Common, y0: Mapping[str, Any], params: Mapping[str, Any], index: int) -> Outcome:
    """Compute the runs of a cell of stochastic equations; where some fail, the cell goes by the first in time."""
    from ..ensembles.path_results import STATUS as HOW
    from ..ensembles.paths import Streams
    from ..ensembles.stochastic import checked_plan, failures_in_words, sample

    options = dict(common.options)
    root, average, runs = options.pop("rng"), options["average"], options["runs"]
    own = root if options["same_noise"] else stream(root, index)
    plan = checked_plan(common.t_span, t_eval=common.t, **options)
    names = tuple(q.name for q in output_quantities(common.dynamics))
    found = sample(common.dynamics, y0, params, plan, runs, Streams(own, shared=True), average, names, threads=1)
    if found.interrupted:
        raise KeyboardInterrupt
    member = found.solution.isel(member=0)
    values = np.concatenate([member[name].values.ravel() for name in common.shapes])
    if not found.failures:
        return Outcome("success", float(common.t[-1]), "", values)
    first = min(found.failures.values(), key=lambda failure: failure.t)
    message = failures_in_words(found).replace(" of member 0", "")
    return Outcome(HOW[first.why], first.t, message[:MESSAGE_LENGTH], values)


def output_quantities(dynamics: Dynamics) -> tuple[Quantity, ...]:
    """Return what ``integrate`` gives for this kind of equations, in its order."""
    states = {"formula": (), "volterra": dynamics.states[:1]}.get(dynamics.kind, dynamics.states)
    return (*states, *(e.quantity for e in dynamics.observables))


def output_variables(dynamics: Dynamics, average: bool) -> dict[str, Quantity]:
    """Return the variables of a result by name: of averages over runs, standard deviations too."""
    found: dict[str, Quantity] = {}
    for q in output_quantities(dynamics):
        found |= {q.name: q, f"{q.name}_std": q} if average else {q.name: q}
    return found


def _told(hazards: Heard) -> str:
    """Return hazards as a message: their names first, which a cut leaves whole."""
    names = " and ".join(kind.__name__ for kind, _ in hazards)
    return f"{names}: {'; '.join(text for _, text in hazards)}"[:MESSAGE_LENGTH] if hazards else ""


def hazard_in(message: str, kind: type[Warning]) -> bool:
    """Return whether a message tells of a hazard."""
    return kind.__name__ in message.partition(":")[0]


@lru_cache(maxsize=4)
def _unpickled(pickled: bytes) -> Common:
    common = pickle.loads(pickled)
    assert isinstance(common, Common)
    return common


def _failed(common: Common, error: Exception) -> Outcome:
    status = next(name for kind, name in STATUS.items() if isinstance(error, kind))
    message = str(error).splitlines()[0][:MESSAGE_LENGTH]
    if not isinstance(error, IntegrationError):
        return Outcome(status, common.t_span[0], message, np.full(common.length, np.nan))
    return Outcome(status, float(error.t), message, _flat(common, error.partial))


def _flat(common: Common, solution: Any) -> np.ndarray:
    """Return the variables, one after the other, over all times; those that were not reached are NaN."""
    n = min(solution.sizes["t"], len(common.t))
    if not np.array_equal(solution.t.values[:n], common.t[:n]):  # a map that ends between two of the times
        n = int(np.argmin(solution.t.values[:n] == common.t[:n]))
    parts = []
    for name, shape in common.shapes.items():
        part = np.full((len(common.t), *shape), np.nan)
        part[:n] = solution[name].values[:n]
        parts.append(part.ravel())
    return np.concatenate(parts) if parts else np.empty(0)
