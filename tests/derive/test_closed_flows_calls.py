"""Calling closed forms: shapes of modes and times, conditions, and floating point where formulas overflow or cancel."""

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from effdyn.derive import ModelError
from effdyn.derive.closed_flows import find_closed_form
from effdyn.derive.closed_flows.hypergeometric import two_powers
from effdyn.derive.closed_flows.stable import conic, riccati

s, c, delta, lam, a, b, t = sympy.symbols("s c delta lam a b t", real=True)
N = sympy.Symbol("N", positive=True)
i, j = sympy.symbols("i j", integer=True)
S, C, L, M = (sympy.IndexedBase(name, real=True) for name in ("S", "C", "L", "M"))
MODES = find_closed_form({S[i]: sympy.sqrt(L[i] ** 2 + 4 * S[i] ** 2) * (C[i] - delta * S[i])}, t)
DEEP = find_closed_form({s: N * s ** (2 - 2 / N) * (c - delta * s)}, t)
EPSILON = np.finfo(float).eps


# -- shapes ------------------------------------------------------------------------------------------------------------


def test_modes_and_times_are_vectorised():
    params = dict(C=[1.0, 2.0, 3.0], L=[0.0, 0.1, -0.2], delta=1.0)
    y0, times = dict(S=[0.1, 0.2, -0.3]), np.linspace(0, 2, 8).reshape(2, 4)
    found = MODES(times, y0, params)["S"]
    assert found.shape == (2, 4, 3)
    np.testing.assert_allclose(found[0, 0], y0["S"], rtol=1e-15)
    for mode in range(3):
        one = {name: np.ravel(value)[mode] if name != "delta" else value for name, value in params.items()}
        alone = MODES(times[1, 2], dict(S=y0["S"][mode]), one)["S"]
        assert alone == pytest.approx(found[1, 2, mode], rel=1e-15)


def test_numbers_stand_for_all_modes():
    found = MODES(0.5, dict(S=[0.1, 0.2]), dict(C=1.0, L=0.0, delta=1.0))["S"]
    assert found.shape == (2,)


def test_entries_with_two_indices_take_vectors_by_their_index():
    form = find_closed_form({M[i, j]: C[j] - L[i] * M[i, j]}, t)
    start = np.arange(6.0).reshape(2, 3)
    found = form([0.0, 0.7], dict(M=start), dict(C=[1.0, 2.0, 3.0], L=[0.5, 2.0]))["M"]
    assert found.shape == (2, 2, 3)
    fixed = np.array([1.0, 2.0, 3.0]) / np.array([[0.5], [2.0]])
    np.testing.assert_allclose(found[1], fixed + (start - fixed) * np.exp(-0.7 * np.array([[0.5], [2.0]])), rtol=1e-14)


def test_initial_values_may_be_written_into_the_equations():
    form = find_closed_form({s: -s}, t, initial={s: sympy.Rational(1, 2)})
    assert form.solution[s] == sympy.exp(-t) / 2
    assert form(1.0)["s"] == pytest.approx(np.exp(-1) / 2, rel=1e-15)


# -- errors ------------------------------------------------------------------------------------------------------------

