"""``integrate_fluctuations``: equations of motion with the mean correction and covariance of runs at finite d."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import ModelError, Quantity
from effdyn.derive.fluctuations import Fluctuations
from effdyn.derive.numerical.joint import REPLICATES

from ..errors import Diverged, IntegrationError
from ..integrate import integrate
from ..integrators.dop853 import Status
from ..integrators.trajectory import compute_trajectory
from ..kernels.layout import Inputs, pack, packed_length, read_inputs, unpack
from ..results import variable
from ..stability.flow import Flow
from .error import COARSE, diffusion_error, rate_errors
from .observables import carried_over
from .problem import derivatives_of_drift, problem, settled
from .rhs import System, rhs_address
from .start import initial_covariance
from .table import square, tabulated

if TYPE_CHECKING:
    import xarray as xr

INITIAL = ("exact", "random")


def integrate_fluctuations(
    theory: Fluctuations,
    t_span: tuple[float, float],
    y0: "Mapping[str, Any] | xr.Dataset",
    params: Mapping[str, Any],
    *,
    t_eval: Any = None,
    initial: str = "exact",
    rtol: float = 1e-10,
    atol: float = 1e-12,
    fluctuation_rtol: float = 1e-7,
) -> "xr.Dataset":
    """Solve the equations of motion, and those of the fluctuations of runs around them to order 1/d.

    At input dimension d the mean over runs is ``Q + Q_mean_correction/d`` and the variance ``Q_variance/d``, up to the
    next order; likewise for every state and every observable. It holds up to the exit from a plateau, after
    which the times of escape scatter.

    Parameters
    ----------
    theory : Fluctuations
        What ``dynamics.fluctuations()`` returns.
    t_span, y0, params, t_eval, rtol, atol :
        As for :func:`effdyn.solve.integrate`.
    initial : {"exact", "random"}
        Initial weights, as ``validate.simulate(init=…)`` takes them: with exactly the overlaps ``y0``, which then do
        not fluctuate; or random given the teacher, with the overlaps ``y0`` in the mean.
    fluctuation_rtol : float
        Tolerance, relative and absolute, of mean correction and covariance.

    Returns
    -------
    xarray.Dataset
        What :func:`effdyn.solve.integrate` returns, and for each state and observable X: ``X_mean_correction``
        and ``X_variance``, of the shape of X; ``covariance`` (t, coordinate, coordinate_2) of all independent states.
        All are to be divided by d. ``attrs["diffusion_interpolation_error"]``: see :func:`tabulated`;
        ``attrs["derivatives"]``: how those of the drift were had, exactly or as differences.
        ``attrs["diffusion_rule_error"]``: see :func:`.error.diffusion_error`, at the last time.
        ``attrs["mean_rate_error"]``, ``["covariance_rate_error"]``: see :func:`.error.rate_errors`.
        With momentum of a fixed β buffers are zero at the first time; of a mean correction, what they add within
        1/(1 − β) steps is there at all later times.
        Interrupted with Ctrl-C, the solution so far, with ``attrs["status"] == "interrupted"`` and a warning.

    Raises
    ------
    ModelError
        For a bad argument, naming it.
    IntegrationError
        As :func:`effdyn.solve.integrate`; :class:`Diverged` also where fluctuations grow without bound.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> from effdyn.solve.fluctuations import integrate_fluctuations
    >>> theory = derive.TeacherStudent(activation="linear").dynamics().fluctuations()
    >>> params = dict(eta=0.5, sigma=0.1, T=[[1.0]], a=1.0, b=1.0)
    >>> sol = integrate_fluctuations(theory, (0, 5), y0=dict(Q=[[0.3]], R=[[0.1]]), params=params, t_eval=[0, 5])
    >>> sol.eg_variance.dims, float(sol.eg_variance[0])
    (('t',), 0.0)
    """
    if not isinstance(theory, Fluctuations):
        raise ModelError("theory", theory, "what dynamics.fluctuations() returns")
    if initial not in INITIAL:
        raise ModelError("initial", initial, f"one of {', '.join(map(repr, INITIAL))}")
    if not t_span[1] > t_span[0]:
        raise ModelError("t_span", t_span, "a later time to integrate to: runs scatter forwards")
    given: dict[str, Any] = {"y0": y0, "params": params, "rtol": rtol, "atol": atol}
    solution = _limit(theory, t_span, t_eval=t_eval, **given)
    inputs = read_inputs(theory.dynamics, y0, params)
    n = sum(packed_length(q, inputs.sizes) for q in theory.dynamics.states)
    start = np.concatenate(
        [pack(theory.dynamics.states, inputs.y0), np.zeros(n), _upper(initial_covariance(theory, inputs, initial))]
    )
    system = problem(theory, inputs)
    times, states = _trajectory(theory, t_span, given)
    par, spline_error = tabulated(system, times, states)
    run = compute_trajectory(
        rhs_address(),
        start,
        t_span,
        par,
        system.n_work,
        t_eval=solution.t.values,
        rtol=fluctuation_rtol,
        atol=fluctuation_rtol,
    )
    if run.interrupted:
        solution = _until_interrupted(solution, len(run.t))
    elif run.status != Status.SUCCESS or not np.isfinite(run.y).all():
        raise _failure(theory, run, solution)
    y, mean, covariance = run.y[:, :n], run.y[:, n : 2 * n], square(run.y[:, 2 * n :], n)
    if theory.offset:
        mean = mean + settled(theory, inputs, solution.t.values[: len(y)], y, t_span[0])
    known = [*_of_states(theory, inputs, mean, covariance), *carried_over(theory, inputs, y, mean, covariance)]
    names = Flow(theory.dynamics, inputs).coordinates
    found = {
        **{name: content for q, *values in known for name, content in _labelled(q, *values).items()},
        "covariance": (("t", "coordinate", "coordinate_2"), covariance, {"long_name": "d times covariance of states"}),
    }
    solution = solution.assign(found).assign_coords(coordinate=names, coordinate_2=names)
    facts = {"fluctuations": "mean corrections and variances, to be divided by d", "initial": initial}
    facts["derivatives"] = derivatives_of_drift(system)
    errors = _errors(theory, inputs, system, run) | {"diffusion_interpolation_error": spline_error}
    return solution.assign_attrs(facts | errors)


def _errors(theory: Fluctuations, inputs: Inputs, system: System, run: Any) -> dict[str, float]:
    """Return how exactly the rates of mean correction and covariance are known, and warn if that is not much."""
    others = [problem(theory, inputs, shift=shift) for shift in range(1, REPLICATES)]
    mean, covariance = rate_errors(system, replace(others[0], step=1.5 * system.step), run.t, run.y)
    if max(mean, covariance) > COARSE:
        found = f"{mean:.1g} of mean corrections and {covariance:.1g} of variances"
        warnings.warn(f"the rates of fluctuations have relative errors of {found}", RuntimeWarning, stacklevel=4)
    noise = diffusion_error([system, *others], run.t[-1:], run.y[-1:, : system.n])
    return {"mean_rate_error": mean, "covariance_rate_error": covariance, "diffusion_rule_error": noise}


def _limit(theory: Fluctuations, t_span: tuple[float, float], **given: Any) -> "xr.Dataset":
    """Return the solution of the equations of motion; what of it there is at Ctrl-C has no fluctuations to go with."""
    solution = integrate(theory.dynamics, t_span, **given)
    if solution.attrs["status"] == "interrupted":
        raise KeyboardInterrupt
    return solution


def _until_interrupted(solution: "xr.Dataset", count: int) -> "xr.Dataset":
    """Return the solution as far as its fluctuations are known."""
    if not count:
        raise KeyboardInterrupt
    found = solution.isel(t=slice(count)).assign_attrs(status="interrupted")
    warnings.warn(
        f"interrupted at t = {float(found.t[-1]):.6g}; the solution so far is returned", RuntimeWarning, stacklevel=3
    )
    return found


def _trajectory(
    theory: Fluctuations, t_span: tuple[float, float], given: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return times in fourths of the solver's own steps, and the packed states at them."""
    own = np.union1d(_limit(theory, t_span, **given).t.values, np.linspace(*t_span, 5))
    times = np.unique(np.interp(np.arange(0, len(own) - 0.9, 0.25), np.arange(len(own)), own))
    solution = _limit(theory, t_span, t_eval=times, **given)
    arrays = {q.name: solution[q.name].values for q in theory.dynamics.states}
    rows = ({name: values[i] for name, values in arrays.items()} for i in range(len(times)))
    states = [pack(theory.dynamics.states, row) for row in rows]
    return times, np.array(states)


