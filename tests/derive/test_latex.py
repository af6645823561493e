"""What is printed is LaTeX that sets, is what it was, and means what the expressions mean.

The golden files in ``tests/data/golden`` are rewritten by

    EFFDYN_WRITE_GOLDEN=1 pytest tests/derive/test_latex.py

after which the diff is to be read.
"""

import hashlib
import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import matplotlib
import pytest
import sympy
from matplotlib.mathtext import MathTextParser
from matplotlib.textpath import TextPath

from effdyn import derive
from effdyn.derive.export.latex import moment_latex, notebook_latex, symbol_table
from effdyn.derive.export.line_breaking import LINE
from effdyn.derive.export.printed_width import width
from effdyn.derive.export.prose import text_latex
from effdyn.derive.export.readable import FUNCTIONS, readable_form
from effdyn.derive.export.reading_order import sorted_moments

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = {
    "erf": (dict(activation="erf"), "high-dimensional"),
    "erf_gradient_flow": (dict(activation="erf"), "gradient-flow"),
    "erf_trained_decay": (dict(activation="erf", second_layer="trained", weight_decay=True), "high-dimensional"),
    "erf_trained_decay_gradient_flow": (
        dict(activation="erf", second_layer="trained", weight_decay=True),
        "gradient-flow",
    ),
    "erf_teacher_He3": (dict(activation="erf", teacher_activation="He3"), "high-dimensional"),
    "square_averaged": (dict(activation="square", output_scale="1/K"), "high-dimensional"),
    "He3": (dict(activation="He3"), "high-dimensional"),
    "relu_trained": (dict(activation="relu", second_layer="trained"), "high-dimensional"),
    "tanh_teacher_erf": (dict(activation="tanh", teacher_activation="erf"), "high-dimensional"),
    "logistic": (dict(activation="linear", loss="logistic", labels="sign"), "high-dimensional"),
    "logistic_erf": (dict(activation="erf", loss="logistic", labels="logistic"), "high-dimensional"),
    "erf_biases": (dict(activation="erf", biases=True), "high-dimensional"),
    "target": (dict(activation="He3", target="h1*h2*h3"), "high-dimensional"),
}


@cache
def dynamics(case):
    arguments, limit = CASES[case]
    return derive.TeacherStudent(**arguments).dynamics(limit=limit)


# --- golden files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_latex_is_what_it_was(case):
    text = dynamics(case).latex() + "\n\n" + symbol_table(dynamics(case)) + "\n"
    path = GOLDEN / f"{case}.tex"
    if os.environ.get("EFFDYN_WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), (
        f"{path.name} differs; if it should, EFFDYN_WRITE_GOLDEN=1 rewrites it"
    )


def test_text_does_not_depend_on_the_hash_seed():
    code = """
from effdyn import derive
from effdyn.derive.export.numpy_module import numpy_module
from effdyn.derive.export.serialize import dynamics_to_json
dyn = derive.TeacherStudent(activation="erf", teacher_activation="He3", second_layer="trained").dynamics()
print(dyn.latex(), numpy_module(dyn), dynamics_to_json(dyn), dyn.expand(K=2, M=1).closed())
for arguments in (dict(activation="relu"), dict(activation="linear", loss="logistic", labels="sign")):
    dyn = derive.TeacherStudent(**arguments).dynamics()
    print(dyn, dyn.latex(), numpy_module(dyn), dynamics_to_json(dyn))
"""
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        digests.add(hashlib.sha256(run.stdout).hexdigest())
    assert len(digests) == 1


# --- every line sets --------------------------------------------------------------------------------------------------


def displayed_lines(text):
    """The lines of all displays, in what mathtext knows: no alignment, no sizes of brackets."""
    for body in re.findall(r"\\begin\{align\*?\}(.*?)\\end\{align\*?\}", text, re.DOTALL):
        for line in body.split(r"\\"):
            line = re.sub(r"\\[bB]igg?[lr]?\b", "", line.replace(r"\nonumber", "").replace("&", " "))
            line = re.sub(r"\\text\{[^}]*\}", "", line)
            yield line.replace("{}", "").replace(r"\qquad", r"\quad\quad").strip()


def sets(line):
    MathTextParser("path").parse(f"${line}$")


@pytest.mark.parametrize("case", CASES)
def test_every_displayed_line_parses(case):
    lines = list(displayed_lines(dynamics(case).latex()))
    assert len(lines) > 8
    for line in lines:
        sets(line)


@pytest.mark.parametrize(
    "broken", [r"\frac{a", r"\sum_{j=1^{K} a_j", r"\left( a", r"\nosuchcommand{a}", "C''_{1}^{2}^{3}"]
)
def test_a_malformed_line_would_not(broken):
    with pytest.raises(ValueError):
        sets(broken)


@pytest.mark.parametrize("case", CASES)
def test_lines_fit_the_column(case):
    for line in displayed_lines(dynamics(case).latex()):
        assert width(line) < LINE + 3, line  # the estimate is good to some 10 %; test_article measures


