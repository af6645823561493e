"""The derivative of indexed equations of motion, along a perturbation of the states: again indexed, for any K and M.

The derivative of ``dQ[i, k]/dt`` along perturbations dQ, dR is an expression with the same free indices and sums,
linear in dQ and dR. Compiled like any right-hand side and applied to unit perturbations it gives the columns of the
Jacobian.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

import sympy

from .dynamics import Dynamics, Equation, Quantity, scalar

DIFFERENTIATED = (
    *(sympy.exp, sympy.log, sympy.sin, sympy.cos, sympy.tanh, sympy.sinh, sympy.cosh),
    *(sympy.asin, sympy.acos, sympy.atan, sympy.erf, sympy.Abs, sympy.Piecewise),
)
"""Functions that may occur. Those of ReLU's forms (``edge``, ``sign4``, …) do not: their derivatives are 0/0 where
fields coincide, as they do in the sums over all units, and no regular form of these is known here."""


class NotDifferentiable(ValueError):
    """Equations without a compiled derivative here, such as sums over the nodes of a numerical rule."""


@lru_cache(maxsize=64)
def tangent(dynamics: Dynamics) -> Dynamics:
    """Return the equations of motion of an infinitesimal perturbation, with the states themselves as parameters.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations whose moments have closed forms.

    Returns
    -------
    Dynamics
        Its states are the perturbations, named ``d`` and the state; its parameters the states, then the parameters.

    Raises
    ------
    NotDifferentiable
        If the equations contain numerical expectations, or functions not in :data:`DIFFERENTIATED`.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    >>> print(tangent(flow)["dR"])
    -a[i]*Sum(a[j]*dR[j, n], (j, 1, K))
    """
    if dynamics.tables:
        raise NotDifferentiable("expectations are numerical, sums over the nodes of a rule that depends on the states")
    closed = [dynamics.closed(e.expr) for e in dynamics.drift]
    _check_functions(closed)
    perturbed = _perturbations(dynamics)
    memo: dict[sympy.Basic, sympy.Expr] = {}
    drift = tuple(
        Equation(perturbed[e.quantity.name], _derivative(expr, perturbed, memo), e.status)
        for e, expr in zip(dynamics.drift, closed, strict=True)
    )
    title = f"{dynamics.title}, linearised"
    return Dynamics(title, "ode", dynamics.clock, drift, dynamics.states + dynamics.parameters)


@lru_cache(maxsize=64)
def curvature(dynamics: Dynamics) -> Dynamics:
    """Return the second derivative of the equations of motion along a perturbation of the states.

    It is the derivative of :func:`tangent` along the same perturbation: quadratic in it, with the same sums. Added up
    over the columns l of a factor of a covariance C it is H:C = Σ_l ∇²b : l lᵀ.

    Returns
    -------
    Dynamics
        Its drift is that derivative, by the names of the states; the perturbations are its last parameters.

    Raises
    ------
    NotDifferentiable
        As :func:`tangent`.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear", second_layer="trained").dynamics(limit="gradient-flow")
    >>> print(curvature(flow)["R"])
    -a[i]*Sum(2*dR[j, n]*da[j], (j, 1, K)) - 2*da[i]*Sum(R[j, n]*da[j] + a[j]*dR[j, n], (j, 1, K))
    """
    linear, perturbed = tangent(dynamics), _perturbations(dynamics)
    memo: dict[sympy.Basic, sympy.Expr] = {}
    return replace(
        dynamics,
        title=f"{dynamics.title}: second derivative along a perturbation",
        drift=tuple(
            Equation(e.quantity, _derivative(first.expr, perturbed, memo), e.status)
            for e, first in zip(dynamics.drift, linear.drift, strict=True)
        ),
        parameters=(*dynamics.parameters, *linear.states),
        observables=(),
        model=None,
    )


def along(expr: sympy.Expr, directions: Mapping[str, Quantity]) -> sympy.Expr:
    """Return the derivative of an expression along a direction: of each quantity named, the one that it is moved by.

    Raises
    ------
    NotDifferentiable
        If it contains functions not in :data:`DIFFERENTIATED`.

    Examples
    --------
    >>> x = Quantity("x")
    >>> along(x.symbol**3, {"x": x})  # along itself
    3*x**3
    """
    _check_functions([expr])
    return _derivative(expr, directions, {})


def _check_functions(expressions: Iterable[sympy.Expr]) -> None:
    """Refuse functions whose derivatives are not known to be regular."""
    for expr in expressions:
        for call in sorted(expr.atoms(sympy.Function), key=sympy.default_sort_key):
            if not isinstance(call, DIFFERENTIATED):
                raise NotDifferentiable(f"no regular derivative of {call.func.__name__} is known")


def _perturbations(dynamics: Dynamics) -> dict[str, Quantity]:
    """Return the perturbation of each state, by the name of the state."""
    names = _perturbation_names(dynamics)
    return {q.name: q if name == q.name else _renamed(q, name) for q, name in zip(dynamics.states, names, strict=True)}


def _perturbation_names(dynamics: Dynamics) -> list[str]:
    taken = {q.name for q in (*dynamics.states, *dynamics.parameters)}
    names = []
    for q in dynamics.states:
        name = f"d{q.name}"
        while name in taken:
            name = f"d_{name}"
        taken.add(name)
        names.append(name)
    return names


def _renamed(q: Quantity, name: str) -> Quantity:
    """A perturbation has either sign, whatever the quantity may be."""
    return replace(q, name=name, latex=rf"\delta {q.latex or q.name}", minimum=None, maximum=None)


def _derivative(
    expr: sympy.Basic, perturbed: Mapping[str, Quantity], memo: dict[sympy.Basic, sympy.Expr]
) -> sympy.Expr:
    """Return the directional derivative, node by node, so that its size stays in proportion to the expression's.

    Differentiated entry by entry instead, the equations of erf committees grow by a factor of 20 and compile for half
    a minute.
    """
    if expr not in memo:
        memo[expr] = _of_node(expr, perturbed, memo)
    return memo[expr]


def _of_node(expr: sympy.Basic, perturbed: Mapping[str, Quantity], memo: dict[sympy.Basic, sympy.Expr]) -> sympy.Expr:
    def inner(e: sympy.Basic) -> sympy.Expr:
        return _derivative(e, perturbed, memo)

    if isinstance(expr, sympy.Indexed):
        q = perturbed.get(str(expr.base))
        return q.base[expr.indices] if q else sympy.S.Zero
    if isinstance(expr, sympy.Symbol):
        q = perturbed.get(expr.name)
        return scalar(q.name) if q and not q.indices else sympy.S.Zero
    if not expr.args:
        return sympy.S.Zero
    if isinstance(expr, sympy.Sum):
        summand = inner(expr.function)
        return sympy.Sum(summand, *expr.limits) if summand != 0 else sympy.S.Zero
    if isinstance(expr, sympy.Piecewise):
        return sympy.Piecewise(*((inner(branch), condition) for branch, condition in expr.args))
    if expr.is_Add:
        return sympy.Add(*map(inner, expr.args))
    if expr.is_Mul:
        factors = [(n, inner(a)) for n, a in enumerate(expr.args)]
        return sympy.Add(*(d * sympy.Mul(*expr.args[:n], *expr.args[n + 1 :]) for n, d in factors if d != 0))
    changes = [(n, inner(a)) for n, a in enumerate(expr.args)]
    return sympy.Add(*(_partial(expr, n) * d for n, d in changes if d != 0))


def _partial(expr: sympy.Basic, n: int) -> sympy.Expr:
    """Return the derivative of a function or power with respect to one of its arguments."""
    slots = [sympy.Dummy(f"x{m}", real=True) for m in range(len(expr.args))]
    arguments = [slots[m] if m == n else a for m, a in enumerate(expr.args)]
    found = sympy.diff(expr.func(*arguments), slots[n])
    return found.xreplace({slots[n]: expr.args[n]})
