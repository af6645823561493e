"""Names for the Gaussian moments of a Dynamics: I_2, I_3, I_4, J_2 …, as the field writes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import sympy

from .moments import Moment

if TYPE_CHECKING:
    from .numerical.moment_forms import MomentForm

LETTERS = "IJLUVWXYZABDFGHNOP"
"""The letters of moments with the same number of factors, in order of appearance (K and M are sizes, Q, R and T
overlaps, C covariances, S means of signs); then twice each."""


@dataclass(frozen=True, slots=True, repr=False)
class NamedMoment:
    """A moment with its name: ``I_3`` stands for ``E[g'(h_1) h_2 g(h_3)]`` at any three fields.

    Attributes
    ----------
    name : str
    moment : Moment
        Its first occurrence.
    shifted : bool
        Whether local fields have means.

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
    shifted: bool = False

    @property
    def signature(self) -> tuple[sympy.Lambda, ...]:
        """The functions, one a field."""
        return self.moment.signature

    @property
    def shape(self) -> tuple[str, ...]:
        """How the functions print."""
        return self.moment.shape

    @property
    def computed(self) -> "MomentForm":
        """How it is computed: by a closed form, or by a rule."""
        return _computed(self.signature, self.shifted)

    @property
    def exact(self) -> bool:
        """Whether it has a closed form."""
        return self.computed.exact

    @property
    def form(self) -> sympy.Expr:
        """The form in the covariances C_ab (and means m_a) of the fields, in order: closed, or over nodes of a rule."""
        return self.computed.form

    def __repr__(self) -> str:
        from .export.rows import plain_definition

        return f"<NamedMoment {plain_definition(self)}>"

    def __str__(self) -> str:
        from .export.printer import PlainPrinter
        from .export.rows import plain_legend, plain_moment_rows

        main, definitions = plain_moment_rows(self, PlainPrinter())
        rule = [] if self.exact else [self.computed.rule]
        return "\n".join([*(line for _, lines in main + definitions for line in lines), *rule, *plain_legend([self])])

    def _repr_latex_(self) -> str:
        from .export.latex import notebook_moment

        return notebook_moment(self)

    def text(self) -> str:
        """Return the definition and the closed form, or how else it is computed, as a line of text."""
        factors = " ".join(f"{f}(h{n})" if f else f"h{n}" for n, f in enumerate(self.shape, 1))
        value = f"= {self.form}" if self.exact else f"numerically, by {self.computed.rule}"
        return f"{self.name}(1..{len(self.shape)}) = E[{factors}] {value}"


@lru_cache(maxsize=1024)
def _computed(signature: tuple[sympy.Lambda, ...], shifted: bool) -> "MomentForm":
    from .numerical.moment_forms import moment_form

    return moment_form(signature, shifted)


def name_moments(moments: Iterable[Moment], shifted: bool = False) -> tuple[NamedMoment, ...]:
    """Return each distinct signature once, named by its number of factors and a letter, in order of appearance.

    Parameters
    ----------
    moments : iterable of Moment
    shifted : bool
        Whether local fields have means.
    """
    distinct = list({(m.signature, m.shape): m for m in reversed(list(moments))}.values())[::-1]
    names: dict[Moment, str] = {}
    counts: dict[int, int] = {}
    for moment in sorted(distinct, key=_distance_from_convention):
        size = len(moment.args)
        letter = counts[size] = counts.get(size, -1) + 1
        names[moment] = f"{LETTERS[letter % len(LETTERS)] * (1 + letter // len(LETTERS))}_{size}"
    return tuple(NamedMoment(names[moment], moment, shifted) for moment in distinct)


def _distance_from_convention(moment: Moment) -> int:
    """Return 0 for what the field calls I_n: n factors of which n − 2 are differentiated (or bare fields)."""
    bare = sum(name == "" for name in moment.shape)
    derivatives = sum(name.endswith("'") for name in moment.shape)
    return abs(derivatives + bare - (len(moment.args) - 2) - (bare > 0))
