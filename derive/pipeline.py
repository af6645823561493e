"""From a training step to a Dynamics: increments, expectations, limit. One line a stage, each kept as provenance.

Knows nothing of any particular model; a model states its :class:`TrainingStep`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import sympy

from .averages import Example, resolve_dilations, take_expectations
from .dynamics import Dynamics, Equation, FieldFamily, Quantity, Step
from .errors import ModelError, NotYet, nearest
from .fast_variables import eliminate_fast
from .idle_fields import idle_covariances, idle_families, idle_means
from .increments import D, ScalarUpdate, VectorUpdate, gram_increment, scalar_increment
from .limits import LIMITS, Dropped, Limit, keep_leading_order
from .moments import Joint, Moment, Pair
from .projection import hold_lengths, second_order
from .schedule import PACE, SCHEDULE
from .terms import Term, assemble

if TYPE_CHECKING:
    from .block_inputs import Parts

JOINT_RULES = {
    "smooth": "error about 1e-5 for up to five fields, 1e-3 beyond",
    "split": "error about 1e-5 for up to four fields, 1e-3 beyond",
    "lines": "in pieces between kinks, error about 2e-5 for up to five fields, 1e-4 to 1e-3 with kinks in single units",
    "planes": "in pieces between kinks, error about 1e-5 for up to four fields, 1e-4 beyond",
    "rough": "error 1e-3 to 1e-2 because of kinks",
}
"""Measured sizes of error of rules over all fields at once, by what they are for."""


DIMENSION = Quantity("d", latex="d", meaning="input dimension", minimum=1.0)
"""A parameter of equations at finite d."""


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
    mean : tuple of (str, Lambda)
        The means of those that have one.
    label : Expr or None
        The mean of a label ±1 given the fields, if labels are ±1.
    written_out : tuple of (Indexed, Expr)
        The fields that are combinations of others, and which.
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
    batch : Expr
        The number of examples that a step averages over.
    noiseless : tuple of ((str, str), Lambda) or None
        The covariance without label noise, if any field contains it: what is an inner product of vectors.
    idle : tuple of IndexedBase
        Fields of vectors on which the network does not depend: momentum buffers.
    idle_overlaps : tuple of ((str, str), Lambda)
        Their inner products with each other and with all other vectors, over d.
    fast : tuple of (Quantity, VectorUpdate, VectorUpdate)
        Entries of the Gram matrix that relax within a few steps: no states, but functions of them.
    fast_scalars : tuple of (Quantity, ScalarUpdate, str)
        Scalars that do, with the name of the trained scalar that each is a momentum buffer of.
    parts : Parts or None
        How to average over the parts of the input, where vectors are seen by blocks of its covariance.
    center : Indexed or None
        The field μ·x, among the idle ones, of the mean μ of the inputs, if they have one.
    refused : mapping of str to str
        Limits that there are not for this model yet, by name, and for what.
    schedule : Expr or None
        The factor s(t) of the learning rates, which stands as :data:`.schedule.PACE` in the updates.
    normalised : tuple of IndexedBase
        The fields of those vectors that are rescaled to their old lengths after each step.
    """

    title: str
    families: tuple[FieldFamily, ...]
    covariance: tuple[tuple[tuple[str, str], sympy.Lambda], ...]
    mean: tuple[tuple[str, sympy.Lambda], ...]
    label: sympy.Expr | None
    written_out: tuple[tuple[sympy.Indexed, sympy.Expr], ...]
    overlaps: tuple[tuple[Quantity, VectorUpdate, VectorUpdate], ...]
    scalars: tuple[tuple[Quantity, ScalarUpdate], ...]
    parameters: tuple[Quantity, ...]
    averages: tuple[tuple[Quantity, sympy.Expr], ...]
    formulas: tuple[tuple[Quantity, sympy.Expr], ...]
    definitions: tuple[tuple[sympy.Basic, sympy.Expr], ...]
    assumptions: tuple[str, ...]
    batch: sympy.Expr = sympy.S.One
    noiseless: tuple[tuple[tuple[str, str], sympy.Lambda], ...] | None = None
    idle: tuple[sympy.IndexedBase, ...] = ()
    idle_overlaps: tuple[tuple[tuple[str, str], sympy.Lambda], ...] = ()
    fast: tuple[tuple[Quantity, VectorUpdate, VectorUpdate], ...] = ()
    fast_scalars: tuple[tuple[Quantity, ScalarUpdate, str], ...] = ()
    parts: "Parts | None" = None
    center: sympy.Indexed | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    schedule: sympy.Expr | None = None
    normalised: tuple[sympy.IndexedBase, ...] = ()

    def example(self, method: str) -> Example:
        """Return what is random in a fresh example, and how it is to be averaged over."""
        noiseless = self.covariance if self.noiseless is None else self.noiseless
        noisy = {pair[0] for (pair, law), (_, other) in zip(self.covariance, noiseless, strict=True) if law != other}
        return Example(
            fields=tuple(family.base for family in self.families),
            shifted=bool(self.mean),
            label=self.label,
            written_out=self.written_out,
            method=method,
            along_weights=(*noiseless, *self.idle_overlaps),
            mean=self.mean,
            noisy=frozenset(noisy),
            idle=self.idle,
            relaxing=self.relaxing,
            parts=self.parts,
            center=self.center,
        )

    @property
    def relaxing(self) -> tuple[sympy.IndexedBase, ...]:
        """The fields of the buffers that relax within a few steps, of order d^(−1/2)."""
        slow = {u.field.base for _, *pair in self.overlaps for u in pair}
        fast = dict.fromkeys(u.field.base for _, *pair in self.fast for u in pair)
        return tuple(base for base in fast if base not in slow)

    def without_length(self) -> "TrainingStep":
        """Return the same step with |x|²/d that of inputs without a mean, which differs by 1/d."""
        overlaps, fast = (
            tuple((q, replace(f, length=()), replace(g, length=())) for q, f, g in moving)
            for moving in (self.overlaps, self.fast)
        )
        return replace(self, overlaps=overlaps, fast=fast)

    def timed(self, expr: sympy.Expr) -> sympy.Expr:
        """Return an expression with the formula of the schedule in its place."""
        return expr if self.schedule is None else expr.xreplace({PACE: self.schedule})

    def with_fast_states(self) -> "TrainingStep":
        """Return the step with all overlaps as states, in the units of those of other vectors: nothing is eliminated.

        A fast overlap stands as Ω = size·symbol where its limit of large d is taken; at finite d its symbol is Ω.
        """
        bases = {q.base for q, *_ in self.fast}

        def unscaled(law: sympy.Lambda) -> sympy.Lambda:
            entries = {e: D * e for e in law.expr.atoms(sympy.Indexed) if e.base in bases}
            return sympy.Lambda(law.signature, law.expr.xreplace(entries))

        idle = tuple((pair, unscaled(law)) for pair, law in self.idle_overlaps)
        return replace(self, overlaps=(*self.overlaps, *self.fast), fast=(), idle_overlaps=idle)

    @property
    def fast_names(self) -> tuple[str, ...]:
        """The names of what relaxes within a few steps."""
        return tuple(q.name for q, *_ in (*self.fast, *self.fast_scalars))

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


