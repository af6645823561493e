"""The derived equations of teacher–student SGD against the published ones, known limits, and a direct simulation.

References are written here from the papers in plain NumPy: Saad & Solla, Phys. Rev. E 52, 4225 (1995); Goldt et al.,
NeurIPS 2019; for polynomials and linear networks from Wick's theorem by hand. Compared through the reference
interpreter, effdyn.solve.kernels.reference.
"""

import math
import pickle

import numpy as np
import pytest
import sympy
from scipy import special

from effdyn import derive
from effdyn.derive import ModelError, Moment, NoClosedForm, NotYet, TeacherStudent
from effdyn.derive.increments import D
from effdyn.derive.moments import Dilation
from effdyn.solve.kernels.reference import Interpreter, evaluate, observe

SIZES = [(1, 1), (2, 1), (1, 3), (2, 2), (3, 2)]
ROUNDING = 1e-13
"""Relative to the largest entry: sums of up to a hundred terms of its size, each a few ulp off."""


def random_state(students, teachers, rng):
    """Overlaps of random vectors and parameters of order one."""
    dimension = students + teachers + 1
    vectors = rng.normal(size=(students + teachers, dimension)) / math.sqrt(dimension)
    gram = vectors @ vectors.T
    y = {"Q": gram[:students, :students], "R": gram[:students, students:]}
    params = {
        "T": gram[students:, students:],
        "a": rng.uniform(0.3, 1.5, students) * rng.choice([-1, 1], students),
        "b": rng.uniform(0.3, 1.5, teachers) * rng.choice([-1, 1], teachers),
        "eta": rng.uniform(0.2, 2.0),
        "eta_a": rng.uniform(0.2, 2.0),
        "sigma": rng.uniform(0.1, 1.0),
        "kappa": rng.uniform(0.05, 0.5),
    }
    return y, params


def rates(model, y, params, limit="high-dimensional"):
    """The derivatives of all states, given all parameters that any model might have."""
    dynamics = model.dynamics(limit=limit)
    params = {
        **params,
        "eta_a_over_eta": params["eta_a"] / params["eta"],
        "kappa_over_eta": params["kappa"] / params["eta"],
    }
    names = {q.name for q in dynamics.states}
    states = {**y, **({"a": params["a"]} if "a" in names else {})}
    return evaluate(dynamics, states, {q.name: params[q.name] for q in dynamics.parameters})


def assert_same(derived, published):
    assert set(derived) == set(published)
    for name, expected in published.items():
        assert derived[name].shape == np.shape(expected), name
        assert abs(derived[name] - expected).max() <= ROUNDING * (1 + abs(np.asarray(expected)).max()), name


# -- the published equations, straight from the papers -----------------------------------------------------------------


class Committee:
    """Student and teacher units in one list: overlaps Ω and error weights, y − φ = Σ_f c_f g(h_f)."""

    def __init__(self, y, params):
        self.students = len(y["Q"])
        self.omega = np.block([[y["Q"], y["R"]], [y["R"].T, params["T"]]])
        self.error = np.concatenate([-params["a"], params["b"]])
        self.fields = range(len(self.omega))

    def covariance(self, *fields):
        return self.omega[np.ix_(fields, fields)]


def erf_two(C):
    return 2 / math.pi * math.asin(C[0, 1] / math.sqrt((1 + C[0, 0]) * (1 + C[1, 1])))


def erf_two_slopes(C):
    return 2 / math.pi / math.sqrt((1 + C[0, 0]) * (1 + C[1, 1]) - C[0, 1] ** 2)


def erf_three(C):
    root = math.sqrt((1 + C[0, 0]) * (1 + C[2, 2]) - C[0, 2] ** 2)
    return 2 / math.pi / root * (C[1, 2] * (1 + C[0, 0]) - C[0, 1] * C[0, 2]) / (1 + C[0, 0])


