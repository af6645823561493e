"""One way of training other than plain gradient flow, and what becomes of the laws; the letters in which it is said."""

from dataclasses import dataclass

import sympy

T = sympy.Symbol("t", real=True)
MU, ETA, GAMMA = sympy.symbols("mu eta gamma", positive=True)
H = sympy.Function("h")
"""A law: of time along a trajectory, or of the vector in its brackets."""
THETA, GRADIENT, VELOCITY = sympy.symbols("theta g v")
"""All parameters, the gradient of the loss by them, and their velocity, as arguments of :data:`H`."""
MEAN = sympy.Function("E")
"""The mean over mini-batches."""


@dataclass(frozen=True, slots=True)
class Modification:
    """What becomes of the laws in one way of training.

    Attributes
    ----------
    name, flow : str
        What it is called, and how the parameters move.
    kept, total : int
        For how many laws the equations hold, of how many.
    equations : tuple of Eq
        What becomes of a law h, as identities that were verified by multiplying out.
    laws : tuple of Expr
        What is conserved instead, if there is something.
    text : str
        The same in words, with what is not kept.
    """

    name: str
    flow: str
    kept: int
    total: int
    equations: tuple[sympy.Eq, ...]
    laws: tuple[sympy.Expr, ...]
    text: str
