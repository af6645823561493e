"""What rules over all fields at once are applied with: the factor of the covariance, and the error from their spread.

Knows nothing of expressions.
"""

from collections.abc import Sequence
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


def cholesky(C: "numpy.ndarray", spare: int = 0) -> "numpy.ndarray":
    """Return a lower triangular factor of a covariance; a field that depends on those before it has a column of zeros.

    Parameters
    ----------
    C : array, shape (n, n)
    spare : int, optional
        How many fields are known to be combinations of others; as many columns of zeros, the first, are left out.

    Returns
    -------
    array, shape (n, n - spare)

    Raises
    ------
    ValueError
        If C is not positive semidefinite.

    Examples
    --------
    >>> import numpy as np
    >>> C = np.array([[4.0, 4.0], [4.0, 4.0]])
    >>> cholesky(C), cholesky(C, spare=1).shape
    (array([[2., 0.],
           [2., 0.]]), (2, 1))
    """
    import numpy as np

    rest, factor, zero = np.array(C, float), np.zeros_like(C, float), []
    tiny = 1e-12 if spare else 2e-15 * len(C)
    for j in range(len(rest)):
        pivot = rest[j, j]
        if not pivot >= -1e-8 * C[j][j]:
            raise ValueError("the covariance of the fields has a negative eigenvalue: it is not a covariance")
        if pivot > tiny * C[j][j]:
            factor[j:, j] = rest[j:, j] / np.sqrt(pivot)
            rest = rest - np.outer(factor[:, j], factor[:, j])
        else:
            zero.append(j)
    return np.delete(factor, zero[:spare], axis=1)
