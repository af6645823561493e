"""The order-1/d theory: what a Dynamics needs besides its drift for the mean and the covariance of runs at finite d.

With ω the solution of the equations of motion, runs at input dimension d have

    E[Ω(t)] = ω(t) + m(t)/d,   Cov[Ω(t)] = C(t)/d,
    dC/dt = J C + C Jᵀ + D,    dm/dt = J m + ½ H:C + c − ½ J b,

where b is the drift, J and H its first and second derivatives, D the covariance of one step's increments, and c the 1/d
term of their mean. The last term is there because training goes in steps of 1/d, while ω moves continuously: over a
step ω advances by b/d + ½ J b/d²; where b depends on time explicitly, ½ ∂b/∂t comes to ½ J b. All pieces come from the
same increments as the drift. Knows nothing of how they are evaluated. Source: van Kampen's expansion of the system
size, for the Markov chain of the overlaps.

Where vectors are rescaled to their lengths after a step, X is the projected increment, and c has averages of products
of two increments besides (:mod:`.projection`). Where momentum has a fixed β, all this is of the overlaps Ω̃ of vectors
that move by plain steps (:mod:`.plain_steps`), with b, J and c at Ω = Ω̃ + o/d: J m is then of m = m̃ + o.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy

from .averages import resolve_dilations, write_out
from .dynamics import TIME, Dynamics, Equation, FieldFamily, Quantity
from .errors import ModelError, NotYet
from .fast_variables import Averages, FixedPoints, fixed_points, gathered, insert_fixed_points
from .increments import NOISE, NORM, D
from .loss import Y
from .moments import Dilation, Pair, Value
from .numerical.quadrature import KINKS
from .pipeline import average_increments, expand_increments
from .plain_steps import offsets, slow_averages, slow_increments, without_buffers
from .projection import Increments, curvature, held_overlaps, hold_lengths, project
from .tangent import NotDifferentiable, along, tangent
from .terms import Term, assemble

if TYPE_CHECKING:
    from .pipeline import TrainingStep

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
        are the states here; its covariance over them, divided by ``batch``, is D. Where lengths are held, as many
        quadratic forms in X follow, whose averages over ``batch`` add to c. See :func:`diffusion`.
    families : tuple of FieldFamily
        The local fields of an example; those on which nothing depends, of momentum buffers, come last.
    covariance : tuple of ((str, str), Lambda)
        Their covariance.
    active : tuple of FieldFamily
        The families without those of buffers.
    batch : Expr
        The number of examples that a step averages over.
    held : tuple of str
        The overlaps of vectors of fixed length with each other, whose diagonal does not move.
    offset : Dynamics or None
        With momentum of a fixed β, o: what m has besides m̃ once buffers, which start at 0, have relaxed.

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
    held: tuple[str, ...] = ()
    offset: Dynamics | None = None

    @property
    def noise_nodes(self) -> int:
        """The nodes of Gauss's rule over the label noise that averages products of two increments exactly.

        They are polynomials in it, of twice the degree of the slope of the loss each.
        """
        return 2 * int(sympy.degree(self.dynamics.model.loss.slope, Y)) + 1

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
        For losses that are not polynomial, labels ±1, biases, momentum at a fixed β of vectors of fixed length, and
        functions with kinks whose expectations are numerical.
    """
    training = update_rule(dynamics, "fluctuations()")
    _check_smooth(dynamics)
    first = _tangent_if_known(dynamics)
    active = tuple(f for f in dynamics.families if not f.derived)
    return Fluctuations(
        dynamics,
        first,
        _correction(dynamics, training, symbolic=first is not None),
        diffusion(dynamics, training),
        (*active, *idle_families(training)),
        (*dynamics.covariance, *(() if training.fast else training.idle_overlaps)),
        active,
        training.batch,
        held_overlaps(training),
        _offset(dynamics, training) if training.fast else None,
    )


def _tangent_if_known(dynamics: Dynamics) -> Dynamics | None:
    try:
        return tangent(dynamics)
    except NotDifferentiable:
        return None


def _check_smooth(dynamics: Dynamics) -> None:
    """Refuse numerical drifts with kinks: rules give them to 1e-5, and second differences would show these errors."""
    functions = {value.args[0].function.expr for e in dynamics.drift for value in e.expr.atoms(Value)}
    if dynamics.tables and any(f.has(*KINKS) for f in functions):
        raise NotYet(
            "fluctuations() of functions with kinks whose expectations have no closed form",
            "activations with closed forms (erf, relu, polynomials) or smooth ones (tanh)",
        )


def diffusion(dynamics: Dynamics, training: "TrainingStep | None" = None) -> Dynamics:
    """Return d times the increments of a step on one example, whose covariance over it is the diffusion matrix D.

    Of a batch of b they are the mean over examples of these increments, their terms quadratic in the gradient divided
    by b: what two examples add together is of mean zero but for 1/d, and of variance 1/d. So D is the covariance over
    one example divided by b.

    Returns
    -------
    Dynamics
        Its states are the local fields and the label noise ``zeta``; fields are N(0, Ω), noise is N(0, 1). Its
        observables are the increments X, named as the states of ``dynamics``; |x|²/d is 1 at this order. Where lengths
        are held, there follow the terms that rescaling adds to c, quadratic in X, named as the states and
        ``_rescaled``. Its parameters are the states, then the parameters, of ``dynamics``.
    """
    training = training or update_rule(dynamics, "fluctuations()")
    example = training.example("auto")
    active = [f for f in dynamics.families if not f.derived]
    fields = [
        Quantity(str(f.base), (_index(f.size),), (f.size,), f.latex, "local fields")
        for f in (*active, *idle_families(training))
    ]
    noise = Quantity(NOISE.name, latex=r"\zeta", meaning="label noise over its standard deviation")
    return Dynamics(
        f"{dynamics.title}: increments of one step",
        "ode",
        dynamics.clock,
        tuple(Equation(q, sympy.S.Zero) for q in (*fields, noise)),
        dynamics.states + dynamics.parameters,
        tuple(Equation(q, training.timed(evaluated(write_out(e, example)))) for q, e in _of_one_example(training)),
    )


