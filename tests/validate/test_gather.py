"""Moments over runs, summed as the runs come."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from effdyn.derive import TeacherStudent
from effdyn.validate import gather
from effdyn.validate.data_laws import StudentT
from effdyn.validate.simulate import SimulationDiverged, simulate

PARAMS = dict(eta=0.8, sigma=0.1, T=np.eye(2), a=1.0, b=1.0)
ALIKE = dict(Q=0.3 * np.eye(2), R=np.zeros((2, 2)))
"""Students that nothing tells apart: replicas are matched."""


def run(**changes):
    how = dict(d=[20, 30], runs=9, t_span=(0, 12), t_eval=[0, 1, 12], y0=ALIKE, params=PARAMS, rng=7, progress=False)
    return simulate(TeacherStudent(activation="erf"), **(how | changes))


@pytest.fixture
def at_a_time(monkeypatch):
    """Gather so many runs at a time."""

    def choose(runs):
        monkeypatch.setattr(gather, "FEWEST", runs)
        monkeypatch.setattr(gather, "MOST", runs)

    return choose


@pytest.mark.parametrize(
    "how",
    [
        dict(),
        dict(align=True),
        dict(d=20),
        dict(engine="network", inputs=StudentT(5)),
        dict(init="random", align=False),
    ],
    ids=str,
)
def test_moments_are_those_of_the_runs(how, at_a_time):
    runs = run(**how)
    at_a_time(2)
    moments = run(store="moments", **how)
    assert moments.attrs["runs"] == 9 and moments.sizes.keys() == runs.isel(run=0).sizes.keys()
    for name in runs.data_vars:
        mean, spread = runs[name].mean("run", skipna=False), runs[name].std("run", ddof=1, skipna=False)
        size = float(abs(runs[name]).max())
        # Sums of nine numbers: a few ulp of the largest; a spread is the root of what may cancel to that.
        assert float(abs(moments[name] - mean).max()) <= 9 * 2.3e-16 * size
        assert float(abs(moments[f"{name}_std"] ** 2 - spread**2).max()) <= 40 * 2.3e-16 * size**2
        assert moments[name].dims == mean.dims and moments[name].attrs == mean.attrs


def test_moments_have_the_same_bits_whoever_ran_which_replica(at_a_time, tmp_path):
    how = dict(store="moments")
    reference = run(threads=1, **how)
    for portion, threads in ((1, 3), (2, 1), (4, 2), (100, 8)):
        at_a_time(portion)
        assert run(threads=threads, **how).identical(reference)
    with ThreadPoolExecutor(3) as pool:
        assert run(executor=pool, **how).identical(reference)
    at_a_time(2)
    run(runs=5, checkpoint=tmp_path / "c", **how)
    assert run(checkpoint=tmp_path / "c", **how).identical(reference)
    assert run(checkpoint=tmp_path / "c", **how).identical(reference), "all of it from the folder"


def test_one_run_has_no_spread():
    one = run(runs=1, store="moments")
    assert np.isnan(one.R_std).all() and one.R.equals(run(runs=1).R.isel(run=0, drop=True))


def test_runs_that_diverge_are_left_out_of_moments(at_a_time):
    """He3 without a bound: at this learning rate some replicas leave the finite numbers, and others do not."""
    model = TeacherStudent(activation="He3")
    how = dict(d=30, runs=12, t_span=(0, 3), t_eval=[0, 3], y0=dict(Q=[[0.3]], R=[[0.1]]), rng=0, progress=False)
    params = dict(eta=0.08, sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
    with pytest.raises(SimulationDiverged) as whole:
        simulate(model, params=params, **how)
    at_a_time(2)
    with pytest.raises(SimulationDiverged) as streamed:
        simulate(model, params=params, store="moments", **how)
    first, second = whole.value, streamed.value
    assert 0 < first.count < 12
    assert (first.run, first.count, first.total, first.t) == (second.run, second.count, second.total, second.t)
    assert second.partial.attrs["runs"] == 12 - first.count
    np.testing.assert_allclose(second.partial.R, first.partial.R.mean("run"), rtol=1e-13)


@pytest.mark.parametrize("resumed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_runs(resumed, at_a_time, tmp_path):
    at_a_time(16)
    how = dict(store="moments", d=100, t_span=(0, 1), t_eval=np.linspace(0, 1, 41), align=False)

    def peak(runs):
        if resumed:
            how["checkpoint"] = tmp_path / str(runs)
            run(runs=runs, **how)
        tracemalloc.start()
        run(runs=runs, threads=1, **how)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(16)  # loads what is loaded once
    # The least of two: garbage that waits for its collection is no growth.
    few, many = (min(peak(runs) for _ in range(2)) for runs in (32, 352))
    saved = 320 * 41 * 22 * 8  # bytes of the further runs and what is measured on them: 2.3 MB
    assert many - few < saved / 4  # a list of jobs and of places in the journal: some 600 bytes a run
