"""The algebra of matrix words against matrices of numbers, and what is derived in it against the papers."""

import numpy as np
import pytest
import sympy

from effdyn.derive import LinearNetwork, ModelError
from effdyn.derive.linear.closure import NotClosed, gram_closure
from effdyn.derive.linear.conserved import matrix_laws
from effdyn.derive.linear.indexed import entry, index
from effdyn.derive.linear.traces import Trace, gradient, squared_norm, trace
from effdyn.derive.linear.words import Letter, Matrix, derivative, identity, rewrite, substitute

SIZES = {"D": 4, "h": 3, "m": 2}
D, H, M = (sympy.Symbol(name, integer=True, positive=True) for name in SIZES)
U, V, X = Letter("U", D, H), Letter("V", M, H), Letter("X", D, D, symmetric=True)
L = Letter("L", H, H, diagonal=True)
EXACT = 1e-13
"""Products of a few 4×4 matrices of O(1): a hundred ulp."""


@pytest.fixture
def values(rng):
    draw = {letter: rng.standard_normal((SIZES[str(letter.rows)], SIZES[str(letter.columns)])) for letter in (U, V, X)}
    return draw | {X: draw[X] + draw[X].T, L: np.diag(rng.standard_normal(SIZES["h"]))}


def evaluate(matrix: Matrix, values):
    """The polynomial at matrices of numbers, word by word."""
    total = np.zeros((SIZES[str(matrix.rows)], SIZES[str(matrix.columns)]))
    for word, c in matrix.terms:
        product = np.eye(len(total))
        for letter, flipped in word:
            product = product @ (values[letter].T if flipped else values[letter])
        total = total + float(c) * product
    return total


def evaluate_trace(value: Trace, values):
    words = (Matrix.of({w: c}, *shape(w)) for w, c in value.terms)
    return float(value.constant) + sum(np.trace(evaluate(w, values)) for w in words)


def shape(word):
    letter, flipped = word[0]
    size = letter.columns if flipped else letter.rows
    return size, size


POLYNOMIALS = [
    U.matrix @ L.matrix @ V.matrix.T - 2 * X.matrix @ U.matrix @ V.matrix.T,
    (U.matrix.T @ X.matrix @ U.matrix + L.matrix) @ V.matrix.T @ V.matrix - 3 * identity(H),
    X.matrix @ X.matrix - U.matrix @ U.matrix.T @ X.matrix - X.matrix @ U.matrix @ U.matrix.T,
]


@pytest.mark.parametrize("p", POLYNOMIALS)
def test_transposition_and_products(p, values):
    np.testing.assert_allclose(evaluate(p.T, values), evaluate(p, values).T, atol=EXACT)
    np.testing.assert_allclose(evaluate(p.T @ p, values), evaluate(p, values).T @ evaluate(p, values), atol=100 * EXACT)
    assert p - p == 0 * p
    assert not p - p.T.T


@pytest.mark.parametrize("p", POLYNOMIALS)
def test_entries_are_those_of_the_matrix(p, values):
    """The indexed form, factored for few products, evaluated term by term."""
    i, j = index("i"), index("j")
    expr = entry(p, i, j)
    expected = evaluate(p, values)

    def array(letter):
        return np.diag(values[letter]) if letter.diagonal else values[letter]

    arrays = {letter.name: array(letter) for letter in values}

    def number(e, at):
        if isinstance(e, sympy.Sum):
            (k, _, n) = e.limits[0]
            return sum(number(e.function, at | {k: x}) for x in range(SIZES[str(n)]))
        if isinstance(e, sympy.Indexed):
            return arrays[str(e.base)][tuple(at[k] for k in e.indices)]
        if isinstance(e, sympy.KroneckerDelta):
            return float(at[e.args[0]] == at[e.args[1]])
        if e.is_number:
            return float(e)
        parts = [number(a, at) for a in e.args]
        return sum(parts) if e.is_Add else np.prod(parts) if e.is_Mul else parts[0] ** parts[1]

    for a, b in np.ndindex(expected.shape):
        assert abs(number(expr, {i: a, j: b}) - expected[a, b]) < 10 * EXACT


def test_gradient_of_a_trace_is_its_derivative(values, rng):
    loss = squared_norm(POLYNOMIALS[0]) + trace(POLYNOMIALS[2]) - 3 * trace(V.matrix @ L.matrix @ V.matrix.T)
    step = 1e-6
    for letter in (U, V):
        direction = rng.standard_normal(values[letter].shape)
        up, down = (evaluate_trace(loss, values | {letter: values[letter] + s * step * direction}) for s in (1, -1))
        slope = (up - down) / (2 * step)
        found = (evaluate(gradient(loss, letter), values) * direction).sum()
        assert abs(slope - found) < 1e-7 * max(1, abs(found)), "central differences: error about step² and 1e-16/step"


