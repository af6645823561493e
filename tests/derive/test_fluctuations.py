"""The pieces of the order-1/d theory, against other ways to the same numbers."""

from typing import Any

import numpy as np
import pytest
import sympy

from effdyn import derive
from effdyn.derive.errors import ModelError, NotYet
from effdyn.derive.moments import Dilation, Joint, Moment, Pair, Value
from effdyn.derive.one_example import kicks_of

ERF = derive.TeacherStudent(activation="erf")
SMALL = {"K": 1, "M": 1}


def numbers(expr: sympy.Expr, values: dict[str, float]) -> float:
    """Return an expression of one student and one teacher in numbers."""
    expr = expr.doit() if not expr.has(sympy.Sum) else expr.subs({"K": 1, "M": 1})
    expr = expr.xreplace({s: sympy.S.One for s in expr.atoms(sympy.Symbol) if s.name in SMALL}).doit()
    entries = {e: values[str(e.base)] for e in expr.atoms(sympy.Indexed)}
    scalars = {s: values[s.name] for s in expr.xreplace(entries).free_symbols}
    return float(expr.xreplace(entries).xreplace(scalars))


@pytest.mark.parametrize("activation", ["erf", "He3", "linear"])
def test_correction_is_the_finite_dimension_term_of_the_mean_increment(activation: str) -> None:
    """E[χ G] for χ = |x|²/d, with |x|² = hᵀΩ⁻¹h + χ²_{d−2}, is (1 − 2/d) E[G] + E[hᵀΩ⁻¹h G]/d: another way to c."""
    theory = derive.TeacherStudent(activation=activation).dynamics().fluctuations()
    v = {"Q": 0.7, "R": 0.3, "T": 1.1, "a": 0.8, "b": 1.2, "eta": 0.9, "sigma": 0.3}
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z, u = (x.ravel() for x in np.meshgrid(nodes, nodes))
    w = np.outer(weights, weights).ravel() / (2 * np.pi)
    gram = np.array([[v["Q"], v["R"]], [v["R"], v["T"]]])
    h, h_star = np.linalg.cholesky(gram) @ np.stack([z, u])
    x = sympy.Symbol("x", real=True)
    g_expr = derive.activation(activation).expr
    g_expr = g_expr.subs(next(iter(g_expr.free_symbols)), x)
    g, slope = (sympy.lambdify(x, e, ["scipy", "numpy"]) for e in (g_expr, sympy.diff(g_expr, x)))
    residual = v["b"] * g(h_star) - v["a"] * g(h)
    kick2 = (v["eta"] * v["a"] * slope(h)) ** 2 * (residual**2 + v["sigma"] ** 2)
    expected = np.sum(w * kick2 * (z**2 + u**2 - 2))
    assert numbers(theory.correction["Q"], v) == pytest.approx(expected, rel=1e-9)
    assert theory.correction["R"] == 0


def test_weight_decay_adds_terms_of_order_one_over_d() -> None:
    """w ← (1 − κ/d) w + F x/√d: κ² Q − 2κ E[F h] in Q besides the term of the norm; nothing in R or a, which are linear
    in w and a."""
    theory = derive.TeacherStudent(activation="linear", weight_decay=True, second_layer="trained")
    pieces = theory.dynamics().fluctuations().correction
    v = {"Q": 0.7, "R": 0.3, "T": 1.1, "a": 0.8, "b": 1.2, "eta": 0.9, "eta_a": 0.4, "sigma": 0.3, "kappa": 0.5}
    Q, R, T, a, b, eta, kappa = (v[n] for n in ("Q", "R", "T", "a", "b", "eta", "kappa"))
    variance = a * a * Q - 2 * a * b * R + b * b * T  # of the residual; ∂_s of E_s[(η a r)²] is itself
    pull = eta * a * (b * R - a * Q)
    expected = kappa**2 * Q - 2 * kappa * pull + 2 * (eta * a) ** 2 * variance
    assert numbers(theory.dynamics().closed(pieces["Q"]), v) == pytest.approx(expected, rel=1e-12)
    assert pieces["R"] == pieces["a"] == 0


