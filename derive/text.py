"""SymPy expressions to text and back, without ``eval``: what model files may contain is a closed list of names."""

import ast
from collections.abc import Callable
from typing import Any

import sympy

from .errors import ModelError, nearest

FUNCTIONS: dict[str, Any] = {
    name: getattr(sympy, name)
    for name in (
        *("erf", "erfc", "exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin", "acos", "atan"),
        *("Abs", "sign", "Heaviside", "Max", "Min", "Rational", "Piecewise", "LambertW"),
    )
}
CONSTANTS: dict[str, sympy.Expr] = {"pi": sympy.pi, "E": sympy.E, "True": sympy.true, "False": sympy.false}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: _power(a, b),
    ast.USub: lambda a: -a,
    ast.UAdd: lambda a: a,
}


def _power(base: Any, exponent: Any) -> Any:
    if getattr(base, "is_number", False) and getattr(exponent, "is_number", False) and abs(exponent) > 1000:
        raise ValueError("a power too large to be meant")  # 9**9**9 would be computed in full
    return base**exponent


def parse_expression(text: str, argument: str, symbols: dict[str, Any] | None = None) -> sympy.Expr:
    """Return the SymPy expression that ``text`` writes.

    Parameters
    ----------
    text : str
        A formula in Python's syntax, as SymPy prints it: numbers, names, ``+ - * / **``, calls of :data:`FUNCTIONS`,
        and ``name[1, 2]`` for the indexed names in ``symbols``.
    argument : str
        The argument it came from, for the error.
    symbols : dict, optional
        The names that may occur, and what they stand for. Without it every unknown name is a real symbol.

    Raises
    ------
    ModelError
        If the text is not such a formula.

    Examples
    --------
    >>> parse_expression("x**2/2 + erf(x)", "activation")
    x**2/2 + erf(x)
    """

    def build(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return build(body)
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return sympy.sympify(number)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](build(left), build(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](build(operand))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*map(build, args))
            case ast.Subscript(value=ast.Name(id=name), slice=index) if symbols and name in symbols:
                indices = index.elts if isinstance(index, ast.Tuple) else [index]
                return symbols[name][tuple(map(build, indices))]
            case ast.Name(id=name) if symbols is not None and name in symbols:
                return symbols[name]
            case ast.Name(id=name) if name in CONSTANTS:
                return CONSTANTS[name]
            case ast.Name(id=name) if symbols is None and name not in FUNCTIONS:
                return sympy.Symbol(name, real=True)
            case ast.Name(id=name):
                known = [*(symbols or {}), *CONSTANTS, *FUNCTIONS]
                raise ModelError(argument, text, f"{name!r} is not a name known here{nearest(name, known)}")
            case ast.Call(func=ast.Name(id=name)) if name not in FUNCTIONS:
                raise ModelError(argument, text, f"formulas with {', '.join(FUNCTIONS)}{nearest(name, FUNCTIONS)}")
        raise ModelError(argument, text, "a formula in Python's syntax, such as 'x**3 - 3*x' or 'erf(x/sqrt(2))'")

    try:
        return build(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, TypeError, ValueError, RecursionError, AttributeError, MemoryError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(argument, text, "a formula in Python's syntax, such as 'x**3 - 3*x'") from None
