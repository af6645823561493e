"""Stochastic equations: orders fitted on problems with known solutions, statistics in standard errors, streams."""

import _thread
import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import sympy

from effdyn import solve
from effdyn.derive import Dynamics, Equation, ModelError, Quantity
from effdyn.derive.diffusion import Amplitude, Covariation
from effdyn.solve.stochastic.commutative import amplitudes
from effdyn.solve.stochastic.integrate import METHODS
from effdyn.solve.stochastic.replicas import Plan, path
from effdyn.solve.stochastic.system import system_of

i, j, k, l, a = (sympy.Symbol(name, integer=True) for name in "ijkla")
N, D = (sympy.Symbol(name, integer=True, positive=True) for name in "ND")


def sde(drift, *diffusion, parameters=(), observables=()):
    equations = tuple(Equation(*pair) for pair in drift)
    return Dynamics("test", "sde", "t", equations, tuple(parameters), tuple(observables), diffusion=diffusion)


# -- problems with known solutions -------------------------------------------------------------------------------------

x, W = Quantity("x"), Quantity("W")
mu, s = Quantity("mu"), Quantity("s")
GEOMETRIC = sde([(x, mu.symbol * x.symbol)], Amplitude(x, W, s.symbol * x.symbol), parameters=(mu, s))
ROOT = sympy.sqrt(1 + x.symbol**2)
HYPERBOLIC = sde([(x, x.symbol / 2 + ROOT)], Amplitude(x, W, ROOT))  # x = sinh(t + W + arsinh x0)

v, V = Quantity("x", (i,), (N,)), Quantity("V", (i,), (N,))
m, c = Quantity("m", (i,), (N,)), Quantity("c", (i, a), (N, D))
Wa = Quantity("W", (a,), (D,))
COMMUTING = sde([(v, m.symbol * v.symbol)], Amplitude(v, Wa, c.symbol * v.symbol), parameters=(m, c))
BROWNIAN = sde([(v, sympy.S.Zero)], Amplitude(v, V, sympy.S.One))
A, G = Quantity("A", (i, k), (N, N)), Quantity("G", (a, i, k), (D, N, N))
LINEAR = sde(
    [(v, sympy.Sum(A.base[i, k] * v.base[k], (k, 1, N)))],
    Amplitude(v, Wa, sympy.Sum(G.base[a, i, k] * v.base[k], (k, 1, N))),
    parameters=(A, G),
)
B = Quantity("B", (i, a), (N, D))
DRIFT = (v, -sympy.Sum(A.base[i, k] * v.base[k], (k, 1, N)))
RELAXING = sde([DRIFT], Amplitude(v, Wa, B.symbol), parameters=(A, B))
C = Quantity("C", (i, k), (N, N), symmetric=True)
RELAXING_BY_COVARIANCE = sde([DRIFT], Covariation(v, replace(v, indices=(j,)), C.base[i, j]), parameters=(A, C))

M, S = np.array([0.3, -0.2]), np.array([[0.6, 0.3], [-0.2, 0.5]])


