"""The auditor against right equations, none of which it may accuse, and against seeded mistakes, all of which it names.

The equations are written here from the papers in NumPy, as a user would: Saad & Solla, Phys. Rev. E 52, 4225 (1995);
Goldt et al., NeurIPS 2019. A mistake is a replacement in their source text, as a slip of the pen is.
"""

import math
import re
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import sympy

from effdyn.derive import LinearNetwork, LinearRegression, ModelError, NotYet, Quantity, TeacherStudent
from effdyn.solve.kernels.layout import pack, unpack
from effdyn.validate.audit.audit import audit
from effdyn.validate.audit.coefficients import recognised
from effdyn.validate.audit.selection import explanations

ERF = TeacherStudent(activation="erf")
TRAINED = TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)
RELU = TeacherStudent(activation="relu")


def erf_moments(C):
    """I_2, J_2, I_3, I_4 of all fields, from the covariance matrix C: arrays over 2, 2, 3 and 4 fields."""
    v, n = 1 + np.diag(C), len(C)
    i, k, f, e = np.ix_(*[range(n)] * 4)
    I2 = 2 / math.pi * np.arcsin(C / np.sqrt(np.outer(v, v)))
    J2 = 2 / math.pi / np.sqrt(np.outer(v, v) - C**2)
    i3, k3, f3 = i[..., 0], k[..., 0], f[..., 0]
    lam = v[i3] * v[f3] - C[i3, f3] ** 2
    I3 = 2 / math.pi / np.sqrt(lam) * (C[k3, f3] * v[i3] - C[i3, k3] * C[i3, f3]) / v[i3]
    l4 = v[i] * v[k] - C[i, k] ** 2
    l0 = l4 * C[f, e] - C[k, f] * C[k, e] * v[i] - C[i, f] * C[i, e] * v[k]
    l0 = l0 + C[i, k] * (C[i, f] * C[k, e] + C[i, e] * C[k, f])
    l1, l2 = (l4 * v[g] - C[k, g] ** 2 * v[i] - C[i, g] ** 2 * v[k] + 2 * C[i, k] * C[i, g] * C[k, g] for g in (f, e))
    I4 = 4 / math.pi**2 / np.sqrt(l4) * np.arcsin(np.clip(l0 / np.sqrt(l1 * l2), -1, 1))
    return I2, J2, I3, I4


def relu_moments(C):
    """I_3 = E[Θ(h_i) h_k max(0, h_f)] of all fields; to first order in the learning rate nothing else is needed."""
    variance = np.diag(C)
    root = np.sqrt(np.maximum(np.outer(variance, variance) - C**2, 0))
    angle = np.arcsin(np.clip(C / np.sqrt(np.outer(variance, variance)), -1, 1))
    I3 = C[None] * (math.pi / 2 + angle)[:, None, :] + C[:, :, None] * (root / variance[:, None])[:, None, :]
    return None, None, I3 / (2 * math.pi), None


