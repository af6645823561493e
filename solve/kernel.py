"""Kernels: a Dynamics as compiled code, one for all sizes, with one calling convention.

Every kernel is ``void f(double t, double* y, double* out, double* par, double* work)``, a cached Numba ``@cfunc`` in a
readable source file of its own; integrators take its address, so one integrator binary serves every model. ``par``
holds the sizes (K, M, …), then the parameters; ``y`` the states, symmetric ones as their upper triangle, row by row;
``work`` is the caller's scratch space.
"""

import ctypes
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import sympy

from effdyn.derive import Dynamics, Quantity

from .cache import load_generated
from .emit import Emitter, flat_index
from .functions import SOURCES
from .fuse import ALL, GRAM, F, Fusion, fusion
from .lower import lower, sort_symmetric_indices
from .rename import safe_names

SIGNATURE = "void(float64, CPointer(float64), CPointer(float64), CPointer(float64), CPointer(float64))"
OPTIONS = 'cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}'
"""``error_model="numpy"`` because Python's checks for division by zero forbid vectorisation; never ``fastmath=True``,
which removes the tests for NaN by which integrators reject a step."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Compiled equations.

    Attributes
    ----------
    source : str
        The generated Python source, complete.
    address : int
        Of the compiled function, for integrators.
    workspace : tuple of shape
        The scratch arrays, by symbolic shape.
    outputs : tuple of Quantity
        What it computes, in order; symmetric ones packed as their upper triangle.
    """

    source: str
    address: int
    workspace: tuple[tuple[sympy.Expr, ...], ...]
    outputs: tuple[Quantity, ...]
    _keep: object = field(repr=False, compare=False, default=None)

    def workspace_size(self, sizes: Mapping[str, int]) -> int:
        """Return the number of doubles of scratch space at these sizes."""
        return 8 + sum(math.prod(_number(s, sizes) for s in shape) for shape in self.workspace)

    def __call__(self, t: float, y: np.ndarray, out: np.ndarray, par: np.ndarray, work: np.ndarray) -> None:
        """Evaluate into ``out``. All arrays are contiguous float64 of the right length: nothing is checked here."""
        self.function(t, *(a.ctypes.data for a in (y, out, par, work)))

    @property
    def function(self) -> Callable[..., None]:
        """The compiled function for Python callers: time, and the addresses of the four arrays."""
        return _PROTOTYPE(self.address)


_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)


def kernel(dynamics: Dynamics) -> Kernel:
    """Return the compiled right-hand side of a Dynamics: the time derivatives of its states.

    Parameters
    ----------
    dynamics : Dynamics

    Returns
    -------
    Kernel
        ``.source`` is the generated source, ``.address`` what integrators take.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> rhs = solve.kernel(derive.TeacherStudent(activation="square").dynamics())
    >>> "def kernel(t, y, out, par, work)" in rhs.source
    True
    """
    return _load(dynamics, "drift")


def observables_kernel(dynamics: Dynamics) -> Kernel:
    """Return the compiled observables of a Dynamics, with the same calling convention."""
    return _load(dynamics, "observables")


@lru_cache(maxsize=256)
def _load(dynamics: Dynamics, which: str) -> Kernel:
    equations = getattr(dynamics, which)
    outputs = [(e.quantity, e.expr) for e in equations]
    return compile_kernel(dynamics, outputs, f"{which}_{dynamics.kind}", f"{dynamics.title}: {which}.")


def compile_kernel(dynamics: Dynamics, outputs: Sequence[tuple[Quantity, sympy.Expr]], name: str, title: str) -> Kernel:
    """Return the kernel that computes ``outputs`` from the states and parameters of a Dynamics."""
    source, workspace = generate(dynamics, outputs, title)
    module = load_generated(name, source)
    return Kernel(source, module.kernel.address, workspace, tuple(q for q, _ in outputs), module)


