"""The noise of a Dynamics: what it may be, how it prints, and that documents read back."""

import pickle
from dataclasses import replace

import pytest
import sympy

from effdyn import derive
from effdyn.derive import Dynamics, Equation, ModelError, NotYet, Quantity
from effdyn.derive.diffusion import Amplitude, Covariation
from effdyn.derive.export.article import article_latex
from effdyn.derive.export.serialize import dynamics_from_json, dynamics_to_json
from effdyn.derive.export.write import to_text

i, j, k, a = (sympy.Symbol(name, integer=True) for name in "ijka")
N, D = (sympy.Symbol(name, integer=True, positive=True) for name in "ND")
x, other = Quantity("x", (i,), (N,)), Quantity("x", (j,), (N,))
B, theta = Quantity("B", (i, a), (N, D), latex=r"\beta"), Quantity("theta", minimum=0.0)
W, V = Quantity("W", (a,), (D,)), Quantity("V", (i,), (N,), latex=r"\nu")


def equations(*diffusion, kind="sde"):
    drift = (Equation(x, -theta.symbol * x.symbol),)
    return Dynamics("relaxation", kind, "t", drift, (B, theta), diffusion=diffusion)


SHARED = Amplitude(x, W, -B.symbol)
OWN = Amplitude(x, V, 1 + x.symbol)
COVARIATION = Covariation(x, other, theta.symbol * x.symbol * other.symbol)


@pytest.mark.parametrize("dyn", [equations(SHARED, OWN), equations(COVARIATION), equations()])
def test_it_is_a_value_that_reads_back(dyn):
    names = vars(sympy) | vars(derive) | {"Amplitude": Amplitude, "Covariation": Covariation}
    assert eval(repr(dyn), names) == dyn and hash(pickle.loads(pickle.dumps(dyn))) == hash(dyn)
    assert dynamics_from_json(dynamics_to_json(dyn)) == dyn
    assert dyn != equations(OWN)


def test_amplitudes_print_as_increments():
    dyn = equations(SHARED, OWN)
    assert dyn.latex().splitlines()[1] == (
        r"\mathrm{d}x_{i} &= - \theta x_{i} \mathrm{d}t - \sum_{a=1}^{D} \beta_{ia} \mathrm{d}W_{a} "
        r"+ \Bigl[ 1 + x_{i} \Bigr] \mathrm{d}\nu_{i}"
    )
    assert "dx_i =\n    - theta x_i dt\n    - Σ_{a=1}^D B_ia dW[a]\n    + [1 + x_i] dV[i]\n" in f"{dyn}\n"
    assert (
        r"\mathrm{d}x_{i} &= \mathrm{d}\nu_{i}"
        in replace(equations(Amplitude(x, V, sympy.S.One)), drift=(Equation(x, sympy.S.Zero),)).latex()
    )
    assert "What moves is" in article_latex(dyn)


def test_covariations_print_beside_the_increments():
    dyn = equations(COVARIATION)
    text = dyn.latex()
    assert r"\mathrm{d}x_{i} &= - \theta x_{i} \mathrm{d}t + \mathrm{d}M_{x_{i}}" in text
    assert r"\frac{\mathrm{d}\langle x_{i}, x_{j} \rangle}{\mathrm{d}t} &= \theta x_{i} x_{j}" in text
    assert "d⟨x_i, x_j⟩/dt = theta x_i x_j" in str(dyn)


def test_moments_in_the_noise_are_named_and_printed():
    flow = derive.TeacherStudent(activation="erf").dynamics()
    first, second = flow.states[0].indices
    moment = min(flow.drift[0].expr.atoms(derive.Moment), key=sympy.default_sort_key).xreplace({second: first})
    still = tuple(Equation(q, sympy.S.Zero) for q in flow.states)
    noise = (Amplitude(flow.states[1], Quantity("Z"), moment),)
    dyn = replace(flow, kind="sde", model=None, drift=still, observables=(), diffusion=noise)
    assert [m.moment for m in dyn.moments] == [moment]
    name = dyn.moments[0].name.replace("_", "_{") + "}"
    assert dyn.latex().count(name) == 2  # in the equation, and where it is defined
    assert "g(h) &=" in dyn.latex()


@pytest.mark.parametrize(
    ("diffusion", "reason"),
    [
        ((SHARED, COVARIATION), "either form"),
        ((COVARIATION, COVARIATION), "each pair of states once"),
        ((Amplitude(Quantity("y"), W, sympy.S.One),), "noise of one of the states x"),
        ((Amplitude(other, W, sympy.S.One),), "as in its equation"),
        ((Covariation(x, x, sympy.S.One),), "indices of its own"),
        ((Amplitude(x, Quantity("theta"), sympy.S.One),), "a name of their own"),
        ((Amplitude(x, Quantity("W", (a,), (sympy.Symbol("P"),)), sympy.S.One),), "sizes D, N"),
        ((SHARED, Amplitude(x, Quantity("W", (i,), (N,)), sympy.S.One)), "one shape for all of W"),
    ],
)
def test_noise_that_the_states_cannot_have_is_refused(diffusion, reason):
    with pytest.raises(ModelError, match=reason) as caught:
        equations(*diffusion)
    assert caught.value.argument == "diffusion"
    assert "Quantity(" not in str(caught.value) and "Symbol(" not in str(caught.value)


def test_noise_is_for_stochastic_equations_and_these_are_not_written_out():
    with pytest.raises(ModelError, match="kind='sde'"):
        equations(SHARED, kind="ode")
    with pytest.raises(NotYet, match="expand"):
        equations(SHARED).expand(N=2, D=1)
    with pytest.raises(NotYet, match="NumPy module"):
        to_text(equations(SHARED), ".py")
