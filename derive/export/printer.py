r"""Expressions as LaTeX or as plain text, one symbol per quantity, factors in the order of the papers.

Knows nothing of equations, nor of lines: what it returns is one formula, however long.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
from sympy.core.function import AppliedUndef
from sympy.printing.latex import LatexPrinter
from sympy.printing.str import StrPrinter

from ..averages import LABEL
from ..gaussian.special import Phi2, Phi3
from ..moments import Dilation, Joint, Moment, Univariate, Value
from ..output_fields import OUTPUT, RESIDUAL, TARGET
from .index_order import index_rank, order_indices

SumSign = tuple[list[sympy.Expr], sympy.Expr, sympy.Expr]
"""The indices under one summation sign, and from where to where they run."""


class PaperOrder:
    """In what order the papers write summands, sums and factors, in LaTeX as in plain text.

    Parameters
    ----------
    scalars : sequence of str
        The order of scalar factors; others follow by name.
    """

    single = frozenset(map(str, (OUTPUT, TARGET, RESIDUAL)))
    """Families of one field, which print without its number."""

    def __init__(self, scalars: Sequence[str], settings: dict[str, Any]) -> None:
        super().__init__(settings)  # type: ignore[call-arg]  # the printer beside which it stands
        self.scalars = list(scalars)

    def is_field(self, base: sympy.Expr) -> bool:
        """Return whether an indexed quantity is a local field, which stands behind the order parameters."""
        return str(base).startswith("h") or str(base) in self.single

    def summands(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the terms of a sum as they print: 1 + C_11 but C_11 + … − 1, the first positive if one is."""
        terms = expr.as_ordered_terms()
        if all(t.is_number or re.match("S'*_", str(t)) for t in terms):  # 1 + S_12 + S_13 + … + S_1234
            return sorted(terms, key=lambda t: (not t.is_number, len(str(t)), str(t)))
        early = len(terms) == 2 and any(t.is_number and t.is_positive for t in terms)
        terms = sorted(terms, key=lambda t: bool(t.is_number) != early)
        first = next((n for n, t in enumerate(terms) if not split_sign(t)[0]), 0)
        return [terms[first], *terms[:first], *terms[first + 1 :]]

    def sums(self, expr: sympy.Sum) -> tuple[list[SumSign], sympy.Expr]:
        """Return the summation signs, outermost first, as (indices, from, to); and the summand, indices in order."""
        body, limits = order_indices(_with_latin_indices(expr))
        runs = itertools.groupby(limits, key=lambda limit: limit[1:])
        return [([limit[0] for limit in same], low, high) for (low, high), same in runs], body

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


_LATIN = {"alpha": "j", "beta": "l", "mu": "n", "nu": "m"}
"""How summation indices print that combinations of fields bring along, where no other is called so."""


def _with_latin_indices(expr: sympy.Sum) -> sympy.Sum:
    taken = {s.name for s in expr.function.free_symbols if isinstance(s, sympy.Symbol)}
    found = [index for index, *_ in expr.limits if _LATIN.get(str(index), str(index)) not in taken]
    return expr.xreplace(
        {i: sympy.Symbol(_LATIN[str(i)], integer=True, positive=True) for i in found if str(i) in _LATIN}
    )


