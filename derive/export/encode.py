"""Dynamics and expressions as nested lists and back, node by node from a closed table: nothing is evaluated."""

from collections.abc import Callable
from typing import Any

import sympy
from sympy.functions.elementary.piecewise import ExprCondPair

from ..diffusion import Amplitude, Covariation
from ..dynamics import Dynamics, Equation, FieldFamily, Quantity
from ..errors import ModelError
from ..gaussian.conditional_sign import sign1_given1
from ..gaussian.special import FUNCTIONS as SPECIAL
from ..moments import Dilation, Joint, Moment, Univariate, Value
from ..text import FUNCTIONS

_NODES: dict[str, Callable[..., Any]] = {
    **{c.__name__: c for c in (sympy.Add, sympy.Mul, sympy.Pow, sympy.Sum, sympy.Tuple, sympy.Indexed, sympy.Lambda)},
    **{c.__name__: c for c in (Moment, Joint, Dilation, Value, Univariate, sign1_given1, *SPECIAL)},
    **{f.__name__: f for f in FUNCTIONS.values() if isinstance(f, type)},
    **{c.__name__: c for c in (sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge, sympy.Eq, sympy.Ne)},
    **{c.__name__: c for c in (sympy.And, sympy.Or, sympy.Not, ExprCondPair, sympy.KroneckerDelta)},
    **{
        name: (lambda value=value: value)
        for name, value in {
            "Pi": sympy.pi,
            "Exp1": sympy.E,
            "Half": sympy.S.Half,
            "IdentityFunction": sympy.Id,
            "BooleanTrue": sympy.true,
            "BooleanFalse": sympy.false,
        }.items()
    },
}
"""The SymPy nodes that a document may contain."""
_VALUES = {c.__name__: c for c in (Dynamics, Equation, FieldFamily, Quantity, Amplitude, Covariation)}
"""The values around them."""


def encode(value: Any) -> Any:
    """Return a Dynamics or an expression as nested lists, each a node's name and its arguments.

    Examples
    --------
    >>> x = sympy.Symbol("x", real=True)
    >>> encode(2 * x)
    ['Mul', ['Integer', '2'], ['Symbol', 'x', {'real': True}]]
    >>> decode(encode(sympy.sqrt(2 * x))) == sympy.sqrt(2 * x)
    True
    """
    if isinstance(value, tuple):
        return ["tuple", *map(encode, value)]
    if value is None or isinstance(value, (bool, str, float)):
        return ["plain", value]
    if isinstance(value, (sympy.Symbol, sympy.IndexedBase)):
        kind = type(value).__name__
        assumptions = value.assumptions0 if isinstance(value, sympy.IndexedBase) else value._assumptions_orig
        return [
            kind,
            str(value),
            {k: v for k, v in assumptions.items() if k == "real"} if kind == "IndexedBase" else dict(assumptions),
        ]
    if isinstance(value, (sympy.Integer, sympy.Rational)):
        return [("Integer" if value.is_Integer else "Rational"), str(value)]
    if isinstance(value, sympy.Float):
        return ["Float", str(value), value._prec]
    name = type(value).__name__
    if name in _VALUES:
        return [
            name,
            {
                f: encode(getattr(value, f))
                for f in value.__dataclass_fields__
                if f not in ("steps", "dropped", "model", "limit")
            },
        ]
    if name not in _NODES:
        raise ModelError("expression", value, f"made of {', '.join(sorted(_NODES))}")
    return [name, *map(encode, value.args)]


def decode(tree: Any) -> Any:
    """Return what :func:`encode` wrote.

    Raises
    ------
    ModelError
        If a node is not in the closed table.
    """
    match tree:
        case ["tuple", *items]:
            return tuple(map(decode, items))
        case ["plain", None | bool() | str() | float() as value]:
            return value
        case ["Symbol", str(name), dict(assumptions)]:
            return sympy.Symbol(name, **{str(k): bool(v) for k, v in assumptions.items()})
        case ["IndexedBase", str(name), dict(assumptions)]:
            return sympy.IndexedBase(name, **{str(k): bool(v) for k, v in assumptions.items()})
        case ["Integer" | "Rational", str(digits)] if digits.replace("/", "").lstrip("-").isdigit():
            return sympy.Rational(digits)
        case ["Float", str(digits), int(precision)]:
            return sympy.Float(digits, precision=precision)
        case [str(name), dict(arguments)] if name in _VALUES:
            return _VALUES[name](**{str(k): decode(v) for k, v in arguments.items()})
        case [str(name), *arguments] if name in _NODES:
            return _NODES[name](*map(decode, arguments))
    raise ModelError("tree", str(tree)[:60], f"a node among {', '.join(sorted(_NODES))}")
