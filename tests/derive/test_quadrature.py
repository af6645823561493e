"""Rules for Gaussian expectations against integrals computed another way, and the honesty of their errors."""

import mpmath
import numpy as np
import pytest
import sympy
from scipy.special import erf, expit

from effdyn import derive
from effdyn.derive.numerical import quadrature
from effdyn.derive.numerical.joint import REPLICATES, cholesky, joint_error
from effdyn.derive.numerical.rules import half_range_gauss, joint_rule, line_rule

MP = mpmath.mp.clone()
SQRT2 = np.sqrt(2)


def half_line(f, scale=1.0):
    """E[f(x)] by mpmath's tanh-sinh rule on panels that shrink towards 0, to about 1e-15."""
    edges = [0, *(10.0**-k / scale for k in range(6, 0, -1)), *(0.3 / scale, 1 / scale, 3 / scale)]
    points = sorted({e for e in edges if e < 12} | {0.5, 1, 2, 4, 7, 12})
    return float(MP.quad(lambda x: (f(x) + f(-x)) * MP.npdf(x), points))


STEEP = (0.01, 0.3, 1, 3, 10, 30)
LINE_CASES = [
    *((lambda x, s=s: x * np.tanh(s * x), lambda x, s=s: x * MP.tanh(s * x), s) for s in STEEP),
    *((lambda x, s=s: np.tanh(s * x) ** 2, lambda x, s=s: MP.tanh(s * x) ** 2, s) for s in STEEP),
    *((lambda x, s=s: np.tanh(s * x + 1), lambda x, s=s: MP.tanh(s * x + 1), s) for s in STEEP),
    *((lambda x, s=s: np.logaddexp(0, s * x), lambda x, s=s: MP.log1p(MP.exp(s * x)), s) for s in STEEP),
    (lambda x: x * (1 + erf(x / SQRT2)) / 2, lambda x: x * (1 + MP.erf(x / MP.sqrt(2))) / 2, 1),
    (abs, abs, 1),
    (lambda x: np.maximum(x, 0) ** 3, lambda x: max(x, 0) ** 3, 1),
    *(
        (lambda x, k=k: expit(x + 0.3) * erf(k * x), lambda x, k=k: MP.erf(k * x) / (1 + MP.exp(-x - 0.3)), k)
        for k in (0.1, 1, 10, 100, 1e4)
    ),
]


@pytest.mark.parametrize(("f", "exact", "scale"), LINE_CASES)
def test_rule_over_one_field(f, exact, scale):
    nodes, weights = line_rule()
    # 1e-10 of the average of |f| is what the rule is designed for
    assert weights @ f(nodes) == pytest.approx(half_line(exact, scale), abs=1e-10 * (weights @ abs(f(nodes))))


@pytest.mark.parametrize("k", [1e6, 1e8])
def test_rule_over_one_field_resolves_layers_down_to_jumps(k):
    nodes, weights = line_rule()
    jump = half_line(lambda x: MP.sign(x) * MP.tanh(x))  # what the layer does beyond is of order 1/k²
    assert weights @ (np.tanh(nodes) * erf(k * nodes)) == pytest.approx(jump, rel=1e-10)


@pytest.mark.parametrize("level", [-1, 0, 1])
def test_rule_over_one_field_is_even_and_never_at_zero(level):
    nodes, weights = line_rule(level)
    assert nodes.tolist() == (-nodes[::-1]).tolist() and weights.tolist() == weights[::-1].tolist()
    assert (nodes != 0).all() and (weights > 0).all()
    assert weights.sum() == pytest.approx(1, abs=len(nodes) * np.finfo(float).eps)


def test_half_range_gauss_is_exact_to_twice_its_order():
    nodes, weights = half_range_gauss(8)
    for power in range(16):  # ∫_0^∞ x^p e^(−x²/2) dx = 2^((p−1)/2) Γ((p+1)/2)
        assert weights @ nodes**power == pytest.approx(
            float(MP.gamma((power + 1) / 2) * 2 ** ((power - 1) / 2)), rel=1e-11
        )


