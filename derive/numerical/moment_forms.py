"""Forms of Gaussian moments: closed where there is one, else a sum over the nodes of a rule over one or two fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy

from ..errors import NoClosedForm
from ..gaussian.closed_forms import Entries, closed_form
from .conditioned import Signature, conditioned_form, is_reducible
from .quadrature import KINKS

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True, slots=True)
class MomentForm:
    """A moment as an expression in the covariances (and means) of its fields.

    Attributes
    ----------
    form : Expr
    entries : dict
        The symbol of each covariance by (a, b), a ≤ b, and of each mean by (a,).
    exact : bool
        Whether the form is closed.
    rule : str
        How it is computed if it is not, with its size of error; else empty.
    outer : int
        Over how many fields it is integrated numerically.
    """

    form: sympy.Expr
    entries: Entries
    exact: bool
    rule: str
    outer: int


RULE = {1: "a rule of 100 nodes over one field", 2: "a rule of 100 x 100 nodes over two fields"}
ACCURACY = "relative error about 1e-10 if kinks lie where fields vanish"
BLURRED = "error 1e-4 to 1e-3 because of kinks, 1e-3 to 1e-2 of jumps"
"""Of functions without closed form, where the field has a mean, its own or given the other: they lie between nodes."""


def moment_form(signature: Signature, shifted: bool = False, limit: int = 2) -> MomentForm:
    """Return the form of a moment: the closed one, or else a sum over the nodes of a rule.

    Parameters
    ----------
    signature : tuple of Lambda
    shifted : bool, optional
        Whether the fields have means.
    limit : int, optional
        Over how many fields one may integrate numerically.

    Raises
    ------
    NoClosedForm
        If these would be too many.

    Examples
    --------
    >>> from effdyn.derive.activation import X
    >>> moment_form((sympy.Lambda(X, X**2),))
    MomentForm(form=C_11, entries={(0, 0): C_11}, exact=True, rule='', outer=0)
    >>> moment_form((sympy.Lambda(X, sympy.tanh(X)), sympy.Lambda(X, sympy.sign(X)))).outer
    1
    """
    try:
        form, entries = closed_form(signature, shifted)
    except NoClosedForm:
        form, entries, outer = conditioned_form(signature, shifted, limit)
        rule = RULE.get(outer, f"a rule of 100**{outer} nodes over {outer} fields")
        blurred = (shifted or outer > 1) and any(f.expr.has(*KINKS) and not is_reducible(f) for f in signature)
        accuracy = BLURRED if blurred else ACCURACY
        return MomentForm(form, entries, exact=False, rule=f"{rule}, {accuracy}", outer=outer)
    return MomentForm(form, entries, exact=True, rule="", outer=0)


def moment_value(
    form: MomentForm, C: "numpy.ndarray", m: "numpy.ndarray | Sequence[float]" = (), level: int = 0
) -> float:
    """Return the number that a form gives for fields with covariance C and means m.

    Parameters
    ----------
    form : MomentForm
    C : array, shape (n, n)
    m : array, shape (n,), optional
        Needed if the form is one of fields with means.
    level : int, optional
        Of the rule over one field: 0, 1 (twice as many nodes) or −1 (half as many).

    Examples
    --------
    >>> import numpy as np
    >>> from effdyn.derive.activation import X
    >>> form = moment_form((sympy.Lambda(X, sympy.tanh(X)), sympy.Lambda(X, sympy.sign(X))))
    >>> round(moment_value(form, np.array([[1.0, 1.0], [1.0, 1.0]])), 9)  # E|tanh(h)|
    0.555979316
    """
    import numpy as np

    from .quadrature import NODE_LINE, WEIGHT_LINE
    from .rules import line_rule
    from .vectorised import modules_for

    body, axes, arrays = form.form, [], []
    while isinstance(body, sympy.Sum) or body.has(sympy.Sum):
        inner = next(iter(body.atoms(sympy.Sum) if not isinstance(body, sympy.Sum) else [body]))
        axes.append(inner.limits[0][0])
        body = body.xreplace({inner: inner.function})
    slots = {}
    for n, s in enumerate(axes):
        for base, numbers in zip((NODE_LINE.base, WEIGHT_LINE.base), line_rule(level), strict=True):
            slots[base[s]] = sympy.Dummy(real=True)
            arrays.append(numbers.reshape([-1 if n == k else 1 for k in range(len(axes))]))
    values = [float(C[k]) if len(k) == 2 else float(m[k[0]]) for k in form.entries]
    function = sympy.lambdify(
        [*slots.values(), *form.entries.values()],
        body.xreplace(slots),
        modules=modules_for(body),
        cse=True,
        use_imps=False,
    )
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return float(np.sum(function(*arrays, *values)))
