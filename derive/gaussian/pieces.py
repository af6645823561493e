"""Piecewise functions of one variable written in signs of x − t. Knows nothing of expectations."""

import itertools

import sympy
from sympy.core.relational import Relational

from ..activation import X

HALF = sympy.Rational(1, 2)


def in_signs(f: sympy.Expr) -> sympy.Expr:
    """Return a function of X with max, min, |·|, Θ and pieces written in sign(x − t), as far as that is possible.

    Examples
    --------
    >>> in_signs(sympy.Max(X, 0))
    x*sign(x)/2 + x/2
    >>> in_signs(sympy.Heaviside(2 * X - 1))
    sign(x - 1/2)/2 + 1/2
    """
    if not f.args or not f.has(X):
        return f
    if isinstance(f, sympy.Piecewise):
        return _pieces(f)
    args = [in_signs(argument) for argument in f.args]
    if isinstance(f, (sympy.Max, sympy.Min)):
        return _extreme(args, HALF if isinstance(f, sympy.Max) else -HALF)
    if isinstance(f, sympy.Heaviside):
        return HALF + sign_of(args[0]) / 2
    if isinstance(f, sympy.Abs):
        return sympy.expand(args[0] * sign_of(args[0]))
    if isinstance(f, sympy.sign):
        return sign_of(args[0])
    if isinstance(f, sympy.DiracDelta) and len(args) == 1:
        return _delta(args[0])
    if f.is_Function and any(argument.has(sympy.sign) for argument in args):
        return _through(f.func(*args))
    return f.func(*args)


def _through(f: sympy.Expr) -> sympy.Expr:
    """F(a + b s) = (F(a + b) + F(a − b))/2 + s (F(a + b) − F(a − b))/2, for any function F and sign s."""
    for s in sorted(f.atoms(sympy.sign), key=sympy.default_sort_key):
        above, below = f.xreplace({s: sympy.S.One}), f.xreplace({s: -sympy.S.One})
        f = (above + below) / 2 + s * (above - below) / 2
    return f


def _extreme(args: list[sympy.Expr], half: sympy.Expr) -> sympy.Expr:
    """max(a, b) = (a + b)/2 + |a − b|/2, and min with a minus."""
    result = args[0]
    for other in args[1:]:
        gap = sympy.expand(result - other)
        result = sympy.expand((result + other) / 2 + half * gap * sign_of(gap))
    return result


def _delta(g: sympy.Expr) -> sympy.Expr:
    """δ(c x + k) = δ(x + k/c)/|c|."""
    g = sympy.expand(g)
    c = g.coeff(X, 1)
    if c == 0 or sympy.expand(g - c * X).has(X):
        return sympy.DiracDelta(g)
    return sympy.DiracDelta(X + sympy.expand((g - c * X) / c)) / sympy.Abs(c)


def _pieces(f: sympy.Piecewise) -> sympy.Expr:
    """Σ (piece) × (indicator of its condition) × (indicators that no earlier condition holds)."""
    total, left = sympy.S.Zero, sympy.S.One
    for piece, condition in f.args:
        here = _indicator(condition)
        total += in_signs(piece) * here * left
        left = sympy.expand(left * (1 - here))
    return total


def _indicator(condition: sympy.Basic) -> sympy.Expr:
    if condition in (sympy.true, sympy.false):
        return sympy.Integer(bool(condition))
    if isinstance(condition, sympy.And):
        return sympy.Mul(*map(_indicator, condition.args))
    if isinstance(condition, sympy.Or):
        return 1 - sympy.Mul(*(1 - _indicator(c) for c in condition.args))
    if isinstance(condition, sympy.Not):
        return 1 - _indicator(condition.args[0])
    if isinstance(condition, (sympy.Eq, sympy.Ne)):  # a point has probability zero
        return sympy.Integer(isinstance(condition, sympy.Ne))
    assert isinstance(condition, Relational)
    return HALF + sign_of(in_signs(sympy.expand(condition.gts - condition.lts))) / 2


def sign_of(g: sympy.Expr) -> sympy.Expr:
    """Return sign(g) in signs of x − t, for polynomials g and piecewise polynomials; of other g it stays sign(g)."""
    g = sympy.expand(g)
    if not g.has(X):
        return sympy.sign(g)
    if g.has(sympy.sign):
        return _sign_piece_by_piece(g)
    roots = _roots(g)
    if roots is None:
        return sympy.sign(g)
    leading = sympy.sign(sympy.Poly(g, X).LC())
    return leading * sympy.Mul(*(sympy.sign(X - t) for t, multiplicity in roots if multiplicity % 2))


def _roots(g: sympy.Expr) -> list[tuple[sympy.Expr, int]] | None:
    """Return the real roots of a polynomial with their multiplicities; None if they cannot be told."""
    if not g.is_polynomial(X):
        return None
    polynomial = sympy.Poly(g, X)
    if polynomial.degree() == 1:
        return [(-polynomial.nth(0) / polynomial.nth(1), 1)]
    if len(polynomial.terms()) == 1:
        return [(sympy.S.Zero, polynomial.degree())]
    if not all(c.is_number for c in polynomial.coeffs()):
        return None
    if not all(c.is_Rational for c in polynomial.coeffs()):
        near = polynomial.nroots(n=30, maxsteps=200)
        real = [sympy.re(t) for t in near if abs(sympy.im(t)) < sympy.Float("1e-12")]
        return [(t, 1) for t in real]
    return [(t, len(list(same))) for t, same in itertools.groupby(sympy.real_roots(polynomial))]


def _sign_piece_by_piece(g: sympy.Expr) -> sympy.Expr:
    """Return sign(g) of a piecewise polynomial g with numeric thresholds: its sign on each piece."""
    signs = sorted(g.atoms(sympy.sign), key=sympy.default_sort_key)
    thresholds = {s: sympy.expand(X - s.args[0]) for s in signs}
    if not all(t.is_number for t in thresholds.values()):
        return sympy.sign(g)
    ends = sorted(set(thresholds.values()))
    total = sympy.S.Zero
    for low, high in itertools.pairwise([None, *ends, None]):
        inside = {s: sympy.Integer(1 if low is not None and t <= low else -1) for s, t in thresholds.items()}
        indicator = (sympy.S.One if low is None else sympy.sign(X - low)) / 2
        indicator -= (-sympy.S.One if high is None else sympy.sign(X - high)) / 2
        total += indicator * sign_of(g.xreplace(inside))
    return sympy.expand(total)
