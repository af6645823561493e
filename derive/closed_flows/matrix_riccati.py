"""Matrix Riccati flows ``tau Q' = F Q - kappa Q Q^T Q``: the closed form of ``P = Q Q^T``, and when networks obey it.

Source: Fukumizu (1998); Braun, Dominé, Fitzgerald & Saxe (2022); Dominé et al. (2025).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy
from sympy.matrices.expressions.matexpr import MatrixExpr

from ..errors import Described, ModelError

if TYPE_CHECKING:
    import numpy as np

BALANCE = 1e-8
"""Of ``||D - lam I||`` relative to ``||W1||^2 + ||W2||^2``: beyond it, conserved imbalance would be seen in results."""
BALANCED = "W2^T W2 - W1 W1^T = lambda I"
LATEX = {BALANCED: r"W_{2}^{T} W_{2} - W_{1} W_{1}^{T} = \lambda \mathbb{I}"}
GRAM = 'use the Gram closure (reduction="gram"), which holds for any imbalance and any input covariance'


class MatrixExponential(MatrixExpr):
    """``exp(A)`` of a square matrix expression, unevaluated."""

    def __new__(cls, argument: MatrixExpr) -> "MatrixExponential":
        return super().__new__(cls, argument)

    @property
    def shape(self) -> tuple[Any, Any]:
        """As the argument's."""
        return self.args[0].shape

    def _eval_transpose(self) -> "MatrixExponential":
        return MatrixExponential(self.args[0].T)

    def _latex(self, printer: Any) -> str:
        return f"e^{{{printer.doprint(self.args[0])}}}"

    def _sympystr(self, printer: Any) -> str:
        return f"exp({printer.doprint(self.args[0])})"


@dataclass(frozen=True, slots=True)
class MatrixClosedForm:
    """``P(t) = E Q0 (I + Q0^T phi Q0)^(-1) Q0^T E`` with ``E = exp(F t/tau)``, ``phi = kappa (E F^-1 E - F^-1)``.

    P is what the flow determines in closed form. Q itself is ``E Q0 (I + Q0^T phi Q0)^(-1/2)`` up to a rotation of the
    hidden layer, which has no closed form unless h = 1; losses and end-to-end maps do not see it.

    Attributes
    ----------
    name : str
        ``"balanced two-layer network"`` or ``"symmetric factor"``.
    solution, phi : MatrixExpr
    F, Q0 : MatrixExpr
        What the flow's F and initial Q are made of.
    coupling : Rational
        kappa.
    conditions : tuple of str
        Under what hypotheses the network obeys the flow.
    method : str
    verified : str
        What was checked.
    """

    name: str
    solution: MatrixExpr
    phi: MatrixExpr
    F: MatrixExpr
    Q0: MatrixExpr
    coupling: sympy.Rational
    conditions: tuple[str, ...]
    method: str
    verified: str
    start: "Callable[..., Start]" = field(repr=False)

    def __call__(self, t: Any, y0: Mapping[str, Any], params: Mapping[str, Any]) -> "dict[str, np.ndarray]":
        """Return the solution at given times, after testing the conditions on the numbers given.

        Parameters
        ----------
        t : array_like
            Times from 0 on, not decreasing, (T,).
        y0, params : mapping
            The initial matrices and the parameters by name: ``W1``, ``W2`` and ``S_yx``, or ``U`` and ``Y``.

        Returns
        -------
        dict of ndarray
            ``P``, and of a two-layer network its blocks ``P`` = W1ᵀW1, ``S`` = W1ᵀW2ᵀ, ``R`` = W2W2ᵀ; t first.

        Raises
        ------
        ModelError
            If weights are not λ-balanced: it names what holds for them.

        Examples
        --------
        >>> from effdyn import derive
        >>> form = derive.LinearNetwork(inputs="whitened").dynamics("riccati").closed_form()
        >>> late = form([0.0, 30.0], y0=dict(W1=[[0.1, 0.0]], W2=[[0.1]]), params=dict(S_yx=[[2.0, 1.0]]))
        >>> print(late["S"][-1].round(9).T)
        [[2. 1.]]
        """
        import numpy as np

        from .factor_step import factors_at

        names = list(inspect.signature(self.start).parameters)
        if set(y0) | set(params) != set(names):
            accepted = f"in y0 and params together {', '.join(names)}: the matrices that P is made of, not its blocks"
            raise ModelError("y0, params", Described(", ".join(sorted({*y0, *params}))), accepted)
        start = self.start(**y0, **params)
        times = np.atleast_1d(np.asarray(t, float))
        if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times, prepend=0.0) < 0).any():
            raise ModelError("t", t, "finite times from 0 on, not decreasing")
        factors = np.array(list(factors_at(start.F, start.Q0, times, start.coupling)))
        product, cut = factors @ factors.transpose(0, 2, 1), start.split
        if not cut:
            return {"P": product}
        return {"P": product[:, :cut, :cut], "S": product[:, :cut, cut:], "R": product[:, cut:, cut:]}

    def latex(self) -> str:
        """Return the solution, phi, F and Q0 as LaTeX (amsmath)."""
        rows = (("P(t)", self.solution), (r"\phi", self.phi), ("F", self.F), ("Q_{0}", self.Q0))
        lines = [f"{left} &= {sympy.latex(right)}" for left, right in rows]
        lines += [rf"&\text{{if }} {LATEX.get(c) or _text(c)}" for c in self.conditions]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def __str__(self) -> str:
        lines = [f"P(t) = {self.solution}", f"  where phi = {self.phi}", f"  where F = {self.F}, Q0 = {self.Q0}"]
        lines += [f"  if {condition}" for condition in self.conditions]
        return "\n".join([*lines, f"  by {self.method}; verified {self.verified}"])


