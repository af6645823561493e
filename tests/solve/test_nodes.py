"""Kernels with numerical expectations: equal to the reference at the same nodes, at singular covariances too."""

import json
import math

import numpy as np
import pytest
import sympy

from effdyn.derive import Dynamics, Equation, FieldFamily, ModelError, Moment, Quantity, TeacherStudent
from effdyn.derive.activation import X, activation
from effdyn.derive.increments import NOISE
from effdyn.derive.moments import Joint, Univariate
from effdyn.solve import integrate, kernel, numerical_error
from effdyn.solve.kernels.kernel import observables_kernel
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs
from effdyn.solve.kernels.reference import evaluate, observe

K, M = (sympy.Symbol(name, integer=True, positive=True) for name in ("K", "M"))
I, J, L, N_, M_ = (sympy.Symbol(name, integer=True, positive=True) for name in ("i", "j", "k", "n", "m"))
H, H_STAR, PHI = (sympy.IndexedBase(name, real=True) for name in ("h", "h_star", "phi"))
Q = Quantity("Q", (I, L), (K, K), symmetric=True)
R = Quantity("R", (I, M_), (K, M))
T = Quantity("T", (N_, M_), (M, M), symmetric=True)
A, B = Quantity("a", (I,), (K,)), Quantity("b", (N_,), (M,))
ETA, SIGMA = Quantity("eta", minimum=0.0), Quantity("sigma", minimum=0.0)
BIAS = Quantity("bias", (I,), (K,))
COVARIANCE = (
    (("h", "h"), sympy.Lambda((I, L), Q.symbol)),
    (("h", "h_star"), sympy.Lambda((I, N_), R.base[I, N_])),
    (("h_star", "h_star"), sympy.Lambda((N_, M_), T.symbol)),
)
FAMILIES = (FieldFamily(H, K, "h"), FieldFamily(H_STAR, M, "h*"))
OUTPUT = sympy.Sum(A.base[J] * H[J], (J, 1, K))
DERIVED = (
    (("phi", "phi"), sympy.Lambda((I, L), sympy.Sum(A.base[J] * A.base[N_] * Q.base[J, N_], (J, 1, K), (N_, 1, K)))),
    (("phi", "h"), sympy.Lambda((I, L), sympy.Sum(A.base[J] * Q.base[J, L], (J, 1, K)))),
    (("phi", "h_star"), sympy.Lambda((I, L), sympy.Sum(A.base[J] * R.base[J, L], (J, 1, K)))),
)
SIZES = [(1, 1), (2, 2), (3, 2)]
PIECES = sympy.Piecewise((sympy.exp(X), X < -1), (1, X < 0.5), (sympy.Min(X, 2) + sympy.Abs(X), X > 0.75), (-X, True))


def committee(student, teacher, loss=lambda phi, y: (y - phi) ** 2 / 2, mean=()):
    """Both layers trained on any loss, with every expectation over all fields at once."""
    g, g_star = Univariate.of("g", activation(student)), Univariate.of("g_star", activation(teacher))
    phi = sympy.Sum(A.base[J] * g(H[J]), (J, 1, K))
    y = sympy.Sum(B.base[N_] * g_star(H_STAR[N_]), (N_, 1, M)) + SIGMA.base * NOISE
    p, q = sympy.symbols("p q", real=True)
    force = -sympy.diff(loss(p, q), p).subs({p: phi, q: y}, simultaneous=True)

    def kick(i):
        return ETA.base * force * A.base[i] * g.derivative()(H[i])

    equations = (
        Equation(Q, Joint(kick(I) * H[L]) + Joint(kick(L) * H[I]) + Joint(kick(I) * kick(L))),
        Equation(R, Joint(kick(I) * H_STAR[M_])),
        Equation(A, ETA.base * Joint(force * g(H[I]))),
    )
    observables = (Equation(Quantity("loss"), Joint(loss(phi, y))),)
    parameters = (ETA, SIGMA, T, B, *((BIAS,) if mean else ()))
    return Dynamics(
        "committee",
        "ode",
        "steps/d",
        equations,
        parameters,
        observables,
        FAMILIES,
        COVARIANCE,
        mean,
        status="numerical",
    )


def logistic(phi, y):
    return sympy.log(1 + sympy.exp(-y * phi))


MODELS = {
    "tanh-erf": committee("tanh", "erf"),
    "relu-sign": committee("relu", "sign(x)"),
    "gaussian-logistic": committee("exp(-x**2/2)", "tanh", logistic),
    "pieces": committee(PIECES, sympy.Max(X, -1, X / 2)),
    "shifted": committee("tanh", "tanh", mean=(("h", sympy.Lambda(I, BIAS.symbol)),)),
}


