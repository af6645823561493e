"""The special functions that kernels bring along, against mpmath: to the last few digits, NaN outside the domain."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from effdyn.derive.gaussian.special_values import evaluate
from effdyn.solve.kernels.cache import load_generated
from effdyn.solve.kernels.functions import SOURCES, with_requirements

MEASURED = 2.5
"""Above the largest error found, 2.33 ulp at 0.5068, in 2·10⁸ arguments compared with the 80-bit arc sine."""
PROMISED = 4.0


@pytest.fixture(scope="module")
def asin():
    """The arc sine as kernels compile it, on arrays: in a loop, so that it is LLVM's SIMD version that is tested."""
    source = f"""import math

import numpy as np
from numba import njit

{SOURCES["asin"]}

@njit(cache=True, error_model="numpy", fastmath={{"reassoc", "contract", "nsz", "arcp"}})
def evaluate(x):
    out = np.empty_like(x)
    for n in range(len(x)):
        out[n] = asin(x[n])
    return out
"""
    return load_generated("asin_alone", source).evaluate


def ulps(values, arguments):
    """The error against mpmath at 40 digits, in units of the last place of the exact result."""
    with mpmath.workdps(40):
        exact = [mpmath.asin(mpmath.mpf(float(x))) for x in arguments]
        spacing = [math.ulp(float(e)) for e in exact]
        return np.array([float(abs(v - e) / s) for v, e, s in zip(map(float, values), exact, spacing, strict=True)])


def neighbours(point, count=40):
    """The floats around a point, on both sides."""
    above, below = [point], [point]
    for _ in range(count):
        above.append(math.nextafter(above[-1], math.inf))
        below.append(math.nextafter(below[-1], -math.inf))
    return np.array([x for x in (*below[::-1], *above[1:]) if abs(x) <= 1])


def test_asin_everywhere(asin, rng):
    scales = rng.uniform(-1, 1, 4000)
    tiny = np.copysign(10.0 ** rng.uniform(-320, -1, 2000), rng.uniform(-1, 1, 2000))
    near_one = np.copysign(1 - 10.0 ** rng.uniform(-16, -1, 3000), rng.uniform(-1, 1, 3000))
    x = np.concatenate([scales, tiny, near_one])
    assert ulps(asin(x), x).max() <= PROMISED


@pytest.mark.parametrize("point", [0.5, -0.5, 1.0, -1.0, 0.0, math.sqrt(0.5), 2.0**-511, 2.0**-1022])
def test_asin_around_boundaries(asin, point):
    x = neighbours(point)
    assert ulps(asin(x), x).max() <= PROMISED


def test_asin_at_its_exact_values(asin):
    x = np.array([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.0**-1022, 1e-300])
    expected = np.array([0.0, -0.0, math.pi / 2, -math.pi / 2, 5e-324, -5e-324, 2.0**-1022, 1e-300])
    assert np.array_equal(asin(x), expected)


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, 1e300, -2.0, 1 + 2e-5, -1 - 2e-5])
def test_asin_is_nan_outside_its_domain(asin, x):
    assert np.isnan(asin(np.full(17, x))).all()  # 17: the SIMD body and the remainder


@pytest.mark.parametrize("sign", [1, -1])
def test_asin_takes_a_correlation_that_an_integrator_puts_slightly_above_one_for_one(asin, sign):
    assert (asin(np.full(17, sign * (1 + 1e-6))) == sign * math.pi / 2).all()


@settings(max_examples=500)
@example(0.5)
@example(math.nextafter(0.5, 1))
@example(math.nextafter(1, 0))
@given(st.floats(-1, 1))
def test_asin_is_odd_bounded_and_right(asin, x):
    value, mirrored = asin(np.array([x, -x]))
    assert mirrored == -value
    assert abs(value) <= math.pi / 2
    assert ulps([value], [x]).max() <= PROMISED


