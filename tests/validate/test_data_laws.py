"""Inputs that are not Gaussian: their moments, steps enumerated by hand, universality and where it ends."""

import math
from itertools import product

import numpy as np
import pytest

from effdyn import solve
from effdyn.derive import ModelError, TeacherStudent
from effdyn.validate.compare import compare
from effdyn.validate.data_laws import LAWS, Examples, HiddenManifold, Rademacher, StudentT, Uniform, read_law
from effdyn.validate.simulate import simulate

from .test_gram import assert_same_law

MODEL = TeacherStudent(activation="erf")
PARAMS = dict(eta=1.0, sigma=0.1, T=[[1.0]], a=1.0, b=1.0)
Y0 = dict(Q=[[0.3]], R=[[0.1]])
TIMES = [0, 1, 2, 4]


def run(inputs, model=MODEL, **changes):
    how = dict(d=400, runs=64, t_span=(0, 4), t_eval=TIMES, y0=Y0, params=PARAMS, rng=0, engine="network")
    return simulate(model, inputs=inputs, progress=False, **(how | changes))


def signs(rng, n, d):
    return rng.choice([-1, 1], (n, d))


def name(inputs):
    return str(read_law(inputs))


# ── The laws ──

FOURTH = [("gaussian", 3.0), ("rademacher", 1.0), ("uniform", 9 / 5), (StudentT(20), 3 + 6 / 16)]


@pytest.mark.parametrize(("law", "fourth"), FOURTH, ids=lambda value: str(value))
def test_independent_entries_have_unit_variance(law, fourth, rng):
    x = read_law(law).sampler(501, rng)(np.random.default_rng(1), 2000)
    assert x.shape == (2000, 501) and x.dtype == float
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, fourth), (2, 1)):
        found = x**power
        assert abs(found.mean() - moment) <= 5 * found.std() / math.sqrt(x.size) + 1e-12
    cross = x[:, 1:] * x[:, :-1]
    assert abs(cross.mean()) < 5 / math.sqrt(cross.size)


def test_a_shared_scale_makes_squares_of_entries_correlated(rng):
    """E x_1² x_2² = (df − 2)/(df − 4) for the multivariate t, and 1 for independent entries."""
    for law, expected in ((StudentT(20, shared=True), 18 / 16), (StudentT(20), 1.0)):
        x = law.sampler(2, rng)(np.random.default_rng(1), 400_000)
        both = (x**2).prod(axis=1)
        assert abs(both.mean() - expected) < 5 * both.std() / math.sqrt(both.size)
        assert both.std() / math.sqrt(both.size) < 0.1 * (18 / 16 - 1)


def relu(u):
    return np.maximum(u, 0)


@pytest.mark.parametrize("f", [np.sign, np.tanh, relu])
def test_hidden_manifold_is_standardised_and_of_few_dimensions(f, rng):
    d, latent = 40, 10
    x = HiddenManifold(f, ratio=latent / d).sampler(d, rng)(np.random.default_rng(1), 20_000)
    error = 5 / math.sqrt(len(x))
    assert abs(x.mean(0)).max() < error * 1.1
    assert np.allclose((x**2).mean(0), 1, atol=error * (x**2).std(0).max() + 1e-12)
    # The linear part of f lies in D' dimensions: (E u f)² of the variance, 0.637 for sign, more for the others.
    assert np.linalg.eigvalsh(np.cov(x.T))[-latent:].sum() / d > 0.63


def test_hidden_manifold_entries_are_the_formula(rng):
    """One latent dimension: F z/√D' is ±z, so that every entry is f(±z) standardised."""
    x = HiddenManifold(relu, ratio=1e-9).sampler(5, rng)(np.random.default_rng(1), 7)
    z = np.random.default_rng(1).standard_normal((7, 1))
    mean, variance = 1 / math.sqrt(2 * math.pi), 0.5 - 1 / (2 * math.pi)
    either = [(relu(side * z) - mean) / math.sqrt(variance) for side in (1, -1)]
    assert np.allclose(np.minimum(abs(x - either[0]), abs(x - either[1])), 0, atol=1e-9)