def order(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


def brownian(n, runs, rng, fine):
    """The Brownian motions at t = 1 that n-dimensional noise of the same streams has."""
    return solve.integrate(
        BROWNIAN, (0, 1), dict(x=np.zeros(n)), {}, dt=fine, runs=runs, rng=rng, t_eval=[1.0]
    ).x.values[:, 0]


PATHS = {
    "geometric": (
        GEOMETRIC, dict(x=1.0), dict(mu=0.5, s=0.8), lambda w: np.exp(0.5 - 0.32 + 0.8 * w[:, 0])[:, None], 1
    ),
    "hyperbolic": (HYPERBOLIC, dict(x=0.3), {}, lambda w: np.sinh(1 + w + np.arcsinh(0.3)), 1),
    "commuting, 2-d": (
        COMMUTING, dict(x=[1.0, 2.0]), dict(m=M, c=S),
        lambda w: np.array([1, 2]) * np.exp(M - (S**2).sum(1) / 2 + w @ S.T), 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("method", "expected"), [("euler-maruyama", 0.5), ("milstein", 1.0)])
def test_strong_orders_along_the_same_brownian_paths(name, method, expected):
    dynamics, y0, params, exact, n = PATHS[name]
    runs, fine, steps = 400, 2.0**-10, 2.0 ** -np.arange(4, 9)
    right = exact(brownian(n, runs, 7, fine))
    errors = []
    for dt in steps:
        found = solve.integrate(
            dynamics, (0, 1), y0, params, dt=dt, brownian_dt=fine, method=method, runs=runs, rng=7, t_eval=[1.0]
        )
        errors.append(abs(found.x.values.reshape(runs, -1) - right).mean())
    # each error is known to 8 % (400 heavy-tailed values): over a factor of 16 in dt the slope to 0.05; 3 of these
    assert order(steps, errors) == pytest.approx(expected, abs=0.15)


class Prescribed:
    """Random numbers that are none."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, out):
        out[:] = self.numbers

    standard_normal = random


def enumerated(dynamics, method, y0, params, steps, h):
    """States after ``steps`` steps for all values that three-point increments (and pair signs) take, with their
    probabilities: expectations without sampling error.

    Three points with the weights of Gauss and Hermite stand for normal numbers up to their fifth moment.
    """
    system = system_of(dynamics, y0, params)
    third = [(0.1, 1 / 6), (0.5, 2 / 3), (0.9, 1 / 6)] if method == "weak2" else [
        (-np.sqrt(3), 1 / 6), (0.0, 2 / 3), (np.sqrt(3), 1 / 6)
    ]  # fmt: skip
    coin = [(0.2, 0.5), (0.8, 0.5)] if method == "weak2" else []
    axes = [third] * system.m + [coin] * (system.m * (system.m - 1) // 2 if coin else 0)
    plan = Plan(METHODS[method], 0.0, h, 1, np.array([steps]))
    states, weights = [], []
    for choice in itertools.product(*axes * steps):
        out = np.empty((1, len(system.y0)))
        assert path(system, plan, Prescribed(np.reshape([u for u, _ in choice], (steps, -1))), out, lambda: False)
        states.append(out[0])
        weights.append(np.prod([p for _, p in choice]))
    return np.array(states), np.array(weights)


@pytest.mark.parametrize(("method", "expected"), [("euler-maruyama", 1), ("milstein", 1), ("weak2", 2)])
def test_weak_orders_of_a_nonlinear_equation(method, expected):
    exact = np.exp(0.125) * np.sinh(0.25 + np.arcsinh(0.3))  # E sinh(t + W + c) at t = 1/4
    errors, counts = [], np.array([3, 4, 6])
    for n in counts:
        states, weights = enumerated(HYPERBOLIC, method, dict(x=0.3), {}, n, 0.25 / n)
        errors.append(abs(weights @ states[:, 0] - exact))
    assert order(0.25 / counts, errors) == pytest.approx(expected, abs=0.15)  # the next order of h ≈ 0.06 remains


def second_moments(method, drift, gains, h, steps):
    """E[x xᵀ] after whole steps of a linear equation in two dimensions: the map of one step, taken to a power."""
    basis = [np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0])]
    columns = []
    for start in basis:
        states, weights = enumerated(LINEAR, method, dict(x=start), dict(A=drift, G=gains), 1, h)
        columns.append(np.einsum("r,ri,rj->ij", weights, states, states)[np.triu_indices(2)])
    to_upper = np.array([np.outer(b, b)[np.triu_indices(2)] for b in basis]).T
    step = np.array(columns).T @ np.linalg.inv(to_upper)
    return np.linalg.matrix_power(step, steps) @ np.outer([1.0, 0.5], [1.0, 0.5])[np.triu_indices(2)]


@pytest.mark.parametrize(("method", "expected"), [("euler-maruyama", 1), ("weak2", 2)])
def test_weak_orders_with_noise_that_does_not_commute(method, expected):
    drift, gains = np.array([[-0.5, 0.3], [0.1, -0.4]]), np.array([[[0.2, 0.5], [0.0, 0.1]], [[0.3, 0.0], [0.6, -0.2]]])
    assert abs(gains[0] @ gains[1] - gains[1] @ gains[0]).max() > 0.1
    one = np.eye(2)
    flow = np.kron(drift, one) + np.kron(one, drift) + sum(np.kron(g, g) for g in gains)
    exact = (scipy.linalg.expm(flow) @ np.outer([1.0, 0.5], [1.0, 0.5]).ravel()).reshape(2, 2)[np.triu_indices(2)]
    counts = np.array([8, 16, 32, 64])
    errors = [abs(second_moments(method, drift, gains, 1 / n, n) - exact).max() for n in counts]
    assert order(1 / counts, errors) == pytest.approx(expected, abs=0.1)


# -- statistics --------------------------------------------------------------------------------------------------------

RATES = np.array([[1.0, 0.4], [-0.3, 1.5]])
NOISE = np.array([[0.8, 0.0, 0.3], [0.4, 0.7, -0.2]])


@pytest.mark.parametrize("form", ["amplitudes", "covariance"])
def test_stationary_covariance_is_that_of_lyapunovs_equation(form):
    runs, dt = 20_000, 0.05
    dynamics = RELAXING if form == "amplitudes" else RELAXING_BY_COVARIANCE
    params = dict(A=RATES) | (dict(B=NOISE) if form == "amplitudes" else dict(C=NOISE @ NOISE.T))
    found = solve.integrate(dynamics, (0, 8), dict(x=[0.0, 0.0]), params, dt=dt, runs=runs, rng=5, t_eval=[8.0])
    one_step = np.eye(2) - dt * RATES
    exact = scipy.linalg.solve_discrete_lyapunov(one_step, dt * NOISE @ NOISE.T)  # of the scheme itself
    limit = scipy.linalg.solve_continuous_lyapunov(RATES, NOISE @ NOISE.T)
    sample = np.cov(found.x.values[:, 0].T)
    error = np.sqrt((exact**2 + np.outer(np.diag(exact), np.diag(exact))) / runs)
    assert (abs(sample - exact) < 4.5 * error).all()
    assert (abs(limit - exact) < dt * abs(limit)).all() and (error < 0.02).all()


def test_second_order_scheme_agrees_with_lyapunov_where_the_first_order_does_not():
    runs, dt = 40_000, 0.25
    limit = scipy.linalg.solve_continuous_lyapunov(RATES, NOISE @ NOISE.T)
    error = np.sqrt((limit**2 + np.outer(np.diag(limit), np.diag(limit))) / runs)

    def deviation(method):
        found = solve.integrate(
            RELAXING, (0, 5), dict(x=[0, 0]), dict(A=RATES, B=NOISE), dt=dt, runs=runs, method=method, t_eval=[5.0]
        )
        return abs(np.cov(found.x.values[:, 0].T) - limit) / error

    # bias of weak2: (A dt)³/8 of the variance relative to 2 A dt, 0.4 % at the larger rate, where the error is 0.7 %
    assert deviation("weak2").max() < 5
    assert deviation("euler-maruyama").max() > 15


def test_without_noise_it_is_the_differential_equation():
    quiet = replace(HYPERBOLIC, diffusion=(Amplitude(x, W, s.symbol * ROOT),), parameters=(s,))
    ode = replace(quiet, kind="ode", diffusion=())
    params = dict(s=0.0)
    exact = solve.integrate(ode, (0, 1), dict(x=0.3), params, t_eval=[1.0]).x.values
    errors = {
        method: abs(solve.integrate(quiet, (0, 1), dict(x=0.3), params, dt=0.01, method=method).x.values[0, -1] - exact)
        for method in METHODS
    }
    assert errors["euler-maruyama"] < 0.05 and errors["milstein"] < 0.05  # dt e
    assert errors["weak2"] < 1e-3  # dt² e


# -- the matrix of the diffusion ---------------------------------------------------------------------------------------


def test_amplitudes_of_several_states_find_their_places(rng):
    Q, z = Quantity("Q", (i, k), (N, N), symmetric=True), Quantity("z")
    own = Quantity("U", (i, k), (N, N))
    dynamics = sde(
        [(Q, -Q.symbol), (v, v.symbol), (z, z.symbol)],
        Amplitude(Q, Quantity("V", (j,), (N,)), Q.base[i, j] * Q.base[k, j]),
        Amplitude(Q, own, sympy.Float(0.5)),
        Amplitude(v, V, v.symbol**2),
        Amplitude(v, V, z.symbol),
        Amplitude(z, W, sympy.Integer(3)),
    )
    n = 3
    q = rng.normal(size=(n, n))
    y0 = dict(Q=q @ q.T, x=rng.normal(size=n), z=0.7)
    found = amplitudes(system_of(dynamics, y0, {}), 0.0, system_of(dynamics, y0, {}).y0)
    upper = list(zip(*np.triu_indices(n), strict=True))
    expected = np.zeros((6 + n + 1, n + n * n + 1))  # columns V, U, W in order of appearance
    for row, (first, second) in enumerate(upper):
        expected[row, :n] = y0["Q"][first] * y0["Q"][second]
        expected[row, n + n * first + second] = 0.5
    for unit in range(n):
        expected[6 + unit, unit] = y0["x"][unit] ** 2 + 0.7
    expected[-1, -1] = 3
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_covariances_of_symmetric_states_are_factored(rng):
    Q, R = Quantity("Q", (i, k), (N, N), symmetric=True), Quantity("R", (i,), (N,))
    delta = sympy.KroneckerDelta
    dynamics = sde(
        [(Q, sympy.S.Zero), (R, sympy.S.Zero)],
        Covariation(Q, replace(Q, indices=(j, l)), delta(i, j) * delta(k, l) + delta(i, l) * delta(k, j)),
        Covariation(R, replace(Q, indices=(j, l)), delta(i, j) * delta(i, l) / 2),
        Covariation(R, replace(R, indices=(j,)), delta(i, j) / 4),
    )
    system = system_of(dynamics, dict(Q=np.eye(2), R=[0.0, 0.0]), {})
    factor = amplitudes(system, 0.0, system.y0)
    expected = np.diag([2.0, 1.0, 2.0, 0.25, 0.25])
    expected[3, 0] = expected[0, 3] = expected[4, 2] = expected[2, 4] = 0.5
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-15)
    assert (factor == np.tril(factor)).all()


def test_covariance_of_deficient_rank_is_factored_and_indefinite_ones_are_refused(rng):
    drawn = rng.normal(size=(4, 2))
    params = dict(A=np.eye(4), C=drawn @ drawn.T)
    system = system_of(RELAXING_BY_COVARIANCE, dict(x=np.zeros(4)), params)
    factor = amplitudes(system, 0.0, system.y0)
    np.testing.assert_allclose(factor @ factor.T, params["C"], atol=1e-6)  # the root of what counts as none
    assert (factor[:, 2:] == 0).all()
    for wrong in (np.diag([1.0, -1.0]), np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])):
        assert np.linalg.eigvalsh(wrong)[0] < -0.5
        with pytest.raises(solve.NotPositiveSemidefinite, match=r"2 of 2 runs .* covariance") as caught:
            solve.integrate(
                RELAXING_BY_COVARIANCE, (0, 1), dict(x=[1.0, 0.0]), dict(A=np.eye(2), C=wrong), dt=0.1, runs=2
            )
        assert caught.value.t == 0.0 and caught.value.state["x"].tolist() == [1.0, 0.0]


def test_a_covariance_that_is_not_symmetric_is_refused():
    lopsided = sde([(v, sympy.S.Zero)], Covariation(v, replace(v, indices=(j,)), A.base[i, j]), parameters=(A,))
    with pytest.raises(solve.NotPositiveSemidefinite, match="not symmetric"):
        solve.integrate(lopsided, (0, 1), dict(x=[0.0, 0.0]), dict(A=[[1.0, 0.5], [0.4, 1.0]]), dt=0.1)


def test_noise_that_does_not_commute_is_refused_by_milstein():
    gains = np.array([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    call = dict(t_span=(0, 1), y0=dict(x=[1.0, 1.0]), dt=0.1, method="milstein")
    with pytest.raises(ModelError, match="strong order 1 needs noise that commutes"):
        solve.integrate(LINEAR, params=dict(A=np.eye(2), G=gains), **call)
    same = np.stack([gains[0], 2 * gains[0]])
    assert solve.integrate(LINEAR, params=dict(A=np.eye(2), G=same), **call).attrs["status"] == "success"
    # it commutes at this start, where both amplitudes vanish, but not on the way
    with pytest.raises(ModelError, match="commutes"):
        solve.integrate(
            replace(LINEAR, drift=(Equation(v, sympy.S.One),)), params=dict(A=np.eye(2), G=gains),
            **{**call, "y0": dict(x=[0.0, 0.0])},
        )  # fmt: skip


@pytest.mark.parametrize("power", [1, 2, 6, 12])
def test_noise_that_commutes_near_its_start_alone_is_refused_by_milstein(power):
    y, own = Quantity("y"), Quantity("V")
    still = [(x, sympy.S.Zero), (y, sympy.S.Zero)]
    call = dict(t_span=(0, 1), y0=dict(x=0.0, y=0.0), params={}, dt=1e-3, method="milstein")
    gated = sde(still, Amplitude(x, W, sympy.S.One), Amplitude(y, own, x.symbol**power))
    with pytest.raises(ModelError, match="commutes"):
        solve.integrate(gated, **call)
    # of one noise and of its own, the same powers commute
    for alike in (
        sde(still, Amplitude(x, W, sympy.S.One), Amplitude(y, W, x.symbol**power)),
        sde(still, Amplitude(x, W, 1 + x.symbol**power / 9), Amplitude(y, own, 1 + y.symbol**power / 9)),
    ):
        assert solve.integrate(alike, **{**call, "t_span": (0, 0.1)}).attrs["status"] == "success"
        assert solve.integrate(alike, **{**call, "dt": 0.01}).attrs["status"] == "success"


# -- streams, times, stops ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same_in_any_company(method):
    call = dict(y0=dict(x=[1.0, 2.0]), params=dict(m=M, c=S), dt=0.01, method=method, rng=3)
    one = solve.integrate(COMMUTING, (0, 1), **call, runs=6, threads=1)
    for threads, runs in ((2, 6), (8, 6), (2, 9)):
        other = solve.integrate(COMMUTING, (0, 1), **call, runs=runs, threads=threads)
        np.testing.assert_array_equal(other.x.values[:6], one.x.values)
    few = solve.integrate(COMMUTING, (0, 1), **call, runs=6, t_eval=[0.5, 1.0])
    np.testing.assert_array_equal(few.x.values, one.x.sel(t=[0.5, 1.0], method="nearest").values)
    assert len(np.unique(one.x.values[:, -1, 0])) == 6
    again = solve.integrate(COMMUTING, (0, 1), **(call | {"rng": 4}), runs=6)
    assert (again.x.values[:, -1] != one.x.values[:, -1]).all()


def test_paths_are_refined():
    call = dict(t_span=(0, 2), y0=dict(x=np.zeros(2)), params={}, runs=3, t_eval=[0, 0.5, 1, 1.5, 2])
    fine = solve.integrate(BROWNIAN, dt=1 / 64, **call)
    for dt in (1 / 2, 1 / 4, 1 / 32):
        coarse = solve.integrate(BROWNIAN, dt=dt, brownian_dt=1 / 64, **call)
        np.testing.assert_allclose(coarse.x.values, fine.x.values, atol=1e-14)  # sums in another order


def test_the_solution_is_labelled():
    observed = replace(GEOMETRIC, observables=(Equation(Quantity("half"), x.symbol / 2),))
    found = solve.integrate(observed, (1, 2), dict(x=1.0), dict(mu=0.1, s=0.2), dt=0.3, runs=2, t_eval=[1, 1.3, 2])
    assert found.x.dims == ("run", "t") and found.attrs["status"] == "success" and found.attrs["n_steps"] == 4
    np.testing.assert_allclose(found.t, [1, 1.25, 2])  # four steps of 1/4
    np.testing.assert_array_equal(found.half, found.x / 2)
    assert (found.x.isel(t=0) == 1).all() and found.attrs["dt"] == 0.25


def test_divergence_is_reported_with_time_and_state():
    cubic = sde([(x, -(x.symbol**3))], Amplitude(x, W, sympy.Integer(3)))
    with pytest.raises(solve.Diverged, match=r"of 40 runs stopped before the end, run \d+ first") as caught:
        solve.integrate(cubic, (0, 3), dict(x=0.0), {}, dt=0.25, runs=40)
    error = caught.value
    assert 0 < error.t < 3 and np.isfinite(error.state["x"]) and abs(error.state["x"]) > 1e50
    assert 0 < error.partial.sizes["run"] < 40 and np.isfinite(error.partial.x).all()
    assert error.partial.attrs["status"] == "diverged"


def test_interrupted_runs_that_are_finished_are_kept():
    timer = threading.Timer(0.7, _thread.interrupt_main)
    call = dict(y0=dict(x=1.0), params=dict(mu=0.0, s=0.1), dt=1e-5, t_eval=[1.0], rng=2)
    solve.integrate(GEOMETRIC, (0, 1), **call, runs=1)  # compiled before the clock runs
    timer.start()
    with pytest.warns(RuntimeWarning, match="of 100000 runs were finished"):
        found = solve.integrate(GEOMETRIC, (0, 1), **call, runs=100_000)
    timer.join()
    assert 0 < found.sizes["run"] < 100_000 and found.attrs["status"] == "interrupted"
    full = solve.integrate(GEOMETRIC, (0, 1), **call, runs=3)
    np.testing.assert_array_equal(found.x.sel(run=[0, 1, 2]), full.x)


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("dt", dict(dt=None)),
        ("dt", dict(dt=-0.1)),
        ("dt", dict(dt=1e-9)),
        ("method", dict(method="milstien")),
        ("method", dict(method="Radau5")),
        ("runs", dict(runs=0)),
        ("runs", dict(runs=1.5)),
        ("threads", dict(threads=0)),
        ("rng", dict(rng="seed")),
        ("brownian_dt", dict(brownian_dt=0.03)),
        ("brownian_dt", dict(brownian_dt=0.05, method="weak2")),
        ("brownian_dt", dict(brownian_dt=0.2)),
        ("t_span", dict(t_span=(1, 0))),
        ("t_eval", dict(t_eval=[0.5, 2.0])),
        ("y0['z']", dict(y0=dict(x=1.0, z=0.0))),
    ],
)
def test_bad_input_is_named(argument, changed):
    call = dict(t_span=(0, 1), y0=dict(x=1.0), params=dict(mu=0.0, s=1.0), dt=0.1)
    with pytest.raises(ModelError) as caught:
        solve.integrate(GEOMETRIC, **(call | changed))
    assert caught.value.argument == argument


def test_arguments_of_noise_are_for_noise():
    ode = replace(GEOMETRIC, kind="ode", diffusion=())
    with pytest.raises(ModelError, match=r"dt = 0\.1 .*sde\(\)"):
        solve.integrate(ode, (0, 1), dict(x=1.0), dict(mu=0.0, s=1.0), dt=0.1)
    with pytest.raises(NotImplementedError, match="events="):
        solve.integrate(GEOMETRIC, (0, 1), dict(x=1.0), dict(mu=0.0, s=1.0), dt=0.1, events="x - 2")
    with pytest.raises(ModelError, match="SDE without diffusion"):
        solve.integrate(replace(GEOMETRIC, diffusion=()), (0, 1), dict(x=1.0), dict(mu=0.0, s=1.0), dt=0.1)
