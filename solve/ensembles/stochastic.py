"""Ensembles of stochastic equations: many runs from many initial states, at many parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError

from .. import certification
from ..kernels.kernel import observables_kernel
from ..kernels.layout import packed_length
from ..stochastic.integrate import METHODS, check_commutes, check_counts, check_scheme, plan_of
from ..stochastic.replicas import Failure, Plan
from ..stochastic.steps import MILSTEIN
from ..stochastic.system import system_of, with_diffusion_observed
from ..streams import seed_of, seed_text
from .inputs import Batch, read_batch
from .path_results import STATUS, to_dataset
from .paths import Averages, Members, Runs, Streams, run_paths
from .stated import about, checked_names, checked_threads, member_bar, places, quantities

if TYPE_CHECKING:
    import xarray as xr


def ensemble_sde(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: Any,
    params: Mapping[str, Any],
    *,
    dt: float | None = None,
    method: str = "euler-maruyama",
    runs: int = 1,
    rng: Any = 0,
    average: bool = False,
    same_noise: bool = False,
    t_eval: np.ndarray | None = None,
    brownian_dt: float | None = None,
    max_steps: int = 1_000_000,
    keep: Sequence[str] | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Integrate paths of stochastic differential equations from many initial states, at many parameters.

    Parameters
    ----------
    dynamics : Dynamics
        Of kind ``"sde"``.
    t_span, y0, params, keep, threads, progress :
        As for :func:`effdyn.solve.ensemble`: batch axes before a quantity's own broadcast into the members.
    dt, method, t_eval, brownian_dt, max_steps :
        As for :func:`effdyn.solve.stochastic.integrate.integrate_sde`; the same in all members.
    runs : int
        How many paths of each member.
    rng : int, numpy.random.SeedSequence, numpy.random.Generator or None
        Each run of each member has a stream of its own, keyed by the numbers of both. Member m is what ``integrate``
        gives with ``rng=root.spawn(m + 1)[m]``, of ``root = numpy.random.SeedSequence(rng)``: the same, bit for bit, on
        any number of threads, among any number of members after it and of runs.
    average : bool
        Return the mean over the runs of each member and, as ``x_std``, the standard deviation (ddof=1; NaN of one run),
        instead of every run. Memory does not grow with the number of runs then.
    same_noise : bool
        Give run r of every member the same random numbers: those of ``integrate`` with the same ``rng``. Differences
        between members then have less scatter than with noise of their own.

    Returns
    -------
    xarray.Dataset
        Every state and observable with dims ``run``, ``member``, ``t``, then their own; without ``run`` where they are
        averaged. ``status`` (``"success"``, ``"diverged"``, ``"not_positive_semidefinite"`` or ``"interrupted"``) and
        ``t_failed``, the last time with a valid state, have dims ``run`` and ``member``. A path that fails is NaN from
        there on, and so is then the average: ``status`` and ``t_failed`` are then of the member's run that failed
        first, and ``n_runs`` (member) says over how many runs were averaged. States at failures are ``x_failed``
        (failed, …), with the numbers ``failed`` of the member and ``failed_run``.

    Raises
    ------
    ModelError
        For a bad argument, naming it, and the member.

    Notes
    -----
    A RuntimeWarning says how many runs failed. Ctrl-C returns what is finished, with a warning and ``attrs["status"] ==
    "interrupted"``; averages are then over whole blocks of 64 runs.

    Examples
    --------
    Ornstein–Uhlenbeck processes dx = -k x dt + dW relax to variances 1/(2 k):

    >>> import numpy as np, sympy
    >>> from effdyn.derive import Dynamics, Equation, Quantity
    >>> from effdyn.derive.diffusion import Amplitude
    >>> from effdyn.solve import ensemble
    >>> x, k, W = Quantity("x"), Quantity("k"), Quantity("W")
    >>> noise = (Amplitude(x, W, sympy.S.One),)
    >>> process = Dynamics("OU", "sde", "t", (Equation(x, -k.symbol * x.symbol),), (k,), diffusion=noise)
    >>> rates = np.array([1.0, 2.0, 4.0])
    >>> stated = dict(dt=0.01, runs=1000, average=True)
    >>> found = ensemble(process, (0, 4), dict(x=0.0), dict(k=rates), t_eval=[4.0], **stated)
    >>> found.x.dims
    ('member', 't')
    >>> variance = found.x_std.values[:, 0] ** 2
    >>> bool((abs(variance * 2 * rates - 1) < 5 * (2 / 1000) ** 0.5 + 0.01 * rates).all())  # error of Euler: k dt/2
    True
    """
    asked: dict[str, Any] = {
        "dt": dt,
        "method": method,
        "t_eval": t_eval,
        "brownian_dt": brownian_dt,
        "max_steps": max_steps,
    }
    plan = checked_plan(t_span, runs=runs, average=average, same_noise=same_noise, **asked)
    names = checked_names(dynamics, keep)
    streams = Streams(seed_of(rng), bool(same_noise))
    workers = checked_threads(threads)
    sampled = sample(dynamics, y0, params, plan, runs, streams, average, names, workers, progress)
    if sampled.interrupted and not sampled.finished:
        raise KeyboardInterrupt
    _warn(sampled)
    sampled.solution.attrs["method"] = method
    return sampled.solution


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A Dataset of paths, and what became of them: failures by member and run."""

    solution: xr.Dataset
    failures: Mapping[tuple[int, int], Failure]
    interrupted: bool
    finished: int
    total: int


def checked_plan(
    t_span: tuple[float, float],
    *,
    dt: Any,
    method: str,
    runs: int,
    average: bool,
    same_noise: bool,
    t_eval: np.ndarray | None,
    brownian_dt: Any,
    max_steps: int,
) -> Plan:
    """Return the steps of every path; all that can be checked without equations is.

    Raises
    ------
    ModelError
        Naming the argument at fault.
    """
    check_scheme(method)
    check_counts(runs=runs, max_steps=max_steps)
    for name, switch in (("average", average), ("same_noise", same_noise)):
        if not isinstance(switch, (bool, np.bool_)):
            raise ModelError(name, switch, "True or False")
    return plan_of(METHODS[method], t_span, dt, brownian_dt, t_eval, max_steps)


def sample(
    dynamics: Dynamics,
    y0: Any,
    params: Mapping[str, Any],
    plan: Plan,
    runs: int,
    streams: Streams,
    average: bool,
    names: Sequence[str],
    threads: int,
    progress: bool = False,
) -> Sampled:
    """Compute all runs of all members; arguments are checked, but for values of states and parameters."""
    members = _members(dynamics, y0, params, names)
    if plan.scheme == MILSTEIN:
        _check_all_commute(members, plan)
    shapes = _shapes(dynamics, members.states, names)
    N, T = len(members), len(plan.saves)
    kept: Runs | Averages
    if average:
        room = (N, T, len(members.places))
        kept = Averages(np.zeros(N, dtype=np.int64), np.zeros(room), np.zeros(room))
    else:
        outputs = tuple(np.full((runs, N, T, *shape), np.nan) for shape in shapes.values())
        kept = Runs(outputs, np.zeros((runs, N), dtype=bool))
    with member_bar(N * runs, progress, "run") as tick:
        failures, interrupted = run_paths(members, plan, runs, streams, kept, threads, tick or (lambda done: None))
    certification.check()
    attrs = {
        **about(dynamics, members.states),
        "dt": plan.h,
        "brownian_dt": plan.h / plan.substeps,
        "n_steps": int(plan.saves[-1]),
        "runs": runs,
        "same_noise": int(streams.shared),
        "seed": seed_text(streams.root),
        "status": "interrupted" if interrupted else "partial" if failures else "success",
        "n_failed": len(failures),
    }
    solution = to_dataset(dynamics, members.states, plan, runs, kept, shapes, failures, attrs)
    finished = int(kept.counts.sum() if isinstance(kept, Averages) else kept.done.sum())
    return Sampled(solution, failures, interrupted, finished, runs * N)


# -- what is computed --------------------------------------------------------------------------------------------------


def _members(dynamics: Dynamics, y0: Any, params: Mapping[str, Any], names: Sequence[str]) -> Members:
    observed = read_batch(dynamics, y0, params)
    base = system_of(dynamics, observed.common.y0, observed.common.params)
    states = read_batch(with_diffusion_observed(dynamics), y0, params)
    watched = bool(set(names) & {e.quantity.name for e in dynamics.observables})
    at = places(dynamics, states.common.sizes, states.y0.shape[1])
    return Members(
        base,
        states,
        observed,
        observables_kernel(dynamics) if watched else None,
        sum(packed_length(e.quantity, states.common.sizes) for e in dynamics.observables),
        np.concatenate([at[name].ravel() for name in names]).astype(np.int64),
    )


def _check_all_commute(members: Members, plan: Plan) -> None:
    for member in range(len(members)):
        try:
            check_commutes(members.system(member), plan)
        except ModelError as error:
            raise ModelError(error.argument, error.given, f"{error.accepted}, in member {member}") from None


def _shapes(dynamics: Dynamics, batch: Batch, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    known = quantities(dynamics)
    return {name: tuple(batch.common.sizes[str(s)] for s in known[name].shape) for name in names}


# -- what is told -----------------------------------------------------------------------------------------------------


def _warn(sampled: Sampled) -> None:
    if sampled.interrupted:
        text = f"interrupted with {sampled.finished} of {sampled.total} runs finished"
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    if sampled.failures:
        text = f"{failures_in_words(sampled)}: see status, t_failed, and the states with names in _failed"
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def failures_in_words(sampled: Sampled) -> str:
    """Return how many runs failed, and how the first of them did."""
    member, run = min(sampled.failures)
    first = sampled.failures[member, run]
    how = f"{STATUS[first.why]} after t = {first.t:.6g}"
    return f"{len(sampled.failures)} of {sampled.total} runs failed, first run {run} of member {member} ({how})"
