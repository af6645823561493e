"""Matrix Riccati flows against gradient flow of the network itself, their formula in 400 digits, and known cases."""

import mpmath
import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from effdyn.derive import LinearNetwork, ModelError
from effdyn.derive.closed_flows.matrix_riccati import (
    start_balanced,
    start_symmetric,
    symmetric_factor,
)
from effdyn.solve.riccati import riccati

TIMES = np.array([0.0, 0.5, 1.0, 5.0, 30.0])
SHAPES = {  # n, m, h, lam
    "square": (3, 3, 3, 0.5),
    "bottleneck": (4, 5, 2, -0.7),
    "rectangular": (4, 3, 3, 0.4),
    "one hidden unit": (5, 3, 1, 0.3),
    "balanced": (3, 3, 3, 0.0),
    "balanced bottleneck": (4, 4, 2, 0.0),
    "more outputs": (3, 5, 3, -0.2),
    "wide, balanced": (3, 2, 6, 0.0),
}


def network(n, m, h, lam, seed=0):
    """Random weights with W2^T W2 - W1 W1^T = lam I, and a random correlation."""
    rng = np.random.default_rng(seed)
    if lam < 0:
        W1, W2, Sigma = network(m, n, h, -lam, seed)
        return W2.T, W1.T, Sigma.T
    rank = min(n, m, h)
    W1 = 0.5 * rng.normal(size=(h, rank)) @ np.linalg.qr(rng.normal(size=(n, rank)))[0].T
    values, vectors = np.linalg.eigh(W1 @ W1.T + lam * np.eye(h))
    values, vectors = values[::-1][:m], vectors[:, ::-1][:, :m]  # wide layers are balanced on their range only
    rotation = np.linalg.qr(rng.normal(size=(m, len(values))))[0]
    W2 = rotation @ (np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)
    return W1, W2, rng.normal(size=(m, n))


def gradient_flow(W1, W2, Sigma, times):
    """P along the flow of the weights themselves."""
    Q = weights_flow(W1, W2, Sigma, times)
    return Q @ Q.transpose(0, 2, 1)


def weights_flow(W1, W2, Sigma, times):
    """Q = [W1^T; W2] along it."""
    size = W1.size

    def rhs(_, y):
        A, B = y[:size].reshape(W1.shape), y[size:].reshape(W2.shape)
        E = Sigma - B @ A
        return np.concatenate([(B.T @ E).ravel(), (E @ A.T).ravel()])

    start = np.concatenate([W1.ravel(), W2.ravel()])
    run = solve_ivp(rhs, (0, times[-1]), start, "DOP853", t_eval=times, rtol=2.3e-14, atol=1e-15)
    return np.array([np.vstack([y[:size].reshape(W1.shape).T, y[size:].reshape(W2.shape)]) for y in run.y.T])


