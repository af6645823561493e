"""Fixed points, Jacobians, plateaus, critical rates: against differences, trajectories, limits, sums done by hand."""

import pickle

import numpy as np
import pytest

from effdyn import derive, solve
from effdyn.derive import ModelError, NotYet
from effdyn.derive.tangent import tangent
from effdyn.solve.integrators.jacobian import jacobian_kernel
from effdyn.solve.kernels.layout import parameter_vector, unpack
from effdyn.solve.stability import critical_rate, fixed_points, linearize, plateau
from effdyn.solve.stability.flow import Flow
from effdyn.solve.stability.linearize import group_of
from effdyn.solve.stability.starts import random_state

ERF = derive.TeacherStudent(activation="erf").dynamics()
LINEAR = derive.TeacherStudent(activation="linear").dynamics()
SQUARE = derive.TeacherStudent(activation="square").dynamics()
RELU = derive.TeacherStudent(activation="relu").dynamics()


def params(K=2, eta=1.0, sigma=0.0, **more):
    return {"eta": eta, "sigma": sigma, "T": np.eye(K), "a": 1.0, "b": 1.0} | more


def flow_at_random(dynamics, K, M, seed, **more):
    rng = np.random.default_rng(seed)
    T = np.cov(rng.standard_normal((M, 5 * M))).reshape(M, M) + np.eye(M)
    given = params(K, eta=0.7, sigma=0.3) | {"T": T} | more
    given["b"] = rng.uniform(0.5, 1.5, M)
    if "a" in given:
        given["a"] = rng.uniform(0.5, 1.5, K)
    y = random_state(dynamics, {"K": K, "M": M}, given, rng)
    states = unpack(dynamics.states, y, {"K": K, "M": M})
    return Flow.at(dynamics, states, given)


# -- Jacobians ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("K", "M"), [(1, 1), (2, 2), (3, 2), (2, 4)])
@pytest.mark.parametrize("dynamics", [ERF, SQUARE], ids=["erf", "square"])
def test_symbolic_jacobian_equals_differences(dynamics, K, M):
    for seed in range(3):
        flow = flow_at_random(dynamics, K, M, seed)
        assert flow.jacobian_from == "symbolic"
        exact = flow.jacobian(flow.start)
        fine, coarse = (flow._differences(flow.start, step) for step in (1e-3, 2e-3))
        # Of fourth order: the error is a fifteenth of the change with the step, next to rounding of 1e-16/1e-3.
        error = np.abs(fine - coarse).max() + 1e-12 * np.abs(exact).max()
        assert error < 1e-6
        assert np.abs(exact - fine).max() < error
        assert np.abs(exact).max() > 0.01


@pytest.mark.parametrize(("K", "M"), [(1, 1), (3, 2), (2, 4)])
def test_jacobian_kernel_is_the_same_matrix(K, M):
    """All columns at once, for integrators: the numbers of linearize(), to rounding, in its order."""
    flow = flow_at_random(ERF, K, M, 0)
    compiled, n = jacobian_kernel(ERF), len(flow.start)
    out, work = np.empty(n * n), np.zeros(compiled.workspace_size(flow.inputs.sizes))
    compiled(0.0, flow.start, out, parameter_vector(ERF, flow.inputs), work)
    exact = flow.jacobian(flow.start)
    np.testing.assert_allclose(out.reshape(n, n), exact, atol=1e-13 * np.abs(exact).max())


def test_equations_by_cases_fall_back_to_differences_and_say_so():
    flow = flow_at_random(RELU, 2, 2, 0)
    assert flow.jacobian_from.startswith("finite differences: ")
    # At sigma = 0 the drift is homogeneous of degree 1 in all overlaps together, those of the teacher included: Euler.
    start = {"Q": [[1.0, 0.3], [0.3, 0.8]], "R": [[0.4, 0.1], [0.2, 0.3]]}
    h = 1e-4
    flow, more, less = (Flow.at(RELU, start, params(T=scale * np.eye(2))) for scale in (1.0, 1 + h, 1 - h))
    y = flow.start
    along_teacher = (more.drift(y) - less.drift(y)) / (2 * h)
    # The differences along the teacher are of second order: h² times a third derivative of order one.
    assert np.abs(flow.jacobian(y) @ y + along_teacher - flow.drift(y)).max() < 1e-7
    assert np.abs(along_teacher).max() > 0.01


