r"""Wide students: neurons described by what of them lies in the teacher's span, and by what is orthogonal to it.

Of a student vector w_i = w_i^∥ + w_i^⊥ the part in the span of the teacher's vectors is known from R, with the
pseudo-inverse T⁺ of T: w_i^∥·w_k^∥/d = (R T⁺ Rᵀ)_ik. So Q_ik = (R T⁺ Rᵀ)_ik + Q⊥_ik is a change of variables, and the
equation of Q⊥ follows from those of Q and R by the chain rule: exactly the same dynamics ("pairs"). Among many neurons
that start independently, an output that is a mean over K of them couples two by 1/K only: with Q⊥_ik = 0 for i ≠ k
("alone") each has M + 1 variables, of K (K + 1)/2 overlaps K are left. Random initial weights have Q⊥_ik of order
d^(−1/2), and noise makes η/K of it.

Source: Arnaboldi, Stephan, Krzakala & Loureiro, COLT 2023, arXiv:2302.05882 (their m_i, q_i^⊥; p is our K, γ our η).
Knows nothing of activations, losses or how an equation came about.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy

from .committee import KK, N_, Q_, R_, T_, I, K, M
from .dynamics import Dynamics, Equation, Quantity, Step
from .errors import ModelError, NotYet
from .limits import Dropped, Limit

if TYPE_CHECKING:
    from .teacher_student import TeacherStudent

X_, Z_ = sympy.symbols("x z", integer=True, positive=True)
"""Summation indices of teachers that no equation uses."""
T_INV = replace(T_, name="T_inv", latex="T^{+}", meaning="pseudo-inverse of T, computed from it", pseudoinverse_of="T")
PAIRS = replace(
    Q_,
    name="Q_perp",
    latex=r"Q^{\perp}",
    meaning="overlaps of the parts of student vectors that are orthogonal to the teacher",
)
ALONE = Quantity(
    "Q_perp",
    (I,),
    (K,),
    r"q^{\perp}",
    "squared length over d of the part of a student vector that is orthogonal to the teacher",
    minimum=0.0,
    dims=("student",),
)
ORTHOGONAL = (
    "student vectors have nothing in common but what lies in the teacher's span: off-diagonal elements of Q_perp are "
    "O(1/K) from the drift, O(η/K) from noise and O(d^-1/2) from random initial weights"
)


def check_wide(model: "TeacherStudent", limit: Limit) -> None:
    """Raise a ModelError unless the model has a limit of wide students, if that is what is asked for."""
    if not limit.wide:
        return
    if model.output_scale != 1 / K:
        accepted = f"{limit.name!r} with output_scale='1/K': its time counts η/K a step, the output being a mean"
        raise ModelError("limit", f"{limit.name} of {model!r}", accepted)
    if model.momentum == "slow":
        raise NotYet(f"limit={limit.name!r} with slow momentum", 'limit="high-dimensional"')
    if limit.neurons and model.inputs == "blocks":
        raise NotYet(f"limit={limit.name!r} with inputs in blocks", 'limit="wide", or isotropic inputs')


def describe_neurons(dynamics: Dynamics, limit: Limit) -> Dynamics:
    """Return equations of motion of Q and R as equations of R and Q⊥, if the limit is stated in them.

    Parameters
    ----------
    dynamics : Dynamics
        With states ``Q`` and ``R``.
    limit : Limit
        ``neurons`` of which says whether all pairs are kept.

    Returns
    -------
    Dynamics
        States ``Q_perp``, (K, K) or (K,), in place of ``Q``, which becomes an observable.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear", output_scale="1/K").dynamics("mean-field")
    >>> [str(q) for q in flow.states], str(flow.observables[-1].quantity)
    (['Q_perp[i]', 'R[i, n]'], 'Q[i, k]')
    """
    if not limit.neurons:
        return dynamics
    alone = limit.neurons == "alone"
    own = ALONE if alone else PAIRS
    equation = Equation(own, _rewritten(_by_chain_rule(dynamics, alone), own), _status_of(dynamics, "Q"))
    drift = tuple(equation if e.quantity == Q_ else replace(e, expr=_rewritten(e.expr, own)) for e in dynamics.drift)
    observables = tuple(replace(e, expr=_rewritten(e.expr, own)) for e in dynamics.observables)
    explanation = "The overlaps of students by what lies in the teacher's span and what is orthogonal to it"
    return replace(
        dynamics,
        drift=drift,
        parameters=_with_inverse(dynamics.parameters),
        observables=(*observables, Equation(Q_, overlap_of_students(I, KK, own))),
        covariance=tuple((pair, _rewritten(law, own)) for pair, law in dynamics.covariance),
        assumptions=(*dynamics.assumptions[:-1], *((ORTHOGONAL,) if alone else ()), *dynamics.assumptions[-1:]),
        steps=(
            *dynamics.steps,
            Step(
                "Neurons",
                f"{explanation}; its equation by the chain rule.",
                ((Q_.symbol, overlap_of_students(I, KK, own)), (sympy.Function("Rate")(own.symbol), equation.expr)),
            ),
        ),
        dropped=tuple(_dropped(d, alone) for d in dynamics.dropped),
    )


def overlap_of_students(i: sympy.Expr, k: sympy.Expr, own: Quantity) -> sympy.Expr:
    """Return Q_ik in R and Q⊥."""
    R, inverse = R_.base, T_INV.base
    inside = sympy.Sum(R[i, X_] * inverse[X_, Z_] * R[k, Z_], (Z_, 1, M), (X_, 1, M))
    if own == PAIRS:
        return inside + own.base[i, k]
    return inside + sympy.KroneckerDelta(i, k) * own.base[i]


def _by_chain_rule(dynamics: Dynamics, alone: bool) -> sympy.Expr:
    """Return d/dt (Q_ik − Σ_xz R_ix T⁺_xz R_kz), for i = k if neurons stand alone."""
    along = dynamics["R"]
    if alone:
        return dynamics["Q"].xreplace({KK: I}) - 2 * _projected(along, I)
    return dynamics["Q"] - _projected(along, KK) - _projected(along.xreplace({I: KK}), I)


def _projected(rate: sympy.Expr, other: sympy.Symbol) -> sympy.Expr:
    """Return Σ_n (dR_in/dt) (T⁺ Rᵀ)_nk, a sum for each term of the rate."""
    dual = sympy.Sum(T_INV.base[N_, Z_] * R_.base[other, Z_], (Z_, 1, M))
    parts = (term.as_independent(N_, as_Add=False) for term in sympy.Add.make_args(sympy.expand(rate)))
    return sympy.Add(*(outside * sympy.Sum(inside * dual, (N_, 1, M)) for outside, inside in parts))


def _rewritten(expr: Any, own: Quantity) -> Any:
    """Return an expression with the overlaps of students in R and Q⊥."""
    found = sorted((e for e in expr.atoms(sympy.Indexed) if e.base == Q_.base), key=sympy.default_sort_key)
    return expr.xreplace({e: overlap_of_students(e.indices[0], e.indices[1], own) for e in found})


def _with_inverse(parameters: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
    """Return the parameters with T⁺ after T."""
    return tuple(q for p in parameters for q in ((p, T_INV) if p == T_ else (p,)))


def _status_of(dynamics: Dynamics, name: str) -> str:
    return next(e.status for e in dynamics.drift if e.quantity.name == name)


def _dropped(dropped: Dropped, alone: bool) -> Dropped:
    """Return what vanishes from the equation of Q as what vanishes from that of Q⊥; it is the same, R has no noise."""
    if dropped.quantity != Q_.name:
        return dropped
    term = dropped.term
    if alone:
        swap = {KK: I}
        term = replace(
            term, coefficient=term.coefficient.xreplace(swap), factors=tuple(f.xreplace(swap) for f in term.factors)
        )
    return Dropped(PAIRS.name, term, dropped.order)