def _check_fast_states(training: TrainingStep, limit: Limit) -> None:
    """Refuse fast variables that cannot be states yet."""
    where = {"on inputs in blocks": training.parts is not None, "of scalars": bool(training.fast_scalars)}
    for option in (name for name, present in where.items() if present):
        accepted = "isotropic inputs, and a first layer trained alone"
        raise NotYet(f"limit={limit.name!r} with momentum of fixed beta {option}", accepted)


def derive_dynamics(training: TrainingStep, limit: Limit, model: object, method: str = "auto") -> Dynamics:
    """Return the closed equations of motion of a training step in a limit.

    Raises
    ------
    NoClosedForm
        With ``method="closed"``, if an expectation has none.
    """
    if limit.name in training.refused:
        raise NotYet(f"limit={limit.name!r} {training.refused[limit.name]}", 'limit="high-dimensional"')
    if limit.finite and training.fast:
        _check_fast_states(training, limit)
        training = training.with_fast_states()
    example = training.example(method)
    increments = expand_increments(training)
    averages = average_increments(increments, example)
    fast = training.fast_names
    slow = eliminate_fast(averages, fast) if fast else averages
    held = hold_lengths(slow, training) if training.normalised else slow
    leading = [(q, *keep_leading_order(terms, limit, q.name)) for q, terms in held]
    if limit.finite:
        leading = [(q, resolve_dilations(kept, q.indices, example), dropped) for q, kept, dropped in leading]
    lost = [d for _, _, dropped in leading for d in dropped]
    drift = tuple(_equation(q, training.timed(_at_dimension(assemble(kept))), example) for q, kept, _ in leading)
    observed = tuple(
        _equation(q, assemble(take_expectations(expr, q.indices, example)), example) for q, expr in training.averages
    )
    given = _given_fields(drift, training)
    absent = set(map(str, training.idle)) - {str(f.base) for f in given}
    derived = tuple(Equation(q, expr) for q, expr in training.formulas)
    timed = () if training.schedule is None else (Equation(SCHEDULE, training.schedule),)
    return Dynamics(
        title=training.title,
        kind=limit.kind,
        clock=limit.clock,
        drift=drift,
        parameters=(
            *(_rescaled(q, limit, training) for q in training.parameters if _survives(q, limit)),
            *((DIMENSION,) if limit.finite else ()),
        ),
        observables=observed + derived + timed,
        families=(*training.families, *given),
        covariance=(*training.covariance, *(e for e in idle_covariances(training) if not absent & set(e[0]))),
        mean=(*training.mean, *(e for e in idle_means(training) if e[0] not in absent)),
        assumptions=(*training.assumptions, limit.assumption),
        status=_status(limit, drift + observed),
        steps=(
            Step(
                "Setting", "The network, its target, and one step of training on a fresh example.", training.definitions
            ),
            Step(
                "Increments",
                "One step changes the Gram matrix of all weight vectors bilinearly, exactly at every d; "
                + ("χ = |x|²/d." if training.parts is None else "χ_g = |x_g|²/d for the part of x in block g."),
                tuple((_increment_symbol(q), expr) for q, expr in increments),
            ),
            Step(
                "Expectations",
                "Averaged over the fresh example: local fields are jointly Gaussian, the Gram matrix their covariance.",
                tuple((_average_symbol(q), assemble(terms)) for q, terms in averages),
            ),
            *(
                (
                    Step(
                        "Fast variables",
                        "Order parameters that relax within a few steps are at the fixed points of their equations.",
                        tuple((_average_symbol(q), assemble(terms)) for q, terms in slow),
                    ),
                )
                if fast
                else ()
            ),
            *(
                (
                    Step(
                        "Constraint",
                        "After the step vectors are rescaled to their old lengths, which takes from each overlap what "
                        "the squared lengths have grown by; products of two increments are of higher order in 1/d.",
                        tuple((_average_symbol(q), assemble(terms)) for q, terms in held),
                    ),
                )
                if training.normalised
                else ()
            ),
            Step("Limit", f"{limit.assumption}.", tuple((_rate_symbol(e.quantity), e.expr) for e in drift)),
        ),
        dropped=tuple(_timed(d, training) for d in (*lost, *second_order(training, limit))),
        model=model,
        limit=limit.name,
        method=method,
    )


