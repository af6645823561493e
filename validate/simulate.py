"""Monte-Carlo simulation of a model at finite d: replicas, their streams and threads, and one Dataset of what they did.

Built from the model alone, its activations, labels, loss and update rule; never from derived equations.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from effdyn.derive import TeacherStudent
from effdyn.derive.errors import ModelError, nearest
from effdyn.solve.results import parameters_json, variable, versions_json

from .align import best_order, come_apart, exchangeable, permuted, same_second_layer
from .batches import BatchGram, BatchNetwork, compile_steps
from .gram import Gram, compile_gram
from .initial import check_dimension, coordinates
from .inputs import Inputs, read_inputs
from .network import Network, compile_network
from .observables import observables
from .simulators import by_model, simulates

ENGINES: dict[str, tuple[Callable, Callable]] = {"gram": (compile_gram, Gram), "network": (compile_network, Network)}
"""By name: what compiles a model's step, and the class of one replica."""
BATCHED: dict[str, tuple[Callable, Callable]] = {
    "gram": (compile_steps, BatchGram),
    "network": (compile_steps, BatchNetwork),
}
"""The same for models with mini-batches or momentum."""

CLOCKS = ("steps/d", "eta*steps/d")

State = dict[str, np.ndarray]


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
    align: str | bool = "auto",
    store: str = "runs",
    threads: int | None = None,
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
        ``flip`` for signs.
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
    align : {"auto", True, False}
        Match each replica's students to those of run 0 at the largest d, by one permutation for all times: among
        students that ``y0`` does not tell apart at this d (differences up to 1/√d), among all that have equal
        second-layer weights, or not at all. See :mod:`effdyn.validate.align`.
    store : {"runs", "moments"}
        Every run, or the mean over runs under the same names with standard deviations (ddof=1) as ``Q_std`` etc.
    threads : int, optional
        By default as many as there are processors.
    clock : {"steps/d", "eta*steps/d"}
        What t is.
    progress : bool
        Show a bar, on terminals.

    Returns
    -------
    xarray.Dataset
        ``Q``, ``R`` and, where trained, ``a`` and ``bias``; of the network with these overlaps ``eg`` (the noise-free
        generalisation error) or, for labels ±1, ``error_rate``, ``loss`` (label noise included), ``cosine`` and
        ``cosine_students``; dims run[, d], t, then units. Averages without a quadrature of their own are taken over
        points drawn anew for each run, and then scatter a little more: see :mod:`effdyn.validate.observables`.
        ``t`` is the true time for one d; for several, the nominal one, with ``t_true`` (d, t). Attributes have the
        names that ``solve.integrate`` gives them.

    Raises
    ------
    ModelError
        A mistake in the arguments, by the name of the argument.
    SimulationDiverged
        If any replica diverged, once the others have finished.

    Notes
    -----
    Ctrl-C returns the runs that are finished, with a warning and ``attrs["status"] == "interrupted"``; if none is, it
    is raised.

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
    check_count("runs", runs)
    sizes = dimensions(d)
    inputs = read_inputs(model, y0, params)
    start = coordinates(inputs)
    for size in sizes:
        check_dimension(start, size, init)
    times = times_to_save(t_span, t_eval, sizes, clock, inputs.eta)
    root = seed_of(rng)
    workers = threads if threads is not None else processors()
    check_count("threads", workers)

    compile_kernel, Replica = (BATCHED if model.batch or model.momentum else ENGINES)[engine]
    kernel = compile_kernel(model)

    def replica(run: int, size: int) -> Any:
        return Replica(kernel, inputs, start, size, init, stream(root, size, run))

    # By runs, so that an interruption leaves whole runs; within one the long replica first.
    jobs = sorted(((run, size) for run in range(runs) for size in sizes), key=lambda job: (job[0], -job[1]))
    outcomes, interrupted = run_all(jobs, replica, times, workers, progress)

    finished = {job: outcome for job, outcome in outcomes.items() if isinstance(outcome, dict)}
    complete = [run for run in range(runs) if all((run, size) in finished for size in sizes)]
    diverged = {job: outcome for job, outcome in outcomes.items() if isinstance(outcome, Divergence)}
    if interrupted and not complete and not diverged:
        raise KeyboardInterrupt
    dataset = None
    if complete:
        if align is not False:
            groups = exchangeable(inputs, min(sizes) ** -0.5) if align == "auto" else same_second_layer(inputs)
            if align == "auto":
                reference = finished[complete[0], max(sizes)]
                groups = [g for g in groups if len(g) > 1 and come_apart(reference, inputs, g, max(sizes))]
            _align(finished, complete, sizes, groups)
        dataset = _dataset(model, inputs, finished, complete, sizes, times, workers, scalar=not np.ndim(d))
        if store == "moments":
            dataset = _moments(dataset)
        dataset.attrs = {
            "title": model.training_step().title,
            "model": repr(model),
            "clock": clock,
            "simulation_status": "exact in law at finite d for Gaussian inputs",
            "parameters": _json(inputs, params),
            "versions": versions_json(),
            "y0": _json(inputs, inputs.states),
            "d": json.dumps(sizes),
            "runs": len(complete),
            "engine": engine,
            "init": init,
            "align": str(align),
            "store": store,
            "seed": json.dumps({"entropy": str(root.entropy), "spawn_key": list(root.spawn_key)}),
            "status": "diverged" if diverged else "interrupted" if interrupted else "success",
        }
    if diverged:
        run, size = min(diverged)
        first = diverged[run, size]
        t = float(times.at(first.step, size))
        raise SimulationDiverged(run, size, t, first.state, len(diverged), len(jobs), dataset)
    if interrupted:
        warnings.warn(
            f"interrupted: {len(complete)} of {runs} runs were finished and are returned", RuntimeWarning, stacklevel=3
        )
    assert dataset is not None
    return dataset


