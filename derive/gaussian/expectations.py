"""The Gaussian expectation of any expression, in closed form where there is one: ``derive.expectation``.

Each distinct affine combination of the fields under a function becomes a field of its own; what is left is a sum of
products of functions of one field each, which is what the rules take.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from ..activation import X
from ..errors import ModelError, NoClosedForm
from .certificate import Certificate, certify
from .closed_forms import real_parameters, reduce_or_say_why
from .integrand import Integrand
from .precise import precise_value
from .split_fields import Product, split

Covariance = Mapping[tuple[sympy.Symbol, sympy.Symbol], Any]
Law = tuple[tuple[sympy.Symbol, ...], tuple[tuple[sympy.Expr, ...], ...], tuple[sympy.Expr, ...]]


@dataclass(frozen=True, slots=True, repr=False)
class Expectation:
    """A Gaussian expectation.

    Attributes
    ----------
    integrand : Expr
        What was averaged.
    form : Expr or None
        The closed form, in the symbols that were given as covariances and means; where all were given as numbers, in
        C_uv and m_u. None where there is none.
    value : float or None
        Its value, if all covariances and means are numbers and there are no parameters.
    error : float or None
        Of the value: rounding of a closed form, or as the numerical rule estimates it.
    exact : bool
        Whether there is a closed form.
    certificate : tuple of Certificate
        The comparisons with numerical integrals, one for each product of functions; computed when asked for.
    """

    integrand: sympy.Expr
    form: sympy.Expr | None
    value: float | None
    error: float | None
    exact: bool
    products: tuple[Product, ...] = ()
    shifted: bool = False

    @property
    def certificate(self) -> tuple[Certificate, ...]:
        """The comparisons of the closed form with numerical integrals."""
        if not self.exact:
            return ()
        signatures = {tuple(sympy.Lambda(X, f) for _, f in p.factors): None for p in self.products if p.factors}
        return tuple(certify(signature, self.shifted) for signature in signatures)

    def __float__(self) -> float:
        if self.value is None:
            raise TypeError(f"{self} has no value before its symbols have numbers: use .form")
        return self.value

    def __repr__(self) -> str:
        if self.value is None:
            return f"E[{self.integrand}] = {self.form}"
        if self.exact:
            return f"E[{self.integrand}] = {self.value!r} (closed form)"
        return f"E[{self.integrand}] = {self.value!r} ± {self.error:.1e} (numerical)"

    def _repr_latex_(self) -> str:
        left = rf"\mathbb{{E}}\left[{sympy.latex(self.integrand)}\right]"
        parts = [left] + ([sympy.latex(self.form)] if self.form is not None else [])
        if self.value is not None:
            doubt = "" if self.exact else rf" \pm {sympy.latex(sympy.Float(self.error, 2))}"
            parts.append(f"{self.value:.10g}{doubt}")
        return f"$\\displaystyle {' = '.join(dict.fromkeys(parts))}$"


def expectation(
    expr: sympy.Expr, covariance: Covariance, mean: Mapping[sympy.Symbol, Any] | None = None, *, rtol: float = 1e-8
) -> Expectation:
    """Return the expectation of an expression of jointly Gaussian fields.

    Parameters
    ----------
    expr : sympy.Expr
        Of the fields; other symbols are real parameters.
    covariance : mapping of pairs of Symbol to number or Expr
        Every pair of fields once, (u, v) or (v, u).
    mean : mapping of Symbol to number or Expr, optional
        Fields that are not in it are centred.
    rtol : float, optional
        How accurate a value without closed form should be.

    Raises
    ------
    ModelError
        If the covariance is incomplete, contradictory or no covariance, or if the expression has no expectation.
    NoClosedForm
        If there is none, and the covariance is not given in numbers.

    Examples
    --------
    >>> u, v = sympy.symbols("u v", real=True)
    >>> expectation(sympy.Max(u, 0) * sympy.Max(v, 0), {(u, u): 1, (u, v): 1, (v, v): 1})
    E[Max(0, u)*Max(0, v)] = 0.5 (closed form)
    >>> c = sympy.Symbol("c", positive=True)
    >>> expectation(sympy.cos(u), {(u, u): c}).form
    exp(-c/2)
    """
    expr = _checked(expr, covariance, mean, rtol)
    fields, C, m = _law(expr, covariance, mean or {})
    expr = real_parameters(expr).xreplace({s: _real_symbol(s) for s in fields})
    names = tuple(map(_real_symbol, fields))
    symbols, numbers = _symbols(names, C, m)
    parameters = expr.free_symbols - set(names)
    numeric = not parameters and all(entry.is_number for entry in (*itertools.chain(*C), *m))
    _check_covariance(C, covariance)
    if expr.has(sympy.I):
        raise ModelError(
            "expr", expr, "a real expression: Gaussian expectations of complex ones are those of its parts"
        )
    try:
        products = split(expr, names)
        form = sympy.Add(*(_form(p, names, *symbols) for p in products))
    except NoClosedForm as error:
        if not numeric:
            raise
        return _numerically(expr, names, C, m, rtol, error)
    if not numeric:
        return Expectation(expr, form.xreplace(numbers), None, None, True, products, any(mean != 0 for mean in m))
    value = precise_value(form, numbers)
    if value is None:
        raise ModelError(
            "covariance", dict(covariance), "one at which this expectation is finite: fields that coincide make it 0/0"
        )
    return Expectation(expr, form, value, abs(value) * 2.0**-52, True, products, any(mean != 0 for mean in m))


def _checked(expr: Any, covariance: Any, mean: Any, rtol: Any) -> sympy.Expr:
    """Return the expression, having checked what kind of things the arguments are."""
    if not isinstance(expr, (sympy.Expr, int, float)):
        raise ModelError("expr", expr, "a SymPy expression of the fields, such as sympy.Max(u, 0)*v")
    expr = sympy.sympify(expr)
    if expr.has(sympy.Mod):
        raise ModelError("expr", expr, "one without Mod; u mod 1 is u - floor(u)")
    for argument, given in (("covariance", covariance), ("mean", mean or {})):
        fields = (
            [s for key in given for s in (key if argument == "covariance" else (key,))]
            if hasattr(given, "items")
            else [None]
        )
        if not all(isinstance(s, sympy.Symbol) for s in fields):
            example = "{(u, u): 1.2, (u, v): 0.3, (v, v): 0.8}" if argument == "covariance" else "{u: 0.5}"
            raise ModelError(argument, given, f"a dict by SymPy symbols, such as {example}")
    if not (isinstance(rtol, (int, float)) and 1e-15 <= rtol < 1):
        raise ModelError("rtol", rtol, "a number between 1e-15 and 1")
    return expr


def _numerically(
    expr: sympy.Expr, names: tuple[sympy.Symbol, ...], C: Any, m: Any, rtol: float, reason: NoClosedForm
) -> Expectation:
    import numpy as np

    from ..numerical.adaptive import numerical_expectation

    value, error = numerical_expectation(expr, names, np.array(C, float), np.array(m, float), rtol=rtol)
    return Expectation(expr, None, float(value), float(error), False)


def _real_symbol(s: sympy.Symbol) -> sympy.Symbol:
    return s if s.is_real else sympy.Symbol(s.name, real=True)


def _law(expr: sympy.Expr, covariance: Covariance, mean: Mapping[sympy.Symbol, Any]) -> Law:
    fields = tuple(dict.fromkeys(s for pair in covariance for s in pair))
    for pair, entry in covariance.items():
        if pair[::-1] in covariance and sympy.sympify(covariance[pair[::-1]]) != sympy.sympify(entry):
            raise ModelError("covariance", dict(covariance), f"a symmetric one; {pair} and {pair[::-1]} differ")
    if not fields:
        raise ModelError("covariance", covariance, "the covariance of at least one field")
    if stray := [s for s in fields if s not in expr.free_symbols and (s, s) not in covariance]:
        raise ModelError("covariance", dict(covariance), f"pairs of fields of {expr}; {stray[0]} is none")
    if unknown := [s for s in mean if s not in fields]:
        raise ModelError("mean", dict(mean), f"means of {', '.join(map(str, fields))}; {unknown[0]} has no variance")
    missing = [
        (a, b)
        for a, b in itertools.combinations_with_replacement(fields, 2)
        if (a, b) not in covariance and (b, a) not in covariance
    ]
    if missing:
        raise ModelError("covariance", dict(covariance), f"every pair of fields; {missing[0]} is missing")

    def given(a: sympy.Symbol, b: sympy.Symbol) -> sympy.Expr:
        return sympy.sympify(covariance[(a, b) if (a, b) in covariance else (b, a)])

    return (
        fields,
        tuple(tuple(given(a, b) for b in fields) for a in fields),
        tuple(sympy.sympify(mean.get(a, 0)) for a in fields),
    )


def _symbols(
    names: tuple[sympy.Symbol, ...], C: Any, m: Any
) -> tuple[tuple[tuple[tuple[sympy.Expr, ...], ...], tuple[sympy.Expr, ...]], dict[sympy.Symbol, float]]:
    """Return the law with C_uv and m_u for numbers, and what these are."""
    numbers: dict[sympy.Symbol, float] = {}

    def named(name: str, entry: sympy.Expr) -> sympy.Expr:
        if not entry.is_number or entry == 0:
            return entry
        symbol = sympy.Symbol(name, real=True)
        numbers[symbol] = entry
        return symbol

    size = range(len(names))
    matrix = tuple(tuple(named(f"C_{names[min(a, b)]}{names[max(a, b)]}", C[a][b]) for b in size) for a in size)
    return (matrix, tuple(named(f"m_{a}", entry) for a, entry in zip(names, m, strict=True))), numbers


def _check_covariance(C: Any, given: Covariance) -> None:
    """Raise if numbers, or the numbers among symbols, are no covariance."""
    import numpy as np

    for entry in itertools.chain(*C):
        if entry.is_number and not (entry.is_real and entry.is_finite):
            raise ModelError("covariance", dict(given), f"real, finite numbers; {entry} is none")
    if all(entry.is_number for entry in itertools.chain(*C)):
        matrix = np.array(C, float)
        lowest = float(np.linalg.eigvalsh(matrix).min())
        if lowest < -1e-12 * max(1e-300, float(np.trace(matrix))):
            raise ModelError(
                "covariance", dict(given), f"positive semidefinite; its smallest eigenvalue is {lowest:.3g}"
            )
        if zero := [a for a in range(len(C)) if C[a][a] == 0]:
            raise ModelError("covariance", dict(given), f"positive variances; that of field {zero[0] + 1} is zero")


def _form(product: Product, names: tuple[sympy.Symbol, ...], C: Any, m: Any) -> sympy.Expr:
    """Return the closed form of one product under the law of its fields."""
    position = {a: n for n, a in enumerate(names)}
    law = Integrand((), C, m)
    lines = list(dict.fromkeys(line for line, _ in product.factors))
    for line in lines:
        law = law.with_field({position[a]: w for a, w in line}, sympy.S.Zero, sympy.S.One)
    factors = tuple((len(names) + lines.index(line), f) for line, f in product.factors)
    return product.weight * reduce_or_say_why(Integrand(factors, law.C, law.m), "expr")
