"""Averages of a finite network from its overlaps, over points in the space of its local fields: any model, any labels.

The points are a Sobol sequence with antithetic partners, shifted at random and anew for each run, and what linearised
outputs explain is corrected to its exact mean. What is left (1e-4 to 5e-3 for numbers of order 1, the more the more
units; a tenth for polynomials of degree 6) is independent from run to run, with mean zero up to its own square: it is
part of the scatter over runs, from which the standard error of their mean is computed, and cannot pass for a
disagreement with theory. Within a run the points stay the same, so that curves are smooth in time.

Nothing here is taken from derived equations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri
from scipy.stats.qmc import Sobol

from effdyn.derive.loss import PHI, Y
from effdyn.solve.kernels.cache import load_generated

from .generated import assemble, compiled, student_unit, teacher_output
from .initial import teacher_coordinates
from .inputs import Inputs
from .printing import print_function
from .quadrature import Function

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

POINTS = 1 << 11
"""Points of the sequence; with their partners twice as many."""
ENTROPY = 0x5EED
"""Of the shifts, which do not depend on the simulation's seed: only on the run and d."""
BIASES = True


def loss_value(phi: float, y: float) -> float:
    """Return ℓ(φ, y); stands for the model's loss, here the squared one."""
    return (y - phi) ** 2 / 2


def measure_real(phi: float, output: float, noise: float, flip: float) -> tuple[float, float]:
    """Return ½(y* − φ)² and the loss with the label y* + ``noise``."""
    return (output - phi) ** 2 / 2, loss_value(phi, output + noise)


def measure_sign(phi: float, output: float, noise: float, flip: float) -> tuple[float, float]:
    """Return whether the signs of φ and y* differ, and the loss averaged over flips of the label.

    A sign of 0 is the toss of a coin, here as in training.
    """
    label = 1.0 if output > 0.0 else -1.0 if output < 0.0 else 0.0
    answer = 1.0 if phi > 0.0 else -1.0 if phi < 0.0 else 0.0
    positive = 0.5 + (0.5 - flip) * label
    return 0.5 - 0.5 * answer * label, positive * loss_value(phi, 1.0) + (1.0 - positive) * loss_value(phi, -1.0)


def measure_logistic(phi: float, output: float, noise: float, flip: float) -> tuple[float, float]:
    """Return whether the signs of φ and y* differ, and the loss averaged over the label."""
    label = 1.0 if output > 0.0 else -1.0 if output < 0.0 else 0.0
    answer = 1.0 if phi > 0.0 else -1.0 if phi < 0.0 else 0.0
    positive = 0.5 + 0.5 * math.tanh(0.5 * output)
    return 0.5 - 0.5 * answer * label, positive * loss_value(phi, 1.0) + (1.0 - positive) * loss_value(phi, -1.0)


measure = measure_real
"""Stands for the rule of the model's labels."""
MEASURES: dict[str, Callable] = {"real": measure_real, "sign": measure_sign, "logistic": measure_logistic}


def outputs(
    z: np.ndarray, teacher: np.ndarray, b: np.ndarray, teacher_bias: np.ndarray, fields: np.ndarray, out: np.ndarray
) -> None:
    """Set ``out`` (p,) to y* and ``fields`` (p, M) to the teacher's fields at the points z (p, …)."""
    M, r = teacher.shape
    for p in range(z.shape[0]):
        for n in range(M):
            hers = 0.0
            for j in range(r):
                hers += teacher[n, j] * z[p, j]
            fields[p, n] = hers
        out[p] = teacher_output(fields[p], b, teacher_bias)


def moments(
    z: np.ndarray,
    output: np.ndarray,
    hers: np.ndarray,
    weights: np.ndarray,
    own: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    scale: float,
    sigma: float,
    flip: float,
    out: np.ndarray,
) -> None:
    """Set ``out`` (t, 8, 8) to mean products of 1, five controls and the two of ``measure``, over points z (p, s + 1).

    Output and linearised output of the teacher have shape (p,); ``weights`` (t, K, s) are the students' coordinates,
    ``own`` (t, s) those of their linearised output; ``a`` and ``bias`` have shape (t, K).
    """
    times, K, s = weights.shape
    points = z.shape[0]
    row = np.empty(8)
    for t in range(times):
        total = out[t]
        total[:] = 0.0
        for p in range(points):
            phi = 0.0
            for i in range(K):
                h = bias[t, i] if BIASES else 0.0
                for j in range(s):
                    h += weights[t, i, j] * z[p, j]
                phi += a[t, i] * student_unit(h)[0]
            mine = 0.0
            for j in range(s):
                mine += own[t, j] * z[p, j]
            row[6], row[7] = measure(scale * phi, output[p], sigma * z[p, s], flip)
            row[0] = 1.0
            row[1] = np.sign(mine) * np.sign(hers[p])
            row[2] = mine * hers[p]
            row[3] = mine * mine
            row[4] = hers[p] * hers[p]
            row[5] = mine * np.sign(hers[p])
            for i in range(8):
                for j in range(i + 1):
                    total[i, j] += row[i] * row[j]
        for i in range(8):
            for j in range(i + 1):
                total[i, j] /= points
                total[j, i] = total[i, j]


def compile_moments(model: TeacherStudent) -> ModuleType:
    """Return the module whose ``outputs`` and ``moments`` are those of this file for this model."""
    return compile_measuring(model, "average", outputs, moments)


