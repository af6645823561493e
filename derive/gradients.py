"""Stein's lemma on products of functions of local fields: what depends on an input beyond the fields is a gradient.

Three averages of products F, G of functions of one field each, all exact at every d and none with an inverse of Ω:

* of two independent examples, ``E[F x]·E[G x] = Σ_ee' E[∂F/∂h_e] Ω_ee' E[∂G/∂h_e']``;
* of a further field b that F does not depend on, ``E[F b] = E[F x]·E[b x] = Σ_e E[∂F/∂h_e] Cov(h_e, b)``;
* along the input, ``∂_s E_{sΩ}[G] = ½ E[(h − m)·∇G]`` at s = 1, m the means of the fields.

Each gradient of a product is a sum over its factors, so that a sum over all fields never appears. Derivatives of jumps
are δ functions, of which closed forms know what to do. Knows nothing of labels, limits or models.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import sympy

from .activation import X
from .errors import NoClosedForm, NotYet
from .moments import Dilation, Joint, Moment, Univariate, Value
from .numerical.quadrature import KINKS, LEADING, TEACHER
from .terms import Term
from .user_function import KinkedUserFunction

Overlap = Callable[[sympy.Indexed, sympy.Indexed], sympy.Expr]
Mean = Callable[[sympy.Indexed], sympy.Expr]
FIELDS = ("h", TEACHER, str(LEADING))
"""The families of fields in what is averaged over all of them at once."""


def gradient(term: Term) -> Iterator[tuple[Term, sympy.Indexed]]:
    """Yield the terms of Σ_e E[∂/∂h_e of a product], each with the field that it is differentiated by.

    Examples
    --------
    >>> h, i = sympy.IndexedBase("h"), sympy.Symbol("i")
    >>> [(str(part), field) for part, field in gradient(Term(sympy.S.One, (), (h[i], h[1])))]
    [('E[h_1]', h[i]), ('E[h_i]', h[1])]
    """
    for n, factor in enumerate(term.factors):
        rest = (*term.factors[:n], *term.factors[n + 1 :])
        if isinstance(factor, Value):
            slope = slope_of(factor.args[0])
            if slope.function(X) == 0:
                continue
            rest = (slope(factor.args[1]), *rest)
        yield replace(term, factors=(Moment(*rest),) if rest else ()), field_of(factor)


def along_both(
    first: Iterable[Term],
    second: Iterable[Term],
    overlap: Overlap,
    free: Iterable[sympy.Symbol],
    center: sympy.Indexed | None = None,
    idle: tuple[sympy.IndexedBase, ...] = (),
) -> Iterator[Term]:
    """Yield the terms of E[F x]·E[G x], F and G given as terms whose factors are functions of fields.

    One that is nothing but an ``idle`` field v·x/√d stands for the vector v/√d itself. With ``center``, the field μ·x
    of the mean μ of inputs, E[F x] = Σ_e E[∂F/∂h_e] v_e/√d + E[F] μ.
    """
    # The field stands last among the factors while indices are renamed apart.
    parts = [
        [replace(part, factors=(*part.factors, field)) for term in terms for part, field in _slopes(term, center, idle)]
        for terms in (first, second)
    ]
    for one in parts[0]:
        for other in parts[1]:
            product = one.times(other, free)
            split = len(one.factors)
            u, v = product.factors[split - 1], product.factors[-1]
            moments = (*product.factors[: split - 1], *product.factors[split:-1])
            yield replace(product, coefficient=overlap(u, v) * product.coefficient, factors=moments)


def _slopes(
    term: Term, center: sympy.Indexed | None, idle: tuple[sympy.IndexedBase, ...]
) -> Iterator[tuple[Term, sympy.Indexed]]:
    """Yield the terms of E[F x], each with the field of the vector that it stands before."""
    if len(term.factors) == 1 and isinstance(field := term.factors[0], sympy.Indexed) and field.base in idle:
        yield replace(term, factors=()), field
        return
    if center is not None:
        yield replace(term, factors=(Moment(*term.factors),) if term.factors else ()), center
    yield from gradient(term)


def stretched(term: Term, overlap: Overlap, mean: Mean, noisy: frozenset[str]) -> list[Term]:
    """Return a term that is the :class:`Dilation` of a moment as terms that are moments, else the term itself.

    A factor that is homogeneous, f(cx) = cⁿ f(x) for c > 0 as powers, ReLU and signs are, only brings the number n.
    For fields of the families ``noisy``, of which only a part is an inner product with the input, and where one block
    of the inputs is stretched, the same derivative is ½ Σ_ab Cov(h_a, h_b) E[∂²G/∂h_a∂h_b] over those parts.

    Raises
    ------
    NotYet
        Where one block is stretched, for what is averaged over all fields at once.
    """
    if not (term.factors and isinstance(term.factors[0], Dilation)):
        return [term]
    (average, *block), rest = term.factors[0].args, term.factors[1:]
    half = replace(term, coefficient=term.coefficient / 2, factors=rest)
    if block and isinstance(average, Joint):
        raise NotYet(
            "the exact mean at finite d with inputs in blocks, averaged over all fields at once",
            "activations and a loss whose expectations have closed forms, or isotropic inputs",
        )
    if isinstance(average, Joint):
        return [replace(half, factors=(Joint(_radial_slope(average.args[0], mean)), *rest))]
    if block or noisy & {str(field.base) for field in average.fields}:
        found = _curvature(average.args, overlap)
        return [replace(half, coefficient=half.coefficient * p.coefficient, factors=(*p.factors, *rest)) for p in found]
    parts = []
    for n, factor in enumerate(average.args):
        others = (*average.args[:n], *average.args[n + 1 :])
        for weight, replaced in _radial(factor, mean(field_of(factor))):
            factors = (*replaced, *others)
            moment = (Moment(*factors),) if factors else ()
            parts.append(replace(half, coefficient=half.coefficient * weight, factors=(*moment, *rest)))
    return parts


def slope_of(univariate: Univariate) -> Univariate:
    """Return the derivative of a function, δ functions where it jumps included.

    Raises
    ------
    NoClosedForm
        For functions by pieces, of which SymPy differentiates each piece and forgets the jumps between them.
    """
    if univariate.function(X).has(sympy.Piecewise, sympy.floor, sympy.ceiling, KinkedUserFunction):
        raise NoClosedForm(f"E[{univariate}'(h) …]", "the slope of a function by pieces lacks what its jumps give", "")
    return univariate.derivative()


def field_of(factor: sympy.Expr) -> sympy.Indexed:
    """Return the local field that a factor of a moment is a function of."""
    return factor.args[1] if isinstance(factor, Value) else factor


def _radial(factor: sympy.Expr, mean: sympy.Expr) -> Iterator[tuple[sympy.Expr, tuple[sympy.Expr, ...]]]:
    """Yield (h − m) f'(h) as multiples of factors: n f(h) if f is homogeneous of degree n."""
    if not isinstance(factor, Value):
        yield sympy.S.One, (factor,)
        if mean != 0:
            yield -mean, ()
        return
    univariate, field = factor.args
    degree = degree_of(univariate.function(X))
    if degree is None:
        symbol, order, _ = univariate.args
        slope = sympy.Lambda(X, X * slope_of(univariate).function(X))
        yield sympy.S.One, (Univariate(sympy.Symbol(f"D_{symbol}"), order, slope)(field),)
    elif degree != 0:
        yield degree, (factor,)
    if mean != 0 and slope_of(univariate).function(X) != 0:
        yield -mean, (slope_of(univariate)(field),)


