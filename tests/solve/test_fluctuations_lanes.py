"""Derivatives of small systems in lanes, against the symbolic tangent; and what is done where there are none."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effdyn import derive, solve
from effdyn.derive.tangent import tangent
from effdyn.solve import fluctuations
from effdyn.solve.fluctuations_lanes import LANES, derivatives_address, derivatives_source
from effdyn.solve.fluctuations_rhs import rhs_function
from effdyn.solve.integrators.trajectory import compute_trajectory
from effdyn.solve.kernels.kernel import kernel, loops_source
from effdyn.solve.kernels.layout import Inputs, pack, parameter_vector, read_inputs

CALL = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)
LINEAR = derive.TeacherStudent(activation="linear")


def committee(K: int, M: int) -> dict[str, Any]:
    rng = np.random.default_rng(K)
    v = rng.standard_normal((K + M, 12)) / np.sqrt(12)
    gram = v @ v.T
    params = dict(eta=0.6, sigma=0.3, T=gram[K:, K:], a=rng.uniform(0.5, 1.5, K), b=rng.uniform(0.5, 1.5, M))
    return dict(y0=dict(Q=gram[:K, :K], R=gram[:K, K:]), params=params)


def rates(system: Any, y: np.ndarray) -> np.ndarray:
    out, par, work = np.empty_like(y), system.parameters(), np.zeros(system.n_work)
    rhs_function()(0.0, *(array.ctypes.data for array in (y, out, par, work)))
    return out


def test_jacobian_is_the_symbolic_tangent_also_beyond_one_pass_of_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 states: the right-hand side with derivatives in lanes, and with the tangent along each column of C."""
    theory = LINEAR.dynamics().fluctuations()
    inputs = read_inputs(theory.dynamics, **committee(5, 2))
    state = pack(theory.dynamics.states, inputs.y0)
    n = len(state)
    assert n > LANES
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((n, n))
    y = np.concatenate([state, rng.standard_normal(n), (factor @ factor.T)[np.triu_indices(n)]])
    with_lanes = fluctuations.problem(theory, inputs)
    monkeypatch.setattr(fluctuations, "derivatives_address", lambda *_: 0)
    without = fluctuations.problem(theory, inputs)
    assert with_lanes.addresses[-1] and not without.addresses[-1]
    found, expected = rates(with_lanes, y), rates(without, y)
    # the same J in another order of operations: n roundings of numbers as large as the largest
    np.testing.assert_allclose(found, expected, rtol=0, atol=n * 1e-15 * np.abs(expected).max())


def test_each_operation_has_its_derivative() -> None:
    """Erf's forms hold all of them: quotients, roots, arc sines and powers."""
    dynamics = derive.TeacherStudent(activation="erf").dynamics()
    inputs = read_inputs(dynamics, **committee(1, 1))
    state = pack(dynamics.states, inputs.y0)
    n = len(state)
    directions = np.random.default_rng(1).standard_normal((n, LANES))
    out, work = np.empty(n * LANES), np.zeros(2000)
    function = CALL(derivatives_address(dynamics, (1, 1)))
    given = (np.concatenate([state, directions.ravel()]), out, parameter_vector(dynamics, inputs), work)
    function(0.0, *(array.ctypes.data for array in given))
    linearised = tangent(dynamics)
    symbolic, par = (
        kernel(linearised),
        parameter_vector(linearised, Inputs(inputs.sizes, {}, inputs.y0 | inputs.params)),
    )
    expected = np.empty((n, LANES))
    for lane in range(LANES):
        column = np.empty(n)
        symbolic(0.0, np.ascontiguousarray(directions[:, lane]), column, par, work)
        expected[:, lane] = column
    np.testing.assert_allclose(out.reshape(n, LANES), expected, rtol=1e-12, atol=1e-14)


def test_large_systems_and_rules_over_nodes_have_none() -> None:
    erf, tanh = (derive.TeacherStudent(activation=name).dynamics() for name in ("erf", "tanh"))
    assert derivatives_address(erf, (30, 30)) == 0
    assert derivatives_source(loops_source(tanh), (1, 1)) is None


def interrupting(after: int) -> Callable[..., Any]:
    """Return the integrator as it returns when it is interrupted after some output times."""
    integrator = compute_trajectory

    def interrupted(*args: Any, **options: Any) -> Any:
        run = integrator(*args, **options)
        return replace(run, t=run.t[:after], y=run.y[:after], status=type(run.status).RUNNING, interrupted=True)

    return interrupted


def test_interrupted_fluctuations_keep_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    theory = LINEAR.dynamics().fluctuations()
    given: dict[str, Any] = dict(
        y0=dict(Q=[[0.3]], R=[[0.1]]), params=dict(eta=0.5, sigma=0.1, T=[[1.0]], a=1.0, b=1.0)
    )
    whole = fluctuations.integrate_fluctuations(theory, (0, 3), t_eval=[1, 2, 3], **given)
    monkeypatch.setattr(fluctuations, "compute_trajectory", interrupting(2))
    with pytest.warns(RuntimeWarning, match="interrupted at t = 2"):
        kept = fluctuations.integrate_fluctuations(theory, (0, 3), t_eval=[1, 2, 3], **given)
    assert kept.attrs["status"] == "interrupted" and kept.t.values.tolist() == [1, 2]
    np.testing.assert_array_equal(kept.eg_variance, whole.eg_variance[:2])
    monkeypatch.setattr(fluctuations, "compute_trajectory", interrupting(0))
    with pytest.raises(KeyboardInterrupt):
        fluctuations.integrate_fluctuations(theory, (0, 3), t_eval=[1, 2, 3], **given)
    assert solve.integrate(theory.dynamics, (0, 1), t_eval=[1], **given).attrs["status"] == "success"
