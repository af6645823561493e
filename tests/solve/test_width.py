"""How far from the min-norm solution wide networks end: exact at each width over U_2, and as the width grows."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from effdyn.derive import ModelError
from effdyn.solve.implicit_bias import (
    TwoLayerRegression,
    conditional_mean,
    crossover_width,
    limit_of_flow,
    width_bound,
    width_distance,
    width_slope,
)

D, N, M = 12, 3, 2
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.75)


@pytest.fixture(scope="module")
def data():
    """Inputs of singular values 1.5, 1 and 0.7, and labels whose min-norm solution has 2 and 0.8."""
    rng = np.random.default_rng(7)
    W, Phi, A, B = (np.linalg.qr(rng.standard_normal((size, size)))[0] for size in (N, D, N, M))
    X = W @ np.diag([1.5, 1.0, 0.7]) @ Phi[:N]
    return X, X @ Phi[:N].T @ A[:, :M] @ np.diag([2.0, 0.8]) @ B


def draw(data, h, alpha, rng):
    return TwoLayerRegression(*data, *(h**-alpha * rng.standard_normal((size, h)) for size in (D, M)))


def raw_second_layer(problem):
    """Return V_∞ of the raw flow of U_1 and V, in which U_2 does not occur."""
    root, target = np.sqrt(problem.data.eigenvalues)[:, None], problem.data.target
    r, h = problem.U1.shape

    def rate(t, y):
        U1, V = y[: r * h].reshape(r, h), y[r * h :].reshape(-1, h)
        pull = root * (target - root * U1 @ V.T)
        return np.concatenate([(pull @ V).ravel(), (pull.T @ U1).ravel()])

    start = np.concatenate([problem.U1.ravel(), problem.V.ravel()])
    return solve_ivp(rate, (0, 60), start, method="DOP853", rtol=1e-9, atol=1e-11).y[r * h :, -1].reshape(-1, h)


@pytest.mark.parametrize("h, alpha", [(4, 0.5), (16, 0.3), (16, 0.75), (64, 0.5)])
def test_the_conditional_mean_is_that_over_u2(data, rng, h, alpha):
    problem = draw(data, h, alpha, rng)
    V_end, variance, runs = raw_second_layer(problem), h ** (-2 * alpha), 4000
    left = h**-alpha * rng.standard_normal((runs, D - N, h)) @ V_end.T
    squared = (left**2).sum((1, 2))
    error = squared.std(ddof=1) / np.sqrt(runs)
    expected = conditional_mean(problem, variance)
    assert error < 0.01 * expected, "an error of 5 % would be seen"
    assert abs(squared.mean() - expected) < 5 * error


def test_u2_need_not_be_gaussian_and_its_variance_is_free(data, rng):
    problem = draw(data, 16, 0.5, rng)
    V_end = raw_second_layer(problem)
    signs = 0.3 * rng.choice([-1.0, 1.0], (4000, D - N, 16)) @ V_end.T
    squared = (signs**2).sum((1, 2))
    assert abs(squared.mean() - conditional_mean(problem, 0.09)) < 5 * squared.std(ddof=1) / np.sqrt(4000)


def test_the_distance_of_a_draw_is_what_u2_leaves(data, rng):
    problem = draw(data, 32, 0.5, rng)
    left = problem.U2 @ raw_second_layer(problem).T
    assert problem.distance() == pytest.approx(np.linalg.norm(left), rel=1e-6)


# ── Large width ──


def mean_square(data, h, alpha, runs, rng):
    """Return the mean of the conditional mean over draws of U_1 and V, and its standard error."""
    X, Y = data
    small = TwoLayerRegression(X, Y, np.ones((D, 1)), np.ones((M, 1))).data
    found = []
    for _ in range(runs):  # in the span of the inputs: U_2 plays no part
        U1, V = (h**-alpha * rng.standard_normal((size, h)) for size in (N, M))
        seen = TwoLayerRegression(np.diag(np.sqrt(small.eigenvalues)), small.target, U1, V)
        found.append((D - N) * h ** (-2 * alpha) * np.trace(limit_of_flow(seen).R))
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(runs)


def check_slopes(data, alphas, widths, runs, rng):
    """Slopes of ln rms against ln h, measured and of the formula at the same widths, agree within 0.02."""
    x = np.log(widths)
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    for alpha in alphas:
        means, errors = np.array([mean_square(data, h, alpha, runs, rng) for h in widths]).T
        measured, error = weight @ np.log(means) / 2, np.sqrt(weight**2 @ (errors / means / 2) ** 2)
        predicted = weight @ np.log(width_distance(*data, widths, alpha))
        assert 5 * error < 0.02, "too noisy to see a difference of 0.02"
        assert abs(measured - predicted) < 0.02, alpha


def test_slopes_on_both_sides_of_one_half(data, rng):
    check_slopes(data, ALPHAS, (256, 1024, 4096), 8, rng)


@pytest.mark.slow
def test_slopes_over_two_decades_of_width(data, rng):
    check_slopes(data, ALPHAS, tuple(2**k for k in range(9, 16)), 16, rng)


@pytest.mark.parametrize("alpha", [0.4, 0.6])
def test_the_formula_is_the_limit_of_large_width(data, rng, alpha):
    means, errors = np.array([mean_square(data, h, alpha, 24, rng) for h in (64, 1024)]).T
    off = means / width_distance(*data, (64, 1024), alpha) ** 2 - 1
    error = errors / means
    # Corrections are O(1/h): (r + m)·[a number of order 1]/h = 0.5 % at h = 1024.
    assert 5 * error[1] + 0.005 < 0.05
    assert abs(off[1]) < 5 * error[1] + 0.005


def test_slope_is_the_derivative_and_lies_between_lazy_and_rich(data):
    h, alpha = np.geomspace(2, 1e6, 7)[:, None], np.array([0.25, *ALPHAS, 1.0])
    step = 1e-5
    up, down = (np.log(width_distance(*data, h * np.exp(sign * step), alpha)) for sign in (1, -1))
    slope = width_slope(*data, h, alpha)
    np.testing.assert_allclose(slope, (up - down) / (2 * step), atol=1e-9)  # rounding 1e-15/1e-5, curvature 1e-10
    lazy, rich = np.broadcast_to(0.5 - 2 * alpha, slope.shape), np.broadcast_to(-alpha, slope.shape)
    assert (slope <= np.maximum(lazy, rich) + 1e-12).all() and (slope >= np.minimum(lazy, rich) - 1e-12).all()
    np.testing.assert_allclose(width_slope(*data, 1e12, [0.25, 1.0]), [0.0, -1.0], atol=1e-4)


def test_at_the_crossover_kappa_is_a_singular_value(data):
    sigma = np.array([2.0, 0.8])
    for alpha in (0.3, 0.75):
        widths = crossover_width(*data, alpha)
        np.testing.assert_allclose(widths ** (1 - 2 * alpha), sigma, rtol=1e-12)
    # There, a single mode is √2 times what either side alone would say.
    one = (np.array([[1.0, 0.0, 0.0]]), np.array([[2.0]]))
    (h,) = crossover_width(*one, 0.25)
    assert width_distance(*one, h, 0.25) ** 2 == pytest.approx(2 * h**-0.5 * np.sqrt(2) * 2, rel=1e-12)


def test_the_theorems_bound_holds_and_so_do_its_events(data, rng):
    checked = 0
    for alpha in (0.4, 0.5):
        for h in (512, 4096):
            bound = width_bound(*data, h, alpha, delta=0.05)
            for _ in range(4):
                problem = draw(data, h, alpha, rng)
                of, lam = problem.imbalance, problem.data.eigenvalues
                lnc = 1 + np.sqrt(lam[0]) / lam[-1] * np.linalg.norm(problem.Y)
                start = np.linalg.norm(np.concatenate([problem.U1, problem.V]) @ problem.U2.T)
                events = (
                    of.first_rth + of.second_mth > h ** (1 - 2 * alpha),
                    np.sqrt(lam[0]) * np.linalg.norm(problem.E) / lam[-1] <= lnc,
                    start <= bound / np.exp(lnc * h ** (2 * alpha - 1)),
                )
                end = limit_of_flow(problem)
                spectral = np.linalg.norm(end.product - problem.min_norm, 2)
                assert all(events) and spectral <= bound
                checked += 1
    assert checked == 16


def test_the_theorems_constant_is_loose_and_its_exponent_lazy(data):
    assert width_bound(*data, 4096, 0.5) > 1e3 * width_distance(*data, 4096, 0.5)
    wide = np.array([1e15, 1e16])
    slope = np.diff(np.log(width_bound(*data, wide, 0.3))) / np.diff(np.log(wide))
    np.testing.assert_allclose(slope, 0.5 - 2 * 0.3, atol=1e-3)


@pytest.mark.parametrize(
    ("ask", "argument"),
    [
        (lambda X, Y: width_distance(X, Y, 0.5, 0.5), "h"),
        (lambda X, Y: width_distance(X, Y, 10, np.nan), "alpha"),
        (lambda X, Y: width_distance(X, Y[:1], 10, 0.5), "Y"),
        (lambda X, Y: width_bound(X, Y, 10, 0.6), "alpha"),
        (lambda X, Y: width_bound(X, Y, 10, 0.5, delta=0), "delta"),
        (lambda X, Y: crossover_width(X, Y, 0.5), "alpha"),
    ],
)
def test_questions_without_answer_are_refused(data, ask, argument):
    with pytest.raises(ModelError) as caught:
        ask(*data)
    assert caught.value.argument == argument


def test_a_flow_that_misses_the_solution_has_no_conditional_mean(data, rng):
    narrow = TwoLayerRegression(*data, rng.standard_normal((D, 1)), rng.standard_normal((M, 1)))
    with pytest.raises(ModelError, match="too narrow"):
        conditional_mean(narrow, 0.1)
    with pytest.raises(ModelError, match="variance"):
        conditional_mean(narrow, -1.0)
