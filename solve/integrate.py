"""``solve.integrate``: one trajectory of a Dynamics, as a labelled dataset."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, NotYet
from effdyn.derive.errors import nearest

from . import certification, warmup
from . import dop853 as _dop853
from .errors import Diverged, IntegrationError, NotPositiveSemidefinite, StepLimit, WallLimit
from .events import Event, events_kernel
from .kernel import Kernel, check_dynamics, kernel, observables_kernel
from .layout import Inputs, gram_matrix, pack, packed_length, parameter_vector, read_inputs, unpack
from .numerical_error import error_summary
from .results import parameters_json, to_dataset

if TYPE_CHECKING:
    import xarray as xr

SCIPY_METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA", "odeint")
METHODS = ("DOP853", *(f"scipy:{m}" for m in SCIPY_METHODS))
HUGE = 1e100
"""An order parameter beyond this has diverged; the equations' cubes are still finite there."""


def integrate(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: "Mapping[str, Any] | xr.Dataset",
    params: Mapping[str, Any],
    *,
    t_eval: Any = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    method: str = "DOP853",
    events: Sequence[Event | str] = (),
    max_steps: int = 1_000_000,
    max_step: float = math.inf,
    first_step: float | None = None,
    wall_limit: float | None = None,
    progress: bool = False,
) -> "xr.Dataset":
    """Solve the equations of motion from given initial order parameters.

    Differential equations as the arguments say. Of the other kinds (``dynamics.kind``) a map is iterated exactly, and
    its times are whole steps; a Volterra equation is solved, and formulas are evaluated, to ``rtol`` and ``atol``, from
    t = 0 on. These take no ``method``, ``events`` or limits of steps; their errors are stated in
    ``attrs["numerical_error"]``.

    Parameters
    ----------
    dynamics : Dynamics
        What ``model.dynamics()`` returns.
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
    method : str
        ``"DOP853"``: compiled, adaptive, order 8. ``"scipy:DOP853"``, ``"scipy:LSODA"``, ``"scipy:odeint"``, …:
        SciPy's, on the same compiled right-hand side, as referees.
    events : sequence of Event or str
        Zeros to find, such as ``Event("eg - 1e-3", terminal=True)`` or ``"eg - 1e-3"``.
    max_steps, max_step, first_step, wall_limit :
        Limits: attempted steps, longest step, first step, seconds.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        Every state and observable with dim ``t``; with events, also ``t_event`` and ``event_name``. Where expectations
        are numerical, ``attrs["numerical_error"]`` holds, as JSON, the estimated error of each time derivative and
        observable at the first and the last time (see :func:`effdyn.solve.numerical_error`). Interrupted with Ctrl-C,
        the solution so far, with ``attrs["status"] == "interrupted"`` and a warning.

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
    check_dynamics(dynamics)
    span = _checked_span(t_span)
    times = _checked_times(t_eval, span)
    _check_numbers(
        rtol=rtol, atol=atol, max_steps=max_steps, **({} if wall_limit is None else {"wall_limit": wall_limit})
    )
    if dynamics.kind != "ode":
        given = _Call(dynamics, span, y0, params, times, rtol, atol)
        return _without_steps_of_our_own(given, method, events, progress)
    inputs = read_inputs(dynamics, y0, params)
    found = [
        e if isinstance(e, Event) else Event(e) for e in ([events] if isinstance(events, (str, Event)) else events)
    ]
    if method == "DOP853":
        warmup.start()
    rhs = kernel(dynamics)
    problem = _Problem(
        dynamics,
        inputs,
        rhs,
        parameter_vector(dynamics, inputs),
        pack(dynamics.states, inputs.y0),
    )
    options = {"rtol": rtol, "atol": atol, "max_step": max_step, "first_step": first_step}
    if method == "DOP853":
        run = _ours(
            problem, span, times, found, {**options, "max_steps": max_steps, "wall_limit": wall_limit}, progress
        )
    elif method in METHODS:
        if found:
            raise NotYet(f"events= with method={method!r}", "events with method='DOP853'")
        run = _scipy(problem, span, times, method.removeprefix("scipy:"), options)
    else:
        if str(method).startswith("cyrk:"):
            raise NotYet(f"method={method!r}", f"one of {', '.join(METHODS)}")
        raise ModelError("method", method, f"one of {', '.join(METHODS)}{_nearest_method(str(method))}")
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


@dataclass(frozen=True, slots=True)
class _Problem:
    """What every method integrates: the compiled right-hand side with its parameters and initial state, packed."""

    dynamics: Dynamics
    inputs: Inputs
    rhs: Kernel
    par: np.ndarray
    y0: np.ndarray

    @property
    def n_work(self) -> int:
        return self.rhs.workspace_size(self.inputs.sizes)


@dataclass(frozen=True, slots=True)
class _Run:
    """What a method produced: times, packed states, why it stopped (empty: it arrived), facts for the attributes."""

    t: np.ndarray
    y: np.ndarray
    stopped: str
    facts: dict[str, Any]
    events: tuple[np.ndarray, list[str]] | None = None


def _ours(
    problem: _Problem,
    span: tuple[float, float],
    times: np.ndarray | None,
    events: list[Event],
    options: dict[str, Any],
    progress: bool,
) -> _Run:
    address = 0
    n_work = problem.n_work
    if events:
        compiled = events_kernel(problem.dynamics, events, problem.inputs.sizes)
        address, n_work = compiled.address, max(n_work, compiled.workspace_size(problem.inputs.sizes))
    if problem.dynamics.observables:
        observables_kernel(problem.dynamics)  # compiled before the wait
    warmup.wait()
    with _progress_bar(span, progress) as tick:
        r = _dop853.dop853(
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
    Status = _dop853.Status
    stopped = {Status.SUCCESS: "", Status.EVENT: "event"}.get(r.status, r.status.name.lower())
    facts = {"status": stopped or "success", "n_steps": r.n_steps, "n_rejected": r.n_rejected, "n_rhs": r.n_rhs}
    if r.interrupted:
        facts["status"] = stopped = "interrupted"
    return _Run(r.t, r.y, stopped, facts, (r.t_event, [events[i].name for i in r.i_event]) if events else None)


def _scipy(
    problem: _Problem, span: tuple[float, float], times: np.ndarray | None, name: str, options: dict[str, Any]
) -> _Run:
    from scipy.integrate import odeint, solve_ivp

    f, work, out = problem.rhs.function, np.zeros(problem.n_work), np.empty_like(problem.y0)
    par_at, work_at, out_at = problem.par.ctypes.data, work.ctypes.data, out.ctypes.data

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        y = np.ascontiguousarray(y, dtype=float)  # SciPy's numerical Jacobian hands over columns of a matrix
        f(t, y.ctypes.data, out_at, par_at, work_at)
        return out.copy()

    options = {k: v for k, v in options.items() if v is not None}
    if name == "odeint":
        grid = np.linspace(*span, 101) if times is None else times
        start = np.concatenate([[span[0]], grid]) if grid[0] != span[0] else grid
        y, info = odeint(
            rhs,
            problem.y0,
            start,
            tfirst=True,
            rtol=options["rtol"],
            atol=options["atol"],
            full_output=True,
            mxstep=100_000,
        )
        stopped = "" if info["message"] == "Integration successful." else "step_limit"
        return _Run(
            grid,
            y[len(start) - len(grid) :],
            stopped,
            {"status": stopped or "success", "n_rhs": int(info["nfe"][-1])},
            None,
        )
    r = solve_ivp(rhs, span, problem.y0, method=name, t_eval=times, **options)
    stopped = "" if r.status == 0 else "step_too_small"
    return _Run(r.t, r.y.T, stopped, {"status": stopped or "success", "n_rhs": int(r.nfev)})


def _finish(problem: _Problem, run: _Run, span: tuple[float, float], attrs: dict[str, Any]) -> "xr.Dataset":
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
    return solution


def _warn_of_undefined(problem: _Problem, solution: "xr.Dataset") -> None:
    """Warn of observables without a value at states that have one: overlaps that are slightly inadmissible.

    Cosines are not counted: that of a vector of length zero has none.
    """
    for q in (e.quantity for e in problem.dynamics.observables if not e.quantity.indices):
        undefined = np.isnan(solution[q.name].values)
        if undefined.any():
            first = float(solution.t.values[undefined][0])
            warnings.warn(
                f"{q.name} is not defined at {undefined.sum()} of {undefined.size} times, first at t = {first:.6g}, "
                "where errors of integration have taken the overlaps out of the admissible ones: give a smaller rtol",
                RuntimeWarning,
                stacklevel=4,
            )


def _valid_until(problem: _Problem, run: _Run, attrs: dict[str, Any]) -> np.ndarray:
    """Return the times up to the first state that no vectors have, by more than the integration error."""
    finite = np.isfinite(run.y).all(axis=1) & (np.abs(run.y) < HUGE).all(axis=1)
    n = len(run.t) if finite.all() else int(np.argmin(finite))
    arrays = unpack(problem.dynamics.states, run.y[:n], problem.inputs.sizes)
    gram = gram_matrix(problem.dynamics, problem.inputs.params | arrays)
    if gram is None or not n:
        return run.t[:n]
    eigenvalues = np.linalg.eigvalsh(gram)
    # Errors grow along the escape from a plateau, by 100 in sound runs; 1e4 is beyond that.
    slack = min(1e4 * attrs["rtol"], 0.05) * np.abs(eigenvalues).max(axis=1) + 1e4 * attrs["atol"]
    sound = eigenvalues[:, 0] >= -slack
    return run.t[: n if sound.all() else int(np.argmin(sound))]


def _failure(
    problem: _Problem, run: _Run, bad: int, span: tuple[float, float], solution: "xr.Dataset"
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
    if t == span[0]:
        return Diverged(
            "the equations are not finite at the initial state, or no step is small enough", t, state, solution
        )
    return Diverged("the order parameters diverge: a smaller learning rate may keep them finite", t, state, solution)


def _dataset(problem: _Problem, run: _Run, n: int, attrs: dict[str, Any]) -> "xr.Dataset":
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


# -- checks and progress -----------------------------------------------------------------------------------------------


def _nearest_method(method: str) -> str:
    same = [m for m in METHODS if method.lower() in (m.lower(), m.removeprefix("scipy:").lower())]
    return f", did you mean {same[0]!r}?" if same else nearest(method, METHODS)


def _checked_span(t_span: tuple[float, float]) -> tuple[float, float]:
    try:
        start, stop = map(float, t_span)
    except (TypeError, ValueError):
        raise ModelError("t_span", t_span, "two times, (from, to)") from None
    if not (math.isfinite(start) and math.isfinite(stop)) or start == stop:
        raise ModelError("t_span", t_span, "two different finite times")
    return start, stop


def _checked_times(t_eval: Any, span: tuple[float, float]) -> np.ndarray | None:
    if t_eval is None:
        return None
    try:
        times = np.atleast_1d(np.asarray(t_eval, dtype=float))
    except (TypeError, ValueError):
        raise ModelError("t_eval", t_eval, "increasing times") from None
    low, high = sorted(span)
    order = np.diff(times) * np.sign(span[1] - span[0])
    if (
        times.ndim != 1
        or not len(times)
        or not np.isfinite(times).all()
        or (order <= 0).any()
        or times.min() < low
        or times.max() > high
    ):
        raise ModelError("t_eval", t_eval, f"increasing times within t_span = {span}")
    return times


def _check_numbers(**limits: float) -> None:
    for name, value in limits.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ModelError(name, value, "a positive number")
    if limits.get("rtol", 1.0) < _dop853.RTOL_MIN:
        raise ModelError(
            "rtol", limits["rtol"], f"at least {_dop853.RTOL_MIN:g}: below, rounding errors exceed the tolerance"
        )


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