def erf_four(C):
    (c11, c12, c13, c14), (_, c22, c23, c24), (_, _, c33, c34), (_, _, _, c44) = C
    l4 = (1 + c11) * (1 + c22) - c12**2
    l0 = l4 * c34 - c23 * c24 * (1 + c11) - c13 * c14 * (1 + c22) + c12 * c13 * c24 + c12 * c14 * c23
    l1 = l4 * (1 + c33) - c23**2 * (1 + c11) - c13**2 * (1 + c22) + 2 * c12 * c13 * c23
    l2 = l4 * (1 + c44) - c24**2 * (1 + c11) - c14**2 * (1 + c22) + 2 * c12 * c14 * c24
    return 4 / math.pi**2 / math.sqrt(l4) * math.asin(l0 / math.sqrt(l1 * l2))


ERF = (erf_two, erf_two_slopes, erf_three, erf_four)


def published(y, params, moments=ERF, eta_squared=True, kappa=0.0, train_a=False):
    """Saad & Solla's equations with Goldt et al.'s second layer, noise and weight decay, term by term."""
    two, two_slopes, three, four = moments
    net = Committee(y, params)
    a, c, K, M = params["a"], net.error, net.students, len(params["T"])
    eta, noise = params["eta"], params["sigma"] ** 2

    def drift(i, other):
        """E[F_i h_other]."""
        return a[i] * sum(c[f] * three(net.covariance(i, other, f)) for f in net.fields)

    def variance(i, k):
        """E[F_i F_k], label noise included."""
        squared_error = sum(c[f] * c[e] * four(net.covariance(i, k, f, e)) for f in net.fields for e in net.fields)
        return a[i] * a[k] * (squared_error + noise * two_slopes(net.covariance(i, k)))

    dQ = np.array([[eta * (drift(i, k) + drift(k, i)) - 2 * kappa * y["Q"][i, k] for k in range(K)] for i in range(K)])
    if eta_squared:
        dQ += eta**2 * np.array([[variance(i, k) for k in range(K)] for i in range(K)])
    dR = np.array([[eta * drift(i, K + n) - kappa * y["R"][i, n] for n in range(M)] for i in range(K)])
    result = {"Q": dQ, "R": dR}
    if train_a:
        gradient = [sum(c[f] * two(net.covariance(i, f)) for f in net.fields) for i in range(K)]
        result["a"] = params["eta_a"] * np.array(gradient) - kappa * a
    return result


def generalisation_error(y, params, two=erf_two):
    net = Committee(y, params)
    return sum(net.error[f] * net.error[e] * two(net.covariance(f, e)) for f in net.fields for e in net.fields) / 2


@pytest.mark.parametrize(("students", "teachers"), SIZES)
def test_saad_and_solla(students, teachers, rng):
    """The soft committee machine: a = b = 1, both orders in η; without noise, and with."""
    model = TeacherStudent(activation="erf")
    for sigma in (0.0, 0.7):
        y, params = random_state(students, teachers, rng)
        params |= {"a": np.ones(students), "b": np.ones(teachers), "sigma": sigma}
        assert_same(rates(model, y, params), published(y, params))


def test_each_order_in_the_learning_rate_on_its_own(rng):
    """dQ/dt is quadratic in η and dR/dt linear: the coefficients are those of the published terms."""
    y, params = random_state(3, 2, rng)
    model = TeacherStudent(activation="erf")
    once, twice = (rates(model, y, {**params, "eta": eta}) for eta in (1.0, 2.0))
    unit = {**params, "eta": 1.0}
    linear, both = published(y, unit, eta_squared=False), published(y, unit)
    assert abs((4 * once["Q"] - twice["Q"]) / 2 - linear["Q"]).max() < ROUNDING * 10
    assert abs((twice["Q"] - 2 * once["Q"]) / 2 - (both["Q"] - linear["Q"])).max() < ROUNDING * 10
    assert abs(twice["R"] - 2 * once["R"]).max() < ROUNDING * 10


