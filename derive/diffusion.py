"""How noise enters a stochastic differential equation: amplitudes of Brownian motions, or covariances of increments.

Stochastic integrals are Itô's: amplitudes are taken at the beginning of each increment. Knows nothing of how paths are
computed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy

from .dynamics import Quantity
from .errors import Described, ModelError, nearest

if TYPE_CHECKING:
    from .dynamics import Dynamics


@dataclass(frozen=True, slots=True)
class Amplitude:
    """A term ``Σ expr dW`` of a state's increment ``dX = drift dt + …``.

    Attributes
    ----------
    state : Quantity
        Whose increment it is in, with the indices of its own equation.
    noise : Quantity
        Independent standard Brownian motions, shared by all amplitudes that name them. The sum runs over its indices;
        one that it shares with the state is not summed: x[i] with W[i] has a noise of its own for each i.
    expr : Expr
        The amplitude, in the indices of both.

    Examples
    --------
    >>> i = sympy.Symbol("i", integer=True)
    >>> N = sympy.Symbol("N", integer=True, positive=True)
    >>> x, W = Quantity("x", (i,), (N,)), Quantity("W", (i,), (N,))
    >>> print(Amplitude(x, W, x.symbol / 2))
    dx[i] = … + dW[i]*x[i]/2
    """

    state: Quantity
    noise: Quantity
    expr: sympy.Expr

    @property
    def column(self) -> Quantity:
        """What the columns of the diffusion are numbered by."""
        return self.noise

    @property
    def term(self) -> sympy.Expr:
        """The amplitude times the increment of its Brownian motion, summed."""
        own = [(i, n) for i, n in zip(self.noise.indices, self.noise.shape, strict=True) if i not in self.state.indices]
        product = self.expr * increment(self.noise)
        return sympy.Sum(product, *((i, 1, n) for i, n in own)) if own else product

    def __str__(self) -> str:
        return f"d{self.state} = … + {self.term}"


@dataclass(frozen=True, slots=True)
class Covariation:
    """The covariance of two states' increments for each unit of time, ``d⟨X, Y⟩/dt``: noise without naming its source.

    Attributes
    ----------
    state, other : Quantity
        The two states; the indices of the first are those of its own equation, the second has indices of its own.
        Each pair is stated once, in either order; pairs that are not stated have independent increments.
    expr : Expr
        The covariance, in the indices of both. As a matrix over all entries of all states it is positive semidefinite.

    Examples
    --------
    >>> i, k = sympy.symbols("i k", integer=True)
    >>> N = sympy.Symbol("N", integer=True, positive=True)
    >>> x, other = Quantity("x", (i,), (N,)), Quantity("x", (k,), (N,))
    >>> print(Covariation(x, other, x.symbol * other.symbol))
    d⟨x[i], x[k]⟩/dt = x[i]*x[k]
    """

    state: Quantity
    other: Quantity
    expr: sympy.Expr

    @property
    def column(self) -> Quantity:
        """What the columns of the covariance are numbered by."""
        return self.other

    def __str__(self) -> str:
        return f"d⟨{self.state}, {self.other}⟩/dt = {self.expr}"


Diffusion = tuple[Amplitude | Covariation, ...]
"""All of the noise, in one of the two forms."""


def increment(noise: Quantity) -> sympy.Expr:
    """Return dW, at the indices of the Brownian motions."""
    name = f"d{noise.name}"
    return sympy.IndexedBase(name, real=True)[noise.indices] if noise.indices else sympy.Symbol(name, real=True)


def noises(dyn: "Dynamics") -> tuple[Quantity, ...]:
    """Return the Brownian motions of a Dynamics, each once, in order of appearance."""
    found = {e.noise.name: e.noise for e in dyn.diffusion if isinstance(e, Amplitude)}
    return tuple(found.values())


def check_diffusion(dyn: "Dynamics") -> None:
    """Raise a ModelError unless the diffusion of a Dynamics is one that its states can have."""
    if dyn.diffusion and dyn.kind != "sde":
        raise ModelError("diffusion", Described(f"noise in equations of kind {dyn.kind!r}"), "noise with kind='sde'")
    if len({type(entry) for entry in dyn.diffusion}) > 1:
        raise ModelError(
            "diffusion", Described("Amplitudes and Covariations together"), "either form, for all of the noise"
        )
    states = {q.name: q for q in dyn.states}
    pairs: set[frozenset[str]] = set()
    for entry in dyn.diffusion:
        _check_state(entry.state, states)
        if isinstance(entry, Amplitude):
            _check_noise(entry.noise, dyn)
            continue
        _check_state(entry.other, states, entry.state)
        pair = frozenset((entry.state.name, entry.other.name))
        if pair in pairs:
            raise ModelError("diffusion", Described(str(entry)), "each pair of states once")
        pairs.add(pair)


def _check_state(q: Quantity, states: dict[str, Quantity], first: Quantity | None = None) -> None:
    """Compare with the state of that name; of a covariation's second state the indices must be others."""
    known = states.get(q.name)
    if known is None:
        raise ModelError(
            "diffusion", _shown(q), f"noise of one of the states {', '.join(states)}{nearest(q.name, states)}"
        )
    if q.shape != known.shape or (first is None and q.indices != known.indices):
        raise ModelError("diffusion", _shown(q), f"{_shown(known)}, as in its equation")
    if first is not None and set(q.indices) & set(first.indices):
        raise ModelError("diffusion", _shown(q), f"a state with indices of its own beside {first}")


def _shown(q: Quantity) -> Described:
    """Return a quantity as a message shows it, with its shape if it has one."""
    return Described(f"{q} of shape ({', '.join(map(str, q.shape))})" if q.shape else str(q))


def _check_noise(noise: Quantity, dyn: "Dynamics") -> None:
    names = {q.name for q in (*dyn.states, *dyn.parameters)}
    if noise.name in names:
        raise ModelError("diffusion", _shown(noise), "Brownian motions with a name of their own")
    if unknown := [str(size) for size in noise.shape if size not in dyn.sizes]:
        accepted = f"as many Brownian motions as states and parameters tell: sizes {', '.join(map(str, dyn.sizes))}"
        raise ModelError("diffusion", Described(f"{noise} of size {', '.join(unknown)}"), accepted)
    others = (e.noise for e in dyn.diffusion if isinstance(e, Amplitude) and e.noise.name == noise.name)
    if any(other.shape != noise.shape for other in others):
        raise ModelError("diffusion", _shown(noise), f"one shape for all of {noise.name}")
