"""Indexed expressions evaluated for all entries and all states at once, with NumPy.

Each index symbol has an axis of its own, the states have the first. The reference interpreter computes the same entry
by entry; here hundreds of variants of a term are wanted. Knows nothing of mistakes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, Equation, ModelError, Moment, Quantity
from effdyn.derive.dynamics import mean_of_field
from effdyn.derive.gaussian.special import GaussianFunction
from effdyn.derive.gaussian.special_sources import numpy_source
from effdyn.derive.increments import overlap_of
from effdyn.derive.moments import Dilation, Joint
from effdyn.derive.numerical.moment_forms import moment_form
from effdyn.derive.numerical.quadrature import NODE_LINE, WEIGHT_LINE
from effdyn.derive.numerical.rules import line_rule
from effdyn.derive.numerical.vectorised import modules_for
from effdyn.solve.kernels.reference import FUNCTIONS, Interpreter

from .variants import Altered

CHUNK = 400
"""Entries of a numerical moment computed together: each has 100 or 100 × 100 nodes."""
Env = Mapping[sympy.Symbol, int]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some states with the same numbers of units: ``values`` by name, each of shape (states, *its own)."""

    sizes: dict[str, int]
    values: dict[str, np.ndarray]
    group: np.ndarray
    """Which of the states have the same parameters: the number of their set."""

    def __len__(self) -> int:
        return len(self.group)

    def number(self, size: Any) -> int:
        """Return a symbolic size as a number."""
        expr = sympy.sympify(size)
        return int(expr.xreplace({s: sympy.Integer(self.sizes[s.name]) for s in expr.free_symbols}))

    def where(self, keep: np.ndarray) -> "Batch":
        """Return the batch with only some of its states."""
        return Batch(self.sizes, {name: array[keep] for name, array in self.values.items()}, self.group[keep])

    def state(self, s: int) -> dict[str, np.ndarray]:
        """Return everything at state number ``s``."""
        return {name: array[s] for name, array in self.values.items()}


class OutOfRange(ValueError):
    """An index that runs further than the array it stands at."""


