"""The Jacobian of the equations of motion as a kernel, from symbolic derivatives, for implicit integrators.

For equations between scalars, where a derivative is again such an equation. For matrices of order parameters it
is not derived: sums, closed forms of moments and the symmetry of a matrix would each need a rule of differentiation.
Integrators take differences of the compiled equations there, which may slow their iterations, but not falsify them.
"""

from functools import lru_cache

import sympy

from effdyn.derive import Dynamics, Quantity

from ..kernels.kernel import Kernel, check_dynamics, compile_kernel


def jacobian_kernel(dynamics: Dynamics) -> Kernel | None:
    """Return the compiled derivatives of each drift by each state, (n, n) row by row; None where there are none.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations.

    Returns
    -------
    Kernel or None
        None if a state has indices, or an equation holds sums, moments or functions without a derivative.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> from effdyn.derive.dynamics import Equation
    >>> x, y = sympy.symbols("x y", real=True)
    >>> drift = [Equation(derive.Quantity("x"), y), Equation(derive.Quantity("y"), (1 - x**2) * y - x)]
    >>> oscillator = derive.Dynamics("van der Pol", "ode", "t", tuple(drift))
    >>> "-2*x*y - 1" in jacobian_kernel(oscillator).source
    True
    """
    check_dynamics(dynamics)
    return _compiled(dynamics)


@lru_cache(maxsize=256)
def _compiled(dynamics: Dynamics) -> Kernel | None:
    entries = derivatives(dynamics)
    if entries is None:
        return None
    return compile_kernel(dynamics, entries, "jacobian", f"{dynamics.title}: derivatives of the drift.")


def derivatives(dynamics: Dynamics) -> list[tuple[Quantity, sympy.Expr]] | None:
    """Return each drift's derivative by each state, by name, or None."""
    states = [e.quantity for e in dynamics.drift]
    if any(q.indices for q in states) or any(e.expr.has(sympy.Indexed, sympy.Sum) for e in dynamics.drift):
        return None
    if dynamics.families or dynamics.tables:
        return None
    rows = [
        (Quantity(f"slope_{i}_{j}"), e.expr.diff(q.symbol))
        for i, e in enumerate(dynamics.drift)
        for j, q in enumerate(states)
    ]
    without = (sympy.Derivative, sympy.Subs, sympy.DiracDelta)
    return None if any(expr.has(*without) for _, expr in rows) else rows
