"""Functions with kinks and jumps as source text: choices between values that are all computed, never branches.

A comparison with NaN is false, so that a plain choice would replace NaN by a number: these pass it on.
"""

from collections.abc import Callable

import sympy

SIGN = '''
@njit(error_model="numpy", forceinline=True)
def sign(x):
    """−1, 0 or 1; NaN of NaN."""
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else x)
'''

LARGER = '''
@njit(error_model="numpy", forceinline=True)
def larger(x, y):
    """The larger of two numbers; NaN if either is."""
    return x if x > y else (y if y >= x else x + y)
'''

SMALLER = '''
@njit(error_model="numpy", forceinline=True)
def smaller(x, y):
    """The smaller of two numbers; NaN if either is."""
    return x if x < y else (y if y <= x else x + y)
'''

KINK_SOURCES: dict[str, str] = {"sign": SIGN, "larger": LARGER, "smaller": SMALLER}
"""Source texts, by name."""


class Choice(sympy.Expr):
    """The first value whose condition holds: ``args`` are value, condition, value, condition, …

    It is a ``Piecewise`` that SymPy leaves where it is: that one is taken out of products and, wrongly, out of sums
    over an index on which its conditions depend.
    """

    is_commutative = True
    is_real = True

    @classmethod
    def of(cls, piecewise: sympy.Piecewise) -> "Choice":
        """Return the same choice."""
        return cls(*(part for piece in piecewise.args for part in piece.args))


RELATIONS: dict[type, str] = {
    sympy.StrictGreaterThan: ">",
    sympy.GreaterThan: ">=",
    sympy.StrictLessThan: "<",
    sympy.LessThan: "<=",
    sympy.Equality: "==",
    sympy.Unequality: "!=",
}
"""Comparisons as Python writes them."""


def kink_text(expr: sympy.Expr, code: Callable[[sympy.Expr], str], use: Callable[[str], str]) -> str | None:
    """Return the text of a function with kinks, ``None`` for any other.

    Parameters
    ----------
    expr : sympy.Expr
        The call.
    code : callable
        Gives the text of an operand's value, a name or a number.
    use : callable
        Takes note that a source text is needed, and returns its name.
    """
    if isinstance(expr, sympy.sign):
        return f"{use('sign')}({code(expr.args[0])})"
    if isinstance(expr, sympy.Heaviside):
        return f"(0.5 + 0.5*{use('sign')}({code(expr.args[0])}))"
    if isinstance(expr, (sympy.Max, sympy.Min)):
        function = use("larger" if isinstance(expr, sympy.Max) else "smaller")
        first, *rest = map(code, sorted(expr.args, key=sympy.default_sort_key))
        for operand in rest:
            first = f"{function}({first}, {operand})"
        return first
    if isinstance(expr, sympy.Piecewise):
        return _choice(Choice.of(expr), code)
    return _choice(expr, code) if isinstance(expr, Choice) else None


def _choice(expr: Choice, code: Callable[[sympy.Expr], str]) -> str:
    pieces = [(code(v), condition) for v, condition in zip(expr.args[::2], expr.args[1::2], strict=True)]
    text = "math.nan"
    for value, condition in reversed(pieces):
        text = value if condition == sympy.true else f"({value} if {_condition(condition, code)} else {text})"
    return text


def _condition(condition: sympy.Basic, code: Callable[[sympy.Expr], str]) -> str:
    if isinstance(condition, (sympy.And, sympy.Or)):
        word = " and " if isinstance(condition, sympy.And) else " or "
        return f"({word.join(_condition(c, code) for c in sorted(condition.args, key=sympy.default_sort_key))})"
    if isinstance(condition, sympy.Not):
        return f"(not {_condition(condition.args[0], code)})"
    if type(condition) not in RELATIONS:
        raise ValueError(f"the condition {condition} cannot be compiled: kernels know comparisons, and, or, not")
    left, right = condition.args
    return f"({code(left)} {RELATIONS[type(condition)]} {code(right)})"