class Evaluator:
    """Evaluates expressions of a Dynamics, or of its user, at the states of a batch.

    Parameters
    ----------
    dynamics : Dynamics
        Says what fields are, and how they covary.
    batch : Batch
    symbols : iterable of Symbol
        Every index that may occur, free or summed.
    """

    def __init__(self, dynamics: Dynamics, batch: Batch, symbols: Iterable[sympy.Symbol]) -> None:
        self.dynamics, self.batch = dynamics, batch
        self._axes = {s: n for n, s in enumerate(sorted(set(symbols), key=str), start=1)}
        self._covariance, self._mean = dict(dynamics.covariance), dict(dynamics.mean)
        self._members = {str(f.base): batch.number(f.size) for f in dynamics.families if not f.derived}
        self._moments: dict[Any, np.ndarray] = {}
        self._values: dict[tuple[sympy.Basic, tuple[Any, ...]], np.ndarray] = {}

    def array(self, expr: sympy.Expr, indices: tuple[sympy.Symbol, ...], shape: tuple[sympy.Symbol, ...]) -> np.ndarray:
        """Return the values over all free indices, shape (states, *sizes).

        Raises
        ------
        OutOfRange
            If an index runs beyond the end of an array.
        """
        sizes = [self.batch.number(s) for s in shape]
        self._values.clear()
        with np.errstate(all="ignore"):
            values = self._value(expr, dict(zip(indices, sizes, strict=True)))
        order = [self._axes[i] for i in indices]
        full = [len(self.batch)] + [1] * len(self._axes)
        for axis, size in zip(order, sizes, strict=True):
            full[axis] = size
        wide = np.broadcast_to(values, full)
        return np.ascontiguousarray(np.moveaxis(wide, order, range(1, 1 + len(order)))).reshape(full[0], *sizes)

    def _value(self, expr: sympy.Basic, env: Env) -> Any:
        if expr.is_Number or expr.is_NumberSymbol:
            return np.float64(expr)
        key = (expr, tuple(env.items()))
        if key not in self._values:
            self._values[key] = self._compute(expr, env)
        return self._values[key]

    def _compute(self, expr: sympy.Basic, env: Env) -> Any:
        if isinstance(expr, sympy.Symbol):
            return self._symbol(expr, env)
        if isinstance(expr, sympy.Indexed):
            return self._at(self.batch.values[str(expr.base)], expr.indices, env)
        if isinstance(expr, sympy.Sum):
            return self._sum(expr.function, expr.limits, env)
        if isinstance(expr, (Moment, Altered)):
            return self._moment(expr, env)
        if isinstance(expr, (Joint, Dilation)):
            return self._one_by_one(expr, env)
        if isinstance(expr, sympy.Piecewise):
            pieces = [(self._value(v, env), self._condition(c, env)) for v, c in expr.args]
            values, conditions = ([np.asarray(p[n]) for p in pieces] for n in (0, 1))
            shape = np.broadcast_shapes(*(a.shape for a in (*values, *conditions)))
            wide = [[np.broadcast_to(a, shape) for a in part] for part in (conditions, values)]
            return np.select(wide[0], wide[1], np.nan)
        arguments = [self._value(a, env) for a in expr.args]
        if expr.is_Add:
            return reduce(np.add, arguments)
        if expr.is_Mul:
            return reduce(np.multiply, arguments)
        if expr.is_Pow:
            if expr.exp == sympy.Rational(1, 2):
                return np.sqrt(arguments[0])
            return arguments[0] ** (int(expr.exp) if expr.exp.is_Integer else arguments[1])
        name = type(expr).__name__
        if name not in FUNCTIONS:
            raise ModelError(
                "my_rhs", name, f"the functions {', '.join(FUNCTIONS)}, and moments as the derivation has them"
            )
        return FUNCTIONS[name](*arguments)

    def _symbol(self, symbol: sympy.Symbol, env: Env) -> Any:
        if symbol in env:
            shape = [1] * (1 + len(self._axes))
            shape[self._axes[symbol]] = env[symbol]
            return np.arange(1, env[symbol] + 1).reshape(shape)
        if symbol.name in self.batch.sizes:
            return np.float64(self.batch.sizes[symbol.name])
        return self.batch.values[symbol.name].reshape([-1] + [1] * len(self._axes))

    def _position(self, index: sympy.Expr, env: Env) -> Any:
        """Return the places of an index, counted from 0, along its own axis."""
        if index.is_Integer:
            return int(index) - 1
        return np.asarray(self._value(index, env)).astype(int) - 1

    def _at(self, array: np.ndarray, indices: Iterable[sympy.Expr], env: Env) -> np.ndarray:
        places = [self._position(i, env) for i in indices]
        for place, size in zip(places, array.shape[1:], strict=True):
            if np.max(place) >= size:
                raise OutOfRange
        states = np.arange(len(array)).reshape([-1] + [1] * len(self._axes))
        return np.asarray(array[(states, *places)])

    def _sum(self, summand: sympy.Expr, limits: tuple[sympy.Tuple, ...], env: Env) -> np.ndarray:
        *inner, (dummy, first, last) = limits  # SymPy writes the innermost limit first
        size = self.batch.number(last)
        inside = {**env, dummy: size}
        value = np.asarray(self._sum(summand, tuple(inner), inside) if inner else self._value(summand, inside))
        value = value.reshape(value.shape or [1] * (1 + len(self._axes)))
        shape = list(value.shape)
        shape[self._axes[dummy]] = size
        chosen = np.take(np.broadcast_to(value, shape), range(self.batch.number(first) - 1, size), self._axes[dummy])
        return np.asarray(chosen.sum(self._axes[dummy], keepdims=True))

    def _condition(self, condition: sympy.Basic, env: Env) -> Any:
        if condition in (sympy.true, sympy.false):
            return np.asarray(bool(condition))
        compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
        compare |= {"==": np.equal, "!=": np.not_equal}
        return compare[condition.rel_op](*(self._value(side, env) for side in condition.args))

    def _moment(self, expr: Any, env: Env) -> np.ndarray:
        """Return a moment at its indices, from the array over all fields of its families."""
        moment, change = (expr.args[0], expr.args[1].name) if isinstance(expr, Altered) else (expr, "")
        families = tuple(str(f.base) for f in moment.fields)
        key = (moment.signature, families, change)
        if key not in self._moments:
            self._moments[key] = self._all_entries(moment, families, change)
        return self._at(self._moments[key], (f.indices[0] for f in moment.fields), env)

    def _all_entries(self, moment: Moment, families: tuple[str, ...], change: str) -> np.ndarray:
        form, entries, closed = _moment_function(moment.signature, bool(self._mean), change)
        sizes = [self._members[f] for f in families]
        arrays = []
        for entry in entries:
            block = self._law(*(families[a] for a in entry))
            shape = [len(self.batch)] + [sizes[n] if n in entry else 1 for n in range(len(sizes))]
            if len(entry) == 2 and entry[0] == entry[1]:
                block = np.diagonal(block, axis1=1, axis2=2)
            arrays.append(np.broadcast_to(block.reshape(shape), [len(self.batch), *sizes]).ravel())
        if closed:
            values = form(*arrays)
        else:
            parts = range(0, len(arrays[0]), CHUNK)
            values = np.concatenate([np.atleast_1d(form(*(a[s : s + CHUNK] for a in arrays))) for s in parts])
        return np.asarray(np.broadcast_to(values, arrays[0].shape).reshape(len(self.batch), *sizes))

    def _law(self, f: str, g: str | None = None) -> np.ndarray:
        """Return the covariances of two families of fields, or the means of one, with the states first."""
        u, v = (sympy.Symbol(f"{name}_index") for name in "uv")
        of_f = sympy.IndexedBase(f)[u]
        if g is None:
            expr, free = mean_of_field(of_f, self._mean), {u: self._members[f]}
        else:
            expr = overlap_of(of_f, sympy.IndexedBase(g)[v], self._covariance)
            free = {u: self._members[f], v: self._members[g]}
        inner = {s for e in expr.atoms(sympy.Sum) for s, *_ in e.limits}
        law = Evaluator(self.dynamics, self.batch, [*free, *inner])
        return law.array(expr, tuple(free), tuple(map(sympy.Integer, free.values())))

    def _one_by_one(self, expr: sympy.Expr, env: Env) -> np.ndarray:
        """Return what only the reference interpreter evaluates, entry by entry."""
        free = [s for s in env if s in expr.free_symbols]
        shape = [len(self.batch)] + [1] * len(self._axes)
        for s in free:
            shape[self._axes[s]] = env[s]
        names = {q.name for q in (*self.dynamics.states, *self.dynamics.parameters)}
        sizes = tuple(sympy.Dummy(f"size{n}") for n in range(len(free)))
        equation = Equation(Quantity("entry", tuple(free), sizes), expr)
        found = np.empty([len(self.batch), *(env[s] for s in free)])
        for number in range(len(self.batch)):
            values = {name: array for name, array in self.batch.state(number).items() if name in names}
            interpreter = Interpreter(self.dynamics, values)
            interpreter.sizes |= {size: env[s] for size, s in zip(sizes, free, strict=True)}
            found[number] = interpreter.arrays((equation,))["entry"]
        order = np.argsort([self._axes[s] for s in free])
        return found.transpose(0, *(order + 1)).reshape(shape)