def degree_of(function: sympy.Expr) -> sympy.Expr | None:
    """Return n if x f'(x) = n f(x), else None.

    Examples
    --------
    >>> degree_of(X**3), degree_of(sympy.Max(0, X)), degree_of(sympy.Heaviside(X)), degree_of(sympy.exp(X))
    (3, 1, 0, None)
    """
    if function.is_number:
        return sympy.S.Zero
    at = {side: function.subs(X, side) for side in (1, -1, 2, -2)}
    if any(value in (sympy.nan, sympy.zoo) or not value.is_number for value in at.values()):
        return None
    for degree in range(-1, 9):
        if all(at[2 * side] == 2**degree * at[side] for side in (1, -1)):
            slope = sympy.diff(function, X)
            smooth = slope.replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)  # at 0, where x δ(x) = 0
            jumps = {d.args[0] for d in slope.atoms(sympy.DiracDelta)} - {X}
            same = all(sympy.expand((X * smooth - degree * function).subs(X, side * R)) == 0 for side in (1, -1))
            return sympy.Integer(degree) if same and not jumps else None
    return None


R = sympy.Symbol("r", positive=True)
"""A positive number: a homogeneous function is a power of it on either side of 0."""


def _curvature(factors: tuple[sympy.Expr, ...], overlap: Overlap) -> Iterator[Term]:
    for once, a in gradient(Term(sympy.S.One, (), factors)):
        if once.factors:
            for twice, b in gradient(replace(once, factors=once.factors[0].args)):
                yield replace(twice, coefficient=overlap(a, b) * twice.coefficient)


def _radial_slope(expr: sympy.Expr, mean: Mean) -> sympy.Expr:
    """Return (h − m)·∇G of an expression in fields.

    Raises
    ------
    NotYet
        If G has kinks: where it jumps, its slope is not a function.
    """
    if any(part.has(*KINKS) for part in (expr, *(v.args[0].function(X) for v in expr.atoms(Value)))):
        raise NotYet(
            "the exact mean at finite d of a loss with kinks, averaged over all fields at once",
            'limit="high-dimensional", or a loss and an activation without kinks',
        )
    return _slope_of(expr, mean)


def _slope_of(expr: sympy.Expr, mean: Mean) -> sympy.Expr:
    if isinstance(expr, Value):
        univariate, field = expr.args
        return (field - mean(field)) * univariate.derivative()(field)
    if isinstance(expr, sympy.Indexed):
        return expr - mean(expr) if str(expr.base) in FIELDS else sympy.S.Zero
    if isinstance(expr, sympy.Sum):
        return sympy.Sum(_slope_of(expr.function, mean), *expr.limits)
    total = sympy.S.Zero
    for n, argument in enumerate(expr.args):
        if (slope := _slope_of(argument, mean)) != 0:
            slot = sympy.Dummy("x", real=True)
            partial = sympy.diff(expr.func(*expr.args[:n], slot, *expr.args[n + 1 :]), slot).xreplace({slot: argument})
            total += partial * slope
    return total
