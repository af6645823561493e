"""Gaussian inputs with a mean: the same training step, with one fixed vector more.

x = μ + z, z ~ N(0, I_d), |μ|² = ν² of order one, as much as one of the d components has. Fields v·x/√d have the means
m_f = v_f·μ/√d: inner products, over d, of the vectors with √d μ, a vector that does not move. It has a field as all
have, u = μ·x, on which no function depends. So m is one more row of the Gram matrix, and moves by the same increments;
and by Stein's lemma

    E[F x] = Σ_e E[∂F/∂h_e] v_e/√d + E[F] μ,

a sum over all vectors, the fixed one included. Knows nothing of activations, losses or limits.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sympy

from .dynamics import Quantity
from .errors import Described, ModelError
from .increments import NORM, D, VectorUpdate
from .output_fields import Combination, mean_of
from .pipeline import TrainingStep

I, N = sympy.symbols("i n", integer=True, positive=True)
K, M = sympy.symbols("K M", integer=True, positive=True)
CENTER = sympy.IndexedBase("u", real=True)
"""The field μ·x of the fixed vector √d μ; its only index is 1."""
MEAN = Quantity("mean", (I,), (K,), "m", "means w_i·μ/√d of the students' fields", dims=("student",))
TEACHER_MEAN = Quantity(
    "teacher_mean", (N,), (M,), r"m^{\star}", "means w*_n·μ/√d of the teachers' fields", dims=("teacher",)
)
NORM_OF_MEAN = Quantity("input_mean", latex=r"\nu", meaning="length |μ| of the inputs' mean", minimum=0.0)
MEANS = {"h": sympy.Lambda((I,), MEAN.symbol), "h_star": sympy.Lambda((N,), TEACHER_MEAN.symbol)}
BUFFER_MEAN = Quantity(
    "buffer_mean", (I,), (K,), r"\bar m", "means m_i·μ/√d of the fields of momentum buffers", dims=("student",)
)
Moving = tuple[tuple[Quantity, VectorUpdate, VectorUpdate], ...]
SLACK = 1e-9
"""How far, of its scale, m* may be beyond what a mean of that length can give."""


def shifted(step: TrainingStep, combinations: tuple[Combination, ...]) -> TrainingStep:
    """Return the training step of the same model on inputs with a mean.

    Means of fields add to biases; the overlaps of all vectors, and the covariance of fields, are as before. Momentum
    buffers have means too: one more overlap of each, of the size of their others.
    """
    means = {name: _added(law, dict(step.mean).get(name)) for name, law in MEANS.items()}
    square = NORM_OF_MEAN.base**2
    fixed = VectorUpdate(CENTER[1], sympy.S.One, sympy.S.Zero)
    length = (NORM, 2 * CENTER[1] / D, -square / D)  # |z|²/d + (2 μ·x − |μ|²)/d
    of_combinations = [
        ((str(c.base), "u"), sympy.Lambda((*law.variables, N), law.expr))
        for c in combinations
        for _, law in mean_of(c, MEANS)
    ]
    overlaps, fast = _with_length(step.overlaps, length), _with_length(step.fast, length)
    student = next(f for q, f, _ in overlaps if q.name == "R")
    buffers = [(BUFFER_MEAN, f, fixed) for q, f, _ in (*overlaps, *fast) if q.name == "S"]
    of_buffers = [
        (("m", "u"), sympy.Lambda((I, N), BUFFER_MEAN.symbol * law.expr.xreplace(_ones(law.expr))))
        for pair, law in step.idle_overlaps
        if pair == ("m", "h_star")
    ]
    return replace(
        step,
        title=f"{step.title}, inputs with a mean",
        mean=(*means.items(), *(block for c in combinations for block in mean_of(c, means))),
        overlaps=(
            *overlaps,
            (MEAN, student, fixed),
            *([] if fast else buffers),
        ),
        fast=(*fast, *(buffers if fast else [])),
        idle=(*step.idle, CENTER),
        idle_overlaps=(
            *step.idle_overlaps,
            *of_buffers,
            (("h", "u"), sympy.Lambda((I, N), MEAN.symbol)),
            (("h_star", "u"), sympy.Lambda((N, I), TEACHER_MEAN.symbol)),
            (("u", "u"), sympy.Lambda((I, N), square)),
            *of_combinations,
        ),
        center=CENTER[1],
        parameters=(*step.parameters, TEACHER_MEAN, NORM_OF_MEAN),
        assumptions=(
            "inputs x ~ N(μ, I_d), |μ|² of order one, independent of each other and each seen once (one-pass SGD)",
            *step.assumptions[1:],
        ),
    )


def _ones(expr: sympy.Expr) -> dict[sympy.Basic, sympy.Expr]:
    """Return what leaves of an overlap the factor in front of it."""
    return dict.fromkeys(expr.atoms(sympy.Indexed), sympy.S.One)


def _with_length(moving: Moving, length: tuple[sympy.Expr, ...]) -> Moving:
    """Return overlaps whose vectors are moved by inputs of another length."""
    return tuple((q, replace(f, length=length), replace(g, length=length)) for q, f, g in moving)


def check_mean(values: Mapping[str, Any]) -> None:
    """Refuse means of fields that no μ of that length gives: the overlaps of all vectors and √d μ must be possible.

    Raises
    ------
    ModelError
    """
    import numpy as np

    T, hers = values["T"], values[TEACHER_MEAN.name][..., None]
    square = np.reshape(values[NORM_OF_MEAN.name] ** 2, (1, 1))
    checks = [(f"params[{TEACHER_MEAN.name!r}]", "the teacher", T, hers)]
    if "Q" in values:  # not in the mean field, whose states are other overlaps
        R, means = values["R"], np.concatenate([hers, values[MEAN.name][..., None]])
        checks.append((f"y0[{MEAN.name!r}]", "all vectors", np.block([[T, R.T], [R, values["Q"]]]), means))
    if BUFFER_MEAN.name in values:
        P, V, S = (values[name] for name in ("P", "V", "S"))
        gram = np.block([[T, R.T, S.T], [R, values["Q"], P], [S, P.T, V]])
        means = np.concatenate([means, values[BUFFER_MEAN.name][..., None]])
        checks.append((f"y0[{BUFFER_MEAN.name!r}]", "all vectors and buffers", gram, means))
    for place, name, others, means in checks:
        gram = np.block([[square, means.T], [means, others]])
        eigenvalues = np.linalg.eigvalsh(gram)
        if eigenvalues[0] < -SLACK * max(eigenvalues[-1], 1.0):
            given = Described(f"means with which the overlaps have the eigenvalue {eigenvalues[0]:.3g}")
            accepted = f"w·μ/√d of actual vectors: the overlaps of {name} and √d μ have no negative eigenvalue"
            raise ModelError(place, given, accepted)


def _added(law: sympy.Lambda, bias: sympy.Lambda | None) -> sympy.Lambda:
    return law if bias is None else sympy.Lambda(law.variables, law.expr + bias(*law.variables))
