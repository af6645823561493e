"""The Dynamics value: closed equations of motion, and everything known about where they come from.

It is all that crosses from ``derive`` to ``solve``. Expressions are indexed: free indices, ``Sum``s over dummy indices
running from 1 to symbolic sizes, Gaussian moments as named nodes. Knows nothing of any particular model, nor of how it
will be evaluated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sympy

from .increments import overlap_of
from .limits import Dropped
from .moments import Moment

if TYPE_CHECKING:
    from .expanded import ExpandedDynamics
    from .named_moments import NamedMoment
    from .numerical.quadrature import Table


@dataclass(frozen=True, slots=True)
class Quantity:
    """A named array: a state, a parameter or an observable.

    Attributes
    ----------
    name : str
        Its name in every call, result and file.
    indices : tuple of Symbol
        The free indices of its equation; empty for a scalar.
    shape : tuple of Symbol
        The symbolic sizes that the indices run to.
    latex, meaning : str
        How it prints, and one line on what it is.
    symmetric : bool
        Whether it is a symmetric matrix; then its equation is symmetric too.
    minimum, maximum : float or None
        The least and the largest admissible value (0 for a rate or a standard deviation).
    dims : tuple of str
        The names of its axes in results.
    """

    name: str
    indices: tuple[sympy.Symbol, ...] = ()
    shape: tuple[sympy.Symbol, ...] = ()
    latex: str = ""
    meaning: str = ""
    symmetric: bool = False
    minimum: float | None = None
    dims: tuple[str, ...] = ()
    maximum: float | None = None

    @property
    def base(self) -> sympy.Basic:
        """What stands for it in expressions: an ``IndexedBase``, or a ``Symbol`` for a scalar."""
        return sympy.IndexedBase(self.name, real=True) if self.indices else scalar(self.name, self.minimum)

    @property
    def symbol(self) -> sympy.Expr:
        """The quantity at its own indices, as on the left-hand side of its equation."""
        return self.base[self.indices] if self.indices else self.base

    def __str__(self) -> str:
        return str(self.symbol)


def scalar(name: str, minimum: float | None = None) -> sympy.Symbol:
    """Return the symbol of a scalar quantity."""
    return sympy.Symbol(name, real=True) if minimum is None else sympy.Symbol(name, nonnegative=True)


@dataclass(frozen=True, slots=True)
class Equation:
    """``d(quantity)/dt = expr`` for a state, ``quantity = expr`` for an observable; ``status`` is exact, ansatz or
    numerical."""

    quantity: Quantity
    expr: sympy.Expr
    status: str = "exact"


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the derivation: what was done, why, and the expressions it left, as (left-hand side, right-hand
    side)."""

    title: str
    explanation: str
    equations: tuple[tuple[sympy.Basic, sympy.Expr], ...] = ()


@dataclass(frozen=True, slots=True)
class FieldFamily:
    """The local fields of one family of vectors: the ``IndexedBase`` they print under, and the number of them.

    A ``derived`` family consists of linear combinations of other fields, such as a linear student's output: its
    covariances are functions of the order parameters, not order parameters themselves.
    """

    base: sympy.IndexedBase
    size: sympy.Expr
    latex: str
    derived: bool = False


