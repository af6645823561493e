"""Models and Dynamics as JSON that reads back to an equal value.

Nothing here evaluates text at large: formulas are read by the closed list of :mod:`effdyn.derive.text`, a user's
functions by the closed language of :mod:`effdyn.derive.user_source`, which can do nothing but compute; models are built
by name from their plain arguments, and equations without a model are read node by node from a closed table.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..activation import Activation
from ..dynamics import Dynamics, Quantity
from ..errors import ModelError, NotYet, nearest
from ..user_function import user_functions
from .encode import decode, encode
from .reading_order import sorted_moments

VERSION = 1
"""Of the JSON documents."""


# --- models -----------------------------------------------------------------------------------------------------------


def model_to_json(model: Any) -> str:
    """Return a model as JSON text: its name and the arguments that differ from their defaults.

    Raises
    ------
    ModelError
        If the text would not read back to an equal model.
    NotYet
        For a formula around a function of a user's own; the function alone is written as its source text.

    Examples
    --------
    >>> from effdyn import derive
    >>> print(model_to_json(derive.TeacherStudent(activation="He3", second_layer="trained")))
    {
      "model": "TeacherStudent",
      "arguments": {
        "activation": "He3",
        "second_layer": "trained"
      },
      "version": 1
    }
    """
    for part in (getattr(model, name, None) for name in ("activation", "teacher_activation")):
        if isinstance(part, Activation) and user_functions(part.expr) and not part.is_user_function:
            name = user_functions(part.expr)[0].title
            raise NotYet(
                f"JSON of {part.expr}, a formula around {name}", "a function that computes all of it, and its slope"
            )
    text = json.dumps(_model_document(model), indent=2, ensure_ascii=False)
    if model_from_json(text) != model:
        raise ModelError(
            "model", model, "a model that its arguments as text determine: write numbers such as 1/3 as fractions"
        )
    return text


def model_from_json(text: str) -> Any:
    """Return the model that JSON text states.

    Raises
    ------
    ModelError
        If it states none.

    Examples
    --------
    >>> from effdyn import derive
    >>> model = derive.TeacherStudent(activation="erf", output_scale="1/sqrt(K)")
    >>> model_from_json(model_to_json(model)) == model
    True
    """
    return _model_from(_document(text, "model"))


def _model_document(model: Any) -> dict[str, Any]:
    return {"model": type(model).__name__, "arguments": model.arguments(), "version": VERSION}


def _model_class(name: Any) -> Callable[..., Any]:
    """Return the model of that name: a class that the room makes public and that states its arguments."""
    room = sys.modules["effdyn.derive"]
    if name in room.__all__ and _is_model(found := getattr(room, name)):  # others are not imported to read this one
        return found
    models = [public for public in room.__all__ if _is_model(getattr(room, public))]
    raise ModelError("model", name, f"one of {', '.join(map(repr, models))}{nearest(str(name), models)}")


def _is_model(public: Any) -> bool:
    return isinstance(public, type) and hasattr(public, "arguments") and hasattr(public, "dynamics")


def _model_from(document: Mapping[str, Any]) -> Any:
    name, arguments = document.get("model"), document.get("arguments", {})
    model = _model_class(name)
    if not isinstance(arguments, dict) or not all(
        isinstance(v, (str, int, float, bool, type(None))) for v in arguments.values()
    ):
        raise ModelError("arguments", arguments, "an object of texts, numbers, true and false")
    known = {field for field in getattr(model, "__dataclass_fields__", {})}
    for argument in arguments:
        if argument not in known:
            raise ModelError(
                argument, arguments[argument], f"{name} takes {', '.join(sorted(known))}{nearest(argument, known)}"
            )
    return model(**arguments)


def _document(text: str, key: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError("text", text[:40], f"JSON; at line {error.lineno} there is {error.msg}") from None
    if not isinstance(document, dict) or key not in document:
        raise ModelError("text", text[:40], f"a JSON object with the entry {key!r}")
    if document.get("version") != VERSION:
        raise ModelError(
            "version", document.get("version"), f"{VERSION}, the version of documents that this effdyn writes and reads"
        )
    return document


# --- equations --------------------------------------------------------------------------------------------------------


def dynamics_to_json(dyn: Dynamics) -> str:
    """Return a Dynamics as JSON text: what it was derived from, and its equations, for readers and for checking.

    Examples
    --------
    >>> from effdyn import derive
    >>> document = json.loads(dynamics_to_json(derive.TeacherStudent(activation="linear").dynamics("gradient-flow")))
    >>> document["equations"]["eg"][:32]
    'Sum(I_2(j, l)*a[j]*a[l], (l, 1, '
    """
    document: dict[str, Any] = {"dynamics": dyn.title, "version": VERSION}
    if dyn.model is not None:
        model_to_json(dyn.model)  # raises where the text does not determine the model
        document["derived_from"] = {**_model_document(dyn.model), "call": dyn.arguments}
    document |= _readable(dyn)
    if dyn.model is None:
        document["tree"] = encode(dyn)
    return json.dumps(document, indent=2, ensure_ascii=False)


def dynamics_from_json(text: str) -> Dynamics:
    """Return the Dynamics that JSON text states: derived again from its model and checked, or read node by node.

    Raises
    ------
    ModelError
        If it states none, or if the equations in it are not those that its model gives.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="square").dynamics()
    >>> dynamics_from_json(dynamics_to_json(dyn)) == dyn
    True
    """
    document = _document(text, "dynamics")
    if "derived_from" in document:
        source = document["derived_from"]
        if not isinstance(source, dict):
            raise ModelError("derived_from", source, "an object with the entries 'model', 'arguments' and 'call'")
        dyn = _model_from(source).dynamics(**_texts("call", source.get("call", {})))
    else:
        dyn = decode(document.get("tree"))
        if not isinstance(dyn, Dynamics):
            raise ModelError("tree", str(dyn)[:60], "a Dynamics, as dynamics_to_json writes it")
    for key, right in _readable(dyn).items():
        _compare(key, document.get(key), right)
    return dyn


def _texts(what: str, given: Any) -> dict[str, str]:
    """Return an object of texts by name, or raise a ModelError."""
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ModelError(what, given, "an object of texts by name")
    return given


def _compare(what: str, given: Any, right: Any) -> None:
    """Raise a ModelError that names the first entry in which two values of a document differ, if they do."""
    if given == right:
        return
    if isinstance(given, dict) and isinstance(right, dict):
        for key in sorted(right):
            _compare(f"{what}[{key!r}]", given.get(key), right[key])
    raise ModelError(what, given, f"what its model gives: {right}")


def _readable(dyn: Dynamics) -> dict[str, Any]:
    """Return what a reader finds in a document, and what is compared when it is read."""

    def entry(q: Quantity) -> dict[str, Any]:
        return {
            "symbol": str(q.symbol),
            "shape": [str(s) for s in q.shape],
            "symmetric": q.symmetric,
            "meaning": q.meaning,
        }

    return {
        "kind": dyn.kind,
        "clock": dyn.clock,
        "status": dyn.status,
        "numerical": {e.quantity.name: e.status for e in dyn.equations if e.status != "exact"},
        "assumptions": list(dyn.assumptions),
        "states": {q.name: entry(q) for q in dyn.states},
        "parameters": {q.name: entry(q) for q in dyn.parameters},
        "observables": {e.quantity.name: entry(e.quantity) for e in dyn.observables},
        "equations": {f"d{e.quantity.name}/dt": str(dyn.named(e.expr)) for e in dyn.drift}
        | {e.quantity.name: str(dyn.named(e.expr)) for e in dyn.observables},
        **({"diffusion": [str(replace(e, expr=dyn.named(e.expr))) for e in dyn.diffusion]} if dyn.diffusion else {}),
        "moments": {m.name: m.text() for m in sorted_moments(dyn)},
    }
