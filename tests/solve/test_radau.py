"""Radau5 and the switch to it, against exact solutions, SciPy and the definition of the method."""

import math

import numba
import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from effdyn import derive, solve
from effdyn.derive.dynamics import Equation
from effdyn.solve.integrators import radau
from effdyn.solve.integrators.dop853 import Status
from effdyn.solve.integrators.jacobian import jacobian_for, jacobian_kernel, why_none
from effdyn.solve.integrators.other_methods import RADAU5
from effdyn.solve.integrators.trajectory import compute_trajectory
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs

POINTER = numba.types.CPointer(numba.float64)
NONE = ()  # no parameters


def compiled(function):
    return numba.cfunc(numba.void(numba.float64, *[POINTER] * 4), error_model="numpy")(function)


@compiled
def explicit_time(t, y, dy, par, work):
    """Solved by exp(sin t) and 1 / (1 + t²/2)."""
    dy[0] = y[0] * math.cos(t)
    dy[1] = -t * y[1] * y[1]


@compiled
def robertson(t, y, dy, par, work):
    dy[0] = -0.04 * y[0] + 1e4 * y[1] * y[2]
    dy[2] = 3e7 * y[1] * y[1]
    dy[1] = -dy[0] - dy[2]


@compiled
def decay(t, y, dy, par, work):
    dy[0] = -par[0] * y[0]


@compiled
def cosine(t, y, dy, par, work):
    """Prothero and Robinson's problem, solved by cos t from 1."""
    dy[0] = -par[0] * (y[0] - math.cos(t)) - math.sin(t)


@compiled
def root(t, y, dy, par, work):
    """Solved by (1 - t/2)² until t = 2, where the domain ends."""
    dy[0] = -math.sqrt(y[0])


def exact_explicit_time(t):
    return np.stack([np.exp(np.sin(t)), 1 / (1 + t**2 / 2)], axis=-1)


def fitted_order(h, error):
    assert error.min() > 1e-12, "rounding and the iteration would spoil the fit"
    return np.polyfit(np.log(h), np.log(error), 1)[0]


# ------------------------------------------------------------------------------------------ the method


def test_coefficients_are_those_of_collocation():
    """The Runge–Kutta matrix integrates the Lagrange polynomials at the nodes; T and MU are its eigen decomposition."""
    c = np.array([radau.C1, radau.C2, 1.0])
    powers = np.vander(c, increasing=True)
    a = (c[:, None] ** np.arange(1, 4) / np.arange(1, 4)) @ np.linalg.inv(powers)
    inverse = np.linalg.inv(a)
    pair = np.array([[radau.MU_PAIR.real, -radau.MU_PAIR.imag], [radau.MU_PAIR.imag, radau.MU_PAIR.real]])
    block = np.zeros((3, 3))
    block[0, 0], block[1:, 1:] = radau.MU, pair
    # Inverses of matrices of condition 50, a few ulp each.
    np.testing.assert_allclose(radau.T_INVERSE @ inverse @ radau.T, block, atol=1e-12)
    np.testing.assert_allclose(radau.T_INVERSE @ radau.T, np.eye(3), atol=1e-13)
    x = c  # the interpolating polynomial passes through 0 and the stages
    np.testing.assert_allclose((x[:, None] ** np.arange(1, 4)) @ radau.P.T, np.eye(3), atol=1e-13)


def fixed_steps(steps, t1=4.0):
    """Tolerances that accept everything, but a small ``rtol``, which the iteration goes by."""
    options = {"rtol": 1e-6, "atol": 1e-6, "first_step": t1 / steps, "max_step": t1 / steps, "method": RADAU5}
    result = compute_trajectory(explicit_time.address, [1.0, 1.0], (0.0, t1), NONE, 0, **options)
    assert (result.n_steps, result.n_rejected) == (steps, 0)
    return result


def test_convergence_is_of_order_5():
    steps = np.array([80, 100, 120, 160, 200])
    error = np.array([abs(fixed_steps(n).y[-1] - exact_explicit_time(4.0)).max() for n in steps])
    assert fitted_order(1 / steps, error) == pytest.approx(5, abs=0.3)


