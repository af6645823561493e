"""Straight-line code for small systems: a generated kernel, evaluated in advance for given numbers of units.

The loops of a kernel run over units. Where their numbers are known so is all arithmetic with indices, and which
elements of the workspace hold the same value: what remains is a list of operations on the elements of ``y`` and
``par``, each there once. They are those of the rolled kernel, so both agree to rounding (LLVM may add in another
order).

Knows only the Python that kernels are written in. There is no straight-line form of a kernel in which computed numbers
decide what is executed, or that hands whole arrays to functions (numerical rules do), and none that is worth it of long
ones.
"""

import ast
import operator
from collections.abc import Callable, Sequence

from effdyn.derive.parsing import parsed

from .tape import Computed, Number, Tape, TooLong, Value, Writer

LONGEST = 1500
"""The most operations that a kernel is unrolled to. Each takes the compiler 1.1 ms, so that these take it no longer
than the loops (1.5 s), and gain a factor of nearly two still."""
RECORDED = 2
"""How many times as many are looked at before some prove to be unused."""
MAY_BE_COMPUTED = ("y", "par", "work")

OPERATORS: dict[type[ast.AST], tuple[str, Callable[..., Number]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Pow: ("**", operator.pow),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}


class Rolled(Exception):
    """A kernel has something that straight-line code cannot express."""


def unrolled(source: str, sizes: Sequence[int], longest: int = LONGEST) -> tuple[str, int] | None:
    """Return the source of a kernel for these sizes alone, and how much workspace it takes.

    Parameters
    ----------
    source : str
        Of a kernel for all sizes, as :func:`effdyn.solve.kernels.kernel.generate` returns it.
    sizes : sequence of int
        The numbers that ``par`` begins with.
    longest : int
        The most operations that it may have.

    Returns
    -------
    (str, int) or None
        ``None`` where there is no straight-line form or it has more operations.
    """
    try:
        tape, values = recorded(source, sizes, RECORDED * longest)
    except (Rolled, TooLong):
        return None
    if len(tape.used(values)) > longest:
        return None
    writer = Writer(tape, {f"out[{n}]": value for n, value in enumerate(values)})
    head, signature, body = source.partition("def kernel(t, y, out, par, work):\n")
    comments = [line.strip() for line in body.splitlines() if line.strip().startswith("# ")]
    lines = [f"# for {', '.join(map(str, sizes))}: the sizes that par begins with", *comments, *writer.lines]
    return head + signature + "".join(f"    {line}\n" for line in lines), writer.buffer


def recorded(
    source: str, sizes: Sequence[int], longest: int = RECORDED * LONGEST, timed: bool = False
) -> tuple[Tape, list[Value]]:
    """Return the operations that a kernel makes at these sizes, and which of them it writes to ``out``, in order.

    If ``timed`` the time is one, named ``t``; else there is no straight-line form of what depends on it.

    Raises
    ------
    Rolled
        If it holds what has no straight-line form.
    TooLong
        If there are more operations than ``longest``.
    """
    evaluation = _Evaluation(sizes, longest, timed)
    evaluation.run(_body(source))
    written = evaluation.arrays["out"]
    return evaluation.tape, [written[n] for n in range(len(written))]


def _body(source: str) -> list[ast.stmt]:
    functions = [node for node in parsed(source).body if isinstance(node, ast.FunctionDef)]
    return next(f.body for f in functions if f.name == "kernel")


class _Evaluation:
    """Executes the statements of a kernel on numbers of which only the sizes are known."""

    def __init__(self, sizes: Sequence[int], longest: int, timed: bool) -> None:
        self.tape = Tape(longest)
        self.names: dict[str, Value] = {"t": self.tape.record("t")} if timed else {}
        self.arrays: dict[str, dict[int, Value]] = {"work": {}, "out": {}, "y": {}, "par": dict(enumerate(sizes))}

    def run(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Assign(targets=targets, value=expression):
                    value = self.value(expression)
                    for target in targets:
                        self._assign(target, value)
                case ast.AugAssign(target=target, op=op, value=expression):
                    self._assign(
                        target, self._combine(*OPERATORS[type(op)], self.value(target), self.value(expression))
                    )
                case ast.For(target=ast.Name(id=index), iter=ast.Call(func=ast.Name(id="range"), args=bounds)):
                    for n in range(*map(self._integer, bounds)):
                        self.names[index] = n
                        self.run(statement.body)
                case _:
                    raise Rolled(ast.unparse(statement))

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.Subscript(value=ast.Name(id=array), slice=index) if array in MAY_BE_COMPUTED:
                return self._element(array, self._integer(index))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return self._combine(*OPERATORS[type(op)], self.value(left), self.value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
                return self._combine(*OPERATORS[type(op)], self.value(left), self.value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.value(operand)
                return self.tape.record("negative", value) if isinstance(value, Computed) else -value
            case ast.IfExp(test=test, body=body, orelse=other):
                condition = self.value(test)
                if not isinstance(condition, Computed):
                    return self.value(body if condition else other)
                return self.tape.record("if", condition, self.value(body), self.value(other))
            case ast.Call(func=function, args=arguments, keywords=[]):
                return self._call(ast.unparse(function), [self.value(a) for a in arguments])
        raise Rolled(ast.unparse(node))

    def _assign(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Subscript(value=ast.Name(id="work" | "out" as array), slice=index):
                self.arrays[array][self._integer(index)] = value
            case _:
                raise Rolled(ast.unparse(target))

    def _element(self, array: str, index: int) -> Value:
        """Return an element. One of the workspace that was not written is rounding up: nothing comes of it."""
        known = self.arrays[array]
        return known[index] if index in known else self.tape.record(array, index)

    def _integer(self, node: ast.expr) -> int:
        value = self.value(node)
        if not isinstance(value, int):
            raise Rolled(ast.unparse(node))
        return value

    def _call(self, function: str, arguments: list[Value]) -> Value:
        if function == "int" and isinstance(arguments[0], int):
            return arguments[0]
        return self.tape.record(function, *arguments)

    def _combine(self, name: str, calculate: Callable[..., Number], left: Value, right: Value) -> Value:
        try:
            value = self.tape.combine(name, calculate, left, right)
        except ArithmeticError as error:  # left to the compiled code, where it gives infinity or NaN
            raise Rolled(name) from error
        if isinstance(value, complex):
            raise Rolled(name)
        return value
