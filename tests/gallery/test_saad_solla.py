"""Saad and Solla, remade end to end in the quick form: verdicts pass, and every promised file holds something."""

import json
import os
import shutil
import struct
import sys

import numpy as np
import pytest
import xarray as xr

from effdyn import derive, gallery, validate
from effdyn.gallery import cli, report


@pytest.fixture(scope="module")
def made(once):
    """What ``reproduce`` returns, its folder, and the folder that it was run from."""

    def make(folder):
        (folder / "out").mkdir()
        (folder / "cwd").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "cwd")
            return gallery.reproduce("saad-solla", folder / "out" / "made", quick=True, progress=False)

    passed, folder = once("saad-solla", make)
    return passed, folder / "out", folder / "cwd"


def test_every_verdict_passes(made):
    passed, out, _ = made
    verdicts = json.loads((out / "made" / "verdict.json").read_text(encoding="utf-8"))
    text = (out / "made" / "verdict.txt").read_text(encoding="utf-8")
    assert passed, text
    assert {v["status"] for v in verdicts.values()} == {"PASS"}
    assert any("network" in v["simulation"] for v in verdicts.values()), "the network itself was trained, too"
    assert any("gram" in v["simulation"] for v in verdicts.values())
    for name, verdict in verdicts.items():
        assert name in text
        assert verdict["n_comparisons"] > 50
        observables = {row["observable"]: row for row in verdict["observables"]}
        assert observables.keys() >= {"Q", "R", "eg"}
        for row in observables.values():  # a verdict is worth what it could have seen
            assert row["relative"] <= verdict["resolution"]


def test_nothing_is_written_elsewhere(made):
    _, out, elsewhere = made
    assert [path.name for path in out.iterdir()] == ["made"]
    assert not list(elsewhere.iterdir())


def test_figures_are_drawn(made):
    import matplotlib.image

    figures = sorted((made[1] / "made").glob("*.png"))
    assert {path.stem for path in figures} >= {"overlaps", "deviation", "plateau"}
    for path in figures:
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", head[16:24])
        assert width >= 600 and height >= 400
        image = matplotlib.image.imread(path)[..., :3]
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50, f"{path.name} is empty"


def test_data_are_labelled_and_readable(made):
    files = sorted((made[1] / "made").glob("*.nc"))
    assert len(files) >= 5
    for path in files:
        with xr.open_dataset(path) as data:
            assert {"Q", "R", "eg"} <= set(data.data_vars)
            assert ("run" in data.dims) == (not path.stem.startswith("theory"))
            assert data.attrs["clock"] == "steps/d" and data.attrs["model"] == "TeacherStudent(activation='erf')"
            assert all(np.isfinite(data[name]).all() for name in ("Q", "R", "eg"))
    with xr.open_dataset(made[1] / "made" / "theory_K2.nc") as theory:
        # Students specialise: each ends as one teacher unit.
        np.testing.assert_allclose(theory.R.isel(t=-1), np.eye(2), atol=1e-3)


def test_equations_are_exported(made):
    folder = made[1] / "made"
    dynamics = derive.TeacherStudent(activation="erf").dynamics()
    assert derive.dynamics_from_json((folder / "saad_solla.json").read_text(encoding="utf-8")) == dynamics
    exec(compile((folder / "saad_solla.py").read_text(encoding="utf-8"), "saad_solla.py", "exec"), {"__name__": "x"})
    assert r"\documentclass" in (folder / "saad_solla.tex").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_the_article_is_typeset(made):
    pdf = made[1] / "made" / "saad_solla.pdf"
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 50_000
    assert "Overfull" not in (pdf.with_suffix(".log")).read_text(encoding="utf-8", errors="replace")


def test_ctrl_c_ends_it_and_nothing_half_done_is_judged(tmp_path, monkeypatch, capsys):
    whole = validate.simulate

    def interrupted(*args, **kwargs):
        result = whole(*args, **kwargs)
        result.attrs["status"] = "interrupted"
        return result

    monkeypatch.setattr(validate, "simulate", interrupted)
    monkeypatch.setattr(sys, "argv", ["effdyn", "reproduce", "saad-solla", "--quick", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "verdict.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the compiler")
def test_a_latex_that_fails_is_said_and_nothing_is_lost(tmp_path, monkeypatch):
    compiler = tmp_path / "pdflatex"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "pdflatex failed" in report.typeset(tmp_path, "saad_solla")
