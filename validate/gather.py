"""What replicas did, aligned, measured and put into one Dataset: every run, or the moments over runs as they come.

Moments are summed run by run in the order of runs, so that their bits depend neither on who ran which replica nor on
how many were handed over at a time; and the memory they take does not grow with the number of runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from effdyn.solve.results import variable

from .align import best_order, come_apart, exchangeable, permuted, same_second_layer
from .asked import Times
from .inputs import Inputs
from .observables import observables
from .replicas import Divergence, Job, Outcome, State

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

NUMBERS, FEWEST, MOST = 1 << 23, 64, 1024
"""Runs at a time, where moments are kept: with so many saved numbers (64 MB), but at least and at most so many runs."""


@dataclass(slots=True)
class Moments:
    """Mean and squared deviations of the variables of a Dataset, summed over runs (Welford)."""

    count: int = 0
    mean: State = field(default_factory=dict)
    squares: State = field(default_factory=dict)
    _like: xr.Dataset | None = None

    def add(self, runs: xr.Dataset) -> None:
        """Take some more runs, each as if it came alone."""
        if self._like is None:
            self._like = _summarised(runs)
            self.mean = {str(name): np.zeros(array.shape) for name, array in runs.isel(run=0).data_vars.items()}
            self.squares = {name: np.zeros(array.shape) for name, array in self.mean.items()}
        values = {name: runs[name].transpose("run", ...).values for name in self.mean}
        for run in range(runs.sizes["run"]):
            self.count += 1
            for name, mean in self.mean.items():
                away = values[name][run] - mean
                mean += away / self.count
                self.squares[name] += away * (values[name][run] - mean)

    def dataset(self) -> xr.Dataset:
        """Return the means, and standard deviations (ddof=1) as ``*_std``; NaN for one run."""
        assert self._like is not None
        found = self._like.copy()
        for name, mean in self.mean.items():
            spread = np.sqrt(self.squares[name] / (self.count - 1)) if self.count > 1 else mean * np.nan
            found[name].values = mean
            found[f"{name}_std"].values = spread
        return found


@dataclass(slots=True)
class Gathered:
    """The Dataset of a simulation in the making; :meth:`take` is given outcomes in the order of runs.

    Attributes
    ----------
    runs : list of int
        Those that are finished at every d, so far.
    first : (Job, Divergence) or None
        The first replica that diverged.
    diverged : int
        How many did.
    """

    model: TeacherStudent
    given: Inputs
    sizes: list[int]
    times: Times
    tested: tuple[str, ...]
    align: str | bool
    moments: Moments | None
    threads: int
    runs: list[int] = field(default_factory=list)
    first: tuple[Job, Divergence] | None = None
    diverged: int = 0
    _groups: list[list[int]] = field(default_factory=list)
    _reference: State = field(default_factory=dict)
    _whole: xr.Dataset | None = None

    def take(self, outcomes: dict[Job, Outcome]) -> None:
        """Take what became of some more replicas: of every d for each run; all at once, unless moments are kept."""
        for job in sorted(outcomes):
            if isinstance(outcome := outcomes[job], Divergence):
                self.first = self.first or (job, outcome)
                self.diverged += 1
        finished = {job: outcome for job, outcome in outcomes.items() if isinstance(outcome, dict)}
        runs = [run for run in sorted({run for run, _ in finished}) if all((run, d) in finished for d in self.sizes)]
        if not runs:
            return
        tested = {job: {n: state.pop(n) for n in self.tested} for job, state in finished.items()}
        self._align(finished, runs)
        dataset = self._dataset(finished, tested, runs)
        if self.moments is None:
            assert self._whole is None
            self._whole = dataset
        else:
            self.moments.add(dataset)
        self.runs += runs

    def dataset(self, scalar: bool) -> xr.Dataset | None:
        """Return what there is, without the axis of d if that is one number; None if no run is finished."""
        found = self._whole
        if self.moments is not None and self.moments.count:
            found = self.moments.dataset()
        if found is None:
            return None
        if scalar:
            return found.isel(d=0)
        true = np.stack([self.times.at(self.times.steps[d], d) for d in self.sizes])
        return found.assign_coords(t_true=(("d", "t"), true))

    def _align(self, finished: dict[Job, State], runs: list[int]) -> None:
        """Match students to those of the first run that is finished, at the largest d."""
        if not self._reference:
            self._reference = finished[runs[0], max(self.sizes)]
            self._groups = self._exchangeable()
        if all(len(group) == 1 for group in self._groups):
            return
        for run in runs:
            for d in self.sizes:
                state = finished[run, d]
                finished[run, d] = permuted(state, best_order(state, self._reference, self._groups))

    def _exchangeable(self) -> list[list[int]]:
        if self.align is False:
            return []
        if self.align is True:
            return same_second_layer(self.given)
        d = max(self.sizes)
        groups = exchangeable(self.given, min(self.sizes) ** -0.5)
        return [g for g in groups if len(g) > 1 and come_apart(self._reference, self.given, g, d)]

    def _dataset(self, finished: dict[Job, State], tested: dict[Job, State], runs: list[int]) -> xr.Dataset:
        arrays = _stacked(finished, runs, self.sizes)
        keys = [[(run, d) for d in self.sizes] for run in runs]
        measured = observables(self.model, self.given, arrays, keys, self.threads)
        arrays = {name: arrays[name] for name in self.given.states} | measured | _stacked(tested, runs, self.sizes)
        step = self.model.training_step()
        quantities = {q.name: q for q in (*step.states, *(q for q, _ in (*step.averages, *step.formulas)))}
        variables = {name: variable(quantities[name], array, ("run", "d", "t")) for name, array in arrays.items()}
        return xr.Dataset(variables, coords={"run": runs, "d": self.sizes, "t": self.times.t})


def at_a_time(shapes: dict[str, tuple[int, ...]], sizes: int) -> int:
    """Return how many runs to gather at a time, where moments are kept; it depends on nothing but what is saved."""
    return max(FEWEST, min(MOST, NUMBERS // (sizes * sum(int(np.prod(shape)) for shape in shapes.values()))))


def _stacked(states: dict[Job, State], runs: list[int], sizes: list[int]) -> State:
    """Return the arrays of all replicas, with axes run, d before their own."""
    return {
        name: np.stack([np.stack([states[run, d][name] for d in sizes]) for run in runs])
        for name in states[runs[0], sizes[0]]
    }


def _summarised(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset of the form that moments have."""
    mean = dataset.mean("run", skipna=False)  # a cosine of a vector of length 0 stays undefined
    return mean.merge(mean.rename({name: f"{name}_std" for name in dataset.data_vars}))