@pytest.mark.parametrize(("students", "teachers"), SIZES)
def test_goldt_et_al(students, teachers, rng):
    """Second layer trained with its own rate, label noise, weight decay: −κ for every trained index."""
    y, params = random_state(students, teachers, rng)
    model = TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)
    assert_same(rates(model, y, params), published(y, params, kappa=params["kappa"], train_a=True))


@pytest.mark.parametrize("second_layer", ["fixed", "trained"])
def test_weight_decay_is_minus_kappa_per_trained_index(second_layer, rng):
    y, params = random_state(2, 3, rng)
    decayed = rates(TeacherStudent(activation="erf", second_layer=second_layer, weight_decay=True), y, params)
    free = rates(TeacherStudent(activation="erf", second_layer=second_layer), y, params)
    expected = {"Q": -2 * params["kappa"] * y["Q"], "R": -params["kappa"] * y["R"], "a": -params["kappa"] * params["a"]}
    assert_same({name: decayed[name] - free[name] for name in free}, {name: expected[name] for name in free})


@pytest.mark.parametrize(("students", "teachers"), SIZES)
def test_gradient_flow_is_the_first_order_in_the_learning_rate(students, teachers, rng):
    """t = η·steps/d: the η¹ terms divided by η, and κ/η, η_a/η in place of κ, η_a."""
    y, params = random_state(students, teachers, rng)
    model = TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)
    flow = rates(model, y, params, limit="gradient-flow")
    first_order = published(y, params, eta_squared=False, kappa=params["kappa"], train_a=True)
    assert_same(flow, {name: rate / params["eta"] for name, rate in first_order.items()})


def test_gradient_flow_has_no_learning_rate():
    dynamics = TeacherStudent(activation="erf").dynamics(limit="gradient-flow")
    assert "eta" not in {q.name for q in dynamics.parameters}
    assert dynamics.clock == "eta*steps/d"
    for equation in dynamics.drift:
        assert "eta" not in {s.name for s in equation.expr.free_symbols if isinstance(s, sympy.Symbol)}


# -- polynomials, by hand ----------------------------------------------------------------------------------------------


def linear_rates(y, params):
    """Linear units: with e = Σ_f c_f v_f the error's own vector, F_i = a_i (e·x/√d + σζ)."""
    net = Committee(y, params)
    K, a, eta = net.students, params["a"], params["eta"]
    with_error = net.omega @ net.error  # v_f·e/d
    squared_error = net.error @ with_error  # e·e/d
    dQ = eta * (np.outer(a, with_error[:K]) + np.outer(with_error[:K], a))
    dQ += eta**2 * np.outer(a, a) * (squared_error + params["sigma"] ** 2)
    return {"Q": dQ, "R": eta * np.outer(a, with_error[K:]), "a": params["eta_a"] * with_error[:K]}


@pytest.mark.parametrize(("students", "teachers"), SIZES)
def test_linear_network(students, teachers, rng):
    y, params = random_state(students, teachers, rng)
    model = TeacherStudent(activation="linear", second_layer="trained")
    assert_same(rates(model, y, params), linear_rates(y, params))


def square_rates(y, params, centred):
    """g = h² (or h² − 1), with N = Σ_f c_f v_f v_fᵀ/d the error's quadratic form: Δ = hᵀ…h − trace or constant.

    The error is Δ = x·N x (+ const) + σζ, F_i = 2 a_i h_i Δ. Wick: E[h_i h_g (Δ − E Δ)] = 2 (ΩCΩ)_ig with C = diag(c);
    E[Δ²] = (E Δ)² + 2 tr (ΩC)²; E[h_i h_k Δ²] = Ω_ik E[Δ²] + 4 E[Δ] (ΩCΩ)_ik + 8 (ΩCΩCΩ)_ik.
    """
    net = Committee(y, params)
    K, a, eta, omega = net.students, params["a"], params["eta"], net.omega
    C = np.diag(net.error)
    once = omega @ C @ omega
    twice = once @ C @ omega
    mean = np.trace(omega @ C) - (net.error.sum() if centred else 0.0)
    power = mean**2 + 2 * np.trace(omega @ C @ omega @ C) + params["sigma"] ** 2
    drift = 2 * np.concatenate([a, np.zeros(len(C) - K)])[:, None] * (mean * omega + 2 * once)  # E[F_f h_g]
    noise = 4 * np.outer(a, a) * (power * omega + 4 * mean * once + 8 * twice)[:K, :K]
    gradient = (mean * (np.diag(omega) - centred) + 2 * np.diag(once))[:K]
    return {
        "Q": eta * (drift + drift.T)[:K, :K] + eta**2 * noise,
        "R": eta * drift[:K, K:],
        "a": params["eta_a"] * gradient,
    }