def test_asin_is_monotone_up_to_its_error(asin, rng):
    """Where the argument grows by more than the error, so does the value: no jump where the two branches meet."""
    x = np.sort(np.concatenate([neighbours(0.5, 2000), neighbours(-0.5, 2000), rng.uniform(-1, 1, 20_000)]))
    value = asin(x)
    assert (np.diff(value) >= -PROMISED * np.spacing(np.abs(value[1:]))).all()


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="needs an 80-bit long double")
def test_the_largest_error_of_asin_is_as_measured(asin, rng):
    x = np.concatenate([rng.uniform(-1, 1, 10_000_000), rng.uniform(0.49, 0.52, 10_000_000)])
    exact = np.arcsin(x.astype(np.longdouble))
    error = np.abs((asin(x) - exact) / np.spacing(np.abs(exact.astype(float)))).astype(float)
    worst = x[np.argsort(error)[-20:]]
    confirmed = ulps(asin(worst), worst)  # mpmath has the last word
    assert confirmed.max() <= MEASURED
    assert confirmed.max() > MEASURED / 2, "the measured error is out of date"


# -- functions of Gaussian fields: against mpmath in many digits, on covariances that are exact in floating point ------

NEAR = [2.0**-6, 2.0**-10, 2.0**-14, 2.0**-18, 2.0**-21]
"""Distances of nearly coincident fields, down to 5e-7, with which entries of the Gram matrix still fit 53 bits."""


@pytest.fixture(scope="module")
def compiled():
    """All functions of Gaussian fields, compiled from the source that kernels bring along."""
    names = ["sign4", "sign2_given1", "sign2_given2", "edge", "Phi2", "Phi3"]
    text = "\n".join(SOURCES[name] for name in with_requirements(names))
    return load_generated("gaussian_functions", f"import math\n\nfrom numba import njit\n\n{text}")


def exact(name, arguments, bits=53):
    """The value by mpmath."""
    return float(evaluate(name, [lambda _, a=a: mpmath.mpf(a) for a in arguments], bits))


def grid(rng, shape, bits):
    """Normal variables rounded to multiples of 2^-bits."""
    return np.round(rng.standard_normal(shape) * 2**bits) / 2**bits


def triangle(fields):
    product = fields @ fields.T
    return tuple(map(float, product[np.triu_indices(len(fields))]))


def degenerate(rng, eps):
    """Matrices of all kinds of degeneracy at one distance, as vectors whose Gram matrix has no rounding."""
    b, w = grid(rng, (4, 5), 2), eps * grid(rng, (4, 5), 1)
    pairs = np.array([b[0], b[0] + w[0], b[1], b[1] + w[1]])
    kinds = {
        "generic": grid(rng, (4, 5), 5),
        "rank 3": grid(rng, (4, 3), 5),
        "rank 2": grid(rng, (4, 2), 5),
        "pair": np.array([b[0], b[0] + w[0], b[1], b[2]]),
        "triple": np.array([b[0], b[0] + w[0], b[0] + w[1], b[2]]),
        "two pairs": pairs,
        "all four": b[0] + w,
        "flat triple": np.array([b[0], b[0] + w[0], b[0] - 2 * w[0], b[2]]),
        "two pairs, rank 3": pairs * [1, 1, 1, 0, 0],
        "two pairs, rank 2": pairs * [1, 1, 0, 0, 0],
        "a pair coincides": np.array([b[0], b[0] + w[0], b[1], b[1]]),
        "two of three coincide": np.array([b[0], b[0] + w[0], b[0] + w[0], b[1]]),
        "two distances": np.array([b[0], b[0] + w[0], b[0] + grid(rng, 5, 1) / 16, b[1]]),
        "nearly coplanar": np.array([b[0], b[1], b[0] + b[1] + w[0], b[2]]),
        "weak, and of other scales": np.array([b[0], w[1], b[2], 8 * b[3]]),
    }
    signs = rng.choice([-1, 1], (4, 1))
    for kind, fields in kinds.items():
        if (fields**2).sum(axis=1).all():
            yield kind, (signs * fields)[rng.permutation(4)]


