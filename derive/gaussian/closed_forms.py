"""Closed forms of Gaussian expectations: an ordered table of rules, tried in turn until one applies.

An integrand is a product of functions of jointly Gaussian fields. Each rule either returns its expectation, possibly
through simpler expectations, or ``None``. Each signature is reduced once, with a generic covariance C_ab; coincident
fields (a singular C) are limits of the same formula. :mod:`.rules_signs` says which forms are exact there: all of
polynomials, erf and exponentials, and with kinks those of practical interest.

Knows nothing about networks. No ``sympy.integrate`` (it returns a wrong value for E[relu(u) relu(v)]) and no bare
``simplify`` (minutes, and it gains nothing): forms stay nested, so that common subexpressions remain visible.
"""

from collections.abc import Callable
from functools import lru_cache

import sympy

from ..activation import X
from ..errors import NoClosedForm
from .admissible import check_admissible
from .cached_forms import cached
from .integrand import Integrand
from .orthants import INSTEAD
from .rules_elementary import constants, linearity, parity, products
from .rules_erf import augment, complement, erf_pair
from .rules_exponential import exponentials, tilt
from .rules_kinks import KINKS, kinks
from .rules_polynomial import stein, wick
from .rules_signs import signed_polynomials
from .rules_waves import product_to_sum

Rule = Callable[[Integrand], sympy.Expr | None]
Entries = dict[tuple[int, ...], sympy.Symbol]

RULES: tuple[Rule, ...] = (
    constants,  # numbers out, so that the rules below see bare functions
    kinks,  # per field, before products are split and while Max(x, 0)**2 is still one function
    products,
    parity,  # most terms vanish: before anything is expanded
    wick,  # a complete answer for polynomials, and a fast one
    complement,
    exponentials,
    linearity,
    tilt,  # before Stein's rule, which would differentiate the Gaussian again and again
    product_to_sum,
    stein,  # beside smooth functions alone: the derivative of erf is a Gaussian, and no kink is met
    erf_pair,
    augment,  # late: it makes the covariance larger
    signed_polynomials,
)
"""The rules, in the order in which they are tried. A new class of function is an entry here."""


@lru_cache(maxsize=4096)
def _reduce(integrand: Integrand) -> sympy.Expr:
    for rule in RULES:
        result = rule(integrand)
        if result is not None:
            return result
    raise NoClosedForm(str(integrand), _obstacle(integrand), INSTEAD)


def reduce(integrand: Integrand) -> sympy.Expr:
    """Return the closed form of an expectation, by the first rule that applies.

    Raises
    ------
    NoClosedForm
        If no rule applies.
    ModelError
        If a function has no Gaussian expectation.

    Examples
    --------
    >>> C = tuple(tuple(sympy.Symbol(f"C_{min(a, b)}{max(a, b)}", real=True) for a in (1, 2)) for b in (1, 2))
    >>> reduce(Integrand(((0, X), (1, sympy.sign(X))), C))
    sqrt(2)*C_12/(sqrt(pi)*sqrt(C_22))
    """
    return _reduce(integrand.trimmed())


def _obstacle(integrand: Integrand) -> str:
    """Return why no rule applies: the functions that none knows."""
    unknown = {_name(e) for _, f in integrand.factors for e in _unknown(f)}
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        return f"{' and '.join(sorted(unknown))} {verb} neither polynomial, Gaussian, exponential nor orthant-type"
    return "these functions together are neither polynomial, Gaussian, exponential nor orthant-type"


def _unknown(f: sympy.Expr) -> list[sympy.Expr]:
    """Return the outermost parts of a function that no rule knows."""
    if f.is_polynomial(X) or (
        isinstance(f, KINKS) and all(not _unknown(a) for a in f.args if isinstance(a, sympy.Expr))
    ):
        return []
    if isinstance(f, (sympy.Add, sympy.Mul)) or (isinstance(f, sympy.Pow) and f.exp.is_Integer and f.exp > 0):
        return [e for argument in f.args for e in _unknown(argument)]
    if isinstance(f, (sympy.erf, sympy.erfc, sympy.sin, sympy.cos, sympy.exp)) and f.args[0].is_polynomial(X):
        degree = sympy.degree(sympy.expand(f.args[0]), X)
        return [] if degree <= (2 if isinstance(f, sympy.exp) else 1) else [f]
    if isinstance(f, sympy.Pow) and (inner := [e for e in f.base.atoms(sympy.Function) if e.has(X)]):
        return inner if not all(isinstance(e, sympy.exp) for e in inner) else [f]
    return [f]


