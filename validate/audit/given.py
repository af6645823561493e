"""A user's right-hand side, in whichever form it comes, as arrays over the states of a batch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, Equation, ExpandedDynamics, ModelError, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.derive.errors import Described, nearest
from effdyn.derive.moments import Univariate
from effdyn.solve.kernels.layout import pack, unpack

from .tensors import Batch, Evaluator
from .terms import index_symbols

Arrays = dict[str, np.ndarray]
Reader = Callable[[Batch], Arrays]
PACKED = ("full", "triangle")


def read_given(my_rhs: Any, dyn: Dynamics, packed: str | None) -> Reader:
    """Return what evaluates a user's right-hand side at a batch: arrays (states, *shape) by name of state.

    Raises
    ------
    ModelError
        If it is none of the accepted forms, or lacks an equation.
    """
    if packed is not None and packed not in PACKED:
        raise ModelError("packed", packed, f"None, {' or '.join(map(repr, PACKED))}")
    if isinstance(my_rhs, Dynamics):
        return _of_dynamics(my_rhs, dyn)
    if isinstance(my_rhs, ExpandedDynamics):
        return _of_entries(dict(my_rhs.equations), dyn)
    if isinstance(my_rhs, Mapping):
        if all(isinstance(name, str) for name in my_rhs):
            return _of_expressions(my_rhs, dyn)
        return _of_entries(my_rhs, dyn)
    if callable(my_rhs):
        return _of_callable(my_rhs, dyn, packed)
    raise ModelError(
        "my_rhs",
        Described(type(my_rhs).__name__),
        "a function f(y, params) -> dict, SymPy expressions by state or by entry, or a Dynamics",
    )


# -- functions ---------------------------------------------------------------------------------------------------------


def _of_callable(f: Callable[..., Any], dyn: Dynamics, packed: str | None) -> Reader:
    def read(batch: Batch) -> Arrays:
        results = [_call(f, dyn, batch, s, packed) for s in range(len(batch))]
        return {q.name: np.array([r[q.name] for r in results]) for q in dyn.states}

    return read


def _call(f: Callable[..., Any], dyn: Dynamics, batch: Batch, s: int, packed: str | None) -> Arrays:
    state = batch.state(s)
    y = {q.name: state[q.name].copy() for q in dyn.states}
    params = {name: _plain(array) for name, array in state.items() if name not in y}
    if packed is None:
        found = f(y, params)
        if not isinstance(found, Mapping):
            raise ModelError("my_rhs", Described(f"a function that returns {type(found).__name__}"), "one of a dict")
        _check_names(found, dyn)
    else:
        vector = pack(dyn.states, y) if packed == "triangle" else np.concatenate([np.ravel(a) for a in y.values()])
        found = _unpacked(np.asarray(f(params.get(str(TIME), 0.0), vector, params), dtype=float), dyn, batch, packed)
    return {q.name: _checked(found[q.name], q, y[q.name].shape) for q in dyn.states}


def _plain(array: np.ndarray) -> Any:
    return array.copy() if array.ndim else float(array)


def _unpacked(vector: np.ndarray, dyn: Dynamics, batch: Batch, packed: str) -> Arrays:
    if packed == "triangle":
        return unpack(dyn.states, vector, batch.sizes)
    shapes = [tuple(batch.number(size) for size in q.shape) for q in dyn.states]
    ends = np.cumsum([int(np.prod(shape, dtype=int)) for shape in shapes])
    if vector.shape != (ends[-1],):
        raise ModelError("my_rhs", Described(f"a vector of shape {vector.shape}"), f"one of {ends[-1]} numbers")
    parts = np.split(vector, ends[:-1])
    return {q.name: part.reshape(shape) for q, part, shape in zip(dyn.states, parts, shapes, strict=True)}


def _checked(given: Any, q: Quantity, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(given, dtype=float)
    if array.shape != shape:
        raise ModelError("my_rhs", Described(f"{q.name} of shape {array.shape}"), f"the shape of {q.name}, {shape}")
    return array


def _check_names(found: Iterable[str], dyn: Dynamics) -> None:
    names = [q.name for q in dyn.states]
    for name in found:
        if name not in names:
            raise ModelError("my_rhs", name, f"equations of {', '.join(names)}{nearest(str(name), names)}")
    if missing := [name for name in names if name not in found]:
        raise ModelError("my_rhs", Described(f"equations without {', '.join(missing)}"), "an equation of every state")


# -- expressions -------------------------------------------------------------------------------------------------------


def _of_dynamics(other: Dynamics, dyn: Dynamics) -> Reader:
    _check_names([q.name for q in other.states], dyn)
    known = {q.name for q in (*dyn.states, *dyn.parameters)}
    if unknown := [q.name for q in other.parameters if q.name not in known]:
        raise ModelError(
            "my_rhs", Described(f"a Dynamics with the parameter {', '.join(unknown)}"),
            f"one with parameters among {', '.join(q.name for q in dyn.parameters)}; a Dynamics that has more "
            "parameters can be the second argument",
        )  # fmt: skip
    return lambda batch: _arrays(other, batch, {e.quantity.name: (e, e.expr) for e in other.drift})


def _of_expressions(given: Mapping[str, Any], dyn: Dynamics) -> Reader:
    _check_names(given, dyn)
    pairs = {e.quantity.name: (e, _own_symbols(sympy.sympify(given[e.quantity.name]), dyn, e)) for e in dyn.drift}
    return lambda batch: _arrays(dyn, batch, pairs)


def _arrays(dyn: Dynamics, batch: Batch, pairs: Mapping[str, tuple[Equation, sympy.Expr]]) -> Arrays:
    free = [i for e, _ in pairs.values() for i in e.quantity.indices]
    evaluator = Evaluator(dyn, batch, index_symbols([expr for _, expr in pairs.values()], free))
    return {name: evaluator.array(expr, e.quantity.indices, e.quantity.shape) for name, (e, expr) in pairs.items()}


def _of_entries(given: Mapping[Any, Any], dyn: Dynamics) -> Reader:
    """Expressions by entry, Q[1, 2]: of a symmetric state either of two."""
    entries = {}
    for left, right in given.items():
        if not isinstance(left, (sympy.Indexed, sympy.Symbol)):
            raise ModelError("my_rhs", left, "keys that are names of states, or entries such as Q[1, 2]")
        name = str(left.base) if isinstance(left, sympy.Indexed) else left.name
        place = tuple(int(i) - 1 for i in left.indices) if isinstance(left, sympy.Indexed) else ()
        entries[name, place] = _own_symbols(sympy.sympify(right), dyn, None)
    _check_names(dict.fromkeys(name for name, _ in entries), dyn)

    def read(batch: Batch) -> Arrays:
        evaluator = Evaluator(dyn, batch, index_symbols(entries.values(), ()))
        return {q.name: _from_entries(q, entries, evaluator, batch) for q in dyn.states}

    return read


def _from_entries(q: Quantity, entries: Mapping[Any, sympy.Expr], evaluator: Evaluator, batch: Batch) -> np.ndarray:
    shape = tuple(batch.number(s) for s in q.shape)
    array = np.empty((len(batch), *shape))
    for place in np.ndindex(shape):
        expr = entries.get((q.name, place), entries.get((q.name, place[::-1])) if q.symmetric else None)
        if expr is None:
            entry = ", ".join(str(n + 1) for n in place)
            raise ModelError("my_rhs", Described(f"no equation of {q.name}[{entry}]"), f"one of every entry, {shape}")
        array[(slice(None), *place)] = evaluator.array(expr, (), ())
    return array


def _own_symbols(expr: sympy.Expr, dyn: Dynamics, equation: Equation | None) -> sympy.Expr:
    """Return an expression in the symbols of the Dynamics: a user's have the same names without assumptions."""
    quantities = {q.name: q.base for q in (*dyn.states, *dyn.parameters)}
    fields = {str(f.base): f.base for f in dyn.families}
    sizes = {str(s): s for s in dyn.sizes}
    dummies = {limit[0] for s in expr.atoms(sympy.Sum) for limit in s.limits}
    free = {str(i): i for i in equation.quantity.indices} if equation else {}
    swap: dict[sympy.Basic, sympy.Basic] = {}
    for base in expr.atoms(sympy.IndexedBase):
        name = str(base)
        if name not in quantities and name not in fields:
            names = [*quantities, *fields]
            raise ModelError("my_rhs", name, f"an expression in {', '.join(names)}{nearest(name, names)}")
        swap[base] = quantities.get(name, fields.get(name))
    of_functions = {s for u in expr.atoms(Univariate) for s in u.atoms(sympy.Symbol)}
    labels = {base.label for base in expr.atoms(sympy.IndexedBase)}
    for symbol in expr.atoms(sympy.Symbol) - labels:
        if symbol in dummies or symbol == TIME or symbol in of_functions:
            continue
        known = {**quantities, **sizes, **free}
        if symbol.name not in known:
            raise ModelError("my_rhs", symbol.name, f"an expression in {', '.join(known)}{nearest(symbol.name, known)}")
        swap[symbol] = known[symbol.name]
    return expr.xreplace(swap)
