"""Kernels: a Dynamics as compiled code, one for all sizes or for some, with one calling convention.

Every kernel is ``void f(double t, double* y, double* out, double* par, double* work)``, a cached Numba ``@cfunc`` in a
readable source file of its own; integrators take its address, so one integrator binary serves every model. ``par``
holds the sizes (K, M, …), then the parameters; ``y`` the states, symmetric ones as their upper triangle, row by row;
``work`` is the caller's scratch space.
"""

import ctypes
import math
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import sympy

from effdyn.derive import Dynamics, FieldFamily, ModelError, Quantity
from effdyn.derive.errors import Described
from effdyn.derive.increments import overlap_of
from effdyn.derive.numerical.quadrature import NODES, Table

from .. import certification
from . import beside
from .cache import load_generated
from .emit import Emitter
from .fuse import ALL, F, Fusion, G, fusion
from .gather import Loop
from .lower import lower, sort_symmetric_indices
from .memory import Memory, packed_size, plus
from .nodes import ALL_FIELDS, COLUMNS, NODE_SIZES, OWN_FIELDS, field_at_nodes
from .read_once import NAME, read_once
from .remembered import remembered
from .rename import safe_names
from .shared import share_over_first_index
from .sources import paste
from .splitting import emit_splitting, splitting_of
from .unroll import unrolled
from .writer import flat_index

SIGNATURE = "void(float64, CPointer(float64), CPointer(float64), CPointer(float64), CPointer(float64))"
OPTIONS = 'cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}'
"""``error_model="numpy"`` because Python's checks for division by zero forbid vectorisation; never ``fastmath=True``,
which removes the tests for NaN by which integrators reject a step."""

