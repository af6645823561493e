"""What is wrong with a formula is said so that the next attempt succeeds."""

import pytest
import sympy

from effdyn import derive
from effdyn.derive import ModelError
from effdyn.derive.text import FUNCTIONS, NAMES, OTHER_NAMES, parse_expression, suggestion


def said_of(function, *arguments, **named):
    with pytest.raises(ModelError) as caught:
        function(*arguments, **named)
    return caught.value.accepted


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("He-1", "'He' is not a name known here"),
        ("He3-1", "inside a formula it is written x**3 - 3*x"),
        ("h1 + 1", "'h1'"),
        ("sqrt2*x", "'sqrt2'"),
        ("ReLU", "'relu'"),
        ("Erf", "'erf'"),
        ("sigmoid", "'1/(1 + exp(-x))'"),
        ("sigmoid(x)", "'1/(1 + exp(-x))'"),
        ("GELU", "'x*erfc(-x/sqrt(2))/2'"),
        ("relu(x) + x", "relu(x) is written Max(x, 0)"),
        ("arctan(x)", "'atan(…)'"),
        ("abs(x)", "'Abs'"),
        ("erf + 1", "erf is a function"),
        ("x(2)", "x is no function"),
        ("x^2", "x**2"),
        ("erf(x, x)", "exactly 1 argument"),
        ("Max(x, s*x)", "numbers"),
    ],
)
def test_formulas(formula, said):
    assert said in said_of(derive.activation, formula)


def test_no_name_is_its_own_correction_and_no_other_function_is_offered():
    assert "did you mean" not in said_of(derive.activation, "erf + 1")
    assert "sign" not in suggestion("sigmoid", FUNCTIONS)
    assert "relu" not in said_of(derive.activation, "gelu").partition("did you mean")[2]
    assert suggestion("foo", ["floor", "bar"]) == ""


def test_names_of_other_quantities():
    assert "'K'" in said_of(derive.TeacherStudent, output_scale="1/sqrt(k)").partition("did you mean")[2]
    assert "'pi'" not in said_of(derive.TeacherStudent, output_scale="phi")
    assert "'phi'" in said_of(derive.loss, "(y - Phi)**2").partition("did you mean")[2]
    assert "h1, h2" in said_of(derive.TeacherStudent, activation="erf", target="x1*x2")


@pytest.mark.parametrize("name", sorted({*OTHER_NAMES, *NAMES}))
def test_what_is_offered_can_be_read(name):
    offered = OTHER_NAMES.get(name, NAMES.get(name)).replace("…", "x")
    assert isinstance(parse_expression(offered, "formula"), sympy.Expr)


@pytest.mark.parametrize(
    ("name", "value"),
    [("sigmoid", 0.880797077978), ("softplus", 2.126928011043), ("swish", 1.761594155956), ("gelu", 1.954499736104)],
)
def test_formulas_that_are_offered_are_those_functions(name, value):
    assert float(derive.activation(OTHER_NAMES[name])(2)) == pytest.approx(value, rel=1e-11)
