"""Inputs with a mean: what the training step becomes, in symbols, and what is refused."""

import numpy as np
import pytest
import sympy

from effdyn.derive import ModelError, NotYet, TeacherStudent, model_from_json
from effdyn.derive.moments import Pair
from effdyn.derive.shifted_inputs import check_mean

MODEL = TeacherStudent(activation="linear", inputs="shifted")


def test_the_mean_of_a_field_moves_by_the_second_moment_of_inputs():
    """Least squares by hand: E[x xᵀ] μ = (1 + ν²) μ, so dm_i/dt = η (1 + ν²) a_i (Σ_n b_n m*_n − Σ_j a_j m_j)."""
    dyn = MODEL.dynamics()
    assert [q.name for q in dyn.states] == ["Q", "R", "mean"]
    a, b, m, hers = (sympy.IndexedBase(name, real=True) for name in ("a", "b", "mean", "teacher_mean"))
    i, j, n = sympy.symbols("i j n", integer=True, positive=True)
    K, M = sympy.symbols("K M", integer=True, positive=True)
    eta, nu = sympy.symbols("eta input_mean", nonnegative=True)
    error = sympy.Sum(b[n] * hers[n], (n, 1, M)) - sympy.Sum(a[j] * m[j], (j, 1, K))
    # the equation holds ν² Σ E[g' h_j] = ν² Σ m_j and Σ E[g' g'] m_j: equal to the sum by hand at any sizes
    difference = dyn.closed(dyn["mean"]) - eta * (1 + nu**2) * a[i] * error
    assert sympy.expand(difference.subs({K: 2, M: 1}).doit()) == 0


def test_overlaps_stay_the_covariance_and_means_enter_expectations():
    dyn = TeacherStudent(activation="erf", inputs="shifted").dynamics()
    h, i, k = sympy.IndexedBase("h", real=True), *sympy.symbols("i k", integer=True, positive=True)
    assert str(dyn.overlap(h[i], h[k])) == "Q[i, k]"
    assert {family: str(law.expr) for family, law in dyn.mean} == {"h": "mean[i]", "h_star": "teacher_mean[n]"}


def test_biases_add_to_means():
    dyn = TeacherStudent(activation="square", inputs="shifted", biases=True).dynamics()
    assert dict(dyn.mean)["h"].expr == sympy.sympify("x + y").subs(
        {"x": sympy.IndexedBase("mean", real=True)[dict(dyn.mean)["h"].variables[0]],
         "y": sympy.IndexedBase("bias", real=True)[dict(dyn.mean)["h"].variables[0]]}
    )  # fmt: skip


def test_the_model_is_a_value():
    assert eval(repr(MODEL)) == MODEL == model_from_json(MODEL.to_json())


def test_what_is_not_there_is_said():
    with pytest.raises(NotYet, match="inputs='shifted'"):
        TeacherStudent(activation="erf", inputs="shifted", target="h1*h2")


@pytest.mark.parametrize("limit", ["high-dimensional", "gradient-flow"])
def test_what_vanishes_needs_no_average(limit):
    """Two examples of a batch, for a committee's logistic loss: not averaged, but of order η²/d, and so dropped."""
    dyn = TeacherStudent(activation="erf", loss="logistic", labels="sign", batch=True).dynamics(limit)
    assert not any(e.expr.has(Pair) for e in dyn.drift)


def test_means_that_no_vector_gives():
    """|w·μ/√d| is at most |μ| |w|/√d: Cauchy and Schwarz."""
    possible = dict(Q=np.eye(1), R=np.zeros((1, 1)), T=np.eye(1), mean=np.zeros(1), teacher_mean=np.full(1, 0.5))
    check_mean(possible | dict(input_mean=0.5))
    with pytest.raises(ModelError, match=r"params\['teacher_mean'\]"):
        check_mean(possible | dict(input_mean=0.49))
    with pytest.raises(ModelError, match=r"y0\['mean'\]"):
        check_mean(possible | dict(input_mean=0.5, mean=np.full(1, 0.1)))  # all of μ lies along the teacher
