"""The reference interpreter: the equations of a Dynamics evaluated as they are written, slowly, node after node.

It is the oracle for generated kernels. A ``Sum`` is a loop from 1 to its size, an ``Indexed`` an array element, a
Gaussian moment its closed form at the covariances of its fields. Nothing is hoisted, halved, fused or reordered, and no
code is shared with the passes that do so. Knows nothing of Numba, memory layouts or packed states.
"""

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import mpmath
import numpy as np
import sympy

from effdyn.derive import Dynamics, Moment, Quantity, closed_form
from effdyn.derive.moments import Dilation

Arrays = Mapping[str, Any]
"""Named values: arrays, and numbers for scalars."""
Field = tuple[str, int]
"""A local field: its family, and its number counted from 1."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": math.erf,
    "erfc": math.erfc,
    "Abs": np.abs,
    "sign": np.sign,
    "Max": max,
    "Min": min,
    "KroneckerDelta": lambda i, j: np.float64(i == j),
}
"""Functions by the name of SymPy's; all others come from mpmath by the same name. Outside their domain they are NaN."""


def evaluate(dynamics: Dynamics, y: Arrays, params: Arrays) -> dict[str, np.ndarray]:
    """Return the time derivative of every state.

    Parameters
    ----------
    dynamics : Dynamics
    y : mapping
        The states by name, with full shapes: ``Q`` (K, K), ``R`` (K, M), …
    params : mapping
        The parameters by name. A number stands for an array of that value everywhere (``a=1.0``).

    Returns
    -------
    dict of ndarray
        By state, with full shapes. Symmetric states are computed entry by entry, above and below the diagonal.

    Raises
    ------
    ValueError
        If a state or parameter is missing or unknown, or if shapes disagree.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    >>> start = dict(Q=[[1.0]], R=[[0.5]])
    >>> evaluate(flow, start, dict(sigma=0.0, T=[[1.0]], a=1.0, b=1.0))["R"]
    array([[0.5]])
    """
    return Interpreter(dynamics, {**y, **params}).arrays(dynamics.drift)


def observe(dynamics: Dynamics, y: Arrays, params: Arrays) -> dict[str, np.ndarray]:
    """Return every observable; arguments and result as in :func:`evaluate`."""
    return Interpreter(dynamics, {**y, **params}).arrays(dynamics.observables)


