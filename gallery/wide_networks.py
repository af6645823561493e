"""Wide two-layer linear networks trained by gradient flow from random weights, and what their ends are compared with.

The networks are real: their weights are drawn, and trained by d(U, V)/dt = −∇L. Only the hidden units are turned first,
which changes neither the loss nor the flow, so that U_1 and V, of r + m rows, stand on r + m hidden directions:
training then costs the same at every width. U_2, the first layer along directions without input, is drawn and turned
too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.integrate import DOP853
from tqdm import tqdm

from effdyn import validate
from effdyn.solve.implicit_bias import TwoLayerRegression, limit_of_flow
from effdyn.solve.implicit_bias.reduction import Reduction, reduce_data

CONVERGED = 1e-8
"""‖E‖ over ‖Ỹ‖ at which training ends: distances are then known to about as much."""
PATIENCE = 1e5


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Data with a min-norm solution of given singular values.

    Attributes
    ----------
    X, Y : ndarray, shapes (n, D) and (n, m)
    data : Reduction
    """

    X: np.ndarray
    Y: np.ndarray
    data: Reduction

    @property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the singular values of the min-norm solution, and its left singular vectors in the basis Φ_1."""
        left, sigma, _ = np.linalg.svd(self.data.solution, full_matrices=False)
        return sigma, left


def task(D: int, inputs: Sequence[float], solution: Sequence[float], seed: int) -> Task:
    """Return a task with these singular values of X (n of them) and of X⁺Y (m of them), turned at random."""
    rng = np.random.default_rng(seed)
    n, m = len(inputs), len(solution)
    W, Phi, A, B = (np.linalg.qr(rng.standard_normal((size, size)))[0] for size in (n, D, n, m))
    X = W @ np.diag(inputs) @ Phi[:n]
    Y = X @ Phi[:n].T @ A[:, :m] @ np.diag(solution) @ B
    return Task(X, Y, reduce_data(X, Y))


def train_many(
    on: Task, widths: Sequence[int], alphas: Sequence[float], runs: int, seed: int, progress: bool
) -> xr.Dataset:
    """Train ``runs`` networks at each width and exponent of the initial scale.

    Returns
    -------
    xarray.Dataset
        Dims ``run``, ``width``, ``alpha`` and ``mode``: ``squared_distance`` ‖U_∞V_∞ᵀ − X⁺Y‖²_F; ``start`` and ``end``,
        u_iᵀU_1U_1ᵀu_i before and after training, u_i the modes of the solution, with singular values ``sigma``; and
        ``trace``, tr V_∞V_∞ᵀ.
    """
    sigma, modes = on.modes
    shape = (runs, len(widths), len(alphas))
    kernels = {name: np.empty((*shape, sigma.size)) for name in ("start", "end")}
    squares, traces = np.empty(shape), np.empty(shape)
    cells = [(i, j) for j in range(len(alphas)) for i in range(len(widths))]
    r = len(modes)
    for i, j in tqdm(cells, desc="gradient flow", unit="width", disable=not progress):
        Z, U2 = draw(on, widths[i], alphas[j], runs, seed)
        end = train(on.data, Z)
        squares[:, i, j] = ((U2 @ end[:, r:].swapaxes(1, 2)) ** 2).sum((1, 2))
        traces[:, i, j] = (end[:, r:] ** 2).sum((1, 2))
        for name, weights in (("start", Z), ("end", end)):
            kernels[name][:, i, j] = ((modes.T @ weights[:, :r]) ** 2).sum(-1)
    dims = ("run", "width", "alpha")
    return xr.Dataset(
        {
            "squared_distance": (dims, squares, {"long_name": "‖UVᵀ − X⁺Y‖²_F after training"}),
            "trace": (dims, traces, {"long_name": "tr VVᵀ after training"}),
            **{name: ((*dims, "mode"), values) for name, values in kernels.items()},
        },
        coords={"width": list(widths), "alpha": list(alphas), "sigma": ("mode", sigma)},
        attrs={
            "title": "two-layer linear networks trained by gradient flow, weights of variance width^(−2 alpha)",
            "clock": "gradient flow of the loss summed over samples",
            "parameters": json.dumps({"X": on.X.tolist(), "Y": on.Y.tolist()}),
            "seed": seed,
        },
    )


def draw(on: Task, h: int, alpha: float, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the initial [U_1; V] and U_2 of ``runs`` networks; each has a random stream of its own."""
    streams = np.random.SeedSequence([seed, h, round(1e6 * alpha)]).spawn(runs)
    drawn = [_turned(on.data, h, alpha, np.random.default_rng(stream)) for stream in streams]
    Z, U2 = (np.array(part) for part in zip(*drawn, strict=True))
    return Z, U2


