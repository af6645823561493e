"""Losses, labels, biases and targets in both engines: steps to the last digits, laws within counted errors."""

import json
import pickle

import numpy as np
import pytest
import sympy
from scipy.special import erf

from effdyn.derive import ModelError, TeacherStudent
from effdyn.derive.activation import X
from effdyn.validate.inputs import read_inputs
from effdyn.validate.labels import LABELS, draw_noise
from effdyn.validate.network import compile_network
from effdyn.validate.printing import runnable
from effdyn.validate.simulate import SimulationDiverged, simulate

VALUES = dict(
    eta=0.4, eta_a=0.3, eta_bias=0.2, kappa=0.1, sigma=0.3, flip=0.2, a=[1.0, -0.5], b=[1.0, 0.7, -0.4],
    teacher_bias=[0.2, -0.1, 0.3],
)  # fmt: skip
STARTS = dict(Q=[[0.6, 0.1], [0.1, 0.8]], R=[[0.2, 0.0, 0.1], [-0.1, 0.3, 0.0]], a=[1.0, 0.6], bias=[0.3, -0.2])


def arguments(model, M=3, **changes):
    """Return y0 and params of a model with two students, K = 2, and M teachers."""
    step = model.training_step()
    given = STARTS | VALUES | dict(T=np.eye(3)) | changes

    def cut(q):
        value = np.asarray(given[q.name], float)
        teacher = [n for n, size in enumerate(q.shape) if str(size) == "M"]
        for axis in teacher if value.ndim == len(q.shape) else []:
            value = value.take(range(M), axis)
        return value

    y0, params = ({q.name: cut(q) for q in quantities} for quantities in (step.states, step.parameters))
    y0["a"] = y0.get("a", given["a"])
    return {q.name: y0[q.name] for q in step.states}, params


# ── One step ──

UNITS = {
    "erf": (lambda h: erf(h / np.sqrt(2)), lambda h: np.sqrt(2 / np.pi) * np.exp(-h * h / 2)),
    "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0).astype(float)),
    "He3": (lambda h: h**3 - 3 * h, lambda h: 3 * h**2 - 3),
    "linear": (lambda h: h, np.ones_like),
}
SLOPES = {
    "squared": lambda phi, y: phi - y,
    "logistic": lambda phi, y: -y / (1 + np.exp(y * phi)),
    "hinge": lambda phi, y: -y if y * phi < 1 else 0.0,
    "perceptron": lambda phi, y: -y if y * phi < 0 else 0.0,
    "exponential": lambda phi, y: -y * np.exp(-y * phi),
    "huber": lambda phi, y: np.clip(phi - y, -1, 1),
    "absolute": lambda phi, y: np.sign(phi - y),
}
TARGETS = {"h1*h2*h3": np.prod, "Abs(h1) + sign(h2)": lambda h: abs(h[0]) + np.sign(h[1])}
MODELS = [
    dict(activation="linear", loss="logistic", labels="sign"),
    dict(activation="erf", loss="hinge", labels="sign", second_layer="trained", biases=True, weight_decay=True),
    dict(activation="relu", loss="huber", biases=True, output_scale="1/K"),
    dict(activation="erf", loss="logistic", labels="logistic", second_layer="trained"),
    dict(activation="relu", loss="exponential", labels="logistic", biases=True, weight_decay=True),
    dict(activation="He3", target="h1*h2*h3"),
    dict(activation="erf", target="Abs(h1) + sign(h2)", loss="absolute", second_layer="trained"),
    dict(activation="erf", target="h1*h2*h3", loss="perceptron", labels="sign", biases=True),
]


