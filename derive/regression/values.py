"""Which values of parameters and initial errors data can have."""

from collections.abc import Mapping
from typing import Any

from ..errors import Described, ModelError

ROUNDING = 1e-9
"""By how much a sum of fractions may exceed 1."""
FARTHEST = 1e8
"""The ratio of d and n, or of n and d, up to which the edges of the spectrum are apart by 1e-4 of their distance from
0: far above rounding."""
NEGATIVE = 1e-12
"""How negative an eigenvalue may be, per row and relative to the largest: what rounding does to a Gram matrix."""


def check_values(values: Mapping[str, Any], training: str, covariance: str) -> None:
    """Refuse values, arrays by name, that no data have; see :meth:`LinearRegression.check_values`."""
    if "r" in values:
        _check_ratio(float(values["r"]), covariance)
    if "p" in values:
        _check_fractions(values, training)
    for place, name in (("params", "gram"), ("y0", "residuals")):
        if name in values:
            _check_positive(f"{place}[{name!r}]", values[name])


def _check_ratio(r: float, covariance: str) -> None:
    if r <= 0:
        raise ModelError("params['r']", r, "above 0: d/n for d directions; one-pass training has examples without end")
    if covariance == "isotropic" and not 1 / FARTHEST <= r <= FARTHEST:
        raise ModelError("params['r']", r, f"from {1 / FARTHEST:g} to {FARTHEST:g}: beyond, all eigenvalues are equal")


def _check_fractions(values: Mapping[str, Any], training: str) -> None:
    p = values["p"]
    if p.sum() > 1 + ROUNDING:
        raise ModelError("params['p']", Described(f"fractions with sum {p.sum():.12g}"), "a sum of at most 1")
    if training != "multi-pass":
        return  # elsewhere lam are eigenvalues of the covariance, not of the data
    rank = float(values["r"]) * p[values["lam"] > 0].sum()
    if rank > 1 + ROUNDING:
        given = Described(f"positive for {rank:.6g} n directions (r = {float(values['r']):g})")
        accepted = "eigenvalues of X^T X/n, of which at most n are positive: r times the sum of their p at most 1"
        raise ModelError("params['lam']", given, accepted)


def _check_positive(argument: str, matrix: Any) -> None:
    import numpy as np

    eigenvalues = np.linalg.eigvalsh(matrix)
    low, high = eigenvalues[0], eigenvalues[-1]
    if low < -NEGATIVE * len(matrix) * max(high, 0.0) or high < 0:
        given = Described(f"matrix of shape {matrix.shape} with smallest eigenvalue {low:.3g}")
        raise ModelError(argument, given, "a matrix without negative eigenvalues, as products of vectors have")
