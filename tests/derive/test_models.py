"""The equations of every kind of model against one step of training, averaged by quasi-Monte-Carlo over its fields.

The step is written out here in NumPy for each case, by hand: nothing of the derivation is used. The tolerance is five
standard errors over independent scramblings of the nodes.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import sympy
from scipy import special, stats

from effdyn.derive import TeacherStudent
from effdyn.solve.kernels.reference import evaluate, observe

K, M = 2, 2
Q = np.array([[0.9, 0.25], [0.25, 1.3]])
R = np.array([[0.4, -0.1], [0.15, 0.5]])
T = np.array([[1.0, 0.2], [0.2, 0.8]])
A, B = np.array([1.1, -0.7]), np.array([0.9, 0.6])
BIAS, TEACHER_BIAS = np.array([0.3, -0.2]), np.array([-0.4, 0.1])
ETA, ETA_A, ETA_BIAS, SIGMA, FLIP = 0.7, 0.4, 0.3, 0.25, 0.1
POINTS, SCRAMBLINGS = 2**14, 8

UNITS = {
    "erf": (lambda h: special.erf(h / np.sqrt(2)), lambda h: np.sqrt(2 / np.pi) * np.exp(-(h**2) / 2)),
    "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0) * 1.0),
    "Max(x/10, x)": (lambda h: np.maximum(h, h / 10), lambda h: np.where(h > 0, 1.0, 0.1)),
    "Abs(x)": (np.abs, np.sign),
    "tanh": (np.tanh, lambda h: 1 / np.cosh(h) ** 2),
    "linear": (lambda h: h, np.ones_like),
    "He3": (lambda h: h**3 - 3 * h, lambda h: 3 * h**2 - 3),
    "sin(x)": (np.sin, np.cos),
    "sign(x)": (np.sign, None),
}
SLOPES = {
    "squared": lambda phi, y: phi - y,
    "logistic": lambda phi, y: -y * special.expit(-y * phi),
    "hinge": lambda phi, y: -y * (y * phi < 1),
    "perceptron": lambda phi, y: -y * (y * phi < 0),
    "exponential": lambda phi, y: -y * np.exp(-y * phi),
    "huber": lambda phi, y: np.clip(phi - y, -1, 1),
    "absolute": lambda phi, y: np.sign(phi - y),
    "correlation": lambda phi, y: -y,
    "(y - phi)**4/4": lambda phi, y: (phi - y) ** 3,
}
TARGETS = {
    "h1*h2": lambda h: h[0] * h[1],
    "sign(h1*h2)": lambda h: np.sign(h[0] * h[1]),
    "Abs(h1) + h2**2": lambda h: np.abs(h[0]) + h[1] ** 2,
    "tanh(h1*h2)": lambda h: np.tanh(h[0] * h[1]),
}


@dataclass
class Case:
    """A model and whether its equations are exact."""

    options: dict
    exact: bool = True
    scale: float = 1.0  # of all overlaps: polynomials of high degree have long tails
    jumps: bool = False  # whether a rule over all fields at once meets a jump, which it blurs

    def __str__(self):
        return ",".join(map(str, self.options.values()))


CASES = [
    Case({"activation": "relu", "second_layer": "trained"}),
    Case({"activation": "Max(x/10, x)"}),
    Case({"activation": "Abs(x)"}),
    Case({"activation": "erf", "teacher_activation": "relu", "second_layer": "trained"}),
    Case({"activation": "sin(x)"}),
    Case({"activation": "relu", "teacher_activation": "sign(x)"}),
    Case({"activation": "erf", "biases": True, "second_layer": "trained"}),
    Case({"activation": "He3", "target": "h1*h2"}, scale=0.2),
    Case({"activation": "erf", "target": "sign(h1*h2)"}),
    Case({"activation": "relu", "target": "Abs(h1) + h2**2"}),
    Case({"activation": "erf", "target": "tanh(h1*h2)"}, exact=False),
    Case({"activation": "tanh", "teacher_activation": "erf", "second_layer": "trained"}, exact=False),
    Case({"activation": "tanh", "biases": True}, exact=False),
    Case({"activation": "linear", "labels": "sign", "loss": "squared"}),
    Case({"activation": "linear", "labels": "sign", "loss": "hinge"}),
    Case({"activation": "linear", "labels": "sign", "loss": "perceptron"}),
    Case({"activation": "linear", "labels": "sign", "loss": "exponential"}, scale=0.2),
    Case({"activation": "linear", "labels": "sign", "loss": "logistic"}, exact=False),
    Case({"activation": "linear", "labels": "logistic", "loss": "logistic"}, exact=False),
    Case({"activation": "linear", "loss": "huber"}),
    Case({"activation": "linear", "loss": "absolute"}),
    Case({"activation": "erf", "loss": "correlation"}),
    Case({"activation": "tanh", "loss": "(y - phi)**4/4"}, exact=False),
    Case({"activation": "erf", "labels": "sign", "loss": "logistic"}, exact=False, jumps=True),
    Case({"activation": "tanh", "labels": "sign", "loss": "hinge", "biases": True}, exact=False, jumps=True),
]


def fields_and_noise(model, scale, seed):
    """Return student and teacher fields, the label noise and a uniform number, over scrambled Sobol points."""
    mean = np.concatenate([BIAS, TEACHER_BIAS]) if model.biases else np.zeros(K + M)
    points = stats.qmc.Sobol(K + M + 2, rng=seed).random(POINTS)
    z = stats.norm.ppf(points[:, :-1])
    omega = scale * np.block([[Q, R], [R.T, T]])
    h = z[:, : K + M] @ np.linalg.cholesky(omega).T + mean
    return h[:, :K].T, h[:, K:].T, z[:, -1], points[:, -1]


def label(model, h_star, zeta, uniform):
    """Return the label of each example."""
    if model.target is not None:
        options = next(c.options for c in CASES if TeacherStudent(**c.options) == model)
        y = TARGETS[options["target"]](h_star)
    else:
        y = B @ UNITS[model.teacher_activation.text][0](h_star)
    if model.labels == "real":
        return y + SIGMA * zeta
    if model.labels == "sign":
        return np.sign(y) * np.where(uniform < FLIP, -1, 1)
    return np.where(uniform < special.expit(y), 1, -1)


def one_step(model, loss, scale, seed):
    """Return the mean rates of change of the order parameters in the limit of large d, from one set of points."""
    h, h_star, zeta, uniform = fields_and_noise(model, scale, seed)
    g, slope = UNITS[model.activation.text]
    phi = A @ g(h)
    pull = -SLOPES[loss](phi, label(model, h_star, zeta, uniform))
    F = ETA * A[:, None] * slope(h) * pull
    bias, teacher_bias = (BIAS, TEACHER_BIAS) if model.biases else (0 * BIAS, 0 * TEACHER_BIAS)
    centred, centred_star = h - bias[:, None], h_star - teacher_bias[:, None]
    mean = lambda values: values.mean(-1)  # noqa: E731
    drift = mean(F[:, None] * centred[None])
    rates = {"Q": drift + drift.T + mean(F[:, None] * F[None]), "R": mean(F[:, None] * centred_star[None])}
    if model.trains_second_layer:
        rates["a"] = ETA_A * mean(g(h) * pull)
    if model.biases:
        rates["bias"] = ETA_BIAS / ETA * mean(F)
    return rates


def state_and_parameters(model, scale):
    """Return what the equations are evaluated at."""
    everything = {
        "Q": scale * Q, "R": scale * R, "T": scale * T, "a": A, "b": B, "bias": BIAS, "teacher_bias": TEACHER_BIAS,
        "eta": ETA, "eta_a": ETA_A, "eta_bias": ETA_BIAS, "sigma": SIGMA, "flip": FLIP,
    }  # fmt: skip
    step = model.training_step()
    return ({q.name: everything[q.name] for q in quantities} for quantities in (step.states, step.parameters))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equations_are_the_average_of_one_step(case):
    model = TeacherStudent(**case.options)
    dynamics = model.dynamics()
    assert all((e.status == "exact") == case.exact for e in dynamics.drift if e.quantity.name in ("Q", "a"))
    derived = evaluate(dynamics, *state_and_parameters(model, case.scale))

    samples = [one_step(model, case.options.get("loss", "squared"), case.scale, seed) for seed in range(SCRAMBLINGS)]
    for name, rate in derived.items():
        over = np.stack([sample[name] for sample in samples])
        error = over.std(0, ddof=1) / np.sqrt(SCRAMBLINGS)
        # t distribution of 7 degrees of freedom: 10 of its standard errors are about 5 sigma of a Gaussian
        tolerance = 10 * error + 1e-9 + (0 if case.exact else 1e-2 if case.jumps else 1e-4)
        assert (tolerance < 0.02 + 0.05 * abs(rate)).all(), "too coarse to see a wrong coefficient"
        assert (abs(over.mean(0) - rate) < tolerance).all(), (name, over.mean(0), rate, tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_observables_are_averages_over_examples(case):
    model = TeacherStudent(**case.options)
    derived = observe(model.dynamics(), *state_and_parameters(model, case.scale))
    values = []
    for seed in range(SCRAMBLINGS):
        h, h_star, _, _ = fields_and_noise(model, case.scale, seed)
        phi = A @ UNITS[model.activation.text][0](h)
        clean = (
            TARGETS[case.options["target"]](h_star)
            if model.target is not None
            else B @ UNITS[model.teacher_activation.text][0](h_star)
        )
        wrong = (np.sign(phi) != np.sign(clean)) * 1.0
        values.append((wrong if model.labels != "real" else (clean - phi) ** 2 / 2).mean())
    error = np.std(values, ddof=1) / np.sqrt(SCRAMBLINGS)
    name = "eg" if model.labels == "real" else "error_rate"
    jump = 0 if case.exact or name == "eg" else 3e-3  # the rule over all fields blurs the jump of a sign
    assert abs(np.mean(values) - derived[name]) < 10 * error + 1e-4 + jump


def test_noise_inside_pieces_is_not_taken_for_a_polynomial():
    """A loss in polynomial pieces of the residual: derivatives in the noise vanish between the kinks, not at them."""
    from effdyn.derive.averages import NOISE, average_noise

    a = sympy.Symbol("a", real=True)
    pieces = sympy.Piecewise((a + NOISE, a + NOISE > 0), (2 * (a + NOISE), True))
    assert average_noise(pieces) == pieces


def test_a_form_that_is_undefined_at_equal_indices_is_not_used():
    """Five kinked fields: the closed form of the eta squared term is 0/0 wherever i = k, so a rule takes its place."""
    model = TeacherStudent(activation="relu", target="sign(h1*h2)")
    derived = evaluate(model.dynamics(), *state_and_parameters(model, 1.0))
    assert np.isfinite(derived["Q"]).all()


@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"activation": "linear", "labels": "sign", "loss": "hinge"}], ids=str
)
def test_students_without_weights_have_a_rate_of_change(options):
    model = TeacherStudent(**options)
    state, params = state_and_parameters(model, 1.0)
    state |= {"Q": np.zeros((K, K)), "R": np.zeros((K, M))}
    assert all(np.isfinite(rate).all() for rate in evaluate(model.dynamics(), state, params).values())
