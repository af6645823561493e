"""Values of closed forms for a user's numbers: arrays in, conditions checked, arrays out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sympy

from ..errors import Described, ModelError, nearest
from .compiled import array_value, settled_value
from .flow import Condition, Solved
from .standard import Standard

if TYPE_CHECKING:
    import numpy as np

Arrays = dict[sympy.Symbol, "np.ndarray"]


def evaluate(
    solved: Sequence[Solved], standard: Standard, t: Any, y0: Mapping[str, Any], params: Mapping[str, Any]
) -> "dict[str, np.ndarray]":
    """Return every state at the times t: ``t.shape`` first, then the axes of modes."""
    import numpy as np

    values = read(standard, y0, params)
    axes = np.broadcast_shapes(*(v.shape for v in values.values()))
    times = _times(t)
    values[standard.time] = times.reshape(times.shape + (1,) * len(axes))
    originals = dict(standard.originals)
    found = {}
    for part in solved:
        for c in part.conditions:
            _check(c, standard, values)
        array = np.broadcast_to(part_values(part, values), times.shape + axes).copy()
        _check_finite(array, part, standard, values)
        found[_key(originals[part.flow.state])] = array
    return found


def part_values(part: Solved, values: Arrays) -> "np.ndarray":
    """Return one state for arrays that broadcast, by its recipe, its formula, or the inverse of its time."""
    import numpy as np

    if part.recipe is not None:
        from .stable import FUNCTIONS

        arguments = [array_value(a, values) for a in part.recipe.arguments]
        with np.errstate(all="ignore"):  # branches that do not apply; NaN is reported by the caller
            return np.asarray(FUNCTIONS[part.recipe.function](values[part.flow.time], *arguments))
    if part.solution is None:
        from .invert import inverted

        return _pointwise(lambda point: inverted(part, point), values)
    solution = part.solution
    used = {s: v for s, v in values.items() if s in solution.free_symbols}
    return _pointwise(lambda point: settled_value(solution, point), used)


def _pointwise(value: Any, values: Arrays) -> "np.ndarray":
    import numpy as np

    arrays = np.broadcast_arrays(*values.values())
    out = [value(dict(zip(values, point, strict=True))) for point in zip(*(a.ravel() for a in arrays), strict=True)]
    return np.array(out, float).reshape(arrays[0].shape)


# -- reading what was given --------------------------------------------------------------------------------------------


def read(standard: Standard, y0: Mapping[str, Any], params: Mapping[str, Any]) -> Arrays:
    """Return the arrays of parameters and initial values by plain symbol, shaped so that they broadcast."""
    originals = dict(standard.originals)
    states = [originals[state] for state, _ in standard.rates]
    axes = list(dict.fromkeys(i for s in states for i in _indices(s) if not i.is_number))
    parameters = {d: a for d, a in originals.items() if a not in states and d != standard.time}
    _check_names("params", params, parameters.values(), ())
    optional = [s for s, (_, start) in zip(states, standard.starts, strict=True) if start.is_number]
    _check_names("y0", y0, states, optional)
    values = {d: _array("params", a, params, axes, d) for d, a in parameters.items()}
    for state, (symbol, written) in zip(states, standard.starts, strict=True):
        given = y0 if _given(y0, state) is not None else {_name(state): float(written)}
        values[symbol] = _array("y0", state, given, axes, symbol)
    _check_broadcast(values)
    return values


def _indices(atom: sympy.Expr) -> tuple[sympy.Expr, ...]:
    return tuple(atom.indices) if isinstance(atom, sympy.Indexed) else ()


def _name(atom: sympy.Expr) -> str:
    return str(atom.base) if isinstance(atom, sympy.Indexed) else str(atom)


def _key(state: sympy.Expr) -> str:
    """Entries with numbers as indices are states of their own; entries with symbols are one array."""
    return str(state) if any(i.is_number for i in _indices(state)) else _name(state)


def _given(values: Mapping[str, Any], atom: sympy.Expr) -> Any:
    return values.get(_name(atom), values.get(str(atom)))


def _check_names(argument: str, values: Any, atoms: Any, optional: Any) -> None:
    if not isinstance(values, Mapping):
        raise ModelError(argument, values, "a mapping of names to numbers or arrays")
    known = {_name(a) for a in atoms} | {str(a) for a in atoms}
    for name in values:
        if name not in known:
            raise ModelError(argument, name, f"{', '.join(sorted(known)) or 'nothing'}{nearest(str(name), known)}")
    if missing := sorted({_name(a) for a in atoms if _given(values, a) is None and a not in optional}):
        raise ModelError(argument, sorted(map(str, values)), f"also {', '.join(missing)}")


def _array(
    argument: str, atom: sympy.Expr, given: Mapping[str, Any], axes: list[sympy.Expr], symbol: sympy.Symbol
) -> "np.ndarray":
    import numpy as np

    label = f"{argument}[{_name(atom)!r}]"
    try:
        array = np.asarray(_given(given, atom), float)
    except (TypeError, ValueError):
        raise ModelError(label, _given(given, atom), "a number or an array of numbers") from None
    if not np.isfinite(array).all():
        raise ModelError(label, array.tolist(), "finite numbers")
    for kind, holds in (("positive", array > 0), ("nonnegative", array >= 0), ("integer", array == np.round(array))):
        if getattr(symbol, f"is_{kind}") and not holds.all():
            raise ModelError(label, array.tolist(), f"{kind} numbers, as {atom} was declared")
    return _placed(array, atom, axes, label)


def _placed(array: "np.ndarray", atom: sympy.Expr, axes: list[sympy.Expr], label: str) -> "np.ndarray":
    """Move the axes of an array to those of its indices; entries named by number are taken out."""
    import numpy as np

    indices = _indices(atom)
    if array.ndim == 0 or (not axes and not indices):
        return array
    if array.ndim != len(indices):
        raise ModelError(label, Described(f"an array of shape {array.shape}"), f"a number, or one for each of {atom}")
    array = array[tuple(int(i) - 1 if i.is_number else slice(None) for i in indices)]
    free = [i for i in indices if not i.is_number]
    if unknown := [i for i in free if i not in axes]:
        raise ModelError(
            label, Described(f"an array over {unknown[0]}"), f"a number: no state has the index {unknown[0]}"
        )
    order = sorted(range(len(free)), key=lambda n: axes.index(free[n]))
    shape = [1] * len(axes)
    for n in order:
        shape[axes.index(free[n])] = array.shape[n]
    return np.transpose(array, order).reshape(shape)


def _check_broadcast(values: Arrays) -> None:
    import numpy as np

    try:
        np.broadcast_shapes(*(v.shape for v in values.values()))
    except ValueError:
        shapes = ", ".join(f"{s.name}: {v.shape}" for s, v in values.items() if v.ndim)
        raise ModelError("y0 and params", Described(shapes), "arrays with equal numbers of modes, or numbers") from None


def _times(t: Any) -> "np.ndarray":
    import numpy as np

    times = np.asarray(t, float)
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise ModelError("t", times.tolist(), "finite times from 0 on")
    return times


# -- conditions --------------------------------------------------------------------------------------------------------


def _check(c: Condition, standard: Standard, values: Arrays) -> None:
    import numpy as np

    holds = np.broadcast_to(array_value(c.relation, values).astype(bool), _shape(values))
    if holds.all():
        return
    where = tuple(np.argwhere(~holds)[0])
    raise ModelError("y0, params or t", _point(standard, values, where), _wanted(c, standard))


def _wanted(c: Condition, standard: Standard) -> str:
    relation = str(standard.restored(c.relation))
    formula = f" ({relation})" if len(relation) <= 80 else ""
    return f"the closed form holds where {c.sentence}{formula}; elsewhere, {c.instead}"


def _check_finite(array: "np.ndarray", part: Solved, standard: Standard, values: Arrays) -> None:
    import numpy as np

    if not np.isfinite(array).all():
        where = tuple(np.argwhere(~np.isfinite(array))[0])
        point = _point(standard, values, where)
        raise ArithmeticError(
            f"the closed form of {part.flow.state} gives {array[where]} in double precision at {point}"
        )


def _shape(values: Arrays) -> tuple[int, ...]:
    import numpy as np

    return np.broadcast_shapes(*(v.shape for v in values.values()))


def _point(standard: Standard, values: Arrays, where: tuple[int, ...]) -> Described:
    """Describe the entry at fault, by its numbers."""
    import numpy as np

    shape = _shape(values)
    texts = [f"{s.name} = {np.broadcast_to(v, shape)[where]:.6g}" for s, v in values.items()]
    return Described(", ".join(texts))
