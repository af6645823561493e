"""SymPy expressions to text and back, without ``eval``: what model files may contain is a closed list of names."""

import ast
import difflib
from collections.abc import Callable, Iterable
from typing import Any

import sympy

from .errors import ModelError
from .parsing import parsed_expression

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


OTHER_NAMES = {
    **{"ln": "log(…)", "pow": "x**2", "power": "x**2", "e": "E", "theta": "Heaviside(…)", "step": "Heaviside(…)"},
    **{f"arc{name}": f"a{name}(…)" for name in ("sin", "cos", "tan")},
    **{"maximum": "Max(…)", "minimum": "Min(…)", "sgn": "sign(…)", "lambertw": "LambertW(…)"},
    **{"sigmoid": "1/(1 + exp(-x))", "logistic": "1/(1 + exp(-x))", "softplus": "log(1 + exp(x))"},
    **{"silu": "x/(1 + exp(-x))", "swish": "x/(1 + exp(-x))", "gelu": "x*erfc(-x/sqrt(2))/2"},
    **{"elu": "Max(x, 0) + exp(Min(x, 0)) - 1", "softsign": "x/(1 + Abs(x))", "arctan2": "atan(…)"},
    **{"leaky_relu": "Max(x, x/10)", "leakyrelu": "Max(x, x/10)", "identity": "x", "quadratic": "x**2"},
    **{"selu": "1.05070098735548*Max(x, 0) + 1.75809934084738*(exp(Min(x, 0)) - 1)", "hardtanh": "Max(-1, Min(x, 1))"},
}
"""How what goes by these names elsewhere is written here."""
NAMES = {"relu": "Max(x, 0)", "square": "x**2", "linear": "x"}
"""Names of activations, as they are written inside a formula."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"``: another spelling, the formula of a known function, or a name so close to
    ``name`` that it cannot be another one; or the empty string.

    Examples
    --------
    >>> suggestion("ReLU", ["relu", "tanh"]), suggestion("sigmoid", ["sign"]), suggestion("foo", ["floor"])
    (", did you mean 'relu'?", ", did you mean '1/(1 + exp(-x))'?", '')
    """
    known = [k for k in known if k != name]
    close = [k for k in known if k.lower() == name.lower()]
    if not close and name.lower() in OTHER_NAMES:
        close = [OTHER_NAMES[name.lower()]]
    if not close:
        close = [k for k in known if len(k) > 2 and sorted(k) == sorted(name.lower())]  # efr is erf
    if not close and len(name) > 1:
        likeness = 0.75 if len(name) > 3 else 0.85  # tahn is tanh; phi is not pi
        close = difflib.get_close_matches(name, [k for k in known if len(k) > 1], n=1, cutoff=likeness)
    return f", did you mean {close[0]!r}?" if close else ""


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
            case ast.Name(id=name) if name in FUNCTIONS:
                raise ModelError(argument, text, f"a formula; {name} is a function: write {name}(…)")
            case ast.Name(id=name):
                known = suggestion(name, [*(symbols or {}), *CONSTANTS])
                raise ModelError(
                    argument, text, f"a formula in {_listed(symbols)}; {name!r} is not a name known here{known}"
                )
            case ast.Call(func=ast.Name(id=name)) if name in (*CONSTANTS, *(symbols or {})) or len(name) == 1:
                raise ModelError(argument, text, f"a formula; {name} is no function: a product is written {name}*(…)")
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in NAMES:
                raise ModelError(argument, text, f"a formula; {name}(x) is written {NAMES[name]}")
            case ast.Call(func=ast.Name(id=name)) if name not in FUNCTIONS:
                known = suggestion(name, FUNCTIONS)
                raise ModelError(
                    argument, text, f"formulas with {', '.join(FUNCTIONS)}; {name} is not among them{known}"
                )
            case ast.BinOp(op=ast.BitXor()):
                raise ModelError(argument, text, "a formula in Python's syntax, where powers are written x**2")
        raise ModelError(argument, text, "a formula in Python's syntax, such as 'x**3 - 3*x' or 'erf(x/sqrt(2))'")

    try:
        return build(parsed_expression(text.strip()))
    except (SyntaxError, TypeError, ValueError, RecursionError, AttributeError, MemoryError) as error:
        if isinstance(error, ModelError):
            raise
        reason = f"; Python says: {error}" if isinstance(error, TypeError) else ""
        raise ModelError(argument, text, f"a formula in Python's syntax, such as 'x**3 - 3*x'{reason}") from None


def _listed(symbols: dict[str, Any] | None) -> str:
    """Return the names that a formula may contain, the first few of many."""
    names = list(symbols or {})
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "numbers"
