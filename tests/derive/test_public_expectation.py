"""``derive.expectation``: what it accepts, what it returns, and how it answers what it cannot."""

import math

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from effdyn import derive
from effdyn.derive import ModelError, NoClosedForm, expectation
from effdyn.derive.gaussian.split_fields import split

u, v = sympy.symbols("u v", real=True)
C = {(u, u): 1.2, (u, v): 0.3, (v, v): 0.8}
RHO = 0.3 / math.sqrt(1.2 * 0.8)


def test_relu_kernel():
    found = expectation(sympy.Max(u, 0) * sympy.Max(v, 0), C)
    theta = math.acos(RHO)
    expected = math.sqrt(1.2 * 0.8) / (2 * math.pi) * (math.sin(theta) + (math.pi - theta) * RHO)
    assert float(found) == found.value == pytest.approx(expected, rel=1e-14)
    assert found.exact and found.error <= 1e-15
    assert {str(s) for s in found.form.free_symbols} == {"C_uu", "C_uv", "C_vv"}
    assert all(c.status.startswith("agrees") for c in found.certificate) and found.certificate
    assert "closed form" in repr(found) and repr(found.value) in repr(found)
    latex = found._repr_latex_()
    assert latex.startswith("$") and latex.endswith("$") and f"{found.value:.10g}" in latex and "asin" in latex


def test_symbols_of_the_user_stay_in_the_form():
    a, c = sympy.symbols("a c", positive=True)
    found = expectation(sympy.cos(u) * v**2, {(u, u): a, (u, v): 0, (v, v): c})
    assert sympy.expand(found.form - c * sympy.exp(-a / 2)) == 0
    assert found.value is None and found.error is None and found.exact
    with pytest.raises(TypeError, match=r"\.form"):
        float(found)
    assert str(found.form) in repr(found) and "$" in found._repr_latex_()


def test_parameters_stay_too_and_what_is_known_is_put_in():
    k = sympy.Symbol("k")
    found = expectation(sympy.exp(k * u), {(u, u): 2}, mean={u: 3})
    (k,) = found.form.free_symbols
    assert sympy.simplify(found.form - sympy.exp(k**2 + 3 * k)) == 0
    assert found.value is None


def test_symbols_without_assumptions_are_fields_as_well():
    a, b = sympy.symbols("a b")
    assert expectation(abs(a) * sympy.sign(b), {(a, a): 1, (b, a): 0.5, (b, b): 1}).value == 0
    assert expectation(a * sympy.sign(b), {(a, a): 1, (b, a): 0.5, (b, b): 1}).value == pytest.approx(
        0.5 * math.sqrt(2 / math.pi), rel=1e-14
    )


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (sympy.exp(u - 2 * v), math.exp((1.2 - 1.2 + 3.2) / 2)),
        ((u + v) ** 2, 2.6),
        (sympy.Abs(u - v), math.sqrt(2 * 1.4 / math.pi)),
        (sympy.exp(-((u - v) ** 2) / 2), 1 / math.sqrt(2.4)),
        (sympy.Heaviside(u) * sympy.Heaviside(-v), 0.25 - math.asin(RHO) / (2 * math.pi)),
        (sympy.sign(u * v), 2 / math.pi * math.asin(RHO)),
        (sympy.sign(u + v) * sympy.sign(3 * u + 3 * v), 1.0),
        (sympy.sin(u) ** 2 + sympy.cos(u) ** 2, 1.0),
        (sympy.Max(u, v), math.sqrt(1.4 / (2 * math.pi))),
        (u**2 * sympy.sign(u) ** 2 * sympy.sign(v) ** 4, 1.2),
        (sympy.Integer(3), 3.0),
    ],
    ids=str,
)
def test_known_values(expr, expected):
    found = expectation(expr, C)
    assert found.exact
    assert found.value == pytest.approx(expected, rel=1e-13)


def test_the_same_field_twice_is_one_field():
    """sign(u)² = 1 and |u| relu(u) = u² Θ(u): no orthant of coincident fields is needed."""
    six = sympy.sign(u) ** 3 * sympy.sign(v) * sympy.Max(u, 0) * sympy.Abs(v)
    merged = sympy.Max(u, 0) * v
    assert expectation(six, C).value == pytest.approx(expectation(merged, C).value, rel=1e-14)
    assert not expectation(sympy.Abs(u) * sympy.Max(u, 0), C).form.atoms(sympy.asin)


