"""Gradient descent with finite steps on linear networks: from given weights, or an ensemble of random ones.

Back-propagation through the layers as they are, and measurements on the weights; never a derived equation.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from effdyn.derive import LinearNetwork
from effdyn.derive.errors import ModelError
from effdyn.solve.linear_networks import reduce
from effdyn.solve.results import parameters_json, variable, versions_json
from effdyn.solve.streams import seed_of, seed_text

from .asked import check_count
from .simulators import simulates

Weights = list[np.ndarray]


class DescentDiverged(ArithmeticError):
    """Gradient descent left the finite numbers: its step is too large for these data.

    Attributes
    ----------
    run : int
    eta : float
    t : float
        The time since the start by which it was noticed.
    """

    def __init__(self, run: int, eta: float, t: float) -> None:
        self.run, self.eta, self.t = run, eta, t
        super().__init__(
            f"the weights of run {run} are no longer finite at t={t:.6g} with steps of eta={eta:g}: "
            "the step is too large for these data; stable ones are below 2 over the largest curvature"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.run, self.eta, self.t)


@simulates(LinearNetwork)
def simulate_descent(
    model: LinearNetwork,
    eta: Any = 1e-3,
    runs: int = 1,
    t_span: tuple[float, float] = (0.0, 10.0),
    *,
    y0: Mapping[str, Any] | Callable[[np.random.Generator], Mapping[str, Any]],
    params: Mapping[str, Any],
    t_eval: Any = None,
    reduction: str = "full",
    rng: Any = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Train a linear network by gradient descent with finite steps, and measure what a reduction describes.

    Parameters
    ----------
    model : LinearNetwork
    eta : float or sequence of float
        The size of a step; a sequence makes a study of the limit of small steps, with a dim ``eta``.
    runs : int
        Networks; more than one only where ``y0`` is random.
    t_span : (float, float)
        First and last time, t = eta·steps.
    y0 : dict or callable
        The weights ``W1``, …, ``WN``, or a function that draws them from a ``numpy.random.Generator``.
    params : dict
        As for the full flow; see :func:`effdyn.solve.correlations`.
    t_eval : array_like, optional
        Times to save, rounded to whole steps of the largest ``eta``; 101 by default.
    reduction : str
        Whose variables to measure: see :meth:`effdyn.derive.LinearNetwork.dynamics`. Of modes, only their strengths
        ``s`` in the singular vectors of the data, whether layers are aligned or not.
    rng : int, SeedSequence, Generator or None
        For random ``y0``; each run has its own stream.
    progress : bool

    Returns
    -------
    xarray.Dataset
        Dims run[, eta], t, then those of the variables. ``t`` are whole steps of the largest ``eta``; the times that
        each step has really reached, the nearest whole numbers of it, are the coordinate ``t_true`` (eta, t), and
        :func:`compare` grants what they differ by. ``parameters`` and ``y0`` in its attributes are those of the
        reduction, where all runs share them.

    Raises
    ------
    ModelError
        For a bad argument, naming it.
    DescentDiverged
        If weights are no longer finite.

    Notes
    -----
    Ctrl-C returns the runs that are finished, with a warning and ``attrs["status"] == "interrupted"``; if none is, it
    is raised.

    Examples
    --------
    >>> from effdyn import derive, solve, validate
    >>> network = derive.LinearNetwork(depth=2, inputs="whitened")
    >>> weights = dict(W1=[[0.3, 0.1]], W2=[[0.2]])
    >>> gd = validate.simulate(network, eta=0.01, t_span=(0, 4), y0=weights, params=dict(S_yx=[[1.0, 0.5]]),
    ...                        reduction="gram")
    >>> gd.S.isel(run=0, t=-1).values.round(2).ravel().tolist()
    [1.0, 0.5]
    """
    check_count("runs", runs)
    random = callable(y0)
    if runs > 1 and not random:
        raise ModelError("runs", runs, "1 where y0 is given: gradient descent is the same each time; draw y0(rng)")
    rates = _rates(eta)
    times, origin = _times(t_span, t_eval, max(rates))
    root = seed_of(rng)
    streams = root.spawn(runs)
    saved: list[list[dict[str, np.ndarray]]] = []
    first = None
    interrupted = False
    total = sum(round((times[-1] - origin) / rate) for rate in rates) * runs
    with tqdm(total=total, unit="step", unit_scale=True, disable=None if progress else True) as bar:
        try:
            for run in range(runs):
                drawn = y0(np.random.default_rng(streams[run])) if callable(y0) else y0
                reduced, given = reduce(model, reduction, drawn, params)
                first = first or (reduced, given)
                start = [np.array(drawn[layer.name], dtype=float) for layer in model.layers]
                descent = _Descent(model, given)
                saved.append(
                    [_trajectory(descent, start, reduced.measure, rate, times - origin, run, bar) for rate in rates]
                )
        except KeyboardInterrupt:
            if not saved:
                raise
            interrupted = True
            warnings.warn(
                f"interrupted: {len(saved)} of {runs} runs were finished and are returned", RuntimeWarning, stacklevel=3
            )
    assert first is not None
    true = np.array([[origin + rate * round((t - origin) / rate) for t in times] for rate in rates])
    dataset = _dataset(model, reduction, saved, rates, times, true, scalar=not np.ndim(eta))
    own = {} if random else {"y0": parameters_json(first[0].states)}
    dataset.attrs |= own | {
        "parameters": parameters_json(first[1] | (first[0].parameters if not random else {})),
        "eta": json.dumps(rates),
        "runs": len(saved),
        "engine": "gradient descent",
        "seed": seed_text(root) if random else "",
        "status": "interrupted" if interrupted else "success",
        "deterministic": int(not random),
    }
    return dataset