# ── What was asked ──


@dataclass(frozen=True, slots=True)
class Times:
    """When to save: nominal times ``t``, on the grid of the smallest d, and for each d the steps made by then.

    A step at dimension d takes the time ``unit``/d, the first one from ``origin``.
    """

    t: np.ndarray
    steps: dict[int, np.ndarray]
    origin: float
    unit: float

    def at(self, step: np.ndarray | int, d: int) -> np.ndarray | float:
        """Return the time after so many steps at dimension d."""
        return self.origin + step * (self.unit / d)


def times_to_save(t_span: Any, t_eval: Any, sizes: list[int], clock: str, eta: float) -> Times:
    span = np.asarray(t_span, dtype=float)
    if span.shape != (2,) or not np.isfinite(span).all() or span[1] < span[0]:
        raise ModelError("t_span", t_span, "two finite times, the first not after the second")
    if clock == "eta*steps/d" and not eta > 0:
        raise ModelError("params['eta']", eta, "a positive learning rate, where the clock is eta*steps/d")
    unit = eta if clock == "eta*steps/d" else 1.0
    asked = np.linspace(span[0], span[1], 101) if t_eval is None else np.asarray(t_eval, dtype=float)
    margin = 1e-9 * max(1.0, abs(span).max())
    if (
        asked.ndim != 1
        or asked.size == 0
        or not np.isfinite(asked).all()
        or (np.diff(asked) < 0).any()
        or asked[0] < span[0] - margin
        or asked[-1] > span[1] + margin
    ):
        raise ModelError("t_eval", t_eval, f"ascending finite times in t_span={tuple(span.tolist())}")
    grid = np.unique(np.rint((asked - span[0]) * (min(sizes) / unit)).astype(np.int64))
    steps = {d: np.rint(grid * (d / min(sizes))).astype(np.int64) for d in sizes}
    return Times(span[0] + grid * (unit / min(sizes)), steps, float(span[0]), unit)


def dimensions(d: Any) -> list[int]:
    given = list(d) if np.ndim(d) else [d]
    if not given or any(
        isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1 for size in given
    ):
        raise ModelError("d", d, "a positive whole number, or a list of them")
    if len(set(given)) < len(given):
        raise ModelError("d", d, "different dimensions, each once")
    return [int(size) for size in given]


def check_choice(argument: str, given: Any, accepted: tuple[Any, ...]) -> None:
    if not any(given is option or (isinstance(given, str) and given == option) for option in accepted):
        raise ModelError(
            argument, given, f"one of {', '.join(map(repr, accepted))}{nearest(str(given), map(str, accepted))}"
        )


def check_count(argument: str, given: Any) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 1:
        raise ModelError(argument, given, "a whole number, at least 1")


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_of(rng: Any) -> np.random.SeedSequence:
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):  # a child of its stream, another one at each call
        child = rng.spawn(1)[0].bit_generator.seed_seq
        assert isinstance(child, np.random.SeedSequence)
        return child
    try:
        return np.random.SeedSequence(rng)
    except (TypeError, ValueError):
        raise ModelError("rng", rng, "a seed (a non-negative integer), a SeedSequence, a Generator, or None") from None


