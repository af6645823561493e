"""Detector: linear equations whose coefficients are moved by states that are solved already.

``y' = A(t) y + B`` needs the exponential of the integral of A. Each detector states which functions of its state it can
integrate (:class:`.flow.Antiderivative`); where A is a combination of those, the exponential is a product of powers.
"""

from collections.abc import Iterator

import sympy

from .flow import (
    Antiderivative,
    Condition,
    Definitions,
    Flow,
    Solved,
    Unsuitable,
    condition,
    relative_exponential,
    written_out,
)

Terms = dict[sympy.Expr, sympy.Expr]
"""A sum of exponentials: coefficients by rate."""


def driven(flow: Flow) -> Solved:
    """``y' = A y + B``: ``y = E (y0 + B int 1/E)``, ``E = exp(int A)``.

    B is constant; unless it vanishes, 1/E must be a sum of exponentials in t. Then also ``int 1/y`` is known, since
    ``B/y`` is the logarithmic derivative of ``y/E``: that is what drives the components of a neuron's weights that are
    orthogonal to the teacher.

    Source: Kunin et al. (2024), whose single neuron is a chain of three such equations.
    """
    A, B = _linear_parts(flow)
    if B.has(flow.time, *(k.flow.state for k in flow.known)):
        raise Unsuitable(f"the part of the rate without {flow.state} is not constant")
    factors = list(_integrals(A, flow))
    rest = sympy.Add(*(m * a.rest for m, a in factors))
    E, Y = (sympy.Symbol(f"{letter}_{flow.state}", real=True) for letter in "EY")
    bases = [(m * a.weight, a.symbol or a.base, a.base) for m, a in factors]
    decay = sympy.exp(rest) * sympy.Mul(*(symbol**power for power, symbol, _ in bases))
    definitions: Definitions = ((E, decay),)
    growth, conditions = sympy.S.One, _conditions(flow, factors, B)
    if B != 0:
        growth = 1 + B / flow.start * _integral_of_inverse(factors, rest, flow)
        definitions += ((Y, growth),)
    definitions += tuple((symbol, base) for _, symbol, base in bases if symbol != base)
    written = flow.start * E * (Y if B != 0 else 1)
    return Solved(
        flow,
        "linear, with coefficients that are moved by " + " and ".join(_drivers(flow)),
        written_out(written, definitions),
        conditions=conditions,
        integrals=(Antiderivative(1 / flow.state, 1 / B, growth, symbol=Y),) if B != 0 else (),
        written=written,
        definitions=definitions,
    )


def _drivers(flow: Flow) -> list[str]:
    return [str(k.flow.state) for k in flow.known if flow.rate.has(k.flow.state)]


def _linear_parts(flow: Flow) -> tuple[sympy.Expr, sympy.Expr]:
    rate = sympy.expand(flow.rate)
    A, B = rate.coeff(flow.state, 1), rate.coeff(flow.state, 0)
    if sympy.expand(rate - A * flow.state - B) != 0 or A.has(flow.state) or B.has(flow.state):
        raise Unsuitable(f"the rate is not linear in {flow.state}, and its coefficients move")
    return A, B


def _integrals(A: sympy.Expr, flow: Flow) -> Iterator[tuple[sympy.Expr, Antiderivative]]:
    """Yield the terms of A as (constant, antiderivative)."""
    moving = [k.flow.state for k in flow.known]
    table = {a.integrand: a for k in flow.known for a in k.integrals}
    for term in sympy.Add.make_args(sympy.expand(A)):
        constant, factor = term.as_independent(*moving, as_Add=False)
        if factor == 1:
            yield constant, Antiderivative(sympy.S.One, sympy.S.Zero, sympy.S.One, flow.time)
        elif factor in table:
            yield constant, table[factor]
        else:
            raise Unsuitable(f"no antiderivative is known of {factor} along the solution")


def _conditions(flow: Flow, factors: list[tuple[sympy.Expr, Antiderivative]], B: sympy.Expr) -> tuple[Condition, ...]:
    """The integral of 1/y is a logarithm as long as y has not changed sign."""
    found: tuple[Condition, ...] = ()
    if B != 0:
        found += condition(
            sympy.Ne(flow.start, 0), f"{flow.state} does not start at zero", "start it slightly beside zero"
        )
    for _, a in factors:
        if a.base != 1 and a.integrand.is_Pow:
            found += condition(a.base > 0, f"{1 / a.integrand} has not changed sign")
        if B != 0:
            found += condition(a.needs, f"the rates of {a.integrand} at its two fixed points differ")
    return found


def _integral_of_inverse(factors: list[tuple[sympy.Expr, Antiderivative]], rest: sympy.Expr, flow: Flow) -> sympy.Expr:
    terms = _inverse(factors, rest, flow)
    return sympy.Add(*(c * relative_exponential(rate, flow.time) for rate, c in terms.items()))


def _inverse(factors: list[tuple[sympy.Expr, Antiderivative]], integral: sympy.Expr, flow: Flow) -> Terms:
    """Return 1/E as a sum of exponentials."""
    rate = -sympy.expand(integral).coeff(flow.time, 1)
    if sympy.expand(integral + rate * flow.time) != 0:
        raise Unsuitable("the integrating factor is not a sum of exponentials")
    terms: Terms = {rate: sympy.S.One}
    for m, a in factors:
        power = -sympy.cancel(m * a.weight)
        if power == 0:
            continue
        if not (power.is_Integer and power > 0 and a.terms):
            raise Unsuitable("the integrating factor is not a sum of exponentials")
        for _ in range(int(power)):
            terms = _times(terms, a)
    return terms


def _times(terms: Terms, a: Antiderivative) -> Terms:
    product: Terms = {}
    for rate, c in terms.items():
        for weight, shift in a.terms:
            key = sympy.expand(rate + shift)
            product[key] = product.get(key, sympy.S.Zero) + c * weight
    return product
