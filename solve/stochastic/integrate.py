"""Paths of stochastic differential equations, as a labelled dataset: ``solve.integrate`` of kind ``"sde"``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from effdyn.derive import Dynamics, ModelError
from effdyn.derive.errors import nearest

from .. import certification
from ..errors import Diverged, IntegrationError, NotPositiveSemidefinite
from ..kernels.layout import read_inputs, unpack
from ..processors import processors
from ..results import parameters_json, to_dataset
from ..streams import generator, seed_of, seed_text
from .commutative import commutes, commutes_around
from .replicas import Failure, Plan, path, run_all
from .steps import EULER_MARUYAMA, MILSTEIN, NOT_PSD, WEAK2
from .system import System, system_of

if TYPE_CHECKING:
    import xarray as xr

METHODS = {"euler-maruyama": EULER_MARUYAMA, "milstein": MILSTEIN, "weak2": WEAK2}
WHOLE = 1e-6
"""How far from a whole number a ratio of times may be that is meant to be one."""
PILOT_STEPS = 4
"""Of a trial path, at whose states noise is looked at besides the initial one, where it may commute by accident."""


def integrate_sde(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: Any,
    params: Mapping[str, Any],
    *,
    dt: float | None = None,
    method: str = "euler-maruyama",
    runs: int = 1,
    rng: Any = 0,
    t_eval: np.ndarray | None = None,
    brownian_dt: float | None = None,
    max_steps: int = 1_000_000,
    threads: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Integrate independent paths of stochastic differential equations (Itô), by steps of one length.

    Parameters
    ----------
    dynamics : Dynamics
        Of kind ``"sde"``, its noise stated as amplitudes of Brownian motions or as covariations, which are factored
        (Cholesky, in the order of the states) at every step.
    t_span : (float, float)
        From and to, forwards.
    y0, params : dict
        As for :func:`effdyn.solve.integrate`; every run starts at ``y0``.
    dt : float
        The length of a step; shortened, if need be, so that whole steps fill the span.
    method : str
        ``"euler-maruyama"``: any noise; strong order 1/2 (1 if the noise does not depend on the state), weak order 1.
        ``"milstein"``: noise that commutes (scalar, diagonal, independent of the state, …), which is checked, by
        numbers: at the start, along a few steps, and as far from there as the noise alone carries in ``t_span``; strong
        order 1, weak order 1; m + 1 evaluations of the diffusion a step, m the number of Brownian motions.
        ``"weak2"``: any noise, weak order 2: for averages over runs, since its increments take three values each; two
        evaluations of the drift, 4 m + 1 of the diffusion (3 if m is 1).
    runs : int
        How many paths.
    rng : int, numpy.random.SeedSequence, numpy.random.Generator or None
        Each run has a stream of its own, keyed by its number: a run is the same, bit for bit, on any number of threads,
        among any number of runs, and for any ``t_eval``. ``None`` takes fresh entropy, which is recorded.
    t_eval : array_like, optional
        When to save; rounded to whole steps, and stored as such. By default 101 times in equal distances.
    brownian_dt : float, optional
        Draw the Brownian motions in increments over this time, of which a step adds up ``dt/brownian_dt``, a whole
        number: runs with different ``dt`` then follow the same Brownian paths. By default ``dt``.
    max_steps : int
        The most steps a path may take.
    threads : int, optional
        By default as many as there are processors.
    progress : bool
        Whether to show a bar, over runs.

    Returns
    -------
    xarray.Dataset
        Every state and observable with dims ``run``, ``t``, then their own. Interrupted with Ctrl-C, the runs that are
        finished, with ``attrs["status"] == "interrupted"`` and a warning; if none is, it is raised.

    Raises
    ------
    ModelError
        For a bad argument, naming it.
    Diverged, NotPositiveSemidefinite
        If a run left the finite numbers, or came where the stated covariance is none: once the others have finished,
        with the time and the state of the first such run; ``.partial`` holds the others, a biased sample.

    Examples
    --------
    The Ornstein–Uhlenbeck process dx = -x dt + dW, whose variance grows to (1 − exp(−2t))/2:

    >>> import sympy
    >>> from effdyn.derive.diffusion import Amplitude
    >>> from effdyn.derive.dynamics import Dynamics, Equation, Quantity
    >>> x, W = Quantity("x"), Quantity("W")
    >>> flow = (Equation(x, -x.symbol),)
    >>> process = Dynamics("OU", "sde", "t", flow, diffusion=(Amplitude(x, W, sympy.S.One),))
    >>> paths = integrate_sde(process, (0, 2), dict(x=0.0), {}, dt=0.01, runs=2000)
    >>> dict(paths.x.sizes)
    {'run': 2000, 't': 101}
    >>> bool(abs(paths.x.isel(t=-1).var("run") - 0.491) < 5 * 0.491 * (2 / 2000) ** 0.5)
    True
    """
    check_scheme(method)
    workers = processors() if threads is None else threads
    check_counts(runs=runs, threads=workers, max_steps=max_steps)
    plan = plan_of(METHODS[method], t_span, dt, brownian_dt, t_eval, max_steps)
    root = seed_of(rng)
    system = system_of(dynamics, y0, params)
    if plan.scheme == MILSTEIN:
        check_commutes(system, plan)
    with tqdm(total=runs, disable=not progress, unit="run") as bar:
        out, outcomes, interrupted = run_all(
            system, plan, runs, root, int(workers), lambda done: bar.update(done - bar.n)
        )
    certification.check()
    finished = sorted(run for run, outcome in outcomes.items() if outcome is True)
    failed = {run: outcome for run, outcome in outcomes.items() if isinstance(outcome, Failure)}
    if interrupted and not finished and not failed:
        raise KeyboardInterrupt
    facts = {
        "status": "diverged" if failed else "interrupted" if interrupted else "success",
        "method": method,
        "dt": plan.h,
        "brownian_dt": plan.h / plan.substeps,
        "n_steps": int(plan.saves[-1]),
        "seed": seed_text(root),
    }
    solution = _dataset(dynamics, system, plan, out[finished], finished, facts)
    if failed:
        raise _failure(system, failed, len(outcomes), solution)
    if interrupted:
        warnings.warn(
            f"interrupted: {len(finished)} of {runs} runs were finished and are returned", RuntimeWarning, stacklevel=3
        )
    return solution


