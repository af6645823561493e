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

from ..derivatives import machine
from ..integrators.dop853 import _call
from ..kernels.kept import kept
from .algebra import HELPER, OPTIONS, factorise, interpolate, is_complete, least_distance
from .kicks import OWN, ByRule, add_pairs, add_remembered, add_rescaled, fill_metrics, quadratic

SIGNATURE = "void(float64, CPointer(float64), CPointer(float64), CPointer(float64), CPointer(float64))"
HEAD = 24
"""How many numbers stand before the arrays in ``par``."""
NOTHING = np.zeros(0)
STEP = 1e-3
"""Of differences, relative to the scale of a state: truncation is about 1e-7 of H:C, rounding 1e-10."""
ROUNDING = 2.3e-16


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """What the compiled right-hand side needs to know of a model at given parameters.

    Attributes
    ----------
    addresses : tuple of int
        Of the kernels of drift, tangent, correction, increments and offset; 0 if there is no tangent, or it is not
        needed, or no offset. As numbers they are below 2⁵³, so exact.
    program : ndarray
        The operations of the drift, as :mod:`..derivatives.machine` takes them; empty if there are none.
    n : int
        Number of packed states.
    full_of : ndarray of int
        For each entry of the unpacked states, which packed one it is.
    fields : int
        The number N of fields of an example.
    law : ndarray, shape (N² + N, n + 1)
        Their covariance and means: coefficients of the packed states, and constants.
    active : int
        The number of fields, the first ones, on which functions depend. Increments are linear in the others.
    drift_par, correction_par, offset_par : ndarray
        Of drift, correction and offset (empty without): ``sizes`` numbers, then parameters; the tangent has the states
        between them.
    extra_sizes : int
        How many further sizes, of tables of nodes, the drift has between.
    nodes, weights : ndarray, shapes (P, active + 1) and (P,)
        A rule over as many standard normal fields as are active, and label noise; a label ±1 is one column more.
    batch : float
        By which the covariance of increments is divided.
    by_rule : ByRule or None
        Of which terms of the correction the rule over examples gives the averages; None where it gives none.
    labelled : bool
        Whether nodes end with a label ±1, whose probability is what follows the increments.
    moves : ndarray, shape (n,)
        1.0 for each packed state, 0.0 for squared lengths that are held.
    rescaled : bool
        Whether n quadratic forms, whose averages add to the mean, end what the increments' kernel puts.
    step : float
        Of differences, relative to the scale of a state.
    n_work : int
        The length of ``work``.
    """

    addresses: tuple[int, ...]
    program: np.ndarray
    n: int
    full_of: np.ndarray
    fields: int
    law: np.ndarray
    active: int
    drift_par: np.ndarray
    correction_par: np.ndarray
    offset_par: np.ndarray
    sizes: int
    extra_sizes: int
    nodes: np.ndarray
    weights: np.ndarray
    batch: float
    by_rule: ByRule | None
    labelled: bool
    moves: np.ndarray
    rescaled: bool
    step: float
    n_work: int

    def parameters(self, times: np.ndarray = NOTHING, table: np.ndarray = NOTHING) -> np.ndarray:
        """Return ``par``, of the averages over an example themselves or, with a table, of their piecewise cubic
        interpolant.

        Parameters
        ----------
        times, table : ndarray, shapes (T,) and (T − 1, 4, n² + n)
            Increasing times, and the coefficients between them, of the highest power first: of D, and of what the rule
            over examples adds to the correction.
        """
        head: list[float] = [self.n, len(self.full_of), self.fields, len(self.weights)]
        head += [self.sizes, len(self.drift_par), *self.addresses, len(self.program), len(times), self.active]
        told = NOTHING if self.by_rule is None else self.by_rule.numbers()
        head += [len(self.correction_par), self.batch, self.extra_sizes, self.labelled, len(told)]
        head += [self.rescaled, self.step, len(self.offset_par)]
        own = (self.drift_par, self.correction_par, self.offset_par)
        arrays = (self.full_of, np.ravel(self.law), *own, self.program, self.moves)
        rule = (told, np.ravel(self.nodes), self.weights)
        par = np.concatenate([head, *arrays, *rule, times, np.ravel(table)]).astype(float)
        return np.concatenate([[len(par) + 2, self.n_work], par])


