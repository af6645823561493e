"""Losses whose gradient is no product of functions of one field each, with fields on which they do not depend.

Chains at d = 60 against the theory to order 1/d: each mean within 5 standard errors (up to 20 comparisons, chance 1e-5)
and 3/d² (what is left, relative to states of order one), each variance within 5 √(2/runs) and 3/d of itself.
"""

from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve, validate

D = 60
VALUES: dict[str, Any] = dict(
    Q=[[0.5]], R=[[0.15]], T=[[1.0]], P=[[0.0]], V=[[0.0]], S=[[0.0]], mean=[0.2], buffer_mean=[0.0]
)
VALUES |= dict(eta=1.0, sigma=0.7, a=1.0, b=1.2, flip=0.1, mu=1.5, input_mean=0.8, teacher_mean=[0.3])
VALUES |= dict(input_variance=[0.6, 1.4], input_share=[0.5, 0.5])
CASES: dict[str, dict[str, Any]] = {
    "huber blocks": dict(loss="huber", inputs="blocks"),
    "hinge mean": dict(loss="hinge", labels="sign", inputs="shifted"),
    "huber slow": dict(loss="huber", momentum="slow"),
}


@pytest.mark.filterwarnings("ignore:the rates of fluctuations have relative errors")  # 0.04 of m between kinks
@pytest.mark.parametrize(
    ("case", "runs"),
    [("huber blocks", 1000), *(pytest.param(case, 20_000, marks=pytest.mark.slow) for case in CASES)],
)
def test_chains_are_distributed_as_the_theory_says(case: str, runs: int) -> None:
    model = derive.TeacherStudent(activation="erf", **CASES[case])
    dynamics = model.dynamics()
    known = dict(VALUES)
    if "blocks" in case:
        known |= {name: 0.5 * np.array([VALUES[name]] * 2) for name in ("Q", "R", "T")}
    call: dict[str, Any] = dict(
        y0={q.name: known[q.name] for q in dynamics.states}, params={q.name: known[q.name] for q in dynamics.parameters}
    )
    theory = solve.integrate(dynamics.fluctuations(), (0, 2), t_eval=[1, 2], **call)
    chains = validate.simulate(model, d=D, runs=runs, t_span=(0, 2), t_eval=[1, 2], rng=4, engine="gram", **call)
    for q in dynamics.states:
        sample = chains[q.name].values
        mean = (theory[q.name] + theory[f"{q.name}_mean_correction"] / D).values
        variance = theory[f"{q.name}_variance"].values / D
        error = 5 * np.sqrt(variance / runs) + 3 / D**2
        assert (np.abs(sample.mean(0) - mean) < error).all(), q.name
        spread = 5 * np.sqrt(2 / runs) + 3 / D
        assert (np.abs(sample.var(0, ddof=1) / variance - 1) < spread).all(), q.name
