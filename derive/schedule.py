"""Learning-rate schedules: one factor s(t) of every learning rate, a formula of time and of parameters of its own.

Through a derivation it is the opaque :data:`PACE`, so that terms stay products of powers; the formula takes its place
in what comes out. Knows nothing of models.
"""

from keyword import iskeyword
from typing import Any

import sympy

from .dynamics import TIME, Quantity, scalar
from .errors import ModelError
from .terms import INDEX_NAMES
from .text import parse_expression

PACE = sympy.Function("s", nonnegative=True)(TIME)
"""s(t), by which the learning rates of a step are multiplied."""
SCHEDULE = Quantity("schedule", latex="s", meaning="factor of the learning rates", minimum=0.0)
"""What shows it beside the states."""
ACCEPTED = "a formula of t, the model's time, and of new names, which become parameters, such as '1/(1 + t/tau)'"
TAKEN = {
    *("Q", "R", "T", "P", "V", "S", "a", "b", "bias", "teacher_bias", "K", "M", "d", "h", "h_star", "m", "w", "x", "y"),
    *("eta", "eta_a", "eta_bias", "eta_a_over_eta", "eta_bias_over_eta", "kappa", "kappa_over_eta", "sigma", "flip"),
    *("batch", "beta", "mu", "phi", "ell", "zeta", "chi", "steps", "schedule", "eg", "error_rate", "loss", "cosine"),
    *("cosine_students", "run", "member", "student", "student_2", "teacher", "teacher_2", "i", "k", "s"),
    *("input_variance", "input_share", "input_mean", "mean", "teacher_mean", "block", "B", "N", "Q_perp", "T_inv"),
    *("a_buffer", "bias_buffer", "buffer_mean"),
    *"".join(INDEX_NAMES.values()),
    *"cefguz",
}
"""Names that mean something else in the equations of some model: quantities, sizes, indices, axes of results."""


def schedule(given: Any) -> sympy.Expr | None:
    """Return a schedule as an expression of :data:`.dynamics.TIME` and of parameters; None for none.

    Parameters
    ----------
    given : str, sympy.Expr, callable or None
        A formula of ``t``, or a function that returns one; other names in it are parameters.

    Raises
    ------
    ModelError
        If it is no such formula, does not depend on t, or uses a name that means something else in the equations.

    Examples
    --------
    >>> schedule("exp(-t/tau)")
    exp(-t/tau)
    >>> schedule(lambda t: 1 / sympy.sqrt(1 + t))
    1/sqrt(t + 1)
    """
    if given is None:
        return None
    try:
        found = given(TIME) if callable(given) and not isinstance(given, sympy.Basic) else given
    except TypeError as error:
        raise ModelError("schedule", given, f"{ACCEPTED}; a function is called with t alone") from error
    expr = parse_expression(found, "schedule") if isinstance(found, str) else found
    if not isinstance(expr, sympy.Expr) or expr.has(sympy.nan, sympy.oo, -sympy.oo, sympy.zoo):
        raise ModelError("schedule", given, ACCEPTED)
    expr = expr.subs({s: TIME if s.name == "t" else scalar(s.name) for s in expr.free_symbols})
    names = sorted(s.name for s in expr.free_symbols - {TIME})
    if TIME not in expr.free_symbols:
        reason = "there is no t in it" if names else "a constant factor is part of the learning rate"
        raise ModelError("schedule", given, f"{ACCEPTED}; {reason}")
    for name in names:
        if name in TAKEN or not name.isidentifier() or iskeyword(name):
            raise ModelError("schedule", given, f"{ACCEPTED}; {name} means something else in the equations")
    return expr


def parameters_of(expr: sympy.Expr | None) -> tuple[Quantity, ...]:
    """Return the parameters of a schedule, by name.

    Examples
    --------
    >>> [q.name for q in parameters_of(schedule("1/(1 + t/tau)**power"))]
    ['power', 'tau']
    """
    symbols = expr.free_symbols - {TIME} if expr is not None else set()
    return tuple(
        Quantity(s.name, latex=sympy.latex(s), meaning="of the schedule of the learning rates")
        for s in sorted(symbols, key=lambda s: s.name)
    )
