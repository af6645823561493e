"""Averages of a linear student, whose output is one Gaussian field, by deterministic quadrature: error rate and loss on
labels ±1 of one teacher field, and losses of y − φ where the teacher is linear too.

Of labels ±1 the teacher's output is a function f of another field, v. So both averages are integrals over φ of the
model's own functions times the mean label given φ, which for signs is a sum of error functions at the roots of f:
to about 1e-12. No derived equation enters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sympy
from scipy.special import ndtr

from effdyn.derive.activation import X
from effdyn.derive.loss import PHI, Y

from .generated import teacher_fields
from .inputs import Inputs
from .quadrature import FAR, Function, approach, panels

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

GRID = 4001
"""Points on which roots of the teacher's output are looked for, over ±9.5 standard deviations."""
ROWS = 256
"""States treated at a time, to bound memory."""


def has_gaussian_output(model: TeacherStudent, M: int) -> bool:
    """Return whether the output is one Gaussian field and the labels ±1 are made of one other."""
    if model.labels == "real" or not model.linear_student:
        return False
    return model.linear_teacher or (M == 1 if model.target is None else len(teacher_fields(model)) == 1)


def has_gaussian_residual(model: TeacherStudent) -> bool:
    """Return whether the loss is a function of y − φ, and that one Gaussian field: linear student, linear teacher."""
    linear = model.labels == "real" and model.linear_student and model.linear_teacher
    return linear and not model.loss.expr.subs(Y, PHI + X).has(PHI)


def loss_of_residual(model: TeacherStudent, inputs: Inputs, state: dict[str, np.ndarray]) -> np.ndarray:
    """Return the loss, shape (…,), of states with any leading axes, as an integral over y − φ."""
    lead = state["a"].shape[:-1]
    flat = {name: array.reshape(-1, *array.shape[len(lead) :]) for name, array in state.items()}
    mean, variance = _output(inputs, flat)
    covariance = inputs.scale * np.einsum("ti,tin,n->t", flat["a"], flat["R"], inputs.b)
    variance = variance - 2 * covariance + inputs.b @ inputs.T @ inputs.b + inputs.sigma**2
    loss = Function.of(model.loss.expr.subs(Y, PHI + X))
    kinks = np.array([loss.kinks]).reshape(1, -1)
    r, weight = panels(inputs.b @ inputs.teacher_bias - mean, np.sqrt(np.clip(variance, 0.0, None)), kinks)
    return (weight * loss(r)).sum(1).reshape(lead)


def error_rate_and_loss(model: TeacherStudent, inputs: Inputs, state: dict[str, np.ndarray]) -> np.ndarray:
    """Return the error rate and the loss, shape (2, …), of states with any leading axes."""
    lead = state["a"].shape[:-1]
    flat = {name: array.reshape(-1, *array.shape[len(lead) :]) for name, array in state.items()}
    mean, variance = _output(inputs, flat)
    teacher = _teacher(model, inputs)
    covariance = inputs.scale * np.einsum("ti,tin,n->t", flat["a"], flat["R"], teacher.direction)
    losses = Function.of(model.loss.expr.subs(Y, 1), PHI), Function.of(model.loss.expr.subs(Y, -1), PHI)
    out = np.empty((2, len(mean)))
    for first in range(0, len(mean), ROWS):
        part = slice(first, first + ROWS)
        out[:, part] = _average(losses, inputs, teacher, mean[part], variance[part], covariance[part])
    return out.reshape(2, *lead)


@dataclass(frozen=True, slots=True)
class _Teacher:
    """y* = f(v): the direction of v in the teacher's fields, its moments, where the sign of f changes and from what."""

    f: Function
    direction: np.ndarray
    mean: float
    variance: float
    roots: np.ndarray
    signs: np.ndarray


