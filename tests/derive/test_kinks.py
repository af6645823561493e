"""Kinks of integrands over all fields: what vanishes there, and nodes between them against other integrals."""

import numpy as np
import pytest
import sympy
from scipy.special import erf, ndtr, ndtri
from scipy.stats import qmc

from effdyn.derive.numerical.joint import cholesky
from effdyn.derive.numerical.rules import bundle_rule, joint_rule, piece_rule
from effdyn.derive.numerical.split import split_nodes
from effdyn.derive.numerical.switches import UNIT, Switch, switches_of
from effdyn.derive.numerical.vectorised import phi2

J, K = sympy.symbols("j K", integer=True, positive=True)
H, H_STAR, A = (sympy.IndexedBase(name, real=True) for name in ("h", "h_star", "a"))
OUTPUT = sympy.Sum(A[J] * sympy.tanh(H[J]), (J, 1, K))
NAMED = OUTPUT.xreplace({J: sympy.Symbol("j_1", integer=True, positive=True)})
FAMILIES = [("h", K), ("h_star", sympy.Integer(2))]


def switch(expr, *levels, size=sympy.S.One):
    return Switch(expr, tuple(map(sympy.sympify, levels)), size)


@pytest.mark.parametrize(
    ("integrand", "expected"),
    [
        (OUTPUT**2, ()),
        (sympy.Max(0, 1 - OUTPUT) * sympy.Heaviside(1 + OUTPUT), (switch(NAMED, -1, 1),)),
        (sympy.sign(OUTPUT) * sympy.sign(H_STAR[1]), (switch(H_STAR[1], 0), switch(NAMED, 0))),
        (sympy.sign(H_STAR[1] * H_STAR[2]), (switch(H_STAR[1], 0), switch(H_STAR[2], 0))),
        (sympy.Max(H[J], 0) * sympy.Heaviside(H[K]), (switch(H[UNIT], 0, size=K),)),
        (
            sympy.Piecewise((OUTPUT**2 / 2, sympy.Abs(OUTPUT) <= 1), (sympy.Abs(OUTPUT) - 1, True)),
            (switch(NAMED, -1, 1),),
        ),
        (sympy.Abs(A[J]) * H[J], ()),
        (sympy.floor(H[J]), None),
        (sympy.sign(H[J] - H[K]), None),
    ],
    ids=str,
)
def test_what_vanishes_at_kinks(integrand, expected):
    found = switches_of([integrand], FAMILIES)
    assert found == expected if expected is None else set(found) == set(expected)


def relu(x):
    return np.maximum(x, 0)


class Case:
    """Teachers are the first two fields, students the next, the noise the last if there is any."""

    def __init__(self, g, students, kind, levels, integrands, *, noise=0.0, units=0):
        self.g, self.students, self.kind, self.integrands = g, students, kind, integrands
        self.levels, self.noise, self.units = levels, noise, units
        self.groups = [g for g, _ in levels] + [10 + n for n in range(units)]

    def outputs(self, h):
        y = self.g(h[:, :2]) @ [1.0, 0.6] + self.noise * h[:, -1]
        return y, self.g(h[:, 2 : 2 + self.students]) @ np.array([0.9, 0.7, 0.5])[: self.students]

    def switches(self, h):
        y, phi = self.outputs(h)
        of = {"y": y, "phi": phi, "r": y - phi}
        columns = [of[name] - level for name, level in self.levels] + [h[:, n] for n in range(self.units)]
        return np.stack(columns, axis=1)

    def values(self, h):
        return np.stack(self.integrands(h, *self.outputs(h)), axis=1)

    def law(self, rng, gap):
        """Return the factor of a random covariance; students a small gap from the teachers, or none of them near."""
        v = rng.normal(size=(2, 7))
        v /= np.linalg.norm(v, axis=1)[:, None]
        w = rng.normal(size=(self.students, 7)) / np.sqrt(7)
        w = 0.7 * w if gap is None else v[np.arange(self.students) % 2] + gap * w
        x = np.concatenate([v, w])
        C = np.eye(len(x) + (self.noise > 0))
        C[: len(x), : len(x)] = x @ x.T
        return cholesky(C)

    def expectation(self, factor, level=0, shift=0):
        missing = 1 if self.kind == "lines" else 2
        rule = bundle_rule(factor.shape[1] - missing, self.kind, level, shift)
        groups = [list(dict.fromkeys(self.groups)).index(g) for g in self.groups]
        mean = np.zeros(len(factor))
        h, w = split_nodes(self.switches, groups, mean, factor, rule, piece_rule(self.kind, level))
        return w @ self.values(h)


