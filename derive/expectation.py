"""Closed forms of Gaussian expectations: an ordered table of rules, tried in turn until one applies.

An integrand is a product of elementary functions of jointly Gaussian, centred fields. Each rule either returns its
expectation, possibly through simpler expectations, or ``None``. Each signature is reduced once, with a generic
covariance C_ab; coincident fields (a singular C) are limits of the same formula, and every form here is exact there.

Knows nothing about networks. No ``sympy.integrate`` (it returns a wrong value for E[relu(u) relu(v)]) and no bare
``simplify`` (minutes, and it gains nothing): forms stay nested, so that common subexpressions remain visible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import sympy
from sympy.polys.rings import ring

from .activation import X
from .errors import NoClosedForm
from .orthants import sign_product

Factor = tuple[int, sympy.Expr]
"""An elementary function, written in X, of the field with this number."""


@dataclass(frozen=True, slots=True)
class Integrand:
    """``Π f(x_a)`` under N(0, C): ``factors`` as (field, function of X), and the covariance ``C``."""

    factors: tuple[Factor, ...]
    C: tuple[tuple[sympy.Expr, ...], ...]

    def without(self, *positions: int) -> "Integrand":
        """Return the integrand without the factors at these positions."""
        return Integrand(tuple(f for n, f in enumerate(self.factors) if n not in positions), self.C)

    def with_factor(self, field: int, function: sympy.Expr) -> "Integrand":
        """Return the integrand times one factor more."""
        return Integrand((*self.factors, (field, function)), self.C)

    def trimmed(self) -> "Integrand":
        """Return the integrand under the marginal of the fields that still occur in it."""
        used = sorted({a for a, _ in self.factors})
        position = {a: n for n, a in enumerate(used)}
        return Integrand(
            tuple((position[a], f) for a, f in self.factors),
            tuple(tuple(self.C[a][b] for b in used) for a in used),
        )

    def __str__(self) -> str:
        return f"E[{' '.join(str(f.subs(X, sympy.Symbol(f'h{a + 1}'))) for a, f in self.factors)}]"


Rule = Callable[[Integrand], sympy.Expr | None]


def constants(integrand: Integrand) -> sympy.Expr | None:
    """E[c G] = c E[G], and E[1] = 1."""
    if not integrand.factors:
        return sympy.S.One
    for n, (_, f) in enumerate(integrand.factors):
        constant, rest = f.as_independent(X, as_Add=False)
        if not f.has(X):
            return f * expectation(integrand.without(n))
        if constant != 1:
            return constant * expectation(integrand.without(n).with_factor(integrand.factors[n][0], rest))
    return None


def products(integrand: Integrand) -> sympy.Expr | None:
    """f₁f₂ of one field is two factors."""
    for n, (a, f) in enumerate(integrand.factors):
        if isinstance(f, sympy.Mul):
            rest = integrand.without(n)
            for part in f.args:
                rest = rest.with_factor(a, part)
            return expectation(rest)
    return None


def parity(integrand: Integrand) -> sympy.Expr | None:
    """E[G] = 0 when G(−h) = −G(h), factor by factor."""
    sign = sympy.S.One
    for _, f in integrand.factors:
        reflected = f.subs(X, -X)
        if reflected == -f:
            sign = -sign
        elif reflected != f:
            return None
    return sympy.S.Zero if sign == -1 else None


def wick(integrand: Integrand) -> sympy.Expr | None:
    """Products of polynomials, by Stein's recursion E[h_a G] = Σ_b C_ab E[∂_b G] in a polynomial ring.

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
    for polynomial in per_field:
        coefficients = sympy.Poly(polynomial, X).terms()
        terms = [((*powers, p), weight * c) for powers, weight in terms for (p,), c in coefficients]
    total = sympy.Add(*(weight * monomial(powers).as_expr() for powers, weight in terms if sum(powers) % 2 == 0))
    return sympy.expand(total).xreplace({name: integrand.C[a][b] for (a, b), name in names.items()})


def complement(integrand: Integrand) -> sympy.Expr | None:
    """erfc is 1 − erf."""
    for n, (a, f) in enumerate(integrand.factors):
        if f.has(sympy.erfc):
            return expectation(integrand.without(n).with_factor(a, f.rewrite(sympy.erf)))
    return None


def linearity(integrand: Integrand) -> sympy.Expr | None:
    """E[(f₁ + f₂) G] = E[f₁ G] + E[f₂ G]."""
    for n, (a, f) in enumerate(integrand.factors):
        parts = sympy.Add.make_args(sympy.expand(f))
        if len(parts) > 1:
            rest = integrand.without(n)
            return sympy.Add(*(expectation(rest.with_factor(a, part)) for part in parts))
    return None


def tilt(integrand: Integrand) -> sympy.Expr | None:
    """A factor exp(−½αh_a²) changes the covariance: (1 + αC_aa)^(−½) E_C'[G], C' = C − α C_·a C_a· / (1 + αC_aa).

    Exact for singular C too: nothing is inverted but 1 + αC_aa > 0. Source: completing the square (Sherman–Morrison).
    """
    for n, (a, f) in enumerate(integrand.factors):
        if isinstance(f, sympy.exp):
            alpha = sympy.expand(-2 * f.exp / X**2)
            if alpha.has(X) or not alpha.is_positive:
                reason = f"{f} is not of the form exp(-alpha*x**2) with a positive number alpha"
                raise NoClosedForm(str(integrand), reason, INSTEAD)
            C, scale = integrand.C, 1 + alpha * integrand.C[a][a]
            tilted = tuple(
                tuple(C[b][c] - alpha * C[b][a] * C[a][c] / scale for c in range(len(C))) for b in range(len(C))
            )
            return expectation(Integrand(integrand.without(n).factors, tilted)) / sympy.sqrt(scale)
    return None


