"""Generated kernels: equal to the reference for every model and all sizes, readable, reproducible, honest about NaN."""

import ast
import builtins
import math
import os
import re
import subprocess
import sys
import textwrap
import types
from dataclasses import dataclass, replace

import numpy as np
import pytest
import sympy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from effdyn.derive import Dynamics, Equation, Quantity, TeacherStudent
from effdyn.solve import kernel
from effdyn.solve.kernels.kernel import generate, observables_kernel
from effdyn.solve.kernels.pairs import MOST_LANES, WIDTH, Pairs
from effdyn.solve.kernels.reference import Interpreter, evaluate, observe
from effdyn.solve.kernels.rename import safe_names

ULP = 2.0**-52
SIZES = [(1, 1), (2, 1), (1, 3), (2, 2), (3, 2), (4, 4), (7, 5)]
MODELS = {
    "erf": TeacherStudent(activation="erf"),
    "erf-trained": TeacherStudent(
        activation="erf", second_layer="trained", weight_decay=True, output_scale="1/sqrt(K)"
    ),
    "linear": TeacherStudent(activation="linear"),
    "square": TeacherStudent(activation="square"),
    "erf-He3": TeacherStudent(activation="erf", teacher_activation="He3"),
    "cubic": TeacherStudent(activation="x**3/3 + x**2/2 - x + 1/5", second_layer="trained"),
}
SMALL = {"cubic": 4, "erf-He3": 4}
"""At how many of the sizes models with long moments are compared in the normal run; at the others they are slow."""
ARCSINES = {"erf": 6, "erf-trained": 5}
"""The same of drifts with arcsines of four fields, of which the reference and its rounding bounds take 10 s at (7, 5).

Linear and square networks are compared there too; at (4, 4) ten pairs of students already leave lanes to fill.
"""
WAVELET = TeacherStudent(activation="x**2*exp(-x**2/2)", teacher_activation="erf")
LIMITS = ["high-dimensional", "gradient-flow"]


# -- numbers that know how wrong they may be ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Rounded:
    """A number and a bound on its rounding error: to first order, every operation adds half an ulp of its operands.

    Operands rather than results, because a kernel may sum the same terms in another order. The reference, run in these
    numbers, says how far two correct evaluations of one formula can be apart, cancellation included.
    """

    value: float
    error: float = 0.0

    @staticmethod
    def of(number):
        return number if isinstance(number, Rounded) else Rounded(float(number), ULP / 2 * abs(float(number)))

    def __add__(self, other):
        other = Rounded.of(other)
        rounding = ULP / 2 * (abs(self.value) + abs(other.value))
        return Rounded(self.value + other.value, self.error + other.error + rounding)

    def __mul__(self, other):
        other = Rounded.of(other)
        value = self.value * other.value
        return Rounded(value, abs(self.value) * other.error + abs(other.value) * self.error + ULP / 2 * abs(value))

    def __truediv__(self, other):
        return self * Rounded.of(other) ** -1

    def __pow__(self, power):
        power = power.value if isinstance(power, Rounded) else power
        value = float(np.float64(self.value) ** power)
        slope = abs(power * value / self.value) if self.value else float(power == 1)
        return Rounded(value, slope * self.error + 2 * abs(power) * ULP * abs(value))

    def arcsin(self):
        value, slack = float(np.arcsin(self.value)), 1 - self.value**2
        return Rounded(value, self.error / math.sqrt(max(slack, self.error)) + 4 * ULP * abs(value))


def rounding_bounds(dynamics, equations, values):
    """The bound on the rounding error of each entry."""
    as_rounded = {name: np.vectorize(Rounded.of, otypes=[object])(value) for name, value in values.items()}
    interpreter = Interpreter(dynamics, as_rounded, number=Rounded.of, functions={"asin": Rounded.arcsin})
    bound = np.vectorize(lambda entry: entry.error, otypes=[float])
    return {name: bound(entries) for name, entries in interpreter.arrays(equations).items()}


# -- states, and the calling convention --------------------------------------------------------------------------------


