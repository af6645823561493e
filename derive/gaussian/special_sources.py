"""The special functions of Gaussian fields in floating point, as Python source that needs ``math`` and NumPy alone.

Text, because who uses it pastes it: into compiled kernels and into exported modules, which must be self-contained.

What is hard is fields that nearly coincide. Determinants of covariances then cancel to nothing, so they are computed
in twice the working precision (a pair of doubles, the second what rounding took from the first). Their arithmetic must
not be reassociated or contracted by a compiler.

Matrices that rounding has made indefinite get the least ridge on their diagonal that mends them (4e-16, 2e-15, …): all
functions of one matrix then mean the same one, so that sums over pairs of fields keep their cancellations. Those that
no ridge up to 1e-6 mends give NaN.
"""

from collections.abc import Iterable, Mapping

CROSS_PRODUCTS = '''
def cross_products(a, b, c, d):
    """Return a b − c d as a pair of doubles (Dekker's products, Knuth's sum): exactly 0 where it vanishes."""
    p, q = a * b, c * d
    s = 134217729.0 * a
    a1 = s - (s - a)
    s = 134217729.0 * b
    b1 = s - (s - b)
    s = 134217729.0 * c
    c1 = s - (s - c)
    s = 134217729.0 * d
    d1 = s - (s - d)
    a2, b2, c2, d2 = a - a1, b - b1, c - c1, d - d1
    low = (((a1 * b1 - p) + a1 * b2) + a2 * b1) + a2 * b2
    low_q = (((c1 * d1 - q) + c1 * d2) + c2 * d1) + c2 * d2
    total = p - q
    part = total - p
    rest = (p - (total - part)) - (q + part)
    low_total = low - low_q
    part = low_total - low
    low_rest = (low - (low_total - part)) - (low_q + part)
    rest += low_total
    high = total + rest
    rest = (rest - (high - total)) + low_rest
    total = high + rest
    return total, rest - (total - high)
'''

CROSS_PAIRS = '''
def cross_pairs(a, a2, b, b2, c, c2, d, d2):
    """Return a b − c d of pairs of doubles."""
    high, low = cross_products(a, b, c, d)
    rest = low + ((a * b2 + a2 * b) - (c * d2 + c2 * d))
    total = high + rest
    return total, rest - (total - high)
'''

ANGLE_OF = '''
def angle_of(x, y):
    """Return the angle of the point (x ≥ 0, y) from −π/2 to π/2, without branches; 0 at the origin.

    It is turned by a multiple of π/4 to less than π/8, where a minimax polynomial of degree 21 is good to 1e-16.
    """
    r = abs(y)
    steep = r > 2.414213562373095 * x
    flat = r <= 0.41421356237309503 * x
    above = -x if steep else (r if flat else r - x)
    below = r if steep else (x if flat else r + x)
    z = above / (below + 1e-300)
    z2 = z * z
    z4 = z2 * z2
    z8 = z4 * z4
    low = (-0.3333333333333325 + 0.19999999999898407 * z2) + (-0.1428571426609662 + 0.11111109636534361 * z2) * z4
    mid = (-0.09090852557176049 + 0.0769105515839315 * z2) + (-0.06649613695291669 + 0.05736332165907643 * z2) * z4
    top = -0.04483334622272886 + 0.02275052699336167 * z2
    angle = z + z * z2 * (low + z8 * (mid + z8 * top))
    angle += 1.5707963267948966 if steep else (0.0 if flat else 0.7853981633974483)
    return angle if y >= 0.0 else -angle
'''

COINCIDE = '''
def coincide(caa, cab, cbb, cax, cbx, cay, cby):
    """Return whether fields a and b are multiples of each other, exactly, beside two other fields x and y."""
    if cross_products(caa, cbb, cab, cab)[0] != 0.0:
        return False
    return cross_products(caa, cbx, cab, cax)[0] == 0.0 and cross_products(caa, cby, cab, cay)[0] == 0.0
'''

SIGN2 = '''
def sign2(c, c11, c12, c22):
    """Return sign(c) E[s₁ s₂]."""
    angle = angle_of(math.sqrt(max(cross_products(c11, c22, c12, c12)[0], 0.0)), c12)
    return 0.6366197723675814 * (math.copysign(angle, c * c12) if c != 0.0 else 0.0)
'''