SIGNS = {"ᵀ": r"$^{T}$", "−": "$-$", "λ": r"$\lambda$"}


def _text(sentence: str) -> str:
    for sign, latex in SIGNS.items():
        sentence = sentence.replace(sign, latex)
    return rf"\text{{{sentence}}}"


@dataclass(frozen=True, slots=True)
class Start:
    """F and Q0 of a user's network, as arrays for ``solve.riccati``; ``lam`` is the conserved imbalance, ``split`` the
    number of inputs, which are the first rows (0: there are no blocks)."""

    F: "np.ndarray"
    Q0: "np.ndarray"
    coupling: float
    lam: float
    split: int = 0


n, h = sympy.symbols("n h", integer=True, positive=True)
T, TAU, LAM = sympy.Symbol("t", nonnegative=True), sympy.Symbol("tau", positive=True), sympy.Symbol("lambda", real=True)


@lru_cache(maxsize=1)
def symmetric_factor() -> MatrixClosedForm:
    """Return the closed form of ``tau U' = (Y - U U^T) U``, gradient flow of ``||Y - U U^T||^2/4`` (P is ``U U^T``).

    Examples
    --------
    >>> symmetric_factor().coupling
    1
    """
    Y, U = sympy.MatrixSymbol("Y", n, n), sympy.MatrixSymbol("U", n, h)
    return riccati_closed_form("symmetric factor", Y, U, sympy.S.One, ("Y is symmetric",), start_symmetric)


def riccati_closed_form(
    name: str,
    F: MatrixExpr,
    Q0: MatrixExpr,
    coupling: sympy.Rational,
    conditions: tuple[str, ...],
    start: "Callable[..., Start]",
) -> MatrixClosedForm:
    """Return the closed form of ``tau Q' = F Q - coupling Q Q^T Q`` for matrix expressions F (symmetric) and Q0.

    Verified by substitution in 60 digits at a rational F and Q0.

    Raises
    ------
    ModelError
        If F and Q0 do not fit together, or the coupling is not a positive rational number.

    Examples
    --------
    >>> F, Q0 = sympy.MatrixSymbol("F", 2, 2), sympy.MatrixSymbol("Q_0", 2, 1)
    >>> print(riccati_closed_form("a unit", F, Q0, sympy.S.Half, (), start_symmetric).phi)
    -(1/2)*F**(-1) + (1/2)*exp((t/tau)*F)*F**(-1)*exp((t/tau)*F)
    """
    size, hidden = F.shape[0], Q0.shape[1]
    if F.shape[1] != size or Q0.shape[0] != size:
        raise ModelError("F, Q0", Described(f"shapes {F.shape}, {Q0.shape}"), "shapes (n, n) and (n, h)")
    coupling = sympy.sympify(coupling)
    if not (coupling.is_Rational and coupling.is_positive):
        raise ModelError("coupling", coupling, "a positive rational number")
    f, q, phi = (sympy.MatrixSymbol(*x) for x in (("F", size, size), ("Q_0", size, hidden), ("phi", size, size)))
    E = MatrixExponential(T / TAU * f)
    return MatrixClosedForm(
        name,
        E * q * (sympy.Identity(hidden) + q.T * phi * q).inverse() * q.T * E,
        coupling * (E * f.inverse() * E - f.inverse()),
        F,
        Q0,
        coupling,
        conditions,
        "matrix Riccati: P = Y X^-1 with Y, X of a linear flow",
        f"at a rational F and Q0: residual {_residual(coupling):.0e} in 60 digits",
        start,
    )