def random_values(dynamics, sizes, rng):
    """Values of all states and parameters: overlaps of random vectors, other entries of order one."""
    students, teachers = sizes["K"], sizes["M"]
    dimension = students + teachers + 2
    vectors = rng.normal(size=(students + teachers, dimension)) / math.sqrt(dimension)
    gram = vectors @ vectors.T
    gram = (gram + gram.T) / 2
    overlaps = {"Q": gram[:students, :students], "R": gram[:students, students:], "T": gram[students:, students:]}
    values = {}
    for q in (*dynamics.states, *dynamics.parameters):
        shape = tuple(sizes[str(size)] for size in q.shape)
        values[q.name] = overlaps[q.name] if q.name in overlaps else rng.uniform(0.3, 1.5, shape)
    return values


def pack(quantities, values):
    """The states as a kernel reads them: symmetric ones as the upper triangle, row by row."""
    parts = [
        values[q.name][np.triu_indices(len(values[q.name]))] if q.symmetric else values[q.name] for q in quantities
    ]
    return np.concatenate([np.ravel(part).astype(float) for part in parts])


def arguments(dynamics, sizes, values):
    """``y`` and ``par`` of the calling convention."""
    numbers = [sizes[str(size)] for size in dynamics.sizes]
    parameters = [np.ravel(values[q.name]) for q in dynamics.parameters]
    return pack(dynamics.states, values), np.concatenate([np.array(numbers, float), *parameters]).astype(float)


def run(compiled, dynamics, sizes, values):
    """The output of a kernel, packed; what it must not touch is guarded."""
    y, par = arguments(dynamics, sizes, values)
    shapes = [tuple(sizes[str(size)] for size in q.shape) for q in compiled.outputs]
    length = sum(
        shape[0] * (shape[0] + 1) // 2 if q.symmetric else math.prod(shape)
        for q, shape in zip(compiled.outputs, shapes, strict=True)
    )
    guard, inputs = 8, (y.copy(), par.copy())
    out = np.full(length + guard, -777.0)
    size = compiled.workspace_size(sizes)
    work = np.full(size + guard, np.nan)  # NaN: nothing may be read that was not written
    work[size:] = -777.0
    compiled(0.0, y, out, par, work)
    assert (out[length:] == -777.0).all(), "wrote beyond its output"
    assert (work[size:] == -777.0).all(), "wrote beyond its workspace"
    unchanged = np.array_equal(inputs[0], y, equal_nan=True) and np.array_equal(inputs[1], par, equal_nan=True)
    assert unchanged, "changed its input"
    return out[:length]


def assert_equals_reference(compiled, dynamics, equations, sizes, values):
    """Compare with the reference to twice the rounding error of either, which is itself a few hundred ulp at most."""
    quantities = [e.quantity for e in equations]
    reference = pack(quantities, Interpreter(dynamics, values).arrays(equations))
    tolerance = 4 * pack(quantities, rounding_bounds(dynamics, equations, values))
    result = run(compiled, dynamics, sizes, values)
    assert (tolerance < 1e4 * ULP * (1 + np.max(np.abs(reference)))).all(), "too coarse to notice a wrong term"
    np.testing.assert_array_less(np.abs(result - reference), tolerance + 1e-300)


# -- the derived models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("model", MODELS)
def test_one_kernel_equals_the_reference_at_all_sizes(model, limit, rng):
    small = SMALL | ARCSINES if limit == "high-dimensional" else SMALL
    check_drift(MODELS[model].dynamics(limit=limit), SIZES[: small.get(model)], rng)


@pytest.mark.slow
@pytest.mark.parametrize("model", [*map(MODELS.get, SMALL | ARCSINES), WAVELET], ids=repr)
def test_long_moments_at_large_sizes(model, rng):
    """Moments of hundreds of terms: up to a minute in the reference."""
    check_drift(model.dynamics(), SIZES, rng)


def check_drift(dynamics, sizes_to_check, rng):
    compiled = kernel(dynamics)
    for students, teachers in sizes_to_check:
        sizes = {"K": students, "M": teachers}
        values = random_values(dynamics, sizes, rng)
        assert_equals_reference(compiled, dynamics, dynamics.drift, sizes, values)


