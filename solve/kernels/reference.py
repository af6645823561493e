"""The reference interpreter: the equations of a Dynamics evaluated as they are written, slowly, node after node.

It is the oracle for generated kernels. A ``Sum`` is a loop from 1 to its size, an ``Indexed`` an array element, a
Gaussian moment its form at the covariances of its fields. Only over the nodes of numerical rules sums are taken at
once, with arrays for the numbers of the nodes. Nothing is hoisted, halved, fused or reordered, and no code is shared
with the passes that do so. Knows nothing of Numba, memory layouts or packed states.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from itertools import permutations, product
from typing import Any

import mpmath
import numpy as np
import sympy

from effdyn.derive import Dynamics, Moment, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.derive.gaussian import conditional_sign, special
from effdyn.derive.gaussian.regular import defined_at_zero
from effdyn.derive.increments import NOISE
from effdyn.derive.moments import Dilation, Joint, Value
from effdyn.derive.numerical.moment_forms import moment_form
from effdyn.derive.numerical.quadrature import (
    BUNDLE,
    LEADING,
    LINE,
    NODES,
    has_leading_field,
    rule_of,
    table_sizes,
    table_values,
)
from effdyn.derive.numerical.split import split_nodes
from effdyn.derive.numerical.switches import UNIT, switches_of

Arrays = Mapping[str, Any]
"""Named values: arrays, and numbers for scalars."""
Field = tuple[Any, ...]
"""A local field: its family, and its indices counted from 1."""


def _special(name: str) -> Callable[..., Any]:
    """Return a special function of covariances for numbers and arrays, computed by mpmath."""
    function = conditional_sign.sign1_given1 if name == "sign1_given1" else getattr(special, name)

    @lru_cache(maxsize=65536)
    def value(*arguments: float) -> float:
        return float(function(*map(sympy.Float, arguments)).evalf(17)) if np.isfinite(arguments).all() else math.nan

    return np.vectorize(lambda *a: value(*map(float, _least_order(a) if name == "sign4" else a)), otypes=[float])


def _least_order(triangle: tuple[float, ...]) -> tuple[float, ...]:
    """Return the covariances of four fields with the fields in the order in which they come first: any order is as
    good, and a function that is slow is evaluated once."""
    C = np.zeros((4, 4))
    C[np.triu_indices(4)] = triangle
    C = np.maximum(C, C.T) + np.minimum(C, C.T) - np.diag(np.diag(C))
    return min(tuple(C[np.ix_(order, order)][np.triu_indices(4)]) for order in permutations(range(4)))


SPECIAL = ("sign4", "sign2_given1", "sign2_given2", "sign1_given1", "edge", "Phi2", "Phi3")

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[float]),
    "erfc": np.vectorize(math.erfc, otypes=[float]),
    "Abs": np.abs,
    "sign": np.sign,
    "Heaviside": lambda x, at_zero: np.heaviside(x, at_zero),
    "Max": lambda *numbers: reduce(np.maximum, numbers),
    "Min": lambda *numbers: reduce(np.minimum, numbers),
    "KroneckerDelta": lambda i, j: np.float64(i == j),
    **{name: _special(name) for name in SPECIAL},
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
        The parameters by name. A number stands for an array of that value everywhere (``a=1.0``). Where equations
        depend on time explicitly, ``t`` is its value, 0 by default.

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


FLOOR = 1e-30
"""Added to variances in forms that are 0/0 where a field vanishes: their limit, without effect on other variances."""


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
        timed = any(TIME in e.expr.free_symbols for e in dynamics.equations)
        _check_names(quantities, {n: v for n, v in values.items() if not (timed and n == TIME.name)})
        self.sizes = _sizes(quantities, values)
        self.values = {q.base: self._array(q, values[q.name]) for q in quantities}
        self.values |= {TIME: np.float64(values.get(TIME.name, 0.0))} if timed else {}
        self._moments: dict[tuple[sympy.Expr, tuple[Field, ...]], Any] = {}  # the same few recur in every double sum
        plain = [family for family in dynamics.families if not family.derived][::-1]
        leading = [family for family in dynamics.families if family.base == LEADING and has_leading_field(dynamics)]
        given = [family for family in dynamics.families if family.given]
        self._families = [*leading, *plain, *given]  # as rules count them
        count = sum(int(sympy.sympify(family.independent).subs(self.sizes)) for family in dynamics.families)
        self._own = len(self._all_fields()) - sum(int(sympy.sympify(f.size).subs(self.sizes)) for f in given)
        self._spare = self._own - count  # fields that are combinations of others
        self._fields: dict[Field, np.ndarray] = {}  # at the nodes of the rule over all
        if dynamics.tables:
            nodes = table_sizes(dynamics.tables, count)
            self.sizes |= {size: nodes[str(size)] for size in (LINE, NODES) if str(size) in nodes}
            self.values |= {table.base: table_values(table, count) for table in dynamics.tables}
        self._places: tuple[np.ndarray, np.ndarray] | None = None  # fields and weights where kinks say so
        self._probe: np.ndarray | None = None  # fields where switching functions are evaluated

    def arrays(self, equations: tuple[Any, ...]) -> dict[str, np.ndarray]:
        """Return the right-hand sides, over all values of their free indices."""
        self._fields, self._places = {}, None
        kind = rule_of(self.dynamics, equations)
        if kind in BUNDLE:
            self._places = self._split(kind, equations)
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
        if isinstance(expr, sympy.Mul):
            return self._product(expr, index)
        if expr == NOISE:
            return self._points()[:, -1]
        if isinstance(expr, sympy.Symbol):
            return self.values[expr][()]
        if isinstance(expr, sympy.Indexed) and any(expr.base == family.base for family in self._families):
            return self._at_nodes((str(expr.base), *(self._position(i, index) + 1 for i in expr.indices)))
        if isinstance(expr, sympy.Indexed):
            return self.values[expr.base][tuple(self._position(i, index) for i in expr.indices)]
        if isinstance(expr, sympy.Sum):
            return self._sum(expr.function, expr.limits, index)
        if isinstance(expr, Moment):
            return self._moment(expr, self._moment_form(expr).form, index)
        if isinstance(expr, Joint):
            return self._joint(expr.args[0], index)
        if isinstance(expr, Value):
            univariate, field = expr.args
            return self._form(univariate.function.expr, {univariate.function.variables[0]: self.value(field, index)})
        if isinstance(expr, sympy.Piecewise):
            return self._piecewise(expr, index)
        if isinstance(expr, Dilation):
            return self._dilation(expr.args[0], index)
        arguments = [self.value(argument, index) for argument in expr.args]
        if isinstance(expr, sympy.Add):
            return sum(arguments[1:], arguments[0])
        if isinstance(expr, sympy.Pow):
            return self._power(arguments[0], expr.exp, arguments[1])
        return self._call(expr.func, arguments)

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
        nested = any(limit[2] in (LINE, NODES) for e in summand.atoms(sympy.Sum) for limit in e.limits)
        if last in (LINE, NODES) and not inner and not nested:
            return np.sum(self._form(summand, {**index, dummy: np.arange(1, self.sizes[last] + 1)}))
        total = self.number(sympy.S.Zero)
        for n in range(int(first.subs(self.sizes)), int(last.subs(self.sizes)) + 1):
            here = {**index, dummy: n}
            total = total + (self._sum(summand, tuple(inner), here) if inner else self.value(summand, here))
        return total

    def _moment(self, moment: Moment, form: sympy.Expr, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return ``form``, an expression in the covariances of the fields of ``moment``."""
        fields = tuple((str(f.base), *(self._position(i, index) + 1 for i in f.indices)) for f in moment.fields)
        if (form, fields) not in self._moments:
            kept = self._moment_form(moment)
            known = {symbol: self._law(*(fields[a] for a in entry)) for entry, symbol in kept.entries.items()}
            if kept.exact and not defined_at_zero(kept.form, kept.entries):
                known |= {kept.entries[a, a]: known[kept.entries[a, a]] + FLOOR for a in range(len(fields))}
            self._moments[form, fields] = self._form(form, known)
        return self._moments[form, fields]

    def _form(self, form: sympy.Expr, known: dict[sympy.Expr, Any]) -> Any:
        """Return the value of a closed form. Every distinct subexpression is computed once: they are deeply nested."""
        if form not in known:
            for argument in () if isinstance(form, (sympy.Sum, sympy.Piecewise, sympy.Indexed)) else form.args:
                self._form(argument, known)
            known[form] = self.value(form, known)
        return known[form]

    def _piecewise(self, expr: sympy.Piecewise, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return the value of the first piece whose condition holds, for numbers and arrays."""
        pieces = [(self.value(value, index), self._condition(condition, index)) for value, condition in expr.args]
        return np.select([np.asarray(c) for _, c in pieces], [np.asarray(v) for v, _ in pieces], np.nan)[()]

    def _condition(self, condition: sympy.Basic, index: Mapping[sympy.Symbol, Any]) -> Any:
        if condition in (sympy.true, sympy.false):
            return bool(condition)
        if isinstance(condition, sympy.Not):
            return np.logical_not(self._condition(condition.args[0], index))
        if isinstance(condition, (sympy.And, sympy.Or)):
            combine = np.logical_and if isinstance(condition, sympy.And) else np.logical_or
            return reduce(combine, (self._condition(c, index) for c in condition.args))
        return _RELATIONS[type(condition)](*(self.value(side, index) for side in condition.args))

    def _moment_form(self, moment: Moment) -> Any:
        return moment_form(moment.signature, shifted=bool(self.dynamics.mean))

    def _joint(self, integrand: sympy.Expr, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return the expectation over all fields: the weighted mean over the nodes."""
        weights = self._places[1] if self._places else self.values[_WEIGHTS]
        return np.sum(weights * self.value(integrand, index))

    def _all_fields(self) -> list[Field]:
        return [
            (str(family.base), *place)
            for family in self._families
            for place in product(*(range(1, int(sympy.sympify(n).subs(self.sizes)) + 1) for n in family.axes))
        ]

    def _at_nodes(self, field: Field) -> np.ndarray:
        """Return the values of a local field at the nodes of the rule over all fields."""
        if self._probe is not None or self._places:
            return self._points()[:, self._all_fields().index(field)]
        if not self._fields:
            fields = self._all_fields()
            factor = self._factor()
            values = self.values[_NODES][:, : factor.shape[1]] @ factor.T
            self._fields = {f: self._mean(f) + values[:, n] for n, f in enumerate(fields)}
        return self._fields[field]

    def _points(self) -> np.ndarray:
        """Return all fields, the label noise last, where they are evaluated now; else the nodes themselves."""
        if self._probe is not None:
            return self._probe
        return self._places[0] if self._places else self.values[_NODES]

    def _factor(self) -> np.ndarray:
        """Return the factor of the covariance of all fields."""
        fields = self._all_fields()
        return _lower_factor(
            np.array([[self._covariance(f, g) for g in fields] for f in fields]), self._own, self._spare
        )

    def _split(self, kind: str, equations: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return the fields and the weights at the nodes of the rule that splits kinks."""
        tables = [table for table in self.dynamics.tables if table.kind == kind]
        bundle, piece = ((self.values[tables[n].base], self.values[tables[n + 1].base]) for n in (0, 2))
        integrands = [j.args[0] for e in equations for j in sorted(e.expr.atoms(Joint), key=str)]
        families = [(str(family.base), family.size) for family in self.dynamics.families]
        switches = switches_of(integrands, families) or ()
        rows, groups = [], []
        for number, switch in enumerate(switches):
            for level in switch.levels:
                for unit in range(1, int(switch.size.subs(self.sizes)) + 1):
                    rows.append((switch.expr, level, unit))
                    groups.append((number, unit))

        def values(points: np.ndarray) -> np.ndarray:
            self._probe = points
            columns = [self.value(expr, {UNIT: unit}) - self.number(level) for expr, level, unit in rows]
            self._probe = None
            return np.stack([np.broadcast_to(c, len(points)) for c in columns], axis=1)

        factor, mean = self._factor(), np.array([float(self._mean(f)) for f in self._all_fields()])
        if tables[0].noise:
            factor = np.block([[factor, np.zeros((len(factor), 1))], [np.zeros((1, factor.shape[1])), np.ones((1, 1))]])
            mean = np.append(mean, 0.0)
        unique = list(dict.fromkeys(groups))
        return split_nodes(values, [unique.index(g) for g in groups], mean, factor, bundle, piece)

    def _law(self, f: Field, g: Field | None = None) -> Any:
        """Return the mean of a field, or the covariance of two."""
        return self._mean(f) if g is None else self._covariance(f, g)

    def _mean(self, f: Field) -> Any:
        """Return the mean of a local field."""
        law = dict(self.dynamics.mean).get(f[0])
        return (
            self.number(sympy.S.Zero)
            if law is None
            else self.value(law.expr, dict(zip(law.variables, f[1:], strict=True)))
        )

    def _covariance(self, f: Field, g: Field) -> Any:
        """Return the covariance of two local fields, each given as its family and number."""
        laws = dict(self.dynamics.covariance)
        if (f[0], g[0]) not in laws:
            f, g = g, f
        law = laws[f[0], g[0]]
        return self.value(law.expr, dict(zip(law.variables, f[1:] + g[1:], strict=True)))

    def _dilation(self, moment: Moment, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return ∂_s of the moment under the covariance sC at s = 1, which is Σ C_ab ∂/∂C_ab of its closed form."""
        form = self._moment_form(moment)
        covariances = [symbol for entry, symbol in form.entries.items() if len(entry) == 2]
        return self._moment(moment, sympy.Add(*(c * sympy.diff(form.form, c) for c in covariances)), index)

    def _product(self, expr: sympy.Mul, index: Mapping[sympy.Symbol, Any]) -> Any:
        """Return a fraction as one division, as it is written: C/√(C C) is exactly 1, which asin needs to be exact."""
        below = [f for f in expr.args if isinstance(f, sympy.Pow) and f.exp.is_Rational and f.exp < 0]
        above = [self.value(f, index) for f in expr.args if f not in below] or [self.number(sympy.S.One)]
        value = math.prod(above[1:], start=above[0])
        under = [self.value(f.base**-f.exp, index) for f in below]
        return value / math.prod(under[1:], start=under[0]) if under else value

    def _power(self, base: Any, exponent: sympy.Expr, value: Any) -> Any:
        if exponent.is_Integer:
            return base ** int(exponent)
        if (2 * exponent).is_Integer and isinstance(base, (float, np.ndarray)):
            return np.sqrt(base) ** int(2 * exponent)  # correctly rounded, which powers are not
        return base**value

    def _call(self, function: Any, arguments: list[Any]) -> Any:
        name = function.__name__
        if name in self.functions:
            return self.functions[name](*arguments)
        if (own := getattr(function, "_imp_", None)) is not None:
            return own(*arguments)
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


_NODES, _WEIGHTS = (sympy.IndexedBase(name, real=True) for name in ("node_joint", "weight_joint"))
_RELATIONS = {
    sympy.StrictGreaterThan: np.greater,
    sympy.GreaterThan: np.greater_equal,
    sympy.StrictLessThan: np.less,
    sympy.LessThan: np.less_equal,
    sympy.Equality: np.equal,
    sympy.Unequality: np.not_equal,
}


def _lower_factor(covariance: np.ndarray, own: int, spare: int) -> np.ndarray:
    """Return the lower triangular L with L Lᵀ = C, by taking away one field after the other; zero columns where a
    field's variance is used up, of which the first ``spare`` are left out. NaN where C is no covariance. Beyond its
    ``own`` fields rows are what these tell of others."""
    rest, factor = covariance.copy(), np.zeros_like(covariance)
    tiny = 1e-12 if spare else 2e-15 * len(covariance)
    used_up = []
    for n in range(own):
        pivot, variance = rest[n, n], covariance[n, n]
        if pivot <= tiny * variance:
            used_up.append(n)
        if pivot > tiny * variance:
            factor[n:, n] = rest[n:, n] / np.sqrt(pivot)
            rest -= np.outer(factor[:, n], factor[:, n])
        elif not (variance >= 0 and pivot >= -1e-5 * variance):
            factor[n:, n] = np.nan
    return np.delete(factor[:, :own], used_up[:spare], axis=1)


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