@dataclass(frozen=True)
class Dynamics:
    """Closed equations of motion of a few order parameters.

    Attributes
    ----------
    title : str
        What it is the dynamics of.
    kind : str
        ``"ode"``.
    clock : str
        What t is: ``"steps/d"`` (examples per input dimension) or ``"eta*steps/d"``.
    drift : tuple of Equation
        The time derivative of each state.
    parameters : tuple of Quantity
        What must be given besides initial values.
    observables : tuple of Equation
        Derived quantities.
    families : tuple of FieldFamily
        The local fields over which the moments are taken.
    covariance : tuple of ((str, str), Lambda)
        The covariance of two fields by their families, as a function of their indices.
    mean : tuple of (str, Lambda)
        The mean of a field by its family, as a function of its index; families without one are centred.
    assumptions : tuple of str
        Under what hypotheses the equations hold.
    status : str
        ``exact``, ``ansatz`` or ``numerical``, with the reason; term by term it stands on each :class:`Equation`.
    steps, dropped
        The derivation: its stages, and the terms that vanished.
    model, limit, method
        What it was derived from, and how moments were to be computed; ``None`` and ``""`` for equations written by
        hand.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> [str(e.quantity) for e in dyn.drift]
    ['Q[i, k]', 'R[i, n]']
    >>> eval(repr(dyn), vars(derive)) == dyn
    True
    """

    title: str
    kind: str
    clock: str
    drift: tuple[Equation, ...]
    parameters: tuple[Quantity, ...] = ()
    observables: tuple[Equation, ...] = ()
    families: tuple[FieldFamily, ...] = ()
    covariance: tuple[tuple[tuple[str, str], sympy.Lambda], ...] = ()
    mean: tuple[tuple[str, sympy.Lambda], ...] = ()
    assumptions: tuple[str, ...] = ()
    status: str = "exact"
    steps: tuple[Step, ...] = field(default=(), repr=False, compare=False)
    dropped: tuple[Dropped, ...] = field(default=(), repr=False, compare=False)
    model: Any = field(default=None, repr=False)
    limit: str = field(default="", repr=False)
    method: str = field(default="auto", repr=False)

    @property
    def states(self) -> tuple[Quantity, ...]:
        """The order parameters that move."""
        return tuple(equation.quantity for equation in self.drift)

    @property
    def equations(self) -> tuple[Equation, ...]:
        """Drift and observables together."""
        return self.drift + self.observables

    @property
    def sizes(self) -> tuple[sympy.Symbol, ...]:
        """The symbolic sizes (K, M, …) of all arrays, sorted by name."""
        quantities = (*self.states, *self.parameters)
        return tuple(sorted({size for q in quantities for size in q.shape}, key=str))

    def __getitem__(self, name: str) -> sympy.Expr:
        """Return the right-hand side of the equation of the state or observable ``name``."""
        for equation in self.equations:
            if equation.quantity.name == name:
                return equation.expr
        raise KeyError(f"no equation for {name!r}; there are {', '.join(e.quantity.name for e in self.equations)}")

    def overlap(self, f: sympy.Indexed, g: sympy.Indexed) -> sympy.Expr:
        """Return the covariance of two local fields, in order parameters."""
        return overlap_of(f, g, dict(self.covariance))

    @cached_property
    def tables(self) -> "tuple[Table, ...]":
        """The arrays of nodes and weights that its numerical expectations need."""
        from .numerical.quadrature import tables_of

        return tables_of(self)

    @cached_property
    def least_sizes(self) -> dict[sympy.Expr, int]:
        """The least number behind each size that occurs with a number as index, as in h*_3."""
        families = {family.base: family.size for family in self.families if not family.derived}
        fields = [f for e in self.equations for f in e.expr.atoms(sympy.Indexed) if f.base in families]
        numbers = [(families[f.base], int(f.indices[0])) for f in fields if f.indices[0].is_number]
        return {size: max(n for s, n in numbers if s == size) for size, _ in numbers}

    @cached_property
    def moments(self) -> "tuple[NamedMoment, ...]":
        """The distinct Gaussian moments of the equations, in order of appearance, each with its name and closed
        form."""
        from .named_moments import name_moments

        found = (m for e in self.equations for m in _moments_in_order(e.expr))
        return name_moments(found, shifted=bool(self.mean))

    def closed(self, expr: sympy.Expr) -> sympy.Expr:
        """Return ``expr`` with every Gaussian moment replaced by its closed form in the order parameters.

        Raises
        ------
        NoClosedForm
            If a moment has none.
        """
        return close_moments(expr, dict(self.covariance), dict(self.mean))

    def expand(self, **sizes: int) -> "ExpandedDynamics":
        """Return the equations written out for given numbers of units, for reading and LaTeX (never for computing).

        Parameters
        ----------
        **sizes : int
            A number for each of :attr:`sizes`, such as ``K=2, M=1``.

        Examples
        --------
        >>> from effdyn import derive
        >>> flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
        >>> print(flow.expand(K=1, M=1).closed())
        dQ[1, 1]/dt = -2*Q[1, 1]*a[1]**2 + 2*R[1, 1]*a[1]*b[1]
        dR[1, 1]/dt = -R[1, 1]*a[1]**2 + T[1, 1]*a[1]*b[1]
        """
        from .expanded import expand

        return expand(self, sizes)

    def latex(self) -> str:
        """Return the equations of motion and observables as LaTeX (amsmath): each an ``align`` environment with lines
        that fit."""
        from .export.latex import dynamics_latex

        return dynamics_latex(self)

    def article(self, path: str | Path) -> Path:
        """Write a LaTeX article that compiles as it is: setting, definitions, derivation, equations, symbols,
        moments."""
        from .export.article import write_article

        return write_article(self, Path(path))

    def write(self, path: str | Path) -> Path:
        """Write the dynamics to ``path`` in the format of its ending: ``.tex``, ``.py`` or ``.json``.

        Raises
        ------
        ModelError
            For another ending.
        """
        from .export.write import write

        return write(self, Path(path))

    def _repr_latex_(self) -> str:
        from .export.latex import notebook_latex

        return notebook_latex(self)

    def __repr__(self) -> str:
        if self.model is not None and self.model.dynamics(limit=self.limit, moments=self.method) == self:
            method = "" if self.method == "auto" else f", moments={self.method!r}"
            return f"{self.model!r}.dynamics(limit={self.limit!r}{method})"
        shown = (
            f"{f.name}={_evaluable(getattr(self, f.name))}"
            for f in fields(self)
            if f.name not in ("steps", "dropped", "model", "limit", "method")
        )
        return f"Dynamics({', '.join(shown)})"

    def __str__(self) -> str:
        from .export.rows import plain_page

        return plain_page(self)

    def named(self, expr: sympy.Expr) -> sympy.Expr:
        """Return ``expr`` with moments as calls of their names: I_3(i, k, n)."""
        names = {(m.signature, m.shape): m.name for m in self.moments}

        def call(*factors: sympy.Expr) -> sympy.Expr:
            moment = Moment(*factors)
            return sympy.Function(names[moment.signature, moment.shape])(*(f.indices[0] for f in moment.fields))

        return expr.replace(Moment, call)


