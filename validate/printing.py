"""SymPy expressions as functions that run: kinks as branches, logistic functions without overflow."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
from sympy.codegen.cfunctions import log1p
from sympy.printing.pycode import PythonCodePrinter

from effdyn.derive.errors import ModelError
from effdyn.derive.user_function import user_functions

KINKED = (sympy.Max, sympy.Min, sympy.Abs, sympy.sign, sympy.Heaviside)
"""Functions that are printed as branches."""

OPTIONS = 'cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}'
# Not "nnan", "ninf": divergence is found by looking for what is not finite.


def runnable(expr: sympy.Expr) -> sympy.Expr:
    """Return the same function without overflow of intermediate results, its kinks as ``Piecewise``.

    Examples
    --------
    >>> x = sympy.Symbol("x", real=True)
    >>> runnable(sympy.Max(x, 0))
    Piecewise((0, x <= 0), (x, True))
    >>> runnable(1 / (1 + sympy.exp(x)))  # exp(-|x|) never overflows
    Piecewise((exp(-Abs(x))/(1 + exp(-Abs(x))), x > 0), (1/(1 + exp(-Abs(x))), True))
    """
    return _without_overflow(expr.rewrite(KINKED, sympy.Piecewise))


def _without_overflow(expr: sympy.Expr) -> sympy.Expr:
    one_plus = sympy.Wild("u")

    def softplus(argument: sympy.Expr) -> sympy.Expr:
        found = argument.match(1 + sympy.exp(one_plus))
        if found is None:
            return sympy.log(argument)
        u = found[one_plus]
        return sympy.Piecewise((u, u > 0), (0, True)) + log1p(sympy.exp(-sympy.Abs(u)))

    return _rational_in_exp(expr.replace(sympy.log, softplus))


def _rational_in_exp(expr: sympy.Expr) -> sympy.Expr:
    """Write f(e^u), where e^u stands in a denominator, as f(1/ε) or f(ε), ε = e^(−|u|) <= 1."""
    below = [power.base for power in expr.atoms(sympy.Pow) if power.exp.is_negative and power.base.has(sympy.exp)]
    if not below:
        return expr
    u = min((e.exp for base in below for e in base.atoms(sympy.exp)), key=sympy.default_sort_key)
    powers = {e: e.exp / u for e in expr.atoms(sympy.exp) if (e.exp / u).is_Integer}
    e = sympy.Symbol("epsilon", positive=True)
    large, small = (
        sympy.together(expr.xreplace({old: e ** (side * n) for old, n in powers.items()})) for side in (-1, 1)
    )
    bounded = sympy.exp(-sympy.Abs(u), evaluate=False)
    return sympy.Piecewise((large, u > 0), (small, True)).xreplace({e: bounded})


def print_function(
    name: str,
    arguments: Mapping[sympy.Basic, str],
    values: tuple[sympy.Expr, ...],
    origin: tuple[str, object],
    signature: tuple[str, ...] = (),
) -> str:
    """Return the text of a compiled function that returns the values of some expressions.

    Parameters
    ----------
    name : str
        Name of the function.
    arguments : mapping of Symbol or Indexed to str
        How each variable of the expressions is written in the function.
    values : tuple of Expr
        What it returns.
    origin : (str, object)
        The argument of the model that they come from and what was given, for the error.
    signature : tuple of str, optional
        The function's arguments, by default the names in ``arguments``.

    Raises
    ------
    ModelError
        If there is no code for one of the functions in it.
    """
    renamed = {variable: sympy.Symbol(text, real=True) for variable, text in arguments.items()}
    values = tuple(runnable(value.xreplace(renamed)) for value in values)
    shared, results = sympy.cse(values, symbols=sympy.numbered_symbols("c", real=True))
    printer = PythonCodePrinter({"fully_qualified_modules": True})
    try:
        lines = [f"    {symbol} = {printer.doprint(value)}" for symbol, value in shared]
        lines.append(f"    return {', '.join(f'1.0 * ({printer.doprint(value)})' for value in results)}")
    except NotImplementedError:
        unknown = {str(f.func) for value in values for f in value.atoms(sympy.Function) if not _prints(printer, f)}
        raise ModelError(
            *origin,
            f"a function that can be run, with its derivative; there is no code for {', '.join(sorted(unknown))}",
        ) from None
    return "\n".join([f"@njit({OPTIONS})", f"def {name}({', '.join(signature or arguments.values())}):", *lines])


def print_user_functions(*expressions: sympy.Basic) -> list[str]:
    """Return the texts of a user's functions in some expressions, which go before what calls them.

    Raises
    ------
    NotYet
        If one is a derivative that the user did not declare.
    """
    return [f"@njit({OPTIONS})\n{function.source()}" for function in user_functions(*expressions)]


def _prints(printer: PythonCodePrinter, function: sympy.Expr) -> bool:
    try:
        printer.doprint(function)
    except NotImplementedError:
        return False
    return True