SIGN4 = '''
def sign4(c11, c12, c13, c14, c22, c23, c24, c33, c34, c44):
    """Return E[s₁ s₂ s₃ s₄], absolute error below 1e-12.

    Where two fields coincide, their signs cancel, and those of the others remain.
    """
    if coincide(c11, c12, c22, c13, c23, c14, c24):
        return sign2(c12, c33, c34, c44)
    if coincide(c11, c13, c33, c12, c23, c14, c34):
        return sign2(c13, c22, c24, c44)
    if coincide(c11, c14, c44, c12, c24, c13, c34):
        return sign2(c14, c22, c23, c33)
    if coincide(c22, c23, c33, c12, c13, c24, c34):
        return sign2(c23, c11, c14, c44)
    if coincide(c22, c24, c44, c12, c14, c23, c34):
        return sign2(c24, c11, c13, c33)
    if coincide(c33, c34, c44, c13, c14, c23, c24):
        return sign2(c34, c11, c12, c22)
    d12, _ = cross_products(c11, c22, c12, c12)
    d13, _ = cross_products(c11, c33, c13, c13)
    d14, _ = cross_products(c11, c44, c14, c14)
    # the second field becomes the one least correlated with the first: it is eliminated next
    if d13 * c22 > d12 * c33 and d13 * c44 >= d14 * c33:
        c12, c13, c22, c33, c24, c34 = c13, c12, c33, c22, c34, c24
    elif d14 * c22 > d12 * c44:
        c12, c14, c22, c44, c23, c34 = c14, c12, c44, c22, c34, c23
    ridge = 4.440892098500626e-16
    value = plackett4(c11, c12, c13, c14, c22, c23, c24, c33, c34, c44)
    while value > 1.5 and ridge < 1e-6:
        r = 1.0 + ridge
        value = plackett4(r * c11, c12, c13, c14, r * c22, c23, c24, r * c33, c34, r * c44)
        ridge *= 4.0
    return math.nan if value > 1.5 else value
'''

