"""The Dynamics value: closed equations of motion, and everything known about where they come from.

It is all that crosses from ``derive`` to ``solve``. Expressions are indexed: free indices, ``Sum``s over dummy indices
running from 1 to symbolic sizes, Gaussian moments as named nodes. Knows nothing of any particular model, nor of how it
will be evaluated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sympy
from sympy.core.function import AppliedUndef

from .errors import ModelError, NotYet, nearest
from .increments import overlap_of
from .limits import Dropped
from .moments import Moment

if TYPE_CHECKING:
    from .closed_flows.matrix_riccati import MatrixClosedForm
    from .closed_flows.results import ClosedForm
    from .conservation.first_integrals import FirstIntegrals
    from .conservation.laws import ConservationLaws
    from .diffusion import Diffusion
    from .expanded import ExpandedDynamics
    from .fluctuations import Fluctuations
    from .linear.conserved import MatrixLaws
    from .named_moments import NamedMoment
    from .numerical.quadrature import Table


TIME = sympy.Symbol("t", nonnegative=True)
"""t in expressions that depend on it explicitly: Volterra equations and formulas."""


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
    pseudoinverse_of : str
        The symmetric parameter whose pseudo-inverse it is: then it is computed from that one, and not to be given.
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
    pseudoinverse_of: str = ""

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
    covariances are functions of the order parameters, not order parameters themselves. So are, within averages that are
    linear in them, fields on which no function depends, their means ``given`` the others. Those of the parts of vectors
    in blocks of the inputs have two indices, the block's first, whose sizes are ``shape``.
    """

    base: sympy.IndexedBase
    size: sympy.Expr
    latex: str
    derived: bool = False
    shape: tuple[sympy.Expr, ...] = ()
    given: bool = False

    @property
    def axes(self) -> tuple[sympy.Expr, ...]:
        """The sizes of its indices."""
        return self.shape or (self.size,)

    @property
    def independent(self) -> sympy.Expr:
        """How many of its fields are no combinations of those of other families: parts add up to whole vectors."""
        if self.derived:
            return sympy.S.Zero
        return self.size - sympy.Mul(*self.shape[1:]) if self.shape else self.size


KINDS = {
    "ode": "the time derivative of each state",
    "sde": "the drift of each state, to which noise is added (Itô)",
    "map": "the change of each state in one step of training",
    "volterra": "an unknown function of time, equal to an integral over its own past",
    "formula": "observables as explicit functions of time, with auxiliary functions that solve their own equations",
}
"""What the equations of a Dynamics are: what each expression of its ``drift`` is."""


