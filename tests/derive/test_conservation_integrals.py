"""First integrals of equations of motion: textbook systems, the closure of a linear network, one-pass SGD."""

from types import SimpleNamespace

import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

from effdyn.derive import Dynamics, Equation, Quantity, TeacherStudent
from effdyn.derive.conservation.conserved import conserved
from effdyn.derive.conservation.first_integrals import first_integrals
from effdyn.derive.conservation.laws import ConservationLaws
from effdyn.derive.conservation.networks import linear_network_parametrisation
from effdyn.derive.conservation.parametrisation import Parametrisation
from effdyn.derive.dynamics import TIME
from effdyn.derive.errors import ModelError


def by_hand(equations, parameters=(), title="by hand", kind="ode"):
    """A Dynamics of scalars from {name: formula in the names}."""
    states = {name: Quantity(name) for name in equations}
    constants = {name: Quantity(name) for name in parameters}
    symbols = {"t": TIME} | {name: q.symbol for name, q in (states | constants).items()}
    drift = tuple(Equation(states[name], sympy.sympify(text, symbols)) for name, text in equations.items())
    return Dynamics(title, kind, "time", drift, tuple(constants.values()))


def real(names):
    return sympy.symbols(names, real=True)


def spans(laws, known, states, values):
    """Whether known integrals are combinations of laws, at values of the parameters, by SymPy."""
    rows = [sympy.Poly(sympy.expand(e).subs(values), *states).as_dict() for e in (*laws, *known)]
    monomials = sorted({m for row in rows for m in row})
    matrix = sympy.Matrix([[row.get(m, 0) for m in monomials] for row in rows])
    return matrix[: len(laws), :].rank() == len(laws) == matrix.rank()


# -- textbook systems --------------------------------------------------------------------------------------------------


def test_a_free_top_conserves_energy_and_angular_momentum():
    """Euler's equations: rational in the moments of inertia, and an integral of second degree in them."""
    top = by_hand(
        {"x": "(b - c)/a*y*z", "y": "(c - a)/b*z*x", "z": "(a - b)/c*x*y"}, ("a", "b", "c"), title="a free top"
    )
    found = first_integrals(top)
    x, y, z, a, b, c = real("x y z a b c")
    assert found.found == found.independent == found.generic == 2 and found.complete
    known = [a * x**2 + b * y**2 + c * z**2, a**2 * x**2 + b**2 * y**2 + c**2 * z**2]
    assert spans(found.laws, known, (x, y, z), {a: 2, b: 3, c: 7})
    assert str(found).startswith("a free top: 3 equations")
    assert "aligned" in found._repr_latex_() and "I_{2} &=" in found.latex()


def test_henon_heiles_conserves_its_energy_and_nothing_else():
    system = by_hand({"x": "p", "y": "q", "p": "-x - 2*x*y", "q": "-y - x**2 + y**2"})
    assert first_integrals(system, degree=2).found == 0
    found = first_integrals(system, degree=3)
    x, y, p, q = real("x y p q")
    energy = (p**2 + q**2 + x**2 + y**2) / 2 + x**2 * y - y**3 / 3
    (law,) = found.laws
    assert sympy.expand(law - 6 * energy) == 0
    assert found.complete and found.independent == 1


def test_an_integral_that_is_no_polynomial_is_not_found():
    """Lotka–Volterra conserves x + y − log(xy)."""
    found = first_integrals(by_hand({"x": "x*(1 - y)", "y": "y*(x - 1)"}), degree=4)
    assert (found.laws, found.generic, found.complete) == ((), 0, True)
    assert "no first integrals" in found._repr_latex_()


def test_coefficients_of_high_degree_in_parameters_are_announced():
    spring = by_hand({"x": "v", "v": "-k**3*x"}, ("k",))
    missed = first_integrals(spring)
    assert (missed.found, missed.generic, missed.complete) == (0, 1, False)
    assert str(missed).endswith("1 missing, of degree > 2 in the parameters")
    x, v, k = real("x v k")
    assert first_integrals(spring, parameter_degree=3).laws == (k**3 * x**2 + v**2,)