@pytest.mark.parametrize(("students", "teachers"), SIZES)
@pytest.mark.parametrize("activation", ["square", "He2"])
def test_quadratic_networks(activation, students, teachers, rng):
    y, params = random_state(students, teachers, rng)
    model = TeacherStudent(activation=activation, second_layer="trained")
    assert_same(rates(model, y, params), square_rates(y, params, centred=activation == "He2"))


def test_phase_retrieval(rng):
    """One unit each, g = h², a = b = 1: with q = Q, r = R, ρ = T every moment is a polynomial one can write down."""
    y, params = random_state(1, 1, rng)
    q, r, t, eta = y["Q"][0, 0], y["R"][0, 0], params["T"][0, 0], params["eta"]
    params |= {"a": np.ones(1), "b": np.ones(1), "sigma": 0.0}
    derived = rates(TeacherStudent(activation="square"), y, params)
    drift_q = 2 * (q * t + 2 * r**2 - 3 * q**2)  # E[2 h (h*² − h²) h]
    drift_r = 2 * (3 * r * t - 3 * q * r)  # E[2 h (h*² − h²) h*]
    noise = 4 * (3 * q * t**2 + 12 * r**2 * t - 6 * q**2 * t - 24 * q * r**2 + 15 * q**3)  # E[4 h² (h*² − h²)²]
    assert derived["Q"][0, 0] == pytest.approx(2 * eta * drift_q + eta**2 * noise, rel=ROUNDING, abs=ROUNDING)
    assert derived["R"][0, 0] == pytest.approx(eta * drift_r, rel=ROUNDING, abs=ROUNDING)


def test_a_linear_student_of_an_erf_teacher_learns_its_linear_part(rng):
    """E[h g̃(h*)] = E[g̃'] Cov: to first order in η the teacher is √(2/π)/√(1+T) times a linear one (K = M = 1)."""
    y, params = random_state(1, 1, rng)
    flow = rates(TeacherStudent(activation="linear", teacher_activation="erf"), y, params, limit="gradient-flow")
    slope = math.sqrt(2 / math.pi) / math.sqrt(1 + params["T"][0, 0])
    a, b, q, r, t = params["a"][0], params["b"][0], y["Q"][0, 0], y["R"][0, 0], params["T"][0, 0]
    assert flow["R"][0, 0] == pytest.approx(a * (b * slope * t - a * r), rel=ROUNDING)
    assert flow["Q"][0, 0] == pytest.approx(2 * a * (b * slope * r - a * q), rel=ROUNDING)


# -- invariances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "number"), [("1/K", lambda K: 1 / K), ("1/sqrt(K)", lambda K: K**-0.5), (0.5, lambda K: 0.5)]
)
@pytest.mark.parametrize("students", [1, 3])
def test_output_scale_is_a_rescaled_second_layer(scale, number, students, rng):
    """φ depends on s·a alone, so Q and R move as with a → s a; and ∂φ/∂a_i = s g, so a moves s times as fast."""
    y, params = random_state(students, 2, rng)
    s = number(students)
    scaled = rates(TeacherStudent(activation="erf", second_layer="trained", output_scale=scale), y, params)
    plain = rates(TeacherStudent(activation="erf", second_layer="trained"), y, {**params, "a": s * params["a"]})
    assert_same(scaled, {"Q": plain["Q"], "R": plain["R"], "a": s * plain["a"]})


