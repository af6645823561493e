"""``solve.integrate``: one trajectory of a Dynamics, as a labelled dataset."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, Fluctuations, ModelError, NotYet

from . import certification
from .arguments import (
    MAX_STEPS,
    OURS,
    check_limits,
    check_method,
    check_more,
    checked_span,
    checked_times,
    events_of,
    method_for,
    refuse,
    refuse_of_sde,
    steppers,
)
from .errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit, WallLimit
from .explicit_time import check_factors
from .hazards import flag_below_resolution, warn_of_symmetry
from .integrators import trajectory, warmup
from .integrators.dop853 import Status
from .integrators.events import Event, events_kernel
from .integrators.jacobian import jacobian_for
from .integrators.referees import REFEREES, run_referee
from .kernels.gram import gram_matrices
from .kernels.kernel import check_dynamics, kernel, observables_kernel, start_observables
from .kernels.layout import Inputs, pack, packed_length, parameter_vector, read_inputs, unpack
from .numerical_error import error_summary
from .problem import Problem, Run
from .results import parameters_json, to_dataset

if TYPE_CHECKING:
    import xarray as xr

METHODS = (*OURS, *REFEREES)
HUGE = 1e100
"""An order parameter beyond this has diverged; the equations' cubes are still finite there."""
SDE_ONLY = ("dt", "runs", "rng", "brownian_dt", "threads")
"""Arguments that stochastic differential equations take besides."""


