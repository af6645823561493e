"""Linear regression: formulas that the rules must reproduce, limits known by hand, identities computed otherwise."""

import itertools
import pickle

import numpy as np
import pytest
import sympy

from effdyn.derive import Dynamics, ModelError, NotYet
from effdyn.derive.dynamics import TIME
from effdyn.derive.regression import LinearRegression
from effdyn.derive.regression.gradient_flow import V0, mode, mode_error, mode_residual, mode_stopping_time
from effdyn.derive.regression.inverse_laplace import InverseLaplace
from effdyn.derive.regression.marchenko_pastur import EIGENVALUE, Z, density, edges, kappa, self_consistent
from effdyn.derive.regression.modes import PAST, TOTAL, Modes
from effdyn.derive.regression.multi_pass import mean_increment, mode_rate
from effdyn.derive.regression.quantities import L, N, Spectrum, eta, j, l, r, sigma
from effdyn.derive.regression.wick import gaussian_average, pairings

GENERAL = Spectrum(True)
EVERY = [
    (training, covariance, limit)
    for training, limits in {
        "one-pass": ("high-dimensional", "finite-d", "volterra"),
        "multi-pass": ("volterra", "finite-n"),
        "gradient-flow": ("high-dimensional",),
    }.items()
    for covariance in ("isotropic", "general")
    for limit in limits
] + [("multi-pass", "general", "high-dimensional")]


def dynamics(training, covariance, limit) -> Dynamics:
    return LinearRegression(training, covariance).dynamics(limit)


# -- the engine behind ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, count", [(0, 1), (1, 0), (2, 1), (4, 3), (6, 15), (8, 105)])
def test_number_of_pairings_is_the_double_factorial(n, count):
    assert len(list(pairings(sympy.symbols(f"x0:{n}")))) == count


def test_isselis_identity_for_the_fourth_moment_of_inputs_component_by_component():
    """E[x xᵀ C x xᵀ] = 2 Σ C Σ + Σ tr(Σ C) for symmetric C, with generic entries in three dimensions."""
    x = sympy.symbols("x0:3")
    S = sympy.Matrix(3, 3, lambda a, b: sympy.Symbol(f"s{min(a, b)}{max(a, b)}"))
    C = sympy.Matrix(3, 3, lambda a, b: sympy.Symbol(f"c{min(a, b)}{max(a, b)}"))
    covariance = {(x[a], x[b]): S[a, b] for a, b in itertools.combinations_with_replacement(range(3), 2)}
    right = 2 * S * C * S + S * (S * C).trace()
    form = sum(C[a, b] * x[a] * x[b] for a in range(3) for b in range(3))
    for a, b in itertools.combinations_with_replacement(range(3), 2):
        assert sympy.expand(gaussian_average(x[a] * form * x[b], covariance) - right[a, b]) == 0


def test_pairing_rules_give_moments_of_one_variable():
    x, s = sympy.symbols("x s")
    assert [gaussian_average(x**n, {(x, x): s}) for n in range(7)] == [1, 0, s, 0, 3 * s**2, 0, 15 * s**3]


# -- one-pass SGD -----------------------------------------------------------------------------------------------------


def test_the_recursion_is_that_of_the_literature():
    """c' = (1 - 2 h λ + 2 h² λ²) c + h² λ (Σ λ c + σ²) for one direction, h = η/d."""
    d = sympy.Symbol("d", nonnegative=True)
    c, lam, p = (sympy.IndexedBase(name, real=True) for name in ("c", "lam", "p"))
    h, total = eta / d, sympy.Sum(lam[j] * c[j], (j, 1, L))
    of_class = -2 * h * lam[l] * c[l] + 2 * h**2 * lam[l] ** 2 * c[l] + h**2 * lam[l] * p[l] * d * (total + sigma**2)
    assert sympy.expand(dynamics("one-pass", "general", "finite-d")["c"] - of_class) == 0


