"""The source text of a user's function of one number: read from the function, and checked to be no more than that.

Generated code is self-contained, so a function goes into it as text. What the text may say is a closed language:
arithmetic, comparisons, local variables, loops over a range and the functions below. So it means the same here, under
Numba and in another process, and text from a model file can do nothing but compute. Knows nothing of SymPy.
"""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from .errors import Described, ModelError
from .parsing import parsed

_SHARED = "acosh asinh atanh cos cosh exp exp2 expm1 fabs floor ceil hypot copysign log log10 log1p log2"
_SHARED += " sin sinh sqrt tan tanh trunc"
MATH = frozenset(f"{_SHARED} acos asin atan atan2 pow erf erfc gamma lgamma degrees radians pi e inf".split())
"""What may be taken of ``math``."""
NUMPY = frozenset(
    f"{_SHARED} abs absolute arccos arcsin arctan arctan2 arccosh arcsinh arctanh cbrt fmax fmin fmod logaddexp "
    "maximum minimum power rint sign sinc square pi e inf".split()
)
"""What may be taken of NumPy: what Numba compiles for one number and returns as one."""
BUILTINS = ("abs", "float", "max", "min", "pow")
MODULES = {"math": MATH, "np": NUMPY, "numpy": NUMPY}
OPERATORS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod, ast.FloorDiv, ast.USub, ast.UAdd),
    *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.And, ast.Or, ast.Not),
)
LARGEST = 2**53
"""The largest whole number that a double holds."""
KINKED = frozenset(
    {"abs", "absolute", "fabs", "max", "min", "maximum", "minimum", "fmax", "fmin"}
    | {"sign", "copysign", "ceil", "floor", "trunc", "rint", "fmod"}
)
"""The functions that are not smooth."""
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.Compare, ast.BoolOp)
LANGUAGE = (
    "one def of one positional argument, which uses numbers, its own variables, choices, loops over range, "
    f"{', '.join(BUILTINS)}, and functions of math and np"
)


def source_of(function: Callable[[float], float], argument: str) -> str:
    """Return the source text of a function of one number, in canonical form: what changes nothing is left out of it.

    Raises
    ------
    ModelError
        If there is no source, or it says more than the language knows.
    """
    plain = getattr(function, "py_func", function)  # what Numba compiled
    name = getattr(plain, "__name__", type(plain).__name__)
    if not inspect.isfunction(plain) or hasattr(plain, "__wrapped__") or name == "<lambda>":
        accepted = "a function made with def: its source text goes into generated code"
        raise ModelError(argument, Described(f"the callable {name}"), accepted)
    try:
        text = textwrap.dedent(inspect.getsource(plain))
    except OSError:
        accepted = "a function whose source can be read: define it in a file or a notebook, or give the text itself"
        raise ModelError(argument, Described(f"the function {name}, without source text,"), accepted) from None
    return canonical(text, argument, decorated=plain is not function)


def sources_in(text: str, argument: str) -> tuple[str, ...]:
    """Return the canonical source of each function in a text of several."""
    lines = text.splitlines(keepends=True)
    starts = [
        min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
        for node in _parsed(text, argument).body
    ]
    parts = ("".join(lines[a:b]) for a, b in itertools.pairwise([*starts, len(lines)]))
    return tuple(canonical(part, argument) for part in parts)


def canonical(text: str, argument: str, decorated: bool = False) -> str:
    """Return the source text of one function as Python writes it, without types, decorators, docstring and comments.

    Examples
    --------
    >>> print(canonical("def g(x: float) -> float:  # softsign\\n    return x/(1+abs(x))", "activation"))
    def g(x):
        return x / (1.0 + abs(x))
    >>> canonical("def g(x):\\n    return c * x", "activation")
    Traceback (most recent call last):
      ...
    effdyn.derive.errors.ModelError: activation = the function g, which says 'c' in line 2, is not accepted: one def ...
    """
    try:
        return _canonical(text, argument, decorated)
    except RecursionError:
        given = Described(f"{text[:60]!r}, which is nested too deeply,")
        raise ModelError(argument, given, LANGUAGE) from None