def test_interpolant_is_of_order_3():
    """Order 3 means an error of h⁴ within a step."""
    h, x = 0.5 ** np.arange(4, 6.1, 0.5), np.linspace(0.1, 0.9, 9)
    error = []
    for step in h:
        options = {"first_step": step, "max_step": step, "rtol": 1e-8, "atol": 1e-4, "t_eval": 0.3 + x * step}
        r = compute_trajectory(
            explicit_time.address, exact_explicit_time(0.3), (0.3, 0.3 + step), NONE, 0, method=RADAU5, **options
        )
        assert r.n_steps == 1
        error.append(abs(r.y - exact_explicit_time(r.t)).max())
    assert fitted_order(h, np.array(error)) == pytest.approx(3 + 1, abs=0.4)


def test_it_is_l_stable():
    """One step of h λ = -1e6 leaves R(-1e6): R(z) = (1 + 2z/5 + z²/20)/(1 - 3z/5 + 3z²/20 - z³/60), Source: IV.5."""
    z = -1e6
    exact = (1 + 2 * z / 5 + z**2 / 20) / (1 - 3 * z / 5 + 3 * z**2 / 20 - z**3 / 60)
    options = {"rtol": 1e-8, "atol": 1e9, "first_step": 1.0, "max_step": 1.0, "method": RADAU5}
    y = compute_trajectory(decay.address, [1.0], (0.0, 1.0), [-z], 0, **options).y[-1, 0]
    assert exact == pytest.approx(-3 / z, abs=1e-10)
    # atol 1e9 ends the iteration after two rounds, which for a linear equation leave only the error of differences.
    assert y == pytest.approx(exact, abs=1e-6)


# ------------------------------------------------------------------------------------------ stiff problems


@pytest.fixture(scope="module")
def robertson_reference():
    def rhs(t, y):
        a, c = -0.04 * y[0] + 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [a, -a - c, c]

    times = np.geomspace(1e-2, 1e5, 15)
    return times, solve_ivp(rhs, (0, 1e5), [1, 0, 0], "Radau", times, rtol=1e-11, atol=1e-15).y.T


