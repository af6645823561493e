r"""Bounds on how fast the loss of two-layer linear regression falls, as objects that evaluate, print and typeset.

All are of one kind. Along gradient flow, with p = λ_r(U_1U_1ᵀ) and q = λ_m(VVᵀ),

    −dL̃/dt = ‖Σ^{1/2}EV‖² + ‖EᵀΣ^{1/2}U_1‖² ≥ λ_r(Σ) (p + q) ‖E‖² = 2 λ_r(Σ) (p + q) L̃,   L̃ = L − L*,

and a bound is a lower bound on 2(p + q), its *bracket*, by what is known of all times: the imbalance Λ, which is
conserved, and the singular values of U_1Vᵀ, which L̃ keeps close to their goal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .imbalance import Imbalance, imbalance, singular_value

if TYPE_CHECKING:
    from .regression import TwoLayerRegression

Margins = tuple[float, float]
"""Lower bounds on σ_r(U_1Vᵀ) and σ_m(U_1Vᵀ)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A theorem: where it is from, what it demands, what it says.

    Attributes
    ----------
    name, source : str
    conditions : tuple of str
        What is supposed, in words.
    statement : tuple of str
        In LaTeX, line by line.
    bracket : callable (Imbalance, σ_r, σ_m) → float
        Lower bound on 2(p + q); see the module.
    margins : callable (TwoLayerRegression) → (float, float)
        Lower bounds on σ_r and σ_m of U_1Vᵀ at all times.
    """

    name: str
    source: str
    conditions: tuple[str, ...]
    statement: tuple[str, ...]
    bracket: Callable[[Imbalance, float, float], float]
    margins: Callable[["TwoLayerRegression"], Margins]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RateBound:
    """A theorem applied to a problem: L(t) − L* ≤ (L(0) − L*) e^{−rate·t} for all t ≥ 0.

    Attributes
    ----------
    rule : Rule
    problem : TwoLayerRegression

    Examples
    --------
    >>> from effdyn.solve.implicit_bias import TwoLayerRegression
    >>> problem = TwoLayerRegression(X=[[1.0]], Y=[[2.0]], U=[[1.5]], V=[[1.0]])
    >>> for name in ("v1", "v2"):
    ...     bound = problem.bound(name)
    ...     print(name, bound.rate, bound.envelope([0.0, 1.0]).round(6))
    v1 2.5 [0.125    0.010261]
    v2 6.5 [0.125    0.000188]
    >>> float(problem.decay_rate())  # at t = 0, to compare
    6.5
    """

    rule: Rule
    problem: "TwoLayerRegression"

    @property
    def name(self) -> str:
        """Return the name of the theorem."""
        return self.rule.name

    @property
    def source(self) -> str:
        """Return where it is from, and what was changed."""
        return self.rule.source

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return what is supposed, in words."""
        return self.rule.conditions

    @property
    def rate(self) -> float:
        """Return the rate, per unit of the problem's time; zero if the theorem promises nothing."""
        return self._least * self.rule.bracket(self.problem.imbalance, *self.rule.margins(self.problem))

    def envelope(self, t: Any) -> np.ndarray:
        """Return the bound on L(t) − L* at times t ≥ 0, of any shape."""
        return self.problem.excess * np.exp(-self.rate * np.asarray(t, dtype=float))

    def instantaneous(self, U: Any = None, V: Any = None) -> float:
        """Return the lower bound on −d ln(L − L*)/dt at some weights, from their own Λ and σ_k(U_1Vᵀ).

        It holds for any weights; :meth:`TwoLayerRegression.decay_rate` is what it bounds.
        """
        U, V = self.problem.weights(U, V)
        U1 = self.problem.data.seen.T @ U
        sigma_r, sigma_m = (singular_value(U1 @ V.T, k) for k in (len(U1), len(V)))
        return self._least * self.rule.bracket(imbalance(U1, V), sigma_r, sigma_m)

    def latex(self) -> str:
        """Return the statement in LaTeX, with the rate that it has for this problem."""
        lines = (*self.rule.statement, rf"\text{{here at the rate }} {self.rate:.4g}")
        return "\\begin{gather*}\n" + " \\\\\n".join(lines) + "\n\\end{gather*}"

    @property
    def _least(self) -> float:
        return float(self.problem.data.eigenvalues[-1])

    def __str__(self) -> str:
        return f"loss − L* <= {self.problem.excess:.6g}·exp(−{self.rate:.6g} t)   ({self.name})"

    def __repr__(self) -> str:
        return f"<RateBound {self.name}: rate {self.rate:.6g}>"


# -- brackets --


def imbalance_alone(of: Imbalance, sigma_r: float, sigma_m: float) -> float:
    """Return 2([λ_r(Λ)]_+ + [λ_m(−Λ)]_+): U_1ᵀU_1 ⪰ Λ and VᵀV ⪰ −Λ, whatever U_1Vᵀ is."""
    return 2 * (of.first_rth + of.second_mth)


def imbalance_and_product(of: Imbalance, sigma_r: float, sigma_m: float) -> float:
    """Return the bracket from Λ and the product's singular values.

    With μ = [λ_r(Λ)]_+ and ν = [λ_1(−Λ)]_+, (p − μ)(p + ν) ≥ σ_r²(U_1Vᵀ) (Lemma 8 of v2; proved anew in the theory
    page), so 2p ≥ μ − ν + √((μ + ν)² + 4σ_r²), and likewise for q with the layers exchanged. In the paper's letters
    Δ_+ = [λ_1(Λ)]_+ − [λ_r(Λ)]_+, Δ_- = [λ_1(−Λ)]_+ − [λ_m(−Λ)]_+ and Δ = [λ_r(Λ)]_+ + [λ_m(−Λ)]_+.
    """
    return _twice(of.first_rth, of.second, sigma_r) + _twice(of.second_mth, of.first, sigma_m)


