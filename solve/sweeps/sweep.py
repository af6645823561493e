"""``solve.sweep``: the outer product of parameters and initial values, by any executor, kept as it goes."""

import json
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, nullcontext
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError

from ..arguments import check_method, check_numbers, checked_span, method_for, refuse_noise, refuse_of_sde
from ..integrate import METHODS
from ..kernels.kernel import check_dynamics
from ..processors import processors
from ..results import parameters_json, provenance
from ..streams import seed_of
from .cell import HAZARDS, Common, Outcome, hazard_in, output_variables, solve_cell
from .fingerprint import fingerprint
from .grid import Grid, output_times, read_grid
from .layout import Layout, MemoryStore, Store
from .store import ZarrStore

if TYPE_CHECKING:
    import xarray as xr

WINDOW = 1024
"""Cells that are handed out and not yet back: enough for any number of workers, and little memory."""

NOISE = {"dt": None, "runs": 1, "rng": 0, "average": False, "same_noise": False, "brownian_dt": None}
"""Arguments that stochastic equations alone have a use for, and their defaults."""


def sweep(
    dynamics: Dynamics,
    over: Mapping[str, Any],
    t_span: tuple[float, float],
    y0: "Mapping[str, Any] | xr.Dataset | None" = None,
    params: Mapping[str, Any] | None = None,
    *,
    t_eval: Any = None,
    executor: Any = None,
    threads: int | None = None,
    store: str | os.PathLike[str] | None = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    method: str | None = None,
    max_steps: int = 1_000_000,
    dt: float | None = None,
    runs: int = 1,
    rng: Any = 0,
    average: bool = False,
    same_noise: bool = False,
    brownian_dt: float | None = None,
    progress: bool = True,
) -> "xr.Dataset":
    """Solve the equations of motion for every combination of some parameters and initial values.

    Parameters
    ----------
    dynamics : Dynamics
        What ``model.dynamics()`` returns.
    over : dict
        For each name that varies its n values: parameters or initial values. Of an array-valued one, (n, …); of ``a``
        or ``b``, (n,) means each value for all units. The result has the outer product, one dim for each name in this
        order: the name, with the values as labels, where these are numbers of a parameter; else ``<name>_case``, with
        the values in the coordinate ``<name>`` (of initial values, ``<name>_initial``).
    t_span : (float, float)
        From and to, in the dynamics' clock.
    y0, params : dict, optional
        Initial values and parameters that do not vary, as for :func:`effdyn.solve.integrate`.
    t_eval : array_like, optional
        Times to save, (T,), the same in all cells; by default 101 in equal distances.
    executor : optional
        Who computes the cells: anything with ``submit`` as in PEP 3148, such as ``ThreadPoolExecutor``,
        ``ProcessPoolExecutor``, mpi4py's ``MPIPoolExecutor``, or a ``dask.distributed.Client``. It is not shut down.
        By default threads of this process.
    threads : int, optional
        How many, without an executor; by default as many as there are processors.
    store : path, optional
        A folder for a zarr store, which ``xarray.open_zarr`` reads too. Cells are kept there as they finish. If it
        holds some of this very sweep, these are not computed again: that is how a sweep that was killed goes on. One
        process at a time writes to it. Without a store, cells are kept in memory.
    rtol, atol, method, max_steps :
        As for :func:`effdyn.solve.integrate`.
    dt, runs, rng, average, same_noise, brownian_dt :
        Of stochastic equations alone, as for :func:`effdyn.solve.ensembles.stochastic.ensemble_sde`. The random numbers
        of a cell depend on ``rng`` and its place in ``over``, not on who computes it, nor on which cells were done
        before: cell n, counted with the last name of ``over`` the fastest, is what ``integrate`` gives with
        ``rng=root.spawn(n + 1)[n]``, of ``root = numpy.random.SeedSequence(rng)``. To go on from a store takes the
        same number.
    progress : bool
        Show a bar with the time that is left, on terminals.

    Returns
    -------
    xarray.Dataset
        Every state and observable, with the dims of ``over``, then ``t``, then its own; and for each cell ``status``
        (``"success"``, ``"diverged"``, ``"not_positive_semidefinite"``, ``"step_limit"``, ``"refused"`` where values
        do not go together, ``"failed"``), ``t_reached``, after which its numbers are NaN, and ``message``: what went
        wrong, or which warning ``integrate`` would have given. Stochastic equations have a dim ``run`` before ``t``, or
        standard deviations ``Q_std`` of averages; a run is NaN from where it failed, and the first failure in time is
        the cell's ``status`` and ``t_reached``. Up to 1 GB are loaded; more is read from the store as it
        is used.

    Raises
    ------
    ModelError
        For a bad argument, naming it, before anything is computed.
    StoreInUse, ForeignStore, DamagedStore
        If the store is being written to, holds something else, or does not hold what was written.

    Warns
    -----
    SymmetricStart, BelowResolution
        Once for all cells, with their number; as :func:`effdyn.solve.integrate` does.

    Notes
    -----
    A cell that fails disturbs no other. What is wrong with the program or the machine (a broken pool, a full disk) is
    raised; finished cells are in the store, and the same call goes on from there. Ctrl-C returns the finished cells
    with a warning, the others with status ``"pending"``, and ``attrs["status"] == "interrupted"``; threads of this
    process leave the cells that they are in within some tenths of a second.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> grid = sweep(dyn, over=dict(eta=[0.5, 1.0, 2.0], sigma=[0.0, 0.1]), t_span=(0, 20), t_eval=[0, 10, 20],
    ...              y0=dict(Q=[[0.5]], R=[[0.1]]), params=dict(T=[[1.0]], a=1.0, b=1.0))
    >>> dict(grid.eg.sizes)
    {'eta': 3, 'sigma': 2, 't': 3}
    >>> bool((grid.eg.sel(sigma=0.1).isel(t=-1) > grid.eg.sel(sigma=0.0).isel(t=-1)).all())
    True
    """
    noise = {"dt": dt, "runs": runs, "rng": rng, "average": average, "same_noise": same_noise}
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "method": method, "max_steps": max_steps, **noise}
    common, grid = stated(dynamics, over, t_span, y0, params, t_eval=t_eval, brownian_dt=brownian_dt, **options)
    if store is not None and not os.fspath(store):
        raise ModelError("store", store, "a folder, or None for a sweep in memory")
    layout = Layout.of(common, grid, _attributes(common, grid))
    workers = _executor(executor, threads)
    with ExitStack() as stack:
        kept: Store = MemoryStore(layout)
        if store is not None:
            kept = stack.enter_context(ZarrStore(Path(store), layout, fingerprint(common, grid)))
        pool = stack.enter_context(workers)
        interrupted = False
        if not kept.done.all():
            interrupted = _run(pool, common, grid, kept, progress, store, own=executor is None)
        result = kept.dataset()
    result.attrs["status"] = "interrupted" if interrupted else "success"
    if interrupted:
        found, total = int(kept.done.sum()), grid.size
        warnings.warn(f"interrupted: {found} of {total} cells are finished", RuntimeWarning, stacklevel=2)
    _warn_of_hazards(result)
    return result