def _name(f: sympy.Expr) -> str:
    simple = f.is_Function and f.args[0] in (X, -X)
    return f.func.__name__ if simple or isinstance(f, (sympy.tanh, sympy.tan)) else str(f)


@lru_cache(maxsize=1024)
def closed_form(signature: tuple[sympy.Lambda, ...], shifted: bool = False) -> tuple[sympy.Expr, Entries]:
    """Return E[f₁(h₁) f₂(h₂) …] for Gaussian h with covariance C, in the symbols C_ab and, if shifted, means m_a.

    Parameters
    ----------
    signature : tuple of Lambda
        The functions f₁, f₂, … Symbols in them besides their argument are real parameters.
    shifted : bool, optional
        Whether the fields have means.

    Returns
    -------
    form : sympy.Expr
    entries : dict
        The symbol of each covariance, by (a, b) with a ≤ b, counted from 0, and of each mean, by (a,). They print as
        C_11, C_12, …, m_1, …

    Raises
    ------
    NoClosedForm
        If the rules cannot reduce it.
    ModelError
        If a function is complex, singular or grows too fast to have a Gaussian expectation.

    Examples
    --------
    >>> import sympy
    >>> from effdyn.derive.activation import X, activation
    >>> g = sympy.Lambda(X, activation("erf").expr)
    >>> print(closed_form((g, g))[0])
    2*asin(C_12/(sqrt(C_11 + 1)*sqrt(C_22 + 1)))/pi
    >>> step = sympy.Lambda(X, sympy.Heaviside(X))
    >>> print(closed_form((step, step))[0])
    asin(C_12/sqrt(C_11*C_22))/(2*pi) + 1/4
    >>> print(closed_form((step,), shifted=True)[0])
    erf(sqrt(2)*m_1/(2*sqrt(C_11)))/2 + 1/2
    """
    key = f"{sympy.srepr(sympy.Tuple(*signature))} {shifted} {[(r.__module__, r.__qualname__) for r in RULES]}"
    return cached("form", key, lambda: _derive(signature, shifted))


def _derive(signature: tuple[sympy.Lambda, ...], shifted: bool) -> tuple[sympy.Expr, Entries]:
    size = len(signature)
    C: Entries = {(a, b): sympy.Symbol(f"C_{a + 1}{b + 1}", real=True) for a in range(size) for b in range(a, size)}
    m: Entries = {(a,): sympy.Symbol(f"m_{a + 1}", real=True) for a in range(size)} if shifted else {}
    matrix = tuple(tuple(C[min(a, b), max(a, b)] for b in range(size)) for a in range(size))
    factors = tuple((a, real_parameters(f(X))) for a, f in enumerate(signature))
    integrand = Integrand(factors, matrix, tuple(m.values()))
    return reduce_or_say_why(integrand), {**C, **m}


def reduce_or_say_why(integrand: Integrand, argument: str = "activation") -> sympy.Expr:
    """Return the closed form, or raise for the integrand as it was asked for, not for the part that failed."""
    for _, f in integrand.factors:
        if f.has(sympy.I) or _unknown(f):
            check_admissible(f, argument)
    try:
        return reduce(integrand)
    except RecursionError:  # |sin(x)| has infinitely many kinks
        reason = "its functions are nested too deeply, or have too many kinks, for the rules"
        raise NoClosedForm(str(integrand), reason, INSTEAD) from None
    except NoClosedForm as error:
        raise NoClosedForm(str(integrand), error.reason, error.instead) from None


def real_parameters(f: sympy.Expr) -> sympy.Expr:
    """Return a function whose parameters are real."""
    return f.xreplace({s: sympy.Symbol(s.name, real=True) for s in f.free_symbols if s.is_real is None})
