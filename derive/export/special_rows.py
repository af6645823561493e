r"""What the short symbols of special functions mean, once for all fields a, b, c, d."""

import re

import sympy

from ..gaussian.special import sign2_given2, sign4
from .line_breaking import Row
from .readable import ReadableForm
from .special_symbols import uses_distribution

LIMIT_NOTE = "Where fields coincide, Δ_ab = 0, the limit of independent noise on every field is meant."
"""What is said of formulas that are 0/0 there, in plain text."""
_RANKS = (r"Δ|\\Delta", r"Λ|\\Lambda", r"S'*_\{?ab\}?$", r"C'*_\{?ab\|p\}?$", r"S'*_\{?ab\|p\}?$", r"C'*_\{?ab\|pq",
          r"S'*_\{?ab\|pq", r"S'*_\{?abcd", r"Φ_2|\\Phi_\{2", r"Φ_3|\\Phi_\{3")  # fmt: skip


_NEEDS = {"S40": ("S20", "C1", "C2", "S22"), "S22": ("C1", "C2"), "S21": ("C1",), "Lambda": ("Delta",)}
"""What the definition of a symbol uses."""


def rank(left: str) -> int:
    """Return the place of a definition among those of special functions, by its left-hand side; 0 for others."""
    return next((n for n, pattern in enumerate(_RANKS, 1) if re.match(pattern, left)), 0)


def special_rows(short: ReadableForm) -> list[Row]:
    """Return the definitions of the special functions in a form, as LaTeX."""
    return [_latex(*key) for key in _kinds(short)]


def plain_special_rows(short: ReadableForm) -> list[Row]:
    """Return the definitions of the special functions in a form, as text."""
    rows = [_plain(*key) for key in _kinds(short)]
    return [(lines[0].partition(" =")[0], lines) for lines in rows]


def _kinds(short: ReadableForm) -> list[tuple[str, str]]:
    """Return the kinds of symbols in a form, (kind, primes), what others are defined by first."""
    kinds: dict[tuple[str, str], None] = {}
    for symbol, _ in short.specials:
        head, _, numbers = symbol.name.partition("_")
        primes = "'" * head.count("'")
        signed, _, given = numbers.partition("|")
        kind = head.rstrip("'") if head[0] != "S" else f"S{len(signed)}{len(given)}"
        for name in (*_NEEDS.get(kind, ()), kind):
            kinds[name, primes] = None
    order = ("Delta", "Lambda", "S20", "C1", "S21", "C2", "S22", "S40")
    found = sorted(kinds, key=lambda key: (order.index(key[0]), key[1]))
    expressions = sympy.Tuple(short.form, *(expr for _, expr in short.names))
    written = [(f.__name__, "") for f in (sign2_given2, sign4) if expressions.has(f)]
    return [*found, *written, *((f"Phi{n}", "") for n in uses_distribution(expressions))]


def _latex(kind: str, primes: str) -> Row:
    C, S, D = f"C{primes}", f"S{primes}", rf"\Delta{primes}"
    sign = r"\operatorname{sign}"

    def arcsine(given: str = "") -> str:
        root = rf"\sqrt{{{C}_{{aa{given}}} {C}_{{bb{given}}}}}"
        return rf"\frac{{2}}{{\pi}} \arcsin\frac{{{C}_{{ab{given}}}}}{{{root}}}"

    def mean(fields: str, given: str = "") -> str:
        signs = r"\,".join(f"{sign} h_{{{a}}}" for a in fields)
        return rf"\langle {signs}{given}\rangle"

    squared = f"{C}_{{ab}}^{{2}}" if not primes else f"({C}_{{ab}})^{{2}}"
    between = f"{C}_{{pq}}^{{2}}" if not primes else f"({C}_{{pq}})^{{2}}"
    root = rf"\sqrt{{{C}_{{pp}} {C}_{{qq}} - t^{{2}} {between}}}"
    integral = (
        rf"\int_{{0}}^{{1}} \mathrm{{d}}t \sum_{{p,q}} "
        rf"\frac{{{C}_{{pq}}\,{S}_{{\bar{{p}}\bar{{q}}|pq}}(t)}}{{{root}}}"
    )
    weight = (
        rf"\frac{{1}}{{{D}_{{pq}}}} \Bigl[ {C}_{{ap}} {C}_{{bq}} + {C}_{{aq}} {C}_{{bp}} - {C}_{{pq}} \Bigl("
        rf"\frac{{{C}_{{ap}} {C}_{{bp}}}}{{{C}_{{pp}}}} + \frac{{{C}_{{aq}} {C}_{{bq}}}}{{{C}_{{qq}}}}\Bigr) \Bigr]"
    )
    rows: dict[str, Row] = {
        "Delta": (f"{D}_{{ab}}", [rf"\sqrt{{{C}_{{aa}} {C}_{{bb}} - {squared}}}"]),
        "Lambda": (rf"\Lambda{primes}_{{ab|pq}}", [weight]),
        "S20": (f"{S}_{{ab}}", [f"{mean('ab')} = {arcsine()}"]),
        "C1": (f"{C}_{{ab|p}}", [rf"{C}_{{ab}} - \frac{{{C}_{{ap}} {C}_{{bp}}}}{{{C}_{{pp}}}}"]),
        "S21": (f"{S}_{{ab|p}}", [f"{mean('ab', _AT_ONE)} = {arcsine('|p')}"]),
        "C2": (f"{C}_{{ab|pq}}", [rf"{C}_{{ab|p}} - \frac{{{C}_{{aq|p}} {C}_{{bq|p}}}}{{{C}_{{qq|p}}}}"]),
        "S22": (f"{S}_{{ab|pq}}", [f"{mean('ab', _AT_TWO)} = {arcsine('|pq')}"]),
        "S40": (
            f"{S}_{{abcd}}",
            [mean("abcd"), rf"= {S}_{{ab}} {S}_{{cd}} + \frac{{2}}{{\pi}} {integral}", *_PATH],
        ),
        "sign2_given2": (
            r"S_{12|pq}(C_{11}, C_{12}, \dots, C_{qq})",
            [r"S_{12|pq} \text{ of fields with these covariances}"],
        ),
        "sign4": (
            r"S_{1234}(C_{11}, C_{12}, \dots, C_{44})",
            [
                r"\langle s_{1} s_{2} s_{3} s_{4}\rangle,\ s_{a} = \operatorname{sign} h_{a}"
                r"\text{, of fields with these covariances}"
            ],
        ),
        "Phi2": (r"\Phi_{2}(x, y; \rho)", [r"P(u < x,\ v < y), \quad \langle uv\rangle = \rho"]),
        "Phi3": (
            r"\Phi_{3}(x, y, z; r, s, t)",
            [r"P(u < x,\ v < y,\ w < z), \quad \langle uv\rangle = r,\ \langle uw\rangle = s,\ \langle vw\rangle = t"],
        ),
    }
    return rows[kind]


