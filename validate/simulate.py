"""Monte-Carlo simulation of a model at finite d: replicas, their streams and threads, and one Dataset of what they did.

Built from the model alone, its activations, labels, loss and update rule; never from derived equations.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from effdyn.derive import TeacherStudent
from effdyn.derive.errors import ModelError
from effdyn.derive.limits import WIDE_CLOCK
from effdyn.derive.schedule import SCHEDULE
from effdyn.solve.explicit_time import check_factor
from effdyn.solve.processors import processors
from effdyn.solve.results import parameters_json, versions_json
from effdyn.solve.streams import seed_of, seed_text

from .asked import check_choice, check_count, dimensions, times_to_save
from .blocks import check_dimensions, coordinates_in_blocks
from .checkpoint import Checkpoint
from .data_laws import DataLaw, Gaussian, read_law
from .engines import ENGINES, Replicas
from .gather import Gathered, Moments, at_a_time
from .initial import Coordinates, check_dimension, coordinates
from .inputs import Inputs, read_inputs
from .replicas import Job, Outcome, State, forget, progress_bar, run_all, run_elsewhere
from .shifted import coordinates_with_center
from .simulators import by_model, simulates

CLOCKS = ("steps/d", "eta*steps/d", WIDE_CLOCK)


class SimulationDiverged(ArithmeticError):
    """Some replicas left the finite numbers: a fact about the model at these parameters, not of the simulation.

    Replicas that stayed finite are a biased sample (they were selected for that); they are kept for inspection.

    Attributes
    ----------
    run, d : int
        The first replica that diverged (in the order of runs, then of d).
    t : float
        When.
    state : dict
        Its Q, R, a (and bias) at that time.
    count : int
        How many replicas diverged.
    partial : xarray.Dataset or None
        The runs that stayed finite, as ``simulate`` would have returned them; None if there are none.
    """

    def __init__(
        self, run: int, d: int, t: float, state: State, count: int, total: int, partial: xr.Dataset | None
    ) -> None:
        self.run, self.d, self.t, self.state = run, d, t, state
        self.count, self.total, self.partial = count, total, partial
        super().__init__(
            f"{count} of {total} replicas diverged, first run {run} at d={d}, t={t:.6g}: its output phi, or the slope "
            "of its loss, is no longer a finite number. The learning rate is too large for this model, or d too small; "
            "the attribute `partial` holds the runs that stayed finite, a biased sample."
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.run, self.d, self.t, self.state, self.count, self.total, self.partial)


@by_model
@simulates(TeacherStudent)
def simulate(
    model: TeacherStudent,
    d: int | Sequence[int] = 1000,
    runs: int = 64,
    t_span: tuple[float, float] = (0.0, 200.0),
    *,
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    t_eval: Any = None,
    rng: Any = 0,
    engine: str = "gram",
    init: str = "exact",
    inputs: Any = "gaussian",
    orientation: str = "random",
    align: str | bool = "auto",
    store: str = "runs",
    checkpoint: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    executor: Any = None,
    clock: str = "steps/d",
    progress: bool = True,
) -> xr.Dataset:
    """Train ``runs`` independent replicas of a model by one-pass SGD and return their overlaps.

    Parameters
    ----------
    model : TeacherStudent
        What is trained.
    d : int or sequence of int
        Input dimension; a sequence makes a finite-size study, with a dim ``d``.
    runs : int
        Independent replicas for each d.
    t_span : (float, float)
        First and last time; ``y0`` holds at the first.
    y0 : dict
        Initial overlaps ``Q`` (K, K) and ``R`` (K, M); ``a`` and ``bias``, (K,) or a scalar, where they are trained.
    params : dict
        ``eta``, ``T`` (M, M); ``b`` unless the target is a formula; ``a`` where it is fixed, ``eta_a`` where it is
        trained; ``eta_bias`` and ``teacher_bias`` with biases; ``kappa`` with weight decay; ``sigma`` for real labels,
        ``flip`` for signs; the parameters of a schedule.
    t_eval : array_like, optional
        Ascending times to save, by default 101 in equal distances. They are rounded to whole steps (of the smallest
        d), and times that fall on one step are saved once.
    rng : int, numpy.random.SeedSequence, numpy.random.Generator or None
        Each replica has its own stream, keyed by (d, run): a run is the same, bit for bit, for any number of threads,
        any number of runs, any other d in the list, and any ``t_eval``. ``None`` takes fresh entropy, which is
        recorded.
    engine : {"gram", "network"}
        ``"gram"`` runs the exact Markov chain of the overlaps, at a cost that does not depend on d; ``"network"``
        trains the network itself on real inputs. The two agree in distribution.
    init : {"exact", "random"}
        Initial weights with exactly the overlaps ``y0``, or students drawn at random given the teacher, with ``y0`` in
        mean.
    inputs : str, law, array or function
        What ``engine="network"`` trains on: ``"gaussian"``, ``"rademacher"`` or ``"uniform"`` (independent entries of
        mean 0 and variance 1); a law of :mod:`effdyn.validate.data_laws` (``StudentT(df)``, ``HiddenManifold(f,
        ratio)``); an array (n, d), whose rows are drawn with replacement; or a function (rng, n, d) that returns n
        examples as rows.
    orientation : {"random", "axes"}
        Initial weights in random directions, spread over all inputs; or, for ``engine="network"``, in the span of the
        first axes of R^d, so that a weight is one input or a few. For Gaussian inputs it is all the same.
    align : {"auto", True, False}
        Match each replica's students to those of run 0 at the largest d, by one permutation for all times: among
        students that ``y0`` does not tell apart at this d (differences up to 1/√d), among all that have equal
        second-layer weights, or not at all. See :mod:`effdyn.validate.align`.
    store : {"runs", "moments"}
        Every run, or the mean over runs under the same names with standard deviations (ddof=1) as ``Q_std`` etc.,
        summed as runs finish: memory does not grow with their number.
    checkpoint : path, optional
        A folder where each finished replica is kept at once, and each that runs every half minute. If it holds
        replicas of this very simulation, with any number of runs, these are not run again, and the others go on from
        where they were: that is how a simulation that was killed goes on, with the same numbers. It needs a seed.
    threads : int, optional
        By default as many as there are processors.
    executor : optional
        Who runs the replicas instead of threads of this process: anything with ``submit`` as in PEP 3148, such as
        ``ProcessPoolExecutor``, or a ``dask.distributed.Client``. It is not shut down. The numbers are the same.
    clock : {"steps/d", "eta*steps/d", "eta*steps/(K*d)"}
        What t is, also in a schedule of learning rates; the last one is that of wide students.
    progress : bool
        Show a bar, on terminals.

    Returns
    -------
    xarray.Dataset
        ``Q``, ``R`` and, where trained, ``a`` and ``bias``; of the network with these overlaps ``eg`` (the noise-free
        generalisation error) or, for labels ±1, ``error_rate``, ``loss`` (label noise included), ``cosine`` and
        ``cosine_students``; dims run[, d], t, then units. Averages without a quadrature of their own are taken over
        points drawn anew for each run, and then scatter a little more: see :mod:`effdyn.validate.observables`. On
        inputs that are not Gaussian they are taken over test examples: see :mod:`effdyn.validate.network_on_law`.
        ``t`` is the true time for one d; for several, the nominal one, with ``t_true`` (d, t). Attributes have the
        names that ``solve.integrate`` gives them.

    Raises
    ------
    ModelError
        A mistake in the arguments, by the name of the argument.
    SimulationDiverged
        If any replica diverged, once the others have finished.
    StoreInUse, ForeignStore, DamagedStore
        If the checkpoint is being written to, holds something else, or does not hold what was written.

    Notes
    -----
    Ctrl-C returns the runs that are finished, with a warning and ``attrs["status"] == "interrupted"``; if none is, it
    is raised. With a checkpoint the others are kept as they stand.

    Examples
    --------
    >>> from effdyn import derive
    >>> model = derive.TeacherStudent(activation="erf")
    >>> mc = simulate(model, d=500, runs=8, t_span=(0, 4), t_eval=[0, 2, 4], y0=dict(Q=[[0.3]], R=[[0.1]]),
    ...               params=dict(eta=1.0, sigma=0.0, T=[[1.0]], a=1.0, b=1.0))
    >>> dict(mc.R.sizes)
    {'run': 8, 't': 3, 'student': 1, 'teacher': 1}
    >>> bool((mc.eg.isel(t=-1) < mc.eg.isel(t=0)).all())
    True
    """
    check_choice("engine", engine, tuple(ENGINES))
    check_choice("init", init, ("exact", "random"))
    check_choice("store", store, ("runs", "moments"))
    check_choice("clock", clock, CLOCKS)
    check_choice("align", align, ("auto", True, False))
    check_choice("orientation", orientation, ("random", "axes"))
    check_count("runs", runs)
    sizes = dimensions(d)
    law = _law(inputs, orientation, engine)
    given = read_inputs(model, y0, params)
    _check_law(law, given, inputs)
    start = _start(given)
    for size in sizes:
        if isinstance(start, tuple):
            check_dimensions(start, given.input_share, size, init)
        else:
            check_dimension(start, size, init)
    times = times_to_save(t_span, t_eval, sizes, clock, given.eta, given.K)
    given = replace(given, origin=times.origin, unit=times.unit)
    if model.schedule is not None:
        check_factor(SCHEDULE, model.schedule, params, (times.origin, float(times.t[-1])))
    if checkpoint is not None and rng is None:
        raise ModelError("rng", rng, "a seed, where there is a checkpoint: no other call could go on from it")
    root = seed_of(rng)
    workers = threads if threads is not None else processors()
    check_count("threads", workers)
    pool = _executor(executor, threads)
    replicas = Replicas(model, given, start, engine, init, root, law, orientation)
    replicas.compile()
    about = {
        "title": model.training_step().title,
        "model": repr(model),
        "clock": clock,
        "simulation_status": _status(law),
        "parameters": _json(given, params),
        "versions": versions_json(),
        "y0": _json(given, given.states),
        "d": json.dumps(sizes),
        "engine": engine,
        "init": init,
        "inputs": str(law or Gaussian()),
        "orientation": orientation,
        "seed": seed_text(root),
    }

    gathered = Gathered(
        model, given, sizes, times, _tested(given, law), align, Moments() if store == "moments" else None, workers
    )
    shapes = _shapes(given, law, len(times.t))
    portion = runs if store == "runs" else at_a_time(shapes, len(sizes))
    # By runs, so that an interruption leaves whole runs; within one the long replica first.
    jobs = sorted(((run, size) for run in range(runs) for size in sizes), key=lambda job: (job[0], -job[1]))
    with ExitStack() as stack:
        kept = None
        if checkpoint is not None:
            kept = stack.enter_context(Checkpoint(Path(checkpoint), about, times, shapes))
        known = kept.finished if kept else {}
        keep, unfinished = (kept.keep, kept.unfinished) if kept else (forget, None)
        bar = stack.enter_context(progress_bar([job for job in jobs if job not in known], times, pool, progress))
        interrupted = False
        for begin in range(0, len(jobs), portion * len(sizes)):
            some = jobs[begin : begin + portion * len(sizes)]
            outcomes: dict[Job, Outcome] = {job: kept.read(job) for job in some if job in known} if kept else {}
            todo = [job for job in some if job not in outcomes]
            if pool is None:
                fresh, interrupted = run_all(todo, replicas, times, workers, bar, keep, unfinished)
            else:
                fresh, interrupted = run_elsewhere(todo, replicas, times, pool, bar, keep, unfinished)
            gathered.take(outcomes | fresh)
            if interrupted:
                break

    complete = len(gathered.runs)
    if interrupted and not complete and not gathered.first:
        raise KeyboardInterrupt
    dataset = gathered.dataset(scalar=not np.ndim(d))
    if dataset is not None:
        status = "diverged" if gathered.first else "interrupted" if interrupted else "success"
        dataset.attrs = about | {"runs": complete, "align": str(align), "store": store, "status": status}
    if gathered.first:
        (run, size), first = gathered.first
        t = float(times.at(first.step, size))
        raise SimulationDiverged(run, size, t, first.state, gathered.diverged, len(jobs), dataset)
    if interrupted:
        warnings.warn(
            f"interrupted: {complete} of {runs} runs were finished and are returned", RuntimeWarning, stacklevel=3
        )
    assert dataset is not None
    return dataset


# ── What was asked ──


def _law(inputs: Any, orientation: str, engine: str) -> DataLaw | None:
    """Return the data law; None for Gaussian inputs in general position, which the engines know by themselves."""
    law = read_law(inputs)
    gaussian = isinstance(law, Gaussian)
    if engine != "network" and not gaussian:
        raise ModelError("inputs", inputs, f"'gaussian' with engine={engine!r}: other inputs need engine='network'")
    if engine != "network" and orientation != "random":
        raise ModelError("orientation", orientation, f"'random' with engine={engine!r}, which has no axes")
    return None if gaussian and orientation == "random" else law


def _start(given: Inputs) -> Coordinates | tuple[Coordinates, ...]:
    """Return initial weights, in the frames that the model's inputs have."""
    if given.in_blocks:
        return coordinates_in_blocks(given)
    return coordinates_with_center(given) if given.shifted else coordinates(given)


