"""Equations that depend on time explicitly, through factors such as a schedule of learning rates.

Such a factor is an observable that is a formula of time and parameters alone, with the least value that it may have.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy

from effdyn.derive import Dynamics, ModelError, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.derive.errors import Described

TIMES = 257
"""Evenly spaced times at which factors are looked at before a run."""


def check_factors(dynamics: Dynamics, params: Mapping[str, Any], span: tuple[float, float]) -> None:
    """Raise a ModelError if a factor is not finite, or below its least value, somewhere in a time span.

    ``params`` may have leading axes, of members.
    """
    for e in dynamics.observables:
        if e.quantity.minimum is not None and not e.quantity.indices and is_factor(e.expr, dynamics):
            check_factor(e.quantity, e.expr, params, span)


def is_factor(expr: sympy.Expr, dynamics: Dynamics) -> bool:
    """Return whether an expression is a formula of time and scalar parameters alone."""
    scalars = {q.base for q in dynamics.parameters if not q.indices}
    return TIME in expr.free_symbols and expr.free_symbols <= {TIME, *scalars}


def check_factor(quantity: Quantity, expr: sympy.Expr, params: Mapping[str, Any], span: tuple[float, float]) -> None:
    """Raise a ModelError if a formula of time and parameters leaves its range in a time span, naming the first time.

    It is looked at at 257 times. Parameters that are missing, or no numbers, are for others to report.

    Examples
    --------
    >>> s = Quantity("schedule", minimum=0.0)
    >>> check_factor(s, 1 - TIME, {}, (0.0, 1.0))
    """
    symbols = sorted(expr.free_symbols - {TIME}, key=str)
    if any(s.name not in params for s in symbols):
        return
    try:
        given = np.broadcast_arrays(*(np.asarray(params[s.name], dtype=float) for s in symbols)) if symbols else []
    except (TypeError, ValueError):  # read_inputs says which, by name
        return
    t = np.linspace(*span, TIMES)[:, None]
    with np.errstate(all="ignore"):  # what is not finite is what is looked for
        found = sympy.lambdify([TIME, *symbols], expr, "numpy")(t, *(np.ravel(a) for a in given))
    values = np.real_if_close(np.broadcast_to(found, (TIMES, max(1, given[0].size if given else 1))))
    sound = np.isreal(values) & np.isfinite(values)
    assert quantity.minimum is not None
    sound &= np.where(sound, values.real, np.nan) >= quantity.minimum
    if sound.all():
        return
    step, member = np.argwhere(~sound)[0]
    at = {s.name: float(np.ravel(a)[member]) for s, a in zip(symbols, given, strict=True)}
    where = ", ".join(f"{name} = {value:.6g}" for name, value in {TIME.name: t[step, 0], **at}.items())
    raise ModelError(
        "t_span",
        Described(f"({span[0]:.6g}, {span[1]:.6g})"),
        f"times at which the {quantity.name} {expr} is finite and at least {quantity.minimum:.6g}; "
        f"at {where} it is {values[step, member]:.6g}",
    )
