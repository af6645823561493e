r"""Special functions of Gaussian fields: what expectations of signs and steps of more than two fields leave behind.

Arguments are covariances, not correlations: the upper triangle row by row, the signed fields (1, 2, …) first, then
those that are set to zero (p, q). They stay symbolic until ``evalf``, which computes them with mpmath to any precision,
independently of the compiled versions.

Where fields coincide, h_a ∝ h_b, the value is the limit of independent noise on every field.
"""

from typing import Any

import sympy

from . import special_values as values

TWO_BY_PI = 2 / sympy.pi


class GaussianFunction(sympy.Function):
    """A real function of covariances or correlations; numbers as arguments are not evaluated before ``evalf``."""

    is_real = True
    is_commutative = True

    @classmethod
    def eval(cls, *args: sympy.Expr) -> None:
        """Never evaluate: an expression keeps its printed form, and ``evalf`` its choice of precision."""
        return None

    @classmethod
    def _should_evalf(cls, arg: sympy.Expr) -> int:
        return -1  # nor when an argument is a Float

    def _eval_evalf(self, prec: int) -> sympy.Expr | None:
        if not all(a.is_number for a in self.args):
            return None
        value = values.evaluate(type(self).__name__, [a._to_mpmath for a in self.args], prec)
        return sympy.Float._new(value._mpf_, prec)

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        arguments = ", ".join(printer._print(a) for a in self.args)
        power = f"^{{{exp}}}" if exp else ""
        return rf"{self.latex_name}{power}\left({arguments}\right)"

    def _sympystr(self, printer: Any) -> str:
        return f"{type(self).__name__}({', '.join(printer._print(a) for a in self.args)})"


class Angle(GaussianFunction):
    """(2/π) asin of a conditional correlation N/√(A B); the determinant A B − N² factorises."""

    def parts(self) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr, sympy.Expr]:
        """Return N, A, B and A B − N², polynomials in the covariances."""
        raise NotImplementedError  # abstract: each angle has its own

    def definition(self) -> sympy.Expr:
        """Return the plain formula, which is 0/0 where fields coincide."""
        N, A, B, _ = self.parts()
        return TWO_BY_PI * sympy.asin(N / sympy.sqrt(A * B))

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the derivative: d asin(N/√(AB)) = (dN − N (dA/A + dB/B)/2)/√(AB − N²)."""
        slots = sympy.symbols(f"c:{len(self.args)}", cls=sympy.Dummy, real=True)
        N, A, B, rest = type(self)(*slots).parts()
        dN, dA, dB = (sympy.diff(part, slots[argindex - 1]) for part in (N, A, B))
        slope = TWO_BY_PI * (dN - N / 2 * (dA / A + dB / B)) / sympy.sqrt(rest)
        return slope.xreplace(dict(zip(slots, self.args, strict=True)))


class sign2_given1(Angle):
    """E[sign(h₁) sign(h₂) | h_p = 0] = (2/π) asin ρ₁₂|ₚ of centred fields.

    Arguments are C₁₁, C₁₂, C₁ₚ, C₂₂, C₂ₚ, Cₚₚ.

    Examples
    --------
    >>> sign2_given1(1, 0, 0, 1, 0, 1).evalf()
    0
    >>> f = sign2_given1(2, 1, 1, 2, 1, 2)
    >>> f.definition(), f.evalf(10)
    (2*asin(1/3)/pi, 0.2163468959)
    """

    nargs = 6
    latex_name = r"S_{12|p}"

    def parts(self) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr, sympy.Expr]:
        """Return N, A, B and A B − N² = Cₚₚ det C."""
        c11, c12, c1p, c22, c2p, cpp = self.args
        rest = cpp * minor(self.args, (0, 1, 2), (0, 1, 2))
        return c12 * cpp - c1p * c2p, c11 * cpp - c1p**2, c22 * cpp - c2p**2, rest


class sign2_given2(Angle):
    """E[sign(h₁) sign(h₂) | h_p = h_q = 0] = (2/π) asin ρ₁₂|ₚ_q of centred fields.

    Arguments are C₁₁, C₁₂, C₁ₚ, C₁_q, C₂₂, C₂ₚ, C₂_q, Cₚₚ, Cₚ_q, C_q_q.

    Examples
    --------
    >>> sign2_given2(1, 0, 0, 0, 1, 0, 0, 1, 0, 1).evalf()
    0
    >>> sign2_given2(2, 1, 1, 1, 2, 1, 1, 2, 1, 2).definition()
    2*asin(1/4)/pi
    """

    nargs = 10
    latex_name = r"S_{12|pq}"

    def parts(self) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr, sympy.Expr]:
        """Return N, A, B and A B − N² = (Cₚₚ C_q_q − Cₚ_q²) det C, by Jacobi's identity."""
        c = self.args
        rest = minor(c, (2, 3), (2, 3)) * minor(c, range(4), range(4))
        return minor(c, (0, 2, 3), (1, 2, 3)), minor(c, (0, 2, 3), (0, 2, 3)), minor(c, (1, 2, 3), (1, 2, 3)), rest


