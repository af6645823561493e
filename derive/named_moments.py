"""Names for the Gaussian moments of a Dynamics: I_2, I_3, I_4, J_2 …, as the field writes them."""

from collections.abc import Iterable
from dataclasses import dataclass

import sympy

from .expectation import closed_form
from .moments import Moment

LETTERS = "IJLUVWXYZ"
"""The letters of moments with the same number of factors, in order of appearance (K and M are sizes, Q, R and T
overlaps)."""


@dataclass(frozen=True, slots=True, repr=False)
class NamedMoment:
    """A moment with its name: ``I_3`` stands for ``E[g'(h_1) h_2 g(h_3)]`` at any three fields.

    Attributes
    ----------
    name : str
    moment : Moment
        Its first occurrence.

    Examples
    --------
    >>> from effdyn import derive
    >>> moments = {m.name: m for m in derive.TeacherStudent(activation="erf").dynamics().moments}
    >>> moments["I_3"]
    <NamedMoment I_3(i,k,j) = E[g'(h_i) h_k g(h_j)]>
    >>> print(moments["I_3"])
    I_3(i,k,j) = E[g'(h_i) h_k g(h_j)] = 2 C'_23/(pi sqrt(1 + C_11) sqrt(1 + C'_33))
    C'_ab = C_ab - C_1a C_1b/(1 + C_11)
    C_ab: the covariance of the fields of a moment's arguments a and b, counted from 1
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

    def __repr__(self) -> str:
        from .export.rows import plain_definition

        return f"<NamedMoment {plain_definition(self)}>"

    def __str__(self) -> str:
        from .export.printer import PlainPrinter
        from .export.rows import PLAIN_COVARIANCE, plain_moment_rows

        main, definitions = plain_moment_rows(self, PlainPrinter())
        return "\n".join([*(line for _, lines in main + definitions for line in lines), PLAIN_COVARIANCE])

    def _repr_latex_(self) -> str:
        from .export.latex import notebook_moment

        return notebook_moment(self)

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