PLACKETT4 = '''
def plackett4(c11, c12, c13, c14, c22, c23, c24, c33, c34, c44):
    """Return E[s₁ s₂ s₃ s₄] of fields none of which coincide, or 2 if the covariance is indefinite.

    The correlations of the first field are switched on, C₁ⱼ → t C₁ⱼ, by Plackett's derivative: a sum of conditional
    angles of the two fields other than 1 and j. In u = 1 − t², tan of the angle is (aⱼ + u bⱼ)/√(cⱼ + u ρⱼ²)(d + u e).
    All that is nearly singular has t ≥ 1, and t = tanh x brings it to Im x = π/2: the rule's error is exp(−π²/step).
    """
    d12, e12 = cross_products(c11, c22, c12, c12)
    d13, e13 = cross_products(c11, c33, c13, c13)
    d14, e14 = cross_products(c11, c44, c14, c14)
    d23, e23 = cross_products(c22, c33, c23, c23)
    d24, e24 = cross_products(c22, c44, c24, c24)
    s23, e = cross_products(c11, c23, c12, c13)
    s24, f = cross_products(c11, c24, c12, c14)
    s34, g = cross_products(c11, c34, c13, c14)
    m33, e33 = cross_pairs(d12, e12, d13, e13, s23, e, s23, e)
    m44, e44 = cross_pairs(d12, e12, d14, e14, s24, f, s24, f)
    a2, e2 = cross_pairs(d12, e12, s34, g, s23, e, s24, f)
    a3, e3 = cross_pairs(d13, e13, s24, f, s23, e, s34, g)
    a4, e4 = cross_pairs(d14, e14, s23, e, s24, f, s34, g)
    det = cross_pairs(m33, e33, m44, e44, a2, e2, a2, e2)[0]
    noise = 1e-29 * d12
    if d12 <= 0.0 or d13 <= 0.0 or d14 <= 0.0 or d23 < 0.0 or d24 < 0.0:
        return 2.0
    if m33 < -noise * d13 or m44 < -noise * d14 or det < -noise * (abs(m33) * d14 + abs(m44) * d13):
        return 2.0
    square, e = cross_products(c11, c11, 0.0, 0.0)
    t34, f = cross_products(c22, c34, c23, c24)
    det234 = cross_pairs(d23, e23, d24, e24, t34, f, t34, f)[0]
    b2 = cross_pairs(square, e, t34, f, a2, e2, 1.0, 0.0)[0]
    t24, f = cross_products(c33, c24, c23, c34)
    b3 = cross_pairs(square, e, t24, f, a3, e3, 1.0, 0.0)[0]
    t23, f = cross_products(c44, c23, c24, c34)
    b4 = cross_pairs(square, e, t23, f, a4, e4, 1.0, 0.0)[0]

    v1, v2, v3, v4 = 1.0 / c11, 1.0 / c22, 1.0 / c33, 1.0 / c44
    every = v1 * v2 * v3 * v4
    d = max(det, 0.0) / d12 * v1 * v1 * every
    e = max(max(det234, 0.0) * v2 * c11 * every - d, 0.0)
    root = v1 * math.sqrt(every * v1)  # of the units of a and b, but for √v of field j
    f2, f3, f4 = root * math.sqrt(v2), root * math.sqrt(v3), root * math.sqrt(v4)
    a2, b2, a3, b3, a4, b4 = a2 * f2, b2 * f2, a3 * f3, b3 * f3, a4 * f4, b4 * f4
    q2, q3, q4 = c12 * c12 * v1 * v2, c13 * c13 * v1 * v3, c14 * c14 * v1 * v4
    g2, g3, g4 = d12 * v1 * v2, d13 * v1 * v3, d14 * v1 * v4
    p2, p3, p4 = math.copysign(math.sqrt(q2), c12), math.copysign(math.sqrt(q3), c13), math.copysign(math.sqrt(q4), c14)
    return plackett4_integral(a2, b2, g2, q2, p2, a3, b3, g3, q3, p3, a4, b4, g4, q4, p4, d, e)
'''

PLACKETT4_INTEGRAL = '''
import numpy as np

PLACKETT4_STEP = 0.29
PLACKETT4_GAP = 1.0 / np.cosh(PLACKETT4_STEP * np.arange(112)) ** 2  # 1 − t² at the nodes t = tanh x, even in x
PLACKETT4_WEIGHT = 0.4052847345693511 * PLACKETT4_STEP * PLACKETT4_GAP  # 4/π²
PLACKETT4_WEIGHT[0] *= 0.5


def plackett4_integral(a2, b2, g2, q2, p2, a3, b3, g3, q3, p3, a4, b4, g4, q4, p4, d, e):
    """Return the integral over t of the three terms of Plackett's derivative."""
    total = 0.0
    for n in range(len(PLACKETT4_GAP)):
        u = PLACKETT4_GAP[n]
        s = math.sqrt(d + u * e)
        s2, s3, s4 = math.sqrt(g2 + u * q2), math.sqrt(g3 + u * q3), math.sqrt(g4 + u * q4)
        second = p2 / s2 * angle_of(s * s2, a2 + u * b2)
        third = p3 / s3 * angle_of(s * s3, a3 + u * b3)
        total += PLACKETT4_WEIGHT[n] * (second + third + p4 / s4 * angle_of(s * s4, a4 + u * b4))
    return total
'''

SIGN2_GIVEN1 = '''
def sign2_given1(c11, c12, c1p, c22, c2p, cpp):
    """Return E[s₁ s₂ | h_p = 0]."""
    p1, p2 = coincide(c11, c1p, cpp, c12, c2p, c12, c2p), coincide(c22, c2p, cpp, c12, c1p, c12, c1p)
    if p1 and p2:
        return math.copysign(0.3333333333333333 * (c12 != 0.0), c12)
    if p1 or p2:
        return 0.0
    if coincide(c11, c12, c22, c1p, c2p, c1p, c2p):
        return math.copysign(1.0 * (c12 != 0.0), c12)
    value = given_one(c11, c12, c1p, c22, c2p, cpp)
    ridge = 4.440892098500626e-16
    while value > 1.5 and ridge < 1e-6:
        r = 1.0 + ridge
        value = given_one(r * c11, c12, c1p, r * c22, c2p, r * cpp)
        ridge *= 4.0
    return math.nan if value > 1.5 else value
'''

