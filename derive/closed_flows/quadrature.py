"""Detector: rational rates, by an antiderivative that is believed only after it was differentiated.

SymPy's ``integrate`` is wrong for some of them: with positive symbols ``1/(z**2*(sigma - z**3))`` loses its complex
logarithms. So the rational algorithm is used alone, on symbols without assumptions, for which it gives sums over roots,
and what it returns is differentiated and compared with the integrand in many digits.
"""

import sympy
from sympy.integrals.rationaltools import ratint

from .flow import Flow, Solved, Unsuitable

DEGREE = 6
"""Of the rate's numerator: roots of polynomials of higher degree, with symbolic coefficients, take long."""


def quadrature(flow: Flow) -> Solved:
    """``s' = f(s)``: ``t = Phi(s) - Phi(s0)`` with ``Phi' = 1/f``, f a ratio of polynomials."""
    s = flow.state
    if not flow.rate.is_rational_function(s):
        raise Unsuitable(f"the rate is not a rational function of {s}")
    numerator, denominator = sympy.fraction(sympy.cancel(flow.rate))
    if max(sympy.degree(numerator, s), sympy.degree(denominator, s)) > DEGREE:
        raise Unsuitable(f"the rate has a degree above {DEGREE} in {s}")
    phi = antiderivative(denominator / numerator, s)
    if not is_antiderivative(phi, denominator / numerator, s):
        raise Unsuitable("the antiderivative that SymPy gives does not differentiate back to the integrand")
    return Solved(flow, "separation of variables: a rational integral, differentiated to check it", implicit=phi)


def antiderivative(integrand: sympy.Expr, s: sympy.Symbol) -> sympy.Expr:
    """Return the antiderivative of a rational function by the rational algorithm, on symbols without assumptions."""
    bare = {symbol: sympy.Dummy(symbol.name) for symbol in integrand.free_symbols}
    found = ratint(integrand.xreplace(bare), bare[s])
    return found.xreplace({dummy: symbol for symbol, dummy in bare.items()})


def is_antiderivative(phi: sympy.Expr, integrand: sympy.Expr, s: sympy.Symbol, points: int = 6) -> bool:
    """Return whether the derivative of ``phi`` is ``integrand``, at random points in 40 digits.

    Examples
    --------
    >>> z = sympy.Symbol("z", positive=True)
    >>> is_antiderivative(-1 / z, 1 / z**2, z), is_antiderivative(-1 / z, 2 / z**2, z)
    (True, False)
    """
    import random

    source = random.Random(0)
    difference = phi.diff(s) - integrand
    symbols = sorted(difference.free_symbols | integrand.free_symbols, key=str)
    for _ in range(points):
        values = {symbol: sympy.Rational(source.randint(1, 99), 37) for symbol in symbols}
        scale = max(1, abs(sympy.N(integrand.subs(values), 40)))
        if not abs(sympy.N(difference.subs(values).doit(), 40, maxn=200)) < sympy.Float("1e-30") * scale:
            return False
    return True
