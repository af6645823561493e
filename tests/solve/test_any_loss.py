"""Losses whose gradient is no product of functions of one field each, where increments have fields of their own.

Those of parts in blocks, of the inputs' mean, of momentum buffers; against the reference, sampled steps, identities.
"""

import numpy as np
import pytest
import sympy
from scipy.special import erf

from effdyn.derive import TeacherStudent
from effdyn.solve import kernel
from effdyn.solve.kernels.layout import read_inputs, unpack
from effdyn.solve.kernels.reference import evaluate

LOSSES = {
    "huber": dict(loss="huber"),
    "smooth": dict(loss="log(cosh(phi-y))"),
    "logistic": dict(loss="logistic", labels="sign"),
}
ROUNDING = 1e-12
"""Of means over some 1e4 nodes, each with fields from a factor with pivots down to 0.05: 1e4 roundings at random."""
K, M, D = 2, 1, 24


NUMBERS = dict(eta=0.7, sigma=0.5, a=np.array([0.8, -1.1]), b=np.array([1.4]), flip=0.1, mu=0.6, beta=0.5)
BLOCKS = dict(input_variance=np.array([0.6, 1.7]), input_share=np.array([1 / 3, 2 / 3]))
PARTS = (slice(0, 8), slice(8, 24))
"""Directions of either block."""


def vectors():
    """Students, buffers, a teacher, and the mean of the inputs."""
    rng = np.random.default_rng(3)
    w, m, star = (size * rng.standard_normal((n, D)) for size, n in ((1, K), (0.5, K), (1, M)))
    return dict(w=w, m=m, star=star, mu=0.9 * np.ones((1, D)) / np.sqrt(D))


def overlaps(v, parts=None):
    """All that models ask for: overlaps of vectors, by block if there are such, and numbers."""

    def gram(one, other):
        each = [v[one][:, p] @ v[other][:, p].T / D for p in parts or [slice(None)]]
        return np.array(each) if parts else each[0]

    pairs = dict(Q="w w", R="w star", T="star star", P="w m", V="m m", S="m star")
    means = dict(mean="w", teacher_mean="star", buffer_mean="m")
    known = {name: gram(*pair.split()) for name, pair in pairs.items()}
    known |= {name: (v[who] @ v["mu"].T)[:, 0] / np.sqrt(D) for name, who in means.items()}
    return NUMBERS | BLOCKS | known | dict(input_mean=np.linalg.norm(v["mu"]))


def model_of(**options):
    return TeacherStudent(activation="erf", **options).dynamics()


def inputs_of(dyn, known):
    y0, params = ({q.name: known[q.name] for q in group} for group in (dyn.states, dyn.parameters))
    return read_inputs(dyn, y0, params)


