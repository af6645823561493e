"""Conventions of other papers: round trips, their published equations, and their own update rules in plain NumPy."""

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp
from scipy.special import erf

from effdyn import derive
from effdyn.derive.convention import Convention
from effdyn.derive.export.numpy_module import numpy_module
from effdyn.derive.export.serialize import dynamics_to_json
from effdyn.derive.known_conventions import CONVENTIONS, convention
from effdyn.derive.moments import Value
from effdyn.derive.text import parse_expression

SMALL = dict(rtol=1e-13, atol=1e-13)  # some hundred roundings in double precision
ERF = derive.TeacherStudent(activation="erf").dynamics()
BOTH = derive.TeacherStudent(activation="erf", second_layer="trained", weight_decay=True).dynamics()
OVERLAPS = dict(
    Q=np.array([[0.9, 0.2], [0.2, 0.6]]), R=np.array([[0.3, -0.1], [0.1, 0.2]]), T=np.array([[1.0, 0.3], [0.3, 1.2]])
)
OTHERS = {"veiga-2022": dict(d=500.0, delta=0.2, p_0=3.0)}

# A convention of nobody's, in which everything differs: g = erf(λ), no ½ in the loss, the variance of the noise, 1/√K.
MINE = Convention(
    name="mine",
    title="Mine",
    source="these tests",
    names=(
        *(("Q", "q"), ("R", "v"), ("T", "u"), ("a", "c"), ("b", "c_star"), ("eta", "mu"), ("sigma", "nu")),
        *(("eta_a", "mu_c"), ("kappa", "decay"), ("eg", "E"), ("loss", "L")),
    ),
    output_scale="1/sqrt(K)",
    teacher_scale="1/sqrt(M)",
    field_scale="sqrt(2)",
    normalisation="1",
    learning_rate="mu/d",
    second_learning_rate="mu_c/d",
    decay="mu*decay/d",
    noise="sqrt(nu)",
    loss_factor="2",
    error_factor="2",
    clock="2*steps/d",
)


def module_of(dyn: derive.Dynamics) -> ModuleType:
    """The equations as the NumPy module that export writes of them: plain code, to be called on arrays."""
    module = ModuleType("exported")
    exec(numpy_module(dyn), module.__dict__)
    return module


def rates(dyn, state, params):
    """The time derivative of each state."""
    return module_of(dyn).rhs(0.0, state, params)


def integrated(dyn, state, params, t):
    """The states at time t."""
    module = module_of(dyn)
    shapes = {name: np.shape(value) for name, value in state.items()}
    cuts = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1]

    def unpacked(y):
        return {n: part.reshape(shapes[n]) for n, part in zip(shapes, np.split(y, cuts), strict=True)}

    def rhs(t, y):
        found = module.rhs(t, unpacked(y), params)
        return np.concatenate([np.ravel(found[name]) for name in shapes])

    start = np.concatenate([np.ravel(value) for value in state.values()])
    return unpacked(solve_ivp(rhs, (0, t), start, rtol=1e-8, atol=1e-10).y[:, -1])


# ---- the published equations: erf, written out by hand ---------------------------------------------------------------


def i2(C, a, b):
    return 2 / np.pi * np.arcsin(C[a, b] / np.sqrt((1 + C[a, a]) * (1 + C[b, b])))


def i3(C, a, b, c):
    lam = (1 + C[a, a]) * (1 + C[c, c]) - C[a, c] ** 2
    return 2 / np.pi * (C[b, c] * (1 + C[a, a]) - C[a, b] * C[a, c]) / ((1 + C[a, a]) * np.sqrt(lam))


def j2(C, a, b):
    return 2 / np.pi / np.sqrt((1 + C[a, a]) * (1 + C[b, b]) - C[a, b] ** 2)


