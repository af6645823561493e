"""What is returned: a verified closed form, or the reason why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sympy

from .flow import Condition, Solved
from .standard import Standard
from .verify import Verification

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class NotFound:
    """No closed form, and why. It is false, so that ``if form := find_closed_form(...)`` reads well.

    Attributes
    ----------
    reason : str
        What stood in the way.
    state : Expr or None
        Whose equation it was.
    tried : tuple of (str, str)
        Each detector, and what it missed.
    """

    reason: str
    state: sympy.Expr | None = None
    tried: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "\n".join([f"no closed form: {self.reason}", *(f"  {name}: {why}" for name, why in self.tried)])


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """The solution of closed equations of motion, verified.

    Attributes
    ----------
    solutions : tuple of (Expr, Expr)
        States, and what they are as functions of t, initial values and parameters.
    implicits : tuple of (Expr, Expr)
        States for which only the time is known: Phi, a function of the state, with ``t = Phi(s) - Phi(s_0)``.
    conditions : tuple of Condition
        Where it holds.
    methods : tuple of str
        By which detector each state was found.
    verified : tuple of Verification
        What was checked for each state.
    time : Symbol
    """

    solutions: tuple[tuple[sympy.Expr, sympy.Expr], ...]
    implicits: tuple[tuple[sympy.Expr, sympy.Expr], ...]
    conditions: tuple[Condition, ...]
    methods: tuple[str, ...]
    verified: tuple[Verification, ...]
    time: sympy.Symbol
    solved: tuple[Solved, ...] = field(repr=False, compare=False)
    standard: Standard = field(repr=False, compare=False)

    @property
    def solution(self) -> dict[sympy.Expr, sympy.Expr]:
        """The explicit solutions by state."""
        return dict(self.solutions)

    @property
    def implicit(self) -> dict[sympy.Expr, sympy.Eq]:
        """For the other states, the equation between state and time."""
        restored = self.standard.restored
        starts = {restored(p.flow.state): restored(p.flow.start) for p in self.solved}
        return {s: sympy.Eq(self.time, phi - phi.xreplace({s: starts[s]}), evaluate=False) for s, phi in self.implicits}

    @property
    def method(self) -> str:
        """The detectors, in order."""
        return "; ".join(self.methods)

    def __call__(
        self, t: Any, y0: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None
    ) -> "dict[str, np.ndarray]":
        """Return every state at given times.

        Parameters
        ----------
        t : array_like
            Times from 0 on, of any shape, in the equations' clock.
        y0 : mapping
            Initial values by the names of states. ``s[alpha]`` takes an array ``s`` with one axis; plain symbols take
            numbers, or arrays that broadcast.
        params : mapping
            Parameters by name, likewise.

        Returns
        -------
        dict of ndarray
            By the names of states; the shape of ``t``, then the axes of modes.

        Raises
        ------
        ModelError
            If a condition is violated (it says which, and what to do instead), or for a bad argument.
        ArithmeticError
            If a value is not a finite number all the same.

        Examples
        --------
        >>> from effdyn.derive.closed_flows import find_closed_form
        >>> s, c, t = sympy.symbols("s c t", real=True)
        >>> form = find_closed_form({s: 2 * s * (c - s)}, t)
        >>> print(form([0, 1], y0=dict(s=[0.1, 0.2]), params=dict(c=1))["s"].round(6))
        [[0.1      0.2     ]
         [0.450853 0.648786]]
        """
        from .evaluate import evaluate

        return evaluate(self.solved, self.standard, t, y0 or {}, params or {})

    def latex(self, names: Mapping[str, str] | None = None) -> str:
        """Return the solutions and their conditions as LaTeX (amsmath); ``names`` says how names print that do not
        print as themselves."""
        from .printing import closed_form_latex

        return closed_form_latex(self, names)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def __str__(self) -> str:
        from .printing import closed_form_text

        return closed_form_text(self)
