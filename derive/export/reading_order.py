"""In what order a reader is shown the moments and the functions of a Dynamics, in LaTeX as in code."""

from dataclasses import replace
from typing import TYPE_CHECKING

import sympy

from ..activation import X
from ..moments import Univariate

if TYPE_CHECKING:
    from ..dynamics import Dynamics
    from ..named_moments import NamedMoment


def sorted_moments(dyn: "Dynamics") -> "list[NamedMoment]":
    """Return the moments of a Dynamics by number of factors, then by letter."""
    moments = (replace(m, shifted=bool(dyn.mean)) for m in dyn.moments)
    return sorted(moments, key=lambda m: (len(m.shape), m.name))


def activations(dyn: "Dynamics") -> list[Univariate]:
    """Return the functions of local fields in a Dynamics and its derivation, undifferentiated, by name."""
    expressions = [
        *(e.expr for e in (*dyn.equations, *dyn.diffusion)),
        *(right for step in dyn.steps for _, right in step.equations),
    ]
    found = {u.args[0]: u for e in expressions for u in e.atoms(Univariate) if u.args[1] == 0}
    return [found[symbol] for symbol in sorted(found, key=str) if not _names_itself(found[symbol])]


def _names_itself(function: Univariate) -> bool:
    """Return whether a function prints as what it is: the sign is called sign."""
    return str(function) == "sign" and function.function(X) == sympy.sign(X)
