"""Equations written out are those of the indexed form, entry by entry."""

from functools import cache

import numpy as np
import pytest
import sympy

from effdyn import derive
from effdyn.derive.moments import Moment


@cache
def dynamics(activation, limit="high-dimensional", **options):
    return derive.TeacherStudent(activation=activation, **dict(options)).dynamics(limit=limit)


def test_symmetric_states_are_written_once():
    lefts = [str(left) for left, _ in dynamics("erf").expand(K=3, M=2).equations]
    assert lefts == [f"Q[{i}, {k}]" for i in (1, 2, 3) for k in (1, 2, 3) if i <= k] + [
        f"R[{i}, {n}]" for i in (1, 2, 3) for n in (1, 2)
    ]


def test_entries_of_symmetric_arrays_print_in_one_order():
    text = str(dynamics("square").expand(K=2, M=2).closed())
    assert "Q[1, 2]" in text and "T[1, 2]" in text and "R[2, 1]" in text
    assert "Q[2, 1]" not in text and "T[2, 1]" not in text


def test_moments_stay_nodes_until_closed():
    written = dynamics("erf").expand(K=2, M=1)
    assert all(right.has(Moment) for _, right in written.equations)
    assert not any(right.has(Moment, sympy.Sum) for _, right in written.closed().equations)
    assert not any(right.has(sympy.Sum) for _, right in (*written.equations, *written.observables))
    assert {str(left) for left, _ in written.observables} >= {"eg", "loss", "cosine[2, 1]", "cosine_students[1, 2]"}


def test_linear_committee_is_the_textbook_flow():
    """dR/dt = a (b T − a R): gradient flow of a linear network, by hand."""
    flow = dict(
        (str(left), right) for left, right in dynamics("linear", "gradient-flow").expand(K=1, M=1).closed().equations
    )
    Q, R, T, a, b = (sympy.IndexedBase(name, real=True) for name in "QRTab")
    assert sympy.expand(flow["R[1, 1]"] - a[1] * (b[1] * T[1, 1] - a[1] * R[1, 1])) == 0
    assert sympy.expand(flow["Q[1, 1]"] - 2 * a[1] * (b[1] * R[1, 1] - a[1] * Q[1, 1])) == 0


def test_saad_solla_single_unit_by_hand():
    """K = M = 1: dR/dt = (2η/π) b a [ (T(1+Q) − R²) / ((1+Q) √((1+Q)(1+T) − R²)) − a R / ((1+Q) √(1+2Q)) / b ]."""
    closed = dict((str(left), right) for left, right in dynamics("erf").expand(K=1, M=1).closed().equations)
    Q, R, T = (
        sympy.IndexedBase("Q", real=True)[1, 1],
        sympy.IndexedBase("R", real=True)[1, 1],
        sympy.IndexedBase("T", real=True)[1, 1],
    )
    a, b = sympy.IndexedBase("a", real=True)[1], sympy.IndexedBase("b", real=True)[1]
    eta = sympy.Symbol("eta", nonnegative=True)
    student = a * R / (1 + Q) / sympy.sqrt(1 + 2 * Q)
    teacher = b * (T * (1 + Q) - R**2) / (1 + Q) / sympy.sqrt((1 + Q) * (1 + T) - R**2)
    by_hand = 2 * eta / sympy.pi * a * (teacher - student)
    point = {Q: 0.7, R: 0.3, T: 1.2, a: 0.9, b: 1.1, eta: 0.4}
    assert float(closed["R[1, 1]"].xreplace(point)) == pytest.approx(float(by_hand.xreplace(point)), rel=1e-14)


