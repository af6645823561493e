"""eg, error rate and loss of given overlaps: each rule against an integral computed another way."""

import numpy as np
import pytest
import sympy
import xarray as xr
from scipy.integrate import quad
from scipy.special import erf, ndtr

from effdyn.derive import TeacherStudent
from effdyn.derive.activation import X
from effdyn.validate.figures import error_curve
from effdyn.validate.gaussian_output import error_rate_and_loss, has_gaussian_output
from effdyn.validate.generalisation import generalisation_error, has_quadrature
from effdyn.validate.inputs import read_inputs
from effdyn.validate.observables import observables
from effdyn.validate.quadrature import Function, panels
from effdyn.validate.sampling import Sampler

NODE, WEIGHT = np.polynomial.hermite_e.hermegauss(60)
WEIGHT = WEIGHT / WEIGHT.sum()


def state_of(model, Q, R, T, a=1.0, b=1.0, **more):
    """Return Inputs, and a state with one time."""
    names = {q.name for q in (*model.training_step().states, *model.training_step().parameters)}
    given = dict(eta=1.0, sigma=0.2, flip=0.1, eta_bias=1.0, Q=Q, R=R, T=T, a=a, b=b) | more
    y0 = {q.name: given[q.name] for q in model.training_step().states}
    inputs = read_inputs(model, y0, {name: given[name] for name in names - set(y0)})
    state = {"Q": inputs.Q[None], "R": inputs.R[None], "a": inputs.a[None]}
    return inputs, state | ({"bias": inputs.bias[None]} if model.biases else {})


# ── One Gaussian output, labels of one field ──


def test_a_perceptron_errs_by_the_angle():
    """Student and teacher directions at an angle θ disagree with probability θ/π."""
    model = TeacherStudent(activation="linear", loss="perceptron", labels="sign")
    for rho in (-1.0, -0.7, 0.0, 0.3, 0.99, 1 - 1e-8, 1.0):
        inputs, state = state_of(model, [[4.0]], [[2 * rho]], [[1.0]])
        # arccos is steep at 1: rounding of ρ by ε moves the angle by ε/√(1 − ρ²), and by √(2ε) at most
        error_rate = error_rate_and_loss(model, inputs, state)[0, 0]
        rounding = min(1e-15 / np.sqrt(max(1 - rho**2, 1e-300)), 1e-7)
        assert error_rate == pytest.approx(np.arccos(rho) / np.pi, abs=1e-12 + rounding)


GAUSSIAN = [
    dict(loss="hinge", labels="sign"),
    dict(loss="logistic", labels="sign", teacher_activation="erf"),
    dict(loss="exponential", labels="sign", teacher_activation=sympy.Max(X - 1, 0)),
    dict(loss="squared", labels="sign", target="h1**2 - 1"),
    dict(loss="hinge", labels="logistic"),
    dict(loss="squared-hinge", labels="logistic", teacher_activation="tanh", biases=True),
    dict(loss="logistic", labels="sign", biases=True),
]
LOSSES = {
    "hinge": lambda p, y: max(0.0, 1 - p * y),
    "squared-hinge": lambda p, y: max(0.0, 1 - p * y) ** 2 / 2,
    "logistic": lambda p, y: np.logaddexp(0, -p * y),
    "exponential": lambda p, y: np.exp(-p * y),
    "squared": lambda p, y: (p - y) ** 2 / 2,
}


