"""What becomes of laws: every line of the table is compared with training that way."""

from functools import cache

import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from effdyn.derive.conservation.laws import conservation_laws
from effdyn.derive.conservation.modified_steps import inertia
from effdyn.derive.conservation.momentum import velocity
from effdyn.derive.conservation.networks import linear_network_parametrisation, relu_network_parametrisation
from effdyn.derive.conservation.parametrisation import Parametrisation
from effdyn.derive.conservation.polynomials import read_polynomial, whole_numbers

ROWS = ["any loss", "weight decay", "layer rates", "finite step", "SGD noise", "heavy ball"]


@cache
def laws():
    return conservation_laws(linear_network_parametrisation((2, 3, 2, 1)))


@cache
def table():
    return laws().survival()


class Training:
    """Gradient of a quartic loss of φ, and laws as functions of numbers."""

    def __init__(self, rng):
        self.theta = laws().parametrisation.theta
        self.phi = sympy.lambdify([self.theta], list(laws().parametrisation.phi))
        self.jacobian = sympy.lambdify(
            [self.theta], sympy.Matrix(laws().parametrisation.phi).jacobian(self.theta).tolist()
        )
        self.laws = sympy.lambdify([self.theta], list(laws().laws))
        self.target = rng.normal(size=len(laws().parametrisation.phi))
        self.start = rng.normal(size=len(self.theta)) * 0.7

    def gradient(self, w):
        return np.array(self.jacobian(w)).T @ ((np.array(self.phi(w)) - self.target) ** 3)

    def solve(self, flow, start, end):
        return solve_ivp(flow, (0, end), start, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]


# Of all comparisons of solutions below: some hundred steps with errors of 1e-10 in parameters of order one, and sums of
# about ten squares of them.
SOLVED = 1e-7


def test_every_way_of_training_has_its_line():
    assert [row.name for row in table().rows] == ROWS
    for row in table().rows:
        assert row.kept == row.total == laws().found
        assert row.name in str(table()) and row.name in table()._repr_html_() and row.name in table().latex()
    assert "h' = -2*h*mu" in str(table()) and "gamma*h' + h'' = 2*h(v)" in str(table())
    with pytest.raises(KeyError, match="weight decay"):
        table()["dropout"]


def test_weight_decay_lets_laws_decay_at_twice_its_rate(rng):
    training, mu, end = Training(rng), 0.4, 2.0
    (equation,) = table()["weight decay"].equations
    assert equation.rhs.as_coefficient(sympy.Function("h")(sympy.Symbol("t", real=True))) == -2 * sympy.Symbol(
        "mu", positive=True
    )
    last = training.solve(lambda _, w: -training.gradient(w) - mu * w, training.start, end)
    np.testing.assert_allclose(
        training.laws(last), np.exp(-2 * mu * end) * np.array(training.laws(training.start)), atol=SOLVED
    )
    kept = sympy.lambdify(
        [sympy.Symbol("t", real=True), sympy.Symbol("mu", positive=True), training.theta],
        list(table()["weight decay"].laws),
    )
    np.testing.assert_allclose(kept(end, mu, last), kept(0, mu, training.start), atol=SOLVED * np.exp(2 * mu * end))


def test_layer_rates_rescale_laws(rng):
    training, rates = Training(rng), [0.5, 1.0, 2.0]
    each = np.array([rates[n] for n in laws().parametrisation.layer_of])
    etas = [sympy.Symbol(f"eta_{n}", positive=True) for n in (1, 2, 3)]
    kept = sympy.lambdify([etas, training.theta], list(table()["layer rates"].laws))
    last = training.solve(lambda _, w: -each * training.gradient(w), training.start, 2.0)
    np.testing.assert_allclose(kept(rates, last), kept(rates, training.start), atol=SOLVED)
    plain = np.abs(np.subtract(training.laws(last), training.laws(training.start)))
    assert plain.max() > 1e-2, "the laws of equal rates hold as well: the test is blind"
    assert "finds 10 " not in table()["layer rates"].text and "finds 9" in table()["layer rates"].text


def test_layer_rates_by_the_books():
    """U Uᵀ/η_U − VᵀV/η_V for two layers."""
    row = conservation_laws(linear_network_parametrisation((2, 2, 1))).survival()["layer rates"]
    one, two = (sympy.Symbol(f"eta_{n}", positive=True) for n in (1, 2))
    W1, W2 = (sympy.IndexedBase(f"W{n}", real=True) for n in (1, 2))
    known = {
        W1[i, 1] * W1[j, 1] / one + W1[i, 2] * W1[j, 2] / one - W2[1, i] * W2[1, j] / two
        for i, j in ((1, 1), (1, 2), (2, 2))
    }
    assert set(row.laws) == known


