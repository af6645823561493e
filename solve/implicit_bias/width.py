r"""How far from the min-norm solution a wide, randomly initialised two-layer linear network ends.

All weights are independent and centred, with variance h^(−2α). Training never changes U_2, the first layer along
directions that no input has, and U_1 and V evolve without it. What is left of it in the end is U_2V_∞ᵀ, the distance.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import ModelError

from .flow import limit_of_flow
from .reduction import Reduction, checked_data, reduce_data

if TYPE_CHECKING:
    from .regression import TwoLayerRegression


def conditional_mean(problem: "TwoLayerRegression", variance: float) -> float:
    r"""Return E[‖U_∞V_∞ᵀ − X⁺Y‖²_F | U_1, V] = (D − r)·variance·tr(V_∞V_∞ᵀ), exact at every width.

    Parameters
    ----------
    problem : TwoLayerRegression
        Its U_1 and V are those given; its U_2 is not used.
    variance : float
        Of the entries of U_2, which are independent and centred: h^(−2α).

    Raises
    ------
    ModelError
        The variance is negative; or the flow does not reach L*, and the distance is then not U_2V_∞ᵀ alone.

    Examples
    --------
    >>> from effdyn.solve.implicit_bias import TwoLayerRegression
    >>> problem = TwoLayerRegression(X=[[1.0, 0.0]], Y=[[2.0]], U=[[1.0], [0.0]], V=[[1.0]])
    >>> round(conditional_mean(problem, variance=0.1), 9)  # U_1 = V from the start, so V_∞² = 2
    0.2
    """
    if not 0 <= variance < np.inf:
        raise ModelError("variance", variance, "a finite number of at least 0")
    end = limit_of_flow(problem)
    # The flow stops at an error of 1e-13 or so in the gradient; √(1e-12) of the target is far above what that leaves.
    if end.excess > 1e-12 * float((problem.data.target**2).sum()):
        raise ModelError(
            "problem", problem, f"one whose flow reaches L*; this ends {end.excess:.3g} above (too narrow, or a saddle)"
        )
    return problem.data.unseen.shape[1] * variance * float(np.trace(end.R))


def width_distance(X: Any, Y: Any, h: Any, alpha: Any) -> np.ndarray:
    r"""Return √E‖U_∞V_∞ᵀ − X⁺Y‖²_F of networks of large width h with weights of variance h^(−2α).

    As h → ∞ the Gram matrix of the rows of [U_1; V] starts at κI, κ = h^(1−2α), and R_∞ = √(κ² + S_∞ᵀS_∞), so

        E‖U_∞V_∞ᵀ − X⁺Y‖²_F ≃ (D − r) h^(−2α) Σ_i √(κ² + σ_i²),   i = 1 … m,

    σ_i the singular values of X⁺Y. Weights barely move where κ ≫ σ (lazy), the distance then being h^(1/2 − 2α); they
    become those of the solution where κ ≪ σ (rich), and it is h^(−α). At finite h the mean is off by a relative
    O(1/h).

    Parameters
    ----------
    X, Y : array_like, shapes (n, D) and (n, m)
        Data. The convention of the loss does not matter.
    h, alpha : array_like
        Width and exponent of the standard deviation, broadcast together.

    Returns
    -------
    ndarray
        Of the shape of h and alpha together.

    Raises
    ------
    ModelError
        A width below 1, an exponent that is not finite, or data that do not fit each other.

    Examples
    --------
    >>> width_distance([[1.0, 0.0]], [[2.0]], h=[100, 10000], alpha=0.5).round(6)
    array([0.149535, 0.014953])
    """
    data, h, alpha = _checked(X, Y, h, alpha)
    return np.sqrt(data.unseen.shape[1] * h ** (-2 * alpha) * _lengths(data, h, alpha).sum(-1))


def width_slope(X: Any, Y: Any, h: Any, alpha: Any) -> np.ndarray:
    """Return the local exponent d ln(distance)/d ln h of :func:`width_distance`.

    It is between ½ − 2α (lazy) and −α (rich), and near neither unless κ = h^(1−2α) is far from the singular values.

    Examples
    --------
    >>> width_slope([[1.0, 0.0]], [[2.0]], h=1000, alpha=[0.25, 0.4, 0.5, 0.6, 1.0]).round(3)
    array([-0.001, -0.32 , -0.5  , -0.602, -1.   ])
    """
    data, h, alpha = _checked(X, Y, h, alpha)
    lengths = _lengths(data, h, alpha)
    kappa_squared = h ** (2 - 4 * alpha)
    lazy = (kappa_squared[..., None] / lengths).sum(-1) / lengths.sum(-1)
    return -alpha + 0.5 * (1 - 2 * alpha) * lazy


def crossover_width(X: Any, Y: Any, alpha: Any) -> np.ndarray:
    """Return the widths at which κ = h^(1−2α) equals each singular value of X⁺Y: between lazy and rich.

    Parameters
    ----------
    X, Y : array_like, shapes (n, D) and (n, m)
    alpha : array_like
        Not ½, where κ = 1 at all widths.

    Returns
    -------
    ndarray, shape (…, k)
        For each alpha and each of the k singular values that are not zero, falling: σ^(1/(1−2α)). Wider networks are
        lazy for α < ½, rich for α > ½. Below 1 where no width is on the other side.

    Examples
    --------
    >>> crossover_width([[1.0, 0.0]], [[2.0]], alpha=[0.25, 0.75])
    array([[4.  ],
           [0.25]])
    """
    data, _, alpha = _checked(X, Y, 1.0, alpha)
    if (alpha == 0.5).any():
        raise ModelError("alpha", 0.5, "exponents other than 1/2, where κ = 1 whatever the width")
    sigma = np.linalg.svd(data.solution, compute_uv=False)
    sigma = sigma[sigma > sigma.max() * max(data.solution.shape) * np.finfo(float).eps]
    return np.asarray(sigma ** (1 / (1 - 2 * alpha))[..., None])


def width_bound(X: Any, Y: Any, h: Any, alpha: Any, delta: float = 0.05) -> np.ndarray:
    r"""Return the theorem's bound on ‖U_∞V_∞ᵀ − X⁺Y‖_2 (spectral norm), which holds with probability 1 − δ.

        2 C^(1/h^(1−2α)) √(m + r) (√(m + D) + ½ ln(2/δ))/h^(2α − ½),   C = exp(1 + √λ_1(Σ)/λ_r(Σ) ‖Y‖_F),

    for Gaussian weights of variance h^(−2α), ¼ < α ≤ ½, loss summed over samples, and h above a width that depends on
    the data. Its exponent is that of lazy training. Its constant is loose, by four to eleven orders of magnitude at
    α = ½ in examples: take :func:`width_distance` for a number.

    The three events that its proof needs, which have this probability for large h and which a draw can be checked for:
    λ_r(Λ) + λ_m(−Λ) > h^(1−2α); √λ_1 ‖E(0)‖_F/λ_r ≤ ln C; and the initial [U_1; V]U_2ᵀ of a norm of at most the bound
    without its first factor, C^….

    Parameters
    ----------
    X, Y : array_like, shapes (n, D) and (n, m)
    h, alpha : array_like
        Broadcast together.
    delta : float
        Probability that it fails.

    Raises
    ------
    ModelError
        An exponent outside (¼, ½], or a probability outside (0, 1).

    Examples
    --------
    >>> float(width_bound([[1.0, 0.0]], [[2.0]], h=10000, alpha=0.5)) > 1e2 * 0.014953
    True

    Notes
    -----
    Source: arXiv:2105.06351, Theorem 2 of v1, Theorem 12 of v2.
    """
    data, h, alpha = _checked(X, Y, h, alpha)
    if not ((alpha > 0.25) & (alpha <= 0.5)).all():
        raise ModelError("alpha", alpha.tolist(), "exponents above 1/4 and up to 1/2")
    if not 0 < delta < 1:
        raise ModelError("delta", delta, "a probability between 0 and 1")
    (r, m), D = data.target.shape, len(data.seen)
    norm = np.sqrt(float((data.target**2).sum()) + 2 * data.floor)
    log_c = 1 + np.sqrt(data.eigenvalues[0]) / data.eigenvalues[-1] * norm
    start = 2 * np.sqrt(m + r) * (np.sqrt(m + D) + 0.5 * np.log(2 / delta)) * h ** (0.5 - 2 * alpha)
    return np.asarray(np.exp(log_c * h ** (2 * alpha - 1)) * start)


def _checked(X: Any, Y: Any, h: Any, alpha: Any) -> tuple[Reduction, np.ndarray, np.ndarray]:
    data = reduce_data(*checked_data(X, Y))
    h, alpha = (np.asarray(given, dtype=float) for given in (h, alpha))
    if not ((h >= 1) & np.isfinite(h)).all():
        raise ModelError("h", h.tolist(), "widths of at least 1")
    if not np.isfinite(alpha).all():
        raise ModelError("alpha", alpha.tolist(), "finite exponents")
    h, alpha = np.broadcast_arrays(h, alpha)
    return data, h, alpha


def _lengths(data: Reduction, h: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return √(κ² + σ_i²), shape (…, m), the eigenvalues of R_∞."""
    sigma = np.zeros(data.target.shape[1])
    found = np.linalg.svd(data.solution, compute_uv=False)
    sigma[: found.size] = found
    return np.hypot((h ** (1 - 2 * alpha))[..., None], sigma)
