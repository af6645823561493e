"""Maps: against recursions written out in NumPy, and the limit that they have."""

import numpy as np
import pytest

from effdyn import derive, solve
from effdyn.derive import Dynamics, Equation, ModelError, NotYet, Quantity
from effdyn.derive.regression import LinearRegression

MODEL = LinearRegression("one-pass", "general")
LAM, P, C = np.array([2.0, 1.0, 0.3]), np.array([0.2, 0.3, 0.5]), np.array([0.5, 1.0, 0.7])
PARAMS = dict(lam=LAM, p=P, eta=0.7, sigma=0.5)


def recursion(d, steps, eta=0.7, sigma=0.5):
    """The squared errors by class after each step, in the form of the literature, direction by direction."""
    lam = np.repeat(LAM, np.rint(P * d).astype(int))
    c = np.repeat(C / (P * d), np.rint(P * d).astype(int))
    h, out = eta / d, []
    for _ in range(steps + 1):
        out.append([c[lam == value].sum() for value in LAM])
        c = (1 - 2 * h * lam + 2 * h**2 * lam**2) * c + h**2 * lam * (np.sum(lam * c) + sigma**2)
    return np.array(out)


def test_the_recursion_step_by_step():
    d = 20
    t = np.arange(201) / d
    found = solve.integrate(MODEL.dynamics("finite-d"), (0, 10), dict(c=C), PARAMS | dict(d=d), t_eval=t)
    # 200 steps, of a few roundings each
    np.testing.assert_allclose(found.c, recursion(d, 200), rtol=1e-13)
    np.testing.assert_allclose(found.t, np.arange(201) / d, rtol=1e-15)
    np.testing.assert_allclose(found.eg, 0.5 * recursion(d, 200) @ LAM, rtol=1e-13)
    assert found.attrs["n_steps"] == 200 and found.attrs["clock"] == "steps/d" and found.attrs["status"] == "success"


def test_times_are_whole_steps_and_stored_as_such():
    times, params = [0.0, 0.31, 0.34, 0.96], PARAMS | dict(d=10)
    found = solve.integrate(MODEL.dynamics("finite-d"), (0, 1), dict(c=C), params, t_eval=times)
    np.testing.assert_allclose(found.t, [0, 0.3, 1.0])
    assert solve.integrate(MODEL.dynamics("finite-d"), (0, 1), dict(c=C), PARAMS | dict(d=10)).sizes["t"] == 11


def test_the_map_goes_to_the_differential_equation_as_one_over_d():
    t = np.linspace(0, 5, 6)
    limit = solve.integrate(MODEL.dynamics(), (0, 5), dict(c=C), PARAMS, t_eval=t)

    def error(d):
        exact = solve.integrate(MODEL.dynamics("finite-d"), (0, 5), dict(c=C), PARAMS | dict(d=d), t_eval=t)
        return float(abs(exact.eg - limit.eg).max())

    # d is not used up by the next order: at d = 1000 and 2000 the ratio is 2 up to 1/d
    assert error(1000) / error(2000) == pytest.approx(2, rel=0.01)


def test_residuals_of_a_training_set_against_numpy(rng):
    n, eta = 7, 0.4
    X = rng.standard_normal((n, 4))
    G, e = X @ X.T / n, rng.standard_normal(n)
    C0 = np.outer(e, e)
    exact = LinearRegression("multi-pass").dynamics("finite-n")
    found = solve.integrate(exact, (0, 3), dict(residuals=C0), dict(eta=eta, gram=G), t_eval=[0, 1, 3])
    C, saved = C0, [C0]
    for step in range(1, 3 * n + 1):
        kept = [np.eye(n) - eta * np.outer(G[:, i], np.eye(n)[i]) for i in range(n)]
        C = np.mean([A @ C @ A.T for A in kept], axis=0)
        if step in (n, 3 * n):
            saved.append(C)
    np.testing.assert_allclose(found.residuals, saved, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.train_loss, [np.trace(C) / (2 * n) for C in saved], rtol=1e-12)
    assert found.attrs["clock"] == "steps/n"


def test_a_map_of_ones_own_by_its_clock():
    x, half = Quantity("x"), Quantity("half", minimum=0.0)
    halving = Dynamics("halving", "map", "steps", (Equation(x, -half.base * x.base),), (half,))
    found = solve.integrate(halving, (0, 10), dict(x=1.0), dict(half=0.5), t_eval=range(11))
    np.testing.assert_array_equal(found.x, 0.5 ** np.arange(11))