_making = threading.RLock()


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
    sizes : dict or None
        The only numbers of units that it is for: straight-line code. ``None``: loops, for any.
    """

    source: str
    address: int
    workspace: tuple[tuple[sympy.Expr, ...], ...]
    outputs: tuple[Quantity, ...]
    sizes: Mapping[str, int] | None = field(default=None, hash=False)
    _keep: object = field(repr=False, compare=False, default=None)

    def workspace_size(self, sizes: Mapping[str, int]) -> int:
        """Return the number of doubles of scratch space at these sizes.

        Raises
        ------
        ModelError
            If the kernel is for other sizes.
        """
        if self.sizes is not None and any(sizes[name] != n for name, n in self.sizes.items()):
            raise ModelError("sizes", dict(sizes), f"{dict(self.sizes)}, for which this kernel was made")
        return 8 + _total(self.workspace, tuple(sizes.items()))

    def __call__(self, t: float, y: np.ndarray, out: np.ndarray, par: np.ndarray, work: np.ndarray) -> None:
        """Evaluate into ``out``. All arrays are contiguous float64 of the right length: nothing is checked here."""
        self.function(t, *(a.ctypes.data for a in (y, out, par, work)))

    @property
    def function(self) -> Callable[..., None]:
        """The compiled function for Python callers: time, and the addresses of the four arrays."""
        return _PROTOTYPE(self.address)


_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)


def kernel(dynamics: Dynamics, sizes: Mapping[str, int] | None = None) -> Kernel:
    """Return the compiled right-hand side of a Dynamics: the time derivatives of its states.

    Parameters
    ----------
    dynamics : Dynamics
    sizes : dict, optional
        The numbers of units, such as ``{"K": 2, "M": 2}``. A small system then becomes straight-line code for these
        alone, several times as fast as loops and no slower to compile; what is larger, or has numerical expectations,
        stays as it is without. The two differ by rounding.

    Returns
    -------
    Kernel
        ``.source`` is the generated source, ``.address`` what integrators take, ``.sizes`` what it is for.

    Raises
    ------
    ModelError
        If it is not a Dynamics, or ``sizes`` lacks one of its sizes.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> rhs = solve.kernel(derive.TeacherStudent(activation="square").dynamics())
    >>> "def kernel(t, y, out, par, work)" in rhs.source
    True
    >>> small = solve.kernel(derive.TeacherStudent(activation="square").dynamics(), {"K": 1, "M": 1})
    >>> "for" in rhs.source.split("def kernel")[1], "for i" in small.source.split("def kernel")[1]
    (True, False)
    """
    check_dynamics(dynamics)
    return _load(dynamics, "drift", None if sizes is None else _checked_sizes(dynamics, sizes))


def observables_kernel(dynamics: Dynamics) -> Kernel:
    """Return the compiled observables of a Dynamics, with the same calling convention."""
    return _load(dynamics, "observables", None)


def start_observables(dynamics: Dynamics) -> None:
    """Have the observables compiled beside what comes next, if that saves time."""
    if dynamics.observables:
        beside.start(_module(dynamics, "observables"), _generated(dynamics, "observables")[0])


def check_dynamics(given: object) -> None:
    """Raise a ModelError unless a Dynamics was given: a model, or equations written out, are easily taken for one."""
    if not isinstance(given, Dynamics):
        accepted = "a Dynamics: what model.dynamics() returns, for all numbers of units"
        raise ModelError("dynamics", Described(type(given).__name__), accepted)


def _checked_sizes(dynamics: Dynamics, given: Mapping[str, int]) -> tuple[int, ...]:
    """Return the sizes in the order in which ``par`` has them."""
    names = [str(size) for size in dynamics.sizes]
    accepted = f"a positive whole number for each of {', '.join(names)}"
    if not isinstance(given, Mapping) or not all(
        isinstance(given.get(name), (int, np.integer)) and given[name] > 0 for name in names
    ):
        raise ModelError("sizes", given, accepted)
    return tuple(int(given[name]) for name in names)


def loops_source(dynamics: Dynamics) -> str:
    """Return the source of the right-hand side for all sizes, not compiled."""
    return _generated(dynamics, "drift")[0]


def observables_source(dynamics: Dynamics) -> str:
    """Return the source of the observables for all sizes, not compiled."""
    return _generated(dynamics, "observables")[0]


def _load(dynamics: Dynamics, which: str, sizes: tuple[int, ...] | None) -> Kernel:
    """Return a kernel, made once: threads that want the same one wait for the first."""
    with _making:
        return _made(dynamics, which, sizes)


@lru_cache(maxsize=1024)
def _made(dynamics: Dynamics, which: str, sizes: tuple[int, ...] | None) -> Kernel:
    """Return straight-line code, if sizes are given and there is any for them, else loops."""
    if which == "drift":
        certification.start(dynamics)
    source, workspace = _generated(dynamics, which)
    if sizes is None:
        return _compiled(dynamics, which, source, workspace, None)
    straight = unrolled(source, sizes)
    if straight is None:
        return _made(dynamics, which, None)
    numbers = dict(zip(map(str, dynamics.sizes), sizes, strict=True))
    return _compiled(dynamics, which, straight[0], ((sympy.Integer(straight[1]),),), numbers)


@lru_cache(maxsize=256)
def _generated(dynamics: Dynamics, which: str) -> tuple[str, tuple[tuple[sympy.Expr, ...], ...]]:
    """Return the source of a kernel for all sizes, and the shapes of its scratch arrays."""
    outputs = [(e.quantity, e.expr) for e in getattr(dynamics, which)]
    return remembered(dynamics, which, lambda: generate(dynamics, outputs, f"{dynamics.title}: {which}."))


def _compiled(
    dynamics: Dynamics,
    which: str,
    source: str,
    workspace: tuple[tuple[sympy.Expr, ...], ...],
    sizes: Mapping[str, int] | None,
) -> Kernel:
    name = _module(dynamics, which)
    beside.wait(name, source)
    module = load_generated(name, source)
    outputs = tuple(e.quantity for e in getattr(dynamics, which))
    return Kernel(source, module.kernel.address, workspace, outputs, sizes, module)


def _module(dynamics: Dynamics, which: str) -> str:
    return f"{which}_{dynamics.kind}"


def compile_kernel(dynamics: Dynamics, outputs: Sequence[tuple[Quantity, sympy.Expr]], name: str, title: str) -> Kernel:
    """Return the kernel that computes ``outputs`` from the states and parameters of a Dynamics."""
    source, workspace = generate(dynamics, outputs, title)
    module = load_generated(name, source)
    return Kernel(source, module.kernel.address, workspace, tuple(q for q, _ in outputs), None, module)


def generate(
    dynamics: Dynamics, outputs: Sequence[tuple[Quantity, sympy.Expr]], title: str
) -> tuple[str, tuple[tuple[sympy.Expr, ...], ...]]:
    """Return the source of a kernel, and the shapes of its scratch arrays."""
    comments = [equation_comment(dynamics, q, expr) for q, expr in outputs]
    tables: Sequence[Table] = dynamics.tables
    dynamics, outputs, sizes_before = safe_names(dynamics, outputs)
    shared = share_over_first_index(outputs)
    outputs = shared.outputs
    fused = fusion(dynamics)
    renamed = {old: new for new, old in sizes_before.items()}
    tables = [replace(table, shape=tuple(n.xreplace(renamed) for n in table.shape)) for table in tables]
    splitting = splitting_of(dynamics, [expr for _, expr in (*shared.arrays, *outputs)], tables)
    memory = Memory(dynamics, fused, tables, splitting, [q for q, _ in shared.arrays])
    common, lowered = (
        [lower(dynamics, expr, fused, memory.symmetric) for _, expr in group] for group in (shared.arrays, outputs)
    )
    streamed = NODE_SIZES if tables else frozenset()
    emitter = Emitter(memory.element, lambda e: sort_symmetric_indices(e, memory.symmetric), streamed)
    for index, size in _letters(dynamics, fused):
        emitter.legend.see(index, size)
    for pair, block in fused.composite if fused else ():
        _emit_covariance(emitter, memory, pair, block)
    for (first, second), weight in fused.weights.items() if fused else ():
        _emit_weights(emitter, memory, weight, (first, second))
    fields = _emit_fields(emitter, memory, fused) if _uses_fields(memory, [*common, *lowered]) else []
    for (array, expr), low in zip(shared.arrays, common, strict=True):
        emitter.line("")
        emitter.line(f"# {array}, for all {outputs[0][0].shape[0]}: {dynamics.named(expr)}")
        _emit_shared(emitter, memory, array, low)
    offset = "0"
    for (quantity, _), low, comment in zip(outputs, lowered, comments, strict=True):
        emitter.line("")
        emitter.line(f"# {comment}")
        _emit_equation(emitter, quantity, low, offset)
        offset = plus(offset, packed_size(quantity))
    names = [*memory.unpacked, *fields, *emitter.scratch]
    prologue = memory.prologue(names, emitter.legend.notes, emitter.definitions)
    taken = NAME.findall("\n".join([*prologue, *emitter.stack[0].lines]))
    body = read_once(emitter.stack[0].lines, taken)
    return _SOURCE.format(
        title=title,
        signature=SIGNATURE,
        options=OPTIONS,
        functions=paste(emitter.functions),
        body=textwrap.indent("\n".join([*prologue, *body]), "    "),
    ), tuple(tuple(memory.in_sizes(s.subs(emitter.extents)).subs(sizes_before) for s in shape) for _, shape in names)


_SOURCE = '''"""{title}

