"""Data laws of ``engine="network"``: what the inputs are drawn from. They belong to simulations, and enter no equation.

The theory is for standard normal inputs. By universality other laws with independent entries of mean 0 and variance 1
give the same as d → ∞, while every weight vector is spread over many inputs; these laws are for seeing that, and where
it fails. None of them is rescaled to agree better: an array or a function of yours is taken as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Protocol

import numpy as np

from effdyn.derive.errors import Described, ModelError, nearest

Sampler = Callable[[np.random.Generator, int], np.ndarray]
"""Given a stream and a number n, n examples as rows, (n, d)."""


class DataLaw(Protocol):
    """A law of inputs in any dimension; ``str`` names it in results."""

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        """Return what draws examples for one replica; what it fixes for good is drawn from ``disorder``."""
        ...


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Independent standard normal entries."""

    def __str__(self) -> str:
        return "gaussian"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        return lambda rng, n: rng.standard_normal((n, d))


@dataclass(frozen=True, slots=True)
class Rademacher:
    """Independent entries, 1 or −1."""

    def __str__(self) -> str:
        return "rademacher"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        def signs(rng: np.random.Generator, n: int) -> np.ndarray:
            bits = np.unpackbits(np.frombuffer(rng.bytes(-(-n * d // 8)), dtype=np.uint8), count=n * d)
            return (2.0 * bits - 1.0).reshape(n, d)

        return signs


@dataclass(frozen=True, slots=True)
class Uniform:
    """Independent entries, uniform on [−√3, √3]."""

    def __str__(self) -> str:
        return "uniform"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        edge = np.sqrt(3.0)
        return lambda rng, n: rng.uniform(-edge, edge, (n, d))


@dataclass(frozen=True, slots=True)
class StudentT:
    """Student's t, scaled to unit variance.

    Parameters
    ----------
    df : float
        Degrees of freedom, above 2. Up to 4 the fourth moment is infinite, and |x|²/d settles slower than 1/√d.
    shared : bool
        One scale for all entries of an example (the multivariate t), instead of independent entries: then fields are
        not normal at any d.

    Examples
    --------
    >>> draw = StudentT(5).sampler(1000, np.random.default_rng(0))
    >>> x = draw(np.random.default_rng(1), 200)
    >>> x.shape, bool(abs(x.var() - 1) < 0.03)
    ((200, 1000), True)
    """

    df: float
    shared: bool = False

    def __post_init__(self) -> None:
        if not 2 < self.df < np.inf:
            raise ModelError("df", self.df, "degrees of freedom above 2: below, there is no variance")

    def __str__(self) -> str:
        return f"student-t(df={self.df:g}{', shared' if self.shared else ''})"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        unit = np.sqrt((self.df - 2) / self.df)
        if not self.shared:
            return lambda rng, n: unit * rng.standard_t(self.df, (n, d))

        def elliptical(rng: np.random.Generator, n: int) -> np.ndarray:
            scale = np.sqrt((self.df - 2) / rng.chisquare(self.df, (n, 1)))
            return np.asarray(scale * rng.standard_normal((n, d)))

        return elliptical


@dataclass(frozen=True, slots=True)
class HiddenManifold:
    """x = f(F z/√D') with z ~ N(0, I_D'): inputs on a manifold of few dimensions, as in Goldt et al. (2020).

    F (d, D') has independent standard normal entries and rows scaled to length √D'; every replica has its own. f is
    taken minus its mean and over its standard deviation under N(0, 1), so that entries have variance 1; they are not
    independent. The teacher sees x, not z.

    Parameters
    ----------
    f : callable
        From arrays to arrays, such as ``numpy.sign`` or ``numpy.tanh``.
    ratio : float
        D'/d; D' is rounded to a whole number, at least 1.

    References
    ----------
    Goldt, Mézard, Krzakala & Zdeborová, "Modeling the influence of data structure on learning in neural networks: the
    hidden manifold model", Physical Review X 10, 041044 (2020).

    Examples
    --------
    >>> draw = HiddenManifold(np.sign, ratio=0.1).sampler(50, np.random.default_rng(0))
    >>> x = draw(np.random.default_rng(1), 4)
    >>> x.shape, set(np.unique(x).tolist()) == {-1.0, 1.0}
    ((4, 50), True)
    """

    f: Callable[[Any], Any]
    ratio: float
    _mean: float = field(init=False, repr=False)
    _sd: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.ratio < np.inf:
            raise ModelError("ratio", self.ratio, "a positive number, D'/d")
        mean = _normal_mean(self.f)
        variance = _normal_mean(lambda u: (self.f(u) - mean) ** 2)
        if not (np.isfinite(mean) and 0 < variance < np.inf):
            raise ModelError("f", self.f, "a function with a finite variance, not 0, under N(0, 1)")
        object.__setattr__(self, "_mean", mean)
        object.__setattr__(self, "_sd", float(np.sqrt(variance)))

    def __str__(self) -> str:
        return f"hidden-manifold(f={getattr(self.f, '__name__', repr(self.f))}, ratio={self.ratio:g})"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        latent = max(1, round(self.ratio * d))
        features = disorder.standard_normal((latent, d))
        features /= np.linalg.norm(features, axis=0)
        return lambda rng, n: (self.f(rng.standard_normal((n, latent)) @ features) - self._mean) / self._sd


def _normal_mean(f: Callable[[Any], Any]) -> float:
    """Return E f(u), u ~ N(0, 1); kinks and jumps are allowed at 0."""
    from scipy.integrate import quad

    def weighted(u: float) -> float:
        return float(f(u)) * np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)

    return float(quad(weighted, -12, 0, limit=200)[0] + quad(weighted, 0, 12, limit=200)[0])


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of an array (n, d), drawn with replacement: every step takes any of them with equal probability."""

    examples: np.ndarray

    def __str__(self) -> str:
        digest = hashlib.sha256(self.examples.tobytes()).hexdigest()[:16]
        return f"array of {len(self.examples)} examples, with replacement, sha256 {digest}"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        if self.examples.shape[1] != d:
            raise ModelError("d", d, f"{self.examples.shape[1]}, the length of the rows of inputs")
        return lambda rng, n: self.examples[rng.integers(len(self.examples), size=n)]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a function (rng, n, d) returns: n examples as rows."""

    function: Callable[[np.random.Generator, int, int], Any]

    def __str__(self) -> str:
        return f"function {getattr(self.function, '__qualname__', repr(self.function))}"

    def sampler(self, d: int, disorder: np.random.Generator) -> Sampler:
        def checked(rng: np.random.Generator, n: int) -> np.ndarray:
            x = np.asarray(self.function(rng, n, d))
            if x.shape != (n, d) or x.dtype.kind not in "fiub" or not np.isfinite(x).all():
                given = Described(f"a function that returned shape {x.shape}, {x.dtype}")
                raise ModelError("inputs", given, f"finite real numbers of shape (n, d) = {(n, d)}")
            return x.astype(float, copy=False)

        return checked


LAWS: dict[str, Callable[..., DataLaw]] = {
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "uniform": Uniform,
    "student-t": StudentT,
    "hidden-manifold": HiddenManifold,
}
"""By name. Those with parameters are given as values, such as ``StudentT(5)``."""


def read_law(inputs: Any) -> DataLaw:
    """Return the data law that is meant: a name, a law, an array of examples, or a function (rng, n, d).

    Raises
    ------
    ModelError

    Examples
    --------
    >>> str(read_law("uniform")), str(read_law(StudentT(3)))
    ('uniform', 'student-t(df=3)')
    """
    if isinstance(inputs, str):
        if inputs not in LAWS:
            raise ModelError("inputs", inputs, f"{_accepted()}{nearest(inputs, LAWS)}")
        Law = LAWS[inputs]
        if parameters := list(signature(Law).parameters):
            raise ModelError("inputs", inputs, f"the law with its parameters: {Law.__name__}({', '.join(parameters)})")
        return Law()
    if hasattr(inputs, "sampler") and not isinstance(inputs, type):
        law: DataLaw = inputs
        return law
    if callable(inputs):
        return Drawn(inputs)
    examples = np.asarray(inputs)
    if examples.ndim != 2 or not examples.size or examples.dtype.kind not in "fiub":
        raise ModelError("inputs", inputs, _accepted())
    examples = np.array(examples, dtype=float)
    if not np.isfinite(examples).all():
        raise ModelError("inputs", Described("an array with entries that are not finite"), _accepted())
    return Rows(examples)


def _accepted() -> str:
    names = ", ".join(repr(name) for name, Law in LAWS.items() if not signature(Law).parameters)
    return f"one of {names}; a law of effdyn.validate.data_laws; an array (examples, d); or a function (rng, n, d)"


class Examples:
    """The examples of one replica, drawn a fixed number at a time, so that none depends on how they are asked for."""

    def __init__(self, sampler: Sampler, rng: np.random.Generator, chunk: int) -> None:
        self._sampler, self._rng, self._chunk = sampler, rng, chunk
        self._rows, self._next = np.empty((0, 0)), 0
        self._before = rng.bit_generator.state

    def take(self, n: int) -> np.ndarray:
        """Return the next n examples, n at most the size of a chunk."""
        left = self._rows[self._next :]
        if len(left) >= n:
            self._next += n
            return left[:n]
        self._draw()
        self._next = n - len(left)
        return np.concatenate([left, self._rows[: self._next]]) if len(left) else self._rows[:n]

    def kept(self) -> dict[str, Any]:
        """Return where the examples are: the stream before the chunk in use, and the chunk's checksum."""
        return {"stream": dict(self._before), "next": self._next, "checksum": self._checksum()}

    def go_on(self, kept: dict[str, Any]) -> None:
        """Draw the chunk in use again.

        Raises
        ------
        ModelError
            If it is another one, as from a function that remembers what it has returned.
        """
        self._rng.bit_generator.state = kept["stream"]
        if kept["checksum"]:
            self._draw()
        self._next = kept["next"]
        if self._checksum() != kept["checksum"]:
            given = Described("a function that returned other examples for the same rng than before it was stopped")
            raise ModelError("inputs", given, "one that depends on its arguments only, where a replica is to go on")

    def _draw(self) -> None:
        self._before = self._rng.bit_generator.state
        self._rows = np.ascontiguousarray(self._sampler(self._rng, self._chunk))

    def _checksum(self) -> str:
        return hashlib.sha256(self._rows.tobytes()).hexdigest() if self._rows.size else ""
