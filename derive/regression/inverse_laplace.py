"""The inverse Laplace transform as a node of expressions: what it is of, and at which time; how it is computed is not
known here."""

from typing import Any

import sympy


class InverseLaplace(sympy.Expr):
    r"""The function of time whose Laplace transform is ``transform``: (1/2πi) ∫ e^{zt} transform(z) dz.

    Parameters
    ----------
    transform : sympy.Expr
        A function of ``z``, analytic right of some vertical line.
    z : sympy.Symbol
    t : sympy.Expr
        The time.

    Examples
    --------
    >>> z, t, a = sympy.symbols("z t a")
    >>> InverseLaplace(1 / (z + a), z, t)
    InverseLaplace(1/(a + z), z, t)
    >>> InverseLaplace(1 / (z + a), z, t).free_symbols == {a, t}
    True
    """

    is_commutative = True

    def __new__(cls, transform: Any, z: sympy.Symbol, t: Any) -> "InverseLaplace":
        made: InverseLaplace = super().__new__(cls, sympy.sympify(transform), z, sympy.sympify(t))
        return made

    @property
    def free_symbols(self) -> set[sympy.Basic]:
        """All symbols but z, over which is integrated."""
        transform, z, t = self.args
        return (transform.free_symbols - {z}) | t.free_symbols

    @property
    def bound_symbols(self) -> list[sympy.Basic]:
        """z."""
        return [self.args[1]]

    def _eval_subs(self, old: sympy.Basic, new: sympy.Basic) -> "InverseLaplace | None":
        return self if old == self.args[1] else None  # None: as usual

    def _latex(self, printer: Any) -> str:
        transform, z, t = map(printer._print, self.args)
        return rf"\mathcal{{L}}^{{-1}}_{{{z} \to {t}}}\left[{transform}\right]"

    def _plain(self, printer: Any) -> str:
        transform, z, t = map(printer._print, self.args)
        return f"L^-1_{{{z}->{t}}}[{transform}]"