@pytest.mark.parametrize("options", GAUSSIAN, ids=lambda o: "-".join(map(str, o.values())))
def test_gaussian_output_against_nested_adaptive_quadrature(options):
    """The other order of integration: the teacher's field outside, the output given it inside."""
    model = TeacherStudent(activation="linear", **options)
    Q, R, T = np.array([[0.9, 0.2], [0.2, 0.6]]), np.array([[0.5], [0.3]]), np.array([[1.3]])
    a, b, bias, hers = np.array([1.0, 0.7]), 0.8, np.array([0.3, -0.1]), 0.4
    inputs, state = state_of(model, Q, R, T, a, b, bias=bias, teacher_bias=hers)
    assert has_gaussian_output(model, 1)
    found = error_rate_and_loss(model, inputs, state)[:, 0]

    target = model.target.xreplace({next(iter(model.target.atoms(sympy.Indexed))): X}) if model.target else None
    f = sympy.lambdify(X, b * model.teacher_activation.expr if target is None else target, "scipy")
    mean, variance, covariance = (a @ bias if model.biases else 0.0), a @ Q @ a, a @ R[:, 0]
    centre, sd = (hers if model.biases and target is None else 0.0), np.sqrt(T[0, 0])
    rest = np.sqrt(variance - covariance**2 / sd**2)
    loss = LOSSES[options["loss"]]

    def inner(v):
        m = mean + covariance / sd**2 * (v - centre)
        sign = np.sign(f(v))
        label = (1 - 2 * 0.1) * sign if model.labels == "sign" else np.tanh(f(v) / 2)

        def integrand(p):
            return ((1 + label) * loss(p, 1) + (1 - label) * loss(p, -1)) / 2 * np.exp(-((p - m) ** 2) / 2 / rest**2)

        kinks = [p for p in (-1.0, 1.0) if abs(p - m) < 9 * rest]
        value = quad(integrand, m - 9 * rest, m + 9 * rest, points=kinks or None, epsabs=1e-11, limit=200)[0]
        return (1 - sign * (2 * ndtr(m / rest) - 1)) / 2, value / rest / np.sqrt(2 * np.pi)

    for k in range(2):
        edges = [p for p in (-1.0, 0.0, 1.0) if abs(p - centre) < 9 * sd]
        expected = quad(
            lambda v, k=k: inner(v)[k] * np.exp(-((v - centre) ** 2) / 2 / sd**2),
            centre - 9 * sd,
            centre + 9 * sd,
            points=edges,
            epsabs=1e-10,
            limit=200,
        )[0] / (sd * np.sqrt(2 * np.pi))
        assert found[k] == pytest.approx(expected, abs=2e-9), ("error rate", "loss")[k]  # the adaptive rules' own error


@pytest.mark.parametrize("biases", [False, True])
def test_losses_of_a_gaussian_residual(biases):
    """E|r| and E ½r² of r ~ N(m, v), known by hand; and Huber's, by adaptive quadrature."""
    Q, R, T = [[0.9, 0.2], [0.2, 0.6]], [[0.5], [0.3]], [[1.3]]
    more = dict(a=[1.0, 0.7], b=0.8, bias=[0.3, -0.1], teacher_bias=0.4, sigma=0.5)
    m = (0.8 * 0.4 - (0.3 - 0.07) / 2) if biases else 0.0
    v = 0.64 * 1.3 - 0.8 * (0.5 + 0.21) + (0.9 + 0.28 + 0.49 * 0.6) / 4 + 0.25

    def density(r):
        return np.exp(-((r - m) ** 2) / 2 / v) / np.sqrt(2 * np.pi * v)

    expected = {
        "absolute": np.sqrt(2 * v / np.pi) * np.exp(-m * m / 2 / v) + m * (2 * ndtr(m / np.sqrt(v)) - 1),
        "squared": (v + m * m) / 2,
        "huber": quad(
            lambda r: (r * r / 2 if abs(r) <= 1 else abs(r) - 0.5) * density(r), -9, 9, points=[-1, 1], epsabs=1e-13
        )[0],
    }
    for loss, value in expected.items():
        model = TeacherStudent(activation="linear", loss=loss, biases=biases, output_scale="1/K")
        inputs, state = state_of(model, Q, R, T, **more)
        found = observables(model, inputs, {n: array[None, None] for n, array in state.items()}, [[(0, 10)]])
        assert found["loss"].item() == pytest.approx(value, rel=1e-12), loss


# ── Committees with biases, polynomial targets ──


