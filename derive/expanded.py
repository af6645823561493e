"""Equations of motion written out for given numbers of units: for reading and LaTeX, never for computing.

Flattening K = M = 6 takes minutes to compile; what is computed is the indexed form.
"""

import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import sympy

from .errors import ModelError, nearest
from .export.grouping import collected
from .export.line_breaking import environment, row
from .export.printer import StarredIndex
from .export.rows import PLAIN_LEFT, change, printer_for, time_derivative
from .moments import Joint, Moment

if TYPE_CHECKING:
    from .dynamics import Dynamics, Equation, Quantity

Pair = tuple[sympy.Expr, sympy.Expr]


@dataclass(frozen=True, slots=True, repr=False)
class ExpandedDynamics:
    """Scalar equations for fixed numbers of units.

    Attributes
    ----------
    dynamics : Dynamics
        What they were written out from.
    sizes : tuple of (str, int)
        The number for each symbolic size.
    equations : tuple of (Expr, Expr)
        Each entry of each state, and its time derivative; of a symmetric state the entries i ≤ k.
    observables : tuple of (Expr, Expr)
        Each entry of each observable, and its value.

    Examples
    --------
    >>> from effdyn import derive
    >>> derive.TeacherStudent(activation="erf").dynamics().expand(K=2, M=1)
    TeacherStudent(activation='erf').dynamics(limit='high-dimensional').expand(K=2, M=1)
    >>> erf = derive.TeacherStudent(activation="erf").dynamics(limit="gradient-flow")
    >>> print(erf.expand(K=1, M=1))
    dQ[1, 1]/dt = -2*a[1]**2*E[g'(h[1]) h[1] g(h[1])] + 2*a[1]*b[1]*E[g'(h[1]) h[1] g(h_star[1])]
    dR[1, 1]/dt = -a[1]**2*E[g'(h[1]) h_star[1] g(h[1])] + a[1]*b[1]*E[g'(h[1]) h_star[1] g(h_star[1])]
    """

    dynamics: "Dynamics"
    sizes: tuple[tuple[str, int], ...]
    equations: tuple[Pair, ...]
    observables: tuple[Pair, ...]

    def closed(self) -> "ExpandedDynamics":
        """Return the same equations with every Gaussian moment replaced by its closed form in the overlaps.

        Raises
        ------
        NoClosedForm
            If a moment has none.
        """

        def close(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
            return tuple((left, self._closed(right)) for left, right in pairs)

        return replace(self, equations=close(self.equations), observables=close(self.observables))

    def _closed(self, expr: sympy.Expr) -> sympy.Expr:
        numbers = {size: dict(self.sizes)[str(size)] for size in self.dynamics.sizes}
        values = {
            m: _tidy(_once(self.dynamics, write_sums(self.dynamics.closed(m), numbers))) for m in expr.atoms(Moment)
        }
        closed = expr.xreplace(values)
        return sympy.expand(closed) if closed.is_polynomial() else closed

    def latex(self) -> str:
        """Return the equations of motion as an ``align`` with lines that fit; a teacher's number carries a star."""
        return self._environment("align")

    def _repr_latex_(self) -> str:
        return f"$${self._environment('aligned')}$$"

    def _environment(self, name: str) -> str:
        printer = printer_for(self.dynamics)
        derivative = time_derivative if self.dynamics.kind == "ode" else change
        rows = [
            row(derivative(left, printer), collected(_starred(self.dynamics, right), printer))
            for left, right in self.equations
        ]
        return environment(name, rows)

    def __repr__(self) -> str:
        call = f"{self.dynamics!r}.expand({', '.join(f'{name}={number}' for name, number in self.sizes)})"
        written = expand(self.dynamics, dict(self.sizes))
        if self == written:
            return call
        if self == written.closed():
            return f"{call}.closed()"
        return f"ExpandedDynamics({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))})"

    def __str__(self) -> str:
        form = PLAIN_LEFT[self.dynamics.kind]
        return "\n".join(f"{form.format(left)} = {right}" for left, right in self.equations)


def expand(dyn: "Dynamics", sizes: Mapping[str, int]) -> ExpandedDynamics:
    """Return a Dynamics written out for given numbers of units.

    Parameters
    ----------
    dyn : Dynamics
    sizes : mapping of str to int
        A positive number for each of its sizes.

    Raises
    ------
    ModelError
        If a size is missing, unknown or not a positive integer.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> [str(left) for left, _ in expand(dyn, {"K": 2, "M": 1}).equations]
    ['Q[1, 1]', 'Q[1, 2]', 'Q[2, 2]', 'R[1, 1]', 'R[2, 1]']
    """
    numbers = _checked(dyn, sizes)
    return ExpandedDynamics(
        dyn,
        tuple((str(size), number) for size, number in numbers.items()),
        tuple(pair for equation in dyn.drift for pair in _entries(dyn, equation, numbers)),
        tuple(pair for equation in dyn.observables for pair in _entries(dyn, equation, numbers)),
    )


def _checked(dyn: "Dynamics", sizes: Mapping[str, int]) -> dict[sympy.Symbol, int]:
    known = {str(size): size for size in dyn.sizes}
    needed = f"a positive whole number for each of {', '.join(known)}"
    for name, number in sizes.items():
        if name not in known:
            raise ModelError(name, number, f"the sizes of these equations are {', '.join(known)}{nearest(name, known)}")
        try:
            positive = operator.index(number) > 0 and not isinstance(number, bool)
        except TypeError:
            positive = False
        if not positive:
            raise ModelError(name, number, needed)
    if missing := [name for name in known if name not in sizes]:
        raise ModelError(
            "sizes", dict(sizes), f"{needed}; {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    return {size: operator.index(sizes[name]) for name, size in known.items()}


def _entries(dyn: "Dynamics", equation: "Equation", sizes: Mapping[sympy.Symbol, int]) -> list[Pair]:
    quantity = equation.quantity
    pairs = []
    for entry in itertools.product(*(range(1, sizes[size] + 1) for size in quantity.shape)):
        if quantity.symmetric and list(entry) != sorted(entry):
            continue
        at = {index: sympy.Integer(n) for index, n in zip(quantity.indices, entry, strict=True)}
        pairs.append((quantity.symbol.xreplace(at), _once(dyn, write_out(equation.expr.xreplace(at), sizes))))
    return pairs


def write_out(expr: sympy.Expr, sizes: Mapping[sympy.Symbol, int]) -> sympy.Expr:
    """Return an expression with its sums written out and its sizes as numbers, multiplied out."""
    return _around_moments(write_sums(expr, sizes), sympy.expand)


def write_sums(expr: sympy.Expr, sizes: Mapping[sympy.Symbol, int]) -> sympy.Expr:
    """Return an expression with its sums written out and its sizes as numbers; sums over nodes of rules stay."""

    def total(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        for index, low, high in limits:
            if not high.is_number:
                return sympy.Sum(summand, *limits)
            summand = sympy.Add(*(summand.xreplace({index: sympy.Integer(n)}) for n in range(int(low), int(high) + 1)))
        return summand

    numbers = {size: sympy.Integer(n) for size, n in sizes.items()}
    return expr.xreplace(numbers).replace(sympy.Sum, total)


def _around_moments(expr: sympy.Expr, change: Callable[[sympy.Expr], sympy.Expr]) -> sympy.Expr:
    """Return ``change(expr)`` where moments count as symbols: what is in them keeps its signature."""
    moments = sorted(expr.atoms(Moment, Joint), key=sympy.default_sort_key)
    inside = {m: sympy.Dummy(f"moment{n}", real=True) for n, m in enumerate(moments)}
    return change(expr.xreplace(inside)).xreplace({symbol: m for m, symbol in inside.items()})


def _once(dyn: "Dynamics", expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the entries of symmetric arrays in ascending order of their indices."""
    quantities: tuple[Quantity, ...] = (*dyn.parameters, *(e.quantity for e in dyn.equations))
    symmetric = {q.name for q in quantities if q.symmetric}
    swap = {}
    for entry in expr.atoms(sympy.Indexed):
        if str(entry.base) in symmetric and all(i.is_number for i in entry.indices):
            swap[entry] = entry.base[tuple(sorted(entry.indices))]
    return expr.xreplace(swap)


@lru_cache(maxsize=4096)
def _tidy(expr: sympy.Expr) -> sympy.Expr:
    """Return a closed form with rational parts as one fraction, and the roots of fractions apart.

    Q − Q²/(1 + Q) is Q/(1 + Q); √(p/q) = √p/√q, as q is a product of determinants 1 + αQ, … of tilted covariances.
    """
    expr = expr.replace(lambda e: e.is_Add and e.is_rational_function() and not e.is_polynomial(), sympy.factor)

    def apart(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
        above, below = sympy.fraction(base)
        return above**exponent / below**exponent

    return expr.replace(lambda e: e.is_Pow and e.exp.is_Rational and e.exp.q == 2, lambda e: apart(*e.args))


def _starred(dyn: "Dynamics", expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with moments as calls of their names, in which a teacher's number carries a star."""
    names = {(m.signature, m.shape): m.name for m in dyn.moments}

    def argument(h: sympy.Indexed) -> sympy.Expr:
        return StarredIndex(str(h.indices[0])) if str(h.base).endswith("_star") else h.indices[0]

    def call(*factors: sympy.Expr) -> sympy.Expr:
        moment = Moment(*factors)
        return sympy.Function(names[moment.signature, moment.shape])(*map(argument, moment.fields))

    return expr.replace(Moment, call)