@pytest.mark.parametrize("case", CASES)
def test_brackets_close_within_an_equation(case):
    for body in re.findall(r"\\begin\{align\*?\}(.*?)\\end\{align\*?\}", dynamics(case).latex(), re.DOTALL):
        for pair in ((r"\Bigl[", r"\Bigr]"), (r"\bigl(", r"\bigr)"), (r"\left(", r"\right)"), ("{", "}")):
            assert body.count(pair[0]) == body.count(pair[1])


def test_notebooks_get_one_display():
    text = notebook_latex(dynamics("erf"))
    assert text == dynamics("erf")._repr_latex_()
    assert text.startswith("$$\\begin{aligned}") and text.endswith("\\end{aligned}$$")
    assert "nonumber" not in text and r"\begin{align}" not in text


def test_notebooks_define_what_they_use():
    text = notebook_latex(dynamics("erf"))
    assert text.count("C_{ab} &= \\text{the covariance of") == 1
    assert "C'_{ab} &= C_{ab} -" in text and "C''_{ab} &= C'_{ab} -" in text


def test_a_moment_shows_as_its_definition_and_short_closed_form():
    i4 = next(m for m in dynamics("erf").moments if m.name == "I_4")
    text = i4._repr_latex_()
    assert text.startswith("$$\\begin{aligned}\nI_{4}(i,k,j,l) &= \\langle") and text.endswith("\\end{aligned}$$")
    for left in ("C_{ab} &=", "C'_{ab} &=", "C''_{ab} &="):
        assert text.count(left) == 1
    assert repr(i4) == "<NamedMoment I_4(i,k,j,l) = E[g'(h_i) g'(h_k) g(h_j) g(h_l)]>"
    assert "C''_34" in str(i4) and "C''_ab = C'_ab - C'_2a C'_2b/(1 + C'_22)" in str(i4)


@pytest.mark.parametrize("case", CASES)
def test_every_dropped_term_prints(case):
    for dropped in dynamics(case).dropped:
        assert dropped._repr_latex_().startswith("$\\displaystyle ")
        sets(dropped._repr_latex_().strip("$").replace(r"\displaystyle", "").replace(r"\big|", "|"))


# --- as the papers write ----------------------------------------------------------------------------------------------


def test_common_prefactors_stand_before_brackets():
    text = dynamics("erf").latex()
    first = (
        r"\frac{\mathrm{d}Q_{ik}}{\mathrm{d}t} &= \eta a_{i} \Bigl[ \sum_{n=1}^{M} b_{n} I_{3}(i,k,n) "
        r"- \sum_{j=1}^{K} a_{j} I_{3}(i,k,j) \Bigr]"
    )
    assert first in text
    assert r"\eta^{2} a_{i} a_{k} \Bigl[ \sum_{j,l=1}^{K} a_{j} a_{l} I_{4}(i,k,j,l)" in text
    assert r"\sum_{n,m=1}^{M} b_{n} b_{m} I_{4}(i,k,n,m) + \sigma^{2} J_{2}(i,k) \Bigr]" in text


def test_closed_forms_of_erf_are_short_in_tilted_covariances():
    text = "\n".join(moment_latex(m) for m in dynamics("erf").moments)
    assert r"\frac{2}{\pi} \arcsin\left(\frac{C_{12}}{\sqrt{1 + C_{11}} \sqrt{1 + C_{22}}}\right)" in text
    assert r"\frac{2}{\pi} \frac{C'_{23}}{\sqrt{1 + C_{11}} \sqrt{1 + C'_{33}}}" in text
    assert r"C'_{ab} &= C_{ab} - \frac{C_{1a} C_{1b}}{1 + C_{11}}" in text


MORE = [
    dict(activation="x*exp(-x**2/2)"),
    dict(activation="erf(x)", teacher_activation="erf"),
    dict(activation="He2", teacher_activation="He4"),
    dict(activation="relu"),
    dict(activation="erf", biases=True),
    dict(activation="linear", loss="hinge", labels="sign"),
]


@pytest.mark.parametrize("arguments", [CASES["erf_teacher_He3"][0], CASES["He3"][0], *MORE], ids=lambda a: str(a))
def test_a_readable_form_is_the_closed_form(arguments, rng):
    # gradient flow: the moments of x exp(−x²/2), or with means, in the other limit take seconds
    quick = "exp" in arguments["activation"] or "biases" in arguments
    limit = "gradient-flow" if quick else "high-dimensional"
    dyn = derive.TeacherStudent(**arguments).dynamics(limit=limit)
    for moment in (m for m in sorted_moments(dyn) if m.exact):
        size = len(moment.shape)
        factor = rng.normal(size=(size, size + 2))
        C = factor @ factor.T / size
        values = {
            sympy.Symbol(f"C_{a + 1}{b + 1}", real=True): sympy.Float(C[a, b], 30)
            for a in range(size)
            for b in range(a, size)
        }
        values |= {sympy.Symbol(f"m_{a + 1}", real=True): sympy.Float(C[a, 0] / 2, 30) for a in range(size)}
        short = readable_form(moment.signature, moment.shifted)
        for symbol, expr in short.definitions:
            values[symbol] = expr.xreplace(values).evalf(12 if expr.has(*FUNCTIONS) else 30)
        digits = 10 if moment.form.has(*FUNCTIONS) else 30  # special functions are integrals
        difference = (short.form.xreplace(values) - moment.form.xreplace(values)).evalf(digits)
        assert abs(difference) < 10 ** (-0.7 * digits) * (1 + abs(moment.form.xreplace(values).evalf(digits)))


