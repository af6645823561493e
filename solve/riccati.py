"""``solve.riccati``: matrix Riccati flows by their exact factor step, stable at any time and any rank."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import Described

from .results import versions_json

if TYPE_CHECKING:
    import xarray as xr

SYMMETRY = 1e-12
SLOW = 2.0
"""Seconds after which a progress bar appears."""


def riccati(F: Any, Q0: Any, t: Any, tau: float = 1.0, coupling: float = 0.5) -> "xr.Dataset":
    """Solve ``tau P' = F P + P F - 2 coupling P P`` for ``P = Q Q^T`` exactly, at any times.

    The weights of a balanced two-layer linear network on white inputs, ``Q = [W1^T; W2]``, obey
    ``tau Q' = F Q - Q Q^T Q/2`` (``coupling=0.5``; F and Q0 from
    :func:`effdyn.derive.closed_flows.matrix_riccati.start_balanced`); symmetric factors ``U' = (Y - U U^T) U`` have
    ``coupling=1``. Each step is the closed form, ``Q <- exp(F dt) Q (I + Q^T phi Q)^(-1/2)``,
    ``phi = coupling (exp(2 F dt) - 1)/F``, over a time so short that nothing overflows or cancels. There is no
    discretisation error: P agrees with tight integrations to about 1e-14 at all times and ranks, F may be singular.

    Parameters
    ----------
    F : array_like
        (n, n), symmetric.
    Q0 : array_like
        (n, h), any h.
    t : array_like
        Times from 0 on, not decreasing: (T,).
    tau : float, optional
        The clock: time is measured in units of tau.
    coupling : float, optional
        The factor of the cubic term.

    Returns
    -------
    xarray.Dataset
        ``P`` (t, row, column), and ``Q`` (t, row, hidden), a factor of it: the network's weights up to a rotation of
        the hidden layer (exactly, if h = 1).

    Raises
    ------
    ModelError
        If F is not symmetric, or for other bad arguments.

    Examples
    --------
    One balanced mode, ``s' = 2 s (c - s)`` with s the off-diagonal entry of P:

    >>> c, s0 = 1.0, 0.1
    >>> P = riccati([[0, c], [c, 0]], np.sqrt(s0) * np.ones((2, 1)), [0, 1, 30]).P
    >>> print(P[:, 1, 0].values.round(8))
    [0.1        0.45085306 1.        ]

    Source: Fukumizu (1998); Braun et al. (2022). The factor step is what makes it stable.
    """
    import xarray as xr

    F, Q, times = _checked(F, Q0, t, tau, coupling)
    factors = _factors(F, Q, times / tau, coupling)
    return xr.Dataset(
        {
            "P": (("t", "row", "column"), factors @ factors.transpose(0, 2, 1), {"long_name": "Q Q^T"}),
            "Q": (("t", "row", "hidden"), factors, {"long_name": "weights, up to a rotation of the hidden layer"}),
        },
        coords={"t": ("t", times[: len(factors)])},
        attrs={
            "title": "matrix Riccati flow",
            "clock": "t",
            "method": "factor steps",
            "theory_status": "exact",
            "status": "finished" if len(factors) == len(times) else "interrupted",
            "parameters": json.dumps({"F": F.tolist(), "tau": float(tau), "coupling": float(coupling)}),
            "versions": versions_json(),
        },
    )


def _factors(F: np.ndarray, Q: np.ndarray, times: np.ndarray, coupling: float) -> np.ndarray:
    """Return Q at each time, (T, n, h); after Ctrl-C, at the times that were reached."""
    from tqdm.auto import tqdm

    from effdyn.derive.closed_flows.factor_step import factors_at

    found: list[np.ndarray] = []
    try:
        for factor in tqdm(factors_at(F, Q, times, coupling), "matrix Riccati", len(times), unit="time", delay=SLOW):
            found.append(factor)
    except KeyboardInterrupt:
        if not found:
            raise
    return np.array(found)


def _checked(F: Any, Q0: Any, t: Any, tau: float, coupling: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    F, Q, times = (np.asarray(x, float) for x in (F, Q0, t))
    if F.ndim != 2 or F.shape[0] != F.shape[1] or not np.isfinite(F).all():
        raise ModelError("F", Described(f"an array of shape {F.shape}"), "a square matrix of finite numbers")
    if np.abs(F - F.T).max(initial=0) > SYMMETRY * np.abs(F).max(initial=0):
        raise ModelError("F", Described(f"asymmetric by {np.abs(F - F.T).max():.1e}"), "a symmetric matrix")
    if Q.ndim != 2 or len(Q) != len(F) or not np.isfinite(Q).all():
        raise ModelError("Q0", Described(f"an array of shape {Q.shape}"), f"finite numbers of shape ({len(F)}, h)")
    times = np.atleast_1d(times)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times, prepend=0.0) < 0).any():
        raise ModelError("t", times.tolist(), "finite times from 0 on, not decreasing")
    for name, value in (("tau", tau), ("coupling", coupling)):
        if not (np.isfinite(value) and value > 0):
            raise ModelError(name, value, "a number above zero")
    return (F + F.T) / 2, Q, times
