"""The generalisation error of a finite network from its overlaps, by deterministic quadrature of the model's own
functions.

eg = ½ E[(y* − s Σ_i a_i g(h_i))²] is a sum of two-point functions E[f(u) g(v)] of jointly Gaussian fields where the
teacher is a committee, and of Hermite coefficients where y* is a polynomial of its fields. No derived equation enters:
a mistake in a closed form cannot hide in both theory and simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from .generated import teacher_fields
from .quadrature import Function, panels
from .two_point import hermite_series, two_point

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

ROWS = 2048
"""Points treated at a time, to bound memory."""
NODES = 20_000
"""Up to this many nodes a polynomial target is integrated exactly."""


def has_quadrature(model: TeacherStudent) -> bool:
    """Return whether :func:`generalisation_error` can do a model: not a target that is no polynomial or of too many
    fields, nor kinks with biases.
    """
    g = Function.of(model.activation.expr)
    if model.target is None:
        return not (model.biases and (g.kinked or Function.of(model.teacher_activation.expr).kinked))
    fields = teacher_fields(model)
    if not model.target.is_polynomial(*fields) or (model.biases and g.kinked):
        return False
    return (_degree(model) + 1) ** len(fields) <= NODES


def generalisation_error(model: TeacherStudent, K: int, M: int) -> Callable[..., np.ndarray]:
    """Return ``eg(Q, R, T, a, b, bias, teacher_bias)`` of a model, vectorised over leading axes.

    Parameters
    ----------
    model : TeacherStudent
        Of which the activations, the target and the output scale are used.
    K, M : int
        Numbers of student and teacher units.

    Returns
    -------
    callable
        Maps Q (…, K, K), R (…, K, M), T (M, M), a (…, K), b (M,), bias (…, K) and teacher_bias (M,), zero by default,
        to eg (…).

    Notes
    -----
    The accuracy is that of :func:`effdyn.validate.two_point.two_point`; what a polynomial target adds is exact to
    rounding.

    Examples
    --------
    >>> from effdyn import derive
    >>> eg = generalisation_error(derive.TeacherStudent(activation="erf"), K=1, M=1)
    >>> float(eg([[1.0]], [[0.0]], [[1.0]], [1.0], [1.0]))  # 2/π asin(1/2) = 1/3
    0.33333333...
    """
    scale = float(model.output_scale.subs({symbol: K for symbol in model.output_scale.free_symbols}))
    g = Function.of(model.activation.expr)

    def eg(Q: Any, R: Any, T: Any, a: Any, b: Any, bias: Any = 0.0, teacher_bias: Any = 0.0) -> np.ndarray:
        Q, R, T, a, b, bias = (np.asarray(array, dtype=float) for array in (Q, R, T, a, b, bias))
        lead = R.shape[:-2]
        Q, R = Q.reshape(-1, K, K), R.reshape(-1, K, M)
        a, bias = (np.broadcast_to(array, (*lead, K)).reshape(-1, K) for array in (a, bias))
        teacher = teacher_of(model, g, T, b, np.broadcast_to(teacher_bias, (M,)))
        out = np.empty(len(R))
        for first in range(0, len(R), ROWS):
            part = slice(first, first + ROWS)
            own = bias[part], np.sqrt(np.einsum("tii->ti", Q[part]))
            student = two_point(g, g, own, own, Q[part])
            out[part] = (
                scale**2 * np.einsum("ti,tik,tk->t", a[part], student, a[part])
                - 2 * scale * np.einsum("ti,ti->t", a[part], teacher.cross(own, R[part]))
                + teacher.square
            ) / 2
        return out.reshape(lead)

    return eg


@dataclass(frozen=True, slots=True)
class Teacher:
    """What eg needs of a teacher: E[y*²], and E[y* g(h_i)] (t, i) from means and deviations of h (t, i) and R (t, i,
    n)."""

    square: float
    cross: Callable[[tuple[np.ndarray, np.ndarray], np.ndarray], np.ndarray]


def teacher_of(model: TeacherStudent, g: Function, T: np.ndarray, b: np.ndarray, bias: np.ndarray) -> Teacher:
    """Return the averages of the model's teacher; g is the student's activation."""
    return _committee(model, g, T, b, bias) if model.target is None else _polynomial(model, g, T)


def _committee(model: TeacherStudent, g: Function, T: np.ndarray, b: np.ndarray, bias: np.ndarray) -> Teacher:
    target = g if model.teacher_activation == model.activation else Function.of(model.teacher_activation.expr)
    hers = bias[None], np.sqrt(np.diag(T))[None]
    square = float(b @ two_point(target, target, hers, hers, T[None])[0] @ b)
    return Teacher(square, lambda own, R: two_point(g, target, own, hers, R) @ b)


def _polynomial(model: TeacherStudent, g: Function, T: np.ndarray) -> Teacher:
    """A polynomial of degree p has p + 1 Hermite coefficients m_k along a direction, E[y* g(h)] = Σ_k g_k m_k.

    With z white in the span of the teacher's fields and u = h/√Q_ii = c·z + noise, c its correlations with z, m_k =
    E[y* He_k(u)]/√k!. He_k(u) averages over the noise to the Hermite polynomial of variance |c|², H_{k+1} = c·z H_k −
    k |c|² H_{k−1}, and over z by a Gauss–Hermite product rule, exact for such polynomials.
    """
    fields, degree = teacher_fields(model), _degree(model)
    index = [int(field.indices[0]) - 1 for field in fields]
    squares, vectors = np.linalg.eigh(T[np.ix_(index, index)])
    live = squares > 1e-14 * squares.max(initial=0.0)
    factor = vectors[:, live] * np.sqrt(squares[live])
    white = vectors[:, live] / np.sqrt(squares[live])
    node, weight = np.polynomial.hermite_e.hermegauss(degree + 1)
    rank = int(live.sum())
    z = np.array(list(product(node, repeat=rank))).reshape(-1, rank)
    p = np.array([np.prod(ws) for ws in product(weight / weight.sum(), repeat=rank)])
    values = np.broadcast_to(sympy.lambdify(fields, model.target, "numpy")(*(z @ factor.T).T), len(z))
    target = values * p

    def cross(own: tuple[np.ndarray, np.ndarray], R: np.ndarray) -> np.ndarray:
        sd = own[1][..., None]
        c = np.divide(R[:, :, index] @ white, sd, out=np.zeros((*sd.shape[:2], rank)), where=sd > 0)
        along, size = c @ z.T, (c**2).sum(-1)[..., None]
        coefficients = _coefficients(g, *own, degree + 1)
        before, basis = np.zeros_like(along), np.ones_like(along)
        total = np.zeros(sd.shape[:2])
        for k in range(degree + 1):  # basis is H_k/√k!
            total += coefficients[..., k] * (basis @ target)
            before, basis = basis, (along * basis - np.sqrt(k) * size * before) / np.sqrt(k + 1)
        return total

    return Teacher(float(values @ target), cross)


def _degree(model: TeacherStudent) -> int:
    return int(sympy.Poly(model.target, *teacher_fields(model)).total_degree())


def _coefficients(g: Function, mean: np.ndarray, sd: np.ndarray, count: int) -> np.ndarray:
    """Return E[g(mean + sd·z) He_k(z)]/√k! for k < count."""
    if not g.kinked:
        return hermite_series(g, mean, sd, max(count, 32))[0][..., :count]
    x, w = panels(mean.ravel(), sd.ravel(), np.array([g.kinks]))
    z = (x - mean.ravel()[:, None]) / np.maximum(sd.ravel()[:, None], 1e-300)
    before, basis, out = np.zeros_like(z), np.ones_like(z), np.empty((mean.size, count))
    for k in range(count):
        out[:, k] = (w * g(x) * basis).sum(1)
        before, basis = basis, (z * basis - np.sqrt(k) * before) / np.sqrt(k + 1)
    return out.reshape(*mean.shape, count)