def test_isotropic_recursion_from_the_fourth_moment_of_gaussian_vectors():
    """|v|² → |v|² (1 - 2h + h² (d + 2)) + h² d σ², from E (v·x)² |x|² = (d + 2) |v|²: no spectrum, no classes."""
    d, c = sympy.symbols("d c", nonnegative=True)
    h = eta / d
    expected = c * (-2 * h + h**2 * (d + 2)) + h**2 * d * sigma**2
    assert sympy.expand(dynamics("one-pass", "isotropic", "finite-d")["c"] - expected) == 0


def test_isotropic_limit_is_the_linear_committee_of_one_unit():
    """Two derivations that share nothing: overlaps of a teacher–student pair with R free and Q, R → c = T - 2R + Q."""
    from effdyn.derive import TeacherStudent

    pair = TeacherStudent(activation="linear").dynamics().expand(K=1, M=1).closed()
    Q, R, T, a, b = (sympy.IndexedBase(name, real=True) for name in ("Q", "R", "T", "a", "b"))
    rates = {str(left): right.subs({a[1]: 1, b[1]: 1}) for left, right in pair.equations}
    error_rate = rates["Q[1, 1]"] - 2 * rates["R[1, 1]"]
    mine = dynamics("one-pass", "isotropic", "high-dimensional")["c"]
    c = sympy.Symbol("c", nonnegative=True)
    assert sympy.expand(error_rate - mine.subs(c, T[1, 1] - 2 * R[1, 1] + Q[1, 1])) == 0


def test_what_the_limit_drops_is_recorded_and_is_all_that_it_drops():
    limit, exact = (dynamics("one-pass", "general", name) for name in ("high-dimensional", "finite-d"))
    assert [(one.quantity, one.order) for one in limit.dropped] == [("c", "1/d")]
    from effdyn.derive.terms import assemble

    d = sympy.Symbol("d", nonnegative=True)
    lost = assemble([one.term for one in limit.dropped]).subs(sympy.Symbol("d", positive=True, integer=True), d)
    assert sympy.expand(exact["c"] * d - limit["c"] - lost) == 0


def test_stability_and_floor_are_the_sums_of_the_literature():
    """A = Σ h λ/(2 (1 - h λ)) over all directions; 2 eg = σ² A/(1 - A); in the limit η tr Σ/(2 d)."""
    exact, limit = (dynamics("one-pass", "general", name) for name in ("finite-d", "high-dimensional"))
    numbers = {"eta": 0.7, "d": 10.0, "sigma": 0.3}
    lam, p = np.array([2.0, 0.5]), np.array([0.4, 0.6])
    h = 0.07
    A = np.sum(p * 10 * h * lam / (2 * (1 - h * lam)))
    assert float(_value(exact["stability"], lam, p, numbers)) == pytest.approx(A, rel=1e-14)
    assert float(_value(exact["eg_floor"], lam, p, numbers)) == pytest.approx(0.09 * A / (1 - A) / 2, rel=1e-14)
    assert float(_value(limit["stability"], lam, p, numbers)) == pytest.approx(0.7 * np.sum(lam * p) / 2, rel=1e-14)


def test_spectral_radius_crosses_one_where_the_stability_sum_does(rng):
    """The eigenvalues of the recursion's matrix, at the rate where A = 1: nothing of the derivation but A."""
    from scipy.optimize import brentq

    lam, d = rng.uniform(0.2, 3.0, 6), 6
    critical = brentq(lambda h: np.sum(h * lam / (2 * (1 - h * lam))) - 1, 1e-6, 1 / lam.max() - 1e-9, xtol=1e-15)
    expr = dynamics("one-pass", "general", "finite-d")["stability"]
    value = _value(expr, lam, np.full(6, 1 / 6), {"eta": critical * d, "d": 6.0, "sigma": 0.0})
    assert float(value) == pytest.approx(1.0, abs=1e-12)
    for h, stable in ((critical * 0.999, True), (critical * 1.001, False)):
        matrix = np.diag(1 - 2 * h * lam + 2 * h**2 * lam**2) + h**2 * np.outer(lam, lam)
        assert (np.abs(np.linalg.eigvals(matrix)).max() < 1) == stable


