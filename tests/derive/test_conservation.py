"""Laws of gradient flow: found, complete where the literature has a count, and conserved by training networks."""

import itertools
import os
import pickle
import subprocess
import sys
from functools import cache
from math import comb

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from effdyn.derive.conservation.generators import generators
from effdyn.derive.conservation.laws import conservation_laws
from effdyn.derive.conservation.lie_rank import bracket, lie_rank, random_point
from effdyn.derive.conservation.linear_algebra import PRIME, Span, null_space
from effdyn.derive.conservation.networks import linear_network_parametrisation, relu_network_parametrisation
from effdyn.derive.conservation.parametrisation import Parametrisation
from effdyn.derive.conservation.polynomials import read_polynomial, value, write_polynomial
from effdyn.derive.conservation.readable import shortened
from effdyn.derive.errors import ModelError

TWO_LAYERS = [  # n, h, m on both sides of h = n + m
    *((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 3, 1), (2, 4, 2), (3, 4, 2), (3, 2, 3)),
    *((1, 2, 1), (1, 3, 1), (1, 4, 1), (2, 4, 1), (2, 5, 2), (2, 6, 2), (1, 4, 2)),
]
BILINEAR = {(1, 1, 1): 1, (1, 2, 1): 4, (1, 3, 1): 9, (1, 4, 1): 16}
"""With one input and one output, u_k v_l − u_l v_k is conserved too: h(h − 1)/2 more."""


@cache
def laws_of(*widths, relu=False, biases=False):
    network = relu_network_parametrisation(widths, biases) if relu else linear_network_parametrisation(widths)
    return conservation_laws(network)


def weights(*widths):
    """The matrices of a network, as its laws name them."""
    return [
        sympy.Matrix(rows, columns, lambda i, j, n=n: sympy.IndexedBase(f"W{n}", real=True)[i + 1, j + 1])
        for n, (columns, rows) in enumerate(itertools.pairwise(widths), start=1)
    ]


def balances(*widths):
    """The entries of W_l W_lᵀ − W_{l+1}ᵀ W_{l+1}: the laws in the literature."""
    matrices = weights(*widths)
    return [
        sympy.expand(entry)
        for one, two in itertools.pairwise(matrices)
        for i, j, entry in (
            (i, j, (one * one.T - two.T * two)[i, j]) for i in range(one.rows) for j in range(i, one.rows)
        )
    ]


def rank(expressions, symbols):
    """The dimension of the space of polynomials that expressions span, by SymPy."""
    polynomials = [sympy.Poly(e, *symbols).as_dict() for e in expressions]
    monomials = sorted({m for p in polynomials for m in p})
    return sympy.Matrix([[p.get(m, 0) for m in monomials] for p in polynomials]).rank()