def integrate(
    dynamics: Dynamics | Fluctuations,
    t_span: tuple[float, float],
    y0: "Mapping[str, Any] | xr.Dataset",
    params: Mapping[str, Any],
    *,
    t_eval: Any = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    method: str | None = None,
    events: Sequence[Event | str] = (),
    max_steps: int = MAX_STEPS,
    max_step: float = math.inf,
    first_step: float | None = None,
    wall_limit: float | None = None,
    progress: bool = False,
    **more: Any,
) -> "xr.Dataset":
    """Solve the equations of motion from given initial order parameters.

    Differential equations as the arguments say. Of the other kinds (``dynamics.kind``) a map is iterated exactly, and
    its times are whole steps; a Volterra equation is solved, and formulas are evaluated, to ``rtol`` and ``atol``, from
    t = 0 on. These take no ``method``, ``events`` or limits of steps; their errors are stated in
    ``attrs["numerical_error"]``. A stochastic differential equation is sampled, by ``method="euler-maruyama"`` (the
    default), ``"milstein"`` or ``"weak2"``, in steps of length ``dt``; its
    solution has a dim ``run``. Tolerances other than the default ones, and limits without a meaning, are refused.

    Parameters
    ----------
    dynamics : Dynamics
        What ``model.dynamics()`` returns, or its ``.fluctuations()``: then the mean correction and the covariance of
        runs are solved with it, by :func:`effdyn.solve.fluctuations.integrate_fluctuations`.
    t_span : (float, float)
        From and to, in the dynamics' clock (``steps/d`` in the high-dimensional limit: examples per input dimension).
    y0 : dict or Dataset
        Initial value of each state: ``Q`` (K, K), ``R`` (K, M), and ``a`` (K,) or scalar where it is trained. A
        Dataset with the states at one time, such as ``solution.isel(t=-1)``, restarts from there.
    params : dict
        Value of each parameter: ``eta``, ``sigma``, ``T`` (M, M), ``b`` (M,) or scalar, …
    t_eval : array_like, optional
        Output times, (T,), from the solver's interpolant. ``None``: the solver's own steps.
    rtol, atol : float
        Local error per step: ``atol + rtol·|y|``. Errors grow along an escape from a plateau, by about 100; ``eg`` is
        not resolved below about 1000·rtol.
    method : str, optional
        By default DOP853. Compiled, with events: ``"DOP853"`` of order 8; ``"DOPRI5"`` of order 5, cheaper at ``rtol``
        of 1e-5 and more; ``"Adams"``, multistep of order up to 13, cheaper for systems of tens of components and more;
        ``"Radau5"``, implicit, for stiff equations; ``"auto"``: DOP853 where they are not stiff, Radau5 where they are,
        found out on the way. ``"scipy:DOP853"``, ``"scipy:LSODA"``, ``"scipy:odeint"``, ``"cyrk:DOP853"``, …: SciPy's,
        and CyRK's if installed, on the same compiled right-hand side, as referees; ``"heyoka:taylor"``, if installed,
        for small systems in closed form, shares no kernel with them; its tolerance is ``rtol``.
    events : sequence of Event or str
        Zeros to find, such as ``Event("eg - 1e-3", terminal=True)`` or ``"eg - 1e-3"``.
    max_steps, max_step, first_step, wall_limit :
        Limits: attempted steps, longest step, first step, seconds. SciPy's and CyRK's methods count only the steps that
        succeed; ``"heyoka:taylor"`` refuses ``max_steps`` and ``wall_limit``.
    progress : bool
        Whether to show a progress bar.
    **more :
        ``dt``, ``runs``, ``rng``, ``brownian_dt`` and ``threads``, of stochastic differential equations: see
        :func:`effdyn.solve.stochastic.integrate.integrate_sde`; ``initial`` and ``fluctuation_rtol``, of fluctuations.

    Returns
    -------
    xarray.Dataset
        Every state and observable with dim ``t``; with events, also ``t_event`` and ``event_name``. ``attrs`` say how
        it was computed: by ``"auto"``, ``switched`` holds, as JSON, the times at which one method gave way to the
        other. Where expectations are numerical, ``attrs["numerical_error"]`` holds, as JSON, the estimated error of
        each time derivative and observable at the first and the last time (see
        :func:`effdyn.solve.numerical_error`). Interrupted with Ctrl-C, the solution so far, with
        ``attrs["status"] == "interrupted"`` and a warning; SciPy's, CyRK's and heyoka's methods raise
        KeyboardInterrupt.

    Raises
    ------
    ModelError
        For a bad argument, naming it.
    Diverged, NotPositiveSemidefinite, StepLimit, WallLimit
        When the integration cannot go on; each carries the time, the state and the partial solution.

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn import derive, solve
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> params = dict(eta=0.5, sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
    >>> sol = solve.integrate(dyn, (0, 20), y0=dict(Q=[[0.5]], R=[[0.1]]), params=params)
    >>> bool(sol.eg[-1] < 1e-3 < sol.eg[0])
    True
    """
    limits: dict[str, Any] = {"max_step": max_step, "first_step": first_step, "wall_limit": wall_limit}
    if isinstance(dynamics, Fluctuations):
        from .fluctuations import integrate_fluctuations

        if method not in (None, "DOP853") or len(events):
            raise NotYet("method= and events= with fluctuations", "DOP853, which is theirs, and a look at the solution")
        refuse("nothing, with fluctuations: they have no such limits", max_steps=max_steps, **limits)
        return integrate_fluctuations(dynamics, t_span, y0, params, t_eval=t_eval, rtol=rtol, atol=atol, **more)
    check_dynamics(dynamics)
    span = checked_span(t_span)
    check_factors(dynamics, params, span)
    times = checked_times(t_eval, span)
    check_limits(rtol=rtol, atol=atol, max_steps=max_steps, **limits)
    found = events_of(events)
    check_more("integrate", dynamics.kind, more, SDE_ONLY)
    method = method_for(dynamics.kind, method)
    if dynamics.kind == "sde":
        from .stochastic.integrate import integrate_sde

        if found or wall_limit is not None:
            raise NotYet("events= and wall_limit= with equations of kind 'sde'", "max_steps=, and a look at the paths")
        refuse_of_sde(rtol=rtol, atol=atol, **limits)
        options = {"t_eval": times, "max_steps": max_steps, "progress": progress, "method": method, **more}
        return integrate_sde(dynamics, span, y0, params, **options)
    if dynamics.kind != "ode":
        refuse(f"nothing, with equations of kind {dynamics.kind!r}: their steps are their own", **limits)
        given = _Call(dynamics, span, y0, params, times, rtol, atol)
        return _without_steps_of_our_own(given, method, found, progress)
    check_method(method, METHODS)
    if found and method not in OURS:
        raise NotYet(f"events= with method={method!r}", f"events with one of {', '.join(OURS)}")
    inputs = read_inputs(dynamics, y0, params)
    if method in ("DOP853", "auto") and warmup.start() is None:  # else it has the other processor
        start_observables(dynamics)
    warn_of_symmetry(dynamics, inputs)
    rhs = kernel(dynamics, inputs.sizes)
    problem = Problem(
        dynamics,
        inputs,
        rhs,
        parameter_vector(dynamics, inputs),
        pack(dynamics.states, inputs.y0),
    )
    options = {"rtol": rtol, "atol": atol, "max_steps": max_steps, **limits}
    if method in OURS:
        run = _ours(problem, span, times, found, options, method, progress)
    else:
        run = run_referee(method, problem, span, times, options)
    attrs = {"y0": parameters_json(inputs.y0), "method": method, "rtol": rtol, "atol": atol}
    solution = _finish(problem, run, span, attrs)
    certification.check()
    if dynamics.tables and len(run.t):
        solution.attrs["numerical_error"] = error_summary(dynamics, inputs, run.t, run.y)
    return solution


