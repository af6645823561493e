"""The law of jointly Gaussian fields, some of which are held at zero: conditional moments that stay regular.

A Schur complement C_ab − C_ap C_pb/C_pp given one field is safe. Given two, its plain form is 0/0 where those two
coincide; here it goes through :class:`.special.edge`, which is 0 there, the limit of independent noise on every field.
Given three and more the plain form stands.
"""

from dataclasses import dataclass

import sympy

from .special import edge


@dataclass(frozen=True, slots=True)
class Law:
    """N(m, C) under the condition that the fields ``given`` are zero.

    Attributes
    ----------
    C : tuple of tuples
        The covariance before.
    m : tuple
        The means before.
    given : tuple of int
        Fields that are held at 0.

    Examples
    --------
    >>> C = tuple(tuple(sympy.Symbol(f"C_{min(a, b)}{max(a, b)}", real=True) for a in (1, 2)) for b in (1, 2))
    >>> Law(C, (sympy.S.Zero, sympy.S.Zero), (0,)).cov(1, 1)
    C_22 - C_12**2/C_11
    """

    C: tuple[tuple[sympy.Expr, ...], ...]
    m: tuple[sympy.Expr, ...]
    given: tuple[int, ...] = ()

    def at_zero(self, p: int) -> "Law":
        """Return the law given that h_p = 0 too."""
        return Law(self.C, self.m, (*self.given, p))

    def _before(self) -> tuple["Law", int]:
        return Law(self.C, self.m, self.given[:-1]), self.given[-1]

    def cov(self, a: int, b: int) -> sympy.Expr:
        """Return the covariance of two fields."""
        if not self.given:
            return self.C[a][b]
        before, p = self._before()
        if len(self.given) == 1:
            return self.C[a][b] - self.C[a][p] * self.C[b][p] / self.C[p][p]
        return before.cov(a, b) - before.ratio(a, p) * before.ratio(b, p)

    def mean(self, a: int) -> sympy.Expr:
        """Return the mean of a field."""
        if not self.given:
            return self.m[a]
        before, p = self._before()
        held = before.mean(p)
        return before.mean(a) if held == 0 else before.mean(a) - before.ratio(a, p) * before.offset(p)

    def ratio(self, a: int, p: int) -> sympy.Expr:
        """Return C_ap/√C_pp; 0 where p coincides with a field that is held."""
        if len(self.given) != 1:
            return self.cov(a, p) / sympy.sqrt(self.cov(p, p))
        (g,) = self.given
        C = self.C
        one, none = sympy.S.One, sympy.S.Zero
        return sympy.sqrt(C[g][g]) * edge(C[g][g], C[g][p], C[p][p], C[a][g], C[a][p], one, none)

    def offset(self, p: int) -> sympy.Expr:
        """Return m_p/√C_pp; 0 where p coincides with a field that is held. Only ever used beside a ``ratio``."""
        if len(self.given) != 1:
            return self.mean(p) / sympy.sqrt(self.cov(p, p))
        (g,) = self.given
        C = self.C
        one, none = sympy.S.One, sympy.S.Zero
        return sympy.sqrt(C[g][g]) * edge(C[g][g], C[g][p], C[p][p], self.m[g], self.m[p], one, none)

    def flux(self, a: int, p: int) -> sympy.Expr:
        """Return C_ap E[sign′(h_p)] = C_ap 2δ̄, which is √(2/π) C_ap/√C_pp for centred fields."""
        weight = sympy.sqrt(2 / sympy.pi) * self.ratio(a, p)
        return weight if self.mean(p) == 0 else weight * sympy.exp(-(self.offset(p) ** 2) / 2)
