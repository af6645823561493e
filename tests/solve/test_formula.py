"""Formulas: transforms with known originals, and gradient flow by two ways that share only the model."""

import json

import numpy as np
import pytest
import sympy

from effdyn import solve
from effdyn.derive import Dynamics, Equation, ModelError, Quantity
from effdyn.derive.dynamics import TIME
from effdyn.derive.regression import LinearRegression
from effdyn.derive.regression.inverse_laplace import InverseLaplace
from effdyn.solve.evaluate import Rules, Scope, evaluate
from effdyn.solve.implicit import NoFixedPoint, implicit
from effdyn.solve.laplace import contour

Z, Z2 = sympy.symbols("z z_2")
TIMES = np.array([0.0, 0.1, 0.5, 1.0, 3.0, 10.0, 60.0])


def on_its_own(expr):
    dynamics = Dynamics("test", "formula", "t", (), observables=(Equation(Quantity("f"), expr),))
    return solve.integrate(dynamics, (0, TIMES[-1]), {}, {}, t_eval=TIMES)


@pytest.mark.parametrize(
    "transform, original, at_zero",
    [
        (1 / (Z + 1), lambda t: np.exp(-t), 1e-12),
        (1 / Z, np.ones_like, 1e-12),
        (1 / (Z * (Z + 2)), lambda t: -np.expm1(-2 * t) / 2, 1e-12),
        # not smooth at 0, where the value is extrapolated from times of 60e-8: their root
        (1 / sympy.sqrt(Z + 1) / (Z + 1), lambda t: 2 * np.sqrt(t / np.pi) * np.exp(-t), 1e-3),
    ],
)
def test_transforms_with_known_originals(transform, original, at_zero):
    found = on_its_own(InverseLaplace(transform, Z, TIME))
    error = abs(found.f.values - original(TIMES))
    assert error[0] <= at_zero
    assert error[1:].max() <= 1e-12
    assert max(json.loads(found.attrs["numerical_error"])["f"]) < 1e-9


def test_the_error_on_the_contour_falls_as_it_is_said():
    """As 3.89^-n for n nodes, up to a factor of order 1, until rounding: weights of e^(0.17 n) times 1e-16."""
    for n in range(6, 26, 2):
        nodes, weights = contour(n)
        assert abs(np.sum(weights / (nodes + 1)) - np.exp(-1)) < 10 * 3.89**-n + 1e-14


def test_a_transform_in_a_transform():
    """tr[(z₁ + A)⁻¹ B (z₂ + A)⁻¹], whose original is tr[e^(-At) B e^(-At)], with A = (2 1; 1 1), B = (1 0; 0 0)."""
    determinants = [(z + 2) * (z + 1) - 1 for z in (Z, Z2)]
    trace = ((Z + 1) * (Z2 + 1) + 1) / determinants[0] / determinants[1]
    found = on_its_own(InverseLaplace(InverseLaplace(trace, Z, TIME), Z2, TIME)).f.values
    from scipy.linalg import expm

    decay = [expm(-np.array([[2.0, 1.0], [1.0, 1.0]]) * t) for t in TIMES]
    np.testing.assert_allclose(found, [(e @ e)[0, 0] for e in decay], atol=1e-11)


def test_integrals_with_roots_at_their_ends_converge_fast():
    x = sympy.Symbol("x")
    semicircle = sympy.Integral(sympy.sqrt((x + 2) * (2 - x)) * sympy.exp(x) / (2 * sympy.pi), (x, -2, 2))
    from scipy.special import i1

    assert evaluate(semicircle, Scope({}, rules=Rules(nodes=24))).item() == pytest.approx(i1(2.0), rel=1e-13)


def test_sums_over_two_indices_and_arrays():
    a, (i, k, n) = sympy.IndexedBase("a"), sympy.symbols("i k n", integer=True)
    scope = Scope({TIME: np.array([1.0, 2.0])}, {"a": np.array([[1.0, 2.0], [3.0, 4.0]])}, {"n": 2})
    both = evaluate(sympy.Sum(a[i, k] * TIME**i, (i, 1, n), (k, 1, n)), scope)
    np.testing.assert_allclose(both, [10, 3 * 2 + 7 * 4])


def test_the_first_piece_that_holds_is_taken_and_none_is_nan():
    x = sympy.Symbol("x")
    pieces = sympy.Piecewise((x, x < 0), (x**2, x < 2), evaluate=False)
    found = evaluate(pieces, Scope({x: np.array([-1.0, 1.5, 3.0])}))
    np.testing.assert_array_equal(found, [-1.0, 2.25, np.nan])


