"""What is written reads back equal, and the NumPy module computes what the model says."""

import dataclasses
import itertools
import json
import pickle
import types
from functools import cache

import numpy as np
import pytest
import sympy
from scipy.special import erf, roots_hermitenorm

from effdyn import derive
from effdyn.derive.activation import X
from effdyn.derive.export.encode import decode, encode
from effdyn.derive.export.numpy_module import numpy_module
from effdyn.derive.export.serialize import dynamics_from_json, dynamics_to_json, model_from_json, model_to_json
from effdyn.derive.export.write import to_text
from effdyn.derive.moments import Joint, Univariate
from effdyn.solve.kernels import reference

CASES = {
    "erf": (dict(activation="erf"), "high-dimensional"),
    "erf_trained_decay": (dict(activation="erf", second_layer="trained", weight_decay=True), "high-dimensional"),
    "gradient_flow": (dict(activation="erf", second_layer="trained", weight_decay=True), "gradient-flow"),
    "erf_teacher_He3": (dict(activation="erf", teacher_activation="He3"), "high-dimensional"),
    "square_averaged": (dict(activation="square", output_scale="1/K"), "high-dimensional"),
    "linear": (dict(activation="linear", second_layer="trained"), "high-dimensional"),
    "He3": (dict(activation="He3", output_scale="1/sqrt(K)"), "high-dimensional"),
}


@cache
def dynamics(case):
    arguments, limit = CASES[case]
    return derive.TeacherStudent(**arguments).dynamics(limit=limit)


@cache
def module(case):
    made = types.ModuleType(case)
    exec(compile(numpy_module(dynamics(case)), f"{case}.py", "exec"), made.__dict__)
    return made


# --- the NumPy module -------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "erf": (lambda h: erf(h / np.sqrt(2)), lambda h: np.sqrt(2 / np.pi) * np.exp(-(h**2) / 2)),
    "linear": (lambda h: h, np.ones_like),
    "square": (lambda h: h**2, lambda h: 2 * h),
    "He3": (lambda h: h**3 - 3 * h, lambda h: 3 * h**2 - 3),
}
SCALES = {"1/K": lambda K: 1 / K, "1/sqrt(K)": lambda K: K**-0.5, 1: lambda K: 1.0}


def random_state(rng, K, M):
    weights = rng.normal(size=(K + M, K + M + 3)) / np.sqrt(K + M + 3)
    overlaps = 0.8 * weights @ weights.T
    state = {"Q": overlaps[:K, :K], "R": overlaps[:K, K:], "a": rng.normal(size=K)}
    params = {"eta": 0.7, "eta_a": 0.4, "kappa": 0.3, "sigma": 0.5, "T": overlaps[K:, K:], "b": rng.normal(size=M)}
    return state, params


def averaged_step(arguments, state, params, nodes=60):
    """d·E[change of Q, R, a in one step] as d → ∞, straight from the network's gradient, by Gaussian quadrature."""
    (K, M), s = state["R"].shape, SCALES[arguments.get("output_scale", 1)](len(state["a"]))
    g, dg = FUNCTIONS[arguments["activation"]]
    g_star, _ = FUNCTIONS[arguments.get("teacher_activation", arguments["activation"])]
    root = np.linalg.cholesky(np.block([[state["Q"], state["R"]], [state["R"].T, params["T"]]]))
    x, w = roots_hermitenorm(nodes)
    z = np.array(list(itertools.product(x, repeat=K + M)))  # (nodes^(K+M), K+M)
    weight = np.prod(np.array(list(itertools.product(w / np.sqrt(2 * np.pi), repeat=K + M))), axis=1)
    fields = z @ root.T
    h, h_star = fields[:, :K], fields[:, K:]
    a, eta, kappa = state["a"], params["eta"], params["kappa"] * arguments.get("weight_decay", False)
    error = g_star(h_star) @ params["b"] - s * g(h) @ a
    kick = eta * error[:, None] * s * a * dg(h)  # (points, K)
    mean = lambda subscripts, *operands: np.einsum(f"p,{subscripts}", weight, *operands)  # noqa: E731
    first = mean("pi,pk->ik", kick, h)
    noise = params["sigma"] ** 2 * eta**2 * s**2 * np.outer(a, a) * mean("pi,pk->ik", dg(h), dg(h))
    return {
        "Q": first + first.T + mean("pi,pk->ik", kick, kick) + noise - 2 * kappa * state["Q"],
        "R": mean("pi,pn->in", kick, h_star) - kappa * state["R"],
        "a": params["eta_a"] * s * mean("p,pi->i", error, g(h)) - kappa * a,
        "eg": weight @ error**2 / 2,
        "loss": weight @ error**2 / 2 + params["sigma"] ** 2 / 2,
    }


