"""The sign of one field at the threshold of another."""

from typing import Any

import sympy

from .special import GaussianFunction

Number = Any
"""A number of mpmath's."""


class sign1_given1(GaussianFunction):
    """E[sign(h₁) | h_p = 0] of fields with means = erf(μ/√(2v)), μ = m₁ − m_p C₁ₚ/Cₚₚ and v = C₁₁ − C₁ₚ²/Cₚₚ.

    Arguments are C₁₁, C₁ₚ, Cₚₚ, m₁, m_p. Where the fields coincide it is sign(μ), so 0 if their thresholds do too.

    Examples
    --------
    >>> sign1_given1(2, 1, 1, 1, 0).evalf(10), sign1_given1(1, 1, 1, 3, 3).evalf(), sign1_given1(1, 1, 1, 3, 2).evalf()
    (0.6826894921, 0, 1.00000000000000)
    """

    nargs = 5
    latex_name = r"S_{1|p}"

    def definition(self) -> sympy.Expr:
        """Return the plain formula, which is 0/0 where the fields and their thresholds coincide."""
        c11, c1p, cpp, m1, mp = self.args
        return sympy.erf((m1 - mp * c1p / cpp) / sympy.sqrt(2 * (c11 - c1p**2 / cpp)))

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the derivative of the plain formula."""
        slots = sympy.symbols("c:5", cls=sympy.Dummy, real=True)
        slope = sympy.diff(type(self)(*slots).definition(), slots[argindex - 1])
        return slope.xreplace(dict(zip(slots, self.args, strict=True)))

    def _eval_evalf(self, prec: int) -> sympy.Expr | None:
        if not all(a.is_number for a in self.args):
            return None
        import mpmath

        with mpmath.workprec(3 * prec + 40):
            result = value(*(mpmath.mpf(a._to_mpmath(mpmath.mp.prec)) for a in self.args))
        return sympy.Float._new(result._mpf_, prec)


def value(c11: Number, c1p: Number, cpp: Number, m1: Number, mp: Number) -> Number:
    """Return :class:`sign1_given1` of mpmath's numbers.

    A variance below 1e-15 of that of the field counts as that: where fields coincide, rounding of their covariances and
    thresholds must not decide between −1, 0 and 1.
    """
    import mpmath

    noise = mpmath.mpf("1e-15")
    slope = c1p / cpp if cpp else mpmath.mpf(0)  # a field of variance zero tells nothing of the other
    mu, v = m1 - mp * slope, c11 - c1p * slope
    return mpmath.erf(mu / mpmath.sqrt(2 * max(v, noise * c11))) if c11 else mpmath.sign(mu)