def compile_measuring(model: TeacherStudent, purpose: str, *functions: Callable) -> ModuleType:
    """Return the module of functions that call this model's units and its ``measure``."""
    rule = MEASURES[model.labels]
    loss = print_function("loss_value", {PHI: "phi", Y: "y"}, (model.loss.expr,), ("loss", model.loss))
    text = compiled(rule).replace(f"def {rule.__name__}(", "def measure(")
    name = re.sub(r"\W", "_", model.activation.name) or "custom"
    parts = loss, text, *map(compiled, functions)
    return load_generated(f"{purpose}_{name}", assemble(model, f"BIASES = {model.biases}", *parts))


class Sampler:
    """Averages of one model with given parameters, from the states of one run at one d."""

    def __init__(self, model: TeacherStudent, inputs: Inputs) -> None:
        self._kernel, self._given = compile_moments(model), inputs
        self._activation = Function.of(model.activation.expr)
        self._teacher = teacher_coordinates(inputs.T, 4 * np.finfo(float).eps * inputs.M)
        self._inverse = np.linalg.pinv(self._teacher) if self._teacher.size else np.zeros(self._teacher.T.shape)
        self._sequence = Sobol(self._teacher.shape[1] + inputs.K + 1, scramble=False).random(POINTS)
        fields, output = self._outputs(_normals(self._sequence, 0.5 / POINTS))  # for all runs the same
        self._linear = np.nan_to_num(np.linalg.lstsq(fields, output)[0]) if np.isfinite(output).all() else 0 * fields[0]

    def __call__(self, state: dict[str, np.ndarray], run: int, d: int) -> np.ndarray:
        """Return eg or the error rate, and the loss, shape (2, t), of states with t as first axis."""
        given = self._given
        a = np.ascontiguousarray(state["a"])
        bias = np.ascontiguousarray(state["bias"]) if "bias" in state else np.zeros(a.shape)
        weights = self._weights(state)
        own = np.einsum("ti,tis->ts", self._linear_student(state["Q"], a, bias), weights)
        z = _normals(self._sequence, np.random.default_rng([ENTROPY, run, d]).random(self._sequence.shape[1]))
        fields, output = self._outputs(z)
        out = np.empty((len(a), 8, 8))
        self._kernel.moments(
            z, output, fields @ self._linear, weights, own, a, bias, given.scale, given.sigma, given.flip, out
        )
        hers = np.zeros(own.shape[1])
        hers[: self._teacher.shape[1]] = self._linear @ self._teacher
        return _regressed(out, own, hers)

    def _outputs(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fields, output = np.empty((len(z), self._given.M)), np.empty(len(z))
        self._kernel.outputs(z, self._teacher, self._given.b, self._given.teacher_bias, fields, output)
        return fields, output

    def _weights(self, state: dict[str, np.ndarray]) -> np.ndarray:
        """Return the students' coordinates at each time, those in the teacher's span first."""
        along = state["R"] @ self._inverse.T
        values, vectors = np.linalg.eigh(state["Q"] - along @ along.swapaxes(-1, -2))
        # The symmetric root is the one that is unique, so that it moves smoothly in time.
        across = (vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]) @ vectors.swapaxes(-1, -2)
        return np.concatenate([along, across], axis=-1)

    def _linear_student(self, Q: np.ndarray, a: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return the coefficients of the fields in the linearised output: secants over two standard deviations."""
        sd = np.sqrt(np.einsum("tii->ti", Q))
        rise = a * (self._activation(bias + sd) - self._activation(bias - sd))
        return np.nan_to_num(np.divide(rise, sd, out=np.zeros_like(sd), where=sd > 0), posinf=0.0, neginf=0.0)


def _normals(sequence: np.ndarray, shift: np.ndarray | float) -> np.ndarray:
    """Return the points, shifted around the unit cube, as normal numbers, with their antithetic partners."""
    z = ndtri(np.clip((sequence + shift) % 1.0, 2.0**-54, 1 - 2.0**-54))
    return np.concatenate([z, -z])


def _regressed(products: np.ndarray, own: np.ndarray, hers: np.ndarray) -> np.ndarray:
    """Return the means of the two measured, corrected by those of the controls, which are known.

    The controls are made of the linearised outputs u (student) and v (teacher), ``own`` (t, s) and ``hers`` (s,) in
    white coordinates: sign(u) sign(v), u v, u², v², u sign(v).
    """
    uu, uv, vv = (own**2).sum(-1), own @ hers, np.full(len(own), hers @ hers)
    live = (uu > 0) & (vv > 0)
    rho = np.clip(np.divide(uv, np.sqrt(uu * vv), out=np.zeros_like(uv), where=live), -1, 1)
    mixed = np.divide(uv, np.sqrt(vv), out=np.zeros_like(uv), where=live) * np.sqrt(2 / np.pi)
    known = np.stack([2 / np.pi * np.arcsin(rho), uv, uu, vv, mixed], axis=-1)
    mean, measured = products[:, 0, 1:6], products[:, 0, 6:]
    gram = products[:, 1:6, 1:6] - mean[:, :, None] * mean[:, None, :]
    cross = products[:, 1:6, 6:] - mean[:, :, None] * measured[:, None, :]
    size = np.sqrt(np.clip(np.einsum("tii->ti", gram), 1e-300, None))
    inverse = np.linalg.pinv(gram / size[:, :, None] / size[:, None, :], rcond=1e-8, hermitian=True)
    offset = np.einsum("ti,tij->tj", (known - mean) / size, inverse) / size
    return (measured + np.einsum("tj,tjm->tm", offset, cross)).T
