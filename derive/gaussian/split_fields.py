"""An expression of several fields as a sum of products of functions of one affine combination each."""

from dataclasses import dataclass

import sympy

from ..activation import X
from ..errors import NoClosedForm
from .orthants import INSTEAD

Line = tuple[tuple[sympy.Symbol, sympy.Expr], ...]
"""An affine combination without its constant: (field, coefficient)."""


@dataclass(frozen=True, slots=True)
class Product:
    """``weight · Π f(line)``."""

    weight: sympy.Expr
    factors: tuple[tuple[Line, sympy.Expr], ...]


def split(expr: sympy.Expr, fields: tuple[sympy.Symbol, ...]) -> tuple[Product, ...]:
    """Return an expression as a sum of products of functions of one line each.

    Raises
    ------
    NoClosedForm
        If a function depends on the fields in another way.

    Examples
    --------
    >>> u, v = sympy.symbols("u v", real=True)
    >>> for product in split(sympy.exp(u + v) * u + 2 * sympy.sign(3 * u - 1), (u, v)):
    ...     print(product.weight, product.factors)
    1 ((((u, 1),), x), (((u, 1), (v, 1)), exp(x)))
    2 ((((u, 1),), sign(3*x - 1)),)
    """
    expr = expr.replace(lambda e: isinstance(e, (sympy.Max, sympy.Min)) and _several(e, fields), _through_moduli)
    expr = expr.replace(lambda e: isinstance(e, sympy.sign) and isinstance(e.args[0], sympy.Mul), _sign_by_sign)
    hidden: dict[sympy.Expr, sympy.Symbol] = {}
    expanded = sympy.expand(_hide(expr, hidden))
    shown = {dummy: function for function, dummy in hidden.items()}
    terms = [term.xreplace(shown) for term in sympy.Add.make_args(expanded)]
    return tuple(_product(term, fields) for term in sorted(terms, key=sympy.default_sort_key))


def _sign_by_sign(e: sympy.Expr) -> sympy.Expr:
    return sympy.Mul(*map(sympy.sign, e.args[0].args))


def _several(e: sympy.Expr, fields: tuple[sympy.Symbol, ...]) -> bool:
    return sum(e.has(a) for a in fields) > 1


def _through_moduli(e: sympy.Expr) -> sympy.Expr:
    """max(a, b) = (a + b)/2 + |a − b|/2: of two affine arguments one function of a line is left."""
    half = sympy.Rational(1 if isinstance(e, sympy.Max) else -1, 2)
    result, *others = e.args
    for other in others:
        result = (result + other) / 2 + half * sympy.Abs(sympy.expand(result - other))
    return result


def _hide(e: sympy.Expr, hidden: dict[sympy.Expr, sympy.Symbol]) -> sympy.Expr:
    """Return an expression that is polynomial in fields and dummies, which stand for functions and keep them whole."""
    if isinstance(e, (sympy.Add, sympy.Mul)) or (isinstance(e, sympy.Pow) and e.exp.is_Integer and e.exp > 0):
        return e.func(*(_hide(argument, hidden) for argument in e.args))
    return hidden.setdefault(e, sympy.Dummy(real=True)) if e.args else e


def _product(term: sympy.Expr, fields: tuple[sympy.Symbol, ...]) -> Product:
    weight, rest = term.as_independent(*fields, as_Add=False)
    functions: dict[Line, sympy.Expr] = {}
    for factor in sympy.Mul.make_args(rest):
        if factor == 1:
            continue
        line, f = _function(factor, fields)
        functions[line] = functions.get(line, sympy.S.One) * f
    return Product(weight, tuple(functions.items()))


def _function(factor: sympy.Expr, fields: tuple[sympy.Symbol, ...]) -> tuple[Line, sympy.Expr]:
    """Return the line that a factor depends on, and the factor as a function of it."""
    used = [a for a in fields if factor.has(a)]
    if len(used) == 1:
        return ((used[0], sympy.S.One),), factor.xreplace({used[0]: X})
    gradient = [sympy.diff(factor, a) for a in used]
    leading = _slopes(factor, used)
    if leading is None or not gradient:
        text = f"{factor} is not a function of one linear combination of the fields"
        raise NoClosedForm(f"E[{factor}]", text, INSTEAD)
    line = tuple(zip(used, leading, strict=True))
    first, slope = line[0]
    others = sympy.Add(*(w * a for a, w in line[1:]))
    f = factor.subs(first, (X - others) / slope)
    return line, sympy.expand(f) if f.is_polynomial() else _settled(f)


def _slopes(factor: sympy.Expr, used: list[sympy.Symbol]) -> list[sympy.Expr] | None:
    """Return the coefficients of the fields in every affine argument, if these are proportional to each other."""
    slopes: list[sympy.Expr] | None = None
    for argument in _affine_arguments(factor, used):
        here = [sympy.expand(argument).coeff(a, 1) for a in used]
        if slopes is not None and any(
            sympy.expand(here[0] * s - slopes[0] * h) != 0 for h, s in zip(here, slopes, strict=True)
        ):
            return None
        slopes = slopes or here
    return slopes if slopes and all(s != 0 for s in slopes) else None


def _affine_arguments(e: sympy.Expr, used: list[sympy.Symbol]) -> list[sympy.Expr]:
    """Return the largest subexpressions that are affine in the fields."""
    if not e.has(*used):
        return []
    if isinstance(e, sympy.Expr) and e.is_polynomial(*used) and sympy.Poly(e, *used).total_degree() == 1:
        return [e]
    return [found for argument in e.args for found in _affine_arguments(argument, used)]


def _settled(f: sympy.Expr) -> sympy.Expr:
    """Return f with every affine argument expanded, so that the fields that cancel are gone."""
    if not f.args:
        return f
    if isinstance(f, sympy.Add):
        return sympy.expand(sympy.Add(*map(_settled, f.args)))
    return f.func(*map(_settled, f.args))