def _canonical(text: str, argument: str, decorated: bool) -> str:
    body = _parsed(text, argument).body
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        raise ModelError(argument, Described(f"{text[:60]!r}"), LANGUAGE)
    definition = body[0]
    problem = _problem(definition, decorated)
    if problem is not None:
        said = ast.unparse(problem)[:60] if not isinstance(problem, ast.FunctionDef) else f"def {problem.name}"
        given = f"the function {definition.name}, which says {said!r} in line {getattr(problem, 'lineno', 1)},"
        raise ModelError(argument, Described(given), LANGUAGE + _hint(problem))
    definition.decorator_list, definition.returns, definition.type_comment = [], None, None
    (parameter,) = (*definition.args.posonlyargs, *definition.args.args)
    definition.args = ast.arguments([], [ast.arg(parameter.arg)], None, [], [], None, [])
    if ast.get_docstring(definition, clean=False) is not None:
        definition.body = definition.body[1:]
    loops = any(isinstance(node, ast.For) for node in ast.walk(definition))
    return ast.unparse(ast.fix_missing_locations(_Canonical(keep_integers=loops).visit(definition)))


class _Canonical(ast.NodeTransformer):
    """Writes ``numpy`` as ``np``, assignments plainly and without types, and 1 as 1.0: compiled integers overflow.

    Exponents stay, since x**2 is a product and x**2.0 is not; all do where there are loops, which count in integers.
    """

    def __init__(self, keep_integers: bool) -> None:
        self.keep_integers = keep_integers

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if self.keep_integers or not isinstance(node.value, int) or isinstance(node.value, bool):
            return node
        return ast.Constant(float(node.value))

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        right = _Canonical(keep_integers=True) if isinstance(node.op, ast.Pow) else self
        return ast.BinOp(self.visit(node.left), node.op, right.visit(node.right))

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("np", node.ctx) if node.id == "numpy" else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value is not None
        return self.visit(ast.Assign([node.target], node.value))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """Write y += 1 as y = y + 1: arrays would be changed in place, and with them those of other names."""
        assert isinstance(node.target, ast.Name)
        return self.visit(
            ast.Assign([node.target], ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value))
        )


def _parsed(text: str, argument: str) -> ast.Module:
    try:
        return parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        given = Described(f"{text[:60]!r}, where Python finds {type(error).__name__}: {error},")
        raise ModelError(argument, given, LANGUAGE) from None


