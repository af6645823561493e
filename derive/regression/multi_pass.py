"""SGD over a finite training set: the exact recursion of the residuals' second moments, and its limit.

An example i drawn at random moves all residuals, r_k <- r_k - eta G_ki r_i, by the Gram matrix G = X X^T/n. Source:
Paquette, Lee, Pedregosa & Paquette, COLT 2021, whose Volterra equation follows where the eigenvectors of G are
delocalised.
"""

from collections.abc import Callable

import sympy

from ..dynamics import Dynamics, Equation, Quantity, Step
from ..errors import ModelError
from .marchenko_pastur import RandomSpectrum, definition
from .modes import TOTAL, Modes, variation_of_constants
from .one_pass import STABILITY
from .quantities import ETA, RATIO, SIGMA, TRAIN_LOSS, Eigenvalues, L, N, Spectrum, eta, l, r, sigma

i, k, m = sympy.symbols("i k m", positive=True, integer=True)
DIMS = ("example", "example_2")
RESIDUALS = Quantity("residuals", (i, k), (N, N), "C", "mean product of two residuals", True, dims=DIMS)
GRAM = Quantity("gram", (i, k), (N, N), "G", "Gram matrix X X^T/n of the inputs", True, dims=DIMS)
_MEANING = "squared residuals over n in each class, λ c + r p σ² at t = 0"
MODES = Quantity("m", (l,), (L,), "m", _MEANING, minimum=0.0, dims=("mode",))
INPUTS = "examples are drawn with replacement from n; the target is linear, with Gaussian noise"
LARGE = "n → ∞ at fixed d/n, spectrum and time t = steps/n"
DELOCALISED = "eigenvectors of the Gram matrix are delocalised: each example has the same weight in all of them"


def multi_pass(spectrum: Spectrum, limit: str, model: object) -> Dynamics:
    """Return the exact recursion (``"finite-n"``), the equations of the modes, or the Volterra equation."""
    return {"finite-n": _recursion, "high-dimensional": _mode_equations, "volterra": _volterra}[limit](spectrum, model)


def mean_increment() -> sympy.Expr:
    """Return the mean change of C_ik = E r_i r_k in one step, given the moments before: exact."""
    residual, gram, moments = sympy.IndexedBase("r", real=True), GRAM.base, RESIDUALS.base

    def after(a: sympy.Symbol) -> sympy.Expr:
        return residual[a] - eta * gram[a, m] * residual[m]

    change = sympy.expand(after(i) * after(k) - residual[i] * residual[k])
    averaged = sympy.Add(*(_moment(term, residual, moments) for term in sympy.Add.make_args(change)))
    return sympy.Add(*(_mean_over_examples(term) for term in sympy.Add.make_args(averaged)))


def _moment(term: sympy.Expr, residual: sympy.IndexedBase, moments: sympy.IndexedBase) -> sympy.Expr:
    """Return a term with the product of two residuals replaced by its mean."""
    powers = term.as_powers_dict().items()
    pairs = [(f, int(power)) for f, power in powers if isinstance(f, sympy.Indexed) and f.base == residual]
    first, second = (f for f, power in pairs for _ in range(power))
    return term / (first * second) * moments[first.indices[0], second.indices[0]]


def _mean_over_examples(term: sympy.Expr) -> sympy.Expr:
    outside, inside = term.as_independent(m, as_Add=False)
    return outside / N * sympy.Sum(inside, (m, 1, N))


def mode_rate(spectrum: Eigenvalues) -> sympy.Expr:
    """Return dm_l/dt of the squared residuals in class l over n, with TOTAL for sum_l m_l, t in steps/n.

    The recursion is projected on an eigenvector u of G with eigenvalue lam, on which u_m^2 is taken to be 1/n.
    """
    u, rho, all_residuals = sympy.IndexedBase("u"), sympy.Symbol("rho"), sympy.Symbol("a")
    projected = sympy.S.Zero
    for term in sympy.Add.make_args(mean_increment()):
        (total,) = term.atoms(sympy.Sum)
        front, inside = term / total, total.function * u[i] * u[k]
        for index in (i, k):  # sum_i u_i G_im = lam u_m
            if inside.has(GRAM.base[index, m]):
                inside = inside / GRAM.base[index, m] / u[index] * spectrum.lam * u[m]
        (moment,) = (f for f in inside.atoms(sympy.Indexed) if f.base == RESIDUALS.base)
        a, b = moment.indices
        weight = sympy.cancel(inside / moment / u[a] / u[b])
        assert not weight.has(u)
        projected += front * weight * (rho if a != b else all_residuals)  # u^T C u, or sum_m u_m^2 C_mm
    # times n for the clock; over the r p n directions of the class, over n: rho adds up to m, C_mm/n to S + offset
    rate = sympy.expand(N * projected)
    offset = sigma**2 * (1 - r * spectrum.covered)
    fed = r * spectrum.p * (TOTAL + offset)
    return rate.coeff(rho) * _mode(spectrum) + rate.coeff(all_residuals) * fed