def close_moments(
    expr: sympy.Expr,
    covariance: Mapping[tuple[str, str], sympy.Lambda],
    mean: Mapping[str, sympy.Lambda] | None = None,
    floor: sympy.Expr = sympy.S.Zero,
) -> sympy.Expr:
    """Return ``expr`` with every Gaussian moment replaced by its form in the covariances and means of fields.

    The form is closed where there is one, else it is a sum over the nodes of a rule (see
    :mod:`effdyn.derive.numerical.quadrature`). ``floor`` is added to the variances in forms that are 0/0 where a field
    vanishes, as that of a student with zero weights does.

    Raises
    ------
    NoClosedForm
        If a moment has neither.
    """
    from .gaussian.regular import defined_at_zero
    from .numerical.moment_forms import moment_form

    mean = mean or {}

    def value(*factors: sympy.Expr) -> sympy.Expr:
        moment = Moment(*factors)
        form = moment_form(moment.signature, shifted=bool(mean))
        fields = moment.fields
        known = {
            symbol: overlap_of(fields[key[0]], fields[key[1]], covariance)
            if len(key) == 2
            else mean_of_field(fields[key[0]], mean)
            for key, symbol in form.entries.items()
        }
        if floor != 0 and form.exact and not defined_at_zero(form.form, form.entries):
            known |= {form.entries[a, a]: known[form.entries[a, a]] + floor for a in range(len(fields))}
        return form.form.xreplace(known)

    return expr.replace(Moment, value)


def mean_of_field(field: sympy.Indexed, mean: Mapping[str, sympy.Lambda]) -> sympy.Expr:
    """Return the mean of a local field."""
    law = mean.get(str(field.base))
    return law(field.indices[0]) if law else sympy.S.Zero


def _moments_in_order(expr: sympy.Expr) -> list[Moment]:
    found = dict.fromkeys(e for e in sympy.preorder_traversal(expr) if isinstance(e, Moment))
    return sorted(found, key=lambda m: (len(m.args), m.shape, sympy.default_sort_key(m)))


def _evaluable(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_evaluable, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, sympy.Basic):
        return sympy.srepr(value)
    if isinstance(value, Mapping) or not hasattr(value, "__dataclass_fields__"):
        return repr(value)
    return (
        f"{type(value).__name__}({', '.join(f'{f.name}={_evaluable(getattr(value, f.name))}' for f in fields(value))})"
    )