def problem(dynamics, students, teachers, rng, singular=False):
    """Random overlaps and parameters, as arguments of ``integrate``; singular: students that lie in each other's span
    and in the teachers'."""
    vectors = rng.normal(size=(students + teachers, students + teachers + 2))
    if singular:
        vectors[0] = vectors[students]  # a student that is a teacher
        vectors[students - 1] = vectors[0]
    gram = vectors @ vectors.T / vectors.shape[1]
    values = {
        "Q": gram[:students, :students],
        "R": gram[:students, students:],
        "T": gram[students:, students:],
        "a": rng.normal(size=students),
        "b": rng.normal(size=teachers),
        "bias": rng.normal(size=students),
        "eta": 0.3,
        "sigma": 0.4,
    }
    named = {q.name for q in dynamics.parameters}
    states = {q.name for q in dynamics.states}
    return {n: v for n, v in values.items() if n in states}, {n: v for n, v in values.items() if n in named}


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_kernels_equal_the_reference_at_the_same_nodes(model, singular, rng, run):
    dynamics = MODELS[model]
    for students, teachers in SIZES:
        y0, params = problem(dynamics, students, teachers, rng, singular)
        inputs = read_inputs(dynamics, y0, params)
        expected = pack(dynamics.states, evaluate(dynamics, y0, params))
        # sums of 16384 terms of order one with weights that add to one: rounding is a few ulp of the largest term
        np.testing.assert_allclose(run(kernel(dynamics), dynamics, inputs), expected, rtol=0, atol=2e-13)
        loss = run(observables_kernel(dynamics), dynamics, inputs)
        np.testing.assert_allclose(loss, observe(dynamics, y0, params)["loss"], rtol=1e-13)


def test_expectations_over_all_fields_agree_with_closed_forms(rng, run):
    """E[h_i h*_n], E[h_i² (h*_n)²] and E[exp(h*_n) h_i] are known: the nodes have the covariance that they should."""
    i, n = H[I], H_STAR[M_]
    dynamics = Dynamics(
        "known",
        "ode",
        "t",
        (
            Equation(Q, Joint(H[I] * H[L])),
            Equation(R, Joint(i**2 * n**2) + Joint(sympy.exp(n) * i) + Joint(n * NOISE**2) + Joint(NOISE)),
        ),
        (T,),
        (),
        FAMILIES,
        COVARIANCE,
    )
    y0, params = problem(dynamics, 1, 1, rng)
    q, r, t = y0["Q"][0, 0], y0["R"][0, 0], params["T"][0, 0]
    result = run(kernel(dynamics), dynamics, read_inputs(dynamics, y0, params))
    expected = [q, q * t + 2 * r**2 + math.exp(t / 2) * r]
    error = numerical_error(dynamics, y0, params)
    tolerance = 10 * np.array([error.Q.item(), error.R.item()]) + 1e-9
    assert (tolerance < 1e-3).all(), "too coarse to notice a wrong covariance"
    assert (np.abs(result - expected) < tolerance).all()


@pytest.mark.parametrize("least", [-1e-9, -1e-3])
def test_indefinite_covariances_are_nan_beyond_what_integrators_overstep(least, rng, run):
    """A student of unit length whose overlap with a unit teacher is just above one, and one well above."""
    dynamics = MODELS["tanh-erf"]
    y0, params = problem(dynamics, 1, 1, rng)
    inputs = read_inputs(dynamics, {**y0, "Q": [[1.0]], "R": [[0.0]]}, {**params, "T": [[1.0]]})
    inputs.y0["R"][:] = math.sqrt(1 - least)
    assert np.isnan(run(kernel(dynamics), dynamics, inputs)).all() == (least < -1e-8)


def test_zero_students_are_no_obstacle(rng, run):
    """All students at zero: columns of zeros, and every field zero."""
    dynamics = MODELS["tanh-erf"]
    y0, params = problem(dynamics, 2, 2, rng)
    y0 = {**y0, "Q": np.zeros((2, 2)), "R": np.zeros((2, 2))}
    result = run(kernel(dynamics), dynamics, read_inputs(dynamics, y0, params))
    np.testing.assert_allclose(result, pack(dynamics.states, evaluate(dynamics, y0, params)), atol=1e-13)
    assert (result != 0).any()