def test_increments_average_to_the_drift_by_their_own_moments() -> None:
    """The increments are those of the derivation: multiplied out for a linear network, E[X] is the drift."""
    theory = derive.TeacherStudent(activation="linear").dynamics().fluctuations()
    v = {"T": 1.1, "a": 0.8, "b": 1.2, "eta": 0.9, "sigma": 0.3, "Q": 0.7, "R": 0.3}
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)  # exact to degree 11
    grid = np.stack([g.ravel() for g in np.meshgrid(nodes, nodes, nodes)])
    w = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / (2 * np.pi) ** 1.5
    h, h_star = np.linalg.cholesky([[v["Q"], v["R"]], [v["R"], v["T"]]]) @ grid[:2]
    for name in ("Q", "R"):
        values = [
            numbers(theory.increment[name], v | {"h": x, "h_star": y, "zeta": z})
            for x, y, z in zip(h, h_star, grid[2], strict=True)
        ]
        mean = numbers(theory.dynamics.closed(theory.dynamics[name]), v)
        assert np.dot(w, values) == pytest.approx(mean, rel=1e-12)


def test_no_average_is_left_unresolved() -> None:
    theory = (
        derive.TeacherStudent(activation="erf", second_layer="trained", weight_decay=True).dynamics().fluctuations()
    )
    assert not any(e.expr.has(Dilation, Joint) for e in theory.correction.drift)
    assert not any(e.expr.has(Value, Moment) for e in theory.increment.observables)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (dict(activation="linear", momentum="fixed", constraint="spherical"), NotYet, "fixed length"),
    ],
)
def test_what_is_not_there_is_said(model: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        derive.TeacherStudent(**model).dynamics().fluctuations()


def test_only_the_limit_around_which_runs_fluctuate() -> None:
    with pytest.raises(ModelError, match="high-dimensional"):
        ERF.dynamics(limit="gradient-flow").fluctuations()
    with pytest.raises(ModelError, match="dynamics"):
        derive.Dynamics("by hand", "ode", "t", ()).fluctuations()


@pytest.mark.parametrize(
    ("model", "by_rule", "labelled"),
    [
        (dict(activation="erf"), False, False),
        (dict(activation="linear", labels="sign", loss="hinge"), False, True),
        (dict(activation="erf", labels="logistic", loss="logistic"), True, True),
        (dict(activation="erf", loss="huber", batch=True), True, False),
        (dict(activation="Max(x, tanh(x))"), True, False),
        (dict(activation="x*(1 + erf(x/sqrt(2)))/2"), True, False),
    ],
)
def test_terms_without_a_form_are_left_to_the_rule_over_examples(
    model: dict[str, Any], by_rule: bool, labelled: bool
) -> None:
    """So are those with forms of 300 000 operations, as GELU's."""
    theory = derive.TeacherStudent(**model).dynamics().fluctuations()
    names = [e.quantity.name for e in theory.increment.observables]
    assert (theory.kicks is not None) == by_rule == ("kick_h" in names)
    assert theory.labelled == labelled == ("probability" in names)
    assert not any(e.expr.has(Dilation, Pair) for e in theory.correction.drift)
    if theory.kicks:
        assert theory.kicks.pairs == ((0, 0), None)  # Q has products of two kicks, R of none


def test_slow_momentum_multiplies_kicks_of_buffers_alone() -> None:
    """Students move by m/d: their kick is of order 1/d."""
    kicks = kicks_of(derive.TeacherStudent(activation="erf", momentum="slow").training_step())
    assert [str(q) for q, _ in kicks.quantities] == ["kick_m[i]"]
    assert kicks.pairs == (None, None, None, (0, 0), None)  # of Q, R, P, V, S
    assert all(side == (0, 0) for sides in kicks.remembered for side in sides)


@pytest.mark.parametrize(
    "options", [{}, dict(loss="huber"), dict(loss="hinge", labels="sign", inputs="blocks"), dict(inputs="shifted")]
)
def test_buffers_that_relax_hold_kicks_of_earlier_steps(options: dict[str, Any]) -> None:
    """By hand, with w ← w + βm + k, m ← βm + k, k = F x/√d and F̃ = F/(1 − β): m·x/√d has E[F x]·E[F̃ x]/(1 − β) from
    other examples, and with γ = β/(1 − β) its weight is γ (1 − β)/(1 − β). w·m = (E[F h] + |m|²)/(1 − β), where
    |m|² = E[F²]/(1 − β²): γ E[F̃²] (1 − β)²/((1 − β)(1 − β²)) is γ/(1 + β) E[F̃²]."""
    kicks = kicks_of(derive.TeacherStudent(activation="erf", momentum="fixed", **options).training_step())
    (beta,) = kicks.remembered[0][0][0].free_symbols
    gamma = beta / (1 - beta)
    for pairs, own in kicks.remembered[0]:  # of Q
        assert sympy.cancel(pairs - gamma) == 0 and sympy.cancel(own - gamma / (1 + beta)) == 0
    assert kicks.remembered[1][1] == (0, 0)  # of R: teachers have no buffers