HEAD = """
def rhs(y, params):
    Q, R, T, b = y["Q"], y["R"], params["T"], params["b"]
    a = y["a"] if "a" in y else params["a"]
    K, M = R.shape
    I2, J2, I3, I4 = moments(np.block([[Q, R], [R.T, T]]))
"""
DRIFT = """
    half = a[:, None] * (np.einsum("n,ikn->ik", b, I3[:K, :K, K:]) - np.einsum("j,ikj->ik", a, I3[:K, :K, :K]))
    to_teacher = np.einsum("m,inm->in", b, I3[:K, K:, K:]) - np.einsum("j,inj->in", a, I3[:K, K:, :K])
"""
ERF_SOURCE = (
    HEAD
    + DRIFT
    + """
    eta, sigma = params["eta"], params["sigma"]
    students = np.einsum("j,l,ikjl->ik", a, a, I4[:K, :K, :K, :K])
    cross = np.einsum("j,n,ikjn->ik", a, b, I4[:K, :K, :K, K:])
    teachers = np.einsum("n,m,iknm->ik", b, b, I4[:K, :K, K:, K:])
    variance = np.outer(a, a) * (students - 2 * cross + teachers + sigma**2 * J2[:K, :K])
    dQ = eta * (half + half.T) + eta**2 * variance
    dR = eta * a[:, None] * to_teacher
"""
)
ERF_RIGHT = ERF_SOURCE + "    return dict(Q=dQ, R=dR)\n"
TRAINED_RIGHT = (
    ERF_SOURCE
    + """
    kappa, eta_a = params["kappa"], params["eta_a"]
    da = eta_a * (np.einsum("n,in->i", b, I2[:K, K:]) - np.einsum("j,ij->i", a, I2[:K, :K])) - kappa * a
    return dict(Q=dQ - 2 * kappa * Q, R=dR - kappa * R, a=da)
"""
)
RELU_RIGHT = HEAD + DRIFT + "    return dict(Q=half + half.T, R=a[:, None] * to_teacher)\n"

SOURCES = {
    "erf": (ERF, "high-dimensional", ERF_RIGHT, erf_moments),
    "trained": (TRAINED, "high-dimensional", TRAINED_RIGHT, erf_moments),
    "relu": (RELU, "gradient-flow", RELU_RIGHT, relu_moments),
}


def written(system, *replacements):
    """Return the dynamics of a system, and the function that its source text defines after replacements."""
    model, limit, source, moments = SOURCES[system]
    for old, new in replacements:
        assert source.count(old) >= 1, old
        source = source.replace(old, new)
    module = {"np": np, "moments": moments}
    exec(textwrap.dedent(source), module)
    return model.dynamics(limit=limit), module["rhs"]


@pytest.mark.parametrize("system", list(SOURCES))
def test_published_equations_are_not_accused(system):
    dynamics, rhs = written(system)
    found = audit(rhs, dynamics)
    assert found.passed and found.findings == ()
    assert max(found.differences.values()) < 1e-7
    assert abs(found.table.coefficient.values - 1).max() < 1e-6