def numbered():
    """Named units and a derived field: moments with h*_1 and with φ = Σ a_j h_j, fused sums beside them."""
    phi, one = PHI[1], H_STAR[1]
    g = Univariate.of("g", activation("erf"))
    sign = Univariate.of("s", activation("x**3"))
    drift = (
        Equation(Q, Moment(g(H[I]), g(H[L])) * Moment(g(phi), g(one))),
        Equation(R, sympy.Sum(A.base[J] * Moment(g(phi), H[J], g(H_STAR[M_])), (J, 1, K)) * R.base[I, 1] + R.symbol),
    )
    observables = (
        Equation(Quantity("x"), Moment(sign(phi), one) + Joint(sympy.tanh(OUTPUT) * H_STAR[1]) * T.base[1, 1]),
        Equation(
            Quantity("sums"),
            sympy.Sum(A.base[J] * Moment(g(H[J]), g(one)), (J, 1, K))
            - sympy.Sum(B.base[N_] * Moment(g(H_STAR[N_]), g(one)), (N_, 1, M)),
        ),
    )
    families = (*FAMILIES, FieldFamily(PHI, sympy.Integer(1), "phi", derived=True))
    return Dynamics("numbered", "ode", "t", drift, (A, B, T), observables, families, COVARIANCE + DERIVED)


@pytest.mark.parametrize("singular", [False, True])
def test_numbered_units_and_derived_fields(singular, rng, run):
    dynamics = numbered()
    for students, teachers in SIZES:
        y0, params = problem(dynamics, students, teachers, rng, singular)
        inputs = read_inputs(dynamics, y0, params)
        for compiled, reference in (
            (kernel(dynamics), pack(dynamics.states, evaluate(dynamics, y0, params))),
            (observables_kernel(dynamics), np.array(list(observe(dynamics, y0, params).values()))),
        ):
            np.testing.assert_allclose(run(compiled, dynamics, inputs), reference, rtol=1e-12, atol=1e-12)
    assert "N = K + M" in kernel(dynamics).source, "derived families do not keep students and teachers apart"


def test_a_unit_that_is_not_there_is_refused(rng, run):
    drift = (Equation(Q, Q.symbol), Equation(R, R.symbol * Moment(H_STAR[3], H_STAR[3])))
    dynamics = Dynamics("third", "ode", "t", drift, (T,), (), FAMILIES, COVARIANCE)
    y0, params = problem(dynamics, 2, 2, rng)
    with pytest.raises(ModelError, match="at least M = 3"):
        read_inputs(dynamics, y0, params)
    y0, params = problem(dynamics, 2, 3, rng)
    np.testing.assert_allclose(
        run(kernel(dynamics), dynamics, read_inputs(dynamics, y0, params))[3:], (y0["R"] * params["T"][2, 2]).ravel()
    )


# -- how wrong the numbers are -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_the_estimated_error_bounds_the_difference_to_a_much_finer_rule(model, rng, run):
    """It is not less than that difference, and small enough to be of use."""
    dynamics = MODELS[model]
    y0, params = problem(dynamics, 2, 2, rng)
    inputs = read_inputs(dynamics, y0, params)
    errors = numerical_error(dynamics, y0, params)
    assert set(errors.data_vars) == {"Q", "R", "a", "loss"}
    estimate = pack(dynamics.states, {name: error.values for name, error in errors.items()})
    difference = np.abs(run(kernel(dynamics), dynamics, inputs) - run(kernel(dynamics), dynamics, inputs, level=1))
    assert (difference <= estimate).all()
    assert 0 < estimate.max() < 0.02, "a rule of so many nodes is better than that"


def test_exact_dynamics_have_no_numerical_error(rng):
    g = Univariate.of("g", activation("erf"))
    drift = (Equation(Q, Moment(g(H[I]), g(H[L]))), Equation(R, -R.symbol))
    dynamics = Dynamics("exact", "ode", "t", drift, (T,), (), FAMILIES, COVARIANCE)
    y0, params = problem(dynamics, 2, 1, rng)
    errors = numerical_error(dynamics, y0, params)
    assert all((error == 0).all() for error in errors.values())
    assert "numerical_error" not in integrate(dynamics, (0, 0.1), y0, params).attrs


def test_integrate_states_the_error_at_both_ends(rng):
    dynamics = MODELS["tanh-erf"]
    y0, params = problem(dynamics, 1, 1, rng)
    solution = integrate(dynamics, (0, 1), y0, params, rtol=1e-8)
    stated = json.loads(solution.attrs["numerical_error"])
    assert stated["t"] == [0.0, 1.0]
    first, last = (numerical_error(dynamics, s, params) for s in (y0, solution[["Q", "R", "a"]].isel(t=-1)))
    for name in ("Q", "R", "a", "loss"):
        np.testing.assert_allclose(stated[name], [first[name].max(), last[name].max()], rtol=1e-6)