GIVEN_ONE = '''
def given_one(c11, c12, c1p, c22, c2p, cpp):
    """Return E[s₁ s₂ | h_p = 0] of fields none of which coincide, or 2 if the covariance is indefinite."""
    d1, e1 = cross_products(c11, cpp, c1p, c1p)
    d2, e2 = cross_products(c22, cpp, c2p, c2p)
    s, e = cross_products(c12, cpp, c1p, c2p)
    det = cross_pairs(d1, e1, d2, e2, s, e, s, e)[0]
    if d1 <= 0.0 or d2 <= 0.0 or det < -1e-29 * d1 * d2:
        return 2.0
    return 0.6366197723675814 * angle_of(math.sqrt(max(det, 0.0)), s)
'''

GIVEN_PAIR = '''
def given_pair(c11, c12, c1p, c1q, c22, c2p, c2q, cpp, cpq, cqq):
    """Return E[s₁ s₂ | h_p = h_q = 0] of fields none of which coincide.

    It is 2 if the covariance is indefinite. If both fields lie in the span of p and q, all is proportional to the ridge
    C_aa(1 + ε), ε → 0, and derivatives take the place of the determinants.
    """
    d, e = cross_products(cpp, cqq, cpq, cpq)
    d1, e1 = cross_products(c11, cpp, c1p, c1p)
    d2, e2 = cross_products(c22, cpp, c2p, c2p)
    s, f = cross_products(c12, cpp, c1p, c2p)
    s1, f1 = cross_products(c1q, cpp, c1p, cpq)
    s2, f2 = cross_products(c2q, cpp, c2p, cpq)
    a, g = cross_pairs(d, e, d1, e1, s1, f1, s1, f1)
    b, h = cross_pairs(d, e, d2, e2, s2, f2, s2, f2)
    n, k = cross_pairs(d, e, s, f, s1, f1, s2, f2)
    det = cross_pairs(a, g, b, h, n, k, n, k)[0]
    noise1, noise2 = 1e-29 * d * d1, 1e-29 * d * d2  # what the pairs of doubles leave
    if d <= 0.0 or d1 < 0.0 or d2 < 0.0 or a < -noise1 or b < -noise2:
        return 2.0
    if det < -noise1 * abs(b) - noise2 * abs(a) and (a > noise1 or b > noise2):
        return 2.0
    if a <= noise1 and b <= noise2:
        a = d * c11 + d1 * cqq + cross_products(c11, cqq, c1q, c1q)[0] * cpp
        b = d * c22 + d2 * cqq + cross_products(c22, cqq, c2q, c2q)[0] * cpp
        n = s * cqq + cross_products(c12, cqq, c1q, c2q)[0] * cpp
        return 0.6366197723675814 * angle_of(math.sqrt(max(a * b - n * n, 0.0)), n)
    if a <= noise1 or b <= noise2:
        return 0.0
    return 0.6366197723675814 * angle_of(math.sqrt(max(det, 0.0)), n)
'''

SIGN2_GIVEN2 = '''
def sign2_given2(c11, c12, c1p, c1q, c22, c2p, c2q, cpp, cpq, cqq):
    """Return E[s₁ s₂ | h_p = h_q = 0]."""
    p1, p2 = coincide(c11, c1p, cpp, c12, c2p, c1q, cpq), coincide(c22, c2p, cpp, c12, c1p, c2q, cpq)
    q1, q2 = coincide(c11, c1q, cqq, c12, c2q, c1p, cpq), coincide(c22, c2q, cqq, c12, c1q, c2p, cpq)
    if (p1 and p2) or (q1 and q2):
        return math.copysign(0.3333333333333333 * (c12 != 0.0), c12)
    if p1 or p2 or q1 or q2:
        return 0.0
    if coincide(c11, c12, c22, c1p, c2p, c1q, c2q):
        return math.copysign(1.0 * (c12 != 0.0), c12)
    if coincide(cpp, cpq, cqq, c1p, c1q, c2p, c2q):
        return sign2_given1(c11, c12, c1p, c22, c2p, cpp)
    value = given_pair(c11, c12, c1p, c1q, c22, c2p, c2q, cpp, cpq, cqq)
    ridge = 4.440892098500626e-16
    while value > 1.5 and ridge < 1e-6:
        r = 1.0 + ridge
        value = given_pair(r * c11, c12, c1p, c1q, r * c22, c2p, c2q, r * cpp, cpq, r * cqq)
        ridge *= 4.0
    return math.nan if value > 1.5 else value
'''