@pytest.mark.parametrize("shape", SHAPES)
def test_networks_train_as_their_closed_form_says(shape):
    """1e-11: SciPy's DOP853 at its finest tolerance, whose errors grow while modes escape."""
    W1, W2, Sigma = network(*SHAPES[shape])
    start = start_balanced(W1, W2, Sigma)
    assert start.lam == pytest.approx(SHAPES[shape][3], abs=1e-13)
    P = riccati(start.F, start.Q0, TIMES, coupling=start.coupling).P.values
    np.testing.assert_allclose(P, gradient_flow(W1, W2, Sigma, TIMES), rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_factor_steps_lose_nothing_against_the_formula_in_high_precision(shape):
    """The formula written in the docstring, in 400 digits, since exponentials reach 1e100."""
    start = start_balanced(*network(*SHAPES[shape]))
    P = riccati(start.F, start.Q0, TIMES).P.values
    scale = max(1.0, np.abs(P).max())
    with mpmath.workdps(400):
        F, Q = mpmath.matrix(start.F.tolist()), mpmath.matrix(start.Q0.tolist())
        rates, modes = mpmath.eigsy(F)
        for k, time in enumerate(TIMES[1:], 1):
            grow = mpmath.diag([mpmath.exp(r * time) for r in rates])
            phi = mpmath.diag([time if abs(r) < 1e-40 else mpmath.expm1(2 * r * time) / (2 * r) for r in rates])
            q = modes.T * Q
            middle = (mpmath.eye(Q.cols) + q.T * phi * q) ** -1
            exact = modes * grow * q * middle * q.T * grow * modes.T
            exact = np.array(exact.tolist(), float)
            # rounding of F and Q0 is amplified while modes escape from small weights, ten times at most here
            np.testing.assert_allclose(P[k], exact, rtol=0, atol=200 * np.finfo(float).eps * scale)


def test_symmetric_factors():
    rng = np.random.default_rng(3)
    Y, U = rng.normal(size=(4, 4)), 0.3 * rng.normal(size=(4, 2))
    Y = Y + Y.T
    start = start_symmetric(U, Y)
    P = riccati(start.F, start.Q0, TIMES, coupling=start.coupling).P.values
    run = solve_ivp(
        lambda _, u: ((Y - u.reshape(4, 2) @ u.reshape(4, 2).T) @ u.reshape(4, 2)).ravel(),
        (0, 30), U.ravel(), "DOP853", t_eval=TIMES, rtol=2.3e-14, atol=1e-15,
    )  # fmt: skip
    flow = np.array([u.reshape(4, 2) @ u.reshape(4, 2).T for u in run.y.T])
    np.testing.assert_allclose(P, flow, rtol=0, atol=1e-11)


def test_one_hidden_unit_gives_the_weights_themselves():
    W1, W2, Sigma = network(4, 1, 1, 0.3)
    start = start_balanced(W1, W2, Sigma)
    Q = riccati(start.F, start.Q0, TIMES).Q.values
    np.testing.assert_allclose(Q, weights_flow(W1, W2, Sigma, TIMES), rtol=0, atol=1e-11)


def test_singular_flows_take_the_limit_of_phi():
    """F = 0: P' = -P P, so that P = P0/(1 + P0 t) for one row; and a clock tau."""
    times = np.array([0.0, 2.0, 1000.0])
    P = riccati([[0.0]], [[1.5]], times, tau=2.0).P.values.ravel()
    np.testing.assert_allclose(P, 2.25 / (1 + 2.25 * times / 2), rtol=1e-14)


def test_long_times_reach_the_truncated_target():
    """The end is Sigma's best approximation of rank h; from tiny weights, without overflow."""
    W1, W2, Sigma = network(4, 4, 2, 0.0, seed=2)
    start = start_balanced(1e-6 * W1, 1e-6 * W2, Sigma)
    end = riccati(start.F, start.Q0, [400.0]).P.values[0, 4:, :4]
    u, values, v = np.linalg.svd(Sigma)
    np.testing.assert_allclose(end, u[:, :2] * values[:2] @ v[:2], rtol=0, atol=1e-12)


def test_times_between_do_not_matter():
    start = start_balanced(*network(3, 3, 3, 0.5))
    many = riccati(start.F, start.Q0, np.linspace(0, 5, 41)).P.values[-1]
    np.testing.assert_allclose(many, riccati(start.F, start.Q0, [5.0]).P.values[0], rtol=0, atol=1e-13)


def test_results_are_labelled():
    start = start_balanced(*network(3, 2, 2, 0.1))
    data = riccati(start.F, start.Q0, [0, 1])
    assert data.P.dims == ("t", "row", "column") and data.Q.shape == (2, 5, 2)
    assert data.attrs["theory_status"] == "exact" and data.attrs["status"] == "finished"


# -- where the form does not hold --------------------------------------------------------------------------------------


def test_generic_weights_are_refused_and_the_gram_closure_named():
    """Using the form there would be wrong by order one: here it is, beside the flow."""
    rng = np.random.default_rng(0)
    W1, W2, Sigma = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    with pytest.raises(ModelError, match=r'W1, W2.*lam I.*reduction="gram"'):
        start_balanced(W1, W2, Sigma)
    zero = np.zeros((3, 3))
    wrong = riccati(np.block([[zero, Sigma.T], [Sigma, zero]]), np.vstack([W1.T, W2]), [0.5]).P.values[0]
    assert np.abs(wrong - gradient_flow(W1, W2, Sigma, np.array([0.0, 0.5]))[1]).max() > 0.1


def test_imbalance_is_judged_to_a_hundred_millionth():
    W1, W2, Sigma = network(3, 3, 3, 0.5)
    start_balanced(W1, W2 + 1e-10, Sigma)
    with pytest.raises(ModelError, match="W1, W2"):
        start_balanced(W1, W2 + 1e-7, Sigma)


def test_coloured_inputs_are_refused():
    W1, W2, Sigma = network(2, 2, 1, 0.5)
    start_balanced(W1, W2, Sigma, input_covariance=np.eye(2))
    with pytest.raises(ModelError, match="white"):
        start_balanced(W1, W2, Sigma, input_covariance=np.diag([1.0, 2.0]))


@pytest.mark.parametrize(
    "arguments, name",
    [
        (([[0, 1], [2, 0]], np.ones((2, 1)), [1]), "F"),
        (([[0, 1, 2]], np.ones((2, 1)), [1]), "F"),
        ((np.eye(2), np.ones((3, 1)), [1]), "Q0"),
        ((np.eye(2), [[np.nan], [1]], [1]), "Q0"),
        ((np.eye(2), np.ones((2, 1)), [1, 0.5]), "t"),
        ((np.eye(2), np.ones((2, 1)), [-1]), "t"),
        ((np.eye(2), np.ones((2, 1)), [1], 0.0), "tau"),
        ((np.eye(2), np.ones((2, 1)), [1], 1.0, -1.0), "coupling"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ModelError, match=f"^{name} = "):
        riccati(*arguments)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3), (2, 3)), ((2, 3), (4, 2), (4, 4))])
