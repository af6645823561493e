"""Inputs in blocks, compiled: equal to the reference, to isotropic inputs where they are such, to what is known."""

import numpy as np
import pytest

from effdyn.derive import LinearRegression, ModelError, TeacherStudent
from effdyn.solve import ensemble, fixed_points, integrate, kernel
from effdyn.solve.kernels.kernel import loops_source, observables_kernel
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs, unpack
from effdyn.solve.kernels.reference import evaluate, observe
from effdyn.solve.stochastic.system import with_diffusion_observed

MODELS = {
    "erf": {},
    "relu": dict(activation="relu"),
    "cubic-trained": dict(activation="x**3/3 + x**2/2", second_layer="trained", weight_decay=True, batch=True),
    "biases": dict(biases=True),
    "slow": dict(momentum="slow"),
    "fixed": dict(momentum="fixed"),
    "perceptron": dict(activation="linear", labels="sign", loss="logistic"),
}
SUMS = 1e-13
"""Of numbers of order one, each a sum of up to some hundred products of such: 500 roundings of 1e-16."""
NODES_SUMMED = 1e-11
"""Of sums over 16384 nodes of products of eight factors, in another order: a hundred roundings each of 1e-13."""
LOGISTIC = 1e-9
"""The error of the rule over one field for the logistic function, in Cov(h, ψ) by Stein's lemma and without."""


def model_of(name, inputs):
    return TeacherStudent(**{"activation": "erf", **MODELS[name]}, inputs=inputs)


def example(dyn, B, K, M, rng, d=60):
    """Overlaps of random vectors in B blocks, and parameters of order one."""
    w = rng.standard_normal((B, 2 * K + M, d)) / np.sqrt(d * B)
    gram = w @ w.swapaxes(1, 2)
    one, two, hers = slice(K), slice(K, 2 * K), slice(2 * K, None)
    overlaps = dict(Q=(one, one), P=(one, two), V=(two, two), R=(one, hers), S=(two, hers), T=(hers, hers))
    blocks = {name: gram[:, rows, columns] for name, (rows, columns) in overlaps.items()}
    vectors = dict(a=K, b=M, bias=K, teacher_bias=M)
    values = {name: rng.standard_normal(size) for name, size in vectors.items()}
    values |= dict(input_variance=rng.uniform(0.3, 2, B), input_share=rng.dirichlet(np.ones(B)), batch=3.0)
    rest = {q.name: rng.uniform(0.2, 0.5) for q in dyn.parameters if not q.indices}
    known = rest | values | blocks
    return {q.name: known[q.name] for q in dyn.states}, {q.name: known[q.name] for q in dyn.parameters}


def rates(dyn, y0, params, run):
    inputs = read_inputs(dyn, y0, params)
    return unpack(dyn.states, run(kernel(dyn), dyn, inputs), inputs.sizes)


def without_blocks(arrays, weight):
    """Overlaps of all directions, in units in which their variance is 1."""
    kept = {name: a for name, a in arrays.items() if not name.startswith("input_")}
    return {name: np.tensordot(weight, a, 1) if np.ndim(a) == 3 else a for name, a in kept.items()}


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("erf", "high-dimensional"),
        ("perceptron", "gradient-flow"),
        *(
            pytest.param(name, limit, marks=pytest.mark.slow)  # each compiles two kernels
            for name in MODELS
            for limit in ("high-dimensional", "gradient-flow")
            if (name, limit) not in (("erf", "high-dimensional"), ("perceptron", "gradient-flow"))
            and (name, limit) != ("slow", "gradient-flow")  # there is no such limit
        ),
    ],
)
def test_kernels_equal_the_reference_and_isotropic_inputs(name, limit, run, rng):
    dyn, isotropic = (model_of(name, inputs).dynamics(limit) for inputs in ("blocks", "isotropic"))
    tolerance = LOGISTIC if name == "perceptron" else SUMS
    for B, K, M in [(1, 2, 1), (2, 1, 3), (3, 3, 2)]:
        y0, params = example(dyn, B, K, M, rng)
        found = rates(dyn, y0, params, run)
        slow = evaluate(dyn, y0, params)
        for state, expected in slow.items():
            np.testing.assert_allclose(found[state], expected, rtol=SUMS, atol=SUMS * abs(expected).max())

        # equal variances: the blocks' overlaps add up to those of isotropic inputs
        params["input_variance"] = np.ones(B)
        found = rates(dyn, y0, params, run)
        plain = rates(isotropic, without_blocks(y0, np.ones(B)), without_blocks(params, np.ones(B)), run)
        for state, expected in plain.items():
            total = found[state].sum(axis=0) if found[state].ndim == 3 else found[state]
            np.testing.assert_allclose(total, expected, rtol=tolerance, atol=tolerance * abs(expected).max())