def work_size(n: int, n_full: int, fields: int, n_par: int, by_rule: ByRule | None, inner: int) -> int:
    """Return the length of ``work``: ``inner`` is the largest workspace of the kernels."""
    n_kicks, blocks = (by_rule.n_kicks, max(1, len(by_rule.variance))) if by_rule else (0, 0)
    averaged = fields + 2 + n_kicks * (fields + n_kicks + 1) + 2 * observed_size(n, True, n_kicks, True, True) + 2 * n
    averaged += blocks * (fields * fields + 2)
    return n * n + n + n_par + n_full + 2 * fields * fields + fields + averaged + 4 * n * n + 4 * n + inner


@njit(**OPTIONS)
def observed_size(n, labelled, kicks, by_rule, rescaled):
    """Return how much the kernel of increments puts: these, a probability, what |x|² multiplies and kicks, forms."""
    return n + (1 if labelled else 0) + (n + kicks if by_rule else 0) + (n if rescaled else 0)


@njit(**HELPER)
def _averaged(
    increment, t, par, work, nodes, weights, fields, active, labelled, center, factor, batch, told, state, rescaled,
    h, x, moved, mean, gradient, raw, metrics, radial, n, out,
):  # fmt: skip
    """Put averages over a fresh example: the covariance of the increments over a batch, (n, n), then what they add to
    the n corrections, by kicks (:class:`effdyn.derive.one_example.Kicks`) and by rescaling.

    Given the active fields the others are normal about a linear function of them. Increments are linear in them, so
    that what they add is exact: the square of what each independent direction of them moves. Forms are quadratic.
    """
    columns, n_nodes, forms = active + 1 + labelled, weights.size, x.size - n
    stretched, kicked = n + labelled, 2 * n + labelled
    kicks, shift, blocks = (int(told[0]), int(told[1]), int(told[2])) if told.size else (0, -1, 0)
    n_metrics = max(1, blocks)
    width, at = OWN + 2 * n_metrics, 3 + kicks + n_metrics
    entries = told[at : at + width * n] if told.size else told
    squares, gradient = gradient[kicks * fields :], gradient[: kicks * fields]
    traces, radial = radial[n_metrics:], radial[:n_metrics]
    if told.size:
        variance, parts = told[at + width * n : at + width * n + blocks], told[at + width * n + blocks :]
        fill_metrics(factor, fields, active, variance, parts, metrics)
        for g in range(n_metrics):
            traces[g] = 0.0
            for a in range(active):
                traces[g] += metrics[(g * active + a) * active + a]
    mean[:] = 0.0
    out[:] = 0.0
    gradient[:] = 0.0
    squares[:] = 0.0
    raw[:] = 0.0
    for p in range(n_nodes):
        z = nodes[p * columns : (p + 1) * columns]
        for a in range(fields):
            total = center[a]
            for b in range(min(a + 1, active)):
                total += factor[a * fields + b] * z[b]
            h[a] = total
        h[fields] = z[active]
        if labelled:
            h[fields + 1] = z[active + 1]
        _call(increment, t, h, x, par, work)
        w = weights[p] * x[n] if labelled else weights[p]
        for i in range(n):
            mean[i] += w * x[i]
            for j in range(i + 1):
                out[i * n + j] += w * x[i] * x[j]
        if rescaled:
            for i in range(n):
                out[n * n + i] += w * x[forms + i] / batch
        if told.size:
            for g in range(n_metrics):
                metric = metrics[g * active * active : (g + 1) * active * active]
                radial[g] = quadratic(metric, active, z, z) - traces[g]
                if shift >= 0:
                    radial[g] += 2.0 * h[shift] - center[shift]
            for i in range(n):
                raw[i] += w * radial[int(entries[width * i + 2])] * x[stretched + i]
            for k in range(kicks):
                squares[kicks * kicks + k] += w * x[kicked + k]
                for l in range(kicks):
                    squares[k * kicks + l] += w * x[kicked + k] * x[kicked + l]
                for a in range(active):
                    gradient[k * fields + a] += w * z[a] * x[kicked + k]
                if shift >= 0:
                    for a in range(shift + 1):
                        gradient[k * fields + a] += w * factor[shift * fields + a] * x[kicked + k]
        for b in range(active, fields):
            if factor[b * fields + b] == 0.0:
                continue
            for sign in (1.0, -1.0):
                if sign < 0.0 and not rescaled:
                    break
                for a in range(b, fields):
                    h[a] += sign * factor[a * fields + b]
                _call(increment, t, h, moved, par, work)
                for a in range(b, fields):
                    h[a] -= sign * factor[a * fields + b]
                if rescaled:
                    for i in range(n):
                        out[n * n + i] += 0.5 * w * (moved[forms + i] - x[forms + i]) / batch
                if sign > 0.0:
                    for i in range(n):
                        moved[i] -= x[i]
                        for j in range(i + 1):
                            out[i * n + j] += w * moved[i] * moved[j]
    for i in range(n):
        for j in range(i + 1):
            out[i * n + j] = (out[i * n + j] - mean[i] * mean[j]) / batch
            out[j * n + i] = out[i * n + j]
    for i in range(n):
        variance = batch * out[i * n + i]
        if variance < ROUNDING * n_nodes * (variance + mean[i] ** 2):  # a state that does not scatter
            for j in range(n):
                out[i * n + j] = 0.0
                out[j * n + i] = 0.0
    if told.size:
        add_pairs(gradient, fields, active, metrics, entries, raw)
        moved_by, scale = told[3 : 3 + kicks], told[3 + kicks : at]
        add_remembered(gradient, squares, fields, active, factor, shift, moved_by, scale, entries, raw)
        add_rescaled(raw, entries, n_metrics, state, out[n * n :])


