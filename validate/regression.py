"""Simulation of linear regression at finite size: real data, real SGD, and gradient flow solved exactly per data set.

Built from the model alone, never from derived equations. Directions are the eigenvectors of the covariance, which is no
restriction: inputs are Gaussian, and everything else is invariant under rotations.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from effdyn.derive.errors import ModelError
from effdyn.derive.regression import LinearRegression
from effdyn.solve.given import Given
from effdyn.solve.kernels.layout import read_inputs
from effdyn.solve.processors import processors
from effdyn.solve.results import parameters_json, variable, versions_json
from effdyn.solve.streams import seed_of, seed_text, stream

from .asked import Times, check_count, dimensions, times_to_save
from .regression_replicas import REPLICAS, Problem
from .replicas import Divergence, State, run_all
from .simulate import SimulationDiverged
from .simulators import simulates

CLOCKS = {"one-pass": "steps/d", "multi-pass": "steps/n", "gradient-flow": "eta*steps"}
"""What t is, by the training."""


@simulates(LinearRegression)
def simulate_regression(
    model: LinearRegression,
    d: int | Sequence[int] = 400,
    runs: int = 64,
    t_span: tuple[float, float] = (0.0, 10.0),
    *,
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    t_eval: Any = None,
    rng: Any = 0,
    threads: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Fit ``runs`` independent linear regressions; this is what ``validate.simulate`` calls for the model.

    Parameters
    ----------
    model : LinearRegression
    d : int or sequence of int
        Dimension; a sequence makes a finite-size study, with a dim ``d``. The number of examples is d/r, of directions
        in a class p·d: both must be whole.
    runs : int
        Independent replicas for each d: data, labels, initial error and order of examples are all drawn anew.
    t_span : (float, float)
        From 0, where ``y0`` holds, to the last time.
    y0 : dict
        ``c``: the squared error |v|², scalar or by class (L,). Each replica has exactly this, in random directions.
    params : dict
        ``sigma``, and as the model has them ``eta``, ``r``, ``lam`` (L,), ``p`` (L,).
    t_eval : array_like, optional
        Times to save, 101 by default, rounded to whole steps of the smallest d (gradient flow: as they are).
    rng : int, numpy.random.SeedSequence, numpy.random.Generator or None
        Each replica has its own stream, keyed by (d, run): results do not depend on the number of threads.
    threads : int, optional
        By default as many as there are processors; one for gradient flow, whose linear algebra is parallel itself.
    progress : bool

    Returns
    -------
    xarray.Dataset
        ``c`` and ``eg`` (one-pass), ``train_loss`` (multi-pass), ``eg`` and ``train_loss`` (gradient flow), with dims
        run[, d], t.

    Raises
    ------
    ModelError
        A mistake in the arguments, by the name of the argument.
    SimulationDiverged
        If any replica diverged, once the others have finished.

    Notes
    -----
    Ctrl-C returns the runs that are finished, with a warning and ``attrs["status"] == "interrupted"``.

    Examples
    --------
    >>> from effdyn import validate
    >>> mc = validate.simulate(LinearRegression("one-pass"), d=100, runs=4, t_span=(0, 2), t_eval=[0, 1, 2],
    ...                        y0=dict(c=1.0), params=dict(eta=0.5, sigma=0.1))
    >>> dict(mc.eg.sizes)
    {'run': 4, 't': 3}
    """
    check_count("runs", runs)
    sizes = dimensions(d)
    inputs = read_inputs(Given(model.states, model.parameters), y0, params)
    problems = {size: Problem.of(model, inputs.y0 | inputs.params, size) for size in sizes}
    times = _times(model, t_span, t_eval, problems)
    root = seed_of(rng)
    # linear algebra has threads of its own, which get in each other's way
    workers = threads if threads is not None else 1 if model.training == "gradient-flow" else processors()
    check_count("threads", workers)
    Replica = REPLICAS[model.training]

    def replica(run: int, size: int) -> Any:
        return Replica(problems[size], stream(root, size, run), times.t)

    jobs = sorted(((run, size) for run in range(runs) for size in sizes), key=lambda job: (job[0], -job[1]))
    outcomes, interrupted = run_all(jobs, replica, times, workers, progress)
    attrs = {
        "title": f"Linear regression, {model.training}",
        "model": repr(model),
        "clock": CLOCKS[model.training],
        "simulation_status": "exact in law at finite d for Gaussian inputs",
        "parameters": parameters_json({name: inputs.params[name] for name in params}),
        "versions": versions_json(),
        "y0": parameters_json(inputs.y0),
        "d": json.dumps(sizes),
        "seed": seed_text(root),
    }
    return collected(_builder(model, sizes, times, scalar=not np.ndim(d)), outcomes, jobs, interrupted, times, attrs)