def hinge(h, y, phi):
    label = np.sign(y)
    force = label * (label * phi < 1)
    return force * h[:, 2], force * (phi + h[:, 0]), np.maximum(0, 1 - label * phi)


def huber(h, y, phi):
    r = y - phi
    slope = np.clip(r, -1, 1)
    return slope * h[:, 2], slope * np.exp(-(h[:, 3] ** 2)), np.where(abs(r) < 1, r**2 / 2, abs(r) - 0.5)


def absolute(h, y, phi):
    return np.sign(y - phi) * h[:, 2], np.sign(y - phi) * np.exp(-(h[:, 3] ** 2)), abs(y - phi)


def error(h, y, phi):
    return ((1 - np.sign(y * phi)) / 2,)


def normal_erf(x):
    return erf(x / np.sqrt(2))


MARGINS = [("phi", -1), ("phi", 1), ("y", 0)]
CASES = {
    "tanh, hinge": (Case(np.tanh, 2, "planes", MARGINS, hinge), 1e-4),
    "erf, Huber": (Case(normal_erf, 2, "lines", [("r", -1), ("r", 1)], huber, noise=0.3), 1e-4),
    "erf, absolute": (Case(normal_erf, 2, "lines", [("r", 0)], absolute, noise=0.3), 2e-4),
    "relu, hinge": (Case(lambda x: relu(x) - 0.2, 2, "lines", MARGINS, hinge, units=4), 3e-3),
    "tanh, error rate": (Case(np.tanh, 3, "planes", [("phi", 0), ("y", 0)], error), 3e-4),
}
"""With a bound on the error seen over a hundred random covariances, whose median is a fifth of it or less."""


def sobol_means(values, variables, power, replicates=8):
    """Return averages of plain quasi-Monte-Carlo replicates, which know nothing of kinks, and their standard errors."""
    means = []
    for seed in range(replicates):
        points = qmc.Sobol(variables, rng=np.random.default_rng(seed)).random_base2(power)
        means.append(values(ndtri(np.clip(points, 1e-12, 1 - 1e-12))).mean(axis=0))
    return np.mean(means, axis=0), np.std(means, axis=0, ddof=1) / np.sqrt(replicates)


def averaged_over_noise(case, h):
    """Return the absolute loss's or Huber's integrands, averaged over the label noise by hand."""
    y, phi = case.outputs(np.concatenate([h, np.zeros((len(h), 1))], axis=1))
    r, s = y - phi, case.noise

    def ramp(c):  # E[max(r − c, 0)]
        return (r - c) * ndtr((r - c) / s) + s * np.exp(-(((r - c) / s) ** 2) / 2) / np.sqrt(2 * np.pi)

    def parabola(m):  # E[½ max(r, 0)²]
        return ((m**2 + s**2) * ndtr(m / s) + m * s * np.exp(-((m / s) ** 2) / 2) / np.sqrt(2 * np.pi)) / 2

    if case.integrands is absolute:
        slope, loss = 2 * ndtr(r / s) - 1, 2 * ramp(0) - r
    else:
        slope, loss = ramp(-1) - ramp(1) - 1, (r**2 + s**2) / 2 - parabola(r - 1) - parabola(-r - 1)
    return np.stack([slope * h[:, 2], slope * np.exp(-(h[:, 3] ** 2)), loss], axis=1)


def wrong_given_the_rest(case, factor, z):
    """Return the error rate given all fields but one of each committee, which decide its sign beyond a threshold."""
    C, last = factor @ factor.T, [1, 4]
    rest = [0, 2, 3]
    gain = np.linalg.solve(C[np.ix_(rest, rest)], C[np.ix_(rest, last)])
    left = C[np.ix_(last, last)] - C[np.ix_(last, rest)] @ gain
    known = z @ np.linalg.cholesky(C[np.ix_(rest, rest)]).T
    h = np.zeros((len(z), 5))
    h[:, rest] = known
    at_most = [np.clip(-f / w, -1 + 1e-15, 1 - 1e-15) for f, w in zip(case.outputs(h), (0.6, 0.5), strict=True)]
    above = (known @ gain - np.arctanh(np.stack(at_most, axis=1))) / np.sqrt(np.diag(left))
    both = phi2(*above.T, left[0, 1] / np.sqrt(left[0, 0] * left[1, 1]))
    return (ndtr(above).sum(axis=1) - 2 * both)[:, None]