def _check_law(law: DataLaw | None, given: Inputs, inputs: Any) -> None:
    """Refuse a data law, or axes, where the model states the covariance of Gaussian inputs itself."""
    if law is not None and (given.in_blocks or given.shifted):
        accepted = "'gaussian' in random directions: the model states its inputs itself"
        raise ModelError("inputs", inputs, accepted)


def _executor(executor: Any, threads: int | None) -> Any:
    """Return the user's executor, if there is one."""
    if executor is None:
        return None
    if threads is not None:
        raise ModelError("threads", threads, "nothing where there is an executor, which has its own workers")
    if hasattr(executor, "get_executor"):  # a dask Client, whose own futures are not those of PEP 3148
        executor = executor.get_executor()
    if not callable(getattr(executor, "submit", None)):
        raise ModelError("executor", executor, "something with submit(function, *arguments), as in PEP 3148")
    return executor


def _status(law: DataLaw | None) -> str:
    if law is None:
        return "exact in law at finite d for Gaussian inputs"
    return f"network trained at finite d on inputs: {law}; averages over test examples"


def _tested(given: Inputs, law: DataLaw | None) -> tuple[str, ...]:
    """Return the averages that a replica has taken over test examples itself."""
    return () if law is None else ("eg" if given.labels == "real" else "error_rate", "loss")


def _shapes(given: Inputs, law: DataLaw | None, times: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a finished replica."""
    names = dict.fromkeys(("Q", "R", "a", *given.states))
    states = {name: (times, *getattr(given, name).shape) for name in names}
    return states | {name: (times,) for name in _tested(given, law)}


def _json(given: Inputs, names: Iterable[str]) -> str:
    return parameters_json({name: given[name] for name in names})
