"""Every closed form against a numerical integral that shares no code with the rules, at covariances of every kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import sympy

from ..activation import X
from ..errors import CertificateError
from .cached_forms import cached
from .closed_forms import RULES, closed_form, real_parameters
from .integrand import Integrand
from .precise import precise_value

if TYPE_CHECKING:
    import numpy as np

Signature = tuple[sympy.Lambda, ...]
SEED = 20_240_607
GENERIC = 3
SLIP = 0.05
"""Of the nearly coincident fields: they are correlated to 1 − SLIP²/2 or so."""
STANDARD_ERRORS = 6
FLOOR = {1: 1e-10, 2: 1e-10}
"""Rounding in the integral, relative to the larger of 1 and its value; 1e-7 for three fields and more."""


@dataclass(frozen=True, slots=True)
class Point:
    """One comparison: where, what the closed form gives, and the integral with its error."""

    covariance: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    form: float
    reference: float
    error: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """The comparisons that a closed form has passed.

    Attributes
    ----------
    points : tuple of Point
    status : str
        In words.
    """

    points: tuple[Point, ...]
    status: str

    def __str__(self) -> str:
        return self.status


@lru_cache(maxsize=1024)
def certify(signature: Signature, shifted: bool = False) -> Certificate:
    """Compare the closed form of a signature with numerical integrals.

    Three random covariances, one where two fields nearly coincide, one where fields coincide (if the form is defined
    there); parameters take random values. The outcome is kept, also on disk.

    Parameters
    ----------
    signature : tuple of Lambda
        As for :func:`.closed_forms.closed_form`.
    shifted : bool, optional
        Whether the fields have means.

    Raises
    ------
    CertificateError
        If they differ by more than six of the integral's errors.
    NoClosedForm
        If there is no closed form.

    Examples
    --------
    >>> relu = sympy.Lambda(X, sympy.Max(X, 0))
    >>> certify((relu, relu)).status
    'agrees with numerical integration at 5 covariances, to 1e-12'
    """
    key = f"{sympy.srepr(sympy.Tuple(*signature))} {shifted} {[(r.__module__, r.__qualname__) for r in RULES]}"
    return cached("certificate", key, lambda: _certify(signature, shifted))


def _certify(signature: Signature, shifted: bool) -> Certificate:
    import numpy as np

    from .referee import integrate

    form, entries = closed_form(signature, shifted)
    functions = [real_parameters(f(X)) for f in signature]
    rng = np.random.default_rng(SEED)
    parameters = sorted(set[sympy.Symbol]().union(*(f.free_symbols for f in functions)) - {X}, key=str)
    values = {s: float(v) for s, v in zip(parameters, rng.uniform(0.2, 0.9, len(parameters)), strict=True)}
    plain = [f.xreplace({s: sympy.Float(v) for s, v in values.items()}) for f in functions]
    points, singular = [], False
    for C, m in _covariances(len(signature), shifted, rng):
        numbers = {s: float(C[k] if len(k) == 2 else m[k[0]]) for k, s in entries.items()}
        value = precise_value(form, {**values, **numbers})
        if value is None and np.linalg.matrix_rank(C) < len(C):
            singular = True  # densities diverge there, or the form is 0/0: rules_signs says for which ones
            continue
        reference, error = integrate(plain, C, m)
        value = float("nan") if value is None else value
        point = Point(tuple(map(tuple, C.tolist())), tuple(m.tolist()), value, reference, error)
        _judge(point, signature)
        points.append(point)
    return Certificate(tuple(points), _status(points, singular))


def _judge(point: Point, signature: Signature) -> None:
    floor = FLOOR.get(len(signature), 1e-7) * max(1.0, abs(point.reference))
    if not abs(point.form - point.reference) <= STANDARD_ERRORS * point.error + floor:
        n = len(signature)
        unit = tuple((sympy.S.One,) * n for _ in range(n))
        moment = str(Integrand(tuple((a, f(X)) for a, f in enumerate(signature)), unit))
        raise CertificateError(moment, point.covariance, point.mean, point.form, point.reference, point.error)


def _status(points: list[Point], singular: bool) -> str:
    worst = max(max(abs(p.form - p.reference), 1e-12 * max(1.0, abs(p.reference))) for p in points)
    text = f"agrees with numerical integration at {len(points)} covariances, to {worst:.0e}"
    return text + ("; not defined where fields coincide" if singular else "")


def _covariances(n: int, shifted: bool, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return covariances and means: generic ones, nearly coincident fields, coincident ones."""

    def law(factor: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gram = factor @ factor.T
        return (gram + gram.T) / 2, mean * shifted

    laws = [law(_factor(n, rng), rng.normal(size=n) / 2) for _ in range(GENERIC)]
    if n > 1:
        factor, mean = _factor(n, rng), rng.normal(size=n) / 2
        near = factor.copy()
        near[1] = factor[0] + SLIP * factor[1]
        some = [0] * n if n == 2 else [k % 2 for k in range(n)]
        laws += [law(near, mean), law(factor[some], mean[some])]
    return laws


def _factor(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a factor of a covariance without fields that depend much on each other."""
    import numpy as np

    factor = rng.normal(size=(n, n)) + 1.5 * np.eye(n)
    return factor / np.linalg.norm(factor, axis=1, keepdims=True) * rng.uniform(0.6, 1.1, (n, 1))