def stein(integrand: Integrand) -> sympy.Expr | None:
    """A factor h_a^p is removed one power at a time: E[h_a G] = Σ_b C_ab E[∂_b G].

    Source: Stein's lemma (Stein, Ann. Stat. 9, 1135 (1981)).
    """
    for n, (a, f) in enumerate(integrand.factors):
        base, power = f.as_base_exp()
        if base == X and power.is_Integer and power > 0:
            rest = integrand.without(n)
            if power > 1:
                rest = rest.with_factor(a, X ** (power - 1))
            return sympy.Add(
                *(
                    integrand.C[a][b] * expectation(rest.without(m).with_factor(b, sympy.diff(g, X)))
                    for m, (b, g) in enumerate(rest.factors)
                )
            )
    return None


def augment(integrand: Integrand) -> sympy.Expr | None:
    """erf(c h_a) = E_z[sign(u)], u = √2 c h_a − z with z ~ N(0, 1) its own: a field more, and an orthant problem."""
    for n, (a, f) in enumerate(integrand.factors):
        if isinstance(f, sympy.erf):
            slope = sympy.expand(sympy.sqrt(2) * f.args[0] / X)
            if slope.has(X):
                continue
            C = integrand.C
            row = tuple(slope * C[a][b] for b in range(len(C)))
            corner = 1 + slope**2 * C[a][a]
            larger = (*((*C[b], row[b]) for b in range(len(C))), (*row, corner))
            return expectation(Integrand((*integrand.without(n).factors, (len(C), sympy.sign(X))), larger))
    return None


def orthant(integrand: Integrand) -> sympy.Expr | None:
    """The base case: a product of signs, each of a field of its own."""
    fields = [a for a, _ in integrand.factors]
    if len(set(fields)) == len(fields) and all(f == sympy.sign(X) for _, f in integrand.factors):
        return sign_product(tuple(tuple(integrand.C[a][b] for b in fields) for a in fields))
    return None


RULES: tuple[Rule, ...] = (
    constants,  # numbers out, so that the rules below see bare functions
    products,
    parity,  # most terms vanish: before anything is expanded
    wick,  # a complete answer for polynomials, and a fast one
    complement,
    linearity,
    tilt,  # before Stein's rule, which would differentiate the Gaussian again and again
    stein,
    augment,  # last: it makes the covariance larger
    orthant,
)
"""The rules, in the order in which they are tried. A new class of function is an entry here."""


@lru_cache(maxsize=4096)
def _reduce(integrand: Integrand) -> sympy.Expr:
    for rule in RULES:
        result = rule(integrand)
        if result is not None:
            return result
    raise NoClosedForm(str(integrand), _obstacle(integrand), INSTEAD)


INSTEAD = (
    "Closed forms exist for polynomials ('linear', 'square', 'He3', x**3, …) and for 'erf', "
    "in any combination of at most two erf;\n"
    "  erf(h/√2) is the usual closed-form stand-in for tanh and other sigmoids."
)


def _obstacle(integrand: Integrand) -> str:
    """Return why no rule applies: the functions that none knows, or else the product that is too long."""
    known = (sympy.erf, sympy.exp, sympy.sign)
    functions = {
        "the step function" if isinstance(e, sympy.Heaviside) else e.func.__name__
        for _, f in integrand.factors
        for e in f.atoms(sympy.Function)
        if not isinstance(e, known)
    }
    if functions:
        verb = "is" if len(functions) == 1 else "are"
        return f"{' and '.join(sorted(functions))} {verb} neither polynomial, Gaussian nor erf"
    return f"{integrand} is not reduced by any of the rules {', '.join(r.__name__ for r in RULES)}"


def expectation(integrand: Integrand) -> sympy.Expr:
    """Return the closed form of an expectation, by the first rule that applies.

    Raises
    ------
    NoClosedForm
        If no rule applies.
    """
    return _reduce(integrand.trimmed())


@lru_cache(maxsize=1024)
def closed_form(signature: tuple[sympy.Lambda, ...]) -> tuple[sympy.Expr, dict[tuple[int, int], sympy.Symbol]]:
    """Return E[f₁(h₁) f₂(h₂) …] for centred Gaussian h with covariance C, in the symbols C_ab.

    Parameters
    ----------
    signature : tuple of Lambda
        The functions f₁, f₂, …

    Returns
    -------
    form : sympy.Expr
    covariance : dict
        The symbol of each entry, by (a, b) with a ≤ b, counted from 0. They print as C_11, C_12, …

    Raises
    ------
    NoClosedForm
        If the rules cannot reduce it.

    Examples
    --------
    >>> import sympy
    >>> from effdyn.derive.activation import X, activation
    >>> g = sympy.Lambda(X, activation("erf").expr)
    >>> print(closed_form((g, g))[0])
    2*asin(C_12/(sqrt(C_11 + 1)*sqrt(C_22 + 1)))/pi
    """
    size = len(signature)
    C = {(a, b): sympy.Symbol(f"C_{a + 1}{b + 1}", real=True) for a in range(size) for b in range(a, size)}
    matrix = tuple(tuple(C[min(a, b), max(a, b)] for b in range(size)) for a in range(size))
    return expectation(Integrand(tuple((a, f(X)) for a, f in enumerate(signature)), matrix)), C