@dataclass(frozen=True, slots=True)
class _Call:
    """What was asked for, of equations that are not differential."""

    dynamics: Dynamics
    span: tuple[float, float]
    y0: Any
    params: Mapping[str, Any]
    times: np.ndarray | None
    rtol: float
    atol: float


def _without_steps_of_our_own(call: _Call, method: str, events: Any, progress: bool) -> "xr.Dataset":
    """Solve a map, a Volterra equation or a formula, each by the one method that there is for it."""
    kind = call.dynamics.kind
    if method != "DOP853":
        raise ModelError("method", method, f"nothing: there is one method for equations of kind {kind!r}")
    if len(events):
        raise NotYet(f"events= with equations of kind {kind!r}", "events with differential equations")
    given = (call.dynamics, call.span, call.y0, call.params, call.times)
    if kind == "map":
        from .maps import iterate_map

        with _progress_bar(call.span, progress) as tick:
            return iterate_map(*given, tick)
    if kind == "volterra":
        from .volterra import integrate_volterra

        return integrate_volterra(*given, call.rtol, call.atol)
    from .formula import evaluate_formulas

    return evaluate_formulas(*given, call.rtol, call.atol)


def _ours(
    problem: Problem,
    span: tuple[float, float],
    times: np.ndarray | None,
    events: list[Event],
    options: dict[str, Any],
    method: str,
    progress: bool,
) -> Run:
    address = 0
    n_work = problem.n_work
    facts: dict[str, Any] = {}
    if method in ("Radau5", "auto"):
        slopes, facts["jacobian"] = jacobian_for(method, problem.dynamics)
        if slopes:
            options = {**options, "jacobian_address": slopes.address}
            n_work = max(n_work, slopes.workspace_size(problem.inputs.sizes))
    if events:
        compiled = events_kernel(problem.dynamics, events, problem.inputs.sizes)
        address, n_work = compiled.address, max(n_work, compiled.workspace_size(problem.inputs.sizes))
    if problem.dynamics.observables:
        observables_kernel(problem.dynamics)  # compiled before the wait
    if method in ("DOP853", "auto"):
        warmup.wait()
    options = {**options, **steppers(method)}
    with _progress_bar(span, progress) as tick:
        r = trajectory.compute_trajectory(
            problem.rhs.address,
            problem.y0,
            span,
            problem.par,
            n_work,
            t_eval=times,
            events_address=address,
            event_directions=[e.direction for e in events],
            event_terminal=[e.terminal for e in events],
            on_progress=tick,
            **options,
        )
    stopped = {Status.SUCCESS: "", Status.EVENT: "event"}.get(r.status, r.status.name.lower())
    facts |= {"status": stopped or "success", "n_steps": r.n_steps, "n_rejected": r.n_rejected, "n_rhs": r.n_rhs}
    if method == "auto":
        facts["switched"] = json.dumps(r.switched)
    if r.interrupted:
        facts["status"] = stopped = "interrupted"
    return Run(r.t, r.y, stopped, facts, (r.t_event, [events[i].name for i in r.i_event]) if events else None)