def start_balanced(W1: Any, W2: Any, Sigma: Any, input_covariance: Any = None) -> Start:
    """Return F and Q0 of a two-layer network, after checking that it is what the closed form is about.

    Parameters
    ----------
    W1, W2 : array_like
        Initial weights, (h, n) and (m, h).
    Sigma : array_like
        Input-output correlation, (m, n).
    input_covariance : array_like, optional
        (n, n); must be the identity. ``None``: it is.

    Raises
    ------
    ModelError
        If the weights are not balanced up to a multiple of the identity, or the input is not white: then the Gram
        closure holds. Also for shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> start_balanced(W1=[[0.5, 0.0]], W2=[[0.7]], Sigma=[[1.0, 0.0]]).lam.__round__(12)
    0.24
    """
    import numpy as np

    W1, W2, Sigma = _matrix("W1", W1), _matrix("W2", W2), _matrix("Sigma", Sigma)
    if W2.shape[1] != W1.shape[0] or Sigma.shape != (W2.shape[0], W1.shape[1]):
        shapes = Described(f"shapes {W1.shape}, {W2.shape}, {Sigma.shape}")
        raise ModelError("W1, W2, Sigma", shapes, "shapes (h, n), (m, h), (m, n)")
    _check_white(input_covariance, W1.shape[1])
    D = W2.T @ W2 - W1 @ W1.T
    lam = float(np.trace(D) / len(D))
    off = np.linalg.norm(D - lam * np.eye(len(D))) / (np.linalg.norm(W1) ** 2 + np.linalg.norm(W2) ** 2 or 1.0)
    if not off <= BALANCE:
        given = Described(f"weights with ||D - lam I|| = {off:.1e} (||W1||^2 + ||W2||^2), D = W2^T W2 - W1 W1^T")
        raise ModelError("W1, W2", given, f"at most {BALANCE:g}, as the matrix Riccati form demands; otherwise {GRAM}")
    F = np.block([[-lam / 2 * np.eye(W1.shape[1]), Sigma.T], [Sigma, lam / 2 * np.eye(W2.shape[0])]])
    return Start(F, np.vstack([W1.T, W2]), 0.5, lam, W1.shape[1])


def start_symmetric(U: Any, Y: Any) -> Start:
    """Return F and Q0 of ``U' = (Y - U U^T) U``; raises :class:`ModelError` unless Y is symmetric.

    Examples
    --------
    >>> start_symmetric(U=[[0.1]], Y=[[2.0]]).coupling
    1.0
    """
    import numpy as np

    U, Y = _matrix("U", U), _matrix("Y", Y)
    if Y.shape != (len(U), len(U)):
        raise ModelError("Y", Described(f"shape {Y.shape}"), f"shape {(len(U), len(U))}, as U has {len(U)} rows")
    if np.abs(Y - Y.T).max(initial=0) > BALANCE * np.abs(Y).max(initial=0):
        raise ModelError("Y", Described("a matrix that is not symmetric"), "a symmetric matrix")
    return Start((Y + Y.T) / 2, U, 1.0, 0.0)


def _matrix(name: str, given: Any) -> "np.ndarray":
    import numpy as np

    matrix = np.asarray(given, float)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ModelError(name, Described(f"an array of shape {matrix.shape}"), "a matrix of finite numbers")
    return matrix


def _check_white(covariance: Any, size: int) -> None:
    import numpy as np

    if covariance is None:
        return
    given = _matrix("input_covariance", covariance)
    if given.shape != (size, size) or np.abs(given - np.eye(size)).max() > BALANCE:
        raise ModelError("input_covariance", Described("a matrix that is not the identity"), f"white inputs; {GRAM}")


@lru_cache(maxsize=8)
def _residual(coupling: sympy.Rational, size: int = 3, hidden: int = 2) -> float:
    """Of ``P' = F P + P F - 2 kappa P P`` and of ``P(0) = Q0 Q0^T``, relative.

    The derivative is a central difference with step 1e-20 at 60 digits: its own error is about 1e-40.
    """
    import mpmath

    with mpmath.workdps(60):
        F = mpmath.matrix([[mpmath.mpf(7 * i * j - 3 * (i + j) + 1) / 11 for j in range(size)] for i in range(size)])
        F += mpmath.diag([mpmath.mpf(i + 1) / 5 for i in range(size)])
        Q = mpmath.matrix([[mpmath.mpf(5 * i - 3 * j + 1) / 9 for j in range(hidden)] for i in range(size)])
        kappa = mpmath.mpf(coupling.p) / coupling.q

        def P(t: Any) -> Any:
            E, inverse = mpmath.expm(F * t), F**-1
            phi = kappa * (E * inverse * E - inverse)
            return E * Q * (mpmath.eye(hidden) + Q.T * phi * Q) ** -1 * Q.T * E

        t, step = mpmath.mpf(3) / 7, mpmath.mpf(10) ** -20
        now, speed = P(t), (P(t + step) - P(t - step)) / (2 * step)
        rate = F * now + now * F - 2 * kappa * now * now
        worst = max(mpmath.mnorm(speed - rate), mpmath.mnorm(P(mpmath.mpf(0)) - Q * Q.T)) / mpmath.mnorm(rate)
        if not worst < mpmath.mpf(10) ** -30:
            raise ArithmeticError(f"the matrix Riccati form does not solve its equation: residual {worst}")
        return float(worst)
