"""Sums inside expressions: finding them, taking them apart, and the symmetric double sum. Knows nothing of loops."""

import sympy

GATHERED = frozenset({"asin"})
"""Functions of one variable whose calls inside sums are evaluated together, in one loop."""


class SymmetricSum(sympy.Expr):
    """``Σ_{j,l} f(j, l)`` with f symmetric: its diagonal, and twice its lower triangle. ``args`` are f, j, l and the
    size."""

    is_commutative = True
    is_real = True

    @property
    def free_symbols(self) -> set[sympy.Basic]:
        """The symbols that are not summed over."""
        summand, first, second, size = self.args
        return (summand.free_symbols - {first, second}) | size.free_symbols


def outermost(expr: sympy.Sum) -> tuple[sympy.Symbol, sympy.Expr, sympy.Expr]:
    """Return the outermost index of a sum, its upper limit, and what is summed over it."""
    *inner, (index, _, size) = expr.limits  # innermost first
    return index, size, sympy.Sum(expr.function, *inner) if inner else expr.function


def outer_sums(expr: sympy.Expr) -> list[sympy.Expr]:
    """Return the sums in an expression that stand in no other sum."""
    if isinstance(expr, (sympy.Sum, SymmetricSum)):
        return [expr]
    return [] if isinstance(expr, sympy.Indexed) else list(dict.fromkeys(s for a in expr.args for s in outer_sums(a)))


def free_sums(expr: sympy.Expr, bound: set[sympy.Symbol]) -> list[sympy.Expr]:
    """Return the outermost sums in an expression that depend on none of these indices."""
    if isinstance(expr, (sympy.Sum, SymmetricSum)):
        if not expr.free_symbols & bound:
            return [expr]
        own = set(expr.args[1:3]) if isinstance(expr, SymmetricSum) else {limit[0] for limit in expr.limits}
        return free_sums(expr.args[0], bound | own)
    return [] if isinstance(expr, sympy.Indexed) else [s for a in expr.args for s in free_sums(a, bound)]


def calls(expr: sympy.Expr) -> list[sympy.Expr]:
    """Return the distinct calls of functions that are gathered."""
    return sorted((f for f in expr.atoms(sympy.Function) if f.func.__name__ in GATHERED), key=sympy.default_sort_key)


def extent(expr: sympy.Expr) -> sympy.Expr:
    """Return an upper bound on the number of terms of a sum."""
    if isinstance(expr, SymmetricSum):
        return expr.args[3] ** 2
    _, size, summand = outermost(expr)
    nested = outer_sums(summand)
    return size * (extent(nested[0]) if nested else 1)