def _finish(problem: Problem, run: Run, span: tuple[float, float], attrs: dict[str, Any]) -> "xr.Dataset":
    """Return the dataset, or raise what stopped the run, or what is wrong with the states that it went through."""
    valid = _valid_until(problem, run, attrs)
    bad = len(valid)
    solution = _dataset(problem, run, bad, attrs)
    if bad < len(run.t) or run.stopped in ("not_finite", "step_too_small", "step_limit", "wall_limit"):
        raise _failure(problem, run, bad, span, solution)
    if run.stopped == "interrupted":
        warnings.warn(
            f"interrupted at t = {run.t[-1] if len(run.t) else span[0]:.6g}; the solution so far is returned",
            RuntimeWarning,
            stacklevel=3,
        )
    _warn_of_undefined(problem, solution)
    flag_below_resolution(solution, attrs["rtol"], attrs["atol"], stacklevel=4)
    return solution


def _warn_of_undefined(problem: Problem, solution: "xr.Dataset") -> None:
    """Warn of observables without a value at states that have one: overlaps that are slightly inadmissible.

    Cosines are not counted: that of a vector of length zero has none.
    """
    for q in (e.quantity for e in problem.dynamics.observables if not e.quantity.indices and not _is_partial(e.expr)):
        undefined = np.isnan(solution[q.name].values)
        if undefined.any():
            first = float(solution.t.values[undefined][0])
            warnings.warn(
                f"{q.name} is not defined at {undefined.sum()} of {undefined.size} times, first at t = {first:.6g}, "
                "where errors of integration have taken the overlaps out of the admissible ones: give a smaller rtol",
                RuntimeWarning,
                stacklevel=4,
            )


def _is_partial(expr: sympy.Expr) -> bool:
    """Return whether an expression has no value where its conditions do not hold: a floor where training diverges."""
    return isinstance(expr, sympy.Piecewise) and expr.args[-1].cond != sympy.true


def _valid_until(problem: Problem, run: Run, attrs: dict[str, Any]) -> np.ndarray:
    """Return the times up to the first state that no vectors have, by more than the integration error."""
    finite = np.isfinite(run.y).all(axis=1) & (np.abs(run.y) < HUGE).all(axis=1)
    n = len(run.t) if finite.all() else int(np.argmin(finite))
    arrays = unpack(problem.dynamics.states, run.y[:n], problem.inputs.sizes)
    gram = gram_matrices(problem.dynamics, problem.inputs.params | arrays)
    if gram is None or not n:
        return run.t[:n]
    eigenvalues = np.linalg.eigvalsh(gram).reshape(n, -1, gram.shape[-1])  # of each block, if there are any
    # Errors grow along the escape from a plateau, by 100 in sound runs; 1e4 is beyond that.
    slack = min(1e4 * attrs["rtol"], 0.05) * np.abs(eigenvalues).max(axis=2) + 1e4 * attrs["atol"]
    sound = (eigenvalues[:, :, 0] >= -slack).all(axis=1)
    return run.t[: n if sound.all() else int(np.argmin(sound))]


