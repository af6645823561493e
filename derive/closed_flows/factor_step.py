"""The factor step: matrix Riccati flows ``P' = F P + P F - 2 coupling P P`` for ``P = Q Q^T``, stable at any time.

Each step is the closed form over a time so short that nothing overflows or cancels; there is no discretisation error.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

STEP = 1.0
"""Of ``||F|| dt``: exponentials stay near 1, so that no direction is lost beside another."""


def factors_at(
    F: "numpy.ndarray", Q: "numpy.ndarray", times: "numpy.ndarray", coupling: float
) -> "Iterator[numpy.ndarray]":
    """Yield Q, (n, h), at increasing times from 0 on."""
    import numpy as np

    rates, modes = np.linalg.eigh(F)
    Q, now = modes.T @ Q, 0.0
    for time in times:
        steps = int(np.ceil((time - now) * np.abs(rates).max(initial=0) / STEP)) or 1
        grow, root = step_factors(rates, (time - now) / steps, coupling)
        for _ in range(steps):
            Q = factor_step(Q, grow, root)
        yield modes @ Q
        now = time


def step_factors(rates: "numpy.ndarray", dt: float, coupling: float) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return ``exp(F dt)`` and the square root of phi for eigenvalues of F; for eigenvalue 0, phi is its limit.

    Examples
    --------
    >>> import numpy as np
    >>> grow, root = step_factors(np.array([0.0, 1.0]), 0.5, coupling=0.5)
    >>> print(grow.round(6), (root**2).round(6))
    [1.       1.648721] [0.5      0.859141]
    """
    import numpy as np

    nonzero = np.where(rates == 0, 1.0, rates)
    phi = np.where(rates == 0, 2 * dt, np.expm1(2 * rates * dt) / nonzero)
    return np.exp(rates * dt), np.sqrt(coupling * phi)


def factor_step(Q: "numpy.ndarray", grow: "numpy.ndarray", root: "numpy.ndarray") -> "numpy.ndarray":
    """Return ``exp(F dt) Q (I + Q^T phi Q)^(-1/2)`` in the eigenbasis of F.

    By the singular values of ``phi^(1/2) Q``, which are accurate where the eigenvalues of its square are not; what is
    orthogonal to all of them is left alone, so that hidden layers wider than n lose nothing.
    """
    import numpy as np

    _, values, right = np.linalg.svd(root[:, None] * Q, full_matrices=False)
    size = np.hypot(1.0, values)
    shrink = values**2 / (size * (1 + size))  # 1 - 1/size, without cancellation
    return grow[:, None] * (Q - ((Q @ right.T) * shrink) @ right)
