"""The strengths s of aligned modes alone: amplitudes eliminated by what is conserved.

Two layers at any imbalance; balanced layers at any depth; and, as ``chain``, any depth at any imbalance.
"""

import sympy

from ..dynamics import Dynamics, Equation, Quantity
from ..errors import ModelError
from .modes import (
    ALIGNED,
    C_I,
    EXCESS_OF_MODES,
    STRENGTH,
    Modes,
    P,
    align,
    check_plain,
    excess_of,
    input_variance,
    mode_data,
    mode_steps,
)
from .network import LinearNetwork
from .reduction import I, diagonal_entry, dynamics

LAMBDA = Quantity("lam", (I,), (P,), r"\lambda", "imbalance of a mode, w_2² − w_1², conserved", dims=("mode",))
SQUARE = Quantity("q", (I,), (P,), "q", "square of the first layer's amplitude", minimum=0.0, dims=("mode",))


def strengths(network: LinearNetwork) -> Dynamics:
    """Return s' = √(λ² + 4 s²) (c − δ s) for two layers, s' = N |s|^(2 − 2/N) (c − δ s) for balanced N."""
    check_plain(network, "strengths")
    aligned = align(network)
    s = STRENGTH.symbol
    squares = _squares(network, s)
    residual = C_I - input_variance(network) * s
    growth = _growth(aligned, residual, squares)
    balanced = network.depth > 2
    return dynamics(
        title=f"{network.name}, strengths of {'balanced ' if balanced else ''}modes",
        drift=[Equation(STRENGTH, growth * residual)],
        parameters=(*mode_data(network), *([LAMBDA] if network.depth == 2 else [])),
        observables=[Equation(EXCESS_OF_MODES, excess_of(network, s))],
        assumptions=(
            "gradient flow: the limit of small learning rates",
            ALIGNED,
            *(["balanced layers: all amplitudes of a mode are equal up to sign"] if balanced else []),
        ),
        steps=mode_steps(network, aligned.flow),
        model=network,
        reduction="strengths",
    )


def chain(network: LinearNetwork) -> Dynamics:
    """Return q' = 2 s (c − δ s) with s = Π_l √(q + gap_l), q the square of the first amplitude."""
    check_plain(network, "chain")
    if network.depth < 2:
        raise ModelError("reduction", "chain", "a network of at least two layers: depth=2 or more")
    aligned = align(network)
    gaps = [
        Quantity(f"gap_{n}", (I,), (P,), rf"\Delta^{{({n})}}", f"w_{n}² − w_1² of a mode, conserved", dims=("mode",))
        for n in range(2, network.depth + 1)
    ]
    q = SQUARE.symbol
    s = sympy.sqrt(q) * sympy.Mul(*(sympy.sqrt(q + gap.symbol) for gap in gaps))
    first = diagonal_entry(aligned.flow[aligned.amplitudes[0]], I)
    rate = 2 * _amplitude(aligned, 0) * first  # d(w_1²)/dt; holds the amplitudes only in the product s
    product = sympy.Mul(*(_amplitude(aligned, n) for n in range(network.depth)))
    strength = sympy.Symbol("s", real=True)
    rate = sympy.expand(rate).subs(product, strength).subs(product**2, strength**2)
    assert not any(rate.has(_amplitude(aligned, n)) for n in range(network.depth))
    return dynamics(
        title=f"{network.name}, unbalanced modes",
        drift=[Equation(SQUARE, sympy.factor_terms(rate).subs(strength, s))],
        parameters=(*mode_data(network), *gaps),
        observables=[Equation(STRENGTH, s), Equation(EXCESS_OF_MODES, excess_of(network, s))],
        assumptions=(
            "gradient flow: the limit of small learning rates",
            ALIGNED,
            "no amplitude changes its sign; strengths are positive",
        ),
        steps=mode_steps(network, aligned.flow),
        model=network,
        reduction="chain",
    )


def _amplitude(aligned: Modes, n: int) -> sympy.Expr:
    return sympy.IndexedBase(aligned.amplitudes[n].name, real=True)[I]


def _squares(network: LinearNetwork, s: sympy.Expr) -> list[sympy.Expr]:
    """Return the squares of the amplitudes as functions of the strength, by what is conserved."""
    if network.depth == 1:
        return [s**2]
    if network.depth > 2:
        return [sympy.Abs(s) ** sympy.Rational(2, network.depth)] * network.depth
    x, lam = sympy.Symbol("x", positive=True), LAMBDA.symbol
    roots = sympy.roots(x * (x + lam) - s**2, x)  # w_1² w_2² = s², w_2² = w_1² + λ
    (positive,) = (root for root in roots if root.subs({lam: 0, s: 1}) > 0)
    return [positive, positive + lam]


def _growth(aligned: Modes, residual: sympy.Expr, squares: list[sympy.Expr]) -> sympy.Expr:
    """Return Σ_l Π_{j≠l} w_j², which multiplies c − δ s in s' = Σ_l (Π_{j≠l} w_j) w_l'."""
    amplitudes = [_amplitude(aligned, n) for n in range(len(aligned.amplitudes))]
    strength = sympy.Mul(*amplitudes)
    total = sympy.S.Zero
    for w, letter in zip(amplitudes, aligned.amplitudes, strict=True):
        rate = diagonal_entry(aligned.flow[letter], I)
        others = sympy.cancel(rate / residual.subs(STRENGTH.symbol, strength))  # Π_{j≠l} w_j, or there is a mistake
        total += others * strength / w
    powers = {w**2: square for w, square in zip(amplitudes, squares, strict=True)}
    growth = total.subs(powers)
    assert not growth.has(*amplitudes), growth
    return sympy.powsimp(sympy.expand(growth)) if len(amplitudes) > 2 else sympy.expand(growth)