# -- linear networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "h", "m"), TWO_LAYERS)
def test_two_layers_have_the_number_of_laws_of_marcotte_gribonval_peyre(n, h, m):
    laws = laws_of(n, h, m)
    formula = h * (h + 1) // 2 if h <= n + m else (n + m) * h - comb(n + m, 2)
    assert laws.expected == formula
    assert laws.independent == formula and laws.complete
    assert laws.found == BILINEAR.get((n, h, m), h * (h + 1) // 2)


@pytest.mark.parametrize("widths", [(2, 3, 2), (1, 2, 1), (2, 4, 1), (3, 4, 3, 2), (2, 3, 1, 2, 2)])
def test_laws_are_those_of_the_literature(widths):
    laws, known = laws_of(*widths), balances(*widths)
    theta = laws.parametrisation.theta
    assert rank([*laws.laws, *known], theta) == rank(laws.laws, theta), "a known law is missing"
    extra = 1 if widths == (1, 2, 1) else 0
    assert rank(laws.laws, theta) - rank(known, theta) == extra, "something else was found"


def test_three_layers_are_complete():
    laws = laws_of(3, 4, 3, 2)
    assert (laws.found, laws.independent, laws.expected, laws.complete) == (16, 16, 16, True)
    assert set(laws.laws) == set(balances(3, 4, 3, 2)), "not in the shortest basis"


def test_laws_that_are_functions_of_others_are_counted_once():
    laws = laws_of(1, 2, 1)
    assert (laws.found, laws.independent) == (4, 3)
    assert len(laws.independent_laws) == 3
    jacobian = sympy.Matrix(laws.laws).jacobian(laws.parametrisation.theta)
    point = dict(zip(laws.parametrisation.theta, (2, 3, 5, 7), strict=True))
    assert jacobian.xreplace(point).rank() == 3
    chosen = sympy.Matrix(laws.independent_laws).jacobian(laws.parametrisation.theta)
    assert chosen.xreplace(point).rank() == 3


def test_products_of_laws_are_no_new_laws():
    laws = conservation_laws(linear_network_parametrisation((2, 2, 1)), degree=4)
    assert (laws.found, laws.independent) == (3 + 6, 3)
    assert [sympy.Poly(law, *laws.parametrisation.theta).total_degree() for law in laws.laws] == [2] * 3 + [4] * 6


# -- ReLU networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("widths", [(2, 3, 2), (1, 1, 1), (1, 4, 1), (2, 3, 2, 1), (3, 4, 3, 2)])
def test_a_relu_network_has_one_law_a_hidden_unit(widths, biases):
    laws = laws_of(*widths, relu=True, biases=biases)
    matrices = weights(*widths)
    known = {
        (incoming.row(k) * incoming.row(k).T)[0]
        - (outgoing.col(k).T * outgoing.col(k))[0]
        + int(biases) * sympy.IndexedBase(f"b{layer}", real=True)[k + 1] ** 2
        for layer, (incoming, outgoing) in enumerate(itertools.pairwise(matrices), start=1)
        for k in range(incoming.rows)
    }
    assert rank([*laws.laws, *known], laws.parametrisation.theta) == rank(known, laws.parametrisation.theta)
    assert laws.found == laws.independent == laws.expected == sum(widths[1:-1])


# -- the three methods are witnesses of each other ---------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(2, 3, 2), (1, 3, 1), (2, 4, 1), (2, 2, 3, 1)])
def test_symmetric_generators_give_the_same_laws(widths):
    parametrisation = linear_network_parametrisation(widths)
    by_symmetry = conservation_laws(parametrisation, method="generators")
    assert by_symmetry.found == laws_of(*widths).found
    assert rank([*by_symmetry.laws, *laws_of(*widths).laws], parametrisation.theta) == by_symmetry.found


def test_generators_with_squares_and_products_in_one_law():
    """φ = (x + y) z conserves (x + y)²/2 − z²: entries of B on and off the diagonal have different shares in θᵀBθ."""
    x, y, z = theta = sympy.symbols("x y z", real=True)
    laws = conservation_laws(Parametrisation([sympy.expand((x + y) * z)], theta), method="generators")
    known = [sympy.expand((x + y) ** 2 - 2 * z**2), sympy.expand((x - y) ** 2)]
    assert laws.found == rank(known, theta) == rank([*laws.laws, *known], theta) == 2


@pytest.mark.parametrize(("widths", "extra"), [((2, 3, 2), 0), ((2, 3, 2, 2), 0), ((2, 3, 2, 1), 3)])
def test_all_generators_are_those_of_changes_of_basis(widths, extra):
    """W_l → A W_l, W_{l+1} → W_{l+1} A⁻¹: h² generators a hidden layer, of which h(h+1)/2 symmetric, h(h−1)/2 skew.

    Where W_3 = (a, b), what it does not see of W_2 is linear too: rows −b c and a c for any c in ℝ³.
    """
    parametrisation = linear_network_parametrisation(widths)
    hidden = widths[1:-1]
    assert len(generators(parametrisation)) == sum(h**2 for h in hidden) + extra
    assert len(generators(parametrisation, "symmetric")) == sum(h * (h + 1) // 2 for h in hidden)
    assert len(generators(parametrisation, "skew")) == sum(h * (h - 1) // 2 for h in hidden)


def plain_lie_rank(gradients, symbols, depth):
    """The same by SymPy, without any of the shortcuts: all brackets to a depth, rank over the rationals."""

    def lie(x, y):
        return (y.jacobian(symbols) * x - x.jacobian(symbols) * y).applyfunc(sympy.expand)

    fields = list(gradients)
    last = fields
    for _ in range(depth):
        last = [lie(x, y) for x in gradients for y in last]
        fields = fields + last
    point = {
        s: sympy.Rational(p, q) for s, p, q in zip(symbols, (2, 3, 5, 7, 11, 13), (3, 7, 2, 5, 3, 11), strict=False)
    }
    return sympy.Matrix.hstack(*fields).xreplace(point).rank()


@pytest.mark.parametrize("widths", [(1, 2, 1), (2, 2, 1), (1, 1, 1, 1), (1, 2, 1, 1)])
def test_lie_rank_equals_a_plain_one(widths):
    parametrisation = linear_network_parametrisation(widths)
    theta = list(parametrisation.theta)
    gradients = [sympy.Matrix([sympy.diff(f, s) for s in theta]) for f in parametrisation.phi]
    assert lie_rank(parametrisation.gradients, len(theta)) == plain_lie_rank(gradients, theta, 3)


@pytest.mark.parametrize("widths", [(2, 4, 1), (1, 4, 2), (3, 4, 3, 2)])
def test_lie_rank_needs_no_help_of_the_laws(widths):
    """The search may end when the laws leave no more room; it also ends by itself, at the same rank."""
    parametrisation = linear_network_parametrisation(widths)
    assert lie_rank(parametrisation.gradients, len(parametrisation.theta)) == laws_of(*widths).rank


def test_gradients_alone_would_count_too_many_laws():
    """Without brackets (2, 3, 1) would have 9 − 2 = 7 laws; it has 6."""
    gradients = linear_network_parametrisation((2, 3, 1)).gradients
    point = random_point(9)
    assert Span({n: value(p, point, PRIME) for n, p in field.items()} for field in gradients).rank == 2
    assert 9 - lie_rank(gradients, 9) == 6


def test_bracket_is_antisymmetric_and_obeys_jacobi():
    """To each other: an identity that a wrong sign or a missing term breaks."""
    x, y, z = linear_network_parametrisation((3, 2, 1)).gradients

    def total(*fields):
        out = {}
        for field in fields:
            for n, p in field.items():
                for m, c in p.items():
                    out[n, m] = (out.get((n, m), 0) + c) % PRIME
        return {place: c for place, c in out.items() if c}

    assert bracket(x, y) and not total(bracket(x, y), bracket(y, x))
    z = {n: {(*m, 0): c for m, c in p.items()} for n, p in z.items()}  # not linear
    parts = bracket(x, bracket(y, z)), bracket(y, bracket(z, x)), bracket(z, bracket(x, y))
    assert all(parts) and not total(*parts)


def test_laws_that_are_no_polynomials_are_missed_and_said_to_be():
    x, y = sympy.symbols("x y", real=True)
    laws = conservation_laws(Parametrisation([x + y**2], [x, y]), degree=3)  # conserved: log(y) − 2x
    assert (laws.found, laws.expected, laws.complete) == (0, 1, False)
    assert str(laws).endswith("1 law missing")
    too_low = conservation_laws(linear_network_parametrisation((2, 2, 1)), degree=1)
    assert (too_low.found, too_low.expected, too_low.complete) == (0, 3, False)


def test_laws_may_mix_degrees_where_phi_does():
    """φ = (x − 1)(y − 1) conserves (x − 1)² − (y − 1)²: a hyperbola's two squares, and linear terms."""
    x, y = sympy.symbols("x y", real=True)
    laws = conservation_laws(Parametrisation([sympy.expand((x - 1) * (y - 1))], [x, y]))
    assert laws.laws == (x**2 - 2 * x - y**2 + 2 * y,) and laws.complete


# -- simulation: laws are conserved by training ------------------------------------------------------------------------


def test_gradient_flow_on_a_quartic_loss_conserves_all_laws(rng):
    """ℓ(φ) = Σ (φ − y)⁴ + a coupling; rtol 1e-10 over a time in which the parameters move by order one."""
    laws = laws_of(2, 3, 2, 2)
    theta = laws.parametrisation.theta
    phi = sympy.lambdify([theta], list(laws.parametrisation.phi))
    jacobian = sympy.lambdify([theta], sympy.Matrix(laws.parametrisation.phi).jacobian(theta).tolist())
    values = sympy.lambdify([theta], list(laws.laws))
    targets = rng.normal(size=4)

    def flow(_, w):
        error = np.array(phi(w)) - targets
        return -np.array(jacobian(w)).T @ (4 * error**3 + np.roll(error, 1))

    start = rng.normal(size=len(theta)) * 0.7
    end = solve_ivp(flow, (0, 1), start, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    assert np.linalg.norm(end - start) > 0.3, "nothing moved"
    # The local errors of some hundred steps, each 1e-10 of parameters of order one, in sums of ten squares.
    np.testing.assert_allclose(values(end), values(start), atol=1e-7)


@pytest.mark.parametrize("biases", [False, True])
def test_training_a_relu_network_keeps_its_laws_to_second_order(biases, rng):
    """The network itself, by back-propagation on data, while units switch on and off: a step changes h by η²h(g)."""
    laws = laws_of(2, 4, 3, 1, relu=True, biases=biases)
    network = ReluNetwork([(4, 2), (3, 4), (1, 3)], biases, rng.normal(size=(2, 12)), rng.normal(size=(1, 12)))
    place = [network.names.index(str(s)) for s in laws.parametrisation.theta]
    values = sympy.lambdify([laws.parametrisation.theta], list(laws.laws))
    start = w = rng.normal(size=len(network.names)) * 0.8
    eta, steps, drift = 0.02, 300, np.zeros(laws.found)
    patterns = set()
    for _ in range(steps):
        gradient, pattern = network.gradient(w)
        patterns.add(pattern)
        moved = w - eta * gradient
        change = np.subtract(values(moved[place]), values(w[place]))
        second = eta**2 * np.array(values(gradient[place]))
        # Sums of ten squares of order one; without the laws the change is first of all of order η|g||w|.
        np.testing.assert_allclose(change, second, atol=64 * 2.0**-52 * np.square(w).sum())
        drift, w = drift + second, moved
    assert len(patterns) > 3, "no unit switched"
    assert np.linalg.norm(w - start) > 0.5, "nothing moved"
    assert np.abs(drift).max() > 1e-5, "too small a step to see its effect"


class ReluNetwork:
    """Three layers, trained on the mean squared error by back-propagation written out."""

    def __init__(self, shapes, biases, inputs, targets):
        self.shapes, self.biases, self.X, self.Y = shapes, biases, inputs, targets
        self.names = [
            *(f"W{n}[{i + 1}, {j + 1}]" for n, (a, b) in enumerate(shapes, 1) for i in range(a) for j in range(b)),
            *(f"b{n}[{i + 1}]" for n, (a, _) in enumerate(shapes, 1) for i in range(a) if biases),
        ]

    def unpack(self, w):
        sizes = [a * b for a, b in self.shapes] + [a for a, _ in self.shapes if self.biases]
        parts = np.split(w, np.cumsum(sizes)[:-1])
        matrices = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=False)]
        return matrices, parts[3:] if self.biases else [np.zeros(a) for a, _ in self.shapes]

    def gradient(self, w):
        (one, two, three), (b1, b2, b3) = self.unpack(w)
        first = one @ self.X + b1[:, None]
        second = two @ np.maximum(first, 0) + b2[:, None]
        output = three @ np.maximum(second, 0) + b3[:, None]
        d3 = (output - self.Y) / self.Y.size
        d2 = (three.T @ d3) * (second > 0)
        d1 = (two.T @ d2) * (first > 0)
        slopes = [d1 @ self.X.T, d2 @ np.maximum(first, 0).T, d3 @ np.maximum(second, 0).T]
        offsets = [d.sum(axis=1) for d in (d1, d2, d3)] if self.biases else []
        return np.concatenate([np.ravel(g) for g in (*slopes, *offsets)]), (first > 0).tobytes() + (
            second > 0
        ).tobytes()


# -- exact linear algebra ----------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(-4, 4), min_size=5, max_size=5), min_size=1, max_size=5))
def test_null_space_is_that_of_sympy(rows):
    sparse = [{n: c for n, c in enumerate(row) if c} for row in rows]
    vectors = null_space(sparse, 5)
    matrix = sympy.Matrix(rows)
    assert len(vectors) == 5 - matrix.rank()
    for vector in vectors:
        assert matrix * sympy.Matrix([vector.get(n, 0) for n in range(5)]) == sympy.zeros(len(rows), 1)
    assert sympy.Matrix([[v.get(n, 0) for n in range(5)] for v in vectors]).rank() == len(vectors) if vectors else True


def test_null_space_combines_primes_where_entries_are_large():
    big = 3**60  # of 95 bits: no fraction of 30-bit numbers
    assert null_space([{0: big, 1: -(2**80)}], 2) == [{0: 2**80, 1: big}]
    assert null_space([{0: 1, 1: PRIME}], 2) == [{0: -PRIME, 1: 1}], "a coefficient that the first prime divides"
    assert null_space([{0: PRIME, 1: 1}, {1: 1}], 2) == []


def test_null_space_gives_up_by_name():
    huge = 2 ** (61 * 60) + 1
    with pytest.raises(ArithmeticError, match="bits"):
        null_space([{0: huge, 1: 3**2300}], 2)


def test_shorter_vectors_span_the_same(rng):
    short = [{0: 1, 1: -1}, {1: 1, 2: 1, 3: -2}, {3: 1, 4: 1}]
    mixed = [dict(v) for v in short]
    for _ in range(4):
        i, j = rng.choice(3, size=2, replace=False)
        factor = int(rng.integers(1, 4))
        mixed[i] = {n: c for n in range(5) if (c := mixed[i].get(n, 0) + factor * mixed[j].get(n, 0))}
    dense = sympy.Matrix([[v.get(n, 0) for n in range(5)] for v in mixed])
    result = sympy.Matrix([[v.get(n, 0) for n in range(5)] for v in shortened(mixed)])
    assert result.rank() == 3 and dense.col_join(result).rank() == 3
    assert sum(map(len, shortened(mixed))) <= sum(map(len, mixed))


# -- the values --------------------------------------------------------------------------------------------------------


def test_polynomials_are_read_and_written():
    x, y = sympy.symbols("x y", real=True)
    expr = 3 * x**2 * y / 2 - y**3 + sympy.Rational(1, 7)
    assert write_polynomial(read_polynomial(expr, [x, y], "phi"), [x, y]) == sympy.expand(expr)


def test_parametrisation_takes_matrices_as_layers():
    U, V = sympy.MatrixSymbol("U", 2, 3), sympy.MatrixSymbol("V", 1, 3)
    own = Parametrisation(phi=U * V.T, theta=[U, V], title="U Vᵀ")
    assert [len(layer) for layer in own.layers] == [6, 3]
    laws = conservation_laws(own)
    assert laws.expected == laws.independent == 6
    known = (U.T * U - V.T * V).as_explicit()
    entries = [sympy.expand(known[i, j]) for i in range(3) for j in range(i, 3)]
    assert rank([*laws.laws, *entries], own.theta) == 6


def test_rational_coefficients_and_constants_do_not_matter():
    a, w = sympy.symbols("a w", real=True)
    plain = conservation_laws(Parametrisation([a * w], [a, w]))
    scaled = conservation_laws(Parametrisation([7, 5 * a * w / 3 - 2], [a, w]))
    assert plain.laws == scaled.laws == (a**2 - w**2,)


@pytest.mark.parametrize(
    "value", [linear_network_parametrisation((2, 1, 1)), relu_network_parametrisation((1, 2, 1), True)]
)
def test_parametrisation_is_a_value(value):
    names = {name: getattr(sympy, name) for name in dir(sympy)} | {"Parametrisation": Parametrisation}
    again = eval(repr(value), names)
    assert again == value and hash(again) == hash(value)
    assert pickle.loads(pickle.dumps(value)) == value
    laws = conservation_laws(value)
    assert pickle.loads(pickle.dumps(laws)) == laws
    by_symmetry = conservation_laws(value, method="generators")
    names["conservation_laws"] = conservation_laws
    assert eval(repr(laws), names) == laws and eval(repr(by_symmetry), names) == by_symmetry != laws


def test_laws_print_as_latex():
    laws = laws_of(2, 1, 1)
    assert laws.latex() == (
        "\\begin{align}\nh_{1} &= {W_{1}}_{1,1}^{2} + {W_{1}}_{1,2}^{2} - {W_{2}}_{1,1}^{2}\n\\end{align}"
    )
    assert "aligned" in laws._repr_latex_()
    none = conservation_laws(linear_network_parametrisation((2, 1, 1)), degree=1)
    assert "no laws" in none._repr_latex_()


def test_laws_are_the_same_in_every_process():
    code = (
        "from effdyn.derive.conservation.laws import conservation_laws as c\n"
        "from effdyn.derive.conservation.networks import linear_network_parametrisation as p\n"
        "print(c(p((2, 3, 2, 1)))); print(c(p((1, 3, 1))).survival())"
    )
    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        for seed in ("1", "2")
    ]
    assert outputs[0].stdout == outputs[1].stdout and len(outputs[0].stdout) > 1000


# -- errors ------------------------------------------------------------------------------------------------------------

X, Z = sympy.symbols("x z", real=True)


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        (dict(phi=[sympy.sin(X)], theta=[X]), "phi", "polynomial in x"),
        (dict(phi=[X / Z], theta=[X, Z]), "phi", "polynomial in x, z"),
        (dict(phi=[0.1 * X], theta=[X]), "phi", r"Rational\(1, 10\)"),
        (dict(phi=[Z * X], theta=[X]), "phi", "coefficient is z"),
        (dict(phi=[sympy.pi * X], theta=[X]), "phi", "coefficient is pi"),
        (dict(phi=[1], theta=[X]), "phi", "functions of the parameters x"),
        (dict(phi=[], theta=[X]), "phi", "functions of the parameters x"),
        (dict(phi=[X], theta=[X, X]), "theta", "each parameter once"),
        (dict(phi=[X], theta=[]), "theta", "each parameter once"),
        (dict(phi=[X], theta=[X + Z]), "theta", "symbols"),
        (dict(phi="x*z", theta=[X]), "phi", "a sequence"),
        (dict(phi=[X], theta=[X, Z], layers=[[X]]), "layers", "exactly one layer"),
        (dict(phi=[X], theta=[X], layers=[[X], [X]]), "layers", "exactly one layer"),
    ],
)
def test_what_is_no_parametrisation_is_refused(options, argument, message):
    with pytest.raises(ModelError, match=message) as caught:
        Parametrisation(**options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("widths", [(3,), (), (2, 0, 1), (2, 1.5, 1), "abc", (2, True), 7, (200, 200, 200)])
def test_what_are_no_widths_is_refused(widths):
    with pytest.raises(ModelError, match="widths"):
        linear_network_parametrisation(widths)
    with pytest.raises(ModelError, match="widths"):
        relu_network_parametrisation(widths)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        (dict(degree=0), "degree"),
        (dict(degree=2.0), "degree"),
        (dict(degree=True), "degree"),
        (dict(degree=9), "degree"),
        (dict(method="magic"), "method"),
        (dict(method="generators", degree=3), "degree"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, argument):
    with pytest.raises(ModelError) as caught:
        conservation_laws(linear_network_parametrisation((3, 4, 2)), **options)
    assert caught.value.argument == argument


def test_generators_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="symmetric, skew"):
        generators(linear_network_parametrisation((1, 1)), "odd")