def test_a_perfect_student_without_noise_stays_perfect(rng):
    _, params = random_state(3, 3, rng)
    y = {"Q": params["T"], "R": params["T"]}
    params |= {"a": params["b"], "sigma": 0.0}
    for activation in ("erf", "linear", "square", "He3"):
        derived = rates(TeacherStudent(activation=activation, second_layer="trained"), y, params)
        for name, rate in derived.items():
            assert abs(rate).max() < 1e-11, (activation, name)  # He3's ten-point functions are of order a hundred


def test_order_of_units_says_nothing(rng):
    y, params = random_state(4, 3, rng)
    model = TeacherStudent(activation="erf", teacher_activation="He3")
    students, teachers = rng.permutation(4), rng.permutation(3)
    shuffled = rates(
        model,
        {"Q": y["Q"][np.ix_(students, students)], "R": y["R"][np.ix_(students, teachers)]},
        {
            **params,
            "T": params["T"][np.ix_(teachers, teachers)],
            "a": params["a"][students],
            "b": params["b"][teachers],
        },
    )
    plain = rates(model, y, params)
    expected = {"Q": plain["Q"][np.ix_(students, students)], "R": plain["R"][np.ix_(students, teachers)]}
    assert_same(shuffled, expected)


# -- observables -------------------------------------------------------------------------------------------------------


def observables(model, y, params):
    dynamics = model.dynamics()
    states = {**y, **({"a": params["a"]} if "a" in {q.name for q in dynamics.states} else {})}
    return observe(dynamics, states, {q.name: params[q.name] for q in dynamics.parameters})


@pytest.mark.parametrize(("students", "teachers"), SIZES)
def test_errors_and_cosines(students, teachers, rng):
    y, params = random_state(students, teachers, rng)
    for second_layer in ("fixed", "trained"):
        seen = observables(TeacherStudent(activation="erf", second_layer=second_layer), y, params)
        error = generalisation_error(y, params)
        assert seen["eg"] == pytest.approx(error, rel=ROUNDING)
        assert seen["loss"] == pytest.approx(error + params["sigma"] ** 2 / 2, rel=ROUNDING)
        lengths, teacher_lengths = np.sqrt(np.diag(y["Q"])), np.sqrt(np.diag(params["T"]))
        np.testing.assert_allclose(seen["cosine"], y["R"] / lengths[:, None] / teacher_lengths, rtol=ROUNDING)
        np.testing.assert_allclose(seen["cosine_students"], y["Q"] / lengths[:, None] / lengths, rtol=ROUNDING)


def test_cosines_are_those_of_the_vectors(rng):
    students, teachers = rng.normal(size=(3, 50)), rng.normal(size=(2, 50))
    y = {"Q": students @ students.T / 50, "R": students @ teachers.T / 50}
    params = random_state(3, 2, rng)[1] | {"T": teachers @ teachers.T / 50}
    seen = observables(TeacherStudent(activation="square"), y, params)
    expected = [[u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in teachers] for u in students]
    np.testing.assert_allclose(seen["cosine"], expected, rtol=ROUNDING)
    assert np.diag(seen["cosine_students"]) == pytest.approx(np.ones(3), rel=ROUNDING)


# -- the finite model itself -------------------------------------------------------------------------------------------


