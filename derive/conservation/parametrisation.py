"""What is trained, as far as conservation laws go: the functions φ(θ) through which the loss sees its parameters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

from ..errors import Described, ModelError
from .polynomials import Field, Polynomial, degrees, gradient, read_polynomial, whole_numbers
from .presentation import counted


@dataclass(frozen=True, repr=False)
class Parametrisation:
    r"""A polynomial map φ(θ), trained by gradient flow on any loss of φ: :math:`\dot\theta = -J_\phi^\top\nabla\ell`.

    Attributes
    ----------
    phi : tuple of Expr
        The functions of the parameters that the loss depends on, polynomials with rational coefficients. Given as any
        sequence, or as a matrix.
    theta : tuple of Symbol
        The parameters, in the order in which laws are printed. Given as symbols, or as one matrix or sequence a layer.
    layers : tuple of tuple of Symbol
        The parameters that share a learning rate; if not given, the matrices and sequences in ``theta``.
    title : str
        What it is, for printing.

    Raises
    ------
    ModelError
        If φ is not polynomial in θ with rational coefficients, or a parameter is not a symbol, or occurs twice.

    Examples
    --------
    >>> a, w = sympy.symbols("a w", real=True)
    >>> print(Parametrisation(phi=[a * w], theta=[a, w], title="a neuron with one input"))
    a neuron with one input: 1 function of 2 parameters
    """

    phi: Sequence[Any]
    theta: Sequence[Any]
    layers: Sequence[Sequence[Any]] = ()
    title: str = ""

    def __post_init__(self) -> None:
        parts = _listed(self.theta, "theta")
        groups = tuple(_entries(part, "theta") for part in parts)
        theta = tuple(symbol for group in groups for symbol in group)
        one_by_one = all(isinstance(part, sympy.Expr) and not part.is_Matrix for part in parts)
        layers = tuple(_entries(part, "layers") for part in self.layers) or ((theta,) if one_by_one else groups)
        object.__setattr__(self, "theta", theta)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "phi", tuple(e for part in _listed(self.phi, "phi") for e in _entries(part, "phi")))
        self._check()

    def _check(self) -> None:
        if strange := [s for s in self.theta if not s.is_symbol]:
            raise ModelError("theta", strange[0], "symbols, such as sympy.symbols('u v', real=True)")
        if not self.theta or len(set(self.theta)) < len(self.theta):
            raise ModelError("theta", list(self.theta), "each parameter once, and at least one")
        inside = [symbol for layer in self.layers for symbol in layer]
        if sorted(map(str, inside)) != sorted(map(str, self.theta)):
            raise ModelError("layers", Described(self.layers), "each parameter of theta in exactly one layer")
        if not self.gradients:
            raise ModelError(
                "phi", Described(self.phi), f"functions of the parameters {', '.join(map(str, self.theta))}"
            )

    @cached_property
    def polynomials(self) -> tuple[Polynomial, ...]:
        """Whole multiples of the functions that are not constant, as sparse polynomials."""
        read = (whole_numbers(read_polynomial(expr, self.theta, "phi")) for expr in self.phi)
        return tuple(p for p in read if degrees(p) - {0})

    @cached_property
    def gradients(self) -> tuple[Field, ...]:
        """The gradients of :attr:`polynomials`: the directions in which training can move."""
        return tuple(map(gradient, self.polynomials))

    @property
    def homogeneous(self) -> bool:
        """Whether each function has terms of one degree only (a constant aside); its laws then have so too."""
        return all(len(degrees(p) - {0}) == 1 for p in self.polynomials)

    @cached_property
    def layer_of(self) -> tuple[int, ...]:
        """The number of the layer of each parameter."""
        number = {symbol: n for n, layer in enumerate(self.layers) for symbol in layer}
        return tuple(number[symbol] for symbol in self.theta)

    def __repr__(self) -> str:
        parts = (f"{name}={_evaluable(getattr(self, name))}" for name in ("phi", "theta", "layers"))
        return f"Parametrisation({', '.join(parts)}, title={self.title!r})"

    def __str__(self) -> str:
        functions, parameters = counted(len(self.phi), "function"), counted(len(self.theta), "parameter")
        return f"{self.title or 'φ(θ)'}: {functions} of {parameters}"


def _listed(given: Any, argument: str) -> list[Any]:
    if isinstance(given, sympy.MatrixExpr):
        given = given.as_explicit()
    if isinstance(given, sympy.MatrixBase):
        return given.flat()
    if isinstance(given, (sympy.Expr, int, float)):
        return [given]
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ModelError(argument, given, "a sequence of SymPy expressions, or a matrix of them")
    return list(given)


def _entries(part: Any, argument: str) -> tuple[sympy.Expr, ...]:
    entries = [sympy.sympify(e) for e in _listed(part, argument)]
    if strange := [e for e in entries if not isinstance(e, sympy.Expr)]:
        raise ModelError(argument, strange[0], "SymPy expressions")
    return tuple(entries)


def _evaluable(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_evaluable, value))}{',' if len(value) == 1 else ''})"
    return sympy.srepr(value)
