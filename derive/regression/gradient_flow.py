"""Gradient flow on n examples: each mode of X^T X/n by itself, averaged over its eigenvalues.

Isotropic inputs: Advani, Saxe & Sompolinsky, Neural Networks 132, 428 (2020), whose time is t_AS/tau = t r, and whose
errors are twice these, noise included. General covariance: deterministic equivalents of the resolvent, once and twice
(Silverstein & Bai 1995; Hastie et al. 2022 for ridge regression), along the Laplace transform of the flow.
"""

import sympy

from ..dynamics import TIME, Dynamics, Equation, Quantity, Step
from ..moments import Joint
from .inverse_laplace import InverseLaplace
from .marchenko_pastur import EIGENVALUE, RandomSpectrum, Z, definition, kappa, self_consistent
from .quantities import EG, LOSS, RATIO, SIGMA, TRAIN_LOSS, N, Spectrum, r, sigma

V0, NOISE = sympy.symbols("v_0 xi", real=True)
"""The initial error along a mode, and the noise of all labels along it, of variance sigma^2."""
KAPPA = Quantity("kappa", latex=r"\kappa", meaning="effective strength of the inputs at the frequency z")
SHARED = Quantity("phi", latex=r"\phi", meaning="what two resolvents of the same inputs share")
Z2 = sympy.Symbol("z_2")
Z1 = sympy.Symbol("z_1")
INPUTS = "inputs are Gaussian; the target is linear, with Gaussian noise, and independent of the eigenvectors of X^T X"
LARGE = "n → ∞ at fixed d/n, spectrum and time t = eta·steps, for gradient descent with small eta"


def mode() -> sympy.Expr:
    """Return the error along a mode at time t, which is checked in its equation.

    dv/dt = -lambda v + sqrt(lambda/n) xi: the gradient of the mean of (v.x - sigma zeta)^2/2 along an eigenvector of
    X^T X/n with eigenvalue lambda.
    """
    decay = sympy.exp(-EIGENVALUE * TIME)
    pull = sympy.sqrt(EIGENVALUE / N) * NOISE
    solution = V0 * decay + pull * (1 - decay) / EIGENVALUE
    left = sympy.expand(solution.diff(TIME) + EIGENVALUE * solution - pull)
    if left != 0 or solution.subs(TIME, 0) != V0:
        raise ArithmeticError(f"{solution} does not solve the equation of a mode: {left} is left")
    return solution


def mode_error() -> sympy.Expr:
    """Return the mean squared error along a mode, E v^2."""
    return _mean(mode() ** 2)


def mode_residual() -> sympy.Expr:
    """Return the mean squared residual along a mode, E (sqrt(n lambda) v - xi)^2."""
    return _mean((sympy.sqrt(N * EIGENVALUE) * mode() - NOISE) ** 2)


def _mean(expr: sympy.Expr) -> sympy.Expr:
    """Return the average over the noise, a polynomial in the initial error."""
    powers = sympy.Poly(sympy.expand(expr), NOISE, V0)
    signal, noise = powers.coeff_monomial(V0**2), powers.coeff_monomial(NOISE**2)
    decay = sympy.Symbol("E", positive=True)
    short = {sympy.exp(-2 * EIGENVALUE * TIME): decay**2, sympy.exp(-EIGENVALUE * TIME): decay}
    first, second = (
        sympy.factor(part.subs(short)).xreplace({decay: sympy.exp(-EIGENVALUE * TIME)}) for part in (signal, noise)
    )
    return V0**2 * first + sigma**2 * second


def mode_stopping_time() -> sympy.Expr:
    """Return when the error along a mode is least, from its derivative in exp(-lambda t); later it only fits noise.

    Examples
    --------
    >>> mode_stopping_time()
    log(lambda*n*v_0**2/sigma**2 + 1)/lambda
    """
    decay = sympy.Symbol("E", positive=True)
    error = mode_error().subs(sympy.exp(-2 * EIGENVALUE * TIME), decay**2).subs(sympy.exp(-EIGENVALUE * TIME), decay)
    square, linear = (sympy.Poly(error, decay).coeff_monomial(decay**power) for power in (2, 1))
    positive = {s: sympy.Symbol(s.name, positive=True) for s in square.free_symbols}
    if not square.subs(positive).is_positive:
        raise ArithmeticError("the stationary point of a mode's error is not a minimum")
    return sympy.log(sympy.expand(sympy.cancel(-2 * square / linear))) / EIGENVALUE


def gradient_flow(spectrum: Spectrum, limit: str, model: object) -> Dynamics:
    """Return explicit formulas for the error on fresh examples and on the training set."""
    eg, train_loss = (_general if spectrum.general else _isotropic)(spectrum)
    return Dynamics(
        title="Linear regression by gradient flow on n examples",
        kind="formula",
        clock="eta*steps",
        drift=_equivalents(spectrum) if spectrum.general else (definition(),),
        parameters=(RATIO, *spectrum.parameters, SIGMA),
        observables=(Equation(EG, eg), Equation(LOSS, EG.base + sigma**2 / 2), Equation(TRAIN_LOSS, train_loss)),
        assumptions=(INPUTS, LARGE),
        status="exact in the limit",
        steps=_steps(spectrum),
        initial=(spectrum.error,),
        model=model,
        limit=limit,
    )


