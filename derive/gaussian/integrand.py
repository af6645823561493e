"""What the expectation rules work on: a product of functions of jointly Gaussian fields, with their law.

Knows nothing of the rules.
"""

from dataclasses import dataclass

import sympy

from ..activation import X

Factor = tuple[int, sympy.Expr]
"""A function, written in X, of the field with this number."""
Matrix = tuple[tuple[sympy.Expr, ...], ...]


@dataclass(frozen=True, slots=True)
class Integrand:
    """``Π f(h_a)`` under N(m, C).

    Attributes
    ----------
    factors : tuple of (int, Expr)
        The field, and the function of it written in X.
    C : tuple of tuples
        The covariance of the fields.
    m : tuple, optional
        Their means; without it they are centred.

    Examples
    --------
    >>> C = tuple(sympy.symbols(row, real=True) for row in ("C_11 C_12", "C_12 C_22"))
    >>> print(Integrand(((0, X**2), (1, sympy.sign(X))), C))
    E[h1**2 sign(h2)]
    """

    factors: tuple[Factor, ...]
    C: Matrix
    m: tuple[sympy.Expr, ...] = ()

    def __post_init__(self) -> None:
        if not self.m:
            object.__setattr__(self, "m", (sympy.S.Zero,) * len(self.C))

    @property
    def centred(self) -> bool:
        """Whether all means are zero."""
        return all(mean == 0 for mean in self.m)

    def without(self, *positions: int) -> "Integrand":
        """Return the integrand without the factors at these positions."""
        return Integrand(tuple(f for n, f in enumerate(self.factors) if n not in positions), self.C, self.m)

    def with_factor(self, field: int, function: sympy.Expr) -> "Integrand":
        """Return the integrand times one factor more."""
        return Integrand((*self.factors, (field, function)), self.C, self.m)

    def with_field(self, weights: dict[int, sympy.Expr], bias: sympy.Expr, function: sympy.Expr) -> "Integrand":
        """Return the integrand times a function of one field more, ``Σ_a weights[a] h_a + bias``."""
        row = tuple(sympy.Add(*(w * self.C[a][b] for a, w in weights.items())) for b in range(len(self.C)))
        corner = sympy.Add(*(w * row[a] for a, w in weights.items()))
        mean = sympy.Add(bias, *(w * self.m[a] for a, w in weights.items()))
        larger = (*((*line, entry) for line, entry in zip(self.C, row, strict=True)), (*row, corner))
        return Integrand((*self.factors, (len(self.C), function)), larger, (*self.m, mean))

    def trimmed(self) -> "Integrand":
        """Return the integrand under the marginal of the fields that still occur in it."""
        used = sorted({a for a, _ in self.factors})
        position = {a: n for n, a in enumerate(used)}
        return Integrand(
            tuple((position[a], f) for a, f in self.factors),
            tuple(tuple(self.C[a][b] for b in used) for a in used),
            tuple(self.m[a] for a in used),
        )

    def conditioned(self, field: int, value: sympy.Expr) -> "Integrand":
        """Return the integrand under the law of all fields given that ``field`` has this value.

        The field itself stays, with variance zero: its factors are functions of a number.
        """
        C, p, n = self.C, field, len(self.C)
        slope = [C[a][p] / C[p][p] if a != p else sympy.S.One for a in range(n)]
        schur = tuple(
            tuple(sympy.S.Zero if p in (a, b) else C[a][b] - C[a][p] * C[b][p] / C[p][p] for b in range(n))
            for a in range(n)
        )
        mean = tuple(value if a == p else self.m[a] + slope[a] * (value - self.m[p]) for a in range(n))
        return Integrand(self.factors, schur, mean)

    def __str__(self) -> str:
        return f"E[{' '.join(str(f.subs(X, sympy.Symbol(f'h{a + 1}'))) for a, f in self.factors)}]"