def i4(C, a, b, c, d):
    l4 = (1 + C[a, a]) * (1 + C[b, b]) - C[a, b] ** 2
    l0 = l4 * C[c, d] - C[b, c] * C[b, d] * (1 + C[a, a]) - C[a, c] * C[a, d] * (1 + C[b, b])
    l0 += C[a, b] * (C[a, c] * C[b, d] + C[a, d] * C[b, c])

    def l12(e):
        return (
            l4 * (1 + C[e, e])
            - C[b, e] ** 2 * (1 + C[a, a])
            - C[a, e] ** 2 * (1 + C[b, b])
            + 2 * C[a, b] * C[a, e] * C[b, e]
        )

    return 4 / np.pi**2 / np.sqrt(l4) * np.arcsin(l0 / np.sqrt(l12(c) * l12(d)))


def published(Q, R, T, linear, quadratic, v, v_star, variance, decay=0.0):
    """Saad & Solla's right-hand sides for dQ and dR with separate factors of the terms in η and η², loop by loop."""
    p, k = R.shape
    C = np.block([[Q, R], [R.T, T]])
    c = np.concatenate([-v, v_star])
    n = range(p + k)
    dR = np.array(
        [
            [linear * v[j] * sum(c[f] * i3(C, j, p + r, f) for f in n) - decay * R[j, r] for r in range(k)]
            for j in range(p)
        ]
    )
    dQ = np.zeros((p, p))
    for j in range(p):
        for m in range(p):
            drift = sum(c[f] * (v[j] * i3(C, j, m, f) + v[m] * i3(C, m, j, f)) for f in n)
            noise = sum(c[f] * c[g] * i4(C, j, m, f, g) for f in n for g in n) + variance * j2(C, j, m)
            dQ[j, m] = linear * drift + quadratic * v[j] * v[m] * noise - 2 * decay * Q[j, m]
    return dQ, dR


def risk(Q, R, T, v, v_star):
    C, c = np.block([[Q, R], [R.T, T]]), np.concatenate([-v, v_star])
    return sum(c[f] * c[g] * i2(C, f, g) for f in range(len(c)) for g in range(len(c))) / 2


def test_arnaboldi_et_al():
    """Their equations have I_3 with prefactor 1 and I_4, with the noise's variance, with γ/p: time is γ·steps/(pd)."""
    Q, M, P = OVERLAPS.values()
    gamma, variance, p, k = 0.8, 0.3, 2, 2
    dyn = convention("arnaboldi-2023").convert(ERF)
    found = rates(dyn, dict(Q=Q, M=M), dict(gamma=gamma, Delta=variance, P=P))
    # φ = (1/p)Σ: their linear term carries no further 1/p, their quadratic one γ/p; units of weight 1/p and 1/k
    v, v_star = np.ones(p) / p, np.ones(k) / k
    dQ, dM = published(Q, M, P, p, gamma * p, v, v_star, variance)
    np.testing.assert_allclose(found["Q"], dQ, **SMALL)
    np.testing.assert_allclose(found["M"], dM, **SMALL)
    observed = module_of(dyn).observables(dict(Q=Q, M=M), dict(gamma=gamma, Delta=variance, P=P))
    np.testing.assert_allclose(observed["risk"], risk(Q, M, P, v, v_star), **SMALL)
    np.testing.assert_allclose(observed["loss"], risk(Q, M, P, v, v_star) + variance / 2, **SMALL)


def test_veiga_et_al():
    """dM/dt = γ₀/p₀ (…) and, on the line κ + δ = 0, (γ₀/p₀)² before the noise; above it, that vanishes as d^−(κ+δ)."""
    Q, M, P = OVERLAPS.values()
    gamma_0, variance, p, d, delta = 0.8, 0.3, 2, 400.0, 0.1
    dyn = convention("veiga-2022").convert(ERF)
    for kappa in (-delta, 0.25):
        p_0 = p / d**kappa
        params = dict(gamma_0=gamma_0, Delta=variance, P=P, d=d, delta=delta, p_0=p_0)
        found = rates(dyn, dict(Q=Q, M=M), params)
        linear, quadratic = gamma_0 / p_0, (gamma_0 / p_0) ** 2 * d ** -(kappa + delta)
        # the prefactors above stand where Saad and Solla have η/p for a gradient that already holds the factor 1/p
        dQ, dM = published(Q, M, P, linear * p, quadratic * p**2, np.ones(2) / p, np.ones(2) / 2, variance)
        np.testing.assert_allclose(found["Q"], dQ, **SMALL)
        np.testing.assert_allclose(found["M"], dM, **SMALL)


