"""Local fields that are linear combinations of others: the output of a linear student, of a linear teacher, and their
difference.

A non-linear loss of a linear student's output is then a function of one Gaussian field, whatever the number of units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from .dynamics import FieldFamily
from .increments import NOISE, overlap_of
from .numerical.quadrature import LEADING

Covariance = tuple[tuple[tuple[str, str], sympy.Lambda], ...]
OUTPUT, RESIDUAL = (sympy.IndexedBase(name, real=True) for name in ("h_phi", "r"))
TARGET = LEADING
FIRST = sympy.Symbol("i", integer=True, positive=True)
SECOND = sympy.Symbol("k", integer=True, positive=True)
BOUND = {"h": sympy.symbols("alpha beta", integer=True, positive=True)}
BOUND["h_star"] = sympy.symbols("mu nu", integer=True, positive=True)
"""Summation indices inside covariances, which no equation uses."""


@dataclass(frozen=True, slots=True)
class Combination:
    """``Σ_families scale Σ_j weight_j h_j + noise ζ``: a field that is linear in others.

    Attributes
    ----------
    base : IndexedBase
        What it prints under; its only index is 1.
    parts : tuple of (IndexedBase, Symbol, IndexedBase, Expr)
        The family, its size, the weights and a common factor.
    noise : Expr
        The coefficient of the label noise.
    latex : str
    """

    base: sympy.IndexedBase
    parts: tuple[tuple[sympy.IndexedBase, sympy.Symbol, sympy.IndexedBase, sympy.Expr], ...]
    noise: sympy.Expr
    latex: str

    @property
    def field(self) -> sympy.Indexed:
        """The field itself."""
        return self.base[1]

    @property
    def written_out(self) -> sympy.Expr:
        """The combination itself."""
        total = self.noise * NOISE
        for base, size, weight, scale in self.parts:
            index = BOUND[str(base)][0]
            total += scale * sympy.Sum(weight[index] * base[index], (index, 1, size))
        return total

    @property
    def family(self) -> FieldFamily:
        """A family of this field alone."""
        return FieldFamily(self.base, sympy.S.One, self.latex, derived=True)


def covariance_of(
    combinations: tuple[Combination, ...],
    families: tuple[FieldFamily, ...],
    plain: Mapping[tuple[str, str], sympy.Lambda],
) -> Covariance:
    """Return the covariances of combinations with all fields and with each other, in order parameters."""
    blocks: list[tuple[tuple[str, str], sympy.Lambda]] = []
    for n, one in enumerate(combinations):
        for family in families:
            row = _with_field(one, family.base[FIRST], plain, 0)
            blocks.append(((str(family.base), str(one.base)), sympy.Lambda((FIRST, SECOND), row)))
        for other in combinations[n:]:
            total = one.noise * other.noise
            for base, size, weight, scale in other.parts:
                index = BOUND[str(base)][1]
                total += scale * sympy.Sum(weight[index] * _with_field(one, base[index], plain, 0), (index, 1, size))
            blocks.append(((str(one.base), str(other.base)), sympy.Lambda((FIRST, SECOND), _expand_sums(total))))
    return tuple(blocks)


def covariance_with(combinations: tuple[Combination, ...], field: sympy.IndexedBase, plain: Covariance) -> Covariance:
    """Return the covariances of combinations with one more field, given those of the fields that they combine."""
    laws = dict(plain)
    return tuple(
        ((str(field), str(one.base)), sympy.Lambda((FIRST, SECOND), _with_field(one, field[FIRST], laws, 0)))
        for one in combinations
    )


def mean_of(combination: Combination, means: Mapping[str, sympy.Lambda]) -> tuple[tuple[str, sympy.Lambda], ...]:
    """Return the mean of a combination, if any of its fields has one."""
    total = sympy.S.Zero
    for base, size, weight, scale in combination.parts:
        if str(base) in means:
            index = BOUND[str(base)][0]
            total += scale * sympy.Sum(weight[index] * means[str(base)](index), (index, 1, size))
    return ((str(combination.base), sympy.Lambda((FIRST,), total)),) if total != 0 else ()


def _with_field(
    combination: Combination, field: sympy.Indexed, plain: Mapping[tuple[str, str], sympy.Lambda], which: int
) -> sympy.Expr:
    """Return the covariance of a combination with a plain field."""
    total = sympy.S.Zero
    for base, size, weight, scale in combination.parts:
        index = BOUND[str(base)][which]
        total += scale * sympy.Sum(weight[index] * overlap_of(base[index], field, plain), (index, 1, size))
    return total


def _expand_sums(expr: sympy.Expr) -> sympy.Expr:
    """Return nested sums as double sums, one a product of weights and overlap."""

    def flatten(summand: sympy.Expr, *limits: sympy.Tuple) -> sympy.Expr:
        total = sympy.S.Zero
        for term in sympy.Add.make_args(sympy.expand(summand)):
            inner = [f for f in sympy.Mul.make_args(term) if isinstance(f, sympy.Sum)]
            if inner:
                rest = sympy.Mul(*(f for f in sympy.Mul.make_args(term) if f is not inner[0]))
                total += sympy.Sum(rest * inner[0].function, *inner[0].limits, *limits)
            else:
                total += sympy.Sum(term, *limits)
        return total

    parts = []
    for term in sympy.Add.make_args(sympy.expand(expr)):
        sums = [f for f in sympy.Mul.make_args(term) if isinstance(f, sympy.Sum)]
        rest = sympy.Mul(*(f for f in sympy.Mul.make_args(term) if f not in sums))
        parts.append(rest * flatten(sums[0].function, *sums[0].limits) if sums else term)
    return sympy.Add(*(sympy.expand(p, deep=False) for p in parts))
