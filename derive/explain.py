"""What a limit kept and what it left out: each term, whose equation it stands in, and how fast it vanishes."""

import sympy

from .dynamics import Dynamics


def explain_limit(dynamics: Dynamics) -> str:
    """Return which terms of the mean of one step survived the limit, and at what rate the others vanished.

    Parameters
    ----------
    dynamics : Dynamics
        Derived from a model in a limit.

    Returns
    -------
    str
        For each equation its terms that survive, then those that vanish with their order.

    Examples
    --------
    >>> from effdyn import derive
    >>> model = derive.TeacherStudent(activation="erf", weight_decay=True)
    >>> lines = explain_limit(model.dynamics()).splitlines()
    >>> lines[0].partition(": ")[2]
    'd → ∞ at fixed numbers of units, learning rate and time t = steps/d'
    >>> "  as 1/d: kappa^2/d Q_ik" in lines
    True
    """
    from .export.printer import PlainPrinter

    printer = PlainPrinter()
    lines = [f"{dynamics.title}: {dynamics.assumptions[-1] if dynamics.assumptions else dynamics.status}"]
    for equation in dynamics.drift:
        lines += ["", f"d{printer.doprint(equation.quantity.symbol)}/dt survives:"]
        lines += [f"  {printer.doprint(term)}" for term in sympy.Add.make_args(equation.expr)]
        lost = [dropped for dropped in dynamics.dropped if dropped.quantity == equation.quantity.name]
        if lost:
            lines.append("vanishes:")
            lines += [f"  as {dropped.order}: {dropped.term}" for dropped in lost]
    return "\n".join(lines)
