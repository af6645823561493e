"""Kernels for sixteen trajectories at once: straight-line code inside a loop over lanes, which LLVM vectorises.

The same operations as in the kernel for one trajectory, in the same order; element i of an array for lane l is number
``16 i + l``. Knows only the straight-line Python of :mod:`effdyn.solve.kernels.unroll`.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from effdyn.derive import Dynamics
from effdyn.derive.parsing import parsed, parsed_expression

from ..kernels.cache import load_generated
from ..kernels.kernel import OPTIONS, _generated, kernel
from ..kernels.unroll import unrolled
from .sixteen import LANES

LONGEST = 500
"""The most lines of a kernel that is put into lanes by itself: each takes the compiler 3 to 8 ms."""
MOST_OPERATIONS = 5000
"""Of a kernel that is put into lanes where that is asked for. At 1800 (erf, K = M = 3) lanes are 3 times as fast as one
by one, and take 4 s to compile; at 4400 (K = M = 4) 1.8 times, and 17 s: registers run out."""

SIGNATURE = "void(" + ", ".join(["CPointer(float64)"] * 5) + ")"


@dataclass(frozen=True, slots=True, eq=False)
class LaneKernel:
    """Compiled equations for sixteen trajectories; ``f(t*, y*, out*, par*, work*)``, the first four in lanes.

    Attributes
    ----------
    source : str
        The generated Python source, complete.
    address : int
        Of the compiled function.
    """

    source: str
    address: int
    _keep: object


def lane_kernel(
    dynamics: Dynamics, sizes: Mapping[str, int], which: str = "drift", long: bool = False
) -> LaneKernel | None:
    """Return the kernel in lanes for these numbers of units; ``None`` if the system is not a small one.

    ``which`` is ``"drift"``, the right-hand side, or ``"observables"``; ``long`` kernels take up to 20 s to compile.

    Examples
    --------
    >>> from effdyn import derive
    >>> dynamics = derive.TeacherStudent(activation="erf").dynamics()
    >>> "for l in range(16):" in lane_kernel(dynamics, {"K": 1, "M": 1}).source
    True
    >>> lane_kernel(dynamics, {"K": 30, "M": 30}) is None
    True
    """
    numbers = tuple(sizes[str(size)] for size in dynamics.sizes)
    straight = _straight(dynamics, which, numbers)
    if straight is None or straight.count("\n") > LONGEST:
        straight = _long(dynamics, which, numbers) if long else None
    if straight is None:
        return None
    return _load(straight, f"{which}_{dynamics.kind}")


@lru_cache(maxsize=256)
def _straight(dynamics: Dynamics, which: str, sizes: tuple[int, ...]) -> str | None:
    """Return the source for one trajectory, if there is one without loops."""
    if which == "drift":
        compiled = kernel(dynamics, dict(zip(map(str, dynamics.sizes), sizes, strict=True)))
        return compiled.source if compiled.sizes is not None else None
    straight = unrolled(_generated(dynamics, which)[0], sizes)
    return None if straight is None else straight[0]


@lru_cache(maxsize=16)
def _long(dynamics: Dynamics, which: str, sizes: tuple[int, ...]) -> str | None:
    """Return it also where it is longer than is worth it for one trajectory."""
    straight = unrolled(_generated(dynamics, which)[0], sizes, MOST_OPERATIONS)
    return None if straight is None else straight[0]


@lru_cache(maxsize=256)
def _load(straight: str, name: str) -> LaneKernel:
    source = in_lanes(straight)
    module = load_generated(f"lanes_{name}", source)
    return LaneKernel(source, module.kernel.address, module)


def in_lanes(source: str) -> str:
    """Return a straight-line kernel with its body in a loop over lanes."""
    head = source.partition("@cfunc(")[0]
    functions = [node for node in parsed(source).body if isinstance(node, ast.FunctionDef)]
    body = _statements(next(f.body for f in functions if f.name == "kernel"))
    lines = [f"        {ast.unparse(statement)}\n" for statement in body]
    signature = f'@cfunc("{SIGNATURE}", {OPTIONS})\ndef kernel(t, y, out, par, work):\n    for l in range({LANES}):\n'
    return head + signature + "".join(lines)


def _statements(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Return the statements for one lane. Arguments gathered in the workspace become variables of their own."""
    statements: list[ast.stmt] = []
    gathered: list[int] = []
    for statement in body:
        if isinstance(statement, ast.For):  # for q in range(n): work[q] = function(work[q])
            (call,) = statement.body
            assert isinstance(call, ast.Assign) and isinstance(call.value, ast.Call)
            function = ast.unparse(call.value.func)
            statements += parsed("\n".join(f"w{n} = {function}(w{n})" for n in gathered)).body
            gathered = []
            continue
        if isinstance(statement, ast.Assign) and (place := _place_in_work(statement.targets[0])) is not None:
            gathered.append(place)
        statements.append(ast.fix_missing_locations(_InLane().visit(statement)))
    return statements


def _place_in_work(node: ast.expr) -> int | None:
    match node:
        case ast.Subscript(value=ast.Name(id="work"), slice=ast.Constant(value=int() as place)):
            return place
    return None


class _InLane(ast.NodeTransformer):
    """Elements of arrays become those of lane ``l``, elements of the workspace variables."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        place = _place_in_work(node)
        if place is not None:
            return ast.Name(f"w{place}", node.ctx)
        assert isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int), ast.unparse(node)
        index = parsed_expression(f"{LANES * node.slice.value} + l")
        return ast.Subscript(node.value, index, node.ctx)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return parsed_expression("t[l]") if node.id == "t" else node
