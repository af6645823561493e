"""Expectation rules for sin and cos: products become sums, each of one wave in a linear combination of the fields."""

from functools import reduce

import sympy

from ..activation import X
from .integrand import Integrand
from .recursion import expectation

Wave = tuple[sympy.Expr, type[sympy.Function], dict[int, sympy.Expr], sympy.Expr]
"""Weight, sin or cos, and its argument: the coefficient of each field and a phase."""


def product_to_sum(integrand: Integrand) -> sympy.Expr | None:
    """sin a sin b = ½ cos(a − b) − ½ cos(a + b) and the like, until one wave of a field of its own is left."""
    found = [(n, a, f) for n, (a, f) in enumerate(integrand.factors) if is_wave(f)]
    if not found or (len(found) == 1 and _alone(integrand, *found[0][1:])):
        return None
    rest = integrand.without(*(n for n, _, _ in found))
    waves = reduce(_times, [[_wave(a, f)] for _, a, f in found])
    return sympy.Add(*(weight * expectation(rest.with_field(k, phase, kind(X))) for weight, kind, k, phase in waves))


def is_wave(f: sympy.Expr) -> bool:
    """Whether a function is sin or cos of an affine argument."""
    return isinstance(f, (sympy.sin, sympy.cos)) and not sympy.diff(f.args[0], X).has(X)


def _alone(integrand: Integrand, field: int, f: sympy.Expr) -> bool:
    return f.args[0] == X and sum(a == field for a, _ in integrand.factors) == 1


def _wave(field: int, f: sympy.Expr) -> Wave:
    argument = sympy.expand(f.args[0])
    return sympy.S.One, f.func, {field: argument.coeff(X, 1)}, argument.coeff(X, 0)


def _times(left: list[Wave], right: list[Wave]) -> list[Wave]:
    return [wave for one in left for other in right for wave in _product(one, other)]


def _product(one: Wave, other: Wave) -> tuple[Wave, Wave]:
    (v, f, k, phase), (w, g, q, shift) = one, other
    plus = {a: k.get(a, 0) + q.get(a, 0) for a in {**k, **q}}
    minus = {a: k.get(a, 0) - q.get(a, 0) for a in {**k, **q}}
    kind = sympy.cos if f is g else sympy.sin
    # the signs of the wave in the sum and of that in the difference of the arguments
    signs = {(sympy.cos, sympy.cos): (1, 1), (sympy.sin, sympy.sin): (-1, 1)}
    signs |= {(sympy.sin, sympy.cos): (1, 1), (sympy.cos, sympy.sin): (1, -1)}
    s, d = signs[f, g]
    return (v * w * s / 2, kind, plus, phase + shift), (v * w * d / 2, kind, minus, phase - shift)