def _isotropic(spectrum: Spectrum) -> tuple[sympy.Expr, sympy.Expr]:
    """Return eg and train_loss: modes averaged over the eigenvalues, d of them for the error, n for the residuals."""
    eigenvalues = RandomSpectrum()

    def total(per_mode: sympy.Expr) -> sympy.Expr:
        """Return the sum over d = r n modes that share the squared error c."""
        signal, noise = (sympy.expand(per_mode, deep=False).coeff(cause) for cause in (V0**2, sigma**2))
        return spectrum.c * eigenvalues.total(signal) + sigma**2 * r * eigenvalues.total(N * noise)

    return total(mode_error()) / 2, total(mode_residual() / N) / 2 + sigma**2 * (1 - r) / 2


def _resolvent(z: sympy.Expr, lam: sympy.Expr) -> sympy.Expr:
    """Return what (z + X^T X/n)^-1 is on an eigenvector of the covariance, in the mean."""
    return 1 / (z + kappa(z) * lam)


def _equivalents(spectrum: Spectrum) -> tuple[Equation, ...]:
    """Return the equations for kappa, and for what two resolvents have in common because they see the same inputs."""
    both = spectrum.p * spectrum.lam**2 * _resolvent(Z1, spectrum.lam) * _resolvent(Z2, spectrum.lam)
    shared = r * kappa(Z1) * kappa(Z2) * spectrum.total(both)
    return (Equation(KAPPA, self_consistent(spectrum)), Equation(SHARED, shared))


def _general(spectrum: Spectrum) -> tuple[sympy.Expr, sympy.Expr]:
    """Return eg and train_loss: resolvents of X^T X/n replaced by their deterministic equivalents."""
    lam, p, c = spectrum.lam, spectrum.p, spectrum.c
    _check_transforms()
    pair = _resolvent(Z1, lam) * _resolvent(Z2, lam) / (1 - sympy.Function(SHARED.name)(Z1, Z2))
    bias = InverseLaplace(InverseLaplace(spectrum.total(c * lam * pair), Z1, TIME), Z2, TIME)

    def noise(t: sympy.Expr) -> sympy.Expr:
        return InverseLaplace(spectrum.total(p * lam * _resolvent(Z, lam)) / Z, Z, t)

    signal = InverseLaplace(spectrum.total(c * lam * kappa(Z) * _resolvent(Z, lam)), Z, 2 * TIME)
    unfitted = InverseLaplace(spectrum.total(p * _resolvent(Z, lam)), Z, 2 * TIME)
    eg = bias / 2 + sigma**2 * r * (2 * noise(TIME) - noise(2 * TIME)) / 2
    return eg, signal / 2 + sigma**2 * (1 - r * spectrum.covered) / 2 + sigma**2 * r * unfitted / 2


def _check_transforms() -> None:
    """Check, mode by mode, what is used of Laplace transforms: (1 - E)^2 is 2 (1 - E) - (1 - E^2), the transforms of
    E = exp(-lambda t) and (1 - E)/lambda are 1/(z + lambda) and that over z, and lambda/(z + lambda) that of lambda E.
    """
    decay, grown = sympy.Symbol("E", positive=True), EIGENVALUE
    at = {sympy.exp(-2 * grown * TIME): decay**2, sympy.exp(-grown * TIME): decay}
    noise, residual = (mode_error().coeff(sigma**2) * N * grown).subs(at), mode_residual().subs(at)
    left = (
        noise - (2 * (1 - decay) - (1 - decay**2)),
        residual - decay**2 * (N * grown * V0**2 + sigma**2),
        grown / (Z + grown) - (1 - Z / (Z + grown)),  # of -dE/dt, E = 1 at t = 0
    )
    if any(sympy.cancel(sympy.expand(expr)) != 0 for expr in left):
        raise ArithmeticError(f"a mode is not what its transform says: {left} should vanish")


def _steps(spectrum: Spectrum) -> tuple[Step, ...]:
    rate = sympy.Symbol("v'")
    first = Step(
        "Flow of a mode",
        "Along an eigenvector of X^T X/n with eigenvalue λ the error v = w − w* is pulled to zero, and to the "
        "projection ξ of the noise of the n labels:",
        ((rate, -EIGENVALUE * sympy.Symbol("v") + sympy.sqrt(EIGENVALUE / N) * NOISE), (sympy.Symbol("v"), mode())),
    )
    second = Step(
        "Average over the noise",
        "The squared error and the squared residual of a mode. The error of a single mode is least at the time given "
        "last: stopping there is optimal for it.",
        (
            (Joint(sympy.Symbol("v") ** 2), mode_error()),
            (sympy.Symbol("t_opt"), mode_stopping_time()),
        ),
    )
    third = Step(
        "Average over inputs",
        "The eigenvalues follow the law of Marchenko and Pastur, whose density is the imaginary part of the resolvent "
        "1/(z + κ(z)) at z = −λ, with κ(z) = 1/(1 + r/(z + κ(z)))."
        if not spectrum.general
        else "What has decayed by the time t is the inverse Laplace transform of the resolvent of X^T X/n, which acts "
        "as 1/(z + λ κ(z)) on the eigenvectors of the covariance; two resolvents with the covariance between them "
        "have a denominator besides, 1 − φ.",
    )
    return first, second, third
