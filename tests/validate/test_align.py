"""Replicas are matched by one permutation each, among students that the start does not tell apart."""

import numpy as np
import pytest

from effdyn.derive import TeacherStudent
from effdyn.validate.align import best_order, exchangeable, permuted
from effdyn.validate.inputs import read_inputs
from effdyn.validate.simulate import simulate


def _trajectory(K, M, rng, T=20):
    w, v = rng.standard_normal((T, K, 30)), rng.standard_normal((M, 30))
    return {"Q": w @ w.swapaxes(1, 2) / 30, "R": w @ v.T / 30, "a": rng.standard_normal((T, K))}


@pytest.mark.parametrize(("K", "M"), [(1, 1), (2, 1), (5, 3), (6, 1), (30, 4)])
def test_permuted_copies_are_recognised(K, M, rng):
    reference = _trajectory(K, M, rng)
    order = rng.permutation(K)
    copy = permuted(reference, order)
    copy = {name: array + 0.01 * rng.standard_normal(array.shape) for name, array in copy.items()}
    found = best_order(copy, reference, [list(range(K))])
    assert (order[found] == np.arange(K)).all()


def test_students_told_apart_only_by_their_mutual_overlaps_are_recognised(rng):
    """R, a and Q_ii are equal: the first assignment is blind, the exhaustive search is not."""
    Q = np.eye(4) + 0.5 * np.array([[0, 1, 0, 0], [1, 0, 0.5, 0], [0, 0.5, 0, 0.2], [0, 0, 0.2, 0]])
    reference = {"Q": Q[None], "R": np.zeros((1, 4, 1)), "a": np.ones((1, 4))}
    order = rng.permutation(4)
    found = best_order(permuted(reference, order), reference, [[0, 1, 2, 3]])
    assert (permuted(permuted(reference, order), found)["Q"] == reference["Q"]).all()


def test_only_within_groups(rng):
    reference = _trajectory(4, 2, rng)
    found = best_order(permuted(reference, np.array([3, 2, 1, 0])), reference, [[0, 3], [1], [2]])
    assert found.tolist() == [3, 1, 2, 0]


def _groups(R, a=1.0, Q=None, resolution=0.03):
    Q = np.eye(len(R)) if Q is None else Q
    inputs = read_inputs(TeacherStudent(), dict(Q=Q, R=R), dict(eta=1, sigma=0, T=np.eye(len(R[0])), a=a, b=1))
    return exchangeable(inputs, resolution)


def test_what_the_start_tells_apart_is_not_exchanged():
    assert _groups([[0.1], [0.11], [0.3]]) == [[0, 1], [2]]
    assert _groups([[0.1], [0.1], [0.1]], a=[1.0, -1.0, 1.0]) == [[0, 2], [1]]
    assert _groups([[0.0], [0.0]], Q=np.diag([1.0, 0.5])) == [[0], [1]]
    assert _groups([[0.1, 0.0], [0.0, 0.1]]) == [[0], [1]]


def test_biases_tell_students_apart_and_move_with_them(rng):
    model = TeacherStudent(activation="erf", biases=True)
    params = dict(eta=1, eta_bias=1, sigma=0, T=[[1.0]], a=1.0, b=1.0, teacher_bias=0.0)

    def groups(bias):
        return exchangeable(read_inputs(model, dict(Q=np.eye(3), R=[[0.1]] * 3, bias=bias), params), 0.03)

    assert groups([0.5, 0.51, 0.5]) == [[0, 1, 2]] and groups([0.5, -0.5, 0.5]) == [[0, 2], [1]]
    assert groups(0.0) == [[0, 1, 2]]
    for K in (3, 6):  # all permutations tried; an assignment problem
        reference = _trajectory(K, 2, rng) | {"bias": rng.standard_normal((20, K))}
        order = rng.permutation(K)
        copy = permuted(reference, order)
        assert (copy["bias"] == reference["bias"][:, order]).all()
        assert (order[best_order(copy, reference, [list(range(K))])] == np.arange(K)).all()
        alike = {name: np.zeros_like(array) for name, array in reference.items()} | {"bias": reference["bias"]}
        assert (order[best_order(permuted(alike, order), alike, [list(range(K))])] == np.arange(K)).all(), (
            "by bias alone"
        )


def test_symmetric_students_that_specialise_are_matched():
    """From R = 0 each of two students takes either teacher: unmatched, the mean specialisation is about 0."""
    y0 = dict(Q=np.eye(2) * 0.2, R=np.zeros((2, 2)))
    options = dict(
        d=100, runs=24, t_span=(0, 150), t_eval=[0, 150], y0=y0, params=dict(eta=1.5, sigma=0, T=np.eye(2), a=1, b=1)
    )
    matched, unmatched = (simulate(TeacherStudent(), align=align, **options).R.isel(t=-1) for align in ("auto", False))

    def specialisation(R):
        return R.isel(student=0, teacher=0) - R.isel(student=0, teacher=1)

    assert (abs(specialisation(unmatched)) > 0.9).all(), "every replica has specialised"
    assert abs(specialisation(matched).mean()) > 0.9
    assert abs(specialisation(unmatched).mean()) < 0.9, "or else this test shows nothing"
    assert (matched.isel(run=0) == unmatched.isel(run=0)).all(), "run 0 is the reference"


def test_students_that_stay_alike_are_not_matched():
    """A linear committee keeps an exchangeable start symmetric: matching would select noise, and bias the means."""
    model = TeacherStudent(activation="linear", output_scale="1/sqrt(K)")
    params = {"eta": 0.5, "sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}
    start = {"Q": 0.5 * np.eye(3), "R": np.full((3, 2), 0.1)}
    options = {"d": 1000, "runs": 16, "t_span": (0, 5), "t_eval": [0, 2.5, 5], "progress": False}
    asked = simulate(model, y0=start, params=params, **options)
    plain = simulate(model, y0=start, params=params, align=False, **options)
    np.testing.assert_array_equal(asked.Q, plain.Q)
    matched = simulate(model, y0=start, params=params, align=True, **options)
    assert not np.array_equal(matched.Q, plain.Q)  # it would have made a difference
