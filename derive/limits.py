"""Limits: how parameters scale, which time is counted, and what therefore survives of an increment.

A limit is a value; :data:`LIMITS` is the table of those that a model's ``dynamics(limit=…)`` knows. A new one is an
entry.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import sympy

from .export.index_order import index_rank
from .increments import D
from .terms import Term
from .text import parse_expression

ETA = sympy.Symbol("eta", nonnegative=True)
ETA_A = sympy.Symbol("eta_a", nonnegative=True)
ETA_BIAS = sympy.Symbol("eta_bias", nonnegative=True)
KAPPA = sympy.Symbol("kappa", nonnegative=True)
ETA_A_RATIO = sympy.Symbol("eta_a_over_eta", nonnegative=True)
ETA_BIAS_RATIO = sympy.Symbol("eta_bias_over_eta", nonnegative=True)
KAPPA_RATIO = sympy.Symbol("kappa_over_eta", nonnegative=True)
WIDTH = sympy.Symbol("K", integer=True, positive=True)
"""The number of student units, over which wide students average: what is left of 1/K belongs to a sum over them."""
PER_RATE = ((ETA_A, ETA * ETA_A_RATIO), (ETA_BIAS, ETA * ETA_BIAS_RATIO), (KAPPA, ETA * KAPPA_RATIO))
"""Other rates as multiples of the learning rate."""
NEURONS = ("", "pairs", "alone")
"""How a limit describes students: by their overlaps ``Q``; by the overlaps of what of them is orthogonal to the
teacher, of all pairs; or of each neuron with itself alone."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A scaling regime.

    Attributes
    ----------
    name : str
        What ``limit=`` is called with.
    clock : str
        What t is, in steps.
    scaling : tuple of (Symbol, Expr)
        Parameters that scale with a small one, and how.
    rate : Expr
        d·ΔΩ times this is the time derivative.
    vanishing : tuple of (Expr, str)
        The quantities that go to zero, in this order, and how they print.
    assumption : str
        What is taken, for the reader.
    status : str
        ``exact``, ``ansatz`` or ``numerical``, with the reason.
    kind : str
        What the equations are: of the :data:`.dynamics.KINDS`.
    neurons : str
        How students are described: of :data:`NEURONS`.
    """

    name: str
    clock: str
    scaling: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    rate: sympy.Expr
    vanishing: tuple[tuple[sympy.Expr, str], ...]
    assumption: str
    status: str = "exact in the limit"
    kind: str = "ode"
    neurons: str = ""

    @property
    def wide(self) -> bool:
        """Whether it is of students whose output is a mean over K units, on whose clock a step is η/(Kd)."""
        return WIDTH in self.rate.free_symbols

    @property
    def small(self) -> set[sympy.Symbol]:
        """The parameters that vanish, by themselves or over K: those of the model, not its sizes."""
        return {s for small, _ in self.vanishing for s in small.free_symbols} - {D, WIDTH}

    @property
    def finite(self) -> bool:
        """Whether the input dimension stays a number."""
        return all(small != 1 / D for small, _ in self.vanishing)


@dataclass(frozen=True, slots=True, repr=False)
class Dropped:
    """A term that vanishes in the limit: what it is, in whose equation, and at what rate it vanishes.

    Examples
    --------
    >>> from effdyn import derive
    >>> print(derive.TeacherStudent(activation="erf").dynamics().dropped[0])
    Q_ik, order 1/d: 2 eta^2/d a_i a_k Σ_{j,l=1}^K a_j a_l ∂_s E_sΩ[g'(h_i) g'(h_k) g(h_j) g(h_l)]
    """

    quantity: str
    term: Term
    order: str

    @property
    def symbol(self) -> sympy.Expr:
        """The quantity at its indices, which are those that the term is not summed over."""
        parts = (self.term.coefficient, *self.term.factors)
        summed = {index for index, _ in self.term.indices}
        summed |= {limit[0] for part in parts for s in part.atoms(sympy.Sum) for limit in s.limits}
        indices = {i for part in parts for e in part.atoms(sympy.Indexed) for i in e.indices if not i.is_number}
        free = sorted(indices - summed, key=index_rank)
        return sympy.IndexedBase(self.quantity)[tuple(free)] if free else sympy.Symbol(self.quantity)

    def __str__(self) -> str:
        from .export.printer import PlainPrinter

        order = parse_expression(self.order.replace(" · ", "*").replace("^", "**"), "order")
        return f"{PlainPrinter().doprint(self.symbol)}, order {PlainPrinter().doprint(order)}: {self.term}"

    def __repr__(self) -> str:
        return f"<Dropped {self}>"

    def _repr_latex_(self) -> str:
        from .export.latex import notebook_dropped

        return notebook_dropped(self)


WIDE_CLOCK = "eta*steps/(K*d)"

LIMITS: dict[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit(
            name="high-dimensional",
            clock="steps/d",
            scaling=(),
            rate=sympy.S.One,
            vanishing=((1 / D, "1/d"),),
            assumption="d → ∞ at fixed numbers of units, learning rate and time t = steps/d",
        ),
        Limit(
            name="gradient-flow",
            clock="eta*steps/d",
            scaling=PER_RATE,
            rate=1 / ETA,
            vanishing=((1 / D, "1/d"), (ETA, "eta")),
            assumption="d → ∞, then η → 0 at fixed time t = η·steps/d and fixed ratios η_a/η, κ/η",
        ),
        Limit(
            name="finite-d",
            clock="steps/d",
            scaling=(),
            rate=sympy.S.One,
            vanishing=(),
            assumption="the mean of one step at finite d, all orders kept, as a rate; fluctuations are left out",
            status="the mean of one step exact at every d; over many steps off by fluctuations, of order 1/d",
        ),
        Limit(
            name="finite-d-map",
            clock="steps/d",
            scaling=(),
            rate=1 / D,
            vanishing=(),
            assumption="the mean of one step at finite d, all orders kept, step by step; fluctuations are left out",
            status="the mean of one step exact at every d; over many steps off by fluctuations, of order 1/d",
            kind="map",
        ),
        Limit(
            name="wide",
            clock=WIDE_CLOCK,
            scaling=(),
            rate=WIDTH / ETA,
            vanishing=((1 / D, "1/d"),),
            assumption="d → ∞ at fixed time t = η·steps/(Kd), for any number K of units and any η/K",
        ),
        Limit(
            name="mean-field-pairs",
            clock=WIDE_CLOCK,
            scaling=PER_RATE,
            rate=WIDTH / ETA,
            vanishing=((1 / D, "1/d"), (ETA / WIDTH, "eta/K")),
            assumption="d → ∞, then η/K → 0 at fixed time t = η·steps/(Kd) and fixed ratios η_a/η, κ/η, for any K",
            neurons="pairs",
        ),
        Limit(
            name="mean-field",
            clock=WIDE_CLOCK,
            scaling=PER_RATE,
            rate=WIDTH / ETA,
            vanishing=((1 / D, "1/d"), (ETA / WIDTH, "eta/K")),
            assumption="d → ∞, then η/K → 0 and K → ∞ at fixed time t = η·steps/(Kd) and fixed ratios η_a/η, Kκ/η",
            status="ansatz: different neurons share nothing orthogonal to the teacher; off by 1/K, and by d^(-1/2) "
            "from random initial weights",
            neurons="alone",
        ),
    )
}


def keep_leading_order(terms: Iterable[Term], limit: Limit, quantity: str) -> tuple[list[Term], list[Dropped]]:
    """Return the terms that survive the limit, and those that do not with the order at which they vanish.

    Raises
    ------
    ValueError
        If a term diverges: the scaling is wrong for this model.
    """
    kept, dropped = [], []
    for term in terms:
        coefficient = sympy.powsimp(sympy.expand_mul(term.coefficient.subs(dict(limit.scaling)) * limit.rate))
        term = replace(term, coefficient=coefficient)
        orders = [(name, _order(coefficient, small)) for small, name in limit.vanishing]
        if any(order < 0 for _, order in orders):
            raise ValueError(f"{term} diverges in the limit {limit.name!r}")
        vanishing = [f"({name})^{order}" if order != 1 else name for name, order in orders if order > 0]
        if vanishing:
            dropped.append(Dropped(quantity, term, " · ".join(vanishing)))
        else:
            kept.append(term)
    return kept, dropped


def _order(coefficient: sympy.Expr, small: sympy.Expr) -> sympy.Expr:
    """Return the power of ``small`` in a monomial coefficient."""
    symbol = next(iter(small.free_symbols - {WIDTH}))
    _, exponent = coefficient.as_coeff_exponent(symbol)
    return -exponent if small == 1 / symbol else exponent