MISTAKES = [
    # system, replacements, equations, what is said
    ("erf", [("sigma**2 *", "sigma *")], "Q", "noise standard deviation used as variance"),
    ("erf", [("sigma**2 *", "sigma**4 *")], "Q", "noise variance used as standard deviation"),
    ("erf", [(" + sigma**2 * J2[:K, :K]", "")], "Q", r"missing — in the term eta\^2 sigma\^2"),
    ("erf", [("eta**2 * variance", "eta * variance")], "Q", r"eta where eta\^2 is meant — in the eta\^2 terms"),
    ("erf", [("+ eta**2 * variance", "")], "Q", r"missing — in the eta\^2 terms"),
    ("erf", [("eta**2 * variance", "eta**2 * variance / 2")], "Q", r"half of what.* in the eta\^2 terms"),
    ("erf", [("eta**2 * variance", "eta**2 * variance / K")], "Q", r"a factor 1/K too many — in the eta\^2 terms"),
    ("erf", [("- 2 * cross", "- cross")], "Q", r"half of what.*— in the term -2 eta\^2"),
    ("erf", [("- 2 * cross", "+ 2 * cross")], "Q", r"sign reversed — in the term -2 eta\^2"),
    ("erf", [("half + half.T", "2 * half")], "Q", r"Q not symmetrised"),
    ("erf", [("(half + half.T)", "half")], "Q", r"missing — in the I_3\(k, \.\.\.\) terms"),
    (
        "erf",
        [("n,ikn->ik", "n,kin->ik"), ("j,ikj->ik", "j,kij->ik")],
        "Q",
        r"I_3\(k,i,n\) where I_3\(i,k,n\) is meant|order 2,1,3",
    ),
    ("erf", [("m,inm->in", "m,imn->in")], "R", r"I_3\(i,m,n\) where I_3\(i,n,m\) is meant"),
    ("erf", [("j,inj->in", "j,jni->in")], "R", r"I_3\(j,n,i\) where I_3\(i,n,j\) is meant"),
    ("erf", [("j,l,ikjl->ik", "j,l,ijkl->ik")], "Q", r"I_4\(i,j,k,l\) where I_4\(i,k,j,l\) is meant"),
    ("erf", [('- np.einsum("j,inj->in", a, I3[:K, K:, :K])', "")], "R", r"missing — in the term -eta a_i"),
    ("erf", [("j,inj->in", "i,ini->in")], "R", r"the sum over j has only j = i"),
    ("erf", [("j,l,ikjl->ik", "j,j,ikjj->ik")], "Q", r"the sum over . has only j = l"),
    ("erf", [("np.outer(a, a) * (students", "(students")], "Q", r"lacks a_i.*a_k|a taken for 1"),
    ("erf", [("dR = eta * a[:, None] * to_teacher", "dR = eta * to_teacher")], "R", r"lacks a_i"),
    ("erf", [('m,inm->in", b', 'm,inm->in", np.ones(M)')], "R", r"lacks b_m|b taken for 1"),
    ("erf", [("[R.T, T]", "[R.T, np.eye(M)]")], "Q, R", r"T taken for the identity"),
    ("erf", [("[R.T, T]", "[R.T, np.diag(np.diag(T))]")], "Q, R", r"T taken for its diagonal"),
    ("erf", [('params["b"]', 'np.ones(len(params["T"]))')], "Q, R", r"b taken for 1"),
    ("erf", [('eta, sigma = params["eta"]', 'eta, sigma = 2 * params["eta"]')], "Q, R", r"as for a loss without"),
    (
        "erf",
        [("return dict(Q=dQ, R=dR)", "return dict(Q=dQ / eta, R=dR / eta)")],
        "Q, R",
        r"multiplied by 1/eta|lacks eta",
    ),
    ("erf", [("return dict(Q=dQ", "return dict(Q=np.triu(dQ)")], "Q", r"missing below the diagonal"),
    (
        "erf",
        [("to_teacher\n    return", "to_teacher + eta**2 * sigma**2 * a[:, None] * J2[:K, K:]\n    return")],
        "R",
        r"which does not belong here: eta\^2 sigma\^2 a_i J_2\(i,n\)",
    ),
    ("trained", [("2 * kappa * Q", "kappa * Q")], "Q", r"half of what.*— in the term -2 kappa Q_ik"),
    ("trained", [("- 2 * kappa * Q", "- 2 * eta * kappa * Q")], "Q", r"a factor eta too many — in the term -2 kappa"),
    (
        "trained",
        [('kappa, eta_a = params["kappa"]', 'kappa, eta_a = eta * params["kappa"]')],
        "Q, R, a",
        r"a factor eta too many",
    ),
    ("trained", [("- kappa * a", "")], "a", r"missing — in the term -kappa a_i"),
    ("trained", [("da = eta_a *", "da = eta *")], "a", r"eta where eta_a is meant"),
    ("trained", [("R=dR - kappa * R", "R=dR")], "R", r"missing — in the term -kappa R_in"),
    ("trained", [("da = eta_a *", "da = eta_a * a *")], "a", r"a factor a_i too many"),
    (
        "erf",
        [('"j,inj->in", a, I3[:K, K:, :K]', '"j,inj,ij->in", a, I3[:K, K:, :K], 1 - np.eye(K)')],
        "R",
        r"the sum over j leaves out j = i",
    ),
    ("erf", [('"m,inm->in", b, I3[:K, K:, K:]', '"m,inm->in", b[:-1], I3[:K, K:, K:-1]')], "R", r"stops before M"),
    (
        "erf",
        [('"n,m,iknm->ik", b, b,', '"nm,iknm->ik", np.triu(np.outer(b, b), 1),')],
        "Q",
        r"the double sum has only . < .",
    ),
    ("erf", [("dict(Q=dQ", "dict(Q=dQ + np.diag(np.diag(dQ))")], "Q", r"twice too large where i = k — in all terms"),
    ("relu", [("half + half.T", "half")], "Q", r"missing — in the I_3\(k, \.\.\.\) terms"),
    ("relu", [("m,inm->in", "m,imn->in")], "R", r"I_3\(i,m,n\) where I_3\(i,n,m\) is meant"),
    ("relu", [("[R.T, T]", "[R.T, np.eye(M)]")], "Q, R", r"T taken for the identity"),
    ("relu", [("j,inj->in", "i,ini->in")], "R", r"the sum over j has only j = i"),
]


