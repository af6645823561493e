"""Linear Volterra equations of the second kind, psi(t) = F(t) + ∫_0^t [K(t - s) psi(s) + k(t - s)] ds.

Collocation at the 16 Gauss points of equal panels, whose number is doubled until the solution does not change. The
order is that of the points where F and K are smooth, 16. With P panels the kernel is evaluated 256·P times and the
past summed in 256·P²/2 multiplications: seconds for P = 2000. A panel must be about as short as the fastest decay.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, NotYet
from effdyn.derive.dynamics import TIME

from .errors import Diverged, StepLimit
from .evaluate import Rules, Scope, evaluate, scope_of
from .given import Given, times_from_zero
from .implicit import defined_functions
from .kernels.layout import Inputs, read_inputs
from .results import parameters_json, to_dataset

if TYPE_CHECKING:
    import xarray as xr

POINTS = 16
MOST_PANELS = 4096
MOST_NODES = 2048
MOST_TERMS = 4_000_000
"""Numbers in one array."""
LAG = sympy.Symbol("u", nonnegative=True)
"""t - s."""


@dataclass(frozen=True, slots=True)
class Equation:
    """The parts of psi = outside + ∫ [kernel psi + source](t - s) ds, functions of TIME and of LAG."""

    outside: sympy.Expr
    kernel: sympy.Expr
    source: sympy.Expr


def parts(expr: sympy.Expr, name: str) -> Equation:
    """Return the parts of the right-hand side of a Volterra equation for the function ``name``.

    Raises
    ------
    NotYet
        If it is not linear, or its kernel is not a function of t - s.

    Examples
    --------
    >>> s, psi = sympy.Symbol("s", nonnegative=True), sympy.Function("psi")
    >>> parts(1 + sympy.Integral(sympy.exp(s - TIME) * (psi(s) + 2), (s, 0, TIME)), "psi")
    Equation(outside=1, kernel=exp(-u), source=2*exp(-u))
    """
    memory = [i for i in expr.atoms(sympy.Integral) if i.has(sympy.Function(name)) and i.limits[0][2] == TIME]
    if len(memory) != 1:
        raise NotYet(f"a Volterra equation {name} = {expr}", "one integral over the past, from 0 to t")
    (integral,) = memory
    past = integral.limits[0][0]
    value = sympy.Dummy("value")
    inside = integral.function.subs(sympy.Function(name)(past), value)
    kernel, source = inside.diff(value), inside.subs(value, 0)
    by_lag = [part.subs(past, TIME - LAG) for part in (kernel, source)]
    if any(part.has(value, TIME) for part in by_lag):
        raise NotYet(f"a Volterra equation {name} = {expr}", "an integrand linear in it, and of t - s besides")
    return Equation(expr.subs(integral, 0), *by_lag)


def integrate_volterra(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    times: np.ndarray | None,
    rtol: float,
    atol: float,
) -> "xr.Dataset":
    """Return the solution of a Dynamics of kind ``"volterra"``, at times from t = 0 on, 101 by default.

    The change of the solution when the number of panels was doubled last, at most ``atol + rtol·|psi|``, or that with
    half the nodes of integrals in the kernel, if larger, is stated in ``attrs["numerical_error"]``; the error is far
    smaller.

    Raises
    ------
    StepLimit
        If more than 4096 panels are needed.
    Diverged
        If the solution is not finite; its ``t`` and ``state`` are the last that are.

    Warns
    -----
    RuntimeWarning
        If 2048 nodes do not settle an integral in the kernel: by how much the solution changes with half of them.
    """
    inputs = read_inputs(Given.of(dynamics), y0, params)
    t = times_from_zero(t_span, times)
    equation = dynamics.drift[0]
    name = equation.quantity.name
    problem = _Problem(parts(equation.expr, name), _scope(dynamics, inputs, t), float(t.max()))
    rules, settled = problem.rules(0.1 * rtol)
    panels = 4
    values = problem.solve(panels, t, rules)
    while True:
        finer = problem.solve(2 * panels, t, rules)
        valid = _finite(finer)
        same = valid == _finite(values)
        change = np.abs(finer[:valid] - values[:valid]) if same else np.full(valid, np.inf)
        panels, values = 2 * panels, finer
        close = same and bool((change <= atol + rtol * np.abs(values[:valid])).all())
        if close and valid == t.size:
            change = np.maximum(change, problem.change_by_rules(panels, t, values, rules))
            if not settled:
                _warn_of_rules(name, t, change)
        if close or panels >= MOST_PANELS:
            break
    solution = _dataset(dynamics, inputs, t[:valid], values[:valid], change, panels, rtol, atol)
    if valid < t.size:
        advice = "the solution grows beyond all numbers: a smaller learning rate may keep it finite"
        state = {name: values[valid - 1]} if valid else inputs.y0
        raise Diverged(advice, float(t[valid - 1]) if valid else 0.0, state, solution)
    if not close:
        message = f"more than {MOST_PANELS} panels are needed to reach t = {t.max():g}: loosen rtol, or stop earlier"
        raise StepLimit(message, 0.0, inputs.y0, solution)
    return solution


def _finite(values: np.ndarray) -> int:
    """Return the number of finite values before the first that is not."""
    finite = np.isfinite(values)
    return values.size if finite.all() else int(np.argmin(finite))


def _warn_of_rules(name: str, t: np.ndarray, change: np.ndarray) -> None:
    worst = int(np.argmax(change))
    text = f"{name} is known to {change[worst]:.2g} only at t = {t[worst]:.6g}: integrals in its equation still change"
    warnings.warn(f"{text} with {MOST_NODES} nodes, by more than rtol", RuntimeWarning, stacklevel=5)


def _scope(dynamics: Dynamics, inputs: Inputs, t: np.ndarray) -> Scope:
    scope = scope_of(dynamics, inputs, t)
    return replace(scope, functions=defined_functions(dynamics, scope))


@dataclass(frozen=True, slots=True)
class _Problem:
    equation: Equation
    scope: Scope
    stop: float

    def solve(self, panels: int, t: np.ndarray, rules: Rules) -> np.ndarray:
        """Return the solution at the times ``t``, by collocation on equal panels."""
        if self.stop == 0:
            return self._at(self.equation.outside, TIME, t, rules)
        h = self.stop / panels
        points, weights, _ = gauss()
        offset = points[:, None] - points[None, :]
        lags = h * (np.arange(1, panels)[:, None, None] + offset)  # (panel back, point, point of the past)
        past = h * weights * self._at(self.equation.kernel, LAG, lags, rules)
        own = self._own(self.equation.kernel, h, rules)
        outside = self._at(self.equation.outside, TIME, h * (np.arange(panels)[:, None] + points), rules)
        if self.equation.source != 0:
            fed = h * (weights * self._at(self.equation.source, LAG, lags, rules)).sum(-1)
            outside = outside + self._own(self.equation.source, h, rules).sum(-1)
            outside[1:] += np.cumsum(fed, axis=0)
        psi = np.empty((panels, POINTS))
        inverse = np.linalg.inv(np.eye(POINTS) - own)
        with np.errstate(over="ignore", invalid="ignore"):  # a solution that diverges is reported by its values
            for m in range(panels):
                remembered = np.einsum("kij,kj->i", past[:m], psi[:m][::-1])
                psi[m] = inverse @ (outside[m] + remembered)
            return _interpolated(psi, t / h)

    def change_by_rules(self, panels: int, t: np.ndarray, values: np.ndarray, rules: Rules) -> np.ndarray:
        """Return by how much a solution changes with half the nodes for the integrals in its equation."""
        if not self._integrals():
            return np.zeros_like(values)
        return np.abs(self.solve(panels, t, replace(rules, nodes=rules.nodes // 2)) - values)

    def _integrals(self) -> list[tuple[sympy.Expr, sympy.Symbol]]:
        functions = ((self.equation.outside, TIME), (self.equation.kernel, LAG), (self.equation.source, LAG))
        return [f for f in functions if f[0].has(sympy.Integral)]

    def rules(self, tolerance: float) -> tuple[Rules, bool]:
        """Return rules for the integrals in the kernel and outside that change neither by more, over their largest, and
        whether there were any."""
        rules, at = Rules(nodes=32), self.stop * np.linspace(0, 1, 65) ** 2
        integrals = self._integrals()
        while integrals and rules.nodes < MOST_NODES:
            finer = replace(rules, nodes=2 * rules.nodes)
            pairs = [(self._at(*f, at, rules), self._at(*f, at, finer)) for f in integrals]
            if all(np.abs(b - a).max() <= tolerance * np.abs(b).max() for a, b in pairs):
                return finer, True
            rules = finer
        return rules, not integrals

    def _own(self, kernel: sympy.Expr, h: float, rules: Rules) -> np.ndarray:
        """Return the weights of psi at the points of a panel in the integral from its start to each of them."""
        points, weights, inner = gauss()
        lags = h * points[:, None] * (1 - points[None, :])
        values = self._at(kernel, LAG, lags, rules)
        return np.asarray(h * np.einsum("i,q,iq,iqj->ij", points, weights, values, inner))

    def _at(self, expr: sympy.Expr, variable: sympy.Symbol, at: np.ndarray, rules: Rules) -> np.ndarray:
        parts = np.array_split(at, max(1, at.size * rules.nodes // MOST_TERMS), axis=0)
        return np.concatenate([self._part(expr, variable, part, rules) for part in parts])

    def _part(self, expr: sympy.Expr, variable: sympy.Symbol, at: np.ndarray, rules: Rules) -> np.ndarray:
        scope = replace(self.scope, symbols={**self.scope.symbols, variable: at}, rules=rules, depth=at.ndim)
        return np.broadcast_to(evaluate(expr, scope), at.shape).astype(float)


@lru_cache(maxsize=1)
def gauss() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Gauss points and weights on (0, 1), and the interpolating polynomials at products of two points."""
    x, w = np.polynomial.legendre.leggauss(POINTS)
    points = (x + 1) / 2
    return points, w / 2, lagrange(points, points[:, None] * points[None, :])