@pytest.mark.parametrize("model", MODELS)
def test_observables_equal_the_reference_at_all_sizes(model, rng):
    dynamics = MODELS[model].dynamics()
    compiled = observables_kernel(dynamics)
    assert [q.name for q in compiled.outputs] == [e.quantity.name for e in dynamics.observables]
    for students, teachers in SIZES:
        sizes = {"K": students, "M": teachers}
        values = random_values(dynamics, sizes, rng)
        assert_equals_reference(compiled, dynamics, dynamics.observables, sizes, values)


def test_the_reference_broadcasts_numbers_and_is_symmetric(rng):
    dynamics = MODELS["erf"].dynamics()
    values = random_values(dynamics, {"K": 3, "M": 2}, rng)
    spelled = {**values, "a": np.full(3, 0.7), "b": np.full(2, 1.2)}
    short = {**values, "a": 0.7, "b": 1.2}

    def split(v):
        return {n: v[n] for n in ("Q", "R")}, {n: x for n, x in v.items() if n not in ("Q", "R")}

    for function in (evaluate, observe):
        one, other = function(dynamics, *split(spelled)), function(dynamics, *split(short))
        assert all(np.array_equal(one[name], other[name]) for name in one)
    rate = evaluate(dynamics, *split(values))["Q"]
    np.testing.assert_allclose(rate, rate.T, rtol=0, atol=64 * ULP * np.abs(rate).max())


@pytest.mark.parametrize("change", [{"Q": None}, {"q": 1.0}, {"b": np.ones(3)}])
def test_the_reference_refuses_what_is_missing_unknown_or_misshapen(change, rng):
    dynamics = MODELS["erf"].dynamics()
    values = {**random_values(dynamics, {"K": 3, "M": 2}, rng), **change}
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(ValueError, match=next(iter(change))):
        evaluate(dynamics, {}, values)


def test_overlaps_that_no_vectors_have_give_nan():
    """Beyond |Q_12| = √(Q_11 Q_22) the argument of asin may leave [−1, 1]: NaN says so, a clamped value would not."""
    dynamics = MODELS["erf"].dynamics()
    values = {
        "Q": np.array([[0.5, 4.0], [4.0, 0.5]]),
        "R": np.array([[0.1], [0.2]]),
        "T": np.eye(1),
        "eta": 1.0,
        "sigma": 0.1,
        "a": np.ones(2),
        "b": np.ones(1),
    }
    sizes = {"K": 2, "M": 1}
    for compiled, equations in (
        (kernel(dynamics), dynamics.drift),
        (observables_kernel(dynamics), dynamics.observables),
    ):
        result = run(compiled, dynamics, sizes, values)
        expected = pack([e.quantity for e in equations], Interpreter(dynamics, values).arrays(equations))
        assert np.isnan(result).any()
        assert np.array_equal(np.isnan(result), np.isnan(expected))


@pytest.mark.parametrize("name", ["Q", "R", "a", "eta"])
def test_nan_in_gives_nan_out(name, rng):
    dynamics = MODELS["erf-trained"].dynamics()
    sizes = {"K": 3, "M": 2}
    values = random_values(dynamics, sizes, rng)
    values[name] = np.full_like(values[name], np.nan)
    result = run(kernel(dynamics), dynamics, sizes, values)
    expected = pack(dynamics.states, evaluate(dynamics, {}, values))
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    assert np.isnan(result).any()


# -- the source --------------------------------------------------------------------------------------------------------


def sources():
    """Every generated source, not compiled."""
    for name, model in MODELS.items():
        for limit in LIMITS:
            dynamics = model.dynamics(limit=limit)
            for which in ("drift", "observables"):
                outputs = [(e.quantity, e.expr) for e in getattr(dynamics, which)]
                yield f"{name}, {limit}, {which}", generate(dynamics, outputs, name)[0]


def test_source_is_self_contained_and_says_what_it_computes():
    for name, source in sources():
        tree = ast.parse(source)
        imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        modules = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in imports if isinstance(n, ast.ImportFrom)}
        assert modules == {"math", "numba"}, name
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        stored |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        stored |= {a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in n.args}
        stored |= {a.name for n in imports for a in n.names}
        loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert loaded <= stored | set(dir(builtins)), name
        assert "drift" not in name or "# dQ[i, k]/dt = " in source, "the equation stands above its loops"


