"""Simulation with schedules and with students of fixed length: step by step as written in NumPy, chain and network of
one law, and as the derived equations say."""

import numpy as np
import pytest

from effdyn import solve
from effdyn.derive import ModelError, TeacherStudent
from effdyn.validate.batches import BatchNetwork, compile_steps
from effdyn.validate.compare import compare
from effdyn.validate.initial import coordinates
from effdyn.validate.inputs import read_inputs
from effdyn.validate.network import Network, compile_network
from effdyn.validate.simulate import simulate

from .test_gram import assert_same_law

OVERLAPS = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]])
REST = {name: np.zeros((2, 2)) for name in ("P", "V", "S")}
PARAMS = dict(eta=1.0, sigma=0.3, T=[[1.2, 0.2], [0.2, 1.2]], a=[0.8, 1.1], b=1.0)
SCHEDULE = "1/(1 + t/tau)"
SLOWING = TeacherStudent(schedule=SCHEDULE), dict(tau=1.5), {}
SPHERE = TeacherStudent(constraint="spherical"), {}, {}
BATCHES = (
    TeacherStudent(schedule=SCHEDULE, constraint="spherical", batch=True, weight_decay=True),
    dict(tau=1.5, batch=3, kappa=0.5),
    {},
)
HEAVY = TeacherStudent(constraint="spherical", momentum="fixed"), dict(beta=0.5, eta=0.4), {}
SLOW = TeacherStudent(constraint="spherical", momentum="slow", schedule=SCHEDULE), dict(mu=1.5, tau=2.0), REST
CASES = [SLOWING, SPHERE, BATCHES, HEAVY, SLOW]


def run(model, params, y0, engine="gram", **how):
    given = dict(y0=OVERLAPS | y0, params=PARAMS | params, engine=engine, align=False, progress=False)
    return simulate(model, **given, **how)


@pytest.mark.parametrize(
    ("batch", "Replica", "compiled"), [(0, Network, compile_network), (2, BatchNetwork, compile_steps)]
)
def test_steps_are_the_update_rule_written_in_numpy(batch, Replica, compiled):
    """Each at the rate of its own time, however steps are cut into blocks; rescaled last."""
    model = TeacherStudent("linear", schedule=SCHEDULE, constraint="spherical", weight_decay=True, batch=batch > 0)
    params = PARAMS | dict(tau=0.7, kappa=0.5, sigma=0.0) | ({"batch": batch} if batch else {})
    given, d, start = read_inputs(model, OVERLAPS, params), 6, 2.0
    given = type(given)(**{name: getattr(given, name) for name in given.__slots__} | {"origin": start})
    replica = Replica(compiled(model), given, coordinates(given), d, "exact", np.random.SeedSequence(3))
    W = (replica.student if not batch else replica.rows).copy()
    V, lengths, drawn = replica.teacher, np.linalg.norm(W, axis=1), []
    draw = replica.draw

    def kept(steps):
        drawn.append(draw(steps).copy())
        return drawn[-1]

    replica.draw = kept
    for steps in (3, 1, 5):
        for _ in range(steps if batch else 1):  # a block of batches may be of one step
            assert replica.advance(1 if batch else steps) == (1 if batch else steps)
    for n, x in enumerate(np.concatenate(drawn).reshape(9, max(batch, 1), d)):
        rate = 1.0 / d / (1 + (start + n / d) / 0.7)
        error = x @ V.T @ given.b - x @ W.T @ given.a
        W = (1 - 0.5 / d) * W + rate * np.mean(
            [np.outer(given.a * e, z) for e, z in zip(error, x, strict=True)], axis=0
        )
        W *= (lengths / np.linalg.norm(W, axis=1))[:, None]
    np.testing.assert_allclose(replica.student if not batch else replica.rows, W, rtol=0, atol=1e-13)


# 5 √(2/2000) = 0.158: a mean that is off by 16 % of the run-to-run spread fails. d = 4: the weights fill R^d.
@pytest.mark.parametrize(
    ("model", "params", "y0", "d"),
    [
        (*SPHERE, 4),
        (*BATCHES, 4),
        (*SLOW, 12),
        *(pytest.param(*case, d, marks=pytest.mark.slow) for case in CASES for d in (4, 12)),
    ],
)
def test_chain_and_network_have_one_law(model, params, y0, d):
    how = dict(d=d, runs=2000, t_span=(0, 1), t_eval=[0.5, 1])
    gram, network = (run(model, params, y0, engine, rng=n, **how) for n, engine in enumerate(("gram", "network")))
    if model.constraint:  # what does not fluctuate but by rounding has no law to compare
        for one in (gram, network):
            lengths = np.einsum("rtii->rti", one.Q.values)
            assert abs(lengths - [0.5, 0.6]).max() < 1e-12
    assert_same_law(gram, network, detectable=0.16)