@pytest.mark.parametrize("case", [c for c in CASES if c != "gradient_flow"])
def test_module_computes_the_averaged_step(case, rng):
    state, params = random_state(rng, K=2, M=1)
    if "second_layer" not in CASES[case][0]:
        params["a"] = state["a"]
    expected = averaged_step(CASES[case][0], state, params)
    found = module(case).rhs(0.0, state, params) | module(case).observables(state, params)
    for name in ("Q", "R", "a", "eg", "loss"):
        if name in found:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-8, atol=1e-9, err_msg=name
            )  # the quadrature's error
    cosine = state["R"] / np.sqrt(np.outer(np.diag(state["Q"]), np.diag(params["T"])))
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-14)


def test_gradient_flow_is_the_slope_at_small_rates(rng):
    state, params = random_state(rng, K=2, M=1)
    eta = 1e-7
    small = params | {"eta": eta, "eta_a": 0.4 * eta, "kappa": 0.3 * eta}
    step = averaged_step(CASES["gradient_flow"][0], state, small)
    flow = module("gradient_flow").rhs(0.0, state, params | {"eta_a_over_eta": 0.4, "kappa_over_eta": 0.3})
    for name in ("Q", "R", "a"):
        np.testing.assert_allclose(flow[name], step[name] / eta, rtol=1e-5, atol=1e-6)  # terms of order eta are left


@pytest.mark.parametrize(("K", "M"), [(1, 1), (3, 2), (2, 4)])
def test_module_agrees_with_the_equations_written_out(K, M, rng):
    """Two ways from the same expressions: einsum, and SymPy's numbers."""
    case = "erf_teacher_He3"
    state, params = random_state(rng, K, M)
    found = module(case).rhs(0.0, state, params | {"a": state["a"]})
    values = {**params, **state}
    dyn = dynamics(case)
    entry = {"Q": (0, K - 1), "R": (K - 1, 0)}
    for equation in dyn.drift:
        at = entry[equation.quantity.name]
        swap = dict(zip(equation.quantity.indices, (sympy.Integer(n + 1) for n in at), strict=True))
        from effdyn.derive.expanded import write_out

        expr = dyn.closed(write_out(equation.expr.xreplace(swap), dict(zip(dyn.sizes, (K, M), strict=True))))
        numbers = {e: values[str(e.base)][tuple(int(i) - 1 for i in e.indices)] for e in expr.atoms(sympy.Indexed)}
        numbers |= {
            s: values[s.name] for s in expr.free_symbols if isinstance(s, sympy.Symbol) and s.name in ("eta", "sigma")
        }
        np.testing.assert_allclose(found[equation.quantity.name][at], float(expr.xreplace(numbers)), rtol=1e-11)


def test_module_packs_and_broadcasts(rng):
    state, params = random_state(rng, K=3, M=2)
    made = module("erf_trained_decay")
    again = made.unpack(made.pack(state), 3, 2)
    assert all(np.array_equal(again[name], state[name]) for name in state)
    one, ones = params | {"b": 1.0}, params | {"b": np.ones(2)}
    assert np.array_equal(made.rhs(0.0, state, one)["Q"], made.rhs(0.0, state, ones)["Q"])


def test_module_needs_nothing_of_effdyn(tmp_path):
    path = dynamics("erf").write(tmp_path / "committee.py")
    imports = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import numpy as np"]
    assert all(len(line) < 160 for line in path.read_text(encoding="utf-8").splitlines())