class sign4(GaussianFunction):
    """E[sign(h₁) sign(h₂) sign(h₃) sign(h₄)] of centred fields, not elementary.

    Arguments are C₁₁, C₁₂, C₁₃, C₁₄, C₂₂, C₂₃, C₂₄, C₃₃, C₃₄, C₄₄. The derivative is elementary.
    Source: Plackett, Biometrika 41, 351 (1954).

    Examples
    --------
    Equal correlations ½: P(all signs equal) is 2/5, and E = 1/5.

    >>> sign4(2, 1, 1, 1, 2, 1, 1, 2, 1, 2).evalf(12)
    0.200000000000
    """

    nargs = 10
    latex_name = r"S_{1234}"

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return dE/dC_ab = (2/π) E[s_c s_d | h_a = h_b = 0]/√(C_aa C_bb − C_ab²), a ≠ b.

        Scaling a field changes nothing, so 2 C_aa dE/dC_aa = −Σ_b C_ab dE/dC_ab.
        """
        a, b = upper_triangle(4)[argindex - 1]
        if a != b:
            return self._slope(a, b)
        terms = [self._entry(a, other) * self._slope(a, other) for other in range(4) if other != a]
        return -sympy.Add(*terms) / (2 * self._entry(a, a))

    def _entry(self, a: int, b: int) -> sympy.Expr:
        return entry(self.args, a, b)

    def _slope(self, a: int, b: int) -> sympy.Expr:
        order = [*(c for c in range(4) if c not in (a, b)), a, b]
        given = sign2_given2(*(self._entry(order[m], order[n]) for m, n in upper_triangle(4)))
        return TWO_BY_PI * given / sympy.sqrt(self._entry(a, a) * self._entry(b, b) - self._entry(a, b) ** 2)


class edge(GaussianFunction):
    """The weight of E[… | h_p = h_q = 0] in E[h_w h_z s₁ … s_n]; 0 where p and q coincide.

    (C_wp C_zq + C_wq C_zp − C_wp C_zp C_pq/C_pp − C_wq C_zq C_pq/C_qq)/√(C_pp C_qq − C_pq²), with arguments
    C_pp, C_pq, C_qq, C_wp, C_wq, C_zp, C_zq. Two factors s′ = 2δ of Stein's lemma make it.

    Examples
    --------
    >>> edge(1, 0, 1, 1, 0, 0, 1).definition(), edge(1, 1, 1, 1, 1, 1, 1).evalf()
    (1, 0)
    """

    nargs = 7
    latex_name = r"L_{pq}"

    def definition(self) -> sympy.Expr:
        """Return the plain formula, which is 0/0 where p and q coincide."""
        pp, pq, qq, wp, wq, zp, zq = self.args
        return (wp * zq + wq * zp - wp * zp * pq / pp - wq * zq * pq / qq) / sympy.sqrt(pp * qq - pq**2)

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the derivative of the plain formula."""
        slots = sympy.symbols("c:7", cls=sympy.Dummy, real=True)
        slope = sympy.diff(type(self)(*slots).definition(), slots[argindex - 1])
        return slope.xreplace(dict(zip(slots, self.args, strict=True)))


