"""Special functions of covariances as short symbols with the numbers of the fields: S_1234, S_34|12, Δ_12.

For readers only: the plain formulas in which ``edge`` and conditional signs are written out are 0/0 where fields
coincide, where their limits are meant.
"""

from collections.abc import Iterable

import sympy

from ..gaussian.conditional_sign import sign1_given1
from ..gaussian.special import Phi2, Phi3, edge, sign2_given1, sign2_given2, sign4, upper_triangle

Definitions = list[tuple[sympy.Symbol, sympy.Expr]]
"""Symbols, and what they stand for."""
FEW = 2
"""So many two-field sign products are written out as arcsines; more get a symbol."""


class Symbols:
    """Replaces special functions of entries of covariance matrices by symbols, and keeps what these stand for.

    Parameters
    ----------
    entries : iterable of Symbol
        The entries of all matrices, which are called C_ab with a number of primes.
    """

    def __init__(self, entries: Iterable[sympy.Symbol]) -> None:
        self.place = {c: _place(c) for c in entries}
        self.definitions: dict[sympy.Symbol, sympy.Expr] = {}

    def shorten(self, form: sympy.Expr) -> sympy.Expr:
        """Return a form in short symbols."""
        form = form.replace(edge, self._edge).replace(sign1_given1, self._threshold)
        for function, held in ((sign4, 0), (sign2_given2, 2), (sign2_given1, 1)):
            form = form.replace(function, lambda *c, f=function, n=held: self._signs(f, c, n))
        angles = [a for a in form.atoms(sympy.asin) if self._pair(a) is not None]
        if len(angles) > FEW or (self.definitions and any(s.name.startswith("S") for s in self.definitions)):
            form = form.xreplace({a: sympy.pi / 2 * self._symbol(self._pair(a), 2 / sympy.pi * a) for a in angles})
        return by_weight(form) if any(s.name.startswith("S") for s in self.definitions) else form

    def _symbol(self, name: str | None, value: sympy.Expr) -> sympy.Symbol:
        assert name is not None
        symbol = sympy.Symbol(name, real=True)
        self.definitions[symbol] = value
        return symbol

    def _root(self, pp: sympy.Expr, pq: sympy.Expr, qq: sympy.Expr) -> sympy.Expr:
        """Return Δ_pq = √(C_pp C_qq − C_pq²)."""
        root = sympy.sqrt(pp * qq - pq**2)
        if not all(c in self.place for c in (pp, pq, qq)):
            return root
        primes, (p, q) = self.place[pq]
        return self._symbol(f"Delta{primes}_{min(p, q)}{max(p, q)}", root)

    def _edge(self, pp: sympy.Expr, pq: sympy.Expr, qq: sympy.Expr, *others: sympy.Expr) -> sympy.Expr:
        """Return the plain formula of an edge where a field w or z is p or q or none of the fields, else a symbol."""
        root = self._root(pp, pq, qq)
        first, second = others[:2], others[2:]
        for one, other in ((first, second), (second, first)):
            if one == (pp, pq):
                return root if other == (pq, qq) else other[1] / qq * root
            if one == (pq, qq):
                return root if other == (pp, pq) else other[0] / pp * root
        (wp, wq), (zp, zq) = first, second
        if all(c in self.place for c in (pp, pq, qq, *others)):
            primes, held = self.place[pq]
            (w,), (z,) = ({*self.place[c][1]} - {*self.place[d][1]} for c, d in ((wp, pp), (zp, pp)))
            name = f"Lambda{primes}_{min(w, z)}{max(w, z)}|{min(held)}{max(held)}"
            return self._symbol(name, edge(pp, pq, qq, *others))
        return (wp * zq + wq * zp - wp * zp * pq / pp - wq * zq * pq / qq) / root

    def _threshold(
        self, c11: sympy.Expr, c1p: sympy.Expr, cpp: sympy.Expr, m1: sympy.Expr, mp: sympy.Expr
    ) -> sympy.Expr:
        """Return erf(μ/√(2v)), the mean of a sign given another field."""
        return sympy.erf((m1 * cpp - mp * c1p) / (sympy.sqrt(2 * cpp) * self._root(c11, c1p, cpp)))

    def _signs(self, function: type[sympy.Function], covariances: tuple[sympy.Expr, ...], held: int) -> sympy.Expr:
        """Return the symbol of an expectation of signs whose arguments are a submatrix, else the function itself."""
        size = {10: 4, 6: 3}[len(covariances)]
        diagonal = [covariances[n] for n, (a, b) in enumerate(upper_triangle(size)) if a == b]
        if not all(c in self.place for c in covariances):
            return function(*covariances).definition() if function is sign2_given1 else function(*covariances)
        fields = [self.place[c][1][0] for c in diagonal]
        primes = self.place[diagonal[0]][0]
        wanted = [(primes, tuple(sorted((fields[a], fields[b])))) for a, b in upper_triangle(size)]
        if [self.place[c] for c in covariances] != wanted:
            return function(*covariances)
        signed, given = fields[: size - held], fields[size - held :]
        tail = f"|{''.join(map(str, sorted(given)))}" if given else ""
        return self._symbol(f"S{primes}_{''.join(map(str, sorted(signed)))}{tail}", function(*covariances))

    def _pair(self, angle: sympy.Expr) -> str | None:
        """Return the name of (2/π) asin(C_ab/√(C_aa C_bb)), or None for other arcsines."""
        for c in angle.free_symbols & self.place.keys():
            primes, (a, b) = self.place[c]
            if a != b:
                rows = {at: s for s, at in self.place.items()}
                if angle.args[0] == c / sympy.sqrt(rows[primes, (a, a)] * rows[primes, (b, b)]):
                    return f"S{primes}_{a}{b}"
        return None


def _place(entry: sympy.Symbol) -> tuple[str, tuple[int, int]]:
    """Return the primes and the numbers of the fields of C''_34."""
    head, _, numbers = entry.name.partition("_")
    return head.removeprefix("C"), (int(numbers[0]), int(numbers[1]))


def by_weight(form: sympy.Expr) -> sympy.Expr:
    """Return a sum in which what multiplies the same covariances stands in one bracket: C_34 (1 + S_12 + …)/16.

    Numbers that several brackets share stand before all of them.
    """
    brackets: dict[sympy.Expr, list[sympy.Expr]] = {}
    for term in sympy.Add.make_args(sympy.expand(form)):
        factors = sympy.Mul.make_args(term)
        signs = [f for f in factors if f.is_number or all(s.name.startswith("S") for s in f.free_symbols)]
        brackets.setdefault(sympy.Mul(*(f for f in factors if f not in signs)), []).append(sympy.Mul(*signs))
    shared: dict[sympy.Expr, list[sympy.Expr]] = {}
    for weight, signs in brackets.items():
        number = min((s.as_independent(sympy.Symbol)[0] for s in signs), key=abs)
        shared.setdefault(number, []).append(weight * sympy.Add(*(s / number for s in signs)))
    return sympy.Add(*(sympy.Mul(n, sympy.Add(*terms), evaluate=n == 1) for n, terms in shared.items()))


def uses_distribution(form: sympy.Expr) -> list[int]:
    """Return the dimensions of the normal distribution functions Φ_2, Φ_3 in a form."""
    return [n for n, function in ((2, Phi2), (3, Phi3)) if form.has(function)]
