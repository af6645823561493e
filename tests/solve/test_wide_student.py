"""Neurons described by R and Q⊥, solved: kernels, what is computed from T, and what is refused."""

import types

import numpy as np
import pytest

from effdyn import solve
from effdyn.derive import ModelError, TeacherStudent
from effdyn.solve.kernels.gram import gram_matrix
from effdyn.solve.kernels.layout import read_inputs
from effdyn.solve.kernels.reference import evaluate

MODEL = TeacherStudent(activation="erf", output_scale="1/K")
ROUNDING = 1e-12
"""Some thousand operations on numbers of order one, at 1e-16 each."""


def problem(K, M, rng, alone=True):
    weights, teacher = rng.normal(size=(K, 9)), rng.normal(size=(M, 9))
    Q, R, T = weights @ weights.T / 9, weights @ teacher.T / 9, teacher @ teacher.T / 9
    across = solve.perpendicular(Q, R, T)
    y0 = {"R": R, "Q_perp": np.diag(across) if alone else across}
    return y0, {"T": T, "a": rng.normal(size=K), "b": rng.normal(size=M), "sigma": 0.1}, Q


@pytest.mark.parametrize("name", ["mean-field", "mean-field-pairs"])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2), (5, 3)])
def test_kernels_equal_the_reference(name, sizes, run, rng):
    dyn = MODEL.dynamics(name)
    y0, params, _ = problem(*sizes, rng, alone=name == "mean-field")
    inputs = read_inputs(dyn, y0, params)
    slow = evaluate(dyn, inputs.y0, inputs.params)
    across = slow["Q_perp"] if name == "mean-field" else slow["Q_perp"][np.triu_indices(sizes[0])]
    straight = [solve.kernel(dyn, inputs.sizes)] if sizes == (3, 2) else []  # straight-line code takes long to compile
    for compiled in (solve.kernel(dyn), *straight):
        fast = run(compiled, dyn, inputs)
        np.testing.assert_allclose(fast, np.concatenate([across, slow["R"].ravel()]), rtol=ROUNDING, atol=ROUNDING)


def test_all_pairs_solve_gradient_flow(rng):
    """The same trajectories, in other variables and on another clock, to what integrations at 1e-12 leave."""
    K, times = 4, np.linspace(0, 5, 6)
    y0, params, Q = problem(K, 3, rng, alone=False)
    options = {"rtol": 1e-12, "atol": 1e-13}
    pairs = solve.integrate(MODEL.dynamics("mean-field-pairs"), (0, 5), y0, params, t_eval=times, **options)
    flow = solve.integrate(
        MODEL.dynamics("gradient-flow"), (0, 5 * K), {"Q": Q, "R": y0["R"]}, params, t_eval=K * times, **options
    )
    for name in ("Q", "R", "eg"):
        assert abs(pairs[name].values - flow[name].values).max() < 1e-10, name


def test_the_gap_to_all_pairs_falls_as_one_over_the_width(rng):
    """K |eg − eg of pairs| is the same number at K = 10 and 40 of the same neurons, each four times."""
    y0, params, _ = problem(10, 2, rng)
    gaps = []
    for copies in (1, 4):
        R, across = np.tile(y0["R"], (copies, 1)), np.tile(y0["Q_perp"], copies)
        R = R + 1e-9 * rng.normal(size=R.shape)  # exact copies are warned of
        given = params | {"a": np.tile(params["a"], copies)}
        alone = solve.integrate(
            MODEL.dynamics("mean-field"), (0, 4), {"R": R, "Q_perp": across}, given, t_eval=[0, 2, 4]
        )
        pairs = solve.integrate(
            MODEL.dynamics("mean-field-pairs"), (0, 4), {"R": R, "Q_perp": np.diag(across)}, given, t_eval=[0, 2, 4]
        )
        gaps.append(10 * copies * abs(alone.eg - pairs.eg).values.max())
    assert gaps[0] > 1e-3
    assert abs(gaps[1] / gaps[0] - 1) < 0.3, gaps  # the next order is 1/K of it, with a coefficient of a few


def test_the_inverse_is_computed_and_not_asked_for(rng):
    dyn = MODEL.dynamics("mean-field")
    y0, params, _ = problem(3, 2, rng)
    solution = solve.integrate(dyn, (0, 1), y0, params, t_eval=[0, 1])
    assert "T_inv" not in solution.attrs["parameters"]
    with pytest.raises(ModelError, match="T_inv"):
        solve.integrate(dyn, (0, 1), y0, params | {"T_inv": np.linalg.inv(params["T"])})
    T = np.stack([params["T"], 1.3 * params["T"]])
    many = solve.ensemble(dyn, (0, 1), y0, params | {"T": T}, t_eval=[0, 1])
    for member in range(2):
        one = solve.integrate(dyn, (0, 1), y0, params | {"T": T[member]}, t_eval=[0, 1])
        np.testing.assert_allclose(many.eg.values[member], one.eg.values, rtol=1e-9)  # two integrations at 1e-10
    assert "T_inv" not in many.coords and "T_inv" not in many.attrs["varying"]


def test_the_numpy_module_computes_it_too(rng, tmp_path):
    dyn = MODEL.dynamics("mean-field")
    y0, params, _ = problem(3, 2, rng)
    made = types.ModuleType("made")
    exec(dyn.write(tmp_path / "made.py").read_text(encoding="utf-8"), made.__dict__)
    inputs = read_inputs(dyn, y0, params)
    slow = evaluate(dyn, inputs.y0, inputs.params)
    for name, value in made.rhs(0.0, y0, params).items():
        np.testing.assert_allclose(value, slow[name], rtol=ROUNDING, atol=ROUNDING)


def test_impossible_overlaps_are_refused(rng):
    dyn = MODEL.dynamics("mean-field")
    y0, params, Q = problem(3, 2, rng)
    inputs = read_inputs(dyn, y0, params)
    gram = gram_matrix(dyn, inputs.y0 | inputs.params)
    np.testing.assert_allclose(np.diag(gram)[:3], np.diag(Q), rtol=ROUNDING)
    with pytest.raises(ModelError, match=r"y0\['Q_perp'\]"):
        solve.integrate(dyn, (0, 1), y0 | {"Q_perp": -0.1 * np.ones(3)}, params)
    singular = np.ones((2, 2))
    with pytest.raises(ModelError, match="no negative eigenvalue"):  # R outside the span of the teacher
        solve.integrate(dyn, (0, 1), y0, params | {"T": singular})
    with pytest.raises(ModelError, match="no negative eigenvalue"):
        solve.integrate(dyn, (0, 1), y0, params | {"T": -np.eye(2)})
    with pytest.raises(ModelError, match="shapes"):
        solve.perpendicular(np.eye(3), np.ones((2, 3)), np.eye(2))