def generate(
    dynamics: Dynamics, outputs: Sequence[tuple[Quantity, sympy.Expr]], title: str
) -> tuple[str, tuple[tuple[sympy.Expr, ...], ...]]:
    """Return the source of a kernel, and the shapes of its scratch arrays."""
    comments = [equation_comment(dynamics, q, expr) for q, expr in outputs]
    dynamics, outputs, sizes_before = safe_names(dynamics, outputs)
    fused = fusion(dynamics)
    memory = Memory(dynamics, fused)
    lowered = [lower(dynamics, expr, fused, memory.symmetric) for _, expr in outputs]
    emitter = Emitter(memory.element, lambda e: sort_symmetric_indices(e, memory.symmetric))
    for (first, second), weight in fused.weights.items() if fused else ():
        _emit_weights(emitter, memory, weight, (first, second))
    offset = "0"
    for (quantity, _), low, comment in zip(outputs, lowered, comments, strict=True):
        emitter.line("")
        emitter.line(f"# {comment}")
        _emit_equation(emitter, quantity, low, offset)
        offset = _plus(offset, packed_size(quantity))
    body = emitter.stack[0].lines
    names = [(name, shape) for name, shape in (*memory.unpacked, *emitter.scratch)]
    return _SOURCE.format(
        title=title,
        signature=SIGNATURE,
        options=OPTIONS,
        functions="".join(SOURCES[f] for f in sorted(emitter.functions)),
        body=textwrap.indent("\n".join([*memory.prologue(names), *body]), "    "),
    ), tuple(tuple(memory.in_sizes(s).subs(sizes_before) for s in shape) for _, shape in names)


_SOURCE = '''"""{title}

Generated by effdyn; do not edit. ``par`` holds the sizes and parameters, ``y`` the states (symmetric ones as upper
triangles, row by row), ``work`` scratch space; ``out`` is written, packed like ``y``.
"""

import math

from numba import cfunc, njit

{functions}

@cfunc("{signature}", {options})
def kernel(t, y, out, par, work):
{body}
'''


def _emit_equation(emitter: Emitter, quantity: Quantity, expr: sympy.Expr, offset: str) -> None:
    indices, shape = quantity.indices, quantity.shape
    if quantity.symmetric:
        emitter.line(f"p = {offset}")
    for depth, (index, size) in enumerate(zip(indices, shape, strict=True)):
        emitter.loop(index, size, start=str(indices[0]) if quantity.symmetric and depth == 1 else "")
    value = emitter.value(expr)
    if quantity.symmetric:
        emitter.line(f"out[p] = {value}")
        emitter.line("p += 1")
    else:
        emitter.line(
            f"out[{_plus(offset, flat_index([str(i) for i in indices], shape)) if indices else offset}] = {value}"
        )
    for _ in indices:
        emitter.end()


def _emit_weights(
    emitter: Emitter, memory: "Memory", weight: sympy.IndexedBase, values: tuple[sympy.Expr, sympy.Expr]
) -> None:
    """Write the weights of the fields of both families."""
    first, second = (family.size for family in memory.families)
    for value, size, start in zip(values, (first, second), ("", f"{first} + "), strict=True):
        emitter.loop(F, size)
        emitter.line(f"work[{weight} + {start}{F}] = {emitter.value(value)}")
        emitter.end()