@pytest.mark.parametrize(
    "activation",
    ["linear", *(pytest.param(g, marks=pytest.mark.slow) for g in ("erf", "relu", "He3", "x*exp(-x**2/2)"))],
)
def test_gradients_by_regression_on_the_fields_instead_of_steins_lemma(activation, run, rng):
    """E[F u] = Cov(u, h) C⁻¹ E[F h]: a part's field is its regression on all fields plus what is independent of them.

    With one student E[F h] stands in the equations for isotropic inputs whose overlaps are C = Σ λ_g Ω_g: in dR/dt, and
    in half of dQ/dt. The η² term is π_g λ_g times theirs.
    """
    B, M = 3, 2
    limits = "high-dimensional", "gradient-flow"
    models = [TeacherStudent(activation=activation, inputs=inputs) for inputs in ("blocks", "isotropic")]
    blocks, plain = ({limit: model.dynamics(limit) for limit in limits} for model in models)
    y0, params = example(blocks["high-dimensional"], B, 1, M, rng)
    lam, share, eta = params["input_variance"], params["input_share"], params["eta"]

    def both(limit):
        """dQ/dt (of each block; of all), dR/dt."""
        p = {n: v for n, v in params.items() if limit == "high-dimensional" or n != "eta"}
        here = rates(blocks[limit], y0, p, run)
        there = rates(plain[limit], without_blocks(y0, lam), without_blocks(p, lam), run)
        return here, there

    here, there = both("gradient-flow")
    gram = np.block([[y0["Q"], y0["R"]], [y0["R"].swapaxes(1, 2), params["T"]]])
    average = np.append(there["Q"][0, 0] / 2, there["R"][0])  # E[F h], student first
    regressed = lam[:, None] * (gram @ np.linalg.solve(np.tensordot(lam, gram, 1), average))
    # the condition number of C, some tens, multiplies the rounding of the solution
    np.testing.assert_allclose(here["Q"][:, 0, 0], 2 * regressed[:, 0], rtol=1e-11)
    np.testing.assert_allclose(here["R"][:, 0], regressed[:, 1:], rtol=1e-11)

    here_noisy, there_noisy = both("high-dimensional")
    kicks = there_noisy["Q"][0, 0] - eta * there["Q"][0, 0]
    np.testing.assert_allclose(here_noisy["Q"][:, 0, 0] - eta * here["Q"][:, 0, 0], share * lam * kicks, rtol=1e-11)


def test_a_linear_student_is_linear_regression(run, rng):
    """The squared error in each block, c_g = Q_g − 2 R_g + T_g, by a derivation that averages by pairings."""
    dyn = TeacherStudent(activation="linear", inputs="blocks").dynamics()
    y0, params = example(dyn, 4, 1, 1, rng)
    params |= dict(a=np.ones(1), b=np.ones(1))
    error = (y0["Q"] - 2 * y0["R"] + params["T"])[:, 0, 0]
    regression = LinearRegression("one-pass", covariance="general").dynamics()
    known = dict(eta=params["eta"], sigma=params["sigma"], lam=params["input_variance"], p=params["input_share"])
    expected = evaluate(regression, {"c": error}, known)["c"]
    found = rates(dyn, y0, params, run)
    np.testing.assert_allclose((found["Q"] - 2 * found["R"])[:, 0, 0], expected, rtol=SUMS, atol=SUMS)


def test_what_blocks_share_is_computed_once_and_by_half():
    """The η² term, by far the longest, stands in front of the loop over blocks, for i <= k."""
    source = loops_source(TeacherStudent(activation="erf", inputs="blocks").dynamics())
    before, _, after = source.partition("# dQ[g, i, k]/dt")
    assert "for k in range(i, K):" in before and "asin(" in before.partition("def kernel")[2]
    assert "asin(" not in after and "shared_Q0 + i*K + k" in after