EDGE = '''
def edge(pp, pq, qq, wp, wq, zp, zq):
    """Return (wp zq + wq zp − wp zp pq/pp − wq zq pq/qq)/√(pp qq − pq²), 0 where p and q coincide.

    It vanishes like the root. Where the root is below the square root of rounding, so may be what it divides: 0.
    """
    d = cross_products(pp, qq, pq, pq)[0]
    if d <= 1e-17 * pp * qq:
        return 0.0
    first = wp / pp * cross_products(zq, pp, zp, pq)[0]
    return (first + wq / qq * cross_products(zp, qq, zq, pq)[0]) / math.sqrt(d)
'''

PHI2 = '''
import numpy as np

PHI2_NODE = np.array(
    [-0.993128599185095, -0.9639719272779138, -0.912234428251326, -0.8391169718222188, -0.7463319064601508,
     -0.636053680726515, -0.5108670019508271, -0.37370608871541955, -0.22778585114164507, -0.07652652113349734,
     0.07652652113349734, 0.22778585114164507, 0.37370608871541955, 0.5108670019508271, 0.636053680726515,
     0.7463319064601508, 0.8391169718222188, 0.912234428251326, 0.9639719272779138, 0.993128599185095]
)
PHI2_WEIGHT = np.array(
    [0.017614007139150893, 0.040601429800386446, 0.06267204833410879, 0.08327674157670471, 0.1019301198172407,
     0.1181945319615186, 0.1316886384491769, 0.1420961093183824, 0.14917298647260424, 0.15275338713072628,
     0.15275338713072628, 0.14917298647260424, 0.1420961093183824, 0.1316886384491769, 0.1181945319615186,
     0.1019301198172407, 0.08327674157670471, 0.06267204833410879, 0.040601429800386446, 0.017614007139150893]
)


def Phi2(x, y, rho):
    """Return P(u < x, v < y) of standard normal u, v with correlation ρ.

    A correlation that rounding has put beyond ±1, or an integrator, by 1e-5 at most, is ±1. Source: Drezner &
    Wesolowsky, J. Stat. Comput. Simul. 35, 101 (1990), as Genz, Stat. Comput. 14, 251 (2004).
    """
    if x == -math.inf or y == -math.inf:
        return 0.0
    if x == math.inf or y == math.inf:
        return 0.5 * math.erfc(-0.7071067811865476 * min(x, y))
    if abs(x) > 40.0:  # as good as infinite, but its square is not
        x = math.copysign(40.0, x)
    if abs(y) > 40.0:
        y = math.copysign(40.0, y)
    h, k = -x, -y
    total = 0.0
    if abs(rho) < 0.925:
        angle, half = 0.5 * math.asin(rho), 0.5 * (h * h + k * k)
        for n in range(20):
            s = math.sin(angle * (1.0 + PHI2_NODE[n]))
            total += PHI2_WEIGHT[n] * math.exp((s * h * k - half) / ((1.0 - s) * (1.0 + s)))
        alone = 0.25 * math.erfc(0.7071067811865476 * h) * math.erfc(0.7071067811865476 * k)
        return total * angle * 0.15915494309189535 + alone
    k = k if rho > 0.0 else -k
    gap = (1.0 - rho) * (1.0 + rho)
    if -2e-5 < gap < 0.0:
        gap = 0.0
    hk, square = h * k, (h - k) * (h - k)
    if gap > 0.0:
        a, b = math.sqrt(gap), abs(h - k)
        c, d = (4.0 - hk) / 8.0, (12.0 - hk) / 16.0
        series = 1.0 - c * (square - gap) * (1.0 - d * square / 5.0) / 3.0 + c * d * gap * gap / 5.0
        total = a * math.exp(-0.5 * (square / gap + hk)) * series
        if hk > -100.0:
            tail = 0.5 * math.erfc(0.7071067811865476 * b / a) * 2.5066282746310002
            total -= math.exp(-0.5 * hk) * tail * b * (1.0 - c * square * (1.0 - d * square / 5.0) / 3.0)
        for n in range(20):
            z = 0.5 * a * (1.0 + PHI2_NODE[n])
            z2 = z * z
            r = math.sqrt(1.0 - z2)
            exact = math.exp(-0.5 * hk * z2 / ((1.0 + r) * (1.0 + r))) / r
            if square < 200.0 * z2 - hk * z2:
                rest = exact - 1.0 - c * z2 * (1.0 + d * z2)
                total += 0.5 * a * PHI2_WEIGHT[n] * math.exp(-0.5 * (square / z2 + hk)) * rest
        total *= -0.15915494309189535
    elif gap < 0.0:
        return math.nan
    if rho > 0.0:
        return total + 0.5 * math.erfc(0.7071067811865476 * max(h, k))
    total = -total
    if k > h:
        sign = 1.0 if h < 0.0 else -1.0
        low, high = (h, k) if h < 0.0 else (-h, -k)
        total += 0.5 * (math.erfc(-0.7071067811865476 * high) - math.erfc(-0.7071067811865476 * low)) * sign
    return total
'''