def test_a_node_without_a_rule_is_named():
    with pytest.raises(ModelError, match="zeta"):
        evaluate(sympy.zeta(TIME), Scope({TIME: np.array([2.0])}))


# -- functions defined by equations -----------------------------------------------------------------------------------

KAPPA = sympy.Function("kappa")


@pytest.mark.parametrize("r", [0.3, 1.0, 2.0])
def test_the_self_consistent_equation_against_its_closed_solution(r, rng):
    """κ = ½[√((z + r - 1)² + 4z) - (z + r - 1)] with the branch that has Im κ > 0 where Im z > 0."""
    z = rng.standard_normal(50) * 3 + 1j * np.concatenate([[0.0], rng.uniform(1e-3, 5, 49)])
    z[0] = abs(z[0].real)
    found = implicit(KAPPA(Z), 1 / (1 + r / (Z + KAPPA(Z))), Scope({}))(z)
    root = np.sqrt((z + r - 1) ** 2 + 4 * z)
    both = np.array([(-(z + r - 1) + s * root) / 2 for s in (1, -1)])
    right = np.where(both[0].imag >= both[1].imag, both[0], both[1])
    right[0] = both[:, 0].real.max()
    np.testing.assert_allclose(found, right, rtol=1e-10)


def test_an_equation_without_a_fixed_point_is_reported():
    with pytest.raises(NoFixedPoint, match="kappa"):
        implicit(KAPPA(Z), KAPPA(Z) + 1 / (Z + 1), Scope({}))(np.array([1.0 + 1j]))


# -- gradient flow ----------------------------------------------------------------------------------------------------

FLOW, GENERAL = LinearRegression("gradient-flow").dynamics(), LinearRegression("gradient-flow", "general").dynamics()


def run(dynamics, t=TIMES, c=1.0, **params):
    return solve.integrate(dynamics, (0, t[-1]), dict(c=c), params, t_eval=t)