def test_overlaps_stay_symmetric_though_stored_in_full(rng):
    dyn = TeacherStudent(activation="erf", inputs="blocks").dynamics()
    y0, params = example(dyn, 2, 3, 2, rng)
    sol = integrate(dyn, (0, 50), y0=y0, params=params)
    Q = sol.Q.values
    # each entry is integrated by itself, of rates that differ by rounding: far below the tolerance 1e-10 of the solver
    assert abs(Q - Q.swapaxes(-1, -2)).max() < 1e-12 * abs(Q).max()
    assert sol.Q.dims == ("t", "block", "student", "student_2")


def test_ensembles_integrate_members_with_spectra_of_their_own(rng):
    dyn = TeacherStudent(activation="erf", inputs="blocks").dynamics()
    y0, params = example(dyn, 2, 1, 1, rng)
    spectra = np.array([[0.5, 2.0], [1.0, 1.0], [0.1, 3.0]])
    many = ensemble(dyn, (0, 5), y0=y0, params=params | dict(input_variance=spectra), t_eval=[0, 5], progress=False)
    for member, spectrum in enumerate(spectra):
        one = integrate(dyn, (0, 5), y0=y0, params=params | dict(input_variance=spectrum), t_eval=[0, 5])
        np.testing.assert_allclose(many.R.isel(member=member, t=-1), one.R.isel(t=-1), rtol=1e-8, atol=1e-9)


def test_mistakes_are_named(rng):
    dyn = TeacherStudent(activation="erf", inputs="blocks").dynamics()
    y0, params = example(dyn, 2, 2, 1, rng)

    def refused(match, y0=y0, **changed):
        with pytest.raises(ModelError, match=match):
            read_inputs(dyn, y0, params | changed)

    refused(r"params\['T'\].*\(B, M, M\)", T=np.eye(1))
    refused(r"add up to 1", input_share=[0.5, 0.6])
    refused(r"input_variance.*at least 0", input_variance=[-1.0, 1.0])
    refused("no negative eigenvalue", y0 | dict(R=y0["R"] + np.array([0.0, 9.0])[:, None, None]))
    refused("symmetric matrix for each block", y0 | dict(Q=y0["Q"] + np.triu(np.ones((2, 2)), 1)))


@pytest.mark.slow
def test_training_ends_at_a_fixed_point_with_the_spectrum_of_its_noise(rng):
    """For a linear student the stationary error is known: eg = ½ σ² A/(1 − A) with A = Σ η π λ/2 (LinearRegression)."""
    dyn = TeacherStudent(activation="linear", inputs="blocks").dynamics()
    params = dict(
        eta=0.5, sigma=0.3, T=[[[0.6]], [[0.4]]], a=1.0, b=1.0, input_variance=[0.5, 2.0], input_share=[0.6, 0.4]
    )
    found = fixed_points(dyn, params=params, K=1, count=4, rng=0)
    stability = 0.5 * 0.5 * (0.6 * 0.5 + 0.4 * 2.0)
    np.testing.assert_allclose(found.eg, 0.5 * 0.3**2 * stability / (1 - stability), rtol=1e-8)


def test_fields_of_parts_at_the_nodes_are_those_of_the_reference():
    """The Langevin form's covariances, by a rule over the fields of all parts, which have two indices."""
    dyn = with_diffusion_observed(model_of("erf", "blocks").dynamics().sde())
    rng = np.random.default_rng(5)
    y0, params = example(dyn, 2, 2, 1, rng)
    inputs = read_inputs(dyn, y0, params | {"d": 1.0})
    compiled = observables_kernel(dyn)
    out = np.empty(sum(np.prod([inputs.sizes[str(n)] for n in e.quantity.shape]) for e in dyn.observables))
    compiled(
        0.0,
        pack(dyn.states, inputs.y0),
        out,
        parameter_vector(dyn, inputs),
        np.empty(compiled.workspace_size(inputs.sizes)),
    )
    expected = np.concatenate([np.ravel(v) for v in observe(dyn, inputs.y0, inputs.params).values()])
    np.testing.assert_allclose(out, expected, rtol=0, atol=NODES_SUMMED * np.abs(expected).max())


def test_the_langevin_form_refuses_the_values_that_the_model_does():
    dyn = model_of("erf", "blocks").dynamics().sde()
    y0, params = example(dyn, 2, 1, 1, np.random.default_rng(0))
    with pytest.raises(ModelError, match="add up to 1"):
        read_inputs(dyn, y0, params | {"d": 50.0, "input_share": np.array([0.5, 0.4])})
