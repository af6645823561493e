"""``integrate_fluctuations``: equations of motion with the mean correction and covariance of runs at finite d."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.fluctuations import Fluctuations
from effdyn.derive.numerical.rules import joint_rule

from .errors import Diverged, IntegrationError
from .fluctuations_error import rate_errors
from .fluctuations_lanes import derivatives_address
from .fluctuations_observables import carried_over
from .fluctuations_rhs import System, averages_at, rhs_address, work_size
from .fluctuations_step import step_for
from .integrate import integrate
from .integrators.dop853 import Status
from .integrators.trajectory import compute_trajectory
from .kernels.gram import gram_matrix
from .kernels.kernel import kernel, observables_kernel
from .kernels.layout import Inputs, at_level, pack, packed_length, parameter_vector, read_inputs, unpack
from .kernels.memory import node_sizes
from .kernels.unroll import LONGEST
from .results import variable
from .stability.flow import Flow

if TYPE_CHECKING:
    import xarray as xr

INITIAL = ("exact", "random")
LEVEL = 0
"""Of the rule over the fields of an example: about 1e-5 of D for up to three fields, 1e-3 beyond."""


LEVEL_OF_KINKS = 1
"""Of the rule where increments have kinks."""
SPLINE = 1e-4
"""Relative error of the interpolated diffusion matrix at which no more of it is computed: below that of D itself."""
COARSE = 0.02
"""Relative error of rates from which on a warning says it: runs that are compared rarely know variances better."""


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
        ``"mean_rate_error"``, ``"covariance_rate_error"``: see :func:`.fluctuations_error.rate_errors`.
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
    y, mean, covariance = run.y[:, :n], run.y[:, n : 2 * n], _square(run.y[:, 2 * n :], n)
    known = [*_of_states(theory, inputs, mean, covariance), *carried_over(theory, inputs, y, mean, covariance)]
    names = Flow(theory.dynamics, inputs).coordinates
    found = {
        **{name: content for q, *values in known for name, content in _labelled(q, *values).items()},
        "covariance": (("t", "coordinate", "coordinate_2"), covariance, {"long_name": "d times covariance of states"}),
    }
    solution = solution.assign(found).assign_coords(coordinate=names, coordinate_2=names)
    facts = {"fluctuations": "mean corrections and variances, to be divided by d", "initial": initial}
    errors = _errors(theory, inputs, system, run)
    return solution.assign_attrs(facts, diffusion_interpolation_error=spline_error, **errors)


def _errors(theory: Fluctuations, inputs: Inputs, system: System, run: Any) -> dict[str, float]:
    """Return how exactly the rates of mean correction and covariance are known, and warn if that is not much."""
    other = replace(problem(theory, inputs, shift=1), step=1.5 * system.step)
    mean, covariance = rate_errors(system, other, run.t, run.y)
    if max(mean, covariance) > COARSE:
        found = f"{mean:.1g} of mean corrections and {covariance:.1g} of variances"
        warnings.warn(f"the rates of fluctuations have relative errors of {found}", RuntimeWarning, stacklevel=4)
    return {"mean_rate_error": mean, "covariance_rate_error": covariance}


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


def problem(theory: Fluctuations, inputs: Inputs, level: int | None = None, shift: int = 0) -> System:
    """Return what the compiled right-hand side needs to know; ``level`` and ``shift`` are those of D's rule."""
    dynamics = theory.dynamics
    drift = kernel(dynamics, inputs.sizes)
    derivatives = 0
    if theory.tangent:
        derivatives = derivatives_address(dynamics, tuple(inputs.sizes[str(size)] for size in dynamics.sizes))
    tangent = None if derivatives or not theory.tangent else kernel(theory.tangent)
    kernels = [drift, tangent, kernel(theory.correction), observables_kernel(theory.increment)]
    n = sum(packed_length(q, inputs.sizes) for q in dynamics.states)
    full_of = np.concatenate([np.ravel(a) for a in unpack(dynamics.states, np.arange(float(n)), inputs.sizes).values()])
    n_sizes = len(dynamics.sizes)
    gram_of = _places_of_covariances(theory, inputs, n_sizes)
    own, corrections = (_parameters(part, inputs, shift) for part in (dynamics, theory.correction))
    noisy = inputs.params.get("sigma", 0.0) > 0
    nodes, weights = _rule(theory, len(gram_of), theory.noise_nodes if noisy else 1, level, shift)
    inner = max(LONGEST, *(k.workspace_size(inputs.sizes) for k in kernels if k))
    pairs, n_kicks = _kicks(theory, inputs)
    n_work = work_size(n, len(full_of), len(gram_of), len(own), n_kicks, inner)
    return System(
        addresses=(*(k.address if k else 0 for k in kernels), derivatives),
        n=n,
        full_of=full_of,
        gram_of=gram_of,
        active=sum(inputs.sizes[str(f.size)] for f in theory.active),
        drift_par=own,
        correction_par=corrections,
        sizes=n_sizes,
        extra_sizes=len(node_sizes(dynamics.tables)),
        nodes=nodes,
        weights=weights,
        batch=float(inputs.params[str(theory.batch)]) if theory.batch.free_symbols else 1.0,
        pairs=pairs,
        n_kicks=n_kicks,
        labelled=theory.labelled,
        step=step_for(dynamics, dynamics.drift),
        n_work=n_work,
    )


