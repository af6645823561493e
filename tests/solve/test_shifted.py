"""Inputs with a mean, compiled: equal to the reference, to centred inputs without one, and to biases."""

import numpy as np
import pytest

from effdyn.derive import TeacherStudent
from effdyn.solve import kernel
from effdyn.solve.kernels.layout import read_inputs, unpack
from effdyn.solve.kernels.reference import evaluate

SUMS = 1e-12
"""Of numbers of order one, each a sum of up to some thousand products of such (closed forms with means are long)."""
each_activation = pytest.mark.parametrize(
    "activation", ["linear", *(pytest.param(g, marks=pytest.mark.slow) for g in ("square", "erf", "He3"))]
)


def example(dyn, K, M, rng, d=60):
    """Overlaps of random vectors and of a random mean, and parameters of order one."""
    w = rng.standard_normal((1 + K + M, d)) / np.sqrt(d)
    gram = w @ w.T
    students, teachers = slice(1, 1 + K), slice(1 + K, None)
    known = dict(Q=gram[students, students], R=gram[students, teachers], T=gram[teachers, teachers])
    known |= dict(mean=gram[0, students], teacher_mean=gram[0, teachers], input_mean=np.sqrt(gram[0, 0]))
    known |= dict(a=rng.standard_normal(K), b=rng.standard_normal(M), eta=0.6, sigma=0.3, eta_bias=0.7)
    known |= dict(bias=known["mean"], teacher_bias=known["teacher_mean"])
    return {q.name: known[q.name] for q in dyn.states}, {q.name: known[q.name] for q in dyn.parameters}


def rates(dyn, y0, params, run):
    inputs = read_inputs(dyn, y0, params)
    return unpack(dyn.states, run(kernel(dyn), dyn, inputs), inputs.sizes)


@each_activation
def test_kernels_equal_the_reference_and_centred_inputs(activation, run, rng):
    dyn, centred = (TeacherStudent(activation=activation, inputs=i).dynamics() for i in ("shifted", "isotropic"))
    for K, M in [(1, 1), (2, 3)]:
        y0, params = example(dyn, K, M, rng)
        found = rates(dyn, y0, params, run)
        for state, expected in evaluate(dyn, y0, params).items():
            np.testing.assert_allclose(found[state], expected, rtol=SUMS, atol=SUMS * abs(expected).max())

        y0, params = y0 | dict(mean=np.zeros(K)), params | dict(teacher_mean=np.zeros(M), input_mean=0.0)
        found = rates(dyn, y0, params, run)
        plain = rates(centred, *({q.name: side[q.name] for q in quantities} for side, quantities in
                                 ((y0, centred.states), (params, centred.parameters))), run)  # fmt: skip
        for state, expected in plain.items():
            np.testing.assert_allclose(found[state], expected, rtol=SUMS, atol=SUMS * abs(expected).max())
        np.testing.assert_allclose(found["mean"], 0.0, atol=SUMS)


@each_activation
def test_means_are_biases_that_belong_to_the_vectors(activation, run, rng):
    """A network with biases m has the same F on centred inputs; there E[F] and E[F (h − m)] stand in its equations.

    Here E[F h] = E[F (h − m)] + E[F] m, and, u − ν² being regressed on the fields with Cov(u, h) = m,
    E[F u] = ν² E[F] + mᵀ C⁻¹ E[F (h − m)]: by an inverse, where the equations use gradients.
    """
    limit = "gradient-flow"
    dyn = TeacherStudent(activation=activation, inputs="shifted").dynamics(limit)
    biased = TeacherStudent(activation=activation, biases=True).dynamics(limit)
    y0, params = example(dyn, 1, 2, rng)
    known = y0 | params | dict(bias=y0["mean"], teacher_bias=params["teacher_mean"], eta_bias_over_eta=1.0)
    there = rates(biased, *({q.name: known[q.name] for q in side} for side in (biased.states, biased.parameters)), run)
    found = rates(dyn, y0, params, run)
    force, along = there["bias"][0], np.append(there["Q"][0, 0] / 2, there["R"][0])
    means = np.append(y0["mean"], params["teacher_mean"])
    gram = np.block([[y0["Q"], y0["R"]], [y0["R"].T, params["T"]]])
    whole = along + force * means
    np.testing.assert_allclose(found["Q"][0, 0], 2 * whole[0], rtol=1e-10)
    np.testing.assert_allclose(found["R"][0], whole[1:], rtol=1e-10)
    expected = params["input_mean"] ** 2 * force + means @ np.linalg.solve(gram, along)
    np.testing.assert_allclose(found["mean"][0], expected, rtol=1e-10)