@pytest.mark.parametrize(("system", "replacements", "equations", "said"), MISTAKES)
def test_a_seeded_mistake_is_named(system, replacements, equations, said):
    dynamics, rhs = written(system, *replacements)
    found = audit(rhs, dynamics)
    assert not found.passed
    assert len(found.findings) == 1, str(found)
    (finding,) = found.findings
    assert ", ".join(finding.equations) == equations
    assert re.search(said, str(finding)), str(finding)
    assert finding.named and finding.coefficient == pytest.approx(1, abs=1e-6)


def test_erf_of_another_scale_is_named():
    """Closed forms of g(h) = erf(h), as in papers that leave out the √2."""

    def unscaled(C):
        I2, J2, I3, I4 = erf_moments(2 * C)
        return I2, 2 * J2, I3, 2 * I4

    dynamics, _ = written("erf")
    module = {"np": np, "moments": unscaled}
    exec(textwrap.dedent(ERF_RIGHT), module)
    (finding,) = audit(module["rhs"], dynamics).findings
    assert finding.equations == ("Q", "R")
    assert "erf(h) where erf(h/sqrt(2)) is meant" in finding.what and "covariances" not in finding.what


# -- several at once, and what is not in the table ---------------------------------------------------------------------


def test_two_and_three_mistakes_are_each_named():
    dynamics, rhs = written("erf", ("- 2 * cross", "- cross"), ("m,inm->in", "m,imn->in"))
    found = audit(rhs, dynamics)
    assert [f.equations for f in found.findings] == [("Q",), ("R",)]
    dynamics, rhs = written(
        "trained",
        ("sigma**2 *", "sigma *"),
        ("2 * kappa * Q", "kappa * Q"),
        ("j,l,ikjl->ik", "j,l,ijkl->ik"),
    )
    said = str(audit(rhs, dynamics))
    assert "3 differences" in said
    assert "sigma where sigma^2 is meant" in said and "-2 kappa Q_ik" in said and "I_4(i,j,k,l) where" in said


def test_two_mistakes_in_the_same_term():
    dynamics, rhs = written("erf", ("- 2 * cross", "+ cross"))
    (finding,) = audit(rhs, dynamics).findings
    assert "sign reversed, and half" in finding.what
    dynamics, rhs = written(
        "erf", ("m,inm->in", "m,imn->in"), ("a[:, None] * to_teacher", "a[:, None] * to_teacher / 2")
    )
    found = audit(rhs, dynamics)
    assert all(f.named for f in found.findings)
    assert "I_3(i,m,n) where I_3(i,n,m) is meant" in str(found) and "half of what" in str(found)


def test_a_coefficient_that_no_hypothesis_has_is_measured():
    dynamics, rhs = written("erf", ("- 2 * cross", "- 0.7413 * eta**0.5 * cross"))
    found = audit(rhs, dynamics)
    (finding,) = found.findings
    assert "coefficient 0.37065 sqrt(eta) where 1 is meant" in finding.what and "I_4(i,k,j,n)" in finding.where
    row = found.table.isel(term=next(n for n, e in enumerate(found.table.expression.values) if "-2 eta" in e))
    assert row.spread > 0.01 and "eta" in str(row.formula.values)