def _warn_of_hazards(result: "xr.Dataset") -> None:
    """Warn once of each hazard that cells tell of in their messages."""
    messages = result.message.values
    for kind in HAZARDS:
        concerned = [index for index, message in np.ndenumerate(messages) if hazard_in(str(message), kind)]
        if concerned:
            cell = ", ".join(f"{dim}[{i}]" for dim, i in zip(result.message.dims, concerned[0], strict=True))
            text = str(messages[concerned[0]]).partition(": ")[2]
            what = f"{len(concerned)} of {messages.size} cells say {kind.__name__} in their message"
            warnings.warn(f"{what}, the first at {cell}: {text}", kind, stacklevel=3)


def stated(
    dynamics: Dynamics,
    over: Any,
    t_span: Any,
    y0: Any = None,
    params: Any = None,
    *,
    t_eval: Any = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    method: str | None = None,
    max_steps: int = 1_000_000,
    threads: int | None = None,
    **noise: Any,
) -> tuple[Common, Grid]:
    """Return what a sweep with these arguments is to compute, checked as :func:`sweep` does; nothing is computed.

    Raises
    ------
    ModelError
        For a bad argument, naming it.
    """
    check_dynamics(dynamics)
    if unknown := set(noise) - set(NOISE):
        raise TypeError(f"stated() got {unknown.pop()!r}, which is none of its arguments")
    noise = NOISE | noise
    if dynamics.kind != "sde":
        _refuse_noise(dynamics, noise)
    check_numbers(rtol=rtol, atol=atol, max_steps=max_steps)
    method = method_for(dynamics.kind, method)
    if dynamics.kind == "ode":
        check_method(method, METHODS)
    _checked_threads(threads)
    options = {"rtol": rtol, "atol": atol, "method": method, "max_steps": max_steps}
    grid = read_grid(dynamics, over, y0, params)
    times = output_times(dynamics, grid, t_span, t_eval)
    if dynamics.kind == "sde":
        times, options = _of_paths(checked_span(t_span), times, options, noise)
    sizes, average = grid.first.sizes, bool(noise["average"])
    variables = output_variables(dynamics, average)
    shapes = {name: tuple(sizes[str(s)] for s in q.shape) for name, q in variables.items()}
    runs = int(noise["runs"]) if dynamics.kind == "sde" and not average else 0
    return Common(dynamics, checked_span(t_span), times, grid.y0, grid.params, shapes, options, runs), grid


