"""Wide students: limits of an output that is a mean over units, and neurons described by R and Q⊥."""

import math

import numpy as np
import pytest
import sympy
from scipy import special

from effdyn import derive
from effdyn.derive import ModelError, NotYet, TeacherStudent
from effdyn.solve import perpendicular
from effdyn.solve.kernels.reference import evaluate, observe

ROUNDING = 1e-12
"""A few thousand operations on numbers of order one, at 1e-16 each, with a T⁺ whose condition is below 100."""
K, M = 3, 2


def erf_model(**options):
    return TeacherStudent(activation="erf", output_scale="1/K", **options)


def state_and_params(rng, rank=M):
    weights, teacher = rng.normal(size=(K, 9)), rng.normal(size=(M, rank)) @ rng.normal(size=(rank, 9))
    y = {"Q": weights @ weights.T / 9, "R": weights @ teacher.T / 9}
    params = {"T": teacher @ teacher.T / 9, "a": np.array([0.9, -1.2, 0.7]), "b": np.array([1.0, 0.6]), "sigma": 0.3}
    return y, params


def described(y, params, alone=False):
    """The same state in R and Q⊥."""
    across = perpendicular(y["Q"], y["R"], params["T"])
    inverse = {"T_inv": np.linalg.pinv(params["T"], hermitian=True)}
    return {"R": y["R"], "Q_perp": np.diag(across) if alone else across}, params | inverse