def test_what_nothing_explains_is_described():
    dynamics, rhs = written("erf", ("dR = eta", "dR = eta**3 * np.tanh(Q @ R) + eta"))
    found = audit(rhs, dynamics)
    (finding,) = found.findings
    assert not found.passed and not finding.named
    assert "no hypothesis" in finding.what and "of order 3 in eta" in finding.what
    assert "depends on Q, R" in finding.what and "T" not in finding.what.split("depends on")[1]
    assert "sigma" not in finding.what


def test_a_right_hand_side_that_is_not_finite_somewhere_does_not_pass():
    dynamics, rhs = written("erf")

    def sometimes(y, params):
        found = rhs(y, params)
        return {**found, "R": found["R"] * (np.nan if y["Q"][0, 0] > 1.5 else 1.0)}

    found = audit(sometimes, dynamics)
    assert not found.passed and "NaN or infinite at" in found.findings[0].what
    with pytest.raises(ModelError, match="NaN or inf"):
        audit(lambda y, params: {name: value * np.nan for name, value in y.items()}, dynamics)


# -- accuracy ----------------------------------------------------------------------------------------------------------


def test_integrals_of_limited_accuracy_need_a_tolerance(rng):
    """Relative errors of 1e-4, as of Monte Carlo integrals: a right equation passes, and mistakes are still named."""
    dynamics, rhs = written("erf")
    _, wrong = written("erf", ("sigma**2 *", "sigma *"))

    def rough(f):
        return lambda y, params: {
            name: v * (1 + 1e-4 * rng.standard_normal(v.shape)) for name, v in f(y, params).items()
        }

    assert not audit(rough(rhs), dynamics).passed
    assert audit(rough(rhs), dynamics, tolerance=1e-3).passed
    (finding,) = audit(rough(wrong), dynamics, tolerance=1e-3).findings
    assert "noise standard deviation used as variance" in finding.what
    assert finding.coefficient == pytest.approx(1, abs=5e-3)


def test_numerical_expectations_on_both_sides():
    """tanh has no closed forms; its equations against themselves, and with the noise wrong."""
    dynamics = TeacherStudent(activation="tanh").dynamics()
    sigma = next(q.base for q in dynamics.parameters if q.name == "sigma")
    small = dict(sizes=dict(K=2, M=1), states=1)
    assert audit(dynamics, dynamics, **small).passed
    wrong = {"Q": dynamics["Q"].xreplace({sigma: sympy.sqrt(sigma)}), "R": dynamics["R"]}
    (finding,) = audit(wrong, dynamics, **small).findings
    assert "noise standard deviation used as variance" in finding.what


# -- forms of input ----------------------------------------------------------------------------------------------------


def test_packed_functions():
    dynamics, rhs = written("erf", ("m,inm->in", "m,imn->in"))
    shapes = {
        "full": lambda v: np.concatenate([v["Q"].ravel(), v["R"].ravel()]),
        "triangle": lambda v: pack(dynamics.states, v),
    }
    for packed, flat in shapes.items():

        def vector(t, y, params, packed=packed, flat=flat):
            M = len(params["T"])
            K = {6: 2, 10: 2, 12: 3, 15: 3, 9: 2}[len(y)]
            if packed == "full":
                arrays = {"Q": y[: K * K].reshape(K, K), "R": y[K * K :].reshape(K, M)}
            else:
                arrays = unpack(dynamics.states, y, {"K": K, "M": M})
            return flat(rhs(arrays, params))

        (finding,) = audit(vector, dynamics, packed=packed).findings
        assert "I_3(i,m,n) where I_3(i,n,m) is meant" in finding.what