def one_step_increments(weights, teacher, params, samples, rng):
    """d·ΔQ, d·ΔR, d·Δa of one SGD step from the same weights, for many inputs: the network as one would train it."""
    d, K = weights.shape[1], len(weights)
    a, b, eta, kappa = params["a"], params["b"], params["eta"], params["kappa"]
    x = rng.normal(size=(samples, d))
    h, h_star = x @ weights.T / math.sqrt(d), x @ teacher.T / math.sqrt(d)
    phi = special.erf(h / math.sqrt(2)) @ a
    error = special.erf(h_star / math.sqrt(2)) @ b + params["sigma"] * rng.normal(size=samples) - phi
    step = eta * a * math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2) * error[:, None] / math.sqrt(d)
    moved = (1 - kappa / d) * weights + step[:, :, None] * x[:, None, :]
    dQ = np.einsum("sid,skd->sik", moved, moved) - weights @ weights.T
    dR = np.einsum("sid,nd->sin", moved, teacher) - weights @ teacher.T
    da = params["eta_a"] * special.erf(h / math.sqrt(2)) * error[:, None] - kappa * a
    assert dQ.shape[1:] == (K, K)
    return {"Q": dQ, "R": dR, "a": da}


def dropped_rates(dynamics, values, d):
    """What the limit d → ∞ leaves out of the mean of one step, at this d."""
    interpreter = Interpreter(dynamics, values)
    shapes = {q.name: (q, tuple(interpreter.sizes[s] for s in q.shape)) for q in dynamics.states}
    total = {name: np.zeros(shape) for name, (_, shape) in shapes.items()}
    for dropped in dynamics.dropped:
        quantity, shape = shapes[dropped.quantity]
        term = dropped.term
        expr = sympy.Mul(term.coefficient.subs(D, d), *term.factors)
        if term.indices:
            expr = sympy.Sum(expr, *((index, 1, size) for index, size in reversed(term.indices)))
        for place in np.ndindex(*shape):
            index = {i: n + 1 for i, n in zip(quantity.indices, place, strict=True)}
            total[dropped.quantity][place] += interpreter.value(expr, index)
    return total


def test_mean_of_one_step_of_the_finite_model(rng):
    """The limit is off by O(1/d); with the dropped terms (2/d) ∂_s E_{sΩ}[F F] and κ's cross terms it is exact."""
    K, M, samples, batches = 2, 2, 20_000, 60
    model = TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)
    dynamics = model.dynamics()
    deviation_seen = 0.0
    smallest = []
    for d in (K + M, 8, 20):
        weights, teacher = rng.normal(size=(K, d)), rng.normal(size=(M, d))
        params = {"eta": 1.6, "eta_a": 0.7, "sigma": 0.3, "kappa": 0.4, "b": np.array([1.0, 0.6])}
        params |= {"T": teacher @ teacher.T / d}
        y = {"Q": weights @ weights.T / d, "R": weights @ teacher.T / d, "a": np.array([0.9, -1.2])}
        limit, correction = evaluate(dynamics, y, params), dropped_rates(dynamics, {**y, **params}, d)
        parts = [one_step_increments(weights, teacher, {**params, "a": y["a"]}, samples, rng) for _ in range(batches)]
        for name in limit:
            sample = np.concatenate([part[name] for part in parts])
            mean, error = sample.mean(0), sample.std(0, ddof=1) / math.sqrt(len(sample))
            exact = limit[name] + correction[name]
            assert (abs(mean - exact) < 5 * error).all(), (d, name)
            deviation_seen = max(deviation_seen, (abs(mean - limit[name]) / error).max())
            smallest.append((5 * error).max())
    assert max(smallest) < 0.02, "too coarse: terms are of order one, and one that is 2 % off would pass"
    assert deviation_seen > 10, "the limit alone would have passed: the dropped terms were not tested"


@pytest.mark.slow
def test_mean_of_one_step_in_high_dimension(rng):
    """At d = 400 the limit itself: what was dropped is smaller than the statistical error."""
    K, M, d, samples, batches = 3, 2, 400, 2_000, 200
    dynamics = TeacherStudent(activation="erf", second_layer="trained").dynamics()
    weights, teacher = rng.normal(size=(K, d)), rng.normal(size=(M, d))
    params = {"eta": 1.2, "eta_a": 0.7, "sigma": 0.3, "b": np.array([1.0, 0.6]), "T": teacher @ teacher.T / d}
    y = {"Q": weights @ weights.T / d, "R": weights @ teacher.T / d, "a": np.array([0.9, -1.2, 0.5])}
    limit, bias = evaluate(dynamics, y, params), dropped_rates(dynamics, {**y, **params}, d)
    full = {**params, "a": y["a"], "kappa": 0.0}
    parts = [one_step_increments(weights, teacher, full, samples, rng) for _ in range(batches)]
    for name in limit:
        sample = np.concatenate([part[name] for part in parts])
        mean, error = sample.mean(0), sample.std(0, ddof=1) / math.sqrt(len(sample))
        assert (abs(bias[name]) < 0.005).all()
        assert (5 * error < 0.02).all(), "too coarse: terms are of order one, and one that is 2 % off would pass"
        assert (abs(mean - limit[name]) < 5 * error + abs(bias[name])).all(), name


