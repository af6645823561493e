"""Gradient descent with finite steps, on the whole loss or on mini-batches: laws drift at second order.

A law's change in a step, h(θ − ηg) − h(θ), is a polynomial in η. Its linear term −∇h·g vanishes for every gradient of
a function of φ, also for that of a mini-batch.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING

import sympy

from .lie_rank import random_point
from .linear_algebra import PRIME
from .modification import ETA, GRADIENT, MEAN, THETA, H, Modification, T
from .polynomials import Monomial, Polynomial, degrees, total, value

if TYPE_CHECKING:
    from .laws import ConservationLaws
    from .parametrisation import Parametrisation


def step_terms(law: Polynomial, size: int) -> dict[int, Polynomial]:
    """Return h(θ − ηg) by powers of η, as polynomials in θ and in g, whose variables are numbered from ``size``.

    Examples
    --------
    >>> step_terms({(0, 0): 1}, 1)  # (x - eta g)**2
    {0: {(0, 0): 1}, 1: {(0, 1): -2}, 2: {(1, 1): 1}}
    """
    powers: dict[int, list[tuple[Monomial, int]]] = {}
    for monomial, coefficient in law.items():
        for moved in itertools.product((False, True), repeat=len(monomial)):
            term = tuple(sorted(n + size * m for n, m in zip(monomial, moved, strict=True)))
            powers.setdefault(sum(moved), []).append((term, coefficient * (-1) ** sum(moved)))
    return {power: total(powers[power]) for power in sorted(powers)}


def finite_step(laws: ConservationLaws) -> Modification:
    """A step of size η changes a quadratic law by exactly η²h(g); others by terms from η² on."""
    size = len(laws.parametrisation.theta)
    steps = [step_terms(law, size) for law in laws.polynomials]
    exact = [quadratic_step(law, terms, size) for law, terms in zip(laws.polynomials, steps, strict=True)]
    broken = [_changes(terms, laws.parametrisation) for terms in steps]
    higher = sum(changes and not square for changes, square in zip(broken, exact, strict=True))
    return Modification(
        name="finite step",
        flow="θ ← θ − ηg, g = ∇L",
        kept=sum(exact),
        total=laws.found,
        equations=(sympy.Eq(H(THETA - ETA * GRADIENT), H(THETA) + ETA**2 * H(GRADIENT)),) if any(exact) else (),
        laws=tuple(law for law, changes in zip(laws.laws, broken, strict=True) if not changes),
        text=f"{sum(broken)} broken, by O(η²) a step and O(η) in a time t = η·steps"
        + (f"; {higher} of other degree than 2, in several powers of η" if higher else ""),
    )


def quadratic_step(law: Polynomial, terms: dict[int, Polynomial], size: int) -> bool:
    """Return whether the change of a law in a step is −η∇h·g + η²h(g), by comparing coefficients."""
    at_gradient = {tuple(n + size for n in monomial): c for monomial, c in law.items()}
    return set(terms) == {0, 1, 2} and terms[2] == at_gradient


def _changes(terms: dict[int, Polynomial], parametrisation: Parametrisation) -> bool:
    """Return whether a term beyond the linear one is not zero at a random point, for the gradient of a random loss."""
    size = len(parametrisation.theta)
    theta = random_point(size)
    weights = random_point(len(parametrisation.gradients), seed=64)
    gradient = [0] * size
    for weight, field in zip(weights, parametrisation.gradients, strict=True):
        for n, component in field.items():
            gradient[n] = (gradient[n] + weight * value(component, theta, PRIME)) % PRIME
    return any(value(term, theta + gradient, PRIME) for power, term in terms.items() if power >= 2)


def sgd_noise(laws: ConservationLaws) -> Modification:
    """Mini-batches: the mean law drifts by ηE[h(g)], which fluctuations of g keep from vanishing at a minimum.

    The sign is that of a difference of mean squares, as many of either sign as the quadratic form h has.
    """
    squares = [inertia(law) for law in laws.polynomials if degrees(law) == {2}]
    counts = ", ".join(f"{plus} − {minus}" for plus, minus in sorted(set(squares)))
    definite = sum(not (plus and minus) for plus, minus in squares)
    return Modification(
        name="SGD noise",
        flow="θ ← θ − ηg, g the gradient of a mini-batch, t = η·steps",
        kept=len(squares),
        total=laws.found,
        equations=(sympy.Eq(sympy.Derivative(MEAN(H(T)), T), ETA * MEAN(H(GRADIENT))),) if squares else (),
        laws=(),
        text="drifts, also at a minimum, where g fluctuates; "
        f"E[h(g)] is a difference of mean squares of gradients ({counts} squares), "
        f"of one sign for {definite} of {len(squares)} laws, for others of that of the larger gradients"
        if squares
        else "no law is quadratic, so none has a drift that is one of second moments",
    )


def inertia(form: Polynomial) -> tuple[int, int]:
    """Return the numbers of positive and negative squares of a quadratic form, exactly (Lagrange's reduction).

    Examples
    --------
    >>> inertia({(0, 1): 1}), inertia({(0, 0): 1, (0, 1): 2, (1, 1): 1})
    ((1, 1), (1, 0))
    """
    rest = {m: Fraction(c) for m, c in form.items()}
    plus = minus = 0
    while rest:
        square = next((m for m in rest if m[0] == m[1]), None)
        if square is None:  # xy + x·(…) + y·(…) = (x + …)(y + …) − …: one square of each sign
            x, y = next(iter(rest))
            one, two = _partner(rest, x), _partner(rest, y)
            pivot = rest[x, y]
            plus, minus = plus + 1, minus + 1
        else:
            x = y = square[0]
            pivot = rest[square]
            one = two = {n: c / (1 if n == x else 2) for n, c in _partner(rest, x).items()}
            plus, minus = (plus + 1, minus) if pivot > 0 else (plus, minus + 1)
        rest = _minus_product(rest, one, two, pivot)
    return plus, minus


def _partner(form: dict[Monomial, Fraction], x: int) -> dict[int, Fraction]:
    """Return what x is multiplied with: the coefficients of its products."""
    return {(n if m == x else m): c for (m, n), c in form.items() if x in (m, n)}


def _minus_product(
    form: dict[Monomial, Fraction], one: dict[int, Fraction], two: dict[int, Fraction], pivot: Fraction
) -> dict[Monomial, Fraction]:
    out = dict(form)
    for m, a in one.items():
        for n, b in two.items():
            place = (min(m, n), max(m, n))
            out[place] = out.get(place, Fraction(0)) - a * b / pivot
    return {place: c for place, c in out.items() if c}
