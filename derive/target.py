"""Targets that are any function of a few numbered teacher fields: h1*h2*h3, |h1|, sign(h1)*sign(h2), …

Knows nothing of losses or students.
"""

import re
from typing import Any

import sympy

from .activation import Activation, X
from .errors import Described, ModelError
from .moments import Univariate
from .text import parse_expression

H_STAR = sympy.IndexedBase("h_star", real=True)
"""The teacher's local fields."""
MOST_FIELDS = 99


def target(given: Any) -> sympy.Expr | None:
    """Return the target that a user writes, as an expression in ``h_star[1]``, ``h_star[2]``, …; None stays None.

    Parameters
    ----------
    given : str, sympy.Expr, callable or None
        A formula in ``h1``, ``h2``, … as text or SymPy expression, or a function of that many symbols.

    Raises
    ------
    ModelError
        If it is none of these.

    Examples
    --------
    >>> target("h1*h2*h3")
    h_star[1]*h_star[2]*h_star[3]
    >>> target(lambda h1, h2: sympy.sign(h1 * h2))
    sign(h_star[1])*sign(h_star[2])
    """
    if given is None:
        return None
    names = {f"h{n}": H_STAR[n] for n in range(1, MOST_FIELDS + 1)}
    if isinstance(given, str):
        given = parse_expression(given, "target", names)
    elif callable(given) and not isinstance(given, sympy.Basic):
        given = _called(given)
    if not isinstance(given, sympy.Expr):
        raise ModelError("target", given, _ACCEPTED)
    given = given.subs({s: names[s.name] for s in given.free_symbols if getattr(s, "name", "") in names})
    fields = given.atoms(sympy.Indexed)
    stray = given.free_symbols - {s for f in fields for s in f.free_symbols} - fields
    if stray or not fields or any(f.base != H_STAR for f in fields):
        raise ModelError("target", given, _ACCEPTED)
    return sign_of_product(given)


_ACCEPTED = "a formula in the teacher's fields h1, h2, …, such as 'h1*h2*h3' or 'sign(h1)*sign(h2)'"


def sign_of_product(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the sign of a product as the product of signs, and sign(sign(u)) as sign(u)."""
    apart = expr.replace(
        lambda e: isinstance(e, sympy.sign) and e.args[0].is_Mul,
        lambda e: sympy.Mul(*(sympy.sign(f) for f in e.args[0].args)),
    )
    return apart.replace(lambda e: isinstance(e, sympy.sign) and isinstance(e.args[0], sympy.sign), lambda e: e.args[0])


def _called(function: Any) -> Any:
    import inspect

    try:
        count = len(inspect.signature(function).parameters)
        return function(*(H_STAR[n] for n in range(1, count + 1)))
    except Exception as error:  # whatever a user's function does with symbols
        given = Described(f"a function that fails with {type(error).__name__}: {error}")
        raise ModelError("target", given, "a function of the teacher's fields, such as lambda h1, h2: h1*h2") from error


def number_of_fields(expr: sympy.Expr) -> int:
    """Return how many teacher fields a target has: its highest number."""
    return max(int(f.indices[0]) for f in expr.atoms(sympy.Indexed))


def target_text(expr: sympy.Expr) -> str:
    """Return a target as text, which :func:`target` reads."""
    return re.sub(r"h_star\[(\d+)\]", r"h\1", sympy.sstr(expr, full_prec=True))


def by_values(expr: sympy.Expr) -> sympy.Expr:
    """Return a target with each function of one field as a value that moments are made of: |h1| is f_1(h1).

    Functions of several fields at once stay as they are: they do not multiply out.
    """
    functions: dict[sympy.Expr, Univariate] = {}

    def value(e: sympy.Expr) -> sympy.Expr:
        fields = e.atoms(sympy.Indexed)
        if isinstance(e, sympy.Indexed) or not fields:
            return e
        if len(fields) == 1 and not (e.is_polynomial(*fields)):
            (field,) = fields
            if not (e.is_Add or e.is_Mul):
                function = e.xreplace({field: X})
                name = "sign" if function == sympy.sign(X) else f"f_{len(functions) + 1}"
                return functions.setdefault(function, Univariate.of(name, Activation(function)))(field)
        return e.func(*map(value, e.args)) if e.is_Add or e.is_Mul or e.is_Pow else e

    return value(expr)
