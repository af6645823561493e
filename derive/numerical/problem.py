"""An expression in Gaussian fields as a function of arrays, with the law of the fields and where it is not smooth.

Knows nothing of rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

from ..errors import ModelError
from .stable import stable

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class Problem:
    """An expression as a function of arrays, and the law of its fields, h = mean + factor z."""

    expr: sympy.Expr
    fields: tuple[sympy.Symbol, ...]
    C: "numpy.ndarray"
    mean: "numpy.ndarray"
    factor: "numpy.ndarray"
    function: "Callable[[numpy.ndarray], numpy.ndarray]"
    kinks: "tuple[Callable[[numpy.ndarray], numpy.ndarray], ...]"

    @property
    def dimension(self) -> int:
        """The number of independent variables, which is smaller than that of fields if these depend on each other."""
        return int(self.factor.shape[1])

    def at(self, z: "numpy.ndarray") -> "numpy.ndarray":
        """Return the values at points z, shape (points, dimension)."""
        return self.function(self.mean + z @ self.factor.T)


def problem_of(expr: sympy.Expr, fields: Sequence[sympy.Symbol], C: Any, m: Any) -> Problem:
    import numpy as np

    from .joint import cholesky

    expr = sympy.sympify(expr)
    if stray := sorted(map(str, expr.free_symbols - set(fields))):
        raise ModelError("expr", expr, f"an expression of the fields alone; it also contains {', '.join(stray)}")
    C, mean = np.asarray(C, float), np.zeros(len(fields)) if m is None else np.asarray(m, float)
    if C.shape != (len(fields),) * 2 or not np.allclose(C, C.T, rtol=1e-12, atol=0) or mean.shape != (len(fields),):
        raise ModelError(
            "C", C.tolist(), "a symmetric covariance matrix with a row for each field, and a mean for each"
        )
    try:
        cholesky(C)
    except ValueError as error:
        raise ModelError("C", C.tolist(), f"a covariance matrix: {error}") from error
    marks = _kink_marks(expr)
    kinked = {f: sum(mark.has(f) for mark in marks) for f in fields}
    order = sorted((n for n, f in enumerate(fields) if expr.has(f)), key=lambda n: (-kinked[fields[n]], n))
    used, C, mean = tuple(fields[n] for n in order), C[np.ix_(order, order)], mean[order]
    factor = cholesky(C)
    factor = factor[:, (factor != 0).any(axis=0)]
    kinks = tuple(function_of_points(mark, used) for mark in marks)
    return Problem(expr, used, C, mean, factor, function_of_points(stable(expr), used), kinks)


def function_of_points(expr: sympy.Expr, fields: Sequence[sympy.Symbol]) -> "Callable[[numpy.ndarray], numpy.ndarray]":
    """Return an expression as a function of an array of points, shape (points, fields)."""
    import numpy as np

    from .vectorised import modules_for

    slots = [sympy.Dummy(real=True) for _ in fields]
    body = expr.xreplace(dict(zip(fields, slots, strict=True)))
    function = sympy.lambdify(slots, body, modules=modules_for(body), cse=True, use_imps=False)

    def values(points: "numpy.ndarray") -> "numpy.ndarray":
        with np.errstate(all="ignore"):  # what is not finite is looked into where it matters
            return np.broadcast_to(np.asarray(function(*points.T)), len(points))

    return values


def _kink_marks(expr: sympy.Expr) -> list[sympy.Expr]:
    """Return the quantities that change sign where an expression is not smooth, and where denominators vanish."""
    marks: dict[sympy.Expr, None] = {}
    for e in sorted(expr.atoms(sympy.sign, sympy.Abs, sympy.Heaviside), key=sympy.default_sort_key):
        marks[e.args[0]] = None
    for e in sorted(expr.atoms(sympy.Max, sympy.Min), key=sympy.default_sort_key):
        marks |= {a - b: None for n, a in enumerate(e.args) for b in e.args[:n]}
    for e in sorted(expr.atoms(sympy.core.relational.Relational), key=sympy.default_sort_key):
        marks[e.lhs - e.rhs] = None
    for e in sorted(expr.atoms(sympy.floor, sympy.ceiling), key=sympy.default_sort_key):
        marks[sympy.sin(sympy.pi * e.args[0])] = None
    for e in sorted(expr.atoms(sympy.Pow), key=sympy.default_sort_key):
        if e.exp.is_number and not (e.exp.is_Integer and e.exp > 0):
            marks[e.base] = None
    for e in sorted(expr.atoms(sympy.log, sympy.coth, sympy.csch), key=sympy.default_sort_key):
        marks[e.args[0]] = None
    for e in sorted(expr.atoms(sympy.tan, sympy.sec), key=sympy.default_sort_key):
        marks[sympy.cos(e.args[0])] = None
    for e in sorted(expr.atoms(sympy.cot, sympy.csc), key=sympy.default_sort_key):
        marks[sympy.sin(e.args[0])] = None
    factors = (factor for mark in marks for factor in sympy.Mul.make_args(sympy.factor(mark)))
    return [mark for mark in dict.fromkeys(factors) if mark.free_symbols and not _definite(mark)]


def _definite(mark: sympy.Expr) -> bool:
    return bool(mark.is_positive or mark.is_negative)
