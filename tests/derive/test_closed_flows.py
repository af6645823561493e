"""Closed forms of flows against integration of their equations in 30 digits, against known formulas, and in limits.

Known formulas: Saxe, McClelland & Ganguli (2014), aligned modes; Bah et al. (2021), singular values of deep linear
networks; Kunin et al. (2024), the single neuron. They stand here as what the detectors must find.
"""

import itertools
import math
import pickle

import mpmath
import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from effdyn.derive.closed_flows import ClosedForm, NotFound, find, find_closed_form
from effdyn.derive.closed_flows.flow import Recipe, Solved
from effdyn.derive.closed_flows.quadrature import antiderivative, is_antiderivative

s, q, c, delta, lam, a, b, t = sympy.symbols("s q c delta lam a b t", real=True)
tau, N = sympy.symbols("tau N", positive=True)
THIRD = sympy.Rational(1, 3)
CALL = 1e-12
"""Relative. Calls lose a few dozen ulp (2e-16), the integration below 1e-13."""


def extrapolated(rate, start, values, time, steps=20, columns=11):
    """The state at ``time`` by extrapolated midpoint steps (Gragg, Bulirsch, Stoer) in 30 digits.

    The last two orders agree to 1e-13, so that the last one is better.
    """
    f = sympy.lambdify(s, rate.subs({k: sympy.Float(v, 30) for k, v in values.items()}), "mpmath")
    with mpmath.workdps(30):
        y, H = mpmath.mpf(start), mpmath.mpf(time) / steps
        for _ in range(steps):
            row = []
            for k in range(1, columns + 1):
                h, before, now = H / (2 * k), y, y + H / (2 * k) * f(y)
                for _ in range(2 * k - 1):
                    before, now = now, before + 2 * h * f(now)
                new = [(before + now + h * f(now)) / 2]
                for m, old in enumerate(row):
                    new.append(new[m] + (new[m] - old) / ((mpmath.mpf(k) / (k - m - 1)) ** 2 - 1))
                error, row = abs(new[-1] - (row[-1] if row else 0)), new
            assert error < 1e-13 * max(abs(row[-1]), mpmath.mpf("1e-3")), "the reference is not converged"
            y = row[-1]
        return float(y)


CONIC = sympy.sqrt(lam**2 + 4 * s**2) * (c - delta * s)
FLOWS = {  # rate, method, then (initial value, parameters)
    "constant": (c / tau, "constant", [(0.3, {c: -1.5, tau: 0.7})]),
    "linear": (c - delta * s, "linear", [(0.3, {c: -1.5, delta: 2.0}), (0.3, {c: 1.0, delta: 0.0})]),
    "linear, other signs": (delta * (c - s), "linear", [(0.3, {c: -1.5, delta: -1.0})]),
    "balanced mode": (
        2 * s * (c - delta * s) / tau,
        "logistic",
        [(0.05, {c: 1.3, delta: 0.8, tau: 0.7}), (3.0, {c: 1.3, delta: 0.8, tau: 0.7}),
         (0.2, {c: -1.3, delta: 0.8, tau: 1.0}), (0.2, {c: 0.0, delta: 0.8, tau: 1.0}),
         (-0.1, {c: -0.4, delta: 0.8, tau: 1.0})],
    ),
    "cubic": (a * s + b * s**3, "Bernoulli", [(-0.2, {a: 1.0, b: -2.0}), (0.4, {a: -1.0, b: 0.5})]),
    "pure power": (-c * s ** (4 * THIRD), "Bernoulli", [(0.3, {c: 1.0}), (0.3, {c: -1.0})]),
    "two real roots": (a + b * s - s**2, "Riccati", [(0.1, {a: 1.0, b: 0.4}), (5.0, {a: 1.0, b: -0.4})]),
    "double root": ((s - c) ** 2, "Riccati", [(-0.5, {c: 0.7}), (0.9, {c: 0.7})]),
    "complex roots": (1 + a**2 * s**2, "Riccati", [(-2.0, {a: 1.1}), (0.1, {a: 0.9})]),
    "unbalanced mode": (
        CONIC / tau,
        "conic",
        [(s0, {c: 1.3 * sign, delta: 0.8, lam: 0.6, tau: 0.7}) for s0 in (0.05, -0.2, 2.0) for sign in (1, -1)]
        + [(0.05, {c: 1.3, delta: 0.8, lam: 1e-9, tau: 0.7}), (0.05, {c: 1.3, delta: 0.0, lam: -0.3, tau: 2.0})],
    ),
    "square of a weight": (
        2 * sympy.sqrt(s) * sympy.sqrt(s + lam) * (c - delta * sympy.sqrt(s) * sympy.sqrt(s + lam)),
        "conic",
        [(0.3, {c: 1.3, delta: 0.8, lam: 0.5}), (0.8, {c: 1.3, delta: 0.8, lam: -0.5})],
    ),
    "depth N": (
        N * s ** (2 - 2 / N) * (c - delta * s) / tau,
        "two powers",
        [(s0, {N: depth, c: 1.2, delta: 0.9, tau: 1.5}) for depth in (3, 4, 7, 2.5) for s0 in (0.1, 0.9, 2.0)]
        + [(0.4, {N: 3, c: -1.2, delta: 0.9, tau: 1.5}), (4.0, {N: 5, c: -0.2, delta: 0.9, tau: 1.5})],
    ),
    "named wrong by dsolve": (s**2 * (c - s**3), "two powers", [(0.3, {c: 1.2}), (0.9, {c: 0.2})]),
    "rational": (s**2 * (c - s), "separation", [(0.3, {c: 1.2}), (1.9, {c: 1.2})]),
    "ratio": ((1 + s) / (1 + c**2 + s**2), "separation", [(0.3, {c: 1.2})]),
    "modulus": (2 * abs(s) * (c - delta * s), "logistic", [(0.3, {c: -1.2, delta: 1.0})]),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOWS)
