"""The error of a diffusion matrix, where lengths are held and where nothing is."""

import numpy as np
import pytest

from effdyn import derive, solve
from effdyn.solve.fluctuations.error import relative_spread


def diffusions(deviations: list[float], errors: list[float]) -> list[np.ndarray]:
    """Return D = s sᵀ at one time from deviations s, and the same with its deviations changed by relative errors."""
    exact, other = np.array(deviations), np.array(deviations) * (1 + np.array(errors))
    return [np.outer(s, s)[None] for s in (exact, other)]


def test_rounding_of_a_held_length_does_not_count() -> None:
    """A deviation of 1e-17, wrong by half, is left out; those that count give twice their distance over the larger."""
    found = relative_spread(diffusions([1e-17, 0.3, 0.2], [0.5, 0.0, 1e-3]))
    assert found == pytest.approx(2 * (1 - 1.001**-2), rel=1e-9)


def test_small_deviations_count() -> None:
    """One of 1e-9 of the largest is no rounding: its error shows."""
    assert relative_spread(diffusions([3e-10, 0.3], [0.1, 0.0])) == pytest.approx(2 * (1 - 1.1**-2), rel=1e-9)


def test_nothing_fluctuates() -> None:
    """At a fixed point without noise D is zero by all rules, exactly."""
    assert relative_spread([np.zeros((1, 2, 2))] * 2) == 0.0


@pytest.mark.slow
def test_vectors_of_fixed_length_have_the_error_of_their_rule() -> None:
    """The rule over up to five fields is good to 1e-3; over the rounding of Q_ii it was 0.2."""
    theory = derive.TeacherStudent(activation="tanh", constraint="spherical").dynamics().fluctuations()
    params = dict(eta=0.5, sigma=0.1, T=np.eye(2), a=[1.0, 1.0], b=[1.0, 1.0])
    y0 = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.1, 0.2], [0.05, 0.1]])
    sol = solve.integrate(theory, (0, 1), y0=y0, params=params, t_eval=[0.5, 1])
    assert 0 < sol.attrs["diffusion_rule_error"] < 1e-3