@settings(max_examples=15)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-1, 1))
def test_affine_arguments_and_means(a, b, mean):
    """E[relu(a u + b)] by hand, and that a mean of u is a shift."""
    a, b = sympy.Rational(round(a, 3)), sympy.Rational(round(b, 3))
    if a == 0:
        return
    m, s = float(a) * mean + float(b), abs(float(a)) * math.sqrt(1.2)
    expected = m * (1 + math.erf(m / s / math.sqrt(2))) / 2 + s * math.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi)
    found = expectation(sympy.Max(a * u + b, 0), {(u, u): 1.2}, mean={u: mean})
    assert found.value == pytest.approx(expected, rel=1e-11, abs=1e-15)


def test_without_a_closed_form_it_is_numerical():
    found = expectation(sympy.tanh(u) * u, {(u, u): 1.0})
    integral = float(sympy.Integral(sympy.tanh(u) * u * sympy.exp(-(u**2) / 2), (u, -12, 12)).evalf(12))
    assert found.value == pytest.approx(integral / math.sqrt(2 * math.pi), abs=1e-8)
    assert not found.exact and found.form is None and found.certificate == ()
    assert "±" in repr(found) and "numerical" in repr(found) and r"\pm" in found._repr_latex_()


def test_without_a_closed_form_symbols_are_refused():
    c = sympy.Symbol("c", positive=True)
    with pytest.raises(NoClosedForm, match="tanh"):
        expectation(sympy.tanh(u) ** 2, {(u, u): c})


@pytest.mark.parametrize(
    ("expr", "covariance", "mean", "said"),
    [
        (u * v, {(u, u): 1, (u, v): 2, (v, v): 1}, None, "positive semidefinite"),
        (u * v, {(u, u): 1, (v, v): 1}, None, "missing"),
        (u * v, {(u, v): 1}, None, "missing"),
        (u, {(u, u): 1, (u, v): 0.1, (v, u): 0.2, (v, v): 1}, None, "symmetric"),
        (u, {}, None, "at least one field"),
        (u, {(u, u): 0}, None, "positive variances"),
        (u, {(u, u): sympy.I}, None, "real"),
        (u, {(u, u): sympy.oo}, None, "finite"),
        (u, {(u, u): 1}, {v: 1}, "v has no variance"),
        (u, {(u, u): 1, (u, v): 0.5}, None, "v is none"),
        (sympy.I * u, {(u, u): 1}, None, "real"),
        (sympy.sqrt(u), {(u, u): 1}, None, "complex"),
        (1 / u, {(u, u): 1}, None, "not integrable"),
        (sympy.exp(u**2), {(u, u): 1}, None, "no Gaussian expectation"),
        (sympy.exp(u**3), {(u, u): 1}, None, "no Gaussian expectation"),
    ],
)
def test_bad_input(expr, covariance, mean, said):
    with pytest.raises(ModelError, match=said):
        expectation(expr, covariance, mean)


def test_expressions_split_into_functions_of_lines():
    w = sympy.Symbol("w", real=True)
    (product,) = split(2 * sympy.erf(u + 2 * v + 1) * (u + 2 * v) * sympy.sign(w), (u, v, w))[:1]
    assert product.weight in (2, 4)
    with pytest.raises(NoClosedForm, match="linear combination"):
        split(sympy.exp(u * v), (u, v))
    with pytest.raises(NoClosedForm, match="linear combination"):
        split(sympy.tanh(u + sympy.sin(v)), (u, v))


def test_it_is_in_the_public_names():
    assert {"expectation", "Expectation", "certify", "Certificate", "CertificateError"} <= set(derive.__all__)


@pytest.mark.parametrize("slope", [0.1, 2.5, -0.7])
def test_a_leaky_relu_of_symbolic_slope_is_closed_for_any_slope(slope):
    u, v, s = sympy.symbols("u v s", real=True)
    law = {(u, u): 1.2, (u, v): 0.3, (v, v): 0.8}
    form = derive.expectation(sympy.Max(u, s * u) * sympy.Max(v, s * v), law).form
    leaky = [sympy.Max(x, sympy.Rational(str(slope)) * x) for x in (u, v)]
    assert abs(float(form.subs(s, slope)) - derive.expectation(leaky[0] * leaky[1], law).value) < 1e-14
