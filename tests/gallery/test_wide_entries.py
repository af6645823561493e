"""Wide students in the gallery, remade with fewer chains; and that what they judge can fail."""

import json
from dataclasses import replace

import numpy as np
import pytest
import sympy

from effdyn import gallery
from effdyn.gallery import arnaboldi_mean_field as wide
from effdyn.gallery import veiga_phases as phases


def test_mean_field_is_remade(tmp_path, monkeypatch):
    """Two widths, on the way down: enough for files and for agreement, not for the verdicts' full power."""
    monkeypatch.setattr(wide, "QUICK", wide.Sizes((4, 16), (60, 120), (32, 8), 2.0))
    monkeypatch.setattr(wide, "MANY", 32)
    gallery.reproduce("arnaboldi-mean-field", tmp_path, quick=True, progress=False)
    verdicts = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert set(verdicts) == {"p = 4", "p = 16"}
    assert all(v["status"] != "FAIL" for v in verdicts.values())
    text = (tmp_path / "verdict.txt").read_text(encoding="utf-8")
    assert text.count("falls as p^") == 2
    assert {path.stem for path in tmp_path.glob("*.png")} == {"learning_curves", "gap"}
    assert (tmp_path / "arnaboldi_mean_field.tex").stat().st_size > 1000


def test_another_power_of_the_width_is_seen():
    p = (4, 16, 64)
    assert wide.slope(p, 1 / np.array(p, dtype=float))[0] == "PASS"
    assert wide.slope(p, 1 / np.sqrt(p))[0] == "FAIL"
    assert wide.slope(p, np.array(p, dtype=float) ** -1.5)[0] == "FAIL"


def test_the_order_of_the_terms_gives_the_phases():
    found = phases.orders()
    noise = -phases.KAPPA - phases.DELTA
    assert set(found) == {sympy.S.Zero, noise, noise - 1}
    assert all("eta" not in term for term in found[sympy.S.Zero])
    assert len(found[noise]) == len(found[noise - 1]) == 4  # each term of the noise once, and once stretched
    names = {(0.5, 0.0): "gradient flow", (0.25, -0.25): "plateau", (0.0, -0.25): "noise", (0.0, -0.5): "no equations"}
    assert {at: phases.Point(*at).phase for at in names} == names


@pytest.mark.parametrize(
    ("what", "point"),
    [("error", phases.Point(0.5, 0.0)), ("error", phases.Point(0.0, 0.0)), ("spread", phases.Point(0.0, -0.25))],
)
def test_powers_of_d_are_found_and_others_refused(what, point):
    sizes = phases.Sizes((100, 300), 16, (100, 400), 600)
    row, data = phases.judged(what, point, sizes, critical=5.0)
    assert abs(row.found - row.expected) <= row.tolerance, row
    assert row.tolerance < 0.25, "another phase would have passed"
    assert replace(row, tolerance=phases.RESOLUTION, expected=row.found + 0.25).status == "FAIL"
    assert data.shape == (3, 2)


@pytest.mark.slow
def test_the_phases_are_remade(tmp_path):
    assert gallery.reproduce("veiga-phases", tmp_path, quick=True, progress=False)
    verdict = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["n_comparisons"] == 8 and verdict["detectable"] < 0.25
    assert (tmp_path / "phases.png").stat().st_size > 20_000
    assert "d^(-delta - kappa):" in (tmp_path / "orders.txt").read_text(encoding="utf-8")
