"""Students of fixed length: the derived equations against the projection of a free step, and spherical SGD as known."""

import math

import numpy as np
import pytest
from scipy import special

from effdyn import derive, solve
from effdyn.derive import ModelError, NotYet, TeacherStudent
from effdyn.derive.limits import LIMITS
from effdyn.derive.projection import IncrementProduct, second_order
from effdyn.solve.kernels.reference import evaluate

SPHERICAL = dict(constraint="spherical")
ROUNDING = 1e-11


def committee(rng, d=9):
    w, v, m = rng.normal(size=(2, d)), rng.normal(size=(2, d)), rng.normal(size=(2, d))
    y = {"Q": w @ w.T, "R": w @ v.T, "P": w @ m.T, "V": m @ m.T, "S": m @ v.T}
    y = {name: gram / d for name, gram in y.items()} | {"a": np.array([0.9, -1.2])}
    params = dict(eta=0.8, eta_a=0.5, sigma=0.2, T=v @ v.T / d, b=np.array([1.0, 0.6]), a=y["a"])
    return y, params | dict(kappa=0.4, batch=3.0, mu=1.5, beta=0.6)


def at(dyn, y, params):
    names = {q.name for q in dyn.parameters}
    states = {q.name: y[q.name] for q in dyn.states}
    return evaluate(dyn, states, {name: value for name, value in params.items() if name in names})


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        (dict(second_layer="trained", weight_decay=True), "high-dimensional"),
        pytest.param(dict(activation="relu", batch=True), "high-dimensional", marks=pytest.mark.slow),
        (dict(momentum="slow"), "high-dimensional"),
        (dict(momentum="fixed"), "high-dimensional"),
        (dict(activation="He3"), "gradient-flow"),
        (dict(activation="tanh"), "high-dimensional"),  # over all fields at once
    ],
)
def test_a_step_is_the_free_one_projected(options, limit, rng):
    """By arrays instead of terms: dΩ_fg = X_fg − ½ (X_ff/Ω_ff + X_gg/Ω_gg) Ω_fg, teachers and buffers as they move."""
    y, params = committee(rng)
    free = at(TeacherStudent(**options).dynamics(limit), y, params)
    held = at(TeacherStudent(**options, **SPHERICAL).dynamics(limit), y, params)
    shrinking = np.diag(free["Q"]) / np.diag(y["Q"]) / 2
    assert (abs(shrinking) > 0.01).all(), "too little to see"
    expected = free | {
        "Q": free["Q"] - (shrinking[:, None] + shrinking) * y["Q"],
        **{name: free[name] - shrinking[:, None] * y[name] for name in ("R", "P") if name in free},
    }
    assert held.keys() == expected.keys()
    for name, rate in held.items():
        np.testing.assert_allclose(rate, expected[name], rtol=0, atol=ROUNDING * abs(free["Q"]).max())


def test_weight_decay_drops_out(rng):
    """Shrinking by a factor is what rescaling undoes."""
    y, params = committee(rng)
    plain, decaying = (TeacherStudent(weight_decay=decay, **SPHERICAL).dynamics() for decay in (False, True))
    first, second = at(plain, y, params), at(decaying, y, params)
    for name, rate in first.items():
        np.testing.assert_allclose(second[name], rate, rtol=0, atol=ROUNDING)
    assert not any(e.expr.has(derive.limits.KAPPA) for e in decaying.drift)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_single_index_models_on_the_sphere(order):
    """The flow of He_k: L = k! (1 − m^k), so that ṁ = −(1 − m²) L'(m) = k k! m^(k−1) (1 − m²): Ben Arous, Gheissari &
    Jagannath, J. Mach. Learn. Res. 22, 106 (2021), whose information exponent is k."""
    flow = TeacherStudent(activation=f"He{order}" if order > 1 else "linear", **SPHERICAL).dynamics("gradient-flow")
    for m in (0.05, 0.4, -0.7):
        rates = evaluate(flow, {"Q": [[1.0]], "R": [[m]]}, dict(sigma=0.3, T=[[1.0]], a=1.0, b=1.0))
        expected = order * math.factorial(order) * m ** (order - 1) * (1 - m**2)
        assert rates["R"].item() == pytest.approx(expected, rel=1e-12)
        assert abs(rates["Q"].item()) < 1e-12