@pytest.mark.parametrize("r", [0.3, 1.0, 2.5])
def test_transforms_agree_with_the_law_of_eigenvalues(r):
    """Deterministic equivalents, single and double, against an average over the spectrum, for one class."""
    law = run(FLOW, c=1.3, r=r, sigma=0.7)
    transforms = run(GENERAL, c=[1.3], r=r, sigma=0.7, lam=[1.0], p=[1.0])
    for name in ("eg", "loss", "train_loss"):
        np.testing.assert_allclose(transforms[name], law[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("r", [0.99, 0.999, 0.9999, 1.0, 1.001])
def test_a_spectrum_that_nearly_reaches_zero(r):
    """Isotropic = general with one class, which takes no integral; at t = 0 the values are c/2 and (c + sigma²)/2."""
    t = TIMES[:-1]
    law = run(FLOW, t, c=1.3, r=r, sigma=0.7)
    transforms = run(GENERAL, t, c=[1.3], r=r, sigma=0.7, lam=[1.0], p=[1.0])
    for name, start in (("eg", 0.65), ("train_loss", (1.3 + 0.49) / 2)):
        np.testing.assert_allclose(transforms[name], law[name], rtol=1e-10)
        assert float(law[name][0]) == pytest.approx(start, rel=1e-13)
    assert law.attrs["nodes"] <= 512


def test_a_rule_that_is_not_fine_enough_is_reported(monkeypatch):
    from effdyn.solve import formula

    monkeypatch.setattr(formula, "MOST_NODES", 64)
    with pytest.warns(RuntimeWarning, match="is known to .* only at t = 60"):
        found = run(FLOW, np.array([0.0, 60.0]), c=1.3, r=1.0, sigma=0.7)
    stated = json.loads(found.attrs["numerical_error"])
    assert max(stated["eg"]) > 1e-9


@pytest.mark.parametrize(
    "dynamics, params, named",
    [
        (FLOW, dict(c=1.0, r=0.0, sigma=0.5), "params\\['r'\\] = 0.0"),
        (FLOW, dict(c=1.0, r=1e-20, sigma=0.5), "params\\['r'\\]"),
        (GENERAL, dict(c=[1.0, 1.0], r=0.5, sigma=0.5, lam=[1.0, 2.0], p=[0.7, 0.7]), "params\\['p'\\]"),
    ],
)
def test_spectra_that_no_data_have_are_refused(dynamics, params, named):
    with pytest.raises(ModelError, match=named):
        run(dynamics, **params)


def test_equal_classes_are_one():
    one = run(GENERAL, c=[1.0], r=1.5, sigma=0.7, lam=[0.8], p=[1.0])
    three = run(GENERAL, c=[0.2, 0.3, 0.5], r=1.5, sigma=0.7, lam=[0.8] * 3, p=[0.1, 0.3, 0.6])
    np.testing.assert_allclose(three.eg, one.eg, rtol=1e-10)


def test_classes_without_inputs_may_be_left_out():
    """Directions in which there is no input add to the parameters, but neither to the error nor to the loss."""
    with_them = run(GENERAL, c=[1.0, 3.0], r=1.5, sigma=0.7, lam=[0.8, 0.0], p=[0.4, 0.6])
    without = run(GENERAL, c=[1.0], r=1.5, sigma=0.7, lam=[0.8], p=[0.4])
    for name in ("eg", "train_loss"):
        np.testing.assert_allclose(with_them[name], without[name], rtol=1e-10)


@pytest.mark.parametrize("r", [0.3, 2.5])
def test_the_formulas_of_advani_and_saxe(r):
    """E_g and E_tr as printed, with their time, spectrum and normalisation, by SciPy's quadrature."""
    from scipy.integrate import quad

    alpha, sigma, weight = 1 / r, 0.7, 1.3
    low, high = (1 - alpha**0.5) ** 2, (1 + alpha**0.5) ** 2

    def rho(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * x)

    def mean(f):
        return quad(lambda x: rho(x) * f(x), low, high, epsabs=1e-13, epsrel=1e-12, limit=400)[0]

    found = run(FLOW, c=weight, r=r, sigma=sigma)
    for t, eg, train in zip(TIMES * r, found.eg.values, found.train_loss.values, strict=True):
        decayed = mean(lambda x, t=t: np.exp(-2 * x * t)) + max(0.0, 1 - alpha)
        grown = mean(lambda x, t=t: np.expm1(-x * t) ** 2 / x)
        E_g = sigma**2 + weight * decayed + sigma**2 * grown
        E_tr = mean(lambda x, t=t: (x * weight + sigma**2) * np.exp(-2 * x * t)) / alpha + sigma**2 * max(0.0, 1 - r)
        assert 2 * eg + sigma**2 == pytest.approx(E_g, rel=1e-9)
        assert 2 * train == pytest.approx(E_tr, rel=1e-9)


def test_the_start_and_the_end_are_known_by_hand():
    """eg = Σ λ c/2 before; long after, for r < 1, that of least squares, σ² r/(1 - r)/2, and a loss σ² (1 - r)/2."""
    found = run(FLOW, np.array([0.0, 1e4]), c=1.3, r=0.5, sigma=0.7)
    np.testing.assert_allclose(found.eg, [0.65, 0.49 * 0.5 / 0.5 / 2], rtol=1e-9)
    np.testing.assert_allclose(found.train_loss, [(1.3 + 0.49) / 2, 0.49 * 0.5 / 2], rtol=1e-9)
    general = run(GENERAL, np.array([0.0, 300.0]), c=[0.4, 0.8], r=0.5, sigma=0.7, lam=[2.0, 0.5], p=[0.5, 0.5])
    # of least squares the error does not depend on the covariance
    np.testing.assert_allclose(general.eg, [0.6, 0.245], rtol=1e-8)


def test_many_times_and_classes_in_parts(monkeypatch):
    from effdyn.solve import formula

    t = np.linspace(0, 5, 11)
    given = dict(c=[0.4, 0.8], r=0.5, sigma=0.7, lam=[2.0, 0.5], p=[0.5, 0.5])
    whole = run(GENERAL, t, **given)
    monkeypatch.setattr(formula, "MOST_TERMS", 4000)
    # the first value is extrapolated from a time that depends on the part
    np.testing.assert_allclose(run(GENERAL, t, **given).eg, whole.eg, rtol=1e-10)


def test_the_optimal_time_is_before_the_end_with_noise_and_not_without():
    t = np.linspace(0, 30, 301)
    noisy, clean = (run(FLOW, t, c=1.0, r=0.9, sigma=sigma).eg for sigma in (1.0, 0.0))
    assert 0 < np.argmin(noisy.values) < 300 and np.argmin(clean.values) == 300
