"""Escape times from the plateau, remade in the quick form; and that the judgement can fail."""

import json

import numpy as np
import pytest
import xarray as xr

from effdyn import derive, gallery
from effdyn.gallery import plateau_times


@pytest.fixture(scope="module")
def made(once):
    """What ``reproduce`` returns, and its folder; in half of the quick form."""

    def make(out):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plateau_times, "QUICK", plateau_times.Sizes((100, 500), (256, 128)))
            return gallery.reproduce("plateau-times", out, quick=True, progress=False)

    return once("plateau-times", make)


def test_the_slope_passes_and_was_resolved(made):
    passed, out = made
    verdict = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    assert verdict["status"] == "PASS"
    assert plateau_times.CRITICAL * verdict["standard_error"] < plateau_times.RESOLUTION * verdict["predicted"]
    assert verdict["slope"] > plateau_times.CRITICAL * verdict["standard_error"], "no growth with d is refuted"
    assert min(np.divide(verdict["escaped"], verdict["runs"])) > 0.9


def test_everything_is_written(made):
    out = made[1]
    dynamics = derive.TeacherStudent(activation="erf").dynamics()
    assert derive.dynamics_from_json((out / "plateau_times.json").read_text(encoding="utf-8")) == dynamics
    with xr.open_dataset(out / "plateau.nc") as saddle:
        assert saddle.attrs["jacobian"] == "symbolic" and float(saddle.slope) == pytest.approx(1 / (2 * saddle.rate))
        # Before they leave, chains are on the plateau, up to the noise of SGD and the finite dimension.
        with xr.open_dataset(out / "chains_500.nc") as chains:
            resting = chains.eg.sel(t=slice(10, 25))
            assert abs(float(resting.mean()) / float(saddle.eg) - 1) < 0.1
    assert (out / "escape_times.png").stat().st_size > 20_000


def escapes(slope, rng, runs=400):
    found = []
    for d in (100, 1000, 10_000):
        times = slope * np.log(d) + 20 + rng.gumbel(size=runs) * 10
        error = float(times.std(ddof=1)) * 1.25 / np.sqrt(runs)
        found.append(plateau_times.Escapes(d, times, float(np.median(times)), error))
    return found


def test_another_slope_fails_and_too_few_runs_decide_nothing(rng):
    assert plateau_times.judged(escapes(8.0, rng), 8.0)["status"] == "PASS"
    assert plateau_times.judged(escapes(8.0, rng), 4.0)["status"] == "FAIL"  # half: ln d/(4λ)
    assert plateau_times.judged(escapes(8.0, rng), 16.0)["status"] == "FAIL"  # twice: ln(d)/λ
    assert plateau_times.judged(escapes(8.0, rng, 8), 8.0)["status"] == "UNDECIDED"


def test_crossings_are_interpolated_and_runs_that_stay_are_infinite():
    t = np.array([0.0, 1.0, 2.0, 3.0])
    assert plateau_times._crossing(t, np.array([4.0, 3.0, 1.0, 0.5]), 2.0) == 1.5
    assert plateau_times._crossing(t, np.array([4.0, 3.0, 3.0, 3.0]), 2.0) == np.inf
    runs = xr.Dataset({"eg": (("run", "t"), np.full((4, 4), 3.0))}, coords={"t": t})
    with pytest.raises(ArithmeticError, match="0 of 4 runs"):
        plateau_times.escapes(runs, 100, 2.0)