def test_expressions_with_sums_in_plain_symbols():
    """A user writes the moments' closed forms out, with symbols of the same names."""
    K, M, i, k, j, n = sympy.symbols("K M i k j n")
    Q, R, T, a, b = map(sympy.IndexedBase, ["Q", "R", "T", "a", "b"])
    error = sympy.Sum(b[n] * R[i, n], (n, 1, M)) - sympy.Sum(a[j] * Q[i, j], (j, 1, K))
    to_teacher = sympy.Sum(b[j] * T[j, n], (j, 1, M)) - sympy.Sum(a[j] * R[j, n], (j, 1, K))
    dynamics = TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    mine = {"Q": a[k] * error + a[i] * error.subs(i, k), "R": a[i] * to_teacher}
    assert audit(mine, dynamics).passed
    assert not audit({**mine, "R": a[k].subs(k, i) * to_teacher / 2}, dynamics).passed
    with pytest.raises(ModelError, match="etaa"):
        audit({**mine, "R": sympy.Symbol("etaa") * mine["R"]}, dynamics)


def test_written_out_equations():
    dynamics = ERF.dynamics()
    expanded = dynamics.expand(K=2, M=1)
    assert audit(expanded, dynamics).passed
    assert audit(expanded.closed(), dynamics).passed
    sigma = next(q.base for q in dynamics.parameters if q.name == "sigma")
    (finding,) = audit({left: right.subs(sigma**2, sigma) for left, right in expanded.equations}, dynamics).findings
    assert "noise standard deviation used as variance" in finding.what


def test_another_dynamics():
    dynamics = ERF.dynamics()
    assert audit(dynamics, dynamics).passed
    (finding,) = audit(TeacherStudent(activation="erf", output_scale="1/K").dynamics(), dynamics).findings
    assert finding.equations == ("Q", "R") and "a taken for 1/K of itself" in finding.what
    with pytest.raises(ModelError, match="kappa"):
        audit(TeacherStudent(activation="erf", weight_decay=True).dynamics(), dynamics)


def test_fixed_parameters_leave_alternatives():
    """At one value of σ, σ where σ² is meant is the same as some number: both are said."""
    dynamics, rhs = written("erf", ("sigma**2 *", "2 * sigma**2 *"))
    (finding,) = audit(rhs, dynamics, sizes=dict(K=2, M=2), params=dict(sigma=2.0)).findings
    said = (finding.what, *finding.alternatives)
    assert any("twice" in s for s in said) and len(said) > 1


def test_mini_batches():
    """A dynamics with a parameter called batch, by which the second order in η is divided."""
    dynamics, rhs = written("erf")
    batch = Quantity("batch", minimum=1.0)
    (Q, R), eta = dynamics.drift, next(q.base for q in dynamics.parameters if q.name == "eta")
    first = sympy.Add(*(t for t in Q.expr.args if t.as_powers_dict()[eta] == 1))
    divided = replace(Q, expr=sympy.Add(first, *((Q.expr - first) / batch.base).expand(deep=False).args))
    dynamics = replace(dynamics, drift=(divided, R), parameters=(*dynamics.parameters, batch), model=None)
    (finding,) = audit(rhs, dynamics).findings
    assert "lacks 1/batch — in the eta^2 terms" in str(finding)


@pytest.mark.parametrize(
    "dynamics", [LinearNetwork(depth=2).dynamics("gram"), TeacherStudent(activation="He2", biases=True).dynamics()]
)
def test_other_models_agree_with_themselves(dynamics):
    assert audit(dynamics, dynamics).passed


