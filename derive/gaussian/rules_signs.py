"""Expectation rule for polynomials times signs, and beside them at most one wave: everything with kinks ends here.

Stein's lemma removes powers; where it meets a sign, sign′ = 2δ holds that field at its threshold. A power of a field
kills the δ of its own sign, and the power that meets fewest δ goes first. For two powers of centred fields there is an
identity without any conditional variance in a denominator, so arc-cosine kernels and relu's four-point function
E[Θ Θ relu relu] are exact where fields coincide, and so is every form with at most two conditions, in which ``edge``
and ``sign2_given…`` take care of 0/0. Not regular at coincident fields are: forms with three or more conditions (four
kinked fields and powers that do not sit on them), densities δδ, which diverge there, and of fields with means or
thresholds the pairs of signs under a condition.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import sympy

from ..activation import X
from .integrand import Integrand
from .law import Law
from .orthants import sign_product, too_many
from .rules_waves import is_wave
from .special import edge


@dataclass(frozen=True, slots=True)
class Signed:
    """E[Π h_a^powers[a] Π_{b ∈ signs} sign(h_b) wave] under a law."""

    law: Law
    powers: tuple[int, ...]
    signs: tuple[int, ...]
    wave: tuple[int, type[sympy.Function]] | None = None

    def lowered(self, a: int) -> "Signed":
        """Return it with one power of a field less."""
        return replace(self, powers=(*self.powers[:a], self.powers[a] - 1, *self.powers[a + 1 :]))

    def at_zero(self, p: int) -> "Signed":
        """Return it without the sign of a field, which is held at zero."""
        return replace(self, law=self.law.at_zero(p), signs=tuple(b for b in self.signs if b != p))

    @property
    def centred(self) -> bool:
        """Whether all fields that occur have mean zero."""
        return all(self.law.mean(a) == 0 for a in {*self.signs, *(a for a, p in enumerate(self.powers) if p)})


def signed_polynomials(integrand: Integrand) -> sympy.Expr | None:
    """Monomials times signs: thresholds become means, conditions of δ are imposed, then :func:`signed`."""
    powers, signs, deltas = [0] * len(integrand.C), list[int](), list[int]()
    wave: tuple[int, type[sympy.Function]] | None = None
    thresholds: dict[int, sympy.Expr] = {}
    for a, f in integrand.factors:
        base, power = f.as_base_exp()
        if isinstance(f, (sympy.sign, sympy.DiracDelta)) and len(f.args) == 1 and not (f.args[0] - X).has(X):
            (signs if isinstance(f, sympy.sign) else deltas).append(a)
            thresholds[a] = X - f.args[0]
        elif base == X and power.is_Integer and power > 0:
            powers[a] += int(power)
        elif is_wave(f) and f.args[0] == X and wave is None:
            wave = (a, f.func)
        else:
            return None
    if len(set(signs + deltas)) < len(signs + deltas) or (wave and any(b == wave[0] for b in signs + deltas)):
        return None
    law = Law(integrand.C, tuple(m - thresholds.get(a, 0) for a, m in enumerate(integrand.m)))
    shifts = {a: t for a, t in thresholds.items() if t != 0}
    weight = sympy.S.One
    for a in deltas:
        weight *= law.flux(a, a) / law.cov(a, a) / 2
        law = law.at_zero(a)
    return weight * _shifted(Signed(law, tuple(powers), tuple(sorted(signs)), wave), shifts)


def _shifted(term: Signed, shifts: dict[int, sympy.Expr]) -> sympy.Expr:
    """Return the expectation with h_a + shifts[a] for each power of h_a."""
    for a, shift in shifts.items():
        if p := term.powers[a]:
            rest = {b: s for b, s in shifts.items() if b != a}
            return sympy.Add(
                *(
                    sympy.binomial(p, k)
                    * shift ** (p - k)
                    * _shifted(replace(term, powers=(*term.powers[:a], k, *term.powers[a + 1 :])), rest)
                    for k in range(p + 1)
                )
            )
    return signed(term)


@lru_cache(maxsize=16384)
def signed(term: Signed) -> sympy.Expr:
    """Return the expectation of a monomial times signs and a wave, by the first that applies of: parity, the base
    case, the identities of first and second degree, centring, Stein's lemma."""
    degree = sum(term.powers)
    if term.wave is None and term.centred:
        if (degree + len(term.signs)) % 2:
            return sympy.S.Zero
        if term.signs and degree in (1, 2):
            return _first_degree(term) if degree == 1 else _second_degree(term)
    if degree == 0:
        return sign_product(term.law, term.signs) if term.wave is None else _wave(term)
    about_means = _about_means(term)
    return _stein(term) if about_means is None else about_means


