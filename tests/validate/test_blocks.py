"""Simulation on inputs in blocks: exact in law in both engines, and in agreement with the equations."""

import numpy as np
import pytest

from effdyn.derive import ModelError, TeacherStudent
from effdyn.solve import integrate
from effdyn.validate import compare, simulate
from effdyn.validate.blocks import block_dimensions, coordinates_in_blocks
from effdyn.validate.inputs import read_inputs
from effdyn.validate.observables import of_fields

MODEL = TeacherStudent(activation="erf", inputs="blocks")
SPECTRUM = dict(input_variance=[0.5, 2.0], input_share=[0.6, 0.4])
ONE = dict(
    y0=dict(Q=[[[0.2]], [[0.1]]], R=[[[0.05]], [[-0.02]]]),
    params=dict(eta=1.0, sigma=0.1, T=[[[0.6]], [[0.4]]], a=1.0, b=1.0, **SPECTRUM),
)
GRAMS = [
    np.array([[0.5, 0.1, 0.1], [0.1, 0.3, 0.0], [0.1, 0.0, 0.4]]),
    np.array([[0.2, 0, 0.1], [0, 0.4, 0.1], [0.1, 0.1, 0.6]]),
]
TWO = dict(
    y0=dict(Q=[g[:2, :2] for g in GRAMS], R=[g[:2, 2:] for g in GRAMS]),
    params=dict(eta=0.8, sigma=0.2, T=[g[2:, 2:] for g in GRAMS], a=[1.0, -0.7], b=1.0, **SPECTRUM),
)


def test_blocks_share_all_directions():
    assert block_dimensions(np.array([0.6, 0.4]), 10).tolist() == [6, 4]
    for d in range(1, 40):
        sizes = block_dimensions(np.array([0.15, 0.5, 0.35]), d)
        assert sizes.sum() == d and (abs(sizes - d * np.array([0.15, 0.5, 0.35])) < 1).all()


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_weights_have_the_overlaps_of_each_block(engine):
    mc = simulate(MODEL, d=20, runs=2, t_span=(0, 0.1), t_eval=[0, 0.1], engine=engine, progress=False, **TWO)
    for run in (0, 1):
        # sums of 20 products of normal numbers: a few ulp of order one
        np.testing.assert_allclose(mc.Q.values[run, 0], TWO["y0"]["Q"], atol=1e-14)
        np.testing.assert_allclose(mc.R.values[run, 0], TWO["y0"]["R"], atol=1e-14)
    assert mc.Q.dims == ("run", "t", "block", "student", "student_2")
    assert abs(mc.R.values[0, 1] - mc.R.values[1, 1]).max() > 1e-3


def test_observables_are_those_of_the_summed_covariance():
    """Two units whose parts lie in blocks of different variance: eg and cosines by hand, for a linear network."""
    model = TeacherStudent(activation="linear", inputs="blocks")
    mc = simulate(model, d=50, runs=1, t_span=(0, 0.0), t_eval=[0.0], progress=False, **ONE)
    lam, T = np.array([0.5, 2.0]), np.array([0.6, 0.4])
    Q, R = np.array([0.2, 0.1]), np.array([0.05, -0.02])
    np.testing.assert_allclose(mc.eg.values.ravel(), 0.5 * lam @ (T - 2 * R + Q), rtol=1e-12)
    np.testing.assert_allclose(mc.cosine.values.ravel(), R.sum() / np.sqrt(Q.sum() * T.sum()), rtol=1e-12)


@pytest.mark.parametrize("d", [pytest.param(9, id="frames-fill-a-block"), pytest.param(30, id="open-frames")])
def test_both_engines_have_one_law(d):
    """Means and standard deviations at d so small that a block has hardly more directions than there are vectors."""
    model = TeacherStudent(activation="erf", inputs="blocks", batch=True, momentum="fixed")
    params = TWO["params"] | dict(batch=2.0, beta=0.5)
    runs = 3000
    samples = [
        simulate(model, d=d, runs=runs, t_span=(0, 1), t_eval=[1.0], y0=TWO["y0"], params=params, engine=engine,
                 align=False, progress=False, rng=seed)
        for seed, engine in enumerate(("gram", "network"))
    ]  # fmt: skip
    for name in ("Q", "R"):
        one, two = (s[name].isel(t=-1).values.reshape(runs, -1) for s in samples)
        for power in (1, 2):  # 24 comparisons in all (Q counted twice), each below 5 standard errors: one in 7e4 fails
            x, y = ((v - one.mean(0)) ** power if power == 2 else v for v in (one, two))
            error = np.sqrt((x.var(0) + y.var(0)) / runs)
            assert (abs(x.mean(0) - y.mean(0)) < 5 * error).all()
        # an error of a tenth of the standard deviation, as from a frame one direction short, would be seen
        assert 5 * np.sqrt(2 / runs) < 0.14


