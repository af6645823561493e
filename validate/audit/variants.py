"""Moments with another closed form than their own: what a mistaken activation or convention makes of them."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import sympy

Places = tuple[int, ...]
Entries = Mapping[Places, sympy.Symbol]


def _without_unit(form: sympy.Expr, entries: Entries) -> sympy.Expr:
    """1 + C_aa becomes C_aa."""
    own = {symbol for places, symbol in entries.items() if len(places) == 2 and places[0] == places[1]}
    return form.replace(
        lambda e: e.is_Add and sympy.S.One in e.args and bool(e.free_symbols & own), lambda e: e - sympy.S.One
    )


def _stretched(form: sympy.Expr, entries: Entries) -> sympy.Expr:
    """Every covariance C_ab becomes 2 C_ab: erf(h) instead of erf(h/√2)."""
    covariances = [symbol for places, symbol in entries.items() if len(places) == 2]
    return form.xreplace({symbol: 2 * symbol for symbol in covariances})


class Altered(sympy.Expr):
    """A moment whose form is changed in one of the ways of :attr:`FORMS`, named by the second argument."""

    is_commutative = True
    is_real = True

    FORMS: ClassVar[dict[str, Callable[[Any, Any], sympy.Expr]]] = {
        "no unit": _without_unit,
        "stretched": _stretched,
    }