PHI3 = '''
import numpy as np

PHI3_STEP = 0.17
PHI3_REST = 1.0 / (1.0 + np.exp(2.0 * PHI3_STEP * np.arange(-96, 184)))  # 1 − t at the nodes t = (1 + tanh x)/2
PHI3_WEIGHT = 2.0 * PHI3_STEP * PHI3_REST * (1.0 - PHI3_REST)


def Phi3(x, y, z, r12, r13, r23):
    """Return P(u < x, v < y, w < z) of standard normal u, v, w.

    The correlations of u are switched on, r → t r, by Plackett's derivative; u is the one least correlated, so that
    all that is nearly singular has t ≥ 1. Source: Plackett, Biometrika 41, 351 (1954); Genz, Stat. Comput. 14, 251.
    """
    if abs(r12) > abs(r23) and abs(r12) >= abs(r13):
        x, z, r12, r23 = z, x, r23, r12
    elif abs(r13) > abs(r23):
        x, y, r13, r23 = y, x, r23, r13
    if x == -math.inf or y == -math.inf or z == -math.inf:
        return 0.0
    if x == math.inf:
        return Phi2(y, z, r23)
    if y == math.inf:
        return Phi2(x, z, r13)
    if z == math.inf:
        return Phi2(x, y, r12)
    x = math.copysign(40.0, x) if abs(x) > 40.0 else x  # as good as infinite, but products with it are not
    y = math.copysign(40.0, y) if abs(y) > 40.0 else y
    z = math.copysign(40.0, z) if abs(z) > 40.0 else z
    r12 = math.copysign(1.0, r12) if 1.0 < abs(r12) < 1.0 + 1e-5 else r12  # put there by rounding
    r13 = math.copysign(1.0, r13) if 1.0 < abs(r13) < 1.0 + 1e-5 else r13
    r23 = math.copysign(1.0, r23) if 1.0 < abs(r23) < 1.0 + 1e-5 else r23
    if r23 == 1.0:
        return Phi2(x, min(y, z), r12)
    if r23 == -1.0:
        return max(0.0, Phi2(x, y, r12) - Phi2(x, -z, r12))
    g2, e2 = cross_products(1.0, 1.0, r12, r12)
    g3, e3 = cross_products(1.0, 1.0, r13, r13)
    s23, e = cross_products(1.0, r23, r12, r13)
    det = cross_pairs(g2, e2, g3, e3, s23, e, s23, e)[0]
    if g2 < 0.0 or g3 < 0.0 or det < -1e-6:
        return math.nan
    det = max(det, 0.0)
    s12, s13 = cross_products(1.0, r12, r13, r23)[0], cross_products(1.0, r13, r12, r23)[0]
    q2, q3, q = r12 * r12, r13 * r13, r12 * r13
    rise = max(r12 * s12 + r13 * s13, 0.0)  # det is (1 − r₂₃²) − t² rise
    total = 0.0
    for n in range(len(PHI3_REST)):
        t = 1.0 - PHI3_REST[n]
        u = PHI3_REST[n] * (1.0 + t)
        d = det + u * rise
        a, b, s = g2 + u * q2, g3 + u * q3, s23 + u * q
        third = (z * a - t * x * s13 - y * s) / math.sqrt(max(a * d, 1e-300))
        second = (y * b - t * x * s12 - z * s) / math.sqrt(max(b * d, 1e-300))
        near = y - t * r12 * x
        slope = math.exp(-0.5 * (x * x + near * near / a)) / math.sqrt(a)
        part = r12 * slope * math.erfc(-0.7071067811865476 * third)
        near = z - t * r13 * x
        slope = math.exp(-0.5 * (x * x + near * near / b)) / math.sqrt(b)
        total += PHI3_WEIGHT[n] * (part + r13 * slope * math.erfc(-0.7071067811865476 * second))
    return 0.5 * math.erfc(-0.7071067811865476 * x) * Phi2(y, z, r23) + 0.07957747154594767 * total
'''