@lru_cache(maxsize=256)
def _moment_function(
    signature: tuple[sympy.Lambda, ...], shifted: bool, change: str
) -> tuple[Callable[..., Any], tuple[tuple[int, ...], ...], bool]:
    """Return a moment as a function of arrays of covariances, and which they are."""
    form = moment_form(signature, shifted=shifted)
    body = Altered.FORMS[change](form.form, form.entries) if change else form.form
    axes, slots, tables = [], {}, []
    while inner := sorted(body.atoms(sympy.Sum), key=lambda e: len(e.atoms(sympy.Sum))):
        axes.append(inner[0].limits[0][0])
        body = body.xreplace({inner[0]: inner[0].function})
    for n, s in enumerate(axes):
        for base, numbers in zip((NODE_LINE.base, WEIGHT_LINE.base), line_rule(0), strict=True):
            slots[base[s]] = sympy.Dummy(real=True)
            tables.append(numbers.reshape([1] + [-1 if n == k else 1 for k in range(len(axes))]))
    arguments = [*slots.values(), *form.entries.values()]
    function = sympy.lambdify(arguments, body.xreplace(slots), modules=_modules(body), cse=True, use_imps=False)

    def value(*arrays: np.ndarray) -> Any:
        wide = [a.reshape([-1] + [1] * len(axes)) for a in arrays]
        found = function(*tables, *wide)
        return np.sum(found, axis=tuple(range(1, 1 + len(axes)))) if axes else found

    return value, tuple(form.entries), not axes


def _modules(body: sympy.Expr) -> list[Any]:
    """Return where functions of arrays are found; rounding may carry a correlation beyond 1."""
    special = sorted({type(f).__name__ for f in body.atoms(GaussianFunction)} - {"Phi2", "sign1_given1", "Phi3"})
    module: dict[str, Any] = {"np": np, "math": __import__("math")}
    if special:
        exec(numpy_source(special), module)
    own = {name: module[name] for name in special}
    own |= {name: lambda x: np.arcsin(np.clip(x, -1, 1)) for name in ("arcsin", "asin")}
    return [own, *modules_for(body)]