@dataclass(frozen=True, slots=True)
class _Descent:
    """One step of gradient descent by back-propagation."""

    model: LinearNetwork
    given: dict[str, np.ndarray]

    def step(self, weights: Weights, rate: float) -> Weights:
        """Return the weights after a step of this size."""
        s_xx, mu = self.given.get("S_xx"), float(self.given.get("mu", 0.0))
        forward: Weights = []  # W_{l-1} … W_1, the activity of each layer per unit of input
        for w in weights[:-1]:
            forward.append(w @ forward[-1] if forward else w)
        total = weights[-1] @ forward[-1] if forward else weights[-1]
        error = self.given["S_yx"] - (total if s_xx is None else total @ s_xx)
        moved = list(weights)
        for n in reversed(range(len(weights))):
            descent = error @ forward[n - 1].T if n else error
            layer_rate = rate * float(self.given.get(f"eta_{n + 1}", 1.0))
            moved[n] = weights[n] + layer_rate * (descent - mu * weights[n])
            error = weights[n].T @ error
        return moved


def _trajectory(
    descent: _Descent,
    weights: Weights,
    measure: Callable[[Weights], dict[str, np.ndarray]],
    rate: float,
    elapsed: np.ndarray,
    run: int,
    bar: Any,
) -> dict[str, np.ndarray]:
    """Return what is measured after these times since the start, t as first axis."""
    saved, made = [], 0
    for time in elapsed:
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below, and reported as divergence
            for _ in range(round(time / rate) - made):
                weights = descent.step(weights, rate)
                made += 1
                bar.update()
        if not all(np.isfinite(w).all() for w in weights):
            raise DescentDiverged(run, rate, float(time))
        saved.append(measure(weights))
    return {name: np.stack([states[name] for states in saved]) for name in saved[0]}


def _dataset(
    model: LinearNetwork,
    reduction: str,
    saved: list[list[dict[str, np.ndarray]]],
    rates: list[float],
    times: np.ndarray,
    true: np.ndarray,
    scalar: bool,
) -> xr.Dataset:
    dynamics = model.dynamics(reduction)
    quantities = {q.name: q for q in (*dynamics.states, *(e.quantity for e in dynamics.observables))}
    arrays = {name: np.array([[states[name] for states in run] for run in saved]) for name in saved[0][0]}
    variables = {
        name: variable(quantities[name], array, ("run", "eta", "t"))
        for name, array in arrays.items()
        if name in quantities
    }
    coords = {"run": np.arange(len(saved)), "eta": rates, "t": times, "t_true": (("eta", "t"), true)}
    dataset = xr.Dataset(variables, coords=coords)
    dataset.attrs = {
        "title": f"{dynamics.title}: gradient descent",
        "model": repr(model),
        "clock": dynamics.clock,
        "simulation_status": "the finite network, with finite steps",
        "versions": versions_json(),
    }
    return dataset.isel(eta=0) if scalar else dataset


def _rates(eta: Any) -> list[float]:
    try:
        rates = [float(rate) for rate in np.atleast_1d(np.asarray(eta, float))]
    except (TypeError, ValueError):
        rates = []
    if not rates or not all(np.isfinite(rate) and rate > 0 for rate in rates) or len(set(rates)) < len(rates):
        raise ModelError("eta", eta, "a positive step, or different ones in a list")
    return rates


def _times(t_span: Any, t_eval: Any, step: float) -> tuple[np.ndarray, float]:
    """Return the times to save, whole numbers of the largest step from the first time, and the first time."""
    try:
        span = np.asarray(t_span, float)
    except (TypeError, ValueError):
        raise ModelError("t_span", t_span, "two finite times, the first not after the second") from None
    if span.shape != (2,) or not np.isfinite(span).all() or span[1] < span[0]:
        raise ModelError("t_span", t_span, "two finite times, the first not after the second")
    try:
        asked = np.linspace(span[0], span[1], 101) if t_eval is None else np.asarray(t_eval, float)
    except (TypeError, ValueError):
        raise ModelError("t_eval", t_eval, f"ascending finite times in t_span={tuple(span.tolist())}") from None
    margin = 1e-9 * max(1.0, abs(span).max())
    inside = asked.ndim == 1 and asked.size and np.isfinite(asked).all() and (np.diff(asked) >= 0).all()
    if not inside or asked[0] < span[0] - margin or asked[-1] > span[1] + margin:
        raise ModelError("t_eval", t_eval, f"ascending finite times in t_span={tuple(span.tolist())}")
    if len(asked) > 1 and step > span[1] - span[0]:
        raise ModelError("eta", step, f"a step that fits into t_span, at most {span[1] - span[0]:g}")
    return span[0] + step * np.unique(np.rint((asked - span[0]) / step)), float(span[0])
