"""Formulas as text: what SymPy prints is read back as it was, and nothing else is read at all."""

import pytest
import sympy
from hypothesis import example, given
from hypothesis import strategies as st

from effdyn.derive import ModelError
from effdyn.derive.text import FUNCTIONS, parse_expression

X, Y = sympy.symbols("x y", real=True)
ONE_ARGUMENT = [sympy.erf, sympy.exp, sympy.sin, sympy.cos, sympy.tanh, sympy.atan, sympy.Abs]
LEAVES = st.one_of(
    st.sampled_from([X, Y, sympy.pi, sympy.E]),
    st.integers(-9, 9).map(sympy.Integer),
    st.fractions(-3, 3, max_denominator=9).map(lambda q: sympy.Rational(q.numerator, q.denominator)),
    st.sampled_from([0.5, 0.1, 1e-7, 2.5e30]).map(sympy.Float),
)


def larger(inner):
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda p: p[0] + p[1]),
        pair.map(lambda p: p[0] * p[1]),
        pair.map(lambda p: p[0] - p[1]),
        st.tuples(inner, st.sampled_from([2, 3, -1, sympy.Rational(1, 2), sympy.Rational(-1, 3)])).map(
            lambda p: p[0] ** p[1] if p[0] != 0 else p[0]
        ),
        st.tuples(st.sampled_from(ONE_ARGUMENT), inner).map(lambda p: p[0](p[1])),
        pair.map(lambda p: sympy.Max(*p) if all(e.is_extended_real for e in p) else p[0]),
    )


FORMULAS = st.recursive(LEAVES, larger, max_leaves=8).filter(lambda e: e.is_finite is not False and not e.has(sympy.I))


@example(sympy.sqrt(2) * sympy.exp(-(X**2) / 2) / sympy.sqrt(sympy.pi))
@example(-(X**-2))
@given(FORMULAS)
def test_what_sympy_prints_is_read_back(formula):
    again = parse_expression(str(formula), "formula")
    assert again == formula or abs((again - formula).evalf(30, subs={X: 0.37, Y: -1.3})) < 1e-13 * (
        1 + abs(formula.evalf(30, subs={X: 0.37, Y: -1.3}))
    )


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_known_function_is_read(name):
    arguments = {"Max": "x, 1", "Min": "x, 1", "Rational": "1, 3", "Piecewise": None}.get(name, "x")
    if arguments:
        assert parse_expression(f"{name}({arguments})", "formula") == FUNCTIONS[name](
            *eval(f"({arguments},)", {"x": X})
        )


@pytest.mark.parametrize(
    "text",
    [
        "x.real",
        "x.__class__",
        "().__class__.__bases__",
        "__import__('os').system('true')",
        "eval('1')",
        "open('file')",
        "foo(x)",
        "x(2)",
        "erf(x)(x)",
        "getattr(x, 'name')",
        "[x for x in (1, 2)]",
        "(x for x in (1,))",
        "lambda x: x",
        "x if x else 1",
        "x == 1",
        "x and 1",
        "not x",
        "x // 2",
        "x % 2",
        "x @ x",
        "x | 1",
        "~x",
        "x[0]",
        "'x'",
        "b'x'",
        "f'{x}'",
        "1j",
        "...",
        "None",
        "{1: 2}",
        "{x}",
        "[x]",
        "*x",
        "x := 1",
        "(y := 2)",
        "x = 1",
        "import os",
        "x; x",
        "x\ny",
        "erf(x, evaluate=False)",
        "erf(*x)",
        "x +",
        "(x",
        "",
        "   ",
        "\x00",
        "erf",
        "erf()",
        "erf(x, x)",
        "Rational(x)",
        "Heaviside(x, 1, 2)",
        "Piecewise(x)",
        "-" * 5000 + "x",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_anything_else_is_refused(text):
    with pytest.raises(ModelError) as caught:
        parse_expression(text, "activation")
    assert caught.value.argument == "activation"
    assert caught.value.given == text
    assert caught.value.accepted


def test_only_the_given_symbols_may_occur():
    size = sympy.Symbol("K", integer=True, positive=True)
    assert parse_expression("1/sqrt(K)", "output_scale", {"K": size}) == 1 / sympy.sqrt(size)
    with pytest.raises(ModelError) as caught:
        parse_expression("1/sqrt(k)", "output_scale", {"K": size})
    assert "'k'" in caught.value.accepted


def test_indexed_names_are_read_where_they_are_known():
    overlaps = sympy.IndexedBase("Q", real=True)
    assert parse_expression("Q[1, 2]**2 + Q[1, 1]", "formula", {"Q": overlaps}) == overlaps[1, 2] ** 2 + overlaps[1, 1]
    with pytest.raises(ModelError):
        parse_expression("R[1, 2]", "formula", {"Q": overlaps})


@given(st.text(alphabet="x1+-*/()[]., _'eE\"\\\n:=", max_size=12))
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(parse_expression(text, "formula"), sympy.Basic)
    except ModelError as error:
        assert error.given == text