class Phi2(GaussianFunction):
    """P(u < x, v < y) of standard normal u, v with correlation ρ; arguments x, y, ρ.

    Examples
    --------
    >>> Phi2(0, 0, sympy.Rational(1, 2)).evalf(10)
    0.3333333333
    """

    nargs = 3
    latex_name = r"\Phi_2"
    is_nonnegative = True

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return φ(x) Φ((y − ρx)/√(1 − ρ²)), its mirror image, or the density."""
        x, y, rho = self.args
        if argindex == 3:
            return density2(x, y, rho)
        x, y = (x, y) if argindex == 1 else (y, x)
        return density(x) * Phi((y - rho * x) / sympy.sqrt(1 - rho**2))


class Phi3(GaussianFunction):
    """P(u < x, v < y, w < z) of standard normal u, v, w; arguments x, y, z, ρ_uv, ρ_uw, ρ_vw.

    Examples
    --------
    >>> half = sympy.Rational(1, 2)
    >>> Phi3(0, 0, 0, half, half, half).evalf(10)
    0.2500000000
    """

    nargs = 6
    latex_name = r"\Phi_3"
    is_nonnegative = True

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the derivative, by Phi2 of the other two given the argument, or Φ of the third given a pair."""
        bounds, rho = self.args[:3], self.args[3:]
        pair = {(0, 1): rho[0], (0, 2): rho[1], (1, 2): rho[2]}
        r = {**pair, **{(b, a): value for (a, b), value in pair.items()}}
        if argindex > 3:
            a, b = list(pair)[argindex - 4]
            (c,) = {0, 1, 2} - {a, b}
            return density2(bounds[a], bounds[b], r[a, b]) * self._third(bounds, r, a, b, c)
        a = argindex - 1
        b, c = (n for n in range(3) if n != a)
        below = [(bounds[n] - r[a, n] * bounds[a]) / sympy.sqrt(1 - r[a, n] ** 2) for n in (b, c)]
        given = (r[b, c] - r[a, b] * r[a, c]) / sympy.sqrt((1 - r[a, b] ** 2) * (1 - r[a, c] ** 2))
        return density(bounds[a]) * Phi2(*below, given)

    @staticmethod
    def _third(
        bounds: tuple[sympy.Expr, ...], r: dict[tuple[int, int], sympy.Expr], a: int, b: int, c: int
    ) -> sympy.Expr:
        """Return P(the third is below its bound | both others are at theirs)."""
        gap = 1 - r[a, b] ** 2
        det = gap - r[a, c] ** 2 - r[b, c] ** 2 + 2 * r[a, b] * r[a, c] * r[b, c]
        mean = bounds[a] * (r[a, c] - r[a, b] * r[b, c]) + bounds[b] * (r[b, c] - r[a, b] * r[a, c])
        return Phi((gap * bounds[c] - mean) / sympy.sqrt(gap * det))


def density(x: sympy.Expr) -> sympy.Expr:
    """Return the density of the standard normal distribution."""
    return sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi)


def density2(x: sympy.Expr, y: sympy.Expr, rho: sympy.Expr) -> sympy.Expr:
    """Return the density of two standard normal variables with correlation ρ."""
    gap = 1 - rho**2
    return sympy.exp(-(x**2 - 2 * rho * x * y + y**2) / (2 * gap)) / (2 * sympy.pi * sympy.sqrt(gap))


def Phi(x: sympy.Expr) -> sympy.Expr:
    """Return the distribution function of the standard normal distribution."""
    return (1 + sympy.erf(x / sympy.sqrt(2))) / 2


def upper_triangle(n: int) -> list[tuple[int, int]]:
    """Return the entries (row, column) in the order of the arguments, from 0."""
    return [(a, b) for a in range(n) for b in range(a, n)]


def entry(triangle: tuple[sympy.Expr, ...], a: int, b: int) -> sympy.Expr:
    """Return one covariance from the upper triangle."""
    n = {3: 2, 6: 3, 10: 4}[len(triangle)]
    return triangle[upper_triangle(n).index((min(a, b), max(a, b)))]


def minor(triangle: tuple[sympy.Expr, ...], rows: Any, columns: Any) -> sympy.Expr:
    """Return the determinant of some rows and columns of a symmetric matrix."""
    return sympy.Matrix([[entry(triangle, a, b) for b in columns] for a in rows]).det(method="berkowitz")


FUNCTIONS = (sign4, sign2_given1, sign2_given2, edge, Phi2, Phi3)
