"""From a training step to a Dynamics: increments, expectations, limit. One line a stage, each kept as provenance.

Knows nothing of any particular model; a model states its :class:`TrainingStep`.
"""

from dataclasses import dataclass, replace

import sympy

from .dynamics import Dynamics, Equation, FieldFamily, Quantity, Step
from .errors import ModelError, NoClosedForm, nearest
from .increments import D, ScalarUpdate, VectorUpdate, gram_increment, overlap_of, scalar_increment, take_expectations
from .limits import LIMITS, Limit, keep_leading_order
from .moments import Value
from .terms import assemble


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A model's update rule as data: all that the derivation needs to know of it.

    Attributes
    ----------
    title : str
    families : tuple of FieldFamily
        The local fields.
    covariance : tuple of ((str, str), Lambda)
        Their covariance, in order parameters.
    overlaps : tuple of (Quantity, VectorUpdate, VectorUpdate)
        The entries of the Gram matrix that move, and the updates of the two vectors.
    scalars : tuple of (Quantity, ScalarUpdate)
        Further trained scalars.
    parameters : tuple of Quantity
    averages : tuple of (Quantity, Expr)
        Observables as expectations of an expression in the fields.
    formulas : tuple of (Quantity, Expr)
        Observables as plain functions of the order parameters.
    definitions : tuple of (Basic, Expr)
        The network, the target, the loss and the update, for the reader.
    assumptions : tuple of str
    """

    title: str
    families: tuple[FieldFamily, ...]
    covariance: tuple[tuple[tuple[str, str], sympy.Lambda], ...]
    overlaps: tuple[tuple[Quantity, VectorUpdate, VectorUpdate], ...]
    scalars: tuple[tuple[Quantity, ScalarUpdate], ...]
    parameters: tuple[Quantity, ...]
    averages: tuple[tuple[Quantity, sympy.Expr], ...]
    formulas: tuple[tuple[Quantity, sympy.Expr], ...]
    definitions: tuple[tuple[sympy.Basic, sympy.Expr], ...]
    assumptions: tuple[str, ...]

    @property
    def states(self) -> tuple[Quantity, ...]:
        """The order parameters that move."""
        return tuple(q for q, *_ in self.overlaps) + tuple(q for q, _ in self.scalars)


def find_limit(name: str) -> Limit:
    """Return the limit of that name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if name not in LIMITS:
        raise ModelError("limit", name, f"one of {', '.join(map(repr, LIMITS))}{nearest(str(name), LIMITS)}")
    return LIMITS[name]


def derive_dynamics(training: TrainingStep, limit: Limit, model: object) -> Dynamics:
    """Return the closed equations of motion of a training step in a limit."""
    increments = expand_increments(training)
    averages = [(q, take_expectations(expr, q.indices, _bases(training))) for q, expr in increments]
    leading = [(q, *keep_leading_order(terms, limit, q.name)) for q, terms in averages]
    drift = tuple(Equation(q, assemble(kept)) for q, kept, _ in leading)
    observed = tuple(
        Equation(q, assemble(take_expectations(expr, q.indices, _bases(training)))) for q, expr in training.averages
    )
    derived = tuple(Equation(q, expr) for q, expr in training.formulas)
    dynamics = Dynamics(
        title=training.title,
        kind="ode",
        clock=limit.clock,
        drift=drift,
        parameters=tuple(_rescaled(q, limit, training) for q in training.parameters if _survives(q, limit)),
        observables=observed + derived,
        families=training.families,
        covariance=training.covariance,
        assumptions=(*training.assumptions, limit.assumption),
        status=limit.status,
        steps=(
            Step(
                "Setting", "The network, its target, and one step of training on a fresh example.", training.definitions
            ),
            Step(
                "Increments",
                "One step changes the Gram matrix of all weight vectors bilinearly, exactly at every d; χ = |x|²/d.",
                tuple((_increment_symbol(q), expr) for q, expr in increments),
            ),
            Step(
                "Expectations",
                "Averaged over the fresh example: local fields are jointly Gaussian, the Gram matrix their covariance.",
                tuple((_average_symbol(q), assemble(terms)) for q, terms in averages),
            ),
            Step("Limit", f"{limit.assumption}.", tuple((_rate_symbol(e.quantity), e.expr) for e in drift)),
        ),
        dropped=tuple(d for _, _, dropped in leading for d in dropped),
        model=model,
        limit=limit.name,
    )
    for named in dynamics.moments:  # a moment without closed form is an error here, where its functions have names
        try:
            _ = named.form
        except NoClosedForm as error:
            functions = dict.fromkeys(
                f"{f.args[0]}(x) = {f.args[0].function.expr}" for f in named.moment.args if isinstance(f, Value)
            )
            raise NoClosedForm(
                str(named.moment), f"{error.reason}, where {', '.join(functions)}", error.instead
            ) from None
    return dynamics


def expand_increments(training: TrainingStep) -> list[tuple[Quantity, sympy.Expr]]:
    """Return d times the increment of each order parameter in one step."""
    covariance = dict(training.covariance)
    overlaps = [(q, gram_increment(f, g, overlap_of(f.field, g.field, covariance))) for q, f, g in training.overlaps]
    return overlaps + [(q, scalar_increment(update)) for q, update in training.scalars]


def _bases(training: TrainingStep) -> tuple[sympy.IndexedBase, ...]:
    return tuple(family.base for family in training.families)


def _survives(q: Quantity, limit: Limit) -> bool:
    """Return whether a parameter is still one in the limit: a learning rate that only scales time is not."""
    return q.base not in {s for small, _ in limit.vanishing for s in small.free_symbols}


def _rescaled(q: Quantity, limit: Limit, training: TrainingStep) -> Quantity:
    """Return the parameter that takes the place of one that scales with a small one: their ratio."""
    scaled = dict(limit.scaling).get(q.base)
    if scaled is None:
        return q
    small = next(p for p in training.parameters if p.base in scaled.free_symbols)
    (ratio,) = scaled.free_symbols - {small.base}
    meaning = f"{q.meaning}, over the {small.meaning} {small.name}"
    return replace(q, name=str(ratio), latex=f"({q.latex}/{small.latex})", meaning=meaning)


def _increment_symbol(q: Quantity) -> sympy.Expr:
    return D * sympy.Function("Delta")(q.symbol)


def _average_symbol(q: Quantity) -> sympy.Expr:
    return D * sympy.Function("MeanDelta")(q.symbol)


def _rate_symbol(q: Quantity) -> sympy.Expr:
    return sympy.Function("Rate")(q.symbol)
