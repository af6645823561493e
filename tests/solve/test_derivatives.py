"""Derivatives of operations against mpmath's, SymPy's, differences and the symbolic tangent; and interrupted work."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from effdyn import derive, solve
from effdyn.derive.dynamics import TIME
from effdyn.solve.derivatives import machine
from effdyn.solve.derivatives import program as programs
from effdyn.solve.derivatives.program import assembled, program
from effdyn.solve.derivatives.rules import FUNCTIONS, OF_CONSTANT, OF_TWO, POWER
from effdyn.solve.ensembles.sixteen import LANES
from effdyn.solve.fluctuations import integrate as fluctuations
from effdyn.solve.fluctuations import problem as problems
from effdyn.solve.fluctuations.rhs import STEP, rhs_function
from effdyn.solve.integrators.trajectory import compute_trajectory
from effdyn.solve.kernels.layout import pack, parameter_vector, read_inputs, unpack
from effdyn.solve.kernels.reference import evaluate
from effdyn.solve.kernels.tape import Tape, Value
from effdyn.solve.kernels.unroll import recorded

execute, sweep = machine.compiled()
LINEAR = derive.TeacherStudent(activation="linear")


def committee(K: int, M: int) -> dict[str, Any]:
    rng = np.random.default_rng(K)
    v = rng.standard_normal((K + M, 12)) / np.sqrt(12)
    gram = v @ v.T
    params = dict(eta=0.6, sigma=0.3, T=gram[K:, K:], a=rng.uniform(0.5, 1.5, K), b=rng.uniform(0.5, 1.5, M))
    return dict(y0=dict(Q=gram[:K, :K], R=gram[:K, K:]), params=params)


def rates(system: Any, y: np.ndarray) -> np.ndarray:
    out, par, work = np.empty_like(y), system.parameters(), np.zeros(system.n_work)
    rhs_function()(0.0, *(array.ctypes.data for array in (y, out, par, work)))
    return out


Three = tuple[np.ndarray, np.ndarray, np.ndarray]
Equations = tuple[list[Any], list[sympy.Symbol], dict[Any, Any]]


def derivatives(dynamics: derive.Dynamics, given: dict[str, Any], t: float) -> Three:
    """Return the drift, its Jacobian and its second derivatives (n, n, n), by one sweep for each pair of states.

    Along e_j + e_k and e_j − e_k the second derivatives differ by 4 H_jk.
    """
    inputs = read_inputs(dynamics, **given)
    y = pack(dynamics.states, inputs.y0)
    n = len(y)
    found = program(dynamics, "drift", tuple(inputs.sizes[str(s)] for s in dynamics.sizes), n)
    assert found is not None
    encoded = found.encoded(parameter_vector(dynamics, inputs))
    work, J, H = np.zeros(machine.work_size(encoded)), np.empty((n, n)), np.empty((n, n, n))
    execute(encoded, t, y, work)
    drift = work[found.results]
    curved, units = np.empty(n), np.eye(n)
    sweep(encoded, units.ravel(), np.zeros(n), work, J.reshape(-1), curved)
    for j in range(n):
        for k in range(n):
            pair = []
            for sign in (1, -1):
                columns = np.zeros((n, n))
                columns[:, 0] = units[j] + sign * units[k]
                sweep(encoded, columns.ravel(), np.zeros(n), work, np.empty(n * n), curved)
                pair.append(curved.copy())
            H[:, j, k] = (pair[0] - pair[1]) / 4
    return drift, J, H


def symbolic(dynamics: derive.Dynamics, given: dict[str, Any], t: float) -> Equations:
    """Return the equations of one student and one teacher in closed form, their states, and numbers for all symbols."""
    inputs = read_inputs(dynamics, **given)
    plain = {q.name: sympy.Symbol(f"{q.name}_") for q in (*dynamics.states, *dynamics.parameters)}
    one = {s: sympy.S.One for s in dynamics.sizes}
    equations = []
    for e in dynamics.drift:
        expr = dynamics.closed(e.expr).xreplace(one).doit()
        expr = expr.xreplace({i: plain[str(i.base)] for i in expr.atoms(sympy.Indexed)})
        equations.append(expr.xreplace({s: plain[s.name] for s in expr.free_symbols if s.name in plain}))
    numbers = {plain[name]: sympy.Float(float(np.ravel(v)[0]), 30) for name, v in (inputs.y0 | inputs.params).items()}
    return equations, [plain[q.name] for q in dynamics.states], numbers | {TIME: sympy.Float(t, 30)}


MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "erf": (dict(activation="erf"), {}),
    "both layers, weight decay": (
        dict(activation="erf", second_layer="trained", weight_decay=True),
        dict(eta_a=0.4, kappa=0.3),
    ),
    "He3": (dict(activation="He3"), {}),
    "cosine": (dict(activation=sympy.cos), {}),
    "momentum": (dict(activation="erf", momentum="slow"), dict(mu=0.7)),
    "batches": (dict(activation="erf", batch=True), dict(batch=4.0)),
    "schedule": (dict(activation="erf", schedule="1/(1 + t/tau)"), dict(tau=2.0)),
}
SLOW = ("both layers, weight decay", "He3", "batches")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODELS])
def test_derivatives_of_one_student_are_those_of_its_formulas(name: str) -> None:
    """Against derivatives of the closed forms by mpmath, with 30 digits."""
    options, more = MODELS[name]
    dynamics = derive.TeacherStudent(**options).dynamics()
    buffers = {q.name: [[0.2]] for q in dynamics.states if q.name in ("P", "V", "S")}
    given = committee(1, 1)
    given["y0"] |= buffers | ({"a": [0.8]} if more.get("eta_a") else {})
    given["params"] = {k: v for k, v in given["params"].items() if k not in given["y0"]} | more
    drift, J, H = derivatives(dynamics, given, t=0.5)
    equations, states, numbers = symbolic(dynamics, given, 0.5)

    at = [numbers.pop(x) for x in states]
    functions = [sympy.lambdify(states, e.xreplace(numbers), "mpmath", cse=True) for e in equations]

    def exact(*along: int) -> np.ndarray:
        orders = tuple(along.count(j) for j in range(len(states)))
        with mpmath.workdps(30):
            return np.array([float(mpmath.diff(f, tuple(at), orders)) for f in functions])

    # forms of some hundred operations, each rounded to 1e-16 of the largest number on the way
    rounding = dict(rtol=1e-12, atol=1e-12)
    n = range(len(states))
    np.testing.assert_allclose(drift, exact(), **rounding)
    np.testing.assert_allclose(J, np.stack([exact(j) for j in n], axis=1), **rounding)
    second = np.array([[exact(j, k) for k in n] for j in n])
    np.testing.assert_allclose(H, second.transpose(2, 0, 1), **rounding)


@pytest.mark.parametrize(
    "options",
    [dict(activation="He2", second_layer="trained"), pytest.param(dict(activation="erf"), marks=pytest.mark.slow)],
)
def test_curvature_as_a_formula_is_that_of_the_operations(options: dict[str, Any]) -> None:
    """∇²b : l lᵀ for K = 2, M = 1, by the interpreter of indexed expressions."""
    theory = derive.TeacherStudent(**options).dynamics().fluctuations()
    case = committee(2, 1)
    if "second_layer" in options:
        case["y0"]["a"], case["params"]["eta_a"] = case["params"].pop("a"), 0.4
    inputs = read_inputs(theory.dynamics, **case)
    y = pack(theory.dynamics.states, inputs.y0)
    n, l = len(y), np.random.default_rng(0).standard_normal(len(y))
    assert theory.curvature and theory.tangent
    perturbations = unpack(theory.dynamics.states, l, inputs.sizes).values()
    moved = {q.name: value for q, value in zip(theory.tangent.states, perturbations, strict=True)}
    found = evaluate(theory.curvature, inputs.y0, inputs.params | moved)
    columns, images, curved = np.zeros((n, n)), np.empty(n * n), np.empty(n)
    columns[:, 0] = l
    operations = program(theory.dynamics, "drift", (2, 1), n)
    assert operations is not None
    encoded = operations.encoded(parameter_vector(theory.dynamics, inputs))
    work = np.zeros(machine.work_size(encoded))
    execute(encoded, 0.0, y, work)
    sweep(encoded, columns.ravel(), np.zeros(n), work, images, curved)
    np.testing.assert_allclose(pack(theory.dynamics.states, found), curved, rtol=1e-12, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["erf", "He2", "linear"]), st.integers(1, 3), st.integers(1, 2), st.integers(0, 99))
def test_second_derivatives_are_differences_of_the_first(activation: str, K: int, M: int, seed: int) -> None:
    """For any numbers of units: H along a direction is the slope of J along it, to fourth order in the step."""
    dynamics = derive.TeacherStudent(activation=activation).dynamics()
    case = committee(K, M)
    inputs = read_inputs(dynamics, **case)
    y = pack(dynamics.states, inputs.y0)
    n = len(y)
    found = program(dynamics, "drift", (K, M), n)
    assert found is not None
    encoded = found.encoded(parameter_vector(dynamics, inputs))
    work, rng = np.zeros(machine.work_size(encoded)), np.random.default_rng(seed)
    columns, seeds = rng.standard_normal((n, n)) / np.sqrt(n), rng.standard_normal(n)

    def swept(at: np.ndarray, matrix: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, curved = np.empty((n, n)), np.empty(n)
        execute(encoded, 0.0, at, work)
        sweep(encoded, np.ascontiguousarray(matrix).ravel(), s, work, images.reshape(-1), curved)
        return images, curved

    def jacobian(at: np.ndarray) -> np.ndarray:
        return swept(at, np.eye(n), np.zeros(n))[0]

    images, curved = swept(y, columns, seeds)
    J = jacobian(y)
    scale = np.abs(J).max()
    np.testing.assert_allclose(images, J @ columns, rtol=0, atol=n * 1e-14 * scale)
    h, expected = 1e-3, J @ seeds
    for l in columns.T:
        one, two = ((jacobian(y + s * h * l) - jacobian(y - s * h * l)) @ l for s in (1, 2))
        expected = expected + (8 * one - two) / (12 * h)
    # h⁴ times fifth derivatives, for which (scale of variances)⁻⁵ ~ 1e4 is room; rounding over h
    np.testing.assert_allclose(curved, expected, rtol=0, atol=n * scale * (1e4 * h**4 + 1e-13 / h))


def test_more_states_than_lanes_are_swept_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 states: operations differentiated, and the symbolic tangent along each column with differences for H."""
    theory = LINEAR.dynamics().fluctuations()
    inputs = read_inputs(theory.dynamics, **committee(5, 2))
    state = pack(theory.dynamics.states, inputs.y0)
    n = len(state)
    assert n > LANES
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((n, n))
    y = np.concatenate([state, rng.standard_normal(n), (factor @ factor.T)[np.triu_indices(n)]])
    exact = problems.problem(theory, inputs)
    monkeypatch.setattr(problems, "program", lambda *_: None)
    without = problems.problem(theory, inputs)
    assert exact.program.size and not without.program.size
    nowhere = replace(without, addresses=(without.addresses[0], 0, *without.addresses[2:]))
    said = [problems.derivatives_of_drift(system) for system in (exact, without, nowhere)]
    assert [text.split(":")[0] for text in said] == ["exact", "first", "differences of the drift"]
    found, expected = rates(exact, y), rates(without, y)
    # the same J in another order of operations: n roundings of numbers as large as the largest
    np.testing.assert_allclose(found[2 * n :], expected[2 * n :], rtol=0, atol=n * 1e-15 * np.abs(expected).max())
    # H of a linear network is 0 in R, and quadratic in Q: differences have no truncation, rounding over STEP² only
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15 / STEP**2 * np.abs(expected).max())