def test_examples_do_not_depend_on_how_they_are_asked_for(rng):
    sampler = Rademacher().sampler(3, rng)  # 3 bits an example: chunks do not end with a byte
    whole = Examples(sampler, np.random.default_rng(1), 8)
    parts = Examples(sampler, np.random.default_rng(1), 8)
    expected = np.concatenate([whole.take(8).copy() for _ in range(4)])
    found = np.concatenate([parts.take(n).copy() for n in (1, 0, 6, 3, 8, 8, 5, 1)])
    assert (found == expected).all()


# ── Steps ──


@pytest.mark.parametrize("model", [MODEL, TeacherStudent(activation="erf", batch=True)], ids=["one", "batch"])
def test_mean_of_one_step_on_signs_along_axes_is_an_average_over_four_corners(model):
    """Teacher e_1, student in the plane of e_1 and e_2: fields take four values, and |x|² = d."""
    d, runs, Q, R, eta, sigma = 6, 2000, 0.8, 0.3, 1.5, 0.3
    corners = np.array(list(product((-1.0, 1.0), repeat=2)))
    target, h = corners[:, 0], R * corners[:, 0] + math.sqrt(Q - R * R) * corners[:, 1]
    erf = np.vectorize(lambda u: math.erf(u / math.sqrt(2)))
    slope = math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2)
    error = erf(target) - erf(h)
    F = slope * error
    expected = {
        "Q": np.mean(2 * eta / d * F * h + eta**2 / d * (F**2 + sigma**2 * slope**2)),
        "R": np.mean(eta / d * F * target),
    }
    params = PARAMS | dict(eta=eta, sigma=sigma) | ({"batch": 1} if model.batch else {})
    how = dict(d=d, runs=runs, t_span=(0, 1), t_eval=[0, 1 / d], y0=dict(Q=[[Q]], R=[[R]]), params=params)
    result = run("rademacher", model, orientation="axes", **how)
    for name, value in expected.items():
        step = result[name].diff("t").values.ravel()
        assert abs(step.mean() - value) < 5 * step.std() / math.sqrt(runs) < 0.16 * abs(step).mean(), name
    first = result.isel(t=0)
    for name, value in {"eg": np.mean(error**2) / 2, "loss": np.mean(error**2) / 2 + sigma**2 / 2}.items():
        assert abs(first[name].mean() - value) < 5 * first[name].std() / math.sqrt(runs) < 0.02 * value, name


@pytest.mark.parametrize("batch", [0, 3])
def test_on_gaussian_inputs_along_axes_the_law_is_that_of_the_chain(batch):
    model = TeacherStudent(activation="erf", second_layer="trained", batch=bool(batch))
    params = dict(eta=1.0, eta_a=0.5, sigma=0.2, T=np.eye(2), b=1.0) | ({"batch": batch} if batch else {})
    y0 = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]], a=[0.8, 1.1])
    how = dict(d=8, runs=1000, t_span=(0, 1), t_eval=[0.5, 1], y0=y0, params=params, align=False)
    chain = run("gaussian", model, engine="gram", **how).drop_vars(["eg", "loss"])
    network = run("gaussian", model, orientation="axes", rng=1, **how).drop_vars(["eg", "loss"])
    assert_same_law(chain, network, detectable=0.23)  # 5 √(2/1000)


@pytest.mark.parametrize("labels", ["sign", "logistic"])
def test_error_rate_and_loss_by_test_examples_are_those_of_gaussian_fields(labels):
    """Gaussian test examples, against the averages that are taken over fields."""
    model = TeacherStudent(activation="tanh", labels=labels, loss="squared" if labels == "sign" else "logistic")
    params = dict(eta=0.5, T=[[1.0]], a=1.0, b=1.0) | (dict(flip=0.1) if labels == "sign" else {})
    how = dict(d=50, runs=100, t_span=(0, 1), t_eval=[0, 1], params=params)
    tested, fields = run("gaussian", model, orientation="axes", **how), run("gaussian", model, rng=1, **how)
    for name in ("error_rate", "loss"):
        difference = tested[name].mean("run") - fields[name].mean("run")
        error = np.hypot(tested[name].std("run"), fields[name].std("run")) / 10
        assert (abs(difference) < 5 * error).all() and (error < 0.02).all()


