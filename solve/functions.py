"""Special functions as source text, to be pasted into generated kernels, which must be self-contained.

Numba does not track what a cached function calls in another file; a changed helper would go unnoticed. Each is free of
branches, so that LLVM vectorises loops around it, and returns NaN outside its domain rather than a clamped value.
"""

ASIN = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"})
def asin(x):
    """Arc sine, at most 3 ulp off; NaN outside [-1, 1].

    |x| <= 1/2: x + x³ P(x²) with P the minimax polynomial of degree 11 (relative error 1.5e-17 before rounding);
    beyond: π/2 − 2 asin(√((1 − |x|)/2)).
    """
    r = abs(x)
    small = r <= 0.5
    z = x * x if small else 0.5 * (1.0 - r)
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

SOURCES: dict[str, str] = {"asin": ASIN}
"""Source text of each function that kernels bring along, by the name of SymPy's function."""

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