def _value(expr, lam, p, numbers):
    sizes = {s: len(lam) for s in expr.free_symbols if str(s) == "L"}
    written = expr.subs(sizes).doit()
    arrays = {"lam": lam, "p": p}
    known = {e: arrays[str(e.base)][int(e.indices[0]) - 1] for e in written.atoms(sympy.Indexed)}
    return written.subs(known).subs({s: numbers[str(s)] for s in written.free_symbols if str(s) in numbers})


# -- Volterra equations -----------------------------------------------------------------------------------------------


def test_volterra_equation_of_one_pass_sgd_is_that_of_the_literature():
    lam, p, c = (sympy.IndexedBase(name, real=True) for name in ("lam", "p", "c"))
    eg, t, s = sympy.Function("eg"), TIME, PAST
    free = sympy.Sum(lam[j] * c[j] * sympy.exp(-2 * eta * lam[j] * t), (j, 1, L)) / 2
    kernel = eta**2 * sympy.Sum(p[j] * lam[j] ** 2 * sympy.exp(-2 * eta * lam[j] * (t - s)), (j, 1, L))
    expected = free + sympy.Integral(kernel * (eg(s) + sigma**2 / 2), (s, 0, t))
    difference = dynamics("one-pass", "general", "volterra")["eg"] - expected
    assert _all_equal(difference)


def test_volterra_equation_of_multi_pass_sgd_is_that_of_paquette_et_al():
    """ψ = R h₁/2 + R̃ (r h₀ + 1 - r)/2 + γ² r ∫ h₂(t - s) ψ(s) ds, h_k = Σ p λ^k e^(-2γλt), R = Σ c for equal c/p."""
    lam, p, c = (sympy.IndexedBase(name, real=True) for name in ("lam", "p", "c"))
    psi, t, s = sympy.Function("train_loss"), TIME, PAST
    start = sympy.Sum((lam[j] * c[j] + sigma**2 * r * p[j]) * sympy.exp(-2 * eta * lam[j] * t), (j, 1, L)) / 2
    rest = sigma**2 * (1 - r * sympy.Sum(p[j], (j, 1, L))) / 2
    h2 = sympy.Sum(p[j] * lam[j] ** 2 * sympy.exp(-2 * eta * lam[j] * (t - s)), (j, 1, L))
    expected = start + rest + sympy.Integral(eta**2 * r * h2 * psi(s), (s, 0, t))
    assert _all_equal(dynamics("multi-pass", "general", "volterra")["train_loss"] - expected)


def _all_equal(difference):
    """Whether a difference vanishes with integrals and sums over one class, at generic numbers."""
    one = difference.subs(L, 1).doit(integrals=False)
    integrals = {i: sympy.Integral(sympy.expand(i.function), *i.limits) for i in one.atoms(sympy.Integral)}

    def out(function, limit):
        terms = (term.as_independent(limit[0], as_Add=False) for term in sympy.Add.make_args(function))
        return sympy.Add(*(front * sympy.Integral(inside, limit) for front, inside in terms))

    return sympy.expand(sympy.expand(one.xreplace(integrals)).replace(sympy.Integral, out)) == 0


def test_rates_that_are_not_of_the_modes_form_are_refused():
    c = GENERAL.c
    with pytest.raises(ValueError, match="not of the form"):
        Modes.of(-c + TOTAL + GENERAL.lam, c, GENERAL.lam, GENERAL)


# -- multi-pass SGD ---------------------------------------------------------------------------------------------------


def test_recursion_of_the_residuals_is_the_average_over_all_examples(rng):
    """Against updates made one by one in NumPy: every example drawn once, averaged; exact for any Gram matrix."""
    n, rate = 4, 0.3
    G = rng.standard_normal((n, n))
    G = G @ G.T
    res = rng.standard_normal(n)
    C = np.outer(res, res)
    after = [res - rate * G[:, i] * res[i] for i in range(n)]
    expected = np.mean([np.outer(a, a) for a in after], axis=0) - C
    written = mean_increment().subs({N: n, eta: rate}).doit()
    bases = {"gram": G, "residuals": C}
    i, k = sympy.symbols("i k", positive=True, integer=True)
    for a, b in itertools.product(range(n), repeat=2):
        entry = written.subs({i: a + 1, k: b + 1})
        known = {e: bases[str(e.base)][tuple(int(n) - 1 for n in e.indices)] for e in entry.atoms(sympy.Indexed)}
        assert float(entry.subs(known)) == pytest.approx(expected[a, b], rel=1e-12, abs=1e-13)


