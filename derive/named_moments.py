"""Names for the Gaussian moments of a Dynamics: I_2, I_3, I_4, J_2 …, as the field writes them."""

from collections.abc import Iterable
from dataclasses import dataclass

import sympy

from .expectation import closed_form
from .moments import Moment

LETTERS = "IJLUVWXYZ"
"""The letters of moments with the same number of factors, in order of appearance (K and M are sizes, Q, R and T overlaps)."""


@dataclass(frozen=True, slots=True)
class NamedMoment:
    """A moment with its name: ``I_3`` stands for ``E[g'(h_1) h_2 g(h_3)]`` at any three fields.

    Attributes
    ----------
    name : str
    moment : Moment
        Its first occurrence.
    """

    name: str
    moment: Moment

    @property
    def signature(self) -> tuple[sympy.Lambda, ...]:
        """The functions, one a field."""
        return self.moment.signature

    @property
    def shape(self) -> tuple[str, ...]:
        """How the functions print."""
        return self.moment.shape

    @property
    def form(self) -> sympy.Expr:
        """The closed form in the covariances C_ab of the fields, in order."""
        return closed_form(self.signature)[0]

    def text(self) -> str:
        """Return the definition and the closed form as a line of text."""
        factors = " ".join(f"{f}(h{n})" if f else f"h{n}" for n, f in enumerate(self.shape, 1))
        return f"{self.name}(1..{len(self.shape)}) = E[{factors}] = {self.form}"


def name_moments(moments: Iterable[Moment]) -> tuple[NamedMoment, ...]:
    """Return each distinct signature once, named by its number of factors and a letter, in order of appearance."""
    named: dict[tuple[object, ...], NamedMoment] = {}
    counts: dict[int, int] = {}
    for moment in moments:
        key = (moment.signature, moment.shape)
        if key not in named:
            size = len(moment.args)
            letter = counts[size] = counts.get(size, -1) + 1
            named[key] = NamedMoment(f"{LETTERS[letter]}_{size}", moment)
    return tuple(named.values())
