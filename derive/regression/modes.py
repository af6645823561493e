"""Classes of modes that decay and are fed by the sum of all: a linear equation per class, or one equation for the sum.

dm_l/dt = -decay_l m_l + gain_l (S + offset) with S = sum_l weight_l m_l: what SGD does to squared errors. Knows nothing
of where the modes come from.
"""

from dataclasses import dataclass

import sympy

from ..dynamics import TIME
from .quantities import Eigenvalues

TOTAL = sympy.Symbol("S", nonnegative=True)
"""S in expressions for class l."""
PAST = sympy.Symbol("s", nonnegative=True)
"""The time over which a Volterra equation integrates."""


@dataclass(frozen=True, slots=True)
class Modes:
    """Rates of the classes, each an expression for class l.

    Attributes
    ----------
    spectrum : Eigenvalues
    decay, gain, weight : sympy.Expr
    offset : sympy.Expr
        What feeds the modes besides their sum: the noise.
    """

    spectrum: Eigenvalues
    decay: sympy.Expr
    gain: sympy.Expr
    weight: sympy.Expr
    offset: sympy.Expr

    @classmethod
    def of(cls, rate: sympy.Expr, mode: sympy.Expr, weight: sympy.Expr, spectrum: Eigenvalues) -> "Modes":
        """Return the rates in dm_l/dt = ``rate``, an expression linear in ``mode`` and TOTAL.

        Raises
        ------
        ValueError
            If it is not of the form above.
        """
        rate = sympy.expand(rate)
        decay, gain = -rate.coeff(mode, 1).coeff(TOTAL, 0), rate.coeff(TOTAL, 1)
        rest = sympy.expand(rate + decay * mode - gain * TOTAL)
        offset = sympy.cancel(rest / gain)
        if offset.has(mode, TOTAL, spectrum.lam if spectrum.general else mode):
            raise ValueError(f"{rate} is not of the form -decay {mode} + gain (S + offset)")
        return cls(spectrum, sympy.factor(decay), sympy.factor(gain), weight, offset)

    @property
    def stability(self) -> sympy.Expr:
        """A = sum of weight gain / decay: a stationary state has S = A (S + offset), so all is stable if A < 1.

        Infinite where a mode does not decay by itself: with feedback, which is positive, it does even less.
        """
        above, below = sympy.cancel(self.weight * self.gain / self.decay).as_numer_denom()
        if not _is_positive(above):
            above, below = sympy.expand(-above), sympy.expand(-below)
        front, factor = below.as_content_primitive()
        return self.spectrum.total(above / (front * (factor if _is_positive(factor) else sympy.Max(0, factor))))

    def stationary_total(self) -> sympy.Expr:
        """Return S in the stationary state, from S = A (S + offset), where the stability A < 1: NaN where it is not."""
        a = sympy.Symbol("A")
        (value,) = sympy.solve(TOTAL - a * (TOTAL + self.offset), TOTAL)
        above, below = value.as_numer_denom()
        return sympy.Piecewise(((-above / -below).subs(a, self.stability), self.stability < 1))

    def kernel(self, lag: sympy.Expr) -> sympy.Expr:
        """Return how much a unit of S + offset adds to S after the time ``lag``."""
        return self.spectrum.total(self.weight * self.gain * sympy.exp(-self.decay * lag))

    def free(self, start: sympy.Expr) -> sympy.Expr:
        """Return S(t) without feedback, from modes that start at ``start``."""
        return self.spectrum.total(self.weight * start * sympy.exp(-self.decay * TIME))


def _is_positive(expr: sympy.Expr) -> bool:
    """Whether an expression is positive wherever everything in it is."""
    atoms = {e: sympy.Dummy(positive=True) for e in expr.atoms(sympy.Indexed)}
    written = expr.xreplace(atoms)
    return bool(written.xreplace({s: sympy.Dummy(positive=True) for s in written.free_symbols}).is_positive)


def variation_of_constants(modes: Modes, start: sympy.Expr, unknown: str, whole: bool) -> sympy.Expr:
    """Return the right-hand side of the Volterra equation of half the sum.

    Each mode is m(t) = m(0) e^(-a t) + ∫_0^t b e^(-a (t - s)) (S + offset)(s) ds, which is checked by differentiation;
    the weighted sum over the classes is an equation for S alone.

    Parameters
    ----------
    modes : Modes
    start : sympy.Expr
        m_l(0).
    unknown : str
        The name of the function: (S + offset)/2 if ``whole``, else S/2.
    """
    _check_solution(modes)
    past = sympy.Function(unknown)(PAST)
    fed = past if whole else past + modes.offset / 2
    outside = modes.offset / 2 if whole else sympy.S.Zero
    return outside + modes.free(start) / 2 + sympy.Integral(modes.kernel(TIME - PAST) * fed, (PAST, 0, TIME))


def _check_solution(modes: Modes) -> None:
    """Differentiate the solution for one mode and put it into its equation, for any source g(s)."""
    m0, g = sympy.Symbol("m0"), sympy.Function("g")
    past = sympy.Integral(modes.gain * sympy.exp(-modes.decay * (TIME - PAST)) * g(PAST), (PAST, 0, TIME))
    solution = m0 * sympy.exp(-modes.decay * TIME) + past
    residual = solution.diff(TIME) + modes.decay * solution - modes.gain * g(TIME)
    left = sympy.expand(residual.doit(integrals=False))
    integrals = {i: sympy.Integral(sympy.expand(i.function), *i.limits) for i in left.atoms(sympy.Integral)}
    if sympy.expand(_linear(left.xreplace(integrals))) != 0:
        raise ArithmeticError(f"the solution of a mode by variation of constants is wrong: {left} is left")


def _linear(expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with what does not depend on the integration variable in front of its integrals."""

    def out(function: sympy.Expr, limit: sympy.Tuple) -> sympy.Expr:
        front, inside = sympy.expand(function).as_independent(limit[0], as_Add=False)
        return front * sympy.Integral(inside, limit)

    return expr.replace(sympy.Integral, out)