def test_biased_committee_against_a_product_rule():
    """erf units, K = M = 1: Gauss–Hermite in the plane."""
    model = TeacherStudent(activation="erf", biases=True)
    Q, R, T, a, b, bias, hers = 0.6, 0.4, 0.9, 0.7, 1.3, 0.5, -0.8
    x, z = NODE[:, None], NODE[None]
    target = b * erf((np.sqrt(T) * x + hers) / np.sqrt(2))
    own = a * erf((R / np.sqrt(T) * x + np.sqrt(Q - R * R / T) * z + bias) / np.sqrt(2))
    expected = (np.outer(WEIGHT, WEIGHT) * (target - own) ** 2).sum() / 2
    eg = generalisation_error(model, 1, 1)([[Q]], [[R]], [[T]], [a], [b], [bias], [hers])
    assert eg == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("target", ["h1*h2*h3", "h1**2*h3 - h1 + 2", "h2**3 - 3*h2"])
@pytest.mark.parametrize("activation", ["erf", "He3", "relu"])
def test_polynomial_targets_against_a_product_rule(target, activation, rng):
    """K = 1, M = 3: the student's field outside, by panels of its own that end at 0, the teacher's given it inside."""
    vectors = rng.standard_normal((4, 7)) / np.sqrt(7)
    gram = vectors @ vectors.T
    Q, R, T, a, s = gram[0, 0], gram[0, 1:], gram[1:, 1:], 0.8, 0.5
    model = TeacherStudent(activation=activation, target=target, output_scale=s)
    assert has_quadrature(model)
    node, weight = np.polynomial.legendre.leggauss(80)
    x = np.concatenate([5 * node - 5, 5 * node + 5])
    outer = 5 * np.tile(weight, 2) * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    node, weight = np.polynomial.hermite_e.hermegauss(6)  # exact to degree 11 in each direction
    z = np.stack(np.meshgrid(*[node] * 3, indexing="ij"), -1).reshape(-1, 3)
    p = np.prod(np.meshgrid(*[weight / weight.sum()] * 3, indexing="ij"), axis=0).ravel()
    rest = np.linalg.cholesky(T - np.outer(R, R) / Q)
    h1, h2, h3 = np.moveaxis(R / np.sqrt(Q) * x[:, None, None] + z @ rest.T, -1, 0)
    g = {"erf": lambda h: erf(h / np.sqrt(2)), "He3": lambda h: h**3 - 3 * h, "relu": lambda h: np.maximum(h, 0)}
    y = {"h1*h2*h3": h1 * h2 * h3, "h1**2*h3 - h1 + 2": h1**2 * h3 - h1 + 2, "h2**3 - 3*h2": h2**3 - 3 * h2}[target]
    own = s * a * g[activation](np.sqrt(Q) * x)
    expected = np.einsum("i,j,ij->", outer, p, (y - own[:, None]) ** 2) / 2
    eg = generalisation_error(model, 1, 3)([[Q]], R[None], T, [a], np.zeros(3))
    assert eg == pytest.approx(expected, rel=1e-12)


def test_what_has_no_quadrature():
    for options in (dict(target="tanh(h1*h2)"), dict(target="Abs(h1)")):
        assert not has_quadrature(TeacherStudent(activation="erf", **options))
    assert not has_quadrature(TeacherStudent(activation="relu", biases=True))
    assert has_quadrature(TeacherStudent(activation="erf", biases=True))


def test_panels_integrate_what_they_end_at():
    mean, sd = np.array([0.3, -2.0, 1.0]), np.array([1.0, 3.0, 0.0])
    x, w = panels(mean, sd, np.array([[0.7, np.nan]]))
    z = np.divide(mean - 0.7, sd, out=np.zeros(3), where=sd > 0)
    expected = np.where(sd > 0, (mean - 0.7) * ndtr(z) + sd * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), 0.3)
    assert np.allclose((w * np.maximum(x - 0.7, 0)).sum(1), expected, rtol=1e-13)
    assert Function.of(sympy.Max(X - 1, 0) + abs(X)).kinks == (0.0, 1.0)


# ── Points ──

