"""Names for the Gaussian moments of a Dynamics: I_2, I_3, I_4, J_2 …, as the field writes them."""

from collections.abc import Iterable
from dataclasses import dataclass

import sympy

from .expectation import closed_form
from .moments import Moment

LETTERS = "IJLUVWXYZ"
"""The letters of moments with the same number of factors, in order of appearance (K and M are sizes, Q, R and T
overlaps)."""


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
    distinct = list({(m.signature, m.shape): m for m in reversed(list(moments))}.values())[::-1]
    names: dict[Moment, str] = {}
    counts: dict[int, int] = {}
    for moment in sorted(distinct, key=_distance_from_convention):
        size = len(moment.args)
        letter = counts[size] = counts.get(size, -1) + 1
        names[moment] = f"{LETTERS[letter]}_{size}"
    return tuple(NamedMoment(names[moment], moment) for moment in distinct)


def _distance_from_convention(moment: Moment) -> int:
    """Return 0 for what the field calls I_n: n factors of which n − 2 are differentiated (or bare fields)."""
    bare = sum(name == "" for name in moment.shape)
    derivatives = sum(name.endswith("'") for name in moment.shape)
    return abs(derivatives + bare - (len(moment.args) - 2) - (bare > 0))