def _of_one_example(training: "TrainingStep") -> Increments:
    """Return the increments X at order one, and what follows of quadratic forms in them."""
    free = [
        (q, without_buffers(of_order_one(expr.xreplace({NORM: sympy.S.One})), training))
        for q, expr in slow_increments(training)
    ]
    if not training.normalised:
        return free
    curved = [(replace(q, name=f"{q.name}_rescaled"), expr) for q, expr in curvature(free, training)]
    return project(free, training) + curved


def update_rule(dynamics: Dynamics, what: str) -> "TrainingStep":
    """Return the update rule behind equations of motion, if their fluctuations, for ``what``, can be had."""
    model: Any = dynamics.model
    if not hasattr(model, "training_step"):
        raise ModelError("dynamics", dynamics.title, "what TeacherStudent(...).dynamics() returns")
    if dynamics.kind != "ode" or dynamics.limit != LIMIT:
        raise ModelError("limit", dynamics.limit, f"{LIMIT!r}: runs fluctuate around that limit by 1/sqrt(d)")
    training: TrainingStep = model.training_step()
    missing = {
        "a loss that is not polynomial": not model.loss.polynomial,
        "labels ±1": training.label is not None,
        "biases": bool(training.mean) and training.center is None,
        "inputs that have a mean": training.center is not None,
        "inputs in blocks": training.parts is not None,
        "momentum of fixed beta and vectors of fixed length": bool(training.fast and training.normalised),
    }
    accepted = "squared loss, real labels, no biases, isotropic inputs, momentum or a constraint"
    for missed, present in missing.items():
        if present:
            raise NotYet(f"{what} with {missed}", accepted)
    return training


def idle_families(training: "TrainingStep") -> tuple[FieldFamily, ...]:
    """Return the families of fields on which nothing depends, with as many members as their overlaps say.

    Buffers that relax within a few steps have fields of order d^(−1/2), and are none of them.
    """
    if training.fast:
        return ()
    sizes = {u.field.base: size for q, f, g in training.overlaps for u, size in zip((f, g), q.shape, strict=True)}
    return tuple(FieldFamily(base, sizes[base], str(base)) for base in training.idle)


def _correction(dynamics: Dynamics, training: "TrainingStep", symbolic: bool) -> Dynamics:
    """Return d times the terms of order 1/d of the mean increment, and −½ ∂b/∂t: over a step rates change."""
    example = training.example(dynamics.method)
    means = slow_averages(training, example)
    if any(factor.has(Pair) for _, terms in means for t in _of_order_one_over_d(terms) for factor in t.factors):
        raise NotYet("fluctuations() with batches where expectations are over all fields at once", "one example a step")
    rescaled = dict(_of_means(means, training))
    if training.normalised:
        means = hold_lengths(means, training)
    solved = _fixed_points(dynamics, training)

    def corrected(q: Quantity, terms: list[Term]) -> sympy.Expr:
        small = _of_order_one_over_d(terms)
        if solved:
            small = gathered(insert_fixed_points(small, solved), q)
        found = (
            _resolved(assemble(small), dynamics) if symbolic else assemble(resolve_dilations(small, q.indices, example))
        )
        found += rescaled.get(q, sympy.S.Zero)
        return training.timed(found) - assemble(_changing(terms, training)) / 2

    drift = tuple(Equation(q, corrected(q, terms)) for q, terms in means)
    return replace(dynamics, title=f"{dynamics.title}: 1/d terms", drift=drift, observables=(), model=None)


def _of_means(means: Averages, training: "TrainingStep") -> Increments:
    """Return (1 − 1/b) times the quadratic forms of rescaling at mean increments: those that b examples share of the
    average of a form in the mean of b."""
    if not training.normalised or training.batch == 1:
        return []
    leading = [(q, assemble([t for t in _expanded(terms) if _order(t) == 0])) for q, terms in means]
    return [(q, (1 - 1 / training.batch) * expr) for q, expr in curvature(leading, training)]


def _fixed_points(dynamics: Dynamics, training: "TrainingStep") -> FixedPoints:
    """Return the overlaps of momentum buffers that relax within a few steps, to leading order."""
    if not training.fast:
        return {}
    means = average_increments(expand_increments(training), training.example(dynamics.method))
    return fixed_points(means, [q.name for q, *_ in training.fast])


def _offset(dynamics: Dynamics, training: "TrainingStep") -> Dynamics:
    """Return d times what overlaps have besides those of vectors that buffers do not move."""
    found = offsets(training, _fixed_points(dynamics, training))
    drift = tuple(Equation(q, training.timed(assemble(terms))) for q, terms in found)
    return replace(dynamics, title=f"{dynamics.title}: buffers", drift=drift, observables=(), model=None)


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


def _resolved(expr: sympy.Expr, dynamics: Dynamics) -> sympy.Expr:
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
