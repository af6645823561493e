"""Where gradient flow of two-layer linear regression ends, at a cost that does not grow with the width.

The equations are those of U_1 and V that :class:`effdyn.derive.LinearNetwork` derives. Turning the hidden units changes
neither the loss nor the flow, so U_1 and V, of r + m rows, are put on at most r + m hidden directions first. This is as
small as the closed flow of their Gram matrices. That one loses narrow networks, whose Gram matrices are singular, to
rounding: it escapes from saddles of rank h that a network of width h ends at.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics, LinearNetwork, ModelError
from effdyn.derive.errors import Described

from ..errors import StepLimit
from ..integrate import integrate

if TYPE_CHECKING:
    from .regression import TwoLayerRegression

Arrays = dict[str, np.ndarray]

STILL = 1e-13
"""The flow has ended when ‖∇L‖ is this small, per unit of λ_1(Σ)(‖Σ^{-1/2}Ỹ‖ + ‖U_1Vᵀ‖)‖[U_1; V]‖."""
RTOL = 1e-12
SPANS = 15
"""Of time, each three times the one before. The fastest mode has long decayed in the first; in all, those 10⁷ times
slower."""


@dataclass(frozen=True, slots=True, eq=False)
class FlowLimit:
    """The end of gradient flow.

    Attributes
    ----------
    t : float
        A time by which it had ended, to rounding.
    P : ndarray, shape (r, r)
        U_1U_1ᵀ.
    S : ndarray, shape (r, m)
        U_1Vᵀ.
    S_null : ndarray, shape (D − r, m)
        U_2Vᵀ.
    R : ndarray, shape (m, m)
        VVᵀ.
    product : ndarray, shape (D, m)
        UVᵀ = Φ_1S + Φ_2S_null, in the basis of the inputs themselves.
    excess : float
        L − L*. Zero to rounding, unless the network is too narrow or started at a saddle.
    """

    t: float
    P: np.ndarray
    S: np.ndarray
    S_null: np.ndarray
    R: np.ndarray
    product: np.ndarray
    excess: float


def limit_of_flow(problem: "TwoLayerRegression") -> FlowLimit:
    """Return where gradient flow from the initial weights ends.

    Parameters
    ----------
    problem : TwoLayerRegression

    Returns
    -------
    FlowLimit

    Raises
    ------
    StepLimit
        The flow has not ended when modes ten million times slower than the fastest have decayed: it is very stiff, or
        stays at a saddle for very long.

    Examples
    --------
    >>> from effdyn.solve.implicit_bias import TwoLayerRegression
    >>> problem = TwoLayerRegression(X=[[1.0, 0.0]], Y=[[2.0]], U=[[1.0], [0.5]], V=[[0.5]])
    >>> end = limit_of_flow(problem)
    >>> end.product.round(9)  # fits the sample; the second row is what the initial U_2 leaves
    array([[2.        ],
           [0.64417633]])
    """
    dynamics, states, params = turned_problem(problem)
    t, span, longest = 0.0, 30.0 / _fastest(states, params), np.inf
    for _ in range(SPANS):
        if _still(states, params):
            return _limit(problem, t, states)
        end = t + span
        found = integrate(dynamics, (t, end), states, params, t_eval=[end], rtol=RTOL, atol=RTOL, max_step=longest)
        states = {name: found[name].values[-1] for name in states}
        t, span, longest = end, 3 * span, _stable_step(states, params)
    size = 0.5 * float((_residual(states, params) ** 2).sum())
    raise StepLimit(f"the flow has not ended: L − L* = {size:.3g}", t, states, found)


def excess_along_flow(problem: "TwoLayerRegression", t: Any) -> np.ndarray:
    """Return L − L* of gradient flow at rising times t ≥ 0, its root to about 1e-12 of ‖Ỹ‖.

    Examples
    --------
    >>> from effdyn.solve.implicit_bias import TwoLayerRegression
    >>> problem = TwoLayerRegression(X=[[1.0]], Y=[[2.0]], U=[[1.5]], V=[[1.0]])
    >>> excess_along_flow(problem, [0.0, 1.0]).round(8)
    array([1.250e-01, 4.739e-05])
    """
    t = np.atleast_1d(np.asarray(t, dtype=float))
    if not (t.ndim == 1 and t.size and t[0] >= 0 and np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise ModelError("t", Described(np.array2string(t, threshold=6)), "finite times of at least 0 that rise")
    if t[-1] == 0:
        return np.array([problem.excess])
    dynamics, states, params = turned_problem(problem)
    found = integrate(dynamics, (0.0, float(t[-1])), states, params, t_eval=t, rtol=RTOL, atol=RTOL)
    return np.asarray(found["excess_loss"].values)


def turned_problem(problem: "TwoLayerRegression") -> tuple[Dynamics, Arrays, Arrays]:
    """Return the derived flow of U_1 and V, initial values on at most r + m hidden directions, and parameters, as
    ``solve.integrate`` takes them."""
    data = problem.data
    T = np.asarray(np.linalg.qr(np.concatenate([problem.U1, problem.V]).T, mode="r"))  # [U_1; V]ᵀ = QT
    states = {"U1": T[:, : len(problem.U1)].T, "W2": T[:, len(problem.U1) :].T}
    params = {"delta": data.eigenvalues, "C": np.sqrt(data.eigenvalues)[:, None] * data.target}
    return LinearNetwork(depth=2).dynamics("principal"), states, params


def _residual(states: Arrays, params: Arrays) -> np.ndarray:
    """Return E."""
    delta = params["delta"][:, None]
    return np.asarray((params["C"] - delta * (states["U1"] @ states["W2"].T)) / np.sqrt(delta))


def _still(states: Arrays, params: Arrays) -> bool:
    pull = np.sqrt(params["delta"])[:, None] * _residual(states, params)
    U1, V = states["U1"], states["W2"]
    gradient = np.hypot(np.linalg.norm(pull @ V), np.linalg.norm(pull.T @ U1))
    goal = np.linalg.norm(params["C"] / params["delta"][:, None])
    size = np.hypot(np.linalg.norm(U1), np.linalg.norm(V))
    return bool(gradient <= STILL * params["delta"][0] * (goal + np.linalg.norm(U1 @ V.T)) * size)


def _fastest(states: Arrays, params: Arrays) -> float:
    """Return the scale of the fastest rate: λ_1(Σ) times the size of squared weights, now or in the end."""
    goal = np.linalg.norm(params["C"] / params["delta"][:, None])
    return float(params["delta"][0] * (np.sum(states["U1"] ** 2) + np.sum(states["W2"] ** 2) + goal)) or 1.0


def _stable_step(states: Arrays, params: Arrays) -> float:
    """Return a step at which every mode of E surely decays: error control alone lets steps grow, once E is small, to
    where the method is barely stable, and E hovers at the tolerance."""
    rate = params["delta"][0] * (np.linalg.norm(states["U1"], 2) ** 2 + np.linalg.norm(states["W2"], 2) ** 2)
    return float(3.0 / rate) if rate else np.inf


def _limit(problem: "TwoLayerRegression", t: float, states: Arrays) -> FlowLimit:
    U1, V = states["U1"], states["W2"]
    Q = np.linalg.qr(np.concatenate([problem.U1, problem.V]).T)[0]
    S, S_null = U1 @ V.T, problem.U2 @ Q @ V.T
    data = problem.data
    excess = 0.5 * float(((data.target - np.sqrt(data.eigenvalues)[:, None] * S) ** 2).sum())
    return FlowLimit(t, U1 @ U1.T, S, S_null, V @ V.T, data.seen @ S + data.unseen @ S_null, excess)
