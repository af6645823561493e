"""Two-layer linear regression from given weights, as a value: its data, its imbalance, its bounds, its end."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import Described, nearest

from .bounds import BOUNDS, RateBound
from .flow import limit_of_flow
from .imbalance import Imbalance, imbalance
from .reduction import Reduction, checked_data, matrix, reduce_data


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TwoLayerRegression:
    r"""Gradient flow on L = ½‖Y − X U Vᵀ‖²_F, dU/dt = −∂L/∂U and dV/dt = −∂L/∂V, from initial weights.

    In the singular basis of X (see :class:`Reduction`), with U_i = Φ_iᵀU and E = Ỹ − Σ^{1/2}U_1Vᵀ, the flow is

        dU_1/dt = Σ^{1/2} E V,   dV/dt = Eᵀ Σ^{1/2} U_1,   dU_2/dt = 0,   L = ½‖E‖²_F + L*,

    and conserves Λ = U_1ᵀU_1 − VᵀV.

    Parameters
    ----------
    X : array_like, shape (n, D)
        Inputs, one row per sample.
    Y : array_like, shape (n, m)
        Labels.
    U : array_like, shape (D, h)
        Initial first layer.
    V : array_like, shape (m, h)
        Initial second layer.
    normalisation : {"sum", "mean"}
        Whether the loss is the sum over samples, as above, or that over n. The flow of the mean takes n times as long:
        t_sum = t_mean/n. Losses, rates and times are all in the convention chosen. Gradient descent with step η is
        at t = η·steps in both.

    Attributes
    ----------
    X, Y, U, V : ndarray
        As given, and read-only.
    data : Reduction
        Data in the singular basis of X; divided by √n first where the loss is a mean.

    Raises
    ------
    ModelError
        Shapes do not fit, entries are not finite, or all inputs are zero.

    Examples
    --------
    >>> problem = TwoLayerRegression(X=[[1.0, 0.0]], Y=[[2.0]], U=[[1.0], [0.5]], V=[[0.5]])
    >>> problem
    TwoLayerRegression(n=1, D=2, m=1, h=1, rank 1, loss 1.125)
    >>> print(problem.bound("v2"))
    loss − L* <= 1.125·exp(−2.5 t)   (v2)
    >>> problem.in_invariant_set()
    False

    Notes
    -----
    Source: H. Min, S. Tarmoun, R. Vidal & E. Mallada, arXiv:2105.06351, section 2.
    """

    X: np.ndarray
    Y: np.ndarray
    U: np.ndarray
    V: np.ndarray
    normalisation: str = "sum"
    data: Reduction = field(init=False)

    def __post_init__(self) -> None:
        X, Y = checked_data(self.X, self.Y, self.normalisation)
        U = matrix("U", self.U, "first layer, one row per input dimension")
        if len(U) != X.shape[1]:
            raise ModelError("U", Described(f"an array of shape {U.shape}"), f"{X.shape[1]} rows, one per column of X")
        V = matrix("V", self.V, "second layer, one column per hidden unit, as U has", columns=U.shape[1])
        if len(V) != Y.shape[1]:
            raise ModelError("V", Described(f"an array of shape {V.shape}"), f"{Y.shape[1]} rows, one per column of Y")
        given = (("X", np.array(self.X, float)), ("Y", np.array(self.Y, float)), ("U", U), ("V", V))
        for name, values in given:
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        object.__setattr__(self, "data", reduce_data(X, Y))

    # -- in the basis of the inputs --

    @property
    def U1(self) -> np.ndarray:
        """Return Φ_1ᵀU, shape (r, h): the first layer along directions that the inputs span."""
        return self.data.seen.T @ self.U

    @property
    def U2(self) -> np.ndarray:
        """Return Φ_2ᵀU, shape (D − r, h): the first layer along the others, which training never changes."""
        return self.data.unseen.T @ self.U

    @property
    def E(self) -> np.ndarray:
        """Return the residual Ỹ − Σ^{1/2}U_1Vᵀ, shape (r, m)."""
        return self.residual(self.U, self.V)

    @property
    def Lambda(self) -> np.ndarray:
        """Return the imbalance U_1ᵀU_1 − VᵀV, shape (h, h)."""
        return self.U1.T @ self.U1 - self.V.T @ self.V

    @property
    def imbalance(self) -> Imbalance:
        """Return the eigenvalues of Λ that the bounds need, without forming it."""
        return imbalance(self.U1, self.V)

    def residual(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return E of any weights."""
        root = np.sqrt(self.data.eigenvalues)[:, None]
        return self.data.target - root * (self.data.seen.T @ U) @ V.T

    @property
    def excess(self) -> float:
        """Return L − L* of the initial weights."""
        return 0.5 * float((self.E**2).sum())

    @property
    def loss(self) -> float:
        """Return L of the initial weights."""
        return self.excess + self.data.floor

    # -- how fast --

    def bound(self, name: str) -> RateBound:
        """Return a bound on the loss: "v1", "v2" or "mvm-2023"; see :data:`BOUNDS`."""
        if name not in BOUNDS:
            raise ModelError("name", name, f"one of {', '.join(map(repr, BOUNDS))}{nearest(str(name), BOUNDS)}")
        return RateBound(BOUNDS[name], self)

    def decay_rate(self, U: Any = None, V: Any = None) -> float:
        """Return −d ln(L − L*)/dt of the flow at some weights, by default the initial ones.

        Raises
        ------
        ModelError
            The loss is L* there, and its logarithm has no derivative.
        """
        U, V = self.weights(U, V)
        E, root = self.residual(U, V), np.sqrt(self.data.eigenvalues)[:, None]
        size = float((E**2).sum())
        if size == 0:
            raise ModelError("U, V", Described("weights of loss L*"), "weights with something left to learn")
        pull = root * E
        first, second = pull @ V, pull.T @ (self.data.seen.T @ U)
        return 2 * float((first**2).sum() + (second**2).sum()) / size

    def weights(self, U: Any = None, V: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of this problem's shapes; the initial ones where none are given."""
        U = self.U if U is None else matrix("U", U, "first layer", columns=self.U.shape[1])
        V = self.V if V is None else matrix("V", V, "second layer", columns=self.V.shape[1])
        for name, values, like in (("U", U, self.U), ("V", V, self.V)):
            if values.shape != like.shape:
                raise ModelError(name, Described(f"an array of shape {values.shape}"), f"shape {like.shape}")
        return U, V

    # -- where to --

    @property
    def min_norm(self) -> np.ndarray:
        """Return X⁺Y, shape (D, m): of all W with the least loss ½‖Y − XW‖², that of the least norm."""
        return self.data.seen @ self.data.solution

    def in_invariant_set(self, tol: float = 1e-12) -> bool:
        """Return whether U_1U_2ᵀ = 0 and VU_2ᵀ = 0, a set that gradient flow does not leave.

        Whatever converges in it to L* converges to the min-norm solution. VU_2ᵀ = 0 alone does not stay, and is not
        enough.

        Parameters
        ----------
        tol : float
            Norm of both blocks, per unit of ‖[U_1; V]‖‖U_2‖.

        Notes
        -----
        Source: arXiv:2105.06351, Proposition 1 (v1).
        """
        if not (isinstance(tol, (int, float)) and 0 <= tol < 1):
            raise ModelError("tol", tol, "a number of at least 0, below 1")
        Z, U2 = np.concatenate([self.U1, self.V]), self.U2
        return bool(np.linalg.norm(Z @ U2.T) <= tol * np.linalg.norm(Z) * np.linalg.norm(U2))

    def distance(self, W: Any = None) -> float:
        """Return ‖W − X⁺Y‖_F, by default of the product U_∞V_∞ᵀ that the flow ends with."""
        D, m = self.min_norm.shape
        W = limit_of_flow(self).product if W is None else matrix("W", W, "a linear map, input by output", columns=m)
        if W.shape != (D, m):
            raise ModelError("W", Described(f"an array of shape {W.shape}"), f"shape ({D}, {m})")
        return float(np.linalg.norm(W - self.min_norm))

    def __repr__(self) -> str:
        (n, D), (m, h) = self.X.shape, self.V.shape
        rank = self.data.eigenvalues.size
        return f"TwoLayerRegression(n={n}, D={D}, m={m}, h={h}, rank {rank}, loss {self.loss:.6g})"
