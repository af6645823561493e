"""``integrate_fluctuations``: equations of motion with the mean correction and covariance of runs at finite d."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.fluctuations import Fluctuations
from effdyn.derive.numerical.rules import joint_rule

from .errors import Diverged, IntegrationError
from .fluctuations_lanes import derivatives_address
from .fluctuations_observables import carried_over
from .fluctuations_rhs import System, rhs_address, rhs_function, work_size
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
        All are to be divided by d. ``attrs["diffusion_interpolation_error"]``: see :func:`tabulated`.
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
    y, mean, covariance = run.y[:, :n], run.y[:, n : 2 * n], _square(run.y[:, 2 * n :], n)
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
    return solution.assign_attrs(facts, diffusion_interpolation_error=spline_error)


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
    offset = theory.offset and kernel(theory.offset)
    kernels = [drift, tangent, kernel(theory.correction), observables_kernel(theory.increment), offset]
    n = sum(packed_length(q, inputs.sizes) for q in dynamics.states)
    full_of = np.concatenate([np.ravel(a) for a in unpack(dynamics.states, np.arange(float(n)), inputs.sizes).values()])
    n_sizes = len(dynamics.sizes)
    gram_of = _places_of_covariances(theory, inputs, n_sizes)
    own, corrections = (_parameters(part, inputs) for part in (dynamics, theory.correction))
    noisy = inputs.params["sigma"] > 0
    nodes, weights = _rule(theory, len(gram_of), theory.noise_nodes if noisy else 1, level, shift)
    *addresses, offset_address = (k.address if k else 0 for k in kernels)
    inner = max(LONGEST, *(k.workspace_size(inputs.sizes) for k in kernels if k))
    n_work = work_size(n, len(full_of), len(gram_of), len(own), inner)
    return System(
        addresses=(*addresses, derivatives, offset_address),
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
        n_work=n_work,
        moves=_moves(theory, inputs),
        rescaled=n if theory.held else 0,
    )


def _moves(theory: Fluctuations, inputs: Inputs) -> np.ndarray:
    """Return 1 for each packed state but the squared lengths of vectors that are rescaled to them, 0 for these."""
    shapes = {q.name: inputs.y0[q.name].shape for q in theory.dynamics.states}
    moving = {name: np.ones(shape) - (np.eye(*shape) if name in theory.held else 0) for name, shape in shapes.items()}
    return pack(theory.dynamics.states, moving)


def settled(theory: Fluctuations, inputs: Inputs, times: np.ndarray, states: np.ndarray, start: float) -> np.ndarray:
    """Return the offset of overlaps by momentum buffers at times (T,) and packed states (T, n), (T, n).

    At ``start`` buffers are 0 and so is it; after that they have relaxed, within 1/(1 − β) steps.
    """
    assert theory.offset is not None
    compiled = kernel(theory.offset)
    par, work = _parameters(theory.offset, inputs), np.zeros(compiled.workspace_size(inputs.sizes))
    found = np.zeros_like(states)
    for row, t, state in zip(found, times, states, strict=True):
        if t != start:
            compiled(t, state, row, par, work)
    return found


def _parameters(part: Dynamics, inputs: Inputs) -> np.ndarray:
    """Return the parameters of one piece of the theory, with the tables of its own numerical expectations."""
    return parameter_vector(part, at_level(part, inputs, 0))


def diffusion_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the diffusion matrix D at times (T,) and packed states (T, n), (T, n, n).

    It is what moves the covariance where that is zero.
    """
    return _square(_rates_along(system, system.parameters(), times, states)[:, 2 * system.n :], system.n)


def _averages_along(system: System, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return all that the rule over examples gives: D, and what rescaling adds to the mean, (T, n² + rescaled).

    The latter is what moves the mean less what moves it without the rule.
    """
    n, rates = system.n, _rates_along(system, system.parameters(), times, states)
    D = _square(rates[:, 2 * n :], n).reshape(len(states), n * n)
    if not system.rescaled:
        return D
    nothing = system.parameters(np.array([-1.0, 1.0]), np.zeros((1, 4, n * n + system.rescaled)))
    added = rates - _rates_along(system, nothing, times, states)
    return np.hstack([D, added[:, n : 2 * n]])


def _rates_along(system: System, par: np.ndarray, times: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the right-hand side at packed states without mean correction and covariance."""
    n, work, function = system.n, np.zeros(system.n_work), rhs_function()
    y = np.zeros(2 * n + n * (n + 1) // 2)
    found = np.empty((len(states), len(y)))
    for row, t, state in zip(found, times, states, strict=True):
        y[:n] = state
        function(t, *(array.ctypes.data for array in (y, row, par, work)))
    return found


def tabulated(system: System, times: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ``par`` with averages over examples as a cubic spline in time along a solution, and its relative error.

    It is a smooth function of a smooth trajectory, but costs more than all else together: so it is computed at every
    fourth of these times, then between them, until the spline has passed through what it had not seen to
    :data:`SPLINE`.
    """
    from scipy.interpolate import CubicSpline

    seen = np.arange(0, len(times), 4)
    values, error = _averages_along(system, times[seen], states[seen]), np.inf
    for stride in (4, 2):
        between = np.arange(stride // 2, len(times), stride)
        new = _averages_along(system, times[between], states[between])
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
    """Return nodes of standard normal fields, with a last column for the label noise, and weights."""
    if level is None:
        level = LEVEL_OF_KINKS if theory.kinked else LEVEL
    nodes, weights = joint_rule(fields, "rough" if theory.kinked else "smooth", level, shift)
    noise, probability = np.polynomial.hermite_e.hermegauss(noise_nodes)
    both = np.column_stack([np.repeat(nodes, noise_nodes, axis=0), np.tile(noise, len(nodes))])
    return both, np.outer(weights, probability / probability.sum()).ravel()


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
