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

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy

from .correction import correction, offset
from .dynamics import Dynamics, FieldFamily
from .errors import ModelError, NotYet
from .idle_fields import idle_covariances, idle_families, idle_means
from .loss import Y
from .numerical.quadrature import KINKS
from .one_example import (
    PROBABILITY,
    Kicks,
    active_families,
    diffusion,
    kicks_of,
)
from .projection import held_overlaps
from .tangent import NotDifferentiable, curvature, tangent

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
        are the states here; its covariance over them, divided by ``batch``, is D. What follows them of observables
        adds to c. See :func:`.one_example.diffusion`.
    families : tuple of FieldFamily
        The local fields of an example; those on which nothing depends come last: of momentum buffers, of the fixed
        vector of inputs with a mean, of the parts of vectors in blocks of the inputs.
    covariance : tuple of ((str, str), Lambda)
        Their covariance.
    mean : tuple of (str, Lambda)
        The means of those that have one.
    active : tuple of FieldFamily
        The families on which functions depend.
    batch : Expr
        The number of examples that a step averages over.

    Examples
    --------
    >>> from effdyn import derive
    >>> theory = derive.TeacherStudent(activation="linear").dynamics().fluctuations()
    >>> print(theory.tangent["dR"])
    -eta*a[i]*Sum(a[j]*dR[j, n], (j, 1, K))
    >>> print(theory.curvature["Q"])  # closed in covariances, of which the drift is linear
    0
    >>> [q.name for q in theory.increment.states]
    ['h', 'h_star', 'zeta']
    """

    dynamics: Dynamics
    tangent: Dynamics | None
    correction: Dynamics
    increment: Dynamics
    families: tuple[FieldFamily, ...]
    covariance: tuple[tuple[tuple[str, str], sympy.Lambda], ...]
    mean: tuple[tuple[str, sympy.Lambda], ...]
    active: tuple[FieldFamily, ...]
    batch: sympy.Expr = sympy.S.One
    kicks: Kicks | None = None
    held: tuple[str, ...] = ()
    offset: Dynamics | None = None

    @property
    def curvature(self) -> Dynamics | None:
        """The second derivative of b along a perturbation l of the states (``dQ``, ``dR``, …), for any K and M.

        H:C is its sum over the columns l of a factor of C. Derived when it is asked for, and to be read: solvers
        differentiate the operations of b, since of erf committees it takes 20 s to compile. None where ``tangent`` is.
        """
        return curvature(self.dynamics) if self.tangent else None

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
    def rescaled(self) -> bool:
        """Whether lengths are held: quadratic forms then end what ``increment`` observes."""
        return any(e.quantity.name.endswith("_rescaled") for e in self.increment.observables)

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
        For momentum at a fixed β with vectors of fixed length.
    """
    training = update_rule(dynamics, "fluctuations()")
    first = _tangent_if_known(dynamics)
    active = active_families(dynamics)
    small, complete = correction(dynamics, training, symbolic=first is not None and training.parts is None)
    kicks = None if complete else kicks_of(training)
    return Fluctuations(
        dynamics,
        first,
        small,
        diffusion(dynamics, training, kicks),
        (*active, *idle_families(training)),
        (*training.covariance, *idle_covariances(training)),
        (*training.mean, *idle_means(training)),
        active,
        training.batch,
        kicks,
        held_overlaps(training),
        offset(dynamics, training),
    )


def _tangent_if_known(dynamics: Dynamics) -> Dynamics | None:
    try:
        return tangent(dynamics)
    except NotDifferentiable:
        return None


def update_rule(dynamics: Dynamics, what: str) -> "TrainingStep":
    """Return the update rule behind equations of motion, if their fluctuations, for ``what``, can be had."""
    model: Any = dynamics.model
    if not hasattr(model, "training_step"):
        raise ModelError("dynamics", dynamics.title, "what TeacherStudent(...).dynamics() returns")
    if dynamics.kind != "ode" or dynamics.limit != LIMIT:
        raise ModelError("limit", dynamics.limit, f"{LIMIT!r}: runs fluctuate around that limit by 1/sqrt(d)")
    training: TrainingStep = model.training_step()
    if training.fast and training.normalised:
        reason = (
            "rescaling shrinks vectors by their overlaps with buffers, which scatter at order one and remember steps"
        )
        raise NotYet(f"{what} with momentum of fixed beta and vectors of fixed length: {reason}", "one of them")
    return training