def test_sign4_of_degenerate_covariances(compiled, rng):
    check_sign4(compiled, itertools.islice(covariances(rng, NEAR[2:3]), None, None, 2))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_sign4_of_many_degenerate_covariances(compiled, seed):
    check_sign4(compiled, covariances(np.random.default_rng(seed), NEAR))


def covariances(rng, distances):
    for eps in distances:
        for kind, fields in degenerate(rng, eps):
            yield kind, eps, triangle(fields)


def check_sign4(compiled, cases):
    """To a tenth of what is promised."""
    for kind, eps, c in cases:
        assert abs(compiled.sign4(*c) - exact("sign4", c, bits=46)) < 1e-13, (kind, eps, c)


@pytest.mark.parametrize("eps", NEAR)
def test_conditional_signs_and_edges_of_degenerate_covariances(compiled, eps):
    """To rounding: determinants are computed in twice the precision, 1e-32. The edge has the units of h_w h_z.

    At rank 3 the angle is ±π/2, 1e-32/eps² off in the correlation, the root of which is its error.
    """
    for kind, fields in degenerate(np.random.default_rng(0), eps):
        c = triangle(fields)
        three = (c[0], c[1], c[2], c[4], c[5], c[7])
        seven = (c[0], c[1], c[4], c[2], c[5], c[3], c[6])
        tolerance = 1e-16 / eps if "rank 3" in kind else 1e-14
        assert abs(compiled.sign2_given2(*c) - exact("sign2_given2", c)) < tolerance, (kind, c)
        assert abs(compiled.sign2_given1(*three) - exact("sign2_given1", three)) < 1e-14, (kind, c)
        size = math.sqrt(c[7] * c[9])
        assert abs(compiled.edge(*seven) - exact("edge", seven)) < 1e-14 * size, (kind, c)


@settings(max_examples=200)
@given(st.lists(st.integers(-9, 9), min_size=20, max_size=20))
def test_conditional_signs_of_any_integer_fields(compiled, entries):
    fields = np.array(entries, float).reshape(4, 5)
    if not (fields**2).sum(axis=1).all():
        return
    c = triangle(fields)
    assert abs(compiled.sign2_given2(*c) - exact("sign2_given2", c)) < 1e-14


@settings(max_examples=200)
@given(st.lists(st.integers(-9, 9), min_size=16, max_size=16), st.permutations(range(4)))
def test_sign4_does_not_depend_on_the_order_of_the_fields(compiled, entries, order):
    """Nor on their scales, and flipping a field flips it. Both of two values are below 1e-12 off."""
    fields = np.array(entries, float).reshape(4, 4)
    if not (fields**2).sum(axis=1).all():
        return
    value = compiled.sign4(*triangle(fields))
    other = compiled.sign4(*triangle(fields[list(order)] * [[2.0], [-0.5], [1.0], [4.0]]))
    assert abs(value + other) < 2e-12
    assert abs(value) <= 1 + 1e-12


def moment(C, w, z, call, two_by_pi):
    """E[h_w h_z s₁ s₂ s₃ s₄] by Stein's lemma."""

    def ordered(order):
        return [C[order[a]][order[b]] for a in range(4) for b in range(a, 4)]

    total = C[w][z] * call("sign4", ordered(range(4)))
    for p, q in itertools.combinations(range(4), 2):
        weight = call("edge", (C[p][p], C[p][q], C[q][q], C[w][p], C[w][q], C[z][p], C[z][q]))
        others = [k for k in range(4) if k not in (p, q)]
        total += two_by_pi * weight * call("sign2_given2", ordered([*others, p, q]))
    return total


