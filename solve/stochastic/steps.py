"""The compiled step loops: one path, many steps, by one of three schemes.

All call the kernels by address. ``B`` is (n, m): row i holds the amplitudes of the m Brownian motions in the packed
state i. Where a path cannot go on, the state stays the last that was finite.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (compiled functions: their types are one signature, in compiled_advance)

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, types

from ..integrators.dop853 import _call
from ..kernels.kept import kept

EULER_MARUYAMA, MILSTEIN, WEAK2 = 0, 1, 2
OK, NOT_FINITE, NOT_PSD = 0, 1, 2
"""How a block of steps ends."""
NEGLIGIBLE = 1e-8
"""The part of an entry's variance that, left over after the entries before it, counts as none: what rounding, and
errors of numerical expectations, leave of zero."""
ROWS, MATRICES = 5, 3
"""Of scratch: vectors as long as the state, and values of the diffusion."""

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
# A test for finite numbers must stay one.
HELPER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}

_F8, _I8, _VECTOR, _MATRIX = types.float64, types.int64, types.float64[::1], types.float64[:, ::1]
SIGNATURE = types.int64(
    _I8, _I8, _I8, types.boolean, types.uint64[:, ::1], _F8, _F8, types.int64[::1], _I8,
    *[_VECTOR] * 9, *[_MATRIX] * 3, _MATRIX, types.int64[::1], _MATRIX,
)  # fmt: skip


@lru_cache(maxsize=1)
def compiled_advance() -> Callable[..., int]:
    """Return ``_advance``, compiled by the first call on a machine, from Numba's cache afterwards."""
    compiled: Callable[..., int] = kept(njit, _advance, SIGNATURE, **OPTIONS)
    return compiled


@lru_cache(maxsize=1)
def compiled_factor() -> Callable[[np.ndarray], bool]:
    """Return ``_factor`` for callers in Python."""
    compiled: Callable[[np.ndarray], bool] = kept(njit, _factor, types.boolean(_MATRIX), **OPTIONS)
    return compiled


@njit(**HELPER)
def _factor(C):
    """Replace a covariance by its lower triangular factor; return whether it is symmetric and has one.

    Cholesky's, where a direction without variance is a column of zeros. It is a smooth function of the covariance
    wherever that has full rank.
    """
    n = C.shape[0]
    for j in range(n):
        whole, left = C[j, j], C[j, j]
        for q in range(j):
            left -= C[j, q] * C[j, q]
        if not left >= -NEGLIGIBLE * abs(whole):
            return False
        root = math.sqrt(left) if left > NEGLIGIBLE * whole else 0.0
        for i in range(j + 1, n):
            value = C[i, j]
            if not abs(value - C[j, i]) <= NEGLIGIBLE * (abs(value) + abs(C[j, i])):
                return False
            for q in range(j):
                value -= C[i, q] * C[j, q]
            if root > 0.0:
                C[i, j] = value / root
            else:  # of a semidefinite matrix this is zero too, up to the root of what counts as none
                if value * value > 4.0 * NEGLIGIBLE * abs(whole * C[i, i]):
                    return False
                C[i, j] = 0.0
            C[j, i] = 0.0
        C[j, j] = root
    return True


@njit(**HELPER)
def _amplitudes(diffusion, factored, entries, t, y, par, work, raw, B):
    """Evaluate the diffusion at (t, y) into ``B``; return whether its covariance is one.

    ``entries`` are rows of (row, column, place, again): where the output of the kernel belongs, and whether it is added
    to what an entry before has put there. They are unsigned: no index counts from the end.
    """
    _call(diffusion, t, y, raw, par, work)
    for e in range(entries.shape[0]):
        row, column, value = entries[e, 0], entries[e, 1], raw[entries[e, 2]]
        B[row, column] = B[row, column] + value if entries[e, 3] else value
    return _factor(B) if factored else True


@njit(**HELPER)
def _add_noise(y, B, dW):
    for i in range(B.shape[0]):
        total = 0.0
        for j in range(B.shape[1]):
            total += B[i, j] * dW[j]
        y[i] += total


@njit(**HELPER)
def _milstein(diffusion, factored, entries, t, h, y, par, work, raw, a, new, support, B, there, dW):
    """One step of the explicit scheme of strong order 1 for commutative noise, into ``new``.

    With Υ_j = y + a h + b_j √h:  y + a h + Σ_j b_j ΔW_j + Σ_jk (b_k(Υ_j) − b_k) (ΔW_j ΔW_k − δ_jk h) / (2 √h).

    Source: Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, section 11.1.
    """
    n, m = B.shape
    root, inverse = math.sqrt(h), 0.5 / math.sqrt(h)
    for i in range(n):
        new[i] = y[i] + a[i] * h
    _add_noise(new, B, dW)
    for j in range(m):
        for i in range(n):
            support[i] = y[i] + a[i] * h + B[i, j] * root
        if not _amplitudes(diffusion, factored, entries, t, support, par, work, raw, there):
            return False
        for i in range(n):
            total = -(there[i, j] - B[i, j]) * h
            for k in range(m):
                total += (there[i, k] - B[i, k]) * dW[j] * dW[k]
            new[i] += total * inverse
    return True


