"""Every symbol of a Dynamics is declared: a mistake is found where it is made, and not in generated code."""

import pytest
import sympy

from effdyn import derive
from effdyn.derive import Dynamics, Equation, ModelError, NotYet, Quantity
from effdyn.derive.diffusion import Amplitude, Covariation
from effdyn.derive.dynamics import KINDS, TIME, FieldFamily
from effdyn.derive.linear.reductions import REDUCTIONS

i, j, k = (sympy.Symbol(name, integer=True) for name in "ijk")
N = sympy.Symbol("N", integer=True, positive=True)
x, y, v = Quantity("x"), Quantity("y"), Quantity("v", (i,), (N,))
other, eta, z = Quantity("v", (j,), (N,)), Quantity("eta"), sympy.Symbol("z")


def made(q, expr, kind="ode", parameters=(eta,), **given):
    return Dynamics("test", kind, "t", (Equation(q, expr),), tuple(parameters), **given)


@pytest.mark.parametrize(
    ("stated", "argument", "named"),
    [
        (lambda: made(x, z * x.symbol), "drift", "z in the drift of x = x*z"),
        (lambda: made(x, sympy.Symbol("t") * x.symbol), "drift", "TIME, if time is meant"),
        (lambda: made(x, sympy.Symbol("etta") * x.symbol), "drift", "did you mean 'eta'"),
        (lambda: made(v, v.symbol + k), "drift", "k in the drift of v[i] = k + v[i]"),
        (lambda: made(v, sympy.IndexedBase("w")[i] * v.symbol), "drift", "w in the drift of v[i]"),
        (lambda: made(v, v.symbol * sympy.Symbol("M")), "drift", "M in the drift"),
        (lambda: made(x, x.symbol, observables=(Equation(y, z + 1),)), "observables", "z in y = z + 1"),
        (lambda: made(x, x.symbol, "sde", diffusion=(Amplitude(x, Quantity("W"), y.symbol),)), "diffusion", "y in the"),
        (lambda: made(v, v.symbol, "sde", diffusion=(Covariation(v, other, z),)), "diffusion", "z in the noise of v"),
        (lambda: made(Quantity("t"), sympy.S.One), "drift", "a quantity named t"),
        (lambda: made(x, x.symbol, parameters=(Quantity("t"),)), "parameters", "a quantity named t"),
        (lambda: made(x, x.symbol, observables=(Equation(Quantity("t"), x.symbol),)), "observables", "named t"),
        (lambda: made(x, sympy.Function("kappa")(z), "formula"), None, ""),
        (lambda: made(x, sympy.Add(*(eta.symbol**n for n in range(99))) * z), "drift", "…"),
    ],
)  # fmt: skip
def test_what_is_not_declared_is_named_with_its_equation(stated, argument, named):
    if argument is None:  # the argument of a function that its own equation defines
        stated()
        return
    with pytest.raises(ModelError) as caught:
        stated()
    assert caught.value.argument == argument and named in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_declared_or_bound_is_not_refused():
    total = sympy.Sum(v.base[k] ** 2, (k, 1, N))
    plain = sympy.Symbol("eta")  # other assumptions, the same name
    made(v, (total / N + TIME * plain) * v.symbol)
    made(x, sympy.Integral(sympy.exp(-z * x.symbol), (z, 0, 1)) + sympy.Integer(2))
    made(x, 0, "sde", diffusion=(Amplitude(x, Quantity("W"), 1),))
    h = sympy.IndexedBase("h")
    made(v, derive.Moment(h[i]) + v.symbol, families=(FieldFamily(h, N, "h"),))
    with pytest.raises(ModelError, match="h in the drift"):
        made(v, derive.Moment(h[i]) + v.symbol)


@pytest.mark.parametrize("kind", list(KINDS))
def test_equations_without_parameters_are_equations(kind):
    assert made(x, sympy.S.One, kind, parameters=()).kind == kind


def test_stochastic_forms_and_reductions_still_construct():
    flow = derive.TeacherStudent(activation="linear").dynamics()
    assert flow.sde().kind == "sde" and flow.fluctuations().tangent is not None
    for reduction in REDUCTIONS:
        try:
            assert derive.LinearNetwork(depth=2, inputs="whitened").dynamics(reduction).kind == "ode"
        except (NotYet, ModelError) as error:
            assert "declare" not in str(error)
    for training in ("one-pass", "multi-pass", "gradient-flow"):
        assert derive.LinearRegression(training).dynamics().drift


def test_it_iterates_like_a_dict_of_its_equations():
    stated = made(x, -eta.symbol * x.symbol, observables=(Equation(y, x.symbol**2),))
    assert {name: stated[name] for name in stated} == {"x": -eta.symbol * x.symbol, "y": x.symbol**2}
    assert "y" in stated and "eta" not in stated
