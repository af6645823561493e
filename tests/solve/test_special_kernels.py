"""Kernels that call special functions of several covariances: equal to mpmath at any overlaps, coincident ones too."""

import ast
import math

import numpy as np
import pytest
import sympy

from effdyn.derive import TeacherStudent
from effdyn.derive.gaussian import conditional_sign
from effdyn.derive.gaussian.special import sign4
from effdyn.solve import kernel
from effdyn.solve.kernels.kernel import generate, observables_kernel
from effdyn.solve.kernels.layout import pack, read_inputs
from effdyn.solve.kernels.reference import evaluate, observe
from effdyn.solve.kernels.sources import CALLABLE, TEXTS, paste

MODELS = {
    "relu": TeacherStudent(activation="relu", second_layer="trained"),
    "hinge": TeacherStudent(activation="linear", loss="hinge", labels="sign"),
    "logistic": TeacherStudent(activation="linear", loss="logistic", labels="sign"),
    "biases": TeacherStudent(activation="erf", biases=True),
}


def values(dynamics, students, teachers, rng, coincident):
    """Overlaps of random vectors; coincident: all students are the first teacher."""
    vectors = rng.normal(size=(students + teachers, students + teachers + 2))
    if coincident:
        vectors[:students] = vectors[students]
    gram = vectors @ vectors.T / vectors.shape[1]
    gram = (gram + gram.T) / 2
    known = {"Q": gram[:students, :students], "R": gram[:students, students:], "T": gram[students:, students:]}
    if coincident:  # to the last bit
        known["Q"], known["R"] = np.full_like(known["Q"], known["T"][0, 0]), np.tile(known["T"][0], (students, 1))
    sizes = {"K": students, "M": teachers}
    for q in (*dynamics.states, *dynamics.parameters):
        shape = tuple(sizes[str(s)] for s in q.shape)
        known.setdefault(q.name, np.array(0.1) if q.name == "flip" else rng.uniform(0.3, 1.0, shape))
    return {q.name: known[q.name] for q in dynamics.states}, {q.name: known[q.name] for q in dynamics.parameters}


@pytest.mark.parametrize("coincident", [False, True])
@pytest.mark.parametrize(
    ("model", "largest"),
    [
        *((model, 2) for model in MODELS if model != "biases"),
        ("biases", 1),
        pytest.param("biases", 2, marks=pytest.mark.slow),
    ],
)
def test_kernels_equal_the_reference(model, largest, coincident, rng, run):
    """Thresholds cost the reference 10 s at two students and teachers."""
    dynamics = MODELS[model].dynamics()
    for students, teachers in ((1, 1), (2, 2))[:largest]:
        if coincident and model == "biases":
            continue  # conditional expectations at thresholds that coincide are 0/0 in the equations themselves
        y0, params = values(dynamics, students, teachers, rng, coincident)
        inputs = read_inputs(dynamics, y0, params)
        expected = pack(dynamics.states, evaluate(dynamics, y0, params))
        # four signs are good to 1e-12; they stand in sums of at most 16 terms of order one
        np.testing.assert_allclose(run(kernel(dynamics), dynamics, inputs), expected, rtol=1e-11, atol=2e-11)
        observed = run(observables_kernel(dynamics), dynamics, inputs)
        reference = pack([e.quantity for e in dynamics.observables], observe(dynamics, y0, params))
        np.testing.assert_allclose(observed, reference, rtol=1e-11, atol=2e-11)


def test_relu_stays_small():
    """Its expectation of four functions has a dozen terms of six special functions: once each in the double sum."""
    dynamics = MODELS["relu"].dynamics()
    source, _ = generate(dynamics, [(e.quantity, e.expr) for e in dynamics.drift], "relu")
    equations = source[source.index("def kernel") :]
    assert equations.count(f"{sign4.__name__}(") == 2, "on the diagonal and below it"
    assert len(source) < 40_000


def test_sources_are_complete():
    """Whatever a function calls comes before it."""
    for name in CALLABLE:
        defined = set()
        for statement in ast.parse(paste([name])).body:
            calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            assert {call.func.id for call in calls} & set(TEXTS) <= defined, name
            defined |= {statement.name} if isinstance(statement, ast.FunctionDef) else set()
        assert name in defined


def test_the_sign_at_a_threshold_equals_mpmath(rng):
    namespace = {"math": math, "njit": lambda *a, **k: lambda f: f}
    exec(paste(["sign1_given1"]), namespace)
    factors = rng.normal(size=(50, 2, 2))
    for factor, (m1, mp) in zip(factors, rng.normal(size=(50, 2)), strict=True):
        (c11, c1p), (_, cpp) = factor @ factor.T
        exact = conditional_sign.sign1_given1(*map(sympy.Float, (c11, c1p, cpp, m1, mp))).evalf(17)
        # the conditional variance loses digits where the fields nearly coincide, 1e-16 over the relative variance
        tolerance = 1e-14 + 1e-15 / (1 - c1p**2 / (c11 * cpp))
        assert abs(namespace["sign1_given1"](c11, c1p, cpp, m1, mp) - float(exact)) < tolerance
    assert namespace["sign1_given1"](0.3, 0.3, 0.3, 0.7, 0.7) == 0.0
    assert namespace["sign1_given1"](0.3, 0.3, 0.3, 0.7, 0.8) == -1.0
    assert math.isnan(namespace["sign1_given1"](0.3, 0.4, 0.3, 0.7, 0.8))
