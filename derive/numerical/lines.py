"""Integration of functions with kinks along lines: exact splitting where a kink is met, for many lines at once.

Knows nothing of expressions: functions and the quantities whose sign changes mark kinks are callables on arrays.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

REACH = 9.0
"""How many standard deviations from the origin a line is followed: what lies beyond weighs 1e-18."""
ORDER = 10
"""Of the Gauss-Legendre rule in each panel."""


def line_integrals(
    function: "Callable[[numpy.ndarray], numpy.ndarray]",
    kinks: "Sequence[Callable[[numpy.ndarray], numpy.ndarray]]",
    starts: "numpy.ndarray",
    direction: "numpy.ndarray",
    panels: int = 32,
) -> "numpy.ndarray":
    """Return ∫ function(start + direction z) φ(z) dz for each start, φ the standard normal density.

    Parameters
    ----------
    function, kinks : callable
        Map points of shape (points, n) to values of shape (points,).
    starts : array, shape (lines, n)
    direction : array, shape (n,)
    panels : int
        Into how many equal parts the line is cut at first; each kink cuts its panel once more.

    Examples
    --------
    >>> import numpy as np
    >>> lines = line_integrals(lambda h: abs(h[:, 0]), [lambda h: h[:, 0]], np.zeros((1, 1)), np.ones(1))
    >>> round(float(lines[0]), 12) == round((2 / np.pi) ** 0.5, 12)
    True
    """
    import numpy as np

    count = len(starts)
    edges = np.linspace(-REACH, REACH, panels + 1)
    line = np.repeat(np.arange(count), panels)
    low, high = np.tile(edges[:-1], count), np.tile(edges[1:], count)
    for kink in kinks:
        line, low, high = _split(partial(_on_line, kink, starts, direction), line, low, high)
    x, w = np.polynomial.legendre.leggauss(ORDER)
    z = (low + high)[:, None] / 2 + np.outer(high - low, x) / 2
    weights = np.outer(high - low, w) / 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    points = starts[np.repeat(line, ORDER)] + np.outer(z.ravel(), direction)
    values = (weights.ravel() * function(points)).reshape(z.shape).sum(axis=1)
    return np.bincount(line, values, minlength=count)


def _on_line(
    kink: "Callable[[numpy.ndarray], numpy.ndarray]",
    starts: "numpy.ndarray",
    direction: "numpy.ndarray",
    z: "numpy.ndarray",
    line: "numpy.ndarray",
) -> "numpy.ndarray":
    return kink(starts[line] + z[:, None] * direction)


def _split(
    kink: "Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]",
    line: "numpy.ndarray",
    low: "numpy.ndarray",
    high: "numpy.ndarray",
) -> "tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]":
    """Return the panels, those in which the kink's quantity changes sign cut there."""
    import numpy as np

    left, right = kink(low, line), kink(high, line)
    cut = np.flatnonzero(left * right < 0)
    if not len(cut):
        return line, low, high
    root = sign_change(lambda z: kink(z, line[cut]), low[cut], high[cut])
    ends = high[cut]
    high = high.copy()
    high[cut] = root
    return np.concatenate([line, line[cut]]), np.concatenate([low, root]), np.concatenate([high, ends])


def sign_change(
    mark: "Callable[[numpy.ndarray], numpy.ndarray]", low: "numpy.ndarray", high: "numpy.ndarray"
) -> "numpy.ndarray":
    """Return where a quantity of opposite signs at ``low`` and ``high`` changes sign, down to rounding, by bisection.

    Examples
    --------
    >>> import numpy as np
    >>> sign_change(lambda z: z**2 - 2, np.array([0.0]), np.array([2.0])).round(12)
    array([1.41421356])
    """
    import numpy as np

    sign = np.sign(mark(low))
    for _ in range(52):
        middle = (low + high) / 2
        before = np.sign(mark(middle)) == sign
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return (low + high) / 2