@pytest.mark.parametrize("options", MODELS, ids=lambda o: "-".join(map(str, o.values())))
def test_compiled_steps_are_the_update_rule_written_in_numpy(options, rng):
    model = TeacherStudent(**options)
    y0, params = arguments(model, eta=0.004 if options["activation"] == "He3" else 0.4)
    given = read_inputs(model, y0, params)
    K, M, d, steps = 2, 3, 6, 40
    V, W = (rng.standard_normal((n, d)) / np.sqrt(d) for n in (M, K))
    x, noise = rng.standard_normal((steps, d)), np.zeros(steps)
    draw_noise(given, rng, noise)
    a, c, W1 = given.a.copy(), given.bias.copy(), W.copy()
    work = given.clock(d), np.ones(K), np.empty(M), np.empty(K), np.empty(K)
    s, eta, eta_a, eta_c, keep = given.rates(d)
    kernel = compile_network(model)
    assert kernel.train(V, W1, a, c, given.b, given.teacher_bias, x, noise, s, eta, eta_a, eta_c, keep, *work) == steps

    g, dg = UNITS[options["activation"]]
    slope, trained = SLOPES[options.get("loss", "squared")], model.trains_second_layer
    a2, c2, flips = given.a.copy(), given.bias.copy(), 0
    for z, n in zip(x, noise, strict=True):
        fields = V @ z
        y = TARGETS[options["target"]](fields) if model.target is not None else given.b @ g(fields + given.teacher_bias)
        if model.labels == "real":
            y += n
        elif model.labels == "sign":
            y, flips = np.sign(y) * np.sign(n), flips + (n < 0)
        else:
            y = 1.0 if y + n > 0 else -1.0
        h = W @ z + c2
        downhill = -s * slope(s * a2 @ g(h), y)
        W = keep * W + eta * downhill * np.outer(a2 * dg(h), z)
        a2, c2 = (
            keep * a2 + eta_a * downhill * g(h) if trained else a2,
            c2 + eta_c * downhill * a2 * dg(h) if model.biases else c2,
        )
    assert model.labels != "sign" or 0 < flips < steps, "no example was flipped, or all"
    np.testing.assert_allclose(W1, W, rtol=1e-11, atol=1e-13)  # 40 steps of a few ulp each, some of them amplified
    np.testing.assert_allclose(a, a2, rtol=1e-11)
    np.testing.assert_allclose(c, c2, rtol=1e-11)
    assert (c != given.bias).all() == model.biases and (a != given.a).all() == trained


def test_printed_functions_neither_overflow_nor_lose_digits():
    for u in (
        sympy.log(1 + sympy.exp(X)),
        1 / (1 + sympy.exp(-X)),
        X / (1 + sympy.exp(-2 * X)),
        sympy.exp(X) / (1 + sympy.exp(X)) ** 2,
    ):
        f = sympy.lambdify(X, runnable(u), modules=["scipy", "numpy"])
        for at in (-800, -40, -1, 0, 1, 40, 800):
            exact = float(u.subs(X, at).evalf(30))
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                assert f(np.float64(at)) == pytest.approx(exact, rel=4e-15, abs=1e-300)


# ── Labels ──


def test_labels_have_their_probabilities(rng):
    """Fractions of n = 10⁵ within 5 sigma: 0.008 at most."""
    n = 100_000
    for options, output, positive in (
        (dict(labels="sign"), 0.7, 0.8),
        (dict(labels="sign"), -0.7, 0.2),
        (dict(labels="sign"), 0.0, 0.5),  # a coin
        (dict(labels="logistic"), 0.7, 1 / (1 + np.exp(-0.7))),
        (dict(labels="logistic"), -2.0, 1 / (1 + np.exp(2.0))),
    ):
        model = TeacherStudent(activation="erf", loss="logistic", **options)
        given = read_inputs(model, *arguments(model))
        noise = np.empty(n)
        draw_noise(given, rng, noise)
        labels = np.array([LABELS[model.labels](output, value) for value in noise.tolist()])
        assert set(labels.tolist()) == {-1.0, 1.0}
        assert abs((labels > 0).mean() - positive) < 5 * np.sqrt(positive * (1 - positive) / n)
        assert np.isnan(LABELS[model.labels](float("nan"), noise[0]))


# ── Law ──

LAW = {
    "logistic regression": (dict(activation="linear", loss="logistic", labels="sign"), 1, 2.0),
    "hinge, logistic labels": (dict(activation="linear", loss="hinge", labels="logistic"), 2, 2.0),
    "biases": (dict(activation="erf", biases=True, second_layer="trained"), 2, 2.0),
    "three fields": (dict(activation="He3", target="h1*h2*h3"), 3, 0.005),
    "abs": (dict(activation="Abs(x)", loss="huber"), 2, 1.0),
}


@pytest.mark.parametrize("name", LAW)
def test_chain_and_network_have_one_law(name):
    options, M, eta = LAW[name]
    model = TeacherStudent(**options)
    y0, params = arguments(model, M, eta=eta)
    runs = 1000
    gram, network = (
        simulate(
            model,
            d=12,
            runs=runs,
            t_span=(0, 1),
            t_eval=[0, 0.5, 1],
            y0=y0,
            params=params,
            rng=seed,
            engine=engine,
            align=False,
            progress=False,
        )
        for seed, engine in enumerate(("gram", "network"))
    )
    states = [q.name for q in model.training_step().states]
    moved = 0
    for variable in (*states, "eg" if model.labels == "real" else "error_rate", "loss"):
        first, second = (dataset[variable].values.reshape(runs, 3, -1) for dataset in (gram, network))
        if variable in states:
            np.testing.assert_allclose(first[:, 0], second[:, 0], rtol=0, atol=1e-13)
        for transform in (lambda v: v, lambda v: (v - v.mean(0)) ** 2):  # means, then variances
            x, y = (transform(values[:, 1:]) for values in (first, second))
            error = np.sqrt((x.var(0, ddof=1) + y.var(0, ddof=1)) / runs)
            assert (abs(x.mean(0) - y.mean(0)) <= 5 * error + 1e-12).all(), variable
        spread = first[:, 1:].std(0)
        change = abs(first[:, 2] - first[:, 0]).mean(0)
        moved += int((change > 3 * spread[1] * np.sqrt(2 / runs)).sum())
    assert moved >= 3, "nothing has moved by more than could be seen"