OTHERS = {
    "relu": (dict(activation="relu", second_layer="trained"), "auto"),
    "tanh": (dict(activation="tanh", teacher_activation="erf"), "auto"),
    "tanh_numeric": (dict(activation="tanh", second_layer="trained"), "numeric"),
    "logistic": (dict(activation="linear", loss="logistic", labels="sign"), "auto"),
    "logistic_erf": (dict(activation="erf", loss="logistic", labels="logistic"), "auto"),
    "hinge": (dict(activation="linear", loss="hinge", labels="sign"), "auto"),
    "huber": (dict(activation="linear", loss="huber", output_scale="1/K"), "auto"),
    "huber_numeric": (dict(activation="linear", loss="huber"), "numeric"),
    "biases": (dict(activation="erf", biases=True), "auto"),
    "biases_tanh": (dict(activation="erf", teacher_activation="tanh", biases=True), "auto"),
    "target": (dict(activation="He3", target="h1*h2*h3"), "auto"),
    "kinked_target": (dict(activation="erf", target="Abs(h1)*sign(h2)"), "auto"),
    "sign_tanh": (dict(activation="tanh", teacher_activation="linear", labels="sign"), "auto"),
    "rough": (dict(activation="tanh", loss="absolute"), "auto"),
    "target_numeric": (dict(activation="erf", target="tanh(h1*h2)"), "auto"),
}
"""Models with special functions, rules, means, numbered fields and combinations of fields."""


@cache
def other(case):
    arguments, method = OTHERS[case]
    return derive.TeacherStudent(**arguments).dynamics(moments=method)


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("coincident", [False, True], ids=["random", "coincident"])
def test_module_computes_what_the_reference_interpreter_does(case, coincident, rng):
    """Two ways from the same expressions; for the rule over all fields the nodes are the same, so sums agree too."""
    dyn = other(case)
    made = types.ModuleType(case)
    exec(compile(numpy_module(dyn), f"{case}.py", "exec"), made.__dict__)
    K, M = 2, 3 if case == "target" else 2
    state, params = random_state(rng, K, M)
    if coincident:  # students that are copies of teachers: every correlation 1
        state |= {"Q": params["T"][:K, :K], "R": params["T"][:K]}
    values = state | params | {"flip": 0.1, "eta_bias": 0.3}
    values |= {"bias": rng.normal(size=K) / 2, "teacher_bias": rng.normal(size=M) / 2}
    state = {q.name: values[q.name] for q in dyn.states}
    params = {q.name: values[q.name] for q in dyn.parameters}
    found = made.rhs(0.0, state, params) | made.observables(state, params)
    expected = reference.evaluate(dyn, state, params) | reference.observe(dyn, state, params)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("case", OTHERS)
def test_other_modules_need_nothing_of_effdyn_either(case):
    lines = numpy_module(other(case)).splitlines()
    imports = {line.strip() for line in lines if line.strip().startswith(("import ", "from "))}
    allowed = {"import math", "import numpy as np", "import scipy.special", "from functools import lru_cache"}
    allowed |= {"from scipy.integrate import solve_ivp"}  # in the example
    assert imports <= allowed | {"from scipy.special import ndtri", "from scipy.stats import qmc"}
    assert max(map(len, lines)) < 160


def test_functions_that_a_module_could_not_define_are_an_error():
    from sympy.utilities.lambdify import implemented_function

    bump = implemented_function("bump", lambda x: 1 / (1 + x * x))
    dyn = dynamics("linear")
    own = Univariate(sympy.Symbol("g"), sympy.Integer(0), sympy.Lambda(X, bump(X)))
    h = sympy.IndexedBase("h", real=True)
    drift = (dataclasses.replace(dyn.drift[0], expr=Joint(own(h[dyn.drift[0].quantity.indices[0]]))),)
    with pytest.raises(derive.NotYet, match="bump"):
        numpy_module(dataclasses.replace(dyn, drift=drift, observables=(), model=None, steps=(), dropped=()))


# --- JSON -------------------------------------------------------------------------------------------------------------