@pytest.mark.parametrize(
    ("model", "params", "y0"),
    [SLOWING, SPHERE, *(pytest.param(*case, marks=pytest.mark.slow) for case in (BATCHES, HEAVY, SLOW))],
)
def test_derived_equations_describe_the_simulation(model, params, y0):
    given = dict(y0=OVERLAPS | y0, params=PARAMS | params)
    theory = solve.integrate(model.dynamics(), t_span=(3, 5), t_eval=[3.5, 5], **given)
    sample = run(model, params, y0, d=2000, runs=64, t_span=(3, 5), t_eval=[3.5, 5])
    for name in given["y0"]:
        error = 5 * sample[name].std("run", ddof=1) / 8 + 8 / 2000  # and a bias of a few 1/d
        assert (error < 0.03).all(), "too coarse: terms are of order one, and one that is 3 % off would pass"
        assert (abs(sample[name].mean("run") - theory[name].values) < error).all(), name
    if model.schedule is not None:  # clocks that start at 0 instead would be seen
        other = solve.integrate(model.dynamics(), t_span=(0, 2), t_eval=[2], **given)
        assert abs(other.R - theory.R.isel(t=-1).values).max() > 0.03
    assert compare(theory, sample).status != "FAIL"


def test_gradient_flow_and_its_simulation_have_one_clock():
    model, y0 = TeacherStudent(schedule=SCHEDULE), OVERLAPS
    params = PARAMS | dict(eta=0.02, tau=1.5)
    theory = model.dynamics("gradient-flow")
    names = {q.name for q in theory.parameters}
    theory = solve.integrate(theory, (1, 3), y0, {n: v for n, v in params.items() if n in names}, t_eval=[2, 3])
    sample = run(model, params, {}, d=200, runs=16, t_span=(1, 3), t_eval=[2, 3], clock="eta*steps/d")
    error = 5 * sample.R.std("run", ddof=1) / 4 + 0.02 + 8 / 200 * 0.02  # the order η that the flow drops, of size one
    assert (error < 0.05).all()
    assert (abs(sample.R.mean("run") - theory.R.values) < error).all()
    start = solve.integrate(TeacherStudent().dynamics("gradient-flow"), (1, 3), y0, _flow(params), t_eval=[3])
    assert abs(start.R - theory.R.isel(t=-1).values).max() > 0.1, "too weak a schedule to see"


def _flow(params):
    return {name: value for name, value in params.items() if name not in ("eta", "tau")}


@pytest.mark.slow
def test_finite_size_theory_of_a_schedule():
    """Mean and variance of exact chains at d = 40 against ω + m/d and C/d."""
    model = TeacherStudent(schedule=SCHEDULE)
    given = dict(y0=dict(Q=[[0.3]], R=[[0.1]]), params=PARAMS | dict(T=[[1.0]], a=1.0, tau=2.0))
    d, runs = 40, 200_000
    theory = solve.integrate(model.dynamics().fluctuations(), (0, 4), t_eval=[1, 4], **given)
    sample = simulate(model, d=d, runs=runs, t_span=(0, 4), t_eval=[1, 4], store="moments", progress=False, **given)
    for name in ("Q", "R"):
        mean = theory[name] + theory[f"{name}_mean_correction"] / d
        error = 5 * sample[f"{name}_std"] / np.sqrt(runs) + 2 / d**2  # and the next order
        assert (abs(sample[name].values - mean) < error.values).all()
        assert (abs(theory[name] - mean) > 5 * sample[f"{name}_std"].values / np.sqrt(runs)).any(), "nothing to see"
        variance = theory[f"{name}_variance"].values / d
        assert (abs(sample[f"{name}_std"].values ** 2 / variance - 1) < 5 * np.sqrt(2 / runs) + 4 / d).all()


def test_a_student_of_length_zero_is_refused():
    with pytest.raises(ModelError, match=r"y0\['Q'\].*length 0"):
        simulate(
            SPHERE[0],
            d=10,
            runs=1,
            t_span=(0, 1),
            y0=dict(Q=[[0.0]], R=[[0.0]]),
            params=PARAMS | {"a": 1.0, "T": [[1.0]]},
        )


def test_rates_below_zero_are_refused_with_their_time():
    with pytest.raises(ModelError, match=r"t_span.*at t = .*, tau = 1.5 it is"):
        run(TeacherStudent(schedule="1 - t/tau"), dict(tau=1.5), {}, d=10, runs=1, t_span=(0, 2))