_AT_ONE, _AT_TWO = r"\,|\,h_{p} = 0", r"\,|\,h_{p} = h_{q} = 0"
_PATH = (
    r"\quad \text{where } \{p, \bar{p}\} = \{a, b\},\ \{q, \bar{q}\} = \{c, d\} \text{; in } S(t)",
    r"\quad \text{covariances between these pairs are multiplied by } t",
)


def _plain(kind: str, primes: str) -> list[str]:
    C, S, D = f"C{primes}", f"S{primes}", f"Δ{primes}"
    angle = f"2/pi arcsin({C}_ab%s/sqrt({C}_aa%s {C}_bb%s))"
    return {
        "Delta": [f"{D}_ab = sqrt({C}_aa {C}_bb - {C}_ab^2)"],
        "Lambda": [
            f"Λ{primes}_ab|pq = "
            f"({C}_ap {C}_bq + {C}_aq {C}_bp - {C}_pq ({C}_ap {C}_bp/{C}_pp + {C}_aq {C}_bq/{C}_qq))/{D}_pq"
        ],
        "S20": [f"{S}_ab = E[sign(h_a) sign(h_b)] = {angle % ('', '', '')}"],
        "C1": [f"{C}_ab|p = {C}_ab - {C}_ap {C}_bp/{C}_pp"],
        "S21": [f"{S}_ab|p = E[sign(h_a) sign(h_b) | h_p = 0] = {angle % (('|p',) * 3)}"],
        "C2": [f"{C}_ab|pq = {C}_ab|p - {C}_aq|p {C}_bq|p/{C}_qq|p"],
        "S22": [f"{S}_ab|pq = E[sign(h_a) sign(h_b) | h_p = h_q = 0] = {angle % (('|pq',) * 3)}"],
        "S40": [
            f"{S}_abcd = E[sign(h_a) sign(h_b) sign(h_c) sign(h_d)]",
            f"    = {S}_ab {S}_cd + 2/pi ∫_0^1 dt "
            f"Σ_{{p=a,b}} Σ_{{q=c,d}} {C}_pq {S}_p̄q̄|pq(t)/sqrt({C}_pp {C}_qq - t^2 {C}_pq^2),",
            f"    p̄, q̄ the other two; in {S}(t) the covariances of a, b with c, d are multiplied by t",
        ],
        "sign2_given2": [
            "sign2_given2(C_11, C_12, C_1p, …, C_qq) = E[sign(h_1) sign(h_2) | h_p = h_q = 0] of fields with these"
            " covariances"
        ],
        "sign4": [
            "sign4(C_11, C_12, …, C_44) = E[sign(h_1) sign(h_2) sign(h_3) sign(h_4)] of fields with these covariances"
        ],
        "Phi2": ["Φ_2(x, y; ρ) = P(u < x, v < y) of standard normal u, v with E[u v] = ρ"],
        "Phi3": ["Φ_3(x, y, z; r, s, t) = P(u < x, v < y, w < z), with E[u v] = r, E[u w] = s, E[v w] = t"],
    }[kind]