@njit(**HELPER)
def _differences(drift, t, y, l, n, scale, par, work, b, moved, f, first, half):
    """Put the derivative of the drift along the direction l, and add ½ the second to ``half``."""
    length = 0.0
    for i in range(n):
        length = max(length, abs(l[i]))
        first[i] = 0.0
    if length == 0.0:
        return
    h = scale / length
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
    """Put the transpose of J C, and add J v + ½ H:C: by the tangent, if there is one, and differences of the drift."""
    if tangent:
        _call(tangent, t, v, f, linear, work)
        for j in range(n):  # rows of C are its columns; those of JC are those of its transpose
            _call(tangent, t, C[j * n : (j + 1) * n], JC[j * n : (j + 1) * n], linear, work)
    else:
        _differences(drift, t, y, v, n, scale, own, work, b, x, l, f, unused)  # the second is not needed
        JC[:] = 0.0
    for i in range(n):
        dm[i] += f[i]
    complete = is_complete(C, root, n)
    for j in range(n):
        for i in range(n):
            v[i] = root[i * n + j]
        _differences(drift, t, y, v, n, scale, own, work, b, x, l, f, dm)
        if not tangent and complete:  # J C = Σ (J l) lᵀ over the columns of the factor
            for k in range(n):
                for i in range(n):
                    JC[k * n + i] += f[i] * v[k]
    if not tangent and not complete:  # J itself
        for j in range(n):
            v[:] = 0.0
            v[j] = 1.0
            _differences(drift, t, y, v, n, scale, own, work, b, x, l, f, unused)
            for k in range(n):
                for i in range(n):
                    JC[k * n + i] += f[i] * C[j * n + k]


@njit(**HELPER)
def _exactly(program, t, y, n, C, root, v, work, space, seeds, curved, JC, dm):
    """Put the transpose of J C, and add J v + ½ H:C, by the derivatives of the drift's operations."""
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
            JC[j * n + i] = total


