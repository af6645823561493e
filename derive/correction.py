"""The terms of order 1/d of the mean increment of a step, c, and what momentum of a fixed β adds to it.

As they come from the average of a step they hold ∂_s E_{sΩ}, by how much |x|² depends on the fields: here it becomes
the derivative of a closed form along the overlaps, or expectations of derivatives. What has neither form is left to the
rule that averages examples. Knows nothing of how anything is evaluated.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import sympy

from .averages import Example, resolve_dilations
from .dynamics import TIME, Dynamics, Equation, Quantity
from .errors import NoClosedForm, NotYet
from .fast_variables import Averages, FixedPoints, fixed_points, gathered, insert_fixed_points
from .increments import D
from .moments import Dilation, Joint, Moment, Pair
from .numerical.moment_forms import moment_form
from .pipeline import average_increments, expand_increments
from .plain_steps import offsets, slow_averages
from .projection import Increments, curvature, hold_lengths
from .tangent import NotDifferentiable, along
from .terms import Term, assemble

if TYPE_CHECKING:
    from .pipeline import TrainingStep

LONGEST = 10_000
"""Operations from which on forms of the correction, which compile for half a minute, are left to a rule over examples.
Those of GELU, whose correction has 300 000, are."""


class _NoForm(Exception):
    """Averages whose stretching is better taken by the rule that averages examples."""


def correction(dynamics: Dynamics, training: "TrainingStep", symbolic: bool) -> tuple[Dynamics, bool]:
    """Return d times the terms of order 1/d of the mean increment, and −½ ∂b/∂t: over a step rates change.

    And whether these are all: where some have no form, those of |x|² and of pairs of examples are left out.
    """
    example = training.example(dynamics.method)
    solved = _fixed_points(dynamics, training)
    means = slow_averages(training, example)
    try:
        found = [
            _resolved(terms, q, dynamics, None if symbolic else example) for q, terms in _small(means, training, solved)
        ]
        complete = True
    except (_NoForm, NoClosedForm, NotYet, NotDifferentiable):
        alone = training.without_length()
        means = slow_averages(alone, example, pairs=False)
        found = [_without_dilations(terms) for _, terms in _small(means, training, solved)]
        complete = False
    held = hold_lengths(means, training) if training.normalised else means
    rescaled = dict(_of_means(means, training))
    drift = tuple(
        Equation(q, training.timed(expr + rescaled.get(q, sympy.S.Zero)) - assemble(_changing(terms, training)) / 2)
        for (q, terms), expr in zip(held, found, strict=True)
    )
    title = f"{dynamics.title}: 1/d terms"
    return replace(dynamics, title=title, drift=drift, observables=(), model=None), complete


def _small(means: Averages, training: "TrainingStep", solved: FixedPoints) -> Averages:
    """Return d times the terms of order 1/d of mean increments, lengths held and buffers at their fixed points."""
    if training.normalised:
        means = hold_lengths(means, training)
    small = [(q, _of_order_one_over_d(terms)) for q, terms in means]
    return [(q, gathered(insert_fixed_points(terms, solved), q)) for q, terms in small] if solved else small


def _without_dilations(terms: list[Term]) -> sympy.Expr:
    """Return what is left where the rule over examples gives what |x|² and pairs of examples add."""
    return assemble([t for t in terms if not _has(t, Dilation)])


def offset(dynamics: Dynamics, training: "TrainingStep") -> Dynamics | None:
    """Return d times what overlaps have besides those of vectors that buffers do not move; None without buffers."""
    if not training.fast:
        return None
    found = offsets(training, _fixed_points(dynamics, training))
    drift = tuple(Equation(q, training.timed(assemble(terms))) for q, terms in found)
    return replace(dynamics, title=f"{dynamics.title}: buffers", drift=drift, observables=(), model=None)


def _fixed_points(dynamics: Dynamics, training: "TrainingStep") -> FixedPoints:
    """Return the overlaps of momentum buffers that relax within a few steps, to leading order."""
    if not training.fast:
        return {}
    means = average_increments(expand_increments(training), training.example(dynamics.method))
    return fixed_points(means, training.fast_names)


def _of_means(means: Averages, training: "TrainingStep") -> Increments:
    """Return (1 − 1/b) times the quadratic forms of rescaling at mean increments: those that b examples share of the
    average of a form in the mean of b."""
    if not training.normalised or training.batch == 1:
        return []
    leading = [(q, assemble([t for t in _expanded(terms) if _order(t) == 0])) for q, terms in means]
    return [(q, (1 - 1 / training.batch) * expr) for q, expr in curvature(leading, training)]


def _resolved(terms: list[Term], q: Quantity, dynamics: Dynamics, example: Example | None) -> sympy.Expr:
    """Return terms with each ∂_s E_{sΩ}: of closed forms, or, given the ``example``, as expectations."""
    if any(_has(t, Pair) or (_has(t, Dilation) and _has(t, Joint)) for t in terms):
        raise _NoForm
    if example is not None:
        expr = assemble(resolve_dilations(terms, q.indices, example))
        if _length(expr, example) > LONGEST:
            raise _NoForm
        return expr
    return _along_overlaps(assemble(terms), dynamics)


def _of_order_one_over_d(terms: list[Term]) -> list[Term]:
    """Return d times the terms of a mean increment that are of order 1/d."""
    scaled = (replace(term, coefficient=term.coefficient * D) for term in terms)
    return [term for term in _expanded(scaled) if _order(term) == 0]


def _expanded(terms: Iterable[Term]) -> list[Term]:
    return [replace(term, coefficient=sympy.expand_mul(term.coefficient)) for term in terms]


def _changing(terms: list[Term], training: "TrainingStep") -> list[Term]:
    """Return the time derivatives of the terms of order one, whose coefficients may depend on time explicitly."""
    rates = (replace(t, coefficient=sympy.diff(training.timed(t.coefficient), TIME)) for t in terms if _order(t) == 0)
    return [term for term in rates if term.coefficient != 0]


def _order(term: Term) -> sympy.Expr:
    """Return the power of d in a term, whose coefficient is a monomial."""
    _, power = sympy.powsimp(term.coefficient).as_coeff_exponent(D)
    return power


def _has(term: Term, *kinds: type[sympy.Basic]) -> bool:
    return any(factor.has(*kinds) for factor in term.factors)


def _length(expr: sympy.Expr, example: Example) -> int:
    """Return the number of operations of the forms of all moments in an expression."""
    forms = (moment_form(m.signature, example.shifted).form for m in expr.atoms(Moment))
    return sum(int(form.count_ops()) for form in forms)


def _along_overlaps(expr: sympy.Expr, dynamics: Dynamics) -> sympy.Expr:
    """Return an expression with each ∂_s E_{sΩ}: the derivative of the closed form along Ω itself, since it holds
    nothing but covariances. Those of fields alone: label noise is no field."""
    overlaps = {q.name: q for q in (*dynamics.states, *dynamics.parameters) if _is_overlap(q, dynamics)}
    return expr.replace(Dilation, lambda moment: along(dynamics.closed(moment), overlaps))


def _is_overlap(q: Quantity, dynamics: Dynamics) -> bool:
    return len(q.shape) == 2 and any(law.expr.has(q.base) for _, law in dynamics.covariance)
