"""Symmetric reductions: the full flow from symmetric starts, for several K and M; and what is not symmetric."""

import numpy as np
import pytest
import sympy

from effdyn import derive, solve
from effdyn.derive import ModelError, NotYet
from effdyn.solve.kernels.gram import gram_matrix
from effdyn.solve.stability import fixed_points, lift, reduce_inputs, symmetric_reduction

# The full equations from symmetric starts are what the reduction is compared with, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:students .* start exactly alike")

ERF = derive.TeacherStudent(activation="erf").dynamics()
LINEAR = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")


def start(K, M, ansatz):
    R = np.full((K, M), 0.02) + (0.1 * np.eye(K, M) if ansatz == "specialised" else 0)
    T = np.eye(M) + 0.1 * (1 - np.eye(M))
    return {"Q": 0.1 * np.eye(K) + 0.02, "R": R}, {"eta": 0.8, "sigma": 0.1, "T": T, "a": 1.0, "b": 0.9}


@pytest.mark.parametrize(
    ("ansatz", "K", "M"),
    [("symmetric", 1, 2), ("symmetric", 2, 2), ("symmetric", 4, 3), ("specialised", 1, 1), ("specialised", 3, 3)],
)
def test_reduction_is_the_full_flow(ansatz, K, M):
    y0, params = start(K, M, ansatz)
    times = np.linspace(0, 20, 6)
    accuracy = {"t_eval": times, "rtol": 1e-12, "atol": 1e-13}
    full = solve.integrate(ERF, (0, 20), y0, params, **accuracy)
    reduced = solve.integrate(
        symmetric_reduction(ERF, ansatz), (0, 20), *reduce_inputs(ERF, y0, params, ansatz), **accuracy
    )
    arrays = lift(ERF, reduced, ansatz, K=K, M=M)
    for name in ("Q", "R"):
        np.testing.assert_allclose(arrays[name], full[name], atol=1e-10)  # 100 times rtol, as integrate() states
    np.testing.assert_allclose(reduced.eg, full.eg, atol=1e-10)
    assert abs(full.eg[-1] - full.eg[0]) > 1e-3


def test_linear_students_by_hand():
    """dR_in/dt = a(b Σ_m T_nm − a Σ_j R_jn)… summed over equal students and teacher units."""
    R, T, T_off, a, b = (sympy.Symbol(n, real=True) for n in ("R", "T", "T_off", "a", "b"))
    found = symmetric_reduction(LINEAR)["R"]
    names = {s.name: s for s in found.free_symbols}
    K, M = names["K"], names["M"]
    by_hand = a * b * (T + (M - 1) * T_off) - a**2 * K * R
    values = {"R": 0.3, "T": 1.2, "T_off": 0.2, "a": 0.7, "b": 1.1, "K": 5, "M": 3}
    assert float(found.subs({names[n]: v for n, v in values.items()})) == pytest.approx(
        float(by_hand.subs({R: 0.3, T: 1.2, T_off: 0.2, a: 0.7, b: 1.1, K: 5, M: 3})), rel=1e-14
    )


def test_numbers_of_units_are_parameters():
    reduced = symmetric_reduction(ERF)
    assert [q.name for q in reduced.states] == ["Q", "C", "R"] and reduced.sizes == ()
    assert {q.name for q in reduced.parameters} == {"eta", "sigma", "T", "T_off", "a", "b", "K", "M"}
    assert [q.name for q in symmetric_reduction(ERF, "specialised").states] == ["Q", "C", "R", "S"]


@pytest.mark.slow  # 14 s, to compile the Jacobian
def test_plateau_of_a_hundred_units_is_that_of_saad_and_solla():
    """eta → 0 at K = M = 100, which the full equations would need 15 050 states for: R*² = 1/(K(2K−1))."""
    K, eta = 100, 1e-4
    params = {"eta": eta, "sigma": 0.0, "T": 1.0, "T_off": 0.0, "a": 1.0, "b": 1.0, "K": K, "M": K}
    found = fixed_points(symmetric_reduction(ERF), params, starts=[{"Q": 1 / 199, "C": 1 / 199, "R": 0.00708}])
    assert found.sizes["fixed_point"] == 1
    # The correction is of first order in eta, with a coefficient of order K relative to the overlaps: 1e-2.
    np.testing.assert_allclose(found.R.item(), (K * (2 * K - 1)) ** -0.5, rtol=1e-2)