def test_a_legend_says_what_each_array_holds():
    for name, source in sources():
        lines = source.split("def kernel")[1].splitlines()
        for line in lines:
            if array := re.match(r"\s+((?:row|twice|weights)\d+) = ", line):
                assert f"# {array[1]}[" in line or ("weights" in array[1] and ", doubled for " in line), (name, line)
    source = dict(sources())["erf, high-dimensional, drift"]
    # <h h> = Q in the matrix of all overlaps C, as u runs over students and teacher units; 1 + <h h> of the erf forms.
    assert re.search(r"# row\d+\[i, u\] = c\[u\]/sqrt\(C\[u, u\] \+ 1 - C\[i, u\]\*\*2/\(C\[i, i\] \+ 1\)\)", source)
    assert "# c[u]: -a[u] for h, b[u] for h_star" in source and "<h h_star> is R" in source


def test_where_the_first_gathered_sum_begins_is_no_variable():
    for name, source in sources():
        assert not re.search(r"begin = at\n +start", source), name
        assert "/((math.sqrt(" not in source, name


def test_source_does_not_depend_on_the_hash_seed():
    """Sets of strings and SymPy objects iterate in an order that changes from process to process."""
    code = """
        import hashlib
        from effdyn.derive import TeacherStudent
        from effdyn.solve.kernels.kernel import generate
        models = [
            dict(activation="erf", second_layer="trained", weight_decay=True, output_scale="1/sqrt(K)"),
            dict(activation="erf", teacher_activation="He3"),
            dict(activation="x**3/3 + x**2/2 - x + 1/5"),
        ]
        for options in models:
            for limit in ("high-dimensional", "gradient-flow"):
                dynamics = TeacherStudent(**options).dynamics(limit=limit)
                for equations in (dynamics.drift, dynamics.observables):
                    source, shapes = generate(dynamics, [(e.quantity, e.expr) for e in equations], "title")
                    print(hashlib.sha256(source.encode()).hexdigest(), shapes)
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    one, other = (process.communicate()[0] for process in processes)
    assert len(one.splitlines()) == 12
    assert one == other


# -- equations written by hand -----------------------------------------------------------------------------------------

N, P = (sympy.Symbol(name, integer=True, positive=True) for name in ("L", "P"))
I, J, L, U, V = (sympy.Symbol(name, integer=True, positive=True) for name in ("i", "j", "l", "u", "v"))


def by_hand(*equations, parameters=()):
    return Dynamics(title="by hand", kind="ode", clock="time", drift=tuple(equations), parameters=tuple(parameters))


def test_scalar_equation_by_hand():
    x, rate = Quantity("x"), Quantity("k", minimum=0.0)
    dynamics = by_hand(Equation(x, -x.symbol * rate.symbol), parameters=[rate])
    values = {"x": np.float64(3.0), "k": np.float64(0.25)}
    assert evaluate(dynamics, {"x": 3.0}, {"k": 0.25})["x"] == -0.75
    assert run(kernel(dynamics), dynamics, {}, values) == -0.75


def test_vector_equation_by_hand(rng):
    """x_i' = −x_i + Σ_j J_ij tanh(x_j) + Σ_p F_ip asin(z_p)²,  z_p' = Σ_i F_ip x_i exp(−z_p)."""
    x, z = Quantity("x", (I,), (N,)), Quantity("z", (U,), (P,))
    coupling, mixing = Quantity("J", (I, J), (N, N)), Quantity("F", (I, U), (N, P))
    recurrent = sympy.Sum(coupling.base[I, J] * sympy.tanh(x.base[J]), (J, 1, N))
    driven = sympy.Sum(mixing.base[I, V] * sympy.asin(z.base[V]) ** 2, (V, 1, P))
    decay = sympy.exp(-z.symbol) * sympy.Sum(mixing.base[L, U] * x.base[L], (L, 1, N))
    dynamics = by_hand(Equation(x, -x.symbol + recurrent + driven), Equation(z, decay), parameters=[coupling, mixing])
    compiled = kernel(dynamics)
    for n, p in ((1, 1), (3, 2), (5, 9)):
        values = {
            "x": rng.normal(size=n),
            "z": rng.uniform(-1, 1, p),
            "J": rng.normal(size=(n, n)),
            "F": rng.normal(size=(n, p)),
        }
        result = run(compiled, dynamics, {"L": n, "P": p}, values)
        plain_x = -values["x"] + values["J"] @ np.tanh(values["x"]) + values["F"] @ np.arcsin(values["z"]) ** 2
        plain_z = np.exp(-values["z"]) * (values["x"] @ values["F"])
        np.testing.assert_allclose(
            result, np.concatenate([plain_x, plain_z]), rtol=1e-13, atol=1e-13
        )  # sums of ≤ 10 terms
        reference = evaluate(dynamics, {}, values)
        np.testing.assert_allclose(result, np.concatenate([reference["x"], reference["z"]]), rtol=1e-13, atol=1e-13)


def uncompiled(source):
    """The kernel of a generated source as plain Python, to try many without compiling each."""
    identity = types.SimpleNamespace(cfunc=lambda *a, **k: lambda f: f, njit=lambda *a, **k: lambda f: f)
    source = source.replace("from numba import cfunc, njit", "cfunc, njit = numba.cfunc, numba.njit")
    namespace = {"numba": identity}
    exec(compile(source, "generated", "exec"), namespace)
    return namespace["kernel"]


S = Quantity("S", (I, J), (N, N), symmetric=True)
X_ = Quantity("x", (I,), (N,))
C = Quantity("c")
W = Quantity("W", (I, U), (N, P))
B = Quantity("B", (U, V), (P, P), symmetric=True)
Z = Quantity("z", (U,), (P,))


def expressions(indices_n, indices_p, depth):
    """Random expressions in the given indices: sums over fresh ones, powers and functions included."""
    leaves = [st.just(C.base), st.sampled_from([sympy.Rational(1, 3), sympy.Integer(-2), sympy.sqrt(2), N * P])]
    if indices_n:
        n = st.sampled_from(indices_n)
        leaves += [n.map(lambda i: X_.base[i]), st.tuples(n, n).map(lambda p: S.base[p])]
    if indices_p:
        p = st.sampled_from(indices_p)
        leaves += [p.map(lambda u: Z.base[u]), st.tuples(p, p).map(lambda q: B.base[q])]
    if indices_n and indices_p:
        leaves.append(st.tuples(n, p).map(lambda q: W.base[q]))
    leaf = st.one_of(*leaves)
    if depth == 0:
        return leaf
    inner = expressions(indices_n, indices_p, depth - 1)
    options = [
        leaf,
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: sympy.Add(*terms)),
        st.lists(inner, min_size=2, max_size=3).map(lambda factors: sympy.Mul(*factors)),
        inner.map(lambda e: e**2),
        inner.map(lambda e: 1 / sympy.sqrt(1 + e**2)),
        inner.map(lambda e: sympy.asin(e / sympy.sqrt(2 + e**2))),
        inner.map(lambda e: sympy.exp(-(e**2))),
    ]
    fresh_n = [i for i in (J, L) if i not in indices_n]
    fresh_p = [u for u in (V, sympy.Symbol("w", integer=True, positive=True)) if u not in indices_p]
    if fresh_n:
        i = fresh_n[0]
        body = expressions((*indices_n, i), indices_p, depth - 1)
        options.append(body.map(lambda e: sympy.Sum(e, (i, 1, N))))
    if len(fresh_n) == 2:
        i, l = fresh_n
        pair = expressions((*indices_n, i, l), indices_p, depth - 1)
        options.append(pair.map(lambda e: sympy.Sum(e, (l, 1, N), (i, 1, N))))
    if fresh_p:
        u = fresh_p[0]
        teacher = expressions(indices_n, (*indices_p, u), depth - 1)
        options.append(teacher.map(lambda e: sympy.Sum(e, (u, 1, P))))
    return st.one_of(*options)


def assert_any_equations_equal_reference(matrix, vector, seed=0, sizes=(3, 2)):
    """Uncompiled: the loops are what is tested, and compiling takes a second each. Returns the source."""
    n, p = sizes
    rng = np.random.default_rng(seed)
    dynamics = by_hand(
        Equation(W, matrix), Equation(X_, vector), Equation(S, S.symbol), Equation(C, C.base), parameters=[B, Z]
    )
    half, other = rng.normal(size=(n, n)), rng.normal(size=(p, p))
    values = {
        "W": rng.normal(size=(n, p)),
        "x": rng.normal(size=n),
        "S": half + half.T,
        "c": rng.normal(),
        "B": other + other.T,
        "z": rng.normal(size=p),
    }
    source, shapes = generate(dynamics, [(e.quantity, e.expr) for e in dynamics.drift], "uncompiled")
    y, par = arguments(dynamics, {"L": n, "P": p}, values)
    out = np.full(len(y), np.nan)
    size = 8 + sum(math.prod(int(sympy.sympify(s).subs({N: n, P: p})) for s in shape) for shape in shapes)
    with np.errstate(all="ignore"):
        uncompiled(source)(0.0, y, out, par, np.full(size, np.nan))
    expected = pack(dynamics.states, evaluate(dynamics, {}, values))
    scale = np.maximum(np.abs(expected), 1.0)
    # sums of up to 3^4 terms that may cancel, raised to powers: 1e-9 is far above rounding and far below a wrong term
    np.testing.assert_allclose(out / scale, expected / scale, rtol=0, atol=1e-9)
    return source


# no shrinking: it takes minutes, and what was found so far is small and stands below
@settings(max_examples=150, phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False)
@given(expressions((I,), (U,), 3), expressions((I,), (), 3), st.integers(0, 2**31))
def test_any_equations_by_hand_equal_the_reference(matrix, vector, seed):
    """Hoisting, sharing and halving change nothing, whatever the equations are."""
    assert_any_equations_equal_reference(matrix, vector, seed)


R = sympy.Symbol("w", integer=True, positive=True)
w, x, s, z, b, c = W.base, X_.base, S.base, Z.base, B.base, C.base
MATRICES = [
    sympy.Sum(s[J, L] * w[J, U], (L, 1, N), (J, 1, N)),  # a double sum in a row, its inner sum a row of its own
    sympy.Sum(w[J, U] * sympy.Sum(s[J, L] * x[L], (L, 1, N)), (J, 1, N)),
    sympy.Sum(w[I, V] * w[J, V], (J, 1, N), (V, 1, P)),
    sympy.exp(-z[U] * sympy.Sum(x[J] ** 2, (J, 1, N))) * x[I],  # a sum in a row that does not depend on the row's index
    sympy.exp(-(z[U] ** 2) * sympy.Sum(z[V] ** 2, (V, 1, P))) * x[I],
    sympy.Sum(1 / sympy.sqrt(z[U] ** 2 + 1), (J, 1, N)),  # a summand that does not depend on the index
    sympy.Sum(z[U], (V, 1, P)) ** 2,
    sympy.Sum(w[J, U], (L, 1, N), (J, 1, N)),
    sympy.Sum(sympy.asin(w[J, U] / 9) * sympy.asin(x[J] / 9), (J, 1, N)),
    sympy.Sum(sympy.asin(w[J, U] / 9) ** 2, (J, 1, N)) + sympy.Sum(sympy.asin(w[J, U] / 9), (J, 1, N)),
]
VECTORS = [
    sympy.Sum(s[J, L] * x[J] * x[I], (L, 1, N), (J, 1, N)),
    sympy.Sum(w[I, V] * w[J, V] * x[J], (V, 1, P), (J, 1, N)),
    sympy.tanh(x[I] * sympy.Sum(s[J, L] * x[J] * x[L], (J, 1, N), (L, 1, N))),
    x[I] ** 3 / sympy.sqrt(1 + x[I] ** 2 + sympy.Sum(x[J] ** 2, (J, 1, N))),
    # a gathered function that stands more than once in a symmetric summand
    sympy.Sum(sympy.asin(b[V, R] / (9 + x[I] ** 2)) * (x[I] + sympy.cos(z[V] * z[R])), (V, 1, P), (R, 1, P)).expand(),
    sympy.Sum(
        sympy.asin(b[V, R] / (9 + x[I] ** 2)) * sympy.exp(sympy.asin(b[V, R] / (9 + x[I] ** 2))), (V, 1, P), (R, 1, P)
    ),
    x[I] / N**2 + 1 / sympy.sqrt(N) + sympy.pi * x[1] + sympy.Abs(x[I]) + x[I] ** -3,
    (1 + x[I] ** 2) ** sympy.Rational(5, 3) + sympy.log(x[I] ** 2) + sympy.cos(x[I]) * sympy.erf(x[I]),
]


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_matrix_equations_by_hand_equal_the_reference(matrix):
    assert_any_equations_equal_reference(matrix, c)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_vector_equations_by_hand_equal_the_reference(vector):
    assert_any_equations_equal_reference(c, vector)


E = sympy.Symbol("E")  # stands for what depends on the free indices
PAIRS = [  # what is summed over all pairs V, w of P, and what weighs them: the same in all equations
    (sympy.asin(b[V, R] / (99 + E)), z[V] * z[R]),
    (sympy.asin((b[V, R] - w[I, V] * w[I, R] / (9 + E)) / 99), z[V] * z[R] * b[V, R]),
    (sympy.asin(z[V] * z[R] / sympy.sqrt((9 + w[I, V] ** 2 + E) * (9 + w[I, R] ** 2 + E))), 1 + b[V, R]),
    (sympy.asin((b[V, V] + b[R, R]) * w[I, V] * w[I, R] / 999 / (1 + E)), z[V] + z[R]),
]


@pytest.mark.parametrize(("function", "weight"), PAIRS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])  # an even number has a distance at which pairs come twice
def test_sums_over_pairs_by_their_distance_equal_the_reference(function, weight, count):
    total = sympy.Sum(weight * function, (V, 1, P), (R, 1, P))
    vector, matrix = total.subs(E, x[I] ** 2), total.subs(E, x[I] ** 2 + z[U] ** 2)
    source = assert_any_equations_equal_reference(matrix, vector, sizes=(2, count))
    assert source.count("work[gather + at + d*P + ") == 1, "with one free index by distance"
    assert source.count("for begin in range(0, pairs") == 1, "with two in lanes"


@pytest.mark.parametrize("sizes", [(1, 1), (2, 5), (33, 4), (19, 7)])  # 1, 10, 132 and 133 pairs: one batch, or two
def test_sums_in_lanes_equal_the_reference_with_weights_of_each_pair(sizes):
    """Of 133 pairs the second batch has 61, and repeats the last three times."""
    function = sympy.asin((b[V, R] - z[V] * z[R] / (9 + x[I] ** 2)) / (99 + z[U] ** 2))
    total = sympy.Sum(z[V] * z[R] * w[I, U] * w[I, V] * w[I, R] * function, (V, 1, P), (R, 1, P))
    once = sympy.Sum(b[V, R] * function, (V, 1, P), (R, 1, P))
    source = assert_any_equations_equal_reference(total * (1 + once) + x[I], c, sizes=sizes)
    assert source.count("for begin in range(0, pairs") == 2, "each sum in lanes"


def test_the_lanes_of_a_batch_are_few_more_than_its_pairs():
    """Nothing is computed in vain but what fills the last register of each batch."""
    loops = ((I, N, ""), (J, N, "i"))
    symmetric, rectangular = Pairs(loops, True, "1"), Pairs(((I, N, ""), (U, P, "")), False, "1")
    for n in range(1, 65):
        for pairs, count in ((symmetric, n * (n + 1) // 2), (rectangular, 3 * n)):
            lanes, padded = (int(e.subs({N: n, P: 3})) for e in pairs.extents.values())
            assert lanes % WIDTH == 0 and lanes <= MOST_LANES
            assert count <= padded < count + WIDTH * (padded // lanes)
            written = {str(N): n, str(P): 3}
            exec("\n".join(pairs.definitions), written)
            assert (written["lanes1"], written["padded1"]) == (lanes, padded), "as large as the workspace is"


def test_sums_over_pairs_whose_indices_stand_as_numbers_are_no_sums_by_distance():
    total = sympy.Sum(sympy.asin(b[V, R] * V * R / 99), (V, 1, P), (R, 1, P))
    source = assert_any_equations_equal_reference(
        c, x[I] * total.subs(b[V, R], b[V, R] / (1 + x[I] ** 2)), sizes=(2, 3)
    )
    assert "for d in" not in source


@pytest.mark.parametrize("vector", [I * x[I], sympy.Sum(J * x[J], (J, 1, N))], ids=str)
def test_indices_may_stand_as_numbers(vector):
    assert_any_equations_equal_reference(c, vector)


def test_sums_that_do_not_start_at_one_are_refused():
    with pytest.raises(ValueError, match="run from 1"):
        assert_any_equations_equal_reference(c, sympy.Sum(x[J], (J, 2, N)))


@pytest.mark.parametrize(
    "name",
    [
        "t",
        "y",
        "out",
        "par",
        "work",
        "i",
        "j",
        "p",
        "q",
        "g",
        "s1",
        "t1",
        "r1",
        "row1",
        "twice1",
        "d",
        "lane",
        "lanes1",
        "pairs1",
        "copy1",
        "f1",
        "gather",
        "math",
        "asin",
        "lambda",
        "int",
        "range",
        "abs",
        "float",
        "njit",
        "kernel",
        "C",
        "c",
        "N",
        "x_full",
    ],
)
def test_names_of_users_do_not_collide_with_names_in_the_source(name):
    """A quantity or a size may have any name, or is refused: a collision is a wrong value, or a write out of bounds."""
    size = sympy.Symbol(name, integer=True, positive=True)
    for scalar, length in ((Quantity(name), P), (Quantity("strength"), size)):
        vector, rate = Quantity("v", (I,), (length,)), Quantity("rate")
        matrix = Quantity("G", (I, J), (length, length), symmetric=True)
        interaction = sympy.Sum(sympy.asin(vector.base[J] / 9) * matrix.base[I, J], (J, 1, length))
        try:
            dynamics = by_hand(
                Equation(scalar, -scalar.symbol * rate.symbol + sympy.asin(rate.symbol)),
                Equation(vector, interaction * (vector.symbol + scalar.symbol)),
                Equation(matrix, -matrix.symbol),
                parameters=[rate],
            )
            source, shapes = generate(dynamics, [(e.quantity, e.expr) for e in dynamics.drift], "names")
        except ValueError:
            refused = ("i", "j") if length is size else ("t",)
            assert name in refused, "only what is an index and a size at once, or has the name of time, may be refused"
            continue
        coupling = np.eye(4) + 0.3
        values = {scalar.name: 3.0, "rate": 0.25, "v": np.array([1.0, 2.0, -3.0, 4.0]), "G": coupling}
        y, par = arguments(dynamics, {str(length): 4}, values)
        out = np.full(len(y), np.nan)
        room = 8 + sum(math.prod(int(sympy.sympify(n).subs(length, 4)) for n in shape) for shape in shapes)
        uncompiled(source)(0.0, y, out, par, np.full(room, np.nan))
        expected = coupling @ np.arcsin(values["v"] / 9) * (values["v"] + 3)
        expected = np.concatenate([[-0.75 + math.asin(0.25)], expected, -coupling[np.triu_indices(4)]])
        np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-14)


def test_a_long_sum_is_written_in_statements_that_compilers_can_read():
    x = Quantity("x", latex="x")
    polynomial = sympy.Add(*(sympy.Rational(1, n) * x.base**n for n in range(1, 3000)))
    dynamics = Dynamics("long", "ode", "t", (Equation(x, polynomial),))
    source, _ = generate(dynamics, [(x, polynomial)], "long")
    lines = [line for line in source.splitlines() if not line.lstrip().startswith("#")]
    assert max(map(len, lines)) < 10_000
    compile(source, "long", "exec")  # Python's own limit is a few thousand nested operations


def test_indices_of_the_laws_of_fields_do_not_collide_with_names_in_the_source():
    """With inputs in blocks covariances are sums over c, as weights of fused fields are called: addresses were lost."""
    dyn = TeacherStudent(activation="erf", inputs="blocks").dynamics()
    still = replace(dyn, drift=tuple(replace(e, expr=sympy.S.Zero) for e in dyn.drift), observables=())
    safe, _, _ = safe_names(still, [])
    bound = {limit[0] for _, law in safe.covariance for s in law.expr.atoms(sympy.Sum) for limit in s.limits}
    assert bound and not any(str(index) == "c" for index in bound)