def _refuse_noise(dynamics: Dynamics, noise: Mapping[str, Any]) -> None:
    given = {n: noise[n] for n, default in NOISE.items() if noise[n] is not default and noise[n] != default}
    refuse_noise(dynamics.kind, **given)


def _of_paths(
    span: tuple[float, float], times: np.ndarray, given: Mapping[str, Any], noise: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the times of whole steps, and what each cell of stochastic equations is given."""
    from ..ensembles.stochastic import checked_plan

    refuse_of_sde(rtol=given["rtol"], atol=given["atol"])
    options = {**noise, "method": given["method"], "max_steps": given["max_steps"]}
    root = seed_of(options.pop("rng"))
    plan = checked_plan(span, t_eval=times, **options)
    return plan.t0 + plan.saves * plan.h, {**options, "rng": root}


def _attributes(common: Common, grid: Grid) -> dict[str, str]:
    dynamics = common.dynamics
    arrays = {**grid.first.y0, **grid.first.params}
    return {
        **provenance(dynamics, {name: arrays[name] for name in common.params}),
        "y0": parameters_json({name: arrays[name] for name in common.y0}),
        "over": json.dumps([axis.name for axis in grid.axes]),
        "options": json.dumps(common.stated),
    }


def _executor(executor: Any, threads: int | None) -> Any:
    """Return a context manager that gives an executor: threads of ours, or the user's own, which is left open.

    Raises
    ------
    ModelError
    """
    if executor is None:
        return ThreadPoolExecutor(_checked_threads(threads), thread_name_prefix="effdyn-sweep")
    if threads is not None:
        raise ModelError("threads", threads, "nothing where there is an executor, which has its own workers")
    if hasattr(executor, "get_executor"):  # a dask Client, whose own futures are not those of PEP 3148
        executor = executor.get_executor()
    if not callable(getattr(executor, "submit", None)):
        raise ModelError("executor", executor, "something with submit(function, *arguments), as in PEP 3148")
    return nullcontext(executor)


def _checked_threads(threads: int | None) -> int:
    count = processors() if threads is None else threads
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ModelError("threads", threads, "a whole number, at least 1")
    return int(count)


def _run(pool: Executor, common: Common, grid: Grid, kept: Store, progress: bool, store: Any, own: bool) -> bool:
    """Compute the cells that are not done, in threads of our own or not; return whether Ctrl-C stopped it."""
    from tqdm.auto import tqdm

    pickled, stop = pickle.dumps(common), threading.Event() if own else None
    todo = np.flatnonzero(~kept.done).tolist()
    done, total = grid.size - len(todo), grid.size
    with tqdm(total=total, initial=done, unit="cell", disable=None if progress else True) as bar:

        def keep(index: int, outcome: Outcome) -> None:
            kept.add(index, outcome)
            bar.update()

        try:
            _hand_out(
                lambda index: pool.submit(solve_cell, pickled, *grid.cell(index), index, stop), iter(todo), keep, stop
            )
        except KeyboardInterrupt:
            kept.fold()
            if not kept.done.any():
                raise
            return True
        except Exception as error:
            if store is not None:
                error.add_note(f"{int(kept.done.sum())} of {total} cells are kept in {store}; the same call goes on.")
            raise
    kept.fold()
    return False


def _hand_out(
    submit: Callable[[int], "Future[Outcome]"],
    todo: Iterator[int],
    keep: Callable[[int, Outcome], None],
    stop: threading.Event | None,
) -> None:
    """Have cells computed, some at a time, and keep each as it comes; whatever ends this, what has finished is kept.

    Raises
    ------
    KeyboardInterrupt
        Here, or in a worker.
    Exception
        What a worker raised: it is not about one cell.
    """
    finished: SimpleQueue[Future[Outcome]] = SimpleQueue()
    running: dict[Future[Outcome], int] = {}

    def hand_out(count: int) -> None:
        for _, index in zip(range(count), todo, strict=False):  # in this order: zip takes from the first one first
            future = submit(index)
            running[future] = index
            future.add_done_callback(finished.put)

    try:
        hand_out(WINDOW)
        while running:
            try:
                future = finished.get(timeout=0.1)  # with a timeout, or Ctrl-C would not be heard on Windows
            except Empty:
                continue
            outcome = future.result()
            keep(running.pop(future), outcome)
            hand_out(1)
    except BaseException:
        _stop(running, keep, stop)
        raise


def _stop(
    running: dict["Future[Outcome]", int], keep: Callable[[int, Outcome], None], stop: threading.Event | None
) -> None:
    """Cancel what has not begun, and keep what has finished meanwhile.

    Threads of our own are told to stop within their cells, and waited for; workers of others go on by themselves.
    """
    begun = [future for future in running if not future.cancel()]
    if stop is not None:
        stop.set()
        wait(begun)
    for future in begun:
        if future.done() and not future.cancelled() and future.exception() is None:
            keep(running[future], future.result())
