"""A list of operations on numbers, each there once, and its text: what straight-line code is made of.

Functions that LLVM vectorises are gathered: their arguments are stored side by side, evaluated in one loop, and read
again. Knows nothing of loops over units, of arrays but by their names, or of where the operations come from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

GATHERED = {"asin": 16}
"""Functions to evaluate in a loop, and the multiple to which the number of their arguments is rounded up: LLVM unrolls
a loop over 8 before it vectorises."""
FEWEST = 5
"""From how many arguments on such a loop is worth its stores and loads."""
DEEPEST = 12
"""How deeply expressions are nested in one statement."""

Number = int | float


@dataclass(frozen=True, slots=True, order=True)
class Computed:
    """A number that is known only when the code runs: the position of its operation."""

    position: int


Value = Number | Computed


class TooLong(Exception):
    """More operations than were allowed for."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator, or the name of a function, ``if``, or of an array of which an element is taken; and its operands."""

    name: str
    operands: tuple[Value, ...]

    @property
    def needs(self) -> tuple[int, ...]:
        """The positions of the operations whose results it takes."""
        return tuple(v.position for v in self.operands if isinstance(v, Computed))


@dataclass(slots=True)
class Tape:
    """Operations in an order in which they can be executed.

    Attributes
    ----------
    longest : int
        How many there may be.
    operations : list of Operation
    """

    longest: int
    operations: list[Operation] = field(default_factory=list)
    _places: dict[Operation, Computed] = field(default_factory=dict)

    def record(self, name: str, *operands: Value) -> Computed:
        """Return the result of an operation: a new one, or one that was recorded before."""
        if name in "+*":  # commutative, in floating point too
            operands = tuple(sorted(operands, key=lambda v: (1, v.position) if isinstance(v, Computed) else (0, v)))
        operation = Operation(name, operands)
        if operation not in self._places:
            if len(self.operations) == self.longest:
                raise TooLong
            self._places[operation] = Computed(len(self.operations))
            self.operations.append(operation)
        return self._places[operation]

    def combine(self, name: str, calculate: Callable[..., Number], left: Value, right: Value) -> Value:
        """Return the value of a binary operation; what both operands are known for is calculated now."""
        if not isinstance(left, Computed) and not isinstance(right, Computed):
            return calculate(left, right)
        neutral = {"+": 0.0, "*": 1.0}.get(name)
        if neutral is not None and neutral in (left, right):
            return right if left == neutral else left
        return self.record(name, left, right)

    def used(self, results: Sequence[Value]) -> list[int]:
        """Return the positions of the operations that the results take, in order."""
        found = {v.position for v in results if isinstance(v, Computed)}
        waiting = list(found)
        while waiting:
            new = set(self.operations[waiting.pop()].needs) - found
            found |= new
            waiting += new
        return sorted(found)


class Writer:
    """Writes the operations of a tape as statements.

    Parameters
    ----------
    tape : Tape
    results : dict
        What is to be computed, by the text of what it is assigned to.
    """

    def __init__(self, tape: Tape, results: Mapping[str, Value]) -> None:
        self._tape, self._results = tape, results
        self._used = tape.used(list(results.values()))
        self._texts: dict[int, str] = {}
        self._depths: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        for position in self._used:
            for needed in tape.operations[position].needs:
                self._uses[needed] = self._uses.get(needed, 0) + 1
        self.lines: list[str] = []
        self.buffer = 0
        for group in self._groups():
            self._evaluate_together(*group)
        for target, value in results.items():
            self._write_needed([value])
            self.lines.append(f"{target} = {self._text(value)}")

    def _groups(self) -> list[tuple[str, list[int]]]:
        """Return the calls to be evaluated together: those of one function that take as many such loops before."""
        levels: dict[int, int] = {}
        groups: dict[tuple[int, str], list[int]] = {}
        for position in self._used:
            operation = self._tape.operations[position]
            levels[position] = max((levels[n] for n in operation.needs), default=0)
            if operation.name in GATHERED:
                groups.setdefault((levels[position], operation.name), []).append(position)
                levels[position] += 1
        return [(name, members) for (_, name), members in sorted(groups.items()) if len(members) >= FEWEST]

    def _evaluate_together(self, function: str, members: Sequence[int]) -> None:
        lanes = GATHERED[function]
        length = (len(members) + lanes - 1) // lanes * lanes
        for n, position in enumerate(members):
            (argument,) = self._tape.operations[position].operands
            self._write_needed([argument])
            self.lines.append(f"work[{n}] = {self._text(argument)}")
        self.lines += [f"for q in range({length}):", f"    work[q] = {function}(work[q])"]
        for n, position in enumerate(members):
            self._name(position, f"work[{n}]")
        self.buffer = max(self.buffer, length)

    def _write_needed(self, values: Sequence[Value]) -> None:
        """Write what the values take and is not written yet; what is used once stands where it is used."""
        for position in self._tape.used(values):
            if position not in self._texts:
                operation = self._tape.operations[position]
                depth = 1 + max((self._depths[n] for n in operation.needs), default=0)
                text = self._operation_text(operation)
                if self._uses.get(position, 0) > 1 or depth > DEEPEST:
                    self._name(position, text)
                else:
                    self._texts[position], self._depths[position] = text, depth

    def _name(self, position: int, text: str) -> None:
        self.lines.append(f"v{position} = {text}")
        self._texts[position], self._depths[position] = f"v{position}", 0

    def _text(self, value: Value) -> str:
        return self._texts[value.position] if isinstance(value, Computed) else repr(value)

    def _operation_text(self, operation: Operation) -> str:
        texts = [self._text(v) for v in operation.operands]
        name = operation.name
        if name in ("y", "par"):
            return f"{name}[{texts[0]}]"
        if name == "if":
            return f"({texts[1]} if {texts[0]} else {texts[2]})"
        if name == "negative":
            return f"(-{texts[0]})"
        if name[0].isalpha():
            return f"{name}({', '.join(texts)})"
        return f"({f' {name} '.join(texts)})"