def test_asymmetric_input_is_refused_by_name():
    y0, params = start(2, 2, "symmetric")
    with pytest.raises(ModelError) as error:
        reduce_inputs(ERF, y0 | {"R": [[0.1, 0.02], [0.02, 0.1]]}, params)
    assert error.value.argument == "y0['R']"
    with pytest.raises(ModelError) as error:
        reduce_inputs(ERF, y0, params | {"T": np.diag([1.0, 2.0])})
    assert error.value.argument == "params['T']"
    y0, params = start(3, 2, "symmetric")
    with pytest.raises(ModelError, match="as many students"):
        reduce_inputs(ERF, y0 | {"R": np.zeros((3, 2))}, params, "specialised")


def test_bad_arguments_are_named():
    with pytest.raises(ModelError, match="did you mean 'symmetric'"):
        symmetric_reduction(ERF, "symetric")
    with pytest.raises(ModelError, match="a value for C"):
        lift(ERF, {"Q": 1.0, "R": 0.1}, K=2, M=2)
    with pytest.raises(ModelError, match="a number for M"):
        lift(ERF, {"Q": 1.0, "C": 0.0, "R": 0.1}, K=2)
    with pytest.raises(NotYet, match="numerical expectations"):
        symmetric_reduction(derive.TeacherStudent(activation="tanh").dynamics())


@pytest.mark.parametrize(
    ("ansatz", "K", "M"),
    [("symmetric", 1, 3), ("symmetric", 4, 3), ("symmetric", 2, 1), ("specialised", 1, 1), ("specialised", 3, 3)],
)
def test_the_gram_matrix_of_a_reduction_has_the_eigenvalues_of_that_of_all_vectors(ansatz, K, M):
    y0, params = start(K, M, ansatz)
    full = gram_matrix(ERF, {"Q": y0["Q"], "R": y0["R"], "T": params["T"]})
    reduced, numbers = reduce_inputs(ERF, y0, params, ansatz)
    found = np.linalg.eigvalsh(gram_matrix(symmetric_reduction(ERF, ansatz), reduced | numbers))
    expected = np.linalg.eigvalsh(full)
    rounding = 1e-14 * len(full) * expected[-1]
    single = (K == 1) + (M == 1)  # populations of one unit, whose differences do not exist, and stand there as 0
    assert np.sum(abs(found) <= rounding) >= single
    found = np.delete(found, np.argsort(abs(found))[:single])
    distance = abs(found[:, None] - expected)
    assert (distance.min(axis=0) <= rounding).all(), "each of the full matrix is there"
    assert (distance.min(axis=1) <= rounding).all(), "and no others"


def test_overlaps_that_no_vectors_have_are_refused_at_the_call():
    flow, params = symmetric_reduction(ERF), {"eta": 1.0, "sigma": 0.0, "T": 1.0, "T_off": 0.0, "a": 1.0, "b": 1.0}
    for y0, eigenvalue in (
        ({"Q": 0.1, "C": 0.2, "R": 0.0}, "-0.1"),  # Q - C, of differences between students
        ({"Q": 0.1, "C": -0.2, "R": 0.0}, "-0.3"),  # Q + 2C, of their sum
        ({"Q": 0.1, "C": 0.0, "R": 0.5}, "-1.02"),  # longer projections on teachers than students are long
    ):
        with pytest.raises(ModelError, match=f"smallest eigenvalue {eigenvalue} .*vectors"):
            solve.integrate(flow, (0, 1), y0, params | {"K": 3, "M": 3})
    with pytest.raises(ModelError, match="vectors"):
        solve.ensemble(flow, (0, 1), {"Q": 0.1, "C": [0.0, 0.2], "R": 0.0}, params | {"K": 3, "M": 3})
    alone = solve.integrate(flow, (0, 1), {"Q": 0.1, "C": 0.2, "R": 0.0}, params | {"K": 1, "M": 3})
    assert alone.attrs["status"] == "success", "of one student, C means nothing"