@pytest.mark.parametrize("rank", [2, 1])
def test_all_pairs_are_a_change_of_variables(rank, rng):
    """d(R T⁺ Rᵀ + Q⊥)/dt is dQ/dt of gradient flow, and so is every observable, with a singular T too."""
    y, params = state_and_params(rng, rank)
    flow, pairs = (erf_model().dynamics(name) for name in ("gradient-flow", "mean-field-pairs"))
    other, with_inverse = described(y, params)
    slow, here = evaluate(flow, y, params), evaluate(pairs, other, with_inverse)
    along = here["R"] @ with_inverse["T_inv"] @ y["R"].T
    np.testing.assert_allclose(K * slow["R"], here["R"], rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(K * slow["Q"], along + along.T + here["Q_perp"], rtol=ROUNDING, atol=ROUNDING)
    seen, expected = observe(pairs, other, with_inverse), observe(flow, y, params)
    np.testing.assert_allclose(seen["Q"], y["Q"], rtol=ROUNDING, atol=ROUNDING)
    for name in ("eg", "loss", "cosine"):
        np.testing.assert_allclose(seen[name], expected[name], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("options", [{}, {"second_layer": "trained"}, {"weight_decay": True}, {"batch": True}])
def test_any_width_is_the_high_dimensional_limit_on_another_clock(options, rng):
    """On the clock η·steps/(Kd) a rate is K/η of that in steps/d: nothing else changes, the noise included."""
    y, params = state_and_params(rng)
    params |= {"eta": 1.7, "eta_a": 0.4, "kappa": 0.2, "batch": 3.0}
    wide, plain = (erf_model(**options).dynamics(name) for name in ("wide", "high-dimensional"))
    y |= {"a": params["a"]} if options.get("second_layer") else {}
    params = {q.name: params[q.name] for q in plain.parameters}
    here, there = evaluate(wide, y, params), evaluate(plain, y, params)
    for name in y:
        np.testing.assert_allclose(here[name], K / 1.7 * there[name], rtol=ROUNDING, atol=ROUNDING)


def test_neurons_alone_shrink_at_the_rate_that_stein_gives(rng):
    """dq⊥_i/dt = 2 a_i q⊥_i (E[g''(h_i)(y* − φ)] − (a_i/K) E[g'(h_i)²]): q⊥ = 0 stays. By quadrature."""
    y, params = state_and_params(rng)
    state, with_inverse = described(y, params, alone=True)
    found = evaluate(erf_model().dynamics("mean-field"), state, with_inverse)["Q_perp"]
    Q = y["R"] @ with_inverse["T_inv"] @ y["R"].T + np.diag(state["Q_perp"])
    gram = np.block([[Q, y["R"]], [y["R"].T, params["T"]]])
    weights = np.concatenate([-params["a"] / K, params["b"]])
    nodes, w = np.polynomial.hermite_e.hermegauss(80)
    u, v, w = *(axis.ravel() for axis in np.meshgrid(nodes, nodes)), np.outer(w, w).ravel() / (2 * math.pi)

    def slope(h):
        return math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2)

    for i in range(K):
        h = math.sqrt(gram[i, i]) * u
        rest = sum(
            c * special.erf((gram[i, f] / math.sqrt(gram[i, i]) * u + math.sqrt(
                max(gram[f, f] - gram[i, f] ** 2 / gram[i, i], 0.0)) * v) / math.sqrt(2))
            for f, c in enumerate(weights)
        )  # fmt: skip
        force = np.sum(w * -h * slope(h) * rest) - params["a"][i] / K * np.sum(w * slope(h) ** 2)
        expected = 2 * params["a"][i] * state["Q_perp"][i] * force
        assert abs(found[i] - expected) < 1e-9  # of the rule: functions are entire, of width above 1
    nothing = evaluate(erf_model().dynamics("mean-field"), {**state, "Q_perp": np.zeros(K)}, with_inverse)["Q_perp"]
    assert abs(nothing).max() < ROUNDING


def test_one_neuron_has_no_pairs(rng):
    """At K = 1 the ansatz is empty: gradient flow of one neuron, exactly."""
    y, params = state_and_params(rng)
    y, params = {"Q": y["Q"][:1, :1], "R": y["R"][:1]}, params | {"a": params["a"][:1]}
    state, with_inverse = described(y, params, alone=True)
    here, flow = (
        evaluate(erf_model().dynamics("mean-field"), state, with_inverse),
        evaluate(erf_model().dynamics("gradient-flow"), y, params),
    )
    along = 2 * here["R"] @ with_inverse["T_inv"] @ y["R"].T
    np.testing.assert_allclose(here["Q_perp"] + along[0], flow["Q"][0], rtol=ROUNDING, atol=ROUNDING)


def test_what_vanishes_is_recorded_with_its_rate():
    dyn = erf_model(batch=True).dynamics("mean-field")
    assert {str(d.quantity) for d in dyn.dropped} == {"Q_perp"}
    assert {d.order for d in dyn.dropped} == {"eta/K", "1/d · eta/K"}
    noise = [d.term for d in dyn.dropped if d.order == "eta/K"]
    eta, batch, sigma = (next(s for s in t.coefficient.free_symbols if s.name == name) for t in noise[:1]
                         for name in ("eta", "batch", "sigma"))  # fmt: skip
    assert all(t.coefficient.as_coeff_exponent(eta)[1] == 1 for t in noise)
    assert all(t.coefficient.as_coeff_exponent(batch)[1] == -1 for t in noise)
    assert any(t.coefficient.has(sigma) for t in noise)
    assert "as eta/K: eta sigma^2/(K batch) a_i^2 E[g'(h_i) g'(h_i)]" in dyn.explain_limit()
    assert dyn.status.startswith("ansatz") and any("O(1/K)" in text for text in dyn.assumptions)
    assert erf_model().dynamics("mean-field-pairs").status == "exact in the limit"
    assert not any(q.name == "eta" for q in dyn.parameters)


def test_dynamics_survive_json_and_evaluate():
    for name in ("wide", "mean-field-pairs", "mean-field"):
        dyn = erf_model().dynamics(name)
        assert eval(repr(dyn), vars(derive)) == dyn
        assert sympy.Symbol("K", integer=True, positive=True) in dyn.sizes


def test_in_the_papers_convention_the_clock_is_the_same(rng):
    """Arnaboldi et al. count γ·steps/(pd) and write γ/p before the noise: rates do not change, names do."""
    y, params = state_and_params(rng)
    wide, paper = erf_model().dynamics("wide"), derive.convention("arnaboldi-2023")
    theirs = paper.convert(wide)
    params |= {"eta": 1.7, "a": np.ones(K), "b": np.full(M, 1 / M)}  # their outputs are means of both
    ours = evaluate(wide, y, params)
    start, given, _ = paper.from_effdyn(y, params, model=erf_model(), d=1000)
    here = evaluate(theirs, start, {q.name: np.asarray(given[q.name]) for q in theirs.parameters})
    for name, symbol in (("Q", "Q"), ("R", "M")):
        np.testing.assert_allclose(here[symbol], ours[name], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", ["wide", "mean-field", "mean-field-pairs"])
def test_refused(name):
    with pytest.raises(ModelError, match="output_scale='1/K'"):
        TeacherStudent().dynamics(name)
    with pytest.raises(NotYet, match="slow momentum"):
        erf_model(momentum="slow").dynamics(name)
