"""In what order a reader is shown the moments and the functions of a Dynamics, in LaTeX as in code."""

from typing import TYPE_CHECKING

from ..moments import Univariate

if TYPE_CHECKING:
    from ..dynamics import Dynamics
    from ..named_moments import NamedMoment


def sorted_moments(dyn: "Dynamics") -> "list[NamedMoment]":
    """Return the moments of a Dynamics by number of factors, then by letter."""
    return sorted(dyn.moments, key=lambda m: (len(m.shape), m.name))


def activations(dyn: "Dynamics") -> list[Univariate]:
    """Return the functions of local fields in a Dynamics and its derivation, undifferentiated, by name."""
    expressions = [*(e.expr for e in dyn.equations), *(right for step in dyn.steps for _, right in step.equations)]
    found = {u.args[0]: u for e in expressions for u in e.atoms(Univariate) if u.args[1] == 0}
    return [found[symbol] for symbol in sorted(found, key=str)]