def stream(root: np.random.SeedSequence, d: int, run: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, d, run), pool_size=root.pool_size)


# ── Running it ──


@dataclass(frozen=True, slots=True)
class Divergence:
    step: int
    state: State


def run_all(
    jobs: list[tuple[int, int]], replica: Callable[[int, int], Any], times: Times, threads: int, progress: bool
) -> tuple[dict[tuple[int, int], State | Divergence | None], bool]:
    """Run every job in threads; return what became of each (None: stopped before its end), and whether by Ctrl-C."""
    stop, interrupted = threading.Event(), False
    outcomes: dict[tuple[int, int], State | Divergence | None] = {}
    queue = iter(enumerate(jobs))  # threads take from it one by one
    done = [0] * len(jobs)  # steps made: each replica writes its own entry, the bar reads all
    total = sum(int(times.steps[d][-1]) for _, d in jobs)

    def work() -> None:
        for index, (run, d) in queue:
            if stop.is_set():
                return
            outcomes[run, d] = _trajectory(replica(run, d), times.steps[d], stop, done, index)

    with (
        tqdm(total=total, unit="step", unit_scale=True, disable=None if progress else True) as bar,
        ThreadPoolExecutor(threads, thread_name_prefix="effdyn-simulate") as pool,
    ):
        try:
            workers = [pool.submit(work) for _ in range(threads)]
            pending = set(workers)
            while pending:
                ready, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                for worker in ready:
                    worker.result()  # an error in a replica ends the rest
                bar.update(sum(done) - bar.n)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            stop.set()
    return outcomes, interrupted


def _trajectory(
    replica: Any, saves: np.ndarray, stop: threading.Event, done: list[int], index: int
) -> State | Divergence | None:
    """Advance one replica through its saves; return its states there, with t as first axis."""
    saved: list[State] = []
    step = 0

    def state() -> State:
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below, and reported as divergence
            return replica.state()

    for save in saves.tolist():
        while step < save:
            if stop.is_set():
                return None
            wanted = min(replica.block, save - step)
            made = replica.advance(wanted)
            step += made
            done[index] = step
            if made < wanted:
                return Divergence(step, state())
        reached = state()
        if not all(np.isfinite(array).all() for array in reached.values()):
            return Divergence(step, reached)
        saved.append(reached)
    return {name: np.stack([reached[name] for reached in saved]) for name in saved[0]}


# ── What it gives ──


def _align(finished: dict[tuple[int, int], State], runs: list[int], sizes: list[int], groups: list[list[int]]) -> None:
    if all(len(group) == 1 for group in groups):
        return
    reference = finished[runs[0], max(sizes)]
    for run in runs:
        for d in sizes:
            state = finished[run, d]
            finished[run, d] = permuted(state, best_order(state, reference, groups))


def _dataset(
    model: TeacherStudent,
    inputs: Inputs,
    finished: dict[tuple[int, int], State],
    runs: list[int],
    sizes: list[int],
    times: Times,
    threads: int,
    scalar: bool,
) -> xr.Dataset:
    arrays = {
        name: np.stack([np.stack([finished[run, d][name] for d in sizes]) for run in runs])
        for name in finished[runs[0], sizes[0]]
    }
    measured = observables(model, inputs, arrays, [[(run, d) for d in sizes] for run in runs], threads)
    arrays = {name: arrays[name] for name in inputs.states} | measured
    step = model.training_step()
    quantities = {q.name: q for q in (*step.states, *(q for q, _ in (*step.averages, *step.formulas)))}
    variables = {name: variable(quantities[name], array, ("run", "d", "t")) for name, array in arrays.items()}
    dataset = xr.Dataset(variables, coords={"run": runs, "d": sizes, "t": times.t})
    if scalar:
        return dataset.isel(d=0)
    return dataset.assign_coords(t_true=(("d", "t"), np.stack([times.at(times.steps[d], d) for d in sizes])))


def _moments(dataset: xr.Dataset) -> xr.Dataset:
    mean = dataset.mean("run", skipna=False)  # a cosine of a vector of length 0 stays undefined
    spread = dataset.std("run", ddof=1, skipna=False) if dataset.sizes["run"] > 1 else mean * np.nan
    return mean.merge(spread.rename({name: f"{name}_std" for name in dataset.data_vars}))


def _json(inputs: Inputs, names: Iterable[str]) -> str:
    return parameters_json({name: getattr(inputs, name) for name in names})