def test_a_finite_step_changes_laws_by_eta_squared_h_of_the_gradient(rng):
    training, eta = Training(rng), 0.1
    g = training.gradient(training.start)
    change = np.subtract(training.laws(training.start - eta * g), training.laws(training.start))
    expected = eta**2 * np.array(training.laws(g))
    # A few dozen operations on numbers of order one.
    np.testing.assert_allclose(change, expected, atol=64 * 2.0**-52 * np.square(training.start).sum())
    assert np.abs(expected).max() > 1e-4


def test_heavy_ball_keeps_charges_and_drives_laws(rng):
    training, gamma, end = Training(rng), 0.7, 1.5
    size = len(training.theta)
    row = table()["heavy ball"]
    assert len(row.laws) == 3 + 1  # rotations of three and of two hidden units
    speeds = [velocity(s) for s in training.theta]
    charge = sympy.lambdify([training.theta, speeds], list(row.laws))
    drift = sympy.lambdify([training.theta], list(laws().laws))

    def flow(_, y):  # the integral of 2 h(v) e^{γt} rides along: h' = e^{−γt}(h'(0) + ∫ 2 h(v) e^{γs} ds)
        w, v = y[:size], y[size : 2 * size]
        return np.concatenate([v, -gamma * v - training.gradient(w), 2 * np.array(drift(v)) * np.exp(gamma * _)])

    start = np.concatenate([training.start, rng.normal(size=size) * 0.5, np.zeros(laws().found)])
    last = training.solve(flow, start, end)
    before, after = charge(start[:size], start[size : 2 * size]), charge(last[:size], last[size : 2 * size])
    np.testing.assert_allclose(after, np.exp(-gamma * end) * np.array(before), atol=SOLVED)
    assert np.abs(before).max() > 0.1

    slope = sympy.lambdify(
        [training.theta, speeds],
        [sum(sympy.diff(h, s) * v for s, v in zip(training.theta, speeds, strict=True)) for h in laws().laws],
    )
    begun, ended = (np.array(slope(y[:size], y[size : 2 * size])) for y in (start, last))
    np.testing.assert_allclose(ended, np.exp(-gamma * end) * (begun + last[2 * size :]), atol=SOLVED)
    lost = np.abs(np.subtract(training.laws(last[:size]), training.laws(training.start)))
    assert lost.max() > 0.05, "the laws are conserved after all"


def test_charges_of_two_layers_are_those_of_the_literature():
    """UᵀU' − U'ᵀU + VᵀV' − V'ᵀV."""
    row = conservation_laws(linear_network_parametrisation((2, 3, 1))).survival()["heavy ball"]
    W1, W2, D1, D2 = (sympy.IndexedBase(n, real=True) for n in ("W1", "W2", "W1dot", "W2dot"))
    known = [
        sum(W1[i, k] * D1[j, k] - W1[j, k] * D1[i, k] for k in (1, 2)) + W2[1, i] * D2[1, j] - W2[1, j] * D2[1, i]
        for i, j in ((1, 2), (1, 3), (2, 3))
    ]
    assert {sympy.expand(s * q) for q in row.laws for s in (1, -1)} == {
        sympy.expand(s * q) for q in known for s in (1, -1)
    }


