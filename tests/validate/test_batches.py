"""Simulation with mini-batches and momentum: chain and network have one law, and the derived equations."""

import numpy as np
import pytest

from effdyn import solve
from effdyn.derive import ModelError, TeacherStudent
from effdyn.validate.batches import make_triangular
from effdyn.validate.compare import compare
from effdyn.validate.simulate import simulate

from .test_gram import GOLDT, START, assert_same_law
from .test_gram import PARAMS as GOLDT_PARAMS

PARAMS = dict(sigma=0.2, T=[[1.2, 0.2], [0.2, 1.2]], a=[0.8, 1.1], b=1.0)
OVERLAPS = {name: START[name] for name in ("Q", "R")}
BUFFERS = {name: np.zeros((2, 2)) for name in ("P", "V", "S")}
BOTH = TeacherStudent(second_layer="trained", weight_decay=True, batch=True)
FIXED = TeacherStudent(momentum="fixed", batch=True), dict(eta=0.3, beta=0.7, batch=2), {}
SLOW = TeacherStudent(momentum="slow"), dict(eta=1.0, mu=1.5), BUFFERS


def run(model, params, y0, engine, **how):
    return simulate(model, y0=y0, params=params, engine=engine, align=False, progress=False, **how)


# 5 √(2/2000) = 0.158: a mean that is off by 16 % of the run-to-run spread fails.
@pytest.mark.parametrize("d", [4, 7, 20])  # the weights fill R^d; a batch does; neither
def test_batches_chain_and_network_have_one_law(d):
    params = GOLDT_PARAMS | {"batch": 5}
    how = dict(d=d, runs=2000, t_span=(0, 1), t_eval=[0, 0.5, 1])
    gram, network = (run(BOTH, params, START, e, rng=n, **how) for n, e in enumerate(("gram", "network")))
    assert_same_law(gram, network, detectable=0.16)


@pytest.mark.parametrize(("model", "rates", "buffers"), [FIXED, SLOW])
def test_momentum_chain_and_network_have_one_law(model, rates, buffers):
    how = dict(d=10, runs=2000, t_span=(0, 1), t_eval=[0.5, 1])
    y0, params = OVERLAPS | buffers, PARAMS | rates
    gram, network = (run(model, params, y0, e, rng=n, **how) for n, e in enumerate(("gram", "network")))
    assert_same_law(gram, network, detectable=0.16)


def test_batches_of_one_have_the_law_of_plain_sgd():
    how = dict(d=20, runs=2000, t_span=(0, 1), t_eval=[1])
    one = run(BOTH, GOLDT_PARAMS | {"batch": 1}, START, "gram", rng=0, **how)
    assert_same_law(one, run(GOLDT, GOLDT_PARAMS, START, "gram", rng=1, **how), detectable=0.16)


@pytest.mark.parametrize(("model", "rates", "buffers"), [FIXED, SLOW])
def test_derived_equations_describe_the_simulation(model, rates, buffers):
    y0, params = OVERLAPS | buffers, PARAMS | rates
    theory = solve.integrate(model.dynamics(), t_span=(0, 2), t_eval=[0.5, 2], y0=y0, params=params)
    sample = run(model, params, y0, "gram", d=1000, runs=64, t_span=(0, 2), t_eval=[0.5, 2])
    for name in y0:
        error = 5 * sample[name].std("run", ddof=1) / 8 + 8 / 1000  # and a bias of a few 1/d
        assert (error < 0.06).all(), "too coarse: terms are of order one, and one that is 6 % off would pass"
        assert (abs(sample[name].mean("run") - theory[name].values) < error).all(), name
    assert compare(theory, sample).status != "FAIL"


def test_turning_the_frame_keeps_the_overlaps(rng):
    rows = rng.normal(size=(3, 9))
    rows[1] = 0.0
    before = rows @ rows.T
    make_triangular(rows, 2)
    np.testing.assert_allclose(rows @ rows.T, before, rtol=0, atol=1e-14)
    assert (rows[:, 2:][np.triu_indices(3, 1, 7)] == 0).all()


@pytest.mark.parametrize("batch", [0.5, 2.5])
def test_a_batch_is_a_whole_number(batch):
    with pytest.raises(ModelError, match="batch"):
        run(BOTH, GOLDT_PARAMS | {"batch": batch}, START, "gram", d=10, runs=1, t_span=(0, 1))


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_weight_decay_leaves_a_fixed_second_layer_alone(engine):
    """Without a learning rate the first layer shrinks by 1 − κ/d a step; eg of a linear network says by how much."""
    model = TeacherStudent(activation="linear", weight_decay=True, batch=True)
    params = dict(eta=0.0, sigma=0.0, kappa=0.5, T=[[1.0]], a=2.0, b=1.0, batch=2)
    start = dict(Q=[[0.3]], R=[[0.1]])
    mc = simulate(model, d=20, runs=1, t_span=(0, 1), t_eval=[1.0], y0=start, params=params, engine=engine)
    kept = (1 - 0.5 / 20) ** 20
    assert mc.eg.item() == pytest.approx((1 - 2 * 2 * 0.1 * kept + 4 * 0.3 * kept**2) / 2, rel=1e-12)