def test_goldt_et_al():
    """Standard deviation of the noise, decay not multiplied by η, a learning rate of its own for the second layer."""
    Q, R, T = OVERLAPS.values()
    v, v_star, eta, eta_v, sigma, kappa = np.array([0.7, -0.4]), np.array([1.1, 0.6]), 0.8, 0.3, 0.5, 0.2
    dyn = convention("goldt-2019").convert(BOTH)
    found = rates(dyn, dict(Q=Q, R=R, v=v), dict(eta=eta, eta_v=eta_v, kappa=kappa, sigma=sigma, T=T, v_star=v_star))
    dQ, dR = published(Q, R, T, eta, eta**2, v, v_star, sigma**2, kappa)
    C, c = np.block([[Q, R], [R.T, T]]), np.concatenate([-v, v_star])
    dv = [eta_v * sum(c[f] * i2(C, i, f) for f in range(4)) - kappa * v[i] for i in range(2)]
    np.testing.assert_allclose(found["Q"], dQ, **SMALL)
    np.testing.assert_allclose(found["R"], dR, **SMALL)
    np.testing.assert_allclose(found["v"], dv, **SMALL)


def test_saad_solla_have_no_second_layer():
    Q, R, T = OVERLAPS.values()
    found = rates(convention("saad-solla-1995").convert(ERF), dict(Q=Q, R=R), dict(eta=0.8, sigma=0.5, T=T))
    dQ, dR = published(Q, R, T, 0.8, 0.64, np.ones(2), np.ones(2), 0.25)
    np.testing.assert_allclose(found["Q"], dQ, **SMALL)
    np.testing.assert_allclose(found["R"], dR, **SMALL)


def test_biehl_and_schwarze_for_one_unit():
    """Their equations for K = M = 1, T = 1 without noise: in closed form, with η/N and α = μ/N."""
    Q, R, eta = 0.7, 0.4, 0.9
    one = np.ones(1)
    params = dict(eta=eta, sigma=0.0, T=np.eye(1), v=one, v_star=one)
    found = rates(convention("biehl-schwarze-1995").convert(ERF), dict(Q=[[Q]], R=[[R]]), params)
    root, double = np.sqrt(2 * (1 + Q) - R**2), np.sqrt(1 + 2 * Q)
    dR = eta * 2 / np.pi / (1 + Q) * ((1 + Q - R**2) / root - R / double)
    teacher = np.arcsin((1 + 2 * (Q - R**2)) / (2 * (1 + 2 * Q - R**2)))
    cross = np.arcsin(R / np.sqrt(2 * (1 + 2 * Q - R**2) * (1 + 3 * Q)))
    dQ = eta * 4 / np.pi / (1 + Q) * (R / root - Q / double)
    dQ += eta**2 * 4 / np.pi**2 / double * (np.arcsin(Q / (1 + 3 * Q)) + teacher - 2 * cross)
    np.testing.assert_allclose([found["R"].item(), found["Q"].item()], [dR, dQ], **SMALL)


# ---- the papers' own update rules, simulated -------------------------------------------------------------------------


def erf_slope(x):
    return np.sqrt(2 / np.pi) * np.exp(-(x**2) / 2)


