"""Runs at finite d, remade with fewer chains; and that the judgement can fail."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from effdyn import gallery
from effdyn.gallery import finite_size

SIZES = finite_size.Sizes((20, 40), (1200, 800), (20, 100), 40)
"""Enough for all variances, and for the mean of Q of two students; other means would not be resolved."""


@pytest.fixture(scope="module")
def made(once):
    """What ``reproduce`` returns, and its folder: both cases with the variances, the second with the mean of Q."""
    one, two, *_ = finite_size.cases()

    def make(out):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(finite_size, "QUICK", SIZES)
            patch.setattr(finite_size, "cases", lambda: (replace(one, means=()), replace(two, means=("Q",))))
            return gallery.reproduce("finite-size", out, quick=True, progress=False)

    return once("finite-size", make)


def test_every_coefficient_is_there(made):
    passed, out = made
    verdict = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    assert verdict["n_comparisons"] == len(verdict["rows"]) == 7
    (mean,) = (row for row in verdict["rows"] if row["what"] == "mean")
    assert mean["limit_off"] > 5 and mean["tolerance"] < finite_size.RESOLUTION


def test_everything_is_written(made):
    out = made[1]
    stems = {path.stem for path in out.glob("*.png")}
    assert stems == {"bands_K1", "bands_K2", "collapse_K1", "collapse_K2"}
    assert all(path.stat().st_size > 20_000 for path in out.glob("*.png"))
    assert (out / "finite_size.tex").stat().st_size > 1000
    with xr.open_dataset(out / "theory_K2.nc") as theory:
        assert {"Q_mean_correction", "R_variance", "covariance"} <= set(theory.data_vars)


@pytest.fixture(scope="module")
def sample():
    """Theory, and runs that are drawn from it: normal, with its mean and variance to order 1/d exactly."""
    case = finite_size.cases()[0]
    t = np.linspace(0, 1, 4)
    m, C = xr.DataArray(t, dims="t"), xr.DataArray(t * (2 - t), dims="t")
    theory = xr.Dataset({"R": 0 * m + 1, "R_mean_correction": m, "R_variance": C}, coords={"t": t})
    theory = theory.assign_coords(student=[0], teacher=[0])
    rng = np.random.default_rng(3)

    def drawn(d):
        noise = rng.standard_normal((20_000, 1)) * np.sqrt(C.values / d)  # one number a run: all times as one
        return xr.Dataset({"R": (("run", "t"), 1 + m.values / d + noise)})

    return case, theory, {d: drawn(d) for d in (20, 40)}


@pytest.mark.parametrize("what", ["mean", "variance"])
def test_half_or_none_of_a_coefficient_fails(sample, what):
    case, theory, chains = sample
    name = "R_mean_correction" if what == "mean" else "R_variance"
    status = {
        factor: finite_size.judged(case, theory.assign({name: theory[name] * factor}), chains, "R", what, 4.0).status
        for factor in (0.5, 1.0, 2.0)
    }
    assert status == {0.5: "FAIL", 1.0: "PASS", 2.0: "FAIL"}
    few = {d: data.isel(run=slice(40)) for d, data in chains.items()}
    assert finite_size.judged(case, theory, few, "R", what, 4.0).status == "UNDECIDED"


def test_a_line_is_extrapolated_exactly():
    x = np.array([0.05, 0.025, 0.0125])
    constant, slope = finite_size._line_weights(x, np.array([1.0, 2.0, 3.0])) @ (1 + 3 * x)
    assert constant == pytest.approx(1) and slope == pytest.approx(3)  # rounding