@dataclass(frozen=True)
class Dynamics:
    """Closed equations of motion of a few order parameters.

    Attributes
    ----------
    title : str
        What it is the dynamics of.
    kind : str
        What the equations are: one of :data:`KINDS`.
    clock : str
        What t is: ``"steps/d"`` (examples per input dimension), ``"eta*steps/d"``, ``"steps/n"`` (passes over n
        examples), …; a step of a map takes the time that it has with ``steps`` = 1.
    drift : tuple of Equation
        The time derivative of each state, without its noise; the change of each in a step of a map; of an unknown
        function, what it is equal to.
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
    diffusion : tuple of Amplitude, or tuple of Covariation
        The noise of a stochastic differential equation: see :mod:`effdyn.derive.diffusion`.
    status : str
        ``exact``, ``ansatz`` or ``numerical``, with the reason; term by term it stands on each :class:`Equation`.
    steps, dropped
        The derivation: its stages, and the terms that vanished.
    model, limit, method, reduction
        What it was derived from, in which limit, how moments were to be computed, and what it was reduced to; ``None``
        and ``""`` for equations written by hand.
    gram : tuple of tuple of sympy.Expr
        A matrix, by rows, of scalar states and parameters, without negative eigenvalues where there are vectors with
        these overlaps: of equations that have no families of fields to say so, such as a symmetric reduction's.

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
    initial: tuple[Quantity, ...] = ()
    diffusion: "Diffusion" = ()
    model: Any = field(default=None, repr=False)
    limit: str = field(default="", repr=False)
    method: str = field(default="auto", repr=False)
    reduction: str = field(default="", repr=False)
    gram: tuple[tuple[sympy.Expr, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelError("kind", self.kind, f"one of {', '.join(map(repr, KINDS))}{nearest(self.kind, KINDS)}")
        if self.diffusion:
            from .diffusion import check_diffusion

            check_diffusion(self)
        from .declared import check_declared

        check_declared(self, TIME)

    @property
    def unknowns(self) -> dict[str, sympy.Expr]:
        """The functions that the drift of a Volterra equation or a formula defines, by name, at their arguments.

        That of the Volterra equation itself, the first, is time. Others have the argument that they have in their own
        equation, as in kappa(z) = 1/(1 + kappa(z)/z), or, where that does not name them, in the equations before.
        """
        if self.kind not in ("volterra", "formula"):
            return {}
        names = [q.name for q in self.states]
        found: dict[str, sympy.Expr] = {}
        for equation in self.equations:
            for call in sorted(equation.expr.atoms(AppliedUndef), key=str):
                own = call.func.__name__ == equation.quantity.name
                found = {**found, call.func.__name__: call} if own else {call.func.__name__: call, **found}
        if self.kind == "volterra":
            found[names[0]] = sympy.Function(names[0])(TIME)
        return {name: found[name] for name in names}

    @property
    def states(self) -> tuple[Quantity, ...]:
        """The order parameters that move."""
        return tuple(equation.quantity for equation in self.drift)

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments with which its model derives it."""
        given = {"limit": self.limit, "moments": self.method, "reduction": self.reduction}
        return {name: value for name, value in given.items() if value not in ("", "auto")}

    @property
    def call(self) -> str:
        """The call that derives it from its model, as code."""
        return f"{self.model!r}.dynamics({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"

    @property
    def equations(self) -> tuple[Equation, ...]:
        """Drift and observables together."""
        return self.drift + self.observables

    @property
    def sizes(self) -> tuple[sympy.Symbol, ...]:
        """The symbolic sizes (K, M, …) of all arrays, sorted by name."""
        quantities = (*self.states, *self.initial, *self.parameters)
        return tuple(sorted({size for q in quantities for size in q.shape}, key=str))

    def __getitem__(self, name: str) -> sympy.Expr:
        """Return the right-hand side of the equation of the state or observable ``name``."""
        for equation in self.equations:
            if equation.quantity.name == name:
                return equation.expr
        raise KeyError(f"no equation for {name!r}; there are {', '.join(e.quantity.name for e in self.equations)}")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of states and observables, as over a dict's: those that ``dynamics[name]`` takes."""
        return (equation.quantity.name for equation in self.equations)

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
        return {size: max(n for s, n in numbers if s == size) for size, _ in numbers if not size.is_number}

    @cached_property
    def moments(self) -> "tuple[NamedMoment, ...]":
        """The distinct Gaussian moments of the equations, in order of appearance, each with its name and closed
        form."""
        from .named_moments import name_moments

        found = (m for e in (*self.equations, *self.diffusion) for m in _moments_in_order(e.expr))
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

        if self.kind not in ("ode", "map"):
            raise NotYet(f"expand() of equations of kind {self.kind!r}", "expand() of differential equations and maps")
        return expand(self, sizes)

    def conserved(self, degree: int = 2, **sizes: int) -> "MatrixLaws | ConservationLaws | FirstIntegrals":
        """Find what this flow conserves.

        Parameters
        ----------
        degree : int
            The highest degree of the polynomials searched.
        **sizes : int
            A number for each size, such as ``D=3, h=4, m=2``. Without any, for the flow of every weight of a linear
            network: matrices that are conserved at all sizes, found in the algebra of matrix words.

        Returns
        -------
        MatrixLaws, ConservationLaws or FirstIntegrals
            Laws of gradient flow for any loss with the true number of independent ones, or first integrals of reduced
            equations. ``.survival()`` says what becomes of them under weight decay, finite steps, noise and momentum.

        Raises
        ------
        ModelError
            If sizes are missing, or the equations are not polynomial.

        Examples
        --------
        >>> from effdyn import derive
        >>> flow = derive.LinearNetwork(depth=2).dynamics()
        >>> print(flow.conserved())
        Conserved by the gradient flow of any loss of W2 W1:
          W1 W1ᵀ - W2ᵀ W2
        >>> flow.conserved(D=2, h=2, m=1).independent
        3
        """
        from .conservation.conserved import conserved

        if not sizes and self.reduction == "full":
            return self.model.matrix_laws()
        return conserved(self, degree, **sizes)

    def closed_form(self) -> "ClosedForm | MatrixClosedForm | None":
        """Return the solution of these equations in closed form, verified; None, with a warning that says why, if none
        is found.

        Returns
        -------
        ClosedForm, MatrixClosedForm or None
            SymPy expressions in time, initial values and parameters, with the conditions under which they hold. Called
            with numbers, it tests these conditions on them.

        Warns
        -----
        NoClosedFlow
            The reason why there is none.

        Examples
        --------
        >>> import numpy as np
        >>> from effdyn import derive
        >>> form = derive.LinearNetwork(depth=2, inputs="whitened").dynamics("strengths").closed_form()
        >>> print(form(np.array([0.0, 1.0, 4.0]), y0=dict(s=[0.1]), params=dict(c=[2.0], lam=[0.0]))["s"].round(6).T)
        [[0.1      1.483683 1.999996]]
        """
        from .closed_flows.of_dynamics import closed_form

        return closed_form(self)

    def explain_limit(self) -> str:
        """Return which terms survived the limit, which vanished, and at what rate.

        Examples
        --------
        >>> from effdyn import derive
        >>> print(derive.TeacherStudent(activation="linear").dynamics().explain_limit().splitlines()[2])
        dQ_ik/dt survives:
        """
        from .explain import explain_limit

        return explain_limit(self)

    def fluctuations(self) -> "Fluctuations":
        """Return the order-1/d theory around these equations: mean correction and covariance of runs at finite d.

        Raises
        ------
        ModelError
            If they were not derived from a model in the high-dimensional limit.
        NotYet
            See :func:`.fluctuations.fluctuations`: what cannot be had is named.

        Examples
        --------
        >>> from effdyn import derive
        >>> theory = derive.TeacherStudent(activation="linear").dynamics().fluctuations()
        >>> print(theory.tangent["dR"])
        -eta*a[i]*Sum(a[j]*dR[j, n], (j, 1, K))
        """
        from .fluctuations import fluctuations

        return fluctuations(self)

    def sde(self) -> "Dynamics":
        """Return the Langevin form of training at finite d: these equations with the noise of single examples.

        Returns
        -------
        Dynamics
            Of kind ``"sde"``: ``drift`` as here, ``diffusion`` the covariance of one step's increments for each pair of
            states, over d, which is a further parameter.

        Raises
        ------
        ModelError
            If these equations were not derived from a model in the high-dimensional limit.
        NotYet
            For inputs with a mean or in blocks.

        Examples
        --------
        >>> from effdyn import derive
        >>> langevin = derive.TeacherStudent(activation="linear").dynamics().sde()
        >>> langevin.kind, langevin["R"] == derive.TeacherStudent(activation="linear").dynamics()["R"]
        ('sde', True)
        """
        from .langevin import langevin

        return langevin(self)

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
        if self.model is not None and self.model.dynamics(**self.arguments) == self:
            return self.call
        shown = (
            f"{f.name}={_evaluable(getattr(self, f.name))}"
            for f in fields(self)
            if f.name not in ("steps", "dropped", "model", "limit", "method", "reduction")
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
