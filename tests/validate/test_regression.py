"""Linear regression at finite size against its theory: exact recursions at finite d, limits extrapolated in 1/d."""

import numpy as np
import pytest

from effdyn import solve, validate
from effdyn.derive import ModelError
from effdyn.derive.regression import LinearRegression
from effdyn.validate.regression_replicas import Problem

LAM, P, C = [2.0, 1.0, 0.3], [0.2, 0.3, 0.5], [0.5, 1.0, 0.7]
SPECTRUM = dict(lam=LAM, p=P)
TIMES = np.linspace(0, 4, 5)
CASES = {
    "one-pass": (LinearRegression("one-pass"), 1.0, dict(eta=0.7, sigma=0.5), [40, 80, 160]),
    "one-pass, general": (
        LinearRegression("one-pass", "general"),
        C,
        SPECTRUM | dict(eta=0.7, sigma=0.5),
        [40, 80, 160],
    ),
    "multi-pass": (LinearRegression("multi-pass"), 1.0, dict(eta=0.7, sigma=0.5, r=0.5), [40, 80, 160]),
    "multi-pass, d > n": (LinearRegression("multi-pass"), 1.0, dict(eta=0.5, sigma=0.5, r=2.0), [40, 80, 160]),
    "multi-pass, general": (
        LinearRegression("multi-pass", "general"),
        C,
        SPECTRUM | dict(eta=0.7, sigma=0.5, r=0.5),
        [20, 40, 80],
    ),
    "gradient flow": (LinearRegression("gradient-flow"), 1.0, dict(sigma=0.5, r=0.5), [20, 40, 80]),
    "gradient flow, general": (
        LinearRegression("gradient-flow", "general"),
        C,
        SPECTRUM | dict(sigma=0.5, r=2.0),
        [20, 40, 80],
    ),
}
RUNS = {"one-pass": 100, "multi-pass": 60, "gradient-flow": 40}
WRONG = {"one-pass": "eta", "multi-pass": "eta", "gradient-flow": "sigma"}
"""What is given wrongly, to be noticed; for d > n the loss hardly depends on the rate, which is about the best."""


def simulated(name, d=None, runs=None, times=TIMES, **options):
    model, c, params, sizes = CASES[name]
    return validate.simulate(
        model,
        sizes if d is None else d,
        runs or RUNS[model.training],
        (0, times[-1]),
        y0=dict(c=c),
        params=params,
        t_eval=times,
        progress=False,
        **options,
    )


def theory(name, simulation, limit=None, **changes):
    model, c, params, _ = CASES[name]
    t = simulation.t.values
    return solve.integrate(model.dynamics(limit), (0, t[-1]), dict(c=c), params | changes, t_eval=t)


@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_that_of_simulations_and_a_wrong_one_is_not(name):
    """Deviations extrapolated in 1/d, verdicts at level 1e-6; learning rate or noise 40 % off must not pass."""
    simulation = simulated(name)
    right = theory(name, simulation)
    verdict = validate.compare(right, simulation)
    assert verdict.passed, verdict
    wrong = "sigma" if name == "multi-pass, d > n" else WRONG[CASES[name][0].training]
    off = theory(name, simulation, **{wrong: 1.4 * CASES[name][2][wrong]}).assign_attrs(parameters=right.parameters)
    assert validate.compare(off, simulation).status == "FAIL"


