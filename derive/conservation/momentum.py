"""Heavy ball: laws of gradient flow are lost, rotations that φ cannot see give charges that friction damps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sympy

from .generators import Matrix, generators
from .modification import GAMMA, VELOCITY, H, Modification, T
from .modified_steps import quadratic_step, step_terms
from .presentation import counted

if TYPE_CHECKING:
    from .laws import ConservationLaws

Q = sympy.Function("q")


def heavy_ball(laws: ConservationLaws) -> Modification:
    """θ'' + γθ' = −∇L: what is linear in products θ_i θ_j' and decays as e^(−γt), by an ansatz and its null space.

    For q = θᵀAθ', q' + γq = θ'ᵀAθ' − θᵀA∇L vanishes for all velocities and all losses if A is skew and
    (Aᵀθ)·∇φ_k = 0. A law h, quadratic, obeys h'' + γh' = 2h(θ') instead, as ∇h·∇L = 0.
    """
    parametrisation = laws.parametrisation
    size = len(parametrisation.theta)
    speeds = [velocity(symbol) for symbol in parametrisation.theta]
    charges = [_charge(matrix, parametrisation.theta, speeds) for matrix in generators(parametrisation, "skew")]
    second = sum(quadratic_step(law, step_terms(law, size), size) for law in laws.polynomials)
    h, q = H(T), Q(T)
    accelerated = sympy.Eq(sympy.Derivative(h, (T, 2)) + GAMMA * sympy.Derivative(h, T), 2 * H(VELOCITY))
    decaying = sympy.Eq(sympy.Derivative(q, T), -GAMMA * q)
    return Modification(
        name="heavy ball",
        flow="θ'' + γθ' = −∇L, v = θ'",
        kept=second,
        total=laws.found,
        equations=((accelerated,) if second else ()) + ((decaying,) if charges else ()),
        laws=tuple(charges),
        text=f"lost: v drives h; instead the {counted(len(charges), 'charge')} q of rotations that leave φ unchanged "
        "decay as exp(−γt)",
    )


def velocity(symbol: sympy.Expr) -> sympy.Expr:
    r"""Return the symbol of a parameter's velocity, which prints as :math:`\dot\theta`.

    Examples
    --------
    >>> velocity(sympy.Symbol("u", real=True)), velocity(sympy.IndexedBase("W", real=True)[1, 2])
    (udot, Wdot[1, 2])
    """
    if isinstance(symbol, sympy.Indexed):
        return sympy.IndexedBase(f"{symbol.base}dot", real=True)[symbol.indices]
    return sympy.Symbol(f"{symbol}dot", real=True)


def _charge(matrix: Matrix, theta: Sequence[sympy.Expr], speeds: list[sympy.Expr]) -> sympy.Expr:
    """Return (Bθ)·θ'."""
    return sympy.Add(*(entry * theta[j] * speeds[i] for (i, j), entry in matrix.items()))