class PaperPrinter(PaperOrder, LatexPrinter):
    r"""Prints expressions as the papers do: constants, rates, units, then sums, over j, l = 1 … K under one sign.

    Parameters
    ----------
    names : mapping of str to str, optional
        How names print that do not print as themselves.
    scalars : sequence of str, optional
        The order of scalar factors; others follow by name.
    """

    def __init__(self, names: Mapping[str, str] | None = None, scalars: Sequence[str] = ()) -> None:
        super().__init__(scalars, {"inv_trig_style": "full", "mul_symbol": None})
        self.names = dict(names or {})

    # names

    def name(self, name: str) -> str:
        """Return how a name prints: ``h_star`` as h with a star, Greek letters by name, the rest as SymPy would."""
        if name in self.names:
            return self.names[name]
        if name == str(LABEL):
            return "y"
        if match := re.fullmatch(r"(hat )?C('*)_(\w\w)", name):
            letter = r"\hat{C}" if match[1] else "C"
            return f"{letter}{match[2]}_{{{match[3]}}}"
        if match := re.fullmatch(r"(S|m|Delta|Lambda)('*)_([\da-dpq|]+)", name):  # of fields by number
            letter = rf"\{match[1]}" if len(match[1]) > 1 else match[1]
            return f"{letter}{match[2]}_{{{match[3]}}}"
        if name.endswith("_star"):
            return rf"{self.name(name.removesuffix('_star'))}^{{\star}}"
        if match := re.fullmatch("(.+)_over_(.+)", name):
            return f"({self.name(match[1])}/{self.name(match[2])})"
        return str(super()._print_Symbol(sympy.Symbol(name)))

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        return self.name(expr.name)

    def _print_Dummy(self, expr: sympy.Dummy) -> str:
        return self.name(expr.name)

    def _print_IndexedBase(self, expr: sympy.IndexedBase) -> str:
        return self.name(str(expr))

    def _print_Indexed(self, expr: sympy.Indexed) -> str:
        if str(expr.base) in self.single:
            return self.name(str(expr.base))
        indices = [self._print(i) for i in expr.indices]
        comma = "," if any(len(i) > 1 and not i.startswith("\\") for i in indices) else ""
        name = self.name(str(expr.base))
        return f"{f'({name})' if '_' in name else name}_{{{comma.join(indices)}}}"  # TeX has no double subscripts

    # random things

    def _print_Univariate(self, expr: Univariate) -> str:
        symbol, order, _ = expr.args
        base = str(symbol)
        if base == "sign":
            return r"\operatorname{sign}" + "'" * int(order)
        text = rf"\tilde{{{base.removesuffix('_star')}}}" if base.endswith("_star") else self.name(base)
        return text + "'" * int(order)

    def _print_Value(self, expr: Value, exp: str | None = None) -> str:
        text = f"{self._print(expr.args[0])}({self._print(expr.args[1])})"
        return text if exp is None else f"{text}^{{{exp}}}"

    def _print_Moment(self, expr: Moment, exp: str | None = None) -> str:
        factors = r"\,".join(self._print(f) for f in expr.args)
        return rf"\langle {factors}\rangle"

    def _print_Joint(self, expr: Joint, exp: str | None = None) -> str:
        inner = self._print(expr.args[0])
        tall = r"\frac" in inner or r"\sum" in inner
        return rf"\left\langle {inner}\right\rangle" if tall else rf"\langle {inner}\rangle"

    def _print_Dilation(self, expr: Dilation, exp: str | None = None) -> str:
        average, *block = map(self._print, expr.args)
        if block:
            return rf"\,\partial_{{s_{block[0]}}}{average}_{{s_{block[0]}}}\big|_{{s_{block[0]}=1}}"
        return rf"\,\partial_s{average}_{{s\Omega}}\big|_{{s=1}}"

    def _print_AppliedUndef(self, expr: sympy.Expr, exp: str | None = None) -> str:
        match = re.fullmatch(r"([A-Z]+)_(\d+)", name := expr.func.__name__)
        head = f"{match[1]}_{{{match[2]}}}" if match else self.name(name)
        power = "" if exp is None else f"^{{{exp}}}"
        return f"{head}{power}({','.join(self._print(a) for a in expr.args)})"

    def _print_StarredIndex(self, expr: "StarredIndex") -> str:
        return rf"{expr.name}^{{\star}}"

    def _print_erf(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\operatorname{erf}", expr, exp)

    def _print_asin(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\arcsin", expr, exp)

    def _print_tanh(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\tanh", expr, exp)

    def _print_log(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\log", expr, exp)

    def _print_sign(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\operatorname{sign}", expr, exp)

    def _print_Heaviside(self, expr: sympy.Expr, exp: str | None = None) -> str:
        return self._call(r"\Theta", expr, exp)

    def _print(self, expr: Any, **settings: Any) -> str:
        if isinstance(expr, (Phi2, Phi3)):  # which would print by themselves, their arguments all alike
            return self._distribution(expr, 2 if isinstance(expr, Phi2) else 3, settings.get("exp"))
        return str(super()._print(expr, **settings))

    def _distribution(self, expr: sympy.Expr, dimension: int, exp: str | None) -> str:
        parts = (expr.args[:dimension], expr.args[dimension:])
        bounds, correlations = (", ".join(map(self._print, part)) for part in parts)
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\Phi_{{{dimension}}}{power}{parenthesised(f'{bounds}; {correlations}')}"

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

    def _print_Mul(self, expr: sympy.Expr) -> str:
        negative, expr = split_sign(expr)
        return ("-" if negative else "") + self.product(sympy.Mul.make_args(expr))

    def _print_transpose(self, expr: sympy.Expr) -> str:
        name = self._print(expr.args[0])
        if "^{" in name and name.endswith("}"):  # TeX has no double superscripts
            return rf"{name[:-1]}\mathsf{{T}}}}"
        return rf"{name}^{{\mathsf{{T}}}}"

    def product(self, factors: Iterable[sympy.Expr]) -> str:
        """Return a product without sign: constants, a fraction or scalars, then sums, moments and brackets.

        Matrices keep their order.
        """
        factors = list(factors)
        if word := [f for f in factors if not f.is_commutative]:
            scalars = [f for f in factors if f.is_commutative]
            return " ".join([*([self.product(scalars)] if scalars else []), *map(self._print, word)])
        constant, over, scalars, indexed, big = sympy.S.One, sympy.S.One, [], [], []
        for f in factors:
            base, exponent = f.as_base_exp()
            if f.is_number:
                constant *= f
            elif exponent.is_number and exponent.is_negative and not isinstance(f, sympy.exp):
                over *= base**-exponent
            elif isinstance(base, sympy.Symbol) and str(base) != "x":
                scalars.append(f)
            elif isinstance(base, sympy.Indexed) and not self.is_field(base.base):
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
            or isinstance(base, (Value, Moment, Joint, Dilation, sympy.Sum))
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
        groups, body = self.sums(expr)
        heads = (
            rf"\sum_{{{','.join(map(self._print, g))}={self._print(low)}}}^{{{self._print(high)}}}"
            for g, low, high in groups
        )
        return " ".join(heads), body


class PlainPrinter(PaperOrder, StrPrinter):
    """Prints expressions as plain text that reads like the papers: ``2 eta^2 sigma^2/d a_i a_k``.

    Parameters
    ----------
    scalars : sequence of str, optional
        The order of scalar factors; others follow by name.

    Examples
    --------
    >>> a, i, j, K, eta = sympy.IndexedBase("a"), *sympy.symbols("i j K eta")
    >>> PlainPrinter().doprint(eta**2 * a[i] / 2 * sympy.Sum(a[j], (j, 1, K)))
    'eta^2/2 a_i Σ_{j=1}^K a_j'
    """

    printmethod = "_plain"  # not what nodes print by themselves, which is closer to code

    def __init__(self, scalars: Sequence[str] = ()) -> None:
        super().__init__(scalars, {})

    def name(self, name: str) -> str:
        """Return how a name prints: ``h_star`` as ``h*``, as assumptions and meanings are written."""
        if name.endswith("_star"):
            return f"{name.removesuffix('_star')}*"
        if name in (str(OUTPUT), str(LABEL)):
            return "phi" if name == str(OUTPUT) else "y"
        name = re.sub(r"^Lambda('*)_", r"Λ\1_", name)
        return re.sub(r"^Delta('*)_", r"Δ\1_", name.replace("hat C", "Ĉ"))

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.name(expr.name)

    _print_Dummy = _print_Symbol

    def _print_StarredIndex(self, expr: "StarredIndex") -> str:
        return f"{expr.name}*"

    def _print_IndexedBase(self, expr: sympy.IndexedBase) -> str:
        return self.name(str(expr))

    def _print_Indexed(self, expr: sympy.Indexed) -> str:
        name, indices = self._print(expr.base), [self._print(i) for i in expr.indices]
        if str(expr.base) in self.single:
            return name
        if len(name.removesuffix("*")) > 1 or any(len(i) > 1 for i in indices):
            return f"{name}[{','.join(indices)}]"
        return f"{name}_{''.join(indices)}"

    # random things

    def _print_Univariate(self, expr: Univariate) -> str:
        symbol, order, _ = expr.args
        name = str(symbol)
        return (f"{name.removesuffix('_star')}\u0303" if name.endswith("_star") else name) + "'" * int(order)

    def _print_Value(self, expr: Value) -> str:
        return f"{self._print(expr.args[0])}({self._print(expr.args[1])})"

    def _print_Moment(self, expr: Moment) -> str:
        return f"E[{' '.join(map(self._print, expr.args))}]"

    def _print_Joint(self, expr: Joint) -> str:
        return f"E[{self._print(expr.args[0])}]"

    def _print_Dilation(self, expr: Dilation) -> str:
        average, *block = map(self._print, expr.args)
        if block:
            return f"∂_s_{block[0]} {average.replace('E[', f'E_s_{block[0]}[', 1)}"
        return f"∂_s {average.replace('E[', 'E_sΩ[', 1)}"

    def _print_AppliedUndef(self, expr: sympy.Expr) -> str:
        return f"{self.name(expr.func.__name__)}({','.join(map(self._print, expr.args))})"

    def _print_asin(self, expr: sympy.Expr) -> str:
        return f"arcsin({self._print(expr.args[0])})"

    def _print_Abs(self, expr: sympy.Expr) -> str:
        return f"|{self._print(expr.args[0])}|"

    def _print_Max(self, expr: sympy.Expr) -> str:
        return f"max({', '.join(map(self._print, sorted(expr.args, key=lambda a: not a.is_number)))})"

    def _print_Heaviside(self, expr: sympy.Expr) -> str:
        return f"Θ({self._print(expr.args[0])})"

    def _print_Phi2(self, expr: sympy.Expr) -> str:
        return self._distribution(expr, 2)

    def _print_Phi3(self, expr: sympy.Expr) -> str:
        return self._distribution(expr, 3)

    def _distribution(self, expr: sympy.Expr, dimension: int) -> str:
        parts = (expr.args[:dimension], expr.args[dimension:])
        bounds, correlations = (", ".join(map(self._print, part)) for part in parts)
        return f"Φ_{dimension}({bounds}; {correlations})"

    def _print_Integral(self, expr: sympy.Integral) -> str:
        heads = (f"∫_{self._short(low)}^{self._short(high)} d{self._print(x)}" for x, low, high in expr.limits)
        return f"{' '.join(heads)} {self._joined([expr.function])}"

    def _short(self, bound: sympy.Expr) -> str:
        text = self._print(bound)
        return text if bound.is_Atom else f"{{{text}}}"

    def _print_Piecewise(self, expr: sympy.Expr) -> str:
        cases = (
            f"{self._print(value)} {'otherwise' if where == sympy.true else f'if {self._print(where)}'}"
            for value, where in expr.args
        )
        return f"{{{'; '.join(cases)}}}"

    # arithmetic

    def _print_Add(self, expr: sympy.Expr, order: object = None) -> str:
        text = ""
        for term in self.summands(expr):
            negative, size = split_sign(term)
            text += (" - " if negative else " + ") if text else "-" * negative
            text += self._print(size)
        return text

    def _print_Mul(self, expr: sympy.Expr) -> str:
        negative, expr = split_sign(expr)
        return "-" * negative + self.product(sympy.Mul.make_args(expr))

    def _print_transpose(self, expr: sympy.Expr) -> str:
        return f"{self._print(expr.args[0])}ᵀ"

    def product(self, factors: Iterable[sympy.Expr]) -> str:
        """Return a product without sign: number and scalars, over what is a number or scalar; units; sums and moments.

        Any longer denominator stands at the end, in brackets; matrices keep their order.
        """
        factors = list(factors)
        if word := [f for f in factors if not f.is_commutative]:
            scalars = [f for f in factors if f.is_commutative]
            return " ".join([*([self.product(scalars)] if scalars else []), *map(self._print, word)])
        number, over, scalars, indexed, big = sympy.S.One, sympy.S.One, [], [], []
        for f in factors:
            base, exponent = f.as_base_exp()
            if f.is_number:
                number *= f
            elif exponent.is_number and exponent.is_negative and not isinstance(f, sympy.exp):
                over *= base**-exponent
            elif isinstance(base, sympy.Symbol):
                scalars.append(f)
            elif isinstance(base, sympy.Indexed) and not self.is_field(base.base):
                indexed.append(f)
            else:
                big.append(f)
        number, below = (sympy.S.One, 1 / number) if (number**-2).is_Integer else number.as_numer_denom()
        scalars.sort(key=self._scalar_key)
        indexed.sort(key=self._indexed_key)
        big.sort(key=self._big_key)
        head = [*(sympy.Mul.make_args(number) if number != 1 else ()), *scalars]
        below = [*(sympy.Mul.make_args(below) if below != 1 else ()), *self._sorted_denominator(over)]
        tail = [*indexed, *big]
        short = all(f.is_number or f.as_base_exp()[0].is_Symbol for f in below)
        lonely = not head and len(tail) == 1 and isinstance(tail[0], (sympy.Indexed, sympy.Add))  # Q_ik/d, (a + b)/√2
        if short and not lonely:
            return " ".join(t for t in (self._over(head, below), self._joined(tail)) if t) or "1"
        return self._over([*head, *tail], below)

    def _sorted_denominator(self, over: sympy.Expr) -> list[sympy.Expr]:
        return sorted(sympy.Mul.make_args(over), key=self._any_key) if over != 1 else []

    def _over(self, above: Sequence[sympy.Expr], below: Sequence[sympy.Expr]) -> str:
        if not below:
            return self._joined(above)
        text = self._joined(below)
        return f"{self._joined(above) or 1}/{text if len(below) == 1 else f'({text})'}"

    def _joined(self, factors: Iterable[sympy.Expr]) -> str:
        return " ".join(f"({self._print(f)})" if f.is_Add else self._print(f) for f in factors)

    def _print_Pow(self, expr: sympy.Expr, rational: bool = False) -> str:
        base, exponent = expr.as_base_exp()
        if exponent.is_number and exponent.is_negative:
            return self._over([], [base**-exponent])
        if exponent == sympy.S.Half:
            return f"sqrt({self._print(base)})"
        below, above = self._print(base), self._print(exponent)
        below = f"({below})" if base.is_Add or base.is_Mul or base.is_Pow or isinstance(base, sympy.Sum) else below
        return f"{below}^{above if exponent.is_Integer or exponent.is_Symbol else f'({above})'}"

    def _print_Sum(self, expr: sympy.Sum) -> str:
        groups, body = self.sums(expr)
        heads = (
            f"Σ_{{{','.join(map(self._print, g))}={self._print(low)}}}^{self._print(high)}" for g, low, high in groups
        )
        return f"{' '.join(heads)} {self._joined([body])}"


class StarredIndex(sympy.Symbol):
    """The number of a teacher's unit, which prints with a star to tell it from a student's."""


def parenthesised(text: str) -> str:
    """Return a formula in brackets as tall as it is."""
    return rf"\left({text}\right)" if r"\frac" in text or r"\sum" in text else f"({text})"


def split_sign(expr: sympy.Expr) -> tuple[bool, sympy.Expr]:
    """Return whether an expression is a negative multiple, and the multiple made positive."""
    negative = bool(expr.as_coeff_Mul()[0].is_negative)
    return negative, -expr if negative else expr
