"""What becomes of conservation laws when training is not plain gradient flow: the table of answers.

Each line is computed from the parametrisation and its laws (:mod:`.modified_flows`, :mod:`.modified_steps`,
:mod:`.momentum`); none is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy
from sympy.core.function import AppliedUndef

from .modification import Modification, T
from .modified_flows import any_loss, layer_rates, weight_decay
from .modified_steps import finite_step, sgd_noise
from .momentum import heavy_ball

if TYPE_CHECKING:
    from .laws import ConservationLaws

MODIFICATIONS = (any_loss, weight_decay, layer_rates, finite_step, sgd_noise, heavy_ball)
"""Functions from laws to a :class:`Modification`. A new one is an entry here."""


@dataclass(frozen=True, slots=True)
class Survival:
    """What becomes of the laws of a parametrisation.

    Attributes
    ----------
    title : str
        Whose laws.
    rows : tuple of Modification
        One for each way of training.

    Examples
    --------
    >>> from effdyn.derive.conservation.laws import conservation_laws
    >>> from effdyn.derive.conservation.networks import linear_network_parametrisation
    >>> table = conservation_laws(linear_network_parametrisation((2, 2, 1))).survival()
    >>> table["weight decay"].equations
    (Eq(Derivative(h(t), t), -2*mu*h(t)),)
    >>> table["layer rates"].laws[0]
    -W2[1, 1]**2/eta_2 + W1[1, 1]**2/eta_1 + W1[1, 2]**2/eta_1
    """

    title: str
    rows: tuple[Modification, ...]

    def __getitem__(self, name: str) -> Modification:
        """Return the row of one way of training."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}")

    def latex(self) -> str:
        """Return a ``tabular`` of the training and its equations."""
        cells = [
            rf"{row.name} & {', '.join(f'${sympy.latex(e)}$' for e in row.equations)} & {row.kept} of {row.total} \\"
            for row in self.rows
        ]
        return "\n".join([r"\begin{tabular}{lll}", r"training & law & holds for \\ \hline", *cells, r"\end{tabular}"])

    def _repr_html_(self) -> str:
        cells = [
            f"<tr><td>{row.name}</td><td>{row.flow}</td><td>{'; '.join(map(_plain, row.equations))}</td>"
            f"<td>{row.kept} of {row.total}</td><td>{row.text}</td></tr>"
            for row in self.rows
        ]
        heads = "".join(f"<th>{name}</th>" for name in ("training", "dynamics", "law", "holds for", ""))
        return f"<table><tr>{heads}</tr>{''.join(cells)}</table>"

    def __str__(self) -> str:
        lines = [f"laws of {self.title}"]
        for row in self.rows:
            lines.append(f"  {row.name}: {row.flow}")
            lines += [f"      {_plain(equation)}" for equation in row.equations]
            lines.append(f"      {row.kept} of {row.total}: {row.text}")
        return "\n".join(lines)


def _plain(equation: sympy.Eq) -> str:
    """Return an equation as text: h' = -2*mu*h."""
    swap: dict[sympy.Expr, sympy.Expr] = {}
    for slope in equation.atoms(sympy.Derivative):
        known = slope.expr.args == (T,)
        swap[slope] = sympy.Symbol(
            f"{slope.expr.func}{chr(39) * slope.derivative_count}" if known else f"d/dt {slope.expr}"
        )
    text = equation.xreplace(swap)
    text = text.xreplace({f: sympy.Symbol(str(f.func)) for f in text.atoms(AppliedUndef) if f.args == (T,)})
    return f"{text.lhs} = {text.rhs}"


def survival(laws: ConservationLaws) -> Survival:
    """Return what becomes of conservation laws under each of :data:`MODIFICATIONS`."""
    return Survival(str(laws.parametrisation), tuple(modify(laws) for modify in MODIFICATIONS))