def _first_degree(term: Signed) -> sympy.Expr:
    """E[h_w s₁ … s_n] = Σ_p C_wp √(2/(π C_pp)) E[the other signs | h_p = 0]."""
    (w,) = _monomial(term)
    bare = term.lowered(w)
    return sympy.Add(*(term.law.flux(w, p) * signed(bare.at_zero(p)) for p in term.signs))


def _second_degree(term: Signed) -> sympy.Expr:
    """E[h_w h_z s₁ … s_n] = C_wz E[s₁ … s_n] + (2/π) Σ_{p<q} edge_pq(w, z) E[the other signs | h_p = h_q = 0].

    Stein's lemma twice, with E[δ′(h_p) G] = −Σ_q (C_pq/C_pp) E[δ(h_p) ∂_q G].
    """
    w, z = _monomial(term)
    bare, cov = term.lowered(w).lowered(z), term.law.cov
    total = cov(w, z) * signed(bare)
    for p, q in combinations(term.signs, 2):
        weight = edge(cov(p, p), cov(p, q), cov(q, q), cov(w, p), cov(w, q), cov(z, p), cov(z, q))
        total += 2 / sympy.pi * weight * signed(bare.at_zero(p).at_zero(q))
    return total


def _monomial(term: Signed) -> list[int]:
    return [a for a, p in enumerate(term.powers) for _ in range(p)]


def _about_means(term: Signed) -> sympy.Expr | None:
    """Where only powers have means, they are written as mean and rest, and the identities above apply."""
    if term.wave or not term.signs or any(term.law.mean(b) != 0 for b in term.signs):
        return None
    shifts = {a: term.law.mean(a) for a, p in enumerate(term.powers) if p and term.law.mean(a) != 0}
    if not shifts or term.law.given:
        return None
    law = replace(term.law, m=tuple(sympy.S.Zero if a in shifts else m for a, m in enumerate(term.law.m)))
    return _shifted(replace(term, law=law), shifts)


def _stein(term: Signed) -> sympy.Expr:
    """E[h_a G] = m_a E[G] + Σ_b C_ab E[∂_b G], with sign′ = 2δ; the h_a that meets fewest δ."""
    a = min((a for a, p in enumerate(term.powers) if p), key=lambda a: (len(_met(term.lowered(a))), a))
    rest = term.lowered(a)
    total = term.law.mean(a) * signed(rest) if term.law.mean(a) != 0 else sympy.S.Zero
    for b, p in enumerate(rest.powers):
        if p:
            total += p * term.law.cov(a, b) * signed(rest.lowered(b))
    for b in _met(rest):
        total += term.law.flux(a, b) * signed(rest.at_zero(b))
    if rest.wave:
        field, kind = rest.wave
        slope, turned = (-1, sympy.sin) if kind is sympy.cos else (1, sympy.cos)
        total += slope * term.law.cov(a, field) * signed(replace(rest, wave=(field, turned)))
    return total


def _met(term: Signed) -> list[int]:
    """Return the signs whose δ no power kills."""
    return [b for b in term.signs if not term.powers[b]]


def _wave(term: Signed) -> sympy.Expr:
    """E[cos h] = e^(−C/2) cos m, and E[sin(h) sign(u)] = e^(−C_hh/2) erfi(C_hu/√(2 C_uu)) of centred fields."""
    assert term.wave
    field, kind = term.wave
    law = term.law
    envelope, phase = sympy.exp(-law.cov(field, field) / 2), law.mean(field)
    if not term.signs:
        return envelope * kind(phase)
    if len(term.signs) > 1 or law.mean(term.signs[0]) != 0:
        raise too_many(term.signs, f"{kind.__name__} beside more than one sign, or one off the centre, is not known")
    turned = sympy.cos(phase) if kind is sympy.sin else -sympy.sin(phase)
    return envelope * turned * sympy.erfi(law.ratio(field, term.signs[0]) / sympy.sqrt(2))