D, RUNS = 300, 64
ROOT = np.sqrt(D)
HALF = dict(g=lambda x: erf(x / np.sqrt(2)), slope=erf_slope)
# As the papers write it: ``step`` from slope·error·x, fields w·x/``nu``, ``scale`` of the output, ``noise``.
RULES = {
    "saad-solla-1995": dict(
        **HALF, step=lambda w, f: w + 1.5 / D * f, nu=1, scale=1, noise=0.3, params=dict(eta=1.5, sigma=0.3), t=1.5
    ),
    "arnaboldi-2023": dict(
        **HALF,
        step=lambda w, f: w + 2.0 / 2 / ROOT * f,
        nu=ROOT,
        scale=1 / 2,
        noise=np.sqrt(0.09),
        params=dict(gamma=2.0, Delta=0.09),
        t=2.0,
    ),
    "veiga-2022": dict(
        **HALF,
        step=lambda w, f: w + 4.0 / D**0.1 / 2 / ROOT * f,
        nu=ROOT,
        scale=1 / 2,
        noise=np.sqrt(0.09),
        params=dict(gamma_0=4.0, Delta=0.09, d=float(D), delta=0.1, p_0=2 * D**0.1),  # κ = −δ
        t=1.5,
    ),
    "mine": dict(
        g=erf,
        slope=lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2)),
        step=lambda w, f: (1 - 0.5 * 0.2 / D) * w + 2 * 0.5 / D / np.sqrt(2) * f,
        nu=1,
        scale=1 / np.sqrt(2),
        noise=np.sqrt(0.09),
        params=dict(mu=0.5, nu=0.09, decay=0.2),
        t=2.0,
    ),
}


def trained(rule, w, w_star, steps, rng):
    """Return the weights (runs, K, d) after training each run on its own examples, M = 1."""
    g, slope, nu = rule["g"], rule["slope"], rule["nu"]
    for _ in range(steps):
        x = rng.standard_normal((len(w), 1, w.shape[-1]))
        lam, rho = (w * x).sum(-1) / nu, (w_star * x).sum(-1) / nu
        y = g(rho).sum(-1) + rule["noise"] * rng.standard_normal(len(w))
        error = y - rule["scale"] * g(lam).sum(-1)
        w = rule["step"](w, slope(lam)[..., None] * error[:, None, None] * x)
    return w


@pytest.mark.parametrize("name", RULES)
def test_converted_theory_describes_the_papers_own_simulation(name, rng):
    """K = 2, M = 1: the rule as the paper writes it, against equations and clock from the conversion alone."""
    rule, paper = RULES[name], MINE if name == "mine" else convention(name)
    Q, R, T = np.array([[0.5, 0.0], [0.0, 0.4]]), np.array([[0.2], [0.1]]), np.eye(1)
    rows = np.linalg.cholesky(np.block([[T, R.T], [R, Q]])) @ np.eye(3, D) * rule["nu"]
    per_step = time_of_a_step(paper, rule["params"])
    steps = round(rule["t"] / per_step)
    w = trained(rule, np.repeat(rows[None, 1:], RUNS, axis=0), rows[:1], steps, rng)
    sample = {"Q": np.einsum("rid,rkd->rik", w, w) / rule["nu"] ** 2, "R": w @ rows[:1].T / rule["nu"] ** 2}

    names = {ours: paper.named(ours) for ours in ("Q", "R", "T", "a", "b")}
    dyn = paper.convert(derive.TeacherStudent(activation="erf", weight_decay=name == "mine").dynamics())
    params = rule["params"] | {names["T"]: T, names["a"]: np.ones(2), names["b"]: np.ones(1)}
    params = {k: v for k, v in params.items() if k in {q.name for q in dyn.parameters}}
    theory = integrated(dyn, {names["Q"]: Q, names["R"]: R}, params, steps * per_step)
    moved = []
    for q, start in (("Q", Q), ("R", R)):
        expected, mean = theory[names[q]], sample[q].mean(0)
        tolerance = 5 * sample[q].std(0, ddof=1) / np.sqrt(RUNS) + 2 / D  # five sigma, and a bias of order 1/d
        assert (tolerance < 0.08).all(), "too coarse"
        assert (abs(mean - expected) < tolerance).all(), (q, mean, expected)
        moved.append((abs(expected - start) > 5 * tolerance).any())
    assert any(moved), "hardly anything happened"


def time_of_a_step(paper, params):
    """The paper's clock at one step."""
    values = {"K": 2, "M": 1, "p": 2, "k": 1, "d": D, "N": D, **params, "steps": 1}
    expr = paper.formula("clock")
    return float(expr.subs({s: values[s.name] for s in expr.free_symbols}))