def test_covariances_of_less_than_full_rank() -> None:
    """One direction of variance, and one more by rounding: J C is that of C itself."""
    theory = LINEAR.dynamics().fluctuations()
    inputs = read_inputs(theory.dynamics, **committee(2, 1))
    state = pack(theory.dynamics.states, inputs.y0)
    n = len(state)
    system = problems.problem(theory, inputs)
    u, v = np.random.default_rng(0).standard_normal((2, n))
    upper = np.triu_indices(n)

    def of(C: np.ndarray) -> np.ndarray:
        return rates(system, np.concatenate([state, np.zeros(n), C[upper]]))[2 * n :]

    nothing = of(np.zeros((n, n)))
    one, other = (of(np.outer(x, x)) - nothing for x in (u, v))
    both = of(np.outer(u, u) + 1e-15 * np.outer(v, v)) - nothing
    np.testing.assert_allclose(both, one + 1e-15 * other, rtol=0, atol=1e-14 * np.abs(one).max())


X, Z = sympy.symbols("x z", positive=True)
OPERATIONS = {
    "sum": ("(y[0] + y[1]) * (y[0] + 3)", (X + Z) * (X + 3)),
    "difference": ("(y[0] - y[1]) * (2 - y[0]) * (y[1] - 3)", (X - Z) * (2 - X) * (Z - 3)),
    "quotient": ("y[0] / y[1] / (1 + y[0])", X / Z / (1 + X)),
    "of constants": ("2 / y[0] + y[1] / 3 - (-y[0]) * 5", 2 / X + Z / 3 + 5 * X),
    "powers": ("y[0] ** 2 * y[1] ** 3 / y[0] ** 2.5", Z**3 / sympy.sqrt(X)),
    "roots": ("math.sqrt(y[0] * y[1]) * math.sqrt(y[0])", X * sympy.sqrt(Z)),
    "arcs": (
        "asin(y[0] * y[1]) + math.acos(y[0]) * math.atan(y[1])",
        sympy.asin(X * Z) + sympy.acos(X) * sympy.atan(Z),
    ),
    "exponentials": ("math.exp(y[0] * y[1]) * math.log(y[0])", sympy.exp(X * Z) * sympy.log(X)),
    "error functions": ("math.erf(y[0]) * math.erfc(y[0] * y[1])", sympy.erf(X) * sympy.erfc(X * Z)),
    "waves": (
        "math.sin(y[0] * y[1]) + math.cos(y[0]) * math.tanh(y[1])",
        sympy.sin(X * Z) + sympy.cos(X) * sympy.tanh(Z),
    ),
    "modulus": ("abs(y[0] - y[1]) * y[0]", (Z - X) * X),
}