MODELS = [
    *(derive.TeacherStudent(**arguments) for arguments, _ in CASES.values()),
    derive.TeacherStudent(
        activation=lambda x: x**3 / 3 + sympy.tanh(2 * x), teacher_activation="relu", output_scale=sympy.Rational(1, 3)
    ),
    derive.TeacherStudent(
        activation=sympy.sqrt(2) * sympy.Symbol("u") * sympy.exp(-(sympy.Symbol("u") ** 2)), output_scale=0.25
    ),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_models_round_trip(model):
    text = model.to_json()
    assert model_from_json(text) == model
    assert json.loads(text)["model"] == "TeacherStudent"


def test_a_model_that_its_text_would_change_is_refused():
    model = derive.TeacherStudent(activation=lambda x: sympy.Float(1, 40) / 3 * x)
    with pytest.raises(derive.ModelError, match="fractions"):
        model_to_json(model)


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("{", "text"),
        ("[]", "text"),
        ('{"model": "TeacherStudnet", "version": 1}', "model"),
        ('{"model": "Activation", "version": 1}', "model"),
        ('{"model": "TeacherStudent", "version": 99}', "version"),
        ('{"model": "TeacherStudent", "version": 1, "arguments": {"activaton": "erf"}}', "activaton"),
        ('{"model": "TeacherStudent", "version": 1, "arguments": {"activation": ["erf"]}}', "arguments"),
        (
            '{"model": "TeacherStudent", "version": 1, "arguments": {"activation": "__import__(\'os\').getcwd()"}}',
            "activation",
        ),
        ('{"model": "TeacherStudent", "version": 1, "arguments": {"output_scale": "open(\'x\')"}}', "output_scale"),
    ],
)
def test_text_that_states_no_model_is_an_error(text, argument):
    with pytest.raises(derive.ModelError) as caught:
        model_from_json(text)
    assert caught.value.argument == argument


@pytest.mark.parametrize("case", CASES)
def test_dynamics_round_trip(case):
    dyn = dynamics(case)
    again = dynamics_from_json(dynamics_to_json(dyn))
    assert again == dyn and again.steps == dyn.steps


@pytest.mark.parametrize("case", OTHERS)
def test_other_dynamics_round_trip_with_and_without_their_model(case):
    dyn = other(case)
    again = dynamics_from_json(dynamics_to_json(dyn))
    assert again == dyn and again.method == dyn.method and again.steps == dyn.steps
    assert model_from_json(dyn.model.to_json()) == dyn.model
    bare = dataclasses.replace(dyn, model=None, limit="", steps=(), dropped=())
    read = dynamics_from_json(dynamics_to_json(bare))
    assert read == bare and read.latex() == bare.latex() and str(read) == str(bare)


def test_how_moments_were_asked_for_is_read_back():
    dyn = derive.TeacherStudent(activation="erf").dynamics(moments="numeric")
    document = json.loads(dynamics_to_json(dyn))
    assert document["derived_from"]["call"]["moments"] == "numeric" and set(document["numerical"]) >= {
        "Q",
        "R",
        "eg",
        "loss",
    }
    document["derived_from"]["call"]["moments"] = "closed"
    with pytest.raises(derive.ModelError, match="what its model gives"):
        dynamics_from_json(json.dumps(document))


@pytest.mark.parametrize("case", ["erf", "gradient_flow", "linear", "He3"])
def test_equations_without_a_model_round_trip_node_by_node(case):
    bare = dataclasses.replace(dynamics(case), model=None, limit="", steps=(), dropped=())
    again = dynamics_from_json(dynamics_to_json(bare))
    assert again == bare and pickle.loads(pickle.dumps(again)) == bare
    assert again.latex() == bare.latex()


def test_equations_that_are_not_the_models_are_an_error():
    document = json.loads(dynamics_to_json(dynamics("erf")))
    document["equations"]["dR[i, n]/dt" if "dR[i, n]/dt" in document["equations"] else "dR/dt"] = "0"
    with pytest.raises(derive.ModelError, match="what its model gives"):
        dynamics_from_json(json.dumps(document))


def test_unknown_nodes_are_an_error():
    with pytest.raises(derive.ModelError, match="node among"):
        decode(["Popen", ["plain", "ls"]])
    with pytest.raises(derive.ModelError, match="made of"):
        encode(sympy.zeta(sympy.Symbol("x")))
    with pytest.raises(derive.ModelError, match="a Dynamics"):
        dynamics_from_json('{"dynamics": "a number", "version": 1, "tree": ["Integer", "1"]}')


# --- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".tex", ".py", ".json"])
def test_write_returns_the_path(ending, tmp_path):
    path = dynamics("linear").write(tmp_path / f"model{ending}")
    assert path == tmp_path / f"model{ending}" and path.stat().st_size > 500
    assert path.read_text(encoding="utf-8") == to_text(dynamics("linear"), ending)


@pytest.mark.parametrize("name", ["model.jsn", "model", "model.jl"])
def test_another_ending_is_an_error_that_names_what_works(name, tmp_path):
    with pytest.raises(derive.ModelError, match=r"\.tex, \.py, \.json"):
        dynamics("linear").write(tmp_path / name)
    assert not (tmp_path / name).exists()