# ---- numbers there and back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, "1/K"])
@pytest.mark.parametrize("name", [*CONVENTIONS, "mine"])
def test_round_trip(name, scale):
    paper = MINE if name == "mine" else convention(name)
    model = derive.TeacherStudent(activation="erf", output_scale=scale)
    known = OTHERS.get(name, {})
    s = 1 if scale == 1 else 0.5
    unit = {"veiga-2022": (0.5, 0.5), "arnaboldi-2023": (0.5, 0.5)}.get(name, (1.0, 1.0))
    params = dict(eta=1.3, sigma=0.4, T=OVERLAPS["T"], a=np.full(2, unit[0] / s), b=np.full(2, unit[1]), batch=4)
    y0 = dict(Q=np.stack([OVERLAPS["Q"]] * 3), R=OVERLAPS["R"])  # a batch
    theirs = paper.from_effdyn(y0, params, np.array([0.0, 2.0]), model, **known)
    back = paper.to_effdyn(*theirs, model)
    for ours, given in ((back[0], y0), (back[1], params)):
        assert set(ours) == set(given)
        for key, value in given.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-14)
    np.testing.assert_allclose(back[2], [0.0, 2.0], rtol=1e-14)


@pytest.mark.parametrize("name", ["arnaboldi-2023", "veiga-2022", "mine"])
def test_equations_and_numbers_are_converted_alike(name):
    """rate of the converted equations at converted numbers = converted rate of effdyn's: two ways through the code."""
    paper = MINE if name == "mine" else convention(name)
    a, b = (np.full(2, 0.5), np.full(2, 0.5)) if name != "mine" else (np.array([0.3, -0.8]), np.array([0.9, 0.4]))
    ours = dict(eta=1.3, sigma=0.4, T=OVERLAPS["T"], a=a, b=b)
    state = {q: OVERLAPS[q] for q in "QR"}
    expected = rates(ERF, state, ours)
    y0, params, t = paper.from_effdyn(state, ours, 1.0, **OTHERS.get(name, {}))
    dyn = paper.convert(ERF)
    params = {k: v for k, v in params.items() if k in {q.name for q in dyn.parameters}}
    found = rates(dyn, y0, params)
    converted, _, _ = paper.from_effdyn(expected, {})
    for q, value in converted.items():
        np.testing.assert_allclose(found[q] * t, value, **SMALL)


def test_trained_layers_decay_and_an_activation_without_the_root():
    a, b = np.array([0.3, -0.8]), np.array([0.9, 0.4])
    ours = dict(eta=1.3, eta_a=0.7, kappa=0.2, sigma=0.4, T=OVERLAPS["T"], b=b)
    state = dict(Q=OVERLAPS["Q"], R=OVERLAPS["R"], a=a)
    model = BOTH.model
    y0, params, t = MINE.from_effdyn(state, ours, 1.0, model)
    assert params["mu"] == pytest.approx(1.3 / 4) and params["nu"] == pytest.approx(0.16)  # c² f = 4
    dyn = MINE.convert(BOTH)
    found = rates(dyn, y0, params)
    expected, _, _ = MINE.from_effdyn(rates(BOTH, state, ours), {}, model=model)
    sizes = {"c": np.sqrt(2)}  # a alone does not tell M; the overlaps' own rates need no size
    for q in ("q", "v"):
        np.testing.assert_allclose(found[q] * t, expected[q], **SMALL)
    np.testing.assert_allclose(found["c"] * t, sizes["c"] * rates(BOTH, state, ours)["a"], **SMALL)
    observed = module_of(dyn).observables(y0, params)["E"]
    np.testing.assert_allclose(observed, 2 * module_of(BOTH).observables(state, ours)["eg"], **SMALL)


