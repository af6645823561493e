"""Elementary functions as source text, free of branches and calls, so that LLVM vectorises loops over many nodes.

Each keeps within 4 ulp of the exact value and passes NaN on. They replace Python's ``math`` only in loops over the
nodes of a numerical rule, where the same function is evaluated thousands of times in a row.
"""

EXPM1 = '''
import numpy as np


@njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
def reduced_expm1(x):
    """n and exp(r) − 1, where x = n log 2 + r and |r| ≤ log(2)/2; n as a number that ends in the bits of n.

    The series to r¹³ leaves 4e-18 of r. log 2 is split, so that n log 2 is subtracted exactly.
    """
    shifted = x * 1.4426950408889634 + 6755399441055744.0  # 1.5·2⁵²: the sum is rounded to an integer
    n = shifted - 6755399441055744.0
    r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10
    r2 = r * r
    r4 = r2 * r2
    a = 0.5 + r * 0.16666666666666666 + r2 * (0.041666666666666664 + r * 0.008333333333333333)
    b = 0.001388888888888889 + r * 0.0001984126984126984 + r2 * (2.48015873015873e-05 + r * 2.7557319223985893e-06)
    c = 2.755731922398589e-07 + r * 2.505210838544172e-08 + r2 * (2.08767569878681e-09 + r * 1.6059043836821613e-10)
    return shifted, r + r2 * (a + r4 * (b + r4 * c))


@njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
def power_of_two(shifted):
    """2ⁿ for −1022 ≤ n ≤ 1023, from n as :func:`reduced_expm1` returns it: n put in the exponent's bits."""
    bits = np.float64(shifted).view(np.int64)
    return np.int64((bits + 1023) << 52).view(np.float64)
'''

TANH = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
def node_tanh(x):
    """Hyperbolic tangent, at most 3 ulp off: −e/(2 + e) with e = exp(−2|x|) − 1, 1 from 20 on."""
    a = abs(x)
    a = 20.0 if a > 20.0 else a
    shifted, p = reduced_expm1(-2.0 * a)
    scale = power_of_two(shifted)
    e = scale * p + (scale - 1.0)
    return math.copysign(e / (2.0 + e), x)
'''

EXP = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
def node_exp(x):
    """Exponential, at most 2 ulp off, and of the subnormal numbers half the last digit more.

    2ⁿ itself overflows at n = 1024 and vanishes below −1022: it is formed in two factors.
    """
    y = 710.0 if x > 710.0 else x  # infinity from 709.79 on
    y = -746.0 if y < -746.0 else y  # 0 from −745.2 on
    shifted, p = reduced_expm1(y)
    small = y < -707.0
    first = power_of_two(shifted + (100.0 if small else -1.0))
    return (first + first * p) * (7.888609052210118e-31 if small else 2.0)  # 2⁻¹⁰⁰
'''

ERF = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
def node_erf(x):
    """Error function, at most 3 ulp off.

    |x| ≤ 1: x P(x²); beyond: 1 − exp(−x²) R(u), u = 14.4 (1/(|x| + 3) − 0.18055555555555555) in [−1, 1] up to |x| = 6,
    from where on it is 1. P and R interpolate at Chebyshev nodes, to 1e-17.
    """
    a = abs(x)
    a = 6.0 if a > 6.0 else a
    z = x * x
    z = 1.0 if z > 1.0 else z
    z2 = z * z
    z4 = z2 * z2
    p0 = (1.1283791670955126 - z*0.3761263890318375) + z2*(0.11283791670954882 - z*0.026866170645077334)
    p1 = (0.005223977624823223 - z*0.0008548326981129666) + z2*(0.00012055331122299266 - z*1.4925595519506043e-05)
    p2 = (1.6461004480962034e-06 - z*1.6350354461959655e-07) + z2*(1.4660051998394848e-08 - z*1.1373902296430911e-09)
    p3 = 5.958930743134941e-11
    p = p0 + z4*(p1 + z4*(p2 + z4*(p3)))
    u = (1.0 / (a + 3.0) - 0.18055555555555555) * 14.4
    u2 = u * u
    u4 = u2 * u2
    q0 = (0.20798329133342885 + u*0.15436117429436919) + u2*(0.04969844540339414 + u*0.012713147695692147)
    q1 = (0.0024793146970862002 + u*0.00033160296057680485) + u2*(1.9563583198099526e-05 - u*2.4255574732470057e-06)
    q2 = (-5.54127310709044e-07 + u*4.526702996597009e-09) + u2*(1.1339337061280557e-08 + u*2.638133067637362e-10)
    q3 = (-2.5700504246482923e-10 - u*6.046858018203033e-12) + u2*6.044068318449643e-12
    q = q0 + u4*(q1 + u4*(q2 + u4*(q3)))
    shifted, e = reduced_expm1(-a * a)
    e = power_of_two(shifted) * (1.0 + e)
    near = 1.0 if a <= 1.0 else 0.0  # a choice between long expressions would become a branch: this does not
    return math.copysign(near * (a * p) + (1.0 - near) * (1.0 - e * q), x)
'''

LOG = '''
@njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
def node_log(x):
    """Natural logarithm, at most 2 ulp off; −∞ at 0, NaN below.

    x = 2ᵏ(1 + f) with 1 + f from √½ to √2, and log(1 + f) = f − f²/2 + s(f²/2 + R(s²)), s = f/(2 + f), with the minimax
    polynomial R of FreeBSD's msun (e_log.c), which is 1e-17 off. log 2 is split, so that its large part times k is
    exact.
    """
    tiny = x < 2.2250738585072014e-308
    y = x * 18014398509481984.0 if tiny else x  # 2⁵⁴: subnormal numbers have fewer digits
    bits = np.float64(y).view(np.int64) + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    k = np.float64((bits >> 52) - 1023) - (54.0 if tiny else 0.0)
    f = np.int64((bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    t1 = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332))
    t2 = 0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591)
    r = t1 + z * (0.6666666666666735130 + w * t2)
    half = 0.5 * f * f
    value = k * 6.93147180369123816490e-01 - ((half - (s * (half + r) + k * 1.90821492927058770002e-10)) - f)
    value = value if x < math.inf else x  # infinity, and NaN
    value = -math.inf if x == 0.0 else value
    return math.nan if x < 0.0 else value
'''

NODE_FUNCTIONS: dict[str, str] = {"tanh": "node_tanh", "exp": "node_exp", "erf": "node_erf", "log": "node_log"}
"""What stands for a function in loops over nodes, by the name of SymPy's."""

NODE_SOURCES: dict[str, str] = {
    "reduced_expm1": EXPM1,
    "node_tanh": TANH,
    "node_exp": EXP,
    "node_erf": ERF,
    "node_log": LOG,
}
"""Their source texts, by name."""

NODE_REQUIREMENTS: dict[str, tuple[str, ...]] = dict.fromkeys(NODE_FUNCTIONS.values(), ("reduced_expm1",))
"""What must stand before a source text."""
