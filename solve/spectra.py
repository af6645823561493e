"""Blocks for ``TeacherStudent(inputs="blocks")`` from a spectrum of the inputs' covariance."""

from typing import Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import Described


def input_blocks(eigenvalues: Any, count: int, by: str = "directions") -> dict[str, np.ndarray]:
    """Return ``input_variance`` and ``input_share`` of blocks that stand for a spectrum.

    Eigenvalues, in ascending order, are put into ``count`` groups of neighbours; a group becomes a block whose variance
    is their mean. So Σ π_g λ_g, the variance of an input per direction, is that of the spectrum; how much else differs
    shows in a second call with more blocks.

    Parameters
    ----------
    eigenvalues : array_like, shape (n,)
        Of the covariance, or as many quantiles of its spectrum: not negative, not all zero.
    count : int
        Number of blocks, at most n.
    by : {"directions", "variance"}
        Groups of equally many eigenvalues, or of about equal parts of their sum: for spectra with a few large ones.

    Returns
    -------
    dict of ndarray, each of shape (count,)
        To be given among ``params``. Shares add up to 1.

    Raises
    ------
    ModelError
        For another argument.

    Examples
    --------
    >>> power_law = np.arange(1.0, 1001.0) ** -1.5
    >>> blocks = input_blocks(power_law, 8, by="variance")
    >>> bool(np.isclose(blocks["input_variance"] @ blocks["input_share"], power_law.mean()))
    True
    """
    values = np.sort(np.asarray(eigenvalues, dtype=float).ravel())
    if not (np.isfinite(values).all() and values.size and values[0] >= 0 and values[-1] > 0):
        raise ModelError("eigenvalues", Described("an array"), "finite numbers, not negative and not all zero")
    if not (isinstance(count, (int, np.integer)) and 1 <= count <= values.size):
        raise ModelError("count", count, f"a whole number from 1 to {values.size}, the number of eigenvalues")
    if by not in ("directions", "variance"):
        raise ModelError("by", by, "'directions' or 'variance'")
    groups = np.split(values, _cuts(values if by == "variance" else np.ones_like(values), int(count)))
    return {
        "input_variance": np.array([group.mean() for group in groups]),
        "input_share": np.array([group.size / values.size for group in groups]),
    }


def _cuts(weight: np.ndarray, count: int) -> np.ndarray:
    """Return where to cut so that each part has about the same weight, and none is empty."""
    total = np.cumsum(weight)
    wanted = np.searchsorted(total, total[-1] * np.arange(1, count) / count * (1 - 1e-12)) + 1
    room = np.arange(1, count)
    forward = np.maximum.accumulate(np.maximum(wanted, room) - room) + room  # each behind the one before
    return np.minimum(forward, weight.size - count + room)
