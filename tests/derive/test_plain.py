"""What is printed is a page that one can read: short lines, every symbol defined, the same mathematics."""

import dataclasses
import re
import time
from functools import cache

import pytest
import sympy

from effdyn import derive
from effdyn.derive.export.line_breaking import PLAIN_LINE
from effdyn.derive.export.printer import PlainPrinter
from effdyn.derive.export.readable import readable_form
from effdyn.derive.gaussian.special import Phi2
from effdyn.derive.terms import assemble

CASES = {
    "erf": dict(activation="erf"),
    "erf_trained_decay": dict(activation="erf", second_layer="trained", weight_decay=True),
    "erf_teacher_He3": dict(activation="erf", teacher_activation="He3", output_scale="1/K"),
    "He3": dict(activation="He3"),
    "own": dict(activation="x*exp(-x**2/2)"),
    "relu": dict(activation="relu", second_layer="trained"),
    "tanh": dict(activation="tanh", teacher_activation="erf"),
    "logistic": dict(activation="linear", loss="logistic", labels="sign"),
    "logistic_erf": dict(activation="erf", loss="logistic", labels="logistic"),
    "erf_biases": dict(activation="erf", biases=True),
}


@cache
def dynamics(case):
    return derive.TeacherStudent(**CASES[case]).dynamics(limit="gradient-flow" if case == "own" else "high-dimensional")


def test_the_page_of_the_soft_committee_machine():
    assert (
        str(dynamics("erf"))
        == """\
One-pass SGD, erf student and teacher, first layer trained
t = steps/d; exact in the limit
- inputs x ~ N(0, I_d), independent of each other and each seen once (one-pass SGD)
- local fields are jointly Gaussian given the weights, exactly
- d → ∞ at fixed numbers of units, learning rate and time t = steps/d

dQ_ik/dt =
    eta a_i [Σ_{n=1}^M b_n I_3(i,k,n) - Σ_{j=1}^K a_j I_3(i,k,j)]
    + eta a_k [Σ_{n=1}^M b_n I_3(k,i,n) - Σ_{j=1}^K a_j I_3(k,i,j)]
    + eta^2 a_i a_k [Σ_{j,l=1}^K a_j a_l I_4(i,k,j,l) - 2 Σ_{j=1}^K Σ_{n=1}^M a_j b_n I_4(i,k,j,n)
        + Σ_{n,m=1}^M b_n b_m I_4(i,k,n,m) + sigma^2 J_2(i,k)]
dR_in/dt = eta a_i [Σ_{m=1}^M b_m I_3(i,n,m) - Σ_{j=1}^K a_j I_3(i,n,j)]

eg =
    1/2 Σ_{j,l=1}^K a_j a_l I_2(j,l)
    - Σ_{j=1}^K Σ_{n=1}^M a_j b_n I_2(j,n)
    + 1/2 Σ_{n,m=1}^M b_n b_m I_2(n,m)
loss =
    1/2 Σ_{j,l=1}^K a_j a_l I_2(j,l)
    - Σ_{j=1}^K Σ_{n=1}^M a_j b_n I_2(j,n)
    + 1/2 Σ_{n,m=1}^M b_n b_m I_2(n,m)
    + sigma^2/2
cosine[i,n] = R_in/(sqrt(Q_ii) sqrt(T_nn))
cosine_students[i,k] = Q_ik/(sqrt(Q_ii) sqrt(Q_kk))

g(h) = erf(h/sqrt(2))

I_2(j,l) = E[g(h_j) g(h_l)] = 2/pi arcsin(C_12/(sqrt(1 + C_11) sqrt(1 + C_22)))
J_2(i,k) = E[g'(h_i) g'(h_k)] = 2/(pi sqrt(1 + C_11) sqrt(1 + C'_22))
I_3(i,k,j) = E[g'(h_i) h_k g(h_j)] = 2 C'_23/(pi sqrt(1 + C_11) sqrt(1 + C'_33))
I_4(i,k,j,l) = E[g'(h_i) g'(h_k) g(h_j) g(h_l)] =
    4 arcsin(C''_34/(sqrt(1 + C''_33) sqrt(1 + C''_44)))/(pi^2 sqrt(1 + C_11) sqrt(1 + C'_22))

C'_ab = C_ab - C_1a C_1b/(1 + C_11)
C''_ab = C'_ab - C'_2a C'_2b/(1 + C'_22)
C_ab: the covariance of the fields of a moment's arguments a and b, counted from 1"""
    )


@pytest.mark.parametrize("case", CASES)
def test_lines_are_short_and_every_symbol_is_defined(case):
    text = str(dynamics(case))
    assert max(map(len, text.splitlines())) < PLAIN_LINE + 10  # a fraction is not broken
    for name in {*re.findall(r"(Ĉ?C?\'+)_\d\d", text), *re.findall(r"(Ĉ\'*)_\d\d", text)}:
        assert re.search(rf"^{name}_(ab|aa) = ", text, re.MULTILINE), name
    for name in re.findall(r"\bu_\d+\b", text):
        assert re.search(rf"^{name} = ", text, re.MULTILINE), name
    for name in {n.replace("Δ", "Delta") for n in re.findall(r"(?<![\w])([ΔΛS]'*)_\d\d", text)}:
        assert re.search(rf"^{name.replace('Delta', 'Δ')}_ab", text, re.MULTILINE), name
    assert ("C_ab: the covariance" in text) == any(moment.exact for moment in dynamics(case).moments)
    assert ("m_a: the mean" in text) == ("m_1" in text)
    for moment in dynamics(case).moments:
        assert len(re.findall(rf"^{moment.name}\(", text, re.MULTILINE)) == 1
    for assumption in dynamics(case).assumptions:
        assert f"- {assumption}" in text


