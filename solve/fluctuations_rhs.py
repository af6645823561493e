"""The right-hand side of the order-1/d theory: compiled once for every model, which it knows by addresses of kernels.

``y`` holds the n packed states ω, their mean correction m, and the upper triangle of their covariance C, row by row;
``par`` what :meth:`System.parameters` puts there. Of systems that are not too large the drift's operations are executed
with their derivatives along the columns of a factor L of C: (J L) Lᵀ is J C, and the sum of second derivatives H:C. In
others the tangent is taken along each column of C, and H:C as differences of the drift along those of L. Where there
is no tangent (ReLU, numerical expectations) the same differences give J C too.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import carray, cfunc, njit

from .derivatives import machine
from .fluctuations_algebra import HELPER, OPTIONS, factorise, interpolate, is_complete, least_distance
from .integrators.dop853 import _call

SIGNATURE = "void(float64, CPointer(float64), CPointer(float64), CPointer(float64), CPointer(float64))"
HEAD = 18
"""How many numbers stand before the arrays in ``par``."""
NOTHING = np.zeros(0)
STEP = 1e-3
"""Of differences, relative to the scale of a state: truncation is about 1e-7 of H:C, rounding 1e-10."""


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """What the compiled right-hand side needs to know of a model at given parameters.

    Attributes
    ----------
    addresses : tuple of int
        Of the kernels of drift, tangent, correction and increments; 0 if there is no tangent, or it is not needed. As
        numbers they are below 2⁵³, so exact.
    program : ndarray
        The operations of the drift, as :mod:`.derivatives.machine` takes them; empty if there are none.
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
    """

    addresses: tuple[int, ...]
    program: np.ndarray
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

    def parameters(self, times: np.ndarray = NOTHING, table: np.ndarray = NOTHING) -> np.ndarray:
        """Return ``par``, of the diffusion matrix itself or, with a table, of its piecewise cubic interpolant.

        Parameters
        ----------
        times, table : ndarray, shapes (T,) and (T − 1, 4, n²)
            Increasing times, and the coefficients between them, of the highest power first.
        """
        head: list[float] = [self.n, len(self.full_of), len(self.gram_of), len(self.weights)]
        head += [self.sizes, len(self.drift_par)]
        head += [
            *self.addresses,
            len(self.program),
            len(times),
            self.active,
            len(self.correction_par),
            self.batch,
            self.extra_sizes,
        ]
        arrays = (self.full_of, np.ravel(self.gram_of), self.drift_par, self.correction_par, self.program)
        rule = (np.ravel(self.nodes), self.weights)
        par = np.concatenate([head, *arrays, *rule, times, np.ravel(table)]).astype(float)
        return np.concatenate([[len(par) + 2, self.n_work], par])


def work_size(n: int, n_full: int, fields: int, n_par: int, inner: int) -> int:
    """Return the length of ``work``: ``inner`` is the largest workspace of the kernels."""
    return n_par + n_full + 2 * fields * fields + fields + 1 + 5 * n * n + 4 * n + inner


@njit(**HELPER)
def _diffusion(increment, t, par, work, nodes, weights, n_nodes, batch, fields, factor, h, x, mean, n, out):
    """Put the covariance of the increments over a batch of fresh examples, (n, n), and their mean."""
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
        for i in range(n):
            mean[i] += weights[p] * x[i]
            for j in range(i + 1):
                out[i * n + j] += weights[p] * x[i] * x[j]
    for i in range(n):
        for j in range(i + 1):
            out[i * n + j] = (out[i * n + j] - mean[i] * mean[j]) / batch
            out[j * n + i] = out[i * n + j]


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


@njit(**HELPER)
def _by_differences(drift, tangent, t, y, n, C, root, v, scale, own, linear, work, b, x, l, f, unused, JC, dm):
    """Put J C, and add J v + ½ H:C: by the tangent, where there is one, and by differences of the drift."""
    if tangent:
        _call(tangent, t, v, f, linear, work)
        for j in range(n):  # rows of C are its columns; those of JC are those of its transpose
            _call(tangent, t, C[j * n : (j + 1) * n], JC[j * n : (j + 1) * n], linear, work)
    else:
        _differences(drift, t, y, v, n, scale, own, work, b, x, l, f, unused)  # the second is not needed
        JC[:] = 0.0
    for i in range(n):
        dm[i] += f[i]
    for j in range(n):
        for i in range(n):
            v[i] = root[i * n + j]
        _differences(drift, t, y, v, n, scale, own, work, b, x, l, f, dm)
        if not tangent:  # J C = Σ (J l) lᵀ over the columns of the factor
            for k in range(n):
                for i in range(n):
                    JC[k * n + i] += f[i] * v[k]


@njit(**HELPER)
def _exactly(program, t, y, n, C, root, v, work, space, seeds, curved, JC, dm):
    """Put J C, and add J v + ½ H:C, by the derivatives of the drift's operations."""
    machine.evaluate(program, t, y, work)
    for i in range(n):
        seeds[i] = 2.0 * v[i]
    machine.sweep(program, root, seeds, work, space, curved)
    for i in range(n):
        dm[i] += 0.5 * curved[i]
    right, complete = root, is_complete(C, root, n)
    if not complete:  # J itself
        for i in range(n):
            for j in range(n):
                JC[i * n + j] = 1.0 if i == j else 0.0
        machine.sweep(program, JC, seeds, work, space, curved)
        right = C
    for i in range(n):
        for j in range(n):
            total = 0.0
            for k in range(j + 1 if complete else n):  # a triangle
                total += space[i * n + k] * right[j * n + k]
            JC[i * n + j] = total