def test_dilation_is_the_derivative_with_respect_to_scale(rng):
    """∂_s E_{sΩ} by finite differences, to the accuracy that these have."""
    dynamics = TeacherStudent(activation="erf").dynamics()
    y, params = random_state(2, 2, rng)
    values = {**y, **{q.name: params[q.name] for q in dynamics.parameters}}
    moments = {m for dropped in dynamics.dropped for f in dropped.term.factors for m in f.atoms(Moment)}
    index = {
        s: 1 + n % 2
        for n, s in enumerate(sorted({i for m in moments for i in m.free_symbols if i.is_integer}, key=str))
    }
    step = 1e-4

    def stretched(moment, s):
        scaled = {**values, **{name: s * values[name] for name in ("Q", "R", "T")}}
        return Interpreter(dynamics, scaled).value(moment, index)

    assert moments
    for moment in moments:
        slope = (stretched(moment, 1 + step) - stretched(moment, 1 - step)) / (2 * step)
        derived = Interpreter(dynamics, values).value(Dilation(moment), index)
        assert derived == pytest.approx(slope, rel=1e-6, abs=1e-7)  # step² and ε/step


# -- provenance and value semantics ------------------------------------------------------------------------------------

VALUES = [
    TeacherStudent(),
    TeacherStudent(activation="erf", second_layer="trained", weight_decay=True, output_scale="1/sqrt(K)"),
    TeacherStudent(activation="x**3 - x", teacher_activation="He2"),
    TeacherStudent(activation=lambda h: sympy.erf(h) / 2, output_scale=0.25),
]


@pytest.mark.parametrize("model", VALUES, ids=repr)
@pytest.mark.parametrize("limit", ["high-dimensional", "gradient-flow"])
def test_dynamics_are_values(model, limit):
    dynamics = model.dynamics(limit=limit)
    again = pickle.loads(pickle.dumps(dynamics))
    assert again == dynamics and hash(again) == hash(dynamics)
    assert eval(repr(dynamics), vars(derive)) == dynamics
    assert eval(repr(model), vars(derive)) == model
    assert pickle.loads(pickle.dumps(model)) == model
    with pytest.raises(AttributeError):
        dynamics.drift = ()
    with pytest.raises(AttributeError):
        model.activation = "linear"


def test_equal_models_give_equal_dynamics():
    one = TeacherStudent(activation="erf")
    other = TeacherStudent(
        activation=lambda h: sympy.erf(h / sympy.sqrt(2)), teacher_activation="erf", output_scale="K/K"
    )
    assert one == other and hash(one) == hash(other)
    assert one.dynamics() == other.dynamics()
    assert one.dynamics() != one.dynamics(limit="gradient-flow")
    assert one.dynamics() != TeacherStudent(activation="erf", second_layer="trained").dynamics()


def test_the_derivation_is_kept():
    dynamics = TeacherStudent(activation="erf", weight_decay=True).dynamics()
    assert dynamics.steps and dynamics.assumptions and dynamics.status
    for step in dynamics.steps:
        assert step.title and step.explanation and step.equations
    assert dynamics.steps[-1].equations[0][1] == dynamics.drift[0].expr
    assert {dropped.order for dropped in dynamics.dropped} == {"1/d"}
    assert {dropped.quantity for dropped in dynamics.dropped} == {"Q"}, "dR/dt is exact at every d"
    flow = TeacherStudent(activation="erf").dynamics(limit="gradient-flow")
    orders = {dropped.order for dropped in flow.dropped}
    assert "eta" in orders and any("1/d" in order for order in orders)


