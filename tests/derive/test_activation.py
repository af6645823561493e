"""Activations: named, written as text, as SymPy or as a function; equal when they are the same; refused by name."""

import math
import pickle

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from effdyn.derive import Activation, ModelError, activation
from effdyn.derive.activation import X


def test_erf_means_erf_of_h_over_root_two():
    assert activation("erf").expr == sympy.erf(X / sympy.sqrt(2))
    assert activation("erf").derivative().subs(X, 0) == sympy.sqrt(2 / sympy.pi)


@pytest.mark.parametrize("degree", range(8))
def test_hermite_polynomials_are_the_probabilists(degree):
    coefficients = np.polynomial.hermite_e.herme2poly([0] * degree + [1])
    assert activation(f"He{degree}").expr == sum(int(c) * X**p for p, c in enumerate(coefficients))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (lambda h: sympy.erf(h / sympy.sqrt(2)), "erf"),
        ("erf(x/sqrt(2))", "erf"),
        (sympy.Symbol("h") ** 2, "square"),
        (sympy.Lambda(sympy.Symbol("u"), sympy.Symbol("u")), "linear"),
        ("tanh(x)", "tanh"),
        (activation("relu"), "relu"),
    ],
)
def test_the_same_function_is_the_same_activation(given, name):
    assert activation(given) == activation(name)
    assert hash(activation(given)) == hash(activation(name))
    assert activation(given).name == name


@pytest.mark.parametrize("given", ["erf", "He4", "x**3/3 - x", lambda h: sympy.tanh(2 * h)])
def test_it_is_a_value(given):
    g = activation(given)
    assert eval(repr(g), {"activation": activation}) == g
    assert pickle.loads(pickle.dumps(g)) == g
    with pytest.raises(AttributeError):
        g.name = "other"
    assert g.derivative(2) == sympy.diff(g.expr, X, 2)
    u = sympy.Symbol("u", real=True)
    assert g(u) == g.expr.subs(X, u)


@pytest.mark.parametrize(
    "given",
    ["eerf", "Herf", None, [1, 2], "x*y", "x +", "x.real", "1/0", "1e999", sympy.Symbol("x") * sympy.Symbol("y")],
)
def test_what_is_not_a_function_of_one_variable_is_refused(given):
    with pytest.raises(ModelError) as caught:
        activation(given, "teacher_activation")
    assert caught.value.argument == "teacher_activation"
    assert caught.value.given is not None or given is None
    assert caught.value.accepted


def test_a_misspelt_name_is_guessed():
    with pytest.raises(ModelError) as caught:
        activation("errf")
    assert caught.value.given == "errf"
    assert "'erf'" in caught.value.accepted


def test_a_stray_symbol_is_named():
    with pytest.raises(ModelError) as caught:
        Activation(X * sympy.Symbol("beta"))
    assert caught.value.argument == "activation"
    assert "beta" in caught.value.accepted


@given(st.lists(st.fractions(-5, 5, max_denominator=20), min_size=1, max_size=6))
def test_polynomials_as_text_and_as_sympy_are_equal(coefficients):
    polynomial = sympy.Add(*(sympy.Rational(c.numerator, c.denominator) * X**p for p, c in enumerate(coefficients)))
    if polynomial.is_number:
        return
    g = activation(str(polynomial))
    assert g == activation(polynomial) == activation(lambda h: polynomial.subs(X, h))
    assert eval(repr(g), {"activation": activation}) == g


def test_a_formula_and_its_name_state_the_same_activation():
    for name, formula in (
        ("He3", "x**3 - 3*x"),
        ("He2", "x**2 - 1"),
        ("He1", "x"),
        ("square", "y**2"),
        ("linear", "x"),
    ):
        assert activation(name) == activation(formula)


def test_a_function_that_fails_on_symbols_is_a_clear_error():
    with pytest.raises(ModelError, match="sympy"):
        activation(lambda h: math.tanh(h))