class Memory:
    """Where each array of a Dynamics lies: sizes and parameters in ``par``, states in ``y``, and in ``work`` what is
    unpacked from them.

    Overlaps that are the covariance of two families of fields are unpacked into one matrix C over all fields; other
    symmetric states into their full matrices.
    """

    def __init__(self, dynamics: Dynamics, fused: Fusion | None) -> None:
        self.dynamics = dynamics
        self.families = fused.families if fused else ()
        self._fused = fused
        blocks = dict(dynamics.covariance) if fused else {}
        self._blocks = {block.expr.base: families for families, block in blocks.items()}  # overlap: its two families
        symmetric = {q.base for q in (*dynamics.states, *dynamics.parameters) if q.symmetric}
        self.symmetric = frozenset(symmetric | {GRAM} if fused else symmetric)
        self._quantities = {q.base: q for q in (*dynamics.states, *dynamics.parameters)}

    @property
    def unpacked(self) -> list[tuple[str, tuple[sympy.Expr, ...]]]:
        """The arrays that the prologue fills, with their shapes."""
        own = [(q.name, q.shape) for q in self.dynamics.states if q.symmetric and q.base not in self._blocks]
        if not self._fused:
            return own
        return [("C", (ALL, ALL)), *((str(c), (ALL,)) for c in self._fused.weights.values()), *own]

    def element(self, expr: sympy.Expr, indices: list[str]) -> str:
        """Return the text of a scalar or an array element."""
        base = expr.base if isinstance(expr, sympy.Indexed) else expr
        if base in self._blocks:
            return self.element(
                GRAM[0, 0], [_plus(self._start(f), i) for f, i in zip(self._blocks[base], indices, strict=True)]
            )
        if base == GRAM:
            return f"work[C + {flat_index(indices, (ALL, ALL))}]"
        if self._fused and base in self._fused.weights.values():
            return f"work[{base} + {indices[0]}]"
        quantity = self._quantities.get(base)
        if quantity is None:
            return str(expr)  # a size
        if not indices:
            return quantity.name
        if quantity in self.dynamics.states and quantity.symmetric:
            return f"work[{quantity.name}_full + {flat_index(indices, quantity.shape)}]"
        array = "y" if quantity in self.dynamics.states else "par"
        return f"{array}[{quantity.name} + {flat_index(indices, quantity.shape)}]"

    @property
    def all_fields(self) -> sympy.Expr:
        """The number of all fields, in the sizes of the families."""
        return sympy.Add(*(family.size for family in self.families))

    def in_sizes(self, extent: sympy.Expr) -> sympy.Expr:
        """Return an extent in the sizes of the Dynamics."""
        return extent.subs(ALL, self.all_fields) if self._fused else extent

    def _start(self, family: str) -> str:
        """Return the text of the position of a family's first field among all."""
        return "0" if family == str(self.families[0].base) else str(self.families[0].size)

    def prologue(self, scratch: Sequence[tuple[str, tuple[sympy.Expr, ...]]]) -> list[str]:
        """Return the statements that name sizes, scalars and offsets, and unpack states."""
        lines = [f"{size} = int(par[{n}])" for n, size in enumerate(self.dynamics.sizes)]
        offset = str(len(lines))
        if self._fused:
            lines.append(f"{ALL} = {' + '.join(str(family.size) for family in self.families)}")
        for q in self.dynamics.parameters:
            lines.append(f"{q.name} = {offset}" if q.indices else f"{q.name} = par[{offset}]")
            offset = _plus(offset, _product(q.shape))
        offset = "0"
        for q in self.dynamics.states:
            lines.append(f"{q.name} = {offset}" if q.indices else f"{q.name} = y[{offset}]")
            offset = _plus(offset, packed_size(q))
        offset = "0"
        for name, shape in scratch:
            lines.append(f"{_offset_name(name, self._quantities)} = {offset}")
            offset = _plus(_offset_name(name, self._quantities), _product(shape))
        return lines + [line for q in self._quantities.values() for line in self._unpack(q)]

    def _unpack(self, q: Quantity) -> list[str]:
        array = "y" if q in self.dynamics.states else "par"
        if q.symmetric and array == "y":
            size = q.shape[0]
            target = f"{self.element(q.base[0, 0], ['r1', 'r2'])} = {self.element(q.base[0, 0], ['r2', 'r1'])}"
            return [
                f"p = {q.name}",
                f"for r1 in range({size}):",
                f"    for r2 in range(r1, {size}):",
                f"        {target} = y[p]",
                "        p += 1",
            ]
        if q.base not in self._blocks:
            return []
        f, g = (self._start(family) for family in self._blocks[q.base])
        target = f"work[C + {flat_index([_plus(f, 'r1'), _plus(g, 'r2')], (ALL, ALL))}]"
        if f != g:  # a block off the diagonal, and its transpose
            target += f" = work[C + {flat_index([_plus(g, 'r2'), _plus(f, 'r1')], (ALL, ALL))}]"
        return [
            f"for r1 in range({q.shape[0]}):",
            f"    for r2 in range({q.shape[1]}):",
            f"        {target} = {array}[{q.name} + {flat_index(['r1', 'r2'], q.shape)}]",
        ]


def _offset_name(name: str, quantities: Mapping[sympy.Basic, Quantity]) -> str:
    """Return the name of the offset of a scratch array; a symmetric state has one in ``y`` too."""
    return f"{name}_full" if name in {q.name for q in quantities.values()} else name


def packed_size(quantity: Quantity) -> str:
    """Return the text of the number of doubles that a quantity takes."""
    if quantity.symmetric:
        size = quantity.shape[0]
        return f"{size}*({size} + 1)//2"
    return _product(quantity.shape)


def equation_comment(dynamics: Dynamics, quantity: Quantity, expr: sympy.Expr) -> str:
    """Return the equation as one line of text, moments by name."""
    left = f"d{quantity}/dt" if quantity in dynamics.states else str(quantity)
    return f"{left} = {dynamics.named(expr)}"


def _number(size: sympy.Expr, sizes: Mapping[str, int]) -> int:
    return int(size.subs({s: sizes[str(s)] for s in size.free_symbols}))


def _product(shape: Sequence[sympy.Expr]) -> str:
    return "*".join(f"({s})" if isinstance(s, sympy.Add) else str(s) for s in shape) or "1"


def _plus(left: str, right: str) -> str:
    if left == "0":
        return right
    return str(int(left) + int(right)) if left.isdigit() and right.isdigit() else f"{left} + {right}"
