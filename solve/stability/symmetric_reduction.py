"""``solve.symmetric_reduction``: the equations of states that an exchange of units does not change, for any K and M.

Under a group of permutations the entries of an array fall into orbits of their indices, and an invariant state has one
value on each. Which orbit an entry is in only depends on which of its indices are equal. So a sum over all units is a
sum over the units that are already named in the equation, and one further unit for all others, with their number:

    Σ_j f(i, k, j)  =  f(i, k, i) + f(i, k, k) + (K − 2) f(i, k, j),   j another unit.

The numbers K and M become parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, Equation, ModelError, NotYet, Quantity
from effdyn.derive.errors import Described, nearest

from ..kernels.fuse import is_plain
from ..kernels.gram import gram_laws
from ..kernels.layout import Inputs, read_inputs

GROUPS = {
    "symmetric": "all students may be exchanged with each other, and all teacher units with each other",
    "specialised": "students and teacher units may be exchanged in pairs: student n belongs to teacher unit n",
}
"""Groups of permutations, by the name of the ansatz that they lead to."""
NAMES = {"Q": ("Q", "C"), "R": ("R", "S"), "T": ("T", "T_off")}
"""Names of orbits where papers have names: of equal indices, of different ones."""
SYMMETRIC = 1e-9
"""Largest difference of entries of one orbit, relative."""


@dataclass(frozen=True, slots=True)
class Orbit:
    """Entries that an exchange of units carries into each other: of which array, whether their two indices name the
    same unit (None if there are not two that could), and the scalar that stands for them."""

    array: Quantity
    same: bool | None
    quantity: Quantity


def symmetric_reduction(dynamics: Dynamics, ansatz: str = "symmetric") -> Dynamics:
    """Return the equations of motion of symmetric states: a few scalars for any numbers of units.

    Nothing is approximated: a symmetric state stays symmetric, so this is the flow from such a start. Whether it is
    stable is another question, which the reduction cannot answer (see :func:`linearize`). It does know which values
    vectors can have (``.gram``, the Gram matrix of all vectors up to a rotation): others are refused by solvers.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations in arrays indexed by students and teacher units, with closed moments.
    ansatz : {"symmetric", "specialised"}
        ``"symmetric"``: Q_ii = Q, Q_ik = C, R_in = R. ``"specialised"``, for K = M: also R_nn = R and R_in = S for
        i ≠ n.

    Returns
    -------
    Dynamics
        Its states are the values on the orbits; its parameters those of ``dynamics`` on theirs (T_nn = T,
        T_nm = T_off), and the numbers of units, ``K`` and ``M`` or, specialised, ``K``. :func:`reduce_inputs` gives
        both from full arrays, :func:`lift` goes back.

    Raises
    ------
    ModelError
        For another ansatz, or equations that name particular units.
    NotYet
        For equations that have numerical expectations or are not differential.

    Examples
    --------
    >>> from effdyn import derive
    >>> from effdyn.solve.stability import symmetric_reduction
    >>> flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    >>> print(symmetric_reduction(flow)["R"])
    a*(T*b + T_off*b*(M - 1)) - a*(R*a*(K - 1) + R*a)
    """
    _check(dynamics, ansatz)
    orbits = _orbits(dynamics, ansatz)
    values = {(o.array.name, o.same): o.quantity for o in orbits}
    states = {q.name for q in dynamics.states}
    drift = tuple(
        Equation(o.quantity, _reduced(dynamics, o, values, ansatz), _status(dynamics, o))
        for o in orbits
        if o.array.name in states
    )
    parameters = tuple(o.quantity for o in orbits if o.array.name not in states)
    observables = tuple(
        Equation(e.quantity, _reduced_expr(dynamics, e.expr, {}, values, ansatz), e.status)
        for e in dynamics.observables
        if not e.quantity.indices
    )
    return Dynamics(
        title=f"{dynamics.title}, {ansatz} states",
        kind="ode",
        clock=dynamics.clock,
        drift=drift,
        parameters=(*parameters, *_numbers(dynamics, ansatz)),
        observables=observables,
        assumptions=(*dynamics.assumptions, f"{GROUPS[ansatz]}: the start and the parameters do not tell them apart"),
        status=dynamics.status,
        limit=dynamics.limit,
        gram=_gram(dynamics, values, ansatz),
    )


def reduce_inputs(
    dynamics: Dynamics, y0: Any, params: Mapping[str, Any], ansatz: str = "symmetric"
) -> tuple[dict[str, float], dict[str, float]]:
    """Return initial values and parameters of the reduction from those of the full equations.

    Raises
    ------
    ModelError
        If an array does not have the symmetry, naming it; or for bad input, as ``solve.integrate`` does.

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn import derive, solve
    >>> from effdyn.solve.stability import reduce_inputs, symmetric_reduction
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> full = dict(Q=0.1 * np.eye(3), R=np.full((3, 3), 0.01)), dict(eta=1.0, sigma=0.0, T=np.eye(3), a=1.0, b=1.0)
    >>> y0, params = reduce_inputs(dyn, *full)
    >>> sol = solve.integrate(symmetric_reduction(dyn), (0, 300), y0, params)
    >>> round(float(sol.R[-1]), 3), params["K"], params["T_off"]
    (0.303, 3.0, 0.0)
    """
    _check(dynamics, ansatz)
    inputs = read_inputs(dynamics, y0, params)
    found: dict[str, float] = {}
    for orbit in _orbits(dynamics, ansatz):
        name = orbit.array.name
        array = inputs.y0[name] if name in inputs.y0 else inputs.params[name]
        found[orbit.quantity.name] = _value(orbit, array, "y0" if name in inputs.y0 else "params")
    reduced = {o.quantity.name for o in _orbits(dynamics, ansatz) if o.array.name in inputs.y0}
    numbers = _unit_numbers(inputs, dynamics, ansatz)
    start = {name: value for name, value in found.items() if name in reduced}
    return start, {name: value for name, value in found.items() if name not in reduced} | numbers


def lift(
    dynamics: Dynamics, values: Mapping[str, Any], ansatz: str = "symmetric", **sizes: int
) -> dict[str, np.ndarray]:
    """Return the full arrays of states from the values of the reduction, with any leading axes such as time.

    Parameters
    ----------
    dynamics : Dynamics
        The full equations.
    values : mapping or Dataset
        The reduction's states, such as ``solution.isel(t=-1)``.
    ansatz : str
    **sizes : int
        ``K=2, M=2``.

    Raises
    ------
    ModelError
        If a value or a size is missing.

    Examples
    --------
    >>> from effdyn import derive
    >>> from effdyn.solve.stability import lift
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> lift(dyn, dict(Q=0.5, C=0.1, R=0.2), K=2, M=1)["Q"]
    array([[0.5, 0.1],
           [0.1, 0.5]])
    """
    _check(dynamics, ansatz)
    orbits = [o for o in _orbits(dynamics, ansatz) if o.array in dynamics.states]
    for name in (o.quantity.name for o in orbits):
        if name not in values:
            raise ModelError("values", sorted(map(str, values)), f"a value for {name} as well")
    missing = [str(s) for s in dynamics.sizes if str(s) not in sizes]
    if missing:
        raise ModelError("sizes", dict(sizes), f"a number for {' and '.join(missing)} as well")
    arrays: dict[str, np.ndarray] = {}
    for orbit in orbits:
        value = np.asarray(values[orbit.quantity.name], dtype=float)
        shape = tuple(sizes[str(s)] for s in orbit.array.shape)
        whole = arrays.setdefault(orbit.array.name, np.zeros((*value.shape, *shape)))
        whole[..., _members(orbit, shape)] = value[..., None]
    return arrays


# -- orbits ------------------------------------------------------------------------------------------------------------


def _check(dynamics: Dynamics, ansatz: str) -> None:
    if ansatz not in GROUPS:
        raise ModelError("ansatz", ansatz, f"one of {', '.join(map(repr, GROUPS))}{nearest(ansatz, GROUPS)}")
    if dynamics.kind != "ode" or dynamics.tables:
        what = "numerical expectations" if dynamics.tables else f"equations of kind {dynamics.kind!r}"
        raise NotYet(f"the symmetric reduction of {what}", "differential equations with closed moments")
    if dynamics.least_sizes:
        given = f"equations that name unit {max(dynamics.least_sizes.values())}"
        raise ModelError("dynamics", Described(given), "equations that do not tell units apart")
    for q in (*dynamics.states, *dynamics.parameters):
        if len(q.shape) > 2:
            raise NotYet(f"the symmetric reduction of {q.name}, with {len(q.shape)} indices", "arrays with up to two")


def _orbits(dynamics: Dynamics, ansatz: str) -> list[Orbit]:
    """Return the orbits of all states and parameters."""
    taken: set[str] = {str(s) for s in dynamics.sizes}
    found = []
    for q in (*dynamics.states, *dynamics.parameters):
        for same in _kinds(q, ansatz):
            names = NAMES.get(q.name, (q.name, f"{q.name}_off"))
            name = names[0] if same is not False else names[1]
            while name in taken:
                name += "_"
            taken.add(name)
            found.append(Orbit(q, same, _scalar(q, name, same)))
    return found


def _kinds(q: Quantity, ansatz: str) -> tuple[bool | None, ...]:
    """Return which orbits the entries of an array make: of equal and of different indices, or one for all."""
    if len(q.shape) < 2:
        return (None,)
    return (True, False) if q.shape[0] == q.shape[1] or ansatz == "specialised" else (None,)


def _scalar(q: Quantity, name: str, same: bool | None) -> Quantity:
    which = {True: ", equal indices", False: ", different indices", None: ""}[same]
    length = q.symmetric and same is True  # squared, of a vector
    minimum = 0.0 if length else q.minimum if same is not False else None
    return Quantity(name, latex=name.replace("_off", "'"), meaning=f"{q.meaning}{which}", minimum=minimum)


def _members(orbit: Orbit, shape: tuple[int, ...]) -> Any:
    """Return a mask of the entries of an array that are in an orbit."""
    if orbit.same is None:
        return np.ones(shape, dtype=bool)
    rows, columns = shape
    diagonal = np.eye(rows, columns) == 1
    return diagonal if orbit.same else ~diagonal


def _value(orbit: Orbit, array: np.ndarray, place: str) -> float:
    """Return the common value of the entries of an orbit; 0 if it has none."""
    entries = array[_members(orbit, array.shape)]
    if not entries.size:
        return 0.0
    if np.ptp(entries) > SYMMETRIC * np.abs(array).max():
        given = f"entries of {orbit.quantity.name} from {entries.min():.6g} to {entries.max():.6g}"
        raise ModelError(f"{place}[{orbit.array.name!r}]", Described(given), "equal values: the ansatz is symmetric")
    return float(entries.mean())


def _numbers(dynamics: Dynamics, ansatz: str) -> tuple[Quantity, ...]:
    sizes = dynamics.sizes[:1] if ansatz == "specialised" else dynamics.sizes
    return tuple(Quantity(str(s), latex=str(s), meaning=f"the number {s} of units", minimum=1.0) for s in sizes)


def _unit_numbers(inputs: Inputs, dynamics: Dynamics, ansatz: str) -> dict[str, float]:
    numbers = [inputs.sizes[str(s)] for s in dynamics.sizes]
    if ansatz == "specialised" and len(set(numbers)) > 1:
        given = ", ".join(f"{s} = {n}" for s, n in zip(dynamics.sizes, numbers, strict=True))
        raise ModelError("y0", Described(given), "as many students as teacher units: a specialised state pairs them")
    return {str(q): float(inputs.sizes[str(q)]) for q in _numbers(dynamics, ansatz)}


# -- overlaps of vectors -----------------------------------------------------------------------------------------------


def _gram(
    dynamics: Dynamics, values: Mapping[tuple[str, bool | None], Quantity], ansatz: str
) -> tuple[tuple[sympy.Expr, ...], ...]:
    """Return the Gram matrix of all vectors, in the basis in which symmetric ones are few numbers.

    With n units in a population, these are their sum over √n, and n − 1 differences that are alike. So the eigenvalues
    of the whole matrix are those of the one between sums, (u + (n − 1)v) on the diagonal and √(n n') v off it (u for
    equal indices, v for others), and those of the one between differences, u − v: diagonal, unless units go in pairs.
    """
    laws = gram_laws(dynamics)
    if not laws or not all(is_plain(law) for row in laws for law, _ in row):
        return ()
    blocks = [[str(law.expr.base) for law, _ in row] for row in laws]
    sizes = [_count(sympy.sympify(f.size), dynamics, ansatz) for f in dynamics.families if not f.derived]

    def entries(name: str, row: int, column: int) -> tuple[sympy.Expr, sympy.Expr]:
        if (name, None) in values:  # students with teachers, all alike
            return sympy.sqrt(sizes[row] * sizes[column]) * values[name, None].symbol, sympy.S.Zero
        u, v = (values[name, same].symbol for same in (True, False))
        # One unit alone has no differences: then v means nothing.
        return u + (sizes[row] - 1) * v, (u - v) * sympy.Min(1, sizes[row] - 1)

    pairs = [[entries(name, i, j) for j, name in enumerate(row)] for i, row in enumerate(blocks)]
    zeros = (sympy.S.Zero,) * len(blocks)
    sums = [(*(s for s, _ in row), *zeros) for row in pairs]
    differences = [(*zeros, *(d for _, d in row)) for row in pairs]
    return (*sums, *differences)


# -- equations ---------------------------------------------------------------------------------------------------------

Units = dict[sympy.Symbol, list[int]]
"""The units named so far in each population; populations that are exchanged together share their list."""


def _status(dynamics: Dynamics, orbit: Orbit) -> str:
    return next(e.status for e in dynamics.drift if e.quantity == orbit.array)


def _reduced(
    dynamics: Dynamics, orbit: Orbit, values: Mapping[tuple[str, bool | None], Quantity], ansatz: str
) -> sympy.Expr:
    """Return the time derivative of the value on an orbit, from that of one of its entries."""
    entry = (1, 2) if orbit.same is False else (1, 1)
    at = dict(zip(orbit.array.indices, entry, strict=False))
    return _reduced_expr(dynamics, dynamics[orbit.array.name], at, values, ansatz, orbit.array.shape)


def _reduced_expr(
    dynamics: Dynamics,
    expr: sympy.Expr,
    at: Mapping[sympy.Symbol, int],
    values: Mapping[tuple[str, bool | None], Quantity],
    ansatz: str,
    shape: tuple[sympy.Symbol, ...] = (),
) -> sympy.Expr:
    """Return an expression at given units, its sums written over the units named and others, in orbit values."""
    shared: list[int] = []
    units: Units = {size: (shared if ansatz == "specialised" else []) for size in dynamics.sizes}
    for number, size in zip(at.values(), shape, strict=False):
        if number not in units[size]:
            units[size].append(number)
    written = _sums(dynamics.closed(expr).xreplace({i: sympy.Integer(n) for i, n in at.items()}), units, ansatz)

    def value(entry: sympy.Indexed) -> sympy.Expr:
        name, indices = str(entry.base), entry.indices
        two = (name, True) in values
        return sympy.sympify(values[name, indices[0] == indices[1] if two else None].symbol)

    written = written.xreplace({e: value(e) for e in written.atoms(sympy.Indexed)})
    return written.xreplace({size: _count(size, dynamics, ansatz) for size in dynamics.sizes})


def _count(size: sympy.Symbol, dynamics: Dynamics, ansatz: str) -> sympy.Expr:
    """Return the parameter that says how many units there are."""
    name = str(dynamics.sizes[0] if ansatz == "specialised" else size)
    return sympy.sympify(next(q for q in _numbers(dynamics, ansatz) if q.name == name).symbol)


def _sums(expr: sympy.Expr, units: Units, ansatz: str) -> sympy.Expr:
    """Write out sums: over each unit that has been named, and over another one, times the number of others."""
    if isinstance(expr, sympy.Sum):
        *inner, (index, _, size) = expr.limits
        summand = sympy.Sum(expr.function, *inner) if inner else expr.function
        named = units[size]
        terms = [_sums(summand.xreplace({index: sympy.Integer(n)}), units, ansatz) for n in named]
        other = max(named, default=0) + 1
        further = {s: ([*u, other] if u is named else u) for s, u in units.items()}
        rest = _sums(summand.xreplace({index: sympy.Integer(other)}), further, ansatz)
        return sympy.Add(*terms, (size - len(named)) * rest)
    if not expr.args or not expr.has(sympy.Sum):
        return expr
    return expr.func(*(_sums(a, units, ansatz) for a in expr.args))