def test_noise_of_single_examples_holds_a_student_back():
    """ṁ = η (1 − m²) E[∂F/∂h*] − ½ η² E[F²] m, by Stein's lemma and Gauss–Hermite nodes."""
    m, eta, sigma = 0.35, 1.3, 0.4
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = np.outer(weight, weight) / (2 * math.pi)
    h, other = np.meshgrid(x, x, indexing="ij")
    hers = m * h + math.sqrt(1 - m**2) * other
    g, slope = (lambda u: special.erf(u / math.sqrt(2))), (lambda u: math.sqrt(2 / math.pi) * np.exp(-(u**2) / 2))
    pull = (weight * slope(h) * slope(hers)).sum()
    square = (weight * slope(h) ** 2 * ((g(hers) - g(h)) ** 2 + sigma**2)).sum()
    expected = eta * (1 - m**2) * pull - eta**2 * square * m / 2
    dyn = TeacherStudent(**SPHERICAL).dynamics()
    rates = evaluate(dyn, {"Q": [[1.0]], "R": [[m]]}, dict(eta=eta, sigma=sigma, T=[[1.0]], a=1.0, b=1.0))
    assert rates["R"].item() == pytest.approx(expected, rel=1e-10)


def test_lengths_stay_over_a_trajectory(rng):
    y, params = committee(rng)
    y0, names = {name: y[name] for name in ("Q", "R")}, ("eta", "sigma", "T", "a", "b")
    dyn = TeacherStudent(**SPHERICAL).dynamics()
    sol = solve.integrate(dyn, (0, 100), y0, {name: params[name] for name in names})
    drift = abs(np.einsum("tii->ti", sol.Q.values) - np.diag(y["Q"])).max()
    assert drift < 1e-12  # rounding of a rate that is zero, a hundred steps or so
    assert abs(sol.Q[-1, 0, 1] - y["Q"][0, 1]) > 0.1


def test_what_the_limit_drops_is_the_next_order(rng):
    """Exact rescaling of given increments, less the linear term, against the products of two that are listed."""
    training = TeacherStudent(**SPHERICAL).training_step()
    y, _ = committee(rng)
    X = {"Q": rng.normal(size=(2, 2)), "R": rng.normal(size=(2, 2))}
    X["Q"] += X["Q"].T
    d = 1e4
    grown = [np.sqrt(1 + np.diag(X["Q"]) / d / np.diag(y["Q"])), np.ones(2)]
    values = {}
    for name, other in (("Q", 0), ("R", 1)):
        exact = (y[name] + X[name] / d) / np.outer(grown[0], grown[other]) - y[name]
        x = np.diag(X["Q"]) / np.diag(y["Q"]) / 2
        values[name] = d * (d * exact - X[name] + (x[:, None] + (x if other == 0 else 0)) * y[name])
    for name in ("Q", "R"):
        terms = [e.term for e in second_order(training, LIMITS["high-dimensional"]) if e.quantity == name]
        q = next(q for q in training.states if q.name == name)
        for place in np.ndindex(2, 2):
            entry = dict(zip(q.indices, place, strict=True))

            def number(e, entry=entry):
                return {"Q": y["Q"], "R": y["R"]}[str(e.base)][tuple(entry[i] for i in e.indices)]

            def increment(e, entry=entry):
                return X[str(e.base)][tuple(entry[i] for i in e.indices)] / d

            total = 0.0
            for term in terms:
                (product,) = term.factors
                assert isinstance(product, IncrementProduct)
                coefficient = term.coefficient.subs({e: number(e) for e in term.coefficient.atoms(type(q.symbol))})
                total += d * float(coefficient.subs(derive.limits.D, d)) * np.prod([increment(e) for e in product.args])
            # the third order is X³/d of the second, some 1e-3 here
            assert total == pytest.approx(values[name][place], rel=1e-2, abs=1e-2)


def test_what_is_not_there_says_so():
    for limit in ("finite-d", "finite-d-map"):
        with pytest.raises(NotYet, match="fixed length"):
            TeacherStudent(**SPHERICAL).dynamics(limit)
    with pytest.raises(NotYet, match="fixed length"):
        TeacherStudent(**SPHERICAL, momentum="fixed").dynamics().fluctuations()
    with pytest.raises(ModelError, match="did you mean 'spherical'"):
        TeacherStudent(constraint="sphere")


def test_models_are_values_and_print(tmp_path):
    model = TeacherStudent(**SPHERICAL)
    assert eval(repr(model), vars(derive)) == model and derive.model_from_json(model.to_json()) == model
    dyn = model.dynamics()
    assert "Constraint" in [step.title for step in dyn.steps]
    assert "<ΔR_in ΔQ_ii>" in dyn.explain_limit()
    assert r"\langle \Delta R_{in} \Delta Q_{ii}\rangle" in dyn.article(tmp_path / "article.tex").read_text()
    compile(dyn.write(tmp_path / "model.py").read_text(), "model.py", "exec")