def operations(text: str) -> tuple[Tape, list[Value]]:
    return recorded(f"def kernel(t, y, out, par, work):\n    out[0] = {text}\n", ())


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_has_its_derivatives(name: str) -> None:
    """Against SymPy's, of J s + Σ_l ∇²b : l lᵀ."""
    text, formula = OPERATIONS[name]
    encoded = assembled(*operations(text), 2).encoded(np.zeros(0))
    at, columns, s = np.array([0.3, 0.7]), np.array([[0.4, -1.1], [0.9, 0.2]]), np.array([0.6, -0.3])
    work, images, curved = np.zeros(machine.work_size(encoded)), np.empty(2), np.empty(1)
    execute(encoded, 0.0, at, work)
    sweep(encoded, columns.ravel(), s, work, images, curved)
    there = {X: 0.3, Z: 0.7}
    gradient = np.array([float(sympy.diff(formula, x).subs(there)) for x in (X, Z)])
    hessian = np.array([[float(sympy.diff(formula, x, z).subs(there)) for x in (X, Z)] for z in (X, Z)])
    np.testing.assert_allclose(images, gradient @ columns, rtol=1e-13, atol=1e-13)
    expected = gradient @ s + np.einsum("jl,jk,kl->", columns, hessian, columns)
    np.testing.assert_allclose(curved, expected, rtol=1e-13, atol=1e-13)


