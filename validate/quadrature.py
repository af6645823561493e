"""Functions as NumPy ones that know where they are not smooth, and Gauss–Legendre panels that end there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy

from effdyn.derive.activation import X

from .printing import KINKED, runnable

FAR = 9.5
"""Standard deviations at which a Gaussian ends: e^(−9.5²/2) = 2.5e-20."""
BASE = (-FAR, -5.0, -2.5, 0.0, 2.5, 5.0, FAR)
"""Panels of a Gaussian, in standard deviations."""
UNIT = (-16.0, -8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Panels of activations and losses, which vary on the scale of 1 about 0."""
APPROACH = (-6.0, -3.0, -1.5, 0.0, 1.5, 3.0, 6.0)
"""Panels about a step, in units of its width: what is smooth on one scale may be a step on another."""
ORDER = 16
"""Nodes of a panel. On a panel of the Gaussian's, 2.5 wide, they leave an error of 1e-15."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one variable as a NumPy function, with where it is not smooth."""

    values: Callable[[np.ndarray], np.ndarray]
    kinked: bool
    kinks: tuple[float, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.values(x), dtype=float), x.shape)

    @property
    def breaks(self) -> tuple[float, ...]:
        """The kinks other than 0."""
        return tuple(kink for kink in self.kinks if kink != 0)

    @classmethod
    def of(cls, expr: sympy.Expr, variable: sympy.Symbol = X) -> Function:
        """Return the numerical form of an expression in one variable."""
        values = sympy.lambdify(variable, runnable(expr), modules=["scipy", "numpy"])
        kinked = expr.has(*KINKED, sympy.Piecewise)
        branches = expr.rewrite(KINKED, sympy.Piecewise).atoms(sympy.core.relational.Relational) if kinked else ()
        # An inner absolute value may remain, or a condition be a conjunction: each relation ends a branch at a root.
        roots = {root for branch in branches for root in sympy.solve(branch.lhs - branch.rhs, variable)}
        return cls(values, kinked, tuple(sorted(float(root) for root in roots if root.is_real)))


def panels(mean: np.ndarray, sd: np.ndarray, *breaks: np.ndarray, order: int = ORDER) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of E[f(x)], x ~ N(mean, sd²), for f that is smooth on the scale of 1 about 0.

    Parameters
    ----------
    mean, sd : ndarray, shape (rows,)
    breaks : ndarray, shapes (rows, n) or (1, n)
        Where panels end besides: kinks, and steps with their surroundings (:func:`approach`). NaN stands for none.
    order : int
        Nodes of each panel.

    Returns
    -------
    x, w : ndarray, shape (rows, number of panels · order)
    """
    mean, sd = mean[:, None], sd[:, None]
    low, high = mean - FAR * sd, mean + FAR * sd
    inner = [np.nan_to_num(ends, nan=-np.inf) for ends in (np.array([UNIT]), *breaks)]
    ends = np.concatenate(
        [
            mean + sd * np.array([BASE]),
            *(np.clip(np.broadcast_to(e, (len(mean), e.shape[1])), low, high) for e in inner),
        ],
        axis=1,
    )
    ends.sort(axis=1)
    node, weight = np.polynomial.legendre.leggauss(order)
    width = np.diff(ends)[:, :, None]
    x = (ends[:, :-1, None] + width * (1 + node) / 2).reshape(len(mean), -1)
    z = (x - mean) / np.maximum(sd, 1e-300)
    mass = (
        (width * weight / 2).reshape(len(mean), -1) / np.maximum(sd, 1e-300) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    )
    return x, np.where(sd > 0, mass, 1.0 / x.shape[1])


def approach(at: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return ends of panels about steps: ``at`` and ``width`` (rows, n) to (rows, 7 n)."""
    return (at[:, :, None] + width[:, :, None] * np.array(APPROACH)).reshape(len(at), -1)
