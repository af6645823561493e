"""Special functions as source text, to be pasted into generated kernels, which must be self-contained.

Numba does not track what a cached function calls in another file; a changed helper would go unnoticed. The arc sine is
free of branches, so that LLVM vectorises loops around it.

What lies outside a domain gives NaN, but for a margin, where the value is that at the edge: 1e-5 for the arc sine, for
correlations, and for the pivots of Cholesky's factor (in ``nodes``), 1e-6 for covariances of signs. Realisable dynamics
converge to the edge of the admissible states (a student that becomes its teacher has correlation 1 with it), and steps
of integrators land slightly beyond. What lies beyond the margin is not clamped: NaN makes an integrator reject a step.
"""

from collections.abc import Iterable

from effdyn.derive.gaussian import special_sources

ASIN = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"})
def asin(x):
    """Arc sine, at most 3 ulp off; NaN outside [-1, 1], but for what integrators overstep, 1e-5.

    |x| <= 1/2: x + x³ P(x²) with P the minimax polynomial of degree 11 (relative error 1.5e-17 before rounding);
    beyond: π/2 − 2 asin(√((1 − |x|)/2)).
    """
    r = abs(x)
    small = r <= 0.5
    rest = 1.0 - r
    rest = 0.0 if -1e-5 <= rest < 0.0 else rest
    z = x * x if small else 0.5 * rest
    s = r if small else math.sqrt(z)
    z2 = z * z
    z4 = z2 * z2
    low = (0.16666666666665383 + 0.07500000000343066 * z) + (0.044642856823469565 + 0.030381959331627375 * z) * z2
    mid = (0.022371753517653192 + 0.017359771150889814 * z) + (0.013884598348928112 + 0.012173278605919581 * z) * z2
    top = (0.006510861212278415 + 0.019573874365581567 * z) + (0.03195891517165736 * z - 0.01629401073796758) * z2
    p = low + z4 * (mid + z4 * top)  # Estrin's scheme: half the latency of Horner's
    s = s + s * z * p
    return math.copysign(s if small else 1.5707963267948966 - 2.0 * s, x)
'''

ERFI = '''
@njit(error_model="numpy")
def erfi(x):
    """erf(ix)/i, to 1e-14 (40 ulp): below 7 its series, whose terms have one sign; beyond, the asymptotic one.

    exp(x²) has the relative error of x², times x²: the square is taken in two parts, the large one exact.
    """
    x2 = x * x
    if x2 > 800.0:
        return math.copysign(math.inf, x)
    if not x2 < 49.0:
        term, total, n = 1.0, 1.0, 1
        while abs(term) > 1e-17 and n < 40:
            term *= (2 * n - 1) / (2.0 * x2)
            total += term
            n += 1
        large = 134217729.0 * x  # 2²⁷ + 1
        large = large - (large - x)
        root = math.exp(0.5 * large * large)  # exp(x²) would overflow before erfi(x) does
        return total * math.exp((x - large) * (x + large)) * root / (x * 1.7724538509055159) * root
    term, total, n = x, x, 1
    while abs(term) > 1e-17 * abs(total):
        term *= x2 / n
        total += term / (2 * n + 1)
        n += 1
    return 1.1283791670955126 * total
'''

_FAST = {"angle_of": '{"contract", "nsz"}', "plackett4_integral": '{"reassoc", "contract", "nsz", "arcp"}'}
"""What LLVM may do to loops that vectorise. Nothing to the others: their arithmetic in pairs of doubles is exact."""


def _compiled(name: str, source: str) -> str:
    """Return the source of a function, to be compiled."""
    decorator = f'@njit(error_model="numpy", fastmath={_FAST.get(name, "False")})'
    return source.replace(f"\ndef {name}(", f"\n{decorator}\ndef {name}(")


SOURCES: dict[str, str] = {
    "asin": ASIN,
    "erfi": ERFI,
    **{name: _compiled(name, source) for name, source in special_sources.SOURCES.items()},
}
"""Source text of each function that kernels bring along, by the name of SymPy's function, and of what those call."""

REQUIRES: dict[str, tuple[str, ...]] = special_sources.REQUIRES
"""The functions of this table that one calls itself."""


def with_requirements(names: Iterable[str]) -> list[str]:
    """Return the functions and all that they call, those that others need first.

    Examples
    --------
    >>> with_requirements(["edge", "asin"])
    ['asin', 'cross_products', 'edge']
    """
    needed = special_sources.required(names)
    return [name for name in SOURCES if name in needed]


LIBRARY: dict[str, str] = {
    "exp": "math.exp",
    "log": "math.log",
    "erf": "math.erf",
    "erfc": "math.erfc",
    "sin": "math.sin",
    "cos": "math.cos",
    "tanh": "math.tanh",
    "acos": "math.acos",
    "atan": "math.atan",
    "Abs": "abs",
}
"""Functions that kernels take from Python's ``math``, as Numba compiles it."""
