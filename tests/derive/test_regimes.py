"""Batches, momentum and finite d: what the rules derive, against training steps averaged otherwise and known limits."""

import math

import numpy as np
import pytest
import sympy
from scipy import special

from effdyn import derive
from effdyn.derive import NoClosedForm, NotYet, TeacherStudent
from effdyn.derive.activation import X
from effdyn.derive.gradients import degree_of
from effdyn.solve.kernels.reference import evaluate

K, M = 2, 2
ROUNDING = 1e-11


def vectors(d, rng):
    return rng.normal(size=(K, d)), rng.normal(size=(M, d)), rng.normal(size=(K, d))


def overlaps(weights, teacher, buffers):
    d = weights.shape[1]
    y = {"Q": weights @ weights.T, "R": weights @ teacher.T, "P": weights @ buffers.T, "V": buffers @ buffers.T}
    return {name: gram / d for name, gram in (y | {"S": buffers @ teacher.T}).items()}


def one_step(weights, teacher, buffers, p, samples, rng, unit, slope):
    """d·ΔΩ of one literal step on ``batch`` examples, with momentum where there is a ``mu`` or ``beta``."""
    d, batch = weights.shape[1], p.get("batch", 1)
    x = rng.normal(size=(samples, batch, d))
    h, hers = x @ weights.T / math.sqrt(d), x @ teacher.T / math.sqrt(d)
    error = unit(hers) @ p["b"] + p["sigma"] * rng.normal(size=(samples, batch)) - unit(h) @ p["a"]
    kick = np.einsum("sbi,sbd->sid", p["eta"] * p["a"] * slope(h) * error[..., None], x) / batch / math.sqrt(d)
    if "mu" in p:
        after = (1 - p["mu"] / d) * buffers + kick
        moved = weights + after / d
    elif "beta" in p:
        after = p["beta"] * buffers + kick
        moved = (1 - p.get("kappa", 0.0) / d) * weights + after
    else:
        after, moved = buffers + 0 * kick, (1 - p.get("kappa", 0.0) / d) * weights + kick

    def change(u, v, before):
        return np.einsum("sid,...kd->sik", u, v) - before if v.ndim == 2 else np.einsum("sid,skd->sik", u, v) - before

    return {
        "Q": change(moved, moved, weights @ weights.T),
        "R": change(moved, teacher, weights @ teacher.T),
        "P": change(moved, after, weights @ buffers.T),
        "V": change(after, after, buffers @ buffers.T),
        "S": change(after, teacher, buffers @ teacher.T),
    }


ERF = (lambda h: special.erf(h / math.sqrt(2)), lambda h: math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2))
RELU = (lambda h: np.maximum(h, 0), lambda h: (h > 0).astype(float))


@pytest.mark.parametrize(
    ("options", "extra", "unit"),
    [
        ({"weight_decay": True}, {"kappa": 0.4}, ERF),
        ({"batch": True}, {"batch": 3}, ERF),
        ({"activation": "relu", "batch": True}, {"batch": 4}, RELU),
        ({"momentum": "slow", "batch": True}, {"mu": 1.5, "batch": 2}, ERF),
        ({"momentum": "fixed", "batch": True, "weight_decay": True}, {"beta": 0.6, "batch": 2, "kappa": 0.4}, ERF),
    ],
)
def test_mean_of_one_step_at_finite_d(options, extra, unit, rng):
    """The exact mean at d = 8, where 1/d terms are a tenth of all: literal steps agree within 5 sigma."""
    d, samples, batches = 8, 20_000, 20
    model = TeacherStudent(**options)
    weights, teacher, buffers = vectors(d, rng)
    p = {"eta": 1.3, "sigma": 0.3, "a": np.array([0.9, -1.2]), "b": np.array([1.0, 0.6]), **extra}
    params = {**p, "T": teacher @ teacher.T / d}
    y = overlaps(weights, teacher, buffers)
    finite, limit = model.dynamics("finite-d"), model.dynamics()
    states = {q.name: y[q.name] for q in finite.states}
    exact = evaluate(finite, states, {**params, "d": float(d)})
    leading = evaluate(limit, {q.name: y[q.name] for q in limit.states}, params)
    parts = [one_step(weights, teacher, buffers, p, samples, rng, *unit) for _ in range(batches)]
    seen = 0.0
    for name in exact:
        sample = np.concatenate([part[name] for part in parts])
        mean, error = sample.mean(0), sample.std(0, ddof=1) / math.sqrt(len(sample))
        assert (abs(mean - exact[name]) < 5 * error + 1e-12).all(), name
        if name in leading:
            seen = max(seen, (abs(mean - leading[name]) / (error + 1e-12)).max())
    assert seen > 8, "the limit alone would have passed: the terms of order 1/d were not tested"