def exact_means(on: Task, h: int, alphas: Sequence[float], runs: int, seed: int) -> xr.DataArray:
    """Return E[‖U_∞V_∞ᵀ − X⁺Y‖²_F | U_1, V] of the networks of :func:`train_many` at one width, without training any.

    From the end of the flow of Gram matrices, dims ``run`` and ``alpha``.
    """
    r, hidden = len(on.modes[1]), on.data.unseen.shape[1]
    root = np.diag(np.sqrt(on.data.eigenvalues))
    means = np.empty((runs, len(alphas)))
    for j, alpha in enumerate(alphas):
        for run, Z in enumerate(draw(on, h, alpha, runs, seed)[0]):
            end = limit_of_flow(TwoLayerRegression(root, on.data.target, Z[:r], Z[r:]))
            means[run, j] = hidden * h ** (-2 * alpha) * np.trace(end.R)
    return xr.DataArray(means, dims=("run", "alpha"), coords={"alpha": list(alphas)})


def _turned(data: Reduction, h: int, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return [U_1; V] and U_2 of a random network, on hidden directions that hold all of the former."""
    r, m = data.target.shape
    scale = h**-alpha
    Z = scale * rng.standard_normal((r + m, h))
    Q, T = np.linalg.qr(Z.T)
    return T.T, scale * rng.standard_normal((data.unseen.shape[1], h)) @ Q


def train(data: Reduction, Z: np.ndarray) -> np.ndarray:
    """Return the weights [U_1; V], shape (runs, r + m, k), that gradient flow ends with, all runs in one integration.

    Raises
    ------
    RuntimeError
        Training has not ended by t = 1e5.
    """
    r = data.eigenvalues.size
    root = np.sqrt(data.eigenvalues)[:, None]

    def residual(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        U1, V = np.split(y.reshape(Z.shape), [r], axis=1)
        return data.target - root * U1 @ V.swapaxes(1, 2), U1, V

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        E, U1, V = residual(y)
        pull = root * E
        return np.concatenate([pull @ V, pull.swapaxes(1, 2) @ U1], axis=1).ravel()

    solver = DOP853(rate, 0.0, Z.ravel(), PATIENCE, rtol=1e-10, atol=1e-11)
    goal = CONVERGED * np.linalg.norm(data.target)
    while solver.status == "running":
        E, U1, V = residual(solver.y)
        if np.linalg.norm(E, axis=(1, 2)).max() <= goal:
            return np.asarray(solver.y).reshape(Z.shape)
        # Longer steps are barely stable once E is small, and it would hover at the tolerance instead of vanishing.
        solver.max_step = 3 / float((data.eigenvalues[0] * ((U1**2).sum((1, 2)) + (V**2).sum((1, 2)))).max())
        solver.step()
    raise RuntimeError(f"networks have not converged by t = {solver.t:g}: {solver.status}")


def judged(measured: xr.DataArray, expected: xr.DataArray, name: str, bias: float = 1.0) -> "validate.Verdict":
    """Compare measured/expected with 1, over runs and extrapolated to infinite width, for each exponent and mode.

    The width is what :func:`effdyn.validate.compare` calls d: the size that the theory takes to infinity, with
    corrections of order 1/width. Where the theory is exact (``bias=0``) a single width is given.
    """
    ratio = (measured / expected).rename(width="d").expand_dims(t=[0.0]).transpose("run", "d", "t", ...)
    about = {"clock": "after training", "parameters": json.dumps({"alpha": measured.alpha.values.tolist()})}
    exact = xr.ones_like(ratio.isel(run=0, d=0, drop=True)).to_dataset(name=name)
    if ratio.sizes["d"] == 1:
        ratio = ratio.isel(d=0)
    simulation = ratio.to_dataset(name=name).assign_attrs(about, engine="gradient flow of real weights", init="random")
    theory = exact.assign_attrs(about, title=f"measured over expected {name}", theory_status="1")
    return validate.compare(theory, simulation, bias=bias)


def mean_and_error(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the mean over runs and its standard error."""
    return values.mean("run"), values.std("run", ddof=1) / np.sqrt(values.sizes["run"])
