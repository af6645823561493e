"""Which functions of a Gaussian field have an expectation at all. Asked of functions that no rule knows."""

import sympy

from ..activation import X
from ..errors import Described, ModelError

REAL = "a real function of every real field: fields are Gaussian, so they take both signs and any size"
SLOW = (
    "a function that grows more slowly than any exp(c*x**2): fields are Gaussian, and averages of what grows faster "
    "exist at best for small variances"
)
INTEGRABLE = "a function whose singularities are integrable: fields are Gaussian, so they come arbitrarily close to it"
PROBES = ("-47.3", "-9.71", "-3.33", "-1.29", "-0.61", "-0.017", "0.013", "0.59", "1.37", "3.41", "9.83", "46.9")
FAR = (60, 600)
"""Where growth is read off: log|f|/x² falls by a factor of ten for an exponential, and does not for a Gaussian."""


def check_admissible(f: sympy.Expr, argument: str = "activation") -> None:
    """Raise a ModelError for functions of X that are complex, singular or too large for a Gaussian average.

    Examples
    --------
    >>> check_admissible(sympy.tanh(X))
    >>> check_admissible(sympy.log(X))
    Traceback (most recent call last):
      ...
    effdyn.derive.errors.ModelError: activation = log(x), which is complex at x = -47.3 and has no Gaussian ...
    """
    f = f.xreplace({s: sympy.Rational(7 + n, 11) for n, s in enumerate(sorted(f.free_symbols - {X}, key=str))})
    if f.has(sympy.DiracDelta) or not f.has(X):
        return
    if f.has(sympy.I):
        raise ModelError(argument, Described(f"{f}, which is complex,"), REAL)
    if (at := _complex_at(f)) is not None:
        raise ModelError(
            argument, Described(f"{f}, which is complex at x = {at} and has no Gaussian expectation,"), REAL
        )
    if (pole := _pole(f)) is not None:
        raise ModelError(
            argument,
            Described(f"{f}, which is not integrable at x = {pole} and has no Gaussian expectation,"),
            INTEGRABLE,
        )
    if _grows_like_a_gaussian(f):
        raise ModelError(argument, Described(f"{f}, which has no Gaussian expectation,"), SLOW)


def _complex_at(f: sympy.Expr) -> str | None:
    for probe in PROBES:
        value = f.subs(X, sympy.Rational(probe)).evalf(15)
        if value.is_number and abs(sympy.im(value)) > 1e-9 * abs(value):
            return probe
    return None


def _pole(f: sympy.Expr) -> sympy.Expr | None:
    """Return a real zero of a polynomial in a denominator with power ≥ 1, or of sin and the like at 0 and π/2."""
    ratios = {sympy.tan: (sympy.sin, sympy.cos), sympy.cot: (sympy.cos, sympy.sin)}
    for tangent, (above, below) in ratios.items():
        f = f.replace(tangent, lambda u, above=above, below=below: above(u) / below(u))
    for power in f.atoms(sympy.Pow):
        if power.exp.is_number and power.exp <= -1 and power.base.has(X):
            if power.base.is_polynomial(X):
                roots = sympy.Poly(power.base, X).nroots(n=15)
                real = [t for t in roots if abs(sympy.im(t)) < 1e-9]
            else:
                real = [t for t in (sympy.S.Zero, sympy.pi / 2) if abs(power.base.subs(X, t).evalf(15)) < 1e-12]
            for t in map(sympy.re, real):
                if _diverges(f, t, -power.exp):
                    return t
    return None


def _diverges(f: sympy.Expr, t: sympy.Expr, order: sympy.Expr) -> bool:
    """Whether |f| grows at least like 1/|x − t| next to t: no numerator makes up for the zero of the denominator."""
    near, nearer = (abs(f.subs(X, t + step).evalf(30)) for step in (sympy.Float("1e-6", 30), sympy.Float("1e-9", 30)))
    return bool(nearer > 300 * near)


def _grows_like_a_gaussian(f: sympy.Expr) -> bool:
    for side in (1, -1):
        rates = [sympy.log(abs(f.subs(X, side * x))).evalf(10) / x**2 for x in FAR]
        if all(r.is_real for r in rates) and rates[1] > 1e-4 and rates[1] > rates[0] / 2:
            return True
    return False