@njit(**HELPER)
def _rhs(t, y, dy, par, work):
    n, n_full, fields, n_nodes = int(par[2]), int(par[3]), int(par[4]), int(par[5])
    sizes, n_par = int(par[6]), int(par[7])
    drift, tangent, correction, increment = int(par[8]), int(par[9]), int(par[10]), int(par[11])
    n_program, n_times, active, n_correction = int(par[12]), int(par[13]), int(par[14]), int(par[15])
    batch, extra = par[16], int(par[17])
    at = HEAD
    full_of = par[at : at + n_full]
    at += n_full
    gram_of = par[at : at + fields * fields]
    at += fields * fields
    own = par[at : at + n_par]
    at += n_par
    own_correction = par[at : at + n_correction]
    at += n_correction
    program = par[at : at + n_program]
    at += n_program
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
    C, JC, noise = work[at : at + n * n], work[at + n * n : at + 2 * n * n], work[at + 2 * n * n : at + 3 * n * n]
    at += 3 * n * n
    root, space = work[at : at + n * n], work[at + n * n : at + 2 * n * n]
    at += 2 * n * n
    x, mean, v = work[at : at + n], work[at + n : at + 2 * n], work[at + 2 * n : at + 3 * n]
    f = work[at + 3 * n : at + 4 * n]
    inner = work[at + 4 * n :]

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
    factorise(gram, fields, factor)
    for i in range(n):
        v[i] = m[i] - 0.5 * b[i]
    factorise(C, n, root)
    if n_program:
        _exactly(program, t, state, n, C, root, v, inner, space, x, f, JC, dm)
    else:
        scale = _scale(y, n) if tangent else least_distance(factor, fields, active)
        _by_differences(
            drift, tangent, t, state, n, C, root, v, scale, own, linear, inner, b, x, mean, f, space[:n], JC, dm
        )

    if n_times:
        interpolate(t, times, table, n * n, noise)
    else:
        _diffusion(increment, t, linear, inner, nodes, weights, n_nodes, batch, fields, factor, h, x, mean, n, noise)
    p = 2 * n
    for i in range(n):
        for j in range(i, n):
            dy[p] = JC[j * n + i] + JC[i * n + j] + noise[i * n + j]
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
