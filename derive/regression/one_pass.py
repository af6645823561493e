"""One-pass SGD on Gaussian inputs: from the update of the weights to an exact recursion, and to its limit.

The error v = w - w* moves by (eta/d) e x with e = sigma zeta - v.x. By rotation one may take the eigenvectors of the
covariance as axes; then the squared error along each of them has a closed equation, at every d.
"""

import sympy

from ..dynamics import Dynamics, Equation, Quantity, Step
from ..increments import NOISE, D
from ..limits import LIMITS, Dropped, keep_leading_order
from ..terms import Term, assemble
from .modes import TOTAL, Modes, variation_of_constants
from .quantities import DIMENSION, EG, ETA, LOSS, SIGMA, Spectrum, d, eta, j, sigma
from .wick import gaussian_average

V, X, FIELD = sympy.symbols("v x f", real=True)
"""The error along one eigenvector, the input along it, and f = v.x."""
STABILITY = Quantity("stability", latex=r"\mathcal{A}", meaning="training is stable where this is below 1")
FLOOR = Quantity("eg_floor", latex=r"\epsilon_g^{\infty}", meaning="stationary generalisation error where it is stable")
INPUTS = "inputs are Gaussian and seen once; the target is linear, with Gaussian noise"
LARGE = "d → ∞ at fixed learning rate, spectrum and time t = steps/d"


def one_pass(spectrum: Spectrum, limit: str, model: object) -> Dynamics:
    """Return the recursion (``"finite-d"``), its limit (``"high-dimensional"``), or that as a Volterra equation."""
    increment = mean_increment(spectrum)
    exact = limit == "finite-d"
    every = [Term(monomial) for monomial in sympy.Add.make_args(increment)]
    kept, dropped = (every, []) if exact else keep_leading_order(every, LIMITS["high-dimensional"], "c")
    modes = Modes.of(sympy.Add(*(t.coefficient for t in kept)), spectrum.c, spectrum.lam, spectrum)
    parts = {
        "finite-d": lambda: _equations(kept, spectrum, 1 / D),
        "high-dimensional": lambda: _equations(kept, spectrum, sympy.S.One),
        "volterra": lambda: (Equation(EG, variation_of_constants(modes, spectrum.c, "eg", whole=False)),),
    }
    return Dynamics(
        title="Linear regression by one-pass SGD",
        kind={"finite-d": "map", "volterra": "volterra"}.get(limit, "ode"),
        clock="steps/d",
        drift=parts[limit](),
        parameters=(ETA, *((DIMENSION,) if exact else ()), *spectrum.parameters, SIGMA),
        observables=_observables(modes, spectrum, limit),
        assumptions=(INPUTS,) if exact else (INPUTS, LARGE),
        status="exact at every d" if exact else "exact in the limit",
        steps=(*_steps(spectrum, increment), *(_volterra_step(modes) if limit == "volterra" else ())),
        dropped=tuple(Dropped(one.quantity, _summed(one.term, spectrum), one.order) for one in dropped),
        initial=(spectrum.error,) if limit == "volterra" else (),
        model=model,
        limit=limit,
    )


def mean_increment(spectrum: Spectrum) -> sympy.Expr:
    """Return d times the mean change of the squared error in class l in one step, with TOTAL for E (v.x)^2.

    The fourth-order average E[x x^T C x x^T] = 2 S C S + S tr(S C), for the covariance S, comes out of the pairings.
    """
    change = sympy.expand((V + eta / D * (sigma * NOISE - FIELD) * X) ** 2 - V**2)
    lam = spectrum.lam
    covariance = {(FIELD, FIELD): TOTAL, (FIELD, X): lam * V, (X, X): lam, (NOISE, NOISE): sympy.S.One}
    average = sympy.Poly(gaussian_average(change, covariance), V)
    # over the p d directions of the class, v^2 adds up to c, and what does not depend on v to p d times itself
    by_class = average.coeff_monomial(V**2) * spectrum.c + average.coeff_monomial(1) * spectrum.p * D
    return sympy.expand(D * by_class)


def _summed(term: Term, spectrum: Spectrum) -> Term:
    """Return a term with the sum over classes in place of TOTAL."""
    total = spectrum.total(spectrum.lam * spectrum.c)
    if term.coefficient.has(TOTAL) and isinstance(total, sympy.Sum):
        return Term(term.coefficient / TOTAL, ((j, total.limits[0][2]),), (total.function,))
    return Term(term.coefficient.subs(TOTAL, total))


def _equations(kept: list[Term], spectrum: Spectrum, scale: sympy.Expr) -> tuple[Equation, ...]:
    summed = [_summed(Term(t.coefficient * scale), spectrum) for t in kept]
    return (Equation(spectrum.error, sympy.expand(assemble(summed).subs(D, d))),)


def _observables(modes: Modes, spectrum: Spectrum, limit: str) -> tuple[Equation, ...]:
    whole = spectrum.total(spectrum.lam * spectrum.c) / 2
    eg, error = ((), EG.base) if limit == "volterra" else ((Equation(EG, whole),), whole)
    stability = modes.stability.subs(D, d)
    ((total, stable),) = modes.stationary_total().subs(D, d).args
    floor = sympy.Piecewise((total / 2, stable))
    return (*eg, Equation(LOSS, error + sigma**2 / 2), Equation(STABILITY, stability), Equation(FLOOR, floor))


def _steps(spectrum: Spectrum, increment: sympy.Expr) -> tuple[Step, ...]:
    residual = sympy.Symbol("e")
    return (
        Step(
            "Training step",
            "The target is w*·x + σζ; each step follows the gradient of the squared loss on a fresh example. "
            "With the error v = w − w*, its component along an eigenvector of the covariance of the inputs, and f the "
            "product of v and x,",
            ((residual, sigma * NOISE - FIELD), (sympy.Function("Delta")(V), eta / D * residual * X)),
        ),
        Step(
            "Average over an example",
            "f, x and zeta are jointly Gaussian; the average of a product is the sum over its pairings. S is the "
            "variance of f.",
            (
                (TOTAL, spectrum.total(spectrum.lam * spectrum.c)),
                (D * sympy.Function("MeanDelta")(spectrum.c), increment),
            ),
        ),
    )


def _volterra_step(modes: Modes) -> tuple[Step, ...]:
    explanation = (
        "Each class decays at its own rate and is fed by the error of all. Solved for a given error and summed, the "
        "classes leave one equation for the error, in which K(u) says how much of it is left after a time u."
    )
    lag = sympy.Symbol("u", nonnegative=True)
    return (Step("Variation of constants", explanation, ((sympy.Function("K")(lag), modes.kernel(lag)),)),)