def test_integrals_times_parameters_are_not_listed_again():
    """p and q each move by a rotation of their own rate; of fourth degree in both parameters, one search finds both."""
    found = first_integrals(by_hand({"p": "a*r", "r": "-a*p", "q": "b*s", "s": "-b*q"}, ("a", "b")), degree=2)
    p, r, q, s = real("p r q s")
    assert set(found.laws) == {p**2 + r**2, q**2 + s**2}


# -- the closure of a two-layer linear network -------------------------------------------------------------------------


def gram_closure():
    """P' = Σ½ E Sᵀ + transposed, S' = Σ½ E R + P Σ½ E, R' = Eᵀ Σ½ S + transposed, E = Y − Σ½ S."""
    r, m = (sympy.Symbol(n, integer=True, positive=True) for n in ("r", "m"))
    i, j, a, b = (sympy.Symbol(n, integer=True, positive=True) for n in "ijab")
    u, c = (sympy.Symbol(n, integer=True, positive=True) for n in "uc")
    P, R = Quantity("P", (i, j), (r, r), symmetric=True), Quantity("R", (a, b), (m, m), symmetric=True)
    S, Y = Quantity("S", (i, a), (r, m)), Quantity("Y", (i, a), (r, m))
    root = Quantity("s", (i,), (r,))

    def pull(i, a):
        return root.base[i] * (Y.base[i, a] - root.base[i] * S.base[i, a])

    dP = sympy.Sum(pull(i, c) * S.base[j, c] + S.base[i, c] * pull(j, c), (c, 1, m))
    dR = sympy.Sum(pull(u, a) * S.base[u, b] + S.base[u, a] * pull(u, b), (u, 1, r))
    dS = sympy.Sum(pull(i, c) * R.base[c, a], (c, 1, m)) + sympy.Sum(P.base[i, u] * pull(u, a), (u, 1, r))
    return Dynamics("Gram closure", "ode", "time", (Equation(P, dP), Equation(S, dS), Equation(R, dR)), (root, Y))


def traces(r, m, power):
    """tr (JG)^k, J = diag(1, −1), in the letters of the closure."""
    P, S, R = (sympy.IndexedBase(n, real=True) for n in "PSR")

    def entry(i, j):
        if i < r and j < r:
            return P[min(i, j) + 1, max(i, j) + 1]
        if i >= r and j >= r:
            return -R[min(i, j) - r + 1, max(i, j) - r + 1]
        return S[i + 1, j - r + 1] if i < r else -S[j + 1, i - r + 1]

    JG = sympy.Matrix(r + m, r + m, entry)
    return [sympy.expand((JG**k).trace()) for k in range(1, power + 1)]


@pytest.mark.parametrize(("r", "m"), [(1, 1), (2, 1), (2, 2)])
def test_gram_closure_conserves_the_traces_of_its_lax_matrix(r, m):
    found = first_integrals(gram_closure(), degree=2, r=r, m=m)
    one, two = traces(r, m, 2)
    assert found.complete and found.independent == 2
    assert spans(found.laws, [one, one**2, two], found.states, {})
    assert not any(law.has(*found.parameters) for law in found.laws), "parameters do not matter"


def test_gram_closure_conserves_the_third_trace_as_well():
    found = first_integrals(gram_closure(), degree=3, r=2, m=1)
    one, two, three = traces(2, 1, 3)
    assert spans(found.laws, [one, one**2, one**3, two, one * two, three], found.states, {})
    assert found.independent == 3 and found.complete


def test_integrals_are_constant_along_solutions(rng):
    found = first_integrals(gram_closure(), degree=2, r=2, m=1)
    flow = gram_closure().expand(r=2, m=1).closed().equations
    values = {s: float(rng.uniform(0.5, 1.5)) for s in found.parameters}
    drift = sympy.lambdify([found.states], [right.xreplace(values) for _, right in flow])
    vectors = rng.normal(size=(3, 4)) * 0.7  # three rows of U and V, four hidden units: other states may explode
    gram = vectors @ vectors.T
    start = np.array([gram[0, 0], gram[0, 1], gram[1, 1], gram[0, 2], gram[1, 2], gram[2, 2]])
    run = solve_ivp(lambda _, y: drift(y), (0, 1), start, method="DOP853", rtol=1e-11, atol=1e-12)
    laws = sympy.lambdify([found.states], list(found.laws))
    assert run.success and np.linalg.norm(run.y[:, -1] - start) > 0.2, "nothing moved"
    # About a hundred steps with errors of 1e-11 of states of order one, in sums of ten squares.
    np.testing.assert_allclose(laws(run.y[:, -1]), laws(start), atol=1e-7)