def test_time_derivative_is_leibniz(values, rng):
    flow = {U: X.matrix @ U.matrix, V: -1 * V.matrix @ L.matrix}
    step = 1e-6
    rates = {letter: evaluate(rate, values) for letter, rate in flow.items()}
    for p in POLYNOMIALS:
        up, down = (
            evaluate(p, values | {letter: values[letter] + s * step * rate for letter, rate in rates.items()})
            for s in (1, -1)
        )
        np.testing.assert_allclose(evaluate(derivative(p, flow), values), (up - down) / (2 * step), atol=1e-6)


def test_substitution_and_rewriting(values):
    p = POLYNOMIALS[2]
    assert substitute(p, {X: U.matrix @ U.matrix.T}) == -1 * U.matrix @ U.matrix.T @ U.matrix @ U.matrix.T
    orthonormal = {((U, True), (U, False)): identity(H)}
    assert rewrite(U.matrix.T @ U.matrix @ U.matrix.T, orthonormal) == U.matrix.T
    symmetric = {((X, False), (U, False)): U.matrix @ L.matrix}
    assert rewrite(U.matrix.T @ X.matrix, symmetric) == L.matrix @ U.matrix.T, "rules hold for the transpose too"


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="do not multiply"):
        U.matrix @ V.matrix
    with pytest.raises(ValueError, match="do not add up"):
        U.matrix + V.matrix
    with pytest.raises(ValueError, match="symmetric"):
        gradient(trace(X.matrix), X)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_conservation_laws_are_the_imbalances(depth):
    network = LinearNetwork(depth=depth)
    expected = [
        a.matrix @ a.matrix.T - b.matrix.T @ b.matrix for a, b in zip(network.layers, network.layers[1:], strict=False)
    ]
    assert list(matrix_laws(network).laws) == expected
    for law in expected:  # and the loss at hand conserves them too
        assert not derivative(law, network.flow)


def test_weight_decay_leaves_no_law_but_a_decay():
    assert not matrix_laws(LinearNetwork(weight_decay=True)).laws
    (law,) = matrix_laws(LinearNetwork()).laws
    decay, steps, momentum = matrix_laws(LinearNetwork()).survival()
    assert decay.rate == -2 * sympy.Symbol("mu", nonnegative=True) * law
    u, v = (layer.matrix for layer in LinearNetwork().layers)
    g = Letter("G", *(LinearNetwork().sizes[2], LinearNetwork().sizes[0])).matrix
    grad_u, grad_v = v.T @ g, g @ u.T
    assert steps.rate == grad_u @ grad_u.T - grad_v.T @ grad_v
    assert momentum.law is not None
    assert momentum.law == -1 * momentum.law.T, "the law of momentum is skew"


def test_two_layers_close_and_three_do_not():
    network = LinearNetwork(depth=2, inputs="whitened")
    first, second = network.layers
    closure = gram_closure(network.flow, network.sizes[1], [((first, True), (second, False))])
    assert len(closure.flow) == 3
    deep = LinearNetwork(depth=3, inputs="whitened")
    with pytest.raises(NotClosed) as error:
        gram_closure(deep.flow, deep.sizes[1], [((deep.layers[0], True), (deep.layers[1], False))])
    assert error.value.remainder


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 2.0}, "depth"),
        ({"inputs": "white"}, "did you mean 'whitened'"),
        ({"rates": 3}, "rates"),
        ({"weight_decay": 1}, "weight_decay"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ModelError, match=match):
        LinearNetwork(**arguments)


@pytest.mark.parametrize(
    ("network", "reduction", "match"),
    [
        (LinearNetwork(), "grams", "did you mean 'gram'"),
        (LinearNetwork(depth=3), "gram", "holds"),
        (LinearNetwork(depth=1), "gram", "depth=2"),
        (LinearNetwork(), "riccati", "whitened"),
        (LinearNetwork(inputs="whitened", rates="layerwise"), "riccati", "rates='equal'"),
        (LinearNetwork(inputs="whitened"), "principal", "general"),
        (LinearNetwork(inputs="whitened"), "gram-null", "reduction = 'gram-null'.*general"),
        (LinearNetwork(depth=3), "gram-null", "reduction = 'gram-null'.*do not close"),
        (LinearNetwork(depth=3), "neuron", "depth=2"),
        (LinearNetwork(depth=1), "end-to-end", "two layers"),
    ],
)
def test_reductions_that_do_not_apply(network, reduction, match):
    with pytest.raises(ModelError, match=match):
        network.dynamics(reduction)


@pytest.mark.parametrize(
    "reduction", ["full", "principal", "gram", "gram-null", "modes", "strengths", "chain", "neuron"]
)
def test_every_reduction_prints(reduction):
    dyn = LinearNetwork(depth=2).dynamics(reduction)
    assert "frac{\\mathrm{d}" in dyn.latex()
    assert "dt" in str(dyn)
    assert eval(repr(dyn), {"LinearNetwork": LinearNetwork}) == dyn
    assert len(dyn.steps) >= 1
