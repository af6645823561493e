"""Initial values, parameters and times in another convention, both ways.

The relations are those of a :class:`.convention.Convention`; knows nothing of any particular paper.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sympy

from .convention import SIZES, UNCHANGED, Convention
from .errors import Described, ModelError, nearest
from .schedule import parameters_of
from .teacher_student import TeacherStudent


def numbers_to_effdyn(
    convention: Convention, y0: Mapping[str, Any], params: Mapping[str, Any], t: Any, model: TeacherStudent
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return a paper's numbers as effdyn's: see :meth:`.convention.Convention.to_effdyn`."""
    relations = convention.relations(model.output_scale)
    if model.trains_second_layer and not relations["a"].theirs:
        raise ModelError("model", model, f"a model with a fixed second layer: that of {convention.title} is 1")
    theirs = {r.theirs: r for r in relations.values() if r.theirs}
    _check_names("y0", y0, theirs)
    same = {*UNCHANGED, *(q.name for q in parameters_of(model.schedule))}
    _check_names("params", params, {*theirs, *_other_letters(convention), *same})
    numbers = _scalars(params) | _sizes(convention, {**y0, **params}, ours=False)

    def back(name: str, value: Any) -> Any:
        relation = theirs[name]
        return _number(relation.factor, numbers) * _array(value) ** _number(relation.power, {})

    new_y0 = {theirs[name].ours: back(name, value) for name, value in y0.items()}
    new_params = {theirs[name].ours: back(name, value) for name, value in params.items() if name in theirs}
    new_params |= {name: value for name, value in params.items() if name in same}
    for name, needed in (("a", not model.trains_second_layer), ("b", model.target is None)):
        if needed and name in relations and not relations[name].theirs:
            new_params[name] = _number(relations[name].factor, numbers)
    return new_y0, new_params, None if t is None else _array(t) / _number(convention.time_ratio(), numbers)


def numbers_from_effdyn(
    convention: Convention,
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    t: Any,
    model: TeacherStudent,
    known: Mapping[str, float],
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return effdyn's numbers as a paper's: see :meth:`.convention.Convention.from_effdyn`."""
    relations = convention.relations(model.output_scale)
    _check_names("y0", y0, {name for name, relation in relations.items() if relation.theirs})
    same = {*UNCHANGED, *(q.name for q in parameters_of(model.schedule))}
    _check_names("params", params, {*relations, *same})
    _check_names("known", known, _other_letters(convention))
    numbers = dict(known) | _sizes(convention, {**y0, **params}, ours=True)

    def forth(name: str, value: Any) -> Any:
        relation = relations[name]
        factor = _number(relation.factor, numbers)
        return (_array(value) / factor) ** (1 / _number(relation.power, {}))

    new_params: dict[str, Any] = {name: value for name, value in params.items() if name in same}
    for name in (name for name in relations if name in params):  # in this order: a decay may be in units of a rate
        if relations[name].theirs:
            new_params[relations[name].theirs] = forth(name, params[name])
            numbers |= _scalars(new_params)
        else:
            _check_one(name, forth(name, params[name]), convention)
    new_y0 = {relations[name].theirs: forth(name, value) for name, value in y0.items()}
    new_t = None if t is None else _array(t) * _number(convention.time_ratio(), numbers)
    return new_y0, new_params | dict(known), new_t


def _check_one(name: str, value: Any, convention: Convention) -> None:
    import numpy as np

    if not np.allclose(value, 1.0, rtol=1e-12, atol=0.0):  # a few roundings
        accepted = f"what is 1 in the units of {convention.title}, who have no second layer here; it is {value}"
        raise ModelError(f"params[{name!r}]", Described("this value"), accepted)


def _check_names(argument: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in set(known):
            raise ModelError(argument, name, f"names among {', '.join(sorted(known))}{nearest(name, known)}")


def _other_letters(convention: Convention) -> set[str]:
    """Return the letters of the formulas that stand for no quantity and no number of units: d, and exponents."""
    names = {theirs for ours, theirs in convention.names if ours != "d"} | {*map(convention.named, SIZES)}
    return {s.name for s in convention.formula_letters()} - names


def _sizes(convention: Convention, given: Mapping[str, Any], ours: bool) -> dict[str, float]:
    """Return the numbers of units, from the trailing axes of arrays, under the paper's letters."""
    import numpy as np

    axes = {"R": ("K", "M"), "Q": ("K", "K"), "T": ("M", "M"), "a": ("K",), "b": ("M",)}
    found: dict[str, float] = {}
    for name, sizes in axes.items():
        value = given.get(name if ours else dict(convention.names).get(name, ""))
        if value is not None and np.ndim(value) >= len(sizes):
            found |= dict(zip(map(convention.named, sizes), map(float, np.shape(value)[-len(sizes) :]), strict=True))
    return found


def _scalars(params: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    return {name: value for name, value in params.items() if np.ndim(value) == 0}


def _number(expr: sympy.Expr, numbers: Mapping[str, Any]) -> float:
    missing = sorted(s.name for s in expr.free_symbols if s.name not in numbers)
    if missing:
        given = Described(", ".join(sorted(numbers)) or "nothing")
        raise ModelError("params", given, f"numbers also for {', '.join(missing)}, of which {expr} is made")
    return float(expr.xreplace({s: sympy.Float(float(numbers[s.name]), 17) for s in expr.free_symbols}))


def _array(value: Any) -> Any:
    """Return a list as an array; numbers and arrays of any kind, xarray's too, are what they are."""
    import numpy as np

    return np.asarray(value, dtype=float) if isinstance(value, (list, tuple)) else value
