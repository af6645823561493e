"""The article compiles as it is, and no line leaves the page."""

import re
import shutil
import subprocess
from functools import cache

import pytest

from effdyn import derive

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not here")
CASES = {
    "erf": (dict(activation="erf"), "high-dimensional"),
    "erf_trained_decay": (dict(activation="erf", second_layer="trained", weight_decay=True), "gradient-flow"),
    "erf_teacher_He3": (dict(activation="erf", teacher_activation="He3"), "high-dimensional"),
    "square_averaged": (dict(activation="square", output_scale="1/K"), "high-dimensional"),
    "He4": (dict(activation="He4"), "high-dimensional"),
    "own": (dict(activation="x*exp(-x**2/2)"), "gradient-flow"),
    "relu_trained": (dict(activation="relu", second_layer="trained"), "high-dimensional"),
    "tanh_teacher_erf": (dict(activation="tanh", teacher_activation="erf"), "high-dimensional"),
    "logistic": (dict(activation="linear", loss="logistic", labels="sign"), "high-dimensional"),
    "logistic_erf": (dict(activation="erf", loss="logistic", labels="logistic"), "high-dimensional"),
    "hinge": (dict(activation="linear", loss="hinge", labels="sign"), "high-dimensional"),
    "huber": (dict(activation="linear", loss="huber"), "high-dimensional"),
    "erf_biases": (dict(activation="erf", biases=True), "high-dimensional"),
    "target": (dict(activation="He3", target="h1*h2*h3"), "high-dimensional"),
    "kinked_target": (dict(activation="erf", target="Abs(h1)*sign(h2)"), "gradient-flow"),
}
WRITTEN_OUT = tuple(CASES)[:6]
"""Cases in which each moment has a closed form short enough to be written out."""


@cache
def dynamics(case):
    arguments, limit = CASES[case]
    return derive.TeacherStudent(**arguments).dynamics(limit=limit)


