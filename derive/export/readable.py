"""Closed forms as one would write them by hand: in tilted covariances, excess variances and names for what repeats."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import sympy

from ..activation import X
from ..expectation import closed_form
from .grouping import arranged
from .line_breaking import LINE, chunks
from .printed_width import width
from .printer import PaperPrinter


@dataclass(frozen=True, slots=True)
class Tilt:
    """C' = C − α C_·p C_p· / (1 + α C_pp): the covariance under the extra weight exp(−½αh_p²).

    Attributes
    ----------
    field : int
        p, counted from 1.
    alpha : Expr
    level : int
        How many tilts there are up to this one, itself included: the number of primes of the result.
    entries : tuple of (Symbol, Expr)
        Each entry C'_ab, and what it is in the covariance before.
    """

    field: int
    alpha: sympy.Expr
    level: int
    entries: tuple[tuple[sympy.Symbol, sympy.Expr], ...]


@dataclass(frozen=True, slots=True)
class ReadableForm:
    """A closed form shortened by definitions: tilted covariances, then names for what still repeats."""

    form: sympy.Expr
    tilts: tuple[Tilt, ...] = ()
    names: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()


@lru_cache(maxsize=256)
def readable_form(signature: tuple[sympy.Lambda, ...]) -> ReadableForm:
    """Return the closed form of a moment in tilted covariances, which is how one would write it by hand.

    Each factor exp(−½αh_p²) of the integrand, derivatives of erf among them, replaces C by C' everywhere behind it; so
    the closed forms are short in C' and long in C. What this does not shorten is split at common subexpressions.

    Examples
    --------
    >>> from effdyn import derive
    >>> i3 = [m for m in derive.TeacherStudent(activation="erf").dynamics().moments if m.name == "I_3"]
    >>> readable_form(i3[0].signature).form
    2*C'_23/(pi*sqrt(C'_33 + 1)*sqrt(C_11 + 1))
    """
    form, covariance = closed_form(signature)
    current: dict[tuple[int, int], sympy.Symbol] = dict(covariance)
    left, tilts = _gaussian_factors(signature), list[Tilt]()
    while left:  # whichever tilt was taken first by the rules is the one that now shortens most
        tried = [(_tilted(form, current, p, alpha, len(tilts) + 1), (p, alpha)) for p, alpha in left]
        (shorter, tilt), chosen = min(tried, key=lambda t: sympy.count_ops(t[0][0]))
        if shorter == form:
            break
        form = shorter
        tilts.append(tilt)
        left.remove(chosen)
        current |= {(int(symbol.name[-2]) - 1, int(symbol.name[-1]) - 1): symbol for symbol, _ in tilt.entries}
    form, names = _in_excess_variances(sympy.factor_terms(form))
    if not form.is_polynomial() and max(width(c.text) for c in chunks(arranged(form, PaperPrinter()))) > LINE - 6:
        shared, (form,) = sympy.cse(
            form, symbols=(sympy.Symbol(f"u_{n}", real=True) for n in range(1, 10_000)), order="none"
        )
        names += shared
    return ReadableForm(form, tuple(tilts), tuple(names))


def _in_excess_variances(form: sympy.Expr) -> tuple[sympy.Expr, list[tuple[sympy.Symbol, sympy.Expr]]]:
    """Return the form with polynomials in Ĉ_aa = C_aa − 1 where that is shorter, as it is for Hermite polynomials."""
    used: dict[sympy.Symbol, sympy.Expr] = {}

    def shorten(*terms: sympy.Expr) -> sympy.Expr:
        polynomial = sympy.Add(*terms)
        diagonal = sorted((s for s in polynomial.free_symbols if s.name[-1] == s.name[-2]), key=str)
        if len(terms) < 4 or not polynomial.is_polynomial():
            return polynomial
        hats = {c: sympy.Symbol(f"hat {c.name}", real=True) for c in diagonal}
        shorter = sympy.expand(polynomial.xreplace({c: 1 + hat for c, hat in hats.items()}))
        if len(sympy.Add.make_args(shorter)) >= len(sympy.Add.make_args(sympy.expand(polynomial))):
            return polynomial
        used.update({hat: c - 1 for c, hat in hats.items() if shorter.has(hat)})
        return sympy.factor_terms(shorter)

    form = sympy.factor_terms(form.replace(sympy.Add, shorten))
    return form, sorted(used.items(), key=lambda pair: str(pair[0]))


def _tilted(
    form: sympy.Expr, covariance: Mapping[tuple[int, int], sympy.Expr], p: int, alpha: sympy.Expr, level: int
) -> tuple[sympy.Expr, Tilt]:
    """Return a form with C' written for C − α C_·p C_p· / (1 + α C_pp), and what C' is."""
    scale = 1 + alpha * covariance[p, p]
    shifts = {}
    for (a, b), c in covariance.items():
        if p not in (a, b):
            shift = -alpha * covariance[min(a, p), max(a, p)] * covariance[min(p, b), max(p, b)] / scale
            shifts[shift] = (c, sympy.Symbol(f"C{chr(39) * level}_{a + 1}{b + 1}", real=True))
    shorter = form.replace(sympy.Add, lambda *terms: _shifted(terms, shifts))
    return shorter, Tilt(p + 1, alpha, level, tuple((symbol, c + shift) for shift, (c, symbol) in shifts.items()))


def _gaussian_factors(signature: tuple[sympy.Lambda, ...]) -> list[tuple[int, sympy.Expr]]:
    """Return (field, α) for each exp(−½αx²) in a function, and for the one in the derivative of each erf."""
    found: list[tuple[int, sympy.Expr]] = []
    for p, function in enumerate(signature):
        expr = function(X)
        weights = [
            f
            for e in expr.atoms(sympy.exp, sympy.erf)
            for f in (e if isinstance(e, sympy.exp) else e.diff(X)).atoms(sympy.exp)
        ]
        alphas = {sympy.expand(-2 * w.exp / X**2) for w in weights}
        found += [(p, alpha) for alpha in sorted(alphas, key=sympy.default_sort_key) if not alpha.has(X)]
    return found


def _shifted(terms: tuple[sympy.Expr, ...], shifts: Mapping[sympy.Expr, tuple[sympy.Expr, sympy.Expr]]) -> sympy.Expr:
    """Return the sum with each m·before + m·shift written as m·after."""
    rest = list(terms)
    for term in terms:
        for shift, (before, after) in shifts.items():
            multiple = term / shift
            if multiple.is_number and multiple * before in rest and term in rest:
                rest.remove(term)
                rest.remove(multiple * before)
                rest.append(multiple * after)
    return sympy.Add(*rest)