SOURCES: dict[str, str] = {
    "angle_of": ANGLE_OF,
    "cross_products": CROSS_PRODUCTS,
    "cross_pairs": CROSS_PAIRS,
    "coincide": COINCIDE,
    "plackett4_integral": PLACKETT4_INTEGRAL,
    "plackett4": PLACKETT4,
    "given_one": GIVEN_ONE,
    "given_pair": GIVEN_PAIR,
    "sign2": SIGN2,
    "sign4": SIGN4,
    "sign2_given1": SIGN2_GIVEN1,
    "sign2_given2": SIGN2_GIVEN2,
    "edge": EDGE,
    "Phi2": PHI2,
    "Phi3": PHI3,
}
"""Source text by the name of the function, those that others need first."""

REQUIRES: dict[str, tuple[str, ...]] = {
    "cross_pairs": ("cross_products",),
    "plackett4_integral": ("angle_of",),
    "plackett4": ("cross_products", "cross_pairs", "plackett4_integral"),
    "given_pair": ("angle_of", "cross_products", "cross_pairs"),
    "coincide": ("cross_products",),
    "sign2": ("angle_of", "cross_products"),
    "sign4": ("cross_products", "coincide", "sign2", "plackett4"),
    "given_one": ("angle_of", "cross_products", "cross_pairs"),
    "sign2_given1": ("coincide", "given_one"),
    "sign2_given2": ("coincide", "sign2_given1", "given_pair"),
    "edge": ("cross_products",),
    "Phi3": ("cross_products", "cross_pairs", "Phi2"),
}
"""The functions that each calls itself."""


def required(names: Iterable[str], requires: Mapping[str, tuple[str, ...]] = REQUIRES) -> set[str]:
    """Return the functions and all that they call, directly or through others.

    Examples
    --------
    >>> sorted(required(["Phi3"]))
    ['Phi2', 'Phi3', 'cross_pairs', 'cross_products']
    """
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += requires.get(name, ())
    return found


def numpy_source(names: Iterable[str]) -> str:
    """Return Python source that defines functions, vectorised by NumPy; it expects ``math`` and ``np``.

    Examples
    --------
    >>> import math, numpy as np
    >>> module = {"math": math, "np": np}
    >>> exec(numpy_source(["edge"]), module)
    >>> module["edge"]([1, 1], 0, 1, 1, 0, [0, 1], 1)
    array([1., 1.])
    """
    wanted = sorted(names)
    needed = required(wanted)
    parts = [text.replace("import numpy as np\n\n", "").strip("\n") for name, text in SOURCES.items() if name in needed]
    vectorised = [f"{name} = np.vectorize({name}, otypes=[float])" for name in wanted]
    return "\n\n\n".join([*parts, "\n".join(vectorised)]) + "\n"
