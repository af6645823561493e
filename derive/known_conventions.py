"""The conventions of papers, by name: an ordered table of plain data, to which a new one is an entry.

What each was checked against stands in its ``checked``; the tests compare the equations that follow with published
ones.
"""

from typing import Any

from .convention import Convention
from .errors import ModelError, nearest

_SOFT = (("Q", "Q"), ("R", "R"), ("T", "T"), ("eta", "eta"), ("sigma", "sigma"), ("eg", "eg"), ("loss", "loss"))
_STUDENTS = (("i", "j"), ("k", "l"), ("j", "m"), ("l", "o"), ("n", "r"), ("m", "s"))
_EPFL = (
    *(("Q", "Q"), ("R", "M"), ("T", "P"), ("sigma", "Delta"), ("eg", "risk"), ("loss", "loss")),
    *(("K", "p"), ("M", "k")),
)
_EPFL_LETTERS = (
    *(("Delta", r"\Delta"), ("risk", r"\mathcal{R}"), ("loss", r"\langle\ell\rangle")),
    *(("h", r"\lambda"), ("h_star", r"\lambda^{\star}")),
)

_EPFL_SCALES: dict[str, Any] = {
    **{"output_scale": "1/p", "teacher_scale": "1/k", "noise": "sqrt(Delta)"},
    "indices": _STUDENTS,
}
_TRAINED = (("a", "v"), ("b", "v_star"), ("eta_a", "eta_v"))
"""Second layers."""
_TRAINED_LETTERS = (("eta_v", r"\eta_v"), ("v_star", r"v^{\star}"))
_SOFT_LETTERS = (("eta", r"\eta"), ("sigma", r"\sigma"), ("eg", r"\epsilon_g"))
_XY_LETTERS = (*_SOFT_LETTERS, ("loss", r"\langle\epsilon\rangle"), ("h", "x"), ("h_star", "y"))
_KAPPA = ("kappa", r"\kappa")

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            name="saad-solla-1995",
            title="Saad & Solla 1995",
            source="D. Saad, S. A. Solla, Phys. Rev. E 52, 4225 (1995)",
            names=(*_SOFT, ("d", "N"), ("kappa", "kappa")),
            normalisation="1",
            learning_rate="eta/N",
            decay="kappa/N",
            clock="steps/N",
            letters=(*_XY_LETTERS, _KAPPA),
            checked="its equations, which follow; not its printed pages. The decay's letter is not from it",
        ),
        Convention(
            name="goldt-2019",
            title="Goldt et al. 2019",
            source="S. Goldt, M. Advani, A. Saxe, F. Krzakala, L. Zdeborová, NeurIPS 2019, arXiv:1906.08632",
            names=(*_SOFT, *_TRAINED, ("kappa", "kappa"), ("d", "N")),
            normalisation="sqrt(N)",
            second_learning_rate="eta_v/N",
            decay="kappa/N",
            clock="steps/N",
            letters=(
                *(*_SOFT_LETTERS, *_TRAINED_LETTERS, _KAPPA),
                *(("loss", r"\langle\ell\rangle"), ("h", r"\lambda"), ("h_star", r"\rho")),
            ),
            checked="the authors' code (github.com/sgoldt/nn2pp), whose two learning rates are lr and lr2",
        ),
        Convention(
            name="arnaboldi-2023",
            title="Arnaboldi et al. 2023",
            source="L. Arnaboldi, L. Stephan, F. Krzakala, B. Loureiro, COLT 2023, arXiv:2302.05882",
            names=(*_EPFL, ("eta", "gamma")),
            learning_rate="gamma",
            clock="gamma*steps/(p*d)",
            **_EPFL_SCALES,
            letters=(*_EPFL_LETTERS, ("gamma", r"\gamma")),
            checked="the authors' code (github.com/IdePHICS/DimensionlessDynamicsSGD); second layers are 1 in it",
        ),
        Convention(
            name="veiga-2022",
            title="Veiga et al. 2022",
            source="R. Veiga, L. Stephan, B. Loureiro, F. Krzakala, L. Zdeborová, NeurIPS 2022, arXiv:2202.00293",
            names=(*_EPFL, ("eta", "gamma_0")),
            learning_rate="gamma_0/d**delta",
            clock="p_0*steps/(p*d**(1 + delta))",  # steps/d^(1+κ+δ), where p = p_0 d^κ
            **_EPFL_SCALES,
            letters=(*_EPFL_LETTERS, ("gamma_0", r"\gamma_0"), ("delta", r"\delta"), ("p_0", "p_0")),
            checked="the authors' code (github.com/rodsveiga/phdiag_sgd), its clock for κ + δ ≥ 0",
        ),
        Convention(
            name="biehl-schwarze-1995",
            title="Biehl & Schwarze 1995",
            source="M. Biehl, H. Schwarze, J. Phys. A 28, 643 (1995); P. Riegler, M. Biehl, J. Phys. A 28, L507 (1995)",
            names=(*_SOFT, *_TRAINED, ("d", "N")),
            normalisation="1",
            learning_rate="eta/N",
            second_learning_rate="eta_v/N",
            clock="steps/N",
            letters=(*_XY_LETTERS, *_TRAINED_LETTERS),
            checked="its equations for K = M = 1, which follow; not its printed pages. Second layers' letters are ours",
        ),
    )
}
"""The conventions known, by name."""


def convention(given: "str | Convention") -> Convention:
    """Return the convention of that name.

    Raises
    ------
    ModelError
        If there is none.

    Examples
    --------
    >>> convention("goldt-2019").named("a")
    'v'
    """
    if isinstance(given, Convention):
        return given
    if given not in CONVENTIONS:
        accepted = f"one of {', '.join(map(repr, CONVENTIONS))}, or a Convention{nearest(str(given), CONVENTIONS)}"
        raise ModelError("convention", given, accepted)
    return CONVENTIONS[given]
