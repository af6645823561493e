"""A user's numerical functions in kernels: the same numbers as with SymPy's, and the same source everywhere."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import sympy
from numba import njit

from effdyn import derive, solve
from effdyn.derive import NotYet
from effdyn.derive.moments import Joint, Univariate
from effdyn.derive.user_function import user_function
from effdyn.derive.user_source import MATH, NUMPY, canonical, values_of
from effdyn.solve.kernels.kernel import compile_kernel, observables_kernel
from effdyn.solve.kernels.layout import read_inputs
from effdyn.solve.kernels.reference import FUNCTIONS, Interpreter
from effdyn.solve.kernels.sources import user_text


def own_tanh(x):
    return math.tanh(x)


def own_sech2(x):
    return 1 - math.tanh(x) ** 2


def mix(x):
    return np.arctan(x) / 2 + x / math.sqrt(1 + x * x)


def mix_slope(x):
    return 0.5 / (1 + x * x) + (1 + x * x) ** -1.5


STATE = {"Q": np.array([[0.5, 0.1], [0.1, 0.8]]), "R": np.array([[0.3, 0.05], [-0.1, 0.4]])}
PARAMS = {"eta": 0.7, "sigma": 0.2, "T": np.array([[1.0, 0.2], [0.2, 1.1]]), "b": [1.0, 0.5]}
OWN, TANH = (own_tanh, own_sech2), "tanh"


def rates(run, model, state, params):
    """Right-hand sides and observables at a state, packed."""
    dynamics = model.dynamics()
    inputs = read_inputs(dynamics, state, params)
    kernels = (solve.kernel(dynamics), observables_kernel(dynamics))
    return np.concatenate([run(k, dynamics, inputs) for k in kernels])


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"second_layer": "trained", "output_scale": "1/sqrt(K)"}, marks=pytest.mark.slow),
        pytest.param({"teacher_activation": "He3"}, marks=pytest.mark.slow),
        pytest.param({"biases": True}, marks=pytest.mark.slow),
        pytest.param({"loss": "huber"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_right_hand_sides_are_those_of_the_named_activation(options, run):
    # The same nodes, the same function: what differs is tanh itself, 3 ulp off in loops over nodes, and the order of
    # sums of up to 1e5 terms of one size.
    own, named = (derive.TeacherStudent(activation=g, **options) for g in (OWN, TANH))
    trained = "second_layer" in options
    state = STATE | ({"a": [0.9, 1.2]} if trained else {}) | ({"bias": [0.2, -0.3]} if "biases" in options else {})
    params = PARAMS | ({"eta_a": 0.3} if trained else {"a": [0.9, 1.2]})
    params |= {"eta_bias": 0.4, "teacher_bias": [0.1, 0.5]} if "biases" in options else {}
    found, expected = rates(run, own, state, params), rates(run, named, state, params)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_kernels_agree_with_the_reference_interpreter(run):
    """The functions themselves, called by name in the reference, which shares no code with kernels."""
    model = derive.TeacherStudent(activation=(mix, mix_slope), teacher_activation=OWN)
    dynamics, params = model.dynamics(), PARAMS | {"a": [0.9, 1.2]}
    units = {model.activation.expr: mix, model.activation.derivative(): mix_slope}
    units |= {model.teacher_activation.expr: own_tanh}
    called = {e.func.__name__: np.vectorize(function, otypes=[float]) for e, function in units.items()}
    expected = Interpreter(dynamics, {**STATE, **params}, functions=FUNCTIONS | called).arrays(dynamics.drift)
    found = run(solve.kernel(dynamics), dynamics, read_inputs(dynamics, STATE, params))
    upper = expected["Q"][np.triu_indices(2)]
    # sums of up to 1e5 terms of one size, in another order
    np.testing.assert_allclose(found, [*upper, *expected["R"].ravel()], rtol=1e-12, atol=1e-13)


def test_teacher_and_student_may_be_different_functions(run):
    own = derive.TeacherStudent(activation=(mix, mix_slope), teacher_activation=OWN)
    named = derive.TeacherStudent(activation="atan(x)/2 + x/sqrt(1 + x**2)", teacher_activation=TANH)
    params = PARAMS | {"a": 1.0}
    np.testing.assert_allclose(rates(run, own, STATE, params), rates(run, named, STATE, params), rtol=1e-12, atol=1e-13)


def test_it_solves_to_the_same_curve():
    times, params = np.linspace(0, 3, 5), PARAMS | {"a": 1.0}
    own, named = (
        solve.integrate(derive.TeacherStudent(activation=g).dynamics(), (0, 3), STATE, params, t_eval=times, rtol=1e-9)
        for g in (OWN, TANH)
    )
    for name in ("Q", "R", "eg"):
        np.testing.assert_allclose(own[name], named[name], rtol=1e-8)  # ten times the solver's own


def test_the_source_brings_the_functions_along_under_names_of_their_own():
    source = solve.kernel(derive.TeacherStudent(activation=(mix, mix_slope)).dynamics()).source
    model = derive.TeacherStudent(activation=(mix, mix_slope)).activation
    names = [model.expr.func.__name__, model.derivative().func.__name__]
    for name in names:
        assert source.count(f"def {name}(x):") == 1
        assert source.index(f"def {name}(x):") < source.index("def kernel(")
    assert "import numpy as np" in source


def test_the_source_is_the_same_whatever_the_hash_seed():
    code = (
        "from effdyn import derive, solve; from effdyn.solve.kernels.kernel import generate\n"
        "text = 'def g(x): return math.atan(x)\\ndef s(x): return 1/(1 + x*x)'\n"
        "d = derive.TeacherStudent(activation=text).dynamics()\n"
        "print(generate(d, [(e.quantity, e.expr) for e in d.drift], 'title')[0])"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert "def g_" in texts.pop()


def test_an_undeclared_derivative_in_an_equation_is_an_error_by_name():
    dynamics = derive.TeacherStudent(activation=OWN).dynamics()
    beyond = Univariate.of("g", dynamics.model.activation, 2)
    h = sympy.IndexedBase("h", real=True)
    R = next(e.quantity for e in dynamics.drift if e.quantity.name == "R")
    with pytest.raises(NotYet, match="derivative of own_sech2"):
        compile_kernel(dynamics, [(R, Joint(beyond(h[R.indices[0]])))], "beyond", "An equation with g''.")


def test_compiled_functions_compute_what_python_does():
    """Every function of the language, each in its domain and outside it, in one compiled function."""
    one = [f"math.{n}" for n in sorted(MATH)] + [f"np.{n}" for n in sorted(NUMPY)]
    two = {"atan2", "pow", "hypot", "copysign", "arctan2", "fmax", "fmin", "fmod", "logaddexp", "maximum", "minimum"}
    two |= {"power"}
    constants = {"pi", "e", "inf"}
    calls = []
    for name in one:
        last = name.partition(".")[2]
        calls.append(name if last in constants else f"{name}(x, 0.7)" if last in two else f"{name}(x)")
    calls += ["abs(x)", "float(x)", "max(x, 0)", "min(x, 0.5)", "pow(x, 2)", "x % 0.4", "x // 0.4", "x ** -2"]
    calls += ["x if 0 < x <= 1 else -x", "x if x > 1 or not x < 0.5 else 1"]
    sources = [canonical(f"def f(x): return {call}", "activation") for call in calls]
    lines = [f"    out[{n}] = {source.partition('return ')[2]}" for n, source in enumerate(sources)]
    spaces = {"math": math, "np": np}
    exec("\n".join(["def every(x, out):", *lines]), spaces)
    compiled, out = njit(error_model="numpy")(spaces["every"]), np.empty(len(calls))
    for x in (0.3, 1.7, -0.6):
        compiled(x, out)
        for call, source, found in zip(calls, sources, out, strict=True):
            expected = float(values_of(source)(x))
            # libraries agree to a few ulp; Gamma, a product of many factors, less
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15, err_msg=f"{call} at x = {x}")


def test_branches_loops_and_local_variables_compile():
    series = """
def series(x):
    total, term = 0.0, x
    for n in range(40):
        total += term / (2 * n + 1)
        term = -term * x * x / (n + 1)
    if abs(x) > 3:
        return math.copysign(0.8862269254527580, x)
    return total

def gauss(x):
    y: float = -x * x
    return math.exp(y) if abs(x) <= 3 else 0
"""
    function = user_function(series)
    spaces = {}
    exec("import math\nfrom numba import njit\n" + user_text(function.__name__), spaces)
    for x in (-1.3, 0.2, 2.5, 4.0):
        expected = math.sqrt(math.pi) / 2 * (math.erf(x) if abs(x) <= 3 else math.copysign(1, x))
        assert spaces[function.__name__](x) == pytest.approx(expected, rel=1e-12)  # terms of up to e^(x²) cancel
