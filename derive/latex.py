r"""Equations as LaTeX, set as in the papers: common prefactors before brackets, moments by name, lines that fit.

Three layers: a printer (one symbol per quantity), an arrangement (which factors stand in front, where a line may break)
and a filling of lines by their printed width. Knows nothing of documents (:mod:`effdyn.derive.article`) nor of models.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy
from sympy.core.function import AppliedUndef
from sympy.printing.latex import LatexPrinter

from .activation import X
from .expectation import closed_form
from .moments import Dilation, Moment, Univariate, Value

if TYPE_CHECKING:
    from .dynamics import Dynamics, Quantity
    from .named_moments import NamedMoment

LINE = 31.0
"""Width of a line in em: what LaTeX's article class prints in one column at 10, 11 and 12 pt is 32.5 to 34.5."""
_INDICES = "ikjlpqrsunmtvwxyz"
_SPECIAL = {"ell": r"\ell", "MeanDelta": r"\Delta", "Delta": r"\Delta"}


# --- symbols and expressions ------------------------------------------------------------------------------------------


class PaperPrinter(LatexPrinter):
    r"""Prints expressions as the papers do: constants, rates, units, then sums, over j, l = 1 … K under one sign.

    Parameters
    ----------
    names : mapping of str to str, optional
        How names print that do not print as themselves.
    scalars : sequence of str, optional
        The order of scalar factors; others follow by name.
    """

    def __init__(self, names: Mapping[str, str] | None = None, scalars: Sequence[str] = ()) -> None:
        super().__init__({"inv_trig_style": "full", "mul_symbol": None})
        self.names = dict(names or {})
        self.scalars = list(scalars)

    # names

    def name(self, name: str) -> str:
        """Return how a name prints: ``h_star`` as h with a star, Greek letters by name, the rest as SymPy would."""
        if name in self.names:
            return self.names[name]
        if name in _SPECIAL:
            return _SPECIAL[name]
        if match := re.fullmatch(r"(hat )?C('*)_(\w\w)", name):
            letter = r"\hat{C}" if match[1] else "C"
            return f"{letter}{match[2]}_{{{match[3]}}}"
        if name.endswith("_star"):
            return rf"{self.name(name.removesuffix('_star'))}^{{\star}}"
        return str(super()._print_Symbol(sympy.Symbol(name)))

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        return self.name(expr.name)

    def _print_Dummy(self, expr: sympy.Dummy) -> str:
        return self.name(expr.name)

    def _print_IndexedBase(self, expr: sympy.IndexedBase) -> str:
        return self.name(str(expr))

    def _print_Indexed(self, expr: sympy.Indexed) -> str:
        indices = [self._print(i) for i in expr.indices]
        comma = "," if any(len(i) > 1 and not i.startswith("\\") for i in indices) else ""
        return f"{self.name(str(expr.base))}_{{{comma.join(indices)}}}"

    # random things

    def _print_Univariate(self, expr: Univariate) -> str:
        symbol, order, _ = expr.args
        base = str(symbol)
        text = rf"\tilde{{{base.removesuffix('_star')}}}" if base.endswith("_star") else self.name(base)
        return text + "'" * int(order)

    def _print_Value(self, expr: Value, exp: str | None = None) -> str:
        text = f"{self._print(expr.args[0])}({self._print(expr.args[1])})"
        return text if exp is None else f"{text}^{{{exp}}}"

    def _factors(self, moment: Moment) -> str:
        return r"\,".join(self._print(f) for f in moment.args)

    def _print_Moment(self, expr: Moment, exp: str | None = None) -> str:
        return rf"\langle {self._factors(expr)}\rangle"

    def _print_Dilation(self, expr: Dilation, exp: str | None = None) -> str:
        return rf"\partial_s\langle {self._factors(expr.args[0])}\rangle_{{s\Omega}}\big|_{{s=1}}"

    def _print_AppliedUndef(self, expr: sympy.Expr, exp: str | None = None) -> str:
        match = re.fullmatch(r"([A-Z])_(\d+)", name := expr.func.__name__)
        head = f"{match[1]}_{{{match[2]}}}" if match else self.name(name)
        power = "" if exp is None else f"^{{{exp}}}"
        return f"{head}{power}({','.join(self._print(a) for a in expr.args)})"

    def _print_StarredIndex(self, expr: "StarredIndex") -> str:
        return rf"{expr.name}^{{\star}}"

    def _print_erf(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\operatorname{erf}", expr, exp)

    def _print_asin(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\arcsin", expr, exp)

    def _call(self, head: str, expr: sympy.Expr, exp: str | None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return f"{head}{power}{parenthesised(self._print(expr.args[0]))}"

    # arithmetic

    def _print_Add(self, expr: sympy.Expr, order: object = None) -> str:
        text = ""
        for term in self.summands(expr):
            negative, size = split_sign(term)
            sign = "-" if negative else "+" if text else ""
            text += f" {sign} " if text else sign
            text += self._print(size)
        return text

    def summands(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the terms of a sum as they print: 1 + C_11 but C_11 + … − 1, the first positive if one is."""
        terms = expr.as_ordered_terms()
        early = len(terms) == 2 and any(t.is_number and t.is_positive for t in terms)
        terms = sorted(terms, key=lambda t: bool(t.is_number) != early)
        first = next((n for n, t in enumerate(terms) if not split_sign(t)[0]), 0)
        return [terms[first], *terms[:first], *terms[first + 1 :]]

    def _print_Mul(self, expr: sympy.Expr) -> str:
        negative, expr = split_sign(expr)
        return ("-" if negative else "") + self.product(sympy.Mul.make_args(expr))

    def product(self, factors: Iterable[sympy.Expr]) -> str:
        """Return a product without sign: constants, a fraction or scalars, then sums, moments and brackets."""
        constant, over, scalars, indexed, big = sympy.S.One, sympy.S.One, [], [], []
        for f in factors:
            base, exponent = f.as_base_exp()
            if f.is_number:
                constant *= f
            elif exponent.is_number and exponent.is_negative and not isinstance(f, sympy.exp):
                over *= base**-exponent
            elif isinstance(base, sympy.Symbol) and str(base) != "x":
                scalars.append(f)
            elif isinstance(base, sympy.Indexed) and not str(base.base).startswith("h"):
                indexed.append(f)
            else:
                big.append(f)
        scalars.sort(key=self._scalar_key)
        indexed.sort(key=self._indexed_key)
        big.sort(key=self._big_key)
        if (
            over == 1
            and scalars
            and not indexed
            and not big
            and constant**-2 == (below := abs(constant**-2))
            and below.is_Integer
        ):
            over, constant = 1 / constant, sympy.S.One  # σ²/2, h/√2
        if over != 1:
            above = scalars or indexed
            indexed = indexed if scalars else []
            if not above and len(big) == 1 and isinstance(big[0], sympy.Add):
                above, big = big, []
            if not constant.has(sympy.pi):  # one fraction reads better than two
                number, below = constant.as_numer_denom()
                over, constant = over * below, sympy.S.One
                above = [*([number] if number != 1 or not above else []), *above]
            lonely = len(above) == 1 and isinstance(above[0], sympy.Add)
            numerator = self._print(above[0]) if lonely else self._join(above) or "1"
            fraction = rf"\frac{{{numerator}}}{{{self._denominator(over)}}}"
        else:
            fraction = self._join(scalars)
        parts = [self._constant(constant) if constant != 1 else "", fraction, self._join(indexed), self._join(big)]
        return " ".join(p for p in parts if p) or "1"

    def _denominator(self, expr: sympy.Expr) -> str:
        factors = sympy.Mul.make_args(expr)
        return self._print(expr) if len(factors) == 1 else self._join(sorted(factors, key=self._denominator_key))

    def _join(self, factors: Iterable[sympy.Expr]) -> str:
        factors, text = list(factors), []
        roots = [f for f in factors if isinstance(f, sympy.Pow) and f.exp == sympy.S.Half and not f.base.is_Add]
        if len(roots) > 1:  # √Q √T is √(QT); sums under a root stay apart, as in the papers
            text.append(rf"\sqrt{{{self._join(sorted((r.base for r in roots), key=self._any_key))}}}")
            factors = [f for f in factors if f not in roots]
        for f in factors:
            printed = self._print(f)
            text.append(parenthesised(printed) if f.is_Add or (f.is_Mul and split_sign(f)[0]) else printed)
        return " ".join(text)

    def _constant(self, value: sympy.Expr) -> str:
        """Return a number with its roots together: 2√2/π^(3/2) as (2/π) √(2/π)."""
        whole, root = sympy.S.One, sympy.S.One
        for base, exponent in value.as_powers_dict().items():
            integer = sympy.Integer(int(exponent)) if exponent.is_Rational else exponent
            whole *= base**integer
            root *= base ** (2 * (exponent - integer))
        if not root.is_number or any(not e.is_Integer for e in root.as_powers_dict().values()):
            return str(super()._print_Mul(value) if value.is_Mul else self._print(value))
        if whole == 1 and root.as_numer_denom()[0] == 1 and root != 1:
            return rf"\frac{{1}}{{\sqrt{{{self._ratio(1 / root)}}}}}"
        if root.is_Integer and root != 1:
            return self._ratio(whole, rf"\sqrt{{{root}}}")
        return " ".join([self._ratio(whole)] * (whole != 1) + [rf"\sqrt{{{self._ratio(root)}}}"] * (root != 1))

    def _ratio(self, value: sympy.Expr, times: str = "") -> str:
        above, below = (" ".join(self._print(f) for f in sympy.Mul.make_args(part)) for part in value.as_numer_denom())
        above = above if not times else times if above == "1" else f"{above} {times}"
        return above if below == "1" else rf"\frac{{{above}}}{{{below}}}"

    def _print_Pow(self, expr: sympy.Expr) -> str:
        base, exponent = expr.as_base_exp()
        if exponent.is_number and exponent.is_negative:
            return rf"\frac{{1}}{{{self._print(base**-exponent)}}}"
        if exponent == sympy.S.Half:
            return rf"\sqrt{{{self._print(base)}}}"
        if isinstance(base, AppliedUndef):
            return str(self._print(base, exp=self._print(exponent)))
        printed = self._print(base)
        if (
            base.is_Add
            or base.is_Mul
            or base.is_Pow
            or isinstance(base, (Value, Moment, Dilation, sympy.Sum))
            or re.search("[\\^']", printed)
        ):
            printed = parenthesised(printed)
        if exponent.is_Rational and not exponent.is_Integer:
            return f"{printed}^{{{exponent.p}/{exponent.q}}}"
        return f"{printed}^{{{self._print(exponent)}}}"

    def _print_Sum(self, expr: sympy.Sum) -> str:
        heads, body = self.sum_parts(expr)
        printed = self._print(body)
        return f"{heads} {parenthesised(printed) if body.is_Add else printed}"

    def sum_parts(self, expr: sympy.Sum) -> tuple[str, sympy.Expr]:
        """Return the summation signs, outermost first, equal ranges under one; and the summand, indices in order."""
        body, limits = order_indices(expr)
        heads, n = [], 0
        while n < len(limits):
            same = [index for index, low, high in limits[n:] if (low, high) == limits[n][1:]]
            low, high = (self._print(bound) for bound in limits[n][1:])
            heads.append(rf"\sum_{{{','.join(map(self._print, same))}={low}}}^{{{high}}}")
            n += len(same)
        return " ".join(heads), body

    # the order of factors

    def _scalar_key(self, f: sympy.Expr) -> tuple[Any, ...]:
        name = str(f.as_base_exp()[0])
        return (self.scalars.index(name) if name in self.scalars else len(self.scalars), name)

    def _indexed_key(self, f: sympy.Expr) -> tuple[Any, ...]:
        entry = f.as_base_exp()[0]
        return (len(entry.indices), str(entry.base), tuple(index_rank(i) for i in entry.indices))

    def _big_key(self, f: sympy.Expr) -> tuple[Any, ...]:
        base = f.as_base_exp()[0]
        if isinstance(base, sympy.Add):
            return (0, 0)
        if isinstance(base, Value):
            order = int(base.args[0].args[1])
            return (1, -order if order else 2, *self._indexed_key(base.args[1]))
        if isinstance(base, sympy.Indexed):
            return (1, 1, *self._indexed_key(base))
        return (2, sympy.default_sort_key(f)) if str(base) != "x" else (9, 0)

    def _denominator_key(self, f: sympy.Expr) -> tuple[Any, ...]:
        return (not f.is_number, *self._any_key(f))

    def _any_key(self, f: sympy.Expr) -> tuple[Any, ...]:
        names = sorted(str(s) for s in f.free_symbols if not isinstance(s, sympy.Indexed)) or [""]
        return (max(n.count("'") for n in names), len(names), names, sympy.default_sort_key(f))


class StarredIndex(sympy.Symbol):
    """The number of a teacher's unit, which prints with a star to tell it from a student's."""


def parenthesised(text: str) -> str:
    """Return a formula in brackets as tall as it is."""
    return rf"\left({text}\right)" if r"\frac" in text or r"\sum" in text else f"({text})"


def split_sign(expr: sympy.Expr) -> tuple[bool, sympy.Expr]:
    """Return whether an expression is a negative multiple, and the multiple made positive."""
    negative = bool(expr.as_coeff_Mul()[0].is_negative)
    return negative, -expr if negative else expr


def index_rank(index: sympy.Expr) -> tuple[int, str]:
    """Return the rank of an index in the order i, k, j, l, …, n, m, … (numbers by themselves)."""
    name = str(index)
    if index.is_number:
        return (int(index), name)
    return (_INDICES.index(name) if name in _INDICES else len(_INDICES), name)


def order_indices(expr: sympy.Sum) -> tuple[sympy.Expr, list[tuple[sympy.Expr, ...]]]:
    """Return summand and limits, outermost first; indices of equal range are renamed to occur in order."""
    body, limits = expr.function, [tuple(limit) for limit in reversed(expr.limits)]
    calls = [c for c in sympy.preorder_traversal(body) if isinstance(c, (AppliedUndef, Moment))]
    if not calls:
        return body, limits
    call = calls[0]
    arguments = call.args if isinstance(call, AppliedUndef) else tuple(f.indices[0] for f in call.fields)
    swap: dict[sympy.Expr, sympy.Expr] = {}
    for bounds in dict.fromkeys(limit[1:] for limit in limits):
        group = [limit[0] for limit in limits if limit[1:] == bounds]
        occurring = [a for a in dict.fromkeys(arguments) if a in group]
        swap |= dict(zip(occurring, sorted(occurring, key=index_rank), strict=True))
    if isinstance(call, AppliedUndef):  # a Moment would sort its factors back
        body = body.xreplace({old: sympy.Dummy(str(new)) for old, new in swap.items()} if swap else {})
        back = {
            d: new
            for d in body.free_symbols
            if isinstance(d, sympy.Dummy)
            for new in swap.values()
            if str(new) == d.name
        }
        body = body.xreplace(back)
    return body, sorted(limits, key=lambda limit: ([x[1:] for x in limits].index(limit[1:]), index_rank(limit[0])))


# --- arrangement: prefactors and brackets -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A signed summand: ``before [ inside ] after``, where the bracket is absent if nothing is inside."""

    negative: bool
    before: str
    inside: tuple["Item", ...] = ()
    after: str = ""

    def text(self, first: bool) -> str:
        """Return the sign, if it is needed, and the text up to the bracket."""
        return f"{'-' if self.negative else '' if first else '+'} {self.before}".strip()


_BODY = (sympy.Sum, Moment, Dilation, AppliedUndef, Value)


def grouped(expr: sympy.Expr, printer: PaperPrinter) -> tuple[Item, ...]:
    """Return the terms of an equation, those with the same prefactor (η a_i, η² a_i a_k, …) in one bracket."""
    groups: dict[sympy.Expr, list[tuple[sympy.Expr, sympy.Expr]]] = {}
    lone = []
    for term in sympy.Add.make_args(expr):
        number, rest = term.as_coeff_Mul()
        factors = sympy.Mul.make_args(rest)
        body = sympy.Mul(*(f for f in factors if f.has(*_BODY)))
        sizes = sympy.Mul(
            *(
                f
                for f in factors
                if f.free_symbols and all(str(s) in "KM" for s in f.free_symbols) and not f.has(*_BODY)
            )
        )
        prefix = rest / body / sizes
        if body.has(sympy.Sum):
            groups.setdefault(prefix, []).append((number * sizes, body))
        else:
            lone.append((number * sizes, prefix, body))
    alone = []
    for number, prefix, body in lone:
        hosts = [p for p in groups if _divides(p, prefix)]
        host = min(hosts, key=lambda p: sympy.count_ops(prefix / p), default=None)
        if host is None:
            alone.append((prefix, [(number, body)]))
        else:
            groups[host].append((number * prefix / host, body))
    items: list[Item] = []
    for prefix, members in sorted(
        [*groups.items(), *alone], key=lambda group: _prefix_key(group[0], group[1], printer)
    ):
        items += _group(prefix, members, printer)
    return _positive_first(items)


def collected(expr: sympy.Expr, printer: PaperPrinter) -> tuple[Item, ...]:
    """Return the terms of an equation without sums, those with the same rates (η, η², …) in one bracket."""
    groups: dict[sympy.Expr, list[tuple[sympy.Expr, sympy.Expr]]] = {}
    for term in printer.summands(expr) if expr.is_Add else [expr]:
        number, rest = term.as_coeff_Mul()
        rates = sympy.Mul(
            *(f for f in sympy.Mul.make_args(rest) if f.is_number or isinstance(f.as_base_exp()[0], sympy.Symbol))
        )
        groups.setdefault(rates, []).append((number, rest / rates))
    items: list[Item] = []
    for rates, members in sorted(groups.items(), key=lambda group: _prefix_key(group[0], group[1], printer)):
        items += _group(rates, members, printer)
    return _positive_first(items)


def _group(prefix: sympy.Expr, members: list[tuple[sympy.Expr, sympy.Expr]], printer: PaperPrinter) -> list[Item]:
    if len(members) == 1 or prefix == 1:
        terms = [c * prefix * body for c, body in members] if len(members) == 1 else [c * body for c, body in members]
        order = sorted(zip(members, terms, strict=True), key=lambda pair: _member_key(pair[0][1]))
        return list(_positive_first([_item(term, printer) for _, term in order]))
    common = sympy.gcd_list([c for c, _ in members])
    if common.is_negative:
        common = -common
    inner = sorted(members, key=lambda pair: _member_key(pair[1]))
    inside = _positive_first([_item(c / common * body, printer) for c, body in inner])
    return [Item(False, printer.product(sympy.Mul.make_args(common * prefix)), inside)]


def _item(term: sympy.Expr, printer: PaperPrinter) -> Item:
    negative, size = split_sign(term)
    return Item(negative, printer.product(sympy.Mul.make_args(size)))


def _positive_first(items: Iterable[Item]) -> tuple[Item, ...]:
    items = list(items)
    first = next((n for n, item in enumerate(items) if not item.negative), 0)
    return (*items[first : first + 1], *items[:first], *items[first + 1 :])


def _divides(part: sympy.Expr, whole: sympy.Expr) -> bool:
    powers = (whole / part).as_powers_dict()
    return all(e.is_nonnegative for b, e in powers.items() if not b.is_number)


def _prefix_key(
    prefix: sympy.Expr, members: list[tuple[sympy.Expr, sympy.Expr]], printer: PaperPrinter
) -> tuple[Any, ...]:
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
        if len(sums) == 1 and len(factors) > 1 and width(printer._print(sums[0])) > 12:
            rest = [f for f in factors if f is not sums[0]]
            items.append(Item(negative, printer.product(rest), arranged(sums[0], printer)))
        else:
            items.append(Item(negative, printer.product(factors)))
    return tuple(items)


# --- lines ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """What stands between two possible line breaks, and the depth of brackets at its beginning."""

    text: str
    level: int


def chunks(items: Sequence[Item], level: int = 0, first: bool = True) -> list[Chunk]:
    """Return the items cut wherever a line may break: before a sign, outside brackets or in them."""
    out: list[Chunk] = []
    for n, item in enumerate(items):
        text = item.text(first and n == 0)
        if not item.inside:
            out.append(Chunk(f"{text} {item.after}".strip(), level))
            continue
        left, right = (r"\Bigl[ ", r" \Bigr]") if level == 0 else (r"\bigl( ", r" \bigr)")
        inner = chunks(item.inside, level + 1)
        inner[0] = Chunk(f"{text} {left}{inner[0].text}", level)
        inner[-1] = Chunk(f"{inner[-1].text}{right} {item.after}".strip(), inner[-1].level)
        out += inner
    return out


def fill(pieces: Sequence[Chunk], start: float, line: float = LINE) -> list[str]:
    """Return the pieces as lines, none wider than ``line`` em if it can be; breaks stand outside brackets if they can.

    Parameters
    ----------
    pieces : sequence of Chunk
    start : float
        Where the lines begin: the width of the left-hand side.
    line : float
        The width of a line.
    """
    widths = [width(p.text) + 0.3 for p in pieces]
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost and beginning of the last line, for each number of pieces set
    for end in range(1, len(pieces) + 1):
        options = []
        for begin in range(end):
            total = start + sum(widths[begin:end]) + (_indent_width(pieces[begin].level) if begin else 0)
            over = max(0.0, total - line)
            level = pieces[begin].level
            torn = level > 0 and any(p.level < level for p in pieces[begin + 1 : end])
            short = 0.0 if end == len(pieces) else ((line - min(total, line)) / line) ** 2
            cost = best[begin][0] + 10 + 3 * level * (begin > 0) + 12 * torn + 100 * over + 2 * short
            options.append((cost, -begin))
        cost, begin = min(options)
        best.append((cost, -begin))
    lines, end = [], len(pieces)
    while end:
        begin = best[end][1]
        text = " ".join(p.text for p in pieces[begin:end])
        lines.append(f"{_indent(pieces[begin].level)} {{}}{text}" if begin else text)
        end = begin
    return lines[::-1]


def _indent(level: int) -> str:
    return r"\quad" if level == 0 else r"\qquad" + r"\quad" * level


def _indent_width(level: int) -> float:
    return 1.0 if level == 0 else 2.0 + level


_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}^_]|\s+|.", re.DOTALL)
_WIDTHS = {
    **dict.fromkeys(["+", "-", r"\cdot", r"\to"], 1.2), "=": 1.35, **dict.fromkeys("()[]|", 0.4), ",": 0.45, "'": 0.3,
    r"\,": 0.17, r"\;": 0.28, r"\!": -0.17, r"\quad": 1.0, r"\qquad": 2.0, r"\sum": 1.6, r"\langle": 0.4,
    r"\rangle": 0.4, r"\arcsin": 2.8, r"\operatorname": 0.2, r"\star": 0.5, r"\mathrm": 0.0, r"\mathbf": 0.0,
    r"\tilde": 0.0, r"\text": 0.0, r"\left": 0.1, r"\right": 0.1, r"\Bigl": 0.2, r"\Bigr": 0.2, r"\bigl": 0.1,
    r"\bigr": 0.1, r"\big": 0.1, r"\partial": 0.55,
}  # fmt: skip


def width(text: str) -> float:
    r"""Return the printed width of a formula in em, to some 10 %: enough to know where to break it.

    Examples
    --------
    >>> width(r"\frac{a+b}{c}") == width("a+b") + 0.25
    True
    """
    return _row(_TOKEN.findall(text), 0)[0]


def _row(tokens: list[str], at: int) -> tuple[float, int]:
    total, limits = 0.0, False
    while at < len(tokens) and tokens[at] != "}":
        token = tokens[at]
        if token in "^_":
            scripts, at = _scripts(tokens, at)
            total += max(0.0, scripts - 1.4) if limits else scripts
            limits = False
            continue
        at += 1
        limits = token == r"\sum"
        if token == r"\frac":
            (above, at), (below, at) = (one := _argument(tokens, at)), _argument(tokens, one[1])
            total += max(above, below) + 0.25
        elif token == r"\sqrt":
            inside, at = _argument(tokens, at)
            total += inside + 0.9
        elif token == "{":
            inside, at = _row(tokens, at)
            total, at = total + inside, at + 1
        elif not token.isspace():
            total += _WIDTHS.get(token, 0.75 if token.isupper() else 0.55)
    return total, at


def _argument(tokens: list[str], at: int) -> tuple[float, int]:
    while at < len(tokens) and tokens[at].isspace():
        at += 1
    if at < len(tokens) and tokens[at] == "{":
        inside, at = _row(tokens, at + 1)
        return inside, at + 1
    return width(tokens[at]) if at < len(tokens) else 0.0, at + 1


def _scripts(tokens: list[str], at: int) -> tuple[float, int]:
    widest = 0.0
    while at < len(tokens) and tokens[at] in "^_":
        inside, at = _argument(tokens, at + 1)
        widest = max(widest, 0.72 * inside)
    return widest, at


Row = tuple[str, list[str]]
"""A left-hand side, and its right-hand side in lines."""


def row(left: str, items: Sequence[Item], line: float = LINE) -> Row:
    """Return one equation as a row: its right-hand side broken into lines."""
    return left, fill(chunks(items), width(left) + 1.4, line)


def environment(name: str, rows: Iterable[Row]) -> str:
    r"""Return rows as an amsmath environment such as ``align``, with one number an equation.

    Examples
    --------
    >>> print(environment("align", [("a", ["b", "+ c"])]))
    \begin{align}
    a &= b \nonumber \\
    &+ c
    \end{align}
    """
    numberless = r" \nonumber" if name == "align" else ""
    body = (rf"{numberless} \\" + "\n&").join
    equations = [f"{left} &= {body(lines)}" for left, lines in rows]
    return "\n".join([rf"\begin{{{name}}}", " \\\\\n".join(equations), rf"\end{{{name}}}"])


# --- moments ----------------------------------------------------------------------------------------------------------


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

    def latex(self) -> Row:
        """Return the definition for general a, b."""
        old, new, p = "C" + "'" * (self.level - 1), "C" + "'" * self.level, self.field
        factor = "" if self.alpha == 1 else f"{PaperPrinter()._print(self.alpha)} "
        fraction = rf"\frac{{{factor}{old}_{{{p}a}} {old}_{{{p}b}}}}{{1 + {factor}{old}_{{{p}{p}}}}}"
        return f"{new}_{{ab}}", [f"{old}_{{ab}} - {fraction}"]


@dataclass(frozen=True, slots=True)
class ReadableForm:
    """A closed form shortened by definitions: tilted covariances, then names for what still repeats."""

    form: sympy.Expr
    tilts: tuple[Tilt, ...] = ()
    names: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()


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


def moment_rows(
    named: "NamedMoment", printer: PaperPrinter | None = None, line: float = LINE
) -> tuple[list[Row], list[Row]]:
    """Return a moment's definition with its closed form, and the definitions which that uses."""
    printer = printer or PaperPrinter()
    short = readable_form(named.signature)
    letter, size = named.name.split("_")
    indices = ",".join(printer._print(f.indices[0]) for f in named.moment.fields)
    left = f"{letter}_{{{size}}}({indices})"
    mean = printer._print(named.moment)
    one = row(f"{left} = {mean}", arranged(short.form, printer), line)
    if len(one[1]) == 1 and width(f"{left} = {mean} = {one[1][0]}") < line:
        main = [(left, [f"{mean} = {one[1][0]}"])]
    else:
        lines = row("", arranged(short.form, printer), line - width(left))[1]
        main = [(left, [mean, f"= {lines[0]}", *lines[1:]])]
    definitions = [tilt.latex() for tilt in short.tilts]
    for symbol, expr in short.names:
        if symbol.name.startswith("hat "):  # for all indices at once
            symbol, expr = (
                sympy.Symbol(f"{prefix}{symbol.name[4:-2]}aa") - one for prefix, one in (("hat ", 0), ("", 1))
            )
        definitions.append(row(printer._print(symbol), arranged(expr, printer), line))
    return main, list({left: (left, lines) for left, lines in definitions}.values())


def sorted_moments(dyn: "Dynamics") -> "list[NamedMoment]":
    """Return the moments of a Dynamics by number of factors, then by letter."""
    return sorted(dyn.moments, key=lambda m: (len(m.shape), m.name))


def moment_latex(named: "NamedMoment") -> str:
    r"""Return a moment's definition and closed form, in the covariances C_ab of its fields, as LaTeX.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="square").dynamics()
    >>> print(moment_latex(sorted_moments(dyn)[0]))
    \begin{align*}
    I_{2}(j,l) &= \langle g(h_{j})\,g(h_{l})\rangle = C_{11} C_{22} + 2 C_{12}^{2}
    \end{align*}
    """
    main, definitions = moment_rows(named)
    return environment("align*", main + definitions)


# --- a whole Dynamics -------------------------------------------------------------------------------------------------


def printer_for(dyn: "Dynamics", names: Mapping[str, str] | None = None) -> PaperPrinter:
    """Return the printer that knows a Dynamics' own symbols."""
    quantities = (*dyn.parameters, *(e.quantity for e in dyn.equations))
    table = {q.name: q.latex for q in quantities if q.latex} | {str(f.base): f.latex for f in dyn.families if f.latex}
    scalars = [q.name for q in dyn.parameters if not q.indices]
    return PaperPrinter({**table, **(names or {})}, ["eta", *(s for s in scalars if s != "eta"), "chi"])


def left_hand_side(quantity: "Quantity", printer: PaperPrinter, moves: bool) -> str:
    r"""Return ``\frac{\mathrm{d}Q_{ik}}{\mathrm{d}t}`` for a state, the symbol itself for an observable."""
    symbol = printer._print(quantity.symbol)
    return rf"\frac{{\mathrm{{d}}{symbol}}}{{\mathrm{{d}}t}}" if moves else symbol


def equation_rows(dyn: "Dynamics", printer: PaperPrinter, line: float = LINE) -> tuple[list[Row], list[Row]]:
    """Return the equations of motion and the observables as rows."""
    moving = [
        row(left_hand_side(e.quantity, printer, True), grouped(dyn.named(e.expr), printer), line) for e in dyn.drift
    ]
    derived = [
        row(left_hand_side(e.quantity, printer, False), grouped(dyn.named(e.expr), printer), line)
        for e in dyn.observables
    ]
    return moving, derived


def activations(expressions: Iterable[sympy.Expr]) -> list[Univariate]:
    """Return the functions of local fields that occur, undifferentiated, by name."""
    found = {u.args[0]: u for e in expressions for u in e.atoms(Univariate) if u.args[1] == 0}
    return [found[symbol] for symbol in sorted(found, key=str)]


def activation_rows(dyn: "Dynamics", printer: PaperPrinter) -> list[Row]:
    """Return the definitions of the activation functions."""
    h = sympy.Symbol("h", real=True)
    shown = [*(e.expr for e in dyn.equations), *(rhs for step in dyn.steps for _, rhs in step.equations)]
    return [row(f"{printer._print(u)}(h)", arranged(u.function(h), printer)) for u in activations(shown)]


def shared_definitions(rows: Iterable[tuple[list[Row], list[Row]]]) -> tuple[list[Row], list[list[Row]]]:
    """Return the definitions that mean the same in all moments, and for each moment its rows with what is its own."""
    rows = list(rows)
    meanings: dict[str, set[str]] = {}
    for _, definitions in rows:
        for left, lines in definitions:
            meanings.setdefault(left, set()).add(" ".join(lines))
    own = [[d for d in definitions if len(meanings[d[0]]) > 1 or d[0].startswith("u_")] for _, definitions in rows]
    shared = {
        d[0]: d
        for _, definitions in rows
        for d in definitions
        if len(meanings[d[0]]) == 1 and not d[0].startswith("u_")
    }
    return sorted(shared.values(), key=lambda d: (len(d[0]), d[0])), [
        main + mine for (main, _), mine in zip(rows, own, strict=True)
    ]


def dynamics_latex(dyn: "Dynamics") -> str:
    r"""Return a Dynamics as LaTeX (amsmath): equations of motion, observables, and the moments with their closed forms.

    Lines fit the column of LaTeX's article class. The symbols are explained by :func:`symbol_table`.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    >>> print(dynamics_latex(flow)[:87])
    \begin{align}
    \frac{\mathrm{d}Q_{ik}}{\mathrm{d}t} &= a_{i} \Bigl[ \sum_{n=1}^{M} b_{n}
    """
    printer = printer_for(dyn)
    moving, derived = equation_rows(dyn, printer)
    shared, moments = shared_definitions(moment_rows(m, printer) for m in sorted_moments(dyn))
    blocks = [("align", moving), ("align", derived), ("align*", activation_rows(dyn, printer))]
    text = [environment(name, rows) for name, rows in blocks if rows]
    if moments:
        text.append("% C_{ab}: the covariance of the fields of a moment's arguments a and b")
        text[-1] += "\n" + environment("align*", [r for rows in moments for r in rows])
    if shared:
        text.append(environment("align*", shared))
    return "\n\n".join(text)


def notebook_latex(dyn: "Dynamics") -> str:
    """Return a Dynamics as one display that MathJax sets, for notebooks.

    Examples
    --------
    >>> from effdyn import derive
    >>> notebook_latex(derive.TeacherStudent(activation="linear").dynamics())[:19]
    '$$\\\\begin{aligned}\\n\\\\'
    """
    printer = printer_for(dyn)
    moving, derived = equation_rows(dyn, printer, line=60)
    shared, moments = shared_definitions(moment_rows(m, printer, line=60) for m in sorted_moments(dyn))
    rows = [*moving, *derived, *activation_rows(dyn, printer), *(r for rows in moments for r in rows), *shared]
    return f"$${environment('aligned', rows)}$$"


def symbol_table(dyn: "Dynamics") -> str:
    """Return the table of symbols as a LaTeX ``tabular``: symbol, name in code, shape, meaning.

    Examples
    --------
    >>> from effdyn import derive
    >>> "student--student overlaps" in symbol_table(derive.TeacherStudent(activation="linear").dynamics())
    True
    """
    printer = printer_for(dyn)
    lines = []
    for q in (*dyn.states, *dyn.parameters, *(e.quantity for e in dyn.observables)):
        shape = r" \times ".join(map(printer._print, q.shape))
        name = q.name.replace("_", r"\_")
        cells = (
            f"${printer._print(q.symbol)}$",
            rf"\texttt{{{name}}}",
            f"${shape}$" if shape else "",
            text_latex(q.meaning),
        )
        lines.append(" & ".join(cells) + r" \\")
    head = (
        r"\begin{tabular}{@{}lllp{0.55\textwidth}@{}}" + "\n\\hline\nsymbol & in code & shape & meaning \\\\\n\\hline\n"
    )
    return head + "\n".join(lines) + "\n\\hline\n\\end{tabular}"


# --- prose ------------------------------------------------------------------------------------------------------------

_CHARACTERS = {
    "·": r"\cdot ", "→": r"\to ", "∞": r"\infty ", "−": "-", "½": r"\tfrac12 ", "²": "^2", "³": "^3", "√": r"\surd ",
    "~": r"\sim ", "∂": r"\partial ", "≤": r"\le ", "≥": r"\ge ", "×": r"\times ", "Σ": r"\sum ", "⟨": r"\langle ",
    "⟩": r"\rangle ", "≪": r"\ll ", "*": r"^{\star}", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$",
}  # fmt: skip
_PLAIN = {
    "–": "--",
    "—": "---",
    "“": "``",
    "”": "''",
    "’": "'",
    "…": r"\dots{}",
    "%": r"\%",
    "#": r"\#",
    "&": r"\&",
    "$": r"\$",
    "_": r"\_",
}
_GREEK_WORDS = {"eta": "η", "kappa": "κ", "sigma": "σ"}
_MATHEMATICAL = re.compile(r"[_*²³½·/^=~→∞−|√∂≤≥×Σ⟨⟩≪<>\u0370-\u03ff]|^[dtxyw][,.;:]?$|^[A-Z]\(|^\d+[,;)]*$")


def text_latex(text: str) -> str:
    """Return a line of plain text with its formulas as LaTeX.

    Examples
    --------
    >>> print(text_latex("student–student overlaps w_i·w_k/d"))
    student--student overlaps $w_{i}\\cdot w_{k}/d$
    >>> print(text_latex("d → ∞ at fixed time t = η·steps/d"))
    $d \\to  \\infty$ at fixed time $t = \\eta \\cdot \\mathrm{steps}/d$
    """
    out: list[str] = []
    formula: list[str] = []
    for word in [*text.split(), ""]:
        if word and ((formula and word in "+-=") or _MATHEMATICAL.search(word) or word in _GREEK_WORDS):
            formula.append(_GREEK_WORDS.get(word, word))
            if word[-1] not in ",;:.":
                continue
            word = ""
        if formula:
            joined, tail = " ".join(formula), ""
            while joined[-1] in ",;:.":
                joined, tail = joined[:-1], joined[-1] + tail
            while joined.endswith(")") and joined.count("(") < joined.count(")"):
                joined, tail = joined[:-1], ")" + tail
            out.append(f"${_formula(joined)}${tail}")
            formula = []
        if word:
            out.append("".join(_PLAIN.get(c, c) for c in word))
    return " ".join(out)


def _formula(text: str) -> str:
    text = re.sub(r"([A-Za-z\u0370-\u03ff])\*_(\w)", r"\1^{\\star}_{\2}", text)
    text = re.sub(r"\*\*(\w+)", r"^{\1}", text.replace("**(", "^("))  # powers and products as Python writes them
    text = re.sub(r"\*(?=[A-Za-z0-9(])", r"\\,", text)
    text = re.sub(r"_(\w)", r"_{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z{])[A-Za-z]{2,}", lambda m: rf"\mathrm{{{m[0]}}}", text)
    return "".join(_letter(c) for c in text).strip()


def _letter(c: str) -> str:
    if c in _CHARACTERS:
        return _CHARACTERS[c]
    if "\u0370" <= c <= "\u03ff":
        words = unicodedata.name(c).split()  # GREEK SMALL LETTER ETA
        letter = words[3].lower() if len(words) > 3 else ""
        return rf"\{letter.capitalize() if words[1] == 'CAPITAL' else letter} "
    return c
