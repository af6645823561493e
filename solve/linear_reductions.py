"""Where a linear network's weights are in each reduction of its flow: a table, by the reduction's name.

Each entry computes the states and parameters of the reduced flow from weights and correlations, tests the reduction's
hypotheses on the numbers given, and says how to measure the states on later weights.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from effdyn.derive import LinearNetwork, ModelError
from effdyn.derive.errors import Described

Arrays = dict[str, np.ndarray]
Weights = list[np.ndarray]

RANK = 1e-12
"""Eigenvalues of XᵀX below this fraction of the largest count as zero: what rounding leaves of them."""
HYPOTHESIS = 1e-8
"""How far weights may be from a hypothesis, relative to their size."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """A reduction at given weights and data.

    Attributes
    ----------
    states : dict
        Initial values of the reduced flow.
    parameters : dict
        Its parameters, without those of the optimiser.
    measure : callable
        From later weights to the states (of modes: their strengths) and observables that can be compared with it.
    violated : str
        Which hypothesis the weights do not fulfil, and by how much; empty if none.
    """

    states: Arrays
    parameters: Arrays
    measure: Callable[[Weights], Arrays]
    violated: str = ""


def end_to_end_map(weights: Weights) -> np.ndarray:
    """Return W_N … W_1, multiplied from the narrow side."""
    total = weights[-1]
    for w in weights[-2::-1]:
        total = total @ w
    return total


def _full(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    def measure(w: Weights) -> Arrays:
        return _by_name(network, w) | {"W": end_to_end_map(w)}

    return Reduced(_by_name(network, weights), data, measure)


def _by_name(network: LinearNetwork, weights: Weights) -> Arrays:
    return {layer.name: w for layer, w in zip(network.layers, weights, strict=True)}


def _principal(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    phi, null, parameters = eigenbasis(data)
    if network.weight_decay and not null.shape[1]:
        accepted = "weight_decay=False, or an S_xx with directions without data; reduction='full' holds for any"
        raise ModelError("params['S_xx']", Described("a matrix of full rank"), accepted)

    def measure(w: Weights) -> Arrays:
        states = _by_name(network, w)
        inputs = states.pop("W1").T
        unseen = {"U2": null.T @ inputs} if network.weight_decay else {}
        return {"U1": phi.T @ inputs, **unseen, **states}

    return Reduced(measure(weights), parameters, measure)


def _gram(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    if network.inputs == "whitened":
        phi, parameters = np.eye(data["S_yx"].shape[1]), {"S_yx": data["S_yx"]}
    else:
        phi, _, parameters = eigenbasis(data)

    def measure(w: Weights) -> Arrays:
        u, v = phi.T @ w[0].T, w[1]
        return {"P": u @ u.T, "S": u @ v.T, "R": v @ v.T}

    return Reduced(measure(weights), parameters, measure)


def _gram_null(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    seen = _gram(network, weights, data)
    phi, null, _ = eigenbasis(data)
    if not null.shape[1]:
        accepted = "one with directions without data; reduction='gram' is for a matrix of full rank"
        raise ModelError("params['S_xx']", Described("a matrix of full rank"), accepted)

    def measure(w: Weights) -> Arrays:
        u, unseen, v = phi.T @ w[0].T, null.T @ w[0].T, w[1]
        return seen.measure(w) | {"P_null": u @ unseen.T, "S_null": unseen @ v.T}

    return Reduced(measure(weights), seen.parameters, measure)


def _riccati(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    seen = _gram(network, weights, data)
    first, second = weights
    imbalance = second.T @ second - first @ first.T
    lam = np.trace(imbalance) / len(imbalance)
    rest = np.linalg.norm(imbalance - lam * np.eye(len(imbalance)))
    size = np.linalg.norm(first) ** 2 + np.linalg.norm(second) ** 2
    violated = _violated(
        rest / size if rest else 0.0, "λ-balanced weights, W2ᵀW2 − W1W1ᵀ = λ I", "reduction='gram' holds for any"
    )
    return Reduced(seen.states, seen.parameters | {"lam": np.asarray(lam)}, seen.measure, violated)


def _neuron(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    w, a = weights
    if w.shape[0] != 1 or a.shape[0] != 1:
        raise ModelError("y0", f"W1 of shape {w.shape}, W2 of shape {a.shape}", "one hidden unit and one output")
    rates = [float(data.get(f"eta_{n}", 1.0)) for n in (1, 2)]
    lam = rates[0] * a[0, 0] ** 2 - rates[1] * (w**2).sum()
    parameters: Arrays = {"S_yx": data["S_yx"][0], "lam": np.asarray(lam)}
    parameters |= {"S_xx": data["S_xx"]} if network.inputs == "general" else {}

    def measure(weights: Weights) -> Arrays:
        return {"beta": end_to_end_map(weights)[0]}

    return Reduced(measure(weights), parameters, measure)


def _neuron_chain(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    seen = _neuron(network, weights, data)
    (w,), a, target = weights[0], weights[1][0, 0], data["S_yx"][0]
    if a == 0 or not target.any():
        raise ModelError(
            "y0, params", Described("a or S_yx zero"), "both different from zero; reduction='neuron' is for any"
        )
    along = w @ target
    states = {"nu": along / a, "y": a**-2.0, "w_perp": w - along / (target @ target) * target}
    violated = "" if a > 0 else "a positive second layer (mirror both layers: their product is the same)"
    parameters = seen.parameters | {"target_square": np.asarray(target @ target)}
    return Reduced({k: np.asarray(v) for k, v in states.items()}, parameters, seen.measure, violated)


def _end_to_end(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    left, s, right = np.linalg.svd(end_to_end_map(weights), full_matrices=False)
    narrowest = min(min(w.shape) for w in weights)
    states = {"s": s[:narrowest], "U": left[:, :narrowest], "V": right[:narrowest].T}

    def measure(w: Weights) -> Arrays:
        total = end_to_end_map(w)
        return {"W": total, "s": np.linalg.svd(total, compute_uv=False)[:narrowest]}

    parameters: Arrays = {name: data[name] for name in ("S_xx", "S_yx") if name in data}
    return Reduced(states, parameters, measure, _unbalanced(weights) or _degenerate(states["s"]))


def _degenerate(s: np.ndarray) -> str:
    """Return which singular values are equal or zero: those of orthogonal layers, say."""
    if s[0] > 0 and s[-1] > HYPOTHESIS * s[0] and (np.diff(s) < -HYPOTHESIS * s[0]).all():
        return ""
    return f"singular values that differ and do not vanish (they are {s}); reduction='full' holds for any"


def _unbalanced(weights: Weights) -> str:
    """Return by how much layers are not balanced."""
    size = sum(np.linalg.norm(w) ** 2 for w in weights) or 1.0
    gaps = [np.linalg.norm(b.T @ b - a @ a.T) for a, b in itertools.pairwise(weights)]
    return _violated(max(gaps, default=0.0) / size, "balanced layers", "reduction='full' holds for any")


def _modes(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    aligned = _aligned(network, weights, data)
    states = {f"w{n + 1}": w for n, w in enumerate(aligned.amplitudes)}
    return Reduced(states, aligned.parameters, aligned.strengths, aligned.violated)


def _strengths(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    aligned = _aligned(network, weights, data)
    squares = aligned.amplitudes**2
    parameters = aligned.parameters | ({"lam": squares[1] - squares[0]} if network.depth == 2 else {})
    violated = aligned.violated
    if network.depth > 2 and not violated:
        violated = _violated(
            np.ptp(squares, axis=0).max() / squares.max(), "balanced modes", "reduction='chain' is for any"
        )
    return Reduced({"s": aligned.amplitudes.prod(0)}, parameters, aligned.strengths, violated)


def _chain(network: LinearNetwork, weights: Weights, data: Arrays) -> Reduced:
    aligned = _aligned(network, weights, data)
    squares = aligned.amplitudes**2
    gaps = {f"gap_{n + 1}": squares[n] - squares[0] for n in range(1, network.depth)}
    violated = aligned.violated
    if not violated and (aligned.amplitudes.prod(0) <= 0).any():
        violated = "positive mode strengths (reduction='modes' takes those of any sign)"
    return Reduced({"q": squares[0]}, aligned.parameters | gaps, aligned.strengths, violated)


@dataclass(frozen=True, slots=True)
class _Aligned:
    """Amplitudes of layers in the singular vectors of the data, (layer, mode), and how far they are from aligned."""

    amplitudes: np.ndarray
    parameters: Arrays
    strengths: Callable[[Weights], Arrays]
    violated: str


def _aligned(network: LinearNetwork, weights: Weights, data: Arrays) -> _Aligned:
    left, c, right = np.linalg.svd(data["S_yx"], full_matrices=False)
    kept = c > RANK * c.max()
    if not kept.any():
        raise ModelError("params['S_yx']", Described("zero"), "a correlation with modes to align to")
    left, c, right = left[:, kept], c[kept], right[kept].T
    s_xx = data.get("S_xx", np.eye(len(right)))
    delta = np.einsum("ia,ij,ja->a", right, s_xx, right)
    excess: list[float] = [_relative(s_xx @ right - right * delta, s_xx)]
    amplitudes, vectors = [], right
    for n, w in enumerate(weights):
        moved = w @ vectors
        last = n == len(weights) - 1
        sizes = np.einsum("ma,ma->a", left, moved) if last else np.linalg.norm(moved, axis=0)
        following = left if last else moved / np.where(sizes > 0, sizes, 1.0)
        kept_modes = following[:, sizes != 0]
        excess.append(float(np.linalg.norm(kept_modes.T @ kept_modes - np.eye(kept_modes.shape[1]))))
        excess.append(_relative(w - following * sizes @ vectors.T, w))
        amplitudes.append(sizes)
        vectors = following

    def strengths(w: Weights) -> Arrays:
        return {"s": np.einsum("ma,md,da->a", left, end_to_end_map(w), right)}

    parameters = {"c": c} if network.inputs == "whitened" else {"c": c, "delta": delta}
    violated = _violated(
        max(excess), "layers aligned with the data and with each other", "reduction='full' holds for any"
    )
    return _Aligned(np.array(amplitudes), parameters, strengths, violated)


def _relative(excess: np.ndarray, whole: np.ndarray) -> float:
    """Return the size of a matrix over that of another; of zero over zero, zero."""
    size = float(np.linalg.norm(excess))
    return size / float(np.linalg.norm(whole)) if size else 0.0


def _violated(distance: float | np.floating[Any], hypothesis: str, instead: str) -> str:
    if distance <= HYPOTHESIS:
        return ""
    return f"{hypothesis} (they are {distance:.2g} away from it, relative to their size); {instead}"


def eigenbasis(data: Arrays) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """Return the eigenvectors of XᵀX with and without data, and δ, C: the largest eigenvalue first."""
    values, vectors = np.linalg.eigh(data["S_xx"])
    values, vectors = values[::-1], vectors[:, ::-1]
    if not values[0] > 0 or values[-1] < -RANK * values[0]:
        found = Described(f"a matrix with eigenvalues from {values[-1]:.3g} to {values[0]:.3g}")
        raise ModelError("params['S_xx']", found, "a correlation XᵀX, positive semidefinite and not zero")
    rank = int((values > RANK * values[0]).sum())
    phi, null = vectors[:, :rank], vectors[:, rank:]
    outside = _relative(data["S_yx"] @ null, data["S_yx"])
    if outside > HYPOTHESIS:
        found = Described(f"a matrix of which {outside:.2g} is in directions where S_xx has no data")
        raise ModelError("params['S_yx']", found, "YᵀX of the same inputs X as S_xx")
    return phi, vectors[:, rank:], {"delta": values[:rank], "C": (data["S_yx"] @ phi).T}


REDUCED: dict[str, Callable[[LinearNetwork, Weights, Arrays], Reduced]] = {
    "full": _full,
    "principal": _principal,
    "gram": _gram,
    "gram-null": _gram_null,
    "modes": _modes,
    "strengths": _strengths,
    "chain": _chain,
    "riccati": _riccati,
    "end-to-end": _end_to_end,
    "neuron": _neuron,
    "neuron-chain": _neuron_chain,
}
