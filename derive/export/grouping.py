"""The terms of an equation as the papers arrange them: what they share stands once, in front of a bracket.

Knows nothing of lines; it only keeps the summands of a long bracket apart, so that a line may break between them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

from ..moments import Dilation, Joint, Moment, Value
from .printed_width import width
from .printer import PaperPrinter, split_sign


@dataclass(frozen=True, slots=True)
class Item:
    """A signed summand: ``before [ inside ] after``, where the bracket is absent if nothing is inside.

    The bracket is that of an expectation if ``kind`` is ``"mean"``, and of its change if it is ``"dilation"``.
    """

    negative: bool
    before: str
    inside: tuple["Item", ...] = ()
    kind: str = ""
    after: str = ""

    def text(self, first: bool) -> str:
        """Return the sign, if it is needed, and the text up to the bracket."""
        return f"{'-' if self.negative else '' if first else '+'} {self.before}".strip()


_BODY = (sympy.Sum, Moment, Joint, Dilation, AppliedUndef, Value)
LONG = 12
"""The width in em from which what stands in a bracket may be broken."""
Member = tuple[sympy.Expr, sympy.Expr]
"""A term without the factors that it shares: its number, and the rest."""


def grouped(expr: sympy.Expr, printer: PaperPrinter) -> tuple[Item, ...]:
    """Return the terms of an equation, those with the same prefactor (η a_i, η² a_i a_k, …) in one bracket."""
    numbers = _numbers_of_units(expr)
    groups: dict[sympy.Expr, list[Member]] = {}
    lone = []
    for term in sympy.Add.make_args(expr):
        number, rest = term.as_coeff_Mul()
        factors = sympy.Mul.make_args(rest)
        body = sympy.Mul(*(f for f in factors if f.has(*_BODY)))
        sizes = sympy.Mul(*(f for f in factors if f.free_symbols and f.free_symbols <= numbers and not f.has(*_BODY)))
        prefix = sympy.Mul(*(f for f in factors if not f.has(*_BODY))) / sizes  # a Piecewise does not cancel
        if body.has(sympy.Sum):
            groups.setdefault(prefix, []).append((number * sizes, body))
        else:
            lone.append((number * sizes, prefix, body))
    alone = []
    for number, prefix, body in lone:
        hosts = [p for p in groups if _divides(p, prefix)]
        host = min(hosts, key=lambda p: sympy.count_ops(prefix / p), default=None)
        if host is None:
            alone.append((number, prefix, body))
        else:
            groups[host].append((number * prefix / host, body))
    return _in_brackets([*groups.items(), *_by_unit(alone)], printer)


def _numbers_of_units(expr: sympy.Expr) -> set[sympy.Symbol]:
    """Return the symbols for numbers of units, whatever their letters: whole and positive, and no index."""
    indices = {i for entry in expr.atoms(sympy.Indexed) for i in entry.indices}
    return {s for s in expr.free_symbols - indices if isinstance(s, sympy.Symbol) and s.is_integer and s.is_positive}


def _by_unit(terms: Iterable[tuple[sympy.Expr, sympy.Expr, sympy.Expr]]) -> list[tuple[sympy.Expr, list[Member]]]:
    """Return (number, prefix, body) as groups: expectations with the same rates and units in one, all else alone."""
    groups: dict[sympy.Expr, list[Member]] = {}
    alone = []
    for number, prefix, body in terms:
        factors = sympy.Mul.make_args(prefix)
        plain = sympy.Mul(*(f for f in factors if isinstance(f.as_base_exp()[0], (sympy.Symbol, sympy.Indexed))))
        if body == 1 or not plain.has(sympy.Indexed):
            alone.append((prefix, [(number, body)]))
        else:
            groups.setdefault(plain, []).append((number, prefix / plain * body))
    return [*groups.items(), *alone]


def collected(expr: sympy.Expr, printer: PaperPrinter) -> tuple[Item, ...]:
    """Return the terms of an equation without sums, those with the same rates (η, η², …) in one bracket."""
    groups: dict[sympy.Expr, list[Member]] = {}
    for term in printer.summands(expr) if expr.is_Add else [expr]:
        number, rest = term.as_coeff_Mul()
        rates = sympy.Mul(
            *(f for f in sympy.Mul.make_args(rest) if f.is_number or isinstance(f.as_base_exp()[0], sympy.Symbol))
        )
        groups.setdefault(rates, []).append((number, rest / rates))
    return _in_brackets(groups.items(), printer)


def _in_brackets(groups: Iterable[tuple[sympy.Expr, list[Member]]], printer: PaperPrinter) -> tuple[Item, ...]:
    items: list[Item] = []
    for prefix, members in sorted(groups, key=lambda group: _prefix_key(group[0], group[1], printer)):
        items += _group(prefix, sorted(members, key=lambda member: _member_key(member[1])), printer)
    return _positive_first(items)


def _group(prefix: sympy.Expr, members: list[Member], printer: PaperPrinter) -> tuple[Item, ...]:
    if len(members) == 1 or prefix == 1:
        return _positive_first(_item(c * prefix * body, printer) for c, body in members)
    common = sympy.gcd_list([c for c, _ in members])
    if common.is_negative:
        common = -common
    inside = _positive_first(_item(c / common * body, printer) for c, body in members)
    return (Item(False, printer.product(sympy.Mul.make_args(common * prefix)), inside),)


def _item(term: sympy.Expr, printer: PaperPrinter) -> Item:
    negative, size = split_sign(term)
    factors = sympy.Mul.make_args(size)
    if long := [f for f in factors if f.has(Joint) and not f.has(sympy.Sum) and width(printer._print(f)) > LONG]:
        rest = [f for f in factors if f is not long[0]]
        before = printer.product(rest) if rest else ""
        if long[0].is_Add:  # a covariance: the mean of a product less the product of means
            return Item(negative, before, arranged(long[0], printer))
        (average,) = long[0].atoms(Joint)
        kind = "mean" if long[0] == average else "dilation"
        return Item(negative, before, arranged(average.args[0], printer), kind)
    return Item(negative, printer.product(factors))


def _positive_first(items: Iterable[Item]) -> tuple[Item, ...]:
    items = list(items)
    first = next((n for n, item in enumerate(items) if not item.negative), 0)
    return (*items[first : first + 1], *items[:first], *items[first + 1 :])


def _divides(part: sympy.Expr, whole: sympy.Expr) -> bool:
    powers = (whole / part).as_powers_dict()
    return all(e.is_nonnegative for b, e in powers.items() if not b.is_number)


def _prefix_key(prefix: sympy.Expr, members: list[Member], printer: PaperPrinter) -> tuple[Any, ...]:
    """Sort key: powers of 1/d, then brackets before single terms, then powers of the rates, then units."""
    powers = prefix.as_powers_dict()
    inverse = sum(-e for b, e in powers.items() if isinstance(b, sympy.Symbol) and e.is_negative)
    degree = sum(e for b, e in powers.items() if isinstance(b, sympy.Symbol) and e.is_positive)
    units = sorted(printer._indexed_key(b) for b in powers if isinstance(b, sympy.Indexed))
    alone = not any(body.has(sympy.Sum) for _, body in members)
    return (inverse, alone, degree, len(units), units, sorted(map(str, powers)))


def _member_key(body: sympy.Expr) -> tuple[Any, ...]:
    sums = [s for s in sympy.Mul.make_args(body) if isinstance(s, sympy.Sum)]
    ranges = sorted(str(limit[2]) for s in sums for limit in s.limits)
    return (not sums, ranges)


def arranged(expr: sympy.Expr, printer: PaperPrinter) -> tuple[Item, ...]:
    """Return the terms of any expression; a product with one long sum may be broken inside the bracket."""
    items = []
    for term in printer.summands(expr) if expr.is_Add else [expr]:
        negative, size = split_sign(term)
        factors = list(sympy.Mul.make_args(size))
        sums = [f for f in factors if f.is_Add]
        if len(sums) == 1 and len(factors) > 1 and width(printer._print(sums[0])) > LONG:
            rest = [f for f in factors if f is not sums[0]]
            items.append(Item(negative, printer.product(rest), arranged(sums[0], printer)))
        else:
            items.append(_item(term, printer))
    return tuple(items)
