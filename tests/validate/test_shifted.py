"""Simulation on inputs with a mean: exact in law in both engines, and in agreement with the equations."""

import numpy as np
import pytest

from effdyn.derive import ModelError, TeacherStudent
from effdyn.solve import integrate
from effdyn.validate import compare, simulate

START = dict(Q=[[0.4, 0.1], [0.1, 0.3]], R=[[0.1], [-0.05]], mean=[0.3, 0.2])
PARAMS = dict(eta=0.7, sigma=0.1, T=[[1.0]], a=[1.0, -0.6], b=1.0, input_mean=1.2, teacher_mean=[-0.5])


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_weights_have_overlaps_and_means(engine):
    model = TeacherStudent(activation="erf", inputs="shifted")
    mc = simulate(
        model, d=20, runs=2, t_span=(0, 0), t_eval=[0], y0=START, params=PARAMS, engine=engine, progress=False
    )
    for name, expected in START.items():
        # sums of 20 products of numbers of order one
        np.testing.assert_allclose(mc[name].values[:, 0], [expected] * 2, atol=1e-14)


def test_observables_count_the_means():
    """E[½(y* − φ)²] of a linear network: ½ (Var + mean²) of the difference, by hand."""
    model = TeacherStudent(activation="linear", inputs="shifted")
    mc = simulate(model, d=20, runs=1, t_span=(0, 0), t_eval=[0], y0=START, params=PARAMS, progress=False)
    a = np.array([1.0, -0.6])
    variance = 1 - 2 * a @ np.array(START["R"])[:, 0] + a @ np.array(START["Q"]) @ a
    np.testing.assert_allclose(mc.eg.item(), (variance + (-0.5 - a @ START["mean"]) ** 2) / 2, rtol=1e-12)


@pytest.mark.parametrize("d", [4, 20])
def test_both_engines_have_one_law(d):
    """At d = 4, the number of vectors, the mean of the inputs among them, the frame fills the whole space."""
    model = TeacherStudent(activation="erf", inputs="shifted", batch=True)
    runs = 3000
    samples = [
        simulate(model, d=d, runs=runs, t_span=(0, 1), t_eval=[1.0], y0=START, params=PARAMS | dict(batch=2.0),
                 engine=engine, align=False, progress=False, rng=seed)
        for seed, engine in enumerate(("gram", "network"))
    ]  # fmt: skip
    for name in START:
        one, two = (s[name].isel(t=-1).values.reshape(runs, -1) for s in samples)
        for power in (1, 2):  # 16 comparisons, each below 5 standard errors: one in 1e5 fails
            x, y = ((v - one.mean(0)) ** power if power == 2 else v for v in (one, two))
            error = np.sqrt((x.var(0) + y.var(0)) / runs)
            assert (abs(x.mean(0) - y.mean(0)) < 5 * error).all(), name


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("gram", dict(activation="linear")),
        ("network", dict(activation="linear")),
        pytest.param("gram", dict(activation="erf"), marks=pytest.mark.slow),
        pytest.param("network", dict(activation="erf"), marks=pytest.mark.slow),
        pytest.param("gram", dict(activation="erf", biases=True, second_layer="trained"), marks=pytest.mark.slow),
        pytest.param("gram", dict(activation="relu"), marks=pytest.mark.slow),
        pytest.param("gram", dict(activation="linear", labels="sign", loss="logistic"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_simulation_agrees_with_the_equations(engine, options):
    model = TeacherStudent(**options, inputs="shifted")
    dyn = model.dynamics()
    known = START | PARAMS | dict(eta_a=0.5, eta_bias=0.5, teacher_bias=0.2, bias=0.1, flip=0.1)
    y0, params = ({q.name: known[q.name] for q in side} for side in (dyn.states, dyn.parameters))
    sol = integrate(dyn, (0, 3), t_eval=np.linspace(0, 3, 4), y0=y0, params=params)
    d, runs = (1000, 48) if engine == "gram" else (300, 24)
    mc = simulate(model, d=d, runs=runs, t_span=(0, 3), t_eval=sol.t, y0=y0, params=params, engine=engine, align=False)
    verdict = compare(sol, mc)
    assert verdict.status != "FAIL", verdict
    worst = abs(mc["mean"].mean("run") - sol["mean"]).max()
    moved = abs(sol["mean"] - sol["mean"].isel(t=0)).max()
    assert worst < 0.1 * moved, "too coarse: an equation of the mean without ν² E[F] would pass"


def test_mistakes_are_named():
    model = TeacherStudent(activation="erf", inputs="shifted")

    def refused(match, params=PARAMS, **changed):
        with pytest.raises(ModelError, match=match):
            simulate(model, d=40, runs=1, t_span=(0, 1), y0=START, params=params, progress=False, **changed)

    refused("the model states its inputs itself", inputs="uniform", engine="network")
    refused(r"params\['teacher_mean'\]", params=PARAMS | dict(input_mean=0.4))
