"""The sign of one field at the threshold of another, as source text for kernels."""

SIGN1_GIVEN1 = '''
@njit(error_model="numpy")
def sign1_given1(c11, c1p, cpp, m1, mp):
    """E[sign(h₁) | h_p = 0] = erf(μ/√(2v)), μ and v times c_pp from products in twice the precision.

    v is taken for at least 1e-15 c₁₁ c_pp: where fields coincide, rounding must not decide between −1, 0 and 1.
    """
    if cpp == 0.0:
        return math.erf(m1 / math.sqrt(2.0 * c11))
    v = cross_products(c11, cpp, c1p, c1p)[0]
    mu = cross_products(m1, cpp, mp, c1p)[0]
    if not v >= -1e-5 * c11 * cpp:
        return math.nan
    return math.erf(mu / math.sqrt(2.0 * cpp * max(v, 1e-15 * c11 * cpp)))
'''

CONDITIONAL_SOURCES: dict[str, str] = {"sign1_given1": SIGN1_GIVEN1}
"""Source texts, by name."""

CONDITIONAL_REQUIREMENTS: dict[str, tuple[str, ...]] = {"sign1_given1": ("cross_products",)}
"""The functions that they call."""
