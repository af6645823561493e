"""Gradient descent on linear networks: steps, ensembles, and verdicts against every reduction."""

import itertools
import json

import numpy as np
import pytest

from effdyn import derive, solve, validate
from effdyn.validate.linear_network import DescentDiverged

TIMES = np.linspace(0, 2, 5)
STEPS = [0.02, 0.01, 0.005]


def data(rng, n=12, d=4, m=3):
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, m))
    return solve.correlations(x, y, "mean")


def weights(rng, *widths, scale=0.6):
    return {
        f"W{n + 1}": scale * rng.standard_normal((b, a)) / np.sqrt(a)
        for n, (a, b) in enumerate(itertools.pairwise(widths))
    }


def descend(network, y0, params, reduction, eta=STEPS, **options):
    return validate.simulate(
        network,
        eta=eta,
        t_span=(0, 2),
        t_eval=TIMES,
        y0=y0,
        params=params,
        reduction=reduction,
        progress=False,
        **options,
    )


def theory(network, y0, params, reduction, t):
    start, parameters = solve.reduced_inputs(network, reduction, y0, params)
    return solve.integrate(network.dynamics(reduction), (0, 2), t_eval=t, y0=start, params=parameters)


@pytest.mark.parametrize(
    ("network", "widths", "reduction"),
    [
        (derive.LinearNetwork(), (4, 6, 3), "full"),
        (derive.LinearNetwork(), (4, 6, 3), "gram"),
        (derive.LinearNetwork(), (4, 2, 3), "principal"),
        (derive.LinearNetwork(depth=3, rates="layerwise", weight_decay=True), (4, 5, 2, 3), "full"),
        (derive.LinearNetwork(rates="layerwise"), (4, 1, 1), "neuron"),
    ],
)
def test_descent_agrees_with_the_flow_in_the_limit_of_small_steps(rng, network, widths, reduction):
    params = data(rng, m=widths[-1])
    params |= {f"eta_{n}": 0.5 * n for n in range(1, network.depth + 1)} if network.rates == "layerwise" else {}
    params |= {"mu": 0.2} if network.weight_decay else {}
    y0 = weights(rng, *widths)
    simulation = descend(network, y0, params, reduction)
    flow = theory(network, y0, params, reduction, simulation.t)
    verdict = validate.compare(flow, simulation)
    assert verdict.passed, verdict
    assert verdict.summary.relative.max() < 0.01, "an error of one per cent would have been seen"
    name = str(verdict.summary.observable.values[0])
    assert not validate.compare(flow.assign({name: flow[name] * 1.01}), simulation).passed
    deviation = abs(simulation[name].isel(run=0) - flow[name]).max([d for d in flow[name].dims])
    ratio = deviation.values[:-1] / deviation.values[1:]
    assert (abs(ratio - 2) < 0.1).all(), "halving the step halves the error, to the next order in it"


def balanced(rng, depth, d=4, m=3, p=3):
    """Layers that share singular vectors and values; p = rank."""
    frames = [np.linalg.qr(rng.standard_normal((n, p)))[0] for n in (d, *[p + 1] * (depth - 1), m)]
    s = np.array([0.9, 0.5, 0.2])[:p] ** (1 / depth)
    return {f"W{n + 1}": frames[n + 1] @ np.diag(s) @ frames[n].T for n in range(depth)}


def aligned(rng, params, depth):
    left, _, right = np.linalg.svd(params["S_yx"], full_matrices=False)
    frames = [right.T, *(np.linalg.qr(rng.standard_normal((5, 3)))[0] for _ in range(depth - 1)), left]
    amplitudes = rng.uniform(0.3, 0.9, (depth, 3))
    return {f"W{n + 1}": frames[n + 1] @ np.diag(amplitudes[n]) @ frames[n].T for n in range(depth)}


@pytest.mark.parametrize(
    ("depth", "reduction"), [(2, "strengths"), (3, "chain"), (3, "modes"), (3, "end-to-end"), (2, "riccati")]
)
def test_reductions_with_hypotheses(rng, depth, reduction):
    network = derive.LinearNetwork(depth=depth, inputs="whitened")
    params = {"S_yx": rng.standard_normal((3, 4)) / 2}
    y0 = balanced(rng, depth) if reduction in ("end-to-end", "riccati") else aligned(rng, params, depth)
    simulation = descend(network, y0, params, reduction)
    flow = theory(network, y0, params, reduction, simulation.t)
    shared = [name for name in simulation.data_vars if name in flow]
    verdict = validate.compare(flow, simulation, variables=shared)
    assert verdict.passed, verdict


@pytest.mark.parametrize("reduction", ["strengths", "modes", "riccati", "end-to-end"])
def test_generic_weights_are_refused_by_name(rng, reduction):
    network = derive.LinearNetwork(inputs="whitened")
    with pytest.raises(derive.ModelError, match=r"reduction='(gram|full)' holds for any"):
        solve.reduced_inputs(network, reduction, weights(rng, 4, 5, 3), {"S_yx": rng.standard_normal((3, 4))})


def test_random_initial_weights_have_streams_of_their_own(rng):
    network, params = derive.LinearNetwork(), data(rng)

    def draw(stream):
        return weights(stream, 4, 20, 3)

    five = descend(network, draw, params, "gram", eta=0.05, runs=5)
    two = descend(network, draw, params, "gram", eta=0.05, runs=2)
    assert np.array_equal(five.S.isel(run=slice(2)), two.S)
    assert (five.S.isel(t=0).std("run") > 0).all()
    assert "y0" not in five.attrs