def test_the_four_point_function_of_relu_is_short_in_symbols_with_the_numbers_of_its_fields():
    start = time.perf_counter()
    i4 = next(m for m in dynamics("relu_trained").moments if m.name == "I_4")
    text = moment_latex(i4)
    assert time.perf_counter() - start < 2.0
    unbroken = re.sub(r" \\\\\n&[\\a-z]* \{\}", " ", text)
    assert r"C_{34} \bigl( 1 + S_{12} + S_{13} + S_{14} + S_{23} + S_{24} + S_{34} + S_{1234} \bigr)" in unbroken
    assert r"\Lambda_{34|12} (1 + S_{34|12})" in text and r"\frac{C_{23} \Delta_{24}}{C_{22}} (1 + S_{13|24})" in text
    for left in ("S_{ab}", "S_{ab|pq}", "S_{abcd}", "C_{ab|pq}", r"\Delta_{ab}", r"\Lambda_{ab|pq}"):
        assert text.count(f"{left} &=") == 1, left


def test_numerical_moments_are_named_not_written_as_sums_over_nodes():
    text = dynamics("tanh_teacher_erf").latex()
    assert r"\langle g(h_{j})\,g(h_{l})\rangle \quad\text{(computed numerically)}" in text
    assert "node" not in text.replace("nodes over", "")
    assert "% eg, loss: numerical: a rule of" in text
    moment = dynamics("tanh_teacher_erf").moments[0]
    assert moment.computed.rule in str(moment) and "(computed numerically)" in moment._repr_latex_()


def test_expectations_over_all_fields_are_written_in_output_and_target():
    text = dynamics("tanh_teacher_erf").latex()
    assert r"\eta a_{i} \langle (y^{\star} - \phi) g'(h_{i}) h^{\star}_{n}\rangle" in text
    assert r"\phi &= \sum_{j=1}^{K} a_{j} g(h_{j})" in text and r"y^{\star} &= \sum_{n=1}^{M}" in text


def test_combinations_of_fields_print_without_a_number_and_with_their_covariances():
    text = dynamics("logistic").latex()
    assert r"\langle \phi\,\phi\rangle &= \sum_{j,l=1}^{K} a_{j} a_{l} Q_{jl}" in text
    assert r"\langle h^{\star}_{n}\,y^{\star}\rangle &= \sum_{m=1}^{M} b_{m} T_{mn}" in text
    assert "h_{phi" not in text and r"\phi_{1}" not in text and "alpha" not in text


def test_means_are_tilted_as_covariances_are():
    text = dynamics("erf_biases").latex()
    assert r"m'_{a} &= m_{a} - \frac{C_{1a} m_{1}}{1 + C_{11}}" in text
    assert r"\Phi_{2}\left(\frac{m_{1}}{\sqrt{1 + C_{11}}}" in text and r"% m_a: the mean" in text


def test_tilts_shorten_the_erf_moments():
    i4 = next(m for m in dynamics("erf").moments if m.name == "I_4")
    assert sympy.count_ops(readable_form(i4.signature).form) < 25 < 70 < sympy.count_ops(i4.form)


def test_hermite_moments_are_short_in_excess_variances():
    i4 = next(m for m in dynamics("He3").moments if m.name == "I_4")
    assert len(sympy.Add.make_args(sympy.expand(i4.form))) > 80
    assert len(sympy.Add.make_args(sympy.expand(readable_form(i4.signature).form))) < 30


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("cosine of the angle", "cosine of the angle"),
        ("E[½(y* − φ)²], noise-free", r"$E[\tfrac12 (y^{\star} - \phi )^2]$, noise-free"),
        ("inputs x ~ N(0, I_d), independent", r"inputs $x \sim  N(0, I_{d})$, independent"),
        ("fixed ratios η_a/η, κ/η", r"fixed ratios $\eta _{a}/\eta$, $\kappa /\eta$"),
        ("weights shrink by κ/d a step", r"weights shrink by $\kappa /d$ a step"),
        ("100 % & more_or_less", None),
    ],
)
def test_prose_becomes_latex(plain, latex):
    text = text_latex(plain)
    assert latex is None or text == latex
    assert text.isascii() and not re.search(r"(?<!\\)[%&]", text)


def test_width_is_that_of_print():
    """Against matplotlib's Computer Modern, which sets fractions smaller than a display does."""
    with matplotlib.rc_context({"mathtext.fontset": "cm"}):
        for line in displayed_lines(dynamics("erf").latex()):
            extents = TextPath((0, 0), f"${line}$", size=10).get_extents()
            measured = (extents.x1 - extents.x0) / 10
            assert 0.8 * measured < width(line) < 1.4 * measured + 2, line
