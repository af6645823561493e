"""One question, ``conserved``, for models and for equations of motion."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from .first_integrals import FirstIntegrals, first_integrals
from .laws import ConservationLaws, conservation_laws
from .parametrisation import Parametrisation

GRADIENT_FLOWS = ("", "gradient-flow")
"""Limits of a Dynamics in which its weights follow the gradient."""


def conserved(given: Any, degree: int = 2, **sizes: int) -> ConservationLaws | FirstIntegrals:
    """Find what training conserves: of a model's weights if it can state φ(θ), else of the order parameters.

    Parameters
    ----------
    given : Parametrisation, model or Dynamics
        A model with a method ``parametrisation(**sizes)``, or a gradient flow derived from one: conservation laws of
        its weights, for any loss. Another Dynamics: first integrals of its own equations. So it is for limits in
        which the noise of SGD remains, which breaks the laws of gradient flow.
    degree : int
        The highest degree of the polynomials searched.
    **sizes : int
        A number for each size, such as ``K=2, M=1``.

    Raises
    ------
    ModelError
        If it is none of these, or its equations are not polynomial.

    Examples
    --------
    >>> from effdyn import derive
    >>> flow = derive.TeacherStudent(activation="linear", second_layer="trained").dynamics(limit="gradient-flow")
    >>> laws = conserved(flow, degree=2, K=1, M=1)
    >>> laws.found, laws.complete
    (1, True)
    """
    if isinstance(given, Parametrisation):
        if sizes:
            raise ModelError(next(iter(sizes)), next(iter(sizes.values())), "no sizes: a Parametrisation has its own")
        return conservation_laws(given, degree)
    whole = getattr(given, "reduction", "") in ("", "full")
    flows = whole and getattr(given, "limit", "") in GRADIENT_FLOWS
    stated = getattr(given, "parametrisation", None) or getattr(getattr(given, "model", None), "parametrisation", None)
    if flows and stated:
        return conservation_laws(stated(**sizes), degree)
    if hasattr(given, "drift"):
        return first_integrals(given, degree, **sizes)
    accepted = "a Parametrisation, a model with a method parametrisation(**sizes), or a Dynamics"
    raise ModelError("given", given, accepted)