class Interpreter:
    """Evaluates expressions of a Dynamics at one state.

    Parameters
    ----------
    dynamics : Dynamics
    values : mapping
        All states and parameters by name.
    number : callable
        Turns an exact SymPy number into a number to calculate with.
    functions : mapping
        Functions by the name of SymPy's. With other numbers and functions (mpmath's, or numbers that keep track of
        their rounding errors) the same recursion gives another arithmetic.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        values: Arrays,
        number: Callable[[sympy.Expr], Any] = lambda exact: np.float64(exact),
        functions: Mapping[str, Callable[..., Any]] = FUNCTIONS,
    ) -> None:
        self.dynamics, self.number, self.functions = dynamics, number, functions
        quantities = (*dynamics.states, *dynamics.parameters)
        _check_names(quantities, values)
        self.sizes = _sizes(quantities, values)
        self.values = {q.base: self._array(q, values[q.name]) for q in quantities}
        self._moments: dict[tuple[sympy.Expr, tuple[Field, ...]], Any] = {}  # the same few recur in every double sum

    def arrays(self, equations: tuple[Any, ...]) -> dict[str, np.ndarray]:
        """Return the right-hand sides, over all values of their free indices."""
        with np.errstate(all="ignore"):  # a NaN is an answer here
            return {e.quantity.name: self._over_indices(e.quantity, e.expr) for e in equations}

    def value(self, expr: sympy.Expr, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return the value of ``expr``; ``index`` holds the values of its free indices, counted from 1."""
        if expr in index:
            return index[expr]
        if expr in self.sizes:
            return self.number(sympy.Integer(self.sizes[expr]))
        if expr.is_Number or expr.is_NumberSymbol:
            return self.number(expr)
        if isinstance(expr, sympy.Symbol):
            return self.values[expr][()]
        if isinstance(expr, sympy.Indexed):
            return self.values[expr.base][tuple(self._position(i, index) for i in expr.indices)]
        if isinstance(expr, sympy.Sum):
            return self._sum(expr.function, expr.limits, index)
        if isinstance(expr, Moment):
            return self._moment(expr, closed_form(expr.signature)[0], index)
        if isinstance(expr, Dilation):
            return self._dilation(expr.args[0], index)
        arguments = [self.value(argument, index) for argument in expr.args]
        if isinstance(expr, sympy.Add):
            return sum(arguments[1:], arguments[0])
        if isinstance(expr, sympy.Mul):
            return math.prod(arguments[1:], start=arguments[0])
        if isinstance(expr, sympy.Pow):
            return self._power(arguments[0], expr.exp, arguments[1])
        return self._call(expr.func.__name__, arguments)

    def _over_indices(self, quantity: Quantity, expr: sympy.Expr) -> np.ndarray:
        shape = tuple(self.sizes[size] for size in quantity.shape)
        entries = [
            self.value(expr, dict(zip(quantity.indices, place, strict=True)))
            for place in product(*(range(1, n + 1) for n in shape))
        ]
        return np.array(entries).reshape(shape)

    def _position(self, expr: sympy.Expr, index: Mapping[sympy.Symbol, Any]) -> int:
        """Return the place of an index in an array, counted from 0."""
        return (index[expr] if expr in index else int(expr.subs(index))) - 1

    def _sum(self, summand: sympy.Expr, limits: tuple[sympy.Tuple, ...], index: Mapping[sympy.Symbol, Any]) -> Any:
        *inner, (dummy, first, last) = limits  # SymPy writes the innermost limit first
        total = self.number(sympy.S.Zero)
        for n in range(int(first.subs(self.sizes)), int(last.subs(self.sizes)) + 1):
            here = {**index, dummy: n}
            total = total + (self._sum(summand, tuple(inner), here) if inner else self.value(summand, here))
        return total

    def _moment(self, moment: Moment, form: sympy.Expr, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return ``form``, an expression in the covariances of the fields of ``moment``."""
        fields = tuple((str(f.base), self._position(f.indices[0], index) + 1) for f in moment.fields)
        if (form, fields) not in self._moments:
            covariance = closed_form(moment.signature)[1]
            known = {symbol: self._covariance(fields[a], fields[b]) for (a, b), symbol in covariance.items()}
            self._moments[form, fields] = self._form(form, known)
        return self._moments[form, fields]

    def _form(self, form: sympy.Expr, known: dict[sympy.Expr, Any]) -> Any:
        """Return the value of a closed form. Every distinct subexpression is computed once: they are deeply nested."""
        if form not in known:
            for argument in form.args:
                self._form(argument, known)
            known[form] = self.value(form, known)
        return known[form]

    def _covariance(self, f: Field, g: Field) -> Any:
        """Return the covariance of two local fields, each given as its family and number."""
        laws = dict(self.dynamics.covariance)
        if (f[0], g[0]) not in laws:
            f, g = g, f
        law = laws[f[0], g[0]]
        return self.value(law.expr, dict(zip(law.variables, (f[1], g[1]), strict=True)))

    def _dilation(self, moment: Moment, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return ∂_s of the moment under the covariance sC at s = 1, which is Σ C_ab ∂/∂C_ab of its closed form."""
        form, covariance = closed_form(moment.signature)
        return self._moment(moment, sympy.Add(*(c * sympy.diff(form, c) for c in covariance.values())), index)

    def _power(self, base: Any, exponent: sympy.Expr, value: Any) -> Any:
        if exponent.is_Integer:
            return base ** int(exponent)
        return base**value

    def _call(self, name: str, arguments: list[Any]) -> Any:
        if name in self.functions:
            return self.functions[name](*arguments)
        value = getattr(mpmath, name)(*map(float, arguments))
        return np.float64(value) if isinstance(value, mpmath.mpf) else np.float64(math.nan)

    def _array(self, quantity: Quantity, given: Any) -> np.ndarray:
        shape = tuple(self.sizes[size] for size in quantity.shape)
        array = np.asarray(given)
        if array.dtype != object:
            array = array.astype(np.float64)
        if array.ndim and array.shape != shape:
            expected = ", ".join(f"{size}={n}" for size, n in zip(quantity.shape, shape, strict=True))
            raise ValueError(
                f"{quantity.name} has shape {array.shape}, but its shape is {quantity.shape} with {expected}"
            )
        return np.broadcast_to(array, shape)


def _check_names(quantities: tuple[Quantity, ...], values: Arrays) -> None:
    names = {q.name for q in quantities}
    if missing := sorted(names - set(values)):
        raise ValueError(f"no value for {', '.join(missing)}")
    if unknown := sorted(set(values) - names):
        raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(names))}")


def _sizes(quantities: tuple[Quantity, ...], values: Arrays) -> dict[sympy.Symbol, int]:
    """Return the sizes, from the first array that has them."""
    sizes: dict[sympy.Symbol, int] = {}
    for q in quantities:
        for size, n in zip(q.shape, np.shape(values[q.name]), strict=False):
            sizes.setdefault(size, n)
    undetermined = {size for q in quantities for size in q.shape} - set(sizes)
    if undetermined:
        raise ValueError(f"no array tells {', '.join(sorted(map(str, undetermined)))}")
    return sizes