@pytest.mark.parametrize("kind", ["smooth", "split", "rough"])
@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 5, 7])
def test_rules_over_several_fields_have_the_shapes_that_kernels_are_compiled_for(dimension, kind):
    nodes, weights = joint_rule(dimension, kind)
    assert nodes.shape == (len(weights), dimension)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert not nodes.flags.writeable and not weights.flags.writeable
    assert joint_rule(dimension, kind, shift=2)[0].shape == nodes.shape
    assert (joint_rule(dimension, kind, shift=2)[0] != nodes).any()
    assert len(joint_rule(dimension, kind, level=-1)[1]) < len(weights)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 5])
def test_lattice_rules_are_even_and_isotropic(dimension):
    nodes, weights = joint_rule(dimension)
    rounding = 1e-13
    assert abs(weights @ nodes**3).max() < rounding
    # the average of |x|² and |x|⁴ is exact; what is left in single entries is the error of the lattice, 4e-5 in 5
    assert weights @ (nodes**2).sum(axis=1) == pytest.approx(dimension, rel=rounding)
    assert weights @ (nodes**2).sum(axis=1) ** 2 == pytest.approx(dimension * (dimension + 2), rel=rounding)
    assert nodes.T @ (weights[:, None] * nodes) == pytest.approx(np.eye(dimension), abs=5e-5)


def joint_expectation(function, C, m=0.0, *, kind="smooth", level=0):
    """Return E[function(h)], h ~ N(m, C), by the rule over all fields, and its error."""
    values = []
    for shift in range(REPLICATES):
        nodes, weights = joint_rule(len(C), kind, level, shift)
        values.append(weights @ function(nodes @ cholesky(C).T + m))
    return values[0], joint_error(values)


def random_covariance(rng, size, spread=0.4):
    a = rng.normal(size=(size, size + 1))
    a /= np.linalg.norm(a, axis=1)[:, None]
    a *= np.exp(rng.uniform(-spread, spread, size))[:, None]
    return a @ a.T


def slope(x):
    return 1 - np.tanh(x) ** 2


FUNCTIONS = {
    2: lambda h: slope(h[:, 0]) * np.tanh(h[:, 1]) ** 2,
    3: lambda h: slope(h[:, 0]) * np.tanh(h[:, 1]) * np.tanh(h[:, 2]),
    4: lambda h: slope(h[:, 0]) * slope(h[:, 1]) * np.tanh(h[:, 2]) * np.tanh(h[:, 3]),
    5: lambda h: h[:, 4] * slope(h[:, 0]) * np.tanh(h[:, 1:] @ [1, 1, -1, 0.5]),
}


@pytest.mark.parametrize(("dimension", "accuracy"), [(2, 1e-7), (3, 1e-6), (4, 1e-5), (5, 3e-4)])
def test_rules_over_several_fields_reach_their_accuracy(dimension, accuracy):
    rng = np.random.default_rng(dimension)
    for _ in range(6):
        factor = cholesky(random_covariance(rng, dimension))
        (coarse, w), (fine, w_fine) = joint_rule(dimension), joint_rule(dimension, level=1)
        value, exact = w @ FUNCTIONS[dimension](coarse @ factor.T), w_fine @ FUNCTIONS[dimension](fine @ factor.T)
        assert value == pytest.approx(exact, abs=accuracy)


def label(h):
    """The slope of a logistic loss of a committee, whose label is the sign of the first field."""
    y, output = np.sign(h[:, 0]), np.tanh(h[:, 1:]).sum(axis=1)
    return y * expit(-y * output) * slope(h[:, 1]) * h[:, 0]


def test_a_split_rule_sees_the_jump_of_a_label():
    rng = np.random.default_rng(5)
    for _ in range(4):
        C = random_covariance(rng, 3)
        fine = joint_expectation(label, C, kind="split", level=1)[0]
        split, smooth = joint_expectation(label, C, kind="split")[0], joint_expectation(label, C)[0]
        assert split == pytest.approx(fine, abs=1e-6)
        assert abs(split - fine) < abs(smooth - fine) + 1e-8