def _parameters(part: Dynamics, inputs: Inputs, shift: int) -> np.ndarray:
    """Return the parameters of one piece of the theory, with the tables of its own numerical expectations."""
    return parameter_vector(part, at_level(part, inputs, 0, shift), 0, shift)


def _kicks(theory: Fluctuations, inputs: Inputs) -> tuple[np.ndarray, int]:
    """Return which two kicks each packed state's increment multiplies, (n, 2), −1 for none; and how many there are."""
    if theory.kicks is None:
        return np.zeros((0, 2)), 0
    sizes = [inputs.sizes[str(q.shape[0])] for q, _ in theory.kicks.quantities]
    start = np.cumsum([0, *sizes])
    found = []
    for q, pair in zip(theory.dynamics.states, theory.kicks.pairs, strict=True):
        entries = [e for e in np.ndindex(*inputs.y0[q.name].shape) if _is_own(q, e)]
        found += [(start[pair[0]] + e[0], start[pair[1]] + e[1]) if pair else (-1, -1) for e in entries]
    return np.array(found, float), int(start[-1])


def diffusion_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the diffusion matrix D at times (T,) and packed states (T, n), (T, n, n).

    It is what moves the covariance where that is zero.
    """
    return averages_along(system, times, states)[:, : system.n**2].reshape(-1, system.n, system.n)


def averages_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return D, and the part of the correction that the rule over examples gives: (T, n² + n)."""
    par, work = system.parameters(), np.zeros(system.n_work)
    return np.array([averages_at(t, state, par, work) for t, state in zip(times, states, strict=True)])


