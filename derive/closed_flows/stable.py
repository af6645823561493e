"""Solutions in floating point, written so that nothing overflows or cancels: what recipes name.

Each takes t and the arguments of its :class:`.flow.Recipe`, as arrays that broadcast.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .hypergeometric import two_powers

if TYPE_CHECKING:
    import numpy as np


def line(t: "np.ndarray", s0: "np.ndarray", a: "np.ndarray") -> "np.ndarray":
    """``s' = a``."""
    return s0 + a * t


def linear(t: "np.ndarray", s0: "np.ndarray", a: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """``s' = a + b s``."""
    import numpy as np

    return s0 * np.exp(b * t) + a * growth(b, t)


def growth(k: "np.ndarray", t: "np.ndarray") -> "np.ndarray":
    """Return ``(exp(k t) - 1)/k``, at k = 0 its limit t.

    Examples
    --------
    >>> import numpy as np
    >>> print(growth(np.array([0.0, 1e-12]), np.array(2.0)))
    [2. 2.]
    """
    import numpy as np

    nonzero = np.where(k == 0, 1.0, k)
    return np.where(k == 0, t, np.expm1(nonzero * t) / nonzero)


def bernoulli(t: "np.ndarray", s0: "np.ndarray", a: "np.ndarray", b: "np.ndarray", n: "np.ndarray") -> "np.ndarray":
    """``s' = a s + b s^n``: decaying exponentials only, whatever the sign of ``k = (n-1) a``."""
    import numpy as np

    k, beta = (n - 1) * a, (n - 1) * b * s0 ** (n - 1)
    up = (np.exp(-np.maximum(k, 0) * t) - beta * growth(-np.maximum(k, 0), t)) ** (-1 / (n - 1))
    down = np.exp(np.minimum(k, 0) * t / (n - 1)) * (1 - beta * growth(np.minimum(k, 0), t)) ** (-1 / (n - 1))
    return np.where(s0 == 0, 0.0, s0 * np.where(k > 0, up, down))  # at zero it stays, whatever has overflowed beside it


def riccati(t: "np.ndarray", s0: "np.ndarray", a: "np.ndarray", b: "np.ndarray", c: "np.ndarray") -> "np.ndarray":
    """``s' = a + b s + c s^2``, by how far s moves: exact on fixed points, stable or not.

    Where it moves to almost zero, which would cancel, by the ratio that :mod:`.riccati` prints.
    """
    import numpy as np

    speed, slope = a + s0 * (b + c * s0), b + 2 * c * s0
    D = b**2 - 4 * a * c
    _, below, S = _hyperbolic(t, slope, D, -4 * c * speed)
    moved = np.where(speed == 0, s0, s0 + 2 * speed * S / below)
    plus, _, S = _hyperbolic(t, b, D, -4 * a * c)
    return np.where(np.abs(moved) < np.abs(s0) / 2, (s0 * plus + 2 * a * S) / below, moved)


def conic(
    t: "np.ndarray",
    s0: "np.ndarray",
    q: "np.ndarray",
    shift: "np.ndarray",
    kappa: "np.ndarray",
    l0: "np.ndarray",
    l1: "np.ndarray",
    l2: "np.ndarray",
) -> "np.ndarray":
    """``z' = sqrt(q) R (l0 + l1 z + l2 R)``, ``R = sqrt(z^2 + kappa)``, ``z = s + shift``."""
    import numpy as np

    root, z0 = np.sqrt(q), s0 + shift
    R0 = np.sqrt(z0**2 + kappa)
    larger = R0 + np.abs(z0)
    smaller = kappa / np.where(larger == 0, 1.0, larger)  # R0 - |z0|, without cancellation
    up, down = np.where(z0 >= 0, larger, smaller), np.where(z0 >= 0, smaller, larger)  # R0 + z0, R0 - z0
    product = q * kappa * (l1**2 - l2**2)
    plus, minus, g = _hyperbolic(t, root * l0, q * l0**2 + product, product)
    X = (plus + root * (l2 - l1) * down * g) / (minus - root * (l1 + l2) * up * g)
    return (up * X - down / X) / 2 - shift


def _hyperbolic(
    t: "np.ndarray", b: "np.ndarray", D: "np.ndarray", product: "np.ndarray"
) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Return ``C + b S``, ``C - b S`` and ``S``, up to a common factor, with ``C = cosh(G t/2)``, ``S = sinh(G t/2)/G``
    and ``G^2 = D = b^2 + product``; of which the second, for b > 0, would cancel, and so would the first for b < 0."""
    import numpy as np

    G, wave = np.sqrt(np.maximum(D, 0)), np.sqrt(np.maximum(-D, 0))
    decay = np.exp(-G * t)
    C = np.where(D >= 0, (1 + decay) / 2, np.cos(wave * t / 2))
    S = np.where(D >= 0, growth(-G, t) / 2, np.sin(wave * t / 2) / np.where(wave == 0, 1.0, wave))
    close = 2 * np.abs(product) < b**2  # then G is close to |b|
    size, safe = np.abs(b), np.where(close, G, 1.0)
    cancelling = (decay * (safe + size) / safe + product / (safe * (safe + size))) / 2
    tame = np.where(close, cancelling, C - size * S)
    return np.where(b < 0, tame, C + b * S), np.where(b > 0, tame, C - b * S), S


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "line": line,
    "linear": linear,
    "bernoulli": bernoulli,
    "riccati": riccati,
    "conic": conic,
    "two_powers": two_powers,
}
"""By name, which is what a recipe keeps."""