def _problem(definition: ast.FunctionDef, decorated: bool) -> ast.AST | None:
    """Return the first part of a definition that the language does not know."""
    signature = definition.args
    if len(signature.posonlyargs) + len(signature.args) != 1 or signature.vararg or signature.kwonlyargs:
        return definition
    if signature.kwarg or signature.defaults or (definition.decorator_list and not decorated):
        return definition
    if not any(isinstance(node, ast.Return) for node in ast.walk(definition)):
        return definition
    local = {(*signature.posonlyargs, *signature.args)[0].arg}
    local |= {n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if taken := local & {*MODULES, *BUILTINS, "range", definition.name}:
        return next((n for n in ast.walk(definition) if isinstance(n, ast.Name) and n.id in taken), definition)
    return next((p for statement in definition.body for p in _problems(statement, local)), None)


def _problems(node: ast.AST, local: set[str]) -> Iterator[ast.AST]:
    """Yield what the language does not know in a statement or an expression."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())) | ast.Pass() | ast.Break() | ast.Continue() | ast.expr_context():
            return
        case ast.Constant(value=int() | float() as number) if abs(number) <= LARGEST or isinstance(number, float):
            return
        case ast.operator() | ast.unaryop() | ast.boolop() | ast.cmpop():
            if not isinstance(node, OPERATORS):
                yield node
        case ast.Name(id=name):
            if name not in local:
                yield node
        case ast.Attribute(value=ast.Name(id=module), attr=name, ctx=ast.Load()) if name in MODULES.get(module, ()):
            return
        case ast.Call(func=function, args=args, keywords=[]):
            if not (isinstance(function, ast.Name) and function.id in BUILTINS):
                yield from _problems(function, set())
            yield from (p for part in args for p in _problems(part, local))
        case ast.For(target=ast.Name(), iter=ast.Call(func=ast.Name(id="range"), args=args, keywords=[]), orelse=[]):
            yield from (p for part in (*args, *node.body) for p in _problems(part, local))
        case ast.AnnAssign(target=ast.Name(), value=ast.expr() as value):
            yield from _problems(value, local)
        case ast.AugAssign(target=ast.Name()) | ast.Assign() | ast.Return(value=ast.expr()) | ast.If():
            yield from (p for part in ast.iter_child_nodes(node) for p in _problems(part, local))
        case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.Compare() | ast.IfExp() | ast.Tuple():
            yield from (p for part in ast.iter_child_nodes(node) for p in _problems(part, local))
        case _:
            yield node


def _hint(problem: ast.AST) -> str:
    """Return what to write instead, where that is known."""
    match problem:
        case ast.Attribute(attr="where" | "heaviside" | "select" | "piecewise"):
            return "; a choice is written as 'a if condition else b'"
        case ast.Attribute(attr="clip"):
            return "; write min(max(x, low), high)"
        case ast.Attribute(value=ast.Name(id="math" | "np" | "numpy")):
            return f"; of these it knows {', '.join(sorted(MATH | NUMPY))}"
        case ast.Name(id=name) if name in MATH | NUMPY:
            return f"; write {'math' if name in MATH else 'np'}.{name}"
        case ast.Name():
            return "; write the value of a constant into the function"
        case ast.FunctionDef():
            return "; no defaults, no decorators, and a value returned"
    return ""


def may_have_kinks(source: str) -> bool:
    """Return whether a function contains what could make kinks: a choice, an absolute value, a rounding."""
    nodes = list(ast.walk(parsed(source)))
    names = {
        n.attr if isinstance(n, ast.Attribute) else n.id for n in nodes if isinstance(n, (ast.Attribute, ast.Name))
    }
    return any(isinstance(n, (*BRANCHES, ast.Mod, ast.FloorDiv)) for n in nodes) or not names.isdisjoint(KINKED)


def renamed(source: str, name: str) -> str:
    """Return the source text of a function under another name."""
    return f"def {name}({source.partition('(')[2]}"


def title(source: str) -> str:
    """Return the name of the function that a source text defines."""
    return source.removeprefix("def ").partition("(")[0]


# --- its values -------------------------------------------------------------------------------------------------------


def values_of(source: str) -> Callable[[Any], Any]:
    """Return a function of an array or a float that computes as compiled code does: 1/0 is infinite, log(−1) NaN.

    Examples
    --------
    >>> softplus = values_of("def f(x):\\n    return math.log1p(math.exp(-abs(x))) + max(x, 0)")
    >>> softplus([-1000.0, 0.0]).round(3).tolist()
    [0.0, 0.693]
    """
    import numpy as np

    spaces: dict[str, Any] = {"math": _ieee_math(), "np": np}
    exec(compile(source, f"<{title(source)}>", "exec"), spaces)  # in the closed language: it has been checked
    function = spaces[title(source)]
    tree = parsed(source)
    one_by_one = any(isinstance(n, BRANCHES) for n in ast.walk(tree)) or any(
        isinstance(n, ast.Name) and n.id in ("max", "min", "float") for n in ast.walk(tree)
    )
    call = np.vectorize(function, otypes=[float]) if one_by_one else function

    def values(x: Any) -> Any:
        with np.errstate(all="ignore"):  # what is not finite is looked into where it matters
            if isinstance(x, float):
                return float(function(np.float64(x)))
            x = np.asarray(x, float)
            return np.broadcast_to(np.asarray(call(x if x.ndim else x[()]), dtype=np.float64), x.shape)

    return values


def _ieee_math() -> SimpleNamespace:
    """Return what stands for ``math``, as functions of arrays that return what is not finite instead of raising."""
    import numpy as np
    import scipy.special

    other = {"erf": scipy.special.erf, "erfc": scipy.special.erfc, "gamma": scipy.special.gamma}
    other |= {"lgamma": scipy.special.gammaln, "pow": np.power, "atan2": np.arctan2}
    other |= {"acos": np.arccos, "asin": np.arcsin, "atan": np.arctan}
    other |= {"acosh": np.arccosh, "asinh": np.arcsinh, "atanh": np.arctanh}
    return SimpleNamespace(**{name: other[name] if name in other else getattr(np, name) for name in MATH})
