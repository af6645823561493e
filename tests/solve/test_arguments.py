"""Arguments that several solvers share: each is used, or refused by name."""

import inspect
import math

import numpy as np
import pytest
import sympy

from effdyn import derive, solve
from effdyn.derive import ModelError
from effdyn.derive.diffusion import Amplitude
from effdyn.derive.dynamics import Equation
from effdyn.solve.arguments import DEFAULTS, events_of

X, W = derive.Quantity("x"), derive.Quantity("W")
DECAY = derive.Dynamics("decay", "ode", "t", (Equation(X, -sympy.sympify(X.symbol)),))
NOISY = derive.Dynamics(
    "decay with noise", "sde", "t", DECAY.drift, diffusion=(Amplitude(X, W, sympy.Rational(1, 10)),)
)
CALL = {"t_span": (0, 1), "y0": {"x": 1.0}, "params": {}}


@pytest.mark.parametrize("solver", [solve.integrate, solve.ensemble])
@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("rtol", 10.0, "less than 1"),
        ("rtol", 1.0, "less than 1"),
        ("rtol", 1e-16, "at least"),
        ("atol", math.nan, "positive"),
        ("max_steps", 0, "positive"),
        ("max_step", math.nan, "positive"),
        ("max_step", -1.0, "positive"),
        ("first_step", -1, "positive"),
        ("first_step", math.inf, "positive"),
        ("method", "dop853", "did you mean 'DOP853'"),
        ("method", "ADAMS", "did you mean 'Adams'"),
        ("method", "Radau", "did you mean 'Radau5'|did you mean 'scipy:Radau'"),
    ],
)
def test_bad_ones_are_named(solver, argument, value, words):
    with pytest.raises(ModelError, match=words) as caught:
        solver(DECAY, **CALL, **{argument: value})
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("argument", "value"), [("rtol", 1e-3), ("atol", 1e-3), ("max_step", 0.1), ("first_step", 0.1)]
)
def test_steps_of_one_length_take_no_tolerance(argument, value):
    with pytest.raises(ModelError, match="the length dt") as caught:
        solve.integrate(NOISY, **CALL, dt=0.1, **{argument: value})
    assert caught.value.argument == argument
    assert solve.integrate(NOISY, **CALL, dt=0.1).sizes["run"] == 1


def test_defaults_are_those_of_the_signature():
    """Else what nobody has given would be refused."""
    stated = inspect.signature(solve.integrate).parameters
    assert dict(DEFAULTS) == {name: stated[name].default for name in DEFAULTS}


def test_what_no_solver_knows_is_said_of_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"^integrate\(\) got 'foo', unknown to equations of kind 'sde'$"):
        solve.integrate(NOISY, **CALL, dt=0.1, foo=1)
    with pytest.raises(TypeError, match="did you mean 'runs'"):
        solve.integrate(NOISY, **CALL, dt=0.1, rums=2)
    with pytest.raises(TypeError, match=r"^integrate\(\) got 'foo', unknown to equations of kind 'ode'$"):
        solve.integrate(DECAY, **CALL, foo=1)


@pytest.mark.parametrize(("argument", "value"), [("max_step", 0.1), ("first_step", 0.1), ("wall_limit", 1.0)])
def test_other_kinds_take_no_limits_of_steps(argument, value):
    teacher_student = derive.TeacherStudent(activation="linear")
    start = {"Q": [[0.5]], "R": [[0.1]]}
    params = {"eta": 0.5, "sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0}
    training = teacher_student.dynamics().fluctuations()
    times_two = derive.Dynamics("doubling", "map", "steps", (Equation(X, 2 * X.symbol),))
    for dynamics, y0, given in ((training, start, params), (times_two, {"x": 1.0}, {})):
        with pytest.raises(ModelError, match="nothing, with") as caught:
            solve.integrate(dynamics, (0, 1), y0, given, **{argument: value})
        assert caught.value.argument == argument


def test_events_are_stated_singly_or_in_sequence():
    half = solve.Event("x - 0.5")
    for stated in ("x - 0.5", half, ["x - 0.5"], (half,)):
        assert events_of(stated) == [half]
    assert events_of(()) == []
    found = solve.integrate(DECAY, **CALL, events="x - 0.5")
    np.testing.assert_allclose(found.t_event, [math.log(2)], rtol=1e-9)  # rtol 1e-10 of x, whose slope is x


def test_an_ensemble_says_of_a_member_only_what_is_so_in_that_member():
    model = derive.TeacherStudent(activation="erf").dynamics()
    start = {"Q": [[0.5]], "R": [[0.1]]}
    params = {"eta": np.array([0.1, 0.2]), "sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 1.0}
    for y0, given, argument in (
        (start, params | {"foo": 1}, "params['foo']"),
        (start, {k: v for k, v in params.items() if k != "sigma"}, "params"),
        (start, params | {"sigma": -1.0}, "params['sigma']"),
        ({"Q": [[0.5]]}, params, "y0"),
    ):
        with pytest.raises(ModelError) as caught:
            solve.ensemble(model, (0, 1), y0, given)
        assert caught.value.argument == argument and "member" not in str(caught.value)
    with pytest.raises(ModelError, match="so it is in member 1"):
        solve.ensemble(model, (0, 1), start, params | {"eta": np.array([0.1, -1.0])})