@pytest.mark.parametrize("eps", [2.0**-10, 2.0**-17, 2.0**-23, 0.0])
@pytest.mark.parametrize("kind", ["triple", "two pairs"])
def test_second_moments_with_four_signs_of_nearly_coincident_fields(compiled, rng, kind, eps):
    """Separations 1e-3, 1e-5, 1e-7 and 0: the angles of a tiny triangle add up, and nothing is lost in the sum."""
    fields = dict(degenerate_plain(rng, eps))[kind]
    C = (fields @ fields.T).tolist()

    def precise(name, arguments):
        return evaluate(name, [lambda _, a=a: mpmath.mpf(a) for a in arguments], 60)

    for w, z in ((0, 1), (0, 3)):
        found = moment(C, w, z, lambda name, c: getattr(compiled, name)(*c), 2 / math.pi)
        scale = math.sqrt(C[w][w] * C[z][z])
        assert abs(found - float(moment(C, w, z, precise, 2 / mpmath.pi))) < 1e-12 * scale


def degenerate_plain(rng, eps):
    b, w = grid(rng, (4, 5), 2), eps * grid(rng, (4, 5), 1)
    yield "triple", np.array([b[0], b[0] + w[0], b[0] + w[1], b[2]])
    yield "two pairs", np.array([b[0], b[0] + w[0], b[1], b[1] + w[1]])


@pytest.mark.parametrize("kind", ["triple", "two pairs", "a pair in a plane"])
def test_rounding_that_makes_a_covariance_indefinite_does_little_harm(compiled, rng, kind):
    """Perfect learning: student and teacher coincide but for rounding.

    A change of 2e-16 in C moves the distance of coincident fields by up to √(4·2e-16) = 3e-8, and E by a few of those.
    """
    for _ in range(100):
        b = rng.standard_normal((3, 5))
        if kind == "a pair in a plane":
            b[:, 2:] = 0
        b /= np.linalg.norm(b, axis=1)[:, None]
        fields = b[{"triple": [0, 0, 0, 1], "two pairs": [0, 0, 1, 1], "a pair in a plane": [0, 0, 1, 2]}[kind]]
        C = fields @ fields.T + rng.uniform(-2e-16, 2e-16, (4, 4))
        C = np.triu(C) + np.triu(C, 1).T
        c, s = C[2, 3], math.sqrt(max(0.0, 1 - C[2, 3] ** 2))
        two = 2 / math.pi * math.asin(min(c, 1.0))
        expected = {
            "triple": C[2, 3] * two + 2 / math.pi * s,  # E[|h₃| |h₄|]
            "two pairs": C[2, 3],  # E[h₃ h₄]
            "a pair in a plane": C[2, 3] * two + 2 / math.pi * s,
        }[kind]
        found = moment(C.tolist(), 2, 3, lambda name, a: getattr(compiled, name)(*a), 2 / math.pi)
        assert abs(found - expected) < 2e-7


def test_functions_of_impossible_covariances_are_nan(compiled):
    impossible = (1.0, 0.9, 0.9, 0.0, 1.0, -0.9, 0.0, 1.0, 0.0, 1.0)
    assert math.isnan(compiled.sign4(*impossible))
    assert math.isnan(compiled.sign2_given2(*impossible))
    assert math.isnan(compiled.sign2_given1(1.0, 0.9, 0.9, 1.0, -0.9, 1.0))
    assert math.isnan(compiled.sign4(*[math.nan] * 10))
    assert math.isnan(compiled.Phi2(0.1, 0.2, 1.5))
    assert math.isnan(compiled.Phi3(0.1, 0.2, 0.3, 0.9, 0.9, -0.9))


def test_bivariate_normal(compiled, rng):
    for _ in range(60):
        x, y = 2 * rng.standard_normal(2)
        if rng.random() < 0.4:  # where a step of width √(1 − ρ²) is
            y = rng.choice([-1, 1]) * x + rng.choice([0, 1]) * 10.0 ** -rng.uniform(0, 8)
        rho = rng.choice([rng.uniform(-1, 1), rng.choice([-1, 1]) * (1 - 10.0 ** -rng.uniform(0, 16)), 1, -1, 0])
        arguments = tuple(map(float, (x, y, rho)))
        assert abs(compiled.Phi2(*arguments) - exact("Phi2", arguments)) < 1e-14, arguments