Generated by effdyn; do not edit. ``par`` holds the sizes and parameters, ``y`` the states (symmetric ones as upper
triangles, row by row), ``work`` scratch space; ``out`` is written, packed like ``y``. The names of arrays are where
they begin; a remark says what each holds. Numbers tell names apart: ``row`` is an array that is filled once and read
often, ``twice`` one that holds its values twice over, ``copy`` one of elements lane by lane, ``t`` and ``w`` a value,
``s`` a sum; ``C_iu`` is the element of ``C`` at i, u. Indices of loops start from 0, those in formulas from 1; ``d`` is
a distance of two indices, cyclically.
"""

import math

from numba import cfunc, njit

{functions}

@cfunc("{signature}", {options})
def kernel(t, y, out, par, work):
{body}
'''


def _emit_equation(emitter: Emitter, quantity: Quantity, expr: sympy.Expr, offset: str) -> None:
    starts = ["" if depth == 0 or not quantity.symmetric else str(quantity.indices[0]) for depth in range(2)]
    loops: list[Loop] = [
        (index, size, starts[min(depth, 1)])
        for depth, (index, size) in enumerate(zip(quantity.indices, quantity.shape, strict=True))
    ]
    expr = emitter.sums_in_lanes(expr, loops, quantity.symmetric)
    if quantity.symmetric:
        emitter.line(f"p = {offset}  # position in out")
    for loop in loops[:-1]:
        emitter.loop(*loop)

    def store(value: str) -> list[str]:
        if quantity.symmetric:
            return [f"out[p] = {value}", "p += 1"]
        position = flat_index([str(i) for i in quantity.indices], quantity.shape) if loops else "0"
        return [f"out[{plus(offset, position)}] = {value}"]

    emitter.equation(expr, loops[-1] if loops else None, store)
    for _ in loops[:-1]:
        emitter.end()


def _emit_shared(emitter: Emitter, memory: Memory, array: Quantity, expr: sympy.Expr) -> None:
    """Write the loops that fill an array that several equations have in common."""
    (one, other), (rows, columns) = array.indices, array.shape
    places = [[str(one), str(other)], [str(other), str(one)]][: 2 if array.symmetric else 1]
    target = " = ".join(memory.element(array.symbol, place) for place in places)
    inner = (other, columns, str(one) if array.symmetric else "")
    expr = emitter.sums_in_lanes(expr, [(one, rows, ""), inner], array.symmetric)
    emitter.loop(one, rows)
    emitter.equation(expr, inner, lambda value: [f"{target} = {value}"])
    emitter.end()


def _letters(dynamics: Dynamics, fused: Fusion | None) -> list[tuple[sympy.Symbol, sympy.Expr]]:
    """Return the indices that the equations have for each size."""
    quantities = (*dynamics.states, *dynamics.parameters)
    own = [pair for q in quantities for pair in zip(q.indices, q.shape, strict=True)]
    return [*own, *((index, ALL) for index in (F, G) if fused)]


def _emit_covariance(emitter: Emitter, memory: Memory, pair: tuple[str, str], block: sympy.Lambda) -> None:
    """Write the covariances of two families that are no plain array into the matrix of all."""
    for index, family in zip((F, G), pair, strict=True):
        emitter.loop(index, next(f.size for f in memory.families if str(f.base) == family))
    emitter.line(memory.stores(pair, emitter.value(block(F, G))))
    emitter.end()
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


def _uses_fields(memory: Memory, expressions: Sequence[sympy.Expr]) -> bool:
    bases = {field_at_nodes(str(family.base)) for family in memory.node_families}
    return any(e.base in bases for expr in expressions for e in expr.atoms(sympy.Indexed))


def _emit_fields(emitter: Emitter, memory: Memory, fused: Fusion | None) -> list[tuple[str, tuple[sympy.Expr, ...]]]:
    """Write the fields at all nodes, between kinks if there are any, and return the arrays that this takes."""
    covariance = fused.covariance if fused else dict(memory.dynamics.covariance)
    means = dict(memory.dynamics.mean)
    starts = _starts(memory.node_families)
    emitter.line("")
    emitter.line("# fields at the nodes: mean + factor of the covariance * node")
    for n, first in enumerate(memory.node_families):
        own = _indices(F, first)
        with _over(emitter, own, first):
            mean = means[str(first.base)](*own) if str(first.base) in means else sympy.S.Zero
            emitter.line(f"work[mean + {_place(starts[n], own, first)}] = {emitter.value(mean)}")
        for m, second in enumerate(memory.node_families[: n + 1]):
            other = _indices(G, second)
            with _over(emitter, own, first), _over(emitter, other, second):
                value = emitter.value(overlap_of(first.base[own], second.base[other], covariance))
                places = [_place(starts[n], own, first), _place(starts[m], other, second)]
                emitter.line(f"work[factor + {flat_index(places, (ALL_FIELDS, ALL_FIELDS))}] = {value}")
    emitter.functions.add("cholesky")
    emitter.line(f"cholesky(work, factor, {ALL_FIELDS}, {OWN_FIELDS}, {COLUMNS})")
    law: list[tuple[str, tuple[sympy.Expr, ...]]] = [("factor", (ALL_FIELDS, ALL_FIELDS)), ("mean", (ALL_FIELDS,))]
    if memory.splitting:
        emit_splitting(emitter, memory.splitting, memory.dynamics)
        return [*law, ("field", (ALL_FIELDS + memory.splitting.noise, NODES)), *memory.splitting.scratch]
    emitter.functions.add("fields_at_nodes")
    emitter.line(f"fields_at_nodes(work, field, mean, factor, par, node_joint, {ALL_FIELDS}, {COLUMNS}, {NODES})")
    return [*law, ("field", (ALL_FIELDS, NODES))]


def _indices(letter: sympy.Symbol, family: FieldFamily) -> tuple[sympy.Symbol, ...]:
    """Return the indices of a field: the letter, numbered if there are several."""
    if not family.shape:
        return (letter,)
    return tuple(sympy.Symbol(f"{letter}{n}", **letter.assumptions0) for n in range(1, len(family.shape) + 1))


@contextmanager
def _over(emitter: Emitter, indices: Sequence[sympy.Symbol], family: FieldFamily) -> Iterator[None]:
    """Write what is inside as loops over all fields of a family."""
    for index, size in zip(indices, family.axes, strict=True):
        emitter.loop(index, size)
    yield
    for _ in indices:
        emitter.end()


def _place(start: str, indices: Sequence[sympy.Symbol], family: FieldFamily) -> str:
    """Return the text of the number of a field among all."""
    return plus(start, flat_index([str(i) for i in indices], family.axes))


def _starts(families: Sequence[FieldFamily]) -> list[str]:
    """Return the texts of the positions of each family's first field."""
    starts = ["0"]
    for family in families:
        starts.append(plus(starts[-1], str(family.size)))
    return starts


def equation_comment(dynamics: Dynamics, quantity: Quantity, expr: sympy.Expr) -> str:
    """Return the equation as one line of text, moments by name."""
    left = {"ode": f"d{quantity}/dt", "map": f"change of {quantity}"}.get(dynamics.kind, str(quantity))
    left = left if quantity in dynamics.states else str(quantity)
    return f"{left} = {dynamics.named(expr)}"


@lru_cache(maxsize=1024)
def _total(shapes: tuple[tuple[sympy.Expr, ...], ...], sizes: tuple[tuple[str, int], ...]) -> int:
    """Return the number of elements of arrays with these symbolic shapes."""
    numbers = dict(sizes)

    def extent(size: sympy.Expr) -> int:
        return int(size.subs({s: numbers[str(s)] for s in size.free_symbols}))

    return sum(math.prod(map(extent, shape)) for shape in shapes)