@pytest.mark.slow
def test_mean_of_one_step_with_a_field_that_contains_label_noise(rng):
    """log cosh(y − φ) of linear networks is a function of one field, noise included, which |x|² does not stretch."""
    d, samples = 6, 100_000
    model = TeacherStudent(activation="linear", loss="log(cosh(y - phi))", batch=True)
    weights, teacher, buffers = vectors(d, rng)
    p = {"eta": 1.3, "sigma": 0.7, "a": np.array([0.8, -1.1]), "b": np.array([1.0, 0.6])}
    y, params = overlaps(weights, teacher, buffers), p | {"T": teacher @ teacher.T / d, "batch": 2.0, "d": float(d)}
    exact = evaluate(model.dynamics("finite-d"), {"Q": y["Q"], "R": y["R"]}, params)["Q"]
    x = rng.normal(size=(samples, 2, d))
    error = x @ teacher.T / math.sqrt(d) @ p["b"] - x @ weights.T / math.sqrt(d) @ p["a"]
    error += p["sigma"] * rng.normal(size=(samples, 2))
    kick = np.einsum("sb,i,sbd->sid", np.tanh(error) * p["eta"] / 2, p["a"], x) / math.sqrt(d)
    change = np.einsum("sid,skd->sik", weights + kick, weights + kick) - weights @ weights.T
    assert (abs(change.mean(0) - exact) < 5 * change.std(0, ddof=1) / math.sqrt(samples)).all()
    with pytest.raises(NoClosedForm):  # the slope of its slope jumps
        TeacherStudent(activation="linear", loss="huber").dynamics("finite-d")


def state_and_params(rng):
    weights, teacher, buffers = vectors(9, rng)
    y = overlaps(weights, teacher, buffers)
    params = {
        "eta": 0.8,
        "sigma": 0.2,
        "a": np.array([0.9, -1.2]),
        "b": np.array([1.0, 0.6]),
        "T": teacher @ teacher.T / 9,
    }
    return {"Q": y["Q"], "R": y["R"]}, params


def same(one, other):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_known_limits(activation, rng):
    """b = 1 is plain SGD, b → ∞ in high dimension gradient descent, β = 0 no momentum, and η → η/(1 − β) otherwise."""
    y, params = state_and_params(rng)
    plain = TeacherStudent(activation=activation)
    batches = TeacherStudent(activation=activation, batch=True)
    for limit, more in (("high-dimensional", {}), ("finite-d", {"d": 30.0})):
        one = evaluate(batches.dynamics(limit), y, {**params, **more, "batch": 1.0})
        same(evaluate(plain.dynamics(limit), y, {**params, **more}), one)
    flow_params = {name: value for name, value in params.items() if name != "eta"}
    flow = evaluate(plain.dynamics("gradient-flow"), y, flow_params)
    many = evaluate(batches.dynamics(), y, {**params, "batch": 1e14})
    same({name: params["eta"] * rate for name, rate in flow.items()}, many)
    momentum = TeacherStudent(activation=activation, momentum="fixed").dynamics()
    same(evaluate(plain.dynamics(), y, params), evaluate(momentum, y, {**params, "beta": 0.0}))
    faster = {**params, "eta": params["eta"] / (1 - 0.7)}
    same(evaluate(plain.dynamics(), y, faster), evaluate(momentum, y, {**params, "beta": 0.7}))


def test_weights_decay_as_fast_with_momentum(rng):
    """β makes the gradient 1/(1 − β) times as large, and leaves κ alone."""
    y, params = state_and_params(rng)
    params["kappa"] = 0.3
    plain, momentum = (TeacherStudent(weight_decay=True, momentum=kind).dynamics() for kind in (False, "fixed"))
    faster = {**params, "eta": params["eta"] / (1 - 0.7)}
    same(evaluate(plain, y, faster), evaluate(momentum, y, {**params, "beta": 0.7}))


def test_finite_d_tends_to_the_limit(rng):
    y, params = state_and_params(rng)
    model = TeacherStudent(batch=True)
    limit = evaluate(model.dynamics(), y, {**params, "batch": 3.0})["Q"]
    near, far = (
        abs(evaluate(model.dynamics("finite-d"), y, {**params, "batch": 3.0, "d": d})["Q"] - limit).max()
        for d in (100.0, 1000.0)
    )
    assert near / far == pytest.approx(10, rel=1e-9)  # nothing but 1/d is there
    step = evaluate(model.dynamics("finite-d-map"), y, {**params, "batch": 3.0, "d": 100.0})["Q"]
    rate = evaluate(model.dynamics("finite-d"), y, {**params, "batch": 3.0, "d": 100.0})["Q"]
    np.testing.assert_allclose(100 * step, rate, rtol=ROUNDING)
    assert model.dynamics("finite-d-map").kind == "map"


def test_homogeneous_functions_know_their_degree():
    assert degree_of(sympy.Abs(X)) == 1 and degree_of(sympy.sign(X)) == 0 and degree_of(X**2) == 2
    assert degree_of(sympy.Max(0, X - 1)) is None and degree_of(X + X**2) is None and degree_of(sympy.erf(X)) is None


def test_what_is_not_there_says_so():
    for options, limit in (
        ({"momentum": "fixed", "inputs": "blocks"}, "finite-d"),
        ({"momentum": "slow"}, "gradient-flow"),
        ({"loss": "huber"}, "finite-d"),
    ):
        with pytest.raises(NotYet):
            TeacherStudent(**options).dynamics(limit)


@pytest.mark.parametrize("options", [{"batch": True}, {"momentum": "fixed"}, {"momentum": "slow", "batch": True}])
def test_models_are_values_and_print(options, tmp_path):
    model = TeacherStudent(**options)
    assert eval(repr(model), vars(derive)) == model
    assert derive.model_from_json(model.to_json()) == model
    dyn = model.dynamics()
    assert dyn.latex() and str(dyn) and dyn.article(tmp_path / "article.tex").read_text()
    dyn.write(tmp_path / "model.py")
    text = (tmp_path / "model.py").read_text()
    compile(text, "model.py", "exec")