# ── Universality ──


@pytest.fixture(scope="module")
def theory():
    return solve.integrate(MODEL.dynamics(), (0, 4), Y0, PARAMS, t_eval=TIMES)


def test_other_independent_inputs_give_the_gaussian_theory(theory):
    for inputs in ("rademacher", "uniform", StudentT(8), signs):
        verdict = compare(theory, run(inputs))
        assert verdict.passed, (inputs, verdict)


@pytest.mark.parametrize("inputs", ["rademacher", "uniform"])
def test_a_teacher_that_is_one_input_is_not_universal(theory, inputs):
    assert compare(theory, run(inputs, orientation="axes")).status == "FAIL"
    assert compare(theory, run("gaussian", orientation="axes", d=100)).passed


@pytest.mark.parametrize("inputs", [StudentT(2.5), StudentT(5, shared=True)], ids=str)
def test_heavy_tails_are_not_universal_at_this_d(theory, inputs):
    assert compare(theory, run(inputs)).status == "FAIL"


def test_a_hidden_manifold_is_not_isotropic(theory):
    assert compare(theory, run(HiddenManifold(np.sign, 0.2), d=100, runs=32)).status == "FAIL"


# ── Numbers and mistakes ──


@pytest.mark.parametrize("inputs", ["rademacher", StudentT(5), signs, HiddenManifold(np.tanh, 0.5)], ids=name)
def test_same_bits_for_any_threads_and_times(inputs):
    how = dict(d=30, runs=5, align=False)
    reference = run(inputs, threads=1, **how)
    assert reference.identical(run(inputs, threads=8, **how))
    fine = run(inputs, t_eval=None, **how)
    assert (fine.R.sel(t=4) == reference.R.sel(t=4)).all() and (fine.eg.sel(t=4) == reference.eg.sel(t=4)).all()
    assert reference.attrs["inputs"] == str(read_law(inputs)) in reference.attrs["simulation_status"]


def test_an_array_is_drawn_from_with_replacement():
    """Of two examples that are each other's negative an odd network learns what it learns of one, however often."""
    row = np.random.default_rng(0).choice([-1.0, 1.0], 30)
    result = run(np.array([row, -row]), d=30, runs=3, params=PARAMS | dict(sigma=0.0))
    single = run(np.array([row]), d=30, runs=3, params=PARAMS | dict(sigma=0.0))
    assert np.allclose(result.R, single.R, atol=1e-12) and np.allclose(result.eg, single.eg, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "argument", "message"),
    [
        (dict(inputs="rademacer"), "inputs", "did you mean 'rademacher'"),
        (dict(inputs="student-t"), "inputs", r"StudentT\(df, shared\)"),
        (dict(inputs=np.zeros(3)), "inputs", "an array"),
        (dict(inputs=np.full((3, 30), np.nan)), "inputs", "not finite"),
        (dict(inputs=np.zeros((4, 29))), "d", "29"),
        (dict(inputs=lambda rng, n, d: np.zeros((n, d + 1))), "inputs", "finite real numbers of shape"),
        (dict(inputs="uniform", engine="gram"), "inputs", "engine='network'"),
        (dict(inputs="gaussian", engine="gram", orientation="axes"), "orientation", "no axes"),
        (dict(inputs="gaussian", orientation="diagonal"), "orientation", "'axes'"),
    ],
)
def test_mistakes_are_named(changes, argument, message):
    with pytest.raises(ModelError, match=message) as caught:
        run(**(dict(d=30, runs=2) | changes))
    assert caught.value.argument == argument


def test_laws_without_their_moments_are_refused():
    for make, argument in (
        (lambda: StudentT(2.0), "df"),
        (lambda: HiddenManifold(np.tanh, 0.0), "ratio"),
        (lambda: HiddenManifold(lambda u: 0 * u, 1.0), "f"),
    ):
        with pytest.raises(ModelError) as caught:
            make()
        assert caught.value.argument == argument


def test_the_table_has_every_law_that_has_a_name():
    assert list(LAWS) == ["gaussian", "rademacher", "uniform", "student-t", "hidden-manifold"]
    assert read_law("uniform") == Uniform() and str(read_law("uniform")) == "uniform"