@pytest.mark.parametrize("options", [{}, {"second_layer": "trained", "weight_decay": True}], ids=["fixed", "trained"])
def test_closing_commutes_with_writing_out(options, rng):
    """Tidied scalar forms against the indexed form closed first, at a random admissible state."""
    from effdyn.derive.expanded import write_out

    dyn = dynamics("erf", **options)
    sizes = {"K": 2, "M": 2}
    weights = rng.normal(size=(4, 9)) / 3
    overlaps = weights @ weights.T
    values = {
        "Q": overlaps[:2, :2],
        "R": overlaps[:2, 2:],
        "T": overlaps[2:, 2:],
        "a": rng.normal(size=2),
        "b": rng.normal(size=2),
    }
    rates = {"eta": 0.7, "eta_a": 0.4, "kappa": 0.3, "sigma": 0.5}

    def number(expr):
        swap = {e: values[str(e.base)][tuple(int(i) - 1 for i in e.indices)] for e in expr.atoms(sympy.Indexed)}
        swap |= {s: rates[s.name] for s in expr.free_symbols if s.name in rates and isinstance(s, sympy.Symbol)}
        return float(expr.xreplace(swap))

    written = dyn.expand(**sizes).closed()
    by_name = {e.quantity.name: e for e in dyn.equations}
    for left, right in (*written.equations, *written.observables):
        equation = by_name[str(left.base) if isinstance(left, sympy.Indexed) else str(left)]
        at = dict(zip(equation.quantity.indices, left.indices if isinstance(left, sympy.Indexed) else (), strict=True))
        indexed = dyn.closed(write_out(equation.expr.xreplace(at), {size: sizes[str(size)] for size in dyn.sizes}))
        np.testing.assert_allclose(number(right), number(indexed), rtol=1e-12, atol=1e-14)


def test_output_scale_becomes_a_number():
    text = str(dynamics("linear", "gradient-flow", output_scale="1/K").expand(K=4, M=1).closed())
    assert "K" not in text and "/4" in text


def test_a_teachers_number_carries_a_star():
    text = dynamics("erf").expand(K=1, M=1).latex()
    assert r"I_{3}(1,1,1^{\star})" in text and r"I_{3}(1,1,1)" in text
    notebook = dynamics("erf").expand(K=1, M=1)._repr_latex_()
    assert notebook.startswith("$$\\begin{aligned}") and notebook.endswith("$$")


def test_value_semantics():
    assert dynamics("erf").expand(K=2, M=1) == dynamics("erf").expand(M=1, K=2)
    assert hash(dynamics("erf").expand(K=2, M=1)) == hash(dynamics("erf").expand(K=2, M=1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"K": 2}, "M is missing"),
        ({}, "K and M are missing"),
        ({"K": 2, "M": 1, "k": 3}, "did you mean 'K'|the sizes of these equations are K, M"),
        ({"K": 0, "M": 1}, "positive whole number"),
        ({"K": 2, "M": 1.5}, "positive whole number"),
        ({"K": 2, "M": True}, "positive whole number"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(sizes, message):
    with pytest.raises(derive.ModelError, match=message):
        dynamics("erf").expand(**sizes)


@pytest.mark.parametrize("closed", [False, True])
def test_representation_is_short_and_evaluates(closed):
    written = dynamics("erf").expand(K=2, M=1)
    written = written.closed() if closed else written
    assert repr(written) == (
        "TeacherStudent(activation='erf').dynamics(limit='high-dimensional').expand(K=2, M=1)" + ".closed()" * closed
    )
    assert eval(repr(written), {name: getattr(derive, name) for name in derive.__all__}) == written


def test_representation_without_a_model_evaluates_too():
    import dataclasses

    bare = dataclasses.replace(dynamics("linear"), model=None, limit="").expand(K=1, M=1)
    assert repr(bare).startswith("Dynamics(") and repr(bare).endswith(").expand(K=1, M=1)")
    changed = dataclasses.replace(bare, equations=bare.equations[:1])
    assert repr(changed).startswith("ExpandedDynamics(dynamics=Dynamics(")


def test_numpy_integers_are_sizes():
    assert dynamics("erf").expand(K=np.int64(2), M=np.int32(1)) == dynamics("erf").expand(K=2, M=1)