def _twice(mu: float, nu: float, sigma: float) -> float:
    """Return 2p of (p − μ)(p + ν) = σ²: as 2μ plus what σ adds, without cancellation."""
    root = np.hypot(mu + nu, 2 * sigma)
    return 2 * mu + (4 * sigma**2 / (root + mu + nu) if sigma > 0 else 0.0)


# -- margins --


def no_margin(problem: "TwoLayerRegression") -> Margins:
    """Return what is known of the product without a look at it."""
    return 0.0, 0.0


def residual_margin(problem: "TwoLayerRegression") -> Margins:
    """Return [σ_k(Ỹ) − ‖E(0)‖_F]_+/√λ_1(Σ): ‖E‖ does not grow, and σ_k(Ỹ − E) ≤ √λ_1 σ_k(U_1Vᵀ)."""
    data = problem.data
    size = float(np.linalg.norm(problem.E))
    scale = float(np.sqrt(data.eigenvalues[0]))
    sigma_r, sigma_m = (max(0.0, singular_value(data.target, k) - size) / scale for k in data.target.shape)
    return sigma_r, sigma_m


def convexity_margin(problem: "TwoLayerRegression") -> Margins:
    """Return [σ_k(S*) − √(K/μ)‖S(0) − S*‖_F]_+, S = U_1Vᵀ, of a loss f(S) that is μ-strongly convex and K-smooth.

    f does not grow, and ½μ‖S − S*‖² ≤ f − f* ≤ ½K‖S(0) − S*‖². Here K = λ_1(Σ) and μ = λ_r(Σ).
    """
    data = problem.data
    ratio = float(np.sqrt(data.eigenvalues[0] / data.eigenvalues[-1]))
    far = ratio * float(np.linalg.norm(problem.U1 @ problem.V.T - data.solution))
    sigma_r, sigma_m = (max(0.0, singular_value(data.solution, k) - far) for k in data.solution.shape)
    return sigma_r, sigma_m


_FLOW = "gradient flow: gradient descent in the limit of small steps"
_SQUARED = "the squared loss, summed (or averaged) over samples"
_SPREADS = (
    r"\Delta_\pm = [\lambda_1(\pm\Lambda)]_+ - \delta_\pm,\qquad \delta_+ = [\lambda_r(\Lambda)]_+,\qquad"
    r" \delta_- = [\lambda_m(-\Lambda)]_+,\qquad \underline\Delta = \delta_+ + \delta_-"
)


def _bracket(letter: str) -> str:
    return (
        rf"{letter} = -\Delta_+ + \sqrt{{(\Delta_+ + \underline\Delta)^2 + 4 s_m^2}}"
        r" - \Delta_- + \sqrt{(\Delta_- + \underline\Delta)^2 + 4 s_r^2}"
    )


BOUNDS: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "v1",
            "Min, Tarmoun, Vidal & Mallada, ICML 2021 (arXiv:2105.06351v1), Theorem 1",
            (_FLOW, _SQUARED),
            (
                r"L(t)-L^* \le e^{-2\lambda_r(\Sigma)\,c\,t}\,(L(0)-L^*)",
                r"c = [\lambda_r(\Lambda)]_+ + [\lambda_m(-\Lambda)]_+",
            ),
            imbalance_alone,
            no_margin,
        ),
        Rule(
            "v2",
            "Min, Tarmoun, Vidal & Mallada (arXiv:2105.06351v2), Proposition 1 and Theorem 3",
            (_FLOW, _SQUARED),
            (
                r"L(t)-L^* \le e^{-\lambda_r(\Sigma)\,c\,t}\,(L(0)-L^*)",
                _bracket("c"),
                _SPREADS,
                r"s_k = [\sigma_k(\tilde Y)-\|E(0)\|_F]_+/\sqrt{\lambda_1(\Sigma)}",
            ),
            imbalance_and_product,
            residual_margin,
        ),
        Rule(
            "mvm-2023",
            "Min, Vidal & Mallada, ICML 2023 (PMLR 202:24850), Theorem 1, case 2, with the factor 1/2 of its Lemma 3 "
            "restored: the lemma bounds p and q by half of each root, and γ times the whole bracket is twice too fast",
            (
                _FLOW,
                "a loss f(S), S = U_1Vᵀ, with ‖∇f‖² ≥ γ(f − f*), μ-strongly convex and K-smooth; the squared loss has "
                "γ = 2λ_r(Σ), μ = λ_r(Σ), K = λ_1(Σ)",
            ),
            (
                r"L(t)-L^* \le e^{-\frac{1}{2}\gamma\,\alpha\,t}\,(L(0)-L^*)",
                _bracket(r"\alpha"),
                _SPREADS,
                r"s_k = \bigl[\sigma_k(S^*)-\sqrt{K/\mu}\,\|S(0)-S^*\|_F\bigr]_+,\qquad S=U_1V^{\mathsf T}",
                r"\|\nabla f\|^2 \ge \gamma\,(f - f^*),\quad f\ \mu\text{-strongly convex, } K\text{-smooth}",
                r"\text{for the squared loss } \gamma = 2\lambda_r(\Sigma),\ \mu = \lambda_r(\Sigma),"
                r"\ K = \lambda_1(\Sigma)",
            ),
            imbalance_and_product,
            convexity_margin,
        ),
    )
}
"""The theorems, by the name that :meth:`TwoLayerRegression.bound` takes."""
