"""Gaussian moments by a rule over one or two of their fields, and exactly over the others.

Fields that stand in functions without closed forms (tanh, softplus, a logistic loss) are integrated numerically; given
them the other fields are again Gaussian, with means, and the rules for closed forms apply. Knows nothing of networks.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import sympy

from ..activation import X
from ..errors import NoClosedForm
from ..gaussian.closed_forms import Entries, closed_form
from ..gaussian.integrand import Integrand
from .quadrature import LINE, NODE_LINE, WEIGHT_LINE
from .stable import stable

Signature = tuple[sympy.Lambda, ...]

TINY = sympy.Float("1e-140")
"""Under square roots in denominators: fields without variance have no covariances either, and 0/√TINY = 0."""
RIDGE = sympy.Rational(1, 2**50)
"""Relative to the variance, of a field given another that coincides with it: what rounding leaves of 0/√0."""


@lru_cache(maxsize=256)
def conditioned_form(signature: Signature, shifted: bool = False, limit: int = 2) -> tuple[sympy.Expr, Entries, int]:
    """Return E[f₁(h₁) f₂(h₂) …] as a sum over the nodes of a rule, in the symbols of :func:`closed_form`.

    Parameters
    ----------
    signature : tuple of Lambda
    shifted : bool, optional
        Whether the fields have means.
    limit : int, optional
        Over how many fields one may sum.

    Returns
    -------
    form : Expr
    entries : dict
    outer : int
        Over how many fields it is a sum.

    Raises
    ------
    NoClosedForm
        If more fields than ``limit`` would have to be integrated numerically.

    Examples
    --------
    >>> tanh = sympy.Lambda(X, sympy.tanh(X))
    >>> print(conditioned_form((sympy.Lambda(X, X**2), tanh, tanh), limit=1)[0])
    Traceback (most recent call last):
        ...
    effdyn.derive.errors.NoClosedForm: E[h1**2 tanh(h2) tanh(h3)] has no closed form: ...
    >>> form, entries, outer = conditioned_form((sympy.Lambda(X, X), tanh))
    >>> outer, sorted(map(str, form.free_symbols & set(entries.values())))
    (1, ['C_12', 'C_22'])
    """
    if not signature:
        raise ValueError("a moment needs at least one factor")
    size = len(signature)
    required = {a for a, f in enumerate(signature) if not is_reducible(f)}
    for count in range(max(1, len(required)), limit + 1):
        for outer in combinations(sorted(range(size), key=lambda a: _is_polynomial(signature[a])), count):
            inner = tuple(a for a in range(size) if a not in outer)
            if required <= set(outer) and (given := _form_given(tuple(signature[a] for a in inner))):
                entries = _entries(size, shifted)
                return _sum_over_nodes(signature, tuple(sorted(outer)), inner, given, entries), entries, count
    raise _no_form(signature, required, limit)


def _is_polynomial(f: sympy.Lambda) -> bool:
    return bool(f(X).is_polynomial(X))


@lru_cache(maxsize=1024)
def is_reducible(f: sympy.Lambda) -> bool:
    """Whether the rules for closed forms know a function at all."""
    return _form_given((f,)) is not None


def _form_given(signature: Signature) -> tuple[sympy.Expr, Entries] | None:
    """Return the closed form for fields with means, if there is one."""
    try:
        return closed_form(signature, shifted=True) if signature else (sympy.S.One, {})
    except NoClosedForm:
        return None


def _entries(size: int, shifted: bool) -> Entries:
    """Return the symbols of covariances and means, the same as those of closed forms."""
    entries: Entries = {
        (a, b): sympy.Symbol(f"C_{a + 1}{b + 1}", real=True) for a in range(size) for b in range(a, size)
    }
    return entries | ({(a,): sympy.Symbol(f"m_{a + 1}", real=True) for a in range(size)} if shifted else {})


def _sum_over_nodes(
    signature: Signature,
    outer: Sequence[int],
    inner: Sequence[int],
    given: tuple[sympy.Expr, Entries],
    entries: Entries,
) -> sympy.Expr:
    """Return Σ_s w_s f(h_p(s)) E[rest | h_p = h_p(s)], for two outer fields one sum in the other.

    h_p = m_p + √C_pp x; given it, h_a has the mean m_a + C_ap x/√C_pp, and covariances C_ab − C_ap C_bp/C_pp. The next
    outer field is treated likewise under that law. Source: Cholesky's factorisation, a column at a time.
    """
    C = {(a, b): entries[min(a, b), max(a, b)] for a in range(len(signature)) for b in range(len(signature))}
    mean = {a: entries.get((a,), sympy.S.Zero) for a in range(len(signature))}
    factors = []
    for n, p in enumerate(outer):
        s = sympy.Symbol(f"s_{n + 1}", integer=True, positive=True)
        x, w = NODE_LINE.base[s], WEIGHT_LINE.base[s]
        deviation, pivot = sympy.sqrt(C[p, p]), C[p, p]
        if n:
            deviation, pivot = sympy.sqrt(_positive(C[p, p])), _positive(C[p, p]) + RIDGE * entries[p, p]
        slope = {a: C[a, p] / sympy.sqrt(pivot + TINY) for a in (*outer[n + 1 :], *inner)}
        factors.append((s, w * stable(signature[p](mean[p] + deviation * x))))
        mean |= {a: mean[a] + slope[a] * x for a in slope}
        C |= {(a, b): C[a, b] - slope[a] * slope[b] for a in slope for b in slope}
    total = _under_law(given, inner, [_is_polynomial(signature[a]) for a in inner], C, mean)
    for s, factor in reversed(factors):
        total = sympy.Sum(factor * total, (s, 1, LINE))
    return total


def _under_law(
    given: tuple[sympy.Expr, Entries],
    inner: Sequence[int],
    polynomial: Sequence[bool],
    C: dict[tuple[int, int], sympy.Expr],
    mean: dict[int, sympy.Expr],
) -> sympy.Expr:
    """Return the closed form of the inner fields under their law given the outer ones.

    Rounding may leave a negative variance of a field that is a function of the outer ones, or a correlation above 1.
    The closed forms of kinks have variances in denominators: there one of zero becomes positive, too small to matter.
    """
    form, symbols = given
    values: dict[sympy.Basic, sympy.Expr] = {}
    kinked = [a for a, smooth in zip(inner, polynomial, strict=True) if not smooth]
    variance = {a: _positive(C[a, a]) for a in kinked}
    for indices, symbol in symbols.items():
        fields = tuple(inner[n] for n in indices)
        if len(fields) == 1:
            values[symbol] = mean[fields[0]]
            continue
        a, b = fields
        values[symbol] = C[a, b]
        if a == b and a in kinked:
            values[symbol] = variance[a] + TINY
        elif a in kinked and b in kinked:
            bound = sympy.sqrt(variance[a] * variance[b])
            values[symbol] = (sympy.Abs(C[a, b] + bound) - sympy.Abs(C[a, b] - bound)) / 2
    return form.xreplace(values)


def _positive(variance: sympy.Expr) -> sympy.Expr:
    """Return max(variance, 0) without a branch."""
    return (variance + sympy.Abs(variance)) / 2


def _no_form(signature: Signature, required: set[int], limit: int) -> NoClosedForm:
    matrix = tuple((sympy.S.Zero,) * len(signature) for _ in signature)
    moment = Integrand(tuple((a, f(X)) for a, f in enumerate(signature)), matrix)
    without = ", ".join(dict.fromkeys(str(signature[a](X)) for a in sorted(required)))
    reason = (
        f"{without} would have to be integrated numerically over {len(required)} fields, at most {limit} are allowed"
        if len(required) > limit
        else f"no rule applies, even if {limit} of its fields are integrated numerically"
    )
    return NoClosedForm(str(moment), reason, "It can be computed on all fields at once, with moments='numeric'.")
