"""Detector: rates with the square root of a quadratic, made rational by parametrising the conic."""

from dataclasses import dataclass

import sympy

from .flow import Condition, Flow, Recipe, Solved, Unsuitable, condition, written_out
from .powers import vanishes
from .riccati import blow_up, half_tangent

ROOT = sympy.Dummy("root")
X, G, R, Z = sympy.symbols("X g R_0 z_0", real=True)


@dataclass(frozen=True, slots=True)
class Conic:
    """``s' = sqrt(q ((s + shift)^2 + kappa)) (l0 + l1 (s + shift) + l2 sqrt((s + shift)^2 + kappa))``."""

    q: sympy.Expr
    shift: sympy.Expr
    kappa: sympy.Expr
    l0: sympy.Expr
    l1: sympy.Expr
    l2: sympy.Expr


def conic(flow: Flow) -> Solved:
    """``z' = sqrt(q) R (l0 + l1 z + l2 R)`` with ``R = sqrt(z^2 + kappa)``, z a shifted s.

    ``v = z + R`` (so ``z = (v - kappa/v)/2``, a rational parametrisation of the conic ``R^2 - z^2 = kappa``) obeys a
    Riccati equation. Its Möbius solution, divided by ``v0 = z0 + R0``, is X, and ``z = ((R0 + z0) X - (R0 - z0)/X)/2``:
    regular at kappa = 0 for either sign of z0.

    Aligned modes of a two-layer network with imbalance ``lam``: ``s' = sqrt(lam^2 + 4 s^2)(c - delta s)``, where
    ``v = |lam| u/2`` of the paper. Also ``q' = 2 s (c - delta s)``, ``s = sqrt(q) sqrt(q + Delta)``, for the square q
    of one of two weights.

    Source: Saxe, McClelland & Ganguli (2014), appendix; theory of unbalanced modes.
    """
    form = _recognise(flow)
    root_q = sympy.sqrt(form.q)
    b, up, down = root_q * form.l0, root_q * (form.l1 + form.l2), root_q * (form.l2 - form.l1)
    discriminant = sympy.factor_terms(sympy.expand(form.q * (form.l0**2 + form.kappa * (form.l1**2 - form.l2**2))))
    z0 = flow.start + form.shift
    R0 = sympy.sqrt(z0**2 + form.kappa)
    moebius = (1 + (b + down * (R - Z)) * G) / (1 - (b + up * (R + Z)) * G)
    definitions = (
        (X, moebius),
        (G, half_tangent(discriminant, flow.time)),
        (R, sympy.sqrt(Z**2 + form.kappa)),
        (Z, z0),
    )
    written = ((R + Z) * X - (R - Z) / X) / 2 - form.shift
    return Solved(
        flow,
        "conic: a rational parametrisation of the square root leaves a Riccati equation",
        written_out(written, definitions),
        conditions=(
            *_branch(flow, form, z0, written_out((R + Z) * X, definitions)),
            *blow_up(b + up * (R0 + z0), discriminant, flow, " upwards"),
            *blow_up(-b - down * (R0 - z0), discriminant, flow, " downwards"),
        ),
        recipe=Recipe("conic", (flow.start, form.q, form.shift, form.kappa, form.l0, form.l1, form.l2)),
        written=written,
        definitions=definitions,
    )


def _branch(flow: Flow, form: Conic, z0: sympy.Expr, v: sympy.Expr) -> tuple[Condition, ...]:
    """Where kappa < 0 the root may vanish; the formula would go on to its other branch, which the equation does not."""
    if form.kappa.is_nonnegative:
        return ()
    edge = sympy.sqrt(sympy.Max(-form.kappa, 0))
    start = condition(sympy.Or(form.kappa >= 0, z0 >= edge), f"the square root is real and {flow.state} above it")
    return start + condition(sympy.Or(form.kappa >= 0, v >= edge), "no factor of the root has changed sign")


def _recognise(flow: Flow) -> Conic:
    s = flow.state
    rate = sympy.expand(sympy.powsimp(flow.rate, force=False), power_base=False)
    rate, square = _single_root(rate, s)
    coefficients = sympy.Poly(square, s).all_coeffs()
    if len(coefficients) != 3:
        raise Unsuitable(f"under the root is no quadratic in {s}")
    q, linear, constant = coefficients
    if q.is_positive is not True:
        raise Unsuitable(f"the coefficient {q} of {s}**2 under the root is not known to be positive")
    shift = linear / (2 * q)
    kappa = sympy.factor(constant / q - shift**2)
    outer, inner = rate.coeff(ROOT, 1), rate.coeff(ROOT, 0)
    if not vanishes(rate - outer * ROOT - inner):
        raise Unsuitable("the root occurs in a denominator or a function")
    if not outer.is_polynomial(s) or not inner.is_polynomial(s) or sympy.Poly(outer, s).degree() > 1:
        raise Unsuitable("the rate is not root*(l0 + l1*s) + l2*root**2")
    multiple, remainder = sympy.div(sympy.Poly(inner, s), sympy.Poly(square, s))
    if not remainder.is_zero or (not multiple.is_zero and multiple.degree() > 0):
        raise Unsuitable("what stands beside the root is not a constant multiple of its square")
    slope, value = outer.coeff(s, 1), outer.coeff(s, 0)
    return Conic(q, shift, kappa, sympy.factor(value - slope * shift), slope, multiple.as_expr() * sympy.sqrt(q))


def _single_root(rate: sympy.Expr, s: sympy.Symbol) -> tuple[sympy.Expr, sympy.Expr]:
    """Return the rate with its square root as one symbol, and what is under the root.

    Roots of several factors count as one root of their product where every term holds all of them or none.
    """
    roots = sorted({r for r in rate.atoms(sympy.Pow) if r.base.has(s) and r.exp.is_Rational and r.exp.q == 2}, key=str)
    bases = sorted({r.base for r in roots}, key=sympy.default_sort_key)
    if not bases or not all(base.is_polynomial(s) for base in bases):
        raise Unsuitable(f"the rate holds no square root of a polynomial in {s}")
    square = sympy.expand(sympy.Mul(*bases))
    marks = {base: sympy.Dummy() for base in bases}  # each stands for its square root
    marked = rate.xreplace({r: marks[r.base] ** (2 * r.exp) for r in roots})
    total = sympy.S.Zero
    for term in sympy.Add.make_args(sympy.expand(marked)):
        degrees = {base: sympy.degree(term, mark) for base, mark in marks.items() if term.is_polynomial(mark)}
        if len(degrees) < len(bases) or len({d % 2 for d in degrees.values()}) != 1:
            raise Unsuitable(f"the rate holds roots of {len(bases)} different polynomials in {s}")
        odd = min(degrees.values()) % 2
        rest = term.xreplace({mark: sympy.S.One for mark in marks.values()})
        total += rest * sympy.Mul(*(base ** ((d - odd) // 2) for base, d in degrees.items())) * ROOT**odd
    return sympy.expand(total), square