def test_shapes_must_fit(shapes):
    with pytest.raises(ModelError, match="shapes"):
        start_balanced(*map(np.ones, shapes))


def test_target_must_be_symmetric():
    with pytest.raises(ModelError, match="symmetric"):
        start_symmetric(np.ones((2, 1)), [[0.0, 1.0], [2.0, 0.0]])


def test_forms_print():
    for form in (network_form(), symmetric_factor()):
        assert "phi" in str(form) and "residual" in str(form)
        assert form.latex().startswith(r"\begin{aligned}") and form.latex().count("{") == form.latex().count("}")
    assert "W2^T W2 - W1 W1^T = lambda I" in str(network_form())


def network_form():
    return LinearNetwork(inputs="whitened").dynamics("riccati").closed_form()


def test_the_linear_part_is_read_off_the_flow():
    """F = [[−λ/2, Σᵀ], [Σ, λ/2]] and κ = ½: Dominé et al. (2025)."""
    form = network_form()
    lam, (m, D) = sympy.Symbol("lam", real=True), sympy.symbols("m D", integer=True, positive=True)
    target = sympy.MatrixSymbol("S_yx", m, D)
    corner = lam / 2 * sympy.Identity(D)
    assert sympy.BlockMatrix([[-corner, target.T], [target, lam / 2 * sympy.Identity(m)]]) == form.F
    assert form.coupling == sympy.Rational(1, 2)


def test_called_with_weights_it_equals_the_flow_and_refuses_others(rng):
    form, target = network_form(), rng.standard_normal((3, 4))
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    first = 0.3 * rotation[:, :4]
    with pytest.raises(ModelError, match='reduction="gram"'):
        form([1.0], y0={"W1": first, "W2": rng.standard_normal((3, 5))}, params={"S_yx": target})
    with pytest.raises(ModelError, match="W1, W2, S_yx"):
        form([1.0], y0={"P": first.T @ first}, params={"S_yx": target})
    narrow, left = rotation[:2, :4], np.linalg.qr(rng.standard_normal((3, 2)))[0]
    second = left @ np.linalg.cholesky(narrow @ narrow.T + 0.5 * np.eye(2)).T
    y0 = {"W1": narrow, "W2": second}
    found = form([0.0, 1.0, 30.0], y0=y0, params={"S_yx": target})
    np.testing.assert_allclose(found["S"][0], narrow.T @ second.T, atol=1e-14)

    def rhs(_, y):
        w1, w2 = y[:8].reshape(2, 4), y[8:].reshape(3, 2)
        g = target - w2 @ w1
        return np.concatenate([(w2.T @ g).ravel(), (g @ w1.T).ravel()])

    y = solve_ivp(rhs, (0, 1), np.concatenate([narrow.ravel(), second.ravel()]), "DOP853", rtol=1e-13, atol=1e-15).y
    w1, w2 = y[:8, -1].reshape(2, 4), y[8:, -1].reshape(3, 2)
    np.testing.assert_allclose(found["S"][1], w1.T @ w2.T, atol=1e-11)
    np.testing.assert_allclose(found["R"][1], w2 @ w2.T, atol=1e-11)
    assert np.isfinite(found["P"]).all()
