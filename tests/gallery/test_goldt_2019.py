"""Errors of over-parameterised students, remade in the quick form; and that the judgement can fail."""

import json
from dataclasses import replace

import numpy as np
import pytest

from effdyn import derive, gallery
from effdyn.gallery import goldt_2019
from effdyn.gallery.goldt_2019 import FAMILIES, Row

ERF_FIRST, ERF_BOTH, LINEAR, RELU = FAMILIES


@pytest.fixture(scope="module")
def made(once):
    """What ``reproduce`` returns, and its folder; in half of the quick form."""

    def make(out):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(goldt_2019, "QUICK", goldt_2019.Sizes((4,), (100, 300), 64))
            return gallery.reproduce("goldt-2019", out, quick=True, progress=False)

    return once("goldt-2019", make)


def test_every_comparison_passes_and_had_power(made):
    passed, out = made
    verdict = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    assert verdict["n_comparisons"] == len(verdict["rows"]) == 7
    assert {row["status"] for row in verdict["rows"]} == {"PASS"}
    for row in verdict["rows"]:
        # K = 4: a law that is off by 1/√3 -> 1 in one of its terms, or by one unit, is 20 % off or more.
        assert row["tolerance"] < (0.01 if row["what"] == "limit" else 0.1) * row["expected"], row


def test_everything_is_written(made):
    out = made[1]
    dynamics = derive.TeacherStudent(activation="erf", second_layer="trained").dynamics()
    assert derive.dynamics_from_json((out / "goldt_2019.json").read_text(encoding="utf-8")) == dynamics
    assert r"\documentclass" in (out / "goldt_2019.tex").read_text(encoding="utf-8")
    assert (out / "error_against_width.png").stat().st_size > 20_000


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_law_is_the_formula_at_these_weights(family):
    for K in (2, 4, 6, 8):
        # spare units of squared length 1e-4 (1 + K/10) are not quite zero, and reduce the law by up to that
        assert family.law(K) == pytest.approx(family.formula(K), rel=3e-4)


def test_students_reproduce_the_teacher():
    for family in (ERF_BOTH, LINEAR):
        # No error to begin with; noise raises eg/(ησ²) at a rate of order one.
        assert goldt_2019.solution(family, 6, 0.1, np.array([1e-9]))[0] == pytest.approx(0, abs=1e-8)


def test_the_error_grows_stays_or_falls():
    grows, falls, stays = (
        [float(goldt_2019.solution(family, K, 0.0125, np.array([rest]))[0]) for K in (2, 4, 6)]
        for family, rest in ((ERF_FIRST, 60.0), (ERF_BOTH, 60.0), (LINEAR, 10.0))
    )
    steps = np.diff(grows) * np.pi  # per two units 2/2π, up to O(η)
    np.testing.assert_allclose(steps, 1, atol=0.1)
    assert falls[1] == pytest.approx(falls[0] / 2, rel=0.1) and falls[2] == pytest.approx(falls[0] / 3, rel=0.1)
    np.testing.assert_allclose(stays, stays[0], rtol=1e-6)  # K shares move as one unit would, in exact arithmetic


def test_another_law_fails_and_a_wide_tolerance_decides_nothing():
    wrong = replace(ERF_FIRST, formula=lambda K: K / (2 * np.pi))  # units that copy the teacher counted as empty ones
    assert goldt_2019.limit(ERF_FIRST, 4).status == "PASS"
    assert goldt_2019.limit(wrong, 4).status == "FAIL"
    assert Row("chains", "", 2, 1.0, 1.0, 0.1, 0.4).status == "UNDECIDED"
