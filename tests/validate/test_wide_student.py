"""Wide students compared with exact chains: equal at any η/K, and 1/K from the mean field, which the notes say."""

import numpy as np
import pytest

from effdyn import solve, validate
from effdyn.derive import ModelError, TeacherStudent
from effdyn.derive.limits import WIDE_CLOCK
from effdyn.validate.comparable import _as_scaled

MODEL = TeacherStudent(activation="erf", output_scale="1/K")
T = np.array([[1.0, 0.3], [0.3, 1.2]])


@pytest.fixture(scope="module")
def runs():
    """Exact chains of eight neurons at η/K = 1/8, with their start and parameters."""
    rng = np.random.default_rng(5)
    R, across = 0.4 * rng.normal(size=(8, 2)), 0.3 + 0.3 * rng.random(8)
    y0 = {"R": R, "Q": R @ np.linalg.inv(T) @ R.T + np.diag(across)}
    params = {"T": T, "a": 1.0, "b": [1.0, -0.5], "sigma": 0.3}
    times = np.linspace(0, 3, 4)
    chains = validate.simulate(
        MODEL, 500, 48, (0, 3), y0=y0, params=params | {"eta": 1.0}, t_eval=times, clock=WIDE_CLOCK, progress=False
    )
    return chains, y0, params, across


def test_chains_agree_at_any_width(runs):
    chains, y0, params, _ = runs
    theory = solve.integrate(MODEL.dynamics("wide"), (0, 3), y0, params | {"eta": 1.0}, t_eval=chains.t)
    verdict = validate.compare(theory, chains, variables=["R", "eg"])
    assert verdict.passed, verdict


def test_mean_field_is_off_by_what_its_notes_say(runs):
    """The verdict fails, at 1/K = 1/8 and η/K = 1/8, and says what theory leaves out; Q⊥ of chains is compared too."""
    chains, y0, params, across = runs
    start = {"R": y0["R"], "Q_perp": across}
    theory = solve.integrate(MODEL.dynamics("mean-field"), (0, 3), start, params, t_eval=chains.t)
    measured = solve.perpendicular(chains.Q.values, chains.R.values, T)
    alone = chains.assign(Q_perp=(("run", "t", "student"), np.einsum("...ii->...i", measured)))
    verdict = validate.compare(theory, alone, variables=["Q_perp", "R", "eg"])
    assert verdict.status == "FAIL"
    notes = " ".join(verdict.notes)
    assert "order eta/K" in notes and "has eta/K=0.125" in notes and "has 1/K=0.125" in notes
    off = abs(alone.mean("run") - theory)[["Q_perp", "R", "eg"]].max()
    assert max(float(off[name]) for name in ("Q_perp", "R", "eg")) < 0.125 + 0.125  # of order 1/K + η/K all the same


def test_clocks_and_parameters(runs):
    from effdyn.derive.limits import LIMITS

    given = {"eta": 2.0, "eta_a": 1.0, "kappa": 0.5, "sigma": 0.1}
    scaled = {"eta_a_over_eta": 0.5, "kappa_over_eta": 0.25, "sigma": 0.1}
    assert _as_scaled(LIMITS["mean-field"], given) == scaled == _as_scaled(LIMITS["gradient-flow"], given)
    assert _as_scaled(LIMITS["wide"], given) == given
    with pytest.raises(ModelError, match="positive learning rate"):
        _, y0, params, _ = runs
        validate.simulate(MODEL, 100, 1, (0, 1), y0=y0, params=params | {"eta": 0.0}, clock=WIDE_CLOCK)