def test_printing_is_quick():
    str(dynamics("erf"))
    readable_form.cache_clear()
    start = time.perf_counter()
    str(dynamics("erf"))
    assert time.perf_counter() - start < 1.0  # 0.1 s on the machine it was written on


def test_dropped_terms_read_as_in_the_paper():
    lines = [str(dropped) for dropped in dynamics("erf").dropped]
    assert "Q_ik, order 1/d: 2 eta^2 sigma^2/d a_i a_k ∂_s E_sΩ[g'(h_i) g'(h_k)]" in lines
    assert [repr(dropped) for dropped in dynamics("erf").dropped] == [f"<Dropped {line}>" for line in lines]
    flow = derive.TeacherStudent(**CASES["erf_trained_decay"]).dynamics(limit="gradient-flow")
    assert {str(dropped).partition(":")[0] for dropped in flow.dropped} == {
        "Q_ik, order eta", "Q_ik, order eta/d"
    }  # fmt: skip


def test_a_dropped_term_is_in_the_equation_of_its_quantity():
    for case in ("erf", "erf_trained_decay", "erf_teacher_He3", "He3", "relu", "erf_biases"):
        quantities = {q.name: q.symbol for q in dynamics(case).states}
        for dropped in dynamics(case).dropped:
            assert str(dropped.symbol) == str(quantities[dropped.quantity])
            assert str(dropped).endswith(f": {dropped.term}")


X, Y = sympy.symbols("x y", real=True)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (-X / 2, "-x/2"),
        (X / sympy.sqrt(2), "x/sqrt(2)"),
        (1 / (X * Y), "1/(x y)"),
        ((X + Y) / sympy.sqrt(2), "(x + y)/sqrt(2)"),
        ((X + Y) ** 2, "(x + y)^2"),
        (X**Y, "x^y"),
        (sympy.exp(-(X**2) / 2), "exp(-x^2/2)"),
        (2 / sympy.pi * sympy.asin(X), "2/pi arcsin(x)"),
        (X ** sympy.Rational(3, 2), "x^(3/2)"),
        (sympy.Symbol("eta_a_over_eta") * X, "eta_a_over_eta x"),
        (sympy.S.Zero, "0"),
        (sympy.S.One, "1"),
    ],
)
def test_formulas_as_text(expr, text):
    assert PlainPrinter().doprint(expr) == text


@pytest.mark.parametrize("case", ["erf", "He3", "erf_teacher_He3"])
def test_what_is_printed_is_the_expression(case):
    """Read back with blanks as products: the closed forms of the moments are what they were."""
    printer = PlainPrinter()
    for moment in dynamics(case).moments:
        form = readable_form(moment.signature).form
        names = {s: sympy.Symbol(f"s{n}", positive=True) for n, s in enumerate(sorted(form.free_symbols, key=str))}
        text = printer.doprint(form.xreplace(names))
        code = re.sub(r" (?![+-] )(?<![+-] )", "*", text).replace("^", "**").replace("arcsin", "asin")
        again = sympy.sympify(code, locals={str(s): s for s in names.values()})
        values = {s: sympy.Rational(n + 2, 40) for n, s in enumerate(names.values())}
        assert abs((again - form.xreplace(names)).evalf(20, subs=values)) < 1e-15  # 20 digits, a few lost


def test_equations_written_by_hand_print_too():
    bare = dataclasses.replace(dynamics("erf"), model=None, limit="", steps=(), dropped=())
    assert "dQ_ik/dt =" in str(bare)
    assert all(str(assemble([d.term])) for d in dynamics("erf").dropped)


def test_expectations_over_all_fields_read_as_on_the_blackboard():
    text = str(dynamics("tanh"))
    assert "dR_in/dt = eta a_i E[(y* - phi) g'(h_i) h*_n]" in text
    assert "phi = Σ_{j=1}^K a_j g(h_j)" in text and "y* = Σ_{n=1}^M b_n g̃(h*_n)" in text
    assert "Q, R: numerical: a rule over all fields at once" in text


def test_fields_without_a_number_print_without_one():
    text = str(dynamics("logistic"))
    assert "I_2(phi,y*) = E[sign(phi) sign(y*)] = 2/pi arcsin(C_12/sqrt(C_11 C_22))" in text
    assert "E[h*_n phi] = Σ_{j=1}^K a_j R_jn" in text and "h_phi" not in text and "alpha" not in text


def test_polynomials_of_hundreds_of_terms_are_described():
    text = str(derive.TeacherStudent(activation="He3", target="h1*h2*h3").dynamics())
    assert re.search(r"^I_8\(i,k,1\*,1\*,2\*,2\*,3\*,3\*\) = E.*, a polynomial of 300 terms", text, re.MULTILINE)
    assert "dR_in/dt = eta a_i [I_5(i,1*,2*,3*,n) - Σ_{j=1}^K a_j I_3(i,n,j)]" in text


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (sympy.Max(X, 0), "max(0, x)"),
        (sympy.Abs(X - 1), "|x - 1|"),
        (sympy.Heaviside(X), "Θ(x)"),
        (sympy.Piecewise((X**2, sympy.Abs(X) <= 1), (X, True)), "{x^2 if |x| <= 1; x otherwise}"),
        (Phi2(X, Y, 0), "Φ_2(x, y; 0)"),
    ],
)
def test_kinks_and_distributions_as_text(expr, text):
    assert PlainPrinter().doprint(expr) == text