def lagrange(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the Lagrange polynomials of ``points`` at ``at``, the polynomials along a new last axis."""
    distance = points[:, None] - points[None, :] + np.eye(len(points))
    others = ~np.eye(len(points), dtype=bool)
    shifted = at[..., None] - points
    product = np.stack([np.prod(shifted[..., row], axis=-1) for row in others], axis=-1)
    return np.asarray(product / distance.prod(axis=1))


def _interpolated(psi: np.ndarray, position: np.ndarray) -> np.ndarray:
    panel = np.clip(position.astype(int), 0, len(psi) - 1)
    return np.asarray((lagrange(gauss()[0], position - panel) * psi[panel]).sum(-1))


def _dataset(
    dynamics: Dynamics,
    inputs: Inputs,
    t: np.ndarray,
    values: np.ndarray,
    change: np.ndarray,
    panels: int,
    rtol: float,
    atol: float,
) -> "xr.Dataset":
    quantity = dynamics.states[0]
    scope = _scope(dynamics, inputs, t)
    scope = replace(scope, symbols={**scope.symbols, quantity.symbol: values})
    observables = {
        e.quantity.name: np.broadcast_to(evaluate(e.expr, scope), t.shape).astype(float) for e in dynamics.observables
    }
    ends = [0, -1] if t.size else []
    largest = [float(change[0]), float(change.max())] if t.size else []
    error = {"t": [float(t[n]) for n in ends], quantity.name: largest}
    attrs = {
        "y0": parameters_json(inputs.y0),
        "method": "collocation",
        "rtol": rtol,
        "atol": atol,
        "status": "success",
        "panels": panels,
        "numerical_error": json.dumps(error),
    }
    return to_dataset(dynamics, t, {quantity.name: values}, observables, inputs.params, attrs)
