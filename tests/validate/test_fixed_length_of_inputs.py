"""Students of fixed length on inputs in blocks or with a mean: equations, simulations, and the order-1/d theory."""

from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve, validate
from effdyn.solve.kernels.reference import evaluate

from .test_gram import assert_same_law

SHARE, VARIANCE = np.array([0.75, 0.25]), np.array([0.6, 1.9])


def in_blocks(rng: np.random.Generator, d: int = 12) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return overlaps of actual vectors by block, and parameters."""
    w, m, v = (rng.normal(size=(2, d)) for _ in range(3))
    cuts = [slice(0, 9), slice(9, 12)]
    names = {"Q": (w, w), "R": (w, v), "P": (w, m), "V": (m, m), "S": (m, v), "T": (v, v)}
    parts = {n: np.array([u[:, c] @ x[:, c].T / d for c in cuts]) for n, (u, x) in names.items()}
    params = dict(eta=0.8, sigma=0.2, T=parts.pop("T"), a=np.array([0.9, -1.2]), b=np.array([1.0, 0.6]))
    return parts, params | dict(input_share=SHARE, input_variance=VARIANCE, kappa=0.4, batch=3.0, mu=1.5, beta=0.6)


def at(dyn: derive.Dynamics, y: dict[str, Any], params: dict[str, Any]) -> dict[str, np.ndarray]:
    names = {q.name for q in dyn.parameters}
    given = {name: value for name, value in params.items() if name in names}
    return dict(evaluate(dyn, {q.name: y[q.name] for q in dyn.states}, given))


@pytest.mark.parametrize(
    "options",
    [
        dict(weight_decay=True),
        pytest.param(dict(momentum="slow"), marks=pytest.mark.slow),
        pytest.param(dict(momentum="fixed"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_step_is_the_free_one_projected_as_a_whole(options: dict[str, Any], rng: np.random.Generator) -> None:
    """By arrays: dΩ_g,fg = X_g,fg − ½ (X_ff/Ω_ff + X_gg/Ω_gg) Ω_g,fg with the sums over blocks in the bracket."""
    y, params = in_blocks(rng)
    model = dict(activation="linear", inputs="blocks", **options)
    free = at(derive.TeacherStudent(**model).dynamics(), y, params)
    held = at(derive.TeacherStudent(**model, constraint="spherical").dynamics(), y, params)
    shrinking = np.diag(free["Q"].sum(0)) / np.diag(y["Q"].sum(0)) / 2
    assert (abs(shrinking) > 0.01).all(), "too little to see"
    expected = free | {
        "Q": free["Q"] - (shrinking[:, None] + shrinking) * y["Q"],
        **{name: free[name] - shrinking[:, None] * y[name] for name in ("R", "P") if name in free},
    }
    assert held.keys() == expected.keys()
    for name, rate in held.items():
        np.testing.assert_allclose(rate, expected[name], rtol=0, atol=1e-11 * abs(free["Q"]).max())
    assert abs(np.diag(held["Q"].sum(0))).max() < 1e-11 < abs(held["Q"][0, 0, 0])  # parts move, lengths stay


def test_weight_decay_drops_out() -> None:
    dyn = derive.TeacherStudent(
        activation="linear", inputs="blocks", weight_decay=True, constraint="spherical"
    ).dynamics()
    assert not any(e.expr.has(derive.limits.KAPPA) for e in dyn.drift)


def test_a_length_of_zero_is_refused(rng: np.random.Generator) -> None:
    _, params = in_blocks(rng)
    model = derive.TeacherStudent(activation="linear", inputs="blocks", constraint="spherical")
    names = {q.name for q in model.dynamics().parameters}
    none = np.zeros((2, 2, 2))
    with pytest.raises(derive.ModelError, match="length 0"):
        solve.integrate(model.dynamics(), (0, 1), dict(Q=none, R=none), {n: p for n, p in params.items() if n in names})


SPLIT = SHARE[:, None, None]
ONE: dict[str, dict[str, Any]] = {
    "blocks": dict(
        y0=dict(Q=SPLIT * 0.5, R=SPLIT * 0.1),
        params=dict(T=SPLIT * 1.0, input_share=SHARE, input_variance=VARIANCE, eta=0.8, sigma=0.2, a=1.0, b=1.0),
    ),
    "shifted": dict(
        y0=dict(Q=[[0.5]], R=[[0.1]], mean=[0.3]),
        params=dict(T=[[1.0]], input_mean=0.9, teacher_mean=[-0.4], eta=0.6, sigma=0.2, a=1.0, b=1.0),
    ),
}


def test_chain_and_network_have_one_law() -> None:
    model = derive.TeacherStudent(activation="linear", inputs="blocks", constraint="spherical", batch=True)
    given = dict(y0=ONE["blocks"]["y0"], params=ONE["blocks"]["params"] | dict(batch=2.0))
    how: dict[str, Any] = dict(d=12, runs=2000, t_span=(0, 1), t_eval=[0.5, 1], align=False, progress=False)
    gram, network = (
        validate.simulate(model, engine=e, rng=n, **given, **how) for n, e in enumerate(("gram", "network"))
    )
    assert_same_law(gram, network, detectable=0.16)
    assert abs(network.Q.sum("block") - 0.5).max() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["blocks", "shifted"])
def test_chains_of_one_student(inputs: str) -> None:
    """Means and variances at d = 40 within 5 standard errors, and a next order of 2/d; the limit alone is not."""
    theory = derive.TeacherStudent(activation="linear", constraint="spherical", inputs=inputs).dynamics().fluctuations()
    runs, d, times = 12_000, 40, [0.0, 0.5, 1.0, 2.0]
    sol = solve.integrate(theory, (0, 2), t_eval=times, **ONE[inputs])
    chains = validate.simulate(
        theory.dynamics.model, d=d, runs=runs, t_span=(0, 2), t_eval=times, rng=3, engine="gram", align=False,
        progress=False, **ONE[inputs],
    )  # fmt: skip
    seen = 0.0
    for name in ONE[inputs]["y0"]:
        sample = chains[name].values.reshape(runs, 4, -1)[:, 1:]
        error = sample.std(0, ddof=1) / np.sqrt(runs)
        limit, first, variance = (
            sol[f"{name}{kind}"].values.reshape(4, -1)[1:] for kind in ("", "_mean_correction", "_variance")
        )
        deviation = sample.mean(0) - limit
        assert (np.abs(deviation - first / d) < 5 * error + 2 * np.abs(first).max() / d**2 + 1e-12).all(), name
        spread = np.sqrt(((sample - sample.mean(0)) ** 4).mean(0) / runs)
        assert (np.abs(sample.var(0, ddof=1) - variance / d) < 5 * spread + 2 * variance.max() / d**2 + 1e-12).all(), (
            name
        )
        if (error > 1e-9).all():  # a squared length stays, to rounding
            seen = max(seen, np.max(np.abs(deviation) / error))
    assert seen > 6, "the limit alone would pass"


def test_lengths_do_not_fluctuate_though_their_parts_do() -> None:
    """Sums over blocks, of the mean correction and of the covariance with anything: zero to the solver's tolerance."""
    theory = (
        derive.TeacherStudent(activation="linear", constraint="spherical", inputs="blocks").dynamics().fluctuations()
    )
    assert theory.held == () and theory.rescaled
    sol = solve.integrate(theory, (0, 1), t_eval=[1.0], **ONE["blocks"])
    assert abs(sol.Q_mean_correction.sum("block")).max() < 1e-6 < 0.01 < abs(sol.Q_mean_correction).max()
    assert abs(sol.covariance.values[0, :2].sum(0)).max() < 1e-6 < 0.001 < abs(sol.covariance.values[0, :2]).max()