def test_every_kind_of_operation_is_tried() -> None:
    tried = [assembled(*operations(text), 2) for text, _ in OPERATIONS.values()]
    kinds = {int(kind) for found in tried for kind in found.kinds}
    assert kinds == {*OF_TWO.values(), *OF_CONSTANT.values(), *FUNCTIONS.values(), POWER}


def test_large_systems_and_rules_over_nodes_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LONGEST", 1000)
    erf, tanh = (derive.TeacherStudent(activation=name).dynamics() for name in ("erf", "tanh"))
    assert program(erf, "drift", (4, 3), 22) is None
    assert program(tanh, "drift", (1, 1), 2) is None
    program.cache_clear()


def interrupting(after: int) -> Callable[..., Any]:
    """Return the integrator as it returns when it is interrupted after some output times."""
    integrator = compute_trajectory

    def interrupted(*args: Any, **options: Any) -> Any:
        run = integrator(*args, **options)
        return replace(run, t=run.t[:after], y=run.y[:after], status=type(run.status).RUNNING, interrupted=True)

    return interrupted


def test_interrupted_fluctuations_keep_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    theory = LINEAR.dynamics().fluctuations()
    given: dict[str, Any] = dict(
        y0=dict(Q=[[0.3]], R=[[0.1]]), params=dict(eta=0.5, sigma=0.1, T=[[1.0]], a=1.0, b=1.0)
    )
    whole = fluctuations.integrate_fluctuations(theory, (0, 3), t_eval=[1, 2, 3], **given)
    monkeypatch.setattr(fluctuations, "compute_trajectory", interrupting(2))
    with pytest.warns(RuntimeWarning, match="interrupted at t = 2"):
        kept = fluctuations.integrate_fluctuations(theory, (0, 3), t_eval=[1, 2, 3], **given)
    assert whole.attrs["derivatives"].startswith("exact")
    assert kept.attrs["status"] == "interrupted" and kept.t.values.tolist() == [1, 2]
    np.testing.assert_array_equal(kept.eg_variance, whole.eg_variance[:2])
    monkeypatch.setattr(fluctuations, "compute_trajectory", interrupting(0))
    with pytest.raises(KeyboardInterrupt):
        fluctuations.integrate_fluctuations(theory, (0, 3), t_eval=[1, 2, 3], **given)
    assert solve.integrate(theory.dynamics, (0, 1), t_eval=[1], **given).attrs["status"] == "success"
