"""Sums of products of local fields, kept as a flat list of terms on which passes work.

A :class:`Term` is ``coefficient · Σ_indices  Π factors``. Knows nothing of Gaussian rules or limits.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import sympy

from .moments import Value


class NotPolynomial(ValueError):
    """An expression that does not multiply out into products of functions of one field each."""


INDEX_NAMES = {"K": "jlpqrsuv", "M": "nmvwxyz", "B": "eo"}
"""Names for summation indices, by the number they run to: students j, l, …; teachers n, m, … (t is time); blocks."""


@dataclass(frozen=True, slots=True)
class Term:
    """One product: ``coefficient`` (free of fields), summation ``indices`` as (index, upper limit), field
    ``factors``."""

    coefficient: sympy.Expr
    indices: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()
    factors: tuple[sympy.Expr, ...] = ()

    def __str__(self) -> str:
        from .export.printer import PlainPrinter

        return PlainPrinter().doprint(assemble([self]))

    def renamed(self, taken: Iterable[sympy.Symbol]) -> "Term":
        """Return the same term with its summation indices renamed, in order, to the first names not in ``taken``."""
        new: dict[sympy.Symbol, sympy.Symbol] = {}
        for index, size in self.indices:
            new[index] = fresh_index(size, {*taken, *new.values()})
        swap = {old: sympy.Dummy() for old in new}
        final = {swap[old]: index for old, index in new.items()}

        def rename(expr: sympy.Expr) -> sympy.Expr:
            return expr.xreplace(swap).xreplace(final)

        return Term(
            rename(self.coefficient),
            tuple((new[index], size) for index, size in self.indices),
            tuple(rename(f) for f in self.factors),
        )

    def times(self, other: "Term", taken: Iterable[sympy.Symbol]) -> "Term":
        """Return the product, the other's summation indices renamed apart."""
        other = other.renamed({*taken, *(index for index, _ in self.indices)})
        return Term(self.coefficient * other.coefficient, self.indices + other.indices, self.factors + other.factors)


def fresh_index(size: sympy.Expr, taken: Iterable[sympy.Symbol]) -> sympy.Symbol:
    """Return the first index name for a sum up to ``size`` that is not taken."""
    names = {str(t) for t in taken}
    for name in INDEX_NAMES.get(str(size), "abcdefg"):
        if name not in names:
            return sympy.Symbol(name, integer=True, positive=True)
    raise ValueError(f"no index names left for a sum up to {size}: {sorted(names)} are taken")


def expand_terms(expr: sympy.Expr, free: Iterable[sympy.Symbol], fields: Iterable[sympy.Basic]) -> list[Term]:
    """Return ``expr`` multiplied out: products of sums become sums of products, with indices renamed apart.

    Parameters
    ----------
    expr : sympy.Expr
        Polynomial in ``Sum``s, field values and fields.
    free : iterable of Symbol
        The free indices, whose names the summation indices avoid.
    fields : iterable of IndexedBase or Symbol
        What counts as random: local fields, and noise symbols.

    Raises
    ------
    NotPolynomial
        If something random stands inside another function.
    """
    free, random = set(free), set(fields)

    def is_field(e: sympy.Expr) -> bool:
        return isinstance(e, Value) or e in random or (isinstance(e, sympy.Indexed) and e.base in random)

    def walk(e: sympy.Expr) -> Iterator[Term]:
        if is_field(e):
            yield Term(sympy.S.One, (), (e,))
        elif not any(is_field(a) for a in sympy.preorder_traversal(e)) and not e.has(sympy.Sum):
            yield Term(e)
        elif isinstance(e, sympy.Add):
            for a in e.args:
                yield from walk(a)
        elif isinstance(e, sympy.Mul) or (isinstance(e, sympy.Pow) and e.exp.is_Integer and e.exp > 0):
            parts = e.args if isinstance(e, sympy.Mul) else (e.base,) * int(e.exp)
            products = [Term(sympy.S.One)]
            for part in parts:
                products = [p.times(t, free) for p in products for t in walk(part)]
            yield from products
        elif isinstance(e, sympy.Sum):
            ((index, _, size),) = e.limits
            for t in walk(e.function):
                yield replace(t, indices=((index, size), *t.indices)).renamed(free)
        else:
            raise NotPolynomial(f"{e} is not a polynomial in sums and fields")

    return list(walk(expr))


def collect_terms(terms: Iterable[Term], free: Iterable[sympy.Symbol]) -> list[Term]:
    """Return the terms with those that differ only by the names of summation indices or a number added up.

    Student sums come first; the order of the first occurrence is kept.
    """
    free = set(free)
    total: dict[Term, sympy.Expr] = {}
    for term in (monomial for t in terms for monomial in _monomials(t)):
        ordered = replace(term, indices=tuple(sorted(term.indices, key=lambda pair: str(pair[1]))))
        number, rest = min(
            (_canonical(candidate) for candidate in _orderings(ordered, free)),
            key=lambda pair: sympy.default_sort_key(_whole(pair[1])),
        )
        total[rest] = total.get(rest, sympy.S.Zero) + number
    return [replace(term, coefficient=number * term.coefficient) for term, number in total.items() if number != 0]


def _monomials(term: Term) -> Iterator[Term]:
    """Yield one term for each monomial of the coefficient."""
    for monomial in sympy.Add.make_args(sympy.expand(term.coefficient)):
        yield replace(term, coefficient=monomial)


def _orderings(term: Term, free: set[sympy.Symbol]) -> Iterator[Term]:
    """Yield the term with its summation indices renamed in every order that keeps students before teachers."""
    groups = [list(group) for _, group in itertools.groupby(term.indices, key=lambda pair: str(pair[1]))]
    for choice in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield replace(term, indices=tuple(itertools.chain(*choice))).renamed(free)


def _canonical(term: Term) -> tuple[sympy.Expr, Term]:
    number, rest = term.coefficient.as_coeff_Mul()
    return number, replace(term, coefficient=rest)


def _whole(term: Term) -> sympy.Expr:
    return sympy.Tuple(term.coefficient, *(sympy.Tuple(*pair) for pair in term.indices), *term.factors)


def assemble(terms: Iterable[Term]) -> sympy.Expr:
    """Return the terms as one expression: what does not depend on a summation index stands outside its sum, and terms
    with the same sum are one."""
    outsides: dict[sympy.Expr, list[sympy.Expr]] = {}
    for term in terms:
        expr = sympy.Mul(*term.factors)
        dummies = {index for index, _ in term.indices}
        outside, inside = (
            term.coefficient.as_independent(*dummies, as_Add=False) if dummies else (term.coefficient, sympy.S.One)
        )
        expr = inside * expr
        if term.indices:
            expr = sympy.Sum(expr, *((index, 1, size) for index, size in reversed(term.indices)))
        outsides.setdefault(expr, []).append(outside)
    return sympy.Add(*(_common(outside) * expr for expr, outside in outsides.items()))


def _common(coefficients: list[sympy.Expr]) -> sympy.Expr:
    """Return the sum of coefficients of the same thing, factored: η a − 2 η a p is η a (1 − 2 p)."""
    return coefficients[0] if len(coefficients) == 1 else sympy.factor_terms(sympy.Add(*coefficients))