def test_bits_do_not_depend_on_threads_or_the_number_of_runs():
    """Labels' noise, and the points of the averages, belong to the run."""
    model = TeacherStudent(activation="erf", loss="logistic", labels="sign", biases=True)
    y0, params = arguments(model)
    options = dict(d=[20, 30], t_span=(0, 1), t_eval=[0, 1], y0=y0, params=params, align=False, progress=False)
    for engine in ("gram", "network"):
        one = simulate(model, runs=3, threads=1, engine=engine, **options)
        assert one.identical(simulate(model, runs=3, threads=3, engine=engine, **options))
        more = simulate(model, runs=5, engine=engine, **options).isel(run=slice(3))
        assert all((more[name] == one[name]).all() for name in ("Q", "bias", "error_rate", "loss"))
        assert len(np.unique(one.loss.isel(t=0))) == 6, "every run has its own points"


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_dims_attributes_and_moments_of_biases(engine):
    model = TeacherStudent(activation="erf", biases=True)
    y0, params = arguments(model)
    result = simulate(model, d=20, runs=3, t_span=(0, 1), y0=y0, params=params, engine=engine, progress=False)
    assert list(result.bias.dims) == ["run", "t", "student"] and "a" not in result
    assert (result.bias.isel(t=0) == y0["bias"]).all()
    assert set(json.loads(result.attrs["parameters"])) == set(params)
    assert set(json.loads(result.attrs["y0"])) == {"Q", "R", "bias"}


def test_divergence_is_seen_whatever_the_loss():
    """The slope of the hinge is bounded: what grows without bound is the product of both layers."""
    cases = [
        (dict(activation="relu", loss="hinge", labels="sign", second_layer="trained"), dict(eta=1e200, eta_a=1e200)),
        (dict(activation="square", loss="absolute", biases=True), dict(eta=1e3, a=[1e100, 1e100])),
    ]
    for options, changes in cases:
        model = TeacherStudent(**options)
        y0, params = arguments(model, **changes)
        for engine in ("gram", "network") if model.biases else ("gram",):
            with pytest.raises(SimulationDiverged, match="output phi, or the slope of its loss") as caught:
                simulate(model, d=20, runs=4, t_span=(0, 20), y0=y0, params=params, engine=engine, progress=False)
            expected = {"Q", "R", "a"} | ({"bias"} if model.biases else set())
            assert set(caught.value.state) == expected
            assert pickle.loads(pickle.dumps(caught.value)).t == caught.value.t


# ── Errors at the door ──

BAD = [
    (dict(activation="erf", target="h1*h2*h3"), 2, {}, "y0['R']", "at least 3"),
    (dict(activation="linear", loss="hinge", labels="sign"), 2, dict(flip=0.6), "params['flip']", "at most 0.5"),
    (dict(activation="linear", loss="hinge", labels="sign"), 2, dict(flip=-0.1), "params['flip']", "at least 0"),
    (dict(activation="linear", loss="hinge", labels="sign"), 2, dict(sigma=0.1), "params['sigma']", "one of eta, flip"),
    (dict(activation="linear", loss="hinge", labels="logistic"), 2, dict(flip=0.1), "params['flip']", "one of eta, T"),
    (dict(activation="erf", target="h1*h2*h3"), 3, dict(b=1.0), "params['b']", "one of eta, sigma, T, a"),
    (dict(activation="erf"), 2, dict(eta_bias=1.0), "params['eta_bias']", "one of eta, sigma, T, a, b"),
    (dict(activation="erf", biases=True), 2, dict(bias=1.0), "params['bias']", "belongs in y0"),
    (dict(activation="erf", biases=True), 2, dict(teacher_bias=[1.0] * 3), "params['teacher_bias']", r"\(2,\)"),
]


@pytest.mark.parametrize(
    ("options", "M", "extra", "argument", "message"), BAD, ids=[f"{b[3]}-{b[4][:12]}" for b in BAD]
)
def test_mistakes_are_named(options, M, extra, argument, message):
    model = TeacherStudent(**options)
    y0, params = arguments(model, M)
    with pytest.raises(ModelError, match=message) as caught:
        simulate(model, d=20, runs=1, t_span=(0, 1), y0=y0, params=params | extra, progress=False)
    assert caught.value.argument == argument