@pytest.mark.parametrize("runs", [40_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_the_mean_drift_of_sgd_is_that_of_its_second_moments(runs, rng):
    """One example a step, y = w*·x + noise, Gaussian inputs: E[h(g)] by Isserlis, against steps that were taken.

    h_kl = W_k·W_l − v_k v_l, g_W = −e v xᵀ, g_v = −e W x, so h(g) = e²(v_k v_l |x|² − (Wx)_k (Wx)_l) and, with
    u = w* − Wᵀv, E e²|x|² = (d + 2)|u|² + dσ², E e²(Wx)(Wx)ᵀ = (|u|² + σ²) WWᵀ + 2 (Wu)(Wu)ᵀ.
    """
    d, h, eta, sigma = 4, 2, 0.05, 0.5
    laws = conservation_laws(linear_network_parametrisation((d, h, 1)))
    W, v, teacher = rng.normal(size=(h, d)), rng.normal(size=h), rng.normal(size=d)
    u, Wu = teacher - v @ W, W @ (teacher - v @ W)
    second = np.outer(v, v) * ((d + 2) * u @ u + d * sigma**2) - (u @ u + sigma**2) * W @ W.T - 2 * np.outer(Wu, Wu)
    expected = eta**2 * second[np.triu_indices(h)]

    x = rng.normal(size=(runs, d))
    e = x @ u + sigma * rng.normal(size=runs)
    moved_W = W + eta * e[:, None, None] * v[:, None] * x[:, None, :]
    moved_v = v + eta * e[:, None] * (x @ W.T)
    values = sympy.lambdify([laws.parametrisation.theta], list(laws.laws))
    after = np.array(values(np.concatenate([moved_W.reshape(runs, -1), moved_v], axis=1).T))
    change = after - np.array(values(np.concatenate([W.ravel(), v])))[:, None]
    error = change.std(axis=1, ddof=1) / np.sqrt(runs)
    z = (change.mean(axis=1) - expected) / error
    assert (np.abs(expected) > 20 * error).all(), "too coarse: a drift 5 % off would pass"
    assert (np.abs(z) < 4.5).all(), z  # three comparisons: once in 50 000 seeds
    equation = laws.survival()["SGD noise"].equations[0]
    assert str(equation) == "Eq(Derivative(E(h(t)), t), eta*E(h(g)))"


@pytest.mark.parametrize("terms", [{(0, 0): 1}, {(0, 1): 1}, {(0, 1): 2, (1, 2): -3, (0, 2): 1}])
def test_inertia_of_small_forms(terms):
    assert inertia(terms) == plain_inertia(terms, 3)


def plain_inertia(terms, size):
    """Signs of eigenvalues, in floating point."""
    matrix = np.zeros((size, size))
    for (i, j), c in terms.items():
        matrix[i, j] += c / 2
        matrix[j, i] += c / 2
    values = np.linalg.eigvalsh(matrix)
    return int((values > 1e-9).sum()), int((values < -1e-9).sum())


def test_inertia_of_random_forms(rng):
    for _ in range(50):
        factors = rng.integers(-2, 3, size=(int(rng.integers(1, 5)), 5))  # singular and indefinite alike
        signs = rng.choice([-1, 1], size=len(factors))
        matrix = np.einsum("k,ki,kj->ij", signs, factors, factors)
        form = {(i, j): int(matrix[i, j] * (1 + (i != j))) for i in range(5) for j in range(i, 5) if matrix[i, j]}
        assert inertia(form) == plain_inertia(form, 5)


def test_noise_has_the_squares_of_the_law():
    text = conservation_laws(relu_network_parametrisation((3, 2, 2))).survival()["SGD noise"].text
    assert "(3 − 2 squares), of one sign for 0 of 2 laws" in text


# -- what is not quadratic, or not homogeneous -------------------------------------------------------------------------


def test_laws_of_other_degrees():
    """A parameter that φ does not contain is a law of degree one, and nothing changes it but weight decay."""
    x, y, z = sympy.symbols("x y z", real=True)
    table = conservation_laws(Parametrisation([x * y], [x, y, z])).survival()
    assert {str(e.rhs) for e in table["weight decay"].equations} == {"-mu*h(t)", "-2*mu*h(t)"}
    assert set(table["finite step"].laws) == {z, z**2}
    assert table["finite step"].text.startswith("1 broken")
    assert "of one sign for 1 of 2 laws" in table["SGD noise"].text


def test_laws_of_several_degrees_decay_at_no_single_rate():
    x, y = sympy.symbols("x y", real=True)
    table = conservation_laws(Parametrisation([sympy.expand((x - 1) * (y - 1))], [x, y])).survival()
    assert table["weight decay"].kept == 0 and "1 with terms of several degrees" in table["weight decay"].text
    assert table["finite step"].kept == 0 and "in several powers" in table["finite step"].text
    assert table["SGD noise"].equations == () and table["heavy ball"].equations == ()


def test_layer_rates_break_laws_where_layers_cannot_be_rescaled():
    """Of φ = x + y the law x − y becomes x/η₁ − y/η₂, not that of θ_l/√η_l: counted, not claimed."""
    x, y = sympy.symbols("x y", real=True)
    row = conservation_laws(Parametrisation([x + y], [[x], [y]]), degree=1).survival()["layer rates"]
    assert row.kept == 0 and row.total == 1 and "finds 1" in row.text


def test_products_of_laws_step_in_higher_powers():
    laws = conservation_laws(linear_network_parametrisation((1, 1, 1)), degree=4)
    row = laws.survival()["finite step"]
    assert (row.kept, row.total) == (1, 2) and "1 of other degree than 2" in row.text
    assert whole_numbers(read_polynomial(laws.laws[1], laws.parametrisation.theta, "h")) == laws.polynomials[1]


def test_no_laws_no_survivors():
    table = conservation_laws(linear_network_parametrisation((2, 1, 1)), degree=1).survival()
    assert all((row.kept, row.total) == (0, 0) for row in table.rows)
    assert "0 of 0" in str(table)


def test_layer_rates_may_leave_no_polynomial_law():
    """φ = u² − v² conserves u v; at rates η₁, η₂ it is u^η₂ v^η₁."""
    u, v = sympy.symbols("u v", real=True)
    laws = conservation_laws(Parametrisation([u**2 - v**2], [[u], [v]]))
    assert laws.laws == (u * v,) and laws.complete
    row = laws.survival()["layer rates"]
    assert row.kept == 0 and "finds 0" in row.text