def _upper(square: np.ndarray) -> np.ndarray:
    return np.asarray(square[np.triu_indices(len(square))])


def _of_states(
    theory: Fluctuations, inputs: Inputs, mean: np.ndarray, covariance: np.ndarray
) -> list[tuple[Quantity, np.ndarray, np.ndarray]]:
    """Return each state with its mean correction and variance."""
    states = theory.dynamics.states
    means = unpack(states, mean, inputs.sizes)
    variances = unpack(states, np.diagonal(covariance, axis1=1, axis2=2), inputs.sizes)
    return [(q, means[q.name], variances[q.name]) for q in states]


def _labelled(q: Quantity, mean: np.ndarray, variance: np.ndarray) -> dict[str, Any]:
    dims, values, _ = variable(q, mean, ("t",))
    return {
        f"{q.name}_mean_correction": (dims, values, {"long_name": f"d times (mean − limit) of {q.name}"}),
        f"{q.name}_variance": (dims, variance, {"long_name": f"d times variance of {q.name}"}),
    }


def _failure(theory: Fluctuations, run: Any, solution: "xr.Dataset") -> IntegrationError:
    """Return the error of fluctuations that do not reach the last time; the solution has the limit in full."""
    sound = int(np.isfinite(run.y).all(axis=1).sum())
    at = max(sound - 1, 0)
    state = {q.name: solution[q.name].values[at] for q in theory.dynamics.states}
    t = float(solution.t[at])
    reason = f"their integration ends after t = {t:.6g} ({run.status.name.lower()})"
    return Diverged(f"mean correction and covariance are not finite, or {reason}", t, state, solution)
