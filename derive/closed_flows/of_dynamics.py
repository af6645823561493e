"""The closed form of a Dynamics: which of its equations a detector can solve, and why not, if not."""

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import sympy

from .find import find_closed_form
from .results import ClosedForm, NotFound

if TYPE_CHECKING:
    from ..dynamics import Dynamics
    from .matrix_riccati import MatrixClosedForm

TIME = sympy.Symbol("t", nonnegative=True)


class NoClosedFlow(UserWarning):
    """No closed form was found; the message says why."""


def closed_form(dynamics: "Dynamics") -> "ClosedForm | MatrixClosedForm | None":
    """Return the verified closed form of a Dynamics, or None after a warning that says why there is none."""
    found = search(dynamics)
    if isinstance(found, NotFound):
        warnings.warn(f"{dynamics.title}: {found}", NoClosedFlow, stacklevel=3)
        return None
    return found


@lru_cache(maxsize=64)
def search(dynamics: "Dynamics") -> "ClosedForm | MatrixClosedForm | NotFound":
    """Return the closed form of a Dynamics, or why there is none."""
    if dynamics.kind != "ode":
        return NotFound(f"it is of kind {dynamics.kind!r}; closed forms are for differential equations")
    matrix = getattr(dynamics.model, "matrix_closed_form", None)
    if matrix is not None and (form := matrix(dynamics.reduction)) is not None:
        return form
    if dynamics.tables or dynamics.families:
        return NotFound("its order parameters drive each other through averages over fields")
    if any(len(q.indices) > 1 for q in dynamics.states):
        instead = "; λ-balanced layers on whitened inputs have one: reduction='riccati'" if matrix else ""
        return NotFound(f"the entries of matrices drive each other{instead}")
    return find_closed_form({e.quantity.symbol: e.expr for e in dynamics.drift}, TIME)