@njit(**HELPER)
def _weak2(
    drift, diffusion, factored, entries, t, h, y, par, work, raw, a, new, end, support, ahead, B, plus, minus, dW, signs
):  # fmt: skip
    """One step of Platen's explicit scheme of weak order 2 for any Itô noise, into ``new``.

    ``dW`` takes 0 and ±√(3h) with probabilities 2/3, 1/6, 1/6; ``signs`` are ±1 for each pair j > k.

    Source: Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, section 15.1; time is one more
    state there, without noise.
    """
    n, m = B.shape
    root, inverse, later = math.sqrt(h), 0.25 / math.sqrt(h), t + h
    for i in range(n):
        end[i] = y[i] + a[i] * h
    _add_noise(end, B, dW)
    _call(drift, later, end, ahead, par, work)
    for i in range(n):
        new[i] = y[i] + 0.5 * (a[i] + ahead[i]) * h
    for j in range(m):
        for i in range(n):
            end[i] = y[i] + a[i] * h + B[i, j] * root
            support[i] = y[i] + a[i] * h - B[i, j] * root
        sound = _amplitudes(diffusion, factored, entries, later, end, par, work, raw, plus)
        if not (_amplitudes(diffusion, factored, entries, later, support, par, work, raw, minus) and sound):
            return False
        for i in range(n):
            new[i] += 0.25 * (plus[i, j] + minus[i, j] + 2.0 * B[i, j]) * dW[j]
            new[i] += (plus[i, j] - minus[i, j]) * (dW[j] * dW[j] - h) * inverse
        if m == 1:
            continue
        for i in range(n):
            end[i] = y[i] + B[i, j] * root
            support[i] = y[i] - B[i, j] * root
        sound = _amplitudes(diffusion, factored, entries, t, end, par, work, raw, plus)
        if not (_amplitudes(diffusion, factored, entries, t, support, par, work, raw, minus) and sound):
            return False
        for k in range(m):
            if k == j:
                continue
            first, second = max(j, k), min(j, k)
            area = h * signs[first * (first - 1) // 2 + second] * (1.0 if j > k else -1.0)
            for i in range(n):
                new[i] += 0.25 * (plus[i, k] + minus[i, k] - 2.0 * B[i, k]) * dW[k]
                new[i] += (plus[i, k] - minus[i, k]) * (dW[k] * dW[j] + area) * inverse
    return True


def _advance(
    scheme, drift, diffusion, factored, entries, t0, h, clock, substeps,
    y, par, work, raw, a, new, end, support, ahead, B, plus, minus, draws, saves, out,
):  # fmt: skip
    """Take as many steps as there are ``draws`` for; return how it went.

    Args:
        scheme: EULER_MARUYAMA, MILSTEIN or WEAK2.
        drift, diffusion: addresses of the kernels.
        factored: whether the diffusion is a covariance, to be factored.
        entries: see ``_amplitudes``.
        t0, h: the time of step 0, and the length of steps.
        clock: steps made, saves made; updated.
        substeps: increments of the Brownian motions that a step adds up.
        y: (n,) state; updated.
        raw: the output of the diffusion kernel.
        a, new, end, support, ahead: scratch, (n,).
        B, plus, minus: scratch, (n, m); zero where there are no entries.
        draws: (steps * substeps, m) standard normals; of WEAK2 (steps, m + m(m-1)/2) uniforms on [0, 1).
        saves, out: after which steps to save, (T,), and where, (T, n).
    """
    n, m = B.shape
    dW, signs = np.empty(m), np.empty(draws.shape[1] - m if scheme == WEAK2 else 0)
    scale = math.sqrt(3.0 * h) if scheme == WEAK2 else math.sqrt(h / substeps)
    for step in range(draws.shape[0] // substeps):
        t = t0 + clock[0] * h
        if scheme == WEAK2:
            for j in range(m):
                u = draws[step, j]
                dW[j] = scale * (-1.0 if u < 1.0 / 6.0 else 1.0 if u >= 5.0 / 6.0 else 0.0)
            for pair in range(signs.size):
                signs[pair] = 1.0 if draws[step, m + pair] < 0.5 else -1.0
        else:
            for j in range(m):
                total = 0.0
                for part in range(substeps):
                    total += draws[step * substeps + part, j]
                dW[j] = scale * total
        _call(drift, t, y, a, par, work)
        sound = _amplitudes(diffusion, factored, entries, t, y, par, work, raw, B)
        if sound and scheme == EULER_MARUYAMA:
            for i in range(n):
                new[i] = y[i] + a[i] * h
            _add_noise(new, B, dW)
        elif sound and scheme == MILSTEIN:
            sound = _milstein(diffusion, factored, entries, t, h, y, par, work, raw, a, new, support, B, plus, dW)
        elif sound:
            sound = _weak2(
                drift, diffusion, factored, entries, t, h, y, par, work, raw,
                a, new, end, support, ahead, B, plus, minus, dW, signs,
            )  # fmt: skip
        finite = True
        for i in range(n):
            finite = finite and math.isfinite(new[i] if sound else a[i])
        if not sound:
            # a covariance that is not a number is no covariance either: that path diverges
            return NOT_PSD if finite and np.isfinite(raw).all() else NOT_FINITE
        if not finite:
            return NOT_FINITE
        for i in range(n):
            y[i] = new[i]
        clock[0] += 1
        while clock[1] < saves.size and saves[clock[1]] == clock[0]:
            out[clock[1]] = y
            clock[1] += 1
    return OK
