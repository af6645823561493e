"""Rules for the expectation over standard normal variables, as arrays of nodes and weights.

Knows nothing of expressions. All rules are deterministic, so that the same equations give the same numbers.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

    Rule = tuple[numpy.ndarray, numpy.ndarray]

HALF_LINE = {-1: (25, 1e-7, 7.0), 0: (50, 1e-11, 8.0), 1: (100, 1e-16, 9.0)}
"""Nodes on each half of the line, the smallest and the largest of them, by level."""


@lru_cache(maxsize=16)
def line_rule(level: int = 0) -> "Rule":
    """Return the rule over one standard normal variable: a double-exponential one on each half of the line.

    x = ±exp(t − c e^(−t)) crowds the nodes at 0, where functions may have a kink, a jump or a layer of any width down
    to 1e-8: their scale becomes a shift in t, which the trapezoidal rule does not feel. Source: Takahasi & Mori, Publ.
    RIMS 9, 721 (1974); c = 1/5 was the best of 0.2 … 1.5 for tanh(σx), σ ≤ 30.

    Examples
    --------
    >>> nodes, weights = line_rule()
    >>> round(float(weights @ abs(nodes)), 10) == round((2 / 3.141592653589793) ** 0.5, 10)
    True
    """
    import numpy as np

    count, smallest, largest = HALF_LINE[max(-1, min(level, 1))]
    low, high = _where(smallest), _where(largest)
    step = (high - low) / count
    t = low + step * (np.arange(count) + 0.5)
    half = np.exp(t - np.exp(-t) / 5)
    weight = half * (1 + np.exp(-t) / 5) * np.exp(-(half**2) / 2)
    return _frozen(np.concatenate([-half[::-1], half]), np.concatenate([weight[::-1], weight]))


def _where(x: float) -> float:
    """Return t with exp(t − e^(−t)/5) = x, by Newton's method (the exponent is concave: it converges from the left)."""
    t = -5.0
    for _ in range(100):
        t -= (t - math.exp(-t) / 5 - math.log(x)) / (1 + math.exp(-t) / 5)
    return t


LATTICE = {1: (64, 7.5), 2: (600, 7.0), 3: (4000, 6.5), 4: (12288, 6.1), 5: (16384, 5.8)}
"""Nodes and radius of the rule over that many variables."""
SPLIT = {1: (64, 1), 2: (24, 400), 3: (24, 700), 4: (16, 1500)}
"""Nodes in the first variable and in the others of the rule that is split at x₁ = 0. Smooth functions of the others
need fewer (48, 450); the rest is for observables that jump where the output changes sign."""
ROUGH = {1: 1024, 2: 8192, 3: 12288, 4: 16384}
"""Nodes of the rule for kinks anywhere."""
SOBOL = 14
"""Binary logarithm of the number of points over many variables."""
LINES = {1: 256, 2: 900, 3: 2000, 4: 2500, 5: 4000}
"""Lines of the rule that integrates one variable in pieces between kinks, by the number of the other variables."""
PLANES = {1: 30, 2: 150, 3: 400, 4: 1000, 5: 2000}
"""Planes of the rule that integrates two variables so, by the number of the others."""
PIECE = {"lines": 6, "planes": 6}
"""Nodes of each piece."""


@lru_cache(maxsize=32)
def joint_rule(dimension: int, kind: str = "smooth", level: int = 0, shift: int = 0) -> "Rule":
    """Return the rule over several standard normal variables.

    Parameters
    ----------
    dimension : int
    kind : str
        ``"smooth"``, ``"split"`` for functions with kinks at x₁ = 0 alone, or ``"rough"`` for kinks anywhere.
    level : int
        0 for the default, 1 for about ten times as many nodes, −1 for about a fifth.
    shift : int
        Which of several rules that are equally good, but for slightly heavier truncation.
    """
    if kind == "split" and dimension in SPLIT:
        return _split_rule(dimension, level, shift)
    if dimension <= (4 if kind != "smooth" else 5):
        count, radius = LATTICE[dimension]
        count = count if kind == "smooth" else ROUGH[dimension]
        return lattice_rule(dimension, _scaled(count, level), radius + 0.6 * level - 0.2 * (shift % 3), shift)
    return _sobol_rule(dimension, SOBOL + 3 * level, shift)


