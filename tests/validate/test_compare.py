"""Verdicts on synthetic data, whose truth is known: false alarms as rare as stated, errors as visible as stated."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from effdyn import derive, solve
from effdyn.derive.errors import ModelError
from effdyn.validate.comparable import NotComparable
from effdyn.validate.compare import compare
from effdyn.validate.figures import deviation_vs_d, deviations, error_curve, overlaps
from effdyn.validate.simulate import simulate

T = np.linspace(0, 5, 11)


def theory_of(t=T, K=2, M=2, **attrs):
    """A smooth trajectory of Q, R and eg, of range about 1."""
    rise = 1 - np.exp(-np.asarray(t, float))
    R = 0.1 + rise[:, None, None] * (0.8 * np.eye(K, M) - 0.05)
    Q = 0.2 + rise[:, None, None] * (0.7 * np.eye(K) - 0.1)
    return xr.Dataset(
        {"Q": (("t", "student", "student_2"), Q), "R": (("t", "student", "teacher"), R), "eg": ("t", 0.5 - 0.4 * rise)},
        coords={"t": t},
        attrs={"clock": "steps/d", "model": "TeacherStudent()", "parameters": json.dumps({"eta": 1.0, "a": 1.0})}
        | attrs,
    )


def simulation_of(theory, rng, *, runs=64, d=1000, spread=0.03, shift=0.0):
    """Independent normal runs about theory + shift(d), which do not fluctuate at t = 0; a list d gives a dim d."""
    sizes = np.atleast_1d(d)
    growth = spread * np.sqrt(theory.t / max(float(theory.t.max()), 1e-300))
    shift = shift if callable(shift) else (lambda size, value=shift: value)
    variables = {}
    for name, exact in theory.data_vars.items():
        noise = rng.standard_normal((runs, sizes.size, *exact.shape))
        if name == "Q":
            noise = (noise + noise.swapaxes(-1, -2)) / np.sqrt(2)
        noise = xr.DataArray(noise, dims=("run", "d", *exact.dims)) * growth
        shifts = xr.DataArray([shift(size) for size in sizes], dims="d")
        scale = xr.DataArray(1 / np.sqrt(sizes / sizes.min()), dims="d")
        variables[name] = (exact + (exact.t > 0) * shifts + noise * scale).transpose("run", "d", "t", ...)
    dataset = xr.Dataset(variables).assign_coords(d=sizes)
    attrs = {"clock": "steps/d", "model": "TeacherStudent()", "params": json.dumps({"eta": 1.0, "a": [1.0, 1.0]})}
    return (dataset if np.ndim(d) else dataset.isel(d=0)).assign_attrs(attrs, runs=runs, engine="synthetic")


def quiet(theory, runs=16, spread=0.01, d=1000):
    """A simulation whose mean is theory exactly, to rounding, and whose standard error is known."""
    sign = xr.DataArray(np.resize([1.0, -1.0], runs), dims="run")
    return (theory + sign * spread * (theory.t > 0)).transpose("run", "t", ...).assign_coords(d=d)


def moments_of(simulation):
    """The same simulation as ``store="moments"`` gives it."""
    spread = simulation.std("run", ddof=1).rename({name: f"{name}_std" for name in simulation.data_vars})
    return simulation.mean("run").merge(spread).assign_attrs(simulation.attrs)


# ── The numbers ──


def test_table_holds_the_standard_statistics(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng, runs=8, d=500)
    verdict = compare(theory, simulation, level=0.01, bias=2.0)

    # Q has 3 distinct components, R 4, eg 1; at t = 0 nothing fluctuates.
    assert verdict.n_comparisons == (3 + 4 + 1) * (T.size - 1)
    critical = scipy.stats.t.isf(0.005 / verdict.n_comparisons, df=7)
    np.testing.assert_allclose(verdict.critical, critical, rtol=1e-10)

    row = verdict.table.isel(comparison=(verdict.table.component == "R[1,2]").values & (verdict.table.t == T[4]).values)
    sample = simulation.R[:, 4, 0, 1].values
    error = scipy.stats.sem(sample)  # ddof=1
    np.testing.assert_allclose(row["mean"], sample.mean(), rtol=1e-12)
    np.testing.assert_allclose(row.standard_error, error, rtol=1e-12)
    np.testing.assert_allclose(row.z, (sample.mean() - theory.R[4, 0, 1]) / error, rtol=1e-9)
    np.testing.assert_allclose(row.tolerance, critical * error + 2.0 / 500, rtol=1e-6)  # and 1e-9 of numerical error
    assert row.n.item() == 8
    assert verdict.table.d.item() == 500


def test_components_are_numbered_as_on_paper_and_duplicates_counted_once(rng):
    theory = theory_of()
    table = compare(theory, simulation_of(theory, rng)).table
    assert list(dict.fromkeys(table.component.values.tolist())) == [
        "Q[1,1]", "Q[1,2]", "Q[2,2]", "R[1,1]", "R[1,2]", "R[2,1]", "R[2,2]", "eg",
    ]  # fmt: skip
    lopsided = theory.copy(deep=True)
    lopsided["Q"][:, 1, 0] += 0.2  # a matrix that is not symmetric has no duplicates
    verdict = compare(lopsided, simulation_of(theory, rng))
    assert verdict.status == "FAIL"
    assert verdict.worst.component.item() == "Q[2,1]"


def test_stored_moments_give_the_same_verdict(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng)
    runs, moments = compare(theory, simulation), compare(theory, moments_of(simulation))
    assert moments.shifts == ()  # its error needs the runs
    assert str(replace(runs, shifts=())) == str(moments)


def test_one_time_may_be_selected(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng)
    verdict = compare(theory.isel(t=-1), simulation.isel(t=-1))
    assert verdict.passed
    assert verdict.n_comparisons == 8


# ── Size: how often a true theory fails ──


@pytest.mark.parametrize(("runs", "d"), [(4, 100), (16, 100), (4, [100, 200, 400])])
def test_a_true_theory_fails_no_more_often_than_the_level(runs, d, rng):
    # At n = 4 the normal quantile in place of Student's would fail about half of these, at n = 16 one in eight.
    level, repetitions = 0.05, 250
    theory = theory_of()[["R"]]
    fails = sum(
        compare(theory, simulation_of(theory, rng, runs=runs, d=d), level=level, bias=0.0).status == "FAIL"
        for _ in range(repetitions)
    )
    five_sigma = 5 * np.sqrt(level * (1 - level) / repetitions)
    assert fails / repetitions <= level + five_sigma, "the family-wise level is not kept"


def test_the_level_is_used_up_by_a_single_comparison(rng):
    # One comparison, one d: no inequality is left between the level and the rate. So the test above can fail.
    level, repetitions = 0.4, 250
    theory = theory_of([5.0])[["eg"]]
    fails = sum(
        compare(theory, simulation_of(theory, rng, runs=4), level=level, bias=0.0).status == "FAIL"
        for _ in range(repetitions)
    )
    assert abs(fails / repetitions - level) <= 5 * np.sqrt(level * (1 - level) / repetitions)


# ── Power: an error of the stated size is seen ──


@pytest.mark.parametrize("name", ["Q", "R", "eg"])
@pytest.mark.parametrize("direction", [-1, 1])
def test_smallest_detectable_error_is_what_it_says(name, direction):
    theory = theory_of()
    simulation = quiet(theory)
    verdict = compare(theory, simulation)
    assert verdict.passed
    row = verdict.summary.sel(observable=name)
    assert float(row.relative) == pytest.approx(
        float(row.detectable) / float(np.ptp(theory[name].values, axis=0).max())
    )

    component = row.limiting.item()
    place = {
        dim: int(i) - 1 for dim, i in zip(theory[name].dims[1:], component[len(name) + 1 : -1].split(","), strict=False)
    }
    assert float(row.until) == 3.0  # e^-3 = 0.05
    most = dict(t=slice(3, 7))  # 4 of the 6 times up to there that count

    def caught(factor):
        wrong = theory.copy(deep=True)
        wrong[name][most | place] += direction * factor * float(row.detectable)
        return compare(wrong, simulation).status == "FAIL"

    assert caught(1.0001)
    assert not caught(0.9999)


def test_the_stated_error_is_caught_with_real_noise_in_any_majority_of_times_while_it_moves(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng)
    verdict = compare(theory, simulation)
    detectable = float(verdict.summary.sel(observable="eg").detectable)
    for _ in range(20):
        wrong = theory.copy(deep=True)
        times = rng.permutation(np.arange(1, 7))[:4]
        wrong["eg"][times] += rng.choice([-1.0, 1.0], 4) * 1.0001 * detectable
        assert compare(wrong, simulation).status == "FAIL"


def test_what_has_converged_does_not_flatter(rng):
    t = np.concatenate([T, np.arange(6.0, 200.0)])
    theory = theory_of(t)
    noise = rng.standard_normal((64, t.size)) * np.where(t > 5, 1e-6, 0.03)
    simulation = (theory + xr.DataArray(noise, dims=("run", "t"))).transpose("run", "t", ...).assign_coords(d=1000)
    long, short = compare(theory, simulation), compare(theory.sel(t=slice(5)), simulation.sel(t=slice(5)))
    # More comparisons, a larger quantile; and e^-5 = 0.7 % of the range is still to come at t = 5.
    np.testing.assert_allclose(long.summary.detectable, short.summary.detectable, rtol=0.25)
    assert (long.summary.until == 3.0).all()
    assert "half of the time that an observable moves" in str(long) and "up to t=3" in str(long)


def test_a_numerical_error_is_neither_a_deviation_nor_an_exponent():
    theory = theory_of()[["eg"]].assign_attrs(rtol=1e-8)
    late = T > 2
    wrong = theory.copy(deep=True)
    wrong["eg"][late] += 1e-7  # of a scale of 0.4: within 100·rtol
    for sizes in (1000, SIZES):
        d = xr.DataArray(np.atleast_1d(sizes), dims="d")
        # Runs converge: after t = 2 they fluctuate by less than theory's own error.
        sign = xr.DataArray(np.resize([1.0, -1.0], 16), dims="run")
        spread = sign * xr.DataArray(np.where(late, 1e-9, 1e-2 * (T > 0)), dims="t") / np.sqrt(d / d[0])
        shift = xr.DataArray(np.where(late, 0.0, 1e-4 * (T > 0)), dims="t")
        simulation = (theory + shift + spread).transpose("run", "d", "t").assign_coords(d=d)
        simulation = simulation if np.ndim(sizes) else simulation.isel(d=0)
        verdict = compare(wrong, simulation)
        assert verdict.passed and verdict.numerical == 1e-6
        assert float(abs(verdict.table.z).max()) > 50  # the table keeps it
        assert float(verdict.summary.max_z[0]) < 1 and float(verdict.worst.t) <= 2
        if np.ndim(sizes):
            assert "no exponent" in str(verdict)
        assert deviations(verdict).get_ylim()[1] < 20
        strict = compare(wrong, simulation, numerical=1e-9)
        assert float(strict.summary.max_z[0]) > 50
        assert not np.ndim(sizes) or np.isfinite(strict.table.exponent).any()


def test_worst_names_the_planted_error(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng)
    wrong = theory.copy(deep=True)
    wrong["R"][7, 1, 0] += 0.2
    verdict = compare(wrong, simulation)
    assert not verdict.passed
    assert verdict.worst.component.item() == "R[2,1]"
    assert float(verdict.worst.t) == T[7]
    assert int((~verdict.table.passed).sum()) == 1
    assert "R[2,1]" in verdict.reason


# ── What is the same in all runs ──


def test_a_wrong_start_fails_though_it_has_no_error_bar(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng)
    wrong = theory.copy(deep=True)
    wrong["R"][0, 0, 0] += 5e-4  # below bias/d = 1e-3, which is not granted here
    verdict = compare(wrong, simulation)
    assert verdict.status == "FAIL"
    assert float(verdict.worst.z) == -np.inf
    assert "without any spread" in str(verdict)
    assert compare(wrong, simulation, numerical=1e-2).passed


def test_nothing_but_constants_is_undecided():
    theory = theory_of()
    verdict = compare(theory, quiet(theory, spread=0.0))
    assert verdict.status == "UNDECIDED"
    assert verdict.n_comparisons == 0
    assert "constant" in verdict.reason


# ── UNDECIDED ──


def test_one_run_is_undecided(rng):
    theory = theory_of()
    verdict = compare(theory, simulation_of(theory, rng, runs=1))
    assert verdict.status == "UNDECIDED"
    assert not verdict.passed
    assert "one run" in verdict.reason
    assert str(verdict)
    assert json.loads(verdict.to_json())["critical"] is None
    verdict.plot()


def test_too_few_runs_are_undecided_and_the_runs_needed_suffice(rng):
    theory = theory_of()
    verdict = compare(theory, simulation_of(theory, rng, runs=6, spread=0.1))
    assert verdict.status == "UNDECIDED"
    assert float(verdict.summary.relative.max()) > 0.25
    assert "would have passed" in verdict.reason
    needed = max(int(words.split()[-1]) for words in verdict.reason.split(" runs would show")[:-1])
    assert 6 < needed < 200
    # "About": the spread was itself estimated from 6 runs.
    assert compare(theory, simulation_of(theory, rng, runs=3 * needed, spread=0.1)).passed


def test_too_small_d_is_undecided_however_many_runs(rng):
    theory = theory_of()
    verdict = compare(theory, simulation_of(theory, rng, runs=64, d=3, spread=1e-3))
    assert verdict.status == "UNDECIDED"
    assert "larger d" in verdict.reason


def test_a_run_in_which_nothing_happens_yet_is_undecided(rng):
    theory = theory_of(np.linspace(0, 0.002, 3))
    assert compare(theory, simulation_of(theory, rng, spread=1e-4)).status == "UNDECIDED"


def test_interrupted_simulation_is_undecided_or_fails(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng).assign_attrs(status="interrupted")
    assert compare(theory, simulation).status == "UNDECIDED"
    assert compare(theory + 0.3, simulation).status == "FAIL"


# ── Several d ──

SIZES = [100, 200, 400, 800]


def test_a_deviation_of_order_one_over_d_is_extrapolated_away(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng, d=SIZES, runs=64, spread=0.01, shift=lambda d: 3.0 / d)
    verdict = compare(theory, simulation, bias=0.0)
    assert verdict.passed
    for d in SIZES[:3]:
        alone = compare(theory, simulation.sel(d=d), bias=0.0)
        assert alone.status == "FAIL"
    table = verdict.table.isel(comparison=verdict.table.counted.values)
    assert not table.passed_at_d.sel(d=100).any()
    pull = (table.slope - 3.0) / table.slope_error
    assert float(abs(pull).max()) < 5
    p, error = (table[key].dropna("comparison") for key in ("exponent", "exponent_error"))
    assert p.size > 10
    assert float(abs((p - 1.0) / error).max()) < 5
    assert "p in [" in str(verdict)


def test_an_offset_that_stays_as_d_grows_fails(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng, d=SIZES, runs=64, spread=0.01, shift=lambda d: 0.02 + 3.0 / d)
    verdict = compare(theory, simulation)
    assert verdict.status == "FAIL"
    slow = simulation_of(theory, rng, d=SIZES, runs=64, spread=0.01, shift=lambda d: 1.0 / np.sqrt(d))
    assert compare(theory, slow).status == "FAIL"


def test_weights_are_those_of_a_linear_fit(rng):
    theory = theory_of()
    simulation = simulation_of(theory, rng, d=[100, 300, 700])
    verdict = compare(theory, simulation, bias=1.0)
    last = verdict.table.isel(comparison=-1)  # eg at the last time
    d = np.array([100.0, 300.0, 700.0])
    at_d = (last.mean_at_d - last.theory).values
    slope, intercept = np.polyfit(1 / d, at_d, 1, w=np.sqrt(d))  # polyfit squares its weights
    np.testing.assert_allclose([float(last.deviation), float(last.slope)], [intercept, slope], rtol=1e-8)
    unit = [np.polyfit(1 / d, e, 1, w=np.sqrt(d)) for e in np.eye(3)]
    w = np.array([c0 for _, c0 in unit])
    np.testing.assert_allclose(
        float(last.standard_error), np.sqrt((w * last.standard_error_at_d.values) ** 2 @ np.ones(3))
    )
    np.testing.assert_allclose(verdict.table.attrs["curvature_allowance"], abs(w @ d**-2), rtol=1e-8)


def test_curvature_within_the_allowance_passes_and_beyond_it_fails():
    theory = theory_of()
    sizes = [20, 40, 80]

    def curved(c):
        shift = xr.DataArray(c / np.array(sizes) ** 2.0, dims="d", coords={"d": sizes})
        simulation = quiet(theory, spread=1e-9).drop_vars("d") + shift * (theory.t > 0)
        return simulation.transpose("run", "d", "t", ...)

    assert compare(theory, curved(0.99)).passed
    assert compare(theory, curved(1.01)).status == "FAIL"
    assert compare(theory, curved(1.01), bias=1.1).passed


def test_times_rounded_to_steps_are_allowed_for():
    theory = theory_of()
    simulation = quiet(theory).drop_vars("d").expand_dims(d=[100, 150]).transpose("run", "d", "t", ...)
    true = np.stack([T, T + 0.5 / 150])
    verdict = compare(theory, simulation.assign_coords(t_true=(("d", "t"), true)))
    # w = (−2, 3) for d = 100, 150, of which the second is late by half a step
    assert verdict.table.attrs["clock_allowance"] == pytest.approx(3 * 0.5 / 150)
    assert "rounded to steps" in verdict.criterion
    assert (
        compare(theory, simulation.assign_coords(t_true=(("d", "t"), np.stack([T, T])))).table.attrs["clock_allowance"]
        == 0
    )


# ── Not comparable ──


@pytest.fixture
def pair(rng):
    theory = theory_of()
    return theory, simulation_of(theory, rng)


def refused(theory, simulation, **options):
    with pytest.raises(NotComparable) as caught:
        compare(theory, simulation, **options)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    return caught.value


def test_times_must_be_equal(pair):
    theory, simulation = pair
    assert compare(theory.assign_coords(t=T + 0.4e-3), simulation).passed  # half a step is 0.5e-3
    later = theory.assign_coords(t=np.where(T == 2.0, 2.001, T))
    error = refused(later, simulation)
    assert (error.what, error.theory, error.simulation) == ("times", [2.001], [2.0])
    assert "t_eval=simulation.t" in error.instead
    error = refused(theory.isel(t=slice(3, None)), simulation)
    assert (error.theory, error.simulation) == ([], [0.0, 0.5, 1.0])


def test_half_a_step_is_longer_in_the_clock_of_gradient_flow(pair):
    theory, simulation = pair
    clock = {"clock": "eta*steps/d"}
    simulation = simulation.assign_attrs(clock, params=json.dumps({"eta": 4.0}))
    late = theory.assign_coords(t=T + 1.9e-3).assign_attrs(clock, parameters="{}")
    assert compare(late, simulation).passed
    assert refused(late.assign_coords(t=T + 2.1e-3), simulation).what == "times"


def test_clocks_models_and_parameters_must_be_equal(pair):
    theory, simulation = pair
    error = refused(theory.assign_attrs(clock="eta*steps/d"), simulation)
    assert (error.what, error.theory, error.simulation) == ("clock", "eta*steps/d", "steps/d")
    error = refused(theory.assign_attrs(model="TeacherStudent(activation='relu')"), simulation)
    assert error.what == "model"
    error = refused(theory.assign_attrs(parameters=json.dumps({"eta": 1.1, "a": 1.0})), simulation)
    assert (error.what, error.theory, error.simulation) == ("parameters", {"eta": 1.1}, {"eta": 1.0})
    y0 = json.dumps({"R": [[0.1]]}), json.dumps({"R": [[0.2]]})
    error = refused(theory.assign_attrs(y0=y0[0]), simulation.assign_attrs(y0=y0[1]))
    assert (error.what, error.theory) == ("initial values", {"R": [[0.1]]})


@pytest.mark.parametrize("rate", ["kappa", "eta_a", "eta_bias"])
def test_gradient_flow_is_compared_in_units_of_eta(pair, rate):
    theory, simulation = pair
    theory = theory.assign_attrs(limit="gradient-flow", parameters=json.dumps({f"{rate}_over_eta": 0.5, "a": 1.0}))
    run = {"eta": 0.3, rate: 0.15, "a": [1.0, 1.0]}
    verdict = compare(theory, simulation.assign_attrs(params=json.dumps(run)))
    assert verdict.passed
    text = "gradient flow drops terms of order eta, and bias/d does not cover them; the simulation has eta=0.3"
    assert text in verdict.notes and text in str(verdict)
    assert not [note for note in verdict.notes if "one side" in note]
    error = refused(theory, simulation.assign_attrs(params=json.dumps(run | {rate: 0.18})))
    assert (error.what, error.theory, error.simulation) == (
        "parameters", {f"{rate}_over_eta": 0.5}, {f"{rate}_over_eta": pytest.approx(0.6)},
    )  # fmt: skip


def test_what_is_not_stated_is_noted(pair):
    theory, simulation = pair
    bare = theory.drop_attrs().assign(entropy=theory.R, cosine=theory.R)
    verdict = compare(bare, simulation.drop_attrs())
    assert verdict.passed
    text = "\n".join(verdict.notes)
    for said in ("clock not checked", "model not checked", "parameters not checked", "does not have: entropy"):
        assert said in text
        assert said in str(verdict)
    assert "cosine" not in text  # a function of what is compared


def test_a_loss_that_is_not_eg_and_noise_is_compared(pair):
    theory, simulation = (side.assign(loss=2 * side.eg**2) for side in pair)
    assert list(compare(theory, simulation).summary.observable.values) == ["Q", "R", "eg", "loss"]
    theory, simulation = (side.rename(eg="error_rate").assign(loss=side.eg + 0.5) for side in pair)
    assert list(compare(theory, simulation).summary.observable.values) == ["Q", "R", "error_rate", "loss"]


def test_functions_of_the_states_are_compared_only_if_asked(pair):
    theory, simulation = (side.assign(loss=side.eg + 0.5, cosine=side.R) for side in pair)
    verdict = compare(theory, simulation)
    assert list(verdict.summary.observable.values) == ["Q", "R", "eg"]
    assert not [note for note in verdict.notes if "not compared" in note]
    assert compare(theory.assign(loss=theory.loss + 1), simulation).passed
    assert compare(theory.assign(loss=theory.loss + 1), simulation, variables=["R", "loss"]).status == "FAIL"
    assert list(compare(theory[["loss"]], simulation).summary.observable.values) == ["loss"]


def test_swapped_arguments_are_named(pair):
    theory, simulation = pair
    for swapped in (simulation, moments_of(simulation)):
        error = refused(swapped, theory)
        assert error.what == "runs" and "swapped" in str(error)


def test_times_are_printed_short(pair):
    theory, simulation = pair
    error = refused(theory.assign_coords(t=np.where(T == 2.0, 2 + 1 / 3, T)), simulation)
    assert error.theory == [2 + 1 / 3]
    assert "theory has [2.33333], simulation has [2]" in str(error)
    error = refused(theory.assign_coords(t=T + 1 / 3), simulation)
    assert "theory has 0.333333, 0.833333, 1.33333, … 5.33333 (11 of them)" in str(error)


def test_variables_must_be_in_both(pair):
    theory, simulation = pair
    assert set(compare(theory, simulation, variables=["R"]).summary.observable.values) == {"R"}
    error = refused(theory, simulation, variables=["R", "egg"])
    assert error.what == "variables"
    assert "'eg'" in error.instead
    assert refused(theory.rename(Q="q", R="r", eg="e"), simulation).what == "variables"


def test_sizes_and_runs_must_be_there(pair, rng):
    theory, simulation = pair
    error = refused(theory, simulation_of(theory_of(K=3), rng), variables=["R"])
    assert (error.what, error.theory, error.simulation) == (
        "sizes", {"student": 2, "teacher": 2}, {"student": 3, "teacher": 2},
    )  # fmt: skip
    assert "member" in refused(theory.expand_dims(member=3).transpose("t", ...), simulation).instead
    assert refused(theory, simulation.drop_vars("d")).what == "sizes"
    assert refused(theory, simulation.isel(run=0)).what == "runs"
    assert refused(theory, theory.assign_coords(d=100)).what == "runs"


@pytest.mark.parametrize("side", [0, 1])
def test_values_must_be_finite(pair, side):
    pair = [dataset.copy(deep=True) for dataset in pair]
    pair[side]["R"][dict(t=4)] = np.nan
    error = refused(*pair)
    assert error.what == "values"
    assert "t=2" in error.instead


@pytest.mark.parametrize("option", [dict(level=0.0), dict(level=1.0), dict(bias=-1.0), dict(resolution=0.0)])
def test_options_must_make_sense(pair, option):
    with pytest.raises(ModelError) as caught:
        compare(*pair, **option)
    assert caught.value.argument == next(iter(option))


# ── The report ──


def test_report_states_criterion_and_power(pair):
    verdict = compare(*pair)
    text = str(verdict)
    assert text.startswith("PASS: ")
    assert f"{verdict.critical:.3g}·SE + 1/d" in text
    assert f"over {verdict.n_comparisons} comparisons" in text
    assert "63 degrees of freedom" in text
    assert "smallest detectable error" in text
    assert repr(verdict) == f"<Verdict PASS: {verdict.reason}>"
    assert "<pre>" in verdict._repr_html_()
    facts = json.loads(verdict.to_json())
    assert facts["status"] == "PASS"
    assert [row["observable"] for row in facts["observables"]] == ["Q", "R", "eg"]


def test_verdict_survives_a_pickle_and_its_table_a_file(pair, tmp_path):
    verdict = compare(*pair)
    assert str(pickle.loads(pickle.dumps(verdict))) == str(verdict)
    pytest.importorskip("h5py")
    verdict.table.to_netcdf(tmp_path / "verdict.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "verdict.nc", engine="h5netcdf") as again:
        assert again.component.values[0] == "Q[1,1]"


# ── A real model ──


def test_erf_network_agrees_with_saad_and_solla_and_an_error_of_five_percent_does_not():
    model = derive.TeacherStudent(activation="erf")
    y0 = dict(Q=[[0.2, 0.02], [0.02, 0.3]], R=[[0.1, 0.03], [0.02, 0.15]])
    params = dict(eta=1.0, sigma=0.1, T=np.eye(2), a=1.0, b=1.0)
    asked = dict(t_span=(0, 10), y0=y0, params=params)
    simulation = simulate(model, d=1000, runs=32, t_eval=np.linspace(0, 10, 11), progress=False, **asked)
    theory = solve.integrate(model.dynamics(), t_eval=simulation.t.values, **asked)
    verdict = compare(theory, simulation)
    assert verdict.passed, verdict
    assert float(verdict.summary.relative.max()) < 0.05, "too coarse: an error of 5 % would pass"
    off = theory.assign(R=theory.R[0] + 1.05 * (theory.R - theory.R[0]))
    assert compare(off, simulation).status == "FAIL"


# ── Figures ──


@pytest.fixture
def pyplot():
    plt = pytest.importorskip("matplotlib.pyplot")
    yield plt
    plt.close("all")


@pytest.mark.parametrize("d", [1000, SIZES])
def test_verdict_is_drawn(rng, d, tmp_path):
    theory = theory_of()
    verdict = compare(theory, simulation_of(theory, rng, d=d))
    figure = verdict.plot()
    figure.savefig(tmp_path / "verdict.png")
    observables = verdict.summary.observable.size
    assert len(figure.axes) == 2 * observables + (d is SIZES)
    assert [ax.get_ylabel() for ax in figure.axes[1 : 2 * observables : 2]] == ["$Q$", "$R$", r"$\epsilon_g$"]
    line = figure.axes[3].lines[0]  # R[1,1]
    np.testing.assert_array_equal(line.get_ydata(), theory.R[:, 0, 0])


def test_a_verdicts_figure_names_the_theory_and_shows_decades_of_error(rng):
    theory = theory_of(np.linspace(0, 10, 11)).assign_attrs(title="Erf learns erf", limit="high-dimensional")
    decaying = theory.assign(eg=0.4 * np.exp(-3 * theory.t))
    figure = compare(decaying, simulation_of(decaying, rng, spread=1e-3)).plot()
    assert "Erf learns erf; high-dimensional" in figure.get_suptitle()
    axes = {ax.get_ylabel(): ax for ax in figure.axes}
    assert axes[r"$\epsilon_g$"].get_yscale() == "log" and axes["$R$"].get_yscale() == "linear"
    assert axes[r"$\epsilon_g$"].get_ylim()[0] > 1e-11  # below, theory is its own error: e^-30 = 1e-13
    axes = {ax.get_ylabel(): ax for ax in compare(theory, simulation_of(theory, rng)).plot().axes}
    assert axes[r"$\epsilon_g$"].get_yscale() == "linear"  # from 0.5 to 0.1


def test_curves_that_coincide_differ_in_colour_and_dashes(rng, pyplot):
    ax = overlaps(theory_of())
    styles = [(line.get_color(), line._unscaled_dash_pattern) for line in ax.lines]
    for part in zip(*styles, strict=True):
        assert len(set(map(str, part))) == 4
    assert ax.get_legend().get_title().get_text() == "" and ax.get_legend().get_frame_on()


def test_a_failure_is_circled(rng, pyplot):
    theory = theory_of()
    wrong = theory.copy(deep=True)
    wrong["R"][7, 1, 0] += 0.2
    ax = deviations(compare(wrong, simulation_of(theory, rng)), name="R")
    assert ax.lines[-1].get_xdata().tolist() == [T[7]]
    low, high = ax.get_ylim()
    assert low < ax.lines[-1].get_ydata()[0] < high


def test_curves_are_drawn_with_symmetric_duplicates_once(rng, pyplot, tmp_path):
    theory = theory_of()
    simulation = simulation_of(theory, rng)
    ax = overlaps(theory, simulation, name="Q")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["$Q_{11}$", "$Q_{12}$", "$Q_{22}$"]
    assert ax.get_xlabel() == "$t$ = steps/$d$"
    ax.figure.savefig(tmp_path / "Q.png")
    assert [t.get_text() for t in overlaps(None, simulation).get_legend().get_texts()] == [
        "$R_{11}$", "$R_{12}$", "$R_{21}$", "$R_{22}$",
    ]  # fmt: skip
    ax = error_curve(theory, moments_of(simulation), log="xy")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    ax.figure.savefig(tmp_path / "eg.png")
    assert overlaps(theory, simulation, ax) is ax


def test_deviation_against_d_falls_as_planted(rng, pyplot, tmp_path):
    theory = theory_of()
    verdict = compare(theory, simulation_of(theory, rng, d=SIZES, spread=1e-3, shift=lambda d: 3.0 / d))
    ax = deviation_vs_d(verdict)
    d, size = ax.lines[0].get_data()
    np.testing.assert_allclose(size, 3.0 / d, rtol=0.05)
    assert all(first > second for first, second in pairwise(size))
    assert deviation_vs_d(verdict.table, ax) is ax
    ax.figure.savefig(tmp_path / "d.png")
    with pytest.raises(ValueError, match="several d"):
        deviation_vs_d(compare(theory, simulation_of(theory, rng)))


def test_matplotlib_waits_until_a_figure_is_drawn():
    code = "import sys, effdyn.validate.figures, effdyn.validate.verdict; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
