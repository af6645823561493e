"""Divisions saved: where ``r = 1 / √b`` is there, ``a / b`` is ``a r r``.

In straight-line code of small systems divisions and roots are most of the time, since processors have one slow unit for
both. Reciprocals ``1 / b`` stay: much depends on them, and would wait for a root.
"""

from collections.abc import Sequence

from .tape import Computed, Tape, Value

CHOOSING = {"if", "==", "!=", "<", "<=", ">", ">="}
"""With these, a root that is NaN may be in what is not chosen; without them it is in all that depends on it."""


def without_quotients(tape: Tape, results: Sequence[Value]) -> tuple[Tape, list[Value]]:
    """Return the operations for the same results, to a few ulp, with fewer divisions.

    A quotient is replaced only where all results that take it take the root too, so that ``b < 0`` makes no result NaN
    that was a number.

    Examples
    --------
    >>> tape = Tape(100)
    >>> a, b = tape.record("y", 0), tape.record("y", 1)
    >>> root = tape.record("/", 1.0, tape.record("math.sqrt", b))
    >>> result = tape.record("+", root, tape.record("/", a, b))
    >>> fewer, _ = without_quotients(tape, [result])
    >>> [operation.name for operation in fewer.operations]
    ['y', 'y', 'math.sqrt', '/', '*', '*', '+']
    """
    used = tape.used(results)
    if CHOOSING & {tape.operations[n].name for n in used}:
        return tape, list(results)
    needed = [set(tape.used([result])) for result in results]
    replaced = {
        n: root
        for n, root in _with_roots(tape, used).items()
        if all(root.position in positions for positions in needed if n in positions)
    }
    fewer, now = Tape(tape.longest + 2 * len(replaced)), {}

    def moved(value: Value) -> Value:
        return copied(value.position) if isinstance(value, Computed) else value

    def copied(position: int) -> Computed:
        if position not in now:
            operation, root = tape.operations[position], replaced.get(position)
            if root is None:
                now[position] = fewer.record(operation.name, *map(moved, operation.operands))
            else:
                r = copied(root.position)
                now[position] = fewer.record("*", moved(operation.operands[0]), fewer.record("*", r, r))
        return now[position]

    for position in used:  # in order, so that hardly anything is copied from within another
        copied(position)
    return fewer, [moved(result) for result in results]


def _with_roots(tape: Tape, used: Sequence[int]) -> dict[int, Computed]:
    """Return, by the position of each quotient ``a / b`` with computed ``a``, where ``1 / √b`` is."""
    roots: dict[Value, Computed] = {}
    for n in used:
        operation = tape.operations[n]
        if operation.name == "/" and operation.operands[0] == 1.0 and isinstance(operation.operands[1], Computed):
            below = tape.operations[operation.operands[1].position]
            if below.name == "math.sqrt":
                roots[below.operands[0]] = Computed(n)
    found = {}
    for n in used:
        operation = tape.operations[n]
        if operation.name == "/" and isinstance(operation.operands[0], Computed) and operation.operands[1] in roots:
            found[n] = roots[operation.operands[1]]
    return found