def _mode(spectrum: Eigenvalues) -> sympy.Expr:
    return MODES.symbol if spectrum.general else sympy.Symbol("m", nonnegative=True)


def _eigenvalues(spectrum: Spectrum) -> Eigenvalues:
    return spectrum if spectrum.general else RandomSpectrum()


def _modes(spectrum: Eigenvalues) -> Modes:
    return Modes.of(mode_rate(spectrum), _mode(spectrum), sympy.S.One, spectrum)


def _start(spectrum: Eigenvalues) -> sympy.Expr:
    """Return m_l(0): of the error in the weights, and of the noise."""
    return spectrum.lam * spectrum.c + sigma**2 * r * spectrum.p


def _recursion(spectrum: Spectrum, model: object) -> Dynamics:
    loss = sympy.Sum(RESIDUALS.base[i, i], (i, 1, N)) / (2 * N)
    return Dynamics(
        title="Linear regression by SGD over n examples: moments of the residuals",
        kind="map",
        clock="steps/n",
        drift=(Equation(RESIDUALS, mean_increment()),),
        parameters=(ETA, GRAM),
        observables=(Equation(TRAIN_LOSS, loss),),
        assumptions=(INPUTS,),
        status="exact for every training set, averaged over the order of examples",
        steps=_steps()[:2],
        model=model,
        limit="finite-n",
    )


def _mode_equations(spectrum: Spectrum, model: object) -> Dynamics:
    if not spectrum.general:
        raise ModelError(
            "limit", "high-dimensional", "'volterra': the eigenvalues for isotropic inputs are no finite set"
        )
    total = spectrum.total(MODES.symbol)
    modes = _modes(Spectrum(True))
    rate = -modes.decay * MODES.symbol + modes.gain * (total + modes.offset)
    loss = (total + modes.offset) / 2
    return _limit(spectrum, model, "ode", "high-dimensional", (Equation(MODES, rate),), (Equation(TRAIN_LOSS, loss),))


def _volterra(spectrum: Spectrum, model: object) -> Dynamics:
    eigenvalues = _eigenvalues(spectrum)
    defined = () if spectrum.general else (definition(),)
    right = variation_of_constants(_modes(eigenvalues), _start(eigenvalues), "train_loss", whole=True)
    return _limit(spectrum, model, "volterra", "volterra", (Equation(TRAIN_LOSS, right), *defined), ())


def _limit(
    spectrum: Spectrum,
    model: object,
    kind: str,
    limit: str,
    drift: tuple[Equation, ...],
    observables: tuple[Equation, ...],
) -> Dynamics:
    modes = _modes(_eigenvalues(spectrum))
    return Dynamics(
        title="Linear regression by SGD over n examples",
        kind=kind,
        clock="steps/n",
        drift=drift,
        parameters=(ETA, RATIO, *spectrum.parameters, SIGMA),
        observables=(*observables, Equation(STABILITY, modes.stability)),
        assumptions=(INPUTS, LARGE, DELOCALISED),
        status="exact in the limit, for delocalised eigenvectors",
        steps=_steps(),
        initial=(spectrum.error,) if kind == "volterra" else (),
        model=model,
        limit=limit,
    )


def _steps() -> tuple[Step, ...]:
    delta: Callable[..., sympy.Expr] = sympy.Function("Delta")
    residual, short = sympy.IndexedBase("e", real=True), {GRAM.base: sympy.IndexedBase("G", real=True)}
    short[RESIDUALS.base] = sympy.IndexedBase("C", real=True)
    return (
        Step(
            "Training step",
            "Each step follows the gradient of the squared loss on one of n examples, drawn at random. With the Gram "
            "matrix of the inputs over n, it moves the residual of every example k by that of the drawn one, m:",
            ((delta(residual[k]), -eta * short[GRAM.base][k, m] * residual[m]),),
        ),
        Step(
            "Average over the drawn example",
            "Products of two residuals have a closed equation, whatever the training set.",
            ((sympy.Function("MeanDelta")(short[RESIDUALS.base][i, k]), mean_increment().xreplace(short)),),
        ),
        Step(
            "Eigenvectors of the Gram matrix",
            "Projected on an eigenvector, a squared residual decays and is fed by the residual of the drawn example, "
            "each in the proportion that it has in the eigenvector: in the limit the same for all.",
        ),
        Step(
            "Variation of constants",
            "Solved for a given loss and summed, the modes leave one equation, for the loss.",
        ),
    )