def test_bad_input_is_refused():
    dynamics = ERF.dynamics()
    for given, said in (
        (3, "int"),
        ({"Q": dynamics["Q"]}, "without R"),
        ({"Q": dynamics["Q"], "S": dynamics["R"]}, "S"),
        ({"Q": sympy.Function("I_3")(1, 2), "R": dynamics["R"]}, "I_3"),
        (lambda y, params: y["Q"], "ndarray"),
        (lambda y, params: {"Q": y["Q"], "R": y["R"].T}, "shape"),
    ):
        with pytest.raises(ModelError, match=said):
            audit(given, dynamics)
    with pytest.raises(ModelError, match="packed"):
        audit(lambda t, y, p: y, dynamics, packed="half")
    with pytest.raises(ModelError, match="did you mean 'sigma'"):
        audit(dynamics, dynamics, params=dict(sigmas=1.0))
    with pytest.raises(ModelError, match="sizes"):
        audit(dynamics, dynamics, sizes=dict(K=2))
    with pytest.raises(NotYet):
        audit(dynamics, LinearRegression().dynamics("volterra"))


# -- inputs in blocks --------------------------------------------------------------------------------------------------

BLOCKS = TeacherStudent(activation="linear", inputs="blocks").dynamics()
SIGMA, SHARE, VARIANCE = (
    next(q.base for q in BLOCKS.parameters if q.name == name) for name in ("sigma", "input_share", "input_variance")
)
BLOCK, I, KK = BLOCKS.drift[0].quantity.indices
NOISY = "the term eta^2 sigma^2 a_i a_k input_share[g] input_variance[g] J_2(i,k)"


def noise_times(factor: sympy.Expr) -> sympy.Expr:
    """The equation of Q with another factor at the term of the label noise."""
    return sympy.Add(*(term * factor if term.has(SIGMA) else term for term in BLOCKS["Q"].args))


@pytest.mark.parametrize("model", [BLOCKS, TeacherStudent(activation="erf", inputs="blocks").dynamics()])
def test_right_equations_in_blocks_are_not_accused(model):
    assert audit({name: model[name] for name in ("Q", "R")}, model).passed


@pytest.mark.parametrize(
    ("wrong", "what", "where"),
    [
        (dict(Q=BLOCKS["Q"].subs(SIGMA**2, SIGMA)), "noise standard deviation used as variance", NOISY),
        (dict(Q=noise_times(sympy.Rational(1, 2))), "half of what it should be", NOISY),
        (dict(Q=noise_times(1 - sympy.KroneckerDelta(I, KK))), "missing where i = k", NOISY),
        (dict(Q=BLOCKS["Q"].xreplace({SHARE[BLOCK]: 1})), "lacks input_share[g]", "the eta^2 terms"),
        (dict(Q=BLOCKS["Q"].xreplace({VARIANCE[BLOCK]: 1})), "lacks input_variance[g]", "all terms"),
        (
            dict(R=BLOCKS["R"].xreplace({VARIANCE[BLOCK]: VARIANCE[BLOCK] ** 2})),
            "a factor input_variance[g]",
            "all terms",
        ),
    ],
)
def test_mistakes_in_blocks_are_named(wrong, what, where):
    (finding,) = audit(dict(Q=BLOCKS["Q"], R=BLOCKS["R"]) | wrong, BLOCKS).findings
    assert what in finding.what and finding.where == where


# -- parts -------------------------------------------------------------------------------------------------------------


def test_up_to_four_columns_are_found_among_hundreds(rng):
    columns = rng.standard_normal((60, 300))
    members = [(n,) for n in range(300)]
    for chosen in ((7,), (3, 250), (0, 100, 299), (5, 6, 200, 201)):
        found = explanations(columns, members, columns[:, list(chosen)].sum(1), 1e-9, (1, 2, 3, 4))
        assert [tuple(sorted(s)) for s in found] == [chosen]
    assert explanations(columns, members, rng.standard_normal(60), 1e-9, (1, 2, 3, 4)) == []


@pytest.mark.parametrize("number", ["3/4", "pi/2", "sqrt(2)/3", "-5*pi**2/6"])
def test_numbers_are_recognised(number):
    expr = sympy.sympify(number)
    assert recognised(float(expr), 1e-10) == expr
