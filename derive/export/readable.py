"""Closed forms as one would write them by hand: in tilted covariances, excess variances and names for what repeats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sympy

from ..activation import X
from ..gaussian.closed_forms import closed_form
from ..gaussian.conditional_sign import sign1_given1
from ..gaussian.special import FUNCTIONS as SPECIAL
from .grouping import arranged
from .line_breaking import LINE, chunks
from .printed_width import width
from .printer import PaperPrinter
from .special_symbols import Symbols

FUNCTIONS = tuple(dict.fromkeys((*SPECIAL, sign1_given1)))
"""Special functions, of which each value is computed once."""


@dataclass(frozen=True, slots=True)
class Tilt:
    """C' = C − α C_·p C_p· / (1 + α C_pp): the covariance under the extra weight exp(−½αh_p²); and the means.

    Attributes
    ----------
    field : int
        p, counted from 1.
    alpha : Expr
    level : int
        How many tilts there are up to this one, itself included: the number of primes of the result.
    entries : tuple of (Symbol, Expr)
        Each entry C'_ab and, where fields have means, m'_a, and what it is in those before.
    shifted : bool
        Whether fields have means.
    """

    field: int
    alpha: sympy.Expr
    level: int
    entries: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    shifted: bool = False


@dataclass(frozen=True, slots=True)
class ReadableForm:
    """A closed form shortened by definitions: tilted covariances, special functions, names for what still repeats.

    Definitions may use those before them: ``tilts``, then ``specials`` in numbers of fields, then ``names``.
    """

    form: sympy.Expr
    tilts: tuple[Tilt, ...] = ()
    specials: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()
    names: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()

    @property
    def definitions(self) -> tuple[tuple[sympy.Symbol, sympy.Expr], ...]:
        """All symbols and what they stand for, in the order in which they can be computed."""
        return (*(entry for tilt in self.tilts for entry in tilt.entries), *self.specials, *self.names)


@lru_cache(maxsize=256)
def readable_form(signature: tuple[sympy.Lambda, ...], shifted: bool = False, code: bool = False) -> ReadableForm:
    """Return the closed form of a moment in tilted covariances, which is how one would write it by hand.

    Each factor exp(−½αh_p²) of the integrand, derivatives of erf among them, replaces C by C' everywhere behind it; so
    the closed forms are short in C' and long in C. Special functions of a few fields become symbols with their numbers.
    What this does not shorten is split at common subexpressions.

    Parameters
    ----------
    signature : tuple of Lambda
    shifted : bool
        Whether the fields have means.
    code : bool
        Whether the form is to be computed rather than read: special functions stay as they are.

    Raises
    ------
    NoClosedForm
        If there is none.

    Examples
    --------
    >>> from effdyn import derive
    >>> i3 = [m for m in derive.TeacherStudent(activation="erf").dynamics().moments if m.name == "I_3"]
    >>> readable_form(i3[0].signature).form
    2*C'_23/(pi*sqrt(C'_33 + 1)*sqrt(C_11 + 1))
    """
    form, entries = closed_form(signature, shifted) if shifted else closed_form(signature)
    current: dict[tuple[int, ...], sympy.Symbol] = dict(entries)
    known = set(current.values())
    left, tilts = _gaussian_factors(signature), list[Tilt]()
    while left:  # whichever tilt was taken first by the rules is the one that now shortens most
        tried = [(_tilted(form, current, p, alpha, len(tilts) + 1), (p, alpha)) for p, alpha in left]
        (shorter, tilt), chosen = min(tried, key=lambda t: sympy.count_ops(t[0][0]))
        if shorter == form:
            break
        form = shorter
        tilts.append(tilt)
        left.remove(chosen)
        current |= {_numbers(symbol): symbol for symbol, _ in tilt.entries}
        known |= {symbol for symbol, _ in tilt.entries}
    symbols = Symbols(c for c in known if c.name.startswith("C"))
    form, names = _in_excess_variances(sympy.factor_terms(form if code else symbols.shorten(form)))
    if _is_long(form, code):
        shared, (form,) = sympy.cse(
            form, symbols=(sympy.Symbol(f"u_{n}", real=True) for n in range(1, 10_000)), order="none"
        )
        form, shared = _without_trivial(form, shared)
        names += shared
    return ReadableForm(form, tuple(tilts), tuple(symbols.definitions.items()), tuple(names))


def _without_trivial(
    form: sympy.Expr, shared: Sequence[tuple[sympy.Symbol, sympy.Expr]]
) -> tuple[sympy.Expr, list[tuple[sympy.Symbol, sympy.Expr]]]:
    """Return a form and its names without those of numbers and of what another one is but for its sign."""
    plain: dict[sympy.Symbol, sympy.Expr] = {}
    kept = []
    for symbol, expr in shared:
        expr = expr.xreplace(plain)
        if expr.is_number or (-expr).is_Symbol:
            plain[symbol] = expr
        else:
            kept.append((symbol, expr))
    new = {old: sympy.Symbol(f"u_{n}", real=True) for n, (old, _) in enumerate(kept, 1)}
    return form.xreplace(plain).xreplace(new), [(new[old], expr.xreplace(new)) for old, expr in kept]


def _is_long(form: sympy.Expr, code: bool) -> bool:
    """Return whether what repeats in a form is to be named."""
    if form.is_polynomial():
        return False
    if code and form.has(*FUNCTIONS):
        return True
    return max(width(c.text) for c in chunks(arranged(form, PaperPrinter()))) > LINE - 6


def _numbers(entry: sympy.Symbol) -> tuple[int, ...]:
    """Return the fields of C'_12 or m'_1, counted from 0."""
    return tuple(int(n) - 1 for n in entry.name.partition("_")[2])


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
    form: sympy.Expr, entries: Mapping[tuple[int, ...], sympy.Expr], p: int, alpha: sympy.Expr, level: int
) -> tuple[sympy.Expr, Tilt]:
    """Return a form with C' written for C − α C_·p C_p· / (1 + α C_pp), and what C' is."""
    scale = 1 + alpha * entries[p, p]
    shifts = {}
    for key, entry in entries.items():
        if p in key:
            continue
        *rest, b = key  # C_ab moves by C_ap C_pb, m_b by m_p C_pb
        other = entries[min(rest[0], p), max(rest[0], p)] if rest else entries[p,]
        shift = -alpha * other * entries[min(p, b), max(p, b)] / scale
        numbers = "".join(str(n + 1) for n in key)
        letter = "C" if rest else "m"
        shifts[shift] = (entry, sympy.Symbol(f"{letter}{chr(39) * level}_{numbers}", real=True))
    shorter = form.replace(sympy.Add, lambda *terms: _shifted(terms, shifts))
    entered = tuple((symbol, c + shift) for shift, (c, symbol) in shifts.items())
    return shorter, Tilt(p + 1, alpha, level, entered, (p,) in entries)


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
