"""From weights and data of a linear network to what its reduced flows take: initial values and parameters."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from effdyn.derive import LinearNetwork, ModelError
from effdyn.derive.errors import Described

from .kernels.layout import read_inputs
from .linear_reductions import REDUCED, Arrays, Reduced


def correlations(X: Any, Y: Any, normalisation: str = "sum") -> Arrays:
    """Return the correlations of a regression problem, as linear networks take them.

    Parameters
    ----------
    X : array_like, shape (n, D)
        Inputs, an example a row.
    Y : array_like, shape (n, m)
        Outputs.
    normalisation : {"sum", "mean"}
        Whether the loss is the sum over examples, ½‖Y − X Wᵀ‖², or that over n: then time runs n times slower.

    Returns
    -------
    dict
        ``S_xx`` = XᵀX, ``S_yx`` = YᵀX and ``s_yy`` = tr YᵀY, over n for the mean.

    Raises
    ------
    ModelError
        If shapes do not fit, or values are not finite.

    Examples
    --------
    >>> print(correlations([[1.0, 0.0], [0.0, 2.0]], [[1.0], [1.0]])["S_yx"])
    [[1. 2.]]
    """
    x, y = _finite_matrix("X", X), _finite_matrix("Y", Y)
    if len(x) != len(y):
        raise ModelError("Y", y, f"as many examples (rows) as X has, {len(x)}")
    if normalisation not in ("sum", "mean"):
        raise ModelError("normalisation", normalisation, "'sum' or 'mean'")
    n = 1 if normalisation == "sum" else len(x)
    return {"S_xx": x.T @ x / n, "S_yx": y.T @ x / n, "s_yy": np.asarray((y**2).sum() / n)}


def reduced_inputs(
    network: LinearNetwork, reduction: str, y0: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[Arrays, Arrays]:
    """Return the initial values and parameters of a reduced flow, from weights and correlations.

    Parameters
    ----------
    network : LinearNetwork
    reduction : str
        As for :meth:`effdyn.derive.LinearNetwork.dynamics`.
    y0 : dict
        The weights ``W1``, …, ``WN``.
    params : dict
        As for the full flow; ``s_yy`` may be left out, unless the reduction is the full flow.

    Returns
    -------
    y0, params : dict
        What ``solve.integrate(network.dynamics(reduction), …)`` takes.

    Raises
    ------
    ModelError
        For bad arrays, or weights that do not fulfil a hypothesis of the reduction; it names one that holds for them.

    Warns
    -----
    RuntimeWarning
        For the Gram matrix of networks so narrow that rounding makes its flow unstable at long times.

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn import derive, solve
    >>> rng = np.random.default_rng(0)
    >>> data = correlations(rng.standard_normal((20, 5)), rng.standard_normal((20, 2)))
    >>> weights = dict(W1=rng.standard_normal((1000, 5)) / 30, W2=rng.standard_normal((2, 1000)) / 30)
    >>> network = derive.LinearNetwork(depth=2)
    >>> y0, params = reduced_inputs(network, "gram", weights, data)
    >>> sol = solve.integrate(network.dynamics("gram"), (0, 5), y0=y0, params=params)
    >>> bool(sol.excess_loss[-1] < 1e-6 * sol.excess_loss[0])
    True
    """
    reduced, given = reduce(network, reduction, y0, params)
    if reduced.violated:
        raise ModelError("y0", Described("the given weights"), f"for reduction={reduction!r} {reduced.violated}")
    if reduction in ("gram", "gram-null", "riccati"):
        _warn_if_narrow(reduced, reduction)
    wanted = {q.name for q in network.dynamics(reduction).parameters}
    return reduced.states, {k: v for k, v in (given | reduced.parameters).items() if k in wanted}


LONG_TIMES = {
    "gram": "reduction='principal' (or 'full')",
    "gram-null": "reduction='principal' (or 'full')",
    "riccati": "dynamics.closed_form(), or solve.riccati",
}


def _warn_if_narrow(reduced: Reduced, reduction: str) -> None:
    """Warn of a Gram matrix that is not of full rank: the flow keeps its rank, rounding does not."""
    s = reduced.states["S"]
    gram = np.block([[reduced.states["P"], s], [s.T, reduced.states["R"]]])
    rank, size = int(np.linalg.matrix_rank(gram, hermitian=True)), min(s.shape)
    if rank < size:
        warnings.warn(
            f"the layers have rank {rank}, the map may need {size}: this flow keeps the rank exactly, but what "
            f"rounding adds to it grows, in the end into wrong numbers; for long times take {LONG_TIMES[reduction]}",
            RuntimeWarning,
            stacklevel=3,
        )


def reduce(
    network: LinearNetwork, reduction: str, y0: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[Reduced, Arrays]:
    """Return a reduction at given weights and data, its hypotheses not enforced, and the checked parameters."""
    if not isinstance(network, LinearNetwork):
        raise ModelError("network", network, "a LinearNetwork")
    network.dynamics(reduction)  # raises where it is unknown, or does not apply
    if not isinstance(params, Mapping):
        raise ModelError("params", params, "a dict of the parameters by name")
    given = dict(params)
    inputs = read_inputs(network.dynamics(), y0, {"s_yy": 0.0, **given})
    arrays = {name: array for name, array in inputs.params.items() if name in given}
    return REDUCED[reduction](network, [inputs.y0[layer.name] for layer in network.layers], arrays), arrays


def _finite_matrix(name: str, given: Any) -> np.ndarray:
    try:
        if np.iscomplexobj(given):
            raise TypeError
        array = np.asarray(given, float)
    except (TypeError, ValueError):
        raise ModelError(name, given, "a matrix of numbers, an example a row") from None
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ModelError(
            name, Described(f"an array of shape {array.shape}"), "a matrix of finite numbers, an example a row"
        )
    return array