@lru_cache(maxsize=32)
def bundle_rule(dimension: int, kind: str, level: int = 0, shift: int = 0) -> "Rule":
    """Return the rule over all standard normal variables but those that are integrated in pieces between kinks.

    Parameters
    ----------
    dimension : int
        How many variables are left.
    kind : str
        ``"lines"`` if one is integrated in pieces, ``"planes"`` if two are.
    level, shift : int
        As for :func:`joint_rule`, with about four times as many nodes a level.

    Examples
    --------
    >>> bundle_rule(3, "lines")[0].shape, bundle_rule(0, "planes")[1]
    ((2000, 3), array([1.]))
    """
    import numpy as np

    if dimension <= 0:
        return _frozen(np.zeros((1, max(dimension, 0))), np.ones(1))
    numbers = LINES if kind == "lines" else PLANES
    if dimension not in numbers:
        return _sobol_rule(dimension, (12 if kind == "lines" else 11) + 2 * level, shift)
    count, radius = 2 * round(numbers[dimension] * 4.0**level / 2), LATTICE[dimension][1] - 0.5
    return lattice_rule(dimension, count, radius + 0.4 * level - 0.1 * (shift % 3), shift)


@lru_cache(maxsize=8)
def piece_rule(kind: str, level: int = 0) -> "Rule":
    """Return the Gauss-Legendre rule on [−1, 1] for a piece of a line between kinks; its weights add up to 1."""
    import numpy as np

    return _frozen(*np.polynomial.legendre.leggauss(PIECE[kind] + 2 * level))


def lattice_rule(dimension: int, count: int, radius: float, shift: int = 0) -> "Rule":
    """Return the trapezoidal rule on a lattice, cut off at a radius, with nodes that thin out outwards.

    The error of the trapezoidal rule is the integrand's Fourier transform at the points of the reciprocal lattice,
    which is exponentially small for analytic functions; so the best lattice is the one whose reciprocal is the densest
    packing: the body-centred one in three dimensions, D4 in four. The ball inside a cube is a third of it in four
    dimensions, and the radial map r = sinh(0.9 ρ)/0.9 saves the outer nodes, where the weight is small anyway: for four
    tanh, 2000 nodes do better than 14641 of a product of Gauss-Hermite rules. Nodes come in pairs ±x, so odd functions
    vanish exactly. Source: Petersen & Middleton, Inf. Control 5, 279 (1962).

    Examples
    --------
    >>> nodes, weights = lattice_rule(4, 8192, 6.0)
    >>> nodes.shape, round(float(weights @ nodes[:, 0] ** 4), 3)
    ((8192, 4), 3.0)
    """
    import numpy as np

    rng = np.random.default_rng([dimension, shift])
    points = _nearest_points(dimension, count, rng)
    rotation, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    slope = 0.9
    rho = np.sqrt((points**2).sum(axis=1))
    scale = math.asinh(slope * radius) / slope / rho.max()
    stretched = slope * scale * rho
    stretch = np.where(stretched > 0, np.sinh(stretched) / np.maximum(stretched, 1e-300), 1.0)
    nodes = (points * (scale * stretch)[:, None]) @ rotation
    square = (nodes**2).sum(axis=1)
    weights = np.exp(-square / 2) * stretch ** (dimension - 1) * np.cosh(stretched)
    return _frozen(nodes, _with_moments(dimension, square, weights / weights.sum()))


def _with_moments(dimension: int, square: "numpy.ndarray", weights: "numpy.ndarray") -> "numpy.ndarray":
    """Return the weights times the quadratic polynomial of |x|² that makes the averages of 1, |x|² and |x|⁴ exact.

    It gives back what the cut-off took, where integrands grow: a part in 10⁵ of x⁴ in four dimensions.
    """
    import numpy as np

    powers = np.stack([square**p for p in range(3)])
    exact = np.array([1.0, dimension, dimension * (dimension + 2.0)])
    return weights * (np.linalg.solve((powers * weights) @ powers.T, exact) @ powers)