def tabulated(system: System, times: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ``par`` with the averages over examples, the diffusion matrix above all, as a cubic spline in time along a
    solution, and the relative error of that.

    They are a smooth function of a smooth trajectory, but cost more than all else together: so they are computed at
    every fourth of these times, then between them, until the spline has passed through what it had not seen to
    :data:`SPLINE`.
    """
    from scipy.interpolate import CubicSpline

    seen = np.arange(0, len(times), 4)
    values, error = averages_along(system, times[seen], states[seen]), np.inf
    for stride in (4, 2):
        between = np.arange(stride // 2, len(times), stride)
        new = averages_along(system, times[between], states[between])
        scale = max(np.abs(new).max(), np.finfo(float).tiny)  # nothing fluctuates at a fixed point without noise
        error = float(np.abs(CubicSpline(times[seen], values)(times[between]) - new).max() / scale)
        order = np.argsort(np.concatenate([seen, between]))
        seen, values = np.concatenate([seen, between])[order], np.concatenate([values, new])[order]
        if error < SPLINE:
            break
    coefficients = CubicSpline(times[seen], values.reshape(len(seen), -1)).c
    return system.parameters(times[seen], coefficients.transpose(1, 0, 2)), error


def _rule(
    theory: Fluctuations, fields: int, noise_nodes: int, level: int | None, shift: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes of standard normal fields, with a column for the label noise and one for labels ±1, and weights."""
    if level is None:
        level = LEVEL_OF_KINKS if theory.kinked else LEVEL
    joint = int(noise_nodes == 0)
    nodes, weights = joint_rule(fields + joint, "rough" if theory.kinked else "smooth", level, shift)
    if not joint:
        noise, probability = np.polynomial.hermite_e.hermegauss(noise_nodes)
        nodes, weights = _with_column(nodes, weights, noise, probability / probability.sum())
    if theory.labelled:  # both with weight 1: their probabilities come with the increments
        nodes, weights = _with_column(nodes, weights, np.array([-1.0, 1.0]), np.ones(2))
    return nodes, weights


def _with_column(
    nodes: np.ndarray, weights: np.ndarray, values: np.ndarray, their: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the product of a rule with one over a further variable."""
    both = np.column_stack([np.repeat(nodes, len(values), axis=0), np.tile(values, len(nodes))])
    return both, np.outer(weights, their).ravel()


def _places_of_covariances(theory: Fluctuations, inputs: Inputs, start: int) -> np.ndarray:
    """Return where each covariance of two fields stands in the parameters of the tangent."""
    places = {}
    for q in (*theory.dynamics.states, *theory.dynamics.parameters):
        shape = tuple(inputs.sizes[str(s)] for s in q.shape)
        places[q.name] = start + np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
        start += places[q.name].size
    found = gram_matrix(theory, places)
    if found is None:
        raise ModelError("dynamics", theory.dynamics.title, "fields whose covariance is made of the order parameters")
    return found


def initial_covariance(theory: Fluctuations, inputs: Inputs, initial: str) -> np.ndarray:
    """Return d times the covariance of the initial states, packed, (n, n).

    Zero for ``"exact"``. For ``"random"`` the students are, given the teacher, its projection with overlaps R plus
    normal vectors of covariance Σ = Q − R T⁺ Rᵀ per component: sums of inner products of such vectors, with a
    covariance by Isserlis' theorem.
    """
    states = theory.dynamics.states
    n = sum(packed_length(q, inputs.sizes) for q in states)
    if initial == "exact":
        return np.zeros((n, n))
    if any(inputs.y0[name].any() for name in ("P", "V") if name in inputs.y0):
        raise ModelError("initial", initial, "'exact', or momentum buffers that start at zero: others have no law here")
    Q, R, T = inputs.y0["Q"], inputs.y0["R"], inputs.params["T"]
    along = R @ np.linalg.pinv(T, hermitian=True) @ R.T
    rest = Q - along
    full = {
        ("Q", "Q"): _pairs(Q, Q) - _pairs(along, along),
        ("Q", "R"): np.einsum("in,kj->ikjn", R, rest) + np.einsum("kn,ij->ikjn", R, rest),
        ("R", "R"): np.einsum("ij,nm->injm", rest, T),
    }
    full["R", "Q"] = np.transpose(full["Q", "R"], (2, 3, 0, 1))
    entries = [(q.name, e) for q in states for e in np.ndindex(*inputs.y0[q.name].shape) if _is_own(q, e)]
    values = [[full[a, b][(*e, *f)] if (a, b) in full else 0.0 for b, f in entries] for a, e in entries]
    return np.array(values).reshape(n, n)


def _pairs(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return A_ij B_kl + A_il B_kj at [i, k, j, l]: Wishart's covariance."""
    return np.einsum("ij,kl->ikjl", A, B) + np.einsum("il,kj->ikjl", A, B)


def _is_own(q: Quantity, entry: tuple[int, ...]) -> bool:
    """Return whether an entry is stored: of a symmetric matrix those on and above the diagonal are."""
    return not q.symmetric or entry[0] <= entry[1]


def _upper(square: np.ndarray) -> np.ndarray:
    return np.asarray(square[np.triu_indices(len(square))])


def _square(packed: np.ndarray, n: int) -> np.ndarray:
    """Return symmetric matrices (T, n, n) from their upper triangles (T, n(n + 1)/2)."""
    full = np.empty((len(packed), n, n))
    i, j = np.triu_indices(n)
    full[:, i, j] = full[:, j, i] = packed
    return full


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
