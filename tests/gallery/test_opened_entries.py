"""The entries on ReLU committees and on classification, remade in the quick form; and what their figures claim."""

import json
import math
import shutil

import numpy as np
import pytest
import xarray as xr

from effdyn import derive
from effdyn.gallery import logistic_teacher, relu_committee

FIGURES = {"relu-committee": {"overlaps", "eta_squared"}, "logistic-teacher": {"error_rates", "overlaps"}}
MODELS = {
    "relu-committee": derive.TeacherStudent(activation="relu", second_layer="trained"),
    "logistic-teacher": derive.TeacherStudent(activation="linear", labels="logistic", loss="logistic"),
}
each_entry = pytest.mark.parametrize("name", FIGURES)


@each_entry
def test_every_verdict_passes(name, made):
    passed, out = made(name)
    verdicts = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    assert {v["status"] for v in verdicts.values()} == {"PASS"}
    engines = {engine for v in verdicts.values() for engine in ("gram", "network") if engine in v["simulation"]}
    assert engines == {"gram", "network"}
    for verdict in verdicts.values():
        for row in verdict["observables"]:  # a verdict is worth what it could have seen
            assert row["relative"] <= 0.15, row


@each_entry
def test_figures_are_drawn(name, check_figures):
    check_figures(name, FIGURES[name])


@each_entry
def test_equations_are_exported(name, made):
    stem = made(name)[1] / name.replace("-", "_")
    assert derive.dynamics_from_json(stem.with_suffix(".json").read_text(encoding="utf-8")) == MODELS[name].dynamics()
    exec(compile(stem.with_suffix(".py").read_text(encoding="utf-8"), f"{name}.py", "exec"), {"__name__": "x"})
    assert r"\documentclass" in stem.with_suffix(".tex").read_text(encoding="utf-8")


@each_entry
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_the_article_is_typeset(name, made):
    pdf = made(name)[1] / f"{name.replace('-', '_')}.pdf"
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 50_000
    assert "Overfull" not in pdf.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


# ── What the figures claim ──


def loaded(out, name):
    with xr.open_dataset(out / f"{name}.nc") as data:
        return data.load()


def test_only_gradient_flow_conserves_the_balance_of_relu_layers(made):
    out = made("relu-committee")[1]
    flow, theory = (relu_committee.balance(loaded(out, name)) for name in ("gradient_flow", "theory"))
    # An exact invariant: what it moves is the solver's error, about 100 times rtol = 1e-10.
    np.testing.assert_allclose(flow, np.broadcast_to(flow.values[0], flow.shape), atol=1e-8)
    assert (theory[-1] > theory[0] + 0.02).all(), "noise pumps every unit"


def test_without_the_terms_of_order_eta_squared_the_error_goes_on(made):
    out = made("relu-committee")[1]
    chains = loaded(out, "chains").eg.isel(d=-1, t=-1)
    assert float(loaded(out, "gradient_flow").eg[-1]) < 0.1 * float(chains.min())


def test_two_relu_students_specialise_and_the_third_dies(made):
    end = loaded(made("relu-committee")[1], "theory").isel(t=-1)
    assert end.cosine.values[0, 0] > 0.98 and end.cosine.values[1, 1] > 0.98
    output = end.a.values * np.sqrt(np.diag(end.Q.values))  # what a unit contributes is a_i |w_i|
    assert abs(output[2]) < 0.1 * output[:2].min()


def test_error_rates_are_those_of_the_direction(made):
    for path in made("logistic-teacher")[1].glob("theory_*.nc"):
        theory = loaded(path.parent, path.stem)
        angle = np.arccos(np.clip(theory.cosine.values.squeeze(), -1, 1))
        # arccos near 1 turns rounding of 1e-16 into 1e-8 at most
        np.testing.assert_allclose(theory.error_rate, angle / math.pi, rtol=0, atol=1e-8)


def test_the_perceptrons_amplitude_is_known():
    push = logistic_teacher.PUSHES["perceptron"]
    for eta in (0.3, 1.0):  # it does not depend on the learning rate: its loss has no scale
        # Brent's method and the quadratures are good to about 1e-11.
        assert logistic_teacher.amplitude(push, eta) == pytest.approx((2 / 3) ** (1 / 3) / math.pi, rel=1e-9)


@pytest.mark.parametrize("loss", logistic_teacher.PUSHES)
def test_clean_labels_are_learned_as_a_power_of_time(loss):
    late = np.array([0.0, 1e3, 1e5])
    rate = logistic_teacher.problem("sign", loss).theory(late).error_rate.values[1:] * late[1:] ** (1 / 3)
    error = abs(rate / logistic_teacher.amplitude(logistic_teacher.PUSHES[loss]) - 1)
    # Corrections are of relative order 1/t for the perceptron, and (1/√Q)² ~ t^(-2/3) for losses with a scale.
    assert error[1] < 2e-3
    assert error[1] < 0.2 * error[0], "the correction falls, by 1e2^(2/3) = 20 or more"