@pytest.mark.parametrize(("engine", "d", "runs"), [("gram", 1000, 48), ("network", 300, 24)])
def test_simulation_agrees_with_the_equations(engine, d, runs):
    sol = integrate(MODEL.dynamics(), (0, 3), t_eval=np.linspace(0, 3, 4), **ONE)
    mc = simulate(MODEL, d=d, runs=runs, t_span=(0, 3), t_eval=sol.t, engine=engine, progress=False, **ONE)
    verdict = compare(sol, mc)
    assert verdict.passed, verdict
    wrong = ONE["params"] | dict(input_share=[0.4, 0.6])  # what 24 runs must be able to tell
    other = integrate(MODEL.dynamics(), (0, 3), t_eval=sol.t, y0=ONE["y0"], params=wrong)
    other.attrs = sol.attrs
    assert not compare(other, mc).passed


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1.0, 4.0])
@pytest.mark.parametrize("engine", ["gram", "network"])
def test_blocks_agree_at_large_d(engine, batch):
    """λ = ½, 2 on 0.6, 0.4 of 2000 directions, erf, K = M = 1, to t = 5."""
    model = TeacherStudent(activation="erf", inputs="blocks", batch=True)
    params = ONE["params"] | dict(batch=batch)
    sol = integrate(model.dynamics(), (0, 5), t_eval=np.linspace(0, 5, 6), y0=ONE["y0"], params=params)
    runs = 64 if engine == "gram" else 12
    mc = simulate(model, d=2000, runs=runs, t_span=(0, 5), t_eval=sol.t, y0=ONE["y0"], params=params, engine=engine)
    verdict = compare(sol, mc)
    assert verdict.passed, verdict


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(activation="relu", second_layer="trained"),
        dict(momentum="slow"),
        dict(biases=True, weight_decay=True),
        dict(activation="linear", labels="sign", loss="logistic"),
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_agrees(options):
    model = TeacherStudent(**{"activation": "erf", **options}, inputs="blocks")
    dyn = model.dynamics()
    known = TWO["params"] | dict(eta_a=0.5, eta_bias=0.5, teacher_bias=0.3, kappa=0.2, mu=1.5, flip=0.1)
    states = TWO["y0"] | dict(
        a=[1.0, -0.7], bias=0.1, P=np.zeros((2, 2, 2)), V=np.zeros((2, 2, 2)), S=np.zeros((2, 2, 1))
    )
    y0 = {q.name: states[q.name] for q in dyn.states}
    params = {q.name: known[q.name] for q in dyn.parameters}
    sol = integrate(dyn, (0, 3), t_eval=np.linspace(0, 3, 4), y0=y0, params=params)
    mc = simulate(model, d=1500, runs=48, t_span=(0, 3), t_eval=sol.t, y0=y0, params=params, align=False)
    verdict = compare(sol, mc)
    assert verdict.passed, verdict


def test_students_that_start_alike_are_matched():
    """Two students that are exchanged between runs: matched in all blocks by one permutation."""
    same = dict(Q=[np.eye(2) * 0.3, np.eye(2) * 0.2], R=[np.zeros((2, 2)), np.zeros((2, 2))])
    params = dict(eta=1.0, sigma=0.0, T=[np.eye(2) * 0.5] * 2, a=1.0, b=1.0, **SPECTRUM)
    mc = simulate(
        MODEL, d=60, runs=6, t_span=(0, 40), t_eval=[0, 40], y0=same, params=params, align=True, progress=False
    )
    R = mc.R.isel(t=-1).values.sum(axis=1)
    assert len({tuple(r.argmax(axis=1)) for r in R}) == 1


def test_the_same_numbers_for_any_number_of_threads():
    kept = dict(d=40, runs=4, t_span=(0, 2), t_eval=[0, 1, 2], progress=False, rng=3)
    one, two = (simulate(MODEL, threads=threads, **kept, **TWO) for threads in (1, 2))
    np.testing.assert_array_equal(one.Q, two.Q)


def test_mistakes_are_named():
    def refused(match, **changed):
        with pytest.raises(ModelError, match=match):
            simulate(MODEL, **(dict(d=40, runs=1, t_span=(0, 1), progress=False) | ONE | changed))

    refused("inputs.*the model states its inputs itself", inputs="rademacher", engine="network")
    refused(r"d = 2, of which block \d has \d directions.*rank", d=2)
    refused("add up to 1", params=ONE["params"] | dict(input_share=[0.6, 0.3]))


def test_fields_and_vectors_have_overlaps_of_their_own():
    given = read_inputs(MODEL, ONE["y0"], ONE["params"])
    inputs, state = of_fields(given, {"Q": given.Q, "R": given.R})
    assert inputs.T.item() == pytest.approx(0.5 * 0.6 + 2 * 0.4) and state["Q"].item() == pytest.approx(0.3)
    assert [part.rank for part in coordinates_in_blocks(given)] == [2, 2]
