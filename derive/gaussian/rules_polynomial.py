"""Expectation rules for polynomials: alone, and beside functions that differentiate well."""

from functools import cache

import sympy
from sympy.polys.rings import ring

from ..activation import X
from .integrand import Integrand
from .orthants import too_many
from .recursion import expectation

SMOOTH = (sympy.erf, sympy.sin, sympy.cos)
"""Functions whose derivatives are Gaussians, which tilt, or of their own kind."""


def wick(integrand: Integrand) -> sympy.Expr | None:
    """Products of polynomials, by Stein's recursion E[h_a G] = Σ_b C_ab E[∂_b G] in a polynomial ring.

    Fields with a mean are written as the mean and the rest. Covariances and means stand as symbols while powers are
    multiplied out: under a tilted law they are long, and multiplied out themselves they take minutes.
    Source: Isserlis, Biometrika 12, 134 (1918).
    """
    if not all(f.is_polynomial(X) for _, f in integrand.factors):
        return None
    size = len(integrand.C)
    names = {(a, b): sympy.Symbol(f"C_{a}_{b}") for a in range(size) for b in range(a, size)}
    polynomials, *generators = ring(list(names.values()), sympy.QQ)
    C = {**{pair: g for pair, g in zip(names, generators, strict=True)}}
    C |= {(b, a): g for (a, b), g in C.items()}

    @cache
    def monomial(powers: tuple[int, ...]):  # type: ignore[no-untyped-def]  # an element of the ring, which has no public type
        a = next((n for n, p in enumerate(powers) if p), None)
        if a is None:
            return polynomials.one
        lowered = (*powers[:a], powers[a] - 1, *powers[a + 1 :])
        total = polynomials.zero
        for b, p in enumerate(lowered):
            if p:
                total += p * C[a, b] * monomial((*lowered[:b], p - 1, *lowered[b + 1 :]))
        return total

    per_field = [sympy.Mul(*(f for a, f in integrand.factors if a == n)) for n in range(size)]
    terms: list[tuple[tuple[int, ...], sympy.Expr]] = [((), sympy.S.One)]
    means = {sympy.Symbol(f"m_{n}"): mean for n, mean in enumerate(integrand.m) if mean != 0}
    for n, polynomial in enumerate(per_field):
        mean = sympy.Symbol(f"m_{n}")
        coefficients = sympy.Poly(polynomial.subs(X, X + mean) if mean in means else polynomial, X).terms()
        terms = [((*powers, p), weight * c) for powers, weight in terms for (p,), c in coefficients]
    total = sympy.Add(*(weight * monomial(powers).as_expr() for powers, weight in terms if sum(powers) % 2 == 0))
    covariances = {name: integrand.C[a][b] for (a, b), name in names.items()}
    return sympy.expand(total).xreplace({**covariances, **means})


def stein(integrand: Integrand) -> sympy.Expr | None:
    """A factor h_a^p beside erf, sin and cos is removed one power at a time: E[h_a G] = m_a E[G] + Σ_b C_ab E[∂_b G].

    Source: Stein's lemma (Stein, Ann. Stat. 9, 1135 (1981)).
    """
    if not all(isinstance(f, SMOOTH) or f.is_polynomial(X) for _, f in integrand.factors):
        return None  # derivatives of others need not become simpler: the recursion might not end
    refuse_crowds(integrand)
    for n, (a, f) in enumerate(integrand.factors):
        base, power = f.as_base_exp()
        if base == X and power.is_Integer and power > 0:
            rest = integrand.without(n)
            if power > 1:
                rest = rest.with_factor(a, X ** (power - 1))
            derivatives = (
                integrand.C[a][b] * expectation(rest.without(m).with_factor(b, sympy.diff(g, X)))
                for m, (b, g) in enumerate(rest.factors)
            )
            mean = integrand.m[a] * expectation(rest) if integrand.m[a] != 0 else sympy.S.Zero
            return sympy.Add(mean, *derivatives)
    return None


def refuse_crowds(integrand: Integrand) -> None:
    """Raise for more erf than orthants are known for, before their many derivatives are taken."""
    erfs = tuple(a for a, f in integrand.factors if isinstance(f, sympy.erf))
    most = 5 if integrand.centred else 3
    if len(erfs) > most:
        raise too_many(erfs, f"an orthant probability of dimension {len(erfs)}, of so many erf factors, is not known")