@pytest.mark.parametrize("gap", [None, 0.5, 0.01])
@pytest.mark.parametrize("name", CASES)
def test_nodes_between_kinks_agree_with_plain_averages(name, gap):
    """Where variables can be integrated by hand, so that what is left has no kinks, the averages are sharp."""
    case, accuracy = CASES[name]
    factor = case.law(np.random.default_rng(len(name)), gap)
    if case.noise:
        mean, error = sobol_means(lambda z: averaged_over_noise(case, z @ factor[:4, :4].T), 4, 15)
    elif name == "tanh, error rate":
        mean, error = sobol_means(lambda z: wrong_given_the_rest(case, factor, z), 3, 14)
    else:
        mean, error = sobol_means(lambda z: case.values(z @ factor.T), 4, 17)
    tolerance = accuracy + 8 * error  # 39 numbers, Student's t with 7 degrees of freedom: one in 2e4 is above 8
    assert (error < (1e-4 if case.noise else 4e-4)).all(), "not a witness"
    assert (np.abs(case.expectation(factor) - mean) < tolerance).all()


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_far_below_that_of_a_rule_that_blurs_kinks(name):
    """And a bound on it is seen by other rules, doubled as ``solve.numerical_error`` does."""
    case, accuracy = CASES[name]
    rng, blurred, split = np.random.default_rng(4), [], []
    for gap in (None, 0.5, 0.1, 0.01):
        factor = case.law(rng, gap)
        nodes, weights = joint_rule(factor.shape[1], "rough")
        value, fine = case.expectation(factor), case.expectation(factor, 1, 1)
        others = [case.expectation(factor, *rule) for rule in ((1, 0), (0, 1), (0, 2))]
        estimate = 2 * max(np.abs(other - value).max() for other in others)
        blurred.append(np.abs(weights @ case.values(nodes @ factor.T) - fine).max())
        split.append(np.abs(value - fine).max())
        assert split[-1] <= estimate and split[-1] < accuracy
    assert np.median(split) < np.median(blurred) / 3


def test_a_student_that_is_its_teacher_is_never_wrong():
    case = CASES["tanh, error rate"][0]
    x = np.random.default_rng(1).normal(size=(2, 5))
    x = x[[0, 1, 0, 1]]
    same = Case(np.tanh, 2, "planes", case.levels, error)
    same.outputs = lambda h: (np.tanh(h[:, :2]).sum(axis=1), np.tanh(h[:, 2:]).sum(axis=1))
    assert abs(same.expectation(cholesky(x @ x.T))).max() < 1e-12


def test_losses_of_pure_noise_are_known():
    """A student that is its teacher has the residual σζ: E|σζ| and E[huber(σζ)] by hand."""
    sigma, x = 1.5, np.random.default_rng(2).normal(size=(2, 5))
    C = np.eye(5)
    C[:4, :4] = (x[[0, 1, 0, 1]] @ x[[0, 1, 0, 1]].T) / 5
    for integrands, levels, exact in (
        (absolute, [("r", 0)], sigma * np.sqrt(2 / np.pi)),
        (huber, [("r", -1), ("r", 1)], None),
    ):
        case = Case(normal_erf, 2, "lines", levels, integrands, noise=sigma)
        case.outputs = lambda h: (
            normal_erf(h[:, :2]).sum(axis=1) + sigma * h[:, -1],
            normal_erf(h[:, 2:4]).sum(axis=1),
        )
        s, density = 1 / sigma, np.exp(-1 / (2 * sigma**2)) / np.sqrt(2 * np.pi)
        inside = sigma**2 * (ndtr(s) - 0.5 - s * density)  # ½ E[r²; |r| < 1]
        beyond = 2 * (sigma * density - 0.5 * ndtr(-s))
        value = case.expectation(cholesky(C))[2]
        # one variable by six nodes a piece: the error of such a rule for |x| is below 1e-5 of the value
        assert value == pytest.approx(inside + beyond if exact is None else exact, rel=3e-5)


@pytest.mark.parametrize("name", ["tanh, hinge", "erf, absolute", "tanh, error rate"])
def test_values_move_smoothly_with_the_covariance(name):
    """Along a path of 40 steps no value is off the parabola through its neighbours: nodes jump across no kink."""
    case = CASES[name][0]
    rng = np.random.default_rng(3)
    first, second = (case.law(rng, 0.5) for _ in range(2))
    C = [first @ first.T, second @ second.T]
    steps = np.linspace(0.0, 0.004, 41)
    path = np.array([case.expectation(cholesky((1 - s) * C[0] + s * C[1])) for s in steps])
    third = np.abs(np.diff(path, 3, axis=0)).max()
    nodes, weights = joint_rule(len(first), "rough")
    plain = np.array([weights @ case.values(nodes @ cholesky((1 - s) * C[0] + s * C[1]).T) for s in steps])
    assert third < 1e-10, "what is smooth leaves 1e-12 in steps of 1e-4, a node that jumps its weight of 1e-5"
    assert np.abs(np.diff(plain, 3, axis=0)).max() > 1e-5