def _given_fields(equations: tuple[Equation, ...], training: TrainingStep) -> tuple[FieldFamily, ...]:
    """Return the fields on which no function depends that averages over all fields at once are of: each linear in them,
    so that rules take their means given the others."""
    bases = {e.base for eq in equations for joint in eq.expr.atoms(Joint) for e in joint.atoms(sympy.Indexed)}
    return tuple(replace(f, derived=True, given=True) for f in idle_families(training) if f.base in bases)


def _timed(dropped: Dropped, training: TrainingStep) -> Dropped:
    """Return a term that vanishes with the formula of the schedule in its place."""
    return replace(dropped, term=replace(dropped.term, coefficient=training.timed(dropped.term.coefficient)))


def _at_dimension(expr: sympy.Expr) -> sympy.Expr:
    """Return a right-hand side with the input dimension as the parameter of that name.

    Raises
    ------
    NotYet
        If an average over two independent examples is left in it.
    """
    if expr.has(Pair):
        raise NotYet(
            "batches, or inputs with a mean, at finite d, where gradients are no products of functions of one field",
            'limit="high-dimensional", or one example a step of inputs without a mean',
        )
    return expr.xreplace({D: DIMENSION.base})


def average_increments(
    increments: list[tuple[Quantity, sympy.Expr]], example: Example
) -> list[tuple[Quantity, list[Term]]]:
    """Return the average of each increment, as terms.

    Where some part of them needs a rule over all fields at once, whose nodes are then there anyway, no other part is
    worth a rule over two.
    """
    averages = [(q, take_expectations(expr, q.indices, example)) for q, expr in increments]
    if any(term.factors and isinstance(term.factors[0], Joint) for _, terms in averages for term in terms):
        example = replace(example, outer=min(example.outer, 1))
        averages = [(q, take_expectations(expr, q.indices, example)) for q, expr in increments]
    return averages


def _equation(q: Quantity, expr: sympy.Expr, example: Example) -> Equation:
    """Return an equation with its status."""
    return Equation(q, expr, _status_of(expr, example))


def _status_of(expr: sympy.Expr, example: Example) -> str:
    """Return ``"exact"``, or ``"numerical"`` with the rules that it needs and their size of error."""
    from .numerical.moment_forms import moment_form
    from .numerical.quadrature import kind_of

    forms = (moment_form(m.signature, example.shifted) for m in expr.atoms(Moment))
    rules = {form.rule for form in forms if not form.exact}
    if expr.has(Joint):
        names = [str(base) for base in example.fields]
        kind = kind_of(sorted(expr.atoms(Joint), key=str), set(names if example.shifted else ()), names)
        size = JOINT_RULES[kind]
        rules.add(f"a rule over all fields at once, {size} (solve.numerical_error gives it for a state)")
    return f"numerical: {'; '.join(sorted(rules))}" if rules else "exact"


def _status(limit: Limit, equations: tuple[Equation, ...]) -> str:
    """Return the status of a Dynamics: its limit's, and which equations hold numerical expectations."""
    numerical = [e.quantity.name for e in equations if e.status != "exact"]
    if not numerical:
        return limit.status
    return f"{limit.status}; with numerical expectations in the equations of {', '.join(numerical)}"


def expand_increments(training: TrainingStep) -> list[tuple[Quantity, sympy.Expr]]:
    """Return d times the increment of each order parameter in one step."""
    covariance = dict((*training.covariance, *training.idle_overlaps))
    moving = (*training.overlaps, *training.fast)
    overlaps = [(q, gram_increment(f, g, covariance, training.batch)) for q, f, g in moving]
    scalars = [*training.scalars, *((q, update) for q, update, _ in training.fast_scalars)]
    return overlaps + [(q, scalar_increment(update)) for q, update in scalars]


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