def test_closed_forms_are_what_integration_gives(name):
    rate, method, cases = FLOWS[name]
    form = find_closed_form({s: rate}, t)
    assert isinstance(form, ClosedForm), form
    assert form.method.startswith(method)
    for start, values in cases:
        params = {str(k): v for k, v in values.items()}
        for time in (0.25, 1.1):
            if name == "complex roots" and start > 0 and time > 1:
                continue  # it has diverged
            reference = extrapolated(rate, start, values, time, steps=64 if name == "depth N" else 20)
            assert form(time, dict(s=start), params)["s"] == pytest.approx(reference, rel=CALL, abs=CALL / 100)


@pytest.mark.parametrize("name", [n for n, flow in FLOWS.items() if flow[1] not in ("two powers", "separation")])
def test_solutions_written_as_expressions_agree_with_calls(name):
    """The printed formula is not what calls compute, which avoid its cancellations."""
    rate, _, cases = FLOWS[name]
    form = find_closed_form({s: rate}, t)
    for start, values in cases:
        numbers = {k: sympy.Float(v, 40) for k, v in values.items()}
        start_symbol = sympy.Symbol("s_0", real=True)
        written = form.solution[s].subs({**numbers, start_symbol: sympy.Float(start, 40), t: sympy.Float(0.4, 40)})
        called = form(0.4, dict(s=start), {str(k): v for k, v in values.items()})["s"]
        assert float(sympy.re(written.evalf(30))) == pytest.approx(float(called), rel=CALL)


# -- known formulas ----------------------------------------------------------------------------------------------------


def test_balanced_modes_are_those_of_saxe():
    form = find_closed_form({s: 2 * s * (c - delta * s) / tau}, t)
    sigma, d, clock, s0, times = 1.7, 0.6, 1.3, 0.01, np.linspace(0, 8, 9)
    known = (sigma / d) / (1 + (sigma / (d * s0) - 1) * np.exp(-2 * sigma * times / clock))
    found = form(times, dict(s=s0), dict(c=sigma, delta=d, tau=clock))["s"]
    np.testing.assert_allclose(found, known, rtol=1e-14)
    end = 0.9 * sigma  # and the time from s0 to there, at delta = 1
    reaches = clock / (2 * sigma) * math.log(end * (sigma - s0) / (s0 * (sigma - end)))
    assert form(reaches, dict(s=s0), dict(c=sigma, delta=1.0, tau=clock))["s"] == pytest.approx(end, rel=1e-14)


