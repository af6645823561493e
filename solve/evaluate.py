"""Numbers for expressions with sums over arrays, integrals and inverse Laplace transforms: all at once, in NumPy.

Each bound variable (the index of a sum, the variable of an integral or of a transform) is an axis of its own in front
of those of time, and is summed over with its weights. For formulas and kernels of Volterra equations, which are
evaluated at few points; equations of motion are compiled (:mod:`effdyn.solve.kernels.kernel`).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sympy
from sympy.core.function import AppliedUndef

from effdyn.derive import Dynamics, ModelError
from effdyn.derive.dynamics import TIME
from effdyn.derive.errors import Described
from effdyn.derive.regression.inverse_laplace import InverseLaplace

from .kernels.layout import Inputs
from .laplace import contour

Values = np.ndarray
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    sympy.exp: np.exp,
    sympy.log: np.log,
    sympy.sqrt: np.sqrt,
    sympy.Abs: np.abs,
    **{getattr(sympy, name): getattr(np, name) for name in ("sin", "cos", "sinh", "cosh", "tanh")},
    sympy.Max: lambda *values: functools.reduce(np.maximum, values),
    sympy.Min: lambda *values: functools.reduce(np.minimum, values),
}
"""By the SymPy function."""


COMPARISONS: dict[Any, Callable[..., Any]] = {
    sympy.StrictLessThan: np.less,
    sympy.LessThan: np.less_equal,
    sympy.StrictGreaterThan: np.greater,
    sympy.GreaterThan: np.greater_equal,
}
"""By the SymPy relation."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How finely integrals are computed.

    Attributes
    ----------
    nodes : int
        Of an integral between finite bounds.
    contour : int
        Of an inverse Laplace transform, per transform.
    """

    nodes: int = 64
    contour: int = 24


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean.

    Attributes
    ----------
    symbols : mapping
        Values of symbols; they broadcast against each other.
    arrays : mapping of str to ndarray
        What is indexed, from 1.
    sizes : mapping of str to int
        To where sums run.
    functions : mapping of str to callable
        Functions without a formula.
    rules : Rules
    depth : int
        The number of axes in use.
    """

    symbols: Mapping[sympy.Symbol, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, Callable[..., Values]] = field(default_factory=dict)
    rules: Rules = Rules()
    depth: int = 1

    def bind(self, symbol: sympy.Symbol, values: np.ndarray) -> "Scope":
        """Return the scope in which ``symbol`` runs through ``values`` (n, …) along a new first axis."""
        shape = (len(values), *(1,) * (self.depth + 1 - values.ndim), *values.shape[1:])
        return replace(self, symbols={**self.symbols, symbol: values.reshape(shape)}, depth=self.depth + 1)

    def weighted_sum(self, terms: Values, weights: np.ndarray) -> Values:
        """Return the sum over the newest axis, also of what does not depend on it."""
        shape = (len(weights), *(1,) * (self.depth + 1 - weights.ndim), *weights.shape[1:])
        return np.asarray(np.sum(terms * weights.reshape(shape), axis=0))


def scope_of(dynamics: Dynamics, inputs: Inputs, t: np.ndarray, rules: Rules = Rules()) -> Scope:
    """Return the scope of a Dynamics' expressions at the times ``t``, of any shape."""
    given = inputs.y0 | inputs.params
    quantities = [q for q in (*dynamics.initial, *dynamics.parameters)]
    symbols = {q.symbol: given[q.name] for q in quantities if not q.indices}
    arrays = {q.name: given[q.name] for q in quantities if q.indices}
    return Scope({**symbols, TIME: t}, arrays, inputs.sizes, {}, rules, max(1, np.ndim(t)))


def evaluate(expr: sympy.Expr, scope: Scope) -> Values:
    """Return the values of an expression, over the axes of time.

    Raises
    ------
    ModelError
        For a node that has no rule here: of equations written by hand, since models need none.

    Examples
    --------
    >>> x, t = sympy.symbols("x t")
    >>> lam, (j, L) = sympy.IndexedBase("lam"), sympy.symbols("j L")
    >>> scope = Scope({t: np.array([0.0, 1.0])}, {"lam": np.array([1.0, 2.0])}, {"L": 2})
    >>> evaluate(sympy.Sum(sympy.exp(-lam[j] * t), (j, 1, L)), scope).round(4)
    array([2.    , 0.5032])
    >>> evaluate(sympy.Integral(sympy.sqrt(1 - x**2) * t, (x, -1, 1)), scope).round(12)
    array([0.        , 1.57079633])
    """
    if expr.is_Number or expr.is_NumberSymbol:
        return np.asarray(float(expr))
    if isinstance(expr, sympy.Symbol):
        return np.asarray(scope.symbols[expr])
    if isinstance(expr, sympy.Indexed):
        places = tuple(np.asarray(evaluate(i, scope), dtype=int) - 1 for i in expr.indices)
        return np.asarray(scope.arrays[str(expr.base)][places])
    if isinstance(expr, sympy.Add):
        return functools.reduce(np.add, (evaluate(a, scope) for a in expr.args))
    if isinstance(expr, sympy.Mul):
        return functools.reduce(np.multiply, (evaluate(a, scope) for a in expr.args))
    if isinstance(expr, sympy.exp):
        return np.exp(evaluate(expr.args[0], scope))
    if isinstance(expr, sympy.Pow):
        return _power(expr, scope)
    if isinstance(expr, sympy.Piecewise):
        return _piecewise(expr, scope)
    if isinstance(expr, AppliedUndef):
        return np.asarray(scope.functions[expr.func.__name__](*(evaluate(a, scope) for a in expr.args)))
    if expr.func in FUNCTIONS:
        return np.asarray(FUNCTIONS[expr.func](*(evaluate(a, scope) for a in expr.args)))
    if type(expr) in BINDERS:
        return BINDERS[type(expr)](expr, scope)
    accepted = "sums, products, powers, integrals and the functions " + ", ".join(sorted(f.__name__ for f in FUNCTIONS))
    raise ModelError("dynamics", Described(f"{type(expr).__name__} in {expr}"), accepted)