def test_rate_of_the_modes():
    m = sympy.IndexedBase("m", real=True)[l]
    offset = sigma**2 * (1 - r * GENERAL.covered)
    expected = -2 * eta * GENERAL.lam * m + eta**2 * GENERAL.lam**2 * r * GENERAL.p * (TOTAL + offset)
    assert sympy.expand(mode_rate(GENERAL) - expected) == 0


def test_there_is_no_finite_set_of_modes_for_isotropic_data():
    with pytest.raises(ModelError, match="volterra"):
        LinearRegression("multi-pass").dynamics("high-dimensional")


# -- the spectrum -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.25, 0.8, 1.0, 1.7, 4.0])
def test_density_is_that_of_marchenko_and_pastur(ratio):
    low, high = (float(edge.subs(r, ratio)) for edge in edges())
    assert (low, high) == pytest.approx(((1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2), rel=1e-14)
    for x in np.linspace(low, high, 7)[1:-1]:
        expected = np.sqrt((high - x) * (x - low)) / (2 * np.pi * ratio * x)
        assert float(density().subs({r: ratio, EIGENVALUE: x})) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ratio", [0.25, 0.8, 1.7, 4.0])
def test_the_density_and_the_atom_have_the_resolvent_that_they_come_from(ratio):
    """∫ρ/(z + λ) + (1 - 1/r)₊/z = 1/(z + κ), the total mass 1 and the mean 1, by SciPy's quadrature."""
    from scipy.integrate import quad
    from scipy.optimize import brentq

    low, high = (float(edge.subs(r, ratio)) for edge in edges())
    rho = sympy.lambdify(EIGENVALUE, density().subs(r, ratio))
    atom = max(0.0, 1 - 1 / ratio)

    def mean(f):
        return quad(lambda x: f(x) * rho(x), low, high, epsabs=1e-12, limit=200)[0]

    assert mean(lambda x: 1.0) + atom == pytest.approx(1, abs=1e-8)
    assert mean(lambda x: x) == pytest.approx(1, abs=1e-8)
    value = sympy.Symbol("k")
    right = sympy.lambdify(value, self_consistent(Spectrum(False)).subs({kappa(Z): value, Z: 0.3, r: ratio}))
    k = brentq(lambda value: right(value) - value, 1e-6, 1.0, xtol=1e-14)
    assert mean(lambda x: 1 / (0.3 + x)) + atom / 0.3 == pytest.approx(1 / (0.3 + k), rel=1e-8)


# -- gradient flow ----------------------------------------------------------------------------------------------------


def test_a_mode_by_integration_of_its_equation():
    from scipy.integrate import solve_ivp

    numbers = {EIGENVALUE: 0.7, N: 5, V0: 1.3, sympy.Symbol("xi", real=True): -0.4}
    pull = np.sqrt(0.7 / 5) * -0.4
    found = solve_ivp(lambda t, v: -0.7 * v + pull, (0, 3), [1.3], rtol=1e-11, atol=1e-12).y[0, -1]
    assert float(mode().subs({**numbers, TIME: 3})) == pytest.approx(found, rel=1e-9)


def test_moments_of_a_mode_by_sampling_its_noise(rng):
    """100 000 draws: five standard errors are 2 % of the noise part; a factor 2 lost somewhere would be 100 %."""
    numbers = {EIGENVALUE: 0.7, N: 5, V0: 0.3, TIME: 2}
    xi = 1.5 * rng.standard_normal(100_000)
    v = sympy.lambdify(sympy.Symbol("xi", real=True), mode().subs(numbers))(xi)
    for form, sample in ((mode_error(), v**2), (mode_residual(), (np.sqrt(3.5) * v - xi) ** 2)):
        exact = float(form.subs({**numbers, sigma: 1.5}))
        error = sample.std() / np.sqrt(sample.size)
        assert error < 0.01 * exact
        assert abs(sample.mean() - exact) < 5 * error


def test_stopping_time_is_where_the_error_of_a_mode_is_least():
    from scipy.optimize import minimize_scalar

    numbers = {EIGENVALUE: 0.7, N: 5, V0: 0.8, sigma: 1.5}
    error = sympy.lambdify(TIME, mode_error().subs(numbers))
    found = minimize_scalar(error, bounds=(0, 20), method="bounded", options={"xatol": 1e-10}).x
    # a minimum is found to the root of the rounding error of the function
    assert float(mode_stopping_time().subs(numbers)) == pytest.approx(found, abs=1e-6)


def test_stopping_time_is_that_of_advani_and_saxe():
    """t/τ = ln(1 + λ σ_w²/σ_ε²)/λ with their λ = λ n/d, time t d/n and σ_w² = c = d v₀²."""
    d, alpha = sympy.symbols("d alpha", positive=True)
    w, lam, noise = sympy.symbols("sigma_w lambda_AS s", positive=True)
    ours = mode_stopping_time().subs(V0**2, w**2 / d).subs({EIGENVALUE: lam / alpha, N: alpha * d, sigma: noise})
    assert sympy.expand_log(sympy.expand(ours / alpha) - sympy.log(1 + lam * w**2 / noise**2) / lam) == 0


# -- the values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training, covariance, limit", EVERY)
def test_every_kind_prints_hashes_pickles_and_reads_back(training, covariance, limit):
    dyn = dynamics(training, covariance, limit)
    again = pickle.loads(pickle.dumps(dyn))
    assert again == dyn and hash(again) == hash(dyn)
    assert eval(repr(dyn), {"LinearRegression": LinearRegression}) == dyn
    first = dyn.drift[0].quantity
    left = {"ode": f"d{first.name}", "map": f"Δ{first.name}"}.get(dyn.kind, f"{first.name}(")
    assert f"\n{left}" in str(dyn)
    latex = dyn.latex()
    assert latex.count(r"\begin{align") == latex.count(r"\end{align") >= 2
    assert ({"ode": r"\frac{\mathrm{d}", "map": r"\Delta "}.get(dyn.kind, "(")) in latex.splitlines()[1]
    assert dyn._repr_latex_().startswith("$$")


@pytest.mark.parametrize("training, covariance, limit", EVERY)
def test_every_kind_has_an_article(training, covariance, limit, tmp_path):
    text = dynamics(training, covariance, limit).article(tmp_path / "a.tex").read_text(encoding="utf-8")
    assert r"\section{Equations of motion}" in text and r"\section{Derivation}" in text
    assert text.isascii(), "a character that TeX would not print"


def test_what_is_only_for_differential_equations_says_so(tmp_path):
    with pytest.raises(NotYet, match="kind 'map'"):
        dynamics("one-pass", "general", "finite-d").write(tmp_path / "a.py")
    with pytest.raises(NotYet, match="kind 'volterra'"):
        dynamics("one-pass", "general", "volterra").expand(L=2)
    assert str(dynamics("one-pass", "general", "finite-d").expand(L=1)).startswith("Δc[1] = ")


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ModelError, match="'map'"):
        Dynamics("nothing", "maps", "steps", ())


@pytest.mark.parametrize(
    "arguments, named",
    [(("one-pas",), "one-pass"), (("one-pass", "isotropc"), "isotropic"), ((None,), "gradient-flow")],
)
def test_mistakes_in_a_model_are_named(arguments, named):
    with pytest.raises(ModelError, match=named):
        LinearRegression(*arguments)


def test_a_limit_of_another_training_is_refused():
    with pytest.raises(ModelError, match="finite-d"):
        LinearRegression("one-pass").dynamics("finite-n")


def test_the_variable_of_a_transform_is_bound():
    z, t, s = sympy.symbols("z t s")
    node = InverseLaplace(1 / (z + s), z, t)
    assert node.free_symbols == {s, t}
    assert node.subs(z, 5) == node
    assert node.subs(t, 2) == InverseLaplace(1 / (z + s), z, 2)
    assert pickle.loads(pickle.dumps(node)) == node