def test_linear_student_by_hand():
    # K = M = 1: dR/dt = eta(1 − R), dQ/dt = 2 eta(R − Q) + eta²(1 − 2R + Q).
    eta = 0.6
    modes = linearize(LINEAR, {"Q": [[1.0]], "R": [[1.0]]}, params(1, eta))
    by_hand = np.array([[-2 * eta + eta**2, 2 * eta - 2 * eta**2], [0, -eta]])
    np.testing.assert_allclose(modes.jacobian, by_hand, atol=1e-14)
    assert list(modes.coordinate.values) == ["Q[1,1]", "R[1,1]"]
    assert modes.attrs["residual"] < 1e-15 and modes.attrs["jacobian"] == "symbolic"


def test_a_state_that_moves_is_said():
    moving = {"Q": [[0.5]], "R": [[0.2]]}
    with pytest.warns(RuntimeWarning, match="not a fixed point"):
        modes = linearize(LINEAR, moving, params(1, 0.6))
    # By hand, as above: dR/dt = 0.6 (1 − 0.2), dQ/dt = 2 · 0.6 (0.2 − 0.5) + 0.36 (1 − 0.4 + 0.5).
    assert modes.attrs["residual"] == pytest.approx(0.48, rel=1e-12) and modes.attrs["status"] == "not a fixed point"
    assert linearize(LINEAR, {"Q": [[1.0]], "R": [[1.0]]}, params(1, 0.6)).attrs["status"] == "fixed point"


@pytest.mark.filterwarnings("ignore:the state is not a fixed point")
def test_modes_solve_the_eigenvalue_problem_and_are_labelled():
    start = {"Q": [[0.5, 0.1], [0.1, 0.4]], "R": [[0.3, 0.1], [0.2, 0.4]]}
    modes = linearize(ERF, start, params())
    vectors = modes.direction.values + 1j * modes.direction_imag.values
    values = modes.growth.values + 1j * modes.frequency.values
    np.testing.assert_allclose(vectors @ modes.jacobian.values.T, values[:, None] * vectors, atol=1e-13)
    assert (np.diff(modes.growth) <= 0).all()
    assert modes.Q_direction.dims == ("mode", "student", "student_2")
    np.testing.assert_array_equal(modes.Q_direction, modes.Q_direction.transpose("mode", "student_2", "student").values)
    at = list(modes.coordinate.values).index("Q[1,2]")
    np.testing.assert_array_equal(modes.Q_direction[:, 0, 1], modes.direction[:, at])


@pytest.mark.filterwarnings("ignore:the state is not a fixed point")
def test_directions_keep_or_break_the_symmetry_of_the_state():
    point = {"Q": [[0.4, 0.1], [0.1, 0.4]], "R": [[0.3, 0.3], [0.3, 0.3]]}
    modes = linearize(ERF, point, params())
    assert len(group_of(Flow.at(ERF, point, params())).actions) == 4
    assert modes.symmetric.sum() == 3  # Q_ii, Q_ik and R_in
    for mode in range(modes.sizes["mode"]):
        R = modes.R_direction.values[mode]
        if modes.symmetric.values[mode]:
            np.testing.assert_allclose(R, R[0, 0], atol=1e-12)
        else:
            assert abs(R.sum()) < 1e-12
    # No exchange leaves a state of unequal students as it is, and then nothing is broken.
    assert linearize(ERF, {"Q": [[0.5, 0.1], [0.1, 0.4]], "R": [[0.3, 0.1], [0.2, 0.4]]}, params()).symmetric.all()


def test_the_linearised_equations_are_linear_and_indexed():
    linear = tangent(ERF)
    assert [q.name for q in linear.states] == ["dQ", "dR"] and not linear.tables
    assert linear.states[0].symmetric
    assert {q.name for q in linear.parameters} >= {"Q", "R", "T", "eta"}


# -- fixed points ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return fixed_points(ERF, params(), K=2, count=16, rng=0)


def test_fixed_points_stand_still_and_are_admissible(found):
    for n in range(found.sizes["fixed_point"]):
        point = found.isel(fixed_point=n)
        flow = Flow.at(ERF, point, params())
        assert np.abs(flow.drift(flow.start)).max() < 1e-14
        assert flow.least_eigenvalue(flow.start) > -1e-7
    assert (np.diff(found.eg) > 0).all()
    assert found.hits.sum() == 32 - found.attrs["not_converged"] - found.attrs["not_admissible"]


def test_perfect_students_are_one_stable_fixed_point_with_two_copies(found):
    best = found.isel(fixed_point=0)
    np.testing.assert_allclose(np.sort(best.R.values.ravel()), [0, 0, 1, 1], atol=1e-10)
    assert best.n_unstable == 0 and best.copies == 2 and abs(best.eg) < 1e-12 and best.growth < 0
    assert (found.n_unstable[1:] > 0).all(), "every other fixed point is a saddle"