def _nearest_points(dimension: int, count: int, rng: "numpy.random.Generator") -> "numpy.ndarray":
    """Return the ``count`` points nearest to 0 of a lattice moved by half a lattice vector, in pairs ±x.

    Z, Z², D3* (body-centred), D4 and D5*: integer points, those with even sum, or besides them those moved by ½ in all
    coordinates. The half vector gives the terms of the error signs; without it they would all add up.
    """
    import numpy as np

    volume = {3: 0.5, 4: 2.0, 5: 0.5}.get(dimension, 1.0)
    ball = math.pi ** (dimension / 2) / math.gamma(dimension / 2 + 1)
    reach = math.ceil(1.1 * (count * volume / ball) ** (1 / dimension) + 1)
    axis = np.arange(-reach, reach + 1.0)
    grid = np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), -1).reshape(-1, dimension)
    if volume > 1:
        grid = grid[grid.sum(axis=1) % 2 == 0]
    elif volume < 1:
        grid = np.concatenate([grid, grid + 0.5])
    half = np.zeros(dimension)
    half[rng.permutation(dimension)[: max(1, dimension // 2)]] = 0.5
    grid = grid + half
    key = grid @ math.pi ** np.arange(dimension)  # no point but 0, which does not occur, is its own mirror image
    grid = grid[(key > 0) & ((grid**2).sum(axis=1) <= reach**2)]
    nearest = np.lexsort((*grid.T, (grid**2).sum(axis=1)))[: count // 2]
    return np.concatenate([grid[nearest], -grid[nearest][::-1]])


def half_range_gauss(count: int, rate: float = 1.0) -> "Rule":
    """Return the Gauss rule for the weight exp(−rate x²/2) on x > 0, by Stieltjes' procedure on a fine Legendre rule.

    Source: Gautschi, Orthogonal Polynomials (2004), section 2.2.

    Examples
    --------
    >>> nodes, weights = half_range_gauss(10)
    >>> round(float(weights @ nodes**3), 12)
    2.0
    """
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(200)
    x = 7 * (x + 1) / math.sqrt(rate)
    w = 7 * w / math.sqrt(rate) * np.exp(-rate * x**2 / 2)
    diagonal, beside = np.zeros(count), np.zeros(count)
    before, now = np.zeros_like(x), np.full_like(x, 1 / math.sqrt(w.sum()))
    for n in range(count):
        diagonal[n] = w @ (x * now**2)
        after = (x - diagonal[n]) * now - beside[n - 1] * before
        beside[n] = math.sqrt(w @ after**2)
        before, now = now, after / beside[n]
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return nodes, w.sum() * vectors[0] ** 2


def _split_rule(dimension: int, level: int, shift: int) -> "Rule":
    """Return the product of a half-range rule on each side of x₁ = 0 and a lattice rule for the other variables."""
    import numpy as np

    first, others = SPLIT[dimension]
    rate = 1 - 0.1 * (shift % 3)  # another rule of as many nodes
    half, weight = half_range_gauss(round(first / 2 * {-1: 0.75, 0: 1.0}.get(level, 1.6)), rate)
    weight = weight * np.exp((rate - 1) * half**2 / 2)
    nodes = np.concatenate([-half[::-1], half])[:, None]
    weights = np.concatenate([weight[::-1], weight])
    if dimension > 1:
        radius = LATTICE[dimension - 1][1] - 0.7 + 0.6 * level - 0.2 * (shift % 3)
        rest, rest_weights = lattice_rule(dimension - 1, _scaled(others, level, 0.8), radius, shift)
        nodes = np.concatenate([np.repeat(nodes, len(rest), axis=0), np.tile(rest, (len(nodes), 1))], axis=1)
        weights = np.outer(weights, rest_weights).ravel()
    return _frozen(nodes, weights)


def _sobol_rule(dimension: int, power: int, shift: int) -> "Rule":
    """Return scrambled Sobol points, mapped to normal ones. Source: Owen, J. Complexity 14, 466 (1998)."""
    import numpy as np
    from scipy.special import ndtri
    from scipy.stats import qmc

    points = qmc.Sobol(dimension, seed=np.random.default_rng([dimension, shift])).random_base2(power)
    return _frozen(ndtri(np.clip(points, 1e-12, 1 - 1e-12)), np.ones(len(points)))


def _scaled(count: int, level: int, power: float = 1.0) -> int:
    """Return an even number of nodes, ten times as many a level up and a fifth a level down."""
    factor = 10.0**level if level > 0 else 5.0**level
    return 2 * round(count * factor**power / 2)


def _frozen(nodes: "numpy.ndarray", weights: "numpy.ndarray") -> "Rule":
    """Return the rule with weights that add up to 1, as arrays that cannot be written to."""
    import numpy as np

    nodes, weights = np.ascontiguousarray(nodes), weights / weights.sum()
    nodes.flags.writeable = weights.flags.writeable = False
    return nodes, weights