@pytest.mark.parametrize("s0", [0.05, -0.4, 3.0])
def test_unbalanced_modes_are_a_moebius_transformation_of_u(s0):
    form = find_closed_form({s: CONIC / tau}, t)
    sigma, d, imbalance, clock, times = 1.7, 0.6, -0.5, 1.3, np.linspace(0, 4, 9)
    size, Gamma = abs(imbalance), math.hypot(2 * sigma, d * imbalance)
    u0 = (2 * s0 + math.hypot(imbalance, 2 * s0)) / size
    up, um = (2 * sigma + Gamma) / (d * size), (2 * sigma - Gamma) / (d * size)
    ratio = (u0 - up) / (u0 - um) * np.exp(-Gamma * times / clock)
    u = (up - um * ratio) / (1 - ratio)
    found = form(times, dict(s=s0), dict(c=sigma, delta=d, lam=imbalance, tau=clock))["s"]
    np.testing.assert_allclose(found, size / 4 * (u - 1 / u), rtol=1e-12, atol=1e-14)


def test_deep_modes_have_the_hypergeometric_time():
    form = find_closed_form({s: N * s ** (2 - 2 / N) * (c - s)}, t)
    start = sympy.Symbol("s_0", real=True)
    for depth, sigma, s0, s1 in itertools.product((3, 4, 6), (0.7, 2.0), (0.01, 0.2), (0.3, 0.6)):
        exponent = 1 - mpmath.mpf(2) / depth

        def phi(x, exponent=exponent, depth=depth, sigma=sigma):
            series = mpmath.hyp2f1(1, -exponent, 1 - exponent, mpmath.mpf(x) / sigma)
            return -(mpmath.mpf(x) ** -exponent) / (depth * exponent * sigma) * series

        time = float(phi(s1) - phi(s0))
        printed = form.implicit[s].rhs.subs({N: depth, c: sigma, s: s1, start: s0})
        assert float(printed.evalf(20)) == pytest.approx(time, rel=1e-13)
        # the time is rounded: that moves s by its speed
        speed = depth * s1 ** (2 - 2 / depth) * abs(sigma - s1)
        found = form(time, dict(s=s0), dict(N=depth, c=sigma))["s"]
        assert abs(found - s1) <= 1e-13 * s1 + 4 * np.finfo(float).eps * time * speed


@pytest.mark.parametrize("depth, s0, ratio", [(3, 1e-6, 0.993), (4, 1e-6, 0.9996)])
def test_escape_time_of_deep_modes(depth, s0, ratio):
    """Half of the way is reached at s0^(-(N-2)/N)/((N-2) sigma), up to a factor that tends to one."""
    form = find_closed_form({s: N * s ** (2 - 2 / N) * (c - s)}, t)
    asymptotic = s0 ** (-(depth - 2) / depth) / (depth - 2)
    times = asymptotic * np.array([ratio - 0.02, ratio + 0.02])
    before, after = form(times, dict(s=s0), dict(N=depth, c=1.0))["s"]
    assert before < 0.5 < after


def test_depth_two_is_logistic_and_depth_one_linear():
    assert find_closed_form({s: 2 * s ** (2 - sympy.Rational(2, 2)) * (c - s)}, t).method == "logistic"
    assert find_closed_form({s: s ** (2 - sympy.Rational(2, 1)) * (c - s)}, t).method == "linear"


# -- recognising structure ---------------------------------------------------------------------------------------------