@pytest.mark.parametrize(("method", "other"), [(RADAU5, None), (None, RADAU5)], ids=["Radau5", "auto"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_robertsons_reaction(robertson_reference, method, other, rtol):
    times, reference = robertson_reference
    options = {"rtol": rtol, "atol": 1e-4 * rtol, "t_eval": times, "max_steps": 3000}
    r = compute_trajectory(robertson.address, [1, 0, 0], (0, 1e5), NONE, 0, method=method, other=other, **options)
    assert r.status is Status.SUCCESS and np.array_equal(r.t, times)
    # The flow forgets errors; the interpolant, of order 3, is up to a hundred times less accurate than the steps.
    assert (abs(r.y - reference) < 100 * (rtol * abs(reference) + 1e-4 * rtol)).all()
    assert bool(r.switched) == (other is not None)


def test_an_explicit_method_alone_fails_there():
    r = compute_trajectory(robertson.address, [1, 0, 0], (0, 1e5), NONE, 0, rtol=1e-4, atol=1e-8, max_steps=3000)
    assert r.status is Status.STEP_LIMIT and r.t[-1] < 100


@pytest.mark.parametrize("rate", [1.0, 1e2, 1e5, 1e8])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
def test_stiffness_costs_neither_accuracy_nor_steps(rate, tolerance):
    r = compute_trajectory(cosine.address, [1.0], (0, 10), [rate], 0, rtol=tolerance, atol=tolerance, method=RADAU5)
    theirs = solve_ivp(
        lambda t, y: -rate * (y - np.cos(t)) - np.sin(t), (0, 10), [1.0], "Radau", rtol=tolerance, atol=tolerance
    )
    # The error estimate is damped by the stiffness, that of SciPy's Radau alike: its errors are up to 8 tolerances.
    assert abs(r.y[:, 0] - np.cos(r.t)).max() < 20 * tolerance
    # The controllers differ: ours lets a step grow by 6, SciPy's by 10, which is two steps more at the start.
    assert r.n_rhs < 1.3 * theirs.nfev + 14


def test_auto_goes_back_where_the_system_is_no_longer_stiff():
    """y' = -λ(t)(y - cos t) - sin t with λ of 1e5 between 10 and 20 only."""

    @compiled
    def now_and_then(t, y, dy, par, work):
        rate = 1e5 / ((1 + math.exp(-8 * (t - 10))) * (1 + math.exp(8 * (t - 20)))) + 0.1
        dy[0] = -rate * (y[0] - math.cos(t)) - math.sin(t)

    options = {"rtol": 1e-7, "atol": 1e-7, "other": RADAU5, "max_steps": 5000}
    r = compute_trajectory(now_and_then.address, [1.0], (0, 60), NONE, 0, **options)
    assert r.status is Status.SUCCESS and len(r.switched) >= 2
    assert 7 < r.switched[0] < 12 and 20 < r.switched[1] < 26
    assert abs(r.y[:, 0] - np.cos(r.t)).max() < 1e-5
    assert (np.diff(r.t) > 0).all()  # nothing is lost or put out twice at a switch
    again = compute_trajectory(now_and_then.address, [1.0], (0, 60), NONE, 0, t_eval=np.arange(61.0), **options)
    assert np.array_equal(again.t, np.arange(61.0))


def test_nan_rejects_a_step_and_the_end_of_the_domain_is_reported():
    options = {"rtol": 1e-6, "atol": 1e-10, "first_step": 5.0, "method": RADAU5}
    r = compute_trajectory(root.address, [1.0], (0.0, 1.9), NONE, 0, **options)
    assert r.status is Status.SUCCESS and r.n_rejected > 0
    np.testing.assert_allclose(r.y[-1, 0], (1 - 1.9 / 2) ** 2, atol=1e-5)
    past = compute_trajectory(root.address, [1.0], (0.0, 3.0), NONE, 0, **options)
    assert past.status in (Status.NOT_FINITE, Status.STEP_TOO_SMALL)
    assert past.t[-1] == pytest.approx(2, abs=1e-2)


# ------------------------------------------------------------------------------------------ through solve.integrate

X, Y, MU = sympy.symbols("x y mu", real=True)
VAN_DER_POL = derive.Dynamics(
    "van der Pol's oscillator",
    "ode",
    "t",
    (Equation(derive.Quantity("x"), Y), Equation(derive.Quantity("y"), MU * (1 - X**2) * Y - X)),
    (derive.Quantity("mu", meaning="damping"),),
)
ERF = derive.TeacherStudent(activation="erf").dynamics()
START = {"Q": [[0.5, 0.1], [0.1, 0.6]], "R": [[0.3, 0.02], [0.05, 0.25]]}
PARAMS = {"eta": 1.0, "sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}


def test_symbolic_jacobian_is_that_of_differences():
    rhs, slopes = solve.kernel(VAN_DER_POL), jacobian_kernel(VAN_DER_POL)
    y, par, work = np.array([0.7, -1.3]), np.array([5.0]), np.zeros(64)
    jacobian = np.empty(4)
    slopes(0.0, y, jacobian, par, work)
    step = 1e-6
    for j in range(2):
        up, down = np.empty(2), np.empty(2)
        rhs(0.0, y + step * np.eye(2)[j], up, par, work)
        rhs(0.0, y - step * np.eye(2)[j], down, par, work)
        # Central differences of a cubic: h² = 1e-12 times its third derivative, 20; rounding 1e-16/1e-6, times ten.
        np.testing.assert_allclose(jacobian.reshape(2, 2)[:, j], (up - down) / (2 * step), atol=5e-9)


def test_a_derivative_by_cases_and_none_at_a_jump():
    cases = derive.Dynamics(
        "by cases", "ode", "t", (Equation(derive.Quantity("x"), sympy.Piecewise((-(X**3), X > 1), (-X, True))),)
    )
    jacobian = np.empty(1)
    for x, slope in ((2.0, -12.0), (0.5, -1.0)):
        jacobian_kernel(cases)(0.0, np.array([x]), jacobian, np.zeros(0), np.zeros(8))
        assert jacobian[0] == slope
    jump = derive.Dynamics("jump", "ode", "t", (Equation(derive.Quantity("x"), -sympy.sign(X)),))
    assert jacobian_kernel(jump) is None and "sign" in why_none(jump)


@pytest.mark.parametrize("rtol", [1e-5, 1e-9])
def test_indexed_equations_take_the_same_steps_with_their_symbolic_jacobian(rtol):
    """But for the calls that differences take, n = 7 of them for each Jacobian at K = M = 2."""
    inputs = read_inputs(ERF, START, PARAMS)
    rhs, slopes = solve.kernel(ERF), jacobian_kernel(ERF)
    n_work = max(k.workspace_size(inputs.sizes) for k in (rhs, slopes))
    given = (rhs.address, pack(ERF.states, inputs.y0), (0, 20), parameter_vector(ERF, inputs), n_work)
    options = {"rtol": rtol, "atol": rtol / 100, "t_eval": [0, 10, 20], "method": RADAU5}
    differences, symbolic = (compute_trajectory(*given, jacobian_address=at, **options) for at in (0, slopes.address))
    assert symbolic.status is Status.SUCCESS
    assert abs(symbolic.n_steps - differences.n_steps) <= 0.02 * differences.n_steps
    assert symbolic.n_rhs < differences.n_rhs
    # Jacobians that differ by 1e-8 end the iteration, to within its tolerance, in other places.
    np.testing.assert_allclose(symbolic.y, differences.y, atol=10 * rtol)


def test_where_the_jacobian_is_from_is_said():
    found, origin = jacobian_for("Radau5", ERF)
    assert found is jacobian_kernel(ERF) and origin == "symbolic"
    assert jacobian_for("auto", ERF) == (
        None,
        "finite differences: the symbolic one of matrices takes seconds to compile; method='Radau5' uses it",
    )
    assert jacobian_for("auto", VAN_DER_POL)[1] == "symbolic"
    relu = derive.TeacherStudent(activation="relu").dynamics()
    found, origin = jacobian_for("Radau5", relu)
    assert found is None and origin.startswith("finite differences: no regular derivative of ")


@pytest.mark.parametrize("method", ["Radau5", "auto"])
def test_stiff_oscillator(method):
    given = (VAN_DER_POL, (0, 2000), {"x": 2.0, "y": 0.0}, {"mu": 1000.0})
    options = {"t_eval": [0, 500, 1000, 1500], "rtol": 1e-8, "atol": 1e-10}
    ours = solve.integrate(*given, method=method, max_steps=20_000, **options)
    theirs = solve.integrate(*given, method="scipy:Radau", **options)
    # The slow branch forgets errors, but the time of the jump from it, at 807, depends on them: by 1000 rtol of x.
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-5)
    assert ours.attrs["method"] == method
    with pytest.raises(solve.StepLimit):
        solve.integrate(*given, max_steps=20_000, **options)


@pytest.mark.parametrize("method", ["Radau5", "auto", "DOPRI5"])
def test_agrees_with_dop853_where_nothing_is_stiff(method):
    times = np.linspace(0, 20, 11)
    ours = solve.integrate(ERF, (0, 20), START, PARAMS, t_eval=times, rtol=1e-11, atol=1e-13)
    other = solve.integrate(ERF, (0, 20), START, PARAMS, t_eval=times, method=method, rtol=1e-7, atol=1e-9)
    for name in ("Q", "R", "eg"):  # a local tolerance of 1e-7, along 20 time units of a contracting flow: within 100
        np.testing.assert_allclose(ours[name], other[name], atol=1e-5, err_msg=name)
    if method == "auto":
        assert other.attrs["switched"] == "[]"


@pytest.mark.parametrize("method", ["Radau5", "auto", "DOPRI5"])
def test_events_at_any_method(method):
    event = solve.Event("eg - 0.02", terminal=True, direction=-1)
    sol = solve.integrate(ERF, (0, 100), START, PARAMS, events=[event], method=method, rtol=1e-7, atol=1e-9)
    ours = solve.integrate(ERF, (0, 100), START, PARAMS, events=[event])
    assert sol.attrs["status"] == "event"
    # The interpolants are of order 3 and 4: their errors in a step of Radau's are up to 1e-4.
    assert float(sol.t_event[0]) == pytest.approx(float(ours.t_event[0]), abs=1e-2)