def check_scheme(method: str) -> None:
    """Raise a ModelError unless this is the name of a scheme."""
    if method not in METHODS:
        raise ModelError("method", method, f"one of {', '.join(METHODS)}{nearest(str(method), METHODS)}")


def check_counts(**counts: Any) -> None:
    """Raise a ModelError unless all are whole numbers, at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ModelError(name, value, "a whole number, at least 1")


def plan_of(
    scheme: int, span: tuple[float, float], dt: Any, brownian_dt: Any, t_eval: np.ndarray | None, max_steps: int
) -> Plan:
    """Return the steps that these arguments state.

    Raises
    ------
    ModelError
        Naming the one at fault.
    """
    start, stop = map(float, span)
    if stop <= start:
        raise ModelError("t_span", span, "(from, to) with from before to: noise has no way back")
    step = _positive("dt", dt)
    steps = max(1, math.ceil((stop - start) / step - WHOLE))
    if steps > max_steps:
        raise ModelError("dt", dt, f"at most max_steps = {max_steps} steps; to reach t = {stop:g} there are {steps}")
    h, substeps = (stop - start) / steps, 1
    if brownian_dt is not None:
        if scheme == WEAK2:
            accepted = "None with method='weak2', whose increments are not those of Brownian paths"
            raise ModelError("brownian_dt", brownian_dt, accepted)
        ratio = h / _positive("brownian_dt", brownian_dt)
        substeps = round(ratio)
        if abs(h - step) > WHOLE * step or substeps < 1 or abs(ratio - substeps) > WHOLE * ratio:
            accepted = (
                f"a time of which dt = {step:g} has a whole number, and dt one of which t_span has a whole number"
            )
            raise ModelError("brownian_dt", brownian_dt, accepted)
    asked = np.linspace(start, stop, 101) if t_eval is None else np.asarray(t_eval, dtype=float)
    return Plan(scheme, start, h, substeps, np.unique(np.rint((asked - start) / h).astype(np.int64)))


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise ModelError(name, value, "a positive number: the length of a step")
    return float(value)


def check_commutes(system: System, plan: Plan) -> None:
    """Raise a ModelError unless the noise commutes where it starts, along a few steps of Euler and Maruyama, and as far
    from there as it carries in the whole time, wherever it is a number."""
    pilot = Plan(EULER_MARUYAMA, plan.t0, plan.h, 1, np.arange(PILOT_STEPS + 1))
    states = np.full((PILOT_STEPS + 1, len(system.y0)), np.nan)
    path(system, pilot, generator(np.random.SeedSequence(0), 0), states, lambda: False)
    sound = states[np.isfinite(states).all(axis=1)]
    duration = float(plan.saves[-1]) * plan.h
    near = all(commutes(system, plan.t0 + n * plan.h, y) for n, y in enumerate(sound))
    if not near or not all(commutes_around(system, plan.t0, y, duration) for y in sound):
        accepted = "'euler-maruyama' or 'weak2': strong order 1 needs noise that commutes, and this does not"
        raise ModelError("method", "milstein", accepted)


def _failure(system: System, failed: dict[int, Failure], total: int, partial: xr.Dataset) -> IntegrationError:
    run = min(failed)
    first = failed[run]
    state = unpack(system.dynamics.states, first.y, system.inputs.sizes)
    some = f"{len(failed)} of {total} runs stopped before the end, run {run} first: "
    if first.why == NOT_PSD:
        cause = "the stated covariance of increments is not symmetric and positive semidefinite"
        return NotPositiveSemidefinite(some + cause, first.t, state, partial)
    cause = "its next state is not a finite number; a smaller dt may keep it finite, if the equations do"
    return Diverged(some + cause, first.t, state, partial)


def _dataset(
    dynamics: Dynamics, system: System, plan: Plan, y: np.ndarray, runs: list[int], facts: dict[str, Any]
) -> xr.Dataset:
    from ..integrate import observe

    t = plan.t0 + plan.saves * plan.h
    # other equations than those of the paths, and so perhaps other tables of numerical rules
    inputs = read_inputs(dynamics, system.inputs.y0, system.inputs.params)
    flat = observe(dynamics, inputs, np.tile(t, len(runs)), y.reshape(-1, y.shape[-1]))
    lead = (len(runs), len(t))
    return to_dataset(
        dynamics,
        t,
        unpack(dynamics.states, y, system.inputs.sizes),
        {name: values.reshape(*lead, *values.shape[1:]) for name, values in flat.items()},
        system.inputs.params,
        {"y0": parameters_json(system.inputs.y0), **facts},
        runs=runs,
    )