def test_the_recursion_is_compared_at_its_own_d_only():
    simulation = simulated("one-pass", d=[10, 20], runs=20)
    exact = theory("one-pass", simulation, "finite-d", d=20)
    with pytest.raises(validate.NotComparable, match=r"d=20.*d=10, 20") as caught:
        validate.compare(exact, simulation)
    assert caught.value.what == "sizes"
    with pytest.raises(validate.NotComparable, match=r"d=20.*d=10"):
        validate.compare(exact, simulation.sel(d=10))
    verdict = validate.compare(exact, simulation.sel(d=20))
    assert verdict.status != "FAIL" and not any("one side" in note for note in verdict.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_limit_with_full_statistics(name):
    """As above, in larger systems and with more runs: errors of 8 % of scale or less must be visible."""
    sizes = [100, 200, 400] if "one-pass" in name or name == "multi-pass" else [60, 120, 240]
    simulation = simulated(name, d=sizes, runs=800 if "flow" not in name else 300, rng=1)
    verdict = validate.compare(theory(name, simulation), simulation, resolution=0.08)
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", ["one-pass", "one-pass, general"])
def test_the_recursion_is_exact_at_small_d_where_the_limit_is_not(name):
    """6000 runs at d = 10 see 1 % of scale: the limit, off by more, fails; the recursion passes without allowance."""
    simulation = simulated(name, d=10, runs=6000, rng=3)
    assert validate.compare(theory(name, simulation, "finite-d", d=10), simulation, bias=0.0).passed
    assert validate.compare(theory(name, simulation), simulation, bias=0.0).status == "FAIL"


def test_error_of_the_volterra_equation_falls_as_one_over_n(rng):
    """For each drawn data set, with its own eigenvalues: the exact recursion minus the Volterra equation ~ n^-p, p = 1.

    Five standard errors and a next order of 1/20 leave less than 0.45: exponents 1/2 and 3/2 would be seen.
    """
    r, sigma, eta = 0.5, 0.5, 0.7
    exact = LinearRegression("multi-pass").dynamics("finite-n")
    limit = LinearRegression("multi-pass", "general").dynamics()
    mean, error = {}, {}
    for n, draws in ((20, 40), (80, 20)):
        found = []
        for _ in range(draws):
            x = rng.standard_normal((n, n // 2))
            start = x @ x.T / (n // 2) + sigma**2 * np.eye(n)  # averaged over the initial error and the noise
            own = dict(residuals=start), dict(eta=eta, gram=x @ x.T / n)
            p = np.full(n // 2, 2 / n)
            spectrum = dict(c=p), dict(eta=eta, sigma=sigma, r=r, lam=np.linalg.eigvalsh(x.T @ x / n), p=p)
            of_set, of_limit = (
                solve.integrate(dynamics, (0, 2), *given, t_eval=[2.0], rtol=1e-8).train_loss.item()
                for dynamics, given in ((exact, own), (limit, spectrum))
            )
            found.append(of_set - of_limit)
        mean[n], error[n] = abs(np.mean(found)), np.std(found, ddof=1) / np.sqrt(draws)
    exponent = np.log(mean[20] / mean[80]) / np.log(4)
    tolerance = 5 * np.hypot(error[20] / mean[20], error[80] / mean[80]) / np.log(4) + 1 / 20
    assert tolerance < 0.45, "too coarse to tell 1/n from 1/√n"
    assert abs(exponent - 1) < tolerance


def test_the_recursion_for_one_data_set_against_sgd_on_it(rng):
    """One Gram matrix, 4000 orders of examples; within five standard errors of each of ten losses."""
    n, d, eta = 12, 6, 0.8
    x, v0, noise = rng.standard_normal((n, d)), rng.standard_normal(d), rng.standard_normal(n)
    residuals = np.tile(noise - x @ v0, (4000, 1))
    start, gram = np.outer(residuals[0], residuals[0]), x @ x.T / n
    losses = []
    for _ in range(2 * n):
        drawn = rng.integers(n, size=4000)
        residuals = residuals - eta * gram[:, drawn].T * residuals[np.arange(4000), drawn][:, None]
        losses.append(0.5 * np.mean(residuals**2, axis=1))
    model = LinearRegression("multi-pass").dynamics("finite-n")
    times = np.arange(1, 2 * n + 1) / n
    exact = solve.integrate(model, (0, 2), dict(residuals=start), dict(eta=eta, gram=gram), t_eval=times).train_loss
    sample = np.array(losses)
    error = sample.std(axis=1, ddof=1) / np.sqrt(4000)
    assert (error < 0.05 * exact.values).all()
    assert (abs(sample.mean(axis=1) - exact.values) < 5 * error).all()


# -- the simulator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one-pass, general", "multi-pass, general", "gradient flow, general"])
def test_same_bits_for_any_number_of_threads_runs_and_dimensions(name):
    two = simulated(name, d=[20, 40], runs=3, threads=2)
    one = simulated(name, d=20, runs=2, threads=1)
    for variable in one.data_vars:
        # products of matrices may be summed in another order by another number of threads of the linear algebra
        np.testing.assert_allclose(one[variable], two[variable].sel(d=20).isel(run=slice(2)), rtol=1e-10)
    if name.startswith("one"):
        np.testing.assert_array_equal(one.c, two.c.sel(d=20).isel(run=slice(2)))


def test_what_is_saved_and_said():
    simulation = simulated("gradient flow, general", d=[20, 40], runs=2)
    assert set(simulation.data_vars) == {"eg", "train_loss"} and simulation.eg.dims == ("run", "d", "t")
    assert simulation.attrs["clock"] == "eta*steps" and simulation.attrs["runs"] == 2
    assert simulated("one-pass, general", d=40, runs=2).c.dims == ("run", "t", "mode")
    assert simulated("one-pass", d=40, runs=2).c.dims == ("run", "t")


def test_every_run_starts_with_exactly_the_given_error():
    start = simulated("one-pass, general", d=40, runs=5).isel(t=0)
    np.testing.assert_allclose(start.c, np.tile(C, (5, 1)), rtol=1e-12)
    np.testing.assert_allclose(start.eg, 0.5 * np.dot(LAM, C), rtol=1e-12)


def test_data_sets_have_the_given_eigenvalues(rng):
    from effdyn.validate.regression_replicas import MultiPass

    model, c, params, _ = CASES["multi-pass, general"]
    problem = Problem.of(model, {name: np.asarray(v, float) for name, v in (params | dict(c=c)).items()}, 20)
    x = MultiPass(problem, np.random.SeedSequence(1), TIMES).x
    found = np.linalg.eigvalsh(x.T @ x / 40)
    np.testing.assert_allclose(found, np.repeat(LAM[::-1], [10, 6, 4]), rtol=1e-12)


def test_gradient_flow_against_small_steps(rng):
    """The solution of a replica against Runge–Kutta on its own data."""
    from scipy.integrate import solve_ivp

    from effdyn.validate.regression_replicas import GradientFlow

    model, c, params, _ = CASES["gradient flow, general"]
    problem = Problem.of(model, {name: np.asarray(v, float) for name, v in (params | dict(c=c)).items()}, 20)
    replica = GradientFlow(problem, np.random.SeedSequence(1), np.array([0.0, 1.5]))
    replica.advance(1)
    v0 = replica._rest + replica._right.T @ replica._along
    n, x, noise = problem.n, replica.x, replica.noise
    v = solve_ivp(lambda t, v: x.T @ (noise - x @ v) / n, (0, 1.5), v0, rtol=1e-10, atol=1e-12).y[:, -1]
    replica.advance(1)
    state = replica.state()
    assert float(state["eg"]) == pytest.approx(0.5 * np.sum(problem.lam * v**2), rel=1e-8)
    assert float(state["train_loss"]) == pytest.approx(0.5 * np.mean((noise - x @ v) ** 2), rel=1e-8)


def test_divergence_is_reported():
    model, c, params, _ = CASES["one-pass"]
    with pytest.raises(validate.SimulationDiverged, match="2 of 2"):
        validate.simulate(
            model, 20, 2, (0, 2000), y0=dict(c=c), params=params | dict(eta=8.0), progress=False, t_eval=[0, 2000]
        )


@pytest.mark.parametrize(
    "name, changes, named",
    [
        ("one-pass, general", dict(d=25), "params\\['p'\\] at d = 25"),
        ("multi-pass", dict(d=41, params=dict(eta=0.5, sigma=0.5, r=0.4)), "params\\['r'\\]"),
        ("multi-pass, general", dict(params=SPECTRUM | dict(eta=0.5, sigma=0.5, r=2.0)), "eigenvalues of X"),
        ("multi-pass", dict(params=dict(eta=0.5, sigma=0.5, r=0.0)), "params\\['r'\\]"),
        ("one-pass", dict(t_span=(1, 2)), "t_span"),
        ("one-pass", dict(runs=0), "runs"),
        ("one-pass", dict(params=dict(eta=0.5)), "sigma"),
        ("one-pass, general", dict(params=dict(lam=LAM, p=[0.5, 0.5, 0.5], eta=0.5, sigma=0.0)), "sum"),
    ],
)
def test_mistakes_are_named(name, changes, named):
    model, c, params, sizes = CASES[name]
    arguments = dict(d=sizes, runs=2, t_span=(0, 1), y0=dict(c=c), params=params, progress=False) | changes
    with pytest.raises(ModelError, match=named):
        validate.simulate(model, **arguments)


def test_a_model_without_a_simulator_is_refused():
    with pytest.raises(ModelError, match=r"a model that has a simulator: .*LinearRegression, TeacherStudent"):
        validate.simulate(object(), d=10)