def test_found_again_up_to_exchange_of_units(found):
    """The perfect states with students exchanged, given as starts, are one."""
    swapped = [{"Q": np.eye(2), "R": np.eye(2)}, {"Q": np.eye(2), "R": np.eye(2)[::-1]}]
    again = fixed_points(ERF, params(), K=2, starts=swapped)
    assert again.sizes["fixed_point"] == 1 and again.hits.item() == 2
    # Teacher units that differ may not be exchanged: then they are two, each with two copies by students alone.
    unequal = params() | {"T": np.diag([1.0, 2.0])}
    two = fixed_points(ERF, unequal, K=2, starts=[{"Q": np.diag([1.0, 2.0]), "R": np.diag([1.0, 2.0])}])
    assert two.copies.item() == 2 and two.n_unstable.item() == 0


def test_same_seed_same_result():
    first, second = (fixed_points(LINEAR, params(), K=2, count=3, rng=5) for _ in range(2))
    assert first.identical(second)


def test_more_students_than_teachers_have_neutral_directions():
    # Linear students: only the sum of students matters, so the fixed points form a continuum.
    flow = derive.TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    given = {"T": [[1.0]], "a": 1.0, "b": 1.0, "sigma": 0.0}
    point = fixed_points(flow, given, K=2, starts=[{"Q": [[0.25, 0.25], [0.25, 0.25]], "R": [[0.5], [0.5]]}])
    assert point.n_neutral.item() > 0 and point.n_unstable.item() == 0


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"starts": "randm"}, "starts"),
        ({"count": 0}, "count"),
        ({"starts": []}, "starts"),
        ({"L": 2}, "L"),
        ({"M": 3}, "M"),
        ({"K": 0}, "K"),
        ({"starts": [{"Q": np.eye(3), "R": np.zeros((3, 2))}]}, "starts"),
    ],
)
def test_bad_arguments_are_named(change, argument):
    with pytest.raises(ModelError) as error:
        fixed_points(LINEAR, params(), **({"K": 2} | change))
    assert error.value.argument == argument


def test_missing_size_is_named():
    with pytest.raises(ModelError, match="a number for K"):
        fixed_points(LINEAR, params())


def test_other_kinds_are_refused():
    from effdyn.derive import LinearRegression

    with pytest.raises((NotYet, ModelError)):
        linearize(LinearRegression("one-pass").dynamics(), {}, {})


# -- plateaus ----------------------------------------------------------------------------------------------------------

SYMMETRIC = {K: {"Q": 0.1 * np.eye(K), "R": np.full((K, K), 0.01)} for K in (2, 3)}


@pytest.mark.parametrize("K", [2, 3])
def test_height_at_small_learning_rates_is_that_of_saad_and_solla(K):
    """Saad & Solla (1995), eta → 0: Q* = C* = 1/(2K−1), R*² = 1/(K(2K−1)), eg* = K/π (π/6 − K asin 1/(2K))."""
    rates = np.array([0.01, 0.02, 0.04])
    heights, overlaps = [], []
    for eta in rates:
        found = plateau(ERF, SYMMETRIC[K], params(K, eta))
        heights.append(float(found.eg))
        overlaps.append([float(found.Q[0, 0]), float(found.Q[0, 1]), float(found.R[0, 0])])
    # A parabola through three rates leaves a third-order term: eta³ of 0.01·0.02·0.04 = 8e-6 times order one.
    at_zero = np.polyfit(rates, np.column_stack([heights, overlaps]), 2)[-1]
    expected = [K / np.pi * (np.pi / 6 - K * np.arcsin(1 / (2 * K))), 1 / (2 * K - 1), 1 / (2 * K - 1)]
    np.testing.assert_allclose(at_zero, [*expected, (K * (2 * K - 1)) ** -0.5], atol=2e-5)


