"""The generalisation error of a finite network from its overlaps, by deterministic quadrature of the model's own
functions.

eg = ½ E[(Σ_n b_n g̃(h*_n) − s Σ_i a_i g(h_i))²] is a sum of two-point functions E[f(u) g(v)] of jointly Gaussian
fields. No derived equation enters: a mistake in a closed form cannot hide in both theory and simulation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
import sympy

from effdyn.derive.activation import Activation, X

from .generated import KINKED

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

ROWS = 2048
"""Points treated at a time, to bound memory."""
MAX_DEGREE = 1024
TAIL = 1e-13
"""Share of E[g²] beyond the last degree of the Hermite series at which it is long enough."""
ANGLES, ANGLES_OFF_ORIGIN, RADII, FAR = 10, 36, 24, 9.5
"""Nodes of the polar rule for each panel, and the radius at which it ends: e^(−9.5²/2) = 2.5e-20. A kink at b ≠ 0
brings e^(−b²/2σ²cos²θ), which is flat but not analytic at cos θ = 0: measured errors are 1e-5, 1e-7, 1e-9 with 12, 24,
36 nodes."""


def generalisation_error(model: TeacherStudent, K: int, M: int) -> Callable[..., np.ndarray]:
    """Return ``eg(Q, R, T, a, b)`` of a model, vectorised over leading axes.

    Parameters
    ----------
    model : TeacherStudent
        Of which the activations and the output scale are used.
    K, M : int
        Numbers of student and teacher units.

    Returns
    -------
    callable
        Maps Q (…, K, K), R (…, K, M), T (M, M), a (…, K), b (M,) to eg (…).

    Notes
    -----
    Smooth activations use the Hermite series (Mehler's formula) E[f(u) g(v)] = Σ_n f_n g_n ρⁿ, in as many degrees as
    its error bound asks for, to about 1e-13 of E[g²]; activations with branches (relu, hard tanh), a polar product
    rule whose panels end wherever a branch does, to about 1e-14 for kinks at 0 and 1e-8 elsewhere.

    Examples
    --------
    >>> from effdyn import derive
    >>> eg = generalisation_error(derive.TeacherStudent(activation="erf"), K=1, M=1)
    >>> float(eg([[1.0]], [[0.0]], [[1.0]], [1.0], [1.0]))  # 2/π asin(1/2) = 1/3
    0.33333333...
    """
    scale = float(model.output_scale.subs({symbol: K for symbol in model.output_scale.free_symbols}))
    g = Function.of(model.activation)
    target = g if model.teacher_activation == model.activation else Function.of(model.teacher_activation)
    pairs = _polar if g.kinked or target.kinked else _hermite

    def eg(Q: np.ndarray, R: np.ndarray, T: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        Q, R, T, a, b = (np.asarray(array, dtype=float) for array in (Q, R, T, a, b))
        lead = R.shape[:-2]
        Q, R = Q.reshape(-1, K, K), R.reshape(-1, K, M)
        a = np.broadcast_to(a, (*lead, K)).reshape(-1, K)
        own, hers = np.sqrt(np.einsum("tii->ti", Q)), np.sqrt(np.diag(T))
        teacher = b @ pairs(target, target, hers[None], hers[None], T[None])[0] @ b
        out = np.empty(len(R))
        for first in range(0, len(R), ROWS):
            part = slice(first, first + ROWS)
            student = pairs(g, g, own[part], own[part], Q[part])
            cross = pairs(g, target, own[part], hers[None], R[part])
            out[part] = (
                scale**2 * np.einsum("ti,tik,tk->t", a[part], student, a[part])
                - 2 * scale * np.einsum("ti,tin,n->t", a[part], cross, b)
                + teacher
            ) / 2
        return out.reshape(lead)

    return eg


@dataclass(frozen=True, slots=True)
class Function:
    """An activation as a NumPy function, with where it is not smooth."""

    values: Callable[[np.ndarray], np.ndarray]
    kinked: bool
    breaks: tuple[float, ...]  # other than 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.values(x), dtype=float), x.shape)

    @classmethod
    def of(cls, activation: Activation) -> Function:
        """Return the numerical form of an activation."""
        values = sympy.lambdify(X, activation.expr, modules=["scipy", "numpy"])
        kinked = activation.expr.has(*KINKED, sympy.Piecewise)
        branches = (
            activation.expr.rewrite(KINKED, sympy.Piecewise).atoms(sympy.core.relational.Relational) if kinked else ()
        )
        roots = {root for branch in branches for root in sympy.solve(branch.lhs - branch.rhs, X)}
        return cls(values, kinked, tuple(sorted(float(root) for root in roots if root.is_real and root != 0)))


def _cosine(u: np.ndarray, v: np.ndarray, cov: np.ndarray) -> np.ndarray:
    scale = u[:, :, None] * v[:, None, :]
    return np.clip(np.divide(cov, scale, out=np.zeros_like(cov), where=scale > 0), -1, 1)


def _hermite(f: Function, g: Function, u: np.ndarray, v: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Return E[f(h_i) g(h_k)], shape (t, i, k), for standard deviations u (t, i), v (t or 1, k) and covariance."""
    rho = _cosine(u, v, cov)
    degree = 32
    while True:
        left, left_tail = _hermite_series(f, u, degree)
        right, right_tail = (left, left_tail) if f is g and u is v else _hermite_series(g, v, degree)
        if max(left_tail, right_tail) < TAIL or degree >= MAX_DEGREE:
            break
        degree *= 2
    if (error := np.sqrt(left_tail * right_tail)) > 1e-8:
        warnings.warn(
            f"the generalisation error is uncertain by {error:.1g} of its terms: the activation is too steep, at these "
            f"overlaps, for a Hermite series of {MAX_DEGREE} terms",
            RuntimeWarning,
            stacklevel=4,
        )
    total = np.zeros_like(rho)
    for n in range(degree - 1, -1, -1):
        total *= rho
        total += left[:, :, None, n] * right[:, None, :, n]
    return total


def _hermite_series(f: Function, sd: np.ndarray, degree: int) -> tuple[np.ndarray, float]:
    """Return the coefficients of f(sd·z) in normalised Hermite polynomials, and the largest share of E[f²] beyond them.

    By the trapezoidal rule, which is exact to rounding for entire functions under a Gaussian once its step resolves the
    product's bandwidth: √degree + 8.6 for the polynomial, no more for f where the series has converged.
    """
    step = np.pi / (np.sqrt(degree) + 9)
    z = np.arange(-np.ceil(12.5 / step), np.ceil(12.5 / step) + 1) * step
    basis = np.empty((degree, z.size))  # He_n(z)/√n! · √(φ(z)·step): bounded, so that no degree overflows
    basis[0] = np.exp(-z * z / 4) * np.sqrt(step / np.sqrt(2 * np.pi))
    for n in range(1, degree):
        basis[n] = (z * basis[n - 1] - (np.sqrt(n - 1) * basis[n - 2] if n > 1 else 0.0)) / np.sqrt(n)
    values = f(sd[..., None] * z) * basis[0]
    coefficients = values @ basis.T
    total = (values**2).sum(-1)
    tail = total - (coefficients**2).sum(-1)
    return coefficients, float(
        max(0.0, np.divide(tail, total, out=np.zeros_like(tail), where=total > 0).max(initial=0.0))
    )


def _polar(f: Function, g: Function, u: np.ndarray, v: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Return the same as :func:`_hermite` for functions with kinks or jumps.

    With u = σ_u ϱ cos θ, v = σ_v ϱ cos(θ − α), cos α the correlation, a kink at 0 is a pair of rays, θ = ±π/2 or α ±
    π/2, and one elsewhere a line, met at one ϱ for each θ; two lines cross at one θ. Gauss–Legendre panels end at all
    of them.
    """
    shape, cov = cov.shape, cov.reshape(-1)
    u, v = (np.broadcast_to(s, shape).reshape(-1) for s in (u[:, :, None], v[:, None, :]))
    alpha = np.arccos(_cosine(u[:, None], v[:, None], cov[:, None, None])).reshape(-1)
    rays = [np.full_like(alpha, -np.pi / 2), np.full_like(alpha, np.pi / 2), alpha - np.pi / 2, alpha + np.pi / 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        for p, q in product(f.breaks, g.breaks):  # where u = p meets v = q, if it does
            first, second = p / u, (q / v - np.cos(alpha) * p / u) / np.sin(alpha)
            rays.append(np.nan_to_num(np.arctan2(second, first)))
    around = np.sort(np.mod(rays, 2 * np.pi), axis=0)
    around = np.concatenate([around, around[:1] + 2 * np.pi])

    node, weight = np.polynomial.legendre.leggauss(ANGLES_OFF_ORIGIN if f.breaks or g.breaks else ANGLES)
    total = np.zeros(alpha.size)
    for start, end in pairwise(around):
        for x, w in zip((1 + node) / 2, weight / 2, strict=True):
            theta = start + (end - start) * x
            total += w * (end - start) * _radial(f, g, u * np.cos(theta), v * np.cos(theta - alpha))
    return total.reshape(shape)


def _radial(f: Function, g: Function, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return ∫ f(pϱ) g(qϱ) ϱ e^(−ϱ²/2) dϱ / 2π along each ray."""
    inner, outer = np.zeros((p.size, 1)), np.full((p.size, 1), FAR)
    ends = np.sort(np.hstack([inner, _crossings(f.breaks, p), _crossings(g.breaks, q), outer]), axis=1)
    node, weight = np.polynomial.legendre.leggauss(RADII)
    width = np.diff(ends)[:, :, None]
    radius = (ends[:, :-1, None] + width * (1 + node) / 2).reshape(p.size, -1)
    mass = (width * weight / (4 * np.pi)).reshape(p.size, -1) * radius * np.exp(-(radius**2) / 2)
    return np.einsum("ij,ij,ij->i", f(p[:, None] * radius), g(q[:, None] * radius), mass)


def _crossings(breaks: tuple[float, ...], slope: np.ndarray) -> np.ndarray:
    """Return where slope·ϱ passes a breakpoint, FAR where it does not; no more columns than a ray can pass."""
    with np.errstate(divide="ignore"):
        at = np.array(breaks)[None] / slope[:, None]
    at = np.sort(np.where((at > 0) & (at < FAR), at, FAR), axis=1)
    return at[:, : max(sum(b > 0 for b in breaks), sum(b < 0 for b in breaks))]