@pytest.mark.parametrize(
    ("dimension", "states"), [(3, 100), (4, 30), pytest.param(4, 100, marks=pytest.mark.slow), (5, 8)]
)
def test_the_error_of_rules_over_several_fields_is_honest(dimension, states):
    rng = np.random.default_rng(17)
    ratios = []
    for _ in range(states):
        C = random_covariance(rng, dimension, spread=0.6)
        value, error = joint_expectation(FUNCTIONS[dimension], C)
        nodes, weights = joint_rule(dimension, level=1)
        ratios.append(abs(value - weights @ FUNCTIONS[dimension](nodes @ cholesky(C).T)) / error)
    assert np.sum(np.array(ratios) > 1) <= max(1, states // 20)
    assert max(ratios) < 3
    assert np.median(ratios) > 0.01, "an estimate a hundred times too large says nothing"


def test_the_error_of_a_rule_for_kinks_is_honest():
    def relu(h):
        return np.maximum(h[:, 0], 0) * np.maximum(h[:, 1], 0) * (h[:, 2] > 0)

    rng, outside = np.random.default_rng(3), 0
    for _ in range(30):
        C = random_covariance(rng, 3)
        value, error = joint_expectation(relu, C, kind="rough")
        fine = np.mean([w @ relu(z @ cholesky(C).T) for z, w in (joint_rule(3, "rough", 1, s) for s in range(4))])
        outside += abs(value - fine) > error
    assert outside <= 2


def test_error_is_taken_entry_by_entry():
    assert joint_error([np.zeros(2), np.array([1.0, -3.0]), np.array([-2.0, 1.0])]).tolist() == [4.0, 6.0]


def test_cholesky_of_coincident_and_of_vanishing_fields():
    assert cholesky([[1, 1, 0], [1, 1, 0], [0, 0, 0]]).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="negative eigenvalue"):
        cholesky([[1, 2], [2, 1]])


def test_tables_have_the_sizes_that_are_announced():
    fields = sympy.Symbol("K")
    nodes, weights = quadrature.joint_tables(fields, noise=True)
    tables = (quadrature.NODE_LINE, quadrature.WEIGHT_LINE, nodes, weights)
    sizes = quadrature.table_sizes(tables, 3)
    assert sizes == {"LINE": 100, "NODES": 12288}
    assert quadrature.table_values(nodes, 3).shape == (sizes["NODES"], 4)  # the noise is a column more
    assert quadrature.table_values(weights, 3).shape == (sizes["NODES"],)
    assert quadrature.table_values(quadrature.NODE_LINE, 3).shape == (sizes["LINE"],)
    assert (quadrature.table_values(nodes, 3, shift=1) != quadrature.table_values(nodes, 3)).any()


def test_tables_of_a_dynamics():
    assert quadrature.tables_of(derive.TeacherStudent(activation="erf").dynamics()) == ()
    names = [t.name for t in quadrature.tables_of(derive.TeacherStudent(activation="tanh").dynamics())]
    assert names == ["node_line", "weight_line", "node_joint", "weight_joint"]


H, H_STAR = sympy.IndexedBase("h", real=True), sympy.IndexedBase("h_star", real=True)
SIGN, OUTPUT = sympy.sign(H_STAR[1]), sympy.tanh(H[1])


@pytest.mark.parametrize(
    ("expr", "shifted", "kind"),
    [
        (OUTPUT * H[2], set(), "smooth"),
        (SIGN * sympy.tanh(SIGN * OUTPUT), set(), "split"),
        (SIGN * sympy.tanh(SIGN * OUTPUT), {"h_star"}, "lines"),
        (sympy.sign(H_STAR[1] + H_STAR[2]) * OUTPUT, set(), "lines"),
        (SIGN * sympy.Max(0, H[1]), set(), "planes"),
        (SIGN * sympy.Max(0, H[sympy.Symbol("j")]), set(), "lines"),
        (sympy.floor(H[1]) * OUTPUT, set(), "rough"),
    ],
)
def test_which_rule_suits_a_function(expr, shifted, kind):
    assert quadrature.kind_of([derive.moments.Joint(expr)], shifted) == kind
