"""Functions that an equation defines: of itself, kappa(z) = g(kappa(z), z), on arrays of complex z, or explicitly."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sympy

from effdyn.derive import Dynamics

from .evaluate import Scope, Values, evaluate

SWEEPS = (4, 16, 64, 256, 1024)
"""Fixed-point sweeps before Newton's steps, in each round: few are enough away from the negative axis."""
NEWTON = 10


class NoFixedPoint(ArithmeticError):
    """A self-consistent equation that was not solved.

    Attributes
    ----------
    z : complex
        Where the residual is largest.
    residual : float
        The largest residual.
    """

    def __init__(self, equation: str, z: complex, residual: float) -> None:
        self.equation, self.z, self.residual = equation, z, residual
        super().__init__(f"{equation} is not solved at z = {z:.6g}: {residual:.1e} is left")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.equation, self.z, self.residual)


def implicit(call: sympy.Expr, expr: sympy.Expr, scope: Scope, tolerance: float = 1e-13) -> Callable[[Values], Values]:
    """Return the function that solves ``call = expr``, such as kappa(z) = 1/(1 + r/(z + kappa(z))).

    The solution is the one with kappa(z)/z a Stieltjes transform, as for resolvents of random matrices: kappa has an
    imaginary part of the sign of z's, kappa/z of the other, and both are positive for positive z. The iteration keeps
    them there and has one such fixed point, where it goes from 1, slowly near the negative axis; Newton's steps make it
    exact, and are taken back where they lead elsewhere.

    Raises
    ------
    NoFixedPoint
        If a residual is left.

    Examples
    --------
    >>> z, kappa = sympy.Symbol("z"), sympy.Function("kappa")
    >>> solve = implicit(kappa(z), 1 / (1 + 1 / (z + kappa(z))), Scope({}))
    >>> bool(abs(solve(np.array([2.0]))[0] - (np.sqrt(3) - 1)) < 1e-14)
    True
    """
    z, value = call.args[0], sympy.Dummy("value")
    right = expr.subs(call, value)
    slope = right.diff(value)

    known: dict[bytes, Values] = {}  # the same points come again and again: in each place where the function stands

    def solved(at: Values) -> Values:
        points = np.ascontiguousarray(at, dtype=complex)
        key = points.tobytes()
        if key not in known:
            known[key] = found(points.ravel())
        return known[key].reshape(points.shape)

    def found(flat: Values) -> Values:

        def inside(k: np.ndarray) -> Scope:
            return replace(scope, symbols={**scope.symbols, z: flat, value: k}, depth=1)

        k = np.ones_like(flat)
        for sweeps in SWEEPS:
            k, error = improved(k, flat, inside, sweeps)
            if (error <= tolerance * np.maximum(np.abs(k), 1e-2)).all():
                return k
        worst = int(np.argmax(error))
        raise NoFixedPoint(f"{call} = {expr}", complex(flat[worst]), float(error[worst]))

    def improved(k: Values, flat: Values, inside: Callable[[Values], Scope], sweeps: int) -> tuple[Values, Values]:
        """Return better values, and the residuals that are left."""
        with np.errstate(all="ignore"):  # what is not finite is not kept
            for _ in range(sweeps):
                k = evaluate(right, inside(k))
            polished = k
            for _ in range(NEWTON):
                residual = evaluate(right, inside(polished)) - polished
                polished = polished + residual / (1 - evaluate(slope, inside(polished)))
            k = np.where(np.isfinite(polished) & _belongs(polished, flat), polished, k)
            return k, np.abs(evaluate(right, inside(k)) - k)

    return solved


def _belongs(k: Values, z: Values) -> Values:
    """Return whether values lie where the solution does: k in the half plane of z, k/z in the other; k > 0 for z > 0.

    There is one solution there, since the iteration for k/z maps that half plane into itself.
    """
    slack = 1e-12 * np.abs(k)
    above = (k.imag * np.sign(z.imag) >= -slack) & ((k / z).imag * np.sign(z.imag) <= slack / np.abs(z))
    return np.where(z.imag == 0, k.real > 0, above)


def defined_functions(dynamics: Dynamics, scope: Scope) -> dict[str, Callable[..., Values]]:
    """Return the functions that a Dynamics defines beside what it is the dynamics of, by name, in order."""
    calls = dynamics.unknowns
    for equation in dynamics.drift[1:] if dynamics.kind == "volterra" else dynamics.drift:
        name = equation.quantity.name
        scope = replace(scope, functions={**scope.functions, name: _function(calls[name], equation.expr, scope)})
    return dict(scope.functions)


def _function(call: sympy.Expr, expr: sympy.Expr, scope: Scope) -> Callable[..., Values]:
    if expr.has(call.func):
        return implicit(call, expr, scope)

    def value(*at: Values) -> Values:
        symbols = {**scope.symbols, **dict(zip(call.args, at, strict=True))}
        return evaluate(expr, replace(scope, symbols=symbols, depth=max(map(np.ndim, at))))

    return value