i = sympy.Symbol("i", integer=True)
S, C, D = (sympy.IndexedBase(name) for name in "SCD")
x, y, z = sympy.symbols("x y z")  # without assumptions
WRITTEN = {
    "as in the paper": ({s: 2 * s * (c - delta * s)}, "s", dict(c=1.3, delta=0.8)),
    "expanded": ({s: sympy.expand(2 * s * (c - delta * s))}, "s", dict(c=1.3, delta=0.8)),
    "by its root": ({s: -2 * delta * s * (s - c / delta)}, "s", dict(c=1.3, delta=0.8)),
    "other names, no assumptions": ({x: x * (y - z * x) * 2}, "x", dict(y=1.3, z=0.8)),
    "a fraction": ({s: 2 * s * (c - delta * s) * (1 + s) / (s + 1)}, "s", dict(c=1.3, delta=0.8)),
    "an unreduced fraction": ({s: sympy.Mul(2 * s**2 * (c - delta * s), 1 / s)}, "s", dict(c=1.3, delta=0.8)),
    "entries": ({S[i]: 2 * S[i] * (C[i] - D[i] * S[i])}, "S", dict(C=[1.3], D=[0.8])),
    "numbers for entries": ({S[1]: 2 * S[1] * (C[1] - D[2] * S[1])}, "S[1]", dict(C=[1.3], D=[7.0, 0.8])),
    "squares": ({s: 2 * sympy.sqrt(s) ** 2 * (c - delta * s)}, "s", dict(c=1.3, delta=0.8)),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_the_logistic_equation_is_found_however_it_is_written(way):
    equations, name, params = WRITTEN[way]
    form = find_closed_form(equations, t)
    assert form.method == "logistic", form
    y0 = {name.split("[")[0]: 0.2 if name != "S[1]" else [0.2]}
    known = 1.3 / 0.8 / (1 + (1.3 / (0.8 * 0.2) - 1) * math.exp(-2.6))
    assert float(form(1.0, y0, params)[name].ravel()[0]) == pytest.approx(known, rel=1e-14)


@pytest.mark.parametrize(
    "rate",
    [
        CONIC,
        sympy.expand(CONIC),
        2 * sympy.sqrt(lam**2 / 4 + s**2) * (c - delta * s),
        c * sympy.sqrt(lam**2 + 4 * s**2) - delta * s * (lam**2 + 4 * s**2) / sympy.sqrt(lam**2 + 4 * s**2),
        sympy.factor(-delta * CONIC) / -delta,
    ],
)
def test_the_conic_is_found_however_it_is_written(rate):
    form = find_closed_form({s: rate}, t)
    assert form.method.startswith("conic")
    assert form(0.5, dict(s=-0.1), dict(c=1.0, delta=2.0, lam=0.3))["s"] == pytest.approx(0.06189635, abs=1e-8)


def test_conic_shifted_and_on_both_branches():
    """A general quadratic under the root, and a multiple of the root's square beside it."""
    square = 3 * s**2 + a * s + 5
    rate = sympy.sqrt(square) * (1 - s / 2) - square / 7
    form = find_closed_form({s: rate}, t)
    for start in (-1.0, 0.4):
        reference = extrapolated(rate, start, {a: 0.6}, 0.8)
        assert form(0.8, dict(s=start), dict(a=0.6))["s"] == pytest.approx(reference, rel=CALL)


def test_balanced_limit_of_the_conic_for_both_signs():
    """At lam = 0 the rate is 2|s|(c - delta s): logistic, and for negative s too. Deviations are of order lam^2/s."""
    form = find_closed_form({s: CONIC}, t)
    times, params = np.linspace(0, 3, 7), dict(c=1.3, delta=0.8)
    for sign in (1, -1):
        logistic = find_closed_form({s: 2 * s * (sign * c - sign * delta * s)}, t)
        known = logistic(times, dict(s=0.2 * sign), params)["s"]
        np.testing.assert_allclose(form(times, dict(s=0.2 * sign), dict(lam=0.0, **params))["s"], known, rtol=1e-13)
        near = form(times, dict(s=0.2 * sign), dict(lam=1e-6, **params))["s"]
        np.testing.assert_allclose(near, known, rtol=0, atol=1e-9)


# -- chains ------------------------------------------------------------------------------------------------------------

eta_a, eta_w, teacher = sympy.symbols("eta_a eta_w teacher", positive=True)
nu, inverse, w = sympy.symbols("nu inverse w", real=True)
NEURON = {
    w: -eta_w * w / inverse,
    inverse: -2 * (eta_a * nu + delta) * inverse + 2 * eta_w,
    nu: eta_w * teacher - delta * nu - eta_a * nu**2,
}


@pytest.mark.parametrize("a0", [0.3, 1.4])
def test_single_neuron_is_its_gradient_flow(a0):
    """Kunin et al. (2024): f = a w.x on white inputs, raw gradient flow with two learning rates."""
    rates, beta = (0.8, 1.7), np.array([1.2, -0.5, 0.3])
    w0 = np.array([0.4, 0.1, -0.6])
    flow = solve_ivp(
        lambda _, v: np.append(rates[0] * v[1:] @ (beta - v[0] * v[1:]), rates[1] * v[0] * (beta - v[0] * v[1:])),
        (0, 2), np.append(a0, w0), method="DOP853", rtol=1e-13, atol=1e-15, t_eval=[0.3, 2.0],
    )  # fmt: skip
    form = find_closed_form(NEURON, t)
    size = beta @ beta
    across = w0 - (w0 @ beta) / size * beta
    found = form(
        [0.3, 2.0],
        dict(nu=w0 @ beta / a0, inverse=a0**-2, w=across),
        dict(eta_a=rates[0], eta_w=rates[1], teacher=size, delta=rates[1] * a0**2 - rates[0] * w0 @ w0),
    )
    ends = flow.y.T
    along = ends[:, 1:] @ beta
    np.testing.assert_allclose(found["nu"][:, 0], along / ends[:, 0], rtol=1e-11)  # of the integration
    np.testing.assert_allclose(found["inverse"][:, 0], ends[:, 0] ** -2, rtol=1e-11)
    np.testing.assert_allclose(found["w"], ends[:, 1:] - along[:, None] * beta / size, rtol=1e-11)


def test_chain_at_long_times_and_balanced():
    """At delta = 0, where a Piecewise takes its limit, and when exponentials are beyond double precision."""
    form = find_closed_form(NEURON, t)
    params = dict(eta_a=1.0, eta_w=1.0, teacher=4.0, delta=0.0)
    end = form(1000.0, dict(nu=0.5, inverse=9.0, w=1.0), params)
    assert end["nu"] == pytest.approx(2.0, rel=1e-14)  # the teacher's norm
    assert end["inverse"] == pytest.approx(0.5, rel=1e-14)  # a^2 = |beta| when balanced
    assert end["w"] == pytest.approx(0.0, abs=1e-300)


def test_constants_and_logistic_drivers():
    decay = {q: -a * q * s, s: s * (c - s)}
    form = find_closed_form(decay, t)
    run = solve_ivp(
        lambda _, v: [-0.7 * v[0] * v[1], v[1] * (1.3 - v[1])], (0, 2), [0.5, 0.2], "DOP853", rtol=1e-13, atol=1e-15
    )
    found = form(2.0, dict(q=0.5, s=0.2), dict(a=0.7, c=1.3))
    assert found["q"] == pytest.approx(run.y[0, -1], rel=1e-11)


# -- verification ------------------------------------------------------------------------------------------------------


def test_wrong_candidates_are_refused(monkeypatch):
    """A detector that is wrong by a factor, or in its call only, is not believed."""

    def wrong(flow):
        return Solved(flow, "wrong", flow.start * sympy.exp(2 * flow.time))

    def wrong_call(flow):
        solution = flow.start * sympy.exp(flow.time)
        return Solved(flow, "wrong", solution, recipe=Recipe("linear", (flow.start, sympy.S.Zero, sympy.S(2))))

    def wrong_time(flow):
        return Solved(
            flow, "wrong", implicit=2 * sympy.log(flow.state), recipe=Recipe("line", (flow.start, flow.start))
        )

    monkeypatch.setattr(find, "AUTONOMOUS", (wrong, wrong_call, wrong_time))
    outcome = find_closed_form({s: s}, t)
    assert isinstance(outcome, NotFound)
    reasons = dict(outcome.tried)
    assert "residual" in reasons["wrong"] and "residual" in reasons["wrong_time"]
    assert "numerical call" in reasons["wrong_call"]


sigma, root, zz = sympy.symbols("sigma r z", positive=True)
NAMED = {  # integrals that sympy.integrate has had wrong with positive symbols
    "cube": 1 / (zz**2 * (sigma - zz**3)),
    "fifth power": 1 / (zz**4 * (sigma - zz**5)),
    "fifth power of a root": 1 / (zz**4 * (root**5 - zz**5)),
}


@pytest.mark.parametrize("name", [n if "root" not in n else pytest.param(n, marks=pytest.mark.slow) for n in NAMED])
def test_antiderivatives_known_to_be_wrong_are_refused_or_right(name):
    """What ``integrate`` returns is believed exactly if its numerical derivative is the integrand."""
    integrand = NAMED[name]
    found = sympy.integrate(integrand, zz)
    values = {sigma: sympy.Rational(13, 10), root: sympy.Rational(11, 10)}
    f = sympy.lambdify(zz, found.subs(values), "mpmath")
    exact = sympy.lambdify(zz, integrand.subs(values), "mpmath")
    with mpmath.workdps(40):
        points = [mpmath.mpf(3) / 10, mpmath.mpf(7) / 10]
        right = all(abs(mpmath.diff(f, p) - exact(p)) < 1e-12 * abs(exact(p)) for p in points)
    assert is_antiderivative(found, integrand, zz) == right


@pytest.mark.parametrize("name", NAMED)
def test_our_antiderivatives_of_them_are_right(name):
    integrand = NAMED[name]
    assert is_antiderivative(antiderivative(integrand, zz), integrand, zz)
    form = find_closed_form({zz: 1 / integrand}, t)
    values = {sigma: 1.3, root: 1.1}
    rate = (1 / integrand).subs(zz, s)
    params = {str(k): v for k, v in values.items() if integrand.has(k)}
    assert form(0.5, dict(z=0.4), params)["z"] == pytest.approx(extrapolated(rate, 0.4, values, 0.5), rel=CALL)


def test_verification_says_what_was_checked():
    (checked,) = find_closed_form({s: CONIC}, t).verified
    assert checked.points == 5
    assert checked.residual < 1e-30 and checked.integration < 1e-10 and checked.call < 1e-12


# -- what has no closed form -------------------------------------------------------------------------------------------

CHAIN = sympy.sqrt(q) * sympy.sqrt(q + a) * sympy.sqrt(q + b)
j = sympy.Symbol("j", integer=True)
NONE = {
    "unbalanced chain of depth 3": ({q: 2 * CHAIN * (c - CHAIN)}, "elliptic integral of q"),
    "unbalanced chain of depth 5": (
        {q: 2 * CHAIN * sympy.sqrt(q + 1) * sympy.sqrt(q + 2) * c},
        "hyperelliptic integral of q",
    ),
    "coupled layers": ({a: b * (c - a * b), b: a * (c - a * b)}, "a, b drive each other"),
    "other entries": ({S[i]: S[i] - S[j]}, "driven by another one, S[j]"),
    "sums": ({S[i]: S[i] * sympy.Sum(C[j], (j, 1, 3))}, "coupled, or parameters combined"),
    "an index as a number": ({S[i]: i * S[i]}, "the index i"),
    "explicit time": ({s: t * s}, "depends on t explicitly"),
    "transcendental": ({s: sympy.sin(s)}, "no detector recognises"),
    "driven quadratically": ({s: -s, q: s * q**2}, "no detector recognises dq/dt"),
    "driven by a source": ({s: -s, q: s - q}, "no detector recognises dq/dt"),
    "two symbols of one name": ({s: c * s + sympy.Symbol("c", positive=True)}, "the same name"),
}


@pytest.mark.parametrize("name", NONE)
def test_reasons(name):
    equations, reason = NONE[name]
    outcome = find_closed_form(equations, t)
    assert not outcome
    assert reason in outcome.reason


def test_balanced_chain_of_any_depth_is_found():
    form = find_closed_form({q: 2 * q ** (3 * THIRD * 3 / 2) * (c - q ** (sympy.Rational(3, 2)))}, t)
    assert form.method.startswith("two powers")


def test_results_are_values():
    form = find_closed_form({s: CONIC}, t)
    again = pickle.loads(pickle.dumps(form))
    assert again == form and hash(again) == hash(form)
    params = dict(c=1.0, delta=2.0, lam=0.3)
    assert again(0.5, dict(s=-0.1), params)["s"] == form(0.5, dict(s=-0.1), params)["s"]
    assert find_closed_form({s: CONIC}, t) == form