def test_gradient_flow_and_finite_dimension():
    flow = derive.TeacherStudent(activation="erf").dynamics("gradient-flow")
    Q, M, P = OVERLAPS.values()
    paper = convention("arnaboldi-2023")
    found = rates(paper.convert(flow), dict(Q=Q, M=M), dict(Delta=0.3, P=P))
    dQ, dM = published(Q, M, P, 2, 0.0, np.ones(2) / 2, np.ones(2) / 2, 0.3)
    np.testing.assert_allclose(found["M"], dM, **SMALL)
    np.testing.assert_allclose(found["Q"], dQ, **SMALL)
    assert "eta" in [q.name for q in convention("saad-solla-1995").convert(flow).parameters]  # its clock has no eta

    model = derive.TeacherStudent(activation="linear")
    finite = model.dynamics("finite-d")
    there = convention("saad-solla-1995").convert(finite)
    ours = rates(finite, OVERLAPS, dict(eta=0.5, sigma=0.2, T=P, a=np.ones(2), b=np.ones(2), d=50.0))
    theirs = rates(there, OVERLAPS, dict(eta=0.5, sigma=0.2, T=P, N=50.0))
    np.testing.assert_allclose(theirs["Q"], ours["Q"], **SMALL)
    step_by_step = convention("saad-solla-1995").convert(model.dynamics("finite-d-map"))
    assert sympy.expand(step_by_step["R"] * sympy.Symbol("N", nonnegative=True) - there["R"]) == 0


# ---- how it reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, "1/K"])
def test_latex_reads_as_in_the_paper_whatever_the_model_s_scale(scale):
    model = derive.TeacherStudent(activation="erf", output_scale=scale)
    text = convention("arnaboldi-2023").convert(model.dynamics()).latex()
    assert r"\frac{\mathrm{d}M_{jr}}{\mathrm{d}t}" in text
    assert r"\frac{1}{k} \sum_{s=1}^{k} I_{3}(j,r,s) - \frac{1}{p} \sum_{m=1}^{p} I_{3}(j,r,m)" in text
    assert r"\Delta" in text and r"\lambda^{\star}" not in text.split(r"\begin{align}")[1]
    assert not any(old in text for old in ("R_{", "T_{", r"\eta", r"\sigma", "a_{i}"))


def test_an_activation_of_other_argument_is_defined_as_the_paper_defines_it():
    functions = {str(f): f.args[0].function for e in MINE.convert(ERF).drift for f in e.expr.atoms(Value)}
    x = sympy.Symbol("x", real=True)
    values = {str(f(x).doit()) for f in functions.values()}
    assert values == {"erf(x)", str(sympy.diff(sympy.erf(x), x))}
    assert r"\frac{h}{\sqrt{2}}" not in MINE.convert(ERF).latex()


def test_further_summation_indices_do_not_become_sizes():
    """Losses of higher order sum over students three times, and effdyn's third letter for that is p."""
    j, p = (sympy.Symbol(name, integer=True, positive=True) for name in "jp")
    dyn = convention("arnaboldi-2023").convert(
        replace(ERF, drift=tuple(replace(e, expr=e.expr.xreplace({j: p})) for e in ERF.drift))
    )
    for e in dyn.equations:
        for total in e.expr.atoms(sympy.Sum):
            variables = [limit[0] for limit in total.limits]
            assert len(set(variables)) == len(variables)
            assert not {str(v) for v in variables} & {"p", "k", *map(str, e.quantity.indices)}


def kick(paper, dyn, moved):
    """The factor of g'(λ) ζ x (or g(λ) ζ) in the converted update: the part of the label noise, as a number."""
    (definition,) = (r for left, r in paper.convert(dyn).steps[0].equations if f"Delta({moved}" in str(left))
    bare = sympy.expand(definition.xreplace({e: sympy.S.One for e in definition.atoms(Value, sympy.Indexed)}))
    return at_numbers(bare.coeff(sympy.Symbol("zeta", real=True)).subs(sympy.Symbol("x"), 1))


def at_numbers(expr):
    numbers = dict(eta=1.1, N=30, gamma=0.7, gamma_0=0.9, d=40, delta=0.3, p=3, sigma=0.2, Delta=0.6)
    numbers |= dict(mu=1.3, mu_c=0.8, nu=0.5, K=3, eta_v=0.4)
    return float(expr.subs({s: numbers[s.name] for s in expr.free_symbols}))