def collected(
    build: Callable[[dict[tuple[int, int], State], list[int]], xr.Dataset],
    outcomes: Mapping[tuple[int, int], State | Divergence | None],
    jobs: Sequence[tuple[int, int]],
    interrupted: bool,
    times: Times,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Return the dataset of all complete runs, with their number and status; raise if any diverged or none is there.

    Raises
    ------
    SimulationDiverged, KeyboardInterrupt
    """
    finished = {job: outcome for job, outcome in outcomes.items() if isinstance(outcome, dict)}
    sizes = {size for _, size in jobs}
    runs = sorted({run for run, _ in jobs})
    complete = [run for run in runs if all((run, size) in finished for size in sizes)]
    diverged = {job: outcome for job, outcome in outcomes.items() if isinstance(outcome, Divergence)}
    if interrupted and not complete and not diverged:
        raise KeyboardInterrupt
    status = "diverged" if diverged else "interrupted" if interrupted else "success"
    dataset = None
    if complete:
        dataset = build(finished, complete).assign_attrs({**attrs, "runs": len(complete), "status": status})
    if diverged:
        run, size = min(diverged)
        first = diverged[run, size]
        t = float(times.at(first.step, size))
        raise SimulationDiverged(run, size, t, first.state, len(diverged), len(jobs), dataset)
    if interrupted:
        text = f"interrupted: {len(complete)} of {len(runs)} runs were finished and are returned"
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    assert dataset is not None
    return dataset


def _builder(
    model: LinearRegression, sizes: list[int], times: Times, scalar: bool
) -> Callable[[dict[tuple[int, int], State], list[int]], xr.Dataset]:
    """Return what makes a dataset of the trajectories of complete runs."""
    dynamics = model.dynamics()
    quantities = {q.name: q for q in (*dynamics.states, *model.states, *(e.quantity for e in dynamics.observables))}

    def build(finished: dict[tuple[int, int], State], runs: list[int]) -> xr.Dataset:
        arrays = {
            name: np.stack([np.stack([finished[run, size][name] for size in sizes]) for run in runs])
            for name in finished[runs[0], sizes[0]]
        }
        variables = {name: variable(quantities[name], array, ("run", "d", "t")) for name, array in arrays.items()}
        dataset = xr.Dataset(variables, coords={"run": runs, "d": sizes, "t": times.t})
        if scalar:
            return dataset.isel(d=0)
        true = np.stack([np.broadcast_to(times.at(times.steps[size], size), times.t.shape) for size in sizes])
        if model.training == "gradient-flow":
            true = np.broadcast_to(times.t, true.shape)
        return dataset.assign_coords(t_true=(("d", "t"), true))

    return build


def _times(model: LinearRegression, t_span: Any, t_eval: Any, problems: Mapping[int, Problem]) -> Times:
    """Return when to save: after whole steps, of which there are n or d in a unit of time; flows take any time."""
    if np.ndim(t_span) != 1 or len(t_span) != 2 or t_span[0] != 0:
        raise ModelError("t_span", t_span, "(0, stop): y0 is the error before training")
    per_unit = {size: problem.steps_per_unit for size, problem in problems.items()}
    if model.training != "gradient-flow":
        steps = times_to_save(t_span, t_eval, sorted(per_unit.values()), "steps/d", 1.0)
        least = min(per_unit, key=lambda size: per_unit[size])
        ratio = per_unit[least] / least
        return Times(steps.t, {size: steps.steps[count] for size, count in per_unit.items()}, 0.0, 1 / ratio)
    grid = times_to_save(t_span, t_eval, [1 << 40], "steps/d", 1.0).t
    saves = np.arange(len(grid)) + 1
    return Times(grid, {size: saves for size in problems}, 0.0, 1.0)