def test_a_linear_teachers_output_leads_the_nodes_of_kernel_and_reference():
    dynamics = TeacherStudent(activation="tanh", teacher_activation="linear", labels="sign").dynamics()
    y0 = {"Q": [[0.7, 0.1], [0.1, 0.5]], "R": [[0.3, 0.1], [-0.1, 0.2]]}
    params = {"eta": 0.7, "flip": 0.1, "T": [[1.0, 0.3], [0.3, 0.8]], "a": [1.0, 0.6], "b": [1.0, 0.5]}
    inputs = read_inputs(dynamics, y0, params)
    compiled = kernel(dynamics)
    out = np.empty(7)
    par, work = parameter_vector(dynamics, inputs), np.empty(compiled.workspace_size(inputs.sizes))
    compiled(0.0, pack(dynamics.states, inputs.y0), out, par, work)
    expected = pack(dynamics.states, evaluate(dynamics, y0, params))
    assert np.allclose(out, expected, rtol=0, atol=1e-12)  # sums of 24000 terms of order one times weights


HUBER = sympy.Piecewise((X**2 / 2, sympy.Abs(X) <= 1), (sympy.Abs(X) - sympy.Rational(1, 2), True))
KINKED = {
    "lines": committee("tanh", "erf", lambda phi, y: HUBER.subs(X, y - phi)),
    "lines, units": committee(
        "relu", "erf", lambda phi, y: sympy.Max(0, 1 - phi * sympy.Rational(3, 2)) + (y - phi) ** 2
    ),
    "planes": committee("tanh", "tanh", lambda phi, y: sympy.Max(0, 1 - phi) * (2 + sympy.sign(y))),
    "planes, shifted": committee(
        "tanh", "erf", lambda phi, y: sympy.Max(0, 1 - phi) * sympy.sign(y), (("h", sympy.Lambda(I, BIAS.symbol)),)
    ),
}
"""Label noise is one more variable in each."""


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize(
    "model",  # what else they have, a mean or kinks of the units too, costs 15 s each: to compile
    [pytest.param(name, marks=() if name in ("lines", "planes") else pytest.mark.slow) for name in KINKED],
)
def test_kernels_put_their_nodes_between_kinks_as_the_reference_does(model, singular, rng, run):
    dynamics = KINKED[model]
    assert {table.kind for table in dynamics.tables} >= {model.split(",")[0]}
    for students, teachers in ((1, 1), (2, 2)):
        y0, params = problem(dynamics, students, teachers, rng, singular)
        inputs = read_inputs(dynamics, y0, params)
        expected = pack(dynamics.states, evaluate(dynamics, y0, params))
        # roots by eight steps: rounding may decide on which side the last one ends, 1e-13 apart
        np.testing.assert_allclose(run(kernel(dynamics), dynamics, inputs), expected, rtol=0, atol=1e-12)


def test_kinks_at_indefinite_covariances_are_nan_and_zero_students_no_obstacle(rng, run):
    dynamics = KINKED["planes"]
    y0, params = problem(dynamics, 1, 1, rng)
    inputs = read_inputs(dynamics, {**y0, "Q": [[1.0]], "R": [[0.0]]}, {**params, "T": [[1.0]]})
    inputs.y0["R"][:] = 1.1
    assert np.isnan(run(kernel(dynamics), dynamics, inputs)).all()
    y0, params = problem(dynamics, 2, 2, rng)
    y0 = {**y0, "Q": np.zeros((2, 2)), "R": np.zeros((2, 2))}
    result = run(kernel(dynamics), dynamics, read_inputs(dynamics, y0, params))
    np.testing.assert_allclose(result, pack(dynamics.states, evaluate(dynamics, y0, params)), atol=1e-12)


@pytest.mark.parametrize("model", ["lines", "planes"])
def test_the_estimated_error_of_split_kinks_bounds_the_true_one(model, rng, run):
    dynamics = KINKED[model]
    y0, params = problem(dynamics, 2, 2, rng)
    inputs = read_inputs(dynamics, y0, params)
    errors = numerical_error(dynamics, y0, params)
    estimate = pack(dynamics.states, {name: errors[name].values for name in ("Q", "R", "a")})
    difference = np.abs(run(kernel(dynamics), dynamics, inputs) - run(kernel(dynamics), dynamics, inputs, level=1))
    assert (difference <= estimate).all()
    assert 0 < estimate.max() < 5e-3, "no better than a rule that blurs kinks"