@pytest.mark.parametrize(
    ("paper", "dyn", "moved", "factor"),
    [
        (CONVENTIONS["saad-solla-1995"], ERF, "w", "eta/N"),
        (CONVENTIONS["goldt-2019"], BOTH, "w", "eta/sqrt(N)"),
        (CONVENTIONS["goldt-2019"], BOTH, "v", "eta_v/N"),
        (CONVENTIONS["arnaboldi-2023"], ERF, "w", "gamma/(sqrt(d)*p)"),
        (CONVENTIONS["veiga-2022"], ERF, "w", "gamma_0*d**(-delta - 1/2)/p"),
        (MINE, BOTH, "w", "2*mu/(sqrt(K)*d)"),
        (MINE, BOTH, "c", "2*mu_c/(sqrt(K)*d)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_update_is_the_one_that_the_paper_states(paper, dyn, moved, factor):
    """Δw = factor · g'(λ) (y − φ) x and Δa = factor · g(λ) (y − φ), here by their parts in the label noise."""
    assert kick(paper, dyn, moved) == pytest.approx(at_numbers(parse_expression(f"({factor})*{paper.noise}", "factor")))


def test_the_table_states_every_relation():
    text = str(convention("veiga-2022"))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for row in ("equal R M", "equal sigma sqrt(Delta)", "equal eta gamma_0/d**delta", "equal b 1/k"):
        assert row in rows
    assert "arXiv:2202.00293" in rows[-2]
    assert convention("veiga-2022").latex().count(r"\\") >= 15
    assert all(str(paper) and paper.latex() and eval(repr(paper)) == paper for paper in CONVENTIONS.values())


def test_converted_equations_travel(tmp_path):
    dyn = convention("arnaboldi-2023").convert(ERF)
    assert derive.dynamics_from_json(dynamics_to_json(dyn)) == dyn
    assert [q.name for q in dyn.parameters] == ["gamma", "Delta", "P"]
    text = dyn.article(tmp_path / "paper.tex").read_text()
    assert "student--student overlaps, the covariances of fields" in text and "Arnaboldi" in text


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_bad_conventions():
    good = convention("arnaboldi-2023")
    for change, argument in (
        (dict(names=(*good.names, ("eeta", "x"))), "names"),
        (dict(names=(*good.names, ("kappa", "p"))), "names"),  # p is a size already
        (dict(indices=()), "names"),  # k is an index then, and a size
        (dict(learning_rate="2"), "names['eta']"),
        (dict(learning_rate="gamma + 1"), "names['eta']"),
        (dict(clock="steps**2/d"), "clock"),
        (dict(output_scale="1/("), "output_scale"),
        (dict(names=(*good.names, ("d", "N"))), "names['d']"),  # its formulas still have d
    ):
        with pytest.raises(derive.ModelError) as error:
            replace(good, **change)
        assert error.value.argument == argument, change


def test_bad_numbers():
    paper = convention("veiga-2022")
    with pytest.raises(derive.ModelError, match="did you mean 'gamma_0'"):
        paper.to_effdyn({}, dict(gamma=1.0))
    with pytest.raises(derive.ModelError, match="numbers also for d, delta"):
        paper.to_effdyn(dict(M=np.zeros((2, 2))), dict(gamma_0=1.0))
    with pytest.raises(derive.ModelError, match="who have no second layer"):
        paper.from_effdyn(dict(R=np.zeros((2, 2))), dict(a=np.ones(2)))
    with pytest.raises(derive.ModelError, match="fixed second layer"):
        paper.to_effdyn({}, {}, model=BOTH.model)
    with pytest.raises(derive.ModelError, match="did you mean 'veiga-2022'"):
        convention("veiga-2023")


def test_what_a_paper_does_not_have_is_not_converted():
    with pytest.raises(derive.ModelError, match="eta_a"):
        convention("arnaboldi-2023").convert(BOTH)
    with pytest.raises(derive.ModelError, match="bias"):
        MINE.convert(derive.TeacherStudent(activation="erf", biases=True).dynamics())
    with pytest.raises(derive.ModelError, match="derived from a TeacherStudent"):
        MINE.convert(replace(ERF, model=None))