def _power(expr: sympy.Pow, scope: Scope) -> Values:
    base, exponent = evaluate(expr.base, scope), expr.exp
    if exponent == sympy.S.Half:
        return np.sqrt(base)
    if exponent.is_Integer:
        return base ** int(exponent) if exponent > 0 else 1.0 / base ** int(-exponent)
    return base ** evaluate(exponent, scope)


def _piecewise(expr: sympy.Piecewise, scope: Scope) -> Values:
    """Return the value of the first piece whose condition, a comparison, holds; NaN where none does."""
    value: Values = np.asarray(np.nan)
    for piece, condition in reversed(expr.args):
        holds = condition == sympy.true or COMPARISONS[type(condition)](*(evaluate(a, scope) for a in condition.args))
        value = np.where(holds, evaluate(piece, scope), value)
    return value


def _sum(expr: sympy.Sum, scope: Scope) -> Values:
    return _summed(expr.function, expr.limits, scope)


def _summed(summand: sympy.Expr, limits: tuple[sympy.Tuple, ...], scope: Scope) -> Values:
    """Return a sum over several indices, the outermost last."""
    if not limits:
        return evaluate(summand, scope)
    *inner, (index, low, high) = limits
    count = np.arange(int(low), _bound(high, scope) + 1)
    terms = _summed(summand, tuple(inner), scope.bind(index, count))
    return scope.weighted_sum(terms, np.ones(len(count)))


def _bound(high: sympy.Expr, scope: Scope) -> int:
    return int(high.subs({s: scope.sizes[str(s)] for s in high.free_symbols}))


def _integral(expr: sympy.Integral, scope: Scope) -> Values:
    """Return an integral between finite bounds by u = middle + half cos(theta) and the midpoint rule in theta.

    u is the variable, or its logarithm between positive bounds. Where the integrand is a smooth function times
    half-integer powers of the distances to the bounds, as with densities of eigenvalues, what is summed is smooth and
    periodic, and the error falls exponentially. The logarithm keeps it so where the lower bound is close to a pole at
    0, for a number of nodes that grows as the logarithm of their ratio.
    """
    ((variable, low, high),) = expr.limits
    start, stop = float(evaluate(low, scope)), float(evaluate(high, scope))
    theta = (np.arange(scope.rules.nodes) + 0.5) * (np.pi / scope.rules.nodes)
    share = np.sin(theta / 2) ** 2  # without cancellation near the lower bound
    if start > 0:
        length = np.log(stop / start)
        x = start + start * np.expm1(length * share)
        slope = length * x
    else:
        x = start + (stop - start) * share
        slope = np.full_like(x, stop - start)
    weights = np.pi / scope.rules.nodes * slope * np.sin(theta) / 2
    return scope.weighted_sum(evaluate(expr.function, scope.bind(variable, x)), weights)


def _transform(expr: InverseLaplace, scope: Scope) -> Values:
    """Return an inverse Laplace transform by a sum over a contour, which depends on the time.

    At t = 0, where there is no contour, the value is extrapolated from two times just after.
    """
    transform, z, time = expr.args
    t = np.asarray(evaluate(time, scope), dtype=float)
    first = t == 0
    if first.any():
        tiny = TINY * (t.max() if t.max() > 0 else 1.0)
        one, two = (_on_contour(transform, z, np.where(first, factor * tiny, t), scope) for factor in (1.0, 2.0))
        return np.where(first, 2 * one - two, one)
    return _on_contour(transform, z, t, scope)


TINY = 1e-8
"""The times that a value for t = 0 is extrapolated from, over the longest: the error is of the order of its square."""


def _on_contour(transform: sympy.Expr, z: sympy.Symbol, t: np.ndarray, scope: Scope) -> Values:
    nodes, weights = contour(scope.rules.contour)
    at = nodes.reshape(-1, *(1,) * t.ndim) / t
    inner = scope.bind(z, at)
    return scope.weighted_sum(evaluate(transform, inner), weights.reshape(-1, *(1,) * t.ndim) / t)


BINDERS: dict[type, Callable[[Any, Scope], Values]] = {
    sympy.Sum: _sum,
    sympy.Integral: _integral,
    InverseLaplace: _transform,
}
"""By the node that binds a variable: what sums over it."""