def test_gradient_flow_drops_the_squared_learning_rate_term_by_term():
    """The η² term has four moments (three of the squared error, the noise), each with its 1/d correction."""
    model = TeacherStudent(activation="erf")
    orders = [dropped.order for dropped in model.dynamics(limit="gradient-flow").dropped]
    assert orders.count("eta") == 4
    assert len(orders) == 8


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"activation": "errf"}, "activation"),
        ({"activation": 1j}, "activation"),
        ({"teacher_activation": "x*y"}, "teacher_activation"),
        ({"loss": "squarred"}, "loss"),
        ({"loss": 3}, "loss"),
        ({"second_layer": "free"}, "second_layer"),
        ({"batch": 8}, "batch"),
        ({"momentum": 0.9}, "momentum"),
        ({"momentum": True}, "momentum"),
        ({"second_layer": ["trained"]}, "second_layer"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"output_scale": 0}, "output_scale"),
        ({"output_scale": "1/M"}, "output_scale"),
        ({"output_scale": None}, "output_scale"),
        ({"output_scale": math.inf}, "output_scale"),
        ({"output_scale": math.nan}, "output_scale"),
    ],
)
def test_what_states_no_model_is_refused(options, argument):
    with pytest.raises(ModelError) as caught:
        TeacherStudent(**options)
    error = caught.value
    assert error.argument == argument
    assert error.given == options[argument] or str(error.given) == str(options[argument])
    assert error.accepted
    again = pickle.loads(pickle.dumps(error))
    assert (again.argument, str(again.given), again.accepted) == (error.argument, str(error.given), error.accepted)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"loss": "hinge"}, "loss"),
        ({"loss": "0-1"}, "loss"),
        ({"loss": "Heaviside(-phi*y)", "labels": "sign"}, "loss"),
        ({"loss": "y**2"}, "loss"),
        ({"loss": "absolute", "activation": "Max(Min(x, 1), -1)", "second_layer": "trained"}, "loss"),
        ({"loss": lambda phi: phi}, "loss"),
        ({"labels": "binary"}, "labels"),
        ({"biases": 1.0}, "biases"),
        ({"target": "h1*x"}, "target"),
        ({"target": "2"}, "target"),
        ({"target": "h1", "teacher_activation": "linear"}, "teacher_activation"),
        ({"activation": sympy.sign(sympy.Symbol("x"))}, "activation"),
    ],
)
def test_parts_that_state_no_model_or_do_not_go_together_are_refused(options, argument):
    with pytest.raises(ModelError) as caught:
        TeacherStudent(**options)
    assert caught.value.argument == argument
    assert caught.value.accepted


@pytest.mark.parametrize("limit", ["mean field", "", None, 3])
def test_an_unknown_limit_is_refused(limit):
    with pytest.raises(ModelError) as caught:
        TeacherStudent().dynamics(limit=limit)
    assert caught.value.argument == "limit"
    assert caught.value.given == limit
    assert "high-dimensional" in caught.value.accepted


def test_what_is_designed_but_not_there_says_so():
    with pytest.raises(NotYet) as caught:
        TeacherStudent(inputs="shifted", target="h1*h2")
    assert "target=" in caught.value.option
    assert caught.value.instead
    assert isinstance(caught.value, NotImplementedError)
    assert pickle.loads(pickle.dumps(caught.value)).option == caught.value.option


def test_no_closed_form_is_raised_where_the_model_is_named():
    with pytest.raises(NoClosedForm, match="tanh"):
        TeacherStudent(activation="tanh").dynamics(moments="closed")
    assert TeacherStudent(activation="tanh").dynamics(), "what has no closed form is computed numerically by default"