@njit(**HELPER)
def _rhs(t, y, dy, par, work):
    n, n_full, fields, n_nodes = int(par[2]), int(par[3]), int(par[4]), int(par[5])
    sizes, n_par = int(par[6]), int(par[7])
    drift, tangent, correction, increment, offset = int(par[8]), int(par[9]), int(par[10]), int(par[11]), int(par[12])
    n_program, n_times, active, n_correction = int(par[13]), int(par[14]), int(par[15]), int(par[16])
    batch, extra, labelled, n_told = par[17], int(par[18]), int(par[19]), int(par[20])
    rescaled, step, n_offset = int(par[21]), par[22], int(par[23])
    at = HEAD
    full_of = par[at : at + n_full]
    at += n_full
    law = par[at : at + fields * (fields + 1) * (n + 1)]
    at += law.size
    own = par[at : at + n_par]
    at += n_par
    own_correction = par[at : at + n_correction]
    at += n_correction
    own_offset = par[at : at + n_offset]
    at += n_offset
    program = par[at : at + n_program]
    at += n_program
    moves = par[at : at + n]
    at += n
    told = par[at : at + n_told]
    at += n_told
    kicks, n_metrics = (int(told[0]), max(1, int(told[2]))) if n_told else (0, 0)
    nodes = par[at : at + n_nodes * (active + 1 + labelled)]
    at += nodes.size
    weights = par[at : at + n_nodes]
    at += n_nodes
    times, table = par[at : at + n_times], par[at + n_times :]

    averages = work[: n * n + n]  # where who calls may read them
    at = averages.size
    linear = work[at : at + n_par + n_full]  # the tangent's parameters: the states are among them
    at += n_par + n_full
    fields_law = work[at : at + fields * (fields + 1)]
    gram, center = fields_law[: fields * fields], fields_law[fields * fields :]
    at += fields_law.size
    factor = work[at : at + fields * fields]
    at += factor.size
    h, gradient = work[at : at + fields + 2], work[at + fields + 2 : at + fields + 2 + kicks * (fields + kicks + 1)]
    at += h.size + gradient.size
    observed = observed_size(n, labelled, kicks, n_told, rescaled)
    x, moved, mean = work[at : at + observed], work[at + observed : at + 2 * observed], work[at + 2 * observed :][:n]
    at += 2 * observed + n
    raw, metrics = work[at : at + n], work[at + n : at + n + n_metrics * active * active]
    at += n + metrics.size
    radial = work[at : at + 2 * n_metrics]
    at += radial.size
    C, JC = work[at : at + n * n], work[at + n * n : at + 2 * n * n]
    at += 2 * n * n
    root, space = work[at : at + n * n], work[at + n * n : at + 2 * n * n]
    at += 2 * n * n
    v, f = work[at : at + n], work[at + n : at + 2 * n]
    at += 2 * n
    l, shifted = work[at : at + n], work[at + n : at + 2 * n]
    inner = work[at + 2 * n :]

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
    for i in range(fields_law.size):
        fields_law[i] = law[i * (n + 1) + n]
        for j in range(n):
            fields_law[i] += law[i * (n + 1) + j] * state[j]
    factorise(gram, fields, factor)
    v[:] = 0.0
    if offset:
        _call(offset, t, state, v, own_offset, inner)
    for i in range(n):
        b[i] *= moves[i]  # but for rounding it is 0 where lengths are held, and so is all that follows from it
        v[i] += m[i] - 0.5 * b[i]
    factorise(C, n, root)
    if n_program:
        _exactly(program, t, state, n, C, root, v, inner, space, l, f, JC, dm)
    else:
        scale = step * (_scale(y, n) if tangent else least_distance(factor, fields, active))
        _by_differences(
            drift, tangent, t, state, n, C, root, v, scale, own, linear, inner, b, shifted, l, f, space[:n], JC, dm
        )

    if n_times:
        interpolate(t, times, table, averages.size, averages)
    else:
        _averaged(
            increment, t, linear, inner, nodes, weights, fields, active, labelled, center, factor, batch, told, state,
            rescaled, h, x, moved, mean, gradient, raw, metrics, radial, n, averages,
        )  # fmt: skip
    p = 2 * n
    for i in range(n):
        dm[i] = moves[i] * (dm[i] + averages[n * n + i])
        for j in range(i, n):
            noise = moves[i] * moves[j] * averages[i * n + j]
            dy[p] = moves[i] * JC[j * n + i] + moves[j] * JC[i * n + j] + noise
            p += 1


@cache
def rhs_address() -> int:
    """Return the address of the compiled right-hand side, which is kept on disk."""
    return int(kept(cfunc, _entry, SIGNATURE, **OPTIONS).address)


@cache
def rhs_function() -> Callable[..., None]:
    """Return it for Python callers: time, and the addresses of the four arrays."""
    return ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)(rhs_address())


def averages_at(t: float, state: np.ndarray, par: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Return the averages over a fresh example at packed states: D, flat, and what they add to the correction."""
    n = len(state)
    y = np.concatenate([state, np.zeros(n + n * (n + 1) // 2)])
    out = np.empty_like(y)
    rhs_function()(t, *(array.ctypes.data for array in (y, out, par, work)))
    return work[: n * n + n].copy()


def _entry(t, y, dy, par, work):
    n = int(par[2])
    length = 2 * n + n * (n + 1) // 2
    _rhs(t, carray(y, length), carray(dy, length), carray(par, int(par[0])), carray(work, int(par[1])))
