"""The derivative of a small system along sixteen directions at once.

The straight-line operations of a drift, which are those of its closed forms, are differentiated one by one. What does
not depend on the direction is computed once; the linear rest stands in a loop over lanes, one direction in each, which
LLVM vectorises. Knows nothing of what the equations are.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from effdyn.derive import Dynamics

from .kernels.cache import load_generated
from .kernels.kernel import loops_source
from .kernels.tape import Computed, Operation, Tape, TooLong, Value, Writer
from .kernels.unroll import LONGEST, Rolled, recorded

LANES = 16
ROOM = 5
"""How many operations of the derivatives there may be for each of the drift; about three are usual."""


class NotSmooth(Exception):
    """An operation has no derivative here."""


@lru_cache(maxsize=64)
def derivatives_address(dynamics: Dynamics, sizes: tuple[int, ...]) -> int:
    """Return the address of the compiled derivatives for these numbers of units; 0 if the system is not a small one.

    The function is called as kernels are. ``y`` holds the n states, then the directions, element i of that in lane l as
    number ``n + 16 i + l``; ``out`` the derivatives, element i along the direction in lane l as number ``16 i + l``;
    ``work`` has room for :data:`effdyn.solve.kernels.unroll.LONGEST` numbers.
    """
    source = derivatives_source(loops_source(dynamics), sizes)
    if source is None:
        return 0
    address: int = load_generated("derivatives", source).kernel.address
    return address


def derivatives_source(source: str, sizes: Sequence[int]) -> str | None:
    """Return the source of the derivatives of a kernel for these sizes; ``None`` if it is long or not smooth."""
    try:
        tape, results = recorded(source, sizes)
        if len(tape.used(results)) > LONGEST:
            return None
        tangents = Tangents(tape, results)
    except (Rolled, TooLong, NotSmooth):
        return None
    n = len(results)
    targets = {f"out[{LANES * i} + l]": tangents.of(value) for i, value in enumerate(results)}
    linear = [_in_lane(line, n) for line in Writer(tangents.lanes, targets).lines]
    taken = sorted({int(found) for line in linear for found in re.findall(r"\bs(\d+)\b", line)})
    shared = Writer(tangents.tape, {f"s{position}": Computed(position) for position in taken}).lines
    head, signature, _ = source.partition("def kernel(t, y, out, par, work):\n")
    comment = f"# for {', '.join(map(str, sizes))}: the drift's derivatives along {LANES} directions"
    lines = [comment, *shared, f"for l in range({LANES}):", *(f"    {line}" for line in linear)]
    return head + signature + "".join(f"    {line}\n" for line in lines)


def _in_lane(line: str, n: int) -> str:
    """Return a line with its elements of ``y`` as those of a direction in lane l, and of ``par`` as shared numbers."""
    line = re.sub(r"\by\[(\d+)\]", lambda found: f"y[{n + LANES * int(found[1])} + l]", line)
    return re.sub(r"\bpar\[(\d+)\]", r"s\1", line)


class Tangents:
    """The derivative of each operation on a tape along a direction.

    Attributes
    ----------
    tape : Tape
        What is differentiated; slopes are added to it.
    lanes : Tape
        The derivatives: its ``y`` are the elements of a direction, its ``par`` the values of operations of ``tape``.
    """

    def __init__(self, tape: Tape, results: Sequence[Value]) -> None:
        self.tape = tape
        tape.longest = ROOM * len(tape.operations)
        self.lanes = Tape(tape.longest)
        self._known: dict[int, Value] = {}
        for position in tape.used(results):
            self._known[position] = self._derivative(tape.operations[position], Computed(position))

    def of(self, value: Value) -> Value:
        """Return the derivative of a value, 0 if it does not depend on the states."""
        return self._known[value.position] if isinstance(value, Computed) else 0.0

    def _derivative(self, operation: Operation, result: Computed) -> Value:
        if operation.name == "y":
            return self.lanes.record("y", *operation.operands)
        changes = [self.of(v) for v in operation.operands]
        if all(change == 0.0 for change in changes):
            return 0.0
        if operation.name not in SLOPES:
            raise NotSmooth(operation.name)
        slopes = SLOPES[operation.name](self.tape, operation.operands, result)
        total: Value = 0.0
        for slope, change in zip(slopes, changes, strict=True):
            if change != 0.0:
                total = self._plus(total, slope, change)
        return total

    def _plus(self, total: Value, slope: Value, change: Value) -> Value:
        """Return total + slope · change."""
        if slope == -1.0 and total != 0.0:
            return self.lanes.record("-", total, change)
        shared = self.lanes.record("par", slope.position) if isinstance(slope, Computed) else slope
        return self.lanes.combine("+", operator.add, total, self.lanes.combine("*", operator.mul, shared, change))


def _of_quotient(tape: Tape, operands: tuple[Value, ...], result: Value) -> tuple[Value, ...]:
    inverse = tape.combine("/", operator.truediv, 1.0, operands[1])
    return inverse, _times(tape, -1.0, _times(tape, result, inverse))


def _of_arc_sine(tape: Tape, operands: tuple[Value, ...], result: Value) -> tuple[Value, ...]:
    rest = tape.combine("-", operator.sub, 1.0, _times(tape, operands[0], operands[0]))
    return (tape.combine("/", operator.truediv, 1.0, tape.record("math.sqrt", rest)),)


def _of_power(tape: Tape, operands: tuple[Value, ...], result: Value) -> tuple[Value, ...]:
    x, n = operands
    if isinstance(n, Computed):
        raise NotSmooth("**")
    return _times(tape, n, x if n == 2 else tape.record("**", x, n - 1)), 0.0


def _times(tape: Tape, left: Value, right: Value) -> Value:
    return tape.combine("*", operator.mul, left, right)


SLOPES: Mapping[str, Callable[[Tape, tuple[Value, ...], Value], tuple[Value, ...]]] = {
    "+": lambda tape, operands, result: (1.0, 1.0),
    "-": lambda tape, operands, result: (1.0, -1.0),
    "*": lambda tape, operands, result: operands[::-1],
    "/": _of_quotient,
    "**": _of_power,
    "negative": lambda tape, operands, result: (-1.0,),
    "math.sqrt": lambda tape, operands, result: (tape.combine("/", operator.truediv, 0.5, result),),
    "asin": _of_arc_sine,
}
"""The derivatives with respect to each operand, by how an operation stands in kernels: of tape, operands and result."""
