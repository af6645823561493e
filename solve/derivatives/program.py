"""The operations of a kernel as a list of numbers, to be executed with their derivatives.

A kernel of known sizes is a list of operations (:mod:`effdyn.solve.kernels.tape`). What parameters decide alone is
calculated here, once; what depends on the states is put in an order in which operations of one kind follow each other.
As data they are executed by :mod:`.machine`, which is compiled once for all models. Compiled as straight-line code, the
second derivatives of an erf committee of K = 3, M = 2 took 20 s.

Knows nothing of what the equations mean.
"""

import heapq
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from effdyn.derive import Dynamics

from ..kernels.kernel import loops_source, observables_source
from ..kernels.tape import Computed, Operation, Tape, TooLong, Value
from ..kernels.unroll import OPERATORS, Rolled, recorded
from .rules import FUNCTIONS, OF_CONSTANT, OF_TWO, POWER, SCALED, asin

LONGEST = 120_000
"""The most operations of a program: about K = M = 10 for erf. They take 4 ns each for sixteen directions, 10 where the
workspace leaves the caches; there tangents and differences in loops take as long."""


class NotSmooth(Exception):
    """An operation has no derivatives here."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation that depends on the states, or on time.

    ``kind`` is what is done; ``first`` and ``second`` are its operands, of which the first may be a constant.
    """

    kind: int
    first: Value
    second: Value


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The operations that depend on the states, in an order in which they can be executed.

    Values have numbers: those of the constants first, then the n states, the time, and the results of the instructions
    in order.

    Attributes
    ----------
    n : int
        The number of states.
    constants : tuple
        Each a number, or the position of an operation in ``fixed``.
    timed : int
        How many instructions, the first ones, depend on time alone.
    kinds, operands : ndarray, shapes (L,) and (L, 2)
        What each instruction does, and the numbers of its operands.
    results : ndarray
        The numbers of the values that are written.
    fixed : tuple of (int, Operation)
        The operations of which parameters decide, with their positions, in order.
    """

    n: int
    constants: tuple[Value, ...]
    timed: int
    kinds: np.ndarray
    operands: np.ndarray
    results: np.ndarray
    fixed: tuple[tuple[int, Operation], ...]

    def encoded(self, par: np.ndarray) -> np.ndarray:
        """Return what the machine takes at these parameters, in one array of doubles.

        Six numbers, how many there are of constants, states, instructions, runs, results, and instructions on time;
        then runs of instructions of one kind (kind and end); the bits of whole numbers, all first operands, all second
        ones, results; constants.
        """
        changes = np.flatnonzero(np.diff(self.kinds, append=-1)) + 1
        ends = np.union1d(changes, [self.timed] if self.timed else []).astype(int)
        runs = np.column_stack([self.kinds[ends - 1], ends])
        head = [len(self.constants), self.n, len(self.kinds), len(runs), len(self.results), self.timed]
        places = np.concatenate([self.operands.T.ravel(), self.results]).astype(np.uint64).view(np.float64)
        values: dict[int, float] = {}
        for position, operation in self.fixed:
            values[position] = _calculated(operation, values, par)
        constants = [values[c.position] if isinstance(c, Computed) else float(c) for c in self.constants]
        return np.concatenate([head, runs.ravel(), places, constants])


@lru_cache(maxsize=32)
def program(dynamics: Dynamics, which: str, sizes: tuple[int, ...], n: int) -> Program | None:
    """Return the program of a kernel of n states; ``None`` if it is long, or has no straight-line form or derivatives.

    ``which`` is ``"drift"`` or ``"observables"``; ``sizes`` the numbers of units.
    """
    source = loops_source(dynamics) if which == "drift" else observables_source(dynamics)
    try:
        tape, results = recorded(source, sizes, LONGEST + LONGEST // 4, timed=True)
        if len(tape.used(results)) > LONGEST:
            return None
        return assembled(tape, results, n)
    except (Rolled, TooLong, NotSmooth):
        return None


def assembled(tape: Tape, results: Sequence[Value], n: int) -> Program:
    """Return the program of a tape with n states.

    Raises
    ------
    NotSmooth
        If an operation on the states has no derivatives here.
    """
    used = tape.used(results)
    tape.longest *= 2  # constants are added to it
    states, times = (_dependent(tape, used, name) for name in "yt")
    moving = states | times
    instructions = {p: _instruction(tape, p, moving) for p in used if p in moving and not _is_variable(tape, p)}
    timed = _ordered({p: i for p, i in instructions.items() if p not in states})
    order = [*timed, *_ordered({p: i for p, i in instructions.items() if p in states})]
    values = [v for p in order for v in (instructions[p].first, instructions[p].second)] + list(results)
    constants = list(dict.fromkeys(v for v in values if not (isinstance(v, Computed) and v.position in moving)))
    places: dict[Value, int] = {constant: number for number, constant in enumerate(constants)}
    for p in used:
        if _is_variable(tape, p):
            places[Computed(p)] = len(constants) + _element(tape.operations[p], n)
    places |= {Computed(p): len(constants) + n + 1 + number for number, p in enumerate(order)}
    return Program(
        n,
        tuple(constants),
        len(timed),
        np.array([instructions[p].kind for p in order], dtype=np.int64),
        np.array([[places[instructions[p].first], places[instructions[p].second]] for p in order]).reshape(-1, 2),
        np.array([places[value] for value in results]),
        _fixed(tape, constants),
    )


def _fixed(tape: Tape, constants: Sequence[Value]) -> tuple[tuple[int, Operation], ...]:
    found = tuple((p, tape.operations[p]) for p in tape.used(constants))
    for _, operation in found:
        if operation.name != "par" and operation.name not in CALCULATED:
            raise NotSmooth(operation.name)
    return found


def _is_variable(tape: Tape, position: int) -> bool:
    return tape.operations[position].name in ("y", "t")


def _element(operation: Operation, otherwise: int = 0) -> int:
    """Return which element of an array an operation takes; the time is none."""
    return next((v for v in operation.operands if isinstance(v, int)), otherwise)


def _dependent(tape: Tape, used: Sequence[int], name: str) -> set[int]:
    """Return the positions of what depends on the states, ``"y"``, or on time, ``"t"``."""
    found: set[int] = set()
    for position in used:
        if tape.operations[position].name == name or found.intersection(tape.operations[position].needs):
            found.add(position)
    return found


def _instruction(tape: Tape, position: int, moving: set[int]) -> Instruction:
    """Return an operation as an instruction; the constant, if there is one, is the first operand."""
    name, operands = tape.operations[position].name, tape.operations[position].operands
    match name, [isinstance(v, Computed) and v.position in moving for v in operands]:
        case _, [True] if name in FUNCTIONS:
            return Instruction(FUNCTIONS[name], 0.0, operands[0])
        case "negative", [True]:
            return Instruction(SCALED, -1.0, operands[0])
        case _, [True, True] if name in OF_TWO:
            return Instruction(OF_TWO[name], *operands)
        case "+" | "-" | "*" | "/", [False, True]:
            return Instruction(OF_CONSTANT[name], *operands)
        case "+" | "*", [True, False]:
            return Instruction(OF_CONSTANT[name], operands[1], operands[0])
        case "-", [True, False]:
            return Instruction(OF_CONSTANT["+"], tape.combine("*", operator.mul, -1.0, operands[1]), operands[0])
        case "/", [True, False]:
            return Instruction(OF_CONSTANT["*"], tape.combine("/", operator.truediv, 1.0, operands[1]), operands[0])
        case "**", [True, False]:
            return Instruction(POWER, operands[1], operands[0])
    raise NotSmooth(name)


def _ordered(instructions: Mapping[int, Instruction]) -> list[int]:
    """Return the positions in an order with few changes of kind: as long as there is another of the same it is next."""
    waiting: dict[int, int] = {}
    users: dict[int, list[int]] = {}
    ready: dict[int, list[int]] = {}

    def is_ready(position: int) -> None:
        heapq.heappush(ready.setdefault(instructions[position].kind, []), position)

    for position, instruction in instructions.items():
        needs = {v.position for v in (instruction.first, instruction.second) if isinstance(v, Computed)}
        needs = needs & instructions.keys()
        waiting[position] = len(needs)
        for needed in needs:
            users.setdefault(needed, []).append(position)
        if not needs:
            is_ready(position)
    order: list[int] = []
    while ready:
        kind = max(ready, key=lambda k: (len(ready[k]), -k))
        while ready[kind]:
            done = heapq.heappop(ready[kind])
            order.append(done)
            for user in users.get(done, ()):
                waiting[user] -= 1
                if not waiting[user]:
                    is_ready(user)
        ready = {k: positions for k, positions in ready.items() if positions}
    return order


CALCULATED: Mapping[str, Callable[..., Any]] = {
    **{name: calculate for name, calculate in OPERATORS.values()},
    **{f"math.{name}": getattr(np, name) for name in ("sqrt", "exp", "log", "sin", "cos", "tanh")},
    **{"math.acos": np.arccos, "math.atan": np.arctan, "math.erf": math.erf, "math.erfc": math.erfc},
    **{"asin": asin.py_func, "abs": abs, "negative": operator.neg},
    "if": lambda condition, value, other: value if condition else other,
}
"""What operations are, by name."""


def _calculated(operation: Operation, values: Mapping[int, float], par: np.ndarray) -> float:
    """Return the value of an operation that parameters decide, given those of its operands."""
    if operation.name == "par":
        return float(par[_element(operation)])
    operands = [values[v.position] if isinstance(v, Computed) else v for v in operation.operands]
    with np.errstate(all="ignore"):  # as in compiled code: infinity or NaN
        return float(CALCULATED[operation.name](*map(np.float64, operands)))