SAMPLED = [
    (dict(activation="linear", loss="hinge", labels="sign"), 1, 1, 0.02),
    (dict(activation="linear", loss="logistic", labels="logistic", biases=True), 2, 1, 0.02),
    (dict(activation="erf"), 3, 2, 0.02),
    (dict(activation="erf", biases=True), 2, 2, 0.02),
    (dict(activation="He3", target="h1*h2*h3"), 1, 3, 0.15),  # of degree 6: tails, as few points see them
]


@pytest.mark.parametrize(("options", "K", "M", "least"), SAMPLED, ids=lambda o: str(o) if isinstance(o, dict) else "")
def test_points_scatter_about_the_quadrature(options, K, M, least):
    """For models that have both: means over 100 runs within 5 standard errors, scatter as small as is said."""
    model = TeacherStudent(**options)
    Q, R = 0.5 * np.eye(K) + 0.2, np.full((K, M), 0.1) + 0.2 * np.eye(K, M)
    inputs, state = state_of(model, Q, R, np.eye(M), bias=0.3, teacher_bias=-0.2)
    sampler = Sampler(model, inputs)
    found = np.array([sampler(state, run, 1000)[:, 0] for run in range(100)])
    exact = observables(model, inputs, {name: array[None, None] for name, array in state.items()}, [[(0, 1000)]])
    pair = [float(exact["eg" if model.labels == "real" else "error_rate"].item()), exact["loss"].item()]
    scatter = found.std(0, ddof=1)
    assert (scatter < least * np.abs(pair)).all(), "more than is said"
    assert (abs(found.mean(0) - pair) <= 5 * scatter / 10 + 1e-9).all()


def test_points_take_label_noise_into_the_loss():
    """Absolute loss of a zero student on labels σζ + y*: E|N(0, 1 + σ²)|; eg is free of noise, and ½."""
    model = TeacherStudent(activation="erf", teacher_activation="linear", loss="absolute")
    inputs, state = state_of(model, [[0.0]], [[0.0]], [[1.0]], sigma=2.0)
    keys = [[(run, 10)] for run in range(50)]
    state = {name: np.repeat(array[None, None], 50, 0) for name, array in state.items()}
    found = observables(model, inputs, state, keys, threads=2)
    assert np.allclose(found["eg"], 0.5, rtol=1e-13)
    loss = found["loss"].ravel()
    assert abs(loss.mean() - np.sqrt(5 * 2 / np.pi)) < 5 * loss.std() / np.sqrt(50) < 0.01


def test_points_of_a_committee_with_steps():
    """Three erf units, sign labels: error rate and loss against 4 million plain samples of the fields."""
    model = TeacherStudent(activation="erf", loss="logistic", labels="sign")
    Q, R = 0.5 * np.eye(3) + 0.2, np.full((3, 3), 0.1) + 0.2 * np.eye(3)
    inputs, state = state_of(model, Q, R, np.eye(3))
    found = np.array([Sampler(model, inputs)(state, run, 1000)[:, 0] for run in range(64)])
    factor = np.linalg.cholesky(inputs.gram)
    rng, parts = np.random.default_rng(3), []
    for _ in range(8):
        h = rng.standard_normal((500_000, 6)) @ factor.T
        y, phi = np.sign(erf(h[:, :3] / np.sqrt(2)).sum(1)), erf(h[:, 3:] / np.sqrt(2)).sum(1)
        loss = 0.9 * np.logaddexp(0, -y * phi) + 0.1 * np.logaddexp(0, y * phi)
        parts.append(((y != np.sign(phi)).mean(), loss.mean()))
    error = np.hypot(found.std(0, ddof=1) / 8, np.std(parts, 0, ddof=1) / np.sqrt(8))
    assert (error < 0.001).all(), "too coarse"
    assert (abs(found.mean(0) - np.mean(parts, 0)) < 5 * error).all()


def test_a_curve_of_errors_draws_the_one_there_is():
    t = xr.Dataset({"error_rate": ("t", [0.5, 0.2])}, coords={"t": [0.0, 1.0]})
    assert error_curve(t).get_ylabel() == r"$\epsilon_{01}$"
    assert error_curve(t.rename(error_rate="eg")).get_ylabel() == r"$\epsilon_g$"
