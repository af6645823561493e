"""``assert_matches``: a comparison as an assertion, for tests."""

from __future__ import annotations

from typing import Any

import xarray as xr

from .compare import compare
from .verdict import Verdict


def assert_matches(theory: xr.Dataset, simulation: xr.Dataset, **options: Any) -> Verdict:
    """Return the verdict of :func:`effdyn.validate.compare` if it is PASS; else raise, with the verdict as message.

    Parameters
    ----------
    theory, simulation, **options :
        As for ``compare``.

    Raises
    ------
    AssertionError
        For FAIL, and for UNDECIDED: a test that could not have failed is none.
    NotComparable
        If they are not of the same thing.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.linspace(0, 5, 11)
    >>> theory = xr.Dataset({"R": ("t", 1 - np.exp(-t))}, coords={"t": t})
    >>> noise = 0.03 * np.sqrt(t) * np.random.default_rng(1).standard_normal((64, t.size))
    >>> simulation = xr.Dataset({"R": (("run", "t"), theory.R.values + noise)}, coords={"t": t, "d": 1000})
    >>> assert_matches(theory, simulation).status
    'PASS'
    """
    __tracebackhide__ = True
    verdict = compare(theory, simulation, **options)
    if not verdict.passed:
        raise AssertionError(str(verdict))
    return verdict
