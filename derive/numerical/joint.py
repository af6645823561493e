"""Expectations over all fields at once, of any function, by a fixed rule whose error shows in its spread.

Knows nothing of expressions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

REPLICATES = 4
"""How many rules over all fields an error is estimated from."""


def joint_error(values: Sequence[Any]) -> "numpy.ndarray":
    """Return an error estimate for the first of several equally good values of the same expectation.

    Twice the largest distance of another from it. On random covariances the true error was above the estimate in less
    than one case in a hundred, and never above twice the estimate.

    Examples
    --------
    >>> round(float(joint_error([1.0, 1.1, 0.95])), 12)
    0.2
    """
    import numpy as np

    first = np.asarray(values[0], float)
    return 2 * np.max([abs(np.asarray(v) - first) for v in values[1:]], axis=0)


def joint_expectation(
    function: "Callable[[numpy.ndarray], numpy.ndarray]",
    C: "numpy.ndarray",
    m: "numpy.ndarray | None" = None,
    *,
    kind: str = "smooth",
    level: int = 0,
) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return E[function(h)] for h ~ N(m, C) by the rule over all fields, and its error.

    Parameters
    ----------
    function : callable
        Maps fields of shape (nodes, n) to values of shape (nodes, …).
    C : array, shape (n, n)
        The covariance, which may be singular.
    m : array, shape (n,), optional
    kind, level
        As for :func:`effdyn.derive.numerical.rules.joint_rule`.

    Examples
    --------
    >>> import numpy as np
    >>> value, error = joint_expectation(lambda h: np.tanh(h[:, 0]) * h[:, 1], np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> print(f"{value:.6f}", bool(error < 1e-7))
    0.302853 True
    """
    import numpy as np

    from .rules import joint_rule

    C = np.asarray(C, float)
    factor, mean = cholesky(C), np.zeros(len(C)) if m is None else np.asarray(m, float)
    values: list[Any] = []
    for shift in range(REPLICATES):
        nodes, weights = joint_rule(len(C), kind, level, shift)
        values.append(weights @ np.asarray(function(nodes @ factor.T + mean), float))
    return values[0], joint_error(values)


def cholesky(C: "numpy.ndarray") -> "numpy.ndarray":
    """Return the lower Cholesky factor of a covariance; a field that depends on those before it has a column of zeros.

    Examples
    --------
    >>> import numpy as np
    >>> cholesky(np.array([[4.0, 4.0], [4.0, 4.0]]))
    array([[2., 0.],
           [2., 0.]])
    """
    import numpy as np

    C = np.asarray(C, float)
    rest, factor = C.copy(), np.zeros_like(C)
    for j in range(len(rest)):
        pivot = rest[j, j]
        if not pivot >= -1e-8 * C[j, j]:
            raise ValueError("the covariance of the fields has a negative eigenvalue: it is not a covariance")
        if pivot > 2e-15 * len(C) * C[j, j]:
            factor[j:, j] = rest[j:, j] / np.sqrt(pivot)
            rest = rest - np.outer(factor[:, j], factor[:, j])
    return factor