@pytest.fixture
def drift(run):
    def of(known, **options):
        dyn = model_of(**options)
        inputs = inputs_of(dyn, known)
        return unpack(dyn.states, run(kernel(dyn), dyn, inputs), inputs.sizes)

    return of


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize(
    "options",
    [
        dict(loss="huber", inputs="blocks"),
        pytest.param(dict(loss="logistic", labels="sign", inputs="shifted"), marks=pytest.mark.slow),
        pytest.param(dict(loss="hinge", labels="sign", inputs="blocks", momentum="slow"), marks=pytest.mark.slow),
        pytest.param(dict(loss="huber", inputs="shifted", momentum="slow"), marks=pytest.mark.slow),
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_the_kernel_is_the_reference(drift, options):
    known = overlaps(vectors(), PARTS if options["inputs"] == "blocks" else None)
    dyn = model_of(**options)
    inputs = inputs_of(dyn, known)
    expected = evaluate(dyn, inputs.y0, inputs.params)
    for name, found in drift(known, **options).items():
        close(found, expected[name])


@pytest.mark.parametrize(
    "options",
    [dict(loss="logistic", labels="sign", inputs="blocks"), dict(loss="huber", inputs="shifted")],
    ids=lambda options: options["inputs"],
)
def test_the_module_is_the_reference(tmp_path, options):
    """Means given the others, by a pseudo-inverse instead of a triangular factor."""
    known = overlaps(vectors(), PARTS if options["inputs"] == "blocks" else None)
    dyn = model_of(**options)
    inputs = inputs_of(dyn, known)
    module: dict = {}
    exec(dyn.write(tmp_path / "equations.py").read_text(), module)
    expected = evaluate(dyn, inputs.y0, inputs.params)
    for name, found in module["rhs"](0.0, inputs.y0, inputs.params).items():
        close(found, expected[name])


def test_one_block_is_all_of_the_input(drift):
    whole = overlaps(vectors())
    one = overlaps(vectors(), [slice(None)]) | dict(input_variance=np.ones(1), input_share=np.ones(1))
    expected = drift(whole, **LOSSES["huber"])
    for name, found in drift(one, inputs="blocks", **LOSSES["huber"]).items():
        close(found[0], expected[name])


@pytest.mark.slow
def test_a_mean_of_no_length_is_none(drift):
    known = overlaps(vectors())
    without = known | {name: 0.0 * known[name] for name in ("mean", "teacher_mean", "input_mean")}
    expected = drift(known, **LOSSES["logistic"])
    found = drift(without, inputs="shifted", **LOSSES["logistic"])
    close(found["Q"], expected["Q"])
    close(found["R"], expected["R"])
    assert (found["mean"] == 0).all()


def test_slow_buffers_along_students_have_their_averages(drift):
    """m = c w: with A = E[F h], dP = A + V − μP, without momentum dQ = A + Aᵀ + FF, and dV = c (A + Aᵀ) + FF − 2μV."""
    c, v = 0.7, vectors()
    known = overlaps(v | dict(m=c * v["w"]))
    plain = drift(known, **LOSSES["smooth"])["Q"]
    found = drift(known, momentum="slow", **LOSSES["smooth"])
    A = found["P"] - known["V"] + known["mu"] * known["P"]
    close(found["V"], plain - (1 - c) * (A + A.T) - 2 * known["mu"] * known["V"])


@pytest.mark.parametrize("inputs", ["isotropic", "blocks", "shifted"])
def test_momentum_of_fixed_beta_is_a_larger_rate(inputs):
    """The very equations, with η/(1 − β) for η."""
    fixed, plain = (
        model_of(inputs=inputs, momentum="fixed", **LOSSES["huber"]),
        model_of(inputs=inputs, **LOSSES["huber"]),
    )
    eta, beta = (next(q.symbol for q in fixed.parameters if q.name == name) for name in ("eta", "beta"))
    for found, expected in zip(fixed.drift, plain.drift, strict=True):
        assert found.quantity == expected.quantity
        assert sympy.cancel(found.expr - expected.expr.xreplace({eta: eta / (1 - beta)})) == 0


def test_the_mean_of_sampled_steps_in_blocks(drift):
    """12 comparisons of means over 2e5 examples, each within 5 standard errors."""
    v, rng, n = vectors(), np.random.default_rng(0), 200_000
    known = overlaps(v, PARTS)
    deviation = np.sqrt(np.repeat(BLOCKS["input_variance"], [p.stop - p.start for p in PARTS]))
    x = rng.standard_normal((n, D)) * deviation
    w, star = v["w"], v["star"]
    h, h_star = x @ w.T / np.sqrt(D), x @ star.T / np.sqrt(D)
    a, eta = known["a"], known["eta"]
    residual = erf(h / np.sqrt(2)) @ a - erf(h_star / np.sqrt(2)) @ known["b"] - known["sigma"] * rng.standard_normal(n)
    F = -eta * a * np.sqrt(2 / np.pi) * np.exp(-(h**2) / 2) * np.clip(residual, -1, 1)[:, None]
    rates = drift(known, inputs="blocks", **LOSSES["huber"])
    for g, part in enumerate(PARTS):
        u, u_star = (x[:, part] @ one[:, part].T / np.sqrt(D) for one in (w, star))
        length = BLOCKS["input_share"][g] * BLOCKS["input_variance"][g]
        moved = F[:, :, None] * u[:, None, :]
        steps = dict(
            Q=moved + moved.swapaxes(1, 2) + length * F[:, :, None] * F[:, None, :],
            R=F[:, :, None] * u_star[:, None, :],
        )
        for name, each in steps.items():
            error = each.std(axis=0) / np.sqrt(n)
            assert (np.abs(each.mean(axis=0) - rates[name][g]) < 5 * error).all(), name
