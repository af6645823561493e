"""The right-hand side of the order-1/d theory: compiled once for every model, which it knows by addresses of kernels.

``y`` holds the n packed states ω, their mean correction m, and the upper triangle of their covariance C, row by row;
``par`` what :meth:`System.parameters` puts there. The Jacobian J of small systems is that of the drift's operations,
sixteen columns at once; in others the tangent is taken along each column of C. The second derivative H:C is taken as
differences of the drift along the columns of a factor of C: compiled, it takes half a minute for erf committees. Where
there is no tangent (ReLU, numerical expectations) the same differences give J C too.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import carray, cfunc, njit

from .fluctuations_lanes import LANES
from .integrators import dop853
from .integrators.dop853 import _call

SIGNATURE = "void(float64, CPointer(float64), CPointer(float64), CPointer(float64), CPointer(float64))"
COUNTED = {"_nrt": True}  # views of the workspace are arrays of its own
OPTIONS, HELPER = dop853.OPTIONS | COUNTED, dop853.HELPER | COUNTED
HEAD = 20
"""How many numbers stand before the arrays in ``par``."""
NOTHING = np.zeros(0)
STEP = 1e-3
"""Of differences, relative to the scale of a state: truncation is about 1e-7 of H:C, rounding 1e-10."""
NEAREST = 1e-3
"""The least scale of differences where forms are singular at fields that coincide, so that rounding stays below 1e-4 of
H:C: nearer to that the expansion itself ends."""


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """What the compiled right-hand side needs to know of a model at given parameters.

    Attributes
    ----------
    addresses : tuple of int
        Of the kernels of drift, tangent, correction and increments, of the drift's derivatives in lanes, and of the
        offset of overlaps by buffers. Of tangent and derivatives one is 0, or both; offset is 0 if there is none. As
        numbers they are below 2⁵³, so exact.
    n : int
        Number of packed states.
    full_of : ndarray of int
        For each entry of the unpacked states, which packed one it is.
    gram_of : ndarray of int, shape (N, N)
        For each covariance of fields, where it stands in the parameters of the tangent.
    active : int
        The number of fields, the first ones, on which functions depend.
    drift_par, correction_par : ndarray
        Of drift and correction: ``sizes`` numbers, then parameters; the tangent has the states between them.
    extra_sizes : int
        How many further sizes, of tables of nodes, the drift has between.
    nodes, weights : ndarray, shapes (P, N + 1) and (P,)
        A rule over standard normal fields and label noise.
    batch : float
        By which the covariance of increments is divided.
    n_work : int
        The length of ``work``.
    moves : ndarray, shape (n,)
        1.0 for each packed state, 0.0 for squared lengths that are held.
    rescaled : int
        How many quadratic forms, whose averages add to the mean, follow the increments: n where lengths are held.
    """

    addresses: tuple[int, ...]
    n: int
    full_of: np.ndarray
    gram_of: np.ndarray
    active: int
    drift_par: np.ndarray
    correction_par: np.ndarray
    sizes: int
    extra_sizes: int
    nodes: np.ndarray
    weights: np.ndarray
    batch: float
    n_work: int
    moves: np.ndarray
    rescaled: int = 0

    def parameters(self, times: np.ndarray = NOTHING, table: np.ndarray = NOTHING) -> np.ndarray:
        """Return ``par``, of the diffusion matrix itself or, with a table, of its piecewise cubic interpolant.

        Parameters
        ----------
        times, table : ndarray, shapes (T,) and (T − 1, 4, n² + rescaled)
            Increasing times, and the coefficients between them, of the highest power first: of the diffusion matrix
            and what rescaling adds to the mean.
        """
        head: list[float] = [self.n, len(self.full_of), len(self.gram_of), len(self.weights)]
        head += [self.sizes, len(self.drift_par)]
        *known, offset = self.addresses
        head += [*known, len(times), self.active, len(self.correction_par), self.batch, self.extra_sizes]
        head += [offset, self.rescaled]
        arrays = (self.full_of, np.ravel(self.gram_of), self.drift_par, self.correction_par, self.moves)
        rule = (np.ravel(self.nodes), self.weights)
        par = np.concatenate([head, *arrays, *rule, times, np.ravel(table)]).astype(float)
        return np.concatenate([[len(par) + 2, self.n_work], par])


def work_size(n: int, n_full: int, fields: int, n_par: int, inner: int) -> int:
    """Return the length of ``work``: ``inner`` is the largest workspace of the kernels."""
    lanes = n * (1 + 2 * LANES)
    return n_par + n_full + 2 * fields * fields + fields + 1 + 5 * n * n + 7 * n + lanes + inner


@njit(**OPTIONS)
def _factor(matrix, n, factor):
    """Put a lower triangular factor of a positive semidefinite matrix; directions without variance give zeros."""
    for j in range(n):
        pivot = matrix[j * n + j]
        for k in range(j):
            pivot -= factor[j * n + k] ** 2
        live = pivot > 1e-13 * matrix[j * n + j]
        root = np.sqrt(pivot) if live else 0.0
        for i in range(n):
            if i < j or not live:
                factor[i * n + j] = 0.0
            elif i == j:
                factor[i * n + j] = root
            else:
                value = matrix[i * n + j]
                for k in range(j):
                    value -= factor[i * n + k] * factor[j * n + k]
                factor[i * n + j] = value / root


def distance(gram: np.ndarray, active: int) -> float:
    """Return what :func:`_distance` does, of a covariance of fields of which the first ones count."""
    fields = len(gram)
    factor = np.empty(fields * fields)
    _factor(np.ravel(gram), fields, factor)
    return float(_distance(factor, fields, active))


@njit(**HELPER)
def _diffusion(increment, t, par, work, nodes, weights, n_nodes, batch, fields, factor, h, x, mean, n, out):
    """Put the covariance of the increments over a batch of fresh examples, (n, n), and their mean; after these what a
    batch adds to the averages of the forms that follow the increments."""
    columns = fields + 1
    mean[:] = 0.0
    out[:] = 0.0
    for p in range(n_nodes):
        for a in range(fields):
            total = 0.0
            for b in range(a + 1):
                total += factor[a * fields + b] * nodes[p * columns + b]
            h[a] = total
        h[fields] = nodes[p * columns + fields]
        _call(increment, t, h, x, par, work)
        for i in range(x.size):
            mean[i] += weights[p] * x[i]
        for i in range(n):
            for j in range(i + 1):
                out[i * n + j] += weights[p] * x[i] * x[j]
    for i in range(n):
        for j in range(i + 1):
            out[i * n + j] = (out[i * n + j] - mean[i] * mean[j]) / batch
            out[j * n + i] = out[i * n + j]
    for i in range(n, x.size):
        out[n * n + i - n] = mean[i] / batch


@njit(**HELPER)
def _differences(drift, t, y, l, n, scale, par, work, b, moved, f, first, half):
    """Put the derivative of the drift along the direction l, and add ½ the second to ``half``."""
    length = 0.0
    for i in range(n):
        length = max(length, abs(l[i]))
        first[i] = 0.0
    if length == 0.0:
        return
    h = STEP * scale / length
    for sign in (1.0, -1.0):
        for i in range(n):
            moved[i] = y[i] + sign * h * l[i]
        _call(drift, t, moved, f, par, work)
        for i in range(n):
            first[i] += 0.5 * sign * f[i] / h
            half[i] += 0.5 * (f[i] - b[i]) / (h * h)


@njit(**HELPER)
def _scale(y, n):
    """Return the scale on which a smooth drift changes."""
    scale = 1.0
    for i in range(n):
        scale = max(scale, abs(y[i]))
    return scale


@njit(**OPTIONS)
def _distance(factor, fields, active):
    """Return the least part of a field's variance that those before it leave open: how near to coincidence they are.

    A field of vanishing vectors is none.
    """
    least = np.inf
    for a in range(active):
        pivot = factor[a * fields + a] ** 2
        if pivot > 0.0:
            least = min(least, pivot)
    return max(least, NEAREST)


@njit(**HELPER)
def _jacobian(derivatives, t, y, n, par, work, lanes, J):
    """Put ∂b_i/∂y_j at [i, j]: the derivatives along unit directions, sixteen at a time."""
    given, found = lanes[: n * (1 + LANES)], lanes[n * (1 + LANES) :]
    given[:n] = y
    for first in range(0, n, LANES):
        count = min(LANES, n - first)
        given[n:] = 0.0
        for l in range(count):
            given[n + LANES * (first + l) + l] = 1.0
        _call(derivatives, t, given, found, par, work)
        for i in range(n):
            for l in range(count):
                J[i * n + first + l] = found[LANES * i + l]


@njit(**HELPER)
def _times(A, x, n, out):
    """Put A x for a matrix (n, n) and a vector."""
    for i in range(n):
        total = 0.0
        for k in range(n):
            total += A[i * n + k] * x[k]
        out[i] = total


@njit(**HELPER)
def _interpolate(t, times, table, width, out):
    """Put the value of a piecewise cubic function."""
    piece = min(max(np.searchsorted(times, t) - 1, 0), times.size - 2)
    x = t - times[piece]
    at = 4 * width * piece
    for i in range(width):
        high = table[at + i] * x + table[at + width + i]
        out[i] = (high * x + table[at + 2 * width + i]) * x + table[at + 3 * width + i]


@njit(**HELPER)
def _rhs(t, y, dy, par, work):
    n, n_full, fields, n_nodes = int(par[2]), int(par[3]), int(par[4]), int(par[5])
    sizes, n_par = int(par[6]), int(par[7])
    drift, tangent, correction, increment = int(par[8]), int(par[9]), int(par[10]), int(par[11])
    derivatives, n_times, active, n_correction = int(par[12]), int(par[13]), int(par[14]), int(par[15])
    batch, extra, offset, rescaled = par[16], int(par[17]), int(par[18]), int(par[19])
    at = HEAD
    full_of = par[at : at + n_full]
    at += n_full
    gram_of = par[at : at + fields * fields]
    at += fields * fields
    own = par[at : at + n_par]
    at += n_par
    own_correction = par[at : at + n_correction]
    at += n_correction
    moves = par[at : at + n]
    at += n
    nodes = par[at : at + n_nodes * (fields + 1)]
    at += n_nodes * (fields + 1)
    weights = par[at : at + n_nodes]
    at += n_nodes
    times, table = par[at : at + n_times], par[at + n_times :]

    at = 0
    linear = work[at : at + n_par + n_full]  # the tangent's parameters: the states are among them
    at += n_par + n_full
    gram, factor = work[at : at + fields * fields], work[at + fields * fields : at + 2 * fields * fields]
    at += 2 * fields * fields
    h = work[at : at + fields + 1]
    at += fields + 1
    C, JC = work[at : at + n * n], work[at + n * n : at + 2 * n * n]
    noise = work[at + 2 * n * n : at + 3 * n * n + rescaled]
    at += 3 * n * n + rescaled
    root, J = work[at : at + n * n], work[at + n * n : at + 2 * n * n]
    at += 2 * n * n
    x, mean = work[at : at + n + rescaled], work[at + n + rescaled : at + 2 * (n + rescaled)]
    at += 2 * (n + rescaled)
    v, f = work[at : at + n], work[at + n : at + 2 * n]
    at += 2 * n
    lanes = work[at : at + n * (1 + 2 * LANES)]
    inner = work[at + lanes.size :]

    state, m, b, dm = y[:n], y[n : 2 * n], dy[:n], dy[n : 2 * n]
    linear[:sizes] = own[:sizes]
    for i in range(n_full):
        linear[sizes + i] = state[int(full_of[i])]
    linear[sizes + n_full : n_full + n_par - extra] = own[sizes + extra :]
    p = 2 * n
    for i in range(n):
        for j in range(i, n):
            C[i * n + j] = y[p]
            C[j * n + i] = y[p]
            p += 1

    _call(drift, t, state, b, own, inner)
    _call(correction, t, state, dm, own_correction, inner)
    for i in range(fields * fields):
        gram[i] = linear[int(gram_of[i])]
    _factor(gram, fields, factor)
    known = derivatives != 0 or tangent != 0
    scale = _scale(y, n) if known else _distance(factor, fields, active)
    v[:] = 0.0
    if offset:
        _call(offset, t, state, v, own, inner)
    for i in range(n):
        b[i] *= moves[i]  # but for rounding it is 0 where lengths are held, and so is all that follows from it
        v[i] += m[i] - 0.5 * b[i]
    if derivatives:
        _jacobian(derivatives, t, state, n, own, inner, lanes, J)
        _times(J, v, n, f)
    elif tangent:
        _call(tangent, t, v, f, linear, inner)
    else:
        _differences(drift, t, state, v, n, scale, own, inner, b, x, mean, f, J[:n])  # the second is not needed
    for i in range(n):
        dm[i] += f[i]
    for j in range(n):  # rows of C are its columns; those of JC are those of its transpose
        column, image = C[j * n : (j + 1) * n], JC[j * n : (j + 1) * n]
        if derivatives:
            _times(J, column, n, image)
        elif tangent:
            _call(tangent, t, column, image, linear, inner)
    _factor(C, n, root)
    if not known:
        JC[:] = 0.0
    for j in range(n):
        for i in range(n):
            v[i] = root[i * n + j]
        _differences(drift, t, state, v, n, scale, own, inner, b, x, mean, f, dm)
        if not known:  # J C = Σ (J l) lᵀ over the columns of the factor
            for k in range(n):
                for i in range(n):
                    JC[k * n + i] += f[i] * v[k]

    if n_times:
        _interpolate(t, times, table, noise.size, noise)
    else:
        _diffusion(increment, t, linear, inner, nodes, weights, n_nodes, batch, fields, factor, h, x, mean, n, noise)
    for i in range(rescaled):
        dm[i] += noise[n * n + i]
    p = 2 * n
    for i in range(n):
        dm[i] *= moves[i]
        for j in range(i, n):
            dy[p] = moves[i] * JC[j * n + i] + moves[j] * JC[i * n + j] + moves[i] * moves[j] * noise[i * n + j]
            p += 1


@cache
def rhs_address() -> int:
    """Return the address of the compiled right-hand side, which is kept on disk."""
    return int(cfunc(SIGNATURE, cache=True, **OPTIONS)(_entry).address)


@cache
def rhs_function() -> Callable[..., None]:
    """Return it for Python callers: time, and the addresses of the four arrays."""
    return ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)(rhs_address())


def _entry(t, y, dy, par, work):
    n = int(par[2])
    length = 2 * n + n * (n + 1) // 2
    _rhs(t, carray(y, length), carray(dy, length), carray(par, int(par[0])), carray(work, int(par[1])))