def compile_latex(path):
    """Run pdflatex and return its log, unwrapped."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name]
    run = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, errors="replace")
    log = path.with_suffix(".log").read_text(errors="replace")
    assert run.returncode == 0, "\n".join(line for line in log.splitlines() if line.startswith(("!", "l.")))
    return log


def overfull(log):
    return [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]


@needs_latex
@pytest.mark.parametrize("case", CASES)
def test_article_compiles_and_fits_the_page(case, tmp_path):
    path = dynamics(case).article(tmp_path / "article.tex")
    log = compile_latex(path)
    assert not re.findall(r"Undefined control sequence|undefined references|multiply defined", log)
    assert max(overfull(log), default=0) < 3  # points: invisible
    assert path.with_suffix(".pdf").stat().st_size > 10_000


@needs_latex
@pytest.mark.parametrize("case", CASES)
def test_equations_fit_the_narrow_column_of_the_article_class(case, tmp_path):
    path = tmp_path / "plain.tex"
    head = "\\documentclass{article}\n\\usepackage{amsmath}\n\\begin{document}\n\\allowdisplaybreaks\n"
    written_out = dynamics(case).expand(K=2, M=1).latex() if case in WRITTEN_OUT else ""
    path.write_text(f"{head}{dynamics(case).latex()}\n\n{written_out}\n\\end{{document}}\n", encoding="utf-8")
    assert max(overfull(compile_latex(path)), default=0) < 3


@needs_latex
def test_an_overfull_line_would_be_seen(tmp_path):
    path = tmp_path / "wide.tex"
    line = "+".join(["a_{ij}"] * 60)
    path.write_text(
        f"\\documentclass{{article}}\\usepackage{{amsmath}}\\begin{{document}}\\begin{{align}}{line}\\end{{align}}\\end{{document}}"
    )
    assert max(overfull(compile_latex(path))) > 20


def test_article_needs_only_recommended_packages():
    text = source("erf")
    assert set(re.findall(r"\\usepackage(?:\[.*?\])?\{(.*?)\}", text)) <= {"inputenc", "amsmath", "geometry"}


def source(case):
    from effdyn.derive.export.article import article_latex

    return article_latex(dynamics(case))


def test_article_tells_the_derivation():
    text = source("erf_trained_decay")
    assert r"\Delta \mathbf{w}_{i} = \frac{\eta}{\sqrt{d}} a_{i} (y - \phi)" in text.replace("&= ", "= ")
    assert r"d\,\Delta Q_{ik} &= \eta^{2} \chi a_{i} a_{k} (y - \phi)^{2} g'(h_{i}) g'(h_{k})" in text
    assert r"d\,\langle \Delta Q_{ik}\rangle &=" in text
    assert r"\langle h_{i}\,h^{\star}_{n}\rangle = R_{in}" in text
    assert r"in the equation of $Q_{ik}$, of order $\eta/d$" in text
    assert r"\rangle_{s\Omega}\big|_{s=1}" in text
    for quantity in dynamics("erf_trained_decay").parameters:
        assert quantity.name.replace("_", r"\_") in text


def test_increments_of_decayed_weights_are_multiplied_out():
    text = source("erf_trained_decay")
    assert r"- \kappa R_{in}" in text.split(r"\subsection{Expectations}")[0]
    assert "d Q_{ik}" not in text  # which would look like a differential


def test_vectors_are_bold_in_the_prose_as_in_the_equations():
    text = source("erf")
    assert r"$\mathbf{x} \sim  N(0, I_{d})$" in text and r"$\mathbf{w}_{i}\cdot \mathbf{w}_{k}/d$" in text
    assert r"\mathbf{w}^{\star}_{n}/d$" in text


def test_no_page_ends_after_the_first_line_of_an_equation():
    first = next(line for line in source("erf").splitlines() if line.startswith(r"\frac{\mathrm{d}Q_{ik}"))
    assert first.endswith(r"\nonumber \\*")


def test_the_source_of_the_equations_keeps_its_spaces():
    assert r"second\_layer='trained', weight" in source("erf_trained_decay").replace(r"\allowbreak{}", "")


def test_everything_dropped_is_named():
    dyn = dynamics("erf_trained_decay")
    orders = {d.order for d in dyn.dropped}
    assert orders == {"eta", "1/d · eta"}
    assert source("erf_trained_decay").count("in the equation of") == len({(d.quantity, d.order) for d in dyn.dropped})


def test_equations_written_by_hand_have_an_article_too(tmp_path):
    import dataclasses

    bare = dataclasses.replace(dynamics("erf"), model=None, limit="", steps=(), dropped=())
    text = bare.article(tmp_path / "bare.tex").read_text(encoding="utf-8")
    assert r"\section{Setting}" not in text and r"\section{Equations of motion}" in text
    if shutil.which("pdflatex"):
        compile_latex(tmp_path / "bare.tex")


def test_the_status_says_what_is_numerical_and_by_which_rule():
    text = source("logistic")
    assert r"$\epsilon_{01}$, $\rho_{in}$, $\varrho_{ik}$: exact." in text
    assert re.search(r"\\item \$Q_\{ik\}\$(, \$\S+\$)*: numerical: a rule of", text)
    assert "numerical" not in source("erf")


def test_labels_and_how_they_are_drawn_stand_in_the_setting():
    assert r"$y = \operatorname{sign} y^{\star}$, flipped with probability $p$" in source("logistic")
    assert r"$P(y = 1) = 1/(1 + e^{-y^{\star}})$" in source("logistic_erf")
    assert r"\ell = \max\left(0, 1 - \phi y\right)" in source("hinge")


def test_biases_are_the_means_of_fields():
    text = source("erf_biases")
    assert r"\langle h_{i}\rangle = \beta_{i}" in text and r"\operatorname{cov}(h_{i}, h_{k}) = Q_{ik}" in text
    assert "and the means $m_{a}$" in text


def test_how_moments_were_asked_for_stands_in_the_source():
    import effdyn.derive.export.article as article

    numeric = derive.TeacherStudent(activation="erf").dynamics(moments="numeric")
    assert r"moments='numeric'" in article.article_latex(numeric).replace(r"\allowbreak{}", "")
    assert "moments=" not in source("erf").replace(r"\allowbreak{}", "")


def test_an_article_in_another_convention_has_its_clock_letters_and_units(tmp_path):
    dyn = derive.TeacherStudent(activation="erf", output_scale="1/K").dynamics()
    text = derive.convention("veiga-2022").convert(dyn).article(tmp_path / "veiga.tex").read_text(encoding="utf-8")
    assert r"With $t = p_0\,\text{steps}/(p\,d^{1 + \delta})$," in text
    assert r"g(\lambda) &= \operatorname{erf}\left(\frac{\lambda}{\sqrt{2}}\right)" in text
    assert r"The local fields $\lambda_{j}$ ($1 \le j \le p$) and $\lambda^{\star}_{r}$ ($1 \le r \le k$)" in text
    assert r"A local field is $\mathbf{w}\cdot \mathbf{x}/\surd d$." in text
    # Numbers of units stand in the bracket whatever their letters, as K and M do.
    assert r"\frac{\mathrm{d}M_{jr}}{\mathrm{d}t} &= \frac{\gamma_0}{p_0} \Bigl[ \frac{1}{k} \sum_{s=1}^{k}" in text
    own = derive.convention("saad-solla-1995").convert(derive.TeacherStudent(activation="erf").dynamics())
    text = own.article(tmp_path / "saad.tex").read_text(encoding="utf-8")
    assert r"A local field is $\mathbf{w}\cdot \mathbf{x}$." in text and "divided by" not in text
