"""The Langevin form: what it is made of, and what has none."""

import pickle

import pytest
import sympy

from effdyn import derive
from effdyn.derive.errors import ModelError
from effdyn.derive.moments import Joint


def test_drift_is_that_of_the_limit_and_every_pair_of_states_has_noise() -> None:
    dynamics = derive.TeacherStudent(activation="linear").dynamics()
    langevin = dynamics.sde()
    assert langevin.drift == dynamics.drift and langevin.observables == dynamics.observables
    assert [(e.state.name, e.column.name) for e in langevin.diffusion] == [("Q", "Q"), ("Q", "R"), ("R", "R")]
    assert langevin.parameters[-1].name == "d"
    assert pickle.loads(pickle.dumps(langevin)) == langevin


@pytest.mark.parametrize("batch", [1, 5])
def test_noise_of_one_linear_student_without_teacher_signal(batch: int) -> None:
    """At b = 0, σ = 0, X_R = −η a² h h*, whose variance is η² a⁴ (Q T + R²) − (its mean)²: Wick's rule by hand. It is
    the mean of such over a batch."""
    langevin = derive.TeacherStudent(activation="linear", batch=batch > 1).dynamics().sde()
    entry = next(e for e in langevin.diffusion if e.state.name == e.column.name == "R")
    expr = langevin.closed(entry.expr).xreplace(
        {s: sympy.S.One for s in entry.expr.atoms(sympy.Symbol) if s.name in "KM"}
    )
    eta, a, Q, R, T, d = 0.7, 0.8, 0.6, 0.2, 1.1, 10.0
    values = {"eta": eta, "sigma": 0.0, "d": d, "a": a, "b": 0.0, "Q": Q, "R": R, "T": T}
    values["batch"] = batch
    expr = expr.doit()
    expr = expr.xreplace({e: values[str(e.base)] for e in expr.atoms(sympy.Indexed)})
    found = float(expr.xreplace({s: values[s.name] for s in expr.free_symbols}))
    expected = eta**2 * a**4 * (Q * T + 2 * R**2 - R**2) / d / batch
    assert found == pytest.approx(expected, rel=1e-12)


def test_term_by_term_only_where_that_is_short() -> None:
    has_rules = {
        name: any(e.expr.has(Joint) for e in derive.TeacherStudent(activation=name).dynamics().sde().diffusion)
        for name in ("linear", "square", "erf", "tanh")
    }
    assert has_rules == {"linear": False, "square": False, "erf": True, "tanh": True}


def test_parts_in_blocks_are_fields_of_the_rule() -> None:
    """Of B(K+M) fields of parts and K+M of whole vectors, which are their sums, B(K+M) are independent."""
    langevin = derive.TeacherStudent(activation="erf", inputs="blocks").dynamics().sde()
    K, M, B = sympy.symbols("K M B", integer=True, positive=True)
    assert {str(f.base): f.axes for f in langevin.families} == {
        "u": (B, K),
        "u_star": (B, M),
        "h": (K,),
        "h_star": (M,),
    }
    assert sympy.expand(sympy.Add(*(f.independent for f in langevin.families)) - B * (K + M)) == 0


def test_fields_with_a_mean_have_it_in_the_rule() -> None:
    langevin = derive.TeacherStudent(activation="erf", inputs="shifted").dynamics().sde()
    assert [name for name, _ in langevin.mean] == ["h", "h_star", "u"]


def test_only_the_limit_around_which_runs_fluctuate() -> None:
    with pytest.raises(ModelError, match="high-dimensional"):
        derive.TeacherStudent(activation="erf").dynamics(limit="gradient-flow").sde()
