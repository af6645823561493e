"""Whether a closed form has a value where fields coincide, as they do at equal indices of an equation."""

from collections.abc import Sequence
from functools import lru_cache

import sympy

from .precise import precise_value
from .special import GaussianFunction

Places = tuple[int, ...]
PROBE = tuple(tuple(0.9 ** abs(a - b) * (1 + 0.1 * min(a, b)) for b in range(16)) for a in range(16))
"""A covariance matrix without symmetries."""


def regular(form: sympy.Expr, entries: dict[Places, sympy.Symbol], may_coincide: Sequence[Places]) -> bool:
    """Return whether a form is a number where some of its fields coincide.

    Parameters
    ----------
    form : Expr
    entries : dict
        The symbol of each covariance and mean, by its fields, as :func:`.closed_forms.closed_form` returns them.
    may_coincide : sequence of tuple of int
        Fields of which any two, or all, may be the same; more than one group may be given.

    Examples
    --------
    >>> c11, c12, c22 = sympy.symbols("c11 c12 c22")
    >>> entries = {(0, 0): c11, (0, 1): c12, (1, 1): c22}
    >>> regular(sympy.asin(c12 / sympy.sqrt(c11 * c22)), entries, [(0, 1)])
    True
    >>> regular(1 / (c11 * c22 - c12**2), entries, [(0, 1)])
    False
    """
    return _regular(form, tuple(entries.items()), tuple(may_coincide))


@lru_cache(maxsize=1024)
def _regular(
    form: sympy.Expr, entries: tuple[tuple[Places, sympy.Symbol], ...], may_coincide: tuple[Places, ...]
) -> bool:
    merged = [dict.fromkeys(group, min(group)) for group in may_coincide if len(group) > 1]
    for place in merged:
        numbers = {
            symbol: PROBE[place.get(key[0], key[0])][place.get(key[1], key[1])]
            if len(key) == 2
            else 0.1 * (1 + place.get(key[0], key[0]))
            for key, symbol in entries
        }
        parameters = {s: 0.5 for s in form.free_symbols - set(numbers)}
        if precise_value(form, {**numbers, **parameters}) is None:
            return False
    return True


def defined_at_zero(form: sympy.Expr, entries: dict[Places, sympy.Symbol]) -> bool:
    """Return whether a form has a value where any one of its fields is identically zero.

    Examples
    --------
    >>> c11, c12, c22 = sympy.symbols("c11 c12 c22")
    >>> entries = {(0, 0): c11, (0, 1): c12, (1, 1): c22}
    >>> [defined_at_zero(f, entries) for f in (sympy.asin(c12 / (1 + c11)), sympy.asin(c12 / sympy.sqrt(c11 * c22)))]
    [True, False]
    """
    return _defined_at_zero(form, tuple(entries.items()))


@lru_cache(maxsize=1024)
def _defined_at_zero(form: sympy.Expr, entries: tuple[tuple[Places, sympy.Symbol], ...]) -> bool:
    if form.has(GaussianFunction):
        return False
    for a in {key[0] for key, _ in entries}:
        zero = {symbol: 0 for key, symbol in entries if len(key) == 2 and a in key}
        if any(power.exp.is_negative and power.base.subs(zero) == 0 for power in form.atoms(sympy.Pow)):
            return False
    return True
