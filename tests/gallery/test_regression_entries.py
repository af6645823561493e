"""The entries on linear regression, remade in the quick form; and what their figures claim."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr

from effdyn.gallery import advani_saxe, sgd_volterra

FIGURES = {"advani-saxe": {"curves", "stopping"}, "sgd-volterra": {"loss", "finite_size"}}
each_entry = pytest.mark.parametrize("name", FIGURES)


@each_entry
def test_every_verdict_passes(name, made):
    passed, out = made(name)
    verdicts = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    assert {v["status"] for v in verdicts.values()} == {"PASS"}
    assert len(verdicts) >= 6


@each_entry
def test_figures_are_drawn(name, check_figures):
    check_figures(name, FIGURES[name])


@each_entry
def test_the_article_is_typeset(name, made):
    out = made(name)[1]
    stem = name.replace("-", "_")
    assert (out / f"{stem}.tex").exists() and (out / f"{stem}.txt").exists()
    if shutil.which("pdflatex"):
        assert (out / f"{stem}.pdf").exists()
        assert "Overfull" not in (out / f"{stem}.log").read_text(encoding="utf-8", errors="replace")


def test_simulations_are_kept(made):
    kept = xr.load_dataset(made("advani-saxe")[1] / "isotropic_1.nc")
    assert {"eg", "train_loss"} <= set(kept.data_vars) and "run" in kept.dims


def test_overtraining_is_worst_where_there_are_as_many_examples_as_dimensions():
    t = np.array([0.0, *np.geomspace(0.05, 300, 60)])
    late, best = ([], [])
    for r in (0.5, 1.0, 2.0):
        eg = advani_saxe.isotropic(r).theory(t).eg.values
        late.append(eg[-1])
        best.append(eg.min())
    assert late[1] > 3 * max(late[0], late[2])
    assert best[0] < best[1] < best[2], "stopped in time, more examples are better"


def test_the_volterra_equation_is_off_by_one_over_n(made):
    n, mean, error = np.loadtxt(made("sgd-volterra")[1] / "deviation.txt", unpack=True)
    scaled, uncertain = n * abs(mean), n * error
    assert (scaled > 5 * uncertain).all()
    # one number for all n, to five standard errors and a next order of 1/n
    assert (abs(scaled - scaled[-1]) < 5 * np.hypot(uncertain, uncertain[-1]) + scaled[-1] / n).all()


def test_learning_rates_are_below_the_edge_of_stability():
    for r, rates in sgd_volterra.RATES.items():
        for eta in rates:
            assert sgd_volterra.multi_pass(r, eta).theory([0.0, 1.0]).stability[0] == pytest.approx(
                eta * r / 2, rel=1e-8
            )
            assert eta * r / 2 < 1
