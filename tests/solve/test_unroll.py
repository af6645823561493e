"""Straight-line kernels: equal to the loops and to the reference for every model, only where they pay, reproducible."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effdyn.derive import ModelError, TeacherStudent
from effdyn.solve import kernel
from effdyn.solve.kernels.kernel import generate
from effdyn.solve.kernels.layout import pack, read_inputs
from effdyn.solve.kernels.reference import evaluate
from effdyn.solve.kernels.unroll import LONGEST, unrolled

MODELS = {
    "erf": (TeacherStudent(activation="erf"), [(1, 1), (2, 1), (1, 3), (2, 2), (3, 2)]),
    "erf-trained": (TeacherStudent(activation="erf", second_layer="trained", weight_decay=True), [(2, 2)]),
    "linear": (TeacherStudent(activation="linear"), [(1, 1), (2, 3), (4, 4)]),
    "square": (TeacherStudent(activation="square", second_layer="trained"), [(1, 2), (2, 2)]),
    "relu": (TeacherStudent(activation="relu"), [(1, 1)]),
    "erf-He3": (TeacherStudent(activation="erf", teacher_activation="He3"), [(1, 1), (2, 1)]),
}
SLOW = ("relu", "erf-He3")
"""Whose loops take ten seconds to compile."""
CASES = [
    pytest.param(name, size, marks=pytest.mark.slow if name in SLOW else ())
    for name, (_, sizes) in MODELS.items()
    for size in sizes
]
DYNAMICS = {name: model.dynamics() for name, (model, _) in MODELS.items()}


def random_inputs(dynamics, sizes, rng):
    """Overlaps of random vectors, other entries of order one."""
    students, teachers = sizes
    numbers = {"K": students, "M": teachers}
    vectors = rng.normal(size=(students + teachers, students + teachers + 2)) / math.sqrt(students + teachers)
    gram = vectors @ vectors.T
    overlaps = {"Q": gram[:students, :students], "R": gram[:students, students:], "T": gram[students:, students:]}

    def value(q):
        return overlaps[q.name] if q.name in overlaps else rng.uniform(0.3, 1.5, [numbers[str(n)] for n in q.shape])

    return read_inputs(
        dynamics, {q.name: value(q) for q in dynamics.states}, {q.name: value(q) for q in dynamics.parameters}
    )


def source_of(dynamics):
    return generate(dynamics, [(e.quantity, e.expr) for e in dynamics.drift], "title")[0]


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_equals_the_reference_and_the_loops(name, sizes, rng, run):
    """To the rounding of sums of at most a hundred terms of either sign, which cancel by a factor of ten at most."""
    dynamics = DYNAMICS[name]
    straight, rolled = kernel(dynamics, dict(zip("KM", sizes, strict=True))), kernel(dynamics)
    assert straight.sizes == dict(zip("KM", sizes, strict=True)), "not unrolled: nothing is tested"
    for _ in range(5):
        inputs = random_inputs(dynamics, sizes, rng)
        result = run(straight, dynamics, inputs)
        reference = pack(dynamics.states, evaluate(dynamics, inputs.y0, inputs.params))
        tolerance = 1000 * 2.0**-52 * np.abs(reference).max()
        np.testing.assert_allclose(result, run(rolled, dynamics, inputs), rtol=0, atol=tolerance)
        np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(-3, 3))
def test_equals_the_loops_at_any_scale(seed, scale):
    """Vectors a thousand times shorter or longer: what is equal in exact arithmetic stays so to rounding."""
    dynamics, numbers = DYNAMICS["erf"], {"K": 2, "M": 2}
    inputs = random_inputs(dynamics, (2, 2), np.random.default_rng(seed))
    inputs.y0["Q"] *= 100**scale
    inputs.y0["R"] *= 10**scale
    straight, rolled = (call(k, dynamics, inputs) for k in (kernel(dynamics, numbers), kernel(dynamics)))
    np.testing.assert_allclose(straight, rolled, rtol=0, atol=1e-11 * np.abs(rolled).max())


def call(compiled, dynamics, inputs):
    from effdyn.solve.kernels.layout import parameter_vector

    y, work = pack(dynamics.states, inputs.y0), np.zeros(compiled.workspace_size(inputs.sizes))
    out = np.empty_like(y)
    compiled(0.0, y, out, parameter_vector(dynamics, inputs), work)
    return out


def test_nan_and_impossible_overlaps_give_nan_where_the_loops_do(run):
    dynamics = DYNAMICS["erf"]
    params = {"eta": 1.0, "sigma": 0.1, "T": np.eye(2), "a": 1.0, "b": 1.0}
    for Q in ([[0.5, 4.0], [4.0, 0.5]], [[0.5, np.nan], [np.nan, 0.5]]):
        inputs = read_inputs(dynamics, {"Q": np.eye(2), "R": np.full((2, 2), 0.1)}, params)
        inputs.y0["Q"][:] = Q
        results = [run(k, dynamics, inputs) for k in (kernel(dynamics, inputs.sizes), kernel(dynamics))]
        assert np.isnan(results[0]).any()
        assert np.array_equal(*map(np.isnan, results))


def test_large_systems_and_numerical_expectations_keep_their_loops():
    assert unrolled(source_of(DYNAMICS["erf"]), (4, 4)) is None
    dynamics = DYNAMICS["erf"]
    assert kernel(dynamics, {"K": 10, "M": 10}) is kernel(dynamics)
    tanh = TeacherStudent(activation="tanh").dynamics()
    assert unrolled(source_of(tanh), (1, 1)) is None


def test_operations_are_shared_and_fit_the_limit():
    """Symmetric states once; the arguments of 30 arc sines, as many as there are, in one loop over 32."""
    source, scratch = unrolled(source_of(DYNAMICS["erf"]), (2, 2))
    body = source.partition("def kernel")[2]
    assert body.count("asin(") == 1
    assert scratch == 32
    assert all(body.count(f"y[{n}]") == 1 for n in range(7))
    assert body.count("\n") < LONGEST


def test_a_kernel_for_some_sizes_refuses_others():
    compiled = kernel(DYNAMICS["erf"], {"K": 2, "M": 1})
    with pytest.raises(ModelError, match="sizes"):
        compiled.workspace_size({"K": 1, "M": 2})


@pytest.mark.parametrize("sizes", [{"K": 2}, {"K": 2, "M": 0}, {"K": 2, "M": 1.5}, 2])
def test_sizes_must_be_complete_and_whole(sizes):
    with pytest.raises(ModelError, match="sizes"):
        kernel(DYNAMICS["erf"], sizes)


PRINT = """
from effdyn.derive import TeacherStudent
from effdyn.solve.kernels.kernel import generate
from effdyn.solve.kernels.unroll import unrolled
d = TeacherStudent(activation="erf").dynamics()
print(unrolled(generate(d, [(e.quantity, e.expr) for e in d.drift], "title")[0], (2, 2))[0])
"""


def test_source_does_not_depend_on_the_order_of_sets():
    texts = {
        subprocess.run(
            [sys.executable, "-c", PRINT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert "work[q] = asin(work[q])" in texts.pop()


@pytest.mark.parametrize(
    "statement",
    [
        "out[0] = y[0] if y[1] > 0.0 and y[2] > 0.0 else 1.0",
        "cholesky(work, 0, 2, 2)",
        "for i in range(int(y[0])):\n        out[i] = 1.0",
        "out[0] = 1.0/0.0",
        "out[0] = (-2.0)**0.5",
        "while y[0] > 1.0:\n        out[0] = 1.0",
        "out[0] = unknown",
        "y[0] = 1.0",
    ],
)
def test_what_cannot_be_straightened_is_left_alone(statement):
    assert unrolled(f"def kernel(t, y, out, par, work):\n    {statement}\n", (1,)) is None


def test_statements_by_hand():
    """Conditions on indices are decided; those on numbers stay; sums of one operation are computed once."""
    source = """
def kernel(t, y, out, par, work):
    K = int(par[0])
    for i in range(K):
        s = 0.0
        for j in range(i, K):
            s += (1.0 if i == j else 0.0) * (y[i] + y[j])
        work[i] = s
        out[i] = work[i] if y[i] > 0.0 else -(y[i] * 1.0)
"""
    text, scratch = unrolled(source, (2,))
    assert scratch == 0
    namespace = {}
    exec(text, namespace)
    out = [None, None]
    namespace["kernel"](0.0, [3.0, -2.0], out, [2.0], [])
    assert out == [6.0, 2.0]
    assert "range" not in text
