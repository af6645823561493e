"""Mean correction and variance of observables, from those of the states.

With g the gradient of an observable and H its second derivative, at a solution with mean correction m and covariance C
of the states, they are g·m + ½ H:C and g·C g. Both are derivatives of the observables' operations along the columns
of a factor of C; where there are none (ReLU, numerical expectations), differences of the compiled observables.
"""

from collections.abc import Callable

import numpy as np

from effdyn.derive import Quantity
from effdyn.derive.fluctuations import Fluctuations
from effdyn.derive.schedule import SCHEDULE

from ..derivatives import machine
from ..derivatives.program import Program, program
from ..kernels.kernel import observables_kernel
from ..kernels.layout import Inputs, packed_length, parameter_vector, unpack
from .algebra import distance
from .fields import covariance_of
from .rhs import STEP
from .step import step_for

Function = Callable[[np.ndarray], np.ndarray]
Moments = tuple[np.ndarray, np.ndarray]


def carried_over(
    theory: Fluctuations, inputs: Inputs, y: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> list[tuple[Quantity, np.ndarray, np.ndarray]]:
    """Return each observable with d times mean − limit and d times variance over runs, each of shape (T, …).

    Parameters
    ----------
    y, mean : ndarray, shape (T, n)
        Packed states and their mean corrections.
    covariance : ndarray, shape (T, n, n)
    """
    observed = tuple(e.quantity for e in theory.dynamics.observables)
    if not observed:
        return []
    lengths = [packed_length(q, inputs.sizes) for q in observed]
    operations = _operations(theory, inputs, y.shape[1])
    if operations:
        found = _exactly(operations, parameter_vector(theory.dynamics, inputs), y, mean, covariance)
    else:
        found = _by_differences(theory, inputs, lengths, y, mean, covariance)
    means, variances = (unpack(observed, np.array(part), inputs.sizes) for part in zip(*found, strict=True))
    # A schedule is a function of time: it does not fluctuate.
    return [(q, means[q.name], variances[q.name]) for q in observed if q != SCHEDULE]


def _operations(theory: Fluctuations, inputs: Inputs, n: int) -> Program | None:
    sizes = tuple(inputs.sizes[str(size)] for size in theory.dynamics.sizes)
    return program(theory.dynamics, "observables", sizes, n)


def _exactly(
    operations: Program, par: np.ndarray, y: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> list[Moments]:
    """Return g·m + ½ H:C and g·C g of all observables at each time, by the derivatives of their operations."""
    encoded, n, length = operations.encoded(par), operations.n, len(operations.results)
    work, images, curved = np.zeros(machine.work_size(encoded)), np.empty((length, n)), np.empty(length)
    evaluate, sweep = machine.compiled()
    found = []
    for state, m, C in zip(y, mean, covariance, strict=True):
        values, vectors = np.linalg.eigh(C)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        evaluate(encoded, 0.0, state, work)
        sweep(encoded, root.ravel(), 2 * m, work, images.reshape(-1), curved)
        found.append((curved / 2, np.sum(images**2, axis=1)))
    return found


def _by_differences(
    theory: Fluctuations, inputs: Inputs, lengths: list[int], y: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> list[Moments]:
    """Return the same by differences of the compiled observables."""
    observed = [e.quantity for e in theory.dynamics.observables]
    # Averages are as smooth as the drift; ratios of overlaps, which have indices, never are.
    ratio = np.repeat([bool(q.indices) for q in observed], lengths)
    function = _observables(theory, inputs, sum(lengths))
    averaging = step_for(theory.dynamics, theory.dynamics.observables)
    found = []
    for state, m, C in zip(y, mean, covariance, strict=True):
        near = _distance(theory, inputs, state)
        far = max(1.0, float(np.abs(state).max())) if theory.tangent else near
        steps = (STEP * near, averaging * far)
        means, variances = zip(*(_moments(function, state, m, C, step) for step in steps), strict=True)
        found.append((np.where(ratio, *means), np.where(ratio, *variances)))
    return found


def _observables(theory: Fluctuations, inputs: Inputs, length: int) -> Function:
    """Return all observables, packed, as a function of the packed states."""
    compiled = observables_kernel(theory.dynamics)
    par, work = parameter_vector(theory.dynamics, inputs), np.zeros(compiled.workspace_size(inputs.sizes))

    def function(state: np.ndarray) -> np.ndarray:
        out = np.empty(length)
        compiled(0.0, state, out, par, work)
        return out

    return function


def _distance(theory: Fluctuations, inputs: Inputs, state: np.ndarray) -> float:
    arrays = inputs.params | unpack(theory.dynamics.states, state, inputs.sizes)
    gram = covariance_of(theory, arrays, inputs.sizes)
    return distance(gram, sum(inputs.sizes[str(f.size)] for f in theory.active))


def _moments(function: Function, state: np.ndarray, m: np.ndarray, C: np.ndarray, step: float) -> Moments:
    """Return g·m + ½ H:C and g·C g of all observables, by differences over a step."""
    total, _ = _differences(function, state, m, step)
    variance = np.zeros_like(total)
    values, vectors = np.linalg.eigh(C)
    for value, vector in zip(values, vectors.T, strict=True):
        if value > 1e-13 * values[-1]:  # less is rounding
            first, second = _differences(function, state, np.sqrt(value) * vector, step)
            total, variance = total + second / 2, variance + first**2
    return total, variance


def _differences(function: Function, state: np.ndarray, along: np.ndarray, step: float) -> Moments:
    """Return the first and the second derivative along a direction."""
    length = float(np.abs(along).max())
    h = step / length if length else 1.0
    low, middle, high = (function(state + sign * h * along) for sign in (-1.0, 0.0, 1.0))
    return (high - low) / (2 * h), (high - 2 * middle + low) / h**2