def test_bivariate_normal_is_smooth_where_its_two_formulas_meet(compiled):
    for x, y in ((0.3, 0.4), (-1.0, 2.0), (1.5, 1.5)):
        for edge in (-0.925, 0.925):
            below, above = (compiled.Phi2(x, y, math.nextafter(edge, to)) for to in (-1.0, 1.0))
            assert abs(below - above) < 1e-15


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 12))])
def test_trivariate_normal(compiled, seed):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((3, 3))
    tilted = [b, b * [1, 1, 10.0 ** -rng.uniform(1, 5)]]  # generic; nearly of rank 2
    tilted.append(np.array([b[0], b[0] + 10.0 ** -rng.uniform(1, 7) * b[1], b[2]]))
    tilted.append(np.array([b[0], b[0] + 1e-3 * b[1], -b[0] + 1e-3 * b[2]]))
    cases = []
    for vectors in tilted:
        product = vectors @ vectors.T
        size = np.sqrt(np.diag(product))
        cases.append((product / np.outer(size, size))[[0, 0, 1], [1, 2, 2]])
    cases += [(0.5, -0.5, -1.0), (0.5, 0.5, 1.0), (1.0, 0.5, 0.5), (0.6, 0.8, 0.0), (0.0, 0.0, 0.0)]
    for number, rho in enumerate(cases):
        bounds = 1.5 * rng.standard_normal(3) if number % 3 else np.full(3, rng.standard_normal())
        arguments = tuple(map(float, (*bounds, *rho)))
        assert abs(compiled.Phi3(*arguments) - exact("Phi3", arguments)) < 1e-12, arguments


def test_normal_distributions_with_infinite_arguments(compiled):
    inf = math.inf
    assert compiled.Phi2(inf, 0.3, 0.5) == compiled.Phi2(0.3, inf, -0.5) == pytest.approx(0.6179114221889526, abs=1e-15)
    assert compiled.Phi2(-inf, 0.3, 0.5) == compiled.Phi3(0.1, -inf, 0.3, 0.1, 0.2, 0.3) == 0
    pair = compiled.Phi2(0.1, 0.3, 0.2)
    assert compiled.Phi3(0.1, inf, 0.3, 0.1, 0.2, 0.3) == compiled.Phi3(inf, 0.1, 0.3, 0.1, 0.5, 0.2) == pair
    assert compiled.Phi3(0.1, 0.3, inf, 0.2, 0.2, 0.3) == pair
    assert compiled.Phi3(inf, inf, inf, 0.2, 0.2, 0.3) == 1


def test_trivariate_normal_against_scipy(compiled, rng):
    """SciPy is asked for 1e-7; it is another method, by another hand."""
    rho = np.array([[1, 0.3, -0.4], [0.3, 1, 0.5], [-0.4, 0.5, 1]])
    for _ in range(3):
        x = rng.standard_normal(3)
        scipy = multivariate_normal(cov=rho, abseps=1e-8, releps=0, maxpts=10**6, seed=1).cdf(x)
        assert compiled.Phi3(*x, 0.3, -0.4, 0.5) == pytest.approx(scipy, abs=1e-6)


def test_erfi_agrees_with_mpmath_on_both_sides_of_where_its_series_change():
    from effdyn.solve.kernels.cache import load_generated
    from effdyn.solve.kernels.sources import paste

    source = f"import math\n\nfrom numba import njit\n{paste(['erfi'])}"
    erfi = load_generated("erfi", source).erfi
    for x in [0.0, 1e-300, 1e-9, -0.3, 1.0, 3.7, -6.999, 7.0, 7.001, 15.0, 26.0]:
        exact = mpmath.erfi(mpmath.mpf(x))
        assert abs(erfi(x) - exact) <= 4e-15 * abs(exact) + 5e-324, x  # exp(x²) alone has x² ulp/2 of error
    assert np.isnan(erfi(math.nan))