def _failure(
    problem: Problem, run: Run, bad: int, span: tuple[float, float], solution: "xr.Dataset"
) -> IntegrationError:
    last = run.y[bad - 1] if bad else problem.y0
    t = float(run.t[bad - 1]) if bad else span[0]
    state = unpack(problem.dynamics.states, last, problem.inputs.sizes)
    if bad < len(run.t) and np.isfinite(run.y[bad]).all() and (np.abs(run.y[bad]) < HUGE).all():
        return NotPositiveSemidefinite(
            f"the overlap matrix is no longer positive semidefinite at t = {run.t[bad]:.6g}: "
            "lower rtol, or check the equations",
            t,
            state,
            solution,
        )
    if run.stopped == "step_limit":
        return StepLimit(
            f"more than max_steps steps are needed to reach t = {span[1]:g}: raise max_steps, or loosen rtol",
            t,
            state,
            solution,
        )
    if run.stopped == "wall_limit":
        return WallLimit(f"wall_limit was reached before t = {span[1]:g}", t, state, solution)
    return Diverged(_divergence(problem, run, t, span), t, state, solution)


def _divergence(problem: Problem, run: Run, t: float, span: tuple[float, float]) -> str:
    """Return what a divergence may come from, as far as it is known."""
    steps = int(run.facts.get("n_steps", 0))
    if t == span[0] and steps == 0:
        return "the equations are not finite at the initial state, or no step is small enough"
    since = "" if t != span[0] else f", after {steps} steps and before the first time that was to be saved"
    if any(q.name == "eta" for q in problem.dynamics.parameters):
        return f"the order parameters diverge{since}: a smaller learning rate may keep them finite"
    return f"the solution diverges{since}, or a hypothesis of the equations ends to hold: see dynamics.assumptions"


def _dataset(problem: Problem, run: Run, n: int, attrs: dict[str, Any]) -> "xr.Dataset":
    dynamics, sizes = problem.dynamics, problem.inputs.sizes
    states = unpack(dynamics.states, run.y[:n], sizes)
    solution = to_dataset(
        dynamics,
        run.t[:n],
        states,
        observe(dynamics, problem.inputs, run.t[:n], run.y[:n]),
        problem.inputs.params,
        attrs | run.facts,
    )
    if run.events is not None:
        solution = solution.assign(
            t_event=("event", run.events[0]), event_name=("event", np.array(run.events[1], dtype=object))
        )
    return solution


def observe(dynamics: Dynamics, inputs: Inputs, t: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return the observables, by name, at packed states ``y`` of shape (T, n)."""
    if not dynamics.observables:
        return {}
    compiled = observables_kernel(dynamics)
    par = parameter_vector(dynamics, inputs)
    work = np.zeros(compiled.workspace_size(inputs.sizes))
    y = np.ascontiguousarray(y)
    out = np.empty((len(t), sum(packed_length(q, inputs.sizes) for q in compiled.outputs)))
    f, par_at, work_at = compiled.function, par.ctypes.data, work.ctypes.data
    for n, time in enumerate(t):
        f(time, y.ctypes.data + n * y.strides[0], out.ctypes.data + n * out.strides[0], par_at, work_at)
    return unpack(compiled.outputs, out, inputs.sizes)


# -- progress ----------------------------------------------------------------------------------------------------------


@contextmanager
def _progress_bar(span: tuple[float, float], show: bool) -> Iterator[Callable[[float], object] | None]:
    """Show a bar over the time integrated, or nothing; gives the function to be told the time reached."""
    if not show:
        yield None
        return
    from tqdm.auto import tqdm

    form = "{l_bar}{bar}| t = {n:.4g}/{total:.4g} [{elapsed}<{remaining}]"
    with tqdm(total=abs(span[1] - span[0]), bar_format=form) as bar:
        yield lambda t: bar.update(abs(t - span[0]) - bar.n)