def test_divergence_is_reported_with_time_and_state():
    with pytest.raises(solve.Diverged, match="smaller learning rate") as caught:
        solve.integrate(MODEL.dynamics("finite-d"), (0, 5000), dict(c=C), PARAMS | dict(d=10, eta=7.0))
    error = caught.value
    assert 0 < error.t < 5000 and np.isfinite(error.partial.c).all() and (error.state["c"] > 1e300).any()


@pytest.mark.parametrize("eta", [0.7, 2.0, 4.9, 5.0, 7.0, 12.0])
def test_stability_is_below_one_exactly_where_the_recursion_contracts(eta):
    """Against the spectral radius, beyond eta max(lam) = d = 10 too; the floor is there where it is approached."""
    d, sigma = 10, 0.5
    lam = np.repeat(LAM, np.rint(P * d).astype(int))
    h = eta / d
    matrix = np.diag(1 - 2 * h * lam + 2 * h**2 * lam**2) + h**2 * np.outer(lam, lam)
    stable = np.abs(np.linalg.eigvals(matrix)).max() < 1
    found = solve.integrate(MODEL.dynamics("finite-d"), (0, 0.1), dict(c=C), PARAMS | dict(d=d, eta=eta), t_eval=[0])
    assert (found.stability.item() < 1) == stable and np.isinf(found.stability.item()) == (eta * LAM.max() >= d)
    if stable:
        fixed = np.linalg.solve(np.eye(d) - matrix, h**2 * lam * sigma**2)
        assert found.eg_floor.item() == pytest.approx(0.5 * lam @ fixed, rel=1e-12)
    else:
        assert np.isnan(found.eg_floor.item())


@pytest.mark.parametrize("limit, c", [("volterra", 1.0), ("finite-d", 1.0)])
def test_isotropic_floor_is_only_there_where_it_is_stable(limit, c):
    floors = []
    for eta in (1.0, 3.0):
        params = dict(eta=eta, sigma=0.5) | (dict(d=1e9) if limit == "finite-d" else {})
        dynamics = LinearRegression("one-pass").dynamics(limit)
        floors.append(solve.integrate(dynamics, (0, 1e-9), dict(c=c), params, t_eval=[0]).eg_floor.item())
    assert floors[0] == pytest.approx(0.125, rel=1e-8) and np.isnan(floors[1])


@pytest.mark.parametrize("name", ["gram", "residuals"])
@pytest.mark.parametrize(
    "wrong, said", [([[1.0, 2.0], [2.0, 1.0]], "eigenvalue -1"), ([[1, 0.5], [0, 1]], "transpose")]
)
def test_matrices_that_are_no_products_are_refused_and_not_printed(name, wrong, said):
    matrices = dict(gram=np.eye(2), residuals=np.eye(2)) | {name: wrong}
    dynamics = LinearRegression("multi-pass").dynamics("finite-n")
    with pytest.raises(ModelError, match=said) as caught:
        solve.integrate(dynamics, (0, 1), dict(residuals=matrices["residuals"]), dict(eta=0.1, gram=matrices["gram"]))
    assert name in str(caught.value) and "[[" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, error, named",
    [
        (dict(method="scipy:RK45"), ModelError, "kind 'map'"),
        (dict(events=["eg - 0.1"]), NotYet, "events"),
        (dict(t_span=(1, 0)), ModelError, "t_span"),
        (dict(y0=dict(c=[1.0, 1.0])), ModelError, "lam|c"),
        (dict(params=PARAMS), ModelError, "'d'"),
    ],
)
def test_mistakes_are_named(changes, error, named):
    arguments = dict(t_span=(0, 1), y0=dict(c=C), params=PARAMS | dict(d=10)) | changes
    with pytest.raises(error, match=named):
        solve.integrate(MODEL.dynamics("finite-d"), **arguments)


def test_a_clock_that_needs_an_unknown_number_is_refused():
    x = Quantity("x")
    with pytest.raises(derive.ModelError, match="clock"):
        solve.integrate(Dynamics("lost", "map", "steps/n", (Equation(x, -x.base),)), (0, 1), dict(x=1.0), {})


def test_ctrl_c_keeps_what_is_there(monkeypatch):
    from effdyn.solve import maps

    loop, calls = maps.compiled_iterate(), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return loop(*arguments)

    monkeypatch.setattr(maps, "compiled_iterate", lambda: interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted at t = 0.3"):
        found = solve.integrate(MODEL.dynamics("finite-d"), (0, 1), dict(c=C), PARAMS | dict(d=10))
    assert found.sizes["t"] == 4 and found.attrs["status"] == "interrupted"