def test_divergence_and_bad_input(rng):
    network, params, y0 = derive.LinearNetwork(), data(rng), weights(rng, 4, 5, 3, scale=3.0)
    with pytest.raises(DescentDiverged, match="eta=1"):
        validate.simulate(network, eta=1.0, t_span=(0, 50), t_eval=[50], y0=y0, params=params, progress=False)
    with pytest.raises(derive.ModelError, match="eta"):
        descend(network, y0, params, "gram", eta=[0.1, -0.1])
    with pytest.raises(derive.ModelError, match="fits into t_span"):
        descend(network, y0, params, "gram", eta=5.0)
    with pytest.raises(derive.ModelError, match="runs"):
        descend(network, y0, params, "gram", runs=3)
    with pytest.raises(derive.ModelError, match="t_eval"):
        validate.simulate(network, eta=0.1, t_span=(0, 1), t_eval=[0, 2], y0=y0, params=params)
    with pytest.raises(derive.ModelError, match="reduction"):
        descend(network, y0, params, "grams")
    with pytest.raises(derive.ModelError, match="W2"):
        descend(network, {"W1": y0["W1"]}, params, "gram")


def test_rank_one_weights_are_not_taken_for_aligned_ones():
    """With h = 1 every mode would have the same hidden vector: the layers factor, but not in orthonormal frames."""
    network = derive.LinearNetwork(inputs="whitened")
    y0, params = {"W1": [[0.3, 0.2]], "W2": [[0.1], [0.4]]}, {"S_yx": np.diag([2.0, 1.0])}
    for reduction in ("modes", "strengths", "chain"):
        with pytest.raises(derive.ModelError, match="aligned"):
            solve.reduced_inputs(network, reduction, y0, params)


def test_narrow_networks_are_warned_of(rng):
    params = {"S_yx": np.diag([3.0, 2.0, 1.0])}
    y0 = {"W1": np.full((1, 3), 0.17), "W2": np.full((3, 1), 0.17)}
    network = derive.LinearNetwork(inputs="whitened")
    for reduction, instead in (("gram", "principal"), ("riccati", "closed_form")):
        with pytest.warns(RuntimeWarning, match=instead):
            solve.reduced_inputs(network, reduction, y0, params)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"S_xx": np.diag([1.0, -1.0, 1.0, 1.0])}, "S_xx"),
        ({"S_xx": np.diag([1.0, 1.0, 1.0, 0.0])}, "S_yx"),
        ({"S_xx": np.zeros((4, 4))}, "S_xx"),
    ],
)
def test_correlations_that_no_data_have_are_refused(rng, change, match):
    with pytest.raises(derive.ModelError, match=match):
        solve.reduced_inputs(derive.LinearNetwork(), "gram", weights(rng, 4, 5, 3), data(rng) | change)


def test_orthogonal_layers_have_no_singular_vectors_to_follow(rng):
    network = derive.LinearNetwork(inputs="whitened")
    frame = [0.3 * np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2)]
    with pytest.raises(derive.ModelError, match="singular values that differ"):
        solve.reduced_inputs(network, "end-to-end", {"W1": frame[0], "W2": frame[1]}, {"S_yx": np.eye(3)})


@pytest.mark.parametrize("depth", [1, 3, 4, 5])
def test_principal_flow_at_any_depth(rng, depth):
    network = derive.LinearNetwork(depth=depth)
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((3, 2))
    params = solve.correlations(x, y, "mean")
    y0 = weights(rng, 4, *([3] * (depth - 1)), 2)
    start, given = solve.reduced_inputs(network, "principal", y0, params)
    reduced = solve.integrate(network.dynamics("principal"), (0, 1), y0=start, params=given, t_eval=[1.0])
    full = solve.integrate(network.dynamics(), (0, 1), y0=y0, params=params, t_eval=[1.0])
    least = 0.5 * ((y - x @ np.linalg.pinv(x) @ y) ** 2).sum() / 3
    assert abs(float(full.loss[0]) - least - float(reduced.excess_loss[0])) < 1e-8


def test_a_generator_records_the_seed_that_repeats_it(rng):
    network, params = derive.LinearNetwork(), data(rng)
    first = descend(
        network, lambda stream: weights(stream, 4, 6, 3), params, "gram", eta=0.1, rng=np.random.default_rng(3)
    )
    seed = json.loads(first.attrs["seed"])
    root = np.random.SeedSequence(int(seed["entropy"]), spawn_key=tuple(seed["spawn_key"]))
    again = descend(network, lambda stream: weights(stream, 4, 6, 3), params, "gram", eta=0.1, rng=root)
    assert np.array_equal(first.S, again.S)


def test_steps_without_a_common_multiple_state_the_times_that_they_reached():
    network = derive.LinearNetwork(depth=2, inputs="whitened")
    gd = validate.simulate(
        network,
        eta=[0.1, 0.03],
        t_span=(0, 1),
        t_eval=[0.0, 0.5, 1.0],
        y0=dict(W1=[[0.3, 0.1]], W2=[[0.2]]),
        params=dict(S_yx=[[1.0, 0.5]]),
        reduction="gram",
    )
    steps = gd.t_true / gd.eta
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-12)  # a division and a product: a few ulp of 33 steps
    assert (abs(gd.t_true - gd.t) <= gd.eta / 2 + 1e-12).all()
    assert (gd.t_true.sel(eta=0.1) == gd.t).all() and (gd.t_true.sel(eta=0.03) != gd.t).sum() == 2
