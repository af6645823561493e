"""The coefficients of the derivation's own terms in another right-hand side, and what they are in the parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from .candidates import Rows

CONSTANTS = (sympy.S.One, sympy.pi, 1 / sympy.pi, sympy.sqrt(2), 1 / sympy.sqrt(2), sympy.pi**2)
"""With rational multiples of which a number is recognised."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Least squares on the own terms, and one more column if there is one, in each set of parameters.

    ``coefficients`` (sets, terms): 1 where a term is as derived; ``left``: what is left over in every row, relative to
    the size of the equation; ``determined``: whether the states tell the terms apart.
    """

    coefficients: np.ndarray
    left: np.ndarray
    determined: bool

    @property
    def residual(self) -> float:
        """The largest of what is left over."""
        return float(np.max(abs(self.left), initial=0.0))


def fit(rows: Rows, mine: np.ndarray, more: Sequence[np.ndarray] = ()) -> Fit:
    """Regress a right-hand side on the terms of an equation, set by set."""
    columns = np.array([*rows.values, *more]).T
    found, left, determined = [], np.zeros(len(mine)), True
    for number in np.unique(rows.sets):
        part = rows.sets == number
        solution, _, rank, _ = np.linalg.lstsq(columns[part], mine[part], rcond=1e-11)
        found.append(solution)
        left[part] = mine[part] - columns[part] @ solution
        determined = determined and rank == columns.shape[1]
    return Fit(np.array(found), left, determined)


def monomial(rows: Rows, values: np.ndarray, tolerance: float) -> sympy.Expr | None:
    """Return a coefficient as a number times powers of parameters and sizes, or None if it is not one.

    ``values`` holds it for each set of parameters.
    """
    if np.max(abs(values), initial=0.0) <= tolerance:
        return sympy.S.Zero
    if np.min(abs(values)) <= tolerance or len(set(np.sign(values))) > 1:
        return None
    first = [int(np.flatnonzero(rows.sets == n)[0]) for n in np.unique(rows.sets)]
    scalars = {name: v[first] for name, v in rows.scalars.items() if np.ptp(v[first]) > 0 and np.min(v[first]) > 0}
    sizes = [str(s) for s in rows.terms[0].dynamics.sizes if str(s) in scalars]
    rates = [name for name in scalars if name not in sizes]
    for names in ([], rates, *([*rates, size] for size in sizes)):  # two choices of sizes tell only one of them
        found = _product({name: scalars[name] for name in names}, values, tolerance)
        if found is not None:
            return found
    return None


def _product(scalars: Mapping[str, np.ndarray], values: np.ndarray, tolerance: float) -> sympy.Expr | None:
    """Return values as a number times half-integer powers of scalars, or None."""
    table = np.array([np.ones(len(values)), *(np.log(v) for v in scalars.values())]).T
    powers, _, rank, _ = np.linalg.lstsq(table, np.log(abs(values)), rcond=None)
    if rank < table.shape[1] or (scalars and len(values) <= table.shape[1]):
        return None
    exponents = [sympy.Rational(round(2 * p), 2) for p in powers[1:]]
    factor = np.prod([v ** float(e) for v, e in zip(scalars.values(), exponents, strict=True)], axis=0)
    numbers = values / factor
    if np.ptp(numbers) > 10 * tolerance * np.max(abs(numbers)):
        return None
    symbols = map(sympy.Symbol, scalars)
    return recognised(float(np.mean(numbers)), tolerance) * sympy.Mul(
        *(s**e for s, e in zip(symbols, exponents, strict=True))
    )


def recognised(number: float, tolerance: float) -> sympy.Expr:
    """Return a number as a small fraction times 1, π, √2 …, or as it is.

    Examples
    --------
    >>> recognised(0.75, 1e-9), recognised(1.5707963267948966, 1e-9), recognised(0.3712, 1e-9)
    (3/4, pi/2, 0.371200)
    """
    for constant in CONSTANTS:
        fraction = sympy.Rational(number / float(constant)).limit_denominator(24)
        if abs(float(fraction * constant) - number) <= max(tolerance, 1e-12) * abs(number) * 10:
            return fraction * constant
    return sympy.Float(number, 6)
