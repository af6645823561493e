"""``solve.linearize``: the flow near a state, as eigenvalues and labelled directions."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import Dynamics

from .flow import Flow, attributes, states_at
from .starts import random_state
from .symmetries import Symmetries, symmetries

if TYPE_CHECKING:
    import xarray as xr

SAME = 1e-7
"""Difference of entries up to which a state counts as symmetric, relative: Newton's steps end well below it."""


AT_REST = 1e-6
"""The largest time derivative of a fixed point, relative to the Jacobian times the state: about as far may the state
be from it. Newton's steps end at 1e-12, integration over a long time near its tolerance."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues of a Jacobian by decreasing real part, (n,), unit eigenvectors as columns, (n, n), and which of them
    keep the symmetry of the state."""

    values: np.ndarray
    vectors: np.ndarray
    symmetric: np.ndarray


def linearize(dynamics: Dynamics, y0: Any, params: Mapping[str, Any]) -> "xr.Dataset":
    """Return the Jacobian of the equations of motion at a state, its eigenvalues and its eigenvectors.

    The Jacobian is the symbolic derivative of the indexed equations, compiled once for all numbers of units; where
    expectations are numerical it is made of five-point differences (relative error about 1e-9), and ``attrs`` say so.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations.
    y0 : dict or Dataset
        The state: a fixed point, such as ``fixed_points(…).isel(fixed_point=0)``, or any other.
    params : dict
        As ``solve.integrate`` takes them.

    Returns
    -------
    xarray.Dataset
        ``growth`` and ``frequency`` (mode,), the eigenvalues' real and imaginary parts, per unit of the dynamics'
        clock, by decreasing growth; ``symmetric`` (mode,), whether the direction keeps the symmetry that the state has
        under exchange of units; ``direction`` and ``direction_imag`` (mode, coordinate), of length 1; the same
        directions as perturbations of the states, ``Q_direction`` (mode, student, student_2), … (real part);
        ``jacobian`` (coordinate, coordinate_2); the states and observables at the state. ``coordinate`` are the
        independent entries: of a symmetric matrix those on and above the diagonal, so each eigenvalue of the flow
        counts once. ``attrs["residual"]`` is the largest time derivative at the state, zero for a fixed point;
        ``attrs["status"]`` is ``"fixed point"`` or ``"not a fixed point"``.

    Warns
    -----
    RuntimeWarning
        If the state is not a fixed point (its residual is not small): growth rates then tell how the difference of two
        neighbouring trajectories changes while they are there, not how the state is approached or left.

    Raises
    ------
    ModelError
        For bad input, naming it.
    FloatingPointError
        If the Jacobian has no finite value there.

    Examples
    --------
    >>> from effdyn import derive
    >>> from effdyn.solve.stability import linearize
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> state = dict(Q=[[1.0]], R=[[1.0]])
    >>> modes = linearize(dyn, state, dict(eta=0.5, sigma=0.0, T=[[1.0]], a=1.0, b=1.0))
    >>> modes.growth.values.round(12)  # −η, of R, and −2η + η², of Q at fixed R
    array([-0.5 , -0.75])
    """
    import xarray as xr

    flow = Flow.at(dynamics, y0, params)
    y = flow.start
    jacobian = finite_jacobian(flow, y)
    residual = float(np.abs(flow.drift(y)).max(initial=0.0))
    at_rest = residual <= AT_REST * float(np.abs(jacobian).max(initial=0.0)) * max(
        1.0, float(np.abs(y).max(initial=0.0))
    )
    if not at_rest:
        warnings.warn(
            f"the state is not a fixed point: its largest time derivative is {residual:.3g}. Growth rates are those of "
            "the difference of neighbouring trajectories; fixed_points() and plateau() find fixed points",
            RuntimeWarning,
            stacklevel=2,
        )
    group = group_of(flow).stabiliser(y, SAME * max(1.0, float(np.abs(y).max(initial=0.0))))
    found = spectrum(jacobian, group)
    directions = flow.unpacked(found.vectors.real.T)
    labelled = {
        f"{q.name}_direction": (("mode", *q.dims), directions[q.name], {"long_name": f"perturbation of {q.name}"})
        for q in dynamics.states
    }
    names = flow.coordinates
    return xr.Dataset(
        {
            "growth": ("mode", found.values.real),
            "frequency": ("mode", found.values.imag),
            "symmetric": ("mode", found.symmetric),
            "direction": (("mode", "coordinate"), found.vectors.real.T),
            "direction_imag": (("mode", "coordinate"), found.vectors.imag.T),
            **labelled,
            "jacobian": (("coordinate", "coordinate_2"), jacobian),
            **_single(states_at(flow, y[None], ("state",))),
        },
        coords={"coordinate": names, "coordinate_2": names},
        attrs=attributes(flow) | {"residual": residual, "status": "fixed point" if at_rest else "not a fixed point"},
    )


def _single(variables: dict[str, Any]) -> dict[str, Any]:
    return {name: (dims[1:], values[0], attrs) for name, (dims, values, attrs) in variables.items()}


def group_of(flow: Flow) -> Symmetries:
    """Return the exchanges of units that these equations allow, found at a random state."""
    rng = np.random.default_rng(0)  # any state without symmetries of its own would do
    return symmetries(flow, random_state(flow.dynamics, flow.inputs.sizes, flow.inputs.params, rng))


def finite_jacobian(flow: Flow, y: np.ndarray) -> np.ndarray:
    """Return the Jacobian at ``y``, or raise with the state if it is not finite."""
    jacobian = flow.jacobian(y)
    if not np.isfinite(jacobian).all():
        state = ", ".join(f"{name} = {value:.6g}" for name, value in zip(flow.coordinates, y, strict=True))
        raise FloatingPointError(f"the equations of motion have no derivative at {state}")
    return jacobian


def spectrum(jacobian: np.ndarray, group: Symmetries) -> Spectrum:
    """Return eigenvalues and eigenvectors, those that keep the state's symmetry apart from those that break it.

    The Jacobian at a symmetric state commutes with the permutations, so it has two blocks. Each is diagonalised by
    itself: otherwise eigenvalues of both that happen to coincide would mix their directions.
    """
    values, vectors, symmetric = [], [], []
    for basis, keeps in zip(group.split(), (True, False), strict=True):
        w, v = np.linalg.eig(basis.T @ jacobian @ basis)
        values.append(w.astype(complex))
        vectors.append((basis @ v).astype(complex))
        symmetric.append(np.full(len(w), keeps))
    eigenvalues = np.concatenate(values)
    order = np.lexsort((-eigenvalues.imag, -eigenvalues.real))
    return Spectrum(eigenvalues[order], np.hstack(vectors)[:, order], np.concatenate(symmetric)[order])