GOOD = dict(N=3, c=1.0, delta=1.0)
WRONG = {
    "negative start": (1.0, dict(s=-0.1), GOOD, ["s starts above zero", "s(0) = -0.1", "solve.integrate"]),
    "one bad mode": (1.0, dict(s=[0.1, 0.2]), GOOD | dict(delta=[1, -2]), ["delta = -2", "limits s"]),
    "a pole": (1.0, dict(s=0.1), GOOD | dict(N=2), ["no pole"]),
    "a missing parameter": (1.0, dict(s=0.1), dict(N=3, c=1.0), ["params", "also delta"]),
    "an unknown one": (1.0, dict(s=0.1), GOOD | dict(detla=1.0), ["detla", "did you mean 'delta'"]),
    "a missing state": (1.0, {}, GOOD, ["y0", "also s"]),
    "a sign that was declared": (1.0, dict(s=0.1), GOOD | dict(N=-3), ["params['N']", "positive numbers"]),
    "nan": (1.0, dict(s=np.nan), GOOD, ["y0['s']", "finite"]),
    "text": (1.0, dict(s="much"), GOOD, ["y0['s']", "number"]),
    "backwards": (-1.0, dict(s=0.1), GOOD, ["t = ", "from 0 on"]),
    "shapes": (1.0, dict(s=[0.1, 0.2]), GOOD | dict(c=[1, 2, 3]), ["equal numbers of modes"]),
    "no mapping": (1.0, 0.1, GOOD, ["y0", "mapping"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_arguments_are_named(name):
    time, y0, params, parts = WRONG[name]
    with pytest.raises(ModelError) as error:
        DEEP(time, y0, params)
    for part in parts:
        assert part in str(error.value)


def test_arrays_must_have_the_axes_of_their_indices():
    with pytest.raises(ModelError, match=r"params\['C'\].*one for each of C\[i\]"):
        MODES(0.5, dict(S=[0.1, 0.2]), dict(C=[[1.0, 2.0]], L=0.0, delta=1.0))


@pytest.mark.parametrize("equations", [{}, None, {s + 1: s}, {t: s}])
def test_equations_must_be_equations(equations):
    with pytest.raises(ModelError, match="equations"):
        find_closed_form(equations, t)


def test_initial_values_are_of_states():
    with pytest.raises(ModelError, match="initial"):
        find_closed_form({s: -s}, t, initial={c: sympy.S.One})


@pytest.mark.parametrize(
    "rate, start, params, end",
    [
        (a + b * s + s**2, 1.0, dict(a=1.0, b=0.0), np.pi / 4),  # tan(t + pi/4)
        (a + b * s + s**2, 2.0, dict(a=-1.0, b=0.0), np.arctanh(0.5)),  # coth
        (a + b * s + s**2, 0.5, dict(a=0.0, b=0.0), 2.0),  # 1/(2 - t)
        (s * (a + b * s), 0.5, dict(a=0.0, b=1.0), 2.0),
        (s * (a + b * s), 0.5, dict(a=-1.0, b=4.0), np.log(2.0)),
        (sympy.sqrt(1 + s**2) * s, 1.0, {}, np.arcsinh(1.0)),
    ],
)
def test_times_at_which_the_solution_has_diverged_are_refused(rate, start, params, end):
    form = find_closed_form({s: rate}, t)
    assert form(end * (1 - 1e-9), dict(s=start), params)["s"] > 1e6
    with pytest.raises(ModelError, match="before the time at which s diverges"):
        form([0.0, end * (1 + 1e-9)], dict(s=start), params)


# -- floating point ----------------------------------------------------------------------------------------------------

size = st.floats(-2, 2)
number = st.one_of(st.just(0.0), st.builds(lambda e, sign: sign * 10**e, size, st.sampled_from([-1, 1])))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(number, st.floats(-12, 1), number, st.floats(-2, 1), number, st.floats(-3, 3))
def test_conic_calls_have_full_precision(sign, exponent, sigma, curvature, imbalance, time):
    """Against its formula in 60 digits: from starts near zero, where escape amplifies nothing but what is there."""
    start, d, time = (1 if sign >= 0 else -1) * 10**exponent, 10**curvature, 10**time
    with mpmath.workdps(400):  # decays to 1e-200
        root, z0 = mpmath.mpf(2), mpmath.mpf(start)
        kappa = mpmath.mpf(imbalance) ** 2 / 4
        R0 = mpmath.sqrt(z0**2 + kappa)
        G = mpmath.sqrt(4 * mpmath.mpf(sigma) ** 2 + 4 * mpmath.mpf(d) ** 2 * kappa)
        g = mpmath.tanh(G * mpmath.mpf(time) / 2) / G if G else mpmath.mpf(time) / 2
        up, down = 1 + root * (sigma + d * (R0 - z0)) * g, 1 - root * (sigma - d * (R0 + z0)) * g
        exact = ((R0 + z0) * up / down - (R0 - z0) * down / up) / 2
        scale = ((R0 + z0) * up / down + (R0 - z0) * down / up) / 2  # the two terms may cancel near zero
        rates = 1 + float(G) * time  # rounding of the exponent
        arguments = map(np.array, (time, start, 4.0, 0.0, imbalance**2 / 4, sigma, -d, 0.0))
        found = mpmath.mpf(float(conic(*arguments)))
        assert abs(found - exact) <= 40 * EPSILON * rates * scale + mpmath.mpf("1e-300")


@settings(max_examples=120, deadline=None, derandomize=True)
@given(number, number, number, number, st.floats(-3, 2))
def test_riccati_calls_have_full_precision(start, x, y, z, time):
    """Against the formula in 60 digits, for rates of all signs with real roots, up to the time of divergence.

    Rounding of the coefficients moves the solution by its sensitivity to them, which is estimated by differences.
    """
    time, D = 10**time, y * y - 4 * x * z
    slope = y + 2 * z * start

    def exact(start, x, y, z):
        start, x, y, z = map(mpmath.mpf, (start, x, y, z))
        G = mpmath.sqrt(y * y - 4 * x * z)
        g = mpmath.tanh(G * mpmath.mpf(time) / 2) / G if G else mpmath.mpf(time) / 2
        return (start * (1 + y * g) + 2 * x * g) / (1 - (y + 2 * z * start) * g)

    if D < 0 or (slope > np.sqrt(D) and time * slope > 1):
        return  # oscillates, or may have diverged
    with mpmath.workdps(400):
        value, shift = exact(start, x, y, z), mpmath.mpf(10) ** -30
        arguments = [start, x, y, z]
        moved = [exact(*(v * (1 + shift * (n == k)) for n, v in enumerate(arguments))) for k in range(4)]
        sensitivity = sum(abs(m - value) for m in moved) / shift
        found = mpmath.mpf(float(riccati(*map(np.array, (time, start, x, y, z)))))
        assert abs(found - value) <= 60 * EPSILON * (sensitivity + abs(value)) + mpmath.mpf("1e-300")


@pytest.mark.parametrize("depth", [2.5, 3.0, 4.0, 20.0])
def test_two_powers_call_has_full_precision(depth):
    """Below and above the fixed point and for a negative target, against bisection of the hypergeometric time."""
    rng = np.random.default_rng(5)
    p, r = 2 - 2 / depth, 3 - 2 / depth
    for alpha in (1.3, -1.3):
        start, time = 10 ** rng.uniform(-3, 1, 6), 10 ** rng.uniform(-2, 0, 6)
        for s0, when in zip(start, time, strict=True):
            found = float(two_powers(*map(np.array, (when, s0, alpha, p, -0.7, r))))
            with mpmath.workdps(30):
                back = mpmath.quad(
                    lambda x, alpha=alpha: 1 / (alpha * x ** mpmath.mpf(p) - mpmath.mpf(0.7) * x ** mpmath.mpf(r)),
                    mpmath.linspace(s0, found, 5),
                )
                speed = abs(alpha * found**p - 0.7 * found**r)
                miss = float(abs(back - when)) * speed
            assert miss <= 1e-13 * found


def test_long_times_neither_overflow_nor_move_fixed_points():
    """Far beyond exp(709), with every detector's call."""
    far, modes = 1e6, dict(C=1.5, L=[1e-9, 0.3], delta=1.0)
    assert MODES(far, dict(S=[1e-12, -2.0]), modes)["S"] == pytest.approx(1.5, rel=1e-14)
    assert DEEP(far, dict(s=[0.01, 5.0]), GOOD)["s"] == pytest.approx(1.0, rel=1e-14)
    logistic = find_closed_form({s: s * (c - delta * s)}, t)
    assert logistic(far, dict(s=1e-300), dict(c=2.0, delta=1.0))["s"] == pytest.approx(2.0, rel=1e-14)
    assert logistic(far, dict(s=0.0), dict(c=2.0, delta=1.0))["s"] == 0.0
    square = find_closed_form({s: a + b * s - s**2}, t)
    assert square(far, dict(s=-1.0), dict(a=2.0, b=1.0))["s"] == -1.0  # the unstable fixed point
    assert square(far, dict(s=1e9), dict(a=2.0, b=1.0))["s"] == pytest.approx(2.0, rel=1e-14)


# -- printing ----------------------------------------------------------------------------------------------------------


def test_text_and_latex_name_what_was_given():
    text, latex = str(MODES), MODES.latex({"lam": r"\lambda"})
    assert text.startswith("S[i](t) = ")
    assert "where R_0 = sqrt(" in text and "diverges upwards" in text and "residual" in text
    assert latex.startswith("\\begin{aligned}\nS_{i}(t) &=") and latex.count("{") == latex.count("}")
    assert "Phi(s_0)" in str(DEEP) and "{}_{2}F_{1}" in DEEP.latex()


def test_abbreviations_do_not_take_the_names_of_parameters():
    g, X = sympy.symbols("g X", real=True)
    text = str(find_closed_form({s: sympy.sqrt(g**2 + s**2) * (X - s)}, t))
    assert "where g_s = " in text and "where X_s = " in text
