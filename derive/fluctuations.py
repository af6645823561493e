"""The order-1/d theory: what a Dynamics needs besides its drift for the mean and the covariance of runs at finite d.

With ω the solution of the equations of motion, runs at input dimension d have

    E[Ω(t)] = ω(t) + m(t)/d,   Cov[Ω(t)] = C(t)/d,
    dC/dt = J C + C Jᵀ + D,    dm/dt = J m + ½ H:C + c − ½ J b,

where b is the drift, J and H its first and second derivatives, D the covariance of one step's increments, and c the 1/d
term of their mean. The last term is there because training goes in steps of 1/d, while ω moves continuously: over a
step ω advances by b/d + ½ J b/d²; where b depends on time explicitly, ½ ∂b/∂t comes to ½ J b. All pieces come from the
same increments as the drift. Knows nothing of how they are evaluated. Source: van Kampen's expansion of the system
size, for the Markov chain of the overlaps.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy

from .averages import LABEL, rename_bound, resolve_dilations
from .dynamics import TIME, Dynamics, Equation, FieldFamily, Quantity
from .errors import ModelError, NoClosedForm, NotYet
from .increments import NOISE, NORM, D
from .loss import Y
from .moments import Dilation, Joint, Moment, Pair, Value
from .numerical.moment_forms import moment_form
from .numerical.quadrature import KINKS
from .pipeline import average_increments, expand_increments
from .tangent import NotDifferentiable, along, tangent
from .terms import Term, assemble

if TYPE_CHECKING:
    from .averages import Example
    from .pipeline import TrainingStep

LONGEST = 10_000
"""Operations from which on forms of the correction are left to the rule over examples: they compile for half a minute.
Those of GELU, whose correction has 300 000, are."""
LIMIT = "high-dimensional"
"""The limit around which runs fluctuate by 1/√d at time steps/d."""


@dataclass(frozen=True, slots=True)
class Fluctuations:
    """The equations of motion of a model with all that determines the fluctuations of its runs, to order 1/d.

    Each piece is a Dynamics, to be read (``print``, ``latex()``) or compiled.

    Attributes
    ----------
    dynamics : Dynamics
        The equations of motion, b; their solution is the limit.
    tangent : Dynamics or None
        J v: the derivative of b along a perturbation of the states (``dQ``, ``dR``, …). None where b has no form that
        could be differentiated: solvers take differences of b itself.
    correction : Dynamics
        c: d times the 1/d terms of the mean increment, less ½ ∂b/∂t where learning rates follow a schedule.
    increment : Dynamics
        X: d times the increment of each state in a step on one example, given its local fields and label noise, which
        are the states here; its covariance over them, divided by ``batch``, is D. See :func:`diffusion`.
    kicks : Kicks or None
        What the part of c that is a rule over the fields of an example needs, where ``correction`` lacks it: averages
        without a form whose derivative along the covariance could be written down.
    families : tuple of FieldFamily
        The local fields of an example; those on which nothing depends, of momentum buffers, come last.
    covariance : tuple of ((str, str), Lambda)
        Their covariance.
    active : tuple of FieldFamily
        The families without those of buffers.
    batch : Expr
        The number of examples that a step averages over.

    Examples
    --------
    >>> from effdyn import derive
    >>> theory = derive.TeacherStudent(activation="linear").dynamics().fluctuations()
    >>> print(theory.tangent["dR"])
    -eta*a[i]*Sum(a[j]*dR[j, n], (j, 1, K))
    >>> [q.name for q in theory.increment.states]
    ['h', 'h_star', 'zeta']
    """

    dynamics: Dynamics
    tangent: Dynamics | None
    correction: Dynamics
    increment: Dynamics
    families: tuple[FieldFamily, ...]
    covariance: tuple[tuple[tuple[str, str], sympy.Lambda], ...]
    active: tuple[FieldFamily, ...]
    batch: sympy.Expr = sympy.S.One
    kicks: "Kicks | None" = None

    @property
    def noise_nodes(self) -> int:
        """The nodes of Gauss's rule over the label noise that averages products of two increments exactly.

        They are polynomials in it, of twice the degree of the slope of the loss each; 0 if that is no polynomial, and
        the noise one more variable of the rule over the fields.
        """
        loss = self.dynamics.model.loss
        return 2 * int(sympy.degree(loss.slope, Y)) + 1 if loss.polynomial else 0

    @property
    def labelled(self) -> bool:
        """Whether labels are ±1: the last state of ``increment``, with ``probability`` given the fields."""
        return any(e.quantity.name == PROBABILITY.name for e in self.increment.observables)

    @property
    def kinked(self) -> bool:
        """Whether the increments have kinks or jumps, as those of ReLU."""
        return any(e.expr.has(*KINKS) for e in self.increment.observables)

    def __str__(self) -> str:
        return f"fluctuations of order 1/d around\n\n{self.dynamics}"


@lru_cache(maxsize=32)
def fluctuations(dynamics: Dynamics) -> Fluctuations:
    """Return the order-1/d theory around the equations of motion of a model.

    Parameters
    ----------
    dynamics : Dynamics
        What ``model.dynamics()`` returns, in the high-dimensional limit.

    Raises
    ------
    ModelError
        If they were not derived from a model in that limit.
    NotYet
        For biases, and momentum at a fixed β.
    """
    training = update_rule(dynamics, "fluctuations()")
    first = _tangent_if_known(dynamics)
    active = tuple(f for f in dynamics.families if not f.derived)
    correction, complete = _correction(dynamics, training, symbolic=first is not None)
    kicks = None if complete else kicks_of(training)
    return Fluctuations(
        dynamics,
        first,
        correction,
        diffusion(dynamics, training, kicks),
        (*active, *idle_families(training)),
        (*dynamics.covariance, *training.idle_overlaps),
        active,
        training.batch,
        kicks,
    )


def _tangent_if_known(dynamics: Dynamics) -> Dynamics | None:
    try:
        return tangent(dynamics)
    except NotDifferentiable:
        return None


def diffusion(dynamics: Dynamics, training: "TrainingStep | None" = None, kicks: "Kicks | None" = None) -> Dynamics:
    """Return d times the increments of a step on one example, whose covariance over it is the diffusion matrix D.

    Of a batch of b they are the mean over examples of these increments, their terms quadratic in the gradient divided
    by b: what two examples add together is of mean zero but for 1/d, and of variance 1/d. So D is the covariance over
    one example divided by b.

    Returns
    -------
    Dynamics
        Its states are the local fields and the label noise ``zeta``; fields are N(0, Ω), noise is N(0, 1). A label ±1
        is one state more, ``y_sign``. Its observables are the increments X, named as the states of ``dynamics``; |x|²/d
        is 1 at this order. Then, of labels ±1, the ``probability`` of ``y_sign`` given the fields; and with ``kicks``
        what of each X multiplies |x|²/d, and the kicks. Its parameters are the states, then the parameters, of
        ``dynamics``.
    """
    training = training or update_rule(dynamics, "fluctuations()")
    active = [f for f in dynamics.families if not f.derived]
    fields = [
        Quantity(str(f.base), (_index(f.size),), (f.size,), f.latex, "local fields")
        for f in (*active, *idle_families(training))
    ]
    noise = Quantity(NOISE.name, latex=r"\zeta", meaning="label noise over its standard deviation")
    label = Quantity(LABEL.name, latex="y", meaning="the label")
    increments = expand_increments(training)
    observed = [(q, of_order_one(expr.xreplace({NORM: sympy.S.One}))) for q, expr in increments]
    if training.label is not None:
        observed.append((PROBABILITY, (1 + LABEL * training.label) / 2))
    if kicks is not None:
        observed += [(_stretched(q), of_order_one(expr.coeff(NORM))) for q, expr in increments]
        observed += kicks.quantities
    return Dynamics(
        f"{dynamics.title}: increments of one step",
        "ode",
        dynamics.clock,
        tuple(Equation(q, sympy.S.Zero) for q in (*fields, noise, *([label] if training.label is not None else []))),
        dynamics.states + dynamics.parameters,
        tuple(Equation(q, training.timed(_in_fields(expr, q, training))) for q, expr in observed),
    )


PROBABILITY = Quantity("probability", latex="p", meaning="probability of the label given the fields")


@dataclass(frozen=True, slots=True)
class Kicks:
    """The functions F by which an example moves vectors, v ← … + (F/√d) x, and the products of two in each state.

    By them the terms of order 1/d of mean increments are averages over the standard normal variables z of which the
    fields are made, h = L z with L Lᵀ = Ω (Stein's lemma): 2 ∂_s E_{sΩ}[G] = E[(|z|² − N) G], and of two independent
    examples of a batch E[∇F]ᵀ Ω E[∇G] = E[F z]·E[G z]. No derivative is taken, so that F may have kinks and jumps.

    Attributes
    ----------
    quantities : list of (Quantity, Expr)
        Each kick, as an observable.
    pairs : tuple of (int, int) or None
        For each state, which two of them its increment multiplies, with its own indices; None if it multiplies none.
    """

    quantities: tuple[tuple[Quantity, sympy.Expr], ...]
    pairs: tuple[tuple[int, int] | None, ...]


def kicks_of(training: "TrainingStep") -> Kicks:
    """Return the kicks of order one of an update rule."""
    known = {u.field.base: (u, size) for q, f, g in training.overlaps for u, size in zip((f, g), q.shape, strict=True)}
    moving = {base: (u, size) for base, (u, size) in known.items() if of_order_one(u.kick) != 0}
    quantities = tuple(
        (Quantity(f"kick_{base}", u.field.indices, (size,), f"F_{base}", "kick"), of_order_one(u.kick))
        for base, (u, size) in moving.items()
    )
    number = {base: n for n, base in enumerate(moving)}
    pairs = [
        (number[f.field.base], number[g.field.base]) if {f.field.base, g.field.base} <= set(number) else None
        for _, f, g in training.overlaps
    ]
    return Kicks(quantities, tuple([*pairs, *(None for _ in training.scalars)]))


def _stretched(q: Quantity) -> Quantity:
    return replace(q, name=f"{q.name}_stretched", latex="", meaning=f"what multiplies |x|²/d in the increment of {q}")


def _in_fields(expr: sympy.Expr, q: Quantity, training: "TrainingStep") -> sympy.Expr:
    """Return an expression in the fields of weight vectors and the label noise alone."""
    return rename_bound(evaluated(expr).xreplace(dict(training.written_out)), q.indices)


def update_rule(dynamics: Dynamics, what: str) -> "TrainingStep":
    """Return the update rule behind equations of motion, if their fluctuations, for ``what``, can be had."""
    model: Any = dynamics.model
    if not hasattr(model, "training_step"):
        raise ModelError("dynamics", dynamics.title, "what TeacherStudent(...).dynamics() returns")
    if dynamics.kind != "ode" or dynamics.limit != LIMIT:
        raise ModelError("limit", dynamics.limit, f"{LIMIT!r}: runs fluctuate around that limit by 1/sqrt(d)")
    training: TrainingStep = model.training_step()
    missing = {
        "a loss that is not polynomial": what == "sde()" and not model.loss.polynomial,
        "labels ±1": what == "sde()" and training.label is not None,
        "biases": bool(training.mean) and training.center is None,
        "inputs that have a mean": training.center is not None,
        "inputs in blocks": training.parts is not None,
        "momentum of fixed beta": bool(training.fast),
        "vectors of fixed length": bool(training.normalised),
    }
    accepted = 'no biases, isotropic inputs, momentum="slow" or none, no constraint'
    accepted = f"squared loss, real labels, {accepted}" if what == "sde()" else accepted
    for missed, present in missing.items():
        if present:
            raise NotYet(f"{what} with {missed}", accepted)
    return training


def idle_families(training: "TrainingStep") -> tuple[FieldFamily, ...]:
    """Return the families of fields on which nothing depends, with as many members as their overlaps say."""
    sizes = {u.field.base: size for q, f, g in training.overlaps for u, size in zip((f, g), q.shape, strict=True)}
    return tuple(FieldFamily(base, sizes[base], str(base)) for base in training.idle)


def _correction(dynamics: Dynamics, training: "TrainingStep", symbolic: bool) -> tuple[Dynamics, bool]:
    """Return d times the terms of order 1/d of the mean increment, and −½ ∂b/∂t: over a step rates change.

    And whether these are all: where some have no form, those of |x|² and of pairs of examples are left out.
    """
    example = training.example(dynamics.method)
    means = average_increments(expand_increments(training), example)
    small = [(q, _of_order_one_over_d(terms)) for q, terms in means]
    try:
        found = [_resolved(terms, q, dynamics, example if not symbolic else None) for q, terms in small]
        complete = True
    except (_NoForm, NoClosedForm, NotYet, NotDifferentiable):
        found = [assemble([t for t in terms if not _has(t, Dilation, Pair)]) for _, terms in small]
        complete = False
    drift = tuple(
        Equation(q, training.timed(expr) - assemble(_changing(terms, training)) / 2)
        for (q, terms), expr in zip(means, found, strict=True)
    )
    title = f"{dynamics.title}: 1/d terms"
    return replace(dynamics, title=title, drift=drift, observables=(), model=None), complete


class _NoForm(Exception):
    """Averages whose stretching is better taken by the rule that averages examples."""


def _resolved(terms: list[Term], q: Quantity, dynamics: Dynamics, example: "Example | None") -> sympy.Expr:
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
    scaled = (replace(term, coefficient=sympy.expand_mul(term.coefficient * D)) for term in terms)
    return [term for term in scaled if _order(term) == 0]


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


def _length(expr: sympy.Expr, example: "Example") -> int:
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


def of_order_one(increment: sympy.Expr) -> sympy.Expr:
    """Return what of d·ΔΩ is of order one. What is of order d cancels: a vector that stays is still there."""
    parts = (part.as_independent(D, as_Add=False) for part in sympy.Add.make_args(increment))
    return sympy.Add(*(rest * sympy.expand(power).coeff(D, 0) for rest, power in parts))


def evaluated(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with the functions of local fields as what they are."""
    return expr.replace(Value, lambda univariate, field: univariate.function(field))


def _index(size: sympy.Expr) -> sympy.Symbol:
    return sympy.Symbol(f"f_{size}", integer=True, positive=True)
