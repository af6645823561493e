"""Inputs in blocks: what the training step becomes, in symbols, and what is refused."""

import numpy as np
import pytest
import sympy

from effdyn.derive import ModelError, NotYet, TeacherStudent, model_from_json
from effdyn.derive.block_inputs import B, check_blocks
from effdyn.derive.moments import Dilation, Joint
from effdyn.solve.kernels.reference import evaluate

MODEL = TeacherStudent(activation="linear", inputs="blocks")


def test_overlaps_get_the_block_as_first_index():
    dyn = MODEL.dynamics()
    assert {q.name: q.shape[0] for q in dyn.states} == {"Q": B, "R": B}
    assert {q.name: q.dims for q in dyn.states}["R"] == ("block", "student", "teacher")
    parameters = {q.name: q for q in dyn.parameters}
    assert parameters["T"].shape[0] == parameters["input_variance"].shape[0] == B
    assert [str(s) for s in dyn.sizes] == ["B", "K", "M"]


def test_the_equation_of_a_linear_student_and_teacher():
    """Least squares, multiplied out by hand: dR_gin/dt = η λ_g a_i (Σ_m b_m T_gmn − Σ_j a_j R_gjn)."""
    dyn = MODEL.dynamics()
    a, b, R, T, lam = (sympy.IndexedBase(name, real=True) for name in ("a", "b", "R", "T", "input_variance"))
    g, i, n, j, m = (s for s in sympy.symbols("g i n j m", integer=True, positive=True))
    K, M, eta = *sympy.symbols("K M", integer=True, positive=True), sympy.Symbol("eta", nonnegative=True)
    by_hand = sympy.Sum(b[m] * T[g, m, n], (m, 1, M)) - sympy.Sum(a[j] * R[g, j, n], (j, 1, K))
    assert sympy.expand(dyn.closed(dyn["R"]) - eta * lam[g] * a[i] * by_hand) == 0


def test_the_covariance_of_fields_is_the_weighted_sum():
    h, i, k = sympy.IndexedBase("h", real=True), *sympy.symbols("i k", integer=True, positive=True)
    c = sympy.Symbol("c", integer=True, positive=True)
    Q, lam = sympy.IndexedBase("Q", real=True), sympy.IndexedBase("input_variance", real=True)
    assert MODEL.dynamics().overlap(h[i], h[k]) == sympy.Sum(lam[c] * Q[c, i, k], (c, 1, B))


def test_what_vanishes_names_the_block_that_is_stretched():
    """E[|x_g|²/d G] = λ_g (π_g + (2/d) ∂_{s_g}) E[G]: Stein's lemma in the π_g d directions of a block."""
    dropped = [d for d in TeacherStudent(activation="erf", inputs="blocks").dynamics().dropped if d.quantity == "Q"]
    assert dropped and all("∂_s_g E_s_g[" in str(d) and str(d).startswith("Q_gik, order 1/d") for d in dropped)
    assert all(len(f.args) == 2 for d in dropped for f in d.term.factors if isinstance(f, Dilation))


def test_two_examples_of_a_batch_meet_within_a_block():
    """E[F x_g]·E[G x_g] = λ_g² Σ E[∂F] Ω_g E[∂G], of order 1/d; for a linear student it is λ_g² (R_g b − Q_g a)…²."""
    dyn = TeacherStudent(activation="linear", inputs="blocks", batch=True).dynamics()
    lam = sympy.IndexedBase("input_variance", real=True)
    g = sympy.Symbol("g", integer=True, positive=True)
    pairs = [d.term for d in dyn.dropped if not d.term.factors or not isinstance(d.term.factors[0], Dilation)]
    powers = {sympy.degree(p.coefficient, lam[g]) for p in pairs}
    assert pairs and powers == {2}


def test_the_model_is_a_value():
    assert eval(repr(MODEL)) == MODEL == model_from_json(MODEL.to_json())
    assert TeacherStudent(activation="linear") != MODEL
    with pytest.raises(ModelError, match=r"inputs = 'block'.*'blocks'"):
        TeacherStudent(inputs="block")


def test_finite_d_needs_smooth_averages_term_by_term():
    with pytest.raises(NotYet, match="inputs in blocks, averaged over all fields"):
        TeacherStudent(activation="tanh", inputs="blocks").dynamics("finite-d")


@pytest.mark.parametrize("activation", ["He2", "erf"])
def test_one_block_is_all_of_the_input_at_finite_d(activation):
    """λ = 1 on all directions: the mean of one step is that of isotropic inputs, at every d."""
    y, params = dict(Q=[[0.7, 0.1], [0.1, 0.5]], R=[[0.3], [0.2]]), dict(eta=0.9, sigma=0.3, a=1.0, b=1.0, d=7.0)
    whole = evaluate(TeacherStudent(activation=activation).dynamics("finite-d"), y, params | dict(T=[[1.0]]))
    within = {name: np.array(value)[None] for name, value in y.items()}
    one = dict(T=[[[1.0]]], input_variance=[1.0], input_share=[1.0])
    blocks = evaluate(TeacherStudent(activation=activation, inputs="blocks").dynamics("finite-d"), within, params | one)
    for name in whole:
        np.testing.assert_allclose(blocks[name][0], whole[name], rtol=1e-11)  # sums of about 1e4 operations


@pytest.mark.parametrize("limit", ["high-dimensional", "gradient-flow"])
def test_gradients_that_do_not_multiply_out_have_fields_of_parts_in_their_averages(limit):
    """A committee's logistic loss: its gradient is a function of all fields, of which no slope is taken. Increments are
    linear in the fields of parts, and rules take these at their means given the others."""
    model = TeacherStudent(activation="erf", labels="sign", loss="logistic", inputs="blocks")
    dyn = model.dynamics(limit)
    assert {str(f.base) for f in dyn.families if f.given} == {"u", "u_star"}
    assert all(e.expr.has(Joint) for e in dyn.drift)


def test_values_that_no_data_have():
    good = dict(Q=np.eye(2)[None], T=np.eye(1)[None], input_share=np.array([1.0]))
    check_blocks(good)
    with pytest.raises(ModelError, match="add up to 1"):
        check_blocks(good | dict(input_share=np.array([0.6, 0.3])))
    with pytest.raises(ModelError, match=r"y0\['Q'\].*symmetric"):
        check_blocks(good | dict(Q=np.array([[[1.0, 0.2], [0.1, 1.0]]])))


def test_the_article_and_the_equations_print():
    dyn = MODEL.dynamics()
    assert r"\lambda_{g}" in dyn.latex() and r"\pi_{g}" in dyn.latex()
    assert "input_variance[g]" in str(dyn)
