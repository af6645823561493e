"""What is measured on a finite network besides its order parameters, from the overlaps of each run at each time.

Built from the model alone; the names are those of the theory's observables. The averages ``eg`` or ``error_rate`` and
``loss`` are taken by the most exact of three ways that a model admits:

* the squared loss on real labels of a committee or of a polynomial target: deterministic, to about 1e-13 of the terms
  for smooth activations and 1e-8 for kinks off the origin (:mod:`.generalisation`);
* a linear student on labels ±1 that are made of one field, or of a linear teacher: deterministic, to about 1e-12
  (:mod:`.gaussian_output`);
* anything else: over 4096 points drawn anew for each run (:mod:`.sampling`), so that what they miss is part of the
  scatter over runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .gaussian_output import error_rate_and_loss, has_gaussian_output, has_gaussian_residual, loss_of_residual
from .generalisation import generalisation_error, has_quadrature
from .inputs import Inputs
from .sampling import Sampler
from .shifted import as_biases

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent


def observables(
    model: TeacherStudent,
    inputs: Inputs,
    state: dict[str, np.ndarray],
    keys: Sequence[Sequence[tuple[int, int]]],
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return ``eg`` or ``error_rate``, ``loss`` (run, d, t), ``cosine`` (…, K, M), ``cosine_students`` (…, K, K).

    ``eg`` is free of noise, ``loss`` is not. A cosine with a vector of length 0 is NaN.

    Parameters
    ----------
    model, inputs :
        Functions and output scale; T, b, teacher's biases and noise.
    state : dict of ndarray
        Q, R, a, and bias where there are any, with axes run, d, t before their own.
    keys : nested sequence of (int, int), shape (run, d)
        The number of each run, and d.
    threads : int
        How many to use, where points are drawn; the result does not depend on it.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        quality, loss = _averages(*_centred(model, *of_fields(inputs, state)), keys, threads)
    name = "eg" if inputs.labels == "real" else "error_rate"
    for label, average in ((name, quality), ("loss", loss)):
        if not np.isfinite(average).all():
            warnings.warn(
                f"{label} is not finite: the average does not exist for this model (as E[g(h)²] for g = 1/h), or the "
                "overlaps are huge",
                RuntimeWarning,
                stacklevel=4,
            )
            break
    weights, vectors = added_up(inputs, state, np.ones_like(inputs.input_variance))
    Q, R = vectors["Q"], vectors["R"]
    own, hers = np.sqrt(np.einsum("...ii->...i", Q)), np.sqrt(np.diag(weights.T))
    with np.errstate(invalid="ignore"):
        return {
            name: quality,
            "loss": loss,
            "cosine": R / own[..., :, None] / hers,
            "cosine_students": Q / own[..., :, None] / own[..., None, :],
        }


def _centred(
    model: TeacherStudent, inputs: Inputs, state: dict[str, np.ndarray]
) -> tuple[TeacherStudent, Inputs, dict[str, np.ndarray]]:
    """Return what has the same averages on inputs without a mean."""
    return as_biases(model, inputs, state) if inputs.shifted else (model, inputs, state)


def of_fields(inputs: Inputs, state: dict[str, np.ndarray]) -> tuple[Inputs, dict[str, np.ndarray]]:
    """Return covariances of fields for overlaps: of inputs in blocks, their sum weighted by the inputs' variance."""
    return added_up(inputs, state, inputs.input_variance)


def added_up(inputs: Inputs, state: dict[str, np.ndarray], weight: np.ndarray) -> tuple[Inputs, dict[str, np.ndarray]]:
    """Return inputs and states with the overlaps of blocks added up with weights; isotropic ones as they are."""
    if not inputs.in_blocks:
        return inputs, state
    total = {name: np.einsum("g,...gij->...ij", weight, state[name]) for name in ("Q", "R")}
    return replace(inputs, T=np.einsum("g,gij->ij", weight, inputs.T)), state | total


def _averages(
    model: TeacherStudent,
    inputs: Inputs,
    state: dict[str, np.ndarray],
    keys: Sequence[Sequence[tuple[int, int]]],
    threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return eg or the error rate, and the loss."""
    squared = inputs.labels == "real" and model.loss.name == "squared"
    eg = None
    if inputs.labels == "real" and has_quadrature(model):
        error = generalisation_error(model, inputs.K, inputs.M)
        bias = state.get("bias", 0.0)
        eg = error(state["Q"], state["R"], inputs.T, state["a"], inputs.b, bias, inputs.teacher_bias)
    elif has_gaussian_output(model, inputs.M):
        rate, loss = error_rate_and_loss(model, inputs, state)
        return rate, loss
    if eg is not None and has_gaussian_residual(model):
        return eg, loss_of_residual(model, inputs, state)
    if eg is None or not squared:
        quality, loss = _sampled(model, inputs, state, keys, threads)
        eg = quality if eg is None else eg
    return eg, eg + inputs.sigma**2 / 2 if squared else loss  # label noise is independent of the fields


def _sampled(
    model: TeacherStudent,
    inputs: Inputs,
    state: dict[str, np.ndarray],
    keys: Sequence[Sequence[tuple[int, int]]],
    threads: int,
) -> np.ndarray:
    """Return eg or the error rate, and the loss, shape (2, run, d, t)."""
    sampler = Sampler(model, inputs)
    places = [(r, i) for r, row in enumerate(keys) for i, _ in enumerate(row)]

    def one(place: tuple[int, int]) -> np.ndarray:
        r, i = place
        return sampler({name: array[r, i] for name, array in state.items()}, *keys[r][i])

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, places))
    return np.stack(found, axis=1).reshape(2, *state["a"].shape[:-1])
