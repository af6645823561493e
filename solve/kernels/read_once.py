"""An element of an array that a loop reads several times is read once, and has a name: C_iu for ``work[C + i*N + u]``.

The processor would not do more without it; but statements are shorter to read, and the compiler, which infers the type
of each part of each index, is done in two thirds of the time.

Knows the text of loops, no expressions: what they write is seen there. Loops with more in them than assignments and
loops stay as they are.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ELEMENT = re.compile(r"\b(?:work|par|y)\[[^\[\]]+\]")
NAME = re.compile(r"[A-Za-z_]\w*")
LOOP = re.compile(r"for (\w+) in range\(.*\):")
STATEMENT = re.compile(r"(?P<target>.* \+?= )(?P<value>.*?)(?P<remark>  # .*)?")
WHOLE_ARRAY = re.compile(r"\b(?:work|par|y)\b(?!\[)")
BUFFER = "gather"
"""The array that is also written to by positions."""
INDENT = "    "


@dataclass(frozen=True, slots=True)
class _Loop:
    header: str
    index: str
    items: tuple["_Loop | re.Match[str]", ...]
    """Loops and statements."""

    @property
    def statements(self) -> list[re.Match[str]]:
        """All statements, those of the loops inside too."""
        return [s for item in self.items for s in (item.statements if isinstance(item, _Loop) else [item])]

    @property
    def inner_indices(self) -> set[str]:
        """The indices of the loops inside."""
        inner = [item for item in self.items if isinstance(item, _Loop)]
        return {loop.index for loop in inner}.union(*(loop.inner_indices for loop in inner))

    @property
    def written(self) -> set[str]:
        """The variables that are assigned, and the names of where the arrays begin of which elements are."""
        targets = (part for s in self.statements for part in re.split(r" \+?= ", s["target"]) if part[:4] != "out[")
        return {NAME.findall(part.removeprefix("work["))[0] for part in targets if part}

    @property
    def read(self) -> Counter[str]:
        """How often each element is read."""
        return Counter(element for s in self.statements for element in ELEMENT.findall(s["value"]))


def read_once(lines: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Return the lines of a kernel's body, each element that a loop reads several times under a name.

    Parameters
    ----------
    lines : sequence of str
        Statements and loops.
    taken : iterable of str
        The names that have a meaning already.

    Examples
    --------
    >>> print(*read_once(["for u in range(N):", "    s += work[C + i*N + u]*work[C + i*N + u]"], ["C", "s"]), sep="\\n")
    for u in range(N):
        C_u = work[C + i*N + u]
        s += C_u*C_u
    """
    meanings = dict.fromkeys(taken, "")
    remaining, found = list(lines), list[str]()
    while remaining:
        line = remaining.pop(0)
        inside = [text.removeprefix(INDENT) for text in itertools.takewhile(lambda t: t.startswith(INDENT), remaining)]
        del remaining[: len(inside)]
        loop = _plain_loop(line, inside)
        found += _rewritten(loop, {}, meanings) if loop else [line, *_indented(read_once(inside, meanings))]
    return found


def _plain_loop(header: str, inside: Sequence[str]) -> _Loop | None:
    """Return a loop from its text, if there is nothing in it but assignments and loops like it."""
    head, items, remaining = LOOP.fullmatch(header), list[_Loop | re.Match[str]](), list(inside)
    while head and remaining:
        line = remaining.pop(0)
        deeper = [text.removeprefix(INDENT) for text in itertools.takewhile(lambda t: t.startswith(INDENT), remaining)]
        del remaining[: len(deeper)]
        statement = None if deeper or WHOLE_ARRAY.search(line) else STATEMENT.fullmatch(line)
        item = statement or _plain_loop(line, deeper)
        if item is None:
            return None
        items.append(item)
    return _Loop(header, head[1], tuple(items)) if head else None


def _rewritten(loop: _Loop, names: dict[str, str], meanings: dict[str, str], around: tuple[str, ...] = ()) -> list[str]:
    """Return the lines of a loop. An element gets its name in the outermost loop in which it stays the same; ``names``
    are those that it has outside, ``meanings`` those that names have anywhere."""
    bound, varying = (*around, loop.index), {BUFFER} | loop.inner_indices | loop.written
    fixed = [e for e, times in loop.read.items() if times > 1 and varying.isdisjoint(NAME.findall(e)[1:])]
    new = {element: _name(element, bound, meanings) for element in fixed if element not in names}
    names, lines = names | new, [loop.header]
    for item in loop.items:
        needed = item.read if isinstance(item, _Loop) else ELEMENT.findall(item["value"])
        lines += [f"{INDENT}{new.pop(element)} = {element}" for element in dict.fromkeys(needed) if element in new]
        if isinstance(item, _Loop):
            lines += _indented(_rewritten(item, names, meanings, bound))
        else:
            value = ELEMENT.sub(lambda element: names.get(element[0], element[0]), item["value"])
            lines.append(f"{INDENT}{item['target']}{value}{item['remark'] or ''}")
    return lines


def _name(element: str, indices: Sequence[str], meanings: dict[str, str]) -> str:
    """Return a name that means this element and nothing else."""
    _, array, *place = NAME.findall(element)
    name = f"{array}_{''.join(word for word in place if word in indices)}"
    while meanings.setdefault(name, element) != element:
        name += "_"
    return name


def _indented(lines: Sequence[str]) -> list[str]:
    return [INDENT + line for line in lines]