def _output(inputs: Inputs, state: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of φ, shape (t,)."""
    a = state["a"]
    mean = inputs.scale * (a * state["bias"]).sum(-1) if "bias" in state else np.zeros(len(a))
    variance = inputs.scale**2 * np.einsum("ti,tik,tk->t", a, state["Q"], a)
    return mean, np.clip(variance, 0.0, None)


def _teacher(model: TeacherStudent, inputs: Inputs) -> _Teacher:
    direction = np.zeros(inputs.M)
    if model.target is not None:
        (field,) = teacher_fields(model)
        direction[int(field.indices[0]) - 1] = 1.0
        expr = model.target.xreplace({field: X})
    elif model.linear_teacher:
        direction[:] = inputs.b
        expr = X
    else:
        direction[0] = 1.0
        expr = sympy.Float(inputs.b[0]) * model.teacher_activation.expr
    f = Function.of(expr)
    mean, variance = float(direction @ inputs.teacher_bias), float(direction @ inputs.T @ direction)
    roots, signs = _sign_changes(f, mean, np.sqrt(variance))
    return _Teacher(f, direction, mean, variance, roots, signs)


def _sign_changes(f: Callable, mean: float, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where the sign of f changes, by bisection from a grid, and the signs between: one more."""
    grid = mean + sd * FAR * np.linspace(-1, 1, GRID)
    signs = np.sign(f(grid))
    at = np.flatnonzero(np.diff(signs))
    low, high = grid[at].copy(), grid[at + 1].copy()
    for _ in range(64):
        middle = (low + high) / 2
        before = np.sign(f(middle)) == signs[at]
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return high, signs[np.concatenate([at, [GRID - 1]])]


def _average(
    losses: tuple[Function, Function],
    inputs: Inputs,
    teacher: _Teacher,
    mean: np.ndarray,
    variance: np.ndarray,
    covariance: np.ndarray,
) -> np.ndarray:
    slope = np.divide(covariance, variance, out=np.zeros_like(mean), where=variance > 0)
    rest = np.sqrt(np.clip(teacher.variance - slope * covariance, 0.0, None))
    plus, minus = losses
    with np.errstate(divide="ignore", invalid="ignore"):
        at = mean[:, None] + (teacher.roots - teacher.mean) / slope[:, None]
        steps = [approach(at, np.broadcast_to(abs(rest / slope)[:, None], at.shape))]
    kinks = np.array([[0.0, *plus.kinks, *minus.kinks]])
    phi, weight = panels(mean, np.sqrt(variance), kinks, *steps)
    hers = teacher.mean + slope[:, None] * (phi - mean[:, None])  # E[v | φ]
    sign = _mean_sign(teacher, hers, rest[:, None])
    label = (1 - 2 * inputs.flip) * sign if inputs.labels == "sign" else _mean_logistic(teacher, hers, rest)
    wrong = (1 - np.sign(phi) * sign) / 2
    loss = (1 + label) / 2 * plus(phi) + (1 - label) / 2 * minus(phi)
    return np.stack([(weight * wrong).sum(1), (weight * loss).sum(1)])


def _mean_sign(teacher: _Teacher, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return E[sign f(v)] for v ~ N(mean, sd²)."""
    total = np.full_like(mean, teacher.signs[0])
    for root, change in zip(teacher.roots, np.diff(teacher.signs), strict=True):
        total += change * ndtr((mean - root) / np.maximum(sd, 1e-300))
    return total


def _mean_logistic(teacher: _Teacher, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return E[tanh(f(v)/2)], the mean label, for v ~ N(mean, sd²), sd (t,).

    By the trapezoidal rule, whose step h resolves the poles of tanh at ±iπ: an error of e^(−2π·π/(h·slope)).
    """
    v = teacher.mean + np.sqrt(teacher.variance) * np.linspace(-6, 6, 401)
    steepest = float(abs(np.gradient(teacher.f(v), v)).max()) if teacher.variance > 0 else 0.0
    step = min(0.5, 2 * np.pi**2 / (30 * max(steepest * sd.max(), 1e-300)))
    z = np.arange(-np.ceil(8.5 / step), np.ceil(8.5 / step) + 1) * step
    total = np.zeros_like(mean)
    for node, mass in zip(z, np.exp(-z * z / 2) * step / np.sqrt(2 * np.pi), strict=True):
        total += mass * np.tanh(teacher.f(mean + sd[:, None] * node) / 2)
    return total
