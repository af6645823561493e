"""The order-1/d theory: what a Dynamics needs besides its drift for the mean and the covariance of runs at finite d.

With ω the solution of the equations of motion, runs at input dimension d have

    E[Ω(t)] = ω(t) + m(t)/d,   Cov[Ω(t)] = C(t)/d,
    dC/dt = J C + C Jᵀ + D,    dm/dt = J m + ½ H:C + c − ½ J b,

where b is the drift, J and H its first and second derivatives, D the covariance of one step's increments, and c the
1/d term of their mean. The last term is there because training goes in steps of 1/d, while ω moves continuously: over a
step ω advances by b/d + ½ J b/d². All pieces come from the same increments as the drift. Knows nothing of how they are
evaluated. Source: van Kampen's expansion of the system size, for the Markov chain of the overlaps.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy

from .averages import write_out
from .dynamics import Dynamics, Equation, Quantity
from .errors import ModelError, NotYet
from .increments import NOISE, NORM, D
from .loss import Y
from .moments import Dilation, Value
from .pipeline import average_increments, expand_increments
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
    tangent : Dynamics
        J v: the derivative of b along a perturbation of the states (``dQ``, ``dR``, …).
    correction : Dynamics
        c: d times the 1/d terms of the mean increment.
    increment : Dynamics
        X: d times the increment of each state in one step, given the local fields and the label noise of the example,
        which are its states; its covariance over them is D. See :func:`diffusion`.
    observables : Dynamics
        The scalar observables; their derivatives carry mean and covariance over to them.
    observables_tangent, observables_curvature : Dynamics
        Their derivatives along one and along two perturbations.

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
    tangent: Dynamics
    correction: Dynamics
    increment: Dynamics
    observables: Dynamics
    observables_tangent: Dynamics
    observables_curvature: Dynamics

    @property
    def noise_nodes(self) -> int:
        """The nodes of Gauss's rule over the label noise that averages products of two increments exactly.

        They are polynomials in it, of twice the degree of the slope of the loss each.
        """
        return 2 * int(sympy.degree(self.dynamics.model.loss.slope, Y)) + 1

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
        For expectations without closed form, functions by cases (ReLU), losses that are not polynomial, labels ±1,
        biases, batches and momentum.
    """
    training = update_rule(dynamics, "fluctuations()")
    try:
        first = tangent(dynamics)
        observed = _observed(dynamics)
        return Fluctuations(
            dynamics,
            first,
            _correction(dynamics, training),
            diffusion(dynamics, training),
            observed,
            tangent(observed),
            second_tangent(observed),
        )
    except NotDifferentiable as reason:
        raise NotYet(f"fluctuations() where {reason}", "models with erf, linear or polynomial activations") from None


def second_tangent(dynamics: Dynamics) -> Dynamics:
    """Return the second derivative of the equations of motion along two perturbations.

    Its states are one perturbation; the other comes among its parameters, behind the states of ``dynamics``.

    Raises
    ------
    NotDifferentiable
        If the equations have no derivative here.

    Examples
    --------
    >>> x = Quantity("x")
    >>> cubic = Dynamics("cubic", "ode", "t", (Equation(x, x.symbol**3),))
    >>> print(second_tangent(cubic)["d_dx"])
    6*d_dx*dx*x
    """
    first = tangent(dynamics)
    drift = tuple(Equation(q, e.expr) for q, e in zip(dynamics.states, first.drift, strict=True))
    return tangent(replace(first, drift=drift, parameters=first.states + dynamics.parameters))


def diffusion(dynamics: Dynamics, training: "TrainingStep | None" = None) -> Dynamics:
    """Return d times the increments of one step, whose covariance over a fresh example is the diffusion matrix D.

    Returns
    -------
    Dynamics
        Its states are the local fields and the label noise ``zeta``; fields are N(0, Ω), noise is N(0, 1). Its
        observables are the increments X, named as the states of ``dynamics``; |x|²/d is 1 at this order. Its parameters
        are the states, then the parameters, of ``dynamics``.
    """
    training = training or update_rule(dynamics, "fluctuations()")
    example = training.example("auto")
    fields = [
        Quantity(str(f.base), (_index(f.size),), (f.size,), f.latex, "local fields")
        for f in dynamics.families
        if not f.derived
    ]
    noise = Quantity(NOISE.name, latex=r"\zeta", meaning="label noise over its standard deviation")
    return Dynamics(
        f"{dynamics.title}: increments of one step",
        "ode",
        dynamics.clock,
        tuple(Equation(q, sympy.S.Zero) for q in (*fields, noise)),
        dynamics.states + dynamics.parameters,
        tuple(
            Equation(q, evaluated(write_out(of_order_one(expr.xreplace({NORM: sympy.S.One})), example)))
            for q, expr in expand_increments(training)
        ),
    )


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
        "batches": training.batch != 1,
        "momentum": any(f.others or g.others for _, f, g in training.overlaps),
        "inputs in blocks": training.parts is not None,
    }
    for missed, present in missing.items():
        if present:
            raise NotYet(
                f"{what} with {missed}",
                "squared loss, real labels, no biases, one example a step, no momentum, isotropic inputs",
            )
    return training


def _observed(dynamics: Dynamics) -> Dynamics:
    """Return the scalar observables as what states of their own would move by, the others at rest: so they have
    derivatives as the drift has."""
    at_rest = tuple(Equation(q, sympy.S.Zero) for q in dynamics.states)
    scalars = tuple(e for e in dynamics.observables if not e.quantity.indices)
    return replace(
        dynamics, title=f"{dynamics.title}: observables", drift=at_rest + scalars, observables=(), model=None
    )


def _correction(dynamics: Dynamics, training: "TrainingStep") -> Dynamics:
    """Return d times the terms of order 1/d of the mean increment."""
    means = average_increments(expand_increments(training), training.example(dynamics.method))
    drift = tuple(Equation(q, _resolved(assemble(_of_order_one_over_d(terms)), dynamics)) for q, terms in means)
    return replace(dynamics, title=f"{dynamics.title}: 1/d terms", drift=drift, observables=(), model=None)


def _of_order_one_over_d(terms: list[Term]) -> list[Term]:
    """Return d times the terms of a mean increment that are of order 1/d."""
    scaled = (replace(term, coefficient=sympy.expand_mul(term.coefficient * D)) for term in terms)
    return [term for term in scaled if _order(term) == 0]


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
