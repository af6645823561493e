"""Gradient flow on another loss, with weight decay, or with a learning rate for each layer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import sympy

from .modification import MU, H, Modification, T
from .polynomial_laws import conserved_along, polynomial_laws
from .polynomials import Field, Monomial, Polynomial, along, gradient, product, total

if TYPE_CHECKING:
    from .laws import ConservationLaws
    from .parametrisation import Parametrisation

RATE = sympy.Derivative(H(T), T)


def any_loss(laws: ConservationLaws) -> Modification:
    """Gradient flow on any differentiable loss of φ: the laws, multiplied out once more."""
    kept = sum(conserved_along(law, laws.parametrisation.gradients) for law in laws.polynomials)
    return Modification(
        name="any loss",
        flow="θ' = −∇L(φ(θ))",
        kept=kept,
        total=laws.found,
        equations=(sympy.Eq(RATE, 0, evaluate=False),),
        laws=laws.laws,
        text="conserved, whatever the loss and the data",
    )


def weight_decay(laws: ConservationLaws) -> Modification:
    """Weight decay μ|θ|²/2 adds −μθ·∇h to dh/dt: −qμh for a law whose terms all have degree q (Euler)."""
    euler: Field = {n: {(n,): 1} for n in range(len(laws.parametrisation.theta))}
    pairs = [
        (law, written, _factor(law, along(law, euler)))
        for law, written in zip(laws.polynomials, laws.laws, strict=True)
    ]
    rates = sorted({rate for _, _, rate in pairs if rate is not None})
    kept = [(written, rate) for _, written, rate in pairs if rate is not None]
    mixed = len(pairs) - len(kept)
    return Modification(
        name="weight decay",
        flow="θ' = −∇L − μθ",
        kept=len(kept),
        total=laws.found,
        equations=tuple(sympy.Eq(RATE, -rate * MU * H(T), evaluate=False) for rate in rates),
        laws=tuple(sympy.exp(rate * MU * T) * written for written, rate in kept),
        text="decays exponentially, at its degree times μ"
        + (f"; {mixed} with terms of several degrees at no single rate" if mixed else ""),
    )


def _factor(law: Polynomial, other: Polynomial) -> int | None:
    """Return q if ``other`` is q times ``law``."""
    first = next(iter(law))
    factor = other.get(first, 0) // law[first]
    return factor if other == {monomial: factor * c for monomial, c in law.items()} else None


def layer_rates(laws: ConservationLaws) -> Modification:
    """A learning rate η_l for each layer: in θ_l/√η_l it is gradient flow again, of φ with each layer rescaled.

    If each φ_k is homogeneous in each layer, rescaling multiplies it by a number, and the laws are those of before in
    θ_l/√η_l. That is checked by multiplying out; the number of laws is found afresh, at random rates.
    """
    parametrisation = laws.parametrisation
    rates = [sympy.Symbol(f"eta_{n}", positive=True) for n in range(1, len(parametrisation.layers) + 1)]
    scale = {s: s / sympy.sqrt(rates[n]) for s, n in zip(parametrisation.theta, parametrisation.layer_of, strict=True)}
    kept = [
        sympy.expand(written.xreplace(scale))
        for law, written in zip(laws.polynomials, laws.laws, strict=True)
        if _kept_by_rescaling(law, parametrisation)
    ]
    rescaled = sympy.Symbol("theta_l") / sympy.sqrt(sympy.Symbol("eta_l", positive=True))
    afresh = len(polynomial_laws(_weighted(parametrisation), len(scale), laws.degree, parametrisation.homogeneous))
    return Modification(
        name="layer rates",
        flow="θ_l' = −η_l ∇_l L",
        kept=len(kept),
        total=laws.found,
        equations=(sympy.Eq(sympy.Derivative(H(rescaled), T), 0, evaluate=False),) if kept else (),
        laws=tuple(kept),
        text=f"h(θ_l/√η_l) is conserved instead; a search at random rates finds {afresh} of any form",
    )


def _kept_by_rescaling(law: Polynomial, parametrisation: Parametrisation) -> bool:
    """Return whether h(sθ), s_l = 1/√η_l, is conserved: Σ_i (∂_i h)(sθ) ∂_i φ / s_i = 0, times the product of all s."""
    size, layer_of = len(parametrisation.theta), parametrisation.layer_of
    slopes = {
        i: {_with(m, [size + layer_of[n] for n in m]): c for m, c in slope.items()}
        for i, slope in gradient(law).items()
    }
    others = [[size + m for m in range(len(parametrisation.layers)) if m != n] for n in layer_of]
    for field in parametrisation.gradients:
        parts = (
            product(slopes[i], {_with(m, others[i]): c for m, c in component.items()})
            for i, component in field.items()
            if i in slopes
        )
        if total(term for part in parts for term in part.items()):
            return False
    return True


def _with(monomial: Monomial, factors: list[int]) -> Monomial:
    return tuple(sorted((*monomial, *factors)))


def _weighted(parametrisation: Parametrisation) -> list[Field]:
    """Return the gradients with a random whole learning rate for each layer."""
    stream = random.Random(63)
    rates = [stream.randrange(1, 1000) for _ in parametrisation.layers]

    def scaled(component: Mapping[Monomial, int], n: int) -> Polynomial:
        return {m: rates[parametrisation.layer_of[n]] * c for m, c in component.items()}

    return [{n: scaled(component, n) for n, component in field.items()} for field in parametrisation.gradients]