# -- one-pass SGD ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("K", "M"), [(1, 1), (2, 1), (2, 2)])
def test_gradient_flow_of_a_linear_student_conserves_q_minus_aa(K, M):
    """(η_a/η) Q_ik − a_i a_k, from equations in which nobody wrote it."""
    flow = TeacherStudent(activation="linear", second_layer="trained").dynamics(limit="gradient-flow")
    found = conserved(flow, K=K, M=M)
    Q, a = sympy.IndexedBase("Q", real=True), sympy.IndexedBase("a", real=True)
    eta = next(s for s in found.parameters if str(s) == "eta_a_over_eta")
    known = {eta * Q[i, k] - a[i] * a[k] for i in range(1, K + 1) for k in range(i, K + 1)}
    assert set(found.laws) == known and found.complete


def test_the_noise_of_sgd_breaks_it():
    sgd = TeacherStudent(activation="linear", second_layer="trained").dynamics()
    found = conserved(sgd, K=1, M=1)
    assert (found.found, found.generic) == (0, 0)


# -- one question for all ----------------------------------------------------------------------------------------------


class Model:
    """A model that can state its parametrisation."""

    def parametrisation(self, h):
        return linear_network_parametrisation((2, h, 1))


def test_models_and_their_gradient_flows_are_asked_for_their_weights():
    for given in (Model(), SimpleNamespace(model=Model(), limit="gradient-flow")):
        laws = conserved(given, h=2)
        assert isinstance(laws, ConservationLaws) and laws.found == 3
    assert conserved(Model().parametrisation(2)).found == 3


def test_with_noise_the_equations_are_asked():
    x, v = Quantity("x"), Quantity("v")
    drift = (Equation(x, v.symbol), Equation(v, -x.symbol))
    dynamics = Dynamics("a spring", "ode", "time", drift, model=Model(), limit="high-dimensional")
    assert conserved(dynamics).found == 1


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equations", "parameters", "message"),
    [
        ({"x": "exp(x)"}, (), r"dx/dt = exp\(x\).*polynomial in the states"),
        ({"x": "1/(1 + x)"}, (), "polynomial in the states"),
        ({"x": "sqrt(k)*x"}, ("k",), "polynomial in the states"),
        ({"x": "0.5*x"}, (), "polynomial in the states"),
        ({"x": "pi*x"}, (), "polynomial in the states"),
        ({"x": "t*x"}, (), "an equation with t .*parameters alone"),
    ],
)
def test_drifts_that_are_no_polynomials_are_refused(equations, parameters, message):
    with pytest.raises(ModelError, match=message):
        first_integrals(by_hand(equations, parameters))


def test_the_committee_of_saad_and_solla_is_refused():
    with pytest.raises(ModelError, match="polynomial in the states"):
        conserved(TeacherStudent(activation="erf").dynamics(), K=1, M=1)


def test_arguments_are_checked():
    spring = by_hand({"x": "v", "v": "-x"})
    for options, argument in ((dict(degree=0), "degree"), (dict(degree=500), "degree"), (dict(K=2), "K")):
        with pytest.raises(ModelError) as caught:
            first_integrals(spring, **options)
        assert caught.value.argument == argument
    with pytest.raises(ModelError, match="parameter_degree"):
        first_integrals(spring, parameter_degree=-1)
    with pytest.raises(ModelError, match="ODE"):
        first_integrals(by_hand({"x": "x"}, kind="map"))
    with pytest.raises(ModelError, match="a Parametrisation, a model"):
        conserved(3)
    with pytest.raises(ModelError, match="its own"):
        conserved(Parametrisation([sympy.Symbol("x")], [sympy.Symbol("x")]), K=2)