@pytest.mark.parametrize("K", [2, 3])
def test_trajectories_leave_at_the_escape_rate(K):
    found = plateau(ERF, SYMMETRIC[K], params(K))
    rate = float(found.rate)
    direction = found.R_direction.values[0]
    amplitude = 1e-6
    start = {"Q": found.Q.values + amplitude * found.Q_direction.values[0], "R": found.R.values + amplitude * direction}
    sol = solve.integrate(ERF, (0, 2 / rate), start, params(K), t_eval=[0, 1 / rate, 2 / rate], rtol=1e-12, atol=1e-14)
    away = np.abs(sol.R.values - found.R.values).max(axis=(1, 2))
    # Nonlinear corrections are of relative order of the amplitude, e² · 1e-6; integration errors 1e-12 of it: 1e-6.
    np.testing.assert_allclose(np.log(away[1:] / away[:-1]), 1.0, atol=1e-4)
    assert float(found.slope) == pytest.approx(1 / (2 * rate)) and found.degeneracy == (K - 1) ** 2
    assert found.symmetric_rate < 0


def test_noise_lifts_the_plateau():
    clean, noisy = (plateau(ERF, SYMMETRIC[2], params(2, 0.5, sigma)) for sigma in (0.0, 0.3))
    assert float(noisy.eg) > float(clean.eg) and float(noisy.rate) < float(clean.rate)


def test_linear_students_have_a_continuum_of_fixed_points():
    """Their differences are conserved, so that no symmetric fixed point is isolated; said at once."""
    with pytest.raises(ModelError, match="continuum"):
        plateau(LINEAR, SYMMETRIC[2], params(2, 0.5))


def test_one_unit_has_no_plateau():
    with pytest.raises(ModelError, match=r"no two units may be exchanged \(K = 1, M = 1\).*single student"):
        plateau(ERF, {"Q": [[0.1]], "R": [[0.01]]}, params(1))


def test_a_symmetric_flow_that_does_not_end_is_said_in_a_sentence():
    with pytest.raises(
        ModelError, match=r"^no plateau from this y0: at t = .* Q\[1,1\] = .* smaller learning rate"
    ) as error:
        plateau(ERF, SYMMETRIC[2], params(2, 50.0))
    assert error.value.argument == "y0"
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


# -- critical learning rates -------------------------------------------------------------------------------------------


def test_critical_rate_of_one_linear_unit_is_two():
    found = critical_rate(LINEAR, {"Q": [[1.0]], "R": [[1.0]]}, params(1, 0.1), up_to=5.0)
    assert float(found.critical) == pytest.approx(2.0, rel=1e-9)
    assert found.attrs["status"] == "critical" and found.eta[0] == 0.1


def test_critical_rate_of_one_erf_unit_by_hand():
    # A small u = δ·x orthogonal to the teacher: dE[u²]/dt = (−2 eta E[g'²] + eta² E[g'⁴]) E[u²], with g' = √(2/π)
    # exp(−h²/2), E[g'²] = 2/(√3 π), E[g'⁴] = 4/(√5 π²).
    found = critical_rate(ERF, {"Q": [[1.0]], "R": [[1.0]]}, params(1, 0.1), up_to=8.0)
    assert float(found.critical) == pytest.approx(np.sqrt(5 / 3) * np.pi, rel=1e-8)


@pytest.mark.filterwarnings("ignore::effdyn.solve.hazards.BelowResolution")  # it converges to zero
def test_trajectories_converge_below_the_critical_rate_and_not_above():
    point = {"Q": np.eye(2), "R": np.eye(2)}
    critical = float(critical_rate(ERF, point, params(2, 0.5), up_to=4.0).critical)
    near = {"Q": 1.001 * np.eye(2), "R": np.eye(2)}
    below, above = (
        solve.integrate(ERF, (0, 3000), near, params(2, factor * critical), t_eval=[0, 3000]) for factor in (0.99, 1.01)
    )
    assert abs(below.eg[-1]) < 1e-9 < 1e-5 < above.eg[-1]


def test_a_point_that_stays_stable_is_said():
    found = critical_rate(LINEAR, {"Q": [[1.0]], "R": [[1.0]]}, params(1, 0.1), up_to=1.5)
    assert np.isnan(found.critical) and found.attrs["status"] == "stable" and found.eta[-1] == 1.5


@pytest.mark.parametrize(
    ("change", "argument"), [({"over": "T"}, "over"), ({"up_to": 0.05}, "up_to"), ({"over": "sigm"}, "over")]
)
def test_bad_arguments_of_critical_rate_are_named(change, argument):
    with pytest.raises(ModelError) as error:
        critical_rate(LINEAR, {"Q": [[1.0]], "R": [[1.0]]}, params(1, 0.1), **({"up_to": 5.0} | change))
    assert error.value.argument == argument


def test_an_unstable_start_is_refused():
    with pytest.raises(ModelError, match="stable to begin with"):
        critical_rate(LINEAR, {"Q": [[1.0]], "R": [[1.0]]}, params(1, 2.5), up_to=5.0)
