"""The covariance of the overlaps of initial weights, with which fluctuations begin."""

import numpy as np

from effdyn.derive import ModelError, Quantity
from effdyn.derive.fluctuations import Fluctuations

from ..kernels.layout import Inputs, packed_length


def initial_covariance(theory: Fluctuations, inputs: Inputs, initial: str) -> np.ndarray:
    """Return d times the covariance of the initial states, packed, (n, n).

    Zero for ``"exact"``. For ``"random"`` the students are, given the teacher, its projection with overlaps R plus
    normal vectors of covariance Σ = Q − R T⁺ Rᵀ per component: sums of inner products of such vectors, with a
    covariance by Isserlis' theorem.
    """
    states = theory.dynamics.states
    n = sum(packed_length(q, inputs.sizes) for q in states)
    if initial == "exact":
        return np.zeros((n, n))
    if any(inputs.y0[name].any() for name in ("P", "V") if name in inputs.y0):
        raise ModelError("initial", initial, "'exact', or momentum buffers that start at zero: others have no law here")
    full = _of_random_weights(inputs)
    entries = [(q.name, e) for q in states for e in np.ndindex(*inputs.y0[q.name].shape) if is_stored(q, e)]
    values = [[full[a, b][(*e, *f)] if (a, b) in full else 0.0 for b, f in entries] for a, e in entries]
    return np.array(values).reshape(n, n)


def _of_random_weights(inputs: Inputs) -> dict[tuple[str, str], np.ndarray]:
    """Return d times the covariance of the overlaps of random weights, by the names of two states.

    Parts of the weights in blocks of the inputs are independent, with π_g d components each. The mean of the inputs is
    a vector that is given, as the teacher's are.
    """
    y0, params = inputs.y0, inputs.params
    if "input_share" in params:
        share = params["input_share"]
        with_directions = np.flatnonzero(share)
        full: dict[tuple[str, str], np.ndarray] = {}
        for g in with_directions:
            for (a, b), values in _isserlis(y0["Q"][g], y0["R"][g], params["T"][g]).items():
                blocks = full.setdefault(
                    (a, b), np.zeros((len(share), *values.shape[:2], len(share), *values.shape[2:]))
                )
                blocks[g, :, :, g] = values / share[g]
        return full
    if "input_mean" not in params:
        return _isserlis(y0["Q"], y0["R"], params["T"])
    hers = params["teacher_mean"][None]
    T = np.block([[np.full((1, 1), params["input_mean"] ** 2), hers], [hers.T, params["T"]]])
    every = _isserlis(y0["Q"], np.column_stack([y0["mean"], y0["R"]]), T)
    QR, RR = every["Q", "R"], every["R", "R"]
    full = {("Q", "Q"): every["Q", "Q"], ("Q", "R"): QR[..., 1:], ("R", "R"): RR[:, 1:, :, 1:]}
    full |= {("Q", "mean"): QR[..., 0], ("R", "mean"): RR[:, 1:, :, 0], ("mean", "mean"): RR[:, 0, :, 0]}
    turned = {(b, a): np.moveaxis(full[a, b], range(2), (-2, -1)) for a, b in full if a != b}
    return full | turned


def _isserlis(Q: np.ndarray, R: np.ndarray, T: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Return the same for vectors whose components all have the same law."""
    along = R @ np.linalg.pinv(T, hermitian=True) @ R.T
    rest = Q - along
    full = {
        ("Q", "Q"): _pairs(Q, Q) - _pairs(along, along),
        ("Q", "R"): np.einsum("in,kj->ikjn", R, rest) + np.einsum("kn,ij->ikjn", R, rest),
        ("R", "R"): np.einsum("ij,nm->injm", rest, T),
    }
    full["R", "Q"] = np.transpose(full["Q", "R"], (2, 3, 0, 1))
    return full


def _pairs(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return A_ij B_kl + A_il B_kj at [i, k, j, l]: Wishart's covariance."""
    return np.einsum("ij,kl->ikjl", A, B) + np.einsum("il,kj->ikjl", A, B)


def is_stored(q: Quantity, entry: tuple[int, ...]) -> bool:
    """Return whether an entry is stored: of a symmetric matrix those on and above the diagonal are."""
    return not q.symmetric or entry[0] <= entry[1]
